//! The operator as a process: each flag and each variable seen to do what it says, what it answers
//! over HTTP and prints, and how it ends.

use std::{
    collections::BTreeSet,
    process::Stdio,
    time::{Duration, Instant},
};

use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tiktok_shop_testkit::{
    fixtures::{self, has_condition},
    operator::Builder,
    poll,
    ports::free_port,
    process::{Child, Program, Signal, closed_output, full_output, run_into},
    proxy::Seen,
    rbac::{self, Scope},
    simulator::{Action, Fault, Forms, NewShop, Point},
    steps,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::resilience::{LONG, SOON, Stage, crd, is_ready, wait_leads};

const OPERATOR: &str = env!("CARGO_BIN_EXE_tiktok-shop-operator");

const HOUR: i64 = 3_600;

/// Not due, whatever the window.
const PLENTY: i64 = 7 * 24 * HOUR;

/// How a process that was to end by itself ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the operator's binary with nothing but these variables until it ends by itself.
async fn run(args: &[&str], envs: &[(&str, &str)]) -> Ended {
    let mut command = tokio::process::Command::new(OPERATOR);
    command.args(args).env_clear().envs(envs.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
        command.env("LLVM_PROFILE_FILE", profile);
    }
    let output = tokio::time::timeout(Duration::from_secs(40), command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{args:?} with {envs:?} did not end by itself")).expect("it starts");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("it prints UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("it prints UTF-8"),
    }
}

impl Ended {
    /// It failed, with one line on standard error that says all this, and nothing on standard output.
    fn assert_one_line(&self, what: &str, says: &[&str]) {
        assert!(self.code.is_some_and(|code| code != 0), "{what} is a failure: {self:?}");
        assert_eq!(self.stdout, "", "{what} prints nothing to be piped on");
        assert_eq!(self.stderr.lines().count(), 1, "{what} is told in one line:\n{}", self.stderr);
        for word in says {
            assert!(self.stderr.contains(word), "{what}: the line does not say {word:?}:\n{}", self.stderr);
        }
    }
}

/// Bad flags and variables: one line that names the place, what is wrong and what to write.
///
/// Covers: env
#[tokio::test]
async fn a_setting_that_cannot_be_used_is_told_in_one_line_that_says_what_to_write() {
    let alone = "--leader-elect=false";
    let flags: &[(&[&str], &[&str])] = &[
        (&[], &["tiktok-shop-operator", "--help"]),
        (&["fly"], &["fly", "--help"]),
        (&["run", "--request-timout=3s"], &["--request-timout", "--request-timeout"]),
        (&["run", alone, "--request-timeout=soon"], &["--request-timeout", "soon", "100ms to 5m"]),
        (&["run", alone, "--request-timeout=10m"], &["--request-timeout", "100ms to 5m"]),
        (&["run", alone, "--refresh-before=1m"], &["--refresh-before", "5m to 144h"]),
        (&["run", alone, "--status-interval=1ms"], &["--status-interval", "1s to 24h"]),
        (&["run", alone, "--secret-access=all"], &["--secret-access", "all", "watch, named"]),
        (&["run", alone, "--secret-poll-interval=1ms"], &["--secret-poll-interval", "1s to 24h"]),
        (&["run", alone, "--token-request=xml"], &["--token-request", "xml", "auto, json, query"]),
        (&["run", alone, "--namespace=Shops"], &["--namespace", "Shops", "lowercase"]),
        (&["run", alone, "--namespace="], &["--namespace", "empty"]),
        (&["run", alone, "--watch-label-selector=a in b"], &["--watch-label-selector", "a in b", "shard=a"]),
        (&["run", alone, "--max-concurrent-refreshes=0"], &["--max-concurrent-refreshes", "1 to 10000"]),
        (&["run", alone, "--requests-per-second=NaN"], &["--requests-per-second", "0.001 to 100000"]),
        (&["run", alone, "--listen=8080"], &["--listen", "8080", "0.0.0.0:8080"]),
        (&["run", alone, "--per-integration-metrics=maybe"], &["--per-integration-metrics", "on, off"]),
        (&["run", alone, "--log-format=xml"], &["--log-format", "json, text"]),
        (&["run", "--leader-elect=perhaps"], &["--leader-elect", "true, false"]),
        (&["run"], &["--lease-namespace", "--leader-elect=false"]),
        (&["run", "--lease-namespace=a", "--lease-name=A!"], &["--lease-name", "A!"]),
        (
            &["run", alone, "--token-endpoint=http://auth.tiktok-shops.com/x"],
            &["--token-endpoint", "https://", "clear"],
        ),
        (&["run", alone, "--token-endpoint=auth.tiktok-shops.com"], &["--token-endpoint", "https://"]),
        (&["run", alone, "--ca-file=/nowhere/ca.pem"], &["--ca-file", "/nowhere/ca.pem", "PEM"]),
        (&["run", alone, "--ca-file=/dev/null"], &["CA file", "PEM"]),
        (&["run", alone, "stray"], &["stray", "--help"]),
    ];
    for (args, says) in flags {
        run(args, &[]).await.assert_one_line(&format!("{args:?}"), says);
    }
    let variables: &[(&str, &str, &[&str])] = &[
        ("TIKTOK_SHOP_REQUEST_TIMEOUT", "soon", &["TIKTOK_SHOP_REQUEST_TIMEOUT", "soon", "100ms to 5m"]),
        ("TIKTOK_SHOP_NAMESPACE", "a,B", &["TIKTOK_SHOP_NAMESPACE", "B"]),
        ("TIKTOK_SHOP_LISTEN", "tcp://10.0.0.1:80", &["TIKTOK_SHOP_LISTEN", "0.0.0.0:8080"]),
        ("TIKTOK_SHOP_TOKEN_ENDPOINT", "http://example.com/", &["--token-endpoint", "https://"]),
    ];
    for (name, value, says) in variables {
        run(&["run", alone], &[(name, value)]).await.assert_one_line(&format!("{name}={value}"), says);
    }
    let secret = run(&["run", alone, "--token-endpoint=https://user:hunter2@example.com/x"], &[]).await;
    secret.assert_one_line("a password in the endpoint", &["--token-endpoint"]);
    assert!(!secret.stderr.contains("hunter2"), "it repeats a password: {}", secret.stderr);
}

/// No cluster, an unreachable one, one that refuses, one without the CRD, a port or a journal that is
/// taken: one line that says what to do.
///
/// Covers: flag/listen, flag/journal-dir
#[tokio::test]
async fn what_keeps_it_from_starting_is_told_in_one_line_that_says_what_to_do() {
    let stage = Stage::new().await;
    let home = tempfile::tempdir().expect("a temporary folder can be made");
    let home = home.path().to_str().expect("its path is text");
    let kubeconfig = |token: &str, url: &str| {
        let path = stage.plane.kubeconfig_for(token, Some(url));
        path.to_str().expect("its path is text").to_owned()
    };
    let args = ["run", "--leader-elect=false", "--listen=127.0.0.1:0"];
    let endpoint = format!("--token-endpoint={}", stage.simulator.token_endpoint());
    let start =
        async |more: &[&str], envs: &[(&str, &str)]| run(&[&args[..], &[endpoint.as_str()], more].concat(), envs).await;
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let own = &stage.identity.token;
    let good = kubeconfig(own, &stage.proxy.url());
    let good = ("KUBECONFIG", good.as_str());

    start(&[], &[("HOME", home)]).await.assert_one_line("no kubeconfig", &["no cluster", "KUBECONFIG"]);
    let missing = format!("{home}/none/none");
    start(&[], &[("KUBECONFIG", &missing)])
        .await
        .assert_one_line("a missing kubeconfig", &["no cluster", "KUBECONFIG"]);
    let garbage = format!("{home}/garbage");
    std::fs::write(&garbage, "{").expect("a file can be written");
    let unreachable = kubeconfig(own, &nowhere);
    start(&[], &[("KUBECONFIG", &unreachable)])
        .await
        .assert_one_line("an unreachable cluster", &["refused", "check that it runs", "KUBECONFIG"]);
    let stranger = kubeconfig("no-such-token", &stage.proxy.url());
    start(&[], &[("KUBECONFIG", &stranger)]).await.assert_one_line("a cluster that refuses", &["Unauthorized"]);

    let rule = stage.proxy.on("no CRD", |seen| seen.path == "/apis/tiktokshop.dev/v1alpha1");
    let no_crd = rule.respond(404, &[("content-type", "text/plain")], "404 page not found\n");
    let says = ["tiktok-shop-operator crd | kubectl apply"];
    start(&[], &[good]).await.assert_one_line("a missing CRD", &says);
    no_crd.remove();

    let squatter = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let taken = squatter.local_addr().expect("it is bound").to_string();
    run(&["run", "--leader-elect=false", &format!("--listen={taken}"), &endpoint], &[good])
        .await
        .assert_one_line("a port in use", &[&taken, "--listen", "in use"]);

    start(&[&format!("--journal-dir={home}/none/none")], &[good])
        .await
        .assert_one_line("a missing journal", &["--journal-dir", "no such directory", "mount"]);
    start(&[&format!("--journal-dir={garbage}")], &[good])
        .await
        .assert_one_line("a file for a journal", &["--journal-dir"]);
    let other = stage.operator().start();
    other.wait_ready(SOON).await;
    let shared = format!("--journal-dir={}", stage.journal.path().display());
    start(&[&shared], &[good]).await.assert_one_line("a journal of another", &["--journal-dir", "another operator"]);
}

/// A kubeconfig that can't be parsed is told in one line, too.
#[tokio::test]
async fn a_broken_kubeconfig_is_told_in_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let broken = folder.path().join("kubeconfig");
    std::fs::write(&broken, "{").expect("a file can be written");
    let path = broken.to_str().expect("its path is text");
    run(&["run", "--leader-elect=false", "--listen=127.0.0.1:0"], &[("KUBECONFIG", path)])
        .await
        .assert_one_line("a broken kubeconfig", &["KUBECONFIG"]);
}

