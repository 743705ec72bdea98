//! Completion: scripts for shells, and the answers that kubectl asks its plugins for.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Arg, FromArgMatches as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tiktok_shop_operator::api::ConditionType;
use tiktok_shop_operator::cluster::WatchedIntegration;

use crate::args::{Common, PROGRAM, Shell, parser};
use crate::cluster::{connect, read_kubeconfig};
use crate::report::team;

/// A person waits for it with a finger on the key.
const PATIENCE: Duration = Duration::from_secs(3);

/// cobra's directives: what the shell does with the candidates.
const NO_FILES: u8 = 4;
const FILES: u8 = 0;

/// The script for a shell: all of them ask [`complete`], so that names are completed as well as flags.
pub const fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => include_str!("completion/completion.bash"),
        Shell::Zsh => include_str!("completion/completion.zsh"),
        Shell::Fish => include_str!("completion/completion.fish"),
    }
}

/// Candidates for the last of these words, in cobra's form: a candidate and its description by line, a directive last.
/// After `--flag=` they are values alone: the shell's side puts the flag before them where its shell wants it.
pub async fn complete(words: &[String]) -> String {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut before = before.to_vec();
    let last = match last.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => {
            before.push(flag.to_owned());
            value
        }
        _ => last,
    };
    let (candidates, directive) = candidates(&before, last).await;
    let mut text = String::new();
    for (candidate, description) in candidates.into_iter().filter(|(candidate, _)| candidate.starts_with(last)) {
        text.push_str(&candidate);
        if !description.is_empty() {
            text.extend(["\t", &description]);
        }
        text.push('\n');
    }
    text.extend([":", &directive.to_string(), "\n"]);
    text
}

type Candidates = (Vec<(String, String)>, u8);

async fn candidates(before: &[String], last: &str) -> Candidates {
    let root = parser();
    let is_value = |at: usize| at > 0 && waiting_for_value(&root, &before[..at]).is_some();
    let is_command = |at: &usize| root.find_subcommand(&before[*at]).is_some() && !is_value(*at);
    let Some(at) = (0..before.len()).find(is_command) else {
        if let Some(arg) = waiting_for_value(&root, before) {
            return values(arg, &Words::of(before)).await;
        }
        let commands = root.get_subcommands().filter(|command| !command.is_hide_set());
        let commands = commands.map(|command| (command.get_name().to_owned(), described(command.get_about())));
        return if last.starts_with('-') { (flags(&root), NO_FILES) } else { (commands.collect(), NO_FILES) };
    };
    let mut root = root;
    root.build();
    let Some(command) = root.find_subcommand(&before[at]) else { return (Vec::new(), NO_FILES) };
    let words = Words::of(before);
    if let Some(arg) = waiting_for_value(command, &before[at + 1..]) {
        return values(arg, &words).await;
    }
    if last.starts_with('-') {
        return (flags(command), NO_FILES);
    }
    match command.get_positionals().next() {
        Some(arg) if arg.get_id() == "names" || (arg.get_id() == "name" && before.len() == at + 1) => {
            let given: BTreeSet<&str> = before[at + 1..].iter().map(String::as_str).collect();
            let names = integrations(&words).await.into_iter().filter(|i| !given.contains(i.name_any().as_str()));
            (names.map(|i| (i.name_any(), described_integration(&i))).collect(), NO_FILES)
        }
        Some(arg) if before.len() == at + 1 => values(arg, &words).await,
        _ => (Vec::new(), NO_FILES),
    }
}

/// The flag whose value the next word is.
fn waiting_for_value<'a>(command: &'a clap::Command, before: &[String]) -> Option<&'a Arg> {
    let word = before.last()?;
    let arg = command.get_arguments().find(|arg| {
        arg.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long))
            || arg.get_short().is_some_and(|short| *word == format!("-{short}"))
    })?;
    arg.get_action().takes_values().then_some(arg)
}

fn flags(command: &clap::Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let long = shown.filter_map(|arg| Some((format!("--{}", arg.get_long()?), described(arg.get_help()))));
    long.collect()
}

fn described(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(|text| text.to_string().replace(['\n', '\t'], " ")).unwrap_or_default()
}

fn described_integration(integration: &WatchedIntegration) -> String {
    let status = integration.status.as_ref();
    let reason = status.and_then(|status| status.condition(ConditionType::Ready)).map(|ready| ready.reason.to_string());
    let team = team(integration).map(|team| format!("team {team}"));
    team.into_iter().chain(reason).collect::<Vec<_>>().join(", ")
}

async fn values(arg: &Arg, words: &Words) -> Candidates {
    let plain = |values: BTreeSet<String>| values.into_iter().map(|value| (value, String::new())).collect();
    let candidates = match arg.get_id().as_str() {
        "kubeconfig" => return (Vec::new(), FILES),
        "context" => {
            let contexts = read_kubeconfig(&words.common).map(|kubeconfig| kubeconfig.contexts).unwrap_or_default();
            plain(contexts.into_iter().map(|context| context.name).collect())
        }
        "namespace" => plain(namespaces(words).await),
        "team_id" => plain(integrations(words).await.iter().filter_map(team).collect()),
        _ => {
            let possible = arg.get_possible_values();
            possible.iter().map(|value| (value.get_name().to_owned(), described(value.get_help()))).collect()
        }
    };
    (candidates, NO_FILES)
}

/// What the words so far say about the cluster.
struct Words {
    common: Common,
}

impl Words {
    fn of(before: &[String]) -> Self {
        let line = std::iter::once(PROGRAM.to_owned()).chain(before.iter().cloned());
        // A line in the making is often wrong; what can be read of it counts.
        let matches = parser().ignore_errors(true).get_matches_from(line);
        let common = Common::from_arg_matches(&matches);
        Self { common: common.unwrap_or_default() }
    }
}

async fn integrations(words: &Words) -> Vec<WatchedIntegration> {
    let look = async {
        let (client, _, namespace) = connect(&words.common).await.ok()?;
        let namespace = words.common.namespace.as_deref().unwrap_or(&namespace);
        let api = if words.common.all_namespaces { Api::all(client) } else { Api::namespaced(client, namespace) };
        api.list(&ListParams::default()).await.ok().map(|list| list.items)
    };
    tokio::time::timeout(PATIENCE, look).await.ok().flatten().unwrap_or_default()
}

async fn namespaces(words: &Words) -> BTreeSet<String> {
    let look = async {
        let (client, ..) = connect(&words.common).await.ok()?;
        let list = Api::<Namespace>::all(client).list_metadata(&ListParams::default()).await.ok()?;
        Some(list.items.iter().map(ResourceExt::name_any).collect())
    };
    tokio::time::timeout(PATIENCE, look).await.ok().flatten().unwrap_or_default()
}
