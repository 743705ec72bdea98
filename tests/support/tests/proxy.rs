//! The proxy holds, cuts and answers where it is told to, before the real server.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;
use tiktok_shop_testkit::{
    control_plane::ControlPlane,
    poll,
    proxy::{Proxy, Seen},
    steps,
};

const SOON: Duration = Duration::from_secs(10);

struct Bench {
    proxy: Proxy,
    namespace: String,
    /// Past the proxy.
    direct: Api<Secret>,
    through: Api<Secret>,
    client: kube::Client,
}

async fn bench() -> Bench {
    let plane = ControlPlane::shared().await;
    let namespace = plane.create_namespace("proxy").await;
    let proxy = Proxy::start(&plane.url(), Some(&plane.ca_pem()));
    let client = plane.kube_client_for(plane.admin_token(), Some(&proxy.url())).await;
    let direct = Api::namespaced(plane.kube_client().await, &namespace);
    let secret = Secret {
        metadata: kube::api::ObjectMeta { name: Some("tokens".into()), ..Default::default() },
        data: Some(BTreeMap::new()),
        ..Secret::default()
    };
    direct.create(&PostParams::default(), &secret).await.unwrap();
    let through = Api::namespaced(client.clone(), &namespace);
    Bench { proxy, namespace, direct, through, client }
}

impl Bench {
    async fn claim(&self, value: serde_json::Value) -> kube::Result<Secret> {
        let patch = json!({ "metadata": { "annotations": { (steps::CLAIM): value } } });
        self.through.patch("tokens", &PatchParams::default(), &Patch::Merge(patch)).await
    }

    async fn claimed(&self) -> Option<String> {
        let secret = self.direct.get("tokens").await.unwrap();
        secret.metadata.annotations.unwrap_or_default().get(steps::CLAIM).cloned()
    }
}

#[tokio::test]
async fn each_step_of_the_transaction_is_told_from_the_others() {
    let bench = bench().await;
    bench.through.get("tokens").await.unwrap();
    let data = json!({ "data": { "a": "YQ==" }, "metadata": { "annotations": { (steps::CLAIM): null } } });
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    bench.through.patch("tokens", &dry, &Patch::Merge(&data)).await.unwrap();
    bench.claim(json!("{}")).await.unwrap();
    bench.through.patch("tokens", &PatchParams::default(), &Patch::Merge(&data)).await.unwrap();
    bench.claim(json!(null)).await.unwrap();

    let (ns, name) = (bench.namespace.as_str(), "tokens");
    let requests = bench.proxy.requests();
    let seqs = |step: &dyn Fn(&Seen) -> bool| -> Vec<u64> {
        requests.iter().filter(|seen| step(seen)).map(|seen| seen.seq).collect()
    };
    assert_eq!(seqs(&steps::read(ns, name)), [1]);
    assert_eq!(seqs(&steps::rehearsal(ns, name)), [2]);
    assert_eq!(seqs(&steps::claim(ns, name)), [3]);
    assert_eq!(seqs(&steps::persist(ns, name)), [4]);
    assert_eq!(seqs(&steps::give_back(ns, name)), [5]);
    assert!(requests.iter().all(|seen| seen.status == Some(200)), "{requests:#?}");
    bench.proxy.wait_for_requests(5, |seen| seen.delivered, SOON).await;
    assert!(requests.windows(2).all(|pair| pair[0].answered < pair[1].forwarded));
}

#[tokio::test]
async fn a_held_request_has_not_happened_until_it_is_released() {
    let bench = bench().await;
    let hold = bench.proxy.on("claim", steps::claim(&bench.namespace, "tokens")).once().hold();
    let (answer, ()) = tokio::join!(bench.claim(json!("mine")), async {
        let seen = hold.wait_held(SOON).await;
        assert!(seen.forwarded.is_none() && seen.body.contains("mine"), "{seen}");
        assert_eq!(bench.claimed().await, None);
        hold.release();
    });
    answer.unwrap();
    assert_eq!(bench.claimed().await.as_deref(), Some("mine"));
    bench.claim(json!("again")).await.expect("the rule was for one request");
}

#[tokio::test]
async fn an_answer_can_be_held_after_the_server_applied_the_request() {
    let bench = bench().await;
    let hold = bench.proxy.on("claim", steps::claim(&bench.namespace, "tokens")).hold_after();
    let (answer, ()) = tokio::join!(bench.claim(json!("mine")), async {
        hold.wait_held(SOON).await;
        assert_eq!(bench.claimed().await.as_deref(), Some("mine"));
        assert!(hold.release_one());
    });
    answer.unwrap();
}

