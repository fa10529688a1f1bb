//! Images: what of ELF is accepted, and what it asks for.
//!
//! Checking makes no copy and allocates nothing. Invariant: the segments of an [`Image`] are in the order of their
//! addresses, no two share a page, and all lie where programs may map something.

use core::fmt;

use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_DYN, ET_EXEC, EV_CURRENT, FileHeader64, PF_R, PF_W, PF_X,
    PT_GNU_STACK, PT_INTERP, PT_LOAD, ProgramHeader64,
};
use object::{LittleEndian as Little, pod};
use pagewarden::manager::{Break, Layout};
use pagewarden::{PAGE_SIZE, PageRange, Prot, VirtAddr};

use crate::ImageError;

type FileHeader = FileHeader64<Little>;
type ProgramHeader = ProgramHeader64<Little>;

/// A static executable that can be loaded.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    bytes: &'a [u8],
    header: &'a FileHeader,
    headers: &'a [ProgramHeader],
}

impl fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("entry", &self.entry()).finish_non_exhaustive()
    }
}

impl<'a> Image<'a> {
    /// The most program headers that an image may have.
    pub const HEADERS_MAX: u16 = 64;

    /// Checks an image. It is to be loaded into a space with the addresses of [`Layout::X86_64`].
    ///
    /// Headers of other kinds than segments are ignored, such as `PT_TLS` and `PT_GNU_RELRO`: the program looks at them
    /// by itself.
    ///
    /// Differs from Linux: segments must be in order, and must not share pages or be writable and executable. A segment
    /// without memory is none.
    ///
    /// # Errors
    /// What is wrong with it; the first thing that is.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let header = file_header(bytes)?;
        let headers = program_headers(bytes, header)?;
        let image = Self { bytes, header, headers };
        image.check()?;
        Ok(image)
    }

    /// Checks what program headers say, each by itself and all together.
    fn check(&self) -> Result<(), ImageError> {
        let mut last: Option<PageRange> = None;
        let mut entry = Err(ImageError::Entry);
        for header in self.headers {
            match header.p_type.get(Little) {
                PT_INTERP => return Err(ImageError::Interpreter),
                PT_GNU_STACK if header.p_flags.get(Little) & PF_X != 0 => return Err(ImageError::ExecutableStack),
                _ => {}
            }
            let Some(segment) = Segment::new(header, self.bytes)? else { continue };
            match last {
                Some(last) if last.intersects(segment.pages) => return Err(ImageError::Overlap),
                Some(last) if segment.pages.start() < last.start() => return Err(ImageError::Unordered),
                _ => last = Some(segment.pages),
            }
            if segment.prot.contains(Prot::EXEC) && (segment.start..segment.end).contains(&self.entry()) {
                entry = Ok(());
            }
        }
        if last.is_none() { Err(ImageError::NoSegment) } else { entry }
    }

    /// What is to be loaded, lowest first.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment<'a>> {
        // Each has been checked once: none is an error.
        self.headers.iter().filter_map(|header| Segment::new(header, self.bytes).ok().flatten())
    }

    /// Where the program starts.
    pub fn entry(&self) -> VirtAddr {
        VirtAddr::new(self.header.e_entry.get(Little))
    }

    /// The end of the pages of the last segment: where the heap begins.
    pub fn program_break(&self) -> VirtAddr {
        self.segments().last().map_or_else(VirtAddr::default, |last| last.pages.end())
    }

    /// The break of a space for the program. As with Linux, the bytes of its last segment count as its data.
    pub fn brk(&self) -> Break {
        let start = self.program_break();
        let data_bytes = self.segments().last().map_or(0, |last| last.bytes.len() as u64);
        Break { start, current: start, data_bytes }
    }

    /// Where in memory the program headers are; `None` if no segment has them all. `PT_PHDR` is not asked: it could say
    /// anything.
    pub fn program_headers(&self) -> Option<VirtAddr> {
        let offset = self.header.e_phoff.get(Little);
        let end = offset.checked_add(u64::from(self.header_count()) * u64::from(self.header_bytes()))?;
        self.segments().find_map(|segment| {
            let within = offset.checked_sub(segment.offset)?;
            let is_covered = end - segment.offset <= segment.bytes.len() as u64;
            is_covered.then_some(segment.start.checked_add(within)).flatten()
        })
    }

    /// How many program headers there are.
    pub fn header_count(&self) -> u16 {
        self.header.e_phnum.get(Little)
    }

    /// How long each of them is.
    pub fn header_bytes(&self) -> u16 {
        self.header.e_phentsize.get(Little)
    }
}

