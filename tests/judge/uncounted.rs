//! What the kernel does not count by cgroup, or counts for a user: no sandbox takes it from another, or from the host.

use std::process::{Command, Stdio};

use super::common::{Running, Test, binary, cgroup, skip};
use super::verdicts::{OK, c, judged};
use super::{fresh_id, rustbox_only};

fn python(test: &Test, options: &[&str], code: &str) -> Running {
    let mut command = Command::new(binary());
    command.arg("--root").arg(&test.root).args(["run", "--json", "--language", "python", "--wall-time", "20"]);
    command.args(options).args(["--code", code, &fresh_id(test)]);
    test.spawn(command, Stdio::null())
}

/// The kernel counts inotify instances, pending signals and message queues for the owner of a user namespace too
/// (user_namespaces(7), `/proc/sys/user`): with one owner, one sandbox would use up what all have.
#[test]
fn what_a_program_uses_up_for_its_user_is_not_taken_from_its_neighbours() {
    rustbox_only!();
    let test = Test::new();
    let greedy = "import ctypes, signal, time
libc = ctypes.CDLL(None)
n = 0
while libc.inotify_init() >= 0: n += 1
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
s = 0
while libc.sigqueue(libc.getpid(), signal.SIGRTMIN, None) == 0: s += 1
print(n, s, flush=True)
time.sleep(2)";
    let modest = "import ctypes, signal
libc = ctypes.CDLL(None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
assert libc.inotify_init() >= 0, 'no inotify instance'
assert libc.sigqueue(libc.getpid(), signal.SIGRTMIN, None) == 0, 'no signal'";
    let mut hungry = python(&test, &["--open-files", "1000"], greedy);
    let mut beside = 0;
    while hungry.child.try_wait().unwrap().is_none() {
        let verdict = python(&test, &[], modest).wait().json();
        assert_eq!(verdict["status"], "OK", "{verdict:#}");
        beside += 1;
    }
    let used = hungry.wait().json();
    assert_eq!(used["status"], "OK", "{used:#}");
    let counts: Vec<u64> =
        used["stdout"].as_str().unwrap().split_whitespace().map(|count| count.parse().unwrap()).collect();
    assert!(counts[0] >= 100 && counts[1] >= 1000 && beside >= 10, "it has not used up enough: {counts:?}, {beside}");
    super::assert_clean(&test);
}

/// On cgroup v1 they are not among the memory (`memory.kmem.tcp`): a program would keep its data in them.
#[test]
fn the_buffers_of_sockets_are_limited_as_memory_is() {
    rustbox_only!();
    if cgroup::unified() {
        skip!("on cgroup v2 socket buffers are memory");
    }
    let test = Test::new();
    let code = c("#include <netinet/in.h>
#include <arpa/inet.h>
#include <sys/socket.h>
int main(void) {
    static char block[1 << 16];
    struct sockaddr_in at = { .sin_family = AF_INET };
    socklen_t size = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int door = socket(AF_INET, SOCK_STREAM, 0), large = 1 << 24;
    long kept = 0;
    if (bind(door, (void *)&at, size) || getsockname(door, (void *)&at, &size) || listen(door, 64)) return 1;
    for (int pair = 0; pair < 25; pair++) {
        int in = socket(AF_INET, SOCK_STREAM, 0), out;
        if (in < 0 || connect(in, (void *)&at, size) || (out = accept(door, 0, 0)) < 0) break;
        setsockopt(in, SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
        setsockopt(out, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
        for (int idle = 0; idle < 20; ) {
            long n = send(in, block, sizeof block, MSG_DONTWAIT);
            if (n > 0) { kept += n; idle = 0; } else { idle++; usleep(500); }
        }
    }
    printf(\"%ld\\n\", kept);
    return 0;
}");
    let limit = 16 << 20;
    let verdict = judged(&test, "c", &code, &["--memory", &limit.to_string(), "--time", "5"], OK);
    let kept: u64 = verdict["stdout"].as_str().unwrap().trim().parse().unwrap();
    assert!(kept > 0 && kept < limit * 3 / 2, "{kept} bytes are kept in socket buffers under a limit of {limit}");
}

/// A trigger of `/proc/pressure` is slow to end: enough of them outlast every limit of time.
#[test]
fn no_trigger_of_pressure_can_be_made() {
    rustbox_only!();
    let test = Test::new();
    let code = "for file in /proc/pressure/cpu /proc/pressure/memory /proc/pressure/io; do
        if (echo 'some 150000 1000000' >$file) 2>/dev/null; then echo $file; fi; done; ls /proc/pressure";
    let id = fresh_id(&test);
    let verdict = test.runtime(&["run", "--json", "--code", code, &id]).ok().json();
    assert_eq!(verdict["stdout"], "", "{verdict:#}");
    super::assert_clean(&test);
}

/// Filters of sockets are compiled in memory that all users of the machine share, and that the judge's own filter needs.
#[test]
fn no_filter_is_attached_to_a_socket() {
    rustbox_only!();
    let test = Test::new();
    let code = "import ctypes, errno, socket, struct
code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0xffff))
program = struct.pack('HxxxxxxQ', 1, ctypes.addressof(code))
for family in socket.AF_UNIX, socket.AF_INET:
    s = socket.socket(family, socket.SOCK_DGRAM)
    for option in 26, 50, 51, 52:
        try:
            s.setsockopt(socket.SOL_SOCKET, option, program)
            print(family, option)
        except OSError as error:
            if error.errno != errno.EPERM: print(family, option, error)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)";
    let verdict = python(&test, &[], code).wait().ok().json();
    assert_eq!(verdict["stdout"], "", "{verdict:#}");
    super::assert_clean(&test);
}
