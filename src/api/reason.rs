//! Why an integration is as it is: one word for each case, the same in conditions, events, metrics and logs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The page with a section for each reason. Each heading is the reason, and so its anchor is the reason in lower case.
const TROUBLESHOOTING: &str =
    "https://github.com/tiktok-shop-operator/tiktok-shop-operator/blob/main/docs/src/troubleshooting.md";

/// Declares [`Reason`] with its words once, so that no list of them can miss one.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Every reason that the operator writes into a condition or an error.
        ///
        /// The order is the precedence for `Ready`: of several that apply, the smallest is shown. It ends with
        /// [`Reason::TokenValid`]; the reasons after it stand in `Refreshed` and `status.lastError` alone.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in order of precedence.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason as it stands in a condition, such as `TokenValid`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }

        impl FromStr for Reason {
            type Err = UnknownReason;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $(stringify!($name) => Ok(Self::$name),)+
                    _ => Err(UnknownReason),
                }
            }
        }
    };
}

reasons! {
    /// `spec.suspend` is true: nothing is refreshed.
    Suspended,
    /// The Secret with the app credentials is not there, or lacks one of its keys.
    AppCredentialsNotFound,
    /// The token Secret is not there.
    TokenSecretNotFound,
    /// The token Secret lacks the access token or the refresh token.
    TokensMissing,
    /// The token Secret is marked `immutable`, so that no new token could be stored.
    TokenSecretImmutable,
    /// An older integration names the same token Secret and keeps it.
    TokenSecretInUse,
    /// The operator may not read or write a Secret that the integration names.
    TokenSecretForbidden,
    /// Something else keeps writing a spent pair of tokens back into the token Secret.
    TokenSecretReverted,
    /// TikTok Shop refused the refresh token: the shop must be authorized anew.
    RefreshTokenRejected,
    /// The refresh token has expired: the shop must be authorized anew.
    RefreshTokenExpired,
    /// TikTok Shop refused the authorization code, or it was used before: the shop must be authorized anew.
    AuthorizationCodeRejected,
    /// TikTok Shop refused the app key or the app secret.
    AppCredentialsRejected,
    /// TikTok Shop does not accept requests from this address: it is not in the app's IP allow list.
    IpNotAllowed,
    /// New tokens were received and cannot be stored yet.
    PersistFailed,
    /// A request was sent and no answer tells whether the refresh token was spent.
    OutcomeUnknown,
    /// The access token has expired.
    TokenExpired,
    /// TikTok Shop refuses the access token although it has not expired; a new one was refused, too, or is on its way.
    AccessTokenRejected,
    /// Refreshes have failed since the last success; the condition `Refreshed` says how.
    RefreshFailing,
    /// The access token is valid, but lacks the scope that spec.checkShops needs.
    MissingScope,
    /// The access token is present and unexpired.
    TokenValid,
    /// The last refresh succeeded.
    Refreshed,
    /// No refresh was tried yet.
    NotAttempted,
    /// TikTok Shop answered that there were too many requests.
    RateLimited,
    /// TikTok Shop did not answer in time.
    Timeout,
    /// TikTok Shop could not be reached.
    NetworkError,
    /// TikTok Shop answered with an error that has no reason of its own here.
    ApiError,
    /// TikTok Shop's answer could not be understood.
    InvalidResponse,
}

impl Reason {
    /// Whether the reason speaks of a Secret in the cluster: missing, incomplete, unusable or out of reach.
    #[must_use]
    pub const fn is_about_secrets(self) -> bool {
        matches!(
            self,
            Self::AppCredentialsNotFound
                | Self::TokenSecretNotFound
                | Self::TokensMissing
                | Self::TokenSecretImmutable
                | Self::TokenSecretInUse
                | Self::TokenSecretForbidden
                | Self::TokenSecretReverted
        )
    }

    /// Whether nothing but a person can help, so that the condition `Stalled` is set.
    ///
    /// Never true of what may simply not be applied yet, such as a Secret that is not there. A rejected authorization
    /// code beside tokens that live is no such case either: see `report`.
    #[must_use]
    pub const fn stalls(self) -> bool {
        matches!(
            self,
            Self::TokenSecretImmutable
                | Self::TokenSecretInUse
                | Self::TokenSecretReverted
                | Self::RefreshTokenExpired
                | Self::RefreshTokenRejected
                | Self::AuthorizationCodeRejected
                | Self::AppCredentialsRejected
                | Self::IpNotAllowed
        )
    }

