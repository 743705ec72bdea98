//! What the tests, the demo and the benchmarks stand on.
//!
//! ```text
//!  fixtures, kubectl ─────────────┐
//!                                 ▼
//!  operator ──▶ proxy ──▶ control_plane (etcd + kube-apiserver, real)
//!      │          └ holds, cuts, answers, counts each request
//!      └──────▶ proxy ──▶ simulator of TikTok Shop
//! ```
//!
//! Every process started here is a [`process::Child`]: its output is kept, and
//! it cannot outlive the test, however the test ends.

#![forbid(unsafe_code)]

pub mod control_plane;
pub mod disk;
pub mod exposition;
pub mod fixtures;
pub mod leak;
pub mod operator;
pub mod poll;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod rbac;
pub mod simulator;
pub mod steps;
pub mod tools;
