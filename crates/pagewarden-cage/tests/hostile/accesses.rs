//! Plain loads and stores where there is nothing to load from or to store to.

use std::fmt::Write;

use pagewarden::manager::Access;
use pagewarden_cage::{CageTrap, Ended, TrapKind, Val};

use crate::support::{Guest, PAGE, READ, WRITE, beside_a_witness, console};

/// Loads, and how many bytes each takes.
const LOADS: &[(&str, u64)] = &[
    ("i32.load8_s", 1),
    ("i32.load8_u", 1),
    ("i32.load16_s", 2),
    ("i32.load16_u", 2),
    ("i32.load", 4),
    ("i64.load8_s", 1),
    ("i64.load8_u", 1),
    ("i64.load16_s", 2),
    ("i64.load16_u", 2),
    ("i64.load32_s", 4),
    ("i64.load32_u", 4),
    ("i64.load", 8),
    ("f32.load", 4),
    ("f64.load", 8),
    ("v128.load", 16),
    ("v128.load8x8_s", 8),
    ("v128.load16x4_u", 8),
    ("v128.load32x2_s", 8),
    ("v128.load8_splat", 1),
    ("v128.load16_splat", 2),
    ("v128.load32_splat", 4),
    ("v128.load64_splat", 8),
    ("v128.load32_zero", 4),
    ("v128.load64_zero", 8),
];
const LANE_LOADS: &[(&str, u64)] =
    &[("v128.load8_lane", 1), ("v128.load16_lane", 2), ("v128.load32_lane", 4), ("v128.load64_lane", 8)];
/// Stores, how many bytes each takes, and what is stored.
const STORES: &[(&str, u64, &str)] = &[
    ("i32.store8", 1, "(i32.const -1)"),
    ("i32.store16", 2, "(i32.const -1)"),
    ("i32.store", 4, "(i32.const -1)"),
    ("i64.store8", 1, "(i64.const -1)"),
    ("i64.store16", 2, "(i64.const -1)"),
    ("i64.store32", 4, "(i64.const -1)"),
    ("i64.store", 8, "(i64.const -1)"),
    ("f32.store", 4, "(f32.const nan)"),
    ("f64.store", 8, "(f64.const nan)"),
    ("v128.store", 16, "(v128.const i64x2 -1 -1)"),
];
const LANE_STORES: &[(&str, u64)] =
    &[("v128.store8_lane", 1), ("v128.store16_lane", 2), ("v128.store32_lane", 4), ("v128.store64_lane", 8)];

/// What instructions add to their address: within the guard behind 4 GiB, at its end, and far beyond.
const OFFSETS: [u64; 6] = [0, 1, 4095, 0x7fff_fff0, 0x8000_0000, 0xffff_ffff];
const FOUR_GIB: u64 = 1 << 32;
const GUARD: u64 = 2 << 30;

const INITIAL_END: u32 = 2 << 16;
const HOLE: u32 = 0x20_1000;
const NONE: u32 = 0x30_0000;
const READ_ONLY: u32 = 0x40_0000;
const LAST: u32 = 0xffff_e000;
/// What is mapped: where, how many pages, with which rights.
const MAPPED: [(u32, u32, u32); 7] = [
    (PAGE, INITIAL_END / PAGE - 1, READ | WRITE),
    (HOLE - PAGE, 1, READ | WRITE),
    (HOLE + PAGE, 1, READ | WRITE),
    (NONE, 2, 0),
    (READ_ONLY, 1, READ),
    (READ_ONLY + PAGE, 1, READ | WRITE),
    (LAST, 1, READ | WRITE),
];

/// Where accesses begin, or near which.
const PLACES: [u32; 15] = [
    0,
    PAGE,
    INITIAL_END,
    HOLE,
    HOLE + PAGE,
    NONE,
    NONE + PAGE,
    NONE + 2 * PAGE,
    READ_ONLY,
    READ_ONLY + PAGE,
    0x7fff_fff8,
    0x8000_0000,
    LAST,
    LAST + PAGE,
    0xffff_ffff,
];

/// An instruction, its offset, and a function that carries it out at an address.
struct Instruction {
    name: String,
    bytes: u64,
    offset: u64,
    access: Access,
}

