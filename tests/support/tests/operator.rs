//! An operator's life, its service account and the fixtures, with a stand-in
//! for the operator: this binary, started again behind a script.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::Duration,
};

use serde_json::json;
use tiktok_shop_testkit::{
    control_plane::ControlPlane,
    fixtures::{self, Field, SecretFixture, app_secret, integration},
    operator::Operator,
    rbac,
};

const SOON: Duration = Duration::from_secs(10);

/// Where the stand-in listens, in its environment.
const PLAY: &str = "TESTKIT_PLAY_OPERATOR";

/// As little of the CRD as the fixtures need.
const CRD: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tiktokshopintegrations.tiktokshop.dev}
spec:
  group: tiktokshop.dev
  scope: Namespaced
  names: {kind: TikTokShopIntegration, plural: tiktokshopintegrations, singular: tiktokshopintegration}
  versions:
    - name: v1alpha1
      served: true
      storage: true
      subresources: {status: {}}
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

/// Not a test: what the script of the next one runs.
#[test]
#[ignore = "run by the next test"]
fn play_operator() {
    let Ok(listen) = std::env::var(PLAY) else { return };
    println!("listening as {}", std::env::var("KUBECONFIG").unwrap());
    for stream in TcpListener::bind(listen).unwrap().incoming() {
        let mut stream = BufReader::new(stream.unwrap());
        let mut line = String::new();
        while stream.read_line(&mut line).unwrap() > 2 {}
        let body = "up{who=\"stand-in\"} 1\n";
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.get_mut().write_all((head + body).as_bytes()).unwrap();
    }
}

/// A program that takes the operator's flags.
fn stand_in(dir: &std::path::Path) -> PathBuf {
    let path = dir.join("operator");
    let this = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\n\
         for flag; do case $flag in --listen=*) export {PLAY}=\"${{flag#--listen=}}\";; esac; done\n\
         echo \"flags: $*\"\n\
         exec '{}' --ignored --exact play_operator --nocapture\n",
        this.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn an_operator_lives_dies_and_lives_again_on_the_same_port() {
    let dir = tempfile::tempdir().unwrap();
    let builder = Operator::builder(stand_in(dir.path()))
        .kubeconfig("/some/kubeconfig")
        .token_endpoint("http://127.0.0.1:1/refresh")
        .lease_namespace("lease")
        .leader_elect(false);
    let mut operator = builder.start();
    operator.wait_ready(SOON).await;
    assert_eq!(operator.metrics().await.value("up", &[("who", "stand-in")]), Some(1.0));
    assert!(operator.process().rss_bytes().is_some());
    operator.sigkill();
    assert_eq!(operator.probe("/readyz").await, None);
    operator.restart();
    operator.wait_ready(SOON).await;
    operator.sigterm(SOON).await;
    let logs = operator.logs();
    let flags = "--token-endpoint=http://127.0.0.1:1/refresh --lease-namespace=lease --leader-elect=false";
    assert_eq!(logs.matches(flags).count(), 2, "{logs}");
    assert_eq!(logs.matches("listening as /some/kubeconfig").count(), 2, "{logs}");
}

