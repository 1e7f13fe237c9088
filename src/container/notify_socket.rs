//! systemd's readiness protocol (sd_notify(3)) for a program in a container: NOTIFY_SOCKET.
//!
//! systemd believes only processes of the service's own cgroup, and the program is in another. So the runtime, as runc and
//! crun do, gives the program a socket of its own and hands on that it is ready. The socket lies in a tmpfs of the container's and
//! is made by whoever starts the program and waits for its word: nothing of it is on the host, and nothing remains of it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};

use crate::container::state::Record;
use crate::error::{At, Error, Result};
use crate::sys::path::{RESOLVE_IN_ROOT, c_path, fstat, open, openat2, unlinkat};
use crate::sys::{Errno, pidfd, process};

/// The variable by which systemd names its socket, and by which the program finds its own.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// The program's directory where systemd's socket has no path.
const PLACE: &str = "/run/notify";
/// The socket in the directory.
const NAME: &std::ffi::CStr = c"notify";

/// systemd's socket, if the caller has been given one: a path, or a name after `@`.
fn systemds() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|name| name.len() > 1 && name.starts_with(['/', '@']))
}

/// Adds to a configuration what the program needs to report that it is ready, where the caller has been given a socket for
/// such reports. Gives the directory in which that will be.
pub fn offer(spec: &mut Spec) -> Option<String> {
    let host = systemds()?;
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let own_mounts = namespaces.iter().any(|it| it.typ() == LinuxNamespaceType::Mount && it.path().is_none());
    let process = spec.process_mut().as_mut().filter(|_| own_mounts)?;
    let place = if host.starts_with('/') { host } else { PLACE.to_owned() };
    let mut env = process.env().clone().unwrap_or_default();
    env.retain(|variable| !variable.starts_with(&format!("{VARIABLE}=")));
    env.push(format!("{VARIABLE}={place}/{}", NAME.to_string_lossy()));
    process.set_env(Some(env));
    let mut mount = Mount::default();
    let options = ["nosuid", "nodev", "noexec", "mode=755", "size=64k", "nr_inodes=16"];
    mount.set_destination(place.clone().into()).set_typ(Some("tmpfs".into())).set_source(Some("notify".into()));
    mount.set_options(Some(options.map(str::to_owned).to_vec()));
    spec.mounts_mut().get_or_insert_default().push(mount);
    Some(place)
}

/// Who waits for the program's word.
#[derive(Debug)]
pub struct Proxy {
    socket: UnixDatagram,
    systemds: String,
    pid: libc::pid_t,
}

impl Proxy {
    /// Makes the socket of a container whose program does not run yet; nothing where it has been offered none, or where the
    /// caller has nobody to tell.
    ///
    /// # Errors
    /// As `bind(2)`, and where the directory is not the container's tmpfs.
    pub fn open(record: &Record, pid: libc::pid_t) -> Result<Option<Proxy>> {
        let (Some(place), Some(systemds)) = (&record.notify, systemds()) else { return Ok(None) };
        let directory = libc::O_PATH | libc::O_DIRECTORY;
        let root = format!("/proc/{pid}/root");
        let root = open(&root, directory).at("open", &root)?;
        let name = c_path(place).at("open", place)?;
        let place_fd = openat2(root.as_fd(), &name, directory, 0, RESOLVE_IN_ROOT).at("open", place)?;
        let kind = nix::sys::statfs::fstatfs(&place_fd).at("stat the file system of", place)?.filesystem_type();
        if kind != nix::sys::statfs::TMPFS_MAGIC {
            return Err(Error::Refused(format!("`{place}` in the container is not the tmpfs for {VARIABLE}")));
        }
        match unlinkat(place_fd.as_fd(), NAME, 0) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Error::sys("remove the old socket in", place, errno)),
        }
        // As the container's root, which may be the only user that its tmpfs knows, and for every user in there.
        let owner = fstat(place_fd.as_fd()).at("stat", place)?;
        let before = (setfsuid(Uid::from_raw(owner.st_uid)), setfsgid(Gid::from_raw(owner.st_gid)));
        let umask = process::umask(0);
        let path = format!("/proc/self/fd/{}/{}", place_fd.as_raw_fd(), NAME.to_string_lossy());
        let bound = UnixDatagram::bind(path);
        process::umask(umask);
        setfsgid(before.1);
        setfsuid(before.0);
        let socket = bound.at("make a socket in", place)?;
        socket.set_nonblocking(true).at("set up the socket in", place)?;
        Ok(Some(Proxy { socket, systemds, pid }))
    }

    /// Waits until the program is ready, and tells systemd; or until its process, `init`, has ended.
    ///
    /// # Errors
    /// Where systemd cannot be told.
    pub fn wait(&self, init: BorrowedFd<'_>) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let word = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let ended = pidfd::wait_end_or(init, &word, PollTimeout::NONE);
            let ended = ended.at("wait for", "a program's readiness")?;
            // What it has said before it ended counts.
            while let Ok(length) = self.socket.recv(&mut buffer) {
                if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                    return self.tell();
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn tell(&self) -> Result<()> {
        let words = ["READY=1".to_owned(), format!("MAINPID={}", self.pid)];
        let sent = UnixDatagram::unbound().and_then(|socket| {
            let address = match self.systemds.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(&self.systemds)?,
            };
            words.iter().try_for_each(|line| socket.send_to_addr(line.as_bytes(), &address).map(drop))
        });
        sent.at("tell of the program's readiness", &self.systemds)
    }
}
