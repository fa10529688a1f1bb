//! Takes records out of memory that it shares with a producer, and answers each with another.
#![no_std]
#![no_main]

use pagewarden_kernel_abi::{Operation, name};
use runtime::linux::{Errno, Result, prot};
use runtime::records::{self, ANSWER, END, RECORD};
use runtime::{Pages, Start, equal, given, ring};

runtime::program!(main);

fn main(_start: &Start) {
    let (memory, endpoint) = (given::handle(name::SHARED), given::handle(name::ENDPOINT));
    let both = prot::READ_WRITE;
    let shown = ring::call(Operation::Map, memory, &[0, records::PAGES, both, 0]).map(|[start, _]| {
        // SAFETY: the addresses were nobody's, and the memory is meant to be changed by others.
        unsafe { Pages::at(start, records::PAGES) }
    });
    let served = shown.and_then(|pages| serve(endpoint, pages));
    equal("calls come in order until the last", served.map(|served| served.calls), Ok(8));
    equal("each record has the checksum that the call says", served.map(|served| served.sound), Ok(8));
    let text = "three calls out of turn are refused";
    equal(text, served.map(|served| served.refused), Ok(3));
}

/// What has come.
#[derive(Clone, Copy, Default)]
struct Served {
    /// Calls with the number that was expected.
    calls: u64,
    /// Calls whose record was whole.
    sound: u64,
    /// Operations that were refused as they should be.
    refused: u64,
}

fn serve(endpoint: u64, pages: Pages) -> Result<Served> {
    let mut served = Served::default();
    let early = ring::call(Operation::Reply, endpoint, &[0, 0]);
    let call = ring::call(Operation::Call, endpoint, &[0, 0]);
    served.refused += u64::from(early == Err(Errno::INVAL)) + u64::from(call == Err(Errno::ACCES));
    loop {
        let [number, checksum] = ring::call(Operation::Receive, endpoint, &[])?;
        if number == END {
            ring::call(Operation::Reply, endpoint, &[END, served.calls])?;
            return Ok(served);
        }
        served.sound += u64::from(records::checksum(pages, RECORD, number) == checksum);
        if number == 0 {
            let again = ring::call(Operation::Receive, endpoint, &[]);
            served.refused += u64::from(again == Err(Errno::BUSY));
        }
        served.calls += u64::from(served.calls == number);
        let answer = records::write(pages, ANSWER, number);
        ring::call(Operation::Reply, endpoint, &[number, answer])?;
    }
}
