//! The agenda: one compact entry for each integration, indexes from Secrets to integrations, and
//! the instants at which something is to be done.
//!
//! It replaces kube-runtime's `Store` and `Controller`: those keep whole objects, double on a
//! relist, and start work in order of arrival (see `docs/src/decisions/agenda.md`).

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use kube::Resource as _;
use serde::{Deserialize, Serialize};

use super::observe::{self, Notes};
use super::resting::{self, Common, Front, Resting, Uid};
use super::rollout::Rollout;
use super::shops::Checks;
use crate::api::names::{MAX_REFRESH_REQUEST_BYTES, REFRESH_REQUESTED_AT};
use crate::api::{
    ConditionStatus, LastError, Reason, RefreshBefore, RolloutRestartTarget, TikTokShopIntegrationStatus,
};
use crate::cluster::{Regarding, Version, WatchedIntegration};
use crate::decide::{ClaimFacts, CodeFacts, TokenFacts};
use crate::metrics::{Fleet, FleetRow};
use crate::tokens::{AppKeyNames, Digest, SpentTokens, TokenKeyNames};

/// An integration's place in the agenda.
pub(super) type Id = u32;

/// The number of a list.
pub(super) type List = u32;

/// A Secret: namespace and name.
pub(super) type SecretName = (Arc<str>, Arc<str>);

/// An app Secret, and under which keys its values stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct AppRef {
    pub secret: SecretName,
    pub keys: Arc<AppKeyNames>,
}

/// What this process knows of a token Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Known {
    /// Nothing: it has to be read.
    Unread,
    /// There is none.
    NotFound,
    /// It may not be read; in the API server's words.
    Forbidden(Box<str>),
    /// It was read and lacks a token.
    Missing(Box<Lacking>),
    /// It holds both tokens.
    Held(Box<Held>),
}

/// What this process knows of a token Secret that lacks a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lacking {
    #[serde(with = "resting::uid")]
    pub uid: Box<str>,
    pub version: Version,
    /// What it lacks, in words.
    pub what: Box<str>,
    pub has_access: bool,
    pub access_expires_at: Option<i64>,
    /// The value of the annotation `handled-refresh-request`.
    pub handled: Option<Box<str>>,
    pub code: Option<Code>,
}

/// What this process knows of an authorization code that stands in a token Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Code {
    pub digest: Digest,
    pub facts: CodeFacts,
    /// Digest of the pair beside it; of none, where it stands there alone.
    pub pair: Digest,
    /// Digest of the refresh token beside it.
    pub refresh: Option<Digest>,
    /// What was spent before, as the Secret says, and the refresh token beside it.
    pub spent_before: SpentTokens,
    /// Lengths of the two tokens beside it, for the rehearsal.
    pub lengths: Option<(usize, usize)>,
}

/// What this process knows of a token Secret that holds both tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    #[serde(with = "resting::uid")]
    pub uid: Box<str>,
    pub version: Version,
    pub facts: TokenFacts,
    /// The value of the annotation `handled-refresh-request`.
    pub handled: Option<Box<str>>,
    /// What only a read of the data tells; `None` where the rest is taken from the status.
    pub read: Option<ReadFacts>,
    /// `None` also where the rest is taken from the status, which is not done while a code may give tokens.
    pub code: Option<Code>,
}

/// What only a read of the data tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReadFacts {
    /// Digest of the refresh token.
    pub refresh: Digest,
    /// Refresh tokens that were spent before, as the Secret says.
    pub spent_before: SpentTokens,
    /// When tokens were last stored by an operator, as the Secret says; others may stand there by now.
    pub refreshed_at: Option<i64>,
    /// Lengths of the two tokens, for the rehearsal.
    pub lengths: (usize, usize),
    /// Who last wrote the data.
    pub manager: Option<Box<str>>,
    /// That TikTok refused the refresh token, as the Secret says.
    pub rejected: Option<Box<Rejected>>,
}

/// A refusal that stands on a token Secret: the last thing that is known of the refresh token there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rejected {
    /// When it was noted, in Unix seconds.
    pub at: i64,
    /// TikTok's error code.
    pub code: Option<i64>,
    /// TikTok's name for the call.
    pub request_id: Option<Box<str>>,
}

impl Known {
    pub(super) fn version(&self) -> Option<(&str, &Version)> {
        match self {
            Self::Missing(lacking) => Some((&lacking.uid, &lacking.version)),
            Self::Held(held) => Some((&held.uid, &held.version)),
            Self::Unread | Self::NotFound | Self::Forbidden(_) => None,
        }
    }

    pub(super) fn version_mut(&mut self) -> Option<&mut Version> {
        match self {
            Self::Missing(lacking) => Some(&mut lacking.version),
            Self::Held(held) => Some(&mut held.version),
            Self::Unread | Self::NotFound | Self::Forbidden(_) => None,
        }
    }

