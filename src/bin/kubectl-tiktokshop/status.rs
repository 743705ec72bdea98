//! `kubectl tiktokshop status`: how the tokens are, for people and for scripts.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use kube::runtime::watcher::Event;
use serde::Serialize;
use tiktok_shop_operator::api::{ConditionStatus, ConditionType, LastError, Reason, timestamp};
use tiktok_shop_operator::cluster::WatchedIntegration;
use unicode_width::UnicodeWidthStr as _;

use crate::args::{Output, StatusArgs};
use crate::cluster::{Key, Selected, key};
use crate::errors::{Failure, place};
use crate::judge::{hours_until, is_suspended, overdue_since};
use crate::messages::{Messages, one_line};
use crate::report::{expiry, print_json, team};
use crate::terminal::{self, Colour, Terminal, complain};

/// `--watch` draws anew at least this often: the hours go on without any change.
const REDRAW: Duration = Duration::from_secs(30);

/// Changes within this time are drawn together.
const SETTLE: Duration = Duration::from_millis(100);

/// The widest error in the table; the whole of it shows `kubectl describe`.
const WIDEST_ERROR: usize = 60;

/// One integration, as it stands in `results[]`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    team_id: Option<String>,
    /// The condition `Ready`; `None` where the operator has not looked yet.
    ready: Option<&'static str>,
    reason: Option<String>,
    message: Option<String>,
    suspended: bool,
    overdue: bool,
    access_token_expires_at: Option<String>,
    hours_until_expiry: Option<f64>,
    refresh_token_expires_at: Option<String>,
    next_refresh_time: Option<String>,
    last_refresh_time: Option<String>,
    last_attempt_time: Option<String>,
    consecutive_failures: u32,
    last_error: Option<LastError>,
    #[serde(skip)]
    expires_at: Option<DateTime<Utc>>,
    #[serde(skip)]
    attempted_at: Option<DateTime<Utc>>,
    #[serde(skip)]
    overdue_since: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    total: usize,
    ready: usize,
    not_ready: usize,
    unknown: usize,
    suspended: usize,
    overdue: usize,
    /// False where integrations are due and none of them was tried.
    operator_seems_to_run: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    results: &'a [Row],
    summary: Summary,
}

/// Carries the command out; true where Ctrl-C ended it.
pub async fn status(
    selected: &Selected,
    options: &StatusArgs,
    messages: &Messages,
    terminal: Terminal,
) -> Result<bool, Failure> {
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut events = selected.events();
    let mut known = tokio::select! {
        listed = selected.list(&mut events) => listed?,
        _ = &mut interrupt => return Ok(true),
    };
    if !options.watch {
        show(&known, selected, options, messages, terminal);
        return Ok(false);
    }
    let mut listed_anew: Option<BTreeMap<Key, WatchedIntegration>> = None;
    let mut complaint = None;
    let mut first = true;
    loop {
        draw(&known, selected, messages, terminal, complaint.as_deref(), std::mem::take(&mut first));
        let mut redraw = Box::pin(tokio::time::sleep(REDRAW));
        let mut is_settling = false;
        loop {
            let event = tokio::select! {
                _ = &mut interrupt => return Ok(true),
                () = &mut redraw => break,
                event = events.next() => event,
            };
            match event {
                Some(Ok(Event::Apply(integration))) if selected.wants(&integration) => {
                    known.insert(key(&integration), integration);
                }
                Some(Ok(Event::Delete(integration))) => {
                    known.remove(&key(&integration));
                }
                Some(Ok(Event::Init)) => listed_anew = Some(BTreeMap::new()),
                Some(Ok(Event::InitApply(integration))) if selected.wants(&integration) => {
                    listed_anew.get_or_insert_default().insert(key(&integration), integration);
                }
                Some(Ok(Event::InitDone)) => known = listed_anew.take().unwrap_or_default(),
                Some(Ok(_)) => continue,
                Some(Err(error)) => {
                    let failure = selected.watch_failure(&error);
                    if failure.is_final() {
                        return Err(failure);
                    }
                    // A watch that has to begin anew is no news; a server that is away is.
                    complaint = matches!(failure, Failure::Unreachable { .. }).then(|| failure.say(messages));
                    if complaint.is_none() {
                        continue;
                    }
                    redraw = Box::pin(tokio::time::sleep(SETTLE));
                    continue;
                }
                None => return Ok(false),
            }
            complaint = None;
            if !is_settling {
                is_settling = true;
                redraw = Box::pin(tokio::time::sleep(SETTLE));
            }
        }
    }
}

