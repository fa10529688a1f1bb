//! Running the operations of a plan, all or none.

use super::plan::{Cause, Refusal};
use crate::error::Errno;
use crate::provider::{Lock, Op, PageManagementProvider, Source, Target};

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

/// Takes one operation back. Planners put what cannot be taken back last, so that nothing is lost here.
fn undo(provider: &mut impl PageManagementProvider, op: &Op) {
    let Some(inverse) = inverse(op) else { return };
    // An undo that fails too leaves more mapped than the manager knows, never less: the operations chosen
    // here only take away or restore rights.
    let _ = provider.run(&inverse);
}

fn inverse(op: &Op) -> Option<Op> {
    match op {
        Op::Map { range, target: Target::Vacant, .. } => Some(Op::Unmap { range: *range }),
        Op::Protect { range, from, to } => Some(Op::Protect { range: *range, from: *to, to: *from }),
        // Where the old place was kept it is empty, and the way back replaces it.
        Op::Move { from, to, .. } if from.pages() == to.pages() => {
            Some(Op::Move { from: *to, to: *from, source: Source::Removed })
        }
        Op::Grow { from, to } => to.from(from.end()).map(|range| Op::Unmap { range }),
        Op::Duplicate { to, target: Target::Vacant, .. } => Some(Op::Unmap { range: *to }),
        Op::Lock { range, lock: Lock::Now | Lock::OnFault } => Some(Op::Lock { range: *range, lock: Lock::Released }),
        Op::SetBreak { from, to } => Some(Op::SetBreak { from: *to, to: *from }),
        _ => None,
    }
}
