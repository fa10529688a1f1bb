//! Access rights of pages.

use core::fmt;

bitflags::bitflags! {
    /// What a page may be used for. The bits are those of `PROT_*` (mmap(2)).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Prot: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXEC = 4;
    }
}

impl Prot {
    /// No access at all (`PROT_NONE`).
    pub const NONE: Self = Self::empty();
}

impl fmt::Display for Prot {
    /// `rwx` with `-` for what is missing, as in `/proc/PID/maps`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (right, letter) in [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::EXEC, 'x')] {
            write!(f, "{}", if self.contains(right) { letter } else { '-' })?;
        }
        Ok(())
    }
}
