//! `kubectl tiktokshop`: refresh TikTok Shop API tokens and look at them, from a terminal or a script.
//!
//! It never reads a Secret: it asks the operator through an annotation and watches the status.

mod args;
mod cluster;
mod completion;
mod errors;
mod judge;
mod messages;
mod refresh;
mod report;
mod status;
mod terminal;

use std::process::ExitCode;

use args::{Cli, Command, Halt};
use cluster::Selected;
use errors::{Failure, chain};
use messages::{Language, Messages};
use refresh::End;
use terminal::{Terminal, complain};

/// Something failed.
const FAILED: u8 = 1;

/// The line can't be used.
const USAGE: u8 = 2;

/// Ended by Ctrl-C, as shells count it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let language = Language::of_environment(|name| std::env::var(name).ok());
    match args::parse(std::env::args_os()) {
        Ok(cli) => run(&cli, &Messages::of(cli.common.lang.unwrap_or(language))),
        Err(Halt::Shown(text)) => {
            terminal::print(&text);
            ExitCode::SUCCESS
        }
        Err(Halt::Usage(error)) => {
            complain(&Messages::of(language).with("error-usage", &[("error", &error)]));
            ExitCode::from(USAGE)
        }
    }
}

fn run(cli: &Cli, messages: &Messages) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&chain(&error));
            return ExitCode::from(FAILED);
        }
    };
    let code = match runtime.block_on(carry_out(cli, messages)) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure.say(messages));
            FAILED
        }
    };
    // A request that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn carry_out(cli: &Cli, messages: &Messages) -> Result<u8, Failure> {
    let terminal = Terminal::of_process(cli.common.no_emoji);
    match &cli.command {
        Command::Refresh(options) => {
            let selected = Selected::of(&cli.common, &options.selection).await?;
            Ok(match refresh::refresh(&selected, options, messages, terminal).await? {
                End::Finished(summary) if summary.is_well() => 0,
                End::Finished(_) => FAILED,
                End::Interrupted => INTERRUPTED,
            })
        }
        Command::Status(options) => {
            let selected = Selected::of(&cli.common, &options.selection).await?;
            let is_interrupted = status::status(&selected, options, messages, terminal).await?;
            Ok(if is_interrupted { INTERRUPTED } else { 0 })
        }
        Command::Completion { shell } => {
            terminal::print(&completion::script(*shell));
            Ok(0)
        }
        Command::Complete { words } => {
            terminal::print(&completion::complete(words).await);
            Ok(0)
        }
    }
}
