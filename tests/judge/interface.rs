//! The command line of a judged run: what goes in, what comes out, and which exit status.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::{Test, binary};
use super::{assert_clean, fresh_id, rustbox_only};

#[track_caller]
fn run(test: &Test, args: &[&str]) -> super::common::Out {
    let mut all = vec!["run"];
    all.extend(args);
    let id = fresh_id(test);
    // The id stands before `--`.
    let at = all.iter().position(|arg| *arg == "--").unwrap_or(all.len());
    all.insert(at, &id);
    let out = test.runtime(&all);
    assert_clean(test);
    out
}

#[test]
fn the_json_has_exactly_the_documented_keys() {
    rustbox_only!();
    let test = Test::new();
    let verdict = run(&test, &["--json", "--code", "echo hi"]).ok().json();
    let keys: Vec<&str> = verdict.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "schema_version",
            "id",
            "language",
            "status",
            "cause",
            "actor",
            "retryable",
            "exit_code",
            "signal",
            "cpu_time_ms",
            "wall_time_ms",
            "memory_peak_bytes",
            "stdout",
            "stderr",
            "stdout_truncated",
            "stderr_truncated",
            "limits",
            "controls",
            "evidence",
            "cleanup"
        ]
    );
    assert_eq!(
        (&verdict["schema_version"], &verdict["language"], &verdict["stdout"]),
        (&1.into(), &"sh".into(), &"hi\n".into())
    );
    assert!(verdict["controls"].as_object().unwrap().values().all(|state| state == "enforced"), "{verdict:#}");
    let compiled = run(&test, &["--json", "--language", "c", "--code", "int main(void) { return 0; }"]).ok().json();
    assert_eq!(compiled["compile"]["status"], "OK");
    assert!(compiled["compile"]["cpu_time_ms"].as_f64().unwrap() > 1.0);
}

#[test]
fn a_person_gets_the_output_and_a_summary() {
    rustbox_only!();
    let test = Test::new();
    let out = run(&test, &["--code", "echo out; echo err >&2; exit 3"]).code(1);
    assert_eq!(out.stdout, "out\n");
    assert!(out.stderr.starts_with("err\nRE: exited with a non-zero code\n    exit code 3, CPU "), "{out:#?}");
    let out = run(&test, &["--language", "c", "--code", "int main(void) { return x; }"]).code(1);
    assert!(out.stderr.contains("error:") && out.stderr.contains("CE: the compiler reported errors"), "{out:#?}");
}

#[test]
fn sources_come_by_file_and_extension() {
    rustbox_only!();
    let test = Test::new();
    for (name, text) in [
        ("a.py", "print('yes')"),
        ("a.sh", "echo yes"),
        ("a.c", "#include <stdio.h>\nint main(void) { puts(\"yes\"); }"),
        ("a.cc", "#include <cstdio>\nint main() { puts(\"yes\"); }"),
    ] {
        std::fs::write(test.path(name), text).unwrap();
        assert_eq!(run(&test, &["--json", "--source", name]).ok().json()["stdout"], "yes\n");
    }
    std::fs::write(test.path("b.txt"), "echo yes").unwrap();
    assert_eq!(run(&test, &["--json", "--source", "b.txt", "--language", "sh"]).ok().json()["stdout"], "yes\n");
    run(&test, &["--source", "b.txt"]).code(2).says(&["b.txt", "--language"]);
}

#[test]
fn input_is_a_sealed_copy_or_passed_on() {
    rustbox_only!();
    let test = Test::new();
    std::fs::write(test.path("in"), "from a file").unwrap();
    assert_eq!(run(&test, &["--json", "--stdin", "in", "--code", "cat"]).ok().json()["stdout"], "from a file");
    // Writing to it, or to the file of the host, is impossible.
    run(&test, &["--json", "--stdin", "in", "--code", "echo x > /dev/stdin || echo x > /proc/self/fd/0 || exit 7"]);
    assert_eq!(std::fs::read_to_string(test.path("in")).unwrap(), "from a file");
    let out = test.shell("head -c 300000 /dev/zero | \"$@\"", &["run", "--json", "--stdin", "-", "--code", "wc -c"]);
    assert_eq!(out.ok().json()["stdout"], "300000\n");
    let out = test.shell("yes | \"$@\"", &["run", "--json", "--stdin", "-", "--code", "head -n 1"]);
    assert_eq!(out.ok().json()["stdout"], "y\n");
    let out = test.shell("\"$@\" < in", &["run", "--json", "--stdin", "-", "--code", "cat"]);
    assert_eq!(out.ok().json()["stdout"], "from a file");
    assert_eq!(run(&test, &["--json", "--code", "wc -c"]).ok().json()["stdout"], "0\n", "no input by default");
    assert_clean(&test);
}

