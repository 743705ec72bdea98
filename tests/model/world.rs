//! Everything there is in the model: one small value, compared and hashed as a whole.

use tiktok_shop_operator::cluster::Version;
use tiktok_shop_operator::tokens::{Digest, SpentTokens};
use tiktok_shop_operator::transaction::{Attempt, Command, State};

/// Refresh tokens of one authorization at most; the n-th of authorization f is `f * ROTATIONS + n`.
pub const ROTATIONS: u8 = 4;
/// Access tokens of one authorization at most, numbered likewise.
pub const GRANTS: u8 = 16;
/// Authorizations: the first, a person's new one, and those of the codes.
pub const FAMILIES: usize = 4;
/// How much there is that can be spent: refresh tokens, and after them two authorization codes.
pub const CREDENTIALS: usize = FAMILIES * ROTATIONS as usize + CODES.len();
/// The authorization codes.
pub const CODES: [u8; 2] = [4 * ROTATIONS, 4 * ROTATIONS + 1];

pub fn is_code(credential: u8) -> bool {
    CODES.contains(&credential)
}

/// The authorization that a code begins.
pub fn family_of_code(code: u8) -> usize {
    usize::from(code - CODES[0]) + 2
}

/// The pair that everything begins with, and that a GitOps tool writes back.
pub const FIRST: Pair = Pair { refresh: 0, access: 0 };
/// The pair that a person pastes.
pub const PERSONS: Pair = Pair { refresh: ROTATIONS, access: GRANTS };

/// A refresh and an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair {
    pub refresh: u8,
    pub access: u8,
}

impl Pair {
    pub const fn family(self) -> usize {
        (self.refresh / ROTATIONS) as usize
    }

    /// How many refreshes it took to get it.
    pub const fn round(self) -> u8 {
        self.access % GRANTS
    }

    pub const fn digest(self) -> Digest {
        let mut bytes = [0; 16];
        (bytes[0], bytes[1], bytes[2]) = (2, self.refresh, self.access);
        Digest::from_bytes(bytes)
    }
}

/// The digest of no pair at all.
const NO_PAIR: Digest = Digest::from_bytes([3; 16]);

pub const fn token_digest(token: u8) -> Digest {
    let mut bytes = [0; 16];
    (bytes[0], bytes[1]) = (1, token);
    Digest::from_bytes(bytes)
}

/// Only whether a version is the one that stands there matters: an old one never comes back.
pub fn version(is_current: bool) -> Version {
    Version::new(if is_current { "2" } else { "1" }).expect("neither is empty or zero")
}

pub fn is_current(version: &Version) -> bool {
    version.to_string() == "2"
}

/// The annotation `refreshed-from`: a spent token or, where TikTok did not rotate, a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum From {
    Token(u8),
    Pair(Pair),
}

impl From {
    pub const fn digest(self) -> Digest {
        match self {
            Self::Token(token) => token_digest(token),
            Self::Pair(pair) => pair.digest(),
        }
    }
}

/// The annotation `spent-tokens`: a set, as there are too few tokens here for any to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Spent(u32);

impl Spent {
    pub const fn with(self, token: u8) -> Self {
        Self(self.0 | 1 << token)
    }

    pub const fn contains(self, token: u8) -> bool {
        self.0 & 1 << token != 0
    }

    pub const fn without(self, token: u8) -> Self {
        Self(self.0 & !(1 << token))
    }

    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub fn of_product(self) -> SpentTokens {
        let tokens = (CODES[0]..=CODES[1]).chain(0..CODES[0]).filter(|token| self.contains(*token));
        tokens.fold(SpentTokens::default(), |spent, token| spent.with(token_digest(token)))
    }
}

/// A claim's id: the transaction, and a count of its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimId {
    pub attempt: u8,
    pub nth: u8,
}

