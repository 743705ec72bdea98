//! Prometheus' own judge of rules and metrics, as `tests/tools/promtool` pins it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command, sync::OnceCell};

/// The alert rules that the chart ships.
pub fn rules_file() -> PathBuf {
    chart_file("alerts.yaml")
}

/// A file that the chart ships as it is.
pub fn chart_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/tiktok-shop-operator/files").join(name)
}

/// One rule of the shipped file.
#[derive(Debug, serde::Deserialize)]
pub struct Rule {
    /// Of a recording rule: what it is called.
    pub record: Option<String>,
    /// Of an alert: what it is called.
    pub alert: Option<String>,
    pub expr: String,
    #[serde(rename = "for")]
    pub holds: Option<String>,
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

impl Rule {
    /// Minutes for which its expression must hold before it fires.
    pub fn minutes(&self) -> usize {
        let holds = self.holds.as_deref().unwrap_or("0m");
        let (number, unit) = holds.split_at(holds.len() - 1);
        let factor = if unit == "h" { 60 } else { 1 };
        number.parse::<usize>().unwrap_or_else(|_| panic!("not a time in minutes or hours: {holds}")) * factor
    }
}

/// The rules of the shipped file, in order.
pub fn rules() -> Vec<Rule> {
    #[derive(serde::Deserialize)]
    struct Document {
        groups: Vec<Group>,
    }
    #[derive(serde::Deserialize)]
    struct Group {
        rules: Vec<Rule>,
    }
    let text = std::fs::read_to_string(rules_file()).expect("the alert rules are in the tree");
    let document: Document = serde_saphyr::from_str(&text).expect("they are YAML");
    document.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// Runs it; panics with all that it says where it is not content.
pub async fn run(args: &[&str], stdin: &str) {
    let mut child = Command::new(binary().await)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("promtool can be started");
    let mut input = child.stdin.take().expect("it is piped");
    // It may judge, and end, without reading to the end.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let output = child.wait_with_output().await.expect("promtool ends");
    assert!(
        output.status.success(),
        "promtool {args:?} is not content:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs one of its commands on a document; JSON is YAML, too.
pub async fn judge(command: [&str; 2], document: &Value) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("document.yaml");
    std::fs::write(&file, document.to_string()).expect("it can be written to");
    let file = file.to_str().expect("temporary folders have plain names");
    run(&[command[0], command[1], file], "").await;
}

async fn binary() -> &'static Path {
    static BINARY: OnceCell<PathBuf> = OnceCell::const_new();
    BINARY
        .get_or_init(async || {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/tool.sh");
            let mut command = Command::new(&script);
            let output = command.arg("promtool").stdin(Stdio::null()).stderr(Stdio::inherit()).output().await;
            let output = output.unwrap_or_else(|error| panic!("failed to run {}: {error}", script.display()));
            assert!(output.status.success(), "{} ended with {}: see above", script.display(), output.status);
            PathBuf::from(String::from_utf8_lossy(&output.stdout).lines().last().expect("it prints a path"))
        })
        .await
}
