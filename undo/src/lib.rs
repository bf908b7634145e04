//! What tests and measurements change in the machine is changed back, whatever becomes of them.
//!
//! A change is made together with an [`Undo`]: a shell that waits for the end of a pipe of ours and then runs the command
//! that changes it back. The pipe ends when the `Undo` is dropped, and just so when its process is killed, so there is one
//! way back and every use tests it. The price is a sleeping shell for each change. It cannot help where the shell is killed
//! too, or the machine stops: what lasts beyond that, such as a line in `/etc`, must not be changed with it.
//!
//! An `Undo` is made before its change wherever it can be told beforehand what to undo: between a change and its `Undo` a
//! process can be killed too. Its command then undoes only what is there.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub mod need;
pub mod storage;
pub mod wait;

/// The command is tried for this many tenths of a second: what it undoes may be in use for a while, by what is being undone
/// at the same time.
const TRIES: u32 = 1800;
/// Seconds that one try may take: turning a swap area off brings all of its pages back.
const TRY: u32 = 240;
/// How long a drop waits for all of that. A command that the kernel holds on to cannot be killed.
const LIMIT: Duration = Duration::from_secs(600);

/// Waits for the end of its input, then runs its arguments until they succeed; not again when they were killed for their time.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM PIPE
tries=$1; limit=$2; shift 2
read -r _
until why=$(timeout -k 5 "$limit" "$@" 2>&1); do
    case $? in 124 | 137) tries=0; why="not done in $limit seconds: $why" ;; esac
    tries=$((tries - 1))
    if [ "$tries" -le 0 ]; then echo "not undone: $*: $why" >&2; exit 1; fi
    sleep 0.1
done
"#;

/// A change that is taken back when this is dropped or its process ends, by whatever cause.
#[derive(Debug)]
pub struct Undo(Child);

impl Undo {
    /// Runs the program and arguments `words` at the end.
    ///
    /// # Errors
    /// Of starting a shell. Make the change only after this has succeeded, or undo it yourself.
    pub fn by(words: &[&str]) -> io::Result<Undo> {
        Undo::within(TRY, words)
    }

    /// As [`Undo::by`], with the seconds that one try may take.
    fn within(seconds: u32, words: &[&str]) -> io::Result<Undo> {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "undo", &TRIES.to_string(), &seconds.to_string()]).args(words);
        // A group of its own, so that what a terminal or a test runner sends to ours does not reach it. What it prints to
        // stdout could keep a reader of ours waiting.
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map(Undo)
    }

    /// Writes `value` to a file of the kernel's, and what was there before at the end.
    ///
    /// # Errors
    /// Of reading or writing the file; nothing is changed then.
    pub fn write(path: &Path, value: &str) -> io::Result<Undo> {
        let before = std::fs::read_to_string(path)?;
        let name = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        let undo = Undo::by(&["sh", "-c", r#"printf %s "$1" > "$2""#, "sh", before.trim_end(), name])?;
        std::fs::write(path, value)?;
        Ok(undo)
    }

    /// Turns the kernel's own zswap off, where it is on: it takes pages before they come to any swap device.
    ///
    /// # Errors
    /// As [`Undo::write`].
    pub fn kernel_zswap_off() -> io::Result<Option<Undo>> {
        if kernel_zswap() { Undo::write(Path::new(ZSWAP), "N").map(Some) } else { Ok(None) }
    }
}

const ZSWAP: &str = "/sys/module/zswap/parameters/enabled";

/// Whether the kernel's own zswap is on.
#[must_use]
pub fn kernel_zswap() -> bool {
    std::fs::read_to_string(ZSWAP).is_ok_and(|value| value.starts_with('Y'))
}

impl Drop for Undo {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends by itself; what it could not do it has said.
        if wait::exit(&mut self.0, LIMIT).is_err() {
            eprintln!("not undone within {} seconds, and not waited for any longer", LIMIT.as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_given_up() {
        let begun = std::time::Instant::now();
        drop(Undo::within(1, &["sleep", "1000"]).expect("a shell"));
        assert!(begun.elapsed() < Duration::from_secs(60), "it was waited for");
    }
}
