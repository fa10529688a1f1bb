//! Steps of generated programs as requests for a manager without a kernel.

use std::sync::Arc;

use pagewarden::linux::{FileTraits, Files, OpenFile, Request, Segment, decode};
use pagewarden::manager::{Break, Layout, Privileges, ResourceLimits, SpaceConfig};
use pagewarden::object::FileId;
use pagewarden::{
    Account, Errno, MemoryObject, ObjectKind, PAGE_SIZE, PageCount, PageManagementProvider, PageManager, Prot, VirtAddr,
};
use pagewarden_linux::oracle::program::WINDOW;
use pagewarden_linux::oracle::{Arg, Base, Call, FileKind, Step};

const SEGMENT: i32 = 5;
const SEGMENT_PAGES: PageCount = PageCount::new(8);
const HEAP: u64 = 0x20_0000;

/// The descriptors of a program, and its segment.
#[derive(Clone)]
pub(crate) struct Descriptors {
    regular: Arc<MemoryObject>,
    memfd: Arc<MemoryObject>,
    zero: Arc<MemoryObject>,
    segment: Arc<MemoryObject>,
}

impl Descriptors {
    pub(crate) fn new() -> Self {
        let file = |inode| FileId { device: 1, inode };
        Self {
            regular: MemoryObject::new_huge_aligned(ObjectKind::File(file(2)), "/file"),
            memfd: MemoryObject::new(ObjectKind::Memfd(file(3)), "/memfd:m (deleted)"),
            zero: MemoryObject::new(ObjectKind::ZeroDevice(file(4)), "/dev/zero"),
            segment: MemoryObject::new(ObjectKind::SysV { id: SEGMENT, pages: SEGMENT_PAGES }, "/SYSV"),
        }
    }
}

/// The number of a descriptor.
fn descriptor(kind: FileKind) -> i32 {
    let place = FileKind::ALL.iter().position(|other| *other == kind);
    if kind == FileKind::None { -1 } else { place.map_or(-1, |place| i32::try_from(place).unwrap()) }
}

impl Files for Descriptors {
    fn open_file(&mut self, fd: i32) -> Result<OpenFile, Errno> {
        let kind = FileKind::ALL.iter().copied().find(|kind| descriptor(*kind) == fd).ok_or(Errno::BadF)?;
        let both = FileTraits::READABLE | FileTraits::WRITABLE;
        let (object, traits) = match kind {
            FileKind::None | FileKind::Closed => return Err(Errno::BadF),
            FileKind::ReadWrite => (&self.regular, both | FileTraits::REGULAR),
            FileKind::ReadOnly => (&self.regular, FileTraits::READABLE | FileTraits::REGULAR),
            FileKind::WriteOnly => (&self.regular, FileTraits::WRITABLE | FileTraits::REGULAR),
            FileKind::Zero => (&self.zero, both),
            FileKind::Directory | FileKind::Pipe => (&self.regular, both | FileTraits::NOT_MAPPABLE),
            _ => (&self.memfd, both | FileTraits::REGULAR),
        };
        // As the tracer does it: a shared map of the zero device is new anonymous memory, which is not what is tested.
        Ok(OpenFile { object: Arc::clone(object), traits })
    }

    fn segment(&mut self, id: i32) -> Result<Segment, Errno> {
        if id != SEGMENT {
            return Err(Errno::Inval);
        }
        Ok(Segment { object: Arc::clone(&self.segment), pages: SEGMENT_PAGES, rights: Prot::all() })
    }

    fn string(&mut self, _: u64, _: usize) -> Result<Vec<u8>, Errno> {
        Ok(b"oracle".to_vec())
    }
}

/// What a step asks for.
pub(crate) enum Action {
    Request(Request),
    /// Other limits for the guest.
    Limit {
        resource: u64,
        bytes: u64,
    },
    DropPrivileges,
    Write {
        page: u64,
        word: u64,
    },
    Fork {
        steps: usize,
    },
    /// Refused while decoding, without a part of the core, or with the answer of a step that failed.
    Nothing,
}

/// What `step` asks `manager` for, after steps that answered `answers`.
pub(crate) fn action<P: PageManagementProvider>(
    step: &Step,
    manager: &PageManager<P>,
    answers: &[Option<u64>],
    files: &mut Descriptors,
) -> Action {
    let mut args = [0; 6];
    for (place, arg) in args.iter_mut().zip(step.used_args()) {
        let base = |base: Base| match base {
            Base::Window => Some(WINDOW),
            Base::Break => Some(manager.program_break().as_u64()),
            Base::Answer(of) => answers.get(usize::from(of)).copied().flatten(),
            #[expect(unreachable_patterns, reason = "the generator may come to know other places")]
            _ => None,
        };
        let value = match *arg {
            Arg::Value(value) => Some(value),
            Arg::At(of, delta) => base(of).map(|base| base.wrapping_add_signed(delta)),
            Arg::File(kind) => Some(i64::from(descriptor(kind)).cast_unsigned()),
            #[expect(unreachable_patterns, reason = "the generator may come to know other arguments")]
            _ => None,
        };
        match value {
            Some(value) => *place = value,
            None => return Action::Nothing,
        }
    }
    let [addr, second, third, ..] = args;
    let (number, args) = match step.call {
        Call::Limit => return Action::Limit { resource: addr, bytes: second },
        Call::DropCapabilities => return Action::DropPrivileges,
        Call::Write => return Action::Write { page: addr / PAGE_SIZE, word: second },
        Call::Fork => return Action::Fork { steps: usize::try_from(addr).unwrap() },
        Call::NameAnonymous => (libc::SYS_prctl, [0x5356_4d41, 0, addr, second, 1, 0]),
        Call::Shmat => (libc::SYS_shmat, [u64::from(SEGMENT.unsigned_abs()), addr, second, third, 0, 0]),
        other => match other.number() {
            Some(number) => (number, args),
            None => return Action::Nothing,
        },
    };
    match decode(number.cast_unsigned(), args, files) {
        Ok(Some(request)) => Action::Request(request),
        _ => Action::Nothing,
    }
}

/// A space like a process's.
pub(crate) fn config(account: Account) -> SpaceConfig {
    SpaceConfig {
        brk: Break { start: VirtAddr::new(HEAP), current: VirtAddr::new(HEAP), data_bytes: 0 },
        privileges: Privileges::all(),
        ..SpaceConfig::new(Layout::X86_64, account)
    }
}

/// The guest's limits after it has set one of them.
pub(crate) fn with_limit(limits: &ResourceLimits, resource: u64, bytes: u64) -> ResourceLimits {
    let mut limits = limits.clone();
    match u32::try_from(resource) {
        Ok(libc::RLIMIT_AS) => limits.address_space = bytes,
        Ok(libc::RLIMIT_DATA) => limits.data = bytes,
        Ok(libc::RLIMIT_MEMLOCK) => limits.locked = bytes,
        _ => {}
    }
    limits
}
