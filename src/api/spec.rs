//! What a person asks for: the spec, its defaults, and the rules by which the API server refuses a wrong one.
//!
//! The documentation of types and fields in here is what `kubectl explain ttsi` prints: it is written for the people
//! who write manifests.

#![expect(clippy::duplicated_attributes, reason = "several print columns share a type and a priority")]

use std::time::Duration;

use kube::CustomResource;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::names;
use super::{TikTokShopIntegrationStatus, parse_go_duration};

/// The shortest `spec.refreshBefore`: below it, one slow answer would be an expired token.
pub const REFRESH_BEFORE_MIN: Duration = Duration::from_mins(5);

/// The longest `spec.refreshBefore`: an access token lives 7 days, and one that is due at its birth would be refreshed
/// without end.
pub const REFRESH_BEFORE_MAX: Duration = Duration::from_hours(144);

/// The name of a Secret or a workload: a DNS-1123 subdomain, as the API server wants it. Here and below, a rule and no
/// `pattern`, so that it has a message of its own.
const NAME_RULE: &str = "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')";

const SECRET_NAME_MESSAGE: &str = "name must be the name of a Secret in the integration's namespace: small letters, \
     digits, dashes and dots, such as shop-1-tokens";

const TARGET_NAME_MESSAGE: &str = "name must be the name of a workload in the integration's namespace: small letters, \
     digits, dashes and dots, such as storefront";

/// A key in a Secret's `data`, as the API server wants it: not `.` alone, nor `..` at the start.
const SECRET_KEY_RULE: &str = "self.matches('^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$')";

const SECRET_KEY_MESSAGE: &str = "it must be a key of a Secret: letters, digits, dashes, underscores and dots, such as \
     access_token";

fn secret_name(schema: &mut Schema) {
    schema.insert("x-kubernetes-validations".to_owned(), json!([{"rule": NAME_RULE, "message": SECRET_NAME_MESSAGE}]));
}

fn secret_key(schema: &mut Schema) {
    let rule = json!([{"rule": SECRET_KEY_RULE, "message": SECRET_KEY_MESSAGE}]);
    schema.insert("x-kubernetes-validations".to_owned(), rule);
}

/// What TikTok shows is digits; other harmless characters of a URL are let through.
const SERVICE_ID_RULE: &str = "self.matches('^[-_.a-zA-Z0-9]+$')";

const SERVICE_ID_MESSAGE: &str = "serviceId must be the app's service id as TikTok Shop Partner Center shows it, digits \
     as a rule, such as \"7172839405162738495\"";

/// Printable characters, no white space at either end.
const TEAM_ID_RULE: &str = r"self.matches(r'^[^\s\pC\pZ]([^\pC]*[^\s\pC\pZ])?$')";

const TEAM_ID_MESSAGE: &str = "teamId must be printable text without white space at either end, such as \"1\"";

/// The largest share of a token's life that `spec.refreshBefore` may be, in percent: with 5 % of jitter on top, a token
/// is still not due at its birth.
pub const REFRESH_BEFORE_MAX_PERCENT: u8 = 90;

/// The life of an access token that somebody put there, of which only the end is known, in seconds: 7 days, as TikTok
/// gives them.
const USUAL_LIFE: i64 = 7 * 24 * 3_600;

/// Guards `duration()`, whose own type error would otherwise stand before our message: Go's form, with so few digits in
/// each part that no sum of them overflows.
const REFRESH_BEFORE_RULE: &str = "self.matches('^([1-9]|[1-8][0-9]|90)%$') || self.matches(\
     '^(([0-9]{1,4}([.][0-9]{0,9})?|[.][0-9]{1,9})h|([0-9]{1,6}([.][0-9]{0,9})?|[.][0-9]{1,9})m|\
     ([0-9]{1,8}([.][0-9]{0,9})?|[.][0-9]{1,9})s|([0-9]{1,11}([.][0-9]{0,9})?|[.][0-9]{1,9})ms|\
     [0-9]{1,14}(us|µs|μs)|[0-9]{1,15}ns)+$') \
     && duration(self) >= duration('5m') && duration(self) <= duration('144h')";

