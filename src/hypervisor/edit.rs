//! Changes to the text of an XML document that leave all else of it as it is, comments and unknown elements included.
//! Which changes, is for whoever collects them (`adopt`); where an element is in the text, `tree` knows.

use std::collections::BTreeMap;
use std::ops::Range;

use super::tree::Element;

/// Changes that are collected against one text and made at once. What is inserted is the caller's own markup: nothing
/// is escaped here.
pub(crate) struct Edits<'text> {
    text: &'text str,
    replacements: Vec<(Range<usize>, String)>,
    /// What becomes the last children of an element, by its place.
    children: BTreeMap<usize, (Range<usize>, Vec<String>)>,
}

impl<'text> Edits<'text> {
    /// No changes yet. The elements of all calls come from this text.
    pub(crate) fn of(text: &'text str) -> Self {
        Self {
            text,
            replacements: Vec::new(),
            children: BTreeMap::new(),
        }
    }

    /// Whether nothing is to be changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.replacements.is_empty() && self.children.is_empty()
    }

    /// Gives an element an attribute, in the place of one of that name.
    pub(crate) fn set_attribute(&mut self, element: &Element, name: &str, value: &str) {
        let tag = self.start_tag(element);
        match attribute_value(self.text, &tag, name) {
            Some(place) => self.replacements.push((place, value.to_owned())),
            None => {
                let end = tag.end;
                let attribute = format!(" {name}='{value}'");
                self.replacements.push((end..end, attribute));
            }
        }
    }

    /// Puts a text in the place of all that is inside an element.
    pub(crate) fn set_text(&mut self, element: &Element, text: &str) {
        match self.inside(element) {
            Some(inside) => self.replacements.push((inside, text.to_owned())),
            None => self.append(element, text),
        }
    }

    /// Puts markup before an element, on a line of its own.
    pub(crate) fn insert_before(&mut self, element: &Element, markup: &str) {
        let start = element.span.start;
        let text = format!("{markup}\n{}", self.indentation(start));
        self.replacements.push((start..start, text));
    }

    /// Makes markup the last child of an element.
    pub(crate) fn append(&mut self, element: &Element, markup: &str) {
        let entry = self.children.entry(element.span.start);
        let (_, all) = entry.or_insert_with(|| (element.span.clone(), Vec::new()));
        all.push(markup.to_owned());
    }

    /// The text with all changes.
    pub(crate) fn apply(self) -> String {
        let mut replacements = self.replacements.clone();
        for (span, children) in self.children.values() {
            replacements.push(self.with_children(span, children));
        }
        // Attributes end where a tag's own end begins, and are collected first, so that they come first.
        replacements.sort_by_key(|(place, _)| (place.start, place.end));
        let mut result = String::with_capacity(self.text.len() + 1024);
        let mut done = 0;
        for (place, text) in replacements {
            result.push_str(&self.text[done..place.start]);
            result.push_str(&text);
            done = place.end;
        }
        result.push_str(&self.text[done..]);
        result
    }

    /// What an element's end becomes when it gets further children.
    fn with_children(&self, span: &Range<usize>, children: &[String]) -> (Range<usize>, String) {
        let element = &self.text[span.clone()];
        let margin = self.indentation(span.start);
        let lines: String = children
            .iter()
            .map(|child| format!("{margin}  {child}\n"))
            .collect();
        if element.ends_with("/>") {
            let name = element[1..]
                .split(|c: char| c.is_whitespace() || c == '/' || c == '>')
                .next()
                .unwrap_or_default();
            let end = span.end - "/>".len()..span.end;
            return (end, format!(">\n{lines}{margin}</{name}>"));
        }
        // The last mark of this kind begins the element's end tag.
        let end = span.start + element.rfind("</").unwrap_or(element.len());
        let before = &self.text[span.start..end];
        match before
            .rfind('\n')
            .filter(|at| before[at + 1..].trim().is_empty())
        {
            Some(at) => {
                let line = span.start + at + 1;
                (line..line, lines)
            }
            None => (end..end, format!("\n{lines}{margin}")),
        }
    }

    /// White space before what begins here, where nothing else stands before it in its line.
    fn indentation(&self, start: usize) -> &'text str {
        let line = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let before = &self.text[line..start];
        if before.trim().is_empty() { before } else { "" }
    }

    /// The start tag of an element, without the `>` or `/>` that ends it.
    fn start_tag(&self, element: &Element) -> Range<usize> {
        let start = element.span.start;
        let mut quote = None;
        for (at, byte) in self.text[element.span.clone()].bytes().enumerate() {
            match (quote, byte) {
                (None, b'"' | b'\'') => quote = Some(byte),
                (Some(open), byte) if open == byte => quote = None,
                (None, b'>') => {
                    let empty = at > 0 && self.text.as_bytes()[start + at - 1] == b'/';
                    return start..start + at - usize::from(empty);
                }
                _ => {}
            }
        }
        // The reader has found the tag's end, so this is not reached.
        element.span.clone()
    }

    /// What is between the tags of an element; absent where it is one tag.
    fn inside(&self, element: &Element) -> Option<Range<usize>> {
        let text = &self.text[element.span.clone()];
        if text.ends_with("/>") {
            return None;
        }
        let begin = self.start_tag(element).end + 1;
        let end = element.span.start + text.rfind("</")?;
        Some(begin..end)
    }
}

