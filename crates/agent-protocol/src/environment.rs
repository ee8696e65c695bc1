//! The two files that a persona's variables are written to, as text: one for services and sessions of systemd
//! (environment.d(5)), one for login shells. Drop-ins of a higher number still win. The agent writes them, and the host
//! where qemu-guest-agent stands in for it; nothing here touches a disk.

use std::collections::BTreeMap;

/// Read by systemd's user managers.
pub const ENVIRONMENT_D: &str = "/etc/environment.d/50-virt-persona.conf";
/// Read by login shells.
pub const PROFILE_D: &str = "/etc/profile.d/50-virt-persona.sh";
/// How the first line of both begins; a file without it is somebody else's.
pub const MARK_BEGIN: &str = "# Written by virt-persona-agent.";
/// The first line of both. Whether a change is kept is for whoever writes them to say.
pub const MARK: &str = "# Written by virt-persona-agent. What has to stay belongs into a file with a higher number, which wins.";

/// Whether a variable may have this name: one that shells accept.
#[must_use]
pub fn is_name(name: &str) -> bool {
    crate::activation::is_variable_name(name)
}

/// Whether a variable may have this value.
#[must_use]
pub fn is_value(value: &str) -> bool {
    crate::activation::is_variable_value(value)
}

/// Names and values.
pub type Variables = BTreeMap<String, String>;

/// The text of [`ENVIRONMENT_D`]. In double quotes the backslash escapes itself, the quote and the backtick; `$` begins an expansion and is doubled.
pub fn render_environment_d(variables: &Variables) -> String {
    render(variables, |text, name, value| {
        text.push_str(name);
        text.push_str("=\"");
        if value.is_empty() {
            // The parser takes an empty value for an error, but not one that expands to nothing.
            text.push_str("${");
            text.push_str(name);
            text.push_str(":+}");
        }
        for character in value.chars() {
            match character {
                '"' | '\\' | '`' => text.extend(['\\', character]),
                '$' => text.push_str("$$"),
                other => text.push(other),
            }
        }
        text.push('"');
    })
}

/// The text of [`PROFILE_D`]. In single quotes a shell leaves all but the quote alone.
pub fn render_profile(variables: &Variables) -> String {
    render(variables, |text, name, value| {
        text.push_str("export ");
        text.push_str(name);
        text.push_str("='");
        text.push_str(&value.replace('\'', "'\\''"));
        text.push('\'');
    })
}

fn render(variables: &Variables, line: impl Fn(&mut String, &str, &str)) -> String {
    let mut text = format!("{MARK}\n");
    for (name, value) in variables {
        line(&mut text, name, value);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_for_systemd_escapes_what_it_would_expand() {
        let value = "\"$x\" `y` \\".to_owned();
        let variables = [("A".to_owned(), value), ("B".to_owned(), String::new())].into();
        assert_eq!(
            render_environment_d(&variables),
            format!("{MARK}\nA=\"\\\"$$x\\\" \\`y\\` \\\\\"\nB=\"${{B:+}}\"\n")
        );
    }
}
