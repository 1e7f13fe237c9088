//! The start of the C library without its questions to the processor.
//!
//! glibc asks which instructions there are and how large the caches, so as to choose the quickest of its functions for
//! strings and memory: 41 `cpuid` on AMD, 68 on Intel, each of which a virtual machine traps, in 6 µs. That is 0.25 to
//! 0.43 ms of every command, more than the rest of its start. Here the choice is left at the instructions that every
//! x86-64 processor has; all else is what `__libc_start_main` does, in its order, by the functions it calls, but for what the
//! end of the first thread by `pthread_exit` would need.
//!
//! Those are inside of the C library, so only the version whose start was read is started like this (`build.rs`); with
//! any other, and where `GLIBC_TUNABLES` or one of the variables `MALLOC_…` asks the C library for something, its own start
//! is taken.
//!
//! Source: glibc 2.36, `csu/libc-start.c` for a static program; `sysdeps/x86/cacheinfo.h` for the thresholds.

use core::arch::asm;
use core::ffi::{c_char, c_int, c_void};

type Word = *const c_char;

unsafe extern "C" {
    static mut __environ: *const Word;
    static mut __libc_stack_end: *const usize;
    static mut _dl_minsigstacksize: usize;
    static mut _dl_random: *const [usize; 2];
    static mut __libc_enable_secure: c_int;
    static mut __x86_shared_non_temporal_threshold: usize;
    static mut __x86_rep_movsb_stop_threshold: usize;

    fn gnu_get_libc_version() -> *const c_char;
    fn _dl_aux_init(auxiliary: *const [usize; 2]);
    fn __tunables_init(environment: *mut Word);
    fn _dl_relocate_static_pie();
    fn __libc_setup_tls();
    fn __libc_early_init(initial: bool);
    fn __libc_init_first(count: c_int, words: *const Word, environment: *const Word);
    fn __libc_check_standard_fds();
    fn __cxa_atexit(function: extern "C" fn(*mut c_void), argument: *mut c_void, object: *mut c_void) -> c_int;
    fn exit(status: c_int) -> !;
    fn main(count: c_int, words: *const Word, environment: *const Word) -> c_int;

    fn _init();
    fn _fini();
    static __preinit_array_start: [Initializer; 0];
    static __preinit_array_end: [Initializer; 0];
    static __init_array_start: [Initializer; 0];
    static __init_array_end: [Initializer; 0];
    static __fini_array_start: [Finalizer; 0];
    static __fini_array_end: [Finalizer; 0];
}

/// What the C library is told, where the environment says nothing: to keep 128 of what is freed of each size at hand, and not
/// seven. A command frees thousands of small things, and merging them is a tenth of its work. With more, a batch would grow.
const TUNABLES: &[u8; 45] = b"GLIBC_TUNABLES=glibc.malloc.tcache_count=128\0";

type Initializer = unsafe extern "C" fn(c_int, *const Word, *const Word);
type Finalizer = unsafe extern "C" fn();

/// Calls a function by its distance, as no address is known before the relocation.
macro_rules! near {
    ($function:path $(, $argument:expr)?) => {
        asm!("call {function}", function = sym $function, $(in("rdi") $argument,)? clobber_abi("C"))
    };
}

/// The address of a variable by its distance.
macro_rules! at {
    ($variable:path) => {{
        let address;
        asm!("lea {address}, [rip + {variable}]", address = out(reg) address, variable = sym $variable,
            options(nomem, nostack, preserves_flags));
        address
    }};
}

/// Starts the C library and the program; returns, with nothing done, where the C library's own start is wanted.
///
/// # Safety
/// Called once, before all else; `stack` is what the kernel has made.
pub unsafe fn start(stack: *const usize) {
    // SAFETY: the kernel ends the strings and the vector; the functions are called in the C library's own order.
    unsafe {
        let version: *const u8;
        asm!("call {function}", function = sym gnu_get_libc_version, lateout("rax") version, clobber_abi("C"));
        if !super::starts(version, b"2.36\0") {
            return;
        }
        let words: *const Word = stack.add(1).cast();
        let environment = words.add(*stack + 1);
        let mut end = environment;
        while !(*end).is_null() {
            if super::starts((*end).cast(), b"GLIBC_TUNABLES=") || super::starts((*end).cast(), b"MALLOC_") {
                return;
            }
            end = end.add(1);
        }
        let variable: *mut *const Word = at!(__environ);
        *variable = environment;
        let variable: *mut *const usize = at!(__libc_stack_end);
        *variable = stack;
        near!(_dl_aux_init, end.add(1));
        // Here, because the words are cut where they stand.
        let mut text = *TUNABLES;
        let mut tunables: [Word; 2] = [text.as_mut_ptr().cast(), core::ptr::null()];
        near!(__tunables_init, tunables.as_mut_ptr());
        near!(_dl_relocate_static_pie);
        choose_functions();
        relocated(*stack, words, environment);
    }
}

