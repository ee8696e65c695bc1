//! The command line as clap sees it: verbs, their arguments, their help. Completions and the man page are made of it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use persona::{Bytes, Quantity, Unit};

use crate::bus::BusChoice;

/// Gives every libvirt virtual machine a persona and keeps the machine true to it, live.
#[derive(Debug, Parser)]
#[command(
    name = "virt-persona",
    version,
    propagate_version = true,
    after_help = "Exit status: 0 done, 1 refused or failed, 2 usage, 3 the daemon is not reachable."
)]
pub struct Cli {
    /// Where the daemon is and how to print.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl Cli {
    /// The command line as a person means it: clap takes whatever follows a tag to remove for a tag too, so `--json`
    /// behind one is taken out again.
    #[must_use]
    pub fn as_meant(mut self) -> Self {
        if let Verb::Tag { changes, .. } = &mut self.verb {
            let given = changes.len();
            changes.retain(|change| change != "--json");
            self.global.json |= changes.len() < given;
        }
        self
    }
}

/// What every verb understands.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Print JSON of a stable shape instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
    /// Talk to the daemon on the system bus (the default)
    #[arg(long, global = true, conflicts_with_all = ["session", "connect"])]
    pub system: bool,
    /// Talk to the daemon on the session bus
    #[arg(long, global = true, conflicts_with = "connect")]
    pub session: bool,
    /// Talk to the daemon on the bus at this D-Bus address
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub connect: Option<String>,
}

impl Global {
    /// The bus that is meant.
    pub fn bus(&self) -> BusChoice {
        match (&self.connect, self.session) {
            (Some(address), _) => BusChoice::Address(address.clone()),
            (None, true) => BusChoice::Session,
            (None, false) => BusChoice::System,
        }
    }
}

