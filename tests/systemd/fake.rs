//! A manager of systemd that lives in the test: it speaks enough D-Bus for one scope, and goes wrong where it is told to.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use zvariant::serialized::{Context, Data};
use zvariant::{DynamicType, LE, ObjectPath, OwnedValue, Value};

/// Where systemd keeps its books on a hybrid host.
const HIERARCHIES: [&str; 2] = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"];

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// The job that starts the scope fails.
    JobFails,
    /// The connection ends when the scope is asked for, before there is one.
    DiesBefore,
    /// The same once the scope is there.
    DiesAfter,
    /// The scope is there and the end of the job is never told.
    SaysNothing,
    /// The scope is there already, and another's.
    Exists,
    /// What comes is no D-Bus.
    Garbage,
}

#[derive(Default)]
pub struct Books {
    /// The scopes: their properties by name, as debug text.
    pub units: BTreeMap<String, BTreeMap<String, String>>,
    /// Every method called, in order.
    pub calls: Vec<String>,
}

pub struct Fake {
    pub books: Arc<Mutex<Books>>,
    pub trouble: Arc<Mutex<Trouble>>,
    pub address: String,
}

impl Fake {
    pub fn listen(socket: &Path, trouble: Trouble) -> Fake {
        let listener = UnixListener::bind(socket).unwrap();
        let fake = Fake {
            books: Arc::default(),
            trouble: Arc::new(Mutex::new(trouble)),
            address: format!("unix:path={}", socket.display()),
        };
        let (books, trouble) = (fake.books.clone(), fake.trouble.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (books, trouble) = (books.clone(), trouble.clone());
                std::thread::spawn(move || Connection { stream, books, trouble, serial: 0 }.serve());
            }
        });
        fake
    }

    pub fn calls(&self) -> Vec<String> {
        self.books.lock().unwrap().calls.clone()
    }
}

struct Connection {
    stream: UnixStream,
    books: Arc<Mutex<Books>>,
    trouble: Arc<Mutex<Trouble>>,
    serial: u32,
}

type Properties = Vec<(String, OwnedValue)>;
/// The fixed part of a header and its fields.
type Header = (u8, u8, u8, u8, u32, u32, Vec<(u8, OwnedValue)>);

impl Connection {
    fn serve(&mut self) -> Option<()> {
        let mut greeting = Vec::new();
        while !greeting.ends_with(b"BEGIN\r\n") {
            greeting.extend(self.read(1)?);
        }
        assert!(greeting.starts_with(b"\0AUTH EXTERNAL\r\n"), "{greeting:?}");
        self.stream.write_all(b"DATA\r\nOK 0123456789abcdef\r\n").ok()?;
        loop {
            let mut bytes = self.read(16)?;
            let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            let (body, serial, fields) = (number(4), number(8) as u32, number(12));
            let header = (16 + fields).next_multiple_of(8);
            bytes.extend(self.read(header - 16 + body)?);
            let body = bytes.split_off(header);
            let data = Data::new(bytes.as_slice(), Context::new_dbus(LE, 0));
            let (parsed, _): (Header, _) = data.deserialize().unwrap();
            let method = parsed.6.into_iter().find(|(code, _)| *code == 3).unwrap().1;
            let method = String::try_from(method).unwrap();
            self.books.lock().unwrap().calls.push(method.clone());
            self.answer(&method, serial, &body)?;
        }
    }

