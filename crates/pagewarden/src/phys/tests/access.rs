//! Values of every size at every place, compared with what the other world sees.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Lab, frame, frames, pattern};
use crate::addr::{PAGE_LEN, PAGE_SIZE};
use crate::frame::FrameNumber;
use crate::phys::{Claim, Permission, PhysConstPtr, PhysError, Plain};

/// Three pages that are out of order.
const SCATTERED: [u64; 3] = [5, 2, 9];

/// What a driver finds in a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// An odd size, and no alignment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C, packed)]
struct Odd {
    tag: u8,
    number: u64,
    rest: [u8; 4],
}

/// Writes `values` at an offset and reads them again, one by one if they are few and all at once, with and without a
/// window that stays.
fn round_trip<T: Plain + Copy + PartialEq + Debug>(lab: &Lab, offset: u64, values: &[T]) {
    let list = frames(&SCATTERED);
    let before = lab.fill(&list);
    let at = usize::try_from(offset).unwrap();
    let mut pointer = lab.ptr::<T>(&list, offset, values.len());
    pointer.write_slice_at(values.len().min(64), &values[values.len().min(64)..]).unwrap();
    for (index, value) in values.iter().enumerate().take(64) {
        pointer.write_at(index, *value).unwrap();
        assert_eq!(pointer.read_at(index), Ok(*value), "{index} at {offset}");
    }
    let mut expected = before.clone();
    expected[at..at + size_of_val(values)].copy_from_slice(values.as_bytes());
    assert!(lab.peek_frames(&list) == expected, "at {offset}");

    lab.fill(&list);
    pointer.map(Claim::Reserve).unwrap();
    pointer.write_slice_at(0, values).unwrap();
    assert!(lab.peek_frames(&list) == expected, "at {offset}");
    let readable = PhysConstPtr::<T, _>::new(&*lab.manager, &list, offset, values.len()).unwrap();
    let mut read = vec![T::new_zeroed(); values.len()];
    readable.read_slice_at(0, &mut read).unwrap();
    assert_eq!(read, values);
    pointer.read_slice_at(values.len() / 2, &mut read[..values.len() - values.len() / 2]).unwrap();
    assert_eq!(read[0], values[values.len() / 2]);
    lab.manager.check_invariants();
}

#[test]
fn words_and_records_are_what_was_written_wherever_they_lie() {
    let lab = Lab::new();
    for offset in (0..9).chain([2047, 4079, 4080, 4085]).chain(4088..4096) {
        round_trip::<u8>(&lab, offset, &[1, 2, 3]);
        round_trip::<u16>(&lab, offset, &[0x0102, 0x0304, 0x0506]);
        round_trip::<u32>(&lab, offset, &[0x0102_0304, 0x0506_0708]);
        round_trip::<u64>(&lab, offset, &[0x0102_0304_0506_0708, 0x1112_1314_1516_1718]);
        round_trip::<u128>(&lab, offset, &[u128::from_le_bytes([7; 16]), 1 << 77]);
        let record = Descriptor { address: u64::MAX - 1, len: 77, flags: 0x8001, next: 3 };
        round_trip(&lab, offset, &[record, Descriptor { next: 4, ..record }]);
        let odd = Odd { tag: 9, number: 0x1122_3344_5566_7788, rest: [1, 2, 3, 4] };
        round_trip(&lab, offset, &[odd, Odd { tag: 8, ..odd }]);
    }
}

#[test]
fn a_run_of_values_goes_over_pages_that_lie_apart() {
    let lab = Lab::new();
    let bytes: Vec<u8> = (0..3).flat_map(pattern).collect();
    for (offset, end) in [(0, 3 * PAGE_LEN), (1, 3 * PAGE_LEN - 1), (4095, 2 * PAGE_LEN + 1), (4090, 4102)] {
        round_trip::<u8>(&lab, offset as u64, &bytes[offset..end]);
    }
    let list = frames(&SCATTERED);
    let words: Vec<u64> = (0..3 * 512).collect();
    let exact = lab.ptr::<u64>(&list, 0, words.len());
    exact.write_slice_at(0, &words).unwrap();
    assert_eq!(exact.read_at(words.len() - 1), Ok(words.len() as u64 - 1), "the last of all bytes");
    assert_eq!(lab.peek(frame(2).start(), 8), 512_u64.to_le_bytes(), "the second page in the list");
    assert_eq!(exact.read_at(words.len()), Err(PhysError::OutOfBounds));
}

