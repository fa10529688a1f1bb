//! Where a comparison ends, because the kernel keeps regions apart that look alike.
//!
//! A manager does not see the history of pages, and holds them to be one (docs/linux.md). What comes after a call that
//! has met such a seam on one side only has nothing in common.

use super::compare::Transcript;
use super::program::{Arg, Call, PAGE, Program, Step};

/// Both sides up to the first call whose answer a seam explains:
///
/// - an mremap(2) that only one side refuses with `EFAULT`: it does not cross seams;
/// - a remap_file_pages(2) that both refuse for different reasons: later kernels of 6.18 mark the regions that have
///   ever had guards, as they split and merge them, and refuse with `EINVAL` what another reason would refuse a little
///   later.
///
/// Or, if they differ, up to the first call of which a seam may decide how far it got:
///
/// - a move of several regions that both refuse for want of memory, or for a seal that is in the way;
/// - an mprotect(2) that a side refuses for want of memory, under a limit, after a map that failed over what was
///   mapped: that has left a seam, and the limit is compared with each region by itself;
/// - a touch that only one side forbids, after such a map, where there are stacks: one grows as long as its own piece
///   keeps to the limit;
/// - a remap_file_pages(2) that the host refuses with `EINVAL` after guards were asked for: the mark is the reason;
/// - an mprotect(2) after an mlock(2) that met a hole: what that has marked becomes resident when it becomes
///   writable, but not in an arena (`arena/locks.rs`).
pub(super) fn up_to_seam(
    program: &Program,
    (mut left, mut right): (Transcript, Transcript),
) -> (Transcript, Transcript) {
    let step = |line: &str| program.steps.get(line.split(' ').next()?.parse::<usize>().ok()?);
    let is_seam = |(left, right): (&String, &String)| match step(left).map(|step| step.call) {
        Some(Call::Mremap) => left.ends_with(" ! EFAULT") != right.ends_with(" ! EFAULT"),
        Some(Call::RemapPages) => left.ends_with(" ! EINVAL") && right.contains(" ! ") && !right.ends_with(" ! EINVAL"),
        _ => false,
    };
    let mut history = History::default();
    let decides = |(left, right): (&String, &String)| {
        let failed = |how| [left, right].map(|line| line.ends_with(how));
        let forbidden = [left, right].map(|line| line.contains(FAULT) || line.ends_with(UNREACHED));
        step(left).is_some_and(|step| {
            is_stuck(step, failed(SEALED))
                || history.decides(step, failed(NO_MEMORY))
                || history.grows(forbidden)
                || history.parts(step, failed(INVALID))
        })
    };
    let mut both = left.lines.iter().zip(&right.lines);
    let decided = if left == right { None } else { both.clone().position(decides) };
    if let Some(at) = both.position(is_seam).into_iter().chain(decided).min() {
        left.lines.truncate(at);
        right.lines.truncate(at);
    }
    (left, right)
}

/// How a line ends where there was no memory.
const NO_MEMORY: &str = " ! ENOMEM";

/// How a line ends where the host has found marks of guards, or anything else that makes no sense.
const INVALID: &str = " ! EINVAL";

/// What a line says of a touch that is forbidden.
const FAULT: &str = " fault signal ";

/// How a line ends where a copy met such a place.
const UNREACHED: &str = " ! EFAULT";

/// How a line ends where something was sealed.
const SEALED: &str = " ! EPERM";

/// Whether a move that both sides refuse may have got half-way, by as many regions as there are to the host.
fn is_stuck(step: &Step, failed: [bool; 2]) -> bool {
    step.call == Call::Mremap && failed == [true; 2] && moves_several(step)
}

/// What earlier steps may have left seams for.
#[derive(Default)]
struct History {
    /// There is a limit.
    limited: bool,
    /// A map has failed over what was mapped.
    cut: bool,
    /// An mlock has met a hole.
    marked: bool,
    /// There is a stack besides the program's own.
    stacks: bool,
    /// Guards were asked for.
    guarded: bool,
}

impl History {
    /// Takes note of a step that failed for want of memory, or not, on each side. Whether a seam may decide how far
    /// it got.
    fn decides(&mut self, step: &Step, failed: [bool; 2]) -> bool {
        let (both, either) = (failed == [true; 2], failed != [false; 2]);
        match step.call {
            Call::Limit => self.limited = true,
            Call::Mmap => {
                self.cut |= both && has_flag(step, libc::MAP_FIXED);
                self.stacks |= has_flag(step, libc::MAP_GROWSDOWN);
            }
            Call::Mlock | Call::Mlock2 => self.marked |= both,
            Call::Madvise => self.guarded |= step.args[2] == INSTALL_GUARD,
            Call::ProcessMadvise => self.guarded |= step.args[0] == INSTALL_GUARD,
            Call::Mremap => return is_stuck(step, failed),
            Call::Mprotect | Call::PkeyMprotect => return self.marked || either && self.limited && self.cut,
            _ => {}
        }
        false
    }

