//! A reverse proxy that a test can see through, hold, and cut.
//!
//! It stands between the operator and the API server, or between the operator
//! and the simulator of TikTok Shop, and speaks plain HTTP/1.1 to the operator:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use tiktok_shop_testkit::{proxy::Proxy, steps};
//! # async fn example(url: &str, ca: &str) {
//! let proxy = Proxy::start(url, Some(ca));
//! let hold = proxy.on("persist", steps::persist("shops", "shop-1-tokens")).once().hold();
//! // … start the operator with a kubeconfig for proxy.url() …
//! hold.wait_held(Duration::from_secs(10)).await;
//! // … here TikTok has answered and nothing is stored yet: SIGKILL the operator …
//! hold.release();
//! # }
//! ```
//!
//! It runs in a thread of its own, so a test that blocks does not block it.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

use crate::{poll, ports::free_port, process::lock};

/// How long a change of the proxy's own state may take: no server is asked.
const AT_ONCE: Duration = Duration::from_secs(10);

/// What belongs to one connection alone, so it is not passed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::TE, header::TRAILER, header::UPGRADE, header::HOST];

/// A test of a request: any closure over it, or a function of [`crate::steps`].
pub trait Predicate: Fn(&Seen) -> bool + Send + Sync + 'static {}
impl<F: Fn(&Seen) -> bool + Send + Sync + 'static> Predicate for F {}

/// A request, as far as it has come.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its place among all requests of this proxy, from 1.
    pub seq: u64,
    /// Which connection it came on.
    pub connection: u64,
    /// `GET`, `PATCH`, …
    pub method: String,
    /// The path alone, percent-encoded as it came.
    pub path: String,
    /// What follows the `?`, as it came; empty where there is none.
    pub query: String,
    /// The body as text; empty for GET.
    pub body: String,
    /// The client's own name.
    pub user_agent: String,
    /// What form the body has.
    pub content_type: String,
    /// What form the answer shall have.
    pub accept: String,
    /// When it had been read.
    pub received: Instant,
    /// When it was sent on.
    pub forwarded: Option<Instant>,
    /// When the answer's head had come (or was made up by a rule).
    pub answered: Option<Instant>,
    /// The answer's status.
    pub status: Option<u16>,
    /// Why nothing came from upstream.
    pub upstream_error: Option<String>,
    /// Whether the last byte of the answer was handed to the client's socket.
    pub delivered: bool,
    /// When that was.
    pub delivered_at: Option<Instant>,
    /// Whether the client went away before it had the answer's head.
    pub client_gone: bool,
    /// The rule that took it, if one did.
    pub rule: Option<String>,
}

impl Seen {
    /// The body as JSON; `null` where it is not.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The first value of a parameter of the query, decoded.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<String> {
        let url = reqwest::Url::parse(&format!("http://localhost/?{}", self.query)).ok()?;
        let mut pairs = url.query_pairs();
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// Whether its answer goes on without end.
    #[must_use]
    pub fn is_watch(&self) -> bool {
        self.method == "GET" && matches!(self.param("watch").as_deref(), Some("true" | "1"))
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {} {}", self.seq, self.method, self.path)?;
        if !self.query.is_empty() {
            write!(f, "?{}", self.query)?;
        }
        match (&self.status, &self.upstream_error) {
            (Some(status), _) => write!(f, " -> {status}")?,
            (None, Some(error)) => write!(f, " -> {error}")?,
            (None, None) => write!(f, " -> no answer yet")?,
        }
        if let Some(rule) = &self.rule {
            write!(f, " [{rule}]")?;
        }
        if self.client_gone {
            write!(f, " (client gone)")?;
        }
        Ok(())
    }
}

/// What a rule does to a request it takes.
enum Action {
    Hold(Arc<Gate>),
    HoldAfter(Arc<Gate>),
    CutBefore,
    CutAfter,
    CutMidAnswer,
    Respond(MadeUp),
    Delay(Duration),
}

