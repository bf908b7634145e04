//! Real programs under `uzswap run`, against the same under the kernel's own ways at equal total memory, and against
//! themselves where nothing has to leave.

use crate::duel::{COLUMNS, NOTES, ROUNDS, cells, present, ratios, rounds};
use crate::measure::{Load, measured};
use crate::rival::Rival;
use crate::table::Table;
use crate::{median, ours, redis};

/// A program: its name, the rivals' cap in MiB (it needs up to three times that), and a script.
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

/// Where nothing has to leave.
const FAR: u64 = 4 << 30;

/// Compares with each of `rivals`: the costs where nothing has to leave, and the rest at equal total memory.
pub fn run(rivals: &[Rival]) -> [Table; 2] {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let title = format!("real programs with {} GiB, seconds; {ROUNDS} rounds in turn", FAR >> 30);
    let mut far = Table::new(title, &["program", "alone", "uzswap", "ratio", "each round"]);
    let title = format!("real programs, seconds; {ROUNDS} rounds in turn; load {}", load.trim());
    let columns: Vec<_> = ["program", "against", "cap MiB"].into_iter().chain(COLUMNS).collect();
    let mut table = Table::new(title, &columns);
    table.notes.extend(NOTES.map(str::to_owned));
    let rivals = present(rivals, &mut table.notes);
    let mut far_middles = Vec::new();
    let mut middles: Vec<Vec<f64>> = vec![Vec::new(); rivals.len()];
    let dir = tempfile::tempdir().expect("a directory");
    let client = || redis::client(dir.path());
    let scripts = PROGRAMS.map(|(name, cap, script)| (name, cap, Load::script(script)));
    let redis = Load { words: redis::words(dir.path()), client: Some(&client) };
    for (name, cap, load) in scripts.into_iter().chain([("redis", redis::CAP, redis)]) {
        let Some((expected, row, middle)) = without_pressure(name, &load) else {
            far.push(vec![name.to_owned(), "does not run here".to_owned()]);
            continue;
        };
        far.push(row);
        far_middles.push(middle);
        for (rival, middles) in rivals.iter().zip(&mut middles) {
            let mut row = vec![name.to_owned(), rival.to_string(), cap.to_string()];
            let rounds = rounds(rival, cap << 20, &load);
            for round in &rounds {
                assert_eq!(round.theirs.ran.text, expected, "{name}: another result under {rival}");
                assert_eq!(round.own.ran.text, expected, "{name}: another result");
            }
            row.extend(cells(&rounds, 2, |ran| ran.seconds));
            if !rounds.is_empty() {
                middles.push(median(ratios(&rounds, |ran| ran.seconds)).0);
            }
            table.push(row);
        }
    }
    let mean = |figures: &[f64]| (figures.iter().map(|it| it.ln()).sum::<f64>() / figures.len() as f64).exp();
    if !far_middles.is_empty() {
        far.notes.push(format!("geometric mean of the ratios: {:.3} (goal 1.01)", mean(&far_middles)));
    }
    for (rival, middles) in rivals.iter().zip(&middles).filter(|(_, middles)| !middles.is_empty()) {
        let (count, mean) = (middles.len(), mean(middles));
        table.notes.push(format!("geometric mean of the ratios to {rival}, {count} programs: {mean:.2}"));
    }
    [far, table]
}

/// A program alone and with room under `uzswap run`: its result, the row, and the middle of the ratios. `None`: it does not
/// run here.
fn without_pressure(name: &str, load: &Load<'_>) -> Option<(String, Vec<String>, f64)> {
    let (mut alone, mut with_room, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut expected = None;
    for _ in 0..ROUNDS {
        let ran = measured(&mut load.command(), None, load.client, |_| 0)?;
        let own = ours::run(FAR, None, load)?;
        assert_eq!(own.ran.text, ran.text, "{name}: another result");
        alone.push(ran.seconds);
        with_room.push(own.ran.seconds);
        ratios.push(own.ran.seconds / ran.seconds);
        expected = Some(ran.text);
    }
    let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
    let middle = median(ratios).0;
    let row = vec![
        name.to_owned(),
        format!("{:.2}", median(alone).0),
        format!("{:.2}", median(with_room).0),
        format!("{middle:.3}"),
        each.join(" "),
    ];
    Some((expected?, row, middle))
}