    fn answer(&mut self, method: &str, serial: u32, body: &[u8]) -> Option<()> {
        let data = Data::new(body, Context::new_dbus(LE, 0));
        let trouble = *self.trouble.lock().unwrap();
        match method {
            "Hello" => self.reply(serial, &(":1.1",)),
            "Subscribe" | "AddMatch" | "ResetFailedUnit" => self.reply(serial, &()),
            "Get" if trouble == Trouble::Garbage => self.stream.write_all(&[b'x'; 64]).ok(),
            "Get" => {
                let (interface, name): (String, String) = data.deserialize().unwrap().0;
                let value = match (interface.as_str(), name.as_str()) {
                    ("org.freedesktop.systemd1.Manager", "ControlGroup") => "".to_owned(),
                    ("org.freedesktop.systemd1.Manager", "Version") => "252.1-1".to_owned(),
                    _ => {
                        let books = self.books.lock().unwrap();
                        let unit = books.units.values().next().unwrap();
                        unit["Description"].clone()
                    }
                };
                self.reply(serial, &(Value::from(value),))
            }
            "GetUnit" => {
                let name: String = data.deserialize().unwrap().0;
                if self.books.lock().unwrap().units.contains_key(&name) {
                    self.reply(serial, &(ObjectPath::try_from("/unit/1").unwrap(),))
                } else {
                    self.error(serial, "org.freedesktop.systemd1.NoSuchUnit", "not loaded")
                }
            }
            "StartTransientUnit" => {
                type Auxiliary = Vec<(String, Properties)>;
                let (name, _, properties, _): (String, String, Properties, Auxiliary) = data.deserialize().unwrap().0;
                match trouble {
                    Trouble::DiesBefore => return None,
                    Trouble::Exists => {
                        return self.error(serial, "org.freedesktop.systemd1.UnitExists", "already there");
                    }
                    _ => {}
                }
                let pids = properties.iter().find(|(name, _)| name == "PIDs").unwrap().1.try_clone().unwrap();
                for pid in Vec::<u32>::try_from(pids).unwrap() {
                    for place in directories(&name) {
                        fs::create_dir_all(&place).unwrap();
                        fs::write(place.join("cgroup.procs"), pid.to_string()).unwrap();
                    }
                }
                self.note(&name, properties);
                match trouble {
                    Trouble::DiesAfter => return None,
                    Trouble::SaysNothing => return self.reply(serial, &(ObjectPath::try_from("/job/1").unwrap(),)),
                    _ => {}
                }
                let result = if trouble == Trouble::JobFails { "failed" } else { "done" };
                self.job(serial, &name, result)
            }
            "SetUnitProperties" => {
                let (name, runtime, properties): (String, bool, Properties) = data.deserialize().unwrap().0;
                assert!(runtime);
                self.note(&name, properties);
                self.reply(serial, &())
            }
            "StopUnit" => {
                let (name, _): (String, String) = data.deserialize().unwrap().0;
                for place in directories(&name) {
                    // Whoever is in it dies first, as with systemd.
                    for _ in 0..500 {
                        match fs::remove_dir(&place) {
                            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                                std::thread::sleep(std::time::Duration::from_millis(2));
                            }
                            _ => break,
                        }
                    }
                }
                self.books.lock().unwrap().units.remove(&name);
                self.job(serial, &name, "done")
            }
            other => panic!("nobody asks for {other}"),
        }
    }

    fn note(&self, name: &str, properties: Properties) {
        let mut books = self.books.lock().unwrap();
        let unit = books.units.entry(name.to_owned()).or_default();
        for (name, value) in properties {
            let text = match &*value {
                Value::Str(text) => text.to_string(),
                Value::U64(u64::MAX) => "infinity".to_owned(),
                value => value.to_string().trim_start_matches("uint64 ").to_owned(),
            };
            unit.insert(name, text);
        }
    }

    /// The job's name first, its end after: as systemd does, in that order or the other.
    fn job(&mut self, serial: u32, unit: &str, result: &str) -> Option<()> {
        let job = ObjectPath::try_from("/job/1").unwrap();
        let fields = vec![
            (1_u8, Value::from(ObjectPath::try_from("/org/freedesktop/systemd1").unwrap())),
            (2, Value::from("org.freedesktop.systemd1.Manager")),
            (3, Value::from("JobRemoved")),
        ];
        let signal = (1_u32, job.clone(), unit, result);
        if self.books.lock().unwrap().calls.len().is_multiple_of(2) {
            self.send(4, fields, &signal)?;
            self.reply(serial, &(job,))
        } else {
            self.reply(serial, &(job,))?;
            self.send(4, fields, &signal)
        }
    }

    fn reply<B: serde::Serialize + DynamicType>(&mut self, serial: u32, body: &B) -> Option<()> {
        self.send(2, vec![(5, Value::U32(serial))], body)
    }

    fn error(&mut self, serial: u32, name: &str, text: &str) -> Option<()> {
        self.send(3, vec![(5, Value::U32(serial)), (4, Value::from(name.to_owned()))], &(text,))
    }

    fn send<B: serde::Serialize + DynamicType>(
        &mut self,
        kind: u8,
        mut fields: Vec<(u8, Value<'_>)>,
        body: &B,
    ) -> Option<()> {
        self.serial += 1;
        let context = Context::new_dbus(LE, 0);
        let signature = body.signature().to_string_no_parens();
        let body = zvariant::to_bytes(context, body).unwrap();
        if !signature.is_empty() {
            fields.push((8, zvariant::Signature::try_from(signature.as_str()).unwrap().into()));
        }
        let header = (b'l', kind, 0_u8, 1_u8, body.len() as u32, self.serial, fields);
        let mut bytes = zvariant::to_bytes(context, &header).unwrap().to_vec();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(&body);
        self.stream.write_all(&bytes).ok()
    }

    fn read(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).ok().map(|()| bytes)
    }
}

fn directories(unit: &str) -> [PathBuf; 2] {
    HIERARCHIES.map(|root| Path::new(root).join(unit))
}
