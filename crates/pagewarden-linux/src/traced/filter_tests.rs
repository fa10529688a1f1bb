//! Runs the filter programs in a small interpreter of classic BPF.

use super::*;

const ARCH: u32 = 0xc000_003e;
const ARCH_32: u32 = 0x4000_0003;

/// What the stack of filters answers to a call: the strictest of all answers, as the kernel does.
fn verdict(options: FilterOptions, arch: u32, number: i64, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(i32::try_from(number).unwrap().to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let answers = programs(options).unwrap().into_iter().map(|program| interpret(&program, &data));
    answers.min_by_key(|answer| answer.cast_signed() >> 16).unwrap()
}

fn interpret(program: &BpfProgram, data: &[u8]) -> u32 {
    let (mut at, mut acc) = (0usize, 0u32);
    loop {
        let step = &program[at];
        at += 1;
        let k = step.k;
        let jump = |met: bool| usize::from(if met { step.jt } else { step.jf });
        match step.code {
            0x20 => acc = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
            0x05 => at += k as usize,
            0x15 => at += jump(acc == k),
            0x25 => at += jump(acc > k),
            0x35 => at += jump(acc >= k),
            0x45 => at += jump(acc & k != 0),
            0x54 => acc &= k,
            0x06 => return k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const TRACE: u32 = libc::SECCOMP_RET_TRACE;

fn plain(number: i64, args: [u64; 6]) -> u32 {
    verdict(FilterOptions::default(), ARCH, number, args)
}

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.unsigned_abs()
}

#[test]
fn memory_calls_stop_and_others_do_not() {
    for (call, when) in TRACED {
        if *when == When::Always {
            assert_eq!(plain(*call, [0; 6]), TRACE, "call {call}");
        }
    }
    for call in [libc::SYS_read, libc::SYS_write, libc::SYS_openat, libc::SYS_execve, libc::SYS_futex] {
        assert_eq!(plain(call, [u64::MAX; 6]), ALLOW, "call {call}");
    }
}

#[test]
fn calls_behind_the_managers_back_are_refused() {
    for (call, when, number) in REFUSED {
        if *when == When::Always {
            assert_eq!(plain(*call, [0; 6]), errno(*number), "call {call}");
        }
    }
}

#[test]
fn arguments_decide_where_they_should() {
    let prctl = |option: u64| plain(libc::SYS_prctl, [option, 0, 0, 0, 0, 0]);
    assert_eq!(prctl(PR_SET_VMA.into()), TRACE);
    assert_eq!(prctl(22), errno(libc::EINVAL));
    assert_eq!(prctl(15), ALLOW);
    assert_eq!(prctl((1 << 32) | 22), errno(libc::EINVAL), "the option is an int");
    assert_eq!(plain(libc::SYS_prlimit64, [0, 9, 0, 0x1000, 0, 0]), ALLOW);
    assert_eq!(plain(libc::SYS_prlimit64, [0, 9, 1 << 40, 0, 0, 0]), TRACE);
    assert_eq!(plain(libc::SYS_personality, [u64::from(u32::MAX), 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(plain(libc::SYS_personality, [u64::from(READ_IMPLIES_EXEC), 0, 0, 0, 0, 0]), errno(libc::EINVAL));
    assert_eq!(plain(libc::SYS_personality, [0x4_0000, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(prctl(PR_SET_MDWE.into()), TRACE);
    assert_eq!(prctl(66), ALLOW, "to ask changes nothing");
    assert_eq!(plain(libc::SYS_clone, [0x0080_0011, 0, 0, 0, 0, 0]), errno(libc::EINVAL));
    assert_eq!(plain(libc::SYS_clone, [0x11, 0, 0, 0, 0, 0]), TRACE);
    assert_eq!(plain(libc::SYS_ioctl, [3, 0xaa00, 0, 0, 0, 0]), errno(libc::ENOTTY));
    assert_eq!(plain(libc::SYS_ioctl, [3, 0x5401, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn opens_for_writing_stop_only_when_they_are_watched() {
    let watching = FilterOptions { watch_opens: true, ..FilterOptions::default() };
    for flags in [libc::O_WRONLY, libc::O_RDWR] {
        let args = [0, 0, u64::from(flags.unsigned_abs()), 0, 0, 0];
        assert_eq!(plain(libc::SYS_openat, args), ALLOW);
        assert_eq!(verdict(watching, ARCH, libc::SYS_openat, args), TRACE);
    }
    assert_eq!(verdict(watching, ARCH, libc::SYS_openat, [0; 6]), ALLOW);
    assert_eq!(verdict(watching, ARCH, libc::SYS_openat2, [0; 6]), errno(libc::ENOSYS));
}

#[test]
fn other_ways_into_the_kernel_are_closed() {
    assert_eq!(verdict(FilterOptions::default(), ARCH_32, 20, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!(plain(0x4000_0000 | libc::SYS_mmap, [0; 6]), errno(libc::ENOSYS));
    assert_eq!(plain(0x4000_0000 | libc::SYS_getpid, [0; 6]), errno(libc::ENOSYS));
}

#[test]
fn hiding_is_answered_and_not_done_without_privilege() {
    let unprivileged = FilterOptions { unprivileged: true, ..FilterOptions::default() };
    let hide = [4, 0, 0, 0, 0, 0];
    assert_eq!(plain(libc::SYS_prctl, hide), ALLOW);
    assert_eq!(verdict(unprivileged, ARCH, libc::SYS_prctl, hide), errno(0));
    assert_eq!(verdict(unprivileged, ARCH, libc::SYS_prctl, [4, 1, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn calls_that_carry_out_plans_always_stop() {
    for call in [libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_brk, libc::SYS_shmat]
    {
        assert!(always_stops(call.cast_unsigned()), "{call}");
    }
    assert!(!always_stops(libc::SYS_close.cast_unsigned()));
}
