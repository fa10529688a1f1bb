//! mmap and its like, brk, and the calls that have a number only.

use std::sync::{Arc, Mutex};

use pagewarden::linux::{FileTraits, Files, OpenFile, Segment};
use pagewarden::object::{FileId, ObjectSource};
use pagewarden::{Errno, ObjectKind};

use crate::tests::{cages, call, map, program, start, trap};
use crate::{Cage, Setup, SharedFiles, TrapKind, Val};

const EPERM: i32 = -1;
const EBADF: i32 = -9;
const ENOMEM: i32 = -12;
const EFAULT: i32 = -14;
const EINVAL: i32 = -22;

/// Calls by number.
fn syscall(cage: &mut Cage, number: libc::c_long, args: [u64; 3]) -> i64 {
    let words = [number.cast_unsigned(), args[0], args[1], args[2], 0, 0, 0];
    let words: Vec<Val> = words.iter().map(|word| Val::I64(word.cast_signed())).collect();
    match cage.call("syscall", &words).unwrap()[..] {
        [Val::I64(result)] => result,
        ref other => panic!("syscall returns {other:?}"),
    }
}

const SYSCALL: &str = r#"
    (func (export "syscall") (param i64 i64 i64 i64 i64 i64 i64) (result i64)
        (call $syscall (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 6)))
    (func (export "mremap") (param i32 i32 i32 i32) (result i32)
        (call $mremap (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 0)))
    (func (export "madvise") (param i32 i32 i32) (result i32)
        (call $madvise (local.get 0) (local.get 1) (local.get 2)))
    (func (export "msync") (param i32 i32 i32) (result i32) (call $msync (local.get 0) (local.get 1) (local.get 2)))
    (func (export "map_file") (param i32 i32 i64) (result i32)
        (call $mmap (i32.const 0) (local.get 0) (i32.const 3) (local.get 1) (i32.const 5) (local.get 2)))
"#;

fn cage() -> Cage {
    let cages = cages();
    start(&cages, &program(&cages, SYSCALL))
}

#[test]
fn mmap_answers_as_linux_does() {
    let mut cage = cage();
    assert_eq!(call(&mut cage, "mmap", &[0, 0, 3, 0x22]), EINVAL, "no length");
    assert_eq!(call(&mut cage, "mmap", &[0, 4096, 3, 0x20]), EINVAL, "neither shared nor private");
    assert_eq!(call(&mut cage, "mmap", &[0, 4096, 3, 2]), EBADF, "no file");
    assert_eq!(call(&mut cage, "mmap", &[0, 4096, 3, 0x32]), EPERM, "NULL is never mapped");
    assert_eq!(call(&mut cage, "mmap", &[-4096, 4096, 3, 0x32]), ENOMEM, "the last page is nobody's");
    assert_eq!(call(&mut cage, "mmap", &[0, -8192, 3, 0x22]), ENOMEM, "more than there is");
    let highest = map(&mut cage, 4096);
    assert_eq!(highest.cast_unsigned(), 0xffff_e000, "from the top down");
    assert_eq!(map(&mut cage, 100).cast_unsigned(), 0xffff_d000, "lengths are rounded up");
    assert_eq!(call(&mut cage, "mmap", &[0x5000_0000, 4096, 3, 0x10_0022]), 0x5000_0000);
    assert_eq!(call(&mut cage, "mmap", &[0x5000_0000, 4096, 3, 0x10_0022]), -17, "EEXIST");
}

#[test]
fn mprotect_takes_rights_away_and_gives_them_back() {
    let mut cage = cage();
    let page = map(&mut cage, 4096);
    call(&mut cage, "store", &[page, 5]);
    assert_eq!(call(&mut cage, "mprotect", &[page, 4096, 1]), 0);
    assert_eq!(trap(&mut cage, "store", &[page, 6]).kind, TrapKind::Rights);
    assert_eq!(call(&mut cage, "load", &[page]), 5);
    assert_eq!(call(&mut cage, "mprotect", &[page, 4096, 0]), 0);
    assert_eq!(trap(&mut cage, "load", &[page]).kind, TrapKind::Rights);
    assert_eq!(call(&mut cage, "mprotect", &[page, 4096, 3]), 0);
    call(&mut cage, "store", &[page, 7]);
    assert_eq!(call(&mut cage, "load", &[page]), 7);
    assert_eq!(call(&mut cage, "mprotect", &[page, 8192, 3]), ENOMEM, "a hole behind");
}

