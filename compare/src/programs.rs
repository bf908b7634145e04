//! Real programs under `uzswap run`, against the same under the kernel's own ways at equal total memory, and against
//! themselves where nothing has to leave.

mod redis;

use crate::Scale;
use crate::duel::{self, Contest, Figure, MEAN};
use crate::figures::{geometric_mean, median};
use crate::measure::{Load, measured, unlimited};
use crate::ours;
use crate::proc::charged;
use crate::report::Report;
use crate::rival::Rival;

/// A program: its name, and a script.
type Script = (&'static str, &'static str);

/// A runtime that makes itself smaller where its memory cgroup has a limit is told what that would come to: the rivals' group has
/// one and ours has none, and both sides are to run the same program.
const SCRIPTS: [Script; 5] = [
    (
        "python",
        "exec python3 -c '
import json, random
random.seed(7)
rows = [{\"id\": i, \"name\": \"name %d\" % i, \"tags\": [str(random.random())[:6] for _ in range(4)]} for i in range(150000)]
total = 0
for _ in range(8): total += sum(len(row[\"name\"]) + len(row[\"tags\"][1]) for row in rows)
print(total, len(json.dumps(rows)))'",
    ),
    ("sqlite", SQLITE),
    (
        "java",
        "d=$(mktemp -d) && trap 'rm -rf $d' EXIT && cat > $d/Sums.java <<'END'
import java.util.*;
public class Sums { public static void main(String[] x) {
  var m = new HashMap<Integer, String>(); long s = 0; var r = new Random(5);
  for (int i = 0; i < 600000; i++) m.put(i, \"value \" + i);
  for (int k = 0; k < 3000000; k++) s += m.get((int) Math.abs(r.nextGaussian() * 100000) % 600000).length();
  System.out.println(s); } }
END
java -XX:MaxRAM=128m -Xmx256m -XX:+UseSerialGC $d/Sums.java",
    ),
    (
        "node",
        "exec node --max-old-space-size=256 --max-semi-space-size=1 -e 'const m = new Map(); for (let i = 0; i < 700000; i++) m.set(\"key\" + i, {a: i, b: \"v\" + i * 3});
let s = 0; for (let k = 0; k < 4; k++) for (const [a, b] of m) s += b.a + b.b.length; console.log(s);'",
    ),
    (
        "a C build",
        "d=$(mktemp -d) && trap 'rm -rf $d' EXIT && cd $d && for k in 1 2 3 4; do for i in $(seq 700); do
echo \"int f$i(int a, int b) { int s = $i; for (int i = 0; i < a; i++) s += (i * b) ^ s >> 3; return s * f0_$k(b); }\"; done |
sed \"1i int f0_$k(int);\" > m$k.c; done
gcc -O2 -c m1.c & gcc -O2 -c m2.c & wait; gcc -O2 -c m3.c & gcc -O2 -c m4.c & wait; cat *.o | md5sum",
    ),
];

/// That of a quick run, with redis.
const QUICK_SCRIPTS: [Script; 1] = [("sqlite", SQLITE)];

/// COUNT stands for a number of rows.
const SQLITE: &str = "exec sqlite3 -cmd 'pragma cache_size=-400000; pragma temp_store=memory;' :memory: \"
create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < COUNT)
  insert into t select i, 'row ' || i || ' of many, with some text', i * 1.5 from n;
create index x on t(b); select count(*), sum(c) from t where b like '%99%';
select count(*) from t u join t v on v.a = u.a * 7 % COUNT + 1; select b from t order by c desc limit 3;\"";
const ROWS: &str = "700000";
const QUICK_ROWS: &str = "150000";

const MIB: u64 = 1 << 20;

/// Where nothing has to leave.
const FAR: u64 = 4096 * MIB;
/// Rounds there. What is to be seen is a hundredth, and the same program alone takes a tenth more or less from one time to the next.
const FAR_ROUNDS: usize = 7;
/// A rival is given the memory that the program takes alone, divided by this.
const RIVALS_SHARE: u64 = 2;

const FIGURE: Figure = Figure { unit: "s", digits: 2, of: |ran| ran.seconds };

const REDIS: &str = "redis";

/// The programs there are.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCRIPTS.iter().map(|(name, _)| *name).chain([REDIS])
}

/// The most that is wanted of the rival's time.
fn goal(program: &str) -> &'static str {
    if program == MEAN { "0.80" } else { "1.05" }
}

/// Compares with each of `rivals`: the costs where nothing has to leave, and the rest at equal total memory. `only`: the names of
/// programs; none: all.
pub fn run(report: &mut Report, rivals: &[Rival], only: &[String], scale: Scale) {
    report.section("uzswap run, real programs");
    let rivals = duel::present(report, "programs", rivals);
    if rivals.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let work = scale.of(redis::FULL, redis::QUICK);
    let client = || redis::client(dir.path(), &work);
    let redis = Load { words: redis::words(dir.path()), client: Some(&client) };
    let scripts = scale
        .of(&SCRIPTS[..], &QUICK_SCRIPTS)
        .iter()
        .map(|&(name, script)| (name, Load::script(&script.replace("COUNT", scale.of(ROWS, QUICK_ROWS)))));
    let all = scripts.chain([(REDIS, redis)]);
    let all = all.filter(|(name, _)| only.is_empty() || only.iter().any(|only| only == name));

    let rounds = scale.of(FAR_ROUNDS, 1);
    report.say(format!(
        "With {} MiB, where nothing has to leave; {rounds} rounds, each begun by the other side. What a program takes: the most that the kernel charged \
         to its group when it ran alone.",
        FAR / MIB
    ));
    report.table(&["program", "takes MiB", "alone s", "uzswap s", "ratio", "each round"]);
    let (mut contests, mut middles, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for (name, load) in all {
        if let Some(Roomy { prints, takes, middle }) = without_pressure(report, name, &load, rounds) {
            middles.push(middle);
            let cap = takes / RIVALS_SHARE / MIB * MIB;
            contests.push(Contest { name: name.to_owned(), load, cap, prints: Some(prints) });
        } else {
            missing.push(name);
        }
    }
    for name in missing {
        report.skip(&format!("programs, {name}"), "it does not run here");
    }
    if contests.is_empty() {
        return;
    }
    report.say(format!("Geometric mean of the ratios: {:.3} (goal 1.01).", geometric_mean(middles)));

    let mut ratios = duel::compare(report, "program", &rivals, &contests, &FIGURE, scale);
    ratios.push_means();
    ratios.show(report, "programs", goal);
}

/// How a program ran where nothing had to leave.
struct Roomy {
    prints: String,
    /// Bytes that were charged to its group when it ran alone.
    takes: u64,
    /// The middle of the ratios.
    middle: f64,
}

/// Runs a program alone and with room under `uzswap run`. `None`: it does not run here.
fn without_pressure(report: &mut Report, name: &str, load: &Load<'_>, rounds: usize) -> Option<Roomy> {
    let (mut alone, mut with_room, mut ratios, mut takes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut prints = None;
    let run_alone = || {
        let group = unlimited();
        measured(&mut load.command(), &group, load.client, |_| charged(&group))
    };
    let run_ours = || ours::timed(FAR, load).unwrap_or_else(|| panic!("{name} does not end with room"));
    for round in 0..rounds {
        // Who comes second finds what the first left: files that were read, memory that was used.
        let (ran, own) = if round % 2 == 0 {
            let ran = run_alone()?;
            (ran, run_ours())
        } else {
            let own = run_ours();
            (run_alone()?, own)
        };
        assert_eq!(own.text, ran.text, "{name}: another result");
        takes.push(ran.peak as f64);
        alone.push(ran.seconds);
        with_room.push(own.seconds);
        ratios.push(own.seconds / ran.seconds);
        prints = Some(ran.text);
    }
    let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
    let (middle, takes) = (median(ratios).0, median(takes).0 as u64);
    report.row([
        name.to_owned(),
        (takes / MIB).to_string(),
        format!("{:.2}", median(alone).0),
        format!("{:.2}", median(with_room).0),
        format!("{middle:.3}"),
        each.join(" "),
    ]);
    Some(Roomy { prints: prints?, takes, middle })
}
