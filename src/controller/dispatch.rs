//! Which refresh starts next: the soonest expiry first, within each app key's rate limit, with a
//! pause for everyone on that app key when TikTok says that there were too many requests. Checks of shops stand in the
//! same line, behind all refreshes.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, Utc};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use super::agenda::Id;

/// Longest pause that an answer of TikTok may impose.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Pause where TikTok says "too many" and not how long to wait.
const USUAL_PAUSE: Duration = Duration::from_secs(10);

/// The refreshes that wait on one app key.
struct Bucket {
    limiter: DefaultDirectRateLimiter,
    waiting: BTreeSet<(i64, Id)>,
    blocked_until: Option<Instant>,
    /// When TikTok's pause is over, in Unix seconds: for what is said of it.
    paused_until: Option<i64>,
}

impl Bucket {
    fn new(quota: Quota) -> Self {
        Self { limiter: RateLimiter::direct(quota), waiting: BTreeSet::new(), blocked_until: None, paused_until: None }
    }
}

/// The refreshes that wait, by app key.
pub(super) struct Dispatch {
    quota: Quota,
    clock: DefaultClock,
    buckets: HashMap<Box<str>, Bucket>,
    /// The soonest expiry of each app key that may start one now.
    heads: BTreeSet<(i64, Box<str>)>,
    /// App keys that may not, and until when.
    blocked: BTreeSet<(Instant, Box<str>)>,
    /// Where each stands in line.
    places: HashMap<Id, (Box<str>, i64)>,
}

