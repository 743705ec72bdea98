//! The manifest for krew, held to what krew documents of it ("Writing your manifest").

use std::collections::BTreeSet;
use std::path::Path;

use kube::core::DynamicObject;
use serde_json::Value;

fn manifest() -> DynamicObject {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/krew/tiktokshop.yaml");
    let text = std::fs::read_to_string(path).expect("the manifest is in the tree");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("the manifest is no Kubernetes object: {error}"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("{field} is missing in {value:#}"))
}

/// Covers: cli/krew
#[test]
fn the_krew_manifest_says_all_that_krew_asks_for() {
    let manifest = manifest();
    let types = manifest.types.clone().expect("it has a kind");
    assert_eq!(
        (types.api_version.as_str(), types.kind.as_str()),
        ("krew.googlecontainertools.github.com/v1alpha2", "Plugin")
    );
    assert_eq!(manifest.metadata.name.as_deref(), Some("tiktokshop"), "the name is that of the file");
    let spec = &manifest.data["spec"];
    let known = ["version", "homepage", "shortDescription", "description", "caveats", "platforms"];
    let fields = spec.as_object().expect("a spec is an object");
    assert!(fields.keys().all(|field| known.contains(&field.as_str())), "krew knows no other: {:?}", fields.keys());
    assert_eq!(text(spec, "version"), format!("v{}", env!("CARGO_PKG_VERSION")), "the version is that of the program");
    // krew links `bin` alone, so a person has to link the other program.
    let store = format!("../store/tiktokshop/{}/kubectl_complete-tiktokshop", text(spec, "version"));
    assert!(text(spec, "caveats").contains(&store), "the caveats say how completion gets on the PATH");
    let short = text(spec, "shortDescription");
    assert!(short.len() <= 50 && !short.contains('\n') && !short.ends_with('.'), "{short}");
    assert!(text(spec, "homepage").starts_with("https://") && text(spec, "description").len() > 50);
    let mut selected = BTreeSet::new();
    for platform in spec["platforms"].as_array().expect("platforms are a list") {
        let labels = &platform["selector"]["matchLabels"];
        let (os, arch) = (text(labels, "os"), text(labels, "arch"));
        assert!(selected.insert((os, arch)), "{os}/{arch} is there twice");
        let uri = text(platform, "uri");
        let version = text(spec, "version");
        assert!(uri.starts_with("https://") && uri.contains(&format!("/{version}/")), "{uri}");
        assert!(uri.ends_with(&format!("kubectl-tiktokshop-{os}-{arch}.tar.gz")), "{uri}");
        let sum = text(platform, "sha256");
        assert!(sum.len() == 64 && sum.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{sum}");
        assert_eq!(text(platform, "bin"), "kubectl-tiktokshop");
        let files = platform["files"].as_array().expect("files are a list");
        let from: BTreeSet<_> = files.iter().map(|file| (text(file, "from"), text(file, "to"))).collect();
        assert_eq!(
            from,
            ["LICENSE", "kubectl-tiktokshop", "kubectl_complete-tiktokshop"].map(|name| (name, ".")).into()
        );
    }
    let expected = [("darwin", "amd64"), ("darwin", "arm64"), ("linux", "amd64"), ("linux", "arm64")];
    assert_eq!(selected, expected.into());
}
