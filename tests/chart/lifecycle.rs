//! Upgrade, rollback, removal, with integrations alive; and the README's own path, word for word.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tiktok_shop_testkit::{
    control_plane::{ControlPlane, Options},
    fixtures, poll,
    simulator::{NewShop, Simulator},
    tools::tool,
};

use crate::helm::{Helm, chart, deployment};
use crate::kubelet::Pod;
use crate::stage::{Mode, RELEASE, SOON, Stage, is_ready, simulator_binary};

const CRD: &str = "tiktokshopintegrations.tiktokshop.dev";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn shell(script: &str, folder: &Path) -> bool {
    let mut command = tokio::process::Command::new("bash");
    command.args(["-c", script]).current_dir(root()).env("FOLDER", folder).stdin(Stdio::null());
    command.stderr(Stdio::null()).kill_on_drop(true);
    command.status().await.expect("bash runs").success()
}

/// A copy of the chart with something else in its files: which file, what, and what instead.
async fn edited(folder: &Path, edits: &[(&str, &str, &str)]) -> PathBuf {
    let copied = shell("cp -R charts/tiktok-shop-operator \"$FOLDER/edited\"", folder).await;
    assert!(copied, "the chart can be copied");
    let copy = folder.join("edited");
    for (file, from, to) in edits {
        let path = copy.join(file);
        let text = std::fs::read_to_string(&path).expect("the chart has this file");
        assert!(text.contains(from), "{file} has no {from:?}");
        std::fs::write(path, text.replacen(from, to, 1)).expect("a file can be written");
    }
    copy
}

/// A chart as an earlier version had it: a lower version, and a CRD with a column less.
async fn older(folder: &Path) -> PathBuf {
    let version = format!("version: {}", env!("CARGO_PKG_VERSION"));
    let edits = [("Chart.yaml", &*version, "version: 0.0.1"), ("files/crd.yaml", "name: Team", "name: Crew")];
    edited(folder, &edits).await
}

/// The chart of the previous commit, where there is one that had a chart.
async fn previous(folder: &Path) -> Option<PathBuf> {
    let script =
        "mkdir \"$FOLDER/previous\" && git archive HEAD~1 charts/tiktok-shop-operator | tar -x -C \"$FOLDER/previous\"";
    let there = shell(&format!("set -o pipefail; {script}"), folder).await;
    there.then(|| folder.join("previous/charts/tiktok-shop-operator"))
}

async fn columns(plane: &ControlPlane) -> String {
    let path = "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}";
    plane.kubectl_ok(&["get", "crd", CRD, "-o", path]).await
}

/// What must be the same before and after: who the integrations and their Secrets are.
async fn uids(stage: &Stage<'_>) -> String {
    let names = ["ttsi/due", "ttsi/later", "secret/due", "secret/later", "secret/app"];
    let path = "jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid}{\"\\n\"}{end}";
    let args = [&["get", "-n", &stage.shops], &names[..], &["-o", path]].concat();
    stage.plane.kubectl_ok(&args).await
}

