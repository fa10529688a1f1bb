//! Host calls of the arena that fail on command, and what holds after each of them: the manager's map is the host's,
//! and a call that failed has changed neither the map nor a byte.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use pagewarden::linux::{MapFlags, MapSource, MmapRequest, MremapRequest, RemapFlags, Request};
use pagewarden::{Errno, PAGE_SIZE, Region, Resource, VirtAddr};

use super::carrier::{Carrier, PageMoves};
use super::{Arena, ArenaOptions};

/// What is there after a host call has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loss {
    /// Everything.
    Nothing,
    /// What the call was to replace is unmapped.
    Target,
}

thread_local! {
    /// So many host calls succeed before one fails.
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    static LOSS: Cell<Loss> = const { Cell::new(Loss::Nothing) };
}

fn arm(left: u32, loss: Loss) {
    LEFT.set(Some(left));
    LOSS.set(loss);
}

/// Whether a host call has failed since [`arm`].
fn disarm() -> bool {
    LEFT.take().is_none()
}

/// Fails if it is this call's turn.
pub(super) fn before(number: libc::c_long, args: [u64; 6]) -> Result<(), Errno> {
    match LEFT.get() {
        None => return Ok(()),
        Some(0) => LEFT.set(None),
        Some(left) => {
            LEFT.set(Some(left - 1));
            return Ok(());
        }
    }
    let [addr, bytes, new_bytes, flags, new_addr, _] = args;
    let has = |flag: i32| flags & u64::from(flag.unsigned_abs()) != 0;
    let target = match number {
        libc::SYS_mmap if has(libc::MAP_FIXED) => Some((addr, bytes)),
        libc::SYS_mremap if has(libc::MREMAP_FIXED) => Some((new_addr, new_bytes)),
        _ => None,
    };
    if let Some((addr, bytes)) = target.filter(|_| LOSS.get() == Loss::Target) {
        let addr = std::ptr::with_exposed_provenance_mut(usize::try_from(addr).unwrap());
        // SAFETY: the call that is to fail would have replaced these pages, which are the arena's.
        unsafe { libc::munmap(addr, usize::try_from(bytes).unwrap()) };
    }
    Err(Errno::NoMem)
}

const PAGES: u64 = 48;
const RW: u64 = 3;

/// Numbers that look random (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// Bytes of pages with any rights.
struct Memory(File);

impl Memory {
    fn new() -> Self {
        Self(File::options().read(true).write(true).open("/proc/self/mem").unwrap())
    }

    fn word(&self, page: u64) -> u64 {
        let mut word = [0; 8];
        self.0.read_exact_at(&mut word, page * PAGE_SIZE).unwrap();
        u64::from_le_bytes(word)
    }
}

/// All that a call may change.
#[derive(PartialEq, Debug)]
struct Snapshot {
    /// What each page is and holds.
    pages: BTreeMap<u64, (Region, u64)>,
    program_break: VirtAddr,
    used: [u64; 4],
}

impl Snapshot {
    /// Forgets what a move replaces at its target before it can fail, where that is gone from `after`.
    fn without_target(mut self, request: &Request, after: &Self) -> Self {
        let Request::Mremap(call) = request else { return self };
        let target = call.new_addr / PAGE_SIZE..(call.new_addr + call.new_len) / PAGE_SIZE;
        let count = self.pages.len();
        if call.flags.contains(RemapFlags::FIXED) {
            self.pages.retain(|page, _| !target.contains(page) || after.pages.contains_key(page));
        }
        if self.pages.len() < count {
            self.used = after.used;
        }
        self
    }

    fn of(arena: &Arena, memory: &Memory) -> Self {
        arena.with_manager(|manager| {
            manager.check_invariants();
            let mut pages = BTreeMap::new();
            for entry in manager.map().iter() {
                for page in entry.range.first_page()..entry.range.end_page() {
                    pages.insert(page, (entry.region.clone(), memory.word(page)));
                }
            }
            let used = Resource::OF_MAP.map(|resource| manager.account().used(resource));
            Self { pages, program_break: manager.program_break(), used }
        })
    }
}

fn request(numbers: &mut Numbers, arena: &Arena) -> Request {
    let start = arena.range().start().as_u64();
    let (page, pages) = (numbers.below(PAGES - 6), 1 + numbers.below(6));
    let (addr, len) = (start + page * PAGE_SIZE, pages * PAGE_SIZE);
    match numbers.below(12) {
        0..=3 => {
            let kind = if numbers.below(4) == 0 { MapFlags::SHARED } else { MapFlags::PRIVATE };
            let place = if numbers.below(3) == 0 { MapFlags::empty() } else { MapFlags::FIXED };
            let lock = if numbers.below(8) == 0 { MapFlags::LOCKED } else { MapFlags::empty() };
            let flags = kind | place | lock | MapFlags::ANONYMOUS;
            let prot = if numbers.below(2) == 0 { RW } else { numbers.below(4) };
            Request::Mmap(MmapRequest { addr, len, prot, flags, source: MapSource::Anonymous, offset: 0 })
        }
        4..=5 => Request::Munmap { addr, len },
        6..=7 => Request::Mprotect { addr, len, prot: numbers.below(4) },
        8 => Request::Brk { addr: start + numbers.below(8) * PAGE_SIZE },
        9 => Request::Mlock { addr, len, flags: numbers.below(2) },
        _ => {
            let flags = [RemapFlags::MAY_MOVE, RemapFlags::FIXED, RemapFlags::DONT_UNMAP, RemapFlags::empty()];
            let flags = RemapFlags::MAY_MOVE | flags[usize::try_from(numbers.below(4)).unwrap()];
            let new_len = if numbers.below(2) == 0 { len } else { (1 + numbers.below(6)) * PAGE_SIZE };
            let new_addr = start + numbers.below(PAGES - 6) * PAGE_SIZE;
            Request::Mremap(MremapRequest { addr, old_len: len, new_len, flags, new_addr })
        }
    }
}

