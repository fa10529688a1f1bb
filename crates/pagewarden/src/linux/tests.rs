//! What the decoder makes of vectors of ranges and of pidfds.

use std::vec::Vec;

use super::{Files, OpenFile, Request, Segment, TargetProcess, decode};
use crate::error::Errno;

const PROCESS_MADVISE: u64 = 440;
const VECTOR: u64 = 0x5000;
const USER_END: u64 = 0x7fff_ffff_f000;
/// The most bytes of a call.
const MOST: u64 = 0x7fff_f000;
const DONT_FORK: u64 = 10;

/// A guest with a vector of segments at [`VECTOR`], of which `readable` bytes can be read.
struct Guest {
    segments: Vec<(u64, u64)>,
    readable: usize,
    target: Result<TargetProcess, Errno>,
}

impl Files for Guest {
    fn open_file(&mut self, _fd: i32) -> Result<OpenFile, Errno> {
        Err(Errno::BadF)
    }

    fn segment(&mut self, _id: i32) -> Result<Segment, Errno> {
        Err(Errno::Inval)
    }

    fn string(&mut self, _addr: u64, _len_max: usize) -> Result<Vec<u8>, Errno> {
        Err(Errno::Fault)
    }

    fn bytes(&mut self, addr: u64, len: usize) -> Vec<u8> {
        assert_eq!(addr, VECTOR, "nothing else is read");
        let words = self.segments.iter().flat_map(|(start, len)| [*start, *len]);
        words.flat_map(u64::to_le_bytes).take(len.min(self.readable)).collect()
    }

    fn process(&mut self, pidfd: i32) -> Result<TargetProcess, Errno> {
        assert_eq!(pidfd, 7);
        self.target
    }
}

fn guest(segments: &[(u64, u64)]) -> Guest {
    Guest { segments: segments.to_vec(), readable: usize::MAX, target: Ok(TargetProcess::Own) }
}

fn call(guest: &mut Guest, advice: u64) -> Result<Option<Request>, Errno> {
    let count = guest.segments.len() as u64;
    decode(PROCESS_MADVISE, [7, VECTOR, count, advice, 0, 0], guest)
}

/// The ranges that are advised.
fn ranges(segments: &[(u64, u64)]) -> Result<Vec<(u64, u64)>, Errno> {
    match call(&mut guest(segments), DONT_FORK)? {
        Some(Request::ProcessMadvise { ranges, advice: 10 }) => Ok(ranges),
        other => panic!("{other:?}"),
    }
}

#[test]
fn empty_segments_are_stepped_over_but_for_the_first() {
    assert_eq!(ranges(&[]), Ok(Vec::new()));
    assert_eq!(ranges(&[(1, 0)]), Ok(Vec::new()), "no bytes at all: nothing is looked at");
    assert_eq!(ranges(&[(1, 0), (3, 0)]), Ok(Vec::new()));
    assert_eq!(ranges(&[(1, 0), (3, 0), (0x1000, 5)]), Ok([(1, 0), (0x1000, 5)].to_vec()));
    assert_eq!(ranges(&[(0x1000, 5), (1, 0), (0x3000, 7)]), Ok([(0x1000, 5), (0x3000, 7)].to_vec()));
}

#[test]
fn what_is_beyond_the_most_bytes_is_cut_off() {
    assert_eq!(ranges(&[(0x1000, MOST + 1)]), Ok([(0x1000, MOST)].to_vec()));
    let cut = ranges(&[(0x1000, MOST - 0x1000), (0x2000, 0x5000), (1, 9)]);
    assert_eq!(cut, Ok([(0x1000, MOST - 0x1000), (0x2000, 0x1000)].to_vec()));
}

#[test]
fn segments_lie_where_programs_may_point() {
    assert_eq!(ranges(&[(USER_END, 0x1000)]), Err(Errno::Fault));
    assert_eq!(ranges(&[(USER_END, 0), (0x1000, 1)]), Ok([(USER_END, 0), (0x1000, 1)].to_vec()));
    assert_eq!(ranges(&[(u64::MAX, 2), (0x1000, 1)]), Err(Errno::Fault));
    // Alone, a segment is cut off before it is looked at; among others, after.
    assert_eq!(ranges(&[(0x1000, 1 << 50)]), Ok([(0x1000, MOST)].to_vec()));
    assert_eq!(ranges(&[(0x1000, 1 << 50), (0x1000, 1)]), Err(Errno::Fault));
}

