//! `uzswap run` with programs that are not ours: the same output as without it, with most of their memory out.

use std::fs;

use tests::instance::Uzswap;
use tests::{need, under};

/// Runs a program both ways. `pages`: at least so many must have been out.
fn same(name: &str, memory: &str, pages: u64, command: &[&str]) {
    if !under::possible(name) {
        return;
    }
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|dir| dir.join(command[0]).exists());
    if !found {
        return need::skip(name, &format!("{} is not installed", command[0]));
    }
    let uzswap = Uzswap::of_this_tree();
    let expected = under::alone(command);
    assert!(expected.status.success(), "{expected:?}");
    let done = under::run(&uzswap, memory, &[], command);
    assert_eq!(done.output.status, expected.status, "{:?}", done.output);
    assert_eq!(done.text(), String::from_utf8_lossy(&expected.stdout));
    assert_eq!(done.number("lost_pages"), 0);
    let evicted = done.number("evicted_pages");
    assert!(evicted >= pages, "{evicted} pages were out");
    assert_eq!(fs::read_dir(uzswap.run_dir()).expect("the run directory").count(), 0, "something was left");
}

const PYTHON: &str = "
import hashlib, json, random, threading, subprocess, sys
random.seed(7)
rows = [{'id': i, 'name': 'name %d' % i, 'tags': [str(random.random())[:6] for _ in range(4)]} for i in range(120000)]
sums = [0] * 4
def work(k):
    for _ in range(3):
        for row in rows[k::4]: sums[k] += len(row['name']) + len(row['tags'][1])
threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
text = json.dumps(rows)
out = subprocess.run(['cat'], input=text.encode(), capture_output=True).stdout
print(sums, hashlib.sha256(out).hexdigest(), json.loads(text) == rows)
";

#[test]
fn python() {
    same("python", "64M", 5000, &["python3", "-c", PYTHON]);
}

const FORKING: &str = "
import hashlib, multiprocessing, os
data = {i: hashlib.md5(str(i).encode()).hexdigest() * 3 for i in range(150000)}
def part(k):
    return hashlib.sha256(''.join(data[i] for i in range(k, 150000, 4)).encode()).hexdigest()
if __name__ == '__main__':
    multiprocessing.set_start_method('fork')
    with multiprocessing.Pool(4) as pool: print(pool.map(part, range(4)))
    child = os.fork()
    if child == 0:
        ok = all(data[i] == hashlib.md5(str(i).encode()).hexdigest() * 3 for i in range(0, 150000, 7))
        os._exit(0 if ok else 3)
    print(os.waitpid(child, 0)[1])
";

#[test]
fn python_with_a_pool_of_processes() {
    same("python_with_a_pool_of_processes", "96M", 300, &["python3", "-c", FORKING]);
}

#[test]
fn sqlite() {
    let sql = "create table t(a integer primary key, b text, c real);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 150000)
          insert into t select i, 'row ' || i || ' of many, with some text', i * 1.5 from n;
        create index x on t(b); select count(*), sum(c) from t where b like '%99%';
        select b from t order by c desc limit 3; pragma integrity_check;";
    let args = ["sqlite3", "-cmd", "pragma cache_size=-200000; pragma temp_store=memory;", ":memory:", sql];
    same("sqlite", "24M", 300, &args);
}

#[test]
fn perl() {
    let script = "my %h; for my $i (1..120000) { $h{\"key$i\"} = [$i, \"value $i\"]; } my $s = 0; \
        for my $r (1..3) { for my $k (sort keys %h) { $s += length($h{$k}[1]) + $h{$k}[0]; } } print \"$s\\n\";";
    same("perl", "48M", 1000, &["perl", "-e", script]);
}

#[test]
fn node() {
    let script = "const m = new Map(); for (let i = 0; i < 250000; i++) m.set('key' + i, {a: i, b: 'v' + i * 3}); \
        let s = 0; for (let k = 0; k < 4; k++) for (const [a, b] of m) s += b.a + b.b.length; console.log(s);";
    same("node", "96M", 300, &["node", "-e", script]);
}

