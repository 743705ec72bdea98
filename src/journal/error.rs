//! What can go wrong with the journal, sorted by what a person does about it.

use std::io;
use std::path::{Path, PathBuf};

use super::Key;

/// Why the journal could not do what it was asked. Shows paths and names, never content.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory is not there, or is no longer there.
    #[error(
        "failed to {doing} {}: there is no such directory; mount a volume there, or name another with --journal-dir",
        .path.display()
    )]
    Missing {
        /// What was tried.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the directory.
    #[error("failed to lock {}: another operator uses this journal directory; give each its own", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// No space is left on the volume.
    #[error(
        "failed to {doing} {}: no space is left on the journal's volume; make it larger, or remove its *.damaged-* files",
        .path.display()
    )]
    Full {
        /// What was tried.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system is read-only, or the operator's user may not write.
    #[error(
        "failed to {doing} {}: the journal directory is not writable; give the operator's user write access to it",
        .path.display()
    )]
    NotWritable {
        /// What was tried.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other failure of the file system.
    #[error("failed to {doing} {}: the file system reports an error; check the journal's volume", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An answer for this integration is not yet stored: nothing may take its place.
    #[error("failed to record a refresh of {key}: an answer not yet stored is in the journal; store it first")]
    AnswerWaiting {
        /// The integration.
        key: Key,
    },
    /// The journal was closed, or its thread has died.
    #[error("failed to reach the journal: it has stopped; restart the operator")]
    Stopped,
}

impl JournalError {
    pub(super) fn from_io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::StaleNetworkFileHandle => {
                Self::Missing { doing, path, source }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { doing, path, source },
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::NotWritable { doing, path, source }
            }
            _ => Self::Io { doing, path, source },
        }
    }

    /// One fixed word for events, labels and logs.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Locked { .. } => "locked",
            Self::Full { .. } => "full",
            Self::NotWritable { .. } => "not-writable",
            Self::Io { .. } => "io",
            Self::AnswerWaiting { .. } => "answer-waiting",
            Self::Stopped => "stopped",
        }
    }
}
