//! Which calls the interpreter must not make: those that would change its own memory, poison real frames, or
//! make more memory resident than a test may.
//!
//! The answer depends only on the layout at the start, on the arguments and on what earlier calls were, never on
//! the time or on the load of the machine, so that both runs leave out the same steps.

use pagewarden::linux::Advice;

use super::enclosure::{Counterpart, Range};
use super::outcome::Outcome;
use super::program::{Call, PAGE, PR_GET_MDWE, PR_SET_MDWE};
use super::raw;

/// `PROT_GROWSDOWN`.
const PROT_GROWSDOWN: u64 = 0x100_0000;
/// More than this is not populated.
const LARGE: u64 = 8 << 20;
/// No kernel maps beyond this for a process, with four levels of page tables or five.
const BEYOND_ALL: u128 = 1 << 56;
/// Most bytes that are copied at once.
pub(super) const COPY_ROOM: u64 = 3 * PAGE;
/// Files do not get more than this set aside.
const FILE_ROOM: u64 = 1 << 20;
/// How far the stack might grow.
const STACK_ROOM: u64 = 16 << 20;
/// The page of system calls as they were (`VSYSCALL_ADDR`).
const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;
/// `FALLOC_FL_KEEP_SIZE` and `FALLOC_FL_PUNCH_HOLE`.
const KEEP_SIZE: u64 = 1;
const PUNCH_HOLE: u64 = 2;
/// How process_madvise is told to name the parent, of which the machine's first process has none.
const OTHERS: u64 = 3;
/// Pages of the prepared System V segment.
pub(super) const SEGMENT_PAGES: u64 = 8;

/// The interpreter's own memory, and what the program has done that bears on later calls.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    own: Vec<(u64, u64)>,
    heap: (u64, u64),
    /// Something large is mapped.
    large: bool,
    /// Something is locked, or will be.
    locking: bool,
    /// Who maps first may be the only one who can.
    limited: bool,
    /// Something is sealed.
    sealed: bool,
    /// Droppable memory is mapped.
    droppable: bool,
    /// The kernel may drop pages if it is asked to.
    given_up: bool,
    /// What a detach depends on.
    attached: Attachments,
    enclosed: Option<Enclosed>,
}

/// Whether the kernel may keep equal pieces of an attached segment apart, and whether that matters: a detach takes the
/// pieces that lie within the size of the segment, each whole, so it matters where one has grown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Attachments {
    any: bool,
    grown: bool,
    /// Something was locked: a child's regions are not, and stay where they were split.
    locked: bool,
    /// Pieces may be kept apart.
    split: bool,
}

/// What bears on a program in an enclosure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Enclosed {
    locking: Locking,
    counterpart: Counterpart,
}

/// What a program in an enclosure may lock with mlockall(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Locking {
    /// What is there, and what will be.
    All,
    /// What will be: without privileges, the kernel compares all that this process has mapped with the limit.
    Future,
}

impl Guard {
    /// A guard that knows of no memory; it has room for `regions` of them.
    pub(super) fn new(regions: usize) -> Self {
        Self {
            own: Vec::with_capacity(regions),
            heap: (0, 0),
            large: false,
            locking: false,
            limited: false,
            sealed: false,
            droppable: false,
            given_up: false,
            attached: Attachments::default(),
            enclosed: None,
        }
    }

    /// A guard that keeps a program in the range of `counterpart`. It may name addresses there, or beyond all that there
    /// are.
    pub(super) fn enclosing(counterpart: Counterpart, locking: Locking) -> Self {
        let range = counterpart.range();
        let own = vec![(0, range.start), (range.end, counterpart.addresses_end())];
        Self {
            own,
            heap: (0, 0),
            large: false,
            locking: false,
            limited: false,
            sealed: false,
            droppable: false,
            given_up: false,
            attached: Attachments::default(),
            enclosed: Some(Enclosed { locking, counterpart }),
        }
    }

