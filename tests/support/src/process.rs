//! Programs run as children: output captured, signals sent, never left behind.
//!
//! A child must not outlive the test process, even one ended by SIGKILL. There
//! is no safe "die with my parent" in std, so every child has a watchdog: a tiny
//! `sh` that holds a pipe from us and kills the child's process group when the
//! pipe ends without a word. The child itself starts behind a gate (it waits for
//! a line before it becomes the program), so there is no moment at which it runs
//! unwatched.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::FileExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Duration,
};

pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::sync::watch;

/// Becomes the program once the parent says go; ends if the parent is gone.
const GATE: &str = r#"read -r _ && exec "$@" </dev/null"#;

/// Kills the process group `$1` unless told (by a line) that it is over.
const WATCHDOG: &str = r#"trap "" INT TERM HUP; read -r _ || kill -s KILL -- "-$1""#;

/// Removes the folder `$1` when the parent is gone. Tried for 2 seconds, because
/// the children that write there are being killed at the same moment.
const SWEEPER: &str = r#"trap "" INT TERM HUP; read -r _ && exit
for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$1" 2>/dev/null && exit; sleep 0.2; done"#;

/// How long a killed child may take to be gone. It is the kernel's work alone.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// After a child ended, how long its output may still be held open by others.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// Every child that this process has, for the hints of failure messages.
static REGISTRY: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// Locks, also where another test's thread panicked while it held the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program to start: arguments, environment, where its output goes.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    name: String,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    clear_env: bool,
    current_dir: Option<PathBuf>,
    log_file: Option<PathBuf>,
}

impl Program {
    /// The executable at `path`; named after its file until [`Program::name`] says otherwise.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        Self { path, name, args: Vec::new(), envs: Vec::new(), clear_env: false, current_dir: None, log_file: None }
    }

    /// What failure messages call it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts from an empty environment instead of an inherited one.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// The folder it runs in.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(dir.into());
        self
    }

    /// A file that gets both output streams too, appended line by line.
    #[must_use]
    pub fn log_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.log_file = Some(path.into());
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The file is not there, or a process or the log file could not be made.
    pub fn spawn(&self) -> io::Result<Child> {
        if self.path.components().count() > 1 && !self.path.exists() {
            let message = format!("{} is not there", self.path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        let log_file = match &self.log_file {
            Some(path) => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                Some(OpenOptions::new().create(true).append(true).open(path)?)
            }
            None => None,
        };

        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", GATE, "gate"])
            .arg(&self.path)
            .args(&self.args)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.clear_env {
            command.env_clear();
        }
        command.envs(self.envs.iter().map(|(k, v)| (k, v)));
        if let Some(dir) = &self.current_dir {
            command.current_dir(dir);
        }
        let mut child = command.spawn()?;
        let raw_pid = child.id();
        let mut gate = child.stdin.take().expect("stdin was asked for");
        // From here to the go, an early return closes the gate and ends the child.
        let watchdog = Guard::spawn(WATCHDOG, &raw_pid.to_string())?;

        let (changed, _) = watch::channel(());
        let inner = Arc::new(Inner {
            name: self.name.clone(),
            pid: Pid::from_child(&child),
            log_path: self.log_file.clone(),
            log_file: log_file.map(Mutex::new),
            state: Mutex::new(State { lines: Vec::new(), open_streams: 2, exit: None }),
            changed,
            ended: Condvar::new(),
            stalled: Mutex::new(false),
            unstalled: Condvar::new(),
        });
        let stdout = child.stdout.take().expect("stdout was asked for");
        let stderr = child.stderr.take().expect("stderr was asked for");
        read_lines(&inner, Stream::Stdout, stdout);
        read_lines(&inner, Stream::Stderr, stderr);
        gate.write_all(b"go\n")?;
        drop(gate);
        reap(&inner, child, watchdog);

        let mut registry = lock(&REGISTRY);
        registry.retain(|weak| weak.strong_count() > 0);
        registry.push(Arc::downgrade(&inner));
        drop(registry);
        Ok(Child { inner })
    }
}

/// Which of a child's two streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line that a child wrote.
#[derive(Debug, Clone)]
pub struct Line {
    /// Where it was written.
    pub stream: Stream,
    /// The line, without its end; what is not UTF-8 is replaced.
    pub text: String,
}

