//! mmap(2): `mm/mmap.c:do_mmap` and `mm/vma.c:mmap_region` of Linux 6.18, in their order of checks.
//!
//! Differs from Linux: huge-page pools (`MAP_HUGETLB`) are always empty, so the answer is `ENOMEM` once all
//! other arguments are good.

use alloc::sync::Arc;

use super::mdwe;
use super::overcommit::Overcommit;
use super::place::{HugeAlignment, PlaceRequest, Placement, find};
use super::plan::{Draft, Plan, Refusal, check_modifiable};
use super::space::{Space, State, Totals, parts};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, PageCount, PageRange, round_up};
use crate::error::Errno;
use crate::ledger::Resource;
use crate::linux::{FileTraits, MapFlags, MapSource, MmapRequest, OpenFile, prot_from_word};
use crate::object::{MemoryObject, ObjectKind};
use crate::prot::Prot;
use crate::provider::{Op, Populate, Target};
use crate::region::{Backing, Region, RegionFlags};

/// Flags that every file accepts with `MAP_SHARED_VALIDATE` (`LEGACY_MAP_MASK`).
const VALIDATED: MapFlags = MapFlags::TYPE
    .union(MapFlags::FIXED)
    .union(MapFlags::ANONYMOUS)
    .union(MapFlags::LOW_2G)
    .union(MapFlags::ABOVE_4G)
    .union(MapFlags::GROWS_DOWN)
    .union(MapFlags::DENY_WRITE)
    .union(MapFlags::EXECUTABLE)
    .union(MapFlags::LOCKED)
    .union(MapFlags::NO_RESERVE)
    .union(MapFlags::POPULATE)
    .union(MapFlags::NON_BLOCK)
    .union(MapFlags::STACK)
    .union(MapFlags::HUGE_TLB)
    .union(MapFlags::UNINITIALIZED)
    .union(MapFlags::from_bits_retain(HUGE_SIZES));
const HUGE_SIZE_SHIFT: u32 = 26;
const HUGE_SIZE_MASK: u64 = 0x3f;
/// `MAP_HUGE_2MB | MAP_HUGE_1GB`.
const HUGE_SIZES: u64 = 0x1f << HUGE_SIZE_SHIFT;

/// What a seal against writing means for a shared mapping of a file that is open for writing: it is not writable and
/// never will be (`mm/memfd.c:check_write_seal`).
pub(super) fn check_write_seal(region: &mut Region) -> Result<(), Errno> {
    if !region.is_shared() || !region.prot_max.contains(Prot::WRITE) {
        return Ok(());
    }
    if region.prot.contains(Prot::WRITE) {
        return Err(Errno::Perm);
    }
    region.prot_max.remove(Prot::WRITE);
    region.flags |= RegionFlags::WRITE_SEALED;
    Ok(())
}

/// What `call` does to `space`.
pub(super) fn plan(space: &Space, call: &MmapRequest) -> Result<Plan, Refusal> {
    let huge_page = huge_page_size(call)?;
    let call = &with_huge_file(call, huge_page)?;
    let range = choose_range(space, call, huge_page)?;
    let mut region = new_region(space, call, range)?;
    if let Some(page) = huge_page {
        // Huge pages come out of a pool of their own: nothing is asked for.
        check_room(space, &space.state, range, &region)?;
        let errno = if call.offset.is_multiple_of(page) { Errno::NoMem } else { Errno::Inval };
        return refuse_after_making_room(space, range, errno.into());
    }
    let is_fixed = call.flags.contains(MapFlags::FIXED) && !call.flags.contains(MapFlags::FIXED_NO_REPLACE);
    let target = if is_fixed && !space.state.map.is_free(range) { Target::Replace } else { Target::Vacant };
    let mut draft = Draft::new(space);
    if call.prot == Prot::EXEC.bits().into() {
        region.key = draft.next.attributes.keys.for_execute_only(space.config.features).unwrap_or_default();
    }
    // Shared anonymous memory is always new here, be it made with MAP_ANONYMOUS or by mapping /dev/zero.
    let mut asked = Ok(());
    if let Some(object) = region.object().filter(|object| *object.kind() == ObjectKind::SharedAnonymous) {
        let pages = if space.is_free_of_charge(&region) { PageCount::ZERO } else { range.pages() };
        draft.make_object(Arc::clone(object), pages);
        asked = draft.ask_for(pages.get(), region.flags);
    }
    let populate = match call.flags.intersection(MapFlags::POPULATE | MapFlags::NON_BLOCK) == MapFlags::POPULATE {
        true => Populate::Now,
        false => Populate::OnDemand,
    };
    place_region(&mut draft, range, region, target, populate)?;
    if let Err(refusal) = asked {
        return refuse_after_making_room(space, range, refusal);
    }
    draft.finish(Ok(range.start().as_u64()))
}

