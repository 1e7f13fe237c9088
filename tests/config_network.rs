//! `linux.netDevices`: interfaces of the host that the container gets.

mod common;

use common::*;

/// Runs the container from a network namespace of the test's own, where `script` has made interfaces.
fn run_from_a_network(t: &Test, c: &Container<'_>, script: &str) -> Out {
    let script = format!("exec unshare -n sh -c '{script}; exec \"$@\"' sh \"$@\"");
    t.shell(&script, &["run", "--bundle", c.bundle.to_str().unwrap(), &c.id])
}

const PAIR: &str =
    "ip link add rbhost type veth peer name rbpeer && ip addr add 192.0.2.7/24 dev rbhost && ip link set rbhost up";

#[test]
fn a_net_device_moves_with_its_permanent_addresses_and_its_new_name() {
    rustbox_only!();
    let t = Test::new();
    let devices = json!({"linux": {"netDevices": {"rbhost": {"name": "eth7"}}}});
    let c = t.bundle(sh("ip addr show eth7; ip link show rbhost; ip link show rbpeer").patch(devices));
    let out = run_from_a_network(&t, &c, PAIR);
    assert!(out.stdout.contains("inet 192.0.2.7/24"), "{out:?}");
    assert!(out.stdout.lines().next().is_some_and(|line| line.contains("UP")), "{out:?}");
    assert!(!out.stdout.contains("rbhost") && !out.stdout.contains("rbpeer"), "{out:?}");
    t.assert_nothing_left();
}

#[test]
fn a_net_device_is_there_before_the_hooks_of_the_container_run() {
    rustbox_only!();
    let t = Test::new();
    let seen = t.path("seen");
    let hook = t.path("hook");
    executable(&hook, &format!("#!/bin/sh\nls /sys/class/net > {0}; ip -o link show eth7 >> {0}\n", seen.display()));
    let c = t.bundle(sh("true").patch(json!({
        "linux": {"netDevices": {"rbhost": {"name": "eth7"}}},
        "hooks": {"createContainer": [{"path": hook, "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}]},
    })));
    run_from_a_network(&t, &c, PAIR).ok();
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(seen.contains("eth7@"), "{seen}");
    t.assert_nothing_left();
}

#[test]
fn a_net_device_that_is_not_there_is_an_error_that_names_it_and_leaves_nothing() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true").patch(json!({"linux": {"netDevices": {"rbnone": {}}}})));
    run_from_a_network(&t, &c, "true").denied().says(&["rbnone"]);
    t.assert_nothing_left();
}

#[test]
fn a_net_device_whose_name_is_taken_inside_is_refused_and_leaves_nothing() {
    rustbox_only!();
    let t = Test::new();
    let c = t.bundle(sh("true").patch(json!({"linux": {"netDevices": {"rbhost": {"name": "lo"}}}})));
    run_from_a_network(&t, &c, PAIR).denied().says(&["rbhost"]);
    t.assert_nothing_left();
}
