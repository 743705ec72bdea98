//! Entries at rest: nearly all of a fleet, nearly all of the time. Each is one short block of bytes instead of a hundred
//! fields and two dozen allocations, and is made whole again when somebody looks at it.
//!
//! Nothing is left out: what is made whole is equal to what was put to rest, which every debug build checks each time.
//! What many integrations share (a namespace, the names of keys, an app Secret) is kept once, beside the bytes.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::agenda::{AppRef, Entry, Known};
use crate::api::timestamp::{format, parse};
use crate::api::{
    CheckedShop, Condition, ConditionStatus, ConditionType, LastError, ObservedTokenSecret, Reason, RolloutRestart,
    Seller, TikTokShopIntegrationStatus,
};
use crate::cluster::Version;
use crate::hex;
use crate::tokens::{Digest, TokenKeyNames};

/// What many integrations share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Common {
    pub namespace: Arc<str>,
    pub token_keys: Arc<TokenKeyNames>,
    pub app: AppRef,
}

impl Common {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            namespace: Arc::clone(&entry.namespace),
            token_keys: Arc::clone(&entry.token_keys),
            app: entry.app.clone(),
        }
    }

    /// Is it what this entry shares? Equals that stand elsewhere in memory may be taken for others: that costs a look.
    pub(super) fn is_of(&self, entry: &Entry) -> bool {
        Arc::ptr_eq(&self.namespace, &entry.namespace)
            && Arc::ptr_eq(&self.token_keys, &entry.token_keys)
            && Arc::ptr_eq(&self.app.keys, &entry.app.keys)
            && Arc::ptr_eq(&self.app.secret.0, &entry.app.secret.0)
            && self.app.secret.1 == entry.app.secret.1
    }
}

/// What is looked at most often: it stands before the rest, and is read without it.
#[derive(Serialize, Deserialize)]
pub(super) struct Front<'a> {
    pub name: &'a str,
    pub team: Option<&'a str>,
    pub ready: Option<ConditionStatus>,
    /// Its place in [`Reason::ALL`].
    reason: Option<u8>,
    pub access_expires_at: Option<i64>,
    pub refresh_expires_at: Option<i64>,
    next_refresh_at: Option<i64>,
    last_attempt_at: Option<i64>,
}

/// How many times of a status stand in its [`Front`].
const FRONT_TIMES: usize = 4;

impl<'a> Front<'a> {
    pub(super) fn of(entry: &'a Entry) -> Self {
        let ready = entry.status.condition(ConditionType::Ready);
        let seconds = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp());
        Self {
            name: &entry.name,
            team: entry.team.as_deref(),
            ready: ready.map(|ready| ready.status),
            reason: ready.and_then(Condition::known_reason).map(|reason| reason as u8),
            access_expires_at: seconds(entry.status.access_token_expires_at),
            refresh_expires_at: seconds(entry.status.refresh_token_expires_at),
            next_refresh_at: seconds(entry.status.next_refresh_time),
            last_attempt_at: seconds(entry.status.last_attempt_time),
        }
    }

    /// The times of a status that stand here.
    fn times(&self) -> [Option<i64>; FRONT_TIMES] {
        [self.access_expires_at, self.refresh_expires_at, self.next_refresh_at, self.last_attempt_at]
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        Reason::ALL.get(usize::from(self.reason?)).copied()
    }

    /// Was it due some time ago, and nobody has tried?
    pub(super) fn is_overdue(&self, now: i64) -> bool {
        const GRACE: i64 = 60;
        self.next_refresh_at
            .is_some_and(|next| next + GRACE < now && self.last_attempt_at.is_none_or(|attempted| attempted < next))
    }
}

/// Where the bytes of an entry stand. What stands there of an earlier rest, behind those of the present one, says nothing.
pub(super) type Room = Box<[u8]>;

/// What the first look at its token Secret adds to an entry, in bytes: a fleet is at rest before it, and where each entry
/// needed a larger room then, all the rooms before would be left as holes.
const FIRST_LOOK: usize = 48;

