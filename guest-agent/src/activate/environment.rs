//! A persona's variables as two files of the agent's own, so that no file of the guest's owner is edited: one for services and
//! sessions of systemd (environment.d(5)), one for login shells. Drop-ins of a higher number still win. What somebody has changed
//! in them is found here ([`EnvironmentFiles::changes`]) and kept by [`super::own`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use agent_protocol::environment::{
    ENVIRONMENT_D, MARK_BEGIN, PROFILE_D, render_environment_d, render_profile,
};

use super::found::{Form, found_in};
use crate::{
    customize::Key,
    durable::{DurableError, Writer},
};

/// Bytes of somebody's own lines that are kept for one file.
const LINES_MAX: usize = 8 * 1_024;

/// Why the files are not as they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvironmentError {
    #[error("{path:?} was not written by virt-persona-agent; move it away")]
    Foreign { path: PathBuf },
    #[error(
        "{path:?} has more than {LINES_MAX} bytes of lines of its own; move them into a file of another name"
    )]
    TooMuch { path: PathBuf },
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the environment")]
    Write(#[from] DurableError),
}

type Variables = BTreeMap<String, String>;

/// What the two files are to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) variables: Variables,
    /// Somebody's own lines, which stand behind the variables, by the path of the file.
    pub(crate) lines: BTreeMap<String, String>,
}

/// One of the two files.
#[derive(Clone, Copy)]
struct Place {
    path: &'static str,
    render: fn(&Variables) -> String,
    form: Form,
}

const PLACES: [Place; 2] = [
    Place {
        path: ENVIRONMENT_D,
        render: render_environment_d,
        form: Form::EnvironmentD,
    },
    // What is changed in both counts as it is here, where people look.
    Place {
        path: PROFILE_D,
        render: render_profile,
        form: Form::Profile,
    },
];

impl Environment {
    /// The text of a file; `None` is no file.
    fn text(&self, place: Place) -> Option<String> {
        let lines = self.lines.get(place.path);
        if self.variables.is_empty() && lines.is_none() {
            return None;
        }
        let mut text = (place.render)(&self.variables);
        if let Some(lines) = lines {
            text.push_str(lines);
            text.push('\n');
        }
        Some(text)
    }
}

/// The two files under one root.
#[derive(Debug)]
pub(crate) struct EnvironmentFiles {
    root: PathBuf,
    writer: Writer,
}

impl EnvironmentFiles {
    pub(crate) fn new(root: &Path, writer: Writer) -> Self {
        Self {
            root: root.to_owned(),
            writer,
        }
    }

    /// Where an environment is, as the guest names the files.
    pub(crate) fn paths(environment: &Environment) -> Vec<String> {
        PLACES
            .into_iter()
            .filter(|place| environment.text(*place).is_some())
            .map(|place| place.path.to_owned())
            .collect()
    }

    /// Whether the files are the agent's to write.
    pub(crate) fn check_ours(&self) -> Result<(), EnvironmentError> {
        for place in PLACES {
            let path = self.under(place);
            if let Some(text) = read(&path)?
                && !text.starts_with(MARK_BEGIN.as_bytes())
            {
                return Err(EnvironmentError::Foreign { path });
            }
        }
        Ok(())
    }

