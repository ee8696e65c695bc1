//! What applications of the guest say to changes of its size: the programs in `/etc/virt-persona/hooks/pre-shrink.d` and
//! `post-grow.d`. Called by the channel, which lends no time: each occasion has a thread of its own, which ends with it, so
//! that neither CPU orders nor an activation's scripts wait for a hook, and an idle agent has no more threads than before.
//!
//! Which programs these are, and how one is run, is in `hook`.

mod hook;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    events::{Event, Events},
    log::log,
};
use agent_protocol::{
    Consent, GrownReply, RequestId, Resize,
    limits::{HOOK_MARGIN_MS, HOOK_RUNS_MAX},
    message::{ErrorCode, ReplyBody, ReplyError, Retry},
};

use hook::{find, retry_after, run};

/// When hooks are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The guest is going to shrink; a hook may refuse.
    PreShrink,
    /// The guest has grown.
    PostGrow,
}

impl Occasion {
    fn name(self) -> &'static str {
        match self {
            Self::PreShrink => "pre-shrink",
            Self::PostGrow => "post-grow",
        }
    }
}

/// An occasion with what it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errand {
    pub(crate) occasion: Occasion,
    pub(crate) resize: Resize,
}

/// Runs hooks.
#[derive(Clone, Debug)]
pub(crate) struct Hooks {
    root: PathBuf,
    events: Events,
    running: Arc<AtomicUsize>,
}

