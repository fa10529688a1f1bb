//! Reservations of ranges of physical memory: an order among those who ask for one.
//!
//! Owns which ranges are reserved and who waits for some. Outside: what is done with memory that is reserved, and how a
//! thread sleeps ([`EventCount`]). Nothing keeps those who do not ask away from memory that others have reserved.
//!
//! # Who goes first
//!
//! Who waits ([`Reservations::reserve`]) lets those go first who came before and want something that cannot be had
//! together with what it wants itself: a writer is not starved by readers that come later. Who does not wait
//! ([`Reservations::try_reserve`]) looks at nobody who does, and may come in between.
//!
//! # Why no wake-up is lost
//!
//! Who waits reads the count of events first, looks then under the lock and lines up under the same lock, and sleeps until
//! the count is another than the one read. Who takes something out of the way (a reservation, or a place in the queue)
//! does that under the lock as well, and then counts an event if somebody is in the queue. If it comes first, the one
//! who waits sees it gone; if not, it sees the other in the queue, and the event comes after the count was read.
//!
//! # Invariants
//!
//! * No two reservations share a byte unless both are [`Mode::Shared`].
//! * A request gets all it names, or nothing, and under one lock: the order in which it names ranges plays no role.
//! * Whoever is in the queue has a thread in [`Reservations::reserve`].
//!
//! The lock is the only one here; no other is taken under it, and no events are counted, read or waited for.

mod check;
mod node;
mod queue;
mod range_set;
mod request;
#[cfg(test)]
mod tests;
mod tree;

use core::time::Duration;

use crate::phys::{EventCount, PhysError, PhysRange};
use crate::sync::Mutex;
use queue::{Queue, Ticket};
use request::Request;
use tree::Tree;

pub(in crate::phys) use range_set::RangeSet;

/// What else may be reserved meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Whatever is shared as well.
    Shared,
    /// Nothing.
    Exclusive,
}

/// Ranges that are reserved, without anybody to give them back: whoever has it must.
#[derive(Debug)]
#[must_use = "ranges stay reserved until they are released"]
pub(super) struct Held(Request);

impl Held {
    pub(super) const fn mode(&self) -> Mode {
        self.0.mode()
    }
}

/// Which ranges are reserved, and who waits.
///
/// Taking or giving back a range takes time in proportion to the logarithm of how many are reserved, however they
/// overlap. Memory that the registry has needed once it keeps for more reservations.
#[derive(Debug)]
pub struct Reservations<E> {
    events: E,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    exclusive: RangeSet,
    shared: Tree,
    queue: Queue,
}

impl State {
    /// Takes all of `request`, or nothing.
    #[inline]
    fn take(&mut self, request: &Request) -> Result<(), PhysError> {
        let (ranges, mode) = (request.ranges(), request.mode());
        for (taken, range) in ranges.iter().enumerate() {
            if let Err(refusal) = self.take_range(*range, mode) {
                self.give_back(&ranges[..taken], mode);
                return Err(refusal);
            }
        }
        Ok(())
    }

    #[inline]
    fn take_range(&mut self, range: PhysRange, mode: Mode) -> Result<(), PhysError> {
        let other = match mode {
            Mode::Shared => self.exclusive.overlapping(range),
            Mode::Exclusive => self.shared.overlapping(range),
        };
        match (other, mode) {
            (Some(other), _) => Err(PhysError::Reserved(other)),
            (None, Mode::Shared) => self.shared.insert(range),
            (None, Mode::Exclusive) => self.exclusive.insert(range),
        }
    }

    /// A range that is reserved so that `request` cannot be had.
    fn in_the_way(&self, request: &Request) -> Option<PhysRange> {
        let shared = |range| match request.mode() {
            Mode::Shared => None,
            Mode::Exclusive => self.shared.overlapping(range),
        };
        request.ranges().iter().find_map(|range| self.exclusive.overlapping(*range).or_else(|| shared(*range)))
    }

    #[inline]
    fn give_back(&mut self, ranges: &[PhysRange], mode: Mode) {
        for range in ranges {
            let was_there = match mode {
                Mode::Shared => self.shared.remove(*range),
                Mode::Exclusive => self.exclusive.remove(*range),
            };
            debug_assert!(was_there, "{range} was not reserved");
        }
    }
}

impl<E: EventCount> Reservations<E> {
    /// Nothing is reserved.
    pub fn new(events: E) -> Self {
        let state = State { exclusive: RangeSet::new(), shared: Tree::new(), queue: Queue::new() };
        Self { events, state: Mutex::new(state) }
    }

    /// How threads wait here.
    pub const fn events(&self) -> &E {
        &self.events
    }

    /// How many ranges are reserved; one that several share counts for each.
    pub fn len(&self) -> usize {
        let state = self.state.lock();
        state.exclusive.len() + state.shared.len()
    }

