//! Every measurement works: a quick run of all of them. What it measures means nothing.

use std::fs;
use std::process::Command;

use tests::machine::Machine;
use tests::need;

#[test]
fn a_quick_run_of_every_measurement() {
    let out = tempfile::tempdir().expect("a directory");
    let before = Machine::now(out.path());
    let mut compare = Command::new(env!("CARGO_BIN_EXE_compare"));
    let output = compare.args(["--quick", "all", "--out"]).arg(out.path()).output().expect("it starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));

    let report = fs::read_to_string(out.path().join("BENCHMARKS.md")).expect("it was written");
    for section in [
        "Compressors",
        "The engine",
        "Eviction policies",
        "The swap device",
        "uzswap run",
        "A parallel build",
    ] {
        assert!(report.contains(&format!("\n## {section}")), "{section}: {report}");
    }
    let plot = fs::read_to_string(out.path().join("docs/plots/codecs.svg")).expect("it was drawn");
    assert!(plot.starts_with("<svg") && plot.contains("lz4") && plot.trim_end().ends_with("</svg>"));
    fs::remove_dir_all(out.path()).expect("it is ours");
    before.assert_restored(out.path());
    for line in printed.lines() {
        if let Some((what, reason)) = line.strip_prefix("SKIP ").and_then(|skipped| skipped.split_once(": "))
        {
            need::skip(&format!("a_quick_run_of_every_measurement: {what}"), reason);
        }
    }
}
