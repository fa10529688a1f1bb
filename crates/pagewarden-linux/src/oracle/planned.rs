//! The planner against the kernel, without a guest: what [`PageManager`] answers, on a platform that does nothing, is
//! put beside what the host answered.
//!
//! What only a platform can know is taken from the host's transcript: contents, faults, which steps were skipped,
//! and refusals that come from populating or from advice. The program must not fork.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use pagewarden::linux::{self, FileTraits, Files, OpenFile, Segment};
use pagewarden::manager::{Break, Layout, Policy, Privileges, ResourceLimits, SpaceConfig};
use pagewarden::object::FileId;
use pagewarden::provider::{Op, PageManagementProvider};
use pagewarden::vmmap::Direction;
use pagewarden::{
    Errno, Limits, MemoryObject, ObjectKind, PageCount, PageManager, PageRange, Prot, Region, RegionFlags,
    ResourceLedger, VirtAddr,
};

use super::compare::{Difference, Runner, Side, Transcript, region};
use super::guard::SEGMENT_PAGES;
use super::outcome::Outcome;
use super::program::{Arg, Base, Call, FileKind, PAGE, Program, Step, WINDOW};
use super::state::MapLine;

/// The end of the space, with four levels of page tables.
const TASK_END: u64 = 0x7fff_ffff_f000;

/// Compares planner and host.
#[derive(Debug)]
pub struct Plans<'a> {
    runner: &'a Runner,
    /// What a guest has mapped before its program starts.
    initial: Transcript,
}

impl<'a> Plans<'a> {
    /// Looks at how a guest of `runner` starts.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn new(runner: &'a Runner) -> io::Result<Self> {
        let state = Program { steps: vec![Step::new(Call::State, &[])] };
        let initial = runner.run(Side::Native, &[state])?.pop().unwrap_or_default();
        Ok(Self { runner, initial })
    }

    /// Those of `programs` for which the planner and the host differ. Steps that need a guest are left out of them.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn differences(&self, programs: &[Program]) -> io::Result<Vec<(usize, Difference)>> {
        let programs: Vec<Program> = programs.iter().map(plannable).collect();
        let natives = self.runner.run(Side::Native, &programs)?;
        let file = self.runner.directory.join("oracle.file");
        let mut found = Vec::new();
        for (index, (program, left)) in programs.into_iter().zip(natives).enumerate() {
            let drops = program.steps.first().is_some_and(|step| step.call == Call::DropCapabilities);
            let privileges = if drops { Privileges::empty() } else { Privileges::all() };
            let right = Planner::new(&self.initial, privileges, &file.to_string_lossy()).run(&program, &left);
            if left != right {
                found.push((index, Difference { program, left, right }));
            }
        }
        Ok(found)
    }
}

/// `program` without forks, without touches, which may grow a region, and without `/dev/zero`, whose mappings a
/// platform describes.
fn plannable(program: &Program) -> Program {
    program.without(|index| {
        let step = &program.steps[index];
        matches!(step.call, Call::Fork | Call::Read | Call::Write) || step.args[4] == Arg::File(FileKind::Zero)
    })
}

/// A platform that does nothing, but refuses to promise more private memory than any host has.
#[derive(Debug, Default)]
struct Nothing {
    /// What the next operation fails with: the host said so.
    refusal: Option<Errno>,
}

impl PageManagementProvider for Nothing {
    fn run(&mut self, op: &Op) -> Result<(), Errno> {
        if let Some(errno) = self.refusal.take() {
            return Err(errno);
        }
        let excess = |range: &PageRange| range.bytes() > 20 << 30;
        match op {
            Op::Map { range, region, .. } if excess(range) => {
                let object = region.object().map(|object| object.kind());
                let private = region.prot.contains(Prot::WRITE) && !region.is_shared();
                let promised = private || object == Some(&ObjectKind::SharedAnonymous);
                if promised && !region.flags.contains(RegionFlags::NO_RESERVE) { Err(Errno::NoMem) } else { Ok(()) }
            }
            Op::Grow { to, .. } if excess(to) => Err(Errno::NoMem),
            Op::SetBreak { from, to } if to.as_u64().saturating_sub(from.as_u64()) > 20 << 30 => Err(Errno::NoMem),
            _ => Ok(()),
        }
    }
}

struct KnownFiles {
    file: Arc<MemoryObject>,
    memfd: Arc<MemoryObject>,
    segment: Arc<MemoryObject>,
}

const fn number(kind: FileKind) -> i32 {
    kind as i32
}

