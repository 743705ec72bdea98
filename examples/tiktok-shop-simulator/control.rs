//! The control API: how a test tells the simulator what to be, and asks what happened.
//!
//! The endpoints are listed, with examples, at the head of the program.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::errors;
use super::faults::{NewFault, Point};
use super::query::Params;
use super::settings::SettingsPatch;
use super::world::{
    Authorization, BulkShops, Counters, Held, NextLives, Profile, Release, ShopPatch, Simulator, World,
};

/// The longest that a long poll may take, and what it takes when nothing is said.
const LONGEST_WAIT_MS: u64 = 600_000;
const DEFAULT_WAIT_MS: u64 = 10_000;
/// The longest body that is read.
const BODY_LIMIT: usize = 1024 * 1024;
/// How many entries a list answers when nothing is said.
const DEFAULT_LIMIT: usize = 1_000;

/// The routes below `/control`.
pub fn router(simulator: Arc<Simulator>) -> Router {
    let api = Router::new()
        .route("/", get(overview))
        .route("/settings", get(settings).patch(patch_settings))
        .route("/errors", get(error_table))
        .route("/apps", get(apps).post(create_app))
        .route("/apps/{app_key}", put(put_app))
        .route("/shops", get(shops).post(create_shop))
        .route("/shops/bulk", post(create_shops))
        .route("/shops/{id}", get(shop).patch(patch_shop))
        .route("/shops/{id}/history", get(history))
        .route("/shops/{id}/next-refresh", post(next_refresh))
        .route("/shops/{id}/authorize", post(authorize))
        .route("/shops/{id}/deauthorize", post(deauthorize))
        .route("/shops/{id}/reauthorize", post(reauthorize))
        .route("/shops/{id}/kill-access", post(kill_access))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/faults/{id}", delete(clear_fault))
        .route("/held", get(held))
        .route("/held/wait", get(wait_for_held))
        .route("/held/release", post(release))
        .route("/witness", get(witness))
        .route("/witness/tokens", get(witness_tokens))
        .route("/witness/codes", get(witness_codes))
        .route("/requests", get(requests))
        .route("/wait", get(wait))
        .fallback(async || Failure::not_found("no such endpoint of the control API".into()))
        .method_not_allowed_fallback(async || {
            Failure(StatusCode::METHOD_NOT_ALLOWED, "the control API has this path, but not for this method".into())
        });
    Router::new().nest("/control", api).with_state(simulator)
}

type Sim = State<Arc<Simulator>>;
type Answered = Result<Json, Failure>;

/// An error of the control API: `{"error": "…"}`.
struct Failure(StatusCode, String);

impl Failure {
    fn bad(why: String) -> Self {
        Self(StatusCode::BAD_REQUEST, why)
    }

    fn not_found(why: String) -> Self {
        Self(StatusCode::NOT_FOUND, why)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// A JSON answer.
struct Json(Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        JsonText(self.0.to_string()).into_response()
    }
}

/// A JSON answer that is text already.
struct JsonText(String);

impl IntoResponse for JsonText {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// A JSON body. The content type is not asked for: `curl -d` says another one.
struct Body<T>(T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let body = to_bytes(request.into_body(), BODY_LIMIT)
            .await
            .map_err(|_| Failure::bad(format!("the body is broken off or longer than {BODY_LIMIT} bytes")))?;
        // An endpoint whose settings are all optional can be called without a body.
        let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(body)
            .map(Self)
            .map_err(|error| Failure::bad(format!("the body is not what is expected here: {error}")))
    }
}

/// Query parameters.
trait FromParams: Sized {
    fn take(params: &mut Params) -> Result<Self, String>;
}

/// Query parameters, with errors in the form of this API.
struct Query<T>(T);

impl<S: Sync, T: FromParams> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let read = || {
            let mut params = Params::parse(parts.uri.query().unwrap_or_default())?;
            let taken = T::take(&mut params)?;
            params.end()?;
            Ok(taken)
        };
        read().map(Self).map_err(Failure::bad)
    }
}

// ---- the whole ----

async fn overview(State(simulator): Sim) -> Json {
    simulator.read(|world| {
        Json(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "settings": world.settings,
            "shops": world.shop_count(),
            "totals": world.ledger.totals,
        }))
    })
}

async fn settings(State(simulator): Sim) -> Json {
    simulator.read(|world| Json(json!(world.settings)))
}

async fn patch_settings(State(simulator): Sim, Body(patch): Body<SettingsPatch>) -> Answered {
    simulator.update(|world| world.settings.apply(patch).map(|()| Json(json!(world.settings)))).map_err(Failure::bad)
}

