//! What is said to people, in their language: one place for all texts, `messages/*.ftl`.

use std::borrow::Cow;

use chrono::{DateTime, Local, Utc};
use fluent_bundle::{FluentArgs, FluentBundle, FluentResource};
use tiktok_shop_operator::api::Reason;
use unic_langid::LanguageIdentifier;

/// A language that messages are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// English
    En,
    /// Tiếng Việt
    Vi,
}

impl Language {
    /// The language of the environment: `LC_ALL`, then `LC_MESSAGES`, then `LANG`; English where none of ours is asked.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .iter()
            .find_map(|name| variable(name).filter(|value| !value.is_empty()))
            .unwrap_or_default();
        let language = locale.split(['_', '.', '@', '-']).next().unwrap_or_default();
        if language.eq_ignore_ascii_case("vi") { Self::Vi } else { Self::En }
    }

    const fn source(self) -> &'static str {
        match self {
            Self::En => include_str!("messages/en.ftl"),
            Self::Vi => include_str!("messages/vi.ftl"),
        }
    }

    fn id(self) -> LanguageIdentifier {
        let tag = match self {
            Self::En => "en",
            Self::Vi => "vi",
        };
        tag.parse().expect("the tag of a language that we write in is one")
    }
}

/// The messages of one language.
pub struct Messages {
    language: Language,
    bundle: FluentBundle<FluentResource>,
}

impl Messages {
    /// The messages of this language.
    pub fn of(language: Language) -> Self {
        // What parsed is kept, whatever else is wrong; a test parses both files without an error.
        let resource = FluentResource::try_new(language.source().to_owned()).unwrap_or_else(|(parsed, _)| parsed);
        let mut bundle = FluentBundle::new(vec![language.id()]);
        // The marks around values that they prevent matter to texts of both directions alone.
        bundle.set_use_isolating(false);
        bundle.add_resource_overriding(resource);
        Self { language, bundle }
    }

    /// A message without values.
    pub fn text(&self, key: &str) -> String {
        self.with(key, &[])
    }

    /// A message with its values; the key itself where there is no such message.
    pub fn with(&self, key: &str, values: &[(&str, &str)]) -> String {
        let Some(pattern) = self.bundle.get_message(key).and_then(|message| message.value()) else {
            return key.to_owned();
        };
        let args: FluentArgs<'_> = values.iter().map(|(name, value)| (Cow::from(*name), Cow::from(*value))).collect();
        self.bundle.format_pattern(pattern, Some(&args), &mut Vec::new()).into_owned()
    }

    /// Is there such a message?
    fn has(&self, key: &str) -> bool {
        self.bundle.has_message(key)
    }

    /// A reason in words; the word itself where a newer operator wrote one that is not known here.
    pub fn reason(&self, reason: &str) -> String {
        let key = format!("reason-{reason}");
        if self.has(&key) { self.text(&key) } else { self.with("reason-unknown", &[("reason", reason)]) }
    }

    /// What failed, with the operator's own words where they say more than the reason does.
    pub fn failure(&self, reason: &str, detail: &str) -> String {
        let text = self.reason(reason);
        let says_it_all = matches!(
            reason.parse(),
            Ok(Reason::RefreshTokenExpired
                | Reason::RefreshTokenRejected
                | Reason::AuthorizationCodeRejected
                | Reason::AppCredentialsRejected)
        );
        if says_it_all || detail.is_empty() {
            return text;
        }
        self.with("with-detail", &[("text", &text), ("detail", &one_line(detail))])
    }

    /// What a person does about a reason of an integration; `-` for nothing.
    pub fn todo(&self, reason: &str, namespace: &str, name: &str) -> String {
        let key = format!("todo-{reason}");
        let key = if self.has(&key) { key.as_str() } else { "todo-unknown" };
        self.with(key, &[("namespace", namespace), ("name", name)])
    }

    /// A time: UTC in English; in Vietnamese the zone that `TZ` names, or the machine's.
    pub fn time(&self, time: DateTime<Utc>) -> String {
        match self.language {
            Language::En => time.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
            Language::Vi => time.with_timezone(&Local).format("%d/%m/%Y %H:%M:%S").to_string(),
        }
    }
}

