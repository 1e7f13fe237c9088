use super::super::evidence::{Cleanup, Compile, Fault, ForbiddenCall, Kill};
use super::*;

/// A quiet run that exited with 0.
fn quiet() -> Evidence {
    let mut e = Evidence::default();
    e.payload.wait_status = Some(WaitStatus::Exited { code: 0 });
    e.payload.wall_us = Some(5_000);
    e.payload.rusage_cpu_us = Some(1_000);
    e.cgroup.cpu_us = Some(1_000);
    e.cgroup.oom = Oom::V1 { kills: Some(0), event_fired: Some(false), failcnt: Some(0), peak_at_limit: Some(false) };
    e.cgroup.pids_limit_hits = Some(0);
    e.streams.stdout_bytes = Some(0);
    e.streams.stderr_bytes = Some(0);
    e.cleanup = Some(Cleanup { proved: true, ..Default::default() });
    e
}

fn limits() -> Limits {
    Limits::default()
}

fn own(status: Status, cause: Cause) -> Option<Compile> {
    Some(Compile { verdict: Box::new(Verdict::new(11, status, cause, Actor::Payload)), artefact: Some(true) })
}

fn killed(cause: KillCause, hits: u64) -> Option<Kill> {
    Some(Kill { cause, at_us: Some(1), pids_limit_hits: Some(hits) })
}

fn signaled(signal: i32) -> Option<WaitStatus> {
    Some(WaitStatus::Signaled { signal, core: false })
}

/// Makes rule `n` hold, and leaves everything else as it is.
fn hold(rule: usize, e: &mut Evidence) {
    match rule {
        0 => e.fault = Some(Fault { kind: FaultKind::Setup, message: "mount".into() }),
        1 => {
            e.cgroup.oom =
                Oom::V1 { kills: Some(1), event_fired: Some(true), failcnt: Some(0), peak_at_limit: Some(false) }
        }
        2 => e.compile = own(Status::Re, Cause::ReNonzeroExit),
        3 => {
            let call =
                ForbiddenCall { number: 101, name: Some("ptrace".into()), arch: "x86_64".into(), args: [0; 6], pid: 7 };
            e.seccomp = Some(call);
        }
        4 => {
            e.cgroup.oom =
                Oom::V1 { kills: Some(1), event_fired: Some(true), failcnt: Some(3), peak_at_limit: Some(false) }
        }
        5 => {
            e.payload.image_bytes = Some(limits().memory_bytes + 1);
            e.payload.entered_user_mode = Some(false);
            e.payload.wait_status = signaled(libc::SIGSEGV);
        }
        6 => e.kill = killed(KillCause::CpuTime, 0),
        7 => e.cgroup.cpu_us = Some(limits().cpu_time_ms * 1000 + 1),
        8 => {
            e.files.no_free_blocks = Some(true);
            if e.payload.wait_status == Some(WaitStatus::Exited { code: 0 }) {
                e.payload.wait_status = Some(WaitStatus::Exited { code: 1 });
            }
        }
        9 => {
            e.cgroup.pids_limit_hits = Some(4);
            if e.payload.wait_status == Some(WaitStatus::Exited { code: 0 }) {
                e.payload.wait_status = Some(WaitStatus::Exited { code: 1 });
            }
        }
        10 => e.payload.wait_status = signaled(libc::SIGABRT),
        11 => e.payload.wait_status = Some(WaitStatus::Exited { code: 3 }),
        _ => {}
    }
}

