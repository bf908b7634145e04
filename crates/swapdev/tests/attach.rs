//! The device itself: made, looked at with tools that are not ours, used, and taken away. Needs root, FUSE and loop devices.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use swapdev::{ByteStore, Config, Device, Errno, PAGE_SIZE, Page, PageStore, Via, kit};

/// Pages in a vector, and what was asked of them.
struct Plain {
    pages: Vec<std::sync::Mutex<Page>>,
    discarded: AtomicU64,
    flushed: AtomicU64,
}

impl Plain {
    fn new(pages: usize) -> Arc<Plain> {
        let pages = (0..pages).map(|_| std::sync::Mutex::new([0; PAGE_SIZE])).collect();
        Arc::new(Plain { pages, discarded: AtomicU64::new(0), flushed: AtomicU64::new(0) })
    }

    fn at(&self, page: u64) -> Result<std::sync::MutexGuard<'_, Page>, Errno> {
        let index = usize::try_from(page).map_err(|_| Errno::INVAL)?;
        Ok(self.pages.get(index).ok_or(Errno::INVAL)?.lock().unwrap())
    }
}

impl PageStore for Plain {
    fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    fn read(&self, page: u64, out: &mut Page) -> Result<(), Errno> {
        *out = *self.at(page)?;
        Ok(())
    }

    fn write(&self, page: u64, data: &Page) -> Result<(), Errno> {
        *self.at(page)? = *data;
        Ok(())
    }

