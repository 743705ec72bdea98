//! Restarts of the workloads that an integration names, each once for each rotation of its tokens.
//!
//! What is owed is told by comparing: the rotation that stands on the token Secret with the one that the status says
//! all targets were restarted for. So a crash anywhere between loses no restart; and one that is sent again makes no
//! second one, as the value that it writes is the rotation's own. A refresh never waits for any of it.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

use super::absence::Failed;
use super::agenda::{Entry, Id, Known};
use super::{Controller, Message};
use crate::api::{RolloutRestart, RolloutRestartTarget};
use crate::clock::Clock;
use crate::cluster::{ApiError, Event, EventKind};
use crate::tokens::Digest;

/// Integrations whose targets are restarted at the same time at most: refreshes need the API server more.
pub(super) const MOST_AT_ONCE: usize = 4;

/// The first pause after a failure, in seconds; each further one is twice as long.
const FIRST_PAUSE: i64 = 5;

/// The longest pause, in seconds.
const LONGEST_PAUSE: i64 = 10 * 60;

/// Tries for one rotation, over some 4 hours. A process begins to count anew, and so does the end of the API server's absence.
const MOST_TRIES: u32 = 30;

/// Failures that are told one by one.
const MOST_TOLD: usize = 3;

/// What an integration wants restarted, and how far that is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rollout {
    targets: Vec<RolloutRestartTarget>,
    round: Option<Round>,
    under_way: bool,
    /// What could not be restarted, in words.
    problem: Option<Box<str>>,
}

/// The restarts for one rotation.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Round {
    rotation: Box<str>,
    left: Vec<RolloutRestartTarget>,
    tries: u32,
    next_at: i64,
}

/// A try to restart what an integration names is over.
pub(super) struct Restarted {
    id: Id,
    uid: Box<str>,
    rotation: Box<str>,
    failed: Vec<(RolloutRestartTarget, ApiError)>,
}

impl Rollout {
    /// What a spec asks for; `None` where it names nothing.
    pub(super) fn of(targets: &[RolloutRestartTarget]) -> Option<Box<Self>> {
        let new = Self { targets: targets.to_vec(), round: None, under_way: false, problem: None };
        (!targets.is_empty()).then(|| Box::new(new))
    }

    /// Takes over what the spec names now. One that is new in it was not there when the tokens changed, and is left alone.
    pub(super) fn change(before: &mut Option<Box<Self>>, targets: &[RolloutRestartTarget]) {
        match before {
            Some(before) if before.targets == targets => {}
            Some(before) if !targets.is_empty() => {
                before.targets = targets.to_vec();
                if let Some(round) = &mut before.round {
                    round.left.retain(|target| targets.contains(target));
                }
                before.end_pause();
            }
            before => *before = Self::of(targets),
        }
    }

    /// Lets what could not be restarted be tried anew, at once.
    pub(super) fn end_pause(&mut self) {
        if let Some(round) = &mut self.round {
            (round.tries, round.next_at) = (0, i64::MIN);
        }
    }

