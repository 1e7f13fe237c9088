//! The table of programs (`programs.toml`): every language, every verdict that it can reach.

use serde::Deserialize;
use serde_json::Value;

use super::common::{Out, Test};
use super::{assert_clean, fresh_id, rustbox_only};

#[derive(Debug, Deserialize)]
struct Table {
    program: Vec<Program>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    language: String,
    name: String,
    expected: [String; 2],
    #[serde(default)]
    options: Vec<String>,
    stdin: Option<String>,
    stdout: Option<String>,
    code: String,
}

fn table() -> Vec<Program> {
    let table: Table = toml::from_str(include_str!("programs.toml")).unwrap();
    table.program
}

/// The runtime in an environment with the home directory of whoever runs the tests: a toolchain may lie there.
pub fn at_home(test: &Test, args: &[&str]) -> Out {
    let home = std::env::var("HOME").unwrap_or_default();
    test.shell(&format!("HOME='{home}' exec \"$@\""), args)
}

/// Why a language cannot be tried here.
pub fn missing(test: &Test, language: &str) -> Option<String> {
    let out = at_home(test, &["languages", "--json", language]);
    if out.code == 0 {
        return None;
    }
    let toolchain = out.json()[0].take();
    Some(format!("no toolchain of {language}: {}", toolchain["reason"].as_str().unwrap()))
}

/// What is wrong with the verdict of a program.
fn wrong(test: &Test, program: &Program) -> Option<String> {
    let id = fresh_id(test);
    let mut args = vec!["run", "--json", "--language", &program.language, "--code", &program.code];
    args.extend(program.options.iter().map(String::as_str));
    let input = test.path("stdin");
    if let Some(text) = &program.stdin {
        std::fs::write(&input, text).unwrap();
        args.extend(["--stdin", input.to_str().unwrap()]);
    }
    args.push(&id);
    let out = at_home(test, &args);
    let Ok(verdict) = serde_json::from_str::<Value>(&out.stdout) else { return Some(format!("no verdict: {out:#?}")) };
    let mut wrong = Vec::new();
    let expected_status = i32::from(program.expected[0] != "OK");
    let got = ["status", "cause"].map(|key| verdict[key].as_str().unwrap_or("?"));
    if got != program.expected || out.code != expected_status {
        let summary = ["exit_code", "signal", "cpu_time_ms", "wall_time_ms", "memory_peak_bytes", "stderr"]
            .map(|key| format!("{key} {}", verdict[key]));
        wrong.push(format!("{got:?} with exit status {}, {}", out.code, summary.join(", ")));
        wrong.push(verdict["compile"]["stderr"].to_string());
    }
    if program.stdout.as_ref().is_some_and(|text| verdict["stdout"] != **text) {
        wrong.push(format!("stdout {}", verdict["stdout"]));
    }
    if verdict["cleanup"]["proved"] != true {
        wrong.push(verdict["cleanup"].to_string());
    }
    let compiler =
        [&verdict["compile"]["stdout"], &verdict["compile"]["stderr"]].map(|text| text.as_str().unwrap_or(""));
    if got[0] == "CE" && compiler.concat().len() < 10 {
        wrong.push("the compiler's own words are missing".to_owned());
    }
    assert_clean(test);
    (!wrong.is_empty()).then(|| wrong.join("\n    "))
}