/// What is printed to be used: the CRD, help, the version.
#[tokio::test]
async fn the_crd_help_and_version_go_to_standard_output() {
    let printed = run(&["crd"], &[]).await;
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    assert_eq!(printed.stdout, crd(), "'tiktok-shop-operator crd' and crds/ differ: write the one into the other");
    for (args, says) in [
        (&["--help"][..], "crd"),
        (&["run", "--help"], "TIKTOK_SHOP_REQUEST_TIMEOUT"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let shown = run(args, &[]).await;
        assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(shown.stdout.contains(says), "{args:?} does not show {says}:\n{}", shown.stdout);
    }
}

/// Where nobody reads any more, as after a kubectl that failed, nothing is said; what can't be written is.
#[test]
fn what_can_not_be_printed_is_told_unless_the_output_was_closed() {
    let full = "tiktok-shop-operator: failed to write to standard output: No space left on device (os error 28); see where it leads\n";
    for args in [&["crd"][..], &["run", "--help"]] {
        for (output, expected) in [(full_output(), full), (closed_output(), "")] {
            let ran = run_into(std::process::Command::new(OPERATOR).args(args), output);
            assert_eq!(
                (String::from_utf8_lossy(&ran.stderr).as_ref(), ran.status.code()),
                (expected, Some(1)),
                "{args:?}"
            );
        }
    }
}

/// `/livez`, `/readyz`, `/metrics`, and nothing else; a standby is ready.
///
/// Covers: flag/listen
#[tokio::test]
async fn it_is_alive_at_once_ready_with_its_lists_and_serves_nothing_else() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let lists = stage.proxy.on("lists", steps::watch("tiktokshopintegrations")).hold();
    let operator = stage.operator().start();
    lists.wait_held(SOON).await;
    assert_eq!(operator.probe("/livez").await, Some(200));
    assert_eq!(operator.probe("/readyz").await, Some(503), "without its lists it is not ready");
    lists.release();
    operator.wait_ready(SOON).await;
    assert_eq!(operator.probe("/metrics").await, Some(200));
    for path in ["/", "/healthz", "/metrics/", "/debug/pprof", "/livez/x"] {
        assert_eq!(operator.probe(path).await, Some(404), "{path}");
    }
    let text = operator.metrics_text().await;
    assert!(text.contains("# TYPE tiktokshop_integrations gauge"), "{text}");
}

