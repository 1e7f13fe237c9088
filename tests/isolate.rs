//! `isolate` through the real binary: every option, the meta-file's keys, the status line and the exit codes.

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{Out, Test, binary, rustbox_only, until};

/// A box of a test, and what its last run came to.
struct Box<'t> {
    test: &'t Test,
    id: String,
    place: PathBuf,
}

impl<'t> Box<'t> {
    #[track_caller]
    fn new(test: &'t Test) -> Box<'t> {
        Box::numbered(test, "0")
    }

    #[track_caller]
    fn numbered(test: &'t Test, id: &str) -> Box<'t> {
        let out = test.runtime(&["isolate", "-b", id, "--init"]).ok();
        let place = PathBuf::from(out.line());
        assert!(place.join("box").is_dir(), "{out:?}");
        Box { test, id: id.to_owned(), place }
    }

    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.place.join("box").join(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.place.join("box").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Runs a program; gives the meta-file too.
    #[track_caller]
    fn run(&self, options: &[&str], program: &[&str]) -> (Out, BTreeMap<String, String>) {
        let meta = self.test.path("meta");
        let meta = meta.to_str().unwrap();
        let out =
            self.test.runtime(&[&["isolate", "-b", &self.id, "--run", "-M", meta], options, &["--"], program].concat());
        let text = std::fs::read_to_string(meta).unwrap_or_default();
        let keys = text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key.into(), value.into()));
        self.test.assert_nothing_left();
        (out, keys.collect())
    }

    /// Runs a line of shell with any number of processes.
    #[track_caller]
    fn sh(&self, options: &[&str], script: &str) -> (Out, BTreeMap<String, String>) {
        self.run(&[&["-p"], options].concat(), &["/bin/sh", "-c", script])
    }

    #[track_caller]
    fn cleanup(self) {
        self.test.runtime(&["isolate", "-b", &self.id, "--cleanup"]).ok();
        assert!(!self.place.exists());
        let ids: Vec<_> = std::fs::read_dir(self.test.root.join(".ids")).into_iter().flatten().flatten().collect();
        assert!(ids.is_empty(), "{ids:?}");
        self.test.runtime(&["health", "--verify-clean"]).ok();
    }
}

#[test]
fn a_program_that_ends_well() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    let (out, meta) = place.sh(&["-t", "5", "--cg"], "echo hello; cat; echo x > new");
    let out = out.ok();
    assert_eq!(out.stdout, "hello\n", "the caller's own output");
    let line = out.stderr.lines().last().unwrap();
    assert!(line.starts_with("OK (0.") && line.contains(" sec real, 0.") && line.ends_with(" sec wall)"), "{line}");
    let keys: Vec<&str> = meta.keys().map(String::as_str).collect();
    assert_eq!(keys, ["cg-mem", "csw-forced", "csw-voluntary", "exitcode", "max-rss", "time", "time-wall"]);
    assert_eq!(meta["exitcode"], "0");
    let seconds = meta["time"].split_once('.').unwrap();
    assert!(seconds.0 == "0" && seconds.1.len() == 3, "{meta:?}");
    assert!(meta["max-rss"].parse::<u64>().unwrap() > 200 && meta["cg-mem"].parse::<u64>().unwrap() > 50, "{meta:?}");
    let new = place.place.join("box/new");
    assert_eq!(std::fs::metadata(&new).unwrap().uid(), 0, "files are the caller's again");
    let (_, meta) = place.sh(&[], "true");
    assert!(!meta.contains_key("cg-mem"), "only with --cg");
    assert_eq!(place.read("new"), "x\n", "a box lasts until its cleanup");
    place.cleanup();
}

