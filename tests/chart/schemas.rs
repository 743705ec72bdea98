//! Every value set renders what the API server's own schemas take, to the last field.
//!
//! kubeconform is given the schemas that the running API server publishes, made strict. Those of the
//! Prometheus operator are nowhere to be had without a network: what the chart renders of its kinds is
//! held to in `charts/tiktok-shop-operator/tests/monitoring_test.yaml`.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Map, Value, json};
use tiktok_shop_testkit::{control_plane::ControlPlane, tools::tool};

use crate::helm::{Helm, chart};

const SKIPPED: &str = "ServiceMonitor,PrometheusRule";

/// The definitions of `/openapi/v2`, as JSON schemas that take no field they do not know.
fn strict(definitions: &mut Map<String, Value>) {
    for (name, schema) in definitions.iter_mut() {
        if name.ends_with(".api.resource.Quantity") {
            *schema = json!({"type": ["string", "number"]});
        }
        strict_schema(schema);
    }
}

fn strict_schema(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("format") == Some(&json!("int-or-string")) {
                fields.insert("type".to_owned(), json!(["integer", "string"]));
                fields.remove("format");
            }
            // A schema of an object, not a map of fields that happens to have one named so.
            if fields.get("properties").is_some_and(Value::is_object) && fields.get("type") == Some(&json!("object")) {
                fields.entry("additionalProperties").or_insert(false.into());
            }
            fields.values_mut().for_each(strict_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(strict_schema),
        _ => {}
    }
}

/// Writes a schema for each kind, as kubeconform looks for them.
async fn write_schemas(plane: &ControlPlane, folder: &Path) {
    let text = plane.kubectl_ok(&["get", "--raw", "/openapi/v2"]).await;
    let mut published: Value = serde_json::from_str(&text).expect("the API server publishes JSON");
    let definitions = published["definitions"].as_object_mut().expect("there are definitions");
    strict(definitions);
    for (name, schema) in &*definitions {
        for kind in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let word = |field: &str| kind[field].as_str().unwrap_or_default().to_lowercase();
            let group = word("group");
            // kubeconform's {{.KindSuffix}}: the first part of the group, and the version.
            let group = group.split('.').next().filter(|group| !group.is_empty()).map(|group| format!("-{group}"));
            let file = format!("{}{}-{}.json", word("kind"), group.unwrap_or_default(), word("version"));
            let reference = json!({"$ref": format!("definitions.json#/definitions/{name}")});
            std::fs::write(folder.join(file), reference.to_string()).expect("a file can be written");
        }
    }
    std::fs::write(folder.join("definitions.json"), published.to_string()).expect("a file can be written");
}

#[tokio::test]
async fn what_is_rendered_fits_the_api_servers_schemas_to_the_last_field() {
    let plane = ControlPlane::shared().await;
    let helm = Helm::of(plane).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    write_schemas(plane, folder.path()).await;
    let kubeconform = tool("kubeconform").await;
    let location = format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", folder.path().display());
    let check = async |rendered: &str| {
        let file = folder.path().join("rendered.yaml");
        std::fs::write(&file, rendered).expect("a file can be written");
        let mut command = tokio::process::Command::new(&kubeconform);
        command.args(["-strict", "-summary", "-skip", SKIPPED, "-schema-location", &location]).arg(&file);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("kubeconform runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text)
    };
    let chart = chart();
    let chart = chart.to_str().expect("its path is text");
    let args = ["template", "op", chart, "--namespace", "ops"];
    let sets = [
        json!({}),
        json!({"namespaces": ["shops", "shops-eu"], "secretAccess": "named", "crds": {"enabled": false}}),
        json!({"shards": [
            {"name": "a", "selector": "shard=a", "replicas": 3},
            {"name": "b", "selector": "shard=b", "resources": {"limits": {"memory": "1Gi"}}},
        ]}),
        json!({
            "replicas": 2, "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": true}, "grafanaDashboard": {"enabled": true},
            "networkPolicy": {"enabled": true, "metricsFrom": [{"namespaceSelector": {}}], "extraEgress": [
                {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 3128}]},
            ]},
            "caBundle": {"secretName": "roots"}, "proxy": {"https": "http://proxy:3128", "noProxy": "a,b"},
            "priorityClassName": "high", "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}}, "imagePullSecrets": [{"name": "registry"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "podLabels": {"a": "b"}, "podAnnotations": {"a": "b"}, "deploymentAnnotations": {"a": "b"},
            "commonLabels": {"team": "shops"}, "extraArgs": ["--flag-of-tomorrow=1"],
            "extraEnv": [{"name": "A", "value": "b"}], "extraVolumes": [{"name": "x", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "x", "mountPath": "/x"}], "terminationGracePeriodSeconds": 300,
            "serviceAccount": {"annotations": {"a": "b"}}, "service": {"annotations": {"a": "b"}},
        }),
        json!({"leaderElect": false, "journal": {"enabled": false}, "service": {"enabled": false}}),
    ];
    for values in &sets {
        let rendered = helm.ok(&args, Some(values)).await;
        let (ok, said) = check(&rendered).await;
        assert!(ok && said.contains("Errors: 0") && !said.contains("Valid: 0"), "with {values}:\n{said}");
    }
    let wrong = helm.ok(&args, None).await.replace("enableServiceLinks:", "enableServiceLink:");
    let (ok, said) = check(&wrong).await;
    assert!(!ok && said.contains("enableServiceLink"), "a misspelt field is found: {said}");
}
