//! From a system-call number and six registers to a [`Request`].

use linux_raw_sys::general as nr;

use super::{LockAllFlags, MapFlags, MapSource, OpenFile, RemapFlags, Request, Segment};
use crate::addr::PAGE_SIZE;
use crate::error::Errno;

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
}

/// The request that system call `number` with `args` makes; `None` if it is not one of the memory calls.
///
/// # Errors
/// What Linux answers before it looks at the address space: a bad descriptor, an unaligned file offset.
pub fn decode(number: u64, args: [u64; 6], files: &mut dyn Files) -> Result<Option<Request>, Errno> {
    let [a, b, c, d, e, f] = args;
    let Ok(number) = u32::try_from(number) else { return Ok(None) };
    Ok(Some(match number {
        nr::__NR_mmap => return mmap(args, files).map(Some),
        nr::__NR_munmap => Request::Munmap { addr: a, len: b },
        nr::__NR_mprotect => Request::Mprotect { addr: a, len: b, prot: c },
        nr::__NR_mremap => {
            Request::Mremap { addr: a, old_len: b, new_len: c, flags: RemapFlags::from_bits_retain(d), new_addr: e }
        }
        nr::__NR_brk => Request::Brk { addr: a },
        nr::__NR_madvise => Request::Madvise { addr: a, len: b, advice: as_int(c) },
        nr::__NR_mlock => Request::Mlock { addr: a, len: b, flags: 0 },
        nr::__NR_mlock2 => Request::Mlock { addr: a, len: b, flags: int_word(c) },
        nr::__NR_munlock => Request::Munlock { addr: a, len: b },
        nr::__NR_mlockall => Request::Mlockall { flags: int_word(a) },
        nr::__NR_munlockall => Request::Munlockall,
        nr::__NR_shmat => Request::Shmat { segment: files.segment(as_int(a))?, addr: b, flags: int_word(c) },
        nr::__NR_shmdt => Request::Shmdt { addr: a },
        _ => {
            let _ = (f, LockAllFlags::empty());
            return Ok(None);
        }
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
    Ok(Request::Mmap { addr, len, prot, flags, source, offset })
}

/// An `int` argument: the lower half of its register.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the ABI drops the upper half")]
const fn as_int(word: u64) -> i32 {
    word as i32
}

/// An `int` argument that is a set of flags.
const fn int_word(word: u64) -> u64 {
    word & 0xffff_ffff
}
