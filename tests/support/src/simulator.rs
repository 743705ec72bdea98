//! The simulator of TikTok Shop as a child process, and its control API with types.
//!
//! What each endpoint and action means stands at the head of the simulator's `main.rs`. Here every
//! failure is a panic whose message says what to look at: a test has nothing better to do with it.
//!
//! ```ignore
//! let simulator = Simulator::start(&binary).await;
//! let app = simulator.create_app("demo", "s3cret").await;
//! let shop = simulator.create_shop(&NewShop::of(&app).access_remaining(60)).await;
//! simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation)).shop(&shop.id)).await;
//! // … start the operator on `simulator.token_endpoint()` …
//! let held = simulator.wait_for_held(&shop.id, Point::AfterRotation, TIMEOUT).await;
//! // … kill it …
//! simulator.release(held.id).await;
//! simulator.assert_no_violations().await;
//! ```

use std::{collections::BTreeMap, ffi::OsStr, path::Path, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::process::{Child, Program, Signal};
use crate::proxy::Proxy;

/// How long the process may take to be ready; it has nothing to load.
const START_WITHIN: Duration = Duration::from_secs(20);

/// What one call of the control API may take; a hundred thousand shops take a few seconds.
const CALL_WITHIN: Duration = Duration::from_mins(1);

/// A wire form of the token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `POST` with a JSON body.
    Json,
    /// `GET` with query parameters.
    Query,
}

/// An endpoint of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// A refresh token buys the next pair.
    Refresh,
    /// An auth code buys the first pair.
    Exchange,
    /// An access token asks for its shops.
    Shops,
}

/// Which wire forms are served; the others get a plain 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Forms {
    /// JSON and query.
    Both,
    /// JSON only.
    Json,
    /// Query only.
    Query,
}

/// What a refresh does to the refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// It is spent; the answer holds a new one.
    Rotating,
    /// It stays valid and the answer repeats it.
    NotRotating,
    /// It stays valid and the answer does not mention it.
    Omit,
    /// As `Rotating`, and presenting a spent one kills the current one.
    KillFamily,
}

/// How `Retry-After` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfterStyle {
    /// Whole seconds.
    Seconds,
    /// An HTTP date.
    HttpDate,
}

/// How a request over the rate limit is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitAnswer {
    /// HTTP 200 with code 36009002.
    Envelope,
    /// HTTP 429 without an envelope.
    Http429,
}

/// A limit of requests for each app key.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RateLimit {
    /// Requests for each second.
    pub requests_per_second: f64,
    /// How many may come at once; one second's worth if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// How the others are answered.
    pub answer: RateLimitAnswer,
    /// Whether they are told when to come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfterStyle>,
}

/// A `Retry-After` header in a fault's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryAfter {
    /// How long to wait.
    pub seconds: u32,
    /// How that is written.
    pub style: RetryAfterStyle,
}

/// An app's credentials.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct App {
    /// The app key.
    pub app_key: String,
    /// The app secret.
    pub app_secret: String,
}

/// A shop to create. What is not said takes the simulator's default.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewShop {
    /// Letters, digits, `-`, `.`, `_`; default `shop-<n>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The app it authorized; may be left out while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_key: Option<String>,
    /// Its own rotation policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// How long new access tokens live; default seven days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_life_seconds: Option<i64>,
    /// How long new refresh tokens live; default until 2123, a creator's 365 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_life_seconds: Option<i64>,
    /// What the first access token has left; may be negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_remaining_seconds: Option<i64>,
    /// What the first refresh token has left; may be negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_remaining_seconds: Option<i64>,
    /// 0 seller, 1 creator.
    pub user_type: u8,
    /// `Some(None)` is a `null` name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[allow(clippy::option_option, reason = "absent, null and a value are three different things here")]
    pub seller_name: Option<Option<String>>,
    /// Such as `GB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seller_base_region: Option<String>,
    /// Such as `seller.authorization.info`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_scopes: Option<Vec<String>>,
    /// Special characters in its tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_chars: Option<String>,
    /// Fields that are left out of its `data`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub omit_fields: Vec<String>,
}

impl NewShop {
    /// A shop that authorized this app.
    #[must_use]
    pub fn of(app: &App) -> Self {
        Self { app_key: Some(app.app_key.clone()), ..Self::default() }
    }

    /// With this id.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Its access token expires in so many seconds.
    #[must_use]
    pub fn access_remaining(mut self, seconds: i64) -> Self {
        self.access_remaining_seconds = Some(seconds);
        self
    }

    /// Its refresh token expires in so many seconds.
    #[must_use]
    pub fn refresh_remaining(mut self, seconds: i64) -> Self {
        self.refresh_remaining_seconds = Some(seconds);
        self
    }

    /// Its new access tokens live so many seconds.
    #[must_use]
    pub fn access_life(mut self, seconds: i64) -> Self {
        self.access_life_seconds = Some(seconds);
        self
    }

    /// Its new refresh tokens live so many seconds.
    #[must_use]
    pub fn refresh_life(mut self, seconds: i64) -> Self {
        self.refresh_life_seconds = Some(seconds);
        self
    }

    /// With a rotation policy of its own.
    #[must_use]
    pub fn rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = Some(rotation);
        self
    }

    /// A creator, whose refresh token lives 365 days.
    #[must_use]
    pub fn creator(mut self) -> Self {
        self.user_type = 1;
        self
    }
}

/// A change of a shop; what is not said stays.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ShopPatch {
    /// Its rotation policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// How long new access tokens live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_life_seconds: Option<i64>,
    /// How long new refresh tokens live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_life_seconds: Option<i64>,
    /// `Some(None)` is a `null` name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[allow(clippy::option_option, reason = "absent, null and a value are three different things here")]
    pub seller_name: Option<Option<String>>,
    /// Fields that are left out of its `data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omit_fields: Option<Vec<String>>,
    /// The scopes of its access tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_scopes: Option<Vec<String>>,
    /// What the shops call answers as `data.shops`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shops: Option<Vec<Value>>,
}