/// Where the value of an attribute is, without its quotes. The tag is well formed, as the reader has checked.
fn attribute_value(text: &str, tag: &Range<usize>, name: &str) -> Option<Range<usize>> {
    let mut at = tag.start;
    loop {
        let rest = &text[at..tag.end];
        let quote_at = rest.find(['"', '\''])?;
        let quote = rest[quote_at..].chars().next()?;
        let value = at + quote_at + 1;
        let end = value + text[value..tag.end].find(quote)?;
        let before = rest[..quote_at].trim_end().trim_end_matches('=').trim_end();
        let key = before.rsplit(char::is_whitespace).next()?;
        if key == name {
            return Some(value..end);
        }
        at = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::parse;
    use super::*;

    fn edited(text: &str, change: impl FnOnce(&Element, &mut Edits<'_>)) -> String {
        let root = parse(text).unwrap();
        let mut edits = Edits::of(text);
        change(&root, &mut edits);
        let edited = edits.apply();
        parse(&edited).unwrap();
        edited
    }

    #[test]
    fn an_attribute_is_replaced_or_added_whatever_the_quotes() {
        for (before, after) in [
            ("<a b='1'/>", "<a b='2'/>"),
            ("<a b = \"1\"  c='x>y'/>", "<a b = \"2\"  c='x>y'/>"),
            ("<a c='b=1'>t</a>", "<a c='b=1' b='2'>t</a>"),
            ("<a/>", "<a b='2'/>"),
            ("<a xb='1'/>", "<a xb='1' b='2'/>"),
        ] {
            let made = edited(before, |root, edits| edits.set_attribute(root, "b", "2"));
            assert_eq!(made, after);
        }
    }

    #[test]
    fn children_are_appended_at_the_margin_of_their_siblings_and_all_else_stays() {
        let text = "<a>\n  <!-- kept -->\n  <b x='1'/>\n  <q:c xmlns:q='urn:q'/>\n</a>\n";
        let made = edited(text, |root, edits| {
            let b = root.child("b").unwrap();
            edits.set_attribute(b, "y", "2");
            edits.append(b, "<d/>");
            edits.append(b, "<e/>");
            edits.append(root, "<f/>");
        });
        assert_eq!(
            made,
            "<a>\n  <!-- kept -->\n  <b x='1' y='2'>\n    <d/>\n    <e/>\n  </b>\n  <q:c xmlns:q='urn:q'/>\n  <f/>\n</a>\n"
        );
        assert_eq!(
            edited("<a><b/></a>", |root, edits| edits.append(root, "<c/>")),
            "<a><b/>\n  <c/>\n</a>"
        );
    }

    #[test]
    fn text_is_replaced_and_markup_goes_before_an_element() {
        let text = "<a>\n  <b unit='KiB'>1</b>\n</a>";
        let made = edited(text, |root, edits| {
            let b = root.child("b").unwrap();
            edits.set_text(b, "2");
            edits.insert_before(b, "<c/>");
        });
        assert_eq!(made, "<a>\n  <c/>\n  <b unit='KiB'>2</b>\n</a>");
    }

    #[test]
    fn no_change_gives_the_same_text() {
        let text = "<a>\n<b/></a>";
        assert_eq!(edited(text, |_, edits| assert!(edits.is_empty())), text);
    }
}
