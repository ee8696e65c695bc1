//! Waiting for the disk in the middle of the daemon's task. What is waited for is not here. Called wherever the daemon
//! reads or writes its store.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does what waits for the disk, tens of milliseconds at the worst. Other tasks of this thread move to another meanwhile;
/// a run time of one thread, as tests with a clock of their own have, has none to move them to and stands still.
pub(super) fn wait_for_disk<T>(work: impl FnOnce() -> T) -> T {
    let threads = Handle::try_current().map(|run_time| run_time.runtime_flavor());
    if matches!(threads, Ok(RuntimeFlavor::MultiThread)) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
