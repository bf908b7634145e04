//! The server behind a device: what runs in it, and how it ends.
//!
//! It ends in one way: the kernel has brought every page back. SIGTERM, SIGINT, SIGQUIT and the socket's `swapoff` ask for
//! that; while it fails (there is no memory for the pages, or not at this moment) the server goes on. After a signal it
//! tries again by itself, since whoever sent it hears nothing; the socket's client is told, and may ask again.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use control::{Fact, Reply, Request, Writer};
use signal_hook::consts::{self as signals, TERM_SIGNALS};
use signal_hook::iterator::Signals;
use swapdev::{Config, Device, Instance};
use swapfile::SwapDevice;
use zswap::{Options, PAGE_SIZE, Param, Zswap};

use crate::failure::Failure;
use crate::steer::{block_path, root, socket_path};
use crate::store::{CacheStore, SWAP_TYPE};
use crate::swapon::Plan;

/// Share of RAM that a device has slots for when nothing says how many: what the default pool (20 % of RAM) holds at the
/// ratio that pages of ordinary programs compress by, about 2.5.
const DEFAULT_RAM_SHARE: u64 = 2;

/// Signals that nobody sends to have the pages lost, but that end a program, or stop it and with it whoever swaps: a terminal
/// that is closed or asked for Ctrl-Z, limits on the size of files (the backing is one) and on CPU time, timers, a stray kill.
const OUTLIVED: [i32; 12] = [
    signals::SIGHUP,
    signals::SIGXFSZ,
    signals::SIGXCPU,
    signals::SIGTSTP,
    signals::SIGTTIN,
    signals::SIGTTOU,
    signals::SIGUSR1,
    signals::SIGUSR2,
    signals::SIGALRM,
    signals::SIGVTALRM,
    signals::SIGPROF,
    signals::SIGIO,
];

/// How long a swapoff that a signal asked for, and that failed, is left before it is tried again: doubled each time, because
/// each try may read for minutes, up to the second of these.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Something that wants the device off.
enum Event {
    Signal,
    Swapoff(Sender<Reply>),
}

/// Makes the device of `plan`, calls `on` when the kernel swaps to it, and serves until it is off again.
pub fn run(plan: &Plan, on: impl FnOnce(&Path)) -> Result<(), Failure> {
    let root = root();
    std::fs::create_dir_all(&root).map_err(|error| Failure::job(root.display(), error))?;
    refuse_running(&plan.name)?;
    warn_about_kernel_zswap();
    let (pages, backing) = backing(plan)?;
    let writer = Arc::new(Writer::new(&root).map_err(|error| Failure::job(root.display(), error))?);
    let mut options = Options::new(plan.profile);
    options.params.clone_from(&plan.params);
    options.stats = Box::new(writer.clone());
    let cache = Arc::new(Zswap::new(options).map_err(Failure::usage_of)?);
    cache
        .swapon(SWAP_TYPE, pages, backing)
        .map_err(|error| Failure::job(&plan.name, format!("cannot make {pages} slots: {error:?}")))?;
    let mut signals =
        Signals::new(TERM_SIGNALS.iter().chain(&OUTLIVED)).map_err(|error| Failure::job("signals", error))?;
    let mut config = Config::new(&plan.name);
    config.root.clone_from(&root);
    config.via = plan.via;
    config.priority = plan.priority;
    let store = Arc::new(CacheStore::new(cache.clone(), pages));
    let mut device = Device::create(store, &config).map_err(Failure::told)?;

    for part in device.missing_kit() {
        eprintln!(
            "uzswap: warning: {part}; without it the device can hang or lose its server when memory runs out everywhere"
        );
    }
    let up = announce(plan, &writer, &cache, &device, pages);
    let server = up.and_then(|()| {
        control::serve(&socket_path(&plan.name)).map_err(|error| Failure::job("control socket", error))
    });
    let server = match server {
        Ok(server) => server,
        Err(failure) => {
            device.swapoff_and_close().map_err(Failure::told)?;
            return Err(failure);
        }
    };
    let (wants, events) = mpsc::channel();
    let worker = background("shrink", {
        let cache = cache.clone();
        move || cache.run_shrink_worker()
    })?;
    let asked = background("control", {
        let (cache, wants) = (cache.clone(), wants.clone());
        move || {
            // When the socket fails, signals still work.
            let _ = server.run(|request| answer(request, &cache, &writer, &wants));
        }
    })?;
    background("signals", move || {
        for signal in signals.forever() {
            if TERM_SIGNALS.contains(&signal) && wants.send(Event::Signal).is_err() {
                return;
            }
        }
    })?;
    crate::pressure::watch(&cache);
    if let Some(path) = device.path() {
        on(path);
    }

    if let Some(Event::Swapoff(_)) = until_off(&mut device, &events) {
        // The one who asked is to have the answer before this process is gone.
        let _ = asked.join();
    }
    cache.stop_shrink_worker();
    let _ = worker.join();
    Ok(())
}

