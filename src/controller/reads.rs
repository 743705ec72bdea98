//! Which token Secret is read next, and which refreshes are held back until it is: who expires first is known only
//! when those that may expire sooner were read.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::agenda::Id;

/// Reads under way at most.
const MOST_AT_ONCE: usize = 16;

/// The longest that refreshes are held back for reads: one that hangs, or a fleet of which none was read yet, is not to
/// hold up everybody else.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// A place in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// When the token expires as far as is known, in Unix seconds.
    expires_at: i64,
    /// The integration.
    pub id: Id,
}

/// Reads that wait and reads under way, the soonest expiry first.
#[derive(Default)]
pub(super) struct Reads {
    waiting: BTreeSet<Turn>,
    under_way: BTreeSet<Turn>,
    /// Since when refreshes are held back. Once, until no read is left: where some read always hangs, it is not to cost
    /// each refresh this long.
    holds_since: Option<Instant>,
}

impl Reads {
    /// Puts a read in line. What is not known to expire later counts as expiring now.
    pub(super) fn push(&mut self, expires_at: i64, id: Id) {
        self.waiting.insert(Turn { expires_at, id });
    }

    /// Takes the next read that may start.
    pub(super) fn start_next(&mut self) -> Option<Turn> {
        if self.under_way.len() >= MOST_AT_ONCE {
            return None;
        }
        let next = self.waiting.pop_first()?;
        self.under_way.insert(next);
        Some(next)
    }

    /// One that [`Self::start_next`] gave is over.
    pub(super) fn end(&mut self, turn: Turn) {
        self.under_way.remove(&turn);
        if self.under_way.is_empty() && self.waiting.is_empty() {
            self.holds_since = None;
        }
    }

    /// Is a refresh of a token that expires then held back, for a read that may tell of one that expires sooner?
    pub(super) fn hold_back(&mut self, expires_at: i64, now: Instant) -> bool {
        let first = self.under_way.first().into_iter().chain(self.waiting.first()).min();
        if first.is_none_or(|first| first.expires_at >= expires_at) {
            return false;
        }
        now < *self.holds_since.get_or_insert(now) + LONGEST_HOLD
    }

    /// When what is held back may start all the same.
    pub(super) fn hold_until(&self, now: Instant) -> Option<Instant> {
        self.holds_since.map(|since| since + LONGEST_HOLD).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soonest_expiry_is_read_first_and_so_many_at_once() {
        let mut reads = Reads::default();
        for id in 0..20 {
            reads.push(100 - i64::from(id), id);
        }
        let started: Vec<_> = std::iter::from_fn(|| reads.start_next()).collect();
        assert_eq!(started.len(), MOST_AT_ONCE);
        assert_eq!(started[0], Turn { expires_at: 81, id: 19 });
        reads.end(started[3]);
        assert_eq!(reads.start_next(), Some(Turn { expires_at: 97, id: 3 }));
        assert_eq!(reads.start_next(), None);
    }

    #[test]
    fn a_refresh_waits_for_reads_of_what_may_expire_sooner_and_for_no_others() {
        let mut reads = Reads::default();
        let now = Instant::now();
        assert!(!reads.hold_back(51, now), "nothing is read");
        reads.push(50, 1);
        assert!(!reads.hold_back(50, now) && !reads.hold_back(49, now), "they expire no later");
        assert!(reads.hold_back(51, now), "one waits to be read");
        let read = reads.start_next().expect("one waits");
        assert!(reads.hold_back(51, now), "one is being read");
        reads.end(read);
        assert!(!reads.hold_back(51, now));
    }

    #[test]
    fn what_is_held_back_is_so_once_until_all_are_read() {
        let mut reads = Reads::default();
        let now = Instant::now();
        reads.push(1, 1);
        let hangs = reads.start_next().expect("one waits");
        assert!(reads.hold_back(2, now));
        let until = reads.hold_until(now).expect("it ends");
        assert!(!reads.hold_back(2, until), "long enough");
        reads.push(2, 2);
        let read = reads.start_next().expect("one waits");
        assert!(!reads.hold_back(3, until), "another read is no reason to begin anew");
        reads.end(read);
        assert!(!reads.hold_back(3, until), "the first one hangs still");
        reads.end(hangs);
        reads.push(1, 1);
        assert!(reads.hold_back(2, until), "all had been read");
    }
}