#[derive(Debug)]
struct State {
    lines: Vec<Line>,
    open_streams: u8,
    exit: Option<ExitStatus>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    pid: Pid,
    log_path: Option<PathBuf>,
    log_file: Option<Mutex<File>>,
    /// `exit` is set under this lock in the same breath as the child is reaped,
    /// so whoever holds it and sees none may signal the pid: it is still ours.
    state: Mutex<State>,
    changed: watch::Sender<()>,
    ended: Condvar,
    /// While it is set, nothing more is read of what the child writes.
    stalled: Mutex<bool>,
    unstalled: Condvar,
}

impl Inner {
    fn signal(&self, signal: Signal, whole_group: bool) -> bool {
        let state = lock(&self.state);
        if state.exit.is_some() {
            return false;
        }
        let sent = if whole_group { kill_process_group(self.pid, signal) } else { kill_process(self.pid, signal) };
        sent.is_ok()
    }

    fn tail(&self, count: usize) -> String {
        let state = lock(&self.state);
        let from = state.lines.len().saturating_sub(count);
        let mut text = String::new();
        for line in &state.lines[from..] {
            text.push_str("  | ");
            text.push_str(&line.text);
            text.push('\n');
        }
        if text.is_empty() {
            text.push_str("  (it wrote nothing)\n");
        }
        text
    }

    fn describe(&self) -> String {
        match lock(&self.state).exit {
            None => format!("{} (pid {}) is running", self.name, self.pid.as_raw_nonzero()),
            Some(status) => format!("{} has ended with {status}", self.name),
        }
    }
}

/// A `sh` that acts when our end of its pipe closes without a line.
struct Guard {
    shell: std::process::Child,
    pipe: ChildStdin,
}

impl Guard {
    fn spawn(script: &str, argument: &str) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", script, "guard", argument])
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = shell.stdin.take().expect("stdin was asked for");
        Ok(Self { shell, pipe })
    }

    /// Nothing is left to guard: the shell goes without acting.
    fn stand_down(mut self) {
        // A guard that is already gone has nothing to be told.
        let _ = self.pipe.write_all(b"over\n");
        drop(self.pipe);
        let _ = self.shell.wait();
    }
}

/// Sees to it that a folder is removed when this process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Sweeper {
    _pipe: ChildStdin,
}

impl Sweeper {
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let dir = dir.to_str().expect("a temporary folder's path is UTF-8");
        let mut guard = Guard::spawn(SWEEPER, dir)?;
        // The shell outlives the handle on purpose; a thread collects it if it
        // ends before this process does.
        thread::spawn(move || guard.shell.wait());
        Ok(Self { _pipe: guard.pipe })
    }
}

fn read_lines(inner: &Arc<Inner>, stream: Stream, source: impl Read + Send + 'static) {
    let inner = Arc::clone(inner);
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut buffer = Vec::new();
        loop {
            drop(inner.unstalled.wait_while(lock(&inner.stalled), |stalled| *stalled));
            buffer.clear();
            if !matches!(source.read_until(b'\n', &mut buffer), Ok(1..)) {
                break;
            }
            if let Some(file) = &inner.log_file {
                // A full disk must not stop the child: the lines stay in memory.
                let _ = lock(file).write_all(&buffer);
            }
            let text = String::from_utf8_lossy(&buffer);
            let text = text.trim_end_matches(['\n', '\r']).to_owned();
            lock(&inner.state).lines.push(Line { stream, text });
            inner.changed.send_replace(());
        }
        lock(&inner.state).open_streams -= 1;
        inner.changed.send_replace(());
        inner.ended.notify_all();
    });
}

fn reap(inner: &Arc<Inner>, mut child: std::process::Child, watchdog: Guard) {
    let inner = Arc::clone(inner);
    thread::spawn(move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(error) = waitid(WaitId::Pid(inner.pid), options) {
            assert_eq!(error, rustix::io::Errno::INTR, "failed to wait for a child");
        }
        let mut state = lock(&inner.state);
        state.exit = Some(child.wait().expect("it has ended and only we reap it"));
        drop(state);
        watchdog.stand_down();
        inner.changed.send_replace(());
        inner.ended.notify_all();
    });
}

