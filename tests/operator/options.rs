//! Every flag and every variable, seen at work.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;
use tiktok_shop_testkit::{
    fixtures::{self, has_condition},
    operator::Operator,
    ports::free_port,
    process::{Program, Signal},
    proxy::Seen,
    rbac::{self, Scope},
    simulator::{Form, NewShop},
    steps,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    sync::mpsc,
};

use crate::resilience::{SOON, Stage, is_ready};

const OPERATOR: &str = env!("CARGO_BIN_EXE_tiktok-shop-operator");

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// Every flag that can be wrong by itself, a value that is wrong, and one that is right.
const FLAGS: [(&str, &str, &str); 20] = [
    ("token-endpoint", "http://example.com/refresh", "https://example.com/refresh"),
    ("authorization-endpoint", "http://example.com/get", "https://example.com/get"),
    ("shops-endpoint", "http://example.com/shops", "https://example.com/shops"),
    ("token-request", "xml", "query"),
    ("request-timeout", "10ms", "10s"),
    ("ca-file", "/no/such/file", ""),
    ("refresh-before", "1m", "5m"),
    ("status-interval", "1ms", "1s"),
    ("secret-access", "none", "named"),
    ("secret-poll-interval", "1ms", "1s"),
    ("namespace", "shops,Shops", "shops,shops-eu"),
    ("watch-label-selector", "a in (", "a in (b,c),!d"),
    ("max-concurrent-refreshes", "0", "1"),
    ("requests-per-second", "0", "0.5"),
    ("leader-elect", "maybe", "true"),
    ("lease-name", "-", "lease"),
    ("lease-namespace", "A", "shops"),
    ("listen", "localhost", ":0"),
    ("per-integration-metrics", "some", "off"),
    ("log-format", "xml", "text"),
];