/// The verbs. A domain is named by its number, UUID or name, as with virsh.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Validate persona documents; needs no daemon
    Check {
        /// Documents, YAML, JSON or TOML; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The name of a persona whose document does not name itself
        #[arg(long)]
        name: Option<String>,
    },
    /// Print documents in canonical form, with their comments; needs no daemon
    Fmt {
        /// Documents, YAML, JSON or TOML (which becomes YAML); `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Put the canonical form in the place of the files
        #[arg(long, conflicts_with = "check")]
        write: bool,
        /// Change and print nothing; exit status 1 where a file is not in canonical form
        #[arg(long)]
        check: bool,
        /// The name of a persona whose document does not name itself
        #[arg(long)]
        name: Option<String>,
    },
    /// Print the JSON Schema of persona documents, for editors; needs no daemon
    Schema,
    /// Replay recorded metrics through a persona's rules and say what would have been done, and why; needs no daemon
    Simulate(Simulate),
    /// Store a persona
    Create {
        /// The document, YAML, JSON or TOML; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The name of a persona whose document does not name itself
        #[arg(long)]
        name: Option<String>,
        /// A note that is kept with the version
        #[arg(long)]
        note: Option<String>,
    },
    /// Store a further version of a persona and make it current
    Update {
        /// The persona
        #[arg(value_name = "NAME")]
        name: String,
        /// The document, YAML, JSON or TOML; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// A note that is kept with the version
        #[arg(long)]
        note: Option<String>,
    },
    /// List the personas
    List,
    /// Show a persona's document, or what is in force on a domain
    Show {
        /// The persona; with --effective the domain, with --override the tag
        #[arg(value_name = "NAME[@VERSION]")]
        persona: String,
        /// Show what is in force on a domain, with where each value was written
        #[arg(long, conflicts_with = "fragment")]
        effective: bool,
        /// Show the override that a tag lays over personas
        #[arg(long = "override")]
        fragment: bool,
    },
    /// Compare the meaning of two personas; exit status 0 where it is the same, 1 where it differs, 2 on trouble
    Diff {
        /// A file, or a stored persona
        #[arg(value_name = "FILE|NAME[@VERSION]")]
        before: String,
        /// Another
        #[arg(value_name = "FILE|NAME[@VERSION]")]
        after: String,
    },
    /// List the versions of a persona
    History {
        /// The persona
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make a stored version current
    SetCurrent {
        /// The persona with the version
        #[arg(value_name = "NAME@VERSION")]
        persona: String,
    },
    /// Delete a persona with all its versions
    Delete {
        /// The persona
        #[arg(value_name = "NAME")]
        name: String,
        /// Delete it although domains are bound to it
        #[arg(long)]
        force: bool,
    },
    /// List the domains with what they have
    Domains,
    /// Show one domain
    Status {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
    },
    /// Give a domain a persona
    Apply {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
        /// The persona; with a version, the domain stays at it
        #[arg(value_name = "NAME[@VERSION]")]
        persona: String,
        /// Change nothing and show what would change
        #[arg(long, conflicts_with = "wait")]
        dry_run: bool,
        /// Wait until the persona is active in the guest or has failed
        #[arg(long)]
        wait: bool,
        /// How long to wait
        #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "wait")]
        timeout: u64,
    },
    /// Take an applied persona off a domain, which falls back to its tags or the default, and what rules have adjusted of it;
    /// where none is applied, the shift that a rule began, or else what rules have adjusted
    Deactivate {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
    },
    /// Run a command in the guest of a domain, as its persona and its owner allow; exit status that of the command, 124 where
    /// its time was over, 125 where it did not run, 126 where it cannot be run, 127 where there is none
    Exec(Exec),
    /// Add to a domain's definition what it lacks for live scaling
    Adopt(Adopt),
    /// Add and remove tags of a domain, or show them
    Tag {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
        /// Tags to add (+TAG) and to remove (-TAG)
        #[arg(value_name = "+TAG|-TAG", allow_hyphen_values = true)]
        changes: Vec<String>,
    },
    /// Say which persona a tag means, or what it lays over the persona of a domain
    Map {
        /// The tag
        #[arg(value_name = "TAG")]
        tag: String,
        /// The persona
        #[arg(
            value_name = "PERSONA",
            required_unless_present = "fragment",
            conflicts_with = "fragment"
        )]
        persona: Option<String>,
        /// Lay this document, in YAML, JSON or TOML, over whatever persona a domain has; `-` is standard input
        #[arg(long = "override", value_name = "FILE")]
        fragment: Option<PathBuf>,
        /// Where a domain has several mapped tags, the persona of the highest wins, and a higher override is laid over a
        /// lower one
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i32,
    },
    /// List what tags mean
    Maps,
    /// Take the meaning of a tag away
    Unmap {
        /// The tag
        #[arg(value_name = "TAG")]
        tag: String,
    },
    /// Say why a domain did or did not change
    Explain {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
        /// The decision that was in force then, as it was recorded: a date and time, a time of today (14:05), or how long
        /// ago ("-5m", "2h")
        #[arg(long, value_name = "TIME", value_parser = super::time::parse_since, allow_hyphen_values = true)]
        at: Option<super::time::Since>,
    },
    /// Write what was seen of a domain and done with it to a file, which `simulate` plays
    Record {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
        /// The file; `-` is standard output
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// From then on: a date and time, a time of today (14:05), or how long ago ("-5m", "2h") [default: all]
        #[arg(long, value_name = "TIME", value_parser = super::time::parse_since, allow_hyphen_values = true)]
        since: Option<super::time::Since>,
        /// Until then [default: now]
        #[arg(long, value_name = "TIME", value_parser = super::time::parse_since, allow_hyphen_values = true)]
        until: Option<super::time::Since>,
    },
    /// List what waits for a person's word: what a persona may only propose
    Approvals,
    /// Let be done what a proposal wants
    Approve {
        /// The number of the proposal
        #[arg(value_name = "ID")]
        id: u64,
    },
    /// Let a proposal not be done; it is proposed again only when its cause was gone once and has come back
    Reject {
        /// The number of the proposal
        #[arg(value_name = "ID")]
        id: u64,
    },
    /// Leave a domain's vCPUs, memory and limits as they are for a while, also over a restart of it
    Hold {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
        /// For how long, such as 30m, 2h or 7d: one second to thirty days
        #[arg(value_name = "FOR", value_parser = super::time::parse_length)]
        length: std::time::Duration,
        /// Only this
        #[arg(long, value_enum)]
        resource: Option<Held>,
    },
    /// End every hold of a domain, and forget quarantine and waits after failed steps
    Release {
        /// The domain
        #[arg(value_name = "DOMAIN")]
        domain: String,
    },
    /// Show the record of what was decided and done
    Audit {
        /// Only about this domain
        #[arg(long)]
        domain: Option<String>,
        /// Only from then on: a date and time, or how long ago ("2h", "30 min")
        #[arg(long, value_name = "TIME", value_parser = super::time::parse_since)]
        since: Option<super::time::Since>,
        /// At most so many, the latest ones
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Show what is decided and done, as it happens
    Watch {
        /// Only about this domain
        #[arg(long)]
        domain: Option<String>,
    },
    /// Say what works for live scaling, what does not, and how to mend it
    Doctor {
        /// Only this domain
        #[arg(value_name = "DOMAIN")]
        domain: Option<String>,
    },
    /// Give back on every domain what was changed, and manage nothing until the daemon is started anew
    Retire {
        /// Wait until nothing is left to be given back
        #[arg(long)]
        wait: bool,
        /// How long to wait
        #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
        timeout: u64,
    },
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    #[command(hide = true)]
    Man,
}

