//! Compiled filters against independent evaluators: what a profile means by the runtime specification, and what the judge's
//! tables say. The programs run in an interpreter of classic BPF, [`super::bpf::run`].

use std::collections::BTreeSet;

use libc::c_long;
use proptest::prelude::*;
use serde_json::json;

use super::bpf::{self, NATIVE, X32_BIT, run};
use super::{judge, tables};
use crate::sys::seccomp::{Data, action};

/// Calls for random profiles, with their numbers on the machine that this was built for.
const CALLS: [(&str, c_long); 10] = [
    ("read", libc::SYS_read),
    ("getpriority", libc::SYS_getpriority),
    ("personality", libc::SYS_personality),
    ("clone", libc::SYS_clone),
    ("socket", libc::SYS_socket),
    ("ioctl", libc::SYS_ioctl),
    ("prctl", libc::SYS_prctl),
    ("mmap", libc::SYS_mmap),
    ("unshare", libc::SYS_unshare),
    ("openat2", libc::SYS_openat2),
];

#[derive(Debug, Clone, Copy)]
struct Compare {
    index: usize,
    op: &'static str,
    value: u64,
    two: u64,
}

impl Compare {
    /// config-linux.md, "seccomp", `args`: arguments are compared as 64 bits, unsigned.
    fn holds(&self, args: &[u64; 6]) -> bool {
        let arg = args[self.index];
        match self.op {
            "SCMP_CMP_NE" => arg != self.value,
            "SCMP_CMP_LT" => arg < self.value,
            "SCMP_CMP_LE" => arg <= self.value,
            "SCMP_CMP_EQ" => arg == self.value,
            "SCMP_CMP_GE" => arg >= self.value,
            "SCMP_CMP_GT" => arg > self.value,
            _ => arg & self.value == self.two,
        }
    }
}

#[derive(Debug, Clone)]
struct Profile {
    default: (&'static str, u32),
    /// One action for each call: which of several rules with different actions wins is libseccomp's business.
    actions: Vec<(&'static str, u32)>,
    rules: Vec<(usize, Vec<Compare>)>,
}

fn an_action() -> impl Strategy<Value = (&'static str, u32)> {
    prop::sample::select(vec![
        ("SCMP_ACT_ALLOW", action::ALLOW),
        ("SCMP_ACT_ERRNO", bpf::errno(1)),
        ("SCMP_ACT_KILL_PROCESS", action::KILL_PROCESS),
        ("SCMP_ACT_TRAP", action::TRAP),
        ("SCMP_ACT_LOG", action::LOG),
    ])
}

fn a_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        prop::sample::select(vec![
            0,
            1,
            2,
            17,
            0x7e02_0080,
            0xffff_ffff,
            1 << 32,
            (1 << 32) + 1,
            u64::MAX - 1,
            u64::MAX
        ]),
        any::<u64>(),
        0u64..64,
    ]
}

fn a_comparison() -> impl Strategy<Value = Compare> {
    let ops = vec![
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ];
    (0usize..6, prop::sample::select(ops), a_value(), a_value()).prop_map(|(index, op, value, two)| {
        // What has bits beside its mask can never be equal; libseccomp cuts them off.
        Compare { index, op, value, two: if op == "SCMP_CMP_MASKED_EQ" { two & value } else { 0 } }
    })
}

/// One rule for each call: of several with inequalities libseccomp 2.5 may overlook one (docs/seccomp.md). For the same reason
/// an argument that is compared twice is so for equality.
fn a_profile() -> impl Strategy<Value = Profile> {
    let compares = prop::collection::vec(a_comparison(), 0..3).prop_map(|mut compares| {
        if let [first, second] = &mut compares[..]
            && first.index == second.index
        {
            first.op = "SCMP_CMP_EQ";
            second.op = "SCMP_CMP_EQ";
        }
        compares
    });
    let rules =
        prop::collection::btree_map(0..CALLS.len(), compares, 0..8).prop_map(|rules| rules.into_iter().collect());
    (an_action(), prop::collection::vec(an_action(), CALLS.len()), rules)
        .prop_map(|(default, actions, rules)| Profile { default, actions, rules })
}

impl Profile {
    fn compile(&self) -> Vec<crate::sys::seccomp::Instruction> {
        let rules: Vec<_> = self
            .rules
            .iter()
            .map(|(call, args)| {
                let args: Vec<_> = args
                    .iter()
                    .map(|it| json!({"index": it.index, "op": it.op, "value": it.value, "valueTwo": it.two}))
                    .collect();
                json!({"names": [CALLS[*call].0], "action": self.actions[*call].0, "args": args})
            })
            .collect();
        let profile = super::profile::tests::profile(json!({"defaultAction": self.default.0, "syscalls": rules}));
        super::profile::compile(&profile).expect("a valid profile").program
    }

