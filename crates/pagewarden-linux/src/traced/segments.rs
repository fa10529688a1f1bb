//! Memory that lives outside of address spaces: memfds and System V segments.
//!
//! Both are charged to the whole tree as committed, by their size: a memfd when it gets one, a segment when
//! it is made. Neither tells when it ends, so charges are looked through when a process ends and when a
//! limit is in the way: a memfd that no process has open and no region maps, and a segment that the host
//! does not know any more, give back what they hold.
//!
//! What write(2) adds to a memfd is seen when it is mapped or resized next.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use pagewarden::ledger::OverLimit;
use pagewarden::object::FileId;
use pagewarden::{Account, Charge, PageCount, Prot, Resource};

use super::files::{self, FileTable};
use super::ptrace::Tid;

/// Charges for memory outside of address spaces.
#[derive(Debug)]
pub(super) struct Segments {
    account: Account,
    /// The file system inside the host that memfds live on; `None` if it could not be found out.
    memory_device: Option<u64>,
    memfds: HashMap<FileId, Charge>,
    sysv: HashMap<i32, Charge>,
}

/// What the host says of a System V segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentStatus {
    pub(crate) key: i32,
    pub(crate) bytes: u64,
    owner: [u32; 2],
    group: [u32; 2],
    mode: u32,
}

impl Segments {
    /// No segments; charges go to `account`.
    pub(super) fn new(account: Account) -> Self {
        Self { account, memory_device: memory_device(), memfds: HashMap::new(), sysv: HashMap::new() }
    }

    /// Whether the file lives in memory that belongs to nobody else, as memfds do.
    pub(super) fn is_memory(&self, file: FileId) -> bool {
        self.memory_device == Some(file.device)
    }

    /// The file system inside the host that memfds live on, if it could be found out.
    pub(super) const fn memory_device(&self) -> Option<u64> {
        self.memory_device
    }

    /// Charges a memfd for `bytes`, unless it holds as much already.
    pub(super) fn note_memfd(&mut self, file: FileId, bytes: u64) -> Result<(), OverLimit> {
        let charge = self.memfds.entry(file).or_insert_with(|| self.account.empty_charge(Resource::Committed));
        let pages = PageCount::from_bytes_up(bytes).get();
        charge.raise(pages.saturating_sub(charge.amount()))
    }

    /// Gives back what a memfd holds above `bytes`, its size by now.
    pub(super) fn settle_memfd(&mut self, file: FileId, bytes: u64) {
        if let Some(charge) = self.memfds.get(&file) {
            charge.give_back(charge.amount().saturating_sub(PageCount::from_bytes_up(bytes).get()));
        }
    }

    /// A charge for a segment of `bytes` that is about to be made.
    pub(super) fn charge_segment(&self, bytes: u64) -> Result<Charge, OverLimit> {
        self.account.charge(Resource::Committed, PageCount::from_bytes_up(bytes).get())
    }

    /// The segment that `charge` is for has been made.
    pub(super) fn keep_segment(&mut self, id: i32, charge: Charge) {
        self.sysv.entry(id).or_insert(charge);
    }

    /// Whether anything is charged that may have gone.
    pub(super) fn is_empty(&self) -> bool {
        self.memfds.is_empty() && self.sysv.is_empty()
    }

    /// Gives back what is gone; `threads` are all that live: each may have a table of descriptors of its own,
    /// and a first thread that has ended has none, whatever the others have. True if anything was.
    pub(super) fn sweep(&mut self, threads: impl Iterator<Item = Tid>, table: &FileTable) -> bool {
        let before = self.memfds.len() + self.sysv.len();
        self.sysv.retain(|id, _| !is_gone(*id));
        if !self.memfds.is_empty() {
            // A thread that cannot be looked at may have any of them open.
            let open: Option<Vec<Vec<FileId>>> = threads.map(open_memfds).collect();
            if let Some(open) = open {
                let open: HashSet<FileId> = open.into_iter().flatten().collect();
                self.memfds.retain(|file, _| open.contains(file) || table.is_mapped(*file));
            }
        }
        self.memfds.len() + self.sysv.len() < before
    }
}

