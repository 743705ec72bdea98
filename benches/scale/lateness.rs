//! How late refreshes start where they come due one after another.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use serde::Deserialize;

use crate::fleet::{self, Form, JITTER, WINDOW};
use crate::results::{Goal, Results, quantile};
use crate::stage::{PATIENCE, Stage, at_rest};

const PART: &str = "lateness";

#[derive(Deserialize)]
struct List {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Meta,
    status: Status,
}

#[derive(Deserialize)]
struct Meta {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    next_refresh_time: chrono::DateTime<chrono::Utc>,
}

pub async fn measure(stage: &Stage, (count, over): (usize, Duration), results: &mut Results) {
    let spread = i64::try_from(over.as_secs()).expect("minutes");
    // Long enough to make them and to look at each once, at a hundred a second.
    let lead = 30 + i64::try_from(count / 60).expect("a fleet");
    eprintln!("lateness: {count} integrations, due in {lead} s, over {spread} s");
    let form = Form::due("late");
    let operator = {
        stage.namespace(form.namespace).await;
        let operator = stage.operator(form.namespace).start();
        operator.wait_ready(PATIENCE).await;
        operator
    };
    let refreshed = stage.simulator.witness().await.totals;
    // The jitter is a part of the spread.
    let seconds_left = WINDOW + JITTER + lead;
    fleet::make(stage, form, "late-", count, seconds_left, (spread - JITTER).max(1)).await;
    fleet::wait_all_ready(&operator, count).await;
    at_rest(operator.process()).await;
    let path = format!("/apis/tiktokshop.dev/v1alpha1/namespaces/{}/tiktokshopintegrations", form.namespace);
    let list = stage.send(Method::GET, &path, Vec::new()).await.expect("integrations can be listed");
    let list: List = serde_json::from_str(&list).expect("each has a status by now");
    let began_early = stage.simulator.witness().await.totals.refreshes - refreshed.refreshes;
    assert_eq!(began_early, 0, "this machine takes too long to make the fleet: the first were due meanwhile");
    let due: HashMap<String, _> =
        list.items.into_iter().map(|item| (item.metadata.name, item.status.next_refresh_time)).collect();
    stage.simulator.wait_for_total_refreshes(refreshed.refreshes + count as u64, PATIENCE).await;
    at_rest(operator.process()).await;
    let asked = stage.simulator.requests(refreshed.requests).await;
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of an hour at most")]
    let late: Vec<f64> = asked
        .iter()
        .filter_map(|request| {
            let due = due.get(request.shop.as_ref()?)?;
            Some((request.at - due).num_milliseconds() as f64 / 1_000.0)
        })
        .collect();
    assert_eq!(late.len(), count, "TikTok was asked once for each");
    let named =
        |what: &str| format!("{what}, {count} due over {spread} s, from nextRefreshTime to TikTok's being asked");
    results.add(PART, named("median"), quantile(&late, 0.5), "s");
    results.aim(PART, named("p99"), quantile(&late, 0.99), "s", Goal::AtMost(1.0));
    results.add(PART, named("worst"), quantile(&late, 1.0), "s");
    operator.sigterm(PATIENCE).await;
}