/// What `exec` is told.
#[derive(Clone, Debug, Args)]
pub struct Exec {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    pub domain: String,
    /// The user of the guest that it runs as
    #[arg(long, value_name = "USER", default_value = "nobody")]
    pub user: String,
    /// How long it may run, such as 30s or 10m, an hour at most
    #[arg(long, value_name = "FOR", default_value = "60s", value_parser = super::time::parse_length)]
    pub timeout: std::time::Duration,
    /// The directory of the guest that it runs in
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    pub directory: String,
    /// A variable over those of the persona; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// The program, by name or absolute path, and its arguments; no shell is between
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub argv: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// What `adopt` is told.
#[derive(Clone, Debug, Args)]
pub struct Adopt {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    pub domain: String,
    /// Change nothing and show what would change
    #[arg(long)]
    pub dry_run: bool,
    /// vCPUs that it may have at most [default: four times those at boot, no more than the host has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_vcpus: Option<u32>,
    /// Memory that it may have at most, boot memory included [default: four times that at boot, no more than the host has]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_memory: Option<Bytes>,
    /// Put the definition back as it was before it was adopted
    #[arg(long, conflicts_with_all = ["max_vcpus", "max_memory"])]
    pub undo: bool,
    /// Do not ask
    #[arg(long, short, conflicts_with = "dry_run")]
    pub yes: bool,
}

/// What `hold` leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Held {
    /// vCPUs
    Vcpus,
    /// Memory
    Memory,
    /// CPU weight and cap, network bandwidth, limits of the disks
    Limits,
}

impl From<Held> for crate::view::Held {
    fn from(held: Held) -> Self {
        match held {
            Held::Vcpus => Self::Vcpus,
            Held::Memory => Self::Memory,
            Held::Limits => Self::Limits,
        }
    }
}

