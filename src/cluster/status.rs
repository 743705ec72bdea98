//! The one write of an integration's status.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ApiError, Cluster, METADATA_ALONE, Version, merge_patch, wiped_body};
use crate::api::names::{self, FIELD_MANAGER, GROUP, PLURAL};

/// A status to write.
#[derive(Debug)]
pub struct StatusWrite<'a> {
    /// Namespace of the integration.
    pub namespace: &'a str,
    /// Name of the integration.
    pub name: &'a str,
    /// Its UID: a recreated one of the same name must not get this status.
    pub uid: &'a str,
    /// The merge patch of its `status`.
    pub patch: &'a Value,
}

#[derive(Serialize)]
struct Patch<'a> {
    metadata: Metadata<'a>,
    status: &'a Value,
}

#[derive(Serialize)]
struct Metadata<'a> {
    uid: &'a str,
}

#[derive(Deserialize)]
struct Written {
    metadata: WrittenMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMetadata {
    resource_version: String,
}

impl Cluster {
    /// Writes a status; returns the version that the integration has with it.
    ///
    /// # Errors
    /// See [`ApiError`]; `Conflict` where the integration has been recreated.
    pub async fn write_status(&self, write: &StatusWrite<'_>) -> Result<Option<Version>, ApiError> {
        let target = format!(
            "/apis/{GROUP}/{version}/namespaces/{}/{PLURAL}/{}/status?fieldManager={FIELD_MANAGER}",
            write.namespace,
            write.name,
            version = names::VERSION
        );
        let body = Patch { metadata: Metadata { uid: write.uid }, status: write.patch };
        let answer = self.send(merge_patch(&target, METADATA_ALONE, wiped_body(&body)?)?).await?;
        // The write is done, whatever can be read of the answer.
        let written = serde_json::from_slice::<Written>(&answer).ok();
        Ok(written.and_then(|written| Version::new(&written.metadata.resource_version)))
    }
}
