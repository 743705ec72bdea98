//! Faults: what goes wrong, for whom, and how often.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::{Endpoint, Form, RetryAfterStyle};

/// A moment in the life of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// The request has been read; nothing has been done yet.
    BeforeProcessing,
    /// The refresh has happened (or was refused); no byte of the answer is out.
    AfterRotation,
}

impl FromStr for Point {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_value(text.into())
    }
}

/// Where a connection is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropPoint {
    /// The request has been read; nothing is done, no byte is answered.
    BeforeProcessing,
    /// The refresh has happened; no byte is answered.
    AfterRotation,
    /// The refresh has happened; the head and the first half of the body are out.
    HalfAnswer,
}

/// A `Retry-After` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryAfter {
    /// How long to wait.
    pub seconds: u32,
    /// How that is written.
    #[serde(default = "RetryAfter::default_style")]
    pub style: RetryAfterStyle,
}

impl RetryAfter {
    const fn default_style() -> RetryAfterStyle {
        RetryAfterStyle::Seconds
    }
}

/// What the `Content-Length` of a truncated answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncatedLength {
    /// The length of the half that is sent: correct HTTP around broken JSON.
    Sent,
    /// The length of the whole: the connection closes too early.
    Whole,
}

/// An answer with code 0 that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// The pair as it was before this request.
    OldPair,
    /// Both tokens are `""`.
    EmptyTokens,
    /// Both tokens are absent.
    MissingTokens,
    /// Both tokens are `null`.
    NullTokens,
    /// The access token alone is absent.
    MissingAccessToken,
    /// The refresh token alone is absent, although it was rotated.
    MissingRefreshToken,
    /// Both tokens are numbers.
    NumberTokens,
    /// Blanks and line ends around both tokens.
    PaddedTokens,
    /// All fields but the tokens are `null`.
    NullFields,
    /// All fields but the tokens are absent.
    MissingFields,
    /// `data` is `null`.
    NullData,
    /// `data` is absent.
    MissingData,
    /// `data` is `{}`.
    EmptyData,
    /// Fields that no documentation lists.
    ExtraFields,
    /// Both expiries in milliseconds.
    ExpiryMilliseconds,
    /// Both expiries as seconds from now.
    ExpiryDuration,
    /// Both expiries negative.
    ExpiryNegative,
    /// Both expiries 0.
    ExpiryZero,
    /// Both expiries as decimal strings.
    ExpiryString,
    /// Both expiries as strings that are no numbers.
    ExpiryJunk,
    /// Both expiries as fractions.
    ExpiryFraction,
    /// Both expiries larger than a signed 64-bit integer.
    ExpiryHuge,
    /// Both expiries an hour ago.
    ExpiryPast,
    /// Both expiries `null`.
    ExpiryNull,
    /// Both expiries absent.
    ExpiryMissing,
}

const fn ok() -> u16 {
    200
}

const fn yes() -> bool {
    true
}

/// What goes wrong.
///
/// `rotate` says whether the request is processed nevertheless: with it, the refresh happens and
/// the answer is another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Answers an error envelope.
    Error {
        /// The code, known or not.
        code: i64,
        /// Default: the message that the code is known to come with.
        #[serde(default)]
        message: Option<String>,
        /// The HTTP status.
        #[serde(default = "ok")]
        http_status: u16,
        /// The header, where there is to be one.
        #[serde(default)]
        retry_after: Option<RetryAfter>,
        /// Whether the refresh happens.
        #[serde(default)]
        rotate: bool,
    },
    /// Answers these bytes.
    Raw {
        /// The HTTP status.
        #[serde(default = "ok")]
        http_status: u16,
        /// Headers, for example `content-type` or `location`.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The body.
        #[serde(default)]
        body: String,
        /// What `Content-Length` claims, if not the truth.
        #[serde(default)]
        content_length: Option<u64>,
        /// The header, where there is to be one.
        #[serde(default)]
        retry_after: Option<RetryAfter>,
        /// Whether the refresh happens.
        #[serde(default)]
        rotate: bool,
    },
    /// Answers the honest object behind a field of padding of that many MiB, streamed. Read to its
    /// end it is valid JSON.
    Flood {
        /// How much.
        mebibytes: u32,
        /// Whether `Content-Length` is said; otherwise the body comes in chunks.
        #[serde(default)]
        content_length: bool,
    },
    /// Answers the first half of the honest object.
    Truncated {
        /// What the header says.
        content_length: TruncatedLength,
    },
    /// Answers honestly, a few bytes at a time.
    Drip {
        /// Bytes at a time, at least 1.
        bytes: u32,
        /// Milliseconds between.
        every_ms: u64,
    },
    /// Waits, then goes on.
    Delay {
        /// Where.
        point: Point,
        /// How long.
        ms: u64,
    },
    /// Waits until the control API releases the request.
    Hold {
        /// Where.
        point: Point,
    },
    /// Never answers; ends when the client goes away.
    Hang {
        /// Where.
        point: Point,
    },
    /// Closes the connection.
    Drop {
        /// Where.
        point: DropPoint,
        /// RST instead of FIN.
        #[serde(default)]
        reset: bool,
    },
    /// Answers code 0 with something wrong.
    Lie {
        /// What.
        kind: Lie,
        /// Whether the refresh happens; default: yes, but for `old_pair`.
        #[serde(default)]
        rotate: Option<bool>,
    },
    /// Answers with this JSON merge patch (RFC 7386) applied to the honest envelope.
    Patch {
        /// The patch.
        merge: Value,
        /// Whether the refresh happens.
        #[serde(default = "yes")]
        rotate: bool,
    },
}