#[test]
fn nothing_can_be_copied_at_the_end_and_not_behind_it() {
    let lab = Lab::new();
    let mut pointer = lab.ptr::<u32>(&frames(&[0]), 4, 3);
    for _ in 0..2 {
        for index in 0..=3 {
            assert_eq!(pointer.read_slice_at(index, &mut []), Ok(()));
            assert_eq!(pointer.write_slice_at(index, &[]), Ok(()));
            assert_eq!(pointer.copy_from(3 - index, &pointer, index, 0), Ok(()));
        }
        assert_eq!(pointer.read_slice_at(4, &mut []), Err(PhysError::OutOfBounds));
        assert_eq!(pointer.write_slice_at(4, &[]), Err(PhysError::OutOfBounds));
        assert_eq!(pointer.copy_from(4, &pointer, 0, 0), Err(PhysError::OutOfBounds));
        assert_eq!(pointer.read_at(3), Err(PhysError::OutOfBounds));
        let _ = pointer.map(Claim::Beside);
    }
    assert_eq!(lab.other.steps(), 0, "no byte was copied");

    // A pointer to no value at all.
    let mut none = lab.ptr::<u32>(&frames(&[0]), 4095, 0);
    assert_eq!(none.count(), 0);
    assert_eq!(none.read_at(0), Err(PhysError::OutOfBounds));
    assert_eq!(none.read_slice_at(0, &mut []), Ok(()));
    none.map(Claim::Reserve).unwrap();
    assert_eq!(none.write_slice_at(0, &[]), Ok(()));
    drop((none, pointer));
}

#[test]
fn an_access_shows_no_more_pages_than_it_needs() {
    let lab = Lab::new();
    let list = frames(&[5, 2, 9, 1]);
    lab.fill(&list);
    let pointer = lab.ptr::<u64>(&list, 8, 512);
    assert_eq!(pointer.count(), 512, "in two pages of four");
    let pages = |act: &dyn Fn()| {
        lab.manager.provider().unmapped.lock().unwrap().clear();
        act();
        let taken = lab.manager.provider().unmapped.lock().unwrap();
        taken.iter().map(|window| window.pages().get()).collect::<Vec<_>>()
    };
    assert_eq!(pages(&|| assert!(pointer.read_at(0).is_ok())), [1]);
    assert_eq!(pages(&|| assert!(pointer.read_at(510).is_ok())), [1], "the last of the first page");
    assert_eq!(pages(&|| assert!(pointer.read_at(511).is_ok())), [1], "the first of the second");
    assert_eq!(pages(&|| assert!(pointer.read_slice_at(510, &mut [0; 2]).is_ok())), [2]);
}

#[test]
fn contiguous_values_lie_in_pages_that_follow_each_other() {
    let lab = Lab::new();
    let start = frame(3).at(4090);
    let from = PhysConstPtr::<u64, _>::contiguous(&*lab.manager, start, 600).unwrap();
    let bytes = lab.fill(&frames(&[3, 4, 5]));
    let mut values = vec![0; 600];
    from.read_slice_at(0, &mut values).unwrap();
    assert!(values.as_bytes() == &bytes[4090..4090 + 4800]);
    let ranges = from.ranges().unwrap();
    assert_eq!(ranges.len(), 1);
    assert_eq!((ranges[0].start(), ranges[0].bytes()), (start.as_u64(), 4800));
    let scattered = lab.ptr::<u64>(&frames(&[3, 4, 7]), 4088, 514).ranges().unwrap();
    let expected = [(frame(3).at(4088).as_u64(), 8 + PAGE_SIZE), (frame(7).start().as_u64(), 8)];
    assert_eq!(scattered.iter().map(|range| (range.start(), range.bytes())).collect::<Vec<_>>(), expected);
}

#[test]
fn two_windows_on_one_page_show_the_same() {
    let lab = Lab::new();
    let list = frames(&[7]);
    lab.poke(frame(7).start(), &[0; 8]);
    let one = lab.manager.vmap(&list, Permission::ReadWrite, Claim::Beside).unwrap();
    let two = lab.manager.vmap(&list, Permission::Read, Claim::Beside).unwrap();
    assert_eq!((one.frames(), two.permission()), (&list[..], Permission::Read));
    one.write(3, b"seen").unwrap();
    let mut seen = [0; 4];
    two.read(3, &mut seen).unwrap();
    assert_eq!(&seen, b"seen");
    lab.other.act(|side| side.store(FrameNumber::at(frame(7), 3), b"also")).unwrap();
    two.read(3, &mut seen).unwrap();
    assert_eq!(&seen, b"also");
    assert!(!one.window().intersects(two.window()));
    drop(one);
    two.read(3, &mut seen).unwrap();
    drop(two);
}
