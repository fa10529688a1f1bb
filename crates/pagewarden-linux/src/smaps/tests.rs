//! Tests of the parser of smaps.

use std::os::unix::ffi::OsStrExt;

use super::*;

const MODERN: &[u8] = b"\
55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                  44 kB
Pss:                  40 kB
Pss_Dirty:            40 kB
Shared_Clean:          1 kB
Shared_Dirty:          2 kB
Private_Clean:         3 kB
Private_Dirty:        38 kB
Referenced:           44 kB
Anonymous:            43 kB
KSM:                   0 kB
LazyFree:              0 kB
AnonHugePages:         5 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:     2048 kB
Private_Hugetlb:    4096 kB
Swap:                  6 kB
SwapPss:               6 kB
Locked:                7 kB
THPeligible:           0
ProtectionKey:         0
VmFlags: rd wr mr mw me ac sd 
7f25bef9b000-7f25befc1000 r-xs 00001000 fe:1f 325843                     /usr/lib/ld.so
Size:                152 kB
Rss:                   8 kB
VmFlags: rd ex mr me
";

fn one(header: &str) -> Mapping {
    let mut mappings = parse(header.as_bytes()).unwrap();
    assert_eq!(mappings.len(), 1);
    mappings.remove(0)
}

#[test]
fn every_figure_lands_in_its_field() {
    let mappings = parse(MODERN).unwrap();
    assert_eq!(mappings.len(), 2);
    let heap = &mappings[0];
    assert_eq!((heap.start, heap.end, heap.size()), (0x55d0_c000_0000, 0x55d0_c002_1000, 132 << 10));
    let kib = |figure: u64| Some(figure << 10);
    let expected = Figures {
        rss: kib(44),
        pss: kib(40),
        shared_clean: kib(1),
        shared_dirty: kib(2),
        private_clean: kib(3),
        private_dirty: kib(38),
        anonymous: kib(43),
        anon_huge_pages: kib(5),
        shared_hugetlb: kib(2048),
        private_hugetlb: kib(4096),
        swap: kib(6),
        locked: kib(7),
    };
    assert_eq!(heap.figures, expected);
    assert_eq!(heap.figures.resident(), kib(44 + 2048 + 4096));
    assert_eq!(heap.flags, ["rd", "wr", "mr", "mw", "me", "ac", "sd"]);
}

#[test]
fn the_first_line_of_a_mapping_is_taken_apart() {
    let code = &parse(MODERN).unwrap()[1];
    assert_eq!(code.prot, Prot::READ | Prot::EXEC);
    assert_eq!(code.sharing, Sharing::Shared);
    assert_eq!((code.offset, code.device, code.inode), (0x1000, (0xfe, 0x1f), 325_843));
    assert_eq!(code.name, "/usr/lib/ld.so");
    assert!(!code.deleted);
}

#[test]
fn missing_fields_of_older_kernels_stay_unknown() {
    let code = &parse(MODERN).unwrap()[1];
    assert_eq!(code.figures, Figures { rss: Some(8 << 10), ..Figures::default() });
    assert_eq!(code.figures.resident(), Some(8 << 10));
    assert_eq!(one("1000-2000 ---p 0 00:00 0").figures.resident(), None);
}

#[test]
fn names_with_blanks_newlines_and_odd_bytes() {
    let name = |text: &[u8]| {
        let mapping = parse(&[b"1000-2000 r--p 00000000 08:01 12    ", text].concat()).unwrap().remove(0);
        (mapping.name.as_bytes().to_vec(), mapping.deleted)
    };
    assert_eq!(name(b"/a b  c"), (b"/a b  c".to_vec(), false));
    assert_eq!(name(b"/ends in a blank "), (b"/ends in a blank ".to_vec(), false));
    assert_eq!(name(b"/a\\012b"), (b"/a\nb".to_vec(), false));
    assert_eq!(name(b"/a\\011\\"), (b"/a\\011\\".to_vec(), false));
    assert_eq!(name(b"/x\xff\xfe"), (b"/x\xff\xfe".to_vec(), false));
    assert_eq!(name(b"/Rss: 4 kB"), (b"/Rss: 4 kB".to_vec(), false));
    assert_eq!(name(b"/tmp/gone (deleted)"), (b"/tmp/gone".to_vec(), true));
    assert_eq!(name(b"[anon: (deleted)"), (b"[anon: (deleted)".to_vec(), false));
    assert_eq!(name(b""), (Vec::new(), false));
}