/// Through the previous commit's chart to this one, back, and away: no integration and no token is lost,
/// and each version's Deployment does its work.
#[tokio::test]
async fn integrations_survive_upgrade_rollback_and_removal() {
    let plane = ControlPlane::start(Options::default()).await;
    let simulator = Simulator::start(&simulator_binary()).await;
    let stage = Stage::without_release(&plane, &simulator).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut values = stage.values(Mode { secret_access: "watch", roles: false });
    values["crds"]["enabled"] = true.into();
    values["watchLabelSelector"] = "".into();
    let command = async |verb: &str, chart: &Path| {
        let chart = chart.to_str().expect("its path is text");
        stage.helm.ok(&[verb, RELEASE, chart, "-n", &stage.namespace], Some(&values)).await;
    };
    let works = async |request: &str| {
        let pod = stage.pod().await;
        pod.wait_ready(SOON).await;
        assert!(is_ready(&stage.request("later", request).await), "the refresh {request} went well");
        stage.assert_current("later").await;
        pod.stop(SOON).await;
    };

    command("install", &older(folder.path()).await).await;
    plane.kubectl_ok(&["wait", "--for=condition=Established", "--timeout=30s", "crd", CRD]).await;
    stage.open_shops().await;
    let before = uids(&stage).await;
    works("of the older").await;
    assert!(columns(&plane).await.starts_with("Crew "), "the older chart's CRD");

    if let Some(previous) = previous(folder.path()).await {
        command("upgrade", &previous).await;
        works("of the previous").await;
    }
    command("upgrade", &chart()).await;
    assert!(columns(&plane).await.starts_with("Team "), "an upgrade upgrades the CRD");
    works("of this one").await;
    assert_eq!(uids(&stage).await, before, "after the upgrade");

    stage.helm.ok(&["rollback", RELEASE, "1", "-n", &stage.namespace], None).await;
    assert!(columns(&plane).await.starts_with("Crew "), "a rollback brings back the older CRD");
    works("after the rollback").await;
    assert_eq!(uids(&stage).await, before, "after the rollback");

    // What is not applied by the chart any more stays as well.
    stage.helm.ok(&["uninstall", RELEASE, "-n", &stage.namespace], None).await;
    assert_eq!(uids(&stage).await, before, "after the removal");
    let left = ["get", "deployments,roles,rolebindings,serviceaccounts,services", "-n", &stage.namespace, "-o", "name"];
    assert_eq!(plane.kubectl_ok(&left).await, "", "all else is gone");
    let bound = plane.kubectl_ok(&["get", "clusterroles,clusterrolebindings", "-o", "name"]).await;
    assert!(!bound.contains("tiktok-shop-operator"), "cluster-wide rights are gone: {bound}");

    command("install", &chart()).await;
    works("of a new install").await;
    values["crds"]["enabled"] = false.into();
    let chart = chart();
    let args = ["upgrade", RELEASE, chart.to_str().expect("its path is text"), "-n", &stage.namespace];
    stage.helm.ok(&args, Some(&values)).await;
    assert_eq!(uids(&stage).await, before, "a release that gives the CRD up leaves it");
    works("without the CRD").await;
    simulator.assert_no_violations().await;
}

/// Why the pages say `--reset-then-reuse-values`: with `--reuse-values` a value that is new in a chart has none.
#[tokio::test]
async fn an_upgrade_that_lacks_a_value_of_the_new_chart_is_refused_and_one_that_resets_is_not() {
    let plane = ControlPlane::shared().await;
    let helm = Helm::of(plane).await;
    let namespace = plane.create_namespace("chart").await;
    let values = json!({"crds": {"enabled": false}, "replicas": 2, "rbac": {"create": false, "aggregateRoles": false}});
    helm.install(&namespace, RELEASE, &values).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let edits = [
        ("values.schema.json", "\"required\": [", "\"required\": [\"new\","),
        ("values.schema.json", "\"properties\": {", "\"properties\": {\"new\": {\"type\": \"string\"},"),
        ("values.yaml", "replicas: 1\n", "replicas: 1\nnew: one\n"),
    ];
    let newer = edited(folder.path(), &edits).await;
    let newer = newer.to_str().expect("its path is text");
    let args = ["upgrade", RELEASE, newer, "-n", &namespace];
    let reused = helm.run(&[&args[..], &["--reuse-values"]].concat(), None).await;
    assert!(!reused.ok && reused.stderr.contains("missing property 'new'"), "{reused:?}");
    helm.ok(&[&args[..], &["--reset-then-reuse-values"]].concat(), None).await;
    let stored = deployment(plane, &namespace, RELEASE).await;
    assert_eq!(stored.spec.and_then(|spec| spec.replicas), Some(2), "what was set is kept");
}

/// The blocks of code in a section of the README; the language after the fence is left off.
fn blocks(section: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("there is a README");
    let (_, rest) = readme.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let text = rest.split("\n## ").next().unwrap_or_default();
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while lines.any(is_fence) {
        blocks.push(lines.by_ref().take_while(|line| !is_fence(line)).collect::<Vec<_>>().join("\n"));
    }
    blocks
}

fn is_fence(line: &str) -> bool {
    line.trim_start().starts_with("```")
}

fn block(section: &str, part: &str) -> String {
    let found = blocks(section).into_iter().find(|block| block.contains(part));
    found.unwrap_or_else(|| panic!("section {section} of the README has no block with {part:?}"))
}

