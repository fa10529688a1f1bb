//! process_madvise(2) on the caller's own memory: `mm/madvise.c:vector_madvise`.
//!
//! The ranges are advised one after the other. The first that fails ends the call, and the guest is told how many bytes
//! came before it; only if there were none it is told the error. That holds for errors that the platform alone can tell
//! too: after each range there is a checkpoint.

use super::madvise::advise;
use super::plan::{Draft, Plan, Refusal};
use super::space::Space;

/// What giving `advice` about all of `ranges` does to `space`.
pub(super) fn plan(space: &Space, ranges: &[(u64, u64)], advice: i32) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(space);
    let mut done: u64 = 0;
    for (addr, len) in ranges {
        if let Err(refusal) = advise(&mut draft, *addr, *len, advice)? {
            return draft.finish(if done > 0 { Ok(done) } else { Err(refusal) });
        }
        done = done.saturating_add(*len);
        if done > 0 {
            draft.checkpoint(done);
        }
    }
    draft.finish(Ok(done))
}
