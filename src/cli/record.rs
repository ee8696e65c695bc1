//! `record`: takes the recording of a domain from the daemon and writes it to a file. What is in it is for `simulate`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use persona::units::Moment;
use serde_json::json;

use super::CliError;
use super::screen::{Screen, clean};
use crate::bus::Client;

/// Carries `record` out.
///
/// # Errors
/// Where the daemon has none, or the file cannot be written; then what was there before stays.
pub(super) async fn record(
    client: &Client,
    json: bool,
    domain: &str,
    output: &Path,
    (since, until): (Option<Moment>, Option<Moment>),
    screen: &mut Screen,
) -> Result<(), CliError> {
    let mut trace = client.recording(domain, since, until).await?;
    if output.as_os_str() == "-" {
        let mut out = io::stdout().lock();
        copy(&mut trace, &mut out)?;
        return Ok(out.flush()?);
    }
    let path = output.display().to_string();
    let failed = |source| CliError::Write {
        path: path.clone(),
        source,
    };
    // Whole or not at all: half a recording would be played as if it were one.
    let mut part = output.as_os_str().to_owned();
    part.push(".part");
    let part = std::path::PathBuf::from(part);
    let mut file = File::create(&part).map_err(failed)?;
    let written = copy(&mut trace, &mut file).and_then(|bytes| {
        fs::rename(&part, output)?;
        Ok(bytes)
    });
    let bytes = written.map_err(|error| {
        // It may be gone already.
        let _ = fs::remove_file(&part);
        failed(error)
    })?;
    if json {
        screen.json(&json!({ "file": path, "bytes": bytes }))?;
    } else {
        screen.line(&clean(&format!(
            "{bytes} bytes of {domain} are in {path}; play them with `virt-persona simulate PERSONA --trace {path}`"
        )))?;
    }
    Ok(())
}

/// All of a file from its beginning: the descriptor's own position is shared with whoever handed it over.
fn copy(trace: &mut File, out: &mut impl Write) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 64 * 1024];
    let mut done = 0;
    loop {
        let read = trace.read_at(&mut buffer, done)?;
        if read == 0 {
            return Ok(done);
        }
        out.write_all(&buffer[..read])?;
        done += u64::try_from(read).unwrap_or(0);
    }
}
