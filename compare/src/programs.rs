//! Real programs under `uzswap run`, against the same under the kernel's zswap at equal total memory, and against themselves
//! where nothing has to leave.

use std::process::Command;

use crate::figures::geometric_mean;
use crate::report::Report;
use crate::run::{Kernel, missing, ours, timed};
use crate::{Scale, median};

const ROUNDS: usize = 3;
/// The only one of a quick run.
const QUICK: &str = "sqlite";

/// A program: its name, the kernel's cap in MiB (it needs up to three times that), and a script.
const PROGRAMS: [(&str, u64, &str); 5] = [
    (
        "python",
        72,
        "exec python3 -c '
import json, random
random.seed(7)
rows = [{\"id\": i, \"name\": \"name %d\" % i, \"tags\": [str(random.random())[:6] for _ in range(4)]} for i in range(150000)]
total = 0
for _ in range(8): total += sum(len(row[\"name\"]) + len(row[\"tags\"][1]) for row in rows)
print(total, len(json.dumps(rows)))'",
    ),
    (
        "sqlite",
        40,
        "exec sqlite3 -cmd 'pragma cache_size=-400000; pragma temp_store=memory;' :memory: \"
create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 700000)
  insert into t select i, 'row ' || i || ' of many, with some text', i * 1.5 from n;
create index x on t(b); select count(*), sum(c) from t where b like '%99%';
select count(*) from t u join t v on v.a = u.a * 7 % 700000 + 1; select b from t order by c desc limit 3;\"",
    ),
    (
        "java",
        112,
        "d=$(mktemp -d) && trap 'rm -rf $d' EXIT && cat > $d/Sums.java <<'END'
import java.util.*;
public class Sums { public static void main(String[] x) {
  var m = new HashMap<Integer, String>(); long s = 0; var r = new Random(5);
  for (int i = 0; i < 600000; i++) m.put(i, \"value \" + i);
  for (int k = 0; k < 3000000; k++) s += m.get((int) Math.abs(r.nextGaussian() * 100000) % 600000).length();
  System.out.println(s); } }
END
java -Xmx256m -XX:+UseSerialGC $d/Sums.java",
    ),
    (
        "node",
        128,
        "exec node -e 'const m = new Map(); for (let i = 0; i < 700000; i++) m.set(\"key\" + i, {a: i, b: \"v\" + i * 3});
let s = 0; for (let k = 0; k < 4; k++) for (const [a, b] of m) s += b.a + b.b.length; console.log(s);'",
    ),
    (
        "a C build",
        64,
        "d=$(mktemp -d) && trap 'rm -rf $d' EXIT && cd $d && for k in 1 2 3 4; do for i in $(seq 700); do
echo \"int f$i(int a, int b) { int s = $i; for (int i = 0; i < a; i++) s += (i * b) ^ s >> 3; return s * f0_$k(b); }\"; done |
sed \"1i int f0_$k(int);\" > m$k.c; done
gcc -O2 -c m1.c & gcc -O2 -c m2.c & wait; gcc -O2 -c m3.c & gcc -O2 -c m4.c & wait; cat *.o | md5sum",
    ),
];

/// Measures all of them.
pub fn run(report: &mut Report, scale: Scale) {
    report.section("uzswap run, real programs");
    if let Some(reason) = missing() {
        return report.skip("programs", reason);
    }
    let rounds = scale.of(ROUNDS, 1);
    report.say(format!(
        "{rounds} rounds in turn; seconds; load {}",
        std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()
    ));
    report.table(&[
        "program",
        "alone s",
        "kernel s",
        "uzswap s",
        "ratio",
        "each round",
        "far",
        "peak of ours / cap",
    ]);
    let mut middles = Vec::new();
    let mut far_middles = Vec::new();
    for (name, cap, script) in PROGRAMS {
        if scale == Scale::Quick && name != QUICK {
            continue;
        }
        let words = ["-c".to_owned(), script.to_owned()];
        let (mut alone, mut theirs, mut own, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut far, mut peaks) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (expected, seconds, _) = timed(Command::new("sh").args(&words), || 0);
            alone.push(seconds);
            let (text, with_room, _) = ours(4 << 30, "/bin/sh".as_ref(), &words);
            assert_eq!(text, expected, "{name}: another result");
            far.push(with_room / seconds);
            let kernel = Kernel::start("lzo");
            let (text, kernel_seconds, pool) = kernel.run(cap << 20, Command::new("sh").args(&words));
            drop(kernel);
            if text.is_empty() {
                // The kernel killed it for want of memory.
                continue;
            }
            assert_eq!(text, expected, "{name}: another result under the kernel's zswap");
            let (text, our_seconds, peak) = ours((cap << 20) + pool, "/bin/sh".as_ref(), &words);
            assert_eq!(text, expected, "{name}: another result");
            theirs.push(kernel_seconds);
            own.push(our_seconds);
            ratios.push(our_seconds / kernel_seconds);
            peaks.push(peak);
        }
        far_middles.push(median(far.clone()).0);
        if ratios.is_empty() {
            let (alone, far) = (format!("{:.2}", median(alone).0), format!("{:.3}", median(far).0));
            let none = || "-".to_owned();
            let why = "no round ended for both".to_owned();
            report.row([name.to_owned(), alone, none(), none(), none(), why, far, none()]);
            continue;
        }
        let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        middles.push(median(ratios.clone()).0);
        report.row([
            name.to_owned(),
            format!("{:.2}", median(alone).0),
            format!("{:.2}", median(theirs).0),
            format!("{:.2}", median(own).0),
            format!("{:.2}", median(ratios).0),
            each.join(" "),
            format!("{:.3}", median(far).0),
            format!("{:.3}", median(peaks).2),
        ]);
    }
    report.bars("programs", &["alone s", "kernel s", "uzswap s"]);
    report.say(format!(
        "Geometric mean: {:.2} of the kernel's time (goal 0.80); {:.3} of the time alone where nothing leaves (goal 1.01).",
        geometric_mean(middles),
        geometric_mean(far_middles)
    ));
}
