//! `kubectl tiktokshop authorize`: from the seller's yes to a living token.
//!
//! It shows TikTok's page, takes the authorization code that comes of it, writes it into the token Secret (whose values
//! it never sees) and watches until the operator has exchanged it.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::process::Stdio;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use http::{Request, header};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use serde::Serialize;
use tiktok_shop_operator::api::{
    Condition, ConditionStatus, ConditionType, Reason, Seller, TikTokShopIntegrationSpec, TikTokShopIntegrationStatus,
};
use tiktok_shop_operator::cluster::{METADATA_ALONE, Version, WatchedIntegration};
use tiktok_shop_operator::tokens::{SecretText, encode};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::args::{AuthorizeArgs, PROGRAM, Redirect};
use crate::callback::catch;
use crate::cluster::{Listed, REQUEST_TIMEOUT, Selected, key, last_word};
use crate::errors::{Failure, NoSuch, Resource};
use crate::judge::is_suspended;
use crate::messages::{Messages, one_line};
use crate::redirect::{LONGEST, Refused, page, pasted};
use crate::report::{expiry, subject};
use crate::terminal::{self, Hidden, Input, Terminal, complain};
use crate::{INTERRUPTED, TERMINATED, terminated};

/// How often a person may paste something that is no redirect of this page.
const PASTES: usize = 3;

/// Whether the Secret is there is known only once it is written to; it may come and go meanwhile.
const WRITES: usize = 3;

/// Carries the command out; its exit code.
pub async fn authorize(
    selected: &Selected,
    options: &AuthorizeArgs,
    messages: &Messages,
    terminal: Terminal,
) -> Result<u8, Failure> {
    let is_written = Cell::new(false);
    let run = Run { selected, options, messages, terminal, is_written: &is_written };
    let stopped = tokio::select! {
        done = run.carry_out() => {
            terminal.clear_progress();
            return done.map(|()| 0);
        }
        _ = tokio::signal::ctrl_c() => INTERRUPTED,
        () = terminated() => TERMINATED,
    };
    terminal.clear_progress();
    complain(&messages.text(if is_written.get() { "authorize-stopped-waiting" } else { "authorize-stopped" }));
    Ok(stopped)
}

struct Run<'a> {
    selected: &'a Selected,
    options: &'a AuthorizeArgs,
    messages: &'a Messages,
    terminal: Terminal,
    /// The code stands in the Secret.
    is_written: &'a Cell<bool>,
}

