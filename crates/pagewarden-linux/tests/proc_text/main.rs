//! The text of `/proc/PID/maps` and `smaps` that a manager writes is the host's, byte for byte, over random mappings.
//!
//! What the manager cannot know is taken from the host or put aside, and nothing else is:
//! * equal neighbours that the host keeps apart are one region here; the host's blocks are merged;
//! * the figures of what is resident are the host's, which is how a platform would give them;
//! * shared anonymous memory has an inode that nobody is told.
//!
//! `PAGEWARDEN_SEED` sets the first seed, `PAGEWARDEN_TEXT_CASES` how many cases there are.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod blocks;
#[path = "../common/child.rs"]
mod child;
mod host;
#[path = "../common/setting.rs"]
mod setting;

use pagewarden::linux::proc_text::PageUsage;
use pagewarden::linux::{MapFlags, MapSource, MmapRequest, OpenFile, Request};
use pagewarden::manager::{Layout, NoReserve, Policy, Privileges, ResourceLimits, SpaceConfig};
use pagewarden::{
    Errno, Limits, MemoryObject, ObjectKind, Op, PAGE_SHIFT, PAGE_SIZE, PageManagementProvider, PageManager, PageRange,
    Region, ResourceLedger, VirtAddr,
};
use pagewarden_linux::oracle::generate::Rng;

use blocks::Block;
use host::Host;
use setting::setting;

/// Where the mappings lie: nothing else is near.
const WINDOW: u64 = 0x1000_0000_0000;
/// Pages of the window.
const PAGES: u64 = 200;
/// Cases a child does.
const BATCH: u64 = 100;

/// A platform that does nothing: the host has it done already.
struct Nowhere;

impl PageManagementProvider for Nowhere {
    fn run(&mut self, _: &Op, _: pagewarden::provider::Maps<'_>) -> Result<(), Errno> {
        Ok(())
    }
}

#[test]
fn text_is_that_of_the_host() {
    let first = setting("PAGEWARDEN_SEED", 1);
    let cases = setting("PAGEWARDEN_TEXT_CASES", 400);
    let mut counts = [0; 3];
    for batch in 0..cases.div_ceil(BATCH) {
        let of_batch = child::in_child(|| run_batch(first + batch * BATCH));
        let [calls, regions, kinds] = of_batch;
        counts = [counts[0] + calls, counts[1] + regions, counts[2] | kinds];
    }
    let [calls, regions, kinds] = counts;
    println!("{calls} calls, {regions} regions compared, {} kinds of flags", kinds.count_ones());
    assert!(regions > cases * 4 && kinds.count_ones() > 15, "the cases say too little");
}

/// Calls, regions, and which letters of `VmFlags` were seen, as a bit each.
fn run_batch(seed: u64) -> [u64; 3] {
    let host = Host::new();
    let mut counts = [0; 3];
    for seed in seed..seed + BATCH {
        Case::new(seed, &host).run(&mut counts);
    }
    counts
}

struct Case<'a> {
    seed: u64,
    rng: Rng,
    host: &'a Host,
    manager: PageManager<Nowhere>,
    story: Vec<String>,
}

impl<'a> Case<'a> {
    fn new(seed: u64, host: &'a Host) -> Self {
        let manager = PageManager::new(config(host), Nowhere);
        Self { seed, rng: Rng::new(seed), host, manager, story: Vec::new() }
    }

    fn run(mut self, counts: &mut [u64; 3]) {
        for _ in 0..4 + self.rng.below(20) {
            let request = self.some_request();
            self.call(&request);
            counts[0] += 1;
        }
        self.compare_maps();
        counts[1] += self.compare_smaps(&mut counts[2]);
        self.host.unmap(WINDOW, PAGES << PAGE_SHIFT);
    }

    fn call(&mut self, request: &Request) {
        let found = self.host.call(request);
        let ours = self.manager.call(request).map_err(|refusal| i32::from(refusal.errno.raw()));
        self.story.push(format!("{request:x?}: host {found:x?}, manager {ours:x?}"));
        // Pages without rights cannot be made resident, which is the platform's to say; they are locked all the same.
        let is_platforms = matches!(request, Request::Mlock { .. }) && found.is_err();
        assert!(is_platforms || ours == found, "{}", self.told());
        self.touch();
    }

    /// Memory that is charged for is touched, so that it stays charged: the manager does not know what was.
    fn touch(&self) {
        for entry in self.manager.map().iter() {
            let is_private = !entry.region.is_shared();
            if is_private && entry.region.prot.contains(pagewarden::Prot::WRITE) {
                self.host.touch(entry.range);
            }
        }
    }

    fn told(&self) -> String {
        format!("PAGEWARDEN_SEED={} PAGEWARDEN_TEXT_CASES=1\n{}", self.seed, self.story.join("\n"))
    }

    fn some_request(&mut self) -> Request {
        let (addr, len) = self.some_part();
        match self.rng.below(20) {
            0..=7 => self.some_mapping(),
            8..=10 => Request::Mprotect { addr, len, prot: self.rng.pick(&[0, 1, 2, 3, 5, 7]) },
            11..=14 => {
                let advice = self.rng.pick(&self.host.advices);
                Request::Madvise { addr, len, advice }
            }
            15 => Request::Mlock { addr, len, flags: self.rng.below(2) },
            16 => Request::Munlock { addr, len },
            17 if self.host.has_names => {
                let name = self.rng.pick(&["", "heap", "a name of [no] consequence"]);
                let name = (!name.is_empty())
                    .then(|| MemoryObject::new(ObjectKind::NamedAnonymous, name.replace(['[', ']'], "")));
                Request::NameAnonymous { addr, len, name }
            }
            18 => Request::Munmap { addr, len },
            _ => self.some_mapping(),
        }
    }

