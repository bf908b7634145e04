//! Ordinary programs with something in their memory. Each prints `ready` and waits for the end of its input.

/// A program and what it is to build.
pub struct Program {
    /// The name of the corpus.
    pub corpus: &'static str,
    /// What runs it.
    pub command: &'static str,
    pub args: &'static [&'static str],
    /// The file the script is in, by its name.
    pub script_name: &'static str,
    /// Has the word COUNT where a number stands,
    pub script: &'static str,
    /// this one, for a hundred megabytes or so.
    pub count: usize,
}

/// Object heaps of interpreters with and without a compiler, a database, numbers and text.
pub const ALL: [Program; 7] = [
    Program {
        corpus: "python",
        command: "python3",
        args: &[],
        script_name: "objects.py",
        script: r#"
import json, random, sys
random.seed(1)
people = {}
for number in range(COUNT):
    people["user-%06d" % number] = {
        "id": number, "mail": "user%d@example.org" % number, "score": random.gauss(50, 15),
        "roles": random.sample(["read", "write", "admin", "audit", "guest"], 2), "seen": None}
answer = json.dumps(dict(list(people.items())[:COUNT // 4]), indent=1)
print("ready", flush=True)
sys.stdin.read()
"#,
        count: 120_000,
    },
    Program {
        corpus: "numbers",
        command: "python3",
        args: &[],
        script_name: "numbers.py",
        script: r#"
import array, math, random, sys
random.seed(2)
series = array.array("d", (20 + 8 * math.sin(t / 900) + random.gauss(0, 0.3) for t in range(COUNT)))
prices = array.array("d", (round(100 + 40 * random.random(), 2) for _ in range(COUNT)))
places = array.array("q", (random.randrange(COUNT) for _ in range(COUNT)))
print("ready", flush=True)
sys.stdin.read()
"#,
        count: 4_000_000,
    },
    Program {
        corpus: "sqlite",
        command: "sqlite3",
        // Without the name of a database it has one in memory.
        args: &["-batch", "-init"],
        script_name: "tables.sql",
        script: r#"
pragma cache_size = -400000;
create table parts(id integer primary key, name text, supplier text, price real, stock integer);
with recursive n(i) as (select 1 union all select i + 1 from n where i < COUNT)
    insert into parts select i, 'part no. ' || (i * 7919 % 100003), 'supplier ' || (i % 997),
        (i * 104729 % 1000003) / 100.0, i * 31 % 500 from n;
create index by_name on parts(name);
.system echo ready
"#,
        count: 900_000,
    },
    Program {
        corpus: "node",
        command: "node",
        args: &[],
        script_name: "objects.js",
        script: r#"
const orders = new Map();
for (let i = 0; i < COUNT; i++)
  orders.set("order" + i, { number: i, customer: "customer " + (i * 7919 % 10007), total: (i * 104729 % 99991) / 100,
    lines: [{ sku: i % 613, count: i % 5 }, { sku: i % 359, count: 1 }] });
console.log("ready");
process.stdin.resume().on("end", () => console.error(orders.size));
"#,
        count: 350_000,
    },
    Program {
        corpus: "java",
        command: "java",
        args: &["-Xmx400m", "-XX:+UseSerialGC"],
        script_name: "Objects.java",
        script: r#"
import java.util.*;
public class Objects { public static void main(String[] none) throws Exception {
  var random = new Random(3); var visits = new HashMap<String, List<Long>>();
  for (int i = 0; i < COUNT; i++) { var times = new ArrayList<Long>();
    for (int j = 0; j < 6; j++) times.add(1600000000000L + random.nextInt());
    visits.put("/page/" + i + ".html", times); }
  System.out.println("ready"); while (System.in.read() >= 0) { } System.err.println(visits.size()); } }
"#,
        count: 250_000,
    },
    Program {
        corpus: "perl",
        command: "perl",
        args: &[],
        script_name: "hashes.pl",
        script: r#"
$| = 1; srand(4); my %hosts;
for my $i (1 .. COUNT) {
    my $host = sprintf("10.%d.%d.%d", $i >> 16, $i >> 8 & 255, $i & 255);
    $hosts{$host} = { name => "host$i.example.net", up => rand() > 0.1, load => [map { sprintf "%.2f", rand(4) } 1 .. 3] };
}
print "ready\n"; 1 while <STDIN>;
"#,
        count: 110_000,
    },
    Program {
        corpus: "text",
        command: "perl",
        args: &[],
        script_name: "text.pl",
        script: r#"
$| = 1; my @texts; my $size = 0;
my @directories = ("/usr/share", "/usr/include", "/usr/lib");
while (my $directory = shift @directories) {
    for my $path (sort glob("$directory/*")) {
        if (-d $path && !-l $path) { push @directories, $path }
        elsif (-T $path) {
            open my $file, "<", $path or next;
            local $/; push @texts, scalar <$file>; $size += -s $path;
        }
    }
    last if $size > 100 * COUNT;
}
print "ready\n"; 1 while <STDIN>;
"#,
        count: 1_000_000,
    },
];
