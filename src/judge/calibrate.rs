//! What this machine's figures are worth: its clocks, what judging costs, and how much the same program's figures differ.
//!
//! Everything is measured by judged runs of the usual kind, in the sandbox that submissions get: an empty program, and one
//! that computes for a fixed number of steps, alone and then in every slot at once. Nobody's submission is counted.

pub mod machine;

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getres, clock_gettime};
use schemars::JsonSchema;
use serde::Serialize;

use super::limits::LimitSource;
use super::noise::some_total;
use super::output::SCHEMA_VERSION;
use super::run::{Event, Jobs, Judge, Judged, Request, Run, Subject, fresh_id};
use super::supervisor::processors;
use super::verdict::Status;
use crate::error::{At, Error, Result};
use crate::worker;
use machine::{Machine, stolen_us};

/// CPU time that the computing program is made to take, ms.
const STEP_MS: f64 = 100.0;
/// Steps of a first, short run, from which the number for [`STEP_MS`] follows.
const PROBE: u64 = 20_000;
/// More than this share of difference is worth a word.
const MUCH: f64 = 0.05;
/// More than this share of stolen time is worth a word.
const STOLEN: f64 = 0.01;

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Calibration {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// When, RFC 3339.
    pub time: String,
    /// The program's version.
    pub version: String,
    /// The machine.
    pub machine: Machine,
    /// Runs in each series.
    pub runs: usize,
    /// The clock by which wall time is measured.
    pub clock: Clock,
    /// What judging adds to an empty program.
    pub overhead: Overhead,
    /// How far the CPU time of a verdict is from the kernel's account of each process, getrusage(2).
    pub accuracy: Accuracy,
    /// A computing program, one run after the other.
    pub alone: Series,
    /// The same in every slot at once.
    pub together: Series,
    /// What follows.
    pub advice: Advice,
}

/// CLOCK_MONOTONIC.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Clock {
    /// Its resolution, ns (clock_getres(2)).
    pub resolution_ns: u64,
    /// The time to read it, ns.
    pub read_ns: f64,
    /// How much it was steered meanwhile: its gain on CLOCK_MONOTONIC_RAW, parts per million.
    pub steered_ppm: f64,
}

/// A judged `/bin/true`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Overhead {
    /// From the request to the verdict with its proof, ms.
    pub whole_ms: Spread,
    /// Wall time in the verdict, ms.
    pub wall_ms: Spread,
    /// CPU time in the verdict, ms.
    pub cpu_ms: Spread,
}

/// Over all computing runs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Accuracy {
    /// The largest difference, µs.
    pub worst_us: u64,
    /// The largest difference as a share of the CPU time.
    pub worst_share: f64,
}

/// Runs of one program under one condition.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Series {
    /// Runs at a time.
    pub slots: usize,
    /// CPU time, ms.
    pub cpu_ms: Spread,
    /// Wall time, ms.
    pub wall_ms: Spread,
    /// Processor time that another virtual machine took, as a share of all.
    pub stolen_share: f64,
    /// Time in which some task of the machine waited for a processor, as a share; `null`: not counted here.
    pub cpu_pressure_share: Option<f64>,
}

/// A set of figures.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// 95 of 100 are not above it.
    pub p95: f64,
    /// The greatest.
    pub max: f64,
}

/// What the figures say about how to judge here.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Advice {
    /// Runs at a time (`batch --jobs`).
    pub jobs: usize,
    /// Whether each should have a core to itself (`batch --cpus 1 --exclusive-cores`).
    pub exclusive_cores: bool,
    /// A time limit should be at least this many times the time of the slowest solution that is to pass.
    pub time_factor: f64,
    /// Each thing worth knowing, in words.
    pub notes: Vec<String>,
}

impl Spread {
    /// Of at least one figure.
    fn of(mut figures: Vec<f64>) -> Spread {
        figures.sort_by(f64::total_cmp);
        let at = |share: f64| figures[((figures.len() - 1) as f64 * share).ceil() as usize];
        Spread { min: at(0.0), median: at(0.5), p95: at(0.95), max: at(1.0) }
    }

    /// The greatest over the least, less 1.
    fn share(&self) -> f64 {
        if self.min > 0.0 { self.max / self.min - 1.0 } else { 0.0 }
    }
}

/// How many runs a calibration makes whose series have so many.
pub fn total(runs: usize) -> usize {
    // The empty ones, the short one, those alone, those together.
    runs + 1 + runs + together(runs)
}

/// Every slot has as many.
fn together(runs: usize) -> usize {
    runs.next_multiple_of(processors())
}

