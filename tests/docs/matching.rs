//! Does a command print what the documentation shows?
//!
//! Lines are compared word by word; how many spaces part them does not count. `…` as a line stands for
//! any lines, at the end of a line for any words. A time matches any time of its form, an age any age.
//! A number above 24 may be one more or less: hours go by.

/// Says what differs.
pub fn compare(expected: &str, actual: &str) -> Result<(), String> {
    let expected: Vec<&str> = expected.lines().map(str::trim_end).collect();
    let actual: Vec<&str> = actual.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let shown: Vec<&str> = expected.into_iter().filter(|line| !line.is_empty()).collect();
    if lines_match(&shown, &actual) {
        return Ok(());
    }
    Err(format!("it should print\n{}\nand prints\n{}", shown.join("\n"), actual.join("\n")))
}

fn lines_match(expected: &[&str], actual: &[&str]) -> bool {
    match expected {
        [] => actual.is_empty(),
        ["…", rest @ ..] => (0..=actual.len()).any(|skipped| lines_match(rest, &actual[skipped..])),
        [line, rest @ ..] => {
            actual.first().is_some_and(|found| line_matches(line, found)) && lines_match(rest, &actual[1..])
        }
    }
}

fn line_matches(expected: &str, actual: &str) -> bool {
    let mut expected: Vec<&str> = expected.split_whitespace().collect();
    let mut actual: Vec<&str> = actual.split_whitespace().collect();
    if expected.last() == Some(&"…") {
        expected.pop();
        actual.truncate(expected.len());
    }
    expected.len() == actual.len() && expected.iter().zip(&actual).all(|(one, other)| word_matches(one, other))
}

fn word_matches(expected: &str, actual: &str) -> bool {
    if expected == actual {
        return true;
    }
    let (one, other) = (shape(expected), shape(actual));
    if matches!(one.as_str(), "0000-00-00T00:00:00Z" | "0000-00-00" | "00:00:00") {
        return one == other;
    }
    if is_age(expected) {
        return is_age(actual);
    }
    match (expected.parse::<f64>(), actual.parse::<f64>()) {
        (Ok(one), Ok(other)) => one > 24.0 && (one - other).abs() <= 1.0,
        _ => false,
    }
}

/// Digits as zeros.
fn shape(word: &str) -> String {
    word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
}

/// As kubectl writes one: 5s, 2m10s, 3d.
fn is_age(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
        && word.ends_with(['s', 'm', 'h', 'd'])
        && word.chars().all(|c| c.is_ascii_digit() || matches!(c, 's' | 'm' | 'h' | 'd'))
}

#[test]
fn times_ages_and_hours_may_differ_and_nothing_else() {
    let shown = "NAME  READY  HOURS  EXPIRES  AGE\nshop-1  True  168  2026-12-01T01:45:47Z  2s\n";
    let row = |rest: &str| format!("NAME READY HOURS EXPIRES AGE\nshop-1 {rest}\n");
    assert_eq!(compare(shown, &row("True 167 2027-01-01T00:00:00Z 1m5s")), Ok(()));
    for other in [
        "False 168 2026-12-01T01:45:47Z 2s",
        "True 166 2026-12-01T01:45:47Z 2s",
        "True 168 never 2s",
        "True 168 2026-12-01T01:45:47Z never",
        "True 168 2026-12-01T01:45:47Z",
    ] {
        assert!(compare(shown, &row(other)).is_err(), "{other}");
    }
    assert!(compare("Failed: 1\n", "Failed: 2\n").is_err());
}

#[test]
fn an_ellipsis_stands_for_what_is_left_out() {
    assert_eq!(compare("a …\n…\nlast\n", "a b c\nd\ne\nlast\n"), Ok(()));
    assert_eq!(compare("a …\n…\nlast\n", "a\nlast\n"), Ok(()));
    assert!(compare("a …\n…\nlast\n", "b\nlast\n").is_err());
    assert!(compare("a\n…\n", "a b\n").is_err());
}
