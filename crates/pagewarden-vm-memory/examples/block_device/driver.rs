//! The guest's side: it writes to its memory as it likes, which here is by pwrite.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use super::{AVAILABLE, DESCRIPTORS, IO_ERROR, OK, Outcome, READ, RING_SIZE, SECTOR, USED, WRITE};

/// Where it has the parts of a request.
const HEADER: u64 = 0x4000;
const STATUS: u64 = 0x4100;
const DATA: u64 = 0x5000;
/// Sectors on both sides of where the memory will end.
const CUT: u64 = 0x3_0000;
const ON_THE_CUT: u64 = CUT - SECTOR as u64;

/// What a descriptor says besides where: more follows, the device writes.
const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;

struct Driver {
    memory: File,
    ring: UnixStream,
    requests: u16,
}

/// What is asked for: sectors, and where in memory they are to go or to come from.
struct Request {
    kind: u32,
    sector: u64,
    data: u64,
    len: u32,
}

impl Driver {
    fn describe(&self, index: u16, (at, len): (u64, u32), flags: u16) -> Outcome<()> {
        let next = (index + 1) % RING_SIZE;
        let bytes = [&at.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
        Ok(self.memory.write_all_at(&bytes, DESCRIPTORS + u64::from(index) * 16)?)
    }

    /// Puts a request into the ring, rings, and waits for its status.
    fn ask(&mut self, request: &Request) -> Outcome<u8> {
        let header = [&request.kind.to_le_bytes()[..], &[0; 4], &request.sector.to_le_bytes()].concat();
        self.memory.write_all_at(&header, HEADER)?;
        self.memory.write_all_at(&[0xff], STATUS)?;
        let data_flags = if request.kind == READ { NEXT | DEVICE_WRITES } else { NEXT };
        self.describe(0, (HEADER, 16), NEXT)?;
        self.describe(1, (request.data, request.len), data_flags)?;
        self.describe(2, (STATUS, 1), DEVICE_WRITES)?;
        let place = u64::from(self.requests % RING_SIZE);
        self.memory.write_all_at(&0_u16.to_le_bytes(), AVAILABLE + 4 + place * 2)?;
        self.requests += 1;
        self.memory.write_all_at(&self.requests.to_le_bytes(), AVAILABLE + 2)?;

        self.ring.write_all(&[1])?;
        self.ring.read_exact(&mut [0])?;
        let (mut used, mut status) = ([0; 2], [0]);
        self.memory.read_exact_at(&mut used, USED + 2)?;
        self.memory.read_exact_at(&mut status, STATUS)?;
        if u16::from_le_bytes(used) == self.requests { Ok(status[0]) } else { Err("the device has not used it".into()) }
    }

    fn say(&mut self, what: &str, request: &Request) -> Outcome<()> {
        let outcome = match self.ask(request)? {
            OK if request.kind == READ => {
                let mut text = vec![0; request.len.try_into()?];
                self.memory.read_exact_at(&mut text, request.data)?;
                format!("ok, \"{}\"", String::from_utf8_lossy(&text).trim_end_matches('\0'))
            }
            OK => "ok".to_owned(),
            IO_ERROR => "I/O error".to_owned(),
            status => format!("status {status}"),
        };
        println!("driver: {what}: {outcome}");
        Ok(())
    }
}

/// A few requests, one of them with memory that goes away.
pub(crate) fn run(memory: File, ring: UnixStream) -> Outcome<()> {
    let len = u32::try_from(SECTOR)?;
    let request = |kind, sector| Request { kind, sector, data: DATA, len };
    memory.write_all_at(b"what the guest has written", DATA)?;
    let mut driver = Driver { memory, ring, requests: 0 };
    driver.say("write sector 3", &request(WRITE, 3))?;
    driver.memory.write_all_at(&[0; SECTOR], DATA)?;
    driver.say("read sector 3", &request(READ, 3))?;
    driver.say("read sector 99", &request(READ, 99))?;
    driver.say("something unheard of", &request(42, 3))?;

    let request_on_the_cut = Request { data: ON_THE_CUT, len: 2 * len, ..request(READ, 2) };
    driver.memory.set_len(CUT)?;
    driver.say("read sectors 2 and 3 into memory that ends in between", &request_on_the_cut)?;
    driver.say("read sector 3 once more", &request(READ, 3))
}
