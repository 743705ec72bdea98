//! Logs: one line for each event, on **standard error** in both formats (standard output belongs to what a
//! command prints, such as the CRD).
//!
//! # Only our own events, whatever `RUST_LOG` says
//!
//! Other crates of this program handle Secrets and URLs with secrets in them, and they log: kube writes
//! the whole body of an answer that it cannot parse, the HTTP and TLS crates print requests and buffers at
//! trace level. One `RUST_LOG=trace`, set to hunt for something else, would put tokens into a log store.
//! So `is_ours` stands before the level filter: what does not come from this crate is never formatted.
//!
//! A panic's text may hold a value too (`unwrap` on an error that quotes its input), so the panic hook
//! tells where, never what.

use std::fmt;
use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use chrono::SecondsFormat;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, filter, fmt as lines};

use crate::clock::Clock;

/// The target of every event that may be written, alone or followed by `::` and more.
const OURS: &str = "tiktok_shop_operator";

/// Set to choose levels, as in `RUST_LOG=debug` or `RUST_LOG=tiktok_shop_operator::lease=debug`.
const LEVEL_VARIABLE: &str = "RUST_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One flat JSON object a line: `timestamp` (RFC 3339, UTC), `level`, `target`, `message`, and the
    /// event's fields beside them. Fields of spans are not written: an event carries its own.
    Json,
    /// For people; coloured where standard error is a terminal and `NO_COLOR` is not set.
    Text,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up logging: another subscriber is installed")]
pub struct TelemetryError;