#[test]
fn java() {
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("Sums.java");
    let text = "import java.util.*; public class Sums { public static void main(String[] x) { var m = new HashMap<String, int[]>(); \
        for (int i = 0; i < 400000; i++) m.put(\"k\" + i, new int[] {i, i * 2, i * 3, 7}); long s = 0; \
        for (int k = 0; k < 5; k++) for (var e : m.entrySet()) s += e.getKey().length() + e.getValue()[2]; System.out.println(s); } }";
    fs::write(&source, text).expect("a file");
    same("java", "110M", 300, &["java", "-Xmx200m", source.to_str().expect("a name")]);
}

#[test]
fn a_compiler_and_a_pipeline_of_short_programs() {
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("many.c");
    let body: String = (0..400)
        .map(|at| format!("int f{at}(int a, int b) {{ int s = {at}; for (int i = 0; i < a; i++) s += (i * b) ^ s >> 3; return s; }}\n"))
        .collect();
    fs::write(&source, body).expect("a file");
    let script = format!(
        "set -e; cd {}; for o in 1 2; do gcc -O$o -c many.c -o m$o.o & done; wait; cat m1.o m2.o | md5sum; \
         seq 1 20000 | sort -r | awk '{{s += $1}} END {{print s}}'; for i in $(seq 40); do echo $i | cat | cat > /dev/null; done; echo done",
        dir.path().display()
    );
    same("a_compiler_and_a_pipeline_of_short_programs", "64M", 100, &["bash", "-c", &script]);
}

#[test]
fn a_program_far_from_its_cap_is_not_touched() {
    if !under::possible("a_program_far_from_its_cap_is_not_touched") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let done = under::run(
        &uzswap,
        "512M",
        &[],
        &["python3", "-c", "print(sum(len(str(i)) for i in range(300000)))"],
    );
    assert!(done.output.status.success(), "{:?}", done.output);
    assert_eq!((done.number("faults"), done.number("evicted_pages"), done.number("memories")), (0, 0, 0));
}

#[test]
fn ruby() {
    let script = "h = {}; 150000.times { |i| h[\"key#{i}\"] = [i, \"value #{i}\"] }; s = 0; \
        3.times { h.each { |k, v| s += k.size + v[1].size + v[0] } }; puts s";
    same("ruby", "32M", 1000, &["ruby", "-e", script]);
}

#[test]
fn numpy() {
    let script = "
import numpy, sys
numbers = numpy.arange(6_000_000, dtype=numpy.int64)
grid = numbers.reshape(2000, 3000) % 1009
total = (grid @ numpy.ones(3000, dtype=numpy.int64)).sum()
print(total, int(numpy.sort(grid.ravel()[::-1])[::50000].sum()), int(numpy.cumsum(numbers)[-1]))
";
    let has = under::alone(&["/usr/bin/python3", "-c", "import numpy"]);
    if !has.status.success() {
        return need::skip("numpy", "python3-numpy is not installed");
    }
    same("numpy", "64M", 2000, &["/usr/bin/python3", "-c", script]);
}

