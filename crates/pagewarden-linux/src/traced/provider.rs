//! The platform seam: each [`Op`] is one host call that a stopped thread of the guest runs.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd};
use std::path::PathBuf;

use pagewarden::linux::{LockAllFlags, MapFlags, RemapFlags};
use pagewarden::provider::{KeyUse, KeyedProt, Lock, Maps, Populate, Source, Target};
use pagewarden::{
    Errno, ObjectKind, Op, PageManagementProvider, PageRange, Prot, ProtectionKey, Region, RegionFlags, VirtAddr, Vmmap,
};

use super::files;
use super::filter::{PR_SET_MDWE, SYS_MSEAL};
use super::inject::StoppedCall;
use super::ptrace::Tid;
use crate::proc_maps;

/// `SHM_EXEC` (linux/shm.h).
pub(crate) const SHM_EXEC: u64 = 0o100_000;
const MLOCK_ONFAULT: u64 = 1;
/// `PROT_SEM` (asm-generic/mman-common.h): no effect of its own.
const PROT_SEM: u64 = 8;

/// Carries out operations in one space, by a thread that is named for each request.
#[derive(Debug, Default)]
pub(super) struct TracedProvider {
    call: Option<StoppedCall>,
    /// A living thread of the space, to read its map by.
    reader: Tid,
}

/// A host call and the result that says that it did what was asked.
struct HostCall {
    number: i64,
    args: [u64; 6],
    expected: u64,
}

impl TracedProvider {
    /// The map is read by `reader` from now on.
    pub(super) fn read_by(&mut self, reader: Tid) {
        self.reader = reader;
    }

    /// Operations are run in `call` until [`Self::end`].
    pub(super) fn begin(&mut self, call: StoppedCall) {
        self.reader = call.tid();
        self.call = Some(call);
    }

    /// Gives the call back.
    pub(super) fn end(&mut self) -> Option<StoppedCall> {
        self.call.take()
    }
}

impl PageManagementProvider for TracedProvider {
    fn run(&mut self, op: &Op, _maps: Maps<'_>) -> Result<(), Errno> {
        let call = self.call.as_mut().ok_or(Errno::NoSys)?;
        let host = host_call(op, call)?;
        let value = call.run(host.number.cast_unsigned(), host.args)?;
        if value == host.expected {
            return Ok(());
        }
        if let Op::AllocateKey { .. } = op {
            // The host has taken a key for itself that we do not know of. This one is of no use then.
            call.run(libc::SYS_pkey_free.cast_unsigned(), [value, 0, 0, 0, 0, 0])?;
            return Err(Errno::NoSpc);
        }
        // brk(2) answers a refusal with the old break; nothing else succeeds elsewhere than it was told to.
        Err(if host.number == libc::SYS_brk { Errno::NoMem } else { Errno::Fault })
    }

    fn has_kept(&self, range: PageRange) -> bool {
        let Ok(entries) = proc_maps::read(self.reader) else { return true };
        entries.iter().any(|entry| entry.range.intersects(range))
    }

    fn is_write_sealed(&self, range: PageRange, _map: &Vmmap) -> bool {
        // Where the host does not let us look, it still refuses what the seal forbids.
        mapped_file(&self.reader.to_string(), range.start()).is_some_and(|file| files::is_write_sealed(file.as_fd()))
    }

    fn stack_start(&self, region: PageRange) -> VirtAddr {
        let last = VirtAddr::new(region.end().as_u64() - 1);
        let path = PathBuf::from(format!("/proc/{}/maps", self.reader));
        let found = File::open(path).ok().and_then(|maps| query(&maps, last)).map(|range| range.0);
        let start = found.or_else(|| self.scan(last));
        start.filter(|start| *start < region.end() && start.is_page_aligned()).unwrap_or(region.start())
    }
}

impl TracedProvider {
    /// The start of the mapping that holds `address`, by the text of the map.
    fn scan(&self, address: VirtAddr) -> Option<VirtAddr> {
        let entries = proc_maps::read(self.reader).ok()?;
        entries.iter().find(|entry| entry.range.contains(address)).map(|entry| entry.range.start())
    }
}

/// The file behind the mapping at `address` of a process, opened anew; for those who may open mapped files.
pub(crate) fn mapped_file(process: &str, address: VirtAddr) -> Option<File> {
    let folder = PathBuf::from("/proc").join(process);
    let maps = File::open(folder.join("maps")).ok()?;
    let (start, end) = query(&maps, address)?;
    File::open(folder.join(format!("map_files/{:x}-{:x}", start.as_u64(), end.as_u64()))).ok()
}

/// `struct procmap_query` (linux/fs.h).
#[repr(C)]
#[derive(Default)]
struct ProcmapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

/// `PROCMAP_QUERY`: `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: libc::Ioctl = (3 << 30) | ((size_of::<ProcmapQuery>() as libc::Ioctl) << 16) | (0x66 << 8) | 17;

