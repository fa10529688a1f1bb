//! Makes a space from what exec has left: the host's list of mappings and a few figures.

use std::fs;
use std::io;
use std::sync::OnceLock;

use pagewarden::linux::{Advice, MdweFlags};
use pagewarden::manager::{
    Attributes, Break, Features, Layout, Policy, Privileges, Refusal, ResourceLimits, SpaceConfig,
};
use pagewarden::object::FileId;
use pagewarden::vmmap::Direction;
use pagewarden::{
    Account, Backing, MemoryObject, ObjectKind, PAGE_SHIFT, PageManager, Prot, Region, RegionFlags, VirtAddr,
};

use super::files::FileTable;
use super::provider::TracedProvider;
use super::ptrace::Tid;
use crate::proc_maps::{self, MapsEntry};
use crate::smaps;

/// The end of the address space of a 64-bit program (`TASK_SIZE_MAX` with four-level tables).
const TASK_END: u64 = 0x7fff_ffff_f000;
/// `ADDR_COMPAT_LAYOUT` (linux/personality.h).
const ADDR_COMPAT_LAYOUT: u64 = 0x0020_0000;
/// The inode of the first user namespace in /proc (`PROC_USER_INIT_INO`).
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";
/// Advices are numbered below this.
const ADVICES_END: i32 = 128;
/// What most hosts have, should they not say.
const LOWEST_HINT_DEFAULT: u64 = 65_536;
/// `PR_GET_MDWE` (linux/prctl.h).
const PR_GET_MDWE: i32 = 66;
const CAP_IPC_LOCK: u64 = 14;
const CAP_SYS_RAWIO: u64 = 17;

/// Why a new program has no space.
#[derive(Debug)]
pub(super) enum ImportError {
    /// The host did not say what is mapped.
    Host(io::Error),
    /// What exec has mapped exceeds a limit.
    Limit {
        /// The refusal.
        refusal: Refusal,
        /// What the program has mapped altogether: reserved and committed, in bytes.
        needed: Needed,
    },
}

/// What a program has mapped before its first instruction, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needed {
    pub(super) reserved: u64,
    pub(super) committed: u64,
    /// A count.
    pub(super) regions: u64,
}

/// The space of `tid`, which has just executed a program.
pub(super) fn import(
    tid: Tid,
    account: Account,
    policy: &Policy,
    files: &mut FileTable,
    known: &dyn Fn(&MapsEntry) -> Option<Region>,
) -> Result<PageManager<TracedProvider>, ImportError> {
    let entries = proc_maps::read(tid).map_err(ImportError::Host)?;
    let mut provider = TracedProvider::default();
    provider.read_by(tid);
    let config = config(tid, &entries, account, policy).map_err(ImportError::Host)?;
    let task_end = config.layout.task_end;
    let mut manager = PageManager::new(config, provider);
    for entry in entries.iter().filter(|entry| entry.range.end() <= task_end) {
        manager
            .import(entry.range, known(entry).unwrap_or_else(|| region(entry, files)))
            .map_err(|refusal| ImportError::Limit { refusal, needed: needed(&entries, task_end) })?;
    }
    Ok(manager)
}

fn needed(entries: &[MapsEntry], task_end: VirtAddr) -> Needed {
    let mut needed = Needed::default();
    for entry in entries.iter().filter(|entry| entry.range.end() <= task_end) {
        needed.regions += 1;
        needed.reserved += entry.range.bytes();
        if entry.prot.contains(Prot::WRITE) && !entry.shared {
            needed.committed += entry.range.bytes();
        }
    }
    needed
}

/// The region that a line stands for.
pub(super) fn region(entry: &MapsEntry, files: &mut FileTable) -> Region {
    let mut region = Region::anonymous(entry.prot);
    region.flags.set(RegionFlags::SHARED, entry.shared);
    let kind = if entry.is_special() {
        region.flags |= RegionFlags::DONT_EXPAND;
        region.flags.set(RegionFlags::SEALED, seals_its_own());
        if entry.name != "[vdso]" {
            region.flags |= RegionFlags::PFN_MAP | RegionFlags::DONT_DUMP;
            region.prot_max = Prot::READ;
        }
        ObjectKind::Special
    } else if entry.inode != 0 || entry.device != 0 {
        ObjectKind::File(FileId { device: entry.device, inode: entry.inode })
    } else {
        let is_stack = entry.name == "[stack]";
        region.flags.set(RegionFlags::GROWS_DOWN, is_stack);
        return region;
    };
    region.delta = (entry.offset >> PAGE_SHIFT).wrapping_sub(entry.range.first_page());
    region.backing = Backing::Object(match kind {
        ObjectKind::File(_) => files.intern(kind, &entry.name, &entry.name),
        _ => MemoryObject::new(kind, entry.name.clone()),
    });
    region
}

