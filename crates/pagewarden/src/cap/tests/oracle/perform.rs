//! Steps, carried out on the machine.

use std::vec;
use std::vec::Vec;

use super::World;
use super::world::address;
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::cap::{CapError, Handle, Mapping, Process, Rights, VirtualMemory};
use crate::ledger::Limits;
use crate::linux::{Advice, MapFlags, MapSource, MmapRequest, MremapRequest, RemapFlags, Request};
use crate::machine::Machine;
use crate::manager::Place;
use crate::model::capability::{Access, BUDGET, Call, Denial, MayMove, Name, Over, Run, Step, Value, Where};
use crate::object::ObjectPages;
use crate::prot::Prot;

type Done = Result<Value, Denial>;

fn range(run: Run) -> PageRange {
    PageRange::from_len(VirtAddr::new(address(run.first)), run.count * PAGE_SIZE).unwrap()
}

fn part(run: Run) -> ObjectPages {
    ObjectPages::new(run.first, PageCount::new(run.count)).unwrap()
}

const fn place(place: Where) -> Place {
    match place {
        Where::Anywhere => Place::Anywhere,
        Where::At(page) => Place::At(VirtAddr::new(address(page))),
    }
}

fn page_of(address: u64) -> u64 {
    (address - super::world::address(0)) / PAGE_SIZE
}

fn nothing(done: Result<(), CapError>) -> Done {
    done?;
    Ok(Value::Nothing)
}

/// Bytes from the first of the first page to the first of the last: each page has one that counts.
fn bytes_of(run: Run, byte: u8) -> Vec<u8> {
    vec![byte; usize::try_from((run.count - 1) * PAGE_SIZE + 1).unwrap()]
}

impl World {
    fn handle(&self, name: Name) -> Result<Handle, Denial> {
        match name {
            Name::Given { process, number } => Ok(self.handles[process][number]),
            Name::Word(word) => Handle::from_raw(word).ok_or(Denial::BadHandle),
        }
    }

    fn new_handle(&mut self, of: usize, made: Result<Handle, CapError>) -> Done {
        self.handles[of].push(made?);
        Ok(Value::Handle)
    }

    /// Does what a step says.
    pub(super) fn perform(&mut self, step: &Step) -> Done {
        let by = step.by;
        match step.call {
            Call::Touch { page, access } => {
                let byte = self.access(by, page, access)?;
                Ok(if matches!(access, Access::Store(_)) { Value::Nothing } else { Value::Bytes(vec![byte]) })
            }
            Call::Fork => {
                let account = self.account(BUDGET).child(Limits::UNLIMITED);
                let child = self.process(by).fork(account.clone())?;
                let handles = vec![child.memory()];
                self.note_process(child, account, handles);
                Ok(Value::Process)
            }
            Call::Exit => {
                self.process(by).exit();
                Ok(Value::Nothing)
            }
            Call::End => {
                self.leave(by);
                self.processes[by] = None;
                Ok(Value::Nothing)
            }
            Call::Limit { account, resource, most } => {
                self.account(account).set_limit(resource, most);
                Ok(Value::Nothing)
            }
            call => match linux_request(call) {
                Some(request) => self.linux(by, call, &request),
                None => self.by_handle(by, call),
            },
        }
    }

    fn linux(&self, by: usize, call: Call, request: &Request) -> Done {
        let value = self.process(by).space().call(request)?;
        Ok(match call {
            Call::Mmap { .. } | Call::Resized { .. } | Call::Moved { .. } => Value::Page(page_of(value)),
            _ => Value::Nothing,
        })
    }

    fn by_handle(&mut self, by: usize, call: Call) -> Done {
        match call {
            Call::Allocate { frames, pages, placement } => {
                let frames = self.handle(frames)?;
                let made = self.process(by).allocate(frames, PageCount::new(pages), placement);
                self.new_handle(by, made)
            }
            Call::AllocateResizable { frames, pages, capacity } => {
                let frames = self.handle(frames)?;
                let (pages, capacity) = (PageCount::new(pages), PageCount::new(capacity));
                let made = self.process(by).allocate_resizable(frames, pages, capacity);
                self.new_handle(by, made)
            }
            Call::Slice { memory, part: of, rights } => {
                let made = self.process(by).slice(self.handle(memory)?, part(of), rights);
                self.new_handle(by, made)
            }
            Call::Snapshot { memory, part: of } => {
                let made = self.process(by).snapshot(self.handle(memory)?, part(of));
                self.new_handle(by, made)
            }
            Call::Duplicate { handle, rights } => {
                let made = self.process(by).table().duplicate(self.handle(handle)?, rights);
                self.new_handle(by, made)
            }
            Call::Send { handle, mode, rights, to } => {
                let made = self.process(by).send(self.handle(handle)?, mode, rights, self.process(to));
                self.new_handle(to, made)
            }
            Call::Release { handle } => nothing(self.process(by).table().release(self.handle(handle)?)),
            Call::Reserve { space, pages, place: wanted } => {
                let space = self.space(by, space)?;
                let range = space.reserve(PageCount::new(pages), place(wanted))?;
                assert_eq!(range.pages().get(), pages);
                Ok(Value::Page(page_of(range.start().as_u64())))
            }
            Call::Commit { space, range: run, prot } => nothing(self.space(by, space)?.commit(range(run), prot)),
            Call::Decommit { space, range: run } => nothing(self.space(by, space)?.decommit(range(run))),
            Call::Protect { space, range: run, prot } => nothing(self.space(by, space)?.protect(range(run), prot)),
            Call::UnmapReserved { space, range: run } => nothing(self.space(by, space)?.unmap(range(run))),
            _ => self.memory_call(self.process(by), call),
        }
    }

