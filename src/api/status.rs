//! What the operator says: the status.
//!
//! Its schema is generous, so that the API server never refuses a status of the operator's own. As in the spec, the
//! documentation of types and fields is what `kubectl explain ttsi.status` prints.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Condition, ConditionType, Reason, timestamp};

/// How the tokens of the shop are, and what the operator did and will do about them. Written by the operator alone.
/// All times are UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TikTokShopIntegrationStatus {
    /// The metadata.generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready: True exactly while the access token in the Secret is present and unexpired; Unknown while its expiry is
    /// not known. Its reason is the one most important thing to know.
    ///
    /// Refreshed: how the last try to refresh went; Unknown before the first.
    ///
    /// Stalled: there, and True, only where nothing but a person can help; the message says what to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// When the access token expires. Absent while it is not known.
    #[serde(with = "timestamp::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub access_token_expires_at: Option<DateTime<Utc>>,

    /// When the refresh token expires; after that the shop must be authorized anew. Absent while it is not known.
    #[serde(with = "timestamp::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub refresh_token_expires_at: Option<DateTime<Utc>>,

    /// Whole hours until the access token expires, rounded down; 0 once it has. It may lag by the operator's
    /// --status-interval (1h unless set).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", extend("minimum" = 0))]
    pub hours_until_expiry: Option<u64>,

    /// When the operator will act next on this token.
    #[serde(with = "timestamp::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_refresh_time: Option<DateTime<Utc>>,

    /// When the tokens were last refreshed with success.
    #[serde(with = "timestamp::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub last_refresh_time: Option<DateTime<Utc>>,

    /// When a refresh was last tried, well or badly.
    #[serde(with = "timestamp::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub last_attempt_time: Option<DateTime<Utc>>,

    /// How many tries have failed since the last success.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", extend("minimum" = 0))]
    pub consecutive_failures: Option<u32>,

    /// How the last try failed. Gone after a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,

    /// The value of the annotation tiktokshop.dev/refresh-requested-at that was last acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_refresh_request: Option<String>,

    /// The token Secret that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_token_secret: Option<ObservedTokenSecret>,

    /// The shop, as TikTok names it in its answer to a refresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seller: Option<Seller>,

    /// The restarts of spec.rolloutRestartTargets. There while the spec has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout_restart: Option<RolloutRestart>,

    /// The shops that the access token is good for, as TikTok named them last; at most 100. Only with spec.checkShops.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shops: Vec<CheckedShop>,

    /// When TikTok last accepted the access token in a check of the shops, which is made after each refresh and once a
    /// day. Only with spec.checkShops.
    #[serde(with = "timestamp::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub last_shops_check_time: Option<DateTime<Utc>>,
}

impl TikTokShopIntegrationStatus {
    /// The condition of this type, where there is one.
    #[must_use]
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.is(type_))
    }
}

/// A failure of the last try to refresh.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// One word that says what failed, for programs. Example: RateLimited
    pub reason: String,

    /// What failed and, where a person must act, what to do.
    pub message: String,

    /// The code in TikTok's answer, where there was one. Example: 36004005
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,

    /// TikTok's id of the request, which its support asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,

    /// When the try to refresh failed.
    #[serde(with = "timestamp::required")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: DateTime<Utc>,
}

impl LastError {
    /// The reason, where it is one that this version knows.
    #[must_use]
    pub fn known_reason(&self) -> Option<Reason> {
        self.reason.parse().ok()
    }
}

/// A version of the token Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObservedTokenSecret {
    /// The Secret's metadata.uid.
    pub uid: String,

    /// The Secret's metadata.resourceVersion.
    pub resource_version: String,

    /// A digest by which the operator tells whether the tokens changed. It tells nothing about the tokens themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_digest: Option<String>,
}

/// A shop in TikTok's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Seller {
    /// TikTok's id of the one who authorized the app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_id: Option<String>,

    /// The name of the shop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// The region that the shop is registered in. Example: VN
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_region: Option<String>,

    /// TikTok's number for the kind of account: 0 is a seller, 1 a creator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_type: Option<i64>,
}