fn config(tid: Tid, entries: &[MapsEntry], account: Account, policy: &Policy) -> io::Result<SpaceConfig> {
    Ok(SpaceConfig {
        layout: layout(tid, entries),
        brk: program_break(tid, entries)?,
        limits: limits(tid)?,
        privileges: privileges(tid)?,
        regions_max: number_in("/proc/sys/vm/max_map_count").unwrap_or(65_530),
        features: features(),
        policy: policy.clone(),
        account,
    })
}

/// The number that a file of the host holds.
pub(crate) fn number_in(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn layout(tid: Tid, entries: &[MapsEntry]) -> Layout {
    let personality = fs::read_to_string(format!("/proc/{tid}/personality")).unwrap_or_default();
    let personality = u64::from_str_radix(personality.trim(), 16).unwrap_or(0);
    let is_legacy =
        personality & ADDR_COMPAT_LAYOUT != 0 || number_in("/proc/sys/vm/legacy_va_layout").is_some_and(|on| on != 0);
    let task_end = VirtAddr::new(TASK_END);
    let lowest_legacy = VirtAddr::new(TASK_END / 3).page_up().unwrap_or(task_end);
    let stack = entries.iter().find(|entry| entry.name == "[stack]").map_or(task_end, |entry| entry.range.start());
    // The host puts what exec maps first right at the base of its searches.
    let below_stack = entries.iter().rev().map(|entry| entry.range.end()).find(|end| *end <= stack);
    let above_third = entries.iter().map(|entry| entry.range.start()).find(|start| *start >= lowest_legacy);
    let direction = if is_legacy { Direction::BottomUp } else { Direction::TopDown };
    let bottom_up_base = match above_third {
        Some(start) if is_legacy && start < stack => start,
        _ => lowest_legacy,
    };
    Layout {
        task_end,
        mmap_base: below_stack.unwrap_or(stack),
        bottom_up_base,
        direction,
        min_addr: lowest_hint(),
        min_fixed_addr: VirtAddr::new(number_in("/proc/sys/vm/mmap_min_addr").unwrap_or(0)),
    }
}

/// Where the host puts a mapping whose hint is the first page but one: the lowest that it gives without being
/// forced. A security module may raise it above the `mmap_min_addr` that can be read.
fn lowest_hint() -> VirtAddr {
    static LOWEST: OnceLock<u64> = OnceLock::new();
    let lowest = LOWEST.get_or_init(|| {
        let hint = std::ptr::without_provenance_mut(1 << PAGE_SHIFT);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a hint replaces nothing, and nobody knows of the new page.
        let page = unsafe { libc::mmap(hint, 1 << PAGE_SHIFT, libc::PROT_NONE, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return LOWEST_HINT_DEFAULT;
        }
        // SAFETY: the page was made above and holds nothing.
        let _ = unsafe { libc::munmap(page, 1 << PAGE_SHIFT) };
        page.addr() as u64
    });
    VirtAddr::new(*lowest)
}

/// What the host's kernel was built with, found out by asking for it where nothing is to be done.
pub(crate) fn features() -> Features {
    static KNOWN: OnceLock<Features> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let knows = |advice: &Advice| {
            // SAFETY: an advice about no bytes at all does nothing.
            unsafe { libc::madvise(std::ptr::null_mut(), 0, advice.raw()) == 0 }
        };
        let unknown = (0..ADVICES_END).filter_map(Advice::from_raw).filter(|advice| !knows(advice));
        let features = unknown.fold(Features::ALL, Features::without_advice);
        // SAFETY: to take the name from no bytes at all does nothing.
        let named = unsafe { libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, 0, 0, 0) };
        let features = if named == 0 { features } else { features.without_names() };
        if has_keys() { features } else { features.without_keys() }
    })
}