/// The part of a request's life that an action takes over. A request meets at most one fault for
/// each, so that for example a hold and a drop can be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    WaitBefore,
    WaitAfter,
    Answer,
}

impl Action {
    fn slot(&self) -> Slot {
        match self {
            Self::Delay { point, .. } | Self::Hold { point } | Self::Hang { point } => match point {
                Point::BeforeProcessing => Slot::WaitBefore,
                Point::AfterRotation => Slot::WaitAfter,
            },
            _ => Slot::Answer,
        }
    }

    /// Whether the request is processed in spite of the fault.
    pub fn processes(&self) -> bool {
        match self {
            Self::Error { rotate, .. } | Self::Raw { rotate, .. } | Self::Patch { rotate, .. } => *rotate,
            Self::Lie { kind, rotate } => rotate.unwrap_or(*kind != Lie::OldPair),
            Self::Drop { point, .. } => *point != DropPoint::BeforeProcessing,
            _ => true,
        }
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Self::Error { http_status, .. } | Self::Raw { http_status, .. } if !(200..=599).contains(http_status) => {
                Err(format!("http_status must be 200 to 599, not {http_status}"))
            }
            Self::Raw { headers, .. } => headers.iter().try_for_each(|(name, value)| {
                let good = HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok();
                good.then_some(()).ok_or_else(|| format!("HTTP allows no header {name:?}: {value:?}"))
            }),
            Self::Drip { bytes: 0, .. } => Err("bytes must be at least 1".into()),
            Self::Flood { mebibytes: 0, .. } => Err("mebibytes must be at least 1".into()),
            _ => Ok(()),
        }
    }
}

/// Whom a fault is for: all that is said must fit; nothing said means everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Requests with this app key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_key: Option<String>,
    /// Requests that present a refresh token, an auth code or an access token of this shop, old or new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shop: Option<String>,
    /// Requests that present this refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// Requests of this wire form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
    /// Requests to this endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
}

/// A fault as it is asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewFault {
    /// For whom.
    #[serde(default)]
    pub scope: Scope,
    /// How many requests meet it; absent: all, until it is cleared.
    #[serde(default)]
    pub times: Option<u32>,
    /// How many requests in its scope pass unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// What goes wrong.
    pub action: Action,
}

/// A fault in force, or used up.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// Its number.
    pub id: u64,
    /// For whom.
    pub scope: Scope,
    /// How many more requests meet it; `null` without end, 0 used up.
    pub times_left: Option<u32>,
    /// How many more pass unharmed.
    pub skip_left: u32,
    /// How many have met it.
    pub hits: u32,
    /// What goes wrong.
    pub action: Action,
}

/// What of a request decides which faults it meets.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The app key it names.
    pub app_key: Option<&'a str>,
    /// The shop whose token it presents.
    pub shop: Option<&'a str>,
    /// The refresh token it presents.
    pub refresh_token: Option<&'a str>,
    /// Its wire form.
    pub form: Form,
    /// Where it goes.
    pub endpoint: Endpoint,
}

impl Scope {
    fn fits(&self, subject: Subject<'_>) -> bool {
        fn fits(wanted: Option<&str>, got: Option<&str>) -> bool {
            wanted.is_none() || wanted == got
        }
        fits(self.app_key.as_deref(), subject.app_key)
            && fits(self.shop.as_deref(), subject.shop)
            && fits(self.refresh_token.as_deref(), subject.refresh_token)
            && self.form.is_none_or(|form| form == subject.form)
            && self.endpoint.is_none_or(|endpoint| endpoint == subject.endpoint)
    }
}

