//! `memory.copy`, `fill`, `init`, `grow` and the tables' instructions over holes, past ends, with lengths that wrap.

use pagewarden::manager::Access;
use pagewarden_cage::{CageTrap, Ended, TrapKind, Val};

use crate::support::{Guest, Numbers, PAGE, READ, WRITE, beside_a_witness, console};

/// Sixteen pages that tests give rights to.
const FIELD: u32 = 0x60_0000;
const FIELD_PAGES: u32 = 16;

fn assert_out_of_range(trap: &CageTrap) {
    assert_eq!((&trap.kind, trap.address, trap.access), (&TrapKind::Hole, None, None), "{trap}");
}

#[test]
fn lengths_that_wrap_are_out_of_range_and_change_nothing() {
    beside_a_witness(&console(""), |guest| {
        guest.map(FIELD, FIELD_PAGES, READ | WRITE);
        guest.call("fill", &[FIELD, 9, FIELD_PAGES * PAGE]).unwrap();
        let cases = [
            ("copy", [FIELD, FIELD + PAGE, u32::MAX]),
            ("copy", [FIELD, u32::MAX - 5, 16]),
            ("copy", [u32::MAX - 5, FIELD, 16]),
            ("copy", [u32::MAX, u32::MAX, u32::MAX]),
            ("fill", [FIELD, 1, u32::MAX]),
            ("fill", [2, 1, u32::MAX]),
            ("fill", [u32::MAX, 1, 2]),
            ("init", [FIELD, 0, u32::MAX]),
            ("init", [FIELD, u32::MAX, 2]),
            ("init", [FIELD, 1, 16]),
            ("init", [FIELD, 17, 0]),
            ("init", [u32::MAX, 0, 2]),
        ];
        for (name, args) in cases {
            assert_out_of_range(&guest.trap(name, &args));
        }
        let mut bytes = vec![0; (FIELD_PAGES * PAGE) as usize];
        guest.0.read(FIELD, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 9));
        guest.call("drop", &[]).unwrap();
        assert_out_of_range(&guest.trap("init", &[FIELD, 0, 1]));
    });
}

#[test]
fn nothing_is_done_for_nothing_wherever_it_is() {
    beside_a_witness(&console(""), |guest| {
        for at in [0, 1, FIELD, u32::MAX] {
            for (name, args) in [("copy", [at, u32::MAX - at, 0]), ("fill", [at, 1, 0]), ("init", [at, 16, 0])] {
                assert!(guest.call(name, &args).unwrap().is_empty());
            }
        }
    });
}

#[test]
fn the_first_byte_that_is_refused_is_told() {
    beside_a_witness(&console(""), |guest| {
        guest.map(FIELD, 2, READ | WRITE);
        guest.map(FIELD + 3 * PAGE, 1, READ | WRITE);
        guest.map(FIELD + 4 * PAGE, 1, READ);
        guest.map(FIELD + 5 * PAGE, 1, 0);
        let (hole, read_only, none) = (FIELD + 2 * PAGE, FIELD + 4 * PAGE, FIELD + 5 * PAGE);
        let cases = [
            ("fill", [FIELD, 1, 3 * PAGE], hole, Access::Write, TrapKind::Hole),
            ("fill", [hole + 5, 1, 1], hole + 5, Access::Write, TrapKind::Hole),
            ("fill", [FIELD + 3 * PAGE, 1, 2 * PAGE], read_only, Access::Write, TrapKind::Rights),
            ("copy", [FIELD, hole - 4, 8], hole, Access::Read, TrapKind::Hole),
            ("copy", [hole - 4, FIELD, 8], hole, Access::Write, TrapKind::Hole),
            ("copy", [FIELD, none, 8], none, Access::Read, TrapKind::Rights),
            ("copy", [none, FIELD, 8], none, Access::Write, TrapKind::Rights),
            ("copy", [FIELD, read_only + 8, PAGE], none, Access::Read, TrapKind::Rights),
            ("init", [hole - 8, 0, 16], hole, Access::Write, TrapKind::Hole),
            ("init", [0, 0, 16], 0, Access::Write, TrapKind::Hole),
            ("fill", [0xffff_fff0, 1, 16], 0xffff_fff0, Access::Write, TrapKind::Hole),
        ];
        for (name, args, address, access, kind) in cases {
            let trap = guest.trap(name, &args);
            let told = (trap.kind.clone(), trap.address, trap.access);
            assert_eq!(told, (kind, Some(address.into()), Some(access)), "{name}{args:x?}");
            let line = format!("{address:08x}-");
            assert_eq!(
                trap.region.is_some_and(|region| region.starts_with(&line)),
                [none, read_only].contains(&address)
            );
        }
    });
}