fn instructions() -> (Vec<Instruction>, String) {
    let mut text = String::new();
    let mut all = Vec::new();
    let mut add = |op: &str, bytes, access, code: &dyn Fn(u64) -> String| {
        for offset in OFFSETS {
            let name = format!("{op} offset={offset}");
            writeln!(text, "(func (export {name:?}) (param i32) {})", code(offset)).unwrap();
            all.push(Instruction { name, bytes, offset, access });
        }
    };
    let vector = "(v128.const i64x2 -1 -1)";
    for (op, bytes) in LOADS {
        add(op, *bytes, Access::Read, &|offset| format!("(drop ({op} offset={offset} (local.get 0)))"));
    }
    for (op, bytes) in LANE_LOADS {
        add(op, *bytes, Access::Read, &|offset| format!("(drop ({op} offset={offset} 1 (local.get 0) {vector}))"));
    }
    for (op, bytes, value) in STORES {
        add(op, *bytes, Access::Write, &|offset| format!("({op} offset={offset} (local.get 0) {value})"));
    }
    for (op, bytes) in LANE_STORES {
        add(op, *bytes, Access::Write, &|offset| format!("({op} offset={offset} 1 (local.get 0) {vector})"));
    }
    (all, text)
}

/// What an access must lead to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Done,
    /// A trap in the map: why, and where.
    Trap(TrapKind, u64),
    /// A trap behind 4 GiB; where, if it is the guard that catches it.
    Beyond(Option<u64>),
}

fn expected(start: u64, index: u32, of: &Instruction) -> Outcome {
    let needed = if of.access == Access::Write { WRITE } else { READ };
    let end = start + of.bytes;
    if end > FOUR_GIB && of.offset + of.bytes > GUARD {
        return Outcome::Beyond(None);
    }
    if start >= FOUR_GIB {
        return Outcome::Beyond(Some(start));
    }
    assert_eq!(start, u64::from(index) + of.offset);
    let page = u64::from(PAGE);
    for at in [start, start.next_multiple_of(page)].into_iter().filter(|at| *at < end) {
        let is_in = |(first, pages, _): &(u32, u32, u32)| {
            (u64::from(*first)..u64::from(*first) + u64::from(*pages) * page).contains(&at)
        };
        match MAPPED.iter().find(|mapped| is_in(mapped)) {
            None => return Outcome::Trap(TrapKind::Hole, at),
            Some((.., rights)) if rights & needed == 0 => return Outcome::Trap(TrapKind::Rights, at),
            Some(_) => {}
        }
    }
    Outcome::Done
}

fn seen(called: Result<Vec<Val>, Ended>, of: &Instruction) -> Outcome {
    let trap = match called {
        Ok(_) => return Outcome::Done,
        Err(Ended::Trap(trap)) => *trap,
        Err(other) => panic!("{other}"),
    };
    assert!(!trap.backtrace.is_empty());
    let CageTrap { kind, address, access, region, .. } = trap;
    match address {
        Some(address) if address < FOUR_GIB => {
            assert_eq!(access, Some(of.access), "{}", of.name);
            let rights = match u32::try_from(address).unwrap() & !(PAGE - 1) {
                READ_ONLY => Some("r--p"),
                NONE | 0x30_1000 => Some("---p"),
                _ => None,
            };
            assert_eq!(
                region.as_deref().and_then(|line| line.split(' ').nth(1)),
                rights,
                "{} at {address:#x}",
                of.name
            );
            Outcome::Trap(kind, address)
        }
        address => {
            assert_eq!((&kind, &region), (&TrapKind::Hole, &None));
            Outcome::Beyond(address)
        }
    }
}

/// The bytes of the access that are mapped.
fn bytes_at(guest: &Guest, start: u64, bytes: u64) -> Vec<Option<u8>> {
    let byte = |address: u64| {
        let mut byte = [0];
        let address = u32::try_from(address).ok()?;
        guest.0.read(address, &mut byte).ok().map(|()| byte[0])
    };
    (start..start + bytes).map(byte).collect()
}

