//! The one write to a workload: the annotation on its pod template that has it restarted.

use serde_json::json;

use super::{ApiError, Cluster, METADATA_ALONE, merge_patch, wiped_body};
use crate::api::RolloutRestartTarget;
use crate::api::names::{FIELD_MANAGER, RESTARTED_AT};

impl Cluster {
    /// Has a workload restarted: its controller rolls out pods anew when their template changes. Sent again with the
    /// same value, nothing changes.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn restart(&self, namespace: &str, target: &RolloutRestartTarget, value: &str) -> Result<(), ApiError> {
        let path = format!(
            "/apis/apps/v1/namespaces/{namespace}/{}/{}?fieldManager={FIELD_MANAGER}",
            target.kind.plural(),
            target.name
        );
        let body = json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: value}}}}});
        let request = merge_patch(&path, METADATA_ALONE, wiped_body(&body)?)?;
        self.send(request).await.map(drop)
    }
}