/// Many shops to create: ids are `prefix` and a number from `first`.
#[derive(Debug, Clone, Serialize)]
pub struct BulkShops {
    /// How many.
    pub count: u32,
    /// What their ids begin with.
    pub prefix: String,
    /// The first one's number.
    pub first: u32,
    /// What they are like; without an id.
    pub shop: NewShop,
    /// How much longer the last one's access token lives than the first one's.
    pub access_remaining_spread_seconds: i64,
}

/// Where a refresh token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// The one that works.
    Current,
    /// A refresh has used it up.
    Spent,
    /// A new authorization replaced it.
    Superseded,
    /// Killed because an older one was presented again.
    Revoked,
}

/// What is counted of a shop, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// Refreshes that happened, whatever was answered.
    pub refreshes: u64,
    /// Of these, those whose answer holds the new pair and was handed to the socket whole.
    pub delivered: u64,
    /// Times that a refresh token was presented.
    pub presentations: u64,
    /// Exchanges of an auth code that happened, whatever was answered.
    pub exchanges: u64,
    /// Times that an auth code was presented.
    pub code_presentations: u64,
    /// Times that one of either was processed and refused.
    pub refused: u64,
    /// Calls for shops with an access token of it.
    pub shops_calls: u64,
}

/// A shop as it is now.
#[derive(Debug, Clone, Deserialize)]
pub struct Shop {
    /// Its id.
    #[serde(rename = "shop")]
    pub id: String,
    /// Its app.
    pub app_key: String,
    /// Whether the seller withdrew the authorization.
    pub deauthorized: bool,
    /// Where the refresh token of its last pair stands.
    pub refresh_token_state: TokenState,
    /// What happened to it.
    pub counters: Counters,
    /// What TikTok answers as `data`; its fields are those of a token Secret.
    pub data: Value,
}

impl Shop {
    /// The current access token.
    #[must_use]
    pub fn access_token(&self) -> &str {
        self.text("access_token")
    }

    /// The current refresh token.
    #[must_use]
    pub fn refresh_token(&self) -> &str {
        self.text("refresh_token")
    }

    /// When the access token expires, in Unix seconds.
    #[must_use]
    pub fn access_expires_at(&self) -> i64 {
        self.seconds("access_token_expire_in")
    }

    /// When the refresh token expires, in Unix seconds.
    #[must_use]
    pub fn refresh_expires_at(&self) -> i64 {
        self.seconds("refresh_token_expire_in")
    }

    fn text(&self, field: &str) -> &str {
        self.data[field].as_str().unwrap_or_else(|| panic!("shop {} has no {field}: {}", self.id, self.data))
    }

    fn seconds(&self, field: &str) -> i64 {
        self.data[field].as_i64().unwrap_or_else(|| panic!("shop {} has no {field}: {}", self.id, self.data))
    }
}

/// A pair that a shop had.
#[derive(Debug, Clone, Deserialize)]
pub struct Pair {
    /// When it was given out.
    pub issued_at: DateTime<Utc>,
    /// The access token.
    pub access_token: String,
    /// When it expires, in Unix seconds.
    pub access_token_expire_in: i64,
    /// The refresh token.
    pub refresh_token: String,
    /// When it expires, in Unix seconds.
    pub refresh_token_expire_in: i64,
    /// Where the refresh token stands now.
    pub refresh_token_state: TokenState,
}

/// A moment in the life of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// The request has been read; nothing has been done.
    BeforeProcessing,
    /// The refresh has happened (or was refused); no byte of the answer is out.
    AfterRotation,
}

impl Point {
    const fn name(self) -> &'static str {
        match self {
            Self::BeforeProcessing => "before_processing",
            Self::AfterRotation => "after_rotation",
        }
    }
}

/// Where a connection is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropPoint {
    /// Nothing is done, no byte is answered.
    BeforeProcessing,
    /// The refresh has happened, no byte is answered.
    AfterRotation,
    /// The refresh has happened, the head and half of the body are out.
    HalfAnswer,
}

/// What the `Content-Length` of a truncated answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncatedLength {
    /// What is sent: correct HTTP around broken JSON.
    Sent,
    /// The whole: the connection closes too early.
    Whole,
}

/// An answer with code 0 that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// The pair as it was before this request; by default nothing is refreshed.
    OldPair,
    /// Both tokens are `""`.
    EmptyTokens,
    /// Both tokens are absent.
    MissingTokens,
    /// Both tokens are `null`.
    NullTokens,
    /// The access token alone is absent.
    MissingAccessToken,
    /// The refresh token alone is absent, although it was rotated.
    MissingRefreshToken,
    /// Both tokens are numbers.
    NumberTokens,
    /// Blanks and line ends around both tokens.
    PaddedTokens,
    /// All fields but the tokens are `null`.
    NullFields,
    /// All fields but the tokens are absent.
    MissingFields,
    /// `data` is `null`.
    NullData,
    /// `data` is absent.
    MissingData,
    /// `data` is `{}`.
    EmptyData,
    /// Fields that no documentation lists.
    ExtraFields,
    /// Both expiries in milliseconds.
    ExpiryMilliseconds,
    /// Both expiries as seconds from now.
    ExpiryDuration,
    /// Both expiries negative.
    ExpiryNegative,
    /// Both expiries 0.
    ExpiryZero,
    /// Both expiries as decimal strings.
    ExpiryString,
    /// Both expiries as strings that are no numbers.
    ExpiryJunk,
    /// Both expiries as fractions.
    ExpiryFraction,
    /// Both expiries larger than a signed 64-bit integer.
    ExpiryHuge,
    /// Both expiries an hour ago.
    ExpiryPast,
    /// Both expiries `null`.
    ExpiryNull,
    /// Both expiries absent.
    ExpiryMissing,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::OldPair,
        Self::EmptyTokens,
        Self::MissingTokens,
        Self::NullTokens,
        Self::MissingAccessToken,
        Self::MissingRefreshToken,
        Self::NumberTokens,
        Self::PaddedTokens,
        Self::NullFields,
        Self::MissingFields,
        Self::NullData,
        Self::MissingData,
        Self::EmptyData,
        Self::ExtraFields,
        Self::ExpiryMilliseconds,
        Self::ExpiryDuration,
        Self::ExpiryNegative,
        Self::ExpiryZero,
        Self::ExpiryString,
        Self::ExpiryJunk,
        Self::ExpiryFraction,
        Self::ExpiryHuge,
        Self::ExpiryPast,
        Self::ExpiryNull,
        Self::ExpiryMissing,
    ];
}

