//! `make bench`: what the operator costs, beside what it could cost at least.
//!
//! ```text
//!  scale ──┬── etcd, kube-apiserver        real, on this machine
//!          ├── the operator                as `make build` makes it
//!          ├── scale bare …                the same requests by a bare loop: the raw limit
//!          └── the simulator of TikTok     answers at once
//! ```
//!
//! Rates on one machine vary by a third from minute to minute, so the operator and the bare loop run in
//! turn, and a ratio is the median of those of the pairs. Processor time and memory are read from /proc,
//! requests from the API server's own metrics.

#![forbid(unsafe_code)]

mod bare;
mod counts;
mod fleet;
mod lateness;
mod machine;
mod memory;
mod quiet;
mod results;
mod shards;
mod stage;
mod storms;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};

use crate::results::Results;
use crate::stage::{Binaries, Stage};

/// Measures the operator at scale.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The operator, as `make build` makes it
    #[arg(long, default_value = "target/release/tiktok-shop-operator")]
    operator: PathBuf,
    /// The simulator of TikTok Shop
    #[arg(long, default_value = "target/release/examples/tiktok-shop-simulator")]
    simulator: PathBuf,
    /// A small slice, in three minutes: throughput, memory and a fleet at rest, unless --only names others
    #[arg(long)]
    quick: bool,
    /// These parts alone
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Pairs of runs at each setting, instead of 5 (3 with --quick)
    #[arg(long)]
    pairs: Option<usize>,
    /// So many due at once, instead of 1000 and 10000
    #[arg(long)]
    due: Option<usize>,
    /// So many in flight, instead of 1, 8, 32 and 64
    #[arg(long, value_delimiter = ',')]
    in_flight: Vec<usize>,
    /// The largest fleet at rest, instead of 100000
    #[arg(long)]
    fleet: Option<usize>,
    /// So many in a burst, for the shards, and due over two minutes, instead of 10000
    #[arg(long)]
    burst: Option<usize>,
    /// A file for the results as JSON, beside the table on standard output
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Used by the benchmark itself: the raw limit, in a process of its own
    #[command(hide = true, subcommand)]
    Bare(bare::Command),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Refreshes a second, beside the raw limit
    Throughput,
    /// Memory and start-up
    Memory,
    /// A fleet at rest
    Quiet,
    /// How late refreshes start
    Lateness,
    /// Bursts and outages
    Storms,
    /// Two operators, half of the fleet each
    Shards,
}

/// How much of everything.
struct Sizes {
    /// So many due at once; then for so many in flight, so many pairs of runs.
    due: Vec<(usize, Vec<(usize, usize)>)>,
    /// Fleets at rest.
    idle: Vec<usize>,
    /// How long a fleet at rest is watched, with either status interval.
    quiet: Duration,
    /// Due over so much time.
    late: (usize, Duration),
    /// A burst.
    storm: usize,
    /// How long the API server is away.
    away: Duration,
}

impl Sizes {
    fn of(args: &Args) -> Self {
        let mut sizes = Self::usual(args);
        if let Some(due) = args.due {
            let settings = sizes.due.swap_remove(0).1;
            sizes.due = vec![(due, settings)];
        }
        if !args.in_flight.is_empty() {
            for (_, settings) in &mut sizes.due {
                let pairs = settings.iter().map(|(_, pairs)| *pairs).max().unwrap_or(1);
                *settings = args.in_flight.iter().map(|in_flight| (*in_flight, pairs)).collect();
            }
        }
        sizes
    }

    fn usual(args: &Args) -> Self {
        if args.quick {
            let pairs = args.pairs.unwrap_or(3);
            return Self {
                due: vec![(300, vec![(32, pairs)])],
                idle: vec![0, args.fleet.unwrap_or(1_000)],
                quiet: Duration::from_secs(10),
                late: (300, Duration::from_secs(10)),
                storm: 300,
                away: Duration::from_secs(5),
            };
        }
        let pairs = args.pairs.unwrap_or(5);
        let largest = args.fleet.unwrap_or(100_000);
        let burst = args.burst.unwrap_or(10_000);
        let mut idle: Vec<usize> = [0, 1_000, 10_000].into_iter().filter(|size| *size < largest).collect();
        idle.push(largest);
        Self {
            due: vec![
                (1_000, [1, 8, 32, 64].map(|in_flight| (in_flight, pairs)).to_vec()),
                (10_000, vec![(1, 1), (8, 1), (32, pairs), (64, 1)]),
            ],
            idle,
            quiet: Duration::from_mins(10),
            late: (burst, Duration::from_mins(2)),
            storm: burst,
            away: Duration::from_mins(2),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    if args.command.is_none() {
        runtime = tokio::runtime::Builder::new_multi_thread();
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime can be had: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(Command::Bare(command)) = args.command {
        runtime.block_on(bare::run(command));
        return ExitCode::SUCCESS;
    }
    for (binary, made_by) in [(&args.operator, "make build"), (&args.simulator, "make bench")] {
        if !binary.exists() {
            eprintln!("{} is not there: {made_by} makes it", binary.display());
            return ExitCode::FAILURE;
        }
    }
    runtime.block_on(measure(&args))
}

async fn measure(args: &Args) -> ExitCode {
    let began = Instant::now();
    let sizes = Sizes::of(args);
    let binaries = Binaries { operator: args.operator.clone(), simulator: args.simulator.clone() };
    let slice = [Part::Throughput, Part::Memory, Part::Quiet];
    let wanted = |part: Part| match &args.only[..] {
        [] => !args.quick || slice.contains(&part),
        only => only.contains(&part),
    };
    let machine = machine::look(&args.operator).await;
    eprintln!("{machine}");
    let mut results = Results::default();
    if wanted(Part::Throughput) {
        let stage = Stage::start(&binaries, None).await;
        throughput::measure(&stage, &sizes.due, &mut results).await;
    }
    if wanted(Part::Memory) || wanted(Part::Quiet) {
        let stage = fleet::at_rest(&binaries, &sizes.idle).await;
        if wanted(Part::Memory) {
            memory::measure(&stage, &sizes.idle, &mut results).await;
        }
        if wanted(Part::Quiet) {
            quiet::measure(&stage, &sizes.idle, sizes.quiet, &mut results).await;
        }
    }
    if wanted(Part::Lateness) || wanted(Part::Storms) || wanted(Part::Shards) {
        let stage = Stage::start(&binaries, None).await;
        if wanted(Part::Lateness) {
            lateness::measure(&stage, sizes.late, &mut results).await;
        }
        if wanted(Part::Storms) {
            storms::measure(&stage, sizes.storm, sizes.away, &mut results).await;
        }
        if wanted(Part::Shards) {
            shards::measure(&stage, sizes.storm, &mut results).await;
        }
    }
    eprintln!("measured in {:.0} s", began.elapsed().as_secs_f64());
    println!("{machine}\n\n{}", results.table());
    if let Some(path) = &args.json {
        let document = serde_json::json!({"machine": machine, "results": results});
        if let Err(error) = std::fs::write(path, format!("{document:#}\n")) {
            eprintln!("failed to write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
