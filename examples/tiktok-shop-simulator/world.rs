//! The state of the platform: apps, shops, their tokens, and the rules of a refresh and of an exchange.
//!
//! Nothing here waits and nothing here speaks HTTP. One lock around the [`World`] makes every
//! refresh atomic, which is what the witness's word rests on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{oneshot, watch};

use super::answer::Answer;
use super::connection::Wire;
use super::errors;
use super::faults::{Faults, Plan, Point, Subject};
use super::settings::{Endpoint, Form, RateLimit, Rotation, Settings, present};
use super::shops_api::SignedCall;
use super::tokens::{self, Kind, Mint};
use super::witness::{AnswerState, Ledger, LogEntry, Millis, Outcome, Presentation, Stranger};

/// Access tokens live seven days.
const ACCESS_LIFE_SECONDS: i64 = 7 * 86_400;
/// Creators' refresh tokens live a year; sellers' expire at [`SELLER_REFRESH_EXPIRY`].
const CREATOR_REFRESH_LIFE_SECONDS: i64 = 365 * 86_400;
/// 2123-03-04: larger than an unsigned 32-bit integer, as seen on the real service.
const SELLER_REFRESH_EXPIRY: i64 = 4_833_561_600;
/// Auth codes live about half an hour.
const CODE_LIFE_SECONDS: i64 = 30 * 60;
/// The `user_type` of a creator.
const CREATOR: u8 = 1;
/// The most shops that one request may create; a typing error must not eat the machine.
const BULK_MAX: u32 = 1_000_000;

/// What a shop is like. Shops created together share one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Default: `shop-<n>`.
    id: Option<String>,
    /// The app that it authorized; default: the only one there is.
    app_key: Option<String>,
    /// Its own rotation policy; default: the simulator's.
    rotation: Option<Rotation>,
    /// How long a new access token lives. Default: seven days.
    access_life_seconds: Option<i64>,
    /// How long a new refresh token lives. Default: a creator's 365 days, a seller's until 2123.
    refresh_life_seconds: Option<i64>,
    /// How long the first access token has left; may be negative. Default: its whole life.
    access_remaining_seconds: Option<i64>,
    /// How long the first refresh token has left; may be negative. Default: its whole life.
    refresh_remaining_seconds: Option<i64>,
    /// 0 seller, 1 creator.
    user_type: u8,
    /// Default: a name made of the id. May be `null`.
    #[serde(deserialize_with = "present")]
    #[allow(clippy::option_option, reason = "null is a value of its own here")]
    seller_name: Option<Option<String>>,
    /// Default: `GB`.
    seller_base_region: Option<String>,
    /// Default: two scopes of a seller.
    granted_scopes: Option<Vec<String>>,
    /// What the shops call answers. Default: one shop of a made-up id.
    shops: Option<Vec<Value>>,
    /// Special characters in its tokens; default: the simulator's.
    token_chars: Option<String>,
    /// Fields that TikTok leaves out of this shop's `data`.
    omit_fields: Vec<String>,
}

/// Many shops to create.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkShops {
    /// How many.
    count: u32,
    /// Their ids are this and a number counted from `first`.
    #[serde(default = "BulkShops::default_prefix")]
    prefix: String,
    /// The first one's number.
    #[serde(default)]
    first: u32,
    /// What they are like.
    #[serde(default)]
    shop: Profile,
    /// The last one's access token has this much longer to live than the first one's; the others
    /// lie evenly between.
    #[serde(default)]
    access_remaining_spread_seconds: i64,
    /// `false` answers the ids alone.
    #[serde(default = "BulkShops::default_return_data")]
    pub return_data: bool,
}

impl BulkShops {
    fn default_prefix() -> String {
        "shop-".into()
    }

    const fn default_return_data() -> bool {
        true
    }
}

/// A change of a shop: what is absent stays.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShopPatch {
    #[serde(deserialize_with = "present")]
    #[allow(clippy::option_option, reason = "null is a value of its own here")]
    rotation: Option<Option<Rotation>>,
    access_life_seconds: Option<i64>,
    refresh_life_seconds: Option<i64>,
    #[serde(deserialize_with = "present")]
    #[allow(clippy::option_option, reason = "null is a value of its own here")]
    seller_name: Option<Option<String>>,
    omit_fields: Option<Vec<String>>,
    granted_scopes: Option<Vec<String>>,
    shops: Option<Vec<Value>>,
}

/// Lifetimes for the next refreshes of a shop.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextLives {
    #[serde(default)]
    access_life_seconds: Option<i64>,
    #[serde(default)]
    refresh_life_seconds: Option<i64>,
    /// For how many refreshes. Default: 1.
    #[serde(default)]
    times: Option<u32>,
}

/// An authorization by a seller.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    /// How long its code lives; may be negative. Default: half an hour.
    code_life_seconds: Option<i64>,
}

struct App {
    secret: String,
    allowance: f64,
    allowance_at: Instant,
    requests: u64,
    // Arrivals of the last second, for the peak.
    recent: VecDeque<Instant>,
    peak_per_second: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum TokenState {
    Current,
    Spent,
    // Replaced by a new authorization: dead, but nobody spent it.
    Superseded,
    // Killed with its family.
    Revoked,
}

struct RefreshToken {
    issued_at: Millis,
    expires_at: i64,
    spent_at: Option<Millis>,
    state: TokenState,
    presentations: Vec<Presentation>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum CodeState {
    Open,
    Used,
    // The seller withdrew the authorization.
    Revoked,
}

struct AuthCode {
    issued_at: Millis,
    expires_at: i64,
    used_at: Option<Millis>,
    state: CodeState,
    /// The refresh token that it gave, by its place.
    gave: Option<usize>,
    presentations: Vec<Presentation>,
}

#[derive(Clone)]
struct Pair {
    access: u32,
    refresh: u32,
    issued_at: Millis,
    access_expires_at: i64,
    refresh_expires_at: i64,
}

struct Shop {
    id: String,
    app_key: Arc<str>,
    profile: Arc<Profile>,
    deauthorized: bool,
    // Access tokens up to this serial number are dead.
    dead_access: u32,
    // Never empty: a shop is created with its first pair.
    pairs: Vec<Pair>,
    // By serial number, counted from 1.
    tokens: Vec<RefreshToken>,
    codes: Vec<AuthCode>,
    next_lives: Option<NextLives>,
    counters: Counters,
}

/// What tests wait for, of a shop or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Refreshes that happened.
    pub refreshes: u64,
    /// Of these, the ones whose answer holds the new pair and was handed to the socket whole.
    pub delivered: u64,
    /// Times that a refresh token was presented.
    pub presentations: u64,
    /// Exchanges of an auth code that happened.
    pub exchanges: u64,
    /// Times that an auth code was presented.
    pub code_presentations: u64,
    /// Times that one of either was processed and refused.
    pub refused: u64,
    /// Calls for shops with an access token of it.
    pub shops_calls: u64,
}

/// What was presented, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Credential {
    Token(usize),
    Code(usize),
}

/// The place of a presentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresentationId {
    shop: usize,
    what: Credential,
    index: usize,
}

