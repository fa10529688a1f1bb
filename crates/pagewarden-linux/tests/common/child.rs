//! Children of a test that do what would disturb the others: they change limits, users and namespaces.

use std::io::{Read as _, Write as _};

/// What `work` counts in a child of this process; a child that fails has said why.
pub(crate) fn in_child<const N: usize>(work: impl FnOnce() -> [u64; N]) -> [u64; N] {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // SAFETY: the child goes on in this thread alone, as the parent would, and allocates by a library that is made
    // for this; it ends without running what other threads have registered.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // What the harness captures of this thread would end with this process.
        std::panic::set_hook(Box::new(|panic| drop(writeln!(std::io::stderr(), "{panic}"))));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let is_written = done.is_ok_and(|counts| {
            let bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
            writer.write_all(&bytes).is_ok()
        });
        // SAFETY: ends this process at once, as wanted.
        unsafe { libc::_exit(i32::from(!is_written)) }
    }
    drop(writer);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    let mut status = 0;
    // SAFETY: the status is ours, and so is the child.
    let waited = unsafe { libc::waitpid(child, std::ptr::from_mut(&mut status), 0) };
    assert_eq!((waited, status), (child, 0), "a child has found a difference");
    let mut words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    [(); N].map(|()| words.next().unwrap())
}
