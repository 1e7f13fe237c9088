//! `process.terminal`: the console socket, and the terminal that the program sees.

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use common::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The receiving end of a console socket.
struct Receiver {
    listener: UnixListener,
    path: PathBuf,
}

impl Receiver {
    fn new(t: &Test, name: &str) -> Self {
        let path = t.path(name);
        Receiver { listener: UnixListener::bind(&path).unwrap(), path }
    }

    fn option(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The master that the runtime has sent.
    #[track_caller]
    fn terminal(&self) -> Terminal {
        let mut waited = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut waited, PollTimeout::from(5000u16)).unwrap(), 1, "nobody connected to the console socket");
        let (connection, _) = self.listener.accept().unwrap();
        let (name, mut fds) = received(&connection);
        assert_eq!(fds.len(), 1, "exactly one descriptor");
        assert!(!name.is_empty(), "the message has a name");
        let fd = fds.remove(0);
        Terminal { master: fd.into(), seen: String::new() }
    }
}

/// A terminal's master.
struct Terminal {
    master: File,
    seen: String,
}

impl Terminal {
    /// Reads until the text has come, or the end.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> &str {
        let mut buffer = [0; 4096];
        while !self.seen.contains(text) {
            let mut waited = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut waited, PollTimeout::from(5000u16)).unwrap(), 1, "no `{text}` in {:?}", self.seen);
            match self.master.read(&mut buffer) {
                Ok(0) | Err(_) => panic!("the terminal closed without `{text}`: {:?}", self.seen),
                Ok(length) => self.seen += &String::from_utf8_lossy(&buffer[..length]),
            }
        }
        &self.seen
    }

    fn rest(mut self) -> String {
        let mut buffer = [0; 4096];
        loop {
            match self.master.read(&mut buffer) {
                // The last slave has closed.
                Ok(0) | Err(_) => return self.seen,
                Ok(length) => self.seen += &String::from_utf8_lossy(&buffer[..length]),
            }
        }
    }
}

fn terminal(script: &str) -> Spec {
    sh(script).set("/process/terminal", json!(true))
}

