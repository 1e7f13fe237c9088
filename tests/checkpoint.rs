//! `checkpoint` and `restore`. What needs a CRIU that works on this kernel is skipped where there is none; `RUSTBOX_CRIU`
//! names another program than `criu`.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::*;

/// A CRIU that works here, or why there is none.
fn criu() -> Result<String, String> {
    let program = std::env::var("RUSTBOX_CRIU").unwrap_or_else(|_| "criu".to_owned());
    match Command::new(&program).arg("check").output() {
        Err(error) => Err(format!("{program}: {error}")),
        Ok(out) if out.status.success() => Ok(program),
        Ok(out) => {
            let text = String::from_utf8_lossy(&out.stderr).into_owned();
            Err(format!("{program} check: {}", text.lines().last().unwrap_or("fails")))
        }
    }
}

macro_rules! need_criu {
    () => {
        match criu() {
            Ok(program) => program,
            Err(reason) => skip!("{reason}"),
        }
    };
}

struct Images<'t> {
    container: &'t Container<'t>,
    criu: String,
    directory: PathBuf,
}

impl<'t> Images<'t> {
    fn of(container: &'t Container<'t>, criu: &str) -> Self {
        Images { container, criu: criu.to_owned(), directory: container.test.path("images") }
    }

    fn checkpoint(&self, options: &[&str]) -> Out {
        let images = ["--image-path", self.directory.to_str().unwrap()];
        let test = self.container.test;
        test.runtime(&[&["--criu", &self.criu, "checkpoint"], &images[..], options, &[&self.container.id]].concat())
    }

    fn restore_command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--root").arg(&self.container.test.root).args(["--criu", &self.criu, "restore", "--image-path"]);
        command.arg(&self.directory).arg("--bundle").arg(&self.container.bundle).args(options).arg(&self.container.id);
        command
    }

    fn restore(&self, options: &[&str]) -> Out {
        let out = self.container.test.finish(self.restore_command(&[&["--detach"], options].concat()));
        if out.code == 0 {
            self.container.test.remember(self.container.pid());
        }
        out
    }

    /// The log's last lines, for when it went wrong.
    fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// A program that counts in its memory and shows the count in a tmpfs.
fn counter() -> Spec {
    sh("n=0; while :; do n=$((n+1)); echo $n > /dev/shm/count; sleep 0.02; done")
}