/// What one request will meet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The wait before it is processed.
    pub before: Option<Action>,
    /// The wait between the refresh and the answer.
    pub after: Option<Action>,
    /// What is wrong with the answer.
    pub answer: Option<Action>,
    /// The faults behind it.
    pub faults: Vec<u64>,
}

/// All faults, oldest first.
#[derive(Default)]
pub struct Faults {
    last_id: u64,
    list: Vec<Fault>,
}

impl Faults {
    /// Puts one in force.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn add(&mut self, new: NewFault) -> Result<u64, String> {
        new.action.check()?;
        self.last_id += 1;
        self.list.push(Fault {
            id: self.last_id,
            scope: new.scope,
            times_left: new.times,
            skip_left: new.skip,
            hits: 0,
            action: new.action,
        });
        Ok(self.last_id)
    }

    /// All of them, used up or not.
    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    /// Removes one, or all; says how many that were.
    pub fn clear(&mut self, id: Option<u64>) -> usize {
        let before = self.list.len();
        self.list.retain(|fault| id.is_some_and(|id| id != fault.id));
        before - self.list.len()
    }

    /// Decides what a request meets, and counts it. The oldest fault in force takes each slot; a
    /// younger one keeps its count.
    pub fn plan(&mut self, subject: Subject<'_>) -> Plan {
        let mut plan = Plan::default();
        for fault in &mut self.list {
            let slot = match fault.action.slot() {
                Slot::WaitBefore => &mut plan.before,
                Slot::WaitAfter => &mut plan.after,
                Slot::Answer => &mut plan.answer,
            };
            if slot.is_some() || fault.times_left == Some(0) || !fault.scope.fits(subject) {
                continue;
            }
            if fault.skip_left > 0 {
                fault.skip_left -= 1;
                continue;
            }
            if let Some(left) = &mut fault.times_left {
                *left -= 1;
            }
            fault.hits += 1;
            *slot = Some(fault.action.clone());
            plan.faults.push(fault.id);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(all: &[Value]) -> Faults {
        let mut faults = Faults::default();
        for one in all {
            let new = serde_json::from_value(one.clone()).expect("a fault");
            faults.add(new).expect("a good fault");
        }
        faults
    }

    fn subject(shop: &str) -> Subject<'_> {
        Subject {
            app_key: Some("key"),
            shop: Some(shop),
            refresh_token: Some("token"),
            form: Form::Json,
            endpoint: Endpoint::Refresh,
        }
    }

    #[test]
    fn a_fault_is_met_as_often_as_it_says_after_the_ones_it_lets_pass() {
        let mut faults = faults(&[json!({"skip": 1, "times": 2, "action": {"type": "error", "code": 1}})]);
        let met: Vec<bool> = (0..5).map(|_| faults.plan(subject("a")).answer.is_some()).collect();
        assert_eq!(met, [false, true, true, false, false]);
        assert_eq!(faults.list()[0].hits, 2);
    }

    #[test]
    fn a_fault_meets_only_requests_in_its_scope() {
        for (scope, met) in [
            (json!({}), true),
            (json!({"shop": "a"}), true),
            (json!({"shop": "b"}), false),
            (json!({"app_key": "key", "form": "query"}), false),
            (json!({"refresh_token": "token"}), true),
            (json!({"refresh_token": "other"}), false),
            (json!({"endpoint": "refresh"}), true),
            (json!({"endpoint": "exchange"}), false),
        ] {
            let mut faults = faults(&[json!({"scope": scope, "action": {"type": "error", "code": 1}})]);
            assert_eq!(faults.plan(subject("a")).answer.is_some(), met, "{scope}");
        }
    }

    #[test]
    fn a_wait_and_a_wrong_answer_combine_and_the_older_of_two_alike_goes_first() {
        let mut faults = faults(&[
            json!({"times": 1, "action": {"type": "hold", "point": "after_rotation"}}),
            json!({"times": 1, "action": {"type": "drop", "point": "after_rotation"}}),
            json!({"times": 1, "action": {"type": "error", "code": 7}}),
        ]);
        let first = faults.plan(subject("a"));
        assert_eq!(first.faults, [1, 2]);
        let second = faults.plan(subject("a"));
        assert_eq!(second.faults, [3]);
    }

    #[test]
    fn an_action_with_a_misspelt_field_is_refused() {
        let action = json!({"action": {"type": "drop", "point": "after_rotation", "rest": true}});
        assert!(serde_json::from_value::<NewFault>(action).is_err());
    }
}
