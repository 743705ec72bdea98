//! The operator's rights: enough for all that it does, and none too many.

use std::collections::BTreeSet;

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use tiktok_shop_testkit::{
    control_plane::{AuditEntry, ControlPlane, Options, service_account_user},
    fixtures::{self, condition},
    poll,
    simulator::Simulator,
};
use tokio::sync::OnceCell;

use crate::kubelet::Pod;
use crate::stage::{Mode, SOON, Stage, simulator_binary};

const ACCOUNT: &str = "op-tiktok-shop-operator";

/// An API server that knows no streaming lists, as older ones: there the operator lists before it watches.
async fn plane() -> &'static ControlPlane {
    static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
    PLANE
        .get_or_init(async || {
            let options =
                Options { api_server_args: vec!["--feature-gates=WatchList=false".to_owned()], ..Options::default() };
            let plane = ControlPlane::start(options).await;
            fixtures::install_crd(&plane, include_str!("../../crds/tiktokshopintegrations.tiktokshop.dev.yaml")).await;
            plane
        })
        .await
}

/// One verb on one resource, granted by one rule of a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    kind: String,
    namespace: Option<String>,
    role: String,
    rule: usize,
    group: String,
    resource: String,
    verb: String,
}

impl Right {
    fn what(&self) -> String {
        format!("{} of {}", self.verb, self.resource)
    }

    /// Without names that differ from release to release.
    fn key(&self) -> (String, usize, String, String) {
        (self.kind.clone(), self.rule, self.resource.clone(), self.verb.clone())
    }
}

async fn get(plane: &ControlPlane, args: &[&str]) -> Value {
    let args = [&["get"], args, &["-o", "json"]].concat();
    serde_json::from_str(&plane.kubectl_ok(&args).await).expect("kubectl prints JSON")
}

/// All that is granted to a release's account, by whatever binding, as the API server stores it.
async fn rights(stage: &Stage<'_>) -> Vec<Right> {
    let subject = json!({"kind": "ServiceAccount", "name": ACCOUNT, "namespace": stage.namespace});
    let bindings = get(stage.plane, &["clusterrolebindings,rolebindings", "-A"]).await;
    let mut rights = Vec::new();
    for binding in bindings["items"].as_array().into_iter().flatten() {
        if !binding["subjects"].as_array().is_some_and(|subjects| subjects.contains(&subject)) {
            continue;
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (kind, role) = (text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]));
        let (kind, role) = (kind.expect("a role has a kind"), role.expect("a role has a name"));
        let namespace = (kind == "Role").then(|| text(&binding["metadata"]["namespace"]).expect("it is in one"));
        let stored = role_of(stage.plane, &kind, namespace.as_deref(), &role).await;
        for (rule, content) in stored["rules"].as_array().into_iter().flatten().enumerate() {
            let words = |name: &str| -> Vec<String> {
                content[name].as_array().into_iter().flatten().filter_map(text).collect()
            };
            for group in words("apiGroups") {
                for resource in words("resources") {
                    for verb in words("verbs") {
                        rights.push(Right {
                            kind: kind.clone(),
                            namespace: namespace.clone(),
                            role: role.clone(),
                            rule,
                            group: group.clone(),
                            resource: resource.clone(),
                            verb,
                        });
                    }
                }
            }
        }
    }
    rights.sort();
    rights
}

async fn role_of(plane: &ControlPlane, kind: &str, namespace: Option<&str>, name: &str) -> Value {
    let within = namespace.unwrap_or("default");
    get(plane, &[kind, name, "-n", within]).await
}

/// Takes a word out of a list, and says whether any are left.
fn without(words: &mut Value, word: &str) -> bool {
    let words = words.as_array_mut().expect("a rule has lists of words");
    words.retain(|other| *other != word);
    !words.is_empty()
}

