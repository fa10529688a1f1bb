//! What the calls of a record did to the maps of the processes.
//!
//! Follows each process in a [`Vmmap`], to know what a call found: the file below a fixed map, the regions that a
//! move carries along, the end of the heap. Each edit is carried out there and then noted.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use pagewarden::object::FileId;
use pagewarden::{Backing, MemoryObject, ObjectKind, PageCount, PageRange, Prot, Region, RegionFlags, VirtAddr, Vmmap};

use super::record::{Advice, Creation, Event, Line, Map, Placement};
use super::{Call, Edit};

/// The edits that `lines` stand for.
pub(super) fn calls(lines: &[Line<'_>]) -> Result<Vec<Call>> {
    let mut model = Model::default();
    for line in lines {
        if let Event::Create(creation, child) = line.event
            && model.births.insert(child, (line.pid, creation)).is_some()
        {
            bail!("{}: {child} was created before", line.place);
        }
    }
    for line in lines {
        model.step(line).with_context(|| line.place.to_string())?;
    }
    Ok(model.calls)
}

/// A thread, as long as it runs.
#[derive(Clone, Copy)]
struct Thread {
    /// Whose map it uses.
    process: usize,
    /// It is a child of vfork that has not called execve.
    is_borrower: bool,
}

/// What is known of a process.
#[derive(Clone)]
struct Process {
    map: Vmmap,
    /// The page after the heap, once the program has asked for it.
    heap_end: Option<u64>,
}

#[derive(Default)]
struct Model {
    calls: Vec<Call>,
    /// Who creates each thread: a child's first lines may stand before the line that creates it.
    births: HashMap<u32, (u32, Creation)>,
    /// `None` for those that have ended.
    threads: HashMap<u32, Option<Thread>>,
    processes: Vec<Process>,
    segments: HashMap<i32, Arc<MemoryObject>>,
    /// How many objects there are.
    objects: u64,
}

impl Model {
    fn step(&mut self, line: &Line<'_>) -> Result<()> {
        if line.event == Event::Failed {
            return Ok(());
        }
        let thread = self.thread(line.pid)?;
        let process = thread.process;
        match line.event {
            Event::Map(map) => self.map(process, map),
            Event::Unmap(range) => self.edit(process, Edit::Remove { pages: pages(range) }),
            Event::Protect(range, prot) => self.edit(process, Edit::Protect { pages: pages(range), prot }),
            Event::Remap(old, new) => self.remap(process, old, new),
            Event::Brk(end) => self.brk(process, end),
            Event::Advise(range, Advice::DontFork) => self.keep_from_children(process, range),
            Event::Advise(range, Advice::DontNeed | Advice::Free) => {
                self.edit(process, Edit::Visit { pages: pages(range) })
            }
            Event::ShmAttach(id, page) => self.attach(process, id, page),
            Event::ShmDetach(page) => self.edit(process, Edit::Remove { pages: pages(one_page(page)?) }),
            Event::Create(_, child) if self.threads.contains_key(&child) => Ok(()),
            Event::Create(creation, child) => self.create(process, creation, child),
            Event::Exec => self.exec(line.pid, thread),
            Event::Exit => self.exit(line.pid, thread),
            Event::Failed => Ok(()),
        }
    }

    /// The thread `pid`, created if its first line stands before the one that creates it. The one that nobody creates
    /// is the program itself.
    fn thread(&mut self, pid: u32) -> Result<Thread> {
        if !self.threads.contains_key(&pid) {
            match self.births.get(&pid) {
                None if self.processes.is_empty() => {
                    let thread = Thread { process: self.fresh(), is_borrower: false };
                    self.threads.insert(pid, Some(thread));
                }
                None => bail!("nobody creates {pid}"),
                Some(&(parent, creation)) => {
                    let parent = self.threads.get(&parent).copied().flatten().context("its parent does not run")?;
                    self.create(parent.process, creation, pid)?;
                }
            }
        }
        self.threads.get(&pid).copied().flatten().context("it has ended")
    }

    /// A process with an empty map.
    fn fresh(&mut self) -> usize {
        self.processes.push(Process { map: Vmmap::new(PageCount::ZERO), heap_end: None });
        self.processes.len() - 1
    }

    /// Carries `edit` out in the map of `process` and notes it.
    fn edit(&mut self, process: usize, edit: Edit) -> Result<()> {
        apply(&edit, &mut self.processes[process].map)?;
        self.calls.push(Call { process, edit });
        Ok(())
    }

    fn map(&mut self, process: usize, map: Map) -> Result<()> {
        if map.kind.placement == Placement::Searched {
            self.edit(process, Edit::Search { wanted: map.range.pages().get() })?;
        }
        let region = self.region(process, map);
        self.edit(process, Edit::Replace { pages: pages(map.range), region })
    }

    fn region(&mut self, process: usize, map: Map) -> Region {
        let mut region = Region::anonymous(map.prot);
        region.flags = map.kind.flags;
        let is_exempt = region.flags.intersects(RegionFlags::SHARED | RegionFlags::NO_RESERVE);
        region.flags.set(RegionFlags::COMMITTED, map.prot.contains(Prot::WRITE) && !is_exempt);
        let Some((object, offset)) = (match map.file {
            Some((fd, offset)) => Some((self.file(process, map, fd), offset)),
            None if region.is_shared() => Some((self.object(ObjectKind::SharedAnonymous), 0)),
            None => None,
        }) else {
            return region;
        };
        region.backing = Backing::Object(object);
        region.delta = offset.wrapping_sub(map.range.first_page());
        region
    }

    /// The file behind descriptor `fd`: that of the region which `map` lies over or right above, if it is fixed and
    /// that was mapped by the same descriptor, or else a file not seen before.
    fn file(&mut self, process: usize, map: Map, fd: u32) -> Arc<MemoryObject> {
        let device = u64::from(fd);
        if map.kind.placement == Placement::Fixed {
            let first = map.range.first_page();
            for page in [first, first.saturating_sub(1)] {
                let found = VirtAddr::from_page_number(page).and_then(|at| self.processes[process].map.get(at));
                if let Some(object) = found.and_then(|entry| entry.region.object())
                    && matches!(object.kind(), ObjectKind::File(file) if file.device == device)
                {
                    return Arc::clone(object);
                }
            }
        }
        let inode = self.objects;
        self.object(ObjectKind::File(FileId { device, inode }))
    }

    fn object(&mut self, kind: ObjectKind) -> Arc<MemoryObject> {
        self.objects += 1;
        MemoryObject::new(kind, "")
    }

    fn remap(&mut self, process: usize, old: PageRange, new: PageRange) -> Result<()> {
        let carried = self.parts(process, old);
        let Some((last_part, last)) = carried.last().cloned() else { bail!("a move of what is not mapped") };
        let (kept, moved) = (old.pages().min(new.pages()).get(), new.first_page() != old.first_page());
        let shift = new.first_page().wrapping_sub(old.first_page());
        if moved {
            self.edit(process, Edit::Search { wanted: new.pages().get() })?;
            for (part, region) in carried {
                let end = part.end.min(old.first_page() + kept);
                if part.start < end {
                    let pages = part.start.wrapping_add(shift)..end.wrapping_add(shift);
                    self.edit(process, Edit::Replace { pages, region: shifted(region, shift) })?;
                }
            }
        }
        if new.pages() > old.pages() {
            let grown = last_part.end.wrapping_add(shift)..new.end_page();
            self.edit(process, Edit::Replace { pages: grown, region: shifted(last, shift) })?;
        }
        if moved {
            self.edit(process, Edit::Remove { pages: pages(old) })?;
        } else if new.pages() < old.pages() {
            self.edit(process, Edit::Remove { pages: new.end_page()..old.end_page() })?;
        }
        Ok(())
    }

    /// What is mapped in `range`, cut at its edges.
    fn parts(&self, process: usize, range: PageRange) -> Vec<(super::Pages, Region)> {
        let entries = self.processes[process].map.range(range);
        let cut = |entry: pagewarden::vmmap::Entry<'_>| {
            entry.range.intersection(range).map(|part| (pages(part), entry.region.clone()))
        };
        entries.filter_map(cut).collect()
    }

    fn brk(&mut self, process: usize, end: u64) -> Result<()> {
        match self.processes[process].heap_end.replace(end) {
            Some(before) if before < end => {
                let mut region = Region::anonymous(Prot::READ | Prot::WRITE);
                region.flags = RegionFlags::COMMITTED;
                self.edit(process, Edit::Replace { pages: before..end, region })
            }
            Some(before) if end < before => self.edit(process, Edit::Remove { pages: end..before }),
            _ => Ok(()),
        }
    }

    fn keep_from_children(&mut self, process: usize, range: PageRange) -> Result<()> {
        for (pages, mut region) in self.parts(process, range) {
            region.flags |= RegionFlags::DONT_FORK;
            self.edit(process, Edit::Replace { pages, region })?;
        }
        Ok(())
    }

    fn attach(&mut self, process: usize, id: i32, page: u64) -> Result<()> {
        let range = one_page(page)?;
        let kind = ObjectKind::SysV { id, pages: range.pages() };
        let object = Arc::clone(self.segments.entry(id).or_insert_with(|| MemoryObject::new(kind, "")));
        let mut region = Region::anonymous(Prot::READ | Prot::WRITE);
        (region.backing, region.delta) = (Backing::Object(object), 0_u64.wrapping_sub(page));
        region.flags = RegionFlags::SHARED;
        self.edit(process, Edit::Search { wanted: range.pages().get() })?;
        self.edit(process, Edit::Replace { pages: pages(range), region })
    }

    fn create(&mut self, process: usize, creation: Creation, child: u32) -> Result<()> {
        let mut thread = Thread { process, is_borrower: creation == Creation::Vfork };
        if creation == Creation::Fork {
            thread.process = self.processes.len();
            self.processes.push(self.processes[process].clone());
            self.calls.push(Call { process, edit: Edit::Fork { child: thread.process } });
        }
        self.threads.insert(child, Some(thread));
        if creation == Creation::Fork { self.drop_kept(thread.process) } else { Ok(()) }
    }

    /// Removes from a new process what it does not inherit.
    fn drop_kept(&mut self, process: usize) -> Result<()> {
        let entries = self.processes[process].map.iter();
        let kept = entries.filter(|entry| entry.region.flags.contains(RegionFlags::DONT_FORK));
        let kept: Vec<PageRange> = kept.map(|entry| entry.range).collect();
        kept.into_iter().try_for_each(|range| self.edit(process, Edit::Remove { pages: pages(range) }))
    }

    fn exec(&mut self, pid: u32, thread: Thread) -> Result<()> {
        let process = if thread.is_borrower { self.fresh() } else { thread.process };
        self.threads.insert(pid, Some(Thread { process, is_borrower: false }));
        self.processes[process].heap_end = None;
        self.edit(process, Edit::Exec)
    }

    fn exit(&mut self, pid: u32, thread: Thread) -> Result<()> {
        self.threads.insert(pid, None);
        if self.threads.values().flatten().any(|other| other.process == thread.process) {
            return Ok(());
        }
        self.edit(thread.process, Edit::Exit)
    }
}

