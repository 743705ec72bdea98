//! Every rule of the journal, on a real file system.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tempfile::TempDir;

use super::document::{self, Damage, Document};
use super::store::{Opened, Store, entry_name, new_name, part_name};
use super::*;
use crate::tokens::{Digest, SecretText, SpentTokens};

thread_local! {
    /// Where the next journal opened by this thread is killed: its own start is part of its life.
    static KILLED_AT_START: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Stops the journal at its nth file operation, as a kill or a failing disk would.
pub(super) struct Fuse {
    left: Cell<Option<u32>>,
    once: Cell<bool>,
    kind: Cell<Option<io::ErrorKind>>,
}

impl Default for Fuse {
    fn default() -> Self {
        Self { left: KILLED_AT_START.take().into(), once: Cell::new(false), kind: Cell::new(None) }
    }
}

impl Fuse {
    /// All operations after the first `steps` do nothing: the process is dead.
    fn kill_after(&self, steps: u32) {
        self.left.set(Some(steps));
    }

    /// One operation fails after the first `steps`; the following work again.
    fn fail_after(&self, steps: u32, kind: io::ErrorKind) {
        self.left.set(Some(steps));
        self.once.set(true);
        self.kind.set(Some(kind));
    }

    pub(super) fn burn(&self) -> io::Result<()> {
        match self.left.get() {
            Some(0) => {
                if self.once.get() {
                    self.left.set(None);
                }
                Err(self.kind.get().unwrap_or(io::ErrorKind::Other).into())
            }
            Some(left) => {
                self.left.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn mend(&self) {
        self.left.set(None);
    }

    fn is_blown(&self) -> bool {
        matches!((self.left.get(), self.once.get()), (Some(0), false) | (None, true))
    }
}

const NOW: i64 = 1_800_000_000;

fn dir() -> TempDir {
    TempDir::new().unwrap()
}

fn key(name: &str) -> Key {
    Key { namespace: "shops".into(), name: name.into() }
}

fn intent(name: &str, claim_id: &str) -> Intent {
    Intent {
        key: key(name),
        integration_uid: "uid-1".into(),
        team: Some("7".into()),
        secret_name: format!("{name}-tokens"),
        token_keys: ["a", "b", "c", "d"].map(String::from),
        auth_code_key: "e".into(),
        exchange: false,
        claim_id: claim_id.into(),
        process: "process-1".into(),
        from: Digest::from_bytes([1; 16]),
        access_from: Digest::from_bytes([2; 16]),
        spent_before: SpentTokens::default().with(Digest::from_bytes([3; 16])),
        request: Some("now \"please\"\n".into()),
        presented: 1,
        at: NOW,
    }
}

fn token(text: &str) -> SecretText {
    SecretText::new(text.into()).unwrap()
}

fn answer(name: &str, claim_id: &str) -> Answer {
    Answer {
        intent: intent(name, claim_id),
        access_token: token("TTP_access-of-the-answer"),
        access_expires_at: Some(NOW + 604_800),
        refresh_token: Some(token("TTP_refresh-of-the-answer")),
        refresh_expires_at: None,
        answered_at: NOW + 1,
        seller: Seller { open_id: Some("o".into()), name: Some("Cửa hàng 🛍".into()), ..Seller::default() },
    }
}

fn stem(name: &str) -> String {
    crate::hex::text(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("shops/{name}").as_bytes()).as_ref())
}

/// Opens again where the lock is held: a command that another test starts holds a copy of every open
/// file between its fork and its exec.
fn patiently<T>(open: impl Fn() -> Result<T, JournalError>) -> T {
    for _ in 0..200 {
        match open() {
            Err(JournalError::Locked { .. }) => thread::sleep(std::time::Duration::from_millis(10)),
            done => return done.unwrap_or_else(|error| panic!("the journal opens: {error}")),
        }
    }
    panic!("the journal stays locked");
}

fn open_as(dir: &Path, process: &str, now: i64) -> (Journal, Vec<Entry>) {
    patiently(|| Journal::open(dir, process, now))
}

fn open(dir: &Path) -> (Journal, Vec<Entry>) {
    open_as(dir, "process-1", NOW)
}

fn store(dir: &Path) -> Opened {
    patiently(|| Store::open(dir, "process-1", NOW))
}

/// What the next process finds.
fn left_in(dir: &Path) -> Vec<Entry> {
    store(dir).entries
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn damaged(dir: &Path) -> Vec<PathBuf> {
    names(dir).into_iter().filter(|name| name.contains(".damaged-")).map(|name| dir.join(name)).collect()
}

fn answer_bytes(answer: &Answer) -> Vec<u8> {
    document::encode_answer(answer).to_vec()
}

fn intent_bytes(intent: &Intent) -> Vec<u8> {
    document::encode_intent(intent).to_vec()
}

fn put(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).unwrap();
}

// What is recorded comes back.

#[tokio::test]
async fn an_answer_is_found_by_the_next_process_as_it_was() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    journal.intent(intent("shop", "c1")).await.unwrap();
    journal.answer(answer("shop", "c1")).await.unwrap();
    drop(journal);
    assert_eq!(left_in(dir.path()), [Entry::Answer(answer("shop", "c1"))]);
    assert_eq!(left_in(dir.path()), [Entry::Answer(answer("shop", "c1"))], "reading it must not change it");
}

#[tokio::test]
async fn an_intent_without_an_answer_is_found_by_the_next_process() {
    let dir = dir();
    let (journal, entries) = open(dir.path());
    assert!(entries.is_empty());
    journal.intent(intent("shop", "c1")).await.unwrap();
    journal.close();
    assert_eq!(left_in(dir.path()), [Entry::Intent(intent("shop", "c1"))]);
    assert_eq!(names(dir.path()), [entry_name(&stem("shop")), "lock".into(), "processes".into()]);
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_comes_back_without_one() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    let unrotated = || Answer { refresh_token: None, seller: Seller::default(), ..answer("shop", "c1") };
    journal.answer(unrotated()).await.unwrap();
    drop(journal);
    assert_eq!(left_in(dir.path()), [Entry::Answer(unrotated())]);
}

#[tokio::test]
async fn entries_of_two_integrations_do_not_touch_each_other() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    journal.answer(answer("shop-1", "c1")).await.unwrap();
    journal.intent(intent("shop-2", "c2")).await.unwrap();
    journal.forget(key("shop-3")).await.unwrap();
    drop(journal);
    assert_eq!(left_in(dir.path()), [Entry::Answer(answer("shop-1", "c1")), Entry::Intent(intent("shop-2", "c2"))]);
}

#[tokio::test]
async fn a_forgotten_entry_is_gone() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    journal.intent(intent("shop-1", "c1")).await.unwrap();
    journal.answer(answer("shop-1", "c1")).await.unwrap();
    journal.intent(intent("shop-2", "c2")).await.unwrap();
    journal.forget(key("shop-1")).await.unwrap();
    journal.forget(key("shop-2")).await.unwrap();
    assert_eq!(names(dir.path()), ["lock", "processes"]);
    drop(journal);
    assert_eq!(left_in(dir.path()), []);
}