#[test]
fn each_end_has_its_status_message_and_exit_code() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    for (options, script, want, exit, message) in [
        (&[][..], "exit 3", "RE", 1, "Exited with error status 3"),
        (&[], "kill -SEGV $$", "SG", 1, "Caught fatal signal 11"),
        (&["-t", "0.2", "-w", "20"], "while :; do :; done", "TO", 1, "Time limit exceeded"),
        (&["-w", "0.3"], "sleep 9", "TO", 1, "Time limit exceeded (wall clock)"),
        (&[], "unshare -U true", "SG", 1, "Forbidden system call unshare"),
    ] {
        let (out, meta) = place.sh(options, script);
        let out = out.code(exit);
        assert_eq!((meta["status"].as_str(), meta["message"].as_str()), (want, message), "{script}");
        assert_eq!(out.stderr.lines().last(), Some(message), "{script}");
        assert_eq!(meta.get("killed").map(String::as_str), (want == "TO" || script.contains("unshare")).then_some("1"));
        match want {
            "RE" => assert_eq!(meta["exitcode"], "3"),
            "SG" => assert!(meta.contains_key("exitsig")),
            _ => assert!(!meta.contains_key("exitcode") && !meta.contains_key("exitsig"), "{meta:?}"),
        }
    }
    for (options, program, words) in [
        (&[][..], "/no/such/program", "/no/such/program"),
        (&["-d", "x=/nowhere"], "/bin/true", "/nowhere"),
        (&["-i", "missing"], "/bin/true", "missing"),
    ] {
        let (out, meta) = place.run(options, &[program]);
        out.code(2).says(&[words]);
        assert!(meta["status"] == "XX" && meta["message"].contains(words), "{meta:?}");
    }
    place.cleanup();
}

#[test]
fn time_past_the_limit_is_still_over_it() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    let (out, meta) =
        place.sh(&["-t", "0.1", "-x", "30", "-w", "60"], "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
    out.code(1);
    assert_eq!((meta["status"].as_str(), meta.get("killed")), ("TO", None), "it ended by itself: {meta:?}");
    place.cleanup();
}

#[test]
fn limits_are_those_of_the_options() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    let show = "ulimit -a; cat /proc/self/limits";
    let limit = |options: &[&str], name: &str| {
        let (out, _) = place.sh(options, show);
        let out = out.ok();
        let line = out.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {out:?}"));
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit(&[], "Max open files"), "64");
    assert_eq!(limit(&["-n", "100"], "Max open files"), "100");
    assert_ne!(limit(&["-n", "0"], "Max open files"), "64");
    assert_eq!(limit(&["-m", "500000"], "Max address space"), "512000000");
    assert_eq!(limit(&[], "Max address space"), "unlimited");
    assert_eq!(limit(&["-k", "1024"], "Max stack size"), "1048576");
    assert_eq!(limit(&["-f", "64"], "Max file size"), "65536");
    assert_eq!(limit(&[], "Max file size"), "unlimited");
    assert_eq!(limit(&["--core=10"], "Max core file size"), "10240");
    // 1 byte: a core that is piped to a program of the host's is not made either.
    assert_eq!(limit(&[], "Max core file size"), "1");
    let (_, meta) = place.run(&["-f", "16", "-o", "out"], &["/usr/bin/head", "-c", "100k", "/dev/zero"]);
    assert_eq!(meta["exitsig"], "25");
    // One process: the shell cannot fork.
    let (out, meta) = place.run(&[], &["/bin/sh", "-c", "/bin/true; /bin/true & wait"]);
    out.code(1);
    assert_eq!(meta["status"], "RE");
    place.run(&["-p2"], &["/bin/sh", "-c", "/bin/true; exit 0"]).0.ok();
    place.run(&["--processes=2"], &["/bin/sh", "-c", "/bin/true; exit 0"]).0.ok();
    let (out, meta) = place.run(&["--cg", "--cg-mem=20000", "-p"], &["/bin/sh", "-c", "head -c 60m /dev/zero | tail"]);
    out.code(1);
    assert_eq!(meta["cg-oom-killed"], "1", "{meta:?}");
    // The shell says so of `tail`, but where the kernel kills the shell too before that has given its memory back.
    let ended = (meta.get("exitcode").map(String::as_str), meta.get("exitsig").map(String::as_str));
    assert!(matches!(ended, (Some("137"), None) | (None, Some("9"))), "{meta:?}");
    assert!(meta["cg-mem"].parse::<u64>().unwrap() <= 20_000);
    place.cleanup();
}

