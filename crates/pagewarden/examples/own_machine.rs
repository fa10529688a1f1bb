//! Memory of one's own: a machine with frames and page tables, two processes on it, and who pays.
//!
//! `cargo run -p pagewarden --example own_machine`. The machine is the software one; a kernel puts its own in place by
//! implementing `PhysMem` and `Mmu`.

use std::error::Error;
use std::sync::Arc;

use pagewarden::frame::{FrameNumber, FrameRange, Frames, FramesConfig, MemoryKind, MemoryMap};
use pagewarden::linux::{MapFlags, MapSource, MmapRequest, Request};
use pagewarden::machine::{Machine, MachineConfig};
use pagewarden::manager::{Access, Layout, SpaceConfig};
use pagewarden::pager::{AddressSpace, Pager};
use pagewarden::{Limits, PAGE_SIZE, PageCount, Resource, ResourceLedger, VirtAddr};

/// Stores as a guest would: what it may not yet do ends in a fault, and the guest tries again.
fn store(machine: &Machine, space: &AddressSpace<Machine>, at: u64, byte: u8) -> Result<(), Box<dyn Error>> {
    machine.activate(0, space.root());
    while let Err(fault) = machine.store(0, VirtAddr::new(at), &[byte]) {
        space.fault(fault.address, Access::Write)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Arc::new(Machine::new(MachineConfig::default()));
    let first = FrameNumber::new(0).ok_or("frame 0")?;
    let all = FrameRange::new(first, PageCount::new(machine.frames())).ok_or("no frames")?;
    let mut map = MemoryMap::new();
    map.add(all, MemoryKind::Usable)?;

    let ledger = ResourceLedger::new(Limits::UNLIMITED);
    let frames = Frames::new(&map, FramesConfig::default())?;
    let pager = Pager::new(machine.clone(), frames, ledger.root())?;
    let show = |what: &str| {
        let used = |resource| ledger.root().used(resource);
        println!("{what:<32} {:>6} pages {:>4} tables", used(Resource::Frames), used(Resource::TableFrames));
    };
    show("nothing but the page of zeros");

    let account = ledger.root().child(Limits::UNLIMITED);
    let parent = AddressSpace::new(&pager, SpaceConfig::new(Layout::X86_64, account))?;
    let len = 1000 * PAGE_SIZE;
    let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS;
    let request = MmapRequest { addr: 0, len, prot: 3, flags, source: MapSource::Anonymous, offset: 0 };
    let start = parent.call(&Request::Mmap(request))?;
    show("1000 pages are mapped");

    for page in 0..1000 {
        store(&machine, &parent, start + page * PAGE_SIZE, 1)?;
    }
    show("and stored to");

    let child = parent.fork(&ledger.root().child(Limits::UNLIMITED))?;
    show("a fork shares them");

    store(&machine, &child, start, 2)?;
    let mut byte = [0];
    parent.copy_from_user(VirtAddr::new(start), &mut byte)?;
    assert_eq!(byte, [1], "the parent has its own");
    show("until one of them stores");

    drop((parent, child));
    show("and in the end");
    Ok(())
}
