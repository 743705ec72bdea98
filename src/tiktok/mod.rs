//! The client of `TikTok` Shop's token endpoints.
//!
//! A call spends a refresh token that may be the only one that works, or an authorization code that works once, so every
//! way in which it can fail says whether that may be gone: see [`Spent`]. Nothing here retries, follows redirects, or writes logs.
//!
//! ```text
//!  request ──▶ send ──▶ read at most ──▶ envelope ──▶ Grant
//!  json, query           1 MiB              └───────▶ Failure, sorted by what to do
//! ```

mod endpoint;
mod envelope;
mod expiry;
mod failure;
mod request;
mod scrub;
mod shops;
#[cfg(test)]
mod tests;

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Certificate, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::tokens::{SecretText, Wiped};
use envelope::Envelope;
use failure::{Answer, Shape};
use request::{Credential, TokenRequest, WireForm};

pub use endpoint::{Endpoint, EndpointError};
pub use envelope::{Grant, REQUEST_ID_LIMIT, Seller};
pub use expiry::read_expiry;
pub use failure::{Failure, FailureReason, Spent};
pub use request::{RequestForm, UnknownRequestForm};
pub use scrub::Scrubber;
pub use shops::{Shop, ShopsClient, ShopsFailure, ShopsFailureKind};

/// How long a call whose time is up still takes in what has come by then, counted from when the process noticed: its
/// sockets are looked at after its timers.
const GRACE: Duration = Duration::from_millis(50);
/// The same for a process that notices so late that it, or its whole machine, stood still.
const GRACE_WHEN_LATE: Duration = Duration::from_secs(1);
/// What no timer of a running process is late by.
const LATE: Duration = Duration::from_millis(250);
/// Up to here a timer is in time, and the process was running all the while that it waited.
const PUNCTUAL: Duration = Duration::from_millis(20);

/// The largest answer that is read, in bytes.
const BODY_LIMIT: usize = 1 << 20;
/// The room for an answer whose length is not told: more than a usual one has, so that its buffer does not grow.
const BODY_USUAL: usize = 16 << 10;
/// How long a connection is kept for the next call. Short, so that the server is rarely the one that closes it: a call
/// that meets a connection which is just being closed ends with nobody knowing whether the token was spent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest that a connection may take to come up: name, TCP, proxy and TLS together.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);

/// Sends refreshes, or exchanges, to one endpoint. Connections are shared by concurrent calls.
pub struct TokenClient {
    http: reqwest::Client,
    endpoint: Endpoint,
    form: RequestForm,
    /// In [`RequestForm::Auto`], whether the query is what worked last.
    query_first: AtomicBool,
    connect_timeout: Duration,
    on_request: OnRequest,
}

/// Told of each request: the status of its answer, and the code in it, where there were any.
pub type OnRequest = Box<dyn Fn(Option<u16>, Option<i64>) + Send + Sync>;

impl TokenClient {
    /// A client of this endpoint.
    ///
    /// `extra_roots_pem` holds certificates that are trusted as well as the platform's; where the platform has none,
    /// they alone are trusted. The proxy settings of the environment are honoured, except for a loopback endpoint.
    ///
    /// `request_timeout` is how long a call usually gets. A connection must come up within a third of it, and within
    /// 10 s: so a call that hangs before anything is sent ends early enough to be told from one that hangs after.
    ///
    /// # Errors
    /// Where no certificate could be trusted, `extra_roots_pem` is unusable, or `user_agent` is no header value.
    pub fn new(
        endpoint: Endpoint,
        form: RequestForm,
        extra_roots_pem: Option<&[u8]>,
        user_agent: &str,
        request_timeout: Duration,
    ) -> Result<Self, ClientBuildError> {
        let connect_timeout = connect_timeout(request_timeout);
        let http = http_client(&endpoint, extra_roots_pem, user_agent, connect_timeout)?;
        Ok(Self {
            http,
            endpoint,
            form,
            query_first: AtomicBool::new(false),
            connect_timeout,
            on_request: Box::new(|_, _| {}),
        })
    }

    /// Has somebody told of each request that is sent: with `auto`, a refresh may take two.
    #[must_use]
    pub fn telling(self, on_request: OnRequest) -> Self {
        Self { on_request, ..self }
    }

    /// Presents a refresh token, once in effect: a second form is tried only where the first is not served, and so
    /// has spent nothing.
    ///
    /// All of it, both forms and the reading of the answer, ends at `deadline`. A call that has no more time left
    /// than a connection may take is not begun. `now` is the wall time, for expiries and dates.
    ///
    /// A call that is dropped before it ends may have spent the token.
    ///
    /// # Errors
    /// Where no tokens were granted; [`Failure::spent`] says what became of the refresh token.
    pub async fn refresh(
        &self,
        app_key: &str,
        app_secret: &SecretText,
        refresh_token: &SecretText,
        deadline: Instant,
        now: DateTime<Utc>,
    ) -> Result<Grant, Failure> {
        let credential = Credential::RefreshToken;
        self.present(TokenRequest { app_key, app_secret, credential, value: refresh_token }, deadline, now).await
    }

