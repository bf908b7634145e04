//! The control socket: requests of one line, replies of one line, one of each a connection.
//!
//! ```text
//! set NAME VALUE        ok            the value is the rest of the line
//! swapoff               error ERRNO TEXT
//! ```

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest line that is read.
const LINE: u64 = 4096;
/// How long a client may take to send its line.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);

/// What can be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Set a parameter.
    Set {
        /// Its name.
        name: String,
        /// Its new text.
        value: String,
    },
    /// Turn the device off and end.
    Swapoff,
}

/// What came of it: an errno and a text where it failed.
pub type Reply = Result<(), (i32, String)>;

impl Request {
    /// Reads a request, its newline included. `None`: it is none.
    pub fn parse(line: &str) -> Option<Request> {
        let line = line.strip_suffix('\n')?;
        if line == "swapoff" {
            return Some(Request::Swapoff);
        }
        let (name, value) = line.strip_prefix("set ")?.split_once(' ')?;
        Some(Request::Set { name: name.to_owned(), value: value.to_owned() })
    }

    /// The request as it is sent.
    pub fn line(&self) -> String {
        match self {
            Request::Set { name, value } => format!("set {name} {value}\n"),
            Request::Swapoff => "swapoff\n".to_owned(),
        }
    }
}

/// A socket that is being listened on. Dropping it removes the socket.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

/// Makes the socket at `path`, mode 0600. What was at `path` goes.
///
/// # Errors
/// As for binding a socket.
pub fn serve(path: &Path) -> io::Result<Server> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let server = Server { listener, path: path.to_owned() };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(server)
}

impl Server {
    /// Answers requests, one after the other, until `answer` breaks, after that reply is sent.
    ///
    /// # Errors
    /// When the socket itself fails; a client that fails is just gone.
    pub fn run(&self, mut answer: impl FnMut(Request) -> ControlFlow<Reply, Reply>) -> io::Result<()> {
        let mut last = false;
        while !last {
            let (client, _) = self.listener.accept()?;
            let mut line = String::new();
            let read = client
                .set_read_timeout(Some(CLIENT_LIMIT))
                .and_then(|()| BufReader::new((&client).take(LINE)).read_line(&mut line));
            let reply = match read.ok().and_then(|_| Request::parse(&line)) {
                Some(request) => match answer(request) {
                    ControlFlow::Continue(reply) => reply,
                    ControlFlow::Break(reply) => {
                        last = true;
                        reply
                    }
                },
                None => Err((rustix::io::Errno::INVAL.raw_os_error(), "not a request".to_owned())),
            };
            let text = match reply {
                Ok(()) => "ok\n".to_owned(),
                Err((errno, text)) => format!("error {errno} {}\n", text.replace('\n', " ")),
            };
            // The client may be gone; what it asked for is done all the same.
            let _ = (&client).write_all(text.as_bytes());
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Why a request came to nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum RequestError {
    /// The server is not there or not to be reached: no such instance, no permission, or it died.
    Io(io::Error),
    /// The value has a line break in it, or is longer than a server reads.
    Line,
    /// The server's answer: its errno and text.
    Refused(i32, String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Io(error) => error.fmt(f),
            RequestError::Line => write!(f, "a value is one line of less than {LINE} bytes"),
            RequestError::Refused(_, text) => f.write_str(text),
        }
    }
}

impl std::error::Error for RequestError {}

/// Sends a request to the server at `path` and waits for the reply, however long that takes.
///
/// # Errors
/// [`RequestError`].
pub fn request(path: &Path, request: &Request) -> Result<(), RequestError> {
    let line = request.line();
    if line.matches('\n').count() != 1 || line.len() as u64 > LINE {
        return Err(RequestError::Line);
    }
    let mut server = UnixStream::connect(path).map_err(RequestError::Io)?;
    server.write_all(line.as_bytes()).map_err(RequestError::Io)?;
    let mut reply = String::new();
    BufReader::new(server.take(LINE)).read_line(&mut reply).map_err(RequestError::Io)?;
    if reply == "ok\n" {
        return Ok(());
    }
    let parsed = reply.strip_prefix("error ").and_then(|rest| rest.trim_end().split_once(' '));
    match parsed.and_then(|(errno, text)| Some((errno.parse().ok()?, text))) {
        Some((errno, text)) => Err(RequestError::Refused(errno, text.to_owned())),
        None => Err(RequestError::Io(io::ErrorKind::UnexpectedEof.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_get_their_replies_and_nonsense_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let server = serve(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            let ran = server.run(|request| {
                seen.push(request.clone());
                match request {
                    Request::Set { value, .. } if value == "bad" => {
                        ControlFlow::Continue(Err((22, "no\nway".to_owned())))
                    }
                    Request::Set { .. } => ControlFlow::Continue(Ok(())),
                    Request::Swapoff => ControlFlow::Break(Ok(())),
                }
            });
            ran.unwrap();
            seen
        });
        let set = |name: &str, value: &str| Request::Set { name: name.to_owned(), value: value.to_owned() };
        request(&path, &set("enabled", "Y")).unwrap();
        request(&path, &set("compressor", "zstd(level = 3)")).unwrap();
        assert!(
            matches!(request(&path, &set("x", "bad")), Err(RequestError::Refused(22, text)) if text == "no way")
        );
        for value in ["a\nb", &"x".repeat(4096)] {
            assert!(matches!(request(&path, &set("x", value)), Err(RequestError::Line)));
        }
        for nonsense in ["\n", "set\n", "set x\n", "quit\n", &"x".repeat(10_000)] {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(nonsense.as_bytes()).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut reply = String::new();
            // Where more was sent than is read, the connection may be reset instead.
            if client.read_to_string(&mut reply).is_ok() {
                assert_eq!(reply, "error 22 not a request\n");
            }
        }
        request(&path, &Request::Swapoff).unwrap();
        assert_eq!(thread.join().unwrap().len(), 4);
        assert!(!path.exists());
        assert!(matches!(request(&path, &Request::Swapoff), Err(RequestError::Io(_))));
    }
}
