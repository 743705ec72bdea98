//! The entries of one directory: what is on disk, and the little of it that is known in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;

use super::disk::Disk;
use super::document::{self, Damage, Document};
use super::{Answer, Entry, Intent, JournalError, Kept, Key};

/// How long a pair is kept after a rotation.
pub const KEEP: Duration = Duration::from_mins(10);

/// The most pairs kept; the oldest goes first.
pub const MOST_KEPT: usize = 1_000;

/// The most process ids remembered; the oldest goes first.
const MOST_PROCESSES: usize = 100;

/// Kept pairs given up at once where space is needed: an intent with its reserve takes as much as three.
const GIVEN_UP_AT_ONCE: usize = 8;

const LOCK: &str = "lock";
const PROCESSES: &str = "processes";
const PROCESSES_NEW: &str = "processes.new";

/// The names of one integration's files begin with this: 64 hexadecimal digits.
pub(super) type Stem = String;

pub(super) struct Store {
    pub(super) disk: Disk,
    /// Answers not yet stored. Intents need not be known: anything may take their place.
    waiting: HashMap<Stem, Waiting>,
    kept: HashMap<Stem, KeptMark>,
}

struct Waiting {
    claim_id: String,
    /// Does it stand under its final name? Else `open` alone can tell whether it is whole.
    named: bool,
}

/// What a kept pair's file name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct KeptMark {
    since: i64,
    restored: bool,
}

impl KeptMark {
    /// One from the future is out of date too: the clock was set back, and its age is not known.
    fn is_over(self, now: i64) -> bool {
        self.since.abs_diff(now) > KEEP.as_secs()
    }
}

pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) entries: Vec<Entry>,
    pub(super) earlier: HashSet<String>,
    /// When the entries that were set aside had been written last, in Unix seconds.
    pub(super) damaged: HashMap<Stem, i64>,
    pub(super) lock: Arc<File>,
}

/// The files found of one integration.
#[derive(Default)]
struct Found {
    entry: bool,
    part: bool,
    new: bool,
    kept: Vec<KeptMark>,
}

impl Store {
    pub(super) fn open(dir: &Path, process: &str, now: i64) -> Result<Opened, JournalError> {
        let disk = Disk::open(dir)?;
        let lock = Arc::new(disk.lock(LOCK)?);
        let mut store = Self { disk, waiting: HashMap::new(), kept: HashMap::new() };
        let mut found: BTreeMap<Stem, Found> = BTreeMap::new();
        for name in store.disk.names()? {
            sort_in(&mut found, &name);
        }
        let mut entries = Vec::new();
        for (stem, files) in found {
            store.recover(&stem, &files, now, &mut entries)?;
        }
        // After the recovery: it makes room, and a rename may not have been durable yet.
        store.disk.sync()?;
        store.give_up_oldest_kept(store.kept.len().saturating_sub(MOST_KEPT));
        entries.retain(|entry| !matches!(entry, Entry::Kept(_)) || store.kept.contains_key(&stem(entry.key())));
        entries.sort_by_key(|entry| match entry {
            Entry::Answer(answer) => (0, answer.answered_at),
            Entry::Intent(intent) => (1, intent.at),
            Entry::Kept(kept) => (2, kept.since),
        });
        let earlier = store.record_process(process)?;
        let damaged = store.damaged()?;
        Ok(Opened { store, entries, earlier, damaged, lock })
    }

    /// Entries that were set aside, now or by an earlier process.
    fn damaged(&self) -> Result<HashMap<Stem, i64>, JournalError> {
        let mut damaged = HashMap::new();
        for name in self.disk.names()? {
            if let Some((stem, _)) = name.split_once(".json.damaged-") {
                let written = self.disk.written_at(&name)?;
                let newest = damaged.entry(stem.to_owned()).or_insert(written);
                *newest = written.max(*newest);
            }
        }
        Ok(damaged)
    }

    pub(super) fn intent(&mut self, intent: &Intent) -> Result<(), JournalError> {
        let stem = stem(&intent.key);
        if self.waiting.contains_key(&stem) {
            return Err(JournalError::AnswerWaiting { key: intent.key.clone() });
        }
        let bytes = document::encode_intent(intent);
        // Written spaces, not a longer length: a hole would own no blocks.
        let reserve = vec![b' '; document::reserve(bytes.len())];
        let (entry, part, new) = (entry_name(&stem), part_name(&stem), new_name(&stem));
        let recorded = self
            .making_room(|store| {
                store.disk.write(&part, &reserve)?;
                store.disk.write(&new, &bytes)?;
                store.disk.rename(&new, &entry)
            })
            .and_then(|()| self.disk.sync().inspect_err(|_| self.tidy(&entry)));
        if recorded.is_err() {
            // The call will not be made: nothing may say that it was. An earlier intent, though,
            // may have been sent: it stays, unless it was replaced already.
            self.tidy(&new);
            self.tidy(&part);
        }
        recorded
    }

