//! CPU time is the sum of what every process used: within 1 %, or 2 ms, of what the kernel accounts to the processes.
//!
//! The verdict's figure is the cgroup's. What it is held against comes from elsewhere: `wait4(2)` of the payload, which has
//! its threads and whom it waited for in it, and what orphans, whom it did not wait for, say of themselves.

use super::common::Test;
use super::verdicts::{OK, c, judged};

/// Burns CPU time, in the program's own code or in the kernel; `own_us` is what the calling process has used.
const BURN: &str = "
    static long used_us(clockid_t clock) { struct timespec t; clock_gettime(clock, &t); return t.tv_sec * 1000000 + t.tv_nsec / 1000; }
    static void burn(long ms) {
        long begun = used_us(CLOCK_THREAD_CPUTIME_ID);
        while (used_us(CLOCK_THREAD_CPUTIME_ID) - begun < ms * 1000) for (volatile int i = 0; i < 1000; i++);
    }
    static void burn_in_kernel(long ms) {
        long begun = used_us(CLOCK_THREAD_CPUTIME_ID);
        while (used_us(CLOCK_THREAD_CPUTIME_ID) - begun < ms * 1000) for (int i = 0; i < 100; i++) syscall(SYS_getppid);
    }
    static long own_us(void) {
        struct rusage r; getrusage(RUSAGE_SELF, &r);
        return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000 + r.ru_utime.tv_usec + r.ru_stime.tv_usec;
    }
    ";

/// Judges a program that uses at least `least_ms`, and prints how many µs processes used that it has not waited for.
#[track_caller]
fn agrees(main: &str, least_ms: f64) {
    let test = Test::new();
    let verdict = judged(&test, "c", &c(&format!("{BURN}{main}")), &["--time", "10", "--processes", "64"], OK);
    let orphans: f64 = verdict["stdout"].as_str().unwrap().trim().parse().unwrap();
    let waited = verdict["evidence"]["payload"]["rusage_cpu_us"].as_f64().unwrap();
    let summed = (waited + orphans) / 1000.0;
    let judged = verdict["evidence"]["cgroup"]["cpu_us"].as_f64().unwrap() / 1000.0;
    println!("judged {judged} ms, summed {summed} ms, of which orphans {} ms", orphans / 1000.0);
    assert!(summed >= least_ms, "the program has used too little to tell: {summed} ms");
    assert!((judged - summed).abs() <= (0.01 * summed).max(2.0), "judged {judged} ms, summed {summed} ms");
    let shown = verdict["cpu_time_ms"].as_f64().unwrap();
    assert!((shown - judged).abs() <= 1.0, "the verdict says {shown} ms, its evidence {judged} ms");
}

#[test]
fn of_one_process() {
    super::rustbox_only!();
    agrees("int main(void) { burn(300); puts(\"0\"); }", 300.0);
}

#[test]
fn of_calls_into_the_kernel() {
    super::rustbox_only!();
    agrees("int main(void) { burn_in_kernel(300); puts(\"0\"); }", 300.0);
}

#[test]
fn of_threads() {
    super::rustbox_only!();
    agrees(
        "static void *work(void *_) { burn(60); return 0; }
        int main(void) {
            pthread_t t[6];
            for (int i = 0; i < 6; i++) if (pthread_create(&t[i], 0, work, 0)) return 1;
            for (int i = 0; i < 6; i++) pthread_join(t[i], 0);
            puts(\"0\");
        }",
        360.0,
    );
}

/// Each level waits for the next, two children each.
#[test]
fn of_a_tree_of_processes() {
    super::rustbox_only!();
    agrees(
        "static void grow(int depth) {
            if (depth) for (int i = 0; i < 2; i++) if (fork() == 0) { grow(depth - 1); _exit(0); }
            burn(20);
            while (wait(0) > 0);
        }
        int main(void) { grow(3); puts(\"0\"); }",
        300.0,
    );
}

/// Hundreds of processes that do next to nothing: the error of each must not add up.
#[test]
fn of_many_short_processes() {
    super::rustbox_only!();
    agrees(
        "int main(void) {
            for (int i = 0; i < 400; i++) { if (fork() == 0) { burn(1); _exit(0); } wait(0); }
            puts(\"0\");
        }",
        400.0,
    );
}

#[test]
fn of_a_chain_of_executed_programs() {
    super::rustbox_only!();
    agrees(
        "int main(int argc, char **argv) {
            char *next[12] = {0};
            burn(40);
            if (argc < 8) {
                for (int i = 0; i < argc; i++) next[i] = argv[i];
                next[argc] = \"again\";
                execv(argv[0], next);
                return 1;
            }
            puts(\"0\");
        }",
        320.0,
    );
}

/// Their parents have ended: nobody of the program waits for them, and they count all the same.
#[test]
fn of_orphans() {
    super::rustbox_only!();
    agrees(
        "int main(void) {
            int p[2]; long sum = 0, one;
            if (pipe(p)) return 1;
            for (int i = 0; i < 4; i++) {
                if (fork() == 0) {
                    if (fork() == 0) { burn(80); one = own_us(); _exit(write(p[1], &one, sizeof one) != sizeof one); }
                    _exit(0);
                }
                wait(0);
            }
            for (int i = 0; i < 4; i++) { if (read(p[0], &one, sizeof one) != sizeof one) return 1; sum += one; }
            printf(\"%ld\\n\", sum);
            fflush(stdout);
            usleep(50000);
        }",
        320.0,
    );
}

/// What the memory was made of, in a program that is over long before its CPU time is first looked at.
#[test]
fn memory_is_split_into_what_the_program_has_allocated_written_and_read() {
    super::rustbox_only!();
    let test = Test::new();
    let main = "int main(void) {
        size_t anon = 40 << 20, shmem = 8 << 20;
        char *p = malloc(anon);
        memset(p, 1, anon);
        int f = open(\"/tmp/file\", O_CREAT | O_WRONLY, 0600);
        if (write(f, p, shmem) != (ssize_t)shmem) return 1;
        usleep(400000);
        return p[anon - 1] != 1;
    }";
    let verdict = judged(&test, "c", &c(main), &["--time", "10", "--memory", "128M"], OK);
    let split = &verdict["evidence"]["cgroup"]["memory_split"];
    let of = |key: &str| split[key].as_u64().unwrap_or_else(|| panic!("no {key}: {verdict:#}"));
    let mib = 1u64 << 20;
    assert!((40 * mib..44 * mib).contains(&of("anon")), "{split}");
    assert!((8 * mib..9 * mib).contains(&of("shmem")), "{split}");
    assert!((20_000..1_000_000).contains(&of("at_us")), "{split}");
    let peak = verdict["memory_peak_bytes"].as_u64().unwrap();
    let sum = of("anon") + of("shmem") + of("file");
    // The kernel counts the parts in batches, per processor.
    assert!(sum <= peak + mib, "the parts, {sum}, are more than the peak, {peak}: {split}");
}
