//! What every test begins with, a lab with a daemon in it, and the words in which tests ask: what the daemon says by its
//! command line, what libvirt says, what the guest itself says. A question that gets no answer fails the test, with the
//! sentence of the one who should have answered.

use std::cell::RefCell;
use std::fmt::Debug;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    Daemon, Domain, DomainSpec, GuestStatus, Host, Lab, StateDisk, Variant, Witness, ensure,
    eventually,
};

/// Long enough for a busy host to do anything at all; nothing waits for it where things go well.
const IN_THE_END: Duration = Duration::from_secs(120);

/// The tests look more often than a person would need, and so do their daemons.
const TICK: &str = "[tick]\ninterval_ms = 500\nslow_interval_ms = 1000\ntelemetry_ms = 500\n";

// The rules of these tests take a guest for busy above 10 % and for idle below 4 %. Idle ones take about 1 %; busy ones
// what the host has left for them, which is far from 100 % when it has few CPUs and other work.

/// A mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// A lab with a daemon.
pub(crate) struct Scene {
    daemon: RefCell<Daemon>,
    lab: Lab,
}

impl Scene {
    /// `settings` is TOML of the daemon's configuration.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_with_environment(settings, &[])
    }

    /// With more in the daemon's environment.
    pub(crate) fn start_with_environment(settings: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_in(must(Lab::start()), settings, environment, Host::AsItIs)
    }

    /// With a daemon that sees no CPU pressure of the host, whatever else this one is used for at the moment.
    pub(crate) fn start_on_calm_host(settings: &str) -> Self {
        Self::start_in(must(Lab::start()), settings, &[], Host::Calm)
    }

    /// On another host, as its libvirtd takes it.
    pub(crate) fn start_on_host(name: &str) -> Self {
        Self::start_in(must(Lab::start_as_host(name)), "", &[], Host::AsItIs)
    }

    fn start_in(lab: Lab, settings: &str, environment: &[(&str, &str)], host: Host) -> Self {
        let daemon = must(Daemon::start_with(
            &lab,
            &format!("{TICK}{settings}"),
            environment,
            host,
        ));
        Self {
            daemon: RefCell::new(daemon),
            lab,
        }
    }

    /// A running domain of this variant, as changed by `change`, with its guest up.
    pub(crate) fn boot(
        &self,
        name: &str,
        variant: Variant,
        change: impl FnOnce(&mut DomainSpec),
    ) -> Domain {
        let mut spec = DomainSpec::new(name, variant);
        change(&mut spec);
        let domain = must(spec.boot(&self.lab));
        self.until(&format!("the daemon knows {name}"), || {
            self.lab.status(name).is_ok()
        });
        domain
    }

    /// A running domain with all that scaling needs.
    pub(crate) fn boot_full(&self, name: &str) -> Domain {
        self.boot(name, Variant::Full, |_| {})
    }

    /// Two of them, which boot side by side.
    pub(crate) fn boot_two(&self, names: [&str; 2]) -> [Domain; 2] {
        let domains =
            names.map(|name| must(DomainSpec::new(name, Variant::Full).define(&self.lab)));
        for domain in &domains {
            must(domain.start());
        }
        for domain in &domains {
            must(domain.wait_until_up());
            self.until("the daemon knows both domains", || domain.status().is_ok());
        }
        domains
    }

    /// A domain whose guest keeps the agent's state over restarts.
    pub(crate) fn boot_with_disk(&self, name: &str) -> Domain {
        self.boot(name, Variant::Full, |spec| {
            spec.state_disk = StateDisk::Ext4;
        })
    }

    /// Waits for it; `what` is a sentence about what must be.
    pub(crate) fn until(&self, what: &str, look: impl Fn() -> bool) {
        if let Err(failure) = eventually(what, IN_THE_END, || {
            ensure(look(), || "it is not so".to_owned())
        }) {
            let domains = self.lab.persona_text(&["domains"]);
            let audit = self.lab.persona_text(&["audit", "--limit", "40"]);
            panic!("{failure}\n--- domains\n{domains:?}\n--- audit\n{audit:?}");
        }
    }

    /// The same, looking as often as it can: for moments that pass.
    pub(crate) fn until_at_once(&self, what: &str, look: impl Fn() -> bool) {
        let begin = std::time::Instant::now();
        while !look() {
            assert!(begin.elapsed() < IN_THE_END, "{what}: it never was so");
        }
    }

    /// What `virt-persona --json` answers.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Value {
        must(self.lab.persona(arguments))
    }

    /// What `virt-persona` says to what it must refuse.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = must(self.lab.try_persona(arguments));
        assert_eq!(
            output.status.code(),
            Some(1),
            "virt-persona {arguments:?}: {output:?}"
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Stores a persona.
    pub(crate) fn store(&self, document: &str) {
        let path = self.lab.directory().join("persona.yaml");
        must(std::fs::write(&path, document));
        self.cli(&["create", &path.display().to_string()]);
    }

    /// Says which persona a tag means.
    pub(crate) fn map(&self, tag: &str, persona: &str, priority: u32) {
        self.cli(&["map", tag, persona, "--priority", &priority.to_string()]);
    }

    /// Gives a domain a persona and waits until its guest has it active.
    pub(crate) fn apply(&self, guest: &Guest<'_>, persona: &str) {
        self.until("the agent is connected", || {
            self.status(guest)["agent"]["state"] == "connected"
        });
        self.bind(guest, persona);
        self.until_active(guest, persona);
    }

    /// Gives a domain a persona and does not wait.
    pub(crate) fn bind(&self, guest: &Guest<'_>, persona: &str) {
        self.cli(&["apply", guest.name(), persona]);
    }

    /// Waits until the guest has a persona active.
    pub(crate) fn until_active(&self, guest: &Guest<'_>, persona: &str) {
        self.until(&format!("{persona} is active"), || {
            self.is_active(guest, persona)
        });
    }

    /// Whether the guest has a persona active, as the daemon says.
    pub(crate) fn is_active(&self, guest: &Guest<'_>, persona: &str) -> bool {
        let status = self.status(guest);
        status["activation"]["state"] == "active" && status["persona"]["name"] == persona
    }

    pub(crate) fn status(&self, guest: &Guest<'_>) -> Value {
        self.cli(&["status", guest.name()])
    }

    pub(crate) fn explain(&self, guest: &Guest<'_>) -> Value {
        self.cli(&["explain", guest.name()])
    }

    /// What `explain` says of one resource, `vcpus` or `memory`.
    pub(crate) fn explain_resource(&self, guest: &Guest<'_>, resource: &str) -> Value {
        let resources = list(&self.explain(guest)["resources"]);
        let found = resources
            .into_iter()
            .find(|line| line["resource"] == resource);
        found.unwrap_or_default()
    }

    /// The limits by which the latest wish for a resource was cut, by their words.
    pub(crate) fn limits(&self, guest: &Guest<'_>, resource: &str) -> Vec<String> {
        let line = self.explain_resource(guest, resource);
        list(&line["clamps"])
            .iter()
            .map(|clamp| text(&clamp["by"]))
            .collect()
    }

    /// The one sentence of `explain`.
    pub(crate) fn summary(&self, guest: &Guest<'_>) -> String {
        text(&self.explain(guest)["summary"])
    }

    /// One of the doctor's checks of a domain; null where there is none of this name.
    pub(crate) fn check(&self, guest: &Guest<'_>, name: &str) -> Value {
        self.find_check(&["--json", "doctor", guest.name()], name)
    }

    /// One of the doctor's checks of the host.
    pub(crate) fn host_check(&self, name: &str) -> Value {
        self.find_check(&["--json", "doctor"], name)
    }

    /// The doctor's exit status says whether something is wrong; its checks are printed either way.
    fn find_check(&self, arguments: &[&str], name: &str) -> Value {
        let output = must(self.lab.try_persona(arguments));
        let report: Value = must(serde_json::from_slice(&output.stdout));
        let checks = list(&report["checks"]);
        let fails = checks.iter().any(|check| check["state"] == "fail");
        assert_eq!(output.status.success(), !fails, "{output:?}");
        let found = checks.into_iter().find(|check| check["name"] == name);
        found.unwrap_or_default()
    }

    /// All records, or those about one domain, the oldest first.
    pub(crate) fn audit(&self, about: Option<&Guest<'_>>) -> Vec<Value> {
        let mut arguments = vec!["audit", "--limit", "1000"];
        if let Some(guest) = about {
            arguments.extend(["--domain", guest.name()]);
        }
        list(&self.cli(&arguments)["records"])
    }

    /// Texts of the records of one kind about a domain.
    pub(crate) fn said(&self, about: &Guest<'_>, kind: &str) -> Vec<String> {
        texts(&self.audit(Some(about)), kind)
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// SIGKILL to the daemon.
    pub(crate) fn kill_daemon(&self) {
        must(self.daemon.borrow_mut().kill());
    }

    /// The agent's program as `tests/guest/build` put it into the guest.
    pub(crate) fn agent_program(&self) -> PathBuf {
        // Tests are in TARGET/PROFILE/deps.
        let this = must(std::env::current_exe());
        let target = this.ancestors().nth(3).unwrap_or(&this);
        target.join("x86_64-unknown-linux-gnu/guest/virt-persona-agent")
    }

    /// Starts the daemon again over its store.
    pub(crate) fn start_daemon(&self) {
        must(self.daemon.borrow_mut().resume());
    }

    /// The daemon's process, for signals and its configuration.
    pub(crate) fn daemon(&self) -> &RefCell<Daemon> {
        &self.daemon
    }

    /// Writes the daemon's configuration.
    pub(crate) fn configure(&self, settings: &str) {
        must(self.daemon.borrow().configure(&format!("{TICK}{settings}")));
    }

    /// What `virt-personad --check-config` says of it: `Err` with its sentence where it is not valid.
    pub(crate) fn check_config(&self) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_virt-personad"))
            .arg("--check-config")
            .arg("--config")
            .arg(self.daemon.borrow().config())
            .output();
        let output = must(output);
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// A guest, asked through its witness.
pub(crate) struct Guest<'domain> {
    pub(crate) domain: &'domain Domain,
    pub(crate) witness: Witness<'domain>,
}

impl<'domain> Guest<'domain> {
    pub(crate) fn of(domain: &'domain Domain) -> Self {
        Self {
            domain,
            witness: domain.witness(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.domain.name()
    }

    pub(crate) fn status(&self) -> GuestStatus {
        must(self.witness.status())
    }

    /// The list of CPUs that the guest has online, `0-2`.
    pub(crate) fn online(&self) -> String {
        self.status().cpus_online
    }

    /// The list of CPUs that the guest knows of, online or not.
    pub(crate) fn present(&self) -> String {
        self.status().cpus_present
    }

    /// `MemTotal` in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status().mem_total
    }

    /// A file's text; `None` where it is not there.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        match self.witness.read(path) {
            Ok(text) => Some(text),
            Err(failure) if failure.to_string().contains("No such file") => None,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// The process of this name.
    pub(crate) fn pid_of(&self, program: &str) -> u64 {
        // SIGCONT changes nothing in a process that runs, and the answer names it.
        let pids = must(self.witness.kill(program, "SIGCONT"));
        assert_eq!(pids.len(), 1, "{program}: {pids:?}");
        pids[0]
    }

    /// More CPU load than any number of vCPUs of these tests can do.
    pub(crate) fn load_cpus(&self) {
        must(self.witness.load_cpu(8000));
    }

    /// Holds so much memory, as far as 32 MiB stay available.
    pub(crate) fn load_memory(&self, bytes: u64) {
        must(self.witness.load_memory(bytes, 32 * MIB));
    }

    /// Ends all load.
    pub(crate) fn rest(&self) {
        must(self.witness.stop_load());
    }

    /// The boot that answers; `None` while nobody does.
    pub(crate) fn boot_id(&self) -> Option<String> {
        self.witness.status().ok().map(|status| status.boot_id)
    }
}

/// Texts of the records of one kind.
pub(crate) fn texts(records: &[Value], kind: &str) -> Vec<String> {
    records
        .iter()
        .filter(|record| record["kind"] == kind)
        .map(|record| text(&record["text"]))
        .collect()
}

/// A text; empty where there is none.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A list; empty where there is none.
pub(crate) fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// The answer, or the end of the test with the sentence of who should have given it.
#[track_caller]
pub(crate) fn must<T, E: Debug>(answer: Result<T, E>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(failure) => panic!("{failure:?}"),
    }
}