/// Writes a number into each page that can be written.
fn write_all(arena: &Arena, memory: &Memory, numbers: &mut Numbers) {
    let writable = arena.with_manager(|manager| {
        let entries = manager.map().iter().filter(|entry| entry.region.prot.contains(pagewarden::Prot::WRITE));
        entries.flat_map(|entry| entry.range.first_page()..entry.range.end_page()).collect::<Vec<_>>()
    });
    for page in writable {
        memory.0.write_all_at(&numbers.below(u64::MAX).to_le_bytes(), page * PAGE_SIZE).unwrap();
    }
}

/// Makes each host call of random calls fail. Returns how many failures there were, and how many that did not show.
fn run(seed: u64, loss: Loss) -> (u64, u64) {
    let arena = Arena::new(&ArenaOptions { size: PAGES * PAGE_SIZE, ..ArenaOptions::default() }).unwrap();
    let memory = Memory::new();
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut failures, mut mended) = (0, 0);
    for _ in 0..60 {
        let request = request(&mut numbers, &arena);
        for left in 0..100 {
            let before = Snapshot::of(&arena, &memory);
            arm(left, loss);
            let answer = arena.call(&request);
            let has_failed = disarm();
            if let Err(words) = arena.verify() {
                panic!("seed {seed}, host call {left} of {request:?}: {words}");
            }
            let after = Snapshot::of(&arena, &memory);
            if !has_failed {
                break;
            }
            failures += 1;
            if answer.is_ok() {
                mended += 1;
                break;
            }
            let is_lock = matches!(request, Request::Mlock { .. });
            if loss == Loss::Nothing && !is_lock {
                let before = before.without_target(&request, &after);
                assert_eq!(after, before, "seed {seed}, host call {left} of {request:?}");
            }
        }
        write_all(&arena, &memory, &mut numbers);
    }
    (failures, mended)
}

fn run_all(loss: Loss) {
    let (mut failures, mut mended) = (0, 0);
    for seed in 1..=12 {
        let (more, also) = run(seed, loss);
        (failures, mended) = (failures + more, mended + also);
    }
    println!("{loss:?}: {failures} failures, {mended} of them mended");
    assert!(failures > 200);
}

#[test]
fn a_call_whose_host_call_fails_has_no_effect() {
    run_all(Loss::Nothing);
}

#[test]
fn what_a_host_call_has_unmapped_before_it_failed_is_gone_from_the_map() {
    run_all(Loss::Target);
}

#[test]
fn pages_are_not_lost_whatever_fails_while_they_are_carried() {
    const PAGES: u64 = 4;
    let mut calls = 0;
    for loss in [Loss::Nothing, Loss::Target] {
        for left in 0..20 {
            let arena = Arena::new(&ArenaOptions { size: 32 * PAGE_SIZE, ..ArenaOptions::default() }).unwrap();
            let memory = Memory::new();
            let start = arena.range().start().as_u64();
            let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED;
            let len = 32 * PAGE_SIZE;
            let source = MapSource::Anonymous;
            arena.call(&Request::Mmap(MmapRequest { addr: start, len, prot: RW, flags, source, offset: 0 })).unwrap();
            let kept = PAGES * PAGE_SIZE;
            arena.call(&Request::Munmap { addr: start + kept, len: len - kept }).unwrap();
            write_all(&arena, &memory, &mut Numbers(7));
            let words: Vec<u64> = (0..PAGES).map(|page| memory.word(start / PAGE_SIZE + page)).collect();
            arm(left, loss);
            let flags = RemapFlags::MAY_MOVE | RemapFlags::FIXED;
            let new_addr = start + 16 * PAGE_SIZE;
            let (old_len, new_len) = (kept, 2 * kept);
            let answer = arena.call(&Request::Mremap(MremapRequest { addr: start, old_len, new_len, flags, new_addr }));
            let has_failed = disarm();
            arena.verify().unwrap_or_else(|words| panic!("host call {left}: {words}"));
            let at = if answer.is_ok() { new_addr } else { start } / PAGE_SIZE;
            let found: Vec<u64> = (0..PAGES).map(|page| memory.word(at + page)).collect();
            assert_eq!(found, words, "host call {left}, {loss:?}");
            if !has_failed {
                break;
            }
            calls += 1;
        }
    }
    if !Carrier::new(PageMoves::Fastest).is_ready() {
        return println!("skipped: no userfaultfd that moves pages (Linux 6.8)");
    }
    assert!(calls > 2 * 6, "{calls}: open, copy, ask, guards off, register, move, guards on");
}