/// A request for tokens as it came, parsed but not judged.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The log's view of it.
    pub entry: LogEntry,
    /// Where it goes.
    pub endpoint: Endpoint,
    /// The form.
    pub form: Form,
    /// Parameters, where they are there and are strings.
    pub app_secret: Option<String>,
    /// See above.
    pub refresh_token: Option<String>,
    /// See above.
    pub auth_code: Option<String>,
    /// See above.
    pub grant_type: Option<String>,
    /// What a signed call carries.
    pub signed: SignedCall,
    /// Why it could not be read, if it could not.
    pub unreadable: Option<String>,
}

/// Whether a request may be processed at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// Yes.
    Open,
    /// Its form is not served.
    NotServed,
    /// It is over the rate limit.
    Limited {
        /// The limit that it is over.
        limit: RateLimit,
        /// When to come back.
        seconds: u32,
    },
}

/// A request that has been taken in.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its number.
    pub number: u64,
    /// Where it is recorded, if it presents a token or a code of ours.
    pub presentation: Option<PresentationId>,
    /// Whose token or code it presents.
    pub shop: Option<usize>,
    /// Whether it may be processed.
    pub gate: Gate,
    /// The faults that it meets.
    pub plan: Plan,
}

/// What processing came to.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The pair that was asked for.
    Served {
        /// `data` of the honest answer.
        data: Map<String, Value>,
        /// `data` as it was before, the pair of an authorization that it replaces.
        old: Map<String, Value>,
    },
    /// An error.
    Refused {
        /// The code.
        code: i64,
        /// The message.
        message: String,
    },
}

/// How a held request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// As if nothing had happened.
    Continue,
    /// The connection is closed instead.
    Drop,
}

/// A request kept at a point.
pub struct Held {
    /// Where.
    pub point: Point,
    /// The request.
    pub request: u64,
    /// Its shop.
    pub shop: Option<String>,
    /// Its app key.
    pub app_key: Option<String>,
    /// What it presents.
    pub refresh_token: Option<String>,
    /// In which form.
    pub form: Form,
    /// Since when.
    pub since: Millis,
    /// Its connection.
    pub wire: Wire,
    /// Lets it go on.
    pub release: oneshot::Sender<Release>,
}

/// Everything that the simulator knows.
pub struct World {
    /// The settings.
    pub settings: Settings,
    /// The faults.
    pub faults: Faults,
    /// The requests kept, by number of the hold.
    pub held: BTreeMap<u64, Held>,
    /// Counts and logs.
    pub ledger: Ledger,
    mint: Mint,
    apps: HashMap<Arc<str>, App>,
    shops: Vec<Shop>,
    by_id: HashMap<String, usize>,
    last_hold: u64,
    violations: Vec<(usize, Credential)>,
    // For the membership test alone: the list above keeps their order.
    violated: HashSet<(usize, Credential)>,
}

/// The world behind its lock, and a bell that rings at every change.
pub struct Simulator {
    world: Mutex<World>,
    changed: watch::Sender<u64>,
}

impl Simulator {
    /// A platform without apps and shops.
    pub fn new(settings: Settings) -> Self {
        Self {
            world: Mutex::new(World {
                settings,
                faults: Faults::default(),
                held: BTreeMap::new(),
                ledger: Ledger::default(),
                mint: Mint::new(),
                apps: HashMap::new(),
                shops: Vec::new(),
                by_id: HashMap::new(),
                last_hold: 0,
                violations: Vec::new(),
                violated: HashSet::new(),
            }),
            changed: watch::Sender::new(0),
        }
    }

    /// Looks.
    pub fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        // A panic under this lock is a bug that the test at hand should see by itself; poisoning
        // would only hide it behind a second message.
        look(&self.world.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes, and wakes whoever waits for a change.
    pub fn update<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// Waits until `check` finds something; `None` after `timeout`.
    pub async fn wait<T>(&self, timeout: Duration, check: impl Fn(&World) -> Option<T>) -> Option<T> {
        // Subscribed before the first look: a change in between is not lost.
        let mut changed = self.changed.subscribe();
        tokio::time::timeout(timeout, async {
            loop {
                if let Some(found) = self.read(&check) {
                    return Some(found);
                }
                // The sender lives in `self`, so this cannot fail.
                changed.changed().await.ok()?;
            }
        })
        .await
        .ok()
        .flatten()
    }
}

impl World {
    /// The simulator's time.
    pub fn now(&self) -> Millis {
        let offset = self.settings.clock_offset_seconds.saturating_mul(1000);
        Millis(chrono::Utc::now().timestamp_millis().saturating_add(offset))
    }

    // ---- apps ----

    /// Creates an app, or gives one a new secret. Returns key and secret.
    ///
    /// # Errors
    /// Says what is wrong with the key or the secret.
    pub fn put_app(&mut self, key: Option<String>, secret: Option<String>) -> Result<(String, String), String> {
        let key = key.unwrap_or_else(|| format!("app-{}", self.apps.len() + 1));
        if key.is_empty() || secret.as_deref() == Some("") {
            return Err("an app needs a key and a secret that are not empty".into());
        }
        let secret = secret.unwrap_or_else(|| self.mint.app_secret(&key, &self.settings.token_chars));
        self.apps.entry(Arc::from(key.as_str())).and_modify(|app| app.secret.clone_from(&secret)).or_insert_with(
            || App {
                secret: secret.clone(),
                // Filled at the first request, when the limit is known.
                allowance: f64::INFINITY,
                allowance_at: Instant::now(),
                requests: 0,
                recent: VecDeque::new(),
                peak_per_second: 0,
            },
        );
        Ok((key, secret))
    }

    /// All apps, with what they have asked.
    pub fn apps(&self) -> Value {
        let apps: BTreeMap<&str, Value> = self
            .apps
            .iter()
            .map(|(key, app)| {
                let view = json!({
                    "app_secret": app.secret,
                    "requests": app.requests,
                    "peak_requests_per_second": app.peak_per_second,
                });
                (&**key, view)
            })
            .collect();
        json!(apps)
    }

    // ---- shops ----

    /// Creates a shop with its first pair.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn create_shop(&mut self, mut new: Profile) -> Result<Value, String> {
        let id = new.id.take().unwrap_or_else(|| {
            let mut number = self.shops.len() + 1;
            // Ids that somebody chose may be in the way.
            while self.by_id.contains_key(&format!("shop-{number}")) {
                number += 1;
            }
            format!("shop-{number}")
        });
        let profile = self.complete(new)?;
        let index = self.authorize_first(id, &profile, 0)?;
        Ok(self.shop_view(index))
    }

