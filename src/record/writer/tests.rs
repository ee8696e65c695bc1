//! The recorder on a real folder: its bounds, a torn end, a full disk, and what is read back.

use persona::Bytes;
use planner::arbitrate::Claim;
use planner::snapshot::{Ability, Host, Knobs, Memory, Run, Strain, Vcpus};
use planner::stage::{HostState, Stage};
use planner::{Other, Policy, Stake};

use super::*;
use crate::record::frame::{Signalled, Why};
use crate::record::read::{ReadError, export};
use crate::record::trace::Trace;

const ID: DomainId = DomainId([7; 16]);

const BOUND: Bound = Bound {
    bytes: 1024 * 1024,
    age: Duration::from_secs(3600),
};

fn batch(second: u64, state: Option<Why>) -> Batch {
    let claim = Claim {
        domain: ID,
        held: second,
        wanted: 1,
        funded: 1,
        reservation: 0,
        expected: 0,
        share: 1000,
        granule: 1,
        idle: 0,
        spare: 0,
        portion: 1,
    };
    let stake = Stake {
        claim,
        share: 1000,
        shares: true,
        coming: 0,
        on_its_way: 0,
    };
    let other = Other {
        name: "web".into(),
        stakes: [stake.clone(), stake],
    };
    let memory = Bytes::from_mib(512);
    let frame = DomainFrame {
        name: "web".into(),
        run: Run::Running,
        instance: Some(1),
        vcpus: Vcpus {
            maximum: 4,
            fixed: 1,
            plugged: 1 + u32::try_from(second % 3).unwrap(),
            online: None,
            weight: 1,
            ability: Ability::Both,
        },
        memory: Memory {
            boot: memory,
            requested: memory,
            plugged: memory,
            maximum: memory,
            minimum: memory,
            block: memory,
            means: planner::Means::Usual,
            balloon: None,
            dimm: None,
            ability: Ability::Both,
        },
        knobs: Knobs::default(),
        persona: None,
        signals: Signalled::default(),
    };
    let state = state.map(|why| StateNote { why, state: None });
    Batch {
        at: Moment(1_000_000 + second * 1000),
        host: HostFrame {
            budget: Host { vcpus: 4, memory },
            strain: Strain::default(),
            stages: HostState::default(),
            policy: Policy::default(),
            domains: BTreeMap::from([(ID, other)]),
        },
        domains: vec![Entry {
            id: ID,
            frame,
            state,
            ended: Vec::new(),
            needs: Vec::new(),
            steps: Vec::new(),
            turned: Vec::new(),
            turns: Vec::new(),
            decision: None,
        }],
    }
}

