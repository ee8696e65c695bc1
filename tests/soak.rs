//! A host of many simulated domains over a day on a paused clock: loads that come and go, faults of every kind at random
//! (the same each time), a daemon that is killed. At each checkpoint the budget holds, no floor is crossed, no step is
//! stuck and the audit is bounded; at the end memory is what it was in the midst of it. `make soak` runs a day of a
//! thousand domains; `cargo test` two hours of a hundred.

#![allow(clippy::panic, clippy::unwrap_used)]

// What the matrix of faults needs of it and this does not.
#[allow(dead_code)]
#[path = "daemon/paused.rs"]
mod paused;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use peak_alloc::PeakAlloc;
use persona::domain::DomainId;
use persona::units::Bytes;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::{Instant, sleep};
use virt_persona::command::Command;
use virt_persona::hypervisor::RunState;
use virt_persona::hypervisor::simulated::{CallName, Conduct, Fault};
use virt_persona::view::AuditRecordView;

/// Counts what is on the heap. What is resident says less: it holds what the allocator keeps for later.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

use paused::{House, Resident, on_a_paused_clock};

/// Records that the audit keeps: fewer than come in a short run's first half, as it would grow through the second otherwise.
const RECORDS: usize = 1_000;

/// No step takes longer: the deadlines of the longest one, memory, with all its looks and a guest that hangs.
const STUCK: Duration = Duration::from_secs(5 * 60);

/// How large a run is.
#[derive(Clone, Copy)]
struct Size {
    domains: u32,
    time: Duration,
    tick: Duration,
    /// Between two faults.
    fault: Duration,
    checkpoint: Duration,
}

/// Two hours of a hundred domains.
const SHORT: Size = Size {
    domains: 100,
    time: Duration::from_secs(2 * 3600),
    tick: Duration::from_secs(5),
    fault: Duration::from_secs(20),
    checkpoint: Duration::from_secs(150),
};

/// A day of a thousand.
const DAY: Size = Size {
    domains: 1000,
    time: Duration::from_secs(24 * 3600),
    tick: Duration::from_secs(30),
    fault: Duration::from_secs(20),
    checkpoint: Duration::from_secs(1800),
};

/// What every domain has: CPUs and memory by their use, both ways.
const ELASTIC: &str = "
name: elastic
base_configuration:
  cpu: {min: 1, max: 4}
  memory: {min: 384 MiB, max: 1536 MiB}
adaptation_rules:
  - IF cpu.utilization > 80% FOR 60s THEN add 1 vcpus COOLDOWN 2m
  - IF cpu.utilization < 30% FOR 60s THEN remove 1 vcpus COOLDOWN 2m
  - IF memory.utilization > 70% FOR 60s THEN add 128 MiB memory COOLDOWN 2m
  - IF memory.utilization < 40% FOR 60s THEN remove 128 MiB memory COOLDOWN 2m
";

const FLOOR: Bytes = Bytes::from_mib(384);

/// Numbers that look random and are the same each time: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// How many agents may be simulated: each takes five descriptors at the most.
fn agents(domains: u32) -> u32 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    let files: u32 = soft.and_then(|soft| soft.parse().ok()).unwrap_or(1024);
    domains.min(files.saturating_sub(200) / 5)
}

/// A quarter of the domains have a balloon, the others a memory device. There is less of everything than all want.
fn scenario(size: Size, random: &mut Random) -> String {
    let domains = size.domains;
    let mut text = format!(
        "deadline_ms = 5000\n[host]\ncores = {}\nmemory_mib = {}\n",
        domains * 3 / 8,
        domains * 1000
    );
    let agents = agents(domains);
    for number in 0..domains {
        let balloon = number % 4 == 3;
        let (memory, device) = if balloon {
            (1024, "")
        } else {
            (
                512,
                "virtio_mem = [{ alias = 'virtiomem0', size_mib = 1024 }]",
            )
        };
        let agent = if number < agents {
            "agent = 'simulated', "
        } else {
            ""
        };
        let curve = |random: &mut Random, low: f64, high: f64| {
            let period = 1800 + random.below(6 * 3600);
            match random.below(3) {
                0 => format!(
                    "{{ curve = 'sine', low = {low:.1}, high = {high:.1}, period_s = {period}.0 }}"
                ),
                1 => format!(
                    "{{ curve = 'square', low = {low:.1}, high = {high:.1}, period_s = {period}.0, shift_s = {}.0 }}",
                    random.below(period)
                ),
                _ => format!(
                    "{{ curve = 'noise', low = {low:.1}, high = {high:.1}, period_s = {}.0, seed = {number} }}",
                    period / 4
                ),
            }
        };
        let cpu = curve(random, 0.1, 3.0);
        let used = curve(random, 120.0, if balloon { 800.0 } else { 1100.0 });
        let _ = write!(
            text,
            "[[domain]]\nname = 'vm-{number}'\nacceleration = 'kvm'\ntags = ['elastic']\nvcpus_maximum = 4\nmemory_mib = {memory}\n{device}\nagent_channel = 'FOLDER/{number}'\nguest = {{ {agent}follow_ms = 500 }}\nload = {{ cpu = {cpu}, memory = {used} }}\n"
        );
    }
    text
}

