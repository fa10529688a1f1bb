//! What a guest finds.

use pagewarden::VirtAddr;
use pagewarden::pager::Fault;

use crate::support::{NONE, PAGE, READ, READ_WRITE, fork, map_private, memory, protect, set_word, space, unmap, word};

#[test]
fn a_guest_finds_zeros_and_then_what_it_has_stored() {
    let memory = memory(64 << 20);
    let space = space(&memory);
    map_private(&space, 16, 100, READ_WRITE);
    for page in 16..116 {
        assert_eq!(word(&space, page), 0);
        set_word(&space, page, page);
    }
    for page in 16..116 {
        assert_eq!(word(&space, page), page);
        let mut bytes = [0; 8];
        space.read(VirtAddr::new(page * PAGE), &mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), page);
    }
    space.space().check_invariants();
    memory.pager().frames().check_invariants();
}

#[test]
fn what_is_not_mapped_or_allowed_is_refused() {
    let memory = memory(64 << 20);
    let space = space(&memory);
    map_private(&space, 16, 4, READ_WRITE);
    set_word(&space, 16, 1);
    set_word(&space, 17, 2);
    protect(&space, 17, 1, READ);
    unmap(&space, 18, 1);
    protect(&space, 19, 1, NONE);
    assert_eq!(word(&space, 17), 2);
    for (page, is_load) in [(15, true), (15, false), (17, false), (18, true), (18, false), (19, true), (20, true)] {
        let address = VirtAddr::new(page * PAGE);
        let refused = if is_load { space.load(address, &mut [0]) } else { space.store(address, &[1]) }.unwrap_err();
        assert!(matches!(refused.fault, Fault::Signal(signal) if signal.address == address), "{refused}");
        assert_eq!((refused.copied, refused.address), (0, address));
    }
    assert_eq!((word(&space, 16), word(&space, 17)), (1, 2));
}

#[test]
fn a_fork_leaves_both_what_they_had_and_neither_sees_the_other() {
    let memory = memory(64 << 20);
    let parent = space(&memory);
    map_private(&parent, 16, 600, READ_WRITE);
    (16..600).for_each(|page| set_word(&parent, page, page));
    let child = fork(&parent);
    let grandchild = fork(&child);
    for page in 16..600 {
        assert_eq!([word(&parent, page), word(&child, page)], [page; 2]);
        set_word(&parent, page, 1 << 32 | page);
        set_word(&child, page, 2 << 32 | page);
    }
    for page in 16..600 {
        let all = [&parent, &child, &grandchild].map(|space| word(space, page));
        assert_eq!(all, [1 << 32 | page, 2 << 32 | page, page]);
    }
    [&parent, &child, &grandchild].into_iter().for_each(|space| space.space().check_invariants());
    drop((parent, child, grandchild));
    memory.pager().frames().check_invariants();
    assert_eq!(memory.usage().frames, 1, "the frame of zeros");
}
