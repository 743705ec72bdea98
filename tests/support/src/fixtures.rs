//! Secrets and integrations to work on, and looks at what became of them.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use crate::{control_plane::ControlPlane, poll, process};

/// Group and version of the resource.
pub const API_VERSION: &str = "tiktokshop.dev/v1alpha1";
/// Its kind.
pub const KIND: &str = "TikTokShopIntegration";

/// Who the fixtures' server-side applies say they are.
const FIELD_MANAGER: &str = "testkit";

/// Applies a CRD and waits until the server serves it. Safe to call from tests
/// that share a control plane.
pub async fn install_crd(plane: &ControlPlane, yaml: &str) {
    plane.apply(yaml).await;
    let args = ["wait", "--for=condition=Established", "--timeout=30s", "-f", "-"];
    plane.kubectl_ok_with(&args, Some(yaml)).await;
}

/// One of the values that a token Secret may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// `access_token`.
    AccessToken,
    /// `access_token_expire_in`.
    AccessTokenExpireIn,
    /// `refresh_token`.
    RefreshToken,
    /// `refresh_token_expire_in`.
    RefreshTokenExpireIn,
    /// `auth_code`.
    AuthCode,
}

impl Field {
    /// Those of tokens.
    const ALL: [Self; 4] =
        [Self::AccessToken, Self::AccessTokenExpireIn, Self::RefreshToken, Self::RefreshTokenExpireIn];

    /// Its key in a Secret, unless another is asked for.
    #[must_use]
    pub fn default_key(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::AccessTokenExpireIn => "access_token_expire_in",
            Self::RefreshToken => "refresh_token",
            Self::RefreshTokenExpireIn => "refresh_token_expire_in",
            Self::AuthCode => "auth_code",
        }
    }

    /// What an integration's `keys` call it.
    fn spec_name(self) -> &'static str {
        match self {
            Self::AccessToken => "accessToken",
            Self::AccessTokenExpireIn => "accessTokenExpireIn",
            Self::RefreshToken => "refreshToken",
            Self::RefreshTokenExpireIn => "refreshTokenExpireIn",
            Self::AuthCode => "authCode",
        }
    }
}

/// The keys of an integration's `tokenSecretRef`, for those that are not the default.
#[must_use]
pub fn spec_keys(keys: &[(Field, &str)]) -> Value {
    let pairs = keys.iter().map(|(field, key)| (field.spec_name().to_owned(), Value::from(*key)));
    Value::Object(pairs.collect())
}

/// A Secret in the making: of tokens ([`SecretFixture::tokens`]), of an app
/// ([`app_secret`]), or of anything.
#[derive(Debug, Clone)]
pub struct SecretFixture {
    metadata: Metadata,
    data: BTreeMap<String, Vec<u8>>,
    immutable: bool,
}

/// A Secret with the app's key and secret under their default keys.
#[must_use]
pub fn app_secret(namespace: &str, name: &str, app_key: &str, app_secret: &str) -> SecretFixture {
    SecretFixture::new(namespace, name).value("app_key", app_key).value("app_secret", app_secret)
}

impl SecretFixture {
    /// An empty one.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { metadata: Metadata::new(namespace, name), data: BTreeMap::new(), immutable: false }
    }

    /// All four values of a token Secret under their default keys; expiries in
    /// Unix seconds.
    #[must_use]
    pub fn tokens(self, access: &str, access_expires: i64, refresh: &str, refresh_expires: i64) -> Self {
        self.tokens_under(&[], access, access_expires, refresh, refresh_expires)
    }

    /// [`SecretFixture::tokens`] with keys of one's own; those not named are the default.
    #[must_use]
    pub fn tokens_under(
        mut self,
        keys: &[(Field, &str)],
        access: &str,
        access_expires: i64,
        refresh: &str,
        refresh_expires: i64,
    ) -> Self {
        let values = [access.to_owned(), access_expires.to_string(), refresh.to_owned(), refresh_expires.to_string()];
        for (field, value) in Field::ALL.into_iter().zip(values) {
            let own = keys.iter().find(|(named, _)| *named == field).map(|(_, key)| *key);
            self = self.value(own.unwrap_or_else(|| field.default_key()), value);
        }
        self
    }

    /// One value, whatever its key.
    #[must_use]
    pub fn value(mut self, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }

    /// Leaves a key out.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.data.remove(key);
        self
    }

    /// A label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.metadata.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.metadata.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Its data can never be changed.
    #[must_use]
    pub fn immutable(mut self) -> Self {
        self.immutable = true;
        self
    }

    /// The object.
    #[must_use]
    pub fn manifest(&self) -> Value {
        let data: BTreeMap<_, _> = self.data.iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": self.metadata.manifest(), "data": data,
        });
        if self.immutable {
            secret["immutable"] = true.into();
        }
        secret
    }

    /// Creates it; panics where it exists.
    pub async fn create(&self, client: &Client) -> Value {
        create(client, &self.manifest()).await
    }

    /// Server-side apply.
    pub async fn apply(&self, client: &Client) -> Value {
        apply(client, &self.manifest()).await
    }
}