#[test]
fn a_signal_that_the_caller_ignores_still_ends_the_program() {
    rustbox_only!();
    let test = Test::new();
    // As a grader in Python does that executes the judge, or a shell with `nohup`.
    let argv = ["run", "--json", "--file-size", "1M", "--code", "exec cat /dev/zero > f"];
    let verdict = test.shell("trap '' XFSZ HUP INT; exec \"$@\"", &argv).code(1).json();
    assert_eq!((&verdict["status"], &verdict["signal"]), (&"FSE".into(), &libc::SIGXFSZ.into()), "{verdict}");
    assert_clean(&test);
}

#[test]
fn output_goes_to_files_and_loses_nothing() {
    rustbox_only!();
    let test = Test::new();
    let verdict = run(&test, &["--json", "--stdout", "o", "--stderr", "e", "--code", "printf 'a\\377b'; echo err >&2"])
        .ok()
        .json();
    assert_eq!(std::fs::read(test.path("o")).unwrap(), b"a\xffb");
    assert_eq!(std::fs::read(test.path("e")).unwrap(), b"err\n");
    assert_eq!((&verdict["stdout"], &verdict["stdout_base64"]), (&"a\u{fffd}b".into(), &"Yf9i".into()));
    assert!(verdict.get("stderr_base64").is_none());
    let verdict = run(&test, &["--json", "--output", "4", "--code", "echo 123456"]).code(1).json();
    assert_eq!((&verdict["stdout"], &verdict["stdout_truncated"]), (&"1234".into(), &true.into()));
    assert_eq!(verdict["stderr_truncated"], false);
}

#[test]
fn the_environment_is_the_bundles_and_the_callers_alone() {
    rustbox_only!();
    let test = Test::new();
    let verdict = run(&test, &["--json", "--env", "A=b=c", "--code", "env | sort"]).ok().json();
    let text = verdict["stdout"].as_str().unwrap();
    assert!(text.contains("A=b=c\n") && !text.contains("RUSTBOX_TEST"), "{text}");
}

#[test]
fn directories_are_shown_read_only_unless_asked() {
    rustbox_only!();
    let test = Test::new();
    let shared = test.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(shared.join("data"), "42").unwrap();
    let share = format!("/data={}", shared.display());
    let verdict = run(
        &test,
        &["--json", "--dir", &share, "--code", "cat /data/data; touch /data/new 2>/dev/null && exit 1; exit 0"],
    );
    assert_eq!(verdict.ok().json()["stdout"], "42");
    run(&test, &["--json", "--dir", &format!("{share}:rw"), "--code", "touch /data/new"]).ok();
    assert!(shared.join("new").exists());
}

#[test]
fn programs_of_the_host_and_bundles_are_judged_too() {
    rustbox_only!();
    let test = Test::new();
    assert_eq!(run(&test, &["--json", "--", "/bin/echo", "a b", "--json"]).ok().json()["stdout"], "a b --json\n");
    run(&test, &["--", "/bin/false"]).code(1);
    let container = test.bundle(super::common::sh("echo bundle; while :; do :; done"));
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(container.bundle.join("config.json")).unwrap()).unwrap();
    config["annotations"]["org.rustbox.limit.time"] = json!("0.2");
    container.write_config(&config);
    let bundle = container.bundle.to_str().unwrap();
    let out = run(&test, &["--json", "--judge", "-b", bundle]).code(1);
    let verdict = out.json();
    assert_eq!((&verdict["status"], &verdict["stdout"]), (&"TLE".into(), &"bundle\n".into()), "{verdict:#}");
    assert_eq!(verdict["limits"]["cpu_time_ms"], 200);
    config["annotations"]["org.rustbox.limit.time"] = json!("soon");
    container.write_config(&config);
    run(&test, &["--judge", "-b", bundle]).code(2).says(&["$.annotations['org.rustbox.limit.time']"]);
}

