//! Shops by the thousand: made through the API server, as anybody would make them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{StreamExt as _, stream};
use http::Method;
use serde_json::{Value, json};
use tiktok_shop_testkit::control_plane;
use tiktok_shop_testkit::operator::Operator;
use tiktok_shop_testkit::poll;
use tiktok_shop_testkit::simulator::{BulkShops, NewShop, Shop};

use crate::results;
use crate::stage::{Binaries, PATIENCE, Stage};

/// Requests of the harness at the same time.
const AT_ONCE: usize = 64;

/// Fleets that have so many integrations together are kept.
const KEPT_FROM: usize = 10_000;

/// A fleet that is not due lives this long: longer than anybody keeps the cache of it.
const TEN_YEARS: i64 = 10 * 365 * 24 * 3_600;

/// The window of what is to be due soon after it was refreshed: the smallest there is, and its jitter.
pub const WINDOW: i64 = 300;
pub const JITTER: i64 = WINDOW / 20;

/// What a fleet is made of.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub namespace: &'static str,
    pub refresh_before: &'static str,
    /// Are the Secrets made as `kubectl apply` makes them, their values in an annotation?
    pub applied: bool,
}

impl Form {
    pub fn due(namespace: &'static str) -> Self {
        Self { namespace, refresh_before: "5m", applied: false }
    }
}

/// Makes shops at TikTok whose tokens are left so many seconds, the last one's so many more.
pub async fn shops(stage: &Stage, prefix: &str, count: usize, seconds_left: i64, spread: i64) -> Vec<Shop> {
    let shops = BulkShops {
        count: u32::try_from(count).expect("a fleet"),
        prefix: prefix.to_owned(),
        first: 1,
        shop: NewShop::of(&stage.app).access_remaining(seconds_left),
        access_remaining_spread_seconds: spread,
    };
    stage.simulator.create_shops(&shops).await
}

/// Makes their Secrets.
pub async fn secrets(stage: &Stage, form: Form, shops: &[Shop]) {
    stream::iter(shops)
        .for_each_concurrent(AT_ONCE, async |shop| {
            let values = [
                ("access_token", shop.access_token().to_owned()),
                ("access_token_expire_in", shop.access_expires_at().to_string()),
                ("refresh_token", shop.refresh_token().to_owned()),
                ("refresh_token_expire_in", shop.refresh_expires_at().to_string()),
            ];
            create_secret(stage, form, &shop.id, &values).await;
        })
        .await;
}

async fn create_secret(stage: &Stage, form: Form, name: &str, values: &[(&str, String); 4]) {
    let data: serde_json::Map<String, Value> =
        values.iter().map(|(key, value)| ((*key).to_owned(), BASE64.encode(value).into())).collect();
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"namespace": form.namespace, "name": name}, "data": data});
    if form.applied {
        let applied = secret.to_string();
        secret["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
    }
    let path = format!("/api/v1/namespaces/{}/secrets", form.namespace);
    create(stage, &path, &secret).await;
}

/// Makes the integrations of these names; the number of each is also its label `half`, even or odd.
pub async fn integrations(stage: &Stage, form: Form, names: impl Iterator<Item = String>) {
    let path = format!("/apis/tiktokshop.dev/v1alpha1/namespaces/{}/tiktokshopintegrations", form.namespace);
    stream::iter(names.enumerate())
        .for_each_concurrent(AT_ONCE, async |(number, name)| {
            let half = if number.is_multiple_of(2) { "even" } else { "odd" };
            let object = json!({"apiVersion": "tiktokshop.dev/v1alpha1", "kind": "TikTokShopIntegration",
                "metadata": {"namespace": form.namespace, "name": name, "labels": {"half": half}},
                "spec": {"teamId": (number % 100).to_string(), "refreshBefore": form.refresh_before,
                    "appCredentialsSecretRef": {"name": "app"}, "tokenSecretRef": {"name": name}}});
            create(stage, &path, &object).await;
        })
        .await;
}

/// Shops with Secrets and integrations.
pub async fn make(stage: &Stage, form: Form, prefix: &str, count: usize, seconds_left: i64, spread: i64) -> Vec<Shop> {
    stage.namespace(form.namespace).await;
    let shops = shops(stage, prefix, count, seconds_left, spread).await;
    secrets(stage, form, &shops).await;
    integrations(stage, form, shops.iter().map(|shop| shop.id.clone())).await;
    shops
}

async fn create(stage: &Stage, path: &str, object: &Value) {
    let body = object.to_string().into_bytes();
    if let Err(error) = stage.send(Method::POST, path, body).await {
        panic!("an object can't be created at {path}: {error}");
    }
}

