//! Accesses by pointer to pages that went away.

use pagewarden::phys::{CopyFault, VmapProvider, WindowAccess};
use pagewarden_linux::foreign::ForeignMemory;

use crate::support::{FIRST, PAGE, at, byte_at, shown, world};

fn peek(memory: &ForeignMemory, address: pagewarden::VirtAddr) -> u8 {
    let pointer = memory.window_pointer(address, 1).unwrap();
    // SAFETY: the tests of this file have a window there.
    unsafe { pointer.read_volatile() }
}

fn poke(memory: &ForeignMemory, address: pagewarden::VirtAddr, byte: u8) {
    let pointer = memory.window_pointer(address, 1).unwrap();
    // SAFETY: as above.
    unsafe { pointer.write_volatile(byte) };
}

#[test]
fn an_access_by_pointer_to_a_page_that_is_gone_finds_zeroes_and_is_counted() {
    let (file, memory) = world(4);
    let shown = shown(&memory, FIRST, 4);
    assert_eq!(peek(&memory, at(shown, 2 * PAGE + 3)), byte_at(2 * PAGE + 3));
    file.set_len(4096).unwrap();
    assert_eq!(memory.load(at(shown, 2 * PAGE), &mut [0]), Err(CopyFault { copied: 0 }));
    assert_eq!(memory.lost_pages(), 0, "our own accesses say so and replace nothing");
    assert_eq!(peek(&memory, at(shown, 2 * PAGE + 3)), 0);
    assert_eq!(memory.lost_pages(), 1);
    poke(&memory, at(shown, 3 * PAGE), 9);
    assert_eq!((memory.lost_pages(), peek(&memory, at(shown, 3 * PAGE))), (2, 9));
    assert_eq!(peek(&memory, at(shown, PAGE - 1)), byte_at(PAGE - 1), "the first page is the file's");
    // A new window on pages that are back is a window on the file again.
    file.set_len(4 * 4096).unwrap();
    memory.unmap(shown).unwrap();
    let again = crate::support::shown(&memory, FIRST, 4);
    assert_eq!(peek(&memory, at(again, 3 * PAGE)), 0);
    std::os::unix::fs::FileExt::write_all_at(&file, &[7], 3 * 4096).unwrap();
    assert_eq!(peek(&memory, at(again, 3 * PAGE)), 7);
}

#[test]
fn each_space_counts_its_own_pages() {
    let spaces: Vec<_> = (0..5).map(|_| world(2)).collect();
    for (index, (file, memory)) in spaces.iter().enumerate() {
        let shown = shown(memory, FIRST, 2);
        file.set_len(0).unwrap();
        for page in 0..(index + 1) % 3 {
            assert_eq!(peek(memory, at(shown, page * PAGE)), 0);
        }
    }
    let counts: Vec<u64> = spaces.iter().map(|(_, memory)| memory.lost_pages()).collect();
    assert_eq!(counts, [1, 2, 0, 1, 2]);
    drop(spaces);
    assert_eq!(world(1).1.lost_pages(), 0, "a place in the list that is used again counts from the start");
}