const REFRESH_BEFORE_MESSAGE: &str = "refreshBefore must be a duration from 5m to 144h, such as 24h or 90m, or a share \
     of the token's life from 1% to 90%, such as 30%";

/// A refresh would write the tokens over the app's credentials.
const NO_CLASH_RULE: &str = "self.appCredentialsSecretRef.name != self.tokenSecretRef.name || \
     [self.tokenSecretRef.keys.accessToken, self.tokenSecretRef.keys.accessTokenExpireIn, \
     self.tokenSecretRef.keys.refreshToken, self.tokenSecretRef.keys.refreshTokenExpireIn, \
     self.tokenSecretRef.keys.authCode]\
     .all(key, !(key in [self.appCredentialsSecretRef.keys.appKey, self.appCredentialsSecretRef.keys.appSecret]))";

const NO_CLASH_MESSAGE: &str = "tokenSecretRef.keys must not name a key of appCredentialsSecretRef.keys where both \
     references name one Secret: a refresh would overwrite the app's credentials";

/// The ciphers would be written over a token, or over the app's credentials.
const NO_CIPHER_CLASH_RULE: &str = "!self.checkShops || !('shop_ciphers' in [self.tokenSecretRef.keys.accessToken, \
     self.tokenSecretRef.keys.accessTokenExpireIn, self.tokenSecretRef.keys.refreshToken, \
     self.tokenSecretRef.keys.refreshTokenExpireIn, self.tokenSecretRef.keys.authCode] + \
     (self.appCredentialsSecretRef.name == self.tokenSecretRef.name ? \
     [self.appCredentialsSecretRef.keys.appKey, self.appCredentialsSecretRef.keys.appSecret] : []))";

const NO_CIPHER_CLASH_MESSAGE: &str = "checkShops writes the key shop_ciphers of the token Secret: give the value that \
     stands there another key";

