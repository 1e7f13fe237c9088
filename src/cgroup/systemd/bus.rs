//! A conversation with a manager of systemd over D-Bus: blocking, bounded in time, and no more than the driver needs.
//!
//! Sources: the D-Bus Specification ("Message Protocol", "Authentication Protocol"), `org.freedesktop.systemd1(5)`.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use zvariant::serialized::{Context, Data};
use zvariant::{DynamicType, LE, OwnedObjectPath, OwnedValue, Signature, Type, Value};

use crate::error::{At, Error, Result};
use crate::sys::Errno;

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const BUS: &str = "org.freedesktop.DBus";
const BUS_OBJECT: &str = "/org/freedesktop/DBus";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long one conversation may take: systemd answers in milliseconds, and a job of a scope has nothing to wait for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// No answer of systemd that is asked for here is larger.
const LARGEST: usize = 1 << 20;

/// Types of a message.
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Codes of a header's fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Whose manager: the host's or the calling user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// Process 1.
    System,
    /// `user@UID.service`.
    User,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// systemd says no: the name of its error and its words.
    Denied(String, String),
    /// The conversation is at an end.
    Broken(Error),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Denied(name, text) => Error::Other(format!("systemd says `{name}`: {text}")),
            Fault::Broken(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Broken(error)
    }
}

/// A field of a header that is sent. The signature of a body of several values is no single type, and a [`Value`] holds none
/// but those.
enum Field<'a> {
    Value(Value<'a>),
    Signature(String),
}

impl Type for Field<'_> {
    const SIGNATURE: &'static Signature = &Signature::Variant;
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Field::Value(value) => value.serialize(serializer),
            Field::Signature(text) => {
                let mut variant = serializer.serialize_struct("Variant", 2)?;
                variant.serialize_field("signature", &Signature::Signature)?;
                variant.serialize_field("value", text)?;
                variant.end()
            }
        }
    }
}

/// The fixed part of a header and its fields.
type Header = (u8, u8, u8, u8, u32, u32, Vec<(u8, OwnedValue)>);

struct Message {
    kind: u8,
    fields: Vec<(u8, OwnedValue)>,
    body: Vec<u8>,
    context: Context,
}

impl Message {
    fn text(&self, code: u8) -> Option<&str> {
        let value = self.field(code)?;
        <&str>::try_from(value).ok()
    }

    fn field(&self, code: u8) -> Option<&Value<'static>> {
        self.fields.iter().find(|(it, _)| *it == code).map(|(_, value)| &**value)
    }

    fn reply_to(&self) -> Option<u32> {
        self.field(REPLY_SERIAL).and_then(|value| u32::try_from(value).ok())
    }

    fn body<T: for<'d> Deserialize<'d> + Type>(&self) -> Result<T> {
        let data = Data::new(self.body.as_slice(), self.context);
        data.deserialize().map(|(value, _)| value).map_err(garbled)
    }
}

fn garbled(error: zvariant::Error) -> Error {
    Error::Other(format!("systemd sends what is no message of D-Bus: {error}"))
}

/// A connection to a manager.
pub(super) struct Bus {
    stream: UnixStream,
    deadline: Instant,
    serial: u32,
    /// Jobs that have ended, with their results.
    ended: Vec<(OwnedObjectPath, String)>,
}

impl Bus {
    /// Connects to a manager.
    ///
    /// # Errors
    /// [`Error::Refused`] where none of its sockets takes the connection, naming each.
    pub(super) fn connect(manager: Manager) -> Result<Bus> {
        let deadline = Instant::now() + PATIENCE;
        let mut tried = Vec::new();
        for (address, direct) in addresses(manager) {
            match Self::open(&address, direct, deadline) {
                Ok(bus) => return Ok(bus),
                Err(error) => tried.push(format!("`{address}`: {error}")),
            }
        }
        let whose = match manager {
            Manager::System => "systemd",
            Manager::User => "the user's systemd (is there a session, or `loginctl enable-linger`?)",
        };
        let tried = if tried.is_empty() { "XDG_RUNTIME_DIR is not set".to_owned() } else { tried.join("; ") };
        Err(Error::Refused(format!(
            "systemd cgroup driver: {whose} cannot be reached ({tried}); use the cgroupfs driver, without `--systemd-cgroup`"
        )))
    }

