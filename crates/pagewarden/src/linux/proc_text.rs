//! The text of `/proc/PID/maps` and `/proc/PID/smaps` (`fs/proc/task_mmu.c` of Linux 6.18), made from a map of regions.
//!
//! Everything that a region says comes from the map; what is resident comes from the platform, region by region, as
//! a [`PageUsage`]. Nothing is allocated.
//!
//! Differs from Linux where a region does not say it:
//! * the device and inode of shared anonymous memory and of segments are those of [`Landmarks::memory_device`] and,
//!   for segments, the identifier; shared anonymous memory has inode 0, and no name of its own if it was given one;
//! * flags of `VmFlags` for what is the kernel's own: `mm` and `ar` (pages of devices and of the vdso), `sd` (soft
//!   dirty), `um`, `uw` and `ui` (userfaultfd), `ht` (huge pages, which there are none of), `ss` (shadow stacks);
//! * `ac` stays where Linux takes it from memory that becomes read-only before it was ever touched.

use core::fmt::{self, Write};

use crate::addr::{PAGE_SHIFT, PageRange, VirtAddr};
use crate::object::{FileId, ObjectKind};
use crate::prot::Prot;
use crate::region::{Region, RegionFlags};
use crate::vmmap::{Entry, Vmmap};

/// Where the name begins, if what is before it is not longer.
const NAME_COLUMN: usize = 73;
/// Device 0:1, which the kernel's own memory file system gets first.
const MEMORY_DEVICE: u64 = 1;
/// What a page has in KiB.
const PAGE_KIB: u64 = 4;

/// What is known of an address space besides its map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Landmarks {
    /// Where the heap starts (`mm->start_brk`).
    pub heap_start: VirtAddr,
    /// The program break (`mm->brk`).
    pub heap_end: VirtAddr,
    /// An address in the stack of the first thread (`mm->start_stack`); 0 if there is none.
    pub stack: VirtAddr,
    /// The device of memory that is a file without a name.
    pub memory_device: u64,
    /// Whether regions show their protection key.
    pub keys: Keys,
}

/// Whether the processor has protection keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keys {
    /// It has none.
    #[default]
    Absent,
    /// It has, and `ProtectionKey` is shown.
    Present,
}

impl Default for Landmarks {
    /// No heap, no stack, no keys.
    fn default() -> Self {
        let nowhere = VirtAddr::new(0);
        let (heap_start, heap_end, stack) = (nowhere, nowhere, nowhere);
        Self { heap_start, heap_end, stack, memory_device: MEMORY_DEVICE, keys: Keys::Absent }
    }
}

/// What of a region is resident, in KiB, by the names of smaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "proc_pid_smaps(5) says what each is")]
pub struct PageUsage {
    pub rss: u64,
    pub pss: u64,
    pub pss_dirty: u64,
    pub shared_clean: u64,
    pub shared_dirty: u64,
    pub private_clean: u64,
    pub private_dirty: u64,
    pub referenced: u64,
    pub anonymous: u64,
    pub ksm: u64,
    pub lazy_free: u64,
    pub anon_huge_pages: u64,
    pub shmem_pmd_mapped: u64,
    pub file_pmd_mapped: u64,
    pub shared_hugetlb: u64,
    pub private_hugetlb: u64,
    pub swap: u64,
    pub swap_pss: u64,
    pub locked: u64,
    /// 1 if huge pages may be used, else 0.
    pub thp_eligible: u64,
}

/// Counts what is written, so that names can be lined up.
struct Counted<'a> {
    out: &'a mut dyn Write,
    count: usize,
}

impl Write for Counted<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.count += text.len();
        self.out.write_str(text)
    }
}

/// Writes the text of `/proc/PID/maps`.
///
/// # Errors
/// Those of `out`.
pub fn write_maps(out: &mut dyn Write, map: &Vmmap, landmarks: &Landmarks) -> fmt::Result {
    map.iter().try_for_each(|entry| write_line(out, &entry, landmarks))
}