/// Has each function that has variants choose one, in a program that is not position independent; in one that is the
/// relocation has done so, and the linker gives no list.
///
/// # Safety
/// Called once, by [`start`].
unsafe fn choose_functions() {
    const R_X86_64_IRELATIVE: usize = 37;
    let (mut entry, end): (*const [usize; 3], *const [usize; 3]);
    // SAFETY: the linker's list of `Elf64_Rela`, or twice null: the place of an address, its type, the function that knows it.
    unsafe {
        asm!(
            ".weak __rela_iplt_start", ".weak __rela_iplt_end",
            "mov {entry}, [rip + __rela_iplt_start@GOTPCREL]", "mov {end}, [rip + __rela_iplt_end@GOTPCREL]",
            entry = out(reg) entry, end = out(reg) end, options(readonly, nostack, preserves_flags)
        );
        while entry < end {
            let [place, kind, resolver] = *entry;
            if kind == R_X86_64_IRELATIVE {
                let resolver: extern "C" fn() -> usize = core::mem::transmute(resolver);
                *(place as *mut usize) = resolver();
            }
            entry = entry.add(1);
        }
    }
}

/// What follows once the program is relocated: a function of its own, so that no address is taken before.
///
/// # Safety
/// Called once, by [`start`].
#[inline(never)]
unsafe fn relocated(count: usize, words: *const Word, environment: *const Word) -> ! {
    // From where copies pass the caches by: 3/4 of what a core has of a shared cache, as glibc reckons; its own default.
    const NON_TEMPORAL: usize = 0xc_0000;
    // What a signal's frame takes where nobody says, as before Linux 5.14.
    const MINSIGSTKSZ: usize = 2048;
    // SAFETY: as above; the linker has made the arrays of functions.
    unsafe {
        __x86_shared_non_temporal_threshold = NON_TEMPORAL;
        __x86_rep_movsb_stop_threshold = NON_TEMPORAL;
        if _dl_minsigstacksize == 0 {
            _dl_minsigstacksize = MINSIGSTKSZ;
        }
        __libc_setup_tls();
        // What protects stacks and pointers in `pthread_t`, random bytes of the kernel's; the first one's lowest byte is
        // null, so that no string holds it.
        let [guard, pointer] = *_dl_random;
        asm!("mov fs:[0x28], {}", "mov fs:[0x30], {}", in(reg) guard & !0xff, in(reg) pointer, options(nostack));
        __libc_early_init(true);
        #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the kernel has counted in an int")]
        let count = count as c_int;
        __libc_init_first(count, words, environment);
        __cxa_atexit(finish, core::ptr::null_mut(), core::ptr::null_mut());
        if __libc_enable_secure != 0 {
            __libc_check_standard_fds();
        }
        let mut function = (&raw const __preinit_array_start).cast::<Initializer>();
        while function < (&raw const __preinit_array_end).cast() {
            (*function)(count, words, environment);
            function = function.add(1);
        }
        _init();
        let mut function = (&raw const __init_array_start).cast::<Initializer>();
        while function < (&raw const __init_array_end).cast() {
            (*function)(count, words, environment);
            function = function.add(1);
        }
        exit(main(count, words, environment));
    }
}

/// Calls what is to be called at the end, last to first.
extern "C" fn finish(_: *mut c_void) {
    // SAFETY: the linker's array; at the end of the program.
    unsafe {
        let mut function = (&raw const __fini_array_end).cast::<Finalizer>();
        while function > (&raw const __fini_array_start).cast() {
            function = function.sub(1);
            (*function)();
        }
        _fini();
    }
}
