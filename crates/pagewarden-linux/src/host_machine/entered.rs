//! Which space the guest code of a thread runs in, and what a signal means there.
//!
//! A fault in a view is a synchronous signal of guest code, and guest code has no lock of ours and is not inside of the
//! allocator: so the handler may take the same locks as any other code of the thread. A fault that comes while the
//! handler is at work on another is nobody's ([`Resolution::NotOurs`]).

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::Arc;

use libc::{siginfo_t, ucontext_t};
use pagewarden::VirtAddr;
use pagewarden::manager::Access;
use pagewarden::pager::Fault;

use super::HostSpace;
use super::host;
use crate::faults::keeping_errno;

/// The least alternative stack that the handler runs on: it walks tables, plans faults, copies pages.
const STACK_BYTES: usize = 256 << 10;
/// Without rights, below a stack of ours.
const STACK_GUARD: usize = 64 << 10;
/// The place of the page fault's error code among the registers, and its bits.
const ERROR_CODE: usize = libc::REG_ERR.unsigned_abs() as usize;
const IS_STORE: i64 = 1 << 1;
const IS_FETCH: i64 = 1 << 4;
/// `si_code` of faults in unmapped pages and in pages that do not allow the access.
const FAULTS: [i32; 2] = [1, 2];

thread_local! {
    /// How many spaces this thread has entered; asked before anything that is set up when it is first used.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static IS_RESOLVING: Cell<bool> = const { Cell::new(false) };
    static REFUSED: Cell<Option<RefusedAccess>> = const { Cell::new(None) };
    static ENTERED: RefCell<Vec<(usize, Arc<HostSpace>)>> = const { RefCell::new(Vec::new()) };
    static STACK: RefCell<Option<Stack>> = const { RefCell::new(None) };
}

/// What a signal means to the space that a thread has entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// It is no fault in the view.
    NotOurs,
    /// The instruction goes on when the handler returns.
    Again,
    /// The guest may not do this, or there is no memory for it: [`take_refused`] knows more.
    Refused,
}

/// An access that a guest may not make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefusedAccess {
    /// The address in the space.
    pub address: VirtAddr,
    /// What the guest was about to do.
    pub access: Access,
    /// Why it may not.
    pub fault: Fault,
}

/// A space that a thread has entered. See [`HostSpace::enter`].
#[derive(Debug)]
#[must_use = "the space is left when this is dropped"]
pub struct Entered<'s> {
    token: usize,
    /// It is this thread that has entered the space.
    thread: PhantomData<(&'s HostSpace, *mut ())>,
}

/// Enters `space`.
pub(super) fn enter(space: &Arc<HostSpace>) -> Entered<'_> {
    let depth = DEPTH.get();
    if depth == 0 {
        STACK.with_borrow_mut(Stack::make_sure);
    }
    let token = ENTERED.with_borrow_mut(|entered| {
        let token = entered.last().map_or(0, |(token, _)| token + 1);
        entered.push((token, Arc::clone(space)));
        token
    });
    DEPTH.set(depth + 1);
    Entered { token, thread: PhantomData }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let left = ENTERED.try_with(|entered| {
            let mut entered = entered.borrow_mut();
            let at = entered.iter().position(|(token, _)| *token == self.token);
            at.map(|at| entered.remove(at))
        });
        DEPTH.set(DEPTH.get() - 1);
        // The space may end here, with nothing borrowed.
        drop(left);
    }
}

/// The last access of this thread that was refused, once.
pub fn take_refused() -> Option<RefusedAccess> {
    REFUSED.take()
}

