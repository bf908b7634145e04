//! Uses memory, and checks it: `hog MIB [CGROUP]`.
//!
//! It joins the cgroup, fills the pages, and then does what it reads from standard input, a line at a time: `check`
//! compares every page, `churn` rewrites every third page and then compares all, `run` churns until the next line comes.
//! Each answer is one line, `ok PAGES ROUNDS` or `WRONG ...`; after a wrong page the exit status is 3. It ends with its
//! standard input.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, TryRecvError};

use tests::content::{PAGE, Source};

struct Memory {
    source: Source,
    pages: Vec<[u8; PAGE]>,
    generation: Vec<u32>,
    rounds: u32,
}

impl Memory {
    fn new(count: usize) -> io::Result<Memory> {
        let source = Source::own_program()?;
        let mut pages = vec![[0; PAGE]; count];
        for (number, page) in pages.iter_mut().enumerate() {
            source.fill(number, 0, page);
        }
        Ok(Memory { source, pages, generation: vec![0; count], rounds: 0 })
    }

    /// The number of the first page that is not what it should be.
    fn check(&self) -> Result<(), usize> {
        let right = |number: &usize| self.source.is(*number, self.generation[*number], &self.pages[*number]);
        (0..self.pages.len()).find(|number| !right(number)).map_or(Ok(()), Err)
    }

    fn churn(&mut self) -> Result<(), usize> {
        self.rounds += 1;
        let first = self.rounds as usize % 3;
        for number in (first..self.pages.len()).step_by(3) {
            self.generation[number] += 1;
            self.source.fill(number, self.generation[number], &mut self.pages[number]);
        }
        self.check()
    }

    fn run(&mut self, lines: &Receiver<String>) -> (Result<(), usize>, Option<String>) {
        loop {
            if let Err(number) = self.churn() {
                return (Err(number), None);
            }
            match lines.try_recv() {
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return (Ok(()), None),
                Ok(line) => return (Ok(()), Some(line)),
            }
        }
    }
}

fn main() -> io::Result<ExitCode> {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "usage: hog MIB [CGROUP]");
    let mut args = std::env::args().skip(1);
    let mib: usize = args.next().and_then(|arg| arg.parse().ok()).ok_or_else(usage)?;
    if let Some(cgroup) = args.next() {
        std::fs::write(format!("{cgroup}/cgroup.procs"), std::process::id().to_string())?;
    }
    let mut memory = Memory::new((mib << 20) / PAGE)?;
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    let mut out = io::stdout();
    writeln!(out, "ok {} 0", memory.pages.len())?;
    let mut next = lines.recv().ok();
    while let Some(line) = next.take() {
        let done = match line.as_str() {
            "check" => memory.check(),
            "churn" => memory.churn(),
            "run" => {
                let (done, line) = memory.run(&lines);
                next = line;
                done
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, line)),
        };
        if let Err(number) = done {
            writeln!(out, "WRONG page {number} in generation {}", memory.generation[number])?;
            return Ok(ExitCode::from(3));
        }
        writeln!(out, "ok {} {}", memory.pages.len(), memory.rounds)?;
        if next.is_none() {
            next = lines.recv().ok();
        }
    }
    Ok(ExitCode::SUCCESS)
}