    fn some_mapping(&mut self) -> Request {
        let addr = WINDOW + (self.rng.below(PAGES - 10) << PAGE_SHIFT);
        let len = (1 + self.rng.below(8)) << PAGE_SHIFT;
        let prot = self.rng.pick(&[0, 1, 3, 3, 3, 5, 7]);
        let anonymous = MapFlags::FIXED | MapFlags::ANONYMOUS;
        let (flags, is_file) = self.rng.weighted(&[
            (30, (anonymous | MapFlags::PRIVATE, false)),
            (6, (anonymous | MapFlags::PRIVATE | MapFlags::NO_RESERVE, false)),
            (6, (anonymous | MapFlags::PRIVATE | MapFlags::STACK, false)),
            (6, (anonymous | MapFlags::PRIVATE | MapFlags::GROWS_DOWN, false)),
            (6, (anonymous | MapFlags::PRIVATE | MapFlags::LOCKED, false)),
            (4, (anonymous | MapFlags::DROPPABLE, false)),
            (10, (anonymous | MapFlags::SHARED, false)),
            (20, (MapFlags::FIXED | MapFlags::PRIVATE, true)),
            (20, (MapFlags::FIXED | MapFlags::SHARED, true)),
        ]);
        let (source, offset) = if is_file {
            let file = self.rng.below(self.host.files.len() as u64);
            let open = self.host.files[usize::try_from(file).unwrap()].open.clone();
            (MapSource::File(open), self.rng.below(4) << PAGE_SHIFT)
        } else {
            (MapSource::Anonymous, 0)
        };
        Request::Mmap(MmapRequest { addr, len, prot, flags, source, offset })
    }

    fn some_part(&mut self) -> (u64, u64) {
        let ranges: Vec<PageRange> = self.manager.map().iter().map(|entry| entry.range).collect();
        if ranges.is_empty() {
            return (WINDOW, PAGE_SIZE);
        }
        let range = self.rng.pick(&ranges);
        let first = self.rng.below(range.pages().get());
        let pages = 1 + self.rng.below(range.pages().get() - first);
        (range.start().as_u64() + (first << PAGE_SHIFT), pages << PAGE_SHIFT)
    }

    fn compare_maps(&self) {
        let host: Vec<String> = self.host_blocks().into_iter().map(|block| block.line).collect();
        let ours: Vec<String> = self.manager.maps_text().lines().map(blocks::without_secret).collect();
        assert_eq!(ours, host, "{}", self.told());
    }

    fn host_blocks(&self) -> Vec<Block> {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let window = WINDOW..WINDOW + (PAGES << PAGE_SHIFT);
        blocks::merge(blocks::parse(&text).into_iter().filter(|block| window.contains(&block.start)))
    }

    /// Returns how many regions there are.
    fn compare_smaps(&self, seen: &mut u64) -> u64 {
        let host = self.host_blocks();
        let mut usage = |range: PageRange, _: &Region| -> PageUsage {
            host.iter().find(|block| block.start == range.start().as_u64()).map(Block::usage).unwrap_or_default()
        };
        let mut text = String::new();
        self.manager.write_smaps(&mut text, &mut usage).unwrap();
        let text: Vec<String> = text.lines().map(blocks::without_secret).collect();
        let expected: Vec<String> = host.iter().flat_map(Block::lines).collect();
        assert_eq!(text, expected, "{}", self.told());
        for letters in host.iter().flat_map(|block| block.flags().split(' ').map(str::to_owned).collect::<Vec<_>>()) {
            *seen |= 1 << (blocks::number_of(&letters) % 64);
        }
        host.len() as u64
    }
}

fn config(host: &Host) -> SpaceConfig {
    SpaceConfig {
        layout: Layout { min_fixed_addr: VirtAddr::new(0x1000), ..Layout::X86_64 },
        limits: ResourceLimits { stack: u64::MAX, ..ResourceLimits::DEFAULT },
        privileges: Privileges::LOCK | Privileges::ADMIN,
        features: host.features,
        policy: Policy { no_reserve: NoReserve::Free, ..Policy::default() },
        ..SpaceConfig::new(Layout::X86_64, ResourceLedger::new(Limits::UNLIMITED).root().child(Limits::UNLIMITED))
    }
}

/// A file that requests map.
struct File {
    fd: std::os::fd::OwnedFd,
    open: OpenFile,
}

#[test]
fn this_process_has_the_lines_of_the_host() {
    let [lines] = child::in_child(|| {
        let text = std::fs::read("/proc/self/maps").unwrap();
        let config = host::config_of_this_process(Host::new().features);
        let mut manager = PageManager::new(config, Nowhere);
        let end = manager.config().layout.task_end;
        let mut objects = Vec::new();
        for entry in
            pagewarden_linux::proc_maps::parse(&text).unwrap().into_iter().filter(|entry| entry.range.end() <= end)
        {
            manager.import(entry.range, host::region_of(&entry, &mut objects)).unwrap();
        }
        let ours = manager.maps_text();
        let host = String::from_utf8(text).unwrap();
        let host = blocks::merge(blocks::parse(&host).into_iter().filter(|block| block.start < end.as_u64()));
        let host: Vec<&str> = host.iter().map(|block| block.line.as_str()).collect();
        let lines: Vec<&str> = ours.lines().collect();
        assert_eq!(lines, host);
        assert!(
            lines.iter().any(|line| line.ends_with(" [heap]")) && lines.iter().any(|line| line.ends_with(" [stack]"))
        );
        [lines.len() as u64]
    });
    println!("{lines} lines");
}
