//! The supervisor: one thread and one epoll set for any number of sandboxes. It waits for whatever happens first in any of
//! them, and never without a bound.
//!
//! | source | what it does |
//! |---|---|
//! | the line of init's set-up | init is ready: it is recorded and let go |
//! | the line to init | the exec, the payload's end, the listener, the artefact; closing means that init is lost |
//! | stdout, stderr | counted and kept; over the limit the payload is killed |
//! | stdin | passed on, where it is a pipe of the caller's |
//! | the seccomp listener | the forbidden call is recorded, then the payload is killed |
//! | `pids.events` | a rate of refused forks that no honest program has |
//! | init's pidfd | nothing of the pid namespace is left, so the counters are final |
//! | deadlines | wall time from exec; CPU time, looked at when it can be used up at the earliest |
//!
//! A kill goes through init, which kills its whole namespace in one call and still reports the payload's own wait
//! status. The first cause stays.

mod events;
pub(super) mod pace;
mod watch;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::evidence::KillCause;
use crate::error::{At, Result};
use crate::sys::{Errno, epoll};
pub use pace::processors;
use watch::Source;
pub use watch::{Container, Job, Outcome, Watch};

/// Names a sandbox of a supervisor, until it is over.
pub type Key = usize;

/// What has happened.
#[derive(Debug)]
pub enum Happened<'a> {
    /// Nothing of a payload is left, or cannot be waited for any longer: the container is to be released.
    Over(Key, Box<(Option<Container<'a>>, Outcome)>),
    /// A descriptor of [`Supervisor::watch_also`] is ready.
    Outside(u32),
}

/// The set of sandboxes.
#[derive(Debug)]
pub struct Supervisor<'a> {
    epoll: Epoll,
    members: Vec<Option<Member<'a>>>,
    /// Sources that epoll refuses because they are always ready, such as `/dev/null`.
    always: Vec<(Key, Source)>,
    cancelled: bool,
}

#[derive(Debug)]
struct Member<'a> {
    watch: Watch<'a>,
    registered: Vec<(Source, RawFd, EpollFlags)>,
}

const SOURCES: [Source; 8] = [
    Source::Channel,
    Source::Line,
    Source::Init,
    Source::Stdin,
    Source::Stdout,
    Source::Stderr,
    Source::Listener,
    Source::Pids,
];
/// In an event's number: a descriptor of the caller's.
const OUTSIDE: u64 = 1 << 63;

/// Before a descriptor is closed: as long as another sandbox's init holds a copy, it would stay in the set.
fn forget(epoll: &Epoll, fd: RawFd) {
    let _ = epoll::remove(epoll.0.as_fd(), fd);
}

fn number(key: Key, source: Source) -> u64 {
    (key as u64) << 8 | source as u64
}