/// An integration in the making.
#[derive(Debug, Clone)]
pub struct IntegrationFixture {
    metadata: Metadata,
    spec: Value,
}

/// An integration of a token Secret and an app Secret, all else the default.
#[must_use]
pub fn integration(namespace: &str, name: &str, token_secret: &str, app_secret: &str) -> IntegrationFixture {
    IntegrationFixture {
        metadata: Metadata::new(namespace, name),
        spec: json!({
            "appCredentialsSecretRef": { "name": app_secret },
            "tokenSecretRef": { "name": token_secret },
        }),
    }
}

impl IntegrationFixture {
    /// `spec.teamId`.
    #[must_use]
    pub fn team(self, id: &str) -> Self {
        self.field("teamId", id)
    }

    /// `spec.suspend`.
    #[must_use]
    pub fn suspend(self, suspend: bool) -> Self {
        self.field("suspend", suspend)
    }

    /// `spec.refreshBefore`.
    #[must_use]
    pub fn refresh_before(self, duration: &str) -> Self {
        self.field("refreshBefore", duration)
    }

    /// `spec.tokenSecretRef.keys`, for those that are not the default.
    #[must_use]
    pub fn token_keys(mut self, keys: &[(Field, &str)]) -> Self {
        self.spec["tokenSecretRef"]["keys"] = spec_keys(keys);
        self
    }

    /// Any field of the spec.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.spec[name] = value.into();
        self
    }

    /// A label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.metadata.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.metadata.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The object.
    #[must_use]
    pub fn manifest(&self) -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "metadata": self.metadata.manifest(), "spec": self.spec,
        })
    }

    /// Creates it; panics where it exists or the server refuses it.
    pub async fn create(&self, client: &Client) -> Value {
        create(client, &self.manifest()).await
    }

    /// Creates it, or says why the server refuses it.
    ///
    /// # Errors
    /// The server's own answer.
    pub async fn try_create(&self, client: &Client) -> kube::Result<Value> {
        try_create(client, &self.manifest()).await
    }

    /// Server-side apply.
    pub async fn apply(&self, client: &Client) -> Value {
        apply(client, &self.manifest()).await
    }
}

#[derive(Debug, Clone)]
struct Metadata {
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl Metadata {
    fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    fn manifest(&self) -> Value {
        json!({
            "namespace": self.namespace, "name": self.name,
            "labels": self.labels, "annotations": self.annotations,
        })
    }
}

/// Creates an object; panics with the server's answer where it is refused.
pub async fn create(client: &Client, manifest: &Value) -> Value {
    let created = try_create(client, manifest).await;
    created.unwrap_or_else(|error| panic!("failed to create {}: {error}", described(manifest)))
}

/// Creates an object.
///
/// # Errors
/// The server's own answer.
pub async fn try_create(client: &Client, manifest: &Value) -> kube::Result<Value> {
    let (api, object) = typed(client, manifest);
    api.create(&PostParams::default(), &object).await.map(|created| value_of(&created))
}

/// Server-side apply of an object; panics with the server's answer where it is refused.
pub async fn apply(client: &Client, manifest: &Value) -> Value {
    let (api, object) = typed(client, manifest);
    let name = object.metadata.name.clone().expect("a fixture has a name");
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
    value_of(&applied.unwrap_or_else(|error| panic!("failed to apply {}: {error}", described(manifest))))
}

/// A Secret as it is now; none where there is none.
pub async fn secret(client: &Client, namespace: &str, name: &str) -> Option<Secret> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    api.get_opt(name).await.unwrap_or_else(|error| panic!("failed to read the Secret {namespace}/{name}: {error}"))
}

/// The values of a Secret, as text; panics where there is none.
pub async fn secret_values(client: &Client, namespace: &str, name: &str) -> BTreeMap<String, String> {
    let secret = secret(client, namespace, name).await;
    let secret = secret.unwrap_or_else(|| panic!("there is no Secret {namespace}/{name}"));
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    secret.data.unwrap_or_default().iter().map(|(key, value)| (key.clone(), text(&value.0))).collect()
}

/// A merge patch of a Secret; values under `stringData` are given as text.
pub async fn patch_secret(client: &Client, namespace: &str, name: &str, patch: &Value) {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.unwrap_or_else(|error| panic!("failed to patch the Secret {namespace}/{name}: {error}"));
}

/// The Api of integrations in a namespace.
#[must_use]
pub fn integrations(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource(API_VERSION, KIND))
}

/// A merge patch of an integration, such as `{"spec": {"suspend": true}}`.
pub async fn patch_integration(client: &Client, namespace: &str, name: &str, patch: &Value) {
    let api = integrations(client, namespace);
    let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.unwrap_or_else(|error| panic!("failed to patch the integration {namespace}/{name}: {error}"));
}

