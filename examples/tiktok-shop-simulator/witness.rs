//! The record of what was presented, what became of it, and what must not have happened.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use super::settings::Form;

/// How many requests the log keeps.
const LOG_SIZE: usize = 10_000;
/// How many presented values that were never given out are kept.
const STRANGERS_KEPT: usize = 1_000;

/// A moment, in milliseconds since 1970, on the simulator's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub i64);

impl Millis {
    /// In whole seconds, as the API counts.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl Serialize for Millis {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        DateTime::<Utc>::from_timestamp_millis(self.0)
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
            .to_rfc3339_opts(SecondsFormat::Millis, true)
            .serialize(serializer)
    }
}

/// What a request led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not decided yet: it is waiting somewhere.
    Pending,
    /// The refresh happened, whatever was answered.
    Refreshed,
    /// The auth code gave its pair, whatever was answered.
    Exchanged,
    /// The shops of an access token were named.
    Listed,
    /// It was processed, and refused.
    Refused,
    /// Over the rate limit; not processed.
    RateLimited,
    /// The wire form, the method or the path is not served; not processed.
    FormNotServed,
    /// A fault answered; not processed.
    Faulted,
    /// The connection was closed; not processed.
    Dropped,
    /// Never answered; not processed.
    Hung,
}

/// What became of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
pub struct Presentation {
    /// The request's number, as in the request log.
    pub request: u64,
    /// When it came.
    pub at: Millis,
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
    /// Whether the answer holds the new pair: one that a fault replaced may not.
    pub tells_pair: bool,
    /// Whether it had been spent before, as seen when the request came or was processed.
    pub after_spent: bool,
}

/// One request to the platform, as the log keeps it: no values but the user agent's.
#[derive(Clone, Debug, Serialize)]
pub struct LogEntry {
    /// Counted from 1.
    pub number: u64,
    /// When it came.
    pub at: Millis,
    /// GET, POST …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// The wire form, where it is one.
    pub form: Option<Form>,
    /// The app key that it names.
    pub app_key: Option<String>,
    /// The shop whose refresh token or auth code it presents.
    pub shop: Option<String>,
    /// Lower case, in order, separated by commas.
    pub header_names: String,
    /// The user agent.
    pub user_agent: Option<String>,
    /// The content type.
    pub content_type: Option<String>,
    /// The faults it met.
    pub faults: Vec<u64>,
    /// What it led to.
    pub outcome: Outcome,
    /// The HTTP status answered.
    pub http_status: Option<u16>,
    /// The code in the answer's envelope.
    pub code: Option<i64>,
    /// From the request to the answer being ready, waits included.
    pub duration_ms: Option<i64>,
    /// What became of the answer.
    pub answer: AnswerState,
}

/// A value presented as a refresh token or an auth code that this simulator never gave out.
#[derive(Clone, Debug, Serialize)]
pub struct Stranger {
    /// The request's number.
    pub request: u64,
    /// When it came.
    pub at: Millis,
    /// As presented: a mangled token shows how it was mangled.
    pub value: String,
}

/// Counts since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Requests to the platform, whatever they were.
    pub requests: u64,
    /// Requests that are not answered yet.
    pub in_flight: u64,
    /// The most there were at once.
    pub peak_in_flight: u64,
    /// Refreshes that happened, whatever was answered.
    pub refreshes: u64,
    /// Refreshes whose answer holds the new pair and was handed to the socket whole.
    pub refreshes_delivered: u64,
    /// The others whose answer is settled: no client can know the new pair.
    pub refreshes_undelivered: u64,
    /// Exchanges that happened, whatever was answered.
    pub exchanges: u64,
    /// Exchanges whose answer holds the pair and was handed to the socket whole.
    pub exchanges_delivered: u64,
    /// The others whose answer is settled: no client can know the pair.
    pub exchanges_undelivered: u64,
    /// Calls for shops that were served.
    pub listed: u64,
    /// Calls for shops with an access token of ours, well or badly.
    pub shops_calls: u64,
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
    /// Answers by the code in the envelope; `none` without one.
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
    /// Refresh tokens given out, by authorizations and refreshes.
    pub refresh_tokens_issued: u64,
    /// Refresh tokens spent.
    pub refresh_tokens_spent: u64,
    /// Auth codes given out.
    pub codes_issued: u64,
    /// Times that a refresh token of ours was presented.
    pub presentations: u64,
    /// Times that an auth code of ours was presented.
    pub code_presentations: u64,
    /// Times that something else was.
    pub strangers: u64,
    /// Refresh tokens presented again after having been spent.
    pub violations: u64,
    /// Auth codes presented again after having been used.
    pub code_violations: u64,
}

/// Everything that is counted and logged, but for what stands with each token.
#[derive(Default)]
pub struct Ledger {
    /// The counts.
    pub totals: Totals,
    log: VecDeque<LogEntry>,
    strangers: VecDeque<Stranger>,
}

