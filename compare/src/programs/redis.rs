//! A redis server under the cap, and the client outside of it: keys by Zipf's law, one command in ten a SET, pipelined. The
//! client is the same each time down to the byte, so the answers have one checksum wherever the server ran.

use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tests::wait;

use crate::trace::Trace;

const PIPELINED: usize = 32;

/// How much it is given to do.
pub struct Work {
    /// Keys, each with a value of about 1 KiB.
    keys: usize,
    commands: usize,
}

pub const FULL: Work = Work { keys: 80_000, commands: 400_000 };
pub const QUICK: Work = Work { keys: 16_000, commands: 20_000 };

/// The server's command line; it listens in `dir`.
pub fn words(dir: &Path) -> Vec<String> {
    let socket = socket(dir);
    let options = ["--port", "0", "--save", "", "--loglevel", "warning", "--unixsocket", &socket];
    ["redis-server"].into_iter().chain(options).map(str::to_owned).collect()
}

fn socket(dir: &Path) -> String {
    dir.join("socket").to_str().expect("a temporary path is ASCII").to_owned()
}

/// Fills the server in `dir`, works with it, and ends it. Returns a checksum of all that it answered.
pub fn client(dir: &Path, work: &Work) -> io::Result<String> {
    let mut stream = None;
    wait::until(Duration::from_secs(20), || {
        stream = UnixStream::connect(socket(dir)).ok();
        stream.is_some()
    });
    let mut stream = stream.ok_or(io::ErrorKind::TimedOut)?;
    let mut answers = Answers { from: BufReader::new(stream.try_clone()?), sum: DefaultHasher::new() };
    let mut trace = Trace::new("zipfian", work.keys);
    let fill = (0..work.keys).map(|key| (key, true));
    let use_it = (0..work.commands).map(|at| (trace.page(at, work.commands), at % 10 == 0));
    let mut commands = fill.chain(use_it).enumerate().peekable();
    while commands.peek().is_some() {
        let mut text = String::new();
        let mut sent = 0;
        for (at, (key, set)) in commands.by_ref().take(PIPELINED) {
            if set {
                text += &format!("*3\r\n$3\r\nSET\r\n$9\r\nkey{key:06}\r\n");
                let value = value(key, at);
                text += &format!("${}\r\n{value}\r\n", value.len());
            } else {
                text += &format!("*2\r\n$3\r\nGET\r\n$9\r\nkey{key:06}\r\n");
            }
            sent += 1;
        }
        stream.write_all(text.as_bytes())?;
        for _ in 0..sent {
            answers.next()?;
        }
    }
    stream.write_all(b"SHUTDOWN NOSAVE\r\n")?;
    // It closes the connection instead of answering, or resets it.
    let _ = answers.from.read(&mut [0; 64]);
    Ok(format!("{:016x}", answers.sum.finish()))
}

/// A record as an application keeps it in text.
fn value(key: usize, at: usize) -> String {
    let mut text = format!("{{\"id\":{key},\"version\":{at},\"name\":\"user {key}\",\"events\":[");
    let mut state = (key as u64) << 32 | at as u64 | 1;
    while text.len() < 1000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (kind, number) = (["view", "click", "order", "return"][(state >> 62) as usize], state >> 44);
        text += &format!("{{\"kind\":\"{kind}\",\"item\":{number},\"count\":{}}},", number % 7);
    }
    text + "{}]}"
}

/// What the server answers, summed up.
struct Answers {
    from: BufReader<UnixStream>,
    sum: DefaultHasher,
}

impl Answers {
    fn next(&mut self) -> io::Result<()> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        self.sum.write(line.as_bytes());
        match line.split_at_checked(1) {
            Some(("+", _)) => Ok(()),
            Some(("$", length)) => {
                let length: usize = length.trim_end().parse().map_err(|_| io::Error::other(line.clone()))?;
                // The line's end is part of it.
                let mut value = vec![0; length + 2];
                self.from.read_exact(&mut value)?;
                self.sum.write(&value);
                Ok(())
            }
            _ => Err(io::Error::other(format!("redis answers {line:?}"))),
        }
    }
}
