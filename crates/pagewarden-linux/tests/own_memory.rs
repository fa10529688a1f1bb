//! msync(2) and mincore(2) in this process: the manager and the host say the same of the same memory.
//!
//! The traced platform leaves both calls to the host, so that the oracle does not reach the manager's answers. Here the
//! manager maps a window of this very process, and both are asked; what is compared is the error and every byte told.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use pagewarden::ledger::{Limits, ResourceLedger};
use pagewarden::linux::{FileTraits, MapFlags, MapSource, MmapRequest, OpenFile, Request};
use pagewarden::manager::{Layout, PageManager, Privileges, SpaceConfig};
use pagewarden::object::FileId;
use pagewarden::provider::{Lock, Maps};
use pagewarden::{
    Errno, MemoryObject, ObjectKind, Op, PAGE_SIZE, PageManagementProvider, PageRange, RegionFlags, VirtAddr, Vmmap,
};
use pagewarden_linux::oracle::generate::Rng;

/// Where the window is, and how many pages it has: more than the kernel tells of at once.
const WINDOW: u64 = 0x20_0000_0000;
const PAGES: u64 = 5000;
const TASK_END: u64 = 0x7fff_ffff_f000;
const STEPS: usize = 6000;
/// Somebody who owns no file.
const FOREIGNER: u32 = 65_534;

/// The host, in this process. Bytes are stored into a vector of its own.
struct Host {
    /// The files that are mapped, by inode.
    files: Vec<File>,
    vector: Vector,
    /// The thread is nobody: it may know nothing of files that are not its own.
    is_foreign: bool,
}

/// Two places for answers with the same bytes before them and nothing after them.
#[derive(Clone, Copy)]
struct Vector {
    /// Where the manager's guest believes to have it, which is where the host writes.
    start: u64,
    /// Where the manager's bytes go.
    copy: u64,
    bytes: u64,
}