/// That there are no huge pages, or no memory for a shared object, the kernel finds out when it has made room for them
/// (`mm/vma.c:vms_abort_munmap_vmas`).
fn refuse_after_making_room(space: &Space, range: PageRange, refusal: Refusal) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(space);
    if !space.state.map.is_free(range) {
        draft.unmap(range)?;
    }
    draft.finish(Err(refusal))
}

/// Puts a checked region into the map and notes the operation; also for shmat.
pub(super) fn place_region(
    draft: &mut Draft<'_>,
    range: PageRange,
    region: Region,
    target: Target,
    populate: Populate,
) -> Result<(), Refusal> {
    // What mlockall(2) asks of all memory to come is asked of pages that cannot be locked too.
    let is_locked = (region.flags | draft.space.state.lock_future).contains(RegionFlags::LOCKED);
    let populate = if is_locked { Populate::Now } else { populate };
    let region = prepare(draft, range, region)?;
    draft.op(Op::Map { range, region: region.clone(), target, populate });
    draft.place(range, region, target)?;
    Ok(())
}

/// Whether there may be a mapping like `region` in place of all that `state` has in `range`. Gives the sums of what goes.
fn check_room(space: &Space, state: &State, range: PageRange, region: &Region) -> Result<Totals, Refusal> {
    mdwe::check(space, region.prot, region.prot)?;
    check_split(space, range)?;
    let mut replaced = Totals::default();
    for (part, region) in parts(&state.map, range) {
        check_modifiable(region)?;
        replaced.add(Totals::of(region, part.pages()));
    }
    let added = range.pages().get() - replaced.virtual_pages;
    if space.may_expand(&state.totals, region, added) { Ok(replaced) } else { Err(Errno::NoMem.into()) }
}

/// What is looked at when a mapping is made in place of all that is there (`mm/vma.c:__mmap_setup`). The region comes
/// back as it will be.
pub(super) fn prepare(draft: &mut Draft<'_>, range: PageRange, mut region: Region) -> Result<Region, Refusal> {
    let space = draft.space;
    let replaced = check_room(space, &draft.next, range, &region)?;
    if space.is_accountable(&region) {
        draft.ask_for(range.pages().get() - replaced.committed_pages, region.flags)?;
        region.flags |= RegionFlags::COMMITTED;
    }
    if region.flags.contains(RegionFlags::DROPPABLE) {
        region.flags -= RegionFlags::LOCKED | RegionFlags::LOCK_ON_FAULT;
    }
    draft.lock_errno(Errno::Again);
    Ok(region)
}

/// Refuses a hole in the middle of a region when there is no room for one region more.
pub(super) fn check_split(space: &Space, range: PageRange) -> Result<(), Refusal> {
    let map = &space.state.map;
    if (map.len() as u64) < space.config.regions_max {
        return Ok(());
    }
    let is_middle = map
        .get(range.start())
        .is_some_and(|entry| entry.range.start() < range.start() && range.end() < entry.range.end());
    if is_middle { Err(Errno::NoMem.into()) } else { Ok(()) }
}

/// Bytes in a page of the mapping, where huge ones are asked for (`mm/mmap.c:ksys_mmap_pgoff`).
fn huge_page_size(call: &MmapRequest) -> Result<Option<u64>, Errno> {
    match &call.source {
        MapSource::File(file) if file.traits.contains(FileTraits::HUGE_PAGES) => Ok(Some(2 << 20)),
        MapSource::File(_) if call.flags.contains(MapFlags::HUGE_TLB) => Err(Errno::Inval),
        MapSource::Anonymous if call.flags.contains(MapFlags::HUGE_TLB) => {
            match (call.flags.bits() >> HUGE_SIZE_SHIFT) & HUGE_SIZE_MASK {
                0 | 21 => Ok(Some(2 << 20)),
                30 => Ok(Some(1 << 30)),
                _ => Err(Errno::Inval),
            }
        }
        _ => Ok(None),
    }
}

