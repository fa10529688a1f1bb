//! Exchanges records with a consumer through memory that both have; calls carry numbers and checksums alone.
#![no_std]
#![no_main]

use pagewarden_kernel_abi::{Operation, name};
use runtime::given::rights;
use runtime::linux::{Result, prot};
use runtime::records::{self, ANSWER, END, RECORD};
use runtime::{Pages, Start, check, equal, given, ring};

runtime::program!(main);

/// How many records are exchanged.
const RECORDS: u64 = 8;

fn main(_start: &Start) {
    let (frames, spawner) = (given::handle(name::FRAMES), given::handle(name::SPAWNER));
    match Partner::start(frames, spawner) {
        Ok(consumer) => exchange(&consumer),
        Err(errno) => equal("a consumer is started", Err(errno), Ok(())),
    }
}

/// The consumer, and what is shared with it.
struct Partner {
    process: u64,
    endpoint: u64,
    pages: Pages,
}

impl Partner {
    fn start(frames: u64, spawner: u64) -> Result<Self> {
        let [memory, _] = ring::call(Operation::Allocate, frames, &[records::PAGES, 0])?;
        let both = prot::READ_WRITE;
        let [start, _] = ring::call(Operation::Map, memory, &[0, records::PAGES, both, 0])?;
        // SAFETY: the addresses were nobody's, and the memory is meant to be changed by others.
        let pages = unsafe { Pages::at(start, records::PAGES) };
        let [endpoint, _] = ring::call(Operation::Endpoint, 0, &[])?;
        let program = "consumer";
        let place = program.as_ptr().expose_provenance() as u64;
        let [process, _] = ring::call(Operation::Spawn, spawner, &[place, program.len() as u64, 256])?;
        let send = |handle: u64, rights: u64, name: [u8; 8]| {
            ring::call(Operation::Send, handle, &[process, 0, rights, u64::from_le_bytes(name)])
        };
        send(memory, rights::READ | rights::WRITE | rights::MAP, name::SHARED)?;
        send(endpoint, rights::READ, name::ENDPOINT)?;
        ring::call(Operation::Start, process, &[])?;
        Ok(Self { process, endpoint, pages })
    }

    fn call(&self, number: u64, checksum: u64) -> Result<[u64; 2]> {
        ring::call(Operation::Call, self.endpoint, &[number, checksum])
    }
}

fn exchange(consumer: &Partner) {
    let answers = (0..RECORDS).filter(|number| {
        let checksum = records::write(consumer.pages, RECORD, *number);
        let answer = consumer.call(*number, checksum);
        answer == Ok([*number, records::checksum(consumer.pages, ANSWER, *number)])
    });
    equal("8 records are answered with the checksum of what the consumer has stored", answers.count(), 8);
    let last = records::write(consumer.pages, ANSWER, END);
    check("a checksum tells one record from another", last != records::checksum(consumer.pages, RECORD, END));
    // Nothing is said before the consumer has ended: it says something itself.
    let last = consumer.call(END, 0);
    let ended = ring::call(Operation::Wait, consumer.process, &[]).map(|[status, _]| status);
    equal("the last call is answered", last, Ok([END, RECORDS]));
    equal("the consumer ends well", ended, Ok(0));
}