impl Dispatch {
    /// With this many requests a second for each app key.
    pub(super) fn new(requests_per_second: f64) -> Self {
        let period = Duration::from_secs_f64(1.0 / requests_per_second);
        // A tenth of a second's worth at once, so that timers of a millisecond do not slow it down.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the setting's range")]
        let burst = NonZeroU32::new((requests_per_second / 10.0) as u32).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period).unwrap_or(Quota::per_second(NonZeroU32::MIN)).allow_burst(burst);
        Self {
            quota,
            clock: DefaultClock::default(),
            buckets: HashMap::new(),
            heads: BTreeSet::new(),
            blocked: BTreeSet::new(),
            places: HashMap::new(),
        }
    }

    /// Puts a refresh in line.
    pub(super) fn push(&mut self, app_key: &str, priority: i64, id: Id) {
        self.forget(id);
        self.places.insert(id, (app_key.into(), priority));
        let bucket = self.buckets.entry(app_key.into()).or_insert_with(|| Bucket::new(self.quota));
        let head = bucket.waiting.first().copied();
        bucket.waiting.insert((priority, id));
        if bucket.blocked_until.is_none() {
            if let Some((priority, _)) = head {
                self.heads.remove(&(priority, app_key.into()));
            }
            if let Some(&(priority, _)) = bucket.waiting.first() {
                self.heads.insert((priority, app_key.into()));
            }
        }
    }

    /// Takes the next refresh that may start now, and spends a permit on it. Where something else holds back those of
    /// the next priority, none may.
    pub(super) fn pop(&mut self, now: Instant, mut is_held_back: impl FnMut(i64) -> bool) -> Option<Id> {
        while let Some(next) = self.next_priority(now) {
            if is_held_back(next) {
                return None;
            }
            let (_, app_key) = self.heads.pop_first()?;
            let Some(bucket) = self.buckets.get_mut(&app_key) else { continue };
            match bucket.limiter.check() {
                Ok(()) => {
                    let id = bucket.waiting.pop_first().map(|(_, id)| id);
                    if let Some(&(priority, _)) = bucket.waiting.first() {
                        self.heads.insert((priority, app_key));
                    }
                    if let Some(id) = id {
                        self.places.remove(&id);
                        return Some(id);
                    }
                }
                Err(not_until) => {
                    let until = now + not_until.wait_time_from(self.clock.now());
                    bucket.blocked_until = Some(until);
                    self.blocked.insert((until, app_key));
                }
            }
        }
        None
    }

    /// The priority of what comes next of all that may start, as far as pauses are concerned.
    pub(super) fn next_priority(&mut self, now: Instant) -> Option<i64> {
        self.unblock(now);
        self.heads.first().map(|(priority, _)| *priority)
    }

    /// When a refresh that waits for a permit may start.
    pub(super) fn next_permit(&self) -> Option<Instant> {
        self.blocked.first().map(|(until, _)| *until)
    }

    /// Until when nothing may start on an app key, in Unix seconds, where TikTok asked for a pause.
    pub(super) fn paused_until(&self, app_key: &str) -> Option<i64> {
        self.buckets.get(app_key)?.paused_until
    }

    /// Lets nothing start on an app key for a while: until the next whole second of the wall clock, at which all wake that
    /// left the line meanwhile. Else those few that did not would go before them.
    pub(super) fn pause(
        &mut self,
        app_key: &str,
        retry_after: Option<Duration>,
        now: Instant,
        wall_clock: DateTime<Utc>,
    ) {
        let pause = retry_after.unwrap_or(USUAL_PAUSE).min(LONGEST_PAUSE);
        let over_at = wall_clock + pause;
        let to_next_second =
            Duration::from_secs(1).saturating_sub(Duration::from_nanos(over_at.timestamp_subsec_nanos().into()));
        let until = now + pause + to_next_second;
        let bucket = self.buckets.entry(app_key.into()).or_insert_with(|| Bucket::new(self.quota));
        match bucket.blocked_until {
            Some(before) if before >= until => return,
            Some(before) => {
                self.blocked.remove(&(before, app_key.into()));
            }
            None => {
                if let Some(&(priority, _)) = bucket.waiting.first() {
                    self.heads.remove(&(priority, app_key.into()));
                }
            }
        }
        bucket.blocked_until = Some(until);
        bucket.paused_until = Some(over_at.timestamp().saturating_add(1));
        self.blocked.insert((until, app_key.into()));
    }

    /// Takes one out of the line.
    pub(super) fn forget(&mut self, id: Id) {
        let Some((app_key, priority)) = self.places.remove(&id) else { return };
        let Some(bucket) = self.buckets.get_mut(&app_key) else { return };
        let head = bucket.waiting.first().copied();
        bucket.waiting.remove(&(priority, id));
        if head == Some((priority, id)) && bucket.blocked_until.is_none() {
            self.heads.remove(&(priority, app_key.clone()));
            if let Some(&(priority, _)) = bucket.waiting.first() {
                self.heads.insert((priority, app_key));
            }
        }
    }

    /// Takes all that wait out of the line.
    pub(super) fn clear(&mut self) -> Vec<Id> {
        self.heads.clear();
        self.places.clear();
        self.buckets.values_mut().flat_map(|bucket| std::mem::take(&mut bucket.waiting)).map(|(_, id)| id).collect()
    }

    fn unblock(&mut self, now: Instant) {
        while self.blocked.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, app_key)) = self.blocked.pop_first() else { return };
            let Some(bucket) = self.buckets.get_mut(&app_key) else { continue };
            bucket.blocked_until = None;
            bucket.paused_until = None;
            if let Some(&(priority, _)) = bucket.waiting.first() {
                self.heads.insert((priority, app_key));
            } else if bucket.limiter.check().is_ok() {
                // Nothing waits and permits are there: as good as new.
                self.buckets.remove(&app_key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pop(line: &mut Dispatch, now: Instant) -> Option<Id> {
        line.pop(now, |_| false)
    }

    #[tokio::test]
    async fn the_soonest_expiry_goes_first_over_all_app_keys() {
        let mut line = Dispatch::new(1000.0);
        line.push("a", 30, 1);
        line.push("b", 10, 2);
        line.push("a", 20, 3);
        let now = Instant::now();
        assert_eq!(
            [pop(&mut line, now), pop(&mut line, now), pop(&mut line, now), pop(&mut line, now)],
            [Some(2), Some(3), Some(1), None]
        );
    }

    #[tokio::test]
    async fn an_app_key_without_a_permit_does_not_hold_up_another() {
        let mut line = Dispatch::new(1.0);
        line.push("a", 1, 1);
        line.push("a", 2, 2);
        line.push("b", 3, 3);
        let now = Instant::now();
        assert_eq!(pop(&mut line, now), Some(1));
        assert_eq!(pop(&mut line, now), Some(3), "a's second permit comes later");
        assert_eq!(pop(&mut line, now), None);
        assert!(line.next_permit().is_some_and(|at| at > now));
    }

    #[tokio::test]
    async fn what_is_held_back_holds_back_all_that_come_later_of_other_app_keys_too() {
        let mut line = Dispatch::new(1.0);
        line.push("a", 1, 1);
        line.push("a", 2, 2);
        line.push("b", 4, 3);
        let now = Instant::now();
        let before_3 = |priority| priority > 3;
        assert_eq!(line.pop(now, before_3), Some(1));
        assert_eq!(line.pop(now, before_3), None, "a has no permit, and b's turn has not come");
        assert_eq!(pop(&mut line, now), Some(3));
    }

    #[tokio::test]
    async fn a_pause_stops_everyone_on_that_app_key_and_ends() {
        let mut line = Dispatch::new(100.0);
        line.push("a", 1, 1);
        line.push("b", 2, 2);
        let now = Instant::now();
        let wall_clock = DateTime::from_timestamp_millis(100_300).expect("a time");
        line.pause("a", Some(Duration::from_secs(7)), now, wall_clock);
        assert_eq!(line.paused_until("a"), Some(108));
        assert_eq!(line.paused_until("b"), None);
        assert_eq!(pop(&mut line, now), Some(2));
        assert_eq!(pop(&mut line, now), None);
        assert_eq!(pop(&mut line, now + Duration::from_millis(7_699)), None, "those that wake at 108 are to be there");
        assert_eq!(pop(&mut line, now + Duration::from_millis(7_700)), Some(1));
        assert_eq!(line.paused_until("a"), None);
    }

    #[tokio::test]
    async fn a_check_stands_behind_every_refresh_and_is_told_from_one() {
        use super::super::shops::CHECKS_FROM;
        let mut line = Dispatch::new(1000.0);
        let now = Instant::now();
        line.push("a", CHECKS_FROM, 1);
        assert_eq!(line.next_priority(now), Some(CHECKS_FROM));
        line.push("a", 4_000_000_000, 2);
        assert_eq!(line.next_priority(now), Some(4_000_000_000));
        // The same integration: its refresh takes the place of its check.
        line.push("a", 3, 1);
        assert_eq!([pop(&mut line, now), pop(&mut line, now), pop(&mut line, now)], [Some(1), Some(2), None]);
    }

    #[tokio::test]
    async fn a_shorter_pause_does_not_end_a_longer_one() {
        let mut line = Dispatch::new(100.0);
        let now = Instant::now();
        line.pause("a", Some(Duration::from_mins(1)), now, DateTime::UNIX_EPOCH);
        line.pause("a", Some(Duration::from_secs(1)), now, DateTime::UNIX_EPOCH);
        line.push("a", 1, 1);
        assert_eq!(pop(&mut line, now + Duration::from_secs(2)), None);
    }
}