const EXPECTED: [(Status, Cause, Actor); 13] = [
    (Status::Ie, Cause::IeSetupFailed, Actor::Runtime),
    (Status::Ie, Cause::IeHostOom, Actor::Kernel),
    (Status::Ce, Cause::CeNonzeroExit, Actor::Payload),
    (Status::Sv, Cause::SvSeccomp, Actor::Judge),
    (Status::Mle, Cause::MleKernelOom, Actor::Kernel),
    (Status::Mle, Cause::MleExec, Actor::Kernel),
    (Status::Tle, Cause::TleCpuJudge, Actor::Judge),
    (Status::Tle, Cause::TleCpuJudge, Actor::Judge),
    (Status::Fse, Cause::FseLimitExceeded, Actor::Kernel),
    (Status::Ple, Cause::PleCgroupPids, Actor::Kernel),
    (Status::Sig, Cause::ReFatalSignal, Actor::Payload),
    (Status::Re, Cause::ReNonzeroExit, Actor::Payload),
    (Status::Ok, Cause::NormalExit, Actor::Payload),
];

#[test]
fn each_rule_alone_gives_its_verdict() {
    for (rule, expected) in EXPECTED.iter().enumerate() {
        let mut e = quiet();
        hold(rule, &mut e);
        let verdict = classify(&e, &limits());
        assert_eq!((verdict.status, verdict.cause, verdict.actor), *expected, "rule {rule}");
        assert_eq!(usize::from(verdict.rule), rule);
    }
}

#[test]
fn of_any_two_rules_the_earlier_wins() {
    for first in 0..EXPECTED.len() {
        for second in first + 1..EXPECTED.len() {
            // 1 and 4 are one counter read two ways; 10 and 11 are one wait status.
            if matches!((first, second), (1, 4) | (5, 10 | 11) | (10, 11)) {
                continue;
            }
            let mut e = quiet();
            hold(second, &mut e);
            hold(first, &mut e);
            let verdict = classify(&e, &limits());
            assert_eq!(usize::from(verdict.rule), first, "rules {first} and {second}: {verdict:?}");
        }
    }
}

#[test]
fn exit_137_is_a_runtime_error_and_only_a_real_signal_is_sig() {
    let mut e = quiet();
    e.payload.wait_status = Some(WaitStatus::Exited { code: 137 });
    assert_eq!(classify(&e, &limits()).status, Status::Re);
    e.payload.wait_status = signaled(libc::SIGKILL);
    assert_eq!(classify(&e, &limits()).status, Status::Sig);
}

#[test]
fn sigxcpu_without_cpu_time_is_a_signal_like_any_other() {
    let mut e = quiet();
    e.payload.wait_status = signaled(libc::SIGXCPU);
    assert_eq!(classify(&e, &limits()).cause, Cause::ReFatalSignal);
    e.cgroup.cpu_us = Some(limits().cpu_time_ms * 1000);
    let verdict = classify(&e, &limits());
    assert_eq!((verdict.cause, verdict.actor), (Cause::TleCpuKernel, Actor::Kernel));
}

#[test]
fn sigsys_without_a_record_is_a_signal() {
    let mut e = quiet();
    e.payload.wait_status = signaled(libc::SIGSYS);
    assert_eq!(classify(&e, &limits()).status, Status::Sig);
}

#[test]
fn a_child_killed_for_memory_decides_even_when_the_parent_exits_with_0() {
    let mut e = quiet();
    hold(4, &mut e);
    assert_eq!(classify(&e, &limits()).status, Status::Mle);
    e.cgroup.oom = Oom::V2 { kills: Some(1), local_oom: Some(1) };
    assert_eq!(classify(&e, &limits()).status, Status::Mle);
    // A kernel that no longer counts failures: the peak at the limit stands in.
    e.cgroup.oom = Oom::V1 { kills: Some(1), event_fired: Some(true), failcnt: Some(0), peak_at_limit: Some(true) };
    assert_eq!(classify(&e, &limits()).status, Status::Mle);
}

