//! From a Secret, or from the status where that already tells, to plain facts.

use std::collections::BTreeMap;

use super::agenda::{Code, Held, Known, Lacking, Metadata, ReadFacts, Rejected};
use super::claims::Claims;
use super::resting::Uid;
use crate::api::names::{
    HANDLED_REFRESH_REQUEST, REFRESH_ATTEMPT, REFRESHED_AT, REFRESHED_FROM, REJECTED_TOKEN, SPENT_TOKENS, TOKENS_DIGEST,
};
use crate::api::{TikTokShopIntegrationStatus, timestamp};
use crate::cluster::Secret;
use crate::decide::{CodeFacts, TokenFacts};
use crate::tiktok::REQUEST_ID_LIMIT;
use crate::tokens::{Digest, DigestKey, ParsedTokens, SpentTokens, TokenKeyNames};
use crate::transaction::Rejection;

/// What the annotations on a token Secret say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notes {
    /// Does a claim stand there?
    pub claimed: bool,
    pub refreshed_at: Option<i64>,
    pub refreshed_from: Option<Digest>,
    pub spent: SpentTokens,
    pub tokens_digest: Option<Digest>,
    pub handled: Option<Box<str>>,
}

impl Notes {
    pub(super) fn read(annotations: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| annotations.get(name).map(String::as_str);
        Self {
            claimed: annotations.contains_key(REFRESH_ATTEMPT),
            refreshed_at: text(REFRESHED_AT).and_then(timestamp::seconds),
            refreshed_from: text(REFRESHED_FROM).and_then(Digest::parse),
            spent: text(SPENT_TOKENS).map(SpentTokens::parse).unwrap_or_default(),
            tokens_digest: text(TOKENS_DIGEST).and_then(Digest::parse),
            handled: text(HANDLED_REFRESH_REQUEST).map(Into::into),
        }
    }
}

/// What a read of a token Secret tells, and what is odd about it.
pub(super) struct Reading {
    pub known: Known,
    /// Words for a warning event, one for each value that can't be read.
    pub problems: Vec<String>,
}

/// Facts from a Secret that was just read.
pub(super) fn from_secret(
    secret: &Secret,
    keys: &TokenKeyNames,
    integration_uid: &str,
    claims: &Claims,
    now: i64,
) -> Reading {
    let parsed = ParsedTokens::parse(&secret.data, keys);
    let problems = parsed.problems.iter().map(ToString::to_string).collect();
    let digests = DigestKey::new(integration_uid);
    let notes = Notes::read(&secret.annotations);
    let claim_about = |credential| {
        secret.annotations.get(REFRESH_ATTEMPT).and_then(|text| claims.facts(text, integration_uid, credential, now))
    };
    let code = parsed.code.as_ref().map(|code| {
        let digest = digests.token(code);
        let refresh = parsed.refresh.as_ref().map(|refresh| digests.token(refresh));
        let spent = notes.spent.without(digest);
        Code {
            digest,
            facts: CodeFacts {
                known_spent: notes.refreshed_from == Some(digest) || notes.spent.contains(digest),
                immutable: secret.immutable,
                claim: claim_about(digest),
            },
            pair: digests.pair(parsed.access.as_ref(), parsed.refresh.as_ref()),
            refresh,
            spent_before: refresh.map_or_else(|| spent.clone(), |refresh| spent.with(refresh)),
            lengths: parsed
                .access
                .as_ref()
                .zip(parsed.refresh.as_ref())
                .map(|(access, refresh)| (access.expose().len(), refresh.expose().len())),
        }
    });
    let (Some(access), Some(refresh)) = (&parsed.access, &parsed.refresh) else {
        let known = Known::Missing(Box::new(Lacking {
            uid: secret.uid.as_str().into(),
            version: secret.version.clone(),
            what: parsed.missing.to_string().into(),
            access_expires_at: parsed.access_expires_at,
            has_access: parsed.access.is_some(),
            handled: notes.handled,
            code,
        }));
        return Reading { known, problems };
    };
    let (refresh_digest, pair) = (digests.token(refresh), digests.pair(Some(access), Some(refresh)));
    let ours = notes.tokens_digest == Some(pair);
    let facts = TokenFacts {
        pair,
        access_expires_at: parsed.access_expires_at,
        refresh_expires_at: parsed.refresh_expires_at,
        born_at: notes.refreshed_at.filter(|_| ours),
        immutable: secret.immutable,
        // A token that was spent for a newer pair stands there again, and not as that newer pair.
        known_spent: !ours && (notes.refreshed_from == Some(refresh_digest) || notes.spent.contains(refresh_digest)),
        claim: claim_about(refresh_digest),
    };
    // A claim for this token tells of a later call.
    let rejected = rejected(secret, refresh_digest).filter(|_| facts.claim.is_none()).map(Box::new);
    let known = Known::Held(Box::new(Held {
        uid: secret.uid.as_str().into(),
        version: secret.version.clone(),
        facts,
        handled: notes.handled,
        read: Some(ReadFacts {
            refresh: refresh_digest,
            spent_before: notes.spent.without(refresh_digest),
            refreshed_at: notes.refreshed_at,
            lengths: (access.expose().len(), refresh.expose().len()),
            manager: secret.last_writer(&keys.refresh_token).map(Into::into),
            rejected,
        }),
        code,
    }));
    Reading { known, problems }
}

/// What a Secret says of a refusal of the refresh token in it.
fn rejected(secret: &Secret, refresh: Digest) -> Option<Rejected> {
    let Rejection { at, code, request_id, .. } = Rejection::parse(secret.annotations.get(REJECTED_TOKEN)?, refresh)?;
    let at = timestamp::seconds(&at)?;
    // Anybody may write annotations: no name of TikTok's is longer than this.
    let request_id = request_id.filter(|id| id.len() <= REQUEST_ID_LIMIT).map(Into::into);
    Some(Rejected { at, code, request_id })
}

/// Facts from the status, where it speaks of the very version that the metadata watch shows: at
/// start, a fleet at rest is scheduled without reading a Secret. `None` where a read must tell: also
/// where an authorization code stood there that might give tokens, of which the status says no digest.
pub(super) fn from_status(status: &TikTokShopIntegrationStatus, metadata: &Metadata) -> Option<Known> {
    let observed = status.observed_token_secret.as_ref()?;
    if Uid::pack(&observed.uid) != metadata.uid || observed.resource_version != metadata.version.to_string() {
        return None;
    }
    let pair = Digest::parse(observed.tokens_digest.as_deref()?)?;
    let notes = metadata.notes.as_deref().filter(|notes| !notes.claimed)?;
    let facts = TokenFacts {
        pair,
        // Without an expiry the status can't tell "unknown" from "not yet written".
        access_expires_at: Some(status.access_token_expires_at?.timestamp()),
        refresh_expires_at: status.refresh_token_expires_at.map(|at| at.timestamp()),
        born_at: notes.refreshed_at.filter(|_| notes.tokens_digest == Some(pair)),
        immutable: false,
        known_spent: false,
        claim: None,
    };
    let settled = status
        .condition(crate::api::ConditionType::Ready)
        .and_then(crate::api::Condition::known_reason)
        .is_some_and(|reason| !reason.is_about_secrets());
    settled.then(|| {
        Known::Held(Box::new(Held {
            uid: metadata.uid.unpack().into(),
            version: metadata.version.clone(),
            facts,
            handled: notes.handled.clone(),
            read: None,
            code: None,
        }))
    })
}
