//! An arena in one's own process: `cargo run --example embed`.

use pagewarden::Errno;
use pagewarden_linux::{Arena, ArenaOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = ArenaOptions { size: 1 << 30, commit_limit: Some(64 << 20), ..ArenaOptions::default() };
    let arena = Arena::new(&options)?;
    let call = |number: libc::c_long, args| arena.syscall(number.cast_unsigned(), args);
    let (private, read_write) = (u64::from((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unsigned_abs()), 3);

    let page = call(libc::SYS_mmap, [0, 4 * 4096, read_write, private, u64::MAX, 0])?;
    let word: *mut u64 = std::ptr::with_exposed_provenance_mut(usize::try_from(page)?);
    // SAFETY: the arena has just mapped four writable pages here, and nobody unmaps them meanwhile.
    unsafe { word.write_volatile(42) };
    call(libc::SYS_mprotect, [page, 4096, 1, 0, 0, 0])?;
    call(libc::SYS_brk, [arena.range().start().as_u64() + (1 << 20), 0, 0, 0, 0, 0])?;

    let outside = (&raw const options).addr() as u64 & !4095;
    assert_eq!(call(libc::SYS_munmap, [outside, 4096, 0, 0, 0, 0]), Err(Errno::Inval), "not the arena's");
    assert_eq!(call(libc::SYS_mmap, [0, 1 << 27, read_write, private, u64::MAX, 0]), Err(Errno::NoMem), "the budget");
    print!("{}", arena.with_manager(|manager| manager.maps_text()));
    arena.verify().map_err(Into::into)
}
