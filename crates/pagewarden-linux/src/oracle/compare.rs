//! Runs programs on both sides and finds where they differ.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::guest::INPUT_ROOM;
use super::program::Program;
use super::seams::up_to_seam;
use super::state::MapLine;

/// Makes the guest program run itself under pagewarden.
pub const UNDER_PAGEWARDEN: &str = "--under-pagewarden";
/// The same, with the manager's books compared after each call.
pub const VERIFIED: &str = "--verified";
/// Makes the guest program leave nothing free but the range that arenas of this test have.
pub const ENCLOSED: &str = "--enclosed";
/// Makes the guest program run its programs in an arena.
pub const IN_ARENA: &str = "--in-arena";
/// The same as [`ENCLOSED`], for a comparison with the software machine.
pub const BESIDE_MACHINE: &str = "--beside-machine";
/// Makes the guest program run its programs on the software machine.
pub const ON_MACHINE: &str = "--on-machine";
/// The same as [`BESIDE_MACHINE`], for a comparison with the host as a machine, in what 32 bits can name.
pub const BESIDE_HOST_MACHINE: &str = "--beside-host-machine";
/// Makes the guest program run its programs on the host as a machine.
pub const ON_HOST_MACHINE: &str = "--on-host-machine";
/// The same as [`BESIDE_HOST_MACHINE`], for a comparison with cages.
pub const BESIDE_CAGES: &str = "--beside-cages";
/// Makes a guest program that knows cages run its programs in them.
pub const IN_CAGES: &str = "--in-cages";
/// Most programs that one guest process runs.
const BATCH: usize = 250;

/// Who answers the calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The host kernel.
    Native,
    /// pagewarden's traced platform.
    Traced,
    /// The same; after each call the manager's map and sums are compared with the host's, and the first difference ends
    /// the guest.
    Verified,
    /// The host kernel, in a process that has nothing free but the range of an arena.
    Enclosed,
    /// An arena in that range.
    Arena,
    /// As [`Self::Enclosed`], without huge pages and with steps that an arena has nothing to say to.
    BesideMachine,
    /// The software machine, with that range as the space of each of its processes.
    Machine,
    /// As [`Self::BesideMachine`], with nothing free but the addresses of 32 bits that a cage has.
    BesideHostMachine,
    /// The host as a machine ([`crate::host_machine`]), with those addresses as the space of each of its processes.
    HostMachine,
    /// As [`Self::BesideHostMachine`], without what cages have not.
    BesideCages,
    /// Cages, one for each process. The guest program must be one that has been given them
    /// ([`super::guest::main_with`]).
    Cages,
}

impl Side {
    /// What makes a guest program run on this side, as its last argument; nothing for the host kernel.
    pub const fn flag(self) -> Option<&'static str> {
        match self {
            Self::Native => None,
            Self::Traced => Some(UNDER_PAGEWARDEN),
            Self::Verified => Some(VERIFIED),
            Self::Enclosed => Some(ENCLOSED),
            Self::Arena => Some(IN_ARENA),
            Self::BesideMachine => Some(BESIDE_MACHINE),
            Self::Machine => Some(ON_MACHINE),
            Self::BesideHostMachine => Some(BESIDE_HOST_MACHINE),
            Self::HostMachine => Some(ON_HOST_MACHINE),
            Self::BesideCages => Some(BESIDE_CAGES),
            Self::Cages => Some(IN_CAGES),
        }
    }

    /// How it is called in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native | Self::Enclosed => "the host",
            Self::BesideMachine | Self::BesideHostMachine | Self::BesideCages => "the host",
            Self::Traced | Self::Verified | Self::Arena => "pagewarden",
            Self::Machine | Self::HostMachine | Self::Cages => "pagewarden",
        }
    }
}

/// What a program printed, with equal neighbours among its regions merged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transcript {
    /// The lines.
    pub lines: Vec<String>,
}

/// A program whose sides differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The program.
    pub program: Program,
    /// What it printed on the first side.
    pub left: Transcript,
    /// And on the second.
    pub right: Transcript,
}

/// Runs guests.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The guest's command line, the program first: it calls [`super::guest::main`].
    pub guest: Vec<OsString>,
    /// A directory for the files that programs map, and for input and output.
    pub directory: PathBuf,
    /// How long one batch may take.
    pub timeout: Duration,
}

