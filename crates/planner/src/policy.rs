//! The planner's own numbers, each with its reason. The daemon's configuration may change them; a persona may not.

use std::time::Duration;

use persona::units::Bytes;
use serde::{Deserialize, Serialize};

use crate::stage::Stage;

/// Limits that hold for every domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
// What an older recording does not name is as it usually is.
#[serde(default)]
pub struct Policy {
    /// Smaller memory changes are not worth the guest's work of plugging and unplugging (others use 64 to 128 MiB).
    pub memory_change_minimum: Bytes,
    /// A shrink step is at most this share of the present size, in percent, but see the two limits below. Small
    /// steps leave the guest time to write back and drop caches before the next one.
    pub memory_shrink_percent: u32,
    /// A shrink step may always be this large, or small guests would never get smaller.
    pub memory_shrink_minimum: Bytes,
    /// No shrink step is larger than this, however large the guest.
    pub memory_shrink_maximum: Bytes,
    /// Memory is never shrunk below live use times this many percent: shrinking below use wakes the guest's OOM killer.
    pub memory_floor_percent: u32,
    /// Page structs of plugged memory cost 1/64 of it, from the memory the guest has free *before* the growth. A step
    /// may cost at most this share of it, in percent.
    pub page_struct_percent: u32,
    /// Memory is never grown beyond this many times what the guest booted with: what is plugged is meant to be movable,
    /// so that it can be taken away again, and the kernel's own tables then have to live in the boot memory. Others saw
    /// guests fail from three to four times on.
    pub memory_growth_ratio: u32,
    /// The guest's own memory pressure (some avg10), in percent. From `enter` on nothing is taken from it, and what was
    /// taken goes back; at a tenth of the time the waiting is felt, and a guest that only drops caches stays below.
    pub guest_pressure: Mark,
    /// Major faults a second in a guest whose pressure nobody tells. A program that starts makes some hundred at once;
    /// two hundred a second that do not end are pages that are taken and read back in turn.
    pub guest_faults: Mark,
    /// What was taken goes back after so long a need without a break. The pressure is an average of ten seconds already,
    /// and faults are known each few seconds, so this is one or two further looks.
    pub guest_need_window: Duration,
    /// After a return nothing is taken for so long, twice as long after the next, and so on up to sixteen times: a guest
    /// that was shrunk too far is not made to suffer by turns. As long as a stuck mechanism is left alone.
    pub spare: Duration,
    /// A change by hand is respected this long.
    pub hold: Duration,
    /// No hold by command is longer: a machine that is to be left alone for ever has no need of a persona.
    pub longest_hold: Duration,
    /// A proposal that nobody decides ends after this time: the figures behind it are those of another hour by then.
    /// Where its rule still holds, a new one with the figures of that moment follows.
    pub proposal_expiry: Duration,
    /// A proposal that nothing wants any more stays for so long: load sways, and what a person is reading shall not
    /// vanish at each dip.
    pub proposal_grace: Duration,
    /// First wait after a step that did not take effect; doubles with each further failure.
    pub retry_after: Duration,
    /// So many failures in a row put the mechanism in quarantine.
    pub failures_before_quarantine: u32,
    /// How long a stuck mechanism is left alone.
    pub quarantine: Duration,
    /// A guest that refused to become smaller and did not say when to ask again is asked after this: a backup or an
    /// import takes minutes, and a shrink is never urgent for the domain itself.
    pub veto_wait: Duration,
    /// It is never asked again sooner, whatever it says: each question may start programs in the guest.
    pub veto_wait_minimum: Duration,
    /// So many refusals in a row, or refusals for so long, and what others are to have is taken without consent. A
    /// guest's own wait is no longer than this either.
    pub vetoes_before_overruling: u32,
    /// See above.
    pub veto_patience: Duration,
    /// CPUs that something in the guest brings back online are taken offline again so often: once or twice it may be a
    /// person or a daemon that starts, and a rule that does it each time goes on for ever.
    pub back_online_most: u32,
    /// A removal of vCPUs for which there is no agent waits for so long before a cap takes its place: an agent that is
    /// started anew, or that boots with its guest, is back by then, and a cap that comes and goes helps nobody.
    pub quota_after: Duration,
    /// What a guest says that it needs holds for so long: as long as a guest that is short may wait for it and still be
    /// helped. One that still needs it says so again.
    pub need_valid: Duration,
    /// So many steps for needs of one guest begin within a minute at most, in which time it can grow by half a dozen
    /// steps; one that is short after that is short of something else.
    pub needs_a_minute: usize,
    /// Memory that was asked for and neither plugged nor unplugged counts as stuck when nothing has moved for so long.
    /// A step is given up much earlier; this is for what a person, or a daemon that died, asked for.
    pub stall: Duration,