    fn discard(&self, first: u64, count: u64) -> Result<(), Errno> {
        for page in first..first + count {
            *self.at(page)? = [0; PAGE_SIZE];
        }
        self.discarded.fetch_add(count, Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), Errno> {
        self.flushed.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// One test at a time: each looks at all mounts and loop devices of the machine. `None`: the machine does not have what a
/// device takes, and it has been said.
fn alone(name: &str) -> Option<fs::File> {
    can(name).then(|| {
        let lock = fs::File::create(std::env::temp_dir().join("uzswap-tests.lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        lock
    })
}

/// Whether the machine has what a device takes; if not, it has been said.
fn can(name: &str) -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        "only root may make block devices"
    } else if !Path::new("/dev/fuse").exists() {
        "no /dev/fuse"
    } else if !Path::new("/dev/loop-control").exists() {
        "no /dev/loop-control"
    } else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "SKIP {name}: {missing} (a failure, because CI is set)");
    println!("SKIP {name}: {missing}");
    false
}

fn output(words: &[&str]) -> String {
    let out = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn traces() -> (Vec<String>, Vec<String>, String) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let fuse = mounts.lines().filter(|line| line.contains("fuse")).map(str::to_owned).collect();
    let loops = output(&["losetup", "-l", "-n", "-O", "NAME"]).lines().map(str::to_owned).collect();
    (fuse, loops, fs::read_to_string("/proc/swaps").unwrap())
}

fn config(root: &Path, name: &str) -> Config {
    let mut config = Config::new(name);
    config.root = root.to_owned();
    config.via = Via::Fuse;
    config
}

const PAGES: usize = 4096;

#[test]
fn other_tools_see_a_swap_area_and_afterwards_nothing() {
    let Some(_alone) = alone("other_tools_see_a_swap_area_and_afterwards_nothing") else { return };
    let before = traces();
    let root = tempfile::tempdir().unwrap();
    let store = Plain::new(PAGES);
    let mut device = Device::create(store.clone(), &config(root.path(), "seen")).unwrap();
    let path = device.path().unwrap().to_str().unwrap().to_owned();
    let seen = output(&["blkid", "-p", "-o", "export", &path]);
    assert!(seen.contains("TYPE=swap"), "{seen}");
    assert!(seen.contains("LABEL="), "{seen}");
    let uuid = seen.lines().find_map(|line| line.strip_prefix("UUID=")).unwrap();
    assert!(output(&["swaplabel", &path]).contains(uuid));
    let swaps = fs::read_to_string("/proc/swaps").unwrap();
    let line = swaps.lines().find(|line| line.starts_with(&path)).unwrap_or_else(|| panic!("{swaps}"));
    let fields: Vec<_> = line.split_whitespace().collect();
    // One page of it is the header.
    assert_eq!(
        (fields[1], fields[2], fields[4]),
        ("partition", &*((PAGES - 1) * 4).to_string(), "100"),
        "{line}"
    );
    assert_eq!(
        fs::metadata(device.dir().unwrap()).unwrap().mode() & 0o077 & 0o022,
        0,
        "nobody else may write there"
    );
    device.swapoff_and_close().unwrap();
    drop(device);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "no state is left");
    assert_eq!(traces(), before);
}

#[test]
fn a_name_is_taken_once() {
    let Some(_alone) = alone("a_name_is_taken_once") else { return };
    let root = tempfile::tempdir().unwrap();
    let mut first = Device::create(Plain::new(PAGES), &config(root.path(), "once")).unwrap();
    let with_one = traces();
    assert!(Device::create(Plain::new(PAGES), &config(root.path(), "once")).is_err());
    assert_eq!(traces(), with_one, "the refused one left nothing");
    first.swapoff_and_close().unwrap();
}

#[test]
fn a_store_too_small_or_a_transport_not_built_leaves_nothing() {
    let Some(_alone) = alone("a_store_too_small_or_a_transport_not_built_leaves_nothing") else { return };
    let before = traces();
    let root = tempfile::tempdir().unwrap();
    assert!(Device::create(Plain::new(1), &config(root.path(), "small")).is_err());
    let mut other = config(root.path(), "ublk");
    other.via = Via::Ublk;
    assert!(Device::create(Plain::new(PAGES), &other).is_err());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    assert_eq!(traces(), before);
}

#[test]
fn the_file_behind_is_roots_and_a_discard_frees() {
    let Some(_alone) = alone("the_file_behind_is_roots_and_a_discard_frees") else { return };
    let store = Plain::new(256);
    let threads = std::num::NonZeroUsize::new(2).unwrap();
    let mut record = |_: &Path| Ok(());
    let attach = swapdev::Attach { store: store.clone(), threads, label: "test", record: &mut record };
    let transport = Via::Fuse.attach(attach).unwrap();
    let path = transport.path().to_owned();
    // Other users meet no file: the mount admits the one who made it, and the device node is root's.
    let mode = fs::metadata(&path).unwrap().mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}: the device is not everybody's");
    let refused = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "dd", "count=1", "of=/dev/null"])
        .arg(format!("if={}", path.display()))
        .output()
        .unwrap();
    assert!(!refused.status.success(), "another user reads swapped pages");

    let device = fs::File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let mut memory = vec![0u8; 33 * PAGE_SIZE];
    let skip = memory.as_ptr().align_offset(PAGE_SIZE);
    let buffer = &mut memory[skip..skip + 32 * PAGE_SIZE];
    buffer.chunks_mut(8).enumerate().for_each(|(at, word)| word.copy_from_slice(&(at as u64).to_le_bytes()));
    // Requests of many pages, at an offset that is none of their size.
    device.write_all_at(buffer, 3 * 4096).unwrap();
    device.sync_all().unwrap();
    assert!(store.flushed.load(Relaxed) > 0, "a flush reaches the store");
    for (at, page) in buffer.chunks(PAGE_SIZE).enumerate() {
        assert!(store.pages[at + 3].lock().unwrap().as_slice() == page, "page {at}");
    }
    let written = buffer.to_vec();
    buffer.fill(0);
    device.read_exact_at(buffer, 3 * 4096).unwrap();
    assert!(buffer == written);
    // Part of a page: through the block layer's own buffers.
    let small = fs::File::options().read(true).write(true).open(&path).unwrap();
    small.write_all_at(b"odd", 5 * 4096 + 101).unwrap();
    small.sync_all().unwrap();
    assert_eq!(&store.pages[5].lock().unwrap()[101..104], b"odd");
    assert_eq!(small.write_at(b"beyond", 256 * 4096).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(small.read_at(&mut [0; 16], 256 * 4096).unwrap(), 0, "the end");
    drop(small);
    output(&[
        "blkdiscard",
        "-o",
        &(8 * 4096).to_string(),
        "-l",
        &(16 * 4096).to_string(),
        path.to_str().unwrap(),
    ]);
    assert_eq!(store.discarded.load(Relaxed), 16);
    assert!(*store.pages[8].lock().unwrap() == [0; PAGE_SIZE]);
    assert!(*store.pages[7].lock().unwrap() != [0; PAGE_SIZE]);
    drop(device);
    transport.detach().unwrap();
}