/// Patches each of these objects once.
pub async fn patch_each(stage: &Stage, paths: impl Iterator<Item = String>, patch: &Value) {
    let body = patch.to_string().into_bytes();
    stream::iter(paths)
        .for_each_concurrent(AT_ONCE, async |path| {
            if let Err(error) = stage.send(Method::PATCH, &path, body.clone()).await {
                panic!("{path} can't be patched: {error}");
            }
        })
        .await;
}

/// Deletes each of these objects.
pub async fn delete_each(stage: &Stage, paths: impl Iterator<Item = String>) {
    stream::iter(paths)
        .for_each_concurrent(AT_ONCE, async |path| {
            if let Err(error) = stage.send(Method::DELETE, &path, Vec::new()).await {
                panic!("{path} can't be deleted: {error}");
            }
        })
        .await;
}

/// The path of a token Secret.
pub fn secret_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

/// The path of an integration.
pub fn integration_path(namespace: &str, name: &str) -> String {
    format!("/apis/tiktokshop.dev/v1alpha1/namespaces/{namespace}/tiktokshopintegrations/{name}")
}

/// The namespace of a fleet at rest.
pub fn resting(size: usize) -> String {
    format!("rest-{size}")
}

/// Waits until an operator has so many integrations that are ready.
pub async fn wait_all_ready(operator: &Operator, count: usize) {
    let wanted = results::count(count);
    let all = poll::until(PATIENCE, async || {
        let ready = operator.metrics().await.sum("tiktokshop_integrations", &[("ready", "True")]);
        tokio::time::sleep(Duration::from_millis(200)).await;
        (ready >= wanted).then_some(())
    });
    assert!(all.await.is_some(), "not all of {count} integrations became ready:\n{}", operator.process().tail(20));
}

/// A control plane with fleets of these sizes of which nothing is due, known to the operator already.
///
/// To make a hundred thousand takes minutes, so what etcd then holds is kept outside the tree, by what
/// it depends on. Few are made anew.
pub async fn at_rest(binaries: &Binaries, sizes: &[usize]) -> Stage {
    let keep = sizes.iter().sum::<usize>() >= KEPT_FROM;
    let cache = cache(binaries, sizes).await;
    if keep && cache.exists() {
        let stage = Stage::start(binaries, Some(&cache)).await;
        for &size in sizes {
            stage.namespace(&resting(size)).await;
        }
        return stage;
    }
    let began = Instant::now();
    let stage = Stage::start(binaries, None).await;
    for &size in sizes {
        eprintln!("making a fleet of {size}");
        let namespace: &'static str = resting(size).leak();
        let form = Form { namespace, refresh_before: "24h", applied: false };
        stage.namespace(namespace).await;
        // No shop at TikTok: nobody will ask for these.
        let expires_at = (chrono::Utc::now().timestamp() + TEN_YEARS).to_string();
        let token = |kind: &str, number: usize| format!("TTP_sim_{kind}_rest-{number}_1_89960ea15f51c5f6+9e/39=11");
        stream::iter(0..size)
            .for_each_concurrent(AT_ONCE, async |number| {
                let values = [
                    ("access_token", token("at", number)),
                    ("access_token_expire_in", expires_at.clone()),
                    ("refresh_token", token("rt", number)),
                    ("refresh_token_expire_in", expires_at.clone()),
                ];
                create_secret(&stage, form, &format!("shop-{number}"), &values).await;
            })
            .await;
        integrations(&stage, form, (0..size).map(|number| format!("shop-{number}"))).await;
        let operator = stage.operator(namespace).start();
        operator.wait_ready(PATIENCE).await;
        wait_all_ready(&operator, size).await;
        operator.sigterm(PATIENCE).await;
    }
    eprintln!("made in {:.0} s", began.elapsed().as_secs_f64());
    if !keep {
        return stage;
    }
    eprintln!("kept for the next time in {}", cache.display());
    let part = cache.with_extension("part");
    let _ = std::fs::remove_dir_all(&part);
    stage.plane.save_etcd(&part).await.expect("what etcd holds can be copied");
    std::fs::rename(&part, &cache).expect("a folder can be renamed");
    stage
}

async fn cache(binaries: &Binaries, sizes: &[usize]) -> PathBuf {
    let crd = std::process::Command::new(&binaries.operator).arg("crd").output().expect("the operator runs");
    let mut hasher = DefaultHasher::new();
    (control_plane::assets_dir().await, crd.stdout, sizes, include_str!("fleet.rs")).hash(&mut hasher);
    let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    let caches = caches.join("tiktok-shop-operator");
    std::fs::create_dir_all(&caches).expect("a folder can be made");
    caches.join(format!("fleets-{:016x}", hasher.finish()))
}