/// A text without line breaks, control characters and marks that turn the direction of writing: what others wrote must not
/// steer a terminal.
pub fn one_line(text: &str) -> String {
    let visible: String = text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Is it one of Unicode's marks for the direction of writing (UAX #9)?
const fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const LANGUAGES: [Language; 2] = [Language::En, Language::Vi];

    /// The messages of a file with the values that each takes.
    fn messages(language: Language) -> BTreeMap<String, BTreeSet<String>> {
        let source = language.source();
        FluentResource::try_new(source.to_owned()).unwrap_or_else(|(_, errors)| panic!("{language:?}: {errors:?}"));
        let mut messages = BTreeMap::new();
        for line in source.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, text) = line.split_once(" = ").unwrap_or_else(|| panic!("{language:?}: {line}"));
            let values = text.split("{ $").skip(1).filter_map(|rest| rest.split(" }").next());
            let before = messages.insert(key.to_owned(), values.map(str::to_owned).collect());
            assert!(before.is_none(), "{language:?} has {key} twice");
        }
        messages
    }

    #[test]
    fn each_language_has_the_same_messages_with_the_same_values() {
        assert_eq!(messages(Language::En), messages(Language::Vi));
        assert!(messages(Language::En).len() > 50);
    }

    #[test]
    fn every_message_that_the_code_asks_for_is_there() {
        let known = messages(Language::En);
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/kubectl-tiktokshop");
        let mut asked = BTreeSet::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            asked.extend(
                text.split('"')
                    .filter(|word| known.contains_key(*word))
                    .map(str::to_owned)
                    .chain(Reason::ALL.iter().flat_map(|r| [format!("reason-{r}"), format!("todo-{r}")])),
            );
            for call in ["text(\"", ".with(\""] {
                for rest in text.split(call).skip(1) {
                    let key = rest.split('"').next().unwrap();
                    assert!(known.contains_key(key) || key == "no-such-message", "the code asks for {key}");
                }
            }
        }
        let unused: Vec<_> = known.keys().filter(|key| !asked.contains(*key)).collect();
        assert!(unused.is_empty(), "nothing says {unused:?}");
    }

    #[test]
    fn every_reason_has_its_words_in_each_language() {
        for language in LANGUAGES {
            let messages = Messages::of(language);
            for reason in Reason::ALL {
                assert!(messages.has(&format!("reason-{reason}")), "{language:?} lacks reason-{reason}");
                assert!(messages.has(&format!("todo-{reason}")), "{language:?} lacks todo-{reason}");
            }
            assert_eq!(messages.reason("OfANewerOperator"), "OfANewerOperator");
        }
    }

    #[test]
    fn a_message_that_is_missing_shows_its_key_and_no_panic() {
        assert_eq!(Messages::of(Language::Vi).text("no-such-message"), "no-such-message");
    }

    #[test]
    fn the_language_is_that_of_the_first_variable_that_is_set() {
        for (variables, expected) in [
            (&[][..], Language::En),
            (&[("LANG", "vi_VN.UTF-8")], Language::Vi),
            (&[("LANG", "vi")], Language::Vi),
            (&[("LANG", "vi_VN"), ("LC_MESSAGES", "en_US.UTF-8")], Language::En),
            (&[("LANG", "vi_VN"), ("LC_MESSAGES", "")], Language::Vi),
            (&[("LANG", "en_US"), ("LC_ALL", "vi_VN.UTF-8"), ("LC_MESSAGES", "C")], Language::Vi),
            (&[("LC_ALL", "C.UTF-8"), ("LANG", "vi_VN")], Language::En),
            (&[("LANG", "vivid")], Language::En),
        ] {
            let read =
                |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(Language::of_environment(read), expected, "{variables:?}");
        }
    }

    #[test]
    fn what_others_wrote_can_not_steer_a_terminal() {
        assert_eq!(one_line("a\u{1b}[2Jb\r\n c"), "a [2Jb c");
        assert_eq!(one_line("a\u{202e}cb\u{2066}d"), "a cb d");
    }
}
