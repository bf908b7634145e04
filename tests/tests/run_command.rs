//! The command line of `run`: exit status, signals, what goes through and what is refused, and how it ends.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::instance::{Uzswap, ended};
use tests::process::{self, Running};
use tests::storage::{Directory, LoopDevice};
use tests::{programs, under, wait};

const LIMIT: Duration = Duration::from_secs(60);

fn left(uzswap: &Uzswap) -> usize {
    fs::read_dir(uzswap.run_dir()).expect("the run directory").count()
}

#[test]
fn the_exit_status_is_the_programs() {
    if !under::possible("the_exit_status_is_the_programs") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -SEGV $$", 139), ("kill -KILL $$", 137)]
    {
        let done = uzswap.call(&["run", "--", "sh", "-c", script]).expect("it ends");
        assert_eq!(done.status.code(), Some(code), "{script}: {done:?}");
        assert!(done.stdout.is_empty() && done.stderr.is_empty(), "{done:?}");
    }
    assert_eq!(left(&uzswap), 0);
}

#[test]
fn what_cannot_be_run_is_refused_before_it_is_started() {
    if !under::possible("what_cannot_be_run_is_refused_before_it_is_started") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name).to_str().expect("a name").to_owned();
    fs::write(at("plain"), "echo no").expect("a file");
    // The head of an ELF file without a loader: nothing that anybody could run, and refused before anybody tries.
    let mut elf = vec![0u8; 128];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 62;
    elf[32] = 64;
    elf[54] = 56;
    let executable = |name: &str, content: &[u8]| {
        fs::write(at(name), content).expect("a file");
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).expect("its mode");
    };
    executable("static", &elf);
    executable("script", format!("#!{}\n", at("static")).as_bytes());
    // Programs for aarch64, and for i386.
    elf[18] = 183;
    executable("foreign", &elf);
    executable("foreign script", format!("#!{}\n", at("foreign")).as_bytes());
    (elf[4], elf[18]) = (1, 3);
    executable("narrow", &elf);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--", "no-such-program-here"], 127, "not found"),
        (&["--", "/no/such/program"], 127, "not found"),
        (&["--", &at("plain")], 126, "not executable"),
        (&["--", dir.path().to_str().expect("a name")], 126, "not executable"),
        (&["--", &at("static")], 1, "statically linked"),
        (&["--", &at("script")], 1, "statically linked"),
        (&["--", &at("foreign")], 1, "another processor"),
        (&["--", &at("foreign script")], 1, "another processor"),
        (&["--", &at("narrow")], 1, "32-bit"),
        (&["--memory", "1M", "--", "true"], 2, "too few"),
        (&["--memory", "0", "--", "true"], 2, "too few"),
        (&["--memory", "-5M", "--", "true"], 2, "unexpected argument"),
        (&["--memory", "many", "--", "true"], 2, "not a size"),
        (&["-o", "compressor=none", "--", "true"], 2, "compressor"),
        (&["-o", "profile=none", "--", "true"], 2, "profile"),
        (&["-o", "nothing", "--", "true"], 2, "NAME=VALUE"),
        (&["--swap", "", "--", "true"], 2, "--swap"),
        (&["--swap", "/no/such/dir/swap", "--", "true"], 1, "--swap"),
        (&["--swap", "/tmp", "--", "true"], 1, "--swap"),
        (&["--swap", "/proc/version", "--", "true"], 1, "exists already"),
        (&["--swap", "/tmp/x,size=many", "--", "true"], 2, "--swap"),
        (&["--stats", "/no/such/dir/stats", "--", "true"], 1, "--stats"),
        (&["--nonsense", "--", "true"], 2, "nonsense"),
        (&[], 2, "required"),
    ];
    for (args, status, says) in cases {
        let all: Vec<_> = ["run"].iter().chain(*args).copied().collect();
        let done = uzswap.call(&all).expect("it ends");
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(*status), "{args:?}: {text}");
        assert!(text.starts_with("uzswap: ") && text.contains(says), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(done.stdout.is_empty());
        assert_eq!(left(&uzswap), 0, "{args:?} left something");
    }
}