/// What an integration of one shop asks for: which Secrets hold the app's credentials and the shop's tokens, and how
/// long before its expiry the access token is refreshed.
//
// References are merged field by field in a server-side apply (no `x-kubernetes-map-type: atomic`): every key name has
// a default of its own, so what is left when a manager gives a field up is always whole.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "tiktokshop.dev",
    version = "v1alpha1",
    kind = "TikTokShopIntegration",
    plural = "tiktokshopintegrations",
    singular = "tiktokshopintegration",
    shortname = "ttsi",
    category = "tiktokshop",
    namespaced,
    status = "TikTokShopIntegrationStatus",
    derive = "PartialEq",
    doc = "TikTokShopIntegration keeps the API tokens of one TikTok Shop alive: the operator refreshes the access \
           token before it expires and stores the new pair in the Secret that it came from.",
    selectable = ".spec.teamId",
    selectable = ".spec.suspend",
    printcolumn(
        name = "Team",
        type_ = "string",
        json_path = ".spec.teamId",
        description = "The team that the shop belongs to"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the access token in the Secret is present and unexpired"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "The one most important thing to know about the integration"
    ),
    printcolumn(
        name = "Hours",
        type_ = "integer",
        json_path = ".status.hoursUntilExpiry",
        description = "Whole hours until the access token expires"
    ),
    printcolumn(
        name = "Expires",
        type_ = "string",
        json_path = ".status.accessTokenExpiresAt",
        description = "When the access token expires"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "How long ago the integration was created"
    ),
    printcolumn(
        name = "Refresh Token Expires",
        type_ = "string",
        json_path = ".status.refreshTokenExpiresAt",
        description = "When the refresh token expires",
        priority = 1
    ),
    printcolumn(
        name = "Last Refresh",
        type_ = "string",
        json_path = ".status.lastRefreshTime",
        description = "When the tokens were last refreshed",
        priority = 1
    ),
    printcolumn(
        name = "Next Refresh",
        type_ = "string",
        json_path = ".status.nextRefreshTime",
        description = "When the operator will act next",
        priority = 1
    ),
    printcolumn(
        name = "Error",
        type_ = "string",
        json_path = ".status.lastError.message",
        description = "What went wrong since the last success",
        priority = 1
    )
)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": NO_CLASH_RULE,
    "message": NO_CLASH_MESSAGE,
    "fieldPath": ".tokenSecretRef.keys",
}, {
    "rule": NO_CIPHER_CLASH_RULE,
    "message": NO_CIPHER_CLASH_MESSAGE,
    "fieldPath": ".checkShops",
}]))]
pub struct TikTokShopIntegrationSpec {
    /// The team that the shop belongs to, for people and for selecting: kubectl get ttsi --field-selector
    /// spec.teamId=1. The operator gives it no meaning of its own; metrics carry it as the label "team".
    ///
    /// Text of 1 to 253 printable characters, no white space at either end; put numbers in quotes. Optional.
    /// Example: "1"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 253),
        extend("x-kubernetes-validations" = [{"rule": TEAM_ID_RULE, "message": TEAM_ID_MESSAGE}])
    )]
    pub team_id: Option<String>,

    /// Whether the integration rests: while true, nothing is refreshed, requests by annotation wait, and the access
    /// token expires in its own time.
    ///
    /// Defaults to false. Select by it: kubectl get ttsi --field-selector spec.suspend=true
    #[serde(default)]
    pub suspend: bool,

    /// The Secret with the key and secret of the TikTok Shop app that the shop has authorized, in the namespace of the
    /// integration. It is only read. Many integrations may share one.
    pub app_credentials_secret_ref: AppCredentialsSecretRef,

    /// The Secret with the shop's tokens and their expiries, in the namespace of the integration. The operator reads
    /// them from it and writes the new ones back. One that holds an authorization code gets the tokens for it. Each
    /// integration needs one of its own.
    pub token_secret_ref: TokenSecretRef,

    /// How long before its expiry the access token is refreshed.
    ///
    /// A duration from 5m to 144h in hours (h), minutes (m) and seconds (s), or a share of the token's life from 1% to
    /// 90%. An access token lives 7 days (168h), so that 30% is 50.4 hours; a token that was put into the Secret by hand
    /// counts as one of 7 days. By default what the operator was started with (--refresh-before, 24h unless set).
    /// Examples: 24h, 90m, 1h30m, 30%
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-validations" = [{"rule": REFRESH_BEFORE_RULE, "message": REFRESH_BEFORE_MESSAGE}])
    )]
    pub refresh_before: Option<String>,

    /// How a seller authorizes the app, for kubectl tiktokshop authorize, which makes the address of TikTok's page of it.
    /// Optional: the command takes the same as flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,

    /// What is restarted each time new tokens were stored, in the namespace of the integration: for programs that read
    /// the tokens only as they start. One that reads a mounted Secret anew needs no restart. The operator must have been
    /// given the right to it (chart: rolloutRestart.enabled). At most 32. Optional.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"])
    )]
    pub rollout_restart_targets: Vec<RolloutRestartTarget>,

    /// Whether the operator proves that the access token works: after each refresh and once a day it asks TikTok for the
    /// shops that the token is good for. They stand in status.shops, and their ciphers in the token Secret under
    /// shop_ciphers, a JSON object from shop id to cipher. A token that TikTok refuses is refreshed, once.
    ///
    /// The app needs the scope seller.authorization.info. Defaults to false.
    #[serde(default)]
    pub check_shops: bool,
}

impl TikTokShopIntegrationSpec {
    /// The expiry window that the spec sets; `None` where it sets none.
    ///
    /// Also `None` for a text that the API server refuses today and may have let in by an older schema: the operator's
    /// default then serves better than no refresh at all.
    #[must_use]
    pub fn refresh_before(&self) -> Option<RefreshBefore> {
        let text = self.refresh_before.as_deref()?;
        if let Some(percent) = text.strip_suffix('%') {
            // As the schema has it: digits alone, no zero in front.
            let is_plain = percent.starts_with(|c: char| ('1'..='9').contains(&c));
            let percent = percent.parse().ok().filter(|_| is_plain)?;
            return (1..=REFRESH_BEFORE_MAX_PERCENT).contains(&percent).then_some(RefreshBefore::Percent(percent));
        }
        let window = parse_go_duration(text).ok()?;
        (REFRESH_BEFORE_MIN..=REFRESH_BEFORE_MAX).contains(&window).then_some(RefreshBefore::Duration(window))
    }
}

