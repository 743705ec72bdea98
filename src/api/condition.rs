//! Conditions: the standard form in which a Kubernetes resource says how it is.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Reason, timestamp};

/// The form of a condition's type: a word, which may stand behind a domain.
const TYPE_PATTERN: &str = concat!(
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?",
    r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
);

/// The types of the conditions that the operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// True exactly while the access token in the Secret is present and unexpired.
    Ready,
    /// How the last try to refresh went.
    Refreshed,
    /// Present, and True, only where nothing but a person can help.
    Stalled,
}

impl ConditionType {
    /// Every type, in the order in which status has them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Refreshed, Self::Stalled];

    /// The type as it stands in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Refreshed => "Refreshed",
            Self::Stalled => "Stalled",
        }
    }
}

impl FromStr for ConditionType {
    type Err = UnknownConditionType;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|type_| type_.as_str() == word).ok_or(UnknownConditionType)
    }
}

/// A word that is the type of none of the operator's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown type of condition")]
pub struct UnknownConditionType;

/// Reads a word, and keeps nothing of it where the operator knows it.
fn word<'de, D: Deserializer<'de>>(
    deserializer: D,
    known: impl Fn(&str) -> Option<&'static str>,
) -> Result<Cow<'static, str>, D::Error> {
    struct Visitor<F>(F);
    impl<F: Fn(&str) -> Option<&'static str>> de::Visitor<'_> for Visitor<F> {
        type Value = Cow<'static, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
            Ok((self.0)(word).map_or_else(|| Cow::Owned(word.to_owned()), Cow::Borrowed))
        }
    }
    deserializer.deserialize_str(Visitor(known))
}

fn known_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'static, str>, D::Error> {
    word(deserializer, |word| word.parse().ok().map(ConditionType::as_str))
}

fn known_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'static, str>, D::Error> {
    word(deserializer, |word| word.parse().ok().map(Reason::as_str))
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be told.
    Unknown,
}

impl ConditionStatus {
    /// The status as it stands in a condition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Longest message, in bytes.
const LONGEST_MESSAGE: usize = 1_000;

/// What leads a reader on, where a person must act.
fn pointer(reason: Reason) -> Option<String> {
    reason.needs_a_person().then(|| format!(". See {}", reason.docs_url()))
}

/// One aspect of the resource's present state.
//
// The schema is that of metav1.Condition, line by line: tools that know the one know the other. Type and reason are
// free text here because other programs may add conditions, and a newer operator may have written this one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition: Ready, Refreshed or Stalled.
    #[serde(rename = "type", deserialize_with = "known_type")]
    #[schemars(
        with = "String",
        length(max = 316),
        extend("pattern" = TYPE_PATTERN)
    )]
    pub type_: Cow<'static, str>,

    /// Status of the condition: True, False or Unknown.
    #[schemars(with = "String", extend("enum" = ["True", "False", "Unknown"]))]
    pub status: ConditionStatus,

    /// The metadata.generation that the condition was set for. Where it is smaller than the present one, the condition
    /// speaks of an earlier spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub observed_generation: Option<i64>,

    /// When the condition last changed from one status to another.
    #[serde(with = "timestamp::required")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub last_transition_time: DateTime<Utc>,

    /// One word that says why, for programs. Example: TokenValid
    #[serde(deserialize_with = "known_reason")]
    #[schemars(
        with = "String",
        length(min = 1, max = 1024),
        extend("pattern" = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    )]
    pub reason: Cow<'static, str>,

    /// What the reason means here and, where a person must act, what to do.
    #[schemars(length(max = 32768))]
    pub message: String,
}