    pub(super) fn answer(&mut self, answer: &Answer) -> Result<(), JournalError> {
        let key = &answer.intent.key;
        let stem = stem(key);
        if self.waiting.get(&stem).is_some_and(|waiting| waiting.claim_id != answer.intent.claim_id) {
            return Err(JournalError::AnswerWaiting { key: key.clone() });
        }
        let bytes = document::encode_answer(answer);
        let (entry, part) = (entry_name(&stem), part_name(&stem));
        // Noted before it is written: after a failure it may be on disk all the same, and nothing may
        // take its place before it is stored.
        let claim_id = answer.intent.claim_id.clone();
        self.waiting.entry(stem.clone()).or_insert(Waiting { claim_id, named: false });
        self.making_room(|store| store.disk.overwrite(&part, &bytes))?;
        self.disk.rename(&part, &entry)?;
        if let Some(waiting) = self.waiting.get_mut(&stem) {
            waiting.named = true;
        }
        self.disk.sync()
    }

    pub(super) fn keep(&mut self, key: &Key, since: i64) -> Result<bool, JournalError> {
        let stem = stem(key);
        let Some(waiting) = self.waiting.get(&stem).filter(|waiting| waiting.named) else {
            let forgotten = self.forget(key);
            self.forget_kept(key)?;
            forgotten?;
            return Ok(false);
        };
        let claim_id = waiting.claim_id.clone();
        // A pair that was written back is the same pair still: it is not written back again.
        let restored = match self.kept.get(&stem).copied() {
            Some(older) if older.restored => {
                self.load_kept(&stem, older)?.is_some_and(|kept| kept.answer.intent.claim_id == claim_id)
            }
            _ => false,
        };
        let mark = KeptMark { since, restored };
        let (entry, kept) = (entry_name(&stem), kept_name(&stem, mark));
        // First, so that there are never two of which the older could be taken for the newer. Of an
        // answer written again after a failure, a second copy may be left, too.
        if let Some(older) = self.kept.remove(&stem) {
            self.tidy(&kept_name(&stem, older));
        }
        self.tidy(&part_name(&stem));
        if let Err(error) = self.disk.rename(&entry, &kept) {
            // It is stored in the Secret: not to keep it is better than to block the next refresh.
            let _ = self.forget(key);
            return Err(error);
        }
        self.waiting.remove(&stem);
        self.kept.insert(stem.clone(), mark);
        self.give_up_oldest_kept(self.kept.len().saturating_sub(MOST_KEPT));
        self.disk.sync()?;
        Ok(self.kept.contains_key(&stem))
    }

    pub(super) fn kept(&mut self, key: &Key) -> Result<Option<Kept>, JournalError> {
        let stem = stem(key);
        let Some(mark) = self.kept.get(&stem).copied() else {
            return Ok(None);
        };
        let kept = self.load_kept(&stem, mark)?;
        if kept.is_none() {
            self.kept.remove(&stem);
        }
        Ok(kept)
    }

    pub(super) fn mark_restored(&mut self, key: &Key) -> Result<bool, JournalError> {
        let stem = stem(key);
        let Some(mark) = self.kept.get_mut(&stem).filter(|mark| !mark.restored) else {
            return Ok(false);
        };
        let before = *mark;
        let after = KeptMark { restored: true, ..before };
        self.disk.rename(&kept_name(&stem, before), &kept_name(&stem, after))?;
        *mark = after;
        self.disk.sync()?;
        Ok(true)
    }

    pub(super) fn forget(&mut self, key: &Key) -> Result<(), JournalError> {
        let stem = stem(key);
        self.waiting.remove(&stem);
        // The reserve first: it may hold an answer, which `open` would take up again.
        let part = self.disk.remove(&part_name(&stem));
        self.disk.remove(&entry_name(&stem))?;
        part?;
        self.disk.sync()
    }

    pub(super) fn forget_kept(&mut self, key: &Key) -> Result<(), JournalError> {
        let stem = stem(key);
        let Some(mark) = self.kept.remove(&stem) else {
            return Ok(());
        };
        self.disk.remove(&kept_name(&stem, mark))?;
        self.disk.sync()
    }