/// The start and the end of the mapping that holds `address`, if the host can be asked for one mapping.
fn query(maps: &File, address: VirtAddr) -> Option<(VirtAddr, VirtAddr)> {
    let mut query = ProcmapQuery {
        size: size_of::<ProcmapQuery>() as u64,
        query_addr: address.as_u64(),
        ..ProcmapQuery::default()
    };
    // SAFETY: the structure is alive, says its own size, and names no buffer; the kernel writes no more.
    let result = unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, &raw mut query) };
    (result == 0).then(|| (VirtAddr::new(query.vma_start), VirtAddr::new(query.vma_end)))
}

/// The host call that carries out `op`. What an operation does not say (a file's descriptor, flags that
/// only the file knows) is taken from the guest's own `call`.
fn host_call(op: &Op, call: &StoppedCall) -> Result<HostCall, Errno> {
    let simple = |number, range: &PageRange, third| HostCall {
        number,
        args: [range.start().as_u64(), range.bytes(), third, 0, 0, 0],
        expected: 0,
    };
    Ok(match op {
        Op::Map { range, region, target, populate } => return map(*range, region, *target, *populate, call),
        Op::Unmap { range, .. } => simple(libc::SYS_munmap, range, 0),
        Op::Protect { range, to, .. } => simple(libc::SYS_mprotect, range, without_key_choice(*to)),
        Op::ProtectKey { range, to, .. } => protect_key(*range, *to),
        Op::Seal { range } => simple(SYS_MSEAL, range, 0),
        Op::AllocateKey { key, rights } => {
            HostCall { number: libc::SYS_pkey_alloc, args: [0, *rights, 0, 0, 0, 0], expected: key.number().into() }
        }
        Op::FreeKey { key } => {
            HostCall { number: libc::SYS_pkey_free, args: [key.number().into(), 0, 0, 0, 0, 0], expected: 0 }
        }
        Op::DenyExecGain { flags } => {
            let args = [PR_SET_MDWE.into(), flags.bits(), 0, 0, 0, 0];
            HostCall { number: libc::SYS_prctl, args, expected: 0 }
        }
        Op::Move { from, to, source, .. } => {
            let kept = if *source == Source::Kept { RemapFlags::DONT_UNMAP } else { RemapFlags::empty() };
            remap(from.start(), from.bytes(), *to, RemapFlags::MAY_MOVE | RemapFlags::FIXED | kept)
        }
        Op::Grow { from, to, .. } => remap(from.start(), from.bytes(), *to, RemapFlags::empty()),
        Op::Duplicate { from, to, .. } => remap(*from, 0, *to, RemapFlags::MAY_MOVE | RemapFlags::FIXED),
        Op::Advise { range, advice } => simple(libc::SYS_madvise, range, u64::from(advice.raw().cast_unsigned())),
        Op::RemapPages { range, region, populate } => {
            let now = MapFlags::from_bits_retain(0);
            let flags = if *populate == Populate::Now { now } else { MapFlags::NON_BLOCK };
            let page = region.page_offset(range.start());
            let args = [range.start().as_u64(), range.bytes(), 0, page, flags.bits(), 0];
            HostCall { number: libc::SYS_remap_file_pages, args, expected: 0 }
        }
        Op::Sync { range, flags } => simple(libc::SYS_msync, range, flags.bits()),
        // The manager's own.
        Op::Residency { .. } => return Err(Errno::NoSys),
        Op::Lock { range, lock: Lock::Now, .. } => simple(libc::SYS_mlock, range, 0),
        Op::Lock { range, lock: Lock::OnFault, .. } => simple(libc::SYS_mlock2, range, MLOCK_ONFAULT),
        Op::Lock { range, lock: Lock::Released, .. } => simple(libc::SYS_munlock, range, 0),
        Op::LockAll { flags, .. } => {
            let number = if *flags == LockAllFlags::empty() { libc::SYS_munlockall } else { libc::SYS_mlockall };
            HostCall { number, args: [flags.bits(), 0, 0, 0, 0, 0], expected: 0 }
        }
        Op::Name { range, name } => {
            let [.., string, _] = call.args();
            return name_pages(*range, name.as_ref().map_or(0, |_| string), call);
        }
        Op::SetBreak { to, .. } => {
            HostCall { number: libc::SYS_brk, args: [to.as_u64(), 0, 0, 0, 0, 0], expected: to.as_u64() }
        }
    })
}

/// The word for `prot`. Where a host has protection keys, it gives one of its own choice to memory that is made
/// `PROT_EXEC` and nothing else: one bit more, and it does not.
fn without_key_choice(prot: Prot) -> u64 {
    let word = u64::from(prot.bits());
    if prot == Prot::EXEC { word | PROT_SEM } else { word }
}

fn protect_key(range: PageRange, to: KeyedProt) -> HostCall {
    let (start, len, prot) = (range.start().as_u64(), range.bytes(), u64::from(to.prot.bits()));
    match to.key {
        KeyUse::Given(key) => {
            let args = [start, len, prot, key.number().into(), 0, 0];
            HostCall { number: libc::SYS_pkey_mprotect, args, expected: 0 }
        }
        KeyUse::ExecuteOnly(_) => {
            HostCall { number: libc::SYS_mprotect, args: [start, len, prot, 0, 0, 0], expected: 0 }
        }
    }
}

