//! `tiktok-shop-operator`: parse, dispatch, exit code.

use std::process::ExitCode;

use tiktok_shop_operator::settings::{Command, Environment, Halt};
use tiktok_shop_operator::{api, run};

fn main() -> ExitCode {
    match Command::parse(std::env::args_os(), &Environment::of_process()) {
        Ok(Command::Crd) => {
            print!("{}", api::crd_yaml());
            ExitCode::SUCCESS
        }
        Ok(Command::Run(settings)) => match run::run(*settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // One line, whatever a parser had to say.
                let line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
                eprintln!("tiktok-shop-operator: {line}");
                // As clap and the settings end on wrong usage.
                if error.is_usage() { ExitCode::from(2) } else { ExitCode::FAILURE }
            }
        },
        Err(halt) => {
            match &halt {
                Halt::Shown(text) => print!("{text}"),
                Halt::Usage(line) => eprintln!("tiktok-shop-operator: {line}"),
            }
            ExitCode::from(halt.exit_code())
        }
    }
}
