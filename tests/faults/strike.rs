//! How a fault is injected into one request: aimed before the refresh starts, struck while the
//! request is on its way.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tiktok_shop_testkit::{
    poll,
    proxy::{Hold, Proxy, RuleBuilder, RuleHandle, Seen},
    simulator::{Action, DropPoint, Fault as TikTokFault, Lie, Point, RetryAfter, RetryAfterStyle, Shop},
    steps,
};

use crate::{
    cells::{Cell, Fault, Step},
    lane::{Lane, SOON, wait_leads},
};

/// The refresh that is hit.
#[derive(Debug, Clone)]
pub struct Case {
    pub shop: String,
    /// The annotation that asks for it; none where the token is due, or a code is there.
    pub request: Option<String>,
    /// What the Secret was made with; none where it is an older one.
    pub made_with: Option<tiktok_shop_testkit::fixtures::SecretFixture>,
    /// The shop before it.
    pub before: Shop,
    pub variant: usize,
}

/// What is in place before the refresh starts.
pub struct Aimed {
    pub cell: Cell,
    name: String,
    how: How,
}

enum How {
    /// The request is held, at the API server's side or TikTok's.
    Held(Hold),
    /// A rule deals with it.
    Ruled(RuleHandle),
    /// TikTok does, by this fault of the simulator.
    TikTok(u64),
}

type Takes = Arc<dyn Fn(&Seen) -> bool + Send + Sync>;

/// Which requests a step is; for a gap, the one that it comes after.
fn takes(lane: &Lane, case: &Case, step: Step) -> Takes {
    let (namespace, shop) = (lane.namespace.as_str(), case.shop.as_str());
    match step {
        Step::Read => Arc::new(steps::read(namespace, shop)),
        Step::Rehearsal => Arc::new(steps::rehearsal(namespace, shop)),
        Step::Claim | Step::Intent => Arc::new(steps::fresh_claim(namespace, shop)),
        Step::Call | Step::Journal => Arc::new(steps::call()),
        Step::Persist => Arc::new(steps::persist(namespace, shop)),
        Step::Settle => Arc::new(steps::settle(namespace, shop)),
        Step::Status => {
            let (status, request) = (steps::status(namespace, shop), case.request.clone());
            // Of the status writes, the one that tells of this refresh.
            Arc::new(move |seen| {
                let told = &seen.json()["status"];
                status(seen)
                    && match &request {
                        Some(request) => told["lastHandledRefreshRequest"] == **request,
                        None => told["lastRefreshTime"].is_string(),
                    }
            })
        }
        Step::Event => {
            let (event, shop) = (steps::event(), shop.to_owned());
            Arc::new(move |seen| event(seen) && seen.json()["regarding"]["name"] == *shop)
        }
    }
}

/// The proxy that sees a step.
fn side(lane: &Lane, step: Step) -> &Proxy {
    if matches!(step, Step::Call | Step::Journal) { &lane.tiktok } else { &lane.api }
}

