//! What the kernel and its programs agree on: numbers of calls, and the page of the ring.
//!
//! Linux's calls have Linux's numbers and rules. Everything that is asked of a capability goes through the ring: the
//! program writes a [`Submission`], makes the call [`RING_ENTER`], and reads a [`Completion`].
//!
//! ```text
//! bytes of the ring page
//!      0..4      how many submissions the program has written, modulo 2^32
//!      4..8      how many of these the kernel has taken
//!      8..12     how many completions the kernel has written
//!     12..16     how many of these the program has read
//!     64..1088   16 submissions of 64 bytes; number n is at place n modulo 16
//!   2048..3072   32 completions of 32 bytes; number n is at place n modulo 32
//! ```
//!
//! The kernel believes only its own counts: what it writes to the page is for the program to read. A submission is copied
//! out once. All numbers are little-endian.
#![no_std]
#![forbid(unsafe_code)]

/// The call that has the kernel take submissions: at most as many as the first argument says. It answers how many it has
/// taken, or `-EINVAL` if more submissions or completions are under way than there are places for.
pub const RING_ENTER: u64 = 0x1000;

/// Where each process has the page that says which capabilities it was given.
pub const CAPABILITY_SET: u64 = 0x6000_0000_0000;
/// Where each process has its ring.
pub const RING: u64 = 0x6000_0000_1000;

/// Where things are in the page of the ring.
pub mod offset {
    /// How many submissions there have been.
    pub const SUBMITTED: u64 = 0;
    /// How many of these were taken.
    pub const TAKEN: u64 = 4;
    /// How many completions there have been.
    pub const COMPLETED: u64 = 8;
    /// How many of these were read.
    pub const READ: u64 = 12;
    /// The submissions.
    pub const SUBMISSIONS: u64 = 64;
    /// The completions.
    pub const COMPLETIONS: u64 = 2048;
}

/// Names of capabilities in the set that a process is given.
pub mod name {
    /// The right to take frames.
    pub const FRAMES: [u8; 8] = *b"frames\0\0";
    /// The right to start processes.
    pub const SPAWNER: [u8; 8] = *b"spawner\0";
    /// An endpoint, by agreement between parent and child.
    pub const ENDPOINT: [u8; 8] = *b"endpoint";
    /// Memory that parent and child share.
    pub const SHARED: [u8; 8] = *b"shared\0\0";
}

/// Interfaces of capabilities that are the kernel's own.
pub mod interface {
    /// A process that another may watch.
    pub const PROCESS: u64 = 0x1_0000;
    /// Where calls of one process reach another.
    pub const ENDPOINT: u64 = 0x1_0001;
    /// The right to start processes.
    pub const SPAWNER: u64 = 0x1_0002;
}

/// What a submission asks for. Arguments are named in their order; `-> x, y` are the values of the completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Operation {
    /// Nothing.
    Nothing = 0,
    /// memory: `-> pages, rights`.
    Info = 1,
    /// frame allocator: pages, 0 for any frames or 1 for a run `-> handle`.
    Allocate = 2,
    /// memory: first page, pages, `PROT_*`, address or 0 `-> address`.
    Map = 3,
    /// memory: address, pages.
    Unmap = 4,
    /// memory: address, pages, `PROT_*`.
    Protect = 5,
    /// any: gives the handle up.
    Release = 6,
    /// any: rights `-> handle`.
    Duplicate = 7,
    /// any: handle of a process, 0 for a copy or 1 to move, rights, name `-> handle` there. With a name other than 0 the
    /// capability is listed in the receiver's set.
    Send = 8,
    /// memory: first page, pages, rights `-> handle`.
    Slice = 9,
    /// memory: first page, pages `-> handle`.
    Snapshot = 10,
    /// address space: pages, address or 0 `-> address`.
    Reserve = 16,
    /// address space: address, pages, `PROT_*`.
    Commit = 17,
    /// address space: address, pages.
    Decommit = 18,
    /// address space: address, pages, `PROT_*`.
    ProtectReserved = 19,
    /// address space: address, pages.
    Unreserve = 20,
    /// spawner: address of a program's name, its length, most pages committed (0 for no limit) `-> handle` of the process,
    /// which does not run yet. The name is that of a program built into the kernel.
    Spawn = 32,
    /// process: lets it run.
    Start = 33,
    /// process: waits for its end `-> status` as of wait(2).
    Wait = 34,
    /// none: `-> handle` of a new endpoint.
    Endpoint = 40,
    /// endpoint: two words; waits for the answer `-> two words`.
    Call = 41,
    /// endpoint: waits for a call `-> its two words`. The one before must have been answered.
    Receive = 42,
    /// endpoint: two words, which answer the call that was received last.
    Reply = 43,
}

