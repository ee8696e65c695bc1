//! A document in canonical form: the names of keys as documented, rules in their one spelling, two spaces a level, with
//! the comments of its author. What a document means does not change by it. `virt-persona fmt` calls it.

use crate::document::{self, Format, SourceText, comments, print, print_json};
use crate::language;
use crate::problem::Problems;
use crate::read::load;
use crate::{Layer, LayerKind, header, part};

/// A document in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reformatted {
    /// JSON where JSON was given, else YAML.
    pub text: String,
    /// Comments that have no place in it, as they were written.
    pub lost: Vec<String>,
}

/// Puts a valid document into canonical form. TOML becomes YAML; JSON stays JSON.
///
/// # Errors
/// All errors and warnings of the document, where there is at least one error: what is not understood is not rewritten.
pub fn reformat(source: &SourceText<'_>) -> Result<Reformatted, Problems> {
    check(source)?;
    let mut problems = Vec::new();
    let (text, root) = document::parse(source, &mut problems);
    // A document that loads has a tree.
    let Some(root) = root else {
        return Err(document::collect(source.name, &text, problems));
    };
    let (mut tree, _) = language::canonical(&root, &text);
    language::respell(&mut tree);
    if source.format == Format::Json {
        return Ok(Reformatted {
            text: print_json(&tree),
            lost: Vec::new(),
        });
    }
    let comments = comments(&text, 0, source.format);
    let printed = print(&tree, &text, &comments);
    let lost = printed.left_out.iter().map(|comment| {
        text.text
            .get(comment.at.clone())
            .unwrap_or_default()
            .to_owned()
    });
    Ok(Reformatted {
        lost: lost.collect(),
        text: printed.text,
    })
}

/// Whether the document is valid; one that builds on others by itself, as far as can be told without them.
fn check(source: &SourceText<'_>) -> Result<(), Problems> {
    if header(source).is_ok_and(|header| !header.extends.is_empty()) {
        let layer = Layer {
            source: *source,
            tag: None,
            kind: LayerKind::Persona,
        };
        return part(&layer).map(drop);
    }
    load(source).map(drop)
}
