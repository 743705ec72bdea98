//! The manifest for krew, held to what krew documents of it ("Writing your manifest"), and what fills it in.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use kube::core::DynamicObject;
use serde_json::Value;
use tempfile::TempDir;

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
        // The completion is a shell script.
        let packed = match os {
            "windows" => vec!["LICENSE", "kubectl-tiktokshop.exe"],
            _ => vec!["LICENSE", "kubectl-tiktokshop", "kubectl_complete-tiktokshop"],
        };
        assert_eq!(text(platform, "bin"), packed[1]);
        let files = platform["files"].as_array().expect("files are a list");
        let from: BTreeSet<_> = files.iter().map(|file| (text(file, "from"), text(file, "to"))).collect();
        assert_eq!(from, packed.iter().map(|name| (*name, ".")).collect());
    }
    let expected =
        [("darwin", "amd64"), ("darwin", "arm64"), ("linux", "amd64"), ("linux", "arm64"), ("windows", "amd64")];
    assert_eq!(selected, expected.into());
}

/// Packs made-up programs for every platform, as the release does; the folder with the archives.
fn packed(version: &str) -> (TempDir, Output) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    for platform in manifest().data["spec"]["platforms"].as_array().expect("platforms are a list") {
        let labels = &platform["selector"]["matchLabels"];
        let name = format!("kubectl-tiktokshop-{}-{}", text(labels, "os"), text(labels, "arch"));
        let folder = dir.path().join("binaries").join(&name);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        std::fs::write(folder.join(text(platform, "bin")), format!("the program {name}"))
            .expect("a file can be written");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/release.py");
    let url = "https://releases.test/download/v0";
    let output = Command::new(script).args([version, url, "binaries", "out"]).current_dir(dir.path()).output();
    (dir, output.expect("Python can be started"))
}

#[test]
fn a_release_packs_every_platform_of_the_krew_manifest_and_fills_in_its_sums() {
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    let (dir, output) = packed(&version);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| std::fs::read(dir.path().join("out").join(name)).expect("the release has written it");
    let filled: DynamicObject =
        serde_saphyr::from_str(&String::from_utf8(read("tiktokshop.yaml")).expect("a manifest is text")).expect("YAML");
    let sums = String::from_utf8(read("SHA256SUMS")).expect("sums are text");
    let platforms = filled.data["spec"]["platforms"].as_array().expect("platforms are a list").clone();
    assert_eq!(sums.lines().count(), platforms.len());
    let check = Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(dir.path().join("out")).output();
    assert!(check.as_ref().is_ok_and(|check| check.status.success()), "the sums are not those of the files: {check:?}");
    for platform in &platforms {
        let uri = text(platform, "uri");
        let name = uri.strip_prefix("https://releases.test/download/v0/").expect("it is where the release is");
        let sum = text(platform, "sha256");
        assert!(sums.lines().any(|line| line == format!("{sum}  {name}")), "{name} is not in SHA256SUMS:\n{sums}");
        let listed = Command::new("tar").arg("-tzf").arg(dir.path().join("out").join(name)).output().expect("tar runs");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let files = platform["files"].as_array().expect("files are a list");
        assert_eq!(
            listed.lines().collect::<BTreeSet<_>>(),
            files.iter().map(|file| text(file, "from")).collect::<BTreeSet<_>>(),
            "{name}"
        );
    }
    let (again, _) = packed(&version);
    assert_eq!(
        sums.as_bytes(),
        std::fs::read(again.path().join("out/SHA256SUMS")).expect("the release has written it"),
        "the same programs must give the same archives"
    );
}

#[test]
fn a_release_of_another_version_than_the_manifests_is_refused() {
    let (dir, output) = packed("v0.0.9");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not of version v0.0.9"), "{output:?}");
    assert!(!dir.path().join("out/tiktokshop.yaml").exists());
}

/// What the release builds is what the manifest names.
#[test]
fn the_release_workflow_builds_the_platforms_of_the_krew_manifest() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows/release.yml");
    let workflow: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(path).expect("it is in the tree")).expect("YAML");
    let matrix = workflow["jobs"]["plugin"]["strategy"]["matrix"]["include"].as_array().expect("a matrix").clone();
    let built: BTreeSet<_> = matrix.iter().map(|entry| text(entry, "platform").to_owned()).collect();
    let manifest = manifest();
    let named = manifest.data["spec"]["platforms"].as_array().expect("platforms are a list").iter().map(|platform| {
        let labels = &platform["selector"]["matchLabels"];
        format!("{}-{}", text(labels, "os"), text(labels, "arch"))
    });
    assert_eq!(built, named.collect());
}