/// What is executed before the payload is not the payload: neither its time nor the size of its image are judged.
#[test]
fn a_hook_before_the_program_is_not_judged() {
    rustbox_only!();
    let test = Test::new();
    let container = test.bundle(super::common::sh("echo x").hook("startContainer", "sleep 1.5"));
    let bundle = container.bundle.to_str().unwrap();
    let out = run(&test, &["--json", "--wall-time", "1", "--judge", "-b", bundle]).ok().json();
    assert_eq!((&out["status"], &out["stdout"]), (&"OK".into(), &"x\n".into()), "{out:#}");
    // The shell is larger than that.
    let out = run(&test, &["--json", "--memory", "1M", "--judge", "-b", bundle]).json();
    assert_ne!(out["status"], "IE", "{out:#}");
    assert_clean(&test);
}

fn fifo(test: &Test, name: &str) {
    nix::unistd::mkfifo(&test.path(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
}

#[test]
fn input_from_a_fifo_that_nobody_writes_to_ends_with_the_time_limit() {
    rustbox_only!();
    let test = Test::new();
    fifo(&test, "fifo");
    let out = run(&test, &["--json", "--stdin", "fifo", "--wall-time", "0.3", "--code", "cat"]);
    assert_eq!(out.code(1).json()["cause"], "tle_wall_judge");
    assert_clean(&test);
}

/// Programs read `/dev/stdin` and write to `/dev/stderr` by name, Node's and the shell's above all.
#[test]
fn standard_streams_can_be_opened_by_name() {
    rustbox_only!();
    let test = Test::new();
    let code = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin; cat < /proc/self/fd/0";
    let verdict = run(&test, &["--json", "--code", code]).ok().json();
    assert_eq!((&verdict["stdout"], &verdict["stderr"]), (&"out\n".into(), &"err\n".into()));
    let out = test.shell("echo in | \"$@\"", &["run", "--json", "--stdin", "-", "--code", "cat /dev/stdin"]);
    assert_eq!(out.ok().json()["stdout"], "in\n");
    let bundle = ["--json", "--stdin", "in", "--", "/bin/cat", "/dev/stdin"];
    std::fs::write(test.path("in"), "file\n").unwrap();
    assert_eq!(run(&test, &bundle).ok().json()["stdout"], "file\n");
    assert_clean(&test);
}

#[test]
fn bad_input_is_status_2_and_runs_nothing() {
    rustbox_only!();
    let test = Test::new();
    fifo(&test, "fifo");
    for (args, words) in [
        (&["--code", "true", "--language", "cobol"][..], &["cobol"][..]),
        (&["--time", "1"], &["--code", "--source"]),
        (&["--code", "true", "--time", "x"], &["--time", "`x`"]),
        (&["--code", "true", "--time", "0"], &["--time"]),
        (&["--code", "true", "--memory", "1"], &["--memory"]),
        (&["--code", "true", "--memory", "1Q"], &["1Q"]),
        (&["--code", "true", "--env", "novalue"], &["novalue"]),
        (&["--code", "true", "--dir", "relative"], &["relative"]),
        (&["--code", "true", "--dir", "/x=/nowhere"], &["/nowhere"]),
        (&["--code", "true", "--dir", "/bin/x=/tmp"], &["/bin/x"]),
        (&["--code", "true", "--stdin", "/nowhere"], &["/nowhere", "No such file"]),
        (&["--code", "true", "--stdout", "/nowhere/x"], &["/nowhere/x"]),
        (&["--source", "/nowhere.py"], &["/nowhere.py"]),
        (&["--source", "/dev/null", "--language", "sh"], &["/dev/null", "regular"]),
        (&["--source", "fifo", "--language", "sh"], &["fifo", "regular"]),
        (&["--code", "true", "--detach"], &["--detach"]),
        (&["--code", "true", "--keep"], &["--keep"]),
        (&["--code", "true", "--source", "x.sh"], &["--source"]),
        (&["--judge", "-b", "/nowhere"], &["/nowhere"]),
        (&["--", "/no/such/program"], &["/no/such/program", "no such file"]),
        (&["--", "no-such-program"], &["no-such-program"]),
        (&["--", "/etc/passwd"], &["/etc/passwd"]),
    ] {
        run(&test, args).fails().code(2).says(words);
    }
    test.runtime(&["run", "--code", "true", "../x"]).fails().code(2);
    assert_clean(&test);
}

#[test]
fn an_id_in_use_is_refused_and_its_owner_goes_on() {
    rustbox_only!();
    let test = Test::new();
    let id = fresh_id(&test);
    let mut command = std::process::Command::new(binary());
    command.arg("--root").arg(&test.root).args(["run", "--json", "--code", "sleep 1.5; echo done", &id]);
    let first = test.spawn(command, std::process::Stdio::null());
    super::common::until("the sandbox", || test.root.join(&id).join("init").exists());
    test.runtime(&["run", "--code", "true", &id]).fails().code(2).says(&[&id]);
    assert_eq!(first.wait().ok().json()["stdout"], "done\n");
    assert_clean(&test);
}

/// Whether a program of this name runs within the limits of a sandbox.
fn runs(id: &str, name: &str) -> bool {
    let places = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let directories = places.iter().flat_map(|it| [format!("{it}/rustbox-{id}"), format!("{it}/rustbox-{id}/payload")]);
    let pids: Vec<String> = directories
        .filter_map(|directory| std::fs::read_to_string(format!("{directory}/cgroup.procs")).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    pids.iter().any(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name))
}

#[test]
fn a_cancelled_run_is_an_internal_error_with_its_provisional_verdict() {
    rustbox_only!();
    let test = Test::new();
    for signal in [15, 2, 1] {
        let id = fresh_id(&test);
        let mut command = std::process::Command::new(binary());
        command.arg("--root").arg(&test.root).args(["run", "--json", "--wall-time", "15", "--code", "sleep 14", &id]);
        let running = test.spawn(command, std::process::Stdio::null());
        super::common::until("the program", || runs(&id, "sleep"));
        running.signal(signal);
        let out = running.wait().code(3);
        let verdict = out.json();
        assert_eq!(
            (&verdict["cause"], &verdict["provisional"]["status"]),
            (&"ie_cancelled".into(), &"SIG".into()),
            "{verdict:#}"
        );
        assert_clean(&test);
    }
}

#[test]
fn nothing_survives_a_supervisor_that_is_killed() {
    rustbox_only!();
    let test = Test::new();
    let id = fresh_id(&test);
    let mut command = std::process::Command::new(binary());
    let code = "trap '' HUP TERM; setsid sleep 15 & sleep 15";
    command.arg("--root").arg(&test.root).args(["run", "--wall-time", "15", "--code", code, &id]);
    let running = test.spawn(command, std::process::Stdio::null());
    super::common::until("the sandbox", || test.root.join(&id).join("init").exists());
    std::thread::sleep(Duration::from_millis(100));
    let init = super::common::children(running.pid())[0];
    running.signal(9);
    let start = Instant::now();
    super::common::until("the end of init", || !std::path::Path::new(&format!("/proc/{init}/exe")).exists());
    assert!(start.elapsed() < Duration::from_secs(2));
    let _ = running.wait();
    // The record is still there, and by it the leftovers are found and removed.
    test.runtime(&["delete", "--force", &id]).ok();
    assert_clean(&test);
}

#[test]
fn concurrent_sandboxes_have_host_ids_of_their_own() {
    rustbox_only!();
    let test = Test::new();
    let start = |n: u32| {
        let mut command = std::process::Command::new(binary());
        let code = format!("sleep 0.5; cat /proc/self/uid_map; exit {n}");
        command.arg("--root").arg(&test.root).args(["run", "--json", "--code", &code, &fresh_id(&test)]);
        test.spawn(command, std::process::Stdio::null())
    };
    let running: Vec<_> = (1..=6).map(start).collect();
    let mut maps = Vec::new();
    for (n, running) in running.into_iter().enumerate() {
        let verdict = running.wait().code(1).json();
        assert_eq!(verdict["exit_code"], n + 1);
        let map = verdict["stdout"].as_str().unwrap().split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        assert!(map >= 0x7000_0000, "{map}");
        maps.push(map);
    }
    maps.sort_unstable();
    maps.dedup();
    assert_eq!(maps.len(), 6);
    assert_clean(&test);
}

#[test]
fn a_dry_run_reports_and_runs_nothing() {
    rustbox_only!();
    let test = Test::new();
    let out = test.runtime(&["--dry-run", "run", "--json", "--code", "touch /tmp/never"]).ok();
    let report = out.json();
    assert!(report["missing"].as_array().unwrap().is_empty(), "{report:#}");
    for name in ["memory", "pids", "cpuacct", "user_namespace", "seccomp", "pidfd"] {
        let control = report["controls"].as_array().unwrap().iter().find(|control| control["name"] == name).unwrap();
        assert_eq!((&control["configured"], &control["available"]), (&true.into(), &true.into()));
    }
    let table = test.runtime(&["--dry-run", "run", "--code", "true"]).ok();
    assert!(table.stdout.contains("CONTROL") && table.stdout.contains("user_namespace"), "{table:#?}");
    assert!(!test.root.exists(), "nothing is made");
}

#[test]
fn a_dry_run_names_the_toolchain_or_what_to_install() {
    rustbox_only!();
    let test = Test::new();
    let dry = |language: &str| test.runtime(&["--dry-run", "run", "--json", "--language", language, "--code", "x"]);
    for (language, word) in [("c", "gcc"), ("cpp", "g++"), ("python", "Python 3")] {
        let toolchain = dry(language).ok().json()["toolchain"].take();
        assert_eq!((&toolchain["language"], &toolchain["found"]), (&language.into(), &true.into()), "{toolchain:#}");
        assert!(toolchain["version"].as_str().unwrap().starts_with(word), "{toolchain:#}");
    }
    let table = test.runtime(&["--dry-run", "run", "--language", "python", "--code", "x"]).ok();
    assert!(table.stdout.contains("toolchain of python: Python 3"), "{table:#?}");
    // Only a language has one.
    assert!(test.runtime(&["--dry-run", "run", "--json", "--", "true"]).ok().json().get("toolchain").is_none());

    // Bundles of another place, whose probes fail in different ways.
    let bundles = test.path("bundles");
    std::fs::create_dir(&bundles).unwrap();
    for file in ["base.json", "base.toml"] {
        std::fs::copy(format!("{}/bundles/{file}", env!("CARGO_MANIFEST_DIR")), bundles.join(file)).unwrap();
    }
    let add = |name: &str, toolchain: &str| {
        std::fs::create_dir(bundles.join(name)).unwrap();
        let manifest = format!("name='{name}'\ntitle='T'\nextensions=['{name}']\nsource='x'\n[toolchain]\n{toolchain}");
        std::fs::write(bundles.join(name).join("language.toml"), manifest).unwrap();
        std::fs::write(bundles.join(name).join("run.json"), "{}").unwrap();
    };
    add("absent", "probe=['no-such-compiler', '-v']\ninstall=['first', 'second']");
    add("broken", "probe=['sh', '-c', 'echo no licence >&2; exit 3']");
    add("stderr", "probe=['sh', '-c', 'echo; echo v7 >&2']");
    add("hungry", "probe=['sh', '-c', 'yes | head -c 3000000; echo $UNSET$RUSTBOX_TEST']");
    let out = |language: &str| {
        let set = format!("RUSTBOX_BUNDLES={} exec \"$@\"", bundles.display());
        test.shell(&set, &["--dry-run", "run", "--language", language, "--code", "x"]).ok().stdout
    };
    let last = |language: &str| out(language).trim_end().lines().last().unwrap().to_owned();
    assert_eq!(
        last("absent"),
        "toolchain of absent: MISSING: `no-such-compiler -v`: `no-such-compiler`: No such file or directory; install first, second"
    );
    assert!(last("broken").ends_with("exit status: 3: no licence"), "{}", last("broken"));
    assert_eq!(last("stderr"), "toolchain of stderr: v7");
    assert_eq!(last("hungry"), "toolchain of hungry: y");
}

#[test]
fn a_missing_control_refuses_unless_permitted() {
    rustbox_only!();
    let test = Test::new();
    // Without a pids hierarchy in sight.
    let hide = "unshare -m sh -c 'umount /sys/fs/cgroup/pids && exec \"$@\"' sh \"$@\"";
    if !std::path::Path::new("/sys/fs/cgroup/pids").exists() {
        super::common::skip!("no pids hierarchy of cgroup v1 to be hidden");
    }
    test.shell(hide, &["run", "--code", "true"]).code(4).says(&["pids", "--permissive"]);
    let verdict = test.shell(hide, &["run", "--json", "--permissive", "--code", "true"]).ok().json();
    assert_eq!(verdict["controls"]["pids"], "degraded");
    assert_eq!(verdict["evidence"]["control_degraded"], json!(["pids"]));
    assert_clean(&test);
}

#[test]
fn without_user_namespaces_the_host_ids_are_still_its_own() {
    rustbox_only!();
    let test = Test::new();
    std::fs::write(test.path("zero"), "0").unwrap();
    let hide = "unshare -m sh -c 'mount --bind zero /proc/sys/user/max_user_namespaces && exec \"$@\"' sh \"$@\"";
    test.shell(hide, &["run", "--code", "true"]).code(4).says(&["user_namespace", "--permissive"]);
    let code = "id -u; touch /work/x /tmp/x && grep CapBnd /proc/self/status";
    let verdict = test.shell(hide, &["run", "--json", "--permissive", "--code", code]).ok().json();
    assert_eq!(verdict["controls"]["user_namespace"], "degraded");
    let output = verdict["stdout"].as_str().unwrap();
    assert!(output.lines().next().unwrap().parse::<u32>().unwrap() > 0x7000_0000, "{output}");
    assert!(output.ends_with("CapBnd:\t0000000000000000\n"), "{output}");
    assert_clean(&test);
}

#[test]
fn where_proc_is_masked_there_is_no_user_namespace() {
    rustbox_only!();
    let test = Test::new();
    let hide = "unshare -m sh -c 'mount -t tmpfs none /proc/bus && exec \"$@\"' sh \"$@\"";
    test.shell(hide, &["run", "--code", "true"]).code(4).says(&["/proc/bus", "masked"]);
    let verdict = test.shell(hide, &["run", "--json", "--permissive", "--code", "true"]).ok().json();
    assert_eq!(verdict["evidence"]["control_degraded"], json!(["user_namespace"]));
    assert_clean(&test);
}

#[test]
fn an_oom_kill_for_an_ancestors_limit_is_no_verdict_about_the_program() {
    rustbox_only!();
    let test = Test::new();
    let memory = std::path::Path::new("/sys/fs/cgroup/memory");
    if !memory.join("memory.limit_in_bytes").exists() {
        super::common::skip!("needs the memory controller of cgroup v1");
    }
    let parent = format!("rustbox-test-{}-parent", test.tag);
    std::fs::create_dir(memory.join(&parent)).unwrap();
    std::fs::write(memory.join(&parent).join("memory.limit_in_bytes"), "20M").unwrap();
    let container = test.bundle(super::common::sh("x=$(yes | head -c 40000000); echo ${#x}"));
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(container.bundle.join("config.json")).unwrap()).unwrap();
    config["linux"]["cgroupsPath"] = format!("/{parent}/inner").into();
    container.write_config(&config);
    let id = fresh_id(&test);
    // The kernel may look long for something to take before it kills, and the program pays for it.
    let options = ["--judge", "--time", "8", "-b", container.bundle.to_str().unwrap()];
    let out = test.runtime(&[&["run", "--json"], &options[..], &[&id]].concat()).code(3);
    let verdict = out.json();
    assert_eq!((&verdict["cause"], &verdict["actor"]), (&"ie_host_oom".into(), &"kernel".into()), "{verdict:#}");
    // The parents stay, as with every runtime.
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = std::fs::remove_dir(hierarchy.path().join(&parent));
    }
    assert_clean(&test);
}