    pub(super) fn held(&self) -> Option<&Held> {
        match self {
            Self::Held(held) => Some(held),
            _ => None,
        }
    }

    /// The authorization code that stands in it.
    pub(super) fn code(&self) -> Option<&Code> {
        match self {
            Self::Held(held) => held.code.as_ref(),
            Self::Missing(lacking) => lacking.code.as_ref(),
            _ => None,
        }
    }

    pub(super) fn code_mut(&mut self) -> Option<&mut Code> {
        match self {
            Self::Held(held) => held.code.as_mut(),
            Self::Missing(lacking) => lacking.code.as_mut(),
            _ => None,
        }
    }

    /// The code, where it may still give tokens.
    pub(super) fn open_code(&self) -> Option<&Code> {
        self.code().filter(|code| !code.facts.known_spent)
    }

    /// Was its data read, so that it is known whether a code stands in it?
    pub(super) fn is_read(&self) -> bool {
        match self {
            Self::Held(held) => held.read.is_some(),
            Self::Missing(_) | Self::NotFound => true,
            Self::Unread | Self::Forbidden(_) => false,
        }
    }

    /// The request that was last acted on, as the Secret says.
    pub(super) fn handled(&self) -> Option<&str> {
        match self {
            Self::Held(held) => held.handled.as_deref(),
            Self::Missing(lacking) => lacking.handled.as_deref(),
            _ => None,
        }
    }

    /// What the claim on it says of the tokens, and of the code.
    pub(super) fn claims(&self) -> impl Iterator<Item = ClaimFacts> {
        let of_tokens = self.held().and_then(|held| held.facts.claim);
        of_tokens.into_iter().chain(self.code().and_then(|code| code.facts.claim))
    }
}

/// Whose failure `status.lastError` tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ErrorOf {
    /// The tokens'.
    Tokens,
    /// An authorization code's; before it, the tokens had this one.
    Code {
        #[serde(with = "resting::error")]
        before: Option<Box<LastError>>,
    },
}

/// The last failure of an exchange. It is not kept through a restart, after which the code is tried at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CodeFailed {
    pub code: Digest,
    pub generation: i64,
    pub app: AppAtFailure,
    pub reason: Reason,
    /// In Unix seconds.
    pub at: i64,
    /// How often in a row.
    pub failures: u32,
}

/// What was the case when the last try failed: whatever differs now is a reason to try at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FailedWith {
    pub pair: Option<Digest>,
    pub generation: i64,
    pub app: AppAtFailure,
    pub request: Option<Box<str>>,
    /// What hindered it is over.
    pub is_past: bool,
}

/// The app Secret at the time of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum AppAtFailure {
    /// Its version was not known, or makes no difference.
    Any,
    /// It had this version.
    At(Version),
    /// It may have been corrected since.
    MaybeCorrected,
}

/// What an integration is busy with. Nothing else is begun for it meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Busy {
    No,
    /// Its token Secret is being read.
    Reading,
    /// It waits for a slot, a permit or its app's credentials.
    Queued,
    /// A refresh transaction is under way.
    Refreshing,
}

/// Why an answer could not be stored yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeldAnswer {
    /// What of it is the first thing to know.
    pub reason: Reason,
    /// In words.
    pub message: Box<str>,
}