#[test]
fn kinds_follow_name_rights_and_sharing() {
    let kind = |rights: &str, name: &str| one(&format!("1000-2000 {rights} 0 00:01 9 {name}")).kind();
    assert_eq!(kind("rw-p", "[heap]"), Kind::Heap);
    assert_eq!(kind("rw-p", "[stack]"), Kind::Stack);
    assert_eq!(kind("rw-p", "[stack:17]"), Kind::Stack);
    assert_eq!(kind("rw-p", ""), Kind::Anonymous);
    assert_eq!(kind("rw-p", "[anon:arena 1]"), Kind::Anonymous);
    assert_eq!(kind("---p", ""), Kind::Reserved);
    assert_eq!(kind("---p", "[anon:scudo:secondary]"), Kind::Reserved);
    assert_eq!(kind("---p", "/usr/lib/libc.so"), Kind::File);
    assert_eq!(kind("rw-s", "/home/a/file (deleted)"), Kind::File);
    assert_eq!(kind("rw-s", "/dev/shm/queue"), Kind::File);
    assert_eq!(kind("rw-s", "/dev/zero (deleted)"), Kind::Shared);
    assert_eq!(kind("rw-s", "/memfd:ring (deleted)"), Kind::Shared);
    assert_eq!(kind("rw-p", "/memfd:ring (deleted)"), Kind::Shared);
    assert_eq!(kind("rw-s", "/SYSV00000000 (deleted)"), Kind::Shared);
    assert_eq!(kind("rw-s", "[anon_shmem:buffers]"), Kind::Shared);
    assert_eq!(kind("rw-s", "/dev/nvidia0"), Kind::Device);
    assert_eq!(kind("rw-s", "anon_inode:[io_uring]"), Kind::Device);
    assert_eq!(kind("r-xp", "[vdso]"), Kind::Kernel);
    assert_eq!(kind("--xp", "[vsyscall]"), Kind::Kernel);
}

#[test]
fn nonsense_is_an_error_that_names_the_line() {
    let refused = |text: &str| parse(text.as_bytes()).unwrap_err();
    let second = refused("1000-2000 r--p 0 0:0 0\nwhat is this\n");
    assert_eq!(second, ParseError { line: 2, text: "what is this".to_owned() });
    for line in [
        "Rss: 4 kB",
        "2000-1000 r--p 0 0:0 0",
        "1000-1000 r--p 0 0:0 0",
        "1000-2000 r--q 0 0:0 0",
        "1000-2000 q--p 0 0:0 0",
        "1000-2000 r-- 0 0:0 0",
        "1000-2000 r--p 0 0:0",
        "1000-2000 r--p 0 00 0",
        "1000-20000000000000000 r--p 0 0:0 0",
        "1000-2000 r--p 0 0:0 0\nRss: x kB",
        "1000-2000 r--p 0 0:0 0\nRss: 18446744073709551615 kB",
        "1000-2000",
        "-",
    ] {
        assert!(parse(line.as_bytes()).is_err(), "{line:?}");
    }
    assert_eq!(parse(b"").unwrap(), []);
}

#[test]
fn a_list_that_was_cut_or_damaged_anywhere_is_read_or_refused() {
    let check = |text: &[u8]| {
        if let Ok(mappings) = parse(text) {
            assert!(mappings.iter().all(|mapping| mapping.start < mapping.end && mapping.size() > 0));
        }
    };
    for index in 0..MODERN.len() {
        check(&MODERN[..index]);
        check(&MODERN[index..]);
        for byte in [b'\n', b' ', b':', b'-', b'f', b'9', b'\\', 0, 0xff] {
            let mut damaged = MODERN.to_vec();
            damaged[index] = byte;
            check(&damaged);
        }
    }
    let refused = (0..MODERN.len()).filter(|index| parse(&MODERN[..*index]).is_err()).count();
    assert!(refused > 0, "a first line that was cut short is no mapping");
}

#[test]
fn life_and_death_by_the_status_file() {
    let life = Life::from_status;
    assert_eq!(life("Name:\tx\nState:\tS (sleeping)\nKthread:\t0\nVmSize:\t 10 kB\n"), Life::Alive);
    assert_eq!(life("Name:\tx\nState:\tS (sleeping)\nVmSize:\t 10 kB\n"), Life::Alive);
    assert_eq!(life("Name:\tkthreadd\nState:\tS (sleeping)\nKthread:\t1\n"), Life::KernelThread);
    assert_eq!(life("Name:\tkthreadd\nState:\tI (idle)\n"), Life::KernelThread);
    assert_eq!(life("Name:\tx\nState:\tZ (zombie)\n"), Life::Zombie);
    assert_eq!(life("Name:\tx\nState:\tX (dead)\n"), Life::Gone);
    assert_eq!(life(""), Life::Gone);
}

#[test]
fn our_own_map_has_what_we_know_is_there() {
    let local = 0_u8;
    let address = std::ptr::from_ref(&local).addr() as u64;
    let mappings = read(i32::try_from(std::process::id()).unwrap()).unwrap();
    assert!(mappings.iter().all(|mapping| mapping.figures.resident().is_some()));
    assert!(mappings.is_sorted_by_key(|mapping| mapping.start));
    let here = mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&address)).unwrap();
    assert_eq!(here.prot, Prot::READ | Prot::WRITE);
    assert!(here.figures.resident().unwrap() >= 4096);
    assert!(mappings.iter().any(|mapping| mapping.name == "[vdso]" && mapping.kind() == Kind::Kernel));
}

#[test]
fn a_reason_is_given_when_there_is_no_map() {
    assert!(matches!(read(i32::MAX), Err(ReadError::NoProcess(i32::MAX))));
    assert!(matches!(read(2), Err(ReadError::KernelThread(2) | ReadError::NoProcess(2))));
    let error = |raw| explain(7, io::Error::from_raw_os_error(raw)).to_string();
    assert_eq!(
        error(libc::EACCES),
        "process 7 may not be looked at: it belongs to another user or is protected (try as root)"
    );
    assert_eq!(error(libc::ESRCH), "process 7 ended while its map was read");
    assert_eq!(error(libc::ENOENT), "there is no process 7");
    assert_eq!(error(libc::EIO), "cannot read the map of process 7: Input/output error (os error 5)");
}
