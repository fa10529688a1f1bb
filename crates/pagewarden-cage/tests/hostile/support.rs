//! The hostile guest, which does whatever a test says, and the witness.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pagewarden::Resource;
use pagewarden_cage::{Cage, CageOptions, CageTrap, Cages, Ended, Setup, Val};

pub(crate) const PAGE: u32 = 4096;
pub(crate) const READ: u32 = 1;
pub(crate) const WRITE: u32 = 2;
pub(crate) const PRIVATE: u32 = 0x02;
pub(crate) const SHARED: u32 = 0x01;
pub(crate) const FIXED: u32 = 0x10;
pub(crate) const ANONYMOUS: u32 = 0x20;

/// The cage's own calls: their names, what they take (`i` for 32 bits, `l` for 64), what they give.
pub(crate) const CALLS: &[(&str, &str, &str)] = &[
    ("mmap", "iiiiil", "i"),
    ("munmap", "ii", "i"),
    ("mprotect", "iii", "i"),
    ("mremap", "iiiii", "i"),
    ("brk", "i", "i"),
    ("sbrk", "i", "i"),
    ("madvise", "iii", "i"),
    ("msync", "iii", "i"),
    ("shmget", "iii", "i"),
    ("shmat", "iii", "i"),
    ("shmdt", "i", "i"),
    ("shmctl", "iii", "i"),
    ("fork", "", "i"),
    ("clone", "ii", "i"),
    ("exit", "i", ""),
    ("wait", "i", "i"),
    ("waitpid", "iii", "i"),
    ("getpid", "", "i"),
    ("getppid", "", "i"),
    ("syscall", "lllllll", "l"),
];

/// The memory instructions that are calls in a cage.
const RANGES: &str = r#"
    (func (export "copy") (param i32 i32 i32) (memory.copy (local.get 0) (local.get 1) (local.get 2)))
    (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))
    (func (export "init") (param i32 i32 i32) (memory.init $segment (local.get 0) (local.get 1) (local.get 2)))
    (func (export "drop") (data.drop $segment))
    (func (export "size") (result i32) (memory.size))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (data $segment "0123456789abcdef")"#;

/// Few processes and little memory, so that a guest that takes all of it is soon done.
pub(crate) fn cages() -> Cages {
    let options = CageOptions {
        commit_limit: Some(64 << 20),
        processes_max: 32,
        memory_bytes: 1 << 30,
        stack_bytes: 128 << 10,
        ..CageOptions::default()
    };
    Cages::new(&options).unwrap()
}

/// An import and an exported function that calls it, both of this name.
pub(crate) fn wrapped(module: &str, (name, params, results): (&str, &str, &str)) -> (String, String) {
    let types = |letters: &str| -> String {
        letters.chars().map(|letter| if letter == 'l' { " i64" } else { " i32" }).collect()
    };
    let signature = format!("(param{}) (result{})", types(params), types(results));
    let args: String = (0..params.len()).fold(String::new(), |mut args, index| {
        write!(args, " (local.get {index})").unwrap();
        args
    });
    let import = format!("(import {module:?} {name:?} (func ${name} {signature}))\n");
    (import, format!("(func (export {name:?}) {signature} (call ${name}{args}))\n"))
}

/// A module that can make all calls, with code of its own.
pub(crate) fn caller(code: &str) -> String {
    let imports: String = CALLS.iter().map(|call| wrapped("pagewarden", *call).0).collect();
    format!("(module {imports} (memory 2 64) {code})")
}

/// A module that exports all calls, and the memory instructions that are calls, with more of its own.
pub(crate) fn console(more: &str) -> String {
    let functions: String = CALLS.iter().map(|call| wrapped("pagewarden", *call).1).collect();
    caller(&format!("{functions} {RANGES} {more}"))
}

/// A guest that does what it is told.
pub(crate) struct Guest(pub(crate) Cage);

impl Guest {
    pub(crate) fn new(cages: &Cages, text: &str) -> Self {
        let program = cages.load(text.as_bytes(), "hostile").unwrap_or_else(|error| panic!("{error}\n{text}"));
        Self(cages.start(&program, Setup::default()).unwrap())
    }

    /// The result of a function that gives one number.
    pub(crate) fn int(&mut self, name: &str, args: &[u32]) -> i32 {
        match self.call(name, args).as_deref() {
            Ok([Val::I32(value)]) => *value,
            other => panic!("{name}{args:x?}: {other:?}"),
        }
    }

    pub(crate) fn call(&mut self, name: &str, args: &[u32]) -> Result<Vec<Val>, Ended> {
        let args: Vec<Val> = args.iter().map(|arg| Val::I32(arg.cast_signed())).collect();
        self.0.call(name, &args)
    }

    /// Memory of zeros at exactly `at`.
    pub(crate) fn map(&mut self, at: u32, pages: u32, rights: u32) {
        let flags = PRIVATE | ANONYMOUS | FIXED;
        let args = [at, pages * PAGE, rights, flags, u32::MAX].map(|word| Val::I32(word.cast_signed()));
        let mapped = self.0.call("mmap", &[&args[..], &[Val::I64(0)]].concat()).unwrap();
        assert!(matches!(mapped[..], [Val::I32(start)] if start.cast_unsigned() == at), "{mapped:?}");
    }