    /// Creates many shops, or none if something is wrong with them. Returns where they are.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn create_shops(&mut self, bulk: BulkShops) -> Result<Range<usize>, String> {
        if bulk.count > BULK_MAX {
            return Err(format!("at most {BULK_MAX} shops at once"));
        }
        let ids: Vec<String> =
            (0..bulk.count).map(|i| format!("{}{}", bulk.prefix, u64::from(bulk.first) + u64::from(i))).collect();
        if let Some(taken) = ids.iter().find(|id| self.by_id.contains_key(*id)) {
            return Err(format!("there is a shop {taken} already"));
        }
        if bulk.shop.id.is_some() {
            return Err("shops created together take their ids from prefix and first".into());
        }
        let profile = self.complete(bulk.shop)?;
        let last = i64::from(bulk.count.saturating_sub(1).max(1));
        let first = self.shops.len();
        for (i, id) in (0_i64..).zip(ids) {
            let more = bulk.access_remaining_spread_seconds.saturating_mul(i) / last;
            self.authorize_first(id, &profile, more)?;
        }
        Ok(first..self.shops.len())
    }

    /// Fixes what would otherwise follow a later change of settings: token values are computed, so
    /// other characters would make other values of tokens that are already out.
    fn complete(&self, mut profile: Profile) -> Result<Arc<Profile>, String> {
        let chars = profile.token_chars.get_or_insert_with(|| self.settings.token_chars.clone());
        tokens::check_chars(chars)?;
        Ok(Arc::new(profile))
    }

    fn authorize_first(
        &mut self,
        id: String,
        profile: &Arc<Profile>,
        more_access_seconds: i64,
    ) -> Result<usize, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if id.is_empty() || id.len() > 100 || !id.chars().all(plain) {
            return Err("a shop id is 1 to 100 letters, digits, '-', '.' and '_'".into());
        }
        if self.by_id.contains_key(&id) {
            return Err(format!("there is a shop {id} already"));
        }
        let app_key = match &profile.app_key {
            Some(key) => self.apps.get_key_value(key.as_str()),
            None if self.apps.len() == 1 => self.apps.iter().next(),
            None => return Err("say app_key: there is not exactly one app".into()),
        };
        let Some((app_key, _)) = app_key else {
            return Err("no such app: create it first with POST /control/apps".into());
        };
        let app_key = app_key.clone();
        let now = self.now();
        let mut shop = Shop {
            id: id.clone(),
            app_key,
            profile: profile.clone(),
            deauthorized: false,
            dead_access: 0,
            pairs: Vec::new(),
            tokens: Vec::new(),
            codes: Vec::new(),
            next_lives: None,
            counters: Counters::default(),
        };
        let lives = NextLives {
            access_life_seconds: Some(
                shop.profile
                    .access_remaining_seconds
                    .or(shop.profile.access_life_seconds)
                    .unwrap_or(ACCESS_LIFE_SECONDS)
                    .saturating_add(more_access_seconds),
            ),
            refresh_life_seconds: shop.profile.refresh_remaining_seconds,
            times: None,
        };
        shop.issue(now, &lives, true);
        self.ledger.totals.refresh_tokens_issued += 1;
        let index = self.shops.len();
        self.shops.push(shop);
        self.by_id.insert(id, index);
        Ok(index)
    }

    /// A shop by id.
    ///
    /// # Errors
    /// Says that there is none.
    pub fn shop_index(&self, id: &str) -> Result<usize, String> {
        self.by_id.get(id).copied().ok_or_else(|| format!("there is no shop {id}"))
    }

    /// The id of a shop.
    pub fn shop_id(&self, index: usize) -> String {
        self.shops[index].id.clone()
    }

    /// How many shops there are.
    pub fn shop_count(&self) -> usize {
        self.shops.len()
    }

    /// A shop as the control API shows it: `data` is what TikTok would answer.
    pub fn shop_view(&self, index: usize) -> Value {
        let shop = &self.shops[index];
        json!({
            "shop": shop.id,
            "app_key": &*shop.app_key,
            "deauthorized": shop.deauthorized,
            "refresh_token_state": shop.current_token().state,
            "counters": shop.counters,
            "data": shop.data(&self.mint, true),
        })
    }

    /// A shop's id.
    pub fn shop_name(&self, index: usize) -> Value {
        json!(self.shops[index].id)
    }

    /// Every pair a shop ever had, oldest first.
    pub fn history(&self, index: usize) -> Value {
        let shop = &self.shops[index];
        let pairs: Vec<Value> = shop
            .pairs
            .iter()
            .map(|pair| {
                json!({
                    "issued_at": pair.issued_at,
                    "access_token": shop.value(&self.mint, Kind::Access, pair.access),
                    "access_token_expire_in": pair.access_expires_at,
                    "refresh_token": shop.value(&self.mint, Kind::Refresh, pair.refresh),
                    "refresh_token_expire_in": pair.refresh_expires_at,
                    "refresh_token_state": shop.tokens[slot(pair.refresh)].state,
                })
            })
            .collect();
        json!({ "shop": shop.id, "pairs": pairs })
    }

    /// Changes what a shop is like.
    pub fn patch_shop(&mut self, index: usize, patch: ShopPatch) {
        let profile = Arc::make_mut(&mut self.shops[index].profile);
        profile.rotation = patch.rotation.unwrap_or(profile.rotation);
        profile.access_life_seconds = patch.access_life_seconds.or(profile.access_life_seconds);
        profile.refresh_life_seconds = patch.refresh_life_seconds.or(profile.refresh_life_seconds);
        if let Some(name) = patch.seller_name {
            profile.seller_name = Some(name);
        }
        if let Some(fields) = patch.omit_fields {
            profile.omit_fields = fields;
        }
        profile.granted_scopes = patch.granted_scopes.or(profile.granted_scopes.take());
        profile.shops = patch.shops.or(profile.shops.take());
    }

    /// Sets the lifetimes that the next refreshes of a shop will give.
    pub fn set_next_lives(&mut self, index: usize, lives: NextLives) {
        self.shops[index].next_lives = Some(lives);
    }

    /// The seller withdraws the authorization, and with it codes that are not used yet.
    pub fn deauthorize(&mut self, index: usize) {
        let shop = &mut self.shops[index];
        shop.deauthorized = true;
        for code in &mut shop.codes {
            if code.state == CodeState::Open {
                code.state = CodeState::Revoked;
            }
        }
    }

    /// The seller authorizes anew: a new pair, the old one is dead.
    pub fn reauthorize(&mut self, index: usize) {
        self.replace(index, &NextLives::default());
    }

    /// The current access token dies, and nothing else does.
    pub fn kill_access(&mut self, index: usize) {
        let shop = &mut self.shops[index];
        shop.dead_access = shop.current().access;
    }

    /// Is it the shop's current access token, alive, and does it belong to this app?
    pub fn access_token_works(&self, index: usize, serial: u32, app_key: &str) -> bool {
        let shop = &self.shops[index];
        let pair = shop.current();
        let is_alive =
            pair.access == serial && serial > shop.dead_access && pair.access_expires_at > self.now().seconds();
        is_alive && !shop.deauthorized && *shop.app_key == *app_key
    }

    /// The scopes of a shop, where they are not the default ones.
    pub fn scopes(&self, index: usize) -> Option<&[String]> {
        self.shops[index].profile.granted_scopes.as_deref()
    }

    /// The secret of an app.
    pub fn app_secret(&self, app_key: &str) -> Option<&str> {
        self.apps.get(app_key).map(|app| app.secret.as_str())
    }

    /// What the shops call answers.
    pub fn seller_shops(&self, index: usize) -> Vec<Value> {
        let shop = &self.shops[index];
        shop.profile.shops.clone().unwrap_or_else(|| {
            vec![json!({
                "id": format!("sim_shop_{}", shop.id),
                "name": format!("Simulated shop {}", shop.id),
                "region": shop.profile.seller_base_region.as_deref().unwrap_or("GB"),
                "code": format!("SIM{}", shop.id),
                "seller_type": "LOCAL",
                "cipher": shop.value(&self.mint, Kind::Cipher, 1),
            })]
        })
    }

    fn replace(&mut self, index: usize, lives: &NextLives) {
        let now = self.now();
        let shop = &mut self.shops[index];
        let current = slot(shop.current().refresh);
        if shop.tokens[current].state == TokenState::Current {
            shop.tokens[current].state = TokenState::Superseded;
        }
        shop.deauthorized = false;
        shop.issue(now, lives, true);
        self.ledger.totals.refresh_tokens_issued += 1;
    }

    /// The seller authorizes the app on TikTok's page: an auth code, which a redirect carries to the app. Nothing else
    /// changes until it is exchanged.
    pub fn authorize(&mut self, index: usize, authorization: &Authorization) -> Value {
        let now = self.now();
        let life = authorization.code_life_seconds.unwrap_or(CODE_LIFE_SECONDS);
        let shop = &mut self.shops[index];
        shop.codes.push(AuthCode {
            issued_at: now,
            expires_at: now.seconds().saturating_add(life),
            used_at: None,
            state: CodeState::Open,
            gave: None,
            presentations: Vec::new(),
        });
        self.ledger.totals.codes_issued += 1;
        self.code_view(index, self.shops[index].codes.len() - 1)
    }

    /// The counters of a shop.
    pub fn counters(&self, index: usize) -> Counters {
        self.shops[index].counters
    }

    /// The counters of all shops together.
    pub fn total_counters(&self) -> Counters {
        let totals = &self.ledger.totals;
        Counters {
            refreshes: totals.refreshes,
            delivered: totals.refreshes_delivered,
            presentations: totals.presentations,
            exchanges: totals.exchanges,
            code_presentations: totals.code_presentations,
            refused: totals.refused,
            shops_calls: totals.shops_calls,
        }
    }

    // ---- a request for tokens ----

    /// Takes a request in: counts it, records what it presents, applies the rate limit, and
    /// decides which faults it will meet.
    pub fn arrive(&mut self, incoming: &Incoming) -> Arrival {
        let now = self.now();
        let presented = match incoming.endpoint {
            Endpoint::Refresh => incoming.refresh_token.as_deref(),
            Endpoint::Exchange => incoming.auth_code.as_deref(),
            Endpoint::Shops => None,
        };
        let found = presented.and_then(|value| self.find(incoming.endpoint, value));
        let caller = incoming.signed.access_token.as_deref().filter(|_| incoming.endpoint == Endpoint::Shops);
        let caller = caller.and_then(|value| self.shop_of_access_token(value));
        let whose = found.map(|(shop, _)| shop).or(caller);
        if let Some(shop) = caller {
            self.shops[shop].counters.shops_calls += 1;
            self.ledger.totals.shops_calls += 1;
        }
        let app_key = incoming.entry.app_key.as_deref();
        let gate = self.gate(incoming, app_key);
        let plan = if gate == Gate::Open {
            self.faults.plan(Subject {
                app_key,
                shop: whose.map(|shop| self.shops[shop].id.as_str()),
                refresh_token: incoming.refresh_token.as_deref(),
                form: incoming.form,
                endpoint: incoming.endpoint,
            })
        } else {
            Plan::default()
        };
        let mut entry = incoming.entry.clone();
        entry.at = now;
        entry.faults.clone_from(&plan.faults);
        entry.shop = whose.map(|shop| self.shops[shop].id.clone());
        let number = self.ledger.arrived(entry);
        let presentation = found.map(|(shop, what)| {
            let presentations = self.shops[shop].presentations(what);
            // Nearly every token is presented exactly once, and there may be millions.
            presentations.reserve_exact(1);
            presentations.push(Presentation {
                request: number,
                at: now,
                form: incoming.form,
                outcome: Outcome::Pending,
                code: None,
                http_status: None,
                answer: AnswerState::Pending,
                tells_pair: false,
                after_spent: false,
            });
            let id = PresentationId { shop, what, index: presentations.len() - 1 };
            let (counters, totals) = (&mut self.shops[shop].counters, &mut self.ledger.totals);
            match what {
                Credential::Token(_) => {
                    counters.presentations += 1;
                    totals.presentations += 1;
                }
                Credential::Code(_) => {
                    counters.code_presentations += 1;
                    totals.code_presentations += 1;
                }
            }
            self.accuse_if_spent(id);
            id
        });
        if let (None, Some(value)) = (presentation, presented) {
            self.ledger.stranger(Stranger { request: number, at: now, value: value.to_owned() });
        }
        Arrival { number, presentation, shop: whose, gate, plan }
    }

    fn gate(&mut self, incoming: &Incoming, app_key: Option<&str>) -> Gate {
        if incoming.endpoint == Endpoint::Refresh && !self.settings.forms.serve(incoming.form) {
            return Gate::NotServed;
        }
        let Some(app) = app_key.and_then(|key| self.apps.get_mut(key)) else {
            // Unknown keys are not limited: they would make the table grow without end.
            return Gate::Open;
        };
        let now = Instant::now();
        app.count(now);
        match self.settings.rate_limit {
            Some(limit) => app.admit(limit, now),
            None => Gate::Open,
        }
    }

    /// Does the refresh or the exchange, or refuses it. With `rotate` false it only says what it
    /// would answer for the pair as it is.
    pub fn process(&mut self, arrival: &Arrival, incoming: &Incoming, rotate: bool) -> Verdict {
        if let Some(id) = arrival.presentation {
            // Another request may have spent it while this one waited.
            self.accuse_if_spent(id);
        }
        let verdict = match self.examine(arrival.presentation, incoming) {
            _ if incoming.endpoint == Endpoint::Shops => self.list_shops(incoming),
            Err((code, message)) => Verdict::Refused { code, message },
            Ok(id) => {
                // The first pair of an authorization has a refresh token, whatever a refresh answers.
                let mentioned = self.policy(id.shop) != Rotation::Omit || incoming.endpoint == Endpoint::Exchange;
                let old = self.shops[id.shop].data(&self.mint, mentioned);
                match id.what {
                    Credential::Token(_) if rotate => self.refresh(id.shop),
                    Credential::Code(code) if rotate => self.exchange(id.shop, code),
                    _ => {}
                }
                Verdict::Served { data: self.shops[id.shop].data(&self.mint, mentioned), old }
            }
        };
        let outcome = match (&verdict, incoming.endpoint) {
            (Verdict::Served { .. }, Endpoint::Refresh) if rotate => Outcome::Refreshed,
            (Verdict::Served { .. }, Endpoint::Exchange) if rotate => Outcome::Exchanged,
            (Verdict::Served { .. }, Endpoint::Shops) => Outcome::Listed,
            (Verdict::Served { .. }, _) => Outcome::Faulted,
            (Verdict::Refused { .. }, _) => Outcome::Refused,
        };
        self.decided(arrival, outcome);
        verdict
    }

    /// The checks of the two token endpoints, in their order. Returns what was presented and is good.
    fn examine(
        &mut self,
        presented: Option<PresentationId>,
        incoming: &Incoming,
    ) -> Result<PresentationId, (i64, String)> {
        let bad = |what: &str| (errors::BAD_PARAMETER, format!("Invalid parameter: {what}"));
        let (grant_type, name, value, unknown) = match incoming.endpoint {
            Endpoint::Refresh => ("refresh_token", "refresh_token", &incoming.refresh_token, errors::NO_AUTH_RECORD),
            Endpoint::Exchange => ("authorized_code", "auth_code", &incoming.auth_code, errors::INVALID_AUTH_CODE),
            Endpoint::Shops => return Err(bad("this endpoint takes no refresh token and no auth code")),
        };
        let no_record = || (unknown, errors::message(unknown).to_owned());
        if let Some(why) = &incoming.unreadable {
            return Err(bad(why));
        }
        if incoming.grant_type.as_deref() != Some(grant_type) {
            return Err(bad(&format!("grant_type must be {grant_type}")));
        }
        let app_key = incoming.entry.app_key.as_deref().unwrap_or_default();
        let Some(app) = self.apps.get(app_key) else {
            return Err(bad("the app_key is unknown"));
        };
        if incoming.app_secret.as_deref() != Some(app.secret.as_str()) {
            return Err(bad("the app_secret does not match the app_key"));
        }
        if value.as_deref().is_none_or(str::is_empty) {
            return Err(bad(&format!("{name} is missing")));
        }
        let id = presented.ok_or_else(no_record)?;
        if *self.shops[id.shop].app_key != *app_key {
            return Err(no_record());
        }
        let now = self.now().seconds();
        let policy = self.policy(id.shop);
        let shop = &mut self.shops[id.shop];
        // The first refresh token that a spent one, or a used code, gave.
        let gave = match id.what {
            Credential::Token(token) => (shop.tokens[token].state == TokenState::Spent).then_some(token),
            Credential::Code(code) => shop.codes[code].gave,
        };
        if let Some(first) = gave.filter(|_| policy == Rotation::KillFamily) {
            let current = slot(shop.current().refresh);
            // A new authorization is a new family: a token spent before it kills nothing.
            let same_family = shop.tokens[first..current].iter().all(|token| token.state == TokenState::Spent);
            if same_family && shop.tokens[current].state == TokenState::Current {
                shop.tokens[current].state = TokenState::Revoked;
            }
        }
        match id.what {
            Credential::Token(token) => {
                let token = &shop.tokens[token];
                if shop.deauthorized || token.state != TokenState::Current {
                    return Err(no_record());
                }
                if token.expires_at <= now {
                    let code = errors::AUTHORIZATION_EXPIRED;
                    return Err((code, errors::message(code).to_owned()));
                }
            }
            Credential::Code(code) => {
                let code = &shop.codes[code];
                if code.state != CodeState::Open || code.expires_at <= now {
                    return Err(no_record());
                }
            }
        }
        Ok(id)
    }

    fn policy(&self, index: usize) -> Rotation {
        let own = self.shops[index].profile.rotation;
        own.unwrap_or(self.settings.rotation)
    }

    fn refresh(&mut self, index: usize) {
        let now = self.now();
        let policy = self.policy(index);
        let rotates = matches!(policy, Rotation::Rotating | Rotation::KillFamily);
        let shop = &mut self.shops[index];
        if rotates {
            let spent = slot(shop.current().refresh);
            shop.tokens[spent].state = TokenState::Spent;
            shop.tokens[spent].spent_at = Some(now);
            self.ledger.totals.refresh_tokens_spent += 1;
            self.ledger.totals.refresh_tokens_issued += 1;
        }
        let lives = shop.take_next_lives();
        shop.issue(now, &lives, rotates);
        shop.counters.refreshes += 1;
    }

    /// A code gives the first pair of a new authorization; the pair of the one before is dead.
    fn exchange(&mut self, index: usize, code: usize) {
        let lives = self.shops[index].take_next_lives();
        self.replace(index, &lives);
        let now = self.now();
        let shop = &mut self.shops[index];
        shop.counters.exchanges += 1;
        let gave = slot(shop.current().refresh);
        let code = &mut shop.codes[code];
        code.state = CodeState::Used;
        code.used_at = Some(now);
        code.gave = Some(gave);
    }

    /// Records what a request led to.
    pub fn decided(&mut self, arrival: &Arrival, outcome: Outcome) {
        self.ledger.decided(arrival.number, outcome);
        if let Some(id) = arrival.presentation {
            self.presentation(id).outcome = outcome;
            if outcome == Outcome::Refused {
                self.shops[id.shop].counters.refused += 1;
            }
        }
    }

    /// Records what is about to be answered; `None` for not a byte.
    pub fn answering(&mut self, arrival: &Arrival, answer: Option<&Answer>) {
        let now = self.now();
        let http_status = answer.map(|answer| answer.http_status);
        let code = answer.and_then(|answer| answer.code);
        self.ledger.answering(arrival.number, now, http_status, code);
        if let Some(id) = arrival.presentation {
            let presentation = self.presentation(id);
            presentation.http_status = http_status;
            presentation.code = code;
            let granted = matches!(presentation.outcome, Outcome::Refreshed | Outcome::Exchanged);
            presentation.tells_pair = granted && answer.is_some_and(|answer| answer.tells_pair);
        }
    }

    /// Records what became of an answer.
    pub fn settled(&mut self, number: u64, presentation: Option<PresentationId>, delivered: bool) {
        let answer = if delivered { AnswerState::Delivered } else { AnswerState::Undelivered };
        self.ledger.settled(number, answer);
        if let Some(id) = presentation {
            self.presentation(id).answer = answer;
            let told = delivered && self.presentation(id).tells_pair;
            let outcome = self.presentation(id).outcome;
            let (counters, totals) = (&mut self.shops[id.shop].counters, &mut self.ledger.totals);
            match outcome {
                Outcome::Refreshed if told => {
                    counters.delivered += 1;
                    totals.refreshes_delivered += 1;
                }
                Outcome::Refreshed => totals.refreshes_undelivered += 1,
                Outcome::Exchanged if told => totals.exchanges_delivered += 1,
                Outcome::Exchanged => totals.exchanges_undelivered += 1,
                _ => {}
            }
        }
    }

    /// Keeps a request; says the number of the hold.
    pub fn hold(&mut self, held: Held) -> u64 {
        self.last_hold += 1;
        self.held.insert(self.last_hold, held);
        self.last_hold
    }

    /// The shop, and the token or code that a value is, if it is one of ours.
    fn find(&self, endpoint: Endpoint, value: &str) -> Option<(usize, Credential)> {
        let kind = match endpoint {
            Endpoint::Refresh => Kind::Refresh,
            Endpoint::Exchange => Kind::Code,
            Endpoint::Shops => return None,
        };
        let (index, serial) = self.find_value(kind, value)?;
        let shop = &self.shops[index];
        let place = usize::try_from(serial).ok()?.checked_sub(1)?;
        let (count, what) = match endpoint {
            Endpoint::Exchange => (shop.codes.len(), Credential::Code(place)),
            _ => (shop.tokens.len(), Credential::Token(place)),
        };
        (place < count).then_some((index, what))
    }

    /// The shop and the serial number that a value of this kind was made for.
    pub fn find_value(&self, kind: Kind, value: &str) -> Option<(usize, u32)> {
        let (id, serial) = tokens::claimed_by(kind, value)?;
        let index = *self.by_id.get(id)?;
        (self.shops[index].value(&self.mint, kind, serial) == value).then_some((index, serial))
    }

    fn accuse_if_spent(&mut self, id: PresentationId) {
        let shop = &self.shops[id.shop];
        let (is_spent, count) = match id.what {
            Credential::Token(token) => {
                (shop.tokens[token].state == TokenState::Spent, &mut self.ledger.totals.violations)
            }
            Credential::Code(code) => {
                (shop.codes[code].state == CodeState::Used, &mut self.ledger.totals.code_violations)
            }
        };
        if !is_spent {
            return;
        }
        if self.violated.insert((id.shop, id.what)) {
            self.violations.push((id.shop, id.what));
            *count += 1;
        }
        self.presentation(id).after_spent = true;
    }

    fn presentation(&mut self, id: PresentationId) -> &mut Presentation {
        &mut self.shops[id.shop].presentations(id.what)[id.index]
    }

    // ---- the witness ----

    /// Totals, violations, values that were no tokens of ours.
    pub fn testimony(&self) -> Value {
        let (mut violations, mut code_violations) = (Vec::new(), Vec::new());
        for &(shop, what) in &self.violations {
            let (mut view, presentations, list) = match what {
                Credential::Token(token) => {
                    let presentations = &self.shops[shop].tokens[token].presentations;
                    (self.token_view(shop, token), presentations, &mut violations)
                }
                Credential::Code(code) => {
                    let presentations = &self.shops[shop].codes[code].presentations;
                    (self.code_view(shop, code), presentations, &mut code_violations)
                }
            };
            // Tells a client's second try after a lost answer from plain carelessness.
            let spent = |by: &&Presentation| matches!(by.outcome, Outcome::Refreshed | Outcome::Exchanged);
            let told = |by: &Presentation| by.tells_pair && by.answer == AnswerState::Delivered;
            view["pair_delivered"] = json!(presentations.iter().find(spent).is_some_and(told));
            list.push(view);
        }
        json!({
            "totals": self.ledger.totals,
            "apps": self.apps(),
            "violations": violations,
            "code_violations": code_violations,
            "strangers": self.ledger.strangers(),
        })
    }

    /// Every auth code of a shop, in the order of issue.
    pub fn code_views(&self, shop: usize) -> Vec<Value> {
        (0..self.shops[shop].codes.len()).map(|code| self.code_view(shop, code)).collect()
    }

    fn code_view(&self, shop: usize, code: usize) -> Value {
        let shop = &self.shops[shop];
        let serial = u32::try_from(code + 1).unwrap_or(u32::MAX);
        let code = &shop.codes[code];
        json!({
            "shop": shop.id,
            "serial": serial,
            "auth_code": shop.value(&self.mint, Kind::Code, serial),
            "issued_at": code.issued_at,
            "expires_at": code.expires_at,
            "used_at": code.used_at,
            "state": code.state,
            "presentations": code.presentations,
        })
    }

    /// Every refresh token of a shop, or of all shops, in the order of issue for each shop.
    pub fn token_views(&self, shop: Option<usize>, offset: usize, limit: usize) -> Vec<Value> {
        let shops = shop.map_or(0..self.shops.len(), |index| index..index + 1);
        shops
            .flat_map(|shop| (0..self.shops[shop].tokens.len()).map(move |token| (shop, token)))
            .skip(offset)
            .take(limit)
            .map(|(shop, token)| self.token_view(shop, token))
            .collect()
    }

    fn token_view(&self, shop: usize, token: usize) -> Value {
        let shop = &self.shops[shop];
        let serial = u32::try_from(token + 1).unwrap_or(u32::MAX);
        let token = &shop.tokens[token];
        json!({
            "shop": shop.id,
            "serial": serial,
            "refresh_token": shop.value(&self.mint, Kind::Refresh, serial),
            "issued_at": token.issued_at,
            "expires_at": token.expires_at,
            "spent_at": token.spent_at,
            "state": token.state,
            "presentations": token.presentations,
        })
    }
}