/// Carries `edit` out in `map`; a fork changes nothing in the map of the parent.
pub(super) fn apply(edit: &Edit, map: &mut Vmmap) -> Result<()> {
    match edit {
        Edit::Search { .. } | Edit::Visit { .. } | Edit::Fork { .. } => {}
        Edit::Replace { pages, region } => map.replace(range(pages)?, region.clone())?,
        Edit::Remove { pages } => map.remove(range(pages)?)?,
        Edit::Protect { pages, prot } => map.update(range(pages)?, |_, region| region.prot = *prot)?,
        Edit::Exec | Edit::Exit => *map = Vmmap::new(map.guard()),
    }
    Ok(())
}

/// `region`, moved up by `pages`: it shows the same pages of its object.
fn shifted(mut region: Region, pages: u64) -> Region {
    if region.object().is_some() {
        region.delta = region.delta.wrapping_sub(pages);
    }
    region
}

fn one_page(page: u64) -> Result<PageRange> {
    PageRange::from_pages(page, PageCount::new(1)).context("beyond the last page")
}

const fn pages(range: PageRange) -> super::Pages {
    range.first_page()..range.end_page()
}

fn range(pages: &super::Pages) -> Result<PageRange> {
    let count = pages.end.saturating_sub(pages.start);
    PageRange::from_pages(pages.start, PageCount::new(count)).context("no page, or beyond the last page")
}
