//! The command line: what may be said, and what it means.

#![allow(clippy::doc_markdown, reason = "what flags do is printed by --help, which shows backticks as they are")]

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use tiktok_shop_operator::api::{Region, parse_go_duration};
use tiktok_shop_operator::tokens::SecretText;

use crate::messages::{Language, Messages, one_line};
use crate::redirect::is_service_id;

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

  kubectl tiktokshop authorize shop-1 --open        # a shop that has no living tokens gets some

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

const AUTHORIZE_EXAMPLES: &str = "\
Examples:
  kubectl tiktokshop authorize shop-1 -n shops --open
  kubectl tiktokshop authorize shop-1 --callback 127.0.0.1:8484 --open
  echo \"$CODE\" | kubectl tiktokshop authorize shop-1 --redirect-url -

It prints the address of TikTok's page for the seller, alone on standard output. What the page leads to brings back the
state that is in it: an address with another one is refused. It puts the code into the token Secret, which it never
reads, and waits until the operator has exchanged it.

Exit code: 0 the tokens live, 1 they do not, 2 wrong usage, 130 stopped with Ctrl-C.";

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
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Options of every command")]
pub struct Common {
    /// The kubeconfig to use; else KUBECONFIG, else ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace; else that of the context
    #[arg(short, long, global = true, value_name = "NS")]
    pub namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, global = true)]
    pub all_namespaces: bool,
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
    /// Have the seller authorize the app, and wait for the tokens
    #[command(after_help = AUTHORIZE_EXAMPLES)]
    Authorize(AuthorizeArgs),
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
    #[arg(value_name = "NAME", conflicts_with = "selector")]
    pub names: Vec<String>,
    /// Integrations of this team; with names, those of them that are
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

/// Of `authorize`.
#[derive(Args, Debug)]
pub struct AuthorizeArgs {
    /// The integration
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The app's service id; else spec.authorization.serviceId
    #[arg(long, value_name = "ID", value_parser = service_id)]
    pub service_id: Option<String>,
    /// Whose page the seller sees; else spec.authorization.region, or global
    #[arg(long, value_enum, value_name = "global|us", hide_possible_values = true)]
    pub region: Option<Page>,
    /// The address that the seller's browser was sent to, or the code alone; - reads it from standard input, without a
    /// prompt. Other users of the machine can see an argument: - is safer
    #[arg(long, value_name = "URL|-", value_parser = redirect, conflicts_with = "callback")]
    pub redirect_url: Option<Redirect>,
    /// Catch the redirect at this address of this machine, where the app's redirect URL leads to it
    #[arg(long, value_name = "127.0.0.1:PORT", value_parser = crate::callback::loopback)]
    pub callback: Option<SocketAddr>,
    /// Open the page in the browser as well
    #[arg(long)]
    pub open: bool,
    /// How long to wait, for the seller and for the tokens
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = timeout)]
    pub timeout: Duration,
}

/// TikTok's page for a region.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Page {
    /// For all shops but those in the United States
    Global,
    /// For shops in the United States
    Us,
}

impl From<Page> for Region {
    fn from(page: Page) -> Self {
        match page {
            Page::Global => Self::Global,
            Page::Us => Self::Us,
        }
    }
}

/// Where the redirect comes from. What it holds is a secret.
#[derive(Clone, Debug)]
pub enum Redirect {
    /// Standard input.
    Input,
    /// The command line.
    Given(Arc<SecretText>),
}

fn redirect(text: &str) -> Result<Redirect, &'static str> {
    if text == "-" {
        return Ok(Redirect::Input);
    }
    SecretText::new(text.to_owned()).map(|text| Redirect::Given(Arc::new(text))).ok_or("usage-redirect")
}

fn service_id(text: &str) -> Result<String, &'static str> {
    if is_service_id(text) { Ok(text.to_owned()) } else { Err("usage-service-id") }
}

/// Errors of a value are keys of messages, so that they are said in the language of the line.
fn timeout(text: &str) -> Result<Duration, &'static str> {
    let duration = parse_go_duration(text).ok();
    duration
        .filter(|duration| *duration >= Duration::from_secs(1) && *duration <= Duration::from_hours(24))
        .ok_or("usage-duration")
}

/// Why there is nothing to do.
pub enum Halt {
    /// Help or the version was asked for.
    Shown(String),
    /// The line can't be used.
    Usage(Usage),
}

