//! The examples' own parts, put to the test: a heap that gives memory up and takes it again, a channel whose sides do
//! not trust each other, and a mailbox whose other side cheats.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../examples/go_arena/arena.rs"]
mod arena;
#[path = "../examples/common/mod.rs"]
mod common;
#[path = "../examples/mailbox/post.rs"]
mod post;
#[path = "../examples/shared_channel/ring.rs"]
mod ring;

use std::sync::{Arc, mpsc};

use arena::{Arena, CHUNK_PAGES};
use common::{Outcome, World, use_of};
use pagewarden::cap::{CapError, FrameAllocatorCap, Handle, Mapping, Process, Rights};
use pagewarden::machine::Machine;
use pagewarden::manager::Place;
use pagewarden::object::ObjectPages;
use pagewarden::{Account, Errno, Limits, PAGE_SIZE, PageCount, Prot, Resource};
use post::{Border, Cheats, Clerk, Served, Writer};
use ring::{RECORD_MAX, Receiver, SLOTS, Sender};

#[test]
fn a_heap_pays_for_what_it_uses_and_for_what_it_may_use_again() {
    let world = World::new().unwrap();
    let account = world.account(Limits::UNLIMITED.with(Resource::Committed, 2 * CHUNK_PAGES));
    let process = world.process(account.clone()).unwrap();
    let empty = use_of(&account);
    let memory = process.virtual_memory(process.memory()).unwrap();
    let mut heap = Arena::sys_reserve(memory, 1 << 12).unwrap();
    let frames = || account.used(Resource::Frames);
    let (reserved, unused) = (use_of(&account), frames());
    assert_eq!(reserved, (empty.0 + (1 << 12), 0), "a reservation is addresses alone");

    let spans: Vec<_> = (0..4).map(|_| heap.allocate(16).unwrap()).collect();
    assert_eq!(use_of(&account).1, CHUNK_PAGES);
    for span in &spans {
        for page in span.first_page()..span.end_page() {
            world.store(&process, page * PAGE_SIZE, &[7]).unwrap();
        }
    }
    assert_eq!(frames(), unused + 64);
    heap.free(spans[1]);
    heap.free(spans[2]);
    assert_eq!((use_of(&account).1, frames()), (CHUNK_PAGES, unused + 64), "the next span may have it");
    assert_eq!(heap.scavenge().unwrap(), 32);
    assert_eq!((use_of(&account).1, frames()), (CHUNK_PAGES - 32, unused + 32));
    assert_eq!(heap.scavenge().unwrap(), 0);

    let again = heap.allocate(20).unwrap();
    assert_eq!((again.start(), use_of(&account).1), (spans[1].start(), CHUNK_PAGES - 12));
    let mut byte = [1];
    world.load(&process, again.start().as_u64(), &mut byte).unwrap();
    assert_eq!(byte, [0], "what was given up is zeros");
    world.load(&process, spans[3].start().as_u64(), &mut byte).unwrap();
    assert_eq!(byte, [7]);

    let refused = heap.allocate(2 * CHUNK_PAGES);
    assert_eq!(refused.map_err(CapError::errno), Err(Errno::NoMem), "beyond the budget");
    heap.allocate(12).unwrap();
    heap.sys_free().unwrap();
    assert_eq!((use_of(&account), frames()), (empty, unused));
}

/// Two processes, and a channel between them.
struct Ends {
    world: World,
    accounts: [Account; 2],
    producer: Process<Machine>,
    consumer: Process<Machine>,
    frames: Handle,
}

impl Ends {
    fn new() -> Self {
        let world = World::new().unwrap();
        let accounts = [0; 2].map(|_| world.account(Limits::UNLIMITED));
        let [producer, consumer] = accounts.each_ref().map(|account| world.process(account.clone()).unwrap());
        let pool = FrameAllocatorCap::new(&world.pager, world.account(Limits::UNLIMITED));
        let frames = producer.give(Arc::new(pool), Rights::empty(), *b"frames\0\0").unwrap();
        Self { world, accounts, producer, consumer, frames }
    }

    fn connect(&self) -> (Sender<'_>, Receiver<'_>, [Handle; 2]) {
        let (sender, handles) = Sender::new(&self.world, (&self.producer, self.frames), &self.consumer).unwrap();
        let receiver = Receiver::new(&self.world, &self.consumer, handles).unwrap();
        (sender, receiver, handles)
    }
}

