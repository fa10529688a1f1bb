//! Every sequence of operations, up to a length, on a handful of frames with a hole among them.

use super::{FrameAllocator, Make, Naive, bitmap, chunks, frame, run, usable};

/// What can be done. Frames 1, 2, 4, 5 and 6 are there; 0 and 3 never are.
const OPERATIONS: [fn(&mut Naive, &dyn FrameAllocator); 12] = [
    |naive, all| drop(naive.allocate(all, 1)),
    |naive, all| drop(naive.allocate(all, 3)),
    |naive, all| _ = naive.allocate_run(all, 2, 1),
    |naive, all| _ = naive.allocate_run(all, 2, 2),
    |naive, all| _ = naive.allocate_run(all, 3, 1),
    |naive, all| naive.free(all, &[frame(1)]),
    |naive, all| naive.free(all, &[frame(2), frame(3), frame(4)]),
    |naive, all| naive.free(all, &[frame(5)]),
    |naive, all| naive.free(all, &[frame(6), frame(6)]),
    |naive, all| naive.free(all, &[frame(0), frame(7), frame(1 << 30)]),
    |naive, all| naive.free_run(all, run(4, 6)),
    |naive, all| naive.free_run(all, run(2, 5)),
];

/// Runs every sequence of `length` operations; the frames are compared after each, what is derived at the end.
fn every_sequence(make: Make, length: u32) {
    let map = usable(&[(0, 3), (4, 7)]);
    let all = OPERATIONS.len().pow(length);
    let fresh = Naive::new(&map);
    for sequence in 0..all {
        let (mut naive, allocator) = (fresh.clone(), make(&map));
        let mut rest = sequence;
        for _ in 0..length {
            OPERATIONS[rest % OPERATIONS.len()](&mut naive, &*allocator);
            naive.check_frames(&*allocator);
            rest /= OPERATIONS.len();
        }
        if sequence % 16 == 0 {
            allocator.check_invariants();
        }
    }
}

#[test]
fn a_bitmap_does_what_a_set_of_frames_does() {
    every_sequence(bitmap, 4);
}

#[test]
fn chunks_do_what_a_set_of_frames_does() {
    every_sequence(chunks, 4);
}