/// Signals: SIGTERM and SIGINT end it in order, SIGINT after one of them at once.
#[tokio::test]
async fn the_first_signal_ends_it_in_order_and_ctrl_c_after_it_at_once() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    for signal in [Signal::TERM, Signal::INT] {
        let operator = stage.operator().start();
        operator.wait_ready(SOON).await;
        operator.process().signal(signal);
        assert_eq!(operator.wait_exit(SOON).await.code(), Some(0), "{signal:?} while idle");
    }
    // Asked to end while TikTok has a refresh.
    let stopping = async |request: &str| {
        let operator = stage.operator().flag("request-timeout", "60s").start();
        operator.wait_ready(SOON).await;
        stage.simulator.add_fault(Fault::once(Action::hold(Point::BeforeProcessing))).await;
        stage.request("shop", request).await;
        let held = stage.simulator.wait_for_held("shop", Point::BeforeProcessing, SOON).await;
        operator.process().signal(Signal::TERM);
        let stopping = |line: &str| line.contains("stopping");
        operator.process().wait_for_line(stopping, SOON).await.unwrap_or_else(|error| panic!("{error}"));
        (operator, held)
    };
    let (operator, held) = stopping("now").await;
    operator.process().signal(Signal::TERM);
    let again = |line: &str| line.contains("SIGTERM once more");
    operator.process().wait_for_line(again, SOON).await.unwrap_or_else(|error| panic!("{error}"));
    stage.simulator.release(held.id).await;
    assert_eq!(
        operator.wait_exit(SOON).await.code(),
        Some(0),
        "what was in flight is stored, however often it is told"
    );
    stage.wait_refreshed("shop", "now", SOON).await;

    let (operator, held) = stopping("again").await;
    operator.process().signal(Signal::INT);
    assert_eq!(operator.wait_exit(SOON).await.code(), Some(1), "a person who insists is heard");
    stage.simulator.release(held.id).await;
}

/// A signal while the API server does not answer yet.
#[tokio::test]
async fn a_signal_ends_it_while_it_starts() {
    let stage = Stage::new().await;
    for signal in [Signal::TERM, Signal::INT] {
        let hold = stage.proxy.on("the first request", |seen: &Seen| seen.path.starts_with("/apis/")).hold();
        let operator = stage.operator().start();
        hold.wait_held(SOON).await;
        operator.process().signal(signal);
        // The request itself has 30 s.
        assert_eq!(operator.wait_exit(Duration::from_secs(10)).await.code(), Some(0), "{signal:?}");
        stage.proxy.remove_rules();
    }
}

/// An operator that gets its settings otherwise than by the kit's flags.
fn raw(stage: &Stage<'_>, args: &[String], envs: &[(&str, String)]) -> Child {
    let kubeconfig = stage.plane.kubeconfig_for(&stage.identity.token, Some(&stage.proxy.url()));
    let mut program = Program::new(OPERATOR).name("operator").clear_env().env("KUBECONFIG", kubeconfig).args(args);
    for (name, value) in envs {
        program = program.env(name, value);
    }
    program.spawn().unwrap_or_else(|error| panic!("{error}"))
}

async fn wait_listening(child: &Child, port: u16) {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client can be made");
    let ready = poll::until(SOON, async || {
        let answer = http.get(format!("http://127.0.0.1:{port}/readyz")).send().await.ok()?;
        answer.status().is_success().then_some(())
    });
    assert!(ready.await.is_some(), "nothing is ready on the port that was asked for:\n{}", child.tail(20));
}

/// Every flag has a variable; a flag beats it, an empty one is unset, an unknown one is ignored.
///
/// Covers: env, flag/listen, flag/token-endpoint, flag/namespace, flag/log-format, flag/leader-elect,
/// flag/lease-name, flag/lease-namespace
#[tokio::test]
async fn variables_say_what_flags_do_not_and_count_as_unset_where_empty() {
    let stage = Stage::new().await;
    stage.shop("shop", HOUR).await;
    let port = free_port();
    let set = |name: &'static str, value: &str| (name, value.to_owned());
    let envs = [
        set("TIKTOK_SHOP_LISTEN", &format!("127.0.0.1:{port}")),
        set("TIKTOK_SHOP_TOKEN_ENDPOINT", &stage.simulator.token_endpoint()),
        set("TIKTOK_SHOP_NAMESPACE", &format!("nobody,{}", stage.namespace)),
        set("TIKTOK_SHOP_LOG_FORMAT", "json"),
        set("TIKTOK_SHOP_LEADER_ELECT", "true"),
        set("TIKTOK_SHOP_LEASE_NAME", "by-variable"),
        set("TIKTOK_SHOP_LEASE_NAMESPACE", &stage.namespace),
        set("TIKTOK_SHOP_REQUEST_TIMEOUT", ""),
        set("TIKTOK_SHOP_CA_FILE", ""),
        set("TIKTOK_SHOP_JOURNAL_DIR", ""),
        set("TIKTOK_SHOP_WATCH_LABEL_SELECTOR", ""),
        // A Service named tiktok-shop makes Kubernetes set such.
        set("TIKTOK_SHOP_PORT", "tcp://10.0.0.1:80"),
        set("TIKTOK_SHOP_SERVICE_HOST", "10.0.0.1"),
    ];
    let args = ["run", "--log-format=text", "--lease-name=by-flag"].map(str::to_owned);
    // It may only work in its own namespace, so it is ready only if it asks for no other.
    let own = format!("--namespace={}", stage.namespace);
    let child = raw(&stage, &[&args[..], &[own]].concat(), &envs);
    wait_listening(&child, port).await;
    stage.simulator.wait_for_refreshes("shop", 1, SOON).await;
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
        Api::namespaced(stage.client.clone(), &stage.namespace);
    let leases = leases.list(&ListParams::default()).await.expect("an admin may list them");
    let names: Vec<_> = leases.items.iter().filter_map(|lease| lease.metadata.name.as_deref()).collect();
    assert_eq!(names, ["by-flag"], "a flag beats its variable, and the Lease is where it was said");
    let line = child.lines().into_iter().find(|line| line.text.contains("started")).expect("it says that it started");
    assert!(!line.text.starts_with('{'), "the flag said text, and that beats the variable: {}", line.text);
}