impl<'a> Supervisor<'a> {
    /// An empty set.
    ///
    /// # Errors
    /// As `epoll_create1(2)`.
    pub fn new() -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).at("make", "an epoll set")?;
        Ok(Supervisor { epoll, members: Vec::new(), always: Vec::new(), cancelled: false })
    }

    /// Supervises one more sandbox.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`; then the sandbox is lost, for recovery to release.
    pub fn add(&mut self, mut watch: Watch<'a>) -> Result<Key> {
        if self.cancelled {
            watch.kill(KillCause::Cancelled);
        }
        let member = Some(Member { watch, registered: Vec::with_capacity(SOURCES.len()) });
        let key = match self.members.iter().position(Option::is_none) {
            Some(key) => {
                self.members[key] = member;
                key
            }
            None => {
                self.members.push(member);
                self.members.len() - 1
            }
        };
        self.register(key)?;
        Ok(key)
    }

    /// Ends every sandbox, those that come later too. The results come as ever.
    pub fn cancel(&mut self) {
        self.cancelled = true;
        self.members.iter_mut().flatten().for_each(|member| member.watch.kill(KillCause::Cancelled));
    }

    /// Whether [`Supervisor::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// Also waits for a descriptor of the caller's, by a number of the caller's. False where it is always ready.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn watch_also(&self, fd: BorrowedFd<'_>, events: EpollFlags, number: u32) -> Result<bool> {
        match self.epoll.add(fd, EpollEvent::new(events, OUTSIDE | u64::from(number))) {
            Ok(()) => Ok(true),
            Err(Errno::EPERM) => Ok(false),
            Err(errno) => Err(errno).at("watch", "a descriptor"),
        }
    }

    /// Changes what is waited for.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn watch_for(&self, fd: BorrowedFd<'_>, events: EpollFlags, number: u32) -> Result<()> {
        let mut event = EpollEvent::new(events, OUTSIDE | u64::from(number));
        self.epoll.modify(fd, &mut event).at("watch", "a descriptor")
    }

    /// No longer waits for a descriptor of the caller's: before it is closed, since a sandbox may hold a copy for a moment.
    pub fn forget(&self, fd: BorrowedFd<'_>) {
        let _ = self.epoll.delete(fd);
    }

    /// Waits for the next events or deadlines, at most until `latest`, handles them, and tells what is over.
    ///
    /// # Errors
    /// As `epoll_wait(2)`. What goes wrong with one sandbox is in its evidence.
    pub fn wait(&mut self, latest: Option<Instant>) -> Result<Vec<Happened<'a>>> {
        let mut events = [EpollEvent::empty(); 64];
        let timeout = self.timeout(latest);
        let ready = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => &events[..count],
            Err(Errno::EINTR) => &[],
            Err(errno) => return Err(errno).at("wait for", "the sandboxes"),
        };
        let mut happened = Vec::new();
        let mut touched: Vec<Key> = Vec::new();
        for event in ready {
            if event.data() & OUTSIDE != 0 {
                happened.push(Happened::Outside(event.data() as u32));
            } else if let Some(source) = SOURCES.get((event.data() & 0xff) as usize) {
                let key = (event.data() >> 8) as Key;
                self.on(key, *source, event.events());
                touched.push(key);
            }
        }
        for (key, source) in std::mem::take(&mut self.always) {
            self.on(key, source, EpollFlags::EPOLLIN);
            touched.push(key);
        }
        let now = Instant::now();
        for (key, member) in self.members.iter_mut().enumerate() {
            if let Some(member) = member.as_mut().filter(|member| member.watch.deadline() <= now) {
                member.watch.on_time();
                touched.push(key);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for key in touched {
            self.register(key)?;
            if self.members[key].as_ref().is_some_and(|member| member.watch.done())
                && let Some(member) = self.members[key].take()
            {
                member.registered.iter().for_each(|(_, fd, _)| forget(&self.epoll, *fd));
                happened.push(Happened::Over(key, Box::new(member.watch.finish())));
            }
        }
        Ok(happened)
    }

    fn timeout(&self, latest: Option<Instant>) -> EpollTimeout {
        if !self.always.is_empty() {
            return EpollTimeout::ZERO;
        }
        let deadlines = self.members.iter().flatten().map(|member| member.watch.deadline());
        let Some(next) = deadlines.chain(latest).min() else { return EpollTimeout::NONE };
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up, so that a deadline has passed when the wait for it ends.
        EpollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(EpollTimeout::MAX)
    }

    fn on(&mut self, key: Key, source: Source, events: EpollFlags) {
        let Some(Some(member)) = self.members.get_mut(key) else { return };
        if matches!(source, Source::Stdin | Source::Listener)
            && let Some(at) = member.registered.iter().position(|(registered, ..)| *registered == source)
        {
            // Handling it may close it, and a copy that another sandbox holds for a moment would keep it in the set.
            let (_, fd, _) = member.registered.swap_remove(at);
            forget(&self.epoll, fd);
        }
        if let Err(error) = member.watch.on(source, events) {
            member.watch.lost(&error);
        }
    }

    /// Makes the set what the sandbox waits for now.
    fn register(&mut self, key: Key) -> Result<()> {
        let Some(Some(member)) = self.members.get_mut(key) else { return Ok(()) };
        let wanted = member.watch.sources();
        let same = |(source, fd, events): &(Source, RawFd, EpollFlags)| {
            wanted.iter().any(|it| (it.0, it.1.as_raw_fd(), it.2) == (*source, *fd, *events))
        };
        for (_, fd, _) in member.registered.iter().filter(|it| !same(it)) {
            forget(&self.epoll, *fd);
        }
        member.registered.retain(same);
        for (source, fd, events) in &wanted {
            let entry = (*source, fd.as_raw_fd(), *events);
            if member.registered.contains(&entry) {
                continue;
            }
            match self.epoll.add(fd, EpollEvent::new(*events, number(key, *source))) {
                Ok(()) => member.registered.push(entry),
                Err(Errno::EPERM) => self.always.push((key, *source)),
                Err(errno) => return Err(errno).at("watch", "a sandbox"),
            }
        }
        Ok(())
    }
}
