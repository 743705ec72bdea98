//! The fault suite: the operator as a process, the real API server, the simulator of TikTok as the
//! witness, and faults at every step of the refresh transaction.
//!
//! ```text
//!              operator(s) ──▶ proxy ──▶ kube-apiserver, etcd
//!    killed,  ◀── │  ╰───────▶ proxy ──▶ simulator: who was given which token, who presented it
//!    stopped      ▼               └ holds, cuts and answers requests; its log says what was hit
//!              journal
//! ```
//!
//! Every fault is injected while the very request that it is meant for is on its way, and counts
//! only then. After it the world is made whole again, the integration must recover, and the Secret
//! must hold the pair that is current at TikTok. `make faults` runs a thousand of them; `cargo
//! test` runs a slice.
//!
//! - `cells`: the matrix of steps and faults, and what makes no sense
//! - `schedule`: which of them are run, and random sequences of several
//! - `lane`: one namespace with all that belongs to it; many run side by side
//! - `strike`: how a fault is injected
//! - `verdict`: recovery, and what the witness says
//! - `matrix`: the table at the end

#![forbid(unsafe_code)]
#![allow(clippy::similar_names, reason = "a cell and its case, a hold and what is held are called so")]

mod cells;
mod lane;
mod matrix;
mod options;
mod schedule;
mod strike;
mod verdict;

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use futures::FutureExt;
use serde_json::json;
use tiktok_shop_testkit::{
    control_plane::{ControlPlane, Options as PlaneOptions},
    fixtures,
    leak::LeakScan,
};

use crate::{
    cells::{Cast, Cell, Fault, Step},
    lane::{Lane, SOON},
    matrix::Matrix,
    options::{NAME, Options, What},
    schedule::{Job, Trigger},
    strike::{Case, aim},
    verdict::{Meddling, Verdict, judge},
};

/// The slice that is part of all tests is the same each time.
const SLICE_SEED: u64 = 20_260_101;

/// How often a fault that missed its moment is aimed again.
const MOST_MISSES: usize = 12;

/// For a fault of a schedule, whose step may not come any more after the ones before it.
const PERHAPS: Duration = Duration::from_secs(7);

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    match options.what {
        What::List => println!("{NAME}: test\n\n1 test, 0 benchmarks"),
        What::Nothing => {
            println!("\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out");
        }
        What::Full | What::Slice => return run(&options),
    }
    ExitCode::SUCCESS
}

fn run(options: &Options) -> ExitCode {
    let began = Instant::now();
    let is_full = options.what == What::Full;
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or(if is_full { clock.subsec_nanos().into() } else { SLICE_SEED });
    let only = if options.exchange { "--exchange " } else { "" };
    let repeat = format!("cargo test --test faults -- {}{only}--seed {seed}", if is_full { "--full " } else { "" });
    println!("\nfaults: seed {seed}; the same again: {repeat}");
    let state = play(options, seed);
    let mut state = state.unlock();
    let mut disallowed = 0;
    for (job, verdict) in &state.failed {
        disallowed += usize::from(verdict.problems.iter().any(|problem| problem.contains("OutcomeUnknown")));
        println!("FAILED: {job}");
    }
    let is_whole = is_full && options.only.is_none() && options.schedule.is_none() && !options.exchange;
    println!("\n{}", state.matrix.table(is_whole));
    if is_whole {
        for cell in state.matrix.empty() {
            state.problems.push(format!("{cell} was never hit"));
        }
    }
    for problem in &state.problems {
        println!("PROBLEM: {problem}");
    }
    let failures = state.failed.len() + state.problems.len();
    let path = matrix::json_path();
    let json = format!("{:#}\n", state.matrix.json(seed, failures));
    match std::fs::write(&path, json) {
        Ok(()) => println!("the same as JSON: {}", path.display()),
        Err(error) => println!("failed to write {}: {error}", path.display()),
    }
    println!("{}", state.matrix.totals(disallowed));
    println!("faults: seed {seed}; the same again: {repeat}");
    let is_well = failures == 0 && state.matrix.harm() == 0;
    println!(
        "\ntest result: {}. {} passed; {failures} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
        if is_well { "ok" } else { "FAILED" },
        state.passed,
        began.elapsed().as_secs_f64()
    );
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What all lanes work on.
#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Those that take the real API server away: for the one lane with an API server of its own.
    alone: VecDeque<Job>,
    next_schedule: usize,
    wanted: usize,
    under_way: usize,
    passed: usize,
    failed: Vec<(Job, Verdict)>,
    problems: Vec<String>,
    matrix: Matrix,
    /// Are exchanges hit alone?
    exchange: bool,
    seed: u64,
    began: Option<Instant>,
    told: usize,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn unlock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job: a planned one, or one more schedule where faults are still wanted.
    fn next(&self, alone: bool) -> Option<Job> {
        let mut state = self.unlock();
        let planned = if alone { state.alone.pop_front() } else { state.jobs.pop_front() };
        let more = || {
            let sure = state.matrix.faults() + state.under_way;
            (!alone && sure < state.wanted).then(|| {
                state.next_schedule += 1;
                let job = Job::random(state.seed, state.next_schedule);
                if state.exchange { job.clone().into_exchange().unwrap_or(job) } else { job }
            })
        };
        let job = planned.or_else(more);
        state.under_way += job.as_ref().map_or(0, |job| job.cells.len());
        job
    }
}

