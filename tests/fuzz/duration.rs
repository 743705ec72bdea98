//! Durations: `spec.refreshBefore` and `--refresh-before`. The input is the text.

use std::time::Duration;

use tiktok_shop_operator::api::{
    REFRESH_BEFORE_MAX, REFRESH_BEFORE_MAX_PERCENT, REFRESH_BEFORE_MIN, RefreshBefore, TikTokShopIntegrationSpec,
    parse_go_duration,
};
use tiktok_shop_operator::settings::{Environment, RunArgs, Settings};

/// The longest text that the schema and the flag take, in bytes.
const LONGEST_TEXT: usize = 32;

/// Spec and flag cut off fractions at different digits: less than this, for all the parts of 32 bytes together.
const ROUNDING: Duration = Duration::from_nanos(32);

/// The same text means the same in a spec and as a flag, and what is taken is within the bounds.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let read = parse_go_duration(text);
    if let Ok(duration) = read {
        let nanos = duration.as_nanos();
        assert!(i64::try_from(nanos).is_ok(), "Go could not hold {nanos} ns");
        assert_eq!(parse_go_duration(&format!("{nanos}ns")), Ok(duration), "written in nanoseconds it is another");
        assert_eq!(
            parse_go_duration(&format!("0h{text}")).is_ok(),
            text != "0",
            "a part of nothing makes a difference"
        );
    }

    let spec = match spec_with(text).refresh_before() {
        Some(RefreshBefore::Percent(percent)) => {
            assert_eq!(format!("{percent}%"), text, "a share is written in one way");
            assert!((1..=REFRESH_BEFORE_MAX_PERCENT).contains(&percent));
            return;
        }
        Some(RefreshBefore::Duration(duration)) => Some(duration),
        None => None,
    };
    let is_in_bounds = |duration: &Duration| (REFRESH_BEFORE_MIN..=REFRESH_BEFORE_MAX).contains(duration);
    assert_eq!(spec, read.ok().filter(is_in_bounds));

    // A flag's white space is trimmed; a spec's is refused by the schema.
    if text.len() > LONGEST_TEXT || text.trim() != text {
        return;
    }
    let flag = as_flag(text);
    match (spec, flag) {
        (None, None) => {}
        (Some(spec), Some(flag)) => {
            assert!(is_in_bounds(&flag));
            assert!(spec.abs_diff(flag) < ROUNDING, "{spec:?} in a spec, {flag:?} as a flag");
        }
        (Some(one), None) | (None, Some(one)) => assert!(
            one.abs_diff(REFRESH_BEFORE_MIN).min(one.abs_diff(REFRESH_BEFORE_MAX)) < ROUNDING,
            "{spec:?} in a spec, {flag:?} as a flag"
        ),
    }
}

fn spec_with(refresh_before: &str) -> TikTokShopIntegrationSpec {
    serde_json::from_value(serde_json::json!({
        "appCredentialsSecretRef": {"name": "app"},
        "tokenSecretRef": {"name": "tokens"},
        "refreshBefore": refresh_before,
    }))
    .expect("any text can stand in a spec that no schema has seen")
}

fn as_flag(text: &str) -> Option<Duration> {
    let args = RunArgs {
        refresh_before: Some(text.to_owned().into()),
        leader_elect: Some("false".to_owned().into()),
        ..RunArgs::default()
    };
    match Settings::validate(&args, &Environment::default()) {
        Ok(settings) => Some(settings.refresh_before),
        Err(error) => {
            let error = error.to_string();
            super::assert_is_a_plain_line(&error, 512);
            assert!(error.starts_with("--refresh-before "), "another setting is blamed: {error}");
            None
        }
    }
}
