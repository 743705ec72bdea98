//! The matrix: at which step which fault is injected, and where that would make no sense.

use std::fmt;

/// A step of the refresh transaction, as it shows from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The token Secret is read.
    Read,
    /// The dry run of the final write.
    Rehearsal,
    /// The claim is written.
    Claim,
    /// Between the claim's reply and the call: the intent goes to the journal.
    Intent,
    /// TikTok is called.
    Call,
    /// Between TikTok's answer and the write: the answer goes to the journal.
    Journal,
    /// The new tokens are written.
    Persist,
    /// After a call without tokens: the claim is given back, or marked as unknown.
    Settle,
    /// The status is written.
    Status,
    /// The event is written.
    Event,
}

impl Step {
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Rehearsal,
        Self::Claim,
        Self::Intent,
        Self::Call,
        Self::Journal,
        Self::Persist,
        Self::Settle,
        Self::Status,
        Self::Event,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Rehearsal => "rehearsal",
            Self::Claim => "claim",
            Self::Intent => "intent",
            Self::Call => "call",
            Self::Journal => "journal",
            Self::Persist => "persist",
            Self::Settle => "settle",
            Self::Status => "status",
            Self::Event => "event",
        }
    }

    /// Is it a gap between two requests, in which the process is caught by SIGSTOP?
    pub const fn is_gap(self) -> bool {
        matches!(self, Self::Intent | Self::Journal)
    }

    /// Does it come after the tokens are stored, or after it is known that there are none?
    const fn is_report(self) -> bool {
        matches!(self, Self::Status | Self::Event)
    }
}

/// Which programs are at work while the fault is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cast {
    /// One operator without leader election.
    Solo,
    /// Two that both believe they lead.
    Pair,
    /// The same, and the clock of the second is a day ahead.
    PairOfClocks,
    /// One that elects.
    Elector,
    /// Two that elect.
    ElectorPair,
    /// One under libfaketime, its monotonic time left alone.
    WallClock,
    /// One under libfaketime, both times faked.
    BothClocks,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    KillBefore,
    KillInFlight,
    KillAfter,
    Stop,
    StopOverLease,
    Refused,
    Paused,
    Internal,
    Busy,
    Conflict,
    Slow,
    CutAfter,
    ServerKilled,
    ServerStopped,
    Admission,
    Rights,
    Labelled,
    Replaced,
    RecreatedOld,
    RecreatedNew,
    RecreatedEmpty,
    Immutable,
    IntegrationDeleted,
    TikTokRefuses,
    TikTokSlow,
    TikTokHangs,
    TikTokLate,
    TikTokCuts,
    TikTokCutsHalf,
    TikTokOldPair,
    TikTokEmpty,
    TikTokInternal,
    TikTokBusy,
    TikTokHtml,
    JournalFull,
    JournalUnwritable,
    JournalReadOnly,
    WallAhead,
    WallBack,
    BothAhead,
    BothBack,
    TwoLeaders,
    TwoClocks,
    LeaseTaken,
}

impl Cast {
    /// Are there two that both believe they lead?
    pub const fn is_pair(self) -> bool {
        matches!(self, Self::Pair | Self::PairOfClocks)
    }

    /// Does it take libfaketime?
    pub const fn needs_faketime(self) -> bool {
        matches!(self, Self::WallClock | Self::BothClocks | Self::PairOfClocks)
    }
}

impl Fault {
    pub const ALL: [Self; 44] = [
        Self::KillBefore,
        Self::KillInFlight,
        Self::KillAfter,
        Self::Stop,
        Self::StopOverLease,
        Self::Refused,
        Self::Paused,
        Self::Internal,
        Self::Busy,
        Self::Conflict,
        Self::Slow,
        Self::CutAfter,
        Self::ServerKilled,
        Self::ServerStopped,
        Self::Admission,
        Self::Rights,
        Self::Labelled,
        Self::Replaced,
        Self::RecreatedOld,
        Self::RecreatedNew,
        Self::RecreatedEmpty,
        Self::Immutable,
        Self::IntegrationDeleted,
        Self::TikTokRefuses,
        Self::TikTokSlow,
        Self::TikTokHangs,
        Self::TikTokLate,
        Self::TikTokCuts,
        Self::TikTokCutsHalf,
        Self::TikTokOldPair,
        Self::TikTokEmpty,
        Self::TikTokInternal,
        Self::TikTokBusy,
        Self::TikTokHtml,
        Self::JournalFull,
        Self::JournalUnwritable,
        Self::JournalReadOnly,
        Self::WallAhead,
        Self::WallBack,
        Self::BothAhead,
        Self::BothBack,
        Self::TwoLeaders,
        Self::TwoClocks,
        Self::LeaseTaken,
    ];

