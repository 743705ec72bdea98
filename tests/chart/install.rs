//! What is installed, how it works, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use tiktok_shop_operator::settings;
use tiktok_shop_testkit::{
    control_plane::{AuditEntry, ControlPlane, service_account_user},
    fixtures,
    simulator::Simulator,
};
use tokio::sync::OnceCell;

use crate::helm::{Helm, deployment, deployments};
use crate::kubelet::Pod;
use crate::stage::{Mode, RELEASE, SOON, Stage, is_ready, simulator_binary};

/// The control plane that the tests here share, with the CRD.
async fn plane() -> &'static ControlPlane {
    static CRD: OnceCell<()> = OnceCell::const_new();
    let plane = ControlPlane::shared().await;
    let crd = include_str!("../../crds/tiktokshopintegrations.tiktokshop.dev.yaml");
    CRD.get_or_init(async || fixtures::install_crd(plane, crd).await).await;
    plane
}

const WATCH: Mode = Mode { secret_access: "watch", roles: false };

/// All that an operator asks in a whole life is allowed to it, in each way to grant it.
#[tokio::test]
async fn the_deployment_as_stored_does_the_whole_job_under_its_own_rights() {
    let plane = plane().await;
    let simulator = Simulator::start(&simulator_binary()).await;
    let life = |secret_access, roles| {
        let simulator = &simulator;
        async move {
            let mode = Mode { secret_access, roles };
            let stage = Stage::install(plane, simulator, mode, &json!({})).await;
            stage.open_shops().await;
            let pod = stage.pod().await;
            stage.job(&pod).await;
            let journal = std::fs::read_dir(&pod.volumes["journal"]).expect("the journal is a volume");
            assert!(journal.count() > 0, "{mode:?}: the journal is in its volume");
            let user = pod.user.clone();
            pod.stop(SOON).await;
            let holder = stage.lease().await["spec"]["holderIdentity"].clone();
            assert!(matches!(holder.as_str(), None | Some("")), "{mode:?}: the Lease is given back: {holder}");

            let asked: Vec<_> = plane.audit().into_iter().filter(|entry| entry.user.username == user).collect();
            let refused: Vec<_> = asked.iter().filter(|entry| entry.code() == 403).map(AuditEntry::what).collect();
            assert!(refused.is_empty(), "{mode:?}: refused: {refused:?}");
            let secrets: BTreeSet<_> =
                asked.iter().map(AuditEntry::what).filter(|what| what.ends_with(" secrets")).collect();
            assert_eq!(secrets.contains("watch secrets"), secret_access == "watch", "{mode:?}: {secrets:?}");
        }
    };
    join_all(
        [("watch", false), ("named", false), ("watch", true), ("named", true)]
            .map(|(access, roles)| life(access, roles)),
    )
    .await;
}

/// Certificates from a `ConfigMap` or a Secret, and a proxy for all but the API server.
#[tokio::test]
async fn more_certificates_and_a_proxy_do_not_keep_it_from_the_api_server() {
    let plane = plane().await;
    let simulator = Simulator::start(&simulator_binary()).await;
    for kind in ["ConfigMap", "Secret"] {
        let stage = Stage::without_release(plane, &simulator).await;
        let key = if kind == "Secret" { "stringData" } else { "data" };
        let roots = json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": "roots", "namespace": stage.namespace},
            key: {"bundle.pem": plane.ca_pem()},
        });
        fixtures::create(&stage.client, &roots).await;
        let mut values = stage.values(WATCH);
        let name = if kind == "Secret" { "secretName" } else { "configMapName" };
        values["caBundle"] = json!({name: "roots", "key": "bundle.pem"});
        // Nobody listens there: whatever is sent through it fails.
        values["proxy"] = json!({"https": "http://127.0.0.1:9", "noProxy": ".example.com"});
        stage.helm.install(&stage.namespace, RELEASE, &values).await;
        stage.open_shops().await;
        let pod = stage.pod().await;
        pod.wait_ready(SOON).await;
        stage.wait_status("due", "refreshed", |status| status["lastRefreshTime"].is_string()).await;
        let file = std::fs::read_to_string(pod.volumes["ca-bundle"].join("ca.crt")).expect("it is mounted");
        assert_eq!(file, plane.ca_pem(), "of the {kind}");
    }
}