/// What the field is like: rights of each page, or none that is mapped, and its bytes.
struct Field {
    rights: [Option<u32>; FIELD_PAGES as usize],
    bytes: Vec<u8>,
}

impl Field {
    fn new(guest: &mut Guest, numbers: &mut Numbers) -> Self {
        let mut field = Self { rights: [None; 16], bytes: vec![0; (FIELD_PAGES * PAGE) as usize] };
        assert_eq!(guest.int("munmap", &[FIELD, FIELD_PAGES * PAGE]), 0);
        for (page, at) in (FIELD..).step_by(PAGE as usize).zip(0..field.rights.len()).map(|(at, page)| (page, at)) {
            let choices = [Some(READ | WRITE), Some(READ | WRITE), Some(READ | WRITE), Some(READ), Some(0), None];
            field.rights[page] = numbers.one_of(&choices);
            if let Some(rights) = field.rights[page] {
                guest.map(at, 1, READ | WRITE);
                let value = u8::try_from(numbers.below(256)).unwrap();
                field.page(page).fill(value);
                guest.0.write(at, &[value; PAGE as usize]).unwrap();
                assert_eq!(guest.int("mprotect", &[at, PAGE, rights]), 0);
            }
        }
        field
    }

    fn page(&mut self, page: usize) -> &mut [u8] {
        let start = page * PAGE as usize;
        &mut self.bytes[start..start + PAGE as usize]
    }

    fn allows(&self, start: u32, len: u32, right: u32) -> bool {
        let pages = (start / PAGE) as usize..(start + len).div_ceil(PAGE) as usize;
        len == 0 || self.rights[pages].iter().all(|rights| rights.is_some_and(|rights| rights & right != 0))
    }
}

/// Looks at the field after a copy or fill to `to`, and notes it. Each byte of the target is as in one of `may_be`; elsewhere,
/// what was there still is.
fn check_field(guest: &Guest, field: &mut Field, (to, len): (u32, u32), may_be: &[&[u8]]) {
    let target = to as usize..(to + len) as usize;
    for page in 0..field.rights.len() {
        if field.rights[page].is_none_or(|rights| rights == 0) {
            continue;
        }
        let start = page * PAGE as usize;
        let mut now = [0; PAGE as usize];
        guest.0.read(FIELD + u32::try_from(start).unwrap(), &mut now).unwrap();
        for (at, byte) in (start..).zip(now) {
            let is_right = match target.contains(&at) {
                true => may_be.iter().any(|bytes| bytes[at] == byte),
                false => field.bytes[at] == byte,
            };
            assert!(is_right, "byte {at:#x} is {byte}");
        }
        field.page(page).copy_from_slice(&now);
    }
}

#[test]
fn copies_over_holes_do_what_they_may_or_trap_and_touch_nothing_else() {
    let mut numbers = Numbers(3);
    let (mut done, mut stopped) = (0, 0);
    beside_a_witness(&console(""), |guest| {
        for _ in 0..40 {
            let mut field = Field::new(guest, &mut numbers);
            for _ in 0..12 {
                let most = [40, 5000, 40_000][numbers.below(3)];
                let len = u32::try_from(numbers.below(most)).unwrap();
                let mut place = || u32::try_from(numbers.below((FIELD_PAGES * PAGE - len) as usize + 1)).unwrap();
                let (to, from) = (place(), place());
                let is_copy = numbers.below(3) > 0;
                let mut after = field.bytes.clone();
                let target = to as usize..(to + len) as usize;
                let (name, args) = if is_copy {
                    after.copy_within(from as usize..(from + len) as usize, to as usize);
                    ("copy", [FIELD + to, FIELD + from, len])
                } else {
                    after[target].fill(0x5a);
                    ("fill", [FIELD + to, 0x5a, len])
                };
                let is_allowed = field.allows(to, len, WRITE) && (!is_copy || field.allows(from, len, READ));
                let called = guest.call(name, &args);
                assert_eq!(called.is_ok(), is_allowed, "{name}{args:x?} {:?}", field.rights);
                if let Err(Ended::Trap(trap)) = called {
                    let address = u32::try_from(trap.address.unwrap()).unwrap() - FIELD;
                    let (start, right) = if trap.access == Some(Access::Write) { (to, WRITE) } else { (from, READ) };
                    assert!((start..start + len).contains(&address), "{trap}");
                    assert!(!field.allows(address, 1, right), "{trap}");
                }
                let before = field.bytes.clone();
                let may_be = [&after[..], &before];
                check_field(guest, &mut field, (to, len), if is_allowed { &may_be[..1] } else { &may_be });
                *if is_allowed { &mut done } else { &mut stopped } += 1;
            }
        }
    });
    assert!(done > 100 && stopped > 100, "{done} were done, {stopped} stopped");
}