impl Ledger {
    /// Counts and logs a request; says its number.
    pub fn arrived(&mut self, mut entry: LogEntry) -> u64 {
        let totals = &mut self.totals;
        totals.requests += 1;
        totals.in_flight += 1;
        totals.peak_in_flight = totals.peak_in_flight.max(totals.in_flight);
        match entry.form {
            Some(Form::Json) => totals.form_json += 1,
            Some(Form::Query) => totals.form_query += 1,
            None => {}
        }
        entry.number = totals.requests;
        if self.log.len() == LOG_SIZE {
            self.log.pop_front();
        }
        self.log.push_back(entry);
        self.totals.requests
    }

    /// Counts what a request led to.
    pub fn decided(&mut self, number: u64, outcome: Outcome) {
        let totals = &mut self.totals;
        match outcome {
            Outcome::Pending => {}
            Outcome::Refreshed => totals.refreshes += 1,
            Outcome::Exchanged => totals.exchanges += 1,
            Outcome::Listed => totals.listed += 1,
            Outcome::Refused => totals.refused += 1,
            Outcome::RateLimited => totals.rate_limited += 1,
            Outcome::FormNotServed => totals.form_not_served += 1,
            Outcome::Faulted => totals.faulted += 1,
            Outcome::Dropped => totals.dropped += 1,
            Outcome::Hung => totals.hung += 1,
        }
        if let Some(entry) = self.entry(number) {
            entry.outcome = outcome;
        }
    }

    /// Counts what is about to be answered: `None` for not a byte.
    pub fn answering(&mut self, number: u64, now: Millis, http_status: Option<u16>, code: Option<i64>) {
        self.totals.in_flight -= 1;
        if let Some(status) = http_status {
            *self.totals.by_http_status.entry(status).or_default() += 1;
            let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
            *self.totals.by_code.entry(code).or_default() += 1;
        }
        if let Some(entry) = self.entry(number) {
            entry.http_status = http_status;
            entry.code = code;
            entry.duration_ms = Some(now.0 - entry.at.0);
        }
    }

    /// Counts what became of an answer.
    pub fn settled(&mut self, number: u64, answer: AnswerState) {
        match answer {
            AnswerState::Pending => {}
            AnswerState::Delivered => self.totals.answers_delivered += 1,
            AnswerState::Undelivered => self.totals.answers_undelivered += 1,
        }
        if let Some(entry) = self.entry(number) {
            entry.answer = answer;
        }
    }

    /// Keeps a value that is no token of ours.
    pub fn stranger(&mut self, stranger: Stranger) {
        self.totals.strangers += 1;
        if self.strangers.len() == STRANGERS_KEPT {
            self.strangers.pop_front();
        }
        self.strangers.push_back(stranger);
    }

    /// The last values that were no tokens of ours, oldest first.
    pub fn strangers(&self) -> &VecDeque<Stranger> {
        &self.strangers
    }

    /// The logged requests after that number, oldest first.
    pub fn log(&self, after: u64, limit: usize) -> Value {
        let from = self.log.partition_point(|entry| entry.number <= after);
        let entries: Vec<&LogEntry> = self.log.range(from..).take(limit).collect();
        json!({
            "oldest_kept": self.log.front().map(|entry| entry.number),
            "requests": entries,
        })
    }

    fn entry(&mut self, number: u64) -> Option<&mut LogEntry> {
        let first = self.log.front()?.number;
        let index = usize::try_from(number.checked_sub(first)?).ok()?;
        self.log.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> LogEntry {
        LogEntry {
            number: 0,
            at: Millis(0),
            method: "GET".into(),
            path: "/".into(),
            form: None,
            app_key: None,
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
        }
    }

    #[test]
    fn the_log_keeps_the_last_requests_and_still_finds_them_by_number() {
        let mut ledger = Ledger::default();
        for _ in 0..LOG_SIZE + 5 {
            let number = ledger.arrived(entry());
            ledger.answering(number, Millis(3), Some(200), Some(0));
        }
        // Long gone from the log; must still be counted, and must not hit another entry.
        ledger.settled(1, AnswerState::Delivered);
        ledger.settled(10_005, AnswerState::Undelivered);
        let log = ledger.log(10_003, 10);
        assert_eq!(log["oldest_kept"], 6);
        assert_eq!(log["requests"][0]["number"], 10_004);
        assert_eq!(log["requests"][0]["answer"], "pending");
        assert_eq!(log["requests"][1]["answer"], "undelivered");
        assert_eq!(ledger.totals.by_code["0"], 10_005);
        assert_eq!(ledger.totals.in_flight, 0);
        assert_eq!(ledger.totals.peak_in_flight, 1);
    }
}
