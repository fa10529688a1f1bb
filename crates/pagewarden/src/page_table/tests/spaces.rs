//! Several spaces over one world, each with a model of what it shows.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;
use crate::frame::FrameRange;
use crate::page_table::{ForkPolicy, Mapped, Move, Share};

/// What a page shows: its frame, or 0, and the flags that are not the tables' business to change.
type Shown = (u64, EntryFlags);

const IGNORED: EntryFlags =
    EntryFlags::WRITABLE.union(EntryFlags::HUGE).union(EntryFlags::ACCESSED).union(EntryFlags::DIRTY);

pub(super) struct Space {
    pub(super) root: Root,
    pub(super) model: BTreeMap<u64, Shown>,
}

pub(super) struct Spaces<'a> {
    pub(super) world: &'a World,
    pub(super) all: Vec<Space>,
}

/// What an entry shows of the page at `offset` in its span.
fn shown(entry: Entry, offset: u64) -> Shown {
    let frame = entry.frame().get();
    (if frame == 0 { 0 } else { frame + offset }, entry.flags() - IGNORED)
}

/// A fork that asks a function what becomes of tables, and copies all leaves.
struct Policy<'a> {
    world: &'a World,
    decide: &'a mut dyn FnMut(PageRange) -> Share,
    left_out: Vec<PageRange>,
}

impl ForkPolicy for Policy<'_> {
    fn decide(&mut self, span: PageRange) -> Share {
        let share = (self.decide)(span);
        if share == Share::Nothing {
            self.left_out.push(span);
        }
        share
    }

    fn copy_leaf(&mut self, _: VirtAddr, entry: Entry, level: Level) -> Result<Option<(Entry, Entry)>, Errno> {
        self.world.share_leaf(entry, level).map(|both| Some((both, both)))
    }
}

