//! The chooser on a terminal: the personas on the left, what would change on the right, keys below. ASCII alone, bold and
//! reversed but no colours, so that it is the same on a serial console. It decides nothing.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    symbols::border,
    text::Line,
    widgets::{Block, Clear, List, ListState, Paragraph, Wrap},
};

use crate::{
    Ending,
    chooser::{Chooser, Stage},
};
use virt_persona_switch::text;

/// Lines that every terminal can draw.
const BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// The smallest terminal on which two sides make sense.
const LEAST: (u16, u16) = (40, 10);

/// Draws all of it.
pub(crate) fn draw(frame: &mut Frame<'_>, chooser: &Chooser) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("This needs {} x {} characters; q leaves", LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head_lines(chooser)), head);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(keys(chooser)).style(bold), foot);
    match &chooser.stage {
        Stage::Loading => note(frame, body, "The host is asked what may be chosen ..."),
        Stage::Broken(reason) => note(frame, body, &format!("{reason}.")),
        Stage::Choosing => sides(frame, body, chooser),
        Stage::Confirming => {
            sides(frame, body, chooser);
            let name = chooser.offer().map_or("", |offer| &offer.persona);
            let name = chooser.charset.shown(name);
            let text = vec![
                format!("Switch to persona {name}?"),
                "y: yes    any other key: no".to_owned(),
            ];
            pop_up(frame, body, " Confirm ", text);
        }
        Stage::Asking(lines) => {
            sides(frame, body, chooser);
            let mut text = vec!["The host was asked.".to_owned()];
            text.extend(lines.iter().cloned());
            pop_up(frame, body, " Switch ", text);
        }
        Stage::Ended(lines, ending) => {
            sides(frame, body, chooser);
            let title = if *ending == Ending::Done {
                " Done "
            } else {
                " Not done "
            };
            pop_up(frame, body, title, lines.clone());
        }
    }
}

fn head_lines(chooser: &Chooser) -> Vec<Line<'static>> {
    let now = match &chooser.offers.current {
        Some(name) => format!("Persona now: {}", chooser.charset.shown(name)),
        None => "Choose a persona".to_owned(),
    };
    let under_way = chooser.offers.under_way.as_deref().unwrap_or_default();
    vec![
        Line::styled(now, Style::new().add_modifier(Modifier::BOLD)),
        Line::raw(chooser.charset.shown(under_way)),
    ]
}

fn keys(chooser: &Chooser) -> &'static str {
    match chooser.stage {
        Stage::Choosing => {
            "Up/Down: choose  Enter: switch  Space/b: scroll  r: look again  q: leave"
        }
        Stage::Confirming => "y: yes  any other key: no",
        Stage::Asking(_) => "q: leave; what was asked for goes on",
        Stage::Ended(..) => "Enter: back  q: leave",
        Stage::Loading => "q: leave",
        Stage::Broken(_) => "r: look again  q: leave",
    }
}

fn note(frame: &mut Frame<'_>, area: Rect, text: &str) {
    let paragraph = Paragraph::new(text.to_owned())
        .wrap(Wrap { trim: true })
        .block(Block::bordered().border_set(BORDER));
    frame.render_widget(paragraph, area);
}

fn sides(frame: &mut Frame<'_>, area: Rect, chooser: &Chooser) {
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(35), Constraint::Min(1)]).areas(area);
    let shown = |text: &str| chooser.charset.shown(text);
    let names = chooser
        .offers
        .offers
        .iter()
        .map(|offer| shown(&offer.persona));
    let list = List::new(names)
        .block(Block::bordered().border_set(BORDER).title(" Personas "))
        .highlight_symbol("> ")
        .highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = ListState::default().with_selected(Some(chooser.selected));
    frame.render_stateful_widget(list, left, &mut state);

    let mut lines = Vec::new();
    if let Some(offer) = chooser.offer() {
        if !offer.description.is_empty() {
            lines.push(Line::raw(shown(&offer.description)));
            lines.push(Line::raw(""));
        }
        lines.push(Line::raw(shown(&text::course(&offer.course))));
        if !offer.changes.is_empty() {
            lines.push(Line::raw(""));
            let bold = Style::new().add_modifier(Modifier::BOLD);
            lines.push(Line::styled("What would change", bold));
        }
        let changes = offer.changes.iter().map(text::change);
        let all = changes.chain(text::more(offer));
        lines.extend(all.map(|line| Line::raw(shown(&line))));
    }
    let most = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let paragraph = Paragraph::new(lines)
        .wrap(Wrap { trim: false })
        .scroll((chooser.scrolled.min(most.saturating_sub(1)), 0))
        .block(Block::bordered().border_set(BORDER));
    frame.render_widget(paragraph, right);
}