/// Plans the jobs and plays them in lanes, side by side.
fn play(options: &Options, seed: u64) -> Shared {
    let shared = Shared::default();
    let is_full = options.what == What::Full;
    let plane = runtime().block_on(control_plane());
    let faketime = lane::faketime().is_some();
    let small_disk = tiktok_shop_testkit::disk::SmallDisk::mount(64).is_some();
    let lanes = {
        let mut state = shared.unlock();
        state.seed = seed;
        state.exchange = options.exchange;
        state.began = Some(Instant::now());
        if !faketime {
            for fault in Fault::ALL.into_iter().filter(|fault| fault.cast().needs_faketime()) {
                state.matrix.is_not_run(fault, "faketime is not installed");
            }
            if is_full && !options.without_faketime {
                state
                    .problems
                    .push("the clock jumps were not run: install faketime, or say --without-faketime".to_owned());
            }
        }
        if !small_disk {
            for fault in Fault::ALL.into_iter().filter(|fault| fault.needs_mount()) {
                state.matrix.is_not_run(fault, "only who may mount a file system can fill one, or make it read-only");
            }
            if is_full && !options.without_mount {
                state.problems.push(
                    "full and read-only journals were not run: run it as root, or say --without-mount".to_owned(),
                );
            }
        }
        let in_exchange = |job: Job| if options.exchange { job.into_exchange() } else { Some(job) };
        let can = |cell: &Cell| {
            (faketime || !cell.fault.cast().needs_faketime()) && (small_disk || !cell.fault.needs_mount())
        };
        let mut jobs = match (&options.only, options.schedule) {
            (Some(cells), _) => (0..options.times).map(|nth| Job::chosen(cells, nth)).collect(),
            (None, Some(number)) => vec![Job::random(seed, number); options.times],
            (None, None) if is_full => {
                state.wanted = options.faults;
                schedule::whole(seed, options.faults, |cell| can(&cell))
            }
            (None, None) => schedule::slice(seed),
        };
        jobs.retain(|job| job.cells.iter().all(can));
        jobs = jobs.into_iter().filter_map(in_exchange).collect();
        if is_full && options.only.is_none() && options.schedule.is_none() && !options.exchange {
            let alone = Cell::sensible().filter(|cell| cell.fault.needs_own_server());
            state.alone = alone.enumerate().map(|(nth, cell)| Job::of(cell, nth)).collect();
        }
        let (alone, jobs): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.cells.iter().any(|cell| cell.fault.needs_own_server()));
        state.alone.extend(alone);
        state.jobs = jobs.into();
        // Numbers after those that are planned.
        state.next_schedule = options.faults;
        println!(
            "faults: {} jobs in {} lanes{}",
            state.jobs.len() + state.alone.len(),
            options.lanes,
            if state.alone.is_empty() { "" } else { ", and one with an API server of its own" }
        );
        options.lanes.min(state.jobs.len())
    };
    // A thread for each: what blocks one, such as a process that takes its time to die, blocks no other.
    let start = |alone| {
        let shared = shared.clone();
        std::thread::spawn(move || {
            runtime().block_on(async {
                let plane = if alone { control_plane().await } else { plane };
                perform(shared, plane, alone).await;
            });
        })
    };
    let mut threads: Vec<_> = (0..lanes).map(|_| start(false)).collect();
    if !shared.unlock().alone.is_empty() {
        threads.push(start(true));
    }
    for thread in threads {
        if thread.join().is_err() {
            shared.unlock().problems.push("a lane broke down: see above".to_owned());
        }
    }
    shared
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}

