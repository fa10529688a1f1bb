//! The seccomp filters that every guest process carries: which calls stop, which are refused.
//!
//! Filters are stacked, and the strictest answer counts: kill > errno > trace > allow. One literal program
//! refuses x32 numbers; each errno of [`REFUSED`] makes a program; [`TRACED`] makes the last. All of them
//! kill a process that enters by another architecture (`int 0x80`, 32-bit code). A call named nowhere is
//! allowed by the kernel's own cache of filter results and does not stop. Why each call is where it is
//! stands in the table in [the module's header](super).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// Which calls of a number are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum When {
    /// All.
    Always,
    /// Those where the lower half of an argument is this.
    IntIs(u8, u32),
    /// Those where an argument is not this.
    WordIsNot(u8, u64),
    /// Those where an argument has all these bits.
    Bits(u8, u64),
    /// Those where an argument has all these bits, and its lower half is not the second number.
    BitsUnless(u8, u64, u32),
    /// Those where the lower halves of two arguments are these.
    IntsAre([(u8, u32); 2]),
}

impl When {
    fn rules(self) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        use SeccompCmpArgLen::{Dword, Qword};
        let conditions = match self {
            Self::Always => return Ok(Vec::new()),
            Self::IntIs(arg, value) => vec![condition(arg, Dword, SeccompCmpOp::Eq, value.into())?],
            Self::WordIsNot(arg, value) => vec![condition(arg, Qword, SeccompCmpOp::Ne, value)?],
            Self::Bits(arg, bits) => vec![condition(arg, Qword, SeccompCmpOp::MaskedEq(bits), bits)?],
            Self::BitsUnless(arg, bits, value) => vec![
                condition(arg, Qword, SeccompCmpOp::MaskedEq(bits), bits)?,
                condition(arg, Dword, SeccompCmpOp::Ne, value.into())?,
            ],
            Self::IntsAre([(a, x), (b, y)]) => {
                vec![condition(a, Dword, SeccompCmpOp::Eq, x.into())?, condition(b, Dword, SeccompCmpOp::Eq, y.into())?]
            }
        };
        Ok(vec![SeccompRule::new(conditions)?])
    }
}

fn condition(
    arg: u8,
    len: SeccompCmpArgLen,
    op: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(arg, len, op, value)
}

/// `PR_SET_VMA` (linux/prctl.h).
pub(super) const PR_SET_VMA: u32 = 0x5356_4d41;
const PR_SET_SYSCALL_USER_DISPATCH: u32 = 59;
/// `PR_SET_MDWE` (linux/prctl.h). What it has set, `PR_GET_MDWE` tells without stopping.
pub(super) const PR_SET_MDWE: u32 = 65;
/// `READ_IMPLIES_EXEC` (linux/personality.h).
pub(super) const READ_IMPLIES_EXEC: u32 = 0x0040_0000;
/// `_IO(USERFAULTFD_IOC, 0)`: makes a userfaultfd from its device.
const USERFAULTFD_IOC_NEW: u32 = 0xaa00;
const ARCH_MAP_VDSO_X32: u32 = 0x2001;
const ARCH_MAP_VDSO_32: u32 = 0x2002;
const ARCH_MAP_VDSO_64: u32 = 0x2003;
const ARCH_ENABLE_TAGGED_ADDR: u32 = 0x4002;
const ARCH_SHSTK_ENABLE: u32 = 0x5001;
/// mseal(2).
pub(super) const SYS_MSEAL: i64 = 462;
const SYS_MAP_SHADOW_STACK: i64 = 453;
const CLONE_UNTRACED: u64 = 0x0080_0000;

