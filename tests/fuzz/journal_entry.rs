//! Files of the journal's directory. The first line of the input names the file (`json`, `part`, `new`, `kept`,
//! `processes`); where the word `sealed` follows, the rest is an entry that gets the head and the checksum of its file,
//! which no mutation would hit. The rest is the file's content.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;
use tempfile::TempDir;
use tiktok_shop_operator::journal::{Entry, Journal, Kept};
use tokio::runtime::Runtime;
use tracing::Dispatch;

/// What no text may show, where a file has it as a token.
const PLANTED: &str = "TTP_planted";

/// When the journal is opened, in Unix seconds.
const NOW: i64 = 1_800_000_000;

const PROCESS: &str = "fuzz";

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk::new());
}

/// Whatever stands in the directory, it opens; what is no entry is set aside and not shown, what is one is read back as
/// it was written.
pub fn check(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (head, content) = (String::from_utf8_lossy(&input[..end]), input.get(end + 1..).unwrap_or_default());
    let mut words = head.split(' ');
    let kind = words.next().unwrap_or_default().to_owned();
    let is_sealed = words.next() == Some("sealed");
    let bytes = if is_sealed { sealed(content) } else { content.to_vec() };
    let stem = stem_of(content);
    // A reserve may be blank, a `new` one's call was not made, and the processes are not answers: these may go.
    let (name, holds_answers) = match kind.as_str() {
        "part" | "new" => (format!("{stem}.{kind}"), false),
        "kept" => (format!("{stem}.kept-{NOW}"), true),
        "processes" => (kind.clone(), false),
        _ => (format!("{stem}.json"), true),
    };
    DESK.with_borrow_mut(|desk| {
        desk.clear();
        fs::write(desk.dir.path().join(&name), &bytes).expect("the directory takes a file");
        desk.check(&bytes, holds_answers);
    });
}

/// A directory for one thread's inputs, one after another, and what is logged of them.
struct Desk {
    dir: TempDir,
    log: Log,
    subscriber: Dispatch,
    runtime: Runtime,
}

impl Desk {
    fn new() -> Self {
        // In memory where the system offers that: every step is made durable, which a disk takes its time for.
        let in_memory = Path::new("/dev/shm");
        let dir = if in_memory.is_dir() { TempDir::new_in(in_memory) } else { TempDir::new() };
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        Self {
            dir: dir.expect("a directory can be made"),
            log,
            subscriber: Dispatch::new(subscriber.finish()),
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made"),
        }
    }

    fn clear(&self) {
        for path in self.files() {
            fs::remove_file(path).expect("a file of the directory can be removed");
        }
        self.log.take();
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.dir.path()).and_then(|files| files.map(|file| Ok(file?.path())).collect());
        files.unwrap_or_else(|error: io::Error| panic!("the directory cannot be read: {error}"))
    }

    fn open(&self) -> (Journal, Vec<Entry>) {
        let open = || Journal::open(self.dir.path(), PROCESS, NOW);
        tracing::dispatcher::with_default(&self.subscriber, open)
            .unwrap_or_else(|error| panic!("a file keeps the operator from starting: {error}"))
    }

    fn check(&self, bytes: &[u8], holds_answers: bool) {
        let (journal, entries) = self.open();
        journal.close();
        let log = self.log.take();
        assert!(!log.contains(PLANTED), "the log shows a token: {log}");
        assert_not_shown(&entries);
        let damaged: Vec<PathBuf> = self.files().into_iter().filter(|file| is_damaged(file)).collect();
        if !entries.is_empty() {
            assert!(damaged.is_empty(), "it is used and set aside: {damaged:?}");
            return self.stored_again(&entries);
        }
        if damaged.is_empty() {
            assert!(!holds_answers, "it is neither used nor set aside");
            return;
        }
        let is_whole = damaged.iter().any(|file| fs::read(file).is_ok_and(|content| content == bytes));
        assert!(is_whole, "what is set aside is not what was found");
        assert_eq!(log.lines().count(), damaged.len(), "one line for each file: {log}");
    }

    /// Opened again, it says the same; and what it says can be written and read back.
    fn stored_again(&self, first: &[Entry]) {
        let (journal, again) = self.open();
        assert_eq!(first, again, "opened a second time, the journal says something else");
        for entry in again {
            let written = match entry {
                Entry::Answer(answer) => self.runtime.block_on(journal.answer(answer)),
                Entry::Intent(intent) => self.runtime.block_on(journal.intent(intent)),
                Entry::Kept(_) => Ok(()),
            };
            written.expect("an entry that was read can be written");
        }
        journal.close();
        let (journal, last) = self.open();
        journal.close();
        assert_eq!(first, last, "what was written is not what is read");
    }
}

/// What is logged meanwhile.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn assert_not_shown(entries: &[Entry]) {
    for entry in entries {
        let (intent, answer) = match entry {
            Entry::Answer(answer) | Entry::Kept(Kept { answer, .. }) => (&answer.intent, Some(answer)),
            Entry::Intent(intent) => (intent, None),
        };
        let others = format!("{intent:?} {:?}", answer.map(|answer| &answer.seller));
        assert!(others.contains(PLANTED) || !format!("{entry:?}").contains(PLANTED), "Debug shows a token");
    }
}

fn is_damaged(file: &Path) -> bool {
    file.to_string_lossy().contains(".damaged-")
}

/// The file of an entry, with the head that fits it.
fn sealed(entry: &[u8]) -> Vec<u8> {
    let head = format!("{{\"format\":1,\"length\":{},\"sha256\":\"{}\",\"entry\":", entry.len(), hex_of_sha256(entry));
    [head.as_bytes(), entry, b"}\n"].concat()
}

/// The name of the files of the integration that an entry speaks of.
fn stem_of(entry: &[u8]) -> String {
    let entry: serde_json::Value = serde_json::from_slice(entry).unwrap_or_default();
    let text = |name: &str, default: &str| entry[name].as_str().unwrap_or(default).to_owned();
    hex_of_sha256(format!("{}/{}", text("namespace", "shops"), text("name", "shop-1")).as_bytes())
}

fn hex_of_sha256(bytes: &[u8]) -> String {
    super::hex(digest::digest(&digest::SHA256, bytes).as_ref())
}
