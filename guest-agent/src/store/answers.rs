//! The answers of the last requests, a file each, so that a request that is delivered again is answered and not executed.

use std::{fs, path::PathBuf, sync::Arc};

use agent_protocol::{RequestId, message::ReplyBody};

use super::{
    PRIVATE, Store, StoreError,
    files::{file_names, json, read},
};

/// Results kept: more than can be in flight.
const RESULTS_KEPT: usize = 128;

/// A request and the answer that it got; shared, since several threads keep it at hand.
pub(crate) type Answered = (RequestId, Arc<ReplyBody>);

impl Store {
    /// The answer that a request got.
    pub(crate) fn result(&self, id: &RequestId) -> Option<&ReplyBody> {
        self.results
            .iter()
            .rev()
            .find(|(known, _)| known == id)
            .map(|(_, body)| body.as_ref())
    }

    /// All answers that are remembered, oldest first.
    pub(crate) fn results(&self) -> Vec<Answered> {
        self.results.clone()
    }

    /// Remembers the answer to a request.
    pub(crate) fn remember(&mut self, id: &RequestId, body: &ReplyBody) -> Result<(), StoreError> {
        let bytes = json("a result", body)?;
        self.writer
            .replace(&self.result_path(id), &bytes, PRIVATE)?;
        self.results.retain(|(known, _)| known != id);
        self.results.push((id.clone(), Arc::new(body.clone())));
        while self.results.len() > RESULTS_KEPT {
            let (oldest, _) = self.results.remove(0);
            self.writer.remove(&self.result_path(&oldest))?;
        }
        Ok(())
    }

    pub(super) fn read_results(&self) -> Result<Vec<Answered>, StoreError> {
        let path = self.directory.join("results");
        let mut dated = Vec::new();
        for name in file_names(&path)? {
            let file = path.join(&name);
            // Temporary files of a write that was cut off begin with a dot, which no identifier has.
            let Ok(id) = RequestId::new(name) else {
                continue;
            };
            let modified = fs::metadata(&file).and_then(|metadata| metadata.modified());
            let modified = modified.map_err(|source| StoreError::Read {
                path: file.clone(),
                source,
            })?;
            if let Some(body) = read(&file)? {
                dated.push((modified, id, body));
            }
        }
        dated.sort_by_key(|(modified, id, _)| (*modified, id.clone()));
        Ok(dated
            .into_iter()
            .map(|(_, id, body)| (id, Arc::new(body)))
            .collect())
    }

    fn result_path(&self, id: &RequestId) -> PathBuf {
        self.directory.join("results").join(id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_bounded_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(directory.path(), Arc::default()).unwrap();
        let id = |text: &str| RequestId::new(text).unwrap();
        let mut store = open();
        for number in 0..RESULTS_KEPT + 2 {
            store
                .remember(&id(&format!("r{number}")), &ReplyBody::Ok(1.into()))
                .unwrap();
        }
        assert_eq!(store.result(&id("r1")), None);
        assert_eq!(open().results().len(), RESULTS_KEPT);
    }
}