/// What is wrong with a line.
#[derive(Debug)]
pub struct Usage {
    key: &'static str,
    values: Vec<(&'static str, String)>,
    /// The key of a message for why a value is refused.
    why: Option<String>,
    /// What may have been meant.
    near: Option<String>,
}

impl Usage {
    fn new<const N: usize>(key: &'static str, values: [(&'static str, &str); N]) -> Self {
        Self { key, values: values.map(|(name, value)| (name, one_line(value))).into(), why: None, near: None }
    }

    /// In one line.
    pub fn say(&self, messages: &Messages) -> String {
        let mut values: Vec<_> = self.values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let why = self.why.as_deref().map(|why| messages.text(why));
        values.extend(why.as_deref().map(|why| ("why", why)));
        let text = messages.with(self.key, &values);
        match &self.near {
            Some(near) => messages.with("usage-near", &[("text", &text), ("near", near)]),
            None => text,
        }
    }
}

/// Reads a command line, the program's name first.
pub fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Cli, Halt> {
    let matches = parser().bin_name(NAME).try_get_matches_from(line).map_err(|error| halt(&error))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| halt(&error))?;
    match cli.misuse() {
        Some(usage) => Err(Halt::Usage(usage)),
        None => Ok(cli),
    }
}

impl Cli {
    /// What clap can't see: it does not hold the flags of every command against those of one.
    fn misuse(&self) -> Option<Usage> {
        let empty = |value: &Option<String>| value.as_deref().is_some_and(|value| value.trim().is_empty());
        let conflict = |arg, other| Usage::new("usage-conflict", [("arg", arg), ("other", other)]);
        if let (Command::Authorize(_), true) = (&self.command, self.common.all_namespaces) {
            return Some(conflict("--all-namespaces", "authorize"));
        }
        let mut empties =
            vec![("--namespace", empty(&self.common.namespace)), ("--context", empty(&self.common.context))];
        if let Command::Authorize(options) = &self.command {
            empties.push(("NAME", options.name.trim().is_empty()));
        }
        if let Command::Refresh(RefreshArgs { selection, .. }) | Command::Status(StatusArgs { selection, .. }) =
            &self.command
        {
            empties.extend([
                ("NAME", selection.names.iter().any(|name| name.trim().is_empty())),
                ("--team-id", empty(&selection.team_id)),
                ("--selector", empty(&selection.selector)),
            ]);
            if self.common.all_namespaces && !selection.names.is_empty() {
                return Some(conflict("[NAME]...", "--all-namespaces"));
            }
        }
        if self.common.all_namespaces && self.common.namespace.is_some() {
            return Some(conflict("--namespace <NS>", "--all-namespaces"));
        }
        // An empty value would select all, where a script's variable was not set.
        let name = empties.into_iter().find_map(|(name, is_empty)| is_empty.then_some(name))?;
        Some(Usage::new("usage-empty", [("arg", name)]))
    }
}

/// The words to complete, where kubectl asks for that: flags among them are not ours, and the last may be anything.
pub fn words_to_complete(line: impl IntoIterator<Item = OsString>) -> Option<Vec<String>> {
    let mut words = line.into_iter().skip(1);
    (words.next()? == COMPLETE).then(|| words.map(|word| word.to_string_lossy().into_owned()).collect())
}

/// The language that a line names, also where nothing else of it can be read.
pub fn language_of(line: impl IntoIterator<Item = OsString>) -> Option<Language> {
    let mut words = line.into_iter().skip(1).map(|word| word.to_string_lossy().into_owned());
    let mut named = None;
    while let Some(word) = words.next().filter(|word| word != "--") {
        let value = match word.strip_prefix("--lang") {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        named = value.and_then(|value| Language::from_str(&value, false).ok()).or(named);
    }
    named
}

/// The parser, for completion.
pub fn parser() -> clap::Command {
    Cli::command()
}

fn halt(error: &clap::Error) -> Halt {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Halt::Shown(error.render().to_string());
    }
    Halt::Usage(usage(error))
}

