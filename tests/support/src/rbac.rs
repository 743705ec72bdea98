//! The operator's service account and what it may do.
//!
//! The rules are those that the chart grants, as `make generate` renders them into `docs/rbac.yaml`.

use std::fmt::Write;

use crate::control_plane::{ControlPlane, service_account_user};

/// The name of the service account, the roles and the bindings.
pub const NAME: &str = "tiktok-shop-operator";

/// The chart's, rendered with its defaults.
const SHIPPED: &str = include_str!("../../../docs/rbac.yaml");

/// The document of this kind in it.
fn shipped(kind: &str) -> &'static str {
    let kind = format!("kind: {kind}");
    let document = SHIPPED.split("---\n").find(|document| document.lines().any(|line| line == kind));
    document.unwrap_or_else(|| panic!("docs/rbac.yaml has no line {kind:?}"))
}

/// Where the operator may work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// In every namespace.
    Cluster,
    /// In these alone (and its leases in its own).
    Namespaces(Vec<String>),
}

/// A service account with its rights.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Where it lives, and where its leases are.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it authenticates with; good for an hour.
    pub token: String,
}

impl Identity {
    /// Its user name, as [`ControlPlane::request_counts`] takes it.
    #[must_use]
    pub fn user(&self) -> String {
        service_account_user(&self.namespace, &self.name)
    }
}

/// Makes the service account in `namespace` (which is also that of its leases),
/// grants it what the operator needs, and returns it with a token.
pub async fn install(plane: &ControlPlane, namespace: &str, scope: &Scope) -> Identity {
    plane.apply(&manifest(namespace, scope)).await;
    let token = plane.service_account_token(namespace, NAME).await;
    Identity { namespace: namespace.to_owned(), name: NAME.to_owned(), token }
}

/// What [`install`] applies, as YAML.
#[must_use]
pub fn manifest(namespace: &str, scope: &Scope) -> String {
    let account = format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {NAME}, namespace: {namespace}}}\n");
    let lease_role = shipped("Role").replace(&format!("namespace: {NAME}"), &format!("namespace: {namespace}"));
    let mut text = format!("{account}---\n{}---\n{lease_role}", shipped("ClusterRole"));
    let mut bind = |kind: &str, name: &str, place: Option<&str>, (role_kind, role): (&str, &str)| {
        let place = place.map(|place| format!(", namespace: {place}")).unwrap_or_default();
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "---\n\
             apiVersion: rbac.authorization.k8s.io/v1\n\
             kind: {kind}\n\
             metadata: {{name: {name}{place}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {role_kind}, name: {role}}}\n\
             subjects: [{{kind: ServiceAccount, name: {NAME}, namespace: {namespace}}}]\n"
        );
    };
    let leases = "tiktok-shop-operator-leases";
    bind("RoleBinding", leases, Some(namespace), ("Role", leases));
    // Each test's operator lives in a namespace of its own: so does its binding's name.
    let binding = format!("{NAME}-{namespace}");
    match scope {
        Scope::Cluster => bind("ClusterRoleBinding", &binding, None, ("ClusterRole", NAME)),
        Scope::Namespaces(places) => {
            for place in places {
                bind("RoleBinding", &binding, Some(place), ("ClusterRole", NAME));
            }
        }
    }
    text
}
