//! The item of the tray and its menu, as `ksni` brings them to the desktop. What they say is the `model`'s; what is clicked
//! becomes a task of `main`.

use std::sync::mpsc::Sender;

use ksni::menu::{MenuItem, StandardItem, SubMenu};

use crate::{
    Task,
    model::{Call, Line, Model},
};

/// Edge of the picture in pixels, for desktops whose theme has no icon of that name.
const EDGE: i32 = 22;

/// The item.
pub(crate) struct Item {
    pub(crate) model: Model,
    tasks: Sender<Task>,
}

impl Item {
    pub(crate) fn new(model: Model, tasks: Sender<Task>) -> Self {
        Self { model, tasks }
    }

    /// Hands a task over; `main` ends with the item, so there is nobody to tell when it is gone.
    fn task(&self, task: Task) {
        let _ = self.tasks.send(task);
    }
}

impl ksni::Tray for Item {
    /// A left click opens the menu, too.
    const MENU_ON_ACTIVATE: bool = true;

    fn id(&self) -> String {
        "virt-persona-tray".to_owned()
    }

    fn category(&self) -> ksni::Category {
        ksni::Category::SystemServices
    }

    fn title(&self) -> String {
        self.model.title()
    }

    fn status(&self) -> ksni::Status {
        match self.model.call() {
            Call::Rests => ksni::Status::Passive,
            Call::Shows => ksni::Status::Active,
            Call::Alerts => ksni::Status::NeedsAttention,
        }
    }

    fn icon_name(&self) -> String {
        "computer".to_owned()
    }

    fn icon_pixmap(&self) -> Vec<ksni::Icon> {
        vec![picture()]
    }

    fn attention_icon_name(&self) -> String {
        "dialog-warning".to_owned()
    }

    fn tool_tip(&self) -> ksni::ToolTip {
        ksni::ToolTip {
            title: self.model.title(),
            description: markup(&self.model.remark()),
            ..ksni::ToolTip::default()
        }
    }

    /// Nothing is asked while no menu is open, so the item costs nothing then.
    fn menu_about_to_show(&mut self) {
        self.task(Task::Opened);
    }

    fn menu(&self) -> Vec<MenuItem<Self>> {
        let lines = self.model.menu().into_iter().map(entry);
        let look = StandardItem {
            label: "Look again".to_owned(),
            activate: Box::new(|item: &mut Self| item.task(Task::Look)),
            ..StandardItem::default()
        };
        let quit = StandardItem {
            label: "Quit".to_owned(),
            icon_name: "application-exit".to_owned(),
            activate: Box::new(|item: &mut Self| item.task(Task::Quit)),
            ..StandardItem::default()
        };
        lines.chain([look.into(), quit.into()]).collect()
    }
}

fn entry(line: Line) -> MenuItem<Item> {
    match line {
        Line::Rule => MenuItem::Separator,
        Line::Words(text) => words(&text),
        Line::Persona { label, lines, ask } => {
            let mut submenu: Vec<_> = lines.iter().map(|line| words(line)).collect();
            if let Some(persona) = ask {
                submenu.push(MenuItem::Separator);
                let switch = StandardItem {
                    label: plain(&format!("Switch to {persona}")),
                    activate: Box::new(move |item: &mut Item| {
                        item.task(Task::Ask(persona.clone()));
                    }),
                    ..StandardItem::default()
                };
                submenu.push(switch.into());
            }
            let menu = SubMenu {
                label: plain(&label),
                submenu,
                ..SubMenu::default()
            };
            menu.into()
        }
    }
}

fn words(text: &str) -> MenuItem<Item> {
    let item = StandardItem {
        label: plain(text),
        enabled: false,
        ..StandardItem::default()
    };
    item.into()
}

/// Menus take one underscore for the mark of a key.
fn plain(text: &str) -> String {
    text.replace('_', "__")
}

/// Tool tips take a subset of HTML.
fn markup(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A ring, in ARGB with the first byte first.
fn picture() -> ksni::Icon {
    let centre = f64::from(EDGE - 1) / 2.0;
    let pixel = |x: i32, y: i32| {
        let distance = (f64::from(x) - centre).hypot(f64::from(y) - centre);
        if (6.0..=9.5).contains(&distance) {
            [0xff, 0x35, 0x84, 0xe4]
        } else {
            [0; 4]
        }
    };
    let data = (0..EDGE)
        .flat_map(|y| (0..EDGE).flat_map(move |x| pixel(x, y)))
        .collect();
    ksni::Icon {
        width: EDGE,
        height: EDGE,
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_as_large_as_it_says() {
        let icon = picture();
        let bytes = usize::try_from(icon.width * icon.height).unwrap() * 4;
        assert_eq!(icon.data.len(), bytes);
        assert!(icon.data.iter().any(|byte| *byte != 0));
    }

    #[test]
    fn names_are_shown_as_they_are() {
        assert_eq!(plain("a_b"), "a__b");
        assert_eq!(markup("<b>&"), "&lt;b&gt;&amp;");
    }
}
