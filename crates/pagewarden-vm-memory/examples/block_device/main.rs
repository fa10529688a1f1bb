//! A disk for a guest that is not to be trusted: this process is the device, its child is the guest's driver, and the
//! guest's memory is a memfd that both have. The driver cuts the memfd below a request; the device reports that and
//! goes on.
//!
//! `cargo run -p pagewarden-vm-memory --example block_device`.
//!
//! ```text
//! driver, a child                          device, this process
//! puts a request into the ring
//! a byte in the socket          ------->   takes it from the ring (virtio-queue)
//!                                          copies the sectors (FaultSafe)
//! looks at the status           <-------   a byte in the socket
//! ```

mod device;
mod driver;

use std::error::Error;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use device::Disk;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

/// What this ends with if something goes wrong.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Pages of the guest's memory, which begins at address 0.
const PAGES: u64 = 64;
/// Requests in the ring at most, and where the guest has the three parts of the ring.
const RING_SIZE: u16 = 8;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
/// Kinds of requests, and what comes of them.
const READ: u32 = 0;
const WRITE: u32 = 1;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
const SECTOR: usize = 512;
/// Neither side waits longer for the other.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Outcome<()> {
    match std::env::args().nth(1) {
        None => device(),
        Some(memory) => {
            let memory = OpenOptions::new().read(true).write(true).open(memory)?;
            let ring = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
            driver::run(memory, ring)
        }
    }
}

fn device() -> Outcome<()> {
    // The child is to have it as well.
    let memory = memfd_create("guest", MFdFlags::empty())?;
    ftruncate(&memory, (PAGES * pagewarden::PAGE_SIZE).try_into()?)?;
    let (ring, other_end) = UnixStream::pair()?;
    ring.set_read_timeout(Some(PATIENCE))?;
    other_end.set_read_timeout(Some(PATIENCE))?;
    let mut driver = Command::new(std::env::current_exe()?)
        .arg(format!("/proc/self/fd/{}", memory.as_raw_fd()))
        .stdin(Stdio::from(OwnedFd::from(other_end)))
        .spawn()?;
    let mut disk = Disk::new(memory)?;
    println!("device: a disk of {} sectors", disk.sectors());
    let served = disk.serve(ring);
    // Its end of the socket is closed, or it is told so by ours being closed.
    let ended = driver.wait()?;
    served?;
    if ended.success() { Ok(()) } else { Err(format!("the driver has ended with {ended}").into()) }
}
