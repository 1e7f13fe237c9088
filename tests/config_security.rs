//! `maskedPaths`, `readonlyPaths` and what else keeps a container's root away from the host's kernel.

mod common;

use common::*;

#[test]
fn masked_files_read_as_empty_and_masked_directories_list_as_empty() {
    let t = Test::new();
    let c = t.bundle(
        sh("wc -c < /secret; ls /hidden | wc -l; (echo x > /secret) 2>/dev/null; wc -c < /secret; (touch /hidden/x) 2>/dev/null || echo refused")
            .set("/linux/maskedPaths", json!(["/secret", "/hidden", "/does/not/exist"]))
            .writable(),
    );
    c.file("secret", "secret");
    c.file("hidden/file", "hidden");
    assert_eq!(c.run().ok().stdout, "0\n0\n0\nrefused\n");
    assert_eq!(std::fs::read_to_string(c.rootfs().join("secret")).unwrap(), "secret");
    t.assert_nothing_left();
}

#[test]
fn readonly_paths_refuse_writes_and_what_is_mounted_below_stays_visible() {
    let t = Test::new();
    let c = t.bundle(
        sh("cat /fixed/file; (echo x > /fixed/file) 2>/dev/null || echo refused; (echo y > /free) && echo free")
            .set("/linux/readonlyPaths", json!(["/fixed", "/does/not/exist"]))
            .writable(),
    );
    c.file("fixed/file", "fixed\n");
    assert_eq!(c.run().ok().stdout, "fixed\nrefused\nfree\n");
    t.assert_nothing_left();
}

#[test]
fn the_usual_masks_hold_for_a_root_with_all_capabilities() {
    let all: &[&str] =
        &["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_RAWIO", "CAP_SYSLOG", "CAP_SYS_PTRACE"];
    // Each write is harmless should it succeed: the value is already there.
    let script = "for f in /proc/kcore /proc/timer_list /proc/keys; do [ -s $f ] && echo $f shows; cat $f 2>/dev/null | head -c 10; done; \
                  ls /sys/firmware 2>/dev/null | wc -l; cd /proc/sys; \
                  for f in kernel/core_pattern kernel/panic vm/swappiness; do \
                  v=$(cat $f); (echo \"$v\" > $f) 2>&1 | grep -c 'Read-only'; done";
    assert_eq!(output_of(sh(script).caps(all)), "0\n1\n1\n1");
}

#[test]
fn a_readonly_sys_cannot_be_written() {
    let spec = sh("(echo 1 > /sys/kernel/mm/ksm/run) 2>/dev/null || (mkdir /sys/x) 2>/dev/null || echo refused")
        .caps(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    assert_eq!(output_of(spec), "refused");
}

#[test]
fn no_new_privileges_defeats_setuid_programs() {
    let t = Test::new();
    let script = "cp /bin/busybox /tmp/busybox && chmod 4755 /tmp/busybox; ls -l /tmp/busybox | cut -c4";
    let c = t.bundle(sh(script).writable());
    assert_eq!(c.run().ok().line(), "s");
    let user = json!({"process": {"user": {"uid": 1000, "gid": 1000}, "args": ["/tmp/busybox", "id", "-u"]}});
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(c.bundle.join("config.json")).unwrap()).unwrap();
    config["process"]["user"] = user["process"]["user"].clone();
    config["process"]["args"] = json!(["sh", "-c", "/tmp/busybox cat /proc/self/status | grep '^Uid' | cut -f3"]);
    c.write_config(&config);
    assert_eq!(c.run().ok().line(), "1000");
}

#[test]
fn apparmor_and_selinux_labels_are_refused_or_warned_about_where_the_kernel_has_none() {
    rustbox_only!();
    if std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        skip!("this kernel has AppArmor");
    }
    // A label that cannot be applied must not be dropped in silence.
    let t = Test::new();
    let c = t.bundle(spec().patch(json!({"process": {"apparmorProfile": "some-profile"}})));
    c.run().denied().says(&["apparmor"]);
    t.assert_nothing_left();
}

#[test]
fn the_runtime_leaves_no_capability_to_a_container_in_a_user_namespace_over_the_host() {
    let t = Test::new();
    let c = t.bundle(
        sh("hostname renamed && hostname; (mknod /tmp/mem c 1 1) 2>/dev/null || echo no device")
            .userns(700_000, 65536)
            .caps(&["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE"])
            .writable(),
    );
    for dir in ["", "proc", "sys", "dev", "etc", "tmp"] {
        std::os::unix::fs::lchown(c.rootfs().join(dir), Some(700_000), Some(700_000)).unwrap();
    }
    assert_eq!(c.run().ok().stdout, "renamed\nno device\n");
    t.assert_nothing_left();
}
