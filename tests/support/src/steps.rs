//! The operator's requests, by what they are in its refresh transaction.
//!
//! Each returns a [`Predicate`] for a [`crate::proxy::Proxy`] before the API
//! server; [`call`] is for one before TikTok Shop.

use crate::proxy::{Predicate, Seen};

/// The annotation that is the claim.
pub const CLAIM: &str = "tiktokshop.dev/refresh-attempt";

/// `GET` of a Secret.
#[must_use]
pub fn read(namespace: &str, name: &str) -> impl Predicate + Clone + use<> {
    let path = secret(namespace, name);
    move |seen| seen.method == "GET" && seen.path == path
}

/// The dry run of the write of the tokens.
#[must_use]
pub fn rehearsal(namespace: &str, name: &str) -> impl Predicate + Clone + use<> {
    let path = secret(namespace, name);
    move |seen| seen.method == "PATCH" && seen.path == path && is_dry_run(seen)
}

/// The write of the claim; also the later one that says that its outcome is unknown.
#[must_use]
pub fn claim(namespace: &str, name: &str) -> impl Predicate + Clone + use<> {
    let patch = patch(namespace, name);
    move |seen| patch(seen) && !has_data(seen) && claim_in(seen).is_some_and(|claim| claim.is_string())
}

/// The write of a claim for a call that is to come.
#[must_use]
pub fn fresh_claim(namespace: &str, name: &str) -> impl Predicate + Clone + use<> {
    let claim = claim(namespace, name);
    move |seen| claim(seen) && !is_marked(seen)
}

/// What settles a claim after a call that gave no tokens: its removal, or the mark that says that
/// the outcome is unknown.
#[must_use]
pub fn settle(namespace: &str, name: &str) -> impl Predicate + Clone + use<> {
    let (claim, give_back) = (claim(namespace, name), give_back(namespace, name));
    move |seen| give_back(seen) || (claim(seen) && is_marked(seen))
}

/// The write of the tokens.
#[must_use]
pub fn persist(namespace: &str, name: &str) -> impl Predicate + Clone + use<> {
    let patch = patch(namespace, name);
    move |seen| patch(seen) && has_data(seen)
}

/// The write of the shops' ciphers.
#[must_use]
pub fn ciphers(namespace: &str, name: &str) -> impl Predicate + Clone + use<> {
    let patch = patch(namespace, name);
    move |seen| patch(seen) && seen.json()["data"].get("shop_ciphers").is_some()
}

/// The removal of a claim without tokens.
#[must_use]
pub fn give_back(namespace: &str, name: &str) -> impl Predicate + Clone + use<> {
    let patch = patch(namespace, name);
    move |seen| patch(seen) && !has_data(seen) && claim_in(seen).is_some_and(|claim| claim.is_null())
}

/// A write of an integration's status.
#[must_use]
pub fn status(namespace: &str, name: &str) -> impl Predicate + Clone + use<> {
    let path = format!("/namespaces/{namespace}/tiktokshopintegrations/{name}/status");
    move |seen| matches!(seen.method.as_str(), "PATCH" | "PUT") && seen.path.ends_with(&path)
}

/// A write of an event, in whatever namespace.
#[must_use]
pub fn event() -> impl Predicate + Clone + use<> {
    |seen: &Seen| {
        matches!(seen.method.as_str(), "POST" | "PATCH")
            && seen.path.starts_with("/apis/events.k8s.io/")
            && seen.path.contains("/events")
    }
}

/// Any request about leases, in whatever namespace.
#[must_use]
pub fn lease() -> impl Predicate + Clone + use<> {
    |seen: &Seen| seen.path.starts_with("/apis/coordination.k8s.io/") && seen.path.contains("/leases")
}

/// A watch of a resource (`secrets`, `tiktokshopintegrations`), a streaming
/// list among them, in one namespace or all.
#[must_use]
pub fn watch(resource: &str) -> impl Predicate + Clone + use<> {
    let end = format!("/{resource}");
    move |seen| seen.path.ends_with(&end) && seen.is_watch()
}

/// A list of a resource, each page of it, in one namespace or all.
#[must_use]
pub fn list(resource: &str) -> impl Predicate + Clone + use<> {
    let end = format!("/{resource}");
    move |seen| seen.method == "GET" && seen.path.ends_with(&end) && !seen.is_watch()
}

/// A call of TikTok Shop's token endpoints: a refresh, in either form, or an exchange.
#[must_use]
pub fn call() -> impl Predicate + Clone + use<> {
    |seen: &Seen| seen.path.ends_with("/token/refresh") || seen.path.ends_with("/token/get")
}

fn secret(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

/// A patch of a Secret that is not a dry run.
fn patch(namespace: &str, name: &str) -> impl Fn(&Seen) -> bool + Clone + use<> {
    let path = secret(namespace, name);
    move |seen| seen.method == "PATCH" && seen.path == path && !is_dry_run(seen)
}

fn is_dry_run(seen: &Seen) -> bool {
    seen.param("dryRun").as_deref() == Some("All")
}

fn has_data(seen: &Seen) -> bool {
    let body = seen.json();
    ["data", "stringData"].iter().any(|field| body.get(field).is_some_and(|data| !data.is_null()))
}

/// Whether the claim that it writes is marked as one of an unknown outcome.
fn is_marked(seen: &Seen) -> bool {
    written_claim(seen)["outcome"] == "unknown"
}

/// The claim that a patch of a Secret writes; null where it writes none.
#[must_use]
pub fn written_claim(seen: &Seen) -> serde_json::Value {
    let claim = claim_in(seen).unwrap_or_default();
    claim.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// What a patch says of the claim: a text, null (remove it), or nothing.
fn claim_in(seen: &Seen) -> Option<serde_json::Value> {
    seen.json().get("metadata")?.get("annotations")?.get(CLAIM).cloned()
}
