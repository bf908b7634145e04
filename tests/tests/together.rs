//! Commands that meet each other, and the processes of a server that do not all die at once.

use std::process::Output;

use tests::hog::{ANSWER, assert_right, small};
use tests::instance::{COMMAND, DRAIN, Instance, Uzswap, ended};
use tests::machine::Machine;
use tests::need;
use tests::storage::done;

/// Runs the command with each of these arguments, all at the same time.
fn at_once(uzswap: &Uzswap, lines: &[&[&str]]) -> Vec<Output> {
    std::thread::scope(|scope| {
        let run = |args| scope.spawn(move || ended(&mut uzswap.command(args), DRAIN).expect("it ends"));
        let threads: Vec<_> = lines.iter().map(|args| run(args)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

#[test]
fn one_of_many_gets_the_name() {
    if !need::swap("one_of_many_gets_the_name") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let swapon: &[&str] = &["swapon", "--size", "16M", "--name", "same"];
    for _ in 0..5 {
        let outputs = at_once(&uzswap, &[swapon; 4]);
        let (on, off): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
        assert_eq!(on.len(), 1, "{outputs:?}");
        assert!(off.iter().all(|output| output.status.code() == Some(1)), "{off:?}");
        let device = String::from_utf8_lossy(&on[0].stdout);
        assert_eq!(uzswap.status("same").expect("status")["device"], device.trim_end());
        uzswap.done(&["swapoff", "same"], DRAIN).expect("swapoff");
        before.assert_restored(uzswap.run_dir());
    }
    // Different names do not disturb each other.
    let lines: [&[&str]; 3] = [
        &["swapon", "--size", "16M", "--name", "a"],
        &["swapon", "--size", "16M", "--name", "b"],
        &["swapon", "--size", "16M", "--name", "c"],
    ];
    let outputs = at_once(&uzswap, &lines);
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    uzswap.done(&["swapoff", "--all"], DRAIN).expect("swapoff");
    before.assert_restored(uzswap.run_dir());
}

#[test]
fn all_who_turn_it_off_hear_that_it_is_off() {
    if !need::swap("all_who_turn_it_off_hear_that_it_is_off") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    for _ in 0..3 {
        let mut instance = Instance::start(&uzswap, "off", &["--size", "128M"]).expect("swapon");
        let mut hog = small();
        hog.set_limit(128).expect("a higher limit");
        let device = instance.device().to_str().expect("ASCII").to_owned();
        let outputs = at_once(
            &uzswap,
            &[&["swapoff", "off"], &["swapoff", &device], &["swapoff", "--all"], &["status", "--json"]],
        );
        // One that comes when all is over hears that there is none, and all means none is left.
        for output in &outputs[..2] {
            let said = String::from_utf8_lossy(&output.stderr);
            let late = said.contains("no such instance") || said.contains("no instance serves");
            assert!(output.status.success() || late, "{output:?}");
        }
        assert!(outputs[2].status.success() && outputs[3].status.success(), "{outputs:?}");
        assert!(instance.exit(ANSWER).expect("the server ends").success());
        assert_right(&hog.ask("check", ANSWER));
        drop(hog);
        before.assert_restored(uzswap.run_dir());
    }
}

/// The small process that turns the area off for the server may be killed like any other. No page goes with it.
#[test]
fn without_the_process_that_turns_it_off() {
    if !need::swap("without_the_process_that_turns_it_off") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let mut instance = Instance::start(&uzswap, "orphan", &["--size", "128M"]).expect("swapon");
    let device = instance.device().to_str().expect("ASCII").to_owned();
    let mut hog = small();
    let (turns_off, _) = instance.swapoff_processes().expect("the server lives");
    done(&["kill", "-KILL", &turns_off.to_string()]);
    for _ in 0..2 {
        let output = ended(&mut uzswap.command(&["swapoff", "orphan"]), COMMAND).expect("it ends");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stderr.starts_with(b"uzswap: "), "{output:?}");
    }
    assert_right(&hog.ask("churn", ANSWER));
    hog.set_limit(128).expect("a higher limit");
    done(&["swapoff", &device]);
    uzswap.done(&["swapoff", "orphan"], DRAIN).expect("what is left goes");
    assert!(instance.exit(ANSWER).expect("the server ends").success());
    assert_right(&hog.ask("check", ANSWER));
    before.assert_restored(uzswap.run_dir());
}