/// The annotation `refresh-attempt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    pub id: ClaimId,
    /// The instance that made it.
    pub holder: u8,
    /// Is the process that made it still the one that runs there?
    pub this_life: bool,
    pub from: u8,
    /// Does `presented` say that this token was presented before?
    pub again: bool,
    pub marked_unknown: bool,
    /// The other credential there, whose outcome is unknown.
    pub beside: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Secret {
    pub pair: Option<Pair>,
    pub code: Option<u8>,
    pub refreshed_from: Option<From>,
    pub spent: Spent,
    pub noted_pair: Option<Pair>,
    pub claim: Option<Claim>,
    /// For the witness: did somebody else than an operator write the pair?
    pub by_outsider: bool,
    /// For the witness: did somebody put the code there after it was used, or drop what was noted of it?
    pub code_put_back: bool,
}

/// One authorization at TikTok.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Family {
    /// Which of its refresh tokens is good.
    pub current: u8,
    pub grants: u8,
    pub killed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Run {
    Up,
    /// Stopped for as long as it pleases (SIGSTOP, a frozen node).
    Paused,
    Dead,
}

/// What a process knows of the age of another's claim that stands on the Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    No,
    Since,
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    pub id: ClaimId,
    pub from: u8,
    pub from_pair: Option<Pair>,
    pub spent_before: Spent,
    /// `None`: an intent.
    pub answer: Option<Pair>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kept {
    pub entry: Entry,
    pub restored: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Journal {
    pub entry: Option<Entry>,
    pub kept: Option<Kept>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    Spend,
    Store,
    WriteBack,
}

/// A call of TikTok.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    Quiet,
    Sent,
    /// TikTok has dealt with it, and the process, which is paused, has not seen the answer yet.
    Granted(Pair),
    Refused,
}

/// `controller::refresh::Transaction`.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transaction {
    pub work: Work,
    pub attempt: u8,
    pub nth_claim: u8,
    pub from: u8,
    pub from_pair: Option<Pair>,
    pub spent_before: Spent,
    /// The other credential there, whose outcome is unknown.
    pub other: Option<u8>,
    /// Did TikTok refuse it?
    pub refused: bool,
    pub unknown_before: bool,
    /// Will its claim say by `presented` that the token was presented before?
    pub again: bool,
    /// For the witness: did somebody put that token there, and nothing that the process could see said that it is spent?
    pub in_good_faith: bool,
    /// Is its present claim older than a claim lives?
    pub aged: bool,
    pub granted: Option<Pair>,
    pub is_journaled: bool,
    pub wire: Wire,
    /// Where TikTok does not rotate: which of the calls with this token it is. The later call wins.
    pub call: u8,
    /// For the witness: what was known of the token before this claim, and then before this call.
    pub mark_before: Mark,
    pub state: State,
    pub command: Command,
}

impl Transaction {
    pub fn of_product(&self) -> Attempt {
        Attempt {
            from: token_digest(self.from),
            from_pair: self.from_pair.map_or(NO_PAIR, Pair::digest),
            replay: self.work != Work::Spend,
            unknown_before: self.unknown_before,
            spent_before: self.spent_before.of_product(),
        }
    }

    pub fn is_exchange(&self) -> bool {
        is_code(self.from)
    }

    /// Had it, when it began, no note of this token, and so no means to tell it from a person's?
    pub const fn knows_nothing_of(&self, token: u8) -> bool {
        token != self.from && !self.spent_before.contains(token)
    }

    pub const fn claim_id(&self) -> ClaimId {
        ClaimId { attempt: self.attempt, nth: self.nth_claim }
    }

    pub fn entry(&self, answer: Option<Pair>) -> Entry {
        Entry {
            id: self.claim_id(),
            from: self.from,
            from_pair: self.from_pair,
            spent_before: self.spent_before,
            answer,
        }
    }
}

/// One operator process, and the journal that outlives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    pub run: Run,
    pub leads: bool,
    /// Does it know what stands there from its last transaction, so that it need not read?
    pub knows_from_transaction: bool,
    pub last_spent: Option<u8>,
    pub last_code: Option<u8>,
    pub seen: Seen,
    /// The intent that an earlier life left.
    pub intended: Option<ClaimId>,
    pub transaction: Option<Transaction>,
    pub journal: Journal,
}

