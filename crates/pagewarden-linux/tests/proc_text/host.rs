//! The host: files to map, calls, and what this process itself has mapped.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use pagewarden::linux::{Advice, FileTraits, MapSource, OpenFile, Request};
use pagewarden::manager::{Break, Features, Layout, ResourceLimits, SpaceConfig};
use pagewarden::object::FileId;
use pagewarden::{
    Backing, Limits, MemoryObject, ObjectKind, PAGE_SHIFT, PageRange, Region, RegionFlags, ResourceLedger, VirtAddr,
};
use pagewarden_linux::proc_maps::MapsEntry;

use super::File;

pub(crate) struct Host {
    pub(crate) files: Vec<File>,
    pub(crate) features: Features,
    pub(crate) has_names: bool,
    /// Advices that set a property of regions.
    pub(crate) advices: Vec<i32>,
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

impl Host {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let open = |name: &str, is_writable: bool| {
            let path = directory.path().join(name);
            std::fs::write(&path, vec![0; 1 << 16]).unwrap();
            let file = std::fs::OpenOptions::new().read(true).write(is_writable).open(&path).unwrap();
            (file, format!("{} (deleted)", path.to_str().unwrap()))
        };
        let mut files: Vec<File> = [("a file", true), ("read only", false), ("with a\nnewline", true)]
            .iter()
            .map(|(name, is_writable)| {
                let (file, name) = open(name, *is_writable);
                known_file(file, &name, if *is_writable { WRITABLE } else { READABLE }, ObjectKind::File)
            })
            .collect();
        // SAFETY: the name ends with a zero.
        let fd = unsafe { libc::memfd_create(c"text".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: the kernel has just made this descriptor, and nobody else has it.
        let memfd = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        memfd.set_len(1 << 16).unwrap();
        files.push(known_file(memfd, "/memfd:text (deleted)", WRITABLE, ObjectKind::Memfd));
        drop(directory);
        let knows = |advice: i32| {
            // SAFETY: an advice about no bytes at all does nothing.
            unsafe { libc::madvise(std::ptr::null_mut(), 0, advice) == 0 }
        };
        let mut features = (0..128)
            .filter_map(Advice::from_raw)
            .filter(|advice| !knows(advice.raw()))
            .fold(Features::ALL, Features::without_advice);
        let has_keys = std::fs::read_to_string("/proc/cpuinfo").unwrap().contains(" ospke");
        if !has_keys {
            features = features.without_keys();
        }
        let option = (libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME);
        // SAFETY: no bytes at all are named.
        let has_names = unsafe { libc::prctl(option.0, option.1, 0_u64, 0_u64, c"x".as_ptr()) == 0 };
        let wanted = [0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];
        Self { files, features, has_names, advices: wanted.into_iter().filter(|advice| knows(*advice)).collect() }
    }

    /// Makes the call that `request` stands for.
    pub(crate) fn call(&self, request: &Request) -> Result<u64, i32> {
        let (number, args) = match request {
            Request::Mmap(call) => {
                let fd = match &call.source {
                    MapSource::Anonymous => u64::MAX,
                    MapSource::File(open) => {
                        let file = self.files.iter().find(|file| Arc::ptr_eq(&file.open.object, &open.object));
                        u64::try_from(file.unwrap().fd.as_raw_fd()).unwrap()
                    }
                };
                (libc::SYS_mmap, [call.addr, call.len, call.prot, call.flags.bits(), fd, call.offset])
            }
            Request::Munmap { addr, len } => (libc::SYS_munmap, [*addr, *len, 0, 0, 0, 0]),
            Request::Mprotect { addr, len, prot } => (libc::SYS_mprotect, [*addr, *len, *prot, 0, 0, 0]),
            Request::Madvise { addr, len, advice } => {
                (libc::SYS_madvise, [*addr, *len, u64::try_from(*advice).unwrap(), 0, 0, 0])
            }
            Request::Mlock { addr, len, flags } => (libc::SYS_mlock2, [*addr, *len, *flags, 0, 0, 0]),
            Request::Munlock { addr, len } => (libc::SYS_munlock, [*addr, *len, 0, 0, 0, 0]),
            Request::NameAnonymous { addr, len, name } => return name_memory(*addr, *len, name.as_deref()),
            other => panic!("{other:?}"),
        };
        let [a, b, c, d, e, f] = args;
        // SAFETY: nothing of this program lies in the window, where all requests are.
        let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
        if answer == -1 { Err(errno()) } else { Ok(answer.cast_unsigned()) }
    }

    pub(crate) fn unmap(&self, addr: u64, len: u64) {
        assert_eq!(self.call(&Request::Munmap { addr, len }), Ok(0));
    }

    /// Writes a zero to each page.
    pub(crate) fn touch(&self, range: PageRange) {
        for page in range.first_page()..range.end_page() {
            let byte = (page << PAGE_SHIFT) as *mut u8;
            // SAFETY: the manager has agreed with the host that this page is private and may be written; files are
            // long enough for every mapping.
            unsafe { byte.write_volatile(0) };
        }
    }
}

fn name_memory(addr: u64, len: u64, name: Option<&MemoryObject>) -> Result<u64, i32> {
    let name = name.map(|name| std::ffi::CString::new(name.name()).unwrap());
    let pointer = name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
    // SAFETY: the name ends with a zero; nothing of this program lies in the window.
    let answer = unsafe { libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, addr, len, pointer) };
    if answer == 0 { Ok(0) } else { Err(errno()) }
}

const READABLE: FileTraits = FileTraits::READABLE.union(FileTraits::REGULAR);
const WRITABLE: FileTraits = READABLE.union(FileTraits::WRITABLE);

fn known_file(file: std::fs::File, name: &str, traits: FileTraits, kind: fn(FileId) -> ObjectKind) -> File {
    let status = file.metadata().unwrap();
    let object = MemoryObject::new(kind(FileId { device: status.dev(), inode: status.ino() }), name);
    File { fd: file.into(), open: OpenFile { object, traits } }
}

/// A region of which nothing is known but its line; each file is one object.
pub(crate) fn region_of(entry: &MapsEntry, objects: &mut Vec<Arc<MemoryObject>>) -> Region {
    let mut region = Region::anonymous(entry.prot);
    region.flags.set(RegionFlags::SHARED, entry.shared);
    region.flags.set(RegionFlags::GROWS_DOWN, entry.name == "[stack]");
    if entry.inode != 0 {
        let id = FileId { device: entry.device, inode: entry.inode };
        let kind = ObjectKind::File(id);
        let known = objects.iter().find(|object| *object.kind() == kind && object.name() == entry.name).cloned();
        let object = known.unwrap_or_else(|| MemoryObject::new(kind, entry.name.as_str()));
        objects.push(Arc::clone(&object));
        region.backing = Backing::Object(object);
        region.delta = (entry.offset >> PAGE_SHIFT).wrapping_sub(entry.range.first_page());
    } else if !matches!(entry.name.as_str(), "" | "[heap]" | "[stack]") {
        region.backing = Backing::Object(MemoryObject::new(ObjectKind::Special, entry.name.as_str()));
    }
    region
}

pub(crate) fn config_of_this_process(features: Features) -> SpaceConfig {
    let _unlimited = u64::MAX;
    let status = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name: Vec<&str> = status.rsplit_once(") ").unwrap().1.split(' ').collect();
    // The break's start is field 47 of stat; two fields and a name are before these.
    let start_brk = after_name[44].parse().unwrap();
    // SAFETY: a break of 0 only asks.
    let brk = unsafe { libc::syscall(libc::SYS_brk, 0) }.cast_unsigned();
    SpaceConfig {
        // The stack of a process lies above this, wherever it is put at random.
        layout: Layout { mmap_base: VirtAddr::new(0x7000_0000_0000), ..Layout::X86_64 },
        brk: Break { start: VirtAddr::new(start_brk), current: VirtAddr::new(brk), data_bytes: 0 },
        limits: ResourceLimits { stack: u64::MAX, ..ResourceLimits::DEFAULT },
        features,
        ..SpaceConfig::new(Layout::X86_64, ResourceLedger::new(Limits::UNLIMITED).root().child(Limits::UNLIMITED))
    }
}
