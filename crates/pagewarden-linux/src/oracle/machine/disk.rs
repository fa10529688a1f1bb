//! What is behind a regular file: pages that the pager reads when they are touched, and writes back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pagewarden::Errno;
use pagewarden::object::{PageBytes, PageSource};

use super::super::program::PAGE;

/// `EFBIG`.
pub(super) const TOO_LARGE: Errno = Errno::Other(27);

/// A disk with one file. What was never written is zeros.
#[derive(Debug)]
pub(super) struct Disk {
    /// The longest that a file can be.
    bytes_max: u64,
    pages: Mutex<BTreeMap<u64, Box<PageBytes>>>,
}

impl Disk {
    /// A disk with files of at most so many bytes.
    pub(super) const fn new(bytes_max: u64) -> Self {
        Self { bytes_max, pages: Mutex::new(BTreeMap::new()) }
    }

    /// Whether a file can be so long.
    ///
    /// # Errors
    /// `EFBIG`.
    pub(super) const fn check(&self, bytes: u64) -> Result<(), Errno> {
        if bytes > self.bytes_max { Err(TOO_LARGE) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Box<PageBytes>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what lies beyond the first so many bytes.
    pub(super) fn truncate(&self, bytes: u64) {
        let mut pages = self.lock();
        pages.retain(|index, _| *index < bytes.div_ceil(PAGE));
        if let Some(last) = pages.get_mut(&(bytes / PAGE)) {
            last[usize::try_from(bytes % PAGE).unwrap_or(0)..].fill(0);
        }
    }
}

impl PageSource for Disk {
    fn read_page(&self, index: u64, page: &mut PageBytes) -> Result<(), Errno> {
        if let Some(bytes) = self.lock().get(&index) {
            page.copy_from_slice(bytes.as_slice());
        }
        Ok(())
    }

    fn write_page(&self, index: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut pages = self.lock();
        let page = pages.entry(index).or_insert_with(|| Box::new([0; 4096]));
        page[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn size(&self) -> u64 {
        0
    }

    fn punch(&self, first: u64, pages: u64) -> Result<(), Errno> {
        let end = first.saturating_add(pages);
        self.check(end.saturating_mul(PAGE))?;
        self.lock().retain(|index, _| !(first..end).contains(index));
        Ok(())
    }
}
