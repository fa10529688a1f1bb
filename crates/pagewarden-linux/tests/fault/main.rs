//! The host and the manager say the same of random accesses to random mappings: allowed, or which signal with
//! which code and address; and the same stacks grow.
//!
//! `PAGEWARDEN_SEED` sets the first seed, `PAGEWARDEN_FAULT_CASES` how many cases there are.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../common/child.rs"]
mod child;
mod host;
#[path = "../common/setting.rs"]
mod setting;
mod touch;

use std::sync::Arc;

use pagewarden::linux::{FileTraits, MapFlags, MapSource, MmapRequest, OpenFile, Request};
use pagewarden::manager::{Access, Features, Layout, Privileges, ResourceLimits, Signal, SignalCode, SpaceConfig};
use pagewarden::object::FileId;
use pagewarden::{
    Errno, Limits, MemoryObject, ObjectKind, Op, PAGE_SHIFT, PAGE_SIZE, PageCount, PageManagementProvider, PageManager,
    PageRange, ResourceLedger, VirtAddr,
};
use pagewarden_linux::oracle::generate::Rng;

use host::{Host, Line};
use setting::setting;

/// Where the mappings lie: nothing else is near.
const WINDOWS: [u64; 2] = [0x1000_0000_0000, 0];
/// Pages of a window.
const PAGES: u64 = 2400;
/// Pages of the file.
const FILE_PAGES: u64 = 4;
/// Cases a child does.
const BATCH: u64 = 500;

/// A platform that does nothing: the host has it done already.
struct Nowhere;

impl PageManagementProvider for Nowhere {
    fn run(&mut self, _: &Op, _: pagewarden::provider::Maps<'_>) -> Result<(), Errno> {
        Ok(())
    }

    fn object_pages(&self, object: &MemoryObject) -> Option<PageCount> {
        matches!(object.kind(), ObjectKind::Memfd(_)).then_some(PageCount::new(FILE_PAGES))
    }
}

#[test]
fn faults_are_those_of_the_host() {
    let first = setting("PAGEWARDEN_SEED", 1);
    let cases = setting("PAGEWARDEN_FAULT_CASES", 12_000);
    let mut counts = [0; 4];
    for batch in 0..cases.div_ceil(BATCH) {
        let seed = first + batch * BATCH;
        let all = Privileges::MAP_LOW | Privileges::LOCK;
        let privileges = if batch.is_multiple_of(2) { all } else { Privileges::empty() };
        let of_batch = child::in_child(|| run_batch(seed, privileges));
        for (sum, count) in counts.iter_mut().zip(of_batch) {
            *sum += count;
        }
    }
    let [cases_done, accesses, signals, growths] = counts;
    println!("{cases_done} cases, {accesses} accesses, {signals} signals, {growths} stacks grown");
    assert!(cases_done >= cases && signals > cases / 2 && growths > cases / 10, "the cases say too little");
}

/// Cases, accesses, signals and growths of one child.
fn run_batch(seed: u64, privileges: Privileges) -> [u64; 4] {
    if privileges.is_empty() {
        host::drop_capabilities();
    }
    touch::catch_faults();
    let host = Host::new(FILE_PAGES);
    let mut counts = [0; 4];
    for seed in seed..seed + BATCH {
        Case::new(seed, &host, privileges).run(&mut counts);
        counts[0] += 1;
    }
    counts
}

struct Case<'a> {
    seed: u64,
    rng: Rng,
    window: u64,
    host: &'a Host,
    manager: PageManager<Nowhere>,
    /// What was done, for whoever reads a failure.
    story: Vec<String>,
}

impl<'a> Case<'a> {
    fn new(seed: u64, host: &'a Host, privileges: Privileges) -> Self {
        let mut rng = Rng::new(seed);
        let window = if rng.chance(15) { WINDOWS[1] } else { WINDOWS[0] };
        let manager = PageManager::new(config(host, privileges), Nowhere);
        Self { seed, rng, window, host, manager, story: Vec::new() }
    }

    fn run(mut self, counts: &mut [u64; 4]) {
        for _ in 0..=self.rng.below(4) {
            self.map_something();
        }
        if self.rng.chance(30) {
            self.protect_something();
        }
        if self.rng.chance(40) {
            self.limit_something();
        }
        for _ in 0..=self.rng.below(6) {
            if !self.touch_something(counts) {
                break;
            }
        }
        self.host.lift_limits();
        self.host.unmap(self.window, PAGES << PAGE_SHIFT);
    }