    /// What could not be restarted, in words.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

/// The rotation that made the pair in the token Secret, as the annotation says it; `None` where somebody else put the
/// pair there, or put it back.
///
/// Two may end in one second, of two integrations that name one workload, too: the fraction tells them apart.
fn rotation(entry: &Entry) -> Option<(i64, String)> {
    let facts = &entry.known.held()?.facts;
    let at = facts.born_at.filter(|_| !facts.known_spent)?;
    Some((at, value_of(at, facts.pair)?))
}

fn value_of(at: i64, pair: Digest) -> Option<String> {
    let microseconds = u32::try_from(pair.seed() % 1_000_000).ok()?;
    Some(DateTime::from_timestamp(at, microseconds * 1_000)?.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// The rotation for which targets are still to be restarted.
fn owed(entry: &Entry) -> Option<String> {
    let (at, value) = rotation(entry).filter(|_| entry.rollout.is_some())?;
    let is_owed = match &entry.status.rollout_restart {
        Some(done) => done.restarted_at.as_deref() != Some(&*value),
        // An earlier process was stopped in the very first refresh, before it wrote a status: the spec has had these
        // targets from the first.
        None => entry.generation == 1 && at >= entry.created_at,
    };
    is_owed.then_some(value)
}

/// What the status is to say. Where the spec first has targets, what was rotated before is none of theirs.
pub(super) fn standing(entry: &Entry) -> Option<RolloutRestart> {
    entry.rollout.as_ref()?;
    if let Some(before) = &entry.status.rollout_restart {
        return Some(before.clone());
    }
    let is_known = match &entry.known {
        Known::Unread | Known::Forbidden(_) => false,
        Known::NotFound | Known::Missing(_) => true,
        Known::Held(held) => !held.facts.known_spent,
    };
    let last = rotation(entry).map(|(_, value)| value).filter(|_| owed(entry).is_none());
    is_known.then_some(RolloutRestart { restarted_at: last })
}

fn pause_after(tries: u32) -> i64 {
    FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

impl Controller {
    /// Begins the restarts that are owed; gives when they are to be looked at again.
    pub(super) fn restart_what_is_owed(&self, entry: &mut Entry, id: Id, now: i64) -> Option<i64> {
        let owed = owed(entry);
        let (namespace, uid) = (Arc::clone(&entry.namespace), entry.uid.clone());
        let rollout = entry.rollout.as_deref_mut()?;
        if rollout.under_way {
            return None;
        }
        let Some(owed) = owed else {
            (rollout.round, rollout.problem) = (None, None);
            return None;
        };
        let targets = &rollout.targets;
        let round = match &mut rollout.round {
            Some(round) if *round.rotation == *owed => round,
            round => round.insert(Round { rotation: owed.into(), left: targets.clone(), tries: 0, next_at: i64::MIN }),
        };
        if round.tries >= MOST_TRIES {
            return None;
        }
        if round.next_at > now {
            return Some(round.next_at);
        }
        rollout.under_way = true;
        let (rotation, left) = (round.rotation.clone(), round.left.clone());
        let (shared, tell, permits) = (Arc::clone(&self.shared), self.tell.clone(), Arc::clone(&self.restarts));
        tokio::spawn(async move {
            // It is never closed.
            let _permit = permits.acquire_owned().await;
            let mut failed = Vec::new();
            for target in left {
                if let Err(error) = shared.cluster.restart(&namespace, &target, &rotation).await {
                    failed.push((target, error));
                }
            }
            drop(tell.send(Message::Restarted(Box::new(Restarted { id, uid, rotation, failed }))));
        });
        None
    }

    pub(super) fn on_restarted(&mut self, restarted: Restarted) {
        let Restarted { id, uid, rotation, failed } = restarted;
        let is_server_away = {
            let mut agenda = self.agenda.lock();
            let Some(entry) = agenda.get_mut(id).filter(|entry| entry.uid == uid) else { return };
            let (regarding, namespace, name) = (entry.regarding(), &entry.namespace, &entry.name);
            let Some(rollout) = entry.rollout.as_deref_mut() else { return };
            rollout.under_way = false;
            let Some(round) = rollout.round.as_mut().filter(|round| round.rotation == rotation) else { return };
            let failed: Vec<_> = failed.into_iter().filter(|(target, _)| rollout.targets.contains(target)).collect();
            let is_server_away = failed.iter().any(|(_, error)| error.is_server_away());
            if failed.is_empty() {
                tracing::info!(%namespace, %name, restarted_at = %rotation, "what uses the tokens was restarted");
                (rollout.round, rollout.problem) = (None, None);
                entry.status.rollout_restart = Some(RolloutRestart { restarted_at: Some(rotation.into()) });
            } else {
                self.metrics.reconcile_failed("rollout-restart");
                round.tries += 1;
                round.next_at = Clock::now().timestamp() + pause_after(round.tries);
                let problem: Box<str> = problem_of(&failed, round.tries < MOST_TRIES).into();
                round.left = failed.into_iter().map(|(target, _)| target).collect();
                if round.tries == 1 || rollout.problem.as_ref() != Some(&problem) {
                    tracing::warn!(%namespace, %name, restarted_at = %rotation, "{problem}");
                    self.events.publish(Event::now(regarding, EventKind::RolloutRestartFailed, problem.to_string()));
                }
                rollout.problem = Some(problem);
            }
            is_server_away
        };
        if is_server_away {
            self.suspect_absence(Some(Failed::Restart(id)));
        }
        self.evaluate(id);
        self.write_status_after_stop(id);
    }
}

fn problem_of(failed: &[(RolloutRestartTarget, ApiError)], again: bool) -> String {
    let mut told: Vec<_> = failed.iter().take(MOST_TOLD).map(|(target, error)| why(target, error)).collect();
    if failed.len() > MOST_TOLD {
        told.push(format!("{} more were not restarted", failed.len() - MOST_TOLD));
    }
    let next =
        if again { "it is tried again" } else { "it is tried again after the next refresh, or a change of the spec" };
    format!("{}; {next}", told.join("; "))
}

fn why(target: &RolloutRestartTarget, error: &ApiError) -> String {
    let (kind, name) = (target.kind.as_str(), &target.name);
    match error {
        ApiError::NotFound => {
            format!(
                "{kind} {name} was not restarted, as there is none: create it, or correct spec.rolloutRestartTargets"
            )
        }
        ApiError::Forbidden(text) => format!(
            "{kind} {name} was not restarted: allow the operator to patch {} (chart: rolloutRestart.enabled=true): {text}",
            target.kind.plural()
        ),
        _ => format!("{kind} {name} was not restarted: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::WorkloadKind;

    fn target(name: &str) -> RolloutRestartTarget {
        RolloutRestartTarget { kind: WorkloadKind::Deployment, name: name.to_owned() }
    }

    #[test]
    fn a_rotation_is_told_from_another_one_of_the_same_second() {
        let value = |byte| value_of(1_736_951_425, Digest::from_bytes([byte; 16])).unwrap();
        assert_ne!(value(1), value(2));
        assert_eq!(value(1), value(1));
        let read = DateTime::parse_from_rfc3339(&value(1)).unwrap();
        assert_eq!(read.timestamp(), 1_736_951_425);
    }

    #[test]
    fn pauses_grow_and_stay_within_ten_minutes() {
        assert_eq!([1, 2, 3, 7, 8, MOST_TRIES].map(pause_after), [5, 10, 20, 320, 600, 600]);
    }

    #[test]
    fn a_failure_says_what_to_allow_or_to_create_and_not_every_one_of_many() {
        let failed = |name, error| (target(name), error);
        let text = problem_of(&[failed("a", ApiError::Forbidden("no".into())), failed("b", ApiError::NotFound)], true);
        assert!(text.contains("allow the operator to patch deployments") && text.contains("Deployment b"), "{text}");
        let many: Vec<_> = (0..9).map(|n| failed(if n < 3 { "told" } else { "counted" }, ApiError::Busy)).collect();
        let text = problem_of(&many, false);
        assert!(text.contains("6 more") && !text.contains("counted") && text.contains("next refresh"), "{text}");
    }

    #[test]
    fn one_that_was_given_up_is_tried_anew_when_its_pause_is_ended() {
        let mut rollout = Rollout::of(&[target("a")]).unwrap();
        rollout.end_pause();
        assert_eq!(rollout.round, None, "nothing is owed");
        let round = |tries, next_at| Some(Round { rotation: "r".into(), left: vec![target("a")], tries, next_at });
        rollout.round = round(MOST_TRIES, i64::MAX);
        rollout.end_pause();
        assert_eq!(rollout.round, round(0, i64::MIN));
    }

    #[test]
    fn a_target_that_is_new_in_the_spec_is_not_restarted_for_what_was_before_it() {
        let mut rollout = Rollout::of(&[target("a"), target("b")]);
        rollout.as_mut().unwrap().round = Some(Round {
            rotation: "r".into(),
            left: vec![target("a"), target("b")],
            tries: MOST_TRIES,
            next_at: i64::MAX,
        });
        Rollout::change(&mut rollout, &[target("b"), target("c")]);
        let round = rollout.as_ref().unwrap().round.as_ref().unwrap();
        assert_eq!((&*round.left, round.tries), (&[target("b")][..], 0));
        Rollout::change(&mut rollout, &[]);
        assert!(rollout.is_none());
    }
}
