//! Judged runs through the real binary: each case asserts verdict, cause and actor, and that nothing is left.

mod common;

#[path = "judge/accuracy.rs"]
mod accuracy;
#[path = "judge/calibrate.rs"]
mod calibrate;
#[path = "judge/evidence.rs"]
mod evidence;
#[path = "judge/interface.rs"]
mod interface;
#[path = "judge/programs.rs"]
mod programs;
#[path = "judge/replay.rs"]
mod replay;
#[path = "judge/suite.rs"]
mod suite;
#[path = "judge/uncounted.rs"]
mod uncounted;
#[path = "judge/verdicts.rs"]
mod verdicts;

use std::sync::atomic::{AtomicU32, Ordering};

use common::{Test, rustbox_only};

/// An id by which the harness finds what is left of the sandbox.
fn fresh_id(test: &Test) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("rbt-{}-judge{}", test.tag, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// No process, cgroup, mount or state is left, no stage and no lease of host ids.
#[track_caller]
fn assert_clean(test: &Test) {
    test.assert_nothing_left();
    for directory in [".judge", ".ids"] {
        let left: Vec<_> = std::fs::read_dir(test.root.join(directory)).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "left in {directory}: {left:?}");
    }
}