fn answer(result: i64) -> Result<(), Errno> {
    if result != -1 {
        return Ok(());
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap();
    Err(Errno::from_raw(u16::try_from(errno).unwrap()))
}

fn host_call(number: libc::c_long, args: [u64; 6]) -> Result<(), Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: callers name the window and the vectors only, which nothing else of this process uses.
    answer(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

fn mincore(addr: u64, len: u64, vector: u64) -> Result<(), Errno> {
    host_call(libc::SYS_mincore, [addr, len, vector, 0, 0, 0])
}

impl PageManagementProvider for Host {
    fn run(&mut self, op: &Op, _maps: Maps<'_>) -> Result<(), Errno> {
        let on = |number, range: &PageRange, third| {
            host_call(number, [range.start().as_u64(), range.bytes(), third, 0, 0, 0])
        };
        match op {
            Op::Map { range, region, .. } => {
                let kind =
                    if region.flags.contains(RegionFlags::SHARED) { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
                let file = match region.object().map(|object| object.kind()) {
                    Some(ObjectKind::File(file) | ObjectKind::Memfd(file)) => Some(file.inode),
                    _ => None,
                };
                let anonymous = if file.is_none() { libc::MAP_ANONYMOUS } else { 0 };
                let fd = file.map_or(-1, |inode| self.files[usize::try_from(inode).unwrap()].as_raw_fd());
                let offset = region.page_offset(range.start()) * PAGE_SIZE;
                let words = [
                    range.start().as_u64(),
                    range.bytes(),
                    region.prot.bits().into(),
                    u64::from((kind | anonymous | libc::MAP_FIXED).cast_unsigned()),
                    i64::from(fd).cast_unsigned(),
                    if file.is_none() { 0 } else { offset },
                ];
                host_call(libc::SYS_mmap, words)
            }
            Op::Unmap { range, .. } => on(libc::SYS_munmap, range, 0),
            Op::Lock { range, lock: Lock::Released, .. } => on(libc::SYS_munlock, range, 0),
            Op::Lock { range, .. } => on(libc::SYS_mlock2, range, 1),
            Op::Sync { range, flags } => on(libc::SYS_msync, range, flags.bits()),
            other => panic!("{other} is not asked for here"),
        }
    }

    fn residency(&mut self, range: PageRange, _map: &Vmmap, each: &mut dyn FnMut(bool)) {
        // Asked as the files' owner: whether the guest may know it is the manager's to decide.
        file_user(0);
        let mut bytes = vec![0_u8; usize::try_from(range.pages().get()).unwrap()];
        mincore(range.start().as_u64(), range.bytes(), bytes.as_mut_ptr().expose_provenance() as u64).unwrap();
        file_user(if self.is_foreign { FOREIGNER } else { 0 });
        bytes.iter().for_each(|byte| each(byte & 1 != 0));
    }

    fn may_know(&self, object: &MemoryObject) -> bool {
        // The file on disk is its owner's alone; what lives in memory may be written by anybody.
        !(self.is_foreign && matches!(object.kind(), ObjectKind::File(_)))
    }

    fn store(&mut self, addr: VirtAddr, bytes: &[u8], _map: &Vmmap) -> Result<(), Errno> {
        let Vector { start, copy, bytes: room } = self.vector;
        let skip = addr.as_u64().checked_sub(start).filter(|skip| *skip < room).ok_or(Errno::Fault)?;
        let fits = bytes.len().min(usize::try_from(room - skip).unwrap());
        let place = std::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(copy + skip).unwrap());
        // SAFETY: the copy is a mapping of its own with `room` bytes, of which `fits` are left from here on.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, fits) };
        if fits < bytes.len() { Err(Errno::Fault) } else { Ok(()) }
    }
}

/// Room for a byte for each page of the window, with a page that cannot be written after it.
fn room() -> u64 {
    let len = PAGES.next_multiple_of(PAGE_SIZE);
    let all = usize::try_from(len + PAGE_SIZE).unwrap();
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a mapping where the kernel likes touches nothing that is there.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), all, prot, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    let start = start.expose_provenance() as u64;
    host_call(libc::SYS_mprotect, [start + len, PAGE_SIZE, 0, 0, 0, 0]).unwrap();
    start
}

fn config() -> SpaceConfig {
    let end = VirtAddr::new(TASK_END);
    SpaceConfig {
        layout: Layout { task_end: end, mmap_base: end, bottom_up_base: VirtAddr::new(WINDOW), ..Layout::X86_64 },
        privileges: Privileges::LOCK,
        ..SpaceConfig::new(Layout::X86_64, ResourceLedger::new(Limits::UNLIMITED).root().child(Limits::UNLIMITED))
    }
}

struct Both {
    manager: PageManager<Host>,
    objects: Vec<OpenFile>,
    rng: Rng,
}

impl Both {
    fn new(seed: u64) -> Self {
        let on_disk = tempfile::tempfile().unwrap();
        // SAFETY: the name is a C string.
        let memfd = unsafe { libc::memfd_create(c"own".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(memfd >= 0);
        // SAFETY: the kernel has just made it, and nobody else has it.
        let memfd = unsafe { File::from_raw_fd(memfd) };
        // Holes all over: nothing of them is resident before it is touched.
        on_disk.set_len(PAGES * PAGE_SIZE).unwrap();
        memfd.set_len(PAGES * PAGE_SIZE).unwrap();
        let traits = FileTraits::READABLE | FileTraits::WRITABLE | FileTraits::REGULAR;
        let kinds =
            [ObjectKind::File(FileId { device: 1, inode: 0 }), ObjectKind::Memfd(FileId { device: 1, inode: 1 })];
        let objects = kinds.map(|kind| OpenFile { object: MemoryObject::new(kind, "/own"), traits }).to_vec();
        let vector = Vector { start: room(), copy: room(), bytes: PAGES.next_multiple_of(PAGE_SIZE) };
        let host = Host { files: vec![on_disk, memfd], vector, is_foreign: false };
        Self { manager: PageManager::new(config(), host), objects, rng: Rng::new(seed) }
    }

    fn range(&mut self) -> (u64, u64) {
        let most = self.rng.weighted(&[(60, 40), (30, 600), (10, PAGES)]);
        let start = self.rng.below(most);
        let pages = 1 + self.rng.below((most - start).max(1));
        (WINDOW + start * PAGE_SIZE, pages * PAGE_SIZE)
    }

    /// Maps, unmaps, locks or touches something.
    fn change(&mut self) {
        let (addr, len) = self.range();
        let request = match self.rng.below(10) {
            0..4 => {
                let kind = self.rng.below(4);
                let source = match kind {
                    0 | 1 => MapSource::File(self.objects[usize::try_from(kind).unwrap()].clone()),
                    _ => MapSource::Anonymous,
                };
                let anonymous = if kind > 1 { MapFlags::ANONYMOUS } else { MapFlags::empty() };
                let shared = if self.rng.chance(50) { MapFlags::SHARED } else { MapFlags::PRIVATE };
                let flags = shared | anonymous | MapFlags::FIXED;
                let prot = self.rng.pick(&[3, 1]);
                Request::Mmap(MmapRequest { addr, len, prot, flags, source, offset: 0 })
            }
            4..6 => Request::Munmap { addr, len },
            6 => Request::Mlock { addr, len, flags: 1 },
            7 => Request::Munlock { addr, len },
            _ => return self.touch(addr, len),
        };
        // Locks stop at holes, for both.
        let _ = self.manager.call(&request);
    }

    /// Writes to a few pages that may be written.
    fn touch(&mut self, addr: u64, len: u64) {
        let range = PageRange::from_len(VirtAddr::new(addr), len).unwrap();
        for page in (range.first_page()..range.end_page()).step_by(3).take(40) {
            let at = page * PAGE_SIZE;
            let entry = self.manager.map().get(VirtAddr::new(at));
            if entry.is_some_and(|entry| entry.region.prot.bits() & 2 != 0) {
                // SAFETY: the page is in the window, mapped and writable, and below the end of any file.
                unsafe { std::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(at).unwrap()).write_volatile(1) };
            }
        }
    }

    fn asked(&mut self) -> (u64, u64) {
        let (addr, len) = self.range();
        let odd =
            self.rng.pick(&[u64::MAX, u64::MAX - 0xfff, 1 << 47, 1 << 63, TASK_END - WINDOW, 0x7fff_ffff_e000, 0]);
        let below = self.rng.below(PAGE_SIZE);
        // Nothing else of this process is asked about, unless all of it is out of bounds.
        let len = self.rng.weighted(&[(70, len), (15, len + below), (10, len + 3 * PAGE_SIZE), (5, 0)]);
        match self.rng.below(20) {
            0 => (addr + 1 + self.rng.below(4095), len),
            1 => (addr, odd.max(TASK_END)),
            2 => (TASK_END - PAGE_SIZE * self.rng.below(2), PAGE_SIZE * self.rng.below(3)),
            3 => (u64::MAX - 0xfff, len),
            _ => (addr, len),
        }
    }

    fn compare_mincore(&mut self) -> Result<u64, Errno> {
        let (addr, len) = self.asked();
        let Vector { start, copy, bytes } = self.manager.provider().vector;
        let near_end = start + bytes - 1 - self.rng.below(len.div_ceil(PAGE_SIZE).clamp(1, bytes - 1));
        let beyond = self.rng.pick(&[0, u64::MAX, TASK_END, TASK_END - 1]);
        let vector = self.rng.weighted(&[(80, start), (15, near_end), (5, beyond)]);
        for place in [start, copy] {
            let place = std::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(place).unwrap());
            // SAFETY: both have this many bytes and are used by nobody else.
            unsafe { place.write_bytes(0xee, usize::try_from(bytes).unwrap()) };
        }
        // The manager first: its provider asks the host too, about parts, and changes nothing by that.
        let ours = self.manager.call(&Request::Mincore { addr, len, vector }).map_err(|refusal| refusal.errno);
        let theirs = mincore(addr, len, vector).map(|()| 0);
        assert_eq!(ours, theirs, "mincore({addr:#x}, {len:#x}, {vector:#x})\n{}", self.manager.maps_text());
        let told = [start, copy].map(|place| {
            let place = std::ptr::with_exposed_provenance::<u8>(usize::try_from(place).unwrap());
            // SAFETY: both have this many bytes, and nobody writes to them now.
            unsafe { std::slice::from_raw_parts(place, usize::try_from(bytes).unwrap()) }
        });
        let differ = told[0].iter().zip(told[1]).position(|(theirs, ours)| theirs != ours);
        assert_eq!(differ, None, "mincore({addr:#x}, {len:#x}, {vector:#x}): byte\n{}", self.manager.maps_text());
        ours
    }

    fn compare_msync(&mut self) -> Result<u64, Errno> {
        let (addr, len) = self.asked();
        let flags = self.rng.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 1 << 31]);
        let ours = self.manager.call(&Request::Msync { addr, len, flags }).map_err(|refusal| refusal.errno);
        let theirs = host_call(libc::SYS_msync, [addr, len, flags, 0, 0, 0]).map(|()| 0);
        assert_eq!(ours, theirs, "msync({addr:#x}, {len:#x}, {flags:#x})\n{}", self.manager.maps_text());
        ours
    }
}

