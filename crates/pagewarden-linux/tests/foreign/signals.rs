//! Signals that are not about our copies reach whoever they were for. Each case is a process of its own.

use std::ffi::{c_int, c_void};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

use pagewarden::phys::{CopyFault, WindowAccess};
use pagewarden_linux::foreign::ForeignMemory;

use crate::again::{passes, role, run, told};
use crate::support::{FIRST, Over, PAGE, at, shown, world};

/// Foreign memory that has survived a fault, which shows that the handlers are there.
fn install() -> ForeignMemory {
    let (file, memory) = world(1);
    let shown = shown(&memory, FIRST, 1);
    file.set_len(0).unwrap();
    assert_eq!(memory.load(at(shown, 8), &mut [0; 8]), Err(CopyFault { copied: 0 }));
    memory
}

/// A page that nobody may touch.
fn forbidden_page() -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new page, which replaces nothing.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page.cast()
}

/// Touches the page. Returns if somebody has mended it.
fn touch(page: *mut u8) {
    // SAFETY: a page that `forbidden_page` has made, and no reference knows of; that the access faults is the test.
    unsafe { page.write_volatile(1) };
}

static MENDED: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static CALLS: AtomicU32 = AtomicU32::new(0);
static LAST: AtomicI32 = AtomicI32::new(0);
static BLOCKED: AtomicU32 = AtomicU32::new(0);

fn mend() {
    CALLS.fetch_add(1, Ordering::SeqCst);
    let page = MENDED.load(Ordering::SeqCst);
    if !page.is_null() {
        // SAFETY: the page is the test's own.
        unsafe { libc::mprotect(page.cast(), PAGE, libc::PROT_READ | libc::PROT_WRITE) };
    }
}

extern "C" fn informed(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the host fills it for handlers of this kind.
    let info = unsafe { &*info };
    // SAFETY: set for faults.
    let address = unsafe { info.si_addr() };
    let is_right = address == MENDED.load(Ordering::SeqCst).cast();
    LAST.store(if is_right { signal } else { -1 }, Ordering::SeqCst);
    BLOCKED.store(blocked(), Ordering::SeqCst);
    mend();
}

extern "C" fn plain(signal: c_int) {
    LAST.store(signal, Ordering::SeqCst);
    BLOCKED.store(blocked(), Ordering::SeqCst);
    mend();
}

/// Which of SIGSEGV and SIGUSR1 are blocked, as bits 0 and 1.
fn blocked() -> u32 {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: nothing changes, and the set is filled.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), set.as_mut_ptr()) };
    // SAFETY: filled, or zero.
    let has = |signal| unsafe { libc::sigismember(set.as_ptr(), signal) } == 1;
    u32::from(has(libc::SIGSEGV)) | u32::from(has(libc::SIGUSR1)) << 1
}

/// Installs a handler of SIGSEGV that also blocks SIGUSR1.
fn handle(handler: usize, flags: c_int) {
    // SAFETY: integers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the set is ours.
    unsafe { libc::sigaddset(&raw mut action.sa_mask, libc::SIGUSR1) };
    // SAFETY: the handlers of this file do what handlers may.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) }, 0);
}

/// Faults on a page of our own, with `handler` installed before us; says how it was called and what was blocked.
fn fault_with(handler: usize, flags: c_int) -> (u32, i32, u32) {
    handle(handler, flags);
    let _memory = install();
    assert_eq!(CALLS.load(Ordering::SeqCst), 0, "a fault of a copy is ours");
    let page = forbidden_page();
    MENDED.store(page, Ordering::SeqCst);
    touch(page);
    (CALLS.load(Ordering::SeqCst), LAST.load(Ordering::SeqCst), BLOCKED.load(Ordering::SeqCst))
}

#[test]
fn a_handler_that_was_there_before_still_gets_faults() {
    passes("signals::a_handler_that_was_there_before_still_gets_faults", || {
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = informed;
        assert_eq!(fault_with(handler as usize, libc::SA_SIGINFO), (1, libc::SIGSEGV, 0b11));
        assert_eq!(blocked(), 0, "nothing stays blocked");
    });
}

#[test]
fn a_plain_handler_gets_faults_and_its_own_mask() {
    passes("signals::a_plain_handler_gets_faults_and_its_own_mask", || {
        let handler: extern "C" fn(c_int) = plain;
        assert_eq!(fault_with(handler as usize, libc::SA_NODEFER), (1, libc::SIGSEGV, 0b10));
    });
}