    pub(super) fn expire_kept(&mut self, now: i64) -> Result<usize, JournalError> {
        let over: Vec<(Stem, KeptMark)> = self.kept.extract_if(|_, mark| mark.is_over(now)).collect();
        let mut result = Ok(over.len());
        for (stem, mark) in over {
            if let Err(error) = self.disk.remove(&kept_name(&stem, mark)) {
                result = Err(error);
            }
        }
        result
    }

    /// Brings the files of one integration, in whatever state a crash left them, to one that the
    /// calls make, and adds what they say to `entries`.
    fn recover(&mut self, stem: &Stem, files: &Found, now: i64, entries: &mut Vec<Entry>) -> Result<(), JournalError> {
        if files.new {
            // An intent whose call was not made, as `intent` did not return.
            self.disk.remove(&new_name(stem))?;
        }
        let entry_name = entry_name(stem);
        let mut entry = if files.entry { self.load(stem, &entry_name)? } else { None };
        if files.part {
            entry = self.recover_part(stem, entry)?;
        }
        match entry {
            Some(Document::Answer(answer)) => {
                let claim_id = answer.intent.claim_id.clone();
                self.waiting.insert(stem.clone(), Waiting { claim_id, named: true });
                entries.push(Entry::Answer(answer));
            }
            Some(Document::Intent(intent)) => entries.push(Entry::Intent(intent)),
            None => {}
        }
        let mut marks = files.kept.clone();
        marks.sort_unstable();
        // Of several, the newest whole one; a mark of restoration counts as newer.
        while let Some(mark) = marks.pop() {
            if mark.is_over(now) || self.kept.contains_key(stem) {
                self.disk.remove(&kept_name(stem, mark))?;
            } else if let Some(kept) = self.load_kept(stem, mark)? {
                self.kept.insert(stem.clone(), mark);
                entries.push(Entry::Kept(kept));
            }
        }
        Ok(())
    }

    /// Decides what an interrupted `H.part` is beside the entry: the answer, or nothing of use.
    fn recover_part(&self, stem: &Stem, entry: Option<Document>) -> Result<Option<Document>, JournalError> {
        let (entry_name, part_name) = (entry_name(stem), part_name(stem));
        let Some(Document::Answer(answer)) = self.load(stem, &part_name)? else {
            // Blank, or an intent that nobody writes there; what was damaged has been set aside.
            self.disk.remove(&part_name)?;
            return Ok(entry);
        };
        if let Some(beside) = &entry {
            let same_claim = beside.intent().claim_id == answer.intent.claim_id;
            let (is_newer, is_answer) = match beside {
                Document::Intent(intent) => (same_claim || answer.answered_at >= intent.at, false),
                Document::Answer(other) => (answer.answered_at >= other.answered_at, true),
            };
            if !is_newer {
                self.disk.set_aside(&part_name, "as a newer one of the same integration stands beside it")?;
                return Ok(entry);
            }
            if is_answer && !same_claim {
                self.disk.set_aside(&entry_name, "as a newer one of the same integration stands beside it")?;
            }
        }
        self.disk.sync_file(&part_name)?;
        self.disk.rename(&part_name, &entry_name)?;
        Ok(Some(Document::Answer(answer)))
    }

