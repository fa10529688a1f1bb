//! The first stack of a program, as the System V ABI for x86-64 has it at the entry.
//!
//! ```text
//! STACK_TOP   arguments, each with a zero at its end, argv[0] lowest
//!             16 random bytes
//!             auxiliary vector: pairs of words, a pair of zeros last
//!             0
//!             0, argv[argc - 1] ... argv[0]
//! rsp         argc
//! ```

use core::iter;

use pagewarden::linux::MapFlags;
use pagewarden::mmu::{Mmu, PhysMem};
use pagewarden::pager::AddressSpace;
use pagewarden::{PAGE_SIZE, PageCount, PageRange, VirtAddr};

use crate::load::{map_vacant, unmap};
use crate::{Image, LoadError};

/// Where stacks end.
pub const STACK_TOP: VirtAddr = VirtAddr::new(0x7fff_ffff_e000);
/// How long a stack is at first. It grows as it is used; what a program starts with must fit in here.
pub const STACK_PAGES: PageCount = PageCount::new(4);
const STACK: PageRange = {
    let bottom = VirtAddr::new(STACK_TOP.as_u64() - STACK_PAGES.bytes());
    PageRange::new(bottom, STACK_TOP).expect("a stack of no pages")
};

/// `rsp` is a multiple of this at the entry, and so is the place of the random bytes.
const ALIGNMENT: u64 = 16;
const WORD: u64 = size_of::<u64>() as u64;

/// `AT_*`: what a word of the auxiliary vector says.
mod kind {
    /// The end of the vector.
    pub(super) const NULL: u64 = 0;
    /// Where the program headers are.
    pub(super) const HEADERS: u64 = 3;
    /// How long each of them is.
    pub(super) const HEADER_BYTES: u64 = 4;
    /// How many there are.
    pub(super) const HEADER_COUNT: u64 = 5;
    pub(super) const PAGE_SIZE: u64 = 6;
    pub(super) const ENTRY: u64 = 9;
    /// Where 16 random bytes are.
    pub(super) const RANDOM: u64 = 25;
    /// Where the program's name is.
    pub(super) const NAME: u64 = 31;
}

/// What a program is started with.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    /// The program.
    pub image: Image<'a>,
    /// Its name, which is its first argument.
    pub name: &'a [u8],
    /// The arguments after that.
    pub others: &'a [&'a [u8]],
    /// Bytes that nobody can guess.
    pub random: [u8; 16],
}

/// Where the parts are.
struct Places {
    strings: u64,
    random: u64,
    rsp: u64,
}

impl<'a> Arguments<'a> {
    fn strings(&self) -> impl Iterator<Item = &'a [u8]> {
        iter::once(self.name).chain(self.others.iter().copied())
    }

    /// The auxiliary vector. Of headers that are not in memory it does not speak.
    fn auxiliary(&self, random: u64, name: u64) -> impl Iterator<Item = (u64, u64)> + Clone {
        let image = &self.image;
        let headers = image.program_headers().map(|headers| {
            [
                (kind::HEADERS, headers.as_u64()),
                (kind::HEADER_BYTES, image.header_bytes().into()),
                (kind::HEADER_COUNT, image.header_count().into()),
            ]
        });
        headers.into_iter().flatten().chain([
            (kind::PAGE_SIZE, PAGE_SIZE),
            (kind::ENTRY, image.entry().as_u64()),
            (kind::RANDOM, random),
            (kind::NAME, name),
            (kind::NULL, 0),
        ])
    }

    /// Where everything goes on the stack; `None` if it does not fit.
    fn places(&self) -> Option<Places> {
        let string_bytes = self.strings().try_fold(0_u64, |sum, string| sum.checked_add(string.len() as u64 + 1))?;
        let strings = STACK_TOP.as_u64().checked_sub(string_bytes)?;
        let random = strings.checked_sub(self.random.len() as u64)? & !(ALIGNMENT - 1);
        // A word for argc, and one after each of the two lists of strings.
        let pointers = self.others.len() as u64 + 4;
        let pairs = self.auxiliary(random, strings).count() as u64;
        let words = pairs.checked_mul(2)?.checked_add(pointers)?.checked_mul(WORD)?;
        let rsp = random.checked_sub(words)? & !(ALIGNMENT - 1);
        (rsp >= STACK.start().as_u64()).then_some(Places { strings, random, rsp })
    }

    /// Writes it all.
    fn write<M: PhysMem + Mmu + 'static>(&self, space: &AddressSpace<M>, places: &Places) -> Result<(), LoadError> {
        let mut words = Pen { space, at: places.rsp };
        let mut strings = Pen { space, at: places.strings };
        words.word(self.others.len() as u64 + 1)?;
        for string in self.strings() {
            words.word(strings.at)?;
            strings.bytes(string)?;
            strings.bytes(&[0])?;
        }
        words.word(0)?;
        words.word(0)?;
        for (kind, value) in self.auxiliary(places.random, places.strings) {
            words.word(kind)?;
            words.word(value)?;
        }
        Pen { space, at: places.random }.bytes(&self.random)
    }
}

/// Writes one thing after the other. All of it has a place on the stack, so that no address is past its end.
struct Pen<'a, M: PhysMem + Mmu + 'static> {
    space: &'a AddressSpace<M>,
    at: u64,
}

impl<M: PhysMem + Mmu + 'static> Pen<'_, M> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.space.copy_to_user(VirtAddr::new(self.at), bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn word(&mut self, word: u64) -> Result<(), LoadError> {
        self.bytes(&word.to_le_bytes())
    }
}

/// Gives `space` a stack with what the program is started with, and says what `rsp` is then.
///
/// # Errors
/// [`LoadError::TooLong`] and [`LoadError::ZeroInside`] for the arguments; else something is in the stack's place, a limit,
/// or no memory. Then there is no stack.
pub fn map_stack<M: PhysMem + Mmu + 'static>(
    space: &AddressSpace<M>,
    arguments: &Arguments<'_>,
) -> Result<VirtAddr, LoadError> {
    let places = arguments.places().ok_or(LoadError::TooLong)?;
    if arguments.strings().any(|string| string.contains(&0)) {
        return Err(LoadError::ZeroInside);
    }
    map_vacant(space, STACK, MapFlags::GROWS_DOWN)?;
    arguments.write(space, &places).inspect_err(|_| unmap(space, STACK))?;
    Ok(VirtAddr::new(places.rsp))
}
