//! `uzswap run` with servers under load, most of their memory out: what their own tools find afterwards is what was put in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::instance::{Uzswap, ended};
use tests::process::Running;
use tests::{need, under, wait};

/// The user that databases run as where root may not: `nobody`.
const NOBODY: u32 = 65534;

/// A server under `uzswap run`.
struct Server {
    run: Running,
    stats: PathBuf,
}

impl Server {
    fn start(uzswap: &Uzswap, dir: &Path, memory: &str, command: &[&str]) -> Server {
        let stats = dir.join("stats.json");
        let args = ["run", "--memory", memory, "--stats", stats.to_str().expect("ASCII"), "--"];
        let all: Vec<_> = args.iter().chain(command).copied().collect();
        let log = fs::File::create(dir.join("log")).expect("a file");
        let mut run = uzswap.command(&all);
        run.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        Server { run: Running::start(&mut run).expect("it starts"), stats }
    }

    /// Waits for its end; its figures.
    fn end(mut self) -> Value {
        let status = self.run.exit(under::LIMIT).expect("it ends");
        assert!(status.success(), "{status}");
        let text = fs::read_to_string(&self.stats).expect("the stats");
        serde_json::from_str(&text).expect("JSON")
    }
}

/// Runs a client to its end, which must be a good one.
fn said(command: &[&str]) -> String {
    let done = ended(Command::new(command[0]).args(&command[1..]), under::LIMIT);
    let done = done.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}: {done:?}");
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// Waits until a client is answered.
fn answers(command: &[&str]) {
    let client = || ended(Command::new(command[0]).args(&command[1..]), under::LIMIT);
    let up = wait::until(Duration::from_secs(60), || client().is_ok_and(|done| done.status.success()));
    assert!(up, "{command:?}: the server does not answer");
}

fn there_is(name: &str, program: &Path) -> bool {
    if !under::possible(name) {
        return false;
    }
    let there = program.exists();
    if !there {
        need::skip(name, &format!("{} is not installed", program.display()));
    }
    there
}

fn assert_paged(stats: &Value, pages: u64) {
    assert_eq!(stats["lost_pages"], 0, "{stats}");
    assert!(stats["evicted_pages"].as_u64().is_some_and(|evicted| evicted > pages), "{stats}");
}

/// A fork with all of its data, saved while clients change that data.
#[test]
fn redis_saves_in_the_background_under_load() {
    let program = Path::new("/usr/bin/redis-server");
    if !there_is("redis_saves_in_the_background_under_load", program) {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name).to_str().expect("ASCII").to_owned();
    let (socket, place) = (at("socket"), at(""));
    let server = |dump: &str| {
        let words =
            [program.to_str().expect("ASCII"), "--port", "0", "--unixsocket", &socket, "--dir", &place];
        let more = ["--save", "", "--enable-debug-command", "yes", "--dbfilename", dump];
        Server::start(&uzswap, dir.path(), "48M", &[&words[..], &more[..]].concat())
    };
    let client = |words: &[&str]| said(&[&["redis-cli", "-s", &socket], words].concat());
    let load = |kind: &str, count: &str| {
        said(&[
            "redis-benchmark",
            "-s",
            &socket,
            "-q",
            "-t",
            kind,
            "-r",
            "100000",
            "-n",
            count,
            "-d",
            "300",
            "-P",
            "8",
        ])
    };
    // Without an answer: the server is gone then.
    let shutdown = || {
        let mut client = Command::new("redis-cli");
        drop(ended(client.args(["-s", &socket, "shutdown", "nosave"]), under::LIMIT));
    };
    let first = server("dump");
    answers(&["redis-cli", "-s", &socket, "ping"]);
    load("set", "200000");
    let before = client(&["debug", "digest"]);
    client(&["bgsave"]);
    load("set", "50000");
    load("get", "50000");
    let saved = || client(&["info", "persistence"]);
    assert!(wait::until(under::LIMIT, || saved().contains("rdb_bgsave_in_progress:0")));
    assert!(saved().contains("rdb_last_bgsave_status:ok"));
    let after = client(&["debug", "digest"]);
    assert_ne!(before, after, "clients wrote meanwhile");
    shutdown();
    assert_paged(&first.end(), 5000);
    // What was saved is what was there when it was asked for, as another server finds it.
    let second = server("dump");
    answers(&["redis-cli", "-s", &socket, "ping"]);
    assert!(wait::until(under::LIMIT, || client(&["ping"]) == "PONG"), "it does not end loading");
    assert_eq!(client(&["debug", "digest"]), before);
    shutdown();
    second.end();
}

#[test]
fn postgresql_under_pgbench() {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let bin = versions.map(|version| version.path().join("bin")).find(|bin| bin.join("pgbench").exists());
    let bin = bin.unwrap_or_else(|| "/usr/lib/postgresql/bin".into());
    if !there_is("postgresql_under_pgbench", &bin.join("postgres")) {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    // The server's processes, which are another user's, connect to our socket.
    fs::set_permissions(uzswap.run_dir(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let home = dir.path().join("home");
    fs::create_dir(&home).expect("a directory");
    chown(&home, Some(NOBODY), Some(NOBODY)).expect("its owner");
    let (home, data) = (home.to_str().expect("ASCII"), format!("{}/data", home.display()));
    let tool = |name: &str| bin.join(name).to_str().expect("ASCII").to_owned();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    said(&[&nobody[..], &[&tool("initdb"), "-D", &data, "-A", "trust", "-U", "nobody", "-N"]].concat());
    let settings = ["-c", "listen_addresses=", "-c", "shared_buffers=8MB", "-c", "fsync=off"];
    let postgres = tool("postgres");
    let words = [&nobody[..], &[&postgres, "-D", &data, "-k", home], &settings].concat();
    let server = Server::start(&uzswap, dir.path(), "48M", &words);
    let client = |name: &str, words: &[&str]| {
        said(&[&[tool(name).as_str(), "-h", home, "-U", "nobody"], words, &["postgres"]].concat())
    };
    let (psql, ready) = (tool("psql"), ["-h", home, "-U", "nobody", "-c", "select 1", "postgres"]);
    answers(&[&[psql.as_str()], &ready[..]].concat());
    client("pgbench", &["-i", "-q", "-s", "2"]);
    let load = client("pgbench", &["-c", "4", "-j", "2", "-t", "200"]);
    assert!(load.contains("failed transactions: 0 "), "{load}");
    let query = |sql: &str| client("psql", &["-At", "-c", sql]);
    // What pgbench keeps true, and a sort of more than the cap.
    let books = "select (select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers), \
                 (select sum(delta) from pgbench_history) = (select sum(bbalance) from pgbench_branches)";
    assert_eq!(query(books), "t|t");
    let sort = "set work_mem = '256MB'; select md5(string_agg(r, '' order by r)) from \
                (select md5(i::text) as r from generate_series(1, 300000) i) t";
    let script = "from hashlib import md5; h = lambda t: md5(t.encode()).hexdigest(); \
                  print(h(''.join(sorted(h(str(i)) for i in range(1, 300001)))))";
    assert_eq!(query(sort).lines().last(), Some(said(&["python3", "-c", script]).as_str()));
    let pid = fs::read_to_string(format!("{data}/postmaster.pid")).expect("the server's number");
    said(&["kill", "-INT", pid.lines().next().expect("a line")]);
    assert_paged(&server.end(), 3000);
}
