//! One tick of the control path (observe, snapshot, plan) for running domains, beside `virsh domstats` for the same ones.
//! Both are counted in CPU time of all processes that work for them, without the start of any.

use std::time::Duration;

use virt_persona::hypervisor::DomainId;
use virt_persona::observe::Emulator;

use crate::figures::{cpu_time, cpu_time_of_run, micros, own_cpu_time, percentile, ratio};
use crate::harness::{Domain, Failure, Lab, Outcome, ensure};
use crate::ticker::Ticker;

/// Times that both are measured by turns.
const ROUNDS: usize = 15;

/// Ticks, and calls of `domstats` in one run of `virsh`, in each of these.
const TICKS: u32 = 20;
const CALLS: u32 = 20;

pub(crate) fn against_domstats(lab: &Lab, domains: &[Domain]) -> Outcome<()> {
    let mut emulators = Vec::new();
    for (number, domain) in (0..).zip(domains) {
        let emulator = Emulator {
            pid: domain.qemu_pid()?,
            instance: None,
            vcpus_plugged: domain.live_vcpus()?,
        };
        emulators.push((DomainId([number; 16]), emulator, Vec::new()));
    }
    let mut ticker = Ticker::new(emulators);
    // The first opens descriptors, and nothing is known before the second.
    ticker.tick();
    let (mut ticks, mut whole, mut same) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = own_cpu_time()?;
        let sampled: usize = (0..TICKS).map(|_| ticker.tick()).sum();
        ticks.push((own_cpu_time()? - begin) / TICKS);
        ensure(sampled == domains.len() * TICKS as usize, || {
            "a running domain could not be sampled".to_owned()
        })?;
        whole.push(domstats(lab, "domstats")?);
        same.push(domstats(
            lab,
            "domstats --nowait --vcpu --balloon --cpu-total",
        )?);
    }
    let [tick, whole, same] =
        [&mut ticks, &mut whole, &mut same].map(|times| percentile(times, 50));
    println!(
        "tick of {} running domains: {:.0} us of CPU time; virsh domstats of the same: {:.0} us of virsh's and libvirtd's, \
         ratio {:.3}; with --nowait and only the groups that a tick has (vCPUs, balloon, CPU): {:.0} us, ratio {:.3}",
        domains.len(),
        micros(tick),
        micros(whole),
        ratio(tick, whole),
        micros(same),
        ratio(tick, same)
    );
    Ok(())
}

/// CPU time of one call, of `virsh` and of libvirtd together: many calls on one connection less a single one, so that
/// neither the start of the program nor the connection counts.
fn domstats(lab: &Lab, call: &str) -> Outcome<Duration> {
    let run = |calls: u32| {
        let commands = vec![call; calls as usize].join("; ");
        let libvirtd = cpu_time(lab.libvirtd_pid())?;
        let mut command = lab.command("virsh");
        command.args(["-q", "-c", &lab.uri(), &commands]);
        let virsh = cpu_time_of_run(&mut command)?;
        Ok::<_, Failure>(virsh + (cpu_time(lab.libvirtd_pid())? - libvirtd))
    };
    let one = run(1)?;
    Ok(run(1 + CALLS)?.saturating_sub(one) / CALLS)
}
