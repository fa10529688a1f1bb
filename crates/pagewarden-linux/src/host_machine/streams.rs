//! How many pages a fault gets ready: more, the longer a guest walks through its memory.

use pagewarden::{PageCount, PageRange};

/// Walks that are told apart: a guest may copy from one place to another, or fill a few at once.
const STREAMS: usize = 4;
/// Pages that are got ready at once, at most.
const MOST: u64 = 64;

/// The last faults of a space.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Where they were.
    windows: [Option<PageRange>; STREAMS],
    /// The last one's place here.
    last: usize,
}

impl Streams {
    /// The pages to get ready with page `page`: an aligned block, twice as large as the one that it is the neighbour of.
    pub(super) fn window(&mut self, page: u64) -> PageRange {
        let is_neighbour = |last: &PageRange| last.end_page() == page || last.first_page() == page + 1;
        let found = self.windows.iter().position(|window| window.as_ref().is_some_and(is_neighbour));
        let before = found.and_then(|at| self.windows[at]).map_or(0, |window| window.pages().get());
        let pages = (before * 2).clamp(1, MOST).next_power_of_two();
        self.last = found.unwrap_or((self.last + 1) % STREAMS);
        let block = PageRange::from_pages(page & !(pages - 1), PageCount::new(pages));
        let window = block.unwrap_or_else(|| unreachable!("a fault is at a page of a view"));
        self.windows[self.last] = Some(window);
        window
    }

    /// As many pages were got ready in the last window's place.
    pub(super) fn note(&mut self, shown: PageRange) {
        self.windows[self.last] = Some(shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(pages: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut streams = Streams::default();
        pages.into_iter().map(|page| streams.window(page).pages().get()).collect()
    }

    #[test]
    fn windows_grow_along_a_walk_up_or_down() {
        assert_eq!(lengths([16, 17, 18, 20, 24, 32, 64, 128]), [1, 2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(lengths([255, 254, 253, 251, 247, 239, 223, 191, 127]), [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    }
}