// What must not be overwritten is not.

#[tokio::test]
async fn an_intent_does_not_take_the_place_of_an_answer_not_yet_stored() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    journal.answer(answer("shop", "c1")).await.unwrap();
    let refused = journal.intent(intent("shop", "c2")).await.unwrap_err();
    assert_eq!(refused.category(), "answer-waiting");
    assert!(refused.to_string().contains("shops/shop"), "{refused}");
    drop(journal);
    let (journal, entries) = open(dir.path());
    assert_eq!(entries, [Entry::Answer(answer("shop", "c1"))]);
    journal.intent(intent("shop", "c2")).await.expect_err("an answer of an earlier process is refused the same");
}

#[tokio::test]
async fn an_answer_does_not_take_the_place_of_one_of_another_claim_not_yet_stored() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    journal.answer(answer("shop", "c1")).await.unwrap();
    assert_eq!(journal.answer(answer("shop", "c2")).await.unwrap_err().category(), "answer-waiting");
    journal.answer(answer("shop", "c1")).await.expect("the same answer may be recorded again");
    drop(journal);
    assert_eq!(left_in(dir.path()), [Entry::Answer(answer("shop", "c1"))]);
}

#[tokio::test]
async fn an_intent_takes_the_place_of_an_intent() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    journal.intent(intent("shop", "c1")).await.unwrap();
    journal.intent(intent("shop", "c2")).await.unwrap();
    drop(journal);
    assert_eq!(left_in(dir.path()), [Entry::Intent(intent("shop", "c2"))]);
}

// The pair kept after a rotation.

async fn rotate(journal: &Journal, name: &str, since: i64) -> bool {
    journal.intent(intent(name, "c1")).await.unwrap();
    journal.answer(answer(name, "c1")).await.unwrap();
    journal.keep(key(name), since).await.unwrap()
}

fn kept(name: &str, since: i64) -> Kept {
    Kept { answer: answer(name, "c1"), since, restored: false }
}

#[tokio::test]
async fn a_stored_pair_is_kept_for_ten_minutes() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    assert!(rotate(&journal, "shop", NOW).await);
    assert_eq!(journal.kept(key("shop")).await.unwrap(), Some(kept("shop", NOW)));
    assert_eq!(journal.kept(key("other")).await.unwrap(), None);
    assert_eq!(journal.expire_kept(NOW + 600).await.unwrap(), 0);
    assert_eq!(journal.expire_kept(NOW + 601).await.unwrap(), 1);
    assert_eq!(journal.kept(key("shop")).await.unwrap(), None);
    assert_eq!(names(dir.path()), ["lock", "processes"]);
}

#[tokio::test]
async fn a_kept_pair_survives_a_restart_until_it_is_too_old() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    rotate(&journal, "shop", NOW).await;
    drop(journal);
    assert_eq!(left_in(dir.path()), [Entry::Kept(kept("shop", NOW))]);
    let (_, entries) = open_as(dir.path(), "process-2", NOW + 601);
    assert_eq!(entries, []);
    assert_eq!(names(dir.path()), ["lock", "processes"]);
}

#[tokio::test]
async fn a_pair_kept_by_a_clock_that_was_set_back_since_does_not_stay_forever() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    rotate(&journal, "shop", NOW + 86_400).await;
    assert_eq!(journal.expire_kept(NOW).await.unwrap(), 1);
}

#[tokio::test]
async fn a_kept_pair_is_marked_as_restored_once_and_stays_so() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    rotate(&journal, "shop", NOW).await;
    assert!(journal.mark_restored(key("shop")).await.unwrap());
    assert!(!journal.mark_restored(key("shop")).await.unwrap(), "it may be written back once");
    assert!(!journal.mark_restored(key("other")).await.unwrap());
    let restored = || Kept { restored: true, ..kept("shop", NOW) };
    assert_eq!(journal.kept(key("shop")).await.unwrap(), Some(restored()));
    drop(journal);
    assert_eq!(left_in(dir.path()), [Entry::Kept(restored())]);
}

#[tokio::test]
async fn a_kept_pair_stays_beside_the_next_intent_and_goes_with_the_next_pair() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    rotate(&journal, "shop", NOW).await;
    journal.intent(intent("shop", "c2")).await.unwrap();
    journal.forget(key("shop")).await.unwrap();
    assert_eq!(journal.kept(key("shop")).await.unwrap(), Some(kept("shop", NOW)), "TikTok refused: it is the newest");
    rotate(&journal, "shop", NOW + 5).await;
    assert_eq!(journal.kept(key("shop")).await.unwrap(), Some(kept("shop", NOW + 5)));
    journal.forget_kept(key("shop")).await.unwrap();
    assert_eq!(names(dir.path()), ["lock", "processes"]);
}

