//! What the daemon answers to a command that it carried out: views, and files or pipes that are handed over. What is in the views
//! is in `view`.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::view::{
    AdoptionView, AppliedView, AuditView, Change, DoctorView, DocumentView, EffectiveView,
    ExplainView, FragmentView, HoldView, MappedView, PlanView, ProposalView, RetiredView,
    StoredView, VersionView,
};

/// What the daemon answers to a command that it carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// It is done.
    Done(Change),
    /// What was stored or made current.
    Stored(StoredView),
    /// A version with its text.
    Document(DocumentView),
    /// Versions, the oldest first.
    History(Vec<VersionView>),
    /// An activation that has begun.
    Applied(AppliedView),
    /// What an activation would change.
    Plan(PlanView),
    /// An override that a tag lays over personas now.
    Mapped(MappedView),
    /// An override with its text.
    Fragment(FragmentView),
    /// What is in force on a domain.
    Effective(Box<EffectiveView>),
    /// The tags that a domain has now.
    Tags(Vec<String>),
    /// What an adoption changes, or has changed.
    Adoption(Box<AdoptionView>),
    /// Why a domain did or did not change.
    Explain(Box<ExplainView>),
    /// A file with a recording.
    Recording(Handed),
    /// A pipe with the lines of a command that is under way, each a [`crate::view::ExecutionLine`].
    Execution(Handed),
    /// Audit records.
    Audit(AuditView),
    /// Checks.
    Doctor(DoctorView),
    /// A proposal on which somebody has decided.
    Proposal(Box<ProposalView>),
    /// What of a domain is left alone now.
    Held(Vec<HoldView>),
    /// What is left to be given back.
    Retired(RetiredView),
}

/// A file or pipe that is handed to whoever asked, open for reading and without a name.
#[derive(Clone, Debug)]
pub struct Handed(Arc<File>);

impl PartialEq for Handed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Handed {
    /// A new file to write to, and the way to read it. It lies in `folder`, where there is room for large ones, and goes
    /// with the last who has it open.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn file(folder: &Path) -> io::Result<(File, Self)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("handed.{}.{number}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        let read = File::open(&path);
        std::fs::remove_file(&path)?;
        Ok((file, Self(Arc::new(read?))))
    }

    /// A pipe: the end to write to, and the one to hand over.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn pipe() -> io::Result<(PipeWriter, Self)> {
        let (read, write) = io::pipe()?;
        Ok((write, Self(Arc::new(File::from(OwnedFd::from(read))))))
    }

    /// The file, at its beginning.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn open(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}
