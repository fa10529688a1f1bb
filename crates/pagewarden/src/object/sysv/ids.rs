//! Identifiers of System V objects: `ipc/util.c:ipc_addid`.
//!
//! An identifier is a slot and a sequence number, so that a number is not used again soon. Slots are given out in
//! a circle that grows with the table; whenever it starts anew, the sequence number goes up.

use alloc::collections::BTreeMap;

use crate::error::Errno;

/// Bits of an identifier that are the slot (`IPCMNI_SHIFT`).
const SLOT_BITS: u32 = 15;
/// The most slots (`IPCMNI`).
const SLOTS_MAX: u32 = 1 << SLOT_BITS;
/// The circle has at least as many slots (`RADIX_TREE_MAP_SIZE`).
const CIRCLE_MIN: u32 = 64;
/// Sequence numbers are below this.
const SEQUENCE_END: u32 = i32::MAX.cast_unsigned() >> SLOT_BITS;

/// Objects by identifier.
#[derive(Debug)]
pub(super) struct Ids<T> {
    slots: BTreeMap<u32, (u32, T)>,
    /// Where the search for a free slot starts.
    next: u32,
    /// The slot given out last.
    last: Option<u32>,
    sequence: u32,
}

impl<T> Ids<T> {
    pub(super) const fn new() -> Self {
        Self { slots: BTreeMap::new(), next: 0, last: None, sequence: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(SLOTS_MAX)
    }

    /// Adds what `make` makes of the new identifier.
    ///
    /// # Errors
    /// `ENOSPC` if there would be more than `most`, or what `make` says.
    pub(super) fn add(&mut self, most: u32, make: impl FnOnce(i32) -> Result<T, Errno>) -> Result<i32, Errno> {
        if self.len() >= most.min(SLOTS_MAX) {
            return Err(Errno::NoSpc);
        }
        let circle = (self.len() * 3 / 2).clamp(CIRCLE_MIN, SLOTS_MAX);
        let slot = self.free_slot(self.next, circle).or_else(|| self.free_slot(0, circle)).ok_or(Errno::NoSpc)?;
        let is_new_round = self.last.is_some_and(|last| slot <= last);
        let sequence = if is_new_round { (self.sequence + 1) % SEQUENCE_END } else { self.sequence };
        let id = ((sequence << SLOT_BITS) | slot).cast_signed();
        let object = make(id)?;
        (self.next, self.last, self.sequence) = (slot + 1, Some(slot), sequence);
        self.slots.insert(slot, (sequence, object));
        Ok(id)
    }

    /// The first free slot in `from..end`.
    fn free_slot(&self, from: u32, end: u32) -> Option<u32> {
        if from >= end {
            return None;
        }
        let mut free = from;
        for &slot in self.slots.range(from..end).map(|(slot, _)| slot) {
            if slot != free {
                break;
            }
            free += 1;
        }
        (free < end).then_some(free)
    }

    /// What has exactly this identifier.
    pub(super) fn get(&self, id: i32) -> Option<&T> {
        let (slot, sequence) = split(id)?;
        self.slots.get(&slot).filter(|(own, _)| *own == sequence).map(|(_, object)| object)
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, id: i32) -> Option<&mut T> {
        let (slot, sequence) = split(id)?;
        self.slots.get_mut(&slot).filter(|(own, _)| *own == sequence).map(|(_, object)| object)
    }

    /// What is in the slot of `id`, whatever its sequence number is.
    pub(super) fn in_slot_of(&self, id: i32) -> Option<&T> {
        let (slot, _) = split(id)?;
        self.slots.get(&slot).map(|(_, object)| object)
    }

    /// All objects, by slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.values().map(|(_, object)| object)
    }

    /// Keeps those that `keep` wants.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.slots.retain(|_, (_, object)| keep(object));
    }

    /// The highest slot in use; 0 if there is none, as the kernel says it.
    pub(super) fn highest_slot(&self) -> i32 {
        self.slots.last_key_value().map_or(0, |(slot, _)| slot.cast_signed())
    }
}

/// Slot and sequence number of an identifier, which is not negative.
const fn split(id: i32) -> Option<(u32, u32)> {
    if id < 0 {
        return None;
    }
    let id = id.cast_unsigned();
    Some((id & (SLOTS_MAX - 1), id >> SLOT_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_go_around_and_the_sequence_number_goes_up() {
        let mut ids = Ids::new();
        for slot in 0..64 {
            assert_eq!(ids.add(4096, Ok), Ok(slot));
            ids.retain(|id| *id != slot);
        }
        assert_eq!(ids.add(4096, Ok), Ok(1 << 15));
        assert_eq!((ids.get(1 << 15), ids.get(0), ids.in_slot_of(0)), (Some(&(1 << 15)), None, Some(&(1 << 15))));
        assert_eq!((ids.get(-1), ids.highest_slot()), (None, 0));
    }

    #[test]
    fn a_slot_in_use_is_passed_over() {
        let mut ids = Ids::new();
        (0..64).for_each(|_| assert!(ids.add(4096, Ok).is_ok()));
        ids.retain(|id| !matches!(*id, 5 | 7));
        assert_eq!(ids.add(4096, Ok), Ok(64), "62 * 3 / 2 is more than 64");
        ids.retain(|id| *id < 20);
        assert_eq!((ids.add(4096, Ok), ids.add(4096, Ok)), (Ok(0x8005), Ok(0x8007)));
        assert_eq!(ids.add(20, Ok), Err(Errno::NoSpc));
    }

    #[test]
    fn the_table_can_be_filled() {
        let mut ids = Ids::new();
        for _ in 0..SLOTS_MAX {
            assert!(ids.add(u32::MAX, Ok).is_ok());
        }
        assert_eq!(ids.add(u32::MAX, Ok), Err(Errno::NoSpc));
        assert_eq!(ids.highest_slot(), 32_767);
    }

    #[test]
    fn sequence_numbers_start_anew() {
        let mut ids = Ids::new();
        ids.sequence = SEQUENCE_END - 1;
        (0..64).for_each(|_| assert!(ids.add(4096, Ok).is_ok()));
        ids.retain(|_| false);
        assert_eq!(ids.add(4096, Ok), Ok(0));
    }
}
