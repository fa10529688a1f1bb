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

/// A protection key: which of sixteen sets of rights, kept by each thread for itself, applies to a page besides its
/// own (pkeys(7)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ProtectionKey(u8);

impl ProtectionKey {
    /// How many there are.
    pub const COUNT: u8 = 16;
    /// The key of pages that were given none.
    pub const DEFAULT: Self = Self(0);

    /// The key numbered `number`, if there is one.
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for ProtectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.0)
    }
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
