//! Where the pages of a file come from and go to.

use core::fmt::Debug;

use crate::addr::PAGE_LEN;
use crate::error::Errno;

/// The bytes of a page.
pub type PageBytes = [u8; PAGE_LEN];

/// A file that pages are read from and written back to.
///
/// Called without any lock of the core, from several threads at once. It may take long; nobody but those who want the
/// page waits.
pub trait PageSource: Send + Sync + Debug {
    /// Fills `page` with page `index` of the file. What lies beyond the end of the file is of no interest; `page` is all
    /// zeros before.
    ///
    /// # Errors
    /// The file's own. Whoever touched the page gets `SIGBUS`.
    fn read_page(&self, index: u64, page: &mut PageBytes) -> Result<(), Errno>;

    /// Writes the bytes that lie within the file, at least one, to page `index`.
    ///
    /// # Errors
    /// The file's own. The page stays dirty, and whoever asked for it to be written is told.
    fn write_page(&self, index: u64, bytes: &[u8]) -> Result<(), Errno>;

    /// How many bytes there are when the object is made; from then on the object is told
    /// ([`Pager::resize`](crate::pager::Pager::resize)).
    fn size(&self) -> u64;

    /// Makes whole pages of the file a hole that reads as zeros (`MADV_REMOVE`).
    ///
    /// # Errors
    /// By default `EOPNOTSUPP`: the file knows no holes.
    fn punch(&self, first: u64, pages: u64) -> Result<(), Errno> {
        let _ = (first, pages);
        Err(Errno::OpNotSupp)
    }
}