/// The most of a room that is left unused.
const MOST_UNUSED: usize = 128;

/// Rooms with what the allocator writes before each are as large as a multiple of this, as it makes them.
const STEP: usize = 16;
const HEADER: usize = 8;

/// An entry at rest.
pub(super) struct Resting {
    common: Arc<Common>,
    bytes: Room,
}

/// A status without what stands beside it already.
#[derive(Serialize, Deserialize)]
struct Rest<'a> {
    status: Status<'a>,
    /// Is what it observed of the token Secret what is known of it?
    observed_as_known: bool,
}

impl<'a> Rest<'a> {
    fn pack(entry: &'a Entry) -> Self {
        let mut status = Status::pack(&entry.status);
        status.times[..FRONT_TIMES].fill(None);
        let known = Observed::of(&entry.known);
        let observed_as_known = known.is_some() && known == status.observed_token_secret;
        if observed_as_known {
            status.observed_token_secret = None;
        }
        Self { status, observed_as_known }
    }

    fn unpack(mut self, front: &Front<'_>, known: &Known) -> TikTokShopIntegrationStatus {
        self.status.times[..FRONT_TIMES].copy_from_slice(&front.times());
        let mut status = self.status.unpack();
        if self.observed_as_known {
            status.observed_token_secret = Observed::of(known).map(Observed::unpack);
        }
        status
    }
}

impl Resting {
    /// Puts an entry to rest, in the room where it rested before if it still fits. `scratch` is memory to work in.
    pub(super) fn new(entry: &Entry, common: Arc<Common>, mut room: Room, scratch: &mut Vec<u8>) -> Self {
        scratch.clear();
        // Into memory, and of types that have no way to fail.
        let whole = (Front::of(entry), Rest::pack(entry), entry);
        *scratch = postcard::to_extend(&whole, std::mem::take(scratch)).expect("an entry has a form in bytes");
        let needed = scratch.len();
        if !(needed..=needed + MOST_UNUSED).contains(&room.len()) {
            let grows = if entry.known == Known::Unread { FIRST_LOOK } else { 0 };
            room = vec![0; (needed + grows + HEADER).next_multiple_of(STEP) - HEADER].into();
        }
        room[..needed].copy_from_slice(scratch);
        let resting = Self { common, bytes: room };
        debug_assert_eq!(*entry, resting.awake(), "an entry changes by being put to rest");
        resting
    }

    /// What the next rest may use again.
    pub(super) fn leave(self) -> (Arc<Common>, Room) {
        (self.common, self.bytes)
    }

    /// The entry, made whole.
    pub(super) fn awake(&self) -> Entry {
        let (front, rest, mut entry): (Front<'_>, Rest<'_>, Entry) =
            postcard::from_bytes(&self.bytes).expect("these bytes were made from an entry");
        *entry.status = rest.unpack(&front, &entry.known);
        entry.name = front.name.into();
        entry.team = front.team.map(Into::into);
        let Common { namespace, token_keys, app } = &*self.common;
        entry.namespace = Arc::clone(namespace);
        entry.token_secret.0 = Arc::clone(namespace);
        entry.token_keys = Arc::clone(token_keys);
        entry.app = app.clone();
        entry
    }

    pub(super) fn namespace(&self) -> &str {
        &self.common.namespace
    }

    pub(super) fn front(&self) -> Front<'_> {
        postcard::take_from_bytes(&self.bytes).expect("these bytes were made from an entry").0
    }
}

/// A UID: a UUID wherever the API server made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Uid<'a> {
    Uuid([u8; 16]),
    Other(Cow<'a, str>),
}

