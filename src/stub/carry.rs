//! Carries out a plan below a root. Not pure.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::facts::below;
use super::place::{Bytes, Kept, Place, put};
use super::plan::{Plan, Step};
use super::{KEPT, KEPT_COPY, KEPT_RECORD};

/// A program of the machine may take this long.
const RUN_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Does all steps; gives back what did not go well and is no reason to end.
///
/// Programs of the machine are run only where the root is the machine's.
///
/// # Errors
///
/// With the path in front: the first step that cannot be done. Those before it are done.
pub fn carry_out(root: &Path, plan: &Plan) -> io::Result<Vec<String>> {
    let mut remarks = Vec::new();
    for step in &plan.steps {
        match step {
            Step::Keep(record) => {
                make_kept(root).map_err(|e| told(Path::new(KEPT), &e))?;
                let text =
                    serde_json::to_string_pretty(record).map_err(|e| told(Path::new(KEPT_RECORD), &e.into()))?;
                // It may hold what only root may read.
                let kept =
                    Kept { bytes: Bytes::Text(text), mode: 0o600, uid: own_uid(), gid: own_gid(), modified: None };
                put(&below(root, Path::new(KEPT_RECORD)), &Place::File(kept))
                    .map_err(|e| told(Path::new(KEPT_RECORD), &e))?;
            }
            Step::Put { path, place, .. } => {
                let at = below(root, path);
                let made = match (place, at.parent()) {
                    (Place::Nothing, _) | (_, None) => Ok(()),
                    (_, Some(parent)) => DirBuilder::new().recursive(true).mode(0o755).create(parent),
                };
                made.and_then(|()| put(&at, place)).map_err(|e| told(path, &e))?;
            }
            Step::Run(command) => {
                if root == Path::new("/")
                    && let Err(why) = run(command)
                {
                    let command = command.join(" ");
                    remarks.push(format!("`{command}`: {why}: what was written holds from its next start on"));
                }
            }
            Step::RemoveEmpty(path) => {
                // Where somebody has put something there it stays, and gone already it is gone.
                let _ = fs::remove_dir(below(root, path));
            }
            Step::Forget => {
                for path in [KEPT_COPY, KEPT_RECORD] {
                    put(&below(root, Path::new(path)), &Place::Nothing).map_err(|e| told(Path::new(path), &e))?;
                }
                // Where somebody has put something else there it stays.
                let _ = fs::remove_dir(below(root, Path::new(KEPT)));
                let _ = below(root, Path::new(super::LEASE)).parent().map(fs::remove_dir);
            }
        }
    }
    Ok(remarks)
}

fn make_kept(root: &Path) -> io::Result<()> {
    let directory = below(root, Path::new(KEPT));
    DirBuilder::new().recursive(true).mode(0o755).create(&directory)?;
    // Whatever the umask was: the service's user reads the copy in it.
    fs::set_permissions(&directory, Permissions::from_mode(0o755))
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn own_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

fn run(command: &[&str]) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let until = Instant::now() + RUN_WITHIN;
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if Instant::now() >= until => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not end within {} s", RUN_WITHIN.as_secs()));
            }
            None => thread::sleep(LOOK_EVERY),
        }
    };
    if status.success() {
        return Ok(());
    }
    // What is in the pipe by now: somebody else may hold the other end still.
    let mut said = [0; 512];
    let pipe = child.stderr.take().filter(|pipe| rustix::io::ioctl_fionbio(pipe, true).is_ok());
    let length = pipe.and_then(|mut pipe| pipe.read(&mut said).ok()).unwrap_or(0);
    let said = String::from_utf8_lossy(&said[..length]);
    Err(format!("{status} {}", said.lines().next().unwrap_or("")).trim().to_owned())
}

fn told(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}