/// Calls that stop for the tracer.
pub(super) const TRACED: &[(i64, When)] = &[
    (libc::SYS_mmap, When::Always),
    (libc::SYS_munmap, When::Always),
    (libc::SYS_mprotect, When::Always),
    (libc::SYS_pkey_mprotect, When::Always),
    (libc::SYS_pkey_alloc, When::Always),
    (libc::SYS_pkey_free, When::Always),
    (SYS_MSEAL, When::Always),
    (libc::SYS_mremap, When::Always),
    (libc::SYS_brk, When::Always),
    (libc::SYS_madvise, When::Always),
    (libc::SYS_process_madvise, When::Always),
    (libc::SYS_remap_file_pages, When::Always),
    (libc::SYS_mlock, When::Always),
    (libc::SYS_mlock2, When::Always),
    (libc::SYS_munlock, When::Always),
    (libc::SYS_mlockall, When::Always),
    (libc::SYS_munlockall, When::Always),
    (libc::SYS_shmat, When::Always),
    (libc::SYS_shmdt, When::Always),
    (libc::SYS_shmget, When::Always),
    (libc::SYS_shmctl, When::IntIs(1, 0)),
    (libc::SYS_ftruncate, When::Always),
    (libc::SYS_fallocate, When::Always),
    (libc::SYS_prctl, When::IntIs(0, PR_SET_VMA)),
    (libc::SYS_prctl, When::IntIs(0, PR_SET_MDWE)),
    (libc::SYS_clone, When::Always),
    (libc::SYS_clone3, When::Always),
    (libc::SYS_fork, When::Always),
    (libc::SYS_vfork, When::Always),
    (libc::SYS_setrlimit, When::Always),
    (libc::SYS_prlimit64, When::WordIsNot(2, 0)),
];

/// Calls by which a process changes its credentials. They stop too.
pub(super) const CREDENTIALS: [i64; 7] = [
    libc::SYS_capset,
    libc::SYS_setuid,
    libc::SYS_setreuid,
    libc::SYS_setresuid,
    libc::SYS_setfsuid,
    libc::SYS_unshare,
    libc::SYS_setns,
];

/// Calls that stop too when nothing may be written past its rights: those that open a file for writing.
const TRACED_OPENS: &[(i64, When)] = &[
    (libc::SYS_open, When::Bits(1, libc::O_WRONLY as u64)),
    (libc::SYS_open, When::Bits(1, libc::O_RDWR as u64)),
    (libc::SYS_openat, When::Bits(2, libc::O_WRONLY as u64)),
    (libc::SYS_openat, When::Bits(2, libc::O_RDWR as u64)),
    (libc::SYS_creat, When::Always),
];

/// Calls that the filter answers with an error.
pub(super) const REFUSED: &[(i64, When, i32)] = &[
    (libc::SYS_io_uring_setup, When::Always, libc::ENOSYS),
    (libc::SYS_io_uring_enter, When::Always, libc::ENOSYS),
    (libc::SYS_io_uring_register, When::Always, libc::ENOSYS),
    (libc::SYS_io_setup, When::Always, libc::ENOSYS),
    (libc::SYS_userfaultfd, When::Always, libc::ENOSYS),
    (libc::SYS_memfd_secret, When::Always, libc::ENOSYS),
    (SYS_MAP_SHADOW_STACK, When::Always, libc::ENOSYS),
    (libc::SYS_seccomp, When::Always, libc::ENOSYS),
    (libc::SYS_ioctl, When::IntIs(1, USERFAULTFD_IOC_NEW), libc::ENOTTY),
    (libc::SYS_ptrace, When::Always, libc::EPERM),
    (libc::SYS_process_vm_writev, When::Always, libc::EPERM),
    (libc::SYS_prctl, When::IntIs(0, libc::PR_SET_MM as u32), libc::EPERM),
    (libc::SYS_prctl, When::IntIs(0, libc::PR_SET_SECCOMP as u32), libc::EINVAL),
    (libc::SYS_prctl, When::IntIs(0, PR_SET_SYSCALL_USER_DISPATCH), libc::EINVAL),
    (libc::SYS_personality, When::BitsUnless(0, READ_IMPLIES_EXEC as u64, u32::MAX), libc::EINVAL),
    (libc::SYS_clone, When::Bits(0, CLONE_UNTRACED), libc::EINVAL),
    (libc::SYS_arch_prctl, When::IntIs(0, ARCH_MAP_VDSO_X32), libc::EINVAL),
    (libc::SYS_arch_prctl, When::IntIs(0, ARCH_MAP_VDSO_32), libc::EINVAL),
    (libc::SYS_arch_prctl, When::IntIs(0, ARCH_MAP_VDSO_64), libc::EINVAL),
    (libc::SYS_arch_prctl, When::IntIs(0, ARCH_ENABLE_TAGGED_ADDR), libc::EINVAL),
    (libc::SYS_arch_prctl, When::IntIs(0, ARCH_SHSTK_ENABLE), libc::EINVAL),
];

