//! Who pays: a tree of accounts with limits, use and peaks.
//!
//! A charge goes to an account and all its parents, or to none of them. [`Charge`] gives back what it
//! holds when it is dropped, so nothing can be charged and forgotten. Counters are atomics and a charge
//! never waits: two charges that race for the last pages of a limit may not both get them, and neither
//! leaves a trace if it fails.
//!
//! Invariant: an account's use is the sum of the charges made on it and on its descendants.

use alloc::sync::Arc;
use core::borrow::Borrow;
use core::{fmt, iter};

use crate::addr::PageCount;
use crate::sync::{AtomicU64, Ordering};

/// What is counted. Units: pages, unless the name says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Resource {
    /// Address space that is mapped, whether it costs memory or not.
    Virtual,
    /// Memory promised: it can be touched later without failing for want of budget.
    Committed,
    /// Memory that must stay resident.
    Locked,
    /// Regions, counted one by one.
    Regions,
    /// Frames that hold pages, of spaces and of objects. Only where the frames are ours ([`crate::frame`]).
    Frames,
    /// Frames that hold page tables, likewise.
    TableFrames,
    /// Slots of tables of capabilities, counted one by one ([`crate::cap`]).
    Capabilities,
}

impl Resource {
    /// Every resource, in the order of their indices.
    pub const ALL: [Self; 7] = [
        Self::Virtual,
        Self::Committed,
        Self::Locked,
        Self::Regions,
        Self::Frames,
        Self::TableFrames,
        Self::Capabilities,
    ];
    /// Those that a map of regions determines: what [`PageManager`](crate::PageManager) charges.
    pub const OF_MAP: [Self; 4] = [Self::Virtual, Self::Committed, Self::Locked, Self::Regions];

    const fn index(self) -> usize {
        self as usize
    }
}

/// The most that an account may hold of each resource; `u64::MAX` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits([u64; Resource::ALL.len()]);

impl Limits {
    /// No limit on anything.
    pub const UNLIMITED: Self = Self([u64::MAX; Resource::ALL.len()]);

    /// These limits, with `resource` limited to `most`.
    #[must_use]
    pub const fn with(mut self, resource: Resource, most: u64) -> Self {
        self.0[resource.index()] = most;
        self
    }

    /// The same with at most `bytes` of `resource`, in whole pages; as many as wanted if there is no number.
    #[must_use]
    pub const fn with_bytes(self, resource: Resource, bytes: Option<u64>) -> Self {
        let most = if let Some(bytes) = bytes { PageCount::from_bytes_down(bytes).get() } else { u64::MAX };
        self.with(resource, most)
    }

    /// The limit on `resource`.
    pub const fn of(&self, resource: Resource) -> u64 {
        self.0[resource.index()]
    }
}

/// Use of one resource on one account. A line of a cache of its own: who charges one resource does not take the line
/// from who charges another.
#[derive(Debug)]
#[repr(align(64))]
struct Counter {
    used: AtomicU64,
    peak: AtomicU64,
    limit: AtomicU64,
}

impl Counter {
    fn new(limit: u64) -> Self {
        Self { used: AtomicU64::new(0), peak: AtomicU64::new(0), limit: AtomicU64::new(limit) }
    }

    /// Adds `amount` if the result stays within the limit (or whatever it is, for `Bound::Ignored`).
    #[inline]
    fn add(&self, amount: u64, bound: Bound) -> Result<(), ()> {
        let limit = match bound {
            Bound::Kept => self.limit.load(Ordering::Relaxed),
            Bound::Ignored => u64::MAX,
        };
        let mut used = self.used.load(Ordering::Relaxed);
        let sum = loop {
            let sum = used.checked_add(amount).filter(|sum| *sum <= limit).ok_or(())?;
            match self.used.compare_exchange_weak(used, sum, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break sum,
                Err(now) => used = now,
            }
        };
        // A peak only grows: one that is seen to be high enough stays so, and a look takes no locked access.
        if self.peak.load(Ordering::Relaxed) < sum {
            self.peak.fetch_max(sum, Ordering::Relaxed);
        }
        Ok(())
    }

    #[inline]
    fn take(&self, amount: u64) {
        let before = self.used.fetch_sub(amount, Ordering::AcqRel);
        debug_assert!(before >= amount, "an account gave back more than it held");
    }
}

#[derive(Clone, Copy)]
enum Bound {
    Kept,
    Ignored,
}

#[derive(Debug)]
struct Node {
    parent: Option<Account>,
    counters: [Counter; Resource::ALL.len()],
}

/// An account on a ledger. Clones are the same account.
#[derive(Clone, Debug)]
pub struct Account(Arc<Node>);

/// A limit was in the way of a charge. Nothing was charged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OverLimit {
    /// What there is too little of.
    pub resource: Resource,
    /// How much more was asked for.
    pub amount: u64,
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} more of {:?} would exceed a limit", self.amount, self.resource)
    }
}

impl core::error::Error for OverLimit {}

impl Account {
    fn new(parent: Option<Self>, limits: Limits) -> Self {
        Self(Arc::new(Node { parent, counters: limits.0.map(Counter::new) }))
    }

