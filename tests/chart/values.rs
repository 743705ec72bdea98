//! Values as people write them: keys with nothing behind them, and what the operator itself would refuse.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tiktok_shop_operator::settings::{Command, Environment};
use tiktok_shop_operator::tiktok::Endpoint;
use tiktok_shop_testkit::control_plane::ControlPlane;

use crate::helm::{Helm, Ran, chart};

/// `helm template` of the chart with these values.
async fn template(helm: &Helm<'_>, values: &Value) -> Ran {
    let chart = chart();
    helm.run(&["template", "op", chart.to_str().expect("its path is text"), "-n", "ops"], Some(values)).await
}

/// The lines of what helm said that are not about helm.
fn told(ran: &Ran) -> Vec<&str> {
    let about_helm = |line: &&str| {
        line.is_empty()
            || line.starts_with("Use --debug")
            || line.ends_with("in the following chart(s):")
            || *line == "tiktok-shop-operator:"
    };
    ran.stderr.lines().filter(|line| !about_helm(line)).collect()
}

/// Each value of a schema that has a default: its path, whether it is required, and whether the default is empty.
fn paths(schema: &Value, above: &[String], found: &mut Vec<(Vec<String>, bool, bool)>) {
    for (key, own) in schema["properties"].as_object().into_iter().flatten() {
        let path = [above, std::slice::from_ref(key)].concat();
        let required = schema["required"].as_array().is_some_and(|names| names.contains(&json!(key)));
        paths(own, &path, found);
        match own.get("default") {
            Some(default) => {
                let empty = [json!(null), json!(""), json!([]), json!({})].contains(default);
                found.push((path, required, empty));
            }
            None if own["properties"].is_object() => found.push((path, required, false)),
            // A parent chart's.
            None => {}
        }
    }
}

/// `replicas:` with nothing behind it is none, not 0; where the default is empty, too, it may stand so.
#[tokio::test]
async fn a_key_with_nothing_behind_it_is_refused_unless_it_is_empty_by_default() {
    let helm = Helm::of(ControlPlane::shared().await).await;
    let schema = std::fs::read_to_string(chart().join("values.schema.json")).expect("the chart has a schema");
    let schema: Value = serde_json::from_str(&schema).expect("it is JSON");
    let mut all = Vec::new();
    paths(&schema, &[], &mut all);
    // Everything is rendered that a value could have a say in.
    let base = json!({
        "replicas": 2, "serviceMonitor": {"enabled": true}, "prometheusRule": {"enabled": true},
        "grafanaDashboard": {"enabled": true}, "networkPolicy": {"enabled": true},
    });
    let plain = template(&helm, &base).await;
    assert!(plain.ok, "{plain:?}");
    for (path, required, empty) in all {
        let name = path.join(".");
        assert!(required || empty, "{name}: has a default that is not empty, and the schema does not require it");
        let mut values = base.clone();
        let (key, sections) = path.split_last().expect("a path has a key");
        let mut place = values.as_object_mut().expect("it is an object");
        for section in sections {
            let inner = place.entry(section).or_insert_with(|| Map::new().into());
            place = inner.as_object_mut().expect("a section is an object");
        }
        place.insert(key.clone(), Value::Null);
        let ran = template(&helm, &values).await;
        if required {
            let says = format!("missing property '{key}'");
            let told = told(&ran);
            assert!(!ran.ok && told.len() == 1 && told[0].ends_with(&says), "{name}: is to say {says:?}: {told:?}");
        } else {
            assert!(ran.ok && ran.stdout == plain.stdout, "{name}: renders another thing than its default: {ran:?}");
        }
    }
}