/// Writes the text of `/proc/PID/smaps`; `usage` says what of a region is resident.
///
/// # Errors
/// Those of `out`.
pub fn write_smaps(
    out: &mut dyn Write,
    map: &Vmmap,
    landmarks: &Landmarks,
    usage: &mut dyn FnMut(PageRange, &Region) -> PageUsage,
) -> fmt::Result {
    map.iter().try_for_each(|entry| {
        write_line(out, &entry, landmarks)?;
        write_usage(out, entry.range, &usage(entry.range, entry.region))?;
        if landmarks.keys == Keys::Present {
            writeln!(out, "ProtectionKey:  {:8}", entry.region.key.number())?;
        }
        write_flags(out, entry.region)
    })
}

/// One line of maps (`show_map_vma`).
pub(crate) fn write_line(out: &mut dyn Write, entry: &Entry<'_>, landmarks: &Landmarks) -> fmt::Result {
    let Entry { range, region } = entry;
    let mut line = Counted { out, count: 0 };
    let sharing = if region.is_shared() { 's' } else { 'p' };
    let file = file_of(region, landmarks);
    let offset = file.map_or(0, |_| region.page_offset(range.start()) << PAGE_SHIFT);
    let FileId { device, inode } = file.unwrap_or(FileId { device: 0, inode: 0 });
    // As the C library takes device numbers apart, which a kernel's own are never too large for.
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    let (start, end) = (range.start().as_u64(), range.end().as_u64());
    write!(line, "{start:08x}-{end:08x} {}{sharing} {offset:08x} {major:02x}:{minor:02x} {inode} ", region.prot)?;
    write_name(&mut line, entry, landmarks)?;
    out.write_char('\n')
}

/// The file that the kernel has behind the region.
fn file_of(region: &Region, landmarks: &Landmarks) -> Option<FileId> {
    let device = landmarks.memory_device;
    match region.object()?.kind() {
        ObjectKind::File(file) | ObjectKind::Device(file) | ObjectKind::ZeroDevice(file) | ObjectKind::Memfd(file) => {
            Some(*file)
        }
        ObjectKind::SharedAnonymous => Some(FileId { device, inode: 0 }),
        ObjectKind::SysV { id, .. } => Some(FileId { device, inode: id.cast_unsigned().into() }),
        ObjectKind::NamedAnonymous | ObjectKind::Special | ObjectKind::Capability => None,
    }
}

/// The last column (`get_vma_name`).
fn write_name(line: &mut Counted<'_>, entry: &Entry<'_>, landmarks: &Landmarks) -> fmt::Result {
    let Entry { range, region } = entry;
    let is_heap = range.start() < landmarks.heap_end && range.end() > landmarks.heap_start;
    let is_stack = range.start() <= landmarks.stack && landmarks.stack <= range.end();
    let (before, name, after) = match region.object() {
        Some(object) if *object.kind() != ObjectKind::NamedAnonymous => ("", object.name(), ""),
        _ if is_heap => ("", "[heap]", ""),
        _ if is_stack => ("", "[stack]", ""),
        Some(object) => ("[anon:", object.name(), "]"),
        None => return Ok(()),
    };
    let padding = NAME_COLUMN.saturating_sub(line.count).max(1);
    write!(line, "{:padding$}{before}", "")?;
    for (index, part) in name.split('\n').enumerate() {
        // The only character that the kernel escapes in a path.
        line.write_str(if index > 0 { "\\012" } else { "" })?;
        line.write_str(part)?;
    }
    line.write_str(after)
}

/// The figures (`show_smap`).
fn write_usage(out: &mut dyn Write, range: PageRange, usage: &PageUsage) -> fmt::Result {
    let figures = [
        ("Size:           ", range.bytes() >> 10),
        ("KernelPageSize: ", PAGE_KIB),
        ("MMUPageSize:    ", PAGE_KIB),
        ("Rss:            ", usage.rss),
        ("Pss:            ", usage.pss),
        ("Pss_Dirty:      ", usage.pss_dirty),
        ("Shared_Clean:   ", usage.shared_clean),
        ("Shared_Dirty:   ", usage.shared_dirty),
        ("Private_Clean:  ", usage.private_clean),
        ("Private_Dirty:  ", usage.private_dirty),
        ("Referenced:     ", usage.referenced),
        ("Anonymous:      ", usage.anonymous),
        ("KSM:            ", usage.ksm),
        ("LazyFree:       ", usage.lazy_free),
        ("AnonHugePages:  ", usage.anon_huge_pages),
        ("ShmemPmdMapped: ", usage.shmem_pmd_mapped),
        ("FilePmdMapped:  ", usage.file_pmd_mapped),
        ("Shared_Hugetlb: ", usage.shared_hugetlb),
    ];
    figures.iter().try_for_each(|(name, kib)| writeln!(out, "{name}{kib:8} kB"))?;
    writeln!(out, "Private_Hugetlb: {:7} kB", usage.private_hugetlb)?;
    let rest =
        [("Swap:           ", usage.swap), ("SwapPss:        ", usage.swap_pss), ("Locked:         ", usage.locked)];
    rest.iter().try_for_each(|(name, kib)| writeln!(out, "{name}{kib:8} kB"))?;
    writeln!(out, "THPeligible:    {:8}", usage.thp_eligible)
}