/// Shards: a Deployment and a Lease each, and each has its share.
#[tokio::test]
async fn shards_share_the_work_and_contend_for_no_lease() {
    let plane = plane().await;
    let simulator = Simulator::start(&simulator_binary()).await;
    let stage = Stage::without_release(plane, &simulator).await;
    let mut values = stage.values(Mode { secret_access: "watch", roles: true });
    values["shards"] = json!([{"name": "a", "selector": "shard=a"}, {"name": "rest", "selector": "shard notin (a)"}]);
    stage.helm.install(&stage.namespace, RELEASE, &values).await;
    stage.open_shops().await;
    let label = json!({"metadata": {"labels": {"shard": "a"}}});
    fixtures::patch_integration(&stage.client, &stage.shops, "later", &label).await;

    let stored = deployments(plane, &stage.namespace, RELEASE).await;
    let names: Vec<_> = stored.iter().filter_map(|deployment| deployment.metadata.name.clone()).collect();
    assert_eq!(names, ["op-tiktok-shop-operator-a", "op-tiktok-shop-operator-rest"]);
    let a = Pod::start(plane, &stored[0]).await;
    a.wait_ready(SOON).await;
    stage.wait_status("later", "Ready", is_ready).await;
    let due = fixtures::get_status(&stage.client, &stage.shops, "due").await;
    assert_eq!(due, Value::Null, "what is another's share is left alone");
    let rest = Pod::start(plane, &stored[1]).await;
    rest.wait_ready(SOON).await;
    stage.wait_status("due", "refreshed", |status| status["lastRefreshTime"].is_string()).await;
    for pod in [&a, &rest] {
        assert_eq!(pod.metrics().await.value("tiktokshop_leader", &[]), Some(1.0), "{} leads its share", pod.name);
    }
}

/// The flags of a Deployment's container, and their values.
fn flags(deployment: &Deployment) -> BTreeMap<String, Vec<String>> {
    let spec = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).expect("it has a pod");
    let mut flags: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for arg in spec.containers[0].args.iter().flatten().skip(1) {
        let (flag, value) = arg.trim_start_matches("--").split_once('=').expect("flags are written --NAME=VALUE");
        flags.entry(flag.to_owned()).or_default().push(value.to_owned());
    }
    flags
}

/// No flag of the operator is out of a chart user's reach, and the chart's defaults are the operator's.
#[tokio::test]
async fn each_flag_is_a_value_of_the_chart_with_the_operators_default() {
    let plane = plane().await;
    let helm = Helm::of(plane).await;
    let namespace = plane.create_namespace("chart").await;
    helm.install(&namespace, "plain", &json!({"crds": {"enabled": false}})).await;
    let everything = json!({
        "crds": {"enabled": false}, "namespaces": [namespace], "watchLabelSelector": "a=b",
        "caBundle": {"configMapName": "roots"}, "leaseName": "mine", "leaseNamespace": namespace,
        "requestsPerSecond": 0.5, "maxConcurrentRefreshes": 1024,
    });
    helm.install(&namespace, "all", &everything).await;
    let parser = settings::parser();
    let run = parser.find_subcommand("run").expect("there is a subcommand run");
    let known = run.get_arguments().filter(|arg| arg.get_long().is_some_and(|flag| flag != "help"));
    let known: BTreeMap<_, _> = known
        .map(|arg| {
            let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let default = text.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
            (arg.get_long().expect("it was filtered by it").to_owned(), default.map(|(default, _)| default.to_owned()))
        })
        .collect();

    let all = flags(&deployment(plane, &namespace, "all").await);
    assert_eq!(all.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>(), "the flags that the chart can set");
    assert_eq!(all["requests-per-second"], ["0.5"]);
    assert_eq!(all["max-concurrent-refreshes"], ["1024"]);
    for (flag, values) in flags(&deployment(plane, &namespace, "plain").await) {
        // The journal is off by default where nothing says where it may be.
        if flag != "journal-dir" {
            assert_eq!(values, known[&flag].clone().into_iter().collect::<Vec<_>>(), "the default of --{flag}");
        }
    }
}

/// Pod Security: the template passes `restricted`, which refuses a pod that asks for more.
#[tokio::test]
async fn the_pod_passes_pod_security_restricted() {
    let plane = plane().await;
    let helm = Helm::of(plane).await;
    let namespace = plane.create_namespace("restricted").await;
    let label = ["label", "namespace", &namespace, "pod-security.kubernetes.io/enforce=restricted"];
    plane.kubectl_ok(&label).await;
    let full = json!({
        "crds": {"enabled": false}, "caBundle": {"secretName": "roots"}, "replicas": 2,
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"},
        ],
    });
    for (release, values) in [("plain", json!({"crds": {"enabled": false}})), ("full", full)] {
        helm.install(&namespace, release, &values).await;
        let stored = deployment(plane, &namespace, release).await;
        let template = serde_json::to_value(&stored.spec.expect("it has a spec").template).expect("it is JSON");
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]});
        pod["metadata"] = json!({"name": release, "namespace": namespace, "labels": template["metadata"]["labels"]});
        let answer = plane.kubectl_with(&["create", "-f", "-"], Some(&pod.to_string())).await;
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(answer.status.success() && !said.contains("Warning"), "{release}: {said}");

        pod["metadata"]["name"] = "more".into();
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = true.into();
        let answer = plane.kubectl_with(&["create", "-f", "-"], Some(&pod.to_string())).await;
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(said.contains("violates PodSecurity \"restricted"), "the API server does look: {said}");
    }
}

