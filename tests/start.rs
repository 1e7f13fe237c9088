//! The program's first instructions: what they must not do, and that all arrives that the kernel gives to a program.
#![cfg(all(target_arch = "x86_64", target_env = "gnu"))]

mod common;

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use common::*;
use nix::errno::Errno;
use nix::sys::ptrace::{self, AddressType, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A child that does not outlive the test, however that ends.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // Nothing where it has been waited for.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// How a program went on that may not ask the processor for its features.
#[derive(Debug, PartialEq, Eq)]
enum Went {
    /// The processor cannot forbid it, or this process may trace nobody.
    Unknown,
    /// It ended, with this status.
    Ended(i32),
    /// It asked.
    Asked,
}

/// Executes the binary under test with `arch_prctl(ARCH_CPUID, 0)`, which turns every `cpuid` into SIGSEGV and which an exec
/// takes back: so the call is made in the new program, in place of its first instruction.
fn without_cpuid(environment: &[(&str, &str)]) -> Went {
    const ARCH_CPUID: u64 = 0x1012;
    const SYSCALL: i64 = 0x050f;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -STOP $$; exec \"$0\" --version"]).arg(binary());
    command.stdout(Stdio::null()).env_remove("GLIBC_TUNABLES").envs(environment.iter().copied());
    let child = Guarded(command.spawn().unwrap());
    let pid = Pid::from_raw(i32::try_from(child.0.id()).unwrap());
    let wait = || waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap();
    assert!(matches!(waitpid(pid, Some(WaitPidFlag::WUNTRACED)), Ok(WaitStatus::Stopped(_, Signal::SIGSTOP))));
    match ptrace::seize(pid, Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL) {
        Err(Errno::EPERM) => return Went::Unknown,
        seized => seized.unwrap(),
    }
    kill(pid, Signal::SIGCONT).unwrap();
    loop {
        match wait() {
            WaitStatus::PtraceEvent(_, _, event) if event == nix::libc::PTRACE_EVENT_EXEC => break,
            WaitStatus::PtraceEvent(..) => ptrace::cont(pid, None).unwrap(),
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal).unwrap(),
            other => panic!("the shell: {other:?}"),
        }
    }
    // The stop is at the end of execve; one step on the first instruction is next.
    ptrace::step(pid, None).unwrap();
    assert_eq!(wait(), WaitStatus::Stopped(pid, Signal::SIGTRAP));
    let first = ptrace::getregs(pid).unwrap();
    let place = first.rip as AddressType;
    let code = ptrace::read(pid, place).unwrap();
    ptrace::write(pid, place, code & !0xffff | SYSCALL).unwrap();
    let mut call = first;
    call.rax = nix::libc::SYS_arch_prctl as u64;
    (call.rdi, call.rsi) = (ARCH_CPUID, 0);
    ptrace::setregs(pid, call).unwrap();
    ptrace::step(pid, None).unwrap();
    assert_eq!(wait(), WaitStatus::Stopped(pid, Signal::SIGTRAP));
    let answer = ptrace::getregs(pid).unwrap().rax as i64;
    ptrace::write(pid, place, code).unwrap();
    ptrace::setregs(pid, first).unwrap();
    if answer != 0 {
        return Went::Unknown;
    }
    ptrace::cont(pid, None).unwrap();
    match wait() {
        WaitStatus::Exited(_, status) => Went::Ended(status),
        WaitStatus::Stopped(_, Signal::SIGSEGV) => {
            let at = ptrace::getregs(pid).unwrap().rip as AddressType;
            assert_eq!(ptrace::read(pid, at).unwrap() & 0xffff, 0xa20f, "it stopped at no cpuid");
            Went::Asked
        }
        other => panic!("the program: {other:?}"),
    }
}

/// A `cpuid` in a virtual machine is a trap of 6 µs, and glibc asks 41 to 68 times.
#[test]
fn a_start_asks_the_processor_nothing() {
    rustbox_only!();
    if !rustbox_entry::KNOWN_START {
        skip!("the start of this C library is not known");
    }
    // What the C library's own start does: the check can fail.
    match without_cpuid(&[("GLIBC_TUNABLES", "glibc.malloc.check=0")]) {
        Went::Unknown => skip!("this processor cannot forbid cpuid, or nobody may be traced"),
        went => assert_eq!(went, Went::Asked),
    }
    assert_eq!(without_cpuid(&[]), Went::Ended(0));
}

#[test]
fn words_and_environment_arrive_by_either_start() {
    rustbox_only!();
    let run = |command: &mut Command| {
        let out = command.output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let long = "x".repeat(1_000);
    let many: Vec<(String, String)> = (0..2000).map(|n| (format!("VARIABLE_{n}"), n.to_string())).collect();
    for tunables in [None, Some("glibc.malloc.check=0")] {
        let command = |words: &[&str]| {
            let mut command = Command::new(binary());
            command.env_clear().args(words).envs(tunables.map(|value| ("GLIBC_TUNABLES", value)));
            command
        };
        let (status, out, _) = run(&mut command(&["--version"]));
        assert_eq!((status, out.starts_with("rustbox version ")), (Some(0), true), "{tunables:?}: {out}");
        let (status, _, err) = run(command(&["state", &long]).envs(many.iter().cloned()));
        assert_eq!((status, err.contains(&long)), (Some(1), true), "{tunables:?}: {}", err.len());
        // Behind two thousand other variables it finds where its state root is to be.
        let directory = tempfile::tempdir().unwrap();
        let list = &["--rootless", "true", "list", "--quiet"];
        let (status, _, err) = run(command(list).envs(many.iter().cloned()).env("XDG_RUNTIME_DIR", directory.path()));
        assert_eq!((status, err.as_str()), (Some(0), ""), "{tunables:?}");
        assert!(directory.path().join("rustbox").is_dir(), "{tunables:?}");
        let (status, out, _) = run(command(&["--version"]).arg0(""));
        assert_eq!((status, out.starts_with("rustbox version ")), (Some(0), true), "{tunables:?}: {out}");
    }
}
