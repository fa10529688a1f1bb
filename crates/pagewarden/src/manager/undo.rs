//! Running the operations of a plan, all or none.

use super::plan::{Cause, Refusal};
use crate::error::Errno;
use crate::provider::{Op, PageManagementProvider, Source};

/// Runs `ops` in order. If one fails, those before it are undone in reverse.
///
/// # Errors
/// The platform's reason.
pub(super) fn run_all(provider: &mut impl PageManagementProvider, ops: &[Op]) -> Result<(), Refusal> {
    for (done, op) in ops.iter().enumerate() {
        if let Err(errno) = provider.run(op) {
            for before in ops[..done].iter().rev() {
                undo(provider, before);
            }
            return Err(refusal(errno));
        }
    }
    Ok(())
}

/// The host's own limits and arguments that only it can judge are Linux's answer.
const fn refusal(errno: Errno) -> Refusal {
    Refusal::new(errno, Cause::Platform)
}

/// Takes one operation back.
fn undo(provider: &mut impl PageManagementProvider, op: &Op) {
    let Some(inverse) = inverse(op) else { return };
    // Should this fail too, the platform is worse off than the manager can repair; what is left is rights
    // or a place that differ, which a verifying platform reports.
    let _ = provider.run(&inverse);
}

/// The way back. Only these operations have another one after them in a plan, besides advice and names, which
/// change nothing that a program could rely on, and the pieces of a detached segment, which are gone.
fn inverse(op: &Op) -> Option<Op> {
    match op {
        Op::Protect { range, from, to } => Some(Op::Protect { range: *range, from: *to, to: *from }),
        Op::ProtectKey { range, from, to } => Some(Op::ProtectKey { range: *range, from: *to, to: *from }),
        // Where the old place was kept it is empty, and the way back replaces it.
        Op::Move { from, to, .. } if from.pages() == to.pages() => {
            Some(Op::Move { from: *to, to: *from, source: Source::Removed })
        }
        _ => None,
    }
}
