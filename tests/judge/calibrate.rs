//! `calibrate`: what this machine's figures are worth.

use serde_json::Value;

use super::common::Test;
use super::{assert_clean, rustbox_only};

fn spread(series: &Value) -> [f64; 4] {
    ["min", "median", "p95", "max"].map(|name| series[name].as_f64().unwrap_or_else(|| panic!("{series}")))
}

#[test]
fn the_report_is_of_runs_that_were_made_here() {
    rustbox_only!();
    let test = Test::new();
    let report = test.runtime(&["calibrate", "--json", "--runs", "6"]).ok().json();
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(report["machine"]["processors"], processors, "{report:#}");
    assert_eq!((&report["alone"]["slots"], &report["together"]["slots"]), (&1.into(), &processors.into()));
    for series in ["/overhead/whole_ms", "/overhead/cpu_ms", "/alone/cpu_ms", "/alone/wall_ms", "/together/cpu_ms"] {
        let figures = spread(report.pointer(series).unwrap());
        assert!(figures[0] > 0.0 && figures.is_sorted(), "{series}: {figures:?}");
    }
    // The program is made to take a tenth of a second, whatever the machine.
    let median = spread(&report["alone"]["cpu_ms"])[1];
    assert!((30.0..300.0).contains(&median), "{median}");
    // The judge's promise: 1 %, or 2 ms.
    let worst = (&report["accuracy"]["worst_us"], &report["accuracy"]["worst_share"]);
    assert!(worst.0.as_u64().unwrap() <= 2000 || worst.1.as_f64().unwrap() <= 0.01, "{worst:?}");
    assert!(report["advice"]["time_factor"].as_f64().unwrap() >= 1.1, "{report:#}");
    let jobs = report["advice"]["jobs"].as_u64().unwrap() as usize;
    assert!((1..=processors).contains(&jobs), "{report:#}");
    assert_clean(&test);
    // Nobody's submission: none is counted.
    let metrics = test.runtime(&["metrics"]).ok().stdout;
    let counted = metrics.lines().filter(|line| line.starts_with("rustbox_verdict") && !line.ends_with(" 0"));
    assert_eq!(counted.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn a_person_reads_it_and_a_quarantined_worker_refuses() {
    rustbox_only!();
    let test = Test::new();
    let text = test.runtime(&["calibrate", "--runs", "2"]).ok().stdout;
    for words in ["an empty program: all of the run", "with all slots busy", "at a time", "median"] {
        assert!(text.contains(words), "{text}");
    }
    test.runtime(&["calibrate", "--runs", "1"]).usage();
    test.runtime(&["health", "--quarantine", "--reason", "test"]).ok();
    test.runtime(&["calibrate", "--runs", "2"]).code(4).says(&["quarantined"]);
}