impl Files for KnownFiles {
    fn open_file(&mut self, fd: i32) -> Result<OpenFile, Errno> {
        let both = FileTraits::READABLE | FileTraits::WRITABLE;
        let disk = FileTraits::HUGE_ALIGNED;
        let (object, traits) = match FileKind::ALL.iter().find(|kind| number(**kind) == fd) {
            Some(FileKind::ReadWrite) => (&self.file, both | disk),
            Some(FileKind::ReadOnly) => (&self.file, FileTraits::READABLE | disk),
            Some(FileKind::WriteOnly) => (&self.file, FileTraits::WRITABLE | disk),
            Some(FileKind::Memfd) => (&self.memfd, both),
            Some(FileKind::Directory) => (&self.file, FileTraits::READABLE | FileTraits::NOT_MAPPABLE),
            // Pipes lie on a file system that is mounted noexec.
            Some(FileKind::Pipe) => (&self.file, FileTraits::READABLE | FileTraits::NOT_MAPPABLE | FileTraits::NO_EXEC),
            _ => return Err(Errno::BadF),
        };
        Ok(OpenFile { object: Arc::clone(object), traits })
    }

    fn segment(&mut self, _id: i32) -> Result<Segment, Errno> {
        Ok(Segment { object: Arc::clone(&self.segment), pages: PageCount::new(SEGMENT_PAGES) })
    }

    fn string(&mut self, _addr: u64, _len_max: usize) -> Result<Vec<u8>, Errno> {
        Ok(b"oracle".to_vec())
    }
}

struct Planner {
    manager: PageManager<Nothing>,
    files: KnownFiles,
    limits: ResourceLimits,
    answers: HashMap<usize, u64>,
}

impl Planner {
    fn new(initial: &Transcript, privileges: Privileges, file: &str) -> Self {
        let ledger = ResourceLedger::new(Limits::UNLIMITED);
        let regions: Vec<MapLine<'_>> = initial.lines.iter().filter_map(|line| region(line)).collect();
        let heap = regions.iter().find(|region| region.name == "[heap]").map_or((0, 0), |heap| (heap.start, heap.end));
        let limits = ResourceLimits {
            address_space: soft_limit(libc::RLIMIT_AS),
            data: soft_limit(libc::RLIMIT_DATA),
            stack: soft_limit(libc::RLIMIT_STACK),
            locked: soft_limit(libc::RLIMIT_MEMLOCK),
        };
        let config = SpaceConfig {
            layout: Layout {
                task_end: VirtAddr::new(TASK_END),
                mmap_base: VirtAddr::new(TASK_END - (128 << 20)),
                bottom_up_base: VirtAddr::new(0x2aaa_aaaa_b000),
                direction: Direction::TopDown,
                min_addr: VirtAddr::new(PAGE),
            },
            brk: Break { start: VirtAddr::new(heap.0), current: VirtAddr::new(heap.1), data_bytes: 0x2000 },
            limits: limits.clone(),
            privileges,
            regions_max: 65530,
            policy: Policy::default(),
            account: ledger.root().clone(),
        };
        let mut manager = PageManager::new(config, Nothing::default());
        let mut objects: HashMap<&str, Arc<MemoryObject>> = HashMap::new();
        for line in regions.iter().filter(|line| line.name != "[vsyscall]") {
            let range = PageRange::new(VirtAddr::new(line.start), VirtAddr::new(line.end));
            if let Some(range) = range {
                // The lines do not overlap.
                let _ = manager.import(range, imported(line, &mut objects));
            }
        }
        let object = |kind, name: &str| MemoryObject::new(kind, name);
        let id = |inode| FileId { device: 1, inode };
        let segment = objects.get("/SYSV00000000 (deleted)").cloned();
        let files = KnownFiles {
            file: object(ObjectKind::File(id(1)), file),
            memfd: object(ObjectKind::Memfd(id(2)), "/memfd:oracle (deleted)"),
            segment: segment.unwrap_or_else(|| object(ObjectKind::SysV(0), "/SYSV00000000 (deleted)")),
        };
        Self { manager, files, limits, answers: HashMap::new() }
    }

    /// The transcript that the manager makes where `native` is the host's.
    fn run(&mut self, program: &Program, native: &Transcript) -> Transcript {
        let mut mine = Transcript::default();
        let mut in_maps = false;
        for line in &native.lines {
            let was_in_maps = std::mem::replace(&mut in_maps, line.starts_with("map "));
            let index = line.split_once(' ').and_then(|(index, rest)| Some((index.parse::<usize>().ok()?, rest)));
            if in_maps {
                if !was_in_maps {
                    self.write_maps(&mut mine);
                }
            } else if line.starts_with("break ") {
                mine.push(&format!("break {}", Outcome::Value(self.manager.program_break().as_u64())));
            } else if let Some((index, answer)) = index {
                mine.push(&format!("{index} {}", self.step(index, &program.steps[index], answer)));
            } else {
                mine.push(line);
            }
        }
        mine
    }

    fn write_maps(&self, mine: &mut Transcript) {
        for line in self.manager.maps_text().lines().filter_map(MapLine::parse) {
            let MapLine { start, end, perms, offset, name } = line;
            mine.push(&format!("map {start:x}-{end:x} {perms} {offset:x} {name}"));
        }
        mine.push("map ffffffffff600000-ffffffffff601000 --xp 0 [vsyscall]");
    }

