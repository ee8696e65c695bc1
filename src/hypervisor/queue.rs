//! Blocking calls with deadlines, one queue a lane: calls of one lane run one after another on threads of their own,
//! lanes do not wait for each other. What the calls do is not here. Used by `libvirt`, whose library blocks for as long
//! as the domain's monitor hangs, and by `simulated` with tasks in place of threads, so that tests meet the same behaviour.
//!
//! A call that outlives its deadline answers `TimedOut` while its thread stays occupied, because a call into the
//! library cannot be taken back. Until that thread returns, the lane is *overdue* and answers `Busy` at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{
    Mutex as Turn, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, oneshot, watch,
};

use super::HypervisorError;

/// Threads at most. Each hung domain occupies two at the worst (a change and a read), so this is room for a host with
/// thirty hung domains; a thread that waits costs 8 KiB of memory. Above it, something else is wrong with the host.
pub(super) const THREADS: usize = 64;

/// What is called, for errors and for the time that it may take.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// Its name in errors.
    pub(super) operation: &'static str,
    /// The domain in errors, `-` for the host.
    pub(super) domain: String,
    /// How long the caller waits: once for its turn, once for a thread, once for the answer.
    pub(super) deadline: Duration,
}

impl Call {
    fn busy(&self) -> HypervisorError {
        HypervisorError::Busy {
            operation: self.operation,
            domain: self.domain.clone(),
        }
    }

    fn overloaded(&self) -> HypervisorError {
        HypervisorError::Overloaded {
            operation: self.operation,
            domain: self.domain.clone(),
            calls: THREADS,
        }
    }

    fn timed_out(&self) -> HypervisorError {
        HypervisorError::TimedOut {
            operation: self.operation,
            domain: self.domain.clone(),
            seconds: self.deadline.as_secs(),
        }
    }
}

#[derive(Debug)]
struct Lane {
    /// Held by the thread that works, not by the caller, so that it outlives a caller that gave up.
    turn: Arc<Turn<()>>,
    /// Whether the call that runs has outlived its deadline.
    overdue: watch::Sender<bool>,
}

impl Lane {
    fn new() -> Self {
        Self {
            turn: Arc::new(Turn::new(())),
            overdue: watch::Sender::new(false),
        }
    }
}

/// A call that runs: its lane is taken and, once overdue, busy until this is dropped.
struct Held<T> {
    lane: Arc<Lane>,
    answer: Option<oneshot::Sender<Result<T, HypervisorError>>>,
    _turn: OwnedMutexGuard<()>,
    _thread: OwnedSemaphorePermit,
}

impl<T> Held<T> {
    fn tell(mut self, result: Result<T, HypervisorError>) {
        if let Some(answer) = self.answer.take() {
            // A caller that gave up is no reason to fail.
            let _ = answer.send(result);
        }
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        self.lane.overdue.send_replace(false);
    }
}

/// Lanes by key, and the threads that they share.
#[derive(Debug)]
pub(super) struct Queue<K> {
    lanes: Mutex<HashMap<K, Arc<Lane>>>,
    threads: Arc<Semaphore>,
}

impl<K: Eq + Hash + Clone> Queue<K> {
    /// A queue without lanes; they come with the first call.
    pub(super) fn new() -> Self {
        Self {
            lanes: Mutex::new(HashMap::new()),
            threads: Arc::new(Semaphore::new(THREADS)),
        }
    }

    /// Whether an earlier call of this lane has outlived its deadline and still runs.
    pub(super) fn is_overdue(&self, key: &K) -> bool {
        self.lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .is_some_and(|lane| *lane.overdue.borrow())
    }