/// Puts a fault in place for the refresh that is to come.
pub async fn aim(lane: &Lane, case: &Case, cell: Cell, place: usize) -> Aimed {
    let Cell { step, fault } = cell;
    let name = format!("{cell} ({place})");
    let takes = takes(lane, case, step);
    let rule = |step| -> RuleBuilder<'_> {
        let takes = Arc::clone(&takes);
        side(lane, step).on(&name, move |seen: &Seen| takes(seen)).once()
    };
    if step == Step::Settle {
        // A call that gives no tokens, or there is nothing to settle.
        let action = match case.variant % 3 {
            0 => Action::code(77),
            1 => busy(),
            _ => Action::drop(DropPoint::BeforeProcessing),
        };
        lane.simulator.add_fault(TikTokFault::once(action).shop(&case.shop)).await;
    }
    let json_type = ("content-type", "application/json");
    let is_odd = case.variant % 2 == 1;
    let how = match fault {
        Fault::Internal => How::Ruled(rule(step).respond_status(500, "InternalError", "etcdserver: leader changed")),
        Fault::Busy if is_odd => How::Ruled(rule(step).respond_status(429, "TooManyRequests", "too many requests")),
        Fault::Busy => {
            let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "too many requests", "reason": "TooManyRequests", "code": 429});
            How::Ruled(rule(step).respond(429, &[json_type, ("retry-after", "1")], body.to_string()))
        }
        Fault::Conflict => How::Ruled(rule(step).respond_status(409, "Conflict", "the object has been modified")),
        // Longer than a claim may wait for its call, and not.
        Fault::Slow => How::Ruled(rule(step).delay(Duration::from_millis(if is_odd { 5_500 } else { 1_500 }))),
        Fault::CutAfter if is_odd => How::Ruled(rule(step).cut_mid_answer()),
        Fault::CutAfter => How::Ruled(rule(step).cut_after()),
        // It is refused once its claim stands.
        Fault::TikTokRefuses => {
            let claim = steps::fresh_claim(&lane.namespace, &case.shop);
            How::Held(lane.api.on(&name, claim).once().hold_after())
        }
        fault if fault.is_tiktoks() => {
            let action = tiktoks(fault, is_odd);
            How::TikTok(lane.simulator.add_fault(TikTokFault::once(action).shop(&case.shop)).await)
        }
        Fault::KillBefore => How::Held(rule(step).hold()),
        Fault::KillInFlight => How::Held(rule(step).forward_orphans().hold()),
        Fault::KillAfter => How::Held(rule(step).hold_after()),
        // After it was stored, an emptied Secret is a person's own loss.
        Fault::RecreatedEmpty if !step.is_gap() => How::Held(rule(step).hold()),
        _ if step.is_gap() || is_odd => How::Held(rule(step).hold_after()),
        _ => How::Held(rule(step).hold()),
    };
    Aimed { cell, name, how }
}

fn busy() -> Action {
    Action::too_many_requests(Some(RetryAfter { seconds: 1, style: RetryAfterStyle::Seconds }))
}

fn tiktoks(fault: Fault, is_odd: bool) -> Action {
    match fault {
        Fault::TikTokSlow => Action::delay(Point::AfterRotation, Duration::from_secs(1)),
        Fault::TikTokHangs if is_odd => Action::hang(Point::AfterRotation),
        Fault::TikTokHangs => Action::hang(Point::BeforeProcessing),
        Fault::TikTokLate => Action::delay(Point::AfterRotation, Duration::from_secs(3)),
        Fault::TikTokCuts => Action::drop(DropPoint::AfterRotation),
        Fault::TikTokCutsHalf => Action::drop(DropPoint::HalfAnswer),
        Fault::TikTokOldPair => Action::lie(Lie::OldPair),
        Fault::TikTokEmpty => Action::lie(Lie::EmptyTokens),
        Fault::TikTokInternal if is_odd => Action::http(500).after_rotating(),
        Fault::TikTokInternal => Action::http(500),
        Fault::TikTokBusy => busy(),
        Fault::TikTokHtml => Action::html(502),
        other => unreachable!("{other:?} is not TikTok's doing"),
    }
}

impl Aimed {
    /// Strikes once the request is there, and makes the world whole again. Gives the moment when it
    /// was; none where the request did not come in time, or the fault would have hit another moment
    /// than the one meant.
    pub async fn strike(self, lane: &mut Lane, case: &Case, within: Duration) -> Option<Instant> {
        let mut whole = None;
        let hit = self.hit(lane, case, within, &mut whole).await;
        hit.then(|| whole.unwrap_or_else(Instant::now))
    }