    pub(crate) fn trap(&mut self, name: &str, args: &[u32]) -> CageTrap {
        match self.call(name, args) {
            Err(Ended::Trap(trap)) => *trap,
            other => panic!("{name}{args:x?} does not trap: {other:?}"),
        }
    }

    /// Segments are everybody's, and stay.
    fn remove_segments(mut self) {
        const SHM_INFO: u32 = 14;
        const SHM_STAT_ANY: u32 = 15;
        for slot in 0..=self.int("shmctl", &[0, SHM_INFO, PAGE]).cast_unsigned() {
            if let Ok(id) = u32::try_from(self.int("shmctl", &[slot, SHM_STAT_ANY, PAGE])) {
                assert_eq!(self.int("shmctl", &[id, 0, 0]), 0);
            }
        }
    }

    /// Books that must be right whatever the guest has done.
    pub(crate) fn check(&self) {
        self.0.space().space().with_manager(|manager| manager.check_invariants());
        for line in self.0.maps_text().lines() {
            let (start, rest) = line.split_once('-').unwrap();
            let end = rest.split(' ').next().unwrap();
            let [start, end] = [start, end].map(|word| u64::from_str_radix(word, 16).unwrap());
            assert!(4096 <= start && start < end && end <= 0xffff_f000, "{line}");
        }
    }
}

/// Bytes that the witness has from address 4096 on.
const WITNESSED: u32 = 60 * PAGE;

const WITNESS: &str = r#"(module (memory 4)
    (func (export "write") (param $seed i64) (local $at i32)
      (local.set $at (i32.const 4096))
      (loop $next
        (i64.store (local.get $at)
          (i64.xor (local.get $seed) (i64.mul (i64.extend_i32_u (local.get $at)) (i64.const 0x9e3779b97f4a7c15))))
        (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 249856)))))
    (func (export "sum") (result i64) (local $at i32) (local $sum i64)
      (local.set $at (i32.const 4096))
      (loop $next
        (local.set $sum (i64.add (i64.rotl (local.get $sum) (i64.const 5)) (i64.load (local.get $at))))
        (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 249856))))
      (local.get $sum)))"#;

fn expected_sum(seed: i64) -> i64 {
    (PAGE..PAGE + WITNESSED).step_by(8).fold(0, |sum: i64, at| {
        let word = seed ^ i64::from(at).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed());
        sum.rotate_left(5).wrapping_add(word)
    })
}

/// Two processes beside the hostile one, which had their memory in common until one wrote to it. That one writes all of its
/// memory anew and sums it up, time and again; the other sums up what it has had from the beginning.
pub(crate) struct Witness {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<i64>>,
}

impl Witness {
    /// How many processes it is.
    pub(crate) const PROCESSES: usize = 2;

    pub(crate) fn of(cages: &Cages) -> Self {
        let program = cages.load(WITNESS.as_bytes(), "witness").unwrap();
        let mut writer = cages.start(&program, Setup::default()).unwrap();
        writer.call("write", &[Val::I64(0)]).unwrap();
        let mut keeper = writer.fork().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut rounds = 0;
            while rounds < 2 || !until.load(Ordering::Relaxed) {
                rounds += 1;
                writer.call("write", &[Val::I64(rounds)]).unwrap();
                assert_eq!(sum(&mut writer), expected_sum(rounds), "what the witness wrote has changed");
                assert_eq!(sum(&mut keeper), expected_sum(0), "what the witness kept has changed");
                thread::sleep(Duration::from_millis(2));
            }
            rounds
        });
        Self { is_over, thread: Some(thread) }
    }

    /// The witness has seen nothing.
    pub(crate) fn dismiss(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        assert!(self.thread.take().unwrap().join().unwrap() >= 2);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn sum(cage: &mut Cage) -> i64 {
    match cage.call("sum", &[]).unwrap()[..] {
        [Val::I64(sum)] => sum,
        ref other => panic!("{other:?}"),
    }
}

/// Has a guest do harm beside a witness. When all have ended, nothing is left of them.
pub(crate) fn beside_a_witness(text: &str, harm: impl FnOnce(&mut Guest)) {
    let cages = cages();
    let witness = Witness::of(&cages);
    let mut guest = Guest::new(&cages, text);
    harm(&mut guest);
    guest.check();
    drop(guest);
    witness.dismiss();
    wait_for_ends(&cages, 0);
    // One whose own memory is as it should be.
    Guest::new(&cages, &console("")).remove_segments();
    check_nothing_is_left(&cages);
}

/// Waits until no more than `left` processes are left.
pub(crate) fn wait_for_ends(cages: &Cages, left: usize) {
    let mut patience = 4000;
    while cages.processes() > left {
        thread::sleep(Duration::from_millis(5));
        patience -= 1;
        assert!(patience > 0, "{} processes are left", cages.processes());
    }
}

/// All cages have ended, and so have their segments.
pub(crate) fn check_nothing_is_left(cages: &Cages) {
    assert_eq!(cages.processes(), 0);
    assert_eq!(cages.account().used(Resource::Committed), 0, "somebody still pays");
    assert_eq!(cages.memory().usage().mappings, 0, "somebody's memory is still shown");
}

/// Numbers that look random and are always the same (SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.word()).unwrap() % end
    }

    pub(crate) fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}