const CALLS: [CallName; 8] = [
    CallName::Describe,
    CallName::SetVcpus,
    CallName::SetVirtioMem,
    CallName::SetBalloon,
    CallName::SetMetadata,
    CallName::GuestCpus,
    CallName::GuestActivation,
    CallName::GuestReport,
];

fn a_fault(random: &mut Random) -> Fault {
    match random.below(10) {
        0 => Fault::Refuse {
            message: "the moon is full".into(),
        },
        1 => Fault::Slow { ms: 3_000 },
        2 => Fault::Hang { ms: 60_000 },
        3 => Fault::AnswerLost,
        4 => Fault::Partial { reaches_mib: 64 },
        5 => Fault::EventsLost,
        6 => Fault::EventsDuplicated,
        7 => Fault::EventsLate { ms: 40_000 },
        8 => Fault::ConnectionLost { ms: 20_000 },
        _ => Fault::Dies,
    }
}

const CONDUCTS: [Conduct; 21] = [
    Conduct::RefusesCpus,
    Conduct::RefusesMemory,
    Conduct::Slow { ms: 4_000 },
    Conduct::Partly,
    Conduct::ClaimsCpus,
    Conduct::ClaimsMoreCpus,
    Conduct::ClaimsFewerCpus,
    Conduct::ClaimsNoMemoryUse,
    Conduct::ClaimsAllMemoryUsed,
    Conduct::ClaimsImpossibleMemory,
    Conduct::ReportsFromTheFuture,
    Conduct::ReportsFromThePast,
    Conduct::ReportsTheSame,
    Conduct::FloodsEvents,
    Conduct::FloodsTelemetry,
    Conduct::RefusesShrinks,
    Conduct::IgnoresShrinks,
    Conduct::DiesAtShrinks,
    Conduct::Hangs,
    Conduct::HangsMonitor,
    Conduct::Dies { every_s: 300 },
];

/// What was seen over the run.
#[derive(Default)]
struct Totals {
    faults: u64,
    steps: u64,
    endings: BTreeMap<String, u64>,
    checkpoints: u64,
    fullest: (Bytes, u64),
    /// Bytes on the heap.
    heap: Vec<usize>,
}

struct Soak {
    house: House,
    size: Size,
    random: Random,
    ids: Vec<DomainId>,
    /// When a guest that misbehaves behaves again.
    spells: Vec<(Instant, DomainId)>,
    /// Steps under way, by domain and resource, and since when.
    open: BTreeMap<(Option<DomainId>, String), Instant>,
    /// Guests that have ever said of their CPUs what is not so.
    liars: BTreeSet<DomainId>,
    totals: Totals,
}

impl Soak {
    async fn new(size: Size) -> Self {
        let mut random = Random(20_261_121);
        let scenario = scenario(size, &mut random);
        let tick = size.tick.as_millis();
        let configuration = format!(
            "[tick]\ninterval_ms = {tick}\nslow_interval_ms = {}\ntelemetry_ms = {}\n[audit]\nrecords = {RECORDS}\n",
            tick * 2,
            tick * 2
        );
        let mut house = House::new(&scenario, &configuration).await;
        // Nobody looks between the checkpoints. On this clock a day has as many tenths of a second as any other, so drawing
        // up a view for each would be most of the work, and none of it is what the run is about.
        house.show = size.tick;
        let ids = (0..size.domains)
            .map(|number| house.id(&format!("vm-{number}")))
            .collect::<Vec<_>>();
        // Of all ends of a step this is the one that a short run may miss by chance.
        for id in ids.iter().step_by(2) {
            let partial = Fault::Partial { reaches_mib: 64 };
            house
                .simulated
                .fail_next(*id, CallName::SetVirtioMem, partial);
        }
        Self {
            house,
            size,
            random,
            ids,
            spells: Vec::new(),
            open: BTreeMap::new(),
            liars: BTreeSet::new(),
            totals: Totals::default(),
        }
    }