#[test]
fn out_of_memory_is_attributed_or_called_ambiguous() {
    let cases = [
        (
            Oom::V1 { kills: Some(1), event_fired: Some(true), failcnt: Some(0), peak_at_limit: Some(false) },
            Some(Cause::IeHostOom),
        ),
        (
            Oom::V1 { kills: Some(1), event_fired: Some(false), failcnt: Some(5), peak_at_limit: Some(false) },
            Some(Cause::IeOomAmbiguous),
        ),
        (
            Oom::V1 { kills: Some(1), event_fired: None, failcnt: Some(5), peak_at_limit: Some(false) },
            Some(Cause::IeOomAmbiguous),
        ),
        (
            Oom::V1 { kills: Some(1), event_fired: Some(true), failcnt: None, peak_at_limit: Some(false) },
            Some(Cause::IeOomAmbiguous),
        ),
        (
            Oom::V1 { kills: Some(1), event_fired: Some(true), failcnt: Some(0), peak_at_limit: None },
            Some(Cause::IeOomAmbiguous),
        ),
        (
            Oom::V1 { kills: Some(1), event_fired: Some(false), failcnt: Some(0), peak_at_limit: Some(true) },
            Some(Cause::IeOomAmbiguous),
        ),
        (Oom::V1 { kills: Some(0), event_fired: Some(true), failcnt: Some(0), peak_at_limit: Some(true) }, None),
        (Oom::V1 { kills: Some(0), event_fired: Some(true), failcnt: Some(900), peak_at_limit: Some(false) }, None),
        (Oom::V2 { kills: Some(1), local_oom: Some(0) }, Some(Cause::IeHostOom)),
        (Oom::V2 { kills: Some(1), local_oom: None }, Some(Cause::IeOomAmbiguous)),
        (Oom::V2 { kills: Some(0), local_oom: Some(1) }, None),
    ];
    for (oom, cause) in cases {
        let mut e = quiet();
        e.cgroup.oom = oom.clone();
        let verdict = classify(&e, &limits());
        assert_eq!(verdict.cause, cause.unwrap_or(Cause::NormalExit), "{oom:?}");
        assert_eq!(verdict.retryable, cause.is_some());
    }
}

#[test]
fn every_kill_cause_has_its_verdict() {
    let cases = [
        (KillCause::Stdout, 0, Status::Ole, Cause::OleOutput),
        (KillCause::Stderr, 0, Status::Ole, Cause::OleOutput),
        (KillCause::PidsRate, 9000, Status::Abuse, Cause::AbusePidsRate),
        (KillCause::CpuTime, 9, Status::Tle, Cause::TleCpuJudge),
        (KillCause::WallTime, 0, Status::Tle, Cause::TleWallJudge),
        (KillCause::WallTime, 1, Status::Ple, Cause::PleCgroupPids),
    ];
    for (cause, hits, status, expected) in cases {
        let mut e = quiet();
        e.payload.wait_status = signaled(libc::SIGKILL);
        e.kill = killed(cause, hits);
        let verdict = classify(&e, &limits());
        assert_eq!((verdict.status, verdict.cause, verdict.actor), (status, expected, Actor::Judge), "{cause:?}");
    }
}

#[test]
fn time_over_the_limit_counts_even_with_exit_0_and_extra_time() {
    let mut e = quiet();
    let limits = Limits { extra_time_ms: 1000, ..limits() };
    e.payload.wall_us = Some(limits.wall_time_ms * 1000 + 1);
    assert_eq!(classify(&e, &limits).cause, Cause::TleWallJudge);
    e.payload.wall_us = Some(limits.wall_time_ms * 1000);
    assert_eq!(classify(&e, &limits).status, Status::Ok);
}

#[test]
fn a_full_disk_never_spoils_exit_0() {
    let mut e = quiet();
    e.files.at_size_limit = Some(true);
    e.files.no_free_blocks = Some(true);
    e.files.no_free_inodes = Some(true);
    assert_eq!(classify(&e, &limits()).status, Status::Ok);
    e.payload.wait_status = signaled(libc::SIGXFSZ);
    e.files = Default::default();
    assert_eq!(classify(&e, &limits()).status, Status::Fse);
}