/// Asks for one refresh now, by annotation; any value that is new.
pub async fn request_refresh(client: &Client, namespace: &str, name: &str, value: &str) {
    let annotations = json!({ "tiktokshop.dev/refresh-requested-at": value });
    patch_integration(client, namespace, name, &json!({ "metadata": { "annotations": annotations } })).await;
}

/// An integration's status as it is now; null where it has none yet.
pub async fn get_status(client: &Client, namespace: &str, name: &str) -> Value {
    let got = integrations(client, namespace).get(name).await;
    let got = got.unwrap_or_else(|error| panic!("failed to read the integration {namespace}/{name}: {error}"));
    got.data.get("status").cloned().unwrap_or_default()
}

/// Waits until the status is as wished for, and returns it. `what` completes
/// the sentence "the status … did not come to": its failure shows the last
/// status and the operators' last lines. A failed read is a failed look: the
/// API server may be away for a while.
pub async fn wait_for_status(
    client: &Client,
    namespace: &str,
    name: &str,
    what: &str,
    predicate: impl Fn(&Value) -> bool,
    timeout: Duration,
) -> Value {
    let api = integrations(client, namespace);
    let mut last = String::from("never read");
    let found = poll::until(timeout, async || match api.get(name).await {
        Ok(object) => {
            let status = object.data.get("status").cloned().unwrap_or_default();
            last = serde_json::to_string_pretty(&status).unwrap_or_default();
            predicate(&status).then_some(status)
        }
        Err(error) => {
            last = format!("not to be read: {error}");
            None
        }
    });
    let found = found.await;
    found.unwrap_or_else(|| {
        panic!(
            "the status of {namespace}/{name} did not come to {what} in {timeout:?}; it was: {last}\n{}",
            process::hint("operator")
        )
    })
}

/// One of a status's conditions.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The one word that says why.
    pub reason: String,
    /// The sentence that says why.
    pub message: String,
    /// The spec it speaks of.
    pub observed_generation: Option<i64>,
    /// When its status last changed, RFC 3339.
    pub last_transition_time: String,
}

/// A status's condition of this type, such as `Ready`.
#[must_use]
pub fn condition(status: &Value, kind: &str) -> Option<Condition> {
    let conditions = status.get("conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let parsed = serde_json::from_value(found.clone());
    Some(parsed.unwrap_or_else(|error| panic!("not a condition ({error}): {found}")))
}

/// Whether a status has a condition of this type, status and reason.
#[must_use]
pub fn has_condition(status: &Value, kind: &str, is: &str, reason: &str) -> bool {
    condition(status, kind).is_some_and(|found| found.status == is && found.reason == reason)
}

/// An event about an integration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenEvent {
    /// `Normal` or `Warning`.
    pub kind: String,
    /// Its reason.
    pub reason: String,
    /// What it tells.
    pub note: String,
    /// How often it was said: 1, or what its series counts.
    pub count: i32,
}

/// The events about an integration, by name of event.
pub async fn events(client: &Client, namespace: &str, name: &str) -> Vec<SeenEvent> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let listed = api.list(&ListParams::default()).await;
    let listed = listed.unwrap_or_else(|error| panic!("failed to list the events in {namespace}: {error}"));
    let about = |event: &Event| {
        let regarding = event.regarding.as_ref();
        regarding.is_some_and(|it| it.kind.as_deref() == Some(KIND) && it.name.as_deref() == Some(name))
    };
    let seen = listed.items.into_iter().filter(about).map(|event| SeenEvent {
        kind: event.type_.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        note: event.note.unwrap_or_default(),
        count: event.series.map_or(1, |series| series.count),
    });
    seen.collect()
}

/// Waits for an event with this reason, and returns it.
pub async fn wait_for_event(
    client: &Client,
    namespace: &str,
    name: &str,
    reason: &str,
    timeout: Duration,
) -> SeenEvent {
    let mut last = Vec::new();
    let found = poll::until(timeout, async || {
        last = events(client, namespace, name).await;
        last.iter().find(|event| event.reason == reason).cloned()
    });
    let found = found.await;
    found.unwrap_or_else(|| {
        panic!(
            "no event {reason} about {namespace}/{name} in {timeout:?}; there were: {last:#?}\n{}",
            process::hint("operator")
        )
    })
}

fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

fn typed(client: &Client, manifest: &Value) -> (Api<DynamicObject>, DynamicObject) {
    let text = |field: &str| manifest[field].as_str().expect("a fixture has an apiVersion and a kind");
    let resource = resource(text("apiVersion"), text("kind"));
    let object: DynamicObject = serde_json::from_value(manifest.clone()).expect("a fixture is an object");
    let api = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    (api, object)
}

fn value_of(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("an object is JSON")
}

fn described(manifest: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let metadata = &manifest["metadata"];
    format!("{} {}/{}", text(&manifest["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}