    /// Whether a remap that the host refuses may have met the mark of guards.
    fn parts(&self, step: &Step, refused: [bool; 2]) -> bool {
        self.guarded && step.call == Call::RemapPages && refused == [true, false]
    }

    /// Whether a touch may have met a stack that grows on one side only; each side has forbidden it, or not.
    fn grows(&self, forbidden: [bool; 2]) -> bool {
        self.cut && self.stacks && forbidden[0] != forbidden[1]
    }
}

/// `MADV_GUARD_INSTALL`.
const INSTALL_GUARD: Arg = Arg::Value(102);

/// Whether an mmap(2) has `flag`.
fn has_flag(step: &Step, flag: libc::c_int) -> bool {
    matches!(step.args[3], Arg::Value(flags) if flags & u64::from(flag.cast_unsigned()) != 0)
}

/// Whether an mremap(2) moves more than one page to a place that it names, or that leaves them mapped.
fn moves_several(step: &Step) -> bool {
    let flags = u64::from((libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP).cast_unsigned());
    matches!(step.args[1..4], [Arg::Value(old), Arg::Value(new), Arg::Value(word)]
        if word & flags != 0 && old == new && old > PAGE)
}

#[cfg(test)]
mod tests {
    use super::super::text::parse_step;
    use super::*;

    /// How many lines are compared when the host and the manager give these answers to `steps`.
    fn compared(steps: &[&str], host: &[&str], manager: &[&str]) -> usize {
        let program = Program { steps: steps.iter().map(|step| parse_step(step).unwrap()).collect() };
        let transcript = |answers: &[&str]| {
            let lines = answers.iter().enumerate().map(|(index, answer)| format!("{index} {answer}"));
            Transcript { lines: lines.collect() }
        };
        let (host, manager) = up_to_seam(&program, (transcript(host), transcript(manager)));
        assert_eq!(host.lines.len(), manager.lines.len());
        host.lines.len()
    }

    const LIMIT: &str = "limit 0x9 0x9000";
    const MAP_OVER: &str = "mmap w+0x1e000 0x9000 0x0 0x32 none 0x0";
    const MAP_BESIDE: &str = "mmap w+0x1e000 0x9000 0x0 0x22 none 0x0";
    const PROTECT: &str = "mprotect w+0x25000 0x3000 0x2";
    const DONE: &str = "= 0x0";
    const REFUSED: &str = "! ENOMEM";

    #[test]
    fn a_map_that_fails_over_another_leaves_a_seam_that_limits_meet() {
        let compared = |before: [&str; 2], mapped, host: [&str; 2], manager: [&str; 2]| {
            let (host, manager) = ([DONE, mapped, host[0], host[1]], [DONE, mapped, manager[0], manager[1]]);
            compared(&[before[0], before[1], PROTECT, "brk w+0x0"], &host, &manager)
        };
        let (done, refused, half) = ([DONE; 2], [REFUSED, DONE], [REFUSED, "= 0x1"]);
        assert_eq!(compared([LIMIT, MAP_OVER], REFUSED, refused, done), 2);
        assert_eq!(compared([LIMIT, MAP_OVER], REFUSED, done, refused), 2);
        assert_eq!(compared([LIMIT, MAP_OVER], REFUSED, refused, half), 2, "both, but not as far");
        assert_eq!(compared([LIMIT, MAP_OVER], REFUSED, refused, refused), 4, "nothing differs");
        assert_eq!(compared([LIMIT, MAP_OVER], DONE, refused, done), 4, "the map did not fail");
        assert_eq!(compared([LIMIT, MAP_OVER], REFUSED, ["! EACCES", DONE], done), 4, "another error");
        assert_eq!(compared([MAP_BESIDE, MAP_OVER], REFUSED, refused, done), 4, "no limit");
        assert_eq!(compared([LIMIT, MAP_BESIDE], REFUSED, refused, done), 4, "nothing was there");
    }

    #[test]
    fn a_stack_that_a_failed_map_has_cut_grows_by_the_size_of_its_piece() {
        let stack = "mmap w+0x1000 0x800000 0x2 0x122 none 0x0";
        let fault = "fault signal 11 code 1 at 0x1000000000";
        let compared = |first, mapped, [host, manager]: [&str; 2]| {
            compared(&[first, MAP_OVER, "store w+0x0 0x1000 0x0"], &[DONE, mapped, host], &[DONE, mapped, manager])
        };
        assert_eq!(compared(stack, REFUSED, [DONE, fault]), 2);
        assert_eq!(compared(stack, REFUSED, ["! EFAULT", DONE]), 2);
        assert_eq!(compared(stack, REFUSED, [DONE, "= 0x1"]), 3, "both may");
        assert_eq!(compared(stack, DONE, [DONE, fault]), 3, "the map did not fail");
        assert_eq!(compared(MAP_BESIDE, REFUSED, [DONE, fault]), 3, "no stack");
    }