/// Starts logging for this process, at the levels that `RUST_LOG` names (starting from `info`), and
/// installs the panic hook. A `RUST_LOG` that cannot be read is told in one warning and `info` is used.
///
/// # Errors
///
/// If called twice.
pub fn init(format: LogFormat) -> Result<(), TelemetryError> {
    let wanted = std::env::var(LEVEL_VARIABLE).unwrap_or_default();
    let (levels, problem) = levels(&wanted);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing::subscriber::set_global_default(subscriber(format, levels, colour, std::io::stderr))
        .map_err(|_| TelemetryError)?;
    if let Some(problem) = problem {
        tracing::warn!(
            "{LEVEL_VARIABLE} is not understood and info is used instead: {problem}; write a level (error, warn, info, \
             debug, trace) or TARGET=LEVEL, separated by commas"
        );
    }
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// Whether an event or span comes from this crate. See the module's text for why others must not pass.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The level filter for a value of `RUST_LOG`, and what is wrong with it.
///
/// Not an `EnvFilter`: its regular expressions and span rules would be the largest part of an idle
/// operator's memory, and nothing here uses them.
fn levels(wanted: &str) -> (Targets, Option<filter::ParseError>) {
    let usual = Targets::new().with_default(LevelFilter::INFO);
    // `info` comes first, so that `kube=debug` alone does not silence us; a bare level after it wins.
    let directives: Vec<_> = ["info"]
        .into_iter()
        .chain(wanted.split(',').map(str::trim).filter(|directive| !directive.is_empty()))
        .collect();
    match directives.join(",").parse() {
        Ok(levels) => (levels, None),
        Err(problem) => (usual, Some(problem)),
    }
}

fn subscriber<W>(format: LogFormat, levels: Targets, colour: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = match format {
        LogFormat::Json => lines::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_timer(WallTime)
            .with_writer(writer)
            .boxed(),
        LogFormat::Text => lines::layer().with_ansi(colour).with_timer(WallTime).with_writer(writer).boxed(),
    };
    Registry::default().with(filter::filter_fn(is_ours)).with(levels).with(lines)
}

struct WallTime;

impl FormatTime for WallTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&Clock::now().to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

fn report_panic(panic: &PanicHookInfo<'_>) {
    let (file, line) = panic.location().map_or(("unknown", 0), |at| (at.file(), at.line()));
    tracing::error!(
        location = %format_args!("{file}:{line}"),
        thread = std::thread::current().name().unwrap_or("unnamed"),
        "the operator panicked: this is a bug; what the panic says is withheld, as it may hold a secret"
    );
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'writer> MakeWriter<'writer> for Sink {
        type Writer = Self;

        fn make_writer(&'writer self) -> Self {
            self.clone()
        }
    }

    fn logged(format: LogFormat, wanted: &str, events: impl FnOnce()) -> String {
        let sink = Sink::default();
        tracing::subscriber::with_default(subscriber(format, levels(wanted).0, false, sink.clone()), events);
        sink.text()
    }

    fn everyone_speaks() {
        tracing::error!(target: "kube_client::client", "body: SECRET");
        tracing::trace!(target: "hyper::proto", "buffer: SECRET");
        tracing::error!(target: "tiktok_shop_operator_fake", "SECRET");
        tracing::error!(target: "", "SECRET");
        let span = tracing::error_span!(target: "h2", "send", frame = "SECRET");
        span.in_scope(|| tracing::info!(target: "tiktok_shop_operator::inside", "ours"));
        tracing::trace!(target: "tiktok_shop_operator", "ours, in detail");
    }

    #[test]
    fn other_crates_are_never_written_whatever_rust_log_says() {
        for format in [LogFormat::Json, LogFormat::Text] {
            for wanted in [
                "trace",
                "kube_client=trace,hyper=trace,h2=trace",
                "trace,tiktok_shop_operator=trace",
                "",
                "[send]=trace",
            ] {
                let text = logged(format, wanted, everyone_speaks);
                assert!(!text.contains("SECRET"), "RUST_LOG={wanted} wrote: {text}");
                assert!(text.contains("ours"), "RUST_LOG={wanted} silenced us: {text}");
            }
        }
    }

    #[test]
    fn levels_start_from_info_and_rust_log_changes_them() {
        for (wanted, detail, plain) in [
            ("", false, true),
            ("kube=trace", false, true),
            ("trace", true, true),
            ("error", false, false),
            ("off", false, false),
            ("tiktok_shop_operator=trace", true, true),
        ] {
            let text = logged(LogFormat::Text, wanted, everyone_speaks);
            assert_eq!(text.contains("in detail"), detail, "RUST_LOG={wanted}: {text}");
            assert_eq!(text.contains("ours"), plain, "RUST_LOG={wanted}: {text}");
        }
    }

    #[test]
    fn a_rust_log_that_makes_no_sense_means_info_and_is_told() {
        let (filter, problem) = levels("tiktok_shop_operator=loud");
        assert!(problem.is_some());
        assert_eq!(filter.to_string(), "info");
        assert!(levels("debug").1.is_none());
    }

    #[test]
    fn a_json_line_is_one_flat_object() {
        let text = logged(LogFormat::Json, "", || {
            tracing::warn!(target: "tiktok_shop_operator::lease", holder = "pod-1", attempt = 3, "not leader\nyet");
        });
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["target"], "tiktok_shop_operator::lease");
        assert_eq!(line["message"], "not leader\nyet");
        assert_eq!(line["holder"], "pod-1");
        assert_eq!(line["attempt"], 3);
        assert!(chrono::DateTime::parse_from_rfc3339(line["timestamp"].as_str().unwrap()).is_ok());
    }

    #[test]
    fn a_panic_is_told_by_its_place_without_its_text() {
        let sink = Sink::default();
        let logs = subscriber(LogFormat::Json, levels("").0, false, sink.clone());
        tracing::subscriber::with_default(logs, || {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(report_panic));
            let caught = std::panic::catch_unwind(|| panic!("token is SECRET"));
            std::panic::set_hook(before);
            assert!(caught.is_err());
        });
        let text = sink.text();
        assert!(text.contains("telemetry.rs:"), "{text}");
        assert!(!text.contains("SECRET"), "{text}");
    }
}