impl<'a> Spaces<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let mut spaces = Self { world, all: Vec::new() };
        spaces.add();
        spaces
    }

    pub(super) fn add(&mut self) {
        self.all.push(Space { root: Root::new(self.world).unwrap(), model: BTreeMap::new() });
    }

    fn gather(&self, space: usize) -> Gather<'a, World, World> {
        Gather::new(self.world.tables(), &self.all[space].root)
    }

    fn is_vacant(&self, space: usize, range: PageRange) -> bool {
        self.all[space].model.range(range.first_page()..range.end_page()).next().is_none()
    }

    pub(super) fn map(&mut self, space: usize, page: u64, flags: EntryFlags) -> Result<(), Errno> {
        let frame = self.world.new_frames(1, 1);
        let expected = self.is_vacant(space, pages(page, 1));
        let Space { root, model } = &mut self.all[space];
        let result = self.world.tables().map(root, at(page), frame, flags);
        if result.is_ok() {
            assert!(expected);
            model.insert(page, shown(Entry::new(frame, flags), 0));
        } else {
            assert!(expected || result == Err(Errno::Exist));
            self.world.drop_frames(frame, 1);
        }
        result
    }

    pub(super) fn map_run(&mut self, space: usize, range: PageRange, flags: EntryFlags) -> Result<(), Errno> {
        let frames = range.pages();
        let align = if range.first_page().is_multiple_of(512) { 512 } else { 1 };
        let first = self.world.new_frames(frames.get(), align);
        let expected = self.is_vacant(space, range);
        let run = FrameRange::new(first, frames).unwrap();
        let Space { root, model } = &mut self.all[space];
        let result = self.world.tables().map_run(root, range.start(), run, flags);
        if result.is_ok() {
            assert!(expected);
            let entry = Entry::new(first, flags);
            model.extend((0..frames.get()).map(|page| (range.first_page() + page, shown(entry, page))));
        } else {
            assert!(expected || result == Err(Errno::Exist));
            self.world.drop_frames(first, frames.get());
        }
        result
    }

    pub(super) fn unmap(&mut self, space: usize, page: u64) -> Result<(), Errno> {
        let mut gather = self.gather(space);
        let Space { root, model } = &mut self.all[space];
        let found = self.world.tables().unmap(root, at(page))?;
        assert_eq!(found.as_ref().map(|stale| shown(stale.entry(), 0)), model.remove(&page));
        found.into_iter().for_each(|stale| gather.stale(stale));
        Ok(())
    }

    pub(super) fn protect(&mut self, space: usize, range: PageRange, flags: EntryFlags) -> Result<(), Errno> {
        // A page that copy-on-write keeps from being written stays so: that is the pager's to know, here the owner's.
        let flags = flags - EntryFlags::WRITABLE;
        let mut gather = self.gather(space);
        let Space { root, model } = &mut self.all[space];
        if range.pages().get() == 1 {
            let changed = self.world.tables().protect_page(root, range.start(), flags)?;
            changed.into_iter().for_each(|stale| gather.stale(stale));
        } else {
            self.world.tables().protect(root, range, flags, &mut gather)?;
        }
        const RIGHTS: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::USER).union(EntryFlags::NO_EXECUTE);
        for (_, shown) in model.range_mut(range.first_page()..range.end_page()) {
            shown.1 = (shown.1 - RIGHTS) | flags;
        }
        Ok(())
    }

    /// Edits each leaf by what `change` says of its page: kept, emptied, replaced by a marker, or marked.
    pub(super) fn edit(
        &mut self,
        space: usize,
        range: PageRange,
        change: &mut dyn FnMut(u64) -> u8,
    ) -> Result<(), Errno> {
        let mut gather = self.gather(space);
        let tables = self.world.tables();
        let Space { root, model } = &mut self.all[space];
        tables.make_exclusive(root, range)?;
        let mut last = None;
        tables.edit(root, range, &mut gather, &mut |address, entry, level| {
            let page = address.page_number();
            assert!(last < Some(page), "lowest first");
            last = Some(page);
            let new = match change(page) % 4 {
                0 => entry,
                1 => Entry::EMPTY,
                2 if level == Level::One => Entry::marker(EntryFlags::SOFT_0),
                _ => entry.with(EntryFlags::SOFT_2),
            };
            for offset in 0..level.pages() {
                assert_eq!(model.get(&(page + offset)).copied(), Some(shown(entry, offset)));
                if new.is_empty() {
                    model.remove(&(page + offset));
                } else {
                    model.insert(page + offset, shown(new, offset));
                }
            }
            new
        });
        Ok(())
    }

    pub(super) fn clear(&mut self, space: usize, range: PageRange) -> Result<(), Errno> {
        let mut gather = self.gather(space);
        let tables = self.world.tables();
        let Space { root, model } = &mut self.all[space];
        tables.make_clearable(root, range)?;
        tables.clear(root, range, &mut gather);
        model.retain(|page, _| !range.contains(at(*page)));
        Ok(())
    }

    /// Moves, and marks what it moves if there is anything to mark it with.
    pub(super) fn relocate(&mut self, space: usize, which: Move, marks: EntryFlags) -> Result<(), Errno> {
        let is_vacant = self.is_vacant(space, which.to);
        let is_possible = !which.from.intersects(which.to) && which.from.pages() == which.to.pages();
        let mut gather = self.gather(space);
        let Space { root, model } = &mut self.all[space];
        let mut mark = |entry: Entry| entry.with(marks);
        let change: Option<&mut dyn FnMut(Entry) -> Entry> = if marks.is_empty() { None } else { Some(&mut mark) };
        let result = self.world.tables().move_entries(root, which, &mut gather, change);
        if !is_possible || !is_vacant {
            assert_eq!(result, Err(if is_possible { Errno::Exist } else { Errno::Inval }));
        }
        result?;
        let moved: Vec<_> =
            model.range(which.from.first_page()..which.from.end_page()).map(|(page, shown)| (*page, *shown)).collect();
        for (page, (frame, flags)) in moved {
            model.remove(&page);
            let flags = flags | marks;
            model.insert(page - which.from.first_page() + which.to.first_page(), (frame, flags));
        }
        Ok(())
    }

    /// What a fault does that finds nothing or has to copy: a new frame at `page`.
    pub(super) fn fault(&mut self, space: usize, page: u64) -> Result<(), Errno> {
        let mut gather = self.gather(space);
        let tables = self.world.tables();
        let Space { root, model } = &mut self.all[space];
        let slot = tables.slot(root, at(page))?;
        let current = tables.load(&slot);
        assert_eq!((!current.is_empty()).then(|| shown(current, 0)), model.get(&page).copied());
        let frame = self.world.new_frames(1, 1);
        let new = Entry::new(frame, RW);
        assert_eq!(tables.install(root, &slot, new, new), Err(current));
        tables.install(root, &slot, current, new).unwrap();
        if !current.is_empty() {
            gather.leaf(pages(page, 1), current, Level::One);
        }
        model.insert(page, shown(new, 0));
        Ok(())
    }

    pub(super) fn promote(&mut self, space: usize, page: u64) -> bool {
        let result = self.world.tables().promote(&mut self.all[space].root, at(page));
        let first = page & !511;
        if result {
            let model = &self.all[space].model;
            let (frame, flags) = model[&first];
            assert!((0..512).all(|offset| model.get(&(first + offset)) == Some(&(frame + offset, flags))));
            let query = self.world.tables().query(&self.all[space].root, at(page));
            assert!(matches!(query, Mapped::Leaf { level: Level::Two, .. }));
        }
        result
    }

    pub(super) fn split(&mut self, space: usize, page: u64) -> Result<(), Errno> {
        self.world.tables().split(&mut self.all[space].root, at(page))?;
        let query = self.world.tables().query(&self.all[space].root, at(page));
        assert!(matches!(query, Mapped::Leaf { level: Level::One, .. } | Mapped::Nothing(_)));
        Ok(())
    }

    pub(super) fn fork(&mut self, space: usize, decide: &mut dyn FnMut(PageRange) -> Share) -> Result<(), Errno> {
        let mut child = Root::new(self.world)?;
        let mut gather = self.gather(space);
        let mut policy = Policy { world: self.world, decide, left_out: Vec::new() };
        let Space { root, model } = &mut self.all[space];
        let result = self.world.tables().fork(root, &mut child, &mut gather, &mut policy);
        let census = self.world.tables().check_invariants(&child);
        if let Err(error) = result {
            assert_eq!((census.tables, census.leaves), (1, 0), "a child of a fork that fails is empty");
            self.world.tables().destroy(child);
            return Err(error);
        }
        let mut model = model.clone();
        for span in policy.left_out {
            model.retain(|page, _| !span.contains(at(*page)));
        }
        self.all.push(Space { root: child, model });
        Ok(())
    }

    /// Reads and clears accessed and dirty: what was touched since is told, once, where tables are not shared.
    pub(super) fn harvest(&mut self, space: usize, range: PageRange) {
        let mut gather = self.gather(space);
        let Space { root, model } = &mut self.all[space];
        self.world.tables().harvest(root, range, &mut gather, &mut |address, entry| {
            assert!(model.contains_key(&address.page_number()));
            assert!(entry.flags().intersects(EntryFlags::ACCESSED | EntryFlags::DIRTY));
        });
    }

    pub(super) fn destroy(&mut self, space: usize) {
        self.world.tables().destroy(self.all.swap_remove(space).root);
    }

    /// Everything is as the models say, and everything is counted.
    pub(super) fn check(&self) {
        let tables = self.world.tables();
        let everywhere = PageRange::new(VirtAddr::new(0), VirtAddr::new(!0xfff)).unwrap();
        for space in &self.all {
            tables.check_invariants(&space.root);
            let mut found = BTreeMap::new();
            tables.entries(&space.root, everywhere, &mut |span, entry, _| {
                let before = found.last_key_value().map(|(page, _)| *page);
                assert!(before < Some(span.first_page()), "lowest first");
                found.extend((0..span.pages().get()).map(|offset| (span.first_page() + offset, shown(entry, offset))));
            });
            assert_eq!(found, space.model);
            [pages(3, 700), pages(512, 1), pages(1023, 514)].into_iter().for_each(|part| self.check_part(space, part));
            self.world.check_known(space.root.frame());
            self.world.check_writable(space.root.frame());
        }
    }

    /// Every leaf with a page in `part` is told, and no other.
    fn check_part(&self, space: &Space, part: PageRange) {
        let mut found = Vec::new();
        self.world.tables().entries(&space.root, part, &mut |span, _, _| {
            let both = span.intersection(part);
            found.extend(both.expect("a leaf in the part").first_page()..both.map_or(0, PageRange::end_page));
        });
        let expected = space.model.range(part.first_page()..part.end_page()).map(|(page, _)| *page);
        assert!(expected.eq(found), "leaves in {part}");
    }

    /// Counts all references anew.
    pub(super) fn check_references(&self) {
        let roots: Vec<_> = self.all.iter().map(|space| space.root.frame()).collect();
        self.world.check_references(&roots);
    }

    /// Releases everything; nothing is left.
    pub(super) fn finish(mut self) {
        while !self.all.is_empty() {
            self.destroy(0);
            self.check();
            self.check_references();
        }
        let state = self.world.state.lock().unwrap();
        assert!(state.tables.is_empty() && state.leaves.is_empty(), "{state:?}");
    }
}
