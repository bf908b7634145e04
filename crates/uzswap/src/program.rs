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
    // By name, and before it is opened: it may be executed and not read, as sudo is on some systems.
    if let Ok(it) = path.metadata() {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let changes_user = it.mode() & 0o4000 != 0 && it.uid() != uid;
        let changes_group = it.mode() & 0o2000 != 0 && it.gid() != gid;
        if changes_user || changes_group {
            return cannot(
                "it is set-user-ID or set-group-ID, and such programs load no agent; run uzswap as that user",
            );
        }
    }
    // For root they are no reason for the kernel to make the loader careful.
    if !rustix::process::getuid().is_root() && has_capabilities(path) {
        return cannot("it has capabilities (setcap), and such programs load no agent; run uzswap as root");
    }
    let Ok(mut file) = File::open(path) else {
        // The kernel will find out.
        return Ok(());
    };
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
    match elf(&file, head) {
        Some(Elf::Dynamic) | None => Ok(()),
        Some(Elf::Static) => cannot("it is statically linked, and such programs load no agent (LD_PRELOAD)"),
        Some(Elf::Narrow) => {
            cannot("it is a 32-bit program, and the agent is for 64-bit ones; run one built for x86-64")
        }
        Some(Elf::Foreign) => {
            cannot("it is for another processor, and the agent is for x86-64; run one built for that")
        }
    }
}

/// Whether a file gives who executes it capabilities. Where the file system has none, it does not.
fn has_capabilities(path: &Path) -> bool {
    // Room for none of them: the answer is how many bytes there are.
    rustix::fs::getxattr(path, "security.capability", &mut [0u8; 0][..]).is_ok()
}

/// What an ELF file is to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Elf {
    /// It asks for a dynamic loader, which loads the agent.
    Dynamic,
    /// It does not.
    Static,
    /// It is of 32 bits.
    Narrow,
    /// It is for another machine; that such a file can be executed all the same, binfmt_misc sees to.
    Foreign,
}

/// What a file with this head is. `None`: it is no ELF file, or damaged.
fn elf(file: &File, head: &[u8]) -> Option<Elf> {
    const NARROW: u8 = 1;
    const X86_64: u16 = 62;
    const PT_INTERP: u32 = 3;
    const ENTRY: usize = 56;
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let word = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    // As the kernel does, which does not look at the byte order: a number of the other order is no machine that it has.
    let machine = half(18)?;
    if head.get(4) == Some(&NARROW) {
        return Some(Elf::Narrow);
    }
    if machine != X86_64 {
        return Some(Elf::Foreign);
    }
    let (offset, size, count) = (word(32)?, half(54)?, half(56)?);
    if usize::from(size) != ENTRY {
        return None;
    }
    for number in 0..u64::from(count) {
        let mut entry = [0; 4];
        file.read_exact_at(&mut entry, offset.checked_add(number * ENTRY as u64)?).ok()?;
        if u32::from_le_bytes(entry) == PT_INTERP {
            return Some(Elf::Dynamic);
        }
    }
    Some(Elf::Static)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const AARCH64: u8 = 183;
    const I386: u8 = 3;
    const X86_64: u8 = 62;
    const LOAD: u8 = 1;
    const INTERP: u8 = 3;

    /// A head of 64 bits, or one that only says that it has 32, with one program header behind it.
    fn head(class: u8, machine: u8, entry: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
        bytes[18] = machine;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64] = entry;
        bytes
    }

    fn kind(bytes: &[u8]) -> Option<Elf> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        elf(file.as_file(), bytes)
    }

    #[test]
    fn what_loads_no_agent_is_told_from_what_does() {
        assert_eq!(kind(&head(2, X86_64, INTERP)), Some(Elf::Dynamic));
        assert_eq!(kind(&head(2, X86_64, LOAD)), Some(Elf::Static));
        assert_eq!(kind(&head(1, I386, INTERP)), Some(Elf::Narrow));
        assert_eq!(kind(&head(1, X86_64, INTERP)), Some(Elf::Narrow), "x32");
        assert_eq!(kind(&head(1, 40, INTERP)), Some(Elf::Narrow), "arm");
        assert_eq!(kind(&head(2, AARCH64, INTERP)), Some(Elf::Foreign));
        // The other byte order: s390x is 22.
        let mut other = head(2, 0, INTERP);
        (other[5], other[19]) = (2, 22);
        assert_eq!(kind(&other), Some(Elf::Foreign));
        // Its own idea of its class and order is nothing to the kernel.
        assert_eq!(kind(&head(0, X86_64, LOAD)), Some(Elf::Static));
    }

    #[test]
    fn what_is_damaged_is_for_the_kernel() {
        let whole = head(2, X86_64, INTERP);
        for len in 0..whole.len() - 52 {
            let cut = whole.get(..len).unwrap();
            assert_eq!(kind(cut), None, "{len}");
        }
        for len in 0..20 {
            assert_eq!(kind(head(2, AARCH64, INTERP).get(..len).unwrap()), None, "{len}");
        }
        for (at, byte) in [(0, 0), (3, 0), (32, 255), (39, 255), (54, 0), (55, 1)] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            assert_eq!(kind(&damaged), None, "byte {at}");
        }
        let mut many = head(2, X86_64, LOAD);
        many[57] = 255;
        assert_eq!(kind(&many), None, "more headers than the file has");
    }

    #[test]
    fn our_own_user_id_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own");
        std::fs::write(&path, head(2, X86_64, INTERP)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o6755)).unwrap();
        check(&path).unwrap();
        // No right changes hands with it, and the reason to refuse it is another.
        std::fs::write(&path, head(2, AARCH64, INTERP)).unwrap();
        assert!(check(&path).unwrap_err().text().contains("another processor"));
    }
}