/// The kernel has the loader of such a program ignore LD_PRELOAD, unless it is root's anyway.
#[test]
fn a_program_with_capabilities_is_for_root() {
    const NAME: &str = "a_program_with_capabilities_is_for_root";
    const NOBODY: u32 = 65534;
    // A vfs_cap_data of revision 2, effective, with CAP_NET_BIND_SERVICE.
    let mut capabilities = [0; 20];
    (capabilities[0], capabilities[3], capabilities[5]) = (1, 2, 4);
    if !under::possible(NAME) {
        return;
    }
    // Where another user can get at it.
    let place = tempfile::tempdir().expect("a directory");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let (own, program) = (place.path().join("uzswap"), place.path().join("program"));
    fs::copy(programs::uzswap(), &own).expect("a copy");
    fs::copy("/bin/true", &program).expect("a copy");
    let uzswap = Uzswap::new(&own).expect("a run directory");
    fs::set_permissions(uzswap.run_dir(), fs::Permissions::from_mode(0o777)).expect("its mode");
    let args = ["run", "--", program.to_str().expect("a name")];
    let by_nobody = || {
        let done = tests::instance::ended(uzswap.command(&args).uid(NOBODY).gid(NOBODY), LIMIT);
        let done = done.expect("it ends");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    assert!(!by_nobody().1.contains("capabilities"), "nobody may not page, and this program is not why");
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(&program, "security.capability", &capabilities, flags) {
        tests::need::skip(NAME, &format!("files cannot have capabilities here: {error}"));
        return;
    }
    for mode in [0o755, 0o711] {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("its mode");
        let (status, text) = by_nobody();
        assert_eq!(status, Some(1), "{text}");
        assert!(text.starts_with("uzswap: ") && text.contains("capabilities (setcap)"), "{text}");
        assert_eq!((text.lines().count(), left(&uzswap)), (1, 0), "{text}");
    }
    let done = uzswap.call(&args).expect("it ends");
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

#[test]
fn without_the_right_it_says_what_it_takes() {
    if !under::possible("without_the_right_it_says_what_it_takes") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let plain = uzswap.command(&["run", "--", "touch", "/tmp/uzswap-was-here"]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = tests::instance::ended(&mut command, LIMIT).expect("it ends");
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(text.starts_with("uzswap: run: ") && text.contains("CAP_SYS_PTRACE"), "{text}");
    assert!(!std::path::Path::new("/tmp/uzswap-was-here").exists(), "it was started all the same");
    assert_eq!(left(&uzswap), 0);
}

/// Who may not see accessed bits pages as well without, and is told.
#[test]
fn accessed_bits_are_seen_or_it_says_why() {
    if !under::possible("accessed_bits_are_seen_or_it_says_why") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let hazards = programs::sibling("hazards");
    let hazards = hazards.to_str().expect("a name");
    let seen = under::run(&uzswap, "64M", &[], &[hazards, "forks"]);
    assert!(seen.output.status.success(), "{:?}", seen.output);
    assert_eq!(seen.stats["accessed_bits"], "seen");
    assert!(seen.number("accessed_clears") > 0, "{}", seen.stats);

    let stats = tempfile::NamedTempFile::new().expect("a file");
    let path = stats.path().to_str().expect("a name");
    let plain = uzswap.command(&["run", "--memory", "64M", "--stats", path, "--", hazards, "forks"]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-bpf,-perfmon,-sys_admin"]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = tests::instance::ended(&mut command, LIMIT).expect("it ends");
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    let stats: serde_json::Value =
        serde_json::from_slice(&fs::read(stats.path()).expect("they are there")).expect("they are an object");
    let why = stats["accessed_bits"].as_str().expect("a text");
    assert!(why.starts_with("not seen: ") && why.contains("not permitted"), "{why}");
    assert!(stats["evicted_pages"].as_u64() > Some(2000) && stats["spared_pages"] == 0, "{stats}");

    let far = under::run(&uzswap, "4G", &[], &["true"]);
    assert_eq!(far.stats["accessed_bits"], "not needed so far");
    // What `status` calls memory_bytes is taken, not allowed.
    assert!(far.number("cap_bytes") == 4 << 30 && far.stats.get("memory_bytes").is_none(), "{}", far.stats);
}

/// A filter such as containers have, that knows no userfaultfd.
#[test]
fn where_seccomp_refuses_it_says_so() {
    const NEW: u32 = 0xAA00; // USERFAULTFD_IOC_NEW, of linux/userfaultfd.h
    let load = |offset: u32| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
    let unless = |value: i64, skipped: u8| libc::sock_filter {
        code: 0x15,
        jt: 0,
        jf: skipped,
        k: u32::try_from(value).expect("a number of a call"),
    };
    let end = |action: u32| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: action };
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    // The number of the call is at 0, the low half of its second argument at 24.
    let mut filter = [
        load(0),
        unless(libc::SYS_userfaultfd, 1),
        end(refusal),
        unless(libc::SYS_ioctl, 3),
        load(24),
        unless(NEW.into(), 1),
        end(refusal),
        end(libc::SECCOMP_RET_ALLOW),
    ];
    if !under::possible("where_seccomp_refuses_it_says_so") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let mut command = uzswap.command(&["run", "--", "touch", "/tmp/uzswap-was-here"]);
    // SAFETY: two system calls, which take what was made before the fork.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: 8, filter: filter.as_mut_ptr() };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
            {
                return Ok(());
            }
            Err(std::io::Error::last_os_error())
        });
    }
    let done = tests::instance::ended(&mut command, LIMIT).expect("it ends");
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(text.starts_with("uzswap: run: ") && text.contains("seccomp"), "{text}");
    assert!(!std::path::Path::new("/tmp/uzswap-was-here").exists(), "it was started all the same");
    assert_eq!(left(&uzswap), 0);
}

