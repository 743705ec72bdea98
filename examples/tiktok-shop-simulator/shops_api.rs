//! The signed call that names the shops of an access token. It verifies the signature by itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};

use super::errors;
use super::tokens::Kind;
use super::world::{Incoming, Verdict, World};

/// The scope without which the call is refused.
const SCOPE: &str = "seller.authorization.info";
/// How far a timestamp may be from the simulator's clock, in seconds.
const TIMESTAMP_MAY_DIFFER: i64 = 5 * 60;

/// A call that carries an access token, as it came.
#[derive(Clone, Debug, Default)]
pub struct SignedCall {
    /// The header `x-tts-access-token`.
    pub access_token: Option<String>,
    /// All parameters of the query.
    pub query: BTreeMap<String, String>,
}

impl World {
    /// The shop whose access token a value is, or was.
    pub fn shop_of_access_token(&self, value: &str) -> Option<usize> {
        self.find_value(Kind::Access, value).map(|(shop, _)| shop)
    }

    /// Answers the call, or refuses it, in the order of its checks.
    pub fn list_shops(&mut self, incoming: &Incoming) -> Verdict {
        match self.examine_call(incoming) {
            Ok(index) => {
                let data: Map<String, Value> =
                    [("shops".to_owned(), json!(self.seller_shops(index)))].into_iter().collect();
                Verdict::Served { data: data.clone(), old: data }
            }
            Err((code, message)) => Verdict::Refused { code, message },
        }
    }

    fn examine_call(&self, incoming: &Incoming) -> Result<usize, (i64, String)> {
        let bad = |what: &str| (errors::BAD_PARAMETER, format!("Invalid parameter: {what}"));
        let refused = |code: i64| (code, errors::message(code).to_owned());
        if let Some(why) = &incoming.unreadable {
            return Err(bad(why));
        }
        let SignedCall { access_token, query } = &incoming.signed;
        let app_key = query.get("app_key").map(String::as_str).unwrap_or_default();
        let secret = self.app_secret(app_key).ok_or_else(|| bad("the app_key is unknown"))?;
        if query.get("sign") != Some(&sign(&incoming.entry.path, query, secret)) {
            return Err(bad("the sign does not fit the request"));
        }
        let sent_at: i64 = query.get("timestamp").and_then(|text| text.parse().ok()).ok_or_else(|| bad("timestamp"))?;
        if self.now().seconds().abs_diff(sent_at) > TIMESTAMP_MAY_DIFFER.unsigned_abs() {
            return Err(bad("the timestamp is more than 5 minutes off"));
        }
        let token = access_token.as_deref().unwrap_or_default();
        let (index, serial) =
            self.find_value(Kind::Access, token).ok_or_else(|| refused(errors::ACCESS_TOKEN_EXPIRED))?;
        if !self.access_token_works(index, serial, app_key) {
            return Err(refused(errors::ACCESS_TOKEN_EXPIRED));
        }
        if self.scopes(index).is_some_and(|scopes| !scopes.iter().any(|scope| scope == SCOPE)) {
            return Err(refused(errors::MISSING_SCOPE));
        }
        Ok(index)
    }
}

/// The signature that a `GET` must carry: hex of the HMAC-SHA256 of secret, path, sorted parameters and secret.
fn sign(path: &str, query: &BTreeMap<String, String>, secret: &str) -> String {
    let mut text = vec![secret, path];
    for (name, value) in query.iter().filter(|(name, _)| *name != "sign" && *name != "access_token") {
        text.extend([name.as_str(), value.as_str()]);
    }
    text.push(secret);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, text.concat().as_bytes());
    tag.as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_that_openssl_makes() {
        let query = [("timestamp", "1720000000"), ("sign", "x"), ("app_key", "app-key")];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(
            sign("/authorization/202309/shops", &query, "app-secret"),
            "6bedd461777debfdc421e2fa221c3de8a27d5c973eef33b07d56714d798c3374"
        );
    }
}
