//! Runs under way: each asks for sandboxes, one set supervises them all, and what has come of a run's sandboxes goes back
//! to it, until it has its verdict.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use nix::sys::epoll::EpollFlags;

use super::step::{Begun, Ending, Stepped};
use super::{Judged, Next, Run};
use crate::error::{Error, Result};
use crate::judge::supervisor::{Happened, Key, Supervisor};

/// Names a run under way; no other one, as long as there are [`Jobs`].
pub type JobKey = u64;

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// A run has its verdict, or has come to none.
    Done(JobKey, Result<Box<Judged>>),
    /// A descriptor that was [watched also](Jobs::watch_also) is ready.
    Outside(u32),
}

/// Runs under way.
#[derive(Debug)]
pub struct Jobs<'a> {
    supervisor: Supervisor<'a>,
    jobs: BTreeMap<JobKey, Job<'a>>,
    started: JobKey,
    sandboxes: HashMap<Key, (JobKey, usize, Ending<'a>)>,
    done: Vec<Event>,
}

#[derive(Debug)]
struct Job<'a> {
    run: Run<'a>,
    /// What has come of the sandboxes it has asked for, in its order.
    stepped: Vec<Option<Result<Stepped>>>,
}

impl<'a> Jobs<'a> {
    /// None yet.
    ///
    /// # Errors
    /// As `epoll_create1(2)`.
    pub fn new() -> Result<Self> {
        Ok(Jobs {
            supervisor: Supervisor::new()?,
            jobs: BTreeMap::new(),
            started: 0,
            sandboxes: HashMap::new(),
            done: Vec::new(),
        })
    }

    /// Starts a run.
    ///
    /// # Errors
    /// Where the supervisor cannot go on. What is wrong with the run is its result.
    pub fn start(&mut self, mut run: Run<'a>) -> Result<JobKey> {
        let next = run.begin();
        let key = self.started;
        self.started += 1;
        self.jobs.insert(key, Job { run, stepped: Vec::new() });
        self.go_on(key, next)?;
        Ok(key)
    }

    /// How many runs are under way.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether none is, and [`Jobs::wait`] has told of the end of each.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.done.is_empty()
    }

    /// Ends all runs; their verdicts come as ever.
    pub fn cancel(&mut self) {
        self.supervisor.cancel();
    }

    /// As [`Supervisor::watch_also`].
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn watch_also(&self, fd: BorrowedFd<'_>, events: EpollFlags, number: u32) -> Result<bool> {
        self.supervisor.watch_also(fd, events, number)
    }

    /// As [`Supervisor::watch_for`].
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn watch_for(&self, fd: BorrowedFd<'_>, events: EpollFlags, number: u32) -> Result<()> {
        self.supervisor.watch_for(fd, events, number)
    }

    /// As [`Supervisor::forget`].
    pub fn forget(&self, fd: BorrowedFd<'_>) {
        self.supervisor.forget(fd);
    }

    /// Waits for something to happen, at most until `latest`; tells what.
    ///
    /// # Errors
    /// Where the supervisor cannot go on.
    pub fn wait(&mut self, latest: Option<Instant>) -> Result<Vec<Event>> {
        let mut events = std::mem::take(&mut self.done);
        let latest = if events.is_empty() { latest } else { Some(Instant::now()) };
        for happened in self.supervisor.wait(latest).map_err(left)? {
            match happened {
                Happened::Outside(number) => events.push(Event::Outside(number)),
                Happened::Over(sandbox, over) => {
                    let Some((key, place, ending)) = self.sandboxes.remove(&sandbox) else { continue };
                    let (container, outcome) = *over;
                    let stepped = ending.end(container, outcome);
                    self.stepped(key, place, stepped)?;
                }
            }
        }
        events.append(&mut self.done);
        Ok(events)
    }

    fn stepped(&mut self, key: JobKey, place: usize, stepped: Result<Stepped>) -> Result<()> {
        let Some(job) = self.jobs.get_mut(&key) else { return Ok(()) };
        job.stepped[place] = Some(stepped);
        if job.stepped.iter().any(Option::is_none) {
            return Ok(());
        }
        let stepped: Result<Vec<Stepped>> = job.stepped.drain(..).flatten().collect();
        let next = job.run.advance(stepped);
        self.go_on(key, next)
    }

    fn go_on(&mut self, key: JobKey, next: Result<Next<'a>>) -> Result<()> {
        let steps = match next {
            Ok(Next::Steps(steps)) => steps,
            Ok(Next::Done(judged)) => return self.end(key, Ok(judged)),
            Err(error) => return self.end(key, Err(error)),
        };
        let Some(job) = self.jobs.get_mut(&key) else { return Ok(()) };
        job.stepped = steps.iter().map(|_| None).collect();
        let mut over = Vec::new();
        for (place, step) in steps.into_iter().enumerate() {
            match step {
                Begun::Sandbox(sandbox) => {
                    let sandbox = *sandbox;
                    let number = self.supervisor.add(sandbox.watch).map_err(left)?;
                    self.sandboxes.insert(number, (key, place, sandbox.ending));
                }
                Begun::Over(stepped) => over.push((place, stepped)),
            }
        }
        over.into_iter().try_for_each(|(place, stepped)| self.stepped(key, place, Ok(*stepped)))
    }

    fn end(&mut self, key: JobKey, judged: Result<Box<Judged>>) -> Result<()> {
        let Some(job) = self.jobs.remove(&key) else { return Ok(()) };
        if let Ok(judged) = &judged {
            job.run.count(judged);
        }
        let released = job.run.release();
        self.done.push(Event::Done(key, judged.and_then(|judged| released.map(|()| judged))));
        Ok(())
    }
}

/// A supervisor that cannot go on has lost hold of its sandboxes: they end with it, and the caller is told what is left.
fn left(error: Error) -> Error {
    let context = "the sandboxes under way are left to `rustbox health --recover`".to_owned();
    Error::Context { context, source: Box::new(error) }
}

/// Runs one run to its end.
///
/// # Errors
/// As the run; `cancel` is a descriptor that is readable when it is to be cancelled.
pub fn to_the_end<'a>(run: Run<'a>, cancel: Option<BorrowedFd<'_>>) -> Result<Judged> {
    let mut jobs = Jobs::new()?;
    if let Some(cancel) = cancel {
        jobs.watch_also(cancel, EpollFlags::EPOLLIN, 0)?;
    }
    jobs.start(run)?;
    while !jobs.is_empty() {
        for event in jobs.wait(None)? {
            match event {
                Event::Done(_, judged) => return judged.map(|judged| *judged),
                Event::Outside(_) => {
                    cancel.into_iter().for_each(|cancel| jobs.forget(cancel));
                    jobs.cancel();
                }
            }
        }
    }
    Err(Error::Other("the run came to no end".to_owned()))
}
