//! SIGSEGV and SIGBUS: a fault in a view is resolved, one of our copies goes on at its landing, everything else is whose it
//! was before.
//!
//! Owns what was installed before. But for faults in views the handler takes no lock
//! and allocates nothing; it leaves `errno` as it was. It runs on
//! the alternative stack where a thread has one, as that of std does, which tells stacks that overflow.
//!
//! Differs from Linux: a handler that was installed without `SA_ONSTACK` runs on the alternative stack as well, and a
//! signal that another process has sent, and that ends this one, is sent again by ourselves.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{sigaction, siginfo_t, ucontext_t};
use pagewarden::Errno;

use crate::foreign::lost;
use crate::host_machine::{Resolution, resolve};

/// The handler with all that the host tells.
type Informed = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
/// The plain one.
type Plain = extern "C" fn(c_int);

/// Its place among the registers.
const INSTRUCTION_POINTER: usize = libc::REG_RIP.unsigned_abs() as usize;

/// An errno of the host's as ours.
pub(crate) fn errno_of(errno: nix::Error) -> Errno {
    u16::try_from(errno as i32).map_or(Errno::Io, Errno::from_raw)
}

/// What was installed before, for one signal.
struct Previous {
    signal: c_int,
    action: sigaction,
    /// A handler that is to run once has run.
    is_spent: AtomicBool,
}

/// Whose doing a signal is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// An instruction that would fault again.
    Instruction,
    /// Somebody has sent it.
    Sender,
}

static PREVIOUS: OnceLock<[Previous; 2]> = OnceLock::new();
static INSTALLED: OnceLock<Result<(), Errno>> = OnceLock::new();

/// Installs the handlers, once in the life of the process.
pub(crate) fn install() -> Result<(), Errno> {
    *INSTALLED.get_or_init(|| {
        let previous = [Previous::of(libc::SIGSEGV)?, Previous::of(libc::SIGBUS)?];
        // The handler must find it.
        for previous in PREVIOUS.get_or_init(|| previous) {
            previous.replace()?;
        }
        Ok(())
    })
}

impl Previous {
    fn of(signal: c_int) -> Result<Self, Errno> {
        let mut action = MaybeUninit::<sigaction>::zeroed();
        // SAFETY: nothing is installed, and the call fills `action`, which is ours.
        if unsafe { sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
            return Err(errno_of(nix::Error::last()));
        }
        // SAFETY: a structure of integers, all of whose bits were set.
        let action = unsafe { action.assume_init() };
        Ok(Self { signal, action, is_spent: AtomicBool::new(false) })
    }

    /// Installs our handler in its place. Calls that a sent signal interrupts go on as they did with the previous one.
    fn replace(&self) -> Result<(), Errno> {
        let handler: Informed = on_signal;
        let mut action = self.action;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | (self.action.sa_flags & libc::SA_RESTART);
        // SAFETY: the set is ours.
        unsafe { libc::sigemptyset(&raw mut action.sa_mask) };
        // SAFETY: the handler is one that may run at any time, on any thread.
        let installed = unsafe { sigaction(self.signal, &raw const action, std::ptr::null_mut()) };
        if installed == 0 { Ok(()) } else { Err(errno_of(nix::Error::last())) }
    }

    /// Does what would have been done without us.
    fn go_on(&self, cause: Cause, info: *mut siginfo_t, context: *mut c_void) {
        let flags = self.action.sa_flags;
        let is_over = flags & libc::SA_RESETHAND != 0 && self.is_spent.swap(true, Ordering::Relaxed);
        let handler = if is_over { libc::SIG_DFL } else { self.action.sa_sigaction };
        match handler {
            libc::SIG_IGN if cause == Cause::Sender => {}
            // A fault cannot be ignored.
            libc::SIG_DFL | libc::SIG_IGN => self.end(cause),
            handler => {
                self.set_mask();
                if flags & libc::SA_SIGINFO != 0 {
                    // SAFETY: the flag says that this is the type of the handler that somebody has installed.
                    let handler = unsafe { std::mem::transmute::<usize, Informed>(handler) };
                    handler(self.signal, info, context);
                } else {
                    // SAFETY: as above.
                    let handler = unsafe { std::mem::transmute::<usize, Plain>(handler) };
                    handler(self.signal);
                }
            }
        }
    }

