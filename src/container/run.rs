//! `run`: create, start, wait, delete, in one process and without a gate.

use std::os::fd::AsFd;
use std::time::Instant;

use crate::cleanup::Proof;
use crate::container::console;
use crate::container::create::create;
use crate::container::created::Created;
use crate::container::delete::release;
use crate::container::foreground::{Signals, wait};
use crate::container::notify_socket::Proxy;
use crate::container::options::Options;
use crate::container::root::Root;
use crate::container::start::poststart;
use crate::error::{Error, Result};
use crate::judge::monitor::Monitor;
use crate::spec::Bundle;
use crate::sys::lock::FlockArg;
use crate::sys::process::Ended;
use crate::worker::metrics;

/// How a foreground run went.
#[derive(Debug)]
pub struct Ran {
    /// How the program ended.
    pub ended: Ended,
    /// That nothing remains; nothing where the container is kept, or somebody else has deleted it.
    pub proof: Option<Proof>,
    /// Failures of poststop hooks, and to tell systemd that the program is ready.
    pub warnings: Vec<Error>,
}

/// Creates and starts a container, and returns once its program is executed.
///
/// # Errors
/// As [`create`], and why the program could not be executed or which poststart hook has failed; then nothing of the container remains.
pub fn launch(root: &Root, id: &str, bundle: &Bundle, options: Options<'_>) -> Result<Created> {
    let begun = Instant::now();
    let verdicts = options.verdicts.clone();
    let mut created = create(root, id, bundle, Options { ungated: true, ..options })?;
    let started = Proxy::open(&created.record, created.init.pid).and_then(|proxy| {
        created.proxy = proxy;
        let monitor = Monitor::begin(root, &created.directory, &created.record, &verdicts)?;
        match created.start() {
            Ok(()) => monitor.into_iter().for_each(Monitor::started),
            Err(error) => {
                monitor.into_iter().for_each(|monitor| monitor.failed(&error));
                return Err(error);
            }
        }
        metrics::started(begun.elapsed());
        Ok(())
    });
    match started.and_then(|()| poststart(&created.directory, &created.record, created.init.pid)) {
        Ok(()) => Ok(created),
        Err(error) => {
            let Created { directory, record, pidfd, .. } = created;
            Err(release(root, directory, &record, Some(pidfd)).proof.after(error))
        }
    }
}

/// Whether the bundle's program wants a terminal.
pub fn wants_terminal(bundle: &Bundle) -> bool {
    bundle.spec.process().as_ref().and_then(|process| process.terminal()) == Some(true)
}

/// Runs a container in the foreground and deletes it, unless it is to be kept.
///
/// # Errors
/// As [`launch`].
pub fn foreground(root: &Root, id: &str, bundle: &Bundle, mut options: Options<'_>, keep: bool) -> Result<Ran> {
    let signals = Signals::take()?;
    let mut terminal = None;
    if options.console_socket.is_none() && wants_terminal(bundle) {
        let (theirs, ours) = console::socket()?;
        options.console_socket = Some(theirs);
        terminal = Some(ours);
    }
    let created = launch(root, id, bundle, options)?;
    let Created { directory, record, pidfd, proxy, .. } = created;
    // Others may do with the container what they like while it runs.
    let directory = directory.unlock()?;
    let mut told = Ok(());
    let ended = std::thread::scope(|scope| {
        // It ends with the program at the latest, before anything is cloned again.
        let waiting = proxy.as_ref().map(|proxy| scope.spawn(|| proxy.wait(pidfd.as_fd())));
        let ended = match terminal {
            Some(socket) => console::wait(&pidfd, &signals, socket.as_fd()),
            None => wait(&pidfd, &signals),
        };
        if let Some(Ok(done)) = waiting.map(std::thread::ScopedJoinHandle::join) {
            told = done;
        }
        ended
    });
    drop(proxy);
    let mut warnings: Vec<Error> = told.err().into_iter().collect();
    if keep {
        return Ok(Ran { ended: ended?, proof: None, warnings });
    }
    let Some(directory) = root.lock_opened(id, directory, FlockArg::LockExclusive)? else {
        // Whoever has deleted it has the proof.
        return Ok(Ran { ended: ended?, proof: None, warnings });
    };
    let deleted = release(root, directory, &record, Some(pidfd));
    warnings.extend(deleted.warnings);
    Ok(Ran { ended: ended?, proof: Some(deleted.proof), warnings })
}
