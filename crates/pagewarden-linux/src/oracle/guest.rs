//! The process that runs programs: reads them from standard input, forks for each, prints what it answered.
//!
//! Every program starts from the same address space, that of the parent, which allocates nothing after it has
//! read the first line.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};

use pagewarden::manager::Privileges;

use super::compare::{BESIDE_CAGES, BESIDE_HOST_MACHINE, BESIDE_MACHINE, ENCLOSED, IN_ARENA, IN_CAGES};
use super::compare::{ON_HOST_MACHINE, ON_MACHINE, UNDER_PAGEWARDEN, VERIFIED, fix_layout};
use super::enclosure::{Counterpart, Enclosure, LOCKED, LOCKED_MOST};
use super::files::Files;
use super::guard::{Guard, Locking};
use super::interpret::{Interpreter, flush, vec_with_touched_room, wait_for};
use super::kernel::Kernel;
use super::machine::{HostHardware, MakeHardware, SoftwareMachine, run_watched};
use super::program::{MAX_STEPS, Step};
use super::raw;
use super::state::{self, MapLine};
use super::text::{END, parse_step};
use crate::traced::import;
use crate::{Exit, RunOptions, Verify};

/// Most bytes of text that a guest takes.
pub const INPUT_ROOM: usize = 2 << 20;
/// Mappings that views may have on the host as a machine: so few that they are dropped now and then.
const MAPPINGS_MAX: usize = 24;
/// Most regions of the guest's own.
const OWN_REGIONS: usize = 256;

/// Runs the programs on standard input, on the [`Side`](super::compare::Side) that the last argument of this process names;
/// none of those that take a machine that only others know.
///
/// # Errors
/// Input that is too long or does not parse, and what the host says.
pub fn main() -> io::Result<()> {
    main_with(&|_| Err(io::Error::other("this guest program has no cages")))
}

/// Runs the programs on standard input, on the [`Side`](super::compare::Side) that the last argument of this process names, where
/// `cages` makes a machine whose processes are in cages.
///
/// # Errors
/// As [`main`], and what making the machine says.
pub fn main_with(cages: MakeHardware<'_>) -> io::Result<()> {
    let last = std::env::args_os().next_back().unwrap_or_default();
    match last.to_str().unwrap_or_default() {
        UNDER_PAGEWARDEN => run_traced(Verify::Off),
        VERIFIED => run_traced(Verify::EachCall),
        ENCLOSED => run_here(Setting::Enclosed(Counterpart::Arena), cages),
        IN_ARENA => run_here(Setting::Arena, cages),
        BESIDE_MACHINE => run_here(Setting::Enclosed(Counterpart::Machine), cages),
        ON_MACHINE => run_here(Setting::Machine(Counterpart::Machine), cages),
        BESIDE_HOST_MACHINE => run_here(Setting::Enclosed(Counterpart::HostMachine), cages),
        ON_HOST_MACHINE => run_here(Setting::Machine(Counterpart::HostMachine), cages),
        BESIDE_CAGES => run_here(Setting::Enclosed(Counterpart::Cages), cages),
        IN_CAGES => run_here(Setting::Machine(Counterpart::Cages), cages),
        _ => run_here(Setting::Whole, cages),
    }
}

/// What programs of this process run in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    /// The whole address space, and the host's kernel.
    Whole,
    /// A range, and the host's kernel.
    Enclosed(Counterpart),
    /// The range of an arena, and an arena.
    Arena,
    /// A range, and a machine of our own.
    Machine(Counterpart),
}

/// Runs this very program under pagewarden, with the arguments and the layout that it has without.
fn run_traced(verify: Verify) -> io::Result<()> {
    fix_layout()?;
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let program = if args.is_empty() { OsString::new() } else { args.remove(0) };
    args.retain(|arg| arg != UNDER_PAGEWARDEN && arg != VERIFIED);
    let options = RunOptions { program, args, verify, ..RunOptions::default() };
    let outcome = crate::run(&options, None).map_err(io::Error::other)?;
    if let Some(words) = outcome.difference {
        // It belongs to what the guest has printed last.
        words.lines().for_each(|line| println!("verify: {line}"));
        return Ok(());
    }
    match outcome.exit {
        Exit::Code(0) => Ok(()),
        other => Err(io::Error::other(format!("the guest ended with {other:?}"))),
    }
}

fn run_here(setting: Setting, cages: MakeHardware<'_>) -> io::Result<()> {
    let mut input = vec_with_touched_room(INPUT_ROOM);
    let mut steps: Vec<Step> = Vec::with_capacity(MAX_STEPS);
    let mut line_out = vec_with_touched_room(4096);
    let mut interpreter = Interpreter::new(Files::open()?, Guard::new(OWN_REGIONS));
    raw::catch_faults()?;
    grow_stack(0);
    read_input(&mut input)?;
    let text = std::str::from_utf8(&input).map_err(io::Error::other)?;
    match setting {
        Setting::Whole => learn_own_regions(&mut interpreter)?,
        Setting::Enclosed(counterpart) => enclose(&mut interpreter, counterpart, |interpreter| {
            if counterpart.is_kernel() {
                forbid_huge_pages()?;
            }
            Ok(Kernel::Enclosed(Enclosure::new(counterpart, &mut interpreter.maps)?))
        })?,
        Setting::Arena => enclose(&mut interpreter, Counterpart::Arena, |_| Kernel::arena())?,
        // Made for each program: a process that is forked would have the memory in common with others.
        Setting::Machine(_) => {}
    }
    let prepare = |interpreter: &mut Interpreter| match setting {
        Setting::Machine(counterpart) => enclose(interpreter, counterpart, |interpreter| {
            Kernel::machine(&interpreter.files, counterpart, maker(counterpart, cages))
        }),
        Setting::Whole | Setting::Enclosed(_) | Setting::Arena => Ok(()),
    };
    run_programs(text, &mut interpreter, (&mut steps, &mut line_out), &prepare)
}