/// The place of a serial number in a list.
fn slot(serial: u32) -> usize {
    // Serial numbers are counted from 1.
    serial as usize - 1
}

impl App {
    fn count(&mut self, now: Instant) {
        self.requests += 1;
        while self.recent.front().is_some_and(|then| now.duration_since(*then) >= Duration::from_secs(1)) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.peak_per_second = self.peak_per_second.max(self.recent.len());
    }

    /// A token bucket.
    fn admit(&mut self, limit: RateLimit, now: Instant) -> Gate {
        let gained = now.duration_since(self.allowance_at).as_secs_f64() * limit.requests_per_second;
        self.allowance = (self.allowance + gained).min(limit.burst());
        self.allowance_at = now;
        if self.allowance >= 1.0 {
            self.allowance -= 1.0;
            return Gate::Open;
        }
        let wait = (1.0 - self.allowance) / limit.requests_per_second;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and an hour")]
        let seconds = wait.ceil().clamp(1.0, 3600.0) as u32;
        Gate::Limited { limit, seconds }
    }
}

impl Shop {
    fn current(&self) -> &Pair {
        self.pairs.last().expect("a shop is created with its first pair")
    }

    fn current_token(&self) -> &RefreshToken {
        &self.tokens[slot(self.current().refresh)]
    }