/// What was restarted after a rotation of the tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutRestart {
    /// The rotation for which all targets were last restarted, as the annotation tiktokshop.dev/restarted-at on their
    /// pod templates says it: when the tokens were issued, with a fraction that tells it from others of that second. Where
    /// none was restarted yet, the rotation that was the last when the spec first had targets; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<String>,
}

/// A shop that the access token is good for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckedShop {
    /// TikTok's id of the shop, under which its cipher stands in the token Secret's key shop_ciphers.
    pub id: String,

    /// The name of the shop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Where the shop sells. Example: VN
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,

    /// TikTok's code of the shop, which sellers see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,

    /// TikTok's word for the kind of seller. Example: CROSS_BORDER
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seller_type: Option<String>,
}

/// The fields of an object that a status may lack, under the object's own field (none for the status itself).
///
/// A test holds them to the schema.
const OPTIONAL_FIELDS: [(Option<&str>, &[&str]); 5] = [
    (
        None,
        &[
            "observedGeneration",
            "conditions",
            "accessTokenExpiresAt",
            "refreshTokenExpiresAt",
            "hoursUntilExpiry",
            "nextRefreshTime",
            "lastRefreshTime",
            "lastAttemptTime",
            "consecutiveFailures",
            "lastError",
            "lastHandledRefreshRequest",
            "observedTokenSecret",
            "seller",
            "rolloutRestart",
            "shops",
            "lastShopsCheckTime",
        ],
    ),
    (Some("lastError"), &["code", "requestId"]),
    (Some("observedTokenSecret"), &["tokensDigest"]),
    (Some("rolloutRestart"), &["restartedAt"]),
    (Some("seller"), &["openId", "name", "baseRegion", "userType"]),
];

/// The JSON merge patch of a `status` that makes a stored one equal to this.
///
/// A merge patch keeps what it does not name: an error that is over would stay for ever. So what is absent here stands
/// as null, which removes it. `conditions` is one value to a merge patch, all of it replaced.
///
/// # Panics
///
/// Never in fact: nothing in a status can fail to be written as JSON.
#[must_use]
pub fn merge_patch(status: &TikTokShopIntegrationStatus) -> Value {
    let mut patch = serde_json::to_value(status).expect("a status holds nothing that JSON cannot");
    for (parent, fields) in OPTIONAL_FIELDS {
        let object = match parent {
            None => Some(&mut patch),
            Some(parent) => patch.get_mut(parent),
        };
        if let Some(object) = object.and_then(Value::as_object_mut) {
            fill_with_null(object, fields);
        }
    }
    patch
}

