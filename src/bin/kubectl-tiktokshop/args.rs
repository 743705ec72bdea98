//! The command line: what may be said, and what it means.

#![allow(clippy::doc_markdown, reason = "what flags do is printed by --help, which shows backticks as they are")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use tiktok_shop_operator::api::parse_go_duration;

use crate::messages::{Language, one_line};

/// How it calls itself in help, as people call it.
pub const NAME: &str = "kubectl tiktokshop";

/// The name of the program.
pub const PROGRAM: &str = "kubectl-tiktokshop";

/// The word by which kubectl asks for completion, as cobra has it.
const COMPLETE: &str = "__complete";

const EXAMPLES: &str = "\
Examples:
  kubectl tiktokshop refresh                        # what is due in the current namespace
  kubectl tiktokshop refresh shop-1 --force         # this one now, whatever the hours left
  kubectl tiktokshop refresh -A --dry-run           # what would happen, everywhere
  kubectl tiktokshop status --team-id 1 --watch     # how the shops of a team are, kept up to date

It never reads a Secret: it asks the operator and watches what it says.";

const REFRESH_EXAMPLES: &str = "\
Examples:
  kubectl tiktokshop refresh -n shops               # what is due in a namespace
  kubectl tiktokshop refresh shop-1 shop-2 --force  # these now, whatever the hours left
  kubectl tiktokshop refresh -A --team-id 1         # what is due of a team
  kubectl tiktokshop refresh -A -l tier=gold -o json
  kubectl tiktokshop refresh -A --dry-run           # changes nothing, says what would happen

Exit code: 0 all well, 1 something failed or timed out, 2 wrong usage, 130 stopped with Ctrl-C.";

const STATUS_EXAMPLES: &str = "\
Examples:
  kubectl tiktokshop status -A                      # all, soonest expiry first
  kubectl tiktokshop status shop-1 -o json
  kubectl tiktokshop status -n shops --watch

Exit code: 0 where the status could be shown, however it is; 1 where not; 2 wrong usage.";

/// Refresh and look at TikTok Shop API tokens.
#[derive(Parser, Debug)]
#[command(name = PROGRAM, version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to reach the cluster, and how to speak.
    #[command(flatten)]
    pub common: Common,
}

/// What holds for each command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub struct Common {
    /// The kubeconfig to use; else KUBECONFIG, else ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The language; else LC_ALL, LC_MESSAGES or LANG says it
    #[arg(long, global = true, value_enum, value_name = "en|vi", hide_possible_values = true)]
    pub lang: Option<Language>,
    /// Plain words in place of emoji
    #[arg(long, global = true)]
    pub no_emoji: bool,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Refresh what is due, or, with --force, all that is selected
    #[command(after_help = REFRESH_EXAMPLES)]
    Refresh(RefreshArgs),
    /// Show how the tokens are, soonest expiry first
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Print the completion script for a shell
    Completion {
        /// The shell
        #[arg(value_enum, value_name = "bash|zsh|fish", hide_possible_values = true)]
        shell: Shell,
    },
}

/// A shell that completion is written for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// Fish
    Fish,
}

/// Which integrations.
#[derive(Args, Clone, Debug)]
pub struct Selection {
    /// Integrations by name; all that fit where none is given
    #[arg(value_name = "NAME", conflicts_with_all = ["all_namespaces", "selector", "team_id"])]
    pub names: Vec<String>,
    /// The namespace; else that of the context
    #[arg(short, long, value_name = "NS", conflicts_with = "all_namespaces")]
    pub namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Integrations of this team
    #[arg(long, value_name = "ID")]
    pub team_id: Option<String>,
    /// Integrations with these labels, as in kubectl get
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// Of `refresh`.
#[derive(Args, Debug)]
pub struct RefreshArgs {
    /// Which integrations.
    #[command(flatten)]
    pub selection: Selection,
    /// Also what is not due
    #[arg(long)]
    pub force: bool,
    /// Change nothing, say what would happen
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait without any result; each result begins it anew
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = timeout)]
    pub timeout: Duration,
    /// The form of what is printed
    #[arg(short, long, value_enum, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    pub output: Output,
}

/// Of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Which integrations.
    #[command(flatten)]
    pub selection: Selection,
    /// Stay, and draw the table anew at each change
    #[arg(short, long)]
    pub watch: bool,
    /// The form of what is printed
    #[arg(
        short,
        long,
        value_enum,
        value_name = "text|json",
        default_value = "text",
        hide_possible_values = true,
        conflicts_with = "watch"
    )]
    pub output: Output,
}