fn show(
    known: &BTreeMap<Key, WatchedIntegration>,
    selected: &Selected,
    options: &StatusArgs,
    messages: &Messages,
    terminal: Terminal,
) {
    let rows = rows(known);
    let overdue = rows.iter().filter(|row| row.overdue).count();
    if options.output == Output::Json {
        print_json(&Document { results: &rows, summary: summary(&rows) });
        return;
    }
    if rows.is_empty() {
        complain(&messages.with("none-found", &[("where", &place(messages, selected.namespace.as_deref()))]));
        return;
    }
    terminal::print(&table(&rows, selected.namespace.is_none(), messages, terminal));
    if !operator_seems_to_run(&rows) {
        complain(&messages.with("no-operator", &[("count", &overdue.to_string())]));
    }
}

fn draw(
    known: &BTreeMap<Key, WatchedIntegration>,
    selected: &Selected,
    messages: &Messages,
    terminal: Terminal,
    complaint: Option<&str>,
    is_first: bool,
) {
    let rows = rows(known);
    let mut text = String::new();
    if terminal.is_interactive {
        // To the top left, and nothing of the last drawing is left.
        text.push_str("\u{1b}[H\u{1b}[2J");
        let (seconds, now) = (REDRAW.as_secs().to_string(), messages.time(Utc::now()));
        text.push_str(&messages.with("status-title", &[("seconds", &seconds), ("time", &now)]));
        text.push_str("\n\n");
    } else if !is_first {
        text.push('\n');
    }
    if rows.is_empty() {
        let place = place(messages, selected.namespace.as_deref());
        text.push_str(&messages.with("none-found", &[("where", &place)]));
        text.push('\n');
    } else {
        text.push_str(&table(&rows, selected.namespace.is_none(), messages, terminal));
    }
    if !operator_seems_to_run(&rows) {
        let overdue = rows.iter().filter(|row| row.overdue).count().to_string();
        text.extend(["\n", &messages.with("no-operator", &[("count", &overdue)]), "\n"]);
    }
    if let Some(complaint) = complaint {
        text.extend(["\n", complaint, "\n"]);
    }
    terminal::print(&text);
}

/// The soonest expiry first; those without one at the end.
fn rows(known: &BTreeMap<Key, WatchedIntegration>) -> Vec<Row> {
    let now = Utc::now();
    let mut rows: Vec<Row> = known.values().map(|integration| row(integration, now)).collect();
    rows.sort_by_key(|row| (Reverse(row.expires_at.is_some()), row.expires_at));
    rows
}

fn row(integration: &WatchedIntegration, now: DateTime<Utc>) -> Row {
    let (namespace, name) = key(integration);
    let status = integration.status.as_ref();
    let ready = status.and_then(|status| status.condition(ConditionType::Ready));
    let expires_at = expiry(integration);
    let attempted_at = status.and_then(|status| status.last_attempt_time);
    let overdue_since = overdue_since(integration, now);
    Row {
        namespace,
        name,
        team_id: team(integration),
        ready: ready.map(|ready| ready.status.as_str()),
        reason: ready.map(|ready| ready.reason.clone()),
        message: ready.map(|ready| one_line(&ready.message)),
        suspended: is_suspended(integration),
        overdue: overdue_since.is_some(),
        access_token_expires_at: expires_at.map(timestamp::format),
        hours_until_expiry: expires_at.map(|at| hours_until(at, now)),
        refresh_token_expires_at: status.and_then(|status| status.refresh_token_expires_at).map(timestamp::format),
        next_refresh_time: status.and_then(|status| status.next_refresh_time).map(timestamp::format),
        last_refresh_time: status.and_then(|status| status.last_refresh_time).map(timestamp::format),
        last_attempt_time: attempted_at.map(timestamp::format),
        consecutive_failures: status.and_then(|status| status.consecutive_failures).unwrap_or(0),
        last_error: status.and_then(|status| status.last_error.clone()),
        expires_at,
        attempted_at,
        overdue_since,
    }
}

