//! The page on notifications: each alert reaches whom it says, by the judgement of Alertmanager itself, which is run with
//! the configuration as it is printed; and its expressions for Flux see in each status what it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tiktok_shop_testkit::{
    fixtures::{self, has_condition, integration},
    poll,
    process::{Child, Program},
    tools::tool,
};

use crate::{
    promtool::{self, Rule},
    stage::{DAY, Stage, is, wait},
    webhook::{Message, Webhook},
};

const PAGE: &str = "docs/src/notifications.md";

/// What the page says of where its files are.
const FOLDER: &str = "/etc/alertmanager";

/// For a program to start, and for a message that is on its way.
const SOON: Duration = Duration::from_secs(30);

/// How long Alertmanager waits here for the alerts of one message: those of one test come at once.
const GROUP_WAIT: Duration = Duration::from_secs(2);

/// The files that the page shows, in a folder of their own.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
        let page = std::fs::read_to_string(page).expect("the page is in the tree");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for block in page.split("\n```").skip(1).step_by(2) {
            let (fence, text) = block.split_once('\n').expect("a block has lines");
            if let Some((_, name)) = fence.split_once("file=") {
                let here = folder.path().to_str().expect("temporary folders have plain names");
                let text = format!("{text}\n").replace(FOLDER, here);
                std::fs::write(folder.path().join(name), text).expect("a file can be written");
            }
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{PAGE} shows no file {name}: {error}"))
    }

    fn yaml(&self, name: &str) -> Value {
        serde_saphyr::from_str(&self.text(name)).unwrap_or_else(|error| panic!("{name} of {PAGE}: {error}"))
    }
}

fn alerts() -> impl Iterator<Item = (String, Rule)> {
    promtool::rules().into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule)))
}

/// What a firing alert carries: what its rule writes, and what its expression is grouped by.
fn labels(alert: &str, lease: Option<&str>) -> BTreeMap<String, String> {
    let (_, rule) = alerts().find(|(name, _)| name == alert).unwrap_or_else(|| panic!("there is no alert {alert}"));
    let mut labels = rule.labels;
    labels.insert("alertname".to_owned(), alert.to_owned());
    if let Some(lease) = lease {
        labels.insert("namespace".to_owned(), "tiktok-shop-operator".to_owned());
        labels.insert("lease".to_owned(), lease.to_owned());
    }
    labels
}

async fn amtool(args: &[&str]) -> String {
    let output = tokio::process::Command::new(tool("amtool").await).args(args).kill_on_drop(true).output().await;
    let output = output.expect("amtool can be started");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "amtool {args:?} is not content:\n{said}");
    said
}

