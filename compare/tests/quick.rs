//! Every measurement works: a quick run of all of them. What it measures means nothing.

use std::fs;
use std::process::Command;

use tests::machine::Machine;
use tests::need;

/// The rival that the goals are set against.
const GOALS: &str = "zswap-lzo";
/// What is to run against it, by section as SKIP names it.
const CONTESTS: [(&str, &[&str]); 2] = [
    ("run", &["sequential", "uniform", "zipfian", "phases", "first-touch"]),
    ("programs", &["sqlite", "redis"]),
];

/// Whether the report says that something of this name is left out.
fn is_skipped(report: &str, what: &str) -> bool {
    report.contains(&format!("\nSKIP {what}: "))
}

/// Each contest has a row, and ended well for both.
fn assert_all_ended(report: &str) {
    for (section, contests) in CONTESTS {
        if is_skipped(report, section) || is_skipped(report, &format!("{section}, {GOALS}")) {
            continue;
        }
        for name in contests.iter().filter(|name| !is_skipped(report, &format!("{section}, {name}"))) {
            let row = report.lines().find(|line| line.starts_with(&format!("| {name} | {GOALS} |")));
            let row = row.unwrap_or_else(|| panic!("{section}: no row of {name}: {report}"));
            assert!(!row.contains("no end"), "{row}");
        }
    }
    let (_, founding) = report.split_once("\n## A parallel build").expect("it was looked for");
    if !is_skipped(founding, "founding") {
        // The head, the line below it, what was published, and ours.
        let rows: Vec<_> = founding.lines().filter(|line| line.starts_with('|')).collect();
        assert!(rows.len() == 4 && !rows[3].contains("no end"), "{rows:#?}");
    }
}

#[test]
fn a_quick_run_of_every_measurement() {
    // Beside the comparison, where it looks for it.
    let _ = tests::programs::uzswap();
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
    assert_all_ended(&report);
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