/// What goes wrong. `rotate` says whether the refresh happens behind the wrong answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Action {
    /// Answers an error envelope.
    Error {
        /// The code, known or not.
        code: i64,
        /// If not said, the message that the code comes with.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// The HTTP status.
        http_status: u16,
        /// The header.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<RetryAfter>,
        /// Whether the refresh happens.
        rotate: bool,
    },
    /// Answers these bytes.
    Raw {
        /// The HTTP status.
        http_status: u16,
        /// Headers.
        headers: BTreeMap<String, String>,
        /// The body.
        body: String,
        /// What `Content-Length` claims, if not the truth.
        #[serde(skip_serializing_if = "Option::is_none")]
        content_length: Option<u64>,
        /// The header.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<RetryAfter>,
        /// Whether the refresh happens.
        rotate: bool,
    },
    /// Answers honestly behind so much padding.
    Flood {
        /// How much.
        mebibytes: u32,
        /// Whether `Content-Length` is said; otherwise in chunks.
        content_length: bool,
    },
    /// Answers the first half of the honest object.
    Truncated {
        /// What the header says.
        content_length: TruncatedLength,
    },
    /// Answers honestly, a few bytes at a time.
    Drip {
        /// Bytes at a time.
        bytes: u32,
        /// Milliseconds between.
        every_ms: u64,
    },
    /// Waits, then goes on.
    Delay {
        /// Where.
        point: Point,
        /// How long.
        ms: u64,
    },
    /// Waits until released.
    Hold {
        /// Where.
        point: Point,
    },
    /// Never answers; ends when the client hangs up.
    Hang {
        /// Where.
        point: Point,
    },
    /// Closes the connection.
    Drop {
        /// Where.
        point: DropPoint,
        /// RST instead of FIN.
        reset: bool,
    },
    /// Answers code 0 with something wrong.
    Lie {
        /// What.
        kind: Lie,
        /// If not said: yes, but for `OldPair`.
        #[serde(skip_serializing_if = "Option::is_none")]
        rotate: Option<bool>,
    },
    /// Answers with a JSON merge patch on the honest envelope.
    Patch {
        /// The patch.
        merge: Value,
        /// Whether the refresh happens.
        rotate: bool,
    },
}

impl Action {
    /// HTTP 200 with an error code, and the message that it comes with. Nothing is refreshed.
    #[must_use]
    pub const fn code(code: i64) -> Self {
        Self::Error { code, message: None, http_status: 200, retry_after: None, rotate: false }
    }

    /// HTTP 200 with an error code and this message. Nothing is refreshed.
    #[must_use]
    pub fn code_saying(code: i64, message: &str) -> Self {
        Self::Error { code, message: Some(message.into()), http_status: 200, retry_after: None, rotate: false }
    }

    /// The refusal of an address that is not in the app's allow list, under any code.
    #[must_use]
    pub fn ip_not_allowed(code: i64) -> Self {
        Self::code_saying(code, "Access denied. Your IP address is not in the IP allow list")
    }

    /// An HTTP status without an envelope. Nothing is refreshed.
    #[must_use]
    pub fn http(http_status: u16) -> Self {
        Self::raw(http_status, "")
    }

    /// HTTP 429 without an envelope. Nothing is refreshed.
    #[must_use]
    pub fn too_many_requests(retry_after: Option<RetryAfter>) -> Self {
        let mut action = Self::raw(429, "Too Many Requests\n");
        if let Self::Raw { retry_after: header, .. } = &mut action {
            *header = retry_after;
        }
        action
    }

    /// A page of a gateway. Nothing is refreshed.
    #[must_use]
    pub fn html(http_status: u16) -> Self {
        let mut action = Self::raw(http_status, "<html><body><h1>Bad gateway</h1></body></html>");
        if let Self::Raw { headers, .. } = &mut action {
            headers.insert("content-type".into(), "text/html".into());
        }
        action
    }

    /// A redirect. Nothing is refreshed.
    #[must_use]
    pub fn redirect(http_status: u16, location: &str) -> Self {
        let mut action = Self::raw(http_status, "");
        if let Self::Raw { headers, .. } = &mut action {
            headers.insert("location".into(), location.into());
        }
        action
    }

    /// A status and a body. Nothing is refreshed.
    #[must_use]
    pub fn raw(http_status: u16, body: &str) -> Self {
        Self::Raw {
            http_status,
            headers: BTreeMap::new(),
            body: body.into(),
            content_length: None,
            retry_after: None,
            rotate: false,
        }
    }

    /// A wait until released.
    #[must_use]
    pub const fn hold(point: Point) -> Self {
        Self::Hold { point }
    }

    /// No answer, ever.
    #[must_use]
    pub const fn hang(point: Point) -> Self {
        Self::Hang { point }
    }

    /// A wait.
    #[must_use]
    pub fn delay(point: Point, wait: Duration) -> Self {
        Self::Delay { point, ms: wait.as_millis().try_into().expect("a delay of less than ages") }
    }

    /// A closed connection.
    #[must_use]
    pub const fn drop(point: DropPoint) -> Self {
        Self::Drop { point, reset: false }
    }

    /// A success that is none.
    #[must_use]
    pub const fn lie(kind: Lie) -> Self {
        Self::Lie { kind, rotate: None }
    }