impl Runner {
    /// What each of `programs` prints on `side`. Where the guest ended early, the transcripts of the programs that it
    /// did not reach are empty.
    ///
    /// # Errors
    /// What the host says, and a guest that does not end in time.
    pub fn run(&self, side: Side, programs: &[Program]) -> io::Result<Vec<Transcript>> {
        self.run_in(&self.directory, side, programs)
    }

    fn run_in(&self, place: &Path, side: Side, programs: &[Program]) -> io::Result<Vec<Transcript>> {
        let mut all = Vec::with_capacity(programs.len());
        for batch in programs.chunks(BATCH) {
            let text: String = batch.iter().map(Program::to_string).collect();
            if text.len() > INPUT_ROOM {
                return Err(io::Error::other("programs are too long"));
            }
            let printed = self.run_text(place, side, &text)?;
            let mut transcripts = split(&printed);
            transcripts.resize(batch.len(), Transcript::default());
            all.append(&mut transcripts);
        }
        Ok(all)
    }

    /// Those of `programs` whose sides differ, each with its index. Both sides run at once, each in a directory of its
    /// own.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn differences(&self, sides: [Side; 2], programs: &[Program]) -> io::Result<Vec<(usize, Difference)>> {
        let places = ["left", "right"].map(|name| self.directory.join(name));
        for place in &places {
            fs::create_dir_all(place)?;
        }
        let (left, right) = std::thread::scope(|scope| {
            let left = scope.spawn(|| self.run_in(&places[0], sides[0], programs));
            let right = self.run_in(&places[1], sides[1], programs);
            (left.join().unwrap_or_else(|_| Err(io::Error::other("the guest's keeper has panicked"))), right)
        });
        let (left, right) = (left?, right?);
        let both = programs.iter().zip(left.into_iter().zip(right)).enumerate();
        let both = both.map(|(index, (program, sides))| (index, (program, up_to_seam(program, sides))));
        Ok(both
            .filter(|(_, (_, (left, right)))| left != right)
            .map(|(index, (program, (left, right)))| (index, Difference { program: program.clone(), left, right }))
            .collect())
    }

    fn run_text(&self, place: &Path, side: Side, text: &str) -> io::Result<String> {
        let mut input = scratch(place, "input")?;
        input.write_all(text.as_bytes())?;
        input.rewind()?;
        let mut output = scratch(place, "output")?;
        let Some((program, args)) = self.guest.split_first() else { return Err(io::Error::other("no guest program")) };
        let mut command = Command::new(program);
        // The same arguments and environment on both sides: they lie on the guest's stack. A group of its own: an
        // interrupt from the terminal is for whoever compares.
        command.args(args).env_clear().current_dir(place).process_group(0).stdin(input).stdout(output.try_clone()?);
        command.args(side.flag());
        if side != Side::Traced {
            // SAFETY: personality(2) is one system call, allowed between fork and exec.
            unsafe { command.pre_exec(fix_layout) };
        }
        let mut child = command.stderr(Stdio::inherit()).spawn()?;
        let status = self.wait(&mut child)?;
        output.rewind()?;
        let mut printed = Vec::new();
        output.read_to_end(&mut printed)?;
        if printed.is_empty() && !status.success() {
            return Err(io::Error::other(format!("the guest did not run: {status}")));
        }
        // Regions of a file show where it lies, which is not the same on both sides.
        let place = place.to_string_lossy();
        Ok(String::from_utf8_lossy(&printed).replace(&format!(" {place}/"), " /"))
    }

    fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > self.timeout {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the guest does not end"));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(3));
        }
    }
}

fn scratch(place: &Path, name: &str) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).open(place.join(name))
}