/// The kernel backs anonymous huge pages with a file of its own, and treats the mapping as one of a file.
fn with_huge_file(call: &MmapRequest, huge_page: Option<u64>) -> Result<MmapRequest, Errno> {
    let mut call = call.clone();
    if huge_page.is_some() && matches!(call.source, MapSource::Anonymous) {
        let object = MemoryObject::try_new(ObjectKind::NamedAnonymous, "anon_hugepage", None)?;
        let traits = FileTraits::READABLE | FileTraits::WRITABLE | FileTraits::REGULAR | FileTraits::HUGE_PAGES;
        call.source = MapSource::File(OpenFile { object, traits });
    }
    Ok(call)
}

/// Where the mapping goes (`do_mmap` up to the lock checks).
fn choose_range(space: &Space, call: &MmapRequest, huge_page: Option<u64>) -> Result<PageRange, Refusal> {
    let page = huge_page.unwrap_or(PAGE_SIZE);
    let len = round_up(call.len, huge_page.unwrap_or(1));
    if len == 0 {
        return Err(Errno::Inval.into());
    }
    let is_fixed = call.flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NO_REPLACE);
    let addr = if is_fixed { call.addr } else { round_hint(space, call.addr) };
    let len = round_up(len, PAGE_SIZE);
    if len == 0 {
        return Err(Errno::NoMem.into());
    }
    if space.state.map.len() as u64 > space.config.regions_max {
        return Err(Errno::NoMem.into());
    }
    let placement = match call.flags {
        _ if is_fixed => Placement::Fixed,
        flags if flags.contains(MapFlags::LOW_2G) => Placement::Low2G,
        flags if flags.contains(MapFlags::ABOVE_4G) => Placement::Above4G,
        _ => Placement::Anywhere,
    };
    if is_fixed && huge_page.is_some() && len <= space.task_end() && !addr.is_multiple_of(page) {
        return Err(Errno::Inval.into());
    }
    let alignment = huge_alignment(call);
    let offset = if matches!(call.source, MapSource::File(_)) { call.offset } else { 0 };
    let start = find(space, &PlaceRequest { addr, len, offset, placement, alignment })?;
    let range = PageRange::from_len(start, len).ok_or(Errno::NoMem)?;
    if call.flags.contains(MapFlags::FIXED_NO_REPLACE) && !space.state.map.is_free(range) {
        return Err(Errno::Exist.into());
    }
    Ok(range)
}

fn huge_alignment(call: &MmapRequest) -> HugeAlignment {
    match &call.source {
        MapSource::File(file) => HugeAlignment::of(&file.object),
        MapSource::Anonymous if call.flags.contains(MapFlags::SHARED) => HugeAlignment::Never,
        MapSource::Anonymous => HugeAlignment::WholeOnly,
    }
}

/// A hint below the lowest address is moved there (`mm/mmap.c:round_hint_to_min`).
fn round_hint(space: &Space, hint: u64) -> u64 {
    let hint = hint & !(PAGE_SIZE - 1);
    let min = space.config.layout.min_addr.as_u64();
    if hint != 0 && hint < min { min.next_multiple_of(PAGE_SIZE) } else { hint }
}

/// The region that the call asks for (`do_mmap` from the lock checks on).
fn new_region(space: &Space, call: &MmapRequest, range: PageRange) -> Result<Region, Refusal> {
    let mut region = Region::anonymous(prot_from_word(call.prot));
    for (flag, property) in [
        (MapFlags::GROWS_DOWN, RegionFlags::GROWS_DOWN),
        (MapFlags::LOCKED, RegionFlags::LOCKED),
        (MapFlags::STACK, RegionFlags::NO_HUGE_PAGE),
        (MapFlags::NO_RESERVE, RegionFlags::NO_RESERVE),
        (MapFlags::SYNC, RegionFlags::SYNC),
    ] {
        region.flags.set(property, call.flags.contains(flag));
    }
    if matches!(space.config.policy.overcommit, Overcommit::Never(_)) {
        region.flags -= RegionFlags::NO_RESERVE;
    }
    region.flags |= space.state.lock_future;
    if call.flags.contains(MapFlags::LOCKED) && !space.can_lock() {
        return Err(Errno::Perm.into());
    }
    if !space.may_lock(&space.state.totals, &region, range.pages().get()) {
        return Err(Errno::Again.into());
    }
    match &call.source {
        MapSource::Anonymous => anonymous_region(space, call, range, region),
        MapSource::File(file) => {
            check_offset(file, call.offset, range)?;
            file_region(call, file, range, region)
        }
    }
}

