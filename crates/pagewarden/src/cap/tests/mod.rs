//! Tests of the table of capabilities: one table, transfers between two, random steps against a list.

mod oracle;
mod process;
mod random;
mod table;
mod transfers;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{Binding, CapError, CapTable, HandleInfo, Interface, InterfaceId, Rights};
use crate::addr::PageCount;
use crate::error::Errno;
use crate::ledger::{Account, Limits, Resource, ResourceLedger};
use crate::manager::{Cause, Refusal};

/// Some object, whose end is counted.
#[derive(Debug)]
struct Thing {
    pages: u64,
    binding: Binding,
    ends: Arc<AtomicUsize>,
}

impl Interface for Thing {
    const ID: InterfaceId = InterfaceId(1);

    fn pages(&self) -> PageCount {
        PageCount::new(self.pages)
    }

    fn binding(&self) -> Binding {
        self.binding
    }
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.ends.fetch_add(1, Ordering::Relaxed);
    }
}

/// Another object, which costs nothing but its slot.
#[derive(Debug)]
struct Other;

impl Interface for Other {
    const ID: InterfaceId = InterfaceId(2);
}

/// A thing of so many pages, and the count of its ends.
fn thing(pages: u64) -> (Arc<Thing>, Arc<AtomicUsize>) {
    let ends = Arc::default();
    (Arc::new(Thing { pages, binding: Binding::Free, ends: Arc::clone(&ends) }), ends)
}

fn bound() -> Arc<Thing> {
    Arc::new(Thing { pages: 1, binding: Binding::Bound, ends: Arc::default() })
}

fn ended(ends: &AtomicUsize) -> usize {
    ends.load(Ordering::Relaxed)
}

/// A table with an account of its own below `ledger`.
fn table(ledger: &ResourceLedger, limits: Limits) -> CapTable {
    CapTable::new(ledger.root().child(limits))
}

fn unlimited() -> ResourceLedger {
    ResourceLedger::new(Limits::UNLIMITED)
}

/// The slots and committed pages that an account holds.
fn used(account: &Account) -> (u64, u64) {
    (account.used(Resource::Capabilities), account.used(Resource::Committed))
}

const NO_SLOT: CapError =
    CapError::Refused(Refusal { errno: Errno::MFile, cause: Cause::Limit(Resource::Capabilities) });
const NO_PAGES: CapError = CapError::Refused(Refusal { errno: Errno::NoMem, cause: Cause::Limit(Resource::Committed) });

fn infos(table: &CapTable) -> alloc::vec::Vec<HandleInfo> {
    table.read().handles().collect()
}

#[test]
fn errors_say_what_a_guest_is_told() {
    let told = [
        (CapError::BadHandle, "EBADF (no such handle)"),
        (CapError::WrongType, "EINVAL (a handle of another interface)"),
        (CapError::Rights, "EACCES (not enough rights)"),
        (CapError::InTransit, "EBUSY (the handle is in transit)"),
        (CapError::Bound, "EPERM (the object cannot be transferred)"),
        (CapError::Closed, "ESRCH (the table is closed)"),
        (CapError::TableFull, "EMFILE (no slot is left)"),
        (NO_SLOT, "refused: EMFILE (capability limit)"),
        (NO_PAGES, "refused: ENOMEM (commit limit)"),
    ];
    for (error, text) in told {
        assert_eq!(alloc::format!("{error}"), text);
    }
}

#[test]
fn rights_are_shown_by_their_letters() {
    let rights = Rights::READ | Rights::MAP | Rights::RESIZE;
    assert_eq!(alloc::format!("{rights} {} {}", Rights::all(), Rights::empty()), "r--m-s rwxmts ------");
}
