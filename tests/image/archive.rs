//! An OCI archive, unpacked with tar as a container runtime would.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// An unpacked image; gone when dropped.
pub struct Archive {
    dir: TempDir,
    manifest: Value,
    config: Value,
}

/// Panics with what tar says.
fn tar(args: &[&str]) {
    let output = Command::new("tar").args(args).output().expect("tar can be started");
    assert!(output.status.success(), "tar {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the test is text")
}

impl Archive {
    /// Unpacks what `IMAGE` names, else what `make image` has written.
    pub fn unpack() -> Self {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/image/tiktok-shop-operator.tar");
        let path = std::env::var_os("IMAGE").map_or(built, PathBuf::from);
        assert!(path.exists(), "there is no image at {}: run 'make image'", path.display());
        let dir = tempfile::Builder::new().prefix("image-").tempdir().expect("a temporary folder can be made");
        let layout = dir.path().join("layout");
        let root = dir.path().join("root");
        for folder in [&layout, &root] {
            std::fs::create_dir(folder).expect("a folder can be made");
        }
        tar(&["-xf", text(&path), "-C", text(&layout)]);
        let json = |path: PathBuf| -> Value {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            serde_json::from_str(&text).expect("an image's documents are JSON")
        };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("a descriptor has a digest");
            layout.join("blobs").join(digest.replace(':', "/"))
        };
        let index = json(layout.join("index.json"));
        let manifest = json(blob(&index["manifests"][0]));
        let config = json(blob(&manifest["config"]));
        for layer in manifest["layers"].as_array().expect("an image has layers") {
            tar(&["-xf", text(&blob(layer)), "-C", text(&root), "--numeric-owner"]);
        }
        Self { dir, manifest, config }
    }

    /// Its root file system.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The layers as they are sent over the network.
    pub fn compressed_bytes(&self) -> u64 {
        let layers = self.manifest["layers"].as_array().expect("an image has layers");
        layers.iter().filter_map(|layer| layer["size"].as_u64()).sum()
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Everything that is not a folder, relative to the root.
    pub fn files(&self) -> BTreeSet<String> {
        let root = self.root();
        let (mut files, mut folders) = (BTreeSet::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder can be read") {
                let path = entry.expect("a folder can be read").path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else {
                    files.insert(text(path.strip_prefix(&root).expect("it is below the root")).to_owned());
                }
            }
        }
        files
    }
}
