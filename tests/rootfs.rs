//! The root file system, made for real: each case runs plan, open, mount, enter and finish in a clone with
//! namespaces of its own, and looks at the result from inside.
//!
//! Its own harness, because a process that clones must have one thread. Arguments are filters; `--list` lists.

#[path = "rootfs/sandbox.rs"]
mod sandbox;

#[path = "rootfs/attacks.rs"]
mod attacks;
#[path = "rootfs/basic.rs"]
mod basic;
#[path = "rootfs/options.rs"]
mod options;
#[path = "rootfs/parts.rs"]
mod parts;

/// One case: its name and what it does.
type Case = (&'static str, fn() -> Result<(), String>);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| if exact { *filter == name } else { name.contains(*filter) })
    };
    let all = [basic::CASES, options::CASES, attacks::CASES, parts::CASES].concat();
    let cases: Vec<Case> = all.into_iter().filter(|(name, _)| wanted(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in &cases {
            println!("{name}: test");
        }
        return;
    }
    // What a mount inherits is decided here: with systemd the host's mounts are shared, elsewhere they are private.
    rustbox::sys::process::unshare(libc::CLONE_NEWNS).expect("a mount namespace");
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");

    let mut failed = 0;
    for (name, case) in &cases {
        match case() {
            Ok(()) => println!("test {name} ... ok"),
            Err(why) => {
                failed += 1;
                println!("test {name} ... FAILED\n    {why}");
            }
        }
    }
    println!(
        "\ntest result: {}. {} passed; {failed} failed\n",
        if failed == 0 { "ok" } else { "FAILED" },
        cases.len() - failed
    );
    std::process::exit(i32::from(failed > 0));
}