#[test]
fn mremap_moves_what_is_there() {
    let mut cage = cage();
    let high = map(&mut cage, 4096);
    let low = map(&mut cage, 4096);
    call(&mut cage, "store", &[low, 9]);
    assert_eq!(call(&mut cage, "mremap", &[low, 4096, 8192, 0]), ENOMEM, "no room to grow in place");
    let moved = call(&mut cage, "mremap", &[low, 4096, 8192, 1]);
    assert_eq!(call(&mut cage, "load", &[moved]), 9);
    assert_eq!(call(&mut cage, "load", &[moved + 4096]), 0);
    assert_eq!(trap(&mut cage, "load", &[low]).kind, TrapKind::Hole);
    assert_eq!(call(&mut cage, "load", &[high]), 0);
}

#[test]
fn madvise_and_msync_reach_the_pager() {
    let mut cage = cage();
    let page = map(&mut cage, 4096);
    call(&mut cage, "store", &[page, 9]);
    assert_eq!(call(&mut cage, "madvise", &[page, 4096, libc::MADV_DONTNEED]), 0);
    assert_eq!(call(&mut cage, "load", &[page]), 0);
    assert_eq!(call(&mut cage, "madvise", &[page, 4096, 12345]), EINVAL);
    assert_eq!(call(&mut cage, "msync", &[page, 4096, libc::MS_SYNC]), 0);
    assert_eq!(call(&mut cage, "msync", &[page, 8192, libc::MS_SYNC]), ENOMEM);
    assert_eq!(call(&mut cage, "msync", &[page, 4096, 5]), EINVAL);
}

#[test]
fn the_break_moves_and_never_over_a_mapping() {
    let mut cage = cage();
    let start = 2 * 65536;
    assert_eq!(call(&mut cage, "brk", &[0]), start);
    assert_eq!(call(&mut cage, "sbrk", &[10_000]), start);
    call(&mut cage, "store", &[start + 9996, 3]);
    assert_eq!(call(&mut cage, "sbrk", &[0]), start + 10_000);
    // 12 KiB of heap, then a page, then somebody else's.
    let neighbour = start + 0x4000;
    assert_eq!(call(&mut cage, "mmap", &[neighbour, 4096, 3, 0x32]), neighbour);
    call(&mut cage, "store", &[neighbour, 4]);
    assert_eq!(call(&mut cage, "sbrk", &[0x8000]), ENOMEM);
    assert_eq!(call(&mut cage, "brk", &[start + 0x8000]), start + 10_000, "the break as it is");
    assert_eq!(call(&mut cage, "load", &[neighbour]), 4);
    assert_eq!(call(&mut cage, "sbrk", &[-10_000]), start + 10_000);
    assert_eq!(call(&mut cage, "sbrk", &[-4]), ENOMEM, "below its start");
    assert_eq!(call(&mut cage, "sbrk", &[i32::MIN]), ENOMEM, "below zero");
    assert_eq!(trap(&mut cage, "load", &[start]).kind, TrapKind::Hole);
}

#[test]
fn other_calls_go_by_their_numbers() {
    let mut cage = cage();
    let page = map(&mut cage, 8192);
    let at = |offset: i32| u64::from((page + offset).cast_unsigned());
    call(&mut cage, "store", &[page + 4096, 1]);
    assert_eq!(syscall(&mut cage, libc::SYS_mlock, [at(0), 4096, 0]), 0);
    assert_eq!(syscall(&mut cage, libc::SYS_mincore, [at(0), 8192, at(4096)]), 0);
    assert_eq!(call(&mut cage, "load", &[page + 4096]) & 0xffff, 0x0101, "a byte a page");
    assert_eq!(syscall(&mut cage, libc::SYS_mincore, [at(0), 8192, 16]), EFAULT.into());
    assert_eq!(syscall(&mut cage, libc::SYS_munmap, [1 << 40, 4096, 0]), EINVAL.into());
    assert_eq!(syscall(&mut cage, libc::SYS_getpid, [0; 3]), 1);
    assert_eq!(syscall(&mut cage, libc::SYS_getppid, [0; 3]), 0);
    assert_eq!(syscall(&mut cage, libc::SYS_reboot, [0; 3]), -38);
    assert_eq!(syscall(&mut cage, -1, [0; 3]), -38);
}

