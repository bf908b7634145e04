//! The program that `run` is to start: where it is, and whether an agent can be loaded into it. Looked at before anything is
//! started, so that a program we cannot manage is not run unmanaged.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Exit status of a shell for a command that is not there.
const NOT_FOUND: u8 = 127;
/// And for one that may not be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Interpreters of interpreters that the kernel follows.
const SCRIPTS: usize = 5;

/// The file that `name` means, as `execvp` would find it.
pub fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    let shown = name.display();
    let missing = || Failure::with_status(NOT_FOUND, shown.to_string(), "command not found");
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match executable(&path) {
            Ok(true) => Ok(path),
            Ok(false) => Err(Failure::with_status(NOT_EXECUTABLE, shown, "not executable")),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(Failure::with_status(NOT_EXECUTABLE, shown, error))
            }
            Err(_) => Err(missing()),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    let mut there = None;
    for dir in std::env::split_paths(&path) {
        let candidate = dir.join(name);
        match executable(&candidate) {
            Ok(true) => return Ok(candidate),
            Ok(false) => there = Some(candidate),
            Err(_) => {}
        }
    }
    match there {
        Some(path) => Err(Failure::with_status(NOT_EXECUTABLE, path.display(), "not executable")),
        None => Err(missing()),
    }
}

fn executable(path: &Path) -> std::io::Result<bool> {
    let it = path.metadata()?;
    let may = rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    Ok(it.is_file() && it.permissions().mode() & 0o111 != 0 && may)
}

/// Whether the loader of `path` will load an agent into it.
pub fn check(path: &Path) -> Result<(), Failure> {
    check_deep(path, SCRIPTS)
}

fn check_deep(path: &Path, scripts: usize) -> Result<(), Failure> {
    let cannot = |why: &str| Err(Failure::job(path.display(), why));
    let Ok(mut file) = File::open(path) else {
        // It may be executed and not read; the kernel will find out.
        return Ok(());
    };
    if let Ok(it) = file.metadata() {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let changes_user = it.mode() & 0o4000 != 0 && it.uid() != uid;
        let changes_group = it.mode() & 0o2000 != 0 && it.gid() != gid;
        if changes_user || changes_group {
            return cannot(
                "it is set-user-ID or set-group-ID, and such programs load no agent; run uzswap as that user",
            );
        }
    }
    let mut head = [0; 256];
    let len = file.read(&mut head).unwrap_or(0);
    let head = head.get(..len).unwrap_or_default();
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_start();
        let interpreter = line.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
        return match scripts.checked_sub(1) {
            Some(left) if !interpreter.is_empty() => {
                check_deep(Path::new(OsStr::from_bytes(interpreter)), left)
            }
            _ => Ok(()),
        };
    }
    match interpreter(&file, head) {
        Some(true) | None => Ok(()),
        Some(false) => cannot("it is statically linked, and such programs load no agent (LD_PRELOAD)"),
    }
}

/// Whether an ELF file asks for a dynamic loader. `None`: it is no 64-bit ELF file, or damaged.
fn interpreter(file: &File, head: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    const ENTRY: usize = 56;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let word = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let (offset, size, count) = (word(32)?, half(54)?, half(56)?);
    if usize::from(size) != ENTRY {
        return None;
    }
    for number in 0..u64::from(count) {
        let mut entry = [0; 4];
        file.read_exact_at(&mut entry, offset.checked_add(number * ENTRY as u64)?).ok()?;
        if u32::from_le_bytes(entry) == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}
