//! Putting a definition back as it was before it was prepared. What the daemon and people write into `<metadata>`
//! meanwhile is none of the adoption's business and stays.

use std::ops::Range;

use crate::hypervisor::edit::Edits;
use crate::hypervisor::tree::{self, Element};

/// Lines of a definition that are compared, at most; one with more than that only is told to differ.
const LINES: usize = 2000;

/// Why a definition is not put back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Somebody has changed it since.
    #[error(
        "the definition was changed since it was prepared, and putting back the earlier one would lose that; take these changes back first, or keep all"
    )]
    Changed {
        /// Lines that went (`-`) and came (`+`) since, without passwords.
        difference: String,
    },
    /// It cannot be read.
    #[error("a definition cannot be read: {problem}")]
    Unreadable {
        /// Why.
        problem: String,
    },
}

impl Refused {
    /// The sentence, and the lines that differ below it. Only for who may read the definition with its secrets.
    pub fn with_difference(&self) -> String {
        match self {
            Self::Changed { difference } => format!("{self}:\n{difference}"),
            Self::Unreadable { .. } => self.to_string(),
        }
    }
}

/// Whether the definition `now` is the one that an adoption left; as in [`put_back`], where it is not known what that was,
/// what is there counts as it. What cannot be read is not.
pub fn is_as_left(after: Option<&str>, now: &str) -> bool {
    after.is_none_or(|after| {
        comparable(after).is_ok_and(|after| comparable(now).is_ok_and(|now| after == now))
    })
}

/// The definition to put back, or `None` where all is as it was before already. `after` is what it was made into; absent
/// where the daemon ended before it could read that, so that what is there counts as it.
///
/// # Errors
/// Where somebody changed it since.
pub fn put_back(before: &str, after: Option<&str>, now: &str) -> Result<Option<String>, Refused> {
    let bare_now = comparable(now)?;
    if comparable(before)? == bare_now {
        return Ok(None);
    }
    if let Some(after) = after {
        let bare_after = comparable(after)?;
        if bare_after != bare_now {
            let difference = difference(&bare_after, &bare_now);
            return Err(Refused::Changed { difference });
        }
    }
    with_metadata_of(before, now).map(Some)
}

fn parse(text: &str) -> Result<Element, Refused> {
    tree::parse(text).map_err(|problem| Refused::Unreadable { problem })
}

/// Where the metadata is with the white space before it.
fn metadata(text: &str) -> Result<Option<Range<usize>>, Refused> {
    let root = parse(text)?;
    Ok(root.child("metadata").map(|metadata| {
        let before = text[..metadata.span.start].trim_end().len();
        before..metadata.span.end
    }))
}

/// What two definitions are compared by: without metadata, and with the devices in one order. libvirt prints them in
/// another when it has read its own words again; which address each has, they say themselves.
fn comparable(text: &str) -> Result<String, Refused> {
    let text = without_metadata(text)?;
    let root = parse(&text)?;
    let devices = root.child("devices").map(|devices| &devices.children);
    let Some((first, last)) = devices.and_then(|all| Some((all.first()?, all.last()?))) else {
        return Ok(text);
    };
    let mut each: Vec<&str> = devices
        .into_iter()
        .flatten()
        .map(|device| &text[device.span.clone()])
        .collect();
    each.sort_unstable();
    Ok(format!(
        "{}{}{}",
        &text[..first.span.start],
        each.join("\n    "),
        &text[last.span.end..]
    ))
}

fn without_metadata(text: &str) -> Result<String, Refused> {
    Ok(match metadata(text)? {
        Some(place) => format!("{}{}", &text[..place.start], &text[place.end..]),
        None => text.to_owned(),
    })
}

fn with_metadata_of(before: &str, now: &str) -> Result<String, Refused> {
    let metadata_now = metadata(now)?.map(|place| &now[place]);
    if let Some(place) = metadata(before)? {
        let kept = metadata_now.unwrap_or_default();
        return Ok(format!(
            "{}{kept}{}",
            &before[..place.start],
            &before[place.end..]
        ));
    }
    let Some(kept) = metadata_now else {
        return Ok(before.to_owned());
    };
    let root = parse(before)?;
    let mut edits = Edits::of(before);
    match root.child("maxMemory").or_else(|| root.child("memory")) {
        Some(memory) => edits.insert_before(memory, kept.trim_start()),
        None => edits.append(&root, kept.trim_start()),
    }
    Ok(edits.apply())
}