#[tokio::test]
async fn the_service_account_may_patch_secrets_and_status_and_not_delete() {
    let plane = ControlPlane::shared().await;
    fixtures::install_crd(plane, CRD).await;
    let home = plane.create_namespace("operator").await;
    let shops = plane.create_namespace("shops").await;
    let other = plane.create_namespace("other").await;
    let identity = rbac::install(plane, &home, &rbac::Scope::Namespaces(vec![shops.clone()])).await;

    let may = async |verb: &str, what: &str, place: &str| {
        let user = format!("--as={}", identity.user());
        let (what, subresource) = what.split_once('/').unwrap_or((what, ""));
        let subresource = format!("--subresource={subresource}");
        let output = plane.kubectl(&["auth", "can-i", verb, what, &subresource, "-n", place, &user]).await;
        String::from_utf8_lossy(&output.stdout).trim() == "yes"
    };
    assert!(may("patch", "secrets", &shops).await);
    assert!(may("patch", "tiktokshopintegrations.tiktokshop.dev/status", &shops).await);
    assert!(may("create", "events.events.k8s.io", &shops).await);
    assert!(may("update", "leases.coordination.k8s.io", &home).await);
    assert!(!may("delete", "secrets", &shops).await);
    assert!(!may("patch", "tiktokshopintegrations.tiktokshop.dev", &shops).await);
    assert!(!may("get", "secrets", &other).await);
    assert!(!may("get", "leases.coordination.k8s.io", &shops).await);
    let client = plane.kube_client_for(&identity.token, None).await;
    assert!(fixtures::secret(&client, &shops, "nothing").await.is_none());

    let everywhere = rbac::install(plane, &home, &rbac::Scope::Cluster).await;
    assert_eq!(everywhere.user(), identity.user());
    assert!(may("get", "secrets", &other).await);
}

#[tokio::test]
async fn fixtures_are_made_and_what_becomes_of_them_is_seen() {
    let plane = ControlPlane::shared().await;
    fixtures::install_crd(plane, CRD).await;
    let namespace = &plane.create_namespace("fixtures").await;
    let client = &plane.kube_client().await;

    let keys = [(Field::AccessToken, "at")];
    let tokens = SecretFixture::new(namespace, "tokens").tokens_under(&keys, "access", 1, "refresh", 2).label("a", "b");
    tokens.create(client).await;
    let values = fixtures::secret_values(client, namespace, "tokens").await;
    assert_eq!(values["at"], "access");
    assert_eq!((values["refresh_token"].as_str(), values["refresh_token_expire_in"].as_str()), ("refresh", "2"));
    tokens.value("more", "x").without("at").immutable().apply(client).await;
    assert_eq!(fixtures::secret(client, namespace, "tokens").await.unwrap().immutable, Some(true));
    app_secret(namespace, "app", "key", "secret").create(client).await;

    let shop = integration(namespace, "shop", "tokens", "app").team("1").token_keys(&keys).refresh_before("24h");
    let created = shop.create(client).await;
    assert_eq!(created["spec"]["tokenSecretRef"]["keys"], json!({ "accessToken": "at" }));
    shop.try_create(client).await.expect_err("it exists");
    fixtures::request_refresh(client, namespace, "shop", "now").await;
    assert!(fixtures::get_status(client, namespace, "shop").await.is_null());

    let ready = json!({ "type": "Ready", "status": "True", "reason": "TokenValid", "message": "all is well",
                        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1 });
    let status = json!({ "status": { "conditions": [ready] } });
    let write = async {
        let api = fixtures::integrations(client, namespace);
        let patch = kube::api::Patch::Merge(&status);
        api.patch_status("shop", &kube::api::PatchParams::default(), &patch).await.unwrap();
    };
    let is_ready = |status: &serde_json::Value| fixtures::has_condition(status, "Ready", "True", "TokenValid");
    let wait = fixtures::wait_for_status(client, namespace, "shop", "being ready", is_ready, SOON);
    let (seen, ()) = tokio::join!(wait, write);
    assert_eq!(fixtures::condition(&seen, "Ready").unwrap().message, "all is well");

    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": { "namespace": namespace, "name": "one" },
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "Refreshed", "note": "well",
        "action": "Refresh", "reportingController": "test", "reportingInstance": "test",
        "regarding": { "apiVersion": fixtures::API_VERSION, "kind": fixtures::KIND, "namespace": namespace, "name": "shop" },
    });
    fixtures::create(client, &event).await;
    let seen = fixtures::wait_for_event(client, namespace, "shop", "Refreshed", SOON).await;
    assert_eq!((seen.note.as_str(), seen.count), ("well", 1));
    assert_eq!(fixtures::events(client, namespace, "other").await, []);
}
