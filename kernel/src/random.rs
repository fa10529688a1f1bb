//! Bytes for programs that want some: from the processor where it has a source, else from its clock.

use core::arch::x86_64::_rdtsc;

use x86_64::instructions::random::RdRand;

/// 16 bytes.
pub(crate) fn bytes() -> [u8; 16] {
    let word = || {
        let drawn = RdRand::new().and_then(RdRand::get_u64);
        // SAFETY: every x86-64 processor has a clock that user and kernel code may read.
        drawn.unwrap_or_else(|| unsafe { _rdtsc() })
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&word().to_le_bytes());
    bytes[8..].copy_from_slice(&word().to_le_bytes());
    bytes
}