/// Takes the randomness out of the layout of what this process executes next.
///
/// # Errors
/// What personality(2) says.
pub fn fix_layout() -> io::Result<()> {
    // SAFETY: changes how the next exec lays out its address space, nothing of the present one.
    let old = unsafe { libc::personality(0xffff_ffff) };
    let wanted = (old | libc::ADDR_NO_RANDOMIZE).cast_unsigned();
    // SAFETY: as above.
    if old < 0 || unsafe { libc::personality(wanted.into()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What each program printed.
fn split(printed: &str) -> Vec<Transcript> {
    let mut all: Vec<Transcript> = Vec::new();
    for line in printed.lines() {
        if line.starts_with("program ") {
            all.push(Transcript::default());
        } else if let Some(last) = all.last_mut() {
            last.push(
                line.strip_prefix("end ").map_or(line, |end| end.split_once(' ').map_or(end, |(_, status)| status)),
            );
        }
    }
    all
}

impl Transcript {
    /// Adds a line; a region that continues the one before it is merged into it.
    pub(super) fn push(&mut self, line: &str) {
        let merged = self.lines.last().and_then(|last| merge(last, line));
        match (merged, self.lines.last_mut()) {
            (Some(merged), Some(last)) => *last = merged,
            _ => self.lines.push(line.to_owned()),
        }
    }
}

/// One line for two neighbouring regions, if they are equal.
fn merge(first: &str, second: &str) -> Option<String> {
    let [first, second] = [region(first)?, region(second)?];
    let has_offsets = first.name.starts_with('/') && !first.is_private_zero();
    let continues =
        if has_offsets { first.offset.wrapping_add(first.end.wrapping_sub(first.start)) } else { first.offset };
    let name = common_name(first.name, second.name)?;
    let equal = first.end == second.start && (first.perms, continues) == (second.perms, second.offset);
    let MapLine { start, perms, offset, .. } = first;
    equal.then(|| format!("map {start:x}-{:x} {perms} {offset:x} {name}", second.end))
}

/// The name of a region that is made of two. The kernel names the heap after where it lies: a seam at its edge, which
/// only one side may have, leaves one part of what is one on the other side without that name.
fn common_name<'a>(first: &'a str, second: &'a str) -> Option<&'a str> {
    match (first, second) {
        ("[heap]", "") | ("", "[heap]") => Some("[heap]"),
        _ => (first == second).then_some(first),
    }
}

pub(super) fn region(line: &str) -> Option<MapLine<'_>> {
    let words = line.strip_prefix("map ")?;
    let (bounds, rest) = words.split_once(' ')?;
    let (perms, rest) = rest.split_once(' ')?;
    let (offset, name) = rest.split_once(' ').unwrap_or((rest, ""));
    let (start, end) = bounds.split_once('-')?;
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    Some(MapLine { start: hex(start)?, end: hex(end)?, perms, offset: hex(offset)?, name })
}

impl fmt::Display for Difference {
    /// The steps with what both sides answered, and the lines of states that differ: `-` only the first side, `+`
    /// only the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.program.steps.iter().enumerate() {
            writeln!(f, "  step {index}: {step}")?;
        }
        for (mark, line) in self.aligned() {
            let answer = line.starts_with(|first: char| first.is_ascii_digit()) || line.starts_with("child");
            if mark != ' ' || answer {
                writeln!(f, "{mark} {line}")?;
            }
        }
        Ok(())
    }
}

impl Difference {
    /// The call that differs first and how, without values, so that differences with one cause have one name.
    pub fn kind(&self) -> String {
        let end = String::new();
        let longest = self.left.lines.len().max(self.right.lines.len());
        let at = |side: &Transcript, index: usize| side.lines.get(index).unwrap_or(&end).clone();
        let first = (0..longest).map(|index| (at(&self.left, index), at(&self.right, index)));
        let Some((left, right)) = first.into_iter().find(|(left, right)| left != right) else { return String::new() };
        let step = left.split(' ').next().and_then(|index| index.parse::<usize>().ok());
        match step.and_then(|index| self.program.steps.get(index)) {
            Some(step) => format!("{} {} / {}", step.call.name(), answer(&left), answer(&right)),
            None => format!("state {} / {}", word(&left), word(&right)),
        }
    }

