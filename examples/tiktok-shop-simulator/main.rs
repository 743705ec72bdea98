//! A simulator of TikTok Shop's token API: honest, strict, and wicked on demand.
//!
//! It is the witness of the integration tests: it alone knows every token that was ever given out,
//! how often each was presented, and what became of every answer. It shares no code with the client
//! that it tests. All state is in memory.
//!
//! ```text
//! tiktok-shop-simulator --listen 127.0.0.1:8089
//! listening on http://127.0.0.1:8089
//! ```
//!
//! # What it simulates
//!
//! `/api/v2/token/refresh`, in two wire forms: `POST` with a JSON body and `GET` with a query.
//! A form that is not served (`--forms`) gets `404 page not found` as plain text. Errors come with
//! HTTP 200 and a code in the envelope. A refresh **rotates**: it spends the refresh token, and
//! whoever presents a spent one gets code 36004005 (`--rotation` has other policies). A client that
//! hangs up does not undo a refresh. Values look like `TTP_sim_rt_<shop>_<n>_<random><tail>`; the
//! tail holds characters that need URL-encoding (`--token-chars`). No value is ever used twice.
//!
//! `/api/v2/token/get`, by `GET` with a query alone: an auth code gives the first pair of a new
//! authorization, once, and the pair of the authorization before is dead from then on. A code that is
//! used, expired, withdrawn or unknown gets code 36004004.
//!
//! `/authorization/202309/shops`, by `GET` with a signed query and the header `x-tts-access-token`: the
//! shops that the token is good for, with their ciphers. The signature is verified, the timestamp may be
//! 5 minutes off. A token that is not the shop's current one, expired or dead gets code 105002; one
//! without the scope `seller.authorization.info` 105005.
//!
//! # Control API
//!
//! On the same port, JSON in and out. Errors are `{"error": "…"}` with a status of 400 and more.
//!
//! ```text
//! S=http://127.0.0.1:8089/control
//!
//! # Apps: made with a key and a secret of your choice, or without; PUT changes the secret.
//! curl $S/apps -d '{"app_key":"demo","app_secret":"s3cret"}'
//! curl -X PUT $S/apps/demo -d '{"app_secret":"other"}'
//! curl $S/apps                                   # with requests and peak requests per second
//!
//! # Shops. All fields are optional; app_key may be left out while there is one app. The answer's
//! # "data" is what TikTok answers: it can be pasted into a Secret.
//! curl $S/shops -d '{"id":"shop-1","app_key":"demo","access_remaining_seconds":3600}'
//! curl $S/shops -d '{"user_type":1,"seller_name":null,"refresh_remaining_seconds":-5,
//!   "access_life_seconds":600,"refresh_life_seconds":86400,"rotation":"omit","token_chars":"%",
//!   "seller_base_region":"US","granted_scopes":[],"omit_fields":["seller_base_region"]}'
//! curl $S/shops/bulk -d '{"count":1000,"prefix":"b-","first":1,"shop":{"access_remaining_seconds":60},
//!   "access_remaining_spread_seconds":3600,"return_data":true}'
//! curl "$S/shops?offset=0&limit=1000"            # the current pair of each
//! curl $S/shops/shop-1                           # … of one
//! curl $S/shops/shop-1/history                   # every pair that it ever had
//! curl -X PATCH $S/shops/shop-1 -d '{"rotation":"not_rotating","access_life_seconds":60}'
//! curl $S/shops/shop-1/next-refresh -d '{"access_life_seconds":5,"refresh_life_seconds":60,"times":1}'
//! curl $S/shops/shop-1/authorize -d '{"code_life_seconds":1800}'   # the seller authorizes: an auth_code
//! curl -X POST $S/shops/shop-1/deauthorize       # its codes are dead, too
//! curl -X POST $S/shops/shop-1/reauthorize       # a new pair; the old one is dead
//! curl -X POST $S/shops/shop-1/kill-access       # the access token is refused from now on; a refresh gives a new one
//! curl -X PATCH $S/shops/shop-1 -d '{"granted_scopes":[],"shops":[{"id":"7","name":"A","region":"VN",
//!   "code":"VNA","seller_type":"LOCAL","cipher":"c"}]}'  # what the shops call answers; default: one shop
//!
//! # Settings
//! curl -X PATCH $S/settings -d '{"forms":"query","rotation":"kill_family","clock_offset_seconds":-30,
//!   "token_chars":"+/=&%","rate_limit":{"requests_per_second":5,"burst":1,"answer":"http429",
//!   "retry_after":"http_date"}}'                 # rate_limit: null switches it off
//!
//! # Faults. A scope names any of app_key, shop, refresh_token, form, endpoint (refresh, exchange, shops);
//! # none is everybody. `times` absent: until cleared. `skip`: that many pass first. A request can
//! # meet one fault of each of three kinds: a wait before, a wait after, a wrong answer. Of two alike
//! # the older goes first. An exchange meets them as a refresh does.
//! curl $S/faults -d '{"scope":{"shop":"shop-1"},"times":2,"skip":1,"action":{"type":"error","code":36009003}}'
//! curl $S/faults                                 # with hits and times_left
//! curl -X DELETE $S/faults/1                     # or all: $S/faults
//! curl $S/errors                                 # the codes and their messages
//!
//! # Requests held at a point (action "hold"), instead of sleeping
//! curl "$S/held/wait?shop=shop-1&point=after_rotation&count=1&timeout_ms=5000"
//! curl "$S/held?client_gone=true"
//! curl $S/held/release -d '{"id":1}'             # or {"shop":"shop-1"}, or {} for all;
//!                                                # with "outcome":"drop" the connection is closed
//!
//! # Waiting. All counts said must be reached; without a shop they are over all. Answers with
//! # "met": false when the time is up.
//! curl "$S/wait?shop=shop-1&refreshes=1&timeout_ms=5000"   # also delivered, presentations, refused,
//!                                                          # exchanges, code_presentations, shops_calls
//! curl "$S/wait?requests=10"
//! curl "$S/wait?fault=1&hits=2"
//!
//! # The witness
//! curl $S/witness                                # totals, apps, violations, strangers
//! curl "$S/witness/tokens?shop=shop-1"           # each refresh token, each time it was presented
//! curl "$S/witness/codes?shop=shop-1"            # the same of each auth code
//! curl "$S/requests?after=0&limit=100"           # the last 10,000 requests: no token values
//! ```
//!
//! ## Actions of faults
//!
//! | action | what happens |
//! |---|---|
//! | `{"type":"error","code":105001}` | an error envelope; also `message`, `http_status`, `retry_after`, `rotate` |
//! | `{"type":"raw","http_status":503,"body":"<html>"}` | these bytes; also `headers`, `content_length` (a false one), `retry_after`, `rotate` |
//! | `{"type":"flood","mebibytes":5}` | the honest answer behind so much padding; also `content_length` |
//! | `{"type":"truncated","content_length":"sent"}` | half of the honest answer; `whole`: the length of all of it, then the connection closes |
//! | `{"type":"drip","bytes":1,"every_ms":100}` | the honest answer, slowly |
//! | `{"type":"delay","point":"before_processing","ms":500}` | a wait, or at `after_rotation` |
//! | `{"type":"hold","point":"after_rotation"}` | a wait until released, or at `before_processing` |
//! | `{"type":"hang","point":"after_rotation"}` | no answer until the client hangs up, or at `before_processing` |
//! | `{"type":"drop","point":"after_rotation"}` | the connection closes, or at `before_processing`, `half_answer`; `"reset":true` sends RST |
//! | `{"type":"lie","kind":"old_pair"}` | code 0 and something wrong; also `rotate` (default: true, but false for `old_pair`) |
//! | `{"type":"patch","merge":{"code":7}}` | a JSON merge patch on the honest envelope; also `rotate` (default true) |
//!
//! `retry_after` is `{"seconds":3,"style":"seconds"}` or `"http_date"`. `rotate` says whether the
//! refresh happens behind the wrong answer.
//!
//! Lies: `old_pair`, `empty_tokens`, `missing_tokens`, `null_tokens`, `number_tokens`,
//! `padded_tokens`, `missing_access_token`, `missing_refresh_token`, `null_fields`,
//! `missing_fields`, `null_data`, `missing_data`, `empty_data`, `extra_fields`,
//! `expiry_milliseconds`, `expiry_duration`, `expiry_negative`, `expiry_zero`, `expiry_string`,
//! `expiry_junk`, `expiry_fraction`, `expiry_huge`, `expiry_past`, `expiry_null`, `expiry_missing`.
//!
//! ## What the witness says
//!
//! A **violation** is a refresh token that was presented again after a refresh had spent it; those of
//! auth codes that were used stand under `code_violations`. Its
//! `pair_delivered` says whether an answer that held the new pair had been handed to the socket to
//! its last byte, which tells a client that tries once more after a lost answer from one that forgot
//! what it was given. `refreshes_undelivered` counts the pairs that no client can know.
//! **Strangers** are presented values that were never given out, such as a mangled token.

