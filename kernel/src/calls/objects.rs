//! Calls of capabilities: each names an object by handle, in the caller's own table.

use alloc::sync::Arc;

use pagewarden::cap::{Handle, Interface, InterfaceId, Mapping, Rights, TransferMode};
use pagewarden::manager::Place;
use pagewarden::object::{ObjectPages, Placement};
use pagewarden::{Errno, Limits, PageCount, PageRange, Prot, Resource, VirtAddr};
use pagewarden_kernel_abi::{self as abi, Operation, Submission};

use super::ring::Outcome;
use super::{CallInProgress, Endpoint};
use crate::machine::kernel;
use crate::memory::check_heap;
use crate::process::{Memory, Process, Thread};
use crate::programs;

/// What operations answer with two words.
type Values = Result<[u64; 2], Errno>;

/// The longest name of a program.
const NAME_MOST: usize = 32;

/// The right to start processes.
#[derive(Debug)]
pub(crate) struct Spawner;

impl Interface for Spawner {
    const ID: InterfaceId = InterfaceId(abi::interface::SPAWNER);
}

/// Carries out a submission.
pub(super) fn perform(thread: &Thread, call: &mut CallInProgress, submission: &Submission) -> Outcome {
    let memory = thread.memory();
    let arguments = submission.arguments;
    let Some(operation) = Operation::from_number(submission.operation) else {
        return Outcome::Is(Err(Errno::NoSys));
    };
    let handle = Handle::from_raw(submission.handle).ok_or(Errno::BadF);
    let done = match (operation, handle) {
        (Operation::Nothing, _) => Ok([0; 2]),
        (Operation::Endpoint, _) => check_heap().and_then(|()| insert(memory, Arc::new(Endpoint::default()), SHARED)),
        (_, Err(errno)) => Err(errno),
        (Operation::Wait, Ok(handle)) => return wait(memory, handle),
        (Operation::Call, Ok(handle)) => return call_endpoint(memory, call, handle, arguments),
        (Operation::Receive, Ok(handle)) => return receive(memory, handle),
        (operation, Ok(handle)) => at_once(memory, operation, handle, arguments),
    };
    Outcome::Is(done)
}

/// What the holder of a new endpoint or process may do with it.
const SHARED: Rights = Rights::READ.union(Rights::WRITE).union(Rights::TRANSFER);

/// Operations that never wait.
fn at_once(memory: &Memory, operation: Operation, handle: Handle, arguments: [u64; 5]) -> Values {
    match operation {
        Operation::Info
        | Operation::Allocate
        | Operation::Map
        | Operation::Unmap
        | Operation::Protect
        | Operation::Slice
        | Operation::Snapshot => of_memory(memory, operation, handle, arguments),
        Operation::Reserve
        | Operation::Commit
        | Operation::Decommit
        | Operation::ProtectReserved
        | Operation::Unreserve => of_space(memory, operation, handle, arguments),
        Operation::Release => done(memory.table().release(handle).map_err(|error| error.errno())),
        Operation::Duplicate => {
            let duplicate = memory.table().duplicate(handle, rights(arguments[0])?);
            duplicate.map(|handle| [handle.raw(), 0]).map_err(|error| error.errno())
        }
        Operation::Send => send(memory, handle, arguments),
        Operation::Spawn => spawn(memory, handle, arguments),
        Operation::Start => done(object::<Process>(memory, handle, Rights::WRITE)?.start()),
        Operation::Reply => {
            let [a, b, ..] = arguments;
            done(object::<Endpoint>(memory, handle, Rights::READ)?.reply([a, b]))
        }
        Operation::Nothing | Operation::Endpoint | Operation::Wait | Operation::Call | Operation::Receive => {
            unreachable!("handled before")
        }
    }
}

fn done(result: Result<(), Errno>) -> Values {
    result.map(|()| [0; 2])
}

fn object<T: Interface>(memory: &Memory, handle: Handle, needed: Rights) -> Result<Arc<T>, Errno> {
    memory.table().get_cloned(handle, needed).map(|(object, _)| object).map_err(|error| error.errno())
}

fn insert<T: Interface>(memory: &Memory, object: Arc<T>, rights: Rights) -> Values {
    let handle = memory.table().insert(object, rights);
    handle.map(|handle| [handle.raw(), 0]).map_err(|error| error.errno())
}

fn rights(word: u64) -> Result<Rights, Errno> {
    u32::try_from(word).ok().and_then(Rights::from_bits).ok_or(Errno::Inval)
}

fn prot(word: u64) -> Result<Prot, Errno> {
    u8::try_from(word).ok().and_then(Prot::from_bits).ok_or(Errno::Inval)
}

fn range(address: u64, pages: u64) -> Result<PageRange, Errno> {
    let start = VirtAddr::new(address);
    if !start.is_page_aligned() {
        return Err(Errno::Inval);
    }
    PageRange::from_pages(start.page_number(), PageCount::new(pages)).ok_or(Errno::Inval)
}

fn place(address: u64) -> Place {
    if address == 0 { Place::Anywhere } else { Place::At(VirtAddr::new(address)) }
}

fn part(first: u64, pages: u64) -> Result<ObjectPages, Errno> {
    ObjectPages::new(first, PageCount::new(pages)).ok_or(Errno::Inval)
}

