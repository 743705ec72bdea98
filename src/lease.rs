//! Leader election: of several replicas, the one that holds a Lease refreshes tokens.
//!
//! # Why our own
//!
//! kube has none, and the crates that were read keep saying "leader" when renewals fail. Here the leader knows
//! its **own expiry**, and losing it needs no answer from anybody: leadership is a moment on this machine's
//! clock ([`Leadership::Leader`]'s `until`), not a flag that somebody must remember to take down.
//!
//! # Why it is safe, as far as a lease can be
//!
//! - The holder counts 15 s from when its last successful renewal was **sent**, less a margin of 2 s.
//! - Another takes over only after it has seen the same record for 15 s, counted from when it **received** it.
//!   It can receive a renewal only after that was sent, so its 15 s end after the holder's 13 s.
//! - Both count on their own [boot time](crate::clock): clocks of nodes need not agree, a suspended machine
//!   does not gain time.
//! - Each write is on condition of the `resourceVersion` that was judged.
//!
//! What remains is a process that stops between asking [`LeaseHandle::is_leader`] and acting, and somebody who
//! deletes the Lease. The claim on the Secret makes those harmless; the lease only makes them rare.
//!
//! Needs `get`, `create` and `update` of Leases in one namespace.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::cluster::Cluster;

/// How the lease is timed.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// How long a record stands without renewal. Whole seconds.
    duration: Duration,
    /// From one renewal to the next.
    renew: Duration,
    /// From a failed renewal to the next try, and between a standby's looks.
    retry: Duration,
    /// How long the holder counts on its record, from when it was sent. Less than `duration` by a margin, which
    /// is for what it does between asking whether it leads and doing what only a leader may.
    kept: Duration,
    /// For one request.
    deadline: Duration,
}

/// Two whole tries fit between a renewal that is due and the end of leadership.
const TIMING: Timing = Timing {
    duration: Duration::from_secs(15),
    renew: Duration::from_secs(5),
    retry: Duration::from_secs(2),
    kept: Duration::from_secs(13),
    deadline: Duration::from_secs(3),
};

/// A record of another program may claim a longer life than ours; it is respected up to this.
const LONGEST_DURATION: Duration = Duration::from_hours(1);

/// Who leads, as far as this process knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This process, until this [boot time](Clock::boottime), unless renewed.
    Leader {
        /// When leadership ends by itself.
        until: Duration,
    },
    /// Not this process.
    Standby {
        /// Who does, where that is known.
        holder: Option<String>,
    },
}

impl Leadership {
    /// Whether this says that this process leads at `now`, a [boot time](Clock::boottime).
    #[must_use]
    pub fn leads_at(&self, now: Duration) -> bool {
        matches!(self, Self::Leader { until } if now < *until)
    }
}

/// Leader election.
#[derive(Debug)]
pub struct Lease;

impl Lease {
    /// Starts to contend for a Lease, which is created if it does not exist. `identity` must be this process's
    /// alone: two that share one would both lead.
    ///
    /// Never fails: what goes wrong is logged, once for each change of what it is, and tried again.
    #[must_use]
    pub fn start(cluster: &Cluster, namespace: &str, name: &str, identity: String) -> LeaseHandle {
        Self::start_timed(TIMING, cluster, namespace, name, identity)
    }

    fn start_timed(timing: Timing, cluster: &Cluster, namespace: &str, name: &str, identity: String) -> LeaseHandle {
        let (told, leadership) = watch::channel(Leadership::Standby { holder: None });
        let (release, released) = oneshot::channel();
        let contender = Contender {
            api: Api::namespaced(cluster.client(), namespace),
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity,
            timing,
            seen: None,
            told,
            last_error: None,
        };
        let task = tokio::spawn(contender.run(released));
        LeaseHandle { leadership, release, task: AbortOnDrop(task) }
    }
}

/// A running contention. Dropping it ends the contention and leaves the Lease to expire by itself.
#[derive(Debug)]
pub struct LeaseHandle {
    leadership: watch::Receiver<Leadership>,
    release: oneshot::Sender<()>,
    task: AbortOnDrop,
}

