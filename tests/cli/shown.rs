//! What `refresh` prints, to the letter.

use std::path::Path;

use chrono::{DateTime, FixedOffset, Utc};
use serde_json::json;

use crate::stage::{SOON, Stage, run};

fn utc(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("a time of our days")
}

/// The example of the contract: one refreshed, one skipped at 48.5 hours, one whose refresh token has expired.
///
/// Covers: cli/refresh, cli/refresh.lang
#[tokio::test]
async fn three_integrations_are_shown_in_english_as_the_contract_has_it() {
    let stage = Stage::new().await;
    let _operator = stage.three().await;
    let ran = stage.run("refresh").await;
    let expires = utc(stage.simulator.shop("shop-1").await.access_expires_at()).format("%Y-%m-%d %H:%M:%S UTC");
    let ns = &stage.namespace;
    let expected = format!(
        "🔄 Refreshing TikTok Shop tokens...\n\
         📊 Found 3 integration(s)\n\
         \n\
         📋 Results:\n\
         \u{20}  ✅ {ns}/shop-1 (team 1): refreshed - expires {expires}\n\
         \u{20}  ⏭️  {ns}/shop-2 (team 2): skipped - 48.5 hours until expiry\n\
         \u{20}  ❌ {ns}/shop-3 (team 3): failed - the refresh token has expired\n\
         \n\
         📈 Summary:\n\
         \u{20}  ✅ Refreshed: 1\n\
         \u{20}  ⏭️  Skipped: 1\n\
         \u{20}  ❌ Failed: 1\n"
    );
    assert_eq!(ran.stdout, expected);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""), "something failed, and nothing else is to be said");
    assert_eq!(stage.simulator.shop("shop-1").await.counters.refreshes, 1, "it was refreshed once");
    assert_eq!(stage.request_of("shop-2").await, None, "what is not due is not asked for");
    assert_eq!(stage.request_of("shop-3").await, None, "what can't be refreshed is not asked for");
}

/// Covers: cli/refresh, cli/refresh.lang
#[tokio::test]
async fn three_integrations_are_shown_in_vietnamese_as_the_old_command_did() {
    let stage = Stage::new().await;
    let _operator = stage.three().await;
    let ran = stage.run_with("refresh", &[("LANG", "vi_VN.UTF-8"), ("TZ", "Asia/Ho_Chi_Minh")]).await;
    let zone = FixedOffset::east_opt(7 * 3_600).expect("an offset");
    let expires = utc(stage.simulator.shop("shop-1").await.access_expires_at()).with_timezone(&zone);
    let expires = expires.format("%d/%m/%Y %H:%M:%S");
    let ns = &stage.namespace;
    let expected = format!(
        "🔄 Bắt đầu refresh TikTok Shop tokens...\n\
         📊 Tìm thấy 3 integration(s)\n\
         \n\
         📋 Chi tiết kết quả:\n\
         \u{20}  ✅ Integration {ns}/shop-1 (Team 1): Refresh thành công - Hết hạn: {expires}\n\
         \u{20}  ⏭️  Integration {ns}/shop-2 (Team 2): Bỏ qua - Token còn 48.5 giờ mới hết hạn\n\
         \u{20}  ❌ Integration {ns}/shop-3 (Team 3): Lỗi - Refresh token đã hết hạn\n\
         \n\
         📈 Kết quả tổng kết:\n\
         \u{20}  ✅ Đã refresh: 1\n\
         \u{20}  ⏭️  Đã bỏ qua: 1\n\
         \u{20}  ❌ Lỗi: 1\n"
    );
    assert_eq!(ran.stdout, expected);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
}

/// Covers: cli/refresh.output
#[tokio::test]
async fn json_is_one_document_also_where_some_fail() {
    let stage = Stage::new().await;
    let _operator = stage.three().await;
    let ran = stage.run("refresh -o json").await;
    let stamp = |seconds| utc(seconds).format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut expiries = Vec::new();
    for name in ["shop-1", "shop-2", "shop-3"] {
        expiries.push(stage.simulator.shop(name).await.access_expires_at());
    }
    let refreshed = utc(expiries[0]).format("%Y-%m-%d %H:%M:%S UTC");
    let document = ran.json();
    assert_eq!(
        document,
        json!({
            "results": [
                {
                    "namespace": stage.namespace, "name": "shop-1", "teamId": "1", "outcome": "refreshed",
                    "message": format!("refreshed - expires {refreshed}"), "reason": "Refreshed",
                    "accessTokenExpiresAt": stamp(expiries[0]), "hoursUntilExpiry": 168.0,
                },
                {
                    "namespace": stage.namespace, "name": "shop-2", "teamId": "2", "outcome": "skipped",
                    "message": "skipped - 48.5 hours until expiry", "reason": "NotDue",
                    "accessTokenExpiresAt": stamp(expiries[1]), "hoursUntilExpiry": 48.5,
                },
                {
                    "namespace": stage.namespace, "name": "shop-3", "teamId": "3", "outcome": "failed",
                    "message": "failed - the refresh token has expired", "reason": "RefreshTokenExpired",
                    "accessTokenExpiresAt": stamp(expiries[2]), "hoursUntilExpiry": 1.0,
                },
            ],
            "summary": {"total": 3, "refreshed": 1, "skipped": 1, "failed": 1, "timeout": 0, "wouldRefresh": 0},
        })
    );
    let keys = ["namespace", "name", "teamId", "outcome", "message", "reason", "accessTokenExpiresAt"];
    let places: Vec<_> = keys.map(|key| ran.stdout.find(&format!("\"{key}\":"))).into();
    assert!(places.is_sorted() && places[0].is_some(), "the keys are in the documented order: {}", ran.stdout);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
}

/// Covers: cli/no-emoji
#[tokio::test]
async fn without_emoji_words_stand_in_their_place_and_the_language_of_the_flag_counts() {
    let stage = Stage::new().await;
    stage.shop("shop-2", "2", 175_000).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_reason("shop-2", "TokenValid").await;
    let plain = stage.run_with("refresh --no-emoji --lang en", &[("LC_ALL", "vi_VN.UTF-8")]).await;
    let ns = &stage.namespace;
    let expected = format!(
        "Refreshing TikTok Shop tokens...\nFound 1 integration(s)\n\nResults:\n   \
         [skip] {ns}/shop-2 (team 2): skipped - 48.6 hours until expiry\n\n\
         Summary:\n   [ok] Refreshed: 0\n   [skip] Skipped: 1\n   [fail] Failed: 0\n"
    );
    assert_eq!((plain.stdout.as_str(), plain.code), (expected.as_str(), Some(0)));
    let dumb = stage.run_with("refresh", &[("TERM", "dumb")]).await;
    assert_eq!(dumb.stdout, expected, "a dumb terminal gets no emoji");
}

#[tokio::test]
async fn the_version_is_shown_without_a_cluster() {
    let ran = run(Path::new("/none"), &["--version"], &[]).await;
    let expected = format!("kubectl-tiktokshop {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.code), (expected.as_str(), "", Some(0)));
}
