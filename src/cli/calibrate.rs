//! `rustbox calibrate`.

use crate::cli::{Global, exe, progress, run_judge, say, say_json};
use crate::error::Result;
use crate::judge::calibrate::{Calibration, Series, Spread, calibrate, total};
use crate::judge::run::Judge;

/// Measure what this machine's figures are worth, and print a report
///
/// Clocks, what judging costs, and how much the time of one program differs from run to run, alone and with all slots busy;
/// then how many runs at a time and how much room in the time limits that suggests. The machine should do nothing else.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Runs in each of the three series
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    runs: u32,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs `calibrate`: 0, or as `run` where it cannot judge.
pub fn main(global: &Global, args: &Args) -> u8 {
    match run(global, args) {
        Ok(()) => 0,
        Err(error) => {
            global.log().error(&error.to_string());
            run_judge::failure(&error)
        }
    }
}

fn run(global: &Global, args: &Args) -> Result<()> {
    exe::protect_always()?;
    global.standing().admit()?;
    let root = global.open_root()?;
    let judge = Judge::new(&root, global.systemd_cgroup())?.rehearsing();
    let runs = args.runs as usize;
    let bar = progress::bar(false, Some(total(runs) as u64), "{bar:30} {pos}/{len} runs {elapsed_precise}");
    let calibration = calibrate(&judge, runs, || bar.inc(1))?;
    bar.finish_and_clear();
    if args.json { say_json(&calibration) } else { say(&table(&calibration)) }
}

fn table(calibration: &Calibration) -> String {
    let Calibration { machine, clock, overhead, accuracy, alone, together, advice, .. } = calibration;
    let spread =
        |spread: &Spread| format!("{:9.3} {:9.3} {:9.3} {:9.3}", spread.min, spread.median, spread.p95, spread.max);
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let mut lines = vec![
        format!("rustbox {} on {}, {}", calibration.version, machine.host, calibration.time),
        format!("  kernel     {}", machine.kernel),
        format!(
            "  processor  {}, {} of them, {} a core",
            machine.processor, machine.processors, machine.threads_per_core
        ),
        format!(
            "  clock      resolution {} ns, read in {:.0} ns, steered by {:.1} ppm",
            clock.resolution_ns, clock.read_ns, clock.steered_ppm
        ),
        format!(
            "  CPU time   within {:.3} ms or {} of the kernel's account of each process",
            accuracy.worst_us as f64 / 1000.0,
            percent(accuracy.worst_share)
        ),
        String::new(),
        format!("{:34} {:>9} {:>9} {:>9} {:>9}", "ms", "min", "median", "p95", "max"),
        format!("{:34} {}", "an empty program: all of the run", spread(&overhead.whole_ms)),
        format!("{:34} {}", "  its wall time", spread(&overhead.wall_ms)),
        format!("{:34} {}", "  its CPU time", spread(&overhead.cpu_ms)),
    ];
    for (series, name) in [(alone, "a computing program, alone"), (together, "with all slots busy")] {
        let Series { cpu_ms, wall_ms, stolen_share, cpu_pressure_share, slots } = series;
        let pressure = cpu_pressure_share.map_or("unknown".to_owned(), percent);
        lines.push(format!("{:34} {}", format!("{name}: CPU time"), spread(cpu_ms)));
        lines.push(format!("{:34} {}", "  wall time", spread(wall_ms)));
        lines.push(format!(
            "  {slots} at a time; stolen {}, waiting for a processor {pressure}",
            percent(*stolen_share)
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "judge {} at a time{}; a time limit of at least {:.2} × the slowest solution that is to pass",
        advice.jobs,
        if advice.exclusive_cores { ", each with a core of its own (--cpus 1 --exclusive-cores)" } else { "" },
        advice.time_factor
    ));
    lines.extend(advice.notes.iter().map(|note| format!("- {note}")));
    lines.join("\n")
}