impl Condition {
    /// A condition that has its status since `since`, for the spec of `generation`.
    ///
    /// Where a person must act, the message ends with where to read on. It is cut to 1,000 bytes, that end never.
    #[must_use]
    pub fn new(
        type_: ConditionType,
        status: ConditionStatus,
        reason: Reason,
        said: impl Into<String>,
        generation: Option<i64>,
        since: DateTime<Utc>,
    ) -> Self {
        let mut message = said.into();
        let pointer = pointer(reason).unwrap_or_default();
        if !pointer.is_empty() && message.ends_with('.') {
            message.pop();
        }
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE - pointer.len()));
        message.push_str(&pointer);
        Self {
            type_: Cow::Borrowed(type_.as_str()),
            status,
            observed_generation: generation,
            last_transition_time: timestamp::whole_seconds(since),
            reason: Cow::Borrowed(reason.as_str()),
            message,
        }
    }

    /// The message without where to read on.
    #[must_use]
    pub fn said(&self) -> &str {
        let pointer = self.known_reason().and_then(pointer);
        pointer.and_then(|pointer| self.message.strip_suffix(pointer.as_str())).unwrap_or(&self.message)
    }

    /// Whether the condition is of this type.
    #[must_use]
    pub fn is(&self, type_: ConditionType) -> bool {
        self.type_ == type_.as_str()
    }

    /// The reason, where it is one that this version knows.
    #[must_use]
    pub fn known_reason(&self) -> Option<Reason> {
        self.reason.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_is_written_as_kubernetes_writes_one() {
        let since = DateTime::from_timestamp(1_736_951_425, 5).unwrap();
        let condition =
            Condition::new(ConditionType::Ready, ConditionStatus::True, Reason::TokenValid, "fine", Some(3), since);
        assert_eq!(
            serde_json::to_value(&condition).unwrap(),
            json!({
                "type": "Ready",
                "status": "True",
                "observedGeneration": 3,
                "lastTransitionTime": "2025-01-15T14:30:25Z",
                "reason": "TokenValid",
                "message": "fine",
            })
        );
    }

    #[test]
    fn where_a_person_must_act_the_message_says_where_to_read_on() {
        let since = DateTime::from_timestamp(1_736_951_425, 0).unwrap();
        for &reason in Reason::ALL {
            for said in ["it is so", "it is so."] {
                let condition =
                    Condition::new(ConditionType::Ready, ConditionStatus::False, reason, said, Some(1), since);
                if reason.needs_a_person() {
                    assert_eq!(condition.message, format!("it is so. See {}", reason.docs_url()));
                    assert_eq!(condition.said(), "it is so");
                } else {
                    assert_eq!((condition.message.as_str(), condition.said()), (said, said), "{reason}");
                }
            }
        }
    }

    #[test]
    fn a_long_message_is_cut_and_where_to_read_on_is_not() {
        let since = DateTime::from_timestamp(1_736_951_425, 0).unwrap();
        for (reason, said) in [
            (Reason::TokenSecretForbidden, "x".repeat(5_000)),
            (Reason::TokenSecretForbidden, "đ".repeat(5_000)),
            (Reason::RefreshFailing, "x".repeat(5_000)),
            (Reason::RefreshFailing, "ấ".repeat(5_000)),
        ] {
            let condition =
                Condition::new(ConditionType::Ready, ConditionStatus::Unknown, reason, &said, Some(1), since);
            assert!((998..=1_000).contains(&condition.message.len()), "{} bytes", condition.message.len());
            assert!(said.starts_with(condition.said()));
            assert_eq!(condition.message.ends_with(&reason.docs_url()), reason.needs_a_person());
        }
    }

    #[test]
    fn a_condition_of_a_foreign_hand_is_read_and_written_back_as_it_was() {
        let foreign = json!({
            "type": "example.com/Audited",
            "status": "Unknown",
            "lastTransitionTime": "2025-01-15T14:30:25Z",
            "reason": "NobodyKnows",
            "message": "",
        });
        let condition: Condition = serde_json::from_value(foreign.clone()).unwrap();
        assert_eq!(condition.known_reason(), None);
        assert!(!condition.is(ConditionType::Ready));
        assert_eq!(serde_json::to_value(&condition).unwrap(), foreign);
    }
}