/// What `simulate` is told.
#[derive(Clone, Debug, Args)]
pub struct Simulate {
    /// The document, YAML, JSON or TOML; `-` is standard input
    #[arg(value_name = "PERSONA")]
    pub persona: PathBuf,
    /// A recording that `record` wrote, or recorded metrics: comma-separated values whose first line names the columns, such as
    /// `time,cpu.utilization,memory.available [MiB],event`
    #[arg(long, value_name = "TRACE")]
    pub trace: PathBuf,
    /// A document on which the persona builds; may be given several times
    #[arg(long = "base", value_name = "FILE")]
    pub bases: Vec<PathBuf>,
    /// The name of a persona whose document does not name itself
    #[arg(long)]
    pub name: Option<String>,
    /// vCPUs that the domain starts with, and the most that it may have [default: the persona's]
    #[arg(long, value_name = "N[:MAX]", value_parser = vcpus)]
    pub vcpus: Option<Range<u32>>,
    /// Memory that the domain starts with, and the most that it may have [default: the persona's]
    #[arg(long, value_name = "SIZE[:MAX]", value_parser = memory)]
    pub memory: Option<Range<Bytes>>,
    /// vCPUs that the host has for the domain [default: as many as it may have]
    #[arg(long, value_name = "N")]
    pub host_vcpus: Option<u32>,
    /// Memory that the host has for the domain [default: as much as it may have]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub host_memory: Option<Bytes>,
    /// Whether readings are played as they are, or are the work of a domain of the start size, which is less of a larger
    /// one
    #[arg(long, value_enum, default_value_t)]
    pub load: Load,
}

/// How the load of a trace goes with the size of the domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Load {
    /// Readings are played as they are
    #[default]
    Open,
    /// Readings of CPU and memory were recorded at the start size and change with the size
    Closed,
}

/// A start, and a limit where one is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<T> {
    /// The start.
    pub start: T,
    /// The limit.
    pub most: Option<T>,
}

fn range<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Range<T>, String> {
    let (start, most) = match text.split_once(':') {
        Some((start, most)) => (start, Some(read(most)?)),
        None => (text, None),
    };
    Ok(Range {
        start: read(start)?,
        most,
    })
}

fn vcpus(text: &str) -> Result<Range<u32>, String> {
    range(text, |count| {
        let read = count.trim().parse().ok().filter(|count| *count > 0);
        read.ok_or_else(|| format!("`{count}` is no number of vCPUs; write 4, or 4:16"))
    })
}

fn memory(text: &str) -> Result<Range<Bytes>, String> {
    range(text, size)
}

fn size(text: &str) -> Result<Bytes, String> {
    let advice = "write a size such as `4 GiB`, or `4 GiB:16 GiB`";
    match Quantity::parse(text) {
        // A size is below 2^53 and not negative, and a part of a byte is none.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(quantity) if quantity.unit == Unit::Bytes && quantity.value >= 1.0 => {
            Ok(Bytes(quantity.value as u64))
        }
        Ok(_) => Err(format!("`{text}` is no size; {advice}")),
        Err(error) => Err(format!("{error}; {advice}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn tags(arguments: &[&str]) -> (Vec<String>, bool) {
        let cli = Cli::try_parse_from(["virt-persona", "tag", "web"].iter().chain(arguments))
            .expect("a good command line")
            .as_meant();
        let Verb::Tag { changes, .. } = cli.verb else {
            return (Vec::new(), false);
        };
        (changes, cli.global.json)
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_of_a_simulated_domain_are_read_with_their_limits() {
        fn range<T>(start: T, most: Option<T>) -> Range<T> {
            Range { start, most }
        }
        assert_eq!(vcpus("4"), Ok(range(4, None)));
        assert_eq!(vcpus("4:16"), Ok(range(4, Some(16))));
        let gib = |count: u64| Bytes::from_mib(count * 1024);
        assert_eq!(memory("4 GiB:16GiB"), Ok(range(gib(4), Some(gib(16)))));
        assert!(vcpus("0").is_err() && vcpus("4:").is_err() && vcpus("-1").is_err());
        for bad in ["4", "4 G", "0 B", "1 GiB:", "5 min"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_to_remove_are_no_options() {
        let read = |arguments| {
            let (tags, json) = tags(arguments);
            (tags.join(" "), json)
        };
        assert_eq!(
            read(&["+web", "-http", "-db"]),
            ("+web -http -db".to_owned(), false)
        );
        assert_eq!(read(&["-db", "--json"]), ("-db".to_owned(), true));
        assert_eq!(read(&["--json", "-db"]), ("-db".to_owned(), true));
        assert_eq!(read(&["+db", "--json"]), ("+db".to_owned(), true));
    }
}
