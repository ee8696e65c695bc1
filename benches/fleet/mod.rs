//! Processes that stand for emulators: threads named like vCPUs, in control groups named like libvirt's and with a tap
//! each, where they may be made; and the bare reads of what the daemon reads of them. Shared by the benchmarks.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};

use virt_persona::hypervisor::{DomainId, Interface};
use virt_persona::observe::Emulator;

use crate::ticker::Ticker;

pub(crate) const DOMAINS: u32 = 200;
pub(crate) const VCPUS: u32 = 4;
pub(crate) const CHILD: &str = "--be-an-emulator";

/// Threads that sleep until the parent ends.
pub(crate) fn be_an_emulator() {
    // A thread gets its name when it begins, not when it is made.
    let named = Arc::new(Barrier::new(VCPUS as usize + 1));
    for index in 0..VCPUS {
        let named = Arc::clone(&named);
        let sleep = move || {
            named.wait();
            loop {
                std::thread::park();
            }
        };
        std::thread::Builder::new()
            .name(format!("CPU {index}/TCG"))
            .spawn(sleep)
            .unwrap();
    }
    named.wait();
    std::io::stdout().write_all(b"ready\n").unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// Turns of the files that are not read at each tick, in ticks: pressure, and what tells of paging.
const PRESSURE_TURN: usize = 2;
const PAGING_TURN: usize = 5;

/// Processes that stand for emulators, with what the daemon reads of them.
pub(crate) struct Fleet {
    pub(crate) ticker: Ticker,
    /// What is read at each tick.
    bare: Vec<File>,
    /// What is read at turns.
    pressure: Vec<File>,
    paging: Vec<File>,
    /// The table of network devices, for the taps.
    table: File,
    rounds: usize,
    taps: Vec<String>,
    pub(crate) children: Vec<Child>,
    groups: Vec<PathBuf>,
}

impl Fleet {
    pub(crate) fn start() -> Self {
        let mut emulators = Vec::new();
        let mut fleet = Self {
            ticker: Ticker::new(Vec::new()),
            bare: Vec::new(),
            pressure: Vec::new(),
            paging: Vec::new(),
            table: File::open("/proc/net/dev").unwrap(),
            rounds: 0,
            taps: Vec::new(),
            children: Vec::new(),
            groups: Vec::new(),
        };
        for number in 0..DOMAINS {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .arg(CHILD)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut [0; 6])
                .unwrap();
            let pid = child.id();
            fleet.children.push(child);
            let cpu_group = fleet.make_groups(number, pid);
            let interface = fleet.make_tap(number);
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let emulator = Emulator {
                pid,
                instance: None,
                vcpus_plugged: VCPUS,
            };
            emulators.push((DomainId(id), emulator, interface));
            let process = PathBuf::from(format!("/proc/{pid}"));
            for task in fs::read_dir(process.join("task")).unwrap() {
                let task = task.unwrap().path();
                if fs::read_to_string(task.join("comm"))
                    .unwrap()
                    .starts_with("CPU ")
                {
                    fleet.bare.push(File::open(task.join("schedstat")).unwrap());
                }
            }
            fleet.bare.push(File::open(process.join("statm")).unwrap());
            fleet.paging.push(File::open(process.join("stat")).unwrap());
            fleet
                .bare
                .extend(cpu_group.and_then(|group| File::open(group.join("cpu.stat")).ok()));
        }
        if fleet.groups.is_empty() {
            println!("no control group could be made (not root?): measured without");
        }
        if fleet.taps.is_empty() {
            println!("no tap could be made (not root, or no `ip`?): measured without");
        }
        fleet.ticker = Ticker::new(emulators);
        fleet
    }

    /// Makes the tap of a domain with one network interface.
    fn make_tap(&mut self, number: u32) -> Vec<Interface> {
        let name = format!("vpb{}-{number}", std::process::id());
        if !ip_tuntap("add", &name) {
            return Vec::new();
        }
        self.taps.push(name.clone());
        vec![Interface { device: Some(name) }]
    }

    /// Puts the process into groups of its own; gives the one with quota and throttling.
    fn make_groups(&mut self, number: u32, pid: u32) -> Option<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let bases = if root.join("cgroup.controllers").exists() {
            vec![root.to_owned()]
        } else {
            vec![root.join("cpu"), root.join("memory"), root.join("unified")]
        };
        let mut cpu = None;
        for base in bases {
            let parent = base.join(format!("virt-persona-bench-{}", std::process::id()));
            let group = parent.join(format!("qemu-{number}-bench.libvirt-qemu"));
            if fs::create_dir_all(&group).is_ok() {
                self.groups.push(group.clone());
                if fs::write(group.join("cgroup.procs"), pid.to_string()).is_err() {
                    continue;
                }
                let open = |name: &str| File::open(group.join(name)).ok();
                let names = ["cpu.pressure", "memory.pressure", "io.pressure"];
                self.pressure.extend(names.into_iter().filter_map(open));
                self.paging.extend(open("memory.stat"));
                cpu = cpu.or(Some(group));
            }
        }
        cpu
    }

    pub(crate) fn tick(&mut self) -> usize {
        self.ticker.tick()
    }

    /// Reads what a tick reads, and nothing else; how many reads that were.
    pub(crate) fn read_bare(&mut self, buffer: &mut [u8]) -> usize {
        self.rounds += 1;
        let turn = |files: &[File], every: usize| {
            let size = files.len().div_ceil(every);
            let from = (self.rounds % every * size).min(files.len());
            from..(from + size).min(files.len())
        };
        let files = self
            .bare
            .iter()
            .chain(&self.pressure[turn(&self.pressure, PRESSURE_TURN)])
            .chain(&self.paging[turn(&self.paging, PAGING_TURN)]);
        let mut reads = 0;
        for file in files {
            black_box(file.read_at(buffer, 0).unwrap());
            reads += 1;
        }
        if self.taps.is_empty() {
            return reads;
        }
        let mut offset = 0;
        loop {
            let read = self.table.read_at(buffer, offset).unwrap();
            reads += 1;
            offset += u64::try_from(read).unwrap();
            if read == 0 {
                return reads;
            }
        }
    }

    pub(crate) fn stop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for tap in &self.taps {
            ip_tuntap("del", tap);
        }
        for group in &self.groups {
            let _ = fs::remove_dir(group);
        }
        for group in &self.groups {
            if let Some(parent) = group.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// Adds or deletes a tap; whether it could be done.
fn ip_tuntap(action: &str, name: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(["tuntap", action, "dev", name, "mode", "tap"]);
    let status = command.stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
