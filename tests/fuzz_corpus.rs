//! The corpora of the fuzz targets as plain tests: every file in the tree, then mutations of them: a fixed number, or as
//! many as there are in `FUZZ_SECONDS` for each target.
//!
//! The mutations are the same in every run. `make fuzz` looks further.

#[path = "fuzz/mod.rs"]
mod bodies;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The largest corpus of one target: it is read by people and stored in the tree.
const MOST_FILES: usize = 100;
const MOST_BYTES: usize = 200 * 1024;

/// The largest input that mutation makes, in bytes.
const LONGEST: usize = 4_096;

#[test]
fn no_answer_of_tiktok_is_too_odd_to_be_sorted_and_none_shows_a_secret() {
    replay("tiktok_answer", bodies::tiktok_answer::check, 8_000);
}

#[test]
fn no_secret_data_is_too_odd_to_be_read_and_what_is_written_back_reads_alike() {
    replay("token_secret", bodies::token_secret::check, 150_000);
}

#[test]
fn no_annotation_is_too_odd_to_be_read() {
    replay("annotations", bodies::annotations::check, 100_000);
}

#[test]
fn no_journal_file_keeps_the_operator_from_starting_or_shows_a_token() {
    replay("journal_entry", bodies::journal_entry::check, 8_000);
}

#[test]
fn a_duration_means_the_same_in_a_spec_and_as_a_flag() {
    replay("duration", bodies::duration::check, 200_000);
}

#[test]
fn nothing_that_can_be_observed_leaves_a_decision_open_or_sleeps_past_its_time() {
    replay("decide", bodies::decide::check, 1_000_000);
}

/// Tries all files of a target's corpus, and as many mutations of them.
fn replay(target: &str, check: fn(&[u8]), mutations: usize) {
    let files = corpus(target);
    for (path, input) in &files {
        let failed = || format!("{} fails", path.display());
        attempt(check, input, failed);
    }
    let inputs: Vec<&[u8]> = files.iter().map(|(_, input)| input.as_slice()).collect();
    let mut random = Random::new(target);
    let seconds = std::env::var("FUZZ_SECONDS").ok().map(|text| text.parse().expect("FUZZ_SECONDS is whole seconds"));
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let goes_on = |tried: usize| until.map_or(tried < mutations, |until| Instant::now() < until);
    let mut tried = 0;
    while goes_on(tried) {
        tried += 1;
        let input = random.mutation(&inputs);
        let failed = || {
            let hex = bodies::hex(&input);
            format!("an input fails; to keep it: echo {hex} | xxd -r -p > fuzz/corpus/{target}/NAME")
        };
        attempt(check, &input, failed);
    }
}

fn attempt(check: fn(&[u8]), input: &[u8], failed: impl Fn() -> String) {
    if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| check(input))) {
        eprintln!("{}", failed());
        panic::resume_unwind(panic);
    }
}

/// The files of a corpus, in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let names = fs::read_dir(&dir).unwrap_or_else(|error| panic!("no corpus is in {}: {error}", dir.display()));
    let mut files: Vec<(PathBuf, Vec<u8>)> = names
        .map(|entry| {
            let path = entry.expect("the folder can be read").path();
            let input = fs::read(&path).unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
            (path, input)
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    let bytes: usize = files.iter().map(|(_, input)| input.len()).sum();
    assert!(
        files.len() <= MOST_FILES && bytes <= MOST_BYTES,
        "{} has {} files with {bytes} bytes: minimise it with cargo fuzz cmin",
        dir.display(),
        files.len()
    );
    files
}

/// Numbers that are the same in every run (xorshift64*), and mutations by them.
struct Random(u64);

impl Random {
    fn new(target: &str) -> Self {
        // FNV-1a; never 0, from which xorshift would not move.
        let seed = target
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        let wide = u128::from(self.next()) * end as u128;
        usize::try_from(wide >> 64).expect("a share of a usize is one")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }

    /// One of the inputs, changed in one to eight places.
    fn mutation(&mut self, inputs: &[&[u8]]) -> Vec<u8> {
        let mut input = inputs[self.below(inputs.len())].to_vec();
        for _ in 0..=self.below(8) {
            let other = inputs[self.below(inputs.len())];
            self.change(&mut input, other);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len());
        match self.below(8) {
            0 => input.insert(at, self.byte()),
            1 if at < input.len() => input[at] = self.byte(),
            2 if at < input.len() => input[at] ^= 1 << self.below(8),
            3 => drop(input.drain(at..end)),
            // A piece once more, or twice.
            4 => {
                let piece = input[at..end].repeat(1 + self.below(2));
                input.splice(at..at, piece);
            }
            // A number at, just beyond or far beyond a border.
            5 => {
                let border = ["0", "-1", "255", "4294967296", "9223372036854775807", "1e400", "\0", "\u{feff}"];
                input.splice(at..end, border[self.below(border.len())].bytes());
            }
            6 => input.truncate(at),
            // A piece of another input in the place of one of this.
            _ => {
                let from = self.below(other.len() + 1);
                let to = from + self.below(other.len() - from + 1);
                input.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
}
