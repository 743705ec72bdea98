//! What a terminal can show, and the lines that go to it.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Read as _, Write as _};

use terminal_size::{Height, Width, terminal_size_of};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};
use zeroize::Zeroizing;

use crate::FAILED;

/// Where the output goes and what may stand in it.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts about where the output goes")]
pub struct Terminal {
    /// Results are read by a person as they come.
    pub is_interactive: bool,
    /// Progress can be drawn and removed again.
    pub draws_progress: bool,
    /// Emoji rather than words.
    pub emoji: bool,
    /// Colours.
    pub colours: bool,
}

/// Whether the terminal takes ANSI's escape sequences: all do but Windows' own, which must be asked to.
fn takes_escapes() -> bool {
    #[cfg(windows)]
    return anstyle_query::windows::enable_ansi_colors().unwrap_or(true);
    #[cfg(not(windows))]
    return true;
}

impl Terminal {
    /// Of this process.
    pub fn of_process(no_emoji: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb") || !takes_escapes();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_interactive = std::io::stdout().is_terminal() && !is_dumb;
        Self {
            is_interactive,
            draws_progress: std::io::stderr().is_terminal() && !is_dumb,
            emoji: !no_emoji && !is_dumb,
            colours: is_interactive && !no_colour,
        }
    }

    /// A mark at the start of a line: the emoji, or the word in its place.
    pub fn mark(self, emoji: &'static str, word: &'static str) -> &'static str {
        if self.emoji { emoji } else { word }
    }

    /// A text in a colour, where there are colours.
    pub fn coloured(self, colour: Colour, text: &str) -> String {
        if self.colours { format!("\u{1b}[{}m{text}\u{1b}[0m", colour as u8) } else { text.to_owned() }
    }

    /// Draws a line of progress over the last one.
    pub fn progress(self, line: &str) {
        if self.draws_progress {
            // Wrapped lines could not be removed again.
            let width = size_of(terminal_size_of(std::io::stderr())).width;
            say_raw(&format!("\r\u{1b}[K{}", cut(line, width.saturating_sub(1))));
        }
    }

    /// Removes the line of progress.
    pub fn clear_progress(self) {
        if self.draws_progress {
            say_raw("\r\u{1b}[K");
        }
    }
}

/// How much fits on a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Lines.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// The size that a terminal tells; the usual one where it does not.
fn size_of(told: Option<(Width, Height)>) -> Size {
    let (Width(width), Height(height)) = told.unwrap_or((Width(0), Height(0)));
    let or = |told: u16, usual: usize| if told == 0 { usual } else { usize::from(told) };
    Size { height: or(height, 24), width: or(width, 80) }
}

/// The terminal's other screen, which leaves no trace: what stood there before comes back when this is dropped.
pub struct Screen(std::io::Stdout);

impl Screen {
    /// Turns to it, without a cursor.
    pub fn open() -> Self {
        print("\u{1b}[?1049h\u{1b}[?25l");
        Self(std::io::stdout())
    }

    /// How much fits now.
    pub fn size(&self) -> Size {
        size_of(terminal_size_of(&self.0))
    }

    /// Draws lines in place of what is there; they must fit.
    pub fn draw(&self, lines: &[String]) {
        // Line by line, and what was below at the end: a screen that is cleared first flickers.
        let mut text = "\u{1b}[H".to_owned();
        for (index, line) in lines.iter().enumerate() {
            text.extend([if index == 0 { "" } else { "\n" }, "\u{1b}[K", line]);
        }
        text.push_str(if lines.is_empty() { "\u{1b}[J" } else { "\n\u{1b}[J" });
        print_to(&self.0, &text);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print("\u{1b}[?25h\u{1b}[?1049l");
    }
}

/// The start of a text that fits into so many columns.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    let start: String = text.chars().take_while(fits).collect();
    if width == 0 { start } else { format!("{}…", start.trim_end()) }
}

/// A text in lines of so many columns, parted between words.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.width() + 1 + word.width() <= width) {
            Some(line) => line.extend([" ", word]),
            None => lines.push(cut(word, width)),
        }
    }
    lines
}

/// One line of standard input as a person pastes it or a script writes it, past empty ones, as far as so many bytes; `None`
/// at its end. A secret: a terminal does not show it, and it is wiped when dropped.
pub struct Input {
    /// Unbuffered: std's own reader would keep a copy.
    file: File,
    longest: usize,
}

