//! What alerts and dashboard speak of is there: metrics, labels and values in a real scrape, sections in the documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};
use tiktok_shop_operator::api::Reason;
use tiktok_shop_testkit::{exposition::Scrape, simulator::Action};

use crate::{
    promql::{self, Names},
    promtool,
    stage::{DAY, HOUR, Stage, in_state, is, wait},
    story::{Phase, Story},
};

/// Labels that Prometheus itself gives to what it scrapes.
const TARGET: [&str; 3] = ["job", "instance", "namespace"];

/// The width of a dashboard.
const COLUMNS: u64 = 24;

fn dashboard() -> Value {
    let text = std::fs::read_to_string(promtool::chart_file("dashboard.json")).expect("the dashboard is in the tree");
    serde_json::from_str(&text).expect("it is JSON")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field:?} in {value:#}"))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Every expression of the dashboard, with its panel's title and its legend; Grafana's variables are filled in.
fn queries(dashboard: &Value) -> Vec<(String, String, String)> {
    let panels = list(dashboard, "panels").iter();
    let of_panel = |panel| {
        list(panel, "targets").iter().map(move |target| {
            let expression = text(target, "expr").replace("$__rate_interval", "5m");
            (text(panel, "title").to_owned(), expression, text(target, "legendFormat").to_owned())
        })
    };
    let mut queries: Vec<_> = panels.flat_map(of_panel).collect();
    for variable in list(&dashboard["templating"], "list").iter().filter(|variable| variable["type"] == "query") {
        let query = text(&variable["query"], "query");
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("values of a label");
        let name = format!("variable {}", text(variable, "name"));
        queries.push((name, format!("group by ({label}) ({selector})"), String::new()));
    }
    queries
}

/// Two replicas of a fleet in which tokens were refreshed and refreshes failed, and a shard that has nothing to do, with
/// all there is to scrape; what the leader says as text, too.
async fn full_scrapes() -> (String, [Scrape; 3]) {
    let stage = Stage::new().await;
    let full = |name, way| stage.operator(name, way).flag("per-integration-metrics", "on");
    let leader = full("leader", &stage.ways[0]).flag("lease-name", "one").start();
    let leads = |scrape: &Scrape| is(scrape, "tiktokshop_leader", &[], 1.0);
    wait(&leader, "leadership", leads).await;
    let standby = full("standby", &stage.ways[1]).flag("lease-name", "one").start();
    let shard = full("shard", &stage.ways[1]).flag("watch-label-selector", "shard=2").start();
    stage.shop("well", 5 * DAY).await;
    stage.shop("due", 60).await;
    stage.shop_that_meets(Action::code(99_999_999), "failing", HOUR / 2).await;
    let done = |scrape: &Scrape| in_state(scrape, "TokenValid", 2.0) && in_state(scrape, "RefreshFailing", 1.0);
    let standby = wait(&standby, "two that are well and one that fails", done).await;
    let shard = wait(&shard, "leadership", leads).await;
    wait(&leader, "two that are well and one that fails", done).await;
    let text = leader.metrics_text().await;
    let leader = Scrape::parse(&text);
    (text, [leader, standby, shard])
}

/// The values of each label of each metric.
fn known(scrape: &Scrape) -> BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> {
    let mut known: BTreeMap<_, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
    for sample in &scrape.samples {
        let labels = known.entry(sample.name.as_str()).or_default();
        for (label, value) in &sample.labels {
            labels.entry(label.as_str()).or_default().insert(value.as_str());
        }
    }
    known
}

/// Panics where an expression asks for what the scrape does not have.
fn hold(place: &str, names: &Names, scrape: &Scrape, recorded: &BTreeSet<String>) {
    let known = known(scrape);
    let mut labels: BTreeSet<&str> = TARGET.into();
    for selector in &names.selectors {
        if recorded.contains(&selector.metric) {
            labels.insert("lease");
            continue;
        }
        let of_metric = known.get(selector.metric.as_str());
        let of_metric = of_metric.unwrap_or_else(|| panic!("{place}: there is no metric {}", selector.metric));
        labels.extend(of_metric.keys());
        for (label, operator, value) in &selector.matchers {
            if value.contains('$') || TARGET.contains(&label.as_str()) {
                continue;
            }
            let values = of_metric.get(label.as_str());
            let values = values.unwrap_or_else(|| panic!("{place}: {} has no label {label}", selector.metric));
            let of_a_reason = |value: &str| label == "reason" && value.parse::<Reason>().is_ok();
            for value in if operator.ends_with('~') { value.split('|').collect() } else { vec![value.as_str()] } {
                assert!(
                    values.contains(value) || of_a_reason(value),
                    "{place}: {} is never {label}={value:?}",
                    selector.metric
                );
            }
        }
    }
    for label in &names.labels {
        assert!(labels.contains(label.as_str()), "{place}: nothing that it names has a label {label}");
    }
}

/// Covers: `metric/process_cpu_seconds_total`, `metric/process_resident_memory_bytes`,
/// `metric/process_start_time_seconds`
#[tokio::test]
async fn alerts_and_dashboard_ask_only_for_what_a_real_scrape_has_and_prometheus_takes_both() {
    let (text, scrapes) = full_scrapes().await;
    let scrape = &scrapes[0];
    promtool::run(&["check", "metrics"], &text).await;
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"] {
        assert!(scrape.value(name, &[]).is_some_and(|value| value > 0.0), "{name} is not told");
    }

    let rules = promtool::rules();
    let recorded: BTreeSet<_> = rules.iter().filter_map(|rule| rule.record.clone()).collect();
    for rule in &rules {
        let place = rule.alert.as_ref().or(rule.record.as_ref()).expect("a rule has a name");
        let names = promql::names(&rule.expr);
        hold(place, &names, scrape, &recorded);
        for selector in &names.selectors {
            let of_each = ["tiktokshop_access_token_expiry", "tiktokshop_refresh_token_expiry"];
            assert!(
                !of_each.iter().any(|start| selector.metric.starts_with(start)),
                "{place} would be silent in a large fleet: {} is not there",
                selector.metric
            );
        }
    }

    let dashboard = dashboard();
    let queries = queries(&dashboard);
    let mut rules = Vec::new();
    for (at, (title, expression, legend)) in queries.iter().enumerate() {
        let names = promql::names(expression);
        // Without the rules of the chart, too.
        hold(title, &names, scrape, &BTreeSet::new());
        let mut legend_names = names;
        legend_names.labels =
            legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap_or(rest).to_owned()).collect();
        hold(title, &legend_names, scrape, &BTreeSet::new());
        rules.push(json!({"record": format!("dashboard:query_{at}"), "expr": expression}));
    }
    assert!(queries.len() > 20, "the queries were found: {}", queries.len());
    promtool::judge(["check", "rules"], &json!({"groups": [{"name": "dashboard", "rules": rules}]})).await;

    // Each gives something, with replicas and shards beside each other, and counts nothing twice.
    let all = |expression: &str| {
        ["$job", "$namespace", "$team"].iter().fold(expression.to_owned(), |text, name| text.replace(name, ".*"))
    };
    let minute = 20;
    let story = ["a", "b", "c"].into_iter().zip(&scrapes).fold(Story::default(), |story, (instance, scrape)| {
        story.process(instance, &[Phase::Steady(scrape, minute + 1)])
    });
    let story = queries.iter().fold(story, |story, (title, expression, _)| {
        let expression = all(expression);
        let story = match title.as_str() {
            "Shops that work" => story.equals(minute, &expression, 3),
            "Leaders" => story.equals(minute, &expression, 2),
            "Shops that stand still" | "Need a person" | "Overdue" => story.equals(minute, &expression, 0),
            "Time to expiry by shop" => story.answers(minute, &expression, Some(3)),
            _ => story,
        };
        // Of events that come to pass, none may be shown.
        let may_be_empty = expression.ends_with("> 0");
        if may_be_empty {
            story.answers(minute, &expression, None)
        } else {
            story.answers(minute, &format!("vector(1) and on () ({expression})"), Some(1))
        }
    });
    story.tell().await;
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard = dashboard();
    let panels = list(&dashboard, "panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut taken: BTreeMap<(u64, u64), &str> = BTreeMap::new();
    for panel in panels {
        let title = text(panel, "title");
        let place = |field: &str| panel["gridPos"][field].as_u64().unwrap_or_else(|| panic!("{title} has no {field}"));
        assert!(place("x") + place("w") <= COLUMNS, "{title} sticks out");
        for cell in (place("x")..place("x") + place("w"))
            .flat_map(|x| (place("y")..place("y") + place("h")).map(move |y| (x, y)))
        {
            if let Some(other) = taken.insert(cell, title) {
                panic!("{title} lies over {other}");
            }
        }
        if panel["type"] != "row" {
            assert!(!text(panel, "description").is_empty(), "{title} says what it shows");
            assert!(!list(panel, "targets").is_empty(), "{title} shows something");
            let refs: BTreeSet<_> = list(panel, "targets").iter().map(|target| text(target, "refId")).collect();
            assert_eq!(refs.len(), list(panel, "targets").len(), "{title}: each query has a name of its own");
            for source in list(panel, "targets").iter().chain([panel]).map(|from| &from["datasource"]) {
                assert_eq!(*source, json!({"type": "prometheus", "uid": "${datasource}"}), "{title}");
            }
        }
    }
    let variables: BTreeSet<_> =
        list(&dashboard["templating"], "list").iter().map(|variable| text(variable, "name")).collect();
    assert_eq!(variables, ["datasource", "job", "namespace", "team"].into());
    for (title, expression, _) in queries(&dashboard) {
        for used in expression.split('$').skip(1) {
            let name = used.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            assert!(variables.contains(name), "{title} uses ${name}, which is not there");
        }
    }
    let documents = "https://github.com/tiktok-shop-operator/tiktok-shop-operator/blob/main/docs/src/alerts.md";
    assert!(list(&dashboard, "links").iter().any(|link| link["url"] == documents));
}

