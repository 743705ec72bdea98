//! `kubectl tiktokshop`: refresh TikTok Shop API tokens and look at them, from a terminal or a script.
//!
//! It never reads a Secret: it asks the operator through an annotation and watches the status.

mod args;
mod authorize;
mod callback;
mod cluster;
mod completion;
mod errors;
mod judge;
mod messages;
mod redirect;
mod refresh;
mod report;
mod status;
mod terminal;

use std::alloc::System;
use std::process::ExitCode;

use args::{Cli, Command, Halt, Selection};
use cluster::Selected;
use errors::{Failure, chain};
use messages::{Language, Messages};
use refresh::End;
use terminal::{Terminal, complain};
use zeroizing_alloc::ZeroAlloc;

/// Wipes all that is freed: an authorization code passes through buffers of HTTP and TLS that nothing else could wipe.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// Something failed.
const FAILED: u8 = 1;

/// The line can't be used.
const USAGE: u8 = 2;

/// Ended by Ctrl-C, as shells count it.
pub const INTERRUPTED: u8 = 130;

/// Ended by SIGTERM, as shells count it.
pub const TERMINATED: u8 = 143;

fn main() -> ExitCode {
    let messages = |named: Option<Language>| {
        Messages::of(named.unwrap_or_else(|| Language::of_environment(|name| std::env::var(name).ok())))
    };
    if let Some(words) = args::words_to_complete(std::env::args_os()) {
        return block_on(async {
            terminal::print(&completion::complete(&words).await);
            0
        });
    }
    match args::parse(std::env::args_os()) {
        Ok(cli) => {
            let messages = messages(cli.common.lang);
            block_on(async {
                carry_out(&cli, &messages).await.unwrap_or_else(|failure| {
                    complain(&failure.say(&messages));
                    if failure.is_usage() { USAGE } else { FAILED }
                })
            })
        }
        Err(Halt::Shown(text)) => {
            terminal::print(&text);
            ExitCode::SUCCESS
        }
        Err(Halt::Usage(usage)) => {
            let messages = messages(args::language_of(std::env::args_os()));
            complain(&messages.with("error-usage", &[("error", &usage.say(&messages))]));
            ExitCode::from(USAGE)
        }
    }
}

/// Runs a future to its end, and with it the process.
fn block_on(future: impl Future<Output = u8>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&chain(&error));
            return ExitCode::from(FAILED);
        }
    };
    let code = runtime.block_on(future);
    // A request that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Until the process is asked to end.
#[cfg(unix)]
async fn terminated() {
    told_by(tokio::signal::unix::SignalKind::terminate()).await;
}

/// Until the process is asked to end, as Windows asks: it closes the window.
#[cfg(windows)]
async fn terminated() {
    match tokio::signal::windows::ctrl_close() {
        Ok(mut signal) => _ = signal.recv().await,
        Err(_) => std::future::pending().await,
    }
}

/// Until the terminal has another size. Windows does not tell; the next drawing finds it out.
async fn resized() {
    #[cfg(unix)]
    told_by(tokio::signal::unix::SignalKind::window_change()).await;
    #[cfg(windows)]
    std::future::pending().await
}

#[cfg(unix)]
async fn told_by(kind: tokio::signal::unix::SignalKind) {
    match tokio::signal::unix::signal(kind) {
        Ok(mut signal) => _ = signal.recv().await,
        Err(_) => std::future::pending().await,
    }
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
            status::status(&selected, options, messages, terminal).await
        }
        Command::Authorize(options) => {
            let selection = Selection { names: vec![options.name.clone()], team_id: None, selector: None };
            let selected = Selected::of(&cli.common, &selection).await?;
            authorize::authorize(&selected, options, messages, terminal).await
        }
        Command::Completion { shell } => {
            terminal::print(completion::script(*shell));
            Ok(0)
        }
    }
}
