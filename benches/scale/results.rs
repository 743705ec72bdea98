//! What was measured, beside what was aimed at.

use std::fmt::Write as _;

use serde::Serialize;

/// What is aimed at.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// One number.
#[derive(Debug, Serialize)]
struct Row {
    part: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
    met: Option<bool>,
}

/// All numbers, in the order in which they were measured.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Results(Vec<Row>);

impl Results {
    /// A number that nothing is aimed at.
    pub fn add(&mut self, part: &'static str, what: impl Into<String>, value: f64, unit: &'static str) {
        self.push(part, what.into(), value, unit, None);
    }

    /// A number with a goal.
    pub fn aim(&mut self, part: &'static str, what: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.push(part, what.into(), value, unit, Some(goal));
    }

    /// A number that has a goal at some sizes only.
    pub fn aim_where(
        &mut self,
        part: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Option<Goal>,
    ) {
        self.push(part, what.into(), value, unit, goal);
    }

    fn push(&mut self, part: &'static str, what: String, value: f64, unit: &'static str, goal: Option<Goal>) {
        let met = goal.map(|goal| match goal {
            Goal::AtMost(most) => value <= most,
            Goal::AtLeast(least) => value >= least,
        });
        let row = Row { part, what, value, unit, goal, met };
        eprintln!("  {}: {} = {} {}", row.part, row.what, number(row.value), aimed(&row));
        self.0.push(row);
    }

    /// A table in Markdown.
    pub fn table(&self) -> String {
        let mut table = "| part | what | measured | goal |\n|---|---|---:|---|\n".to_owned();
        for row in &self.0 {
            // Writing to a String does not fail.
            let _ = writeln!(
                table,
                "| {} | {} | {} {} | {} |",
                row.part,
                row.what,
                number(row.value),
                row.unit,
                aimed(row)
            );
        }
        table
    }
}

fn aimed(row: &Row) -> String {
    let Some(goal) = row.goal else { return String::new() };
    let (word, limit) = match goal {
        Goal::AtMost(most) => ("at most", most),
        Goal::AtLeast(least) => ("at least", least),
    };
    let met = if row.met == Some(true) { "met" } else { "MISSED" };
    format!("{word} {}: {met}", number(limit))
}

/// Three figures are more than any of these numbers is good for.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        at if at >= 100.0 || value.fract() == 0.0 => 0,
        at if at >= 10.0 => 1,
        at if at >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The middle one; of an even number the lower.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// The value that this share of all does not exceed.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    let at = (share * count(values.len())).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// A count as a number to reckon with.
#[allow(clippy::cast_precision_loss, reason = "no count here comes near the limit")]
pub fn count(count: usize) -> f64 {
    count as f64
}

/// Bytes in mebibytes.
#[allow(clippy::cast_precision_loss, reason = "no size here comes near the limit")]
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