/// `--namespace` is repeatable, and nothing outside is asked for or touched.
///
/// Covers: flag/namespace, env
#[tokio::test]
async fn it_works_in_the_namespaces_it_is_given_and_asks_for_no_other() {
    let stage = Stage::new().await;
    let second = stage.plane.create_namespace("second").await;
    let third = stage.plane.create_namespace("third").await;
    let scope = Scope::Namespaces(vec![stage.namespace.clone(), second.clone(), third.clone()]);
    rbac::install(stage.plane, &stage.namespace, &scope).await;
    for namespace in [&stage.namespace, &second, &third] {
        let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id(namespace).access_remaining(60)).await;
        let tokens = fixtures::SecretFixture::new(namespace, "shop").tokens(
            shop.access_token(),
            shop.access_expires_at(),
            shop.refresh_token(),
            shop.refresh_expires_at(),
        );
        tokens.create(&stage.client).await;
        if *namespace != stage.namespace {
            let app = &stage.app;
            fixtures::app_secret(namespace, "app", &app.app_key, &app.app_secret).create(&stage.client).await;
        }
        fixtures::integration(namespace, "shop", "shop", "app").create(&stage.client).await;
    }
    let check = async || {
        stage.simulator.wait_for_refreshes(&stage.namespace, 1, SOON).await;
        stage.simulator.wait_for_refreshes(&second, 1, SOON).await;
        assert_eq!(stage.simulator.shop(&third).await.counters.presentations, 0);
        assert_eq!(fixtures::get_status(&stage.client, &third, "shop").await, Value::Null);
        let elsewhere = stage.proxy.requests().into_iter().filter(|seen| {
            let ours =
                [&stage.namespace, &second].iter().any(|ours| seen.path.contains(&format!("/namespaces/{ours}/")));
            !ours && seen.path != "/apis/tiktokshop.dev/v1alpha1"
        });
        assert_eq!(elsewhere.map(|seen| seen.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
    };
    let operator = stage.operator().arg(format!("--namespace={second}")).start();
    operator.wait_ready(SOON).await;
    check().await;
    drop(operator);
    let port = free_port();
    let args = ["run", "--leader-elect=false"].map(str::to_owned);
    let envs = [
        ("TIKTOK_SHOP_NAMESPACE", format!("{}, {second}", stage.namespace)),
        ("TIKTOK_SHOP_LISTEN", format!("127.0.0.1:{port}")),
        ("TIKTOK_SHOP_TOKEN_ENDPOINT", stage.simulator.token_endpoint()),
    ];
    let child = raw(&stage, &args, &envs);
    wait_listening(&child, port).await;
    check().await;
}

/// The kubeconfig of a service account that may neither list nor watch Secrets.
async fn named_access(stage: &Stage<'_>) -> std::path::PathBuf {
    let namespace = &stage.namespace;
    stage
        .plane
        .apply(&format!(
            "\
apiVersion: v1
kind: ServiceAccount
metadata: {{name: named, namespace: {namespace}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: named, namespace: {namespace}}}
rules:
  - {{apiGroups: [tiktokshop.dev], resources: [tiktokshopintegrations], verbs: [get, list, watch]}}
  - {{apiGroups: [tiktokshop.dev], resources: [tiktokshopintegrations/status], verbs: [patch]}}
  - {{apiGroups: [\"\"], resources: [secrets], verbs: [get, patch]}}
  - {{apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: named, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: named}}
subjects: [{{kind: ServiceAccount, name: named, namespace: {namespace}}}]
"
        ))
        .await;
    let token = stage.plane.service_account_token(namespace, "named").await;
    stage.plane.kubeconfig_for(&token, Some(&stage.proxy.url()))
}

/// Of two namespaces the rights are missing in one: nothing can be known of it, and the other is worked on. Without the right
/// to list Secrets, those that are named are read all the same.
///
/// Covers: flag/namespace
#[tokio::test]
async fn what_may_not_be_listed_stops_nothing_else() {
    let stage = Stage::new().await;
    let closed = stage.plane.create_namespace("closed").await;
    stage.shop("shop", HOUR).await;
    let operator = stage.operator().namespace(&closed).start();
    stage.wait_status("shop", "refreshed", |status| status["lastRefreshTime"].is_string(), SOON).await;
    assert_eq!(operator.probe("/readyz").await, Some(503), "its lists are not all in");
    operator.process().wait_for_line(|line| line.contains("may not be listed"), SOON).await.expect("it is said");
    let scope = Scope::Namespaces(vec![stage.namespace.clone(), closed.clone()]);
    rbac::install(stage.plane, &stage.namespace, &scope).await;
    operator.wait_ready(LONG).await;
    operator.sigterm(SOON).await;

    let namespace = &stage.namespace;
    let bare = named_access(&stage).await;
    stage.shop("bare", HOUR).await;
    let operator = stage.operator().env("KUBECONFIG", bare).flag("secret-poll-interval", "1s").start();
    stage.wait_status("bare", "refreshed", |status| status["lastRefreshTime"].is_string(), SOON).await;
    let shop = stage.simulator.reauthorize("bare").await;
    let patch = json!({ "data": stage.token_secret(&shop).manifest()["data"] });
    fixtures::patch_secret(&stage.client, namespace, "bare", &patch).await;
    let seen = |status: &Value| unix(&status["accessTokenExpiresAt"]) == shop.access_expires_at();
    stage.wait_status("bare", "the new tokens", seen, SOON).await;
    drop(operator);
}

/// `--watch-label-selector`: several operators, each on its share.
///
/// Covers: flag/watch-label-selector
#[tokio::test]
async fn operators_with_label_selectors_keep_to_their_shares() {
    let stage = Stage::new().await;
    for (name, shard) in [("a", Some("a")), ("b", Some("b")), ("none", None)] {
        let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id(name).access_remaining(60)).await;
        stage.token_secret(&shop).create(&stage.client).await;
        let mut integration = stage.integration(name);
        if let Some(shard) = shard {
            integration = integration.label("shard", shard);
        }
        integration.create(&stage.client).await;
    }
    // Both elect: shards do not contend for one Lease.
    let sharded = |selector: &str| stage.operator_through(&stage.proxy).flag("watch-label-selector", selector);
    let a = sharded("shard=a").name("a").start();
    let b = sharded("shard in (b)").name("b").start();
    a.wait_ready(SOON).await;
    b.wait_ready(SOON).await;
    for shop in ["a", "b"] {
        stage.simulator.wait_for_refreshes(shop, 1, SOON).await;
        stage.wait_status(shop, "Ready", is_ready, SOON).await;
    }
    assert_eq!(stage.status("none").await, Value::Null);
    a.sigkill();
    stage.request("b", "now").await;
    stage.wait_refreshed("b", "now", SOON).await;
    // One that gets the label is taken up, one that loses it is let go.
    let label = |shard: Value| json!({"metadata": {"labels": {"shard": shard}}});
    fixtures::patch_integration(&stage.client, &stage.namespace, "none", &label("b".into())).await;
    stage.simulator.wait_for_refreshes("none", 1, SOON).await;
    stage.wait_status("none", "Ready", is_ready, SOON).await;
    fixtures::patch_integration(&stage.client, &stage.namespace, "b", &label(Value::Null)).await;
    stage.request("b", "later").await;
    stage.request("none", "later").await;
    stage.wait_refreshed("none", "later", SOON).await;
    stage.assert_refreshes("b", 2).await;
    stage.assert_refreshes("a", 1).await;
}

/// `--refresh-before` for those that set none; the spec's own wins.
///
/// Covers: flag/refresh-before, spec/refreshBefore, status/nextRefreshTime
#[tokio::test]
async fn the_window_of_the_flag_is_for_integrations_that_set_none() {
    let stage = Stage::new().await;
    let shop = stage.shop("shop", 2 * HOUR).await;
    let own = stage.simulator.create_shop(&NewShop::of(&stage.app).id("own").access_remaining(2 * HOUR)).await;
    stage.token_secret(&own).create(&stage.client).await;
    stage.integration("own").refresh_before("30m").create(&stage.client).await;
    let operator = stage.operator().flag("refresh-before", "1h").start();
    operator.wait_ready(SOON).await;
    for (name, expires_at, window) in
        [("shop", shop.access_expires_at(), HOUR), ("own", own.access_expires_at(), HOUR / 2)]
    {
        let status = stage.wait_status(name, "Ready", is_ready, SOON).await;
        let next = unix(&status["nextRefreshTime"]);
        let earliest = expires_at - window - window / 20;
        assert!(
            (earliest..=expires_at - window).contains(&next),
            "{name} is refreshed {window} s before its expiry, and at most 5 % earlier: {status:#}"
        );
    }
    drop(operator);
    let operator = stage.operator().flag("refresh-before", "3h").start();
    operator.wait_ready(SOON).await;
    stage.simulator.wait_for_refreshes("shop", 1, SOON).await;
    stage.request("own", "now").await;
    stage.wait_refreshed("own", "now", SOON).await;
    stage.assert_refreshes("own", 1).await;
    stage.assert_refreshes("shop", 1).await;
}

fn unix(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    text.parse::<k8s_openapi::jiff::Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}")).as_second()
}

/// `--requests-per-second`, and the soonest expiry first.
///
/// Covers: flag/requests-per-second
#[tokio::test]
async fn under_a_rate_limit_the_tokens_that_expire_soonest_go_first() {
    let stage = Stage::new().await;
    let mut by_expiry = Vec::new();
    for (name, minutes) in [("a", 50), ("b", 10), ("c", 40), ("d", 20), ("e", 60), ("f", 30)] {
        stage.shop(name, minutes * 60).await;
        by_expiry.push((minutes, name));
    }
    by_expiry.sort_unstable();
    // What is due first is read last: the others wait for it.
    let hold = stage.proxy.on("first", steps::read(&stage.namespace, by_expiry[0].1)).once().hold();
    let operator = stage.operator().flag("requests-per-second", "2").start();
    operator.wait_ready(SOON).await;
    for (_, name) in &by_expiry[1..] {
        let read = steps::read(&stage.namespace, name);
        stage.proxy.wait_for_request(move |seen| read(seen) && seen.delivered, SOON).await;
    }
    hold.release();
    stage.simulator.wait_for_total_refreshes(6, SOON).await;
    // In the order in which they were begun: how long each then takes is the API server's affair.
    let begun = stage
        .proxy
        .requests()
        .into_iter()
        .filter(|seen| by_expiry.iter().any(|(_, name)| steps::rehearsal(&stage.namespace, name)(seen)));
    let order: Vec<String> = begun.map(|seen| seen.path.rsplit('/').next().unwrap_or_default().to_owned()).collect();
    let by_expiry: Vec<&str> = by_expiry.iter().map(|(_, name)| *name).collect();
    assert_eq!(order, by_expiry, "the soonest expiry goes first, though nobody had seen these before");
    let requests = stage.simulator.requests(0).await;
    let took = (requests[5].at - requests[0].at).num_milliseconds();
    assert!((2_000..=6_000).contains(&took), "6 requests at 2 a second took {took} ms");
    let peak = stage.simulator.witness().await.apps[&stage.app.app_key].peak_requests_per_second;
    assert!(peak <= 3, "{peak} requests came within one second");
}

/// What may expire sooner is waited for, but not for as long as it takes.
#[tokio::test]
async fn a_read_that_hangs_holds_up_others_for_a_few_seconds_alone() {
    let stage = Stage::new().await;
    for name in ["hangs", "a", "b"] {
        stage.shop(name, 60).await;
    }
    let hold = stage.proxy.on("read", steps::read(&stage.namespace, "hangs")).hold();
    let _operator = stage.operator().start();
    hold.wait_held(SOON).await;
    stage.simulator.wait_for_total_refreshes(2, SOON).await;
    stage.assert_refreshes("hangs", 0).await;
    hold.release();
    stage.simulator.wait_for_refreshes("hangs", 1, LONG).await;
}

/// `--max-concurrent-refreshes`.
///
/// Covers: flag/max-concurrent-refreshes
#[tokio::test]
async fn no_more_refreshes_are_under_way_than_allowed() {
    let stage = Stage::new().await;
    let shops = ["a", "b", "c", "d", "e"];
    for shop in shops {
        stage.shop(shop, 60).await;
    }
    let fault = stage.simulator.add_fault(Fault::always(Action::hold(Point::BeforeProcessing))).await;
    let operator = stage.operator().flag("max-concurrent-refreshes", "2").flag("request-timeout", "30s").start();
    operator.wait_ready(SOON).await;
    for done in 0..3 {
        let held = stage.simulator.wait_for_held_count(2, SOON).await;
        assert_eq!(held.len(), 2, "after {done}: {held:#?}");
        stage.simulator.release(held[0].id).await;
        stage.simulator.wait_for_total_refreshes(done + 1, SOON).await;
    }
    stage.simulator.clear_fault(fault).await;
    stage.simulator.release_all().await;
    stage.simulator.wait_for_total_refreshes(5, SOON).await;
    let claims = shops.map(|shop| stage.proxy.count(steps::claim(&stage.namespace, shop)));
    assert_eq!(claims, [1; 5], "one waits for its slot before it claims");
    assert_eq!(stage.simulator.witness().await.totals.peak_in_flight, 2);
}

/// `--per-integration-metrics`.
///
/// Covers: flag/per-integration-metrics, `metric/tiktokshop_access_token_expiry_timestamp_seconds`,
/// `metric/tiktokshop_refresh_token_expiry_timestamp_seconds`
#[tokio::test]
async fn metrics_of_each_integration_can_be_had_and_left_out() {
    let stage = Stage::new().await;
    let shop = stage.shop("shop", PLENTY).await;
    for (setting, present) in [(Some("on"), true), (Some("off"), false), (Some("auto"), true), (None, true)] {
        let mut builder = stage.operator();
        if let Some(setting) = setting {
            builder = builder.flag("per-integration-metrics", setting);
        }
        let operator = builder.start();
        operator.wait_ready(SOON).await;
        let labels = [("namespace", stage.namespace.as_str()), ("name", "shop")];
        #[allow(clippy::cast_precision_loss, reason = "Unix seconds are small for an f64")]
        let expected = shop.access_expires_at() as f64;
        let name = "tiktokshop_soonest_access_token_expiry_timestamp_seconds";
        let known =
            poll::until(SOON, async || (operator.metrics().await.value(name, &[]) == Some(expected)).then_some(()));
        assert!(known.await.is_some(), "{name} is always there, with {setting:?} too");
        let metrics = operator.metrics().await;
        let access = metrics.value("tiktokshop_access_token_expiry_timestamp_seconds", &labels);
        assert_eq!(access, present.then_some(expected), "with {setting:?}");
        let refresh = metrics.value("tiktokshop_refresh_token_expiry_timestamp_seconds", &labels);
        assert_eq!(refresh.is_some(), present, "with {setting:?}");
    }
}

/// `--status-interval`.
///
/// Covers: flag/status-interval, status/hoursUntilExpiry
#[tokio::test]
async fn a_whole_hour_less_is_shown_within_the_status_interval_without_reading_a_secret() {
    let stage = Stage::new().await;
    let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id("shop").access_remaining(HOUR + 8)).await;
    stage.token_secret(&shop).create(&stage.client).await;
    stage.integration("shop").refresh_before("5m").create(&stage.client).await;
    let operator = stage.operator().flag("status-interval", "1m").start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "1 hour left", |status| status["hoursUntilExpiry"] == 1, SOON).await;
    let reads = || stage.proxy.count(steps::read(&stage.namespace, "shop"));
    let before = reads();
    stage.wait_status("shop", "0 hours left", |status| status["hoursUntilExpiry"] == 0, LONG).await;
    assert_eq!(reads(), before, "the status told all that was needed");
    let late = k8s_openapi::jiff::Timestamp::now().as_second() - (shop.access_expires_at() - HOUR);
    assert!((0..=62).contains(&late), "the hours were {late} s out of date");
    stage.assert_refreshes("shop", 0).await;
}