/// One integration.
///
/// What is skipped here stands elsewhere in its resting form: see [`Resting`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Entry {
    #[serde(skip)]
    pub namespace: Arc<str>,
    #[serde(skip)]
    pub name: Box<str>,
    #[serde(with = "resting::uid")]
    pub uid: Box<str>,
    pub created_at: i64,
    pub generation: i64,
    #[serde(skip)]
    pub team: Option<Box<str>>,
    pub suspended: bool,
    pub refresh_before: Option<RefreshBefore>,
    #[serde(with = "resting::secret_name")]
    pub token_secret: SecretName,
    #[serde(skip)]
    pub token_keys: Arc<TokenKeyNames>,
    #[serde(skip)]
    pub app: AppRef,
    /// The request annotation's value.
    pub request: Option<Box<str>>,
    /// What is restarted after a rotation, where the spec names anything.
    pub rollout: Option<Box<Rollout>>,
    /// The status as this process would have it; the leader is its only writer.
    #[serde(skip)]
    pub status: Box<TikTokShopIntegrationStatus>,
    /// Fingerprint of the status that the API server has, as far as is known.
    pub served_status: u64,
    /// The version that this process's last status write made; what is older says nothing of it.
    pub status_version: Option<Version>,
    pub known: Known,
    pub busy: Busy,
    /// Where it stands in the queue of wake-ups.
    pub wake_at: Option<i64>,
    pub failed_with: Option<FailedWith>,
    pub error_of: ErrorOf,
    pub code_failed: Option<CodeFailed>,
    /// Why an answer for it is held, where one is.
    pub held_answer: Option<HeldAnswer>,
    /// Where `hoursUntilExpiry` is to be looked at next, in Unix seconds.
    #[serde(with = "resting::instant")]
    pub next_tick: i64,
    /// In `named` mode: when the Secrets are to be read again.
    #[serde(with = "resting::instant")]
    pub next_poll: i64,
    /// Marks entries seen in a list; what a finished list has not seen is gone.
    pub seen_in: List,
    /// Was a warning given of the refresh token's expiry, and for which pair?
    pub warned_expiring: Option<Digest>,
    /// Fingerprint of the values in its Secret that were last warned of.
    pub warned_problems: u64,
    /// Tries in a row that ended before the call, with nothing to say of the token.
    pub put_off: u8,
    /// Was a warning given of a request that is too long?
    pub warned_request: bool,
    /// Digest of the refresh token that this process last spent for it.
    pub last_spent: Option<Digest>,
    /// Digest of the authorization code that this process last exchanged for it, or that TikTok refused.
    pub last_code: Option<Digest>,
    /// Since when it waits to start, in Unix seconds.
    #[serde(with = "resting::instant")]
    pub queued_at: i64,
    /// Is a status write in line or under way?
    pub writing_status: bool,
    /// What is known of the checks of its shops, where it asks for them.
    pub checks: Option<Box<Checks>>,
    /// Is `status` as `report` made it? What an outcome has only begun to change is not written.
    pub reported: bool,
}

impl Entry {
    /// Takes over a whole status, one that may be written.
    pub(super) fn set_status(&mut self, status: TikTokShopIntegrationStatus) {
        *self.status = status;
        self.reported = true;
    }

    /// The last failure of the tokens, also where `status.lastError` tells of a code's.
    pub(super) fn error_of_tokens(&self) -> Option<&LastError> {
        match &self.error_of {
            ErrorOf::Tokens => self.status.last_error.as_ref(),
            ErrorOf::Code { before } => before.as_deref(),
        }
    }

    pub(super) fn regarding(&self) -> Regarding {
        Regarding { namespace: (*self.namespace).into(), name: self.name.clone(), uid: self.uid.clone() }
    }

    /// The request annotation's value, where it is new: handled neither by the Secret's nor by the
    /// status' word, and not too long.
    pub(super) fn new_request(&self) -> Option<&str> {
        let request = self.request.as_deref().filter(|request| request.len() <= MAX_REFRESH_REQUEST_BYTES)?;
        let handled_on_secret = self.known.handled();
        let handled_in_status = self.status.last_handled_refresh_request.as_deref();
        (handled_on_secret != Some(request) && handled_in_status != Some(request)).then_some(request)
    }

    /// Fixed for each integration, and different from one to the next.
    pub(super) fn seed(&self) -> u64 {
        // FNV-1a: the same in every version of this program, unlike the standard library's hasher.
        self.uid
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }

    /// Which refreshes go first: what expires first. A code is about to expire.
    pub(super) fn priority(&self, now: i64) -> i64 {
        let expires_at = self.known.held().and_then(|held| held.facts.access_expires_at).unwrap_or(now);
        if self.known.open_code().is_some() { expires_at.min(now) } else { expires_at }
    }
}

/// A referenced Secret.
pub(super) struct Slot {
    namespace: Arc<str>,
    name: Box<str>,
    /// What the metadata watch says of it.
    pub presence: Presence,
    /// Integrations that keep their tokens in it.
    pub tokens_of: Ids,
    /// Integrations that take their app's credentials from it.
    pub app_of: Ids,
    /// The list that last saw it.
    pub seen_in: List,
    /// How many lists had begun when it was first referenced: an older list says nothing of it.
    pub since: List,
}

impl Slot {
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

/// Integrations: of most Secrets, there is one.
#[derive(Debug, Clone, Default)]
pub(super) enum Ids {
    #[default]
    None,
    One(Id),
    #[expect(clippy::box_collection, reason = "a tenth of the room where there are none, as with nearly all")]
    Many(Box<Vec<Id>>),
}

impl Ids {
    fn push(&mut self, id: Id) {
        match self {
            Self::None => *self = Self::One(id),
            Self::One(other) => *self = Self::Many(Box::new(vec![*other, id])),
            Self::Many(ids) => ids.push(id),
        }
    }

    fn remove(&mut self, id: Id) {
        match self {
            Self::One(other) if *other == id => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(ids) => ids.retain(|other| *other != id),
        }
    }
}

impl Deref for Ids {
    type Target = [Id];

