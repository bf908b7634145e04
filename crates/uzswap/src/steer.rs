//! `swapoff` and `set`: asking a running instance, and cleaning up after a dead one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use control::{Fact, Request, RequestError};
use swapdev::cleanup;

use crate::failure::Failure;
use crate::status;

/// How long what a dead server left may take to be undone.
const CLEANUP_LIMIT: Duration = Duration::from_secs(120);
/// How long a server that has closed its socket may take to be gone, and how often that is looked at.
const ENDING: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(20);

/// The directory of all instances: what UZSWAP_RUN names, else `/run/uzswap`; for those who are not root, the same in
/// their own run-time directory.
pub fn root() -> PathBuf {
    if let Some(named) = std::env::var_os("UZSWAP_RUN") {
        return named.into();
    }
    if rustix::process::geteuid().is_root() {
        return "/run/uzswap".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(own) => PathBuf::from(own).join("uzswap"),
        None => format!("/tmp/uzswap-{}", rustix::process::geteuid().as_raw()).into(),
    }
}

/// The control block of an instance.
pub fn block_path(name: &str) -> PathBuf {
    root().join(name).join("control")
}

/// The control socket of an instance.
pub fn socket_path(name: &str) -> PathBuf {
    root().join(name).join("socket")
}

/// `uzswap set`.
pub fn set(name: &str, param: &str, value: &str) -> Result<(), Failure> {
    check(name)?;
    // Written to a file of the kernel's it would change nothing. Here it is a shell variable that was never set.
    if value.is_empty() {
        return Err(Failure::usage(param, "no value"));
    }
    let param_name = zswap::Param::named(param).map_err(|error| Failure::job(param, error))?.name();
    ask(name, &Request::Set { name: param_name.to_owned(), value: value.to_owned() })
}

/// `uzswap swapoff`.
pub fn swapoff(which: Option<&str>, all: bool) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::job("swapoff", "only root may turn swap off"));
    }
    let Some(which) = which.filter(|_| !all) else { return swapoff_all() };
    let name = if which.starts_with('/') { instance_of_device(which)? } else { which.to_owned() };
    check(&name)?;
    swapoff_one(&name)
}

fn swapoff_one(name: &str) -> Result<(), Failure> {
    if clean(name)? {
        return Ok(());
    }
    // Alive, or not there; the socket tells which.
    match control::request(&socket_path(name), &Request::Swapoff) {
        Err(RequestError::Io(error)) if ended_meanwhile(&error) => after_its_end(name),
        asked => asked.map_err(|error| not_done(name, error)),
    }
}

/// Undoes what a dead server of this name left. Whether there was one.
fn clean(name: &str) -> Result<bool, Failure> {
    let undone = cleanup::clean(&root(), name, CLEANUP_LIMIT).map_err(|error| Failure::job(name, error))?;
    if let Some(undone) = &undone {
        told(undone);
    }
    Ok(undone.is_some())
}

/// Whether the server went without an answer: somebody else's request was the one that ended it, or it was killed.
fn ended_meanwhile(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | UnexpectedEof)
}

/// A server that ended in its own way has taken everything along; what one that was killed held on to is free a moment
/// after its socket.
fn after_its_end(name: &str) -> Result<(), Failure> {
    for _ in 0..ENDING.as_millis() / STEP.as_millis() {
        if clean(name)? || !root().join(name).exists() {
            return Ok(());
        }
        std::thread::sleep(STEP);
    }
    Err(Failure::job(name, "its server does not answer and has not ended; try again"))
}

/// Goes on after a failure, and reports the first. An instance that ended meanwhile is off.
fn swapoff_all() -> Result<(), Failure> {
    let names = swapdev::instances(&root()).map_err(Failure::told)?;
    let mut first = Ok(());
    for name in names {
        if let Err(failure) = swapoff_one(&name)
            && first.is_ok()
            && root().join(&name).exists()
        {
            first = Err(failure);
        }
    }
    first
}

/// Says what a dead server had left.
pub fn told(undone: &cleanup::Undone) {
    match &undone.device {
        Some(device) if undone.lost_bytes > 0 => eprintln!(
            "uzswap: {}: its server had died; {} and {} of swapped pages are gone",
            undone.name,
            device.display(),
            crate::size::show(undone.lost_bytes)
        ),
        Some(device) => {
            eprintln!("uzswap: {}: its server had died; removed {}", undone.name, device.display())
        }
        None => {}
    }
}

fn instance_of_device(device: &str) -> Result<String, Failure> {
    let names = swapdev::instances(&root()).map_err(Failure::told)?;
    let serves = |name: &String| {
        control::Block::open(&block_path(name))
            .is_ok_and(|block| Path::new(&block.fact(Fact::Device)) == Path::new(device))
    };
    names.into_iter().find(serves).ok_or_else(|| Failure::job(device, "no instance serves this device"))
}

/// A name that could be an instance's.
pub fn check(name: &str) -> Result<(), Failure> {
    swapdev::check_name(name).map_err(|error| Failure::usage("name", error))
}

fn ask(name: &str, what: &Request) -> Result<(), Failure> {
    control::request(&socket_path(name), what).map_err(|error| not_done(name, error))
}

fn not_done(name: &str, error: RequestError) -> Failure {
    match error {
        RequestError::Refused(_, text) => Failure::told(text),
        RequestError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => status::not_running(name),
        RequestError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            status::dead(name)
        }
        RequestError::Io(error) => Failure::job(name, error),
        error => Failure::job(name, error),
    }
}
