//! How a server ends: by SIGTERM, which brings every page back, and by SIGKILL, after which nothing hangs and everything is
//! cleaned up.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use tests::hog::{ANSWER, Answer, SWAPPED, assert_right, small};
use tests::instance::{DRAIN, Instance, Uzswap};
use tests::machine::Machine;
use tests::storage::done;
use tests::{need, wait};

const SIZE: [&str; 2] = ["--size", "128M"];

#[test]
fn sigterm_brings_every_page_back() {
    if !need::swap("sigterm_brings_every_page_back") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    for again in [false, true] {
        let mut instance = Instance::start(&uzswap, "term", &SIZE).expect("swapon");
        let mut hog = small();
        assert!(instance.number("stored_pages").expect("status") > SWAPPED);
        hog.tell("run");
        hog.set_limit(128).expect("a higher limit");
        instance.signal(libc::SIGTERM);
        if again {
            // While it drains, and again: it must neither stop nor start over.
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(5));
                instance.signal(libc::SIGTERM);
            }
        }
        assert!(instance.exit(DRAIN).expect("the server ends").success());
        hog.tell("check");
        assert_right(&hog.answer(ANSWER));
        assert_right(&hog.answer(ANSWER));
        before.assert_restored(uzswap.run_dir());
    }
}

/// The kernel may refuse a swapoff, or kill who asks for it, when memory is short. Nobody hears a signal fail, so the server
/// goes on trying.
#[test]
fn sigterm_is_not_forgotten_when_the_drain_fails() {
    if !need::swap("sigterm_is_not_forgotten_when_the_drain_fails") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let mut instance = Instance::start(&uzswap, "refused", &SIZE).expect("swapon");
    let mut hog = small();
    hog.set_limit(128).expect("a higher limit");
    // The one that drains is killed soon after its start, up to three times: a drain that is quick may end before the next.
    instance.signal(libc::SIGTERM);
    let start = std::time::Instant::now();
    let mut killed = 0;
    while killed < 3 && instance.exit(Duration::ZERO).is_err() {
        assert!(start.elapsed() < DRAIN, "tried again only {killed} times, and does not end");
        if let Some((_, Some(draining))) = instance.swapoff_processes() {
            let kill = std::process::Command::new("kill").args(["-KILL", &draining.to_string()]).status();
            killed += u32::from(kill.expect("kill runs").success());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(killed > 0, "no drain was killed");
    assert!(instance.exit(DRAIN).expect("the server ends").success());
    assert_right(&hog.ask("check", ANSWER));
    before.assert_restored(uzswap.run_dir());
}

/// Only SIGKILL takes pages away: neither a closed terminal, nor Ctrl-Z, nor a timer, a limit or a stray kill may do that.
#[test]
fn other_signals_cost_no_page() {
    if !need::swap("other_signals_cost_no_page") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let mut instance = Instance::start(&uzswap, "signals", &SIZE).expect("swapon");
    let mut hog = small();
    assert!(instance.number("stored_pages").expect("status") > SWAPPED);
    hog.tell("run");
    for signal in [
        libc::SIGHUP,
        libc::SIGPIPE,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGXCPU,
        libc::SIGXFSZ,
    ] {
        instance.signal(signal);
    }
    let out = instance.number("zswpout").expect("status");
    let serves = || instance.number("zswpout").is_ok_and(|now| now > out + 1000);
    assert!(wait::until(ANSWER, serves), "the kernel goes on swapping");
    hog.set_limit(128).expect("a higher limit");
    // Ctrl-\ ends it as SIGTERM does; again, should there be no memory for a page at some moment.
    let mut status = None;
    wait::until(DRAIN, || {
        instance.signal(libc::SIGQUIT);
        status = instance.exit(Duration::from_secs(20)).ok();
        status.is_some()
    });
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    hog.tell("check");
    assert_right(&hog.answer(ANSWER));
    assert_right(&hog.answer(ANSWER));
    before.assert_restored(uzswap.run_dir());
}

#[test]
fn a_killed_server_hangs_nobody_and_is_cleaned_up() {
    if !need::swap("a_killed_server_hangs_nobody_and_is_cleaned_up") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    for by_swapoff in [true, false] {
        let mut instance = Instance::start(&uzswap, "killed", &SIZE).expect("swapon");
        let mut hog = small();
        hog.tell("run");
        let swapped = || instance.number("zswpin").is_ok_and(|pages| pages > SWAPPED);
        assert!(wait::until(ANSWER, swapped), "the kernel reads back");
        instance.signal(libc::SIGKILL);
        assert_eq!(instance.exit(ANSWER).expect("it dies").signal(), Some(libc::SIGKILL));
        // Its pages are gone: it must be told so by a signal, not wait and not read zeros.
        assert_eq!(hog.answer(ANSWER), Answer::Gone, "never wrong, never waiting");
        let death = hog.exit(ANSWER).expect("the program ends").signal();
        assert!(matches!(death, Some(libc::SIGBUS | libc::SIGKILL)), "{death:?}");
        drop(hog);
        // Its last numbers are still there, and are not to be taken for those of a live one.
        for args in [&["status", "killed"][..], &["get", "killed"], &["set", "killed", "compressor", "lz4"]] {
            let output = uzswap.call(args).expect("it ends");
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("dead"), "{output:?}");
        }
        assert_eq!(uzswap.done(&["status", "--json"], ANSWER).expect("status"), "[]");
        if by_swapoff {
            uzswap.done(&["swapoff", "--all"], DRAIN).expect("swapoff --all cleans up");
        } else {
            let mut next = Instance::start(&uzswap, "killed", &SIZE).expect("the next swapon cleans up");
            let mut hog = small();
            assert_right(&hog.ask("churn", ANSWER));
            drop(hog);
            uzswap.done(&["swapoff", "killed"], DRAIN).expect("swapoff");
            assert!(next.exit(ANSWER).expect("the server ends").success());
        }
        before.assert_restored(uzswap.run_dir());
    }
}

/// The worst moment: pages are on their way back, by a process of its own that outlives the server.
#[test]
fn a_server_killed_while_it_drains_is_cleaned_up() {
    if !need::swap("a_server_killed_while_it_drains_is_cleaned_up") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    for delay in [0, 1, 5, 20, 60] {
        let mut instance = Instance::start(&uzswap, "drained", &SIZE).expect("swapon");
        let mut hog = small();
        hog.set_limit(128).expect("a higher limit");
        instance.signal(libc::SIGTERM);
        std::thread::sleep(Duration::from_millis(delay));
        instance.signal(libc::SIGKILL);
        instance.exit(ANSWER).expect("it dies");
        // Depending on how far it came, all is there or some pages are gone; those it must be told of.
        let answer = hog.ask("check", ANSWER);
        assert!(matches!(answer, Answer::Right(..) | Answer::Gone), "{answer:?} after {delay} ms");
        drop(hog);
        uzswap.done(&["swapoff", "--all"], DRAIN).expect("swapoff --all cleans up");
        before.assert_restored(uzswap.run_dir());
    }
}

#[test]
fn swapoff_takes_the_device_too_and_says_when_there_is_none() {
    if !need::swap("swapoff_takes_the_device_too_and_says_when_there_is_none") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let device =
        uzswap.done(&["swapon", "--size", "16M", "--name", "back"], DRAIN).expect("to the background");
    assert_eq!(uzswap.status("back").expect("status")["device"], device.as_str());
    let again = uzswap.call(&["swapon", "--size", "16M", "--name", "back"]).expect("it ends");
    assert_eq!(again.status.code(), Some(1), "the name is running");
    assert!(again.stderr.starts_with(b"uzswap: "), "{again:?}");
    uzswap.done(&["swapoff", &device], DRAIN).expect("swapoff by device");
    before.assert_restored(uzswap.run_dir());
    for gone in ["back", device.as_str()] {
        let output = uzswap.call(&["swapoff", gone]).expect("it ends");
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stderr.starts_with(b"uzswap: "), "{output:?}");
    }
}

/// The kernel's own tools work on the device as on any other.
#[test]
fn an_area_that_others_turn_off_and_on() {
    if !need::swap("an_area_that_others_turn_off_and_on") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let mut instance = Instance::start(&uzswap, "others", &SIZE).expect("swapon");
    let device = instance.device().to_str().expect("ASCII").to_owned();
    let mut hog = small();
    hog.set_limit(128).expect("a higher limit");
    done(&["swapoff", &device]);
    assert_right(&hog.ask("check", ANSWER));
    done(&["swapon", "--discard", "--priority", "100", &device]);
    hog.set_limit(16).expect("the lower limit");
    assert_right(&hog.ask("churn", ANSWER));
    hog.set_limit(128).expect("a higher limit");
    done(&["swapoff", &device]);
    uzswap.done(&["swapoff", "others"], DRAIN).expect("what is left goes");
    assert!(instance.exit(ANSWER).expect("the server ends").success());
    assert_right(&hog.ask("check", ANSWER));
    before.assert_restored(uzswap.run_dir());
}
