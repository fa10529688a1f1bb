//! Memory read and written in runs: by loads and stores of the guest, through the kernel's copies, and through
//! descriptors of the files behind it. Nothing is allocated here once the buffer is there.

use super::files::Files;
use super::guard::COPY_ROOM;
use super::interpret::vec_with_touched_room;
use super::kernel::Kernel;
use super::outcome::Outcome;
use super::program::Call;
use super::raw;

/// The byte of a return instruction.
const RETURN: u8 = 0xc3;
/// `SEGV_PKUERR`.
const KEY_FORBIDS: u64 = 4;

/// The interpreter's side of each copy.
#[derive(Debug)]
pub(super) struct Copies {
    buffer: Vec<u8>,
}

impl Copies {
    /// With room for the longest copy.
    pub(super) fn new() -> Self {
        let mut buffer = vec_with_touched_room(usize::try_from(COPY_ROOM).unwrap_or(0));
        buffer.resize(buffer.capacity(), 0);
        Self { buffer }
    }

    /// Makes the copy that `call` asks for.
    pub(super) fn run(&mut self, kernel: &Kernel, files: &Files, call: Call, [a, b, c, d, ..]: [u64; 6]) -> Outcome {
        let own = self.buffer.as_mut_ptr() as u64;
        match call {
            // Nothing is touched, so nobody is asked whether that may be.
            Call::Load if b == 0 => Outcome::Value(0),
            Call::Store if b == 0 => Outcome::Value(0),
            Call::Load => {
                // SAFETY: the guard has seen that the run is not this process's own.
                let read = unsafe { kernel.read_run(a, b) };
                read.map_or_else(|fault| fault, |hash| Outcome::Bytes { count: b, hash })
            }
            Call::Store => {
                // SAFETY: the guard has seen that the run is not this process's own.
                let written = unsafe { kernel.write_run(a, b, c.to_le_bytes()[0]) };
                written.map_or_else(|fault| fault, |()| Outcome::Value(0))
            }
            Call::Execute => execute(kernel, a),
            Call::FileWrite => {
                self.buffer.fill(d.to_le_bytes()[0]);
                if let Kernel::Machine(machine) = kernel {
                    return machine.pwrite(a, b, self.part(c));
                }
                // SAFETY: the kernel reads the buffer, which is as long as the guard allows.
                unsafe { raw::syscall(libc::SYS_pwrite64, [a, own, c, b, 0, 0]) }
            }
            Call::FileRead => {
                let read = match kernel {
                    Kernel::Machine(machine) => machine.pread(a, b, self.part(c.min(COPY_ROOM))),
                    // SAFETY: the kernel writes to the buffer only, and no more than it holds.
                    _ => unsafe { raw::syscall(libc::SYS_pread64, [a, own, c.min(COPY_ROOM), b, 0, 0]) },
                };
                self.hashed(read)
            }
            Call::CopyOut | Call::VmRead if let Kernel::Machine(machine) = kernel => {
                let copied = match call {
                    Call::CopyOut => machine.copy_out(a, self.part(b)),
                    _ => machine.read_as_another(a, self.part(b)),
                };
                self.hashed(copied)
            }
            Call::CopyIn if let Kernel::Machine(machine) = kernel => {
                self.buffer.fill(c.to_le_bytes()[0]);
                machine.copy_in(a, self.part(b))
            }
            Call::CopyOut => self.copy_out(files, a, b),
            Call::CopyIn => self.copy_in(files, [a, b, c]),
            Call::VmRead => self.read_own(a, b),
            _ => Outcome::Skipped,
        }
    }

    /// The first bytes of the buffer.
    fn part(&mut self, len: u64) -> &mut [u8] {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.buffer.len());
        &mut self.buffer[..len]
    }

    fn hashed(&self, read: Outcome) -> Outcome {
        let Outcome::Value(count) = read else { return read };
        let bytes = usize::try_from(count).ok().and_then(|count| self.buffer.get(..count)).unwrap_or_default();
        Outcome::Bytes { count, hash: raw::hash(bytes) }
    }

    fn copy_out(&mut self, files: &Files, addr: u64, len: u64) -> Outcome {
        let [from, to] = files.copies.map(|fd| u64::from(fd.cast_unsigned()));
        // SAFETY: the kernel reads memory that is not this process's own.
        let written = unsafe { raw::syscall(libc::SYS_write, [to, addr, len, 0, 0, 0]) };
        let drained = self.drain(from);
        if matches!(written, Outcome::Value(_)) { self.hashed(drained) } else { written }
    }

    fn copy_in(&mut self, files: &Files, [addr, len, byte]: [u64; 3]) -> Outcome {
        let [from, to] = files.copies.map(|fd| u64::from(fd.cast_unsigned()));
        self.buffer.fill(byte.to_le_bytes()[0]);
        // SAFETY: the kernel reads the buffer, which is as long as the guard allows.
        unsafe { raw::syscall(libc::SYS_write, [to, self.buffer.as_ptr() as u64, len, 0, 0, 0]) };
        // SAFETY: the kernel writes to memory that is not this process's own.
        let read = unsafe { raw::syscall(libc::SYS_read, [from, addr, len, 0, 0, 0]) };
        self.drain(from);
        read
    }

    /// Empties the pipe into the buffer.
    fn drain(&mut self, from: u64) -> Outcome {
        // SAFETY: the kernel writes to the buffer only, and no more than it holds.
        unsafe { raw::syscall(libc::SYS_read, [from, self.buffer.as_mut_ptr() as u64, COPY_ROOM, 0, 0, 0]) }
    }

    /// Reads this process's memory as another process would.
    fn read_own(&mut self, addr: u64, len: u64) -> Outcome {
        let local = [self.buffer.as_mut_ptr() as u64, len];
        let remote = [addr, len];
        let pid = u64::from(std::process::id());
        let args = [pid, local.as_ptr() as u64, 1, remote.as_ptr() as u64, 1, 0];
        // SAFETY: the kernel writes to the buffer only, which is as long as the guard allows.
        let read = unsafe { raw::syscall(libc::SYS_process_vm_readv, args) };
        self.hashed(read)
    }
}

/// Calls what is at `addr`, unless that may be something else than a return.
fn execute(kernel: &Kernel, addr: u64) -> Outcome {
    // SAFETY: the guard has seen that the address is not this process's own.
    match unsafe { kernel.read_byte(addr) } {
        Ok(RETURN) => {}
        // What a key forbids to be read may well be executed.
        Ok(_) | Err(Outcome::Fault { code: KEY_FORBIDS, .. }) => return Outcome::Skipped,
        Err(_) => {}
    }
    // SAFETY: there is a return instruction, or what cannot be read: without a key it cannot be executed either.
    let called = unsafe { kernel.execute(addr) };
    called.map_or_else(|fault| fault, |()| Outcome::Value(0))
}