#[tokio::test]
async fn keeping_what_was_never_recorded_leaves_nothing_out_of_date() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    rotate(&journal, "shop", NOW).await;
    journal.intent(intent("shop", "c2")).await.unwrap();
    assert!(!journal.keep(key("shop"), NOW + 1).await.unwrap(), "the answer was not recorded, so it is not kept");
    assert_eq!(names(dir.path()), ["lock", "processes"]);
}

#[tokio::test]
async fn at_most_a_thousand_pairs_are_kept_and_the_oldest_goes_first() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    for n in 0..1_003_i64 {
        let name = format!("shop-{n}");
        journal.answer(answer(&name, "c1")).await.unwrap();
        assert!(journal.keep(key(&name), NOW + n / 10).await.unwrap());
        assert!(n > 5 || journal.kept(key(&name)).await.unwrap().is_some());
    }
    assert_eq!(names(dir.path()).len(), 1_002, "a thousand pairs, lock and processes");
    assert!(journal.kept(key("shop-1002")).await.unwrap().is_some());
    let gone = names(dir.path());
    let gone = (0..1_003).filter(|n| !gone.iter().any(|name| name.starts_with(&stem(&format!("shop-{n}")))));
    assert!(gone.into_iter().all(|n| n < 10), "those of the oldest second go first");
    drop(journal);
    // More than that, as an operator with another limit may have left.
    for n in 0..5 {
        let name = format!("older-{n}");
        put(dir.path(), &format!("{}.kept-{}", stem(&name), NOW - 9), &answer_bytes(&answer(&name, "c1")));
    }
    let entries = left_in(dir.path());
    assert_eq!(entries.len(), 1_000);
    assert!(entries.iter().all(|entry| entry.key().name.starts_with("shop")), "the oldest are given up at start");
}

#[tokio::test]
async fn a_kept_file_takes_no_more_than_its_content() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    rotate(&journal, "shop", NOW).await;
    let name = format!("{}.kept-{NOW}", stem("shop"));
    let length = fs::metadata(dir.path().join(name)).unwrap().len();
    assert!(length < 4096, "{length} bytes of what may be memory");
    assert!(journal.kept(key("shop")).await.unwrap().is_some());
}

// One directory, one operator.

#[test]
fn a_second_operator_in_the_same_directory_is_refused() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    let refused = Journal::open(dir.path(), "process-2", NOW).unwrap_err();
    assert_eq!(refused.category(), "locked");
    assert!(refused.to_string().contains("give each its own"), "{refused}");
    let copy = journal.clone();
    drop(journal);
    assert!(Journal::open(dir.path(), "process-2", NOW).is_err(), "a copy of the handle still holds it");
    copy.close();
    open_as(dir.path(), "process-2", NOW);
}

#[test]
fn the_lock_holds_against_other_processes_too() {
    let dir = dir();
    let try_lock = || Command::new("flock").arg("-n").arg(dir.path().join("lock")).arg("true").status();
    let (journal, _) = open(dir.path());
    let Ok(status) = try_lock() else { return println!("skipped: no flock command here") };
    assert!(!status.success(), "another process got the lock");
    drop(journal);
    drop(open(dir.path()));
    assert!(try_lock().unwrap().success(), "the lock outlived the journal");
    let mut holder = Command::new("flock")
        .arg(dir.path().join("lock"))
        .args(["sh", "-c", "echo held; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    assert_eq!(Journal::open(dir.path(), "process-2", NOW).unwrap_err().category(), "locked");
    drop(holder.stdin.take());
    holder.wait().unwrap();
}

#[test]
fn an_earlier_process_of_this_directory_is_known_and_the_present_one_is_not_earlier() {
    let dir = dir();
    drop(open_as(dir.path(), "first", NOW));
    drop(open_as(dir.path(), "second", NOW));
    let (journal, _) = open_as(dir.path(), "third", NOW);
    assert!(journal.is_earlier_life("first") && journal.is_earlier_life("second"));
    assert!(!journal.is_earlier_life("third") && !journal.is_earlier_life("stranger"));
}

#[test]
fn the_last_hundred_processes_are_remembered() {
    let dir = dir();
    for n in 0..=120 {
        drop(open_as(dir.path(), &format!("p{n}"), NOW));
    }
    let (journal, _) = open_as(dir.path(), "p121", NOW);
    assert!(journal.is_earlier_life("p120") && journal.is_earlier_life("p21") && !journal.is_earlier_life("p20"));
}

#[test]
fn a_damaged_list_of_processes_is_set_aside_and_no_process_counts_as_earlier() {
    let dir = dir();
    drop(open_as(dir.path(), "first", NOW));
    put(dir.path(), "processes", b"[\"fir");
    let (journal, _) = open_as(dir.path(), "second", NOW);
    assert!(!journal.is_earlier_life("first"));
    assert_eq!(damaged(dir.path()).len(), 1);
}

// Order, and the end.

#[tokio::test]
async fn operations_are_carried_out_in_the_order_of_their_calls() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    for round in 0..20 {
        let results = tokio::join!(
            journal.intent(intent("shop", "c1")),
            journal.answer(answer("shop", "c1")),
            journal.keep(key("shop"), NOW + round),
            journal.intent(intent("shop", "c2")),
            journal.forget(key("shop")),
            journal.kept(key("shop")),
        );
        assert!(results.0.is_ok() && results.1.is_ok() && results.2.unwrap() && results.3.is_ok() && results.4.is_ok());
        assert_eq!(results.5.unwrap(), Some(kept("shop", NOW + round)));
    }
}

#[tokio::test]
async fn a_call_whose_caller_went_away_is_carried_out() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    let mut call = Box::pin(journal.answer(answer("shop", "c1")));
    // Polled once, so that it is made, and dropped.
    let _ = futures::poll!(call.as_mut());
    drop(call);
    journal.close();
    assert_eq!(left_in(dir.path()), [Entry::Answer(answer("shop", "c1"))]);
}