    fn presentations(&mut self, what: Credential) -> &mut Vec<Presentation> {
        match what {
            Credential::Token(token) => &mut self.tokens[token].presentations,
            Credential::Code(code) => &mut self.codes[code].presentations,
        }
    }

    fn take_next_lives(&mut self) -> NextLives {
        let Some(next) = &mut self.next_lives else {
            return NextLives::default();
        };
        let lives = next.clone();
        let left = next.times.unwrap_or(1).saturating_sub(1);
        next.times = Some(left);
        if left == 0 {
            self.next_lives = None;
        }
        lives
    }

    /// Adds a pair. Without `new_refresh_token` it goes on with the refresh token there is.
    fn issue(&mut self, now: Millis, lives: &NextLives, new_refresh_token: bool) {
        let profile = &self.profile;
        let seconds = now.seconds();
        let access_life = lives.access_life_seconds.or(profile.access_life_seconds).unwrap_or(ACCESS_LIFE_SECONDS);
        if new_refresh_token {
            let life = lives
                .refresh_life_seconds
                .or(profile.refresh_life_seconds)
                .or((profile.user_type == CREATOR).then_some(CREATOR_REFRESH_LIFE_SECONDS));
            self.tokens.push(RefreshToken {
                issued_at: now,
                expires_at: life.map_or(SELLER_REFRESH_EXPIRY, |life| seconds.saturating_add(life)),
                spent_at: None,
                state: TokenState::Current,
                presentations: Vec::new(),
            });
        }
        let serial = |length: usize| u32::try_from(length).expect("fewer than 2^32 tokens a shop");
        self.pairs.push(Pair {
            access: serial(self.pairs.len() + 1),
            refresh: serial(self.tokens.len()),
            issued_at: now,
            access_expires_at: seconds.saturating_add(access_life),
            refresh_expires_at: self.tokens.last().map_or(0, |token| token.expires_at),
        });
    }

