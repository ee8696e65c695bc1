//! Questions to the emulator itself, through libvirt's monitor pass-through: text of commands and answers, no
//! transport. Used only to reconcile what libvirt may be wrong about, because each use marks the domain as tainted.

use qapi::qmp::query_hotpluggable_cpus;
use qapi::{Command, Execute};
use serde::Deserialize;

use super::super::HotpluggableVcpu;

/// The command that lists the groups of vCPUs.
///
/// # Errors
///
/// Serialisation's own, which does not happen for a command without arguments.
pub(super) fn hotpluggable_cpus_command() -> Result<String, serde_json::Error> {
    let command: Execute<_> = query_hotpluggable_cpus {}.into();
    serde_json::to_string(&command)
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The groups, in the emulator's order.
    Vcpus(Vec<HotpluggableVcpu>),
    /// The emulator refused, in its own words.
    Refused(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Wire {
    Done {
        r#return: <query_hotpluggable_cpus as Command>::Ok,
    },
    Refused {
        error: Refusal,
    },
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

/// Reads the answer to [`hotpluggable_cpus_command`].
///
/// # Errors
///
/// What is wrong with the answer, as a sentence.
pub(super) fn parse_hotpluggable_cpus(answer: &str) -> Result<Reply, String> {
    let wire = serde_json::from_str(answer)
        .map_err(|error| format!("the emulator's list of vCPUs is not as documented ({error})"))?;
    let groups = match wire {
        Wire::Done { r#return } => r#return,
        Wire::Refused { error } => return Ok(Reply::Refused(error.desc)),
    };
    let vcpus = groups.into_iter().map(|group| {
        let vcpus = u32::try_from(group.vcpus_count)
            .map_err(|_| format!("a group has {} vCPUs", group.vcpus_count))?;
        Ok(HotpluggableVcpu {
            vcpus,
            plugged: group.qom_path,
        })
    });
    Ok(Reply::Vcpus(vcpus.collect::<Result<_, String>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_what_the_monitor_expects() {
        let command: serde_json::Value =
            serde_json::from_str(&hotpluggable_cpus_command().unwrap()).unwrap();
        assert_eq!(command["execute"], "query-hotpluggable-cpus");
    }

    #[test]
    fn plugged_and_free_groups_are_told_apart() {
        let answer = r#"{"return":[
            {"props":{"core-id":0,"thread-id":0,"socket-id":1},"vcpus-count":1,"type":"qemu64-x86_64-cpu"},
            {"props":{"core-id":0,"thread-id":0,"node-id":0,"socket-id":0},"vcpus-count":1,
             "qom-path":"/machine/unattached/device[0]","type":"qemu64-x86_64-cpu"}],"id":"libvirt-34"}"#;
        let vcpu = |plugged: Option<&str>| HotpluggableVcpu {
            vcpus: 1,
            plugged: plugged.map(Into::into),
        };
        assert_eq!(
            parse_hotpluggable_cpus(answer).unwrap(),
            Reply::Vcpus(vec![
                vcpu(None),
                vcpu(Some("/machine/unattached/device[0]"))
            ])
        );
    }

    #[test]
    fn a_refusal_keeps_the_emulators_words() {
        let answer = r#"{"id":"libvirt-35","error":{"class":"GenericError","desc":"machine does not support hot-plugging CPUs"}}"#;
        assert_eq!(
            parse_hotpluggable_cpus(answer).unwrap(),
            Reply::Refused("machine does not support hot-plugging CPUs".into())
        );
    }

    #[test]
    fn nonsense_is_refused_with_a_sentence() {
        for nonsense in [
            "",
            "{}",
            r#"{"return":{}}"#,
            r#"{"return":[{"props":{},"vcpus-count":-1,"type":"x"}]}"#,
        ] {
            assert!(parse_hotpluggable_cpus(nonsense).is_err(), "{nonsense}");
        }
    }
}
