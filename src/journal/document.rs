//! The form of an entry in its file.
//!
//! One JSON document, ended by a newline:
//!
//! ```text
//! {"format":1,"length":812,"sha256":"<64 hex digits>","entry":{…}}
//! ```
//!
//! `length` and `sha256` are those of the bytes of `entry`'s value: a flipped bit in a token is found
//! out, not spent. What stands behind the document is not looked at: it may be what is left of the reserve.
//! An entry with the member `answer` is an answer, any other an intent.

use std::fmt;
use std::io;

use aws_lc_rs::digest;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{Answer, Intent, Key, Seller};
use crate::api::names::DEFAULT_AUTH_CODE_KEY;
use crate::hex;
use crate::tokens::{Digest, SecretText, SpentTokens};

/// The smallest reserve, in bytes. An intent takes about 1 KiB, an answer rarely more than 2 KiB.
const SMALLEST: usize = 8 * 1024;

/// What an answer may add to its intent before it outgrows the space reserved for it, in bytes.
const ANSWER_SHARE: usize = 6 * 1024;

/// Room is reserved by whole pages.
const PAGE: usize = 4096;

/// The content of one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Document {
    Intent(Intent),
    Answer(Answer),
}

impl Document {
    pub(super) const fn intent(&self) -> &Intent {
        match self {
            Self::Intent(intent) | Self::Answer(Answer { intent, .. }) => intent,
        }
    }
}

/// Why bytes are no entry. Says nothing of what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// Spaces or zeros alone: a reserve that was never used.
    Blank,
    /// Anything else, with the reason.
    Other(&'static str),
}

/// The whole file of an intent.
pub(super) fn encode_intent(intent: &Intent) -> Zeroizing<Vec<u8>> {
    encode(intent, None)
}

/// How much room to reserve for the answer to an intent that takes so many bytes.
pub(super) fn reserve(intent: usize) -> usize {
    (intent + ANSWER_SHARE).next_multiple_of(PAGE).max(SMALLEST)
}

/// The whole file of an answer.
pub(super) fn encode_answer(answer: &Answer) -> Zeroizing<Vec<u8>> {
    let more = WrittenAnswer {
        access_token: Exposed(&answer.access_token),
        access_expires_at: answer.access_expires_at,
        refresh_token: answer.refresh_token.as_ref().map(Exposed),
        refresh_expires_at: answer.refresh_expires_at,
        answered_at: answer.answered_at,
        open_id: answer.seller.open_id.as_deref(),
        seller_name: answer.seller.name.as_deref(),
        seller_base_region: answer.seller.base_region.as_deref(),
        user_type: answer.seller.user_type,
    };
    encode(&answer.intent, Some(more))
}

fn encode(intent: &Intent, answer: Option<WrittenAnswer<'_>>) -> Zeroizing<Vec<u8>> {
    let entry = WrittenEntry {
        namespace: &intent.key.namespace,
        name: &intent.key.name,
        integration_uid: &intent.integration_uid,
        team: intent.team.as_deref(),
        secret_name: &intent.secret_name,
        token_keys: &intent.token_keys,
        auth_code_key: &intent.auth_code_key,
        exchange: intent.exchange,
        claim_id: &intent.claim_id,
        process: &intent.process,
        from: intent.from.to_string(),
        access_from: intent.access_from.to_string(),
        spent_before: intent.spent_before.to_string(),
        request: intent.request.as_deref(),
        presented: intent.presented,
        at: intent.at,
        answer,
    };
    // Measured first and written into a buffer that never grows: a growing one would leave copies
    // of the tokens behind in freed memory.
    let mut measure = Measure(0);
    serde_json::to_writer(&mut measure, &entry).expect("text and numbers have a JSON form");
    let mut body = Zeroizing::new(Vec::with_capacity(measure.0));
    serde_json::to_writer(&mut *body, &entry).expect("what was measured can be written");
    let head = format!("{{\"format\":1,\"length\":{},\"sha256\":\"{}\",\"entry\":", body.len(), checksum(&body));
    let mut bytes = Zeroizing::new(Vec::with_capacity(head.len() + body.len() + 2));
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(b"}\n");
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Document, Damage> {
    if bytes.iter().all(|byte| matches!(byte, b' ' | b'\n' | 0)) {
        return Err(Damage::Blank);
    }
    let rest = after(bytes, b"{\"format\":")?;
    let (format, rest) = number(rest)?;
    if format != 1 {
        return Err(Damage::Other("its format is not one that this version reads"));
    }
    let (length, rest) = number(after(rest, b",\"length\":")?)?;
    let rest = after(rest, b",\"sha256\":\"")?;
    let (sum, rest) = rest.split_at_checked(64).ok_or(CUT)?;
    let rest = after(rest, b"\",\"entry\":")?;
    let (body, rest) = rest.split_at_checked(length).ok_or(CUT)?;
    after(rest, b"}")?;
    if sum != checksum(body).as_bytes() {
        return Err(Damage::Other("its checksum does not fit"));
    }
    // serde_json's error would quote what it could not read. It hands out strings straight from
    // `bytes`; only ones with escapes, which no token has, pass through memory of its own.
    let entry: ReadEntry =
        serde_json::from_slice(body).map_err(|_| Damage::Other("its fields are not those of format 1"))?;
    entry.into_document().ok_or(Damage::Other("it holds a digest that is none"))
}

const CUT: Damage = Damage::Other("it is cut short");

fn after<'a>(bytes: &'a [u8], expected: &[u8]) -> Result<&'a [u8], Damage> {
    bytes.strip_prefix(expected).ok_or(Damage::Other("it does not have the form of a journal entry"))
}

