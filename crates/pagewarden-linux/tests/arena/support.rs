//! A guest of an arena: its calls, its memory, and the comparison after each of them.

use pagewarden::{Errno, PAGE_SIZE};
use pagewarden_linux::arena::{Arena, ArenaOptions, Fork};

pub(crate) const PAGE: u64 = PAGE_SIZE;
pub(crate) const NONE: u64 = 0;
pub(crate) const READ: u64 = 1;
pub(crate) const RW: u64 = 3;
pub(crate) const PRIVATE: u64 = 0x22;
pub(crate) const SHARED: u64 = 0x21;
pub(crate) const FIXED: u64 = 0x10;
pub(crate) const MAY_MOVE: u64 = 1;
pub(crate) const MOVE_FIXED: u64 = 3;

/// An arena and what is called in it.
pub(crate) struct Guest {
    pub(crate) arena: Arena,
}

impl Guest {
    pub(crate) fn new(pages: u64) -> Self {
        Self::with(&ArenaOptions { size: pages * PAGE, ..ArenaOptions::default() })
    }

    pub(crate) fn at(address: u64, pages: u64) -> Self {
        Self::with(&ArenaOptions { size: pages * PAGE, address: Some(address), ..ArenaOptions::default() })
    }

    pub(crate) fn with(options: &ArenaOptions) -> Self {
        let guest = Self { arena: Arena::new(options).unwrap() };
        guest.agrees();
        guest
    }

    pub(crate) fn start(&self) -> u64 {
        self.arena.range().start().as_u64()
    }

    pub(crate) fn end(&self) -> u64 {
        self.arena.range().end().as_u64()
    }

    /// The manager's sums are right, and the host has what its map says.
    #[track_caller]
    pub(crate) fn agrees(&self) {
        self.arena.with_manager(|manager| manager.check_invariants());
        if let Err(words) = self.arena.verify() {
            panic!("{words}");
        }
    }

    /// Makes a call, and compares afterwards.
    #[track_caller]
    pub(crate) fn call(&self, number: libc::c_long, args: &[u64]) -> Result<u64, Errno> {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let answer = self.arena.syscall(number.cast_unsigned(), all);
        self.agrees();
        answer
    }

    #[track_caller]
    pub(crate) fn mmap(&self, addr: u64, pages: u64, prot: u64, flags: u64) -> Result<u64, Errno> {
        self.call(libc::SYS_mmap, &[addr, pages * PAGE, prot, flags, u64::MAX, 0])
    }

    #[track_caller]
    pub(crate) fn munmap(&self, addr: u64, pages: u64) -> Result<u64, Errno> {
        self.call(libc::SYS_munmap, &[addr, pages * PAGE])
    }

    #[track_caller]
    pub(crate) fn mprotect(&self, addr: u64, pages: u64, prot: u64) -> Result<u64, Errno> {
        self.call(libc::SYS_mprotect, &[addr, pages * PAGE, prot])
    }

    #[track_caller]
    pub(crate) fn mremap(&self, addr: u64, [old, new]: [u64; 2], flags: u64, to: u64) -> Result<u64, Errno> {
        self.call(libc::SYS_mremap, &[addr, old * PAGE, new * PAGE, flags, to])
    }

    #[track_caller]
    pub(crate) fn madvise(&self, addr: u64, pages: u64, advice: i32) -> Result<u64, Errno> {
        self.call(libc::SYS_madvise, &[addr, pages * PAGE, u64::from(advice.cast_unsigned())])
    }

    #[track_caller]
    pub(crate) fn brk(&self, addr: u64) -> u64 {
        self.call(libc::SYS_brk, &[addr]).unwrap()
    }
}

/// Stores a byte. The page must be writable.
pub(crate) fn store(addr: u64, byte: u8) {
    let at: *mut u8 = std::ptr::with_exposed_provenance_mut(usize::try_from(addr).unwrap());
    // SAFETY: the test has just mapped the page writable, and nobody has a reference to it.
    unsafe { at.write_volatile(byte) };
}

/// Loads a byte. The page must be readable.
pub(crate) fn load(addr: u64) -> u8 {
    let at: *const u8 = std::ptr::with_exposed_provenance(usize::try_from(addr).unwrap());
    // SAFETY: the test has just mapped the page readable, and nobody has a reference to it.
    unsafe { at.read_volatile() }
}

/// The host's mappings in the arena, as `/proc/self/maps` has them.
pub(crate) fn host_lines(guest: &Guest) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/maps").unwrap();
    text.lines().filter(|line| is_inside(guest, line)).map(str::to_owned).collect()
}

fn is_inside(guest: &Guest, line: &str) -> bool {
    let start = line.split_once('-').and_then(|(start, _)| u64::from_str_radix(start, 16).ok());
    start.is_some_and(|start| guest.start() <= start && start < guest.end())
}

/// The fields `key` of the host's smaps, of each mapping in the arena with its first line.
fn smaps(guest: &Guest, key: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut found = Vec::new();
    let mut head = None;
    for line in text.lines() {
        if line.split_once(' ').is_some_and(|(first, _)| first.contains('-')) {
            head = is_inside(guest, line).then(|| line.to_owned());
        } else if let (Some(head), Some(value)) = (&head, line.strip_prefix(key)) {
            found.push((head.clone(), value.trim().to_owned()));
        }
    }
    found
}

/// How much of the arena is in mappings that are locked.
pub(crate) fn locked_kilobytes(guest: &Guest) -> u64 {
    let sizes = smaps(guest, "Size:");
    let flags = smaps(guest, "VmFlags:");
    let locked = sizes.iter().zip(&flags).filter(|(_, (_, flags))| flags.split(' ').any(|flag| flag == "lo"));
    locked.map(|((_, size), _)| kilobytes(size)).sum()
}

/// How much of the arena is resident.
pub(crate) fn resident_kilobytes(guest: &Guest) -> u64 {
    smaps(guest, "Rss:").iter().map(|(_, size)| kilobytes(size)).sum()
}

fn kilobytes(size: &str) -> u64 {
    size.trim_end_matches(" kB").parse().unwrap()
}

/// What the host says of the mapping that holds `addr`.
pub(crate) fn flags_of(guest: &Guest, addr: u64) -> String {
    let holds = |head: &str| {
        let (start, rest) = head.split_once('-').unwrap();
        let end = rest.split_once(' ').unwrap().0;
        let hex = |digits| u64::from_str_radix(digits, 16).unwrap();
        hex(start) <= addr && addr < hex(end)
    };
    let flags = smaps(guest, "VmFlags:").into_iter().find(|(head, _)| holds(head)).unwrap().1;
    // Whether a page of the mapping may ever have had a guard changes nothing.
    flags.replace(" gu", "")
}

/// Runs `act` in a child, and fails if it does.
pub(crate) fn in_child(guest: &Guest, act: impl FnOnce()) {
    // SAFETY: the child ends by `_exit`. It allocates, and prints when it fails: the C library keeps its own locks in
    // order over fork, and a test that hangs on another fails by its timeout.
    match unsafe { guest.arena.fork() }.unwrap() {
        Fork::Child => {
            let is_good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).is_ok();
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(!is_good)) }
        }
        Fork::Parent(pid) => {
            let mut status = 0;
            // SAFETY: `status` is alive, and the child is ours.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!((waited, status), (pid, 0), "the child failed");
        }
    }
}