#[test]
fn an_init_that_is_killed_from_outside_is_an_internal_error() {
    rustbox_only!();
    let test = Test::new();
    let id = fresh_id(&test);
    let mut command = std::process::Command::new(binary());
    command.arg("--root").arg(&test.root).args(["run", "--json", "--code", "sleep 10", &id]);
    let running = test.spawn(command, std::process::Stdio::null());
    super::common::until("the sandbox", || test.root.join(&id).join("init").exists());
    std::thread::sleep(Duration::from_millis(100));
    let init = std::fs::read_to_string(test.root.join(&id).join("init")).unwrap();
    let init: i32 = init.split_whitespace().next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), nix::sys::signal::Signal::SIGKILL).unwrap();
    let verdict = running.wait().code(3).json();
    assert_eq!(verdict["cause"], "ie_supervisor_lost", "{verdict:#}");
    assert_eq!(verdict["cleanup"]["proved"], true);
    assert_clean(&test);
}

#[test]
fn a_flood_through_a_slow_reader_still_ends() {
    rustbox_only!();
    let test = Test::new();
    let mut input = std::fs::File::create(test.path("big")).unwrap();
    input.write_all(&vec![b'x'; 3 << 20]).unwrap();
    let verdict = run(&test, &["--json", "--stdin", "big", "--code", "cat; cat >&2 < /dev/zero & sleep 0.1; exit 0"]);
    assert_eq!(verdict.json()["evidence"]["streams"]["stdout_bytes"], 3 << 20);
}

