//! The one file that reads a clock of the machine.
//!
//! Everything that decides gets the time passed to it, so it can be tested as a table. Two clocks are
//! read, for two questions:
//!
//! - **wall time** ([`Clock::now`]): what tokens' expiries are written in. It can jump: a person, NTP or a
//!   virtual machine's host may set it.
//! - **boot time** ([`Clock::boottime`]): how long ago something was. It never goes back and, unlike
//!   [`std::time::Instant`] on Linux, goes on while the machine is suspended, so that a deadline is over
//!   when it is over for the rest of the world too.
//!
//! [`Drift`] notices when the two part.

use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Reads the clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock;

impl Clock {
    /// Wall time, UTC.
    #[must_use]
    pub fn now() -> DateTime<Utc> {
        Utc::now()
    }

    /// Wall time, UTC, rounded down to whole seconds: what statuses and annotations store. Comparing with
    /// a stored time is only right at the precision it was stored with.
    #[must_use]
    pub fn now_seconds() -> DateTime<Utc> {
        Utc::now().trunc_subsecs(0)
    }

    /// Time since this machine started, suspends included. Never goes back; means nothing on another
    /// machine or after a reboot.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn boottime() -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Neither can be negative for these clocks; zero would only make every deadline long.
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        Duration::new(seconds, nanos)
    }

    /// Time that this process has spent computing, in user code and in the kernel. Told on Linux alone, where the
    /// operator runs.
    #[must_use]
    pub fn process_cpu() -> Option<Duration> {
        #[cfg(target_os = "linux")]
        {
            let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            let (seconds, nanos) = (u64::try_from(spent.tv_sec).ok()?, u32::try_from(spent.tv_nsec).ok()?);
            Some(Duration::new(seconds, nanos))
        }
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Time since this process first asked. It goes on in a suspend or not, as the system has it: only developers run
    /// the operator elsewhere than on Linux.
    #[cfg(not(target_os = "linux"))]
    #[must_use]
    pub fn boottime() -> Duration {
        static FIRST: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
        FIRST.elapsed()
    }
}

/// How far the two clocks may part before it counts as a jump. Wide enough that NTP's usual corrections
/// are not reported, narrow beside the smallest window of a token (5 minutes).
pub const JUMP_THRESHOLD: TimeDelta = TimeDelta::seconds(60);

/// Wall time was set while this process ran: every wake-up computed from it must be computed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// How far wall time moved beyond the time that really passed; negative if it was set back.
    pub by: TimeDelta,
}

/// Notices that wall time was set.
///
/// Look at it regularly (say, whenever a timer fires). It compares with the moment of its start or of the
/// last jump it told, not with the last look: many small steps are a jump as well.
#[derive(Clone, Copy, Debug)]
pub struct Drift {
    wall: DateTime<Utc>,
    boot: Duration,
}

impl Drift {
    /// Starts from how the clocks stand now.
    #[must_use]
    pub fn start() -> Self {
        Self { wall: Clock::now(), boot: Clock::boottime() }
    }

    /// Reads both clocks; a jump is told once.
    pub fn look(&mut self) -> Option<Jump> {
        self.compare(Clock::now(), Clock::boottime())
    }

    fn compare(&mut self, wall: DateTime<Utc>, boot: Duration) -> Option<Jump> {
        let passed = TimeDelta::from_std(boot.saturating_sub(self.boot)).unwrap_or(TimeDelta::MAX);
        let by = wall.signed_duration_since(self.wall).checked_sub(&passed).unwrap_or(TimeDelta::MIN);
        if by.abs() <= JUMP_THRESHOLD {
            return None;
        }
        *self = Self { wall, boot };
        Some(Jump { by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, boot: u64) -> (DateTime<Utc>, Duration) {
        (DateTime::from_timestamp(wall, 0).unwrap(), Duration::from_secs(boot))
    }

    #[test]
    fn boot_time_goes_on_and_whole_seconds_have_no_rest() {
        let before = Clock::boottime();
        std::thread::sleep(Duration::from_millis(2));
        assert!(Clock::boottime() > before);
        assert_eq!(Clock::now_seconds().timestamp_subsec_nanos(), 0);
    }

    #[test]
    fn a_jump_is_told_once_with_its_size() {
        // (sentence, wall and boot seconds after the start, what is told)
        for (sentence, wall, boot, told) in [
            ("nothing happened", 3600, 3600, None),
            ("a correction by NTP", 3660, 3600, None),
            ("set ahead by two hours", 10_800, 3600, Some(7200)),
            ("set back by two hours", -3600, 3600, Some(-7200)),
            ("just over the threshold", 3661, 3600, Some(61)),
        ] {
            let (start_wall, start_boot) = at(1_700_000_000, 500);
            let mut drift = Drift { wall: start_wall, boot: start_boot };
            let (wall, boot) = at(1_700_000_000 + wall, 500 + boot);
            let jump = drift.compare(wall, boot);
            assert_eq!(jump.map(|jump| jump.by.num_seconds()), told, "{sentence}");
            assert_eq!(drift.compare(wall, boot), None, "{sentence}: told twice");
        }
    }

    #[test]
    fn many_small_steps_add_up_to_a_jump() {
        let (wall, boot) = at(1_700_000_000, 0);
        let mut drift = Drift { wall, boot };
        let told: Vec<i64> = (1..=4)
            .filter_map(|step| {
                let (wall, boot) = at(1_700_000_000 + step * 50, 10 * u64::try_from(step).unwrap());
                drift.compare(wall, boot).map(|jump| jump.by.num_seconds())
            })
            .collect();
        assert_eq!(told, [80, 80]);
    }
}