impl Run<'_> {
    async fn carry_out(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.options.timeout;
        let mut events = self.selected.events();
        let Listed { found, .. } = self.selected.list(&mut events).await?;
        drop(events);
        let integration = found.into_values().next().ok_or_else(|| self.gone())?;
        let spec = match &integration.spec {
            Ok(spec) => spec,
            Err(error) => return Err(Failure::said("authorize-spec", &[("error", &one_line(error))])),
        };
        if let Some(hindrance) = self.hindrance(&integration) {
            return Err(hindrance);
        }
        self.check_rights(&integration, spec).await?;
        let code = timeout_at(deadline, self.code(spec)).await.unwrap_or_else(|_| {
            let seconds = self.options.timeout.as_secs().to_string();
            Err(Failure::said("authorize-nobody", &[("seconds", &seconds)]))
        })?;
        let began_at = Utc::now();
        let before = self.now().await?.status.unwrap_or_default();
        let written = self.write(spec, &code).await?;
        drop(code);
        self.is_written.set(true);
        let integration = self.wait(&before, written.as_ref(), began_at, deadline).await?;
        self.terminal.clear_progress();
        terminal::print(&self.told(&integration));
        Ok(())
    }

    /// What the operator can't get past, whatever the seller says.
    fn hindrance(&self, integration: &WatchedIntegration) -> Option<Failure> {
        let (namespace, name) = key(integration);
        if is_suspended(integration) {
            return Some(Failure::said("authorize-suspended", &[("name", &name), ("namespace", &namespace)]));
        }
        let status = integration.status.as_ref()?;
        let ready = status.condition(ConditionType::Ready)?;
        let is_current = status.observed_generation == kube::Resource::meta(integration).generation;
        let hinders = matches!(
            ready.known_reason(),
            Some(Reason::AppCredentialsNotFound | Reason::TokenSecretImmutable | Reason::TokenSecretInUse)
        );
        (is_current && hinders).then(|| self.failed(&ready.reason, &ready.message))
    }

    /// Rights that will be needed: better missed before the seller is asked than after.
    async fn check_rights(
        &self,
        integration: &WatchedIntegration,
        spec: &TikTokShopIntegrationSpec,
    ) -> Result<(), Failure> {
        let (namespace, name) = key(integration);
        let secret = spec.token_secret_ref.name.as_str();
        let needs = [
            ("get", Resource::Integrations, Some(name.as_str())),
            ("watch", Resource::Integrations, None),
            ("patch", Resource::Secrets, Some(secret)),
            ("create", Resource::Secrets, None),
        ];
        // A Secret that is there need not be created; whether it is, status tells.
        let is_there = integration.status.as_ref().is_some_and(|status| {
            let ready = status.condition(ConditionType::Ready).and_then(Condition::known_reason);
            status.observed_token_secret.is_some() && ready != Some(Reason::TokenSecretNotFound)
        });
        for (verb, resource, name) in needs.into_iter().take(if is_there { 3 } else { 4 }) {
            if !self.may(verb, resource, &namespace, name).await {
                return Err(Failure::Forbidden { verb, resource, namespace: Some(namespace) });
            }
        }
        Ok(())
    }

    /// Asks the API server; where it does not tell, the request itself will.
    async fn may(&self, verb: &str, resource: Resource, namespace: &str, name: Option<&str>) -> bool {
        let (group, plural) = resource.group_and_plural();
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(plural.to_owned()),
            verb: Some(verb.to_owned()),
            namespace: Some(namespace.to_owned()),
            name: name.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None },
            ..SelfSubjectAccessReview::default()
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.selected.client());
        let params = PostParams::default();
        match tokio::time::timeout(REQUEST_TIMEOUT, reviews.create(&params, &review)).await {
            Ok(Ok(review)) => review.status.is_none_or(|status| status.allowed),
            _ => true,
        }
    }

    /// Has the seller asked, and takes the code that comes of it.
    async fn code(&self, spec: &TikTokShopIntegrationSpec) -> Result<SecretText, Failure> {
        if let Some(Redirect::Given(redirect)) = &self.options.redirect_url {
            // No page was shown, so there is no state that it could bring back.
            return pasted(redirect.expose(), None).map_err(|refused| refused_as(&refused));
        }
        let authorization = spec.authorization.as_ref();
        let named = self.options.service_id.as_deref().or(authorization.map(|of_spec| of_spec.service_id.as_str()));
        let Some(service_id) = named else {
            return match self.options.redirect_url {
                Some(Redirect::Input) => self.paste(None).await,
                _ => Err(Failure::said("authorize-no-service-id", &[])),
            };
        };
        let of_spec = authorization.map(|of_spec| of_spec.region).unwrap_or_default();
        let region = self.options.region.map_or(of_spec, Into::into);
        let state = tiktok_shop_operator::random_id();
        let page = page(region, service_id, &state);
        let Some(address) = self.options.callback else {
            self.show(&page);
            return self.paste(Some(&state)).await;
        };
        // Before the page is shown: the browser may be fast.
        let listener = TcpListener::bind(address).await;
        let bound = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = bound.map_err(|error| {
            let error = crate::errors::without_number(&error.to_string());
            Failure::said("authorize-listen", &[("address", &address.to_string()), ("error", &error)])
        })?;
        self.show(&page);
        self.say("authorize-callback", &[("address", &address.to_string())]);
        catch(&listener, &state, self.messages).await.map_err(|refused| refused_as(&refused))
    }

    /// Shows the page's address: alone on standard output, for scripts.
    fn show(&self, page: &str) {
        self.say("authorize-open-page", &[]);
        terminal::print(&format!("{page}\n"));
        if self.options.open {
            open(page, self.messages.text("authorize-open"));
        }
    }

    /// What is said to people beside the result.
    fn say(&self, key: &str, values: &[(&str, &str)]) {
        if !matches!(self.options.redirect_url, Some(Redirect::Input)) {
            terminal::say(&self.messages.with(key, values));
        }
    }

    async fn paste(&self, state: Option<&str>) -> Result<SecretText, Failure> {
        let unreadable = |error: &dyn std::fmt::Display| {
            let error = crate::errors::without_number(&error.to_string());
            Failure::said("authorize-input", &[("error", &error)])
        };
        let hidden = Hidden::of_input();
        let mut input = Input::open(LONGEST + 1).map_err(|error| unreadable(&error))?;
        for tries_left in (0..PASTES).rev() {
            self.say("authorize-paste", &[]);
            let reading = tokio::task::spawn_blocking(move || (input.line(), input)).await;
            let (read, back) = reading.map_err(|error| unreadable(&error))?;
            input = back;
            let line = read.map_err(|error| unreadable(&error))?;
            let line = line.ok_or_else(|| Failure::said("authorize-nothing-read", &[]))?;
            let code = match std::str::from_utf8(&line) {
                Ok(text) => pasted(text, state),
                Err(_) => Err(Refused::NoCode),
            };
            match code {
                Ok(code) => return Ok(code),
                // Only a person can do it better the next time.
                Err(refused) if tries_left == 0 || !hidden.is_terminal() => return Err(refused_as(&refused)),
                Err(refused @ Refused::Denied(_)) => return Err(refused_as(&refused)),
                Err(refused) => complain(&refused_as(&refused).say(self.messages)),
            }
        }
        Err(refused_as(&Refused::NoCode))
    }

    fn namespace(&self) -> &str {
        self.selected.namespace.as_deref().unwrap_or_default()
    }

    fn gone(&self) -> Failure {
        let (name, namespace) = (self.options.name.clone(), self.namespace().to_owned());
        Failure::NoSuch(vec![NoSuch { name, namespace, near: Vec::new() }])
    }

    /// The integration as it is now.
    async fn now(&self) -> Result<WatchedIntegration, Failure> {
        let api = self.selected.api(self.namespace());
        let got = tokio::time::timeout(REQUEST_TIMEOUT, api.get_opt(&self.options.name)).await;
        let got = got.map_err(|_| Failure::Slow(REQUEST_TIMEOUT.as_secs()))?;
        let got = got.map_err(|error| self.selected.failure(&error, "get", Some(self.namespace())))?;
        got.ok_or_else(|| self.gone())
    }

    /// Puts the code, and nothing else, into the Secret; where there is none, into a new one. The version that it has then.
    async fn write(&self, spec: &TikTokShopIntegrationSpec, code: &SecretText) -> Result<Option<Version>, Failure> {
        let name = spec.token_secret_ref.name.as_str();
        let value = encode(code.expose());
        let data = BTreeMap::from([(spec.token_secret_ref.keys.auth_code.as_str(), value.as_str())]);
        let secrets = format!("/api/v1/namespaces/{}/secrets", self.namespace());
        let manager = format!("fieldManager={PROGRAM}");
        let patch = SecretBody { data: &data, kind: None, api_version: None, metadata: None };
        let create =
            SecretBody { kind: Some("Secret"), api_version: Some("v1"), metadata: Some(Metadata { name }), ..patch };
        for _ in 0..WRITES {
            let request = Request::patch(format!("{secrets}/{name}?{manager}"));
            match self.send(request, "application/merge-patch+json", &patch, code).await {
                Err(Answer { code: 404, .. }) => {}
                answer => return self.written(answer, "patch", name),
            }
            let request = Request::post(format!("{secrets}?{manager}"));
            match self.send(request, "application/json", &create, code).await {
                Err(Answer { code: 409, .. }) => {}
                answer => return self.written(answer, "create", name),
            }
        }
        Err(Failure::said("authorize-write", &[("name", name), ("error", &self.messages.text("why-conflict"))]))
    }

    fn written(
        &self,
        answer: Result<Option<Version>, Answer>,
        verb: &'static str,
        name: &str,
    ) -> Result<Option<Version>, Failure> {
        answer.map_err(|answer| match answer.code {
            401 => Failure::Unauthorized,
            // An admission policy says more than that.
            403 if answer.error.contains("cannot ") => {
                Failure::Forbidden { verb, resource: Resource::Secrets, namespace: Some(self.namespace().to_owned()) }
            }
            _ => Failure::said("authorize-write", &[("name", name), ("error", &answer.error)]),
        })
    }

    /// Sends a write whose body is wiped when it is sent. Of the answer the new version is read, or a refusal.
    async fn send(
        &self,
        request: http::request::Builder,
        media_type: &str,
        body: &SecretBody<'_>,
        code: &SecretText,
    ) -> Result<Option<Version>, Answer> {
        let broken = |error: &dyn std::fmt::Display| Answer { code: 0, error: one_line(&error.to_string()) };
        // Room for all of it: each time a buffer grows, it leaves a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(4 * LONGEST));
        serde_json::to_writer(&mut *bytes, body).map_err(|error| broken(&error))?;
        let request = request.header(header::CONTENT_TYPE, media_type).header(header::ACCEPT, METADATA_ALONE);
        let request = request.body(Bytes::from_owner(bytes).into()).map_err(|error| broken(&error))?;
        let client = self.selected.client();
        let call = async {
            let response = client.send(request).await.map_err(|error| broken(&crate::errors::root(&error)))?;
            let status = response.status();
            let answer = http_body_util::BodyExt::collect(http_body_util::Limited::new(response.into_body(), LARGEST));
            let answer = answer.await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            if status.is_success() {
                let written: Option<PartialObjectMeta<Secret>> = serde_json::from_slice(&answer).ok();
                return Ok(written.and_then(|written| Version::new(&written.metadata.resource_version?)));
            }
            let said: Option<kube::core::Status> = serde_json::from_slice(&answer).ok();
            let said = said.map_or_else(|| format!("HTTP {status}"), |status| one_line(&status.message));
            // Whatever a policy repeats.
            let said = said.replace(code.expose(), "…").replace(encode(code.expose()).as_str(), "…");
            Err(Answer { code: status.as_u16(), error: said })
        };
        let late = || Answer { code: 0, error: Failure::Slow(REQUEST_TIMEOUT.as_secs()).say(self.messages) };
        tokio::time::timeout(REQUEST_TIMEOUT, call).await.unwrap_or_else(|_| Err(late()))
    }

    /// Until the tokens are there; `before` is the status before the code was, `written` the Secret's version with it.
    async fn wait(
        &self,
        before: &TikTokShopIntegrationStatus,
        written: Option<&Version>,
        began_at: DateTime<Utc>,
        deadline: Instant,
    ) -> Result<WatchedIntegration, Failure> {
        let mut events = self.selected.events();
        let mut told = None;
        self.terminal.progress(&self.messages.text("authorize-waiting"));
        loop {
            let event = match timeout_at(deadline, events.next()).await {
                Err(_) => return Err(self.timed_out(told, began_at).await),
                Ok(None) => return Err(Failure::Slow(REQUEST_TIMEOUT.as_secs())),
                Ok(Some(event)) => event,
            };
            let integration = match event {
                Ok(Event::Apply(integration) | Event::InitApply(integration)) => integration,
                Ok(Event::Delete(_)) => return Err(self.gone()),
                Ok(Event::Init | Event::InitDone) => continue,
                Err(error) => {
                    let failure = self.selected.watch_failure(&error);
                    if failure.is_final() {
                        return Err(failure);
                    }
                    continue;
                }
            };
            match outcome(&integration, before, written) {
                Outcome::Alive => return Ok(integration),
                Outcome::Failed(reason, detail) => return Err(self.failed(&reason, &detail)),
                Outcome::Used => {
                    let (namespace, name) = key(&integration);
                    return Err(Failure::said("authorize-used", &[("name", &name), ("namespace", &namespace)]));
                }
                Outcome::Again(reason, detail) => {
                    let why = self.messages.failure(&reason, &detail);
                    if told.as_ref() != Some(&why) {
                        self.terminal.clear_progress();
                        complain(&self.messages.with("authorize-again", &[("why", &why)]));
                        told = Some(why);
                    }
                }
                Outcome::Open => {}
            }
        }
    }

    fn failed(&self, reason: &str, detail: &str) -> Failure {
        let why = self.messages.failure(reason, detail);
        let todo = self.messages.todo(reason, self.namespace(), &self.options.name);
        Failure::said("authorize-failed", &[("why", &why), ("todo", &todo)])
    }

    async fn timed_out(&self, told: Option<String>, began_at: DateTime<Utc>) -> Failure {
        let seconds = self.options.timeout.as_secs().to_string();
        if let Some(why) = told {
            return Failure::said("authorize-still-failing", &[("seconds", &seconds), ("why", &why)]);
        }
        let last_write = match self.selected.last_status_write().await {
            Ok(last_write) => last_write,
            Err(failure) => {
                let why = failure.say(self.messages);
                return Failure::said("authorize-blind", &[("seconds", &seconds), ("why", &why)]);
            }
        };
        match last_write {
            Some(time) if time.timestamp() >= began_at.timestamp() => {
                let time = self.messages.time(time);
                Failure::said("authorize-no-answer-at-work", &[("seconds", &seconds), ("time", &time)])
            }
            last_write => {
                let last = last_word(last_write, self.messages);
                Failure::said("authorize-no-answer", &[("seconds", &seconds), ("last", &last)])
            }
        }
    }

    /// The line of an integration whose tokens live.
    fn told(&self, integration: &WatchedIntegration) -> String {
        let seller = integration.status.as_ref().and_then(|status| status.seller.as_ref());
        let expires = match expiry(integration) {
            Some(at) => self.messages.with("expires", &[("time", &self.messages.time(at))]),
            None => self.messages.text("expires-unknown"),
        };
        let text = match seller.and_then(|seller| self.seller(seller)) {
            Some(seller) => self.messages.with("authorized-by", &[("seller", &seller), ("expires", &expires)]),
            None => self.messages.with("authorized", &[("expires", &expires)]),
        };
        let text = self.terminal.coloured(terminal::Colour::Green, &text);
        format!("{}{}: {text}\n", self.terminal.mark("✅ ", "[ok] "), subject(integration, self.messages))
    }

    fn seller(&self, seller: &Seller) -> Option<String> {
        match (&seller.name, &seller.base_region) {
            (Some(name), Some(region)) => {
                let (name, region) = (one_line(name), one_line(region));
                Some(self.messages.with("seller-of-region", &[("name", &name), ("region", &region)]))
            }
            (Some(one), None) | (None, Some(one)) => Some(one_line(one)),
            (None, None) => None,
        }
    }
}

