//! Objects that are shown by several spaces while pages of them go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pagewarden::linux::{FileTraits, MapFlags, MapSource, OpenFile};
use pagewarden::manager::{FaultSignal, Signal};
use pagewarden::object::{FileId, ObjectSource};
use pagewarden::pager::Fault;
use pagewarden::{MemoryObject, ObjectKind, VirtAddr};
use pagewarden_linux::host_machine::{HostMemory, HostSpace};

use crate::support::{Numbers, PAGE, READ_WRITE, map, map_private, memory, set_word, space, unmap, word};

const PAGES: u64 = 64;
/// What pages of the object hold, above the number of the page.
const OURS: u64 = 0x0b1e << 32;
/// What pages of others hold.
const THEIRS: u64 = 0xdead_beef_dead_beef;

fn object(memory: &Arc<HostMemory>) -> Arc<MemoryObject> {
    let kind = ObjectKind::Memfd(FileId { device: 1, inode: 2 });
    memory.pager().new_object(kind, "/memfd:a (deleted)", ObjectSource::Anonymous { bytes: PAGES * PAGE }).unwrap()
}

fn map_object(space: &HostSpace, first: u64, object: &Arc<MemoryObject>, flags: MapFlags) {
    let traits = FileTraits::READABLE | FileTraits::WRITABLE | FileTraits::REGULAR;
    let file = OpenFile { object: Arc::clone(object), traits };
    map(space, (first, PAGES), READ_WRITE, flags, MapSource::File(file));
}

#[test]
fn stores_to_an_object_are_seen_by_all_who_show_it() {
    let memory = memory(64 << 20);
    let object = object(&memory);
    let [one, other] = [space(&memory), space(&memory)];
    map_object(&one, 16, &object, MapFlags::SHARED);
    map_object(&other, 300, &object, MapFlags::SHARED);
    map_object(&other, 600, &object, MapFlags::PRIVATE);
    for page in 0..PAGES {
        set_word(&one, 16 + page, OURS | page);
        assert_eq!([word(&other, 300 + page), word(&other, 600 + page)], [OURS | page; 2]);
        set_word(&other, 600 + page, THEIRS);
        assert_eq!(word(&one, 16 + page), OURS | page);
    }
    let pager = memory.pager();
    assert_eq!(pager.punch(&object, 0, PAGES / 2 * PAGE), Ok(()));
    assert_eq!([word(&one, 16), word(&other, 300), word(&other, 600)], [0, 0, THEIRS]);
    assert_eq!(pager.resize(&object, PAGES / 2 * PAGE), Ok(()));
    let address = VirtAddr::new((300 + PAGES / 2) * PAGE);
    let refused = other.load(address, &mut [0]).unwrap_err();
    assert!(matches!(refused.fault, Fault::Signal(FaultSignal { signal: Signal::Bus, .. })), "{refused}");
    [&one, &other].into_iter().for_each(|space| space.check_invariants());
}

/// Loads and stores words of the object: nothing but its own is found there.
fn use_object(space: &Arc<HostSpace>, first: u64, is_over: &AtomicBool) -> u64 {
    let (mut numbers, mut done) = (Numbers::new(first), 0);
    while !is_over.load(Ordering::Relaxed) {
        let page = numbers.below(PAGES);
        let address = VirtAddr::new((first + page) * PAGE);
        let mut found = [0; 8];
        if numbers.below(2) == 0 {
            done += u64::from(space.store(address, &(OURS | page).to_le_bytes()).is_ok());
        } else if space.load(address, &mut found).is_ok() {
            let found = u64::from_le_bytes(found);
            assert!(found == 0 || found == OURS | page, "{found:#x} in page {page}");
            done += 1;
        }
    }
    done
}

/// Takes frames and gives them back, over and over: what was put there is there.
fn use_frames(space: &Arc<HostSpace>, is_over: &AtomicBool) -> u64 {
    let mut rounds = 0;
    while !is_over.load(Ordering::Relaxed) {
        map_private(space, 16, 200, READ_WRITE);
        (16..216).for_each(|page| set_word(space, page, THEIRS));
        for page in 16..216 {
            assert_eq!(word(space, page), THEIRS, "page {page}");
        }
        unmap(space, 16, 200);
        rounds += 1;
    }
    rounds
}

#[test]
fn nobody_reaches_a_page_of_an_object_after_it_has_gone() {
    // So few frames that those of the object are soon somebody else's.
    let memory = memory(2 << 20);
    let object = object(&memory);
    let [one, other, thief] = [space(&memory), space(&memory), space(&memory)];
    map_object(&one, 16, &object, MapFlags::SHARED);
    map_object(&other, 300, &object, MapFlags::SHARED);
    let is_over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        let users = [
            scope.spawn(|| use_object(&one, 16, &is_over)),
            scope.spawn(|| use_object(&other, 300, &is_over)),
            scope.spawn(|| use_object(&one, 16, &is_over)),
            scope.spawn(|| use_frames(&thief, &is_over)),
        ];
        let mut numbers = Numbers::new(9);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let at = numbers.below(PAGES);
            let taken = if numbers.below(3) == 0 {
                let resized = memory.pager().resize(&object, at * PAGE);
                resized.and_then(|()| memory.pager().resize(&object, PAGES * PAGE))
            } else {
                memory.pager().punch(&object, at * PAGE, numbers.below(16) * PAGE)
            };
            assert_eq!(taken, Ok(()));
        }
        is_over.store(true, Ordering::Relaxed);
        users.map(|user| user.join().unwrap())
    });
    assert!(done.iter().all(|done| *done > 0), "{done:?}");
    [&one, &other, &thief].into_iter().for_each(|space| space.check_invariants());
}