#[test]
fn a_handler_for_one_time_is_called_one_time() {
    if role().is_some() {
        let handler: extern "C" fn(c_int) = plain;
        assert_eq!(fault_with(handler as usize, libc::SA_RESETHAND), (1, libc::SIGSEGV, 0b11));
        eprintln!("once");
        return touch(forbidden_page());
    }
    let output = run("signals::a_handler_for_one_time_is_called_one_time", "child");
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{}", told(&output));
    assert!(told(&output).contains("once"), "{}", told(&output));
}

#[test]
fn a_fault_that_nobody_handles_ends_the_process_by_its_signal() {
    const TEST: &str = "signals::a_fault_that_nobody_handles_ends_the_process_by_its_signal";
    let ways = [("fault", libc::SIGSEGV), ("ignored", libc::SIGSEGV), ("bus", libc::SIGBUS), ("sent", libc::SIGSEGV)];
    match role().as_deref() {
        None => {
            for (way, signal) in ways {
                let output = run(TEST, way);
                assert_eq!(output.status.signal(), Some(signal), "{way}: {}", told(&output));
            }
        }
        Some(way) => end_by(way),
    }
}

fn end_by(way: &str) {
    if way == "ignored" {
        handle(libc::SIG_IGN, 0);
    } else {
        handle(libc::SIG_DFL, 0);
    }
    let _memory = install();
    match way {
        "bus" => touch(page_past_the_end()),
        // SAFETY: the signal is the test.
        "sent" => drop(unsafe { libc::raise(libc::SIGSEGV) }),
        _ => touch(forbidden_page()),
    }
}

/// A page of a file that ends before it, outside of all windows.
fn page_past_the_end() -> *mut u8 {
    let file = crate::support::file(0);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new page, which replaces nothing.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, rights, libc::MAP_SHARED, fd, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page.cast()
}

#[test]
fn a_signal_that_was_sent_is_ignored_if_it_was_before() {
    passes("signals::a_signal_that_was_sent_is_ignored_if_it_was_before", || {
        handle(libc::SIG_IGN, 0);
        let _memory = install();
        // SAFETY: takes a number.
        assert_eq!(unsafe { libc::raise(libc::SIGSEGV) }, 0);
        let _again = install();
    });
}

#[test]
fn a_signal_that_is_sent_during_a_copy_is_not_taken_for_its_fault() {
    passes("signals::a_signal_that_is_sent_during_a_copy_is_not_taken_for_its_fault", || {
        let handler: extern "C" fn(c_int) = plain;
        handle(handler as usize, libc::SA_RESTART);
        let (_file, memory) = world(256);
        let shown = shown(&memory, FIRST, 256);
        // SAFETY: the number of this thread.
        let target = unsafe { libc::pthread_self() };
        let over = Over::default();
        std::thread::scope(|scope| {
            let _end = over.ends_here();
            scope.spawn(|| {
                while !over.is_it() {
                    // SAFETY: the thread waits for this one.
                    assert_eq!(unsafe { libc::pthread_kill(target, libc::SIGSEGV) }, 0);
                    std::thread::sleep(std::time::Duration::from_micros(100));
                }
            });
            let mut bytes = vec![0; 256 * PAGE];
            while CALLS.load(Ordering::SeqCst) < 50 {
                assert_eq!(memory.load(at(shown, 0), &mut bytes), Ok(()));
            }
        });
    });
}

#[expect(unconditional_recursion, reason = "it is to end the stack")]
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    recurse(frame[0] + 1) + std::hint::black_box(frame)[63]
}

#[test]
fn std_still_tells_that_a_stack_has_overflowed() {
    const TEST: &str = "signals::std_still_tells_that_a_stack_has_overflowed";
    match role().as_deref() {
        Some("with") => {
            let _memory = install();
            recurse(0);
        }
        Some(_) => {
            recurse(0);
        }
        None => {
            let (without, with) = (run(TEST, "without"), run(TEST, "with"));
            assert_eq!(with.status.signal(), without.status.signal(), "{}", told(&with));
            for output in [without, with] {
                assert!(told(&output).contains("has overflowed its stack"), "{}", told(&output));
            }
        }
    }
}
