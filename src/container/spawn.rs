//! Making init: one clone, or two where namespaces must be joined first; and the creator's side of its set-up.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::container::birth_network::BirthNetwork;
use crate::container::identity::{self, ProcessId};
use crate::container::namespaces::Namespaces;
use crate::error::{At, Error, Result};
use crate::init::channel::{Channel, Message, failure};
use crate::sys::clone::{Child, CloneArgs, clone3};
use crate::sys::wait::close_copies;
use crate::sys::{Errno, pidfd, process, processors, socket};

/// Flags that go into the clone that makes init. The cgroup namespace is unshared by init itself, once it
/// is in its cgroups, and the network namespace, which takes the kernel longest, while the creator makes those; the
/// time namespace holds only for children and executed programs. With a new user namespace the IPC namespace comes later,
/// too: its message queues belong to whom the maker is then, who is nobody before the ids are mapped.
const IN_CLONE: i32 =
    libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Where init is born.
#[derive(Debug)]
pub struct Birth<'a> {
    /// The cgroup v2 directory.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Who owns its new user namespace, where not the creator. Not with a stage.
    pub owner: Option<libc::uid_t>,
    /// The network namespace. Not with a stage.
    pub network: Option<BirthNetwork>,
}

/// Makes init, which runs `init`. `line` is init's end of the line: the stage uses it too. `creators` are the creator's
/// alone: a copy of its end of the line would hide its death. (Its lock is given up by init, [`crate::init::Init::lock`].)
///
/// # Errors
/// As `clone3(2)` and `setns(2)`.
pub fn spawn(
    namespaces: &Namespaces,
    time_offsets: Option<&dyn Fn() -> Result<()>>,
    birth: Birth<'_>,
    creator: &Channel,
    line: Channel,
    creators: &[BorrowedFd<'_>],
    init: impl FnOnce() -> i32,
) -> Result<Child> {
    let later = if namespaces.new & libc::CLONE_NEWUSER != 0 { libc::CLONE_NEWIPC } else { 0 };
    let flags = (namespaces.new & IN_CLONE & !later) as u64;
    if !namespaces.needs_stage() && time_offsets.is_none() {
        let init = || {
            close_copies(creators);
            init()
        };
        let args = CloneArgs { namespaces: flags, cgroup: birth.cgroup, owner: birth.owner, ..CloneArgs::default() };
        return match birth.network {
            Some(network) => network.clone(args, init),
            None => clone3(args, init).map_err(refused),
        };
    }
    // The stage is born in the cgroup, and init in the stage's: inside a joined user namespace the
    // clone would not be allowed to choose.
    let stage = clone3(CloneArgs { cgroup: birth.cgroup, ..CloneArgs::default() }, || {
        close_copies(creators);
        match self::stage(namespaces, time_offsets, flags, &line, init) {
            Ok(()) => 0,
            Err(error) => {
                let _ = line.send(&failure(&error));
                1
            }
        }
    })
    .map_err(refused)?;
    // Its end then ends the line too, should it be killed before it has said a word.
    drop(line);
    introduced(creator, &stage)
}

/// Hears from a stage of the process that it has made, and reaps the stage.
///
/// # Errors
/// What kept it from making one.
pub fn introduced(creator: &Channel, stage: &Child) -> Result<Child> {
    let made = match first_word(creator, stage) {
        Ok(Some((Message::Made(pid), mut fds))) if !fds.is_empty() => Ok(Child { pid, pidfd: fds.swap_remove(0) }),
        Ok(Some((Message::Failed(errno, text), _))) => Err(Error::Init { errno, text }),
        Ok(_) => Err(Error::Other("the process that joins the namespaces has ended".to_owned())),
        Err(error) => Err(error),
    };
    if made.is_err() {
        let _ = pidfd::send_signal(stage.pidfd.as_fd(), libc::SIGKILL);
    }
    pidfd::wait(stage.pidfd.as_fd(), true).at("wait for", "the process that joins the namespaces")?;
    made
}

/// What comes over the line, or nothing where the stage ends without a word. The line alone does not tell: what the stage
/// has made by then holds it open, and waits for us.
fn first_word(creator: &Channel, stage: &Child) -> Result<Option<(Message, Vec<OwnedFd>)>> {
    let events = [creator.as_fd(), stage.pidfd.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let mut both = events;
    loop {
        match poll(&mut both, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            polled => {
                polled.at("wait for", "the process that joins the namespaces")?;
                break;
            }
        }
    }
    // It may have spoken between the two looks of the poll.
    let mut line = [events[0]];
    poll(&mut line, PollTimeout::ZERO).at("look at", "the line to init")?;
    if line[0].any() == Some(true) { creator.receive_with() } else { Ok(None) }
}

fn stage(
    namespaces: &Namespaces,
    time_offsets: Option<&dyn Fn() -> Result<()>>,
    flags: u64,
    line: &Channel,
    init: impl FnOnce() -> i32,
) -> Result<()> {
    // Not to be looked into by processes of the namespaces it joins (CVE-2016-9962).
    process::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).at("make", "the joining process undumpable")?;
    if let Some(write_offsets) = time_offsets {
        process::unshare(libc::CLONE_NEWTIME).at("unshare", "the time namespace")?;
        write_offsets()?;
    }
    namespaces.enter()?;
    if namespaces.joins(libc::CLONE_NEWUSER) {
        process::setresgid(0).at("become", "group 0 of the user namespace")?;
        process::setresuid(0).at("become", "user 0 of the user namespace")?;
    }
    introduce(flags, line, init)
}

/// Makes a sibling of the caller that runs `child`, and tells of it over the line; the child begins when the caller has
/// ended.
///
/// # Errors
/// As `clone3(2)`.
pub fn introduce(flags: u64, line: &Channel, child: impl FnOnce() -> i32) -> Result<()> {
    // The child speaks on the same line: its first word must not overtake the one that introduces it. It goes on when
    // the last writer is gone, which are the caller and, until it drops its own copy, itself.
    let (hold, release) = nix::unistd::pipe2(OFlag::O_CLOEXEC).at("make", "a pipe to hold init")?;
    let release = Cell::new(Some(release));
    let held = || {
        drop(release.take());
        while let Err(Errno::EINTR) = nix::unistd::read(hold.as_raw_fd(), &mut [0]) {}
        child()
    };
    let child =
        clone3(CloneArgs { namespaces: flags, sibling: true, ..CloneArgs::default() }, held).map_err(refused)?;
    line.send_with(&Message::Made(child.pid), &[child.pidfd.as_fd()])
}

/// Looks at a new init, and sends it to another processor where it waits for the creator's: they have half a millisecond of
/// work to do beside each other, and a scheduler that packs work on few processors would have one wait for the other.
pub fn look_at(init: libc::pid_t) -> Option<ProcessId> {
    let (process, processor) = identity::locate(init).ok().flatten()?;
    if processors::current() == Ok(processor) {
        // There may be no other.
        let _ = processors::send_away(nix::unistd::Pid::from_raw(init));
    }
    Some(process)
}

pub(super) fn refused(errno: Errno) -> Error {
    Error::sys("clone", "the container's first process", errno)
}

/// Init as its creator sees it, until it is on record.
#[derive(Debug)]
pub struct Conversation<'a> {
    /// The creator's end of the line.
    pub channel: &'a Channel,
    /// Init.
    pub child: &'a OwnedFd,
}