#![forbid(unsafe_code)]

mod answer;
mod connection;
mod control;
mod errors;
mod faults;
mod query;
mod settings;
mod shops_api;
mod token_api;
mod tokens;
mod witness;
mod world;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use connection::{Listener, Wire};
use settings::{Forms, RateLimit, RateLimitAnswer, RetryAfterStyle, Rotation, Settings};
use world::Simulator;

/// Where tokens are refreshed, on the real hosts and here.
const REFRESH_PATH: &str = "/api/v2/token/refresh";
/// Where auth codes are exchanged for tokens.
const EXCHANGE_PATH: &str = "/api/v2/token/get";

/// Where the shops of an access token are named.
const SHOPS_PATH: &str = "/authorization/202309/shops";

/// A simulator of TikTok Shop's token API, for tests and demos.
///
/// Prints one line, `listening on http://ADDRESS:PORT`, once it is ready, and serves until SIGTERM or
/// SIGINT. Point a client at /api/v2/token/refresh of that address; create apps and shops, inject
/// faults and read the witness's record below /control. The head of the program's source lists all
/// of it with examples; `curl` of /control shows the settings in force.
#[derive(Parser)]
#[command(name = "tiktok-shop-simulator", version)]
struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Which wire forms of the token request are served; the others get 404
    #[arg(long, value_enum, default_value = "both")]
    forms: Forms,

    /// What a refresh does to the refresh token
    #[arg(long, value_enum, default_value = "rotating")]
    rotation: Rotation,

    /// Requests per second for each app key [default: no limit]
    #[arg(long, value_name = "N")]
    rate_limit: Option<f64>,

    /// How many requests may come at once under a rate limit [default: N, at least 1]
    #[arg(long, value_name = "N", requires = "rate_limit")]
    rate_limit_burst: Option<u32>,

    /// How requests over the rate limit are answered: HTTP 200 with code 36009002, or HTTP 429
    #[arg(long, value_enum, default_value = "envelope", requires = "rate_limit")]
    rate_limit_answer: RateLimitAnswer,

    /// The Retry-After header of such answers [default: none]
    #[arg(long, value_enum, requires = "rate_limit")]
    retry_after: Option<RetryAfterStyle>,

    /// Special characters in tokens and app secrets, to find out who does not encode them
    #[arg(long, value_name = "CHARS", default_value = "+/=")]
    token_chars: String,

    /// Creates an app; can be given again
    #[arg(long = "app", value_name = "KEY:SECRET")]
    apps: Vec<String>,
}