#[derive(Clone)]
struct MadeUp {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

struct Rule {
    name: String,
    predicate: Box<dyn Predicate>,
    /// How many more it takes; none is without end.
    left: Mutex<Option<usize>>,
    removed: AtomicBool,
    hits: AtomicUsize,
    action: Action,
}

impl Rule {
    fn takes(&self, seen: &Seen) -> bool {
        if self.removed.load(Ordering::SeqCst) || !(self.predicate)(seen) {
            return false;
        }
        match &mut *lock(&self.left) {
            Some(0) => return false,
            Some(left) => *left -= 1,
            None => {}
        }
        self.hits.fetch_add(1, Ordering::SeqCst);
        true
    }
}

/// A rule in the making: see [`Proxy::on`].
#[must_use = "a rule starts with its action, such as `.hold()` or `.cut_before()`"]
pub struct RuleBuilder<'a> {
    proxy: &'a Proxy,
    name: String,
    predicate: Box<dyn Predicate>,
    times: Option<usize>,
    forward_orphans: bool,
}

#[allow(clippy::must_use_candidate, reason = "a rule is in force whether or not its handle is kept")]
impl RuleBuilder<'_> {
    /// Takes one request; the next one passes.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Takes so many requests; later ones pass. Without it, the rule takes all.
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// A held request whose client goes away is still sent on when released, as
    /// if it had been in the server's socket; without this it is dropped.
    pub fn forward_orphans(mut self) -> Self {
        self.forward_orphans = true;
        self
    }

    /// Stops requests before they are sent on, until released.
    pub fn hold(self) -> Hold {
        self.held(Action::Hold)
    }

    /// Sends requests on (the server applies them) and keeps the answers until
    /// released. Not for watches: their answers do not end.
    pub fn hold_after(self) -> Hold {
        self.held(Action::HoldAfter)
    }

    /// Closes the connection; the server never sees the request.
    pub fn cut_before(self) -> RuleHandle {
        self.add(Action::CutBefore)
    }

    /// Sends the request on, waits for the answer, closes the connection
    /// without a byte of it.
    pub fn cut_after(self) -> RuleHandle {
        self.add(Action::CutAfter)
    }

    /// Closes the connection after the head and half of the answer's body.
    pub fn cut_mid_answer(self) -> RuleHandle {
        self.add(Action::CutMidAnswer)
    }

    /// Answers without asking the server.
    pub fn respond(self, status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> RuleHandle {
        let headers = headers.iter().map(|(name, value)| {
            let name = HeaderName::try_from(*name).expect("the test gives a header's name");
            (name, value.parse().expect("the test gives a header's value"))
        });
        self.add(Action::Respond(MadeUp {
            status: StatusCode::from_u16(status).expect("the test gives an HTTP status"),
            headers: headers.collect(),
            body: body.into(),
        }))
    }

    /// Answers as the API server would: a `Status` with this code and reason
    /// (`Forbidden`, `Conflict`, `TooManyRequests`, `InternalError`, …).
    pub fn respond_status(self, code: u16, reason: &str, message: &str) -> RuleHandle {
        let body = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        self.respond(code, &[("content-type", "application/json")], body.to_string())
    }

    /// Sends requests on after this time.
    pub fn delay(self, time: Duration) -> RuleHandle {
        self.add(Action::Delay(time))
    }

    fn held(self, action: impl FnOnce(Arc<Gate>) -> Action) -> Hold {
        let gate =
            Arc::new(Gate { forward_orphans: self.forward_orphans, state: watch::channel(GateState::default()).0 });
        let shared = Arc::clone(&self.proxy.shared);
        let rule = self.add(action(Arc::clone(&gate)));
        Hold { gate, rule, shared }
    }

    fn add(self, action: Action) -> RuleHandle {
        let rule = Arc::new(Rule {
            name: self.name,
            predicate: self.predicate,
            left: Mutex::new(self.times),
            removed: AtomicBool::new(false),
            hits: AtomicUsize::new(0),
            action,
        });
        lock(&self.proxy.shared.rules).push(Arc::clone(&rule));
        RuleHandle { rule }
    }
}

/// A rule that is in force until removed; dropping the handle changes nothing.
pub struct RuleHandle {
    rule: Arc<Rule>,
}

impl RuleHandle {
    /// How many requests it has taken.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.rule.hits.load(Ordering::SeqCst)
    }

    /// It takes no more.
    pub fn remove(&self) {
        self.rule.removed.store(true, Ordering::SeqCst);
    }
}

impl fmt::Debug for RuleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {:?}, {} hits", self.rule.name, self.hits())
    }
}

struct Gate {
    forward_orphans: bool,
    state: watch::Sender<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    held: VecDeque<u64>,
    /// Held requests that were told what becomes of them.
    told: HashMap<u64, Verdict>,
    /// Set once: all that are and will be held.
    all: Option<Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    Cut,
}

