//! Ring 2: every behaviour of the contract, on the running operator, against the real API server.
//!
//! One test binary, so that its tests share one control plane; a namespace for each test.
//!
//! A doc line `/// Covers: reason/TokenValid, column/HOURS` above a test says which items of the
//! contract it asserts; `cargo run --example contract-table` makes the table of all items and fails
//! where one has no test. Items are named
//!
//! - `spec/<path>` and `status/<path>`, such as `status/lastError.code`,
//! - `reason/<Reason>`, `condition/<Type>`, `event/<Reason>`, `column/<NAME>`,
//! - `flag/<name>` without dashes in front, `env` for the environment variables,
//! - `annotation/<name>` without the prefix, `metric/<name>`,
//! - `input/<name>` for a line of bad input, as the table's own list has them.

mod bad_input;
mod exchange;
mod journal;
mod options;
mod process;
mod refresh;
mod resilience;
mod reversion;
mod rollout;
mod scale;
mod secrecy;
mod shops;
mod taken_up;
mod views;
mod visible;