#[test]
fn streams_are_files_of_the_box() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    place.file("in", "from a file\n");
    let (out, _) = place.sh(&["-i", "in", "-o", "out", "-r", "err"], "cat; echo wrong >&2");
    assert_eq!(out.ok().stdout, "");
    assert_eq!((place.read("out").as_str(), place.read("err").as_str()), ("from a file\n", "wrong\n"));
    place.sh(&["-i", "/box/in", "-o", "out", "--stderr-to-stdout"], "cat >&2; echo more").0.ok();
    assert_eq!(place.read("out"), "from a file\nmore\n", "it is emptied first");
    std::fs::create_dir(place.place.join("box/sub")).unwrap();
    place.sh(&["-c", "sub", "-o", "here"], "pwd; echo x > made").0.ok();
    assert_eq!((place.read("sub/here").as_str(), place.read("sub/made").as_str()), ("/box/sub\n", "x\n"));
    // What a program has left to lead the next run astray.
    place.sh(&["--special-files"], "ln -s /etc/passwd link; mkfifo fifo; ln -s ../../../../etc/hostname up").0.ok();
    for (option, name) in
        [("-i", "link"), ("-i", "up"), ("-i", "fifo"), ("-o", "fifo"), ("-i", "../box.lock"), ("-o", "/etc/x")]
    {
        let (out, meta) = place.run(&["--special-files", option, name], &["/bin/cat"]);
        out.code(2);
        assert_eq!(meta["status"], "XX", "{option} {name}");
    }
    assert!(!std::path::Path::new("/etc/x").exists());
    place.run(&["-i", "/dev/null"], &["/bin/cat"]).0.ok();
    let script = "\"$@\" isolate --run -p -- /bin/cat <\"$0\"";
    let given = test.path("given");
    std::fs::write(&given, "the caller's").unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).arg(&given).arg(binary()).arg("--root").arg(&test.root);
    assert_eq!(test.spawn(command, Stdio::null()).wait().ok().stdout, "the caller's");
    assert_eq!(std::fs::metadata(&given).unwrap().uid(), 0, "it stays the caller's");
    place.cleanup();
}

#[test]
fn special_files_go_unless_they_are_to_stay() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    let make = "mkdir -p d; ln -s x d/link; mkfifo d/fifo; echo y > d/file; chmod 000 d/file";
    place.sh(&[], make).0.ok();
    let left = || -> Vec<String> {
        let entries = std::fs::read_dir(place.place.join("box/d")).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|it| it.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(left(), ["file"]);
    place.sh(&["--special-files"], &make.replace("echo y > d/file", "true")).0.ok();
    assert_eq!(left(), ["fifo", "file", "link"]);
    place.cleanup();
}

#[test]
fn the_environment_is_what_was_asked_for() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    let env = |options: &[&str]| {
        let (out, _) = place.run(options, &["/usr/bin/env"]);
        let mut lines: Vec<String> = out.ok().stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    // The engine adds a HOME where there is none.
    assert_eq!(env(&[]), ["HOME=/", "LIBC_FATAL_STDERR_=1"]);
    let tag = format!("RUSTBOX_TEST={}", test.tag);
    assert_eq!(
        env(&["-E", "A=1", "-E", "A=2", "-E", "RUSTBOX_TEST", "-E", "UNSET_"]),
        ["A=2", "HOME=/", "LIBC_FATAL_STDERR_=1", &tag]
    );
    assert!(env(&["-e", "-E", "PATH=/here"]).contains(&"PATH=/here".to_owned()));
    assert!(env(&["-e"]).contains(&tag));
    place.cleanup();
}