#[test]
fn the_pids_limit_never_spoils_exit_0() {
    let mut e = quiet();
    e.cgroup.pids_limit_hits = Some(3);
    assert_eq!(classify(&e, &limits()).status, Status::Ok);
}

#[test]
fn a_huge_image_that_ran_is_judged_by_what_it_did() {
    let mut e = quiet();
    hold(5, &mut e);
    e.payload.entered_user_mode = Some(true);
    assert_eq!(classify(&e, &limits()).status, Status::Sig);
    e.payload.entered_user_mode = None;
    assert_eq!(classify(&e, &limits()).status, Status::Sig);
}

#[test]
fn compile_failures_keep_their_own_verdict_as_detail() {
    let cases = [
        (Status::Re, Cause::CeNonzeroExit),
        (Status::Sig, Cause::CeFatalSignal),
        (Status::Tle, Cause::CeTimeLimit),
        (Status::Mle, Cause::CeMemoryLimit),
        (Status::Ole, Cause::CeOutputLimit),
        (Status::Fse, Cause::CeFileSizeLimit),
        (Status::Ple, Cause::CeProcessLimit),
        (Status::Sv, Cause::CeForbiddenCall),
        (Status::Abuse, Cause::CeAbuse),
    ];
    for (status, cause) in cases {
        // The run step never was: all of its evidence is unknown.
        let e = Evidence { compile: own(status, Cause::ReNonzeroExit), cleanup: quiet().cleanup, ..Default::default() };
        let verdict = classify(&e, &limits());
        assert_eq!((verdict.status, verdict.cause), (Status::Ce, cause));
        assert!(verdict.detail.unwrap().contains(status.as_str()));
    }
    let mut e = quiet();
    e.compile = own(Status::Ok, Cause::NormalExit);
    assert_eq!(classify(&e, &limits()).status, Status::Ok);
    e.compile.as_mut().unwrap().artefact = Some(false);
    assert_eq!(classify(&e, &limits()).cause, Cause::CeNoArtefact);
    e.compile = Some(Compile {
        verdict: Box::new(Verdict::new(1, Status::Ie, Cause::IeHostOom, Actor::Kernel)),
        artefact: None,
    });
    assert_eq!(classify(&e, &limits()).cause, Cause::IeHostOom);
}

#[test]
fn missing_evidence_is_an_internal_error_unless_its_control_was_degraded() {
    type Forget = fn(&mut Evidence);
    let cases: [(Forget, Option<&str>); 8] = [
        (|e| e.payload.wait_status = None, None),
        (|e| e.payload.wall_us = None, None),
        (|e| e.streams.stdout_bytes = None, None),
        (|e| e.streams.stderr_bytes = None, None),
        (|e| e.cgroup.cpu_us = None, Some("cpuacct")),
        (|e| e.cgroup.oom = Oom::Unknown, Some("memory")),
        (|e| e.cgroup.oom = Oom::V2 { kills: None, local_oom: None }, Some("memory")),
        (|e| e.cgroup.pids_limit_hits = None, Some("pids")),
    ];
    for (index, (forget, control)) in cases.into_iter().enumerate() {
        let mut e = quiet();
        forget(&mut e);
        let verdict = classify(&e, &limits());
        assert_eq!((verdict.cause, verdict.rule), (Cause::IeEvidenceMissing, 0), "case {index}");
        if let Some(control) = control {
            e.control_degraded.push(control.into());
            assert_eq!(classify(&e, &limits()).status, Status::Ok, "case {index}");
        }
    }
}

#[test]
fn an_internal_error_keeps_the_provisional_verdict() {
    let mut e = quiet();
    e.payload.wait_status = Some(WaitStatus::Exited { code: 4 });
    e.cleanup = Some(Cleanup { proved: false, left: vec!["cgroup `/x`".into()], ..Default::default() });
    let verdict = classify(&e, &limits());
    assert_eq!((verdict.status, verdict.cause), (Status::Ie, Cause::IeNotProvedGone));
    assert_eq!(verdict.provisional.unwrap().status, Status::Re);
    e.cleanup = None;
    assert_eq!(classify(&e, &limits()).cause, Cause::IeNotProvedGone);
    e.cleanup = quiet().cleanup;
    e.kill = killed(KillCause::Cancelled, 0);
    let verdict = classify(&e, &limits());
    assert_eq!((verdict.cause, verdict.provisional.map(|v| v.status)), (Cause::IeCancelled, Some(Status::Re)));
}

