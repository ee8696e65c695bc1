//! The steps of the demo, in their order. Each prints what it does and what was seen; one that was not seen ends the
//! demo with a failure.

use std::time::{Duration, Instant};

use virt_persona::view::{ActivationState, AgentState, ExplainView};

use crate::harness::{
    Daemon as RunningDaemon, Domain, DomainSpec, Failure, Lab, Outcome, Variant, ensure,
    eventually, repository,
};
use crate::jobs::Jobs;
use crate::screen::{Screen, seconds};
use crate::sight::{Daemon, MIB, Sight, Size, vcpus};
use crate::watch::{Quiet, Watched, watch};

/// The domain's name.
pub(crate) const DOMAIN: &str = "web-1";
/// Its tag, which maps to the persona.
const TAG: &str = "web";
const PERSONA: &str = "demo-web";
const DOCUMENT: &str = "examples/personas/demo-web.yaml";
/// Memory at boot, which is the persona's least too.
const BOOT_MEMORY: u64 = 512 * MIB;

/// What the CPU load wants, as a multiple of what the guest is seen to do with one vCPU: more than the rule leaves to
/// one, less than it leaves to three, and less than the two CPUs of a small host, so that growth is what ends it.
const CPU_LOAD: f64 = 1.4;
/// Thousandths of a vCPU that are offered while it is seen what one does: more than it can do, whatever the machine does
/// besides.
const MORE_THAN_ONE: u32 = 2500;

/// What the memory load wants, and leaves: three steps of the rule bring it below the threshold.
const MEMORY_LOAD: u64 = 500 * MIB;
const MEMORY_LEFT: u64 = 40 * MIB;

/// What the job rate must become at least: it is bounded by one vCPU before.
const RATE_GAIN: f64 = 1.15;

/// Bounds of waits; several times what a slow and busy machine takes.
const ACTIVATES: Duration = Duration::from_secs(60);
const GROWS: Duration = Duration::from_secs(120);
const SHRINKS: Duration = Duration::from_secs(180);

/// Figures of the daemon: memory is looked at more often than by default, for those who watch.
const SETTINGS: &str = "[tick]\nslow_interval_ms = 2000\n";

/// All that the demo has made.
pub(crate) struct Demo<'a> {
    pub(crate) screen: &'a mut Screen,
    pub(crate) domain: Domain,
    daemon: Option<RunningDaemon>,
    /// What the guest had at first: `MemTotal`.
    first_memory: u64,
}

impl<'a> Demo<'a> {
    /// Defines and starts the domain.
    pub(crate) fn boot(screen: &'a mut Screen, lab: &Lab) -> Outcome<Self> {
        screen.step(
            "A domain is defined and started: 1 of 4 vCPUs, 512 MiB, virtio-mem for 1024 MiB more",
        );
        screen.command(&format!("virsh define {DOMAIN}.xml"));
        let domain = DomainSpec::new(DOMAIN, Variant::Full).define(lab)?;
        screen.command(&format!("virsh start {DOMAIN}"));
        let began = Instant::now();
        domain.start()?;
        screen.progress("the guest boots");
        let guest = domain.wait_until_up()?;
        screen.columns();
        let sight = Sight::take(&domain, &domain.witness(), Daemon::Absent)?;
        screen.row(
            "",
            &sight.host_text(),
            &sight.qemu_text(BOOT_MEMORY),
            &sight.guest_text(),
        );
        screen.seen(format!(
            "the guest is up after {}",
            seconds(began.elapsed())
        ));
        Ok(Self {
            screen,
            domain,
            daemon: None,
            first_memory: guest.mem_total,
        })
    }

    /// Starts the daemon.
    pub(crate) fn start_daemon(&mut self) -> Outcome<()> {
        self.screen
            .step("The daemon starts, finds the domain and the agent in it");
        self.screen
            .command("virt-personad --config virt-personad.toml --bus ...");
        let began = Instant::now();
        self.daemon = Some(RunningDaemon::start(self.domain.lab(), SETTINGS)?);
        let domain = &self.domain;
        let screen = &mut *self.screen;
        let version = eventually("the daemon talks to the agent", ACTIVATES, || {
            screen.progress("the daemon and the agent meet");
            let agent = domain.status()?.agent;
            ensure(agent.state == AgentState::Connected, || {
                format!("the agent is {:?}", agent.state)
            })?;
            Ok(agent.version.unwrap_or_else(|| "?".to_owned()))
        })?;
        self.screen.seen(format!(
            "agent {version} is connected after {}",
            seconds(began.elapsed())
        ));
        Ok(())
    }

