//! Tags that people add and remove through the daemon. They live in the domain's metadata alone, so the hypervisor writes
//! them, one wish of a domain after another; each is answered when it is written, recorded and shown.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::Daemon;
use super::event::{Asked, Event};
use super::requests::parse_tag;
use crate::act::sentence_of;
use crate::audit::AuditKind;
use crate::command::{Caller, DomainName, Refusal, Reply};
use crate::hypervisor::{DomainDescription, DomainId, HypervisorError, MetadataElement};

/// What somebody wants of a domain's tags.
pub(super) struct TagWish {
    pub(super) add: Vec<String>,
    pub(super) remove: Vec<String>,
    pub(super) caller: Caller,
    pub(super) reply: oneshot::Sender<Result<Reply, Refusal>>,
}

/// How writing tags ended.
#[derive(Debug)]
pub struct TagsWritten {
    domain: DomainId,
    tags: Vec<String>,
    caller: Caller,
    reply: oneshot::Sender<Result<Reply, Refusal>>,
    written: Result<(), HypervisorError>,
    asked: Asked,
    description: Option<DomainDescription>,
}

impl Daemon {
    /// Takes a wish; the answer comes when the hypervisor has written it.
    pub(super) fn tag(&mut self, domain: &DomainName, wish: TagWish) {
        let id = wish
            .add
            .iter()
            .chain(&wish.remove)
            .try_for_each(|tag| parse_tag(tag).map(drop))
            .and_then(|()| self.domain(domain));
        let id = match id {
            Ok(id) => id,
            Err(refusal) => {
                // A caller that went away needs no answer.
                let _ = wish.reply.send(Err(refusal));
                return;
            }
        };
        if let Some(tracked) = self.domains.get_mut(&id) {
            tracked.tag_wishes.push_back(wish);
        }
        self.write_tags(id);
    }

    /// Begins with the next wish that changes something, unless one is being written.
    fn write_tags(&mut self, id: DomainId) {
        let asked = self.ended;
        let Some(tracked) = self.domains.get_mut(&id) else {
            return;
        };
        if tracked.writing_tags {
            return;
        }
        let Some((wish, tags)) = next(&mut tracked.tag_wishes, &tracked.description) else {
            return;
        };
        tracked.writing_tags = true;
        let xml = element(&tags);
        let hypervisor = self.hypervisor.clone();
        self.spawn(async move {
            let written = hypervisor
                .set_metadata(id, MetadataElement::Tags, xml)
                .await;
            let description = hypervisor.describe(id).await.ok();
            Event::TagsWritten(Box::new(TagsWritten {
                domain: id,
                tags,
                caller: wish.caller,
                reply: wish.reply,
                written,
                asked,
                description,
            }))
        });
    }

    /// Records and shows what was written, and only then answers.
    pub(super) fn tags_are_written(&mut self, end: TagsWritten) {
        let id = end.domain;
        if let Some(tracked) = self.domains.get_mut(&id) {
            tracked.writing_tags = false;
        }
        let shown = if end.tags.is_empty() {
            "none".to_owned()
        } else {
            end.tags.join(", ")
        };
        let answer = match end.written {
            Ok(()) => {
                let text = format!("{} set the tags to {shown}", end.caller.name);
                self.record(AuditKind::Binding, Some(id), &text, serde_json::Value::Null);
                match end.description {
                    Some(description) if !self.is_out_of_date(id, end.asked) => {
                        self.take_description(description);
                    }
                    _ => {
                        if let Some(tracked) = self.domains.get_mut(&id) {
                            tracked.description.tags.clone_from(&end.tags);
                            self.resolve(id);
                        }
                        self.look(id);
                    }
                }
                Ok(Reply::Tags(end.tags))
            }
            Err(error) => {
                let reason = sentence_of(&error);
                let text = format!(
                    "{} wanted to set the tags to {shown}: {reason}",
                    end.caller.name
                );
                self.record(AuditKind::Refusal, Some(id), &text, serde_json::Value::Null);
                Err(Refusal::Hypervisor { reason })
            }
        };
        self.publish();
        // A caller that went away needs no answer.
        let _ = end.reply.send(answer);
        self.write_tags(id);
    }
}

/// The next wish that changes something, with the tags that it comes to; those that change nothing are answered at once.
fn next(
    wishes: &mut VecDeque<TagWish>,
    description: &DomainDescription,
) -> Option<(TagWish, Vec<String>)> {
    while let Some(wish) = wishes.pop_front() {
        let answer = match &description.tags_problem {
            Some(problem) => Err(Refusal::Refused {
                reason: format!(
                    "the domain's tags cannot be read, so they are not overwritten: {problem}"
                ),
            }),
            None => {
                let mut tags = description.tags.clone();
                tags.retain(|tag| !wish.remove.contains(tag));
                for tag in &wish.add {
                    if !tags.contains(tag) {
                        tags.push(tag.clone());
                    }
                }
                if tags != description.tags {
                    return Some((wish, tags));
                }
                Ok(Reply::Tags(tags))
            }
        };
        // A caller that went away needs no answer.
        let _ = wish.reply.send(answer);
    }
    None
}

/// The metadata element; absent for no tags. What people put into it by other ways is escaped like anything else.
fn element(tags: &[String]) -> Option<String> {
    let inner: String = tags
        .iter()
        .map(|tag| format!("<tag>{}</tag>", quick_xml::escape::escape(tag.as_str())))
        .collect();
    (!tags.is_empty()).then(|| format!("<instance>{inner}</instance>"))
}
