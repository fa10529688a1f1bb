//! Memory maps, and what of them is given out.

use alloc::vec::Vec;

use super::{FrameAllocator, Make, bitmap, chunks, frame, run, usable};
use crate::addr::PageCount;
use crate::frame::records::Records;
use crate::frame::{FrameError, FrameNumber, Frames, FramesConfig, MemoryKind, MemoryMap};

fn ranges(map: &MemoryMap) -> Vec<(u64, u64, MemoryKind)> {
    map.ranges().map(|(range, kind)| (range.first().get(), range.end(), kind)).collect()
}

fn spans(map: &MemoryMap) -> Vec<(u64, u64)> {
    map.usable().map(|range| (range.first().get(), range.end())).collect()
}

/// Everything that `allocator` gives out, in order.
fn all(allocator: &dyn FrameAllocator) -> Vec<u64> {
    let mut batch = alloc::vec![frame(0); 5000];
    let taken = allocator.allocate(&mut batch);
    let mut numbers: Vec<u64> = batch[..taken].iter().map(|frame| frame.get()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn where_entries_overlap_the_stricter_one_wins_in_any_order() {
    use MemoryKind::{Bad, Kernel, Reserved, Usable};
    let entries = [(0, 100, Usable), (10, 20, Kernel), (15, 40, Reserved), (30, 32, Bad), (90, 120, Kernel)];
    let expected = [
        (0, 10, Usable),
        (10, 15, Kernel),
        (15, 30, Reserved),
        (30, 32, Bad),
        (32, 40, Reserved),
        (40, 90, Usable),
        (90, 120, Kernel),
    ];
    for turned in 0..entries.len() {
        for is_reversed in [false, true] {
            let mut order = entries;
            order.rotate_left(turned);
            if is_reversed {
                order.reverse();
            }
            let mut map = MemoryMap::new();
            for (first, end, kind) in order {
                map.add(run(first, end), kind).unwrap();
            }
            assert_eq!(ranges(&map), expected, "{order:?}");
            assert_eq!(spans(&map), [(1, 10), (40, 90)]);
            assert_eq!(
                [9, 10, 31, 32, 119, 120].map(|at| map.kind(frame(at))),
                [Some(Usable), Some(Kernel), Some(Bad), Some(Reserved), Some(Kernel), None]
            );
        }
    }
}

#[test]
fn ranges_that_touch_are_one() {
    let map = usable(&[(20, 30), (1, 10), (10, 20)]);
    assert_eq!(spans(&map), [(1, 30)]);
}

#[test]
fn reserving_makes_nothing_usable() {
    let mut map = usable(&[(1, 10)]);
    map.reserve(run(5, 20), MemoryKind::Usable).unwrap();
    assert_eq!(spans(&map), [(1, 5)]);
    map.reserve(run(1, 2), MemoryKind::Acpi).unwrap();
    map.add(run(0, 30), MemoryKind::Usable).unwrap();
    assert_eq!(spans(&map), [(2, 5), (20, 30)]);
}

#[test]
fn a_map_that_is_full_stays_as_it_was() {
    let mut map = MemoryMap::new();
    for entry in 0..MemoryMap::RANGES_MAX as u64 {
        map.add(run(entry * 4 + 1, entry * 4 + 2), MemoryKind::Usable).unwrap();
    }
    let before = ranges(&map);
    assert_eq!(map.add(run(2, 3), MemoryKind::Kernel), Err(FrameError::InvalidRange));
    assert_eq!(map.take(PageCount::new(1)).map(|taken| taken.first()), Some(frame(1)), "changes no number of ranges");
    assert_eq!(ranges(&map).len(), before.len());
    map.add(run(2, 5), MemoryKind::Usable).unwrap();
}

#[test]
fn what_is_taken_is_never_given_out() {
    let mut map = usable(&[(0, 100), (200, 240), (300, 310)]);
    assert_eq!(map.take(PageCount::new(20)), Some(run(200, 220)), "of the smallest range that has as many");
    assert_eq!(map.take(PageCount::new(200)), None);
    assert_eq!(map.take(PageCount::ZERO), None);
    assert_eq!(map.kind(frame(219)), Some(MemoryKind::Metadata));
    for make in [bitmap as Make, chunks] {
        let allocator = make(&map);
        let expected: Vec<u64> = (1..100).chain(220..240).chain(300..310).collect();
        assert_eq!(all(&*allocator), expected);
        assert_eq!(allocator.free(&[frame(210)]), Err(FrameError::NotOurs));
    }
    let frames = Frames::new(&map, FramesConfig::default()).unwrap();
    let ours: Vec<u64> = (0..320).filter(|number| frames.is_ours(frame(*number))).collect();
    assert_eq!(ours.len() as u64, frames.total());
    assert!(!ours.contains(&0) && !ours.contains(&210));
}

#[test]
fn a_hole_costs_nothing() {
    let far = FrameNumber::END - 100;
    let map = usable(&[(1, 4), (1 << 28, (1 << 28) + 3), (far, FrameNumber::END)]);
    let records = Records::new(&map).unwrap();
    assert!(records.bytes() <= 3 * 2 * 512 * 12, "{} bytes", records.bytes());
    for make in [bitmap as Make, chunks] {
        let allocator = make(&map);
        let expected: Vec<u64> = (1..4).chain(1 << 28..(1 << 28) + 3).chain(far..FrameNumber::END).collect();
        assert_eq!(all(&*allocator), expected);
        for wrong in [0, 4, 511, 512, 1 << 27, (1 << 28) - 1, (1 << 28) + 3, far - 1] {
            assert_eq!(allocator.free(&[frame(wrong)]), Err(FrameError::NotOurs), "{wrong:#x}");
        }
        assert_eq!(allocator.free_run(run(1, (1 << 28) + 3)), Err(FrameError::NotOurs));
        allocator.check_invariants();
    }
}

#[test]
fn a_frame_has_at_most_16_bytes_of_metadata() {
    let map = usable(&[(0, 1 << 18)]);
    let records = Records::new(&map).unwrap();
    assert!(records.bytes() as u64 <= 16 << 18, "{} bytes", records.bytes());
}

#[test]
fn memory_on_both_sides_of_a_hole_is_no_run() {
    // The sections are neighbours in the metadata, and the chunks at their ends are whole.
    let map = usable(&[(512, 1024), (4096, 4608)]);
    for make in [bitmap as Make, chunks] {
        let allocator = make(&map);
        assert_eq!(allocator.allocate_run(PageCount::new(513), PageCount::new(1)), Err(FrameError::Exhausted));
        assert_eq!(allocator.allocate_run(PageCount::new(512), PageCount::new(1)), Ok(run(512, 1024)));
    }
}

#[test]
fn a_map_of_nothing_gives_nothing() {
    for make in [bitmap as Make, chunks] {
        for map in [MemoryMap::new(), usable(&[(0, 1)])] {
            let allocator = make(&map);
            assert_eq!(all(&*allocator), []);
            assert_eq!(allocator.free(&[frame(0), frame(1)]), Err(FrameError::NotOurs));
            for (frames, align) in [(1, 1), (512, 512), (u64::MAX, 1), (1, 1 << 63)] {
                let run = allocator.allocate_run(PageCount::new(frames), PageCount::new(align));
                assert_eq!(run, Err(FrameError::Exhausted));
            }
            for (frames, align) in [(0, 1), (1, 0), (1, 3)] {
                let run = allocator.allocate_run(PageCount::new(frames), PageCount::new(align));
                assert_eq!(run, Err(FrameError::InvalidRange));
            }
            allocator.check_invariants();
        }
    }
}
