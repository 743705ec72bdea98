//! What a terminal can show, and the lines that go to it.

use std::io::{IsTerminal as _, Write as _};

use terminal_size::{Width, terminal_size_of};

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
            let width = terminal_size_of(std::io::stderr()).map_or(80, |(Width(columns), _)| usize::from(columns));
            let width = if width == 0 { 80 } else { width };
            let line: String = line.chars().take(width.saturating_sub(1)).collect();
            say_raw(&format!("\r\u{1b}[K{line}"));
        }
    }

    /// Removes the line of progress.
    pub fn clear_progress(self) {
        if self.draws_progress {
            say_raw("\r\u{1b}[K");
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

/// Writes to standard output. Ends the process where nobody reads it any more, as `head` does.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

/// Writes each line to standard error, behind the program's name.
pub fn complain(text: &str) {
    for line in text.lines() {
        say_raw(&format!("{}: {line}\n", crate::args::PROGRAM));
    }
}

fn say_raw(text: &str) {
    // Whoever closed standard error does not want to know.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