#[test]
fn directories_are_shown_by_rules() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    let data = test.path("data");
    std::fs::create_dir_all(data.join("below")).unwrap();
    std::fs::write(data.join("file"), "data\n").unwrap();
    std::fs::write(data.join("tool"), "#!/bin/sh\necho ran\n").unwrap();
    std::process::Command::new("chmod").args(["-R", "777"]).arg(&data).status().unwrap();
    let rule = |options: &str| format!("data={}{options}", data.display());
    place.sh(&["-d", &rule("")], "cat /data/file; ! echo x > /data/new; /data/tool").0.ok();
    place.sh(&["-d", &rule(":rw")], "echo x > /data/new").0.ok();
    assert!(data.join("new").exists());
    place.sh(&["-d", &rule(":noexec")], "cat /data/tool; ! /data/tool").0.ok();
    place.sh(&["-d", "nothere=/nowhere/at/all:maybe"], "[ ! -e /nothere ]").0.ok();
    place
        .sh(&["-d", "scratch:tmp", "-d", "sub/dir:tmp"], "echo x > /scratch/y; echo x > /sub/dir/y; echo x > /tmp/z")
        .0
        .ok();
    place.sh(&["-d", "proc="], "[ ! -e /proc ]").0.ok();
    place.sh(&["-d", "tmp="], "[ ! -e /tmp ]").0.ok();
    place.sh(&["-d", "etc"], "[ -e /etc/passwd ]").0.ok();
    place.sh(&[], "[ ! -e /etc ]; echo > /dev/null; [ -c /dev/zero ]; [ ! -e /dev/sda ]; ! mkdir /x").0.ok();
    place.sh(&["-d", "etc:norec"], "[ -e /etc/passwd ]").0.ok();
    let bare = ["-D", "-d", "bin", "-d", "usr", "-d", "lib", "-d", "lib64:maybe", "-d", "box=./box:rw"];
    place.sh(&bare, "[ ! -e /proc ] && [ ! -e /tmp ] && echo x > /box/y").0.ok();
    for wrong in ["", "..", "x:nonsense", "x=y:tmp"] {
        place.run(&["-d", wrong], &["/bin/true"]).0.code(2);
    }
    place.cleanup();
}

/// A link that a program leaves in the box is not followed on the host when a later one is shown what lies there.
#[test]
fn a_directory_of_the_box_that_was_exchanged_for_a_link_shows_nothing_of_the_host() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    let data = test.path("data");
    std::fs::create_dir_all(data.join("sub")).unwrap();
    std::fs::write(data.join("secret"), "secret\n").unwrap();
    std::fs::write(data.join("sub/secret"), "secret\n").unwrap();
    let make = format!(
        "mkdir -p own/sub && echo mine > own/sub/file && ln -s {0} link && ln -s {0}/secret file",
        data.display()
    );
    place.sh(&["--special-files"], &make).0.ok();
    let absolute = place.place.join("box/link").display().to_string();
    for source in ["./box/link", "box/link/sub", "box/file", "./box/own/../link", &absolute] {
        for option in ["", ":maybe", ":rw", ":norec"] {
            let rule = format!("x={source}{option}");
            let (out, meta) = place.sh(&["--special-files", "-d", &rule], "cat /x /x/secret; echo here");
            let out = out.code(2);
            assert!(out.stdout.is_empty() && meta["status"] == "XX", "{rule}: {out:?}");
            if !source.contains("..") {
                out.says(&[source, "leads through a link in the box"]);
            }
        }
    }
    // What is no link is shown as ever, wherever it lies in the box.
    let own = place.place.join("box/own/sub").display().to_string();
    for source in ["./box/own/sub", "box/own/./sub", &own] {
        let (out, _) =
            place.sh(&["-d", &format!("x={source}:rw"), "-d", "y=box/own/sub/file"], "cat /x/file /y; echo x > /x/new");
        assert_eq!(out.ok().stdout, "mine\nmine\n", "{source}");
        place.sh(&[], "cat own/sub/new && rm own/sub/new").0.ok();
    }
    place.sh(&["-d", "x=box/own/none:maybe"], "[ ! -e /x ]").0.ok();
    place.cleanup();
}

