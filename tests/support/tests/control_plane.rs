//! The control plane is real: kubectl, namespaces, service accounts, audit, faults.

use std::time::{Duration, Instant};

use tiktok_shop_testkit::control_plane::{ControlPlane, Options, service_account_user};

const SERVICE_ACCOUNT: &str = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: someone}\n";

#[tokio::test]
async fn a_service_account_may_only_what_rbac_says_and_its_requests_are_counted() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.create_namespace("accounts").await;
    let apply = ["apply", "-n", &namespace, "-f", "-"];
    plane.kubectl_ok_with(&apply, Some(SERVICE_ACCOUNT)).await;
    let token = plane.service_account_token(&namespace, "someone").await;

    let client = plane.kube_client_for(&token, None).await;
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::namespaced(client, &namespace);
    let refused = secrets.get("nothing").await.expect_err("nothing was granted");
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");

    let user = service_account_user(&namespace, "someone");
    assert_eq!(plane.request_counts(&user).get("get secrets"), Some(&1));
    assert!(plane.metrics().await.contains("apiserver_request_total"));
    let failed = plane.kubectl(&["get", "nonsense"]).await;
    assert!(!failed.status.success());
}

#[tokio::test]
async fn data_survives_stop_kill_and_pause_of_its_servers() {
    let started = Instant::now();
    let plane = ControlPlane::start(Options { fsync: true, ..Options::default() }).await;
    println!("ready in {:?}", started.elapsed());
    let namespace = plane.create_namespace("survivor").await;
    let client = plane.kube_client().await;

    let stopped = Instant::now();
    plane.stop_api_server().await;
    println!("stopped in {:?}", stopped.elapsed());
    assert!(client.apiserver_version().await.is_err(), "nobody listens");
    let restarted = Instant::now();
    plane.start_api_server().await;
    println!("restarted in {:?}", restarted.elapsed());
    plane.kubectl_ok(&["get", "namespace", &namespace]).await;

    plane.pause();
    let hangs = tokio::time::timeout(Duration::from_millis(300), client.apiserver_version()).await;
    assert!(hangs.is_err(), "a paused server must not answer");
    plane.resume();
    client.apiserver_version().await.expect("it goes on");

    plane.kill_api_server();
    plane.start_api_server().await;
    plane.restart_etcd().await;
    plane.kubectl_ok(&["get", "namespace", &namespace]).await;
}