fn summary(rows: &[Row]) -> Summary {
    let count = |ready: &str| rows.iter().filter(|row| row.ready == Some(ready)).count();
    let (ready, not_ready) = (count(ConditionStatus::True.as_str()), count(ConditionStatus::False.as_str()));
    Summary {
        total: rows.len(),
        ready,
        not_ready,
        unknown: rows.len() - ready - not_ready,
        suspended: rows.iter().filter(|row| row.suspended).count(),
        overdue: rows.iter().filter(|row| row.overdue).count(),
        operator_seems_to_run: operator_seems_to_run(rows),
    }
}

/// False where integrations are due and nothing was tried since: of a long queue, an operator has tried some.
fn operator_seems_to_run(rows: &[Row]) -> bool {
    let earliest = rows.iter().filter_map(|row| row.overdue_since).min();
    earliest.is_none_or(|earliest| rows.iter().any(|row| row.attempted_at.is_some_and(|at| at >= earliest)))
}

impl Row {
    /// What is most worth reading: the failure behind `RefreshFailing`, else the reason itself.
    fn cause(&self) -> Option<&str> {
        let is_failing = self.reason.as_deref() == Some(Reason::RefreshFailing.as_str());
        let error = self.last_error.as_ref().filter(|_| is_failing);
        error.map(|error| error.reason.as_str()).or(self.reason.as_deref())
    }

    fn colour(&self) -> Option<Colour> {
        match (self.ready, self.last_error.is_some()) {
            _ if self.suspended => None,
            (Some("True"), false) => Some(Colour::Green),
            (Some("False"), _) => Some(Colour::Red),
            _ => Some(Colour::Yellow),
        }
    }
}

fn table(rows: &[Row], with_namespace: bool, messages: &Messages, terminal: Terminal) -> String {
    let mut head = vec!["column-namespace"];
    head.truncate(usize::from(with_namespace));
    let status_column = head.len() + 2;
    head.extend(["column-name", "column-team", "column-status", "column-hours", "column-expires", "column-error"]);
    head.push("column-todo");
    let mut lines: Vec<Vec<String>> = vec![head.into_iter().map(|key| messages.text(key)).collect()];
    let dash = || "-".to_owned();
    for row in rows {
        let mut line = Vec::new();
        if with_namespace {
            line.push(row.namespace.clone());
        }
        let todo = match row.cause() {
            _ if row.overdue => messages.text("todo-overdue"),
            Some(cause) => messages.todo(cause, &row.name),
            None => dash(),
        };
        let error = row.last_error.as_ref().map_or_else(dash, |error| shortened(&one_line(&error.message)));
        line.extend([
            row.name.clone(),
            row.team_id.as_deref().map_or_else(dash, one_line),
            row.reason.clone().unwrap_or_else(dash),
            row.hours_until_expiry.map_or_else(dash, |hours| format!("{hours:.1}")),
            row.expires_at.map_or_else(dash, |at| messages.time(at)),
            error,
            todo,
        ]);
        lines.push(line);
    }
    let widths: Vec<usize> =
        (0..lines[0].len()).map(|column| lines.iter().map(|line| line[column].width()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let colour = index.checked_sub(1).filter(|_| column == status_column).and_then(|at| rows[at].colour());
            text.push_str(&colour.map_or_else(|| cell.clone(), |colour| terminal.coloured(colour, cell)));
            if column + 1 < line.len() {
                text.push_str(&" ".repeat(widths[column] - cell.width() + 3));
            }
        }
        text.push('\n');
    }
    text
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= WIDEST_ERROR {
        return text.to_owned();
    }
    let start: String = text.chars().take(WIDEST_ERROR - 1).collect();
    format!("{}…", start.trim_end())
}
