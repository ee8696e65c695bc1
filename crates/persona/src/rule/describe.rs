//! What actions and functions do, in a few words for people. The documentation is made of it.

use super::ast::{Action, Limit};
use super::window::Function;

impl Action {
    /// What it does, as the end of a sentence.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::SetVcpus(_) => "brings the vCPUs to this number",
            Self::AddVcpus(_) => "gives this many vCPUs more",
            Self::RemoveVcpus(_) => "takes this many vCPUs away",
            Self::SetMemory(_) => "brings the memory to this size",
            Self::AddMemory(_) => {
                "gives more memory; a percentage is of what the guest has when the rule fires"
            }
            Self::RemoveMemory(_) => {
                "takes memory away; a percentage is of what the guest has when the rule fires"
            }
            Self::SetLimit(Limit::NetworkBandwidth(_)) => {
                "lets so many bits a second pass at most, in each direction"
            }
            Self::SetLimit(Limit::DiskIops(_)) => {
                "lets so many requests a second go to the disks at most"
            }
            Self::SetLimit(Limit::DiskBandwidth(_)) => {
                "lets so many bytes a second go to and from the disks at most"
            }
            Self::SetLimit(Limit::CpuWeight(_)) => {
                "sets the weight against other domains where there is not enough CPU for all, in place of `cpu.share`; 1000 is what a domain without a persona has"
            }
            Self::SetLimit(Limit::CpuCap(_)) => {
                "lets the machine use so much CPU at most; 250% is two CPUs of the host and a half"
            }
            Self::EnableFeature(_) => "switches a feature of the guest on, by its drop-in",
            Self::DisableFeature(_) => "switches it off",
            Self::Run(_) => "runs a script of `response_scripts` in the guest",
            Self::Respond(_) => "does what a list of `automated_responses` says",
            Self::Apply { .. } => {
                "gives a setting of `os_settings`, `application_settings`, `behavioral_settings` or `environment_variables` another value"
            }
            Self::InstallPackage(_) => "installs a package in the guest",
            Self::RemovePackage(_) => "removes a package that the persona installed",
            Self::BlockAddresses { .. } => {
                "lets nothing pass to and from the addresses of an external source; without a name the source under which it stands, else the only one"
            }
            Self::UnblockAddresses { .. } => "lets it pass again",
            Self::Isolate => "cuts the machine off the network",
            Self::Restore => "undoes isolation",
            Self::Redirect { .. } => "sends what comes in on a port elsewhere",
            Self::ActivatePersona(_) => "gives the domain another persona",
            Self::Revert => "gives it back the persona before",
            Self::Notify(_) => "tells people; one line of at most 256 bytes",
            Self::CallWebhook(_) => "calls a webhook of the daemon's configuration",
        }
    }
}

impl Function {
    /// What it is worth, in a few words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Avg => "the arithmetic mean of the readings in the window",
            Self::Min => "the least value",
            Self::Max => "the greatest value",
            Self::P50 => "the median",
            Self::P90 => "nine of ten values are at most this",
            Self::P95 => "19 of 20 values are at most this",
            Self::P99 => "99 of 100 values are at most this",
            Self::Rate => "by how much the value changes a second",
            Self::Delta => "by how much the value has changed over the window",
        }
    }
}
