//! Requests, as the API server itself counts them.

use std::collections::BTreeMap;

use tiktok_shop_testkit::control_plane::ControlPlane;
use tiktok_shop_testkit::exposition::Scrape;

/// What the operator asks for; the API server's own traffic is left out.
const OF_INTEREST: [&str; 3] = ["secrets", "tiktokshopintegrations", "events"];

/// Requests by what they were, such as `patch secrets (dry run)`; watches are counted when they end.
#[derive(Debug, Clone, Default)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Since the API server began.
    pub async fn now(plane: &ControlPlane) -> Self {
        let text = plane.metrics().await;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("apiserver_request_total{")).collect();
        let mut counts = BTreeMap::new();
        for sample in Scrape::parse(&lines.join("\n")).samples {
            let label = |name: &str| sample.labels.get(name).map_or("", String::as_str);
            if !OF_INTEREST.contains(&label("resource")) {
                continue;
            }
            let mut what = format!("{} {}", label("verb").to_lowercase(), label("resource"));
            if !label("subresource").is_empty() {
                what = format!("{what}/{}", label("subresource"));
            }
            if !label("dry_run").is_empty() {
                what.push_str(" (dry run)");
            }
            if !label("code").starts_with('2') && label("code") != "0" {
                what = format!("{what} ({})", label("code"));
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let value = sample.value as u64;
            *counts.entry(what).or_default() += value;
        }
        Self(counts)
    }

    /// What came since.
    pub fn since(&self, before: &Self) -> Self {
        let grown = self.0.iter().filter_map(|(what, count)| {
            let more = count - before.0.get(what).copied().unwrap_or(0).min(*count);
            (more > 0).then(|| (what.clone(), more))
        });
        Self(grown.collect())
    }

    /// How many of these.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// All but watches and lists.
    pub fn requests(&self) -> u64 {
        self.0
            .iter()
            .filter(|(what, _)| !what.starts_with("watch ") && !what.starts_with("list "))
            .map(|(_, n)| n)
            .sum()
    }

    /// What is stored.
    pub fn writes(&self) -> u64 {
        let stores =
            |what: &str| !what.starts_with("get ") && !what.starts_with("watch ") && !what.starts_with("list ");
        self.0.iter().filter(|(what, _)| stores(what) && !what.contains("(dry run)")).map(|(_, n)| n).sum()
    }

    /// In words, with what each is of `whole`.
    #[allow(clippy::cast_precision_loss, reason = "no count here comes near the limit")]
    pub fn per(&self, whole: usize) -> String {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(what, count)| format!("{:.2} {what}", *count as f64 / crate::results::count(whole)))
            .collect();
        parts.join(", ")
    }
}