/// Refuses to map what no file can hold (`mm/mmap.c:file_mmap_ok`). Smaller limits of a file system are known
/// to the platform alone.
fn check_offset(file: &OpenFile, offset: u64, range: PageRange) -> Result<(), Errno> {
    let size_max = if file.traits.contains(FileTraits::REGULAR) { i64::MAX.unsigned_abs() } else { u64::MAX };
    let room = size_max.checked_sub(range.bytes()).ok_or(Errno::Overflow)?;
    if offset >> PAGE_SHIFT > room >> PAGE_SHIFT { Err(Errno::Overflow) } else { Ok(()) }
}

fn anonymous_region(
    space: &Space,
    call: &MmapRequest,
    range: PageRange,
    mut region: Region,
) -> Result<Region, Refusal> {
    let grows_down = region.flags.contains(RegionFlags::GROWS_DOWN);
    match call.flags & MapFlags::TYPE {
        MapFlags::PRIVATE => {}
        MapFlags::SHARED if grows_down => return Err(Errno::Inval.into()),
        MapFlags::SHARED => {
            let charge = space.config.account.empty_charge(Resource::Committed);
            let object = MemoryObject::shared_anonymous(range.pages(), charge)?;
            region.backing = Backing::Object(object);
            region.delta = range.first_page().wrapping_neg();
            region.flags |= RegionFlags::SHARED;
        }
        MapFlags::DROPPABLE => {
            if call.flags.intersects(MapFlags::LOCKED | MapFlags::HUGE_TLB) || grows_down {
                return Err(Errno::Inval.into());
            }
            region.flags |=
                RegionFlags::DROPPABLE | RegionFlags::NO_RESERVE | RegionFlags::WIPE_ON_FORK | RegionFlags::DONT_DUMP;
        }
        _ => return Err(Errno::Inval.into()),
    }
    Ok(region)
}

fn file_region(call: &MmapRequest, file: &OpenFile, range: PageRange, mut region: Region) -> Result<Region, Refusal> {
    let is_writable = file.traits.contains(FileTraits::WRITABLE);
    let kind = call.flags & MapFlags::TYPE;
    match kind {
        MapFlags::SHARED | MapFlags::SHARED_VALIDATE => {
            // MAP_SHARED drops the flags that files may refuse; only the validating form looks at them.
            let mut known = VALIDATED;
            known.set(MapFlags::SYNC, file.traits.contains(FileTraits::SYNC | FileTraits::REGULAR));
            if kind == MapFlags::SHARED_VALIDATE && !known.contains(call.flags) {
                return Err(Errno::OpNotSupp.into());
            }
            let is_append_only = file.traits.contains(FileTraits::APPEND_ONLY);
            if region.prot.contains(Prot::WRITE) && !is_writable || is_append_only && is_writable {
                return Err(Errno::Acces.into());
            }
            region.flags |= RegionFlags::SHARED;
            region.prot_max.set(Prot::WRITE, is_writable);
        }
        MapFlags::PRIVATE => {}
        _ => return Err(Errno::Inval.into()),
    }
    if !file.traits.contains(FileTraits::READABLE) {
        return Err(Errno::Acces.into());
    }
    if file.traits.contains(FileTraits::NO_EXEC) {
        if region.prot.contains(Prot::EXEC) {
            return Err(Errno::Perm.into());
        }
        region.prot_max.remove(Prot::EXEC);
    }
    if file.traits.contains(FileTraits::NOT_MAPPABLE) {
        return Err(Errno::NoDev.into());
    }
    if region.flags.contains(RegionFlags::GROWS_DOWN) {
        return Err(Errno::Inval.into());
    }
    if file.traits.contains(FileTraits::WRITE_SEALED) {
        check_write_seal(&mut region)?;
    }
    region.backing = Backing::Object(Arc::clone(&file.object));
    region.delta = (call.offset >> PAGE_SHIFT).wrapping_sub(range.first_page());
    Ok(region)
}