#[test]
fn each_access_goes_where_it_may_or_traps_where_it_may_not() {
    let (instructions, text) = instructions();
    beside_a_witness(&console(&text), |guest| {
        for (at, pages, rights) in &MAPPED[1..] {
            guest.map(*at, *pages, *rights);
        }
        let (mut done, mut trapped) = (0, 0);
        for instruction in &instructions {
            let bytes = i64::try_from(instruction.bytes).unwrap();
            let nearby = [-bytes, -1, 0].into_iter().chain((bytes > 2).then_some(1 - bytes));
            for (place, shift) in PLACES.iter().flat_map(|place| nearby.clone().map(move |shift| (place, shift))) {
                // An offset is made up for, if that is possible, so that the access is at the place all the same.
                let start = u64::from(*place).wrapping_add_signed(shift) % FOUR_GIB;
                let made_up = start.checked_sub(instruction.offset).unwrap_or(start);
                let index = u32::try_from(made_up).unwrap();
                let start = made_up + instruction.offset;
                let before = bytes_at(guest, start, instruction.bytes);
                let outcome = seen(guest.call(&instruction.name, &[index]), instruction);
                assert_eq!(outcome, expected(start, index, instruction), "{} at {index:#x}", instruction.name);
                let after = bytes_at(guest, start, instruction.bytes);
                if instruction.access == Access::Write && outcome == Outcome::Done {
                    assert!(after.iter().all(|byte| byte.is_some()));
                    done += 1;
                } else {
                    assert_eq!(before, after, "{} at {index:#x} changed bytes", instruction.name);
                    trapped += u32::from(outcome != Outcome::Done);
                }
            }
        }
        assert!(done > 300 && trapped > 3000, "{done} stores done, {trapped} accesses trapped");
    });
}

#[test]
fn no_address_leads_out_of_the_cage() {
    let text = r#"(func (export "load") (param i32) (result i64) (i64.load offset=0x7ffffff0 (local.get 0)))
        (func (export "store") (param i32) (i64.store offset=0x7ffffff0 (local.get 0) (i64.const -1)))"#;
    beside_a_witness(&console(text), |guest| {
        // 4 GiB and what follows it, the end of the guard included.
        for start in [FOUR_GIB, FOUR_GIB + 8, FOUR_GIB + u64::from(PAGE), FOUR_GIB + GUARD - 0x11] {
            let index = u32::try_from(start - 0x7fff_fff0).unwrap();
            for name in ["load", "store"] {
                let trap = guest.trap(name, &[index]);
                assert_eq!((trap.kind.clone(), trap.address), (TrapKind::Hole, Some(start)), "{trap}");
                assert_eq!(trap.region, None);
                assert_eq!(trap.signal(), libc::SIGSEGV);
            }
        }
    });
}

#[test]
fn pages_that_went_away_are_holes_at_once() {
    let text = r#"(func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
        (func (export "store") (param i32) (i32.store (local.get 0) (i32.const 7)))"#;
    beside_a_witness(&console(text), |guest| {
        let at = 0x50_0000;
        for round in 0..20 {
            guest.map(at, 20, READ | WRITE);
            for page in 0..20 {
                assert_eq!(guest.int("load", &[at + page * PAGE]), 0, "memory is zero again");
                guest.call("store", &[at + page * PAGE]).unwrap();
            }
            let page = at + (round % 20) * PAGE;
            assert_eq!(guest.int("mprotect", &[page, PAGE, READ]), 0);
            assert_eq!(guest.int("load", &[page]), 7);
            assert_eq!(guest.trap("store", &[page]).kind, TrapKind::Rights);
            assert_eq!(guest.int("mprotect", &[page, PAGE, 0]), 0);
            assert_eq!(guest.trap("load", &[page]).kind, TrapKind::Rights);
            assert_eq!(guest.int("munmap", &[at, 20 * PAGE]), 0);
            for page in 0..20 {
                let trap = guest.trap(["load", "store"][page as usize % 2], &[at + page * PAGE]);
                assert_eq!((trap.kind, trap.address), (TrapKind::Hole, Some(u64::from(at + page * PAGE))));
            }
        }
    });
}
