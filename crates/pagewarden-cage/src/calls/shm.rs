//! shmget, shmat, shmdt, shmctl: System V segments, which all families of one [`Cages`](crate::Cages) share.
//!
//! Every guest is the same user. Structures have the layout of 64-bit Linux (`struct shmid64_ds`, `struct shminfo64`), which
//! a guest's headers declare with words of 64 bits.

use pagewarden::object::sysv::{Credentials, Ownership, SegmentStatus, StatusOf};
use pagewarden::{Errno, VirtAddr};
use wasmtime::{Caller, Linker};

use super::{MODULE, low_word, system_call};
use crate::state::CageState;

/// Bytes of `struct shmid64_ds`, `struct shminfo64` and `struct shm_info`.
const STATUS_BYTES: usize = 112;
const LIMITS_BYTES: usize = 72;
const USAGE_BYTES: usize = 48;
/// Says that structures are the new ones, which all are here.
const IPC_64: i32 = 0x100;
/// How many slots there are: what is above, in an identifier, tells one use of a slot from the next (`IPCMNI_SHIFT`).
const SLOT_BITS: u32 = 15;

/// Commands that the C library has for ipcs(1) alone.
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;

type Guest<'a> = Caller<'a, CageState>;

pub(super) fn link(linker: &mut Linker<CageState>) -> wasmtime::Result<()> {
    for (name, number) in [("shmget", libc::SYS_shmget), ("shmat", libc::SYS_shmat), ("shmctl", libc::SYS_shmctl)] {
        linker.func_wrap(MODULE, name, move |mut guest: Guest<'_>, a: u32, b: u32, c: u32| {
            low_word(system_call(guest.data_mut(), number, [a.into(), b.into(), c.into(), 0, 0, 0]))
        })?;
    }
    linker.func_wrap(MODULE, "shmdt", |mut guest: Guest<'_>, addr: u32| {
        low_word(system_call(guest.data_mut(), libc::SYS_shmdt, [addr.into(), 0, 0, 0, 0, 0]))
    })?;
    Ok(())
}

/// As whom a guest asks.
pub(super) fn credentials(state: &CageState) -> Credentials<'static> {
    state.space.space().with_manager(|manager| Credentials {
        user: 0,
        group: 0,
        groups: &[],
        privileges: manager.config().privileges,
        ownership: Ownership::Own,
        lock_limit: manager.config().limits.locked,
        virtual_pages: manager.totals().virtual_pages,
    })
}

/// An `int` argument.
#[expect(clippy::cast_possible_truncation, reason = "the ABI drops the upper half")]
const fn as_int(word: u64) -> i32 {
    word as i32
}

pub(super) fn get(state: &mut CageState, [key, bytes, flags, ..]: [u64; 6]) -> Result<u64, Errno> {
    let credentials = credentials(state);
    let id = state.shared.segments().get(&credentials, as_int(key), bytes, as_int(flags))?;
    Ok(id.unsigned_abs().into())
}

pub(super) fn control(state: &mut CageState, [id, command, buffer, ..]: [u64; 6]) -> Result<u64, Errno> {
    let (id, buffer) = (as_int(id), VirtAddr::new(buffer));
    let credentials = credentials(state);
    let space = &state.space;
    let mut segments = state.shared.segments();
    let done = |()| 0;
    match as_int(command) & !IPC_64 {
        libc::IPC_RMID => segments.remove(&credentials, id).map(done),
        libc::IPC_SET => {
            let mut bytes = [0; STATUS_BYTES];
            space.read(buffer, &mut bytes)?;
            let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            segments.set(&credentials, id, (word(4), word(8)), word(20)).map(done)
        }
        libc::IPC_STAT => status(state, &segments.status(&credentials, id, StatusOf::Id)?, buffer).map(done),
        SHM_STAT => described(state, &segments.status(&credentials, id, StatusOf::Slot)?, buffer),
        SHM_STAT_ANY => described(state, &segments.status(&credentials, id, StatusOf::AnySlot)?, buffer),
        libc::SHM_LOCK => segments.lock(&credentials, id).map(done),
        libc::SHM_UNLOCK => segments.unlock(&credentials, id).map(done),
        libc::IPC_INFO => {
            let limits = segments.limits();
            let (bytes_max, pages_max) = (limits.bytes_max, limits.pages_max);
            let segments_max = u64::from(limits.segments_max);
            let words = Layout::<LIMITS_BYTES>::new().put(0, bytes_max).put(8, 1).put(16, segments_max);
            let words = words.put(24, segments_max).put(32, pages_max);
            space.write(buffer, &words.0)?;
            Ok(highest_slot(segments.usage().highest_slot))
        }
        SHM_INFO => {
            let usage = segments.usage();
            let words = Layout::<USAGE_BYTES>::new().put(0, usage.segments.into()).put(8, usage.pages);
            space.write(buffer, &words.0)?;
            Ok(highest_slot(usage.highest_slot))
        }
        _ => Err(Errno::Inval),
    }
}

fn highest_slot(slot: i32) -> u64 {
    slot.max(0).unsigned_abs().into()
}

fn described(state: &CageState, of: &SegmentStatus, buffer: VirtAddr) -> Result<u64, Errno> {
    status(state, of, buffer)?;
    Ok(of.id.unsigned_abs().into())
}

/// Writes `struct shmid64_ds`.
fn status(state: &CageState, of: &SegmentStatus, buffer: VirtAddr) -> Result<(), Errno> {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let words = Layout::<STATUS_BYTES>::new()
        .put(0, pair(of.key.cast_unsigned(), of.user))
        .put(8, pair(of.group, of.creator_user))
        .put(16, pair(of.creator_group, of.mode))
        .put(24, (of.id >> SLOT_BITS).cast_unsigned().into())
        .put(48, of.bytes)
        .put(56, of.attached_at.cast_unsigned())
        .put(64, of.detached_at.cast_unsigned())
        .put(72, of.changed_at.cast_unsigned())
        .put(80, pair(of.creator_pid.cast_unsigned(), of.last_pid.cast_unsigned()))
        .put(88, of.attaches);
    Ok(state.space.write(buffer, &words.0)?)
}

/// A structure of the ABI as bytes.
struct Layout<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> Layout<BYTES> {
    const fn new() -> Self {
        Self([0; BYTES])
    }

    /// With 64 bits at `at`.
    fn put(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self
    }
}