impl LeaseHandle {
    /// Whether this process leads at this moment. Right whatever the network does: it compares with the clock.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leadership.borrow().leads_at(Clock::boottime())
    }

    /// To be told of changes. A renewal is one (`until` moves on); so is the end of a leadership that was not
    /// renewed. Use [`Leadership::leads_at`]: after a suspend the news may come late.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Gives the Lease up, so that another takes over at its next look, within 2 s. Only to be called when
    /// everything in flight is done. Takes 12 s at most, with the API server away; a failure is logged and leaves the Lease to expire.
    pub async fn release(mut self) {
        // The task is gone only if it panicked, which was logged where it did.
        let _ = self.release.send(());
        let _ = (&mut self.task.0).await;
    }
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What of a Lease changes when it is renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    /// `None` where the Lease was released.
    holder: Option<String>,
    renewed: Option<Timestamp>,
    transitions: i32,
}

impl Record {
    fn of(lease: &LeaseObject) -> Self {
        let spec = lease.spec.as_ref();
        Self {
            holder: spec.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty()),
            renewed: spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0),
            transitions: spec.and_then(|spec| spec.lease_transitions).unwrap_or(0),
        }
    }
}

/// The Lease as last received.
#[derive(Clone, Debug)]
struct Seen {
    object: LeaseObject,
    record: Record,
    /// Boot time at which this record was first received.
    since: Duration,
}

impl Seen {
    /// Takes in what was received at `now`. A record that did not change keeps the time of its first sight.
    fn update(seen: &mut Option<Self>, object: LeaseObject, now: Duration) {
        let record = Record::of(&object);
        let since = match seen {
            Some(before) if before.record == record => before.since,
            _ => now,
        };
        *seen = Some(Self { object, record, since });
    }

    /// How long the record must stand still before it may be taken over.
    fn duration(&self, ours: Duration) -> Duration {
        let theirs = self.object.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let theirs = Duration::from_secs(u64::try_from(theirs).unwrap_or(0)).min(LONGEST_DURATION);
        ours.max(theirs)
    }
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// There is none: create it, held by us.
    Create,
    /// It is nobody's, or its holder stopped renewing it: write our name into it.
    Take,
    /// It is ours: renew it.
    Renew,
    /// It is another's: look again.
    StandBy,
}

/// Decides about the Lease as it was seen (`None`: it does not exist), for `me`, at `now`.
fn step(seen: Option<&Seen>, me: &str, ours: Duration, now: Duration) -> Action {
    let Some(seen) = seen else { return Action::Create };
    match seen.record.holder.as_deref() {
        None => Action::Take,
        // Also after having lost it: as long as our name stands, nobody else took it.
        Some(holder) if holder == me => Action::Renew,
        Some(_) if now.saturating_sub(seen.since) >= seen.duration(ours) => Action::Take,
        Some(_) => Action::StandBy,
    }
}

#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("the API server did not answer in time")]
    Timeout,
    #[error("the API server refused it: {} ({})", .0.message, .0.code)]
    Refused(Box<kube::core::Status>),
    #[error("the API server could not be reached: {0}")]
    Unreachable(String),
}

impl LeaseError {
    fn is(&self, code: u16) -> bool {
        matches!(self, Self::Refused(status) if status.code == code)
    }
}

impl From<kube::Error> for LeaseError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            // The outermost text alone is "service error"; the cause is what a person needs.
            other => Self::Unreachable(chain(&other)),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

struct Contender {
    api: Api<LeaseObject>,
    cluster: Cluster,
    namespace: String,
    name: String,
    identity: String,
    timing: Timing,
    /// `None` also where nothing was received yet: creating then tells that it exists.
    seen: Option<Seen>,
    told: watch::Sender<Leadership>,
    last_error: Option<String>,
}