/// What a SIGSEGV or SIGBUS means to the space that this thread has entered last: for whoever takes signals. If it is a
/// fault that can be resolved, it is.
///
/// # Safety
/// `info` and `context` are what the host has given a handler of this signal, which calls this on an alternative stack of
/// 256 KiB or more ([`HostSpace::enter`] makes sure of one), and the instruction that has faulted, if its address is in
/// the view, is one of guest code or of [`HostSpace::load`] and [`HostSpace::store`].
pub unsafe fn resolve(info: *const siginfo_t, context: *const c_void) -> Resolution {
    if DEPTH.get() == 0 || IS_RESOLVING.get() {
        return Resolution::NotOurs;
    }
    // SAFETY: the caller has it from the host, which gives a handler a structure that is filled.
    let info = unsafe { &*info };
    let context: *const ucontext_t = context.cast();
    // SAFETY: as above.
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    let is_store = registers[ERROR_CODE] & IS_STORE != 0;
    let is_ours = match info.si_signo {
        libc::SIGSEGV => FAULTS.contains(&info.si_code) && registers[ERROR_CODE] & IS_FETCH == 0,
        libc::SIGBUS => info.si_code == libc::BUS_ADRERR,
        _ => false,
    };
    if !is_ours {
        return Resolution::NotOurs;
    }
    // SAFETY: for these codes the host has set the address.
    let address = unsafe { info.si_addr() }.addr();
    let access = if is_store { Access::Write } else { Access::Read };
    IS_RESOLVING.set(true);
    let resolution = keeping_errno(|| {
        ENTERED.try_with(|entered| {
            let Ok(entered) = entered.try_borrow() else { return Resolution::NotOurs };
            let Some((_, space)) = entered.last() else { return Resolution::NotOurs };
            let Some(offset) = space.offset(address) else { return Resolution::NotOurs };
            // The host has no memory for a page that is there.
            let is_lost = info.si_signo == libc::SIGBUS;
            let resolved = if is_lost { Err(Fault::OutOfMemory) } else { space.resolve(offset, access) };
            let Err(fault) = resolved else { return Resolution::Again };
            REFUSED.set(Some(RefusedAccess { address: VirtAddr::new(offset), access, fault }));
            Resolution::Refused
        })
    });
    IS_RESOLVING.set(false);
    resolution.unwrap_or(Resolution::NotOurs)
}

/// An alternative signal stack of ours.
struct Stack {
    base: usize,
}

impl Stack {
    /// Sees to it that the thread has an alternative stack that is large enough: the one that it has, or one of ours.
    fn make_sure(mine: &mut Option<Self>) {
        if current().is_some_and(|stack| stack.ss_size >= STACK_BYTES) {
            return;
        }
        let stack = mine.get_or_insert_with(Self::new);
        let new = libc::stack_t {
            ss_sp: std::ptr::with_exposed_provenance_mut(stack.base + STACK_GUARD),
            ss_flags: 0,
            ss_size: STACK_BYTES,
        };
        // SAFETY: the memory is ours, and stays mapped until the thread ends or the host uses another stack.
        let is_set = unsafe { libc::sigaltstack(&raw const new, std::ptr::null_mut()) } == 0;
        assert!(is_set, "the thread is not on the stack that is replaced");
    }

    fn new() -> Self {
        let base = host::map_stack(STACK_GUARD, STACK_BYTES);
        Self { base: base.unwrap_or_else(|errno| panic!("no memory for a signal stack: {errno}")) }
    }
}

/// The alternative stack of this thread, if it has one.
fn current() -> Option<libc::stack_t> {
    let mut stack = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: the call fills `stack`, which is ours, and changes nothing.
    let is_told = unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) } == 0;
    (is_told && stack.ss_flags & libc::SS_DISABLE == 0).then_some(stack)
}

impl Drop for Stack {
    fn drop(&mut self) {
        let ours: *mut c_void = std::ptr::with_exposed_provenance_mut(self.base + STACK_GUARD);
        if current().is_some_and(|stack| stack.ss_sp == ours) {
            let none = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
            // SAFETY: the thread ends: it runs no guest any more, and is on no alternative stack.
            unsafe { libc::sigaltstack(&raw const none, std::ptr::null_mut()) };
        }
        // SAFETY: the host uses it no more.
        unsafe { host::unmap(self.base, STACK_GUARD + STACK_BYTES) };
    }
}