/// Counts an occasion for as long as it lasts.
struct Turn(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Hooks {
    pub(crate) fn new(root: &Path, events: Events) -> Self {
        Self {
            root: root.to_owned(),
            events,
            running: Arc::default(),
        }
    }

    /// Runs the hooks of an errand; the answer comes as an event. `deadline` is when nobody waits for it any more.
    pub(crate) fn begin(&self, id: RequestId, errand: Errand, deadline: Instant) {
        let turn = Turn(Arc::clone(&self.running));
        if self.running.fetch_add(1, Ordering::AcqRel) >= HOOK_RUNS_MAX {
            drop(turn);
            let why = "hooks of earlier occasions are still running";
            return self.fail(id, ErrorCode::Busy, why);
        }
        let (root, events, job) = (self.root.clone(), self.events.clone(), id.clone());
        let spawned = thread::Builder::new()
            .name("hooks".to_owned())
            .spawn(move || {
                let body = answer(&root, errand, deadline);
                // Before the answer, so that who asks one after another never finds this one still running.
                drop(turn);
                events.send(Event::Done { id: job, body });
            });
        if let Err(error) = spawned {
            self.fail(id, ErrorCode::Busy, &format!("cannot run hooks: {error}"));
        }
    }

    fn fail(&self, id: RequestId, code: ErrorCode, why: &str) {
        let body = ReplyBody::Err(ReplyError::new(code, why, Retry::Useful));
        self.events.send(Event::Done { id, body });
    }
}

fn answer(root: &Path, errand: Errand, deadline: Instant) -> ReplyBody {
    // The answer needs its way back, also when a hook overruns.
    let left = deadline.saturating_duration_since(Instant::now());
    let margin = Duration::from_millis(HOOK_MARGIN_MS).min(left / 2);
    let deadline = deadline.checked_sub(margin).unwrap_or(deadline);
    let encoded = match errand.occasion {
        Occasion::PreShrink => serde_json::to_value(pre_shrink(root, errand.resize, deadline)),
        Occasion::PostGrow => serde_json::to_value(post_grow(root, errand.resize, deadline)),
    };
    match encoded {
        Ok(value) => ReplyBody::Ok(value),
        Err(error) => ReplyBody::Err(ReplyError::new(
            ErrorCode::Malformed,
            error.to_string(),
            Retry::Useless,
        )),
    }
}

/// All hooks have to agree; the first one that does not ends it.
pub(crate) fn pre_shrink(root: &Path, resize: Resize, deadline: Instant) -> Consent {
    for hook in find(root, Occasion::PreShrink) {
        let (reason, retry_after_ms) = if is_over(deadline) {
            (hook.left_out(), None)
        } else {
            match run(&hook, Occasion::PreShrink, resize, deadline) {
                Ok(ended) if ended.status.success() && !ended.timed_out => continue,
                Ok(ended) => (hook.failure(&ended), retry_after(&ended.head)),
                Err(error) => (format!("hook {} cannot be run: {error}", hook.name), None),
            }
        };
        log!(
            "{} is not to shrink from {} to {}: {reason}",
            resize.resource.name(),
            resize.from,
            resize.to
        );
        return Consent::Refused {
            reason,
            retry_after_ms,
        };
    }
    Consent::Agreed
}

/// All hooks are told, whatever becomes of each, as long as there is time: one that was started behind the deadline would
/// be killed in the middle of what it does.
pub(crate) fn post_grow(root: &Path, resize: Resize, deadline: Instant) -> GrownReply {
    let mut reply = GrownReply::default();
    for hook in find(root, Occasion::PostGrow) {
        if is_over(deadline) {
            let failure = hook.left_out();
            log!("{failure}");
            reply.failed.get_or_insert(failure);
            break;
        }
        reply.ran += 1;
        let failure = match run(&hook, Occasion::PostGrow, resize, deadline) {
            Ok(ended) if ended.status.success() && !ended.timed_out => {
                log!("hook {} of post-grow is done", hook.name);
                continue;
            }
            Ok(ended) => hook.failure(&ended),
            Err(error) => format!("hook {} cannot be run: {error}", hook.name),
        };
        log!("{failure}");
        reply.failed.get_or_insert(failure);
    }
    reply
}

fn is_over(deadline: Instant) -> bool {
    Instant::now() >= deadline
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::{hook::DIRECTORY, *};
    use agent_protocol::coordination::Resource;

    const RESIZE: Resize = Resize {
        resource: Resource::Memory,
        from: 200,
        to: 100,
    };

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn hook(&self, occasion: &str, name: &str, text: &str) -> PathBuf {
            let directory = self.0.path().join(DIRECTORY).join(occasion);
            fs::create_dir_all(&directory).unwrap();
            let path = directory.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            self.mode(&path, 0o755);
            path
        }

        fn mode(&self, path: &Path, mode: u32) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn ask(&self) -> Consent {
            self.ask_within(Duration::from_secs(60))
        }

        fn ask_within(&self, time: Duration) -> Consent {
            pre_shrink(self.0.path(), RESIZE, Instant::now() + time)
        }
    }

    fn refused(consent: Consent) -> (String, Option<u64>) {
        match consent {
            Consent::Refused {
                reason,
                retry_after_ms,
            } => (reason, retry_after_ms),
            Consent::Agreed => panic!("it agreed"),
        }
    }

    #[test]
    fn without_hooks_the_guest_agrees_and_the_first_refusal_ends_it() {
        let tree = Tree::new();
        assert_eq!(tree.ask(), Consent::Agreed);
        let seen = tree.0.path().join("seen");
        let look = format!(
            "echo $VIRT_PERSONA_HOOK $VIRT_PERSONA_RESOURCE $VIRT_PERSONA_FROM $VIRT_PERSONA_TO ${{CARGO_MANIFEST_DIR-none}} >{}",
            seen.display()
        );
        tree.hook("pre-shrink.d", "10-look", &look);
        assert_eq!(tree.ask(), Consent::Agreed);
        assert_eq!(
            fs::read_to_string(&seen).unwrap(),
            "pre-shrink memory 200 100 none\n"
        );
        tree.hook(
            "pre-shrink.d",
            "20-no",
            "echo retry-after=90; echo a backup runs; echo more; exit 75",
        );
        let after = tree.0.path().join("after");
        tree.hook(
            "pre-shrink.d",
            "30-after",
            &format!("touch {}", after.display()),
        );
        assert_eq!(
            refused(tree.ask()),
            ("hook 20-no: a backup runs".to_owned(), Some(90_000))
        );
        assert!(!after.exists());
    }

    #[test]
    fn a_hook_that_fails_without_a_word_or_overruns_refuses_too() {
        let tree = Tree::new();
        let hook = tree.hook("pre-shrink.d", "h", "exit 3");
        assert_eq!(refused(tree.ask()).0, "hook h exited with 3");
        fs::write(&hook, "#!/bin/sh\nkill -9 $$\n").unwrap();
        assert_eq!(refused(tree.ask()).0, "hook h was ended by signal 9");
        fs::write(&hook, "#!/bin/sh\ntrap '' TERM\nsleep 1000\n").unwrap();
        assert_eq!(
            refused(tree.ask_within(Duration::from_millis(200))).0,
            "hook h did not end in time"
        );
    }

    #[test]
    fn what_others_could_have_put_there_is_left_out() {
        let tree = Tree::new();
        let hook = tree.hook("pre-shrink.d", "h", "exit 1");
        refused(tree.ask());
        for mode in [0o775, 0o757, 0o644] {
            tree.mode(&hook, mode);
            assert_eq!(tree.ask(), Consent::Agreed, "{mode:o}");
        }
        tree.mode(&hook, 0o755);
        for name in ["h~", ".h", "h.dpkg-old"] {
            let other = hook.with_file_name(name);
            fs::rename(&hook, &other).unwrap();
            assert_eq!(tree.ask(), Consent::Agreed, "{name}");
            fs::rename(&other, &hook).unwrap();
        }
        let link = hook.with_file_name("link");
        let elsewhere = tree.0.path().join("elsewhere");
        fs::rename(&hook, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        assert_eq!(tree.ask(), Consent::Agreed);
        fs::remove_file(&link).unwrap();
        fs::rename(&elsewhere, &hook).unwrap();
        refused(tree.ask());
        tree.mode(hook.parent().unwrap(), 0o777);
        assert_eq!(tree.ask(), Consent::Agreed);
    }

    #[test]
    fn after_growth_every_hook_is_told_and_the_first_failure_named() {
        let tree = Tree::new();
        let told = tree.0.path().join("told");
        tree.hook("post-grow.d", "1", "echo no room >&2; exit 1");
        tree.hook("post-grow.d", "2", &format!("touch {}", told.display()));
        let reply = post_grow(
            tree.0.path(),
            RESIZE,
            Instant::now() + Duration::from_secs(60),
        );
        assert_eq!(
            reply,
            GrownReply {
                ran: 2,
                failed: Some("hook 1: no room".to_owned())
            }
        );
        assert!(told.exists());
    }

    #[test]
    fn behind_the_deadline_no_hook_is_started() {
        let tree = Tree::new();
        let told = tree.0.path().join("told");
        for occasion in ["pre-shrink.d", "post-grow.d"] {
            tree.hook(occasion, "1", &format!("touch {}", told.display()));
        }
        // The deadline of now has passed at the first look.
        assert_eq!(
            refused(tree.ask_within(Duration::ZERO)).0,
            "hook 1 was not run: no time was left"
        );
        let reply = post_grow(tree.0.path(), RESIZE, Instant::now());
        assert_eq!(
            reply,
            GrownReply {
                ran: 0,
                failed: Some("hook 1 was not run: no time was left".to_owned())
            }
        );
        assert!(!told.exists());
    }

    #[test]
    fn hooks_after_one_that_overran_are_not_started() {
        let tree = Tree::new();
        let told = tree.0.path().join("told");
        tree.hook("post-grow.d", "1", "exec sleep 1000");
        tree.hook("post-grow.d", "2", &format!("touch {}", told.display()));
        let deadline = Instant::now() + Duration::from_millis(500);
        let reply = post_grow(tree.0.path(), RESIZE, deadline);
        assert_eq!(reply.failed.as_deref(), Some("hook 1 did not end in time"));
        assert_eq!(reply.ran, 1);
        assert!(!told.exists());
    }

    #[test]
    fn the_answer_leaves_time_for_its_way() {
        let tree = Tree::new();
        tree.hook("pre-shrink.d", "h", "exec sleep 1000");
        let errand = Errand {
            occasion: Occasion::PreShrink,
            resize: RESIZE,
        };
        let deadline = Instant::now() + Duration::from_millis(HOOK_MARGIN_MS + 200);
        let ReplyBody::Ok(value) = answer(tree.0.path(), errand, deadline) else {
            panic!("no answer")
        };
        assert_eq!(value["answer"], "refused");
    }
}