/// `--secret-access named`, with no right to list or watch Secrets.
///
/// Covers: flag/secret-access, flag/secret-poll-interval
#[tokio::test]
async fn with_named_access_no_secret_is_listed_or_watched_and_changes_are_noticed_all_the_same() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let namespace = &stage.namespace;
    let kubeconfig = named_access(&stage).await;
    stage.integration("late").create(&stage.client).await;
    let operator = stage
        .operator()
        .env("KUBECONFIG", kubeconfig)
        .flag("secret-access", "named")
        .flag("secret-poll-interval", "10s")
        .start();
    operator.wait_ready(SOON).await;
    stage.request("shop", "now").await;
    stage.wait_refreshed("shop", "now", SOON).await;
    let shop = stage.simulator.reauthorize("shop").await;
    let patch = json!({ "data": stage.token_secret(&shop).manifest()["data"] });
    fixtures::patch_secret(&stage.client, namespace, "shop", &patch).await;
    let seen = |status: &Value| {
        !status["accessTokenExpiresAt"].is_null() && unix(&status["accessTokenExpiresAt"]) == shop.access_expires_at()
    };
    let changed = Instant::now();
    stage.wait_status("shop", "the expiry of the new tokens", seen, SOON).await;
    assert!(changed.elapsed() <= Duration::from_secs(13), "noticed after {:?}, not 10 s", changed.elapsed());
    stage.request("shop", "again").await;
    stage.wait_refreshed("shop", "again", SOON).await;
    // One that was not there is found as well.
    let missing = |status: &Value| has_condition(status, "Ready", "False", "TokenSecretNotFound");
    stage.wait_status("late", "its Secret missing", missing, SOON).await;
    let late = stage.simulator.create_shop(&NewShop::of(&stage.app).id("late").access_remaining(HOUR)).await;
    stage.token_secret(&late).create(&stage.client).await;
    stage.wait_status("late", "refreshed", |status| status["lastRefreshTime"].is_string(), SOON).await;
    let named = ["/secrets/shop", "/secrets/late", "/secrets/app"];
    let others = stage
        .proxy
        .requests()
        .into_iter()
        .filter(|seen| seen.path.contains("/secrets") && !named.iter().any(|name| seen.path.ends_with(name)));
    assert_eq!(others.map(|seen| seen.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
    stage.simulator.assert_no_violations().await;
}

/// `--request-timeout`, for all of a call.
///
/// Covers: flag/request-timeout, reason/Timeout, reason/OutcomeUnknown
#[tokio::test]
async fn a_call_ends_when_its_time_is_up() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().flag("request-timeout", "3s").start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.simulator.add_fault(Fault::once(Action::hang(Point::BeforeProcessing))).await;
    stage.request("shop", "now").await;
    stage
        .simulator
        .wait_for(&tiktok_shop_testkit::simulator::Wait { requests: Some(1), ..Default::default() }, SOON)
        .await;
    let began = Instant::now();
    let timed_out = |status: &Value| has_condition(status, "Refreshed", "False", "Timeout");
    let status = stage.wait_status("shop", "a timeout", timed_out, SOON).await;
    let took = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(5)).contains(&took), "3 s took {took:?}");
    assert!(has_condition(&status, "Ready", "True", "OutcomeUnknown"), "{status:#}");
    stage.wait_refreshed("shop", "now", SOON).await;
    assert_eq!(operator.sigterm(SOON).await.code(), Some(0));
}

