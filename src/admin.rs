//! The HTTP server on `--listen`, for kubelet and Prometheus: `/livez`, `/readyz`, `/metrics`.
//!
//! It has no authentication and is reached by whoever reaches the pod, so everything it holds has a bound:
//! connections, the bytes of a request, the time a connection may wait, the answers under way. It has a thread of
//! its own, so that it can tell of a work loop that blocks its thread, and is not late where that is only busy.
//!
//! `/livez` says one thing: the work loop goes round. Neither TikTok nor the API server has a say in it,
//! because killing the pod would repair neither and might lose an answer that is held only in memory.
//!
//! Every refusal is one line of plain text.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::Sleep;

use crate::clock::Clock;
use crate::metrics::{self, Fleet, Metrics};

/// Without a beat for this long the work loop counts as stuck.
const STUCK_AFTER: Duration = Duration::from_mins(1);

/// How the server bounds what others can make it hold.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Connections at the same time; others wait in the kernel's queue.
    connections: usize,
    /// Scrapes whose text is still being sent. One may be several megabytes.
    scrapes: usize,
    /// How long a connection may go without a byte of an answer: for sending a request, for taking the answer,
    /// and between two requests.
    idle: Duration,
    /// After this a connection takes no further request, however busy.
    life: Duration,
    /// Bytes of one request, its body included. None of ours has a body.
    request_bytes: usize,
    /// How long answers under way may take once the server is told to stop.
    drain: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: 128,
    scrapes: 4,
    idle: Duration::from_secs(10),
    life: Duration::from_mins(2),
    request_bytes: 16 * 1024,
    drain: Duration::from_secs(2),
};

/// What the work loop does to be seen alive. Clones are handles to the same heart.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Heart>);

#[derive(Debug)]
struct Heart {
    start: Instant,
    /// Milliseconds from `start` to the last beat.
    last_beat: AtomicU64,
    held: AtomicUsize,
}

impl Heartbeat {
    /// A heart that has just beaten.
    #[must_use]
    pub fn new() -> Self {
        Self::started(Instant::now())
    }

    fn started(start: Instant) -> Self {
        Self(Arc::new(Heart { start, last_beat: AtomicU64::new(0), held: AtomicUsize::new(0) }))
    }

    /// The work loop went round. To be called at least every 30 seconds, also while the operator stops.
    pub fn beat(&self) {
        self.0.last_beat.store(self.since_start(), Ordering::Relaxed);
    }

    /// One more answer of TikTok is held that no journal and no Secret has. While there is one, `/livez` is
    /// well whatever the loop does: a restart would lose it.
    pub fn hold(&self) {
        self.0.held.fetch_add(1, Ordering::Relaxed);
    }

