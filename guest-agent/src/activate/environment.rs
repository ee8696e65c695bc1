//! A persona's variables as two files of the agent's own, so that no file of the guest's owner is edited: one for services and
//! sessions of systemd (environment.d(5)), one for login shells. Drop-ins of a higher number still win.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use agent_protocol::environment::{
    ENVIRONMENT_D, MARK, PROFILE_D, render_environment_d, render_profile,
};

use crate::durable::{DurableError, Writer};

/// Why the files are not as they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvironmentError {
    #[error("{path:?} was not written by virt-persona-agent; move it away")]
    Foreign { path: PathBuf },
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
type Render = fn(&Variables) -> String;

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

    /// Where these variables are, as the guest names the files.
    pub(crate) fn paths(variables: &Variables) -> Vec<String> {
        if variables.is_empty() {
            Vec::new()
        } else {
            vec![ENVIRONMENT_D.to_owned(), PROFILE_D.to_owned()]
        }
    }

    /// Whether the files are the agent's to write.
    pub(crate) fn check_ours(&self) -> Result<(), EnvironmentError> {
        for (path, _) in self.files() {
            if let Some(text) = read(&path)?
                && !text.starts_with(MARK.as_bytes())
            {
                return Err(EnvironmentError::Foreign { path });
            }
        }
        Ok(())
    }

    /// Whether the files hold exactly these variables.
    pub(crate) fn hold(&self, variables: &Variables) -> Result<bool, EnvironmentError> {
        for (path, render) in self.files() {
            let wanted = (!variables.is_empty()).then(|| render(variables).into_bytes());
            if read(&path)? != wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the files hold exactly these variables; no variables, no files.
    pub(crate) fn write(&self, variables: &Variables) -> Result<(), EnvironmentError> {
        for (path, render) in self.files() {
            if variables.is_empty() {
                self.writer.remove(&path)?;
                continue;
            }
            if let Some(directory) = path.parent() {
                self.writer.directory(directory, 0o755)?;
            }
            self.writer
                .replace(&path, render(variables).as_bytes(), 0o644)?;
        }
        Ok(())
    }

    fn files(&self) -> [(PathBuf, Render); 2] {
        let under = |path: &str| self.root.join(path.trim_start_matches('/'));
        [
            (under(ENVIRONMENT_D), render_environment_d),
            (under(PROFILE_D), render_profile),
        ]
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

    fn variables() -> Variables {
        [("A", "1"), ("NASTY", NASTY), ("EMPTY", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
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
        assert_eq!(files.hold(&Variables::new()).ok(), Some(false));
        files.write(&Variables::new()).unwrap();
        assert_eq!(files.hold(&Variables::new()).ok(), Some(true));
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
}