impl Contender {
    async fn run(mut self, mut release: oneshot::Receiver<()>) {
        loop {
            // Not broken off: a write that is under way may yet be applied, and would leave the Lease
            // held by nobody.
            let pause = self.round().await;
            tokio::select! {
                // First, so that nothing is renewed after the release was asked for.
                biased;
                asked = &mut release => {
                    // A handle that was dropped asks for nothing: something may be in flight.
                    if asked.is_ok() {
                        self.give_up().await;
                    }
                    return;
                }
                () = self.pause(pause) => {}
            }
        }
    }

    /// One look and what follows from it; returns how long to wait.
    async fn round(&mut self) -> Duration {
        let outcome = self.look_and_act().await;
        let timing = self.timing;
        match outcome {
            Ok(()) => {
                if self.last_error.take().is_some() {
                    tracing::info!(lease = %self.place(), "the Lease can be used again");
                }
            }
            Err(error) => self.tell_error(&error),
        }
        self.lapse();
        match *self.told.borrow() {
            // From the sending of the last renewal; a failed one is tried again soon.
            Leadership::Leader { until } => {
                let due = until.saturating_sub(timing.kept) + timing.renew;
                let wait = due.saturating_sub(Clock::boottime());
                if wait.is_zero() { timing.retry.min(Duration::from_secs(1)) } else { wait }
            }
            Leadership::Standby { .. } => timing.retry,
        }
    }

