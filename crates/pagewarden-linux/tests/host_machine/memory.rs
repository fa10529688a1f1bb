//! What a guest's memory costs the host, and whose it was before.

use pagewarden::VirtAddr;
use pagewarden::linux::Request;
use pagewarden_linux::host_machine::HostMemoryOptions;

use crate::support::{
    PAGE, READ_WRITE, fork, map_private, map_shared, mappings, memory, memory_with, set_word, space, unmap, word,
};

/// What lies in stocks of free frames at most, in bytes.
fn stocks() -> u64 {
    std::thread::available_parallelism().map_or(1, usize::from) as u64 * (512 + 64) * PAGE
}

#[test]
fn memory_that_is_freed_is_the_hosts_again() {
    let memory = memory(256 << 20);
    let pages = (64 << 20) / PAGE;
    let before = memory.usage();
    assert!(before.host_bytes < 1 << 20, "{before:?}");
    let one = space(&memory);
    map_private(&one, 16, pages, READ_WRITE);
    (16..16 + pages).for_each(|page| set_word(&one, page, page));
    let full = memory.usage();
    assert!(full.host_bytes >= 64 << 20 && full.frames > pages, "{full:?}");
    unmap(&one, 16, pages / 2);
    let half = memory.usage();
    assert!(half.host_bytes < (32 << 20) + stocks(), "{half:?}");
    assert_eq!(word(&one, 16 + pages / 2), 16 + pages / 2);
    drop(one);
    let after = memory.usage();
    assert!(after.host_bytes < stocks() && after.frames == 1 && after.mappings == 0, "{after:?}");
}

#[test]
fn what_is_only_read_takes_one_frame_and_one_mapping() {
    let memory = memory(64 << 20);
    let space = space(&memory);
    map_private(&space, 16, 1000, READ_WRITE);
    let before = memory.usage();
    (16..1016).for_each(|page| assert_eq!(word(&space, page), 0));
    let after = memory.usage();
    assert!(after.frames - before.frames < 8, "{before:?} {after:?}");
    assert_eq!((after.mappings, mappings(&space)), (2, 3));
    assert_eq!(after.faults - before.faults, 1000);
}

#[test]
fn a_walk_faults_less_the_longer_it_is() {
    let memory = memory(64 << 20);
    let space = space(&memory);
    map_private(&space, 512, 4096, READ_WRITE);
    (512..4608).for_each(|page| set_word(&space, page, page));
    let stored = memory.usage().faults;
    assert!(stored < 4096 / 32, "{stored} faults");
    // Frames follow each other, unless the thread has gone to another processor.
    let count = mappings(&space);
    assert!(count < 12, "{count} mappings");
    let child = fork(&space);
    (512..4608).for_each(|page| assert_eq!(word(&child, page), page));
    let loaded = memory.usage().faults - stored;
    assert!(loaded < 64, "{loaded} faults");
}

/// With so few frames each is soon another guest's.
#[test]
fn nobody_finds_what_was_somebody_elses() {
    let memory = memory_with(HostMemoryOptions { bytes: 4 << 20, mappings_max: None });
    for round in 1..=40 {
        let one = space(&memory);
        map_private(&one, 16, 400, READ_WRITE);
        map_shared(&one, 1000, 100, READ_WRITE);
        for page in (16..416).chain(1000..1100) {
            let mut found = [1; 4096];
            one.load(VirtAddr::new(page * PAGE), &mut found).unwrap();
            assert_eq!(found, [0; 4096], "page {page} in round {round}");
            one.store(VirtAddr::new(page * PAGE), &[0xa5; 4096]).unwrap();
        }
        unmap(&one, 16, 400);
        map_private(&one, 16, 400, READ_WRITE);
        assert!((16..416).all(|page| word(&one, page) == 0));
    }
}

#[test]
fn a_page_that_is_given_up_is_kept_once_it_is_stored_to_again() {
    let memory = memory(64 << 20);
    let space = space(&memory);
    map_private(&space, 16, 64, READ_WRITE);
    (16..80).for_each(|page| set_word(&space, page, page));
    space.call(&Request::Madvise { addr: 16 * PAGE, len: 64 * PAGE, advice: libc::MADV_FREE }).unwrap();
    (16..80).for_each(|page| assert_eq!(word(&space, page), page));
    (16..80).step_by(2).for_each(|page| set_word(&space, page, 1000 + page));
    assert_eq!(memory.pager().reclaim(1000), 32);
    for page in 16..80 {
        assert_eq!(word(&space, page), if page % 2 == 0 { 1000 + page } else { 0 });
    }
    space.check_invariants();
}

#[test]
fn without_frames_a_guest_is_refused_and_goes_on() {
    let memory = memory_with(HostMemoryOptions { bytes: 2 << 20, mappings_max: None });
    let space = space(&memory);
    map_private(&space, 16, 1000, READ_WRITE);
    let stored = (16..1016).take_while(|page| space.store(VirtAddr::new(page * PAGE), &[1; 8]).is_ok()).count() as u64;
    assert!((400..512).contains(&stored), "{stored} pages");
    unmap(&space, 16, 100);
    set_word(&space, 16 + stored, 7);
    assert_eq!(word(&space, 16 + stored), 7);
}
