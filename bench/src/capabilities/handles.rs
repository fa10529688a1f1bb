//! Charges of a process below a group below the root, and look-ups in a table of capabilities. There is nobody to compare
//! with: who checks as much and costs less has not been found.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use pagewarden::cap::{CapTable, Handle, Interface, InterfaceId, Rights};
use pagewarden::{Account, Limits, Resource, ResourceLedger};

use crate::pager::contest::{Contestant, Stopwatch};
use crate::random::Random;

/// Handles in the table.
const HANDLES: u64 = 256;
/// Operations of a turn: each handle is looked up as often as any other.
const OPERATIONS: usize = 1 << 12;
/// What the numbers of the objects add up to, over all look-ups of a turn.
const SUM: u64 = HANDLES * (HANDLES - 1) / 2 * (OPERATIONS as u64 / HANDLES);
/// Pages of a charge.
const PAGES: u64 = 3;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// A process charges pages for a while.
    Charge,
    /// The same, by a charge that could outlive the process.
    KeepingCharge,
    /// A handle is looked up while the table is held.
    LookUp,
    /// The same, and the table is taken for it.
    LockedLookUp,
}

impl Row {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Charge, Self::KeepingCharge, Self::LookUp, Self::LockedLookUp];

    /// What tables and options call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Charge => "charge and release, three deep",
            Self::KeepingCharge => "charge and release, keeping the account",
            Self::LookUp => "handle look-up",
            Self::LockedLookUp => "handle look-up with the lock",
        }
    }

    /// How many operations a turn has.
    pub const fn operations(self) -> usize {
        OPERATIONS
    }

    /// So many nanoseconds at most are aimed for.
    pub const fn goal(self) -> Option<f64> {
        match self {
            Self::Charge => Some(30.0),
            Self::LookUp => Some(10.0),
            Self::KeepingCharge | Self::LockedLookUp => None,
        }
    }
}

/// An object with a number.
struct Numbered(u64);

impl Interface for Numbered {
    const ID: InterfaceId = InterfaceId(1);
}

/// A process with a table.
struct Process {
    ledger: ResourceLedger,
    group: Account,
    table: CapTable,
    /// Each handle several times, in random order.
    handles: Vec<Handle>,
}

impl Process {
    fn new() -> Result<Self> {
        let limited = |most| Limits::UNLIMITED.with(Resource::Committed, most);
        let ledger = ResourceLedger::new(limited(1 << 30));
        let group = ledger.root().child(limited(1 << 24));
        let table = CapTable::new(group.child(limited(1 << 20)));
        let insert = |number| table.insert(Arc::new(Numbered(number)), Rights::READ | Rights::MAP);
        let handles = (0..HANDLES).map(insert).collect::<Result<Vec<_>, _>>().map_err(|error| anyhow!("{error}"))?;
        let mut handles: Vec<_> = handles.into_iter().cycle().take(OPERATIONS).collect();
        Random::new(HANDLES).shuffle(&mut handles);
        Ok(Self { ledger, group, table, handles })
    }

    fn account(&self) -> &Account {
        self.table.account()
    }

    fn used(&self) -> [u64; 3] {
        [self.ledger.root(), &self.group, self.account()].map(|account| account.used(Resource::Committed))
    }

    /// Charges and gives back again and again; the pages of all charges, added up. What is charged is not shown to the
    /// compiler in memory: it would be put together there from bytes and waited for.
    fn charge_each(&self) -> u64 {
        let charge = |_| self.account().charge_ref(Resource::Committed, black_box(PAGES));
        (0..OPERATIONS).map(|at| charge(at).map_or(0, |charge| charge.amount())).sum()
    }

    fn charge_each_keeping(&self) -> u64 {
        let charge = |_| self.account().charge(Resource::Committed, black_box(PAGES));
        (0..OPERATIONS).map(|at| charge(at).map_or(0, |charge| charge.amount())).sum()
    }

    /// The numbers of all objects that the handles lead to, added up.
    fn look_up_all(&self) -> u64 {
        let table = self.table.read();
        let number = |&handle| table.get::<Numbered>(black_box(handle), Rights::READ).map_or(0, |(object, _)| object.0);
        self.handles.iter().map(number).sum()
    }

    fn look_up_each(&self) -> u64 {
        let number = |&handle| {
            let table = self.table.read();
            table.get::<Numbered>(black_box(handle), Rights::READ).map_or(0, |(object, _)| object.0)
        };
        self.handles.iter().map(number).sum()
    }

    /// Shows that it does what it is measured for.
    fn check(&self) -> Result<()> {
        let charge = self.account().charge_ref(Resource::Committed, PAGES)?;
        ensure!(self.used() == [PAGES; 3], "a charge goes to all three: {:?}", self.used());
        drop(charge);
        ensure!(self.used() == [0; 3], "a charge is given back: {:?}", self.used());
        let released = self.handles.first().context("a handle")?;
        let stale = self.table.duplicate(*released, Rights::READ).and_then(|handle| {
            self.table.release(handle)?;
            Ok(self.table.read().get::<Numbered>(handle, Rights::READ).is_err())
        });
        ensure!(stale == Ok(true), "a stale handle is found");
        Ok(())
    }
}

impl Contestant<Row> for Process {
    fn name(&self) -> &'static str {
        "pagewarden"
    }

    fn turn(&mut self, row: Row, watch: &mut Stopwatch) -> Result<()> {
        let (work, sum): (fn(&Self) -> u64, _) = match row {
            Row::Charge => (Self::charge_each, PAGES * OPERATIONS as u64),
            Row::KeepingCharge => (Self::charge_each_keeping, PAGES * OPERATIONS as u64),
            Row::LookUp => (Self::look_up_all, SUM),
            Row::LockedLookUp => (Self::look_up_each, SUM),
        };
        let done = watch.time(|| work(self))?;
        ensure!(done == sum, "{}: {done} instead of {sum}", row.name());
        Ok(())
    }
}

/// Who takes part: a process.
///
/// # Errors
/// If it does not do what is measured.
pub fn all() -> Result<Vec<Box<dyn Contestant<Row>>>> {
    let process = Process::new()?;
    process.check()?;
    Ok(vec![Box::new(process)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_leave_nothing_charged() {
        let mut process = Process::new().unwrap();
        process.check().unwrap();
        let mut watch = Stopwatch::new().unwrap();
        for row in Row::ALL {
            process.turn(row, &mut watch).unwrap();
            assert!(watch.take() > 0.0, "{row:?} takes time");
        }
        assert_eq!((process.used(), process.table.len() as u64), ([0; 3], HANDLES));
    }
}
