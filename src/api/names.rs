//! The names that users and other programs hold on to: annotations, default Secret keys, the field manager.
//!
//! None of them changes once it is released: manifests, scripts and the data of running clusters use them.

/// Who the API server records as the owner of the fields that the operator writes (`managedFields`).
pub const FIELD_MANAGER: &str = "tiktok-shop-operator";

/// The API group of the custom resource, and the prefix of every annotation.
pub const GROUP: &str = "tiktokshop.dev";

/// On an integration: any new value asks for one refresh now, whatever the hours left.
///
/// Set by a person or by `kubectl tiktokshop refresh`; at most [`MAX_REFRESH_REQUEST_BYTES`] long.
pub const REFRESH_REQUESTED_AT: &str = "tiktokshop.dev/refresh-requested-at";

/// The longest value of [`REFRESH_REQUESTED_AT`] that is acted on, in bytes: it is copied to the token Secret and to
/// status, so it must not grow without limit.
pub const MAX_REFRESH_REQUEST_BYTES: usize = 256;

/// On a token Secret: the claim, a JSON value that says that a refresh is under way and whose it is.
///
/// Removed in the write that stores the new tokens.
pub const REFRESH_ATTEMPT: &str = "tiktokshop.dev/refresh-attempt";

/// On a token Secret: when its tokens were issued, RFC 3339; counts only while [`TOKENS_DIGEST`] fits the data.
pub const REFRESHED_AT: &str = "tiktokshop.dev/refreshed-at";

/// On a token Secret: the digest of the refresh token, or the authorization code, that was spent for the tokens in it.
pub const REFRESHED_FROM: &str = "tiktokshop.dev/refreshed-from";

/// On a token Secret: digests of refresh tokens and authorization codes that were spent before, newest first, parted by
/// commas; also of codes that TikTok refused.
pub const SPENT_TOKENS: &str = "tiktokshop.dev/spent-tokens";

/// On a token Secret: that TikTok refused the refresh token in it, a JSON value; written as the claim is given back, so that
/// whoever comes next knows of it even where no status could be written. Removed by the next claim.
pub const REJECTED_TOKEN: &str = "tiktokshop.dev/rejected-token";

/// On a token Secret: the digest of the tokens in it, which tells whether anybody else wrote them since.
pub const TOKENS_DIGEST: &str = "tiktokshop.dev/tokens-digest";

/// On a token Secret: the value of [`REFRESH_REQUESTED_AT`] that was last acted on.
pub const HANDLED_REFRESH_REQUEST: &str = "tiktokshop.dev/handled-refresh-request";

/// On the pod template of a workload that `spec.rolloutRestartTargets` names: for which rotation it was last restarted.
pub const RESTARTED_AT: &str = "tiktokshop.dev/restarted-at";

/// All annotations, in the order in which they are told of.
pub const ANNOTATIONS: [&str; 9] = [
    REFRESH_REQUESTED_AT,
    REFRESH_ATTEMPT,
    REFRESHED_AT,
    REFRESHED_FROM,
    SPENT_TOKENS,
    REJECTED_TOKEN,
    TOKENS_DIGEST,
    HANDLED_REFRESH_REQUEST,
    RESTARTED_AT,
];

/// Default key of the app key in the Secret that `spec.appCredentialsSecretRef` names.
pub const DEFAULT_APP_KEY_KEY: &str = "app_key";

/// Default key of the app secret in the Secret that `spec.appCredentialsSecretRef` names.
pub const DEFAULT_APP_SECRET_KEY: &str = "app_secret";

/// Default key of the access token in the token Secret: TikTok's own field name, like the three below, so that the
/// `data` object of a TikTok response can be pasted into a Secret as it is.
pub const DEFAULT_ACCESS_TOKEN_KEY: &str = "access_token";

/// Default key of the access token's expiry (Unix seconds) in the token Secret.
pub const DEFAULT_ACCESS_TOKEN_EXPIRE_IN_KEY: &str = "access_token_expire_in";

/// Default key of the refresh token in the token Secret.
pub const DEFAULT_REFRESH_TOKEN_KEY: &str = "refresh_token";

/// Default key of the refresh token's expiry (Unix seconds) in the token Secret.
pub const DEFAULT_REFRESH_TOKEN_EXPIRE_IN_KEY: &str = "refresh_token_expire_in";

/// Default key of an authorization code in the token Secret: the name of TikTok's parameter.
pub const DEFAULT_AUTH_CODE_KEY: &str = "auth_code";

/// Key of the shops' ciphers in the token Secret, with `spec.checkShops`: a JSON object from shop id to cipher.
pub const SHOP_CIPHERS_KEY: &str = "shop_ciphers";

/// The prefix of every annotation.
pub const PREFIX: &str = "tiktokshop.dev/";

/// The version of the custom resource's API.
pub const VERSION: &str = "v1alpha1";

/// The kind of the custom resource.
pub const KIND: &str = "TikTokShopIntegration";

/// The plural under which the custom resource is served.
pub const PLURAL: &str = "tiktokshopintegrations";

/// Group and version of the custom resource, as manifests write it.
pub const API_VERSION: &str = "tiktokshop.dev/v1alpha1";