#[test]
fn lengths_have_signs_and_are_read_one_by_one() {
    assert_eq!(ranges(&[(0x1000, 1 << 63)]), Err(Errno::Inval));
    let mut torn = guest(&[(0x1000, 1), (0x2000, 1 << 63)]);
    assert_eq!(call(&mut torn, DONT_FORK).unwrap_err(), Errno::Inval);
    torn.readable = 31;
    assert_eq!(call(&mut torn, DONT_FORK).unwrap_err(), Errno::Fault, "the second cannot be read");
    torn.segments[0].1 = u64::MAX;
    assert_eq!(call(&mut torn, DONT_FORK).unwrap_err(), Errno::Inval, "the first is looked at before");
}

#[test]
fn counts_are_bounded() {
    assert_eq!(ranges(&[(0x1000, 1); 1024]).map(|ranges| ranges.len()), Ok(1024));
    assert_eq!(ranges(&[(0x1000, 1); 1025]), Err(Errno::Inval));
    let decoded = decode(PROCESS_MADVISE, [7, 0, 1 << 32, DONT_FORK, 0, 0], &mut guest(&[]));
    assert!(matches!(decoded, Ok(Some(Request::ProcessMadvise { ranges, .. })) if ranges.is_empty()), "an int");
    for vector in [USER_END - 15, u64::MAX - 15, 1 << 63] {
        let decoded = decode(PROCESS_MADVISE, [7, vector, 1, DONT_FORK, 0, 0], &mut guest(&[]));
        assert_eq!(decoded.unwrap_err(), Errno::Fault);
    }
}

#[test]
fn errors_come_in_the_order_of_linux() {
    let mut gone = Guest { target: Err(Errno::Srch), ..guest(&[(u64::MAX, 2)]) };
    assert_eq!(decode(PROCESS_MADVISE, [7, VECTOR, 1, 999, 1, 0], &mut gone).unwrap_err(), Errno::Inval, "flags");
    assert_eq!(call(&mut gone, 999).unwrap_err(), Errno::Fault, "the vector before the process");
    gone.segments[0] = (0x1000, 1);
    assert_eq!(call(&mut gone, 999).unwrap_err(), Errno::Srch, "the process before the advice");
    assert!(call(&mut guest(&[]), 999).is_ok(), "the advice last of all");
}

#[test]
fn others_are_given_no_advice_that_changes_a_region() {
    let mut other = Guest { target: Ok(TargetProcess::Other), ..guest(&[(0x1000, 0x1000)]) };
    for advice in 0..110 {
        let decoded = call(&mut other, advice);
        if [3, 20, 21, 25].contains(&advice) {
            assert!(matches!(decoded, Ok(None)), "advice {advice} is the platform's");
        } else {
            assert_eq!(decoded.unwrap_err(), Errno::Inval, "advice {advice}");
        }
    }
}

#[test]
fn without_descriptors_there_is_only_the_caller() {
    struct Alone;
    impl Files for Alone {
        fn open_file(&mut self, _fd: i32) -> Result<OpenFile, Errno> {
            Err(Errno::BadF)
        }

        fn segment(&mut self, _id: i32) -> Result<Segment, Errno> {
            Err(Errno::Inval)
        }

        fn string(&mut self, _addr: u64, _len_max: usize) -> Result<Vec<u8>, Errno> {
            Err(Errno::Fault)
        }
    }
    let words = |pidfd: i32, count| [u64::from(pidfd.cast_unsigned()), VECTOR, count, DONT_FORK, 0, 0];
    for own in [super::PIDFD_SELF_THREAD, super::PIDFD_SELF_THREAD_GROUP] {
        assert!(matches!(decode(PROCESS_MADVISE, words(own, 0), &mut Alone), Ok(Some(_))));
        assert_eq!(decode(PROCESS_MADVISE, words(own, 1), &mut Alone).unwrap_err(), Errno::Fault);
    }
    assert_eq!(decode(PROCESS_MADVISE, words(3, 0), &mut Alone).unwrap_err(), Errno::BadF);
}