#[test]
fn a_transport_in_use_is_not_taken_away() {
    let Some(_alone) = alone("a_transport_in_use_is_not_taken_away") else { return };
    let before = traces();
    let store = Plain::new(64);
    let mut record = |_: &Path| Ok(());
    let threads = std::num::NonZeroUsize::MIN;
    let attach = swapdev::Attach { store, threads, label: "busy", record: &mut record };
    let transport = Via::Fuse.attach(attach).unwrap();
    let user = fs::File::open(transport.path()).unwrap();
    assert!(transport.detach().is_err(), "somebody has it open");
    let mut page = [1; PAGE_SIZE];
    user.read_exact_at(&mut page, 0).unwrap();
    drop(user);
    let mut after = traces();
    for _ in 0..100 {
        if after == before {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        after = traces();
    }
    assert_eq!(after, before, "once it is closed nothing is left");
}

#[test]
fn what_the_kernel_allows_of_the_deadlock_kit_is_engaged() {
    let Some(_alone) = alone("what_the_kernel_allows_of_the_deadlock_kit_is_engaged") else { return };
    let refused = kit::engage().unwrap();
    let report = kit::report().unwrap();
    let says = |what: &str| refused.iter().any(|error| error.to_string().contains(what));
    println!("refused here: {:?}", refused.iter().map(ToString::to_string).collect::<Vec<_>>());
    if !says("oom") && !says("OOM") {
        assert_eq!(report.oom_score_adj, -1000);
    }
    if !says("lock") {
        // Guard pages of stacks cannot be locked and hold nothing.
        assert!(report.unlocked_bytes <= 16 * 4096, "{} bytes are not locked", report.unlocked_bytes);
    }
    // A thread that serves has what its process was allowed.
    let serving = std::thread::Builder::new()
        .name("serves".into())
        .spawn(|| (kit::engage_thread().is_ok(), kit::report().unwrap()))
        .unwrap();
    let (allowed, report) = serving.join().unwrap();
    let thread = report.threads.iter().find(|thread| thread.name == "serves").unwrap();
    assert_eq!(thread.io_flusher, allowed);
}

#[test]
fn bytes_of_pages_and_nothing_beyond() {
    let store = Plain::new(4);
    let bytes = ByteStore::new(store.clone()).unwrap();
    let mut model = vec![0u8; 4 * PAGE_SIZE];
    let mut seed = 7u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).unwrap() % below
    };
    for step in 0..4000usize {
        let offset = random(4 * PAGE_SIZE + 100);
        let len = 1 + random(2 * PAGE_SIZE);
        let fits = len.min(model.len().saturating_sub(offset));
        match step % 3 {
            0 => {
                let data = vec![(step % 256) as u8; len];
                match bytes.write_at(offset as u64, &data) {
                    Ok(done) => {
                        assert_eq!(done, fits, "at {offset}, {len} bytes");
                        model[offset.min(4 * PAGE_SIZE)..][..done].fill((step % 256) as u8);
                    }
                    Err(errno) => {
                        assert_eq!((errno, fits), (Errno::NOSPC, 0));
                    }
                }
            }
            1 => {
                let mut out = vec![0; len];
                let done = bytes.read_at(offset as u64, &mut out).unwrap();
                assert_eq!(done, fits);
                assert!(done == 0 || out[..done] == model[offset..][..done]);
            }
            _ if step % 30 == 2 => {
                if bytes.zero(offset as u64, fits as u64).is_ok() && fits > 0 {
                    model[offset..][..fits].fill(0);
                }
            }
            _ => {}
        }
    }
    let all: Vec<u8> = store.pages.iter().flat_map(|page| *page.lock().unwrap()).collect();
    assert!(all == model);
    assert!(bytes.read_at(u64::MAX, &mut [0; 8]).is_ok_and(|done| done == 0));
}
