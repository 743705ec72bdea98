//! What a person sees of a fleet in every state: cells, explanations, selections, gauges.

use serde_json::{Value, json};
use tiktok_shop_testkit::{
    fixtures::{self, integration},
    poll,
    simulator::{Action, Fault, NewShop},
};

use crate::resilience::{SOON, Stage};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// A stage with one integration in each state, and what `Ready` says of each.
async fn fleet() -> (Stage<'static>, [(&'static str, &'static str, &'static str); 6]) {
    let stage = Stage::new().await;
    let conditions = [
        ("expired", "False", "TokenExpired"),
        ("failing", "True", "RefreshFailing"),
        ("missing", "False", "TokenSecretNotFound"),
        ("resting", "True", "Suspended"),
        ("unknown", "Unknown", "RefreshFailing"),
        ("valid", "True", "TokenValid"),
    ];
    for (name, left) in [("expired", -HOUR), ("failing", HOUR), ("resting", HOUR), ("unknown", DAY), ("valid", 3 * DAY)]
    {
        let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id(name).access_remaining(left - 30)).await;
        let secret = stage.token_secret(&shop);
        let secret = if name == "unknown" { secret.without("access_token_expire_in") } else { secret };
        secret.create(&stage.client).await;
        if ["expired", "failing", "unknown"].contains(&name) {
            stage.simulator.add_fault(Fault::always(Action::code(99_999_999)).shop(name)).await;
        }
    }
    for (name, ..) in conditions {
        let made = integration(&stage.namespace, name, name, "app").suspend(name == "resting");
        let made = if name == "valid" { made.team("team-7") } else { made };
        made.create(&stage.client).await;
    }
    (stage, conditions)
}

async fn wait_for_states(stage: &Stage<'_>, conditions: &[(&str, &str, &str)]) {
    for (name, ready, reason) in conditions {
        let what = format!("Ready {ready} with {reason}");
        stage.wait_status(name, &what, |status| fixtures::has_condition(status, "Ready", ready, reason), SOON).await;
    }
}

/// The cells of a table of kubectl, cut where the header's columns begin.
fn cells(table: &str) -> Vec<Vec<String>> {
    let mut lines = table.lines();
    let header = lines.next().expect("a table has a header");
    let mut starts = vec![0];
    let bytes = header.as_bytes();
    // Columns are three blanks apart; a name may hold one.
    starts.extend((2..bytes.len()).filter(|&at| bytes[at] != b' ' && &bytes[at - 2..at] == b"  "));
    let cut = |line: &str| {
        let cell = |(at, start): (usize, &usize)| {
            let end = starts.get(at + 1).copied().unwrap_or(line.len()).min(line.len());
            line.get(*start..end).unwrap_or_default().trim().to_owned()
        };
        starts.iter().enumerate().map(cell).collect()
    };
    std::iter::once(header).chain(lines).map(cut).collect()
}