/// Refused too when nothing may be written past its rights: its flags lie in memory, where no filter sees them.
const REFUSED_OPENS: &[(i64, When, i32)] = &[(libc::SYS_openat2, When::Always, libc::ENOSYS)];

/// Refused too when pagewarden could not look at a guest that hides from tracers without privilege.
const REFUSED_UNPRIVILEGED: &[(i64, When, i32)] =
    &[(libc::SYS_prctl, When::IntsAre([(0, libc::PR_SET_DUMPABLE as u32), (1, 0)]), 0)];

/// Whether the filter stops call `number`, at least with the arguments that carry out a plan.
pub(super) fn always_stops(number: u64) -> bool {
    TRACED.iter().any(|(call, _)| call.cast_unsigned() == number)
}

/// What the filters depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct FilterOptions {
    /// Files that are opened for writing are looked at.
    pub(super) watch_opens: bool,
    /// pagewarden has no `CAP_SYS_PTRACE`.
    pub(super) unprivileged: bool,
}

/// All programs, in the order in which they are to be installed.
pub(super) fn programs(options: FilterOptions) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut refused: BTreeMap<i32, Vec<(i64, When)>> = BTreeMap::new();
    let for_opens = if options.watch_opens { REFUSED_OPENS } else { &[] };
    let for_unprivileged = if options.unprivileged { REFUSED_UNPRIVILEGED } else { &[] };
    for (call, when, errno) in REFUSED.iter().chain(for_opens).chain(for_unprivileged) {
        refused.entry(*errno).or_default().push((*call, *when));
    }
    let for_opens = if options.watch_opens { TRACED_OPENS } else { &[] };
    let mut traced: Vec<(i64, When)> = TRACED.iter().chain(for_opens).copied().collect();
    traced.extend(CREDENTIALS.map(|call| (call, When::Always)));
    let traced = program(traced, SeccompAction::Trace(0))?;
    let mut programs = vec![x32_program(), traced];
    // By number: `ENOSYS`, the largest, is what seccomp(2) itself gets, so its program must be the last.
    for (errno, calls) in refused {
        programs.push(program(calls, SeccompAction::Errno(errno.unsigned_abs()))?);
    }
    Ok(programs)
}

fn program(calls: Vec<(i64, When)>, action: SeccompAction) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, when) in calls {
        rules.entry(call).or_default().extend(when.rules()?);
    }
    SeccompFilter::new(rules, SeccompAction::Allow, action, TargetArch::x86_64)?.try_into()
}

#[expect(clippy::cast_possible_truncation, reason = "opcodes have 16 bits")]
const fn opcode(word: u32) -> u16 {
    word as u16
}

/// Answers `ENOSYS` to numbers of the x32 ABI, which share the architecture and differ by one bit.
fn x32_program() -> BpfProgram {
    const LOAD_WORD: u16 = opcode(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
    const JUMP_IF_BITS: u16 = opcode(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K);
    const RETURN: u16 = opcode(libc::BPF_RET | libc::BPF_K);
    const NUMBER_OFFSET: u32 = 0;
    const X32_BIT: u32 = 0x4000_0000;
    vec![
        sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: NUMBER_OFFSET },
        sock_filter { code: JUMP_IF_BITS, jt: 0, jf: 1, k: X32_BIT },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs() },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ]
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