#[tokio::test]
async fn each_alert_goes_to_whom_the_page_says() {
    let files = Files::new();
    let config = files.path("alertmanager.yml");
    let config = config.to_str().expect("a plain path");
    amtool(&["check-config", config]).await;
    let goes_to = async |receiver: &str, labels: &BTreeMap<String, String>| {
        let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
        let [file, wanted] = [format!("--config.file={config}"), format!("--verify.receivers={receiver}")];
        let args = ["config", "routes", "test", &file, &wanted].map(str::to_owned).into_iter().chain(labels);
        let args: Vec<_> = args.collect();
        amtool(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
    };
    for (alert, rule) in alerts() {
        let receiver = match rule.labels["severity"].as_str() {
            "critical" => "shops-pager",
            "warning" => "shops-chat",
            other => panic!("{alert} has the severity {other}, of which {PAGE} says nothing"),
        };
        goes_to(receiver, &labels(&alert, Some("tiktok-shop-operator/tiktok-shop-operator"))).await;
        goes_to(receiver, &labels(&alert, None)).await;
    }
    let other = [("alertname", "KubePodCrashLooping"), ("severity", "critical"), ("namespace", "shops")];
    goes_to("nobody", &other.map(|(name, value)| (name.to_owned(), value.to_owned())).into()).await;
    let team = &files.yaml("teams.yaml")["groups"][0]["rules"][0];
    let alert = team["alert"].as_str().expect("a name");
    let [own, others] = ["1", "2"].map(|team| {
        BTreeMap::from(
            [("alertname", alert), ("severity", "warning"), ("team", team)]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        )
    });
    goes_to("team-1-chat", &own).await;
    goes_to("shops-chat", &others).await;
}

/// What is written twice, for Alertmanager and for the Prometheus Operator, is the same.
#[test]
fn the_alertmanagerconfig_says_what_the_plain_configuration_says() {
    let files = Files::new();
    let (plain, custom) = (files.yaml("alertmanager.yml"), &files.yaml("alertmanagerconfig.yaml")["spec"]);
    let matchers = |value: &Value| -> Value {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let each = value.as_array().into_iter().flatten();
        each.map(|matcher| {
            format!("{}{}{:?}", text(&matcher["name"]), text(&matcher["matchType"]), text(&matcher["value"]))
        })
        .collect()
    };
    let route = &plain["route"]["routes"][0];
    let ours = &custom["route"];
    // A route by team is an addition of the reader's.
    for (plain, custom) in [(route, ours), (&route["routes"][0], &ours["routes"][0])] {
        assert_eq!((&plain["receiver"], &plain["matchers"]), (&custom["receiver"], &matchers(&custom["matchers"])));
        for (name, own) in [
            ("group_by", "groupBy"),
            ("group_wait", "groupWait"),
            ("group_interval", "groupInterval"),
            ("repeat_interval", "repeatInterval"),
        ] {
            assert_eq!(plain[name], custom[own], "{name} of the route to {}", plain["receiver"]);
        }
    }
    let inhibitions = custom["inhibitRules"].as_array().expect("there are inhibitions").iter();
    let inhibitions = inhibitions.map(|rule| {
        json!({"source_matchers": matchers(&rule["sourceMatch"]), "target_matchers": matchers(&rule["targetMatch"]), "equal": rule["equal"]})
    });
    assert_eq!(plain["inhibit_rules"], inhibitions.collect::<Value>());
}

/// An inhibition that names an alert that is not there, or a label that it does not carry, does nothing and says nothing.
#[test]
fn the_inhibitions_name_alerts_and_labels_that_there_are() {
    let known: BTreeMap<_, _> = alerts().collect();
    let config = Files::new().yaml("alertmanager.yml");
    let rules = config["inhibit_rules"].as_array().expect("there are inhibitions");
    for rule in rules {
        let labels: Vec<_> = rule["equal"].as_array().expect("labels").iter().filter_map(Value::as_str).collect();
        for matcher in
            ["source_matchers", "target_matchers"].into_iter().flat_map(|side| rule[side].as_array().expect("matchers"))
        {
            let matcher = matcher.as_str().expect("a matcher");
            let names = matcher.trim_start_matches("alertname").trim_matches(['=', '~', '"']);
            for name in names.split('|') {
                let rule = known.get(name).unwrap_or_else(|| panic!("{matcher}: there is no alert {name}"));
                let by = rule.expr.split(" by (").nth(1).and_then(|by| by.split(')').next()).unwrap_or_default();
                let by: BTreeSet<_> = by.split(',').map(str::trim).collect();
                assert!(labels.iter().all(|label| by.contains(label)), "{name} is by {by:?}, and not by {labels:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_team_is_told_of_its_own_shops() {
    let files = Files::new();
    let rules = files.path("teams.yaml");
    promtool::run(&["check", "rules", "--lint-fatal", rules.to_str().expect("a plain path")], "").await;
    let name = "tiktokshop_access_token_expiry_timestamp_seconds";
    let series = |instance: &str, shop: &str, team: &str, expiry: i64| {
        json!({"series": format!("{name}{{instance={instance:?}, namespace=\"shops\", name={shop:?}, team={team:?}}}"),
            "values": format!("{expiry}x30")})
    };
    let hour = 3_600;
    let alert = &files.yaml("teams.yaml")["groups"][0]["rules"][0];
    let text = |name: &str| {
        let text = alert["annotations"][name].as_str().expect("a text");
        text.replace("{{ $labels.team }}", "1").replace("{{ $value }}", "2")
    };
    let document = json!({
        "rule_files": [rules],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [
                series("a", "shop-1", "1", 11 * hour), series("b", "shop-1", "1", 11 * hour),
                series("a", "shop-2", "1", hour), series("a", "shop-3", "1", 30 * hour),
                // The standby has not seen yet that it was refreshed.
                series("a", "shop-4", "2", 160 * hour), series("b", "shop-4", "2", hour),
            ],
            "alert_rule_test": [{
                "alertname": alert["alert"],
                "eval_time": "20m",
                "exp_alerts": [{
                    "exp_labels": {"severity": "warning", "team": "1"},
                    "exp_annotations": {
                        "summary": text("summary"), "description": text("description"),
                        "runbook_url": text("runbook_url"),
                    },
                }],
            }],
        }],
    });
    promtool::judge(["test", "rules"], &document).await;
}

/// Alertmanager at work, with the configuration of the page. Only where its receivers are, and how long it waits, is ours.
struct Alertmanager {
    child: Child,
    url: String,
    http: reqwest::Client,
    _files: Files,
}

impl Alertmanager {
    async fn start(webhook: &Webhook) -> Self {
        let files = Files::new();
        let secrets = files.path("secrets");
        std::fs::create_dir(&secrets).expect("a folder can be made");
        for (name, value) in
            [("pagerduty-routing-key", "0123".to_owned()), ("slack-url", format!("{}/chat", webhook.url()))]
        {
            std::fs::write(secrets.join(name), value).expect("a file can be written");
        }
        let mut config = files.yaml("alertmanager.yml");
        config["global"] = json!({"pagerduty_url": format!("{}/pager", webhook.url())});
        hasten(&mut config["route"]);
        let path = files.path("hastened.yml");
        std::fs::write(&path, config.to_string()).expect("a file can be written");
        let child = Program::new(tool("alertmanager").await)
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.path={}", files.path("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .arg("--cluster.listen-address=")
            .spawn()
            .expect("alertmanager can be started");
        let listens = child.wait_for_line(|line| line.contains("Listening on"), SOON).await;
        let line = listens.unwrap_or_else(|error| panic!("{error}"));
        let (_, address) = line.split_once("address=").expect("it says where it listens");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client can be made");
        Self { url: format!("http://{address}"), child, http, _files: files }
    }

    /// As Prometheus tells it of alerts that fire.
    async fn fire(&self, alerts: &[Value]) {
        let body = Value::from(alerts.to_vec()).to_string();
        let post = self.http.post(format!("{}/api/v2/alerts", self.url)).header("Content-Type", "application/json");
        let answer = post.body(body).send().await.expect("alertmanager answers");
        assert!(answer.status().is_success(), "alertmanager refuses the alerts: {}", answer.status());
    }
}

/// The shortest wait for a route and those below it, and no message again.
fn hasten(route: &mut Value) {
    route["group_wait"] = json!(format!("{}s", GROUP_WAIT.as_secs()));
    route["group_interval"] = json!("1h");
    for inner in route.get_mut("routes").and_then(Value::as_array_mut).into_iter().flatten() {
        hasten(inner);
    }
}

/// As Prometheus sends it, but for the places in its text that Prometheus fills in.
fn firing(alert: &str, lease: &str, more: &[(&str, &str)]) -> Value {
    let (_, rule) = alerts().find(|(name, _)| name == alert).unwrap_or_else(|| panic!("there is no alert {alert}"));
    let mut labels = labels(alert, Some(lease));
    labels.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    json!({"labels": labels, "annotations": rule.annotations})
}

/// What happens when the API server is away in one shard, and when a shop is about to stop in the other.
#[tokio::test]
async fn alertmanager_sends_what_matters_once_and_with_what_to_do() {
    let webhook = Webhook::start().await;
    let alertmanager = Alertmanager::start(&webhook).await;
    let team = "TikTokShopTeamTokenExpiring";
    alertmanager
        .fire(&[
            firing("TikTokShopNoLeader", "shops/a", &[]),
            firing("TikTokShopWatchFailing", "shops/a", &[("resource", "secrets")]),
            firing("TikTokShopWatchFailing", "shops/a", &[("resource", "tiktokshopintegrations")]),
            firing("TikTokShopRefreshesOverdue", "shops/a", &[]),
            firing("TikTokShopTokenNotRefreshed", "shops/a", &[]),
            firing("TikTokShopAnswerNotStored", "shops/a", &[]),
            firing("TikTokShopReauthorizationNeeded", "shops/a", &[]),
            firing("TikTokShopCorrectionNeeded", "shops/a", &[]),
            firing("TikTokShopRefreshesOverdue", "shops/b", &[]),
            firing("TikTokShopTokenExpiring", "shops/b", &[]),
            firing("TikTokShopTokenNotRefreshed", "shops/b", &[]),
            json!({"labels": {"alertname": team, "severity": "warning", "team": "1"}, "annotations": {"summary": team}}),
            json!({"labels": {"alertname": "KubePodCrashLooping", "severity": "critical"}}),
        ])
        .await;
    let paged = [
        ("TikTokShopNoLeader", "shops/a"),
        ("TikTokShopAnswerNotStored", "shops/a"),
        ("TikTokShopRefreshesOverdue", "shops/b"),
        ("TikTokShopTokenExpiring", "shops/b"),
    ];
    let wanted = paged.len() + 2;
    let all = poll::until(SOON, async || (webhook.messages().len() >= wanted).then_some(())).await;
    // What else would be sent is grouped for as long as the rest.
    tokio::time::sleep(2 * GROUP_WAIT).await;
    let messages = webhook.messages();
    assert!(
        all.is_some() && messages.len() == wanted,
        "{wanted} messages were wanted, and these came: {messages:#?}\n{}",
        alertmanager.child.tail(20)
    );

    let to = |path: &str| messages.iter().filter(move |message| message.path == path).collect::<Vec<_>>();
    let received = to("/pager");
    for (alert, lease) in paged {
        let (_, rule) = alerts().find(|(name, _)| name == alert).expect("there is such an alert");
        let title = format!("FIRING: {} ({lease})", rule.annotations["summary"]);
        let page = received.iter().find(|page| page.body["payload"]["summary"] == title);
        let page = page.unwrap_or_else(|| panic!("no page says {title}, but these came: {received:#?}")).body.clone();
        assert_eq!((&page["event_action"], &page["payload"]["severity"]), (&json!("trigger"), &json!("critical")));
        assert_eq!(page["links"][0]["href"], rule.annotations["runbook_url"]);
        let text = page["payload"]["custom_details"]["alerts"].as_str().expect("the page has a text");
        reads(text, &rule);
    }

    let chat = |channel: &str| -> Value {
        let to_it: Vec<&Message> =
            to("/chat").into_iter().filter(|message| message.body["channel"] == channel).collect();
        let [one] = &to_it[..] else { panic!("one message to {channel}, not {to_it:#?}") };
        one.body["attachments"][0].clone()
    };
    let shops = chat("#shops");
    assert_eq!(shops["title"], "FIRING: 2 alerts of TikTok Shop (shops/a)");
    for (alert, rule) in alerts() {
        if ["TikTokShopReauthorizationNeeded", "TikTokShopCorrectionNeeded"].contains(&&*alert) {
            reads(shops["text"].as_str().expect("a text"), &rule);
        }
    }
    assert_eq!(chat("#team-1")["title"], format!("FIRING: {team}"));
}

/// A message says what is the matter, and leads to what is to be done.
fn reads(text: &str, rule: &Rule) {
    for name in ["summary", "description", "runbook_url"] {
        let part = &rule.annotations[name];
        assert!(text.contains(part.as_str()), "the message does not say its {name}, {part:?}:\n{text}");
    }
}

/// What Flux makes of an integration, by the expressions of the page. They are evaluated by the API server, which has
/// the same CEL library as Flux has, in a policy that tells of a dry run of a write of the status.
///
/// Flux itself asks for `failed` before `current`, and waits where neither is true, or one can't be evaluated.
struct Health {
    client: Client,
    namespace: String,
}

impl Health {
    async fn of(stage: &Stage) -> Self {
        let text = Files::new().text("flux.yaml");
        let kustomization = text.split("\n---\n").next().expect("a document");
        let kustomization: Value = serde_saphyr::from_str(kustomization).expect("it is YAML");
        let check = &kustomization["spec"]["healthCheckExprs"][0];
        assert_eq!(
            (&check["apiVersion"], &check["kind"]),
            (&json!("tiktokshop.dev/v1alpha1"), &json!("TikTokShopIntegration"))
        );
        // In Flux the fields of the object are variables; here they are made so.
        let value = |name: &str| {
            let expression = check[name].as_str().unwrap_or_else(|| panic!("there is no expression {name}"));
            format!("[object.spec].all(spec, [object.status].all(status, {expression}))")
        };
        let (failed, current) = (value("failed"), value("current"));
        let name = stage.namespace.clone();
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["tiktokshop.dev"], "apiVersions": ["*"], "operations": ["UPDATE"],
                    "resources": ["tiktokshopintegrations/status"],
                }]},
                "matchConditions": [{
                    "name": "asked",
                    "expression": format!("request.dryRun && request.namespace == '{}'", stage.namespace),
                }],
                "validations": [{
                    "expression": "false",
                    "message": "health: waits, for it can't be evaluated",
                    "messageExpression": format!("{failed} ? 'health: failed' : {current} ? 'health: current' : 'health: waits'"),
                }],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
        });
        for manifest in [policy, binding] {
            stage.plane.apply(&manifest.to_string()).await;
        }
        Self { client: stage.client.clone(), namespace: name }
    }

    /// In a word.
    async fn look(&self, name: &str) -> String {
        let integrations = fixtures::integrations(&self.client, &self.namespace);
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let mut last = "never asked".to_owned();
        let found = poll::until(SOON, async || {
            // A policy that has just been made is not yet heeded.
            match integrations.patch_status(name, &params, &Patch::Merge(json!({}))).await {
                Ok(_) => None,
                Err(error) => {
                    last = error.to_string();
                    let (_, word) = last.split_once("health: ")?;
                    let end = word.find(|character: char| !character.is_ascii_lowercase()).unwrap_or(word.len());
                    Some(word[..end].to_owned())
                }
            }
        });
        found.await.unwrap_or_else(|| panic!("nothing is told of {name}: {last}"))
    }
}

