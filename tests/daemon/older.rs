//! A guest whose agent is of an earlier release: the real one behind a relay, which keeps from either side what that release
//! did not know, and writes down what the host wants active.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use agent_protocol::activation::ADJUSTED_FEATURE;
use agent_protocol::frame::{LINE_FEED, RECORD_SEPARATOR};
use serde_json::Value;

/// Activations as the host sent them.
type Sent = Arc<Mutex<Vec<Value>>>;

/// An agent that knows nothing of what rules adjust.
pub(crate) struct Older {
    sent: Sent,
}

impl Older {
    /// Listens on `socket` for the agent that listens on `agent`; threads of it end with the test.
    pub(crate) fn listen(socket: &Path, agent: PathBuf) -> Self {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let sent = Sent::default();
        let kept = sent.clone();
        thread::spawn(move || {
            for host in listener.incoming() {
                // An agent that does not listen yet is as one that is not there, and the host tries again.
                if let (Ok(host), Ok(guest)) = (host, UnixStream::connect(&agent)) {
                    let kept = kept.clone();
                    pass(&host, &guest, move |frame| hide_adjusted(frame, &kept));
                    pass(&guest, &host, hide_feature);
                }
            }
        });
        Self { sent }
    }

    /// What the host wanted active so far, the earliest first.
    pub(crate) fn activations(&self) -> Vec<Value> {
        self.sent.lock().unwrap().clone()
    }
}

/// Passes frames on until one end is closed, which closes the other.
fn pass(from: &UnixStream, to: &UnixStream, mut edit: impl FnMut(&mut Value) + Send + 'static) {
    let (from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        let mut reader = BufReader::new(&from);
        let mut line = Vec::new();
        while reader
            .read_until(LINE_FEED, &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = line.strip_prefix(&[RECORD_SEPARATOR]);
            if let Some(mut frame) = text.and_then(|text| serde_json::from_slice(text).ok()) {
                edit(&mut frame);
                line = [&[RECORD_SEPARATOR][..], frame.to_string().as_bytes(), b"\n"].concat();
            }
            if to.write_all(&line).is_err() {
                break;
            }
            line.clear();
        }
        // Either may be closed already.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

fn hide_adjusted(frame: &mut Value, sent: &Sent) {
    if let Some(activation) = activation(frame) {
        sent.lock().unwrap().push(activation.clone());
        activation.as_object_mut().unwrap().remove("adjusted");
    }
}

/// The activation that a frame asks for.
fn activation(frame: &mut Value) -> Option<&mut Value> {
    frame.pointer_mut("/args/activation")
}

fn hide_feature(frame: &mut Value) {
    if let Some(features) = frame.get_mut("feats").and_then(Value::as_array_mut) {
        features.retain(|feature| feature != ADJUSTED_FEATURE);
    }
}
