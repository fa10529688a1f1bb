//! The PCI bus, as much of it as it takes to find one device and have it write to memory.
//!
//! Owned here: the two ports of the configuration space, of which the second shows the register that the first names.
//! The firmware has given devices their addresses.

use spin::Mutex;
use x86_64::instructions::port::Port;

/// The ports: where a register is chosen, and where it is.
static CONFIGURATION: Mutex<(Port<u32>, Port<u32>)> = Mutex::new((Port::new(0xcf8), Port::new(0xcfc)));

const ENABLED: u32 = 1 << 31;
/// Devices of a bus.
const DEVICES: u32 = 32;

/// Registers of every device, by their offset.
const IDENTITY: u32 = 0x00;
const COMMAND: u32 = 0x04;
const FIRST_ADDRESS: u32 = 0x10;

/// It answers at its memory addresses.
const MEMORY: u32 = 1 << 1;
/// It may access memory by itself.
const MASTER: u32 = 1 << 2;

/// A device of the first bus.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    number: u32,
}

impl Device {
    /// The first one that is `model` by `vendor`.
    pub(crate) fn find(vendor: u16, model: u16) -> Option<Self> {
        let identity = u32::from(model) << 16 | u32::from(vendor);
        (0..DEVICES).map(|number| Self { number }).find(|device| device.read(IDENTITY) == identity)
    }

    /// Where its first memory area begins, if it has one below 4 GiB.
    pub(crate) fn registers(self) -> Option<u64> {
        let area = self.read(FIRST_ADDRESS);
        let is_memory = area & 0b111 == 0;
        Some(u64::from(area & !0xf)).filter(|start| is_memory && *start != 0)
    }

    /// Has it answer at its addresses, and lets it access memory.
    pub(crate) fn enable(self) {
        // The upper half is its status, of which a written 1 clears something.
        let command = self.read(COMMAND) & 0xffff;
        self.write(COMMAND, command | MEMORY | MASTER);
    }

    fn choice(self, register: u32) -> u32 {
        ENABLED | self.number << 11 | register
    }

    fn read(self, register: u32) -> u32 {
        let (choose, data) = &mut *CONFIGURATION.lock();
        // SAFETY: it chooses what the other port shows, and nobody else does meanwhile.
        unsafe { choose.write(self.choice(register)) };
        // SAFETY: to read one of the registers named here changes nothing.
        unsafe { data.read() }
    }

    fn write(self, register: u32, value: u32) {
        let (choose, data) = &mut *CONFIGURATION.lock();
        // SAFETY: as in `read`.
        unsafe { choose.write(self.choice(register)) };
        // SAFETY: the only register written to is the command's. A device of which the kernel knows nothing is left as it
        // is; the one that is enabled accesses the memory that its driver names.
        unsafe { data.write(value) }
    }
}