/// `run` with these arguments and variables alone: exit code and what stands on standard error.
fn run(args: &[String], variables: &[(String, &str)]) -> (Option<i32>, String) {
    let output = Command::new(OPERATOR)
        .arg("run")
        .args(args)
        .env_clear()
        // There is no cluster: who gets this far has taken the settings.
        .env("KUBECONFIG", "/no/such/kubeconfig")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("the operator's binary runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A wrong value is one line that names the flag or the variable, whichever it came from; a flag
/// goes before a variable; an empty variable is none.
///
/// Covers: env, flag/token-endpoint, flag/token-request, flag/request-timeout, flag/ca-file, flag/refresh-before,
/// flag/status-interval, flag/secret-access, flag/secret-poll-interval, flag/namespace, flag/watch-label-selector,
/// flag/max-concurrent-refreshes, flag/requests-per-second, flag/leader-elect, flag/lease-name, flag/lease-namespace,
/// flag/listen, flag/per-integration-metrics, flag/log-format
#[test]
fn every_flag_and_every_variable_is_read_and_judged() {
    for (flag, wrong, right) in FLAGS {
        let variable = format!("TIKTOK_SHOP_{}", flag.to_uppercase().replace('-', "_"));
        // What every run needs, but for what is tried here.
        let base: Vec<String> = [("listen", "127.0.0.1:0"), ("lease-namespace", "shops")]
            .into_iter()
            .filter(|(name, _)| *name != flag)
            .map(|(name, value)| format!("--{name}={value}"))
            .collect();
        let with = |value: &str| [base.clone(), vec![format!("--{flag}={value}")]].concat();

        let (code, said) = run(&with(wrong), &[]);
        assert!(code.is_some_and(|code| code != 0), "--{flag}={wrong} is taken: {said}");
        assert_eq!(said.lines().count(), 1, "--{flag}={wrong} is one line:\n{said}");
        assert!(said.contains(&format!("--{flag}")), "--{flag}={wrong} is not named: {said}");

        let (code, said) = run(&base, &[(variable.clone(), wrong)]);
        assert!(code.is_some_and(|code| code != 0), "{variable}={wrong} is taken: {said}");
        assert_eq!(said.lines().count(), 1, "{variable}={wrong} is one line:\n{said}");
        let named = said.contains(&variable) || said.contains(&format!("--{flag}"));
        assert!(named, "{variable}={wrong} is not named: {said}");

        let reached = |what: &str, (code, said): (Option<i32>, String)| {
            let line = said.lines().last().unwrap_or_default();
            assert!(code != Some(0) && line.contains("KUBECONFIG"), "{what} is not taken: {said}");
        };
        if !right.is_empty() {
            reached(&format!("--{flag}={right}"), run(&with(right), &[]));
            reached(&format!("{variable}={right}"), run(&base, &[(variable.clone(), right)]));
            let both = run(&with(right), &[(variable.clone(), wrong)]);
            reached(&format!("--{flag}={right} before {variable}={wrong}"), both);
        }
        // The two that have no default are what the base gives, elsewhere.
        if flag != "lease-namespace" && flag != "listen" {
            reached(&format!("{variable}="), run(&base, &[(variable, "")]));
        }
    }
    let parser = tiktok_shop_operator::settings::parser();
    let known: BTreeSet<String> = parser
        .find_subcommand("run")
        .expect("there is a subcommand run")
        .get_arguments()
        .filter_map(|argument| argument.get_long().filter(|flag| *flag != "help").map(str::to_owned))
        .collect();
    // A journal is opened once the cluster answers: its own tests are elsewhere.
    let tried = FLAGS.iter().map(|(flag, ..)| (*flag).to_owned()).chain(["journal-dir".to_owned()]).collect();
    assert_eq!(known, tried, "a flag has no line in this table");
}

/// An operator that is told everything by variables, in two namespaces.
///
/// Covers: env, flag/token-endpoint, flag/token-request, flag/request-timeout, flag/refresh-before, flag/namespace,
/// flag/watch-label-selector, flag/leader-elect, flag/lease-name, flag/lease-namespace, flag/journal-dir, flag/listen,
/// flag/log-format, flag/per-integration-metrics, flag/secret-access, `metric/tiktokshop_leader`
#[tokio::test]
async fn variables_alone_are_enough() {
    let stage = Stage::new().await;
    let second = stage.plane.create_namespace("options-second").await;
    let places = vec![stage.namespace.clone(), second.clone()];
    let identity = rbac::install(stage.plane, &stage.namespace, &Scope::Namespaces(places)).await;
    let kubeconfig = stage.plane.kubeconfig_for(&identity.token, Some(&stage.proxy.url()));
    fixtures::app_secret(&second, "app", &stage.app.app_key, &stage.app.app_secret).create(&stage.client).await;
    for (name, namespace, left, shard) in [
        ("due", &stage.namespace, HOUR, "a"),
        ("later", &stage.namespace, 3 * DAY, "a"),
        ("second", &second, HOUR, "a"),
        ("others", &stage.namespace, HOUR, "b"),
    ] {
        let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id(name).access_remaining(left)).await;
        let tokens = fixtures::SecretFixture::new(namespace, name).tokens(
            shop.access_token(),
            shop.access_expires_at(),
            shop.refresh_token(),
            shop.refresh_expires_at(),
        );
        tokens.create(&stage.client).await;
        fixtures::integration(namespace, name, name, "app").label("shard", shard).create(&stage.client).await;
    }
    let listen = format!("127.0.0.1:{}", free_port());
    let variables = [
        ("TOKEN_ENDPOINT", stage.simulator.token_endpoint()),
        ("TOKEN_REQUEST", "query".to_owned()),
        ("REQUEST_TIMEOUT", "7s".to_owned()),
        ("REFRESH_BEFORE", "10h".to_owned()),
        ("NAMESPACE", format!("{},{second}", stage.namespace)),
        ("WATCH_LABEL_SELECTOR", "shard=a".to_owned()),
        ("LEADER_ELECT", "true".to_owned()),
        ("LEASE_NAME", "by-variable".to_owned()),
        ("LEASE_NAMESPACE", stage.namespace.clone()),
        ("JOURNAL_DIR", stage.journal.path().display().to_string()),
        ("LISTEN", listen.clone()),
        ("LOG_FORMAT", "text".to_owned()),
        ("PER_INTEGRATION_METRICS", "off".to_owned()),
        ("SECRET_ACCESS", "named".to_owned()),
        // What Kubernetes injects for a Service named tiktok-shop.
        ("PORT", "tcp://10.0.0.1:80".to_owned()),
        ("SERVICE_HOST", "10.0.0.1".to_owned()),
        ("CA_FILE", String::new()),
        ("REQUESTS_PER_SECOND", String::new()),
    ];
    let mut program = Program::new(OPERATOR).name("by variables").clear_env().arg("run").env("KUBECONFIG", &kubeconfig);
    for (name, value) in variables {
        program = program.env(format!("TIKTOK_SHOP_{name}"), value);
    }
    let operator = program.spawn().expect("the operator's binary runs");
    for (name, namespace) in [("due", &stage.namespace), ("second", &second)] {
        let refreshed = |status: &Value| status["lastRefreshTime"].is_string();
        fixtures::wait_for_status(&stage.client, namespace, name, "refreshed", refreshed, 2 * SOON).await;
    }
    let status = stage.wait_status("later", "Ready", is_ready, SOON).await;
    let next = status["nextRefreshTime"].as_str().expect("it is planned");
    let next = chrono::DateTime::parse_from_rfc3339(next).expect("a time").timestamp();
    let ahead = stage.simulator.shop("later").await.access_expires_at() - next;
    assert!((10 * HOUR..=10 * HOUR + HOUR / 2).contains(&ahead), "REFRESH_BEFORE: {ahead} s ahead");

    let requests = stage.simulator.requests(0).await;
    assert!(!requests.is_empty() && requests.iter().all(|request| request.form == Some(Form::Query)), "TOKEN_REQUEST");
    let claim = stage.proxy.wait_for_request(steps::claim(&stage.namespace, "due"), SOON).await;
    let claim = claim.json()["metadata"]["annotations"][steps::CLAIM].as_str().map(str::to_owned);
    let claim: Value = serde_json::from_str(&claim.expect("a claim is text")).expect("a claim is JSON");
    assert_eq!(claim["ttlSeconds"], 7 + 15, "REQUEST_TIMEOUT, and what a claim lives longer: {claim}");
    assert_eq!(stage.status("others").await, Value::Null, "WATCH_LABEL_SELECTOR");
    let lists = stage.proxy.count(|seen: &Seen| seen.path.ends_with("/secrets"));
    assert_eq!(lists, 0, "SECRET_ACCESS: no list and no watch");
    let lease = ["get", "lease", "by-variable", "-n", &stage.namespace, "-o", "jsonpath={.spec.holderIdentity}"];
    assert!(!stage.plane.kubectl_ok(&lease).await.is_empty(), "LEASE_NAME, LEASE_NAMESPACE");
    let journal = std::fs::read_dir(stage.journal.path()).expect("the journal's folder is there");
    assert!(journal.count() > 0, "JOURNAL_DIR");
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let metrics = http.get(format!("http://{listen}/metrics")).send().await.expect("LISTEN");
    let kind = metrics.headers().get("content-type").and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    assert_eq!(kind.as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
    let metrics = metrics.text().await.expect("metrics are text");
    assert!(metrics.contains("\ntiktokshop_leader 1\n"), "LEADER_ELECT: {metrics}");
    assert!(!metrics.contains("name=\"due\""), "PER_INTEGRATION_METRICS");
    let logs = operator.stderr();
    assert!(logs.contains("INFO") && !logs.lines().any(|line| line.starts_with('{')), "LOG_FORMAT:\n{logs}");
    operator.signal(Signal::TERM);
    assert_eq!(operator.wait_exit(SOON).await.expect("it ends").code(), Some(0));
    stage.simulator.assert_no_violations().await;
}

/// Takes connections, tells the first line of each, and closes them.
async fn proxy_that_tells() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it has an address"));
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut line = String::new();
            if BufReader::new(stream).read_line(&mut line).await.is_ok() && tell.send(line.trim().to_owned()).is_err() {
                return;
            }
        }
    });
    (url, told)
}

/// Without `--token-endpoint` it is TikTok's own. A proxy sees that, and goes no further.
///
/// Covers: flag/token-endpoint, reason/NetworkError
#[tokio::test]
async fn the_usual_endpoint_is_tiktoks() {
    let stage = Stage::new().await;
    stage.shop("shop", HOUR).await;
    let (url, mut told) = proxy_that_tells().await;
    let _operator = Operator::builder(OPERATOR)
        .kubeconfig(stage.plane.kubeconfig_for(&stage.identity.token, Some(&stage.proxy.url())))
        .namespace(&stage.namespace)
        .leader_elect(false)
        .flag("request-timeout", "3s")
        .env("HTTPS_PROXY", &url)
        .env("NO_PROXY", "127.0.0.1")
        .start();
    let line = tokio::time::timeout(SOON, told.recv()).await.expect("the proxy is asked").expect("it listens");
    assert!(line.starts_with("CONNECT auth.tiktok-shops.com:443 "), "{line}");
    let failed = |status: &Value| has_condition(status, "Refreshed", "False", "NetworkError");
    stage.wait_status("shop", "a network error", failed, SOON).await;
    stage.assert_refreshes("shop", 0).await;
}
