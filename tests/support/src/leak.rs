//! Looks for secret values in whatever the operator lets out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// Shorter values would be found by accident.
const SHORTEST: usize = 8;
/// How many finds a message tells of.
const TOLD: usize = 20;

/// Secret values, each in the forms in which it might get out: as it is,
/// base64 (both alphabets, wherever it stands in a longer text), URL-encoded,
/// escaped as in JSON and in Rust's `Debug`, hexadecimal, and as a list of
/// decimal bytes.
#[derive(Debug, Default, Clone)]
pub struct LeakScan {
    secrets: Vec<Secret>,
}

#[derive(Clone)]
struct Secret {
    label: String,
    forms: Vec<(&'static str, String)>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} forms)", self.label, self.forms.len())
    }
}

/// One place where a secret was found; it does not hold the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// What the value was registered as.
    pub label: String,
    /// In which form it was found.
    pub form: &'static str,
    /// In which text.
    pub text: String,
    /// The line there, from 1.
    pub line: usize,
    /// That line around the place, the value itself left out.
    pub context: String,
}

impl LeakScan {
    /// One without values.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a value of at least 8 bytes; `label` stands for it in messages.
    #[must_use]
    pub fn secret(mut self, label: &str, value: &str) -> Self {
        self.add(label, value);
        self
    }

    /// [`LeakScan::secret`], in place.
    pub fn add(&mut self, label: &str, value: &str) {
        let length = value.len();
        assert!(
            length >= SHORTEST,
            "{label} has {length} bytes: make it at least {SHORTEST}, or it is found by accident"
        );
        let label = label.to_owned();
        self.secrets.push(Secret { label, forms: forms_of(value) });
    }

    /// Every place where a value stands in one of the texts, given as (name, text).
    #[must_use]
    pub fn find<'a>(&self, texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Leak> {
        let index = Index::of(&self.secrets);
        let mut leaks = Vec::new();
        for (name, text) in texts {
            // One form is enough for one secret in one text: the first, by place.
            for (secret, (at, form, length)) in index.first_places(text) {
                let secret = &self.secrets[secret];
                leaks.push(Leak {
                    label: secret.label.clone(),
                    form,
                    text: name.to_owned(),
                    line: text[..at].matches('\n').count() + 1,
                    context: self.context(text, at, length, &secret.label),
                });
            }
        }
        leaks
    }

    /// Panics with every place where a value stands in one of the texts.
    pub fn assert_clean<'a>(&self, texts: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let leaks = self.find(texts);
        if leaks.is_empty() {
            return;
        }
        let mut message = format!("{} secret values got out:", leaks.len());
        for leak in leaks.iter().take(TOLD) {
            let Leak { label, form, text, line, context } = leak;
            // Writing to a String does not fail.
            let _ = write!(message, "\n  {label}, {form}, in {text}, line {line}: {context}");
        }
        panic!("{message}");
    }

    /// What stands around a find on its line, without the find and without any
    /// other value.
    fn context(&self, text: &str, at: usize, length: usize, label: &str) -> String {
        const AROUND: usize = 60;
        let line_start = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let before: Vec<char> = text[line_start..at].chars().collect();
        let before: String = before[before.len().saturating_sub(AROUND)..].iter().collect();
        let rest = text[at + length..].lines().next().unwrap_or_default();
        let after: String = rest.chars().take(AROUND).collect();
        let mut context = format!("{before}<{label}>{after}");
        for secret in &self.secrets {
            for (_, form) in &secret.forms {
                context = context.replace(form.as_str(), "<…>");
            }
        }
        context
    }
}

/// All forms of all values by their last 8 bytes, so that thousands of values are looked for in one
/// pass. The last, because tokens of one shop begin alike.
struct Index<'a> {
    by_end: HashMap<u64, Vec<(usize, &'static str, &'a str)>>,
    /// A bit for each hash of an end: most places are passed by with one look.
    ends: Vec<u64>,
}

/// A form's place, its name and its length.
type Place = (usize, &'static str, usize);

impl<'a> Index<'a> {
    const BITS: u32 = 20;

    fn of(secrets: &'a [Secret]) -> Self {
        let mut index = Self { by_end: HashMap::new(), ends: vec![0; 1 << (Self::BITS - 6)] };
        for (at, secret) in secrets.iter().enumerate() {
            for (name, form) in &secret.forms {
                let end = form.bytes().fold(0, |end, byte| (end << 8) | u64::from(byte));
                index.by_end.entry(end).or_default().push((at, name, form));
                let (word, bit) = Self::bit(end);
                index.ends[word] |= bit;
            }
        }
        index
    }

    fn bit(end: u64) -> (usize, u64) {
        // Fibonacci hashing: the upper bits of the product are well mixed.
        let hash = end.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - Self::BITS);
        (usize::try_from(hash >> 6).expect("20 bits fit"), 1 << (hash & 63))
    }

    /// The first place of each secret that stands in a text.
    fn first_places(&self, text: &str) -> BTreeMap<usize, Place> {
        let mut found: BTreeMap<usize, Place> = BTreeMap::new();
        let mut end = 0;
        for (last, byte) in text.bytes().enumerate() {
            end = (end << 8) | u64::from(byte);
            let (word, bit) = Self::bit(end);
            if self.ends[word] & bit == 0 {
                continue;
            }
            for (secret, name, form) in self.by_end.get(&end).into_iter().flatten() {
                if text.as_bytes()[..=last].ends_with(form.as_bytes()) {
                    let place = (last + 1 - form.len(), *name, form.len());
                    let first = found.entry(*secret).or_insert(place);
                    if place.0 < first.0 {
                        *first = place;
                    }
                }
            }
        }
        found
    }
}

