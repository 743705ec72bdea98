//! The documentation, held to what it says.
//!
//! - [`pages`]: links resolve, the book's contents are complete, every reason has its section, and what
//!   is written in two languages is in step. Needs no cluster; `make lint` runs it, too.
//! - [`runs`]: every block of commands is run, page by page and in order, by a real `kubectl` against a
//!   real API server, with the operator at work and a simulated TikTok Shop.
//! - [`import`]: the script that brings tokens from a database, on bad input.
//!
//! # How a block is written
//!
//! | fence | what happens |
//! |---|---|
//! | `sh` | run by bash in the page's own folder; it must succeed |
//! | `console` | lines after `$ ` are run, the lines below them are what they print; see [`matching`] |
//! | `console,fails` | the same, and the command must fail |
//! | `yaml,file=NAME` (or another language) | written to that file of the page's folder |
//! | `sh,norun` | not run; a comment `<!-- norun: why -->` stands before it |
//!
//! # What a page begins with
//!
//! The operator at work and shop `shop-1` in namespace `shops`, where no other line says so:
//!
//! | line | what there is |
//! |---|---|
//! | `<!-- begins with: nothing -->` | an empty cluster |
//! | `<!-- begins with: a release of the chart -->` | the chart, installed by helm as the README says, and no shop |

mod import;
mod markdown;
mod matching;
mod pages;
mod runs;
mod stage;
