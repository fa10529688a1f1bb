//! WASI's functions with addresses where there is no memory.

use pagewarden_cage::{Directory, Ended, Kept, Setup, Stdio, Val};
use tempfile::TempDir;
use wasmtime::{Engine, Linker, Store, ValType};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_sync};

use crate::support::{Guest, Numbers, PAGE, READ, WRITE, Witness, cages, wrapped};

const EFAULT: i32 = 21;
const EINVAL: i32 = 28;
const HOLE: u32 = 0x20_1000;
const READ_ONLY: u32 = 0x40_0000;
/// Where results and buffers are that are good.
const GOOD: u32 = 0x8000;
/// An array of one buffer, [`BUFFER`].
const ARRAY: u32 = 0x9000;
const BUFFER: u32 = 0xa000;
const BUFFER_LEN: u32 = 64;

/// All functions, with the letters of what they take and give.
fn functions() -> Vec<(String, String, String)> {
    let engine = Engine::default();
    let mut linker: Linker<WasiP1Ctx> = Linker::new(&engine);
    add_to_linker_sync(&mut linker, |context| context).unwrap();
    let mut store = Store::new(&engine, WasiCtxBuilder::new().build_p1());
    let letter = |ty: ValType| if matches!(ty, ValType::I64) { 'l' } else { 'i' };
    let all: Vec<_> = linker.iter(&mut store).map(|(_, name, item)| (name.to_owned(), item)).collect();
    all.into_iter()
        .map(|(name, item)| {
            let ty = item.into_func().unwrap().ty(&store);
            (name, ty.params().map(letter).collect(), ty.results().map(letter).collect())
        })
        .collect()
}

/// A guest that exports all functions, with a directory and something to read, and its witness.
fn beside_a_witness(harm: impl FnOnce(&mut Guest)) {
    let functions = functions();
    assert!(functions.len() >= 45);
    let parts = functions.iter().map(|(name, params, results)| {
        wrapped("wasi_snapshot_preview1", (name.as_str(), params.as_str(), results.as_str()))
    });
    let calls = [("mmap", "iiiiil", "i"), ("munmap", "ii", "i")].map(|call| wrapped("pagewarden", call));
    let (imports, exports): (Vec<_>, Vec<_>) = parts.chain(calls).unzip();
    let text = format!("(module {} (memory 2) {})", imports.concat(), exports.concat());
    let cages = cages();
    let witness = Witness::of(&cages);
    let program = cages.load(text.as_bytes(), "hostile").unwrap();
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("file"), "content").unwrap();
    let setup = Setup {
        args: vec!["hostile".into(), "argument".into()],
        env: vec![("NAME".into(), "value".into())],
        dirs: vec![Directory { host: dir.path().into(), guest: "/dir".into() }],
        stdio: Stdio::Kept { input: vec![b'i'; 100_000], output: Kept::new(1 << 20), errors: Kept::new(1 << 20) },
        ..Setup::default()
    };
    let mut guest = Guest(cages.start(&program, setup).unwrap());
    guest.map(HOLE - PAGE, 1, READ | WRITE);
    guest.map(READ_ONLY, 1, READ);
    set_up(&mut guest);
    harm(&mut guest);
    guest.check();
    drop(guest);
    witness.dismiss();
    assert_eq!(cages.memory().usage().mappings, 0);
}

fn set_up(guest: &mut Guest) {
    guest.0.write(ARRAY, &[BUFFER.to_le_bytes(), BUFFER_LEN.to_le_bytes()].concat()).unwrap();
    guest.0.write(BUFFER, b"file").unwrap();
    guest.0.write(GOOD, &[0; 256]).unwrap();
}

