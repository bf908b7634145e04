//! `status` and `get`: what instances hold, read from their control blocks without asking them.

use control::{Block, Fact};
use serde_json::{Map, Value, json};
use zswap::{Counter, PAGE_SIZE, Param};

use crate::failure::Failure;
use crate::size::show;
use crate::steer::{block_path, check, root};

/// A limit of so many times the RAM is none.
const NO_LIMIT: u64 = 1024;

/// `uzswap status`.
pub fn run(name: Option<&str>, as_json: bool) -> Result<(), Failure> {
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => all()?,
    };
    let mut blocks = Vec::new();
    for it in names {
        match open(&it) {
            Ok(block) => blocks.push((it, block)),
            Err(failure) if name.is_some() => return Err(failure),
            // One that is just coming or going, or dead.
            Err(failure) => eprintln!("uzswap: {}", failure.text()),
        }
    }
    if as_json {
        let mut all: Vec<_> = blocks.iter().map(|(name, block)| in_json(name, block)).collect();
        let value = match (name, all.pop()) {
            (Some(_), Some(one)) => one,
            (_, last) => {
                all.extend(last);
                Value::Array(all)
            }
        };
        println!("{value:#}");
    } else if blocks.is_empty() {
        println!("no instance is running");
    } else {
        let texts: Vec<_> = blocks.iter().map(|(name, block)| in_text(name, block)).collect();
        print!("{}", texts.join("\n"));
    }
    Ok(())
}

/// Swap devices, dead or alive, and programs that run.
fn all() -> Result<Vec<String>, Failure> {
    let mut names = swapdev::instances(&root()).map_err(Failure::told)?;
    names.extend(crate::run::instances());
    names.sort();
    // A device may have a name like that.
    names.dedup();
    Ok(names)
}

/// `uzswap get`.
pub fn get(name: &str, param: Option<&str>) -> Result<(), Failure> {
    let block = open(name)?;
    match param {
        Some(given) => {
            let param = Param::named(given).map_err(|error| Failure::job(given, error))?;
            match block.fact(Fact::Param(param)).as_str() {
                "" => return Err(Failure::job(given, zswap::ParamError::Unknown)),
                value => println!("{value}"),
            }
        }
        None => {
            for (name, value) in parameters(&block) {
                println!("{name} {value}");
            }
        }
    }
    Ok(())
}

/// The failure of asking for an instance that is not there.
pub fn not_running(name: &str) -> Failure {
    Failure::job(name, "no such instance; uzswap status lists those that run")
}

fn open(name: &str) -> Result<Block, Failure> {
    check(name)?;
    let block = Block::open(&block_path(name)).map_err(|error| match error {
        control::BlockError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => not_running(name),
        error => Failure::job(name, error),
    })?;
    match block.is_alive() {
        Ok(false) => Err(dead(name)),
        // Where the file system has no locks, nobody knows better.
        Ok(true) | Err(_) => Ok(block),
    }
}

/// The instance's server died and left everything behind.
pub fn dead(name: &str) -> Failure {
    Failure::job(name, "its server is dead; run uzswap swapoff --all to clean up")
}

fn parameters(block: &Block) -> impl Iterator<Item = (&'static str, String)> {
    Param::ALL
        .iter()
        .map(|param| (param.name(), block.fact(Fact::Param(*param))))
        .filter(|(_, value)| !value.is_empty())
}

/// What a user asks first, computed from the counters.
struct Summary {
    /// Bytes of the pages in the cache, before compression.
    original: u64,
    /// Bytes of RAM that hold them, metadata included.
    memory: u64,
    /// Bytes of pages that only the backing device holds.
    on_device: u64,
}

impl Summary {
    fn of(block: &Block) -> Summary {
        let get = |counter| block.stats().get(counter);
        Summary {
            original: get(Counter::StoredPages) * PAGE_SIZE as u64,
            memory: get(Counter::PoolTotalSize) + get(Counter::MetadataBytes),
            on_device: get(Counter::DevicePages) * PAGE_SIZE as u64,
        }
    }

    fn saved(&self) -> u64 {
        self.original.saturating_sub(self.memory)
    }

    fn ratio(&self) -> f64 {
        if self.memory == 0 { 0.0 } else { self.original as f64 / self.memory as f64 }
    }
}

