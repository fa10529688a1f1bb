//! Copies what a function reads into the memory that it works on, calls it, and copies back what it wrote.
//!
//! Order: all that is read is copied before the call, results are tried for a store before it too, so that a bad address
//! changes nothing. What was written is copied in the order of the parameters, as the kernel would. Only a buffer that
//! turns out bad after its first byte loses what was read into it.

use std::slice;

use pagewarden::VirtAddr;
use pagewarden::manager::Access;
use pagewarden::pager::{CopyFault, Fault};
use wasmtime::{Caller, Result, Trap, Val, bail};

use super::bounce::Bounce;
use super::table::{Arg, size};
use super::{Errno, Failure};
use crate::state::CageState;

/// Most bytes that a call moves; a read or a write does less than asked for then.
const TRANSFER_MAX: u32 = 1 << 20;
/// Most buffers of one call. Linux has 1024.
const BUFFERS_MAX: u32 = 1 << 16;
/// How many of them are looked at at once.
const BUFFERS_AT_ONCE: usize = 256;
/// How long a cage's memory can be.
const ADDRESSES: u64 = 1 << 32;

impl From<Fault> for Errno {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Signal(_) => Self::FAULT,
            Fault::OutOfMemory => Self::NOMEM,
        }
    }
}

impl From<CopyFault> for Errno {
    fn from(fault: CopyFault) -> Self {
        fault.fault.into()
    }
}

/// The cage that calls, and its memory for WASI.
type Cage<'a, 'c> = (&'a mut Caller<'c, CageState>, &'a Bounce);

/// Bytes of the cage.
#[derive(Clone, Copy, Debug)]
struct Piece {
    address: u32,
    len: u32,
}

impl Piece {
    /// `len` bytes at `address`, if there are as many addresses.
    fn new(address: u32, len: u32) -> Result<Self, Errno> {
        let end = u64::from(address) + u64::from(len);
        if end > ADDRESSES { Err(Errno::FAULT) } else { Ok(Self { address, len }) }
    }
}

/// How much a function has written.
#[derive(Clone, Copy, Debug)]
enum Written {
    /// All that there is room for.
    All,
    /// So many bytes for each that was counted.
    Counted(u32),
}

/// What is copied to the cage after the call.
struct Output {
    /// Where it is in the memory for WASI.
    from: u32,
    /// Where it goes, in order.
    to: Vec<Piece>,
    written: Written,
}

/// The parameters of a call, one after the other.
struct Params<'a>(slice::Iter<'a, Val>);

impl Params<'_> {
    fn any(&mut self) -> Result<Val> {
        let Some(value) = self.0.next() else { bail!("a function of WASI has more parameters than it was given") };
        Ok(*value)
    }

    fn word(&mut self) -> Result<u32> {
        let Val::I32(value) = self.any()? else { bail!("a function of WASI has an address of 64 bits") };
        Ok(value.cast_unsigned())
    }
}

/// One call in the making.
struct Transfer<'a, 'c> {
    caller: &'a mut Caller<'c, CageState>,
    bounce: &'a Bounce,
    /// Most bytes that are moved.
    capacity: u32,
    /// The first byte of the memory that nothing has been placed at.
    next: u32,
    /// The arguments.
    words: Vec<Val>,
    outputs: Vec<Output>,
    /// Where the function says how much it wrote.
    count: Option<u32>,
    /// Whether the function was given a smaller buffer than the program's.
    cut: bool,
}

