//! The agent's channel, and what the balloon tells and gives back by itself.

use super::{LiveStep, When, Work};
use crate::hypervisor::tree::Element;

const CHANNEL: &str = "agent channel";
const STATISTICS: &str = "balloon statistics";
const REPORTING: &str = "free page reporting";

/// The virtio-serial port of the persona agent.
const PORT: &str = "org.virtpersona.agent.0";

/// How often the balloon's driver is asked, in seconds.
const PERIOD: u64 = 2;

fn has_channel(devices: Option<&Element>) -> bool {
    devices.is_some_and(|devices| {
        devices.all("channel").any(|channel| {
            channel
                .child("target")
                .is_some_and(|target| target.attribute("name") == Some(PORT))
        })
    })
}

fn has_controller(devices: &Element) -> bool {
    devices
        .all("controller")
        .any(|controller| controller.attribute("type") == Some("virtio-serial"))
}

/// Plans the channel, with the controller that it needs.
pub(super) fn channel(work: &mut Work<'_>) {
    let why = "by it the agent in the guest is reached";
    let markup = format!("<channel type='unix'><target type='virtio' name='{PORT}'/></channel>");
    let Some(devices) = work.machine.devices() else {
        work.cannot(CHANNEL, "none".into(), "the definition has no <devices>");
        return;
    };
    let running = work.live.as_ref().and_then(|live| live.machine.devices());
    let (runs, takes) = running.map_or((false, false), |live| {
        (has_channel(Some(live)), has_controller(live))
    });
    let live = running.is_some() && !runs && takes;
    if live {
        work.steps.push(LiveStep::Attach {
            what: CHANNEL,
            device: markup.clone(),
        });
    }
    if has_channel(Some(devices)) {
        if live {
            let now = "there".to_owned();
            work.line(
                CHANNEL,
                now.clone(),
                now,
                When::Now,
                "the definition has it, and the running domain has a controller for it",
            );
        } else {
            work.is_there(CHANNEL, "there".into(), why, runs);
        }
        return;
    }
    if !has_controller(devices) {
        work.edits
            .append(devices, "<controller type='virtio-serial' index='0'/>");
    }
    work.edits.append(devices, &markup);
    let (when, then) = if live {
        (When::Now, PORT.to_owned())
    } else if has_controller(devices) {
        (When::NextStart, PORT.to_owned())
    } else {
        (When::NextStart, format!("{PORT}, with a controller"))
    };
    // One that somebody attached to the running domain alone stays with it.
    let when = if runs { When::Already } else { when };
    work.line(CHANNEL, "none".into(), then, when, why);
}

/// Plans what the balloon tells. A balloon that was turned off stays so: some guests are better without one.
pub(super) fn balloon(work: &mut Work<'_>) {
    let device = |devices: Option<&Element>| -> Option<(bool, bool)> {
        let balloon = devices?.child("memballoon")?;
        (balloon.attribute("model") != Some("none")).then_some((
            statistics(balloon),
            balloon.attribute("freePageReporting") == Some("on"),
        ))
    };
    let running = work
        .live
        .as_ref()
        .and_then(|live| device(live.machine.devices()));
    let persistent = work.machine.devices();
    let Some(balloon) = persistent.and_then(|devices| devices.child("memballoon")) else {
        // libvirt gives one to each domain that does not refuse it, so it gets one at its next definition.
        work.cannot(
            STATISTICS,
            "no balloon".into(),
            "the definition says nothing of a balloon; libvirt adds one when it is defined anew",
        );
        return;
    };
    if balloon.attribute("model") == Some("none") {
        work.cannot(STATISTICS, "no balloon".into(), "the balloon was turned off (<memballoon model='none'/>), and stays so; change it with `virsh edit` where that was not meant");
        return;
    }
    let why = "how much the guest uses is known without an agent";
    let live = running.is_some_and(|(statistics, _)| !statistics);
    if live {
        work.steps.push(LiveStep::BalloonPeriod(PERIOD));
    }
    let then = format!("every {PERIOD} s");
    if statistics(balloon) {
        if live {
            work.line(
                STATISTICS,
                "there".into(),
                then,
                When::Now,
                "the definition has them; the running domain was started without them",
            );
        } else {
            work.is_there(STATISTICS, "there".into(), why, running.is_some());
        }
    } else {
        match balloon.child("stats") {
            Some(stats) => work
                .edits
                .set_attribute(stats, "period", &PERIOD.to_string()),
            None => work
                .edits
                .append(balloon, &format!("<stats period='{PERIOD}'/>")),
        }
        let when = if running.is_some() {
            When::Now
        } else {
            When::NextStart
        };
        work.line(STATISTICS, "off".into(), then, when, why);
    }
    let why = "what the guest frees, the host gets back by itself";
    match balloon.attribute("freePageReporting") {
        Some("on") => work.is_there(
            REPORTING,
            "on".into(),
            why,
            running.is_some_and(|(_, on)| on),
        ),
        Some(_) => work.cannot(
            REPORTING,
            "off".into(),
            "it was turned off, and stays so; change it with `virsh edit` where that was not meant",
        ),
        None => {
            work.edits.set_attribute(balloon, "freePageReporting", "on");
            work.line(REPORTING, "off".into(), "on".into(), When::NextStart, why);
        }
    }
}

fn statistics(balloon: &Element) -> bool {
    balloon
        .child("stats")
        .and_then(|stats| stats.attribute("period")?.parse::<u64>().ok())
        .is_some_and(|period| period > 0)
}