/// Each state as a row, each cell as the status has it, in both widths.
///
/// Covers: column/Team, column/Ready, column/Status, column/Hours, column/Expires, column/Age,
/// column/Refresh Token Expires, column/Last Refresh, column/Next Refresh, column/Error, status/hoursUntilExpiry,
/// status/lastError.message, reason/TokenExpired, reason/Suspended, reason/TokenSecretNotFound, reason/RefreshFailing
#[tokio::test]
async fn every_cell_is_what_the_status_says_in_every_state() {
    let (stage, conditions) = fleet().await;
    let _operator = stage.operator().start();
    wait_for_states(&stage, &conditions).await;
    // Statuses of what fails are written at each try: those that belong to this table.
    let look_at = async |name: &str| {
        let object = fixtures::integrations(&stage.client, &stage.namespace).get(name).await;
        serde_json::to_value(object.expect("it is there")).expect("an object is JSON")
    };
    let (objects, table) = poll::until(SOON, async || {
        let mut before = Vec::new();
        for (name, ..) in conditions {
            before.push(look_at(name).await);
        }
        let table = stage.plane.kubectl_ok(&["get", "ttsi", "-n", &stage.namespace, "-o", "wide"]).await;
        for (object, (name, ..)) in before.iter().zip(conditions) {
            if look_at(name).await["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                return None;
            }
        }
        Some((before, table))
    })
    .await
    .expect("the statuses come to rest for a moment");
    let rows = cells(&table);
    let header = [
        "NAME",
        "TEAM",
        "READY",
        "STATUS",
        "HOURS",
        "EXPIRES",
        "AGE",
        "REFRESH TOKEN EXPIRES",
        "LAST REFRESH",
        "NEXT REFRESH",
        "ERROR",
    ];
    assert_eq!(rows[0], header, "{table}");
    for ((row, object), (name, ready, reason)) in rows[1..].iter().zip(&objects).zip(conditions) {
        let shown = &object["status"];
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let expected = [
            name.to_owned(),
            text(&object["spec"]["teamId"]),
            ready.to_owned(),
            reason.to_owned(),
            text(&shown["hoursUntilExpiry"]),
            text(&shown["accessTokenExpiresAt"]),
            row[6].clone(),
            text(&shown["refreshTokenExpiresAt"]),
            text(&shown["lastRefreshTime"]),
            text(&shown["nextRefreshTime"]),
            text(&shown["lastError"]["message"]),
        ];
        assert_eq!(row[..], expected, "{name}\n{table}");
        assert!(row[6].starts_with(|c: char| c.is_ascii_digit()), "AGE of {name} is a time: {}", row[6]);
        let hours = match name {
            "expired" | "failing" | "resting" => "0",
            "valid" => "71",
            _ => "",
        };
        assert_eq!(row[4], hours, "HOURS of {name}\n{table}");
    }
    let narrow = cells(&stage.plane.kubectl_ok(&["get", "ttsi", "-n", &stage.namespace]).await);
    assert_eq!(narrow[0], header[..7]);
    assert_eq!(narrow.len(), 7);
}

/// Selections by the fields that the contract makes selectable, and every name of the resource.
///
/// Covers: spec/teamId, spec/suspend
#[tokio::test]
async fn integrations_are_selected_by_team_and_suspension() {
    let (stage, _) = fleet().await;
    let names = async |resource: &str, selector: &str| {
        let args = ["get", resource, "-n", &stage.namespace, "--field-selector", selector, "-o", "name"];
        let printed = stage.plane.kubectl_ok(&args).await;
        let name = |line: &str| line.rsplit('/').next().unwrap_or_default().to_owned();
        printed.lines().map(name).collect::<Vec<_>>()
    };
    for resource in ["ttsi", "tiktokshopintegration", "tiktokshopintegrations", "tiktokshopintegrations.tiktokshop.dev"]
    {
        assert_eq!(names(resource, "spec.teamId=team-7").await, ["valid"], "{resource}");
    }
    assert_eq!(names("ttsi", "spec.suspend=true").await, ["resting"]);
    let active = names("ttsi", "spec.suspend=false").await;
    assert_eq!(active, ["expired", "failing", "missing", "unknown", "valid"]);
    assert_eq!(names("ttsi", "spec.suspend=false,spec.teamId=team-7").await, ["valid"]);
    let category = stage.plane.kubectl_ok(&["get", "tiktokshop", "-n", &stage.namespace, "-o", "name"]).await;
    assert_eq!(category.lines().count(), 6, "{category}");
}

/// `kubectl explain` has a text for every field, all the way down.
///
/// Covers: spec/refreshBefore, spec/suspend
#[tokio::test]
async fn explanations_read_like_documentation() {
    let stage = Stage::new().await;
    // The server tells of a new kind a moment after it serves it.
    let told = poll::until(SOON, async || {
        stage.plane.kubectl(&["explain", "ttsi.status.lastError"]).await.status.success().then_some(())
    });
    told.await.expect("the API server explains the kind");
    for (path, words) in [
        ("ttsi", &["alive"][..]),
        ("ttsi.spec", &["appCredentialsSecretRef", "tokenSecretRef", "refreshBefore", "suspend", "teamId"]),
        ("ttsi.spec.refreshBefore", &["5m", "144h", "--refresh-before", "24h"]),
        ("ttsi.spec.suspend", &["Defaults to false", "kubectl get ttsi"]),
        ("ttsi.spec.tokenSecretRef.keys", &["access_token", "data"]),
        ("ttsi.status", &["conditions", "hoursUntilExpiry", "lastError", "nextRefreshTime", "seller"]),
        ("ttsi.status.conditions", &["Ready", "Refreshed", "Stalled"]),
        ("ttsi.status.lastError", &["code", "requestId", "reason", "message", "time"]),
    ] {
        let explained = stage.plane.kubectl_ok(&["explain", path]).await;
        for word in words {
            assert!(explained.contains(word), "{path} does not speak of {word}:\n{explained}");
        }
        assert!(!explained.contains("<empty>"), "a field of {path} has no text:\n{explained}");
    }
}

