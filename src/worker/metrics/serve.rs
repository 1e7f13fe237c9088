//! A small HTTP/1.1 server for one who scrapes: `GET`, one response a connection, one thread. Every connection is bounded in
//! time and in size, and none waits for another.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{At, Error, Result};
use crate::sys::Errno;

/// How long a connection may take from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any client's request line and headers.
const REQUEST: usize = 8 << 10;
/// So many connections at once; others wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// How long no connection is taken after one could not be.
const PAUSE: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The path, without its query.
    pub path: String,
    /// The header `Accept`, or nothing.
    pub accept: String,
}

/// What is answered.
#[derive(Debug)]
pub struct Response {
    /// The status and its phrase.
    pub status: &'static str,
    /// The media type.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Response {
    /// A line of plain text.
    pub fn line(status: &'static str, text: &str) -> Response {
        Response { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n") }
    }

    fn bytes(&self, with_body: bool) -> Vec<u8> {
        let Response { status, content_type, body } = self;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
            body.len()
        );
        if with_body {
            bytes.push_str(body);
        }
        bytes.into_bytes()
    }
}

/// Serves until `stop` is readable.
///
/// # Errors
/// As `poll(2)`. What goes wrong with a connection ends that connection.
pub fn serve(listener: &TcpListener, stop: BorrowedFd<'_>, mut answer: impl FnMut(&Request) -> Response) -> Result<()> {
    listener.set_nonblocking(true).at("make non-blocking", "the listener")?;
    let mut connections: Vec<Connection> = Vec::new();
    let mut not_before: Option<Instant> = None;
    loop {
        let now = Instant::now();
        not_before = not_before.filter(|until| *until > now);
        let accepting = connections.len() < CONNECTIONS && not_before.is_none();
        let next = connections.iter().map(|connection| connection.deadline).chain(not_before).min();
        let timeout = next.map_or(PollTimeout::NONE, |next| {
            let left = next.saturating_duration_since(now).as_micros().div_ceil(1000);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let ready: Vec<bool> = {
            let listening = if accepting { PollFlags::POLLIN } else { PollFlags::empty() };
            let mut fds = vec![PollFd::new(stop, PollFlags::POLLIN), PollFd::new(listener.as_fd(), listening)];
            fds.extend(connections.iter().map(|it| PollFd::new(it.stream.as_fd(), it.awaited())));
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).at("poll", "the connections"),
            }
            fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect()
        };
        if ready[0] {
            return Ok(());
        }
        let now = Instant::now();
        let mut index = 1;
        connections.retain_mut(|connection| {
            index += 1;
            now < connection.deadline && (!ready[index] || connection.go_on(&mut answer))
        });
        if ready[1] && accepting {
            match listener.accept().and_then(|(stream, _)| stream.set_nonblocking(true).map(|()| stream)) {
                Ok(stream) => connections.push(Connection::new(stream)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // No descriptor left, or a client that has gone again.
                Err(_) => not_before = Some(now + PAUSE),
            }
        }
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    deadline: Instant,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The request, as far as it has come.
    Reading(Vec<u8>),
    /// The response, and how much of it is out.
    Writing(Vec<u8>, usize),
    /// All is said; the client closes first, lest the kernel throws away what it has not read.
    Closing,
}

impl Connection {
    fn new(stream: TcpStream) -> Connection {
        Connection { stream, deadline: Instant::now() + PATIENCE, phase: Phase::Reading(Vec::new()) }
    }

    fn awaited(&self) -> PollFlags {
        match self.phase {
            Phase::Writing(..) => PollFlags::POLLOUT,
            Phase::Reading(_) | Phase::Closing => PollFlags::POLLIN,
        }
    }

    /// Goes as far as it gets without waiting; false where the connection is over.
    fn go_on(&mut self, answer: &mut impl FnMut(&Request) -> Response) -> bool {
        loop {
            let mut buffer = [0; 2048];
            let moved = match &mut self.phase {
                Phase::Writing(bytes, out) => self.stream.write(&bytes[*out..]),
                Phase::Reading(_) | Phase::Closing => self.stream.read(&mut buffer),
            };
            let moved = match moved {
                Ok(0) => return false,
                Ok(moved) => moved,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            match &mut self.phase {
                Phase::Reading(request) => {
                    request.extend_from_slice(&buffer[..moved]);
                    if let Some(response) = respond(request, answer) {
                        self.phase = Phase::Writing(response, 0);
                    }
                }
                Phase::Writing(bytes, out) => {
                    *out += moved;
                    if *out == bytes.len() {
                        if self.stream.shutdown(Shutdown::Write).is_err() {
                            return false;
                        }
                        self.phase = Phase::Closing;
                    }
                }
                Phase::Closing => {}
            }
        }
    }
}

/// The response to a request, once that is there or cannot become one.
fn respond(request: &[u8], answer: &mut impl FnMut(&Request) -> Response) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let bad = |text: &str| Some(Response::line("400 Bad Request", text).bytes(true));
    match parsed.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if request.len() < REQUEST => return None,
        Ok(httparse::Status::Partial) => return bad("the request is too long"),
        Err(error) => return bad(&format!("this is no HTTP request: {error}")),
    }
    let with_body = match parsed.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Some(Response::line("405 Method Not Allowed", "only GET and HEAD").bytes(true)),
    };
    let path = parsed.path.unwrap_or_default();
    let accept = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("accept"));
    let request = Request {
        path: path.split('?').next().unwrap_or_default().to_owned(),
        accept: accept.map(|header| String::from_utf8_lossy(header.value).into_owned()).unwrap_or_default(),
    };
    Some(answer(&request).bytes(with_body))
}

/// Listens at `ADDRESS:PORT`.
///
/// # Errors
/// [`Error::Usage`] for what is no address; as `bind(2)`, with the address, where it is in use or not ours.
pub fn listen(address: &str) -> Result<TcpListener> {
    let address: std::net::SocketAddr = address.parse().map_err(|_| {
        Error::Usage(format!("`--listen {address}` is not ADDRESS:PORT, such as 127.0.0.1:9754 or [::1]:9754"))
    })?;
    TcpListener::bind(address).at("listen at", address)
}
