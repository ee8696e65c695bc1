//! What the demo prints: numbered steps with their end, rows of what three sides show, and on a terminal a line of
//! progress that is replaced by what follows. Without a terminal there is no colour and no such line.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set once a signal ends the demo: what fails from then on fails because of it, and nobody needs to read it.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Columns of a plain terminal.
const COLUMNS: usize = 100;

/// The terminal, or whatever standard output is.
pub(crate) struct Screen {
    terminal: bool,
    colour: bool,
    number: u32,
    began: Instant,
    progress_at: Option<Instant>,
}

/// How a piece of text looks where there is colour: SGR parameters, ECMA-48.
#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Good,
    Bad,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self {
            terminal,
            colour: terminal && std::env::var_os("NO_COLOR").is_none(),
            number: 0,
            began: Instant::now(),
            progress_at: None,
        }
    }

    /// How long the demo has run.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The head of everything.
    pub(crate) fn title(&mut self, text: &str, lines: &[String]) {
        let text = self.painted(Style::Bold, text);
        self.print(&format!("\n{text}\n"));
        for line in lines {
            self.print(&format!("  {line}"));
        }
    }

    /// The head of a step.
    pub(crate) fn step(&mut self, text: &str) {
        self.number += 1;
        let text = self.painted(Style::Bold, &format!("{:2}  {text}", self.number));
        self.print(&format!("\n{text}"));
    }

    /// A command, as a person would type it; it may have several lines.
    pub(crate) fn command(&mut self, text: &str) {
        for (index, line) in text.lines().enumerate() {
            let prompt = if index == 0 { "$ " } else { "      " };
            let line = self.painted(Style::Dim, &format!("{prompt}{line}"));
            self.print(&format!("    {line}"));
        }
    }

    /// A line.
    pub(crate) fn line(&mut self, text: &str) {
        self.print(&format!("    {text}"));
    }

    /// Somebody else's output.
    pub(crate) fn quote(&mut self, text: &str) {
        for line in text.lines().flat_map(|line| wrapped(line, COLUMNS - 8)) {
            let line = self.painted(Style::Dim, &format!("| {line}"));
            self.print(&format!("    {line}"));
        }
    }

    /// Something that was to be seen, and was.
    pub(crate) fn seen(&mut self, text: impl Display) {
        let mark = self.painted(Style::Good, "✓");
        self.print(&format!("    {mark} {text}"));
    }

    /// Something that was to be seen, and was not.
    pub(crate) fn missed(&mut self, text: impl Display) {
        let mark = self.painted(Style::Bad, "✗");
        self.print(&format!("    {mark} {text}"));
    }

    /// The columns of [`Screen::row`].
    pub(crate) fn columns(&mut self) {
        let text = row(
            "",
            "HOST  virt-persona",
            "QEMU  virsh",
            "GUEST  from inside",
        );
        let text = self.painted(Style::Dim, &text);
        self.print(&text);
    }

    /// What the three sides show.
    pub(crate) fn row(&mut self, time: &str, host: &str, qemu: &str, guest: &str) {
        self.print(&row(time, host, qemu, guest));
    }

    /// What is being waited for, on a terminal only; a few times a second are enough.
    pub(crate) fn progress(&mut self, text: impl Display) {
        const BETWEEN: Duration = Duration::from_millis(200);
        if !self.terminal || self.progress_at.is_some_and(|at| at.elapsed() < BETWEEN) {
            return;
        }
        self.progress_at = Some(Instant::now());
        let text: String = format!("    … {text}").chars().take(COLUMNS - 1).collect();
        let text = self.painted(Style::Dim, &text);
        self.write(&format!("\r\x1b[K{text}"));
    }

    fn print(&mut self, text: &str) {
        let clear = if self.progress_at.take().is_some() {
            "\r\x1b[K"
        } else {
            ""
        };
        self.write(&format!("{clear}{}\n", text.trim_end_matches(' ')));
    }

    fn write(&self, text: &str) {
        if INTERRUPTED.load(Ordering::Relaxed) {
            return;
        }
        let mut out = std::io::stdout().lock();
        // A reader that went away, as `head`, does not keep the demo from cleaning up.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    fn painted(&self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let parameter = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Good => 32,
            Style::Bad => 31,
        };
        format!("\x1b[{parameter}m{text}\x1b[0m")
    }
}

fn row(time: &str, host: &str, qemu: &str, guest: &str) -> String {
    format!("    {time:>8}  {host:<33}  {qemu:<21}  {guest}")
}

/// A line in pieces of at most so many characters where it has spaces; what follows the first is set in.
fn wrapped(line: &str, most: usize) -> Vec<String> {
    let indent = line.len() - line.trim_start().len() + 4;
    let mut pieces = Vec::new();
    let mut piece = String::new();
    // The spaces within a line are columns of a table, so they are kept.
    for word in line.split_inclusive(' ') {
        let fits = piece.chars().count() + word.trim_end().chars().count() <= most;
        if !fits && !piece.trim().is_empty() {
            pieces.push(std::mem::replace(&mut piece, " ".repeat(indent)));
        }
        piece.push_str(word);
    }
    pieces.push(piece);
    pieces
}

/// Seconds as people read them.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
