//! How `refresh` asks and waits: what is written, on which condition, and what it takes for an answer.

use serde_json::{Value, json};
use tiktok_shop_testkit::{
    fixtures::{self, integration},
    poll,
    process::Signal,
    proxy::Seen,
    simulator::{Action, Fault, Point},
};

use crate::stage::{Pty, SOON, Stage, program, run};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

fn is_write(seen: &Seen) -> bool {
    seen.method == "PATCH"
}

/// Covers: cli/refresh.dry-run
#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_writes_nothing() {
    let stage = Stage::new().await;
    let _operator = stage.three().await;
    let ran = stage.run("refresh --dry-run").await;
    let expires = stage.simulator.shop("shop-1").await.access_expires_at();
    let expires = chrono::DateTime::from_timestamp(expires, 0).expect("a time").format("%Y-%m-%d %H:%M:%S UTC");
    let ns = &stage.namespace;
    let expected = format!(
        "🔄 Refreshing TikTok Shop tokens (dry run: nothing is changed)...\n📊 Found 3 integration(s)\n\n📋 Results:\n   \
         🔎 {ns}/shop-1 (team 1): would be refreshed - expires {expires}\n   \
         ⏭️  {ns}/shop-2 (team 2): skipped - 48.5 hours until expiry\n   \
         ❌ {ns}/shop-3 (team 3): failed - the refresh token has expired\n\n\
         📈 Summary:\n   🔎 Would be refreshed: 1\n   ⏭️  Skipped: 1\n   ❌ Failed: 1\n"
    );
    assert_eq!(ran.stdout, expected);
    let forced = stage.run("refresh --dry-run --force -o json").await.json();
    let outcomes: Vec<_> = forced["results"].as_array().expect("results").iter().map(|r| &r["outcome"]).collect();
    assert_eq!(outcomes, ["would-refresh", "would-refresh", "failed"]);
    // The API server's own word, also of what it refused.
    let audit = stage.plane.audit();
    let requests: Vec<_> = audit.iter().filter(|entry| entry.user.username == stage.user()).collect();
    assert!(!requests.is_empty(), "the audit log has this person's requests");
    assert!(
        requests.iter().all(|entry| entry.what() == "list tiktokshopintegrations" && entry.code() == 200),
        "a dry run did more than to list: {:?}",
        stage.plane.request_counts(&stage.user())
    );
}

/// One list, one write, one watch; whatever the hours left.
///
/// Covers: cli/refresh.force, cli/refresh.names
#[tokio::test]
async fn forced_by_name_it_is_refreshed_whatever_the_hours_left_with_three_requests_and_no_secret_read() {
    let stage = Stage::new().await;
    stage.shop("named", "1", 5 * DAY).await;
    stage.shop("other", "1", 5 * DAY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    for name in ["named", "other"] {
        stage.wait_reason(name, "TokenValid").await;
    }
    let ran = stage.run("refresh named --force -o json").await;
    assert_eq!((ran.code, &ran.json()["results"][0]["outcome"]), (Some(0), &json!("refreshed")), "{ran:#?}");
    assert_eq!(stage.simulator.shop("named").await.counters.refreshes, 1);
    assert_eq!(stage.simulator.shop("other").await.counters.refreshes, 0);
    let value = stage.request_of("named").await.expect("it was asked for");
    let (time, rest) = value.split_at(20);
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok() && rest.len() == 9, "{value}");
    let counts = stage.plane.request_counts(&stage.user());
    let expected = ["list", "patch", "watch"].map(|verb| (format!("{verb} tiktokshopintegrations"), 1));
    assert_eq!(counts, expected.into(), "the requests of the person");
}