fn written(folder: &Path) -> Result<String, ReadError> {
    let mut out = Vec::new();
    export(folder, ID, None, None, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// Gives ticks as the daemon does: a state when it is wanted.
fn give(recorder: &mut Recorder, seconds: std::ops::Range<u64>) {
    for second in seconds {
        let wanted = recorder.health().wanted.contains(&ID);
        let first = (second == 0).then_some(Why::Start);
        recorder.give(batch(second, first.or(wanted.then_some(Why::Point))));
        // Nothing is lost while the thread keeps up.
        let _ = recorder.reader().unwrap().flushed();
    }
}

#[test]
fn what_is_given_is_what_is_read_over_many_segments_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let bound = Bound {
        bytes: 128 * 1024,
        ..BOUND
    };
    let mut recorder = Recorder::start(folder.path(), bound).unwrap();
    give(&mut recorder, 0..3000);
    let health = recorder.health();
    assert_eq!((health.problem, health.lost), (None, 0));
    // One ring of a domain, and the host's, which is four times as large; a full segment may wait for one more tick.
    assert!(health.bytes < 5 * 128 * 1024 + 4096, "{}", health.bytes);
    let text = written(folder.path()).unwrap();
    let last = text.lines().last().unwrap();
    assert!(
        last.contains(&format!("\"at\":{}", 1_000_000 + 2999 * 1000)),
        "{last}"
    );
    assert!(text.lines().count() < 3000, "the oldest are gone");
    drop(recorder);
    assert_eq!(written(folder.path()).unwrap(), text);
}

#[test]
fn the_hosts_stage_of_each_tick_is_read_as_it_was_although_its_figures_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(folder.path(), BOUND).unwrap();
    // Between the two marks of a stage it is in or not by what was before; a whole line is only the first.
    let stages = [
        Stage::Plenty,
        Stage::Tight,
        Stage::Tight,
        Stage::Scarce,
        Stage::Plenty,
    ];
    for (second, stage) in (0..).zip(stages) {
        let mut batch = batch(second, (second == 0).then_some(Why::Start));
        batch.host.stages.available = stage;
        recorder.give(batch);
        let _ = recorder.reader().unwrap().flushed();
    }
    let text = written(folder.path()).unwrap();
    let mut trace = Trace::open(text.as_bytes()).unwrap();
    let mut read = Vec::new();
    while let Some(tick) = trace.tick().unwrap() {
        read.push(tick.host.stages.available);
    }
    assert_eq!(read, stages);
    assert_eq!(text.matches("\"stages\"").count(), 4, "{text}");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_recorded_into_again_when_it_can() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("recordings");
    let mut recorder = Recorder::start(&folder, BOUND).unwrap();
    give(&mut recorder, 0..3);
    // As a disk that is full or gone: nothing can be made there.
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "no folder").unwrap();
    give(&mut recorder, 3..6);
    let problem = recorder.problem().unwrap();
    assert!(
        problem.contains("recordings could not be written"),
        "{problem}"
    );
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    give(&mut recorder, 6..12);
    assert_eq!(recorder.problem(), None);
    let text = written(&folder).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.contains("\"at\":1011000"), "{text}");
}

#[test]
fn a_disk_without_room_is_told_and_leaves_what_was_written() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("recordings");
    let mut recorder = Recorder::start(&folder, BOUND).unwrap();
    give(&mut recorder, 0..3);
    let before = written(&folder).unwrap();
    drop(recorder);
    let mut recorder = Recorder::start(&folder, BOUND).unwrap();
    give(&mut recorder, 0..1);
    // The device on which every write fails for want of room stands for the segments that are written.
    let segments =
        [HOST.to_owned(), ID.to_string()].map(|stem| folder.join(format!("{stem}.00000002.jsonl")));
    for segment in &segments {
        fs::remove_file(segment).unwrap();
        std::os::unix::fs::symlink("/dev/full", segment).unwrap();
    }
    recorder.give(batch(10, None));
    let _ = recorder.reader().unwrap().flushed();
    let problem = recorder.problem();
    assert!(problem.is_some_and(|problem| problem.contains("No space left")));
    for segment in &segments {
        fs::remove_file(segment).unwrap();
    }
    assert_eq!(written(&folder).unwrap(), before);
}

#[test]
fn ticks_that_the_thread_cannot_take_are_counted_and_said_in_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(folder.path(), BOUND).unwrap();
    // A thread that is held up: it waits for the lock of its health at the end of each tick with a wish.
    let health = recorder.health.clone();
    let held = health.lock().unwrap();
    let (done, wait) = std::sync::mpsc::channel();
    let messages = recorder.messages.clone().unwrap();
    messages.send(Message::Flush(done)).unwrap();
    let mut lost = 0;
    for second in 0..100 {
        let state = (second == 0).then_some(Why::Start);
        let batch = Message::Tick(Box::new(batch(second, state)), 0);
        lost += u64::from(messages.try_send(batch).is_err());
    }
    assert!(lost >= 100 - u64::try_from(WAITING).unwrap() - 1);
    drop(held);
    let _ = wait.recv();
    recorder.lost = lost;
    drop(messages);
    let _ = recorder.reader().unwrap().flushed();
    recorder.give(batch(200, Some(Why::Touched)));
    let _ = recorder.reader().unwrap().flushed();
    let text = written(folder.path()).unwrap();
    assert!(text.contains(&format!("\"lost\":{lost}")), "{text}");
}