/// Two letters for each property, in the order of the kernel's bits (`show_smap_vma_flags`).
fn write_flags(out: &mut dyn Write, region: &Region) -> fmt::Result {
    let (now, most) = (region.prot, region.prot_max);
    // A shared mapping of what may not be written is one of a private kind to the kernel, unless a seal came later.
    let is_writable_file = most.contains(Prot::WRITE) || region.flags.contains(RegionFlags::WRITE_SEALED);
    let rights = [
        (now.contains(Prot::READ), "rd"),
        (now.contains(Prot::WRITE), "wr"),
        (now.contains(Prot::EXEC), "ex"),
        (region.is_shared() && is_writable_file, "sh"),
        (most.contains(Prot::READ), "mr"),
        (most.contains(Prot::WRITE), "mw"),
        (most.contains(Prot::EXEC), "me"),
    ];
    let properties = [
        (RegionFlags::SHARED, "ms"),
        (RegionFlags::GROWS_DOWN, "gd"),
        (RegionFlags::PFN_MAP, "pf"),
        (RegionFlags::LOCKED, "lo"),
        (RegionFlags::PFN_MAP, "io"),
        (RegionFlags::SEQUENTIAL, "sr"),
        (RegionFlags::RANDOM, "rr"),
        (RegionFlags::DONT_FORK, "dc"),
        (RegionFlags::DONT_EXPAND, "de"),
        (RegionFlags::LOCK_ON_FAULT, "lf"),
        (RegionFlags::COMMITTED, "ac"),
        (RegionFlags::NO_RESERVE, "nr"),
        (RegionFlags::SYNC, "sf"),
        (RegionFlags::WIPE_ON_FORK, "wf"),
        (RegionFlags::DONT_DUMP, "dd"),
        (RegionFlags::HUGE_PAGE, "hg"),
        (RegionFlags::NO_HUGE_PAGE, "nh"),
        (RegionFlags::MERGEABLE, "mg"),
        (RegionFlags::DROPPABLE, "dp"),
        (RegionFlags::SEALED, "sl"),
    ];
    out.write_str("VmFlags: ")?;
    let properties = properties.iter().map(|(property, letters)| (region.flags.contains(*property), *letters));
    for (_, letters) in rights.into_iter().chain(properties).filter(|(is_set, _)| *is_set) {
        write!(out, "{letters} ")?;
    }
    out.write_char('\n')
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;
    use crate::addr::PageCount;
    use crate::object::MemoryObject;
    use crate::region::Backing;

    fn text(page: u64, region: Region, landmarks: &Landmarks) -> (String, String) {
        let range = PageRange::from_pages(page, PageCount::new(2)).unwrap();
        let mut map = Vmmap::new(PageCount::ZERO);
        map.insert(range, region).unwrap();
        let (mut maps, mut smaps) = (String::new(), String::new());
        write_maps(&mut maps, &map, landmarks).unwrap();
        let usage = PageUsage { rss: 8, private_hugetlb: 1, thp_eligible: 1, ..PageUsage::default() };
        write_smaps(&mut smaps, &map, landmarks, &mut |_, _| usage).unwrap();
        assert!(smaps.starts_with(&maps));
        (maps, smaps)
    }

    fn of_object(kind: ObjectKind, name: &str) -> Region {
        let mut region = Region::anonymous(Prot::READ);
        region.backing = Backing::Object(MemoryObject::new(kind, name));
        region.delta = 0x10_u64.wrapping_sub(0x1000);
        region
    }

    #[test]
    fn lines_are_those_of_the_kernel() {
        let none = Landmarks::default();
        let line = |region| text(0x1000, region, &none).0;
        assert_eq!(line(Region::anonymous(Prot::all())), "01000000-01002000 rwxp 00000000 00:00 0 \n");
        let file = ObjectKind::File(FileId { device: 0xfe01, inode: 326_279 });
        assert_eq!(
            line(of_object(file, "/a b\nc (deleted)")),
            "01000000-01002000 r--p 00010000 fe:01 326279                             /a b\\012c (deleted)\n"
        );
        assert_eq!(
            line(of_object(ObjectKind::NamedAnonymous, "x")),
            "01000000-01002000 r--p 00000000 00:00 0                                  [anon:x]\n"
        );
        let segment = ObjectKind::SysV { id: 0x8001, pages: PageCount::new(2) };
        assert_eq!(
            line(of_object(segment, "/SYSV00000000 (deleted)")),
            "01000000-01002000 r--p 00010000 00:01 32769                              /SYSV00000000 (deleted)\n"
        );
    }

    #[test]
    fn a_long_line_has_two_spaces_before_its_name() {
        let file = ObjectKind::File(FileId { device: 0xfff_fefe, inode: u64::MAX });
        let mut region = of_object(file, "/a");
        region.delta = 0;
        let (maps, _) = text(0x7_ffff_f000, region, &Landmarks::default());
        assert_eq!(maps, "7fffff000000-7fffff002000 r--p 7fffff000000 ffe:fffe 18446744073709551615  /a\n");
    }

    #[test]
    fn heap_and_stack_come_before_names_but_not_before_files() {
        let at = |page: u64| VirtAddr::new(page << 12);
        let heap = Landmarks { heap_start: at(0x1001), heap_end: at(0x1001 + 9), ..Landmarks::default() };
        let stack = Landmarks { stack: at(0x1001), ..Landmarks::default() };
        let ends_with = |region: Region, landmarks: &Landmarks, name: &str| {
            let (maps, _) = text(0x1000, region, landmarks);
            assert!(maps.ends_with(name), "{maps}");
        };
        ends_with(Region::anonymous(Prot::READ), &heap, " [heap]\n");
        ends_with(of_object(ObjectKind::NamedAnonymous, "x"), &heap, " [heap]\n");
        ends_with(of_object(ObjectKind::NamedAnonymous, "x"), &stack, " [stack]\n");
        ends_with(of_object(ObjectKind::Memfd(FileId { device: 1, inode: 2 }), "/memfd:x"), &heap, " /memfd:x\n");
    }

    #[test]
    fn flags_are_in_the_order_of_their_bits() {
        let mut region = Region::anonymous(Prot::READ | Prot::WRITE);
        region.flags = RegionFlags::all() - RegionFlags::SHARED - RegionFlags::FIXED;
        let landmarks = Landmarks { keys: Keys::Present, ..Landmarks::default() };
        let (_, smaps) = text(0x1000, region, &landmarks);
        let end = "THPeligible:           1\nProtectionKey:         0\n\
                   VmFlags: rd wr mr mw me gd pf lo io sr rr dc de lf ac nr sf wf dd hg nh mg dp sl \n";
        assert!(smaps.ends_with(end), "{smaps}");
        assert!(smaps.contains("Size:                  8 kB\nKernelPageSize:        4 kB\n"));
        assert!(smaps.contains("Private_Hugetlb:       1 kB\nSwap:                  0 kB\n"));
    }

    #[test]
    fn a_shared_mapping_of_what_cannot_be_written_is_not_quite_shared() {
        let mut region = Region::anonymous(Prot::READ);
        region.flags = RegionFlags::SHARED;
        let flags = |region: &Region| {
            let (_, smaps) = text(0x1000, region.clone(), &Landmarks::default());
            String::from(smaps.lines().last().unwrap())
        };
        assert_eq!(flags(&region), "VmFlags: rd sh mr mw me ms ");
        region.prot_max.remove(Prot::WRITE);
        assert_eq!(flags(&region), "VmFlags: rd mr me ms ");
        region.flags |= RegionFlags::WRITE_SEALED;
        assert_eq!(flags(&region), "VmFlags: rd sh mr me ms ");
    }
}