impl Gate {
    /// Holds a request until there is a verdict. One whose client goes away is
    /// cut, or waits for its verdict where orphans are sent on.
    async fn pass(&self, seq: u64, gone: &mut watch::Receiver<bool>) -> Verdict {
        self.state.send_modify(|state| state.held.push_back(seq));
        let mut state = self.state.subscribe();
        let verdict = async {
            let decided = state.wait_for(|state| state.all.is_some() || state.told.contains_key(&seq));
            let state = decided.await.expect("the sender is in self");
            state.told.get(&seq).copied().or(state.all).expect("one of both was seen")
        };
        let verdict = if self.forward_orphans {
            verdict.await
        } else {
            tokio::select! {
                verdict = verdict => verdict,
                _ = gone.wait_for(|gone| *gone) => Verdict::Cut,
            }
        };
        self.state.send_modify(|state| {
            state.held.retain(|held| *held != seq);
            state.told.remove(&seq);
        });
        verdict
    }
}

/// Requests that stop at a rule. Dropping it releases them.
#[must_use = "dropping it releases what it holds"]
pub struct Hold {
    gate: Arc<Gate>,
    rule: RuleHandle,
    shared: Arc<Shared>,
}

impl Hold {
    /// Waits until a request is held and returns it (the first, of several);
    /// panics with what came instead.
    pub async fn wait_held(&self, timeout: Duration) -> Seen {
        self.wait_held_count(1, timeout).await.swap_remove(0)
    }

    /// Waits until a request is held, where one may not come.
    pub async fn try_held(&self, timeout: Duration) -> Option<Seen> {
        let mut state = self.gate.state.subscribe();
        let held = state.wait_for(|state| !state.held.is_empty());
        let state = tokio::time::timeout(timeout, held).await.ok()?;
        let seq = *state.expect("the sender is in self").held.front()?;
        self.shared.find(seq)
    }

    /// Waits until so many requests are held at the same time.
    pub async fn wait_held_count(&self, count: usize, timeout: Duration) -> Vec<Seen> {
        let mut state = self.gate.state.subscribe();
        let enough = state.wait_for(|state| state.held.len() >= count);
        let Ok(state) = tokio::time::timeout(timeout, enough).await else {
            panic!(
                "{:?} held {} requests in {timeout:?}, not {count}; {}",
                self.rule.rule.name,
                self.held(),
                self.shared.describe(),
            );
        };
        let held: Vec<u64> = state.expect("the sender is in self").held.iter().copied().collect();
        let find = |seq| self.shared.find(seq).expect("the log was not cleared while a request was held");
        held.into_iter().map(find).collect()
    }

    /// How many are held now. One whose client has gone is not, unless orphans
    /// are sent on.
    #[must_use]
    pub fn held(&self) -> usize {
        self.gate.state.borrow().held.len()
    }

    /// How many requests it has ever held.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.rule.hits()
    }

    /// Lets all go on, and holds no more.
    pub fn release(&self) {
        self.end(Verdict::Pass);
    }

    /// Closes the connections of all, and holds no more.
    pub fn cut(&self) {
        self.end(Verdict::Cut);
    }

    /// Lets the first one go on that is held; false where none is.
    #[allow(clippy::must_use_candidate, reason = "most callers have waited for it")]
    pub fn release_one(&self) -> bool {
        self.gate.state.send_if_modified(|state| {
            let first = state.held.iter().find(|seq| !state.told.contains_key(seq)).copied();
            first.is_some_and(|seq| state.told.insert(seq, Verdict::Pass).is_none())
        })
    }

    fn end(&self, verdict: Verdict) {
        self.rule.remove();
        self.gate.state.send_modify(|state| {
            state.all.get_or_insert(verdict);
        });
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} held", self.rule, self.held())
    }
}

/// The proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    mode: watch::Sender<Mode>,
    listening: watch::Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Serve,
    Refuse,
    End,
}

struct Shared {
    upstream: String,
    http: reqwest::Client,
    rules: Mutex<Vec<Arc<Rule>>>,
    log: Mutex<Vec<Seen>>,
    changed: watch::Sender<()>,
    last_seq: AtomicU64,
    connections: Mutex<HashMap<u64, (AbortHandle, Arc<Wire>)>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy to {}", self.upstream)
    }
}

