//! NOTIFY_SOCKET: a program in a container tells systemd, by way of the runtime, that it is ready.

mod common;

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::*;

/// systemd's side, and a command of the runtime that has been given it.
struct Service<'t> {
    test: &'t Test,
    socket: UnixDatagram,
    path: PathBuf,
}

impl<'t> Service<'t> {
    fn new(test: &'t Test) -> Self {
        let path = test.path("systemd.socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Service { test, socket, path }
    }

    fn spawn(&self, args: &[&str]) -> Running {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"NOTIFY_SOCKET=$0 exec "$@""#]).arg(&self.path);
        command.arg(binary()).arg("--root").arg(&self.test.root).args(args);
        self.test.spawn(command, Stdio::null())
    }

    /// The next message.
    fn hears(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn hears_nothing(&self) {
        self.socket.set_nonblocking(true).unwrap();
        self.socket.recv(&mut [0; 256]).unwrap_err();
        self.socket.set_nonblocking(false).unwrap();
    }

    /// What the program would say, through its own root.
    fn program_says(&self, c: &Container<'_>, words: &str) {
        let place = format!("/proc/{}/root{}/notify", c.pid(), self.path.display());
        UnixDatagram::unbound().unwrap().send_to(words.as_bytes(), place).unwrap();
    }

    fn is_told_of(&self, c: &Container<'_>) {
        assert_eq!(self.hears(), "READY=1");
        assert_eq!(self.hears(), format!("MAINPID={}", c.pid()));
    }
}

fn idle() -> Spec {
    spec().args(&["sleep", "1000"])
}

#[test]
fn a_detached_run_returns_when_the_program_is_ready() {
    rustbox_only!();
    let t = Test::new();
    let service = Service::new(&t);
    let c = t.bundle(idle());
    let bundle = c.bundle.to_str().unwrap();
    let run = service.spawn(&["run", "--detach", "--bundle", bundle, &c.id]);
    until("it to run", || t.runtime(&["state", &c.id]).code == 0 && c.status() == "running");
    service.program_says(&c, "STATUS=warming up");
    std::thread::sleep(Duration::from_millis(100));
    assert!(alive(run.pid()), "it waits");
    service.hears_nothing();
    service.program_says(&c, "STATUS=ready\nREADY=1\n");
    run.wait().ok();
    service.is_told_of(&c);
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn start_returns_when_the_program_is_ready() {
    rustbox_only!();
    let t = Test::new();
    let service = Service::new(&t);
    let c = t.bundle(idle().userns(700_000, 65536).writable());
    for dir in ["", "proc", "sys", "dev", "etc", "tmp"] {
        std::os::unix::fs::lchown(c.rootfs().join(dir), Some(700_000), Some(700_000)).unwrap();
    }
    service.spawn(&["create", "--bundle", c.bundle.to_str().unwrap(), &c.id]).wait().ok();
    let start = service.spawn(&["start", &c.id]);
    until("it to run", || c.status() == "running");
    // Its root may write to the socket, and every other user of it.
    let socket = format!("{}/notify", service.path.display());
    assert_eq!(c.exec(&["stat", "-c", "%u:%g %a %F", &socket]).ok().line(), "0:0 777 socket");
    assert_eq!(c.exec(&["sh", "-c", "echo $NOTIFY_SOCKET"]).ok().line(), socket);
    assert!(alive(start.pid()), "it waits");
    service.program_says(&c, "READY=1");
    start.wait().ok();
    service.is_told_of(&c);
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_foreground_run_tells_and_goes_on() {
    rustbox_only!();
    let t = Test::new();
    let service = Service::new(&t);
    let c = t.bundle(idle());
    let run = service.spawn(&["run", "--bundle", c.bundle.to_str().unwrap(), &c.id]);
    until("it to run", || t.runtime(&["state", &c.id]).code == 0 && c.status() == "running");
    service.program_says(&c, "READY=1");
    service.is_told_of(&c);
    assert!(alive(run.pid()));
    c.kill("KILL").ok();
    run.wait().code(137);
    t.assert_nothing_left();
}

#[test]
fn a_program_that_ends_without_a_word_is_not_waited_for() {
    rustbox_only!();
    let t = Test::new();
    let service = Service::new(&t);
    for options in [&["run"][..], &["run", "--detach"]] {
        let c = t.bundle(sh("exit 0"));
        service.spawn(&[options, &["--bundle", c.bundle.to_str().unwrap(), &c.id]].concat()).wait().ok();
        service.hears_nothing();
        c.delete_force().ok();
    }
    t.assert_nothing_left();
}

#[test]
fn without_systemd_there_is_no_socket() {
    let t = Test::new();
    let c = t.bundle(sh("echo ${NOTIFY_SOCKET-none}; grep -c notify /proc/self/mountinfo"));
    assert_eq!(c.run().stdout, "none\n0\n");
}
