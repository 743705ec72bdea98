//! The few file operations of the journal, each durable or saying so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::JournalError;

/// Files are for the operator's own user alone.
const MODE: u32 = 0o600;

/// The largest file that is read, in bytes: TikTok's answers are limited to 1 MiB, of which JSON
/// escapes can make six.
const LARGEST: u64 = 8 * 1024 * 1024;

/// Bytes written at once; in tests few, so that they can stop a write in the middle.
const CHUNK: usize = if cfg!(test) { 256 } else { usize::MAX };

/// One directory.
pub(super) struct Disk {
    dir: PathBuf,
    handle: File,
    #[cfg(test)]
    pub(super) fuse: super::tests::Fuse,
}

impl Disk {
    pub(super) fn open(dir: &Path) -> Result<Self, JournalError> {
        let open = || {
            // Opening a directory needs no right to write: that is found out by the lock file.
            let handle = File::open(dir)?;
            let is_dir = handle.metadata()?.is_dir();
            if is_dir { Ok(handle) } else { Err(io::ErrorKind::NotADirectory.into()) }
        };
        let handle = open().map_err(|error| JournalError::from_io("open journal directory", dir, error))?;
        Ok(Self {
            dir: dir.to_owned(),
            handle,
            #[cfg(test)]
            fuse: super::tests::Fuse::default(),
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The exclusive lock of the directory, held as long as the file it returns is open.
    pub(super) fn lock(&self, name: &str) -> Result<File, JournalError> {
        let path = self.path(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE)
            .open(&path)
            .map_err(|error| JournalError::from_io("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(JournalError::Locked { path }),
            Err(fs::TryLockError::Error(error)) => Err(JournalError::from_io("lock", &path, error)),
        }
    }

    /// Writes a file anew and makes its content durable; its name is so only after [`Self::sync`].
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        self.fill(name, bytes, true)
    }

    /// Writes over a file in place, into blocks it already has, gives back those beyond, and makes that durable.
    pub(super) fn overwrite(&self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        self.fill(name, bytes, false)
    }

    fn fill(&self, name: &str, bytes: &[u8], anew: bool) -> Result<(), JournalError> {
        let path = self.path(name);
        let fill = || {
            #[cfg(test)]
            self.fuse.burn()?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(anew).mode(MODE).open(&path)?;
            for chunk in bytes.chunks(CHUNK) {
                #[cfg(test)]
                self.fuse.burn()?;
                file.write_all(chunk)?;
            }
            #[cfg(test)]
            self.fuse.burn()?;
            if !anew {
                // A failure only leaves it longer.
                let _ = file.set_len(bytes.len() as u64);
            }
            file.sync_all()
        };
        fill().map_err(|error| JournalError::from_io("write", &path, error))
    }

    /// Makes the content of a file durable that another process may have left half way.
    pub(super) fn sync_file(&self, name: &str) -> Result<(), JournalError> {
        let path = self.path(name);
        File::open(&path).and_then(|file| file.sync_all()).map_err(|e| JournalError::from_io("write", &path, e))
    }

    /// Gives a file another name, in place of what had it.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), JournalError> {
        let rename = || {
            #[cfg(test)]
            self.fuse.burn()?;
            fs::rename(self.path(from), self.path(to))
        };
        rename().map_err(|error| JournalError::from_io("rename", &self.path(from), error))
    }

    /// Removes a file; one that is not there is removed already.
    pub(super) fn remove(&self, name: &str) -> Result<(), JournalError> {
        let remove = || {
            #[cfg(test)]
            self.fuse.burn()?;
            match fs::remove_file(self.path(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done,
            }
        };
        remove().map_err(|error| JournalError::from_io("remove", &self.path(name), error))
    }

    /// Makes what was named, renamed and removed durable.
    pub(super) fn sync(&self) -> Result<(), JournalError> {
        let sync = || {
            #[cfg(test)]
            self.fuse.burn()?;
            self.handle.sync_all()
        };
        sync().map_err(|error| JournalError::from_io("write directory", &self.dir, error))
    }

    /// Reads a file into memory that is wiped when dropped.
    pub(super) fn read(&self, name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
        let path = self.path(name);
        let metadata = fs::symlink_metadata(&path)?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            // Tokens are in it. Where that cannot be changed, reading it is still the better thing.
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(MODE));
        }
        // Of the final size from the start: a growing buffer leaves copies in freed memory.
        let length = usize::try_from(metadata.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut bytes = Zeroizing::new(vec![0; length]);
        File::open(&path)?.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The names of all files; ones that are not UTF-8 are none of ours.
    pub(super) fn names(&self) -> Result<Vec<String>, JournalError> {
        let list = || fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
        let names = list().map_err(|error| JournalError::from_io("list", &self.dir, error))?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// When a file was written last, in Unix seconds.
    pub(super) fn written_at(&self, name: &str) -> Result<i64, JournalError> {
        let path = self.path(name);
        fs::metadata(&path).map(|file| file.mtime()).map_err(|error| JournalError::from_io("read", &path, error))
    }

    /// Puts a file aside under a name that is read by people alone, and says so once.
    pub(super) fn set_aside(&self, name: &str, why: &str) -> Result<(), JournalError> {
        let free = (1..u32::MAX).map(|n| format!("{name}.damaged-{n}"));
        let mut free = free.filter(|aside| fs::symlink_metadata(self.path(aside)).is_err());
        let aside = free.next().unwrap_or_else(|| format!("{name}.damaged-{}", u32::MAX));
        self.rename(name, &aside)?;
        tracing::warn!(
            path = %self.path(&aside).display(),
            "a journal entry is not used, {why}; it is set aside and may hold tokens: remove it when it is of no use"
        );
        Ok(())
    }
}