/// The header of the file, if it is that of an image which can be loaded.
fn file_header(bytes: &[u8]) -> Result<&FileHeader, ImageError> {
    if !bytes.starts_with(&ELFMAG) {
        return Err(ImageError::NotElf);
    }
    let (header, _) = pod::from_bytes::<FileHeader>(bytes).map_err(|()| ImageError::Truncated)?;
    if header.e_ident.class != ELFCLASS64 || header.e_ident.data != ELFDATA2LSB {
        return Err(ImageError::Class);
    }
    if header.e_ident.version != EV_CURRENT || header.e_version.get(Little) != u32::from(EV_CURRENT) {
        return Err(ImageError::Version);
    }
    if header.e_machine.get(Little) != EM_X86_64 {
        return Err(ImageError::Machine);
    }
    match header.e_type.get(Little) {
        ET_EXEC => Ok(header),
        ET_DYN => Err(ImageError::PositionIndependent),
        _ => Err(ImageError::Type),
    }
}

fn program_headers<'a>(bytes: &'a [u8], header: &FileHeader) -> Result<&'a [ProgramHeader], ImageError> {
    let count = header.e_phnum.get(Little);
    if count == 0 {
        return Err(ImageError::NoSegment);
    }
    if count > Image::HEADERS_MAX {
        return Err(ImageError::TooManyHeaders);
    }
    let is_size_of = |size: u16, of: usize| usize::from(size) == of;
    if !is_size_of(header.e_ehsize.get(Little), size_of::<FileHeader>())
        || !is_size_of(header.e_phentsize.get(Little), size_of::<ProgramHeader>())
    {
        return Err(ImageError::HeaderSizes);
    }
    let offset = usize::try_from(header.e_phoff.get(Little)).map_err(|_| ImageError::HeadersOutside)?;
    let rest = bytes.get(offset..).ok_or(ImageError::HeadersOutside)?;
    let (headers, _) = pod::slice_from_bytes(rest, count.into()).map_err(|()| ImageError::HeadersOutside)?;
    Ok(headers)
}

/// A part of memory that an image asks for.
pub(crate) struct Segment<'a> {
    /// The pages it takes, which are its own.
    pub(crate) pages: PageRange,
    /// Its first byte.
    pub(crate) start: VirtAddr,
    /// The byte after its last.
    end: VirtAddr,
    /// What it begins with; zeros follow.
    pub(crate) bytes: &'a [u8],
    /// Where these are in the file.
    offset: u64,
    pub(crate) prot: Prot,
}

impl<'a> Segment<'a> {
    /// The segment that `header` describes, if it does describe one.
    fn new(header: &ProgramHeader, image: &'a [u8]) -> Result<Option<Self>, ImageError> {
        if header.p_type.get(Little) != PT_LOAD {
            return Ok(None);
        }
        let (memory_bytes, file_bytes) = (header.p_memsz.get(Little), header.p_filesz.get(Little));
        if memory_bytes < file_bytes {
            return Err(ImageError::MemoryTooSmall);
        }
        if memory_bytes == 0 {
            return Ok(None);
        }
        let (start, offset) = (VirtAddr::new(header.p_vaddr.get(Little)), header.p_offset.get(Little));
        let align = header.p_align.get(Little);
        if align != 0 && !align.is_power_of_two() {
            return Err(ImageError::Alignment);
        }
        if start.as_u64() % PAGE_SIZE != offset % PAGE_SIZE {
            return Err(ImageError::NotCongruent);
        }
        let bytes = part(image, offset, file_bytes).ok_or(ImageError::SegmentOutside)?;
        let end = start.checked_add(memory_bytes).ok_or(ImageError::Overflow)?;
        let pages = user_pages(start, end)?;
        let prot = rights(header.p_flags.get(Little));
        if prot.contains(Prot::WRITE | Prot::EXEC) {
            return Err(ImageError::WritableAndExecutable);
        }
        Ok(Some(Self { pages, start, end, bytes, offset, prot }))
    }
}

/// The pages that hold `start..end`, if a program may have them.
fn user_pages(start: VirtAddr, end: VirtAddr) -> Result<PageRange, ImageError> {
    if start < Layout::X86_64.min_fixed_addr {
        return Err(ImageError::BelowUserSpace);
    }
    if end > Layout::X86_64.task_end {
        return Err(ImageError::AboveUserSpace);
    }
    let end = end.page_up().ok_or(ImageError::Overflow)?;
    PageRange::new(start.page_down(), end).ok_or(ImageError::Overflow)
}

/// The `len` bytes from `offset` on.
fn part(image: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    if len == 0 {
        // No bytes are nowhere in particular.
        return Some(&[]);
    }
    let end = offset.checked_add(len)?;
    image.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
}

/// `PF_*` as rights.
fn rights(flags: u32) -> Prot {
    [(PF_R, Prot::READ), (PF_W, Prot::WRITE), (PF_X, Prot::EXEC)]
        .into_iter()
        .filter(|(flag, _)| flags & flag != 0)
        .fold(Prot::NONE, |prot, (_, right)| prot | right)
}
