//! What the watches deliver, cut down to what is used.
//!
//! Two reasons for types of our own. A Secret's metadata may carry its values: `kubectl apply`
//! writes them in clear into an annotation, so all annotations but ours are dropped unread. And an
//! object that does not fit (an older CRD, a garbled status) must not stop the whole watch: what
//! can't be read is said of that object alone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::{Deserialize, Deserializer, de};

use crate::api::names::{GROUP, KIND, PLURAL, PREFIX, VERSION};
use crate::api::{TikTokShopIntegrationSpec, TikTokShopIntegrationStatus, timestamp};

/// Reads the annotations that are this operator's own, and skips all others.
pub(super) fn own_annotations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("annotations")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut own = BTreeMap::new();
            while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                if key.starts_with(PREFIX) {
                    own.insert(key.into_owned(), map.next_value()?);
                } else {
                    map.next_value::<de::IgnoredAny>()?;
                }
            }
            Ok(own)
        }
    }
    deserializer.deserialize_any(Visitor)
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<String>,
    #[serde(deserialize_with = "own_annotations")]
    annotations: BTreeMap<String, String>,
}

impl WireMeta {
    fn into_meta(self) -> (ObjectMeta, i64) {
        let created = self.creation_timestamp.as_deref().and_then(timestamp::seconds).unwrap_or(0);
        let meta = ObjectMeta {
            name: self.name,
            namespace: self.namespace,
            uid: self.uid,
            resource_version: self.resource_version,
            generation: self.generation,
            annotations: Some(self.annotations),
            ..ObjectMeta::default()
        };
        (meta, created)
    }
}

/// A Secret's metadata: name, UID, version and this operator's annotations.
#[derive(Debug, Clone)]
pub struct WatchedSecret {
    meta: ObjectMeta,
}

impl<'de> Deserialize<'de> for WatchedSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            metadata: WireMeta,
        }
        Ok(Self { meta: Wire::deserialize(deserializer)?.metadata.into_meta().0 })
    }
}

impl Resource for WatchedSecret {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    // Asks the API server for metadata alone: the values never come over the wire.
    fn metadata_api() -> bool {
        true
    }

    fn kind((): &()) -> Cow<'_, str> {
        "Secret".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "secrets".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// An integration as the watch delivers it.
#[derive(Debug, Clone)]
pub struct WatchedIntegration {
    meta: ObjectMeta,
    /// Unix seconds.
    pub created_at: i64,
    /// The spec, or why it can't be read.
    pub spec: Result<TikTokShopIntegrationSpec, String>,
    /// The status; `None` where there is none or it can't be read, so that it gets written anew.
    pub status: Option<TikTokShopIntegrationStatus>,
}

/// What fits its type, or whatever else stands in its place.
///
/// serde reads the text once into a form that borrows from it: a [`serde_json::Value`] would copy each of its strings.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Fits(T),
    Else(serde_json::Value),
}

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self::Else(serde_json::Value::Null)
    }
}

impl<T: de::DeserializeOwned> Lenient<T> {
    fn fits(self) -> Result<T, String> {
        match self {
            Self::Fits(fits) => Ok(fits),
            // Once more, for the words.
            Self::Else(value) => T::deserialize(value).map_err(|error| error.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for WatchedIntegration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            metadata: WireMeta,
            #[serde(default)]
            spec: Lenient<TikTokShopIntegrationSpec>,
            #[serde(default)]
            status: Lenient<TikTokShopIntegrationStatus>,
        }
        let wire = Wire::deserialize(deserializer)?;
        let (meta, created_at) = wire.metadata.into_meta();
        Ok(Self { meta, created_at, spec: wire.spec.fits(), status: wire.status.fits().ok() })
    }
}

impl Resource for WatchedIntegration {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_that_kubectl_apply_leaves_in_an_annotation_are_not_kept() {
        let secret: WatchedSecret = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{\"data\":{\"access_token\":\"VFRQX3NlY3JldA==\"}}",
                "tiktokshop.dev/refreshed-at": "2026-01-01T00:00:00Z",
            }}
        }))
        .unwrap();
        assert_eq!(
            secret.meta().annotations.as_ref().unwrap().keys().collect::<Vec<_>>(),
            ["tiktokshop.dev/refreshed-at"]
        );
    }

    #[test]
    fn an_object_that_does_not_fit_is_still_an_object() {
        let odd: WatchedIntegration = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"tokenSecretRef": 7},
            "status": "all well",
        }))
        .unwrap();
        assert!(odd.spec.is_err() && odd.status.is_none());
        assert_eq!(odd.created_at, 1_767_225_600);
    }
}
