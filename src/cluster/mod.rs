//! The API server as this operator uses it: few requests, each with a deadline, none retried
//! behind its back, no body ever logged.
//!
//! kube's own typed calls are not used for Secrets: on an answer that does not parse they log the
//! whole of it, and they leave copies of the values in memory.

mod error;
mod events;
mod proxy;
mod rollout;
mod secrets;
mod status;
mod watched;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::{Client, Config};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

pub use error::ApiError;
pub use events::{Event, EventKind, Events, Regarding};
pub use proxy::pass_by_proxy;
pub use secrets::{ClaimChange, ClaimWrite, Secret, TokenWrite, Version, stand_ins};
pub use status::StatusWrite;
pub use watched::{WatchedIntegration, WatchedSecret};

use crate::clock::Clock;
use crate::tokens::Wiped;

/// Of one API request, all of it. The API server itself gives up after 60 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests about Secrets under way at the same time, but for those that store tokens. What is sent beyond that only waits
/// at the API server instead of here, on a connection of its own for each, of some 40 KiB. Statuses and events have limits
/// of their own, so that none of these waits for a webhook that holds up another.
const MOST_AT_ONCE: usize = 16;

/// An answer larger than this is none of ours: the API server refuses Secrets over 1 MiB, which
/// base64 and annotations make somewhat larger.
const LARGEST_ANSWER: usize = 4 << 20;

/// A client of the API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    turns: Arc<Semaphore>,
    /// Until when refusals are excused, in milliseconds of [`Clock::boottime`].
    excuses_until: Arc<AtomicU64>,
}

impl Cluster {
    /// Finds the cluster: `KUBECONFIG` or the usual file, else the pod's own service account.
    ///
    /// # Errors
    /// Where neither is there, or it can't be read.
    pub async fn infer() -> Result<Self, kube::Error> {
        let mut config = Config::infer().await.map_err(kube::Error::InferConfig)?;
        // kube would send a PATCH again after a 429 or 503: the transaction has to see each answer.
        config.default_retry = false;
        pass_by_proxy(&mut config);
        Ok(Client::try_from(config)?.into())
    }

    /// The underlying client, for watches and the lease.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Sends one request when its turn has come.
    async fn send_in_turn(&self, request: Request<Bytes>) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let _turn = self.turns.acquire().await;
        self.send(request).await
    }

    /// For so long, that the API server refuses something says nothing of rights: it is away, or starts, and a server that
    /// starts knows nobody's rights yet and refuses what it will allow a second later.
    pub fn excuse_refusals(&self, time: Duration) {
        self.excuses_until.store(in_milliseconds(Clock::boottime() + time), Ordering::Relaxed);
    }

    /// Is it to be expected that the API server refuses what it allows at other times?
    #[must_use]
    pub fn excuses_refusals(&self) -> bool {
        in_milliseconds(Clock::boottime()) < self.excuses_until.load(Ordering::Relaxed)
    }

    /// Sends one request and returns the body of a success.
    async fn send(&self, request: Request<Bytes>) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        self.send_once(request).await.map_err(|error| match error {
            ApiError::Forbidden(why) if self.excuses_refusals() => {
                ApiError::lost(&format!("the API server is only starting: {why}"))
            }
            error => error,
        })
    }

    /// Without excuses.
    async fn send_once(&self, request: Request<Bytes>) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let call = async {
            let response =
                self.client.send(request.map(Body::from)).await.map_err(|error| ApiError::from_kube(&error))?;
            let status = response.status();
            let length = response.headers().get(http::header::CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
            let body = read(response.into_body(), length).await?;
            if status.is_success() { Ok(body) } else { Err(ApiError::from_answer(status, &body)) }
        };
        tokio::time::timeout(REQUEST_TIMEOUT, call)
            .await
            .unwrap_or_else(|_| Err(ApiError::lost("the API server did not answer in time")))
    }

    /// Is the custom resource served? `false` where the CRD is not installed.
    ///
    /// # Errors
    /// Where the API server can't be asked.
    pub async fn serves_integrations(&self) -> Result<bool, ApiError> {
        let path = format!("/apis/{}/{}", crate::api::names::GROUP, crate::api::names::VERSION);
        let request = Request::get(path).body(Bytes::new()).map_err(|error| ApiError::lost(&error.to_string()))?;
        match self.send_once(request).await {
            Ok(body) => Ok(serde_json::from_slice::<serde_json::Value>(&body).is_ok_and(|resources| {
                resources["resources"]
                    .as_array()
                    .is_some_and(|list| list.iter().any(|resource| resource["name"] == crate::api::names::PLURAL))
            })),
            Err(ApiError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn in_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<Client> for Cluster {
    fn from(client: Client) -> Self {
        Self { client, turns: Arc::new(Semaphore::new(MOST_AT_ONCE)), excuses_until: Arc::default() }
    }
}

/// Reads a body, of this length where it is told: then there is room for all of it at once. Most come in one frame anyway.
async fn read(mut body: Body, length: Option<usize>) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let mut bytes = Wiped::with_capacity(length.unwrap_or(0).min(LARGEST_ANSWER));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::lost("the connection was cut in the middle of an answer"))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > LARGEST_ANSWER {
                return Err(ApiError::lost("the answer is larger than any Secret can be"));
            }
            bytes.extend(&data);
        }
    }
    Ok(bytes.into_inner())
}

/// A body that is wiped once it is sent.
fn wiped_body<T: serde::Serialize>(value: &T) -> Result<Bytes, ApiError> {
    let mut bytes = Wiped::with_capacity(USUAL_BODY);
    serde_json::to_writer(&mut bytes, value).map_err(|_| ApiError::lost("the request can't be written as JSON"))?;
    Ok(Bytes::from_owner(bytes.into_inner()))
}

/// The room for a request's body, in bytes; it grows where it is too small.
const USUAL_BODY: usize = 2 << 10;

/// The media type of JSON.
const JSON: &str = "application/json";

/// Asks for the metadata alone of what is written: a Secret's values, or a pod template's, are not always this process's
/// business, and of a status or an event nothing else is looked at.
pub const METADATA_ALONE: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// The media type of a JSON merge patch (RFC 7396).
const MERGE_PATCH: &str = "application/merge-patch+json";

fn merge_patch(path: &str, accept: &str, body: Bytes) -> Result<Request<Bytes>, ApiError> {
    Request::patch(path)
        .header(http::header::CONTENT_TYPE, MERGE_PATCH)
        .header(http::header::ACCEPT, accept)
        .body(body)
        .map_err(|error| ApiError::lost(&error.to_string()))
}