    /// The host's available memory, in percent of all. Two marks a stage, as others have (10 and 15 percent), because
    /// one alone makes a host that is near it take and give back by turns. Below the first the kernel begins to drop
    /// caches that the emulators read their disks through; at 6 and 3 percent, two thirds and one third of it, it
    /// reclaims in earnest and swaps. What is above the first mark's `enter` is what growth may use: a plan does not
    /// bring about the need that it would have to mend.
    pub memory_available: Marks,
    /// The host's memory pressure (some avg10), in percent of the time in which something waited for memory. A host
    /// that only drops caches shows a few percent; at a quarter of the time machines are felt to be slow, at half of
    /// it most of the work is waiting.
    pub memory_pressure: Marks,
    /// The host's CPU pressure (some avg10), in percent. Some thread waits now and then on every host that is used
    /// well, so the marks lie high, and far apart because the figure sways.
    pub cpu_pressure: Marks,
    /// What a domain holds above its reservation and does not use counts dearer, 1 / (1 - tax) times: at 50 percent
    /// twice, at 75 four times. Three quarters is what ESXi takes by default; a host that is merely tight asks for
    /// less, and one that is near its end for more. What is used is never taxed, so even the highest tax does not
    /// touch live use.
    pub idle_tax: Tax,
    /// Only what was not used for so long, and for up to twice as long, counts as idle: a machine that rests for a
    /// moment between two requests is not idle.
    pub idle_window: Duration,
    /// A domain gives way at most this often, like a rule without a cooldown of its own.
    pub donation_cooldown: Duration,
    /// vCPUs are given away down to the ones in use times this many percent, as memory is: the rest is for the peak
    /// that the window did not see.
    pub vcpu_floor_percent: u32,
    /// What a domain's persona begins with is kept for it for so long after it is first seen to run: as long as a
    /// guest may take to boot and to bring its agent up. Later it has to want it like everybody else.
    pub starting: Duration,
}

/// Where one stage begins and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Beyond this value the stage begins.
    pub enter: f64,
    /// At this value, on the better side, it ends.
    pub leave: f64,
}

/// The marks of one figure, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marks {
    /// Of the stage tight.
    pub tight: Mark,
    /// Of the stage scarce.
    pub scarce: Mark,
    /// Of the stage critical.
    pub critical: Mark,
}

impl Marks {
    /// From `(enter, leave)` of each stage.
    const fn new(tight: (f64, f64), scarce: (f64, f64), critical: (f64, f64)) -> Self {
        const fn mark((enter, leave): (f64, f64)) -> Mark {
            Mark { enter, leave }
        }
        Self {
            tight: mark(tight),
            scarce: mark(scarce),
            critical: mark(critical),
        }
    }
}

/// The tax on what is idle, by stage, in percent below 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tax {
    /// When the host is tight.
    pub tight: u32,
    /// When it is scarce.
    pub scarce: u32,
    /// When it is critical.
    pub critical: u32,
}

impl Tax {
    /// The tax in one stage. Nobody pays while there is plenty.
    pub fn at(&self, stage: Stage) -> u32 {
        match stage {
            Stage::Plenty => 0,
            Stage::Tight => self.tight,
            Stage::Scarce => self.scarce,
            Stage::Critical => self.critical,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            memory_change_minimum: Bytes::from_mib(64),
            memory_shrink_percent: 5,
            memory_shrink_minimum: Bytes::from_mib(64),
            memory_shrink_maximum: Bytes::from_mib(256),
            memory_floor_percent: 130,
            page_struct_percent: 50,
            memory_growth_ratio: 4,
            guest_pressure: Mark {
                enter: 10.0,
                leave: 5.0,
            },
            guest_faults: Mark {
                enter: 200.0,
                leave: 50.0,
            },
            guest_need_window: Duration::from_secs(5),
            spare: Duration::from_secs(10 * 60),
            hold: Duration::from_secs(30 * 60),
            longest_hold: Duration::from_secs(30 * 24 * 60 * 60),
            proposal_expiry: Duration::from_secs(60 * 60),
            proposal_grace: Duration::from_secs(60),
            retry_after: Duration::from_secs(5),
            failures_before_quarantine: 3,
            quarantine: Duration::from_secs(10 * 60),
            veto_wait: Duration::from_secs(30),
            veto_wait_minimum: Duration::from_secs(5),
            vetoes_before_overruling: 3,
            veto_patience: Duration::from_secs(5 * 60),
            back_online_most: 3,
            quota_after: Duration::from_secs(60),
            need_valid: Duration::from_secs(10),
            needs_a_minute: 6,
            stall: Duration::from_secs(60),
            memory_available: Marks::new((10.0, 15.0), (6.0, 9.0), (3.0, 5.0)),
            memory_pressure: Marks::new((10.0, 5.0), (25.0, 15.0), (50.0, 30.0)),
            cpu_pressure: Marks::new((40.0, 25.0), (65.0, 50.0), (90.0, 75.0)),
            idle_tax: Tax {
                tight: 50,
                scarce: 75,
                critical: 90,
            },
            idle_window: Duration::from_secs(60),
            donation_cooldown: Duration::from_secs(60),
            vcpu_floor_percent: 130,
            starting: Duration::from_secs(5 * 60),
        }
    }
}