#[test]
fn what_is_mounted_below_a_directory_is_as_read_only_as_the_directory() {
    rustbox_only!();
    let test = Test::new();
    let share = test.path("share");
    std::fs::create_dir_all(share.join("below")).unwrap();
    let script = format!(
        "mount -t tmpfs -o mode=1777 none {0}/below && cp -p /bin/sh {0}/below/sh && chmod 4755 {0}/below/sh && \
         mknod -m 666 {0}/below/null c 1 3 && exec \"$@\"",
        share.display()
    );
    let judge = |access: &str, code: &str| {
        let dir = format!("/s={}{access}", share.display());
        let id = fresh_id(&test);
        test.shell(
            &format!("exec unshare -m sh -c '{script}' sh \"$@\""),
            &["run", "--json", "--dir", &dir, "--code", code, &id],
        )
    };
    let options = "grep ' /s/below ' /proc/self/mountinfo | cut -d' ' -f6; ";
    let out =
        judge("", &format!("{options} echo x >/s/below/x || echo refused; echo x >/s/below/null || echo refused"));
    assert_eq!(out.json()["stdout"], "ro,nosuid,nodev,relatime\nrefused\nrefused\n", "{out:#?}");
    let out =
        judge(":rw", &format!("{options} echo x >/s/below/x && echo done; echo x >/s/below/null || echo refused"));
    assert_eq!(out.json()["stdout"], "rw,nosuid,nodev,relatime\ndone\nrefused\n", "{out:#?}");
    assert_clean(&test);
}