    /// Presents an authorization code, once. The rest is as with [`Self::refresh`], but for two things: it takes a
    /// client of [`RequestForm::Query`], the only form in which an exchange was seen, and an answer without a refresh
    /// token is none, as there is no old one that could stay.
    ///
    /// # Errors
    /// Where no tokens were granted; [`Failure::spent`] says what became of the code.
    pub async fn exchange(
        &self,
        app_key: &str,
        app_secret: &SecretText,
        code: &SecretText,
        deadline: Instant,
        now: DateTime<Utc>,
    ) -> Result<Grant, Failure> {
        let credential = Credential::AuthorizationCode;
        self.present(TokenRequest { app_key, app_secret, credential, value: code }, deadline, now).await
    }

    async fn present(
        &self,
        request: TokenRequest<'_>,
        deadline: Instant,
        now: DateTime<Utc>,
    ) -> Result<Grant, Failure> {
        let scrubber = Scrubber::new(&[request.app_secret, request.value]);
        let call = Call { client: self, request, scrubber, deadline, now };
        let (first, second) = match self.form {
            RequestForm::Json => (WireForm::Json, None),
            RequestForm::Query => (WireForm::Query, None),
            RequestForm::Auto if self.query_first.load(Ordering::Relaxed) => (WireForm::Query, Some(WireForm::Json)),
            RequestForm::Auto => (WireForm::Json, Some(WireForm::Query)),
        };
        match (call.attempt(first).await, second) {
            (Attempt::Over(result), _) => result,
            (Attempt::Unserved(failure), None) => Err(failure),
            (Attempt::Unserved(_), Some(second)) => match call.attempt(second).await {
                Attempt::Over(result) => result,
                Attempt::Unserved(failure) => Err(failure),
            },
        }
    }
}

/// The longest that a connection may take to come up, for calls that get so much time.
fn connect_timeout(request_timeout: Duration) -> Duration {
    LONGEST_CONNECT.min(request_timeout / 3)
}

/// The HTTP client that all calls to `TikTok` share their settings with: see [`TokenClient::new`].
fn http_client(
    endpoint: &Endpoint,
    extra_roots_pem: Option<&[u8]>,
    user_agent: &str,
    connect_timeout: Duration,
) -> Result<reqwest::Client, ClientBuildError> {
    let user_agent = HeaderValue::from_str(user_agent).map_err(|_| ClientBuildError::UserAgent)?;
    let roots = extra_roots_pem.map(read_roots).transpose()?.unwrap_or_default();
    let has_extra_roots = !roots.is_empty();

    // Asked for as it is, since nothing here decompresses; an answer that cannot be read may lose a token.
    let headers = HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/json")),
        (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ]);
    let (localhost, loopback) = Endpoint::LOCALHOST;
    let mut builder = reqwest::Client::builder()
        .default_headers(headers)
        .user_agent(user_agent)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .resolve_to_addrs(localhost, &loopback);
    if endpoint.is_loopback() {
        builder = builder.no_proxy();
    }
    // A plain endpoint needs no roots, and must not fail in an image that has none.
    builder = if endpoint.is_https() { builder.tls_certs_merge(roots) } else { builder.tls_certs_only(roots) };
    builder.build().map_err(|error| ClientBuildError::sort(error, has_extra_roots))
}

impl fmt::Debug for TokenClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClient")
            .field("endpoint", &self.endpoint)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

/// One refresh or exchange on its way.
struct Call<'a> {
    client: &'a TokenClient,
    request: TokenRequest<'a>,
    scrubber: Scrubber,
    deadline: Instant,
    now: DateTime<Utc>,
}

/// What became of one form.
enum Attempt {
    Over(Result<Grant, Failure>),
    /// The endpoint does not serve it.
    Unserved(Failure),
}

