//! Many jobs through one supervisor: a line in, a verdict out, so many at a time.
//!
//! What all jobs have in common is found out once ([`Judge`]); everything that belongs to one submission, its namespaces too,
//! is its own and is proved gone with it (`docs/decisions/`). Memory is bounded: the next line is read when a slot is free,
//! and none is begun while results wait for a slow reader.

pub mod cores;
pub mod input;
pub mod journal;
pub mod output;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::sys::epoll::EpollFlags;
use nix::sys::signalfd::SignalFd;
use schemars::JsonSchema;
use serde::Serialize;

use self::cores::Cores;
use self::input::{Line, Lines};
use self::journal::{JobHash, Journal};
use self::output::Results;
use super::output::SCHEMA_VERSION;
use super::run::{Event, JobKey, Jobs, Judge, Judged, Request, Run, fresh_id};
use crate::error::{Error, Result};

/// While so many bytes of results wait for their reader, no job is begun.
const BACKLOG: usize = 8 << 20;

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const SIGNAL: u32 = 2;

/// A line, understood as far as it could be.
#[derive(Debug)]
pub struct Job {
    /// The id that its result will have.
    pub id: Option<String>,
    /// What is to be judged, or what is wrong with it.
    pub request: Result<Request>,
}

/// Takes part in a batch: understands its lines, hears of its results.
pub trait Caller {
    /// Understands a line.
    fn job(&mut self, line: &[u8]) -> Job;
    /// The kind of an error that kept a job from a verdict: `invalid`, `refused` or `internal`.
    fn kind(&self, error: &Error) -> &'static str;
    /// Hears of a judged run. An error ends the batch: no further job is begun.
    ///
    /// # Errors
    /// Where no more work may be done.
    fn judged(&mut self, judged: &Judged) -> Result<()>;
    /// Hears how far it is: what has come of the jobs, and how many bytes of them were read.
    fn progress(&mut self, summary: &Summary, read: u64);
}

/// What a batch works with.
#[derive(Debug)]
pub struct Batch<'a> {
    /// How many jobs at a time.
    pub slots: usize,
    /// The jobs.
    pub lines: Lines,
    /// Where results go.
    pub results: Results,
    /// What is done.
    pub journal: Option<Journal>,
    /// Cores of each slot's own.
    pub cores: Option<Cores>,
    /// SIGINT, SIGTERM and SIGHUP.
    pub cancel: &'a SignalFd,
}

/// What has come of a batch.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Summary {
    /// Verdicts, by status.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Lines that came to no verdict.
    pub errors: u64,
    /// Jobs that the journal names.
    pub skipped: u64,
    /// It was ended by a signal.
    pub cancelled: bool,
    /// Nobody reads the results any more.
    pub unread: bool,
    /// Why no more work may be done.
    pub refused: Option<String>,
}

impl Summary {
    /// Jobs that have a verdict.
    pub fn judged(&self) -> u64 {
        self.verdicts.values().sum()
    }

    /// In one line, for a person.
    pub fn line(&self) -> String {
        let mut parts: Vec<String> = self.verdicts.iter().map(|(status, count)| format!("{status} {count}")).collect();
        let counted = [(self.errors, "errors"), (self.skipped, "done before")];
        parts.extend(counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
        let said = [(self.cancelled, "stopped by a signal"), (self.unread, "nobody reads the results")];
        parts.extend(said.iter().filter(|(is, _)| *is).map(|(_, what)| (*what).to_owned()));
        parts.extend(self.refused.clone());
        format!("{} jobs: {}", self.judged() + self.errors, parts.join(", "))
    }
}

/// What came to no verdict, as it is printed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Failure<'a> {
    /// [`SCHEMA_VERSION`](crate::judge::output::SCHEMA_VERSION).
    schema_version: u32,
    /// The job's id; `null` where it has none.
    id: Option<&'a str>,
    /// The number of its line.
    line: u64,
    /// What is wrong.
    error: Reason<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Reason<'a> {
    kind: &'a str,
    message: &'a str,
}

/// A job under way.
#[derive(Debug)]
struct Running {
    id: Option<String>,
    line: u64,
    hash: JobHash,
    slot: usize,
}

struct Loop<'a, 'c> {
    jobs: Jobs<'a>,
    judge: &'a Judge<'a>,
    batch: Batch<'a>,
    caller: &'c mut dyn Caller,
    running: BTreeMap<JobKey, Running>,
    slots: Vec<usize>,
    summary: Summary,
    /// There is a byte to be read.
    readable: bool,
    /// No job is begun any more.
    stopping: bool,
}

/// Runs a batch to its end.
///
/// # Errors
/// Where the batch itself cannot go on: its input, its output, its journal. What was running is then ended by the death of
/// this process, and is for recovery.
pub fn run<'a>(judge: &'a Judge<'a>, batch: Batch<'a>, caller: &mut dyn Caller) -> Result<Summary> {
    let jobs = Jobs::new()?;
    jobs.watch_also(batch.cancel.as_fd(), EpollFlags::EPOLLIN, SIGNAL)?;
    let once = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
    let mut batch = batch;
    if !jobs.watch_also(batch.lines.as_fd(), once, STDIN)? {
        batch.lines.always_ready();
    }
    if !jobs.watch_also(batch.results.as_fd(), EpollFlags::empty(), STDOUT)? {
        batch.results.always_ready();
    }
    let slots = (0..batch.slots).rev().collect();
    let mut all = Loop {
        jobs,
        judge,
        batch,
        caller,
        running: BTreeMap::new(),
        slots,
        summary: Summary::default(),
        readable: false,
        stopping: false,
    };
    let done = all.go();
    if done.is_err() {
        // The results of what runs are lost, but it is ended and proved gone.
        all.stop();
        while !all.jobs.is_empty() {
            all.jobs.wait(None)?;
        }
    }
    if let Some(journal) = &mut all.batch.journal {
        journal.sync()?;
    }
    done.map(|()| all.summary)
}

