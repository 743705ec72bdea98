//! The raw limit: the API server's requests of a refresh, sent by a loop that does nothing else.
//!
//! It shares no code with the operator but the HTTP client, which it sets up in the same way: what is
//! slow in the operator must not be slow here. What it writes is of the same form and size.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use futures::future::join_all;
use http::{Request, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

/// What to send.
#[derive(Subcommand)]
pub enum Command {
    /// The requests of so many refreshes
    Refresh {
        #[command(flatten)]
        to: Target,
        #[arg(long)]
        count: usize,
        #[arg(long)]
        in_flight: usize,
    },
    /// The lists of a start
    List {
        #[command(flatten)]
        to: Target,
    },
}

/// To whom.
#[derive(Args)]
pub struct Target {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    namespace: String,
}

/// Says `ready`, begins at SIGUSR1, says `done` and how long it took, and stays until it is ended: whoever
/// reads its processor time needs a process.
pub async fn run(command: Command) {
    let mut go = signal(SignalKind::user_defined1()).expect("a signal can be listened for");
    let (Command::Refresh { to, .. } | Command::List { to }) = &command;
    let parsed = Kubeconfig::read_from(&to.kubeconfig).expect("the kubeconfig can be read");
    let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.expect("it is whole");
    config.default_retry = false;
    let client = Client::try_from(config).expect("a client can be made");
    let took = match &command {
        Command::List { to } => {
            println!("ready");
            go.recv().await;
            let began = Instant::now();
            list(&client, to).await;
            began.elapsed()
        }
        Command::Refresh { to, count, in_flight } => {
            let shops = read_fleet(&client, to, *count).await;
            // Connections are there when it begins, as the operator has them.
            join_all((0..*in_flight).map(|_| get(&client, "/version"))).await;
            println!("ready");
            go.recv().await;
            let next = AtomicUsize::new(0);
            let began = Instant::now();
            join_all((0..*in_flight).map(|_| async {
                while let Some(shop) = shops.get(next.fetch_add(1, Ordering::Relaxed)) {
                    refresh(&client, &to.namespace, shop).await;
                }
            }))
            .await;
            began.elapsed()
        }
    };
    println!("done {{\"seconds\":{}}}", took.as_secs_f64());
    std::future::pending::<()>().await;
}

struct Shop {
    name: String,
    uid: String,
    version: String,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: ItemMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemMeta {
    name: String,
    uid: String,
    resource_version: String,
}

async fn read_fleet(client: &Client, to: &Target, count: usize) -> Vec<Shop> {
    let namespace = &to.namespace;
    let secrets = get(client, &format!("/api/v1/namespaces/{namespace}/secrets")).await;
    let integrations = get(client, &integrations(namespace, "")).await;
    let secrets: List = serde_json::from_slice(&secrets).expect("a list of Secrets");
    let integrations: List = serde_json::from_slice(&integrations).expect("a list of integrations");
    let uids: std::collections::HashMap<String, String> =
        integrations.items.into_iter().map(|item| (item.metadata.name, item.metadata.uid)).collect();
    let shops = secrets.items.into_iter().filter_map(|item| {
        let ItemMeta { name, resource_version: version, .. } = item.metadata;
        uids.get(&name).map(|uid| Shop { uid: uid.clone(), name, version })
    });
    let shops: Vec<Shop> = shops.take(count).collect();
    assert_eq!(shops.len(), count, "the fleet is as large as asked for");
    shops
}

fn integrations(namespace: &str, rest: &str) -> String {
    format!("/apis/tiktokshop.dev/v1alpha1/namespaces/{namespace}/tiktokshopintegrations{rest}")
}

#[derive(Serialize)]
struct SecretPatch<'a> {
    metadata: SecretMeta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SecretMeta<'a> {
    resource_version: &'a str,
    annotations: Annotations<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Annotations<'a> {
    Claim {
        #[serde(rename = "tiktokshop.dev/refresh-attempt")]
        claim: &'a str,
    },
    Tokens {
        #[serde(rename = "tiktokshop.dev/refresh-attempt")]
        claim: Option<&'a str>,
        #[serde(rename = "tiktokshop.dev/refreshed-at")]
        refreshed_at: &'a str,
        #[serde(rename = "tiktokshop.dev/refreshed-from")]
        refreshed_from: &'a str,
        #[serde(rename = "tiktokshop.dev/spent-tokens")]
        spent_tokens: &'a str,
        #[serde(rename = "tiktokshop.dev/tokens-digest")]
        tokens_digest: &'a str,
    },
}

#[derive(Clone, Copy, Serialize)]
struct Data<'a> {
    access_token: &'a str,
    access_token_expire_in: &'a str,
    refresh_token: &'a str,
    refresh_token_expire_in: &'a str,
}