    /// Blocks what the previous handler wants blocked. Returning from the signal undoes it.
    fn set_mask(&self) {
        if self.action.sa_flags & libc::SA_NODEFER != 0 {
            let mut own = MaybeUninit::<libc::sigset_t>::uninit();
            // SAFETY: the call fills the set, which is ours.
            unsafe { libc::sigemptyset(own.as_mut_ptr()) };
            // SAFETY: the set was filled.
            unsafe { libc::sigaddset(own.as_mut_ptr(), self.signal) };
            // SAFETY: the call reads the set, and is one for signal handlers.
            unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, own.as_ptr(), std::ptr::null_mut()) };
        }
        // SAFETY: as above.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const self.action.sa_mask, std::ptr::null_mut()) };
    }

    /// Ends the process by the signal, when the handler returns.
    fn end(&self, cause: Cause) {
        // SAFETY: the default runs no code of ours. The instruction faults once more then.
        unsafe { libc::signal(self.signal, libc::SIG_DFL) };
        if cause == Cause::Sender {
            // SAFETY: takes an integer; the signal is blocked until the handler returns.
            unsafe { libc::raise(self.signal) };
        }
    }
}

/// The handler of both signals.
extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    keeping_errno(|| handle(signal, info, context));
}

/// Leaves `errno` as it was, for code that a signal has interrupted.
pub(crate) fn keeping_errno<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the calling thread's own.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let errno = unsafe { place.read() };
    let done = work();
    // SAFETY: as above.
    unsafe { place.write(errno) };
    done
}

fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the host gives every handler of this kind a structure that is filled.
    let code = unsafe { (*info).si_code };
    // Numbers that are not positive are the senders'. An advance notice of broken memory is about no instruction.
    let is_notice = signal == libc::SIGBUS && code == libc::BUS_MCEERR_AO;
    let cause = if code > 0 && !is_notice { Cause::Instruction } else { Cause::Sender };
    if cause == Cause::Instruction {
        // SAFETY: both are the host's. Nobody but guests and our own copies uses the addresses of views.
        let resolution = unsafe { resolve(info, context) };
        let is_done = || land(context) || (signal == libc::SIGBUS && replace_page(code, info));
        if resolution == Resolution::Again || is_done() {
            return;
        }
    }
    let previous = PREVIOUS.get().and_then(|all| all.iter().find(|previous| previous.signal == signal));
    if let Some(previous) = previous {
        previous.go_on(cause, info, context);
    }
}

/// Lets a copy of ours go on at its landing.
fn land(context: *mut c_void) -> bool {
    let context: *mut ucontext_t = context.cast();
    // SAFETY: the host gives the handler the registers of this thread, which nobody else has.
    let pointer = unsafe { &mut (*context).uc_mcontext.gregs[INSTRUCTION_POINTER] };
    let Ok(at) = usize::try_from(*pointer) else { return false };
    let Some(landing) = pagewarden_copy::landing(at).and_then(|landing| i64::try_from(landing).ok()) else {
        return false;
    };
    *pointer = landing;
    true
}

/// Replaces a page that is gone from a window.
fn replace_page(code: c_int, info: *mut siginfo_t) -> bool {
    if code != libc::BUS_ADRERR {
        return false;
    }
    // SAFETY: the host gives every handler of this kind a structure that is filled, and that nobody changes.
    let info = unsafe { &*info };
    // SAFETY: for this code the host has set the address.
    let address = unsafe { info.si_addr() };
    lost::replace(address.addr())
}