    fn open(address: &str, direct: bool, deadline: Instant) -> Result<Bus> {
        let broken = |error: std::io::Error| Error::io("connect to", address, &error);
        let stream = match address.strip_prefix('@') {
            Some(name) => {
                SocketAddr::from_abstract_name(name).and_then(|it| UnixStream::connect_addr(&it)).map_err(broken)?
            }
            None => UnixStream::connect(address).map_err(broken)?,
        };
        stream.set_nonblocking(true).map_err(broken)?;
        let mut bus = Bus { stream, deadline, serial: 0, ended: Vec::new() };
        bus.authenticate()?;
        if !direct {
            bus.call(BUS, BUS_OBJECT, BUS, "Hello", &())?;
            // The manager sends its signals to those alone who have asked for them.
            bus.call(SYSTEMD, OBJECT, MANAGER, "Subscribe", &())?;
            let rule = format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'");
            bus.call(BUS, BUS_OBJECT, BUS, "AddMatch", &(rule,))?;
        }
        Ok(bus)
    }

    /// The other side takes the ids from the socket: in a user namespace only the kernel knows how they are called there.
    fn authenticate(&mut self) -> Result<()> {
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                if line.len() > 1024 {
                    return Err(Error::Other("D-Bus: the answer to the authentication has no end".to_owned()));
                }
                line.extend(self.read_exactly(1)?);
            }
            match line.as_slice() {
                b"DATA\r\n" => {}
                line if line.starts_with(b"OK ") => return Ok(()),
                line => {
                    let line = String::from_utf8_lossy(line).trim().to_owned();
                    return Err(Error::Other(format!("D-Bus does not let this user in: `{line}`")));
                }
            }
        }
    }

    /// Calls a method of the manager.
    pub(super) fn manager<B: Serialize + DynamicType>(&mut self, method: &str, body: &B) -> Result<Reply, Fault> {
        self.call(SYSTEMD, OBJECT, MANAGER, method, body)
    }

    /// A property of an object: the manager's where `object` is not given.
    pub(super) fn property(
        &mut self,
        object: Option<&OwnedObjectPath>,
        interface: &str,
        name: &str,
    ) -> Result<String, Fault> {
        let object = object.map_or(OBJECT, |object| object.as_str());
        let reply = self.call(SYSTEMD, object, PROPERTIES, "Get", &(format!("{SYSTEMD}.{interface}"), name))?;
        let value: OwnedValue = reply.body()?;
        String::try_from(value).map_err(|error| Fault::Broken(garbled(error)))
    }

    /// Waits until a job has ended.
    ///
    /// # Errors
    /// Where its result is not `done`, or it does not come.
    pub(super) fn wait_for(&mut self, job: &OwnedObjectPath, what: &str) -> Result<()> {
        loop {
            if let Some(at) = self.ended.iter().position(|(ended, _)| ended == job) {
                let (_, result) = self.ended.swap_remove(at);
                return match result.as_str() {
                    "done" => Ok(()),
                    result => Err(Error::Other(format!("systemd could not {what}: the job's result is `{result}`"))),
                };
            }
            self.receive().map_err(|error| Error::Context {
                context: format!("wait until systemd has done its job to {what}"),
                source: Box::new(error),
            })?;
        }
    }

    fn call<B: Serialize + DynamicType>(
        &mut self,
        destination: &str,
        object: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Reply, Fault> {
        self.serial += 1;
        let context = Context::new_dbus(LE, 0);
        let signature = body.signature().to_string_no_parens();
        let body = zvariant::to_bytes(context, body).map_err(garbled)?;
        let path = zvariant::ObjectPath::try_from(object).map_err(garbled)?;
        let mut fields = vec![
            (PATH, Field::Value(path.into())),
            (INTERFACE, Field::Value(interface.into())),
            (MEMBER, Field::Value(method.into())),
            (DESTINATION, Field::Value(destination.into())),
        ];
        if !signature.is_empty() {
            fields.push((SIGNATURE, Field::Signature(signature)));
        }
        let length = u32::try_from(body.len()).map_err(|_| Error::Other("D-Bus: a message is too long".to_owned()))?;
        let header = (b'l', METHOD_CALL, 0_u8, 1_u8, length, self.serial, fields);
        let mut bytes = zvariant::to_bytes(context, &header).map_err(garbled)?.to_vec();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(&body);
        self.send(&bytes)?;
        let serial = self.serial;
        loop {
            if let Some(reply) = self.receive()?.filter(|reply| reply.reply_to() == Some(serial)) {
                return match reply.kind {
                    METHOD_RETURN => Ok(Reply(reply)),
                    _ => {
                        let name = reply.text(ERROR_NAME).unwrap_or("an error without a name").to_owned();
                        Err(Fault::Denied(name, reply.body::<String>().unwrap_or_default()))
                    }
                };
            }
        }
    }

    /// The next message that is an answer; what signals say is kept.
    fn receive(&mut self) -> Result<Option<Message>> {
        let mut bytes = self.read_exactly(16)?;
        let context = match bytes[0] {
            b'l' => Context::new_dbus(LE, 0),
            b'B' => Context::new_dbus(zvariant::BE, 0),
            _ => return Err(Error::Other("systemd sends what is no message of D-Bus".to_owned())),
        };
        let number = |at: usize| {
            let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            let number = if bytes[0] == b'l' { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) };
            usize::try_from(number).unwrap_or(usize::MAX)
        };
        let (body, fields) = (number(4), number(12));
        if body > LARGEST || fields > LARGEST {
            return Err(Error::Other("systemd sends a message that is too long".to_owned()));
        }
        let header = (16 + fields).next_multiple_of(8);
        bytes.extend(self.read_exactly(header - 16 + body)?);
        let body = bytes.split_off(header);
        let (header, _): (Header, _) = Data::new(bytes.as_slice(), context).deserialize().map_err(garbled)?;
        let message = Message { kind: header.1, fields: header.6, body, context };
        if message.kind == SIGNAL {
            if message.text(MEMBER) == Some("JobRemoved") && message.text(INTERFACE) == Some(MANAGER) {
                let (_, job, _, result): (u32, OwnedObjectPath, String, String) = message.body()?;
                self.ended.push((job, result));
            }
            return Ok(None);
        }
        Ok([METHOD_RETURN, ERROR].contains(&message.kind).then_some(message))
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) => self.pause(error, PollFlags::POLLOUT)?,
            }
        }
        Ok(())
    }

    fn read_exactly(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut have = 0;
        while have < count {
            match self.stream.read(&mut bytes[have..]) {
                Ok(0) => return Err(Error::Other("systemd has closed the connection".to_owned())),
                Ok(read) => have += read,
                Err(error) => self.pause(error, PollFlags::POLLIN)?,
            }
        }
        Ok(bytes)
    }

    /// Waits where a call would block; any other error is one.
    fn pause(&self, error: std::io::Error, events: PollFlags) -> Result<()> {
        match error.kind() {
            std::io::ErrorKind::Interrupted => return Ok(()),
            std::io::ErrorKind::WouldBlock => {}
            _ => return Err(Error::io("speak with", "systemd", &error)),
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Other(format!("systemd does not answer within {} s", PATIENCE.as_secs())));
        }
        let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.stream.as_fd(), events)], left) {
            Err(Errno::EINTR) => Ok(()),
            other => other.at("wait for", "systemd").map(drop),
        }
    }

    /// Shortens the time that the conversation may take.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.deadline = self.deadline.min(deadline);
    }
}

