//! Secrets: read one, and the few conditional writes of the refresh transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use http::Request;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{ApiError, Cluster, JSON, merge_patch, wiped_body};
use crate::api::names::{
    FIELD_MANAGER, HANDLED_REFRESH_REQUEST, REFRESH_ATTEMPT, REFRESHED_AT, REFRESHED_FROM, REJECTED_TOKEN,
    SHOP_CIPHERS_KEY, SPENT_TOKENS, TOKENS_DIGEST,
};
use crate::tokens::{Digest, LATEST, SecretData, SecretText, SpentTokens, TokenKeyNames, TokenValues, encode};

/// A `resourceVersion` that a write can be made conditional on.
///
/// Never empty and never "0": the API server takes both as "whatever is there".
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version(Form);

#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Form {
    Number(u64),
    /// Anything else, numbers that are too large or written in another way included.
    Text(Box<str>),
}

impl Version {
    /// Takes a version as the API server gave it; `None` where it would make a write unconditional.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let number = text.parse().ok().filter(|_| is_plain);
        let form = number.map_or_else(|| Form::Text(text.into()), Form::Number);
        (!text.is_empty() && text != "0").then_some(Self(form))
    }

    /// Is this version at least as new as the other? Versions of one resource grow as numbers
    /// (KEP-5504); where they are none, only equality tells.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let number = |version: &Self| match &version.0 {
            Form::Number(number) => Some(u128::from(*number)),
            Form::Text(text) => text.parse::<u128>().ok(),
        };
        match (number(self), number(other)) {
            (Some(this), Some(that)) => this >= that,
            _ => self == other,
        }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Number(number) => number.fmt(f),
            Form::Text(text) => f.write_str(text),
        }
    }
}

/// A Secret as read from the API server. Its values are wiped when dropped.
#[derive(Debug)]
pub struct Secret {
    /// The object's UID.
    pub uid: String,
    /// The version read.
    pub version: Version,
    /// Is it marked immutable?
    pub immutable: bool,
    /// This operator's annotations, by full name.
    pub annotations: BTreeMap<String, String>,
    /// Its data.
    pub data: SecretData,
    /// Who wrote which keys of its data, as far as the API server keeps account.
    writers: Vec<Writer>,
}

/// One who wrote some of a Secret's data.
#[derive(Debug)]
struct Writer {
    name: String,
    /// RFC 3339, in whole seconds.
    time: String,
    keys: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSecret {
    metadata: WireMetadata,
    #[serde(default)]
    immutable: Option<bool>,
    #[serde(default)]
    data: SecretData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default, deserialize_with = "super::watched::own_annotations")]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    managed_fields: Vec<WireManager>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireManager {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    fields_v1: Option<WireFields>,
}

#[derive(Deserialize)]
#[allow(clippy::zero_sized_map_values, reason = "serde reads a JSON object into a map, not into a set of its keys")]
struct WireFields {
    #[serde(rename = "f:data", default)]
    data: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    /// Where a server-side apply wrote the values in clear.
    #[serde(rename = "f:stringData", default)]
    string_data: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

impl Secret {
    /// Who last wrote the value under a key, beside this operator.
    #[must_use]
    pub fn last_writer(&self, key: &str) -> Option<&str> {
        self.writers
            .iter()
            .filter(|writer| writer.keys.contains(key) && writer.name != FIELD_MANAGER)
            .max_by(|a, b| a.time.cmp(&b.time))
            .map(|writer| writer.name.as_str())
    }

    /// Reads the API server's answer.
    ///
    /// # Errors
    /// Where it is no Secret, or has no version; the error shows no value.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        // serde's error may quote a value: only the place is told.
        let wire: WireSecret = serde_json::from_slice(body).map_err(|error| {
            ApiError::lost(&format!(
                "the API server's answer is no Secret (line {}, column {})",
                error.line(),
                error.column()
            ))
        })?;
        let version = Version::new(&wire.metadata.resource_version)
            .ok_or_else(|| ApiError::lost("the API server's answer has no resourceVersion"))?;
        let writers = wire
            .metadata
            .managed_fields
            .into_iter()
            .filter_map(|entry| {
                let fields = entry.fields_v1?;
                let keys = [fields.data, fields.string_data].into_iter().flatten().flat_map(IntoIterator::into_iter);
                let keys = keys.filter_map(|(key, _)| key.strip_prefix("f:").map(ToOwned::to_owned)).collect();
                Some(Writer { name: entry.manager, time: entry.time, keys })
            })
            .collect();
        Ok(Self {
            uid: wire.metadata.uid,
            version,
            immutable: wire.immutable.unwrap_or(false),
            annotations: wire.metadata.annotations,
            data: wire.data,
            writers,
        })
    }
}

