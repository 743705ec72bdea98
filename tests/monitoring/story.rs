//! Scrapes laid out on a timeline, one sample a minute, and what fires on it.
//!
//! Hours pass in no time: what a process said when it was scraped, it says for as long as the story wants. A counter
//! that was seen to rise between two scrapes goes on rising by as much each minute.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};
use tiktok_shop_testkit::exposition::Scrape;

use crate::promtool;

/// What a process says for some minutes.
pub enum Phase<'a> {
    /// The same all the time.
    Steady(&'a Scrape, usize),
    /// It goes on from the second scrape as it went from the first to it.
    Rising([&'a Scrape; 2], usize),
    /// Nothing: it is not there.
    Gone(usize),
}

impl Phase<'_> {
    const fn minutes(&self) -> usize {
        match self {
            Self::Steady(_, minutes) | Self::Rising(_, minutes) | Self::Gone(minutes) => *minutes,
        }
    }
}

/// Which alerts fire: their names, and the lease that they speak of.
pub type Firing<'a> = &'a [(&'a str, &'a str)];

#[derive(Default)]
pub struct Story {
    series: Vec<Value>,
    expressions: Vec<Value>,
    alerts: Vec<Value>,
}

impl Story {
    /// A process that is scraped as this instance.
    pub fn process(mut self, instance: &str, phases: &[Phase]) -> Self {
        let mut names = BTreeSet::new();
        for phase in phases {
            if let Phase::Steady(scrape, _) | Phase::Rising([_, scrape], _) = phase {
                names.extend(scrape.samples.iter().map(|sample| (&sample.name, &sample.labels)));
            }
        }
        for (name, labels) in names {
            let value_in = |scrape: &Scrape| {
                let found = scrape.samples.iter().find(|sample| sample.name == *name && sample.labels == *labels);
                found.map(|sample| sample.value)
            };
            let mut values = String::new();
            let mut there = false;
            for phase in phases {
                let minutes = phase.minutes();
                let (start, step) = match phase {
                    Phase::Steady(scrape, _) => (value_in(scrape), 0.0),
                    Phase::Rising([before, after], _) => {
                        let (before, after) = (value_in(before), value_in(after));
                        (after, after.zip(before).map_or(0.0, |(after, before)| after - before))
                    }
                    Phase::Gone(_) => (None, 0.0),
                };
                // Writing to a String does not fail.
                let _ = match start {
                    Some(start) => write!(values, "{start}+{step}x{} ", minutes - 1),
                    // As Prometheus marks a series that a scrape does not have any more.
                    None if there => write!(values, "stale _x{} ", minutes - 1),
                    None => write!(values, "_x{minutes} "),
                };
                there = start.is_some();
            }
            self.series.push(json!({"series": series(name, labels, instance), "values": values.trim_end()}));
        }
        self
    }

    /// At this minute these alerts fire, and no others.
    pub fn firing(mut self, minute: usize, firing: Firing) -> Self {
        let rules = promtool::rules();
        let samples = firing.iter().map(|(alert, lease)| {
            let rule = rules.iter().find(|rule| rule.alert.as_deref() == Some(alert));
            let rule = rule.unwrap_or_else(|| panic!("there is no alert {alert}"));
            let severity = &rule.labels["severity"];
            // An empty label is none.
            let lease = if lease.is_empty() { String::new() } else { format!(", lease={lease:?}") };
            json!({"labels": format!("{{alertname={alert:?}, severity={severity:?}{lease}}}"), "value": 1})
        });
        self.expressions.push(json!({
            "expr": "group by (alertname, severity, lease) (ALERTS{alertstate=\"firing\"})",
            "eval_time": format!("{minute}m"),
            "exp_samples": samples.collect::<Vec<_>>(),
        }));
        self
    }

    /// What is well until `since` fires these alerts, each once it has held for the time that its rule asks for and
    /// not before. The last of them fires at the end, `until`, and no other does.
    pub fn turns(self, since: usize, until: usize, firing: Firing) -> Self {
        let rules = promtool::rules();
        let mut story = self.firing(since - 1, &[]);
        for (alert, lease) in firing {
            let rule = rules.iter().find(|rule| rule.alert.as_deref() == Some(alert));
            let holds = rule.unwrap_or_else(|| panic!("there is no alert {alert}")).minutes();
            // A minute for a counter's first step.
            for (minute, expected) in [(since + holds - 1, 0), (since + holds + 1, 1)] {
                assert!(minute < until, "the story is too short for {alert}");
                story.expressions.push(json!({
                    "expr": format!("count(group(ALERTS{{alertname={alert:?}, lease={lease:?}, alertstate=\"firing\"}})) or vector(0)"),
                    "eval_time": format!("{minute}m"),
                    "exp_samples": [{"labels": "{}", "value": expected}],
                }));
            }
        }
        story.firing(until, firing)
    }

    /// At this minute the alert fires with these labels (and its severity), and reads like that.
    pub fn reads(
        mut self,
        minute: usize,
        alert: &str,
        labels: &[(&str, &str)],
        summary: &str,
        description: &str,
    ) -> Self {
        let rules = promtool::rules();
        let rule = rules.iter().find(|rule| rule.alert.as_deref() == Some(alert)).expect("the alert is there");
        let mut all: BTreeMap<&str, &str> = labels.iter().copied().collect();
        all.insert("severity", &rule.labels["severity"]);
        self.alerts.push(json!({
            "alertname": alert,
            "eval_time": format!("{minute}m"),
            "exp_alerts": [{
                "exp_labels": all,
                "exp_annotations": {
                    "summary": summary, "description": description, "runbook_url": rule.annotations["runbook_url"],
                },
            }],
        }));
        self
    }

    /// At this minute an expression gives as many results, or, with `None`, any number.
    pub fn answers(mut self, minute: usize, expression: &str, results: Option<usize>) -> Self {
        let count = format!("count({expression}) or vector(0)");
        self.expressions.push(json!({
            // An expression that can't be evaluated fails, whatever is expected of it.
            "expr": if results.is_some() { count } else { format!("({count}) >= bool 0") },
            "eval_time": format!("{minute}m"),
            "exp_samples": [{"labels": "{}", "value": results.unwrap_or(1)}],
        }));
        self
    }

    /// At this minute an expression gives this one value.
    pub fn equals(mut self, minute: usize, expression: &str, value: usize) -> Self {
        self.expressions.push(json!({
            "expr": expression,
            "eval_time": format!("{minute}m"),
            "exp_samples": [{"labels": "{}", "value": value}],
        }));
        self
    }

    /// Has promtool tell it.
    pub async fn tell(self) {
        let document = json!({
            "rule_files": [promtool::rules_file()],
            "evaluation_interval": "1m",
            "tests": [{
                "interval": "1m",
                "input_series": self.series,
                "promql_expr_test": self.expressions,
                "alert_rule_test": self.alerts,
            }],
        });
        promtool::judge(["test", "rules"], &document).await;
    }
}

/// A series as Prometheus stores it: with its target's labels, where the scrape does not say otherwise (`honorLabels`).
fn series(name: &str, labels: &BTreeMap<String, String>, instance: &str) -> String {
    let target = [("job", "tiktok-shop-operator"), ("namespace", "tiktok-shop"), ("instance", instance)];
    let mut all: BTreeMap<&str, &str> = target.into();
    all.extend(labels.iter().map(|(label, value)| (label.as_str(), value.as_str())));
    let labels: Vec<_> = all.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
    format!("{name}{{{}}}", labels.join(","))
}
