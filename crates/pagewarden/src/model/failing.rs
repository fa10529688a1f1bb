//! A platform that fails on command, around any other.

use crate::addr::{PageCount, PageRange, VirtAddr};
use crate::error::Errno;
use crate::object::MemoryObject;
use crate::provider::{Contents, Maps, Op, PageManagementProvider, Target};
use crate::vmmap::Vmmap;

/// What is there after an operation that was to replace something has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// All that was there: the operation has not begun.
    Nothing,
    /// What was to be replaced or unmapped is gone, as with Linux, which unmaps first.
    Target,
}

/// Which of the operations that follow fail, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failures {
    /// Bit `i` stands for the operation `i` after this: set, it fails. Operations after the 64th succeed.
    pub which: u64,
    /// The platform's reason.
    pub errno: Errno,
    /// What is lost.
    pub loss: Loss,
}

impl Failures {
    /// Operation `index` alone fails, and loses nothing.
    pub const fn once(index: u32, errno: Errno) -> Self {
        let which = if index < u64::BITS { 1 << index } else { 0 };
        Self { which, errno, loss: Loss::Nothing }
    }

    /// Operation `index` fails and all after it, so that nothing can be undone.
    pub const fn since(index: u32, errno: Errno) -> Self {
        let which = if index < u64::BITS { u64::MAX << index } else { 0 };
        Self { which, errno, loss: Loss::Nothing }
    }

    /// The same with `loss`.
    #[must_use]
    pub const fn losing(self, loss: Loss) -> Self {
        Self { loss, ..self }
    }
}

/// Hands operations to another platform, but for those that it was told to fail.
///
/// For the tests of embedders too: whatever their platform is, the manager must agree with it after each failure.
#[derive(Clone, Debug, Default)]
pub struct Failing<P> {
    inner: P,
    failures: Option<Failures>,
    injected: u64,
    lost: Option<PageRange>,
}

impl<P> Failing<P> {
    /// Nothing fails yet.
    pub const fn new(inner: P) -> Self {
        Self { inner, failures: None, injected: 0, lost: None }
    }

    /// From now on, `failures`.
    pub const fn arm(&mut self, failures: Failures) {
        self.failures = Some(failures);
        self.injected = 0;
    }

    /// Nothing fails any more. Returns how many operations have failed since the last [`Self::arm`].
    pub const fn disarm(&mut self) -> u64 {
        self.failures = None;
        self.injected
    }

    /// The platform inside.
    pub const fn inner(&self) -> &P {
        &self.inner
    }

    /// The platform inside, past all failures.
    pub const fn inner_mut(&mut self) -> &mut P {
        &mut self.inner
    }
}

impl<P: PageManagementProvider> Failing<P> {
    /// The failure of `op`.
    fn fail(&mut self, op: &Op, maps: Maps<'_>, failures: Failures) -> Errno {
        self.injected += 1;
        // Pages are marked as locked before they are made resident, and only the second step fails.
        if let Op::Lock { .. } = op {
            return self.inner.run(op, maps).err().unwrap_or(failures.errno);
        }
        if let Some(range) = emptied_range(op).filter(|_| failures.loss == Loss::Target) {
            // A platform that cannot even unmap has kept what was there.
            let unmapped = self.inner.run(&Op::Unmap { range, contents: Contents::Other }, maps);
            self.lost = unmapped.is_ok().then_some(range);
        }
        failures.errno
    }
}

/// What a platform may have unmapped when it fails.
fn emptied_range(op: &Op) -> Option<PageRange> {
    match op {
        Op::Unmap { range, .. } | Op::Map { range, target: Target::Replace, .. } => Some(*range),
        Op::Move { to, .. } | Op::Duplicate { to, target: Target::Replace, .. } => Some(*to),
        Op::SetBreak { from, to, .. } => PageRange::new(to.page_up()?, from.page_up()?),
        _ => None,
    }
}

impl<P: PageManagementProvider> PageManagementProvider for Failing<P> {
    fn run(&mut self, op: &Op, maps: Maps<'_>) -> Result<(), Errno> {
        self.lost = None;
        if let Some(failures) = &mut self.failures {
            let is_next = failures.which & 1 == 1;
            failures.which >>= 1;
            if is_next {
                let failures = *failures;
                return Err(self.fail(op, maps, failures));
            }
        }
        self.inner.run(op, maps)
    }

    fn has_kept(&self, range: PageRange) -> bool {
        self.lost != Some(range) && self.inner.has_kept(range)
    }

    fn is_write_sealed(&self, range: PageRange, map: &Vmmap) -> bool {
        self.inner.is_write_sealed(range, map)
    }

    fn residency(&mut self, range: PageRange, map: &Vmmap, each: &mut dyn FnMut(bool)) {
        self.inner.residency(range, map, each);
    }

    fn may_know(&self, object: &MemoryObject) -> bool {
        self.inner.may_know(object)
    }

    fn store(&mut self, addr: VirtAddr, bytes: &[u8], map: &Vmmap) -> Result<(), Errno> {
        self.inner.store(addr, bytes, map)
    }

    fn object_pages(&self, object: &MemoryObject) -> Option<PageCount> {
        self.inner.object_pages(object)
    }

    fn stack_start(&self, region: PageRange) -> VirtAddr {
        self.inner.stack_start(region)
    }
}