#[tokio::test]
async fn after_the_close_of_one_handle_the_others_are_told_so() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    let other = journal.clone();
    journal.close();
    assert_eq!(other.answer(answer("shop", "c1")).await.unwrap_err().category(), "stopped");
    other.close();
}

#[tokio::test]
async fn when_the_thread_dies_calls_fail_and_do_not_hang_and_the_directory_stays_locked() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    let died: Result<(), _> = journal.order(|_| panic!("a panic meant by this test")).await;
    assert_eq!(died.unwrap_err().category(), "stopped");
    assert_eq!(journal.intent(intent("shop", "c1")).await.unwrap_err().category(), "stopped");
    assert_eq!(journal.kept(key("shop")).await.unwrap_err().category(), "stopped");
    assert_eq!(Journal::open(dir.path(), "process-2", NOW).unwrap_err().category(), "locked");
    journal.close();
}

#[test]
fn handles_and_their_calls_may_move_between_threads() {
    fn moves<T: Send>(_: &T) {}
    fn is_shared<T: Send + Sync + Clone>(_: &T) {}
    let dir = dir();
    let (journal, _) = open(dir.path());
    is_shared(&journal);
    moves(&journal.answer(answer("shop", "c1")));
    moves(&journal.kept(key("shop")));
}

// Nobody else reads it, and nothing prints it.

#[tokio::test]
async fn files_are_readable_by_their_owner_alone() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    rotate(&journal, "shop-1", NOW).await;
    journal.intent(intent("shop-2", "c1")).await.unwrap();
    journal.answer(answer("shop-3", "c1")).await.unwrap();
    let others = |dir: &Path| -> Vec<String> {
        let open = |name: &String| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o077 != 0;
        names(dir).into_iter().filter(open).collect()
    };
    assert!(names(dir.path()).len() >= 6);
    assert_eq!(others(dir.path()), [""; 0], "readable by others");
    drop(journal);
    for name in names(dir.path()) {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    left_in(dir.path());
    assert_eq!(others(dir.path()).iter().filter(|name| *name != "lock").count(), 0, "made so again at start");
}

#[test]
fn debug_output_and_errors_show_no_token() {
    let answer = answer("shop", "c1");
    let text = format!("{answer:?}");
    assert!(!text.contains("TTP_"), "{text}");
    let text = format!("{:?}", Entry::Kept(Kept { answer, since: 1, restored: true }));
    assert!(!text.contains("TTP_"), "{text}");
    let dir = dir();
    let body = br#"{"access_token":"TTP_secret"}"#;
    let head = format!(
        "{{\"format\":1,\"length\":{},\"sha256\":\"{}\",\"entry\":",
        body.len(),
        crate::hex::text(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body).as_ref())
    );
    let bytes = [head.as_bytes(), body, b"}"].concat();
    assert_eq!(document::decode(&bytes).unwrap_err(), Damage::Other("its fields are not those of format 1"));
    put(dir.path(), &entry_name(&stem("shop")), &bytes);
    let (journal, _) = open(dir.path());
    assert!(!format!("{journal:?}").contains("TTP_"));
}

// The disk.

#[tokio::test]
async fn the_answer_goes_into_the_space_that_its_intent_reserved() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    journal.intent(intent("shop", "c1")).await.unwrap();
    let reserve = fs::metadata(dir.path().join(part_name(&stem("shop")))).unwrap();
    assert!(reserve.len() >= 8192 && reserve.blocks() * 512 >= 8192, "no blocks are reserved");
    journal.answer(answer("shop", "c1")).await.unwrap();
    let entry = fs::metadata(dir.path().join(entry_name(&stem("shop")))).unwrap();
    assert_eq!(entry.ino(), reserve.ino(), "the answer took new space");
    assert!(entry.blocks() < reserve.blocks(), "what the answer did not need of its reserve is not given back");
    assert!(!names(dir.path()).contains(&part_name(&stem("shop"))));
}

#[tokio::test]
async fn an_answer_larger_than_its_reserve_grows() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    journal.intent(intent("shop", "c1")).await.unwrap();
    let large = || Answer { access_token: token(&"x".repeat(100_000)), ..answer("shop", "c1") };
    journal.answer(large()).await.unwrap();
    drop(journal);
    assert_eq!(left_in(dir.path()), [Entry::Answer(large())]);
}

#[test]
fn a_directory_that_cannot_be_used_gives_one_line_that_says_what_to_do() {
    let dir = dir();
    let missing = Journal::open(&dir.path().join("none"), "p", NOW).unwrap_err();
    put(dir.path(), "file", b"");
    let file = Journal::open(&dir.path().join("file"), "p", NOW).unwrap_err();
    for error in [missing, file] {
        let text = error.to_string();
        assert_eq!(error.category(), "missing");
        assert!(text.starts_with("failed to ") && text.contains("--journal-dir") && !text.contains('\n'), "{text}");
    }
}

#[tokio::test]
async fn a_directory_that_vanishes_is_named_and_nothing_hangs() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(journal.intent(intent("shop", "c1")).await.unwrap_err().category(), "missing");
    assert_eq!(journal.answer(answer("shop", "c1")).await.unwrap_err().category(), "missing");
    journal.forget(key("shop")).await.unwrap();
}

/// A small file system of its own; `None` where this user may not mount one.
struct Volume(TempDir);