    /// The same, but the refresh happens behind the wrong answer. Of no effect on actions whose
    /// point says whether it does.
    #[must_use]
    pub fn after_rotating(mut self) -> Self {
        match &mut self {
            Self::Error { rotate, .. } | Self::Raw { rotate, .. } | Self::Patch { rotate, .. } => *rotate = true,
            Self::Lie { rotate, .. } => *rotate = Some(true),
            _ => {}
        }
        self
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Scope {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shop: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    form: Option<Form>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<Endpoint>,
}

/// A fault to inject: for everybody, until its methods narrow it down.
#[derive(Debug, Clone, Serialize)]
#[must_use = "a fault does nothing until it is given to Simulator::add_fault"]
pub struct Fault {
    scope: Scope,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u32>,
    skip: u32,
    action: Action,
}

impl Fault {
    /// Met by the next request in its scope.
    pub fn once(action: Action) -> Self {
        Self::times(1, action)
    }

    /// Met by the next `times` requests in its scope.
    pub fn times(times: u32, action: Action) -> Self {
        Self { scope: Scope::default(), times: Some(times), skip: 0, action }
    }

    /// Met by all requests in its scope until it is cleared.
    pub fn always(action: Action) -> Self {
        Self { scope: Scope::default(), times: None, skip: 0, action }
    }

    /// Lets so many requests in its scope pass first.
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Only for requests to this endpoint.
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.scope.endpoint = Some(endpoint);
        self
    }

    /// Only for requests that present a refresh token or an auth code of this shop, old or new.
    pub fn shop(mut self, id: &str) -> Self {
        self.scope.shop = Some(id.into());
        self
    }

    /// Only for requests with this app key.
    pub fn app_key(mut self, app_key: &str) -> Self {
        self.scope.app_key = Some(app_key.into());
        self
    }

    /// Only for requests that present this refresh token.
    pub fn refresh_token(mut self, refresh_token: &str) -> Self {
        self.scope.refresh_token = Some(refresh_token.into());
        self
    }

    /// Only for requests in this form.
    pub fn form(mut self, form: Form) -> Self {
        self.scope.form = Some(form);
        self
    }
}

/// A fault in force, or used up.
#[derive(Debug, Clone, Deserialize)]
pub struct FaultState {
    /// Its number.
    pub id: u64,
    /// How many more requests meet it; none: without end.
    pub times_left: Option<u32>,
    /// How many more pass first.
    pub skip_left: u32,
    /// How many have met it.
    pub hits: u32,
    /// What goes wrong.
    pub action: Action,
}

/// A request that is held.
#[derive(Debug, Clone, Deserialize)]
pub struct Held {
    /// The number to release it by.
    pub id: u64,
    /// Where it is held.
    pub point: Point,
    /// The request's number.
    pub request: u64,
    /// The shop whose token it presents.
    pub shop: Option<String>,
    /// The app key that it names.
    pub app_key: Option<String>,
    /// The refresh token that it presents.
    pub refresh_token: Option<String>,
    /// Its form.
    pub form: Form,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Whether the client has hung up.
    pub client_gone: bool,
}

/// What a request led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not decided yet.
    Pending,
    /// The refresh happened, whatever was answered.
    Refreshed,
    /// The auth code gave its pair, whatever was answered.
    Exchanged,
    /// Processed and refused.
    Refused,
    /// Over the rate limit, not processed.
    RateLimited,
    /// The form, the method or the path is not served.
    FormNotServed,
    /// A fault answered, not processed.
    Faulted,
    /// The connection was closed, not processed.
    Dropped,
    /// Never answered, not processed.
    Hung,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerState {
    /// Its last byte has not left yet.
    Pending,
    /// Its last byte was handed to the socket.
    Delivered,
    /// It was cut, never sent, or the client had gone.
    Undelivered,
}

/// One time that a refresh token or an auth code was presented.
#[derive(Debug, Clone, Deserialize)]
pub struct Presentation {
    /// The request's number.
    pub request: u64,
    /// When it came.
    pub at: DateTime<Utc>,
    /// In which form.
    pub form: Form,
    /// What it led to.
    pub outcome: Outcome,
    /// The code in the answer's envelope.
    pub code: Option<i64>,
    /// The answer's HTTP status.
    pub http_status: Option<u16>,
    /// What became of the answer.
    pub answer: AnswerState,
    /// Whether the answer holds the new pair.
    pub tells_pair: bool,
    /// Whether the token had been spent before.
    pub after_spent: bool,
}

/// A refresh token, and each time that it was presented.
#[derive(Debug, Clone, Deserialize)]
pub struct TokenRecord {
    /// Its shop.
    pub shop: String,
    /// Counted from 1 for each shop.
    pub serial: u32,
    /// Its value.
    pub refresh_token: String,
    /// When it was given out.
    pub issued_at: DateTime<Utc>,
    /// When it expires, in Unix seconds.
    pub expires_at: i64,
    /// When it was spent.
    pub spent_at: Option<DateTime<Utc>>,
    /// Where it stands.
    pub state: TokenState,
    /// Each time, in order.
    pub presentations: Vec<Presentation>,
}

/// Where an auth code stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeState {
    /// It can be exchanged, unless it has expired.
    Open,
    /// It was.
    Used,
    /// The seller withdrew the authorization first.
    Revoked,
}

/// An auth code, and each time that it was presented.
#[derive(Debug, Clone, Deserialize)]
pub struct CodeRecord {
    /// Its shop.
    pub shop: String,
    /// Counted from 1 for each shop.
    pub serial: u32,
    /// Its value.
    pub auth_code: String,
    /// When it expires, in Unix seconds.
    pub expires_at: i64,
    /// When it was used.
    pub used_at: Option<DateTime<Utc>>,
    /// Where it stands.
    pub state: CodeState,
    /// Each time, in order.
    pub presentations: Vec<Presentation>,
}

/// An auth code that was presented again after it had been used.
#[derive(Debug, Clone, Deserialize)]
pub struct CodeViolation {
    /// The code.
    #[serde(flatten)]
    pub code: CodeRecord,
    /// Whether an answer that held its pair had been handed to the socket whole.
    pub pair_delivered: bool,
}

