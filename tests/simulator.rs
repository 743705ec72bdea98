//! The simulator's own unit tests.
//!
//! They are compiled from here because Cargo builds an example with `test = true` as a test harness
//! alone: `cargo test` would then not build the program that the tests of the operator start.

// The program is reached through its `main` only.
#[expect(dead_code)]
#[path = "../examples/tiktok-shop-simulator/main.rs"]
mod simulator;