/// A write that touches the claim alone.
#[derive(Debug)]
pub struct ClaimWrite<'a> {
    /// The claim as JSON text; `None` removes it.
    pub claim: Option<&'a str>,
    /// Marks a request annotation's value as handled.
    pub handled: Option<&'a str>,
    /// Notes what is known to be spent, where that is more than stands there.
    pub spent: Option<&'a SpentTokens>,
    /// Notes that TikTok refused the token, as JSON text; `None` removes such a note.
    pub rejected: Option<&'a str>,
}

/// What a write of tokens does to the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimChange<'a> {
    /// Nothing: it is another's.
    Leave,
    /// Removes it.
    Remove,
    /// Puts this one in its place, as JSON text.
    Replace(&'a str),
}

/// The write of new tokens, with all that stands beside them.
pub struct TokenWrite<'a> {
    /// Under which keys the values go.
    pub keys: &'a TokenKeyNames,
    /// The pair to write. An unknown expiry removes its key.
    pub values: &'a TokenValues,
    /// When the answer came.
    pub refreshed_at: &'a str,
    /// Digest of the spent refresh token or authorization code.
    pub refreshed_from: Digest,
    /// All that is known to be spent, that one among it.
    pub spent: &'a SpentTokens,
    /// Digest of the pair.
    pub tokens_digest: Digest,
    /// The request annotation's value that this answers.
    pub handled: Option<&'a str>,
    /// What becomes of the claim.
    pub claim: ClaimChange<'a>,
    /// Remove the authorization code? Only the one that was spent for these tokens may go.
    pub remove_code: bool,
}

/// Stand-in values for the rehearsal: as long as the tokens that stand there.
///
/// # Panics
/// Never: the stand-ins are not empty.
#[must_use]
pub fn stand_ins(access_length: usize, refresh_length: usize) -> TokenValues {
    let stand_in =
        |length: usize| SecretText::new("x".repeat(length.max(1))).expect("a text of at least one x is not empty");
    TokenValues {
        access: stand_in(access_length),
        access_expires_at: Some(LATEST),
        refresh: stand_in(refresh_length),
        refresh_expires_at: Some(LATEST),
    }
}

#[derive(Serialize)]
struct Patch<'a> {
    metadata: PatchMetadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<BTreeMap<&'a str, Option<EncodedValue>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PatchMetadata<'a> {
    resource_version: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, Option<&'a str>>,
}

struct EncodedValue(Zeroizing<String>);

