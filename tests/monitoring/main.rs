//! Alerts, dashboard and notifications, held to what the running operator exposes.
//!
//! The operator is brought into the state that an alert speaks of, against the real API server, and scraped. What it
//! said is laid out on a timeline, and `promtool test rules` says which alerts fire on it, and when. Whom they
//! reach then, Alertmanager says with the configuration of the documentation.

mod alerts;
mod dashboard;
mod notifications;
mod promql;
mod promtool;
mod stage;
mod story;
mod webhook;