impl Input {
    /// Of this process.
    pub fn open(longest: usize) -> std::io::Result<Self> {
        #[cfg(unix)]
        let owned = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
        #[cfg(windows)]
        let owned = std::os::windows::io::AsHandle::as_handle(&std::io::stdin()).try_clone_to_owned()?;
        Ok(Self { file: File::from(owned), longest })
    }

    /// Reads a line; blocks.
    pub fn line(&mut self) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
        #[cfg(windows)]
        if self.file.is_terminal() {
            return rpassword::read_password().map(|line| Some(Zeroizing::new(line.into_bytes())));
        }
        let mut line = Zeroizing::new(Vec::with_capacity(self.longest));
        let mut byte = [0];
        loop {
            let read = match self.file.read(&mut byte) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            let ends = read == 0 || byte == *b"\n" || line.len() == self.longest;
            if ends && !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
            if read == 0 {
                return Ok(None);
            }
            if ends {
                line.clear();
            } else {
                line.push(byte[0]);
            }
        }
    }
}

/// Standard input without echo, where it is a terminal; with echo again when dropped.
pub struct Hidden {
    is_terminal: bool,
    #[cfg(unix)]
    before: Option<rustix::termios::Termios>,
}

impl Hidden {
    /// Of this process.
    #[cfg(unix)]
    pub fn of_input() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let input = std::io::stdin();
        let Ok(before) = tcgetattr(&input) else { return Self { is_terminal: false, before: None } };
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        // But for the end of the line, so that what comes next begins a new one.
        silent.local_modes.insert(LocalModes::ECHONL);
        let is_silent = tcsetattr(&input, OptionalActions::Now, &silent).is_ok();
        Self { is_terminal: true, before: is_silent.then_some(before) }
    }

    /// Of this process. On Windows each line is read without echo, see [`Input::line`].
    #[cfg(windows)]
    pub fn of_input() -> Self {
        Self { is_terminal: std::io::stdin().is_terminal() }
    }

    /// Does a person paste there?
    pub const fn is_terminal(&self) -> bool {
        self.is_terminal
    }
}

#[cfg(unix)]
impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that is gone needs none.
            let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, before);
        }
    }
}

/// The colours, by their number in an escape sequence.
#[derive(Clone, Copy, Debug)]
pub enum Colour {
    /// Something failed.
    Red = 31,
    /// All is well.
    Green = 32,
    /// Something is to be looked at.
    Yellow = 33,
}

/// Writes to standard output. Ends the process where that can't be done: without a word where nobody reads it any more, as
/// `head` does.
pub fn print(text: &str) {
    print_to(&std::io::stdout(), text);
}

fn print_to(out: &std::io::Stdout, text: &str) {
    let mut out = out.lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        if error.kind() != ErrorKind::BrokenPipe {
            let error = crate::errors::without_number(&error.to_string());
            complain(&format!("failed to write to standard output: {error}"));
        }
        std::process::exit(FAILED.into());
    }
}

/// Writes each line to standard error, behind the program's name.
pub fn complain(text: &str) {
    for line in text.lines() {
        say_raw(&format!("{}: {line}\n", crate::args::PROGRAM));
    }
}

/// Writes a line to standard error, for a person who goes along.
pub fn say(text: &str) {
    say_raw(&format!("{text}\n"));
}

fn say_raw(text: &str) {
    // Whoever closed standard error does not want to know.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_the_columns_that_it_fills() {
        for (text, width, expected) in [
            ("shop", 4, "shop"),
            ("shop-1", 4, "sho…"),
            ("hết hạn", 4, "hết…"),
            ("店铺一", 4, "店…"),
            ("shop", 1, "…"),
            ("shop", 0, ""),
        ] {
            assert_eq!(cut(text, width), expected, "{text} in {width}");
            assert!(cut(text, width).width() <= width);
        }
    }

    #[test]
    fn a_long_line_is_parted_between_words() {
        assert_eq!(wrapped("see that the operator runs", 12), ["see that the", "operator", "runs"]);
        assert_eq!(wrapped("kubernetes", 5), ["kube…"]);
        assert!(wrapped("", 5).is_empty());
    }
}
