//! Segments over two address spaces: who pays, how attaches are counted, and when a segment ends.

use crate::model::SMALL_LAYOUT;
use std::sync::Mutex;

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{
    CREATE, Credentials, EXCLUSIVE, MODE_LOCKED, MODE_REMOVED, NO_RESERVE, Ownership, SegmentLimits, SegmentPolicy,
    SegmentStatus, SegmentTable, StatusOf, Surroundings,
};
use crate::addr::{PAGE_SIZE, PageCount};
use crate::error::Errno;
use crate::ledger::{Limits, Resource, ResourceLedger};
use crate::linux::{MremapRequest, RemapFlags, Request};
use crate::manager::{CommitLimit, NoReserve, Overcommit, PageManager, Privileges, SpaceConfig};
use crate::provider::{Maps, Op, PageManagementProvider};

const AT: u64 = 0x10_0000;

struct Clock(Mutex<(i64, i32)>);

impl Surroundings for Clock {
    fn now(&self) -> i64 {
        self.0.lock().unwrap().0
    }

    fn pid(&self) -> i32 {
        self.0.lock().unwrap().1
    }
}

struct Nowhere;

impl PageManagementProvider for Nowhere {
    fn run(&mut self, _: &Op, _: Maps<'_>) -> Result<(), Errno> {
        Ok(())
    }
}

struct World {
    ledger: ResourceLedger,
    clock: Arc<Clock>,
    table: SegmentTable,
}

const ROOT: Credentials<'_> = Credentials {
    user: 0,
    group: 0,
    groups: &[],
    privileges: Privileges::all(),
    ownership: Ownership::All,
    lock_limit: u64::MAX,
    virtual_pages: 0,
};

fn user(user: u32) -> Credentials<'static> {
    Credentials { user, group: user, privileges: Privileges::empty(), ownership: Ownership::Own, ..ROOT }
}

fn world(limits: Limits, overcommit: Overcommit) -> World {
    let ledger = ResourceLedger::new(limits);
    let clock = Arc::new(Clock(Mutex::new((100, 7))));
    let policy = SegmentPolicy { account: ledger.root().clone(), overcommit, no_reserve: NoReserve::Free };
    let limits = SegmentLimits { segments_max: 3, pages_max: 100, ..SegmentLimits::default() };
    let table = SegmentTable::new(limits, policy, Arc::<Clock>::clone(&clock));
    World { ledger, clock, table }
}

fn plain() -> World {
    world(Limits::UNLIMITED, Overcommit::Always)
}

impl World {
    fn space(&self) -> PageManager<Nowhere> {
        let config = SpaceConfig::new(SMALL_LAYOUT, self.ledger.root().child(Limits::UNLIMITED));
        PageManager::new(config, Nowhere)
    }

    fn attach(&mut self, space: &mut PageManager<Nowhere>, id: i32, page: u64) {
        let segment = self.table.segment(&ROOT, id).unwrap();
        space.call(&Request::Shmat { segment, addr: AT + page * PAGE_SIZE, flags: 0 }).unwrap();
        space.check_invariants();
    }

    fn status(&mut self, id: i32) -> SegmentStatus {
        self.table.status(&ROOT, id, StatusOf::Id).unwrap()
    }

    fn attaches(&mut self, id: i32) -> u64 {
        self.status(id).attaches
    }

    fn committed(&self) -> u64 {
        self.ledger.root().used(Resource::Committed)
    }
}

fn do_all(space: &mut PageManager<Nowhere>, requests: &[Request]) {
    for request in requests {
        space.call(request).unwrap();
        space.check_invariants();
    }
}

fn munmap(page: u64, pages: u64) -> Request {
    Request::Munmap { addr: AT + page * PAGE_SIZE, len: pages * PAGE_SIZE }
}

#[test]
fn a_segment_is_paid_for_from_shmget_to_its_end() {
    let mut world = plain();
    let id = world.table.get(&ROOT, 1, 3 * PAGE_SIZE + 1, CREATE | 0o600).unwrap();
    assert_eq!((id, world.committed()), (0, 4));
    let mut space = world.space();
    world.attach(&mut space, id, 0);
    world.table.remove(&ROOT, id).unwrap();
    assert_eq!(world.table.get(&ROOT, 1, 1, 0), Err(Errno::NoEnt), "the key goes at once");
    let status = world.status(id);
    assert_eq!((status.key, status.mode, world.committed()), (0, 0o600 | MODE_REMOVED, 4));
    drop(space);
    assert_eq!(world.committed(), 0);
    assert_eq!(world.table.status(&ROOT, id, StatusOf::Id), Err(Errno::Inval));
    assert_eq!(world.table.usage().pages, 0);
    assert_eq!(world.table.get(&ROOT, 0, 1, 0), Ok(1));
}

