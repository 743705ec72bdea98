//! The data of Secrets. The input is the JSON of a Secret's `data`, if it begins with a brace; else records parted by
//! the byte 0x1e, the first with the names of the keys parted by commas, the others each `key=value`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::DateTime;
use tiktok_shop_operator::api::names;
use tiktok_shop_operator::tokens::{
    AppCredentials, AppKeyNames, DigestKey, LATEST, ParsedTokens, SecretData, SecretText, TokenKeyNames, ValueProblem,
    encode,
};

/// Parts the records of an input.
const SEPARATOR: u8 = 0x1e;

/// What no text may show, where an input has it in a value.
const PLANTED: &str = "hunter2";

/// Whatever a Secret holds, it is read, and the values that are written back read as the same.
pub fn check(input: &[u8]) {
    if input.first() == Some(&b'{') {
        match serde_json::from_slice::<SecretData>(input) {
            Ok(data) => all_of(&data, &token_keys([None; 5])),
            // The error is logged: it may tell a place and a kind, and no value.
            Err(error) => assert!(!error.to_string().contains(PLANTED), "shows what stands in the Secret: {error}"),
        }
        return;
    }
    let mut records = input.split(|byte| *byte == SEPARATOR);
    let keys = String::from_utf8_lossy(records.next().unwrap_or_default()).into_owned();
    let mut keys = keys.split(',').filter(|key| !key.is_empty());
    let keys = token_keys([keys.next(), keys.next(), keys.next(), keys.next(), keys.next()]);
    let pairs = records.filter_map(|record| {
        let end = record.iter().position(|byte| *byte == b'=')?;
        Some((String::from_utf8_lossy(&record[..end]).into_owned(), record[end + 1..].to_vec()))
    });
    all_of(&data_of(pairs), &keys);
}

fn all_of(data: &SecretData, keys: &TokenKeyNames) {
    app_credentials(data);
    let parsed = ParsedTokens::parse(data, keys);
    let names = format!("{:?} {keys:?}", data.keys().collect::<Vec<_>>());
    let shown = format!("{parsed:?} {data:?} {} {:?}", parsed.missing, parsed.problems);
    assert!(names.contains(PLANTED) || !shown.contains(PLANTED), "a value is shown: {shown}");
    for (token, key) in [(&parsed.access, &keys.access_token), (&parsed.refresh, &keys.refresh_token)] {
        assert_eq!(token.as_ref().map(SecretText::expose), trimmed(data.get(key)), "the value of {key}");
        assert!(token.is_some() || parsed.missing.to_string().contains(&**key), "{key} is missing and nobody says so");
    }
    for (expiry, key) in [
        (parsed.access_expires_at, &keys.access_token_expire_in),
        (parsed.refresh_expires_at, &keys.refresh_token_expire_in),
    ] {
        let is_told = parsed.problems.contains(&ValueProblem::Expiry(key.to_string()));
        match expiry {
            Some(at) => {
                assert!((1_000_000_000..=LATEST).contains(&at), "{key} is {at}");
                assert!(DateTime::from_timestamp(at, 0).is_some(), "{key} is {at}, which is no date");
            }
            None => assert_eq!(is_told, data.get(key).is_some(), "an unreadable expiry is told, an absent one is not"),
        }
    }
    let tokens = [&keys.access_token, &keys.access_token_expire_in, &keys.refresh_token, &keys.refresh_token_expire_in];
    let is_apart = !tokens.contains(&&keys.auth_code);
    let code = trimmed(data.get(&keys.auth_code)).filter(|_| is_apart);
    assert_eq!(parsed.code.as_ref().map(SecretText::expose), code, "the code, which is no token");
    written_back(parsed, keys);
}

/// What a refresh would write, read again.
fn written_back(parsed: ParsedTokens, keys: &TokenKeyNames) {
    let names = [&keys.access_token, &keys.access_token_expire_in, &keys.refresh_token, &keys.refresh_token_expire_in];
    let are_distinct = names.iter().enumerate().all(|(at, name)| !names[..at].contains(name));
    // The API server refuses a spec whose keys are not.
    let Some(values) = parsed.into_values().filter(|_| are_distinct) else { return };
    let expiry = |at: Option<i64>| at.map(|at| at.to_string());
    let written = [
        (&keys.access_token, Some(values.access.expose().to_owned())),
        (&keys.access_token_expire_in, expiry(values.access_expires_at)),
        (&keys.refresh_token, Some(values.refresh.expose().to_owned())),
        (&keys.refresh_token_expire_in, expiry(values.refresh_expires_at)),
    ];
    let written: serde_json::Map<_, _> = written
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_string(), encode(&value?).as_str().into())))
        .collect();
    let data: SecretData = serde_json::from_value(written.into()).expect("what is written can be read");
    let read = ParsedTokens::parse(&data, keys);
    assert!(read.problems.is_empty(), "an expiry that was written is not read: {:?}", read.problems);
    let read = read.into_values().expect("both tokens were written");
    assert!(read.access == values.access && read.refresh == values.refresh, "a token has changed");
    assert_eq!(read.access_expires_at, values.access_expires_at);
    assert_eq!(read.refresh_expires_at, values.refresh_expires_at);
    let digests = DigestKey::new("uid");
    assert_eq!(
        digests.pair(Some(&read.access), Some(&read.refresh)),
        digests.pair(Some(&values.access), Some(&values.refresh))
    );
}

fn app_credentials(data: &SecretData) {
    let keys = AppKeyNames { app_key: "app_key".into(), app_secret: "app_secret".into() };
    let expected = (trimmed(data.get("app_key")), trimmed(data.get("app_secret")));
    match (AppCredentials::parse(data, &keys), expected) {
        (Ok(read), (Some(app_key), Some(app_secret))) => {
            assert_eq!((read.app_key.as_str(), read.app_secret.expose()), (app_key, app_secret));
        }
        (Err(missing), (None, _) | (_, None)) => assert!(!missing.to_string().is_empty()),
        (read, _) => panic!("read otherwise than it stands there: {read:?}"),
    }
}

/// What a person means who wrote these bytes.
fn trimmed(bytes: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(bytes?).ok().map(str::trim).filter(|text| !text.is_empty())
}

fn data_of(pairs: impl IntoIterator<Item = (String, Vec<u8>)>) -> SecretData {
    let json: serde_json::Map<_, _> =
        pairs.into_iter().map(|(key, value)| (key, BASE64.encode(value).into())).collect();
    serde_json::from_value(json.into()).expect("a map of base64 values is a Secret's data")
}

fn token_keys(names: [Option<&str>; 5]) -> TokenKeyNames {
    let [access_token, access_token_expire_in, refresh_token, refresh_token_expire_in, auth_code] = names;
    TokenKeyNames {
        access_token: access_token.unwrap_or(names::DEFAULT_ACCESS_TOKEN_KEY).into(),
        access_token_expire_in: access_token_expire_in.unwrap_or(names::DEFAULT_ACCESS_TOKEN_EXPIRE_IN_KEY).into(),
        refresh_token: refresh_token.unwrap_or(names::DEFAULT_REFRESH_TOKEN_KEY).into(),
        refresh_token_expire_in: refresh_token_expire_in.unwrap_or(names::DEFAULT_REFRESH_TOKEN_EXPIRE_IN_KEY).into(),
        auth_code: auth_code.unwrap_or(names::DEFAULT_AUTH_CODE_KEY).into(),
    }
}
