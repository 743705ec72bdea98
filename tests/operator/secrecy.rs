//! No secret value gets out, at no log level, whatever quotes it.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use tiktok_shop_testkit::{
    fixtures::{self, app_secret},
    leak::LeakScan,
    poll,
    proxy::Proxy,
    simulator::{Action, DropPoint, Fault, Lie, NewShop, Shop},
    steps,
};

use crate::resilience::{SOON, Stage, is_ready};

const HOUR: i64 = 3_600;

/// What stands on lines that tell of an outcome.
fn outcomes<'a>(logs: &'a str, shop: &str) -> Vec<&'a str> {
    let lines = logs.lines().filter(|line| line.starts_with('{')).filter(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no line of JSON: {line}"));
        line["name"] == shop
    });
    lines.collect()
}

/// The line of an outcome has what a person looks for, and says what the status says.
///
/// Covers: flag/log-format
#[tokio::test]
async fn the_line_of_an_outcome_says_what_the_status_says() {
    let stage = Stage::new().await;
    stage.shop("good", HOUR).await;
    stage.shop("bad", HOUR).await;
    stage.simulator.add_fault(Fault::always(Action::code(36_009_033)).shop("bad")).await;
    let operator = stage.operator().flag("log-format", "json").start();
    stage.wait_status("good", "refreshed", |status| status["lastRefreshTime"].is_string(), SOON).await;
    let failed = stage.wait_status("bad", "failing", |status| status["lastError"].is_object(), SOON).await;
    fixtures::wait_for_event(&stage.client, &stage.namespace, "good", "Refreshed", SOON).await;
    fixtures::wait_for_event(&stage.client, &stage.namespace, "bad", "RefreshFailed", SOON).await;
    let logs = operator.process().stderr();
    let good = outcomes(&logs, "good");
    assert_eq!(good.len(), 1, "a refresh is one line: {good:#?}");
    let line: Value = serde_json::from_str(good[0]).expect("it was read before");
    assert_eq!((&line["level"], &line["message"]), (&json!("INFO"), &json!("refreshed")), "{line}");
    assert_eq!((&line["namespace"], &line["because"]), (&json!(stage.namespace), &json!("due")), "{line}");
    let bad = outcomes(&logs, "bad");
    assert_eq!(bad.len(), 1, "a failure is one line: {bad:#?}");
    let line: Value = serde_json::from_str(bad[0]).expect("it was read before");
    assert_eq!((&line["level"], &line["reason"]), (&json!("WARN"), &json!("IpNotAllowed")), "{line}");
    assert_eq!(line["code"], 36_009_033, "{line}");
    assert_eq!(line["error"], failed["lastError"]["message"], "log and status say the same");
    assert_eq!(line["request_id"], failed["lastError"]["requestId"], "log and status name the same request");
}

/// Every pair that the shops ever had, and the app's secret.
async fn secrets_of(stage: &Stage<'_>) -> LeakScan {
    tokens_of(stage).await.secret("the app secret", &stage.app.app_secret)
}

/// Every pair that the shops ever had.
async fn tokens_of(stage: &Stage<'_>) -> LeakScan {
    let mut scan = LeakScan::new();
    for shop in stage.simulator.shops().await {
        for (at, pair) in stage.simulator.history(&shop.id).await.iter().enumerate() {
            scan.add(&format!("access token {at} of {}", shop.id), &pair.access_token);
            scan.add(&format!("refresh token {at} of {}", shop.id), &pair.refresh_token);
        }
    }
    scan
}

/// What is not needed any more is wiped, the buffers of connections as they are closed.
#[tokio::test]
async fn token_values_are_not_left_in_memory() {
    for form in ["json", "query"] {
        let stage = Stage::new().await;
        stage.shop("shop", HOUR).await;
        let tiktok = Proxy::start(stage.simulator.base_url(), None);
        let endpoint = stage.simulator.token_endpoint_through(&tiktok);
        let operator = stage.operator().token_endpoint(&endpoint).flag("token-request", form).start();
        stage.simulator.wait_for_refreshes("shop", 1, SOON).await;
        for request in ["1", "2"] {
            stage.request("shop", request).await;
            stage.wait_refreshed("shop", request, SOON).await;
        }
        let scan = tokens_of(&stage).await;
        stage.proxy.cut_all().await;
        tiktok.cut_all().await;
        let mut left = Vec::new();
        let wiped = poll::until(SOON, async || {
            let memory = operator.process().memory_text().expect("a child's memory can be read");
            left = scan.find([("memory", memory.as_str())]);
            left.is_empty().then_some(())
        });
        assert!(wiped.await.is_some(), "with {form}: {left:#?}");
    }
}

/// TikTok, a gateway before it and the API server quote what was sent to them; a person used
/// `kubectl apply`, which keeps the values in an annotation; the operator logs all it ever would.
///
/// Covers: status/lastError.message, event/RefreshFailed, flag/log-format
#[tokio::test]
async fn no_secret_value_gets_out_whoever_quotes_it() {
    for format in ["json", "text"] {
        quoted_everywhere(format).await;
    }
}