impl<'a, 'c> Transfer<'a, 'c> {
    fn new((caller, bounce): (&'a mut Caller<'c, CageState>, &'a Bounce), capacity: u32) -> Self {
        Self { caller, bounce, capacity, next: 0, words: Vec::new(), outputs: Vec::new(), count: None, cut: false }
    }

    /// Room for `len` bytes, aligned for all that WASI knows.
    fn place(&mut self, len: u32) -> Result<u32, Failure> {
        let start = self.next;
        let end = u64::from(start) + u64::from(len);
        self.bounce.reserve(self.caller, end)?;
        self.next = u32::try_from(end.next_multiple_of(8)).map_err(|_| Errno::NOMEM)?;
        Ok(start)
    }

    /// Copies bytes out of the cage.
    fn fetch(&mut self, from: Piece, to: u32) -> Result<(), Failure> {
        let (bytes, state) = self.bounce.slice(self.caller, to, from.len)?;
        state.space.read(VirtAddr::new(from.address.into()), bytes).map_err(Errno::from)?;
        Ok(())
    }

    /// Copies bytes into the cage.
    fn deliver(&mut self, from: u32, to: Piece) -> Result<(), Failure> {
        let (bytes, state) = self.bounce.slice(self.caller, from, to.len)?;
        state.space.write(VirtAddr::new(to.address.into()), bytes).map_err(Errno::from)?;
        Ok(())
    }

    fn word_at(&mut self, place: u32) -> Result<u32, Failure> {
        let (bytes, _) = self.bounce.slice(self.caller, place, size::WORD)?;
        let word = bytes.try_into().map_err(wasmtime::Error::from)?;
        Ok(u32::from_le_bytes(word))
    }

    fn push(&mut self, word: u32) {
        self.words.push(Val::I32(word.cast_signed()));
    }

    /// Makes sure that the first and the last byte of `piece` can be written, before something is done that cannot be
    /// undone.
    fn try_store(&self, piece: Piece) -> Result<(), Errno> {
        let Some(last) = piece.len.checked_sub(1) else { return Ok(()) };
        for address in [piece.address, piece.address + last] {
            self.caller.data().space.space().fault(VirtAddr::new(address.into()), Access::Write)?;
        }
        Ok(())
    }

    /// Prepares one or a few of the program's arguments.
    fn add(&mut self, arg: Arg, params: &mut Params<'_>) -> Result<(), Failure> {
        match arg {
            Arg::Value => self.words.push(params.any()?),
            Arg::Bytes => {
                let piece = Piece::new(params.word()?, params.word()?)?;
                if piece.len > self.capacity {
                    return Err(Errno::NAMETOOLONG.into());
                }
                let at = self.place(piece.len)?;
                self.fetch(piece, at)?;
                self.push(at);
                self.push(piece.len);
            }
            Arg::Gather => {
                let (pieces, len) = self.buffers(params)?;
                let at = self.place(len)?;
                let mut to = at;
                for piece in pieces {
                    self.fetch(piece, to)?;
                    to += piece.len;
                }
                self.push_buffer(at, len)?;
            }
            Arg::Scatter => {
                let (pieces, len) = self.buffers(params)?;
                let at = self.place(len)?;
                self.add_output(at, pieces, Written::Counted(1))?;
                self.push_buffer(at, len)?;
            }
            Arg::Buffer => {
                let piece = Piece::new(params.word()?, params.word()?)?;
                let given = piece.len.min(self.capacity);
                self.cut = given < piece.len;
                let at = self.place(given)?;
                self.add_output(at, vec![Piece { len: given, ..piece }], Written::Counted(1))?;
                self.push(at);
                self.push(given);
            }
            Arg::Events => self.add_events(params)?,
            Arg::Result(len) => self.add_result(params, len)?,
            Arg::Count => {
                self.count = Some(self.next);
                self.add_result(params, size::WORD)?;
            }
        }
        Ok(())
    }

    fn add_result(&mut self, params: &mut Params<'_>, len: u32) -> Result<(), Failure> {
        let piece = Piece::new(params.word()?, len)?;
        self.try_store(piece)?;
        let at = self.place(len)?;
        // What lies between the fields of a result is not written, and would be what a call before has left.
        self.bounce.slice(self.caller, at, len)?.0.fill(0);
        self.outputs.push(Output { from: at, to: vec![piece], written: Written::All });
        self.push(at);
        Ok(())
    }

    fn add_events(&mut self, params: &mut Params<'_>) -> Result<(), Failure> {
        let (subscriptions, events, number) = (params.word()?, params.word()?, params.word()?);
        if u64::from(number) * u64::from(size::SUBSCRIPTION + size::EVENT) > u64::from(self.capacity) {
            return Err(Errno::INVAL.into());
        }
        let read = Piece::new(subscriptions, number * size::SUBSCRIPTION)?;
        let written = Piece::new(events, number * size::EVENT)?;
        let from = self.place(read.len)?;
        self.fetch(read, from)?;
        let to = self.place(written.len)?;
        self.add_output(to, vec![written], Written::Counted(size::EVENT))?;
        for word in [from, to, number] {
            self.push(word);
        }
        Ok(())
    }

    /// Notes that what is written at `from` goes to `pieces`. That the first byte can be written is made sure of.
    fn add_output(&mut self, from: u32, pieces: Vec<Piece>, written: Written) -> Result<(), Failure> {
        if let Some(first) = pieces.iter().find(|piece| piece.len > 0) {
            self.try_store(Piece { len: 1, ..*first })?;
        }
        self.outputs.push(Output { from, to: pieces, written });
        Ok(())
    }

    /// Gives the function an array of one buffer.
    fn push_buffer(&mut self, at: u32, len: u32) -> Result<(), Failure> {
        let array = self.place(size::BUFFER)?;
        let (bytes, _) = self.bounce.slice(self.caller, array, size::BUFFER)?;
        let (address, length) = bytes.split_at_mut(4);
        address.copy_from_slice(&at.to_le_bytes());
        length.copy_from_slice(&len.to_le_bytes());
        self.push(array);
        self.push(1);
        Ok(())
    }

    /// The buffers of an array, and how long they are together; those that are too much are left out.
    fn buffers(&mut self, params: &mut Params<'_>) -> Result<(Vec<Piece>, u32), Failure> {
        let (address, number) = (params.word()?, params.word()?);
        if number > BUFFERS_MAX {
            return Err(Errno::INVAL.into());
        }
        let array = Piece::new(address, number * size::BUFFER)?;
        let (mut pieces, mut total, mut from) = (Vec::new(), 0, u64::from(array.address));
        let mut rest = usize::try_from(array.len).map_err(wasmtime::Error::from)?;
        let mut bytes = [0; BUFFERS_AT_ONCE * 8];
        while rest > 0 && total < self.capacity {
            let part = &mut bytes[..rest.min(BUFFERS_AT_ONCE * 8)];
            self.caller.data().space.read(VirtAddr::new(from), part).map_err(Errno::from)?;
            for entry in part.as_chunks::<8>().0 {
                let [a, b, c, d, lengths @ ..] = *entry;
                let piece = Piece::new(u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(lengths))?;
                let len = piece.len.min(self.capacity - total);
                total += len;
                pieces.extend((len > 0).then_some(Piece { len, ..piece }));
            }
            from += part.len() as u64;
            rest -= part.len();
        }
        Ok((pieces, total))
    }

    /// Calls the function of this number with what was prepared. What Wasmtime would end a program for, such as a flag that
    /// there is not, is an argument that makes no sense.
    fn call(&mut self, number: usize) -> Result<(), Failure> {
        match self.bounce.call(self.caller, number, &self.words) {
            Ok(0) => Ok(()),
            Ok(errno) => Err(Errno(errno).into()),
            Err(error) if error.is::<Trap>() => Err(error.into()),
            Err(_) => Err(Errno::INVAL.into()),
        }
    }

    /// Copies what the function wrote into the cage. Whether a bigger buffer would have been filled too.
    fn finish(mut self) -> Result<Filled, Failure> {
        let count = self.count.map(|place| self.word_at(place)).transpose()?.unwrap_or(0);
        if self.cut && count >= self.capacity {
            return Ok(Filled::Cut);
        }
        for output in std::mem::take(&mut self.outputs) {
            let mut from = output.from;
            let mut rest = match output.written {
                Written::All => u32::MAX,
                Written::Counted(bytes) => count.saturating_mul(bytes),
            };
            for piece in output.to {
                let len = piece.len.min(rest);
                self.deliver(from, Piece { len, ..piece })?;
                from += len;
                rest -= len;
            }
        }
        Ok(Filled::Fully)
    }
}

/// Whether the program got all that there is for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filled {
    Fully,
    Cut,
}

