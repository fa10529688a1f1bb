//! Tests of what is changed in modules, and of what is refused. Prepared modules run in a stock engine, beside what they were
//! made from.

mod bytes;
mod changes;
mod equal;
mod refused;
mod stock;

use super::{ModuleError, Prepared, prepare};

/// Prepares the text of a module.
fn prepare_text(text: &str) -> Result<Prepared, ModuleError> {
    prepare(&wat::parse_str(text).expect("the text is a module's"))
}

/// Numbers that look random and are always the same (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from(word ^ (word >> 31)).unwrap_or(0) % end
    }
}
