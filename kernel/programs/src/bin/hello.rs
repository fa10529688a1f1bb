//! Says hello, and looks at what a program is started with.
#![no_std]
#![no_main]

use pagewarden_kernel_abi::{CAPABILITY_SET, Operation, RING};
use runtime::linux::{self, Errno, map, number, prot};
use runtime::{PAGE, Pages, Start, check, equal, given, ring, say};

runtime::program!(main);

/// Kinds of auxv's entries.
mod auxiliary {
    pub(super) const PROGRAM_HEADERS: u64 = 3;
    pub(super) const HEADER_BYTES: u64 = 4;
    pub(super) const HEADER_COUNT: u64 = 5;
    pub(super) const PAGE_BYTES: u64 = 6;
    pub(super) const ENTRY: u64 = 9;
    pub(super) const RANDOM: u64 = 25;
}

fn main(start: &Start) {
    say(format_args!("hello, this is {}", start.argument(0).unwrap_or("nobody")));
    arguments(start);
    auxiliary_vector(start);
    fixed_pages();
}

fn arguments(start: &Start) {
    equal("one argument is passed, the name", start.argument_count(), 1);
    check("argv[0] is the program's name", start.argument(0).is_some_and(|name| name.ends_with("hello")));
    equal("argv ends with a null", start.argument(1), None);
}

fn auxiliary_vector(start: &Start) {
    equal("auxv tells how long a page is", start.auxiliary(auxiliary::PAGE_BYTES), Some(PAGE));
    equal("auxv tells where the program starts", start.auxiliary(auxiliary::ENTRY), Some(Start::entry()));
    equal("auxv tells how long a program header is", start.auxiliary(auxiliary::HEADER_BYTES), Some(56));
    check("the program headers can be read, and one is for the text", has_text_header(start));
    let random = start.auxiliary(auxiliary::RANDOM).map(|at| [read(at), read(at + 8)]);
    check("there are random bytes", random.is_some_and(|words| words != [0, 0]));
}

/// Reads a word of what the process was started with.
fn read(at: u64) -> u64 {
    let page = at / PAGE * PAGE;
    // SAFETY: what is there is the kernel's gift, or a header, and no Rust value.
    let pages = unsafe { Pages::at(page, 2) };
    let shift = at % 8;
    if shift == 0 {
        return pages.load(at - page);
    }
    let (low, high) = (pages.load(at - page - shift), pages.load(at - page - shift + 8));
    (low >> (8 * shift)) | (high << (64 - 8 * shift))
}

/// Whether one of the program headers is for a segment that can be run and has the first instruction in it.
fn has_text_header(start: &Start) -> bool {
    const LOAD_READ_EXECUTE: u64 = (5 << 32) | 1;
    let (Some(headers), Some(count)) =
        (start.auxiliary(auxiliary::PROGRAM_HEADERS), start.auxiliary(auxiliary::HEADER_COUNT))
    else {
        return false;
    };
    (0..count).map(|number| headers + number * 56).any(|header| {
        let (first, bytes) = (read(header + 16), read(header + 40));
        read(header) == LOAD_READ_EXECUTE && (first..first + bytes).contains(&Start::entry())
    })
}

fn fixed_pages() {
    let memory = given::find(given::OWN_MEMORY);
    check("its own memory is in the capability set", memory.is_some_and(|given| given.handle != 0));
    let interface = memory.map(|given| given.interface);
    equal("what is given is said to be an address space", interface, Some(given::interface::ADDRESS_SPACE));
    equal("the ring answers when nothing is asked", ring::call(Operation::Nothing, 0, &[]), Ok([0, 0]));
    let both = [CAPABILITY_SET, RING];
    let refused = |number, [length, third, flags]: [u64; 3]| {
        // SAFETY: it is to be refused; and if it is not, the pages hold no Rust value.
        both.map(|page| unsafe { linux::call(number, [page, length, third, flags, u64::MAX, 0]) })
    };
    let denied = [Err(Errno::PERM); 2];
    equal("the fixed pages cannot be unmapped", refused(number::MUNMAP, [PAGE, 0, 0]), denied);
    equal("the fixed pages cannot be protected", refused(number::MPROTECT, [PAGE, prot::READ, 0]), denied);
    equal("the fixed pages cannot be moved", refused(number::MREMAP, [PAGE, 2 * PAGE, 1]), denied);
    equal("the fixed pages cannot be discarded", refused(number::MADVISE, [PAGE, linux::DONT_NEED, 0]), denied);
    let over = [PAGE, prot::READ_WRITE, map::PRIVATE | map::ANONYMOUS | map::FIXED];
    equal("nothing can be mapped over the fixed pages", refused(number::MMAP, over), denied);
    equal("a set cannot be made writable", writable_set(), Err(Errno::ACCES));
    let still = given::find(given::OWN_MEMORY) == memory && ring::call(Operation::Nothing, 0, &[]).is_ok();
    check("the fixed pages work as before", still);
}

fn writable_set() -> linux::Result<u64> {
    given::page().protect(prot::READ_WRITE)
}
