//! What producer and consumer agree on: where records are, how long, and their checksums.

use crate::{PAGE, Pages};

/// How many pages are shared.
pub const PAGES: u64 = 2;
/// Where the producer's record is.
pub const RECORD: u64 = 0;
/// Where the consumer's answer is.
pub const ANSWER: u64 = PAGE;
/// The number of the last call, which has no record.
pub const END: u64 = u64::MAX;

/// Where the words of record `number` are; no two have the same length.
fn words(at: u64, number: u64) -> impl Iterator<Item = u64> {
    let bytes = 1000 + 64 * (number % 32);
    (at..at + bytes).step_by(8)
}

/// Writes record `number`; its checksum.
pub fn write(pages: Pages, at: u64, number: u64) -> u64 {
    for offset in words(at, number) {
        pages.store(offset, mix(mix(number, at), offset));
    }
    checksum(pages, at, number)
}

/// The checksum of the record `number` that is there.
pub fn checksum(pages: Pages, at: u64, number: u64) -> u64 {
    words(at, number).fold(number, |sum, offset| mix(sum, pages.load(offset)))
}

/// One word out of two, in which both can be seen.
const fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}