    /// A new account below this one: what it holds, this one holds too.
    #[must_use]
    pub fn child(&self, limits: Limits) -> Self {
        Self::new(Some(self.clone()), limits)
    }

    /// Charges `amount` of `resource` here and on all parents.
    ///
    /// # Errors
    /// [`OverLimit`] if any of these accounts would exceed its limit; then none is charged.
    #[inline]
    pub fn charge(&self, resource: Resource, amount: u64) -> Result<Charge, OverLimit> {
        self.add(resource, amount, Bound::Kept)?;
        Ok(Charge::of(self.clone(), resource, amount))
    }

    /// The same, for a time within the life of this handle on the account. Nothing else has to keep the account then: an
    /// account with two parents is charged and given back with six locked accesses to memory instead of eight.
    ///
    /// # Errors
    /// As [`Account::charge`].
    #[inline]
    pub fn charge_ref(&self, resource: Resource, amount: u64) -> Result<Charge<&Self>, OverLimit> {
        self.add(resource, amount, Bound::Kept)?;
        Ok(Charge::of(self, resource, amount))
    }

    /// A charge of nothing yet, to be raised later.
    pub fn empty_charge(&self, resource: Resource) -> Charge {
        Charge::of(self.clone(), resource, 0)
    }

    /// Charges what is there already and cannot be refused, such as a stack that the hardware grew; the
    /// account may end up above its limit, and then refuses what comes after.
    pub fn charge_past_limit(&self, resource: Resource, amount: u64) -> Charge {
        let charge = self.empty_charge(resource);
        charge.raise_past_limit(amount);
        charge
    }

    /// This account and all above it, in the order in which they are charged.
    #[inline]
    fn path(&self) -> impl Iterator<Item = &Self> {
        iter::successors(Some(self), |account| account.0.parent.as_ref())
    }

    #[inline]
    fn counter(&self, resource: Resource) -> &Counter {
        &self.0.counters[resource.index()]
    }

    #[inline]
    fn add(&self, resource: Resource, amount: u64, bound: Bound) -> Result<(), OverLimit> {
        if amount == 0 {
            return Ok(());
        }
        for at in self.path() {
            if at.counter(resource).add(amount, bound).is_err() {
                self.take_until(at, resource, amount);
                return Err(OverLimit { resource, amount });
            }
        }
        Ok(())
    }

    /// Takes `amount` back from this account and its parents, up to but without `stop`.
    #[cold]
    fn take_until(&self, stop: &Self, resource: Resource, amount: u64) {
        let charged = self.path().take_while(|at| !Arc::ptr_eq(&at.0, &stop.0));
        charged.for_each(|at| at.counter(resource).take(amount));
    }

    #[inline]
    fn take(&self, resource: Resource, amount: u64) {
        if amount > 0 {
            self.path().for_each(|at| at.counter(resource).take(amount));
        }
    }

    /// The account above all others, which may be this one.
    #[must_use]
    pub fn root(&self) -> &Self {
        self.path().last().unwrap_or(self)
    }

    /// How much this account and those below it hold.
    pub fn used(&self, resource: Resource) -> u64 {
        self.counter(resource).used.load(Ordering::Relaxed)
    }

    /// The most it ever held.
    pub fn peak(&self, resource: Resource) -> u64 {
        self.counter(resource).peak.load(Ordering::Relaxed)
    }

    /// The limit set on this account itself.
    pub fn limit(&self, resource: Resource) -> u64 {
        self.counter(resource).limit.load(Ordering::Relaxed)
    }

    /// Sets a limit. Below what is in use already, nothing is taken back and new charges fail.
    pub fn set_limit(&self, resource: Resource, most: u64) {
        self.counter(resource).limit.store(most, Ordering::Relaxed);
    }

    /// What could be charged now, by this account's limit and those of all its parents.
    pub fn available(&self, resource: Resource) -> u64 {
        let rest = |at: &Self| match at.limit(resource) {
            u64::MAX => u64::MAX,
            limit => limit.saturating_sub(at.used(resource)),
        };
        self.path().map(rest).min().unwrap_or(u64::MAX)
    }
}

/// An amount held on an account; dropped, it is given back. It keeps the account, or refers to one that is kept.
#[must_use = "a charge that is dropped is given back at once"]
pub struct Charge<A: Borrow<Account> = Account> {
    account: A,
    resource: Resource,
    /// What is held; the account has this much for us at any moment, or more while it changes.
    amount: AtomicU64,
}

impl<A: Borrow<Account>> Charge<A> {
    #[inline]
    fn of(account: A, resource: Resource, amount: u64) -> Self {
        Self { account, resource, amount: AtomicU64::new(amount) }
    }

    /// What is held.
    pub fn amount(&self) -> u64 {
        self.amount.load(Ordering::Acquire)
    }

    /// Who holds it.
    pub fn account(&self) -> &Account {
        self.account.borrow()
    }

    /// Which resource is held.
    pub const fn resource(&self) -> Resource {
        self.resource
    }