    /// The lines of both sides, aligned by their longest common subsequence: those of both with a blank, those of the
    /// first side only with `-`, those of the second only with `+`.
    pub fn aligned(&self) -> Vec<(char, &str)> {
        let (left, right) = (&self.left.lines, &self.right.lines);
        let width = right.len() + 1;
        let mut longest = vec![0_u32; (left.len() + 1) * width];
        for i in (0..left.len()).rev() {
            for j in (0..right.len()).rev() {
                longest[i * width + j] = if left[i] == right[j] {
                    longest[(i + 1) * width + j + 1] + 1
                } else {
                    longest[(i + 1) * width + j].max(longest[i * width + j + 1])
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        let mut lines = Vec::new();
        while i < left.len() || j < right.len() {
            if i < left.len() && j < right.len() && left[i] == right[j] {
                lines.push((' ', left[i].as_str()));
                (i, j) = (i + 1, j + 1);
            } else if j == right.len() || i < left.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1] {
                lines.push(('-', left[i].as_str()));
                i += 1;
            } else {
                lines.push(('+', right[j].as_str()));
                j += 1;
            }
        }
        lines
    }
}

/// What a step's line tells, without values and addresses.
fn answer(line: &str) -> String {
    let words = line.split(' ').skip(1).filter(|word| !word.starts_with("0x") && *word != "at");
    words.collect::<Vec<_>>().join(" ")
}

/// What a line of the state is about.
fn word(line: &str) -> &str {
    line.split(' ').next().unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::super::program::{Call, Step};
    use super::*;

    fn transcript(lines: &[&str]) -> Transcript {
        let mut transcript = Transcript::default();
        lines.iter().for_each(|line| transcript.push(line));
        transcript
    }

    #[test]
    fn equal_neighbours_are_merged() {
        let whole = transcript(&["map 1000-4000 rw-p 0 ", "map 4000-7000 rw-s 2000 /memfd:x (deleted)"]);
        let parts = ["map 1000-2000 rw-p 0 ", "map 2000-4000 rw-p 0 ", "map 4000-5000 rw-s 2000 /memfd:x (deleted)"];
        let mut split = transcript(&parts);
        assert_ne!(split, whole);
        split.push("map 5000-7000 rw-s 3000 /memfd:x (deleted)");
        assert_eq!(split, whole);
        for other in ["map 7000-8000 rw-s 6000 /memfd:x (deleted)", "map 8000-9000 rw-s 5000 /memfd:x (deleted)"] {
            let mut longer = whole.clone();
            longer.push(other);
            assert_eq!(longer.lines.len(), 3, "{other}");
        }
    }

    #[test]
    fn the_heap_is_one_with_what_it_is_part_of() {
        let whole = transcript(&["map 1000-4000 rw-p 0 [heap]"]);
        for names in [["[heap]", ""], ["", "[heap]"], ["[heap]", "[heap]"]] {
            let [first, second] = names;
            let first = format!("map 1000-2000 rw-p 0 {first}");
            assert_eq!(transcript(&[&first, &format!("map 2000-4000 rw-p 0 {second}")]), whole, "{names:?}");
        }
        assert_eq!(transcript(&["map 1000-2000 rw-p 0 [heap]", "map 2000-3000 rw-p 0 [stack]"]).lines.len(), 2);
    }

    #[test]
    fn output_is_split_by_program() {
        let printed = "program 0\n0 = 0x1\nend 0 0x0\nprogram 1\n0 ! EINVAL\n";
        let expected = [transcript(&["0 = 0x1", "0x0"]), transcript(&["0 ! EINVAL"])];
        assert_eq!(split(printed), expected);
    }

    #[test]
    fn differences_have_kinds() {
        let program = Program { steps: vec![Step::new(Call::Brk, &[])] };
        let kind = |left: &[&str], right: &[&str]| {
            Difference { program: program.clone(), left: transcript(left), right: transcript(right) }.kind()
        };
        assert_eq!(kind(&["0 = 0x5"], &["0 = 0x6"]), "brk = / =");
        assert_eq!(kind(&["0 = 0x5"], &["0 ! ENOMEM"]), "brk = / ! ENOMEM");
        assert_eq!(kind(&["0 = 0x5", "map 1-2 r"], &["0 = 0x5"]), "state map / ");
    }

    #[test]
    fn a_difference_is_shown() {
        let left = transcript(&["0 = 0x0", "map 1000-2000 rw-p 0 ", "break = 0x9", "0x0"]);
        let right = transcript(&["0 ! ENOMEM", "map 1000-2000 rw-p 0 ", "break = 0x9", "0x0"]);
        let shown = Difference { program: Program::default(), left, right }.to_string();
        assert_eq!(shown, "- 0 = 0x0\n+ 0 ! ENOMEM\n  0x0\n");
    }
}
