//! Weight, cap and limits of disks on a real libvirt: what the daemon sets is what `virsh` and the kernel show, and it is
//! gone when the persona is. Control groups belong to the system's libvirtd alone, so weight and cap are turned there, on
//! a transient domain of the test's own that runs nothing, has a name of its own and ends with the test: the only one that a
//! live test begins there. A libvirtd of a user's session refuses them, and that is told.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use persona::domain::DomainId;
use persona::rule::{Knob, KnobValue};
use persona::units::Bytes;
use planner::report::Wish;
use planner::{Ending, LimitStep};
use tokio::sync::mpsc::UnboundedReceiver;
use virt_persona::act::limit::{LimitOutcome, act, reading};
use virt_persona::act::{CpusOnline, Guest as Agent, GuestFault, Hands, Settings};
use virt_persona::config::VcpuRemoval;
use virt_persona::hypervisor::{Hypervisor, HypervisorEvent, Limits, libvirt};

use crate::scene::{Guest, Scene};
use crate::{Use, turn};

/// A hung test shall end with a message; no test passes or fails by this time.
const HUNG: Duration = Duration::from_secs(60);

#[test]
fn limits_of_disks_are_what_virsh_shows_and_gone_with_the_persona() {
    let _turn = turn(Use::PartOfHost);
    let scene = Scene::start("");
    let domain = scene.boot_with_disk("vpt-limits");
    let web = Guest::of(&domain);
    scene.store(
        "
name: slow
base_configuration:
  cpu: {min: 1, max: 4, share: 2000}
  disk: {iops: 500, bandwidth: 10 MiB/s}
",
    );
    scene.apply(&web, "slow");
    let shows = |what: &str| {
        let tune = domain.virsh("blkdeviotune", &["vda"]);
        tune.is_ok_and(|tune| tune.split_whitespace().collect::<String>().contains(what))
    };
    scene.until("virsh shows both limits of the disk", || {
        shows("total_iops_sec:500") && shows("total_bytes_sec:10485760")
    });
    scene.until(
        "what this libvirtd cannot do is told in its own words",
        || {
            let actions = scene.said(&web, "action");
            actions.iter().any(|action| {
                action.contains("CPU weight")
                    && action.contains(": refused")
                    && action.contains("not available in session mode")
            })
        },
    );
    scene.cli(&["deactivate", web.name()]);
    scene.until("both limits are gone", || {
        shows("total_iops_sec:0") && shows("total_bytes_sec:0")
    });
}

/// A domain of the system's libvirtd, with two disks and no boot medium, of a name that nothing else has.
struct Idle {
    /// With its disks; it goes after the domain.
    folder: tempfile::TempDir,
    name: String,
    id: DomainId,
}

fn virsh(arguments: &[&str]) -> String {
    let output = Command::new("timeout")
        .args(["60", "virsh", "-q", "-c", "qemu:///system"])
        .args(arguments)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "virsh {arguments:?}: {error}");
    told
}

impl Idle {
    fn start() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let open = |path: PathBuf, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        open(folder.path().to_owned(), 0o755);
        let disks: String = ["vda", "vdb"]
            .map(|target| {
                let path = folder.path().join(target);
                std::fs::write(&path, vec![0; 1 << 20]).unwrap();
                open(path.clone(), 0o666);
                format!(
                    "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/><target dev='{target}' bus='virtio'/></disk>",
                    path.display()
                )
            })
            .concat();
        let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let id = DomainId::parse(random.trim()).unwrap();
        // From here on it is ended, whatever comes of its start.
        let idle = Self {
            folder,
            name: format!("vpt-idle-{id}"),
            id,
        };
        let text = format!(
            "<domain type='qemu'><name>{}</name><uuid>{id}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
             <os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{disks}<interface type='user'/></devices></domain>",
            idle.name
        );
        let xml = idle.folder.path().join("domain.xml");
        std::fs::write(&xml, text).unwrap();
        virsh(&["create", "--paused", &xml.display().to_string()]);
        idle
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // It may never have begun.
        let _ = Command::new("timeout")
            .args(["60", "virsh", "-q", "-c", "qemu:///system", "destroy"])
            .arg(&self.name)
            .status();
    }
}

/// Waits for an event.
async fn hears(events: &mut UnboundedReceiver<HypervisorEvent>, what: HypervisorEvent) {
    let heard = async { while events.recv().await.unwrap() != what {} };
    let heard = tokio::time::timeout(HUNG, heard).await;
    assert!(heard.is_ok(), "{what:?} never came");
}

