//! Children are heard, signalled, and never left behind.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tiktok_shop_testkit::{
    poll,
    process::{Program, Signal},
};

const SOON: Duration = Duration::from_secs(10);

/// Set in the process that plays the parent.
const PLAY_PARENT: &str = "TESTKIT_PLAY_PARENT";

fn shell(script: &str) -> Program {
    Program::new("/bin/sh").args(["-c", script])
}

fn alive(pid: u32) -> bool {
    // A zombie that init has not collected yet is as good as gone.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

#[tokio::test]
async fn lines_of_both_streams_are_heard_and_logged() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("child.log");
    let child = shell("echo \"one $WORD\"; echo two >&2; exit 7")
        .clear_env()
        .env("WORD", "word")
        .log_file(&log)
        .spawn()
        .unwrap();
    let line = child.wait_for_line(|line| line.starts_with("one"), SOON).await.unwrap();
    assert_eq!(line, "one word");
    assert_eq!(child.wait_exit(SOON).await.unwrap().code(), Some(7));
    assert_eq!((child.stdout().as_str(), child.stderr().as_str()), ("one word\n", "two\n"));
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("one word\n") && logged.contains("two\n"), "{logged}");
    let error = child.wait_for_line(|_| false, SOON).await.unwrap_err();
    assert!(error.exited() && error.to_string().contains("| two"), "{error}");
}

#[tokio::test]
async fn a_child_can_be_paused_resumed_and_ended() {
    let child = shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done").spawn().unwrap();
    child.wait_for_line(|line| line == "up", SOON).await.unwrap();
    assert!(child.rss_bytes().unwrap() > 0 && child.peak_rss_bytes().unwrap() > 0);
    assert!(child.cpu_time().is_some());
    assert!(child.signal(Signal::STOP) && child.signal(Signal::TERM));
    child.wait_exit(Duration::from_millis(200)).await.unwrap_err();
    assert!(child.signal(Signal::CONT));
    assert_eq!(child.wait_exit(SOON).await.unwrap().code(), Some(0));
    assert!(child.logs().ends_with("bye\n"));
    assert!(!child.signal(Signal::TERM), "nothing is left to signal");
}

#[tokio::test]
async fn a_dropped_child_is_killed_with_its_own_children() {
    let child = shell("sleep 1000 & echo $!; wait").spawn().unwrap();
    let line = child.wait_for_line(|_| true, SOON).await.unwrap();
    let (pid, grandchild) = (child.pid(), line.parse().unwrap());
    assert!(alive(pid) && alive(grandchild));
    drop(child);
    let gone = poll::until(SOON, async || (!alive(pid) && !alive(grandchild)).then_some(())).await;
    assert!(gone.is_some(), "{pid} or {grandchild} still runs");
}

/// Not a test: the parent of the next one, which starts this binary again.
#[test]
#[ignore = "run by the next test"]
fn play_parent() {
    let Some(dir) = std::env::var_os(PLAY_PARENT) else { return };
    let child = shell("trap '' TERM INT HUP; echo up; while :; do sleep 1; done")
        .log_file(Path::new(&dir).join("child.log"))
        .spawn()
        .unwrap();
    let stopped = shell("while :; do sleep 1; done").spawn().unwrap();
    stopped.signal(Signal::STOP);
    eprintln!("children {} {}", child.pid(), stopped.pid());
    std::thread::park();
}

#[tokio::test]
async fn children_die_with_a_parent_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "play_parent", "--nocapture"])
        .env(PLAY_PARENT, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stderr.take().unwrap()).lines();
    let pids: Vec<u32> = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix("children ")?.to_owned()))
        .expect("the parent says whom it started")
        .split(' ')
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert!(pids.iter().all(|pid| alive(*pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let gone = poll::until(SOON, async || (!pids.iter().any(|pid| alive(*pid))).then_some(())).await;
    assert!(gone.is_some(), "a child of {pids:?} outlived its parent");
}
