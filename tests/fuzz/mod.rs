//! What must hold for every input from outside, whatever it is: one function for each fuzz target.
//!
//! Two callers share them: `cargo fuzz` (`fuzz/fuzz_targets/`), which looks for new inputs, and `tests/fuzz_corpus.rs`,
//! which tries the ones in the tree. Each panics where something does not hold. Inputs are text wherever that is
//! possible, so that a person can read the corpus and add to it.

pub mod annotations;
pub mod decide;
pub mod duration;
pub mod journal_entry;
pub mod tiktok_answer;
pub mod token_secret;

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What holds for every text that is put into a status, an event or a log line: one line, and nothing that does not
/// show.
fn assert_is_a_plain_line(text: &str, limit: usize) {
    assert!(text.len() <= limit, "{} bytes, more than {limit}: {text:?}", text.len());
    assert!(!text.contains(char::is_control), "a control character: {text:?}");
}
