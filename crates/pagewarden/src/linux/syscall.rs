//! From a system-call number and six registers to a [`Request`].

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as nr;

use super::iovec::read_ranges;
use super::{
    Advice, MapFlags, MapSource, MdweFlags, MmapRequest, MremapRequest, OpenFile, RemapFlags, RemapPagesRequest,
    Request, Segment,
};
use crate::addr::PAGE_SIZE;
use crate::error::Errno;
use crate::object::{MemoryObject, ObjectKind};

/// What the decoder asks the platform about the guest's descriptors and segments.
pub trait Files {
    /// What `fd` is.
    ///
    /// # Errors
    /// [`Errno::BadF`] if it is not open.
    fn open_file(&mut self, fd: i32) -> Result<OpenFile, Errno>;

    /// What the System V segment `id` is.
    ///
    /// # Errors
    /// [`Errno::Inval`] if there is none.
    fn segment(&mut self, id: i32) -> Result<Segment, Errno>;

    /// Copies a string of at most `len_max` bytes, without its terminating zero, out of the guest.
    ///
    /// # Errors
    /// [`Errno::Fault`] if it cannot be read, [`Errno::Inval`] if it is longer.
    fn string(&mut self, addr: u64, len_max: usize) -> Result<Vec<u8>, Errno>;

    /// Copies `len` bytes out of the guest, or those before the first that cannot be read.
    fn bytes(&mut self, addr: u64, len: usize) -> Vec<u8> {
        let _ = (addr, len);
        Vec::new()
    }

    /// Whose memory the pidfd is about. The default knows the caller's own alone.
    ///
    /// # Errors
    /// [`Errno::BadF`] if it is not one, [`Errno::Srch`] if its process is gone, [`Errno::Perm`] if it is out of reach.
    fn process(&mut self, pidfd: i32) -> Result<TargetProcess, Errno> {
        match pidfd {
            PIDFD_SELF_THREAD | PIDFD_SELF_THREAD_GROUP => Ok(TargetProcess::Own),
            _ => Err(Errno::BadF),
        }
    }

    /// Where the addresses end that the kernel takes from a program (`TASK_SIZE_MAX`).
    fn user_end(&self) -> u64 {
        USER_END
    }
}

/// Whose memory a call names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetProcess {
    /// The caller's own, maybe as that of another process that shares it.
    Own,
    /// Another's.
    Other,
}

/// `PIDFD_SELF_THREAD`: the calling thread, without a descriptor.
pub const PIDFD_SELF_THREAD: i32 = -10_000;
/// `PIDFD_SELF_THREAD_GROUP`: its process.
pub const PIDFD_SELF_THREAD_GROUP: i32 = -10_001;
/// With four levels of page tables.
const USER_END: u64 = 0x7fff_ffff_f000;

/// `PR_SET_VMA` of prctl(2).
const PR_SET_VMA: u64 = 0x5356_4d41;
/// `PR_SET_VMA_ANON_NAME` of prctl(2).
const PR_SET_VMA_ANON_NAME: u64 = 0;
/// `PR_SET_MDWE` of prctl(2).
const PR_SET_MDWE: u64 = 65;
/// `PR_GET_MDWE` of prctl(2).
const PR_GET_MDWE: u64 = 66;
/// The longest name of anonymous memory, without its terminating zero (`ANON_VMA_NAME_MAX_LEN - 1`).
const ANON_NAME_LEN_MAX: usize = 79;