/// A refresh token that was presented again after it had been spent.
#[derive(Debug, Clone, Deserialize)]
pub struct Violation {
    /// The token.
    #[serde(flatten)]
    pub token: TokenRecord,
    /// Whether an answer that held the new pair had been handed to the socket whole. Where it had
    /// not, a client may have tried once more because it had to.
    pub pair_delivered: bool,
}

/// A presented value that was never given out.
#[derive(Debug, Clone, Deserialize)]
pub struct Stranger {
    /// The request's number.
    pub request: u64,
    /// When it came.
    pub at: DateTime<Utc>,
    /// The value as presented.
    pub value: String,
}

/// What an app has asked.
#[derive(Debug, Clone, Deserialize)]
pub struct AppRecord {
    /// Its secret now.
    pub app_secret: String,
    /// Requests with its key.
    pub requests: u64,
    /// The most of them within any one second.
    pub peak_requests_per_second: u64,
}

/// Counts since the start.
#[derive(Debug, Clone, Deserialize)]
pub struct Totals {
    /// Requests to the platform, whatever they were.
    pub requests: u64,
    /// Not answered yet.
    pub in_flight: u64,
    /// The most there were at once.
    pub peak_in_flight: u64,
    /// Refreshes that happened.
    pub refreshes: u64,
    /// Those whose answer holds the new pair and was handed to the socket whole.
    pub refreshes_delivered: u64,
    /// The others that are settled: no client can know the new pair.
    pub refreshes_undelivered: u64,
    /// Exchanges that happened.
    pub exchanges: u64,
    /// Those whose answer holds the pair and was handed to the socket whole.
    pub exchanges_delivered: u64,
    /// The others that are settled.
    pub exchanges_undelivered: u64,
    /// Processed and refused.
    pub refused: u64,
    /// Over the rate limit.
    pub rate_limited: u64,
    /// In a form, by a method or at a path that is not served.
    pub form_not_served: u64,
    /// Answered by a fault, not processed.
    pub faulted: u64,
    /// Dropped before processing.
    pub dropped: u64,
    /// Hung before processing.
    pub hung: u64,
    /// Answers by code; `none` without an envelope.
    pub by_code: BTreeMap<String, u64>,
    /// Answers by HTTP status.
    pub by_http_status: BTreeMap<u16, u64>,
    /// Requests in the JSON form.
    pub form_json: u64,
    /// Requests in the query form.
    pub form_query: u64,
    /// Answers whose last byte was handed to the socket.
    pub answers_delivered: u64,
    /// Answers that were cut, not sent, or left without a client.
    pub answers_undelivered: u64,
    /// Refresh tokens given out.
    pub refresh_tokens_issued: u64,
    /// Refresh tokens spent.
    pub refresh_tokens_spent: u64,
    /// Auth codes given out.
    pub codes_issued: u64,
    /// Times that a refresh token was presented.
    pub presentations: u64,
    /// Times that an auth code was.
    pub code_presentations: u64,
    /// Times that something else was.
    pub strangers: u64,
    /// Refresh tokens presented again after they had been spent.
    pub violations: u64,
    /// Auth codes presented again after they had been used.
    pub code_violations: u64,
}

/// The witness's word.
#[derive(Debug, Clone, Deserialize)]
pub struct Witness {
    /// Counts.
    pub totals: Totals,
    /// Apps by key.
    pub apps: BTreeMap<String, AppRecord>,
    /// Tokens presented again after they had been spent.
    pub violations: Vec<Violation>,
    /// Auth codes presented again after they had been used.
    pub code_violations: Vec<CodeViolation>,
    /// The last 1,000 values that were never given out.
    pub strangers: Vec<Stranger>,
}

/// A request as the log keeps it.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// Counted from 1.
    pub number: u64,
    /// When it came.
    pub at: DateTime<Utc>,
    /// GET, POST …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// The form, where it is one.
    pub form: Option<Form>,
    /// The app key that it names.
    pub app_key: Option<String>,
    /// The shop whose refresh token it presents.
    pub shop: Option<String>,
    /// Lower case, in order, separated by commas.
    pub header_names: String,
    /// The user agent.
    pub user_agent: Option<String>,
    /// The content type.
    pub content_type: Option<String>,
    /// The faults that it met.
    pub faults: Vec<u64>,
    /// What it led to.
    pub outcome: Outcome,
    /// The HTTP status answered.
    pub http_status: Option<u16>,
    /// The code answered.
    pub code: Option<i64>,
    /// From the request to the answer being ready.
    pub duration_ms: Option<i64>,
    /// What became of the answer.
    pub answer: AnswerState,
}

/// What to wait for: all that is said must be reached.
#[derive(Debug, Clone, Default)]
pub struct Wait {
    /// Of this shop; none: of all together.
    pub shop: Option<String>,
    /// Refreshes that happened.
    pub refreshes: Option<u64>,
    /// Refreshes whose new pair was handed to the socket.
    pub delivered: Option<u64>,
    /// Times that a refresh token was presented.
    pub presentations: Option<u64>,
    /// Exchanges that happened.
    pub exchanges: Option<u64>,
    /// Times that an auth code was presented.
    pub code_presentations: Option<u64>,
    /// Calls for shops with its access tokens.
    pub shops_calls: Option<u64>,
    /// Times that it was processed and refused.
    pub refused: Option<u64>,
    /// Requests, whatever they were; not together with a shop.
    pub requests: Option<u64>,
    /// A fault, and how many requests have met it.
    pub fault_hits: Option<(u64, u32)>,
}

/// A running simulator. It ends when this is dropped.
#[derive(Debug)]
pub struct Simulator {
    child: Child,
    base: String,
    http: reqwest::Client,
}

impl Simulator {
    /// Starts the example's binary on a free port.
    pub async fn start(binary: &Path) -> Self {
        Self::start_with(binary, [""; 0]).await
    }

