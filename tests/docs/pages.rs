//! What can be checked by reading alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use tiktok_shop_operator::{api::Reason, settings};

use crate::markdown::{self, Begins, Page, root};

const BOOK: &str = "docs/src";

/// An address in our own repository is a path in the tree.
const REPOSITORY: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/");

const LANGUAGES: [&str; 10] = ["sh", "console", "text", "yaml", "json", "csv", "sql", "promql", "toml", "rust"];

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} fault(s) in the documentation:\n{}", faults.len(), faults.join("\n"));
}

/// A path without `..`.
fn resolved(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = parts.pop(),
            Component::CurDir => {}
            part => parts.push(part),
        }
    }
    parts
}

#[test]
fn every_link_leads_somewhere() {
    let pages = markdown::all();
    let anchors: BTreeMap<_, BTreeSet<_>> = pages
        .iter()
        .map(|page| (page.path.clone(), page.headings.iter().map(|heading| heading.anchor.as_str()).collect()))
        .collect();
    let mut faults = Vec::new();
    for page in &pages {
        for link in &page.links {
            let place = format!("{}:{}", page.path.display(), link.line);
            let in_tree = link.target.strip_prefix(REPOSITORY);
            if in_tree.is_none() && link.target.contains("://") {
                continue;
            }
            let (file, anchor) = in_tree
                .unwrap_or(&link.target)
                .split_once('#')
                .map_or_else(|| (in_tree.unwrap_or(&link.target), None), |(file, anchor)| (file, Some(anchor)));
            let target = match (in_tree, file) {
                (Some(_), file) => PathBuf::from(file),
                (None, "") => page.path.clone(),
                (None, file) => resolved(&page.path.parent().unwrap_or(Path::new("")).join(file)),
            };
            if !root().join(&target).exists() {
                faults.push(format!("{place}: there is no {}", target.display()));
            } else if anchor.is_some_and(|anchor| !anchors.get(&target).is_some_and(|known| known.contains(anchor))) {
                faults.push(format!("{place}: {} has no heading for {}", target.display(), link.target));
            }
            let leaves_the_book = in_tree.is_none() && page.path.starts_with(BOOK) && !target.starts_with(BOOK);
            if leaves_the_book {
                faults.push(format!("{place}: {} is not in the book: link to {REPOSITORY}{0}", target.display()));
            }
        }
    }
    none(&faults);
}

#[test]
fn the_contents_of_the_book_name_every_page_once() {
    let summary = markdown::read(Path::new("docs/src/SUMMARY.md"));
    let mut named = BTreeMap::<PathBuf, usize>::new();
    for link in &summary.links {
        *named.entry(resolved(&Path::new(BOOK).join(&link.target))).or_default() += 1;
    }
    let mut faults = Vec::new();
    for page in markdown::all().iter().filter(|page| page.path.starts_with(BOOK) && page.path != summary.path) {
        let times = named.get(&page.path).copied().unwrap_or(0);
        if times != 1 {
            faults.push(format!("docs/src/SUMMARY.md names {} {times} times", page.path.display()));
        }
        if page.headings.iter().filter(|heading| heading.level == 1).count() != 1 {
            faults.push(format!("{} has not one title", page.path.display()));
        }
    }
    none(&faults);
}

#[test]
fn every_reason_has_its_section() {
    let sections = |page: &Page| -> Vec<String> {
        let known = page.headings.iter().filter(|heading| heading.text.parse::<Reason>().is_ok());
        known.map(|heading| format!("{}#{}", heading.text, heading.anchor)).collect()
    };
    let wanted: Vec<String> =
        Reason::ALL.iter().map(|reason| format!("{reason}#{}", reason.as_str().to_lowercase())).collect();
    for path in ["docs/src/troubleshooting.md", "docs/src/vi/troubleshooting.md"] {
        assert_eq!(
            sections(&markdown::read(Path::new(path))),
            wanted,
            "the sections of {path}, in the order of reasons"
        );
    }
    for reason in Reason::ALL {
        let path = reason.docs_url();
        let path = path.strip_prefix(REPOSITORY).and_then(|path| path.split('#').next()).expect("an address of ours");
        assert_eq!(path, "docs/src/troubleshooting.md");
    }
}

#[test]
fn every_block_says_what_it_is_and_why_it_is_not_run() {
    let mut faults = Vec::new();
    for page in markdown::all() {
        for block in &page.blocks {
            let place = format!("{}:{}", page.path.display(), block.line);
            if !LANGUAGES.contains(&block.language.as_str()) {
                faults.push(format!("{place}: \"{}\" is none of {}", block.language, LANGUAGES.join(", ")));
            }
            let says_why = block.comment.as_deref().is_some_and(|comment| comment.starts_with("norun: "));
            if block.has("norun") != says_why {
                faults.push(format!("{place}: \"norun\" and a comment <!-- norun: why --> belong together"));
            }
            for mark in &block.marks {
                if !matches!(mark.as_str(), "norun" | "fails") && !mark.starts_with("file=") {
                    faults.push(format!("{place}: what is {mark}?"));
                }
            }
        }
    }
    none(&faults);
}

