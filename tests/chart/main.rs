//! Ring 2: the chart, tested for what it does. The real helm installs it into the real API server; what
//! is stored there is then run, as the service account that it made (`kubelet.rs` says how).

mod helm;
mod install;
mod kubelet;
mod lifecycle;
mod rights;
mod schemas;
mod stage;
mod values;
