//! System V segments.

use crate::tests::{cages, call, map, program, start, trap};
use crate::{Cage, TrapKind};

const SHM: &str = r#"
    (func (export "shmget") (param i32 i32 i32) (result i32) (call $shmget (local.get 0) (local.get 1) (local.get 2)))
    (func (export "shmat") (param i32 i32 i32) (result i32) (call $shmat (local.get 0) (local.get 1) (local.get 2)))
    (func (export "shmdt") (param i32) (result i32) (call $shmdt (local.get 0)))
    (func (export "shmctl") (param i32 i32 i32) (result i32) (call $shmctl (local.get 0) (local.get 1) (local.get 2)))
"#;
const CREATE: i32 = 0o1600;
const STAT: i32 = 2;

fn attaches(cage: &mut Cage, id: i32, buffer: i32) -> u64 {
    assert_eq!(call(cage, "shmctl", &[id, STAT, buffer]), 0);
    u64::from_le_bytes(status(cage, buffer, 88))
}

fn status<const LEN: usize>(cage: &Cage, buffer: i32, at: u32) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    cage.read(buffer.cast_unsigned() + at, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_segment_is_shared_by_two_cages_and_by_a_fork() {
    let cages = cages();
    let program = program(&cages, SHM);
    let (mut a, mut b) = (start(&cages, &program), start(&cages, &program));
    let buffer = map(&mut a, 4096);
    let id = call(&mut a, "shmget", &[77, 5000, CREATE]);
    assert_eq!(call(&mut b, "shmget", &[77, 5000, 0]), id);
    let (at_a, at_b) = (call(&mut a, "shmat", &[id, 0, 0]), call(&mut b, "shmat", &[id, 0, 0]));
    call(&mut a, "store", &[at_a + 4096, 5]);
    assert_eq!(call(&mut b, "load", &[at_b + 4096]), 5);
    assert_eq!(attaches(&mut a, id, buffer), 2);
    let mut child = a.fork().unwrap();
    assert_eq!(attaches(&mut a, id, buffer), 3);
    call(&mut child, "store", &[at_a, 6]);
    assert_eq!(call(&mut b, "load", &[at_b]), 6);
    assert_eq!(call(&mut child, "shmdt", &[at_a]), 0);
    assert_eq!(trap(&mut child, "load", &[at_a]).kind, TrapKind::Hole);
    assert_eq!(attaches(&mut a, id, buffer), 2);
    assert_eq!(call(&mut a, "shmctl", &[id, 0, 0]), 0, "IPC_RMID");
    assert_eq!(call(&mut b, "load", &[at_b]), 6, "there until the last detaches");
    drop((a, b));
    assert_eq!(call(&mut child, "shmat", &[id, 0, 0]), -22);
    assert_eq!(call(&mut child, "shmget", &[77, 5000, 0]), -2, "ENOENT");
}

#[test]
fn the_status_of_a_segment_has_the_layout_of_64_bit_linux() {
    let cages = cages();
    let mut cage = start(&cages, &program(&cages, SHM));
    let buffer = map(&mut cage, 4096);
    let id = call(&mut cage, "shmget", &[0x1234_5678, 5000, CREATE]);
    call(&mut cage, "shmat", &[id, 0, 0]);
    assert_eq!(call(&mut cage, "shmctl", &[id, STAT, buffer]), 0);
    let cage_ref = &cage;
    let word = |at| u32::from_le_bytes(status(cage_ref, buffer, at));
    let long = |at| u64::from_le_bytes(status(cage_ref, buffer, at));
    assert_eq!((word(0), word(20) & 0o777, long(48)), (0x1234_5678, 0o600, 5000));
    assert_eq!((word(80), word(84), long(88)), (1, 1, 1), "made and attached by process 1, once");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now - 100..=now).contains(&long(56)) && (now - 100..=now).contains(&long(72)), "attached and made now");
    assert_eq!(call(&mut cage, "shmctl", &[id, STAT, 16]), -14, "EFAULT");
    assert_eq!(call(&mut cage, "shmctl", &[id, 99, buffer]), -22);
    assert_eq!(call(&mut cage, "shmctl", &[id + 1, STAT, buffer]), -22);
    cage.write(buffer.cast_unsigned() + 20, &0o444_u32.to_le_bytes()).unwrap();
    assert_eq!(call(&mut cage, "shmctl", &[id, 1, buffer]), 0, "IPC_SET");
    assert_eq!(call(&mut cage, "shmctl", &[id, STAT | 0x100, buffer]), 0, "IPC_64");
    assert_eq!(u32::from_le_bytes(status(&cage, buffer, 20)) & 0o777, 0o444);
}
