//! Compares the manager's map with the host's list, and its sums with the host's.
//!
//! Both are brought to one form first: what only one side tells apart (names of anonymous memory, growth
//! downwards, which open file a map was made from) is left out, and neighbours that are then equal are
//! joined.

use std::fmt;
use std::fs;

use pagewarden::object::FileId;
use pagewarden::{ObjectKind, PAGE_SIZE, PageManager, PageRange, Prot, Region, VirtAddr, Vmmap};

use super::ptrace::Tid;
use crate::proc_maps::MapsEntry;

/// Lines shown before and after a difference.
const CONTEXT: usize = 2;

/// What a range shows.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    Anonymous,
    /// A private map of `/dev/zero`: the host's offset changes when it moves before it was touched.
    ZeroPages,
    SharedAnonymous,
    SysV,
    Special,
    /// A file and its path.
    File(FileId, String),
}

/// A run of pages in the common form.
#[derive(Clone, Debug)]
struct Line {
    range: PageRange,
    prot: Prot,
    shared: bool,
    /// In bytes; 0 where the host shows none.
    offset: u64,
    content: Content,
}

impl Line {
    fn is_followed_by(&self, next: &Self) -> bool {
        let offset =
            if self.is_plain() || self.is_private_zero() { 0 } else { self.offset.wrapping_add(self.range.bytes()) };
        self.range.end() == next.range.start()
            && self.prot == next.prot
            && self.shared == next.shared
            && self.content == next.content
            && self.content != Content::Special
            && offset == next.offset
    }

    /// Whether it is a private map of `/dev/zero`: a move gives it a new offset if none of its pages has been written,
    /// which only the host knows.
    fn is_private_zero(&self) -> bool {
        !self.shared && matches!(&self.content, Content::File(_, path) if path == "/dev/zero")
    }

    fn without_unknown_offset(mut self) -> Self {
        if self.is_private_zero() {
            self.offset = 0;
        }
        self
    }

    fn is_plain(&self) -> bool {
        matches!(self.content, Content::Anonymous | Content::ZeroPages | Content::Special)
    }

    /// Whether both describe the same; a file counts as the same by number or, on file systems that show
    /// other numbers to stat(2), by path.
    fn agrees_with(&self, other: &Self) -> bool {
        let same_content = match (&self.content, &other.content) {
            (Content::File(a, path), Content::File(b, other_path)) => a == b || path == other_path,
            (a, b) => a == b,
        };
        same_content
            && (self.range, self.prot, self.shared, self.offset)
                == (other.range, other.prot, other.shared, other.offset)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sharing = if self.shared { 's' } else { 'p' };
        write!(f, "{} {}{sharing} {:08x} ", self.range, self.prot, self.offset)?;
        match &self.content {
            Content::Anonymous => f.write_str("anonymous"),
            Content::ZeroPages => f.write_str("/dev/zero"),
            Content::SharedAnonymous => f.write_str("shared anonymous"),
            Content::SysV => f.write_str("System V segment"),
            Content::Special => f.write_str("of the host"),
            Content::File(file, path) => write!(f, "{:x}:{} {path}", file.device, file.inode),
        }
    }
}

fn ours(range: PageRange, region: &Region) -> Line {
    let content = match region.object().map(|object| (object.kind(), object.name())) {
        None | Some((ObjectKind::NamedAnonymous, _)) => Content::Anonymous,
        Some((ObjectKind::SharedAnonymous, _)) => Content::SharedAnonymous,
        Some((ObjectKind::SysV { .. }, _)) => Content::SysV,
        Some((ObjectKind::Special | ObjectKind::Capability, _)) => Content::Special,
        Some((ObjectKind::ZeroDevice(_), _)) if !region.is_shared() => Content::ZeroPages,
        Some((
            ObjectKind::File(file) | ObjectKind::Device(file) | ObjectKind::ZeroDevice(file) | ObjectKind::Memfd(file),
            name,
        )) => Content::File(*file, name.to_owned()),
    };
    let mut line = Line { range, prot: region.prot, shared: region.is_shared(), offset: 0, content };
    if !line.is_plain() {
        line.offset = region.page_offset(range.start()).wrapping_mul(PAGE_SIZE);
    }
    line
}

fn theirs(entry: &MapsEntry) -> Line {
    let file = FileId { device: entry.device, inode: entry.inode };
    let content = if entry.is_special() {
        Content::Special
    } else if file == (FileId { device: 0, inode: 0 }) {
        Content::Anonymous
    } else if entry.name == "/dev/zero (deleted)" || entry.name.starts_with("[anon_shmem:") {
        Content::SharedAnonymous
    } else if entry.name == "/dev/zero" && !entry.shared {
        Content::ZeroPages
    } else if entry.name.starts_with("/SYSV") {
        Content::SysV
    } else {
        Content::File(file, entry.name.clone())
    };
    let mut line = Line { range: entry.range, prot: entry.prot, shared: entry.shared, offset: entry.offset, content };
    if line.is_plain() {
        line.offset = 0;
    }
    line
}

fn joined(lines: impl Iterator<Item = Line>) -> Vec<Line> {
    let mut joined: Vec<Line> = Vec::new();
    for line in lines.map(Line::without_unknown_offset) {
        if let Some(last) = joined.last_mut()
            && last.is_followed_by(&line)
            && let Some(range) = PageRange::new(last.range.start(), line.range.end())
        {
            last.range = range;
        } else {
            joined.push(line);
        }
    }
    joined
}