    fn value(&self, mint: &Mint, kind: Kind, serial: u32) -> String {
        let chars = self.profile.token_chars.as_deref().unwrap_or_default();
        mint.token(kind, &self.id, serial, chars)
    }

    /// `data` of an answer with the current pair.
    fn data(&self, mint: &Mint, with_refresh_token: bool) -> Map<String, Value> {
        let profile = &self.profile;
        let pair = self.current();
        let mut data = Map::new();
        let mut put = |name: &str, value: Value| {
            if !profile.omit_fields.iter().any(|omitted| omitted == name) {
                data.insert(name.to_owned(), value);
            }
        };
        put("access_token", self.value(mint, Kind::Access, pair.access).into());
        put("access_token_expire_in", pair.access_expires_at.into());
        if with_refresh_token {
            put("refresh_token", self.value(mint, Kind::Refresh, pair.refresh).into());
            put("refresh_token_expire_in", pair.refresh_expires_at.into());
        }
        put("open_id", format!("sim_open_{}", self.id).into());
        let seller_name = match &profile.seller_name {
            Some(name) => name.clone(),
            None => Some(format!("Simulated shop {}", self.id)),
        };
        put("seller_name", json!(seller_name));
        put("seller_base_region", profile.seller_base_region.as_deref().unwrap_or("GB").into());
        put("user_type", profile.user_type.into());
        let scopes = profile
            .granted_scopes
            .as_ref()
            .map_or_else(|| json!(["seller.authorization.info", "seller.order.info"]), |scopes| json!(scopes));
        put("granted_scopes", scopes);
        data
    }
}