#[test]
fn attaches_follow_regions() {
    let mut world = plain();
    let id = world.table.get(&ROOT, 0, 8 * PAGE_SIZE, 0o600).unwrap();
    let mut space = world.space();
    world.attach(&mut space, id, 0);
    assert_eq!(world.attaches(id), 1);
    do_all(&mut space, &[munmap(3, 2)]);
    assert_eq!(world.attaches(id), 2);
    do_all(&mut space, &[Request::Mprotect { addr: AT + PAGE_SIZE, len: PAGE_SIZE, prot: 1 }]);
    assert_eq!(world.attaches(id), 4);
    let account = world.ledger.root().child(Limits::UNLIMITED);
    let pending = space.prepare_fork(account).unwrap();
    assert_eq!(world.attaches(id), 8);
    let child = pending.finish(Nowhere);
    child.check_invariants();
    assert_eq!(world.attaches(id), 8);
    drop(child);
    assert_eq!(world.attaches(id), 4);
    drop(space.prepare_fork(world.ledger.root().child(Limits::UNLIMITED)).unwrap());
    assert_eq!(world.attaches(id), 4);
    let to = MremapRequest {
        addr: AT + 5 * PAGE_SIZE,
        old_len: 3 * PAGE_SIZE,
        new_len: 3 * PAGE_SIZE,
        flags: RemapFlags::MAY_MOVE | RemapFlags::FIXED,
        new_addr: AT + 20 * PAGE_SIZE,
    };
    do_all(&mut space, &[Request::Mremap(to)]);
    assert_eq!(world.attaches(id), 4);
    do_all(&mut space, &[Request::Shmdt { addr: AT }]);
    assert_eq!(world.attaches(id), 1, "what was moved away is not the segment's start any more");
    do_all(&mut space, &[munmap(0, 40)]);
    assert_eq!(world.attaches(id), 0);
    assert_eq!(world.committed(), 8);
}

#[test]
fn a_region_left_out_of_a_fork_is_not_counted() {
    let mut world = plain();
    let id = world.table.get(&ROOT, 0, PAGE_SIZE, 0o600).unwrap();
    let mut space = world.space();
    world.attach(&mut space, id, 0);
    do_all(&mut space, &[Request::Madvise { addr: AT, len: PAGE_SIZE, advice: 10 }]);
    world.clock.0.lock().unwrap().0 = 200;
    let pending = space.prepare_fork(world.ledger.root().child(Limits::UNLIMITED)).unwrap();
    assert_eq!((world.attaches(id), world.status(id).attached_at), (1, 100));
    drop(pending);
}

#[test]
fn times_and_pids_say_who_was_last() {
    let mut world = plain();
    let id = world.table.get(&ROOT, 0, 4 * PAGE_SIZE, 0o600).unwrap();
    let at = |world: &World, now: i64, pid: i32| *world.clock.0.lock().unwrap() = (now, pid);
    let mut space = world.space();
    at(&world, 200, 8);
    world.attach(&mut space, id, 0);
    let status = world.status(id);
    assert_eq!((status.attached_at, status.detached_at, status.changed_at), (200, 0, 100));
    assert_eq!((status.creator_pid, status.last_pid), (7, 8));
    at(&world, 300, 9);
    do_all(&mut space, &[munmap(3, 1)]);
    let status = world.status(id);
    assert_eq!((status.attached_at, status.detached_at, status.last_pid), (300, 300, 9), "split, then closed");
    at(&world, 400, 10);
    do_all(&mut space, &[munmap(0, 3)]);
    let status = world.status(id);
    assert_eq!((status.attached_at, status.detached_at, status.last_pid), (300, 400, 10));
}

#[test]
fn keys_sizes_and_permissions() {
    let mut world = plain();
    let table = &mut world.table;
    assert_eq!(table.get(&user(5), 9, 1, 0), Err(Errno::NoEnt));
    let id = table.get(&user(5), 9, 4096, CREATE | 0o640).unwrap();
    assert_eq!(table.get(&user(5), 9, 4096, CREATE | EXCLUSIVE), Err(Errno::Exist));
    assert_eq!(table.get(&user(5), 9, 4097, CREATE), Err(Errno::Inval));
    assert_eq!(table.get(&user(5), 9, 0, 0o600), Ok(id));
    assert_eq!(table.get(&user(6), 9, 0, 0), Ok(id), "nothing is asked for");
    assert_eq!(table.get(&user(6), 9, 0, 0o400), Err(Errno::Acces));
    let member = Credentials { groups: &[1, 5], ..user(6) };
    assert_eq!((table.get(&member, 9, 0, 0o040), table.get(&member, 9, 0, 0o020)), (Ok(id), Err(Errno::Acces)));
    assert_eq!(table.status(&user(6), id, StatusOf::Id), Err(Errno::Acces));
    assert!(table.status(&user(6), id, StatusOf::AnySlot).is_ok());
    assert_eq!(table.set(&user(6), id, (6, 6), 0o666), Err(Errno::Perm));
    assert_eq!(table.set(&user(5), id, (u32::MAX, 6), 0o666), Err(Errno::Inval));
    table.set(&user(5), id, (6, 6), 0o7707).unwrap();
    let status = table.status(&user(6), id, StatusOf::Id).unwrap();
    assert_eq!((status.user, status.creator_user, status.mode), (6, 5, 0o707));
    let of_creator = Credentials { groups: &[5], ..user(8) };
    assert_eq!(table.status(&of_creator, id, StatusOf::Id), Err(Errno::Acces), "the creator's group is a group");
    assert_eq!(table.remove(&user(7), id), Err(Errno::Perm));
    assert_eq!((table.get(&ROOT, 0, 0, 0), table.get(&ROOT, 0, u64::MAX, 0)), (Err(Errno::Inval), Err(Errno::Inval)));
    assert_eq!(table.get(&ROOT, 0, 100 * PAGE_SIZE, 0), Err(Errno::NoSpc));
    assert_eq!(table.get(&ROOT, 0, 99 * PAGE_SIZE, 0), Ok(1));
    table.set_limits(SegmentLimits { segments_max: 2, ..SegmentLimits::default() });
    assert_eq!(table.get(&ROOT, 0, 1, 0), Err(Errno::NoSpc));
    assert_eq!(world.committed(), 100);
}