    /// Stores the persona, maps the tag, sets it by virsh, and looks into the guest.
    pub(crate) fn activate(&mut self) -> Outcome<()> {
        self.screen
            .step("A persona is stored, and the domain gets it by a tag in its metadata");
        let lab = self.domain.lab().clone();
        let document = repository(DOCUMENT);
        let document = document.display().to_string();
        for (shown, arguments) in [
            (
                format!("create {DOCUMENT}"),
                vec!["create", document.as_str()],
            ),
            (format!("map {TAG} {PERSONA}"), vec!["map", TAG, PERSONA]),
        ] {
            self.screen.command(&format!("virt-persona {shown}"));
            let said = lab.persona_text(&arguments)?;
            self.screen.quote(&said);
        }
        self.screen.command(&format!(
            "virsh metadata {DOMAIN} --uri https://virtpersona.org/xmlns/domain/1 --key virtpersona \\\n\
             --set '<instance><tag>{TAG}</tag></instance>' --live --config"
        ));
        let began = Instant::now();
        self.domain.tag(&[TAG])?;
        let domain = &self.domain;
        let screen = &mut *self.screen;
        eventually("the persona is active in the guest", ACTIVATES, || {
            screen.progress("the agent activates the persona");
            let activation = domain.status()?.activation;
            ensure(activation.state == ActivationState::Active, || {
                format!(
                    "{:?} {}",
                    activation.state,
                    activation.detail.unwrap_or_default()
                )
            })
        })?;
        self.screen.seen(format!(
            "{PERSONA} is active in the guest after {}",
            seconds(began.elapsed())
        ));
        self.look_at_activation()
    }

    fn look_at_activation(&mut self) -> Outcome<()> {
        let witness = self.domain.witness();
        for (path, wanted, what) in [
            (
                "/etc/environment.d/50-virt-persona.conf",
                "APP_ROLE",
                "the environment",
            ),
            (
                "/run/demo-web/pre",
                "demo-web: preparing",
                "the pre-activation script's trace",
            ),
            (
                "/run/demo-web/post",
                "demo-web: active",
                "the post-activation script's trace",
            ),
        ] {
            let content = witness.read(path)?;
            ensure(content.contains(wanted), || {
                format!("{path} in the guest has no {wanted}: {content}")
            })?;
            let lines: Vec<&str> = content.lines().filter(|l| !l.starts_with('#')).collect();
            self.screen.seen(format!(
                "in the guest, {what}: {path}: {}",
                lines.join(", ")
            ));
        }
        Ok(())
    }

    /// CPU load, until the rule for vCPUs no longer holds.
    pub(crate) fn grow_vcpus(&mut self) -> Outcome<()> {
        self.screen
            .step("CPU load of 1.4 vCPUs, in jobs of fixed work: vCPUs are added until the rule no longer holds");
        self.show_rule("grow-cpu")?;
        let witness = self.domain.witness();
        witness.load_cpu(MORE_THAN_ONE)?;
        let began = Instant::now();
        let mut jobs = Jobs::default();
        let one = eventually("the guest is seen to work", ACTIVATES, || {
            let guest = witness.status()?;
            let online = guest.online()?;
            jobs.note(&guest, online);
            jobs.rate_with(1)
                .ok_or_else(|| Failure::new("no job rate with one vCPU yet"))
        })?;
        let offered = one * CPU_LOAD;
        witness.load_cpu_rate(offered)?;
        self.screen.line(&format!(
            "one vCPU does {one:.0} jobs a second; the guest is offered {offered:.0}"
        ));
        let mut second = None;
        let mut explained = None;
        let mut quiet = Quiet::default();
        let sizes = watch(
            self.screen,
            &self.domain,
            &witness,
            BOOT_MEMORY,
            Watched {
                what: "rule grow-cpu is cleared by more vCPUs, and the guest does more",
                metric: "cpu.utilization",
                within: GROWS,
            },
            |sight| {
                jobs.note(&sight.guest, sight.online);
                if sight.online >= 2 {
                    second.get_or_insert_with(|| began.elapsed());
                }
                let explain = self.domain.lab().explain(DOMAIN)?;
                if explained.is_none() && wants_vcpus(&explain) {
                    explained = Some(self.domain.lab().persona_text(&["explain", DOMAIN])?);
                }
                ensure(sight.online >= 2, || {
                    "one CPU is online in the guest".to_owned()
                })?;
                quiet.look(&explain, "grow-cpu", sight.size())?;
                gain(&jobs, offered)
            },
        )
        .map_err(|failure| busy(&self.domain, failure))?;
        let (Some(before), Some(after), Some(second)) =
            (jobs.rate_with(1), jobs.latest_with_more(), second)
        else {
            return Err(Failure::new("the growth was too quick to measure rates"));
        };
        let last = sizes.last().map_or(0, |size| size.vcpus);
        self.screen.seen(format!(
            "second vCPU online in the guest {} after the start of the load",
            seconds(second)
        ));
        let steps = match sizes.len().saturating_sub(1) {
            1 => "1 step".to_owned(),
            steps => format!("{steps} steps"),
        };
        self.screen.seen(format!(
            "{steps} to {}; the rule no longer holds",
            vcpus(last)
        ));
        self.screen.seen(format!(
            "jobs done in the guest: {before:.0} a second with 1 vCPU, {after:.0} with more ({:.2} times)",
            after / before
        ));
        self.screen
            .step("Why: the decision for the first of these steps");
        self.screen
            .command(&format!("virt-persona explain {DOMAIN}"));
        let explained = explained.ok_or_else(|| Failure::new("`explain` did not show the step"))?;
        self.screen.quote(&explained);
        self.screen.seen("explained while it happened");
        Ok(())
    }