/// A box in the middle, over what is there.
fn pop_up(frame: &mut Frame<'_>, area: Rect, title: &'static str, lines: Vec<String>) {
    let width = area.width.saturating_sub(8).clamp(20, 64).min(area.width);
    let inner = usize::from(width.saturating_sub(2)).max(1);
    let rows: usize = lines
        .iter()
        .map(|line| line.len().div_ceil(inner).max(1) + usize::from(line.len() > inner))
        .sum();
    let height = u16::try_from(rows + 2).unwrap_or(u16::MAX).min(area.height);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let lines: Vec<Line<'static>> = lines.into_iter().map(Line::raw).collect();
    let paragraph = Paragraph::new(lines)
        .wrap(Wrap { trim: true })
        .block(Block::bordered().border_set(BORDER).title(title));
    frame.render_widget(Clear, place);
    frame.render_widget(paragraph, place);
}

#[cfg(test)]
mod tests {
    use agent_protocol::{Answer, local::LocalAnswer};
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::chooser::{Key, tests::chooser};
    use virt_persona_switch::text::Charset;

    fn drawn(chooser: &Chooser, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, chooser)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = buffer.content.chunks(usize::from(width));
        let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
        rows.collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    fn says(screen: &str, words: &[&str]) {
        for word in words {
            assert!(screen.contains(word), "no `{word}` in\n{screen}");
        }
        assert!(screen.is_ascii(), "{screen}");
    }

    #[test]
    fn at_80_by_24_there_are_personas_left_what_would_change_right_and_keys_below() {
        let screen = drawn(&chooser(), 80, 24);
        says(
            &screen,
            &[
                "Persona now: day",
                "> night",
                "huge",
                "Batch work while nobody looks",
                "environment_variables.WHO: day -> night",
                "rules: differs",
                "and 3 more",
            ],
        );
        let rows: Vec<&str> = screen.lines().collect();
        assert_eq!(rows.len(), 24);
        assert!(rows[23].starts_with("Up/Down: choose  Enter: switch"));
        let row = rows.iter().find(|row| row.contains("> night")).unwrap();
        assert!(row.find("> night") < row.find("Batch"), "{row}");
    }

    #[test]
    fn the_course_of_a_switch_is_seen_at_80_by_24() {
        let mut chooser = chooser();
        chooser.key(Key::Enter);
        says(
            &drawn(&chooser, 80, 24),
            &["Switch to persona night?", "y: yes"],
        );
        chooser.key(Key::Char('y'));
        says(&drawn(&chooser, 80, 24), &["The host was asked."]);
        chooser.heard(Ok(LocalAnswer::Host(Answer::Waits {
            proposal: 7,
            expires_in_ms: 3_600_000,
        })));
        says(&drawn(&chooser, 80, 24), &["proposal 7", "60 min"]);
        chooser.heard(Ok(LocalAnswer::Host(Answer::failed("root rejected it"))));
        says(
            &drawn(&chooser, 80, 24),
            &["Not done", "root rejected it", "Enter: back"],
        );
    }

    #[test]
    fn it_is_drawn_in_any_size_and_at_any_time() {
        let mut choosers = vec![Chooser::new(Charset::Ascii), chooser()];
        let mut asked = chooser();
        asked.key(Key::Enter);
        choosers.push(asked.clone());
        asked.key(Key::Char('y'));
        choosers.push(asked.clone());
        asked.heard(Err("x".repeat(500)));
        choosers.push(asked);
        for chooser in &choosers {
            for (width, height) in [(1, 1), (39, 9), (40, 10), (80, 24), (132, 43), (300, 5)] {
                drawn(chooser, width, height);
            }
        }
    }
}
