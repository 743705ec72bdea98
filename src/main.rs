//! `tiktok-shop-operator`: parse, dispatch, exit code.

use std::alloc::System;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use tiktok_shop_operator::settings::{Command, Environment, Halt};
use tiktok_shop_operator::{api, run};
use zeroizing_alloc::ZeroAlloc;

/// Wipes all that is freed: token values pass through buffers of HTTP and TLS that nothing else could wipe.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    match Command::parse(std::env::args_os(), &Environment::of_process()) {
        Ok(Command::Crd) => print(&api::crd_yaml(), 0),
        Ok(Command::Run(settings)) => match run::run(*settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // One line, whatever a parser had to say.
                let line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
                complain(&line);
                // As clap and the settings end on wrong usage.
                if error.is_usage() { ExitCode::from(2) } else { ExitCode::FAILURE }
            }
        },
        Err(halt) => {
            match &halt {
                Halt::Shown(text) => return print(text, halt.exit_code()),
                Halt::Usage(line) => complain(line),
            }
            ExitCode::from(halt.exit_code())
        }
    }
}

/// Writes to standard output, and ends with this code where that could be done. Whoever closed it, as `head` does, is not
/// told of it.
fn print(text: &str, code: u8) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            if error.kind() != ErrorKind::BrokenPipe {
                complain(&format!("failed to write to standard output: {error}; see where it leads"));
            }
            ExitCode::FAILURE
        }
    }
}

fn complain(line: &str) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "tiktok-shop-operator: {line}");
}