impl Volume {
    fn of(size: &str) -> Option<Self> {
        let dir = dir();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(dir.path()).stderr(Stdio::null());
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        if !is_mounted {
            println!("skipped: this user may not mount a file system");
        }
        is_mounted.then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.path()).status().unwrap();
        assert!(done.success());
    }

    /// Takes all space that is left.
    fn fill(&self) {
        use io::Write as _;
        let mut file = fs::File::create(self.path().join("filler")).unwrap();
        while file.write_all(&[b'x'; 4096]).is_ok() {}
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_found_out_by_the_intent_and_never_by_its_answer() {
    let Some(volume) = Volume::of("256k") else { return };
    let (journal, _) = open(volume.path());
    journal.intent(intent("shop-1", "c1")).await.unwrap();
    volume.fill();
    let full = journal.intent(intent("shop-2", "c1")).await.unwrap_err();
    assert_eq!(full.category(), "full");
    assert!(full.to_string().contains("make it larger"), "{full}");
    assert!(!names(volume.path()).iter().any(|name| name.starts_with(&stem("shop-2"))), "it leaves nothing behind");
    volume.fill();
    journal.answer(answer("shop-1", "c1")).await.expect("the reserve holds the answer on a full disk");
    volume.fill();
    drop(journal);
    let (journal, entries) = open_as(volume.path(), "process-2", NOW);
    assert_eq!(entries, [Entry::Answer(answer("shop-1", "c1"))]);
    assert!(journal.keep(key("shop-1"), NOW).await.unwrap(), "keeping takes no space");
    journal.forget(key("shop-1")).await.unwrap();
}

#[tokio::test]
async fn kept_pairs_give_way_where_an_intent_needs_their_space() {
    let Some(volume) = Volume::of("256k") else { return };
    let (journal, _) = open(volume.path());
    for n in 0..200 {
        rotate(&journal, &format!("shop-{n}"), NOW + n).await;
    }
    assert!(journal.kept(key("shop-199")).await.unwrap().is_some());
    assert!(journal.kept(key("shop-0")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_disk_that_turns_read_only_is_said_so() {
    let Some(volume) = Volume::of("256k") else { return };
    let (journal, _) = open(volume.path());
    drop(journal);
    // A file open for writing would keep it writable.
    volume.remount("ro");
    let error = Journal::open(volume.path(), "process-1", NOW).unwrap_err();
    assert_eq!(error.category(), "not-writable");
    assert!(error.to_string().contains("give the operator's user write access"), "{error}");
}

// Killed in the middle.

/// Runs `calls` killed after each number of file operations in turn, until it comes to its end.
fn killed_everywhere<T>(
    prepare: impl Fn(&mut Store),
    calls: impl Fn(&mut Store) -> T,
    check: impl Fn(&Path, T),
) -> u32 {
    for steps in 0.. {
        let dir = dir();
        let mut opened = store(dir.path());
        prepare(&mut opened.store);
        opened.store.disk.fuse.kill_after(steps);
        let result = calls(&mut opened.store);
        let is_killed = opened.store.disk.fuse.is_blown();
        drop(opened);
        check(dir.path(), result);
        if !is_killed {
            return steps;
        }
    }
    unreachable!()
}

#[test]
fn killed_anywhere_in_an_intent_either_it_stands_or_nothing_does() {
    let steps = killed_everywhere(
        |_| {},
        |store| store.intent(&intent("shop", "c1")).is_ok(),
        |dir, done| {
            let entries = left_in(dir);
            assert!(!done || entries == [Entry::Intent(intent("shop", "c1"))], "it was said to stand: {entries:?}");
            assert!(entries.is_empty() || entries == [Entry::Intent(intent("shop", "c1"))]);
            assert!(damaged(dir).is_empty(), "an interrupted intent is no damage");
            assert!(!names(dir).contains(&part_name(&stem("shop"))) && !names(dir).contains(&new_name(&stem("shop"))));
        },
    );
    assert!(steps > 30, "the kills fell inside the writes, not only between them: {steps}");
}

#[test]
fn killed_anywhere_in_a_second_intent_the_first_or_the_second_stands() {
    killed_everywhere(
        |store| store.intent(&intent("shop", "c1")).unwrap(),
        |store| store.intent(&intent("shop", "c2")).is_ok(),
        |dir, done| {
            let entries = left_in(dir);
            let second = [Entry::Intent(intent("shop", "c2"))];
            assert!(entries == second || !done && entries == [Entry::Intent(intent("shop", "c1"))], "{entries:?}");
        },
    );
}

#[test]
fn killed_anywhere_in_an_answer_its_intent_or_the_whole_answer_stands() {
    let steps = killed_everywhere(
        |store| store.intent(&intent("shop", "c1")).unwrap(),
        |store| store.answer(&answer("shop", "c1")).is_ok(),
        |dir, done| {
            let entries = left_in(dir);
            let whole = [Entry::Answer(answer("shop", "c1"))];
            assert!(entries == whole || !done && entries == [Entry::Intent(intent("shop", "c1"))], "{entries:?}");
        },
    );
    assert!(steps > 7, "the kills fell inside the write, not only around it: {steps}");
}

#[test]
fn killed_anywhere_after_the_answer_it_stands_until_it_is_kept_or_forgotten() {
    let prepare = |store: &mut Store| {
        store.intent(&intent("shop", "c1")).unwrap();
        store.answer(&answer("shop", "c1")).unwrap();
    };
    killed_everywhere(
        prepare,
        |store| store.keep(&key("shop"), NOW).is_ok(),
        |dir, done| {
            let entries = left_in(dir);
            let is_kept = entries == [Entry::Kept(kept("shop", NOW))];
            assert!(is_kept || !done && entries == [Entry::Answer(answer("shop", "c1"))], "{entries:?}");
        },
    );
    killed_everywhere(
        prepare,
        |store| store.forget(&key("shop")).is_ok(),
        |dir, done| {
            let entries = left_in(dir);
            assert!(entries.is_empty() || !done && entries == [Entry::Answer(answer("shop", "c1"))], "{entries:?}");
        },
    );
}

#[test]
fn killed_anywhere_while_a_pair_takes_the_place_of_a_kept_one_the_new_pair_stands() {
    killed_everywhere(
        |store| {
            store.answer(&answer("shop", "c0")).unwrap();
            store.keep(&key("shop"), NOW + 50).unwrap();
            store.answer(&answer("shop", "c1")).unwrap();
        },
        // Since an earlier second than the old pair: the clock was set back.
        |store| store.keep(&key("shop"), NOW).is_ok(),
        |dir, _| {
            let entries = left_in(dir);
            let newest = entries.iter().any(|entry| match entry {
                Entry::Answer(found) | Entry::Kept(Kept { answer: found, .. }) => *found == answer("shop", "c1"),
                Entry::Intent(_) => false,
            });
            assert!(newest, "{entries:?}");
            assert!(
                entries.len() == 1 || matches!(entries[0], Entry::Answer(_)),
                "a pair out of date is the only one kept: {entries:?}"
            );
        },
    );
}

#[test]
fn killed_anywhere_in_the_recovery_no_answer_is_lost_and_none_that_is_kept() {
    let older = Answer { answered_at: NOW - 50, ..answer("shop-2", "c0") };
    let newer = || Answer { answered_at: NOW + 50, ..answer("shop-2", "c1") };
    for steps in 0..100 {
        let dir = dir();
        put(dir.path(), &entry_name(&stem("shop-1")), &intent_bytes(&intent("shop-1", "c1")));
        put(dir.path(), &part_name(&stem("shop-1")), &answer_bytes(&answer("shop-1", "c1")));
        put(dir.path(), &entry_name(&stem("shop-2")), &answer_bytes(&older));
        put(dir.path(), &part_name(&stem("shop-2")), &answer_bytes(&newer()));
        put(dir.path(), &entry_name(&stem("shop-3")), &intent_bytes(&intent("shop-3", "c1")));
        put(dir.path(), &part_name(&stem("shop-3")), &[b' '; 8192]);
        put(dir.path(), &new_name(&stem("shop-3")), b"{");
        put(dir.path(), &format!("{}.kept-{}", stem("shop-4"), NOW - 9), &answer_bytes(&answer("shop-4", "c0")));
        put(dir.path(), &format!("{}.kept-{NOW}", stem("shop-4")), &answer_bytes(&answer("shop-4", "c1")));
        KILLED_AT_START.set(Some(steps));
        let is_killed = Store::open(dir.path(), "process-1", NOW).is_err();
        assert_eq!(
            left_in(dir.path()),
            [
                Entry::Answer(answer("shop-1", "c1")),
                Entry::Answer(newer()),
                Entry::Intent(intent("shop-3", "c1")),
                Entry::Kept(kept("shop-4", NOW)),
            ],
            "killed after {steps} operations"
        );
        assert_eq!(fs::read(&damaged(dir.path())[0]).unwrap(), answer_bytes(&older));
        if !is_killed {
            assert!(steps > 10);
            return;
        }
    }
    panic!("the start never came to its end");
}

#[test]
fn after_one_failing_operation_anywhere_what_was_said_is_true() {
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        for steps in 0..200 {
            let dir = dir();
            let mut opened = store(dir.path());
            let store = &mut opened.store;
            // A pair that may be given up for space.
            store.answer(&answer("other", "c0")).unwrap();
            store.keep(&key("other"), NOW).unwrap();
            store.disk.fuse.fail_after(steps, kind);
            let intended = store.intent(&intent("shop", "c1"));
            let answered = intended.is_ok().then(|| store.answer(&answer("shop", "c1")).is_ok());
            let has_failed = store.disk.fuse.is_blown();
            let again = has_failed.then(|| store.intent(&intent("shop", "c2")).is_ok());
            drop(opened);
            let mut entries = left_in(dir.path());
            entries.retain(|entry| entry.key().name == "shop");
            match (answered, again) {
                (Some(true), _) => assert_eq!(entries, [Entry::Answer(answer("shop", "c1"))], "after step {steps}"),
                (Some(false), again) => {
                    assert_eq!(again, Some(false), "an answer that came blocks the next intent until it is stored");
                    let is_there = entries == [Entry::Answer(answer("shop", "c1"))];
                    assert!(is_there || entries == [Entry::Intent(intent("shop", "c1"))], "after step {steps}");
                }
                (None, Some(true)) => assert_eq!(entries, [Entry::Intent(intent("shop", "c2"))], "after step {steps}"),
                (None, _) => panic!("a failed intent blocks the next one, after step {steps}: {entries:?}"),
            }
            if !has_failed {
                break;
            }
        }
    }
}

#[test]
fn an_intent_that_could_not_be_recorded_is_not_found_later_and_the_earlier_one_is() {
    for steps in 0..200 {
        let dir = dir();
        let mut opened = store(dir.path());
        opened.store.intent(&intent("shop", "c1")).unwrap();
        opened.store.disk.fuse.fail_after(steps, io::ErrorKind::Other);
        let recorded = opened.store.intent(&intent("shop", "c2"));
        drop(opened);
        let entries = left_in(dir.path());
        if recorded.is_ok() {
            assert_eq!(entries, [Entry::Intent(intent("shop", "c2"))]);
            return;
        }
        assert!(!entries.contains(&Entry::Intent(intent("shop", "c2"))), "it was not sent: {entries:?}");
    }
}

#[test]
fn a_failed_answer_can_be_recorded_again_and_then_kept() {
    for steps in 0..200 {
        let dir = dir();
        let mut opened = store(dir.path());
        let store = &mut opened.store;
        store.intent(&intent("shop", "c1")).unwrap();
        store.disk.fuse.fail_after(steps, io::ErrorKind::Other);
        let is_done = store.answer(&answer("shop", "c1")).is_ok();
        store.disk.fuse.mend();
        store.answer(&answer("shop", "c1")).expect("the disk works again");
        assert!(store.keep(&key("shop"), NOW).unwrap());
        drop(opened);
        assert_eq!(left_in(dir.path()), [Entry::Kept(kept("shop", NOW))]);
        assert_eq!(names(dir.path()).len(), 3);
        if is_done {
            return;
        }
    }
}

#[test]
fn a_pair_that_cannot_be_kept_does_not_block_the_next_refresh() {
    for steps in 0..10 {
        let dir = dir();
        let mut opened = store(dir.path());
        let store = &mut opened.store;
        store.answer(&answer("shop", "c1")).unwrap();
        store.disk.fuse.kill_after(steps);
        let _ = store.keep(&key("shop"), NOW);
        store.disk.fuse.mend();
        store.intent(&intent("shop", "c2")).expect("the next refresh is not blocked");
    }
}

// States made by hand: what is left where a part is beside an entry.

#[test]
fn a_whole_answer_in_an_interrupted_file_is_taken_up() {
    let whole = || answer("shop", "c1");
    let (json, part) = (entry_name(&stem("shop")), part_name(&stem("shop")));
    let older_answer = Answer { answered_at: NOW - 50, ..answer("shop", "c0") };
    let besides: [(&str, Option<Vec<u8>>, usize); 7] = [
        ("nothing", None, 0),
        ("its intent", Some(intent_bytes(&intent("shop", "c1"))), 0),
        ("an older intent", Some(intent_bytes(&Intent { at: NOW - 5, ..intent("shop", "c0") })), 0),
        ("the same answer", Some(answer_bytes(&whole())), 0),
        ("an older answer of another claim", Some(answer_bytes(&older_answer)), 1),
        ("a damaged entry", Some(b"{".to_vec()), 1),
        ("an empty entry", Some(Vec::new()), 1),
    ];
    for (beside, bytes, set_aside) in besides {
        let dir = dir();
        if let Some(bytes) = bytes {
            put(dir.path(), &json, &bytes);
        }
        put(dir.path(), &part, &answer_bytes(&whole()));
        assert_eq!(left_in(dir.path()), [Entry::Answer(whole())], "beside {beside}");
        assert_eq!(left_in(dir.path()), [Entry::Answer(whole())], "beside {beside}, once more");
        assert!(!names(dir.path()).contains(&part), "beside {beside}");
        assert_eq!(damaged(dir.path()).len(), set_aside, "beside {beside}");
    }
}

#[test]
fn a_whole_answer_that_is_out_of_date_is_set_aside_and_not_thrown_away() {
    let newer_intent = Intent { at: NOW + 100, ..intent("shop", "c2") };
    let newer_answer = || Answer { answered_at: NOW + 100, ..answer("shop", "c2") };
    for (bytes, expected) in [
        (intent_bytes(&newer_intent), Entry::Intent(newer_intent)),
        (answer_bytes(&newer_answer()), Entry::Answer(newer_answer())),
    ] {
        let dir = dir();
        put(dir.path(), &entry_name(&stem("shop")), &bytes);
        put(dir.path(), &part_name(&stem("shop")), &answer_bytes(&answer("shop", "c1")));
        assert_eq!(left_in(dir.path()), [expected]);
        let aside = damaged(dir.path());
        assert_eq!(fs::read(&aside[0]).unwrap(), answer_bytes(&answer("shop", "c1")));
    }
}

#[test]
fn an_answer_torn_at_any_byte_gives_its_intent_or_the_whole_answer() {
    let whole = answer_bytes(&answer("shop", "c1"));
    let reserve = document::reserve(intent_bytes(&intent("shop", "c1")).len());
    for torn in 0..=whole.len() {
        // Written in place over the reserve, or without one.
        let over_reserve = [&whole[..torn], &vec![b' '; reserve - torn]].concat();
        for part in [&over_reserve[..], &whole[..torn]] {
            match document::decode(part) {
                Ok(document) => {
                    assert!(torn >= document_end(&whole), "{torn} bytes are not the whole");
                    assert_eq!(document, Document::Answer(answer("shop", "c1")));
                }
                Err(Damage::Blank) => assert_eq!(torn, 0),
                Err(Damage::Other(_)) => assert!(torn < document_end(&whole), "{torn}"),
            }
        }
    }
    // And through the whole of a start, at some of them.
    for torn in (1..document_end(&whole)).step_by(97) {
        let dir = dir();
        put(dir.path(), &entry_name(&stem("shop")), &intent_bytes(&intent("shop", "c1")));
        let part = [&whole[..torn], &vec![b' '; reserve - torn]].concat();
        put(dir.path(), &part_name(&stem("shop")), &part);
        assert_eq!(left_in(dir.path()), [Entry::Intent(intent("shop", "c1"))]);
        let aside = damaged(dir.path());
        assert_eq!(aside.len(), 1, "half an answer is for a person to judge");
        assert_eq!(fs::read(&aside[0]).unwrap(), part, "and is not changed");
    }
}

fn document_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'}').unwrap() + 1
}

#[test]
fn a_blank_reserve_is_removed_whatever_a_crash_made_of_it() {
    for blank in [&b""[..], b"  ", &[0; 8192], b" \0 \0\n"] {
        let dir = dir();
        put(dir.path(), &part_name(&stem("shop")), blank);
        put(dir.path(), &new_name(&stem("shop")), b"{\"format\":1,");
        assert_eq!(left_in(dir.path()), []);
        assert_eq!(names(dir.path()), ["lock", "processes"]);
    }
}

#[test]
fn of_two_kept_files_the_newer_is_used() {
    let dir = dir();
    let name = |rest: &str| format!("{}.kept-{rest}", stem("shop"));
    put(dir.path(), &name(&format!("{}", NOW - 9)), &answer_bytes(&answer("shop", "c0")));
    put(dir.path(), &name(&format!("{NOW}")), &answer_bytes(&answer("shop", "c1")));
    assert_eq!(left_in(dir.path()), [Entry::Kept(kept("shop", NOW))]);
    assert_eq!(names(dir.path()).len(), 3);
}

// Damage.

#[test]
fn what_is_damaged_or_foreign_is_set_aside_and_the_rest_is_read() {
    let dir = dir();
    let json = |name: &str| entry_name(&stem(name));
    put(dir.path(), &json("good"), &answer_bytes(&answer("good", "c1")));
    put(dir.path(), &json("empty"), b"");
    put(dir.path(), &json("text"), b"hello");
    put(dir.path(), &json("blank"), &[b' '; 8192]);
    put(dir.path(), &json("moved"), &answer_bytes(&answer("another", "c1")));
    let newer = String::from_utf8(answer_bytes(&answer("newer", "c1"))).unwrap();
    put(dir.path(), &json("newer"), newer.replacen("\"format\":1", "\"format\":2", 1).as_bytes());
    fs::create_dir(dir.path().join(json("directory"))).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join(json("link"))).unwrap();
    put(dir.path(), &format!("{}.kept-{NOW}", stem("kept")), &intent_bytes(&intent("kept", "c1")));
    for foreign in ["lost+found", "README.md", "ABC.json", &format!("{}.kept-007", stem("x"))] {
        put(dir.path(), foreign, b"not ours");
    }
    assert_eq!(left_in(dir.path()), [Entry::Answer(answer("good", "c1"))]);
    assert_eq!(damaged(dir.path()).len(), 8, "{:?}", names(dir.path()));
    assert!(names(dir.path()).contains(&"lost+found".to_owned()), "what is not ours is left alone");
    assert_eq!(left_in(dir.path()).len(), 1);
    assert_eq!(damaged(dir.path()).len(), 8, "what is set aside is not looked at again");
}

