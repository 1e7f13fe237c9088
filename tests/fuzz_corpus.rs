//! What fuzzing has found worth keeping: every input of the corpora through its target, and each target on what is torn off
//! such inputs. `make fuzz` finds new ones.

#[path = "../integration/fuzz/targets.rs"]
mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use targets::TARGETS;

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fuzz/corpus").join(name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    found.sort();
    found
}

#[test]
fn every_target_takes_its_corpus() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 3, "the corpus of {name} has {} inputs", corpus.len());
        let broken: Vec<_> = corpus.iter().filter(|(_, data)| catch_unwind(|| target(data)).is_err()).collect();
        assert!(broken.is_empty(), "{name}: {:?}", broken.iter().map(|(file, _)| file).collect::<Vec<_>>());
    }
}

#[test]
fn every_target_takes_what_is_torn() {
    for (name, target) in TARGETS {
        // The smallest: a cut at every place of a large one takes long.
        let mut corpus = corpus(name);
        corpus.sort_by_key(|(_, data)| data.len());
        for (file, data) in corpus.iter().take(20) {
            for length in (0..data.len()).step_by(data.len().div_ceil(40).max(1)) {
                assert!(catch_unwind(|| target(&data[..length])).is_ok(), "{file} cut at {length}");
            }
        }
    }
}

#[test]
fn every_corpus_has_a_target() {
    let names = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fuzz/corpus")).unwrap();
    for name in names {
        let name = name.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|(target, _)| *target == name), "{name}");
    }
}

/// A change of an input: at a place, so many bytes are taken out, and these put in; or, of another input, its end.
type Change = (Index, usize, Vec<u8>, Option<(Index, Index)>);

fn a_change() -> impl Strategy<Value = Change> {
    let words = prop::sample::select(vec![
        "\0",
        "\n",
        "\"",
        "{}",
        "[",
        "..",
        "/",
        "=",
        ":",
        "-1",
        "18446744073709551616",
        "1e999",
        "null",
    ]);
    let put = prop_oneof![prop::collection::vec(any::<u8>(), 0..4), words.prop_map(|word| word.as_bytes().to_vec()),];
    (any::<Index>(), 0usize..6, put, prop::option::weighted(0.2, any::<(Index, Index)>()))
}

fn changed(mut data: Vec<u8>, changes: &[Change], corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
    for (at, taken, put, other) in changes {
        let at = at.index(data.len() + 1);
        match other {
            Some((which, from)) => {
                let other = &which.get(corpus).1;
                data.truncate(at);
                data.extend(&other[from.index(other.len() + 1)..]);
            }
            None => drop(data.splice(at..(at + taken).min(data.len()), put.iter().copied())),
        }
    }
    data
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_target_takes_what_is_changed(which in any::<Index>(), changes in prop::collection::vec(a_change(), 1..5)) {
        for (name, target) in TARGETS {
            let corpus = corpus(name);
            let data = changed(which.get(&corpus).1.clone(), &changes, &corpus);
            prop_assert!(catch_unwind(|| target(&data)).is_ok(), "{}: {:?}", name, String::from_utf8_lossy(&data));
        }
    }
}
