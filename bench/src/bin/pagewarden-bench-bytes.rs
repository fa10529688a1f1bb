//! Bytes that the maps ask of the allocator: `pagewarden-bench-bytes SIZE...`, JSON out.
//!
//! A program of its own, because counting costs time.

use std::alloc::System;

use anyhow::Result;
use cap::Cap;
use pagewarden_bench::bytes::Bytes;
use pagewarden_bench::vmmap::PEERS;
use pagewarden_bench::work::Layout;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

fn main() -> Result<()> {
    let mut all = Vec::new();
    for size in std::env::args().skip(1) {
        let layout = Layout::new(size.parse()?);
        for peer in PEERS {
            let before = ALLOCATOR.allocated();
            let map = peer.fill(&layout);
            let live = ALLOCATOR.allocated() - before;
            drop(map);
            all.push(Bytes { peer: peer.name.to_owned(), regions: layout.regions.len(), live });
        }
    }
    println!("{}", serde_json::to_string(&all)?);
    Ok(())
}
