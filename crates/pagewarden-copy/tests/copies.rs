//! Copies and words where nothing faults, against a model. What a fault does is shown where there are signals: by the
//! tests of the Linux platform.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use pagewarden_copy::{compare_exchange, copy, load, store};

const LONGEST: usize = 300;
const GUARD: u8 = 0xee;

/// A byte that tells the place that it came from.
fn byte_at(index: usize) -> u8 {
    u8::try_from(index * 7 % 229).unwrap()
}

/// Copies `len` bytes between two places and looks at every byte that there is.
fn check(source: usize, target: usize, len: usize) {
    let from: Vec<u8> = (0..LONGEST + 64).map(byte_at).collect();
    let mut to = [GUARD; LONGEST + 64];
    let from_start = from[source..source + len].as_ptr();
    let to_start = to[target..target + len].as_mut_ptr();
    // SAFETY: both slices are `len` long, and lie in different objects.
    assert_eq!(unsafe { copy(to_start, from_start, len) }, Ok(()));
    for (index, byte) in to.iter().enumerate() {
        let is_inside = (target..target + len).contains(&index);
        let expected = if is_inside { byte_at(index - target + source) } else { GUARD };
        assert_eq!(*byte, expected, "byte {index} of {len} from {source} to {target}");
    }
}

#[test]
fn every_length_at_every_alignment_is_copied_and_no_byte_more() {
    for len in 0..LONGEST {
        for source in 0..9 {
            for target in 16..25 {
                check(source, target, len);
            }
        }
    }
}

#[test]
fn long_copies_are_whole() {
    for len in [4095, 4096, 4097, 65_537, 1 << 20] {
        let from: Vec<u8> = (0..len).map(byte_at).collect();
        let mut to = vec![GUARD; len + 1];
        // SAFETY: both are at least `len` long, and different objects.
        assert_eq!(unsafe { copy(to.as_mut_ptr(), from.as_ptr(), len) }, Ok(()));
        assert!(to[..len] == from && to[len] == GUARD, "{len}");
    }
}

macro_rules! words {
    ($name:ident, $word:ty) => {
        #[test]
        fn $name() {
            const WIDTH: usize = size_of::<$word>();
            for offset in 0..16 {
                let mut bytes = [GUARD; 40];
                let word = <$word>::from_ne_bytes(std::array::from_fn(|index| byte_at(index + 1)));
                let at: *mut $word = bytes[offset..offset + WIDTH].as_mut_ptr().cast();
                // SAFETY: the word lies in the array.
                assert_eq!(unsafe { store(at, word) }, Ok(()));
                // SAFETY: as above.
                assert_eq!(unsafe { load(at.cast_const()) }, Ok(word));
                assert_eq!(bytes[offset..offset + WIDTH], word.to_ne_bytes());
                let others = bytes[..offset].iter().chain(&bytes[offset + WIDTH..]);
                assert!(others.copied().eq(std::iter::repeat_n(GUARD, 40 - WIDTH)), "at {offset}");
            }
        }
    };
}

words!(bytes_are_loaded_and_stored, u8);
words!(words_of_two_bytes_are_loaded_and_stored, u16);
words!(words_of_four_bytes_are_loaded_and_stored, u32);
words!(words_of_eight_bytes_are_loaded_and_stored, u64);

#[test]
fn a_word_is_exchanged_if_it_is_what_was_expected() {
    let mut words = [u64::MAX, 0x1122_3344_5566_7788, u64::MAX];
    let at = &raw mut words[1];
    // SAFETY: the word lies in the array, aligned.
    assert_eq!(unsafe { compare_exchange(at, 1, 2) }, Ok(0x1122_3344_5566_7788));
    // SAFETY: as above.
    assert_eq!(unsafe { compare_exchange(at, 0x1122_3344_5566_7788, 3) }, Ok(0x1122_3344_5566_7788));
    assert_eq!(words, [u64::MAX, 3, u64::MAX]);
    let mut halves = [u32::MAX, 0x8000_0001, u32::MAX];
    let at = &raw mut halves[1];
    // SAFETY: the word lies in the array, aligned.
    assert_eq!(unsafe { compare_exchange(at, 1, 2) }, Ok(0x8000_0001));
    // SAFETY: as above.
    assert_eq!(unsafe { compare_exchange(at, 0x8000_0001, 4) }, Ok(0x8000_0001));
    assert_eq!(halves, [u32::MAX, 4, u32::MAX]);
}