    /// Whether nothing is reserved.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reserves all of `ranges`, or none, without waiting. The order in which they are named plays no role.
    ///
    /// It does not look at those who wait: what is free it gets, even if one who waits needs it.
    ///
    /// # Errors
    /// [`PhysError::Invalid`] if there are no ranges, [`PhysError::DuplicatePage`] with the frame of the first byte that
    /// two of them share, [`PhysError::Reserved`] with a range that is in the way, as it was reserved,
    /// [`PhysError::OutOfMemory`].
    pub fn try_reserve(&self, ranges: &[PhysRange], mode: Mode) -> Result<Reservation<'_, E>, PhysError> {
        let request = Request::new(ranges, mode)?;
        self.state.lock().take(&request)?;
        Ok(Reservation { of: self, held: Some(Held(request)) })
    }

    /// Reserves all of `ranges`, or none, and waits as long as `timeout` until they are free and nobody waits who came
    /// before and needs them as well. Without time to wait there is one attempt, which respects those who wait.
    ///
    /// # Errors
    /// As [`try_reserve`](Self::try_reserve), but that a range in the way to the end is [`PhysError::TimedOut`]: one that
    /// is reserved or, if there is none, one that somebody waits for.
    pub fn reserve(
        &self,
        ranges: &[PhysRange],
        mode: Mode,
        timeout: Duration,
    ) -> Result<Reservation<'_, E>, PhysError> {
        let request = Request::new(ranges, mode)?;
        let mut place = Place { of: self, ticket: None };
        let mut deadline = None;
        loop {
            // Both are read before the look: what changes after it changes the count, and the last look is a late one.
            let seen = self.events.count();
            let is_late = deadline.map_or(timeout.is_zero(), |deadline| self.events.now() >= deadline);
            let mut state = self.state.lock();
            match place.attempt(&mut state, &request) {
                Ok(()) => break,
                Err(PhysError::Reserved(other)) if is_late => return Err(PhysError::TimedOut(other)),
                Err(PhysError::Reserved(_)) => place.line_up(&mut state, &request)?,
                Err(refusal) => return Err(refusal),
            }
            drop(state);
            let deadline = *deadline.get_or_insert_with(|| self.events.now().saturating_add(timeout));
            self.events.wait(seen, deadline);
        }
        Ok(Reservation { of: self, held: Some(Held(request)) })
    }

    /// Gives back what is held: of this registry.
    pub(super) fn release(&self, held: Held) {
        let mut state = self.state.lock();
        state.give_back(held.0.ranges(), held.mode());
        let has_waiters = !state.queue.is_empty();
        drop(state);
        if has_waiters {
            self.events.notify();
        }
    }

    /// Works out again what follows from what is reserved, and compares.
    ///
    /// # Panics
    /// If something is wrong.
    pub fn check_invariants(&self) {
        let state = self.state.lock();
        state.queue.check_invariants();
        state.shared.check_invariants();
        for range in state.exclusive.check_invariants() {
            assert_eq!(state.shared.overlapping(range), None, "{range} is exclusive");
        }
    }
}

/// A place in the queue, if there is one: whoever ends up without a reservation leaves it, and wakes those behind.
struct Place<'r, E: EventCount> {
    of: &'r Reservations<E>,
    ticket: Option<Ticket>,
}

impl<E: EventCount> Place<'_, E> {
    /// Takes all of `request` if nobody has a part of it, or came before; the place is gone then.
    fn attempt(&mut self, state: &mut State, request: &Request) -> Result<(), PhysError> {
        if let Some(other) = state.queue.in_the_way(request, self.ticket) {
            // Rather a range that is reserved, if there is one.
            return Err(PhysError::Reserved(state.in_the_way(request).unwrap_or(other)));
        }
        state.take(request)?;
        if let Some(ticket) = self.ticket.take() {
            // Those behind have the reservation in the way now instead.
            state.queue.leave(ticket);
        }
        Ok(())
    }

    fn line_up(&mut self, state: &mut State, request: &Request) -> Result<(), PhysError> {
        if self.ticket.is_none() {
            self.ticket = Some(state.queue.enter(request)?);
        }
        Ok(())
    }
}

impl<E: EventCount> Drop for Place<'_, E> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let has_waiters = self.of.state.lock().queue.leave(ticket);
        if has_waiters {
            self.of.events.notify();
        }
    }
}

/// Ranges that are reserved for as long as this lives.
#[derive(Debug)]
#[must_use = "what is reserved is given back at once"]
pub struct Reservation<'r, E: EventCount> {
    of: &'r Reservations<E>,
    /// `None` only when it is about to be dropped.
    held: Option<Held>,
}

impl<'r, E: EventCount> Reservation<'r, E> {
    /// Whose it is.
    pub(super) fn registry(&self) -> &'r Reservations<E> {
        self.of
    }

    /// Leaves it to somebody else to release.
    pub(super) fn into_held(mut self) -> Option<Held> {
        self.held.take()
    }

    /// What is reserved, in ascending order.
    pub fn ranges(&self) -> &[PhysRange] {
        self.held.as_ref().map_or(&[], |held| held.0.ranges())
    }

    /// What else may be reserved meanwhile.
    pub fn mode(&self) -> Mode {
        self.held.as_ref().map_or(Mode::Shared, Held::mode)
    }
}

impl<E: EventCount> Drop for Reservation<'_, E> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.of.release(held);
        }
    }
}
