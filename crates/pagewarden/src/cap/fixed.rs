//! Pages that each process shares with whoever runs it: one that says which capabilities it was given, and one for the
//! ring that its calls go through.
//!
//! The process can load from the first and load from and store to the second; neither can be run, and no call of the
//! process changes where they are or what may be done with them. What is in the ring is between the process and whoever
//! runs it, and nothing that the process has stored there is to be believed twice: it is copied out, then looked at.
//!
//! Invariant: a set lists what was given in the order in which it was, and says how many there are after the last has been
//! written. Locks: the count of a set, then that of the table or the page's object.

use alloc::sync::Arc;

use super::{CapError, Handle, InterfaceId, MemoryCap, Rights};
use crate::addr::{PAGE_SIZE, PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::ledger::Account;
use crate::mmu::{Mmu, PhysMem};
use crate::object::Placement;
use crate::pager::{AddressSpace, Pager};
use crate::prot::Prot;
use crate::region::{Backing, Region, RegionFlags};
use crate::sync::Mutex;

/// Where the fixed pages are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FixedPlaces {
    /// The page that says which capabilities there are.
    pub capability_set: VirtAddr,
    /// The page of the ring.
    pub ring: VirtAddr,
}

/// One page that a process and whoever runs it both have.
#[derive(Debug)]
pub struct FixedPage<M: PhysMem + Mmu + 'static>(MemoryCap<M>);

impl<M: PhysMem + Mmu + 'static> FixedPage<M> {
    /// A page of zeros, which `account` pays for.
    pub(super) fn new(pager: &Arc<Pager<M>>, account: &Account) -> Result<Self, Errno> {
        MemoryCap::allocate(pager, account, PageCount::new(1), Placement::Scattered).map(Self)
    }

    /// Shows it at `address` of `space`, with rights that stay as they are.
    pub(super) fn show(&self, space: &AddressSpace<M>, address: VirtAddr, prot: Prot) -> Result<(), CapError> {
        let range = PageRange::from_len(address, PAGE_SIZE).ok_or(Errno::Inval)?;
        let mut region = Region::anonymous(prot);
        region.backing = Backing::Object(Arc::clone(self.0.object()));
        region.delta = range.first_page().wrapping_neg();
        region.prot_max = prot;
        region.flags = RegionFlags::SHARED | RegionFlags::DONT_EXPAND;
        space.with_manager_mut(|manager| manager.map_fixed(range, region))?;
        Ok(())
    }

    /// Copies bytes out. What is copied may be anything: the process may store meanwhile.
    ///
    /// # Errors
    /// `EINVAL` if they do not all lie in the page.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), CapError> {
        self.0.read(offset, to)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// `EINVAL` if they do not all lie in the page.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), CapError> {
        self.0.write(offset, from)
    }
}

/// What a process is told of a capability that it was given: 32 bytes in its capability set, all numbers little-endian.
///
/// ```text
/// bytes    0..8    8..16      16..20  20..24  24..32
///          handle  interface  rights  0       name
/// ```
///
/// The first 32 bytes of the page say how many there are (`0..8`), and are 0 otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GivenCapability {
    /// Names it in calls.
    pub handle: Handle,
    /// What kind of object it is for.
    pub interface: InterfaceId,
    /// What it allows.
    pub rights: Rights,
    /// What it is for, by agreement between whoever gives it and the program.
    pub name: [u8; 8],
}

impl GivenCapability {
    /// How long one is.
    pub const BYTES: usize = 32;
    /// How many there can be.
    pub const MOST: u64 = PAGE_SIZE / Self::BYTES as u64 - 1;

    /// As it is in the page.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&self.handle.raw().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.interface.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.rights.bits().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.name);
        bytes
    }

    /// What is in the page; `None` if there is none.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let rights = u32::try_from(word(16)).ok().and_then(Rights::from_bits)?;
        let mut name = [0; 8];
        name.copy_from_slice(&bytes[24..32]);
        Some(Self { handle: Handle::from_raw(word(0))?, interface: InterfaceId(word(8)), rights, name })
    }
}

/// The page that says which capabilities a process was given.
#[derive(Debug)]
pub struct CapabilitySet<M: PhysMem + Mmu + 'static> {
    page: FixedPage<M>,
    /// How many there are.
    count: Mutex<u64>,
}

impl<M: PhysMem + Mmu + 'static> CapabilitySet<M> {
    pub(super) fn new(page: FixedPage<M>) -> Self {
        Self { page, count: Mutex::new(0) }
    }

    /// The page.
    pub const fn page(&self) -> &FixedPage<M> {
        &self.page
    }

    /// Adds one that `give` makes, if there is room.
    ///
    /// # Errors
    /// [`CapError::TableFull`] if there is none, before anything is given; what `give` says.
    pub(super) fn add(
        &self,
        give: impl FnOnce() -> Result<GivenCapability, CapError>,
    ) -> Result<GivenCapability, CapError> {
        let mut count = self.count.lock();
        if *count >= GivenCapability::MOST {
            return Err(CapError::TableFull);
        }
        let given = give()?;
        *count += 1;
        // The page is one frame that is always there.
        self.page.write(*count * GivenCapability::BYTES as u64, &given.to_bytes())?;
        self.page.write(0, &count.to_le_bytes())?;
        Ok(given)
    }
}