/// `--token-request`, and that `auto` remembers what worked.
///
/// Covers: flag/token-request
#[tokio::test]
async fn each_wire_form_can_be_asked_for_and_auto_remembers_what_worked() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let mut request = 0;
    let mut before = (0, 0, 0);
    for (setting, forms, refreshes, json, query) in [
        (Some("json"), Forms::Both, 1, 1, 0),
        (Some("query"), Forms::Both, 1, 0, 1),
        (Some("auto"), Forms::Both, 2, 2, 0),
        (Some("auto"), Forms::Query, 3, 1, 3),
        (None, Forms::Query, 2, 1, 2),
    ] {
        stage.simulator.set_forms(forms).await;
        let builder = stage.operator();
        let builder = setting.map_or(builder.clone(), |setting| builder.flag("token-request", setting));
        let operator = builder.start();
        operator.wait_ready(SOON).await;
        for _ in 0..refreshes {
            request += 1;
            stage.request("shop", &request.to_string()).await;
            stage.wait_refreshed("shop", &request.to_string(), SOON).await;
        }
        let totals = stage.simulator.witness().await.totals;
        let now = (totals.refreshes, totals.form_json, totals.form_query);
        assert_eq!(
            (now.0 - before.0, now.1 - before.1, now.2 - before.2),
            (refreshes, json, query),
            "refreshes, requests as JSON and as query with {setting:?} where {forms:?} is served"
        );
        before = now;
        assert_eq!(operator.sigterm(SOON).await.code(), Some(0));
    }
    stage.simulator.assert_no_violations().await;
}