/// Why a wait for a child came to nothing; its `Display` holds the last lines.
#[derive(Debug)]
pub struct WaitError {
    message: String,
    exited: bool,
}

impl WaitError {
    /// Whether the wait ended early because the child did.
    #[must_use]
    pub fn exited(&self) -> bool {
        self.exited
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for WaitError {}

/// A running (or ended) child. Killed, with its process group, when dropped.
#[derive(Debug)]
pub struct Child {
    inner: Arc<Inner>,
}

impl Child {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// What failure messages call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The file that its output is appended to, if there is one.
    #[must_use]
    pub fn log_path(&self) -> Option<&Path> {
        self.inner.log_path.as_deref()
    }

    /// Reads nothing more of what it writes, but for what is on its way already: once the pipes are
    /// full, its writes block.
    pub fn stall_output(&self) {
        *lock(&self.inner.stalled) = true;
    }

    /// Reads on after [`Child::stall_output`].
    pub fn resume_output(&self) {
        *lock(&self.inner.stalled) = false;
        self.inner.unstalled.notify_all();
    }

    /// Sends a signal, such as `Signal::TERM`, `KILL`, `STOP` or `CONT`.
    /// False if it has already ended.
    #[allow(clippy::must_use_candidate, reason = "most callers wait for the effect instead")]
    pub fn signal(&self, signal: Signal) -> bool {
        self.inner.signal(signal, false)
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        lock(&self.inner.state).exit
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// Waits for a line of either stream that the predicate takes, those already
    /// written included, and returns it.
    ///
    /// # Errors
    /// None came in time, or the child ended without one.
    pub async fn wait_for_line(
        &self,
        predicate: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> Result<String, WaitError> {
        let mut seen = 0;
        let found = self.until(timeout, |state| {
            let fresh = &state.lines[seen..];
            let found = fresh.iter().find(|line| predicate(&line.text));
            seen = state.lines.len();
            match found {
                Some(line) => Some(Ok(line.text.clone())),
                None if state.exit.is_some() && state.open_streams == 0 => Some(Err(())),
                None => None,
            }
        });
        match found.await {
            Some(Ok(line)) => Ok(line),
            Some(Err(())) => Err(self.failed("ended before it wrote the line waited for", true)),
            None => Err(self.failed(&format!("did not write the line waited for in {timeout:?}"), false)),
        }
    }

    /// Waits until it has ended and its output was read to the end.
    ///
    /// # Errors
    /// It still runs after `timeout`.
    pub async fn wait_exit(&self, timeout: Duration) -> Result<ExitStatus, WaitError> {
        let Some(status) = self.until(timeout, |state| state.exit).await else {
            return Err(self.failed(&format!("still runs after {timeout:?}"), false));
        };
        // A grandchild may hold the streams open; what came by now is kept.
        self.until(DRAIN_GRACE, |state| (state.open_streams == 0).then_some(())).await;
        Ok(status)
    }

    /// SIGKILL to it and its process group; returns when it is gone.
    pub fn kill(&self) {
        self.inner.signal(Signal::KILL, true);
        let state = lock(&self.inner.state);
        let waited = self.inner.ended.wait_timeout_while(state, KILL_GRACE, |state| state.exit.is_none());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// All lines so far, in the order in which they were read.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        lock(&self.inner.state).lines.clone()
    }

    /// Both streams so far, as one text.
    #[must_use]
    pub fn logs(&self) -> String {
        self.text(|_| true)
    }

    /// Standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.text(|line| line.stream == Stream::Stdout)
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.text(|line| line.stream == Stream::Stderr)
    }

    /// The last `count` lines, indented, for a failure message.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        self.inner.tail(count)
    }

    /// Resident memory now (`VmRSS`), in bytes; none once it has ended.
    #[must_use]
    pub fn rss_bytes(&self) -> Option<u64> {
        self.status_kib("VmRSS:").map(|kib| kib * 1024)
    }

    /// What of its resident memory is its own (`RssAnon`), neither code nor files, in bytes; none once it has ended.
    #[must_use]
    pub fn anonymous_rss_bytes(&self) -> Option<u64> {
        self.status_kib("RssAnon:").map(|kib| kib * 1024)
    }

    /// The most resident memory it ever had (`VmHWM`), in bytes; none once it has ended.
    #[must_use]
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        self.status_kib("VmHWM:").map(|kib| kib * 1024)
    }

    /// All that it holds in memory of its own, as text as far as it is text.
    ///
    /// # Errors
    /// Where it has ended, or this process may not look.
    pub fn memory_text(&self) -> io::Result<String> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid()))?;
        let memory = File::open(format!("/proc/{}/mem", self.pid()))?;
        let mut text = String::new();
        for map in maps.lines() {
            // proc(5): address perms offset dev inode pathname
            let fields: Vec<&str> = map.split_whitespace().collect();
            let is_of_file = fields.get(5).is_some_and(|path| path.starts_with('/'));
            if is_of_file || !fields.get(1).is_some_and(|permissions| permissions.starts_with("rw")) {
                continue;
            }
            let address = |text: &str| u64::from_str_radix(text, 16).map_err(io::Error::other);
            let (start, end) = fields[0].split_once('-').unwrap_or_default();
            let (start, end) = (address(start)?, address(end)?);
            let mut bytes = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
            memory.read_exact_at(&mut bytes, start)?;
            text.push_str(&String::from_utf8_lossy(&bytes));
            text.push('\n');
        }
        Ok(text)
    }

    /// Processor time it has used, user and system; none once it has ended.
    #[must_use]
    pub fn cpu_time(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // proc(5): the second field, in parentheses, may itself hold spaces;
        // utime and stime are fields 14 and 15, so 12 and 13 after it.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        Some(Duration::from_millis((user + system) * 1000 / ticks_per_second))
    }

    fn status_kib(&self, field: &str) -> Option<u64> {
        if !self.is_running() {
            return None;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }

    fn text(&self, wanted: impl Fn(&Line) -> bool) -> String {
        let state = lock(&self.inner.state);
        let mut text = String::new();
        for line in state.lines.iter().filter(|line| wanted(line)) {
            text.push_str(&line.text);
            text.push('\n');
        }
        text
    }

    fn failed(&self, what: &str, exited: bool) -> WaitError {
        let message =
            format!("{} {what}; {}; its last lines:\n{}", self.inner.name, self.inner.describe(), self.inner.tail(30));
        WaitError { message, exited }
    }

    /// Looks at the state at once and after each change, until `look` has an
    /// answer or the time is up.
    async fn until<T>(&self, timeout: Duration, mut look: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let mut changed = self.inner.changed.subscribe();
        let search = async {
            loop {
                if let Some(answer) = look(&lock(&self.inner.state)) {
                    return answer;
                }
                changed.changed().await.expect("the sender is in self");
            }
        };
        tokio::time::timeout(timeout, search).await.ok()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What this process's children last said, for the message of a failed wait.
pub(crate) fn hint(name_part: &str) -> String {
    let children: Vec<_> = lock(&REGISTRY).iter().filter_map(Weak::upgrade).collect();
    let mut text = String::new();
    for child in children.iter().filter(|child| child.name.contains(name_part)) {
        text.push_str(&child.describe());
        if let Some(path) = &child.log_path {
            text.push_str(", log ");
            text.push_str(&path.display().to_string());
        }
        text.push_str("; its last lines:\n");
        text.push_str(&child.tail(15));
    }
    text
}

/// Runs a program to its end with this standard output, and takes what it says on standard error.
///
/// # Panics
/// Where it can't be started.
#[must_use]
pub fn run_into(command: &mut Command, output: impl Into<Stdio>) -> Output {
    let child = command.stdout(output).stderr(Stdio::piped()).spawn();
    child.and_then(std::process::Child::wait_with_output).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// A standard output that nobody reads any more, as `head` leaves it.
#[must_use]
pub fn closed_output() -> Stdio {
    let (reader, writer) = io::pipe().expect("the system has pipes");
    drop(reader);
    writer.into()
}

/// A standard output on a disk that is full.
#[must_use]
pub fn full_output() -> Stdio {
    File::options().write(true).open("/dev/full").expect("Linux has /dev/full").into()
}