    fn map_something(&mut self) {
        let pages = 1 + self.rng.below(8);
        let page = self.somewhere().clamp(1, PAGES - pages - 1);
        let addr = self.window + (page << PAGE_SHIFT);
        let prot = self.rng.pick(&[0, 1, 2, 3, 3, 3, 4, 5, 7]);
        let anonymous = MapFlags::FIXED | MapFlags::ANONYMOUS;
        let (mut flags, is_file) = self.rng.weighted(&[
            (50, (anonymous | MapFlags::PRIVATE | MapFlags::GROWS_DOWN, false)),
            (20, (anonymous | MapFlags::PRIVATE, false)),
            (8, (anonymous | MapFlags::SHARED, false)),
            (8, (MapFlags::FIXED | MapFlags::PRIVATE, true)),
            (8, (MapFlags::FIXED | MapFlags::SHARED, true)),
        ]);
        if self.rng.chance(15) {
            flags |= MapFlags::LOCKED;
        }
        let source = if is_file { MapSource::File(self.host.open_file()) } else { MapSource::Anonymous };
        let request = MmapRequest { addr, len: pages << PAGE_SHIFT, prot, flags, source, offset: 0 };
        let found = self.host.map(&request);
        self.story.push(format!("mmap {addr:#x} {pages} pages prot {prot} {flags:?}: {found:?}"));
        let ours = self.manager.call(&Request::Mmap(request)).map_err(|refusal| i32::from(refusal.errno.raw()));
        assert_eq!(ours, found, "{}", self.told());
    }

    fn protect_something(&mut self) {
        let (addr, len) = (self.window + (self.somewhere() << PAGE_SHIFT), (1 + self.rng.below(3)) << PAGE_SHIFT);
        let prot = self.rng.below(8);
        let found = self.host.protect(addr, len, prot);
        self.story.push(format!("mprotect {addr:#x} {len:#x} {prot}: {found:?}"));
        let request = Request::Mprotect { addr, len, prot };
        let ours = self.manager.call(&request).map(|_| ()).map_err(|refusal| i32::from(refusal.errno.raw()));
        assert_eq!(ours, found, "{}", self.told());
    }

    fn limit_something(&mut self) {
        let mut limits = self.manager.config().limits.clone();
        let pages = self.rng.pick(&[0, 1, 2, 5, 8, 12, 100, 300, 600]);
        let bytes = (pages << PAGE_SHIFT) + self.rng.below(2) * 100;
        match self.rng.below(3) {
            0 => {
                limits.stack = bytes;
                self.host.limit(libc::RLIMIT_STACK, bytes);
            }
            1 => {
                limits.locked = bytes;
                self.host.limit(libc::RLIMIT_MEMLOCK, bytes);
            }
            _ => {
                // The host counts what belongs to this program as well.
                let ours = self.manager.totals().virtual_pages << PAGE_SHIFT;
                limits.address_space = ours + bytes;
                self.host.limit(libc::RLIMIT_AS, self.host.virtual_bytes() + bytes);
            }
        }
        self.story.push(format!("limits {limits:?}"));
        self.manager.set_limits(limits);
    }

    /// True if the case may go on.
    fn touch_something(&mut self, counts: &mut [u64; 4]) -> bool {
        let address = if self.rng.chance(4) {
            self.rng.pick(&[0x7fff_ffff_f000, 0x8000_0000_0000, 0xffff_7fff_ffff_f000, 1 << 63, 0xffff_8000_0000_0000])
        } else {
            let inside = self.rng.pick(&[0, 8, 2048, 4088]);
            self.window + (self.somewhere().min(PAGES - 1) << PAGE_SHIFT) + inside
        };
        let access = self.rng.pick(&[Access::Read, Access::Write, Access::Execute]);
        let pages_before = self.manager.totals().virtual_pages;
        let start_before = self.manager.map().before(VirtAddr::new(address)).map(|entry| entry.range.end());
        // SAFETY: the window and the addresses beyond every program are not this program's; all pages hold zeros.
        let found = unsafe { touch::touch(address, access) };
        let ours = self.manager.fault(VirtAddr::new(address), access);
        self.story.push(format!("{access:?} {address:#x}: host {found:x?}, manager {ours:x?}"));
        let ours = ours.err().map(|signal| (number(signal.signal), signal.code.raw(), signal.address.as_u64()));
        assert_eq!(ours, found, "{}", self.told());
        assert_eq!(self.lines(), self.host.lines(self.window, PAGES), "{}", self.told());
        self.manager.check_invariants();
        let has_grown = self.manager.totals().virtual_pages > pages_before;
        counts[1] += 1;
        counts[2] += u64::from(found.is_some());
        counts[3] += u64::from(has_grown);
        // A stack that has reached an equal one is one region with it to the manager, and two to the host, which
        // counts each by itself against the stack limit.
        !has_grown || start_before != Some(VirtAddr::new(address).page_down())
    }