/// No knob asks the guest.
struct Nobody;

impl Agent for Nobody {
    fn online_cpus(
        &self,
        _: DomainId,
        _: u32,
        _: Duration,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<CpusOnline, GuestFault>> + Send + '_>> {
        Box::pin(async { Err(GuestFault::Absent("nobody is there".into())) })
    }

    fn memory_total(
        &self,
        _: DomainId,
        _: Duration,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Bytes, GuestFault>> + Send + '_>> {
        Box::pin(async { Err(GuestFault::Absent("nobody is there".into())) })
    }
}

async fn turned(hands: &Hands, id: DomainId, knob: Knob, to: KnobValue) -> LimitOutcome {
    let description = hands.hypervisor.describe(id).await.unwrap();
    let step = LimitStep {
        domain: id,
        instance: description.instance,
        knob,
        from: reading(&description.limits, knob),
        to,
        by: Wish::Base,
    };
    act(hands, step).await
}

#[tokio::test(flavor = "multi_thread")]
async fn weight_cap_and_budgets_reach_the_kernel_and_the_emulator_and_leave_them_again() {
    let _turn = turn(Use::PartOfHost);
    let idle = Idle::start();
    let (libvirt, mut events) = libvirt::open("qemu:///system");
    hears(&mut events, HypervisorEvent::Connected).await;
    let hands = Hands {
        hypervisor: Arc::clone(&libvirt) as Arc<dyn Hypervisor>,
        guest: Arc::new(Nobody),
        notices: virt_persona::act::Notices::default(),
        settings: Settings {
            vcpu_deadline: Duration::from_secs(5),
            memory_deadline: Duration::from_secs(5),
            consent_deadline: Duration::from_secs(5),
            removal: VcpuRemoval::Auto,
        },
    };
    let before = libvirt.limits(idle.id).await.unwrap();
    let kernel = |line: &str| {
        let told = virsh(&["schedinfo", &idle.name]);
        let mut lines = told.lines().map(|line| line.replace(' ', ""));
        lines.any(|told| told == line)
    };
    let usual = before.cpu.scale.shares(1000);
    assert!(kernel(&format!("cpu_shares:{usual}")));
    for (knob, to) in [
        (Knob::CpuWeight, 3000),
        (Knob::CpuCap, 1_500_000),
        (Knob::DiskIops, 400),
        (Knob::DiskBandwidth, 1 << 20),
    ] {
        let outcome = turned(&hands, idle.id, knob, KnobValue::At(to)).await;
        assert_eq!(outcome.ending, Ending::Applied, "{}", outcome.sentence());
    }
    assert!(kernel(&format!(
        "cpu_shares:{}",
        before.cpu.scale.shares(3000)
    )));
    assert!(kernel("global_quota:150000"));
    for disk in ["vda", "vdb"] {
        let tune = virsh(&["blkdeviotune", &idle.name, disk]).replace(' ', "");
        for line in [
            "total_iops_sec:400",
            "total_bytes_sec:1048576",
            "group_name:virt-persona",
        ] {
            assert!(tune.lines().any(|told| told == line), "{tune}");
        }
    }
    // Somebody else's turn is told.
    while events.try_recv().is_ok() {}
    virsh(&["schedinfo", &idle.name, "--live", "cpu_shares=555"]);
    let domain = idle.id;
    hears(&mut events, HypervisorEvent::Tuned { domain }).await;

    // User mode has no device on the host; the library refuses, and so does not only the planner.
    let refused = turned(
        &hands,
        idle.id,
        Knob::NetworkBandwidth,
        KnobValue::At(8_000_000),
    )
    .await;
    assert_eq!(refused.ending, Ending::Refused, "{}", refused.sentence());

    for (knob, to) in [
        (Knob::CpuWeight, KnobValue::At(1000)),
        (Knob::CpuCap, KnobValue::Unlimited),
        (Knob::DiskIops, KnobValue::Unlimited),
        (Knob::DiskBandwidth, KnobValue::Unlimited),
    ] {
        let outcome = turned(&hands, idle.id, knob, to).await;
        assert_eq!(outcome.ending, Ending::Applied, "{}", outcome.sentence());
    }
    assert!(kernel(&format!("cpu_shares:{usual}")) && kernel("global_quota:-1"));
    let after = libvirt.limits(idle.id).await.unwrap();
    let shown = |limits: &Limits| Knob::ALL.map(|knob| limits.shown(knob));
    assert_eq!(shown(&after), shown(&before));
    assert_eq!(after.disks, before.disks);
}
