//! Which of the newer system calls this process can make: an old kernel has none, and a container's filter may keep its
//! processes from one. Asked by calls that cannot succeed, so nothing is changed; and asked only where somebody wants to know,
//! since what each call itself answers is what decides.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Errno, check};

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// The kernel that brought it, and what is used of it.
    pub since: &'static str,
    /// What is done without it; where there is nothing, what needs it is refused.
    pub instead: Option<&'static str>,
    number: libc::c_long,
    arguments: [libc::c_long; 5],
    /// What the kernel answers to these arguments.
    answer: Errno,
}

/// What became of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The call can be made.
    There,
    /// The kernel does not have it, or a filter says so (`ENOSYS`).
    Missing,
    /// A filter forbids it (`EPERM`).
    Blocked,
}

impl Answer {
    /// As `health` and the reports say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Answer::There => "there",
            Answer::Missing => "missing",
            Answer::Blocked => "blocked",
        }
    }
}

impl Call {
    fn ask(&self) -> Answer {
        let [a, b, c, d, e] = self.arguments;
        // SAFETY: each set of arguments is refused before any memory is looked at: no descriptor, no address or no size is
        // valid in it.
        match check(unsafe { libc::syscall(self.number, a, b, c, d, e) }) {
            Err(Errno::ENOSYS) => Answer::Missing,
            Err(Errno::EPERM) => Answer::Blocked,
            _ => Answer::There,
        }
    }
}

const AT_EMPTY_PATH: libc::c_long = libc::AT_EMPTY_PATH as libc::c_long;

const fn call(
    name: &'static str,
    since: &'static str,
    instead: Option<&'static str>,
    number: libc::c_long,
    arguments: [libc::c_long; 5],
    answer: Errno,
) -> Call {
    Call { name, since, instead, number, arguments, answer }
}

/// The calls that came after Linux 5.0 and that a container's life needs.
pub const CALLS: [Call; 13] = [
    call(
        "clone3",
        "5.3; into a cgroup 5.7",
        Some("clone, and the child enters its v2 cgroup itself"),
        libc::SYS_clone3,
        [0; 5],
        Errno::EINVAL,
    ),
    call(
        "close_range",
        "5.9; close-on-exec 5.11",
        Some("descriptors one by one"),
        libc::SYS_close_range,
        [1, 0, 0, 0, 0],
        Errno::EINVAL,
    ),
    call("faccessat2", "5.8", Some("access"), libc::SYS_faccessat2, [-1, 0, 0, -1, 0], Errno::EINVAL),
    call("fsmount", "5.2", Some("mount, on a stage"), libc::SYS_fsmount, [-1, 0, 0, 0, 0], Errno::EBADF),
    call("fsopen", "5.2", Some("mount, on a stage"), libc::SYS_fsopen, [0, 0, 0, 0, 0], Errno::EFAULT),
    call(
        "mount_setattr",
        "5.12",
        Some("remounts; ids of mounts cannot be mapped"),
        libc::SYS_mount_setattr,
        [-1, 0, AT_EMPTY_PATH, 0, 0],
        Errno::EINVAL,
    ),
    call("move_mount", "5.2", Some("mount, from a stage"), libc::SYS_move_mount, [-1, 0, -1, 0, -1], Errno::EINVAL),
    call("open_tree", "5.2", Some("mount, on a stage"), libc::SYS_open_tree, [-1, 0, -1, 0, 0], Errno::EINVAL),
    call(
        "openat2",
        "5.6",
        Some("the path's components one by one"),
        libc::SYS_openat2,
        [-1, 0, 0, 0, 0],
        Errno::EINVAL,
    ),
    call("pidfd_getfd", "5.6", None, libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0], Errno::EBADF),
    call(
        "pidfd_open",
        "5.3",
        Some("the process's directory in procfs"),
        libc::SYS_pidfd_open,
        [0, 0, 0, 0, 0],
        Errno::EINVAL,
    ),
    call(
        "pidfd_send_signal",
        "5.1",
        Some("kill, after a look at the process"),
        libc::SYS_pidfd_send_signal,
        [-1, 0, 0, 0, 0],
        Errno::EBADF,
    ),
    call(
        "statx",
        "4.11; ids of mounts 5.8",
        Some("fdinfo of procfs"),
        libc::SYS_statx,
        [-1, 0, 0, 0, 0],
        Errno::EFAULT,
    ),
];

/// Asks for each call.
pub fn look() -> impl Iterator<Item = (Call, Answer)> {
    let root = nix::unistd::geteuid().is_root();
    let privileged = root && !super::process::in_user_namespace();
    let able = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap_or(false);
    // An exporter of metrics in a service's confinement would tell of the service, not of the host.
    let confined = root && !able;
    CALLS.into_iter().map(move |call| {
        let answer = match call.ask() {
            _ if confined => Answer::There,
            // Mounting needs a privilege, and whether the caller has it is asked first.
            Answer::Blocked if mounts(call.number) && !privileged => Answer::There,
            answer => answer,
        };
        (call, answer)
    })
}

/// Whether the call of this name can be made.
pub fn is_there(name: &str) -> bool {
    CALLS.iter().any(|call| call.name == name && call.ask() == Answer::There)
}

/// Whether mounts can be made and changed detached; asked by a caller with the privilege to mount.
pub fn can_mount_detached() -> bool {
    CALLS.iter().filter(|call| mounts(call.number)).all(|call| call.ask() == Answer::There)
}

fn mounts(number: libc::c_long) -> bool {
    [libc::SYS_fsopen, libc::SYS_fsmount, libc::SYS_move_mount, libc::SYS_open_tree, libc::SYS_mount_setattr]
        .contains(&number)
}

/// The calls that are not there, with what is done without them, in words; nothing where all are.
pub fn lacking() -> Option<String> {
    let words: Vec<_> = look()
        .filter(|(_, answer)| *answer != Answer::There)
        .map(|(call, answer)| {
            let instead =
                call.instead.map_or_else(|| format!("needs Linux {}", call.since), |it| format!("instead {it}"));
            format!("{} is {} ({instead})", call.name, answer.as_str())
        })
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_questions_are_answered_as_they_are_meant_to_be() {
        if !nix::unistd::geteuid().is_root() {
            // A mount's privilege is asked for before its arguments are looked at.
            return;
        }
        for call in CALLS {
            let [a, b, c, d, e] = call.arguments;
            // SAFETY: as in `ask`.
            let answer = check(unsafe { libc::syscall(call.number, a, b, c, d, e) });
            assert_eq!(answer, Err(call.answer), "{}", call.name);
        }
        assert_eq!(lacking(), None);
    }
}