    /// Adds a region of the interpreter, under the name that the kernel gives it. Does nothing beyond the room
    /// that there is; returns whether there was.
    pub(super) fn add(&mut self, (start, end): (u64, u64), name: &str) -> bool {
        let start = if name == "[stack]" { start.saturating_sub(STACK_ROOM) } else { start };
        if name == "[heap]" {
            self.heap = (start, end);
        }
        let room = self.own.len() < self.own.capacity();
        if room {
            self.own.push((start, end));
        }
        room
    }

    /// Whether the page at `page` is the interpreter's.
    pub(super) fn owns(&self, page: u64) -> bool {
        self.hits(page, 1)
    }

    /// Whether `call` may be made.
    pub(super) fn allows(&self, call: Call, args: [u64; 6]) -> bool {
        if self.enclosed.is_some_and(|enclosed| !self.stays_inside(call, args, enclosed)) {
            return false;
        }
        let [a, b, c, d, e, f] = args;
        match call {
            Call::Mmap => self.allows_mmap(a, b, d),
            Call::Munmap => !self.hits_below(BEYOND_ALL, a, b),
            // Where a munmap failed at a seal the kernel keeps the region apart, and starts there.
            Call::Mprotect if self.sealed && c & PROT_GROWSDOWN != 0 => false,
            Call::Mprotect | Call::PkeyMprotect | Call::Mseal | Call::NameAnonymous => !self.hits(a, b),
            Call::Mdwe => a == PR_SET_MDWE || a == PR_GET_MDWE,
            Call::Mremap => self.allows_mremap([a, b, c, d, e]),
            Call::Brk => self.allows_brk(a),
            Call::RemapPages => !(self.hits_below(BEYOND_ALL, a, b) || self.large && is_large(b)),
            Call::Seal => true,
            Call::ProcessMadvise => [(c, d), (e, f)]
                .iter()
                .all(|&(addr, len)| !self.hits(addr, len) && self.allows_advice(addr, len, a & 0xffff_ffff)),
            Call::Madvise => !self.hits(a, b) && self.allows_advice(a, b, c & 0xffff_ffff),
            Call::Mlock | Call::Mlock2 => !self.large || b <= LARGE,
            Call::Mlockall => !self.large,
            Call::Mincore => b <= LARGE,
            Call::Shmat => !(remaps(b) && self.hits(a & !(PAGE - 1), SEGMENT_PAGES * PAGE)),
            Call::Shmdt => !(self.hits(a, SEGMENT_PAGES * PAGE) || self.attached.grown && self.attached.split),
            Call::Write | Call::Read => !self.hits(a, 1),
            Call::Limit => [libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_MEMLOCK].map(u64::from).contains(&a),
            Call::Munlock | Call::Munlockall | Call::Msync | Call::DropCapabilities | Call::State | Call::Fork => true,
            Call::PkeyAlloc | Call::PkeyFree => true,
            Call::Twin | Call::Vfork | Call::Thread => true,
            // What threads do at once must not depend on who comes first to a limit.
            Call::Storm => !self.limited,
            Call::Resize | Call::FileRead => true,
            Call::NewMemfd => a <= FILE_ROOM,
            Call::Allocate => c.saturating_add(d) <= FILE_ROOM || c.checked_add(d).is_none(),
            Call::FileWrite => b <= FILE_ROOM && c <= COPY_ROOM,
            Call::Load | Call::Store | Call::CopyOut | Call::CopyIn | Call::VmRead => {
                b <= COPY_ROOM && !self.hits(a, b)
            }
            // To call the page of system calls is to make one, about whatever is in the registers.
            Call::Execute => a & !(PAGE - 1) != VSYSCALL && !self.hits(a, 1),
        }
    }