/// What the README says of flags and values: one name in two ways of writing, but for those that it lists.
#[test]
fn a_flag_that_is_a_value_of_another_name_is_named_with_it() {
    let schema = std::fs::read_to_string(root().join("charts/tiktok-shop-operator/values.schema.json"));
    let schema: serde_json::Value = serde_json::from_str(&schema.expect("it is in the tree")).expect("it is JSON");
    let parser = settings::parser();
    let run = parser.find_subcommand("run").expect("there is a subcommand run");
    let flags = run.get_arguments().filter_map(|arg| arg.get_long()).filter(|flag| *flag != "help");
    let of_another_name: BTreeSet<&str> = flags
        .filter(|flag| {
            let mut words = flag.split('-');
            let first = words.next().unwrap_or_default().to_owned();
            let name = words.fold(first, |name, word| format!("{name}{}{}", word[..1].to_uppercase(), &word[1..]));
            schema["properties"].get(name).is_none()
        })
        .collect();
    for (path, heading) in [("README.md", "### Flags"), ("README.vi.md", "### Flag")] {
        let text = std::fs::read_to_string(root().join(path)).expect("it is in the tree");
        let (_, section) = text.split_once(&format!("\n{heading}\n")).expect("it has the section");
        let said = section.split("\n|").next().unwrap_or_default();
        let named: BTreeSet<&str> = said.split('`').filter_map(|code| code.strip_prefix("--")).collect();
        assert_eq!(named, of_another_name, "the flags that {path} says to be values of another name");
    }
}

/// On a release that is there, `helm install` fails: the name is in use.
#[test]
fn a_page_for_those_who_have_a_release_does_not_have_them_install_one() {
    for path in ["docs/src/upgrade.md", "docs/src/uninstall.md"] {
        let page = markdown::read(Path::new(path));
        assert_eq!(page.begins(), Begins::Release, "what {path} begins with");
        let installs = page.blocks.iter().find(|block| block.text.contains("helm install"));
        assert!(installs.is_none(), "{path} has its reader install again: {installs:?}");
    }
}

/// The pages that there are in Vietnamese, each with the English one.
fn translated() -> Vec<(PathBuf, PathBuf)> {
    let mut pairs: Vec<_> = markdown::all()
        .into_iter()
        .filter_map(|page| {
            let name = page.path.strip_prefix("docs/src/vi").ok()?;
            Some((Path::new(BOOK).join(name), page.path.clone()))
        })
        .collect();
    pairs.push((PathBuf::from("README.md"), PathBuf::from("README.vi.md")));
    pairs
}

#[test]
fn what_is_written_in_vietnamese_is_in_step_with_the_english() {
    for (english, vietnamese) in translated() {
        let [english, vietnamese] = [&english, &vietnamese].map(|path| markdown::read(path));
        let outline = |page: &Page| -> Vec<String> {
            let headings = page.headings.iter();
            headings.map(|heading| format!("{} {} rows or items", "#".repeat(heading.level), heading.rows)).collect()
        };
        let names = (english.path.display(), vietnamese.path.display());
        for (one, other) in english.headings.iter().zip(&vietnamese.headings) {
            assert_eq!(
                (one.level, one.rows),
                (other.level, other.rows),
                "level, and rows and items, of \"{}\" in {} and of \"{}\" in {}",
                one.text,
                names.0,
                other.text,
                names.1
            );
        }
        assert_eq!(outline(&english), outline(&vietnamese), "the headings of {} and of {}", names.0, names.1);
        let code = |page: &Page| -> Vec<(String, String)> {
            page.blocks.iter().map(|block| (block.language.clone(), block.text.clone())).collect()
        };
        let (one, other) = (code(&english), code(&vietnamese));
        for (one, other) in one.iter().zip(&other) {
            assert_eq!(one, other, "a block of {} and of {}", names.0, names.1);
        }
        assert_eq!(one.len(), other.len(), "blocks in {} and in {}", names.0, names.1);
        for (page, other) in [(&english, &vietnamese), (&vietnamese, &english)] {
            let folder = page.path.parent().unwrap_or(Path::new(""));
            let leads = page.links.iter().any(|link| resolved(&folder.join(&link.target)) == other.path);
            assert!(leads, "{} does not lead to {}", page.path.display(), other.path.display());
        }
    }
}