/// The stressors that check their own memory, with more of it than fits, and those that fork, segfault and give up memory.
#[test]
fn stress_ng() {
    const NAME: &str = "stress_ng";
    if !under::possible(NAME) {
        return;
    }
    if !std::path::Path::new("/usr/bin/stress-ng").exists() {
        return need::skip(NAME, "stress-ng is not installed");
    }
    let uzswap = Uzswap::of_this_tree();
    let mut evicted = 0;
    for stressor in [
        "--vm 1 --vm-bytes 96M --vm-method incdec --vm-ops 2000",
        "--mremap 1 --mremap-bytes 64M --mremap-ops 10",
        "--mmap 1 --mmap-bytes 64M --mmap-ops 8",
        "--madvise 1 --madvise-ops 20",
        "--malloc 1 --malloc-bytes 80M --malloc-ops 5000",
        "--fork 2 --fork-ops 500",
        "--vfork 2 --vfork-ops 200",
        "--vm-segv 1 --vm-segv-ops 50",
        "--io-uring 1 --io-uring-ops 1000",
    ] {
        let words = ["stress-ng", "--verify", "--timeout", "60"];
        let all: Vec<_> = words.into_iter().chain(stressor.split(' ')).collect();
        let done = under::run(&uzswap, "48M", &[], &all);
        assert!(done.output.status.success(), "{stressor}: {:?}", done.output);
        assert_eq!(done.number("lost_pages"), 0, "{stressor}");
        evicted += done.number("evicted_pages");
    }
    assert!(evicted > 10_000, "{evicted} pages were out");
}

/// Programs that bring an allocator of their own, which maps, gives up and remaps as it likes.
#[test]
fn other_allocators() {
    let library = std::path::Path::new("/usr/lib/x86_64-linux-gnu");
    let source = "
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void) {
  enum { N = 60000 };
  static unsigned char *p[N]; static unsigned n[N]; unsigned s = 7; unsigned long sum = 0;
  for (int round = 0; round < 6; round++)
    for (int i = 0; i < N; i++) {
      s = s * 1664525 + 1013904223;
      if (p[i]) {
        for (unsigned k = 0; k < n[i]; k += 61) if (p[i][k] != (unsigned char)(i + n[i])) { printf(\"wrong %d\\n\", i); return 1; }
        sum += n[i];
      }
      if (s >> 30) {
        n[i] = (s >> 8) % 3000 + 1; p[i] = realloc(p[i], n[i]);
        memset(p[i], i + n[i], n[i]);
      } else { free(p[i]); p[i] = 0; }
    }
  printf(\"%lu\\n\", sum); return 0;
}";
    let dir = tempfile::tempdir().expect("a directory");
    let code = dir.path().join("many.c");
    fs::write(&code, source).expect("a file");
    for allocator in ["libjemalloc.so.2", "libmimalloc.so.2"] {
        let allocator = library.join(allocator);
        if !allocator.exists() {
            need::skip("other_allocators", &format!("{} is not installed", allocator.display()));
            continue;
        }
        let program = dir.path().join("many");
        let [code, program, allocator] =
            [&code, &program, &allocator].map(|path| path.to_str().expect("ASCII").to_owned());
        let built = under::alone(&["gcc", "-O1", "-o", &program, &code, "-Wl,--no-as-needed", &allocator]);
        assert!(built.status.success(), "{built:?}");
        same("other_allocators", "32M", 3000, &[&program]);
    }
}

/// A build by a build tool: processes that start processes, pipes, and a compiler with threads.
#[test]
fn cargo_builds_a_program() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("ASCII");
    let cargo = env!("CARGO");
    fs::create_dir(dir.path().join("src")).expect("a directory");
    fs::write(
        dir.path().join("Cargo.toml"),
        "[package]\nname = \"many\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
    )
    .expect("a file");
    let functions: String = (0..300)
        .map(|at| {
            format!(
                "fn f{at}(v: &mut Vec<String>) {{ v.push(format!(\"{{}}-{at}\", v.len())); v.sort(); }}\n"
            )
        })
        .collect();
    let calls: String = (0..300).map(|at| format!("f{at}(&mut v);")).collect();
    fs::write(
        dir.path().join("src/main.rs"),
        format!("{functions} fn main() {{ let mut v = Vec::new(); {calls} println!(\"{{}}\", v.concat().len()); }}"),
    )
    .expect("a file");
    let script = format!(
        "cd {path} && CARGO_TARGET_DIR={path}/target {cargo} build --quiet --offline && target/debug/many && rm -r target"
    );
    same("cargo_builds_a_program", "96M", 500, &["bash", "-c", &script]);
}