/// How long before its expiry an access token is refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefreshBefore {
    /// So long.
    Duration(Duration),
    /// This share of the token's life, in percent.
    Percent(u8),
}

impl RefreshBefore {
    /// In seconds, for a token of this life in seconds; `None` where its beginning is not known.
    #[must_use]
    pub fn seconds(self, life: Option<i64>) -> i64 {
        match self {
            Self::Duration(duration) => i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            Self::Percent(percent) => life.unwrap_or(USUAL_LIFE).max(0).saturating_mul(i64::from(percent)) / 100,
        }
    }
}

/// How a seller authorizes the app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// The service id of the app, which TikTok Shop Partner Center shows beside it. Put numbers in quotes.
    /// Example: "7172839405162738495"
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-validations" = [{"rule": SERVICE_ID_RULE, "message": SERVICE_ID_MESSAGE}])
    )]
    pub service_id: String,

    /// Which page the seller sees: us for shops in the United States, global for all others. Defaults to global.
    #[serde(default)]
    #[schemars(extend("default" = "global"))]
    pub region: Region,
}

/// Which of TikTok's pages a seller authorizes an app on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Region {
    /// All shops but those in the United States.
    #[default]
    Global,
    /// Shops in the United States.
    Us,
}

/// A workload that is restarted after each rotation of the tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRestartTarget {
    /// What it is: Deployment, StatefulSet or DaemonSet.
    pub kind: WorkloadKind,

    /// Its name. It must be in the same namespace as the integration.
    /// Example: storefront
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [{"rule": NAME_RULE, "message": TARGET_NAME_MESSAGE}])
    )]
    pub name: String,
}

/// The kinds of workloads that can be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadKind {
    /// A Deployment.
    Deployment,
    /// A `StatefulSet`.
    StatefulSet,
    /// A `DaemonSet`.
    DaemonSet,
}

impl WorkloadKind {
    /// As manifests write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }

    /// Under which name the API group `apps` serves it.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
        }
    }
}

/// Where the app's credentials are.
//
// The rule stands here, not at the keys: the API server holds the bare `default: {}` to rules that stand beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.keys.appSecret != self.keys.appKey",
    "message": "appSecret must be another key than appKey: each value needs a key of its own",
    "fieldPath": ".keys.appSecret",
}]))]
pub struct AppCredentialsSecretRef {
    /// The name of the Secret. It must be in the same namespace as the integration.
    /// Example: tiktok-app
    #[schemars(length(min = 1, max = 253), transform = secret_name)]
    pub name: String,

    /// Under which keys the Secret holds the values, where they are not the default ones.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub keys: AppCredentialsKeys,
}

/// Under which keys a Secret holds the app's credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AppCredentialsKeys {
    /// The key of the app key, which TikTok Shop Partner Center shows beside the app. Defaults to app_key.
    #[schemars(length(min = 1, max = 253), transform = secret_key)]
    pub app_key: String,

    /// The key of the app secret, which TikTok Shop Partner Center shows beside the app. Defaults to app_secret.
    #[schemars(length(min = 1, max = 253), transform = secret_key)]
    pub app_secret: String,
}

impl Default for AppCredentialsKeys {
    fn default() -> Self {
        Self { app_key: names::DEFAULT_APP_KEY_KEY.to_owned(), app_secret: names::DEFAULT_APP_SECRET_KEY.to_owned() }
    }
}