#[cfg(test)]
mod tests {
    use super::super::faults::NewFault;
    use super::super::settings::Forms;
    use super::*;

    fn world(rotation: Rotation) -> World {
        let simulator = Simulator::new(Settings {
            forms: Forms::Both,
            rotation,
            rate_limit: None,
            token_chars: "+/=&%".into(),
            clock_offset_seconds: 0,
        });
        let mut world = simulator.world.into_inner().unwrap_or_else(PoisonError::into_inner);
        world.put_app(Some("key".into()), Some("secret".into())).expect("an app");
        world
    }

    fn shop(world: &mut World, like: Value) -> String {
        let profile = serde_json::from_value(like).expect("a profile");
        let view = world.create_shop(profile).expect("a shop");
        token(&view["data"])
    }

    fn token(data: &Value) -> String {
        data["refresh_token"].as_str().unwrap_or_default().into()
    }

    fn incoming(refresh_token: &str) -> Incoming {
        Incoming {
            entry: LogEntry {
                number: 0,
                at: Millis(0),
                method: "POST".into(),
                path: "/api/v2/token/refresh".into(),
                form: Some(Form::Json),
                app_key: Some("key".into()),
                shop: None,
                header_names: String::new(),
                user_agent: None,
                content_type: None,
                faults: Vec::new(),
                outcome: Outcome::Pending,
                http_status: None,
                code: None,
                duration_ms: None,
                answer: AnswerState::Pending,
            },
            endpoint: Endpoint::Refresh,
            form: Form::Json,
            app_secret: Some("secret".into()),
            refresh_token: Some(refresh_token.into()),
            auth_code: None,
            grant_type: Some("refresh_token".into()),
            signed: SignedCall::default(),
            unreadable: None,
        }
    }

    fn exchanging(auth_code: &str) -> Incoming {
        Incoming {
            endpoint: Endpoint::Exchange,
            form: Form::Query,
            refresh_token: None,
            auth_code: Some(auth_code.into()),
            grant_type: Some("authorized_code".into()),
            ..incoming("")
        }
    }

    fn authorize(world: &mut World, authorization: Value) -> String {
        let authorization = serde_json::from_value(authorization).expect("an authorization");
        world.authorize(0, &authorization)["auth_code"].as_str().unwrap_or_default().into()
    }

    fn send(world: &mut World, incoming: &Incoming) -> Result<Value, i64> {
        let arrival = world.arrive(incoming);
        match world.process(&arrival, incoming, true) {
            Verdict::Served { data, .. } => Ok(Value::Object(data)),
            Verdict::Refused { code, .. } => Err(code),
        }
    }

    fn refresh(world: &mut World, refresh_token: &str) -> Result<Value, i64> {
        send(world, &incoming(refresh_token))
    }

    #[test]
    fn a_refresh_token_buys_one_pair_and_presenting_it_again_is_refused_and_on_record() {
        let mut world = world(Rotation::Rotating);
        let first = shop(&mut world, json!({}));
        let data = refresh(&mut world, &first).expect("the first refresh");
        assert_eq!(refresh(&mut world, &first), Err(errors::NO_AUTH_RECORD));
        assert_eq!(refresh(&mut world, &first), Err(errors::NO_AUTH_RECORD));
        let second = token(&data);
        refresh(&mut world, &second).expect("the newest token still works");
        let testimony = world.testimony();
        assert_eq!(testimony["totals"]["violations"], 1);
        assert_eq!(testimony["violations"][0]["refresh_token"], json!(first));
        let presented = &testimony["violations"][0]["presentations"];
        assert_eq!(presented[0]["after_spent"], false);
        assert_eq!(presented[2]["after_spent"], true);
        assert_eq!(testimony["totals"]["refresh_tokens_issued"], 3);
        assert_eq!(testimony["totals"]["refresh_tokens_spent"], 2);
    }

    #[test]
    fn a_request_that_waited_while_another_spent_its_token_is_on_record() {
        let mut world = world(Rotation::Rotating);
        let first = incoming(&shop(&mut world, json!({})));
        let waiting = world.arrive(&first);
        send(&mut world, &first).expect("the other one is served");
        assert_eq!(world.ledger.totals.violations, 0);
        world.process(&waiting, &first, true);
        assert_eq!(world.ledger.totals.violations, 1);
    }

    #[test]
    fn without_rotation_a_refresh_token_lives_on_and_nobody_is_accused() {
        for (policy, repeated) in [(Rotation::NotRotating, true), (Rotation::Omit, false)] {
            let mut world = world(policy);
            let first = shop(&mut world, json!({}));
            let one = refresh(&mut world, &first).expect("one");
            let two = refresh(&mut world, &first).expect("two");
            assert_ne!(one["access_token"], two["access_token"]);
            assert_eq!(two.get("refresh_token").is_some(), repeated);
            assert_eq!(world.ledger.totals.violations, 0);
            assert_eq!(world.ledger.totals.refresh_tokens_spent, 0);
        }
    }

    #[test]
    fn a_reused_token_kills_its_family_but_not_a_later_authorization() {
        let mut world = world(Rotation::KillFamily);
        let first = shop(&mut world, json!({"id": "a"}));
        let second = token(&refresh(&mut world, &first).expect("a refresh"));
        assert_eq!(refresh(&mut world, &first), Err(errors::NO_AUTH_RECORD));
        assert_eq!(refresh(&mut world, &second), Err(errors::NO_AUTH_RECORD));
        world.reauthorize(0);
        let third = token(&world.shop_view(0)["data"]);
        assert_eq!(refresh(&mut world, &first), Err(errors::NO_AUTH_RECORD));
        refresh(&mut world, &third).expect("the new authorization works");
    }

    #[test]
    fn expired_withdrawn_foreign_and_unknown_are_refused_with_their_codes() {
        let mut world = world(Rotation::Rotating);
        let expired = shop(&mut world, json!({"refresh_remaining_seconds": -1}));
        assert_eq!(refresh(&mut world, &expired), Err(errors::AUTHORIZATION_EXPIRED));
        let withdrawn = shop(&mut world, json!({}));
        world.deauthorize(1);
        assert_eq!(refresh(&mut world, &withdrawn), Err(errors::NO_AUTH_RECORD));
        assert_eq!(refresh(&mut world, "junk"), Err(errors::NO_AUTH_RECORD));
        let good = shop(&mut world, json!({}));
        assert_eq!(refresh(&mut world, &format!(" {good}")), Err(errors::NO_AUTH_RECORD));
        for broken in [
            Incoming { app_secret: Some("other".into()), ..incoming(&good) },
            Incoming { grant_type: Some("authorized_code".into()), ..incoming(&good) },
            Incoming { unreadable: Some("the body is not JSON".into()), ..incoming(&good) },
        ] {
            assert_eq!(send(&mut world, &broken), Err(errors::BAD_PARAMETER));
        }
        world.put_app(Some("other".into()), Some("secret".into())).expect("another app");
        let mut foreign = incoming(&good);
        foreign.entry.app_key = Some("other".into());
        assert_eq!(send(&mut world, &foreign), Err(errors::NO_AUTH_RECORD));
        refresh(&mut world, &good).expect("none of it spent the token");
        assert_eq!(world.ledger.totals.violations, 0);
    }

