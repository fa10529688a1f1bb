//! The device's side: a disk in ordinary memory, and a window on the guest's.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use pagewarden::PageCount;
use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::phys::{Permission, VmapManager};
use pagewarden_linux::foreign::{ForeignMemory, ForeignOptions, ForeignRegion, FutexEvents};
use pagewarden_vm_memory::{FaultSafe, WindowManager, WindowMemory, map_regions};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::{AVAILABLE, DESCRIPTORS, IO_ERROR, OK, Outcome, PAGES, READ, RING_SIZE, SECTOR, UNSUPPORTED, USED, WRITE};

pub(crate) struct Disk {
    bytes: Vec<u8>,
    windows: Arc<WindowManager>,
    memory: WindowMemory,
    queue: Queue,
}

/// What a request is about, and whom its status goes to.
struct Request {
    kind: u32,
    sector: u64,
    data: Descriptor,
    status: Descriptor,
}

impl Disk {
    /// An empty disk for the guest whose memory that is.
    pub(crate) fn new(memory: OwnedFd) -> Outcome<Self> {
        let first = FrameNumber::new(0).ok_or("frame 0")?;
        let frames = FrameRange::new(first, PageCount::new(PAGES)).ok_or("some frames")?;
        let region = ForeignRegion { frames, file: memory, offset: 0, permission: Permission::ReadWrite };
        let options = ForeignOptions { regions: vec![region], ..ForeignOptions::default() };
        let windows = Arc::new(VmapManager::new(ForeignMemory::new(options)?, FutexEvents::new()));
        let memory = map_regions(&windows, &[(GuestAddress(0), &frames.iter().collect::<Vec<_>>())])?;
        let mut queue = Queue::new(RING_SIZE)?;
        let low = |address: u64| u32::try_from(address).ok();
        queue.set_desc_table_address(low(DESCRIPTORS), Some(0));
        queue.set_avail_ring_address(low(AVAILABLE), Some(0));
        queue.set_used_ring_address(low(USED), Some(0));
        queue.set_ready(true);
        Ok(Self { bytes: vec![0; 16 * SECTOR], windows, memory, queue })
    }

    pub(crate) fn sectors(&self) -> usize {
        self.bytes.len() / SECTOR
    }

    /// Serves the driver until it hangs up.
    pub(crate) fn serve(&mut self, mut ring: UnixStream) -> Outcome<()> {
        let mut requests = 0;
        while ring.read(&mut [0])? > 0 {
            while let Some(chain) = self.queue.pop_descriptor_chain(&self.memory) {
                let head = chain.head_index();
                let descriptors: Vec<_> = chain.collect();
                let written = self.answer(&descriptors).unwrap_or_else(|error| {
                    println!("device: no answer: {error}");
                    0
                });
                self.queue.add_used(&self.memory, head, written)?;
                requests += 1;
            }
            // What virtio-queue does shows zeros where the guest has taken its ring away.
            if self.windows.provider().lost_pages() > 0 {
                return Err("the guest has no ring any more".into());
            }
            ring.write_all(&[1])?;
        }
        println!("device: the driver has hung up after {requests} requests");
        Ok(())
    }

    /// Does what is asked for and says so in the guest's memory; how many bytes were written there.
    fn answer(&mut self, descriptors: &[Descriptor]) -> Outcome<u32> {
        let [header, data, status] = descriptors else { return Err("this is no request".into()) };
        let memory = FaultSafe::new(&self.memory);
        let [kind, _, low, high] = memory.read_obj::<[u32; 4]>(header.addr())?.map(u32::from_le);
        let sector = u64::from(low) | u64::from(high) << 32;
        let request = Request { kind, sector, data: *data, status: *status };
        let code = self.transfer(&request).unwrap_or_else(|error| {
            println!("device: {error}");
            IO_ERROR
        });
        FaultSafe::new(&self.memory).write_obj(code, request.status.addr())?;
        Ok(if kind == READ && code == OK { data.len() + 1 } else { 1 })
    }

    /// Copies sectors; the status of the request.
    fn transfer(&mut self, request: &Request) -> Outcome<u8> {
        let start = usize::try_from(request.sector)?.checked_mul(SECTOR).ok_or("a sector that cannot be")?;
        let end = start.checked_add(request.data.len().try_into()?).ok_or("a sector that cannot be")?;
        let Some(sectors) = self.bytes.get_mut(start..end) else { return Ok(IO_ERROR) };
        let memory = FaultSafe::new(&self.memory);
        match request.kind {
            READ => memory.write_slice(sectors, request.data.addr())?,
            WRITE => memory.read_slice(sectors, request.data.addr())?,
            _ => return Ok(UNSUPPORTED),
        }
        Ok(OK)
    }
}
