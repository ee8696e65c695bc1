//! What goes wrong in the matrix, all of it.

use virt_persona::hypervisor::simulated::{Conduct, Fault};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wrong {
    /// With the action's call, twice in a row.
    Call(Fault),
    /// With the guest, for as long as the fault lasts.
    Guest(Conduct),
    /// The library's daemon is away for a while.
    LibraryAway,
}

/// All that can be wrong, in the order of the types. A new fault or conduct needs a place here: see `place_of`.
pub(crate) fn wrongs() -> Vec<Wrong> {
    vec![
        Wrong::Call(Fault::Refuse {
            message: "the moon is full".into(),
        }),
        Wrong::Call(Fault::Slow { ms: 2_000 }),
        Wrong::Call(Fault::Hang { ms: 20_000 }),
        Wrong::Call(Fault::AnswerLost),
        Wrong::Call(Fault::Partial { reaches_mib: 64 }),
        Wrong::Call(Fault::EventsLost),
        Wrong::Call(Fault::EventsDuplicated),
        Wrong::Call(Fault::EventsLate { ms: 4_000 }),
        Wrong::Call(Fault::ConnectionLost { ms: 6_000 }),
        Wrong::Call(Fault::Dies),
        Wrong::Guest(Conduct::RefusesCpus),
        Wrong::Guest(Conduct::RefusesMemory),
        Wrong::Guest(Conduct::Slow { ms: 2_500 }),
        Wrong::Guest(Conduct::Partly),
        Wrong::Guest(Conduct::ClaimsCpus),
        Wrong::Guest(Conduct::ClaimsMoreCpus),
        Wrong::Guest(Conduct::ClaimsFewerCpus),
        Wrong::Guest(Conduct::ClaimsNoMemoryUse),
        Wrong::Guest(Conduct::ClaimsAllMemoryUsed),
        Wrong::Guest(Conduct::ClaimsImpossibleMemory),
        Wrong::Guest(Conduct::ReportsFromTheFuture),
        Wrong::Guest(Conduct::ReportsFromThePast),
        Wrong::Guest(Conduct::ReportsTheSame),
        Wrong::Guest(Conduct::FloodsEvents),
        Wrong::Guest(Conduct::FloodsTelemetry),
        Wrong::Guest(Conduct::RefusesShrinks),
        Wrong::Guest(Conduct::IgnoresShrinks),
        Wrong::Guest(Conduct::DiesAtShrinks),
        Wrong::Guest(Conduct::Hangs),
        Wrong::Guest(Conduct::HangsMonitor),
        Wrong::Guest(Conduct::Dies { every_s: 25 }),
        Wrong::LibraryAway,
    ]
}

pub(crate) const PLACES: usize = 32;

/// Where in the list a fault stands. Who adds one to the simulated hypervisor finds here that the matrix lacks it.
pub(crate) fn place_of(wrong: &Wrong) -> usize {
    match wrong {
        Wrong::Call(fault) => match fault {
            Fault::Refuse { .. } => 0,
            Fault::Slow { .. } => 1,
            Fault::Hang { .. } => 2,
            Fault::AnswerLost => 3,
            Fault::Partial { .. } => 4,
            Fault::EventsLost => 5,
            Fault::EventsDuplicated => 6,
            Fault::EventsLate { .. } => 7,
            Fault::ConnectionLost { .. } => 8,
            Fault::Dies => 9,
        },
        Wrong::Guest(conduct) => match conduct {
            Conduct::RefusesCpus => 10,
            Conduct::RefusesMemory => 11,
            Conduct::Slow { .. } => 12,
            Conduct::Partly => 13,
            Conduct::ClaimsCpus => 14,
            Conduct::ClaimsMoreCpus => 15,
            Conduct::ClaimsFewerCpus => 16,
            Conduct::ClaimsNoMemoryUse => 17,
            Conduct::ClaimsAllMemoryUsed => 18,
            Conduct::ClaimsImpossibleMemory => 19,
            Conduct::ReportsFromTheFuture => 20,
            Conduct::ReportsFromThePast => 21,
            Conduct::ReportsTheSame => 22,
            Conduct::FloodsEvents => 23,
            Conduct::FloodsTelemetry => 24,
            Conduct::RefusesShrinks => 25,
            Conduct::IgnoresShrinks => 26,
            Conduct::DiesAtShrinks => 27,
            Conduct::Hangs => 28,
            Conduct::HangsMonitor => 29,
            Conduct::Dies { .. } => 30,
        },
        Wrong::LibraryAway => 31,
    }
}

impl Wrong {
    /// A few words for the table.
    pub(crate) fn name(&self) -> String {
        let text = match self {
            Self::Call(fault) => format!("call {fault:?}"),
            Self::Guest(conduct) => format!("guest {conduct:?}"),
            Self::LibraryAway => "library away".into(),
        };
        text.split(" {").next().unwrap_or_default().to_owned()
    }

    /// Whether it is tried with a kill of the daemon, too. What a guest says of itself, or how often, is judged anew with
    /// each report, and nothing of it outlives the daemon: there is nothing that a kill could lose or leave behind.
    pub(crate) fn is_tried_with_a_kill(&self) -> bool {
        !matches!(
            self,
            Self::Guest(
                Conduct::ClaimsCpus
                    | Conduct::ClaimsMoreCpus
                    | Conduct::ClaimsFewerCpus
                    | Conduct::ClaimsNoMemoryUse
                    | Conduct::ClaimsAllMemoryUsed
                    | Conduct::ClaimsImpossibleMemory
                    | Conduct::ReportsFromTheFuture
                    | Conduct::ReportsFromThePast
                    | Conduct::ReportsTheSame
                    | Conduct::FloodsEvents
                    | Conduct::FloodsTelemetry
            )
        )
    }

    /// Whether it is of the whole host, so that nobody can be undisturbed by it.
    pub(crate) fn concerns_all(&self) -> bool {
        matches!(
            self,
            Self::LibraryAway | Self::Call(Fault::ConnectionLost { .. })
        )
    }

    /// Whether the guest says of its CPUs what is not so: nobody can know better, and it costs the liar alone.
    pub(crate) fn lies_about_cpus(&self) -> bool {
        matches!(
            self,
            Self::Guest(Conduct::ClaimsCpus | Conduct::ReportsTheSame)
        )
    }
}