/// Covers: cli/refresh
#[tokio::test]
async fn an_integration_that_changes_under_its_hands_is_judged_again() {
    let stage = Stage::new().await;
    stage.shop("shop", "1", 5 * DAY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_reason("shop", "TokenValid").await;
    // What is still to be refreshed after a change of no meaning is asked for on the new version…
    let hold = stage.proxy.on("the write", is_write).once().hold();
    let args = stage.args("refresh --force -o json");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = program(&stage.kubeconfig, &args, &[]).spawn().expect("it starts");
    hold.wait_held(SOON).await;
    let patch = json!({"metadata": {"labels": {"touched": "yes"}}});
    fixtures::patch_integration(&stage.client, &stage.namespace, "shop", &patch).await;
    hold.release();
    child.wait_exit(SOON).await.expect("it ends");
    let document: Value = serde_json::from_str(&child.stdout()).expect("JSON");
    assert_eq!(document["results"][0]["outcome"], "refreshed", "{document:#}");
    let writes: Vec<_> = stage.proxy.requests().into_iter().filter(is_write).map(|seen| seen.status).collect();
    assert_eq!(writes, [Some(409), Some(200)]);
    // …and what was suspended meanwhile is not.
    let before = stage.request_of("shop").await;
    let hold = stage.proxy.on("the write", is_write).once().hold();
    let child = program(&stage.kubeconfig, &args, &[]).spawn().expect("it starts");
    hold.wait_held(SOON).await;
    fixtures::patch_integration(&stage.client, &stage.namespace, "shop", &json!({"spec": {"suspend": true}})).await;
    hold.release();
    let status = child.wait_exit(SOON).await.expect("it ends");
    let document: Value = serde_json::from_str(&child.stdout()).expect("JSON");
    let result = &document["results"][0];
    assert_eq!((&result["outcome"], &result["reason"]), (&json!("skipped"), &json!("Suspended")), "{document:#}");
    assert_eq!(status.code(), Some(0));
    assert_eq!(stage.request_of("shop").await, before, "nothing was asked for");
    assert_eq!(stage.simulator.shop("shop").await.counters.refreshes, 1);
}

/// A failure is a result, whether TikTok answered or not, and the first one: not at the end of the patience.
///
/// Covers: cli/refresh
#[tokio::test]
async fn a_refresh_that_fails_is_told_with_its_reason() {
    let stage = Stage::new().await;
    for name in ["refused", "odd", "silent"] {
        stage.shop(name, "1", 5 * DAY).await;
    }
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    for name in ["refused", "odd", "silent"] {
        stage.wait_reason(name, "TokenValid").await;
    }
    stage.simulator.deauthorize("refused").await;
    stage.simulator.add_fault(Fault::always(Action::code_saying(12_345, "try later")).shop("odd")).await;
    stage.simulator.add_fault(Fault::always(Action::http(500)).shop("silent")).await;
    let ran = stage.run("refresh --force --timeout 60s").await;
    let ns = &stage.namespace;
    let lines: Vec<_> = ran.stdout.lines().filter(|line| line.contains(&format!("{ns}/"))).collect();
    assert!(
        lines.len() == 3
            && lines[0].starts_with(&format!("   ❌ {ns}/odd (team 1): failed - TikTok Shop answered with an error ("))
            && lines[0].contains("12345")
            && lines[1] == format!("   ❌ {ns}/refused (team 1): failed - TikTok Shop refused the refresh token")
            && lines[2].starts_with(&format!("   ❌ {ns}/silent (team 1): failed - ")),
        "{ran:#?}"
    );
    assert_eq!(ran.code, Some(1));
    // Not forced, what a person must mend is told at once and not asked for.
    let before = stage.request_of("refused").await;
    let ran = stage.run("refresh refused").await;
    assert!(ran.stdout.contains("failed - TikTok Shop refused the refresh token"), "{ran:#?}");
    assert_eq!(stage.request_of("refused").await, before);
}

/// Covers: cli/refresh
#[tokio::test]
async fn a_watch_that_is_cut_or_has_expired_is_taken_up_again() {
    let stage = Stage::new().await;
    stage.shop("shop", "1", 5 * DAY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_reason("shop", "TokenValid").await;
    operator.pause();
    let args = stage.args("refresh --force -o json");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = program(&stage.kubeconfig, &args, &[]).spawn().expect("it starts");
    let open = poll::until(SOON, async || (stage.proxy.open_watches() == 1).then_some(())).await;
    open.expect("it watches");
    stage.proxy.wait_for_request(|seen| is_write(seen) && seen.status == Some(200), SOON).await;
    // The next watch is told that it comes too late: only a new list helps.
    let expired = stage.proxy.on("the next watch", Seen::is_watch).once();
    let answer = json!({"type": "ERROR", "object": {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version: 1 (2)",
    }});
    let expired = expired.respond(200, &[("content-type", "application/json")], format!("{answer}\n"));
    stage.proxy.cut_watches().await;
    stage.proxy.wait_for_requests(2, |seen| seen.method == "GET" && !seen.is_watch(), SOON).await;
    assert_eq!(expired.hits(), 1);
    operator.resume();
    let status = child.wait_exit(SOON).await.expect("it ends");
    let document: Value = serde_json::from_str(&child.stdout()).expect("JSON");
    assert_eq!((status.code(), &document["results"][0]["outcome"]), (Some(0), &json!("refreshed")), "{document:#}");
}

/// Covers: cli/selector, cli/all-namespaces, cli/team-id
#[tokio::test]
async fn what_fits_is_selected_by_label_and_team_in_one_namespace_or_all() {
    let (here, there) = (Stage::new().await, Stage::new().await);
    for (stage, name, team, tier) in [
        (&here, "one", "1", "gold"),
        (&here, "two", "2", "gold"),
        (&here, "three", "1", "tin"),
        (&there, "four", "1", "gold"),
    ] {
        let label = format!("{tier}-{}", here.namespace);
        let shop = integration(&stage.namespace, name, name, "app").team(team).label("tier", &label);
        shop.create(&stage.client).await;
    }
    let gold = format!("tier=gold-{}", here.namespace);
    let admin = here.plane.admin_kubeconfig();
    for (line, expected) in [
        (format!("-n {} -l {gold}", here.namespace), vec!["one", "two"]),
        (format!("-n {} --team-id 1", here.namespace), vec!["one", "three"]),
        (format!("-n {} one three", here.namespace), vec!["one", "three"]),
        (format!("-n {} one three two --team-id 1", here.namespace), vec!["one", "three"]),
        (format!("-A -l {gold} --team-id 1"), vec!["four", "one"]),
    ] {
        let line = format!("refresh --dry-run -o json {line}");
        let ran = run(&admin, &line.split(' ').collect::<Vec<_>>(), &[]).await;
        let document = ran.json();
        let results = document["results"].as_array().expect("results");
        let mut names: Vec<_> = results.iter().filter_map(|result| result["name"].as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, expected, "{line}");
        let left_out = if line.contains(" two") {
            format!("kubectl-tiktokshop: two in namespace {} is not of team 1 and is left out\n", here.namespace)
        } else {
            String::new()
        };
        assert_eq!((ran.stderr, ran.code), (left_out, Some(0)), "{line}");
    }
    let before = format!("-n {} --context test status one -o json", here.namespace);
    let ran = run(&admin, &before.split(' ').collect::<Vec<_>>(), &[]).await;
    assert_eq!(ran.json()["results"][0]["name"], "one", "flags before the command are flags of it");
    let nobody = format!("status two --team-id 1 -n {}", here.namespace);
    let ran = run(&admin, &nobody.split(' ').collect::<Vec<_>>(), &[]).await;
    assert!(ran.stdout.is_empty() && ran.stderr.contains("two in namespace"), "{ran:#?}");
}

/// The operator answers the last request alone: whoever asked before is answered with it.
///
/// Covers: cli/refresh
#[tokio::test]
async fn where_somebody_asks_after_it_their_answer_is_its_own() {
    let stage = Stage::new().await;
    stage.shop("shop", "1", 5 * DAY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_reason("shop", "TokenValid").await;
    // What stood there before is no request of now, and not taken for one.
    fixtures::request_refresh(&stage.client, &stage.namespace, "shop", "of last week").await;
    let handled = |status: &Value| status["lastHandledRefreshRequest"] == "of last week";
    fixtures::wait_for_status(&stage.client, &stage.namespace, "shop", "handled", handled, SOON).await;
    operator.pause();
    let args = stage.args("refresh --force -o json");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = program(&stage.kubeconfig, &args, &[]).spawn().expect("it starts");
    stage.proxy.wait_for_request(|seen| is_write(seen) && seen.status == Some(200), SOON).await;
    fixtures::request_refresh(&stage.client, &stage.namespace, "shop", "of another").await;
    assert!(child.is_running(), "it waits: nothing was refreshed yet");
    operator.resume();
    let status = child.wait_exit(SOON).await.expect("it ends");
    let document: Value = serde_json::from_str(&child.stdout()).expect("JSON");
    assert_eq!((status.code(), &document["results"][0]["outcome"]), (Some(0), &json!("refreshed")), "{document:#}");
    // Once for last week's, and once or twice now: the operator may see both requests or the last alone.
    let refreshes = stage.simulator.shop("shop").await.counters.refreshes;
    assert!((2..=3).contains(&refreshes), "{refreshes} refreshes");
}

/// Covers: cli/exit-130
#[tokio::test]
async fn ctrl_c_stops_the_waiting_and_says_what_is_under_way() {
    let stage = Stage::new().await;
    stage.shop("shop", "1", HOUR).await;
    for (line, output) in [("refresh", "text"), ("refresh -o json", "json")] {
        stage.proxy.clear();
        let args = stage.args(line);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let child = program(&stage.kubeconfig, &args, &[]).spawn().expect("it starts");
        stage.proxy.wait_for_request(|seen| is_write(seen) && seen.status == Some(200), SOON).await;
        child.signal(Signal::INT);
        let status = child.wait_exit(SOON).await.expect("it ends");
        assert_eq!(status.code(), Some(130));
        let ns = &stage.namespace;
        assert_eq!(
            child.stderr(),
            format!(
                "kubectl-tiktokshop: stopped waiting; 1 integration(s) still under way: {ns}/shop. The operator goes on \
                 with them: kubectl tiktokshop status shows how\n"
            )
        );
        if output == "json" {
            let document: Value = serde_json::from_str(&child.stdout()).expect("JSON");
            let result = &document["results"][0];
            assert_eq!((&result["outcome"], &result["reason"]), (&json!("timeout"), &json!("Interrupted")));
        } else {
            assert!(child.stdout().contains("⏳ Timed out: 1"), "{}", child.stdout());
        }
    }
}

/// Covers: cli/refresh.timeout
#[tokio::test]
async fn without_an_operator_it_says_so_and_does_not_hang() {
    let stage = Stage::new().await;
    stage.shop("shop", "1", HOUR).await;
    let ran = stage.run("refresh --timeout 1s").await;
    let ns = &stage.namespace;
    assert!(
        ran.stdout.contains(&format!("   ⏳ {ns}/shop (team 1): timed out - asked 1 s ago, and no answer came\n")),
        "{ran:#?}"
    );
    assert_eq!(
        ran.stderr,
        "kubectl-tiktokshop: 1 request(s) had no answer within 1 s from the operator, and it never wrote a status there. See \
         that it runs, that it leads, and that its --namespace and --watch-label-selector do not leave them out\n"
    );
    assert_eq!(ran.code, Some(1));
    let result = stage.run("refresh --timeout 1s -o json").await.json()["results"][0].clone();
    assert_eq!((&result["outcome"], &result["reason"]), (&json!("timeout"), &json!("NoAnswer")));
}

/// What is not due was asked for, and TikTok is slow; the operator is at work all the same, and nothing else is said.
///
/// Covers: cli/refresh.timeout
#[tokio::test]
async fn an_operator_that_is_at_work_is_not_said_to_be_away() {
    let stage = Stage::new().await;
    for name in ["slow", "other"] {
        stage.shop(name, "1", 5 * DAY).await;
    }
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    for name in ["slow", "other"] {
        stage.wait_reason(name, "TokenValid").await;
    }
    stage.simulator.add_fault(Fault::once(Action::hang(Point::BeforeProcessing)).shop("slow")).await;
    let args = stage.args("refresh slow --force --timeout 6s");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let child = program(&stage.kubeconfig, &args, &[]).spawn().expect("it starts");
    stage.proxy.wait_for_request(|seen| is_write(seen) && seen.status == Some(200), SOON).await;
    // Something that the operator writes a status for while the other waits.
    fixtures::patch_integration(&stage.client, &stage.namespace, "other", &json!({"spec": {"suspend": true}})).await;
    stage.wait_reason("other", "Suspended").await;
    let status = child.wait_exit(SOON).await.expect("it ends");
    let said = child.stderr();
    let start = "kubectl-tiktokshop: 1 request(s) had no answer within 6 s from the operator, but it is at work: it wrote a status at 20";
    assert!(said.starts_with(start) && said.lines().count() == 1, "{said}");
    assert_eq!(status.code(), Some(1));
}

/// Where nothing can be heard, nothing is said of the operator.
///
/// Covers: cli/refresh.timeout, cli/unreachable
#[tokio::test]
async fn an_api_server_that_goes_away_while_it_waits_is_told() {
    let stage = Stage::new().await;
    stage.shop("shop", "1", HOUR).await;
    stage.proxy.on("every watch", Seen::is_watch).cut_before();
    let ran = stage.run("refresh --timeout 2s -o json").await;
    let result = ran.json()["results"][0].clone();
    assert_eq!((&result["outcome"], &result["reason"]), (&json!("timeout"), &json!("WatchFailed")), "{ran:#?}");
    let start = format!("kubectl-tiktokshop: the cluster at {} can't be reached (", stage.proxy.url());
    assert!(ran.stderr.starts_with(&start) && ran.stderr.lines().count() == 1, "{ran:#?}");
    assert_eq!(ran.code, Some(1));
}

/// What the operator did can't be asked: that is not held against it.
///
/// Covers: cli/refresh.timeout
#[tokio::test]
async fn an_api_server_that_hangs_at_the_end_of_the_wait_is_told_and_the_operator_is_not_blamed() {
    let stage = Stage::new().await;
    stage.shop("shop", "1", 5 * DAY).await;
    let operator = stage.operator().start();
    stage.wait_reason("shop", "TokenValid").await;
    operator.sigterm(SOON).await;
    let last_word =
        stage.proxy.on("the last word", |seen: &Seen| seen.accept.contains("PartialObjectMetadataList")).hold();
    let ran = stage.run("refresh --force --timeout 1s -o json").await;
    assert_eq!(last_word.hits(), 1);
    let result = ran.json()["results"][0].clone();
    assert_eq!((&result["outcome"], &result["reason"]), (&json!("timeout"), &json!("WatchFailed")), "{ran:#?}");
    let expected =
        "kubectl-tiktokshop: the API server did not answer within 5 s: check the network (VPN, proxy), and try again\n";
    assert_eq!((ran.stderr.as_str(), ran.code), (expected, Some(1)));
}

/// Covers: cli/progress
#[tokio::test]
async fn on_a_terminal_progress_is_drawn_and_removed_and_results_are_in_colour() {
    let stage = Stage::new().await;
    stage.shop("first", "1", 5 * DAY).await;
    stage.shop("second", "1", 5 * DAY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    for name in ["first", "second"] {
        stage.wait_reason(name, "TokenValid").await;
    }
    let ns = &stage.namespace;
    for (variables, colours, progress, emoji) in [
        (&[("TERM", "xterm")][..], true, true, true),
        (&[("TERM", "xterm"), ("NO_COLOR", "1")], false, true, true),
        (&[("TERM", "dumb")], false, false, false),
    ] {
        operator.pause();
        let pty = Pty::run(&stage, "refresh --force", variables);
        if progress {
            pty.wait_for("⏳ 0 of 2 done", SOON).await;
        } else {
            stage.proxy.wait_for_request(|seen| is_write(seen) && seen.status == Some(200), SOON).await;
        }
        operator.resume();
        let (code, text) = pty.end(SOON).await;
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(text.contains("\u{1b}[32mrefreshed - expires "), colours, "{variables:?}: {text:?}");
        assert_eq!(text.contains("\r\u{1b}[K"), progress, "{variables:?}: {text:?}");
        assert_eq!(text.contains("1 of 2 done, "), progress, "{variables:?}: {text:?}");
        assert_eq!(text.contains("✅"), emoji, "{variables:?}: {text:?}");
        assert!(text.contains(&format!("{ns}/first (team 1): ")), "{text:?}");
        stage.proxy.clear();
    }
}