impl Loop<'_, '_> {
    fn go(&mut self) -> Result<()> {
        let mut ended = false;
        loop {
            ended |= self.begin()?;
            self.caller.progress(&self.summary, self.batch.lines.read());
            if self.jobs.is_empty() && (ended || self.stopping) && self.batch.results.waiting() == 0 {
                return Ok(());
            }
            let latest = self.batch.journal.as_ref().and_then(Journal::due);
            for event in self.jobs.wait(latest)? {
                match event {
                    Event::Done(key, judged) => self.done(key, judged)?,
                    Event::Outside(STDIN) => self.readable = true,
                    Event::Outside(STDOUT) => self.write()?,
                    Event::Outside(_) => {
                        self.jobs.forget(self.batch.cancel.as_fd());
                        self.summary.cancelled = true;
                        self.stop();
                    }
                }
            }
            if let Some(journal) = &mut self.batch.journal
                && journal.due().is_some_and(|due| due <= Instant::now())
            {
                journal.sync()?;
            }
        }
    }

    /// Begins jobs while there is room. True when there are no more.
    fn begin(&mut self) -> Result<bool> {
        while !self.stopping && !self.slots.is_empty() && self.batch.results.waiting() < BACKLOG {
            match self.batch.lines.next(&mut self.readable)? {
                Line::Whole(number, line) => self.job(number, &line)?,
                Line::TooLong(number) => {
                    let error = Error::Usage(format!("a line may have {} MiB", input::LONGEST >> 20));
                    self.failed(None, number, 0, &error)?;
                }
                Line::NotYet => {
                    let once = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
                    self.jobs.watch_for(self.batch.lines.as_fd(), once, STDIN)?;
                    return Ok(false);
                }
                Line::End => return Ok(true),
            }
        }
        Ok(false)
    }

    fn job(&mut self, number: u64, line: &[u8]) -> Result<()> {
        let hash = journal::hash(line);
        if self.batch.journal.as_ref().is_some_and(|journal| journal.has(hash)) {
            self.summary.skipped += 1;
            return Ok(());
        }
        let Job { id, request } = self.caller.job(line);
        let Some(slot) = self.slots.last().copied() else { return Ok(()) };
        let run = request.and_then(|request| {
            let cpus = self.batch.cores.as_ref().map(|cores| cores.of(slot).to_owned());
            Run::new(self.judge, Request { id: fresh_id(), cpus, ..request })
        });
        match run {
            Ok(run) => {
                self.slots.pop();
                let key = self.jobs.start(run)?;
                self.running.insert(key, Running { id, line: number, hash, slot });
                Ok(())
            }
            Err(error) => self.failed(id.as_deref(), number, hash, &error),
        }
    }

    fn done(&mut self, key: JobKey, judged: Result<Box<Judged>>) -> Result<()> {
        let Some(Running { id, line, hash, slot }) = self.running.remove(&key) else { return Ok(()) };
        self.slots.push(slot);
        let mut judged = match judged {
            Ok(judged) => judged,
            Err(error) => return self.failed(id.as_deref(), line, hash, &error),
        };
        if let Err(error) = self.caller.judged(&judged) {
            self.summary.refused = Some(error.to_string());
            self.stopping = true;
        }
        let judgement = &mut judged.judgement;
        judgement.id = id.unwrap_or_else(|| line.to_string());
        *self.summary.verdicts.entry(judgement.run.status.as_str()).or_default() += 1;
        let text = json(&judgement)?;
        let cancelled = judgement.run.cause == super::cause::Cause::IeCancelled;
        if let Some(journal) = self.batch.journal.as_mut().filter(|_| !cancelled) {
            journal.note(hash, &text)?;
        }
        self.say(&text)
    }

    /// A line that came to no verdict.
    fn failed(&mut self, id: Option<&str>, line: u64, hash: JobHash, error: &Error) -> Result<()> {
        self.summary.errors += 1;
        let kind = self.caller.kind(error);
        let message = error.to_string();
        let error = Reason { kind, message: &message };
        let text = json(&Failure { schema_version: SCHEMA_VERSION, id, line, error })?;
        if let Some(journal) = self.batch.journal.as_mut().filter(|_| kind == "invalid") {
            journal.note(hash, &text)?;
        }
        self.say(&text)
    }

    fn say(&mut self, text: &str) -> Result<()> {
        let idle = self.batch.results.waiting() == 0;
        self.batch.results.line(text)?;
        if idle && self.batch.results.waiting() > 0 {
            self.jobs.watch_for(self.batch.results.as_fd(), EpollFlags::EPOLLOUT, STDOUT)?;
        }
        Ok(())
    }

    /// Stdout is writable, or its reader is gone.
    fn write(&mut self) -> Result<()> {
        let read = match self.batch.results.waiting() {
            0 => false,
            _ => self.batch.results.write()?,
        };
        if !read {
            self.jobs.forget(self.batch.results.as_fd());
            self.batch.results.close();
            self.summary.unread = true;
            self.stop();
        } else if self.batch.results.waiting() == 0 {
            self.jobs.watch_for(self.batch.results.as_fd(), EpollFlags::empty(), STDOUT)?;
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.jobs.cancel();
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Other(format!("print JSON: {error}")))
}
