//! Protection keys: the process has fifteen to give, and the arena's guest gets the host's own, as far as they are
//! those that the manager would give.

use pagewarden::prot::ProtectionKey;
use pagewarden::provider::{KeyUse, KeyedProt};
use pagewarden::{Errno, PageRange};

use super::provider::ArenaProvider;
use super::reservation;

impl ArenaProvider {
    /// Takes `key` for the guest; `rights` hold for the calling thread.
    pub(super) fn allocate_key(&mut self, key: ProtectionKey, rights: u64) -> Result<(), Errno> {
        let given = reservation::allocate_key(rights)?;
        if given == u64::from(key.number()) {
            self.keys.push(key);
            return Ok(());
        }
        // The process uses keys itself. This one is of no use to the guest then.
        let _ = reservation::free_key(given);
        Err(Errno::NoSpc)
    }

    /// Gives `key` back.
    pub(super) fn free_key(&mut self, key: ProtectionKey) -> Result<(), Errno> {
        reservation::free_key(key.number().into())?;
        self.keys.retain(|kept| *kept != key);
        Ok(())
    }

    /// Changes rights and key, which are `from` on all pages.
    pub(super) fn protect_key(&self, range: PageRange, from: KeyedProt, to: KeyedProt) -> Result<(), Errno> {
        self.set_key(range, to).inspect_err(|_| {
            let _ = self.set_key(range, from);
        })
    }

    fn set_key(&self, range: PageRange, to: KeyedProt) -> Result<(), Errno> {
        match to.key {
            KeyUse::Given(key) => self.memory.protect_key(range, to.prot, key),
            KeyUse::ExecuteOnly(_) => self.memory.protect(range, to.prot),
        }
    }
}

impl Drop for ArenaProvider {
    fn drop(&mut self) {
        for key in self.keys.drain(..) {
            let _ = reservation::free_key(key.number().into());
        }
    }
}
