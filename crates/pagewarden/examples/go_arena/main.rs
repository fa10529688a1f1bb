//! A heap in the manner of Go's runtime, under a budget: a large arena is reserved for nothing, and memory is paid as it
//! is used.
//!
//! `cargo run -p pagewarden --example go_arena`.

mod arena;
#[path = "../common/mod.rs"]
mod common;

use arena::Arena;
use common::{Outcome, World, use_of};
use pagewarden::{Limits, Resource};

fn main() -> Outcome<()> {
    let world = World::new()?;
    let account = world.account(Limits::UNLIMITED.with(Resource::Committed, 1000));
    let process = world.process(account.clone())?;
    let show = |what: &str| {
        let (reserved, committed) = use_of(&account);
        let frames = account.used(Resource::Frames);
        println!("{what:<40} {reserved:>7} reserved {committed:>5} committed {frames:>5} frames");
    };
    show("a process with its two fixed pages");

    let memory = process.virtual_memory(process.memory())?;
    let mut heap = Arena::sys_reserve(memory, 1 << 14)?;
    show("sysReserve: an arena of 64 MiB");

    let spans = (0..10).map(|_| heap.allocate(50)).collect::<Result<Vec<_>, _>>()?;
    show("sysMap: the heap has grown by chunks");

    for span in &spans {
        for page in span.first_page()..span.end_page() {
            world.store(&process, page * 4096, b"object")?;
        }
    }
    show("every page of ten spans is stored to");

    spans[2..8].iter().for_each(|span| heap.free(*span));
    show("the collector frees six of them");
    println!("    the scavenger gives up {} pages", heap.scavenge()?);
    show("sysUnused");

    let again = heap.allocate(120)?;
    let mut bytes = [0; 6];
    world.load(&process, again.start().as_u64(), &mut bytes)?;
    assert_eq!(bytes, [0; 6], "memory that was given up comes back as zeros");
    show("sysUsed: a span of 120 pages, all zeros");

    match heap.allocate(1000) {
        Err(refused) => println!("    a span of 1000 pages: {refused}"),
        Ok(span) => return Err(format!("{span} is beyond the budget").into()),
    }
    heap.sys_free()?;
    show("sysFree");
    Ok(())
}