    fn deref(&self) -> &[Id] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

/// What the metadata watch says of a Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Presence {
    /// Nothing yet.
    #[default]
    Untold,
    /// It is not there.
    Absent,
    /// It is there, at this version.
    Present(Metadata),
}

/// A Secret's metadata, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub uid: Uid<'static>,
    pub version: Version,
    /// What this operator's annotations on it say; dropped once it is used.
    pub notes: Option<Box<Notes>>,
}

/// Where an integration is kept.
enum Place {
    Free,
    /// Being worked with.
    Awake(Box<Awake>),
    Resting(Resting),
}

/// An entry that is being worked with.
struct Awake {
    entry: Entry,
    /// Where it rested before: the next rest is to be there again.
    bed: Option<Resting>,
}

impl Place {
    fn look(&self) -> Option<Look<'_>> {
        match self {
            Self::Free => None,
            Self::Awake(awake) => Some(Look::Awake(&awake.entry)),
            Self::Resting(resting) => Some(Look::Resting(Box::new(resting.awake()))),
        }
    }

    fn key(&self) -> Option<(&str, &str)> {
        match self {
            Self::Free => None,
            Self::Awake(awake) => Some((&awake.entry.namespace, &awake.entry.name)),
            Self::Resting(resting) => Some((resting.namespace(), resting.front().name)),
        }
    }

    /// What is looked at most often, and the namespace.
    fn front(&self) -> Option<(&str, Front<'_>)> {
        match self {
            Self::Free => None,
            Self::Awake(awake) => Some((&awake.entry.namespace, Front::of(&awake.entry))),
            Self::Resting(resting) => Some((resting.namespace(), resting.front())),
        }
    }
}

/// A look at an entry, which may be at rest.
pub(super) enum Look<'a> {
    Awake(&'a Entry),
    Resting(Box<Entry>),
}

impl Deref for Look<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        match self {
            Self::Awake(entry) => entry,
            Self::Resting(entry) => entry,
        }
    }
}

/// All integrations.
#[derive(Default)]
pub(super) struct Agenda {
    places: Vec<Place>,
    free: Vec<Id>,
    /// Those that are awake.
    awake: Vec<Id>,
    /// Room to put entries to rest in.
    scratch: Vec<u8>,
    by_name: HashTable<Id>,
    hasher: DefaultHashBuilder,
    commons: HashMap<Common, Arc<Common>>,
    slots: HashTable<Box<Slot>>,
    namespaces: HashMap<Box<str>, Arc<str>>,
    token_keys: HashMap<TokenKeyNames, Arc<TokenKeyNames>>,
    app_keys: HashMap<AppKeyNames, Arc<AppKeyNames>>,
    wakes: BTreeSet<(i64, Id)>,
    /// How many lists have begun.
    lists: List,
}

/// What an object asks for, in the agenda's own terms.
struct Wanted {
    namespace: Arc<str>,
    name: Box<str>,
    uid: Box<str>,
    version: Option<Version>,
    generation: i64,
    request: Option<Box<str>>,
    team: Option<Box<str>>,
    suspended: bool,
    refresh_before: Option<RefreshBefore>,
    token_secret: SecretName,
    token_keys: Arc<TokenKeyNames>,
    app: AppRef,
    targets: Vec<RolloutRestartTarget>,
    check_shops: bool,
    served_status: u64,
}

/// What was the case at the failure that a status tells of, where an integration has this request.
fn failed_with(status: &TikTokShopIntegrationStatus, request: Option<&str>) -> Option<FailedWith> {
    let error = status.last_error.as_ref().filter(|_| error_of(status) == ErrorOf::Tokens)?;
    Some(FailedWith {
        pair: status
            .observed_token_secret
            .as_ref()
            .and_then(|observed| observed.tokens_digest.as_deref())
            .and_then(Digest::parse),
        generation: status.observed_generation.unwrap_or(0),
        // A corrected app secret can't be told from the status: refused credentials are tried once
        // more after a restart.
        app: if error.known_reason() == Some(Reason::AppCredentialsRejected) {
            AppAtFailure::MaybeCorrected
        } else {
            AppAtFailure::Any
        },
        // A request that TikTok had no time for is not handled: it may be the one that was one too many.
        request: match error.known_reason() {
            Some(Reason::RateLimited) => request,
            _ => status.last_handled_refresh_request.as_deref(),
        }
        .map(Into::into),
        is_past: false,
    })
}

/// Whose failure a status tells of, as far as it says.
fn error_of(status: &TikTokShopIntegrationStatus) -> ErrorOf {
    match status.last_error.as_ref().and_then(LastError::known_reason) {
        Some(Reason::AuthorizationCodeRejected) => ErrorOf::Code { before: None },
        _ => ErrorOf::Tokens,
    }
}

