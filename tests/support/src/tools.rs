//! Programs that tests run and the machine need not have: built from pinned modules, once, into a
//! cache outside the tree.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

/// The program that `tests/tools/NAME/go.mod` pins, such as `helm`. The first time that it is asked
/// for it is built, which takes minutes and is said on standard error.
pub async fn tool(name: &str) -> PathBuf {
    last_line(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/tool.sh"), &[name]).await
}

/// What a script prints as its last line: a path.
pub(crate) async fn last_line(script: &Path, args: &[impl AsRef<OsStr>]) -> PathBuf {
    let output = tokio::process::Command::new(script)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("failed to run {}: {error}", script.display()));
    assert!(output.status.success(), "{} ended with {}: see above", script.display(), output.status);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let line = stdout.lines().last().unwrap_or_default();
    assert!(!line.is_empty(), "{} printed nothing", script.display());
    PathBuf::from(line)
}