impl Proxy {
    /// Starts one before `upstream` (`https://127.0.0.1:6443`, without a path),
    /// which is trusted by `ca_pem` where it speaks HTTPS.
    #[must_use]
    pub fn start(upstream: &str, ca_pem: Option<&str>) -> Self {
        let listener = bind_fresh();
        let address = listener.local_addr().expect("a bound listener has an address");
        let mut http = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true);
        if let Some(pem) = ca_pem {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
            http = http.tls_certs_only(certificates.expect("the CA is PEM"));
        }
        let shared = Arc::new(Shared {
            upstream: upstream.trim_end_matches('/').to_owned(),
            http: http.build().expect("an HTTP client can be made"),
            rules: Mutex::default(),
            log: Mutex::default(),
            changed: watch::channel(()).0,
            last_seq: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let (mode, mode_seen) = watch::channel(Mode::Serve);
        let (listening_now, listening) = watch::channel(true);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be made");
            runtime.block_on(accept(for_thread, listener, address, mode_seen, listening_now));
        });
        Self { address, shared, mode, listening, thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT`; the same for its whole life.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Begins a rule for the requests that `predicate` takes. Of several rules
    /// that would take a request, the one added first does.
    pub fn on(&self, name: &str, predicate: impl Predicate) -> RuleBuilder<'_> {
        RuleBuilder {
            proxy: self,
            name: name.to_owned(),
            predicate: Box::new(predicate),
            times: None,
            forward_orphans: false,
        }
    }

    /// Removes every rule; what they hold stays held until released.
    pub fn remove_rules(&self) {
        lock(&self.shared.rules).clear();
    }

    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.log).clone()
    }

    /// How many requests so far the predicate takes.
    #[must_use]
    pub fn count(&self, predicate: impl Fn(&Seen) -> bool) -> usize {
        lock(&self.shared.log).iter().filter(|seen| predicate(seen)).count()
    }

    /// Forgets the requests so far.
    pub fn clear(&self) {
        lock(&self.shared.log).clear();
    }

    /// Waits for a request that the predicate takes, those so far included, and
    /// looks again whenever one comes further: `|r| claim(r) && r.status ==
    /// Some(409)` waits for the answer. Panics with what came instead.
    pub async fn wait_for_request(&self, predicate: impl Fn(&Seen) -> bool, timeout: Duration) -> Seen {
        self.wait_for_requests(1, predicate, timeout).await.swap_remove(0)
    }

    /// [`Proxy::wait_for_request`] where one may not come.
    pub async fn try_request(&self, predicate: impl Fn(&Seen) -> bool, timeout: Duration) -> Option<Seen> {
        self.find_requests(1, predicate, timeout).await?.pop()
    }

    /// Waits for so many requests.
    pub async fn wait_for_requests(
        &self,
        count: usize,
        predicate: impl Fn(&Seen) -> bool,
        timeout: Duration,
    ) -> Vec<Seen> {
        self.find_requests(count, predicate, timeout)
            .await
            .unwrap_or_else(|| panic!("{count} such requests did not come in {timeout:?}; {}", self.shared.describe()))
    }

    async fn find_requests(
        &self,
        count: usize,
        predicate: impl Fn(&Seen) -> bool,
        timeout: Duration,
    ) -> Option<Vec<Seen>> {
        let mut changed = self.shared.changed.subscribe();
        let search = async {
            loop {
                {
                    let log = lock(&self.shared.log);
                    let found: Vec<_> = log.iter().filter(|seen| predicate(seen)).collect();
                    if found.len() >= count {
                        return found.into_iter().cloned().collect();
                    }
                }
                changed.changed().await.expect("the sender is in self");
            }
        };
        tokio::time::timeout(timeout, search).await.ok()
    }

    /// Closes every open connection.
    pub async fn cut_all(&self) {
        self.cut(|_| true).await;
    }

    /// Closes every connection on which a watch goes on.
    pub async fn cut_watches(&self) {
        self.cut(|wire| wire.watching.load(Ordering::SeqCst)).await;
    }

    /// How many watches go on.
    #[must_use]
    pub fn open_watches(&self) -> usize {
        let connections = lock(&self.shared.connections);
        connections.values().filter(|(_, wire)| wire.watching.load(Ordering::SeqCst)).count()
    }

    /// Refuses connections, and closes the open ones. For a server that takes
    /// requests and does not answer, hold them instead.
    pub async fn pause(&self) {
        self.switch(Mode::Refuse).await;
        self.cut_all().await;
    }

    /// Takes connections again, on the same port.
    pub async fn resume(&self) {
        self.switch(Mode::Serve).await;
    }

    async fn switch(&self, mode: Mode) {
        self.mode.send_replace(mode);
        let mut listening = self.listening.clone();
        let done = listening.wait_for(|listening| *listening == (mode == Mode::Serve));
        let done = tokio::time::timeout(AT_ONCE, done).await;
        assert!(matches!(done, Ok(Ok(_))), "the proxy at {} did not become {mode:?}", self.address);
    }

    async fn cut(&self, which: impl Fn(&Wire) -> bool) {
        let mut chosen = Vec::new();
        for (id, (abort, wire)) in &*lock(&self.shared.connections) {
            if which(wire) {
                abort.abort();
                chosen.push(*id);
            }
        }
        let gone = poll::until(AT_ONCE, async || {
            let open = lock(&self.shared.connections);
            (!chosen.iter().any(|id| open.contains_key(id))).then_some(())
        });
        assert!(gone.await.is_some(), "the proxy at {} did not close its connections", self.address);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the proxy at {} panicked: see above", self.address);
        }
    }
}

