//! The bits of a chunk: which of its 512 frames are free.

use super::runs::Run;
use crate::frame::sections::CHUNK;

const WORDS: usize = CHUNK / 64;

/// 512 bits; a bit is 1 for a frame that is free.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Field([u64; WORDS]);

impl Field {
    pub(super) const ALL: Self = Self([u64::MAX; WORDS]);

    #[inline]
    pub(super) const fn contains(&self, bit: usize) -> bool {
        self.0[bit / 64] >> (bit % 64) & 1 == 1
    }

    #[inline]
    pub(super) const fn insert(&mut self, bit: usize) {
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    /// Puts a bit in; whether it was not in it.
    #[inline]
    pub(super) const fn insert_new(&mut self, bit: usize) -> bool {
        let word = &mut self.0[bit / 64 % WORDS];
        let with_it = *word | 1 << (bit % 64);
        let is_new = with_it != *word;
        *word = with_it;
        is_new
    }

    pub(super) fn is_subset(&self, of: &Self) -> bool {
        self.0.iter().zip(&of.0).all(|(word, of)| word & !of == 0)
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The bits of `first..end` in each word.
    fn masks(first: usize, end: usize) -> impl Iterator<Item = (usize, u64)> {
        (first / 64..end.div_ceil(64)).map(move |word| {
            let (from, to) = (first.max(word * 64) % 64, end.min(word * 64 + 64) - word * 64);
            (word, u64::MAX << from & u64::MAX >> (64 - to))
        })
    }

    pub(super) fn insert_range(&mut self, first: usize, end: usize) {
        for (word, mask) in Self::masks(first, end) {
            self.0[word] |= mask;
        }
    }

    pub(super) fn remove_range(&mut self, first: usize, end: usize) {
        for (word, mask) in Self::masks(first, end) {
            self.0[word] &= !mask;
        }
    }

    /// Whether one of `first..end` is in it.
    pub(super) fn has_any(&self, first: usize, end: usize) -> bool {
        Self::masks(first, end).any(|(word, mask)| self.0[word] & mask != 0)
    }

    /// Whether all of `first..end` are in it.
    pub(super) fn has_all(&self, first: usize, end: usize) -> bool {
        Self::masks(first, end).all(|(word, mask)| self.0[word] & mask == mask)
    }

    /// Moves the lowest `most` bits over into a field of their own.
    #[inline]
    pub(super) fn split_lowest(&mut self, mut most: usize) -> Self {
        let mut taken = Self::default();
        for (word, taken) in self.0.iter_mut().zip(&mut taken.0) {
            let count = word.count_ones() as usize;
            if count <= most {
                *taken = core::mem::take(word);
                most -= count;
                continue;
            }
            for _ in 0..most {
                let lowest = *word & word.wrapping_neg();
                *taken |= lowest;
                *word ^= lowest;
            }
            break;
        }
        taken
    }

    /// Takes every bit out, lowest first.
    #[inline]
    pub(super) fn drain(&mut self, mut each: impl FnMut(usize)) {
        for (index, word) in self.0.iter_mut().enumerate() {
            while *word != 0 {
                each(index * 64 + word.trailing_zeros() as usize);
                *word &= *word - 1;
            }
        }
    }

    /// The first bit from `from` on that is 1 (`flip` 0) or 0 (`flip` all ones).
    fn next(&self, from: usize, flip: u64) -> usize {
        let mut mask = u64::MAX << (from % 64);
        for index in from / 64..WORDS {
            let word = (self.0[index] ^ flip) & mask;
            if word != 0 {
                return index * 64 + word.trailing_zeros() as usize;
            }
            mask = u64::MAX;
        }
        CHUNK
    }

    /// The runs of ones: first, end.
    fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut at = 0;
        core::iter::from_fn(move || {
            let first = self.next(at, 0);
            at = self.next(first.min(CHUNK - 1), u64::MAX);
            (first < CHUNK).then_some((first, at))
        })
    }

    /// The lowest run of at least `frames` ones.
    pub(super) fn find_run(&self, frames: usize) -> Option<usize> {
        self.runs().find(|(first, end)| end - first >= frames).map(|(first, _)| first)
    }

    /// For each order up to 6 the places in `word` where as many ones as 2^order start, at a multiple of that.
    fn blocks(word: u64) -> [u64; 7] {
        let mut blocks = [word; 7];
        let places = [u64::MAX / 3, u64::MAX / 15, u64::MAX / 255, u64::MAX / 65535, 0x1_0000_0001, 1];
        for (order, places) in places.into_iter().enumerate() {
            blocks[order + 1] = blocks[order] & blocks[order] >> (1 << order) & places;
        }
        blocks
    }

    /// The lowest block of 2^`order` ones that starts at a multiple of its size.
    pub(super) fn find_block(&self, order: u32) -> Option<usize> {
        if let Some(words) = (1_usize << order).checked_div(64).filter(|words| *words > 1) {
            let mut blocks = self.0.chunks(words);
            return blocks.position(|block| block.iter().all(|word| *word == u64::MAX)).map(|at| at << order);
        }
        let mut words = self.0.iter().map(|word| Self::blocks(*word)[order as usize]).enumerate();
        words.find(|(_, places)| *places != 0).map(|(word, places)| word * 64 + places.trailing_zeros() as usize)
    }

    /// What a search for runs has to know.
    pub(super) fn summarise(&self) -> Run {
        let mut run = Run::default();
        for (first, end) in self.runs() {
            let frames = u32::try_from(end - first).unwrap_or(u32::MAX);
            run.most = run.most.max(frames);
            run.start = if first == 0 { frames } else { run.start };
            run.end = if end == CHUNK { frames } else { run.end };
        }
        run.orders = self.orders();
        run
    }

    /// One more than the order of the largest block; 0 if there is none.
    fn orders(&self) -> u32 {
        let all = self.0.iter().fold([0; 7], |mut all, word| {
            all.iter_mut().zip(Self::blocks(*word)).for_each(|(all, of_word)| *all |= of_word);
            all
        });
        match all.iter().rposition(|places| *places != 0) {
            Some(6) => (7..=9).rev().find(|order| self.find_block(*order).is_some()).unwrap_or(6) + 1,
            Some(order) => u32::try_from(order).unwrap_or(0) + 1,
            None => 0,
        }
    }
}