/// The fleet as gauges: by state, with teams, what expires; a suspended one wakes nobody, and a
/// deleted one is counted no more.
///
/// Covers: `metric/tiktokshop_integrations`, `metric/tiktokshop_integrations_expiring`,
/// `metric/tiktokshop_soonest_access_token_expiry_timestamp_seconds`, `metric/tiktokshop_overdue_integrations`,
/// `metric/tiktokshop_access_token_expiry_timestamp_seconds`, `metric/tiktokshop_refresh_token_expiry_timestamp_seconds`
#[tokio::test]
async fn gauges_count_the_fleet_by_state() {
    let (stage, conditions) = fleet().await;
    let name = "tiktokshop_access_token_expiry_timestamp_seconds";
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    wait_for_states(&stage, &conditions).await;
    let metrics = poll::until(SOON, async || {
        let metrics = operator.metrics().await;
        let counted = |(_, ready, reason): &(&str, &str, &str)| {
            metrics.sum("tiktokshop_integrations", &[("ready", ready), ("reason", reason)]) > 0.5
        };
        conditions.iter().all(counted).then_some(metrics)
    });
    let metrics = metrics.await.expect("each state is counted");
    let is = |name: &str, labels: &[(&str, &str)], expected: f64| {
        let value = metrics.value(name, labels);
        assert!(value.is_some_and(|value| (value - expected).abs() < 0.5), "{name}{labels:?} is {value:?}");
    };
    for (_, ready, reason) in conditions {
        is("tiktokshop_integrations", &[("ready", ready), ("reason", reason)], 1.0);
    }
    // expired and failing; not the suspended one.
    is("tiktokshop_integrations_expiring", &[("token", "access"), ("within", "1h")], 2.0);
    is("tiktokshop_integrations_expiring", &[("token", "access"), ("within", "24h")], 2.0);
    is("tiktokshop_integrations_expiring", &[("token", "access"), ("within", "14d")], 3.0);
    is("tiktokshop_integrations_expiring", &[("token", "refresh"), ("within", "14d")], 0.0);
    is("tiktokshop_overdue_integrations", &[], 0.0);
    let seconds = |at: i64| {
        #[allow(clippy::cast_precision_loss, reason = "seconds of our time fit")]
        let seconds = at as f64;
        seconds
    };
    let expired = stage.simulator.shop("expired").await.access_expires_at();
    is("tiktokshop_soonest_access_token_expiry_timestamp_seconds", &[], seconds(expired));
    let valid = stage.simulator.shop("valid").await;
    let labels = [("namespace", stage.namespace.as_str()), ("name", "valid"), ("team", "team-7")];
    is(name, &labels, seconds(valid.access_expires_at()));
    let refresh = "tiktokshop_refresh_token_expiry_timestamp_seconds";
    is(refresh, &labels, seconds(valid.refresh_expires_at()));
    is(name, &[("name", "failing"), ("team", "")], seconds(stage.simulator.shop("failing").await.access_expires_at()));
    // What is deleted is counted no more.
    let args = ["delete", "ttsi", "valid", "-n", &stage.namespace];
    stage.plane.kubectl_ok(&args).await;
    let gone = poll::until(SOON, async || {
        let metrics = operator.metrics().await;
        let left = metrics.value(name, &[("name", "valid")]);
        (left.is_none() && metrics.sum("tiktokshop_integrations", &[]) < 5.5).then_some(())
    });
    gone.await.expect("a deleted integration leaves the gauges");
    let secret = fixtures::secret(&stage.client, &stage.namespace, "valid").await;
    assert!(secret.is_some(), "the tokens of a deleted integration stay");
    let annotations = secret.and_then(|secret| secret.metadata.annotations).unwrap_or_default();
    assert_eq!(json!(annotations), json!({}), "a token that was never refreshed was written to");
}