/// Makes this thread nobody for files, or who it was before.
fn file_user(user: u32) {
    // SAFETY: one number, about this thread alone.
    unsafe { libc::syscall(libc::SYS_setfsuid, user) };
}

#[test]
fn msync_and_mincore_answer_like_the_host() {
    let mut both = Both::new(1);
    // SAFETY: takes nothing.
    let is_root = unsafe { libc::geteuid() } == 0;
    let mut seen = std::collections::HashMap::<(&str, Option<Errno>), u32>::new();
    for step in 0..STEPS {
        both.change();
        let is_foreign = is_root && step % 4 == 0;
        both.manager.provider_mut().is_foreign = is_foreign;
        file_user(if is_foreign { FOREIGNER } else { 0 });
        let result = both.compare_mincore();
        *seen.entry(("mincore", result.err())).or_default() += 1;
        if is_root {
            file_user(0);
        }
        let result = both.compare_msync();
        *seen.entry(("msync", result.err())).or_default() += 1;
    }
    println!("{seen:?}");
    let mincore = [None, Some(Errno::NoMem), Some(Errno::Fault), Some(Errno::Inval)].map(|errno| ("mincore", errno));
    let msync = [None, Some(Errno::NoMem), Some(Errno::Busy), Some(Errno::Inval)].map(|errno| ("msync", errno));
    for kind in mincore.into_iter().chain(msync) {
        assert!(seen.get(&kind).is_some_and(|count| *count > 50), "{kind:?} hardly occurs: {seen:?}");
    }
}
