//! The formats of documents and how one is told where nobody says it. How each is read is in `yaml` and `toml`.

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// YAML 1.2, core schema.
    Yaml,
    /// JSON (RFC 8259).
    Json,
    /// TOML 1.1.
    Toml,
}

impl Format {
    /// What the ending of a file name says.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit_once('.')?;
        match ending.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    /// What the text looks like. It is JSON where it begins with a brace: a YAML flow mapping begins so too, but then
    /// YAML's own way to write it is one key to the line. It is TOML where its first line with anything on it is
    /// `key = value` or `[table]`, which no persona in YAML begins with. Else it is YAML.
    pub fn of_text(text: &[u8]) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        if text.trim_ascii_start().starts_with(b"{") {
            return Self::Json;
        }
        let first = text
            .split(|byte| matches!(byte, b'\n' | b'\r'))
            .map(<[u8]>::trim_ascii)
            .find(|line| !line.is_empty() && !line.starts_with(b"#"));
        match first {
            Some(line) if is_toml(line) => Self::Toml,
            _ => Self::Yaml,
        }
    }
}

/// Whether a line is a key and its value, or the header of a table.
fn is_toml(line: &[u8]) -> bool {
    if let Some(header) = line.strip_prefix(b"[") {
        let array = header.strip_prefix(b"[");
        let close: &[u8] = if array.is_some() { b"]]" } else { b"]" };
        let rest = behind_key(array.unwrap_or(header)).and_then(|rest| rest.strip_prefix(close));
        let rest = rest.map(<[u8]>::trim_ascii_start);
        return rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"#"));
    }
    behind_key(line).is_some_and(|rest| rest.starts_with(b"="))
}

/// What follows a key with its spaces.
fn behind_key(line: &[u8]) -> Option<&[u8]> {
    let mut rest = line.trim_ascii_start();
    loop {
        rest = match rest.first()? {
            quote @ (b'"' | b'\'') => {
                let inside = rest.get(1..)?;
                let end = inside.iter().position(|byte| byte == quote)?;
                inside.get(end + 1..)?
            }
            _ => {
                let bare = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
                let end = rest.iter().position(|byte| !bare(byte))?;
                if end == 0 {
                    return None;
                }
                rest.get(end..)?
            }
        };
        rest = rest.trim_ascii_start();
        match rest.strip_prefix(b".") {
            Some(next) => rest = next.trim_ascii_start(),
            None => return Some(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_told_by_the_first_line_with_anything_on_it() {
        for (text, expected) in [
            ("name: x", Format::Yaml),
            ("", Format::Yaml),
            ("# name = 1\nname: x = y", Format::Yaml),
            ("- [a]", Format::Yaml),
            ("[a, b]", Format::Yaml),
            ("[a]: b", Format::Yaml),
            ("IF a == b", Format::Yaml),
            ("'a = b': c", Format::Yaml),
            (" \n{\"name\": \"x\"}", Format::Json),
            ("\u{feff}{}", Format::Json),
            ("name = 'x'", Format::Toml),
            ("\u{feff}# c\r\n\r\n  name='x'", Format::Toml),
            ("[base_configuration]", Format::Toml),
            ("[[ adaptation_rules ]] # c", Format::Toml),
            ("base_configuration . \"cpu\" = 2", Format::Toml),
        ] {
            assert_eq!(Format::of_text(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn the_format_is_told_by_the_ending_of_a_file_name() {
        for (name, expected) in [
            ("web.json", Some(Format::Json)),
            ("web.YML", Some(Format::Yaml)),
            ("a.b/web.toml", Some(Format::Toml)),
            ("web.v2", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(Format::of_file_name(name), expected, "{name:?}");
        }
    }
}