    /// Whether the call names nothing outside of the enclosure, where an arena refuses what the kernel does.
    fn stays_inside(&self, call: Call, [a, b, c, d, e, f]: [u64; 6], enclosed: Enclosed) -> bool {
        let is_machine = enclosed.counterpart.is_kernel();
        let Range { start, end, .. } = enclosed.counterpart.range();
        let fixed = (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE).cast_unsigned();
        let moves_there = (libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP).cast_unsigned();
        if enclosed.counterpart == Counterpart::Cages && !is_known_in_cages(call, [a, b, c, d, e, f]) {
            return false;
        }
        // Below its start an arena has no room, as other processes have none below vm.mmap_min_addr.
        let is_hint = a == 0 || a >= start;
        match call {
            Call::Mmap if d & u64::from(fixed) == 0 => is_hint,
            // A fixed place that looks like an error number is given back as one, unless the length is refused first.
            Call::Mmap if a > u64::MAX - PAGE && b > end => false,
            // Whole pages from wherever it is to start: that the start is not aligned is found out last.
            Call::Mmap => !self.hits_below(BEYOND_ALL, a, b.max(1).saturating_add(PAGE - 1)),
            // An mlock that meets a hole makes nothing resident, but an arena's host does so with droppable memory.
            Call::Mlock | Call::Mlock2 if self.droppable && !is_machine => false,
            // A length that wraps is a short one to these.
            Call::Munlock | Call::Mlock | Call::Mlock2 if self.hits(a, 1) => false,
            Call::Munlock | Call::Mlock | Call::Mlock2 | Call::Msync | Call::Mincore => !self.hits(a, b.max(1)),
            // What an mlock that met a hole has marked, an arena's host keeps apart.
            Call::RemapPages if self.locking => false,
            Call::PkeyMprotect | Call::Mseal | Call::RemapPages => !self.hits(a, b.max(1)),
            Call::ProcessMadvise if is_machine => {
                b & 0xf != OTHERS && a & 0xffff_ffff != 25 && !self.hits(c, d.max(1)) && !self.hits(e, f.max(1))
            }
            // An arena is no process that a descriptor could name.
            Call::ProcessMadvise => false,
            // MADV_COLLAPSE asks whether the kernel's region was ever touched, and those of an arena were.
            Call::Madvise if c & 0xffff_ffff == 25 => false,
            Call::Munmap | Call::Mprotect | Call::NameAnonymous | Call::Madvise => !self.hits(a, b.max(1)),
            // How much of what it leaves behind goes on counting as locked is a matter of seams.
            Call::Mremap if self.locking && d & u64::from(libc::MREMAP_DONTUNMAP.cast_unsigned()) != 0 => false,
            // A length between an arena's end and that of the address space is refused with another error.
            Call::Mremap if c > end && u128::from(c) <= BEYOND_ALL => false,
            Call::Mremap => !self.hits(a, b.max(1)) && (d & u64::from(moves_there) == 0 || !self.hits(e, c.max(1))),
            Call::Shmat => a == 0 || !self.hits(a & !(PAGE - 1), SEGMENT_PAGES * PAGE),
            Call::Mlockall => enclosed.locking == Locking::All || a & u64::from(libc::MCL_CURRENT.cast_unsigned()) == 0,
            Call::Brk | Call::Shmdt | Call::Munlockall | Call::Limit | Call::DropCapabilities => true,
            Call::PkeyAlloc | Call::PkeyFree | Call::Mdwe | Call::Seal => true,
            // What else there is, each file system has its own way to do, or has not.
            Call::Allocate if is_machine => b & 0xffff_ffff & !(KEEP_SIZE | PUNCH_HOLE) == 0,
            Call::Resize | Call::Allocate | Call::NewMemfd | Call::FileWrite | Call::FileRead => true,
            // Every process on x86-64 has this page, and the machine has not.
            Call::Read | Call::Load if is_machine && a & !(PAGE - 1) == VSYSCALL => false,
            Call::Write | Call::Read | Call::State | Call::Fork => true,
            Call::Load | Call::Store | Call::Execute => !self.hits(a, b.max(1)),
            Call::CopyOut | Call::CopyIn | Call::VmRead if is_machine => !self.hits(a, b.max(1)),
            // The kernel's own copies grow a stack, but none of an arena.
            Call::CopyOut | Call::CopyIn | Call::VmRead => false,
            Call::Twin | Call::Vfork | Call::Thread => true,
            // Its threads have no memory of their own that an arena's code could run in.
            Call::Storm => false,
        }
    }

