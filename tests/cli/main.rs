//! The command line, `kubectl tiktokshop`, against the real API server and the real operator.
//!
//! Every command runs as a person who may get, list, watch and patch integrations and nothing else: reading a Secret
//! would fail.
//!
//! `/// Covers: cli/…` names the items of the contract, as `tests/operator/main.rs` tells; the list of them is in
//! `examples/contract-table.rs`.

// Tests are started by name: the one that takes longest is the first.
mod a_thousand;
mod asking;
mod authorize;
mod completion;
mod krew;
mod shown;
mod stage;
mod status;
mod trouble;