/// Where a UUID's text has its hyphens.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl<'a> Uid<'a> {
    pub(super) fn pack(text: &'a str) -> Self {
        let parse = || {
            let bytes = text.as_bytes();
            if bytes.len() != 36 || HYPHENS.iter().any(|at| bytes[*at] != b'-') {
                return None;
            }
            let mut digits = bytes.iter().enumerate().filter(|(at, _)| !HYPHENS.contains(at)).map(|(_, byte)| *byte);
            let mut packed = [0; 16];
            for byte in &mut packed {
                *byte = hex::byte([digits.next()?, digits.next()?])?;
            }
            Some(packed)
        };
        parse().map_or(Self::Other(Cow::Borrowed(text)), Self::Uuid)
    }

    pub(super) fn into_owned(self) -> Uid<'static> {
        match self {
            Self::Uuid(packed) => Uid::Uuid(packed),
            Self::Other(text) => Uid::Other(Cow::Owned(text.into_owned())),
        }
    }

    pub(super) fn unpack(&self) -> String {
        match self {
            Self::Uuid(packed) => {
                let mut text = String::with_capacity(36);
                for byte in packed {
                    if HYPHENS.contains(&text.len()) {
                        text.push('-');
                    }
                    text.extend(hex::digits(*byte).map(char::from));
                }
                text
            }
            Self::Other(text) => text.to_string(),
        }
    }
}

/// For `#[serde(with = …)]` on a UID.
pub(super) mod uid {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Uid};

    pub fn serialize<S: Serializer>(uid: &str, serializer: S) -> Result<S::Ok, S::Error> {
        Uid::pack(uid).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
        Ok(Uid::deserialize(deserializer)?.unpack().into())
    }
}

/// For `#[serde(with = …)]` on the name of a Secret in the entry's own namespace.
pub(super) mod secret_name {
    use std::sync::Arc;

    use super::super::agenda::SecretName;
    use super::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(secret: &SecretName, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&secret.1)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretName, D::Error> {
        Ok((Arc::default(), <&str>::deserialize(deserializer)?.into()))
    }
}

/// For `#[serde(with = …)]` on an instant that may be before or after all others.
pub(super) mod instant {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    /// Both ends would take ten bytes as numbers.
    #[derive(Serialize, Deserialize)]
    enum Instant {
        First,
        Last,
        At(i64),
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(instant: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        match *instant {
            i64::MIN => Instant::First,
            i64::MAX => Instant::Last,
            at => Instant::At(at),
        }
        .serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        Ok(match Instant::deserialize(deserializer)? {
            Instant::First => i64::MIN,
            Instant::Last => i64::MAX,
            Instant::At(at) => at,
        })
    }
}

/// For `#[serde(with = …)]` on an error.
pub(super) mod error {
    use super::{Deserialize, Deserializer, Error, LastError, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(error: &Option<Box<LastError>>, serializer: S) -> Result<S::Ok, S::Error> {
        error.as_deref().map(Error::pack).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<LastError>>, D::Error> {
        Ok(Option::<Error>::deserialize(deserializer)?.map(|error| Box::new(error.unpack())))
    }
}

/// A status, as it is kept. Its own form leaves out what is absent, which takes names to tell.
#[derive(Serialize, Deserialize)]
struct Status<'a> {
    observed_generation: Option<i64>,
    conditions: Vec<PackedCondition<'a>>,
    /// Those of the [`Front`] first.
    times: [Option<i64>; 6],
    hours_until_expiry: Option<u64>,
    consecutive_failures: Option<u32>,
    last_error: Option<Error<'a>>,
    last_handled_refresh_request: Option<Cow<'a, str>>,
    observed_token_secret: Option<Observed<'a>>,
    seller: Option<(Text<'a>, Text<'a>, Text<'a>, Option<i64>)>,
    rollout_restart: Option<Text<'a>>,
    shops: Vec<(Cow<'a, str>, [Text<'a>; 4])>,
}

type Text<'a> = Option<Cow<'a, str>>;

#[derive(Serialize, Deserialize)]
struct PackedCondition<'a> {
    type_: Word<'a>,
    status: ConditionStatus,
    observed_generation: Option<i64>,
    last_transition_time: i64,
    reason: Word<'a>,
    message: Message<'a>,
}

#[derive(Serialize, Deserialize)]
struct Error<'a> {
    reason: Word<'a>,
    message: Cow<'a, str>,
    code: Option<i64>,
    request_id: Text<'a>,
    time: i64,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Observed<'a> {
    uid: Uid<'a>,
    version: Option<Version>,
    resource_version: Text<'a>,
    digest: Option<Digest>,
    tokens_digest: Text<'a>,
}