/// Calls a function whose parameters are `args`. A list that ends before the buffer does has no more entries, so a buffer
/// that was made smaller and got full is made larger.
pub(super) fn plain(
    (caller, bounce): Cage<'_, '_>,
    number: usize,
    args: &[Arg],
    params: &[Val],
) -> Result<(), Failure> {
    let mut capacity = TRANSFER_MAX;
    loop {
        let mut transfer = Transfer::new((caller, bounce), capacity);
        let mut params = Params(params.iter());
        for arg in args {
            transfer.add(*arg, &mut params)?;
        }
        transfer.call(number)?;
        match transfer.finish()? {
            Filled::Fully => return Ok(()),
            Filled::Cut => capacity = capacity.saturating_mul(2),
        }
    }
}

/// Calls a function that stores strings, and pointers to them. The pointers are made the program's.
pub(super) fn strings(
    (caller, bounce): Cage<'_, '_>,
    [number, sizes]: [usize; 2],
    params: &[Val],
) -> Result<(), Failure> {
    let mut params = Params(params.iter());
    let (array, strings) = (params.word()?, params.word()?);
    let mut transfer = Transfer::new((caller, bounce), TRANSFER_MAX);
    let (count_at, len_at) = (transfer.place(size::WORD)?, transfer.place(size::WORD)?);
    transfer.push(count_at);
    transfer.push(len_at);
    transfer.call(sizes)?;
    let (count, len) = (transfer.word_at(count_at)?, transfer.word_at(len_at)?);
    let array = Piece::new(array, count.saturating_mul(size::WORD))?;
    let strings = Piece::new(strings, len)?;
    transfer.try_store(array)?;
    transfer.try_store(strings)?;
    let (array_at, strings_at) = (transfer.place(array.len)?, transfer.place(strings.len)?);
    transfer.words.clear();
    transfer.push(array_at);
    transfer.push(strings_at);
    transfer.call(number)?;
    let (bytes, _) = bounce.slice(transfer.caller, array_at, array.len)?;
    for pointer in bytes.as_chunks_mut::<4>().0 {
        let offset = u32::from_le_bytes(*pointer).wrapping_sub(strings_at);
        *pointer = strings.address.wrapping_add(offset).to_le_bytes();
    }
    transfer.deliver(array_at, array)?;
    transfer.deliver(strings_at, strings)
}