impl Shared {
    fn find(&self, seq: u64) -> Option<Seen> {
        let log = lock(&self.log);
        log.binary_search_by_key(&seq, |seen| seen.seq).ok().map(|at| log[at].clone())
    }

    /// Notes how far a request has come; one that was cleared stays forgotten.
    fn note(&self, seq: u64, change: impl FnOnce(&mut Seen)) {
        let mut log = lock(&self.log);
        if let Ok(at) = log.binary_search_by_key(&seq, |seen| seen.seq) {
            change(&mut log[at]);
        }
        drop(log);
        self.changed.send_replace(());
    }

    fn describe(&self) -> String {
        let log = lock(&self.log);
        let from = log.len().saturating_sub(40);
        let mut text = format!("the proxy to {} has seen {} requests", self.upstream, log.len());
        for seen in &log[from..] {
            text.push_str("\n  ");
            text.push_str(&seen.to_string());
        }
        text
    }
}

fn bind_fresh() -> std::net::TcpListener {
    for _ in 0..50 {
        if let Ok(listener) = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())) {
            listener.set_nonblocking(true).expect("a socket can be made non-blocking");
            return listener;
        }
    }
    panic!("no port on 127.0.0.1 could be bound");
}

async fn accept(
    shared: Arc<Shared>,
    first: std::net::TcpListener,
    address: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    listening: watch::Sender<bool>,
) {
    let mut listener = Some(TcpListener::from_std(first).expect("this thread has a reactor"));
    let mut last_id = 0;
    loop {
        let wanted = *mode.borrow_and_update();
        match wanted {
            Mode::End => return,
            Mode::Refuse => listener = None,
            Mode::Serve if listener.is_none() => {
                let bound = poll::until(AT_ONCE, async || TcpListener::bind(address).await.ok()).await;
                listener = Some(bound.unwrap_or_else(|| panic!("somebody took {address} while it was paused")));
            }
            Mode::Serve => {}
        }
        listening.send_replace(listener.is_some());
        let next = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sender is gone: so is the proxy.
            changed = mode.changed() => if changed.is_err() { return },
            accepted = next => if let Ok((stream, _)) = accepted {
                last_id += 1;
                connect(&shared, last_id, stream);
            },
        }
    }
}

/// Serves one connection in a task of its own.
fn connect(shared: &Arc<Shared>, id: u64, stream: TcpStream) {
    // Small writes of a watch must not wait for each other; harmless if refused.
    let _ = stream.set_nodelay(true);
    let wire = Arc::new(Wire {
        shared: Arc::clone(shared),
        delivering: Mutex::new(None),
        flushed: watch::channel(()).0,
        watching: AtomicBool::new(false),
    });
    let registered = Registered { shared: Arc::clone(shared), id };
    let for_task = Arc::clone(&wire);
    let mut connections = lock(&shared.connections);
    let task = tokio::spawn(async move {
        let _registered = registered;
        let service = service_fn(|request| serve(Arc::clone(&for_task), id, request));
        let io = Io { stream: TokioIo::new(stream), wire: Arc::clone(&for_task) };
        // It ends with an error each time a rule cuts or a client leaves.
        let _ = http1::Builder::new().serve_connection(io, service).await;
    });
    connections.insert(id, (task.abort_handle(), wire));
}

