//! What a leaf entry means to the pager: the one place that knows the software bits.

use crate::frame::FrameNumber;
use crate::page_table::{Entry, EntryFlags};
use crate::prot::{Prot, ProtectionKey};

/// Stores go to the frame itself, and whoever else shows it sees them.
const SHARED: EntryFlags = EntryFlags::SOFT_0;
/// Not present: the page has no rights now, and keeps its frame.
const KEPT: EntryFlags = EntryFlags::SOFT_1;
/// The contents may be dropped as long as nothing is stored (`MADV_FREE`).
const LAZY: EntryFlags = EntryFlags::SOFT_2;
/// Not present: an access ends in a signal (`MADV_GUARD_INSTALL`).
const GUARD: EntryFlags = EntryFlags::SOFT_3;
/// The contents may be dropped whatever is stored (`MAP_DROPPABLE`).
const DROPPABLE: EntryFlags = EntryFlags::SOFT_4;
/// What depends on rights.
const RIGHTS: EntryFlags =
    EntryFlags::PRESENT.union(EntryFlags::WRITABLE).union(EntryFlags::USER).union(EntryFlags::NO_EXECUTE);
/// What a page that is stored to has.
const STORED: EntryFlags = EntryFlags::ACCESSED.union(EntryFlags::DIRTY);

/// Who sees stores to a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sharing {
    /// This space.
    Private,
    /// This space, until the contents are dropped.
    Droppable,
    /// Everybody who shows the frame.
    Shared,
}

/// The marker of a guard page.
pub(super) const fn guard() -> Entry {
    Entry::marker(GUARD)
}

/// A page that can be read, and that a store has yet to find its frame for.
pub(super) fn readable(frame: FrameNumber, prot: Prot, key: ProtectionKey, sharing: Sharing) -> Entry {
    let mut flags = (Entry::flags_of(prot) - EntryFlags::WRITABLE) | EntryFlags::ACCESSED;
    flags.set(SHARED, sharing == Sharing::Shared);
    flags.set(DROPPABLE, sharing == Sharing::Droppable);
    Entry::new(frame, flags).with_key(key)
}

/// A page that is about to be stored to.
pub(super) fn stored(frame: FrameNumber, prot: Prot, key: ProtectionKey, sharing: Sharing) -> Entry {
    readable(frame, prot, key, sharing).with(EntryFlags::WRITABLE | STORED)
}

/// `entry`, about to be stored to.
pub(super) fn made_writable(entry: Entry) -> Entry {
    entry.with(EntryFlags::WRITABLE | STORED).without(LAZY)
}

/// Whether a store would go through.
pub(super) fn is_writable(entry: Entry) -> bool {
    entry.contains(EntryFlags::PRESENT | EntryFlags::WRITABLE)
}

/// Whether there is a frame, be it within reach or not.
pub(super) fn has_frame(entry: Entry) -> bool {
    entry.is_present() || entry.contains(KEPT)
}

/// Whether it marks a guard page.
pub(super) fn is_guard(entry: Entry) -> bool {
    !entry.is_present() && entry.contains(GUARD)
}

/// Whether stores go to the frame itself.
pub(super) fn is_shared(entry: Entry) -> bool {
    entry.contains(SHARED)
}

/// Whether something was stored that whoever owns the frame does not know of.
pub(super) fn is_dirty(entry: Entry) -> bool {
    entry.contains(EntryFlags::DIRTY)
}

/// Whether its contents may be dropped now.
pub(super) fn is_droppable(entry: Entry) -> bool {
    entry.contains(DROPPABLE) || entry.contains(LAZY) && !is_dirty(entry)
}

/// The contents may be dropped from now on, until something is stored.
pub(super) fn made_lazy(entry: Entry) -> Entry {
    entry.with(LAZY).without(STORED)
}

/// With other rights. A page becomes writable by a store alone, which finds out whether its frame is its own, unless
/// `writable` says that it is.
pub(super) fn with_rights(entry: Entry, prot: Prot, key: ProtectionKey, writable: Writable) -> Entry {
    if !has_frame(entry) {
        return entry;
    }
    let mut flags = Entry::flags_of(prot);
    if writable == Writable::OnFault {
        flags -= EntryFlags::WRITABLE;
    }
    flags.set(KEPT, prot.is_empty());
    entry.without(RIGHTS | KEPT).with(flags).with_key(key)
}

/// When a page becomes writable whose rights allow that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Writable {
    /// At once.
    Now,
    /// When something is stored.
    OnFault,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ProtectionKey = ProtectionKey::DEFAULT;

    #[test]
    fn a_page_without_rights_keeps_its_frame_and_what_is_known_of_it() {
        let frame = FrameNumber::new(77).unwrap();
        let entry = stored(frame, Prot::READ | Prot::WRITE, KEY, Sharing::Private);
        let none = with_rights(entry, Prot::NONE, KEY, Writable::OnFault);
        assert!(!none.is_present() && has_frame(none) && is_dirty(none) && none.frame() == frame);
        let back = with_rights(none, Prot::READ | Prot::WRITE, KEY, Writable::OnFault);
        assert!(back.is_present() && !is_writable(back) && is_dirty(back) && back.frame() == frame);
        assert_eq!(with_rights(none, Prot::READ | Prot::WRITE, KEY, Writable::Now), entry);
    }

    #[test]
    fn a_guard_is_no_page_and_keeps_no_frame() {
        assert!(is_guard(guard()) && !has_frame(guard()) && !guard().is_empty());
        assert_eq!(with_rights(guard(), Prot::READ, KEY, Writable::Now), guard());
    }

    #[test]
    fn a_store_keeps_what_could_be_dropped() {
        let frame = FrameNumber::new(1).unwrap();
        let lazy = made_lazy(stored(frame, Prot::READ | Prot::WRITE, KEY, Sharing::Private));
        assert!(is_droppable(lazy));
        assert!(!is_droppable(made_writable(lazy)) && !is_droppable(lazy.with(EntryFlags::DIRTY)));
    }
}