#[derive(Serialize)]
struct StatusPatch<'a> {
    metadata: Uid<'a>,
    status: Status<'a>,
}

#[derive(Serialize)]
struct Uid<'a> {
    uid: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    observed_generation: u32,
    conditions: [Condition<'a>; 2],
    access_token_expires_at: &'a str,
    refresh_token_expires_at: &'a str,
    hours_until_expiry: u32,
    next_refresh_time: &'a str,
    last_refresh_time: &'a str,
    last_attempt_time: &'a str,
    consecutive_failures: u32,
    last_error: Option<&'a str>,
    last_handled_refresh_request: Option<&'a str>,
    observed_token_secret: Observed<'a>,
    seller: Seller<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    status: &'a str,
    observed_generation: u32,
    last_transition_time: &'a str,
    reason: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Observed<'a> {
    uid: &'a str,
    resource_version: &'a str,
    tokens_digest: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seller<'a> {
    open_id: &'a str,
    name: &'a str,
    base_region: &'a str,
    user_type: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names, reason = "that is what the API calls it")]
struct Event<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: EventMeta<'a>,
    event_time: &'a str,
    reporting_controller: &'a str,
    reporting_instance: &'a str,
    action: &'a str,
    reason: &'a str,
    #[serde(rename = "type")]
    type_: &'a str,
    note: &'a str,
    regarding: Regarding<'a>,
}

#[derive(Serialize)]
struct EventMeta<'a> {
    name: &'a str,
    namespace: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Regarding<'a> {
    api_version: &'a str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    metadata: WrittenMeta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMeta<'a> {
    resource_version: &'a str,
}

const DIGEST: &str = "d3b07384d113edec49eaa6238ad5ff00";
const SPENT: &str =
    "d3b07384d113edec49eaa6238ad5ff00,c157a79031e1c40f85931829bc5fc552,258622b1688250cb619f3c9ccaefb7eb";

