//! Commands of the built binary that run to their end.

use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use crate::settings::Settings;
use crate::{PATIENCE, within};

/// The binary under test, which Cargo builds before the tests of the package: it is in the folder above theirs.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let binary = test.ancestors().nth(2).unwrap().join("portcullis");
        assert!(binary.is_file(), "{} is missing; cargo builds it", binary.display());
        binary
    })
}

/// What a command of the binary printed, and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a command of the binary to its end.
pub fn portcullis(arguments: &[&str]) -> Outcome {
    run_to_end(Command::new(binary()).args(arguments).stdin(Stdio::null()))
}

/// Runs a command of the binary to its end, with this standard input.
pub fn portcullis_reading(arguments: &[&str], input: &[u8]) -> Outcome {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input).unwrap();
    file.rewind().unwrap();
    run_to_end(Command::new(binary()).args(arguments).stdin(file))
}

/// Runs a command to its end.
pub fn run_to_end(command: &mut Command) -> Outcome {
    let child = command.env_remove("PORTCULLIS_CONFIG").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = Arc::new(Mutex::new(Some(child.unwrap())));
    let guard = child.clone();
    let (done, timer) = std::sync::mpsc::sync_channel::<()>(1);
    thread::spawn(move || {
        if timer.recv_timeout(PATIENCE).is_err()
            && let Some(child) = guard.lock().unwrap().as_mut()
        {
            drop(child.kill());
        }
    });
    let (mut out, mut err) = (String::new(), String::new());
    let (stdout, stderr) = {
        let mut child = child.lock().unwrap();
        let child = child.as_mut().unwrap();
        (child.stdout.take(), child.stderr.take())
    };
    let reader = thread::spawn(move || {
        stderr.unwrap().read_to_string(&mut err).unwrap();
        err
    });
    stdout.unwrap().read_to_string(&mut out).unwrap();
    let err = reader.join().unwrap();
    let status =
        within(PATIENCE, "the command ends", || child.lock().unwrap().as_mut().unwrap().try_wait().unwrap());
    let _ = done.send(());
    Outcome { code: status.code().unwrap_or(-1), out, err }
}

/// Runs `check` on a configuration.
pub fn check(settings: &Settings) -> Outcome {
    portcullis(&["check", "--config", path_text(&settings.write())])
}

/// A path as an argument.
pub fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}
