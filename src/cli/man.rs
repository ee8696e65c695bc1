//! The man page: one page with every verb, from the definition of the command line.

use clap::{Arg, Command};

/// The page as roff.
pub(super) fn page(mut command: Command) -> String {
    command.build();
    let mut page = String::from(".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n");
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let version = command.get_version().unwrap_or_default().to_owned();
    page.push_str(&format!(
        ".TH VIRT-PERSONA 1 \"\" \"virt-persona {}\"\n",
        escape(&version)
    ));
    page.push_str(&format!(
        ".SH NAME\nvirt\\-persona \\- {}\n",
        escape(&about)
    ));
    page.push_str(
        ".SH SYNOPSIS\n.B virt\\-persona\n[\\fIOPTIONS\\fR] \\fIVERB\\fR [\\fIARGUMENTS\\fR]\n",
    );
    page.push_str(".SH DESCRIPTION\n");
    page.push_str(&escape(
        "A persona says who a virtual machine is: what it may grow to, how it adapts, what runs in it. virt-persona talks \
         to virt-personad over D-Bus. Reading is for every local user; changes and `record` need what polkit says, by \
         default an administrator. A domain is named by its number, UUID or name, as with virsh.",
    ));
    page.push_str("\n.SH OPTIONS\n");
    for argument in command.get_arguments().filter(|a| a.is_global_set()) {
        push_argument(&mut page, argument);
    }
    page.push_str(".SH VERBS\n");
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        if verb.get_name() == "help" {
            continue;
        }
        push_verb(&mut page, verb);
    }
    page.push_str(
        ".SH ENVIRONMENT\n.TP\n.B NO_COLOR\nNo colour, also on a terminal.\n\
         .TP\n.B DBUS_SYSTEM_BUS_ADDRESS\nAnother bus than the system's.\n\
         .SH EXIT STATUS\n.TP\n.B 0\nDone.\n.TP\n.B 1\nRefused or failed; the reason is on standard error. Also when\n\
         .B check\nor\n.B doctor\nfound something bad, or\n.B diff\na difference.\n.TP\n.B 2\nWrong usage, or trouble of\n.B diff\nwith what it is to compare.\n\
         .TP\n.B 3\nThe daemon is not reachable.\n\
         .SH SEE ALSO\n.BR virt\\-personad (8),\n.BR virsh (1)\n",
    );
    page
}

fn push_verb(page: &mut String, verb: &Command) {
    let positional = verb.get_positionals().map(|argument| {
        let name = value_name(argument);
        let many = argument
            .get_num_args()
            .is_some_and(|range| range.max_values() > 1);
        let name = if many { format!("{name}\\&...") } else { name };
        if argument.is_required_set() {
            format!(" {name}")
        } else {
            format!(" [{name}]")
        }
    });
    let usage: String = positional.collect();
    page.push_str(&format!(
        ".SS \"\\fB{}\\fR{usage}\"\n",
        escape(verb.get_name())
    ));
    if let Some(about) = verb.get_about() {
        page.push_str(&format!("{}.\n", escape(&about.to_string())));
    }
    for argument in verb.get_arguments() {
        let own =
            !argument.is_global_set() && !matches!(argument.get_id().as_str(), "help" | "version");
        if own {
            push_argument(page, argument);
        }
    }
}

fn push_argument(page: &mut String, argument: &Arg) {
    let name = value_name(argument);
    let head = match argument.get_long() {
        Some(long) if argument.get_action().takes_values() => {
            format!("\\fB{}\\fR {name}", escape(&format!("--{long}")))
        }
        Some(long) => format!("\\fB{}\\fR", escape(&format!("--{long}"))),
        None => name,
    };
    page.push_str(&format!(".TP\n{head}\n"));
    if let Some(help) = argument.get_help() {
        page.push_str(&format!("{}.", escape(&help.to_string())));
    }
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        page.push_str(&format!(" Default: {}.", escape(&defaults.join(" "))));
    }
    page.push('\n');
}

fn value_name(argument: &Arg) -> String {
    let name = argument
        .get_value_names()
        .and_then(|names| names.first())
        .map_or_else(|| argument.get_id().to_string(), ToString::to_string);
    format!("\\fI{}\\fR", escape(&name))
}

/// Text as roff shows it as it is.
fn escape(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\*(Aq");
    // A dot at the start of a line would be a request.
    if escaped.starts_with('.') {
        format!("\\&{escaped}")
    } else {
        escaped
    }
}
