//! What is seen: headings, commands, and the table of integrations whenever a watch tells of a change.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::Value;
use tiktok_shop_testkit::control_plane::ControlPlane;
use tiktok_shop_testkit::fixtures::KIND;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use super::{PATIENCE, refreshed};

/// Changes that follow each other this closely are shown as one.
const TOGETHER: Duration = Duration::from_millis(300);

/// The widest line where no terminal says its width: the error's first words are in it.
const WIDTH: usize = 240;

const BOLD: &str = "\u{1b}[1m";
const DIM: &str = "\u{1b}[2m";
const GREEN: &str = "\u{1b}[32m";
const PLAIN: &str = "\u{1b}[0m";

/// A change of an integration, and when it was seen.
struct Change {
    at: Instant,
    name: String,
    /// `None`: it is gone.
    status: Option<Value>,
}

/// The integrations as the watch tells of them, and the table as it was last printed.
pub struct Screen {
    plane: ControlPlane,
    changes: mpsc::UnboundedReceiver<Change>,
    statuses: BTreeMap<String, Value>,
    applied: BTreeMap<String, Instant>,
    refreshed: BTreeMap<String, Instant>,
    printed: Vec<String>,
    began: Instant,
}

impl Screen {
    /// Watches from now on.
    pub fn new(plane: ControlPlane, client: &Client) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("tiktokshop.dev", "v1alpha1", KIND));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let (tell, changes) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // With pauses: once the API server is gone, a watch without them fails and fails, never waits,
            // and the runtime cannot end it.
            let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                let (object, gone) = match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => (object, false),
                    Ok(Event::Delete(object)) => (object, true),
                    // The watch goes on by itself.
                    Ok(Event::Init | Event::InitDone) | Err(_) => continue,
                };
                let status = (!gone).then(|| object.data.get("status").cloned().unwrap_or_default());
                let name = object.metadata.name.unwrap_or_default();
                if tell.send(Change { at: Instant::now(), name, status }).is_err() {
                    break;
                }
            }
        });
        Self {
            plane,
            changes,
            statuses: BTreeMap::new(),
            applied: BTreeMap::new(),
            refreshed: BTreeMap::new(),
            printed: Vec::new(),
            began: Instant::now(),
        }
    }

    /// The control plane.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// Says that an integration is being created now.
    pub fn applied(&mut self, name: &str) {
        if self.applied.is_empty() {
            self.began = Instant::now();
        }
        self.applied.insert(name.to_owned(), Instant::now());
    }

    /// From an integration's creation to new tokens in its Secret, as the watch saw it.
    pub fn took(&self, name: &str) -> Duration {
        match (self.applied.get(name), self.refreshed.get(name)) {
            (Some(applied), Some(refreshed)) => refreshed.duration_since(*applied),
            _ => Duration::MAX,
        }
    }

    /// An integration's status, as last seen.
    pub fn status(&self, name: &str) -> &Value {
        self.statuses.get(name).unwrap_or(&Value::Null)
    }

    /// Prints each change until an integration's status is as wished for. `what` completes the
    /// sentence "the operator …".
    pub async fn until(&mut self, what: &str, name: &str, wished: impl Fn(&Value) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !wished(self.status(name)) {
            if !self.next(deadline).await {
                let status = self.status(name);
                return Err(format!(
                    "not seen within {} s: that the operator {what}; the status of {name} is {status}",
                    PATIENCE.as_secs()
                ));
            }
        }
        Ok(())
    }

    /// Prints each change, without end.
    pub async fn follow(&mut self) {
        while self.next(Instant::now() + PATIENCE).await || !self.changes.is_closed() {}
    }

    /// Waits for a change, takes in those that follow closely, and prints the table; false where
    /// none came in time.
    async fn next(&mut self, deadline: Instant) -> bool {
        let Ok(Some(change)) = timeout_at(deadline.into(), self.changes.recv()).await else {
            return false;
        };
        self.take_in(change);
        let together = Instant::now() + TOGETHER;
        while let Ok(Some(change)) = timeout_at(together.into(), self.changes.recv()).await {
            self.take_in(change);
        }
        self.print().await;
        true
    }

    fn take_in(&mut self, change: Change) {
        let Change { at, name, status } = change;
        let Some(status) = status else {
            self.statuses.remove(&name);
            return;
        };
        if refreshed(&status) {
            self.refreshed.entry(name.clone()).or_insert(at);
        }
        self.statuses.insert(name, status);
    }

    /// Runs kubectl, and shows both the command and what it prints.
    pub async fn run(&self, args: &[&str]) {
        command(&format!("kubectl {}", args.join(" ")));
        tell(self.plane.kubectl_ok(args).await.trim_end());
    }

    /// The table, where it says something new; what is new stands out on a terminal.
    async fn print(&mut self) {
        let table = self.plane.kubectl_ok(&["get", "ttsi", "-A", "-o", "wide"]).await;
        let lines: Vec<String> = table.lines().map(str::to_owned).collect();
        let ageless: Vec<String> = without_age(&lines);
        let news: Vec<bool> = ageless.iter().map(|line| !self.printed.contains(line)).collect();
        if !news.iter().any(|new| *new) && ageless.len() == self.printed.len() {
            return;
        }
        write(&style(DIM, &format!("+{:.1} s", self.began.elapsed().as_secs_f64())));
        let width = width();
        for (number, (line, new)) in lines.iter().zip(news).enumerate() {
            let line = cut(line, width);
            write(&if number > 0 && new { style(GREEN, &line) } else { line });
        }
        self.printed = ageless;
    }
}

/// The lines of a table without the column AGE, which changes by itself.
fn without_age(lines: &[String]) -> Vec<String> {
    let header = lines.first().map_or("", String::as_str);
    let Some(from) = header.find(" AGE ") else { return lines.to_vec() };
    let to = from + 5 + header[from + 5..].chars().take_while(|char| *char == ' ').count();
    let mut ageless: Vec<String> = lines
        .iter()
        .map(|line| {
            let rest: String = line.chars().skip(to).collect();
            let front: String = line.chars().take(from).collect();
            // The width of a column follows its longest value.
            format!("{front} {rest}").split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect();
    if let Some(first) = ageless.first_mut() {
        // The head is no news.
        first.clear();
    }
    ageless
}

fn cut(line: &str, width: usize) -> String {
    let line = line.trim_end();
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// The terminal's width; of a pipe, one that fits all columns and the beginning of the last.
fn width() -> usize {
    if !is_terminal() {
        return WIDTH;
    }
    // `stty` asks the terminal that is its standard input.
    let size = std::process::Command::new("stty").arg("size").stdin(std::process::Stdio::inherit()).output();
    let columns = size.ok().and_then(|output| {
        let text = String::from_utf8(output.stdout).ok()?;
        text.split_whitespace().nth(1)?.parse().ok().filter(|columns| *columns > 0)
    });
    columns.unwrap_or(WIDTH)
}

/// Whether somebody looks, rather than a pipe.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A heading.
pub fn say(what: &str) {
    write("");
    write(&style(BOLD, &format!("▶ {what}")));
}

/// A command as one would type it.
pub fn command(line: &str) {
    write(&format!("  $ {line}"));
}

/// Something to know.
pub fn tell(what: &str) {
    write(&format!("  {what}"));
}

fn style(style: &str, text: &str) -> String {
    let colours = is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if colours { format!("{style}{text}{PLAIN}") } else { text.to_owned() }
}

/// A line. Where nobody reads any more (`make demo | head`), there is nothing left to show: the
/// children's watchdogs end them.
fn write(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}