/// A word of this operator's, by its number; or another.
#[derive(Serialize, Deserialize)]
enum Word<'a> {
    Known(u8),
    Other(Cow<'a, str>),
}

/// The two messages that nearly every integration has; or another.
#[derive(Serialize, Deserialize)]
enum Message<'a> {
    Expires(i64),
    Refreshed(i64),
    Other(Cow<'a, str>),
}

impl<'a> Word<'a> {
    fn reason(word: &'a str) -> Self {
        word.parse().map_or(Self::Other(Cow::Borrowed(word)), |reason: Reason| Self::Known(reason as u8))
    }

    fn type_(word: &'a str) -> Self {
        word.parse().map_or(Self::Other(Cow::Borrowed(word)), |type_: ConditionType| Self::Known(type_ as u8))
    }

    fn unpack(self, known: impl Fn(usize) -> Option<&'static str>) -> Cow<'static, str> {
        match self {
            Self::Known(number) => Cow::Borrowed(known(usize::from(number)).unwrap_or_default()),
            Self::Other(word) => Cow::Owned(word.into_owned()),
        }
    }
}

fn type_(number: usize) -> Option<&'static str> {
    ConditionType::ALL.get(number).map(|type_| type_.as_str())
}

fn reason(number: usize) -> Option<&'static str> {
    Reason::ALL.get(number).map(|reason| reason.as_str())
}

const EXPIRES: &str = "the access token expires at ";
const REFRESHED: &str = "the tokens were refreshed at ";

impl<'a> Message<'a> {
    fn pack(text: &'a str) -> Self {
        let time = |rest: &str| parse(rest).map(|time| time.timestamp());
        let expires = || text.strip_prefix(EXPIRES).and_then(time).map(Self::Expires);
        let refreshed = || text.strip_prefix(REFRESHED).and_then(time).map(Self::Refreshed);
        expires().or_else(refreshed).unwrap_or(Self::Other(Cow::Borrowed(text)))
    }

    fn unpack(&self) -> String {
        let with_time = |begin: &str, seconds: i64| format!("{begin}{}", format(time(seconds)));
        match self {
            Self::Expires(at) => with_time(EXPIRES, *at),
            Self::Refreshed(at) => with_time(REFRESHED, *at),
            Self::Other(text) => text.to_string(),
        }
    }
}

/// Statuses hold whole seconds within the years 0 to 9999.
fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap_or_default()
}

fn text(text: Option<&String>) -> Text<'_> {
    text.map(|text| Cow::Borrowed(text.as_str()))
}

fn owned(text: Text<'_>) -> Option<String> {
    text.map(Cow::into_owned)
}

impl<'a> Error<'a> {
    fn pack(error: &'a LastError) -> Self {
        let LastError { reason, message, code, request_id, time } = error;
        Self {
            reason: Word::reason(reason),
            message: Cow::Borrowed(message),
            code: *code,
            request_id: text(request_id.as_ref()),
            time: time.timestamp(),
        }
    }

    fn unpack(self) -> LastError {
        LastError {
            reason: self.reason.unpack(reason).into_owned(),
            message: self.message.into_owned(),
            code: self.code,
            request_id: owned(self.request_id),
            time: time(self.time),
        }
    }
}

impl<'a> Observed<'a> {
    /// What a status observes of a token Secret of which this is known.
    fn of(known: &'a Known) -> Option<Self> {
        let held = known.held()?;
        Some(Self {
            uid: Uid::pack(&held.uid),
            version: Some(held.version.clone()),
            resource_version: None,
            digest: Some(held.facts.pair),
            tokens_digest: None,
        })
    }