    /// Whether a person must do something, and waiting alone will not help.
    ///
    /// Wider than [`Reason::stalls`]: what is missing may be about to be applied, but somebody must apply it.
    #[must_use]
    pub const fn needs_a_person(self) -> bool {
        self.is_about_secrets()
            || self.stalls()
            || matches!(self, Self::PersistFailed | Self::AccessTokenRejected | Self::MissingScope)
    }

    /// The section of the documentation that says what to do about it.
    #[must_use]
    pub fn docs_url(self) -> String {
        format!("{TROUBLESHOOTING}#{}", self.as_str().to_ascii_lowercase())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no [`Reason`] of this version: written by a newer operator, or by a foreign hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason")]
pub struct UnknownReason;

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        word.parse().map_err(|UnknownReason| de::Error::invalid_value(de::Unexpected::Str(&word), &"a known reason"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_from_its_own_word() {
        for &reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            let json = serde_json::to_value(reason).unwrap();
            assert_eq!(json, reason.as_str());
            assert_eq!(serde_json::from_value::<Reason>(json).unwrap(), reason);
        }
    }

    #[test]
    fn a_word_of_another_version_is_an_error_and_no_panic() {
        assert_eq!("NoSuchReason".parse::<Reason>(), Err(UnknownReason));
        assert_eq!("tokenvalid".parse::<Reason>(), Err(UnknownReason));
        assert_eq!("".parse::<Reason>(), Err(UnknownReason));
        assert!(serde_json::from_str::<Reason>("\"NoSuchReason\"").is_err());
    }

    #[test]
    fn a_reason_takes_one_byte() {
        assert_eq!(size_of::<Reason>(), 1);
        assert_eq!(size_of::<Option<Reason>>(), 1);
    }

    #[test]
    fn the_order_is_the_precedence_that_ready_follows() {
        let words: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(
            words,
            [
                "Suspended",
                "AppCredentialsNotFound",
                "TokenSecretNotFound",
                "TokensMissing",
                "TokenSecretImmutable",
                "TokenSecretInUse",
                "TokenSecretForbidden",
                "TokenSecretReverted",
                "RefreshTokenRejected",
                "RefreshTokenExpired",
                "AuthorizationCodeRejected",
                "AppCredentialsRejected",
                "IpNotAllowed",
                "PersistFailed",
                "OutcomeUnknown",
                "TokenExpired",
                "AccessTokenRejected",
                "RefreshFailing",
                "MissingScope",
                "TokenValid",
                "Refreshed",
                "NotAttempted",
                "RateLimited",
                "Timeout",
                "NetworkError",
                "ApiError",
                "InvalidResponse",
            ]
        );
        assert!(Reason::ALL.is_sorted());
    }

    #[test]
    fn only_what_a_person_must_mend_stalls() {
        let stalling: Vec<_> = Reason::ALL.iter().filter(|reason| reason.stalls()).map(|r| r.as_str()).collect();
        assert_eq!(
            stalling,
            [
                "TokenSecretImmutable",
                "TokenSecretInUse",
                "TokenSecretReverted",
                "RefreshTokenRejected",
                "RefreshTokenExpired",
                "AuthorizationCodeRejected",
                "AppCredentialsRejected",
                "IpNotAllowed",
            ]
        );
    }

    #[test]
    fn a_person_is_needed_for_secrets_new_authorizations_the_app_scopes_and_what_cannot_be_stored() {
        let needing: Vec<_> = Reason::ALL.iter().filter(|reason| reason.needs_a_person()).map(|r| r.as_str()).collect();
        assert_eq!(
            needing,
            [
                "AppCredentialsNotFound",
                "TokenSecretNotFound",
                "TokensMissing",
                "TokenSecretImmutable",
                "TokenSecretInUse",
                "TokenSecretForbidden",
                "TokenSecretReverted",
                "RefreshTokenRejected",
                "RefreshTokenExpired",
                "AuthorizationCodeRejected",
                "AppCredentialsRejected",
                "IpNotAllowed",
                "PersistFailed",
                "AccessTokenRejected",
                "MissingScope",
            ]
        );
        assert!(Reason::ALL.iter().all(|reason| !reason.stalls() || reason.needs_a_person()));
    }

    #[test]
    fn the_documentation_of_a_reason_lies_in_the_repository_that_the_package_names() {
        let repository = env!("CARGO_PKG_REPOSITORY");
        assert_eq!(
            Reason::IpNotAllowed.docs_url(),
            format!("{repository}/blob/main/docs/src/troubleshooting.md#ipnotallowed")
        );
    }

    #[test]
    fn the_reasons_about_secrets_stand_together_in_the_order() {
        let about: Vec<_> = Reason::ALL.iter().copied().filter(|reason| reason.is_about_secrets()).collect();
        assert_eq!(about, Reason::ALL[1..=7]);
    }
}