/// What an integration's new version changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It is new here.
    New,
    /// It names another token Secret; this was the one before.
    Moved(SecretName),
    /// Something else, or nothing.
    Other,
}

impl Agenda {
    /// A list begins: its number.
    pub(super) fn begin_list(&mut self) -> List {
        self.lists += 1;
        self.lists
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn get(&self, id: Id) -> Option<Look<'_>> {
        self.places.get(id as usize)?.look()
    }

    /// Wakes an entry, until [`Self::rest`].
    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Entry> {
        let place = self.places.get_mut(id as usize)?;
        *place = match std::mem::replace(place, Place::Free) {
            Place::Resting(resting) => {
                self.awake.push(id);
                Place::Awake(Box::new(Awake { entry: resting.awake(), bed: Some(resting) }))
            }
            place => place,
        };
        match place {
            Place::Awake(awake) => Some(&mut awake.entry),
            _ => None,
        }
    }

    /// Namespace and name.
    pub(super) fn key(&self, id: Id) -> Option<(&str, &str)> {
        key_at(&self.places, id)
    }

    /// Puts everything to rest that was woken.
    pub(super) fn rest(&mut self) {
        let most_commons = 2 * self.places.len();
        while let Some(id) = self.awake.pop() {
            let Some(place @ Place::Awake(_)) = self.places.get_mut(id as usize) else { continue };
            let Place::Awake(mut awake) = std::mem::replace(place, Place::Free) else { continue };
            let (common, room) = awake.bed.take().map(Resting::leave).unzip();
            let entry = &awake.entry;
            let common = common.filter(|common| common.is_of(entry)).unwrap_or_else(|| {
                if self.commons.len() > most_commons {
                    self.commons.retain(|_, common| Arc::strong_count(common) > 1);
                }
                intern(&mut self.commons, Common::of(entry))
            });
            *place = Place::Resting(Resting::new(entry, common, room.unwrap_or_default(), &mut self.scratch));
        }
    }

    pub(super) fn ids(&self) -> Vec<Id> {
        self.by_name.iter().copied().collect()
    }

    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<Id> {
        let key = (namespace, name);
        self.by_name.find(self.hasher.hash_one(key), |id| key_at(&self.places, *id) == Some(key)).copied()
    }

    pub(super) fn slot(&self, secret: &SecretName) -> Option<&Slot> {
        let key = (&*secret.0, &*secret.1);
        self.slots.find(self.hasher.hash_one(key), |slot| slot.key() == key).map(|slot| &**slot)
    }

    pub(super) fn slot_mut(&mut self, namespace: &str, name: &str) -> Option<&mut Slot> {
        let key = (namespace, name);
        self.slots.find_mut(self.hasher.hash_one(key), |slot| slot.key() == key).map(|slot| &mut **slot)
    }

    /// Does an older integration keep its tokens in the same Secret? Its name.
    pub(super) fn owner_before(&self, id: Id) -> Option<Box<str>> {
        let entry = self.get(id)?;
        let sharers = self.slot(&entry.token_secret).map(|slot| &slot.tokens_of).filter(|ids| ids.len() > 1)?;
        let age = |entry: &Entry| (entry.created_at, entry.uid.clone());
        let mine = age(&entry);
        let others = sharers.iter().filter(|&&other| other != id);
        others
            .filter_map(|&other| self.get(other))
            .filter(|other| age(other) < mine)
            .min_by_key(|other| age(other))
            .map(|other| other.name.clone())
    }

    /// Takes in an integration as the watch delivered it. `None` where its spec can't be read.
    pub(super) fn apply(&mut self, object: WatchedIntegration, list: List, leading: bool) -> Option<(Id, Change)> {
        let wanted = self.read(&object)?;
        let status = object.status.unwrap_or_default();
        match self.find(&wanted.namespace, &wanted.name) {
            Some(id) if self.get_mut(id).is_some_and(|entry| entry.uid == wanted.uid) => {
                Some((id, self.change(id, wanted, status, list, leading)?))
            }
            // One of the same name with another UID was taken out before: see `replaced_by`.
            _ => Some((self.add(wanted, status, object.created_at, list), Change::New)),
        }
    }

    /// The integration that this object takes the place of: of the same name, deleted and created
    /// anew between two looks.
    pub(super) fn replaced_by(&mut self, object: &WatchedIntegration) -> Option<Id> {
        let meta = object.meta();
        let id = self.find(meta.namespace.as_deref()?, meta.name.as_deref()?)?;
        (Some(&*self.get_mut(id)?.uid) != meta.uid.as_deref()).then_some(id)
    }

