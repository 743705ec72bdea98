//! Events about integrations, through `events.k8s.io`, repeated ones folded into a series.
//!
//! Posted directly: kube's `Recorder` scans its whole cache under a lock at each publish.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use http::Request;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{ApiError, Cluster, JSON, METADATA_ALONE, merge_patch, wiped_body};
use crate::api::names::{API_VERSION, FIELD_MANAGER, KIND};
use crate::clock;

/// How many events are posted at once: one at a time could not keep up with a fleet that is due at once.
const LANES: usize = 8;

/// Events waiting to be posted at most in one lane; more are dropped, as the statuses say the same.
const LONGEST_QUEUE: usize = 4_000;

/// Series remembered at most in one lane.
const MOST_SERIES: usize = 256;

/// Repeated events within this time belong to one series; it is shorter than the hour for which an
/// API server keeps an event.
const SERIES_WINDOW_SECONDS: i64 = 30 * 60;

/// Longest note, in bytes: the limit of `events.k8s.io/v1` is 1 KiB.
const LONGEST_NOTE: usize = 1_000;

/// How often an event is tried while the API server is away.
const TRIES: u32 = 6;

/// Declares [`EventKind`] with its words once, so that no list of them can miss one.
macro_rules! event_kinds {
    ($($(#[doc = $doc:literal])+ $name:ident: $severity:ident,)+) => {
        /// What an event says, in one word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind {
            $($(#[doc = $doc])+ $name,)+
        }

        impl EventKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The event's `reason`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// The event's `type`: Normal or Warning.
            #[must_use]
            pub const fn severity(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($severity),)+
                }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

event_kinds! {
    /// Tokens were refreshed.
    Refreshed: Normal,
    /// The first success after failures.
    RefreshRecovered: Normal,
    /// A try failed.
    RefreshFailed: Warning,
    /// Only a new authorization helps.
    ReauthorizationRequired: Warning,
    /// The refresh token itself expires soon.
    RefreshTokenExpiring: Warning,
    /// A token may or may not have been spent.
    OutcomeUnknown: Warning,
    /// Two integrations name one Secret.
    TokenSecretInUse: Warning,
    /// Something else put spent tokens back.
    TokenSecretReverted: Warning,
    /// Somebody replaced the tokens while a refresh was under way.
    TokensReplaced: Warning,
    /// Something that uses the tokens could not be restarted after a refresh.
    RolloutRestartFailed: Warning,
    /// TikTok refuses an access token that has not expired.
    AccessTokenRejected: Warning,
    /// The access token works, and lacks the scope that the check of shops needs.
    MissingScope: Warning,
    /// A value in a Secret or annotation can't be used.
    InvalidValue: Warning,
}

/// The integration that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its UID.
    pub uid: Box<str>,
}

/// An event to post.
#[derive(Debug, Clone)]
pub struct Event {
    /// What it is about.
    pub regarding: Regarding,
    /// What it says, in one word.
    pub kind: EventKind,
    /// What it says, in a sentence.
    pub note: String,
    /// When it happened.
    pub at: DateTime<Utc>,
}

/// Posts events in the background: several at once, those about one integration in their order.
pub struct Events {
    lanes: Vec<mpsc::Sender<Event>>,
    posters: JoinSet<()>,
}

impl Events {
    /// Starts posting; `instance` names this process in the events.
    #[must_use]
    pub fn start(cluster: &Cluster, instance: &str) -> Self {
        let mut posters = JoinSet::new();
        let lanes = std::iter::repeat_with(|| {
            let (queue, receiver) = mpsc::channel(LONGEST_QUEUE);
            let poster = Poster { cluster: cluster.clone(), instance: instance.to_owned(), series: HashMap::new() };
            posters.spawn(poster.run(receiver));
            queue
        })
        .take(LANES)
        .collect();
        Self { lanes, posters }
    }

    /// Posts an event, soon.
    pub fn publish(&self, event: Event) {
        let mut hasher = DefaultHasher::new();
        event.regarding.hash(&mut hasher);
        // The remainder is smaller than LANES.
        let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0);
        if let Err(error) = self.lanes[lane].try_send(event) {
            tracing::warn!(%error, "an event was dropped: too many wait for the API server");
        }
    }

    /// Posts what waits, for at most the given time.
    pub async fn finish(self, patience: Duration) {
        let Self { lanes, posters } = self;
        drop(lanes);
        if tokio::time::timeout(patience, posters.join_all()).await.is_err() {
            tracing::warn!("events were left unposted at the end");
        }
    }
}

struct Series {
    event_name: String,
    count: i32,
    last: i64,
}

struct Poster {
    cluster: Cluster,
    instance: String,
    series: HashMap<u64, Series>,
}

impl Poster {
    async fn run(mut self, mut queue: mpsc::Receiver<Event>) {
        while let Some(event) = queue.recv().await {
            if let Err(error) = self.post_patiently(&event).await {
                tracing::warn!(
                    namespace = %event.regarding.namespace, name = %event.regarding.name, event = event.kind.as_str(), %error,
                    "failed to post an event"
                );
            }
        }
    }

    async fn post_patiently(&mut self, event: &Event) -> Result<(), ApiError> {
        let mut pause = Duration::from_millis(500);
        for _ in 1..TRIES {
            match self.post(event).await {
                Err(error) if error.is_server_away() => {}
                result => return result,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.post(event).await
    }

    async fn post(&mut self, event: &Event) -> Result<(), ApiError> {
        let mut hasher = DefaultHasher::new();
        (&event.regarding, event.kind, &event.note).hash(&mut hasher);
        let key = hasher.finish();
        let at = event.at.timestamp();
        if let Some(series) = self.series.get_mut(&key).filter(|series| at - series.last <= SERIES_WINDOW_SECONDS) {
            let (count, event_name) = (series.count + 1, series.event_name.clone());
            match self.cluster.continue_series(&event.regarding.namespace, &event_name, count, event.at).await {
                Err(ApiError::NotFound) => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.series.insert(key, Series { event_name, count, last: at });
                    return Ok(());
                }
            }
        }
        let event_name = format!(
            "{}.{key:016x}{:x}",
            &event.regarding.name[..event.regarding.name.floor_char_boundary(200)],
            event.at.timestamp_micros()
        );
        self.cluster.create_event(&event_name, &self.instance, event).await?;
        self.make_room();
        self.series.insert(key, Series { event_name, count: 1, last: at });
        Ok(())
    }

    fn make_room(&mut self) {
        if self.series.len() >= MOST_SERIES {
            let newest_to_drop = {
                let mut ages: Vec<i64> = self.series.values().map(|series| series.last).collect();
                let middle = ages.len() / 2;
                *ages.select_nth_unstable(middle).1
            };
            self.series.retain(|_, series| series.last > newest_to_drop);
        }
    }
}

impl Cluster {
    async fn create_event(&self, event_name: &str, instance: &str, event: &Event) -> Result<(), ApiError> {
        let Regarding { namespace, name, uid } = &event.regarding;
        let body = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": event_name, "namespace": namespace},
            "eventTime": micro_time(event.at),
            "reportingController": format!("tiktokshop.dev/{FIELD_MANAGER}"),
            "reportingInstance": instance,
            "action": "Refresh",
            "reason": event.kind.as_str(),
            "type": event.kind.severity(),
            "note": &event.note[..event.note.floor_char_boundary(LONGEST_NOTE)],
            "regarding": {"apiVersion": API_VERSION, "kind": KIND, "namespace": namespace, "name": name, "uid": uid},
        });
        let request = Request::post(path(namespace, ""))
            .header(http::header::CONTENT_TYPE, JSON)
            .header(http::header::ACCEPT, METADATA_ALONE)
            .body(wiped_body(&body)?)
            .map_err(|error| ApiError::lost(&error.to_string()))?;
        match self.send(request).await {
            // The same event, posted before its reply was lost.
            Err(ApiError::Conflict) => Ok(()),
            result => result.map(drop),
        }
    }

    async fn continue_series(
        &self,
        namespace: &str,
        event_name: &str,
        count: i32,
        at: DateTime<Utc>,
    ) -> Result<(), ApiError> {
        let body: Value = json!({"series": {"count": count, "lastObservedTime": micro_time(at)}});
        let request = merge_patch(&path(namespace, &format!("/{event_name}")), METADATA_ALONE, wiped_body(&body)?)?;
        self.send(request).await.map(drop)
    }
}

fn micro_time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn path(namespace: &str, rest: &str) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events{rest}")
}

impl Event {
    /// An event that happened just now.
    #[must_use]
    pub fn now(regarding: Regarding, kind: EventKind, note: String) -> Self {
        Self { regarding, kind, note, at: clock::Clock::now() }
    }
}
