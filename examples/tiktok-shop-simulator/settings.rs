//! What can be set for the whole simulator: by flags at the start, by `PATCH /control/settings`
//! later.

use clap::ValueEnum;
use serde::{Deserialize, Deserializer, Serialize};

/// An endpoint of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// A refresh token buys the next pair.
    Refresh,
    /// An auth code buys the first pair. Served as a query alone, whatever the forms.
    Exchange,
    /// An access token asks for its shops, in a signed query.
    Shops,
}

/// A wire form of the token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `POST` with a JSON body.
    Json,
    /// `GET` with query parameters.
    Query,
}

/// Which wire forms are served; the others get the real host's plain `404 page not found`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Forms {
    /// JSON and query.
    Both,
    /// JSON only.
    Json,
    /// Query only.
    Query,
}

impl Forms {
    /// Whether that form is among them.
    pub fn serve(self, form: Form) -> bool {
        match self {
            Self::Both => true,
            Self::Json => form == Form::Json,
            Self::Query => form == Form::Query,
        }
    }
}

/// What a refresh does to the refresh token. How the real service behaves is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// It is spent; the answer holds a new one. A spent one is refused.
    Rotating,
    /// It stays valid and the answer repeats it.
    NotRotating,
    /// It stays valid and the answer does not mention it.
    Omit,
    /// As `rotating`, and presenting a spent one kills the current one too.
    KillFamily,
}

/// How a request over the rate limit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitAnswer {
    /// HTTP 200 with code 36009002.
    #[default]
    Envelope,
    /// HTTP 429 without an envelope.
    Http429,
}

/// How `Retry-After` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfterStyle {
    /// Whole seconds.
    Seconds,
    /// An HTTP date.
    HttpDate,
}

/// A limit of requests for each app key.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests for each second, more than 0.
    pub requests_per_second: f64,
    /// How many may come at once. Default: one second's worth, at least 1.
    #[serde(default)]
    pub burst: Option<u32>,
    /// How the others are answered.
    #[serde(default)]
    pub answer: RateLimitAnswer,
    /// Whether they are told when to come back.
    #[serde(default)]
    pub retry_after: Option<RetryAfterStyle>,
}

impl RateLimit {
    /// How many requests may come at once.
    pub fn burst(&self) -> f64 {
        self.burst.map_or(self.requests_per_second.ceil(), f64::from).max(1.0)
    }
}

/// The settings of the simulator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The wire forms served.
    pub forms: Forms,
    /// The rotation policy of shops that have none of their own.
    pub rotation: Rotation,
    /// The limit for each app key.
    pub rate_limit: Option<RateLimit>,
    /// Special characters in the tokens of shops created from now on.
    pub token_chars: String,
    /// Added to the real time: a provider whose clock is wrong.
    pub clock_offset_seconds: i64,
}

/// A change of settings: what is absent stays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsPatch {
    forms: Option<Forms>,
    rotation: Option<Rotation>,
    #[serde(default, deserialize_with = "present")]
    #[allow(clippy::option_option, reason = "null switches it off, absent leaves it")]
    rate_limit: Option<Option<RateLimit>>,
    token_chars: Option<String>,
    clock_offset_seconds: Option<i64>,
}

impl Settings {
    /// Applies a change, all of it or nothing.
    ///
    /// # Errors
    /// Says which value is not usable.
    pub fn apply(&mut self, patch: SettingsPatch) -> Result<(), String> {
        let mut next = self.clone();
        next.forms = patch.forms.unwrap_or(next.forms);
        next.rotation = patch.rotation.unwrap_or(next.rotation);
        next.rate_limit = patch.rate_limit.unwrap_or(next.rate_limit);
        next.token_chars = patch.token_chars.unwrap_or(next.token_chars);
        next.clock_offset_seconds = patch.clock_offset_seconds.unwrap_or(next.clock_offset_seconds);
        next.check()?;
        *self = next;
        Ok(())
    }

    /// Refuses what would make no sense.
    ///
    /// # Errors
    /// Says which value is not usable.
    pub fn check(&self) -> Result<(), String> {
        super::tokens::check_chars(&self.token_chars)?;
        match self.rate_limit {
            Some(limit) if !limit.requests_per_second.is_finite() || limit.requests_per_second <= 0.0 => {
                Err("rate_limit.requests_per_second must be more than 0; set rate_limit to null to switch it off"
                    .into())
            }
            _ => Ok(()),
        }
    }
}

/// Tells an explicit `null` (`Some(None)`) from an absent field (`None`).
#[allow(clippy::option_option, reason = "absent, null and a value are three different things here")]
pub fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