    /// Whether the files hold exactly this.
    pub(crate) fn hold(&self, environment: &Environment) -> Result<bool, EnvironmentError> {
        for place in PLACES {
            let wanted = environment.text(place).map(String::into_bytes);
            if read(&self.under(place))? != wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What somebody has changed since this was written: variables with another value or without one, and lines of one's
    /// own. A file that is gone is no change, nor is one that is not the agent's.
    pub(crate) fn changes(
        &self,
        written: &Environment,
    ) -> Result<BTreeMap<Key, Option<String>>, EnvironmentError> {
        let mut changes = BTreeMap::new();
        for place in PLACES {
            let path = self.under(place);
            let Some(bytes) = read(&path)? else {
                continue;
            };
            let text = String::from_utf8_lossy(&bytes);
            if !text.starts_with(MARK_BEGIN) || written.text(place).is_some_and(|same| same == text)
            {
                continue;
            }
            let found = found_in(&text, place.form);
            let names: BTreeSet<&String> = written
                .variables
                .keys()
                .chain(found.variables.keys())
                .collect();
            for name in names {
                let there = found.variables.get(name);
                let moved = there.is_none() && found.mentions(name);
                if there != written.variables.get(name) && !moved {
                    changes.insert(Key::Variable(name.clone()), there.cloned());
                }
            }
            let lines = (!found.lines.is_empty()).then(|| found.lines.join("\n"));
            if lines.as_ref().is_some_and(|lines| lines.len() > LINES_MAX) {
                return Err(EnvironmentError::TooMuch { path });
            }
            if lines.as_ref() != written.lines.get(place.path) {
                changes.insert(Key::Lines(place.path.to_owned()), lines);
            }
        }
        Ok(changes)
    }

    /// Makes the files hold exactly this; nothing to hold, no files.
    pub(crate) fn write(&self, environment: &Environment) -> Result<(), EnvironmentError> {
        for place in PLACES {
            let path = self.under(place);
            let Some(text) = environment.text(place) else {
                self.writer.remove(&path)?;
                continue;
            };
            if let Some(directory) = path.parent() {
                self.writer.directory(directory, 0o755)?;
            }
            self.writer.replace(&path, text.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    fn under(&self, place: Place) -> PathBuf {
        self.root.join(place.path.trim_start_matches('/'))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, EnvironmentError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EnvironmentError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{process::Command, sync::Arc};

    const NASTY: &str = "a'b \"c\" $HOME ${X} `id` \\ \\$ $$ # ; ü\t!";

    fn variables() -> Environment {
        let variables = [("A", "1"), ("NASTY", NASTY), ("EMPTY", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Environment {
            variables,
            ..Environment::default()
        }
    }

    fn files() -> (tempfile::TempDir, EnvironmentFiles) {
        let root = tempfile::tempdir().unwrap();
        let files = EnvironmentFiles::new(root.path(), Writer::new(Arc::default()));
        (root, files)
    }

    #[test]
    fn a_shell_reads_back_what_was_written() {
        let (root, files) = files();
        files.write(&variables()).unwrap();
        let path = root.path().join("etc/profile.d/50-virt-persona.sh");
        let program = format!(
            ". {}; printf '%s|%s|%s' \"$A\" \"$NASTY\" \"${{EMPTY-unset}}\"",
            path.display()
        );
        let output = Command::new("/bin/sh")
            .args(["-eu", "-c", &program])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("1|{NASTY}|")
        );
    }

    #[test]
    fn no_variables_no_files() {
        let (root, files) = files();
        files.write(&variables()).unwrap();
        assert_eq!(files.hold(&variables()).ok(), Some(true));
        assert_eq!(files.hold(&Environment::default()).ok(), Some(false));
        files.write(&Environment::default()).unwrap();
        assert_eq!(files.hold(&Environment::default()).ok(), Some(true));
        assert!(
            !root
                .path()
                .join("etc/profile.d/50-virt-persona.sh")
                .exists()
        );
    }

    #[test]
    fn a_file_of_somebody_else_is_left_alone() {
        let (root, files) = files();
        let path = root.path().join("etc/profile.d/50-virt-persona.sh");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "export MINE=1\n").unwrap();
        assert!(matches!(
            files.check_ours(),
            Err(EnvironmentError::Foreign { .. })
        ));
    }

    #[test]
    fn what_was_changed_in_either_file_is_found_and_nothing_else() {
        let (root, files) = files();
        let path = |name: &str| root.path().join(name.trim_start_matches('/'));
        let edit = |name: &str, from: &str, to: &str| {
            let text = fs::read_to_string(path(name)).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(path(name), text.replace(from, to)).unwrap();
        };
        files.write(&variables()).unwrap();
        assert_eq!(files.changes(&variables()).unwrap(), BTreeMap::new());
        edit(ENVIRONMENT_D, "A=\"1\"", "A=nine");
        edit(
            PROFILE_D,
            "export EMPTY=''\n",
            "export MORE=\"x y\"\n# mine\n",
        );
        let text = fs::read_to_string(path(PROFILE_D)).unwrap();
        fs::write(path(PROFILE_D), text + "umask 27\n").unwrap();
        let found = files.changes(&variables()).unwrap();
        let key = |name: &str| Key::Variable(name.to_owned());
        let text = |text: &str| Some(text.to_owned());
        let expected = [
            (key("A"), text("nine")),
            (key("EMPTY"), None),
            (key("MORE"), text("x y")),
            (Key::Lines(PROFILE_D.to_owned()), text("# mine\numask 27")),
        ];
        assert_eq!(found, expected.into());
        // A file that is gone says nothing.
        fs::remove_file(path(PROFILE_D)).unwrap();
        assert_eq!(files.changes(&variables()).unwrap().len(), 1);
    }

    #[test]
    fn what_is_kept_is_found_unchanged_again() {
        let (root, files) = files();
        let mut kept = variables();
        let own = "# a comment\nif [ -d /opt ]; then\n    export A='2'\nfi\nexport B='3'";
        kept.lines.insert(PROFILE_D.to_owned(), own.to_owned());
        kept.lines
            .insert(ENVIRONMENT_D.to_owned(), "# and one here".to_owned());
        files.write(&kept).unwrap();
        assert_eq!(files.changes(&kept).unwrap(), BTreeMap::new());
        let path = root.path().join(PROFILE_D.trim_start_matches('/'));
        assert!(
            fs::read_to_string(path)
                .unwrap()
                .ends_with("fi\nexport B='3'\n")
        );
    }
}
