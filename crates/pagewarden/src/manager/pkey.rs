//! Protection keys: pkey_alloc(2), pkey_free(2) and which key a region gets (`arch/x86/mm/pkeys.c`). What a key
//! allows is in a register of each thread, which is not the manager's.
//!
//! One key is taken for memory that can only be executed, when there first is such memory; the guest can neither
//! name it nor free it. Differs from Linux: a request that is refused takes no key for that.

use super::config::Features;
use super::plan::{Draft, Plan, Refusal};
use super::space::Space;
use crate::error::Errno;
use crate::prot::ProtectionKey;
use crate::provider::{KeyUse, Op};

/// `PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE`.
const RIGHTS: u64 = 3;

/// Which keys are whose: a bit for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Keys {
    /// Those that the guest may name.
    given: u16,
    /// Those that may be given out.
    free: u16,
    /// The one of memory that can only be executed.
    execute_only: Option<ProtectionKey>,
}

impl Keys {
    /// The keys of a new program: it has been given the first. Without keys Linux still has the first to give away.
    pub(super) const fn new(features: Features) -> Self {
        let first = bit(ProtectionKey::DEFAULT);
        let (given, free) = if features.has_keys() { (first, !first) } else { (0, first) };
        Self { given, free, execute_only: None }
    }

    /// Takes the lowest free key.
    fn take(&mut self) -> Option<ProtectionKey> {
        let key = ProtectionKey::new(u8::try_from(self.free.trailing_zeros()).ok()?)?;
        self.free &= !bit(key);
        Some(key)
    }

    /// The key of this number, if the guest may name it (`mm_pkey_is_allocated`).
    pub(super) fn given(&self, number: i32) -> Option<ProtectionKey> {
        let key = ProtectionKey::new(u8::try_from(number).ok()?)?;
        (self.given & bit(key) != 0).then_some(key)
    }

    /// The key of memory that can only be executed; taken now if there was no such memory yet and a key is left.
    pub(super) fn for_execute_only(&mut self, features: Features) -> Option<ProtectionKey> {
        if !features.has_keys() {
            return None;
        }
        if self.execute_only.is_none() {
            self.execute_only = self.take();
        }
        self.execute_only
    }

    /// Whether `key` is that of memory that can only be executed.
    pub(super) fn is_execute_only(&self, key: ProtectionKey) -> bool {
        self.execute_only == Some(key)
    }

    /// `key`, and who chose it.
    pub(super) fn usage(&self, key: ProtectionKey) -> KeyUse {
        if self.is_execute_only(key) { KeyUse::ExecuteOnly(key) } else { KeyUse::Given(key) }
    }
}

const fn bit(key: ProtectionKey) -> u16 {
    1 << key.number()
}

/// What pkey_alloc does to `space`.
pub(super) fn plan_allocate(space: &Space, flags: u64, rights: u64) -> Result<Plan, Refusal> {
    if flags != 0 || rights & !RIGHTS != 0 {
        return Err(Errno::Inval.into());
    }
    let mut draft = Draft::new(space);
    let keys = &mut draft.next.attributes.keys;
    let key = keys.take().ok_or(Errno::NoSpc)?;
    if !space.config.features.has_keys() {
        // Linux finds out only when it sets the rights, and does not take the key back.
        draft.keep_state();
        return draft.finish(Err(Errno::Inval.into()));
    }
    keys.given |= bit(key);
    draft.op(Op::AllocateKey { key, rights });
    draft.finish(Ok(key.number().into()))
}

/// What pkey_free does to `space`. The first key can be freed too, and regions keep a key that is free.
pub(super) fn plan_free(space: &Space, number: i32) -> Result<Plan, Refusal> {
    let mut draft = Draft::new(space);
    let keys = &mut draft.next.attributes.keys;
    let key = keys.given(number).ok_or(Errno::Inval)?;
    keys.given &= !bit(key);
    keys.free |= bit(key);
    draft.op(Op::FreeKey { key });
    draft.finish(Ok(0))
}
