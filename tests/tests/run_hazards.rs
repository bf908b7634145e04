//! `uzswap run` and what makes paging hard: each case is a program that checks every byte of its own memory, under a cap of
//! less than it uses. What the cases do is in `src/bin/hazards.rs`.

use tests::instance::Uzswap;
use tests::{programs, under};

/// Runs a case, and makes sure that pages were really out.
fn case(name: &str) {
    if !under::possible(name) {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let program = programs::sibling("hazards");
    let done = under::run(&uzswap, "64M", &[], &[program.to_str().expect("a name"), name]);
    assert!(done.output.status.success(), "{:?}", done.output);
    // What comes before is of parts that this machine cannot do.
    let text = done.text();
    let Some(skipped) = text.strip_suffix(&format!("{name} right\n")) else { panic!("{text}") };
    print!("{skipped}");
    assert!(skipped.lines().all(|line| line.starts_with("SKIP ")), "{text}");
    assert!(done.number("evicted_pages") > 2000, "{} pages were out", done.number("evicted_pages"));
    assert!(done.number("restored_pages") > 500, "{} pages came back", done.number("restored_pages"));
    if ["runs", "blocks"].contains(&name) {
        assert!(done.number("prefetched_pages") > 10_000, "{} with others", done.number("prefetched_pages"));
    }
    assert_eq!(done.number("lost_pages"), 0);
    assert_eq!(
        std::fs::read_dir(uzswap.run_dir()).expect("the run directory").count(),
        0,
        "something was left"
    );
}

macro_rules! cases {
    ($($test:ident $name:literal,)+) => { $( #[test] fn $test() { case($name); } )+ };
}

cases! {
    threads_that_read_write_give_up_unmap_and_protect "churn",
    threads_that_read_on_where_others_give_up_and_move "runs",
    threads_that_read_backwards_where_others_give_up_and_move "blocks",
    system_calls_on_buffers_that_are_out "calls",
    direct_reads_into_pages_on_their_way_out "direct",
    fixed_buffers_of_io_uring "fixed",
    content_given_up_is_gone "given-up",
    moved_grown_and_shrunk_memory "moved",
    locked_and_shared_memory_is_left_alone "kept",
    signals_on_a_stack_that_is_out "signals",
    thousands_of_mappings "mappings",
    far_more_mapped_than_touched "sparse",
    children_and_grandchildren "forks",
    many_short_children "bomb",
    a_child_that_outlives_its_parents_copy "daemon",
}
