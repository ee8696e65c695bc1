//! The terminal: keys and changes of its size in, drawings out, answers of the agent beside them. Meant for 80 by 24 and for
//! serial consoles, which name no size; it needs no colours and no mouse.

use std::{
    error::Error as _,
    io::{self, Stdout},
    path::{Path, PathBuf},
    sync::mpsc::{self, Sender},
    thread,
};

use agent_protocol::local::{LocalAnswer, LocalRequest};
use ratatui::{
    Terminal, TerminalOptions, Viewport,
    backend::CrosstermBackend,
    crossterm::{
        cursor::MoveTo,
        event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
        execute,
        terminal::{
            self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
            enable_raw_mode,
        },
    },
    layout::Rect,
};

use crate::{
    Ending,
    chooser::{Chooser, Key, Wish},
    draw::draw,
};
use virt_persona_switch::{
    client::{self, ClientError},
    text::Charset,
};

/// What a terminal has that names no size.
const USUAL: (u16, u16) = (80, 24);

/// What wakes the screen.
enum Waking {
    Terminal(io::Result<Event>),
    /// The answer to the question of this number.
    Answer(u64, Result<LocalAnswer, String>),
}

/// Shows the chooser until it is left.
pub(crate) fn run(root: &Path) -> io::Result<Ending> {
    let (wake, wakings) = mpsc::channel();
    let mut screen = Screen::open()?;
    let keys = wake.clone();
    thread::spawn(move || {
        loop {
            let read = event::read();
            let failed = read.is_err();
            // The screen is gone when nobody takes it.
            if keys.send(Waking::Terminal(read)).is_err() || failed {
                break;
            }
        }
    });
    let mut chooser = Chooser::new(Charset::of_locale());
    let mut questions = Questions {
        root: root.to_owned(),
        wake,
        last: 0,
    };
    questions.ask(LocalRequest::Personas);
    loop {
        screen.terminal.draw(|frame| draw(frame, &chooser))?;
        // The thread above holds a sender for as long as there is a terminal.
        let Ok(waking) = wakings.recv() else { break };
        match waking {
            Waking::Answer(question, answer) if question == questions.last => chooser.heard(answer),
            // Of a question that was left.
            Waking::Answer(..) => {}
            Waking::Terminal(Err(error)) => return Err(error),
            Waking::Terminal(Ok(Event::Resize(width, height))) => {
                screen.terminal.resize(area(width, height))?;
            }
            Waking::Terminal(Ok(event)) => match key(&event).map(|key| chooser.key(key)) {
                None | Some(Wish::Nothing) => {}
                Some(Wish::Load) => questions.ask(LocalRequest::Personas),
                Some(Wish::Switch(persona)) => questions.ask(LocalRequest::Switch { persona }),
                Some(Wish::Leave) => break,
            },
        }
    }
    Ok(chooser.ending())
}

/// Questions to the agent, each waited for in a thread of its own.
struct Questions {
    root: PathBuf,
    wake: Sender<Waking>,
    last: u64,
}

impl Questions {
    fn ask(&mut self, request: LocalRequest) {
        self.last += 1;
        let (root, wake, number) = (self.root.clone(), self.wake.clone(), self.last);
        thread::spawn(move || {
            let told = |answer| wake.send(Waking::Answer(number, answer)).is_ok();
            let mut answers = match client::ask(&root, &request) {
                Ok(answers) => answers,
                Err(error) => {
                    told(Err(sentence(&error)));
                    return;
                }
            };
            loop {
                let answer = answers.wait().map_err(|error| sentence(&error));
                let last = answer.as_ref().map_or(true, LocalAnswer::is_last);
                if !told(answer) || last {
                    return;
                }
            }
        });
    }
}

fn sentence(error: &ClientError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// A terminal in raw mode, which is as it was when this goes.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    fn open() -> io::Result<Self> {
        let (width, height) = terminal::size().unwrap_or(USUAL);
        enable_raw_mode()?;
        let mut output = io::stdout();
        // Ratatui's own `clear` asks where the cursor is, which not every terminal answers.
        let opened = execute!(output, EnterAlternateScreen, Clear(ClearType::All)).and_then(|()| {
            let options = TerminalOptions {
                viewport: Viewport::Fixed(area(width, height)),
            };
            let terminal = Terminal::with_options(CrosstermBackend::new(output), options)?;
            Ok(Self { terminal })
        });
        if opened.is_err() {
            let _ = disable_raw_mode();
        }
        opened
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to put back.
        let _ = execute!(
            io::stdout(),
            Clear(ClearType::All),
            MoveTo(0, 0),
            LeaveAlternateScreen
        );
        let _ = self.terminal.show_cursor();
        let _ = disable_raw_mode();
    }
}

fn area(width: u16, height: u16) -> Rect {
    let or = |given, usual| if given == 0 { usual } else { given };
    Rect::new(0, 0, or(width, USUAL.0), or(height, USUAL.1))
}

fn key(event: &Event) -> Option<Key> {
    let Event::Key(pressed) = event else {
        return None;
    };
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    Some(match pressed.code {
        KeyCode::Char('c') if pressed.modifiers.contains(KeyModifiers::CONTROL) => Key::Interrupt,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Char(character) => Key::Char(character),
        _ => return None,
    })
}