    async fn run(mut self) -> Totals {
        let mut daemon = self.house.start().await;
        let mut records = daemon.records();
        daemon.create(ELASTIC).await;
        daemon
            .ask(Command::Map {
                tag: "elastic".into(),
                persona: "elastic".into(),
                priority: 0,
            })
            .await
            .unwrap();
        let began = Instant::now();
        let kill_at = self.size.time / 8;
        let (mut killed, mut checkpoint) = (false, self.size.checkpoint);
        while began.elapsed() < self.size.time {
            sleep(self.size.fault).await;
            self.take_records(&mut records);
            self.misbehave();
            if !killed && began.elapsed() > kill_at {
                killed = true;
                daemon.kill().await;
                sleep(Duration::from_secs(10)).await;
                daemon = self.house.start().await;
                records = daemon.records();
                // What was under way then is found out anew.
                self.open.clear();
            }
            if began.elapsed() >= checkpoint {
                checkpoint += self.size.checkpoint;
                self.check(&daemon).await;
            }
        }
        // Every step ends: nothing new goes wrong, and what is under way has its time.
        for (_, domain) in std::mem::take(&mut self.spells) {
            self.house.simulated.behave(domain, None);
        }
        sleep(STUCK).await;
        self.take_records(&mut records);
        self.check(&daemon).await;
        daemon.stop().await;
        self.take_records(&mut records);
        assert!(
            self.open.is_empty(),
            "steps without an end: {:?}",
            self.open
        );
        self.totals
    }

    /// Something goes wrong somewhere, and what went wrong long enough is over.
    fn misbehave(&mut self) {
        let simulated = &self.house.simulated;
        let now = Instant::now();
        self.spells.retain(|(end, domain)| {
            if *end <= now {
                simulated.behave(*domain, None);
            }
            *end > now
        });
        self.totals.faults += 1;
        let domain = self.random.of(&self.ids);
        match self.random.below(100) {
            0..50 => {
                let call = self.random.of(&CALLS);
                simulated.forget_faults(domain);
                simulated.fail_next(domain, call, a_fault(&mut self.random));
            }
            50..90 => {
                let conduct = self.random.of(&CONDUCTS);
                let length = match conduct {
                    // Each event is work of the test's own, too.
                    Conduct::FloodsEvents | Conduct::FloodsTelemetry => 10,
                    _ => 60 + self.random.below(600),
                };
                let length = Duration::from_secs(length);
                self.spells.retain(|(_, of)| *of != domain);
                if let Conduct::ClaimsFewerCpus | Conduct::ReportsTheSame = conduct {
                    self.liars.insert(domain);
                }
                self.spells.push((now + length, domain));
                simulated.behave(domain, Some(conduct));
            }
            90..94 => simulated.restart(domain),
            94..99 => {
                simulated.set_state(domain, RunState::Paused);
                let (simulated, pause) = (simulated.clone(), self.random.below(300));
                tokio::spawn(async move {
                    sleep(Duration::from_secs(pause)).await;
                    simulated.set_state(domain, RunState::Running);
                });
            }
            _ => {
                simulated.disconnect("the library's daemon was stopped");
                let simulated = simulated.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_secs(60)).await;
                    simulated.reconnect();
                });
            }
        }
    }

    /// Follows the steps by what is recorded of them.
    fn take_records(&mut self, records: &mut Receiver<AuditRecordView>) {
        loop {
            let record = match records.try_recv() {
                Ok(record) => record,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
                Err(TryRecvError::Lagged(lost)) => panic!("{lost} records were not read in time"),
            };
            let Some(resource) = ["vCPUs", "memory"]
                .into_iter()
                .find(|resource| record.text.starts_with(resource))
            else {
                continue;
            };
            let step = (record.domain, resource.to_owned());
            match record.kind.as_str() {
                "decision" if record.text[resource.len()..].starts_with(": ") => {
                    self.totals.steps += 1;
                    let before = self.open.insert(step, Instant::now());
                    assert!(before.is_none(), "two steps at once: {}", record.text);
                }
                "action" => {
                    let ending = record.detail["ending"].as_str().unwrap_or("?").to_owned();
                    *self.totals.endings.entry(ending).or_default() += 1;
                    assert!(
                        self.open.remove(&step).is_some(),
                        "an end without a step: {}",
                        record.text
                    );
                }
                _ => {}
            }
        }
    }

    async fn check(&mut self, daemon: &Resident) {
        let view = daemon.view();
        let (mut memory, mut vcpus) = (0, 0);
        for (id, domain) in &view.domains {
            let shown = self.house.simulated.shown(*id).unwrap();
            if shown.instance.is_none() {
                continue;
            }
            memory += shown.memory.0.max(shown.requested.0);
            // A vCPU that the guest no longer uses counts as given back, also while its device stays. What a liar hides is
            // time on CPUs alone, which comes back.
            let online = if self.liars.contains(id) {
                1
            } else {
                shown.online
            };
            vcpus += u64::from(online);
            assert!(
                shown.memory >= FLOOR,
                "{} is below its floor: {shown:?}",
                domain.name
            );
            assert!(
                (1..=4).contains(&shown.online),
                "{}: {shown:?}",
                domain.name
            );
        }
        // As the configuration's defaults make it of what the host has.
        let host = u64::from(self.size.domains) * 1000;
        let budget = Bytes::from_mib(host - (host / 10).max(1024));
        assert!(
            memory <= budget.0,
            "{} of {budget} are promised",
            Bytes(memory)
        );
        let most = u64::from(self.size.domains * 3 / 8 * 4);
        assert!(vcpus <= most, "{vcpus} vCPUs of {most}");
        let fullest = &mut self.totals.fullest;
        *fullest = (fullest.0.max(Bytes(memory)), fullest.1.max(vcpus));
        for (step, since) in &self.open {
            assert!(
                since.elapsed() < STUCK,
                "{step:?} is stuck for {:?}",
                since.elapsed()
            );
        }
        let audit = daemon.audit().await;
        assert!(
            audit.len() <= RECORDS + RECORDS / 10,
            "{} records",
            audit.len()
        );
        // The thread that writes recordings is of the real time, in which ticks here follow each other without a pause; that
        // it loses some is no fault.
        let lost = |problem: &&String| !problem.contains("ticks were not recorded");
        let problems: Vec<&String> = view.manager.problems.iter().filter(lost).collect();
        assert_eq!(problems, [""; 0]);
        self.totals.checkpoints += 1;
        self.totals.heap.push(HEAP.current_usage());
    }
}

