//! A thousand integrations in one call.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use tiktok_shop_testkit::{
    fixtures::{SecretFixture, integration},
    process::Signal,
    simulator::{BulkShops, NewShop},
};

use crate::stage::{SOON, Stage, program};

const COUNT: u32 = 1_000;

/// Covers: cli/refresh
#[tokio::test]
async fn integrations_are_refreshed_in_one_call_each_once() {
    let stage = Stage::new().await;
    let shops = BulkShops {
        count: COUNT,
        prefix: "shop-".to_owned(),
        first: 1,
        shop: NewShop::of(&stage.app).access_remaining(3_600),
        access_remaining_spread_seconds: 600,
    };
    let shops = stage.simulator.create_shops(&shops).await;
    stream::iter(&shops)
        .for_each_concurrent(32, |shop| async {
            SecretFixture::new(&stage.namespace, &shop.id)
                .tokens(shop.access_token(), shop.access_expires_at(), shop.refresh_token(), shop.refresh_expires_at())
                .create(&stage.client)
                .await;
            integration(&stage.namespace, &shop.id, &shop.id, "app").create(&stage.client).await;
        })
        .await;
    let args = stage.args("refresh -o json");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = program(&stage.kubeconfig, &args, &[]).spawn().expect("it starts");
    let count = usize::try_from(COUNT).expect("a small number");
    // All is asked for before the operator is there: it refreshes each once, not once of itself and once as asked.
    stage.proxy.wait_for_requests(count, |seen| seen.method == "PATCH" && seen.status == Some(200), SOON * 2).await;
    let operator = stage.operator().flag("requests-per-second", "1000").flag("max-concurrent-refreshes", "64").start();
    let status = child.wait_exit(Duration::from_secs(90)).await;
    if status.is_err() {
        child.signal(Signal::INT);
    }
    let status = status.unwrap_or_else(|error| panic!("{error}\n{}", operator.logs()));
    let document: serde_json::Value = serde_json::from_str(&child.stdout()).expect("one JSON document");
    let results = document["results"].as_array().expect("results");
    let others: Vec<_> = results.iter().filter(|result| result["outcome"] != "refreshed").collect();
    assert_eq!((&document["summary"]["refreshed"], others), (&COUNT.into(), Vec::new()));
    assert_eq!(status.code(), Some(0));
    let names: Vec<_> = results.iter().map(|result| result["name"].as_str()).collect();
    assert!(names.is_sorted(), "results are sorted by name");
    let shops = stage.simulator.shops().await;
    assert!(shops.iter().all(|shop| shop.counters.refreshes == 1), "each was refreshed once");
    stage.simulator.assert_no_violations().await;
    let requests = stage.proxy.requests();
    let watches = requests.iter().filter(|seen| seen.is_watch()).count();
    let lists = requests.iter().filter(|seen| seen.method == "GET" && !seen.is_watch()).count();
    assert_eq!((lists, watches), (count / 500, 1), "one list, in pages of 500, and one watch");
}