/// Has programs run by a kernel in the range of an arena. Once that is made there may be no memory to be had.
fn enclose(
    interpreter: &mut Interpreter,
    counterpart: Counterpart,
    make: impl FnOnce(&mut Interpreter) -> io::Result<Kernel>,
) -> io::Result<()> {
    let privileges = import::privileges(std::process::id().cast_signed())?;
    let locking = if privileges.contains(Privileges::LOCK) { Locking::All } else { Locking::Future };
    interpreter.guard = Guard::enclosing(counterpart, locking);
    interpreter.kernel = make(interpreter)?;
    interpreter.kernel.map_residence()?;
    interpreter.kernel.set_limit(LOCKED, LOCKED_MOST);
    Ok(())
}

/// What makes the machine that stands for `counterpart`.
fn maker<'a>(counterpart: Counterpart, cages: MakeHardware<'a>) -> MakeHardware<'a> {
    match counterpart {
        Counterpart::Cages => cages,
        Counterpart::HostMachine => &|_| Ok(Box::new(HostHardware::new(Some(MAPPINGS_MAX))?)),
        Counterpart::Machine | Counterpart::Arena => &|_| Ok(Box::new(SoftwareMachine::new()?)),
    }
}

/// The machine's pager makes a page resident at a time.
fn forbid_huge_pages() -> io::Result<()> {
    // SAFETY: changes how this process gets memory, and nothing that it has.
    let failed = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } < 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What has a process of its own do before it runs a program.
type Prepare<'a> = &'a dyn Fn(&mut Interpreter) -> io::Result<()>;

/// Runs each program in a process of its own; there is room for its steps and for lines.
fn run_programs(
    text: &str,
    interpreter: &mut Interpreter,
    (steps, line_out): (&mut Vec<Step>, &mut Vec<u8>),
    prepare: Prepare<'_>,
) -> io::Result<()> {
    let mut number = 0;
    for line in text.lines() {
        if line != END {
            if steps.len() == MAX_STEPS {
                return Err(io::Error::other("program too long"));
            }
            steps.push(parse_step(line).map_err(io::Error::other)?);
            continue;
        }
        // A vector with room enough: the writes cannot fail.
        let _ = writeln!(line_out, "program {number}");
        flush(line_out);
        // SAFETY: there is one thread, so the child may go on as the parent would.
        match unsafe { libc::fork() } {
            0 => {
                run_one(interpreter, steps, prepare);
                // SAFETY: ends this process at once, as wanted.
                unsafe { libc::_exit(0) }
            }
            child @ 1.. => drop(writeln!(line_out, "end {number} {:#x}", wait_for(child))),
            _ => return Err(io::Error::last_os_error()),
        }
        flush(line_out);
        steps.clear();
        number += 1;
    }
    Ok(())
}

/// Runs a program in the process that was made for it.
fn run_one(interpreter: &mut Interpreter, steps: &[Step], prepare: Prepare<'_>) {
    if let Err(error) = prepare(interpreter) {
        let _ = writeln!(interpreter.out, "not run: {error}");
        return flush(&mut interpreter.out);
    }
    match interpreter.kernel {
        Kernel::Machine(_) => run_watched(interpreter, steps),
        _ => interpreter.run(steps),
    }
}

fn read_input(input: &mut Vec<u8>) -> io::Result<()> {
    let mut stdin = io::stdin().lock();
    let mut chunk = [0; 4096];
    loop {
        let count = stdin.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        if input.len() + count > input.capacity() {
            return Err(io::Error::other("too much input"));
        }
        input.extend_from_slice(&chunk[..count]);
    }
}

fn learn_own_regions(interpreter: &mut Interpreter) -> io::Result<()> {
    if !state::read_maps(&mut interpreter.maps) {
        return Err(io::Error::other("cannot read /proc/self/maps"));
    }
    let text = std::str::from_utf8(&interpreter.maps).map_err(io::Error::other)?;
    for line in text.lines().filter_map(MapLine::parse) {
        if !interpreter.guard.add((line.start, line.end), line.name) {
            return Err(io::Error::other("too many regions"));
        }
    }
    Ok(())
}

/// Grows the stack, so that it need not grow later, when a limit may forbid it.
#[inline(never)]
fn grow_stack(depth: u32) -> u8 {
    let room = std::hint::black_box([1_u8; 4096]);
    if depth < 64 { grow_stack(depth + 1) | room[usize::from(room[0])] } else { room[0] }
}