impl Conversation<'_> {
    /// Tells init something, with the descriptors that belong to it.
    ///
    /// # Errors
    /// What init reports, where it has ended meanwhile.
    pub fn tell(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<()> {
        match self.channel.send_with(message, fds) {
            Err(error) if error.errno() == Some(Errno::EPIPE) => Err(match self.hear() {
                Ok(said) => Error::Other(format!("init has ended after {said:?}")),
                Err(reported) => reported,
            }),
            other => other,
        }
    }

    /// Sends init the ways to its mounts, as many at once as a message takes, and then that there are no more.
    ///
    /// # Errors
    /// As [`Conversation::tell`].
    pub fn lend(&self, ways: &[OwnedFd]) -> Result<()> {
        for some in ways.chunks(socket::MOST_FDS) {
            self.tell(&Message::Ways, &some.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
        }
        self.tell(&Message::Ways, &[])
    }

    /// Waits until init says `awaited`.
    ///
    /// # Errors
    /// What init reports, or how it has ended.
    pub fn expect(&self, awaited: &Message) -> Result<()> {
        let said = self.hear()?;
        if said == *awaited { Ok(()) } else { Err(Error::Other(format!("init said {said:?} instead of {awaited:?}"))) }
    }

    /// What init says next, where it is no failure and not its end.
    fn hear(&self) -> Result<Message> {
        match self.channel.receive()? {
            Some(Message::Failed(errno, text)) => Err(Error::Init { errno, text }),
            Some(message) => Ok(message),
            None => Err(self.ended()),
        }
    }

    /// Waits until init is ready; where its filter notifies, `take` is called once to take the listener.
    ///
    /// # Errors
    /// As [`Conversation::expect`].
    pub fn expect_ready(&self, take: Option<&mut dyn FnMut() -> Result<()>>) -> Result<()> {
        let Some(take) = take else { return self.expect(&Message::Ready) };
        // A filter that needs privilege is attached before init has given up its own, others at the very end.
        match self.hear()? {
            Message::Filter => take().and_then(|()| self.expect(&Message::Ready)),
            Message::Ready => self.expect(&Message::Filter).and_then(|()| take()),
            other => Err(Error::Other(format!("init said {other:?} instead of that it is ready"))),
        }
    }

    /// Why init has ended, which has not told.
    pub fn ended(&self) -> Error {
        match pidfd::wait_end(self.child.as_fd(), 1000).and_then(|_| pidfd::wait(self.child.as_fd(), false)) {
            Ok(Some(process::Ended::Signaled(libc::SIGKILL, _))) => Error::Other(
                "the container's first process was killed while it was set up: is the memory limit too low?".to_owned(),
            ),
            Ok(Some(ended)) => Error::Other(format!("the container's first process has ended unexpectedly: {ended:?}")),
            _ => Error::Other("the container's first process has closed its line unexpectedly".to_owned()),
        }
    }
}