/// The request that system call `number` with `args` makes; `None` if it is not one of the memory calls.
///
/// # Errors
/// What Linux answers before it looks at the address space: a bad descriptor, an unaligned file offset.
pub fn decode(number: u64, args: [u64; 6], files: &mut dyn Files) -> Result<Option<Request>, Errno> {
    let [a, b, c, d, e, _] = args;
    let Ok(number) = u32::try_from(number) else { return Ok(None) };
    Ok(Some(match number {
        nr::__NR_mmap => return mmap(args, files).map(Some),
        nr::__NR_munmap => Request::Munmap { addr: a, len: b },
        nr::__NR_mprotect => Request::Mprotect { addr: a, len: b, prot: c },
        nr::__NR_pkey_mprotect => Request::PkeyMprotect { addr: a, len: b, prot: c, key: as_int(d) },
        nr::__NR_pkey_alloc => Request::PkeyAlloc { flags: a, rights: b },
        nr::__NR_pkey_free => Request::PkeyFree { key: as_int(a) },
        nr::__NR_mseal => Request::Mseal { addr: a, len: b, flags: c },
        nr::__NR_mremap => {
            let flags = RemapFlags::from_bits_retain(d);
            Request::Mremap(MremapRequest { addr: a, old_len: b, new_len: c, flags, new_addr: e })
        }
        nr::__NR_brk => Request::Brk { addr: a },
        nr::__NR_process_madvise => return process_madvise(args, files),
        nr::__NR_remap_file_pages => {
            let flags = MapFlags::from_bits_retain(e);
            Request::RemapPages(RemapPagesRequest { addr: a, len: b, prot: c, page_offset: d, flags })
        }
        nr::__NR_msync => Request::Msync { addr: a, len: b, flags: int_word(c) },
        nr::__NR_mincore => Request::Mincore { addr: a, len: b, vector: c },
        nr::__NR_madvise => Request::Madvise { addr: a, len: b, advice: as_int(c) },
        nr::__NR_mlock => Request::Mlock { addr: a, len: b, flags: 0 },
        nr::__NR_mlock2 => Request::Mlock { addr: a, len: b, flags: int_word(c) },
        nr::__NR_munlock => Request::Munlock { addr: a, len: b },
        nr::__NR_mlockall => Request::Mlockall { flags: int_word(a) },
        nr::__NR_munlockall => Request::Munlockall,
        nr::__NR_shmat => Request::Shmat { segment: files.segment(as_int(a))?, addr: b, flags: int_word(c) },
        nr::__NR_shmdt => Request::Shmdt { addr: a },
        nr::__NR_prctl if int_word(a) == PR_SET_VMA && b == PR_SET_VMA_ANON_NAME => {
            Request::NameAnonymous { addr: c, len: d, name: anonymous_name(e, files)? }
        }
        nr::__NR_prctl if int_word(a) == PR_SET_MDWE => {
            all_zero(&[c, d, e])?;
            Request::SetMdwe { flags: MdweFlags::from_bits_retain(b) }
        }
        nr::__NR_prctl if int_word(a) == PR_GET_MDWE => {
            all_zero(&[b, c, d, e])?;
            Request::Mdwe
        }
        _ => return Ok(None),
    }))
}

fn mmap([addr, len, prot, flags, fd, offset]: [u64; 6], files: &mut dyn Files) -> Result<Request, Errno> {
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::Inval);
    }
    let flags = MapFlags::from_bits_retain(flags);
    let source = if flags.contains(MapFlags::ANONYMOUS) {
        MapSource::Anonymous
    } else {
        MapSource::File(files.open_file(as_int(fd))?)
    };
    Ok(Request::Mmap(MmapRequest { addr, len, prot, flags, source, offset }))
}

/// process_madvise(2) on the caller itself; `None` if it is about another process, of which this space knows
/// nothing.
fn process_madvise(
    [pidfd, vector, count, advice, flags, _]: [u64; 6],
    files: &mut dyn Files,
) -> Result<Option<Request>, Errno> {
    if int_word(flags) != 0 {
        return Err(Errno::Inval);
    }
    let ranges = read_ranges(files, vector, int_word(count))?;
    let advice = as_int(advice);
    match files.process(as_int(pidfd))? {
        TargetProcess::Own => Ok(Some(Request::ProcessMadvise { ranges, advice })),
        TargetProcess::Other if Advice::from_raw(advice).is_some_and(Advice::is_for_others) => Ok(None),
        TargetProcess::Other => Err(Errno::Inval),
    }
}

/// The name at `addr`, if there is one: printable and without the characters that would confuse a reader
/// of `/proc/PID/maps` (`mm/madvise.c:is_valid_name_char`).
fn anonymous_name(addr: u64, files: &mut dyn Files) -> Result<Option<Arc<MemoryObject>>, Errno> {
    if addr == 0 {
        return Ok(None);
    }
    let bytes = files.string(addr, ANON_NAME_LEN_MAX)?;
    let is_valid = |byte: &u8| (b' '..=b'~').contains(byte) && !b"\\`$[]".contains(byte);
    if !bytes.iter().all(is_valid) {
        return Err(Errno::Inval);
    }
    let name = String::from_utf8(bytes).map_err(|_| Errno::Inval)?;
    MemoryObject::try_new(ObjectKind::NamedAnonymous, name, None).map(Some)
}

/// Arguments that Linux keeps for later use must be zero.
fn all_zero(unused: &[u64]) -> Result<(), Errno> {
    if unused.iter().all(|word| *word == 0) { Ok(()) } else { Err(Errno::Inval) }
}

/// An `int` argument: the lower half of its register.
#[expect(clippy::cast_possible_truncation, reason = "the ABI drops the upper half")]
const fn as_int(word: u64) -> i32 {
    word as i32
}

/// An `int` argument that is a set of flags.
const fn int_word(word: u64) -> u64 {
    word & 0xffff_ffff
}