impl Operation {
    const ALL: [Self; 23] = [
        Self::Nothing,
        Self::Info,
        Self::Allocate,
        Self::Map,
        Self::Unmap,
        Self::Protect,
        Self::Release,
        Self::Duplicate,
        Self::Send,
        Self::Slice,
        Self::Snapshot,
        Self::Reserve,
        Self::Commit,
        Self::Decommit,
        Self::ProtectReserved,
        Self::Unreserve,
        Self::Spawn,
        Self::Start,
        Self::Wait,
        Self::Endpoint,
        Self::Call,
        Self::Receive,
        Self::Reply,
    ];

    /// The operation with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| *operation as u32 == number)
    }
}

/// What a program asks for.
///
/// ```text
/// bytes  0..4       4..8  8..16   16..24  24..64
///        operation  0     cookie  handle  five arguments
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Submission {
    /// The number of an [`Operation`].
    pub operation: u32,
    /// Comes back with the completion.
    pub cookie: u64,
    /// What is asked; 0 where the operation needs none.
    pub handle: u64,
    /// Arguments; those that an operation does not name are ignored.
    pub arguments: [u64; 5],
}

impl Submission {
    /// How long one is.
    pub const BYTES: usize = 64;
    /// How many places there are.
    pub const PLACES: u32 = 16;

    /// Where number `number` is in the page.
    pub const fn offset(number: u32) -> u64 {
        offset::SUBMISSIONS + (number % Self::PLACES) as u64 * Self::BYTES as u64
    }

    /// As it is in the page.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.operation.to_le_bytes());
        let [a, b, c, d, e] = self.arguments;
        put_words(&mut bytes[8..], &[self.cookie, self.handle, a, b, c, d, e]);
        bytes
    }

    /// What is in the page.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [operation, cookie, handle, a, b, c, d, e] = words(bytes);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half of the word")]
        let operation = operation as u32;
        Self { operation, cookie, handle, arguments: [a, b, c, d, e] }
    }
}

/// What became of a submission: 32 bytes, four words in the order of the fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Completion {
    /// That of the submission.
    pub cookie: u64,
    /// 0, or the negative number of an error as Linux has them.
    pub result: i64,
    /// What the operation says that it gives.
    pub values: [u64; 2],
}

impl Completion {
    /// How long one is.
    pub const BYTES: usize = 32;
    /// How many places there are.
    pub const PLACES: u32 = 32;

    /// Where number `number` is in the page.
    pub const fn offset(number: u32) -> u64 {
        offset::COMPLETIONS + (number % Self::PLACES) as u64 * Self::BYTES as u64
    }

    /// As it is in the page.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let [a, b] = self.values;
        put_words(&mut bytes, &[self.cookie, self.result.cast_unsigned(), a, b]);
        bytes
    }

    /// What is in the page.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [cookie, result, a, b] = words(bytes);
        Self { cookie, result: result.cast_signed(), values: [a, b] }
    }
}

fn put_words(bytes: &mut [u8], words: &[u64]) {
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

fn words<const COUNT: usize>(bytes: &[u8]) -> [u64; COUNT] {
    core::array::from_fn(|word| {
        let mut place = [0; 8];
        place.copy_from_slice(&bytes[8 * word..8 * word + 8]);
        u64::from_le_bytes(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_the_page_is_what_is_read_from_it() {
        let submission = Submission { operation: 34, cookie: 1, handle: u64::MAX, arguments: [3, 4, 5, 6, 1 << 63] };
        assert_eq!(Submission::from_bytes(&submission.to_bytes()), submission);
        assert_eq!(submission.to_bytes()[..8], [34, 0, 0, 0, 0, 0, 0, 0]);
        let completion = Completion { cookie: 7, result: -12, values: [8, 9] };
        assert_eq!(Completion::from_bytes(&completion.to_bytes()), completion);
    }

    #[test]
    fn places_lie_apart_in_one_page() {
        let last = |offset: u64, bytes: usize| offset + bytes as u64;
        assert_eq!(Submission::offset(0), Submission::offset(Submission::PLACES));
        assert!(last(Submission::offset(Submission::PLACES - 1), Submission::BYTES) <= offset::COMPLETIONS);
        assert!(last(Completion::offset(Completion::PLACES - 1), Completion::BYTES) <= 4096);
    }

    #[test]
    fn numbers_name_operations_and_nothing_else_does() {
        let named = (0..1000).filter_map(Operation::from_number).count();
        assert_eq!(named, Operation::ALL.len());
        assert_eq!(Operation::from_number(34), Some(Operation::Wait));
        assert_eq!(Operation::from_number(11), None);
    }
}