/// A control plane that is there until the process ends.
async fn control_plane() -> &'static ControlPlane {
    let plane = ControlPlane::start(PlaneOptions { audit: false, ..PlaneOptions::default() }).await;
    lane::prepare(&plane).await;
    Box::leak(Box::new(plane))
}

/// One lane: job after job, until there are no more.
async fn perform(shared: Shared, plane: &'static ControlPlane, alone: bool) {
    let mut lane = None;
    while let Some(mut job) = shared.next(alone) {
        let mut stage = match lane.take() {
            Some(stage) => stage,
            None => Lane::start(plane).await,
        };
        let began = Instant::now();
        let ran = AssertUnwindSafe(refresh(&mut stage, &job)).catch_unwind().await;
        let faults = job.cells.len();
        let (hit, verdict) = ran.unwrap_or_else(|panicked| {
            let said = panicked.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panicked.downcast_ref::<&str>().map(ToString::to_string));
            let problem = format!("the suite could not go on: {}", said.unwrap_or_default());
            (Vec::new(), Verdict { problems: vec![problem], ..Verdict::default() })
        });
        let well = verdict.is_well();
        {
            let mut state = shared.unlock();
            state.under_way -= faults;
            state.matrix.add(&hit, job.trigger == Trigger::Code, &verdict);
            if well && hit.is_empty() {
                state.matrix.missed();
                job.missed += 1;
                job.variant += 2;
                if job.missed >= MOST_MISSES {
                    state.problems.push(format!("{job}: never hit in {MOST_MISSES} tries"));
                } else if alone {
                    state.alone.push_back(job);
                } else {
                    state.jobs.push_back(job);
                }
            } else if well {
                state.passed += 1;
            } else {
                eprintln!("\nFAILED: {job}");
                for problem in &verdict.problems {
                    eprintln!("  {problem}");
                }
                state.failed.push((job, verdict));
            }
            let faults = state.matrix.faults();
            if faults / 100 > state.told {
                state.told = faults / 100;
                let since = state.began.map_or(Duration::ZERO, |began| began.elapsed());
                println!("faults: {faults} after {:.0} s", since.as_secs_f64());
            }
        }
        if well {
            lane = Some(stage);
        } else {
            eprintln!("{}", describe(&stage, began).await);
            close(&shared, stage).await;
        }
    }
    if let Some(stage) = lane {
        close(&shared, stage).await;
    }
}

