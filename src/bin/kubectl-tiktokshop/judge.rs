//! What is due, and what came of it: pure functions of an integration as the API server tells it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use kube::{Resource as _, ResourceExt as _};
use tiktok_shop_operator::api::names::REFRESH_REQUESTED_AT;
use tiktok_shop_operator::api::{
    ConditionType, LastError, Reason, RefreshBefore, TikTokShopIntegrationSpec, TikTokShopIntegrationStatus,
};
use tiktok_shop_operator::cluster::WatchedIntegration;
use tiktok_shop_operator::decide;

/// The operator's own default of `--refresh-before`. It counts only where status does not say when the
/// operator will act.
const REFRESH_BEFORE: RefreshBefore = RefreshBefore::Duration(Duration::from_hours(24));

/// Seconds after which a running operator has looked at a new integration, or tried a due one.
const GRACE: i64 = 120;

/// Why a refresh is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The access token is within its expiry window, or expired.
    Due,
    /// Nobody knows when the access token expires.
    ExpiryUnknown,
    /// `--force`.
    Forced,
}

impl Why {
    /// As `reason` in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Due => "Due",
            Self::ExpiryUnknown => "ExpiryUnknown",
            Self::Forced => "Forced",
        }
    }
}

/// What is to be done about an integration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the operator.
    Ask(Why),
    /// Its token has time left.
    NotDue,
    /// It rests.
    Suspended,
    /// Asking can't help: something is to be mended first.
    Failed(Failed),
}

/// A failure in the operator's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// One word.
    pub reason: String,
    /// What it says of it; may be empty.
    pub detail: String,
}

