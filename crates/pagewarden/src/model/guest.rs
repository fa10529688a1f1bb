//! A guest made of bytes: calls with any words in their registers, on a manager over a [`Platform`].
//!
//! Shared by the fuzz targets and the property tests. After each call manager, platform and ledger agree, and a plan
//! says beforehand what it answers. What differs is a panic.

use super::SMALL_LAYOUT;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::failing::{Failing, Failures, Loss};
use super::platform::Platform;
use crate::addr::{PAGE_SIZE, PageCount, VirtAddr};
use crate::error::Errno;
use crate::ledger::{Account, Limits, Resource, ResourceLedger};
use crate::linux::{FileTraits, Files, OpenFile, Request, Segment, answer, decode};
use crate::manager::{Break, Cause, Layout, PageManager, Policy, Privileges, ResourceLimits, SpaceConfig, WxPolicy};
use crate::object::{FileId, MemoryObject, ObjectKind};
use crate::prot::Prot;
use crate::vmmap::Direction;

/// Bytes that make a call: its number, what the platform does, six words of five bytes.
const CALL_BYTES: usize = 32;
/// Numbers of calls that are chosen often: all that [`decode`] may know.
const NUMBERS: [u64; 24] =
    [9, 10, 11, 12, 25, 26, 27, 28, 30, 67, 149, 150, 151, 152, 157, 216, 325, 329, 330, 331, 440, 453, 462, 0];
/// Where most words point to.
const BASE: u64 = 0x10_0000;
const HEAP: u64 = 0x20_0000;
/// Places at which something begins or ends.
const EDGES: [u64; 12] =
    [0, PAGE_SIZE, 0x1_0000, BASE, HEAP, 0x110_0000, 1 << 31, 1 << 32, 0x7fff_ffff_f000, 1 << 47, 1 << 63, u64::MAX];
/// Pages that may be committed at most.
const BUDGET: u64 = 1 << 12;

/// Runs the calls of `input`, none of which the platform fails.
///
/// # Panics
/// If something is wrong.
pub fn run_calls(input: &[u8]) {
    run(input, |_, _| None);
}

/// Runs the calls of `input`, while the platform fails as `input` says.
///
/// # Panics
/// If something is wrong.
pub fn run_failing_calls(input: &[u8]) {
    run(input, |first, second| {
        let errno = [Errno::NoMem, Errno::Io, Errno::Exist, Errno::Again][usize::from(first >> 6)];
        let loss = if first & 1 == 0 { Loss::Nothing } else { Loss::Target };
        let which = match second {
            0..=127 => u64::from(second >> 3),
            128..=159 => u64::MAX << (second & 7),
            _ => return None,
        };
        Some(Failures { which, errno, loss })
    });
}

fn run(input: &[u8], failures: impl Fn(u8, u8) -> Option<Failures>) {
    let Some((&kind, calls)) = input.split_first() else { return };
    let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Resource::Committed, BUDGET));
    let mut guest = Guest::new(kind, ledger.root());
    for call in calls.as_chunks::<CALL_BYTES>().0 {
        let [number, platform, words @ ..] = call;
        let mut args = [0; 6];
        for (arg, word) in args.iter_mut().zip(words.as_chunks::<5>().0) {
            *arg = guest.word(*word);
        }
        guest.files.answer = *platform;
        let number = NUMBERS.get(usize::from(*number)).copied().unwrap_or(u64::from(*number));
        guest.call(number, args, failures(*platform, call[7]));
        assert!(ledger.root().used(Resource::Committed) <= BUDGET, "the budget is kept");
    }
    drop(guest);
    for resource in Resource::ALL {
        assert_eq!(ledger.root().used(resource), 0, "{resource:?} leaked");
    }
}

struct Guest {
    manager: PageManager<Failing<Platform>>,
    files: FakeFiles,
    last: u64,
}

impl Guest {
    fn new(kind: u8, account: &Account) -> Self {
        let manager = PageManager::new(config(kind, account.child(Limits::UNLIMITED)), Failing::default());
        Self { manager, files: FakeFiles::new(), last: 0 }
    }

    /// A word out of its kind and a number.
    fn word(&self, [kind, number @ ..]: [u8; 5]) -> u64 {
        let number = u32::from_le_bytes(number);
        let small = u64::from(number & 0x1f);
        let number = u64::from(number);
        match kind & 15 {
            0..=2 => BASE + (number & 0x3f) * PAGE_SIZE,
            3..=4 => small * PAGE_SIZE,
            5..=6 => small,
            7 => number,
            8 => number << 12,
            9 => number << 32 | number,
            10 => self.manager.program_break().as_u64().wrapping_add(small * 0x800).wrapping_sub(0x8000),
            11 => self.last.wrapping_add(small * PAGE_SIZE),
            12 => edge(number).wrapping_add(small).wrapping_sub(16),
            13 => edge(number).wrapping_add(small * PAGE_SIZE).wrapping_sub(16 * PAGE_SIZE),
            14 => 1 << (number & 63),
            _ => number.wrapping_neg(),
        }
    }