impl Serialize for EncodedValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Cluster {
    /// Reads a Secret.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn read_secret(&self, namespace: &str, name: &str) -> Result<Secret, ApiError> {
        let request = Request::get(path(namespace, name))
            .header(http::header::ACCEPT, JSON)
            .body(Bytes::new())
            .map_err(|error| ApiError::lost(&error.to_string()))?;
        Secret::parse(&self.send_in_turn(request).await?)
    }

    /// Writes or removes a claim on condition of a version.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn write_claim(
        &self,
        namespace: &str,
        name: &str,
        version: &Version,
        write: &ClaimWrite<'_>,
    ) -> Result<Secret, ApiError> {
        let mut annotations = BTreeMap::from([(REFRESH_ATTEMPT, write.claim), (REJECTED_TOKEN, write.rejected)]);
        if let Some(handled) = write.handled {
            annotations.insert(HANDLED_REFRESH_REQUEST, Some(handled));
        }
        let spent = write.spent.map(ToString::to_string);
        if let Some(spent) = &spent {
            annotations.insert(SPENT_TOKENS, Some(spent));
        }
        let patch =
            Patch { metadata: PatchMetadata { resource_version: version.to_string(), annotations }, data: None };
        self.patch_secret(namespace, name, &patch, false).await
    }

    /// Writes tokens on condition of a version; with `rehearse`, has the API server go through all
    /// of it (authorization, admission, validation) and store nothing.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn write_tokens(
        &self,
        namespace: &str,
        name: &str,
        version: &Version,
        write: &TokenWrite<'_>,
        rehearse: bool,
    ) -> Result<Secret, ApiError> {
        let (from, digest) = (write.refreshed_from.to_string(), write.tokens_digest.to_string());
        let spent = write.spent.to_string();
        let mut annotations = BTreeMap::from([
            (REFRESHED_AT, Some(write.refreshed_at)),
            (REFRESHED_FROM, Some(from.as_str())),
            (SPENT_TOKENS, Some(spent.as_str()).filter(|spent| !spent.is_empty())),
            (TOKENS_DIGEST, Some(digest.as_str())),
            (REJECTED_TOKEN, None),
        ]);
        match write.claim {
            ClaimChange::Leave => {}
            ClaimChange::Remove => drop(annotations.insert(REFRESH_ATTEMPT, None)),
            ClaimChange::Replace(claim) => drop(annotations.insert(REFRESH_ATTEMPT, Some(claim))),
        }
        if let Some(handled) = write.handled {
            annotations.insert(HANDLED_REFRESH_REQUEST, Some(handled));
        }
        let (keys, values) = (write.keys, write.values);
        let expiry = |at: Option<i64>| at.map(|at| EncodedValue(encode(&at.to_string())));
        let mut data = BTreeMap::from([
            (&*keys.access_token, Some(EncodedValue(encode(values.access.expose())))),
            (&*keys.access_token_expire_in, expiry(values.access_expires_at)),
            (&*keys.refresh_token, Some(EncodedValue(encode(values.refresh.expose())))),
            (&*keys.refresh_token_expire_in, expiry(values.refresh_expires_at)),
        ]);
        if write.remove_code {
            // A code is read only where its key is none of these: no token can go with it.
            data.entry(&*keys.auth_code).or_insert(None);
        }
        let patch =
            Patch { metadata: PatchMetadata { resource_version: version.to_string(), annotations }, data: Some(data) };
        self.patch_secret(namespace, name, &patch, rehearse).await
    }

    /// Writes the shops' ciphers, and nothing else, on condition of a version.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn write_ciphers(
        &self,
        namespace: &str,
        name: &str,
        version: &Version,
        ciphers: &str,
    ) -> Result<Secret, ApiError> {
        let data = BTreeMap::from([(SHOP_CIPHERS_KEY, Some(EncodedValue(encode(ciphers))))]);
        let metadata = PatchMetadata { resource_version: version.to_string(), annotations: BTreeMap::new() };
        self.patch_secret(namespace, name, &Patch { metadata, data: Some(data) }, false).await
    }

    async fn patch_secret(
        &self,
        namespace: &str,
        name: &str,
        change: &Patch<'_>,
        dry_run: bool,
    ) -> Result<Secret, ApiError> {
        let parameter = if dry_run { "&dryRun=All" } else { "" };
        let target = format!("{}?fieldManager={FIELD_MANAGER}{parameter}", path(namespace, name));
        let request = merge_patch(&target, JSON, wiped_body(change)?)?;
        let stores_tokens = change.data.is_some() && !dry_run;
        Secret::parse(&if stores_tokens { self.send(request).await } else { self.send_in_turn(request).await }?)
    }
}

fn path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_would_make_a_write_unconditional_is_none() {
        assert!(Version::new("").is_none());
        assert!(Version::new("0").is_none());
        assert!(Version::new("7").is_some());
    }

    #[test]
    fn a_version_shows_as_the_api_server_wrote_it() {
        for text in ["7", "007", "+7", "18446744073709551615", "18446744073709551616", "1e3", "abc", "00"] {
            assert_eq!(Version::new(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn versions_are_compared_as_numbers_where_they_are_numbers() {
        let version = |text| Version::new(text).unwrap();
        assert!(version("10").covers(&version("9")));
        assert!(!version("9").covers(&version("10")));
        assert!(version("abc").covers(&version("abc")));
        assert!(!version("abd").covers(&version("abc")));
    }

    #[test]
    fn the_one_who_last_wrote_a_value_is_known_by_name() {
        let secret = Secret::parse(
            br#"{"metadata":{"uid":"u","resourceVersion":"5","managedFields":[
                {"manager":"creator","time":"2026-01-02T00:00:00Z","fieldsV1":{"f:data":{".":{},"f:b":{}}}},
                {"manager":"argocd","time":"2026-01-01T00:00:00Z","fieldsV1":{"f:data":{"f:a":{}}}},
                {"manager":"labeler","time":"2026-01-03T00:00:00Z","fieldsV1":{"f:metadata":{}}},
                {"manager":"kubectl","time":"2026-01-01T00:00:00Z","fieldsV1":{"f:stringData":{"f:d":{}}}}]}}"#,
        )
        .unwrap();
        assert_eq!(secret.last_writer("d"), Some("kubectl"));
        assert_eq!(secret.last_writer("a"), Some("argocd"));
        assert_eq!(secret.last_writer("c"), None);
    }

    #[test]
    fn an_answer_that_is_no_secret_is_not_quoted() {
        let error =
            Secret::parse(br#"{"metadata":{"uid":"u","resourceVersion":"5"},"data":{"a":"hunter2!"}}"#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
