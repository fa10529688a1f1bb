//! Views of tables that are made by hand: what a walk reads and marks, and what is shown of it.

use pagewarden::frame::FrameNumber;
use pagewarden::manager::Access;
use pagewarden::mmu::{Mmu, PhysMem};
use pagewarden::page_table::{Entry, EntryFlags, Level};
use pagewarden::{PageCount, PageRange, PhysAddr, VirtAddr};

use super::view::{Filled, View, Wanted};
use super::*;

const TABLE: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::WRITABLE).union(EntryFlags::USER);
const STORED: EntryFlags = TABLE.union(EntryFlags::DIRTY);
/// The page that tests are about, in the second chunk.
const PAGE: u64 = 512 + 7;

/// A machine with tables in frames 1 to 4, and a view of them.
struct Setting {
    machine: HostMachine,
    view: Arc<View>,
    reservation: Reservation,
}

fn frame(number: u64) -> FrameNumber {
    FrameNumber::new(number).unwrap()
}

/// Where the entry of `level` for `page` is.
fn place(level: Level, page: u64) -> PhysAddr {
    let table = frame(5 - level as u64);
    table.at(level.index(VirtAddr::from_page_number(page).unwrap()) * 8)
}

impl Setting {
    fn new() -> Self {
        install_handler().unwrap();
        let machine = HostMachine::new(2048, 1000).unwrap();
        for (level, below) in [(Level::Four, 2), (Level::Three, 3), (Level::Two, 4)] {
            machine.store(place(level, PAGE), Entry::new(frame(below), TABLE).word());
        }
        let reservation = Reservation::new(8 << 20, 0).unwrap();
        let view = Arc::new(View::new(frame(1), reservation.start(), reservation.bytes()));
        machine.add(&view);
        Self { machine, view, reservation }
    }

    fn set(&self, level: Level, page: u64, entry: Entry) {
        self.machine.store(place(level, page), entry.word());
    }

    fn entry(&self, level: Level, page: u64) -> Entry {
        Entry::from_word(self.machine.load(place(level, page)))
    }

    fn fill(&self, page: u64, access: Access) -> Filled {
        let near = PageRange::from_pages(page, PageCount::new(1)).unwrap();
        self.machine.fill(&self.view, Wanted { page, access, near })
    }

    /// The first byte of a page as a guest loads it, if the host shows it.
    fn load(&self, page: u64) -> Option<u8> {
        let place = self.reservation.base().wrapping_add(usize::try_from(page).unwrap() * 4096);
        // SAFETY: the address is in the reservation, and a fault finds its landing.
        unsafe { pagewarden_copy::load(place.cast_const()) }.ok()
    }

    fn store(&self, page: u64, byte: u8) -> bool {
        let place = self.reservation.base().wrapping_add(usize::try_from(page).unwrap() * 4096);
        // SAFETY: as above.
        unsafe { pagewarden_copy::store(place, byte) }.is_ok()
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        self.view.check_invariants(&self.machine);
        self.machine.remove(&self.view);
    }
}

#[test]
fn a_load_marks_the_way_and_a_store_the_page() {
    let setting = Setting::new();
    setting.set(Level::One, PAGE, Entry::new(frame(9), TABLE));
    assert!(matches!(setting.fill(PAGE, Access::Read), Filled::Shown(_)));
    for level in [Level::Four, Level::Three, Level::Two, Level::One] {
        let flags = setting.entry(level, PAGE).flags();
        assert_eq!(flags, TABLE | EntryFlags::ACCESSED, "{level:?}");
    }
    assert_eq!(
        (setting.load(PAGE), setting.store(PAGE, 1)),
        (Some(0), false),
        "clean pages tell when they are stored to"
    );
    assert!(matches!(setting.fill(PAGE, Access::Write), Filled::Shown(_)));
    assert_eq!(setting.entry(Level::One, PAGE).flags(), STORED | EntryFlags::ACCESSED);
    assert!(setting.store(PAGE, 1));
    setting.set(Level::One, PAGE, Entry::new(frame(9), TABLE));
    setting.machine.flush(frame(1), PageRange::from_pages(PAGE, PageCount::new(1)).unwrap());
    assert_eq!((setting.load(PAGE), setting.store(PAGE, 2)), (Some(1), false));
}

