//! The custom resource `TikTokShopIntegration`: what people ask for, what the operator answers, and all the names that
//! both hold on to.
//!
//! The types are the source of the CRD ([`crd`]): what their documentation says, `kubectl explain ttsi` prints.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the resource is printed by kubectl explain, which shows backticks as they are"
)]

mod condition;
mod crd;
mod duration;
pub mod names;
mod reason;
mod spec;
mod status;
pub mod timestamp;

pub use condition::{Condition, ConditionStatus, ConditionType};
pub use crd::{crd, crd_yaml};
pub use duration::{DurationError, parse_go_duration};
pub use reason::{Reason, UnknownReason};
pub use spec::{
    AppCredentialsKeys, AppCredentialsSecretRef, Authorization, REFRESH_BEFORE_MAX, REFRESH_BEFORE_MAX_PERCENT,
    REFRESH_BEFORE_MIN, RefreshBefore, Region, RolloutRestartTarget, TikTokShopIntegration, TikTokShopIntegrationSpec,
    TokenSecretKeys, TokenSecretRef, WorkloadKind,
};
pub use status::{
    CheckedShop, LastError, ObservedTokenSecret, RolloutRestart, Seller, TikTokShopIntegrationStatus, merge_patch,
};