#[test]
fn the_network_and_descriptors_are_shared_on_request() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let own = |options: &[&str]| place.run(options, &["/bin/readlink", "/proc/self/ns/net"]).0.ok().line().to_owned();
    assert_ne!(own(&[]), host.to_str().unwrap());
    assert_eq!(own(&["--share-net"]), host.to_str().unwrap());
    let list = |options: &str| {
        let script = format!(
            "exec 5</etc/passwd; \"$@\" isolate --run -p {options} -- /bin/sh -c 'read line <&5 && echo $line'"
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "sh"]).arg(binary()).arg("--root").arg(&test.root);
        test.spawn(command, Stdio::null()).wait()
    };
    list("").code(1);
    assert!(list("--inherit-fds").ok().stdout.starts_with("root:"));
    place.run(&["--tty-hack"], &["/bin/true"]).0.ok();
    place.cleanup();
}

#[test]
fn a_box_is_used_by_one_at_a_time() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::numbered(&test, "7");
    let other = Box::numbered(&test, "8");
    let mut command = Command::new(binary());
    command.arg("--root").arg(&test.root);
    command.args(["isolate", "-b", "7", "--run", "-o", "started", "-p", "--", "/bin/sh", "-c", "echo yes; sleep 1"]);
    let running = test.spawn(command, Stdio::null());
    until("the program", || place.place.join("box/started").metadata().is_ok_and(|it| it.len() > 0));
    let busy = test.runtime(&["isolate", "-b", "7", "--run", "--", "/bin/true"]).code(2);
    assert!(busy.stderr.contains("in use"), "{busy:?}");
    test.runtime(&["isolate", "-b", "7", "--cleanup"]).code(2);
    test.runtime(&["isolate", "-b", "8", "--run", "--", "/bin/true"]).ok();
    test.runtime(&["isolate", "-b", "7", "--wait", "--run", "--", "/bin/true"]).ok();
    assert!(running.wait().ok().stderr.contains("OK"));
    other.cleanup();
    place.cleanup();
}

/// Directories in directories, deeper than the caller may open files, each closed to everybody but its owner.
const DEEP: &str = "import os\nfor i in range(5000): os.mkdir('d', 0o700); os.chdir('d')\nopen('leaf', 'w').write('x')";

#[test]
fn a_deep_tree_costs_neither_the_verdict_nor_the_box() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    let few = |args: &[&str]| test.shell("ulimit -n 256; exec \"$@\"", &[&["isolate"], args].concat());
    let meta = test.path("meta");
    let python = ["--run", "-M", meta.to_str().unwrap(), "--", "/usr/bin/python3", "-c"];
    let run = |script: &str| {
        let out = few(&[&python[..], &[script]].concat());
        (out, std::fs::read_to_string(&meta).unwrap_or_default())
    };
    let (out, keys) = run(&format!("{DEEP}\nexit(3)"));
    out.code(1);
    assert!(keys.contains("status:RE\n") && keys.contains("exitcode:3\n") && !keys.contains("box-error"), "{keys}");
    // All of it is the next run's, down to the leaf.
    run("import os\nfor i in range(5000): os.chdir('d')\nopen('leaf', 'a').write('y')").0.ok();
    few(&["--init"]).ok();
    assert_eq!(std::fs::read_dir(place.place.join("box")).unwrap().count(), 0);
    run(DEEP).0.ok();
    few(&["--cleanup"]).ok();
    place.cleanup();
}

/// Whatever keeps the files from being given back is told beside the verdict, not in its place.
#[test]
fn a_box_that_cannot_be_given_back_costs_no_verdict() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    let meta = test.path("meta");
    // In a mount namespace that goes with the script: somebody mounts on a directory of the box while the program runs.
    let script = "box=$1 meta=$2; shift 2; mkdir $box/sub; chmod 777 $box/sub
        \"$@\" isolate --run -p -M $meta -- /bin/sh -c 'echo > here; while [ ! -e go ]; do sleep 0.05; done; exit 5' & pid=$!
        while [ ! -e $box/here ]; do sleep 0.05; done
        mount -t tmpfs none $box/sub; echo > $box/sub/file; chown 7 $box/sub $box/sub/file; echo > $box/go
        wait $pid; echo $? $(stat -c %u $box/sub $box/sub/file)";
    let mut command = Command::new("unshare");
    command.args(["-m", "/bin/sh", "-c", script, "sh"]).arg(place.place.join("box")).arg(&meta);
    command.arg(binary()).arg("--root").arg(&test.root);
    let out = test.finish(command).ok();
    assert_eq!(out.line(), "1 7 7", "the verdict's exit code; what is mounted is not entered: {out:?}");
    assert_eq!(out.stderr.lines().last(), Some("Exited with error status 5"), "{out:?}");
    let out = out.says(&["give away the files in", "Cross-device link"]);
    let keys = std::fs::read_to_string(&meta).unwrap();
    for key in
        ["exitcode:5\n", "status:RE\n", "message:Exited with error status 5\n", "box-error:give away the files in"]
    {
        assert!(keys.contains(key), "{key} in {keys}: {out:?}");
    }
    place.sh(&[], "cat here").0.ok();
    place.cleanup();
}

