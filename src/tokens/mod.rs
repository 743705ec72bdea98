//! Token values that cannot be printed, and the Secrets they come from and go to.

mod digest;
mod secret;
mod text;
mod wiped;

pub use digest::{Digest, DigestKey, SpentTokens};
pub use secret::{
    AppCredentials, AppKeyNames, LATEST, MissingKeys, ParsedTokens, SecretData, TokenKeyNames, TokenValues,
    ValueProblem, encode,
};
pub use text::{NotUtf8, SecretText};
pub(crate) use wiped::Wiped;
