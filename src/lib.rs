//! An operator that keeps TikTok Shop API tokens alive.
//!
//! Every look at an integration is one straight line, and each step is one place in the code:
//!
//! ```text
//!  watch ──▶ observe ──▶ decide ──▶ act ──▶ report ──▶ sleep until the next instant that matters
//!  streams   read at      pure       the only  status, event,
//!            most once,   function   TikTok    metric, log: on
//!            parse once              call      success and failure
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`api`] | the custom resource: spec, status, names |
//! | [`tokens`] | token values that cannot be printed; Secret in, Secret out |
//! | [`decide`] | what is to be done, as a pure function |
//! | [`transaction`] | the refresh transaction, as a pure function |
//! | [`tiktok`] | the client of TikTok's token endpoint |
//! | [`cluster`] | the few requests made of the API server |
//! | [`controller`] | the work loop that ties them together |
//! | [`journal`] | where an answer that could not yet be stored survives a crash |
//! | [`lease`] | leader election |
//! | [`admin`], [`metrics`], [`telemetry`] | what is seen from outside |
//! | [`settings`] | flags and environment, validated once |
//! | [`clock`] | the one file that reads the clocks |

// The operator itself stands on Unix: signals, and what a file system promises. What is left elsewhere is for
// kubectl-tiktokshop.
#[cfg(unix)]
pub mod admin;
pub mod api;
pub mod clock;
pub mod cluster;
#[cfg(unix)]
pub mod controller;
pub mod decide;
mod hex;
mod host;
#[cfg(unix)]
pub mod journal;
pub mod lease;
pub mod metrics;
#[cfg(unix)]
pub mod run;
pub mod settings;
pub mod telemetry;
pub mod tiktok;
pub mod tokens;
pub mod transaction;

/// A random id: 128 bits, as hexadecimal digits.
///
/// # Panics
/// Where the operating system gives no random bytes, which Linux does not do once it is up.
#[must_use]
pub fn random_id() -> String {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    hex::text(&bytes)
}