    /// Waits, and meanwhile tells the end of a leadership when it comes.
    async fn pause(&mut self, pause: Duration) {
        let left = match *self.told.borrow() {
            Leadership::Leader { until } => Some(until.saturating_sub(Clock::boottime())),
            Leadership::Standby { .. } => None,
        };
        if let Some(left) = left.filter(|left| *left < pause) {
            tokio::time::sleep(left).await;
            self.lapse();
        } else {
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells the end of a leadership that was not renewed in time.
    fn lapse(&mut self) {
        let over = matches!(*self.told.borrow(), Leadership::Leader { until } if Clock::boottime() >= until);
        if over {
            tracing::warn!(lease = %self.place(), "not leader any more: the Lease could not be renewed in time");
            self.told.send_replace(Leadership::Standby { holder: None });
        }
    }

    async fn look_and_act(&mut self) -> Result<(), LeaseError> {
        // The holder writes on condition of the version that its last write returned: one request, not two.
        let leads = matches!(*self.told.borrow(), Leadership::Leader { .. });
        if !leads || self.seen.is_none() {
            self.look().await?;
        }
        let wrote = self.act().await;
        if matches!(&wrote, Err(error) if error.is(409) || error.is(404)) {
            // Somebody else wrote, or deleted it; or an own write arrived whose answer did not. Who holds it now?
            // (404 on a creation is a missing namespace, which looking cannot tell: that error stays.)
            let existed = self.seen.is_some();
            self.look().await?;
            if !existed && self.seen.is_none() {
                return wrote;
            }
            return self.act().await;
        }
        wrote
    }

    async fn look(&mut self) -> Result<(), LeaseError> {
        let found = self.within_deadline(self.api.get_opt(&self.name)).await?;
        match found {
            Some(object) => Seen::update(&mut self.seen, object, Clock::boottime()),
            None => self.seen = None,
        }
        Ok(())
    }

    async fn act(&mut self) -> Result<(), LeaseError> {
        let action = step(self.seen.as_ref(), &self.identity, self.timing.duration, Clock::boottime());
        if action == Action::StandBy {
            let holder = self.seen.as_ref().and_then(|seen| seen.record.holder.clone());
            self.stand_by(holder);
            return Ok(());
        }
        let lease = self.held_by_us(action);
        let sent = Clock::boottime();
        let written = if action == Action::Create {
            self.within_deadline(self.api.create(&PostParams::default(), &lease)).await
        } else {
            self.within_deadline(self.api.replace(&self.name, &PostParams::default(), &lease)).await
        }?;
        Seen::update(&mut self.seen, written, Clock::boottime());
        self.lead(sent + self.timing.kept);
        Ok(())
    }

    fn lead(&self, until: Duration) {
        let before = self.told.send_replace(Leadership::Leader { until });
        if !matches!(before, Leadership::Leader { .. }) {
            tracing::info!(lease = %self.place(), identity = self.identity, "leader now");
        }
    }

    fn stand_by(&self, holder: Option<String>) {
        let now = Leadership::Standby { holder };
        self.told.send_if_modified(|told| {
            if *told == now {
                return false;
            }
            if let Leadership::Standby { holder: Some(holder) } = &now {
                tracing::info!(lease = %self.place(), holder, "standby: another process leads");
            }
            *told = now;
            true
        });
    }

    /// The object to write. It keeps what others put there (labels, annotations, owners).
    fn held_by_us(&self, action: Action) -> LeaseObject {
        let mut object = self.seen.as_ref().map_or_else(
            || LeaseObject {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: None,
            },
            |seen| seen.object.clone(),
        );
        let before = self.seen.as_ref().map(|seen| &seen.record);
        let now = renew_time(Clock::now(), before.and_then(|record| record.renewed));
        let spec = object.spec.get_or_insert_with(LeaseSpec::default);
        if action != Action::Renew {
            spec.acquire_time = Some(MicroTime(now));
            spec.lease_transitions = Some(before.map_or(0, |record| record.transitions.saturating_add(1)));
            spec.holder_identity = Some(self.identity.clone());
        }
        spec.renew_time = Some(MicroTime(now));
        spec.lease_duration_seconds = Some(i32::try_from(self.timing.duration.as_secs()).unwrap_or(i32::MAX));
        object
    }

    /// Empties the holder, if it is us.
    async fn give_up(&mut self) {
        self.told.send_replace(Leadership::Standby { holder: None });
        let released = tokio::time::timeout(self.timing.deadline * 2, async {
            // What is at hand may be older than a write whose answer never came, hence a second try.
            for fresh in [false, true] {
                if fresh {
                    self.look().await?;
                }
                let Some(seen) =
                    self.seen.as_ref().filter(|seen| seen.record.holder.as_deref() == Some(&self.identity))
                else {
                    continue;
                };
                let mut object = seen.object.clone();
                let spec = object.spec.get_or_insert_with(LeaseSpec::default);
                spec.holder_identity = Some(String::new());
                match self.within_deadline(self.api.replace(&self.name, &PostParams::default(), &object)).await {
                    Ok(_) => return Ok(true),
                    Err(error) if error.is(409) && !fresh => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(false)
        });
        match released.await.unwrap_or(Err(LeaseError::Timeout)) {
            Ok(true) => tracing::info!(lease = %self.place(), "the Lease is released"),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                lease = %self.place(),
                %error,
                "failed to release the Lease: another process takes over when it expires"
            ),
        }
    }

    async fn within_deadline<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
        let deadline = match *self.told.borrow() {
            // Nothing is waited for beyond the end of leadership, so that it is told when it comes.
            Leadership::Leader { until } => until.saturating_sub(Clock::boottime()).min(self.timing.deadline),
            Leadership::Standby { .. } => self.timing.deadline,
        };
        match tokio::time::timeout(deadline, request).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(LeaseError::Timeout),
        }
    }

    /// Logs an error when it is another than the last one: a cluster that is away is told once.
    fn tell_error(&mut self, error: &LeaseError) {
        let text = error.to_string();
        if self.last_error.as_ref() == Some(&text) || (error.is(403) && self.cluster.excuses_refusals()) {
            return;
        }
        let advice = if error.is(403) {
            "grant get, create and update of leases.coordination.k8s.io in that namespace"
        } else if error.is(404) {
            "create that namespace, or set --lease-namespace to one that exists"
        } else {
            "it is tried again"
        };
        tracing::warn!(lease = %self.place(), error = text, "failed to use the Lease: {advice}");
        self.last_error = Some(text);
    }

    fn place(&self) -> impl fmt::Display {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The time to write: wall time, but always after the one that stands there. Others recognize a renewal by its
/// being different, so it must be, even if our clock stands still or was set back.
fn renew_time(now: chrono::DateTime<chrono::Utc>, before: Option<Timestamp>) -> Timestamp {
    let now = Timestamp::from_microsecond(now.timestamp_micros()).unwrap_or(Timestamp::UNIX_EPOCH);
    match before {
        Some(before) if before >= now => {
            Timestamp::from_microsecond(before.as_microsecond().saturating_add(1)).unwrap_or(now)
        }
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use axum::routing::{get, post};
    use bytes::Bytes;
    use kube::Client;

    use super::*;

    const ME: &str = "pod-1_a";

    fn lease(holder: Option<&str>, renewed: i64, transitions: i32, seconds: Option<i32>) -> LeaseObject {
        LeaseObject {
            metadata: ObjectMeta { resource_version: Some("7".into()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
                lease_transitions: Some(transitions),
                lease_duration_seconds: seconds,
                ..LeaseSpec::default()
            }),
        }
    }

    #[test]
    fn what_is_done_about_the_lease() {
        let other = Some("pod-2_b");
        // (sentence, the Lease, how long its record has stood still in seconds, what is done)
        for (sentence, object, still, action) in [
            ("no Lease: create it", None, 0, Action::Create),
            ("released by emptying the holder: taken at once", Some(lease(Some(""), 1, 0, Some(15))), 0, Action::Take),
            ("never held: taken at once", Some(lease(None, 1, 0, None)), 0, Action::Take),
            ("an object without a spec", Some(LeaseObject::default()), 0, Action::Take),
            ("ours: renewed", Some(lease(Some(ME), 1, 0, Some(15))), 0, Action::Renew),
            ("ours, long expired, nobody took it: renewed", Some(lease(Some(ME), 1, 0, Some(15))), 900, Action::Renew),
            ("another's, just seen, however old its renewTime", Some(lease(other, 1, 0, Some(15))), 0, Action::StandBy),
            ("another's, not long enough", Some(lease(other, 1, 0, Some(15))), 14, Action::StandBy),
            ("another's, unchanged for its duration", Some(lease(other, 1, 0, Some(15))), 15, Action::Take),
            ("another's that claims a longer life", Some(lease(other, 1, 0, Some(60))), 59, Action::StandBy),
            ("another's that claims a longer life, over", Some(lease(other, 1, 0, Some(60))), 60, Action::Take),
            ("another's that claims a shorter life", Some(lease(other, 1, 0, Some(1))), 14, Action::StandBy),
            ("another's that claims an absurd life", Some(lease(other, 1, 0, Some(i32::MAX))), 3600, Action::Take),
            ("another's with a negative life", Some(lease(other, 1, 0, Some(-5))), 15, Action::Take),
        ] {
            let mut seen = None;
            let first = Duration::from_secs(1000);
            if let Some(object) = object {
                Seen::update(&mut seen, object, first);
            }
            let now = first + Duration::from_secs(still);
            assert_eq!(step(seen.as_ref(), ME, TIMING.duration, now), action, "{sentence}");
        }
    }

    #[test]
    fn any_sign_of_life_starts_the_waiting_anew() {
        let first = lease(Some("pod-2_b"), 100, 3, Some(15));
        let mut relabelled = first.clone();
        relabelled.metadata.resource_version = Some("8".into());
        for (sentence, second, since) in [
            ("the same record", first.clone(), 0),
            ("only metadata changed", relabelled, 0),
            ("renewed", lease(Some("pod-2_b"), 101, 3, Some(15)), 10),
            ("renewed by a clock that was set back", lease(Some("pod-2_b"), 50, 3, Some(15)), 10),
            ("taken by a third", lease(Some("pod-3_c"), 100, 3, Some(15)), 10),
            ("lost and taken again", lease(Some("pod-2_b"), 100, 5, Some(15)), 10),
        ] {
            let mut seen = None;
            Seen::update(&mut seen, first.clone(), Duration::from_secs(0));
            Seen::update(&mut seen, second, Duration::from_secs(10));
            assert_eq!(seen.unwrap().since, Duration::from_secs(since), "{sentence}");
        }
    }

    #[test]
    fn a_renewal_always_differs_from_the_one_before() {
        let now = chrono::DateTime::from_timestamp(1000, 0).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(renew_time(now, None), at(1000));
        assert_eq!(renew_time(now, Some(at(999))), at(1000));
        assert!(renew_time(now, Some(at(1000))) > at(1000));
        assert!(renew_time(now, Some(at(5000))) > at(5000));
    }

    #[test]
    fn leadership_ends_by_the_clock_alone_and_before_others_may_take_over() {
        let leader = Leadership::Leader { until: Duration::from_secs(13) };
        assert!(leader.leads_at(Duration::from_millis(12_999)));
        assert!(!leader.leads_at(Duration::from_secs(13)));
        assert!(!Leadership::Standby { holder: None }.leads_at(Duration::ZERO));
        assert!(TIMING.kept + Duration::from_secs(2) <= TIMING.duration, "there is a margin");
        let two_tries = TIMING.renew + 2 * TIMING.deadline + Duration::from_secs(1);
        assert!(two_tries <= TIMING.kept, "two tries fit before the end");
    }

    /// An API server with one Lease, which can be told to hang or to refuse.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Cluster>>, Arc<AtomicUsize>);

    #[derive(Default)]
    struct Cluster {
        lease: Option<serde_json::Value>,
        version: u64,
        hangs: bool,
        refuses: Option<u16>,
    }

    impl Server {
        async fn start(&self) -> Client {
            let routes = Router::new()
                .route("/apis/coordination.k8s.io/v1/namespaces/ops/leases", post(Self::write))
                .route("/apis/coordination.k8s.io/v1/namespaces/ops/leases/shop", get(Self::read).put(Self::write))
                .with_state(self.clone());
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address: SocketAddr = listener.local_addr().unwrap();
            tokio::spawn(async move { axum::serve(listener, routes).await });
            Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap()
        }

        fn change(&self, change: impl FnOnce(&mut Cluster)) {
            change(&mut self.0.lock().unwrap());
        }

        fn holder(&self) -> String {
            let cluster = self.0.lock().unwrap();
            let holder = cluster.lease.as_ref().map(|lease| lease["spec"]["holderIdentity"].clone());
            holder.and_then(|holder| holder.as_str().map(str::to_owned)).unwrap_or_default()
        }

        async fn obstacle(&self) -> Option<Response> {
            self.1.fetch_add(1, Ordering::Relaxed);
            if self.0.lock().unwrap().hangs {
                std::future::pending::<()>().await;
            }
            self.0.lock().unwrap().refuses.map(refusal)
        }

        async fn read(State(server): State<Self>) -> Response {
            if let Some(response) = server.obstacle().await {
                return response;
            }
            let cluster = server.0.lock().unwrap();
            cluster.lease.as_ref().map_or_else(|| refusal(404), |lease| lease.to_string().into_response())
        }

        async fn write(State(server): State<Self>, method: axum::http::Method, body: Bytes) -> Response {
            if let Some(response) = server.obstacle().await {
                return response;
            }
            let mut cluster = server.0.lock().unwrap();
            let mut lease: serde_json::Value = serde_json::from_slice(&body).unwrap();
            match &cluster.lease {
                None if method == "PUT" => return refusal(404),
                Some(_) if method == "POST" => return refusal(409),
                Some(old) if old["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"] => {
                    return refusal(409);
                }
                _ => {}
            }
            cluster.version += 1;
            lease["metadata"]["resourceVersion"] = cluster.version.to_string().into();
            cluster.lease = Some(lease.clone());
            lease.to_string().into_response()
        }
    }

    fn refusal(code: u16) -> Response {
        let reason = match code {
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            _ => "InternalError",
        };
        let status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": reason, "code": code,
        });
        (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
    }

    const QUICK: Timing = Timing {
        duration: Duration::from_secs(2),
        renew: Duration::from_millis(300),
        retry: Duration::from_millis(100),
        kept: Duration::from_millis(1500),
        deadline: Duration::from_millis(300),
    };

    fn contend(client: &Client, identity: &str) -> LeaseHandle {
        Lease::start_timed(QUICK, &client.clone().into(), "ops", "shop", identity.to_owned())
    }

    async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let waited = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    #[tokio::test]
    async fn one_leads_and_a_release_hands_over_without_waiting_for_the_expiry() {
        let server = Server::default();
        let client = server.start().await;
        let first = contend(&client, "first");
        until("the first leads", || first.is_leader()).await;
        let second = contend(&client, "second");
        let holder = Some("first".to_owned());
        until("the second knows who leads", || {
            *second.watch().borrow() == Leadership::Standby { holder: holder.clone() }
        })
        .await;
        tokio::time::sleep(QUICK.duration + QUICK.renew).await;
        assert!(first.is_leader() && !second.is_leader(), "renewals keep the Lease");

        let mut watch = first.watch();
        first.release().await;
        assert_eq!(*watch.borrow_and_update(), Leadership::Standby { holder: None });
        let handed_over = tokio::time::Instant::now();
        until("the second leads", || second.is_leader()).await;
        assert!(handed_over.elapsed() < QUICK.duration, "it took {:?}", handed_over.elapsed());
        assert_eq!(server.holder(), "second");
    }

    #[tokio::test]
    async fn a_leader_whose_renewals_hang_stops_before_another_takes_over() {
        let server = Server::default();
        let client = server.start().await;
        let first = contend(&client, "first");
        until("the first leads", || first.is_leader()).await;
        server.change(|cluster| cluster.hangs = true);
        until("the first knows that it does not lead", || !first.is_leader()).await;
        let mut watch = first.watch();
        let told = watch.wait_for(|told| matches!(told, Leadership::Standby { .. }));
        drop(tokio::time::timeout(Duration::from_secs(5), told).await.expect("watchers are told too"));

        server.change(|cluster| cluster.hangs = false);
        until("it takes back what nobody took", || first.is_leader()).await;
    }

    #[tokio::test]
    async fn a_leader_that_dies_is_followed_after_the_leases_duration() {
        let server = Server::default();
        let client = server.start().await;
        let first = contend(&client, "first");
        until("the first leads", || first.is_leader()).await;
        let second = contend(&client, "second");
        until("the second has seen it", || *second.watch().borrow() != Leadership::Standby { holder: None }).await;
        let died = tokio::time::Instant::now();
        drop(first);
        until("the second leads", || second.is_leader()).await;
        let took = died.elapsed();
        assert!(took >= QUICK.kept, "it took over after {took:?} only");
        let transitions = server.0.lock().unwrap().lease.as_ref().unwrap()["spec"]["leaseTransitions"].clone();
        assert_eq!(transitions, 1);
    }

    #[tokio::test]
    async fn a_lease_that_is_taken_or_deleted_by_force_is_noticed_at_the_next_renewal() {
        let server = Server::default();
        let client = server.start().await;
        let first = contend(&client, "first");
        until("the first leads", || first.is_leader()).await;
        server.change(|cluster| {
            let lease = cluster.lease.as_mut().unwrap();
            lease["spec"]["holderIdentity"] = "thief".into();
            lease["metadata"]["resourceVersion"] = "1000".into();
        });
        until("it stands by", || *first.watch().borrow() == Leadership::Standby { holder: Some("thief".into()) }).await;
        server.change(|cluster| cluster.lease = None);
        until("it is created anew", || first.is_leader() && server.holder() == "first").await;
        server.change(|cluster| cluster.lease = None);
        until("it is created anew while leading", || server.holder() == "first").await;
        assert!(first.is_leader());
    }

    #[tokio::test]
    async fn a_refusal_is_not_leadership_and_is_tried_again_at_a_measured_pace() {
        let server = Server::default();
        let client = server.start().await;
        for code in [403, 404, 500] {
            server.change(|cluster| cluster.refuses = Some(code));
            let handle = contend(&client, "first");
            let before = server.1.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(550)).await;
            let requests = server.1.load(Ordering::Relaxed) - before;
            assert!(!handle.is_leader(), "after {code}");
            assert!((1..=20).contains(&requests), "{requests} requests after {code}");
        }
    }
}