fn in_json(name: &str, block: &Block) -> Value {
    let summary = Summary::of(block);
    let mut object = Map::new();
    for (key, fact) in
        [("device", Fact::Device), ("via", Fact::Via), ("backing", Fact::Backing), ("profile", Fact::Profile)]
    {
        object.insert(key.into(), block.fact(fact).into());
    }
    object.insert("name".into(), name.into());
    object.insert(
        "size_bytes".into(),
        (block.fact(Fact::Pages).parse().unwrap_or(0) * PAGE_SIZE as u64).into(),
    );
    for counter in Counter::ALL {
        object.insert(counter.name().into(), block.stats().get(*counter).into());
    }
    for (name, value) in block.own() {
        object.insert(name, value.into());
    }
    let accessed_bits = block.fact(Fact::AccessedBits);
    if !accessed_bits.is_empty() {
        object.insert("accessed_bits".into(), accessed_bits.into());
    }
    for (name, value) in parameters(block) {
        object.insert(name.into(), value.into());
    }
    object.insert("original_bytes".into(), summary.original.into());
    object.insert("memory_bytes".into(), summary.memory.into());
    object.insert("saved_bytes".into(), summary.saved().into());
    object.insert("on_device_bytes".into(), summary.on_device.into());
    object.insert("ratio".into(), json!((summary.ratio() * 1000.0).round() / 1000.0));
    Value::Object(object)
}

fn in_text(name: &str, block: &Block) -> String {
    let get = |counter| block.stats().get(counter);
    let summary = Summary::of(block);
    let limit = get(Counter::PoolLimitBytes);
    let ram = zswap::system_ram_bytes().max(1);
    let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
    let size = block.fact(Fact::Pages).parse::<u64>().unwrap_or(0) * PAGE_SIZE as u64;
    let backing = match block.fact(Fact::Backing) {
        none if none.is_empty() => "no backing".to_owned(),
        path => format!("backing {path}"),
    };
    let device = match block.fact(Fact::Device) {
        none if none.is_empty() => "none, a program's own memory".to_owned(),
        device => format!("{device}, {} of slots", show(size)),
    };
    // A program's pool has none but the cap on everything.
    let of_limit = if limit >= ram.saturating_mul(NO_LIMIT) {
        String::new()
    } else {
        format!(", {:.0} % of the limit of {}", percent(summary.memory, limit), show(limit))
    };
    let facts = [
        ("Device", format!("{device}, by {}, {backing}", block.fact(Fact::Via))),
        (
            "Stored",
            format!(
                "{} in {} pages ({} same-filled, {} incompressible)",
                show(summary.original),
                get(Counter::StoredPages),
                get(Counter::SameFilledPages),
                get(Counter::StoredIncompressiblePages)
            ),
        ),
        (
            "Memory",
            format!(
                "{}: pool {} + metadata {}; {:.1} % of RAM{of_limit}",
                show(summary.memory),
                show(get(Counter::PoolTotalSize)),
                show(get(Counter::MetadataBytes)),
                percent(summary.memory, ram)
            ),
        ),
        (
            "Saved",
            format!(
                "{} of RAM; ratio {:.2} (stored / memory, all overhead counted)",
                show(summary.saved()),
                summary.ratio()
            ),
        ),
        (
            "On disk",
            format!(
                "{}; {} pages written back, {} written straight",
                show(summary.on_device),
                get(Counter::WrittenBackPages),
                get(Counter::DeviceWrites)
            ),
        ),
        (
            "Traffic",
            format!(
                "{} pages out, {} in, {} read from the device",
                get(Counter::Zswpout),
                get(Counter::Zswpin),
                get(Counter::DeviceReads)
            ),
        ),
        ("Refused", refused(block)),
        (
            "Using",
            format!(
                "profile {}, compressor {}",
                block.fact(Fact::Profile),
                block.fact(Fact::Param(Param::Compressor))
            ),
        ),
    ];
    let mut text = format!("{name}\n");
    for (label, line) in facts.into_iter().chain(paging(block).map(|line| ("Paging", line))) {
        text.push_str(&format!("  {label:<8} {line}\n"));
    }
    text
}

/// What became of a program's pages; none of a device, which sees pages come and go and no faults.
fn paging(block: &Block) -> Option<String> {
    let own = block.own();
    let get = |name| own.iter().find(|(it, _)| it == name).map(|(_, value)| *value);
    Some(format!(
        "{} faults, {} pages out, {} back, {} prefetched",
        get("faults")?,
        get("evicted_pages")?,
        get("restored_pages")?,
        get("prefetched_pages")?
    ))
}

/// Every reason that was ever given, with how often.
fn refused(block: &Block) -> String {
    let given: Vec<_> = Counter::ALL
        .iter()
        .filter(|counter| {
            counter.name().starts_with("reject_")
                || matches!(counter, Counter::PoolLimitHit | Counter::SwapOutFail)
        })
        .map(|counter| (counter.name(), block.stats().get(*counter)))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if given.is_empty() { "nothing".to_owned() } else { given.join(", ") }
}