#[test]
fn the_program_sees_no_process_of_the_judge_and_no_command_line_of_it() {
    rustbox_only!();
    let test = Test::new();
    let code = "cat /proc/1/cmdline /proc/1/status /proc/1/stat 2>/dev/null; ls -d /proc/[0-9]* | wc -l; ls -d /proc/1; \
                cat /proc/$$/comm";
    let out = test.runtime(&["run", "--json", "--code", code, &fresh_id(&test)]);
    let verdict = out.json();
    // The shell and ls; wc too, if it has started by then.
    let stdout = verdict["stdout"].as_str().unwrap();
    assert!(["2\nsh\n", "3\nsh\n"].contains(&stdout), "{verdict:#}");
    assert_clean(&test);
}

#[test]
fn a_crash_starts_no_handler_of_the_host() {
    rustbox_only!();
    let test = Test::new();
    let code = "ulimit -c; ulimit -S -c 0 || echo kept; ulimit -c unlimited || echo kept; grep -a core /proc/self/limits; \
                kill -SEGV $$";
    let verdict = test.runtime(&["run", "--json", "--code", code, &fresh_id(&test)]).json();
    let stdout = verdict["stdout"].as_str().unwrap();
    // The kernel's fs/coredump.c: a limit of 1 is the one that a piped `core_pattern` heeds.
    let words: Vec<&str> = stdout.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(words, ["Max", "core", "file", "size", "1", "1", "bytes"], "{verdict:#}");
    assert_eq!(stdout.matches("kept").count(), 2, "{verdict:#}");
    assert_clean(&test);
}
