//! A persona's scripts and variables through qemu-guest-agent: pre script, the two files of variables, post script, and a
//! record in the guest of what was done, so that it is not done twice. What fails is undone, as far as files go.

use std::time::Duration;

use agent_protocol::environment::{
    ENVIRONMENT_D, MARK_BEGIN, PROFILE_D, render_environment_d, render_profile,
};
use agent_protocol::{Activation, OnFailure, Script};
use persona::domain::DomainId;
use serde::Serialize;
use serde_json::json;

use super::program::{Program, quoted};
use super::{StandIn, StandInError, words};

/// What was activated last, by the key that the daemon gave it.
const RECORD: &str = "/var/lib/virt-persona-stand-in";
/// Scripts lie here while they run.
const SCRIPTS: &str = "/run/virt-persona-scripts";
/// What an activation cannot do without.
const NEEDED: [&str; 2] = ["guest-exec", "guest-exec-status"];
/// Exit status of timeout(1) for a program whose time was over.
const OVERRAN: i64 = 124;
/// So much longer than the script itself is the guest waited for.
const MARGIN: Duration = Duration::from_secs(30);

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScriptEnd {
    /// Its exit status.
    pub status: i64,
    /// The end of what it said.
    pub output: String,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The scripts that ran, by stage.
    pub scripts: Vec<(&'static str, ScriptEnd)>,
    /// Files that hold the variables now.
    pub files: Vec<&'static str>,
    /// The same had been done before, and no script ran again.
    pub again: bool,
    /// What of the persona is not in force in the guest, because qemu-guest-agent cannot do it.
    pub left_out: Vec<String>,
}

impl Done {
    /// What is said of it while it is in force.
    pub fn remark(&self) -> String {
        let mut text = "by qemu-guest-agent, which stands in for virt-persona-agent".to_owned();
        if !self.left_out.is_empty() {
            text.push_str("; not in force in the guest: ");
            text.push_str(&self.left_out.join(", "));
        }
        text
    }
}

type Files = [(&'static str, Option<Vec<u8>>); 2];

impl StandIn {
    /// Makes a persona active, if `key` is not what was made active last.
    ///
    /// # Errors
    /// [`StandInError::is_passing`] tells what may be tried again from what has failed and is undone.
    pub async fn activate(
        &self,
        domain: DomainId,
        key: &str,
        activation: &Activation,
    ) -> Result<Done, StandInError> {
        self.check_allowed(domain).await?;
        let wanted = files(activation);
        let before = self.current(domain).await?;
        let mut done = Done {
            files: wanted
                .iter()
                .filter(|(_, text)| text.is_some())
                .map(|(path, _)| *path)
                .collect(),
            left_out: left_out(activation),
            again: self.record(domain).await?.as_deref() == Some(key),
            ..Done::default()
        };
        if done.again {
            self.put(domain, &before, &wanted).await?;
            return Ok(done);
        }
        if let Some(script) = &activation.pre {
            let end = self.script(domain, "pre", script, activation).await?;
            if end.status != 0 {
                return Err(failed("the pre script", &end));
            }
            done.scripts.push(("pre", end));
        }
        if let Err(error) = self.put(domain, &before, &wanted).await {
            self.put_back(domain, &wanted, &before).await;
            return Err(error);
        }
        if let Some(script) = &activation.post {
            let ended = self.script(domain, "post", script, activation).await;
            let end = match ended {
                Ok(end) => end,
                Err(error) => {
                    self.put_back(domain, &wanted, &before).await;
                    return Err(error);
                }
            };
            if end.status != 0 && script.on_failure == OnFailure::Rollback {
                self.put_back(domain, &wanted, &before).await;
                return Err(failed("the post script", &end));
            }
            done.scripts.push(("post", end));
        }
        self.write(domain, RECORD, key.as_bytes(), "0600", "0")
            .await?;
        Ok(done)
    }

    /// Takes back what an activation has left, if there is any.
    ///
    /// # Errors
    /// As [`StandIn::activate`].
    pub async fn deactivate(&self, domain: DomainId) -> Result<Done, StandInError> {
        self.check_allowed(domain).await?;
        if self.record(domain).await?.is_none() {
            return Ok(Done {
                again: true,
                ..Done::default()
            });
        }
        let before = self.current(domain).await?;
        let nothing = [(ENVIRONMENT_D, None), (PROFILE_D, None)];
        self.put(domain, &before, &nothing).await?;
        self.remove(domain, RECORD).await?;
        Ok(Done::default())
    }

    async fn check_allowed(&self, domain: DomainId) -> Result<(), StandInError> {
        let info = self.ask(domain, "guest-info", json!({})).await?;
        let allowed = |command: &str| {
            info["supported_commands"].as_array().is_some_and(|all| {
                all.iter()
                    .any(|one| one["name"] == command && one["enabled"] == true)
            })
        };
        match NEEDED.into_iter().find(|command| !allowed(command)) {
            None => Ok(()),
            Some(command) => Err(StandInError::NotAllowed { command }),
        }
    }

    async fn record(&self, domain: DomainId) -> Result<Option<String>, StandInError> {
        let record = self.read(domain, RECORD).await?;
        Ok(record.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The two files as they are, if they are ours to write.
    async fn current(&self, domain: DomainId) -> Result<Files, StandInError> {
        let mut files: Files = [(ENVIRONMENT_D, None), (PROFILE_D, None)];
        for (path, content) in &mut files {
            *content = self.read(domain, path).await?;
            if content
                .as_ref()
                .is_some_and(|bytes| !bytes.starts_with(MARK_BEGIN.as_bytes()))
            {
                return Err(StandInError::Foreign { path });
            }
        }
        Ok(files)
    }

    /// Brings the files from one content to another and looks whether they hold it.
    async fn put(&self, domain: DomainId, from: &Files, to: &Files) -> Result<(), StandInError> {
        for ((path, before), (_, after)) in from.iter().zip(to) {
            if before == after {
                continue;
            }
            match after {
                Some(bytes) => self.write(domain, path, bytes, "0644", "0").await?,
                None => self.remove(domain, path).await?,
            }
            if self.read(domain, path).await? != *after {
                return Err(StandInError::NotKept {
                    path: (*path).to_owned(),
                });
            }
        }
        Ok(())
    }

    /// After a failure. One more failure leaves what is there, and the log says so.
    async fn put_back(&self, domain: DomainId, from: &Files, to: &Files) {
        if let Err(error) = self.put(domain, from, to).await {
            tracing::warn!(%domain, %error, "variables could not be put back in the guest");
        }
    }

    async fn script(
        &self,
        domain: DomainId,
        stage: &'static str,
        script: &Script,
        activation: &Activation,
    ) -> Result<ScriptEnd, StandInError> {
        let path = format!("{SCRIPTS}/{stage}");
        self.write(domain, &path, script.text.as_bytes(), "0700", &script.user)
            .await?;
        let mut environment: Vec<String> = activation
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        environment.push(format!("VIRT_PERSONA_NAME={}", activation.persona));
        environment.push(format!("VIRT_PERSONA_GENERATION={}", activation.generation));
        environment.push(format!("VIRT_PERSONA_STAGE={stage}"));
        let time = Duration::from_millis(script.timeout_ms);
        let command = command(script, &path);
        let program = Program {
            path: "/bin/sh",
            arguments: &["-c", &command],
            environment: &environment,
            input: &[],
            time: time + MARGIN,
        };
        let ended = self.run(domain, program).await;
        // It may hold secrets; a guest that does not answer keeps it in memory only.
        if let Err(error) = self.remove(domain, &path).await {
            tracing::debug!(%domain, %error, "a script could not be removed in the guest");
        }
        let ended = ended?;
        let mut output = ended.output;
        output.extend_from_slice(&ended.errors);
        Ok(ScriptEnd {
            status: ended.status,
            output: words(&output),
        })
    }
}

/// The script under its time and its user, for a shell of root. `su` of util-linux and that of busybox both take this.
fn command(script: &Script, path: &str) -> String {
    let seconds = script.timeout_ms.div_ceil(1000).max(1);
    let interpreter: Vec<String> = script.interpreter.split_whitespace().map(quoted).collect();
    let run = format!(
        "cd / && exec timeout {seconds} {} {}",
        interpreter.join(" "),
        quoted(path)
    );
    if script.user == "root" {
        return run;
    }
    format!(
        "exec su -s /bin/sh {} -c {}",
        quoted(&script.user),
        quoted(&run)
    )
}

fn failed(what: &str, end: &ScriptEnd) -> StandInError {
    let words = match (end.status, end.output.is_empty()) {
        (OVERRAN, _) => "its time was over".to_owned(),
        (status, true) => format!("exit status {status}, and it said nothing"),
        (status, false) => format!("exit status {status}: {}", end.output),
    };
    StandInError::Failed {
        doing: what.to_owned(),
        words,
    }
}

fn files(activation: &Activation) -> Files {
    let variables = &activation.environment;
    let there = !variables.is_empty();
    let text = |render: fn(&_) -> String| there.then(|| render(variables).into_bytes());
    [
        (ENVIRONMENT_D, text(render_environment_d)),
        (PROFILE_D, text(render_profile)),
    ]
}

fn left_out(activation: &Activation) -> Vec<String> {
    let mut left_out = Vec::new();
    match activation.settings.count() {
        0 => {}
        1 => left_out.push("1 setting".to_owned()),
        many => left_out.push(format!("{many} settings")),
    }
    if !activation.commands.is_empty() {
        left_out.push("its commands".to_owned());
    }
    left_out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(user: &str) -> Script {
        Script {
            interpreter: "/bin/sh -eu".into(),
            text: String::new(),
            timeout_ms: 1500,
            user: user.into(),
            on_failure: OnFailure::default(),
        }
    }

    #[test]
    fn a_script_runs_under_its_time_and_as_its_user() {
        assert_eq!(
            command(&script("root"), "/run/x/pre"),
            "cd / && exec timeout 2 '/bin/sh' '-eu' '/run/x/pre'"
        );
        assert_eq!(
            command(&script("o'hara"), "/run/x/pre"),
            r"exec su -s /bin/sh 'o'\''hara' -c 'cd / && exec timeout 2 '\''/bin/sh'\'' '\''-eu'\'' '\''/run/x/pre'\'''"
        );
    }

    #[test]
    fn a_script_that_failed_says_why() {
        let end = |status, output: &str| ScriptEnd {
            status,
            output: output.into(),
        };
        let text = |end| failed("the pre script", &end).to_string();
        assert_eq!(
            text(end(3, "no disk")),
            "the pre script failed in the guest: exit status 3: no disk"
        );
        assert_eq!(
            text(end(124, "x")),
            "the pre script failed in the guest: its time was over"
        );
        assert!(text(end(1, "")).ends_with("exit status 1, and it said nothing"));
    }
}
