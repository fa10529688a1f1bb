//! Files, memfds, shared memory, segments and names.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsRawFd;

use pagewarden::Errno;

use crate::support::{Guest, MAY_MOVE, MOVE_FIXED, PAGE, PRIVATE, READ, RW, SHARED, load, store};

const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;

/// A file of `pages` pages, each full of its number.
fn file(pages: u8) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    (0..pages).for_each(|page| file.write_all(&[page; 4096]).unwrap());
    file
}

impl Guest {
    #[track_caller]
    fn map_file(&self, file: &std::fs::File, pages: u64, flags: u64, page: u64) -> Result<u64, Errno> {
        let fd = i64::from(file.as_raw_fd()).cast_unsigned();
        self.call(libc::SYS_mmap, &[0, pages * PAGE, RW, flags, fd, page * PAGE])
    }
}

#[test]
fn files_are_mapped_moved_and_grown() {
    let guest = Guest::new(256);
    let file = file(8);
    for (flags, byte) in [(MAP_SHARED, 77), (MAP_PRIVATE, 78)] {
        let at = guest.map_file(&file, 2, flags, 1).unwrap();
        assert_eq!((load(at), load(at + PAGE)), (1, 2));
        store(at + PAGE + 5, byte);
        let to = guest.start() + 16 * PAGE;
        assert_eq!(guest.mremap(at, [2, 2], MOVE_FIXED, to), Ok(to));
        assert_eq!(guest.mremap(to, [2, 5], 0, 0), Ok(to), "grows in place");
        assert_eq!([0, 1, 2, 3, 4].map(|page| load(to + page * PAGE)), [1, 2, 3, 4, 5]);
        assert_eq!(load(to + PAGE + 5), byte, "what was written is there still");
        guest.mmap(to + 5 * PAGE, 1, READ, PRIVATE | 0x10).unwrap();
        let moved = guest.mremap(to, [5, 7], MAY_MOVE, 0).unwrap();
        assert_ne!(moved, to);
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|page| load(moved + page * PAGE)), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(load(moved + PAGE + 5), byte);
        assert_eq!(guest.munmap(guest.start(), 256), Ok(0));
    }
}

#[test]
fn a_descriptor_that_will_not_do_is_refused() {
    let guest = Guest::new(16);
    let pages = [0, PAGE, READ, MAP_PRIVATE];
    let with = |fd: i32| [&pages[..], &[i64::from(fd).cast_unsigned(), 0]].concat();
    assert_eq!(guest.call(libc::SYS_mmap, &with(-1)), Err(Errno::BadF));
    assert_eq!(guest.call(libc::SYS_mmap, &with(987_654)), Err(Errno::BadF));
    let folder = std::fs::File::open("/").unwrap();
    assert_eq!(guest.call(libc::SYS_mmap, &with(folder.as_raw_fd())), Err(Errno::NoDev));
}

#[test]
fn dev_zero_is_anonymous_memory() {
    let guest = Guest::new(64);
    let zero = std::fs::File::options().read(true).write(true).open("/dev/zero").unwrap();
    for flags in [MAP_SHARED, MAP_PRIVATE] {
        let at = guest.map_file(&zero, 3, flags, 0).unwrap();
        store(at, 1);
        assert_eq!(guest.munmap(at, 3), Ok(0));
    }
}

#[test]
fn shared_memory_grows_and_is_shared_still() {
    let guest = Guest::new(64);
    let at = guest.mmap(0, 2, RW, SHARED).unwrap();
    store(at + PAGE, 9);
    let second = guest.mremap(at, [0, 2], MAY_MOVE, 0).unwrap();
    assert_eq!(guest.munmap(at, 2), Ok(0));
    let to = guest.start();
    assert_eq!(guest.mremap(second, [2, 2], MOVE_FIXED, to), Ok(to));
    assert_eq!(guest.mremap(to, [2, 4], 0, 0), Ok(to), "the object has no more pages, the mapping has");
    assert_eq!(load(to + PAGE), 9);
}

#[test]
fn segments_come_and_go() {
    let guest = Guest::new(64);
    // SAFETY: plain numbers.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 3 * 4096, 0o600) };
    assert!(id >= 0);
    let arg = u64::from(id.cast_unsigned());
    let at = guest.call(libc::SYS_shmat, &[arg, 0, 0]).unwrap();
    let second = guest.call(libc::SYS_shmat, &[arg, 0, 0o10_000]).unwrap();
    store(at + PAGE, 6);
    assert_eq!(load(second + PAGE), 6);
    assert_eq!(guest.mprotect(second, 1, RW), Err(Errno::Acces));
    assert_eq!(guest.call(libc::SYS_shmdt, &[at]), Ok(0));
    assert_eq!(guest.call(libc::SYS_shmdt, &[at]), Err(Errno::Inval));
    assert_eq!(guest.call(libc::SYS_shmdt, &[second]), Ok(0));
    // SAFETY: plain numbers; nothing is attached any more.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    assert_eq!(guest.call(libc::SYS_shmat, &[arg, 0, 0]), Err(Errno::Inval));
}

#[test]
fn memory_has_names_and_loses_them() {
    let guest = Guest::new(16);
    let at = guest.mmap(0, 4, RW, PRIVATE).unwrap();
    let name = CString::new("heap of the guest").unwrap();
    let call = |addr, pages: u64, name: u64| {
        let option = u64::from(libc::PR_SET_VMA.unsigned_abs());
        guest.call(libc::SYS_prctl, &[option, 0, addr, pages * PAGE, name])
    };
    // SAFETY: to take the name from no bytes at all does nothing.
    if unsafe { libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, 0, 0, 0) } != 0 {
        // A host without names: so is the arena.
        return assert_eq!(call(at, 2, 0), Err(Errno::Inval));
    }
    assert_eq!(call(at, 2, name.as_ptr().expose_provenance() as u64), Ok(0));
    assert!(crate::support::host_lines(&guest).iter().any(|line| line.ends_with("[anon:heap of the guest]")));
    assert_eq!(guest.mremap(at, [2, 2], MOVE_FIXED, guest.start()), Ok(guest.start()));
    assert_eq!(guest.mremap(guest.start(), [2, 3], 0, 0), Ok(guest.start()), "the name grows along");
    assert_eq!(call(guest.start(), 3, 0), Ok(0));
    assert_eq!(guest.munmap(guest.start(), 3), Ok(0));
    assert_eq!(guest.mmap(guest.start(), 3, RW, PRIVATE | 0x10), Ok(guest.start()));
    assert!(!crate::support::host_lines(&guest).iter().any(|line| line.contains("anon:")), "nothing is left of it");
    assert_eq!(call(guest.end() - PAGE, 1, 8), Err(Errno::Fault), "a name that cannot be read");
}
