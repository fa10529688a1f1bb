//! Where a comparison ends, because the kernel keeps regions apart that look alike.
//!
//! A manager does not see the history of pages, and holds them to be one (docs/linux.md). What comes after a call that
//! has met such a seam on one side only has nothing in common.

use super::compare::Transcript;
use super::program::{Arg, Call, PAGE, Program, Step};

/// Both sides up to the first call whose answer a seam explains:
///
/// - an mremap(2) that only one side refuses with `EFAULT`: it does not cross seams;
/// - a move of several regions that both refuse for want of memory, if what follows differs: how far it got before;
/// - a remap_file_pages(2) that both refuse for different reasons: later kernels of 6.18 mark the regions that have
///   ever had guards, as they split and merge them, and refuse with `EINVAL` what another reason would refuse a little
///   later;
/// - an mprotect(2) that only one side refuses with `ENOMEM`, under a limit, after a map that failed over what was
///   mapped there: that has left a seam, and the limit is compared with each region by itself.
pub(super) fn up_to_seam(
    program: &Program,
    (mut left, mut right): (Transcript, Transcript),
) -> (Transcript, Transcript) {
    let step = |line: &str| program.steps.get(line.split(' ').next()?.parse::<usize>().ok()?);
    let both = || left.lines.iter().zip(&right.lines);
    let differing = both().position(|(left, right)| left != right);
    let agreed = &left.lines[..differing.unwrap_or(left.lines.len().min(right.lines.len()))];
    let failed_with = |errno: &str, is_such: fn(&Step) -> bool| {
        agreed.iter().position(|line| line.ends_with(errno) && step(line).is_some_and(is_such))
    };
    let is_limited = agreed.iter().any(|line| step(line).is_some_and(|step| step.call == Call::Limit));
    let is_cut = is_limited && failed_with(" ! ENOMEM", maps_over).is_some();
    let is_seam = |(left, right): (&String, &String)| match step(left).map(|step| step.call) {
        Some(Call::Mremap) => left.ends_with(" ! EFAULT") != right.ends_with(" ! EFAULT"),
        Some(Call::RemapPages) => left.ends_with(" ! EINVAL") && right.contains(" ! ") && !right.ends_with(" ! EINVAL"),
        Some(Call::Mprotect) => is_cut && left.ends_with(" ! ENOMEM") != right.ends_with(" ! ENOMEM"),
        _ => false,
    };
    let stuck = failed_with(" ! ENOMEM", moves_several).filter(|_| left != right);
    if let Some(at) = stuck.or_else(|| both().position(is_seam)) {
        left.lines.truncate(at);
        right.lines.truncate(at);
    }
    (left, right)
}

/// Whether the call is an mmap(2) that replaces what is there.
fn maps_over(step: &Step) -> bool {
    let fixed = u64::from(libc::MAP_FIXED.cast_unsigned());
    step.call == Call::Mmap && matches!(step.args[3], Arg::Value(flags) if flags & fixed != 0)
}

/// Whether the call is an mremap(2) that moves more than one page to a place that it names, or that leaves them mapped.
fn moves_several(step: &Step) -> bool {
    let flags = u64::from((libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP).cast_unsigned());
    step.call == Call::Mremap
        && matches!(step.args[1..4], [Arg::Value(old), Arg::Value(new), Arg::Value(word)]
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
    const NO_MEMORY: &str = "! ENOMEM";

    #[test]
    fn a_map_that_fails_over_another_leaves_a_seam_that_limits_meet() {
        let compared = |steps: [&str; 3], mapped, [host, manager]: [&str; 2]| {
            compared(&steps, &[DONE, mapped, host], &[DONE, mapped, manager])
        };
        let cut = [LIMIT, MAP_OVER, PROTECT];
        assert_eq!(compared(cut, NO_MEMORY, [NO_MEMORY, DONE]), 2);
        assert_eq!(compared(cut, NO_MEMORY, [DONE, NO_MEMORY]), 2);
        assert_eq!(compared(cut, DONE, [NO_MEMORY, DONE]), 3, "the map did not fail");
        assert_eq!(compared(cut, NO_MEMORY, ["! EACCES", DONE]), 3, "another error");
        assert_eq!(compared([MAP_BESIDE, MAP_OVER, PROTECT], NO_MEMORY, [NO_MEMORY, DONE]), 3, "no limit");
        assert_eq!(compared([LIMIT, MAP_BESIDE, PROTECT], NO_MEMORY, [NO_MEMORY, DONE]), 3, "nothing was there");
    }

    #[test]
    fn an_mremap_that_one_side_refuses_ends_the_comparison() {
        let mremap = "mremap w+0x1000 0x2000 0x3000 0x1 0x0";
        assert_eq!(compared(&[mremap, PROTECT], &["! EFAULT", DONE], &["= 0x5", "! EINVAL"]), 0);
        assert_eq!(compared(&[PROTECT, PROTECT], &["! EFAULT", DONE], &["= 0x5", "! EINVAL"]), 2, "only mremap");
    }

    #[test]
    fn a_move_that_got_stuck_ends_the_comparison_if_what_follows_differs() {
        let compared = |mremap, [host, manager]: [&str; 2]| {
            compared(&[mremap, PROTECT], &[NO_MEMORY, host], &[NO_MEMORY, manager])
        };
        let several = "mremap w+0x1000 0x4000 0x4000 0x3 w+0x9000";
        assert_eq!(compared(several, [DONE, "! EACCES"]), 0);
        assert_eq!(compared(several, [DONE, DONE]), 2);
        assert_eq!(compared("mremap w+0x1000 0x4000 0x4000 0x7 0x0", [DONE, "! EACCES"]), 0);
        let single = "mremap w+0x1000 0x1000 0x1000 0x3 w+0x9000";
        assert_eq!(compared(single, [DONE, "! EACCES"]), 2, "a single page moves whole");
        let anywhere = "mremap w+0x1000 0x4000 0x4000 0x1 0x0";
        assert_eq!(compared(anywhere, [DONE, "! EACCES"]), 2, "only moves to a place take several regions along");
    }

    #[test]
    fn a_remap_that_both_refuse_for_different_reasons_ends_the_comparison() {
        let remap = "remap_pages w+0x1000 0x1000 0x0 0x1 0x0";
        assert_eq!(compared(&[remap], &["! EINVAL"], &["! EAGAIN"]), 0);
        assert_eq!(compared(&[remap], &["! EINVAL"], &[DONE]), 1);
        assert_eq!(compared(&[remap], &[DONE], &["! EINVAL"]), 1);
    }
}