/// Its death ends the program; recovery gives the box back to the next run.
#[test]
fn nothing_survives_a_killed_isolate() {
    rustbox_only!();
    let test = Test::new();
    let place = Box::new(&test);
    let mut command = Command::new(binary());
    command.arg("--root").arg(&test.root);
    command.args(["isolate", "--run", "-p", "-o", "started", "--", "/bin/sh", "-c", "echo yes; sleep 60 & sleep 60"]);
    let running = test.spawn(command, Stdio::null());
    until("the program", || place.place.join("box/started").metadata().is_ok_and(|it| it.len() > 0));
    running.signal(9);
    assert_eq!(running.wait().signal, Some(9));
    test.runtime(&["health", "--recover"]).ok();
    test.assert_nothing_left();
    place.sh(&[], "cat started && echo more >> started").0.ok();
    place.cleanup();
}

#[test]
fn usage_and_the_rest_of_the_options() {
    rustbox_only!();
    let test = Test::new();
    for args in [
        &["isolate"][..],
        &["isolate", "--init", "--run"],
        &["isolate", "-b", "1000", "--init"],
        &["isolate", "-b", "x", "--init"],
        &["isolate", "--init", "-q", "1,1"],
        &["isolate", "--run"],
        &["isolate", "--run", "--", "/bin/true"],
        &["isolate", "--run", "--cg-mem=1", "--", "/bin/true"],
        &["isolate", "--run", "-t", "soon", "--", "/bin/true"],
        &["isolate", "--run", "--as-uid=5", "--", "/bin/true"],
    ] {
        let out = test.runtime(args).code(2);
        assert!(!out.stderr.is_empty(), "{out:?}");
    }
    assert!(test.runtime(&["isolate", "--print-cg-root"]).ok().line().starts_with("/sys/fs/cgroup"));
    test.runtime(&["isolate", "--cleanup"]).ok();
    // Under its own name, by a link, with the words that scripts use.
    let link = test.path("isolate");
    std::os::unix::fs::symlink(binary(), &link).unwrap();
    let by_name = |args: &[&str]| {
        let mut command = Command::new(&link);
        command.args(args).arg("--root").arg(&test.root);
        test.spawn(command, Stdio::null()).wait()
    };
    let place = PathBuf::from(by_name(&["--box-id=3", "--init"]).ok().line());
    assert_eq!(place.file_name().unwrap(), "3");
    let mut command = Command::new(&link);
    command.args(["-b3", "-p5", "-t1", "-w3", "-s", "-M-", "--run", "--", "/bin/sh", "-c", "exit 4"]);
    let out = test.spawn(command, Stdio::null()).wait().code(1);
    assert!(out.stdout.contains("status:RE\n") && out.stderr.is_empty(), "{out:?}");
    let out = test.runtime(&["isolate", "-b3", "-v", "--as-uid=1234", "--as-gid=1235", "--init"]).ok();
    let owner = std::fs::metadata(PathBuf::from(out.line()).join("box")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (1234, 1235));
    test.runtime(&["isolate", "-b3", "-v", "--run", "-o", "out", "--", "/bin/true"]).ok().says(&["OK (", "OK: "]);
    assert_eq!(std::fs::metadata(place.join("box/out")).unwrap().uid(), 1234);
    by_name(&["-b3", "--cleanup"]).ok();
    test.assert_nothing_left();
}
