//! The JSON that `TikTok` answers with.

use std::fmt;
use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroize;

use super::expiry::read_expiry;
use super::scrub::Scrubber;
use crate::tokens::SecretText;

/// The longest that a field of [`Seller`] gets, in bytes.
const SELLER_LIMIT: usize = 256;
/// The longest that a request id gets, in bytes.
pub const REQUEST_ID_LIMIT: usize = 128;

/// What a refresh granted. It may be the only copy of the only refresh token that still works.
#[derive(Debug)]
pub struct Grant {
    /// The new access token.
    pub access_token: SecretText,
    /// When it expires, in Unix seconds; `None` where the answer does not say.
    pub access_expires_at: Option<i64>,
    /// The new refresh token; `None` where the answer holds none, and so the old one stays.
    pub refresh_token: Option<SecretText>,
    /// When the refresh token expires, in Unix seconds; `None` where the answer does not say.
    pub refresh_expires_at: Option<i64>,
    /// Whose tokens they are.
    pub seller: Seller,
    /// `TikTok`'s name for this call, for its support; at most 128 bytes.
    pub request_id: Option<String>,
}

/// Whose tokens an answer holds. Texts are of one line and at most 256 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seller {
    /// `open_id`.
    pub open_id: Option<String>,
    /// `seller_name`; seen to be null.
    pub name: Option<String>,
    /// `seller_base_region`, a country code such as `VN`.
    pub base_region: Option<String>,
    /// `user_type`: 0 for sellers, 1 for creators (as SDKs have it).
    pub user_type: Option<i64>,
}

/// An answer in `TikTok`'s own form: an object with a whole number as `code`.
pub(super) struct Envelope {
    /// 0 for success, whatever the HTTP status (seen live: errors come with HTTP 200).
    pub(super) code: i64,
    /// `TikTok`'s own words; empty where it says nothing.
    pub(super) message: String,
    request_id: Option<String>,
    data: Data,
    /// Of the tokens in this very answer, which may be new and alive though it says that it failed.
    own: Scrubber,
}

impl Envelope {
    /// Reads a body; `None` where it is no envelope.
    ///
    /// A field of a wrong type counts as absent, except for `code`: an answer may be the only copy of a token, and a
    /// seller's name must not be what loses it.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        // A byte order mark, which a proxy may add: no reason to lose a token.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        // Without this, serde would take an array as a struct.
        if !body.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        // The second try skips all texts that no decision needs: one that is no UTF-8 fails the first.
        let wire =
            serde_json::from_slice::<Wire>(body).or_else(|_| serde_json::from_slice::<Core>(body).map(Wire::from));
        // The parser's error is dropped: it may show a value.
        let wire = wire.ok()?;
        let data = wire.data.0;
        let own: Vec<&SecretText> = [&data.access_token.0, &data.refresh_token.0].into_iter().flatten().collect();
        let own = Scrubber::new(&own);
        Some(Self {
            code: wire.code.0?,
            message: wire.message.0.unwrap_or_default(),
            request_id: wire.request_id.0,
            data,
            own,
        })
    }

    /// Takes the tokens out of a success; `None` where it is none, or holds no usable access token.
    pub(super) fn take_grant(&mut self, now: DateTime<Utc>, scrubber: &Scrubber) -> Option<Grant> {
        if self.code != 0 {
            return None;
        }
        let data = &mut self.data;
        let access_token = data.access_token.0.take()?;
        let refresh_token = data.refresh_token.0.take();
        let own = &self.own;
        let quote = |text: &Text| {
            let text = text.0.as_deref().map(|text| own.quote(&scrubber.quote(text, usize::MAX), SELLER_LIMIT));
            text.filter(|text| !text.is_empty())
        };
        let seller = Seller {
            open_id: quote(&data.open_id),
            name: quote(&data.seller_name),
            base_region: quote(&data.seller_base_region),
            user_type: data.user_type.0,
        };
        Some(Grant {
            access_expires_at: read_expiry(data.access_token_expire_in.0, now),
            refresh_expires_at: read_expiry(data.refresh_token_expire_in.0, now),
            access_token,
            refresh_token,
            seller,
            request_id: self.request_id(scrubber),
        })
    }

    /// Is it the error of a gateway or another API that repeats the HTTP status as its code, as Kubernetes does?
    /// TikTok's codes have another size, and its errors name the request.
    pub(super) fn repeats(&self, status: StatusCode) -> bool {
        self.code == i64::from(status.as_u16()) && self.request_id.is_none()
    }

    /// `TikTok`'s name for this call, fit to be shown.
    pub(super) fn request_id(&self, scrubber: &Scrubber) -> Option<String> {
        let id = self.request_id.as_deref().map(|id| self.quote(id, scrubber, REQUEST_ID_LIMIT));
        id.filter(|id| !id.is_empty())
    }

    /// A text of this answer, fit to be shown: scrubbed of what was sent and of the tokens in the answer.
    pub(super) fn quote(&self, text: &str, scrubber: &Scrubber, limit: usize) -> String {
        self.own.quote(&scrubber.quote(text, usize::MAX), limit)
    }
}

