//! Annotations and the objects that carry them, as the API server hands them out. The input is an annotation's value,
//! and also the JSON of a whole object.

use kube::Resource as _;
use tiktok_shop_operator::api::{names, timestamp};
use tiktok_shop_operator::cluster::{Secret, WatchedIntegration, WatchedSecret};
use tiktok_shop_operator::tokens::Digest;
use tiktok_shop_operator::transaction::{Claim, Rejection};

/// The longest that anybody's claim is respected, in seconds.
const LONGEST_CLAIM: u64 = 3_600;

/// Where `kubectl apply` leaves a Secret's values in clear.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What no text may show, where an object has it in a value.
const PLANTED: &str = "hunter2";

/// Whatever stands in an annotation, reading it ends, and what is read is written alike.
pub fn check(input: &[u8]) {
    objects(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    claim(text);
    rejection(text);
    let seconds = chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp());
    assert_eq!(timestamp::seconds(text), seconds, "a time is read in another way than chrono has it");
    if let Some(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text, "another text for the same digest");
    }
    values(text);
}

fn claim(text: &str) {
    let Some(claim) = Claim::parse(text) else { return };
    assert!(text.len() <= 4_096, "a claim of {} bytes is read", text.len());
    let written = claim.to_text();
    // Escapes may make it longer than what is read again.
    if written.len() <= 4_096 {
        assert_eq!(Claim::parse(&written).as_ref(), Some(&claim), "it is written as {written}");
    }
    assert!(claim.life().as_secs() <= LONGEST_CLAIM);
    assert!(claim.holder.ends_with(claim.process()));
    if let Some(from) = claim.from_digest() {
        assert_eq!(from.to_string(), claim.from);
    }
}

fn rejection(text: &str) {
    let token = Digest::from_bytes([0; 16]);
    let Some(rejection) = Rejection::parse(text, token) else { return };
    assert!(text.len() <= 4_096, "a note of {} bytes is read", text.len());
    assert_eq!(rejection.token, token.to_string(), "it is about another token");
    let written = rejection.to_text();
    // Escapes may make it longer than what is read again.
    if written.len() <= 4_096 {
        assert_eq!(Rejection::parse(&written, token).as_ref(), Some(&rejection), "it is written as {written}");
    }
}

/// The text as the value of every annotation of a Secret that is watched.
fn values(text: &str) {
    let own = names::ANNOTATIONS;
    let all = own.iter().chain([&LAST_APPLIED]).map(|name| ((*name).to_owned(), text.into()));
    let all: serde_json::Map<_, _> = all.collect();
    let secret = serde_json::json!({"metadata": {"name": "tokens", "annotations": all}});
    let secret: WatchedSecret = serde_json::from_value(secret).expect("any text can stand in an annotation");
    let kept = secret.meta().annotations.clone().unwrap_or_default();
    assert_eq!(kept.len(), own.len(), "an annotation of others is kept, or one of ours is lost");
    assert!(own.iter().all(|name| kept.get(*name).is_some_and(|value| value == text)));
}

/// The input as an object that is read or watched.
fn objects(input: &[u8]) {
    match Secret::parse(input) {
        Ok(secret) => {
            let Secret { version, annotations, .. } = &secret;
            let shown = version.to_string();
            assert!(!matches!(shown.as_str(), "" | "0"), "a write on condition of it would have no condition");
            assert!(
                annotations.keys().all(|name| name.starts_with(names::PREFIX)),
                "others' are kept: {annotations:?}"
            );
            for key in secret.data.keys() {
                assert_ne!(secret.last_writer(key), Some(names::FIELD_MANAGER), "its own write is another's");
            }
        }
        Err(error) => assert!(!format!("{error} {error:?}").contains(PLANTED), "the error shows a value: {error:?}"),
    }
    if let Ok(secret) = serde_json::from_slice::<WatchedSecret>(input) {
        let kept = secret.meta().annotations.clone().unwrap_or_default();
        assert!(kept.keys().all(|name| name.starts_with(names::PREFIX)), "others' annotations are kept: {kept:?}");
    }
    let Ok(integration) = serde_json::from_slice::<WatchedIntegration>(input) else { return };
    if let Some(status) = integration.status {
        let written = serde_json::to_value(&status).expect("a status has a JSON form");
        let read = serde_json::from_value(written.clone()).ok();
        assert_eq!(read.as_ref(), Some(&status), "it is written as {written}");
    }
    if let Ok(spec) = integration.spec {
        let written = serde_json::to_value(&spec).expect("a spec has a JSON form");
        let read = serde_json::from_value(written.clone()).ok();
        assert_eq!(read.as_ref(), Some(&spec), "it is written as {written}");
    }
}
