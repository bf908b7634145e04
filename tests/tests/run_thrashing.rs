//! Many processes at once, each of which wants more memory than it can have: they bring pages in by turns, nobody waits for ever, and
//! everybody reads what it wrote.

use tests::instance::Uzswap;
use tests::under;

/// Processes, each with 40 MiB of its own that compress to a quarter and are touched at random.
const MEMORY: &str = "
import os, random, sys
def fill(number):
    random.seed(number)
    data = bytearray(10000 * 4096)
    for at in range(0, len(data), 4096): data[at:at + 1024] = random.randbytes(1024)
    return data
def touch(data):
    at = random.randrange(10000) * 4096 + random.randrange(1024)
    data[at] = (data[at] + 1) % 256
    return data[at]
def all_of(processes, work):
    ends, ids = [], []
    for number in range(processes):
        end, other = os.pipe()
        if os.fork() == 0:
            os.write(other, work(number).encode())
            os._exit(0)
        os.close(other)
        ends.append(end)
    print([os.read(end, 100) for end in ends])
    for _ in ends: assert os.wait()[1] == 0
";

/// Runs it alone and under a cap, where it takes turns and prints the same.
fn same_by_turns(name: &str, script: &str) {
    if !under::possible(name) {
        return;
    }
    let script = format!("{MEMORY}{script}");
    let command = ["python3", "-c", &script];
    let expected = under::alone(&command);
    assert!(expected.status.success(), "{expected:?}");
    let cap = 48 * std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let done = under::run(&Uzswap::of_this_tree(), &format!("{cap}M"), &[], &command);
    assert_eq!(done.text(), String::from_utf8_lossy(&expected.stdout), "{:?}", done.output);
    assert_eq!(done.number("lost_pages"), 0);
    // They fill three times as much as fast as they can, all at once, and are to be found before that is done.
    let peak = done.number("peak_total_bytes") as f64 / (cap << 20) as f64;
    println!("peak {peak:.3} of the cap");
    assert!(peak < 2.5, "{}", done.stats);
    assert!(done.number("turns_waited_for") > 0, "{}", done.stats);
}

#[test]
fn more_processes_than_cpus_take_turns() {
    let script = "
def work(number):
    data = fill(number)
    total = sum(touch(data) for _ in range(60000))
    return '%d %d' % (total, sum(data))
all_of(3 * len(os.sched_getaffinity(0)), work)
";
    same_by_turns("more_processes_than_cpus_take_turns", script);
}

/// Who has a turn waits for somebody who has none, all the time.
#[test]
fn processes_that_wait_for_each_other_go_on() {
    let script = "
count = 3 * len(os.sched_getaffinity(0))
pipes = [os.pipe() for _ in range(count)]
def work(number):
    data, total = fill(number), 0
    if number % 2 == 0: os.write(pipes[number][1], b't')
    for _ in range(300):
        os.read(pipes[number][0], 1)
        total += sum(touch(data) for _ in range(10))
        os.write(pipes[(number + 1) % count][1], b't')
    return '%d %d' % (total, sum(data))
all_of(count, work)
";
    same_by_turns("processes_that_wait_for_each_other_go_on", script);
}

/// As before, but who waits does so in a loop, and looks like one that works.
#[test]
fn processes_that_meet_in_loops_go_on() {
    let script = "
import mmap
count = 3 * len(os.sched_getaffinity(0))
meeting = memoryview(mmap.mmap(-1, 8 * count)).cast('Q')
def work(number):
    data, total = fill(number), 0
    for times in range(1, 101):
        total += sum(touch(data) for _ in range(300))
        meeting[number] = times
        while min(meeting) < times: pass
    return '%d %d' % (total, sum(data))
all_of(count, work)
";
    same_by_turns("processes_that_meet_in_loops_go_on", script);
}