fn timeout(text: &str) -> Result<Duration, String> {
    match parse_go_duration(text) {
        Ok(duration) if duration >= Duration::from_secs(1) && duration <= Duration::from_hours(24) => Ok(duration),
        Ok(_) => Err("must be from 1s to 24h".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Why there is nothing to do.
pub enum Halt {
    /// Help or the version was asked for.
    Shown(String),
    /// The line can't be used, in one line.
    Usage(String),
}

/// Reads a command line, the program's name first.
pub fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Cli, Halt> {
    let matches = parser().bin_name(NAME).try_get_matches_from(line).map_err(|error| halt(&error))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| halt(&error))?;
    if let Command::Refresh(RefreshArgs { selection, .. }) | Command::Status(StatusArgs { selection, .. }) =
        &cli.command
        && let Some(empty) = selection.empty_value()
    {
        return Err(Halt::Usage(format!("{empty} is empty")));
    }
    Ok(cli)
}

impl Selection {
    /// An empty value would select all, where a script's variable was not set.
    fn empty_value(&self) -> Option<&'static str> {
        let empty = |value: &Option<String>| value.as_deref().is_some_and(|value| value.trim().is_empty());
        [
            ("NAME", self.names.iter().any(|name| name.trim().is_empty())),
            ("--namespace", empty(&self.namespace)),
            ("--team-id", empty(&self.team_id)),
            ("--selector", empty(&self.selector)),
        ]
        .into_iter()
        .find_map(|(name, is_empty)| is_empty.then_some(name))
    }
}

/// The words to complete, where kubectl asks for that: flags among them are not ours, and the last may be anything.
pub fn words_to_complete(line: impl IntoIterator<Item = OsString>) -> Option<Vec<String>> {
    let mut words = line.into_iter().skip(1);
    (words.next()? == COMPLETE).then(|| words.map(|word| word.to_string_lossy().into_owned()).collect())
}

/// The parser, for completion.
pub fn parser() -> clap::Command {
    Cli::command()
}

fn halt(error: &clap::Error) -> Halt {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Halt::Shown(text),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return Halt::Usage("say what to do: refresh, status or completion".to_owned());
        }
        _ => {}
    }
    // clap's paragraphs, up to the usage, as one line.
    let told = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told = told.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let told = one_line(&told.collect::<Vec<_>>().join("; "));
    Halt::Usage(told.strip_prefix("error: ").unwrap_or(&told).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(line: &str) -> String {
        match parse(line.split(' ').map(|word| OsString::from(word.trim_matches('\'')))) {
            Err(Halt::Usage(text)) => text,
            Err(Halt::Shown(text)) => panic!("only shown: {text}"),
            Ok(cli) => panic!("taken: {cli:?}"),
        }
    }

    #[test]
    fn clap_accepts_its_own_description() {
        parser().debug_assert();
    }

    #[test]
    fn a_wrong_line_is_answered_in_one_line() {
        for (line, expected) in [
            ("k", "say what to do: refresh, status or completion"),
            ("k refresh a -A", "the argument '[NAME]...' cannot be used with '--all-namespaces'"),
            ("k refresh a -l x=y", "the argument '[NAME]...' cannot be used with '--selector <SELECTOR>'"),
            ("k refresh -n a -A", "the argument '--namespace <NS>' cannot be used with '--all-namespaces'"),
            (
                "k refresh --timeout 5",
                "invalid value '5' for '--timeout <DURATION>': is not a duration: a unit is missing",
            ),
            ("k refresh --timeout 1ms", "invalid value '1ms' for '--timeout <DURATION>': must be from 1s to 24h"),
            ("k refresh -l ''", "--selector is empty"),
            ("k refresh --team-id ''", "--team-id is empty"),
            ("k refresh ''", "NAME is empty"),
            ("k refresh -n ''", "--namespace is empty"),
            ("k refresh -o yaml", "invalid value 'yaml' for '--output <text|json>'"),
            ("k status --watch -o json", "the argument '--watch' cannot be used with '--output <text|json>'"),
            ("k status --force", "unexpected argument '--force' found"),
            ("k refresh --lang fr", "invalid value 'fr' for '--lang <en|vi>'"),
        ] {
            let text = usage(line);
            assert!(text.starts_with(expected) && !text.contains('\n'), "{line}: {text}");
        }
    }
}
