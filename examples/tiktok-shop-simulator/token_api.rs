//! The endpoints, as a client meets them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::answer::{self, Answer};
use super::connection::{Receipt, Wire};
use super::errors;
use super::faults::{Action, DropPoint, Point};
use super::query::Params;
use super::settings::{Endpoint, Form, RateLimitAnswer};
use super::shops_api::SignedCall;
use super::witness::{AnswerState, LogEntry, Millis, Outcome};
use super::world::{Arrival, Gate, Held, Incoming, PresentationId, Release, Simulator, Verdict, World};

/// The largest request that is read: a hundred times an honest one.
const REQUEST_LIMIT: usize = 64 * 1024;

/// Carries the access token of a signed call.
const ACCESS_TOKEN: header::HeaderName = header::HeaderName::from_static("x-tts-access-token");

/// What leaves the simulator in the end.
enum Reply {
    Answer(Answer),
    /// Not a byte.
    Silence {
        reset: bool,
    },
}

/// Whether a request goes on after a wait.
#[derive(PartialEq, Eq)]
enum Waited {
    GoOn,
    Close,
    ClientLeft,
}

/// `/api/v2/token/refresh`, in any form and by any method.
pub async fn refresh(
    State(simulator): State<Arc<Simulator>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
) -> Response {
    if request.method() != Method::GET && request.method() != Method::POST {
        return elsewhere(State(simulator), ConnectInfo(wire), request).await;
    }
    take(simulator, wire, Endpoint::Refresh, request).await
}

/// `/api/v2/token/get`, by any method.
pub async fn exchange(
    State(simulator): State<Arc<Simulator>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
) -> Response {
    if request.method() != Method::GET {
        return elsewhere(State(simulator), ConnectInfo(wire), request).await;
    }
    take(simulator, wire, Endpoint::Exchange, request).await
}

/// `/authorization/202309/shops`, by `GET` alone.
pub async fn shops(
    State(simulator): State<Arc<Simulator>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
) -> Response {
    if request.method() != Method::GET {
        return elsewhere(State(simulator), ConnectInfo(wire), request).await;
    }
    take(simulator, wire, Endpoint::Shops, request).await
}