    /// Starts it with more arguments, such as `--forms=query`.
    pub async fn start_with(binary: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let program = Program::new(binary).name("simulator").arg("--listen=127.0.0.1:0").args(args);
        let child = program.spawn().unwrap_or_else(|error| {
            panic!(
                "failed to start the simulator: {error}; build it with `cargo build --example tiktok-shop-simulator`"
            )
        });
        let line = child
            .wait_for_line(|line| line.starts_with("listening on "), START_WITHIN)
            .await
            .unwrap_or_else(|error| panic!("the simulator did not come up: {error}"));
        let base = line.trim_start_matches("listening on ").to_owned();
        let http = reqwest::Client::builder()
            // A proxy in the environment has no business between a test and its simulator.
            .no_proxy()
            .build()
            .expect("a client without special settings");
        Self { child, base, http }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// `127.0.0.1:PORT`, for a proxy in front of it.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        let address = self.base.trim_start_matches("http://");
        address.parse().unwrap_or_else(|_| panic!("the simulator says that it listens on {address:?}"))
    }

    /// For the operator's `--token-endpoint`.
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        format!("{}/api/v2/token/refresh", self.base)
    }

    /// The same by way of a proxy before this simulator.
    #[must_use]
    pub fn token_endpoint_through(&self, proxy: &Proxy) -> String {
        self.token_endpoint().replace(&self.base, &proxy.url())
    }

    /// For the operator's `--authorization-endpoint`.
    #[must_use]
    pub fn authorization_endpoint(&self) -> String {
        format!("{}/api/v2/token/get", self.base)
    }

    /// For the operator's `--shops-endpoint`.
    #[must_use]
    pub fn shops_endpoint(&self) -> String {
        format!("{}/authorization/202309/shops", self.base)
    }

    /// The process: its output, memory, processor time.
    #[must_use]
    pub fn process(&self) -> &Child {
        &self.child
    }

    /// Ends it as an orderly stop would; panics if it does not exit with 0.
    pub async fn stop(self) {
        self.child.signal(Signal::TERM);
        let status = self.child.wait_exit(START_WITHIN).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(status.success(), "the simulator ended with {status}:\n{}", self.child.tail(20));
    }

    // ---- settings ----

    /// Which wire forms are served.
    pub async fn set_forms(&self, forms: Forms) {
        self.set("forms", forms).await;
    }

    /// The rotation policy of shops that have none of their own.
    pub async fn set_rotation(&self, rotation: Rotation) {
        self.set("rotation", rotation).await;
    }

    /// The limit for each app key; none switches it off.
    pub async fn set_rate_limit(&self, limit: Option<RateLimit>) {
        self.set("rate_limit", limit).await;
    }

    /// Special characters in the tokens of shops created from now on.
    pub async fn set_token_chars(&self, chars: &str) {
        self.set("token_chars", chars).await;
    }

    /// How far its clock is ahead of the real one.
    pub async fn set_clock_offset(&self, seconds: i64) {
        self.set("clock_offset_seconds", seconds).await;
    }

    async fn set(&self, name: &str, value: impl Serialize) {
        let _: Value = self.call("PATCH", "/settings", Some(json!({ name: value }))).await;
    }

    // ---- apps and shops ----

    /// Creates an app with these credentials.
    pub async fn create_app(&self, app_key: &str, app_secret: &str) -> App {
        self.post("/apps", json!({"app_key": app_key, "app_secret": app_secret})).await
    }

    /// Creates an app with credentials of its own making, special characters among them.
    pub async fn create_any_app(&self) -> App {
        self.post("/apps", json!({})).await
    }

    /// Gives an app another secret.
    pub async fn set_app_secret(&self, app_key: &str, app_secret: &str) -> App {
        self.call("PUT", &format!("/apps/{app_key}"), Some(json!({"app_secret": app_secret}))).await
    }

    /// Creates a shop with its first pair.
    pub async fn create_shop(&self, shop: &NewShop) -> Shop {
        self.post("/shops", json!(shop)).await
    }

    /// Creates many shops; they come back in the order of their numbers.
    pub async fn create_shops(&self, shops: &BulkShops) -> Vec<Shop> {
        let list: ShopList = self.post("/shops/bulk", json!(shops)).await;
        list.shops
    }

    /// A shop as it is now.
    pub async fn shop(&self, id: &str) -> Shop {
        self.get(&format!("/shops/{id}")).await
    }

    /// All shops, in the order in which they were created.
    pub async fn shops(&self) -> Vec<Shop> {
        let list: ShopList = self.get(&format!("/shops?limit={}", usize::MAX)).await;
        list.shops
    }

    /// Every pair that a shop had, oldest first.
    pub async fn history(&self, id: &str) -> Vec<Pair> {
        let history: History = self.get(&format!("/shops/{id}/history")).await;
        history.pairs
    }

    /// Changes a shop.
    pub async fn patch_shop(&self, id: &str, patch: &ShopPatch) -> Shop {
        self.call("PATCH", &format!("/shops/{id}"), Some(json!(patch))).await
    }

    /// Sets the lifetimes that the next refresh of a shop gives; none: as usual.
    pub async fn set_next_lives(&self, id: &str, access_seconds: Option<i64>, refresh_seconds: Option<i64>) {
        let lives = json!({"access_life_seconds": access_seconds, "refresh_life_seconds": refresh_seconds});
        let _: Value = self.post(&format!("/shops/{id}/next-refresh"), lives).await;
    }

    /// The seller authorizes the app: an auth code.
    pub async fn authorize(&self, id: &str) -> String {
        let record: CodeRecord = self.post(&format!("/shops/{id}/authorize"), json!({})).await;
        record.auth_code
    }

    /// The same, and the code expires in so many seconds.
    pub async fn authorize_for(&self, id: &str, seconds: i64) -> String {
        let life = json!({"code_life_seconds": seconds});
        let record: CodeRecord = self.post(&format!("/shops/{id}/authorize"), life).await;
        record.auth_code
    }

    /// The seller withdraws the authorization.
    pub async fn deauthorize(&self, id: &str) -> Shop {
        self.post(&format!("/shops/{id}/deauthorize"), json!({})).await
    }

    /// The seller authorizes anew: a new pair, the old one is dead.
    pub async fn reauthorize(&self, id: &str) -> Shop {
        self.post(&format!("/shops/{id}/reauthorize"), json!({})).await
    }

    /// The current access token dies, and nothing else does.
    pub async fn kill_access(&self, id: &str) -> Shop {
        self.post(&format!("/shops/{id}/kill-access"), json!({})).await
    }

    // ---- faults ----

    /// Puts a fault in force; returns its number.
    pub async fn add_fault(&self, fault: Fault) -> u64 {
        let added: Added = self.post("/faults", json!(fault)).await;
        added.id
    }

    /// All faults, used up or not, oldest first.
    pub async fn faults(&self) -> Vec<FaultState> {
        let list: FaultList = self.get("/faults").await;
        list.faults
    }

    /// Removes all faults. Requests that are held stay held.
    pub async fn clear_faults(&self) {
        let _: Value = self.call("DELETE", "/faults", None).await;
    }

    /// Removes one fault.
    pub async fn clear_fault(&self, id: u64) {
        let _: Value = self.call("DELETE", &format!("/faults/{id}"), None).await;
    }

    // ---- held requests ----

    /// The requests that are held.
    pub async fn held(&self) -> Vec<Held> {
        let list: HeldList = self.get("/held").await;
        list.held
    }

    /// Waits until a request of this shop is held at that point.
    pub async fn wait_for_held(&self, shop: &str, point: Point, timeout: Duration) -> Held {
        let filter = format!("shop={shop}&point={}", point.name());
        let what = format!("a request of shop {shop} held at {}", point.name());
        let mut held = self.wait_held(&filter, &what, timeout).await;
        held.swap_remove(0)
    }

    /// Waits until so many requests are held, whoever's they are.
    pub async fn wait_for_held_count(&self, count: usize, timeout: Duration) -> Vec<Held> {
        self.wait_held(&format!("count={count}"), &format!("{count} held requests"), timeout).await
    }

    /// Waits until the client of a held request of this shop has hung up.
    pub async fn wait_for_client_gone(&self, shop: &str, timeout: Duration) -> Held {
        let filter = format!("shop={shop}&client_gone=true");
        let what = format!("the client of a held request of shop {shop} to hang up");
        let mut held = self.wait_held(&filter, &what, timeout).await;
        held.swap_remove(0)
    }

    async fn wait_held(&self, filter: &str, what: &str, timeout: Duration) -> Vec<Held> {
        let list: HeldList = self.long_poll(&format!("/held/wait?{filter}"), timeout).await;
        if list.met != Some(true) {
            let all = self.held().await;
            let faults = self.faults().await;
            panic!(
                "waited {timeout:?} in vain for {what}; held now: {all:#?}; faults: {faults:#?}; {}",
                self.recent().await
            );
        }
        list.held
    }

    /// Lets a held request go on.
    pub async fn release(&self, id: u64) {
        let _: Value = self.post("/held/release", json!({"id": id})).await;
    }

    /// Lets all held requests go on.
    pub async fn release_all(&self) {
        let _: Value = self.post("/held/release", json!({})).await;
    }

    /// Closes the connection of a held request instead of answering it. One that was held before
    /// it was processed is not processed.
    pub async fn release_dropping(&self, id: u64) {
        let _: Value = self.post("/held/release", json!({"id": id, "outcome": "drop"})).await;
    }

    // ---- waiting ----

    /// Waits until a shop has been refreshed so many times since it was created.
    pub async fn wait_for_refreshes(&self, shop: &str, refreshes: u64, timeout: Duration) -> Counters {
        self.wait_for(&Wait { shop: Some(shop.into()), refreshes: Some(refreshes), ..Wait::default() }, timeout).await
    }

    /// Waits until so many refreshes of a shop were answered to the last byte, with the new pair.
    pub async fn wait_for_delivered(&self, shop: &str, delivered: u64, timeout: Duration) -> Counters {
        self.wait_for(&Wait { shop: Some(shop.into()), delivered: Some(delivered), ..Wait::default() }, timeout).await
    }

    /// Waits until a shop's refresh tokens were presented so many times, however that ended.
    pub async fn wait_for_presentations(&self, shop: &str, presentations: u64, timeout: Duration) -> Counters {
        let wait = Wait { shop: Some(shop.into()), presentations: Some(presentations), ..Wait::default() };
        self.wait_for(&wait, timeout).await
    }

    /// Waits until so many auth codes of a shop were exchanged.
    pub async fn wait_for_exchanges(&self, shop: &str, exchanges: u64, timeout: Duration) -> Counters {
        self.wait_for(&Wait { shop: Some(shop.into()), exchanges: Some(exchanges), ..Wait::default() }, timeout).await
    }

    /// Waits until auth codes of a shop were presented so many times, however that ended.
    pub async fn wait_for_code_presentations(&self, shop: &str, times: u64, timeout: Duration) -> Counters {
        let wait = Wait { shop: Some(shop.into()), code_presentations: Some(times), ..Wait::default() };
        self.wait_for(&wait, timeout).await
    }

    /// Waits until so many calls for shops came with an access token of this shop, however they ended.
    pub async fn wait_for_shops_calls(&self, shop: &str, times: u64, timeout: Duration) -> Counters {
        let wait = Wait { shop: Some(shop.into()), shops_calls: Some(times), ..Wait::default() };
        self.wait_for(&wait, timeout).await
    }

    /// Waits until all shops together have been refreshed so many times.
    pub async fn wait_for_total_refreshes(&self, refreshes: u64, timeout: Duration) -> Counters {
        self.wait_for(&Wait { refreshes: Some(refreshes), ..Wait::default() }, timeout).await
    }

    /// Waits until so many requests have met a fault.
    pub async fn wait_for_fault(&self, fault: u64, hits: u32, timeout: Duration) -> Counters {
        self.wait_for(&Wait { fault_hits: Some((fault, hits)), ..Wait::default() }, timeout).await
    }

    /// Waits for all that is said.
    pub async fn wait_for(&self, wait: &Wait, timeout: Duration) -> Counters {
        let mut query: Vec<String> = Vec::new();
        let numbers = [
            ("refreshes", wait.refreshes),
            ("delivered", wait.delivered),
            ("presentations", wait.presentations),
            ("exchanges", wait.exchanges),
            ("code_presentations", wait.code_presentations),
            ("shops_calls", wait.shops_calls),
            ("refused", wait.refused),
            ("requests", wait.requests),
        ];
        query.extend(wait.shop.iter().map(|shop| format!("shop={shop}")));
        query.extend(numbers.iter().filter_map(|(name, number)| number.map(|number| format!("{name}={number}"))));
        query.extend(wait.fault_hits.iter().map(|(fault, hits)| format!("fault={fault}&hits={hits}")));
        let waited: Waited = self.long_poll(&format!("/wait?{}", query.join("&")), timeout).await;
        if !waited.met {
            let state = (waited.counters, waited.requests, waited.hits);
            panic!(
                "waited {timeout:?} in vain for {wait:?}; counters, requests, hits: {state:?}; {}",
                self.recent().await
            );
        }
        waited.counters
    }

    // ---- the witness ----

    /// Totals, violations and strangers.
    pub async fn witness(&self) -> Witness {
        self.get("/witness").await
    }

    /// Every refresh token of a shop, oldest first, with each time that it was presented.
    pub async fn tokens_of(&self, shop: &str) -> Vec<TokenRecord> {
        let list: TokenList = self.get(&format!("/witness/tokens?shop={shop}&limit={}", usize::MAX)).await;
        list.tokens
    }

    /// Every auth code of a shop, oldest first, with each time that it was presented.
    pub async fn codes_of(&self, shop: &str) -> Vec<CodeRecord> {
        let list: CodeList = self.get(&format!("/witness/codes?shop={shop}")).await;
        list.codes
    }

    /// Every refresh token of all shops.
    pub async fn tokens(&self) -> Vec<TokenRecord> {
        let list: TokenList = self.get(&format!("/witness/tokens?limit={}", usize::MAX)).await;
        list.tokens
    }

    /// Panics if a refresh token or an auth code was presented again after it had been spent, or a
    /// value that was never given out was presented.
    pub async fn assert_no_violations(&self) {
        let witness = self.witness().await;
        assert!(
            witness.violations.is_empty(),
            "refresh tokens were presented again after they had been spent: {:#?}",
            witness.violations
        );
        assert!(
            witness.code_violations.is_empty(),
            "auth codes were presented again after they had been used: {:#?}",
            witness.code_violations
        );
        assert!(
            witness.strangers.is_empty(),
            "values were presented that are no refresh tokens and no auth codes of this simulator, perhaps mangled on their way: {:#?}",
            witness.strangers
        );
    }

    /// Panics if a refresh token or an auth code was presented again although the new pair had been
    /// delivered. A second try after a lost answer is no offence here.
    pub async fn assert_no_careless_violations(&self) {
        let Witness { mut violations, mut code_violations, .. } = self.witness().await;
        violations.retain(|violation| violation.pair_delivered);
        code_violations.retain(|violation| violation.pair_delivered);
        assert!(
            violations.is_empty(),
            "refresh tokens were presented again although the answer with the new pair had left: {violations:#?}"
        );
        assert!(
            code_violations.is_empty(),
            "auth codes were presented again although the answer with the pair had left: {code_violations:#?}"
        );
    }

    /// The logged requests after that number (0: from the first), oldest first. The log keeps the
    /// last 10,000.
    pub async fn requests(&self, after: u64) -> Vec<Request> {
        let list: RequestList = self.get(&format!("/requests?after={after}&limit=10000")).await;
        list.requests
    }

    /// The last requests, for the message of a failed wait.
    async fn recent(&self) -> String {
        use std::fmt::Write as _;

        let all = self.requests(0).await;
        let mut text = format!("the last of {} requests:", all.len());
        for request in all.iter().rev().take(10).rev() {
            let Request { number, at, method, shop, outcome, http_status, code, answer, .. } = request;
            let _ = write!(
                text,
                "\n  #{number} {at} {method} {} shop {shop:?}: {outcome:?}, HTTP {http_status:?}, code {code:?}, answer {answer:?}",
                request.path
            );
        }
        text
    }

    // ---- the wire ----

    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.call("GET", path, None).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> T {
        self.call("POST", path, Some(body)).await
    }

    async fn long_poll<T: DeserializeOwned>(&self, path: &str, timeout: Duration) -> T {
        let path = format!("{path}&timeout_ms={}", timeout.as_millis());
        self.call_within("GET", &path, None, timeout + CALL_WITHIN).await
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, path: &str, body: Option<Value>) -> T {
        self.call_within(method, path, body, CALL_WITHIN).await
    }

    async fn call_within<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        timeout: Duration,
    ) -> T {
        let url = format!("{}/control{path}", self.base);
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method of HTTP");
        let mut request = self.http.request(method.clone(), &url).timeout(timeout);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answered = async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.text().await?))
        };
        let (status, text) = answered.await.unwrap_or_else(|error| {
            panic!("the simulator did not answer {method} {path}: {error:?}; its output:\n{}", self.child.tail(20))
        });
        assert!(status.is_success(), "the simulator answered {method} {path} with {status}: {text}; sent: {body:?}");
        serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{method} {path}: {error}; is the simulator's binary of another build? {text}")
        })
    }
}

#[derive(Deserialize)]
struct ShopList {
    shops: Vec<Shop>,
}

#[derive(Deserialize)]
struct History {
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Added {
    id: u64,
}

#[derive(Deserialize)]
struct FaultList {
    faults: Vec<FaultState>,
}

#[derive(Deserialize)]
struct HeldList {
    met: Option<bool>,
    held: Vec<Held>,
}

#[derive(Deserialize)]
struct Waited {
    met: bool,
    counters: Counters,
    requests: u64,
    hits: Option<u32>,
}

#[derive(Deserialize)]
struct TokenList {
    tokens: Vec<TokenRecord>,
}

#[derive(Deserialize)]
struct CodeList {
    codes: Vec<CodeRecord>,
}

#[derive(Deserialize)]
struct RequestList {
    requests: Vec<Request>,
}
