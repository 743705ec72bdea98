//! The journal of answers not yet stored.
//!
//! TikTok's answer to a refresh may be the only copy of the only refresh token that still works. From
//! the moment it comes to the moment it is stored in the Secret, it is held here, in a directory that
//! outlives the process (`--journal-dir`). **The files hold token values: that is their purpose.** The
//! chart gives a memory-backed `emptyDir`, which outlives the container and never touches a disk.
//! Files are readable by the operator's own user alone.
//!
//! # One refresh, step by step
//!
//! `H` is the SHA-256 of `namespace/name`; there is one entry an integration.
//!
//! | call | on disk, each step fsynced before the next | after a crash here, `open` gives |
//! |---|---|---|
//! | [`Journal::intent`] | `H.part` is filled with spaces: the *reserve* | nothing |
//! | | `H.new` is written with the intent | nothing |
//! | | `H.new` is renamed to `H.json`, directory fsynced | the intent |
//! | [`Journal::answer`] | `H.part` is overwritten **in place** with the answer, and cut to its length | the intent; once whole: the answer |
//! | | `H.part` is renamed to `H.json`, directory fsynced | the answer |
//! | [`Journal::keep`] | `H.json` is renamed to `H.kept-<since>` | the kept pair |
//! | [`Journal::forget`] | `H.part` and `H.json` are removed | nothing |
//!
//! The answer goes into blocks that its reserve already owns, and a rename over an existing name needs
//! no new ones: **a full disk is found out by the intent, before the token is spent.** That takes room
//! for two files (three for an instant where an intent replaces one): the answer cannot go in place
//! over the intent itself, as a crash in the middle would leave neither. File systems that copy on
//! write (btrfs, ZFS) allocate anew even so; tmpfs, ext4 and XFS do not. An answer larger than its
//! reserve grows, as far as there is room; kept pairs, which are a convenience, give way to an intent
//! or an answer where there is none.
//!
//! A kept pair has a file of its own, so that it stays through the next intent and goes only when the
//! next pair takes its place, or after [`KEEP`]. It costs no space to make: its state is in its name.
//!
//! Entries that cannot be read are set aside as `*.damaged-N` for a person to judge, never deleted. An
//! interrupted `H.part` may hold the only copy of an answer: whole, it is taken up; not whole, set
//! aside; blank, removed. `H.new` only ever holds an intent whose call was never made: removed.
//!
//! Beside them: `lock`, held by `flock` while a handle lives, and `processes`, the random ids of the
//! last 100 processes that held the directory. Files of any other name are left alone.
//!
//! # Threads
//!
//! All writing is done by one thread of its own, in the order of the calls. The async runtime never
//! blocks, and no operation overtakes another. A call that was made is carried out even if its future
//! is dropped. The queue is not bounded by itself: each caller waits for its reply.

mod disk;
mod document;
mod entry;
mod error;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

pub use entry::{Answer, Entry, Intent, Kept, Key, Seller};
pub use error::JournalError;
pub use store::{KEEP, MOST_KEPT};
use store::{Stem, Store};

/// A handle on the journal; copies share one directory and one thread.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    queue: Sender<Order>,
    thread: Mutex<Option<JoinHandle<()>>>,
    earlier: HashSet<String>,
    damaged: HashMap<Stem, i64>,
    /// Held here too, so that a thread that died does not give the directory to another process.
    _lock: Arc<File>,
}

enum Order {
    Run(Box<dyn FnOnce(&mut Store) + Send>),
    Close,
}

