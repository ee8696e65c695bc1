//! Reading back what the agent writes as `key = value` lines, with whatever somebody has changed in it: the two files of
//! variables, and the drop-in of sysctl. What is not such a line is kept as it is. No I/O.

use std::collections::BTreeMap;

use agent_protocol::environment::MARK_BEGIN;

/// How a file of variables is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// environment.d(5).
    EnvironmentD,
    /// A shell's.
    Profile,
}

/// What is in a file of variables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) variables: BTreeMap<String, String>,
    /// All that is neither the first line nor a variable.
    pub(super) lines: Vec<String>,
}

impl Found {
    /// Whether lines of one's own have to do with a variable.
    pub(super) fn mentions(&self, name: &str) -> bool {
        let begin = format!("{name}=");
        let names = |line: &String| {
            !line.trim_start().starts_with('#')
                && line.match_indices(&begin).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                })
        };
        self.lines.iter().any(names)
    }
}

/// Takes a file of variables apart. From the first line on that is neither a variable nor a comment all is somebody's own: a
/// variable behind it can be in the midst of something.
pub(super) fn found_in(text: &str, form: Form) -> Found {
    let mut found = Found::default();
    let mut own = false;
    for (number, line) in text.lines().enumerate() {
        if number == 0 && line.starts_with(MARK_BEGIN) {
            continue;
        }
        match variable(line, form).filter(|_| !own) {
            Some((name, value)) => drop(found.variables.insert(name, value)),
            None if !own && line.trim().is_empty() => {}
            None => {
                own |= !line.trim_start().starts_with('#');
                found.lines.push(line.to_owned());
            }
        }
    }
    while found
        .lines
        .last()
        .is_some_and(|line| line.trim().is_empty())
    {
        found.lines.pop();
    }
    found
}

/// A line that gives a variable a plain value; one that the agent could not write itself is none.
fn variable(line: &str, form: Form) -> Option<(String, String)> {
    let assigned = match form {
        Form::EnvironmentD => line,
        Form::Profile => line.strip_prefix("export ")?,
    };
    let (name, written) = assigned.trim_end().split_once('=')?;
    if !agent_protocol::environment::is_name(name) {
        return None;
    }
    let value = match form {
        Form::EnvironmentD => in_environment_d(name, written),
        Form::Profile => in_a_shell(written),
    }?;
    agent_protocol::environment::is_value(&value).then(|| (name.to_owned(), value))
}

/// Characters that mean themselves without quotes, to shells and to systemd.
fn is_plain(written: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@%+,-=".contains(c);
    !written.is_empty() && written.chars().all(plain)
}

fn in_environment_d(name: &str, written: &str) -> Option<String> {
    if is_plain(written) {
        return Some(written.to_owned());
    }
    let inner = written.strip_prefix('"')?.strip_suffix('"')?;
    if inner == format!("${{{name}:+}}") {
        return Some(String::new());
    }
    let mut value = String::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next()? {
                escaped @ ('"' | '\\' | '`') => value.push(escaped),
                _ => return None,
            },
            // Doubled it is itself; otherwise it begins an expansion.
            '$' if rest.next() == Some('$') => value.push('$'),
            '$' | '"' | '`' => return None,
            other => value.push(other),
        }
    }
    Some(value)
}

fn in_a_shell(written: &str) -> Option<String> {
    if is_plain(written) {
        return Some(written.to_owned());
    }
    if let Some(inner) = written
        .strip_prefix('"')
        .and_then(|inner| inner.strip_suffix('"'))
    {
        return (!inner.contains(['"', '$', '`', '\\', '!'])).then(|| inner.to_owned());
    }
    let inner = written.strip_prefix('\'')?.strip_suffix('\'')?;
    let value = inner.replace("'\\''", "\u{0}");
    (!value.contains('\'')).then(|| value.replace('\u{0}', "'"))
}

/// What a drop-in of sysctl says, if it says nothing else: no comments but the first line, no `-` before a name.
pub(super) fn parameters(text: &str) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || (number == 0 && line.starts_with(MARK_BEGIN)) {
            continue;
        }
        let (key, value) = line.split_once('=')?;
        let key = key.trim();
        if key.is_empty() || key.starts_with(['#', ';', '-']) || key.contains('*') {
            return None;
        }
        found.insert(key.to_owned(), value.trim().to_owned());
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_people_write_them_are_understood_and_others_kept() {
        let text = "# Written by virt-persona-agent. x\nexport A='it'\\''s'\nexport B=\"b c\"\nexport C=/usr/bin/vi\n\
                    export D=\"$HOME\"\nexport E='5'\n\n";
        let found = found_in(text, Form::Profile);
        let value = |name: &str| found.variables.get(name).map(String::as_str);
        assert_eq!(value("A"), Some("it's"));
        assert_eq!((value("B"), value("C")), (Some("b c"), Some("/usr/bin/vi")));
        // An expansion is somebody's own, and so is all that stands behind it.
        assert_eq!((value("D"), value("E")), (None, None));
        assert_eq!(found.lines, ["export D=\"$HOME\"", "export E='5'"]);
        assert!(found.mentions("E") && !found.mentions("HOME") && !found.mentions("X"));
    }

    #[test]
    fn what_systemd_would_expand_is_no_plain_value() {
        let value = |line: &str| variable(line, Form::EnvironmentD).map(|(_, value)| value);
        assert_eq!(
            value("A=\"\\\"$$x\\\" \\`y\\` \\\\\""),
            Some("\"$x\" `y` \\".to_owned())
        );
        assert_eq!(value("A=\"${A:+}\""), Some(String::new()));
        for line in [
            "A=\"$x\"",
            "A=${x}",
            "A='x'",
            "A=",
            "1=x",
            "A B=x",
            "export A=x",
        ] {
            assert_eq!(value(line), None, "{line}");
        }
    }

    #[test]
    fn a_drop_in_with_anything_else_in_it_is_somebodys() {
        let head = "# Written by virt-persona-agent. x\n";
        let found = parameters(&format!("{head}vm.a = 1\nvm.b=2\n")).unwrap();
        assert_eq!(
            found,
            [("vm.a", "1"), ("vm.b", "2")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into()
        );
        for more in ["# mine\n", "-vm.a = 1\n", "net.*.x = 1\n", "rubbish\n"] {
            assert_eq!(parameters(&format!("{head}{more}")), None);
        }
    }
}
