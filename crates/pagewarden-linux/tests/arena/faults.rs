//! What an access is to the guest, and stacks that grow: by the arena, never by the host.

use pagewarden::manager::{Access, Signal, SignalCode};

use crate::support::{FIXED, Guest, NONE, PAGE, PRIVATE, READ, load, store};

const GROWS_DOWN: u64 = 0x100;

#[test]
fn a_stack_grows_by_the_fault_below_it() {
    let guest = Guest::new(1024);
    let top = guest.start() + 512 * PAGE;
    guest.mmap(top, 1, 3, PRIVATE | FIXED | GROWS_DOWN).unwrap();
    assert_eq!(guest.arena.fault(top - 3 * PAGE + 8, Access::Write), Ok(()));
    guest.agrees();
    (1..=3).for_each(|page| store(top - page * PAGE, 5));
    assert_eq!(load(top - 3 * PAGE), 5);
    assert_eq!(guest.munmap(top - 3 * PAGE, 4), Ok(0));
}

#[test]
fn what_is_vacant_is_not_mapped_and_what_is_mapped_has_its_rights() {
    let guest = Guest::new(16);
    let (read, none) = (guest.mmap(0, 1, READ, PRIVATE).unwrap(), guest.mmap(0, 1, NONE, PRIVATE).unwrap());
    let code = |addr, access| {
        let signal = guest.arena.fault(addr, access).unwrap_err();
        assert_eq!((signal.signal, signal.address.as_u64()), (Signal::Segv, addr));
        signal.code
    };
    assert_eq!(code(none - PAGE, Access::Read), SignalCode::MapErr);
    assert_eq!(code(guest.end(), Access::Read), SignalCode::MapErr);
    assert_eq!(code(none, Access::Read), SignalCode::AccErr);
    assert_eq!(code(read, Access::Write), SignalCode::AccErr);
    assert_eq!(guest.arena.fault(read, Access::Read), Ok(()));
}
