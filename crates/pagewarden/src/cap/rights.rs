//! What a handle allows its holder to do.

use core::fmt;

bitflags::bitflags! {
    /// What the holder of a handle may do with the object. What a right means is the interface's affair; that rights
    /// never grow on their way from handle to handle is the table's.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Rights: u32 {
        /// Look at the contents.
        const READ = 1 << 0;
        /// Change the contents.
        const WRITE = 1 << 1;
        /// Run the contents as code.
        const EXECUTE = 1 << 2;
        /// Make the object appear in an address space; the access it gives there is bounded by the rights above.
        const MAP = 1 << 3;
        /// Hand a copy, or the handle itself, to another table.
        const TRANSFER = 1 << 4;
        /// Change the size.
        const RESIZE = 1 << 5;
    }
}

impl fmt::Display for Rights {
    /// `rwxmts` (read, write, execute, map, transfer, size) with `-` for what is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [
            (Self::READ, 'r'),
            (Self::WRITE, 'w'),
            (Self::EXECUTE, 'x'),
            (Self::MAP, 'm'),
            (Self::TRANSFER, 't'),
            (Self::RESIZE, 's'),
        ];
        for (right, letter) in letters {
            write!(f, "{}", if self.contains(right) { letter } else { '-' })?;
        }
        Ok(())
    }
}