    fn call(&mut self, number: u64, args: [u64; 6], failures: Option<Failures>) {
        let Ok(Some(request)) = decode(number, args, &mut self.files) else { return };
        let planned = self.manager.plan(&request).map(|plan| plan.outcome()).unwrap_or_else(Err);
        if let Some(failures) = failures {
            self.manager.provider_mut().arm(failures);
        }
        let mut steps = 0;
        let regions = self.manager.map().len();
        let result = self.manager.call_observed(&request, |plan| steps = plan.ops().len());
        let has_failed = self.manager.provider_mut().disarm() > 0;
        assert!(steps <= regions + 2, "{request:?} takes {steps} steps over {regions} regions");
        // Only in the middle of it mincore finds out that its answer has no place.
        let is_untold = matches!(request, Request::Mincore { .. })
            && result.is_err_and(|refusal| (refusal.errno, refusal.cause) == (Errno::Fault, Cause::Platform));
        if !has_failed && !is_untold {
            assert_eq!(result, planned, "{request:?} does what its plan says");
        }
        self.check();
        self.touch(args[0] / PAGE_SIZE);
        let errno = result.map_err(|refusal| refusal.errno);
        if let Ok(value) = answer(&request, errno, self.manager.program_break()) {
            self.last = value;
            self.touch(value / PAGE_SIZE);
        }
        if number == 11 {
            self.fork(failures);
        }
    }

    /// Writes into a page, if it can be written.
    fn touch(&mut self, page: u64) {
        self.manager.provider_mut().inner_mut().write(page, page);
    }

    /// A child that unmaps all it has.
    fn fork(&mut self, failures: Option<Failures>) {
        let account = self.manager.account().child(Limits::UNLIMITED);
        let Ok(pending) = self.manager.prepare_fork(account.clone()) else {
            assert!(Resource::ALL.iter().all(|resource| account.used(*resource) == 0), "a fork that was refused");
            return;
        };
        let mut child = pending.finish(Failing::new(self.manager.provider().inner().fork()));
        if let Some(failures) = failures {
            child.provider_mut().arm(failures);
        }
        let len = child.config().layout.task_end.as_u64();
        let _ = child.call(&Request::Munmap { addr: 0, len });
        child.check_invariants();
        child.provider().inner().check(child.map());
    }

    fn check(&self) {
        self.manager.check_invariants();
        self.manager.provider().inner().check(self.manager.map());
    }
}

fn edge(number: u64) -> u64 {
    let index = usize::from((number >> 8).to_le_bytes()[0]) % EDGES.len();
    EDGES[index]
}

/// Descriptors, segments and strings that say whatever the input says.
struct FakeFiles {
    objects: Vec<Arc<MemoryObject>>,
    answer: u8,
}

impl FakeFiles {
    fn new() -> Self {
        let file = |inode| FileId { device: 1, inode };
        let segment = |id, pages| ObjectKind::SysV { id, pages: PageCount::new(pages) };
        let objects = [
            MemoryObject::new(ObjectKind::File(file(1)), "file"),
            MemoryObject::new_huge_aligned(ObjectKind::File(file(2)), "aligned"),
            MemoryObject::new(ObjectKind::Memfd(file(3)), "memfd"),
            MemoryObject::new(ObjectKind::Device(file(4)), "device"),
            MemoryObject::new(ObjectKind::ZeroDevice(file(5)), "zero"),
            MemoryObject::new(segment(1, 4), "segment"),
            MemoryObject::new(segment(2, 1 << 40), "large segment"),
            MemoryObject::new(segment(3, 0), "no segment"),
        ];
        Self { objects: Vec::from(objects), answer: 0 }
    }
}

impl Files for FakeFiles {
    fn open_file(&mut self, fd: i32) -> Result<OpenFile, Errno> {
        let index = usize::from(fd.to_le_bytes()[0] & 7);
        let object = self.objects.get(index).filter(|_| index < 5 && fd >= 0).ok_or(Errno::BadF)?;
        Ok(OpenFile {
            object: Arc::clone(object),
            traits: FileTraits::from_bits_truncate(u16::from(self.answer) * 0x101),
        })
    }

    fn segment(&mut self, id: i32) -> Result<Segment, Errno> {
        let index = 5 + usize::from(id.to_le_bytes()[0] & 3);
        let object = Arc::clone(self.objects.get(index).ok_or(Errno::Inval)?);
        let pages = match object.kind() {
            ObjectKind::SysV { pages, .. } => *pages,
            _ => return Err(Errno::Inval),
        };
        Ok(Segment { object, pages, rights: Prot::from_bits_truncate(self.answer) })
    }

    fn string(&mut self, addr: u64, len_max: usize) -> Result<Vec<u8>, Errno> {
        let len = usize::from(self.answer);
        if len > len_max { Err(Errno::Inval) } else { Ok(alloc::vec![addr.to_le_bytes()[0]; len]) }
    }
}

/// A space of 16 MiB or as large as a process has, with limits or without.
fn config(kind: u8, account: Account) -> SpaceConfig {
    let is = |bit: u8| kind >> bit & 1 == 1;
    let task_end = if is(0) { 0x7fff_ffff_f000 } else { 0x110_0000 };
    let limit = |few: u64| if is(1) { few << 12 } else { u64::MAX };
    SpaceConfig {
        layout: Layout {
            task_end: VirtAddr::new(task_end),
            mmap_base: VirtAddr::new(task_end - 0x10_0000),
            direction: if is(2) { Direction::BottomUp } else { Direction::TopDown },
            ..SMALL_LAYOUT
        },
        brk: Break { start: VirtAddr::new(HEAP), current: VirtAddr::new(HEAP + 7), data_bytes: 0 },
        limits: ResourceLimits {
            address_space: limit(3000),
            data: limit(500),
            locked: limit(16),
            ..ResourceLimits::DEFAULT
        },
        privileges: Privileges::from_bits_truncate(kind >> 5),
        regions_max: if is(3) { 40 } else { 1000 },
        policy: Policy { wx: if is(4) { WxPolicy::Deny } else { WxPolicy::Allow }, ..Policy::default() },
        ..SpaceConfig::new(SMALL_LAYOUT, account)
    }
}