    /// What an object asks for.
    fn read(&mut self, object: &WatchedIntegration) -> Option<Wanted> {
        let meta = object.meta();
        let (namespace, name) = (meta.namespace.as_deref()?, meta.name.as_deref()?);
        let spec = match &object.spec {
            Ok(spec) => spec,
            Err(why) => {
                tracing::warn!(
                    namespace,
                    name,
                    why,
                    "an integration can't be read and is left alone: apply the CRD of this version and write its spec anew"
                );
                return None;
            }
        };
        let namespace = self.intern_namespace(namespace);
        let keys = &spec.token_secret_ref.keys;
        let token_keys = TokenKeyNames {
            access_token: keys.access_token.as_str().into(),
            access_token_expire_in: keys.access_token_expire_in.as_str().into(),
            refresh_token: keys.refresh_token.as_str().into(),
            refresh_token_expire_in: keys.refresh_token_expire_in.as_str().into(),
            auth_code: keys.auth_code.as_str().into(),
        };
        let keys = &spec.app_credentials_secret_ref.keys;
        let app_keys =
            AppKeyNames { app_key: keys.app_key.as_str().into(), app_secret: keys.app_secret.as_str().into() };
        Some(Wanted {
            name: name.into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            version: meta.resource_version.as_deref().and_then(Version::new),
            generation: meta.generation.unwrap_or(0),
            request: meta
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(REFRESH_REQUESTED_AT))
                .map(|value| value.as_str().into()),
            team: spec.team_id.as_deref().map(Into::into),
            suspended: spec.suspend,
            refresh_before: spec.refresh_before(),
            token_secret: (Arc::clone(&namespace), spec.token_secret_ref.name.as_str().into()),
            token_keys: intern(&mut self.token_keys, token_keys),
            app: AppRef {
                secret: (Arc::clone(&namespace), spec.app_credentials_secret_ref.name.as_str().into()),
                keys: intern(&mut self.app_keys, app_keys),
            },
            targets: spec.rollout_restart_targets.clone(),
            check_shops: spec.check_shops,
            served_status: fingerprint(object.status.as_ref()),
            namespace,
        })
    }

    fn change(
        &mut self,
        id: Id,
        wanted: Wanted,
        status: TikTokShopIntegrationStatus,
        list: List,
        leading: bool,
    ) -> Option<Change> {
        let entry = self.get_mut(id)?;
        let moved = entry.token_secret != wanted.token_secret || entry.token_keys != wanted.token_keys;
        // Older than this process's own last write, so it says nothing of the status there now.
        let outdated = entry
            .status_version
            .as_ref()
            .zip(wanted.version.as_ref())
            .is_some_and(|(own, told)| own.covers(told) && own != told);
        if !entry.writing_status && !outdated {
            entry.served_status = wanted.served_status;
        }
        // As long as this process wrote nothing of its own, the status there is the truth: another
        // leader's last word may arrive after its end.
        if !leading || (entry.status_version.is_none() && !entry.writing_status && entry.busy != Busy::Refreshing) {
            // The request of before: one that comes in only now is not what failed.
            entry.failed_with = failed_with(&status, entry.request.as_deref());
            entry.error_of = error_of(&status);
            entry.checks = None;
            entry.set_status(status);
        }
        // While it was suspended, the status told less than all.
        if moved || (entry.suspended && !wanted.suspended && entry.known.held().is_none_or(|held| held.read.is_none()))
        {
            entry.known = Known::Unread;
        }
        let (old_token, old_app) = (entry.token_secret.clone(), entry.app.secret.clone());
        let (new_token, new_app) = (wanted.token_secret.clone(), wanted.app.secret.clone());
        entry.generation = wanted.generation;
        entry.request = wanted.request;
        entry.team = wanted.team;
        entry.checks = match entry.checks.take() {
            _ if !wanted.check_shops => None,
            None => Some(Box::new(Checks::from_status(&entry.status))),
            checks => checks,
        };
        entry.suspended = wanted.suspended;
        entry.refresh_before = wanted.refresh_before;
        entry.token_secret = wanted.token_secret;
        entry.token_keys = wanted.token_keys;
        entry.app = wanted.app;
        Rollout::change(&mut entry.rollout, &wanted.targets);
        entry.seen_in = list;
        if old_token != new_token || old_app != new_app {
            self.unlink(id, &old_token, &old_app);
            self.link(id, &new_token, &new_app);
        }
        Some(if old_token == new_token { Change::Other } else { Change::Moved(old_token) })
    }

    fn add(&mut self, wanted: Wanted, status: TikTokShopIntegrationStatus, created_at: i64, list: List) -> Id {
        let checks = wanted.check_shops.then(|| Box::new(Checks::from_status(&status)));
        let hash = self.hasher.hash_one((&*wanted.namespace, &*wanted.name));
        let (token_secret, app_secret) = (wanted.token_secret.clone(), wanted.app.secret.clone());
        let entry = Entry {
            failed_with: failed_with(&status, wanted.request.as_deref()),
            error_of: error_of(&status),
            code_failed: None,
            status: Box::new(status),
            namespace: wanted.namespace,
            name: wanted.name,
            uid: wanted.uid,
            created_at,
            generation: wanted.generation,
            team: wanted.team,
            suspended: wanted.suspended,
            refresh_before: wanted.refresh_before,
            token_secret: wanted.token_secret,
            token_keys: wanted.token_keys,
            app: wanted.app,
            request: wanted.request,
            rollout: Rollout::of(&wanted.targets),
            served_status: wanted.served_status,
            status_version: None,
            known: Known::Unread,
            busy: Busy::No,
            wake_at: None,
            held_answer: None,
            next_tick: i64::MIN,
            next_poll: i64::MIN,
            seen_in: list,
            warned_expiring: None,
            warned_problems: 0,
            put_off: 0,
            warned_request: false,
            last_spent: None,
            last_code: None,
            queued_at: i64::MAX,
            writing_status: false,
            checks,
            reported: true,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::Free);
            Id::try_from(self.places.len() - 1).unwrap_or(Id::MAX)
        });
        self.places[id as usize] = Place::Awake(Box::new(Awake { entry, bed: None }));
        self.awake.push(id);
        let (places, hasher) = (&self.places, &self.hasher);
        self.by_name.insert_unique(hash, id, |id| hasher.hash_one(key_at(places, *id).unwrap_or_default()));
        self.link(id, &token_secret, &app_secret);
        id
    }

    /// Takes out an integration.
    pub(super) fn remove(&mut self, id: Id) {
        let Some(entry) = self.get_mut(id) else { return };
        let (wake_at, token_secret, app_secret) = (entry.wake_at, entry.token_secret.clone(), entry.app.secret.clone());
        let hash = self.hasher.hash_one(key_at(&self.places, id).unwrap_or_default());
        if let Ok(found) = self.by_name.find_entry(hash, |other| *other == id) {
            found.remove();
        }
        if let Some(at) = wake_at {
            self.wakes.remove(&(at, id));
        }
        self.unlink(id, &token_secret, &app_secret);
        self.places[id as usize] = Place::Free;
        self.free.push(id);
    }

    /// Integrations of a namespace (of all, where `None`) that a finished list has not seen.
    pub(super) fn unseen(&self, namespace: Option<&str>, list: List) -> Vec<Id> {
        let is_unseen =
            |entry: &Entry| entry.seen_in != list && namespace.is_none_or(|namespace| *entry.namespace == *namespace);
        self.by_name.iter().copied().filter(|id| self.get(*id).is_some_and(|entry| is_unseen(&entry))).collect()
    }

    /// Marks Secrets that a finished list has not seen as absent, and gives the integrations
    /// concerned.
    pub(super) fn sweep_secrets(&mut self, namespace: Option<&str>, list: List) -> Vec<Id> {
        let mut concerned = Vec::new();
        for slot in &mut self.slots {
            if namespace.is_none_or(|namespace| *slot.namespace == *namespace)
                && slot.seen_in != list
                && slot.since < list
            {
                slot.presence = Presence::Absent;
                concerned.extend(slot.tokens_of.iter().chain(&*slot.app_of));
            }
        }
        concerned
    }

    /// Drops what a Secret's annotations say: it was used, and there is as much of it as there are shops.
    pub(super) fn drop_notes(&mut self, secret: &SecretName) {
        if let Some(Slot { presence: Presence::Present(metadata), .. }) = self.slot_mut(&secret.0, &secret.1) {
            metadata.notes = None;
        }
    }

    /// Takes over what its status says of a token Secret that nobody read, where it speaks of what the watch shows.
    pub(super) fn take_over_from_status(&mut self, id: Id) -> bool {
        let Some(entry) = self.get_mut(id).filter(|entry| entry.known == Known::Unread) else { return false };
        let secret = entry.token_secret.clone();
        let presence = self.slot(&secret).map(|slot| &slot.presence);
        let Some(Presence::Present(metadata)) = presence else { return false };
        // Awake by now, so that it is not made whole a second time.
        let known = self.get(id).and_then(|entry| observe::from_status(&entry.status, metadata));
        let Some((known, entry)) = known.zip(self.get_mut(id)) else { return false };
        entry.known = known;
        self.drop_notes(&secret);
        true
    }

    /// Has every token Secret read again before anything is decided on it.
    pub(super) fn forget_secrets(&mut self) {
        self.change_each(|entry| entry.known = Known::Unread);
    }

    /// Has every instant computed anew: wall time was set.
    pub(super) fn forget_instants(&mut self) {
        self.change_each(|entry| {
            entry.next_tick = i64::MIN;
            entry.next_poll = i64::MIN;
            if entry.known.claims().next().is_some() {
                entry.known = Known::Unread;
            }
        });
    }

    fn change_each(&mut self, change: impl Fn(&mut Entry)) {
        for id in self.ids() {
            if let Some(entry) = self.get_mut(id) {
                change(entry);
            }
            self.rest();
        }
    }

    /// Sets when an integration is to be looked at next.
    pub(super) fn wake(&mut self, id: Id, at: i64) {
        let Some(entry) = self.get_mut(id) else { return };
        match entry.wake_at.replace(at) {
            Some(before) if before == at => return,
            Some(before) => drop(self.wakes.remove(&(before, id))),
            None => {}
        }
        self.wakes.insert((at, id));
    }

    /// The next instant at which something is to be done.
    pub(super) fn next_wake(&self) -> Option<i64> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Takes out one integration whose time has come.
    pub(super) fn pop_due(&mut self, now: i64) -> Option<Id> {
        let &(at, id) = self.wakes.first().filter(|(at, _)| *at <= now)?;
        self.wakes.remove(&(at, id));
        if let Some(entry) = self.get_mut(id) {
            entry.wake_at = None;
        }
        Some(id)
    }

    fn intern_namespace(&mut self, namespace: &str) -> Arc<str> {
        if let Some(known) = self.namespaces.get(namespace) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = namespace.into();
        self.namespaces.insert(namespace.into(), Arc::clone(&shared));
        shared
    }

    fn link(&mut self, id: Id, token: &SecretName, app: &SecretName) {
        self.slot_of(token).tokens_of.push(id);
        self.slot_of(app).app_of.push(id);
    }

    /// The slot of a Secret, a new one where there is none.
    fn slot_of(&mut self, secret: &SecretName) -> &mut Slot {
        let key = (&*secret.0, &*secret.1);
        let (hasher, since) = (&self.hasher, self.lists);
        let new = || Slot {
            namespace: Arc::clone(&secret.0),
            name: (*secret.1).into(),
            presence: Presence::Untold,
            tokens_of: Ids::None,
            app_of: Ids::None,
            seen_in: 0,
            since,
        };
        self.slots
            .entry(hasher.hash_one(key), |slot| slot.key() == key, |slot| hasher.hash_one(slot.key()))
            .or_insert_with(|| Box::new(new()))
            .into_mut()
    }

    fn unlink(&mut self, id: Id, token: &SecretName, app: &SecretName) {
        if let Some(slot) = self.slot_mut(&token.0, &token.1) {
            slot.tokens_of.remove(id);
        }
        if let Some(slot) = self.slot_mut(&app.0, &app.1) {
            slot.app_of.remove(id);
        }
        for secret in [token, app] {
            let key = (&*secret.0, &*secret.1);
            let unused = |slot: &Slot| slot.key() == key && slot.tokens_of.is_empty() && slot.app_of.is_empty();
            if let Ok(found) = self.slots.find_entry(self.hasher.hash_one(key), |slot| unused(slot)) {
                found.remove();
            }
        }
    }
}

