//! Answers the kernel, which asks before a marked file is opened or run: people are refused, all others are not. Somebody
//! waits for each answer, so nothing here writes a line, opens a file but of /proc or waits for another thread. `main` starts it, `watch`
//! changes what it goes by.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::{Arc, PoisonError, RwLock, mpsc::SyncSender},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        fanotify::{
            EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags,
            MaskFlags, Response,
        },
        stat::fstat,
    },
};

use crate::{
    former::Former,
    guarded::{Name, Refused},
    person::{Person, acting, person_of},
    service::Watchdog,
    targets::Identity,
};

/// Opening, for reading and by a loader as much as for a copy; and running.
pub(crate) const ASKED: MaskFlags = MaskFlags::FAN_OPEN_PERM.union(MaskFlags::FAN_OPEN_EXEC_PERM);

/// What is opened in a directory. To run a file is to open it, too, and one question is enough.
pub(crate) const ASKED_INSIDE: MaskFlags =
    MaskFlags::FAN_OPEN_PERM.union(MaskFlags::FAN_EVENT_ON_CHILD);

/// Why the kernel does not ask.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JudgeError {
    #[error("the kernel does not let the gate watch files: it needs root with CAP_SYS_ADMIN")]
    NotPrivileged(#[source] Errno),
    #[error(
        "the kernel cannot ask before a file is opened: it was built without CONFIG_FANOTIFY_ACCESS_PERMISSIONS, or is older than 5.0"
    )]
    NotInKernel(#[source] Errno),
    #[error("files cannot be watched now")]
    Open(#[source] Errno),
    #[error("what the kernel asks cannot be read")]
    Read(#[source] Errno),
}

impl JudgeError {
    /// Whether trying again would change nothing.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::NotPrivileged(_) | Self::NotInKernel(_))
    }
}

/// A group of marks whose questions are to be answered. It is tried on `probe`, an open file of the gate's own.
pub(crate) fn open_group(probe: BorrowedFd<'_>) -> Result<Fanotify, JudgeError> {
    // A queue without bound: from a full one the kernel lets through what it cannot ask.
    let flags = InitFlags::FAN_CLASS_CONTENT
        | InitFlags::FAN_CLOEXEC
        | InitFlags::FAN_NONBLOCK
        | InitFlags::FAN_UNLIMITED_QUEUE
        | InitFlags::FAN_UNLIMITED_MARKS
        | InitFlags::FAN_REPORT_TID;
    // Without O_NONBLOCK a pipe that lies in a marked directory would be waited for.
    let files = EventFFlags::O_RDONLY
        | EventFFlags::O_LARGEFILE
        | EventFFlags::O_CLOEXEC
        | EventFFlags::O_NONBLOCK;
    let refused = |errno| match errno {
        Errno::EPERM => JudgeError::NotPrivileged(errno),
        Errno::ENOSYS | Errno::EINVAL => JudgeError::NotInKernel(errno),
        other => JudgeError::Open(other),
    };
    let group = Fanotify::init(flags, files).map_err(refused)?;
    let path = format!("/proc/self/fd/{}", probe.as_raw_fd());
    for flags in [MarkFlags::FAN_MARK_ADD, MarkFlags::FAN_MARK_REMOVE] {
        group
            .mark(flags, ASKED, AT_FDCWD, Some(path.as_str()))
            .map_err(refused)?;
    }
    Ok(group)
}

/// A file that people are kept from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Barred {
    pub(crate) identity: Identity,
    /// The restricted command that leads to it.
    pub(crate) name: Arc<str>,
}

/// What the judge goes by at a time.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) barred: Vec<Barred>,
    /// Files that were refused before and have been replaced since.
    pub(crate) former: Former,
    /// In strict mode the names that are refused in marked directories.
    pub(crate) names: Option<Refused>,
}

impl Rules {
    /// The restricted command that a file is, or was before it was replaced; `links` are the names that it has.
    fn name_of(&self, identity: Identity, links: u64) -> Option<Arc<str>> {
        let found = self.barred.iter().find(|file| file.identity == identity);
        let now = found.map(|file| Arc::clone(&file.name));
        now.or_else(|| self.former.name_of(identity, links))
    }
}

/// What the judge goes by; it is replaced as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ruling(Arc<RwLock<Arc<Rules>>>);

impl Ruling {
    pub(crate) fn replace(&self, rules: Rules) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    fn now(&self) -> Arc<Rules> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Somebody was kept from a file.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) name: Arc<str>,
    pub(crate) person: Person,
}

/// The thread.
pub(crate) struct Judge {
    group: Arc<Fanotify>,
    ruling: Ruling,
    refusals: SyncSender<Refusal>,
    watchdog: Option<Watchdog>,
}

impl Judge {
    pub(crate) fn new(
        group: Arc<Fanotify>,
        ruling: Ruling,
        refusals: SyncSender<Refusal>,
        watchdog: Option<Watchdog>,
    ) -> Self {
        Self {
            group,
            ruling,
            refusals,
            watchdog,
        }
    }

    /// Answers until the kernel asks no more, and says why.
    pub(crate) fn run(self) -> JudgeError {
        let mut told = Instant::now();
        let pause = self.watchdog.as_ref().map(Watchdog::pause);
        loop {
            // A judge that answers is alive; one that hangs says nothing, and is replaced by the service manager.
            if let (Some(watchdog), Some(pause)) = (&self.watchdog, pause)
                && told.elapsed() >= pause
            {
                watchdog.tell();
                told = Instant::now();
            }
            let left = pause.map(|pause| pause.saturating_sub(told.elapsed()));
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            let mut waiting = [PollFd::new(self.group.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waiting, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return JudgeError::Read(errno),
            }
            match self.group.read_events() {
                Ok(events) => events.iter().for_each(|event| self.answer(event)),
                Err(errno @ (Errno::EBADF | Errno::EINVAL | Errno::EFAULT)) => {
                    return JudgeError::Read(errno);
                }
                // Nothing is there, or the kernel could not hand over one file, which it refuses by itself.
                Err(_) => {}
            }
        }
    }

    fn answer(&self, event: &FanotifyEvent) {
        let Some(file) = event.fd() else { return };
        let refusal = self.refusal(file, event.pid());
        let response = match refusal {
            Some(_) => Response::FAN_DENY,
            None => Response::FAN_ALLOW,
        };
        // It fails when whoever waited was killed.
        let _ = self
            .group
            .write_response(FanotifyResponse::new(file, response));
        if let Some(refusal) = refusal {
            // When lines are not written as fast they are not written; the answer counts.
            let _ = self.refusals.try_send(refusal);
        }
    }

    /// What cannot be known is allowed: a file whose mark is left over, a process that is gone.
    fn refusal(&self, file: BorrowedFd<'_>, thread: i32) -> Option<Refusal> {
        let stat = fstat(file).ok()?;
        let identity = Identity::of(&stat);
        let rules = self.ruling.now();
        let barred = rules.name_of(identity, stat.st_nlink);
        let Some(names) = rules.names.as_ref().filter(|_| barred.is_none()) else {
            let (name, person) = (barred?, person_of(thread)?);
            return Some(Refusal { name, person });
        };
        let (name, person) = match names.of(file) {
            Some(Name::Command(name)) => (name, person_of(thread)?),
            Some(Name::Unpacked(name)) => (name, acting(thread)?),
            None => {
                // Most questions of strict mode are the system's own, and end here.
                let person = person_of(thread)?;
                (names.leading_to(identity)?, person)
            }
        };
        Some(Refusal { name, person })
    }
}