/// Calls the function that stores a directory's name, which is as long as the function `length` says, and leaves the rest
/// of the buffer as it is.
pub(super) fn directory_name(
    (caller, bounce): Cage<'_, '_>,
    [number, length]: [usize; 2],
    params: &[Val],
) -> Result<(), Failure> {
    let mut params = Params(params.iter());
    let directory = params.any()?;
    let buffer = Piece::new(params.word()?, params.word()?)?;
    let mut transfer = Transfer::new((caller, bounce), TRANSFER_MAX);
    let given = buffer.len.min(TRANSFER_MAX);
    let (name_at, length_at) = (transfer.place(given)?, transfer.place(size::PRESTAT)?);
    transfer.words.push(directory);
    transfer.push(name_at);
    transfer.push(given);
    transfer.call(number)?;
    transfer.words.truncate(1);
    transfer.push(length_at);
    transfer.call(length)?;
    // A tag comes first.
    let len = transfer.word_at(length_at + size::WORD)?;
    transfer.deliver(name_at, Piece { len, ..buffer })
}

/// Calls a function that fills a buffer, piece by piece.
pub(super) fn fill((caller, bounce): Cage<'_, '_>, number: usize, params: &[Val]) -> Result<(), Failure> {
    let mut params = Params(params.iter());
    let mut rest = Piece::new(params.word()?, params.word()?)?;
    while rest.len > 0 {
        let mut transfer = Transfer::new((caller, bounce), TRANSFER_MAX);
        let len = rest.len.min(TRANSFER_MAX);
        transfer.try_store(Piece { len, ..rest })?;
        let at = transfer.place(len)?;
        transfer.push(at);
        transfer.push(len);
        transfer.call(number)?;
        transfer.deliver(at, Piece { len, ..rest })?;
        rest = Piece { address: rest.address.wrapping_add(len), len: rest.len - len };
    }
    Ok(())
}
