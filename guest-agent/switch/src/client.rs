//! Questions to the agent on its own socket, and its answers as they come. `plain` waits for them itself, `screen` and the
//! tray in a thread for each question.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use agent_protocol::local::{LOCAL_SOCKET, LocalAnswer, LocalRequest};

/// How long the first answer may take: the way to the host and back, and what else the agent is doing.
const FIRST_ANSWER: Duration = Duration::from_secs(60);

/// Longest answer: a frame of the channel with every character escaped once more would still be shorter.
const LINE_MAX: u64 = 128 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot reach the agent at {path:?}; is virt-persona-agent running?")]
    Reach {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// It takes too long.
    #[error("neither the agent nor the host has answered for {} s", FIRST_ANSWER.as_secs())]
    Silent,
    /// It was lost in the midst of an answer.
    #[error("the connection to the agent broke")]
    Broken(#[source] io::Error),
    /// More was to come.
    #[error("the agent ended without a last answer")]
    Ended,
    /// It is nothing that this program knows.
    #[error("the agent's answer cannot be understood; it is of another version")]
    Foreign(#[source] serde_json::Error),
}

/// The answers to one question.
#[derive(Debug)]
pub struct Answers {
    stream: BufReader<UnixStream>,
    waits: Waits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    ForTheFirst,
    ForMore,
}

/// Asks the agent below this root directory.
///
/// # Errors
/// When nobody listens there, or does not take the question.
pub fn ask(root: &Path, request: &LocalRequest) -> Result<Answers, ClientError> {
    let path = root.join(LOCAL_SOCKET);
    let stream = UnixStream::connect(&path).map_err(|source| ClientError::Reach {
        path: path.clone(),
        source,
    })?;
    let mut line = serde_json::to_vec(request).map_err(ClientError::Foreign)?;
    line.push(b'\n');
    stream
        .set_read_timeout(Some(FIRST_ANSWER))
        .and_then(|()| (&stream).write_all(&line))
        .map_err(ClientError::Broken)?;
    Ok(Answers {
        stream: BufReader::new(stream),
        waits: Waits::ForTheFirst,
    })
}

impl Answers {
    /// The next answer. After the first, however long it takes: a person may have to be asked, and scripts may run.
    ///
    /// # Errors
    /// When there is none, or it cannot be understood.
    pub fn wait(&mut self) -> Result<LocalAnswer, ClientError> {
        let mut line = String::new();
        let read = (&mut self.stream).take(LINE_MAX).read_line(&mut line);
        match read {
            Ok(0) => return Err(ClientError::Ended),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(ClientError::Silent);
            }
            Err(error) => return Err(ClientError::Broken(error)),
        }
        if self.waits == Waits::ForTheFirst {
            self.waits = Waits::ForMore;
            let stream = self.stream.get_ref();
            stream.set_read_timeout(None).map_err(ClientError::Broken)?;
        }
        serde_json::from_str(&line).map_err(ClientError::Foreign)
    }
}
