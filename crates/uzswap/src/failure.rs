//! How the command fails: `uzswap: WHAT: WHY` on stderr, and an exit status.

use std::fmt::Display;
use std::process::ExitCode;

/// A failed job.
#[derive(Debug)]
pub struct Failure {
    status: u8,
    text: String,
}

impl Failure {
    /// The job failed: status 1.
    pub fn job(what: impl Display, why: impl Display) -> Failure {
        Failure { status: 1, text: format!("{what}: {why}") }
    }

    /// The command line is wrong: status 2.
    pub fn usage(what: impl Display, why: impl Display) -> Failure {
        Failure { status: 2, text: format!("{what}: {why}") }
    }

    /// The job failed with a status of its own.
    pub fn with_status(status: u8, what: impl Display, why: impl Display) -> Failure {
        Failure { status, text: format!("{what}: {why}") }
    }

    /// The failure as its own text says it, `WHAT: WHY`.
    pub fn told(text: impl Display) -> Failure {
        Failure { status: 1, text: text.to_string() }
    }

    /// A wrong command line, as its own text says it.
    pub fn usage_of(text: impl Display) -> Failure {
        Failure { status: 2, text: text.to_string() }
    }

    /// The failure in one line, for the process that waits for it.
    pub fn wire(&self) -> String {
        format!("{}{}", self.status, self.text)
    }

    /// Reads [`Failure::wire`].
    pub fn from_wire(wire: &str) -> Failure {
        match (wire.get(..1).and_then(|status| status.parse().ok()), wire.get(1..)) {
            (Some(status), Some(text)) => Failure { status, text: text.to_owned() },
            _ => Failure::job("server", "it died while it was starting"),
        }
    }

    /// `WHAT: WHY`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Tells it, and gives the exit status.
    pub fn report(&self) -> ExitCode {
        eprintln!("uzswap: {}", self.text);
        ExitCode::from(self.status)
    }
}