#[test]
fn every_alert_says_how_grave_it_is_and_has_its_section_in_the_documents() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/alerts.md");
    let document = std::fs::read_to_string(path).expect("docs/src/alerts.md is in the tree");
    let sections: BTreeMap<_, _> = document
        .split("\n## ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .filter(|(heading, _)| heading.starts_with("TikTokShop"))
        .collect();
    let rules = promtool::rules();
    let alerts: Vec<_> = rules.iter().filter_map(|rule| Some((rule.alert.as_deref()?, rule))).collect();
    let names: Vec<_> = alerts.iter().map(|(name, _)| *name).collect();
    let listed: Vec<_> = sections.keys().copied().collect();
    assert_eq!(names.iter().copied().collect::<BTreeSet<_>>(), listed.iter().copied().collect(), "sections and alerts");
    for (name, rule) in alerts {
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(matches!(severity, Some("critical" | "warning")), "{name}: {severity:?}");
        for annotation in ["summary", "description"] {
            assert!(rule.annotations.get(annotation).is_some_and(|text| text.len() > 30), "{name}: {annotation}");
        }
        // The anchor that GitHub and mdBook make of a heading of one word.
        let anchor = name.to_lowercase();
        assert_eq!(
            rule.annotations["runbook_url"],
            format!(
                "https://github.com/tiktok-shop-operator/tiktok-shop-operator/blob/main/docs/src/alerts.md#{anchor}"
            )
        );
        let section = sections[name];
        for part in ["**What you see.**", "**Why.**", "**What to do.**"] {
            assert!(section.contains(part), "the section of {name} has no {part}");
        }
        let holds = rule.holds.as_deref().expect("every alert holds for a while");
        let grade = format!("{}, after {holds}", severity.unwrap_or_default());
        assert!(section.to_lowercase().contains(&grade), "the section of {name} does not say: {grade}");
    }
}