/// What a redirect without a code means.
fn refused_as(refused: &Refused) -> Failure {
    match refused {
        Refused::NoCode => Failure::said("authorize-no-code", &[]),
        Refused::TooLong => Failure::said("authorize-too-long", &[]),
        Refused::State => Failure::said("authorize-wrong-state", &[]),
        Refused::Denied(word) if word == "auth_denied" => Failure::said("authorize-denied", &[]),
        Refused::Denied(word) => Failure::said("authorize-error", &[("error", word)]),
    }
}

/// The largest answer to a write, in bytes: of the Secret's metadata, or of why not.
const LARGEST: usize = 1 << 20;

/// What a refused write was answered with.
struct Answer {
    /// HTTP's; 0 where there was no answer.
    code: u16,
    error: String,
}

/// A Secret as it is written: with the code, and with nothing else.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct SecretBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
    data: &'a BTreeMap<&'a str, &'a str>,
}

#[derive(Clone, Copy, Serialize)]
struct Metadata<'a> {
    name: &'a str,
}

/// Opens a page in the browser, which takes its time.
fn open(page: &str, otherwise: String) {
    let (program, args): (_, &[&str]) = if cfg!(windows) {
        ("rundll32", &["url.dll,FileProtocolHandler"])
    } else if cfg!(target_os = "macos") {
        ("open", &[])
    } else {
        ("xdg-open", &[])
    };
    let mut command = std::process::Command::new(program);
    command.args(args).arg(page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    std::thread::spawn(move || {
        if !command.status().is_ok_and(|status| status.success()) {
            complain(&otherwise);
        }
    });
}

/// What became of the code so far.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// There are tokens for it.
    Alive,
    /// Nothing but a person can help: the reason, and what the operator says of it.
    Failed(String, String),
    /// It failed, and is tried again.
    Again(String, String),
    /// The operator has seen the code and presents it no more: it was used or refused before.
    Used,
    /// Nothing yet.
    Open,
}