    async fn hit(&self, lane: &mut Lane, case: &Case, within: Duration, whole: &mut Option<Instant>) -> bool {
        match &self.how {
            How::Ruled(rule) => {
                let met = |seen: &Seen| {
                    let over = seen.answered.is_some() || seen.client_gone;
                    seen.rule.as_ref() == Some(&self.name) && over
                };
                let hit = lane.api.try_request(met, within).await.is_some();
                rule.remove();
                hit
            }
            How::TikTok(id) => {
                let met = poll::until(within, async || {
                    let faults = lane.simulator.faults().await;
                    faults.into_iter().find(|fault| fault.id == *id && fault.hits > 0).map(drop)
                });
                let hit = met.await.is_some() && lane.tiktok.count(steps::call()) > 0;
                lane.simulator.clear_fault(*id).await;
                hit
            }
            How::Held(hold) => {
                let Some(seen) = hold.try_held(within).await else {
                    hold.release();
                    return false;
                };
                if self.cell.step.is_gap() && !self.enter_gap(lane, case, hold, &seen).await {
                    lane.first().resume();
                    return false;
                }
                self.deed(lane, case, hold, whole).await
            }
        }
    }

    /// Lets the answer through to a process that stands still, so that it stands in the gap.
    async fn enter_gap(&self, lane: &Lane, case: &Case, hold: &Hold, held: &Seen) -> bool {
        lane.first().pause();
        hold.release();
        let there = |seen: &Seen| seen.seq == held.seq && seen.delivered;
        side(lane, self.cell.step).try_request(there, SOON).await.is_some() && !self.left_gap(lane, case)
    }

    /// Has the request come that ends the gap?
    fn left_gap(&self, lane: &Lane, case: &Case) -> bool {
        match self.cell.step {
            Step::Intent => lane.tiktok.count(steps::call()) > 0,
            _ => lane.api.count(steps::persist(&lane.namespace, &case.shop)) > 0,
        }
    }

    /// Lets the transaction go on.
    fn go(&self, lane: &Lane, hold: &Hold) {
        hold.release();
        if self.cell.step.is_gap() {
            lane.first().resume();
        }
    }