/// Measures. `progress` hears of each run that is done.
///
/// # Errors
/// Where a run comes to no verdict, or to another than OK: then this machine cannot judge.
pub fn calibrate(judge: &Judge<'_>, runs: usize, mut progress: impl FnMut()) -> Result<Calibration> {
    let clocks = [ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_MONOTONIC_RAW].map(now_ns);
    let mut whole = Vec::new();
    let mut empty = Vec::new();
    for _ in 0..runs {
        let begun = Instant::now();
        empty.append(&mut judged(judge, "exit 0".to_owned(), 1, 1, &mut progress)?);
        whole.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let probe = judged(judge, program(PROBE), 1, 1, &mut progress)?;
    let took = probe[0].judgement.run.cpu_time_ms.unwrap_or(0.0).max(0.1);
    let steps = (PROBE as f64 * STEP_MS / took) as u64;
    let (first, alone) = series(judge, steps, runs, 1, &mut progress)?;
    let (second, in_all_slots) = series(judge, steps, together(runs), processors(), &mut progress)?;
    let machine = Machine::look();
    let [steered, raw] = [ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_MONOTONIC_RAW].map(now_ns);
    let [steered, raw] = [steered - clocks[0], raw - clocks[1]];
    Ok(Calibration {
        schema_version: SCHEMA_VERSION,
        time: worker::now()?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        runs,
        clock: Clock {
            resolution_ns: clock_getres(ClockId::CLOCK_MONOTONIC).map(duration).at("ask", "a clock")?.as_nanos() as u64,
            read_ns: reading_ns(),
            steered_ppm: (steered - raw) / raw.max(1.0) * 1e6,
        },
        overhead: Overhead {
            whole_ms: Spread::of(whole),
            wall_ms: figures(&empty, |judged| judged.judgement.run.wall_time_ms)?,
            cpu_ms: figures(&empty, |judged| judged.judgement.run.cpu_time_ms)?,
        },
        accuracy: accuracy(first.iter().chain(&second)),
        advice: advice(&machine, &alone, &in_all_slots),
        machine,
        alone,
        together: in_all_slots,
    })
}

/// A loop of the shell's own, without another process.
fn program(steps: u64) -> String {
    format!("i=0; while [ $i -lt {steps} ]; do i=$((i+1)); done")
}

fn series(
    judge: &Judge<'_>,
    steps: u64,
    runs: usize,
    slots: usize,
    progress: &mut impl FnMut(),
) -> Result<(Vec<Judged>, Series)> {
    let pressure = || std::fs::read_to_string("/proc/pressure/cpu").ok().and_then(|text| some_total(&text));
    let (begun, stolen, pressed) = (Instant::now(), stolen_us(), pressure());
    let judged = judged(judge, program(steps), runs, slots, progress)?;
    let took = begun.elapsed().as_micros().max(1) as f64;
    let series = Series {
        slots,
        cpu_ms: figures(&judged, |judged| judged.judgement.run.cpu_time_ms)?,
        wall_ms: figures(&judged, |judged| judged.judgement.run.wall_time_ms)?,
        stolen_share: stolen_us().saturating_sub(stolen) as f64 / took / processors() as f64,
        cpu_pressure_share: pressed.zip(pressure()).map(|(before, after)| after.saturating_sub(before) as f64 / took),
    };
    Ok((judged, series))
}

/// Judges the same shell program so many times, so many at a time.
fn judged<'a>(
    judge: &'a Judge<'a>,
    code: String,
    runs: usize,
    slots: usize,
    progress: &mut impl FnMut(),
) -> Result<Vec<Judged>> {
    let mut jobs = Jobs::new()?;
    let mut begun = 0;
    let mut done = Vec::new();
    while done.len() < runs {
        while begun < runs && jobs.len() < slots {
            let words = ["/bin/sh", "-c", &code].map(str::to_owned);
            let mut request = Request::new(fresh_id(), Subject::Program(words.into()));
            request.limits = LimitSource { time: Some(10_000), ..LimitSource::default() };
            jobs.start(Run::new(judge, request)?)?;
            begun += 1;
        }
        for event in jobs.wait(None)? {
            let Event::Done(_, judged) = event else { continue };
            let judged = *judged?;
            let verdict = &judged.judgement.run;
            if verdict.status != Status::Ok {
                let words = judged.judgement.summary();
                return Err(Error::Other(format!("a program that does no harm came to {words}")));
            }
            done.push(judged);
            progress();
        }
    }
    Ok(done)
}