// One thread: it serves several thousand refreshes a second, and leaves the other processors to
// what is being tested.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tiktok-shop-simulator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), String> {
    // Before the ready line: whoever has read it may send a signal at once.
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("failed to listen for SIGTERM: {e}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| format!("failed to listen for SIGINT: {e}"))?;

    let simulator = Arc::new(prepare(&args)?);
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .map_err(|error| format!("failed to listen on {}: {error}", args.listen))?;
    let address = listener.local_addr().map_err(|error| format!("failed to learn the port: {error}"))?;
    let service = router(simulator).into_make_service_with_connect_info::<Wire>();
    println!("listening on http://{address}");

    tokio::select! {
        served = axum::serve(Listener(listener), service) => {
            served.map_err(|error| format!("failed to serve: {error}"))
        }
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn prepare(args: &Args) -> Result<Simulator, String> {
    let settings = Settings {
        forms: args.forms,
        rotation: args.rotation,
        rate_limit: args.rate_limit.map(|requests_per_second| RateLimit {
            requests_per_second,
            burst: args.rate_limit_burst,
            answer: args.rate_limit_answer,
            retry_after: args.retry_after,
        }),
        token_chars: args.token_chars.clone(),
        clock_offset_seconds: 0,
    };
    settings.check()?;
    let simulator = Simulator::new(settings);
    for app in &args.apps {
        let (key, secret) = app.split_once(':').ok_or("--app wants KEY:SECRET")?;
        simulator.update(|world| world.put_app(Some(key.into()), Some(secret.into())))?;
    }
    Ok(simulator)
}

/// The platform's endpoints, and the control API beside them. An endpoint of the platform that is
/// added gets its route here, its handler beside `token_api::refresh`, and its rules in `World`.
fn router(simulator: Arc<Simulator>) -> Router {
    let platform = Router::new()
        .route(REFRESH_PATH, any(token_api::refresh))
        .route(EXCHANGE_PATH, any(token_api::exchange))
        .route(SHOPS_PATH, any(token_api::shops))
        .fallback(token_api::elsewhere)
        .with_state(simulator.clone());
    platform.merge(control::router(simulator))
}
