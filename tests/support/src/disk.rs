//! A file system so small that a test can fill it, and that can be made read-only.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A file system of its own in memory, gone when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts one of so many KiB; none where mounting is not allowed.
    #[must_use]
    pub fn mount(kibibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let size = format!("size={kibibytes}k");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then(|| Self { dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all the room that is left, until [`SmallDisk::make_room`].
    pub fn fill(&self) {
        use std::io::Write;
        let mut filler = std::fs::File::create(self.filler()).expect("a file can be made");
        // Smaller and smaller pieces: the last byte goes, too.
        for size in [4096, 512, 1] {
            let piece = vec![0; size];
            while filler.write_all(&piece).is_ok() {}
        }
    }

    /// Gives the room back.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    /// Makes it read-only for whoever comes by its path, until [`SmallDisk::make_writable`].
    ///
    /// # Panics
    ///
    /// If the kernel refuses.
    pub fn make_read_only(&self) {
        // Itself over itself: what is open for writing, such as a lock, would hinder a remount of the whole.
        let bind = Command::new("mount").arg("--bind").args([self.path(), self.path()]).status();
        let restrict = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(self.path()).status();
        assert!([bind, restrict].into_iter().all(|mount| mount.is_ok_and(|status| status.success())), "root may mount");
    }

    /// Takes [`SmallDisk::make_read_only`] back.
    ///
    /// # Panics
    ///
    /// If it was not made read-only.
    pub fn make_writable(&self) {
        self.unmount();
    }

    fn unmount(&self) {
        // What is still in use goes when its last user does.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking(), "it was mounted");
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.unmount();
    }
}