/// The first difference between the manager's map and the host's, in words.
pub(crate) fn difference(map: &Vmmap, host: &[MapsEntry], task_end: VirtAddr) -> Option<String> {
    let ours = joined(map.iter().map(|entry| ours(entry.range, entry.region)));
    let theirs = joined(host.iter().filter(|entry| entry.range.end() <= task_end).map(theirs));
    let agreeing = ours.iter().zip(&theirs).take_while(|(a, b)| a.agrees_with(b)).count();
    if agreeing == ours.len() && agreeing == theirs.len() {
        return None;
    }
    let mut text = String::new();
    for (who, lines) in [("pagewarden", &ours), ("the host", &theirs)] {
        text.push_str(&format!("{who} has\n"));
        let shown = lines.iter().enumerate().skip(agreeing.saturating_sub(CONTEXT)).take(2 * CONTEXT + 1);
        for (at, line) in shown {
            text.push_str(&format!("{} {line}\n", if at == agreeing { '>' } else { ' ' }));
        }
        if lines.len() <= agreeing {
            text.push_str("> nothing more\n");
        }
    }
    Some(text)
}

/// Where the manager's sums of pages differ from the host's for thread `tid`, in words.
pub(super) fn sums_difference<P>(manager: &PageManager<P>, tid: Tid) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let host = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let totals = manager.totals();
    let sums = [
        ("VmSize:", totals.virtual_pages),
        ("VmLck:", manager.locked_pages()),
        ("VmData:", totals.data_pages),
        ("VmStk:", totals.stack_pages),
    ];
    sums.into_iter().find_map(|(name, pages)| {
        let (ours, theirs) = (pages * PAGE_SIZE / 1024, host(name)?);
        (ours != theirs).then(|| format!("{name} pagewarden has {ours} kB, the host {theirs} kB\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagewarden::{Backing, MemoryObject, PageCount, RegionFlags};

    const END: VirtAddr = VirtAddr::new(0x7fff_ffff_f000);

    fn map(pieces: &[(u64, u64, Region)]) -> Vmmap {
        let mut map = Vmmap::new(PageCount::new(256));
        for (first, pages, region) in pieces {
            map.insert(PageRange::from_pages(*first, PageCount::new(*pages)).unwrap(), region.clone()).unwrap();
        }
        map
    }

    fn host(text: &str) -> Vec<MapsEntry> {
        crate::proc_maps::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn equal_neighbours_count_as_one_on_both_sides() {
        let (plain, mut other) = (Region::anonymous(Prot::READ), Region::anonymous(Prot::READ));
        other.flags |= RegionFlags::NO_RESERVE;
        let ours = map(&[(1, 1, plain), (2, 1, other)]);
        assert_eq!(difference(&ours, &host("1000-3000 r--p 0 0:0 0 \n"), END), None);
        assert_eq!(difference(&ours, &host("1000-2000 r--p 0 0:0 0\n2000-3000 r--p 0 0:0 0 [heap]\n"), END), None);
    }

    #[test]
    fn bounds_rights_sharing_and_offset_matter() {
        let file = FileId { device: libc::makedev(8, 1), inode: 77 };
        let mut region = Region::anonymous(Prot::READ);
        region.backing = Backing::Object(MemoryObject::new(ObjectKind::File(file), "/a"));
        region.delta = 2_u64.wrapping_sub(1);
        let ours = map(&[(1, 2, region)]);
        assert_eq!(difference(&ours, &host("1000-3000 r--p 2000 8:1 77 /a\n"), END), None);
        assert_eq!(difference(&ours, &host("1000-3000 r--p 2000 0:1f 5 /a\n"), END), None, "same path");
        for wrong in ["1000-4000 r--p 2000 8:1 77 /a", "1000-3000 rw-p 2000 8:1 77 /a", "1000-3000 r--s 2000 8:1 77 /a"]
        {
            assert!(difference(&ours, &host(wrong), END).is_some(), "{wrong}");
        }
        for wrong in ["1000-3000 r--p 3000 8:1 77 /a", "1000-3000 r--p 2000 8:1 78 /b", ""] {
            assert!(difference(&ours, &host(wrong), END).is_some(), "{wrong}");
        }
        let more = "1000-3000 r--p 2000 8:1 77 /a\n3000-4000 r--p 0 0:0 0\n";
        let words = difference(&ours, &host(more), END).unwrap();
        assert!(words.contains("> nothing more") && words.contains("> 3000-4000 r--p"), "{words}");
    }

    #[test]
    fn offsets_of_private_zero_pages_are_not_known() {
        let zero = FileId { device: libc::makedev(0, 6), inode: 4 };
        let mut region = Region::anonymous(Prot::READ);
        region.backing = Backing::Object(MemoryObject::new(ObjectKind::ZeroDevice(zero), "/dev/zero"));
        let ours = map(&[(1, 2, region)]);
        assert_eq!(difference(&ours, &host("1000-3000 r--p 555000 0:6 4 /dev/zero\n"), END), None);
        assert_eq!(
            difference(&ours, &host("1000-2000 r--p 0 0:6 4 /dev/zero\n2000-3000 r--p 7000 0:6 4 /dev/zero\n"), END),
            None
        );
        assert!(difference(&ours, &host("1000-3000 r--s 555000 0:6 4 /dev/zero\n"), END).is_some());
    }

    #[test]
    fn a_file_is_followed_only_by_its_next_page() {
        let text = "1000-2000 r--p 0 8:1 77 /a\n2000-3000 r--p 1000 8:1 77 /a\n3000-4000 r--p 1000 8:1 77 /a\n";
        assert_eq!(joined(host(text).iter().map(theirs)).len(), 2);
    }
}