#[track_caller]
fn all_of(language: &str) {
    let test = Test::new();
    if let Some(reason) = missing(&test, language) {
        super::common::skip!("{reason}");
    }
    let programs = table().into_iter().filter(|program| program.language == language);
    let failed: Vec<String> = programs
        .filter_map(|program| {
            let wrong = wrong(&test, &program)?;
            Some(format!("{} that {}: not {:?} but {wrong}", program.language, program.name, program.expected))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

macro_rules! languages {
    ($($name:ident: $language:literal;)*) => {
        $(#[test]
        fn $name() {
            rustbox_only!();
            all_of($language);
        })*

        /// The languages that the tests above cover.
        const COVERED: &[&str] = &[$($language),*];
    };
}

languages! {
    programs_in_sh: "sh";
    programs_in_python: "python";
    programs_in_c: "c";
    programs_in_cpp: "cpp";
    programs_in_rust: "rust";
    programs_in_go: "go";
    programs_in_java: "java";
    programs_in_javascript: "javascript";
    programs_in_typescript: "typescript";
}

#[test]
fn every_language_has_programs_for_every_verdict_that_any_program_can_get() {
    rustbox_only!();
    let test = Test::new();
    let known = at_home(&test, &["languages", "--json"]).ok().json();
    let table = table();
    assert!(table.len() >= 60);
    for language in known.as_array().unwrap() {
        let name = language["language"].as_str().unwrap();
        assert!(COVERED.contains(&name), "{name} has no test");
        let compiled = if language["compiled"] == true { Some("CE") } else { None };
        for verdict in ["OK", "TLE", "MLE", "RE", "SIG", "PLE", "OLE", "FSE", "SV"].into_iter().chain(compiled) {
            let covers = |program: &&Program| program.language == name && program.expected[0] == verdict;
            assert!(table.iter().any(|program| covers(&program)), "{name} has no program that gets {verdict}");
        }
    }
}

#[test]
fn a_new_language_is_a_new_directory() {
    rustbox_only!();
    let test = Test::new();
    let bundles = test.path("bundles");
    let write = |file: &str, text: &str| {
        let path = bundles.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for file in ["base.json", "base.toml"] {
        write(file, &std::fs::read_to_string(format!("{}/bundles/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap());
    }
    // The compile step finds a file of the bundle, the run step a directory that a command has named, and its own limits.
    let made = test.path("made");
    std::fs::create_dir(&made).unwrap();
    std::fs::write(made.join("word"), "found").unwrap();
    write(
        "awk/language.toml",
        &format!(
            "name='awk'\ntitle='AWK'\naliases=['mawk']\nextensions=['awk']\nsource='main.awk'\nartefact='all.awk'\nfiles=['lib.awk']\n\
             [toolchain]\nprobe=['awk', 'BEGIN {{ print \"awk!\" }}']\n[toolchain.directory]\ncommand=['echo', '{}']\n\
             search=['/bin']\nat='/toolchain/awk'\n[multipliers]\nmemory=0.5\n",
            made.display()
        ),
    );
    write("awk/lib.awk", "function twice(x) { return 2 * x }\n");
    let compile = r#"{"process": {"args": ["sh", "-c", "cat /box/lib.awk /box/main.awk > /work/all.awk"]}}"#;
    write("awk/compile.json", compile);
    let run =
        r#"{"process": {"args": ["awk", "-v", "mib=${memory-mib}", "-f", "/box/all.awk", "/toolchain/awk/word"]}}"#;
    write("awk/run.json", run);
    std::fs::write(test.path("a.awk"), "{ print $0, twice(21), mib }").unwrap();
    let set = format!("RUSTBOX_BUNDLES={} exec \"$@\"", bundles.display());
    let verdict = test.shell(&set, &["run", "--json", "--source", "a.awk", &fresh_id(&test)]).ok().json();
    assert_eq!((&verdict["language"], &verdict["stdout"]), (&"awk".into(), &"found 42 128\n".into()), "{verdict:#}");
    let known = test.shell(&set, &["languages", "--json"]).ok().json();
    assert_eq!((known.as_array().unwrap().len(), &known[0]["version"]), (1, &"awk!".into()));
    assert_clean(&test);
}

#[test]
fn the_first_submission_after_a_boot_is_not_charged_for_the_toolchain() {
    rustbox_only!();
    let test = Test::new();
    let bundles = test.path("bundles");
    std::fs::create_dir_all(bundles.join("own")).unwrap();
    for name in ["base.json", "base.toml"] {
        std::fs::copy(format!("{}/bundles/{name}", env!("CARGO_MANIFEST_DIR")), bundles.join(name)).unwrap();
    }
    // A shell of its own, which nothing else on the host has mapped: alone its pages can be dropped.
    let shell = test.path("tools/busybox");
    std::fs::create_dir(shell.parent().unwrap()).unwrap();
    std::fs::copy("/bin/busybox", &shell).unwrap();
    std::fs::File::open(&shell).unwrap().sync_all().unwrap();
    let config = r#"{"process": {"args": ["/toolchain/own/busybox", "sh", "/box/main.own"]}}"#;
    std::fs::write(bundles.join("own/run.json"), config).unwrap();
    let peak = |warm: &str| {
        let manifest = format!(
            "name='own'\ntitle='Own'\nextensions=['own']\nsource='main.own'\n[toolchain]\nprobe=['{0}', 'true']\n{warm}\n\
             [toolchain.directory]\ncommand=['echo', '{1}']\nsearch=['/bin']\nat='/toolchain/own'\n",
            shell.display(),
            shell.parent().unwrap().display()
        );
        std::fs::write(bundles.join("own/language.toml"), manifest).unwrap();
        let dropped = std::fs::File::open(&shell).unwrap();
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        let raw = std::os::fd::AsRawFd::as_raw_fd(&dropped);
        nix::fcntl::posix_fadvise(raw, 0, 0, advice).unwrap();
        let set = format!("RUSTBOX_BUNDLES={} exec \"$@\"", bundles.display());
        let args = ["run", "--json", "--language", "own", "--code", "exit 0", &fresh_id(&test)];
        test.shell(&set, &args).ok().json()["memory_peak_bytes"].as_u64().unwrap()
    };
    let charged = peak("");
    let spared = peak(&format!("warm=['{}', 'true']", shell.display()));
    // Of its megabyte a run reads some hundreds of kilobytes.
    assert!(charged > spared + (200 << 10), "cold {charged}, warmed {spared}");
    assert_clean(&test);
}
