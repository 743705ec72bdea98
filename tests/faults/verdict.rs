//! What became of a refresh that was hit: whether it recovered, and what the witness says.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use tiktok_shop_testkit::{
    fixtures::has_condition,
    proxy::Seen,
    simulator::{CodeState, Presentation, Shop, TokenState},
    steps,
};

use crate::{
    lane::{CALL_TIMEOUT, Lane, is_ready},
    strike::{Case, is_code_rejected, is_rejected},
};

/// The longest way back: rights that were granted, of which no watch tells, are looked at again
/// after a minute, and an earlier pause may stand before that.
const RECOVERS_WITHIN: Duration = Duration::from_mins(2);

/// How long others respect a claim.
const CLAIM_LIFE: Duration = Duration::from_secs(CALL_TIMEOUT.as_secs() + 15);

/// A pause of 5 s after a failure that passes by itself, less the tenth that it may be shorter.
const SHORTEST_PAUSE: Duration = Duration::from_secs(4);

/// How long a person looks on before doing what only a person can.
const PATIENCE: Duration = Duration::from_secs(4);

/// What is known of a refresh that was hit.
#[derive(Debug, Default)]
pub struct Verdict {
    pub lost: usize,
    pub spent_twice: usize,
    /// Did the operator say that it does not know an outcome?
    pub unknown: bool,
    /// Had the shop to be authorized again?
    pub reauthorized: bool,
    /// From the end of the last fault until all was well.
    pub recovered: Option<Duration>,
    /// What must not be, in words.
    pub problems: Vec<String>,
}

impl Verdict {
    pub fn is_well(&self) -> bool {
        self.problems.is_empty()
    }
}

/// What could be known of a call's outcome by the process that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// An answer that tells it arrived, and the process lived to keep it.
    Known,
    /// Nobody can know it, for this reason.
    Unknown(&'static str),
}

/// Waits until all is well again after the world was `whole`, doing what a person would have to, and asks the witness.
pub async fn judge(lane: &Lane, case: &Case, whole: Instant, meddling: Meddling) -> Verdict {
    let mut verdict = Verdict::default();
    let mut person = Person {
        replaced: meddling != Meddling::None,
        history_gone: meddling == Meddling::Deleted,
        ..Person::default()
    };
    match recover(lane, case, &mut person, &mut verdict).await {
        Ok(()) => verdict.recovered = Some(whole.elapsed()),
        Err(problem) => {
            verdict.problems.push(problem);
            let mut is_known = false;
            if let Some(token) = current_unless_stored(lane, &case.shop).await {
                is_known |= outcome_of_spending(lane, case, &token).await == Outcome::Known;
            }
            for code in lane.simulator.codes_of(&case.shop).await {
                let used = code.state == CodeState::Used && !is_stored(lane, &case.shop).await;
                is_known |= used && outcome_of_spending(lane, case, &code.auth_code).await == Outcome::Known;
            }
            if is_known {
                verdict.lost += 1;
                verdict.problems.push("the pair that is current at TikTok was received, and is nowhere".to_owned());
            }
        }
    }
    verdict.reauthorized = person.authorized > 0;
    presentations(lane, case, meddling, person.first_asked, &mut verdict).await;
    let said = lane.api.requests().iter().any(|seen| seen.path.contains(&case.shop) && is_unknown_said(seen))
        || lane.api.requests().iter().any(|seen| seen.body.contains(&case.shop) && is_unknown_said(seen));
    manners(lane, case, meddling, &person, &mut verdict);
    verdict.unknown = said;
    let by_itself = meddling == Meddling::None && person.asked == 0 && !verdict.reauthorized && !said;
    if by_itself && case.request.is_some() {
        let refreshes = lane.simulator.shop(&case.shop).await.counters.refreshes - case.before.counters.refreshes;
        if refreshes > 1 {
            verdict.problems.push(format!("one request was acted on {refreshes} times"));
        }
    }
    if said && !may_be_unknown(lane, case).await {
        verdict.problems.push(
            "OutcomeUnknown was said, though every answer had been delivered to a process that lived on".to_owned(),
        );
    }
    verdict
}