/// Takes a right away, and waits until the API server goes by that.
async fn take_away(stage: &Stage<'_>, right: &Right) {
    let mut role = role_of(stage.plane, &right.kind, right.namespace.as_deref(), &right.role).await;
    let rules = role["rules"].as_array_mut().expect("a role has rules");
    let mut left = rules.remove(right.rule);
    let of_others = {
        let mut others = left.clone();
        without(&mut others["resources"], &right.resource).then_some(others)
    };
    left["resources"] = json!([right.resource]);
    let of_this = without(&mut left["verbs"], &right.verb).then_some(left);
    rules.extend(of_others.into_iter().chain(of_this));
    stage.plane.kubectl_ok_with(&["replace", "-f", "-"], Some(&role.to_string())).await;

    let reviews: Api<SubjectAccessReview> = Api::all(stage.client.clone());
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource)),
        None => (right.resource.as_str(), None),
    };
    let within = if right.resource == "leases" { &stage.namespace } else { &stage.shops };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(service_account_user(&stage.namespace, ACCOUNT)),
            resource_attributes: Some(ResourceAttributes {
                group: Some(right.group.clone()),
                resource: Some(resource.to_owned()),
                subresource: subresource.map(str::to_owned),
                verb: Some(right.verb.clone()),
                namespace: Some(within.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let gone = poll::until(SOON, async || {
        let answer = reviews.create(&PostParams::default(), &review).await.expect("an admin may ask");
        (!answer.status.expect("an answered review has a status").allowed).then_some(())
    });
    assert!(gone.await.is_some(), "{} is granted by another rule, too", right.what());
}

/// What a user would see where a right is missing. Panics where it is not to be seen.
async fn sign(stage: &Stage<'_>, pod: &Pod, right: &Right) {
    let line = async |text: &'static str| {
        let (resource, verb) =
            (right.resource.split('/').next().unwrap_or_default(), format!("cannot {} ", right.verb));
        let told = |line: &str| line.contains(text) && line.contains(&verb) && line.contains(resource);
        let told = pod.process.wait_for_line(told, SOON).await;
        told.unwrap_or_else(|error| panic!("without {}: no line {text:?} that names it: {error}", right.what()));
    };
    match (right.resource.as_str(), right.verb.as_str()) {
        ("tiktokshopintegrations" | "secrets", "list" | "watch") => {
            line("a watch failed and is started again").await;
            assert_eq!(pod.probe("/readyz").await, Some(503), "without {} it is not ready", right.what());
        }
        ("tiktokshopintegrations/status", "patch") => {
            stage.simulator.wait_for_refreshes(&stage.id("due"), 1, SOON).await;
            line("failed to write a status").await;
            let status = fixtures::get_status(&stage.client, &stage.shops, "due").await;
            assert_eq!(status, Value::Null, "without {} there is no status", right.what());
        }
        ("secrets", "get" | "patch") => {
            // The app's Secret is the first that is read.
            let reason = if right.verb == "get" { "AppCredentialsNotFound" } else { "TokenSecretForbidden" };
            let told = format!("cannot {} resource", right.verb);
            let forbidden = |status: &Value| {
                condition(status, "Ready").is_some_and(|is| is.reason == reason && is.message.contains(&told))
            };
            stage.wait_status("due", reason, forbidden).await;
            assert_eq!(stage.simulator.shop(&stage.id("due")).await.counters.presentations, 0, "no token is spent");
        }
        ("events", "create") => line("failed to post an event").await,
        ("events", "patch") => {
            stage.fail_twice().await;
            line("failed to post an event").await;
        }
        ("deployments" | "statefulsets" | "daemonsets", "patch") => {
            let told = format!("cannot patch resource \"{}\"", right.resource);
            let said = |status: &Value| {
                condition(status, "Refreshed").is_some_and(|is| is.status == "True" && is.message.contains(&told))
            };
            stage.wait_status("due", "what was not restarted", said).await;
        }
        ("leases", "get" | "create" | "update") => line("failed to use the Lease").await,
        _ => panic!("nothing is known to fail without {}: say here what does, or do not grant it", right.what()),
    }
}

/// The requests of a user that were refused.
fn refused(plane: &ControlPlane, user: &str) -> Vec<AuditEntry> {
    plane.audit().into_iter().filter(|entry| entry.user.username == user && matches!(entry.code(), 401 | 403)).collect()
}

/// Each right of the rendered roles is taken away in turn, of a release of its own, and its lack is seen.
async fn every_right_is_needed(mode: Mode) {
    let plane = plane().await;
    let simulator = Simulator::start(&simulator_binary()).await;
    // All that can be granted.
    let values = json!({"rolloutRestart": {"enabled": true}});
    let whole = Stage::install(plane, &simulator, mode, &values).await;
    let granted = rights(&whole).await;
    let names: BTreeSet<_> = granted.iter().map(Right::key).collect();
    assert_eq!(names.len(), granted.len(), "nothing is granted twice: {granted:#?}");
    let kinds: BTreeSet<_> =
        granted.iter().filter(|right| right.resource != "leases").map(|right| &*right.kind).collect();
    assert_eq!(kinds, BTreeSet::from([if mode.roles { "Role" } else { "ClusterRole" }]), "{granted:#?}");
    let watches =
        granted.iter().any(|right| right.resource == "secrets" && right.verb != "get" && right.verb != "patch");
    assert_eq!(watches, mode.secret_access == "watch", "list and watch of Secrets: {granted:#?}");

    let lacking = |key: (String, usize, String, String)| {
        let (simulator, values) = (&simulator, &values);
        async move {
            let stage = Stage::install(plane, simulator, mode, values).await;
            stage.open_shops().await;
            let right = rights(&stage).await.into_iter().find(|right| right.key() == key).expect("releases are alike");
            take_away(&stage, &right).await;
            let pod = stage.pod().await;
            sign(&stage, &pod, &right).await;
            let (resource, subresource) = match right.resource.split_once('/') {
                Some((resource, subresource)) => (resource, Some(subresource)),
                None => (&*right.resource, None),
            };
            for entry in refused(plane, &pod.user) {
                let object = entry.object_ref.as_ref().expect("a refused request is about a resource");
                let asked = (&*object.resource, object.subresource.as_deref(), &*entry.verb);
                assert_eq!(asked, (resource, subresource, &*right.verb), "of {mode:?} without {}", right.what());
            }
        }
    };
    join_all(names.into_iter().map(lacking)).await;

    // And with all of them nothing is refused, in the same API server.
    whole.open_shops().await;
    let pod = whole.pod().await;
    whole.job(&pod).await;
    let user = pod.user.clone();
    pod.stop(SOON).await;
    let refused: Vec<_> = refused(plane, &user).iter().map(AuditEntry::what).collect();
    assert!(refused.is_empty(), "refused: {refused:?}");
}

#[tokio::test]
async fn every_right_of_the_cluster_role_is_needed() {
    every_right_is_needed(Mode { secret_access: "watch", roles: false }).await;
}

#[tokio::test]
async fn every_right_of_the_cluster_role_is_needed_where_secrets_are_not_watched() {
    every_right_is_needed(Mode { secret_access: "named", roles: false }).await;
}

#[tokio::test]
async fn every_right_of_the_roles_in_namespaces_is_needed() {
    every_right_is_needed(Mode { secret_access: "watch", roles: true }).await;
}

#[tokio::test]
async fn every_right_of_the_roles_in_namespaces_is_needed_where_secrets_are_not_watched() {
    every_right_is_needed(Mode { secret_access: "named", roles: true }).await;
}
