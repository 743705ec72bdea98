//! What it was measured on.

use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::Serialize;
use tiktok_shop_testkit::control_plane;

/// The machine, the versions and the date.
#[derive(Debug, Serialize)]
pub struct Machine {
    date: String,
    processor: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    load_before: String,
    operator: String,
    commit: String,
    kube_apiserver: String,
    etcd: String,
}

/// Looks at it.
pub async fn look(operator: &Path) -> Machine {
    let assets = control_plane::assets_dir().await;
    let said = |program: &Path, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success());
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib: u64 = memory.trim_end_matches("kB").trim().parse().unwrap_or_default();
    let git = Path::new("git");
    let dirty = if said(git, &["status", "--porcelain"]).is_empty() { "" } else { " and changes" };
    Machine {
        date: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
        processor: field(&read("/proc/cpuinfo"), "model name"),
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory_gib: kib >> 20,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_before: read("/proc/loadavg").split_whitespace().next().unwrap_or_default().to_owned(),
        operator: said(operator, &["--version"]),
        commit: format!("{}{dirty}", said(git, &["rev-parse", "--short", "HEAD"])),
        kube_apiserver: said(&assets.join("kube-apiserver"), &["--version"]),
        etcd: said(&assets.join("etcd"), &["--version"]),
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} ({}), {}, {}; {} × {}, {} GiB, Linux {}; load before: {}",
            self.date,
            self.operator,
            self.commit,
            self.kube_apiserver,
            self.etcd,
            self.cores,
            self.processor,
            self.memory_gib,
            self.kernel,
            self.load_before
        )
    }
}