#[tokio::test]
async fn flux_takes_a_shop_for_healthy_or_failed_as_the_page_says() {
    let stage = Stage::new().await;
    let health = Health::of(&stage).await;
    let operator = stage.operator("one", &stage.ways[0]).start();
    wait(&operator, "leadership", |scrape| is(scrape, "tiktokshop_leader", &[], 1.0)).await;
    stage.shop("well", 5 * DAY).await;
    stage.shop("refused", 5 * DAY).await;
    stage.simulator.deauthorize("refused").await;
    stage.request("refused", "now").await;
    stage.latecomer("late").await;
    stage.new_shop(&stage.living("resting", -60), |resting| resting.suspend(true)).await;
    integration(&stage.namespace, "forgotten", "no-such-secret", "app").create(&stage.client).await;
    let expected = [
        ("well", "True", "TokenValid", "current"),
        // Its access token lives, and nothing but a person keeps it alive.
        ("refused", "True", "RefreshTokenRejected", "failed"),
        ("late", "False", "AuthorizationCodeRejected", "failed"),
        // Its access token has expired, and nobody wants another.
        ("resting", "False", "Suspended", "current"),
        // It may be applied in a moment.
        ("forgotten", "False", "TokenSecretNotFound", "waits"),
    ];
    for (name, ready, reason, said) in expected {
        let as_told = |status: &Value| has_condition(status, "Ready", ready, reason);
        fixtures::wait_for_status(&stage.client, &stage.namespace, name, reason, as_told, SOON).await;
        assert_eq!(health.look(name).await, said, "of {name}, which is {reason}");
    }
    operator.sigterm(SOON).await;
    integration(&stage.namespace, "unseen", "well", "app").create(&stage.client).await;
    assert_eq!(health.look("unseen").await, "waits", "of one that no operator has looked at");
}