#[derive(serde::Deserialize)]
struct Wire {
    #[serde(default)]
    code: Number,
    #[serde(default)]
    message: Text,
    #[serde(default)]
    request_id: Text,
    #[serde(default)]
    data: Object<Data>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Data {
    access_token: Secret,
    access_token_expire_in: Number,
    refresh_token: Secret,
    refresh_token_expire_in: Number,
    open_id: Text,
    seller_name: Text,
    seller_base_region: Text,
    user_type: Number,
}

/// What a decision needs of an answer.
#[derive(serde::Deserialize)]
struct Core {
    #[serde(default)]
    code: Number,
    #[serde(default)]
    data: Object<CoreData>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct CoreData {
    access_token: Secret,
    access_token_expire_in: Number,
    refresh_token: Secret,
    refresh_token_expire_in: Number,
}

impl From<Core> for Wire {
    fn from(Core { code, data: Object(data) }: Core) -> Self {
        let data = Data {
            access_token: data.access_token,
            access_token_expire_in: data.access_token_expire_in,
            refresh_token: data.refresh_token,
            refresh_token_expire_in: data.refresh_token_expire_in,
            ..Data::default()
        };
        Self { code, message: Text(None), request_id: Text(None), data: Object(data) }
    }
}

/// What the visitor below makes of JSON values; what it does not take becomes the default.
trait Lenient: Default {
    fn text(_: &str) -> Self {
        Self::default()
    }

    fn integer(_: i64) -> Self {
        Self::default()
    }

    /// One that no `i64` holds.
    fn large(_: u64) -> Self {
        Self::integer(i64::MAX)
    }

    fn float(number: f64) -> Self {
        whole(number).map(Self::integer).unwrap_or_default()
    }

    fn object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

/// A token, which goes from the answer's buffer straight into memory that is wiped.
#[derive(Default)]
pub(super) struct Secret(pub(super) Option<SecretText>);

impl Lenient for Secret {
    fn text(text: &str) -> Self {
        Self(SecretText::from_bytes(text.as_bytes()).ok().flatten())
    }
}

/// A text, or a whole number as one; nothing where digits of it would be lost.
#[derive(Default)]
pub(super) struct Text(pub(super) Option<String>);

impl Lenient for Text {
    fn text(text: &str) -> Self {
        Self(Some(text.to_owned()))
    }

    fn integer(number: i64) -> Self {
        Self(Some(number.to_string()))
    }

    fn large(number: u64) -> Self {
        Self(Some(number.to_string()))
    }

    fn float(number: f64) -> Self {
        Self(whole(number).filter(|_| number.abs() < EXACT_FLOATS_END).map(|number| number.to_string()))
    }
}

/// A whole number: as such, as a float without a fraction, or as a text of either.
#[derive(Default)]
struct Number(Option<i64>);

impl Lenient for Number {
    fn text(text: &str) -> Self {
        let text = text.trim();
        Self(text.parse().ok().or_else(|| text.parse().ok().and_then(whole)))
    }

    fn integer(number: i64) -> Self {
        Self(Some(number))
    }
}

/// An object's fields.
#[derive(Default)]
struct Object<T>(T);

impl<T: Default + DeserializeOwned> Lenient for Object<T> {
    fn object<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Self)
    }
}

/// From here on a float may be another number than the one that was written: 2^53.
const EXACT_FLOATS_END: f64 = 9_007_199_254_740_992.0;

/// The integer that a float is, where it is one; beyond 64 bits the nearest.
fn whole(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "it has no fraction, and the cast saturates")]
    (number.fract() == 0.0).then_some(number as i64)
}