impl From<&LastError> for Failed {
    fn from(error: &LastError) -> Self {
        Self { reason: error.reason.clone(), detail: error.message.clone() }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There are new tokens.
    Refreshed,
    /// There are none.
    Failed(Failed),
    /// It was suspended while the request stood.
    Suspended,
}

/// Does the integration rest?
pub fn is_suspended(integration: &WatchedIntegration) -> bool {
    integration.spec.as_ref().is_ok_and(|spec| spec.suspend)
}

/// Decides whether the operator is asked, at a time.
pub fn judge(integration: &WatchedIntegration, force: bool, now: DateTime<Utc>) -> Verdict {
    if is_suspended(integration) {
        return Verdict::Suspended;
    }
    let Some(status) = &integration.status else {
        return Verdict::Ask(if force { Why::Forced } else { Why::ExpiryUnknown });
    };
    // Where the spec is newer than the status, the operator's word of it is still to come.
    let is_current = status.observed_generation == integration.meta().generation;
    if is_current {
        if let Some(failed) = in_the_way(status, force, now) {
            return Verdict::Failed(failed);
        }
        if let Some(error) = status.last_error.as_ref().filter(|error| !force && stalls(error)) {
            return Verdict::Failed(error.into());
        }
    }
    if force {
        return Verdict::Ask(Why::Forced);
    }
    let Some(expires_at) = status.access_token_expires_at else {
        // An answer without an expiry is not asked for again at once: the operator says when.
        return match status.next_refresh_time.filter(|next| is_current && *next > now) {
            Some(_) => Verdict::NotDue,
            None => Verdict::Ask(Why::ExpiryUnknown),
        };
    };
    // While the operator pauses after a failure, its next time says when it tries again, not when the token was due.
    let planned = status.next_refresh_time.filter(|_| is_current && status.last_error.is_none());
    let due_at = planned.map_or_else(|| window_opens(integration, status, expires_at), |next| next.timestamp());
    if due_at <= now.timestamp() { Verdict::Ask(Why::Due) } else { Verdict::NotDue }
}

/// When the expiry window opens by the contract, jitter left out.
fn window_opens(
    integration: &WatchedIntegration,
    status: &TikTokShopIntegrationStatus,
    expires_at: DateTime<Utc>,
) -> i64 {
    let refresh_before =
        integration.spec.as_ref().ok().and_then(TikTokShopIntegrationSpec::refresh_before).unwrap_or(REFRESH_BEFORE);
    let life = status.last_refresh_time.map(|born| expires_at.timestamp() - born.timestamp());
    expires_at.timestamp() - decide::window(refresh_before, life, 0).length
}

fn stalls(error: &LastError) -> bool {
    error.known_reason().is_some_and(Reason::stalls)
}

/// What the operator waits for before it can act on any request: `decide` asks for these before it honours one.
fn in_the_way(status: &TikTokShopIntegrationStatus, force: bool, now: DateTime<Utc>) -> Option<Failed> {
    let ready = status.condition(ConditionType::Ready)?;
    let reason = ready.known_reason()?;
    let blocks = match reason {
        // A request has these presented, and a right that was granted meanwhile tried.
        Reason::TokenSecretReverted => !force,
        Reason::TokenSecretForbidden => !force || status.last_error.is_none(),
        Reason::RefreshTokenExpired | Reason::PersistFailed => true,
        // Beside tokens that live, it is no hindrance to a refresh.
        Reason::AuthorizationCodeRejected => status.condition(ConditionType::Stalled).is_some(),
        reason => reason.is_about_secrets(),
    };
    if blocks {
        return Some(Failed { reason: ready.reason.to_string(), detail: ready.said().to_owned() });
    }
    let expired = status.refresh_token_expires_at.is_some_and(|at| at <= now);
    expired.then(|| Failed { reason: Reason::RefreshTokenExpired.as_str().to_owned(), detail: String::new() })
}

/// The value of the request annotation.
pub fn request(integration: &WatchedIntegration) -> Option<&str> {
    integration.annotations().get(REFRESH_REQUESTED_AT).map(String::as_str)
}

/// Reads from an integration what became of the request that stands on it.
///
/// `before` is the status at the very version that the request was written on: what differs from it came after.
pub fn answer(integration: &WatchedIntegration, request: &str, before: &TikTokShopIntegrationStatus) -> Option<Answer> {
    let status = integration.status.as_ref();
    let last_error = status.and_then(|status| status.last_error.as_ref());
    if status.is_some_and(|status| status.last_handled_refresh_request.as_deref() == Some(request)) {
        return Some(last_error.map_or(Answer::Refreshed, |error| Answer::Failed(error.into())));
    }
    if is_suspended(integration) {
        return Some(Answer::Suspended);
    }
    let status = status?;
    let tried = |status: &TikTokShopIntegrationStatus| {
        (status.last_error.clone(), status.last_attempt_time, status.consecutive_failures)
    };
    if let Some(error) = last_error.filter(|_| tried(status) != tried(before)) {
        return Some(Answer::Failed(error.into()));
    }
    let word =
        |status: &TikTokShopIntegrationStatus| status.condition(ConditionType::Ready).map(|ready| ready.reason.clone());
    if word(status) == word(before) {
        return None;
    }
    in_the_way(status, false, DateTime::<Utc>::MIN_UTC).map(Answer::Failed)
}

/// Since when the operator lets it lie: due, or new, and not tried for longer than a running operator would take.
pub fn overdue_since(integration: &WatchedIntegration, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    if is_suspended(integration) {
        return None;
    }
    let since = match &integration.status {
        None => DateTime::from_timestamp(integration.created_at, 0),
        Some(status) => status.next_refresh_time,
    };
    since.filter(|since| since.timestamp().saturating_add(GRACE) < now.timestamp())
}

/// Hours from now to a time, to one decimal; 0 once it is past.
pub fn hours_until(time: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
    // Tenths of an hour are 360 s; rounded to the nearest.
    let tenths = (time.timestamp().saturating_sub(now.timestamp()).max(0).saturating_add(180)) / 360;
    #[expect(clippy::cast_precision_loss, reason = "tenths of an hour of any time that status can hold fit")]
    let tenths = tenths as f64;
    tenths / 10.0
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_736_951_425;

    fn time(hours: f64) -> String {
        #[expect(clippy::cast_possible_truncation, reason = "a few days")]
        let seconds = (hours * 3_600.0) as i64;
        now_plus(seconds).to_rfc3339()
    }

    fn now_plus(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(NOW + seconds, 0).unwrap()
    }

    fn integration(spec: &Value, status: &Value) -> WatchedIntegration {
        let mut whole = json!({
            "appCredentialsSecretRef": {"name": "app"}, "tokenSecretRef": {"name": "shop"}, "suspend": false,
        });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let mut object = json!({"metadata": {"name": "shop", "namespace": "shops", "generation": 1}, "spec": whole});
        if !status.is_null() {
            object["status"] = json!({"observedGeneration": 1});
            object["status"].as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        }
        serde_json::from_value(object).unwrap()
    }

    fn ready(reason: &str) -> Value {
        json!([{"type": "Ready", "status": "False", "reason": reason, "message": "said so",
                "lastTransitionTime": "2025-01-01T00:00:00Z"}])
    }

    fn error(reason: &str) -> Value {
        json!({"reason": reason, "message": "said so", "time": "2025-01-01T00:00:00Z"})
    }

    fn told(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Ask(why) => why.as_str().to_owned(),
            Verdict::NotDue => "not due".to_owned(),
            Verdict::Suspended => "suspended".to_owned(),
            Verdict::Failed(failed) => failed.reason.clone(),
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn what_is_due_is_asked_for_and_nothing_else() {
        let none = || json!({});
        let fine = json!({"accessTokenExpiresAt": time(48.5), "nextRefreshTime": time(24.0)});
        for (sentence, spec, status, unforced, forced) in [
            ("plenty of time", none(), fine.clone(), "not due", "Forced"),
            (
                "suspended",
                json!({"suspend": true}),
                json!({"accessTokenExpiresAt": time(-1.0)}),
                "suspended",
                "suspended",
            ),
            ("never looked at", none(), json!(null), "ExpiryUnknown", "Forced"),
            (
                "the operator's time has come",
                none(),
                json!({"accessTokenExpiresAt": time(30.0), "nextRefreshTime": time(-0.1)}),
                "Due",
                "Forced",
            ),
            ("no expiry", none(), json!({}), "ExpiryUnknown", "Forced"),
            ("no expiry, and the operator waits", none(), json!({"nextRefreshTime": time(0.5)}), "not due", "Forced"),
            ("in the window, no plan", none(), json!({"accessTokenExpiresAt": time(23.0)}), "Due", "Forced"),
            ("before the window, no plan", none(), json!({"accessTokenExpiresAt": time(25.0)}), "not due", "Forced"),
            (
                "its own window",
                json!({"refreshBefore": "72h"}),
                json!({"accessTokenExpiresAt": time(71.0)}),
                "Due",
                "Forced",
            ),
            (
                "a window wider than the token's life allows",
                json!({"refreshBefore": "72h"}),
                json!({"accessTokenExpiresAt": time(40.0), "lastRefreshTime": time(-8.0)}),
                "not due",
                "Forced",
            ),
            (
                "a plan of an older spec",
                json!({"refreshBefore": "72h"}),
                json!({"accessTokenExpiresAt": time(48.0), "nextRefreshTime": time(24.0), "observedGeneration": 0}),
                "Due",
                "Forced",
            ),
            (
                "pausing after a failure that may pass, due",
                none(),
                json!({"accessTokenExpiresAt": time(2.0),
                "nextRefreshTime": time(0.5), "lastError": error("NetworkError")}),
                "Due",
                "Forced",
            ),
            (
                "pausing after a failure that may pass, not due",
                none(),
                json!({"accessTokenExpiresAt": time(48.0),
                "nextRefreshTime": time(0.5), "lastError": error("NetworkError")}),
                "not due",
                "Forced",
            ),
            (
                "refused",
                none(),
                json!({"accessTokenExpiresAt": time(2.0), "nextRefreshTime": time(0.5),
                "lastError": error("RefreshTokenRejected")}),
                "RefreshTokenRejected",
                "Forced",
            ),
            (
                "the refresh token has expired",
                none(),
                json!({"accessTokenExpiresAt": time(2.0),
                "conditions": ready("RefreshTokenExpired")}),
                "RefreshTokenExpired",
                "RefreshTokenExpired",
            ),
            (
                "the refresh token has just expired",
                none(),
                json!({"accessTokenExpiresAt": time(2.0),
                "refreshTokenExpiresAt": time(-0.1), "conditions": ready("TokenValid")}),
                "RefreshTokenExpired",
                "RefreshTokenExpired",
            ),
            (
                "no Secret",
                none(),
                json!({"conditions": ready("TokenSecretNotFound")}),
                "TokenSecretNotFound",
                "TokenSecretNotFound",
            ),
            (
                "no Secret, by an older spec",
                none(),
                json!({"conditions": ready("TokenSecretNotFound"), "observedGeneration": 0}),
                "ExpiryUnknown",
                "Forced",
            ),
            (
                "written back",
                none(),
                json!({"conditions": ready("TokenSecretReverted")}),
                "TokenSecretReverted",
                "Forced",
            ),
            (
                "an answer is held",
                none(),
                json!({"conditions": ready("PersistFailed")}),
                "PersistFailed",
                "PersistFailed",
            ),
        ] {
            let integration = integration(&spec, &status);
            for (force, expected) in [(false, unforced), (true, forced)] {
                let verdict = judge(&integration, force, now_plus(0));
                assert_eq!(told(&verdict), expected, "{sentence}, force {force}");
            }
        }
    }

    #[test]
    fn what_became_of_a_request_is_read_from_what_changed() {
        let before = json!({"accessTokenExpiresAt": time(2.0), "conditions": ready("TokenValid")});
        let failing =
            json!({"lastError": error("NetworkError"), "consecutiveFailures": 1, "lastAttemptTime": time(-1.0)});
        let failed = |reason: &str| Some(Answer::Failed(Failed { reason: reason.into(), detail: "said so".into() }));
        for (sentence, before, spec, after, expected) in [
            ("nothing happened", before.clone(), json!({}), before.clone(), None),
            ("handled", before.clone(), json!({}), json!({"lastHandledRefreshRequest": "r"}), Some(Answer::Refreshed)),
            (
                "another's was handled",
                before.clone(),
                json!({}),
                json!({"lastHandledRefreshRequest": "q",
                "conditions": ready("TokenValid")}),
                None,
            ),
            (
                "handled badly",
                before.clone(),
                json!({}),
                json!({"lastHandledRefreshRequest": "r", "lastError": error("ApiError")}),
                failed("ApiError"),
            ),
            ("failed, to be tried again", before.clone(), json!({}), failing.clone(), failed("NetworkError")),
            ("failed before and not tried since", failing.clone(), json!({}), failing.clone(), None),
            (
                "failed once more",
                failing.clone(),
                json!({}),
                json!({"lastError": error("NetworkError"),
                "consecutiveFailures": 2, "lastAttemptTime": time(-1.0)}),
                failed("NetworkError"),
            ),
            ("suspended meanwhile", before.clone(), json!({"suspend": true}), before.clone(), Some(Answer::Suspended)),
            (
                "its Secret went away",
                before.clone(),
                json!({}),
                json!({"conditions": ready("TokenSecretNotFound")}),
                failed("TokenSecretNotFound"),
            ),
        ] {
            let before = integration(&json!({}), &before).status.unwrap();
            assert_eq!(answer(&integration(&spec, &after), "r", &before), expected, "{sentence}");
        }
    }

    #[test]
    fn hours_are_rounded_to_the_nearest_tenth_and_end_at_none() {
        for (seconds, hours) in [(174_600, 48.5), (174_595, 48.5), (360, 0.1), (0, 0.0), (-9_000, 0.0)] {
            assert!((hours_until(now_plus(seconds), now_plus(0)) - hours).abs() < 1e-9, "{seconds}");
        }
    }

    #[test]
    fn what_a_running_operator_would_have_tried_is_overdue() {
        for (sentence, spec, status, expected) in [
            ("planned", json!({}), json!({"nextRefreshTime": time(1.0)}), false),
            ("just due", json!({}), json!({"nextRefreshTime": time(-0.01)}), false),
            ("long due", json!({}), json!({"nextRefreshTime": time(-1.0)}), true),
            ("long due, suspended", json!({"suspend": true}), json!({"nextRefreshTime": time(-1.0)}), false),
            ("waiting for a person", json!({}), json!({}), false),
            ("never looked at", json!({}), json!(null), true),
        ] {
            let since = overdue_since(&integration(&spec, &status), now_plus(0));
            assert_eq!(since.is_some(), expected, "{sentence}");
        }
    }
}