#[test]
fn what_cannot_be_executed_is_the_submissions_own_error() {
    let mut e = Evidence { cleanup: quiet().cleanup, ..Evidence::default() };
    e.payload.not_executable = Some("exec /box/a: ENOEXEC".into());
    let verdict = classify(&e, &limits());
    assert_eq!((verdict.status, verdict.cause, verdict.actor), (Status::Re, Cause::ReNotExecutable, Actor::Payload));
    e.cleanup = None;
    assert_eq!(classify(&e, &limits()).cause, Cause::IeNotProvedGone, "a proof is asked for all the same");
}

#[test]
fn every_fault_has_its_cause() {
    for (kind, cause) in [
        (FaultKind::Setup, Cause::IeSetupFailed),
        (FaultKind::Exec, Cause::IeExecFailed),
        (FaultKind::SupervisorLost, Cause::IeSupervisorLost),
        (FaultKind::Cancelled, Cause::IeCancelled),
    ] {
        let mut e = quiet();
        e.fault = Some(Fault { kind, message: String::new() });
        assert_eq!(classify(&e, &limits()).cause, cause);
    }
}

/// Walks a lattice: each subset of the rules' conditions on each wait status. Every point has a verdict that
/// survives storage, and adding a condition never moves the verdict to a later rule.
#[test]
fn the_classifier_is_total_monotone_and_replayable() {
    let statuses = [
        WaitStatus::Exited { code: 0 },
        WaitStatus::Exited { code: 137 },
        WaitStatus::Signaled { signal: 9, core: false },
    ];
    let conditions: [fn(&mut Evidence); 12] = [
        |e| e.cleanup = None,
        |e| e.kill = killed(KillCause::Cancelled, 0),
        |e| e.compile = own(Status::Tle, Cause::TleCpuJudge),
        |e| hold(3, e),
        |e| hold(4, e),
        |e| {
            e.payload.image_bytes = Some(u64::MAX);
            e.payload.entered_user_mode = Some(false);
        },
        |e| {
            if e.kill.is_none() {
                e.kill = killed(KillCause::WallTime, 2);
            }
        },
        |e| hold(7, e),
        |e| e.payload.wall_us = Some(u64::MAX),
        |e| e.files.at_size_limit = Some(true),
        |e| e.cgroup.pids_limit_hits = Some(2),
        |e| e.fault = Some(Fault { kind: FaultKind::Exec, message: "x".into() }),
    ];
    let at = |status: WaitStatus, set: u32| {
        let mut e = quiet();
        e.payload.wait_status = Some(status);
        for (bit, condition) in conditions.iter().enumerate() {
            if set & 1 << bit != 0 {
                condition(&mut e);
            }
        }
        e
    };
    for status in statuses {
        for set in 0..1u32 << conditions.len() {
            let e = at(status, set);
            let verdict = classify(&e, &limits());
            for bit in 0..conditions.len() {
                let stronger = classify(&at(status, set | 1 << bit), &limits());
                assert!(stronger.rule <= verdict.rule, "{set:b} + {bit}: {verdict:?} then {stronger:?}");
            }
            if set % 37 == 0 {
                let stored: Evidence = serde_json::from_str(&serde_json::to_string(&e).unwrap()).unwrap();
                assert_eq!(classify(&stored, &limits()), verdict);
            }
        }
    }
}

fn checked(ruling: Ruling, points: Option<f64>) -> Option<Checked> {
    Some(Checked { ruling, message: "said so".into(), exit_code: Some(1), points, ended_first: None })
}