/// Names pages by the string that the guest's own call points to, or takes their name away if that is 0. Another
/// thread may change the string meanwhile, and then the host shows another name: nothing depends on it.
fn name_pages(range: PageRange, string: u64, call: &StoppedCall) -> Result<HostCall, Errno> {
    if call.number() != libc::SYS_prctl.cast_unsigned() {
        return Err(Errno::NoSys);
    }
    let [option, kind, ..] = call.args();
    let args = [option, kind, range.start().as_u64(), range.bytes(), string, 0];
    Ok(HostCall { number: libc::SYS_prctl, args, expected: 0 })
}

fn remap(from: VirtAddr, old_len: u64, to: PageRange, flags: RemapFlags) -> HostCall {
    let target = if flags.contains(RemapFlags::FIXED) { to.start().as_u64() } else { 0 };
    HostCall {
        number: libc::SYS_mremap,
        args: [from.as_u64(), old_len, to.bytes(), flags.bits(), target, 0],
        expected: to.start().as_u64(),
    }
}

fn map(
    range: PageRange,
    region: &Region,
    target: Target,
    populate: Populate,
    call: &StoppedCall,
) -> Result<HostCall, Errno> {
    let kind = region.object().map(|object| object.kind());
    if let Some(ObjectKind::SysV { id, .. }) = kind {
        return Ok(attach(*id, range, region, target));
    }
    if kind == Some(&ObjectKind::Special) || call.number() != libc::SYS_mmap.cast_unsigned() {
        return Err(Errno::NoSys);
    }
    let [_, _, _, word, fd, _] = call.args();
    let word = MapFlags::from_bits_retain(word);
    let flags = map_flags(region, target, populate) | word & MapFlags::LOCKED;
    // Shared anonymous memory may have been asked for by mapping /dev/zero.
    let (flags, fd, offset) = if word.contains(MapFlags::ANONYMOUS) {
        (flags | MapFlags::ANONYMOUS, u64::MAX, 0)
    } else {
        let offset = region.page_offset(range.start()).wrapping_mul(pagewarden::PAGE_SIZE);
        (flags | file_flags(word), fd, offset)
    };
    let prot = match region.key {
        ProtectionKey::DEFAULT => without_key_choice(region.prot),
        _ => region.prot.bits().into(),
    };
    let args = [range.start().as_u64(), range.bytes(), prot, flags.bits(), fd, offset];
    Ok(HostCall { number: libc::SYS_mmap, args, expected: range.start().as_u64() })
}

/// What only the file gives a meaning to: all but what the region says itself, and where it goes.
pub(crate) fn file_flags(word: MapFlags) -> MapFlags {
    word - (MapFlags::TYPE
        | MapFlags::FIXED
        | MapFlags::FIXED_NO_REPLACE
        | MapFlags::ANONYMOUS
        | MapFlags::LOW_2G
        | MapFlags::ABOVE_4G
        | MapFlags::POPULATE
        | MapFlags::NON_BLOCK)
}

/// What the region says itself of how it is mapped.
pub(crate) fn map_flags(region: &Region, target: Target, populate: Populate) -> MapFlags {
    let mut flags = if region.is_shared() { MapFlags::SHARED } else { MapFlags::PRIVATE };
    if region.flags.contains(RegionFlags::DROPPABLE) {
        flags = MapFlags::DROPPABLE;
    }
    flags |= match target {
        Target::Replace => MapFlags::FIXED,
        Target::Vacant => MapFlags::FIXED_NO_REPLACE,
    };
    let named = [
        (RegionFlags::GROWS_DOWN, MapFlags::GROWS_DOWN),
        (RegionFlags::NO_RESERVE, MapFlags::NO_RESERVE),
        (RegionFlags::NO_HUGE_PAGE, MapFlags::STACK),
        (RegionFlags::SYNC, MapFlags::SYNC),
    ];
    for (property, flag) in named {
        if region.flags.contains(property) {
            flags |= flag;
        }
    }
    if populate == Populate::Now {
        flags |= MapFlags::POPULATE;
    }
    flags
}

fn attach(id: i32, range: PageRange, region: &Region, target: Target) -> HostCall {
    let mut flags = 0u64;
    if !region.prot.contains(Prot::WRITE) {
        flags |= u64::from(libc::SHM_RDONLY.unsigned_abs());
    }
    if region.prot.contains(Prot::EXEC) {
        flags |= SHM_EXEC;
    }
    if target == Target::Replace {
        flags |= u64::from(libc::SHM_REMAP.unsigned_abs());
    }
    let mut addr = range.start().as_u64();
    if addr == 0 {
        // 0 would leave the choice to the host; 1, rounded down, does not.
        addr = 1;
        flags |= u64::from(libc::SHM_RND.unsigned_abs());
    }
    HostCall {
        number: libc::SYS_shmat,
        args: [u64::from(id.cast_unsigned()), addr, flags, 0, 0, 0],
        expected: range.start().as_u64(),
    }
}