    #[allow(clippy::too_many_lines, reason = "each fault in its place, one after the other")]
    async fn deed(&self, lane: &mut Lane, case: &Case, hold: &Hold, whole: &mut Option<Instant>) -> bool {
        let (shop, is_odd) = (case.shop.as_str(), case.variant % 2 == 1);
        if self.cell.fault.replaces_tokens() {
            lane.replaced_at.get_or_insert_with(chrono::Utc::now);
        }
        match self.cell.fault {
            Fault::KillBefore | Fault::KillInFlight | Fault::KillAfter => {
                return self.kill(lane, case, hold, whole).await;
            }
            Fault::Stop => {
                lane.first().pause();
                let from = Instant::now();
                // What is on its way arrives in the socket of a process that stands still.
                hold.release();
                tokio::time::sleep(Duration::from_secs(3)).await;
                lane.first().resume();
                lane.stops.push((from, Instant::now()));
            }
            Fault::StopOverLease => self.stop_over_lease(lane, case, hold).await,
            Fault::Refused => {
                lane.api.pause().await;
                self.go(lane, hold);
                tokio::time::sleep(Duration::from_millis(1_200)).await;
                lane.api.resume().await;
            }
            Fault::Paused => {
                let all = lane.api.on("paused", |_: &Seen| true).hold();
                if self.cell.step.is_gap() || self.cell.step == Step::Call {
                    self.go(lane, hold);
                }
                // Longer than a claim may wait for its call, and than the call itself.
                tokio::time::sleep(Duration::from_secs(6)).await;
                all.release();
                hold.release();
            }
            Fault::ServerKilled => {
                lane.plane.kill_api_server();
                self.go(lane, hold);
                lane.plane.start_api_server().await;
            }
            Fault::ServerStopped => {
                lane.plane.pause();
                self.go(lane, hold);
                tokio::time::sleep(Duration::from_secs(4)).await;
                lane.plane.resume();
            }
            Fault::Admission => {
                lane.freeze(true).await;
                self.go(lane, hold);
                refused(lane, 422).await;
                lane.freeze(false).await;
            }
            Fault::Rights => {
                lane.allow(false).await;
                self.go(lane, hold);
                refused(lane, 403).await;
                lane.allow(true).await;
            }
            Fault::Labelled => {
                lane.patch_secret(shop, &json!({"metadata": {"labels": {"touched": "yes"}}})).await;
                self.go(lane, hold);
            }
            Fault::Replaced => {
                let new = lane.simulator.reauthorize(shop).await;
                lane.put_tokens(&new).await;
                self.go(lane, hold);
            }
            Fault::RecreatedOld => {
                let old = case.made_with.clone().unwrap_or_else(|| lane.secret_of(&case.before));
                lane.recreate(old, shop).await;
                self.go(lane, hold);
            }
            Fault::RecreatedNew => {
                let new = lane.simulator.reauthorize(shop).await;
                lane.recreate(lane.secret_of(&new), shop).await;
                self.go(lane, hold);
            }
            Fault::RecreatedEmpty => {
                let empty = tiktok_shop_testkit::fixtures::SecretFixture::new(&lane.namespace, shop);
                lane.recreate(empty, shop).await;
                self.go(lane, hold);
            }
            Fault::Immutable => {
                lane.patch_secret(shop, &json!({"immutable": true})).await;
                self.go(lane, hold);
                refused(lane, 422).await;
                // The only way out that a person has.
                lane.recreate_as_it_is(shop).await;
            }
            Fault::IntegrationDeleted => {
                lane.delete_integration(shop).await;
                if is_odd {
                    lane.create_integration(shop).await;
                    self.go(lane, hold);
                } else {
                    self.go(lane, hold);
                    lane.create_integration(shop).await;
                }
            }
            Fault::TikTokRefuses => {
                lane.tiktok.pause().await;
                hold.release();
                let settled = steps::settle(&lane.namespace, shop);
                let met = lane.api.try_request(settled, SOON).await.is_some();
                lane.tiktok.resume().await;
                return met;
            }
            Fault::JournalFull => {
                lane.small_disk().expect("planned only where there is one").fill();
                self.go(lane, hold);
                self.answered(lane, case).await;
                lane.small_disk().expect("it was filled").make_room();
            }
            Fault::JournalUnwritable => {
                lane.break_journal();
                self.go(lane, hold);
                self.answered(lane, case).await;
                lane.mend_journal();
            }
            Fault::JournalReadOnly => {
                lane.small_disk().expect("planned only where there is one").make_read_only();
                self.go(lane, hold);
                self.answered(lane, case).await;
                lane.small_disk().expect("it was made read-only").make_writable();
            }
            Fault::WallAhead | Fault::WallBack => {
                lane.set_clock(if self.cell.fault == Fault::WallAhead { "+1d" } else { "-1d" });
                self.go(lane, hold);
                self.answered(lane, case).await;
                lane.set_clock("+0");
            }
            // Monotonic time never goes back: it stays ahead until the process ends.
            Fault::BothAhead => {
                lane.set_clock("+1d");
                self.go(lane, hold);
            }
            // For the same reason this takes a new life, as on a node that came up with a wrong clock.
            Fault::BothBack => {
                lane.kill_first();
                hold.cut();
                lane.set_clock("-1d");
                lane.first.as_mut().expect("it was killed").restart();
                *whole = Some(Instant::now());
                lane.first().wait_ready(SOON).await;
            }
            Fault::TwoLeaders | Fault::TwoClocks => {
                // It stood still since before the refresh began: now it does its best to make one.
                let from = Instant::now();
                lane.second().resume();
                let secret = format!("/secrets/{shop}");
                let at_work = move |seen: &Seen| seen.received > from && seen.path.ends_with(&secret);
                let has_worked = lane.api.try_request(at_work, Duration::from_secs(5)).await.is_some();
                self.go(lane, hold);
                return has_worked;
            }
            Fault::LeaseTaken => {
                lane.take_lease().await;
                self.go(lane, hold);
                wait_leads(lane.first(), false).await;
                lane.free_lease().await;
                wait_leads(lane.first(), true).await;
            }
            other => unreachable!("{other:?} is not done to a held request"),
        }
        true
    }