/// Operations on memory objects and on what they are made of.
fn of_memory(memory: &Memory, operation: Operation, handle: Handle, arguments: [u64; 5]) -> Values {
    let [a, b, c, d, _] = arguments;
    let values = match operation {
        Operation::Info => {
            let info = memory.info(handle);
            info.map(|info| [info.pages.get(), info.rights.bits().into()])
        }
        Operation::Allocate => {
            let placement = if b == 0 { Placement::Scattered } else { Placement::Contiguous };
            memory.allocate(handle, PageCount::new(a), placement).map(|handle| [handle.raw(), 0])
        }
        Operation::Map => {
            let mapping = Mapping { part: part(a, b)?, prot: prot(c)?, place: place(d) };
            memory.map(handle, mapping).map(|range| [range.start().as_u64(), 0])
        }
        Operation::Unmap => memory.unmap_borrowed(handle, range(a, b)?).map(|()| [0; 2]),
        Operation::Protect => memory.protect_borrowed(handle, range(a, b)?, prot(c)?).map(|()| [0; 2]),
        Operation::Slice => memory.slice(handle, part(a, b)?, rights(c)?).map(|handle| [handle.raw(), 0]),
        _ => memory.snapshot(handle, part(a, b)?).map(|handle| [handle.raw(), 0]),
    };
    values.map_err(|error| error.errno())
}

/// Operations on the caller's own address space.
fn of_space(memory: &Memory, operation: Operation, handle: Handle, [a, b, c, ..]: [u64; 5]) -> Values {
    let space = memory.virtual_memory(handle).map_err(|error| error.errno())?;
    let values = match operation {
        Operation::Reserve => {
            let reserved = space.reserve(PageCount::new(a), place(b));
            reserved.map(|range| [range.start().as_u64(), 0])
        }
        Operation::Commit => space.commit(range(a, b)?, prot(c)?).map(|()| [0; 2]),
        Operation::Decommit => space.decommit(range(a, b)?).map(|()| [0; 2]),
        Operation::ProtectReserved => space.protect(range(a, b)?, prot(c)?).map(|()| [0; 2]),
        _ => space.unmap(range(a, b)?).map(|()| [0; 2]),
    };
    values.map_err(|error| error.errno())
}

fn send(memory: &Memory, handle: Handle, [process, mode, rights_word, name, _]: [u64; 5]) -> Values {
    let receiver = Handle::from_raw(process).ok_or(Errno::BadF)?;
    let receiver = object::<Process>(memory, receiver, Rights::WRITE)?;
    let receiver = receiver.memory().ok_or(Errno::Srch)?;
    let mode = match mode {
        0 => TransferMode::Copy,
        1 => TransferMode::Move,
        _ => return Err(Errno::Inval),
    };
    let rights = rights(rights_word)?;
    let sent = match name {
        0 => memory.send(handle, mode, rights, &receiver),
        name => memory.send_as(handle, (mode, rights), name.to_le_bytes(), &receiver),
    };
    sent.map(|handle| [handle.raw(), 0]).map_err(|error| error.errno())
}

fn spawn(memory: &Memory, spawner: Handle, [name, len, committed_most, ..]: [u64; 5]) -> Values {
    object::<Spawner>(memory, spawner, Rights::empty())?;
    let mut bytes = [0; NAME_MOST];
    let len = usize::try_from(len).ok().filter(|len| *len <= NAME_MOST).ok_or(Errno::NoEnt)?;
    memory.space().copy_from_user(VirtAddr::new(name), &mut bytes[..len])?;
    let name = core::str::from_utf8(&bytes[..len]).map_err(|_| Errno::NoEnt)?;
    let limits = match committed_most {
        0 => Limits::UNLIMITED,
        most => Limits::UNLIMITED.with(Resource::Committed, most),
    };
    let process = programs::load(name, kernel().ledger.root().child(limits), limits)?;
    insert(memory, process, SHARED)
}

fn wait(memory: &Memory, handle: Handle) -> Outcome {
    match object::<Process>(memory, handle, Rights::READ) {
        Ok(process) => process.status().map_or(Outcome::Wait, |status| Outcome::Is(Ok([status, 0]))),
        Err(errno) => Outcome::Is(Err(errno)),
    }
}

fn call_endpoint(memory: &Memory, call: &mut CallInProgress, handle: Handle, arguments: [u64; 5]) -> Outcome {
    if let Some(asked) = &call.asked {
        let Some(words) = asked.answer() else { return Outcome::Wait };
        call.asked = None;
        return Outcome::Is(Ok(words));
    }
    let [a, b, ..] = arguments;
    let asked = object::<Endpoint>(memory, handle, Rights::WRITE).and_then(|endpoint| endpoint.call([a, b]));
    match asked {
        Ok(asked) => {
            call.asked = Some(asked);
            Outcome::Wait
        }
        Err(errno) => Outcome::Is(Err(errno)),
    }
}

fn receive(memory: &Memory, handle: Handle) -> Outcome {
    match object::<Endpoint>(memory, handle, Rights::READ).and_then(|endpoint| endpoint.receive()) {
        Ok(Some(words)) => Outcome::Is(Ok(words)),
        Ok(None) => Outcome::Wait,
        Err(errno) => Outcome::Is(Err(errno)),
    }
}
