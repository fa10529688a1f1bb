//! Who waits, in the order in which they came.

use alloc::collections::VecDeque;

use super::request::Request;
use crate::phys::{PhysError, PhysRange};

/// Requests that wait.
#[derive(Debug)]
pub(super) struct Queue {
    /// By ticket.
    waiters: VecDeque<Waiter>,
    next: Ticket,
}

/// The place of one who waits: lower ones came before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ticket(u64);

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    request: Request,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self { waiters: VecDeque::new(), next: Ticket(0) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Lines up behind all who are there.
    ///
    /// # Errors
    /// [`PhysError::OutOfMemory`].
    pub(super) fn enter(&mut self, request: &Request) -> Result<Ticket, PhysError> {
        self.waiters.try_reserve(1).map_err(|_| PhysError::OutOfMemory)?;
        let (ticket, request) = (self.next, request.try_clone()?);
        self.waiters.push_back(Waiter { ticket, request });
        self.next = Ticket(ticket.0 + 1);
        Ok(ticket)
    }

    /// A range that somebody waits for who came before the one with `ticket`, and before whom `request` cannot be had.
    pub(super) fn in_the_way(&self, request: &Request, ticket: Option<Ticket>) -> Option<PhysRange> {
        let before = self.waiters.iter().take_while(|waiter| Some(waiter.ticket) != ticket);
        before.filter_map(|waiter| waiter.request.in_the_way_of(request)).next()
    }

    /// Whether others are behind.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let Ok(at) = self.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) else { return false };
        self.waiters.remove(at);
        at < self.waiters.len()
    }

    /// # Panics
    /// If those who wait are out of order.
    pub(super) fn check_invariants(&self) {
        assert!(self.waiters.iter().is_sorted_by(|a, b| a.ticket < b.ticket), "tickets out of order");
        assert!(self.waiters.iter().all(|waiter| waiter.ticket < self.next), "a ticket that nobody was given");
    }
}