fn figures(judged: &[Judged], figure: impl Fn(&Judged) -> Option<f64>) -> Result<Spread> {
    let known: Option<Vec<f64>> = judged.iter().map(figure).collect();
    let known = known.filter(|known| !known.is_empty());
    known.map(Spread::of).ok_or_else(|| Error::Other("the time of a run is unknown".to_owned()))
}

fn accuracy<'j>(judged: impl Iterator<Item = &'j Judged>) -> Accuracy {
    let mut accuracy = Accuracy { worst_us: 0, worst_share: 0.0 };
    for judged in judged {
        let evidence = &judged.judgement.run.evidence;
        if let (Some(cgroup), Some(rusage)) = (evidence.cgroup.cpu_us, evidence.payload.rusage_cpu_us) {
            let difference = cgroup.abs_diff(rusage);
            accuracy.worst_us = accuracy.worst_us.max(difference);
            accuracy.worst_share = accuracy.worst_share.max(difference as f64 / rusage.max(1) as f64);
        }
    }
    accuracy
}

fn advice(machine: &Machine, alone: &Series, together: &Series) -> Advice {
    let mut notes = machine.notes();
    let slower = together.cpu_ms.median / alone.cpu_ms.median.max(0.001) - 1.0;
    let shared = slower > MUCH && machine.threads_per_core > 1;
    let jobs = if shared { (together.slots / machine.threads_per_core).max(1) } else { together.slots };
    if slower > MUCH {
        notes.push(format!("with all slots busy a program takes {:.0} % more CPU time than alone", slower * 100.0));
    }
    for (series, when) in [(alone, "alone"), (together, "with all slots busy")] {
        if series.cpu_ms.share() > MUCH {
            let words = format!("the CPU time of one program differs by {:.0} % {when}", series.cpu_ms.share() * 100.0);
            notes.push(words);
        }
        if series.stolen_share > STOLEN {
            let words =
                format!("another machine took {:.1} % of the processors' time {when}", series.stolen_share * 100.0);
            notes.push(words);
        }
    }
    let worst = if shared { alone } else { together };
    let factor = worst.cpu_ms.max.max(alone.cpu_ms.max) / alone.cpu_ms.min.max(0.001);
    Advice {
        jobs,
        exclusive_cores: together.cpu_ms.share() > MUCH,
        // Up to the next twentieth, and never so near that a fair solution is at the limit.
        time_factor: (factor * 20.0).ceil().max(22.0) / 20.0,
        notes,
    }
}

fn duration(time: nix::sys::time::TimeSpec) -> Duration {
    time.into()
}

fn now_ns(clock: ClockId) -> f64 {
    clock_gettime(clock).map_or(0.0, |time| duration(time).as_nanos() as f64)
}

fn reading_ns() -> f64 {
    const READINGS: u32 = 10_000;
    let begun = Instant::now();
    for _ in 0..READINGS {
        std::hint::black_box(crate::sys::wait::monotonic_ns());
    }
    begun.elapsed().as_nanos() as f64 / f64::from(READINGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(slots: usize, figures: &[f64]) -> Series {
        let spread = Spread::of(figures.to_vec());
        Series { slots, cpu_ms: spread.clone(), wall_ms: spread, stolen_share: 0.0, cpu_pressure_share: None }
    }

    #[test]
    fn a_spread_is_of_figures_that_were_measured() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0, 4.0]);
        assert_eq!((spread.min, spread.median, spread.p95, spread.max), (1.0, 3.0, 4.0, 4.0));
        assert_eq!(Spread::of(vec![5.0]).share(), 0.0);
    }

    #[test]
    fn threads_that_share_a_core_halve_the_jobs_and_noise_widens_the_limits() {
        let machine = Machine { threads_per_core: 2, ..Machine::default() };
        let quiet = advice(&machine, &series(1, &[100.0, 101.0]), &series(4, &[100.0, 102.0]));
        assert_eq!((quiet.jobs, quiet.exclusive_cores, quiet.time_factor), (4, false, 1.1));
        let busy = advice(&machine, &series(1, &[100.0, 101.0]), &series(4, &[150.0, 190.0]));
        assert_eq!((busy.jobs, busy.exclusive_cores, busy.time_factor), (2, true, 1.1));
        let single = Machine { threads_per_core: 1, ..Machine::default() };
        let noisy = advice(&single, &series(1, &[100.0, 101.0]), &series(4, &[110.0, 131.0]));
        assert_eq!((noisy.jobs, noisy.exclusive_cores, noisy.time_factor), (4, true, 1.35));
        assert!(noisy.notes.iter().any(|note| note.contains("all slots")), "{:?}", noisy.notes);
    }
}