#[test]
fn damaged_files_of_one_name_do_not_replace_each_other() {
    let dir = dir();
    for content in ["first", "second", "third"] {
        put(dir.path(), &entry_name(&stem("shop")), content.as_bytes());
        left_in(dir.path());
    }
    let mut contents: Vec<_> = damaged(dir.path()).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    contents.sort();
    assert_eq!(contents, ["first", "second", "third"]);
}

#[test]
fn a_flipped_bit_anywhere_never_gives_a_wrong_value() {
    // With a little of its reserve behind it.
    let whole = [answer_bytes(&answer("shop", "c1")), vec![b' '; 8]].concat();
    let end = document_end(&whole);
    for offset in 0..end + 3 {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[offset] ^= 1 << bit;
            match document::decode(&bytes) {
                Ok(document) => {
                    assert!(offset >= end, "a flipped bit at {offset} was not seen");
                    assert_eq!(document, Document::Answer(answer("shop", "c1")));
                }
                Err(damage) => assert!(offset < end, "damage behind the document costs a token: {damage:?}"),
            }
        }
    }
}

#[test]
fn an_entry_from_before_there_were_exchanges_is_of_a_refresh() {
    let written = answer("shop", "c1");
    let mut entry: serde_json::Value = serde_json::from_slice(&answer_bytes(&written)).unwrap();
    let body = entry["entry"].as_object_mut().unwrap();
    assert!(body.remove("auth_code_key").is_some() && body.remove("exchange").is_some());
    let body = entry["entry"].to_string();
    let sum = crate::hex::text(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes()).as_ref());
    let text = format!("{{\"format\":1,\"length\":{},\"sha256\":\"{sum}\",\"entry\":{body}}}", body.len());
    let Ok(Document::Answer(read)) = document::decode(text.as_bytes()) else { panic!("it is no answer") };
    assert!(!read.intent.exchange);
    assert_eq!(read.intent, Intent { auth_code_key: "auth_code".into(), ..written.intent });
}

