//! Which test asserts which item of the contract, as a table. Fails where an item has no test, or a
//! test names an item that there is not.
//!
//! The items are taken from the code (CRD, reasons, flags, events, annotations, metrics), so that a
//! new one can't be forgotten; only the lists of bad input and of the command line are kept here. The tests say what they
//! assert in doc lines, as the head of `tests/operator/main.rs` tells.

#![forbid(unsafe_code)]

#[path = "common/exposition.rs"]
mod exposition;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;
use tiktok_shop_operator::api::{self, ConditionType, Reason, names};
use tiktok_shop_operator::cluster::EventKind;
use tiktok_shop_operator::settings;

/// Bad input that must have been tried.
const INPUT: &[&str] = &[
    "spec-fields-missing-empty-unknown-or-wrong",
    "refresh-before",
    "secret-missing",
    "secret-immutable",
    "secret-without-a-key",
    "secret-not-utf-8",
    "secret-forbidden",
    "secret-reverted",
    "secret-unwritable-during-a-call",
    "secret-recreated-during-a-call",
    "tokens-replaced-during-a-call",
    "expiry-zero-negative-text-13-digits-or-2123",
    "trailing-newline",
    "two-integrations-one-secret",
    "app-secret-missing-or-without-a-key",
    "wrong-app-secret",
    "refresh-token-expired",
    "refresh-token-replaced-by-hand",
    "access-token-expired",
    "admission-refuses",
    "admission-changes-the-tokens",
    "endpoint-html",
    "endpoint-half-an-answer",
    "endpoint-200-mebibytes",
    "endpoint-redirect",
    "endpoint-silent",
    "endpoint-success-without-tokens",
    "endpoint-odd-fields",
    "endpoint-refuses-connections",
    "every-error-code",
    "retry-after",
    "clock-jump",
];

/// The command line, whose parser is the program's own: `cli/`, and behind a dot what belongs to one command.
const CLI: &[&str] = &[
    "refresh",
    "refresh.names",
    "refresh.force",
    "refresh.dry-run",
    "refresh.timeout",
    "refresh.output",
    "refresh.lang",
    "status",
    "status.output",
    "status.watch",
    "authorize",
    "authorize.service-id",
    "authorize.region",
    "authorize.redirect-url",
    "authorize.callback",
    "authorize.open",
    "authorize.timeout",
    "authorize.lang",
    "selector",
    "all-namespaces",
    "team-id",
    "no-emoji",
    "kubeconfig",
    "context",
    "completion",
    "progress",
    "exit-130",
    "exit-2",
    "no-such-integration",
    "forbidden",
    "not-installed",
    "unreachable",
    "krew",
];

fn main() -> ExitCode {
    let mut tests = BTreeMap::new();
    for folder in ["tests/operator", "tests/cli", "tests/monitoring"] {
        add_tests(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut tests);
    }
    let items = items();
    println!("| item | asserted by |\n|---|---|");
    let mut empty = Vec::new();
    for item in &items {
        let by: Vec<_> = tests.get(item).into_iter().flatten().map(|test| format!("`{test}`")).collect();
        if by.is_empty() {
            empty.push(item.as_str());
        }
        println!("| `{item}` | {} |", by.join(", "));
    }
    let unknown: Vec<_> = tests.keys().filter(|item| !items.contains(*item)).map(String::as_str).collect();
    if !empty.is_empty() {
        eprintln!("{} of {} items have no test: {}", empty.len(), items.len(), empty.join(", "));
    }
    if !unknown.is_empty() {
        eprintln!("tests name items that there are not: {}", unknown.join(", "));
    }
    if empty.is_empty() && unknown.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All items of the contract.
fn items() -> BTreeSet<String> {
    let mut items: BTreeSet<String> = INPUT.iter().map(|name| format!("input/{name}")).collect();
    items.extend(CLI.iter().map(|name| format!("cli/{name}")));
    let crd = serde_json::to_value(api::crd()).expect("a CRD is JSON");
    let version = &crd["spec"]["versions"][0];
    for part in ["spec", "status"] {
        let schema = &version["schema"]["openAPIV3Schema"]["properties"][part];
        fields(schema, part, "", &mut items);
    }
    for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
        items.insert(format!("column/{}", column["name"].as_str().unwrap_or_default()));
    }
    items.extend(Reason::ALL.iter().map(|reason| format!("reason/{reason}")));
    items.extend(ConditionType::ALL.map(|condition| format!("condition/{}", condition.as_str())));
    items.extend(EventKind::ALL.iter().map(|kind| format!("event/{}", kind.as_str())));
    for annotation in names::ANNOTATIONS {
        items.insert(format!("annotation/{}", annotation.trim_start_matches(names::PREFIX)));
    }
    let parser = settings::parser();
    let run = parser.find_subcommand("run").expect("there is a subcommand run");
    for flag in run.get_arguments().filter_map(clap::Arg::get_long).filter(|flag| *flag != "help") {
        items.insert(format!("flag/{flag}"));
    }
    items.insert("env".to_owned());
    items.extend(metrics());
    items
}

/// The fields of a schema, by path; conditions are items of their own.
fn fields(schema: &Value, part: &str, path: &str, items: &mut BTreeSet<String>) {
    let Some(properties) = schema["properties"].as_object() else {
        items.insert(format!("{part}/{path}"));
        return;
    };
    for (name, property) in properties {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if name != "conditions" {
            fields(property, part, &path, items);
        }
    }
}

/// The names of all metrics.
fn metrics() -> BTreeSet<String> {
    exposition::of_every_metric()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .map(|name| format!("metric/{name}"))
        .collect()
}

/// Adds the tests of a folder that say they assert an item, by item.
fn add_tests(folder: &Path, tests: &mut BTreeMap<String, BTreeSet<String>>) {
    for file in std::fs::read_dir(folder).expect("the tests are there") {
        let path = file.expect("a folder can be read").path();
        let module = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let text = std::fs::read_to_string(&path).expect("a test is text");
        let mut covered = Vec::new();
        let mut goes_on = false;
        for line in text.lines().map(str::trim) {
            let doc = line.strip_prefix("///").map(str::trim);
            if let Some(list) = doc.and_then(|doc| doc.strip_prefix("Covers:").or(goes_on.then_some(doc))) {
                covered.extend(
                    list.split(',')
                        .map(|item| item.trim().trim_matches('`').to_owned())
                        .filter(|item| !item.is_empty()),
                );
                goes_on = list.ends_with(',');
            } else if let Some(rest) = line.strip_prefix("async fn ").or(line.strip_prefix("fn ")) {
                let name = rest.split('(').next().unwrap_or_default();
                for item in covered.drain(..) {
                    tests.entry(item).or_default().insert(format!("{module}::{name}"));
                }
            }
        }
    }
}
