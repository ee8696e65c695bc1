//! What is written into lines is read back the same, and what cannot be a line is refused.

use persona::rule::{Knob, KnobValue};
use persona::signal::Signals;
use planner::snapshot::{Ability, KnobReading, Knobs};
use proptest::prelude::*;

use super::*;

/// Value, whether the host's, age and period in seconds.
type Told = Option<(f64, bool, u64, u64)>;

fn reading() -> impl Strategy<Value = Told> {
    let value = prop_oneof![
        Just(0.0),
        Just(-0.0),
        any::<f64>().prop_filter("readings are finite", |value| value.is_finite()),
        (0_u32..3).prop_map(f64::from),
    ];
    prop::option::weighted(0.8, (value, any::<bool>(), 0_u64..3, 1_u64..3))
}

fn ticks() -> impl Strategy<Value = Vec<(u64, Vec<Told>)>> {
    let readings = prop::collection::vec(reading(), 3);
    prop::collection::vec((1_u64..3, readings), 1..12)
}

fn frame(at: Moment, readings: &[Told]) -> DomainFrame {
    let read = |(value, host, age, period): (f64, bool, u64, u64)| Reading {
        value,
        source: if host { Source::Host } else { Source::Agent },
        at: Moment(at.0 - age * 1000),
        period: Duration::from_secs(period),
    };
    let mut metrics = vec![None; Metric::ALL.len()];
    metrics[Metric::CpuUtilization as usize] = readings[0].map(read);
    metrics[Metric::MemoryAvailable as usize] = readings[1].map(read);
    let named = readings[2].map(|reading| ("guest.app.orders".parse().unwrap(), read(reading)));
    let lost = readings[0].is_some().then_some(at);
    DomainFrame {
        name: "web".into(),
        run: Run::Running,
        instance: Some(1),
        vcpus: Vcpus {
            maximum: 4,
            fixed: 1,
            plugged: 1 + u32::from(readings[0].is_none()),
            online: None,
            weight: 1,
            ability: Ability::Both,
        },
        memory: Memory {
            boot: persona::Bytes(1),
            requested: persona::Bytes(1),
            plugged: persona::Bytes(1),
            maximum: persona::Bytes(1),
            minimum: persona::Bytes(1),
            block: persona::Bytes(1),
            means: planner::Means::Usual,
            balloon: None,
            dimm: None,
            ability: Ability::Both,
        },
        knobs: Knobs::new(|knob| match readings[1] {
            Some((_, _, devices, _)) if knob == Knob::DiskIops => KnobReading::Set {
                devices: u32::try_from(devices).unwrap(),
                value: KnobValue::Unlimited,
            },
            _ => KnobReading::Unknown,
        }),
        persona: None,
        signals: Signalled {
            metrics,
            named: named.into_iter().collect(),
            events: lost
                .map(|at| {
                    let kind = EventKind::AgentLost;
                    (Event { kind, source: None }, at)
                })
                .into_iter()
                .collect(),
        },
    }
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_written_to_the_last_digit(ticks in ticks()) {
        let (mut writer, mut reader) = (DomainCodec::default(), DomainCodec::default());
        let mut at = Moment(1_000_000);
        for (seconds, readings) in ticks {
            at = at.after(Duration::from_secs(seconds));
            let frame = frame(at, &readings);
            let line = writer.write(at, frame.clone());
            let text = serde_json::to_string(&line).unwrap();
            reader.advance(at);
            reader.read(&serde_json::from_str(&text).unwrap()).unwrap();
            let read = reader.frame.as_ref().unwrap();
            prop_assert_eq!(read, &frame);
            let bits = |frame: &DomainFrame| {
                // The two zeros are the same number to every rule.
                let reading = frame.signals.reading(Metric::CpuUtilization);
                reading.map(|reading| (reading.value + 0.0).to_bits())
            };
            prop_assert_eq!(bits(read), bits(&frame));
        }
    }
}

#[test]
fn a_domain_of_which_nothing_changes_costs_no_line() {
    let mut writer = DomainCodec::default();
    let measured = [Some((0.0, true, 0, 1)), Some((5.5, false, 0, 2)), None];
    let line = |writer: &mut DomainCodec, second: u64| {
        let at = Moment(1_000_000 + second * 1000);
        let mut frame = frame(at, &measured);
        frame.signals.events.clear();
        writer.write(at, frame)
    };
    assert!(line(&mut writer, 0).whole);
    for second in 1..5 {
        assert!(line(&mut writer, second).is_empty());
    }
}

#[test]
fn a_line_that_tells_a_change_of_nothing_or_an_unknown_name_is_refused() {
    let read = |text: &str| {
        let mut codec = DomainCodec::default();
        let _ = codec.write(Moment(0), frame(Moment(10_000), &[None; 3]));
        codec
            .read(&serde_json::from_str(text).unwrap())
            .unwrap_err()
            .to_string()
    };
    for (text, said) in [
        (
            r#"{"at":1,"readings":{"cpu.load":1}}"#,
            "neither a metric nor an event",
        ),
        (
            r#"{"at":1,"readings":{"cpu.utilization":1}}"#,
            "no line before it",
        ),
        (
            r#"{"at":1,"readings":{"cpu.utilization":["x","host",0,1]}}"#,
            "no number",
        ),
        (
            r#"{"at":1,"events":{"agent.los":1}}"#,
            "neither a metric nor an event",
        ),
        (r#"{"at":1,"whole":true}"#, "no line before it"),
    ] {
        let found = read(text);
        assert!(found.contains(said), "{text}: {found}");
    }
}