/// Namespace and name of the integration in a place.
fn key_at(places: &[Place], id: Id) -> Option<(&str, &str)> {
    places.get(id as usize)?.key()
}

fn intern<T: Clone + Eq + std::hash::Hash>(known: &mut HashMap<T, Arc<T>>, value: T) -> Arc<T> {
    if let Some(shared) = known.get(&value) {
        return Arc::clone(shared);
    }
    let shared = Arc::new(value.clone());
    known.insert(value, Arc::clone(&shared));
    shared
}

/// Whole seconds, as times are counted here.
pub(super) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Tells two statuses apart, within this process; an absent one is 0.
pub(super) fn fingerprint(status: Option<&TikTokShopIntegrationStatus>) -> u64 {
    static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);
    status.map_or(0, |status| HASHER.hash_one(status))
}

/// The agenda as the metrics see it.
pub(super) struct SharedAgenda(pub std::sync::Mutex<Agenda>);

impl SharedAgenda {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Agenda> {
        // A panic in the work loop ends the process; until then a scrape may still read.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Fleet for SharedAgenda {
    fn for_each(&self, row: &mut dyn FnMut(FleetRow<'_>)) {
        let now = crate::clock::Clock::now().timestamp();
        for (namespace, front) in self.lock().places.iter().filter_map(Place::front) {
            row(FleetRow {
                namespace,
                name: front.name,
                team: front.team,
                ready: front.ready.map_or("Unknown", ConditionStatus::as_str),
                reason: front.reason().map_or("", Reason::as_str),
                access_expires_at: front.access_expires_at,
                refresh_expires_at: front.refresh_expires_at,
                overdue: front.is_overdue(now),
            });
        }
    }
}