fn outcome(
    integration: &WatchedIntegration,
    before: &TikTokShopIntegrationStatus,
    written: Option<&Version>,
) -> Outcome {
    if is_suspended(integration) {
        return Outcome::Failed(Reason::Suspended.as_str().to_owned(), String::new());
    }
    let now =
        integration.status.as_ref().map_or_else(|| Cow::Owned(TikTokShopIntegrationStatus::default()), Cow::Borrowed);
    let digest = |status: &TikTokShopIntegrationStatus| {
        status.observed_token_secret.as_ref().and_then(|secret| secret.tokens_digest.clone())
    };
    // While a code is still to be exchanged there is no digest, whatever tokens stand beside it.
    let is_renewed = digest(&now).is_some_and(|now_digest| {
        now.last_refresh_time != before.last_refresh_time || digest(before).is_some_and(|before| before != now_digest)
    });
    let ready = now.condition(ConditionType::Ready);
    let tried = |status: &TikTokShopIntegrationStatus| {
        (status.last_error.clone(), status.last_attempt_time, status.consecutive_failures)
    };
    match &now.last_error {
        None if is_renewed && ready.is_some_and(|ready| ready.status == ConditionStatus::True) => {
            return Outcome::Alive;
        }
        Some(error) if tried(&now) != tried(before) => {
            let (reason, detail) = (error.reason.clone(), error.message.clone());
            let is_final = error.known_reason().is_some_and(Reason::stalls);
            return if is_final { Outcome::Failed(reason, detail) } else { Outcome::Again(reason, detail) };
        }
        _ => {}
    }
    if written.is_some_and(|written| has_put_aside(&now, written)) {
        return Outcome::Used;
    }
    let word = |status: &TikTokShopIntegrationStatus| {
        status.condition(ConditionType::Ready).map(|ready| (ready.reason.clone(), ready.message.clone()))
    };
    match ready {
        Some(ready) if word(&now) != word(before) => match ready.known_reason() {
            // A Secret that was just made may not have been seen yet.
            Some(Reason::TokensMissing | Reason::TokenSecretNotFound) => Outcome::Open,
            Some(reason) if reason.is_about_secrets() => {
                Outcome::Failed(ready.reason.to_string(), ready.message.clone())
            }
            _ => Outcome::Open,
        },
        _ => Outcome::Open,
    }
}

