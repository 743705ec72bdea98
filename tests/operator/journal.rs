//! What stands in `--journal-dir` when the operator starts: answers, damaged files, files of others.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tiktok_shop_testkit::{
    fixtures::{self, has_condition},
    operator::Operator,
    steps,
};

use crate::resilience::{LONG, SOON, Stage, is_ready};

/// Not due.
const PLENTY: i64 = 5 * 24 * 3_600;

/// Names of all files in the journal.
fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .expect("the journal is there")
        .map(|file| file.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// An operator that was killed with TikTok's answer in the journal and nothing stored.
async fn killed_with_an_answer(stage: &Stage<'_>) -> Operator {
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let hold = stage.proxy.on("persist", steps::persist(&stage.namespace, "shop")).once().hold();
    stage.request("shop", "now").await;
    hold.wait_held(SOON).await;
    operator.sigkill();
    hold.cut();
    operator
}

/// Warnings about journal entries that are of no use, in all its lives.
fn warnings(operator: &Operator) -> Vec<String> {
    let logs = operator.logs();
    logs.lines().filter(|line| line.contains("a journal entry is not used")).map(str::to_owned).collect()
}

/// Covers: flag/journal-dir
#[tokio::test]
async fn a_damaged_entry_is_set_aside_with_one_warning_and_hinders_nothing() {
    let stage = Stage::new().await;
    let mut operator = killed_with_an_answer(&stage).await;
    let dir = stage.journal.path();
    let entry = files(dir)
        .into_iter()
        .find(|name| Path::new(name).extension() == Some("json".as_ref()))
        .expect("the answer is in the journal");
    let whole = fs::read(dir.join(&entry)).expect("it can be read");
    // Half of it, as after a disk that failed; what is blank behind it is no part of it.
    let half = whole.trim_ascii_end().len() / 2;
    fs::write(dir.join(&entry), &whole[..half]).expect("it can be written");
    operator.restart();
    operator.wait_ready(SOON).await;
    let said = warnings(&operator);
    assert_eq!(said.len(), 1, "one clear line: {said:#?}");
    assert!(said[0].contains("WARN") && said[0].contains("set aside") && said[0].contains(".damaged-"), "{}", said[0]);
    assert!(!said[0].contains("TTP_"), "it shows a token: {}", said[0]);
    assert!(files(dir).iter().any(|name| name.contains(".damaged-")), "it is kept for a person: {:?}", files(dir));
    // The answer is lost with it: the outcome is unknown, the token is tried once more, and refused.
    let rejected = |status: &Value| has_condition(status, "Stalled", "True", "RefreshTokenRejected");
    stage.wait_status("shop", "to be authorized again", rejected, LONG).await;
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "OutcomeUnknown", SOON).await;

    // Made whole by a person, it is of use no more: its shop has been authorized anew, and that pair stays.
    let shop = stage.simulator.reauthorize("shop").await;
    let patch = json!({ "data": stage.token_secret(&shop).manifest()["data"] });
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &patch).await;
    stage.wait_status("shop", "Ready with the new authorization", is_ready, SOON).await;
    operator.sigkill();
    fs::write(dir.join(&entry), &whole).expect("it can be written");
    operator.restart();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready with the new authorization", is_ready, SOON).await;
    stage.assert_current("shop").await;
}

/// Covers: flag/journal-dir
#[tokio::test]
async fn files_of_others_are_left_alone_and_hinder_nothing() {
    let stage = Stage::new().await;
    let dir = stage.journal.path();
    let foreign = [("README.txt", "of somebody else"), (".hidden", ""), ("core.1234", "\u{0}\u{1}")];
    for (name, text) in foreign {
        fs::write(dir.join(name), text).expect("it can be written");
    }
    fs::create_dir(dir.join("lost+found")).expect("a folder can be made");
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.request("shop", "now").await;
    stage.wait_refreshed("shop", "now", SOON).await;
    assert_eq!(operator.sigterm(SOON).await.code(), Some(0));
    for (name, text) in foreign {
        assert_eq!(fs::read_to_string(dir.join(name)).expect("it is there"), text, "{name} was changed");
    }
}

/// `/readyz` asks for one try of each entry, not for its success; the answer is stored when it can be.
///
/// Covers: flag/journal-dir, reason/PersistFailed
#[tokio::test]
async fn an_entry_that_cannot_be_stored_does_not_keep_the_operator_from_being_ready() {
    let stage = Stage::new().await;
    let mut operator = killed_with_an_answer(&stage).await;
    let spent = fixtures::secret(&stage.client, &stage.namespace, "shop").await.expect("it is there");
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &json!({"immutable": true})).await;
    stage.shop("other", PLENTY).await;
    operator.restart();
    operator.wait_ready(SOON).await;
    let held = |status: &Value| has_condition(status, "Ready", "True", "TokenSecretImmutable");
    let status = stage.wait_status("shop", "its Secret immutable", held, SOON).await;
    assert!(has_condition(&status, "Refreshed", "False", "PersistFailed"), "{status:#}");
    assert_eq!(operator.probe("/livez").await, Some(200));
    // Others are served meanwhile.
    stage.request("other", "now").await;
    stage.wait_refreshed("other", "now", SOON).await;

    // What a person has to do, is told: delete the Secret, create it anew.
    stage.delete_secret("shop").await;
    let anew = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "shop", "namespace": stage.namespace},
        "data": spent.data,
    });
    fixtures::create(&stage.client, &anew).await;
    stage.wait_refreshed("shop", "now", LONG).await;
    stage.assert_refreshes("shop", 1).await;
}