    /// Charges `amount` more.
    ///
    /// # Errors
    /// [`OverLimit`] if an account would exceed its limit; what is held stays as it was.
    pub fn raise(&self, amount: u64) -> Result<(), OverLimit> {
        self.account().add(self.resource, amount, Bound::Kept)?;
        self.amount.fetch_add(amount, Ordering::AcqRel);
        Ok(())
    }

    /// Charges `amount` more of what cannot be refused; see [`Account::charge_past_limit`].
    pub fn raise_past_limit(&self, amount: u64) {
        if self.account().add(self.resource, amount, Bound::Ignored).is_ok() {
            self.amount.fetch_add(amount, Ordering::AcqRel);
        }
    }

    /// Gives `amount` back, or all that is held if that is less.
    pub fn give_back(&self, amount: u64) {
        let mut given = 0;
        let _ = self.amount.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
            given = amount.min(held);
            Some(held - given)
        });
        self.account().take(self.resource, given);
    }
}

impl<A: Borrow<Account>> Drop for Charge<A> {
    #[inline]
    fn drop(&mut self) {
        self.account().take(self.resource, self.amount());
    }
}

impl<A: Borrow<Account>> fmt::Debug for Charge<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({} {:?})", self.amount(), self.resource)
    }
}

/// The root of a tree of accounts.
#[derive(Clone, Debug)]
pub struct ResourceLedger {
    root: Account,
}

impl ResourceLedger {
    /// A ledger whose accounts together stay within `limits`.
    pub fn new(limits: Limits) -> Self {
        Self { root: Account::new(None, limits) }
    }

    /// The account above all others.
    pub const fn root(&self) -> &Account {
        &self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Resource::{Committed, Virtual};

    #[test]
    fn a_charge_goes_to_the_account_and_all_its_parents_or_to_none() {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Committed, 10));
        let parent = ledger.root().child(Limits::UNLIMITED);
        let (a, b) = (parent.child(Limits::UNLIMITED), parent.child(Limits::UNLIMITED.with(Committed, 100)));
        let held = a.charge(Committed, 7).unwrap();
        assert_eq!(b.charge(Committed, 4).unwrap_err(), OverLimit { resource: Committed, amount: 4 });
        assert_eq!((b.used(Committed), parent.used(Committed), ledger.root().used(Committed)), (0, 7, 7));
        assert_eq!((b.available(Committed), b.available(Virtual)), (3, u64::MAX));
        drop(held);
        assert_eq!((a.used(Committed), parent.used(Committed), ledger.root().used(Committed)), (0, 0, 0));
        assert_eq!(ledger.root().peak(Committed), 7);
    }

    #[test]
    fn a_lowered_limit_takes_nothing_back_and_refuses_more() {
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let held = ledger.root().charge(Virtual, 8).unwrap();
        ledger.root().set_limit(Virtual, 4);
        assert!(ledger.root().charge(Virtual, 1).is_err());
        assert!(ledger.root().charge(Virtual, 0).is_ok(), "nothing is always granted");
        held.give_back(5);
        held.raise(1).unwrap();
        assert_eq!((held.amount(), ledger.root().used(Virtual)), (4, 4));
    }

    #[test]
    fn a_charge_that_refers_to_its_account_is_like_one_that_keeps_it() {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Committed, 5));
        let account = ledger.root().child(Limits::UNLIMITED);
        let held = account.charge_ref(Committed, 3).unwrap();
        assert_eq!(account.charge_ref(Committed, 3).unwrap_err(), OverLimit { resource: Committed, amount: 3 });
        held.raise(2).unwrap();
        assert_eq!((held.amount(), ledger.root().used(Committed), account.used(Committed)), (5, 5, 5));
        drop(held);
        assert_eq!((ledger.root().used(Committed), account.used(Committed)), (0, 0));
    }

    #[test]
    fn use_does_not_wrap_without_a_limit_either() {
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let account = ledger.root().child(Limits::UNLIMITED);
        let held = ledger.root().charge(Virtual, u64::MAX - 1).unwrap();
        assert!(account.charge(Virtual, 2).is_err(), "the root cannot count so far");
        assert_eq!((account.used(Virtual), ledger.root().used(Virtual)), (0, u64::MAX - 1));
        held.raise_past_limit(2);
        assert_eq!((held.amount(), ledger.root().used(Virtual)), (u64::MAX - 1, u64::MAX - 1));
    }

    #[test]
    fn the_peak_is_the_most_that_was_held_and_no_more() {
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let root = ledger.root();
        let peaks = [3, 2, 5, 4].map(|amount| {
            let beside = root.charge(Committed, 1).unwrap();
            drop((root.charge_ref(Committed, amount).unwrap(), beside));
            root.peak(Committed)
        });
        assert_eq!(peaks, [4, 4, 6, 6]);
    }

    #[test]
    fn what_cannot_be_refused_is_charged_past_the_limit() {
        let ledger = ResourceLedger::new(Limits::UNLIMITED.with(Committed, 1));
        let grown = ledger.root().charge_past_limit(Committed, 5);
        assert_eq!(ledger.root().used(Committed), 5);
        assert!(ledger.root().charge(Committed, 1).is_err());
        drop(grown);
        assert!(ledger.root().charge(Committed, 1).is_ok());
    }
}