    /// Reads a file of this integration. One that is damaged is set aside and counts as absent.
    fn load(&self, stem: &Stem, name: &str) -> Result<Option<Document>, JournalError> {
        let bytes = match self.disk.read(name) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(_) => {
                self.disk.set_aside(name, "it cannot be read")?;
                return Ok(None);
            }
        };
        match document::decode(&bytes) {
            Ok(document) if self::stem(&document.intent().key) == *stem => Ok(Some(document)),
            Ok(_) => self.disk.set_aside(name, "it is of another integration than its name says").map(|()| None),
            Err(Damage::Blank) if name == part_name(stem) => Ok(None),
            Err(Damage::Blank) => self.disk.set_aside(name, "it is blank").map(|()| None),
            Err(Damage::Other(why)) => self.disk.set_aside(name, why).map(|()| None),
        }
    }

    fn load_kept(&self, stem: &Stem, mark: KeptMark) -> Result<Option<Kept>, JournalError> {
        let name = kept_name(stem, mark);
        Ok(match self.load(stem, &name)? {
            Some(Document::Answer(answer)) => Some(Kept { answer, since: mark.since, restored: mark.restored }),
            Some(Document::Intent(_)) => {
                self.disk.set_aside(&name, "it holds no answer")?;
                None
            }
            None => None,
        })
    }

    /// Writes, and where the disk is full gives up kept pairs until it is not: an answer not yet
    /// stored is worth more than one that is.
    fn making_room(&mut self, write: impl Fn(&Self) -> Result<(), JournalError>) -> Result<(), JournalError> {
        loop {
            match write(self) {
                Err(JournalError::Full { .. }) if !self.kept.is_empty() => self.give_up_oldest_kept(GIVEN_UP_AT_ONCE),
                done => return done,
            }
        }
    }

    /// Removes what does no harm where it stays behind: the next `open` sees to it.
    fn tidy(&self, name: &str) {
        let _ = self.disk.remove(name);
    }

    fn give_up_oldest_kept(&mut self, how_many: usize) {
        for _ in 0..how_many {
            // Once there are as many as may be, this is done at each rotation: it looks at times alone.
            let Some((stem, mark)) = self.kept.iter().min_by_key(|(_, mark)| mark.since) else { return };
            self.tidy(&kept_name(stem, *mark));
            let stem = stem.clone();
            self.kept.remove(&stem);
        }
    }

    /// Adds this process to those that held the directory, and returns the earlier ones.
    fn record_process(&self, process: &str) -> Result<HashSet<String>, JournalError> {
        let mut ids: Vec<String> = match self.disk.read(PROCESSES) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(_) => {
                self.disk.set_aside(PROCESSES, "it cannot be read")?;
                Vec::new()
            }
            Ok(bytes) => {
                let ids = serde_json::from_slice(&bytes).ok();
                if ids.is_none() {
                    self.disk.set_aside(PROCESSES, "it is not a list of process ids")?;
                }
                ids.unwrap_or_default()
            }
        };
        ids.retain(|id| id != process);
        let earlier = ids.iter().cloned().collect();
        ids.push(process.to_owned());
        ids.drain(..ids.len().saturating_sub(MOST_PROCESSES));
        let text = serde_json::Value::from(ids).to_string();
        let recorded = self
            .disk
            .write(PROCESSES_NEW, text.as_bytes())
            .and_then(|()| self.disk.rename(PROCESSES_NEW, PROCESSES))
            .and_then(|()| self.disk.sync());
        match recorded {
            // What waits in the journal must be stored, which may be what makes room. The price: a
            // later process waits out the claims of this one.
            Err(error @ JournalError::Full { .. }) => {
                self.tidy(PROCESSES_NEW);
                tracing::warn!("{error}");
            }
            recorded => recorded?,
        }
        Ok(earlier)
    }
}

pub(super) fn stem(key: &Key) -> Stem {
    // Neither of the two can hold a slash.
    crate::hex::text(digest::digest(&digest::SHA256, key.to_string().as_bytes()).as_ref())
}

pub(super) fn entry_name(stem: &str) -> String {
    format!("{stem}.json")
}

pub(super) fn part_name(stem: &str) -> String {
    format!("{stem}.part")
}

pub(super) fn new_name(stem: &str) -> String {
    format!("{stem}.new")
}

fn kept_name(stem: &str, mark: KeptMark) -> String {
    format!("{stem}.kept-{}{}", mark.since, if mark.restored { "-restored" } else { "" })
}

/// Notes a file by its name; what is not one of ours (`lost+found`, what is set aside) is left alone.
fn sort_in(found: &mut BTreeMap<Stem, Found>, name: &str) {
    let Some((stem, rest)) = name.split_once('.') else { return };
    if stem.len() != 64 || !stem.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return;
    }
    let kept = rest.strip_prefix("kept-").and_then(|since| {
        let (since, restored) = since.strip_suffix("-restored").map_or((since, false), |since| (since, true));
        let since: i64 = since.parse().ok()?;
        // A name that we would not write (`+5`, `007`) is not ours either.
        let mark = KeptMark { since, restored };
        (kept_name(stem, mark) == name).then_some(mark)
    });
    match (rest, kept) {
        ("json", _) => found.entry(stem.to_owned()).or_default().entry = true,
        ("part", _) => found.entry(stem.to_owned()).or_default().part = true,
        ("new", _) => found.entry(stem.to_owned()).or_default().new = true,
        (_, Some(mark)) => found.entry(stem.to_owned()).or_default().kept.push(mark),
        _ => {}
    }
}