    #[test]
    fn what_an_mlock_has_marked_up_to_a_hole_may_become_resident_with_new_rights() {
        let compared = |lock, locked, last: [&str; 2]| {
            compared(&[lock, PROTECT, "brk w+0x0"], &[locked, DONE, last[0]], &[locked, DONE, last[1]])
        };
        for lock in ["mlock w+0x0 0x5000", "mlock2 w+0x0 0x5000 0x0"] {
            assert_eq!(compared(lock, REFUSED, [DONE, "= 0x1"]), 1);
            assert_eq!(compared(lock, REFUSED, [DONE, DONE]), 3);
            assert_eq!(compared(lock, DONE, [DONE, "= 0x1"]), 3, "it met no hole");
        }
    }

    #[test]
    fn an_mremap_that_one_side_refuses_ends_the_comparison() {
        let mremap = "mremap w+0x1000 0x2000 0x3000 0x1 0x0";
        assert_eq!(compared(&[mremap, PROTECT], &["! EFAULT", DONE], &["= 0x5", "! EINVAL"]), 0);
        assert_eq!(compared(&[PROTECT, PROTECT], &["! EFAULT", DONE], &["= 0x5", "! EINVAL"]), 2, "only mremap");
        let steps = [mremap, "mlock w+0x0 0x1000", PROTECT];
        let sides = [["! EFAULT", REFUSED, DONE], [DONE, REFUSED, DONE]];
        assert_eq!(compared(&steps, &sides[0], &sides[1]), 0, "whatever else would end it later");
    }

    #[test]
    fn a_move_that_got_stuck_ends_the_comparison_if_what_follows_differs() {
        let sides = |mremap, refused, [host, manager]: [&str; 2]| {
            compared(&[mremap, PROTECT], &[refused, host], &[refused, manager])
        };
        let compared = |mremap, answers| sides(mremap, REFUSED, answers);
        let several = "mremap w+0x1000 0x4000 0x4000 0x3 w+0x9000";
        assert_eq!(compared(several, [DONE, "! EACCES"]), 0);
        assert_eq!(compared(several, [DONE, DONE]), 2);
        assert_eq!(sides(several, "! EPERM", [DONE, "! EACCES"]), 0, "at a seal");
        assert_eq!(sides(several, "! EINVAL", [DONE, "! EACCES"]), 2, "before anything moved");
        assert_eq!(compared("mremap w+0x1000 0x4000 0x4000 0x7 0x0", [DONE, "! EACCES"]), 0);
        let single = "mremap w+0x1000 0x1000 0x1000 0x3 w+0x9000";
        assert_eq!(compared(single, [DONE, "! EACCES"]), 2, "a single page moves whole");
        let anywhere = "mremap w+0x1000 0x4000 0x4000 0x1 0x0";
        assert_eq!(compared(anywhere, [DONE, "! EACCES"]), 2, "only moves to a place take several regions along");
    }

    #[test]
    fn a_remap_that_the_host_refuses_where_guards_were_ends_the_comparison() {
        let remap = "remap_pages w+0x1000 0x1000 0x0 0x1 0x0";
        let sides = |first, [host, manager]: [&str; 2]| {
            compared(&[first, remap, "brk w+0x0"], &[DONE, host, DONE], &[DONE, manager, DONE])
        };
        for guard in ["madvise w+0x1000 0x1000 0x66", "process_madvise 0x66 0x10 w+0x1000 0x1000 w+0x0 0x0"] {
            assert_eq!(sides(guard, ["! EINVAL", DONE]), 1);
            assert_eq!(sides(guard, [DONE, "! EINVAL"]), 3, "only the host has marks");
        }
        assert_eq!(sides("madvise w+0x1000 0x1000 0x4", ["! EINVAL", DONE]), 3, "no guard");
    }

    #[test]
    fn a_remap_that_both_refuse_for_different_reasons_ends_the_comparison() {
        let remap = "remap_pages w+0x1000 0x1000 0x0 0x1 0x0";
        assert_eq!(compared(&[remap], &["! EINVAL"], &["! EAGAIN"]), 0);
        assert_eq!(compared(&[remap], &["! EINVAL"], &[DONE]), 1);
        assert_eq!(compared(&[remap], &[DONE], &["! EINVAL"]), 1);
    }
}