/// Calls with good arguments, and which of them are addresses.
const CALLS: &[(&str, &[u64], &[usize])] = &[
    ("args_get", &[0x8000, 0x8100], &[0, 1]),
    ("args_sizes_get", &[0x8000, 0x8100], &[0, 1]),
    ("environ_get", &[0x8000, 0x8100], &[0, 1]),
    ("environ_sizes_get", &[0x8000, 0x8100], &[0, 1]),
    ("clock_res_get", &[0, 0x8000], &[1]),
    ("clock_time_get", &[0, 0, 0x8000], &[2]),
    ("fd_fdstat_get", &[1, 0x8000], &[1]),
    ("fd_filestat_get", &[3, 0x8000], &[1]),
    ("fd_prestat_get", &[3, 0x8000], &[1]),
    ("fd_prestat_dir_name", &[3, 0x8000, 4], &[1]),
    ("fd_read", &[0, 0x9000, 1, 0x8000], &[1, 3]),
    ("fd_write", &[1, 0x9000, 1, 0x8000], &[1, 3]),
    ("fd_readdir", &[3, 0x8000, 256, 0, 0x8200], &[1, 4]),
    ("path_create_directory", &[3, 0xa000, 4], &[1]),
    ("path_filestat_get", &[3, 0, 0xa000, 4, 0x8000], &[2, 4]),
    ("path_filestat_set_times", &[3, 0, 0xa000, 4, 0, 0, 0], &[2]),
    ("path_link", &[3, 0, 0xa000, 4, 3, 0xa000, 4], &[2, 5]),
    ("path_open", &[3, 0, 0xa000, 4, 0, 2, 0, 0, 0x8000], &[2, 8]),
    ("path_readlink", &[3, 0xa000, 4, 0x8000, 64, 0x8100], &[1, 3, 5]),
    ("path_remove_directory", &[3, 0xa000, 4], &[1]),
    ("path_rename", &[3, 0xa000, 4, 3, 0xa000, 4], &[1, 4]),
    ("path_symlink", &[0xa000, 4, 3, 0xa000, 4], &[0, 3]),
    ("path_unlink_file", &[3, 0xb000, 4], &[1]),
    ("poll_oneoff", &[0x8000, 0x8100, 1, 0x8200], &[0, 1, 3]),
    ("random_get", &[0x8000, 64], &[0]),
    ("fd_pread", &[4, 0x9000, 1, 0, 0x8000], &[1, 4]),
    ("fd_pwrite", &[4, 0x9000, 1, 0, 0x8000], &[1, 4]),
    ("fd_seek", &[4, 0, 0, 0x8000], &[3]),
    ("fd_tell", &[4, 0x8000], &[1]),
    ("sock_accept", &[4, 0, 0x8000], &[2]),
    ("sock_recv", &[4, 0x9000, 1, 0, 0x8000, 0x8100], &[1, 4, 5]),
    ("sock_send", &[4, 0x9000, 1, 0, 0x8000], &[1, 4]),
];

/// The error number of a call; a trap ends the guest for what it asked, not for an address.
fn errno(guest: &mut Guest, params: &str, name: &str, args: &[u64]) -> i32 {
    let values: Vec<Val> = (params.chars().zip(args))
        .map(|(letter, arg)| match letter {
            'l' => Val::I64(arg.cast_signed()),
            _ => Val::I32(u32::try_from(arg & 0xffff_ffff).unwrap().cast_signed()),
        })
        .collect();
    match guest.0.call(name, &values) {
        Ok(results) => match results[..] {
            [Val::I32(errno)] => errno,
            _ => 0,
        },
        Err(Ended::Trap(trap)) => {
            assert_eq!((trap.address, trap.access), (None, None), "{name}{args:x?}: {trap}");
            -1
        }
        Err(other) => panic!("{name}{args:x?}: {other}"),
    }
}

#[test]
fn addresses_where_there_is_no_memory_are_efault() {
    let functions = functions();
    let of = |name: &str| &functions.iter().find(|(known, ..)| known == name).unwrap().1;
    let mut tried = Vec::new();
    beside_a_witness(|guest| {
        for (name, args, addresses) in CALLS {
            for index in *addresses {
                for bad in [0, 1, HOLE, HOLE - 1, 0xffff_f000, 0xffff_ffff] {
                    set_up(guest);
                    let mut args = args.to_vec();
                    args[*index] = bad.into();
                    let errno = errno(guest, of(name), name, &args);
                    // A buffer that only begins well may turn out not to be needed.
                    assert!(errno == EFAULT || (bad == HOLE - 1 && errno > 0), "{name}{args:x?}: {errno}");
                }
            }
            tried.push(*name);
        }
    });
    let addresses = |name: &str| {
        !["close", "sync", "renumber", "yield", "exit", "raise", "advise", "allocate", "set", "shutdown"]
            .iter()
            .any(|part| name.contains(part))
    };
    let left: Vec<_> =
        functions.iter().filter(|(name, ..)| addresses(name) && !tried.contains(&name.as_str())).collect();
    assert!(left.is_empty(), "nobody has tried {left:?}");
}