#[test]
fn a_checker_speaks_about_what_ended_well_and_only_about_that() {
    for (ruling, points, status, cause) in [
        (Ruling::Accepted, None, Status::Ok, Cause::NormalExit),
        (Ruling::Points, Some(3.5), Status::Ok, Cause::NormalExit),
        (Ruling::Points, Some(0.0), Status::Wa, Cause::WaChecker),
        (Ruling::Points, None, Status::Wa, Cause::WaChecker),
        (Ruling::Wrong, None, Status::Wa, Cause::WaChecker),
        (Ruling::Presentation, None, Status::Pe, Cause::PeChecker),
        (Ruling::Failed, None, Status::Ie, Cause::IeCheckerFailed),
    ] {
        let mut e = quiet();
        e.checker = checked(ruling, points);
        let verdict = classify(&e, &limits());
        assert_eq!((verdict.status, verdict.cause), (status, cause), "{ruling:?}");
        assert_eq!(verdict.detail.is_some(), verdict.rule == 13);
        for rule in 0..12 {
            let mut both = quiet();
            hold(rule, &mut both);
            let alone = classify(&both, &limits());
            both.checker = checked(ruling, points);
            assert_eq!(classify(&both, &limits()), alone, "rule {rule}, {ruling:?}");
        }
    }
}

#[test]
fn whoever_leaves_a_conversation_first_is_to_blame() {
    use Ruling::*;
    let ends = |status: WaitStatus| {
        let mut e = quiet();
        e.payload.wait_status = Some(status);
        e
    };
    let exits = |code| ends(WaitStatus::Exited { code });
    let dies = |signal| ends(WaitStatus::Signaled { signal, core: false });
    let mut waits = quiet();
    waits.payload.wall_us = Some(7_000_000);
    waits.kill = killed(KillCause::WallTime, 0);
    let mut works = waits.clone();
    works.cgroup.cpu_us = Some(1_900_000);
    for (e, ruling, first, status, cause) in [
        (exits(0), Accepted, false, Status::Ok, Cause::NormalExit),
        (exits(0), Wrong, false, Status::Wa, Cause::WaChecker),
        (exits(0), Failed, true, Status::Ie, Cause::IeCheckerFailed),
        (exits(3), Wrong, false, Status::Re, Cause::ReNonzeroExit),
        (exits(3), Wrong, true, Status::Wa, Cause::WaChecker),
        (exits(3), Accepted, true, Status::Re, Cause::ReNonzeroExit),
        (exits(3), Failed, true, Status::Ie, Cause::IeCheckerFailed),
        (exits(3), Failed, false, Status::Re, Cause::ReNonzeroExit),
        (dies(libc::SIGPIPE), Accepted, true, Status::Ok, Cause::NormalExit),
        (dies(libc::SIGPIPE), Presentation, true, Status::Pe, Cause::PeChecker),
        (dies(libc::SIGSEGV), Accepted, true, Status::Sig, Cause::ReFatalSignal),
        (waits.clone(), Wrong, false, Status::Tle, Cause::TleIdle),
        (waits.clone(), Accepted, true, Status::Tle, Cause::TleIdle),
        (waits, Wrong, true, Status::Wa, Cause::WaChecker),
        (works, Wrong, false, Status::Tle, Cause::TleWallJudge),
    ] {
        let mut e = e;
        let status_of = e.payload.wait_status;
        e.checker = checked(ruling, None).map(|checked| Checked { ended_first: Some(first), ..checked });
        // Its output was the interactor's, and was not counted.
        e.streams.stdout_bytes = None;
        assert_eq!(classify(&e, &limits()).cause, Cause::IeEvidenceMissing);
        e.streams.joined = true;
        let verdict = classify(&e, &limits());
        assert_eq!((verdict.status, verdict.cause), (status, cause), "{status_of:?} {ruling:?} {first}");
    }
}