    /// Takes note of a call that was made.
    pub(super) fn made(&mut self, call: Call, [a, b, c, d, ..]: [u64; 6]) {
        match call {
            Call::DropCapabilities => {
                self.enclosed = self.enclosed.map(|enclosed| Enclosed { locking: Locking::Future, ..enclosed })
            }
            Call::Mmap => {
                self.large |= is_large(b);
                self.droppable |= d & 0xf == u64::from(libc::MAP_DROPPABLE.cast_unsigned());
                self.given_up |= self.droppable;
                self.locking |= d & libc::MAP_LOCKED.cast_unsigned() as u64 != 0;
            }
            Call::Madvise => self.given_up |= c & 0xffff_ffff == u64::from(libc::MADV_FREE.cast_unsigned()),
            Call::ProcessMadvise => self.given_up |= a & 0xffff_ffff == u64::from(libc::MADV_FREE.cast_unsigned()),
            Call::Mremap => {
                self.large |= is_large(c);
                self.attached.grown |= self.attached.any && c > b;
            }
            Call::Shmat => self.attached.any = true,
            Call::Fork | Call::Twin => self.attached.split |= self.attached.locked,
            Call::Brk => self.large |= is_large(a.saturating_sub(self.heap.1)),
            Call::Mlockall => {
                (self.locking, self.attached.locked) = (true, true);
                self.limited |= a & 2 != 0;
            }
            Call::Mlock | Call::Mlock2 => (self.locking, self.attached.locked) = (true, true),
            Call::Munlockall => self.locking = false,
            Call::Limit => self.limited = true,
            // A call that a seal refuses has split regions at its ends before.
            Call::Mseal => (self.sealed, self.attached.split) = (true, true),
            _ => {}
        }
    }

    fn allows_mmap(&self, addr: u64, len: u64, flags: u64) -> bool {
        let populates = self.locking || flags & (libc::MAP_POPULATE | libc::MAP_LOCKED).cast_unsigned() as u64 != 0;
        let fixed = flags & libc::MAP_FIXED.cast_unsigned() as u64 != 0;
        !(is_large(len) && populates || fixed && self.hits_below(BEYOND_ALL, addr, len))
    }

    fn allows_mremap(&self, [addr, old_len, new_len, flags, new_addr]: [u64; 5]) -> bool {
        let moves_there = flags & libc::MREMAP_FIXED.cast_unsigned() as u64 != 0;
        !(self.hits_below(BEYOND_ALL, addr, old_len.max(1))
            || moves_there && self.hits_below(BEYOND_ALL, new_addr, new_len.max(1))
            || self.locking && is_large(new_len))
    }

    fn allows_brk(&self, addr: u64) -> bool {
        let (start, end) = self.heap;
        !((start..end).contains(&addr) || self.locking && is_large(addr.saturating_sub(end)))
    }

    fn allows_advice(&self, addr: u64, len: u64, advice: u64) -> bool {
        match advice {
            // MADV_HWPOISON and MADV_SOFT_OFFLINE: only where they are refused.
            100 | 101 => len == 0 || !addr.is_multiple_of(PAGE),
            // MADV_POPULATE_READ, MADV_POPULATE_WRITE and MADV_GUARD_INSTALL, which fills page tables.
            22 | 23 | 102 => !self.large || len <= LARGE,
            // MADV_PAGEOUT: whether pages that may go do depends on the processor that has them in its batch.
            21 => !self.given_up,
            _ => true,
        }
    }

    /// Whether a call on a range touches the interpreter's memory: advice and rights are given to what is there,
    /// whatever the length, unless the end overflows.
    fn hits(&self, addr: u64, len: u64) -> bool {
        self.hits_below(1 << 64, addr, len)
    }

    /// The same for a call that Linux refuses whole when its range ends beyond `limit`.
    fn hits_below(&self, limit: u128, addr: u64, len: u64) -> bool {
        let start = addr & !(PAGE - 1);
        let end = (u128::from(addr) + u128::from(len)).next_multiple_of(u128::from(PAGE));
        end <= limit && self.own.iter().any(|&(own_start, own_end)| start < own_end && u128::from(own_start) < end)
    }
}

