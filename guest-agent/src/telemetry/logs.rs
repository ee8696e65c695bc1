//! What the guest's logs say: records of priority error or worse, by systemd's journal or else by a file that says priorities, and
//! failed logins. Called by `survey`.

use std::path::Path;

use agent_protocol::LogFigures;

use super::{journal::Journals, logins::FailedLogins, syslog::SyslogFile};

/// All that is counted, since it was first looked at.
#[derive(Debug, Default)]
pub(super) struct Logs {
    journals: Journals,
    syslog: SyslogFile,
    logins: FailedLogins,
}

impl Logs {
    pub(super) fn look(&mut self, root: &Path) -> LogFigures {
        LogFigures {
            age_ms: 0,
            errors: self.journals.look(root).or_else(|| self.syslog.look(root)),
            failed_logins: self.logins.look(root),
        }
    }

    /// What comes while nobody wants to know is not counted.
    pub(super) fn forget(&mut self) {
        self.journals.forget();
        self.syslog.forget();
        self.logins.forget();
    }
}