#[test]
fn promises_are_refused() {
    let mut world = plain();
    let account = world.ledger.root().clone();
    account.set_limit(Resource::Committed, 3);
    assert_eq!(world.table.get(&ROOT, 0, 4 * PAGE_SIZE, 0), Err(Errno::NoMem));
    assert_eq!(world.table.get(&ROOT, 0, 4 * PAGE_SIZE, NO_RESERVE), Ok(0));
    let mut heuristic = self::world(Limits::UNLIMITED, Overcommit::Heuristic { ram_and_swap: PageCount::new(3) });
    assert_eq!(heuristic.table.get(&ROOT, 0, 4 * PAGE_SIZE, 0), Err(Errno::NoMem));
    assert_eq!((heuristic.table.get(&ROOT, 0, 3 * PAGE_SIZE, 0), heuristic.committed()), (Ok(0), 3));
    heuristic.table.policy.no_reserve = NoReserve::Charged;
    assert_eq!((heuristic.table.get(&ROOT, 0, 4 * PAGE_SIZE, NO_RESERVE), heuristic.committed()), (Ok(1), 7));
    let never = Overcommit::Never(CommitLimit::new(PageCount::new(4)));
    let mut never = self::world(Limits::UNLIMITED, never);
    assert_eq!(never.table.get(&ROOT, 0, 4 * PAGE_SIZE, NO_RESERVE), Err(Errno::NoMem));
    assert_eq!((never.table.get(&ROOT, 0, 3 * PAGE_SIZE, NO_RESERVE), never.committed()), (Ok(0), 3));
}

#[test]
fn locking_is_for_owners_and_within_limits() {
    let mut world = plain();
    let ids: Vec<i32> = (0..2).map(|_| world.table.get(&user(5), 0, 2 * PAGE_SIZE, 0o600).unwrap()).collect();
    let limited = Credentials { lock_limit: 3 * PAGE_SIZE, ..user(5) };
    assert_eq!(world.table.lock(&user(6), ids[0]), Err(Errno::Perm));
    assert_eq!(world.table.lock(&Credentials { lock_limit: 0, ..user(5) }, ids[0]), Err(Errno::Perm));
    assert_eq!(world.table.lock(&limited, ids[0]), Ok(()));
    assert_eq!(world.table.lock(&limited, ids[0]), Ok(()), "twice is once");
    assert_eq!(world.table.lock(&limited, ids[1]), Err(Errno::NoMem));
    assert_eq!(world.status(ids[0]).mode, 0o600 | MODE_LOCKED);
    assert_eq!(world.ledger.root().used(Resource::Locked), 2);
    world.table.unlock(&limited, ids[0]).unwrap();
    assert_eq!((world.status(ids[0]).mode, world.ledger.root().used(Resource::Locked)), (0o600, 0));
    world.table.lock(&limited, ids[1]).unwrap();
    world.table.remove(&limited, ids[1]).unwrap();
    assert_eq!(world.ledger.root().used(Resource::Locked), 0);
}

#[test]
fn an_attach_under_way_when_the_segment_ends_is_paid_for() {
    let mut world = plain();
    let id = world.table.get(&ROOT, 0, 4 * PAGE_SIZE, 0o600).unwrap();
    let segment = world.table.segment(&ROOT, id).unwrap();
    world.table.remove(&ROOT, id).unwrap();
    assert_eq!(world.committed(), 0);
    let mut space = world.space();
    space.call(&Request::Shmat { segment, addr: AT, flags: 0 }).unwrap();
    assert_eq!(world.committed(), 4);
    drop(space);
    assert_eq!(world.committed(), 0);
}