/// `--leader-elect`, `--lease-name`, `--lease-namespace`.
///
/// Covers: flag/leader-elect, flag/lease-name, flag/lease-namespace
#[tokio::test]
async fn the_lease_is_the_one_that_was_named_and_nobody_asks_for_one_without_election() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.request("shop", "now").await;
    stage.wait_refreshed("shop", "now", SOON).await;
    assert_eq!(stage.proxy.count(steps::lease()), 0, "without election no Lease is asked for");
    drop(operator);
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
        Api::namespaced(stage.client.clone(), &stage.namespace);
    let mut names = BTreeSet::new();
    // The default's name depends on the share, so that shards do not contend, and on nothing else.
    for more in [&[][..], &["--watch-label-selector=a=b"], &["--watch-label-selector=a=b"], &["--lease-name=mine"]] {
        let mut builder = stage.operator_through(&stage.proxy);
        for arg in more {
            builder = builder.arg(arg);
        }
        let operator = builder.start();
        wait_leads(&operator, true, SOON).await;
        let held = poll::until(SOON, async || {
            let listed = leases.list(&ListParams::default()).await.ok()?;
            listed.items.into_iter().find_map(|lease| {
                let holder = lease.spec?.holder_identity.filter(|holder| !holder.is_empty())?;
                Some((lease.metadata.name?, holder))
            })
        });
        let (name, _) = held.await.unwrap_or_else(|| panic!("no Lease is held with {more:?}"));
        let ended = operator.sigterm(SOON).await;
        assert_eq!(ended.code(), Some(0), "with {more:?}, {name}: {ended}\n{}", operator.process().tail(20));
        names.insert(name);
    }
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(
        names.contains("mine") && names.iter().filter(|name| name.starts_with("tiktok-shop-operator-")).count() == 2
    );
}

/// `--log-format`, and one line for each outcome.
///
/// Covers: flag/log-format
#[tokio::test]
async fn each_outcome_is_one_line_in_the_format_that_was_asked_for() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    for (round, format) in [Some("json"), Some("text"), None].into_iter().enumerate() {
        let mut builder = stage.operator();
        if let Some(format) = format {
            builder = builder.flag("log-format", format);
        }
        let operator = builder.start();
        operator.wait_ready(SOON).await;
        stage.simulator.add_fault(Fault::once(Action::code(105_002))).await;
        stage.request("shop", &format!("fails {round}")).await;
        let failed = |status: &Value| status["lastHandledRefreshRequest"] == format!("fails {round}");
        stage.wait_status("shop", "a failure", failed, SOON).await;
        stage.request("shop", &format!("works {round}")).await;
        stage.wait_refreshed("shop", &format!("works {round}"), SOON).await;
        assert_eq!(operator.sigterm(SOON).await.code(), Some(0));
        let lines: Vec<String> = operator.logs().lines().map(str::to_owned).collect();
        let about = |what: &str| lines.iter().filter(|line| line.contains(what) && line.contains("shop")).count();
        assert_eq!(about("failed to refresh"), 1, "{lines:#?}");
        let refreshed = lines.iter().filter(|line| {
            line.contains("because") && line.contains("refreshed") && !line.contains("failed to refresh")
        });
        assert_eq!(refreshed.count(), 1, "{lines:#?}");
        for line in &lines {
            let parsed = serde_json::from_str::<Value>(line);
            if format == Some("text") {
                assert!(parsed.is_err(), "this was to be text: {line}");
                continue;
            }
            let parsed = parsed.unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
            for field in ["timestamp", "level", "message"] {
                assert!(parsed[field].is_string(), "no {field}: {line}");
            }
        }
        let streams = operator.process().lines();
        let stdout = streams.iter().filter(|line| line.stream == tiktok_shop_testkit::process::Stream::Stdout);
        assert_eq!(stdout.count(), 0, "logs go to standard error");
    }
}

/// `--token-endpoint` over HTTPS and `--ca-file`. The TLS server at hand is the API server's: it is
/// not TikTok, but whether it is trusted is plain to see.
///
/// Covers: flag/ca-file, flag/token-endpoint, reason/NetworkError
#[tokio::test]
async fn an_endpoint_with_a_certificate_of_ones_own_is_trusted_with_ca_file_alone() {
    let stage = Stage::new().await;
    let ca = stage.journal.path().join("ca.pem");
    std::fs::write(&ca, stage.plane.ca_pem()).expect("a file can be written");
    let endpoint = format!("{}/api/v2/token/refresh", stage.plane.url());
    let error_of = async |builder: Builder, shop: &str| {
        stage.shop(shop, PLENTY).await;
        let operator = builder.token_endpoint(&endpoint).start();
        operator.wait_ready(SOON).await;
        stage.request(shop, "now").await;
        let failed = |status: &Value| !status["lastError"].is_null();
        let status = stage.wait_status(shop, "a failure", failed, SOON).await;
        assert_eq!(operator.sigterm(SOON).await.code(), Some(0));
        status["lastError"].clone()
    };
    let stranger = error_of(stage.bare_operator(), "stranger").await;
    assert_eq!(stranger["reason"], "NetworkError", "{stranger:#}");
    let message = stranger["message"].as_str().unwrap_or_default();
    assert!(message.contains("certificate"), "it does not say that the certificate is the trouble: {message}");
    let with_ca = stage.bare_operator().flag("ca-file", ca.to_str().expect("its path is text"));
    let trusted = error_of(with_ca, "trusted").await;
    assert_ne!(trusted["reason"], "NetworkError", "the server has answered: {trusted:#}");
    assert_eq!(stage.simulator.witness().await.totals.requests, 0);
}

