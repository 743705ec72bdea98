//! The known errors of the endpoints, by code.

/// Wrong auth code.
pub const INVALID_AUTH_CODE: i64 = 36_004_004;
/// Unknown or spent refresh token, or a shop that withdrew its authorization.
pub const NO_AUTH_RECORD: i64 = 36_004_005;
/// The refresh token is past its expiry.
pub const AUTHORIZATION_EXPIRED: i64 = 105_001;
/// An access token that is expired, unknown or dead.
pub const ACCESS_TOKEN_EXPIRED: i64 = 105_002;
/// An access token that lacks the scope of the call.
pub const MISSING_SCOPE: i64 = 105_005;
/// Over the rate limit.
pub const TOO_MANY_REQUESTS: i64 = 36_009_002;
/// A parameter is missing or wrong; the message says which.
pub const BAD_PARAMETER: i64 = 36_009_004;

/// Code, message, and what it means to a client.
pub const TABLE: [(i64, &str, &str); 12] = [
    (INVALID_AUTH_CODE, "Invalid auth code", "new authorization"),
    (NO_AUTH_RECORD, "no related auth record", "new authorization, unless the token was replaced meanwhile"),
    (
        36_009_033,
        "Access denied. Your IP address is not in the IP allow list",
        "a person must allow the address; the message may come with any code",
    ),
    (AUTHORIZATION_EXPIRED, "authorization expired", "new authorization"),
    (ACCESS_TOKEN_EXPIRED, "access token expired", "refresh"),
    (MISSING_SCOPE, "Access denied: the access token lacks a scope", "the token works; the app needs the scope"),
    (TOO_MANY_REQUESTS, "Too many requests", "back off"),
    (36_009_003, "Internal error. Please try again later", "retry with backoff"),
    (33_001_002, "Internal timeout", "retry with backoff"),
    (36_009_007, "Request timeout", "retry with backoff"),
    (BAD_PARAMETER, "Invalid parameter: the app_key or app_secret is invalid", "the app credentials are wrong"),
    (98_001_004, "Invalid parameter: app_key", "the app credentials are wrong"),
];

/// The message that comes with a code.
pub fn message(code: i64) -> &'static str {
    TABLE.iter().find(|(known, ..)| *known == code).map_or("An error that no table lists", |(_, message, _)| message)
}