async fn quoted_everywhere(format: &str) {
    let stage = Stage::new().await;
    let quoting = |shop: &Shop| format!("no: refresh {} secret {}", shop.refresh_token(), stage.app.app_secret);
    let rows = ["good", "refused", "gateway", "lost", "lie", "kube", "wrong-app"];
    for name in rows {
        let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id(name).access_remaining(HOUR)).await;
        let said = quoting(&shop);
        match name {
            "refused" => {
                stage.simulator.add_fault(Fault::always(Action::code_saying(77, &said)).shop(name)).await;
            }
            "gateway" => {
                let page = format!("<html>{said}</html>");
                stage.simulator.add_fault(Fault::once(Action::raw(502, &page)).shop(name)).await;
            }
            "lost" => {
                stage.simulator.add_fault(Fault::once(Action::drop(DropPoint::HalfAnswer)).shop(name)).await;
            }
            "lie" => {
                stage.simulator.add_fault(Fault::once(Action::lie(Lie::MissingAccessToken)).shop(name)).await;
            }
            "kube" => {
                // As an admission plugin may answer.
                let persist = steps::persist(&stage.namespace, name);
                let said = format!("{said} access {}", shop.access_token());
                stage.proxy.on("a write that is refused", persist).once().respond_status(422, "Invalid", &said);
            }
            _ => {}
        }
        let manifest = stage.token_secret(&shop).manifest().to_string();
        // Not server-side: this form keeps the values in an annotation.
        stage.plane.kubectl_ok_with(&["apply", "--server-side=false", "-f", "-"], Some(&manifest)).await;
        if name == "wrong-app" {
            app_secret(&stage.namespace, "wrong", &stage.app.app_key, "not the secret at all")
                .create(&stage.client)
                .await;
            fixtures::integration(&stage.namespace, name, name, "wrong").create(&stage.client).await;
        } else {
            stage.integration(name).create(&stage.client).await;
        }
    }
    let operator = stage.operator().flag("log-format", format).trace().start();
    for name in rows {
        let tried = |status: &Value| status["lastAttemptTime"].is_string();
        stage.wait_status(name, "tried", tried, SOON).await;
    }
    stage.wait_status("good", "Ready", is_ready, SOON).await;
    stage.wait_status("kube", "Ready after all", is_ready, 2 * SOON).await;
    fixtures::wait_for_event(&stage.client, &stage.namespace, "refused", "RefreshFailed", SOON).await;
    fixtures::wait_for_event(&stage.client, &stage.namespace, "wrong-app", "RefreshFailed", SOON).await;
    let refused = stage.status("refused").await["lastError"]["message"].to_string();
    assert!(refused.contains("no: refresh"), "what TikTok says is shown, without the values: {refused}");
    let held = fixtures::wait_for_event(&stage.client, &stage.namespace, "kube", "RefreshFailed", SOON).await;
    assert!(held.note.contains("no: refresh"), "what the API server says is shown, without the values: {held:?}");

    let scan = secrets_of(&stage).await.secret("the wrong app secret", "not the secret at all");
    let mut texts = vec![("metrics", operator.metrics_text().await)];
    assert_eq!(operator.sigterm(SOON).await.code(), Some(0));
    texts.push(("the logs", operator.logs()));
    for resource in ["events.events.k8s.io", "tiktokshopintegrations", "leases"] {
        let args = ["get", resource, "-n", &stage.namespace, "-o", "json", "--show-managed-fields"];
        texts.push((resource, stage.plane.kubectl_ok(&args).await));
    }
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let mut annotations = String::new();
    for secret in secrets.list(&ListParams::default()).await.expect("an admin may list Secrets").items {
        let own = secret.metadata.annotations.unwrap_or_default().into_iter();
        annotations.extend(own.filter(|(name, _)| name.starts_with("tiktokshop.dev/")).map(|(_, value)| value + "\n"));
    }
    texts.push(("the operator's annotations", annotations));
    let whole: Vec<_> = texts.iter().map(|(name, text)| (*name, text.len())).collect();
    assert!(texts.iter().all(|(name, text)| *name == "leases" || text.len() > 100), "there is less to see: {whole:?}");
    assert!(texts[1].1.contains("TRACE"), "the operator logs all it ever would");
    scan.assert_clean(texts.iter().map(|(name, text)| (*name, text.as_str())));
}

/// TikTok may quote the access token, which was not sent to it but belongs to the same pair.
///
/// Covers: status/lastError.message
#[tokio::test]
async fn an_access_token_that_tiktok_quotes_is_scrubbed() {
    let stage = Stage::new().await;
    let shop = stage.shop("shop", 5 * 24 * HOUR).await;
    let said = format!("no: access {}", shop.access_token());
    stage.simulator.add_fault(Fault::always(Action::code_saying(77, &said)).shop("shop")).await;
    let operator = stage.operator().start();
    stage.request("shop", "now").await;
    let status = stage.wait_status("shop", "failing", |status| status["lastError"].is_object(), SOON).await;
    secrets_of(&stage).await.assert_clean([("status", status.to_string().as_str()), ("logs", &operator.logs())]);
}