/// A program that gave its rights up is managed by the supervisor's.
#[test]
fn a_program_without_rights_is_paged() {
    if !under::possible("a_program_without_rights_is_paged") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    // Where another user can get at it.
    let place = tempfile::tempdir().expect("a directory");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let program = place.path().join("hazards");
    fs::copy(programs::sibling("hazards"), &program).expect("a copy");
    fs::set_permissions(uzswap.run_dir(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let program = program.to_str().expect("a name");
    let command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "forks"];
    let done = under::run(&uzswap, "64M", &[], &command);
    assert!(done.output.status.success(), "{:?}", done.output);
    assert!(done.number("evicted_pages") > 2000, "{}", done.stats);
}

/// Everybody may connect to the agents' socket, and nobody gets anywhere by it who does not know the word.
#[test]
fn strangers_are_not_let_in() {
    if !under::possible("strangers_are_not_let_in") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let script = "
import os, socket, time
word, path = os.environ['UZSWAP_AGENT'].split(':', 1)
def connect():
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stranger.settimeout(30)
    stranger.connect(path)
    return stranger
silent = [connect() for _ in range(300)]
hello = lambda word: bytes([5, 0, 0, 0]) + bytes(36) + word + bytes(8)
for packet in [b'x', b'x' * 4000, hello(bytes(32)), hello(word[::-1].encode())]:
    stranger = connect()
    stranger.send(packet)
    print(stranger.recv(100))
for stranger in silent: print(stranger.recv(100))
";
    let done = under::run(&uzswap, "64M", &[], &["python3", "-c", script]);
    assert_eq!(done.text(), "b''\n".repeat(304), "{:?}", done.output);
}

/// What runs under a supervisor of its own is that one's alone.
#[test]
fn one_run_under_another() {
    if !under::possible("one_run_under_another") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let stats = tempfile::NamedTempFile::new().expect("a file");
    let inner = programs::uzswap();
    let names = [inner.as_path(), stats.path()].map(|path| path.to_str().expect("a name"));
    let command = [names[0], "run", "--stats", names[1], "--", "sleep", "0.5"];
    let done = under::run(&uzswap, "64M", &[], &command);
    assert!(done.output.status.success(), "{:?}", done.output);
    assert!(done.number("processes") > 0, "the inner supervisor");
    let text = fs::read_to_string(stats.path()).expect("the stats of the inner one");
    let counted: serde_json::Value = serde_json::from_str(&text).expect("an object");
    assert_eq!(counted["processes"], 1, "{text}");
    assert_eq!(left(&uzswap), 0);
}

/// They are meant for the program.
#[test]
fn limits_that_are_the_programs_own() {
    if !under::possible("limits_that_are_the_programs_own") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let dir = tempfile::tempdir().expect("a directory");
    let swap = format!("{},size=256M", dir.path().join("swap").display());
    // Blocks of 512 or 1024 bytes, by shell; and descriptors.
    let script = "ulimit -S -f 64; ulimit -S -n 40; exec \"$@\"";
    let inner = "head -c 1000000 /dev/zero > \"$0\"; [ $? -gt 0 ] && ulimit -S -n && python3 -c \"$1\"";
    let file = dir.path().join("file");
    let program = programs::uzswap();
    let [program, file] = [&program, &file].map(|path| path.to_str().expect("a name"));
    let [.., words] = RANDOM_WORDS;
    let run = ["-c", script, "sh", program, "run", "--memory", "48M", "--swap", &swap];
    let mut command = Command::new("sh");
    command.args(run).args(["--", "sh", "-c", inner, file, words]).env("UZSWAP_RUN", uzswap.run_dir());
    let done = ended(&mut command, under::LIMIT).expect("it ends");
    let expected = under::alone(&RANDOM_WORDS);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(text, format!("40\n{}", String::from_utf8_lossy(&expected.stdout)), "{done:?}");
    assert!(!String::from_utf8_lossy(&done.stderr).contains("uzswap:"), "{done:?}");
}

/// A process that forks takes descriptors here; without any left it waits until others have ended, or does with less.
#[test]
fn many_children_and_few_descriptors() {
    if !under::possible("many_children_and_few_descriptors") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let hazards = programs::sibling("hazards");
    let [program, hazards] =
        [&programs::uzswap(), &hazards].map(|path| path.to_str().expect("a name").to_owned());
    // The limit is raised where that may be done.
    let limited =
        ["--nofile=32:32", "setpriv", "--bounding-set=-sys_resource", &program, "run", "--memory", "64M"];
    let mut command = Command::new("prlimit");
    command.args(limited).args(["--", &hazards, "bomb"]).env("UZSWAP_RUN", uzswap.run_dir());
    let done = ended(&mut command, under::LIMIT).expect("it ends");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "bomb right\n", "{done:?}");
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn input_output_and_environment_go_through() {
    if !under::possible("input_output_and_environment_go_through") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let errors = tempfile::NamedTempFile::new().expect("a file");
    let mut command = uzswap.command(&["run", "--", "sh", "-c", "cat; echo \"$WORD\" >&2; pwd"]);
    command.env("WORD", "a word").current_dir("/usr").stderr(errors.reopen().expect("a file"));
    let mut run = started(command.stdin(Stdio::piped()));
    run.tell("line").expect("it reads");
    run.end_input();
    assert_eq!((line(&mut run).as_str(), line(&mut run).as_str()), ("line", "/usr"));
    assert!(run.exit(LIMIT).expect("it ends").success());
    assert_eq!(run.line(LIMIT).expect_err("nothing more").kind(), ErrorKind::UnexpectedEof);
    assert_eq!(fs::read_to_string(errors.path()).expect("text"), "a word\n");
    // The agent opens nothing that the program could see.
    let hazards = programs::sibling("hazards");
    let hazards = hazards.to_str().expect("a name");
    let there = uzswap.call(&["run", "--", hazards, "plain"]).expect("it ends");
    assert_eq!(there.stdout, under::alone(&[hazards, "plain"]).stdout);
}

fn started(command: &mut Command) -> Running {
    Running::start(command.stdout(Stdio::piped())).expect("it starts")
}

fn line(run: &mut Running) -> String {
    run.line(LIMIT).expect("a line")
}

/// A program that goes over more memory than its cap for ever.
fn forever(uzswap: &Uzswap) -> (Running, i32) {
    let hazards = programs::sibling("hazards");
    let args = ["run", "--memory", "48M", "--", hazards.to_str().expect("a name"), "forever"];
    let mut run = started(&mut uzswap.command(&args));
    assert_eq!(line(&mut run), "filled");
    let children = format!("/proc/{0}/task/{0}/children", run.id());
    let program = fs::read_to_string(children).expect("it has a child");
    let program = program.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a number");
    std::thread::sleep(Duration::from_millis(300));
    (run, program)
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: numbers only; both processes are ours and not waited for yet.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

fn own(run: &Running) -> i32 {
    i32::try_from(run.id()).expect("a number")
}

#[test]
fn signals_reach_the_program() {
    if !under::possible("signals_reach_the_program") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    for sent in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGHUP] {
        let (mut run, _) = forever(&uzswap);
        signal(own(&run), sent);
        assert_eq!(run.exit(LIMIT).expect("it ends").code(), Some(128 + sent));
        assert_eq!(left(&uzswap), 0);
    }
}

#[test]
fn a_stopped_program_goes_on() {
    if !under::possible("a_stopped_program_goes_on") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let (mut run, program) = forever(&uzswap);
    for _ in 0..5 {
        signal(program, libc::SIGSTOP);
        std::thread::sleep(Duration::from_millis(150));
        signal(program, libc::SIGCONT);
        std::thread::sleep(Duration::from_millis(150));
    }
    assert!(run.exit(Duration::ZERO).is_err(), "it goes over its memory still");
    signal(program, libc::SIGKILL);
    assert_eq!(run.exit(LIMIT).expect("it ends").code(), Some(137));
    assert_eq!(left(&uzswap), 0);
}

#[test]
fn without_its_supervisor_a_program_ends_and_is_never_wrong() {
    if !under::possible("without_its_supervisor_a_program_ends_and_is_never_wrong") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let (mut run, program) = forever(&uzswap);
    signal(own(&run), libc::SIGKILL);
    assert_eq!(run.exit(LIMIT).expect("it dies").signal(), Some(libc::SIGKILL));
    let gone =
        || !std::path::Path::new(&format!("/proc/{program}/mem")).exists() || state(program) == Some('Z');
    assert!(wait::until(LIMIT, gone), "the program lives on without its pages");
    assert_eq!(left(&uzswap), 1, "the directory stays");
    assert!(uzswap.call(&["run", "--", "true"]).expect("it ends").status.success());
    assert_eq!(left(&uzswap), 0, "until the next run");
}

/// A child that was forked is told nothing before memory is short. It has pages out all the same.
#[test]
fn without_its_supervisor_a_forked_child_ends_too() {
    if !under::possible("without_its_supervisor_a_forked_child_ends_too") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let hazards = programs::sibling("hazards");
    let args = ["run", "--memory", "48M", "--", hazards.to_str().expect("a name"), "parted"];
    let mut run = started(&mut uzswap.command(&args));
    let child: i32 = line(&mut run).parse().expect("a number");
    std::thread::sleep(Duration::from_millis(300));
    signal(own(&run), libc::SIGKILL);
    assert_eq!(run.exit(LIMIT).expect("it dies").signal(), Some(libc::SIGKILL));
    let gone = || matches!(state(child), None | Some('Z'));
    let has_ended = wait::until(Duration::from_secs(20), gone);
    if !has_ended {
        signal(child, libc::SIGKILL);
    }
    assert!(has_ended, "the child lives on without its pages");
}

#[test]
fn what_is_stopped_when_the_program_ends_goes_on_afterwards() {
    if !under::possible("what_is_stopped_when_the_program_ends_goes_on_afterwards") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let hazards = programs::sibling("hazards");
    let args = ["run", "--memory", "48M", "--", hazards.to_str().expect("a name"), "halted"];
    let mut run = started(&mut uzswap.command(&args));
    let children: [i32; 2] = std::array::from_fn(|_| line(&mut run).parse().expect("a number"));
    assert!(run.exit(LIMIT).expect("the program ends, and who paged it").success());
    for child in children {
        assert_eq!(state(child), Some('T'));
        signal(child, libc::SIGCONT);
        assert_eq!(line(&mut run), "child right");
    }
}

/// `nohup`, and what a shell starts in the background, rely on it; and who ignores SIGCHLD is to have the exit status as well.
#[test]
fn signals_that_are_ignored_stay_ignored() {
    use std::os::unix::process::CommandExt;
    if !under::possible("signals_that_are_ignored_stay_ignored") {
        return;
    }
    const IGNORED: [i32; 6] =
        [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGCHLD, libc::SIGTSTP];
    let uzswap = Uzswap::of_this_tree();
    let hazards = programs::sibling("hazards");
    let hazards = hazards.to_str().expect("a name");
    let mut expected = IGNORED;
    expected.sort_unstable();
    for (ignored, expected) in [(&IGNORED[..], &expected[..]), (&[], &[])] {
        let mut command = uzswap.command(&["run", "--", hazards, "ignored"]);
        let ignored = ignored.to_vec();
        let ignore = move || {
            for signal in &ignored {
                // SAFETY: ignores a signal of a process that is about to be another program.
                unsafe { libc::signal(*signal, libc::SIG_IGN) };
            }
            Ok(())
        };
        // SAFETY: between fork and exec this makes system calls, and neither allocates nor locks.
        unsafe { command.pre_exec(ignore) };
        let mut run = started(&mut command);
        for signal in expected {
            assert_eq!(line(&mut run), signal.to_string());
        }
        assert_eq!(line(&mut run), "ignored right");
        assert!(run.exit(LIMIT).expect("it ends").success());
    }
}

/// `trap '' PIPE` of a shell holds for what it starts.
#[test]
fn a_broken_pipe_is_an_error_where_whoever_started_us_wants_it_so() {
    if !under::possible("a_broken_pipe_is_an_error_where_whoever_started_us_wants_it_so") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let program = programs::uzswap();
    // The one that writes has nobody to read it, and says what became of that.
    let writer = "sleep 0.3; (echo x) 2>/dev/null; echo $? >&2";
    for (trap, expected) in [("trap '' PIPE;", "1\n"), ("", "141\n")] {
        let script = format!("{trap} {} run -- sh -c '{writer}' | true", program.display());
        let mut shell = Command::new("sh");
        let done = shell.args(["-c", &script]).env("UZSWAP_RUN", uzswap.run_dir()).output();
        let done = done.expect("it ends");
        assert_eq!(String::from_utf8_lossy(&done.stderr), expected, "{script}");
    }
}

#[test]
fn what_the_program_leaves_running_goes_on_with_all_its_pages() {
    if !under::possible("what_the_program_leaves_running_goes_on_with_all_its_pages") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let hazards = programs::sibling("hazards");
    let stats = tempfile::NamedTempFile::new().expect("a file");
    let (hazards, path) = (hazards.to_str().expect("a name"), stats.path().to_str().expect("a name"));
    let mut run =
        started(&mut uzswap.command(&["run", "--memory", "32M", "--stats", path, "--", hazards, "left"]));
    assert!(run.exit(LIMIT).expect("the program ends, and who paged it").success());
    for _ in 0..3 {
        assert_eq!(line(&mut run), "left right");
    }
    let stats: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("JSON");
    assert!(stats["evicted_pages"].as_u64() > Some(500), "{stats}");
    assert!(stats["forks"].as_u64() > Some(2), "{stats}");
    assert_eq!(stats["lost_pages"], 0);
    assert_eq!(left(&uzswap), 0);
}

fn state(pid: i32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.trim().chars().next()
}

#[test]
fn traced_programs_are_right() {
    if !under::possible("traced_programs_are_right") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let hazards = programs::sibling("hazards");
    let hazards = hazards.to_str().expect("a name");
    if std::path::Path::new("/usr/bin/strace").exists() {
        let done = under::run(&uzswap, "64M", &[], &["strace", "-f", "-o", "/dev/null", hazards, "signals"]);
        assert!(done.output.status.success(), "{:?}", done.output);
        assert!(done.number("evicted_pages") > 2000);
    } else {
        tests::need::skip("traced_programs_are_right", "strace is not installed");
    }
}

/// The kernel lets no debugger wait for a page: for what is out it gets an error, and never anything else.
#[test]
fn who_looks_in_from_outside_sees_no_wrong_page() {
    use std::os::unix::fs::FileExt;
    if !under::possible("who_looks_in_from_outside_sees_no_wrong_page") {
        return;
    }
    const PAGES: usize = (96 << 20) / 4096;
    let script = "
import ctypes, os, signal
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
size = 96 << 20
block = libc.malloc(ctypes.c_size_t(size))
for at in range(0, size, 4096):
    ctypes.memset(block + at, 1 + (at // 4096) % 250, 4096)
print(os.getpid(), block, flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
print(sum(ctypes.string_at(block + at, 1)[0] for at in range(0, size, 4096)))
";
    let byte = |page: usize| u8::try_from(1 + page % 250).expect("small");
    let uzswap = Uzswap::of_this_tree();
    let args = ["run", "--memory", "64M", "--", "/usr/bin/python3", "-c", script];
    let mut run = started(&mut uzswap.command(&args));
    let place = line(&mut run);
    let numbers: Vec<u64> = place.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [pid, block] = numbers[..] else { panic!("{place}") };
    let stopped = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "));
    assert!(wait::until(LIMIT, stopped), "it does not stop");
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let mut out = 0;
    for page in 0..PAGES {
        let mut seen = [0; 4096];
        match memory.read_exact_at(&mut seen, block + (page * 4096) as u64) {
            Ok(()) => assert!(seen.iter().all(|it| *it == byte(page)), "page {page}"),
            Err(_) => out += 1,
        }
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a number")).expect("not 0");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("it is there");
    let sum: usize = (0..PAGES).map(|page| usize::from(byte(page))).sum();
    assert_eq!(line(&mut run), sum.to_string());
    assert!(run.exit(LIMIT).expect("it ends").success());
    assert!(out > 1000 && out < PAGES, "{out} of {PAGES} pages were out");
}

/// The kernel writes what is present, and does not ask for the rest; it must not wait for it either.
#[test]
fn a_core_dump_ends() {
    const NAME: &str = "a_core_dump_ends";
    if !under::possible(NAME) {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let dir = tempfile::tempdir().expect("a directory");
    let script = format!("cd {} && ulimit -c unlimited && exec \"$@\"", dir.path().display());
    let hazards = programs::sibling("hazards");
    let words = ["bash", "-c", &script, "sh", hazards.to_str().expect("a name"), "crash"];
    let done = under::run(&uzswap, "64M", &[], &words);
    assert_eq!(done.output.status.code(), Some(134), "{:?}", done.output);
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("where dumps go");
    if pattern.starts_with(['|', '/']) {
        tests::need::skip(NAME, &format!("dumps are not looked at, they go to {}", pattern.trim_end()));
    } else {
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "there is a dump");
    }
    assert!(done.number("evicted_pages") > 2000);
    assert_eq!(left(&uzswap), 0);
}

/// The cap, by what the kernel says of the whole tree: the program, its children, and us with the pool.
#[test]
fn the_cap_holds_as_seen_from_outside() {
    const NAME: &str = "the_cap_holds_as_seen_from_outside";
    const CAP: u64 = 64 << 20;
    if !under::possible(NAME) {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let script = "
import subprocess, sys
rows = [('row %d ' % i) * 5 for i in range(500000)]
total = 0
for _ in range(6): total += sum(len(row) for row in rows)
child = subprocess.run([sys.executable, '-c', 'print(len([str(i) * 9 for i in range(200000)]))'], capture_output=True)
print(total, child.stdout)
";
    let args = ["run", "--memory", &CAP.to_string(), "--", "/usr/bin/python3", "-c", script];
    let mut run = started(&mut uzswap.command(&args));
    let mut peak = 0;
    let mut samples = 0;
    let begun = std::time::Instant::now();
    let status = loop {
        if let Ok(status) = run.exit(Duration::ZERO) {
            break status;
        }
        assert!(begun.elapsed() < under::LIMIT, "it does not end");
        peak = peak.max(tree_bytes(run.id()));
        samples += 1;
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success());
    let said = line(&mut run);
    assert!(said.ends_with("b'200000\\n'"), "{said}");
    println!("{samples} samples, peak {:.3} of the cap", peak as f64 / CAP as f64);
    assert!(samples > 0, "it was never looked at");
    // On a machine with other work the program can run ahead of who makes room for it, a little.
    assert!(peak < CAP + CAP / 8, "{peak} bytes under a cap of {CAP}");
    assert!(peak > CAP * 3 / 4, "{peak} bytes: the cap was never reached");
}

/// Proportional resident bytes of a process and all that descend from it.
fn tree_bytes(pid: u32) -> u64 {
    let bytes = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) << 10
    };
    process::with_own_memory(process::tree(pid)).into_iter().map(bytes).sum()
}

/// Random words: what is compressed takes as much as before, and a cap below 72 MB holds only with somewhere to go.
const RANDOM_WORDS: [&str; 3] = [
    "python3",
    "-c",
    "import random, array; random.seed(1); a = array.array('Q', (random.getrandbits(64) for _ in range(9000000)));\n\
     print(sum(a[::512]), sum(a[1::512])); print(sum(a) % 1000003)",
];

/// Without a place for them, pages that do not compress are moved out once to find that out, and left in peace then: the program runs
/// above its cap, and not in vain back and forth.
#[test]
fn what_does_not_compress_is_left_in_peace() {
    const NAME: &str = "what_does_not_compress_is_left_in_peace";
    if !under::possible(NAME) {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let script = "
import os, random, time
pages = bytearray(os.urandom(80 << 20))
before = sum(pages[::4096])
end = time.monotonic() + 6
while time.monotonic() < end:
    for _ in range(1000): pages[random.randrange(len(pages))]
print(before == sum(pages[::4096]))
";
    let done = under::run(&uzswap, "48M", &[], &["python3", "-c", script]);
    assert_eq!(done.text(), "True\n", "{:?}", done.output);
    let said = String::from_utf8_lossy(&done.output.stderr);
    assert!(said.contains("even compressed"), "{said}");
    // Of the array, and of what it was made from.
    let pages = (160 << 20) / 4096;
    let evicted = done.number("evicted_pages");
    println!("{evicted} pages moved out, of {pages}");
    assert!(evicted > pages / 8, "{evicted} pages were moved out: the cap was never reached");
    assert!(evicted < pages * 3, "{evicted} pages were moved out, of {pages}");
}

#[test]
fn the_oldest_pages_go_to_a_swap_file_or_device() {
    if !under::possible("the_oldest_pages_go_to_a_swap_file_or_device") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let dir = tempfile::tempdir().expect("a directory");
    let expected = under::alone(&RANDOM_WORDS);
    let swaps_to = |swap: &str| {
        let done = under::run(&uzswap, "48M", &["--swap", swap], &RANDOM_WORDS);
        assert_eq!(done.output.stdout, expected.stdout, "{swap}: {:?}", done.output);
        assert!(done.number("written_back_pages") + done.number("device_writes") > 1000, "{}", done.stats);
        assert_eq!(done.number("device_errors"), 0);
    };
    swaps_to(&format!("{},size=256M", dir.path().join("swap").display()));
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0, "the file goes");

    // A device is used whole; a file that is there already is not used.
    let backing = dir.path().join("device");
    fs::File::create(&backing).and_then(|file| file.set_len(128 << 20)).expect("a sparse file");
    let device = LoopDevice::on(&backing);
    swaps_to(device.path().to_str().expect("a path"));
    drop(device);
    fs::write(&backing, "worth something").expect("a file");
    let refused =
        uzswap.call(&["run", "--swap", backing.to_str().expect("a path"), "--", "true"]).expect("it ends");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(fs::read(&backing).expect("it is there"), b"worth something");
}

/// Programs that have mapped files for most of the cap have little that could leave, and what has left is not to take the place of the rest.
#[test]
fn the_pool_gives_way_to_mapped_files() {
    if !under::possible("the_pool_gives_way_to_mapped_files") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mapped = dir.path().join("mapped");
    let script = format!(
        "import mmap, random\nrandom.seed(1)\nfile = open('{}', 'w+b'); file.truncate(36 << 20)\n\
         m = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)\ns = sum(m[::4096])\n\
         data = bytearray(20000 * 4096)\n\
         for at in range(0, len(data), 4096): data[at:at + 1024] = random.randbytes(1024)\n\
         for n in range(20000):\n  at = random.randrange(20000) * 4096 + random.randrange(1024)\n  \
         s += data[at]; data[at] = s % 256\nprint(s, sum(data))",
        mapped.display()
    );
    let words = ["python3", "-c", &script];
    let expected = under::alone(&words);
    let swap = format!("{},size=256M", dir.path().join("swap").display());
    let done = under::run(&Uzswap::of_this_tree(), "64M", &["--swap", &swap], &words);
    assert_eq!(done.output.stdout, expected.stdout, "{:?}", done.output);
    assert!(done.number("device_writes") > 1000, "{}", done.stats);
    assert!(done.number("peak_total_bytes") < (64 << 20) * 11 / 10, "{}", done.stats);
}

#[test]
fn a_full_swap_file_system_loses_no_page() {
    if !under::possible("a_full_swap_file_system_loses_no_page") {
        return;
    }
    let dir = Directory::tmpfs(2);
    let uzswap = Uzswap::of_this_tree();
    let swap = format!("{},size=256M", dir.path().join("swap").display());
    let expected = under::alone(&RANDOM_WORDS);
    let done = under::run(&uzswap, "48M", &["--swap", &swap], &RANDOM_WORDS);
    assert_eq!(done.output.stdout, expected.stdout, "{:?}", done.output);
    assert!(done.number("device_errors") > 0, "the file was full");
    let text = String::from_utf8_lossy(&done.output.stderr);
    assert!(text.contains("swap"), "it says so: {text}");
}

#[test]
fn a_running_program_can_be_looked_at_and_steered() {
    if !under::possible("a_running_program_can_be_looked_at_and_steered") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let script = "rows = [str(i) * 20 for i in range(400000)]\nprint(len(rows), flush=True)\ninput()\nprint(sum(len(row) for row in rows))";
    let mut command = uzswap.command(&["run", "--memory", "48M", "--", "python3", "-c", script]);
    let mut run = started(command.stdin(Stdio::piped()));
    assert_eq!(line(&mut run), "400000");
    let name = format!("run-{}", run.id());
    assert!(uzswap.number(&name, "stored_pages").expect("its status") > 1000);
    // The pager's counters too, some twenty times a second.
    let grown = || uzswap.number(&name, "faults").is_ok_and(|faults| faults > 0);
    assert!(wait::until(LIMIT, grown), "no fault is seen: {:?}", uzswap.status(&name));
    let status = uzswap.status(&name).expect("its status");
    for counted in ["evicted_pages", "memories", "processes"] {
        assert!(status[counted].as_u64() > Some(0), "{counted}: {status}");
    }
    for named in ["restored_pages", "prefetched_pages", "zero_faults"] {
        assert!(status[named].is_u64(), "{named}: {status}");
    }
    assert!(status["lost_pages"] == 0 && status["accessed_bits"].is_string(), "{status}");
    let text = uzswap.done(&["status", &name], LIMIT).expect("its status");
    let paging = text.lines().find(|line| line.trim_start().starts_with("Paging ")).expect("a line");
    assert!(paging.contains(" faults, ") && !paging.contains(" 0 faults"), "{paging}");
    let get = |param: &str| uzswap.done(&["get", &name, param], LIMIT).expect("its value");
    assert_eq!(get("compressor"), zcomp::lookup("auto").expect("there is always one").name());
    uzswap.done(&["set", &name, "compressor", "zstd"], LIMIT).expect("it can be changed");
    assert_eq!(get("compressor"), "zstd");
    for (args, says) in [
        (&["set", &name, "compressor", "none"][..], "compressor"),
        (&["set", &name, "nothing", "1"], "nothing"),
        (&["swapoff", &name], "no swap device"),
    ] {
        let output = uzswap.call(args).expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.starts_with("uzswap: ") && said.contains(says), "{args:?}: {said}");
    }
    run.tell("").expect("it reads");
    let sum: usize = (0..400_000).map(|i: usize| i.to_string().len() * 20).sum();
    assert_eq!(line(&mut run), sum.to_string());
    assert!(run.exit(LIMIT).expect("it ends").success());
    assert_eq!(left(&uzswap), 0);
}

/// What acts on all devices leaves programs alone.
#[test]
fn running_programs_are_listed_and_nothing_else_is_done_to_them() {
    if !under::possible("running_programs_are_listed_and_nothing_else_is_done_to_them") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let listed = || {
        let text = uzswap.done(&["status", "--json"], LIMIT).expect("the status of all");
        let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let names = all
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["name"].as_str().expect("a name").to_owned());
        names.collect::<Vec<_>>()
    };
    assert!(listed().is_empty());
    let mut runs = [0, 1].map(|_| {
        let mut command =
            uzswap.command(&["run", "--memory", "64M", "--", "sh", "-c", "echo up; read word; echo $word"]);
        let mut run = started(command.stdin(Stdio::piped()));
        assert_eq!(line(&mut run), "up");
        run
    });
    let mut names: Vec<_> = runs.iter().map(|run| format!("run-{}", run.id())).collect();
    names.sort();
    assert_eq!(listed(), names);
    let text = uzswap.done(&["status"], LIMIT).expect("the status of all");
    assert!(names.iter().all(|name| text.lines().any(|line| line == name)), "{text}");
    uzswap.done(&["swapoff", "--all"], LIMIT).expect("there is no device");
    assert!(uzswap.call(&["swapoff", "/dev/nothing"]).expect("it ends").status.code() == Some(1));
    assert_eq!(listed(), names);
    // What one that was killed leaves is no program that runs.
    signal(own(&runs[0]), libc::SIGKILL);
    runs[0].exit(LIMIT).expect("it dies");
    assert_eq!(listed(), [format!("run-{}", runs[1].id())]);
    runs[1].tell("on").expect("it reads");
    assert_eq!(line(&mut runs[1]), "on");
    assert!(runs[1].exit(LIMIT).expect("it ends").success());
    assert!(listed().is_empty());
    assert_eq!(uzswap.done(&["status"], LIMIT).expect("the status of all"), "no instance is running");
}
