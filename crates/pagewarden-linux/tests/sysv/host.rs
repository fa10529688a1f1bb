//! The host's System V segments, and users and namespaces to ask for them in.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use pagewarden::object::sysv::{SegmentLimits, SegmentStatus, StatusOf};
use pagewarden::{PAGE_SHIFT, PAGE_SIZE};
use pagewarden_linux::proc_maps;

/// Where segments are attached: nothing else is near.
pub(crate) const WINDOW: u64 = 0x1000_0000_0000;
/// Pages of the window.
pub(crate) const PAGES: u64 = 64;
/// The only supplementary group.
pub(crate) const GROUP: u32 = 1001;
/// `RLIMIT_MEMLOCK`.
pub(crate) const LOCK_LIMIT: u64 = 6 * PAGE_SIZE;

const IPC_RMID: i32 = 0;
const IPC_SET: i32 = 1;
const IPC_STAT: i32 = 2;
const IPC_INFO: i32 = 3;
const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;

/// This process as the host sees it.
pub(crate) struct Host;

/// `struct shminfo64`.
#[repr(C)]
#[derive(Default)]
struct LimitsOnHost {
    bytes_max: u64,
    bytes_min: u64,
    segments_max: u64,
    per_process: u64,
    pages_max: u64,
    unused: [u64; 4],
}

/// `struct shm_info`.
#[repr(C)]
#[derive(Default)]
struct UsageOnHost {
    segments: i32,
    pages: u64,
    resident: u64,
    swapped: u64,
    attempts: u64,
    successes: u64,
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap()
}

fn checked(answer: i64) -> Result<u64, i32> {
    if answer == -1 { Err(errno()) } else { Ok(answer.cast_unsigned()) }
}

pub(crate) fn now() -> i64 {
    // SAFETY: the time is returned, not stored.
    unsafe { libc::time(ptr::null_mut()) }
}

pub(crate) fn pid() -> i32 {
    std::process::id().cast_signed()
}

