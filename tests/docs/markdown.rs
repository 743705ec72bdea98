//! As much of Markdown as the documentation uses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// The line of the fence, counted from 1.
    pub line: usize,
    /// The first word of the fence's info string.
    pub language: String,
    /// The others, parted by commas.
    pub marks: Vec<String>,
    pub text: String,
    /// The comment before it.
    pub comment: Option<String>,
}

impl Block {
    pub fn has(&self, mark: &str) -> bool {
        self.marks.iter().any(|own| own == mark)
    }

    /// The value of a mark `name=value`.
    pub fn mark(&self, name: &str) -> Option<&str> {
        self.marks.iter().find_map(|mark| mark.strip_prefix(name)?.strip_prefix('='))
    }

    /// Is it run as commands?
    pub fn is_run(&self) -> bool {
        matches!(self.language.as_str(), "sh" | "console") && !self.has("norun")
    }
}

#[derive(Debug)]
pub struct Heading {
    pub level: usize,
    pub text: String,
    /// What a link to it ends with.
    pub anchor: String,
    /// Rows of tables, and items of lists, up to the next heading.
    pub rows: usize,
}

#[derive(Debug)]
pub struct Link {
    pub line: usize,
    pub target: String,
}

/// A file of documentation.
#[derive(Debug)]
pub struct Page {
    /// From the root of the tree.
    pub path: PathBuf,
    pub blocks: Vec<Block>,
    pub headings: Vec<Heading>,
    pub links: Vec<Link>,
    pub comments: Vec<String>,
}

/// What a page's reader has when the page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// The operator at work, and a shop.
    AtWork,
    /// An empty cluster.
    Nothing,
    /// The chart, installed; no shop.
    Release,
}

impl Page {
    pub fn begins(&self) -> Begins {
        match self.comments.iter().find_map(|comment| comment.strip_prefix("begins with: ")) {
            None => Begins::AtWork,
            Some("nothing") => Begins::Nothing,
            Some("a release of the chart") => Begins::Release,
            Some(what) => panic!("{} begins with {what:?}: what is that?", self.path.display()),
        }
    }
}

/// The root of the tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of documentation: those in the root of the tree and of the chart, and those of the book.
pub fn all() -> Vec<Page> {
    let mut files = Vec::new();
    for (folder, deep) in [("", false), ("charts", true), ("docs/src", true)] {
        find(Path::new(folder), deep, &mut files);
    }
    files.sort();
    files.iter().map(|path| read(path)).collect()
}

fn find(folder: &Path, deep: bool, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(root().join(folder)) else { return };
    for entry in entries {
        let entry = entry.expect("a folder can be read");
        let path = folder.join(entry.file_name());
        if entry.path().is_dir() {
            if deep {
                find(&path, deep, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
}

pub fn read(path: &Path) -> Page {
    let text = std::fs::read_to_string(root().join(path));
    let text = text.unwrap_or_else(|error| panic!("{} can't be read: {error}", path.display()));
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Page {
    let mut page = Page {
        path: path.to_owned(),
        blocks: Vec::new(),
        headings: Vec::new(),
        links: Vec::new(),
        comments: Vec::new(),
    };
    let mut anchors = BTreeMap::<String, usize>::new();
    let mut comment = None;
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let trimmed = line.trim_start();
        if let Some(info) = trimmed.strip_prefix("```") {
            let indent = line.len() - trimmed.len();
            let mut body = String::new();
            for (_, line) in lines.by_ref().take_while(|(_, line)| line.trim() != "```") {
                let cut = line.len() - line.trim_start().len();
                body.push_str(&line[indent.min(cut)..]);
                body.push('\n');
            }
            let mut words = info.split(',').map(|word| word.trim().to_owned());
            let language = words.next().unwrap_or_default();
            let (marks, comment) = (words.collect(), comment.take());
            page.blocks.push(Block { line: at + 1, language, marks, text: body, comment });
        } else if let Some(first) = trimmed.strip_prefix("<!--") {
            let mut whole = first.to_owned();
            while !whole.contains("-->") {
                let Some((_, line)) = lines.next() else { break };
                whole.push('\n');
                whole.push_str(line);
            }
            let said = whole.split("-->").next().unwrap_or_default().trim().to_owned();
            page.comments.push(said.clone());
            comment = Some(said);
        } else if let Some((level, title)) = heading(line) {
            comment = None;
            let slug = slug(title);
            let count = anchors.entry(slug.clone()).or_default();
            let anchor = if *count == 0 { slug } else { format!("{slug}-{count}") };
            *count += 1;
            find_links(title, at + 1, &mut page.links);
            page.headings.push(Heading { level, text: plain(title), anchor, rows: 0 });
        } else if !trimmed.is_empty() {
            comment = None;
            let is_item = trimmed.starts_with('|') || trimmed.starts_with("- ") || is_numbered(trimmed);
            if let Some(heading) = page.headings.last_mut().filter(|_| is_item) {
                heading.rows += 1;
            }
            find_links(line, at + 1, &mut page.links);
        }
    }
    page
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let title = line[level..].strip_prefix(' ')?;
    (1..=6).contains(&level).then_some((level, title.trim()))
}

fn is_numbered(line: &str) -> bool {
    line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok())
}

/// A heading's text without marks.
fn plain(title: &str) -> String {
    title.replace(['`', '*'], "")
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn slug(title: &str) -> String {
    let kept = plain(title).to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// `[text](target)`, wherever it does not stand in code.
fn find_links(line: &str, at: usize, links: &mut Vec<Link>) {
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    for after in prose.split("](").skip(1) {
        if let Some((target, _)) = after.split_once(')') {
            links.push(Link { line: at, target: target.to_owned() });
        }
    }
}

#[test]
fn what_a_page_holds_is_found() {
    let page = parse(
        Path::new("x.md"),
        "# One `two`\n\n<!-- norun: it\ntakes long -->\n\n```sh,norun\n# no heading\n```\n\n\
         1. an item\n\n   ```yaml,file=a.yaml\n   a:\n     b\n   ```\n\n## One, two!\nsee [this `x`](a.md#b) and `[not](that)`\n## One two\n",
    );
    let headings: Vec<_> = page.headings.iter().map(|heading| (heading.level, heading.anchor.as_str())).collect();
    assert_eq!(headings, [(1, "one-two"), (2, "one-two-1"), (2, "one-two-2")]);
    assert_eq!(page.headings[0].rows, 1);
    let [shell, yaml] = &page.blocks[..] else { panic!("two blocks, not {:?}", page.blocks) };
    assert!(!shell.is_run() && shell.line == 6);
    assert_eq!(shell.comment.as_deref(), Some("norun: it\ntakes long"));
    assert_eq!((yaml.mark("file"), yaml.text.as_str()), (Some("a.yaml"), "a:\n  b\n"));
    assert_eq!(page.links.iter().map(|link| link.target.as_str()).collect::<Vec<_>>(), ["a.md#b"]);
}