    /// Runs `work` on a thread of its own when the lane's earlier calls are done.
    ///
    /// # Errors
    ///
    /// `Busy` when its turn does not come, `Overloaded` when no thread gets free (in both cases `work` was not run),
    /// `TimedOut` when `work` does not end in time, and what `work` itself answers.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        key: K,
        call: Call,
        work: impl FnOnce() -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let begin = |held: Held<T>| {
            let thread = std::thread::Builder::new().name("hypervisor-call".into());
            let work = move || {
                // A panic must not leave the lane overdue for ever; the caller learns of it by the dropped channel.
                if let Ok(result) = catch_unwind(AssertUnwindSafe(work)) {
                    held.tell(result);
                }
            };
            thread.spawn(work).map(drop)
        };
        self.carry(key, call, begin).await
    }

    /// Runs `work` in a task of `place` when the lane's earlier calls are done: for work that waits without a thread, on a
    /// clock that may be paused. It counts as a thread all the same, and goes on when the caller's run time ends.
    ///
    /// # Errors
    ///
    /// As [`Queue::run`].
    pub(super) async fn run_in_task<T: Send + 'static>(
        &self,
        key: K,
        call: Call,
        place: &Handle,
        work: impl Future<Output = Result<T, HypervisorError>> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let begin = |held: Held<T>| {
            place.spawn(async move { held.tell(work.await) });
            Ok(())
        };
        self.carry(key, call, begin).await
    }

    /// Waits for the lane's turn and a thread, begins, and waits for the answer.
    async fn carry<T: Send + 'static>(
        &self,
        key: K,
        call: Call,
        begin: impl FnOnce(Held<T>) -> std::io::Result<()>,
    ) -> Result<T, HypervisorError> {
        let lane = self.lane(key);
        let mut overdue = lane.overdue.subscribe();
        let turn = tokio::select! {
            biased;
            // The sender lives in the lane that is held here, so this can't end by its loss.
            _ = overdue.wait_for(|overdue| *overdue) => return Err(call.busy()),
            turn = tokio::time::timeout(call.deadline, lane.turn.clone().lock_owned()) => {
                turn.map_err(|_| call.busy())?
            }
        };
        // Many lanes at once are no fault: a tick may change every domain. They are served in order, and only where no
        // thread comes back in time do calls hang.
        let thread = tokio::time::timeout(call.deadline, self.threads.clone().acquire_owned())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| call.overloaded())?;

        let (answer, mut answered) = oneshot::channel();
        begin(Held {
            lane: lane.clone(),
            answer: Some(answer),
            _turn: turn,
            _thread: thread,
        })
        .map_err(|_| call.overloaded())?;

        match tokio::time::timeout(call.deadline, &mut answered).await {
            Ok(Ok(result)) => result,
            // The work panicked, which the library's wrapper does on a broken invariant: nothing is known of its effect.
            Ok(Err(_)) => Err(call.timed_out()),
            Err(_) => {
                // The thread clears the mark after it has answered; so an answer that is here by now needs no mark,
                // and a mark that is set before the answer is cleared.
                let mut late = None;
                lane.overdue
                    .send_modify(|overdue| match answered.try_recv() {
                        Ok(result) => late = Some(result),
                        Err(oneshot::error::TryRecvError::Empty) => *overdue = true,
                        Err(oneshot::error::TryRecvError::Closed) => {}
                    });
                late.unwrap_or_else(|| Err(call.timed_out()))
            }
        }
    }

    fn lane(&self, key: K) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(&key) {
            return lane.clone();
        }
        // Lanes that nobody uses are dropped here, so domains that are gone leave nothing behind.
        lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        let lane = Arc::new(Lane::new());
        lanes.insert(key, lane.clone());
        lane
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn call(deadline_ms: u64) -> Call {
        Call {
            operation: "set_vcpus",
            domain: "web".into(),
            deadline: Duration::from_millis(deadline_ms),
        }
    }

    /// Work that hangs until the returned sender is used or dropped.
    fn hung() -> (
        mpsc::Sender<()>,
        impl FnOnce() -> Result<(), HypervisorError> + Send,
    ) {
        let (release, wait) = mpsc::channel::<()>();
        (release, move || {
            let _ = wait.recv();
            Ok(())
        })
    }

    #[tokio::test]
    async fn a_hung_call_times_out_and_makes_its_lane_busy() {
        let queue = Queue::new();
        let (_release, work) = hung();
        let first = queue.run("a", call(20), work).await;
        assert!(
            matches!(first, Err(HypervisorError::TimedOut { .. })),
            "{first:?}"
        );
        assert!(queue.is_overdue(&"a"));
        let second = queue.run("a", call(60_000), || Ok(())).await;
        assert!(
            matches!(second, Err(HypervisorError::Busy { .. })),
            "{second:?}"
        );
    }

    #[tokio::test]
    async fn a_hung_lane_blocks_no_other() {
        let queue = Queue::new();
        let (_release, work) = hung();
        assert!(queue.run("a", call(20), work).await.is_err());
        assert_eq!(queue.run("b", call(60_000), || Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_lane_recovers_when_its_hung_call_returns() {
        let queue = Queue::new();
        let (release, work) = hung();
        assert!(queue.run("a", call(20), work).await.is_err());
        release.send(()).unwrap();
        let mut overdue = queue.lane("a").overdue.subscribe();
        overdue.wait_for(|overdue| !*overdue).await.unwrap();
        assert_eq!(queue.run("a", call(60_000), || Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_call_that_waits_for_its_turn_learns_at_once_that_the_lane_hangs() {
        let queue = Arc::new(Queue::new());
        let (_release, work) = hung();
        let (first, second) = tokio::join!(
            queue.run("a", call(50), work),
            queue.run("a", call(3_600_000), || Ok(())),
        );
        assert!(
            matches!(first, Err(HypervisorError::TimedOut { .. })),
            "{first:?}"
        );
        assert!(
            matches!(second, Err(HypervisorError::Busy { .. })),
            "{second:?}"
        );
    }

    #[tokio::test]
    async fn calls_of_one_lane_run_one_after_another_in_order() {
        let queue = Queue::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let step = |n: u32| {
            let seen = seen.clone();
            move || {
                seen.lock().unwrap().push((n, "begin"));
                std::thread::yield_now();
                seen.lock().unwrap().push((n, "end"));
                Ok(())
            }
        };
        let (a, b) = tokio::join!(
            queue.run("a", call(60_000), step(1)),
            queue.run("a", call(60_000), step(2)),
        );
        a.unwrap();
        b.unwrap();
        assert_eq!(
            *seen.lock().unwrap(),
            [(1, "begin"), (1, "end"), (2, "begin"), (2, "end")]
        );
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_leaves_the_call_running_and_the_lane_taken() {
        let queue = Queue::new();
        let (release, work) = hung();
        {
            let running = queue.run("a", call(60_000), work);
            let given_up = tokio::time::timeout(Duration::from_millis(20), running).await;
            assert!(given_up.is_err());
        }
        let second = queue.run("a", call(20), || Ok(())).await;
        assert!(
            matches!(second, Err(HypervisorError::Busy { .. })),
            "{second:?}"
        );
        drop(release);
        queue.run("a", call(60_000), || Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn threads_are_bounded() {
        let queue = Queue::new();
        let mut releases = Vec::new();
        for lane in 0..THREADS {
            let (release, work) = hung();
            releases.push(release);
            assert!(queue.run(lane, call(1), work).await.is_err());
        }
        let refused = queue.run(THREADS, call(20), || Ok(())).await;
        assert!(
            matches!(refused, Err(HypervisorError::Overloaded { .. })),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_call_waits_while_all_threads_are_at_work() {
        let queue = Arc::new(Queue::new());
        let mut releases = Vec::new();
        let mut working = tokio::task::JoinSet::new();
        for lane in 0..THREADS {
            let (release, work) = hung();
            releases.push(release);
            let queue = queue.clone();
            working.spawn(async move { queue.run(lane, call(60_000), work).await });
        }
        while queue.threads.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let mut waiting = std::pin::pin!(queue.run(THREADS, call(60_000), || Ok(7)));
        let early = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
        assert!(early.is_err(), "{early:?}");
        releases.pop();
        assert_eq!(waiting.await.unwrap(), 7);
        drop(releases);
        while let Some(ended) = working.join_next().await {
            ended.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_panic_in_the_work_frees_the_lane() {
        let queue = Queue::new();
        let broken = queue
            .run("a", call(60_000), || -> Result<(), HypervisorError> {
                std::panic::resume_unwind(Box::new("broken"))
            })
            .await;
        assert!(
            matches!(broken, Err(HypervisorError::TimedOut { .. })),
            "{broken:?}"
        );
        queue.run("a", call(60_000), || Ok(())).await.unwrap();
    }
}