/// What cannot work is refused before anything is installed, by a line that says what to write.
#[tokio::test]
async fn values_that_cannot_work_are_refused_with_what_is_wrong() {
    let plane = plane().await;
    let helm = Helm::of(plane).await;
    let namespace = plane.create_namespace("chart").await;
    let chart = crate::helm::chart();
    for (set, says) in [
        ("typo=1", "additional properties 'typo' not allowed"),
        ("image.tgg=1", "at '/image': additional properties 'tgg' not allowed"),
        ("secretAccess=all", "value must be one of 'watch', 'named'"),
        ("refreshBefore=soon", "at '/refreshBefore'"),
        ("namespaces={Shops}", "at '/namespaces/0'"),
        ("terminationGracePeriodSeconds=89", "Write 90 (twice requestTimeout and 30) or more"),
        ("terminationGracePeriodSeconds=209,requestTimeout=1m30s", "Write 210"),
        ("replicas=2,leaderElect=false", "all of them would act"),
        ("shards[0].name=a,shards[0].selector=x,leaseName=one", "Leave leaseName empty"),
        ("shards[0].name=a,shards[0].selector=x,watchLabelSelector=x", "Leave watchLabelSelector empty"),
        ("caBundle.configMapName=a,caBundle.secretName=b", "not both"),
    ] {
        let args = ["install", "wrong", chart.to_str().expect("a path"), "-n", &namespace, "--set", set];
        let ran = helm.run(&args, None).await;
        assert!(!ran.ok && ran.stderr.contains(says), "--set {set} is to say {says:?}: {ran:?}");
    }
    let stored = plane.kubectl_ok(&["get", "secrets,deployments,roles", "-n", &namespace, "-o", "name"]).await;
    assert_eq!(stored, "", "nothing was installed");
}

/// The chart and the operator are released together.
#[tokio::test]
async fn the_charts_app_version_is_the_operators_version() {
    let plane = plane().await;
    let chart = crate::helm::chart();
    let shown = Helm::of(plane).await.ok(&["show", "chart", chart.to_str().expect("a path")], None).await;
    let version = env!("CARGO_PKG_VERSION");
    for line in [format!("appVersion: {version}"), format!("version: {version}")] {
        assert!(shown.lines().any(|shown| shown == line), "Chart.yaml is to say {line:?}:\n{shown}");
    }
}

/// An account of its own: the tokens of others are none of its business.
#[tokio::test]
async fn an_account_of_ones_own_is_used_and_granted_the_same() {
    let plane = plane().await;
    let simulator = Simulator::start(&simulator_binary()).await;
    let stage = Stage::without_release(plane, &simulator).await;
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "mine", "namespace": stage.namespace},
    });
    fixtures::create(&stage.client, &account).await;
    let mut values = stage.values(Mode { secret_access: "named", roles: true });
    values["serviceAccount"] = json!({"create": false, "name": "mine"});
    stage.helm.install(&stage.namespace, RELEASE, &values).await;
    stage.open_shops().await;
    let pod = stage.pod().await;
    assert_eq!(pod.user, service_account_user(&stage.namespace, "mine"));
    pod.wait_ready(SOON).await;
    stage.wait_status("due", "refreshed", |status| status["lastRefreshTime"].is_string()).await;
}

/// Helm 3 is still in use: it renders the same, refuses the same, and installs what does the work.
#[tokio::test]
#[ignore = "builds Helm 3, which takes minutes: make chart-helm3"]
async fn helm_3_does_the_same() {
    let plane = plane().await;
    let simulator = Simulator::start(&simulator_binary()).await;
    let (four, three) = (Helm::of(plane).await, Helm::version("helm3", plane).await);
    let chart = crate::helm::chart();
    let chart = chart.to_str().expect("its path is text");
    for values in [
        json!({}),
        json!({"namespaces": ["shops"], "secretAccess": "named", "requestTimeout": "1m30s", "requestsPerSecond": 0.5}),
        json!({"shards": [{"name": "a", "selector": "a=b", "replicas": 2}], "networkPolicy": {"enabled": true}}),
        json!({"serviceMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}}),
    ] {
        // A helm that is built from its module takes Kubernetes to be 1.20 where there is none.
        let args = ["template", "op", chart, "-n", "ops", "--kube-version", "1.36.0"];
        let documents = |text: String| -> BTreeSet<String> {
            text.split("\n---\n").map(|document| document.trim().trim_start_matches("---").trim().to_owned()).collect()
        };
        let (of_four, of_three) = (four.ok(&args, Some(&values)).await, three.ok(&args, Some(&values)).await);
        assert_eq!(documents(of_three), documents(of_four), "with {values}");
    }
    let mut stage = Stage::without_release(plane, &simulator).await;
    let typo = three.run(&["install", RELEASE, chart, "-n", &stage.namespace, "--set", "typo=1"], None).await;
    assert!(!typo.ok && typo.stderr.contains("'typo' not allowed"), "{typo:?}");
    stage.helm = three;
    stage.helm.install(&stage.namespace, RELEASE, &stage.values(WATCH)).await;
    stage.open_shops().await;
    let pod = stage.pod().await;
    stage.job(&pod).await;
}
