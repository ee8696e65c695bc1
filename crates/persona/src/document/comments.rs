//! The comments of a document with their places. The tree does not hold them, because they mean nothing; printing puts
//! them back where they stood.

use std::ops::Range;

use granit_parser::{Event, Parser};
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use super::{Format, Text};

/// One comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    /// From `#` to the end of the line, without it.
    pub(crate) at: Range<usize>,
    /// What stands before it in its line.
    pub(crate) stands: Stands,
}

/// Where in its line a comment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// Nothing but space is before it.
    Alone,
    /// It follows something.
    Behind,
}

/// All comments of the document in which `at` lies, in the order of the text; up to the first error of syntax, where
/// there is one.
pub(crate) fn comments(text: &Text, at: usize, format: Format) -> Vec<Comment> {
    let document = text.document_around(at);
    let given = text.text.get(document.clone()).unwrap_or_default();
    let mut found = match format {
        Format::Yaml => of_yaml(given),
        Format::Toml => of_toml(given),
        // JSON has none.
        Format::Json => Vec::new(),
    };
    found.sort_by_key(|range| range.start);
    let comment = |range: Range<usize>| {
        let at = document.start + range.start..document.start + range.end;
        let before = text.text.get(text.start_of_line(at.start)..at.start);
        let stands = match before.unwrap_or_default().trim() {
            "" => Stands::Alone,
            _ => Stands::Behind,
        };
        Comment { at, stands }
    };
    found.into_iter().map(comment).collect()
}

fn of_yaml(given: &str) -> Vec<Range<usize>> {
    // The parser keeps comments back until it knows what they stand in; their number is bounded by that of the lines.
    let most = given.len();
    let options = granit_parser::options! { max_buffered_comment_events: most };
    let mut found = Vec::new();
    for event in Parser::new_from_str_with_options(given, options) {
        match event {
            Ok((Event::Comment(..), mark)) => found.extend(mark.byte_range()),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    found
}

fn of_toml(given: &str) -> Vec<Range<usize>> {
    let comments = Source::new(given)
        .lex()
        .filter(|token| token.kind() == TokenKind::Comment);
    comments
        .map(|token| token.span().start()..token.span().end())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: Format, document: &str, expected: &[(&str, Stands)]) {
        let mut text = Text::default();
        text.add("before", None, Format::Yaml, "# not this\n");
        let range = text.add("test", None, format, document);
        text.add("behind", None, Format::Yaml, "# nor this\n");
        let found = comments(&text, range.start, format);
        let shown: Vec<_> = found
            .iter()
            .map(|comment| (&text.text[comment.at.clone()], comment.stands))
            .collect();
        assert_eq!(shown, expected, "{document:?}");
    }

    #[test]
    fn comments_are_found_where_they_are_comments() {
        use Stands::{Alone, Behind};
        check(
            Format::Yaml,
            "# a\nx: 1 # b\ny: 'no # comment'\nz: a#b\n  # é c\nw: |  # d\n  # text\nv: [1, # e\n # f\n 2] # g\n# h",
            &[
                ("# a", Alone),
                ("# b", Behind),
                ("# é c", Alone),
                ("# d", Behind),
                ("# e", Behind),
                ("# f", Alone),
                ("# g", Behind),
                ("# h", Alone),
            ],
        );
        check(
            Format::Yaml,
            "\n- # a\n  x: 1\n- y:   # b\n    \"q # r\"\n--- # c",
            &[("# a", Behind), ("# b", Behind), ("# c", Behind)],
        );
        check(
            Format::Toml,
            "# a\r\nx = 1 # b\n'y # n' = '''\n# text''' # c\n[t] # d\nv = [1, # e\n  # f\n 2]",
            &[
                ("# a", Alone),
                ("# b", Behind),
                ("# c", Behind),
                ("# d", Behind),
                ("# e", Behind),
                ("# f", Alone),
            ],
        );
        check(Format::Json, "{\"a\": \"# b\"}", &[]);
    }

    #[test]
    fn more_comments_than_anyone_writes_are_found_in_bounded_time() {
        let lines = "#\n".repeat(60_000);
        for format in [Format::Yaml, Format::Toml] {
            let document = match format {
                Format::Toml => format!("{lines}a = 1\n{lines}"),
                _ => format!("a:\n{lines}  - 1\n{lines}"),
            };
            let mut text = Text::default();
            text.add("test", None, format, &document);
            assert_eq!(comments(&text, 0, format).len(), 120_000);
        }
    }
}
