//! The kernel's copies: through a pipe, as `fs/pipe.c` makes them, and as another process would (`mm/process_vm_access.c`).

use pagewarden::{Prot, RegionFlags};

use super::super::enclosure::TASK_END;
use super::super::outcome::Outcome;
use super::super::program::PAGE;
use super::touch::in_page;
use super::{MachineKernel, address};

/// What a buffer of a pipe holds.
const PIPE_BUFFER: usize = 4096;

impl MachineKernel {
    /// write(2) of memory into an empty pipe, and what a reader finds there then; into `to`, which is as long.
    pub(in super::super) fn copy_out(&self, addr: u64, to: &mut [u8]) -> Outcome {
        if !is_users(addr, to.len()) {
            return Outcome::Error(libc::EFAULT);
        }
        let mut done = 0;
        for part in to.chunks_mut(PIPE_BUFFER) {
            let wanted = part.len();
            // What does not fill its buffer is dropped.
            if self.books().copy_out(address(addr + done as u64), part) < wanted {
                break;
            }
            done += wanted;
        }
        match done {
            // A reader that does not wait.
            0 if to.is_empty() => Outcome::Error(libc::EAGAIN),
            0 => Outcome::Error(libc::EFAULT),
            done => Outcome::Value(done as u64),
        }
    }

    /// read(2) into memory out of a pipe that holds `from`.
    pub(in super::super) fn copy_in(&self, addr: u64, from: &[u8]) -> Outcome {
        if !is_users(addr, from.len()) {
            return Outcome::Error(libc::EFAULT);
        }
        let mut done = 0;
        for part in from.chunks(PIPE_BUFFER) {
            // What was stored of this buffer stays, and does not count.
            if self.books().copy_in(address(addr + done as u64), part) < part.len() {
                break;
            }
            done += part.len();
        }
        if done == 0 && !from.is_empty() { Outcome::Error(libc::EFAULT) } else { Outcome::Value(done as u64) }
    }

    /// process_vm_readv(2): pages that may be read, one after the other. No stack grows, and rights are taken at
    /// their word.
    pub(in super::super) fn read_as_another(&self, addr: u64, to: &mut [u8]) -> Outcome {
        let wanted = to.len();
        let mut done = 0;
        while done < wanted {
            let at = addr.wrapping_add(done as u64);
            let part = in_page(at, wanted - done);
            if !self.may_be_pinned(at) || self.books().copy_out(address(at), &mut to[done..done + part]) < part {
                break;
            }
            done += part;
        }
        if done == 0 && wanted > 0 { Outcome::Error(libc::EFAULT) } else { Outcome::Value(done as u64) }
    }

    fn may_be_pinned(&self, addr: u64) -> bool {
        let map = self.books().map();
        let entry = map.at_or_after(address(addr)).filter(|entry| entry.range.contains(address(addr)));
        entry.is_some_and(|entry| {
            entry.region.prot.contains(Prot::READ) && !entry.region.flags.contains(RegionFlags::PFN_MAP)
        })
    }
}

/// Whether a program may hand these bytes to the kernel.
fn is_users(addr: u64, len: usize) -> bool {
    addr.checked_add(len as u64).is_some_and(|end| end <= TASK_END)
}

const _: () = assert!(PIPE_BUFFER as u64 == PAGE);