async fn take(simulator: Arc<Simulator>, wire: Wire, endpoint: Endpoint, request: Request) -> Response {
    let incoming = read(endpoint, request).await;
    // On its own task: a client that hangs up does not stop a server in the middle of a refresh,
    // here as there.
    let task = tokio::spawn(serve(simulator, wire, incoming));
    match task.await {
        Ok(response) => response,
        // The panic has been printed; the test must not go on as if nothing had happened.
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Whatever the platform does not serve: `404 page not found`, and 405 for a wrong method.
pub async fn elsewhere(
    State(simulator): State<Arc<Simulator>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
) -> Response {
    let known_path = [super::REFRESH_PATH, super::EXCHANGE_PATH, super::SHOPS_PATH].contains(&request.uri().path());
    let answer = if known_path {
        Answer::plain(405, "405 method not allowed\n")
    } else {
        Answer::plain(404, "404 page not found\n")
    };
    let entry = log_entry(&request, None);
    let number = simulator.update(|world| {
        let now = world.now();
        let number = world.ledger.arrived(LogEntry { at: now, ..entry });
        world.ledger.decided(number, Outcome::FormNotServed);
        let status = Some(answer.http_status);
        world.ledger.answering(number, now, status, None);
        number
    });
    answer.into_response(wire, receipt(&simulator, number, None))
}

/// From the first look at a request to the response.
async fn serve(simulator: Arc<Simulator>, wire: Wire, incoming: Incoming) -> Response {
    let arrival = simulator.update(|world| world.arrive(&incoming));
    let reply = reply(&simulator, &wire, &incoming, &arrival).await;
    let receipt = receipt(&simulator, arrival.number, arrival.presentation);
    match reply {
        Reply::Answer(answer) => {
            simulator.update(|world| world.answering(&arrival, Some(&answer)));
            answer.into_response(wire, receipt)
        }
        Reply::Silence { reset } => {
            simulator.update(|world| world.answering(&arrival, None));
            receipt.settle(false);
            wire.cut_now(reset);
            // Never written: the connection refuses its first byte.
            Response::new(Body::empty())
        }
    }
}

async fn reply(simulator: &Arc<Simulator>, wire: &Wire, incoming: &Incoming, arrival: &Arrival) -> Reply {
    let decide = |outcome| simulator.update(|world| world.decided(arrival, outcome));
    match arrival.gate {
        Gate::Open => {}
        Gate::NotServed => {
            decide(Outcome::FormNotServed);
            return Reply::Answer(Answer::plain(404, "404 page not found\n"));
        }
        Gate::Limited { limit, seconds } => {
            decide(Outcome::RateLimited);
            let answer = match limit.answer {
                RateLimitAnswer::Envelope => {
                    Answer::error(errors::TOO_MANY_REQUESTS, errors::message(errors::TOO_MANY_REQUESTS))
                }
                RateLimitAnswer::Http429 => Answer::too_many_requests(),
            };
            let now = simulator.read(World::now);
            return Reply::Answer(match limit.retry_after {
                Some(style) => answer.with_retry_after(seconds, style, now),
                None => answer,
            });
        }
    }

    let plan = &arrival.plan;
    match wait(simulator, wire, incoming, arrival, plan.before.as_ref()).await {
        Waited::GoOn => {}
        Waited::Close => {
            decide(Outcome::Dropped);
            return Reply::Silence { reset: false };
        }
        Waited::ClientLeft => {
            decide(Outcome::Hung);
            return Reply::Silence { reset: false };
        }
    }

    let (honest, old) = match &plan.answer {
        Some(Action::Drop { point: DropPoint::BeforeProcessing, reset }) => {
            decide(Outcome::Dropped);
            return Reply::Silence { reset: *reset };
        }
        // Nothing of these answers depends on what is presented.
        Some(Action::Error { rotate: false, .. } | Action::Raw { rotate: false, .. }) => {
            decide(Outcome::Faulted);
            (Value::Null, None)
        }
        action => {
            let rotate = action.as_ref().is_none_or(Action::processes);
            match simulator.update(|world| world.process(arrival, incoming, rotate)) {
                Verdict::Served { data, old } => (answer::success(&data), Some(old)),
                Verdict::Refused { code, message } => (answer::error(code, &message), None),
            }
        }
    };

    match wait(simulator, wire, incoming, arrival, plan.after.as_ref()).await {
        Waited::GoOn => {}
        Waited::Close | Waited::ClientLeft => return Reply::Silence { reset: false },
    }
    let now = simulator.read(World::now);
    let pair = answer::tokens_in(&honest);
    let answer = match &plan.answer {
        Some(Action::Drop { point: DropPoint::AfterRotation, reset }) => return Reply::Silence { reset: *reset },
        Some(action @ Action::Drop { point: DropPoint::HalfAnswer, .. }) => {
            answer::bend(action, honest, old, now).cut_at_half()
        }
        Some(action) => answer::bend(action, honest, old, now),
        None => Answer::envelope(200, &honest),
    };
    Reply::Answer(answer.checked_for(&pair))
}

async fn wait(
    simulator: &Arc<Simulator>,
    wire: &Wire,
    incoming: &Incoming,
    arrival: &Arrival,
    action: Option<&Action>,
) -> Waited {
    match action {
        Some(Action::Delay { ms, .. }) => {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            Waited::GoOn
        }
        Some(Action::Hang { .. }) => {
            wire.gone().await;
            Waited::ClientLeft
        }
        Some(Action::Hold { point }) => hold(simulator, wire, incoming, arrival, *point).await,
        _ => Waited::GoOn,
    }
}

async fn hold(simulator: &Arc<Simulator>, wire: &Wire, incoming: &Incoming, arrival: &Arrival, point: Point) -> Waited {
    let (release, released) = oneshot::channel();
    simulator.update(|world| {
        let shop = arrival.shop.map(|index| world.shop_id(index));
        world.hold(Held {
            point,
            request: arrival.number,
            shop,
            app_key: incoming.entry.app_key.clone(),
            refresh_token: incoming.refresh_token.clone(),
            form: incoming.form,
            since: world.now(),
            wire: wire.clone(),
            release,
        })
    });
    let mut released = released;
    let order = tokio::select! {
        order = &mut released => order,
        () = wire.gone() => {
            // Whoever waits for the client to be gone must look again; the request stays held.
            simulator.update(|_| ());
            released.await
        }
    };
    match order {
        Ok(Release::Continue) => Waited::GoOn,
        // An error means that the whole simulator is going down.
        Ok(Release::Drop) | Err(_) => Waited::Close,
    }
}

/// Parses without judging: a request that makes no sense is still one that was sent.
async fn read(endpoint: Endpoint, request: Request) -> Incoming {
    let form = if request.method() == Method::POST { Form::Json } else { Form::Query };
    let mut incoming = Incoming {
        entry: log_entry(&request, Some(form)),
        endpoint,
        form,
        app_secret: None,
        refresh_token: None,
        auth_code: None,
        grant_type: None,
        signed: SignedCall { access_token: header_text(request.headers(), &ACCESS_TOKEN), ..SignedCall::default() },
        unreadable: None,
    };
    let mut parameters = match form {
        Form::Query => Params::parse(request.uri().query().unwrap_or_default()).map(Parameters::Query),
        Form::Json => read_json(request).await.map(Parameters::Json),
    };
    match &mut parameters {
        Err(why) => incoming.unreadable = Some(std::mem::take(why)),
        Ok(parameters) => {
            if let (Endpoint::Shops, Parameters::Query(query)) = (endpoint, &*parameters) {
                incoming.signed.query.clone_from(query.rest());
            }
            incoming.entry.app_key = parameters.take("app_key");
            incoming.app_secret = parameters.take("app_secret");
            match endpoint {
                Endpoint::Refresh => incoming.refresh_token = parameters.take("refresh_token"),
                Endpoint::Exchange => incoming.auth_code = parameters.take("auth_code"),
                Endpoint::Shops => {}
            }
            incoming.grant_type = parameters.take("grant_type");
        }
    }
    incoming
}

enum Parameters {
    Json(Map<String, Value>),
    Query(Params),
}

impl Parameters {
    fn take(&mut self, name: &str) -> Option<String> {
        match self {
            Self::Json(fields) => match fields.remove(name) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            },
            Self::Query(params) => params.text(name),
        }
    }
}

async fn read_json(request: Request) -> Result<Map<String, Value>, String> {
    let is_json =
        header_text(request.headers(), &header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
    let body = to_bytes(request.into_body(), REQUEST_LIMIT)
        .await
        .map_err(|_| format!("the body is broken off or longer than {REQUEST_LIMIT} bytes"))?;
    if !is_json {
        return Err("Content-Type must be application/json".into());
    }
    serde_json::from_slice(&body).map_err(|_| "the body is not a JSON object".into())
}

fn log_entry(request: &Request, form: Option<Form>) -> LogEntry {
    let headers = request.headers();
    let names: Vec<&str> = headers.keys().map(header::HeaderName::as_str).collect();
    LogEntry {
        number: 0,
        at: Millis(0),
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        form,
        app_key: None,
        shop: None,
        header_names: names.join(","),
        user_agent: header_text(headers, &header::USER_AGENT),
        content_type: header_text(headers, &header::CONTENT_TYPE),
        faults: Vec::new(),
        outcome: Outcome::Pending,
        http_status: None,
        code: None,
        duration_ms: None,
        answer: AnswerState::Pending,
    }
}

fn header_text(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Tells the witness what became of an answer.
struct Notice {
    simulator: Arc<Simulator>,
    number: u64,
    presentation: Option<PresentationId>,
}

impl Receipt for Notice {
    fn settle(self: Box<Self>, delivered: bool) {
        self.simulator.update(|world| world.settled(self.number, self.presentation, delivered));
    }
}

fn receipt(simulator: &Arc<Simulator>, number: u64, presentation: Option<PresentationId>) -> Box<dyn Receipt> {
    Box::new(Notice { simulator: simulator.clone(), number, presentation })
}