    async fn kill(&self, lane: &mut Lane, case: &Case, hold: &Hold, whole: &mut Option<Instant>) -> bool {
        let mut in_time = true;
        if self.cell.step.is_gap() && case.variant % 2 == 1 {
            // Not at the gap's beginning but in it: as soon as the journal changes.
            let journal = lane.journal("first");
            let before = journal_state(&journal);
            lane.first().resume();
            let until = Instant::now() + Duration::from_secs(2);
            while journal_state(&journal) == before && !self.left_gap(lane, case) && Instant::now() < until {
                tokio::task::yield_now().await;
            }
            lane.kill_first();
            in_time = !self.left_gap(lane, case);
        } else {
            lane.kill_first();
        }
        let late = self.cell.fault == Fault::KillInFlight;
        if !late {
            hold.cut();
        }
        lane.first.as_mut().expect("it was killed").restart();
        *whole = Some(Instant::now());
        if late {
            // It was on its way: it arrives when the next life is at work.
            hold.release();
        }
        // In a schedule each of the up to three faults that follow may hold what it has to do first, for as long as a
        // request may take: 30 seconds.
        lane.first().wait_ready(SOON * 4).await;
        in_time
    }

    /// The leader stands still until another has taken over and done its work.
    async fn stop_over_lease(&self, lane: &mut Lane, case: &Case, hold: &Hold) {
        /// A lease lasts 15 s, a claim the call's timeout and 15 s.
        const LONGER: Duration = Duration::from_millis(18_500);
        const TAKEN_UP: Duration = Duration::from_secs(40);
        lane.first().pause();
        let from = Instant::now();
        if case.variant % 2 == 1 || self.cell.step.is_gap() {
            hold.release();
        } else {
            hold.cut();
        }
        let presented = lane.tiktok.count(steps::call());
        wait_leads(lane.second(), true).await;
        tokio::time::sleep(LONGER.saturating_sub(from.elapsed())).await;
        // What the other does is seen from its status write; where nothing is left to do, there is none.
        let status = takes(lane, case, Step::Status);
        let done = |seen: &Seen| status(seen) && seen.received > from && seen.answered.is_some();
        if presented == 0 || lane.api.count(done) == 0 {
            lane.api.try_request(done, TAKEN_UP).await;
        }
        lane.first().resume();
        lane.stops.push((from, Instant::now()));
        wait_leads(lane.first(), false).await;
    }

    /// Waits until what follows the step has been answered, or a moment where nothing is.
    async fn answered(&self, lane: &Lane, case: &Case) {
        const MOMENT: Duration = Duration::from_secs(2);
        let (persist, settle) =
            (steps::persist(&lane.namespace, &case.shop), steps::settle(&lane.namespace, &case.shop));
        let over = move |seen: &Seen| (persist(seen) || settle(seen)) && seen.answered.is_some();
        lane.api.try_request(over, MOMENT).await;
    }
}

/// Waits until the API server has refused something, or a moment: not every step is followed by
/// what it would refuse. Well within a call's time, as a later fault of a schedule may hold a call meanwhile.
async fn refused(lane: &Lane, status: u16) {
    const MOMENT: Duration = Duration::from_secs(1);
    lane.api.try_request(|seen: &Seen| seen.status == Some(status), MOMENT).await;
}

/// Names, sizes and times of a journal's files.
fn journal_state(journal: &std::path::Path) -> Vec<(std::ffi::OsString, u64, Option<std::time::SystemTime>)> {
    let files = std::fs::read_dir(journal).into_iter().flatten().flatten();
    let mut state: Vec<_> = files
        .filter_map(|file| {
            let about = file.metadata().ok()?;
            Some((file.file_name(), about.len(), about.modified().ok()))
        })
        .collect();
    state.sort();
    state
}

/// Whether a status says that a code was refused.
pub fn is_code_rejected(status: &Value) -> bool {
    tiktok_shop_testkit::fixtures::has_condition(status, "Refreshed", "False", "AuthorizationCodeRejected")
        || tiktok_shop_testkit::fixtures::has_condition(status, "Ready", "False", "AuthorizationCodeRejected")
}

/// Whether a status says that a person must authorize the shop again.
pub fn is_rejected(status: &Value) -> bool {
    tiktok_shop_testkit::fixtures::has_condition(status, "Stalled", "True", "RefreshTokenRejected")
}
