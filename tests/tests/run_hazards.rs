//! `uzswap run` and what makes paging hard: each case is a program that checks every byte of its own memory, under a cap of
//! less than it uses. What the cases do is in `src/bin/hazards.rs`.

use tests::instance::Uzswap;
use tests::under::Under;
use tests::{programs, under};

/// Runs a case, and makes sure that pages were really out.
fn case(name: &str) {
    let Some(done) = right(name, &[], &[name]) else { return };
    if ["runs", "blocks"].contains(&name) {
        assert!(done.number("prefetched_pages") > 10_000, "{} with others", done.number("prefetched_pages"));
    }
}

/// Runs a case with a swap file of `size`, and makes sure that pages were there.
fn with_swap_file(test: &str, size: &str, more: &[&str], case: &[&str]) {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let swap = format!("{},size={size}", dir.path().join("swap").display());
    let Some(done) = right(test, &[&["--swap", &swap], more].concat(), case) else { return };
    let writes = done.number("device_writes") + done.number("written_back_pages");
    assert!(writes > 500, "{writes} pages were in the swap file");
}

/// Runs a case, with more arguments for `run`, and makes sure that pages were really out. `None` where that cannot be.
fn right(test: &str, more: &[&str], case: &[&str]) -> Option<Under> {
    if !under::possible(test) {
        return None;
    }
    let uzswap = Uzswap::of_this_tree();
    let program = programs::sibling("hazards");
    let command = [&[program.to_str().expect("a name")], case].concat();
    let done = under::run(&uzswap, "64M", more, &command);
    assert!(done.output.status.success(), "{:?}", done.output);
    // What comes before is of parts that this machine cannot do.
    let text = done.text();
    let Some(skipped) = text.strip_suffix(&format!("{} right\n", case[0])) else { panic!("{text}") };
    print!("{skipped}");
    assert!(skipped.lines().all(|line| line.starts_with("SKIP ")), "{text}");
    assert!(done.number("evicted_pages") > 2000, "{} pages were out", done.number("evicted_pages"));
    assert!(done.number("restored_pages") > 500, "{} pages came back", done.number("restored_pages"));
    assert_eq!(done.number("lost_pages"), 0);
    assert_eq!(
        std::fs::read_dir(uzswap.run_dir()).expect("the run directory").count(),
        0,
        "something was left"
    );
    Some(done)
}

macro_rules! cases {
    ($($test:ident $name:literal,)+) => { $( #[test] fn $test() { case($name); } )+ };
}

cases! {
    threads_that_read_write_give_up_unmap_and_protect "churn",
    processes_that_are_stopped_and_killed_while_all_want_memory "crowd",
    threads_that_read_on_where_others_give_up_and_move "runs",
    threads_that_read_backwards_where_others_give_up_and_move "blocks",
    system_calls_on_buffers_that_are_out "calls",
    direct_reads_into_pages_on_their_way_out "direct",
    fixed_buffers_of_io_uring "fixed",
    content_given_up_is_gone "given-up",
    moved_grown_and_shrunk_memory "moved",
    memory_that_moves_to_where_other_has_just_left "chase",
    threads_whose_memory_moves_to_wherever_there_is_room "jostle",
    locked_and_shared_memory_is_left_alone "kept",
    signals_on_a_stack_that_is_out "signals",
    thousands_of_mappings "mappings",
    far_more_mapped_than_touched "sparse",
    children_and_grandchildren "forks",
    many_short_children "bomb",
    a_child_that_outlives_its_parents_copy "daemon",
    memory_that_a_child_finds_empty "wiped",
    memory_that_could_not_be_written_for_a_while "thawed",
    a_program_that_restricts_itself "sandboxed",
    a_thread_that_ends_is_joined "joined",
    memory_that_was_a_guard_is_empty "guarded",
    the_agent_has_no_rights "rights",
    another_user_namespace "apart",
    holes_that_a_child_fills "holes",
    memory_that_an_orphan_finds_empty "orphaned",
    shared_segments_in_the_place_of_memory "attached",
    arguments_that_others_look_at "arguments",
    a_program_that_ends_thread_by_thread "over",
}

/// Slots that are used up, and pages that find no place while their memory is forked and moved.
#[test]
fn children_where_nothing_fits_any_more() {
    let small = ["-o", "max_pool_bytes=4194304"];
    with_swap_file("children_where_nothing_fits_any_more", "8M", &small, &["forks", "random"]);
}

#[test]
fn moved_memory_in_a_swap_file() {
    with_swap_file("moved_memory_in_a_swap_file", "512M", &[], &["moved", "random"]);
}

/// Blocks and runs of pages of which some are in the pool and some in the file.
#[test]
fn pages_that_come_together_from_two_places() {
    for case in ["runs", "blocks"] {
        let small = ["-o", "max_pool_bytes=4194304"];
        with_swap_file("pages_that_come_together_from_two_places", "512M", &small, &[case]);
    }
}

/// Without a swap file nothing has a place that does not compress: it goes back, and the program on above its cap.
#[test]
fn what_does_not_compress_and_moves() {
    let _ = right("what_does_not_compress_and_moves", &[], &["churn", "random"]);
}

/// Runs a case, and looks at how much it took.
fn within_its_cap(test: &str, case: &str) {
    let Some(done) = right(test, &[], &[case]) else { return };
    let peak = done.number("peak_total_bytes");
    assert!(peak < 80 << 20, "{peak} bytes under a cap of 64 MiB");
}

#[test]
fn memory_that_may_be_executed() {
    within_its_cap("memory_that_may_be_executed", "code");
}

#[test]
fn terabytes_of_which_little_is_used() {
    within_its_cap("terabytes_of_which_little_is_used", "reserved");
}

/// There is no memory any more by the number of such a process.
#[test]
fn a_program_whose_first_thread_has_ended() {
    within_its_cap("a_program_whose_first_thread_has_ended", "headless");
}

/// The pager forgets what it knew of pages that are no more.
#[test]
fn memory_given_up_and_taken_again_for_long() {
    let Some(done) = right("memory_given_up_and_taken_again_for_long", &[], &["again"]) else { return };
    // Eight bytes for each of 600 000 pages that were, with what else there is.
    let metadata = done.number("metadata_bytes");
    assert!(metadata < 2 << 20, "{metadata} bytes of metadata for a program that has nothing any more");
}
