//! The command line: our own arguments, and those of libtest that `cargo test` passes to every
//! test program.

use crate::cells::Cell;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub what: What,
    pub seed: Option<u64>,
    pub faults: usize,
    pub lanes: usize,
    /// One field of the matrix, or several for one refresh.
    pub only: Option<Vec<Cell>>,
    pub schedule: Option<usize>,
    pub times: usize,
    pub without_faketime: bool,
    pub without_mount: bool,
    /// Exchanges of authorization codes alone.
    pub exchange: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The whole.
    Full,
    /// The part that is among all tests.
    Slice,
    /// Its name alone.
    List,
    /// Nothing: a filter wants other tests.
    Nothing,
}

/// The one test that this program is to libtest's arguments.
pub const NAME: &str = "a_slice_of_the_fault_suite_loses_no_token_and_spends_none_twice";

const USAGE: &str = "\
usage: cargo test --test faults -- [--full] [--seed N] [--faults N] [--lanes N]
                                   [--only STEP/FAULT[+…]] [--schedule N] [--times N] [--exchange]
                                   [--without-faketime] [--without-mount]";

impl Options {
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            what: What::Slice,
            seed: None,
            faults: 1_000,
            lanes: 12,
            only: None,
            schedule: None,
            times: 1,
            without_faketime: false,
            without_mount: false,
            exchange: false,
        };
        let (mut filters, mut skips) = (Vec::new(), Vec::new());
        let (mut exact, mut ignored_alone) = (false, false);
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (arg.clone(), None),
            };
            let mut value = || inline.clone().or_else(|| args.next()).ok_or(format!("{name} wants a value\n{USAGE}"));
            match name.as_str() {
                "--full" => options.what = What::Full,
                "--seed" => options.seed = Some(number(&value()?)?),
                "--faults" => options.faults = number(&value()?)?,
                "--lanes" => options.lanes = number::<usize>(&value()?)?.max(1),
                "--schedule" => options.schedule = Some(number(&value()?)?),
                "--times" => options.times = number::<usize>(&value()?)?.max(1),
                "--only" => {
                    let text = value()?;
                    // Some faults have the sign in their name.
                    let names = text.split('+').fold(Vec::<String>::new(), |mut names, part| {
                        match names.last_mut() {
                            Some(before) if !part.contains('/') => *before = format!("{before}+{part}"),
                            _ => names.push(part.to_owned()),
                        }
                        names
                    });
                    let cells: Option<Vec<Cell>> = names.iter().map(|name| Cell::parse(name)).collect();
                    let cells = cells.ok_or_else(|| {
                        let cells: Vec<_> = Cell::sensible().map(|cell| cell.to_string()).collect();
                        format!("{text:?} is no field of the matrix; these are: {}", cells.join(" "))
                    })?;
                    options.only = Some(cells);
                }
                "--without-faketime" => options.without_faketime = true,
                "--without-mount" => options.without_mount = true,
                "--exchange" => options.exchange = true,
                "--list" => options.what = What::List,
                "--exact" => exact = true,
                "--ignored" => ignored_alone = true,
                "--skip" => skips.push(value()?),
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" | "--shuffle-seed" => drop(value()?),
                "-q"
                | "--quiet"
                | "--nocapture"
                | "--no-capture"
                | "--show-output"
                | "--include-ignored"
                | "--test"
                | "--bench"
                | "--shuffle"
                | "--report-time"
                | "--ensure-time"
                | "--exclude-should-panic"
                | "--force-run-in-process" => {}
                other if other.starts_with('-') => return Err(format!("unknown argument {other:?}\n{USAGE}")),
                filter => filters.push(filter.to_owned()),
            }
        }
        let takes = |filter: &String| if exact { *filter == NAME } else { NAME.contains(filter.as_str()) };
        let wanted = filters.is_empty() || filters.iter().any(takes);
        if options.what != What::Full && (!wanted || skips.iter().any(takes) || ignored_alone) {
            options.what = What::Nothing;
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number\n{USAGE}"))
}