/// The memfds that a thread has open; nothing if it may not be looked at.
fn open_memfds(tid: Tid) -> Option<Vec<FileId>> {
    let folder = match fs::read_dir(format!("/proc/{tid}/fd")) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
        Err(_) => return Some(Vec::new()),
    };
    let paths = folder.flatten().map(|entry| entry.path());
    let memfds = paths.filter(|path| {
        fs::read_link(path).is_ok_and(|link| link.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"))
    });
    Some(memfds.filter_map(|path| files::status(path.to_str()?).ok()).map(|status| status.id).collect())
}

/// Makes a memfd to see on which device they are.
pub(crate) fn memory_device() -> Option<u64> {
    let name = CString::new("probe").ok()?;
    // SAFETY: the name ends with a zero.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    files::status(&format!("/proc/self/fd/{}", fd.as_raw_fd())).ok().map(|status| status.id.device)
}

/// What segment `id` is; `None` if there is none.
pub(crate) fn segment_status(id: i32) -> Option<SegmentStatus> {
    let mut data = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: `data` has room for what IPC_STAT writes.
    if unsafe { libc::shmctl(id, libc::IPC_STAT, data.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: it was zeroed, shmctl filled it, and every bit pattern is valid.
    let data = unsafe { data.assume_init() };
    let permissions = data.shm_perm;
    Some(SegmentStatus {
        key: permissions.__key,
        bytes: data.shm_segsz as u64,
        owner: [permissions.uid, permissions.cuid],
        group: [permissions.gid, permissions.cgid],
        mode: permissions.mode.into(),
    })
}

/// What thread `tid` may do with a segment (`ipc/util.c:ipcperms`).
pub(crate) fn rights(tid: Tid, segment: &SegmentStatus) -> Prot {
    const CAP_IPC_OWNER: u64 = 1 << 15;
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
    let capabilities = u64::from_str_radix(field("CapEff:"), 16).unwrap_or(0);
    if capabilities & CAP_IPC_OWNER != 0 {
        return Prot::all();
    }
    // Real, effective, saved and file-system numbers, in this order.
    let effective = |name| field(name).split_ascii_whitespace().nth(1).and_then(|number| number.parse::<u32>().ok());
    let groups = field("Groups:").split_ascii_whitespace().filter_map(|number| number.parse::<u32>().ok());
    let is_owner = effective("Uid:").is_some_and(|user| segment.owner.contains(&user));
    let is_member = groups.chain(effective("Gid:")).any(|group| segment.group.contains(&group));
    let shift = if is_owner {
        6
    } else if is_member {
        3
    } else {
        0
    };
    let bits = segment.mode >> shift;
    let mut rights = Prot::NONE;
    rights.set(Prot::READ, bits & 4 != 0);
    rights.set(Prot::WRITE, bits & 2 != 0);
    rights.set(Prot::EXEC, bits & 1 != 0);
    rights
}

/// Whether segment `id` has ended. One that may not be looked at has not.
fn is_gone(id: i32) -> bool {
    let failed = segment_status(id).is_none();
    failed && matches!(io::Error::last_os_error().raw_os_error(), Some(libc::EINVAL | libc::EIDRM))
}

/// Whether segment numbers mean the same to `tid` and to us.
pub(super) fn shares_namespace(tid: Tid) -> bool {
    let ours = fs::read_link("/proc/self/ns/ipc").ok();
    ours.is_some() && ours == fs::read_link(format!("/proc/{tid}/ns/ipc")).ok()
}

/// The segment with `key`, if there is one.
pub(super) fn segment_by_key(key: i32) -> Option<i32> {
    // SAFETY: plain numbers; nothing is made without IPC_CREAT.
    let id = unsafe { libc::shmget(key, 0, 0) };
    (id >= 0).then_some(id)
}