/// Why there can be no namespace of one's own, if there cannot.
pub(crate) fn why_not() -> Option<String> {
    let [answer] = super::child::in_child(|| {
        // SAFETY: this process, which ends soon, gets other segments.
        let failed = unsafe { libc::unshare(libc::CLONE_NEWIPC) };
        // SAFETY: no pointers.
        let is_root = unsafe { libc::geteuid() } == 0;
        [if failed != 0 { u64::from(errno().cast_unsigned()) } else { u64::from(!is_root) << 32 }]
    });
    match answer {
        0 => None,
        errno => Some(format!("an IPC namespace and three users need root: {errno:#x}")),
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        let limit = libc::rlimit { rlim_cur: LOCK_LIMIT, rlim_max: LOCK_LIMIT };
        // SAFETY: the kernel reads a whole limit.
        let failed = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
        assert_eq!(failed, 0);
        let groups = [GROUP];
        // SAFETY: the kernel reads one group.
        let failed = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
        assert_eq!(failed, 0);
        Self
    }

    pub(crate) fn new_namespace(&self, limits: &SegmentLimits) {
        // SAFETY: nothing is attached between sequences.
        let failed = unsafe { libc::unshare(libc::CLONE_NEWIPC) };
        assert_eq!(failed, 0, "{}", io::Error::last_os_error());
        let standard = SegmentLimits::default();
        let set =
            |name: &str, value: u64| std::fs::write(format!("/proc/sys/kernel/{name}"), value.to_string()).unwrap();
        if limits.segments_max != standard.segments_max {
            set("shmmni", limits.segments_max.into());
        }
        if limits.pages_max != standard.pages_max {
            set("shmall", limits.pages_max);
        }
        if limits.bytes_max != standard.bytes_max {
            set("shmmax", limits.bytes_max);
        }
    }

    /// Changes user and group, and with them the capabilities in effect.
    pub(crate) fn become_user(&self, user: u32) {
        for (number, id) in [(libc::SYS_setresuid, 0), (libc::SYS_setresgid, user), (libc::SYS_setresuid, user)] {
            // SAFETY: plain numbers; 0 stays as saved, so that there is a way back.
            let failed = unsafe { libc::syscall(number, id, id, 0) };
            assert_eq!(failed, 0, "{}", io::Error::last_os_error());
        }
    }

    pub(crate) fn get(&self, key: i32, bytes: u64, flags: i32) -> Result<i32, i32> {
        // SAFETY: plain numbers.
        let id = unsafe { libc::shmget(key, usize::try_from(bytes).unwrap(), flags) };
        if id < 0 { Err(errno()) } else { Ok(id) }
    }

    pub(crate) fn attach(&self, id: i32, addr: u64, flags: u64) -> Result<u64, i32> {
        // SAFETY: nothing of this program lies in the window.
        checked(unsafe { libc::syscall(libc::SYS_shmat, id, addr, flags) })
    }

    pub(crate) fn detach(&self, addr: u64) -> Result<u64, i32> {
        // SAFETY: nothing of this program lies in the window.
        checked(unsafe { libc::syscall(libc::SYS_shmdt, addr) })
    }

    pub(crate) fn unmap(&self, addr: u64, len: u64) -> Result<u64, i32> {
        // SAFETY: nothing of this program lies in the window.
        checked(unsafe { libc::syscall(libc::SYS_munmap, addr, len) })
    }

    pub(crate) fn protect(&self, addr: u64, len: u64, prot: u64) -> Result<u64, i32> {
        // SAFETY: nothing of this program lies in the window.
        checked(unsafe { libc::syscall(libc::SYS_mprotect, addr, len, prot) })
    }

    pub(crate) fn relocate(&self, addr: u64, old_len: u64, new_len: u64, new_addr: u64) -> Result<u64, i32> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: nothing of this program lies in the window.
        checked(unsafe { libc::syscall(libc::SYS_mremap, addr, old_len, new_len, flags, new_addr) })
    }

    fn control<T>(&self, id: i32, command: i32, data: *mut T) -> Result<i32, i32> {
        // SAFETY: `data` is what the command reads or writes, or is not looked at.
        let answer = unsafe { libc::shmctl(id, command, data.cast()) };
        if answer < 0 { Err(errno()) } else { Ok(answer) }
    }

    fn simple(&self, id: i32, command: i32) -> Result<(), i32> {
        self.control(id, command, ptr::null_mut::<u8>()).map(|answer| assert_eq!(answer, 0))
    }

    pub(crate) fn remove(&self, id: i32) -> Result<(), i32> {
        self.simple(id, IPC_RMID)
    }

    pub(crate) fn lock(&self, id: i32) -> Result<(), i32> {
        self.simple(id, SHM_LOCK)
    }

    pub(crate) fn unlock(&self, id: i32) -> Result<(), i32> {
        self.simple(id, SHM_UNLOCK)
    }

    pub(crate) fn set(&self, id: i32, owner: (u32, u32), mode: u32) -> Result<(), i32> {
        // SAFETY: all zeros is a valid structure.
        let mut data: libc::shmid_ds = unsafe { MaybeUninit::zeroed().assume_init() };
        (data.shm_perm.uid, data.shm_perm.gid) = owner;
        data.shm_perm.mode = u16::try_from(mode).unwrap();
        self.control(id, IPC_SET, &raw mut data).map(|answer| assert_eq!(answer, 0))
    }

    pub(crate) fn status(&self, id: i32, of: StatusOf) -> Result<SegmentStatus, i32> {
        // SAFETY: all zeros is a valid structure.
        let mut data: libc::shmid_ds = unsafe { MaybeUninit::zeroed().assume_init() };
        let command = match of {
            StatusOf::Id => IPC_STAT,
            StatusOf::Slot => SHM_STAT,
            StatusOf::AnySlot => SHM_STAT_ANY,
        };
        let answer = self.control(id, command, &raw mut data)?;
        let id = if of == StatusOf::Id { id } else { answer };
        assert_eq!(id >> 15, i32::from(data.shm_perm.__seq));
        Ok(SegmentStatus {
            id,
            key: data.shm_perm.__key,
            user: data.shm_perm.uid,
            group: data.shm_perm.gid,
            creator_user: data.shm_perm.cuid,
            creator_group: data.shm_perm.cgid,
            mode: data.shm_perm.mode.into(),
            bytes: data.shm_segsz as u64,
            attached_at: data.shm_atime,
            detached_at: data.shm_dtime,
            changed_at: data.shm_ctime,
            creator_pid: data.shm_cpid,
            last_pid: data.shm_lpid,
            attaches: data.shm_nattch,
        })
    }

    /// Segments, pages, the highest slot, and the limits.
    pub(crate) fn info(&self) -> (u32, u64, i32, SegmentLimits) {
        let (mut limits, mut usage) = (LimitsOnHost::default(), UsageOnHost::default());
        let highest = self.control(0, IPC_INFO, &raw mut limits).unwrap();
        assert_eq!(self.control(0, SHM_INFO, &raw mut usage), Ok(highest));
        let limits = SegmentLimits {
            bytes_max: limits.bytes_max,
            pages_max: limits.pages_max,
            segments_max: u32::try_from(limits.segments_max).unwrap(),
        };
        (usage.segments.cast_unsigned(), usage.pages, highest, limits)
    }
}

/// Whether two neighbours in the window look like one.
pub(crate) fn has_equal_neighbours() -> bool {
    let end = WINDOW + (PAGES << PAGE_SHIFT);
    let all = proc_maps::read(pid()).unwrap();
    let here: Vec<_> = all.iter().filter(|entry| (WINDOW..end).contains(&entry.range.start().as_u64())).collect();
    here.windows(2).any(|pair| {
        let [low, high] = pair else { return false };
        low.range.end() == high.range.start()
            && (low.prot, low.inode, low.offset + low.range.bytes()) == (high.prot, high.inode, high.offset)
    })
}

/// A child that waits until it is told to end.
pub(crate) struct Fork {
    child: i32,
    /// Closed, it ends the child.
    alive: io::PipeWriter,
}

impl Fork {
    pub(crate) fn new() -> Self {
        let (mut reader, alive) = io::pipe().unwrap();
        // SAFETY: the child does nothing but wait for the end of the pipe, and ends at once then.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            drop(alive);
            let _ = io::Read::read(&mut reader, &mut [0]);
            // SAFETY: ends this process at once, as wanted.
            unsafe { libc::_exit(0) }
        }
        Self { child, alive }
    }

    pub(crate) const fn pid(&self) -> i32 {
        self.child
    }

    /// Ends the child and waits until its memory is gone.
    pub(crate) fn end(self) {
        drop(self.alive);
        let mut status = 0;
        // SAFETY: the status is ours, and so is the child.
        let waited = unsafe { libc::waitpid(self.child, &raw mut status, 0) };
        assert_eq!((waited, status), (self.child, 0));
    }
}