#[test]
fn memory_grows_no_further_than_it_may() {
    beside_a_witness(&console(""), |guest| {
        assert_eq!(guest.int("size", &[]), 2);
        for pages in [63, 65_534, 65_535, 65_536, u32::MAX, 0x8000_0000] {
            assert_eq!(guest.int("grow", &[pages]), -1, "{pages} more");
        }
        assert_eq!(guest.int("grow", &[0]), 2);
        guest.map(6 << 16, 1, READ | WRITE);
        assert_eq!(guest.int("grow", &[10]), -1, "another mapping is in the way");
        assert_eq!(guest.int("grow", &[3]), 2);
        assert_eq!(guest.int("size", &[]), 5);
        guest.call("fill", &[2 << 16, 1, 3 << 16]).unwrap();
        assert_eq!(guest.trap("fill", &[5 << 16, 1, 1]).kind, TrapKind::Hole);
    });
}

const TABLES: &str = r#"
    (type $none (func))
    (table $t 4 funcref)
    (table $small 2 3 funcref)
    (elem $e func $f $f $f)
    (func $f)
    (func (export "table.copy") (param i32 i32 i32) (table.copy $t $t (local.get 0) (local.get 1) (local.get 2)))
    (func (export "table.init") (param i32 i32 i32) (table.init $t $e (local.get 0) (local.get 1) (local.get 2)))
    (func (export "table.fill") (param i32 i32 i32)
      (table.fill $t (local.get 0) (select (result funcref) (ref.func $f) (ref.null func) (local.get 1)) (local.get 2)))
    (func (export "table.get") (param i32) (drop (table.get $t (local.get 0))))
    (func (export "table.set") (param i32) (table.set $t (local.get 0) (ref.func $f)))
    (func (export "table.grow") (param i32) (result i32) (table.grow $t (ref.null func) (local.get 0)))
    (func (export "table.grow small") (param i32) (result i32) (table.grow $small (ref.func $f) (local.get 0)))
    (func (export "elem.drop") (elem.drop $e))
    (func (export "call") (param i32) (call_indirect $t (type $none) (local.get 0)))"#;

#[test]
fn tables_end_where_they_end() {
    let is_about_tables = |trap: &CageTrap| matches!(&trap.kind, TrapKind::Other(text) if text.contains("table"));
    beside_a_witness(&console(TABLES), |guest| {
        for args in [[3, 0, 2], [0, 3, 2], [u32::MAX, 0, 1], [0, u32::MAX, 2], [0, 0, u32::MAX], [5, 0, 0]] {
            for name in ["table.copy", "table.init"] {
                let trap = guest.trap(name, &args);
                assert!(is_about_tables(&trap), "{name}{args:?}: {trap}");
                assert_eq!(trap.address, None);
            }
        }
        for args in [[3, 1, 2], [u32::MAX, 1, 1], [1, 0, u32::MAX]] {
            assert!(is_about_tables(&guest.trap("table.fill", &args)));
        }
        for at in [4, u32::MAX] {
            for name in ["table.get", "table.set", "call"] {
                assert!(is_about_tables(&guest.trap(name, &[at])), "{name} {at}");
            }
        }
        guest.call("elem.drop", &[]).unwrap();
        assert!(is_about_tables(&guest.trap("table.init", &[0, 0, 1])));
        for more in [u32::MAX, 0x8000_0000, 100_000_000] {
            assert_eq!(guest.int("table.grow", &[more]), -1, "{more} more elements are the host's memory");
            assert_eq!(guest.int("table.grow small", &[more]), -1);
        }
        assert_eq!(guest.int("table.grow small", &[2]), -1);
        assert_eq!(guest.int("table.grow small", &[1]), 2);
        assert_eq!(guest.int("table.grow", &[0]), 4);
    });
}

#[test]
fn a_cage_that_traps_can_be_called_again() {
    beside_a_witness(&console(""), |guest| {
        for _ in 0..200 {
            guest.trap("fill", &[0, 1, 1]);
            assert!(matches!(guest.call("size", &[]).unwrap()[..], [Val::I32(2)]));
        }
    });
}