/// A value, its flag, what both take and what both refuse.
type Row = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const ROWS: [Row; 11] = [
    ("requestTimeout", "request-timeout", &["100ms", "0.1s", "4m59s1000ms", "5m"], &["99ms", "50ms", "5m1ms", "6m"]),
    ("refreshBefore", "refresh-before", &["5m", "300s", "1h30m", "144h"], &["4m", "4m59.999s", "145h", "144h1s", "5"]),
    ("statusInterval", "status-interval", &["1s", "24h"], &["999ms", "25h", "1d"]),
    ("secretPollInterval", "secret-poll-interval", &["1s", "23h60m"], &["0s", "24h1s"]),
    (
        "requestsPerSecond",
        "requests-per-second",
        &["0.001", "0.5", "20", "100000"],
        &["0.0001", "0", "100000.5", "-1", "many"],
    ),
    (
        "watchLabelSelector",
        "watch-label-selector",
        &["a", "!a", "a=b", "a==b", "a != b", "a=", "example.com/a in (b, c),d notin (e)", "a in (),!x/y.z_-1"],
        &["a in (b", "a b", "a in b", "a=b,", ",a", "a>1", "a=b=c", "-a", "a/b/c=d", "a in (b)c", "a=(b)"],
    ),
    ("leaseName", "lease-name", &["a", "a-b.c"], &["Bad_", "-a", "a..b", "a.", "ö"]),
    ("leaseNamespace", "lease-namespace", &["ops"], &["Ops", "a.b", "a-"]),
    (
        "listen",
        "listen",
        &["0.0.0.0:8080", ":9090", "[::]:65535", "10.0.0.1:1"],
        &["0.0.0.0:99999", "8080", "example.com:80", "[::]", "0.0.0.0:port"],
    ),
    ("maxConcurrentRefreshes", "max-concurrent-refreshes", &["1", "10000"], &["0", "10001", "-1", "many"]),
    (
        "tokenEndpoint",
        "token-endpoint",
        &[
            "https://example.com",
            "https://example.com:8443/a/b",
            "http://127.0.0.1:80/x",
            "http://[::1]",
            "http://localhost/",
        ],
        &[
            "http://example.com",
            "foo",
            "ftp://example.com",
            "https://u:s3cret@example.com/",
            "https://example.com/?a=b",
        ],
    ),
];

/// What the operator would say at its start, as a pod that does not get ready.
fn operator_takes(flag: &str, word: &str) -> bool {
    let line = ["tiktok-shop-operator".to_owned(), "run".to_owned(), format!("--{flag}={word}")];
    let taken = Command::parse(line, &Environment::new(BTreeMap::new(), Some("ops".to_owned()))).is_ok();
    taken && (!flag.ends_with("-endpoint") || Endpoint::parse(word).is_ok())
}

#[tokio::test]
async fn what_the_operator_would_refuse_at_its_start_is_refused_in_one_line_before() {
    let helm = Helm::of(ControlPlane::shared().await).await;
    let set = async |name: &str, word: &str| {
        // As --set has it: whole numbers are numbers, the rest is text.
        let value = word.parse::<i64>().map_or_else(|_| json!(word), |number| json!(number));
        template(&helm, &json!({name: value})).await
    };
    for (name, flag, taken, refused) in ROWS {
        for word in taken {
            assert!(operator_takes(flag, word), "--{flag}={word} is taken");
            let ran = set(name, word).await;
            assert!(ran.ok, "{name}: {word:?} is taken by the operator: {}", ran.stderr);
            let rendered = format!("--{flag}={word}");
            assert!(ran.stdout.contains(&rendered), "{name}: {word:?} renders {rendered}");
        }
        for word in refused {
            assert!(!operator_takes(flag, word), "--{flag}={word} is refused");
            let ran = set(name, word).await;
            let told = told(&ran);
            assert!(
                !ran.ok && told.len() == 1 && told[0].contains(name),
                "{name}: {word:?} is to be refused: {told:?}"
            );
            assert!(!ran.stderr.contains("s3cret"), "{name}: a password is shown: {told:?}");
        }
    }
    let shards = json!({"shards": [{"name": "a", "selector": "a in (b"}]});
    let ran = template(&helm, &shards).await;
    assert!(!ran.ok && ran.stderr.contains("shards: \"a in (b\" is no label selector"), "{ran:?}");
    for name in ["authorizationEndpoint", "shopsEndpoint"] {
        let ran = set(name, "http://example.com").await;
        assert!(!ran.ok && ran.stderr.contains(&format!("{name}: write https://")), "{ran:?}");
    }
    // As a number, not as --set writes it.
    let ran = template(&helm, &json!({"requestsPerSecond": 0.0001})).await;
    assert!(!ran.ok && told(&ran)[0].contains("requestsPerSecond"), "{ran:?}");
    // The operator would listen there, and its pod would be killed by the probes.
    for word in ["127.0.0.1:8080", "[::1]:8080", "localhost:8080"] {
        assert!(operator_takes("listen", word));
        let ran = set("listen", word).await;
        assert!(!ran.ok && told(&ran).len() == 1 && told(&ran)[0].contains("listen"), "{word}: {ran:?}");
    }
}