fn number(bytes: &[u8]) -> Result<(usize, &[u8]), Damage> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at(digits);
    let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
    Ok((number.ok_or(Damage::Other("it does not have the form of a journal entry"))?, rest))
}

fn checksum(bytes: &[u8]) -> String {
    hex::text(digest::digest(&digest::SHA256, bytes).as_ref())
}

struct Measure(usize);

impl io::Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A token on its way into the file. `SecretText` itself has no serde on purpose.
struct Exposed<'a>(&'a SecretText);

impl Serialize for Exposed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

/// A token on its way out of the file: taken from the wiped buffer straight into a `SecretText`.
struct Sealed(SecretText);

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seal;
        impl Visitor<'_> for Seal {
            type Value = Sealed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Sealed, E> {
                let token = SecretText::from_bytes(value.as_bytes()).ok().flatten();
                token.map(Sealed).ok_or_else(|| E::custom("an empty token"))
            }
        }
        deserializer.deserialize_str(Seal)
    }
}

#[derive(Serialize)]
struct WrittenEntry<'a> {
    namespace: &'a str,
    name: &'a str,
    integration_uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<&'a str>,
    secret_name: &'a str,
    token_keys: &'a [String; 4],
    auth_code_key: &'a str,
    exchange: bool,
    claim_id: &'a str,
    process: &'a str,
    from: String,
    access_from: String,
    spent_before: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    presented: u32,
    at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<WrittenAnswer<'a>>,
}

#[derive(Serialize)]
struct WrittenAnswer<'a> {
    access_token: Exposed<'a>,
    access_expires_at: Option<i64>,
    refresh_token: Option<Exposed<'a>>,
    refresh_expires_at: Option<i64>,
    answered_at: i64,
    open_id: Option<&'a str>,
    seller_name: Option<&'a str>,
    seller_base_region: Option<&'a str>,
    user_type: Option<i64>,
}

#[derive(Deserialize)]
struct ReadEntry {
    namespace: String,
    name: String,
    integration_uid: String,
    team: Option<String>,
    secret_name: String,
    token_keys: [String; 4],
    // An entry from before there were exchanges has neither of these two, and is of a refresh. To a version from then
    // an exchange is a refresh of a token that is not there, which stores the answer over what is in `spent_before`.
    #[serde(default = "usual_auth_code_key")]
    auth_code_key: String,
    #[serde(default)]
    exchange: bool,
    claim_id: String,
    process: String,
    from: String,
    access_from: String,
    spent_before: Option<String>,
    request: Option<String>,
    presented: u32,
    at: i64,
    answer: Option<ReadAnswer>,
}

fn usual_auth_code_key() -> String {
    DEFAULT_AUTH_CODE_KEY.to_owned()
}

#[derive(Deserialize)]
struct ReadAnswer {
    access_token: Sealed,
    access_expires_at: Option<i64>,
    refresh_token: Option<Sealed>,
    refresh_expires_at: Option<i64>,
    answered_at: i64,
    open_id: Option<String>,
    seller_name: Option<String>,
    seller_base_region: Option<String>,
    user_type: Option<i64>,
}

impl ReadEntry {
    fn into_document(self) -> Option<Document> {
        let intent = Intent {
            key: Key { namespace: self.namespace, name: self.name },
            integration_uid: self.integration_uid,
            team: self.team,
            secret_name: self.secret_name,
            token_keys: self.token_keys,
            auth_code_key: self.auth_code_key,
            exchange: self.exchange,
            claim_id: self.claim_id,
            process: self.process,
            from: Digest::parse(&self.from)?,
            access_from: Digest::parse(&self.access_from)?,
            spent_before: SpentTokens::parse(&self.spent_before.unwrap_or_default()),
            request: self.request,
            presented: self.presented,
            at: self.at,
        };
        let Some(answer) = self.answer else {
            return Some(Document::Intent(intent));
        };
        Some(Document::Answer(Answer {
            intent,
            access_token: answer.access_token.0,
            access_expires_at: answer.access_expires_at,
            refresh_token: answer.refresh_token.map(|token| token.0),
            refresh_expires_at: answer.refresh_expires_at,
            answered_at: answer.answered_at,
            seller: Seller {
                open_id: answer.open_id,
                name: answer.seller_name,
                base_region: answer.seller_base_region,
                user_type: answer.user_type,
            },
        }))
    }
}
