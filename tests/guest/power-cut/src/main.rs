//! Runs in a guest whose power is cut: writes to the store and acknowledges each commit on the console, or checks
//! that what was acknowledged is there. Started by the guest's `init`; the host's end is `tests/power_cut.rs`.
//!
//! ```text
//! power-cut write DIR COUNT   -> "ACK N" for each durable commit, "DONE" after COUNT of them
//! power-cut check DIR         -> "LAST N MISSING M": the last number that is there, and gaps or damage before it
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr)] // The console is this program's interface.

use std::error::Error;
use std::process::ExitCode;

use power_cut::store::{Batch, Store, StoreError, Stored, Tree};
use serde::{Deserialize, Serialize};

/// Each commit appends one entry, as an audit record does.
#[derive(Serialize, Deserialize)]
struct Entry(String);

impl Stored for Entry {
    const TREE: Tree = Tree::Audit;
}

/// Each commit replaces this one, as a status does.
#[derive(Serialize, Deserialize)]
struct Latest(u64);

impl Stored for Latest {
    const TREE: Tree = Tree::Meta;
}

/// Some commits carry a long value, as a document is.
#[derive(Serialize, Deserialize)]
struct Document(String);

impl Stored for Document {
    const TREE: Tree = Tree::Versions;
}

const LATEST: &str = "latest";

/// Every so many commits carry a document; each replaces one of the last three.
const DOCUMENT_EVERY: u64 = 10;

fn entry(number: u64) -> String {
    let length = usize::try_from(number * 37 % 900).unwrap_or(0);
    format!("entry {number} ")
        .chars()
        .cycle()
        .take(20 + length)
        .collect()
}

fn document(number: u64) -> String {
    let length = usize::try_from(number * 7919 % 180_000).unwrap_or(0);
    format!("document {number} ")
        .chars()
        .cycle()
        .take(20 + length)
        .collect()
}

fn document_key(number: u64) -> String {
    format!("document-{}", number / DOCUMENT_EVERY % 3)
}

fn last(store: &Store) -> Result<u64, StoreError> {
    Ok(store
        .get::<Latest>(LATEST)?
        .map_or(0, |Latest(number)| number))
}

fn write(store: &Store, count: u64) -> Result<(), StoreError> {
    let start = last(store)?;
    for number in start + 1..=start + count {
        let mut batch = Batch::new();
        batch.put(number.to_be_bytes(), &Entry(entry(number)))?;
        batch.put(LATEST, &Latest(number))?;
        if number.is_multiple_of(DOCUMENT_EVERY) {
            batch.put(document_key(number), &Document(document(number)))?;
        }
        store.commit(batch)?;
        println!("ACK {number}");
    }
    println!("DONE");
    Ok(())
}

fn check(store: &Store) -> Result<(), StoreError> {
    let last = last(store)?;
    let mut missing = 0;
    for number in 1..=last {
        let there = matches!(store.get::<Entry>(number.to_be_bytes()), Ok(Some(Entry(text))) if text == entry(number));
        missing += u64::from(!there);
    }
    // A later entry than the latest would be half of a batch.
    missing += u64::from(store.get::<Entry>((last + 1).to_be_bytes())?.is_some());
    let newest = last / DOCUMENT_EVERY;
    for number in (newest.saturating_sub(2).max(1)..=newest).map(|n| n * DOCUMENT_EVERY) {
        let there = matches!(
            store.get::<Document>(document_key(number)),
            Ok(Some(Document(text))) if text == document(number)
        );
        missing += u64::from(!there);
    }
    println!("LAST {last} MISSING {missing}");
    Ok(())
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (work, dir) = match arguments[..] {
        ["write", dir, count] => (Some(count.parse()?), dir),
        ["check", dir] => (None, dir),
        _ => return Err("usage: power-cut write DIR COUNT | check DIR".into()),
    };
    let store = Store::open(dir)?;
    if let Some(aside) = store.set_aside() {
        return Err(format!("the store was set aside: {}", aside.reason).into());
    }
    work.map_or_else(|| check(&store), |count| write(&store, count))?;
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            println!("FAILED {text}");
            ExitCode::FAILURE
        }
    }
}