fn forms_of(value: &str) -> Vec<(&'static str, String)> {
    let bytes = value.as_bytes();
    let mut forms = vec![("as it is", value.to_owned())];
    for skipped in 0..3 {
        forms.push(("base64", embedded_base64(&STANDARD_NO_PAD, bytes, skipped)));
        forms.push(("URL-safe base64", embedded_base64(&URL_SAFE_NO_PAD, bytes, skipped)));
    }
    let url = percent_encoded(bytes);
    forms.push(("URL-encoded", url.to_lowercase()));
    forms.push(("URL-encoded", url.replace("%20", "+")));
    forms.push(("URL-encoded", url));
    let json = serde_json::Value::from(value).to_string();
    forms.push(("escaped as in JSON", json[1..json.len() - 1].to_owned()));
    forms.push(("escaped as by Debug", value.escape_debug().to_string()));
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    forms.push(("hexadecimal", hex.concat()));
    forms.push(("hexadecimal", hex.concat().to_uppercase()));
    let decimal: Vec<String> = bytes.iter().map(u8::to_string).collect();
    forms.push(("a list of bytes", decimal.join(", ")));
    forms.push(("a list of bytes", decimal.join(",")));
    let mut seen = BTreeSet::new();
    forms.retain(|(_, form)| seen.insert(form.clone()));
    forms
}

/// The characters of a base64 text that are the value's alone, where `skipped`
/// bytes (modulo 3) of something else stand before it and something may follow.
fn embedded_base64(engine: &impl Engine, bytes: &[u8], skipped: usize) -> String {
    let mut padded = vec![0; skipped];
    padded.extend_from_slice(bytes);
    let encoded = engine.encode(&padded);
    // Each character holds 6 bits: from the first that holds no foreign bit to
    // the last that does not.
    let from = (skipped * 8).div_ceil(6);
    let to = padded.len() * 8 / 6;
    encoded[from..to].to_owned()
}

fn percent_encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    const VALUE: &str = "s3cr3t /\"ünd\"?>>more&";

    #[test]
    fn a_value_is_found_in_every_form_and_never_told() {
        let scan = LeakScan::new().secret("the token", VALUE);
        let mut texts = vec![
            format!("x {VALUE} y"),
            format!("{VALUE:?}"),
            format!("{:?}", VALUE.as_bytes()),
            serde_json::json!({ "a": VALUE }).to_string(),
            serde_json::json!(VALUE.as_bytes()).to_string(),
            format!("https://x/?t={}&u=1", percent_encoded(VALUE.as_bytes())),
            reqwest::Url::parse_with_params("https://x/", [("t", VALUE)]).unwrap().to_string(),
            VALUE.bytes().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat(),
        ];
        for before in 0..4 {
            for after in 0..4 {
                let longer = format!("{}{VALUE}{}", "x".repeat(before), "y".repeat(after));
                texts.push(format!("data: {}\n", STANDARD.encode(&longer)));
                texts.push(URL_SAFE_NO_PAD.encode(&longer));
                texts.push(URL_SAFE.encode(&longer));
            }
        }
        for text in &texts {
            let text = format!("first line\n{text}");
            let leaks = scan.find([("log", text.as_str())]);
            assert_eq!(leaks.len(), 1, "not found in {text}");
            assert_eq!((leaks[0].line, leaks[0].text.as_str()), (2, "log"));
            assert!(!leaks[0].context.contains("s3cr3t"), "{leaks:?}");
        }
        scan.assert_clean([("log", "s3cr3t ünd nothing more")]);
    }

    #[test]
    #[should_panic(expected = "the token, as it is, in log, line 1: a=<the token> b=<…>")]
    fn the_message_says_where_and_hides_every_value() {
        let scan = LeakScan::new().secret("the token", "aaaabbbbcccc").secret("other", "ddddeeeeffff");
        scan.assert_clean([("log", "a=aaaabbbbcccc b=ddddeeeeffff")]);
    }
}