#[tokio::test]
async fn a_held_request_of_a_client_that_left_is_dropped_or_sent_on() {
    let bench = bench().await;
    let step = steps::claim(&bench.namespace, "tokens");
    for sent_on in [false, true] {
        let rule = bench.proxy.on("claim", step.clone()).once();
        let hold = if sent_on { rule.forward_orphans().hold() } else { rule.hold() };
        // The client leaves while its request is held.
        let seen = tokio::select! {
            _ = bench.claim(json!("orphan")) => panic!("nothing answers it"),
            seen = hold.wait_held(SOON) => seen,
        };
        let gone = |other: &Seen| other.seq == seen.seq && other.client_gone;
        bench.proxy.wait_for_request(gone, SOON).await;
        if !sent_on {
            assert!(poll::until(SOON, async || (hold.held() == 0).then_some(())).await.is_some());
        }
        hold.release();
        if sent_on {
            let answered = |other: &Seen| other.seq == seen.seq && other.status == Some(200);
            let seen = bench.proxy.wait_for_request(answered, SOON).await;
            assert!(!seen.delivered);
        }
        assert_eq!(bench.claimed().await.is_some(), sent_on);
    }
}

#[tokio::test]
async fn connections_are_cut_before_after_and_within_an_answer() {
    let bench = bench().await;
    let step = steps::claim(&bench.namespace, "tokens");
    bench.proxy.on("before", step.clone()).once().cut_before();
    bench.claim(json!("one")).await.unwrap_err();
    assert_eq!(bench.claimed().await, None);

    bench.proxy.on("after", step.clone()).once().cut_after();
    bench.claim(json!("two")).await.unwrap_err();
    assert_eq!(bench.claimed().await.as_deref(), Some("two"));

    let within = bench.proxy.on("within", step).once().cut_mid_answer();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/v1/namespaces/{}/secrets/tokens", bench.proxy.url(), bench.namespace);
    let patch = json!({ "metadata": { "annotations": { (steps::CLAIM): "three" } } });
    let mut answer = http
        .patch(url)
        .bearer_auth(ControlPlane::shared().await.admin_token())
        .header("content-type", "application/merge-patch+json")
        .body(patch.to_string())
        .send()
        .await
        .expect("the head comes through");
    let length = answer.content_length().unwrap();
    let mut got = 0;
    let error = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => got += chunk.len() as u64,
            Ok(None) => panic!("the whole answer came"),
            Err(error) => break error,
        }
    };
    assert_eq!((got, within.hits()), (length / 2, 1), "{error}");
    assert_eq!(bench.claimed().await.as_deref(), Some("three"));
    assert!(!bench.proxy.requests().iter().any(|seen| seen.delivered));
}

#[tokio::test]
async fn answers_can_be_made_up_and_delayed() {
    let bench = bench().await;
    let step = steps::claim(&bench.namespace, "tokens");
    bench.proxy.on("conflict", step.clone()).once().respond_status(409, "Conflict", "made up");
    let error = bench.claim(json!("one")).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 409 && status.message == "made up"));
    assert_eq!(bench.claimed().await, None);
    let time = Duration::from_millis(150);
    bench.proxy.on("slow", step).once().delay(time);
    bench.claim(json!("two")).await.unwrap();
    let slow = bench.proxy.requests().pop().unwrap();
    assert!(slow.forwarded.unwrap() - slow.received >= time, "{slow}");
}

#[tokio::test]
async fn a_watch_streams_until_it_is_cut_and_the_port_comes_back_after_a_pause() {
    let bench = bench().await;
    let maps: Api<ConfigMap> = Api::namespaced(bench.client.clone(), &bench.namespace);
    let watch = maps.watch(&WatchParams::default(), "0").await.unwrap();
    pin_mut!(watch);
    bench.proxy.wait_for_request(steps::watch("configmaps"), SOON).await;
    for name in ["one", "two"] {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.into());
        maps.create(&PostParams::default(), &map).await.unwrap();
        // Each event comes while the answer goes on.
        let map = loop {
            match tokio::time::timeout(SOON, watch.try_next()).await.expect("an event must come").unwrap() {
                Some(WatchEvent::Added(map)) => break map,
                Some(WatchEvent::Bookmark(_)) => {}
                other => panic!("not an added map: {other:?}"),
            }
        };
        assert_eq!(map.metadata.name.as_deref(), Some(name));
    }
    assert_eq!(bench.proxy.open_watches(), 1);
    bench.proxy.cut_watches().await;
    let end = tokio::time::timeout(SOON, watch.next()).await.expect("the watch must end");
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    assert_eq!(bench.proxy.open_watches(), 0);
    maps.get("one").await.expect("other connections go on");

    bench.proxy.pause().await;
    maps.get("one").await.unwrap_err();
    bench.proxy.resume().await;
    maps.get("one").await.unwrap();
    assert_eq!(bench.proxy.count(steps::list("configmaps")), 0);
}