/// `helm install`, two Secrets, `kubectl apply`, `kubectl get ttsi`, as the README prints them. Ours are
/// TikTok's address, which a stranger has no need to name, and the tokens.
#[tokio::test]
async fn a_strangers_path_works_as_the_readme_prints_it() {
    let plane = ControlPlane::start(Options::default()).await;
    let simulator = Simulator::start(&simulator_binary()).await;
    let app = simulator.create_app("demo", "s3cret").await;
    let shop = simulator.create_shop(&NewShop::of(&app).id("shop-1").access_remaining(7_200)).await;

    let tools = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, path) in [("helm", tool("helm").await), ("kubectl", plane.assets().join("kubectl"))] {
        std::os::unix::fs::symlink(path, tools.path().join(name)).expect("a link can be made");
    }
    let desk = tempfile::tempdir().expect("a temporary folder can be made");
    std::os::unix::fs::symlink(root().join("charts"), desk.path().join("charts")).expect("a link can be made");
    let run = async |script: &str| {
        let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap_or_default());
        let mut command = tokio::process::Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(desk.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", path).env("HOME", desk.path()).env("KUBECONFIG", plane.admin_kubeconfig());
        let output = tokio::time::timeout(Duration::from_mins(2), command.kill_on_drop(true).output()).await;
        let output = output.unwrap_or_else(|_| panic!("this does not end:\n{script}")).expect("bash runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}\n{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };

    let install = block("Install it", "helm install");
    let (install, wait) = install.split_once("kubectl rollout status").expect("it waits for the operator");
    let endpoint = format!("  --set tokenEndpoint={}", simulator.token_endpoint());
    let notes = run(&format!("{} \\\n{endpoint}", install.trim_end())).await;
    assert!(notes.contains("kubectl get ttsi"), "the notes say what to do next:\n{notes}");
    // The operator comes up while the person waits for it.
    let home = "tiktok-shop-operator";
    let pod = Pod::start(&plane, &deployment(&plane, home, home).await).await;
    let wait = format!("kubectl rollout status{wait} --timeout=60s");
    let ((), waited) = tokio::join!(pod.wait_ready(SOON), run(&wait));
    assert!(waited.contains("successfully rolled out"), "{waited}");

    run(&block("Use it", "kubectl create secret generic tiktok-app")).await;
    let tokens = block("Use it", "kind: Secret");
    let expiries = [shop.access_expires_at().to_string(), shop.refresh_expires_at().to_string()];
    let ours = [
        ("access_token", shop.access_token()),
        ("access_token_expire_in", &*expiries[0]),
        ("refresh_token", shop.refresh_token()),
        ("refresh_token_expire_in", &*expiries[1]),
    ];
    let tokens = tokens.lines().map(|line| {
        let (key, _) = line.split_once(": ").unwrap_or((line, ""));
        let value = ours.iter().find(|(name, _)| *name == key.trim());
        value.map_or_else(|| line.to_owned(), |(_, value)| format!("{key}: {}", json!(value)))
    });
    write(desk.path(), "shop-1-tokens.yaml", &tokens.collect::<Vec<_>>().join("\n"));
    run("kubectl create -f shop-1-tokens.yaml").await;
    write(desk.path(), "shop-1.yaml", &block("Use it", "kind: TikTokShopIntegration"));
    run("kubectl apply -f shop-1.yaml").await;

    let client = plane.kube_client().await;
    let refreshed = |status: &Value| status["lastRefreshTime"].is_string() && is_ready(status);
    fixtures::wait_for_status(&client, "shops", "shop-1", "refreshed", refreshed, SOON).await;
    let shown = block("Use it", "$ kubectl get ttsi");
    let (command, table) = shown.trim_start_matches("$ ").split_once('\n').expect("it shows what comes");
    let seen = run(command).await;
    let head =
        |text: &str| text.lines().next().unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(head(&seen), head(table), "the columns that the README shows");
    let row = |text: &str| {
        text.lines().nth(1).unwrap_or_default().split_whitespace().take(5).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row(&seen)[..4], row(table)[..4], "the row that the README shows:\n{seen}");

    // What the README says about fewer rights.
    pod.stop(SOON).await;
    for upgrade in [block("Use it", "namespaces={shops}"), block("Use it", "secretAccess=named")] {
        run(&upgrade).await;
    }
    let pod = Pod::start(&plane, &deployment(&plane, home, home).await).await;
    fixtures::request_refresh(&client, "shops", "shop-1", "with fewer rights").await;
    pod.wait_ready(SOON).await;
    let handled = poll::until(2 * SOON, async || {
        let status = fixtures::get_status(&client, "shops", "shop-1").await;
        (status["lastHandledRefreshRequest"] == "with fewer rights" && is_ready(&status)).then_some(())
    });
    assert!(handled.await.is_some(), "it refreshes under the fewer rights");
    let roles = Helm::of(&plane).await.ok(&["get", "manifest", home, "-n", home], None).await;
    assert!(!roles.contains("kind: ClusterRoleBinding"), "no ClusterRole is bound any more");
    simulator.assert_no_violations().await;
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a file can be written");
}