    fn space(&self, by: usize, space: Name) -> Result<alloc::sync::Arc<VirtualMemory<Machine>>, Denial> {
        Ok(self.process(by).virtual_memory(self.handle(space)?)?)
    }

    fn memory_call(&self, process: &Process<Machine>, call: Call) -> Done {
        match call {
            Call::Info { memory } => {
                let info = process.info(self.handle(memory)?)?;
                assert_eq!(info.bytes % PAGE_SIZE, 0);
                let (pages, rights): (_, Rights) = (info.pages.get(), info.rights);
                Ok(Value::Info { pages, size: info.bytes / PAGE_SIZE, rights })
            }
            Call::Map { memory, part: of, prot, place: wanted } => {
                let mapping = Mapping { part: part(of), prot, place: place(wanted) };
                let range = process.map(self.handle(memory)?, mapping)?;
                assert_eq!(range.pages().get(), of.count);
                Ok(Value::Page(page_of(range.start().as_u64())))
            }
            Call::UnmapBorrowed { memory, range: run } => {
                nothing(process.unmap_borrowed(self.handle(memory)?, range(run)))
            }
            Call::ProtectBorrowed { memory, range: run, prot } => {
                nothing(process.protect_borrowed(self.handle(memory)?, range(run), prot))
            }
            Call::Resize { memory, pages } => nothing(process.resize(self.handle(memory)?, PageCount::new(pages))),
            Call::Read { memory, part } => {
                let mut bytes = bytes_of(part, 0xee);
                process.read(self.handle(memory)?, part.first * PAGE_SIZE, &mut bytes)?;
                Ok(Value::Bytes(bytes.into_iter().step_by(4096).collect()))
            }
            Call::Write { memory, part, byte } => {
                nothing(process.write(self.handle(memory)?, part.first * PAGE_SIZE, &bytes_of(part, byte)))
            }
            other => panic!("{other:?} is no call by handle"),
        }
    }
}

fn linux_request(call: Call) -> Option<Request> {
    let at = |run: Run| (address(run.first), run.count * PAGE_SIZE);
    let word = |prot: Prot| u64::from(prot.bits());
    Some(match call {
        Call::Mmap { range, prot, over } => {
            let (addr, len) = at(range);
            let kind = if over == Over::Replaced { MapFlags::FIXED } else { MapFlags::FIXED_NO_REPLACE };
            let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | kind;
            Request::Mmap(MmapRequest { addr, len, prot: word(prot), flags, source: MapSource::Anonymous, offset: 0 })
        }
        Call::Munmap { range } => {
            let (addr, len) = at(range);
            Request::Munmap { addr, len }
        }
        Call::Mprotect { range, prot } => {
            let (addr, len) = at(range);
            Request::Mprotect { addr, len, prot: word(prot) }
        }
        Call::Resized { range, pages, may_move } => {
            let flags = if may_move == MayMove::Yes { RemapFlags::MAY_MOVE } else { RemapFlags::empty() };
            remap(at(range), pages * PAGE_SIZE, flags, 0)
        }
        Call::Moved { range, to } => {
            let (addr, len) = at(range);
            remap((addr, len), len, RemapFlags::MAY_MOVE | RemapFlags::FIXED, address(to))
        }
        Call::Discard { range } => {
            let (addr, len) = at(range);
            Request::Madvise { addr, len, advice: Advice::DontNeed.raw() }
        }
        _ => return None,
    })
}

const fn remap((addr, old_len): (u64, u64), new_len: u64, flags: RemapFlags, new_addr: u64) -> Request {
    Request::Mremap(MremapRequest { addr, old_len, new_len, flags, new_addr })
}