/// Lines that are in one text only, in their order.
fn difference(before: &str, now: &str) -> String {
    let before: Vec<&str> = before.lines().collect();
    let now: Vec<&str> = now.lines().collect();
    if before.len().max(now.len()) > LINES {
        return "  (it is too long to be compared)".to_owned();
    }
    // How many lines are common to what begins at these two lines: the longest common subsequence.
    let width = now.len() + 1;
    let mut common = vec![0_u16; (before.len() + 1) * width];
    for (i, old) in before.iter().enumerate().rev() {
        for (j, new) in now.iter().enumerate().rev() {
            common[i * width + j] = if old == new {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut told = Vec::new();
    while i < before.len() || j < now.len() {
        if i < before.len() && j < now.len() && before[i] == now[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == now.len()
            || (i < before.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            told.push(format!("- {}", without_secrets(before[i].trim())));
            i += 1;
        } else {
            told.push(format!("+ {}", without_secrets(now[j].trim())));
            j += 1;
        }
    }
    told.join("\n")
}

/// A line without the secrets that a definition itself holds: the password of a graphical console and the cookies that a
/// disk on the network is asked for with. libvirt writes each of these into one line.
fn without_secrets(line: &str) -> String {
    let mut line = line.to_owned();
    for (open, close) in [("passwd='", "'"), ("passwd=\"", "\"")] {
        line = masked(&line, open, close);
    }
    // The names of cookies stay; `<cookies>` is what holds them.
    let Some(cookie) = line.find("<cookie ").or_else(|| line.find("<cookie>")) else {
        return line;
    };
    let (head, tail) = line.split_at(cookie);
    format!("{head}{}", masked(tail, ">", "</cookie>"))
}

/// A text with `...` in place of what is between these two, or between the first and its end.
fn masked(text: &str, open: &str, close: &str) -> String {
    match text.split_once(open) {
        Some((_, "")) | None => text.to_owned(),
        Some((head, rest)) => {
            let tail = rest.find(close).map_or("", |end| &rest[end..]);
            format!("{head}{open}...{tail}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "<domain>\n  <uuid>u</uuid>\n  <memory>1</memory>\n  <devices>\n    <graphics passwd='secret'/>\n  </devices>\n</domain>\n";

    fn after() -> String {
        BEFORE.replace("  <memory>", "  <maxMemory>4</maxMemory>\n  <memory>")
    }

    #[test]
    fn what_nobody_changed_is_put_back_as_it_was() {
        assert_eq!(
            put_back(BEFORE, Some(&after()), &after()),
            Ok(Some(BEFORE.to_owned()))
        );
        assert_eq!(put_back(BEFORE, Some(&after()), BEFORE), Ok(None));
        assert_eq!(
            put_back(BEFORE, None, &after()),
            Ok(Some(BEFORE.to_owned()))
        );
    }

    #[test]
    fn devices_in_another_order_are_no_change() {
        let two = |devices: &str| {
            after().replace("    <graphics passwd='secret'/>", &format!("    {devices}"))
        };
        let (one, other) = (two("<a/>\n    <b/>"), two("<b/>\n    <a/>"));
        assert_ne!(one, other);
        assert_eq!(
            put_back(BEFORE, Some(&one), &other),
            Ok(Some(BEFORE.to_owned()))
        );
        let refused = put_back(BEFORE, Some(&one), &two("<b/>\n    <a c='1'/>"));
        let Err(Refused::Changed { difference }) = refused else {
            panic!("it was put back");
        };
        assert_eq!(difference, "- <a/>\n+ <a c='1'/>");
    }

    #[test]
    fn metadata_that_came_changed_or_went_meanwhile_is_kept_as_it_is_now() {
        let tagged = |text: &str, tag: &str| {
            let place = text.find("  <m").unwrap();
            format!(
                "{}  <metadata>\n    <t>{tag}</t>\n  </metadata>\n{}",
                &text[..place],
                &text[place..]
            )
        };
        let now = tagged(&after(), "b");
        for before in [BEFORE.to_owned(), tagged(BEFORE, "a")] {
            assert_eq!(
                put_back(&before, Some(&after()), &now),
                Ok(Some(tagged(BEFORE, "b")))
            );
        }
        assert_eq!(
            put_back(&tagged(BEFORE, "a"), Some(&tagged(&after(), "a")), &after()),
            Ok(Some(BEFORE.to_owned()))
        );
    }

    #[test]
    fn what_somebody_changed_since_is_refused_with_the_lines_and_without_passwords() {
        let now = after()
            .replace(">1<", ">2<")
            .replace("secret", "another secret");
        let Err(Refused::Changed { difference }) = put_back(BEFORE, Some(&after()), &now) else {
            panic!("it was put back");
        };
        assert_eq!(
            difference,
            "- <memory>1</memory>\n+ <memory>2</memory>\n- <graphics passwd='...'/>\n+ <graphics passwd='...'/>"
        );
    }

    #[test]
    fn a_cookie_of_a_disk_is_not_told_and_the_sentence_has_no_line_of_the_definition() {
        let disk = |value: &str| {
            after().replace(
                "    <graphics",
                &format!("    <cookies>\n      <cookie name='k'>{value}</cookie>\n    </cookies>\n    <graphics"),
            )
        };
        let Err(refused) = put_back(BEFORE, Some(&disk("s3cret")), &disk("0ther")) else {
            panic!("it was put back");
        };
        let told = refused.with_difference();
        assert!(
            told.ends_with(
                "keep all:\n- <cookie name='k'>...</cookie>\n+ <cookie name='k'>...</cookie>"
            ),
            "{told}"
        );
        assert!(!refused.to_string().contains("cookie"), "{refused}");
    }

    #[test]
    fn metadata_and_the_order_of_devices_leave_a_definition_as_it_was_left() {
        let left = after().replace("    <graphics", "    <a/>\n    <graphics");
        let now = after()
            .replace(
                "  <maxMemory>",
                "  <metadata>\n    <t/>\n  </metadata>\n  <maxMemory>",
            )
            .replace(
                "<graphics passwd='secret'/>",
                "<graphics passwd='secret'/>\n    <a/>",
            );
        assert!(is_as_left(Some(&left), &now));
        assert!(is_as_left(None, &now));
        assert!(!is_as_left(Some(&left), &now.replace(">4<", ">5<")));
        assert!(!is_as_left(Some(&left), "<domain"));
    }
}