    fn pack(observed: &'a ObservedTokenSecret) -> Self {
        let ObservedTokenSecret { uid, resource_version, tokens_digest } = observed;
        let version = Version::new(resource_version);
        let digest = tokens_digest.as_deref().and_then(Digest::parse);
        Self {
            uid: Uid::pack(uid),
            resource_version: text(Some(resource_version).filter(|_| version.is_none())),
            version,
            tokens_digest: text(tokens_digest.as_ref().filter(|_| digest.is_none())),
            digest,
        }
    }

    fn unpack(self) -> ObservedTokenSecret {
        let version = self.version.map(|version| version.to_string());
        ObservedTokenSecret {
            uid: self.uid.unpack(),
            resource_version: version.or(owned(self.resource_version)).unwrap_or_default(),
            tokens_digest: self.digest.map(|digest| digest.to_string()).or(owned(self.tokens_digest)),
        }
    }
}

impl<'a> PackedCondition<'a> {
    fn pack(condition: &'a Condition) -> Self {
        let Condition { type_, status, observed_generation, last_transition_time, reason, message } = condition;
        Self {
            type_: Word::type_(type_),
            status: *status,
            observed_generation: *observed_generation,
            last_transition_time: last_transition_time.timestamp(),
            reason: Word::reason(reason),
            message: Message::pack(message),
        }
    }

    fn unpack(self) -> Condition {
        Condition {
            type_: self.type_.unpack(type_),
            status: self.status,
            observed_generation: self.observed_generation,
            last_transition_time: time(self.last_transition_time),
            reason: self.reason.unpack(reason),
            message: self.message.unpack(),
        }
    }
}

impl<'a> Status<'a> {
    pub(super) fn pack(status: &'a TikTokShopIntegrationStatus) -> Self {
        let TikTokShopIntegrationStatus {
            observed_generation,
            conditions,
            access_token_expires_at,
            refresh_token_expires_at,
            hours_until_expiry,
            next_refresh_time,
            last_refresh_time,
            last_attempt_time,
            consecutive_failures,
            last_error,
            last_handled_refresh_request,
            observed_token_secret,
            seller,
            rollout_restart,
            shops,
            last_shops_check_time,
        } = status;
        let times = [
            access_token_expires_at,
            refresh_token_expires_at,
            next_refresh_time,
            last_attempt_time,
            last_refresh_time,
            last_shops_check_time,
        ];
        Self {
            observed_generation: *observed_generation,
            conditions: conditions.iter().map(PackedCondition::pack).collect(),
            times: times.map(|time| time.map(|time| time.timestamp())),
            hours_until_expiry: *hours_until_expiry,
            consecutive_failures: *consecutive_failures,
            last_error: last_error.as_ref().map(Error::pack),
            last_handled_refresh_request: text(last_handled_refresh_request.as_ref()),
            observed_token_secret: observed_token_secret.as_ref().map(Observed::pack),
            seller: seller.as_ref().map(|Seller { open_id, name, base_region, user_type }| {
                (text(open_id.as_ref()), text(name.as_ref()), text(base_region.as_ref()), *user_type)
            }),
            rollout_restart: rollout_restart
                .as_ref()
                .map(|RolloutRestart { restarted_at }| text(restarted_at.as_ref())),
            shops: shops
                .iter()
                .map(|CheckedShop { id, name, region, code, seller_type }| {
                    (Cow::Borrowed(id.as_str()), [name, region, code, seller_type].map(|word| text(word.as_ref())))
                })
                .collect(),
        }
    }

