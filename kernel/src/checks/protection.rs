//! Deliberate violations by the kernel itself, and what it says of its own map.

use alloc::string::String;

use pagewarden::linux::{MapFlags, MapSource, MmapRequest, Request};
use pagewarden::manager::{Layout, SpaceConfig};
use pagewarden::page_table::EntryFlags;
use pagewarden::pager::AddressSpace;
use pagewarden::{Limits, PAGE_SIZE, VirtAddr};

use super::expect;
use crate::machine::kernel;
use crate::memory::{DIRECT_MAP, Hardware, IMAGE, at};
use crate::probe::{Try, attempt};
use crate::transcript::{note, report};
use crate::{areas, mmu, processor, stacks};

/// Bits of the error code of a page fault.
const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;

/// A function that returns at once.
const RETURN: u8 = 0xc3;
static DATA: [core::sync::atomic::AtomicU8; 1] = [core::sync::atomic::AtomicU8::new(RETURN)];
static CONSTANT: [u8; 1] = [RETURN];

pub(super) fn check() {
    map();
    let all_on = processor::all().iter().all(|processor| processor.features().is_all());
    report(
        format_args!("NX, WP, SMEP, SMAP and global pages are on, on all {} processors", processor::all().len()),
        if all_on { Ok(()) } else { Err("not all of them") },
    );
    own_memory();
    user_memory();
}

/// What the tables show.
fn map() {
    let areas = areas::shown(&kernel().space);
    for area in areas.chunk_by(|one, next| areas::name_of(one.start) == areas::name_of(next.start)) {
        let (first, last) = (area[0], area[area.len() - 1]);
        let gaps = if area.len() > 1 { ", with a page that is not there below each" } else { "" };
        note!("{}{gaps}", areas::Area { end: last.end, ..first });
    }
    let wrong = areas.iter().find(|area| area.is_writable() && area.is_executable());
    let outcome = wrong.map_or(Ok(()), |area| Err(alloc::format!("{area}")));
    report(format_args!("no area of the kernel's map is writable and executable"), outcome);
    let flags = |area: &&areas::Area| area.flags & (EntryFlags::USER | EntryFlags::GLOBAL);
    let wrong = areas.iter().find(|area| flags(area) != EntryFlags::GLOBAL);
    let outcome = wrong.map_or(Ok(()), |area| Err(alloc::format!("{area}")));
    report(format_args!("all of them are global, and none is a user's"), outcome);
    let [code, constants, ..] = areas::image();
    let executable = areas.iter().filter(|area| area.is_executable()).map(|area| (area.start, area.end));
    report(
        format_args!("only the kernel's code can be run"),
        expect(alloc::vec![(code, constants)], executable.collect()),
    );
}

/// One violation, and the error code that it ends in.
fn violation(text: &str, what: Try, address: u64, wanted: u64) {
    // SAFETY: whoever calls this is below: what is stored there is what is there, what is run returns at once, and what is
    // loaded goes nowhere.
    let code = unsafe { attempt(what, address) };
    let outcome = match code {
        None => Err(String::from("it went through")),
        Some(code) => expect(wanted, code),
    };
    report(format_args!("{text} traps: error code {wanted:#x} ({})", words(wanted)), outcome);
}

/// The bits of an error code.
const fn words(code: u64) -> &'static str {
    match (code & PRESENT != 0, code & WRITE != 0, code & FETCH != 0) {
        (true, true, _) => "present, write",
        (true, _, true) => "present, fetch",
        (true, ..) => "present, read",
        (_, true, _) => "not present, write",
        (_, _, true) => "not present, fetch",
        _ => "not present, read",
    }
}

fn own_memory() {
    let [code, ..] = areas::image();
    let (data, constant) = (DATA.as_ptr().addr() as u64, CONSTANT.as_ptr().addr() as u64);
    let on_stack = [RETURN];
    // SAFETY: the kernel's code is there for good, and nobody writes to it.
    let first_byte = unsafe { at::<u8>(code).read() };
    violation("a store to the kernel's code", Try::Store(first_byte), code, PRESENT | WRITE);
    violation("a store to a constant", Try::Store(RETURN), constant, PRESENT | WRITE);
    violation("running a constant", Try::Call, constant, PRESENT | FETCH);
    violation("running data", Try::Call, data, PRESENT | FETCH);
    violation("running a stack", Try::Call, core::hint::black_box(&on_stack).as_ptr().addr() as u64, PRESENT | FETCH);
    violation(
        "running the direct map",
        Try::Call,
        DIRECT_MAP + kernel().space.root().start().as_u64(),
        PRESENT | FETCH,
    );
    violation("a store below a stack", Try::Store(0), stacks::guard(0), WRITE);
    violation("a load from address 0", Try::Load, 0, 0);
    violation("a load from where the kernel was loaded", Try::Load, code - IMAGE, 0);
    violation("a load of the kernel's code through the direct map", Try::Load, DIRECT_MAP + (code - IMAGE), 0);
}

/// A page of a user that holds a function, of a space that runs here.
fn user_memory() {
    const READ_WRITE_EXECUTE: u64 = 7;
    let kernel = kernel();
    let account = kernel.ledger.root().child(Limits::UNLIMITED);
    let space = AddressSpace::new(&kernel.pager, SpaceConfig::new(Layout::X86_64, account)).expect("a frame");
    let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS;
    let (source, prot) = (MapSource::Anonymous, READ_WRITE_EXECUTE);
    let page = space.call(&Request::Mmap(MmapRequest { addr: 0, len: PAGE_SIZE, prot, flags, source, offset: 0 }));
    let page = page.expect("a page");
    space.copy_to_user(VirtAddr::new(page), &[RETURN]).expect("a frame");
    with_root(&space, || {
        violation("a load from a user's page", Try::Load, page, PRESENT);
        violation("a store to a user's page", Try::Store(RETURN), page, PRESENT | WRITE);
        violation("running a user's page", Try::Call, page, PRESENT | FETCH);
    });
}

fn with_root(space: &AddressSpace<Hardware>, act: impl FnOnce()) {
    // SAFETY: the space shows the kernel's half and stays until the kernel's own root is loaded.
    unsafe { mmu::load_root(space.root()) };
    act();
    // SAFETY: it stays for good.
    unsafe { mmu::load_root(kernel().space.root()) };
}