#[test]
fn a_name_of_memory_is_read_from_the_guest() {
    let mut cage = cage();
    let page = map(&mut cage, 8192);
    cage.write(page.cast_unsigned(), b"heap of mine\0").unwrap();
    let name = |cage: &mut Cage, at: i32| {
        let words =
            [libc::SYS_prctl, 0x5356_4d41, 0, page.cast_unsigned().into(), 8192, i64::from(at.cast_unsigned()), 0];
        let words: Vec<Val> = words.iter().map(|word| Val::I64(*word)).collect();
        cage.call("syscall", &words).unwrap()[0].i64().unwrap()
    };
    assert_eq!(name(&mut cage, page), 0);
    assert!(cage.maps_text().contains("[anon:heap of mine]"), "{}", cage.maps_text());
    cage.write(page.cast_unsigned() + 8100, &[b'x'; 92]).unwrap();
    assert_eq!(name(&mut cage, page + 8100), EINVAL.into(), "longer than a name");
    assert_eq!(name(&mut cage, page + 8150), EFAULT.into(), "no end before the hole");
}

/// Descriptor 5 is an object of two pages.
struct OneFile(OpenFile);

impl Files for OneFile {
    fn open_file(&mut self, fd: i32) -> Result<OpenFile, Errno> {
        if fd == 5 { Ok(self.0.clone()) } else { Err(Errno::BadF) }
    }

    fn segment(&mut self, _id: i32) -> Result<Segment, Errno> {
        Err(Errno::Inval)
    }

    fn string(&mut self, _addr: u64, _len_max: usize) -> Result<Vec<u8>, Errno> {
        Err(Errno::Fault)
    }
}

#[test]
fn files_are_those_of_the_embedder() {
    let cages = cages();
    let pager = cages.memory().pager();
    let kind = ObjectKind::Memfd(FileId { device: 1, inode: 2 });
    let object = pager.new_object(kind, "/memfd:five", ObjectSource::Anonymous { bytes: 8192 }).unwrap();
    pager.write(&object, 4096, &[1, 2, 3, 4]).unwrap();
    let traits = FileTraits::READABLE | FileTraits::WRITABLE | FileTraits::REGULAR;
    let files: SharedFiles = Arc::new(Mutex::new(OneFile(OpenFile { object: Arc::clone(&object), traits })));
    let setup = Setup { files: Some(files), ..Setup::default() };
    let mut cage = cages.start(&program(&cages, SYSCALL), setup).unwrap();
    let map_file = |cage: &mut Cage, len: i32, flags: i32, offset: i64| {
        cage.call("map_file", &[Val::I32(len), Val::I32(flags), Val::I64(offset)]).unwrap()[0].unwrap_i32()
    };
    assert_eq!(map_file(&mut cage, 4096, 1, 100), EINVAL, "an offset inside of a page");
    let shared = map_file(&mut cage, 8192, 1, 4096);
    let private = map_file(&mut cage, 4096, 2, 4096);
    assert_eq!(call(&mut cage, "load", &[shared]), 0x0403_0201);
    call(&mut cage, "store", &[private, 8]);
    call(&mut cage, "store", &[shared, 7]);
    let mut bytes = [0; 4];
    pager.read(&object, 4096, &mut bytes).unwrap();
    assert_eq!((bytes, call(&mut cage, "load", &[private])), ([7, 0, 0, 0], 8));
    let trap = trap(&mut cage, "load", &[shared + 4096]);
    assert_eq!((trap.kind.clone(), trap.signal()), (TrapKind::BeyondObject, libc::SIGBUS));
    assert!(trap.region.unwrap().ends_with("/memfd:five"));
}