    /// One answer that was held is safe, or was dropped.
    pub fn let_go(&self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many answers are held that no journal and no Secret has.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    fn since_start(&self) -> u64 {
        u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// For how long the loop has been stuck, if it is and nothing is held.
    fn stuck_for(&self) -> Option<Duration> {
        let last = self.0.last_beat.load(Ordering::Relaxed);
        let silent = Duration::from_millis(self.since_start().saturating_sub(last));
        (silent > STUCK_AFTER && self.held() == 0).then_some(silent)
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

/// What must have happened before the operator counts as ready; leading is not part of it. Clones are handles
/// to the same state, which only ever moves towards ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Steps>);

#[derive(Debug, Default)]
struct Steps {
    lists: AtomicBool,
    journal: AtomicBool,
}

impl Readiness {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The first lists of integrations (and Secrets, where they are watched) are in.
    pub fn lists_are_in(&self) {
        self.0.lists.store(true, Ordering::Relaxed);
    }

    /// Every entry that the journal held at the start was tried once, or there is no journal.
    pub fn journal_was_tried(&self) {
        self.0.journal.store(true, Ordering::Relaxed);
    }

    /// What is missing, in words; `None` when ready.
    #[must_use]
    pub fn missing(&self) -> Option<&'static str> {
        match (self.0.lists.load(Ordering::Relaxed), self.0.journal.load(Ordering::Relaxed)) {
            (true, true) => None,
            (false, true) => Some("the first lists from the API server are not in"),
            (true, false) => Some("entries of the journal are still to be tried"),
            (false, false) => {
                Some("the first lists from the API server are not in, and entries of the journal are still to be tried")
            }
        }
    }
}

/// What the server answers from.
#[derive(Clone)]
pub struct Admin {
    /// Beaten by the work loop.
    pub heartbeat: Heartbeat,
    /// Set by what starts up.
    pub readiness: Readiness,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// The integrations, for the scrape.
    pub fleet: Arc<dyn Fleet>,
}

/// The address of `--listen` cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address}; free the port, or set --listen to another address such as 0.0.0.0:8080")]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// An open port that is not served yet: opened early, so that a port in use is told before anything starts.
#[derive(Debug)]
pub struct Port {
    listener: StdListener,
    address: SocketAddr,
}

impl Port {
    /// Opens the port.
    ///
    /// # Errors
    ///
    /// If the address is in use, not this machine's, or not allowed.
    pub fn open(address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = StdListener::bind(address).map_err(failed)?;
        // As tokio wants it.
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address in effect: with port 0, the one that was chosen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Admin {
    /// Serves on a thread of its own until `stop` is ready, then lets answers under way end, for 2 seconds at most.
    ///
    /// # Errors
    ///
    /// If the operating system gives no thread, or no means to wait for sockets.
    pub fn start(self, port: Port, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("admin".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(self.serve_within(BOUNDS, port, stop)) {
                tracing::error!(%error, "failed to serve on --listen");
            }
        })
    }

    async fn serve_within(
        self,
        bounds: Bounds,
        port: Port,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let listener = TcpListener::from_std(port.listener)?;
        let scrapes = Arc::new(Semaphore::new(bounds.scrapes));
        let routes = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(scrape))
            .fallback(|| async { line(StatusCode::NOT_FOUND, "not found: there are /livez, /readyz and /metrics") })
            .with_state(Shared { admin: self, scrapes });
        let listener = Bounded { listener, connections: Arc::new(Semaphore::new(bounds.connections)), bounds };
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let server = axum::serve(listener, routes).with_graceful_shutdown(async move {
            stop.await;
            // The receiver is gone only if nobody waits any more.
            let _ = stopping.send(());
        });
        tokio::select! {
            // Never an error: accepting goes on after one.
            _ = server => {}
            () = async { let _ = stopped.await; tokio::time::sleep(bounds.drain).await } => {}
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Shared {
    admin: Admin,
    scrapes: Arc<Semaphore>,
}

fn line(status: StatusCode, text: impl std::fmt::Display) -> Response {
    (status, format!("{text}\n")).into_response()
}

async fn livez(State(shared): State<Shared>) -> Response {
    match shared.admin.heartbeat.stuck_for() {
        None => line(StatusCode::OK, "ok"),
        Some(silent) => line(
            StatusCode::SERVICE_UNAVAILABLE,
            format_args!("the work loop has been stuck for {} s", silent.as_secs()),
        ),
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    match shared.admin.readiness.missing() {
        None => line(StatusCode::OK, "ok"),
        Some(missing) => line(StatusCode::SERVICE_UNAVAILABLE, format_args!("not ready: {missing}")),
    }
}

async fn scrape(State(shared): State<Shared>) -> Response {
    let Ok(permit) = Arc::clone(&shared.scrapes).try_acquire_owned() else {
        return line(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at the same time");
    };
    let Shared { admin: Admin { metrics, fleet, .. }, .. } = shared;
    // It waits for the agenda, which a work loop that is stuck may not give back: `/livez` must not wait with it.
    let encoded = spawn_blocking(move || metrics.encode(fleet.as_ref(), Clock::now().timestamp())).await;
    let Ok(text) = encoded else {
        return line(StatusCode::SERVICE_UNAVAILABLE, "stopping");
    };
    let text = Bytes::from_owner(Scrape { text, _permit: permit });
    let media = (CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    ([media], Body::from(text)).into_response()
}

/// A scrape's text, which counts as under way until its last byte is handed to the kernel.
struct Scrape {
    text: String,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Scrape {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// Accepts no more connections than it may, each of which is [`Guarded`].
struct Bounded {
    listener: TcpListener,
    connections: Arc<Semaphore>,
    bounds: Bounds,
}

impl axum::serve::Listener for Bounded {
    type Io = Guarded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guarded, SocketAddr) {
        let permit = Arc::clone(&self.connections).acquire_owned().await.expect("the semaphore is never closed");
        // axum's own accept retries after errors such as too many open files.
        let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
        (Guarded::new(stream, self.bounds, permit), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends by itself: axum offers no timeouts, so they are kept where the bytes pass.
struct Guarded {
    stream: TcpStream,
    bounds: Bounds,
    /// Moves on with every byte written.
    patience: Pin<Box<Sleep>>,
    ends: tokio::time::Instant,
    /// Since the last byte written.
    read: usize,
    _permit: OwnedSemaphorePermit,
}

impl Guarded {
    fn new(stream: TcpStream, bounds: Bounds, permit: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            bounds,
            patience: Box::pin(tokio::time::sleep(bounds.idle)),
            ends: tokio::time::Instant::now() + bounds.life,
            read: 0,
            _permit: permit,
        }
    }

    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.read > self.bounds.request_bytes || self.patience.as_mut().poll(context).is_ready()
    }

    fn after_write(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) if bytes > 0 => {
                self.read = 0;
                let until = (tokio::time::Instant::now() + self.bounds.idle).min(self.ends);
                self.patience.as_mut().reset(until);
            }
            Poll::Pending if self.is_over(context) => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            _ => {}
        }
        written
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_over(context) {
            // Nothing read is the end of the stream: the server closes without a word.
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        this.read += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.after_write(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.after_write(context, written)
    }

    /// Or hyper copies each answer, and a scrape's permit would be given back before it is sent.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;
    use crate::metrics::{FleetRow, PerIntegrationMetrics};

    struct Shops(usize);

    impl Fleet for Shops {
        fn for_each(&self, row: &mut dyn FnMut(FleetRow<'_>)) {
            for number in 0..self.0 {
                row(FleetRow {
                    namespace: "shops",
                    name: &format!("shop-{number}"),
                    team: None,
                    ready: "True",
                    reason: "TokenValid",
                    access_expires_at: Some(1_800_000_000),
                    refresh_expires_at: None,
                    overdue: false,
                });
            }
        }
    }

    struct Server {
        address: SocketAddr,
        heartbeat: Heartbeat,
        readiness: Readiness,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    fn server(bounds: Bounds, heartbeat: Heartbeat, shops: usize) -> Server {
        let port = Port::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = port.address();
        let readiness = Readiness::new();
        let (stop, stopped) = oneshot::channel();
        let admin = Admin {
            heartbeat: heartbeat.clone(),
            readiness: readiness.clone(),
            metrics: Arc::new(Metrics::new("test", String::new(), PerIntegrationMetrics::On)),
            fleet: Arc::new(Shops(shops)),
        };
        let task = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            admin.serve_within(bounds, port, stop).await.unwrap();
        });
        Server { address, heartbeat, readiness, stop, task }
    }

    async fn answer_to(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A server that closes with unread bytes may reset; what came before counts.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// Status line's code, and the body.
    async fn ask(address: SocketAddr, path: &str) -> (String, String) {
        let answer = answer_to(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
    }

    fn answered(code: &str, body: &str) -> (String, String) {
        (code.to_owned(), body.to_owned())
    }

    fn stuck() -> Heartbeat {
        Heartbeat::started(Instant::now().checked_sub(Duration::from_secs(75)).unwrap())
    }

    #[tokio::test]
    async fn livez_follows_the_work_loop_alone_but_never_gives_up_a_held_answer() {
        let server = server(BOUNDS, stuck(), 0);
        let refused = answered("503", "the work loop has been stuck for 75 s\n");
        assert_eq!(ask(server.address, "/livez").await, refused);
        server.heartbeat.hold();
        server.heartbeat.hold();
        server.heartbeat.let_go();
        assert_eq!(ask(server.address, "/livez").await, answered("200", "ok\n"));
        server.heartbeat.let_go();
        assert_eq!(ask(server.address, "/livez").await.0, "503");
        server.heartbeat.beat();
        assert_eq!(ask(server.address, "/livez").await, answered("200", "ok\n"));
        assert_eq!(ask(server.address, "/readyz").await.0, "503", "not being ready is no reason to be killed");
    }

    #[tokio::test]
    async fn readyz_tells_what_is_missing() {
        let server = server(BOUNDS, Heartbeat::new(), 0);
        server.readiness.journal_was_tried();
        let refused = answered("503", "not ready: the first lists from the API server are not in\n");
        assert_eq!(ask(server.address, "/readyz").await, refused);
        server.readiness.lists_are_in();
        assert_eq!(ask(server.address, "/readyz").await, answered("200", "ok\n"));
    }

    #[tokio::test]
    async fn metrics_are_served_and_nothing_else_is() {
        let server = server(BOUNDS, Heartbeat::new(), 1);
        let get = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = answer_to(server.address, get).await;
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("tiktokshop_leader 0\n"), "{answer}");
        assert!(answer.contains("name=\"shop-0\""), "{answer}");
        assert_eq!(ask(server.address, "/").await.0, "404");
        assert_eq!(ask(server.address, "/metrics/x").await.0, "404");
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_with_what_to_do() {
        let taken = Port::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = Port::open(taken.address()).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("failed to listen on {}; ", taken.address())), "{error}");
    }

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_client_that_dawdles_or_floods_is_cut_off() {
        let bounds = Bounds { idle: Duration::from_millis(300), ..BOUNDS };
        let server = server(bounds, Heartbeat::new(), 0);

        let half = tokio::time::timeout(SOON, answer_to(server.address, "GET /livez HT"));
        assert_eq!(half.await.expect("half a request is not waited for"), "");

        let flood = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n", "y".repeat(1_000_000));
        let flood = tokio::time::timeout(SOON, async {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            // The server may close before all of it is sent.
            let _ = stream.write_all(flood.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            answer
        });
        assert_eq!(flood.await.expect("a flood is not taken"), b"");
    }

    #[tokio::test]
    async fn scrapes_that_are_not_read_are_few_and_are_given_up() {
        let bounds = Bounds { idle: Duration::from_secs(3), scrapes: 1, ..BOUNDS };
        // 60,000 rows are 7 MB, more than the kernel's buffers take.
        let server = server(bounds, Heartbeat::new(), 60_000);
        let lazy = tokio::net::TcpSocket::new_v4().unwrap();
        lazy.set_recv_buffer_size(4096).unwrap();
        let mut lazy = lazy.connect(server.address).await.unwrap();
        lazy.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        lazy.read_exact(&mut [0]).await.unwrap();
        assert_eq!(ask(server.address, "/metrics").await.0, "503", "one scrape is still being sent");
        assert_eq!(ask(server.address, "/livez").await.0, "200");
        let freed = tokio::time::timeout(SOON, async {
            while ask(server.address, "/metrics").await.0 != "200" {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        freed.await.expect("a client that does not read gives its place back");
        drop(lazy);
    }

    #[tokio::test]
    async fn no_more_connections_are_held_than_allowed() {
        let bounds = Bounds { idle: Duration::from_millis(300), connections: 2, ..BOUNDS };
        let server = server(bounds, Heartbeat::new(), 0);
        let mut idle = Vec::new();
        for _ in 0..6 {
            idle.push(TcpStream::connect(server.address).await.unwrap());
        }
        let answer = tokio::time::timeout(SOON, ask(server.address, "/livez"));
        assert_eq!(answer.await.expect("idle connections make room").0, "200");
    }

    #[tokio::test]
    async fn stopping_does_not_wait_for_idle_clients() {
        let server = server(BOUNDS, Heartbeat::new(), 0);
        let _idle = TcpStream::connect(server.address).await.unwrap();
        assert_eq!(ask(server.address, "/livez").await.0, "200");
        server.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(8), server.task).await.expect("it stops").unwrap();
        assert!(TcpStream::connect(server.address).await.is_err(), "the port is closed");
    }
}