    /// Memory load, until the rule for memory no longer holds.
    pub(crate) fn grow_memory(&mut self) -> Outcome<()> {
        self.screen
            .step("Memory load of 500 MiB: memory is added until the rule no longer holds");
        self.show_rule("grow-memory")?;
        let witness = self.domain.witness();
        witness.load_memory(MEMORY_LOAD, MEMORY_LEFT)?;
        let mut quiet = Quiet::default();
        let sizes = watch(
            self.screen,
            &self.domain,
            &witness,
            BOOT_MEMORY,
            Watched {
                what: "rule grow-memory is cleared by more memory",
                metric: "memory.utilization",
                within: GROWS,
            },
            |sight| {
                ensure(sight.guest.memory_held >= MEMORY_LOAD, || {
                    format!("the load holds {} MiB", sight.guest.memory_held / MIB)
                })?;
                let explain = self.domain.lab().explain(DOMAIN)?;
                quiet.look(&explain, "grow-memory", sight.size())
            },
        )?;
        let grown = memory_of(&sizes, u64::max);
        ensure(grown >= BOOT_MEMORY + 2 * 128 * MIB, || {
            format!("the domain grew only to {} MiB", grown / MIB)
        })?;
        self.screen.seen(format!(
            "grown to {} MiB in steps of the rule; the load has its memory and the rule no longer holds",
            grown / MIB
        ));
        Ok(())
    }

    /// Ends the load and waits until the domain is as small as it was.
    pub(crate) fn shrink(&mut self) -> Outcome<()> {
        self.screen
            .step("The load stops: the domain gives back what it no longer needs, down to the persona's least");
        self.show_rule("shrink-cpu")?;
        self.show_rule("shrink-memory")?;
        let witness = self.domain.witness();
        witness.stop_load()?;
        let least = Size {
            vcpus: 1,
            memory: BOOT_MEMORY,
        };
        let first_memory = self.first_memory;
        watch(
            self.screen,
            &self.domain,
            &witness,
            BOOT_MEMORY,
            Watched {
                what: "the domain is as small as the persona allows",
                metric: "memory.utilization",
                within: SHRINKS,
            },
            |sight| {
                ensure(sight.size() == Some(least), || {
                    format!(
                        "{}; {}{}",
                        sight.host_text(),
                        sight.guest_text(),
                        sight.holds()
                    )
                })?;
                ensure(sight.guest.mem_total == first_memory, || {
                    format!("MemTotal is {} bytes", sight.guest.mem_total)
                })
            },
        )?;
        self.screen.seen(format!(
            "back at 1 vCPU and {} MiB; the guest has as many CPUs and as much memory as after its boot",
            BOOT_MEMORY / MIB
        ));
        let plugged = self.domain.live_vcpus()?;
        if self.domain.lab().guest().is_emulated() {
            self.screen.line(&format!(
                "QEMU still has {}: without KVM it cannot finish taking one out, so the daemon takes them",
                vcpus(plugged)
            ));
            self.screen
                .line("offline in the guest only, and uses them again at the next growth.");
        } else {
            ensure(plugged == 1, || {
                format!("QEMU still has {}", vcpus(plugged))
            })?;
            self.screen.seen("QEMU has 1 vCPU too");
        }
        Ok(())
    }