/// What a method has returned.
pub(super) struct Reply(Message);

impl Reply {
    pub(super) fn body<T: for<'d> Deserialize<'d> + Type>(&self) -> Result<T> {
        self.0.body()
    }
}

/// The sockets of a manager, the best first, and whether systemd itself listens there.
fn addresses(manager: Manager) -> Vec<(String, bool)> {
    let (variable, own) = match manager {
        Manager::System => ("DBUS_SYSTEM_BUS_ADDRESS", Some("/run".into())),
        Manager::User => ("DBUS_SESSION_BUS_ADDRESS", std::env::var_os("XDG_RUNTIME_DIR")),
    };
    // Who sets this means it, and nothing else is tried.
    if let Ok(list) = std::env::var(variable)
        && !list.is_empty()
    {
        return list.split(';').filter_map(address).map(|address| (address, false)).collect();
    }
    let Some(own) = own else { return Vec::new() };
    let own = Path::new(&own);
    let bus = match manager {
        Manager::System => own.join("dbus/system_bus_socket"),
        Manager::User => own.join("bus"),
    };
    [(own.join("systemd/private"), true), (bus, false)]
        .map(|(path, direct)| (path.to_string_lossy().into_owned(), direct))
        .to_vec()
}

/// A server address of D-Bus ("Server Addresses") as a path, or a name after `@`.
fn address(text: &str) -> Option<String> {
    let fields = text.strip_prefix("unix:")?;
    fields.split(',').find_map(|field| match field.split_once('=')? {
        ("path", path) => Some(path.to_owned()),
        ("abstract", name) => Some(format!("@{name}")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses() {
        assert_eq!(address("unix:path=/run/user/0/bus,guid=1"), Some("/run/user/0/bus".to_owned()));
        assert_eq!(address("unix:guid=1,abstract=/tmp/x"), Some("@/tmp/x".to_owned()));
        assert_eq!(address("tcp:host=localhost"), None);
    }

    #[test]
    fn a_manager_out_of_reach_is_refused_with_its_sockets() {
        let here = tempfile::tempdir().unwrap();
        let socket = here.path().join("none");
        let error = Bus::open(socket.to_str().unwrap(), true, Instant::now() + PATIENCE).err().unwrap().to_string();
        assert!(error.contains("none") && error.contains("No such file"), "{error}");
    }
}