impl Call<'_> {
    async fn attempt(&self, form: WireForm) -> Attempt {
        // With more time left than a connection may take, a connection that does not come up ends by its own timeout,
        // and the deadline can only pass after one did.
        if self.deadline.saturating_duration_since(Instant::now()) <= self.client.connect_timeout {
            return Attempt::Over(Err(Failure::too_late(self.request.credential)));
        }
        let response = match self.send(form).await {
            Ok(response) => response,
            Err(failure) => {
                (self.client.on_request)(None, None);
                return Attempt::Over(Err(failure));
            }
        };
        let status = response.status().as_u16();
        let attempt = self.receive(form, response).await;
        let code = match &attempt {
            Attempt::Over(Ok(_)) => Some(0),
            Attempt::Over(Err(failure)) | Attempt::Unserved(failure) => failure.code,
        };
        (self.client.on_request)(Some(status), code);
        attempt
    }

    async fn send(&self, form: WireForm) -> Result<Response, Failure> {
        let client = self.client;
        let request = self.request.request(form, &client.endpoint);
        match in_time(self.deadline, client.http.execute(request)).await {
            Some(Ok(response)) => Ok(response),
            Some(Err(error)) => Err(self.transport(error)),
            None => Err(Failure::no_answer_in_time(self.request.credential, client.endpoint.authority())),
        }
    }

    async fn receive(&self, form: WireForm, mut response: Response) -> Attempt {
        let (host, credential) = (self.client.endpoint.authority(), self.request.credential);
        let status = response.status();
        let body = match in_time(self.deadline, read_body(&mut response)).await {
            Some(body) => body.map_err(|error| self.transport(error)),
            None => Err(Failure::no_answer_in_time(credential, host)),
        };
        let (body, shape) = match body {
            Ok(Body::Whole(body)) => {
                let shape = Shape::of(&body);
                (body, shape)
            }
            Ok(Body::TooLarge) => (Zeroizing::default(), Shape::TooLarge),
            // These say enough by their status.
            Err(_) if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                (Zeroizing::default(), Shape::Incomplete)
            }
            Err(failure) => return Attempt::Over(Err(failure.with_status(status))),
        };

        let mut envelope = Envelope::parse(&body).filter(|envelope| !envelope.repeats(status));
        if envelope.is_some() {
            self.client.query_first.store(form == WireForm::Query, Ordering::Relaxed);
        }
        // Whatever the status: tokens are never thrown away.
        let grant = envelope.as_mut().and_then(|envelope| envelope.take_grant(self.now, &self.scrubber));
        let is_whole = |grant: &Grant| credential == Credential::RefreshToken || grant.refresh_token.is_some();
        if let Some(grant) = grant.filter(is_whole) {
            return Attempt::Over(Ok(grant));
        }
        let headers = response.headers();
        let answer = Answer { credential, status, headers, envelope: envelope.as_ref(), shape, host, now: self.now };
        let failure = answer.sort(&self.scrubber);
        if answer.is_unserved() { Attempt::Unserved(failure) } else { Attempt::Over(Err(failure)) }
    }

    fn transport(&self, error: reqwest::Error) -> Failure {
        let host = self.client.endpoint.authority();
        Failure::transport(&error.without_url(), self.request.credential, host, &self.scrubber)
    }
}

/// Waits until the deadline, and then for what has come by then and was not looked at yet.
///
/// A process that was stopped and goes on after the deadline finds two things at once, that its time is up and the answer
/// in its socket: the answer, which may be the only copy of a token, is what counts. So the time that is granted after
/// the deadline begins when the process notices that it has passed, and is granted anew if the process was stopped in it.
async fn in_time<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    if let Ok(done) = timeout_at(deadline, &mut work).await {
        return Some(done);
    }
    let mut late = deadline.elapsed();
    loop {
        let until = Instant::now() + if late < LATE { GRACE } else { GRACE_WHEN_LATE };
        if let Ok(done) = timeout_at(until, &mut work).await {
            return Some(done);
        }
        late = until.elapsed();
        if late < PUNCTUAL {
            return None;
        }
    }
}

enum Body {
    Whole(Zeroizing<Vec<u8>>),
    TooLarge,
}

/// Reads a body piece by piece, so that a wrong Content-Length costs nothing.
async fn read_body(response: &mut Response) -> Result<Body, reqwest::Error> {
    let told = response.content_length().and_then(|length| usize::try_from(length).ok());
    let mut body = Wiped::with_capacity(told.unwrap_or(BODY_USUAL).min(BODY_USUAL));
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > BODY_LIMIT {
            return Ok(Body::TooLarge);
        }
        body.extend(&piece);
    }
    Ok(Body::Whole(body.into_inner()))
}

fn read_roots(pem: &[u8]) -> Result<Vec<Certificate>, ClientBuildError> {
    match Certificate::from_pem_bundle(pem) {
        Ok(roots) if roots.is_empty() => Err(ClientBuildError::NoCertificate),
        Ok(roots) => Ok(roots),
        Err(_) => Err(ClientBuildError::BadCertificate),
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientBuildError {
    /// The platform has no roots, and none were given.
    #[error(
        "no trusted root certificates are installed here: install the package ca-certificates, name a bundle in SSL_CERT_FILE, or give one with --ca-file"
    )]
    NoRoots,
    /// The bundle of extra roots is empty, or something else.
    #[error("no certificate is in the CA file: it must be PEM, with lines of -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// The bundle of extra roots holds what cannot be read.
    #[error("a certificate in the CA file cannot be read: it must be a valid X.509 certificate in PEM")]
    BadCertificate,
    /// A user agent that no header can carry.
    #[error("the user agent holds characters that an HTTP header cannot carry")]
    UserAgent,
    /// Anything else that the HTTP client refuses.
    #[error("failed to set up the HTTP client")]
    Other(#[source] reqwest::Error),
}

impl ClientBuildError {
    fn sort(error: reqwest::Error, has_extra_roots: bool) -> Self {
        // rustls-platform-verifier has no type for it; with extra roots given it is no error at all.
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            if inner.to_string().contains("No CA certificates were loaded") {
                return Self::NoRoots;
            }
            cause = inner.source();
        }
        // The extra roots are the only input that was not yet checked.
        if has_extra_roots { Self::BadCertificate } else { Self::Other(error) }
    }
}
