//! A program and an interactor side by side, each one's output the other's input.
//!
//! Both have a sandbox, limits and host ids of their own. Who has ended first is part of the evidence: whoever leaves a
//! conversation first is to blame for what becomes of the other.

use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;

use super::prepared::Prepared;
use super::step::{Begun, Output, StepPlan, Stepped};
use super::subject::{CompileStep, State};
use super::{Input, Judged, Next, Run};
use crate::error::{At, Result};
use crate::judge::evidence::{Checked, Cleanup};
use crate::judge::jury;
use crate::judge::lease::{self, Lease};
use crate::judge::limits::Limits;
use crate::judge::output;
use crate::judge::sandbox::{self, Setting};
use crate::judge::stage::Stage;
use crate::judge::verdict::classify;

impl<'a> Run<'a> {
    /// Begins both.
    pub(super) fn interact(&mut self, program: Prepared, interactor: Prepared) -> Result<Next<'a>> {
        let limits = self.given.over(&program.limits).resolve()?;
        let mut theirs = interactor.limits.over(&self.judge.base.jury).resolve()?;
        // It must outlive a program that says nothing, and hear that it has ended.
        theirs.wall_time_ms += limits.wall_time_ms + limits.extra_time_ms;
        self.lease()?;
        let id = format!("{}-interactor", self.id);
        self.partner = Some(self.take_lease(&id)?);
        let (program_in, interactor_out) = pipe()?;
        let (interactor_in, program_out) = pipe()?;

        let ours = self.stage(program.places())?;
        let plan = program
            .fill(&ours)
            .and_then(|()| self.configure(&ours, &program.config, &limits, None, program.places()))
            .map(|spec| StepPlan {
                stdout: Output::Given(program_out),
                ..StepPlan::ours(spec, &ours, &limits, Input::Given(program_in)).of(program.whose())
            });
        let first = self.step(plan, Some(ours))?;
        // From here on the program runs, and whatever becomes of the interactor is part of its story.
        let second = self.interactor(&id, &interactor, &theirs, interactor_in, interactor_out);
        let second = second.unwrap_or_else(|error| Begun::Over(Box::new(Stepped::fault(error.to_string()))));
        let Prepared { language, compiled, .. } = program;
        self.state = State::Interacting { language, limits: [limits, theirs], compiled };
        Ok(Next::Steps(vec![first, second]))
    }

    fn interactor(
        &self,
        id: &str,
        prepared: &Prepared,
        limits: &Limits,
        stdin: OwnedFd,
        stdout: OwnedFd,
    ) -> Result<Begun<'a>> {
        let places = self.places(prepared.places());
        let stage = Stage::make(self.judge.root.path(), id, &places, &[])?;
        let plan = prepared.fill(&stage).and_then(|()| {
            let setting = Setting {
                limits,
                ids: (self.partner.as_ref().map_or(lease::FIRST, Lease::base), lease::SIZE),
                user_namespace: !self.degraded("user_namespace"),
                places: &places,
                inodes: self.judge.base.inodes,
                env: &[],
                shares: &[],
                args: None,
                cpus: self.cpus.as_deref(),
                rootfs: stage.rootfs(),
                box_mount: stage.box_mount(),
                resources: self.resources(),
            };
            sandbox::configure(&prepared.config, &setting)
        });
        let plan = plan.map(|spec| StepPlan {
            id: Some(id.to_owned()),
            stdout: Output::Given(stdout),
            ..StepPlan::ours(spec, &stage, limits, Input::Given(stdin))
        });
        self.step(plan, Some(stage))
    }

    /// Both have ended: the interactor's word becomes part of the program's evidence.
    pub(super) fn interacted(
        &self,
        language: Option<String>,
        [limits, theirs]: [Limits; 2],
        compiled: Option<CompileStep>,
        mut program: Stepped,
        mut interactor: Stepped,
    ) -> Judged {
        for stepped in [&mut program, &mut interactor] {
            stepped.evidence.streams.joined = true;
        }
        let first = match (interactor.ended_ns, program.ended_ns) {
            (Some(theirs), Some(ours)) => theirs < ours,
            (theirs, _) => theirs.is_some(),
        };
        let verdict = classify(&interactor.evidence, &theirs);
        let gone = interactor.evidence.cleanup.take();
        let stderr = std::mem::take(&mut interactor.stderr);
        let step = output::Step::new(&verdict, interactor.evidence, theirs, self.controls(), &[], &stderr);
        let checked = jury::ruling("interactor", &step, &stderr);
        program.evidence.checker = Some(Checked { ended_first: Some(first), ..checked });
        program.evidence.cleanup = both(program.evidence.cleanup.take(), gone);
        self.finish(language, program, limits, compiled)
    }
}

/// Two proofs as one: what neither has left is proved gone.
fn both(ours: Option<Cleanup>, theirs: Option<Cleanup>) -> Option<Cleanup> {
    let (mut ours, theirs) = (ours?, theirs?);
    ours.proved &= theirs.proved;
    ours.left.extend(theirs.left);
    ours.checked.extend(theirs.checked.into_iter().map(|what| format!("{what} of the interactor")));
    Some(ours)
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).at("make", "a pipe")
}