/// Where the shop's tokens are.
//
// Its rules stand here for the same reason as the one above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.keys.accessTokenExpireIn != self.keys.accessToken",
        "message": "accessTokenExpireIn must be another key than accessToken: each value needs a key of its own",
        "fieldPath": ".keys.accessTokenExpireIn",
    },
    {
        "rule": "!(self.keys.refreshToken in [self.keys.accessToken, self.keys.accessTokenExpireIn])",
        "message": "refreshToken must be another key than accessToken and accessTokenExpireIn: each value needs a key \
                    of its own",
        "fieldPath": ".keys.refreshToken",
    },
    {
        "rule": "!(self.keys.refreshTokenExpireIn in \
                 [self.keys.accessToken, self.keys.accessTokenExpireIn, self.keys.refreshToken])",
        "message": "refreshTokenExpireIn must be another key than accessToken, accessTokenExpireIn and refreshToken: \
                    each value needs a key of its own",
        "fieldPath": ".keys.refreshTokenExpireIn",
    },
    {
        "rule": "!(self.keys.authCode in [self.keys.accessToken, self.keys.accessTokenExpireIn, \
                 self.keys.refreshToken, self.keys.refreshTokenExpireIn])",
        "message": "authCode must be another key than those of the tokens and their expiries: each value needs a key \
                    of its own",
        "fieldPath": ".keys.authCode",
    },
]))]
pub struct TokenSecretRef {
    /// The name of the Secret. It must be in the same namespace as the integration, must not be immutable, and must
    /// not be named by another integration.
    /// Example: shop-1-tokens
    #[schemars(length(min = 1, max = 253), transform = secret_name)]
    pub name: String,

    /// Under which keys the Secret holds the values, where they are not the default ones. The default ones are TikTok's
    /// own field names: the "data" object of a TikTok answer can be pasted into a Secret as it is.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub keys: TokenSecretKeys,
}

/// Under which keys a Secret holds the shop's tokens. No two may be the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenSecretKeys {
    /// The key of the access token. Defaults to access_token.
    #[schemars(length(min = 1, max = 253), transform = secret_key)]
    pub access_token: String,

    /// The key of the access token's expiry: a point in time in Unix seconds, such as 1736951425, as TikTok sends it
    /// (whatever the name says, it is no duration). Defaults to access_token_expire_in.
    #[schemars(length(min = 1, max = 253), transform = secret_key)]
    pub access_token_expire_in: String,

    /// The key of the refresh token. Defaults to refresh_token.
    #[schemars(length(min = 1, max = 253), transform = secret_key)]
    pub refresh_token: String,

    /// The key of the refresh token's expiry: a point in time in Unix seconds, such as 4892625025. Defaults to
    /// refresh_token_expire_in.
    #[schemars(length(min = 1, max = 253), transform = secret_key)]
    pub refresh_token_expire_in: String,

    /// The key of an authorization code, which TikTok gives when a seller authorizes the app. The operator exchanges it
    /// for tokens, once, and removes it in the write that stores them; the tokens that stood there before are replaced.
    /// A code lives about 30 minutes. Defaults to auth_code.
    #[schemars(length(min = 1, max = 253), transform = secret_key)]
    pub auth_code: String,
}