#[test]
fn every_level_has_to_allow_an_access() {
    for level in [Level::Four, Level::Three, Level::Two, Level::One] {
        for missing in [EntryFlags::PRESENT, EntryFlags::USER, EntryFlags::WRITABLE] {
            let setting = Setting::new();
            setting.set(Level::One, PAGE, Entry::new(frame(9), TABLE));
            let entry = setting.entry(level, PAGE).without(missing);
            setting.set(level, PAGE, entry);
            assert_eq!(setting.fill(PAGE, Access::Write), Filled::Refused, "{missing:?} of {level:?}");
            assert!(!setting.entry(Level::One, PAGE).contains(EntryFlags::DIRTY), "{missing:?} of {level:?}");
            let is_loaded = matches!(setting.fill(PAGE, Access::Read), Filled::Shown(_));
            assert_eq!(is_loaded, missing == EntryFlags::WRITABLE, "{missing:?} of {level:?}");
            assert_eq!((setting.load(PAGE).is_some(), setting.store(PAGE, 1)), (is_loaded, false));
        }
    }
}

#[test]
fn a_dirty_page_below_a_level_without_the_right_is_shown_without_it() {
    let setting = Setting::new();
    setting.set(Level::One, PAGE, Entry::new(frame(9), STORED));
    setting.set(Level::Three, PAGE, setting.entry(Level::Three, PAGE).without(EntryFlags::WRITABLE));
    assert!(matches!(setting.fill(PAGE, Access::Read), Filled::Shown(_)));
    assert!(!setting.store(PAGE, 1));
}

#[test]
fn a_large_page_is_shown_in_parts() {
    let setting = Setting::new();
    // The lowest bit of its frame selects a memory type.
    setting.set(Level::Two, PAGE, Entry::new(frame(1024 + 1), TABLE | EntryFlags::HUGE));
    assert!(matches!(setting.fill(PAGE, Access::Write), Filled::Shown(_)));
    assert!(setting.store(PAGE, 3));
    let mut found = [0];
    setting.machine.read(frame(1024 + 7).start(), &mut found);
    assert_eq!((found, setting.load(512 + 8)), ([3], None));
    assert!(matches!(setting.fill(512, Access::Write), Filled::Shown(_)));
    assert!(setting.store(512, 4));
    setting.machine.read(frame(1024).start(), &mut found);
    assert_eq!(found, [4]);
}

#[test]
fn what_a_guest_stores_to_a_fresh_frame_is_cleared_for_the_next() {
    let setting = Setting::new();
    setting.set(Level::One, PAGE, Entry::new(frame(9), STORED));
    assert!(matches!(setting.fill(PAGE, Access::Write), Filled::Shown(_)));
    assert!(setting.store(PAGE, 1));
    setting.machine.zero(frame(9));
    assert_eq!(setting.load(PAGE), Some(0));
}

#[test]
fn memory_of_devices_is_nowhere() {
    let setting = Setting::new();
    setting.set(Level::One, PAGE, Entry::new(frame(1 << 20), STORED));
    assert_eq!(setting.fill(PAGE, Access::Read), Filled::Nowhere);
    setting.set(Level::One, PAGE + 1, Entry::new(frame(9), STORED));
    assert_eq!(setting.fill(5000, Access::Read), Filled::Refused, "beyond the view");
}

#[test]
fn a_view_that_is_closed_shows_nothing_any_more() {
    let setting = Setting::new();
    setting.set(Level::One, PAGE, Entry::new(frame(9), STORED));
    assert!(matches!(setting.fill(PAGE, Access::Write), Filled::Shown(_)));
    setting.machine.remove(&setting.view);
    assert!(setting.machine.views.read().unwrap().is_empty());
    assert_eq!((setting.load(PAGE), setting.fill(PAGE, Access::Write)), (None, Filled::Refused));
    assert_eq!(setting.load(PAGE), None);
}

#[test]
fn a_flush_of_everything_shows_nothing_and_what_is_left_comes_back() {
    let setting = Setting::new();
    for page in 0..512 {
        setting.set(Level::One, 512 + page, Entry::new(frame(9 + 2 * page), STORED));
    }
    let near = PageRange::from_pages(512, PageCount::new(512)).unwrap();
    let wanted = Wanted { page: PAGE, access: Access::Write, near };
    assert_eq!(setting.machine.fill(&setting.view, wanted), Filled::Shown(near));
    assert_eq!(setting.view.mappings(), 513);
    setting.machine.flush_all(frame(1));
    assert_eq!((setting.load(PAGE), setting.view.mappings()), (None, 0));
    assert!(matches!(setting.fill(PAGE, Access::Write), Filled::Shown(_)));
    assert!(setting.store(PAGE, 1));
}
