//! A small tree of an XML document with namespaces resolved and the place of each element in the text. What the
//! elements mean is for `libvirt::xml`, `simulated` and `adopt`, who read it.

use std::ops::Range;

use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;
use quick_xml::{XmlVersion, escape};

/// Nesting that is accepted. libvirt's own documents stay below 12; metadata is a person's and may be anything.
const DEPTH: usize = 64;

/// One element.
#[derive(Debug, Default)]
pub(crate) struct Element {
    pub(crate) namespace: Option<String>,
    /// Without prefix.
    pub(crate) name: String,
    attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Element>,
    /// All text directly inside, references resolved.
    pub(crate) text: String,
    /// Where it is in the document, tags included.
    pub(crate) span: Range<usize>,
}

impl Element {
    /// The value of an attribute without namespace.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Children of this name in no namespace, as libvirt's own elements are.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children
            .iter()
            .filter(move |child| child.namespace.is_none() && child.name == name)
    }

    /// The first of [`Element::all`].
    pub(crate) fn child(&self, name: &str) -> Option<&Element> {
        self.children
            .iter()
            .find(|child| child.namespace.is_none() && child.name == name)
    }

    /// The element at the end of a path of children.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Element> {
        path.iter()
            .try_fold(self, |element, name| element.child(name))
    }
}

/// Reads a document.
///
/// # Errors
///
/// What is wrong with the text, as a sentence.
pub(crate) fn parse(text: &str) -> Result<Element, String> {
    let mut reader = NsReader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    loop {
        let start = position(&reader);
        let event = reader.read_event().map_err(|error| error.to_string())?;
        let done = match event {
            Event::Start(tag) => {
                if open.len() == DEPTH {
                    return Err(format!("elements are nested more than {DEPTH} deep"));
                }
                open.push(begin(&reader, &tag, start)?);
                None
            }
            Event::Empty(tag) => Some(begin(&reader, &tag, start)?),
            // The reader has checked that tags match, so an end without a start does not come this far.
            Event::End(_) => open.pop(),
            Event::Text(piece) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&piece.xml10_content());
                }
                None
            }
            Event::CData(piece) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&piece.xml10_content());
                }
                None
            }
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref() {
                    Ok(Some(character)) => character.to_string(),
                    Ok(None) => escape::resolve_predefined_entity(&reference)
                        .ok_or_else(|| format!("the entity `{}` is not known", &*reference))?
                        .to_owned(),
                    Err(error) => return Err(error.to_string()),
                };
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&resolved);
                }
                None
            }
            Event::Eof => return Err("the document ends before its root element does".into()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => None,
        };
        if let Some(mut element) = done {
            element.span.end = position(&reader);
            match open.last_mut() {
                Some(parent) => parent.children.push(element),
                None => return Ok(element),
            }
        }
    }
}

fn position(reader: &NsReader<&[u8]>) -> usize {
    // The text is in memory, so its positions fit.
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

fn begin(reader: &NsReader<&[u8]>, tag: &BytesStart<'_>, start: usize) -> Result<Element, String> {
    let (namespace, name) = reader.resolver().resolve_element(tag.name());
    let namespace = match namespace {
        ResolveResult::Bound(namespace) => Some(namespace.0.to_owned()),
        ResolveResult::Unbound => None,
        ResolveResult::Unknown(prefix) => {
            return Err(format!("the prefix `{prefix}` is bound to no namespace"));
        }
    };
    let mut attributes = Vec::new();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        if attribute.key.prefix().is_some() {
            continue;
        }
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|error| error.to_string())?;
        attributes.push((attribute.key.0.to_owned(), value.into_owned()));
    }
    Ok(Element {
        namespace,
        name: name.as_ref().to_owned(),
        attributes,
        children: Vec::new(),
        text: String::new(),
        span: start..start,
    })
}
