//! The trail over a real store.

use serde_json::json;

use super::*;

fn trail(dir: &std::path::Path, limit: u64) -> AuditTrail {
    AuditTrail::open(Arc::new(Store::open(dir).unwrap()), limit).unwrap()
}

fn entry(at: u64, domain: u8, text: &str) -> Entry {
    let domain = (domain > 0).then(|| (DomainId([domain; 16]), format!("vm{domain}")));
    Entry {
        at: Moment(at),
        domain,
        kind: AuditKind::Action,
        text: text.to_owned(),
        detail: json!({"vcpus": at}),
    }
}

fn numbers(records: &[AuditRecord]) -> Vec<u64> {
    records.iter().map(|record| record.seq).collect()
}

#[test]
fn records_are_kept_in_order_over_restarts_and_numbers_never_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let written = {
        let trail = trail(dir.path(), 100);
        let mut written = trail
            .append_all(vec![entry(10, 1, "one"), entry(20, 2, "two")])
            .unwrap();
        written.push(trail.append(entry(30, 0, "three")).unwrap());
        written
    };
    let trail = trail(dir.path(), 100);
    assert_eq!(trail.query(&AuditQuery::default()).unwrap(), written);
    assert_eq!(trail.append(entry(40, 1, "four")).unwrap().seq, 4);
}

#[test]
fn a_query_narrows_by_domain_time_number_and_count() {
    let dir = tempfile::tempdir().unwrap();
    let trail = trail(dir.path(), 100);
    trail
        .append_all(
            (1..=9)
                .map(|n| entry(n * 10, u8::try_from(n % 3).unwrap(), "x"))
                .collect(),
        )
        .unwrap();
    let check = |query: AuditQuery, expected: &[u64]| {
        assert_eq!(
            numbers(&trail.query(&query).unwrap()),
            expected,
            "{query:?}"
        );
    };
    let domain = Some(DomainId([1; 16]));
    check(
        AuditQuery {
            domain,
            ..Default::default()
        },
        &[1, 4, 7],
    );
    check(
        AuditQuery {
            domain,
            limit: Some(2),
            ..Default::default()
        },
        &[4, 7],
    );
    check(
        AuditQuery {
            since: Some(Moment(75)),
            ..Default::default()
        },
        &[8, 9],
    );
    check(
        AuditQuery {
            after: Some(6),
            ..Default::default()
        },
        &[7, 8, 9],
    );
    check(
        AuditQuery {
            limit: Some(3),
            ..Default::default()
        },
        &[7, 8, 9],
    );
    check(
        AuditQuery {
            limit: Some(0),
            ..Default::default()
        },
        &[],
    );
}

#[test]
fn a_clock_that_was_set_back_hides_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let trail = trail(dir.path(), 100);
    trail
        .append_all(vec![entry(900, 1, "before"), entry(100, 1, "set back")])
        .unwrap();
    let query = AuditQuery {
        since: Some(Moment(500)),
        ..Default::default()
    };
    assert_eq!(numbers(&trail.query(&query).unwrap()), [1]);
}

#[test]
fn the_oldest_records_go_when_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    {
        let trail = trail(dir.path(), 1000);
        trail
            .append_all((1..=900).map(|n| entry(n, 1, "x")).collect())
            .unwrap();
        trail
            .append_all((901..=1_005).map(|n| entry(n, 1, "x")).collect())
            .unwrap();
        assert_eq!(
            numbers(&trail.query(&AuditQuery::default()).unwrap()),
            (6..=1_005).collect::<Vec<_>>()
        );
    }
    // A lower limit is reached within a few appends.
    let trail = trail(dir.path(), 3);
    for n in 1..=4 {
        trail.append(entry(n, 1, "y")).unwrap();
    }
    assert_eq!(
        numbers(&trail.query(&AuditQuery::default()).unwrap()),
        [1_007, 1_008, 1_009]
    );
}

#[test]
fn what_goes_with_a_record_is_there_with_it() {
    let dir = tempfile::tempdir().unwrap();
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Cooldown(u64);
    impl crate::store::Stored for Cooldown {
        const TREE: crate::store::Tree = crate::store::Tree::Planner;
    }
    let trail = trail(dir.path(), 100);
    let mut batch = Batch::new();
    batch.put("vm1", &Cooldown(5)).unwrap();
    trail
        .append_with(batch, vec![entry(1, 1, "grown")])
        .unwrap();
    assert_eq!(
        trail.store.get::<Cooldown>("vm1").unwrap(),
        Some(Cooldown(5))
    );
    assert_eq!(trail.query(&AuditQuery::default()).unwrap().len(), 1);
}

#[test]
fn large_records_are_split_over_commits_and_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    let trail = trail(dir.path(), 10_000);
    let text = "ü".repeat(900);
    let entries = (0..700)
        .map(|n| Entry {
            detail: json!({ "pad": "x".repeat(n * 17 % 9_000) }),
            ..entry(1, 1, &text)
        })
        .collect();
    let written = trail.append_all(entries).unwrap();
    assert_eq!(written.len(), 700);
    assert_eq!(trail.query(&AuditQuery::default()).unwrap(), written);
}

#[test]
fn a_record_is_one_line_and_bounded_whatever_goes_in() {
    let dir = tempfile::tempdir().unwrap();
    let trail = trail(dir.path(), 100);
    let hostile = format!("first\nsecond\u{1b}[2J{}", "x".repeat(5_000));
    let record = trail
        .append(Entry {
            detail: json!("y".repeat(200_000)),
            ..entry(1, 1, &hostile)
        })
        .unwrap();
    assert!(
        record.text.starts_with("first second [2Jxxx"),
        "{}",
        record.text
    );
    assert_eq!(record.text.chars().count(), 1001);
    assert_eq!(
        record.detail,
        json!({"left_out": "200002 bytes, more than 65536"})
    );
    assert_eq!(trail.query(&AuditQuery::default()).unwrap(), [record]);
}
