//! What a machine says of itself that bears on the figures of a judge.

use schemars::JsonSchema;
use serde::Serialize;

use crate::judge::supervisor::processors;

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Machine {
    /// Its host name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// The processor, as it names itself.
    pub processor: String,
    /// Processors that the kernel runs tasks on.
    pub processors: usize,
    /// Of these, as many share a core; 1 also where the kernel does not tell.
    pub threads_per_core: usize,
    /// It is a virtual machine, as far as its processor tells.
    pub virtual_machine: bool,
    /// How the frequency is chosen; `null` where the kernel does not choose it.
    pub governor: Option<String>,
    /// Whether the processor may go beyond its nominal frequency; `null`: unknown.
    pub boost: Option<bool>,
    /// There is swap.
    pub swap: bool,
}

impl Machine {
    /// This one.
    pub fn look() -> Machine {
        let read = |file: &str| std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned());
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        let line = |key: &str| {
            let found = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key));
            found.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let siblings = read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").unwrap_or_default();
        let mask = crate::spec::number_list::mask(&siblings).unwrap_or_default();
        let threads: u32 = mask.iter().map(|word| word.count_ones()).sum();
        let switch = |file: &str, on: &str| read(file).map(|text| text == on);
        Machine {
            host: read("/proc/sys/kernel/hostname").unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
            processor: line("model name").unwrap_or_default(),
            processors: processors(),
            threads_per_core: threads.max(1) as usize,
            virtual_machine: line("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            boost: switch("/sys/devices/system/cpu/intel_pstate/no_turbo", "0")
                .or_else(|| switch("/sys/devices/system/cpu/cpufreq/boost", "1")),
            swap: read("/proc/swaps").is_some_and(|text| text.lines().count() > 1),
        }
    }

    /// What of it makes figures differ, in words.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.virtual_machine {
            notes.push("a virtual machine: its neighbours on the host are not seen from here".to_owned());
        }
        if let Some(governor) = self.governor.as_ref().filter(|governor| *governor != "performance") {
            notes.push(format!("the frequency governor is `{governor}`: `performance` gives steadier figures"));
        }
        if self.boost == Some(true) {
            notes.push("the processor may go beyond its nominal frequency, as heat and neighbours allow".to_owned());
        }
        if self.threads_per_core > 1 {
            notes.push(format!("{} processors share a core: they slow each other down", self.threads_per_core));
        }
        if self.swap {
            notes.push("there is swap: what the host swaps out costs a program time".to_owned());
        }
        notes
    }
}

/// Processor time that other virtual machines have taken since the boot, µs (`steal` of proc_stat(5), in ticks of 1/100 s).
pub fn stolen_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    ticks.unwrap_or(0) * 10_000
}