fn count(c: &Container<'_>) -> u32 {
    // The file is empty for a moment.
    let mut found = None;
    until("a count", || {
        found = c.exec(&["cat", "/dev/shm/count"]).ok().line().parse().ok();
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_restored_program_goes_on_where_it_was() {
    rustbox_only!();
    let criu = need_criu!();
    let t = Test::new();
    let c = t.bundle(counter().resources(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 20}})));
    c.up();
    until("a count of 5", || count(&c) >= 5);
    let images = Images::of(&c, &criu);
    let before = count(&c);
    let pid = c.pid();
    images.checkpoint(&[]).ok();
    assert!(!alive(pid), "killed when it is saved");
    c.state_out().denied().says(&["does not exist"]);
    t.assert_nothing_left();

    let pid_file = t.path("pid");
    let out = images.restore(&["--pid-file", pid_file.to_str().unwrap()]);
    assert_eq!(out.code, 0, "{out:#?}\n{}", images.log("restore.log"));
    assert_eq!(c.status(), "running");
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), c.pid().to_string());
    until("a higher count", || count(&c) > before + 3);
    assert_eq!(c.cgroup_file("memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(c.cgroup_file("pids", "cgroup.procs").lines().next(), Some(c.pid().to_string().as_str()));
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn what_confined_a_container_confines_it_after_a_restore() {
    rustbox_only!();
    let criu = need_criu!();
    let t = Test::new();
    let probe = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp|Uid):' /proc/1/status;
        touch /new 2>&1; echo x 2>&1 > /sys/fs/cgroup/memory/memory.limit_in_bytes; echo 1 2>&1 > /proc/sys/kernel/domainname;
        wc -c < /proc/keys; ls /proc/acpi /sys/firmware | wc -l; cat /proc/mounts | cut -d' ' -f2-4 | sort; id; hostname; true";
    let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]});
    let c = t.bundle(counter().set("/linux/seccomp", seccomp));
    c.up();
    let before = c.exec(&["sh", "-c", probe]).ok();
    let images = Images::of(&c, &criu);
    images.checkpoint(&[]).ok();
    images.restore(&[]).ok();
    let after = c.exec(&["sh", "-c", probe]).ok();
    assert_eq!(before.stdout, after.stdout, "{after:#?}");
    assert!(after.stdout.contains("Seccomp:\t2"), "{after:#?}");
    assert_eq!(after.stdout.matches("Read-only").count(), 3, "{after:#?}");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn bind_mounts_come_from_the_bundle_again() {
    rustbox_only!();
    let criu = need_criu!();
    let t = Test::new();
    let data = t.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "one").unwrap();
    let bind = |spec: Spec| spec.bind(data.to_str().unwrap(), "/mnt", &["rbind", "ro"]);
    let c = t.bundle(bind(sh("exec 3< /mnt/file; while :; do sleep 0.02; done")));
    c.up();
    c.exec(&["cat", "/mnt/file"]).ok();
    let images = Images::of(&c, &criu);
    images.checkpoint(&[]).ok();
    // The mount point itself was made by the first life, and is made again.
    let _ = fs::remove_dir(c.rootfs().join("mnt"));
    let out = images.restore(&[]);
    assert_eq!(out.code, 0, "{out:#?}\n{}", images.log("restore.log"));
    fs::write(data.join("file"), "two").unwrap();
    assert_eq!(c.exec(&["cat", "/mnt/file"]).ok().line(), "two");
    c.exec(&["touch", "/mnt/file"]).fails().says(&["Read-only"]);
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn mount_points_that_lie_in_a_bind_mount_are_made_again() {
    rustbox_only!();
    let criu = need_criu!();
    let t = Test::new();
    let (outer, inner) = (t.path("outer"), t.path("inner"));
    fs::create_dir(&outer).unwrap();
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("file"), "inner").unwrap();
    let spec = sh("while :; do sleep 0.02; done").bind(outer.to_str().unwrap(), "/mnt", &["bind"]).bind(
        inner.to_str().unwrap(),
        "/mnt/a/b",
        &["bind"],
    );
    let c = t.bundle(spec);
    c.up();
    let images = Images::of(&c, &criu);
    images.checkpoint(&[]).ok();
    fs::remove_dir_all(outer.join("a")).unwrap();
    let out = images.restore(&[]);
    assert_eq!(out.code, 0, "{out:#?}\n{}", images.log("restore.log"));
    assert_eq!(c.exec(&["cat", "/mnt/a/b/file"]).ok().line(), "inner");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_bind_mount_behind_a_link_is_found_again() {
    rustbox_only!();
    let criu = need_criu!();
    let t = Test::new();
    let data = t.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "data").unwrap();
    let spec = sh("while :; do sleep 0.02; done").bind(data.to_str().unwrap(), "/link", &["bind"]);
    let c = t.bundle(spec);
    fs::create_dir_all(c.rootfs().join("real/place")).unwrap();
    std::os::unix::fs::symlink("/real/place", c.rootfs().join("link")).unwrap();
    c.up();
    let images = Images::of(&c, &criu);
    images.checkpoint(&[]).ok();
    let out = images.restore(&[]);
    assert_eq!(out.code, 0, "{out:#?}\n{}", images.log("restore.log"));
    assert_eq!(c.exec(&["cat", "/real/place/file"]).ok().line(), "data");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_paused_container_is_saved_and_stays_paused_or_goes() {
    rustbox_only!();
    let criu = need_criu!();
    let t = Test::new();
    let c = t.bundle(counter());
    c.up();
    until("a count of 5", || count(&c) >= 5);
    let before = count(&c);
    t.runtime(&["pause", &c.id]).ok();
    let first = Images { directory: t.path("images/first"), ..Images::of(&c, &criu) };
    let out = first.checkpoint(&["--leave-running"]);
    assert_eq!(out.code, 0, "{out:#?}\n{}", first.log("dump.log"));
    assert_eq!(c.status(), "paused");
    let second = Images { directory: t.path("images/second"), ..Images::of(&c, &criu) };
    let out = second.checkpoint(&[]);
    assert_eq!(out.code, 0, "{out:#?}\n{}", second.log("dump.log"));
    t.assert_nothing_left();
    second.restore(&[]).ok();
    until("a higher count", || count(&c) > before + 3);
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_stream_that_the_program_has_put_elsewhere_is_still_the_hosts() {
    rustbox_only!();
    let criu = need_criu!();
    let t = Test::new();
    // As a shell does for as long as `echo > file` takes.
    let c = t.bundle(sh("exec 10>&1 >/dev/shm/log; echo up; while :; do sleep 0.02; done"));
    c.up();
    until("the program's log", || c.exec(&["cat", "/dev/shm/log"]).stdout == "up\n");
    let images = Images::of(&c, &criu);
    let out = images.checkpoint(&[]);
    assert_eq!(out.code, 0, "{out:#?}\n{}", images.log("dump.log"));
    let out = images.restore(&[]);
    assert_eq!(out.code, 0, "{out:#?}\n{}", images.log("restore.log"));
    let stream = |fd| fs::read_link(format!("/proc/{}/fd/{fd}", c.pid())).unwrap();
    assert_eq!(stream(1), PathBuf::from("/dev/shm/log"));
    assert!(stream(10).starts_with(t.path("io")), "{:?}", stream(10));
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn leave_running_lets_the_container_go_on() {
    rustbox_only!();
    let criu = need_criu!();
    let t = Test::new();
    let c = t.bundle(counter());
    c.up();
    count(&c);
    let first = Images { directory: t.path("images/first"), ..Images::of(&c, &criu) };
    first.checkpoint(&["--leave-running", "--work-path", t.path("work").to_str().unwrap()]).ok();
    assert_eq!(c.status(), "running");
    assert!(t.path("work/dump.log").exists());
    assert!(!first.directory.join("dump.log").exists());
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_pre_dump_saves_memory_ahead_and_lets_the_container_go_on() {
    rustbox_only!();
    let criu = need_criu!();
    let t = Test::new();
    let c = t.bundle(counter());
    c.up();
    let parent = Images { directory: t.path("images/parent"), ..Images::of(&c, &criu) };
    let out = parent.checkpoint(&["--pre-dump"]);
    if out.stderr.contains("Tracking memory is not available") {
        assert_eq!(c.status(), "running");
        skip!("this kernel does not track memory");
    }
    out.ok();
    assert_eq!(c.status(), "running");
    let last = Images { directory: t.path("images/last"), ..Images::of(&c, &criu) };
    last.checkpoint(&["--parent-path", "../parent"]).ok();
    c.state_out().denied();
    let out = last.restore(&[]);
    assert_eq!(out.code, 0, "{out:#?}\n{}", last.log("restore.log"));
    count(&c);
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_restore_in_the_foreground_returns_the_programs_status_and_deletes() {
    rustbox_only!();
    let criu = need_criu!();
    let t = Test::new();
    let c = t.bundle(sh("trap 'exit 7' TERM; echo up > /dev/shm/up; while :; do sleep 0.02; done"));
    c.up();
    until("the trap", || c.exec(&["cat", "/dev/shm/up"]).code == 0);
    let images = Images::of(&c, &criu);
    images.checkpoint(&[]).ok();
    let running = t.spawn(images.restore_command(&[]), Stdio::null());
    until("running", || c.state_out().stdout.contains("running"));
    // The command forwards it.
    running.signal(libc_sigterm());
    running.wait().code(7);
    c.state_out().denied().says(&["does not exist"]);
    t.assert_nothing_left();
}

fn libc_sigterm() -> i32 {
    nix::sys::signal::Signal::SIGTERM as i32
}

#[test]
fn a_terminal_comes_back_over_a_console_socket() {
    rustbox_only!();
    let criu = need_criu!();
    let t = Test::new();
    let c = t.bundle(sh("while read line; do echo \"got $line\"; done").set("/process/terminal", json!(true)));
    let path = t.path("console");
    let listener = UnixListener::bind(&path).unwrap();
    c.create_with(&["--console-socket", path.to_str().unwrap()]).ok();
    let (_, masters) = received(&listener.accept().unwrap().0);
    c.start().ok();
    let images = Images::of(&c, &criu);
    images.checkpoint(&["--shell-job"]).ok();
    drop(masters);
    let out = images.restore(&["--shell-job", "--console-socket", path.to_str().unwrap()]);
    assert_eq!(out.code, 0, "{out:#?}\n{}", images.log("restore.log"));
    let (_, masters) = received(&listener.accept().unwrap().0);
    let mut master = fs::File::from(masters.into_iter().next().unwrap());
    master.write_all(b"again\n").unwrap();
    let mut said = String::new();
    until("the answer", || {
        let mut buffer = [0; 256];
        let length = master.read(&mut buffer).unwrap();
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
        said.contains("got again")
    });
    c.kill_and_delete();
}

#[test]
fn only_a_started_container_can_be_checkpointed() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(spec().args(&["sleep", "1000"]));
    let images = Images::of(&c, "/nonexistent/criu");
    images.checkpoint(&[]).denied().says(&[&c.id, "does not exist"]);
    c.create().ok();
    images.checkpoint(&[]).denied().says(&[&c.id, "it is created"]);
    c.start().ok();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    images.checkpoint(&[]).denied().says(&[&c.id, "it is stopped"]);
    assert!(!images.directory.exists(), "nothing is made before");
    c.delete().ok();
}

#[test]
fn a_missing_or_failing_criu_is_an_error_and_the_container_goes_on() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(counter());
    c.up();
    Images::of(&c, "/nonexistent/criu").checkpoint(&[]).denied().says(&["/nonexistent/criu", "No such file"]);
    Images::of(&c, "no-such-criu").checkpoint(&[]).denied().says(&["no-such-criu", "No such file"]);
    let fake = t.path("criu");
    executable(&fake, "#!/bin/sh\nexit 1\n");
    Images::of(&c, fake.to_str().unwrap()).checkpoint(&[]).denied().says(&[
        "criu cannot dump",
        "dump.log",
        "criu check",
    ]);
    executable(&fake, "not a program");
    Images::of(&c, fake.to_str().unwrap()).checkpoint(&[]).denied().says(&["Exec format error"]);
    assert_eq!(c.status(), "running");
    c.kill_and_delete();
    t.assert_nothing_left();
}

#[test]
fn a_failed_restore_leaves_nothing() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(counter());
    let fake = t.path("criu");
    executable(&fake, "#!/bin/sh\nexit 1\n");
    let images = Images::of(&c, fake.to_str().unwrap());
    images.restore(&[]).denied().says(&["images", "No such file"]);
    fs::create_dir(&images.directory).unwrap();
    images.restore(&[]).denied().says(&["holds no checkpoint"]);
    fs::write(images.directory.join("rustbox.json"), "garbage").unwrap();
    images.restore(&[]).denied().says(&["rustbox.json"]);
    fs::write(images.directory.join("rustbox.json"), r#"{"external": ["/elsewhere"], "descriptors": []}"#).unwrap();
    images.restore(&[]).denied().says(&["/elsewhere"]);
    fs::write(images.directory.join("rustbox.json"), r#"{"external": [], "descriptors": []}"#).unwrap();
    images.restore(&[]).denied().says(&["criu cannot restore", "restore.log"]);
    c.state_out().denied().says(&["does not exist"]);
    t.assert_nothing_left();
}

#[test]
fn a_restore_does_not_take_an_id_in_use() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(counter());
    c.up();
    let images = Images::of(&c, "/nonexistent/criu");
    fs::create_dir(&images.directory).unwrap();
    fs::write(images.directory.join("rustbox.json"), r#"{"external": [], "descriptors": []}"#).unwrap();
    let out = t.finish(images.restore_command(&["--detach"]));
    out.denied().says(&[&c.id, "exists already"]);
    assert_eq!(c.status(), "running");
    c.kill_and_delete();
}

#[test]
fn options_that_make_no_sense_are_usage_errors() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(counter());
    c.up();
    let images = Images::of(&c, "/nonexistent/criu");
    images.checkpoint(&["--manage-cgroups-mode", "sometimes"]).usage().says(&["sometimes"]);
    images.checkpoint(&["--empty-ns", "pid"]).usage().says(&["pid"]);
    images.checkpoint(&["--page-server", "nowhere"]).usage().says(&["nowhere"]);
    images.checkpoint(&["--parent-path", "/absolute"]).usage().says(&["relative"]);
    images.checkpoint(&["--parent-path", "missing"]).denied().says(&["missing", "No such file"]);
    c.kill_and_delete();
}