/// clap's words, as messages of ours.
fn usage(error: &clap::Error) -> Usage {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")).filter(|text| !text.is_empty()),
        _ => None,
    };
    let arg = text(ContextKind::InvalidArg).unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let of_value = [("arg", arg.as_str()), ("value", value.as_str())];
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            Usage::new("usage-no-command", [])
        }
        ErrorKind::ArgumentConflict => match text(ContextKind::PriorArg) {
            Some(other) if other != arg => Usage::new("usage-conflict", [("arg", &arg), ("other", &other)]),
            _ => Usage::new("usage-twice", [("arg", &arg)]),
        },
        ErrorKind::InvalidValue if value.is_empty() => Usage::new("usage-no-value", [("arg", &arg)]),
        ErrorKind::InvalidValue => {
            let possible = text(ContextKind::ValidValue).unwrap_or_default();
            Usage::new("usage-value", [of_value[0], of_value[1], ("possible", &possible)])
        }
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(ToString::to_string);
            Usage { why: Some(why.unwrap_or_default()), ..Usage::new("usage-value-because", of_value) }
        }
        // It may be a code that lacks its flag, which must not be shown.
        ErrorKind::UnknownArgument if !arg.starts_with('-') => Usage::new("usage-too-many", []),
        ErrorKind::UnknownArgument => {
            Usage { near: text(ContextKind::SuggestedArg), ..Usage::new("usage-unknown", [("arg", &arg)]) }
        }
        ErrorKind::InvalidSubcommand => {
            let command = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let near = text(ContextKind::SuggestedSubcommand);
            Usage { near, ..Usage::new("usage-unknown-command", [("command", &command)]) }
        }
        ErrorKind::MissingRequiredArgument => Usage::new("usage-missing", [("arg", &arg)]),
        // Nothing that this parser asks for leads here; clap's paragraphs, up to the usage, as one line.
        _ => {
            let text = error.render().to_string();
            let told = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let told = told.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
            let told = told.collect::<Vec<_>>().join("; ");
            Usage::new("usage-other", [("error", told.strip_prefix("error: ").unwrap_or(&told))])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str, language: Language) -> String {
        match parse(line.split(' ').map(|word| OsString::from(word.trim_matches('\'')))) {
            Err(Halt::Usage(usage)) => usage.say(&Messages::of(language)),
            Err(Halt::Shown(text)) => panic!("only shown: {text}"),
            Ok(cli) => panic!("taken: {cli:?}"),
        }
    }

    #[test]
    fn clap_accepts_its_own_description() {
        parser().debug_assert();
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn a_wrong_line_is_answered_in_one_line_in_the_language_of_the_person() {
        for (line, english, vietnamese) in [
            (
                "k",
                "say what to do: refresh, status, authorize or completion",
                "hãy cho biết cần làm gì: refresh, status, authorize hoặc completion",
            ),
            (
                "k -n shops",
                "say what to do: refresh, status, authorize or completion",
                "hãy cho biết cần làm gì: refresh, status, authorize hoặc completion",
            ),
            (
                "k refresh a -A",
                "the argument '[NAME]...' cannot be used with '--all-namespaces'",
                "không dùng được '[NAME]...' cùng với '--all-namespaces'",
            ),
            (
                "k -A refresh a",
                "the argument '[NAME]...' cannot be used with '--all-namespaces'",
                "không dùng được '[NAME]...' cùng với '--all-namespaces'",
            ),
            (
                "k refresh a -l x=y",
                "the argument '[NAME]...' cannot be used with '--selector <SELECTOR>'",
                "không dùng được '[NAME]...' cùng với '--selector <SELECTOR>'",
            ),
            (
                "k -A refresh -n a",
                "the argument '--namespace <NS>' cannot be used with '--all-namespaces'",
                "không dùng được '--namespace <NS>' cùng với '--all-namespaces'",
            ),
            (
                "k refresh -n a -n b --force --force",
                "the argument '--namespace <NS>' cannot be used multiple times",
                "chỉ được dùng '--namespace <NS>' một lần",
            ),
            (
                "k refresh --timeout 5",
                "invalid value '5' for '--timeout <DURATION>': write a duration from 1s to 24h, such as 2m",
                "giá trị '5' không hợp lệ cho '--timeout <DURATION>': hãy viết một khoảng thời gian từ 1s đến 24h, ví dụ 2m",
            ),
            (
                "k refresh --timeout 1ms",
                "invalid value '1ms' for '--timeout <DURATION>': write a duration from 1s to 24h, such as 2m",
                "giá trị '1ms' không hợp lệ cho '--timeout <DURATION>': hãy viết một khoảng thời gian từ 1s đến 24h, ví dụ 2m",
            ),
            (
                "k refresh --timeout",
                "a value is missing for '--timeout <DURATION>'",
                "thiếu giá trị cho '--timeout <DURATION>'",
            ),
            ("k refresh -l ''", "--selector is empty", "--selector bị trống"),
            ("k refresh --team-id ''", "--team-id is empty", "--team-id bị trống"),
            ("k refresh ''", "NAME is empty", "NAME bị trống"),
            ("k -n '' refresh", "--namespace is empty", "--namespace bị trống"),
            (
                "k refresh -o yaml",
                "invalid value 'yaml' for '--output <text|json>'; it takes text, json",
                "giá trị 'yaml' không hợp lệ cho '--output <text|json>'; có thể dùng text, json",
            ),
            (
                "k status --watch -o json",
                "the argument '--watch' cannot be used with '--output <text|json>'",
                "không dùng được '--watch' cùng với '--output <text|json>'",
            ),
            ("k status --force", "unexpected argument '--force'", "không có tham số '--force'"),
            (
                "k refresh --forc",
                "unexpected argument '--forc'; did you mean --force?",
                "không có tham số '--forc'; có phải bạn muốn --force?",
            ),
            ("k renew", "there is no command renew", "không có lệnh renew"),
            (
                "k refres",
                "there is no command refres; did you mean refresh?",
                "không có lệnh refres; có phải bạn muốn refresh?",
            ),
            ("k completion", "the argument <bash|zsh|fish> is missing", "thiếu tham số <bash|zsh|fish>"),
            ("k authorize", "the argument <NAME> is missing", "thiếu tham số <NAME>"),
            ("k authorize ''", "NAME is empty", "NAME bị trống"),
            (
                "k authorize a -A",
                "the argument '--all-namespaces' cannot be used with 'authorize'",
                "không dùng được '--all-namespaces' cùng với 'authorize'",
            ),
            (
                "k authorize a ROW_secret",
                "there is a word too many: options come behind their names",
                "thừa một từ: giá trị của tùy chọn phải đứng sau tên của nó",
            ),
            (
                "k authorize a --callback 0.0.0.0:80",
                "invalid value '0.0.0.0:80' for '--callback <127.0.0.1:PORT>': write a loopback address and a port, such as \
                 127.0.0.1:8484",
                "giá trị '0.0.0.0:80' không hợp lệ cho '--callback <127.0.0.1:PORT>': hãy viết một địa chỉ loopback và cổng, \
                 ví dụ 127.0.0.1:8484",
            ),
            (
                "k authorize a --service-id 7&state=x",
                "invalid value '7&state=x' for '--service-id <ID>': write the id as Partner Center shows it, digits as a rule",
                "giá trị '7&state=x' không hợp lệ cho '--service-id <ID>': hãy viết đúng id hiển thị trong Partner Center, \
                 thường là chữ số",
            ),
            (
                "k authorize a --redirect-url ''",
                "invalid value '' for '--redirect-url <URL|->': write the address that the browser was sent to, or - for \
                 standard input",
                "giá trị '' không hợp lệ cho '--redirect-url <URL|->': hãy viết địa chỉ mà trình duyệt được chuyển tới, hoặc - \
                 để đọc từ đầu vào chuẩn",
            ),
            (
                "k authorize a --redirect-url - --callback 127.0.0.1:1",
                "the argument '--redirect-url <URL|->' cannot be used with '--callback <127.0.0.1:PORT>'",
                "không dùng được '--redirect-url <URL|->' cùng với '--callback <127.0.0.1:PORT>'",
            ),
            (
                "k refresh --lang fr",
                "invalid value 'fr' for '--lang <en|vi>'; it takes en, vi",
                "giá trị 'fr' không hợp lệ cho '--lang <en|vi>'; có thể dùng en, vi",
            ),
        ] {
            assert_eq!(told(line, Language::En), english, "{line}");
            assert_eq!(told(line, Language::Vi), vietnamese, "{line}");
        }
    }

    #[test]
    fn a_code_on_the_command_line_is_in_no_debug_output() {
        let line = "k authorize shop-1 --redirect-url https://app.example/cb?code=ROW_secret";
        let Ok(cli) = parse(line.split(' ').map(OsString::from)) else { panic!("refused") };
        let text = format!("{cli:?}");
        assert!(text.contains("shop-1") && !text.contains("ROW_secret"), "{text}");
    }

    #[test]
    fn the_language_of_a_line_is_found_also_where_the_line_is_wrong() {
        for (line, expected) in [
            ("k refresh --nonsense --lang vi", Some(Language::Vi)),
            ("k --lang=vi renew", Some(Language::Vi)),
            ("k --lang vi status --lang=en", Some(Language::En)),
            ("k status --lang fr", None),
            ("k status --lang", None),
            ("k status --language=vi", None),
            ("k status -- --lang vi", None),
        ] {
            assert_eq!(language_of(line.split(' ').map(OsString::from)), expected, "{line}");
        }
    }

    #[test]
    fn where_and_how_may_be_said_before_the_command_and_after_it() {
        for line in [
            "k -n shops --context c --kubeconfig f --lang vi --no-emoji status",
            "k status -n shops --context c --kubeconfig f --lang vi --no-emoji",
            "k -n shops --context c status --kubeconfig f --lang vi --no-emoji",
        ] {
            let Ok(Cli { common, .. }) = parse(line.split(' ').map(OsString::from)) else { panic!("refused: {line}") };
            assert_eq!((common.namespace.as_deref(), common.context.as_deref()), (Some("shops"), Some("c")), "{line}");
            assert_eq!((common.kubeconfig, common.lang, common.no_emoji), (Some("f".into()), Some(Language::Vi), true));
        }
        let Ok(cli) = parse("k -A refresh".split(' ').map(OsString::from)) else { panic!("refused") };
        assert!(cli.common.all_namespaces);
    }
}