/// Has the operator read the Secret with the code in it, and does it present it no more? While a code is still to be
/// exchanged, no digest of tokens stands in the status; where there are none, the reason tells.
fn has_put_aside(status: &TikTokShopIntegrationStatus, written: &Version) -> bool {
    let Some(observed) = &status.observed_token_secret else { return false };
    let has_seen = Version::new(&observed.resource_version).is_some_and(|seen| seen.covers(written));
    let is_rejected = status.condition(ConditionType::Ready).and_then(Condition::known_reason)
        == Some(Reason::AuthorizationCodeRejected);
    has_seen && (observed.tokens_digest.is_some() || is_rejected)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn integration(suspend: bool, status: &Value) -> WatchedIntegration {
        let object = json!({
            "metadata": {"name": "shop", "namespace": "shops"},
            "spec": {"appCredentialsSecretRef": {"name": "app"}, "tokenSecretRef": {"name": "shop"}, "suspend": suspend},
            "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    fn ready(status: &str, reason: &str) -> Value {
        let time = "2025-01-15T14:00:00Z";
        json!([{"type": "Ready", "status": status, "reason": reason, "message": "said so", "lastTransitionTime": time}])
    }

    fn error(reason: &str, time: &str) -> Value {
        json!({"reason": reason, "message": "said so", "time": time})
    }

    #[test]
    fn what_became_of_a_code_is_read_from_what_changed_since_it_was_written() {
        let (then, now) = ("2025-01-15T14:00:00Z", "2025-01-15T14:00:30Z");
        let written = Version::new("5");
        let at_version = |version: &str, digest: Option<&str>| json!({"uid": "u", "resourceVersion": version, "tokensDigest": digest});
        let seen = |digest: &str| json!({"uid": "u", "resourceVersion": "1", "tokensDigest": digest});
        let living = json!({"conditions": ready("True", "TokenValid"), "lastRefreshTime": then, "observedTokenSecret": seen("a")});
        let dead = json!({
            "conditions": ready("False", "RefreshTokenRejected"), "lastAttemptTime": then, "consecutiveFailures": 1,
            "lastError": error("RefreshTokenRejected", then), "observedTokenSecret": seen("a"),
        });
        let failed = |reason: &str| Outcome::Failed(reason.to_owned(), "said so".to_owned());
        let tried = |reason: &str, ready: Value| json!({"conditions": ready, "lastAttemptTime": now, "consecutiveFailures": 2, "lastError": error(reason, now)});
        for (sentence, before, after, expected) in [
            ("nothing new of living tokens", &living, living.clone(), Outcome::Open),
            ("nothing new of dead ones", &dead, dead.clone(), Outcome::Open),
            ("no status at all", &json!({}), json!(null), Outcome::Open),
            (
                "tokens for a code alone",
                &json!({"conditions": ready("False", "TokenSecretNotFound")}),
                json!({"conditions": ready("True", "TokenValid"), "lastRefreshTime": now, "observedTokenSecret": seen("b")}),
                Outcome::Alive,
            ),
            (
                "tokens in place of living ones, in the same second",
                &living,
                json!({"conditions": ready("True", "TokenValid"), "lastRefreshTime": then, "observedTokenSecret": seen("b")}),
                Outcome::Alive,
            ),
            (
                "the Secret was seen with the code, not yet exchanged",
                &json!({"conditions": ready("False", "TokenSecretNotFound")}),
                json!({"conditions": ready("False", "TokensMissing"), "observedTokenSecret": {"uid": "u", "resourceVersion": "1"}}),
                Outcome::Open,
            ),
            (
                "refused",
                &dead,
                tried("AuthorizationCodeRejected", ready("False", "AuthorizationCodeRejected")),
                failed("AuthorizationCodeRejected"),
            ),
            (
                "refused beside tokens that live",
                &living,
                tried("AuthorizationCodeRejected", ready("True", "AuthorizationCodeRejected")),
                failed("AuthorizationCodeRejected"),
            ),
            (
                "another app secret is needed",
                &dead,
                tried("AppCredentialsRejected", ready("False", "AppCredentialsRejected")),
                failed("AppCredentialsRejected"),
            ),
            (
                "TikTok is away",
                &dead,
                tried("NetworkError", ready("False", "RefreshFailing")),
                Outcome::Again("NetworkError".to_owned(), "said so".to_owned()),
            ),
            (
                "seen beside living tokens, and put aside",
                &living,
                json!({"conditions": ready("True", "TokenValid"), "lastRefreshTime": then, "observedTokenSecret": at_version("6", Some("a"))}),
                Outcome::Used,
            ),
            (
                "seen beside living tokens, and still to be exchanged",
                &living,
                json!({"conditions": ready("True", "TokenValid"), "lastRefreshTime": then, "observedTokenSecret": at_version("6", None)}),
                Outcome::Open,
            ),
            (
                "the one that was refused before, without tokens",
                &json!({"conditions": ready("False", "AuthorizationCodeRejected"), "observedTokenSecret": at_version("5", None)}),
                json!({"conditions": ready("False", "AuthorizationCodeRejected"), "observedTokenSecret": at_version("5", None)}),
                Outcome::Used,
            ),
            (
                "another one than that which was refused, not seen yet",
                &json!({"conditions": ready("False", "AuthorizationCodeRejected"), "observedTokenSecret": at_version("4", None)}),
                json!({"conditions": ready("False", "AuthorizationCodeRejected"), "observedTokenSecret": at_version("4", None)}),
                Outcome::Open,
            ),
            (
                "the operator may not write the Secret",
                &dead,
                json!({"conditions": ready("False", "TokenSecretForbidden")}),
                failed("TokenSecretForbidden"),
            ),
        ] {
            let before = serde_json::from_value(before.clone()).unwrap();
            assert_eq!(outcome(&integration(false, &after), &before, written.as_ref()), expected, "{sentence}");
        }
        let before = serde_json::from_value(living.clone()).unwrap();
        assert_eq!(
            outcome(&integration(true, &living), &before, written.as_ref()),
            Outcome::Failed("Suspended".to_owned(), String::new()),
            "suspended meanwhile"
        );
    }
}