    /// What the step answers, as text; `native` is what the host answered.
    fn step(&mut self, index: usize, step: &Step, native: &str) -> String {
        match step.call {
            _ if native == "skipped" => return native.to_owned(),
            Call::Limit => self.limit(step),
            _ => {}
        }
        let mut args = [0; 6];
        for (place, arg) in args.iter_mut().zip(step.used_args()) {
            match self.resolve(*arg) {
                Some(value) => *place = value,
                None => return Outcome::Skipped.to_string(),
            }
        }
        let [a, b, ..] = args;
        let decoded = match (step.call, step.call.number()) {
            (Call::Shmat, _) => linux::decode(libc::SYS_shmat.cast_unsigned(), [0, a, b, 0, 0, 0], &mut self.files),
            (_, Some(number)) => linux::decode(number.cast_unsigned(), args, &mut self.files),
            _ => return native.to_owned(),
        };
        self.manager.provider_mut().refusal = match (step.call, native) {
            // File systems without DAX refuse MAP_SYNC; each has a largest file; segments have modes.
            (Call::Mmap, "! EOPNOTSUPP") => Some(Errno::from_raw(95)),
            (Call::Mmap, "! EOVERFLOW") => Some(Errno::from_raw(75)),
            (Call::Shmat, "! EACCES") => Some(Errno::from_raw(13)),
            _ => None,
        };
        let answer = match decoded {
            Ok(Some(request)) => self.manager.call(&request).map_err(|refusal| refusal.errno),
            Ok(None) => return native.to_owned(),
            Err(errno) => Err(errno),
        };
        let by_platform = matches!(step.call, Call::Madvise | Call::Mlock | Call::Mlock2 | Call::Mlockall);
        match answer {
            Ok(_) if by_platform && native.starts_with('!') => native.to_owned(),
            Ok(value) => {
                self.answers.insert(index, value);
                Outcome::Value(value).to_string()
            }
            Err(errno) => Outcome::Error(i32::from(errno.raw())).to_string(),
        }
    }

    fn limit(&mut self, step: &Step) {
        let [Arg::Value(resource), Arg::Value(bytes), ..] = step.args else { return };
        let Ok(resource) = u32::try_from(resource) else { return };
        let bytes = bytes.min(hard_limit(resource));
        match resource {
            libc::RLIMIT_AS => self.limits.address_space = bytes,
            libc::RLIMIT_DATA => self.limits.data = bytes,
            libc::RLIMIT_MEMLOCK => self.limits.locked = bytes,
            _ => {}
        }
        self.manager.set_limits(self.limits.clone());
    }

    fn resolve(&self, arg: Arg) -> Option<u64> {
        Some(match arg {
            Arg::Value(value) => value,
            Arg::File(kind) => u64::from(number(kind).cast_unsigned()),
            Arg::At(Base::Window, delta) => WINDOW.wrapping_add_signed(delta),
            Arg::At(Base::Break, delta) => self.manager.program_break().as_u64().wrapping_add_signed(delta),
            Arg::At(Base::Answer(step), delta) => self.answers.get(&usize::from(step))?.wrapping_add_signed(delta),
        })
    }
}

/// What the manager imports for a line of the guest's list.
fn imported<'a>(line: &MapLine<'a>, objects: &mut HashMap<&'a str, Arc<MemoryObject>>) -> Region {
    let mut prot = Prot::empty();
    for (letter, right) in [('r', Prot::READ), ('w', Prot::WRITE), ('x', Prot::EXEC)] {
        prot.set(right, line.perms.contains(letter));
    }
    let mut region = Region::anonymous(prot);
    region.flags.set(RegionFlags::SHARED, line.perms.ends_with('s'));
    match line.name {
        "" | "[heap]" => return region,
        "[stack]" => {
            region.flags |= RegionFlags::GROWS_DOWN;
            return region;
        }
        "[vvar]" | "[vvar_vclock]" => region.flags |= RegionFlags::PFN_MAP | RegionFlags::DONT_EXPAND,
        "[vdso]" => region.flags |= RegionFlags::DONT_EXPAND,
        _ => {}
    }
    let inode = 1000 + objects.len() as u64;
    let object = objects.entry(line.name).or_insert_with(|| {
        let kind = match line.name {
            name if name.starts_with("/SYSV") => ObjectKind::SysV(0),
            name if name.starts_with('[') => ObjectKind::Special,
            _ => ObjectKind::File(FileId { device: 1, inode }),
        };
        MemoryObject::new(kind, line.name)
    });
    region.backing = pagewarden::Backing::Object(Arc::clone(object));
    region.delta = (line.offset / PAGE).wrapping_sub(line.start / PAGE);
    region
}

fn limits_of(resource: u32) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: u64::MAX, rlim_max: u64::MAX };
    // SAFETY: there is room for the two words.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    limit
}

fn soft_limit(resource: u32) -> u64 {
    limits_of(resource).rlim_cur
}

fn hard_limit(resource: u32) -> u64 {
    limits_of(resource).rlim_max
}