/// Rehearsal, claim, persist, status, event.
async fn refresh(client: &Client, namespace: &str, shop: &Shop) {
    let now = chrono::Utc::now();
    let seconds = now.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let micros = now.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let Shop { name, uid, version } = shop;
    let secret = format!("/api/v1/namespaces/{namespace}/secrets/{name}?fieldManager=tiktok-shop-operator");
    let tokens = Annotations::Tokens {
        claim: None,
        refreshed_at: &seconds,
        refreshed_from: DIGEST,
        spent_tokens: SPENT,
        tokens_digest: DIGEST,
    };
    // Other values each time, or there would be nothing to store.
    let tail = format!("{:016x}", now.timestamp_micros());
    let token = |kind: &str| BASE64.encode(format!("TTP_sim_{kind}_{name}_2_{tail}+67/ab=4c"));
    let (access, refresh) = (token("at"), token("rt"));
    let data = Data {
        access_token: &access,
        access_token_expire_in: "MTc5NTQ5MTk0Ng==",
        refresh_token: &refresh,
        refresh_token_expire_in: "NDgzMzU2MTYwMA==",
    };
    let mut write =
        SecretPatch { metadata: SecretMeta { resource_version: version, annotations: tokens }, data: Some(data) };
    send(client, "PATCH", &format!("{secret}&dryRun=All"), &write).await;
    let claim = format!(
        r#"{{"id":"{DIGEST}.1","holder":"unknown-pod/{DIGEST}","integration":"{namespace}/{name}","at":"{seconds}","ttlSeconds":90,"from":"{DIGEST}","presented":1}}"#
    );
    let claimed = SecretPatch {
        metadata: SecretMeta { resource_version: version, annotations: Annotations::Claim { claim: &claim } },
        data: None,
    };
    let answer = send(client, "PATCH", &secret, &claimed).await;
    write.metadata.resource_version = version_of(&answer);
    let answer = send(client, "PATCH", &secret, &write).await;
    let conditions = [
        ("Ready", "TokenValid", "the access token is valid until 2026-11-24T02:09:06Z"),
        ("Refreshed", "Refreshed", "the tokens were refreshed at 2026-11-24T02:09:06Z"),
    ];
    let status = StatusPatch {
        metadata: Uid { uid },
        status: Status {
            observed_generation: 1,
            conditions: conditions.map(|(type_, reason, message)| Condition {
                type_,
                status: "True",
                observed_generation: 1,
                last_transition_time: &seconds,
                reason,
                message,
            }),
            access_token_expires_at: &seconds,
            refresh_token_expires_at: &seconds,
            hours_until_expiry: 0,
            next_refresh_time: &seconds,
            last_refresh_time: &seconds,
            last_attempt_time: &seconds,
            consecutive_failures: 0,
            last_error: None,
            last_handled_refresh_request: None,
            observed_token_secret: Observed { uid, resource_version: version_of(&answer), tokens_digest: DIGEST },
            seller: Seller { open_id: "7010736057180325637", name: "A shop", base_region: "GB", user_type: 0 },
        },
    };
    let path = integrations(namespace, &format!("/{name}/status?fieldManager=tiktok-shop-operator"));
    send(client, "PATCH", &path, &status).await;
    let event_name = format!("{name}.{tail}");
    let event = Event {
        api_version: "events.k8s.io/v1",
        kind: "Event",
        metadata: EventMeta { name: &event_name, namespace },
        event_time: &micros,
        reporting_controller: "tiktokshop.dev/tiktok-shop-operator",
        reporting_instance: "unknown-pod/d3b07384d113edec49eaa6238ad5ff00",
        action: "Refresh",
        reason: "Refreshed",
        type_: "Normal",
        note: "the tokens were refreshed; the access token is valid until 2026-11-24T02:09:06Z",
        regarding: Regarding {
            api_version: "tiktokshop.dev/v1alpha1",
            kind: "TikTokShopIntegration",
            namespace,
            name,
            uid,
        },
    };
    send(client, "POST", &format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"), &event).await;
}

fn version_of(answer: &[u8]) -> &str {
    serde_json::from_slice::<Written<'_>>(answer).expect("an object has a version").metadata.resource_version
}

async fn send(client: &Client, method: &str, path: &str, body: &impl Serialize) -> Vec<u8> {
    let body = serde_json::to_vec(body).expect("it can be written as JSON");
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media)
        .header(header::ACCEPT, "application/json");
    answer(client, request.body(Body::from(body)).expect("a request")).await
}

async fn get(client: &Client, path: &str) -> Vec<u8> {
    let request = Request::get(path).header(header::ACCEPT, "application/json");
    answer(client, request.body(Body::empty()).expect("a request")).await
}

async fn answer(client: &Client, request: Request<Body>) -> Vec<u8> {
    let response = client.send(request).await.expect("the API server answers");
    let status = response.status();
    let mut body = response.into_body();
    let mut bytes = Vec::with_capacity(16 << 10);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.expect("the answer is whole").into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&bytes));
    bytes
}

/// Streaming lists of integrations and of Secrets' metadata, one after the other as at a start; nothing is read of them.
async fn list(client: &Client, to: &Target) {
    let integrations = integrations(&to.namespace, "");
    let secrets = format!("/api/v1/namespaces/{}/secrets", to.namespace);
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
    for (path, accept) in [(integrations, "application/json"), (secrets, metadata)] {
        let streaming = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let response = loop {
            let request = Request::get(format!("{path}?{streaming}")).header(header::ACCEPT, accept);
            let response = client.send(request.body(Body::empty()).expect("a request")).await.expect("it answers");
            // A server that has just begun reads its own cache first.
            if response.status() != http::StatusCode::TOO_MANY_REQUESTS {
                break response;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        };
        assert!(response.status().is_success(), "{}", response.status());
        let mut body = response.into_body();
        let mut tail = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.expect("the list is whole").into_data() else { continue };
            // The mark may lie across two frames.
            tail.extend_from_slice(&data);
            if holds(&tail, b"k8s.io/initial-events-end") {
                break;
            }
            let keep = tail.len().saturating_sub(64);
            tail.drain(..keep);
        }
    }
}

fn holds(text: &[u8], word: &[u8]) -> bool {
    // Comparing a word at each byte would cost as much as all the rest of a list.
    text.iter().enumerate().any(|(at, byte)| Some(byte) == word.first() && text[at..].starts_with(word))
}