    /// A page of the window, often near the edge of a region or of its guard.
    fn somewhere(&mut self) -> u64 {
        let first = self.window >> PAGE_SHIFT;
        let ranges: Vec<PageRange> = self.manager.map().iter().map(|entry| entry.range).collect();
        if ranges.is_empty() || self.rng.chance(15) {
            return if self.window == 0 && self.rng.chance(80) { self.rng.below(80) } else { self.rng.below(1600) };
        }
        let range = self.rng.pick(&ranges);
        let distance = self.rng.pick(&[0, 0, 1, 1, 2, 3, 10, 100, 254, 255, 256, 257, 258, 400, 600]);
        let page = match self.rng.below(4) {
            0 => range.first_page() + self.rng.below(range.pages().get()),
            1 => range.end_page() + distance,
            _ => range.first_page().saturating_sub(distance),
        };
        page.saturating_sub(first).min(PAGES - 1)
    }

    fn lines(&self) -> Vec<Line> {
        let entries = self.manager.map().iter().map(|entry| Line {
            range: entry.range,
            prot: entry.region.prot,
            is_shared: entry.region.is_shared(),
            offset: entry.region.object().map_or(0, |_| entry.region.page_offset(entry.range.start())),
            is_file: matches!(entry.region.object().map(|object| object.kind()), Some(ObjectKind::Memfd(_))),
        });
        host::merge(entries)
    }

    fn told(&self) -> String {
        format!("PAGEWARDEN_SEED={} {:?}\n{}", self.seed, self.manager.config().privileges, self.story.join("\n"))
    }
}

const fn number(signal: Signal) -> i32 {
    signal.raw()
}

fn config(host: &Host, privileges: Privileges) -> SpaceConfig {
    SpaceConfig {
        layout: Layout {
            min_addr: VirtAddr::new(host.lowest),
            min_fixed_addr: VirtAddr::new(host.lowest_fixed),
            ..Layout::X86_64
        },
        limits: ResourceLimits { stack: host.stack_limit, locked: host.lock_limit, ..ResourceLimits::DEFAULT },
        privileges,
        features: if host.has_keys { Features::ALL } else { Features::ALL.without_keys() },
        ..SpaceConfig::new(Layout::X86_64, ResourceLedger::new(Limits::UNLIMITED).root().child(Limits::UNLIMITED))
    }
}

#[test]
fn numbers_are_those_of_the_c_library() {
    assert_eq!([Signal::Segv, Signal::Bus].map(Signal::raw), [libc::SIGSEGV, libc::SIGBUS]);
    // The library names the codes of SIGBUS alone; those of SIGSEGV are in <asm-generic/siginfo.h>.
    assert_eq!([SignalCode::AdrErr.raw(), SignalCode::Kernel.raw()], [libc::BUS_ADRERR, libc::SI_KERNEL]);
    assert_eq!([SignalCode::MapErr, SignalCode::AccErr, SignalCode::PkuErr].map(SignalCode::raw), [1, 2, 4]);
}

/// An open memfd as the manager sees it.
fn open_file(device: u64, inode: u64) -> OpenFile {
    let object = MemoryObject::new(ObjectKind::Memfd(FileId { device, inode }), "/memfd:fault (deleted)");
    let traits = FileTraits::READABLE | FileTraits::WRITABLE | FileTraits::REGULAR;
    OpenFile { object: Arc::clone(&object), traits }
}

const _: () = assert!(PAGE_SIZE == 4096);