    fn unpack(self) -> TikTokShopIntegrationStatus {
        let [
            access_token_expires_at,
            refresh_token_expires_at,
            next_refresh_time,
            last_attempt_time,
            last_refresh_time,
            last_shops_check_time,
        ] = self.times.map(|at| at.map(time));
        TikTokShopIntegrationStatus {
            observed_generation: self.observed_generation,
            conditions: self.conditions.into_iter().map(PackedCondition::unpack).collect(),
            access_token_expires_at,
            refresh_token_expires_at,
            hours_until_expiry: self.hours_until_expiry,
            next_refresh_time,
            last_refresh_time,
            last_attempt_time,
            consecutive_failures: self.consecutive_failures,
            last_error: self.last_error.map(Error::unpack),
            last_handled_refresh_request: owned(self.last_handled_refresh_request),
            observed_token_secret: self.observed_token_secret.map(Observed::unpack),
            seller: self.seller.map(|(open_id, name, base_region, user_type)| Seller {
                open_id: owned(open_id),
                name: owned(name),
                base_region: owned(base_region),
                user_type,
            }),
            rollout_restart: self
                .rollout_restart
                .map(|restarted_at| RolloutRestart { restarted_at: owned(restarted_at) }),
            shops: self
                .shops
                .into_iter()
                .map(|(id, words)| {
                    let [name, region, code, seller_type] = words.map(owned);
                    CheckedShop { id: id.into_owned(), name, region, code, seller_type }
                })
                .collect(),
            last_shops_check_time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rested(status: &TikTokShopIntegrationStatus) -> TikTokShopIntegrationStatus {
        let bytes = postcard::to_allocvec(&Status::pack(status)).unwrap();
        postcard::from_bytes::<Status<'_>>(&bytes).unwrap().unpack()
    }

    #[test]
    fn a_words_number_is_its_place_among_all() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(usize::from(*reason as u8), at, "{reason:?}");
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        for (at, type_) in ConditionType::ALL.iter().enumerate() {
            assert_eq!((usize::from(*type_ as u8), type_.as_str().parse()), (at, Ok(*type_)));
        }
    }

    /// Statuses that this version would not write: of a newer operator, or of a foreign hand.
    #[test]
    fn a_status_is_the_same_after_its_rest_whoever_wrote_it() {
        let uuid = "0123abcd-4567-89ef-0123-456789abcdef";
        let condition = |type_: &str, reason: &str, message: &str| {
            serde_json::json!({"type": type_, "status": "False", "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-02T03:04:05Z"})
        };
        for message in [
            "the access token expires at 2026-01-02T03:04:05Z",
            "the tokens were refreshed at 2026-01-02T03:04:05Z",
            "the access token expires at 2026-01-02T03:04:05+00:00",
            "the access token expires at 9999-12-31T23:59:59Z and not before",
            "",
        ] {
            for (uid, version, digest) in [
                (uuid, "18446744073709551615", Some("00112233445566778899aabbccddeeff")),
                (
                    "0123ABCD-4567-89ef-0123-456789abcdef",
                    "18446744073709551616",
                    Some("00112233445566778899AABBCCDDEEFF"),
                ),
                ("0123abcd-4567-89ef-0123456789-abcdef", "007", Some("")),
                ("", "", None),
                ("ü", "0", None),
            ] {
                let status: TikTokShopIntegrationStatus = serde_json::from_value(serde_json::json!({
                    "observedGeneration": 7, "hoursUntilExpiry": 5, "consecutiveFailures": 3,
                    "conditions": [condition("Ready", "TokenValid", message), condition("Odd", "Newer", message)],
                    "accessTokenExpiresAt": "0000-01-01T00:00:00Z", "lastShopsCheckTime": "9999-12-31T23:59:59Z",
                    "lastError": {"reason": "Newer", "message": message, "code": -1, "requestId": "r",
                        "time": "2026-01-02T03:04:05Z"},
                    "lastHandledRefreshRequest": message,
                    "observedTokenSecret": {"uid": uid, "resourceVersion": version, "tokensDigest": digest},
                    "seller": {"name": "n", "userType": 1}, "rolloutRestart": {},
                    "shops": [{"id": "1", "region": "VN"}, {"id": "2", "name": "n", "code": "c", "sellerType": "s"}],
                }))
                .unwrap();
                assert_eq!(rested(&status), status);
            }
        }
        let nothing = TikTokShopIntegrationStatus::default();
        assert_eq!(rested(&nothing), nothing);
    }
}