#[test]
fn the_console_socket_gets_the_terminals_master() {
    let t = Test::new();
    let receiver = Receiver::new(&t, "console.sock");
    let c = t.bundle(terminal("tty; stat -c %F $(tty); test -t 0 && test -t 1 && test -t 2 && echo all three"));
    c.create_with(&["--console-socket", receiver.option()]).ok();
    let terminal = receiver.terminal();
    c.start().ok();
    let seen = terminal.rest();
    assert!(seen.contains("/dev/pts/0\r\ncharacter special file\r\nall three\r\n"), "{seen:?}");
    c.wait_status("stopped");
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn the_console_is_there_before_it_is_masked_or_its_directory_made_readonly() {
    for (paths, expected) in [("maskedPaths", "1:3"), ("readonlyPaths", "88:0")] {
        let t = Test::new();
        let receiver = Receiver::new(&t, "console.sock");
        let path = if paths == "maskedPaths" { "/dev/console" } else { "/dev" };
        let spec = terminal("stat -c %t:%T /dev/console; touch /dev/x").set(&format!("/linux/{paths}"), json!([path]));
        let c = t.bundle(spec);
        c.run_with(&["--detach", "--console-socket", receiver.option()]).ok();
        let seen = receiver.terminal().rest();
        assert!(seen.contains(&format!("{expected}\r\n")), "{paths}: {seen:?}");
        assert_eq!(seen.contains("Read-only file system"), paths == "readonlyPaths", "{seen:?}");
        c.wait_status("stopped");
        c.delete().ok();
        t.assert_nothing_left();
    }
}

#[test]
fn what_is_typed_reaches_the_program_and_control_c_interrupts_it() {
    let t = Test::new();
    let receiver = Receiver::new(&t, "console.sock");
    let c = t.bundle(terminal("read line; echo \"got $line\"; trap 'echo interrupted; exit 0' INT; echo waiting; while :; do sleep 0.02; done"));
    c.run_with(&["--detach", "--console-socket", receiver.option()]).ok();
    let mut terminal = receiver.terminal();
    terminal.master.write_all(b"some words\n").unwrap();
    terminal.wait_for("got some words");
    terminal.wait_for("waiting");
    terminal.master.write_all(b"\x03").unwrap();
    terminal.wait_for("interrupted");
    c.wait_status("stopped");
    c.delete().ok();
    t.assert_nothing_left();
}

#[test]
fn the_terminal_is_the_controlling_one() {
    let t = Test::new();
    let receiver = Receiver::new(&t, "console.sock");
    let c =
        t.bundle(terminal("echo from the tty > /dev/tty; stat -c %t:%T /dev/console >/dev/null 2>&1 && echo console"));
    c.run_with(&["--detach", "--console-socket", receiver.option()]).ok();
    let seen = receiver.terminal().rest();
    assert!(seen.contains("from the tty\r\n") && seen.contains("console\r\n"), "{seen:?}");
}

#[test]
fn the_console_size_of_the_configuration_is_set() {
    let t = Test::new();
    let receiver = Receiver::new(&t, "console.sock");
    let c = t.bundle(terminal("stty size").patch(json!({"process": {"consoleSize": {"height": 33, "width": 99}}})));
    c.run_with(&["--detach", "--console-socket", receiver.option()]).ok();
    let seen = receiver.terminal().rest();
    assert!(seen.contains("33 99"), "{seen:?}");
}

#[test]
fn the_terminal_belongs_to_the_user() {
    let t = Test::new();
    let receiver = Receiver::new(&t, "console.sock");
    let c = t.bundle(
        terminal("stat -c '%u' $(tty); echo writable > $(tty)")
            .patch(json!({"process": {"user": {"uid": 1000, "gid": 1000}}})),
    );
    c.run_with(&["--detach", "--console-socket", receiver.option()]).ok();
    let seen = receiver.terminal().rest();
    assert!(seen.contains("1000\r\n") && seen.contains("writable"), "{seen:?}");
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    let t = Test::new();
    let receiver = Receiver::new(&t, "exec.sock");
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    c.exec_with(
        &["--tty", "--detach", "--console-socket", receiver.option()],
        &["sh", "-c", "tty; test -t 0 && echo terminal"],
    )
    .ok();
    let seen = receiver.terminal().rest();
    assert!(seen.contains("/dev/pts/0\r\nterminal\r\n"), "{seen:?}");
    let mut process = sh("tty; echo by document").0["process"].clone();
    process["terminal"] = json!(true);
    let receiver = Receiver::new(&t, "document.sock");
    c.exec_process(&process, &["--detach", "--console-socket", receiver.option()]).ok();
    let seen = receiver.terminal().rest();
    assert!(seen.contains("/dev/pts/") && seen.contains("by document"), "{seen:?}");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_terminal_without_a_console_socket_is_refused_by_create() {
    let t = Test::new();
    let c = t.bundle(terminal("true"));
    c.create().denied().rustbox_says(&["process.terminal", "--console-socket"]);
    t.assert_nothing_left();
    c.run_with(&["--detach"]).denied();
    t.assert_nothing_left();
}

#[test]
fn a_console_socket_without_a_terminal_is_refused() {
    let t = Test::new();
    let receiver = Receiver::new(&t, "console.sock");
    let c = t.bundle(spec());
    not_under!(Crun, "ignores it");
    c.create_with(&["--console-socket", receiver.option()]).fails().rustbox_says(&["terminal"]);
    t.assert_nothing_left();
}

#[test]
fn a_missing_or_foreign_console_socket_is_an_error_that_names_it() {
    let t = Test::new();
    let c = t.bundle(terminal("true"));
    for name in ["no.sock", "plain-file"] {
        let path = t.path(name);
        if name == "plain-file" {
            std::fs::write(&path, "").unwrap();
        }
        c.create_with(&["--console-socket", path.to_str().unwrap()]).denied().rustbox_says(&[name]);
        t.assert_nothing_left();
    }
}

#[test]
fn a_console_socket_whose_path_is_longer_than_an_address_works_or_says_why() {
    let t = Test::new();
    let dir = t.path(&"d".repeat(120));
    std::fs::create_dir(&dir).unwrap();
    let c = t.bundle(terminal("true"));
    let out = c.create_with(&["--console-socket", dir.join("console.sock").to_str().unwrap()]);
    out.fails();
    t.assert_nothing_left();
}

#[test]
fn a_foreground_run_passes_a_terminal_through() {
    let t = Test::new();
    let c = t.bundle(terminal("tty; stty size; read line; echo \"got $line\"; exit 6"));
    let bundle = c.bundle.to_str().unwrap();
    // `script` gives the runtime a terminal of its own.
    let inner = format!(
        "stty rows 40 cols 111; {} --root {} run --bundle {bundle} {}",
        binary().display(),
        t.root.display(),
        c.id
    );
    let mut command = std::process::Command::new("script");
    command.args(["-qefc", &inner, "/dev/null"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let running = t.spawn(command, reader.into());
    running.wait_for("40 111");
    writer.write_all(b"typed\n").unwrap();
    running.wait_for("got typed");
    let out = running.wait();
    assert_eq!(out.code, 6, "{out:?}");
    assert!(out.stdout.contains("/dev/pts/0"), "{out:?}");
    drop(writer);
    t.assert_nothing_left();
}

#[test]
fn a_foreground_exec_passes_a_terminal_through() {
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    c.up();
    let program = "tty; stty size; read line; echo \\\"got $line\\\"; exit 6";
    let inner = format!(
        "stty rows 41 cols 112; {} --root {} exec -t {} sh -c \"{program}\"",
        binary().display(),
        t.root.display(),
        c.id
    );
    let inner = inner.replace("$line", "\\$line");
    let mut command = std::process::Command::new("script");
    command.args(["-qefc", &inner, "/dev/null"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let running = t.spawn(command, reader.into());
    running.wait_for("41 112");
    writer.write_all(b"typed\n").unwrap();
    running.wait_for("got typed");
    let out = running.wait();
    assert_eq!(out.code, 6, "{out:?}");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_resized_terminal_resizes_the_programs() {
    use rustbox::sys::tty::{Size, set_size};
    let t = Test::new();
    let script = "trap 'stty size' WINCH; echo up; while :; do sleep 0.02; done";
    let run = t.bundle(terminal(script));
    let bundle = run.bundle.to_str().unwrap().to_owned();
    let idle = t.bundle(spec().args(&["sleep", "1000"]));
    idle.up();
    for args in [&["run", "--bundle", &bundle, &run.id][..], &["exec", "--tty", &idle.id, "sh", "-c", script]] {
        let pair = nix::pty::openpty(None, None).unwrap();
        // The kernel tells whoever has the terminal as its controlling one.
        let mut command = std::process::Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(binary()).arg("--root").arg(&t.root).args(args);
        let running = t.spawn(command, pair.slave.into());
        running.wait_for("up");
        for (rows, columns) in [(50, 132), (7, 20)] {
            set_size(pair.master.as_fd(), Size { rows, columns }).unwrap();
            running.wait_for(&format!("{rows} {columns}"));
        }
        let stop = if args[0] == "run" { run.kill("KILL") } else { idle.kill("KILL") };
        stop.ok();
        running.wait().code(137);
    }
    idle.wait_status("stopped");
    idle.delete().ok();
    t.assert_nothing_left();
}