    /// What was decided and done, as the daemon keeps it.
    pub(crate) fn audit(&mut self) -> Outcome<()> {
        self.screen.step("All of it is on record");
        let arguments = ["audit", "--domain", DOMAIN, "--limit", "100"];
        self.screen
            .command(&format!("virt-persona {}", arguments.join(" ")));
        let lab = self.domain.lab();
        // What is seen in the guest may be recorded a moment later: the host looks for itself.
        let decisions = eventually("each decision has its end on record", ACTIVATES, || {
            let records = lab.audit(DOMAIN, 100)?.records;
            let of = |kind: &str| records.iter().filter(|record| record.kind == kind).count();
            let (decisions, actions) = (of("decision"), of("action"));
            ensure(decisions > 0 && actions == decisions, || {
                format!("{decisions} decisions and {actions} actions")
            })?;
            Ok(decisions)
        })?;
        let text = lab.persona_text(&arguments)?;
        self.screen.quote(&text);
        self.screen.seen(format!(
            "{decisions} decisions, each with its action and how it ended"
        ));
        Ok(())
    }

    /// Ends the daemon as its service manager would, and the domain.
    pub(crate) fn clean_up(&mut self) -> Outcome<()> {
        self.screen.step(
            "Cleaning up: the daemon ends, the domain goes, and so do the libvirt and the bus",
        );
        if let Some(daemon) = &mut self.daemon {
            let status = daemon.terminate()?;
            ensure(status.success(), || {
                format!("the daemon ended with {status}")
            })?;
            self.screen.seen("the daemon ends cleanly on SIGTERM");
        }
        Ok(())
    }

    /// The end of the daemon's log, for a failure.
    pub(crate) fn explained(&self, failure: Failure) -> Failure {
        match &self.daemon {
            Some(daemon) => daemon.with_log(failure),
            None => failure,
        }
    }

    /// Leaves all of it as it is.
    pub(crate) fn keep(self) {
        std::mem::forget(self.daemon);
        std::mem::forget(self.domain);
    }

    fn show_rule(&mut self, name: &str) -> Outcome<()> {
        let lab = self.domain.lab();
        // The daemon looks at a persona's rules in the tick after it became active.
        let text = eventually(format!("rule {name} is looked at"), ACTIVATES, || {
            let rules = lab.explain(DOMAIN)?.rules;
            let rule = rules.into_iter().find(|rule| rule.name == name);
            Ok(rule.ok_or_else(|| Failure::new("it is not"))?.text)
        })?;
        self.screen.line(&format!("rule {name}: {text}"));
        Ok(())
    }
}

/// Whether this tick added a vCPU.
fn wants_vcpus(explain: &ExplainView) -> bool {
    explain.resources.iter().any(|resource| {
        resource.resource == virt_persona::view::Resource::Vcpus
            && resource.granted > resource.had
            && resource.granted.is_some()
    })
}

fn gain(jobs: &Jobs, offered: f64) -> Outcome<()> {
    let rates = jobs.rate_with(1).zip(jobs.latest_with_more());
    let (before, after) = rates.ok_or_else(|| Failure::new("no job rates yet"))?;
    ensure(after >= before * RATE_GAIN, || {
        format!("{before:.0} jobs a second before, {after:.0} after, {offered:.0} offered")
    })
}

fn memory_of(sizes: &[Size], choose: fn(u64, u64) -> u64) -> u64 {
    let all = sizes.iter().map(|size| size.memory);
    all.reduce(choose).unwrap_or(0)
}

/// A failure with a word about a host that has no time for the guest.
fn busy(domain: &Domain, failure: Failure) -> Failure {
    let waits = Sight::take(domain, &domain.witness(), Daemon::Runs)
        .map_or_else(|_| "?".to_owned(), |sight| sight.per_cent("cpu.steal"));
    Failure::new(format!(
        "{failure}. The vCPUs wait for a CPU of this host for {waits} of their time; where that is much, the host is \
         too busy for this demo"
    ))
}