#[test]
fn records_arrive_in_order_and_the_ring_fills_up() {
    let ends = Ends::new();
    let (mut sender, mut receiver, _) = ends.connect();
    let mut next = 1_u64;
    for round in 0..20_u8 {
        let in_flight = u64::from(round) % SLOTS + 1;
        for _ in 0..in_flight {
            assert_eq!(sender.send(&[round; RECORD_MAX]).unwrap().unwrap() % SLOTS, next % SLOTS);
            next += 1;
        }
        if in_flight == SLOTS {
            assert_eq!(sender.send(b"one too many").unwrap(), None);
        }
        for number in next - in_flight..next {
            assert_eq!(receiver.receive(number).unwrap(), [round; RECORD_MAX]);
        }
    }
    assert!(sender.send(&[0; RECORD_MAX + 1]).is_err());
    let paid = ends.accounts.each_ref().map(|account| use_of(account).1);
    assert_eq!(paid, [2 + SLOTS, 2 * (2 + SLOTS + 1)], "the sender has let its handle go, the receiver has two");
    let Ends { world, accounts, producer, consumer, .. } = ends;
    drop((producer, consumer));
    assert_eq!(accounts.each_ref().map(|account| use_of(account).1), [0, 0]);
    assert_eq!(world.ledger.root().used(Resource::Frames), 1, "the page of zeros");
}

#[test]
fn neither_side_believes_the_other() {
    let ends = Ends::new();
    let (mut sender, mut receiver, [all, own]) = ends.connect();
    sender.send(b"record").unwrap();
    assert!(receiver.receive(2).is_err(), "a number that was not sent");
    assert!(receiver.receive(0).is_err());
    assert_eq!(receiver.receive(1).unwrap(), b"record");
    assert!(receiver.receive(1).is_err(), "a number that was told before");

    // The receiver cannot store to what is the sender's, by no handle and no call.
    let pages = ObjectPages::new(0, PageCount::new(1)).unwrap();
    let store = Mapping { part: pages, prot: Prot::READ | Prot::WRITE, place: Place::Anywhere };
    assert_eq!(ends.consumer.map(all, store), Err(CapError::Rights));
    assert_eq!(ends.consumer.write(all, 0, &[0; 8]), Err(CapError::Rights));
    // It can say that it took what was never there: the sender ends the channel.
    let mine = ends.consumer.map(own, store).unwrap();
    for claim in [5_u64, u64::MAX] {
        ends.world.store(&ends.consumer, mine.start().as_u64(), &claim.to_le_bytes()).unwrap();
        assert!(sender.send(b"next").is_err(), "{claim}");
    }
}

/// What becomes of a letter, and what its writer finds in its place.
fn deliver(text: &str, cheats: Cheats, serve: impl Fn(&Clerk, &Border) -> Outcome<Served>) -> (Served, String) {
    let border = Border::new().unwrap();
    let clerk = Clerk::new(&border).unwrap();
    let (sender, answers) = mpsc::channel();
    let mut writer = Writer::new(&border, &[text], sender);
    writer.cheats = cheats;
    border.other.set_agent(writer);
    let served = (0..10).map(|_| serve(&clerk, &border).unwrap()).find(|served| *served != Served::Nothing);
    assert_eq!(clerk.serve().unwrap(), Served::Nothing, "one answer a letter");
    border.manager.check_invariants();
    drop(clerk);
    assert_eq!((border.manager.live(), border.manager.retained()), (0, 0));
    (served.expect("it was posted"), answers.try_recv().expect("it was answered"))
}

#[test]
fn a_letter_is_answered_and_one_that_changes_meanwhile_does_no_harm() {
    let plainly = |clerk: &Clerk, _: &Border| clerk.serve();
    assert_eq!(deliver("hello", Cheats::No, plainly), (Served::Answered, "HELLO".into()));
    assert_eq!(deliver("", Cheats::No, plainly), (Served::Answered, String::new()));
    assert_eq!(deliver("hello", Cheats::Yes, plainly), (Served::Refused, "this cannot be read".into()));
    assert_eq!(deliver("hello", Cheats::Yes, Clerk::serve_protected), (Served::Answered, "HELLO".into()));
}