#[tokio::test]
async fn a_kept_pair_damaged_meanwhile_is_not_given_out() {
    let dir = dir();
    let (journal, _) = open(dir.path());
    rotate(&journal, "shop", NOW).await;
    let path = dir.path().join(format!("{}.kept-{NOW}", stem("shop")));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(journal.kept(key("shop")).await.unwrap(), None);
    assert_eq!(damaged(dir.path()).len(), 1);
    assert_eq!(journal.kept(key("shop")).await.unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_answer_is_read_as_it_was_written(
        texts in proptest::collection::vec("\\PC{0,40}", 8),
        access in "[!-~]{1,300}", refresh in proptest::option::of("\\PC*x\\PC*"),
        numbers in any::<(i64, Option<i64>, Option<i64>, u32, i64)>(),
    ) {
        let answer = Answer {
            intent: Intent {
                key: Key { namespace: texts[0].clone(), name: texts[1].clone() },
                integration_uid: texts[2].clone(),
                request: Some(texts[3].clone()),
                token_keys: [4, 5, 6, 7].map(|n: usize| texts[n].clone()),
                auth_code_key: texts[3].clone(),
                exchange: numbers.3.is_multiple_of(2),
                presented: numbers.3,
                at: numbers.0,
                ..intent("shop", "c1")
            },
            access_token: token(&access),
            access_expires_at: numbers.1,
            refresh_token: refresh.as_deref().map(token),
            refresh_expires_at: numbers.2,
            answered_at: numbers.4,
            seller: Seller { name: Some(texts[3].clone()), ..Seller::default() },
        };
        let bytes = answer_bytes(&answer);
        prop_assert!(bytes.ends_with(b"\n"));
        let parsed: serde_json::Value = serde_json::from_slice(&bytes).expect("it is one JSON document");
        prop_assert_eq!(&parsed["format"], 1);
        prop_assert_eq!(document::decode(&bytes), Ok(Document::Answer(answer)));
    }

    #[test]
    fn any_damage_is_seen_or_does_no_harm(
        changes in proptest::collection::vec((0..1_400_usize, any::<u8>()), 1..6), cut in 0..1_500_usize,
    ) {
        let mut bytes = answer_bytes(&answer("shop", "c1"));
        assert!(bytes.len() < 1_500, "it would be cut");
        bytes.resize(1_500, b' ');
        for (offset, byte) in changes {
            bytes[offset] = byte;
        }
        bytes.truncate(cut);
        if let Ok(document) = document::decode(&bytes) {
            prop_assert_eq!(document, Document::Answer(answer("shop", "c1")));
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, length: usize) {
        let _ = document::decode(&bytes);
        let framed = [format!("{{\"format\":1,\"length\":{length},\"sha256\":\"").as_bytes(), &bytes].concat();
        prop_assert!(document::decode(&framed).is_err());
    }
}