impl Default for TokenSecretKeys {
    fn default() -> Self {
        Self {
            access_token: names::DEFAULT_ACCESS_TOKEN_KEY.to_owned(),
            access_token_expire_in: names::DEFAULT_ACCESS_TOKEN_EXPIRE_IN_KEY.to_owned(),
            refresh_token: names::DEFAULT_REFRESH_TOKEN_KEY.to_owned(),
            refresh_token_expire_in: names::DEFAULT_REFRESH_TOKEN_EXPIRE_IN_KEY.to_owned(),
            auth_code: names::DEFAULT_AUTH_CODE_KEY.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec_with(refresh_before: &str) -> TikTokShopIntegrationSpec {
        serde_json::from_value(json!({
            "appCredentialsSecretRef": {"name": "tiktok-app"},
            "tokenSecretRef": {"name": "shop-1-tokens"},
            "refreshBefore": refresh_before,
        }))
        .unwrap()
    }

    #[test]
    fn the_least_that_a_person_must_write_is_the_names_of_two_secrets() {
        let spec: TikTokShopIntegrationSpec = serde_json::from_value(json!({
            "appCredentialsSecretRef": {"name": "tiktok-app"},
            "tokenSecretRef": {"name": "shop-1-tokens"},
        }))
        .unwrap();
        assert_eq!(spec.team_id, None);
        assert!(!spec.suspend);
        assert_eq!(spec.refresh_before(), None);
        assert_eq!(
            serde_json::to_value(&spec).unwrap(),
            json!({
                "suspend": false,
                "checkShops": false,
                "appCredentialsSecretRef": {
                    "name": "tiktok-app",
                    "keys": {"appKey": "app_key", "appSecret": "app_secret"},
                },
                "tokenSecretRef": {
                    "name": "shop-1-tokens",
                    "keys": {
                        "accessToken": "access_token",
                        "accessTokenExpireIn": "access_token_expire_in",
                        "refreshToken": "refresh_token",
                        "refreshTokenExpireIn": "refresh_token_expire_in",
                        "authCode": "auth_code",
                    },
                },
            })
        );
    }

    #[test]
    fn a_seller_authorizes_on_the_global_page_unless_it_is_said_otherwise() {
        let read = |authorization| serde_json::from_value::<Authorization>(authorization);
        assert_eq!(read(json!({"serviceId": "7"})).unwrap().region, Region::Global);
        assert_eq!(read(json!({"serviceId": "7", "region": "us"})).unwrap().region, Region::Us);
        assert!(read(json!({"serviceId": "7", "region": "eu"})).is_err());
    }

    #[test]
    fn one_key_of_several_can_be_named_and_the_others_keep_their_defaults() {
        let keys: TokenSecretKeys = serde_json::from_value(json!({"accessToken": "token"})).unwrap();
        assert_eq!(keys, TokenSecretKeys { access_token: "token".to_owned(), ..TokenSecretKeys::default() });
    }

    #[test]
    fn the_expiry_window_is_read_where_it_is_within_bounds() {
        for (text, seconds) in [
            ("5m", 300),
            ("90m", 5_400),
            ("1h30m", 5_400),
            ("1.5h", 5_400),
            (".5h", 1_800),
            ("1.h", 3_600),
            ("300000000us", 300),
            ("300000000000ns", 300),
            ("144h", 518_400),
        ] {
            let window = RefreshBefore::Duration(Duration::from_secs(seconds));
            assert_eq!(spec_with(text).refresh_before(), Some(window), "{text:?}");
        }
        for (text, percent) in [("1%", 1), ("30%", 30), ("90%", 90)] {
            assert_eq!(spec_with(text).refresh_before(), Some(RefreshBefore::Percent(percent)), "{text:?}");
        }
    }

    #[test]
    fn a_share_is_one_of_the_tokens_life_or_of_seven_days() {
        let week = 7 * 24 * 3_600;
        for (percent, life, seconds) in [
            (30, Some(week), 181_440),
            (30, None, 181_440),
            (30, Some(100), 30),
            (1, Some(99), 0),
            (90, Some(i64::MAX), i64::MAX / 100),
            (30, Some(-5), 0),
        ] {
            assert_eq!(RefreshBefore::Percent(percent).seconds(life), seconds, "{percent}% of {life:?}");
        }
        assert_eq!(RefreshBefore::Duration(Duration::from_hours(24)).seconds(Some(60)), 86_400);
    }

    #[test]
    fn an_expiry_window_that_the_schema_refuses_counts_as_none() {
        for text in [
            "",
            "4m59s",
            "144h1s",
            "24",
            "abc",
            "-24h",
            "99999999999999999999h",
            "%",
            "0%",
            "91%",
            "030%",
            "+5%",
            "-5%",
            "30 %",
            "1.5%",
            "300%",
            "30%%",
        ] {
            assert_eq!(spec_with(text).refresh_before(), None, "{text:?}");
        }
    }
}
