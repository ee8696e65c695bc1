//! Log lines on standard error, one for each fact, for the journal of the guest. Lines are bounded in length and rate, so that
//! no host and no script can fill the guest's disk through them. Values of variables and texts of scripts never get here.

use std::{
    fmt,
    io::Write as _,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Longest line in bytes.
const LINE_MAX: usize = 512;
/// Lines in one [`WINDOW`].
const LINES_MAX: u32 = 100;
const WINDOW: Duration = Duration::from_secs(10);

struct Window {
    began: Option<Instant>,
    lines: u32,
}

static WINDOW_STATE: Mutex<Window> = Mutex::new(Window {
    began: None,
    lines: 0,
});

/// Writes one line; control characters become spaces.
macro_rules! log {
    ($($part:tt)*) => { $crate::log::write_line(format_args!($($part)*)) };
}
pub(crate) use log;

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[doc(hidden)]
pub(crate) fn write_line(line: fmt::Arguments<'_>) {
    let left_out = {
        let mut window = WINDOW_STATE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        let mut left_out = 0;
        if window
            .began
            .is_none_or(|began| now.duration_since(began) > WINDOW)
        {
            left_out = window.lines.saturating_sub(LINES_MAX);
            *window = Window {
                began: Some(now),
                lines: 0,
            };
        }
        window.lines = window.lines.saturating_add(1);
        if window.lines > LINES_MAX {
            return;
        }
        left_out
    };
    let text = agent_protocol::message::clean_text(&line.to_string(), LINE_MAX).replace('\n', " ");
    let mut stderr = std::io::stderr().lock();
    // There is nowhere to tell that standard error is gone.
    if left_out > 0 {
        let _ = writeln!(stderr, "virt-persona-agent: {left_out} lines were left out");
    }
    let _ = writeln!(stderr, "virt-persona-agent: {text}");
}
