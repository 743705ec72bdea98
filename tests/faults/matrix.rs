//! What a run has shown, as a table and as JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::PathBuf,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    cells::{Cell, Fault, Step},
    verdict::Verdict,
};

/// One field.
#[derive(Debug, Default, Clone)]
struct Tally {
    times: usize,
    lost: usize,
    spent_twice: usize,
    unknown: usize,
    reauthorized: usize,
    recovered: Vec<Duration>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Matrix {
    fields: BTreeMap<Cell, Tally>,
    /// Whole columns that were not run, and why.
    not_run: BTreeMap<Fault, String>,
    lost: usize,
    spent_twice: usize,
    unknown: usize,
    reauthorized: usize,
    schedules: usize,
    /// Faults that hit an exchange.
    of_exchanges: usize,
    missed: usize,
    recovered: Vec<Duration>,
}

fn median(of: &[Duration]) -> Duration {
    let mut sorted = of.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn worst(of: &[Duration]) -> Duration {
    of.iter().max().copied().unwrap_or_default()
}

impl Matrix {
    /// Takes in one refresh, or one exchange, that was hit by these.
    pub fn add(&mut self, hit: &[Cell], is_exchange: bool, verdict: &Verdict) {
        self.of_exchanges += if is_exchange { hit.len() } else { 0 };
        for cell in hit {
            let field = self.fields.entry(*cell).or_default();
            field.times += 1;
            field.lost += verdict.lost;
            field.spent_twice += verdict.spent_twice;
            field.unknown += usize::from(verdict.unknown);
            field.reauthorized += usize::from(verdict.reauthorized);
        }
        if let Some((last, recovered)) = hit.last().zip(verdict.recovered) {
            self.fields.entry(*last).or_default().recovered.push(recovered);
            self.recovered.push(recovered);
        }
        self.lost += verdict.lost;
        self.spent_twice += verdict.spent_twice;
        self.unknown += usize::from(verdict.unknown);
        self.reauthorized += usize::from(verdict.reauthorized);
        self.schedules += usize::from(hit.len() > 1);
    }

    pub fn missed(&mut self) {
        self.missed += 1;
    }

    pub fn is_not_run(&mut self, fault: Fault, why: &str) {
        self.not_run.insert(fault, why.to_owned());
    }

    /// How many faults were injected.
    pub fn faults(&self) -> usize {
        self.fields.values().map(|field| field.times).sum()
    }

    pub fn harm(&self) -> usize {
        self.lost + self.spent_twice
    }

    /// Fields that should have been hit and were not.
    pub fn empty(&self) -> Vec<Cell> {
        let hit = |cell: &Cell| self.fields.get(cell).is_some_and(|field| field.times > 0);
        Cell::sensible().filter(|cell| !hit(cell) && !self.not_run.contains_key(&cell.fault)).collect()
    }

    /// The table, at most 200 columns wide; where not all was to be run, what was.
    pub fn table(&self, is_whole: bool) -> String {
        const NAME: usize = 17;
        const WIDTH: usize = 18;
        let mut text = String::from(
            "Each field: times, lost, spent twice, outcome unknown; time to recover in seconds, median/worst.\n\n",
        );
        // Writing to a String does not fail.
        let _ = write!(text, "{:NAME$}", "");
        for step in Step::ALL {
            let _ = write!(text, "{:WIDTH$}", step.name());
        }
        text.push('\n');
        for fault in Fault::ALL {
            if !is_whole && !self.fields.keys().any(|cell| cell.fault == fault) {
                continue;
            }
            let _ = write!(text, "{:NAME$}", fault.name());
            if let Some(why) = self.not_run.get(&fault) {
                let _ = writeln!(text, "not run: {why}");
                continue;
            }
            for step in Step::ALL {
                let cell = Cell { step, fault };
                let told = match self.fields.get(&cell) {
                    _ if cell.senseless().is_some() => "—".to_owned(),
                    None if is_whole => "(empty)".to_owned(),
                    None => "·".to_owned(),
                    Some(field) => {
                        let times = if field.recovered.is_empty() {
                            "-".to_owned()
                        } else {
                            let (median, worst) = (median(&field.recovered), worst(&field.recovered));
                            format!("{:.1}/{:.1}", median.as_secs_f64(), worst.as_secs_f64())
                        };
                        format!("{} {} {} {} {times}", field.times, field.lost, field.spent_twice, field.unknown)
                    }
                };
                let _ = write!(text, "{told:WIDTH$}");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        if !is_whole {
            return text;
        }
        let whys: BTreeSet<(&str, String)> =
            Cell::all().filter_map(|cell| Some((cell.senseless()?, cell.fault.name().to_owned()))).collect();
        let mut by_why: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (why, fault) in whys {
            by_why.entry(why).or_default().push(fault);
        }
        text.push_str("\n— makes no sense:\n");
        for (why, faults) in by_why {
            let _ = writeln!(text, "  {why} ({})", faults.join(", "));
        }
        text
    }

    /// The one line that matters.
    pub fn totals(&self, disallowed: usize) -> String {
        let unknown = if disallowed == 0 {
            format!("{} (all allowed)", self.unknown)
        } else {
            format!("{} ({disallowed} NOT allowed)", self.unknown)
        };
        format!(
            "faults: {} ({} of them in exchanges), lost: {}, spent twice: {}, outcome unknown: {unknown}, recover median {:.1} s, worst {:.1} s \
             ({} refreshes, {} of them under a schedule; authorized again: {}; aimed and missed: {})",
            self.faults(),
            self.of_exchanges,
            self.lost,
            self.spent_twice,
            median(&self.recovered).as_secs_f64(),
            worst(&self.recovered).as_secs_f64(),
            self.recovered.len(),
            self.schedules,
            self.reauthorized,
            self.missed,
        )
    }

    pub fn json(&self, seed: u64, failures: usize) -> Value {
        let seconds = |time: Duration| (time.as_secs_f64() * 1_000.0).round() / 1_000.0;
        let field = |cell: Cell| {
            let place = json!({"step": cell.step.name(), "fault": cell.fault.name()});
            let mut told = match (cell.senseless(), self.not_run.get(&cell.fault), self.fields.get(&cell)) {
                (Some(why), ..) => json!({"senseless": why}),
                (None, Some(why), _) => json!({"notRun": why}),
                (None, None, None) => json!({"times": 0}),
                (None, None, Some(field)) => json!({
                    "times": field.times, "lost": field.lost, "spentTwice": field.spent_twice,
                    "unknown": field.unknown, "reauthorized": field.reauthorized,
                    "recoverMedianSeconds": seconds(median(&field.recovered)),
                    "recoverWorstSeconds": seconds(worst(&field.recovered)),
                }),
            };
            for (key, value) in place.as_object().expect("it is one") {
                told[key] = value.clone();
            }
            told
        };
        json!({
            "seed": seed, "failures": failures, "faults": self.faults(), "ofExchanges": self.of_exchanges, "lost": self.lost,
            "spentTwice": self.spent_twice, "unknown": self.unknown, "reauthorized": self.reauthorized,
            "refreshes": self.recovered.len(), "schedules": self.schedules, "missed": self.missed,
            "recoverMedianSeconds": seconds(median(&self.recovered)),
            "recoverWorstSeconds": seconds(worst(&self.recovered)),
            "fields": Cell::all().map(field).collect::<Vec<_>>(),
        })
    }
}

/// Where the JSON goes: into cargo's target folder.
pub fn json_path() -> PathBuf {
    let operator = PathBuf::from(env!("CARGO_BIN_EXE_tiktok-shop-operator"));
    operator.ancestors().nth(2).expect("cargo puts binaries into a folder of its target").join("faults.json")
}