fn fill_with_null(object: &mut Map<String, Value>, fields: &[&str]) {
    for &field in fields {
        object.entry(field).or_insert(Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::api::{ConditionStatus, crd};

    fn time(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn full() -> TikTokShopIntegrationStatus {
        TikTokShopIntegrationStatus {
            observed_generation: Some(2),
            conditions: vec![Condition::new(
                ConditionType::Ready,
                ConditionStatus::True,
                Reason::TokenValid,
                "the access token is valid",
                Some(2),
                time(1_736_951_425),
            )],
            access_token_expires_at: Some(time(1_737_000_000)),
            refresh_token_expires_at: Some(time(4_892_625_025)),
            hours_until_expiry: Some(13),
            next_refresh_time: Some(time(1_736_999_000)),
            last_refresh_time: Some(time(1_736_951_425)),
            last_attempt_time: Some(time(1_736_951_425)),
            consecutive_failures: Some(1),
            last_error: Some(LastError {
                reason: Reason::RateLimited.as_str().to_owned(),
                message: "too many requests".to_owned(),
                code: Some(36_009_002),
                request_id: Some("r-1".to_owned()),
                time: time(1_736_951_425),
            }),
            last_handled_refresh_request: Some("7".to_owned()),
            observed_token_secret: Some(ObservedTokenSecret {
                uid: "u".to_owned(),
                resource_version: "42".to_owned(),
                tokens_digest: Some("d".to_owned()),
            }),
            seller: Some(Seller {
                open_id: Some("o".to_owned()),
                name: Some("Shop".to_owned()),
                base_region: Some("VN".to_owned()),
                user_type: Some(0),
            }),
            rollout_restart: Some(RolloutRestart { restarted_at: Some("2025-01-15T14:30:25.000007Z".to_owned()) }),
            shops: vec![CheckedShop {
                id: "7".to_owned(),
                name: Some("Shop".to_owned()),
                region: Some("VN".to_owned()),
                code: Some("C".to_owned()),
                seller_type: Some("LOCAL".to_owned()),
            }],
            last_shops_check_time: Some(time(1_736_951_425)),
        }
    }

    /// Applies a merge patch as RFC 7396 says.
    fn apply(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let target = target.as_object_mut().unwrap();
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                apply(target.entry(key).or_insert(Value::Null), value);
            }
        }
    }

    #[test]
    fn a_status_reads_back_as_it_was_written() {
        let value = serde_json::to_value(full()).unwrap();
        assert_eq!(value["accessTokenExpiresAt"], "2025-01-16T04:00:00Z");
        assert_eq!(value["refreshTokenExpiresAt"], "2125-01-15T14:30:25Z");
        assert_eq!(serde_json::from_value::<TikTokShopIntegrationStatus>(value).unwrap(), full());
    }

    #[test]
    fn an_empty_status_is_written_as_nothing_and_read_from_nothing() {
        let empty = TikTokShopIntegrationStatus::default();
        assert_eq!(serde_json::to_value(&empty).unwrap(), json!({}));
        assert_eq!(serde_json::from_value::<TikTokShopIntegrationStatus>(json!({})).unwrap(), empty);
    }

    #[test]
    fn a_reason_and_fields_of_a_newer_version_do_not_lose_the_status() {
        let status: TikTokShopIntegrationStatus = serde_json::from_value(json!({
            "sellers": [],
            "lastHandledRefreshRequest": "7",
            "lastError": {"reason": "NoSuchReason", "message": "", "time": "2025-01-15T14:30:25.5+00:00"},
        }))
        .unwrap();
        assert_eq!(status.last_handled_refresh_request.as_deref(), Some("7"));
        assert_eq!(status.last_error.unwrap().known_reason(), None);
    }

    #[test]
    fn a_patch_turns_any_stored_status_into_the_new_one() {
        let partly = TikTokShopIntegrationStatus {
            last_error: full().last_error.map(|error| LastError { code: None, request_id: None, ..error }),
            observed_token_secret: full()
                .observed_token_secret
                .map(|s| ObservedTokenSecret { tokens_digest: None, ..s }),
            seller: Some(Seller { name: Some("Shop".to_owned()), ..Seller::default() }),
            ..TikTokShopIntegrationStatus::default()
        };
        for wanted in [TikTokShopIntegrationStatus::default(), partly, full()] {
            let mut stored = json!({ "status": full() });
            apply(&mut stored, &json!({ "status": merge_patch(&wanted) }));
            assert_eq!(stored, json!({ "status": wanted }));
        }
    }

    #[test]
    fn the_patch_knows_every_field_that_the_schema_lets_be_absent() {
        let schema = serde_json::to_value(crd()).unwrap();
        let status = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        let optional = |schema: &Value| -> BTreeSet<String> {
            let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
            let all = schema["properties"].as_object().unwrap().keys().cloned();
            all.filter(|name| !required.contains(&&Value::from(name.as_str()))).collect()
        };
        let objects = status["properties"].as_object().unwrap().iter().filter(|(_, schema)| schema["type"] == "object");
        let expected = std::iter::once((None, optional(status)))
            .chain(objects.map(|(name, schema)| (Some(name.as_str()), optional(schema))))
            .collect::<Vec<_>>();
        let known = OPTIONAL_FIELDS.map(|(parent, fields)| (parent, fields.iter().map(|&f| f.to_owned()).collect()));
        assert_eq!(expected, known);
    }
}