/// Whether a call is one that processes in cages and those of a host have in common.
fn is_known_in_cages(call: Call, [_, b, c, d, ..]: [u64; 6]) -> bool {
    match call {
        // Cages know all advice.
        Call::Madvise => is_known_to_host(c & 0xffff_ffff),
        // What a process may do in spite of a segment's mode no cage may.
        Call::Shmat => b & u64::from(libc::SHM_EXEC.cast_unsigned()) == 0,
        // Nothing runs in a cage's memory, and no key bears on compiled code.
        Call::Execute | Call::PkeyAlloc | Call::PkeyFree => false,
        Call::PkeyMprotect => d == u64::MAX,
        // No descriptor names a process, and memory has names whether or not the host's kernel was built with them.
        Call::ProcessMadvise | Call::NameAnonymous => false,
        _ => true,
    }
}

/// Whether the host's kernel was built with `advice`, if there is such an advice.
fn is_known_to_host(advice: u64) -> bool {
    if i32::try_from(advice).ok().and_then(Advice::from_raw).is_none() {
        return true;
    }
    // SAFETY: an advice about no bytes at all does nothing.
    unsafe { raw::syscall(libc::SYS_madvise, [0, 0, advice, 0, 0, 0]) == Outcome::Value(0) }
}

/// Whether something of `len` bytes is possible and too large to be populated.
fn is_large(len: u64) -> bool {
    len > LARGE && u128::from(len) <= BEYOND_ALL
}