async fn error_table() -> Json {
    let rows =
        errors::TABLE.map(|(code, message, meaning)| json!({"code": code, "message": message, "meaning": meaning}));
    Json(json!({ "errors": rows }))
}

// ---- apps and shops ----

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewApp {
    #[serde(default)]
    app_key: Option<String>,
    #[serde(default)]
    app_secret: Option<String>,
}

async fn apps(State(simulator): Sim) -> Json {
    simulator.read(|world| Json(json!({ "apps": world.apps() })))
}

async fn create_app(State(simulator): Sim, Body(new): Body<NewApp>) -> Answered {
    store_app(&simulator, new.app_key, new.app_secret)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSecret {
    app_secret: String,
}

async fn put_app(State(simulator): Sim, Path(app_key): Path<String>, Body(new): Body<NewSecret>) -> Answered {
    store_app(&simulator, Some(app_key), Some(new.app_secret))
}

fn store_app(simulator: &Simulator, app_key: Option<String>, app_secret: Option<String>) -> Answered {
    simulator
        .update(|world| world.put_app(app_key, app_secret))
        .map(|(key, secret)| Json(json!({"app_key": key, "app_secret": secret})))
        .map_err(Failure::bad)
}

async fn create_shop(State(simulator): Sim, Body(new): Body<Profile>) -> Answered {
    simulator.update(|world| world.create_shop(new)).map(Json).map_err(Failure::bad)
}

async fn create_shops(State(simulator): Sim, Body(bulk): Body<BulkShops>) -> Result<JsonText, Failure> {
    let return_data = bulk.return_data;
    simulator
        .update(|world| {
            let made = world.create_shops(bulk)?;
            let total = made.len();
            Ok(list_shops(
                total,
                made.map(|index| if return_data { world.shop_view(index) } else { world.shop_name(index) }),
            ))
        })
        .map_err(Failure::bad)
}

/// A list of shops as text: a hundred thousand as one JSON value would take ten times its size.
fn list_shops(total: usize, views: impl Iterator<Item = Value>) -> JsonText {
    let mut text = format!("{{\"total\":{total},\"shops\":[");
    for (i, view) in views.enumerate() {
        let comma = if i == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{view}");
    }
    text.push_str("]}");
    JsonText(text)
}

struct Page {
    offset: usize,
    limit: usize,
}

impl FromParams for Page {
    fn take(params: &mut Params) -> Result<Self, String> {
        Ok(Self {
            offset: params.value("offset")?.unwrap_or_default(),
            limit: params.value("limit")?.unwrap_or(DEFAULT_LIMIT),
        })
    }
}

async fn shops(State(simulator): Sim, Query(page): Query<Page>) -> JsonText {
    simulator.read(|world| {
        let total = world.shop_count();
        list_shops(total, (page.offset..total).take(page.limit).map(|index| world.shop_view(index)))
    })
}

async fn shop(State(simulator): Sim, Path(id): Path<String>) -> Answered {
    on_shop(&simulator, &id, |world, index| world.shop_view(index))
}

async fn history(State(simulator): Sim, Path(id): Path<String>) -> Answered {
    on_shop(&simulator, &id, |world, index| world.history(index))
}

async fn patch_shop(State(simulator): Sim, Path(id): Path<String>, Body(patch): Body<ShopPatch>) -> Answered {
    on_shop(&simulator, &id, |world, index| {
        world.patch_shop(index, patch);
        world.shop_view(index)
    })
}

async fn next_refresh(State(simulator): Sim, Path(id): Path<String>, Body(lives): Body<NextLives>) -> Answered {
    on_shop(&simulator, &id, |world, index| {
        world.set_next_lives(index, lives);
        world.shop_view(index)
    })
}

async fn authorize(State(simulator): Sim, Path(id): Path<String>, Body(how): Body<Authorization>) -> Answered {
    on_shop(&simulator, &id, |world, index| world.authorize(index, &how))
}

async fn deauthorize(State(simulator): Sim, Path(id): Path<String>) -> Answered {
    on_shop(&simulator, &id, |world, index| {
        world.deauthorize(index);
        world.shop_view(index)
    })
}

async fn reauthorize(State(simulator): Sim, Path(id): Path<String>) -> Answered {
    on_shop(&simulator, &id, |world, index| {
        world.reauthorize(index);
        world.shop_view(index)
    })
}

async fn kill_access(State(simulator): Sim, Path(id): Path<String>) -> Answered {
    on_shop(&simulator, &id, |world, index| {
        world.kill_access(index);
        world.shop_view(index)
    })
}

fn on_shop(simulator: &Simulator, id: &str, work: impl FnOnce(&mut World, usize) -> Value) -> Answered {
    simulator.update(|world| world.shop_index(id).map(|index| work(world, index))).map(Json).map_err(Failure::not_found)
}

// ---- faults and held requests ----

async fn faults(State(simulator): Sim) -> Json {
    simulator.read(|world| Json(json!({ "faults": world.faults.list() })))
}

async fn add_fault(State(simulator): Sim, Body(new): Body<NewFault>) -> Answered {
    simulator
        .update(|world| {
            if let Some(shop) = &new.scope.shop {
                // A misspelt id would make a fault that never comes, and a test that proves nothing.
                world.shop_index(shop)?;
            }
            world.faults.add(new)
        })
        .map(|id| Json(json!({ "id": id })))
        .map_err(Failure::bad)
}

async fn clear_faults(State(simulator): Sim) -> Json {
    let cleared = simulator.update(|world| world.faults.clear(None));
    Json(json!({ "cleared": cleared }))
}

async fn clear_fault(State(simulator): Sim, Path(id): Path<u64>) -> Answered {
    match simulator.update(|world| world.faults.clear(Some(id))) {
        0 => Err(Failure::not_found(format!("there is no fault {id}"))),
        cleared => Ok(Json(json!({ "cleared": cleared }))),
    }
}

fn held_view(id: u64, held: &Held) -> Value {
    json!({
        "id": id,
        "point": held.point,
        "request": held.request,
        "shop": held.shop,
        "app_key": held.app_key,
        "refresh_token": held.refresh_token,
        "form": held.form,
        "since": held.since,
        "client_gone": held.wire.is_gone(),
    })
}

struct HeldFilter {
    shop: Option<String>,
    point: Option<Point>,
    count: usize,
    client_gone: Option<bool>,
    timeout: Duration,
}

impl FromParams for HeldFilter {
    fn take(params: &mut Params) -> Result<Self, String> {
        Ok(Self {
            shop: params.text("shop"),
            point: params.value("point")?,
            count: params.value("count")?.unwrap_or(1),
            client_gone: params.value("client_gone")?,
            timeout: timeout(params.value("timeout_ms")?),
        })
    }
}

impl HeldFilter {
    fn find(&self, world: &World) -> Vec<Value> {
        world
            .held
            .iter()
            .filter(|(_, held)| self.shop.is_none() || self.shop == held.shop)
            .filter(|(_, held)| self.point.is_none_or(|point| point == held.point))
            .filter(|(_, held)| self.client_gone.is_none_or(|gone| gone == held.wire.is_gone()))
            .map(|(id, held)| held_view(*id, held))
            .collect()
    }
}

async fn held(State(simulator): Sim, Query(filter): Query<HeldFilter>) -> Json {
    simulator.read(|world| Json(json!({ "held": filter.find(world) })))
}

async fn wait_for_held(State(simulator): Sim, Query(filter): Query<HeldFilter>) -> Json {
    let found = simulator
        .wait(filter.timeout, |world| {
            let found = filter.find(world);
            (found.len() >= filter.count).then_some(found)
        })
        .await;
    let met = found.is_some();
    let held = found.unwrap_or_else(|| simulator.read(|world| filter.find(world)));
    Json(json!({"met": met, "held": held}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseOrder {
    id: Option<u64>,
    shop: Option<String>,
    #[serde(default = "ReleaseOrder::default_outcome")]
    outcome: Release,
}

impl ReleaseOrder {
    const fn default_outcome() -> Release {
        Release::Continue
    }
}

async fn release(State(simulator): Sim, Body(order): Body<ReleaseOrder>) -> Answered {
    let released = simulator.update(|world| {
        let ids: Vec<u64> = world
            .held
            .iter()
            .filter(|(id, held)| {
                order.id.is_none_or(|wanted| wanted == **id) && (order.shop.is_none() || order.shop == held.shop)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in &ids {
            if let Some(held) = world.held.remove(id) {
                // Its task waits for this alone; it cannot have gone.
                let _ = held.release.send(order.outcome);
            }
        }
        ids
    });
    match order.id {
        Some(id) if released.is_empty() => Err(Failure::not_found(format!("no request is held under the number {id}"))),
        _ => Ok(Json(json!({ "released": released }))),
    }
}

// ---- the witness ----

async fn witness(State(simulator): Sim) -> Json {
    simulator.read(|world| Json(world.testimony()))
}

struct TokenPage {
    shop: Option<String>,
    offset: usize,
    limit: usize,
}

impl FromParams for TokenPage {
    fn take(params: &mut Params) -> Result<Self, String> {
        Ok(Self {
            shop: params.text("shop"),
            offset: params.value("offset")?.unwrap_or_default(),
            limit: params.value("limit")?.unwrap_or(DEFAULT_LIMIT),
        })
    }
}

async fn witness_tokens(State(simulator): Sim, Query(page): Query<TokenPage>) -> Answered {
    simulator
        .read(|world| {
            let shop = page.shop.map(|id| world.shop_index(&id)).transpose()?;
            Ok(world.token_views(shop, page.offset, page.limit))
        })
        .map(|tokens| Json(json!({ "tokens": tokens })))
        .map_err(Failure::not_found)
}

struct CodePage {
    shop: String,
}

impl FromParams for CodePage {
    fn take(params: &mut Params) -> Result<Self, String> {
        Ok(Self { shop: params.text("shop").ok_or("say whose codes: shop=<id>")? })
    }
}

async fn witness_codes(State(simulator): Sim, Query(page): Query<CodePage>) -> Answered {
    simulator
        .read(|world| world.shop_index(&page.shop).map(|index| world.code_views(index)))
        .map(|codes| Json(json!({ "codes": codes })))
        .map_err(Failure::not_found)
}

struct LogPage {
    after: u64,
    limit: usize,
}

impl FromParams for LogPage {
    fn take(params: &mut Params) -> Result<Self, String> {
        Ok(Self {
            after: params.value("after")?.unwrap_or_default(),
            limit: params.value("limit")?.unwrap_or(DEFAULT_LIMIT),
        })
    }
}

async fn requests(State(simulator): Sim, Query(page): Query<LogPage>) -> Json {
    simulator.read(|world| Json(world.ledger.log(page.after, page.limit)))
}

struct Wanted {
    shop: Option<String>,
    refreshes: Option<u64>,
    delivered: Option<u64>,
    presentations: Option<u64>,
    exchanges: Option<u64>,
    code_presentations: Option<u64>,
    shops_calls: Option<u64>,
    refused: Option<u64>,
    requests: Option<u64>,
    fault: Option<u64>,
    hits: Option<u32>,
    timeout: Duration,
}

impl FromParams for Wanted {
    fn take(params: &mut Params) -> Result<Self, String> {
        Ok(Self {
            shop: params.text("shop"),
            refreshes: params.value("refreshes")?,
            delivered: params.value("delivered")?,
            presentations: params.value("presentations")?,
            exchanges: params.value("exchanges")?,
            code_presentations: params.value("code_presentations")?,
            shops_calls: params.value("shops_calls")?,
            refused: params.value("refused")?,
            requests: params.value("requests")?,
            fault: params.value("fault")?,
            hits: params.value("hits")?,
            timeout: timeout(params.value("timeout_ms")?),
        })
    }
}

async fn wait(State(simulator): Sim, Query(wanted): Query<Wanted>) -> Answered {
    if wanted.shop.is_some() && wanted.requests.is_some() {
        return Err(Failure::bad(
            "requests are counted for all shops together: wait for presentations of a shop".into(),
        ));
    }
    if wanted.hits.is_some() && wanted.fault.is_none() {
        return Err(Failure::bad("say whose hits: fault=<id>".into()));
    }
    let index = match &wanted.shop {
        None => None,
        Some(id) => Some(simulator.read(|world| world.shop_index(id)).map_err(Failure::not_found)?),
    };
    let look = |world: &World| -> (bool, Counters, u64, Option<u32>) {
        let counters = index.map_or_else(|| world.total_counters(), |index| world.counters(index));
        let requests = world.ledger.totals.requests;
        let hits = wanted.fault.and_then(|id| {
            let faults = world.faults.list();
            Some(faults.iter().find(|fault| fault.id == id)?.hits)
        });
        let met = wanted.refreshes.is_none_or(|n| counters.refreshes >= n)
            && wanted.delivered.is_none_or(|n| counters.delivered >= n)
            && wanted.presentations.is_none_or(|n| counters.presentations >= n)
            && wanted.exchanges.is_none_or(|n| counters.exchanges >= n)
            && wanted.code_presentations.is_none_or(|n| counters.code_presentations >= n)
            && wanted.shops_calls.is_none_or(|n| counters.shops_calls >= n)
            && wanted.refused.is_none_or(|n| counters.refused >= n)
            && wanted.requests.is_none_or(|n| requests >= n)
            && (wanted.fault.is_none() || hits.is_some_and(|hits| hits >= wanted.hits.unwrap_or(1)));
        (met, counters, requests, hits)
    };
    simulator.wait(wanted.timeout, |world| look(world).0.then_some(())).await;
    let (met, counters, requests, hits) = simulator.read(look);
    Ok(Json(json!({
        "met": met,
        "shop": wanted.shop,
        "counters": counters,
        "requests": requests,
        "hits": hits,
    })))
}

fn timeout(ms: Option<u64>) -> Duration {
    Duration::from_millis(ms.unwrap_or(DEFAULT_WAIT_MS).min(LONGEST_WAIT_MS))
}