/// One refresh with its faults, and what became of it. Gives the faults that hit.
async fn refresh(lane: &mut Lane, job: &Job) -> (Vec<Cell>, Verdict) {
    let cast = job.cells[0].fault.cast();
    lane.on_stage(cast).await;
    let new = match job.trigger {
        Trigger::Due | Trigger::Code => Some(lane.new_shop(job.trigger).await),
        Trigger::Request => None,
    };
    let made_with = match (&new, job.trigger) {
        (Some(new), Trigger::Code) => Some(lane.authorized(new, job.variant / 2 == 0).await),
        (Some(new), _) => Some(lane.secret_of(new)),
        (None, _) => None,
    };
    let shop = match &new {
        Some(new) => new.id.clone(),
        None => lane.shop_at_rest().await,
    };
    lane.begin(&shop);
    let before = lane.simulator.shop(&shop).await;
    let request = new.is_none().then(|| format!("{} {}", before.counters.presentations, job.cells[0]));
    let case = Case { shop, request, made_with, before, variant: job.variant };
    let mut aimed = Vec::new();
    for (place, cell) in job.cells.iter().enumerate() {
        aimed.push(aim(lane, &case, *cell, place).await);
    }
    if cast.is_pair() {
        // It is woken when the first is at the step.
        lane.second().pause();
    }
    match (new.as_ref().zip(case.made_with.as_ref()), &case.request) {
        (Some((new, secret)), _) => lane.put_on_show(new, secret).await,
        (None, Some(request)) => {
            if job.cells.iter().any(|cell| cell.step == Step::Read) {
                // What is known of the Secret is not read again: somebody changes it.
                lane.patch_secret(&case.shop, &json!({"metadata": {"labels": {"read": job.variant.to_string()}}}))
                    .await;
                lane.patch_secret(&case.shop, &json!({"metadata": {"labels": {"read": null}}})).await;
            }
            lane.request(&case.shop, request).await;
        }
        (None, None) => unreachable!("what is not due is requested"),
    }
    let (mut hit, mut whole) = (Vec::new(), Instant::now());
    for (place, aimed) in aimed.into_iter().enumerate() {
        let cell = aimed.cell;
        let within = if place == 0 { SOON } else { PERHAPS };
        if let Some(over) = aimed.strike(lane, &case, within).await {
            hit.push(cell);
            whole = over;
        }
    }
    if cast.is_pair() {
        // Also where the step did not come.
        lane.second().resume();
    }
    lane.api.remove_rules();
    lane.simulator.clear_faults().await;
    let meddling = |cell: &Cell| match cell.fault {
        Fault::IntegrationDeleted => Meddling::Deleted,
        fault if fault.replaces_tokens() => Meddling::Replaced,
        _ => Meddling::None,
    };
    let meddling = hit.iter().map(meddling).max().unwrap_or(Meddling::None);
    let verdict = judge(lane, &case, whole, meddling).await;
    if cast == Cast::BothClocks {
        // Its clocks are not those of the world any more.
        lane.off_stage().await;
    }
    if verdict.is_well() {
        if verdict.unknown || verdict.reauthorized {
            lane.leave_shop();
        }
        if new.is_some() {
            lane.remove(&case.shop).await;
        }
    }
    (hit, verdict)
}

/// What is to be seen of a refresh that went wrong.
async fn describe(lane: &Lane, began: Instant) -> String {
    let shop = lane.last_shop();
    let events = fixtures::events(&lane.client, &lane.namespace, &shop).await;
    let events: Vec<String> =
        events.iter().map(|event| format!("{} x{}: {}", event.reason, event.count, event.note)).collect();
    let status = lane.status(&shop);
    format!(
        "  the requests about {shop}, in seconds since the job began:\n{}\n  its status: {status}\n  its events:\n{}\n  \
         the operator's last lines:\n{}",
        lane.trace(&shop, began),
        events.join("\n"),
        lane.tail()
    )
}

/// Ends a lane: nothing secret may have got out of it.
async fn close(shared: &Shared, mut lane: Lane) {
    let texts = lane.let_out().await;
    let mut scan = LeakScan::new().secret("the app secret", &lane.app.app_secret);
    for shop in lane.simulator.shops().await {
        for (at, pair) in lane.simulator.history(&shop.id).await.iter().enumerate() {
            scan.add(&format!("access token {at} of {}", shop.id), &pair.access_token);
            scan.add(&format!("refresh token {at} of {}", shop.id), &pair.refresh_token);
        }
        for code in lane.simulator.codes_of(&shop.id).await {
            scan.add(&format!("code {} of {}", code.serial, shop.id), &code.auth_code);
        }
    }
    let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let leaks = scan.find(texts.iter().copied());
    let strangers = lane.simulator.witness().await.strangers.len();
    let mut state = shared.unlock();
    for leak in leaks {
        let tiktok_shop_testkit::leak::Leak { label, form, text, line, context } = leak;
        state.problems.push(format!("{label} got out, {form}, in {text}, line {line}: {context}"));
    }
    if strangers > 0 {
        state.problems.push(format!("{strangers} values were presented that TikTok never gave out"));
    }
    if !texts[0].1.contains("TRACE") {
        state.problems.push("the operator did not log all that it ever would".to_owned());
    }
}