impl Journal {
    /// Opens the journal in a directory that exists, takes its lock for the life of the handles, and
    /// returns what earlier processes left: unstored answers first, then intents, then kept pairs.
    ///
    /// `process` is the random id of this process and is recorded; `now` is in Unix seconds.
    ///
    /// # Errors
    /// Where the directory is not there, not writable, or held by another process; where it cannot be
    /// read or an unreadable entry cannot be set aside. A full disk is no error here: what waits in
    /// the journal must still be stored.
    pub fn open(dir: &Path, process: &str, now: i64) -> Result<(Self, Vec<Entry>), JournalError> {
        let opened = Store::open(dir, process, now)?;
        let mut store = opened.store;
        let lock = Arc::clone(&opened.lock);
        let (queue, orders) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                let _lock = lock;
                while let Ok(Order::Run(run)) = orders.recv() {
                    run(&mut store);
                }
            })
            .map_err(|error| JournalError::from_io("start a thread for", dir, error))?;
        let shared = Shared {
            queue,
            thread: Mutex::new(Some(thread)),
            earlier: opened.earlier,
            damaged: opened.damaged,
            _lock: opened.lock,
        };
        Ok((Self(Arc::new(shared)), opened.entries))
    }

    /// Did an earlier process that held this directory have this id? Of those, the last 100 are known.
    #[must_use]
    pub fn is_earlier_life(&self, process: &str) -> bool {
        self.0.earlier.contains(process)
    }

    /// May an entry that is damaged, and so was set aside, have been about a claim of this time (Unix seconds)? Then
    /// that no intent is here does not mean that none was sent.
    #[must_use]
    pub fn may_have_lost(&self, key: &Key, claimed_at: i64) -> bool {
        // The intent is written after the claim, by the same clock; a second for what each cuts off.
        self.0.damaged.get(&store::stem(key)).is_some_and(|written_at| written_at + 1 >= claimed_at)
    }

    /// Records, durably, that a refresh is about to be sent, and reserves the space of its answer.
    /// Takes the place of an earlier intent; a kept pair stays beside it.
    ///
    /// # Errors
    /// [`JournalError::AnswerWaiting`] where an answer is not yet stored, else where the intent or the
    /// reserve cannot be written. Then nothing is recorded, and the call must not be made.
    pub async fn intent(&self, intent: Intent) -> Result<(), JournalError> {
        self.order(move |store| store.intent(&intent)).await
    }

    /// Records an answer, durably, in the place of its intent (which need not be there).
    ///
    /// # Errors
    /// [`JournalError::AnswerWaiting`] where an answer of another claim is not yet stored, else where
    /// it cannot be written: it is then to be held in memory. May be called again. After an error, too,
    /// the next intent is refused until [`Self::keep`] or [`Self::forget`] says that the answer is dealt with.
    pub async fn answer(&self, answer: Answer) -> Result<(), JournalError> {
        self.order(move |store| store.answer(&answer)).await
    }

    /// The answer is stored in the Secret: keeps it for [`KEEP`] from `since` (Unix seconds), in the
    /// place of an older one (whose mark of [`Self::mark_restored`] stays where it is the same answer). Where no answer was recorded, all that is here of the integration is out
    /// of date and forgotten. Returns whether a pair is kept now.
    ///
    /// # Errors
    /// Where the file system fails. The answer counts as stored even so.
    pub async fn keep(&self, key: Key, since: i64) -> Result<bool, JournalError> {
        self.order(move |store| store.keep(&key, since)).await
    }

    /// The pair kept of an integration, if there is one; its values are read from the directory.
    ///
    /// # Errors
    /// Where it cannot be set aside though it cannot be read, or the journal has stopped.
    pub async fn kept(&self, key: Key) -> Result<Option<Kept>, JournalError> {
        self.order(move |store| store.kept(&key)).await
    }

    /// Marks, durably, that the kept pair is written back to the Secret: call it before doing so.
    /// Returns whether it was there and not yet marked.
    ///
    /// # Errors
    /// Where the file system fails; the mark is then not durable.
    pub async fn mark_restored(&self, key: Key) -> Result<bool, JournalError> {
        self.order(move |store| store.mark_restored(&key)).await
    }

    /// Forgets the intent or the answer of an integration. A kept pair stays until it expires.
    ///
    /// # Errors
    /// Where the file system fails. An answer counts as forgotten even so, until the next `open`.
    pub async fn forget(&self, key: Key) -> Result<(), JournalError> {
        self.order(move |store| store.forget(&key)).await
    }

    /// Forgets the kept pair of an integration.
    ///
    /// # Errors
    /// Where the file system fails.
    pub async fn forget_kept(&self, key: Key) -> Result<(), JournalError> {
        self.order(move |store| store.forget_kept(&key)).await
    }

    /// Forgets the kept pairs older than [`KEEP`] at `now` (Unix seconds), and returns how many.
    ///
    /// # Errors
    /// Where the file system fails for one; the others are gone.
    pub async fn expire_kept(&self, now: i64) -> Result<usize, JournalError> {
        self.order(move |store| store.expire_kept(now)).await
    }

    /// Carries out what was asked so far and stops; other handles then get [`JournalError::Stopped`].
    /// Blocks for as long as that takes, needs no runtime, and may be called within one. Dropping the
    /// last handle does the same.
    pub fn close(self) {
        self.0.stop();
    }

    async fn order<T, F>(&self, run: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Store) -> Result<T, JournalError> + Send + 'static,
    {
        let (reply, replied) = oneshot::channel();
        let order = Order::Run(Box::new(move |store| {
            // Nobody may be waiting any more; the work is done all the same.
            let _ = reply.send(run(store));
        }));
        // Both fail only where the thread is gone: it drops the replies it owes.
        self.0.queue.send(order).map_err(|_| JournalError::Stopped)?;
        replied.await.map_err(|_| JournalError::Stopped)?
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}

impl Shared {
    fn stop(&self) {
        let _ = self.queue.send(Order::Close);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A waker dropped by the thread may own the last handle: it cannot wait for itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}