/// Whether the host seals what it maps for itself (`CONFIG_MSEAL_SYSTEM_MAPPINGS`): in this process as in every other.
fn seals_its_own() -> bool {
    static SEALED: OnceLock<bool> = OnceLock::new();
    *SEALED.get_or_init(|| {
        let mappings = smaps::read(std::process::id().cast_signed()).unwrap_or_default();
        let vdso = mappings.iter().find(|mapping| mapping.name == "[vdso]");
        vdso.is_some_and(|vdso| vdso.flags.iter().any(|flag| flag == "sl"))
    })
}

/// Whether the processor has protection keys, found out by taking one and giving it back.
fn has_keys() -> bool {
    // SAFETY: plain numbers. The new key allows everything and is used for no memory.
    let key = unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, 0) };
    // SAFETY: plain numbers; the key was made above and nobody else knows of it.
    key >= 0 && unsafe { libc::syscall(libc::SYS_pkey_free, key) } == 0
}

/// What the first program has been given by this process, whose child it is (`PR_GET_MDWE`).
pub(super) fn first_attributes() -> Attributes {
    // SAFETY: only asks.
    let flags = unsafe { libc::prctl(PR_GET_MDWE, 0, 0, 0, 0) };
    let mdwe = u64::try_from(flags).map_or(MdweFlags::empty(), MdweFlags::from_bits_retain);
    Attributes::new(mdwe.inherited(), features())
}

/// Fields of /proc/PID/stat, numbered as in proc(5).
fn stat_fields(tid: Tid) -> io::Result<impl Fn(usize) -> u64> {
    let text = fs::read(format!("/proc/{tid}/stat"))?;
    // The name, field 2, may hold anything; nothing after it holds a parenthesis.
    let after_name = text.iter().rposition(|byte| *byte == b')').map_or(text.len(), |at| at + 1);
    let rest = String::from_utf8_lossy(&text[after_name..]).into_owned();
    Ok(move |number: usize| {
        rest.split_ascii_whitespace().nth(number - 3).and_then(|field| field.parse().ok()).unwrap_or(0)
    })
}

fn program_break(tid: Tid, entries: &[MapsEntry]) -> io::Result<Break> {
    let field = stat_fields(tid)?;
    let (start_data, end_data, start_brk) = (field(45), field(46), VirtAddr::new(field(47)));
    // There is no heap yet after exec; where it ends within its last page nobody tells.
    let heap = entries.iter().rev().find(|entry| entry.name == "[heap]");
    let current = heap.map_or(start_brk, |entry| entry.range.end());
    Ok(Break { start: start_brk, current, data_bytes: end_data.saturating_sub(start_data) })
}

/// The limits of a process, as they are now.
pub(crate) fn limits(tid: Tid) -> io::Result<ResourceLimits> {
    let both = |resource| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a null pointer says that nothing is set; `limit` is alive and has the type of a limit.
        let result = unsafe { libc::prlimit(tid, resource, std::ptr::null(), &raw mut limit) };
        if result == 0 { Ok((limit.rlim_cur, limit.rlim_max)) } else { Err(io::Error::last_os_error()) }
    };
    let (data, data_max) = both(libc::RLIMIT_DATA)?;
    Ok(ResourceLimits {
        address_space: both(libc::RLIMIT_AS)?.0,
        data,
        data_max,
        stack: both(libc::RLIMIT_STACK)?.0,
        locked: both(libc::RLIMIT_MEMLOCK)?.0,
    })
}

/// What the process may do beyond the ordinary. Capabilities in a namespace of its own count for nothing, and no
/// guest is let take frames from the whole machine, whatever it may do elsewhere.
pub(crate) fn privileges(tid: Tid) -> io::Result<Privileges> {
    let status = fs::read_to_string(format!("/proc/{tid}/status"))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).map_or("", str::trim);
    let effective = u64::from_str_radix(effective, 16).unwrap_or(0);
    let namespace = fs::read_link(format!("/proc/{tid}/ns/user"))?;
    let mut privileges = Privileges::empty();
    if namespace.as_os_str() == FIRST_USER_NAMESPACE {
        privileges.set(Privileges::MAP_LOW, effective & (1 << CAP_SYS_RAWIO) != 0);
        privileges.set(Privileges::LOCK, effective & (1 << CAP_IPC_LOCK) != 0);
    }
    Ok(privileges)
}