struct LenientVisitor<T>(PhantomData<T>);

impl<'de, T: Lenient> Visitor<'de> for LenientVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::text(text))
    }

    fn visit_string<E>(self, mut text: String) -> Result<T, E> {
        let value = T::text(&text);
        text.zeroize();
        Ok(value)
    }

    fn visit_i64<E>(self, number: i64) -> Result<T, E> {
        Ok(T::integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok(i64::try_from(number).map_or_else(|_| T::large(number), T::integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<T, E> {
        Ok(T::float(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<T, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::object(map)
    }
}

macro_rules! deserialize_leniently {
    ($($kind:ty),*) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(LenientVisitor(PhantomData))
            }
        }
    )*};
}

deserialize_leniently!(Secret, Text, Number, Object<Data>, Object<CoreData>);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_720_000_000;

    fn grant(body: impl AsRef<[u8]>) -> Option<Grant> {
        let scrubber = Scrubber::new(&[&SecretText::new("the-spent-refresh-token".to_owned()).unwrap()]);
        Envelope::parse(body.as_ref())?.take_grant(DateTime::from_timestamp(NOW, 0).unwrap(), &scrubber)
    }

    #[test]
    fn a_live_answer_is_read_whole() {
        let grant = grant(
            r#"{"code":0,"message":"success","request_id":"2024070412","data":{
                "access_token":"TTP_a","access_token_expire_in":1720604800,
                "refresh_token":"TTP_r","refresh_token_expire_in":4900000000,
                "open_id":"o1","seller_name":"Shop \u00e9","seller_base_region":"VN","user_type":0,
                "granted_scopes":["seller.authorization.info"]}}"#,
        )
        .unwrap();
        assert_eq!(grant.access_token.expose(), "TTP_a");
        assert_eq!(grant.access_expires_at, Some(1_720_604_800));
        assert_eq!(grant.refresh_token.unwrap().expose(), "TTP_r");
        assert_eq!(grant.refresh_expires_at, Some(4_900_000_000));
        assert_eq!(grant.request_id.as_deref(), Some("2024070412"));
        let seller = Seller {
            open_id: Some("o1".to_owned()),
            name: Some("Shop é".to_owned()),
            base_region: Some("VN".to_owned()),
            user_type: Some(0),
        };
        assert_eq!(grant.seller, seller);
    }

    #[test]
    fn a_body_is_an_envelope_when_it_is_an_object_with_a_whole_number_as_code() {
        for (body, code) in [
            (r#"{"code":0}"#, Some(0)),
            (r#" {"code":36004005,"data":null}"#, Some(36_004_005)),
            (r#"{"code":"36004005","data":""}"#, Some(36_004_005)),
            (r#"{"code":0.0,"data":[1]}"#, Some(0)),
            (r#"{"code":-1,"message":null,"request_id":{}}"#, Some(-1)),
            ("", None),
            ("[0]", None),
            ("0", None),
            ("{}", None),
            (r#"{"code":null}"#, None),
            (r#"{"code":""}"#, None),
            (r#"{"code":true}"#, None),
            (r#"{"code":0.5}"#, None),
            (r#"{"code":"ok"}"#, None),
            (r#"{"code":0"#, None),
            (r#"{"code":0}{"#, None),
            (r#"{"code":0,"code":1}"#, None),
            ("<html></html>", None),
        ] {
            assert_eq!(Envelope::parse(body.as_bytes()).map(|envelope| envelope.code), code, "{body}");
        }
    }

    #[test]
    fn a_success_without_a_usable_access_token_grants_nothing() {
        for data in [
            "null",
            "{}",
            "[]",
            "\"TTP_a\"",
            r#"{"access_token":null}"#,
            r#"{"access_token":""}"#,
            r#"{"access_token":" \n"}"#,
            r#"{"access_token":1}"#,
            r#"{"access_token":["TTP_a"]}"#,
            r#"{"access_token":{"value":"TTP_a"}}"#,
            r#"{"refresh_token":"TTP_r"}"#,
        ] {
            assert!(grant(format!(r#"{{"code":0,"data":{data}}}"#)).is_none(), "{data}");
        }
        assert!(grant(r#"{"code":1,"data":{"access_token":"TTP_a"}}"#).is_none());
    }

    #[test]
    fn a_field_of_a_wrong_type_does_not_lose_the_tokens_beside_it() {
        let odd = grant(
            r#"{"code":"0","message":{},"request_id":7,"data":{"access_token":" TTP_a\n","access_token_expire_in":"1720604800",
                "refresh_token":false,"refresh_token_expire_in":[1],"open_id":12,"seller_name":null,
                "seller_base_region":{},"user_type":"1"}}"#,
        )
        .unwrap();
        assert_eq!(odd.access_token.expose(), "TTP_a");
        assert_eq!(odd.access_expires_at, Some(1_720_604_800));
        assert!(odd.refresh_token.is_none());
        assert_eq!(odd.refresh_expires_at, None);
        assert_eq!(odd.request_id.as_deref(), Some("7"));
        let seller = Seller { open_id: Some("12".to_owned()), user_type: Some(1), ..Seller::default() };
        assert_eq!(odd.seller, seller);

        let float = grant(r#"{"code":0,"data":{"access_token":"a","access_token_expire_in":1.7206048e9}}"#).unwrap();
        assert_eq!(float.access_expires_at, Some(1_720_604_800));

        for (id, expected) in [
            ("18446744073709551615", Some("18446744073709551615")),
            ("7.0", Some("7")),
            ("1234567890123456789012345678", None),
            ("9007199254740993.0", None),
        ] {
            let body = format!(r#"{{"code":0,"request_id":{id},"data":{{"access_token":"a","open_id":{id}}}}}"#);
            let grant = grant(body).unwrap();
            assert_eq!((grant.request_id.as_deref(), grant.seller.open_id.as_deref()), (expected, expected), "{id}");
        }
    }

    #[test]
    fn a_seller_name_that_is_no_unicode_does_not_lose_the_tokens_beside_it() {
        for name in [&b"\xff"[..], b"\\ud83d"] {
            let mut body = br#"{"code":0,"data":{"seller_name":""#.to_vec();
            body.extend_from_slice(name);
            body.extend_from_slice(
                br#"","access_token":"TTP_a","refresh_token":"TTP_r","refresh_token_expire_in":4900000000}}"#,
            );
            let grant = grant(&body).unwrap();
            assert_eq!(grant.access_token.expose(), "TTP_a");
            assert_eq!(grant.refresh_token.unwrap().expose(), "TTP_r");
            assert_eq!(grant.refresh_expires_at, Some(4_900_000_000));
            assert_eq!(grant.seller, Seller::default());
        }
    }

    #[test]
    fn a_seller_name_can_neither_flood_a_status_nor_carry_a_token_into_it() {
        let name = format!("the-spent-refresh-token TTP_new-access TTP_new-refresh a\\nb{}", "x".repeat(999));
        let body = format!(
            r#"{{"code":0,"data":{{"access_token":"TTP_new-access","refresh_token":"TTP_new-refresh","seller_name":"{name}"}}}}"#
        );
        let name = grant(body).unwrap().seller.name.unwrap();
        assert!(name.starts_with("[redacted] [redacted] [redacted] a bxxx"), "{name}");
        assert_eq!(name.len(), 256);
    }

    #[test]
    fn debug_output_of_a_grant_shows_no_token() {
        let grant = grant(r#"{"code":0,"data":{"access_token":"TTP_new-access","refresh_token":"TTP_new-refresh"}}"#);
        let text = format!("{grant:?}");
        assert!(!text.contains("TTP_"), "{text}");
    }

    proptest! {
        #[test]
        fn no_body_is_too_odd_to_be_judged(body: Vec<u8>) {
            let _ = grant(body);
        }

        #[test]
        fn no_cut_answer_grants_anything(end in 0..160_usize) {
            let whole = r#"{"code":0,"message":"success","data":{"access_token":"TTP_a","access_token_expire_in":1720604800,"refresh_token":"TTP_r","seller_name":"é"},"request_id":"1"}"#;
            let end = end.min(whole.len() - 1);
            prop_assert!(grant(&whole.as_bytes()[..end]).is_none());
        }

        #[test]
        fn any_token_that_is_a_text_is_taken_as_it_is(token in "[ -~é]{0,80}") {
            let body = serde_json::json!({"code": 0, "data": {"access_token": token}}).to_string();
            let found = grant(body).map(|grant| grant.access_token.expose().to_owned());
            let expected = Some(token.trim().to_owned()).filter(|token| !token.is_empty());
            prop_assert_eq!(found, expected);
        }
    }
}