/// A connection's entry, removed however its task ends.
struct Registered {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.shared.connections).remove(&self.id);
    }
}

/// What a connection's socket and the answers on it tell each other.
struct Wire {
    shared: Arc<Shared>,
    /// The request whose answer is complete but for a flush.
    delivering: Mutex<Option<u64>>,
    flushed: watch::Sender<()>,
    watching: AtomicBool,
}

/// To hyper, an error of the service or the body: it closes the connection.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut by a rule, or nothing came from upstream")
    }
}

impl std::error::Error for Cut {}

type AnswerBody = UnsyncBoxBody<Bytes, Cut>;

/// Tells the request's task when hyper drops it, which it does as soon as the
/// client is gone.
struct Presence {
    gone: watch::Sender<bool>,
    wire: Arc<Wire>,
    seq: u64,
    answered: bool,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if !self.answered {
            self.wire.shared.note(self.seq, |seen| seen.client_gone = true);
            self.gone.send_replace(true);
        }
    }
}

async fn serve(wire: Arc<Wire>, connection: u64, request: Request<Incoming>) -> Result<Response<Tracked>, Cut> {
    let shared = &wire.shared;
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let text_of = |name| parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut seen = Seen {
        seq: 0,
        connection,
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
        user_agent: text_of(header::USER_AGENT).unwrap_or_default(),
        content_type: text_of(header::CONTENT_TYPE).unwrap_or_default(),
        accept: text_of(header::ACCEPT).unwrap_or_default(),
        received: Instant::now(),
        forwarded: None,
        answered: None,
        status: None,
        upstream_error: None,
        delivered: false,
        delivered_at: None,
        client_gone: false,
        rule: None,
    };
    seen.seq = shared.last_seq.fetch_add(1, Ordering::SeqCst) + 1;
    let rules = lock(&shared.rules).clone();
    let rule = rules.into_iter().find(|rule| rule.takes(&seen));
    seen.rule = rule.as_ref().map(|rule| rule.name.clone());
    let (seq, is_watch, is_head) = (seen.seq, seen.is_watch(), parts.method == Method::HEAD);
    lock(&shared.log).push(seen);
    shared.changed.send_replace(());

    let (gone, gone_seen) = watch::channel(false);
    let mut presence = Presence { gone, wire: Arc::clone(&wire), seq, answered: false };
    // A task of its own: what is on its way to the server arrives there also
    // when the client goes away, as it would from a socket's buffer.
    let exchange = Exchange { wire: Arc::clone(&wire), seq, parts, body };
    let answer = tokio::spawn(exchange.run(rule, gone_seen)).await;
    presence.answered = true;
    let answer = match answer {
        Ok(answer) => answer?,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    wire.watching.store(is_watch, Ordering::SeqCst);
    // hyper stops asking for more once the length it announced has come.
    let announced = answer.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    Ok(answer.map(|body| {
        let complete = is_head || body.is_end_stream() || announced == Some(0);
        Tracked { wire, seq, announced, complete, sent: 0, body }
    }))
}

/// One request on its way.
struct Exchange {
    wire: Arc<Wire>,
    seq: u64,
    parts: Parts,
    body: Bytes,
}

impl Exchange {
    async fn run(self, rule: Option<Arc<Rule>>, mut gone: watch::Receiver<bool>) -> Result<Response<AnswerBody>, Cut> {
        let Some(rule) = rule else {
            return self.forward(&mut gone).await;
        };
        match &rule.action {
            Action::Hold(gate) => match gate.pass(self.seq, &mut gone).await {
                // The verdict is about this request, come what may of its client.
                Verdict::Pass => self.forward(&mut gone).await,
                Verdict::Cut => Err(Cut),
            },
            Action::HoldAfter(gate) => {
                let answer = self.forward_whole(&mut gone).await?;
                match gate.pass(self.seq, &mut gone).await {
                    Verdict::Pass => Ok(answer.map(whole)),
                    Verdict::Cut => Err(Cut),
                }
            }
            Action::CutBefore => Err(Cut),
            Action::CutAfter => {
                self.forward_whole(&mut gone).await?;
                Err(Cut)
            }
            Action::CutMidAnswer => {
                let flushed = self.wire.flushed.subscribe();
                let mut answer = self.forward_whole(&mut gone).await?;
                let length = answer.body().len();
                answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
                Ok(answer.map(|body| half(&body, flushed)))
            }
            Action::Respond(made_up) => {
                let mut answer = Response::new(whole(made_up.body.clone()));
                *answer.status_mut() = made_up.status;
                *answer.headers_mut() = made_up.headers.clone();
                self.note_answer(made_up.status);
                Ok(answer)
            }
            Action::Delay(time) => {
                let left = tokio::time::timeout(*time, gone.wait_for(|gone| *gone)).await.is_ok();
                if left { Err(Cut) } else { self.forward(&mut gone).await }
            }
        }
    }

    fn note_answer(&self, status: StatusCode) {
        self.wire.shared.note(self.seq, |seen| {
            seen.answered = Some(Instant::now());
            seen.status = Some(status.as_u16());
        });
    }

    /// Sends the request on; the answer's body is yet to come.
    async fn ask(&self, gone: &mut watch::Receiver<bool>) -> Result<reqwest::Response, Cut> {
        let shared = &self.wire.shared;
        let target = self.parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let request = shared
            .http
            .request(self.parts.method.clone(), format!("{}{target}", shared.upstream))
            .headers(passed_on(&self.parts.headers))
            .body(self.body.clone());
        shared.note(self.seq, |seen| seen.forwarded = Some(Instant::now()));
        let answer = if self.parts.method == Method::GET {
            // A read that nobody waits for any more must not wait for ever either.
            tokio::select! {
                answer = request.send() => answer,
                _ = gone.wait_for(|gone| *gone) => return Err(Cut),
            }
        } else {
            request.send().await
        };
        match answer {
            Ok(answer) => {
                self.note_answer(answer.status());
                Ok(answer)
            }
            Err(error) => {
                shared.note(self.seq, |seen| seen.upstream_error = Some(chain(&error)));
                Err(Cut)
            }
        }
    }

    async fn forward(&self, gone: &mut watch::Receiver<bool>) -> Result<Response<AnswerBody>, Cut> {
        let answer = self.ask(gone).await?;
        let head = head_of(&answer);
        let frames = answer.bytes_stream().map(|chunk| chunk.map(Frame::data).map_err(|_| Cut));
        Ok(head.map(|()| StreamBody::new(frames).boxed_unsync()))
    }

    async fn forward_whole(&self, gone: &mut watch::Receiver<bool>) -> Result<Response<Bytes>, Cut> {
        let answer = self.ask(gone).await?;
        let head = head_of(&answer);
        let body = answer.bytes().await.map_err(|_| Cut)?;
        Ok(head.map(|()| body))
    }
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers
}

fn head_of(answer: &reqwest::Response) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = answer.status();
    *head.headers_mut() = passed_on(answer.headers());
    head
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn whole(body: Bytes) -> AnswerBody {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// The first half of a body; then, once the socket has it, the end of the connection.
fn half(body: &Bytes, flushed: watch::Receiver<()>) -> AnswerBody {
    let first = body.slice(..body.len() / 2);
    let frames = stream::unfold((Some(first), flushed), |(first, mut flushed)| async move {
        if let Some(first) = first {
            flushed.mark_unchanged();
            return Some((Ok(Frame::data(first)), (None, flushed)));
        }
        // It fails only where the connection is gone already.
        let _ = flushed.changed().await;
        Some((Err(Cut), (None, flushed)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// An answer's body that knows when its last byte has left.
struct Tracked {
    wire: Arc<Wire>,
    seq: u64,
    announced: Option<u64>,
    complete: bool,
    sent: u64,
    body: AnswerBody,
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.complete = true,
            Some(Ok(frame)) => {
                self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.complete = self.body.is_end_stream() || self.announced == Some(self.sent);
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.wire.watching.store(false, Ordering::SeqCst);
        if self.complete {
            *lock(&self.wire.delivering) = Some(self.seq);
        }
    }
}

/// A connection's socket; notes when what was written has been flushed.
struct Io {
    stream: TokioIo<TcpStream>,
    wire: Arc<Wire>,
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.wire.flushed.send_replace(());
        let delivered = lock(&self.wire.delivering).take();
        if let Some(seq) = delivered {
            self.wire.shared.note(seq, |seen| {
                seen.delivered = true;
                seen.delivered_at = Some(Instant::now());
            });
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
