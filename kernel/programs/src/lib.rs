//! What the kernel's programs have in common: their start and end, calls, and how they report.
//!
//! A program is a list of checks. Each is a line that it writes, `ok  text` or `FAILED  text: why`; it exits with 0 if none
//! failed. Calls of Linux's family behave on a Linux host as they do on the kernel, so that a program without capabilities
//! shows the same there.
//!
//! Outside: what the checks are about (each program). Nothing is allocated but pages, and a line is put together on the
//! stack.
#![no_std]

pub mod given;
pub mod handover;
pub mod linux;
mod pages;
pub mod records;
mod report;
pub mod ring;
mod routines;
mod start;
pub mod threads;

pub use pages::Pages;
pub use report::{check, equal, say};
pub use start::Start;

/// How long a page is.
pub const PAGE: u64 = 4096;

/// Pages of the kernel that its tables show: what protects them is that they are not a user's, and nothing else.
pub mod kernel {
    /// Of its code.
    pub const CODE: u64 = 0xffff_ffff_8012_0000;
    /// Of the memory that it gives out.
    pub const MEMORY: u64 = 0xffff_8000_0800_0000;
}

/// Makes a function of a [`Start`] the program.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn program_main(start: &$crate::Start) {
            $main(start);
        }
    };
}
