//! What can be done of a verb before the daemon is looked for: arguments are read, and so are the documents that they
//! name. The verbs themselves are carried out next door.

use super::args::Verb;
use super::{CliError, format_of, read_document};
use crate::command::{PersonaRef, Refusal};
use crate::view::DocumentFormat;

/// How an activation is asked for.
pub(super) enum How {
    DryRun,
    Start,
    Wait(std::time::Duration),
}

/// Verbs whose arguments have been read.
pub(super) enum Prepared {
    Create {
        document: String,
        format: Option<DocumentFormat>,
        name: Option<String>,
        note: Option<String>,
    },
    Update {
        name: String,
        document: String,
        format: Option<DocumentFormat>,
        note: Option<String>,
    },
    SetCurrent {
        name: String,
        version: u32,
    },
    Show(PersonaRef),
    ShowEffective {
        domain: String,
    },
    ShowOverride {
        tag: String,
    },
    MapOverride {
        tag: String,
        document: String,
        format: Option<DocumentFormat>,
        priority: i32,
    },
    Tag {
        domain: String,
        add: Vec<String>,
        remove: Vec<String>,
    },
    Apply {
        domain: String,
        persona: String,
        how: How,
    },
    Plain(Verb),
}

/// Reads the arguments of a verb.
///
/// # Errors
/// Where one of them is not right or names a document that cannot be read.
pub(super) fn prepare(verb: Verb) -> Result<Prepared, CliError> {
    Ok(match verb {
        Verb::Create { file, name, note } => Prepared::Create {
            document: read_document(&file)?,
            format: format_of(&file),
            name,
            note,
        },
        Verb::Update { name, file, note } => Prepared::Update {
            name,
            document: read_document(&file)?,
            format: format_of(&file),
            note,
        },
        Verb::SetCurrent { persona } => {
            let persona = PersonaRef::parse(&persona).map_err(CliError::Argument)?;
            let Some(version) = persona.version else {
                return Err(CliError::Argument(Refusal::BadArgument {
                    argument: "persona".to_owned(),
                    reason: format!("write the version too: {}@VERSION", persona.name),
                }));
            };
            Prepared::SetCurrent {
                name: persona.name,
                version,
            }
        }
        Verb::Show {
            persona: domain,
            effective: true,
            ..
        } => Prepared::ShowEffective { domain },
        Verb::Show {
            persona: tag,
            fragment: true,
            ..
        } => Prepared::ShowOverride { tag },
        Verb::Map {
            tag,
            fragment: Some(file),
            priority,
            ..
        } => Prepared::MapOverride {
            tag,
            document: read_document(&file)?,
            format: format_of(&file),
            priority,
        },
        Verb::Show { persona, .. } => {
            Prepared::Show(PersonaRef::parse(&persona).map_err(CliError::Argument)?)
        }
        Verb::Tag { domain, changes } => {
            let (mut add, mut remove) = (Vec::new(), Vec::new());
            for change in changes {
                match change.split_at_checked(1) {
                    Some(("+", tag)) if !tag.is_empty() => add.push(tag.to_owned()),
                    Some(("-", tag)) if !tag.is_empty() && !tag.starts_with('-') => {
                        remove.push(tag.to_owned())
                    }
                    _ => return Err(CliError::TagChange(change)),
                }
            }
            Prepared::Tag {
                domain,
                add,
                remove,
            }
        }
        Verb::Apply {
            domain,
            persona,
            dry_run,
            wait,
            timeout,
        } => {
            PersonaRef::parse(&persona).map_err(CliError::Argument)?;
            let how = match (dry_run, wait) {
                (true, _) => How::DryRun,
                (false, true) => How::Wait(std::time::Duration::from_secs(timeout)),
                (false, false) => How::Start,
            };
            Prepared::Apply {
                domain,
                persona,
                how,
            }
        }
        verb => Prepared::Plain(verb),
    })
}