/// A write whose sender gave up waiting, or died. It may still arrive as long as the version that
/// it is conditional on stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Write {
    Claim(Claim),
    /// Removes the claim, marks it, or leaves what it says of the other credential; notes a code that is of no more use.
    Settle {
        claim: Option<Claim>,
        note: Option<u8>,
    },
    Persist {
        pair: Pair,
        from: u8,
        from_pair: Option<Pair>,
        spent_before: Spent,
        remove_claim: bool,
        /// What stays of the claim that is removed.
        leave: Option<Claim>,
    },
}

impl Write {
    /// The claim that it writes.
    pub const fn claim_mut(&mut self) -> Option<&mut Claim> {
        match self {
            Self::Claim(claim) => Some(claim),
            Self::Settle { claim, .. } | Self::Persist { leave: claim, .. } => claim.as_mut(),
        }
    }
}

/// What the witness knows of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    Fresh,
    /// It was presented, and how that ended is not settled: unknown, or the answer is not stored.
    Open,
    /// TikTok refused it.
    Refused,
    /// It gave new tokens, which were stored or superseded.
    Spent,
}

/// Who is excused for presenting a token anew: an outsider removed the claim that spoke against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Excused {
    Nobody,
    /// All but the process of this instance, whose transaction is under way.
    AllBut(u8),
    All,
}

/// How many faults and doings of others are still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Left {
    /// API requests that fail, or whose reply is lost.
    pub api: u8,
    /// Calls of TikTok that fail or are lost.
    pub tiktok: u8,
    pub crash: u8,
    pub pause: u8,
    /// More time passes than a step may take.
    pub slow: u8,
    /// Leadership is lost, or the process is told to stop.
    pub step_down: u8,
    /// Writes to the journal that fail.
    pub journal: u8,
    /// Writes of a person: a new pair, a label, the same file once more.
    pub person: u8,
    /// A GitOps tool writes the first pair back, or the first code.
    pub gitops: u8,
    /// A person puts an authorization code there.
    pub code: u8,
    pub delete: u8,
    /// A kept pair is dropped for its age.
    pub kept_expires: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub secret: Option<Secret>,
    pub tiktok: [Family; FAMILIES],
    pub processes: Vec<Process>,
    pub late_writes: Vec<Write>,
    /// Calls whose sender gave up or died, and that TikTok may still get.
    pub late_calls: Vec<u8>,
    /// Which codes TikTok has exchanged.
    pub used: [bool; CODES.len()],
    pub marks: [Mark; CREDENTIALS],
    pub excused: [Excused; CREDENTIALS],
    pub left: Left,
}

impl World {
    pub fn new(instances: usize, left: Left) -> Self {
        let process = Process {
            run: Run::Up,
            leads: true,
            knows_from_transaction: false,
            last_spent: None,
            last_code: None,
            seen: Seen::No,
            intended: None,
            transaction: None,
            journal: Journal::default(),
        };
        Self {
            secret: Some(Secret {
                pair: Some(FIRST),
                code: None,
                refreshed_from: None,
                noted_pair: None,
                spent: Spent::default(),
                claim: None,
                by_outsider: true,
                code_put_back: false,
            }),
            tiktok: [Family { current: 0, grants: 0, killed: false }; FAMILIES],
            processes: vec![process; instances],
            late_writes: Vec::new(),
            late_calls: Vec::new(),
            used: [false; CODES.len()],
            marks: [Mark::Fresh; CREDENTIALS],
            excused: [Excused::Nobody; CREDENTIALS],
            left,
        }
    }

    /// With the first code in the Secret, alone or beside the first pair.
    pub fn with_code(mut self, alone: bool) -> Self {
        let secret = self.secret.as_mut().expect("it begins with a Secret");
        secret.code = Some(CODES[0]);
        secret.pair = secret.pair.filter(|_| !alone);
        self
    }

    /// Would TikTok exchange this code?
    pub fn is_good_code(&self, code: u8) -> bool {
        !self.used[usize::from(code - CODES[0])]
    }