#[test]
#[allow(
    clippy::print_stdout,
    reason = "the totals are for whoever asks for them with --nocapture"
)]
fn many_domains_live_through_a_long_time_of_faults_and_memory_stays_flat() {
    let size = match std::env::var("SOAK").as_deref() {
        Ok("day") => DAY,
        _ => SHORT,
    };
    let began = std::time::Instant::now();
    let totals = on_a_paused_clock(Duration::from_secs(1), async {
        Soak::new(size).await.run().await
    });
    // The first half fills caches, windows and the audit to their bounds. After it a quarter is held against the next, each by
    // its lowest figure: recordings and the store gather what they write, for up to half an hour, so that the figure is a saw
    // whose teeth say nothing. What leaks a little with each step or each fault lifts the lowest one too, as there are
    // hundreds of them in a quarter.
    let half = totals.heap.len() / 2;
    let (third, fourth) = totals.heap[half..].split_at((totals.heap.len() - half) / 2);
    let lowest = |of: &[usize]| of.iter().min().unwrap() / 1024;
    let (before, after) = (lowest(third), lowest(fourth));
    let (steps, faults) = (totals.steps, totals.faults);
    println!(
        "{} domains, {} h in {:.0?}: {faults} faults, {steps} steps ended {:?}; at most {} and {} vCPUs; {} checkpoints; at least {before} KiB on the heap in the third quarter, {after} KiB in the fourth",
        size.domains,
        size.time.as_secs() / 3600,
        began.elapsed(),
        totals.endings,
        totals.fullest.0,
        totals.fullest.1,
        totals.checkpoints,
    );
    assert!(steps > u64::from(size.domains), "{steps} steps");
    for ending in ["applied", "partial", "refused", "unknown"] {
        assert!(totals.endings.contains_key(ending), "no step was {ending}");
    }
    let most = before + before / 20 + 2048;
    assert!(
        after <= most,
        "memory grew from {before} to {after} KiB: {:?}",
        totals.heap
    );
}
