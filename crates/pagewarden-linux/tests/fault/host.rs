//! The host: mappings, limits and the list of regions.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use pagewarden::linux::{MapSource, MmapRequest, OpenFile};
use pagewarden::{PAGE_SHIFT, PageRange, Prot};
use pagewarden_linux::proc_maps;

/// What mappings of this process are made from.
pub(crate) struct Host {
    file: OwnedFd,
    open_file: OpenFile,
    /// Where a hint of the lowest page leads.
    pub(crate) lowest: u64,
    /// `vm.mmap_min_addr`.
    pub(crate) lowest_fixed: u64,
    pub(crate) stack_limit: u64,
    pub(crate) lock_limit: u64,
    pub(crate) has_keys: bool,
}

/// A region as `/proc/PID/maps` shows it, equal neighbours merged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub(crate) range: PageRange,
    pub(crate) prot: Prot,
    pub(crate) is_shared: bool,
    /// In pages.
    pub(crate) offset: u64,
    pub(crate) is_file: bool,
}

/// One line for each run of equal neighbours.
pub(crate) fn merge(lines: impl Iterator<Item = Line>) -> Vec<Line> {
    let mut merged: Vec<Line> = Vec::new();
    for line in lines {
        if let Some(last) = merged.last_mut()
            && last.range.end() == line.range.start()
            && (last.prot, last.is_shared, last.is_file) == (line.prot, line.is_shared, line.is_file)
            && (!line.is_shared && !line.is_file || last.offset + last.range.pages().get() == line.offset)
        {
            last.range = PageRange::new(last.range.start(), line.range.end()).unwrap();
        } else {
            merged.push(line);
        }
    }
    merged
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

impl Host {
    pub(crate) fn new(file_pages: u64) -> Self {
        // SAFETY: the name ends with a zero.
        let fd = unsafe { libc::memfd_create(c"fault".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: the kernel has just made this descriptor, and nobody else has it.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        let file = std::fs::File::from(file);
        file.set_len(file_pages << PAGE_SHIFT).unwrap();
        let status = std::os::unix::fs::MetadataExt::dev(&file.metadata().unwrap());
        let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        let lowest_fixed = std::fs::read_to_string("/proc/sys/vm/mmap_min_addr").unwrap();
        Self {
            open_file: super::open_file(status, inode),
            file: file.into(),
            lowest: lowest_hint(),
            lowest_fixed: lowest_fixed.trim().parse().unwrap(),
            stack_limit: soft_limit(libc::RLIMIT_STACK),
            lock_limit: soft_limit(libc::RLIMIT_MEMLOCK),
            has_keys: std::fs::read_to_string("/proc/cpuinfo").unwrap().contains(" ospke"),
        }
    }

    pub(crate) fn open_file(&self) -> OpenFile {
        self.open_file.clone()
    }

    pub(crate) fn map(&self, call: &MmapRequest) -> Result<u64, i32> {
        let [prot, flags] = [call.prot, call.flags.bits()].map(|word| i32::try_from(word).unwrap());
        let fd = if matches!(call.source, MapSource::File(_)) { self.file.as_raw_fd() } else { -1 };
        let (addr, len) = (call.addr as *mut libc::c_void, usize::try_from(call.len).unwrap());
        // SAFETY: nothing of this program lies in the windows, where all calls map.
        let mapped = unsafe { libc::mmap(addr, len, prot, flags, fd, 0) };
        if mapped == libc::MAP_FAILED { Err(errno()) } else { Ok(mapped as u64) }
    }

    pub(crate) fn protect(&self, addr: u64, len: u64, prot: u64) -> Result<(), i32> {
        let (len, prot) = (usize::try_from(len).unwrap(), i32::try_from(prot).unwrap());
        // SAFETY: nothing of this program lies in the windows.
        let failed = unsafe { libc::mprotect(addr as *mut libc::c_void, len, prot) };
        if failed == 0 { Ok(()) } else { Err(errno()) }
    }

    pub(crate) fn unmap(&self, addr: u64, len: u64) {
        // SAFETY: nothing of this program lies in the windows.
        let failed = unsafe { libc::munmap(addr as *mut libc::c_void, usize::try_from(len).unwrap()) };
        assert_eq!(failed, 0);
    }

    /// The regions in the window of `pages` pages at `start`.
    pub(crate) fn lines(&self, start: u64, pages: u64) -> Vec<Line> {
        let end = start + (pages << PAGE_SHIFT);
        let entries = proc_maps::read(std::process::id().cast_signed()).unwrap();
        let here = entries.into_iter().filter(|entry| (start..end).contains(&entry.range.start().as_u64()));
        merge(here.map(|entry| Line {
            range: entry.range,
            prot: entry.prot,
            is_shared: entry.shared,
            offset: if entry.inode == 0 { 0 } else { entry.offset >> PAGE_SHIFT },
            is_file: entry.name.starts_with("/memfd:"),
        }))
    }

    pub(crate) fn limit(&self, resource: libc::__rlimit_resource_t, bytes: u64) {
        let mut limit = limits(resource);
        limit.rlim_cur = bytes.min(limit.rlim_max);
        // SAFETY: the kernel reads a whole limit.
        let failed = unsafe { libc::setrlimit(resource, &raw const limit) };
        assert_eq!(failed, 0);
    }

    pub(crate) fn lift_limits(&self) {
        self.limit(libc::RLIMIT_AS, u64::MAX);
        self.limit(libc::RLIMIT_STACK, self.stack_limit);
        self.limit(libc::RLIMIT_MEMLOCK, self.lock_limit);
    }

    /// What this process has mapped altogether.
    pub(crate) fn virtual_bytes(&self) -> u64 {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap() << PAGE_SHIFT
    }
}

fn lowest_hint() -> u64 {
    let (hint, flags) = (0x1000 as *mut libc::c_void, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a hint replaces nothing.
    let page = unsafe { libc::mmap(hint, 0x1000, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: the page was made above and holds nothing.
    let failed = unsafe { libc::munmap(page, 0x1000) };
    assert_eq!(failed, 0);
    page as u64
}

fn limits(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes a whole limit.
    let failed = unsafe { libc::getrlimit(resource, &raw mut limit) };
    assert_eq!(failed, 0);
    limit
}

fn soft_limit(resource: libc::__rlimit_resource_t) -> u64 {
    limits(resource).rlim_cur
}

pub(crate) fn drop_capabilities() {
    // Version 3 of the interface, this process; three empty sets in two halves.
    let header = [0x2008_0522_u32, 0];
    let sets = [0_u32; 6];
    // SAFETY: the kernel reads the header and the sets, which have the sizes of version 3.
    let failed = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(failed, 0);
}