/// Listens as a proxy and tells what it was asked for; answers 502.
async fn spy() -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap_or(0);
                let line = String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned();
                let _ = tell.send(line);
                let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
            });
        }
    });
    (url, told)
}

/// `HTTPS_PROXY` and `NO_PROXY`, for TikTok; the API server is named in `NO_PROXY`, as usual.
#[tokio::test]
async fn the_proxy_of_the_environment_is_used_for_tiktok_but_not_where_no_proxy_says_so() {
    let stage = Stage::new().await;
    let (url, mut told) = spy().await;
    let failed_on = async |no_proxy: &str, shop: &str| {
        stage.shop(shop, PLENTY).await;
        let operator = stage
            .bare_operator()
            .token_endpoint("https://tiktok.invalid/api/v2/token/refresh")
            .env("HTTPS_PROXY", &url)
            .env("NO_PROXY", no_proxy)
            .start();
        operator.wait_ready(SOON).await;
        stage.request(shop, "now").await;
        stage.wait_status(shop, "a failure", |status| !status["lastError"].is_null(), SOON).await;
        assert_eq!(operator.sigterm(SOON).await.code(), Some(0));
    };
    failed_on("127.0.0.1", "through").await;
    assert_eq!(told.try_recv().as_deref(), Ok("CONNECT tiktok.invalid:443 HTTP/1.1"));
    while told.try_recv().is_ok() {}
    // "through" may be tried again meanwhile: it goes past the proxy, too.
    failed_on("127.0.0.1,tiktok.invalid", "past").await;
    assert_eq!(told.try_recv().ok(), None, "NO_PROXY names this host");
    assert_eq!(stage.simulator.witness().await.totals.requests, 0);
}

/// An API server on this machine is not asked through a proxy, as kubectl has it; of others, `NO_PROXY` names those.
#[tokio::test]
async fn an_api_server_on_this_machine_is_not_asked_through_the_proxy() {
    let stage = Stage::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are free ports");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let kubeconfig = stage.plane.kubeconfig_for(&stage.identity.token, None);
    let operator = stage.bare_operator().env("KUBECONFIG", kubeconfig).env("HTTPS_PROXY", url).start();
    tokio::select! {
        () = operator.wait_ready(SOON) => {}
        accepted = listener.accept() => panic!("the API server at 127.0.0.1 is asked for through the proxy: {accepted:?}"),
    }
}

/// `--journal-dir`: intents and answers are there while they are needed, for the owner alone.
///
/// Covers: flag/journal-dir
#[tokio::test]
async fn the_journal_holds_the_call_under_way_and_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let files = || {
        let listed = std::fs::read_dir(stage.journal.path()).expect("it is there");
        let mut files: Vec<_> = listed.map(|file| file.expect("it can be read")).collect();
        files.retain(|file| file.path().extension().is_some_and(|end| end == "json"));
        files
    };
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    assert_eq!(files().len(), 0);
    let hold = stage.proxy.on("persist", steps::persist(&stage.namespace, "shop")).once().hold();
    stage.request("shop", "now").await;
    hold.wait_held(SOON).await;
    let waiting = files();
    assert_eq!(waiting.len(), 1, "the answer is in the journal before it is stored");
    let mode = waiting[0].metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may read the journal: {mode:o}");
    hold.release();
    stage.wait_refreshed("shop", "now", SOON).await;
    let settled = poll::until(SOON, async || files().is_empty().then_some(()));
    assert!(settled.await.is_some(), "what is stored is no longer waiting in the journal");
}

/// A work loop that is stuck: its log goes to a pipe that nobody reads any more.
///
/// `/livez` tells, and all goes on where it stood once the loop is free again.
#[tokio::test]
async fn a_stuck_work_loop_is_told_by_livez() {
    let stage = Stage::new().await;
    let operator = stage.operator().trace().start();
    operator.wait_ready(SOON).await;
    operator.process().stall_output();
    let mut shops = 0;
    let stuck = poll::until(2 * LONG, async || {
        // Each is refreshed, and each refresh logs some kilobytes.
        if shops < 40 {
            shops += 1;
            stage.shop(&format!("shop-{shops}"), HOUR).await;
        }
        (operator.probe("/livez").await? == 503).then_some(())
    });
    stuck.await.expect("a work loop that stands still for a minute is told");
    assert!(operator.process().is_running());
    operator.process().resume_output();
    let free = poll::until(SOON, async || (operator.probe("/livez").await? == 200).then_some(()));
    free.await.expect("a work loop that goes round again is well");
    for shop in 1..=shops {
        let name = format!("shop-{shop}");
        stage.wait_status(&name, "Ready, and refreshed", is_refreshed, LONG).await;
        stage.assert_current(&name).await;
        stage.assert_refreshes(&name, 1).await;
    }
}

fn is_refreshed(status: &Value) -> bool {
    is_ready(status) && has_condition(status, "Refreshed", "True", "Refreshed")
}

/// A quiet operator: nothing is asked of the API server while nothing happens.
#[tokio::test]
async fn while_nothing_happens_nothing_is_asked_for() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let delivered = steps::status(&stage.namespace, "shop");
    stage.proxy.wait_for_request(move |seen: &Seen| delivered(seen) && seen.delivered, SOON).await;
    let before = stage.proxy.requests().len();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let new: Vec<String> = stage.proxy.requests()[before..].iter().map(ToString::to_string).collect();
    assert_eq!(new, Vec::<String>::new(), "a fleet at rest costs nothing");
    drop(operator);
}

/// What can't be read or written within the cluster is counted.
///
/// Covers: `metric/tiktokshop_watch_errors_total`, `metric/tiktokshop_reconcile_errors_total`
#[tokio::test]
async fn failed_watches_and_reads_are_counted() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let read = stage.proxy.on("a read", steps::read(&stage.namespace, "shop")).times(2);
    read.respond_status(500, "InternalError", "made up by the test");
    let operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    assert!(operator.metrics().await.sum("tiktokshop_reconcile_errors_total", &[]) >= 2.0);
    let watch = stage.proxy.on("a watch", Seen::is_watch).once();
    watch.respond_status(500, "InternalError", "made up by the test");
    stage.proxy.cut_watches().await;
    operator.wait_for_metric("tiktokshop_watch_errors_total", &[], 1.0, SOON).await;
    fixtures::patch_integration(&stage.client, &stage.namespace, "shop", &json!({"spec": {"suspend": true}})).await;
    stage.wait_status("shop", "suspended", |status| has_condition(status, "Ready", "True", "Suspended"), SOON).await;
}