/// Serves until the device is off. What asked for it, if anything.
fn until_off(device: &mut Device, events: &Receiver<Event>) -> Option<Event> {
    let mut said = None;
    let mut pause = None;
    loop {
        let event = match pause {
            None => events.recv().ok()?,
            // Nothing came: it is time to try again for the signal.
            Some(pause) => events.recv_timeout(pause).unwrap_or(Event::Signal),
        };
        let off = device.swapoff_and_close();
        let failed = off.as_ref().err().map(ToString::to_string);
        if let Event::Swapoff(reply) = &event {
            let told = off.map_err(|error| (error.errno().raw_os_error(), error.to_string()));
            let _ = reply.send(told);
        } else {
            pause = Some(pause.map_or(FIRST_PAUSE, |pause: Duration| LAST_PAUSE.min(pause * 2)));
        }
        let Some(text) = failed else { return Some(event) };
        if said.as_ref() != Some(&text) {
            eprintln!("uzswap: {text}; the device stays on, no page is lost");
            said = Some(text);
        }
    }
}

/// A thread; it inherits what the deadlock kit gave this one.
fn background(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, Failure> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| Failure::job("thread", error))
}

/// Tells the world: facts, and the block's name.
fn announce(plan: &Plan, writer: &Writer, cache: &Zswap, device: &Device, pages: u32) -> Result<(), Failure> {
    let text = |path: Option<&Path>| path.map(|path| path.display().to_string()).unwrap_or_default();
    let via = device.via().map(|via| via.to_string()).unwrap_or_default();
    writer.set(&[
        (Fact::Profile, plan.profile.name),
        (Fact::Device, &text(device.path())),
        (Fact::Via, &via),
        (Fact::Backing, &text(plan.backing.as_deref())),
        (Fact::Pages, &pages.to_string()),
    ]);
    show_params(writer, cache);
    writer.publish(&block_path(&plan.name)).map_err(|error| Failure::job("control block", error))
}

/// Shows the values of all parameters in the control block.
pub fn show_params(writer: &Writer, cache: &Zswap) {
    let values: Vec<_> =
        Param::ALL.iter().map(|param| (Fact::Param(*param), cache.get(*param).unwrap_or_default())).collect();
    let facts: Vec<_> = values.iter().map(|(fact, value)| (*fact, value.as_str())).collect();
    writer.set(&facts);
}

/// The answer to a request to set a parameter.
pub fn set(cache: &Zswap, writer: &Writer, name: &str, value: &str) -> Reply {
    let set = Param::named(name).and_then(|param| cache.set(param, value));
    show_params(writer, cache);
    set.map_err(|error| (error.errno(), format!("{name}: {error}")))
}

fn answer(
    request: Request,
    cache: &Zswap,
    writer: &Writer,
    wants: &Sender<Event>,
) -> ControlFlow<Reply, Reply> {
    match request {
        Request::Set { name, value } => ControlFlow::Continue(set(cache, writer, &name, &value)),
        Request::Swapoff => {
            let (reply, outcome) = mpsc::channel();
            let gone = || Err((libc::EIO, "the server is ending".to_owned()));
            if wants.send(Event::Swapoff(reply)).is_err() {
                return ControlFlow::Break(gone());
            }
            match outcome.recv().unwrap_or_else(|_| gone()) {
                Ok(()) => ControlFlow::Break(Ok(())),
                failed => ControlFlow::Continue(failed),
            }
        }
    }
}

/// The number of slots, and the device behind them.
fn backing(plan: &Plan) -> Result<(u32, Option<Arc<dyn SwapDevice>>), Failure> {
    let page = PAGE_SIZE as u64;
    let slots = |pages: u64| {
        u32::try_from(pages)
            .map_err(|_| Failure::job("--size", format!("{pages} pages are more than a swap area can have")))
    };
    let Some(path) = &plan.backing else {
        let default = zswap::system_ram_bytes() / DEFAULT_RAM_SHARE / page * page;
        return Ok((slots(plan.size.unwrap_or(default) / page)?, None));
    };
    let needed = plan.size.map_or(1, |size| size / page);
    let file = swapfile::File::open(path, needed).map_err(|error| Failure::job(path.display(), error))?;
    let pages = if plan.size.is_some() { needed } else { file.pages() };
    Ok((slots(pages)?, Some(Arc::new(file))))
}

fn refuse_running(name: &str) -> Result<(), Failure> {
    let alive = socket_path(name).exists()
        && matches!(Instance::claim_dead(&root(), name), Ok(None))
        && socket_path(name).exists();
    if alive {
        Err(Failure::job(name, "an instance of this name is running; choose another --name"))
    } else {
        Ok(())
    }
}

/// The kernel's zswap in front of us takes the pages first: they are compressed twice, and our numbers look dead.
fn warn_about_kernel_zswap() {
    let enabled = std::fs::read_to_string("/sys/module/zswap/parameters/enabled");
    if enabled.is_ok_and(|enabled| enabled.starts_with('Y')) {
        eprintln!(
            "uzswap: warning: the kernel's own zswap is enabled and takes pages before they come here; \
             turn it off with: echo N > /sys/module/zswap/parameters/enabled"
        );
    }
}