/// Whether shmat(2) with `flags` replaces what is there.
fn remaps(flags: u64) -> bool {
    flags & libc::SHM_REMAP.cast_unsigned() as u64 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let mut guard = Guard::new(4);
        assert!(guard.add((0x40_0000, 0x50_0000), ""));
        assert!(guard.add((0x60_0000, 0x70_0000), "[heap]"));
        guard
    }

    #[test]
    fn own_memory_is_left_alone() {
        let guard = guard();
        for call in [
            Call::Munmap,
            Call::Mprotect,
            Call::PkeyMprotect,
            Call::Mseal,
            Call::Madvise,
            Call::Mremap,
            Call::Write,
            Call::Shmdt,
        ] {
            assert!(!guard.allows(call, [0x40_0000, PAGE, 4, 1, 0, 0]), "{call:?}");
        }
        assert!(!guard.allows(Call::Munmap, [0x3f_f000, PAGE + 1, 0, 0, 0, 0]));
        assert!(guard.allows(Call::Munmap, [0x3f_f000, PAGE, 0, 0, 0, 0]));
        assert!(!guard.allows(Call::Munmap, [0x1000, 1 << 40, 0, 0, 0, 0]));
        assert!(guard.allows(Call::Munmap, [0x1000, 1 << 60, 0, 0, 0, 0]));
        assert!(!guard.allows(Call::Madvise, [0x1000, 1 << 60, 4, 0, 0, 0]));
        assert!(guard.allows(Call::Madvise, [0x1000, u64::MAX, 4, 0, 0, 0]));
        assert!(!guard.allows(Call::Mmap, [0x40_0000, PAGE, 3, 0x32, 0, 0]));
        assert!(guard.allows(Call::Mmap, [0x40_0000, PAGE, 3, 0x22, 0, 0]));
        assert!(!guard.allows(Call::Mremap, [0x10_0000, PAGE, PAGE, 3, 0x4f_f000, 0]));
        assert!(!guard.allows(Call::Brk, [0x60_0000, 0, 0, 0, 0, 0]));
        assert!(guard.allows(Call::Brk, [0x70_0000, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn nothing_large_is_populated() {
        let mut guard = guard();
        assert!(guard.allows(Call::Mlockall, [1, 0, 0, 0, 0, 0]));
        assert!(!guard.allows(Call::Mmap, [0, 1 << 30, 3, 0x8022, 0, 0]));
        guard.made(Call::Mmap, [0, 1 << 30, 3, 0x22, 0, 0]);
        assert!(!guard.allows(Call::Mlockall, [1, 0, 0, 0, 0, 0]));
        assert!(!guard.allows(Call::Mlock, [0, 1 << 30, 0, 0, 0, 0]));
        assert!(guard.allows(Call::Mlock, [0, PAGE, 0, 0, 0, 0]));
        assert!(!guard.allows(Call::Madvise, [0x10_0000_0000, 1 << 40, 102, 0, 0, 0]));
        assert!(guard.allows(Call::Madvise, [0x10_0000_0000, PAGE, 102, 0, 0, 0]));
    }

    #[test]
    fn a_segment_that_grew_is_not_detached_where_locks_before_a_fork_or_seals_may_have_split_it() {
        is_not_detached_after(&[(Call::Mlock, [0x10_0000, PAGE, 0, 0, 0, 0]), (Call::Fork, [0; 6])]);
        is_not_detached_after(&[(Call::Mseal, [0x10_9000, PAGE, 0, 0, 0, 0])]);
    }

    #[track_caller]
    fn is_not_detached_after(split: &[(Call, [u64; 6])]) {
        let detach = (Call::Shmdt, [0x10_0000, 0, 0, 0, 0, 0]);
        let grown = [(Call::Shmat, [0x10_0000, 0, 0, 0, 0, 0]), (Call::Mremap, [0x10_7000, PAGE, 2 * PAGE, 0, 0, 0])];
        let made = || grown.iter().chain(split).copied();
        for left_out in 0..=made().count() {
            let mut guard = guard();
            for (index, (call, args)) in made().enumerate() {
                assert!(guard.allows(detach.0, detach.1));
                if index != left_out {
                    guard.made(call, args);
                }
            }
            assert_eq!(guard.allows(detach.0, detach.1), left_out < made().count(), "without {left_out}");
        }
    }

    #[test]
    fn no_system_call_is_made_by_calling_its_page() {
        for guard in [guard(), Guard::enclosing(Counterpart::Arena, Locking::All)] {
            assert!(!guard.allows(Call::Execute, [VSYSCALL + 0x400, 0, 0, 0, 0, 0]));
            assert!(guard.allows(Call::Execute, [VSYSCALL - 1, 0, 0, 0, 0, 0]));
            assert!(guard.allows(Call::Read, [VSYSCALL, 0, 0, 0, 0, 0]));
        }
        assert!(!Guard::enclosing(Counterpart::Machine, Locking::All).allows(Call::Read, [VSYSCALL; 6]));
    }

    #[test]
    fn what_an_arena_is_not_told_of_the_machine_is() {
        let [arena, machine] =
            [Counterpart::Arena, Counterpart::Machine].map(|with| Guard::enclosing(with, Locking::All));
        let Range { start: inside, end, .. } = Counterpart::Machine.range();
        for (call, args) in [
            (Call::CopyOut, [inside, 8, 0, 0, 0, 0]),
            (Call::CopyIn, [inside, 8, 0, 0, 0, 0]),
            (Call::VmRead, [inside, 8, 0, 0, 0, 0]),
            (Call::ProcessMadvise, [4, 0x10, inside, PAGE, inside, PAGE]),
        ] {
            assert!(!arena.allows(call, args), "{call:?}");
            assert!(machine.allows(call, args), "{call:?}");
        }
        assert!(!machine.allows(Call::ProcessMadvise, [4, 0x10 | OTHERS, inside, PAGE, inside, PAGE]));
        assert!(!machine.allows(Call::CopyOut, [end - 4, 8, 0, 0, 0, 0]));
        for (mode, is_made) in [(0, true), (KEEP_SIZE, true), (KEEP_SIZE | PUNCH_HOLE, true), (0x10, false), (8, false)]
        {
            assert_eq!(machine.allows(Call::Allocate, [3, mode, 0, PAGE, 0, 0]), is_made, "{mode:#x}");
            assert!(arena.allows(Call::Allocate, [3, mode, 0, PAGE, 0, 0]), "{mode:#x}");
        }
    }

    #[test]
    fn frames_are_not_poisoned() {
        assert!(!guard().allows(Call::Madvise, [0x1000, PAGE, 100, 0, 0, 0]));
        assert!(!guard().allows(Call::Madvise, [0x1000, PAGE, (1 << 32) | 101, 0, 0, 0]));
        assert!(guard().allows(Call::Madvise, [0x1001, PAGE, 100, 0, 0, 0]));
    }
}