    /// What the profile means, with what docs/seccomp.md says where the specification leaves room.
    fn answer(&self, nr: c_long, args: &[u64; 6]) -> u32 {
        let matches = |(call, compares): &(usize, Vec<Compare>)| {
            let indices: BTreeSet<usize> = compares.iter().map(|it| it.index).collect();
            let twice = indices.len() < compares.len();
            CALLS[*call].1 == nr
                && if twice {
                    compares.iter().any(|it| it.holds(args))
                } else {
                    compares.iter().all(|it| it.holds(args))
                }
        };
        if let Some((call, _)) = self.rules.iter().find(|rule| matches(rule)) {
            return self.actions[*call].1;
        }
        let newest = self.rules.iter().map(|(call, _)| CALLS[*call].1).max();
        let lets_happen = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"].contains(&self.default.0);
        match newest {
            Some(newest) if nr > newest && !lets_happen => bpf::errno(libc::ENOSYS),
            _ => self.default.1,
        }
    }
}

/// What the judge's tables and docs/seccomp.md say of a call.
fn judges(nr: c_long, arch: u32, args: &[u64; 6]) -> u32 {
    let (eperm, enosys) = (bpf::errno(libc::EPERM), bpf::errno(libc::ENOSYS));
    let low = |index: usize| args[index] as u32;
    if arch != NATIVE || nr as u32 >= X32_BIT {
        return enosys;
    }
    let allowed_if = |holds: bool| if holds { action::ALLOW } else { eperm };
    let notified_if = |holds: bool| if holds { action::USER_NOTIF } else { action::ALLOW };
    match nr {
        libc::SYS_clone | libc::SYS_unshare => notified_if(low(0) & 0x7e02_0080 != 0),
        libc::SYS_personality => notified_if(![0, 0x4_0000, u32::MAX].contains(&low(0))),
        libc::SYS_socket => match (low(0) as i32, low(1) & 0xf, low(2)) {
            (libc::AF_PACKET | libc::AF_KEY | libc::AF_VSOCK | libc::AF_XDP, ..) => notified_if(true),
            (libc::AF_UNIX, ..) | (libc::AF_NETLINK, _, 0) => allowed_if(true),
            (libc::AF_INET | libc::AF_INET6, 1, 0 | 6) | (libc::AF_INET | libc::AF_INET6, 2, 0 | 17) => {
                allowed_if(true)
            }
            _ => allowed_if(false),
        },
        libc::SYS_ioctl => allowed_if(![libc::TIOCSTI as u32, libc::TIOCLINUX as u32].contains(&low(1))),
        libc::SYS_prctl => allowed_if(![22, 62].contains(&low(0))),
        libc::SYS_setrlimit => allowed_if(low(0) != libc::RLIMIT_CORE),
        libc::SYS_prlimit64 => allowed_if(low(1) != libc::RLIMIT_CORE || args[2] == 0),
        libc::SYS_mmap => allowed_if(low(3) & 0x4_0000 == 0),
        libc::SYS_shmget => allowed_if(low(2) & 0o4000 == 0),
        libc::SYS_memfd_create => allowed_if(low(1) & 4 == 0),
        nr if tables::HOSTILE.contains(&nr) => notified_if(true),
        nr if tables::ALLOWED.contains(&nr) => allowed_if(true),
        nr if tables::REFUSED.contains(&nr) => allowed_if(false),
        _ => enosys,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_profile_decides_as_its_rules_say(
        profile in a_profile(),
        calls in prop::collection::vec((0..CALLS.len() + 2, prop::array::uniform6(a_value()), any::<u8>()), 24),
    ) {
        let program = profile.compile();
        for (call, mut args, near) in calls {
            let nr = CALLS.get(call).map_or(if call == CALLS.len() { 500 } else { libc::SYS_getpid }, |(_, nr)| *nr);
            // Half of the calls come close to what a rule compares.
            let compares: Vec<&Compare> = profile.rules.iter().flat_map(|(_, compares)| compares).collect();
            if near < 128 && !compares.is_empty() {
                for compare in compares {
                    let value = if compare.op == "SCMP_CMP_MASKED_EQ" { compare.two | (!compare.value & args[0]) } else { compare.value };
                    args[compare.index] = value.wrapping_add(u64::from(near % 3)).wrapping_sub(1);
                }
            }
            let data = Data { nr: nr as i32, arch: NATIVE, instruction_pointer: 0, args };
            prop_assert_eq!(run(&program, &data), Some(profile.answer(nr, &args)), "{} {:x?} {:#?}", nr, args, profile);
        }
    }

    #[test]
    fn the_judges_filter_decides_as_its_tables_say(
        calls in prop::collection::vec((prop_oneof![0i32..600, any::<i32>()], prop::array::uniform6(a_value()), any::<u8>(), any::<u64>()), 64),
    ) {
        let program = judge::program().expect("built");
        for (nr, mut args, kind, high) in calls {
            let arch = if kind < 16 { 0x4000_0003 } else { NATIVE };
            if kind % 2 == 0 {
                // Small values, and an upper half that the kernel does not read.
                args = args.map(|arg| (arg % 64) | (high & !0xffff_ffff));
            }
            let data = Data { nr, arch, instruction_pointer: high, args };
            let expected = judges(c_long::from(nr), arch, &args);
            prop_assert_eq!(run(&program, &data), Some(expected), "{} {:#x} {:x?}", nr, arch, args);
        }
    }
}