#[test]
fn results_that_may_not_be_written_are_efault() {
    beside_a_witness(|guest| {
        let cases: [(&str, &str, &[u64]); 5] = [
            ("clock_time_get", "ili", &[0, 0, READ_ONLY.into()]),
            ("random_get", "ii", &[READ_ONLY.into(), 8]),
            ("args_get", "ii", &[READ_ONLY.into(), 0x8000]),
            ("fd_write", "iiii", &[1, ARRAY.into(), 1, READ_ONLY.into()]),
            ("fd_prestat_dir_name", "iii", &[3, READ_ONLY.into(), 4]),
        ];
        for (name, params, args) in cases {
            assert_eq!(errno(guest, params, name, args), EFAULT, "{name}");
        }
    });
}

#[test]
fn buffers_of_arrays_are_looked_at_too() {
    beside_a_witness(|guest| {
        let bad = [(HOLE, 1), (HOLE - 8, 16), (0, 1), (u32::MAX, 2), (BUFFER, u32::MAX), (0xffff_f000, 0x1000)];
        for (address, len) in bad {
            guest.0.write(ARRAY, &[address.to_le_bytes(), len.to_le_bytes()].concat()).unwrap();
            assert_eq!(
                errno(guest, "iiii", "fd_write", &[1, ARRAY.into(), 1, GOOD.into()]),
                EFAULT,
                "{address:x} {len:x}"
            );
            let read = errno(guest, "iiii", "fd_read", &[0, ARRAY.into(), 1, GOOD.into()]);
            assert_eq!(read, EFAULT, "{address:x} {len:x}");
        }
        for number in [0x8000_0000, u32::MAX, 1 << 29] {
            for (name, fd) in [("fd_write", 1), ("fd_read", 0)] {
                let errno = errno(guest, "iiii", name, &[fd, ARRAY.into(), number.into(), GOOD.into()]);
                assert!([EINVAL, EFAULT].contains(&errno), "{name} of {number:x} buffers: {errno}");
            }
        }
        // An array that reaches into a hole.
        let args = [1, u64::from(HOLE - 4), 1, GOOD.into()];
        assert_eq!(errno(guest, "iiii", "fd_write", &args), EFAULT);
        assert_eq!(errno(guest, "ii", "random_get", &[u64::from(HOLE - 16), 32]), EFAULT);
        assert_eq!(errno(guest, "ii", "random_get", &[GOOD.into(), u32::MAX.into()]), EFAULT);
        assert_eq!(errno(guest, "iii", "path_unlink_file", &[3, BUFFER.into(), u32::MAX.into()]), EFAULT);
    });
}

#[test]
fn any_arguments_of_any_function_are_answered() {
    const WORDS: [u64; 18] = [
        0,
        1,
        2,
        3,
        4,
        5,
        8,
        64,
        0x8000,
        0x9000,
        0xa000,
        0x2_0000,
        0x20_0ff8,
        0x20_1000,
        0x40_0000,
        0x7fff_ffff,
        0xffff_f000,
        u64::MAX,
    ];
    let mut functions = functions();
    // One ends the guest, the other sleeps for as long as it is told.
    functions.retain(|(name, ..)| !["proc_exit", "poll_oneoff"].contains(&name.as_str()));
    let mut numbers = Numbers(21);
    let mut served = 0;
    beside_a_witness(|guest| {
        for round in 0..4000 {
            let (name, params, _) = &functions[numbers.below(functions.len())];
            let args: Vec<u64> = params.chars().map(|_| numbers.one_of(&WORDS)).collect();
            served += u32::from(errno(guest, params, name, &args) == 0);
            if round % 50 == 0 {
                set_up(guest);
            }
        }
    });
    assert!(served > 60, "only {served} calls did anything");
}