    /// Would TikTok take this refresh token?
    pub fn is_living(&self, token: u8) -> bool {
        if is_code(token) {
            return self.is_good_code(token);
        }
        let family = self.tiktok[usize::from(token / ROTATIONS)];
        !family.killed && family.current == token % ROTATIONS
    }

    /// The Secret has another version now: what was known of it is out of date, and writes that are
    /// conditional on the version before can't be applied any more.
    pub fn bump(&mut self) {
        self.late_writes.clear();
        for process in &mut self.processes {
            process.knows_from_transaction = false;
            if let Some(transaction) = &mut process.transaction {
                outdate_state(&mut transaction.state);
                outdate_command(&mut transaction.command);
            }
        }
    }

    pub fn set_claim(&mut self, claim: Option<Claim>) {
        let Some(secret) = &mut self.secret else { return };
        if secret.claim.map(|claim| claim.id) != claim.map(|claim| claim.id) {
            for process in &mut self.processes {
                process.seen = Seen::No;
            }
        }
        secret.claim = claim;
    }

    /// Which process, dead ones not counted, has this claim as the newest of its transaction.
    pub fn owner(&self, id: ClaimId) -> Option<usize> {
        self.processes
            .iter()
            .position(|process| process.transaction.as_ref().is_some_and(|transaction| transaction.claim_id() == id))
    }

    /// Numbers of transactions mean nothing but themselves: given anew in the order of appearance, so
    /// that states that differ in them alone are one.
    pub fn canonical(mut self) -> Self {
        let mut names = Names::default();
        if let Some(claim) = self.secret.as_mut().and_then(|secret| secret.claim.as_mut()) {
            names.give(&mut claim.id);
        }
        for process in &mut self.processes {
            if let Some(transaction) = &mut process.transaction {
                transaction.attempt = names.of(transaction.attempt);
            }
            let journal = &mut process.journal;
            let entries = journal.entry.iter_mut().chain(journal.kept.iter_mut().map(|kept| &mut kept.entry));
            entries.for_each(|entry| names.give(&mut entry.id));
            process.intended.iter_mut().for_each(|id| names.give(id));
        }
        for write in &mut self.late_writes {
            write.claim_mut().into_iter().for_each(|claim| names.give(&mut claim.id));
        }
        self
    }

    /// A number that no transaction has.
    pub fn unused_attempt(&self) -> u8 {
        let in_journal = |process: &Process| {
            process.journal.entry.into_iter().chain(process.journal.kept.map(|kept| kept.entry)).map(|entry| entry.id)
        };
        let ids = self.processes.iter().flat_map(|process| {
            in_journal(process)
                .chain(process.intended)
                .chain(process.transaction.as_ref().map(Transaction::claim_id))
                .collect::<Vec<_>>()
        });
        let on_secret = self.secret.and_then(|secret| secret.claim).map(|claim| claim.id);
        let late = self.late_writes.iter().copied().filter_map(|mut write| write.claim_mut().map(|claim| claim.id));
        ids.chain(on_secret).chain(late).map(|id| id.attempt + 1).max().unwrap_or(0)
    }
}

#[derive(Default)]
struct Names(Vec<u8>);

impl Names {
    fn of(&mut self, name: u8) -> u8 {
        let place = self.0.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.0.push(name);
            self.0.len() - 1
        });
        u8::try_from(place).expect("few transactions leave a trace")
    }

    fn give(&mut self, id: &mut ClaimId) {
        id.attempt = self.of(id.attempt);
    }
}

fn outdate_state(state: &mut State) {
    if let State::Rehearsing { at }
    | State::Intending { at, .. }
    | State::Calling { at, .. }
    | State::Journaling { at, .. } = state
    {
        *at = version(false);
    }
}

fn outdate_command(command: &mut Command) {
    if let Command::Rehearse { at }
    | Command::Claim { at }
    | Command::Persist { at, .. }
    | Command::Release { at, .. } = command
    {
        *at = version(false);
    }
}