fn is_unknown_said(seen: &Seen) -> bool {
    let is_write = matches!(seen.method.as_str(), "POST" | "PATCH" | "PUT");
    is_write && (seen.body.contains("OutcomeUnknown") || seen.body.contains(r#"\"outcome\":\"unknown\""#))
}

/// What the faults of a job had people do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meddling {
    /// Nothing that changes what the refresh was asked for.
    None,
    /// The tokens are others.
    Replaced,
    /// The integration is another, and what its status told is gone.
    Deleted,
}

/// What a person has done so far.
#[derive(Debug, Default)]
struct Person {
    /// With the integration went what was known of a refusal.
    history_gone: bool,
    /// When the person asked for a refresh although the token may be dead.
    insisted: Option<Instant>,
    /// When the person first asked again, for whatever reason: from there on, a token is presented at a person's request.
    first_asked: Option<Instant>,
    /// The tokens, or the integration, are not those that the refresh began with.
    replaced: bool,
    /// How often the shop was authorized again.
    authorized: usize,
    /// Refresh tokens that were refused and replaced.
    refused: HashSet<String>,
    /// How often the refresh was asked for again.
    asked: usize,
}

async fn recover(lane: &Lane, case: &Case, person: &mut Person, verdict: &mut Verdict) -> Result<(), String> {
    let deadline = Instant::now() + RECOVERS_WITHIN;
    let mut request = case.request.clone();
    let mut probed = false;
    let mut stuck_since: Option<(&'static str, Instant)> = None;
    loop {
        let (status, secret) =
            lane.view.now(|shown| (shown.status(&case.shop), shown.secrets.get(&case.shop).cloned()));
        let shop = lane.simulator.shop(&case.shop).await;
        // After a person's doing, the refresh that was asked for may have had nothing to do.
        let handled = if person.replaced && !probed { None } else { request.as_deref() };
        // With the integration, or the token, went what its claim was for; it goes with the next refresh.
        let claim_may_stand = (person.history_gone || person.replaced) && !probed;
        let well = is_well(&status, secret.as_ref(), &shop, handled, claim_may_stand);
        if well && person.replaced && !probed {
            let probe = format!("probe of {}", request.as_deref().unwrap_or("what was due"));
            lane.request(&case.shop, &probe).await;
            request = Some(probe);
            probed = true;
            continue;
        }
        if well {
            return Ok(());
        }
        let forgotten = person.history_gone && person.insisted.is_none() && is_ready(&status);
        let helpless = match helpless(&status, secret.as_ref(), &shop, request.as_deref()) {
            None if forgotten && !holds(secret.as_ref(), &shop) => Some(FORGOTTEN),
            other => other,
        };
        match (helpless, stuck_since) {
            (Some(why), Some((since_why, since))) if why == since_why && since.elapsed() >= PATIENCE => {
                stuck_since = None;
                help(lane, case, person, verdict, why, &mut request, secret.as_ref()).await;
            }
            (Some(why), Some((since_why, _))) if why == since_why => {}
            (why, _) => stuck_since = why.map(|why| (why, Instant::now())),
        }
        if Instant::now() > deadline {
            return Err(format!(
                "it did not recover within {RECOVERS_WITHIN:?}: Secret {}, {} at TikTok; status: {status}",
                if holds(secret.as_ref(), &shop) { "holds the current pair" } else { "does not hold the current pair" },
                if shop.refresh_token_state == TokenState::Current { "alive" } else { "dead" },
            ));
        }
        lane.view.change(Duration::from_millis(250)).await;
    }
}

/// All is as it should be, seen by a user.
fn is_well(status: &Value, secret: Option<&Secret>, shop: &Shop, handled: Option<&str>, claim_may_stand: bool) -> bool {
    let unclaimed = claim_may_stand || secret.is_some_and(|secret| annotation(secret, steps::CLAIM).is_none());
    let refreshed = has_condition(status, "Refreshed", "True", "Refreshed") && status["lastError"].is_null();
    let done = match handled {
        Some(request) => refreshed && status["lastHandledRefreshRequest"] == *request,
        None => true,
    };
    is_ready(status) && unclaimed && done && holds(secret, shop) && shop.refresh_token_state == TokenState::Current
        // A code that was there was exchanged.
        && value(secret, "auth_code").is_none()
        // Where it was due, it was refreshed.
        && shop.access_expires_at() > chrono::Utc::now().timestamp() + 86_400
}

fn annotation(secret: &Secret, name: &str) -> Option<String> {
    secret.metadata.annotations.as_ref()?.get(name).cloned()
}

fn value(secret: Option<&Secret>, key: &str) -> Option<String> {
    let data = secret?.data.as_ref()?.get(key)?;
    Some(String::from_utf8_lossy(&data.0).into_owned())
}

/// Does the Secret hold the pair that is current at TikTok, all four values?
fn holds(secret: Option<&Secret>, shop: &Shop) -> bool {
    let is = |key, expected: String| value(secret, key) == Some(expected);
    is("access_token", shop.access_token().to_owned())
        && is("access_token_expire_in", shop.access_expires_at().to_string())
        && is("refresh_token", shop.refresh_token().to_owned())
        && is("refresh_token_expire_in", shop.refresh_expires_at().to_string())
}

const REJECTED: &str = "the refresh token was rejected";
const CODE_REJECTED: &str = "the authorization code was rejected";
const NO_TOKENS: &str = "there are no tokens";
const FORGOTTEN: &str = "what was known of a refusal went with the integration";
const REFUSED: &str = "TikTok answered the request with an error";

/// Why only a person can help, where that is so.
fn helpless(status: &Value, secret: Option<&Secret>, shop: &Shop, request: Option<&str>) -> Option<&'static str> {
    let code = value(secret, "auth_code");
    if is_code_rejected(status) && code.is_some() {
        return Some(CODE_REJECTED);
    }
    if value(secret, "refresh_token").is_none() {
        return code.is_none().then_some(NO_TOKENS);
    }
    if is_rejected(status) && !holds(secret, shop) {
        return Some(REJECTED);
    }
    let failed = status["lastError"].is_object() && request.is_some();
    let why_is_known = status["lastError"]["message"].as_str().is_some_and(|message| !message.ends_with("ask again"));
    (failed && status["lastHandledRefreshRequest"].as_str() == request && (holds(secret, shop) || !why_is_known))
        .then_some(REFUSED)
}

/// Does what only a person can.
async fn help(
    lane: &Lane,
    case: &Case,
    person: &mut Person,
    verdict: &mut Verdict,
    why: &'static str,
    request: &mut Option<String>,
    secret: Option<&Secret>,
) {
    match why {
        CODE_REJECTED => {
            let refused = value(secret, "auth_code").unwrap_or_default();
            if !person.refused.insert(refused.clone()) {
                return;
            }
            if outcome_of_spending(lane, case, &refused).await == Outcome::Known {
                verdict.lost += 1;
                verdict.problems.push(
                    "a new code was needed, though TikTok's answer to the first had been delivered to a process that \
                     lived to keep it"
                        .to_owned(),
                );
            }
            person.authorized += 1;
            person.replaced = true;
            lane.authorize_again(&case.shop).await;
        }
        REJECTED => {
            let refused = value(secret, "refresh_token").unwrap_or_default();
            if !person.refused.insert(refused.clone()) {
                return;
            }
            match outcome_of_spending(lane, case, &refused).await {
                Outcome::Known => {
                    verdict.lost += 1;
                    verdict.problems.push(
                        "the shop had to be authorized again, though TikTok's answer had been delivered to a process \
                         that lived to keep it"
                            .to_owned(),
                    );
                }
                Outcome::Unknown(_) => {}
            }
            person.authorized += 1;
            person.replaced = true;
            let new = lane.simulator.reauthorize(&case.shop).await;
            lane.put_tokens(&new).await;
            if let Some(code) = value(secret, "auth_code") {
                // A code that is good for nothing more goes; else it would stand there for ever.
                let mut codes = lane.simulator.codes_of(&case.shop).await.into_iter();
                if codes.any(|record| record.auth_code == code && record.state == CodeState::Used) {
                    lane.patch_secret(&case.shop, &serde_json::json!({"data": {"auth_code": null}})).await;
                }
            }
        }
        NO_TOKENS => {
            // Whoever emptied the Secret puts the tokens back, unless the operator has newer ones.
            let shop = lane.simulator.shop(&case.shop).await;
            if shop.counters.refreshes == case.before.counters.refreshes {
                person.replaced = true;
                lane.put_tokens(&shop).await;
            } else if outcome_of_last(lane, case).await != Outcome::Known {
                person.authorized += 1;
                person.replaced = true;
                let new = lane.simulator.reauthorize(&case.shop).await;
                lane.put_tokens(&new).await;
            }
        }
        _ => {
            if why == FORGOTTEN {
                person.insisted = Some(Instant::now());
            }
            person.first_asked.get_or_insert_with(Instant::now);
            person.asked += 1;
            let again = format!("{} again {}", case.request.as_deref().unwrap_or("due"), person.asked);
            lane.request(&case.shop, &again).await;
            *request = Some(again);
        }
    }
}

/// Does the Secret hold the pair that is current at TikTok?
async fn is_stored(lane: &Lane, shop: &str) -> bool {
    let secret = lane.view.now(|shown| shown.secrets.get(shop).cloned());
    holds(secret.as_ref(), &lane.simulator.shop(shop).await)
}

/// The refresh token that stands in the Secret, where it is not the current one.
async fn current_unless_stored(lane: &Lane, shop: &str) -> Option<String> {
    let secret = lane.view.now(|shown| shown.secrets.get(shop).cloned());
    let now = lane.simulator.shop(shop).await;
    if holds(secret.as_ref(), &now) { None } else { value(secret.as_ref(), "refresh_token") }
}

/// What can be spent: by name for a message, by value, and each time that it was presented.
async fn credentials(lane: &Lane, shop: &str) -> Vec<(String, String, Vec<Presentation>)> {
    let tokens = lane.simulator.tokens_of(shop).await.into_iter();
    let tokens =
        tokens.map(|record| (format!("refresh token {}", record.serial), record.refresh_token, record.presentations));
    let codes = lane.simulator.codes_of(shop).await.into_iter();
    let codes = codes.map(|record| (format!("code {}", record.serial), record.auth_code, record.presentations));
    tokens.chain(codes).collect()
}

/// This job's calls that presented a token or a code, in order, each with what TikTok says of it.
async fn calls(lane: &Lane, case: &Case, token: &str) -> Vec<(Seen, Option<Presentation>)> {
    let presented = |seen: &Seen| {
        let by_query = |name| seen.param(name).as_deref() == Some(token);
        seen.json()["refresh_token"] == *token || by_query("refresh_token") || by_query("auth_code")
    };
    let mut seen = lane.tiktok.requests();
    seen.retain(|seen| steps::call()(seen) && seen.forwarded.is_some() && presented(seen));
    seen.sort_by_key(|seen| seen.forwarded);
    let record = credentials(lane, &case.shop).await.into_iter().find(|(_, value, _)| value == token);
    let told = record.map(|(_, _, presentations)| presentations).unwrap_or_default();
    // The last ones: earlier jobs presented other tokens, and of this one nothing but these.
    let skipped = told.len().saturating_sub(seen.len());
    let mut told = told.into_iter().skip(skipped);
    seen.into_iter().map(|seen| (seen, told.next())).collect()
}

/// What could be known of the call that spent a token.
async fn outcome_of_spending(lane: &Lane, case: &Case, token: &str) -> Outcome {
    let spending = calls(lane, case, token).await.into_iter().find(|(_, told)| {
        use tiktok_shop_testkit::simulator::Outcome::{Exchanged, Refreshed};
        told.as_ref().is_some_and(|told| matches!(told.outcome, Refreshed | Exchanged))
    });
    match spending {
        Some((seen, told)) => outcome(lane, case, &seen, told.as_ref()),
        None => Outcome::Unknown("this refresh did not spend it"),
    }
}

/// What could be known of the last call that spent a token of this shop.
async fn outcome_of_last(lane: &Lane, case: &Case) -> Outcome {
    let spent = lane.simulator.tokens_of(&case.shop).await.into_iter().rev().find(|record| record.spent_at.is_some());
    match spent {
        Some(record) => outcome_of_spending(lane, case, &record.refresh_token).await,
        None => Outcome::Unknown("none was spent"),
    }
}

/// What could be known of a call by the process that made it.
fn outcome(lane: &Lane, case: &Case, call: &Seen, told: Option<&Presentation>) -> Outcome {
    let Some(delivered) = call.delivered_at else {
        return Outcome::Unknown("the last byte of the answer was not delivered");
    };
    let api = lane.api.requests();
    let claim = steps::fresh_claim(&lane.namespace, &case.shop);
    let claimed =
        api.iter().filter(|seen| claim(seen)).map(|seen| seen.received).filter(|at| *at <= call.received).max();
    // A call's time begins when its claim is sent. Whoever stands still when it ends may find the answer afterwards, but
    // no promise covers it.
    if claimed.is_some_and(|claimed| delivered > claimed + CALL_TIMEOUT) {
        return Outcome::Unknown("the answer was delivered after the call's deadline");
    }
    let tells = told.is_some_and(|told| {
        let refused = told.code.is_some_and(|code| code != 0) && told.http_status == Some(200);
        told.tells_pair || refused
    });
    if !tells {
        return Outcome::Unknown("TikTok's answer tells nothing");
    }
    // New tokens are kept by the journal, and then by the API server; a refusal by the API server alone.
    let got_tokens = told.is_some_and(|told| told.tells_pair);
    let kept = if got_tokens {
        let persist = steps::persist(&lane.namespace, &case.shop);
        api.iter().find(|seen| persist(seen) && seen.received >= delivered).map(|seen| seen.received)
    } else {
        let settle = steps::settle(&lane.namespace, &case.shop);
        let done = |seen: &&Seen| settle(seen) && seen.received >= delivered && seen.status.is_some_and(|it| it < 300);
        api.iter().find(done).and_then(|seen| seen.answered)
    };
    let died = lane.deaths.iter().any(|died| {
        let is_journaled = got_tokens && died.leaves_tokens_of(&case.shop);
        died.at >= delivered && !is_journaled && kept.is_none_or(|kept| died.at <= kept)
    });
    if died { Outcome::Unknown("the process was killed before the answer was in the journal") } else { Outcome::Known }
}

/// No token is presented again after it was spent, unless nobody could know that it was, or a
/// person asked for it.
async fn presentations(
    lane: &Lane,
    case: &Case,
    meddling: Meddling,
    first_asked: Option<Instant>,
    verdict: &mut Verdict,
) {
    for (name, value, presentations) in credentials(lane, &case.shop).await {
        if !presentations.iter().any(|told| told.after_spent) {
            continue;
        }
        let calls = calls(lane, case, &value).await;
        for (at, (call, told)) in calls.iter().enumerate() {
            let asked_for = first_asked.is_some_and(|asked| call.received >= asked);
            if asked_for || !told.as_ref().is_some_and(|told| told.after_spent) {
                continue;
            }
            let known = calls[..at]
                .iter()
                .filter(|(earlier, _)| earlier.delivered_at.is_some_and(|delivered| delivered < call.received))
                .any(|(earlier, told)| {
                    // With an integration goes what its status told of a refusal: a new one asks for a try of its own.
                    let binds = |told: &Presentation| told.code.is_some() && meddling != Meddling::Deleted;
                    let spent_or_refused = told.as_ref().is_some_and(|told| told.tells_pair || binds(told));
                    spent_or_refused
                        && outcome(lane, case, earlier, told.as_ref()) == Outcome::Known
                        && !stood_still(lane, earlier, call)
                });
            if known {
                verdict.spent_twice += 1;
                verdict
                    .problems
                    .push(format!("{name} was presented again (request {}) though its outcome was known", call.seq));
            }
        }
        if calls.len() < presentations.iter().filter(|told| told.after_spent).count() {
            verdict.spent_twice += 1;
            verdict.problems.push(format!("{name} of an earlier refresh was presented again"));
        }
    }
}

/// What the order of requests and the words of the operator show, whatever came of it.
fn manners(lane: &Lane, case: &Case, meddling: Meddling, person: &Person, verdict: &mut Verdict) {
    let api = lane.api.requests();
    let mut calls = lane.tiktok.requests();
    calls.retain(|seen| steps::call()(seen));
    let claim = steps::fresh_claim(&lane.namespace, &case.shop);
    let is_claim_before = |seen: &Seen, call: &Seen| claim(seen) && seen.received < call.received;
    // Of two at work at the same time, the requests can't be told apart.
    if lane.is_of_two() {
        calls.clear();
    }
    for (at, call) in calls.iter().enumerate() {
        let Some(claimed) = api.iter().filter(|seen| is_claim_before(seen, call)).map(|seen| seen.received).max()
        else {
            continue;
        };
        let slow = api.iter().find(|seen| {
            let between = seen.received > claimed && seen.received < call.received;
            between && seen.method == "GET" && seen.path.contains("/secrets/") && !seen.path.ends_with(&case.shop)
        });
        if let Some(seen) = slow {
            verdict.problems.push(format!("{} {} stands between the claim and the call", seen.method, seen.path));
        }
        let before = calls[..at].iter().rfind(|before| before.body == call.body && before.query == call.query);
        if before.is_some_and(|before| before.received > claimed) {
            verdict.problems.push(format!("request {} presents a token without a claim of its own", call.seq));
        }
        // The pause is computed from the status, which told of the failure before.
        let refused = calls[..at].iter().rfind(|before| before.status == Some(429)).and_then(|before| before.answered);
        let noted = refused.is_some_and(|refused| {
            let status = steps::status(&lane.namespace, &case.shop);
            api.iter().any(|seen| {
                status(seen) && seen.received > refused && seen.answered.is_some_and(|at| at < call.received)
            })
        });
        let too_soon = refused.is_some_and(|refused| call.received - refused < SHORTEST_PAUSE);
        if noted && too_soon && person.asked == 0 && meddling == Meddling::None {
            verdict.problems.push(format!("request {} comes too soon after one that was too many", call.seq));
        }
    }
    // Whoever lives on after a call without an answer says so on the Secret.
    let marked_after = |call: &Seen| {
        let of_secret = format!("/secrets/{}", case.shop);
        api.iter().any(|seen| {
            let is_patch = seen.method == "PATCH" && seen.path.ends_with(&of_secret) && seen.received > call.received;
            is_patch && seen.body.contains("outcome") && seen.body.contains("unknown")
        })
    };
    let lived_on = lane.deaths.is_empty() && lane.stops.is_empty() && meddling == Meddling::None;
    for call in calls.iter().filter(|call| lived_on && call.forwarded.is_some() && call.delivered_at.is_none()) {
        if !marked_after(call) {
            verdict.problems.push(format!("request {} had no answer, and nothing on the Secret says so", call.seq));
        }
    }
    // Its event names the shop in `regarding`.
    let said = |word: &str| {
        api.iter().any(|seen| seen.method == "POST" && seen.body.contains(&case.shop) && seen.body.contains(word))
    };
    if meddling == Meddling::None && said("TokensReplaced") {
        verdict.problems.push("somebody is said to have replaced the tokens, and nobody has".to_owned());
    }
    // After a death TikTok may well have refused the token before the person came.
    let alive = lane.deaths.is_empty() && lane.stops.is_empty();
    let replaced_in_call =
        alive && meddling == Meddling::Replaced && !verdict.reauthorized && person.insisted.is_none();
    // What happened before that was true, though an event of it may wait behind another that is held.
    let said_since = |word: &str| {
        let is_since = |seen: &Seen| {
            let told = seen.json()["eventTime"].as_str().and_then(|at| chrono::DateTime::parse_from_rfc3339(at).ok());
            lane.replaced_at.zip(told).is_none_or(|(replaced, told)| told > replaced)
        };
        api.iter().any(|seen| {
            seen.method == "POST" && seen.body.contains(&case.shop) && seen.body.contains(word) && is_since(seen)
        })
    };
    if replaced_in_call && (said_since("ReauthorizationRequired") || said_since("must authorize the app again")) {
        verdict.problems.push("a new authorization is asked for although a person has just given one".to_owned());
    }
}

/// Did the process that made a call stand still for longer than its claim lives before another call?
/// Then the answer may lie with it, and the one who called again could not know.
fn stood_still(lane: &Lane, earlier: &Seen, call: &Seen) -> bool {
    let delivered = earlier.delivered_at.unwrap_or(earlier.received);
    let covers = |from: Instant, to: Instant| from <= delivered + CALL_TIMEOUT && to >= call.received;
    lane.stops.iter().any(|(from, to)| *to - *from > CLAIM_LIFE && covers(*from, *to))
}

/// May the operator say that it does not know an outcome?
async fn may_be_unknown(lane: &Lane, case: &Case) -> bool {
    let api = lane.api.requests();
    let claim = steps::fresh_claim(&lane.namespace, &case.shop);
    let persist = steps::persist(&lane.namespace, &case.shop);
    let settle = steps::settle(&lane.namespace, &case.shop);
    // A claim stood, and nothing that follows it had come, when its process died or stood still.
    let open_at = |from: Instant, to: Instant| {
        let claimed =
            api.iter().filter(|seen| claim(seen)).filter_map(|seen| seen.forwarded).filter(|at| *at <= to).max();
        let followed = |claimed: Instant| {
            api.iter().any(|seen| {
                let received = seen.received > claimed && seen.received <= from;
                received && (persist(seen) || (settle(seen) && seen.status.is_some_and(|status| status < 300)))
            })
        };
        claimed.is_some_and(|claimed| !followed(claimed))
    };
    let killed = lane.deaths.iter().any(|died| !died.leaves_tokens_of(&case.shop) && open_at(died.at, died.at));
    let stood_still = lane.stops.iter().any(|(from, to)| *to - *from > CLAIM_LIFE && open_at(*from, *to));
    if killed || stood_still {
        return true;
    }
    // Calls of which no forwarding is known were cut on their way: the process cannot tell.
    let cut = |seen: &Seen| steps::call()(seen) && seen.forwarded.is_none();
    if lane.tiktok.count(cut) > 0 {
        return true;
    }
    for (_, value, _) in credentials(lane, &case.shop).await {
        for (call, told) in calls(lane, case, &value).await {
            if matches!(outcome(lane, case, &call, told.as_ref()), Outcome::Unknown(_)) {
                return true;
            }
        }
    }
    false
}
