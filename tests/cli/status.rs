//! `status`: the table, the document, and the table that is drawn anew.

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use kube::api::{Patch, PatchParams};
use rustix::process::Signal;
use serde_json::{Value, json};
use tiktok_shop_testkit::fixtures;

use crate::stage::{Pty, SOON, Stage};

/// Covers: cli/status
#[tokio::test]
async fn the_table_has_the_soonest_expiry_first_and_says_what_to_do() {
    let stage = Stage::new().await;
    let _operator = stage.three().await;
    let mut times = Vec::new();
    for name in ["shop-1", "shop-3", "shop-2"] {
        let at = stage.simulator.shop(name).await.access_expires_at();
        times.push((at, DateTime::from_timestamp(at, 0).expect("a time").format("%Y-%m-%d %H:%M:%S UTC").to_string()));
    }
    let ran = stage.run("status").await;
    let rows: Vec<Vec<&str>> = ran
        .stdout
        .lines()
        .map(|line| line.split("   ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
        .collect();
    let head = ["NAME", "TEAM", "STATUS", "HOURS", "EXPIRES", "LAST ERROR", "WHAT TO DO"];
    assert_eq!(rows[0], head);
    let todo = "read the error; it is tried again";
    let error = rows[1][5];
    assert!(error.starts_with("TikTok answered with an error (") && error.chars().count() <= 60, "{ran:#?}");
    assert_eq!(rows[1], ["shop-1", "1", "RefreshFailing", "1.0", &times[0].1, error, todo]);
    let authorize = format!("kubectl tiktokshop authorize shop-3 -n {}", stage.namespace);
    let authorize = authorize.as_str();
    assert_eq!(rows[2], ["shop-3", "3", "RefreshTokenExpired", "1.0", &times[1].1, "-", authorize]);
    assert_eq!(rows[3], ["shop-2", "2", "TokenValid", "48.5", &times[2].1, "-", "-"]);
    assert_eq!((rows.len(), ran.stderr.as_str(), ran.code), (4, "", Some(0)));
    let vietnamese = stage.run("status shop-2 --lang vi").await;
    let head = vietnamese.stdout.lines().next().unwrap_or_default();
    let head: Vec<_> = head.split("   ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
    assert_eq!(head, ["TÊN", "TEAM", "TRẠNG THÁI", "GIỜ CÒN LẠI", "HẾT HẠN", "LỖI GẦN NHẤT", "CẦN LÀM GÌ"]);
    let columns = |line: &str| line.split_at(line.find("TEAM").unwrap_or(0)).0.chars().count();
    let (first, second) = vietnamese.stdout.split_once('\n').expect("two lines");
    assert_eq!(second.chars().nth(columns(first)), Some('2'), "columns stand under their heads: {vietnamese:#?}");
}

/// Covers: cli/status.output
#[tokio::test]
async fn the_document_has_what_scripts_need() {
    let stage = Stage::new().await;
    let _operator = stage.three().await;
    let ran = stage.run("status -o json").await;
    let document = ran.json();
    assert_eq!(
        document["summary"],
        json!({"total": 3, "ready": 3, "notReady": 0, "unknown": 0, "suspended": 0, "overdue": 0,
               "operatorSeemsToRun": true})
    );
    let first = &document["results"][0];
    assert_eq!(
        (&first["name"], &first["ready"], &first["reason"]),
        (&json!("shop-1"), &json!("True"), &json!("RefreshFailing"))
    );
    assert_eq!(first["lastError"]["code"], 12_345);
    assert!(first["nextRefreshTime"].is_string() && first["consecutiveFailures"] == 1, "{first:#}");
    let team = stage.run("status --team-id 2 -o json").await.json();
    assert_eq!(team["results"][0]["name"], "shop-2");
    assert_eq!(team["results"].as_array().map(Vec::len), Some(1));
}

/// Due long ago and never tried: as an operator that ended leaves it.
///
/// Covers: cli/status
#[tokio::test]
async fn an_operator_that_does_not_run_is_told() {
    let stage = Stage::new().await;
    stage.shop("shop", "1", 3_600).await;
    let api = fixtures::integrations(&stage.client, &stage.namespace);
    let stamp = |hours| (Utc::now() + Duration::hours(hours)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let status = json!({"status": {
        "observedGeneration": 1, "accessTokenExpiresAt": stamp(1), "nextRefreshTime": stamp(-1), "hoursUntilExpiry": 1,
    }});
    api.patch_status("shop", &PatchParams::default(), &Patch::Merge(&status)).await.expect("the admin may");
    let ran = stage.run("status").await;
    assert!(ran.stdout.contains("see that the operator runs"), "{ran:#?}");
    assert_eq!(
        ran.stderr,
        "kubectl-tiktokshop: 1 integration(s) are past the time at which the operator was to act on them, and it \
         never wrote a status there. See that it runs, that it leads, and that its --namespace and --watch-label-selector do \
         not leave them out\n"
    );
    assert_eq!(ran.code, Some(0));
    let document = stage.run("status -o json").await.json();
    assert_eq!(
        (&document["summary"]["operatorSeemsToRun"], &document["results"][0]["overdue"]),
        (&json!(false), &json!(true))
    );
}

/// Covers: cli/status.watch
#[tokio::test]
async fn a_watched_table_is_drawn_anew_at_each_change_until_ctrl_c() {
    let stage = Stage::new().await;
    stage.shop("shop", "1", 500_000).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_reason("shop", "TokenValid").await;
    let pty = Pty::run(&stage, "status --watch", &[("TERM", "xterm"), ("NO_COLOR", "1")]);
    pty.wait_for("TokenValid", SOON).await;
    let suspend: Value = json!({"spec": {"suspend": true}});
    fixtures::patch_integration(&stage.client, &stage.namespace, "shop", &suspend).await;
    pty.wait_for("Suspended", SOON).await;
    let args = ["delete", "ttsi", "shop", "-n", &stage.namespace];
    stage.plane.kubectl_ok(&args).await;
    pty.wait_for(&format!("no integration in namespace {} fits", stage.namespace), SOON).await;
    pty.interrupt();
    let (code, text) = pty.end(SOON).await;
    assert_eq!(code, Some(130));
    assert!(text.matches("\u{1b}[H").count() >= 3, "each drawing begins at the top: {text:?}");
}

/// Whatever ends it, the screen that was there before comes back.
///
/// Covers: cli/status.watch
#[tokio::test]
async fn a_watched_table_keeps_to_the_size_of_the_terminal_and_leaves_it_as_it_was() {
    let stage = Stage::new().await;
    let api = fixtures::integrations(&stage.client, &stage.namespace);
    for number in 10..50 {
        let name = format!("shop-{number}");
        fixtures::integration(&stage.namespace, &name, &name, "app").team("1").create(&stage.client).await;
        let at = (Utc::now() + Duration::hours(number)).to_rfc3339_opts(SecondsFormat::Secs, true);
        let status = json!({"status": {"observedGeneration": 1, "accessTokenExpiresAt": at, "nextRefreshTime": at}});
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.expect("the admin may");
    }
    let (open, close) = ("\u{1b}[?1049h\u{1b}[?25l", "\u{1b}[?25h\u{1b}[?1049l");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let pty = Pty::run_on(&stage, "status --watch", &[("TERM", "xterm"), ("NO_COLOR", "1")], (60, 12));
        pty.wait_for("and 33 more, which expire later", SOON).await;
        pty.signal(signal);
        let (ended, text) = pty.end(SOON).await;
        assert_eq!(ended, Some(code));
        assert!(text.starts_with(open) && text.ends_with(close), "{text:?}");
        let drawn = text.split("\u{1b}[H").nth(1).expect("it was drawn").split("\u{1b}[J").next().expect("a drawing");
        let lines: Vec<_> = drawn.split("\r\n").map(|line| line.trim_start_matches("\u{1b}[K")).collect();
        assert!(lines.len() <= 12, "no more lines than the terminal has: {lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 60), "no line is wider than the terminal: {lines:#?}");
        let names: Vec<_> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        let soonest: Vec<_> = (10..17).map(|number| format!("shop-{number}")).collect();
        assert_eq!(names[3..10], soonest, "the soonest expiry is on top: {lines:#?}");
    }
}