    #[test]
    fn a_code_buys_the_first_pair_of_an_authorization_once_and_the_pair_before_is_dead() {
        let mut world = world(Rotation::Omit);
        let old = shop(&mut world, json!({}));
        let code = authorize(&mut world, json!({}));
        refresh(&mut world, &old).expect("until then the old pair lives");
        let data = send(&mut world, &exchanging(&code)).expect("the first time");
        assert_ne!(token(&data), old, "with a refresh token of its own, whatever a refresh answers");
        assert_eq!(refresh(&mut world, &old), Err(errors::NO_AUTH_RECORD));
        refresh(&mut world, &token(&data)).expect("the new one works");
        assert_eq!(world.testimony()["totals"]["code_violations"], 0);
        assert_eq!(send(&mut world, &exchanging(&code)), Err(errors::INVALID_AUTH_CODE));
        let testimony = world.testimony();
        assert_eq!((&testimony["totals"]["exchanges"], &testimony["totals"]["violations"]), (&json!(1), &json!(0)));
        assert_eq!(testimony["code_violations"][0]["auth_code"], json!(code));
        assert_eq!(testimony["code_violations"][0]["presentations"][1]["after_spent"], true);
    }

    #[test]
    fn a_code_that_is_expired_withdrawn_or_of_no_use_here_is_refused_with_its_code() {
        let mut world = world(Rotation::Rotating);
        let first = shop(&mut world, json!({}));
        let expired = authorize(&mut world, json!({"code_life_seconds": -1}));
        let withdrawn = authorize(&mut world, json!({}));
        world.deauthorize(0);
        for code in [expired.as_str(), withdrawn.as_str(), first.as_str(), "junk"] {
            assert_eq!(send(&mut world, &exchanging(code)), Err(errors::INVALID_AUTH_CODE), "{code}");
        }
        let good = authorize(&mut world, json!({}));
        assert_eq!(refresh(&mut world, &good), Err(errors::NO_AUTH_RECORD), "it is no refresh token");
        let grant = Incoming { grant_type: Some("refresh_token".into()), ..exchanging(&good) };
        assert_eq!(send(&mut world, &grant), Err(errors::BAD_PARAMETER));
        send(&mut world, &exchanging(&good)).expect("none of it used the code, and the seller has authorized again");
        assert_eq!(world.ledger.totals.code_violations, 0);
        assert_eq!(world.ledger.totals.strangers, 3);
    }

    #[test]
    fn a_code_that_is_used_again_kills_what_it_gave_where_tiktok_does_so() {
        let mut world = world(Rotation::KillFamily);
        shop(&mut world, json!({}));
        let code = authorize(&mut world, json!({}));
        let first = token(&send(&mut world, &exchanging(&code)).expect("an exchange"));
        let second = token(&refresh(&mut world, &first).expect("a refresh"));
        assert_eq!(send(&mut world, &exchanging(&code)), Err(errors::INVALID_AUTH_CODE));
        assert_eq!(refresh(&mut world, &second), Err(errors::NO_AUTH_RECORD));
    }

    #[test]
    fn the_exchange_is_served_as_a_query_whatever_the_forms_of_a_refresh() {
        let mut world = world(Rotation::Rotating);
        shop(&mut world, json!({}));
        world.settings.forms = Forms::Json;
        let code = authorize(&mut world, json!({}));
        assert_eq!(world.arrive(&exchanging(&code)).gate, Gate::Open);
    }

    #[test]
    fn expiries_are_absolute_and_a_sellers_refresh_token_outlives_32_bits() {
        let mut world = world(Rotation::Rotating);
        let first = shop(&mut world, json!({"access_remaining_seconds": 60}));
        let now = world.now().seconds();
        let view = world.shop_view(0);
        let left = view["data"]["access_token_expire_in"].as_i64().unwrap_or(0) - now;
        assert!((59..=60).contains(&left), "{left}");
        let lives = json!({"access_life_seconds": 5, "refresh_life_seconds": 9, "times": 1});
        world.set_next_lives(0, serde_json::from_value(lives).expect("lives"));
        let short = refresh(&mut world, &first).expect("a refresh");
        assert!(short["refresh_token_expire_in"].as_i64().unwrap_or(0) <= now + 10);
        let long = refresh(&mut world, &token(&short)).expect("a refresh");
        assert!(long["access_token_expire_in"].as_i64().unwrap_or(0) >= now + ACCESS_LIFE_SECONDS);
        assert!(long["refresh_token_expire_in"].as_i64().unwrap_or(0) > i64::from(u32::MAX));
    }

    #[test]
    fn the_rate_limit_counts_each_app_key_and_says_when_to_come_back() {
        let mut world = world(Rotation::Rotating);
        let limit = json!({"rate_limit": {"requests_per_second": 0.5, "burst": 2}});
        let patch = serde_json::from_value(limit).expect("a patch");
        world.settings.apply(patch).expect("good settings");
        let request = incoming(&shop(&mut world, json!({})));
        assert_eq!(world.arrive(&request).gate, Gate::Open);
        assert_eq!(world.arrive(&request).gate, Gate::Open);
        let Gate::Limited { seconds, .. } = world.arrive(&request).gate else {
            panic!("the third at once must be over the limit");
        };
        assert_eq!(seconds, 2);
        world.put_app(Some("other".into()), None).expect("another app");
        let mut other = request.clone();
        other.entry.app_key = Some("other".into());
        assert_eq!(world.arrive(&other).gate, Gate::Open);
    }

    #[test]
    fn a_form_that_is_not_served_meets_no_fault_and_spends_nothing() {
        let mut world = world(Rotation::Rotating);
        let request = incoming(&shop(&mut world, json!({})));
        let fault: NewFault =
            serde_json::from_value(json!({"times": 1, "action": {"type": "error", "code": 1}})).expect("a fault");
        world.faults.add(fault).expect("a good fault");
        world.settings.forms = Forms::Query;
        assert_eq!(world.arrive(&request).gate, Gate::NotServed);
        assert_eq!(world.faults.list()[0].hits, 0);
    }

    #[test]
    fn shops_created_together_have_ids_and_expiries_in_order_or_are_not_created_at_all() {
        let mut world = world(Rotation::Rotating);
        let bulk = |first: u32| {
            serde_json::from_value::<BulkShops>(json!({
                "count": 3, "first": first, "access_remaining_spread_seconds": 200,
                "shop": {"access_remaining_seconds": 100},
            }))
            .expect("a bulk request")
        };
        let made = world.create_shops(bulk(1)).expect("three shops");
        assert_eq!(made, 0..3);
        let expiry = |i: usize| world.shop_view(i)["data"]["access_token_expire_in"].as_i64().unwrap_or(0);
        assert_eq!(world.shop_view(2)["shop"], "shop-3");
        assert!((199..=201).contains(&(expiry(2) - expiry(0))));
        assert!(world.create_shops(bulk(3)).is_err());
        assert_eq!(world.shop_count(), 3);
    }
}