    /// For the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillBefore => "kill-before",
            Self::KillInFlight => "kill-in-flight",
            Self::KillAfter => "kill-after",
            Self::Stop => "stop",
            Self::StopOverLease => "stop-over-lease",
            Self::Refused => "api-refuses",
            Self::Paused => "api-paused",
            Self::Internal => "api-500",
            Self::Busy => "api-429",
            Self::Conflict => "api-409",
            Self::Slow => "api-slow",
            Self::CutAfter => "api-cut-after",
            Self::ServerKilled => "server-killed",
            Self::ServerStopped => "server-stopped",
            Self::Admission => "admission",
            Self::Rights => "rbac",
            Self::Labelled => "labelled",
            Self::Replaced => "replaced",
            Self::RecreatedOld => "recreated-old",
            Self::RecreatedNew => "recreated-new",
            Self::RecreatedEmpty => "recreated-empty",
            Self::Immutable => "immutable",
            Self::IntegrationDeleted => "integration",
            Self::TikTokRefuses => "tt-refuses",
            Self::TikTokSlow => "tt-slow",
            Self::TikTokHangs => "tt-hangs",
            Self::TikTokLate => "tt-late",
            Self::TikTokCuts => "tt-cuts",
            Self::TikTokCutsHalf => "tt-cuts-half",
            Self::TikTokOldPair => "tt-old-pair",
            Self::TikTokEmpty => "tt-empty",
            Self::TikTokInternal => "tt-500",
            Self::TikTokBusy => "tt-429",
            Self::TikTokHtml => "tt-html",
            Self::JournalFull => "journal-full",
            Self::JournalUnwritable => "journal-broken",
            Self::JournalReadOnly => "journal-readonly",
            Self::WallAhead => "wall-ahead",
            Self::WallBack => "wall-back",
            Self::BothAhead => "clocks-ahead",
            Self::BothBack => "clocks-back",
            Self::TwoLeaders => "two-leaders",
            Self::TwoClocks => "two-clocks",
            Self::LeaseTaken => "lease-taken",
        }
    }

    pub const fn cast(self) -> Cast {
        match self {
            Self::StopOverLease => Cast::ElectorPair,
            Self::TwoLeaders => Cast::Pair,
            Self::TwoClocks => Cast::PairOfClocks,
            Self::LeaseTaken => Cast::Elector,
            Self::WallAhead | Self::WallBack => Cast::WallClock,
            Self::BothAhead | Self::BothBack => Cast::BothClocks,
            _ => Cast::Solo,
        }
    }

    /// Does it take a file system of its own?
    pub const fn needs_mount(self) -> bool {
        matches!(self, Self::JournalFull | Self::JournalReadOnly)
    }

    /// Does it take the real API server away, so that nobody else may be using it?
    pub const fn needs_own_server(self) -> bool {
        matches!(self, Self::ServerKilled | Self::ServerStopped)
    }

    /// Does it take so long that once is enough?
    pub const fn is_long(self) -> bool {
        matches!(self, Self::StopOverLease | Self::Rights | Self::ServerKilled | Self::ServerStopped)
    }

    /// Does a person put other tokens into the Secret?
    pub const fn replaces_tokens(self) -> bool {
        matches!(self, Self::Replaced | Self::RecreatedNew | Self::RecreatedEmpty | Self::Immutable)
    }

    const fn is_reply(self) -> bool {
        matches!(self, Self::Internal | Self::Busy | Self::Conflict | Self::Slow | Self::CutAfter)
    }

    pub const fn is_tiktoks(self) -> bool {
        matches!(
            self,
            Self::TikTokRefuses
                | Self::TikTokSlow
                | Self::TikTokHangs
                | Self::TikTokLate
                | Self::TikTokCuts
                | Self::TikTokCutsHalf
                | Self::TikTokOldPair
                | Self::TikTokEmpty
                | Self::TikTokInternal
                | Self::TikTokBusy
                | Self::TikTokHtml
        )
    }

    /// May it be one of several faults in a random schedule?
    pub const fn mixes(self) -> bool {
        matches!(self.cast(), Cast::Solo)
            && !self.is_long()
            && !matches!(
                self,
                Self::Paused | Self::Immutable | Self::RecreatedEmpty | Self::JournalUnwritable | Self::JournalReadOnly
            )
    }
}

/// One field of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    pub step: Step,
    pub fault: Fault,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.step.name(), self.fault.name())
    }
}

impl Cell {
    /// Every field of the matrix, those that make no sense among them.
    pub fn all() -> impl Iterator<Item = Self> {
        Fault::ALL.into_iter().flat_map(|fault| Step::ALL.into_iter().map(move |step| Self { step, fault }))
    }

    /// Why nothing is injected here; none where something is.
    pub fn senseless(self) -> Option<&'static str> {
        let Self { step, fault } = self;
        match (fault, step) {
            (Fault::KillBefore | Fault::KillInFlight, Step::Intent | Step::Journal) => {
                Some("a gap has no request on its way: killed in it stands under kill-after")
            }
            (fault, Step::Intent | Step::Journal) if fault.is_reply() => Some("no request of the API server"),
            (fault, Step::Call) if fault.is_reply() => Some("TikTok is asked here, not the API server"),
            (Fault::Conflict, Step::Read) => Some("a read does not conflict"),
            (fault, step) if fault.is_tiktoks() && step != Step::Call => Some("TikTok is asked at the call alone"),
            (Fault::JournalFull | Fault::JournalUnwritable | Fault::JournalReadOnly, step)
                if !matches!(step, Step::Claim | Step::Intent | Step::Call | Step::Journal) =>
            {
                Some("the journal is written around the call")
            }
            (Fault::Admission | Fault::Immutable, step) if step.is_report() => {
                Some("the tokens are stored: no write of the Secret follows")
            }
            (Fault::RecreatedEmpty, step) if step.is_report() => {
                Some("who empties a Secret after the tokens were stored has lost them himself")
            }
            _ => None,
        }
    }

    /// Every field in which something is injected.
    pub fn sensible() -> impl Iterator<Item = Self> {
        Self::all().filter(|cell| cell.senseless().is_none())
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::all().find(|cell| cell.to_string() == text)
    }
}
