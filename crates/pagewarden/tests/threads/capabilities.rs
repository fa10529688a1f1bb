//! Threads that hand memory to and fro between processes, map it, take snapshots of it and let it go, all at once.
//!
//! Every page of an object holds its token, and whoever stores to one stores the token again. So whatever a handle or a
//! mapping shows has to be its own, whoever else gave up what at the time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::sync::{Arc, Mutex};
use std::thread;

use pagewarden::cap::{CapError, FixedPlaces, FrameAllocatorCap, Handle, Mapping, Process, Rights, TransferMode};
use pagewarden::machine::{Machine, MachineConfig};
use pagewarden::manager::{Layout, Place, SpaceConfig};
use pagewarden::object::{ObjectPages, Placement};
use pagewarden::{Limits, PAGE_SIZE, PageCount, Prot, Resource, VirtAddr};

use super::Numbers;
use super::pager::world::{World, page};

const THREADS: u64 = 4;
const PROCESSES: usize = 3;
const STEPS: u64 = 1500;
/// Pages of an object.
const PAGES: u64 = 3;
const SHARED: Rights = Rights::READ.union(Rights::WRITE).union(Rights::MAP).union(Rights::TRANSFER);

/// A process, its right to frames, and what anybody knows of its memory: handles that may have been released, tokens.
struct Member {
    process: Process<Machine>,
    frames: Handle,
    known: Mutex<Vec<(Handle, u8)>>,
}

impl Member {
    fn new(world: &World) -> Self {
        let places = FixedPlaces { capability_set: VirtAddr::new(page(4000)), ring: VirtAddr::new(page(4001)) };
        let config = SpaceConfig::new(Layout::X86_64, world.ledger.root().child(Limits::UNLIMITED));
        let process = Process::new(&world.pager, config, places).unwrap();
        let pool = world.ledger.root().child(Limits::UNLIMITED);
        let frames = FrameAllocatorCap::new(&world.pager, pool);
        let frames = process.give(Arc::new(frames), Rights::empty(), *b"frames\0\0").unwrap();
        Self { process, frames, known: Mutex::new(Vec::new()) }
    }

    fn note(&self, handle: Result<Handle, CapError>, token: u8) {
        if let Ok(handle) = handle {
            self.known.lock().unwrap().push((handle, token));
        }
    }
}

fn pages(first: u64, count: u64) -> ObjectPages {
    ObjectPages::new(first, PageCount::new(count)).unwrap()
}

/// A thread at work.
struct Worker<'a> {
    number: u64,
    numbers: Numbers,
    members: &'a [Member],
}

impl Worker<'_> {
    fn member(&mut self) -> &Member {
        let at = usize::try_from(self.numbers.below(PROCESSES as u64)).unwrap();
        &self.members[at]
    }

    fn step(&mut self) {
        let (kind, token) = (self.numbers.below(16), u8::try_from(1 + self.numbers.below(255)).unwrap());
        let pick = self.numbers.below(1 << 20);
        let to = self.numbers.below(PROCESSES as u64);
        let (to, window) = (&self.members[usize::try_from(to).unwrap()], 100 + self.number * 100 + pick % 90);
        let member = self.member();
        if kind < 4 {
            return allocate(member, token);
        }
        let (handle, token) = {
            let mut known = member.known.lock().unwrap();
            if known.is_empty() {
                return;
            }
            let at = usize::try_from(pick).unwrap() % known.len();
            if kind < 8 { known.swap_remove(at) } else { known[at] }
        };
        match kind {
            4..8 => drop(member.process.table().release(handle)),
            8 => member.note(member.process.slice(handle, pages(0, 1), SHARED), token),
            9 => member.note(member.process.snapshot(handle, pages(0, 1)), token),
            10 => {
                let mode = if pick.is_multiple_of(2) { TransferMode::Copy } else { TransferMode::Move };
                to.note(member.process.send(handle, mode, SHARED, &to.process), token);
            }
            11 => drop(member.process.write(handle, pick % PAGE_SIZE, &[token])),
            12 => {
                let mut byte = [0];
                if member.process.read(handle, 0, &mut byte).is_ok() {
                    assert_eq!(byte, [token], "{handle}");
                }
            }
            _ => show(member, (handle, token), window),
        }
    }
}

fn allocate(member: &Member, token: u8) {
    let handle = member.process.allocate(member.frames, PageCount::new(PAGES), Placement::Scattered);
    if let Ok(handle) = handle {
        for number in 0..PAGES {
            member.process.write(handle, number * PAGE_SIZE, &[token]).unwrap();
        }
    }
    member.note(handle, token);
}

/// Maps a page where no other thread does, and looks at it and stores to it.
fn show(member: &Member, (handle, token): (Handle, u8), number: u64) {
    let (process, at) = (&member.process, VirtAddr::new(page(number)));
    let mapping = Mapping { part: pages(0, 1), prot: Prot::READ | Prot::WRITE, place: Place::At(at) };
    let Ok(range) = process.map(handle, mapping) else { return };
    for _ in 0..2 {
        let mut byte = [0];
        process.space().copy_from_user(at, &mut byte).unwrap();
        assert_eq!(byte, [token], "{handle} at {at}");
        process.space().copy_to_user(at, &[token]).unwrap();
    }
    if process.unmap_borrowed(handle, range).is_err() {
        // Somebody has released the handle: the mapping is there without it.
        let request = pagewarden::linux::Request::Munmap { addr: at.as_u64(), len: PAGE_SIZE };
        process.space().call(&request).unwrap();
    }
}

#[test]
fn memory_goes_to_and_fro_and_nothing_is_left() {
    let world = World::new(MachineConfig { frames: 2048, processors: 2, ..MachineConfig::default() });
    let members: Vec<Member> = (0..PROCESSES).map(|_| Member::new(&world)).collect();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let mut worker = Worker { number, numbers: Numbers::new(number), members: &members };
            scope.spawn(move || (0..STEPS).for_each(|_| worker.step()));
        }
    });
    for member in &members {
        member.process.check_invariants();
        let account = member.process.table().account();
        let held = member.process.table().len() as u64;
        assert_eq!(account.used(Resource::Capabilities), held);
    }
    drop(members);
    world.check_empty();
}
