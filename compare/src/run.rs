//! The touching program under `uzswap run` and under the kernel's own ways, in turn, at equal total memory.

use std::fs;

use crate::duel::{COLUMNS, NOTES, ROUNDS, cells, present, rounds};
use crate::measure::Load;
use crate::rival::Rival;
use crate::table::Table;
use crate::trace::ORDERS;

/// Working set and the rivals' cap, in MiB.
const WORKING_SET: u64 = 256;
const CAP: u64 = 96;

/// Compares with each of `rivals` on the pages in one file.
pub fn run(file: &str, rivals: &[Rival]) -> Table {
    let this = std::env::current_exe().expect("we run");
    // In the page cache, charged to us and not to the program.
    let _ = fs::read(file).expect("the file of pages can be read");
    let title = format!(
        "uzswap run, ns a touch: working set {WORKING_SET} MiB, rivals' cap {CAP} MiB + pool and files = ours; {ROUNDS} rounds in turn; load {}",
        fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()
    );
    let columns: Vec<_> = ["order", "against"].into_iter().chain(COLUMNS).collect();
    let mut table = Table::new(title, &columns);
    table.notes.extend(NOTES.map(str::to_owned));
    let rivals = present(rivals, &mut table.notes);
    for order in ORDERS.into_iter().chain(["first-touch"]) {
        let touches = if order == "sequential" { 200_000 } else { 400_000 };
        let words = ["touch", order, &WORKING_SET.to_string(), &touches.to_string(), file].map(str::to_owned);
        let program = this.to_str().expect("the path is text").to_owned();
        let load = Load { words: [program].into_iter().chain(words).collect(), client: None };
        for rival in &rivals {
            let mut row = vec![order.to_owned(), rival.to_string()];
            row.extend(cells(&rounds(rival, CAP << 20, &load), 0, |ran| {
                ran.text.split(' ').next().and_then(|number| number.parse().ok()).expect("it prints that")
            }));
            table.push(row);
        }
    }
    table
}
