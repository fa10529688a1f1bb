//! The map of a live process as `/proc/PID/smaps` shows it (proc_pid_smaps(5)).
//!
//! Owns the parser of that format, and of `/proc/PID/maps`, which is the same without the figures. Reading is a
//! courtesy to people who look at a process: nothing here feeds the manager.
//!
//! The host writes the list in pieces and the process goes on meanwhile, so two neighbours may be from different
//! moments. What is promised: each [`Mapping`] is one that the host has listed, and a process that was seen to end
//! while it was read is an error, not a short list.
//!
//! The host escapes a newline in a file's name as `\012` and nothing else, so a name that holds these four
//! characters looks the same as one that holds a newline; it is taken for a newline.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;

use pagewarden::Prot;

/// Who else sees a write to a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Nobody (`MAP_PRIVATE`).
    Private,
    /// All who map the same object (`MAP_SHARED`).
    Shared,
}

/// What a mapping is for, as far as the host tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Memory of the program break.
    Heap,
    /// The stack of the first thread.
    Stack,
    /// Private memory without a file, including what was named with `PR_SET_VMA_ANON_NAME`.
    Anonymous,
    /// Private memory without a file that may not be accessed: address space put aside, or a guard.
    Reserved,
    /// A file of a file system.
    File,
    /// Memory that processes share: anonymous, memfd or System V.
    Shared,
    /// A device, or another object of the kernel that can be mapped.
    Device,
    /// Pages that the kernel gives every process, such as the vdso.
    Kernel,
}

impl Kind {
    /// Every kind, in the order in which sums are shown.
    pub const ALL: [Self; 8] = [
        Self::Heap,
        Self::Stack,
        Self::Anonymous,
        Self::Reserved,
        Self::Shared,
        Self::File,
        Self::Device,
        Self::Kernel,
    ];

    /// The kind in a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Stack => "stack",
            Self::Anonymous => "anonymous",
            Self::Reserved => "reserved",
            Self::File => "file",
            Self::Shared => "shared",
            Self::Device => "device",
            Self::Kernel => "kernel",
        }
    }
}

/// What a mapping costs, in bytes. `None`: this kernel does not say, or the list was `/proc/PID/maps`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Resident pages of the usual sizes; huge pages of hugetlbfs are in the two `hugetlb` fields.
    pub rss: Option<u64>,
    /// Resident pages, each divided by the number of processes that map it.
    pub pss: Option<u64>,
    /// Resident, mapped by others too, not written to.
    pub shared_clean: Option<u64>,
    /// Resident, mapped by others too, written to.
    pub shared_dirty: Option<u64>,
    /// Resident, mapped here only, not written to.
    pub private_clean: Option<u64>,
    /// Resident, mapped here only, written to.
    pub private_dirty: Option<u64>,
    /// Resident and not a page of a file.
    pub anonymous: Option<u64>,
    /// Resident in transparent huge pages.
    pub anon_huge_pages: Option<u64>,
    /// Pages of hugetlbfs that others map too.
    pub shared_hugetlb: Option<u64>,
    /// Pages of hugetlbfs that are mapped here only.
    pub private_hugetlb: Option<u64>,
    /// Swapped out.
    pub swap: Option<u64>,
    /// Locked in memory.
    pub locked: Option<u64>,
}

impl Figures {
    /// Everything that is in memory, huge pages of hugetlbfs included.
    pub fn resident(&self) -> Option<u64> {
        let huge = self.shared_hugetlb.unwrap_or(0).saturating_add(self.private_hugetlb.unwrap_or(0));
        self.rss.map(|rss| rss.saturating_add(huge))
    }

    fn set(&mut self, field: &str, bytes: u64) {
        let slot = match field {
            "Rss" => &mut self.rss,
            "Pss" => &mut self.pss,
            "Shared_Clean" => &mut self.shared_clean,
            "Shared_Dirty" => &mut self.shared_dirty,
            "Private_Clean" => &mut self.private_clean,
            "Private_Dirty" => &mut self.private_dirty,
            "Anonymous" => &mut self.anonymous,
            "AnonHugePages" => &mut self.anon_huge_pages,
            "Shared_Hugetlb" => &mut self.shared_hugetlb,
            "Private_Hugetlb" => &mut self.private_hugetlb,
            "Swap" => &mut self.swap,
            "Locked" => &mut self.locked,
            _ => return,
        };
        *slot = Some(bytes);
    }
}

/// One line of `/proc/PID/maps` with the figures below it in smaps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The first byte.
    pub start: u64,
    /// The byte after the last; above `start`.
    pub end: u64,
    /// Access rights.
    pub prot: Prot,
    /// Who else sees a write.
    pub sharing: Sharing,
    /// Where in the file the mapping starts, in bytes.
    pub offset: u64,
    /// Major and minor number of the file's device; 0:0 without a file.
    pub device: (u32, u32),
    /// The file's inode number; 0 without a file.
    pub inode: u64,
    /// The path, or a name such as `[heap]`; empty if there is none.
    pub name: OsString,
    /// Whether the file has no name any more.
    pub deleted: bool,
    /// What it costs.
    pub figures: Figures,
    /// The two-letter flags of the kernel (`VmFlags`), such as `ac` for memory that is accounted.
    pub flags: Vec<String>,
}

impl Mapping {
    /// How many bytes of address space it takes.
    pub const fn size(&self) -> u64 {
        self.end - self.start
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        let name = self.name.as_encoded_bytes();
        let begins = |prefix: &str| name.starts_with(prefix.as_bytes());
        if name == b"[heap]" {
            Kind::Heap
        } else if begins("[stack") {
            Kind::Stack
        } else if begins("[anon_shmem:")
            || self.is_nameless_file()
            || (self.sharing == Sharing::Shared && name.is_empty())
        {
            Kind::Shared
        } else if name.is_empty() || begins("[anon:") {
            if self.prot.is_empty() { Kind::Reserved } else { Kind::Anonymous }
        } else if begins("[") {
            Kind::Kernel
        } else if begins("/dev/") && !begins("/dev/shm/") || !begins("/") && name.contains(&b':') {
            // The kernel's own are `anon_inode:[...]` and the like; a program in a cage has the name that it was given.
            Kind::Device
        } else {
            Kind::File
        }
    }

    /// Whether the object behind it is memory that the kernel keeps as a file which no directory ever held.
    fn is_nameless_file(&self) -> bool {
        let name = self.name.as_encoded_bytes();
        let prefixes: [&[u8]; 3] = [b"/memfd:", b"/SYSV", b"/anon_hugepage"];
        self.deleted && (name == b"/dev/zero" || prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }
}

/// A list that cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line} of the list of mappings cannot be understood: {text:?}")]
pub struct ParseError {
    /// Which line, counted from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

/// Why there is no map to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No process has this number.
    #[error("there is no process {0}")]
    NoProcess(i32),
    /// The host does not let us look.
    #[error("process {0} may not be looked at: it belongs to another user or is protected (try as root)")]
    NoPermission(i32),
    /// It is part of the kernel.
    #[error("process {0} is a kernel thread: it has no memory map of its own")]
    KernelThread(i32),
    /// It has ended and its parent has not collected it.
    #[error("process {0} is a zombie: it has ended, and its memory is gone")]
    Zombie(i32),
    /// It ended during the reading.
    #[error("process {0} ended while its map was read")]
    Ended(i32),
    /// The host's list is not as documented.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Something that should not fail did.
    #[error("cannot read the map of process {pid}: {source}")]
    Host {
        /// The process.
        pid: i32,
        /// What the host said.
        source: io::Error,
    },
}

/// The mappings of process `pid`, lowest first: from smaps, or from maps on a kernel that is built without smaps.
///
/// # Errors
/// Why there is nothing to show; a process that ends meanwhile is [`ReadError::Ended`].
pub fn read(pid: i32) -> Result<Vec<Mapping>, ReadError> {
    let text = match fs::read(format!("/proc/{pid}/smaps")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::read(format!("/proc/{pid}/maps")),
        other => other,
    };
    let text = text.map_err(|error| explain(pid, error))?;
    // Asked after the reading, so that a list which ends early because the process did is noticed.
    let life =
        fs::read_to_string(format!("/proc/{pid}/status")).map_or(Life::Gone, |status| Life::from_status(&status));
    match (life, text.is_empty()) {
        (Life::Alive, false) => Ok(parse(&text)?),
        (Life::KernelThread, _) => Err(ReadError::KernelThread(pid)),
        (Life::Zombie, true) => Err(ReadError::Zombie(pid)),
        // Nothing runs without a mapping: a live process that has none gave them up on its way out.
        (Life::Alive, true) | (Life::Zombie, false) | (Life::Gone, _) => Err(ReadError::Ended(pid)),
    }
}

fn explain(pid: i32, source: io::Error) -> ReadError {
    match source.kind() {
        io::ErrorKind::NotFound => ReadError::NoProcess(pid),
        io::ErrorKind::PermissionDenied => ReadError::NoPermission(pid),
        _ if source.raw_os_error() == Some(libc::ESRCH) => ReadError::Ended(pid),
        _ => ReadError::Host { pid, source },
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Alive,
    KernelThread,
    Zombie,
    Gone,
}

impl Life {
    /// From the text of `/proc/PID/status`. Kernels before 6.12 have no `Kthread` line; there, a living process
    /// without a `VmSize` line has no memory, which is a kernel thread too.
    fn from_status(status: &str) -> Self {
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_start)
        };
        match field("State").and_then(|state| state.chars().next()) {
            None => Self::Gone,
            Some('Z') => Self::Zombie,
            Some('X' | 'x') => Self::Gone,
            Some(_) if field("Kthread").map_or_else(|| field("VmSize").is_none(), |flag| flag == "1") => {
                Self::KernelThread
            }
            Some(_) => Self::Alive,
        }
    }
}

/// The mappings in the text of a `/proc/PID/smaps` or `/proc/PID/maps`.
///
/// Fields that are missing stay `None` and fields that are not known are passed over, so that older and newer kernels
/// can be read.
///
/// # Errors
/// The first line that is neither a mapping nor a field of one.
pub fn parse(text: &[u8]) -> Result<Vec<Mapping>, ParseError> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let refuse = || ParseError { line: index + 1, text: String::from_utf8_lossy(line).into_owned() };
        if let Some((field, value)) = split_field(line) {
            let mapping = mappings.last_mut().ok_or_else(refuse)?;
            set_field(mapping, field, value).ok_or_else(refuse)?;
        } else {
            mappings.push(parse_header(line).ok_or_else(refuse)?);
        }
    }
    Ok(mappings)
}

/// `Rss:   4 kB` as its name and value. No line that begins a mapping has a `:` in its first word.
fn split_field(line: &[u8]) -> Option<(&str, &str)> {
    let (field, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
    (!field.contains(' ')).then_some((field, value.trim()))
}

fn set_field(mapping: &mut Mapping, field: &str, value: &str) -> Option<()> {
    if field == "VmFlags" {
        mapping.flags = value.split_ascii_whitespace().map(str::to_owned).collect();
    } else if let Some(kib) = value.strip_suffix(" kB") {
        mapping.figures.set(field, kib.trim_end().parse::<u64>().ok()?.checked_mul(1024)?);
    }
    Some(())
}

/// `start-end rwxp offset major:minor inode   name`.
fn parse_header(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let (start, end) = word(&mut rest)?.split_once('-')?;
    let rights = word(&mut rest)?.as_bytes();
    let offset = word(&mut rest)?;
    let (major, minor) = word(&mut rest)?.split_once(':')?;
    let inode = word(&mut rest)?;
    let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
    let (name, deleted) = parse_name(&rest[blanks..]);
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    if start >= end {
        return None;
    }
    Some(Mapping {
        start,
        end,
        prot: parse_prot(rights)?,
        sharing: match rights.get(3)? {
            b'p' => Sharing::Private,
            b's' => Sharing::Shared,
            _ => return None,
        },
        offset: u64::from_str_radix(offset, 16).ok()?,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode: inode.parse().ok()?,
        name,
        deleted,
        figures: Figures::default(),
        flags: Vec::new(),
    })
}

/// The next word of `line`, which is cut off it together with one blank.
fn word<'a>(line: &mut &'a [u8]) -> Option<&'a str> {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let word = std::str::from_utf8(&line[..end]).ok()?;
    *line = line.get(end + 1..).unwrap_or_default();
    (!word.is_empty()).then_some(word)
}

fn parse_prot(rights: &[u8]) -> Option<Prot> {
    let mut prot = Prot::NONE;
    for (index, (letter, right)) in
        [(b'r', Prot::READ), (b'w', Prot::WRITE), (b'x', Prot::EXEC)].into_iter().enumerate()
    {
        match *rights.get(index)? {
            found if found == letter => prot |= right,
            b'-' => {}
            _ => return None,
        }
    }
    Some(prot)
}

fn parse_name(escaped: &[u8]) -> (OsString, bool) {
    let (escaped, deleted) = match escaped.strip_suffix(b" (deleted)") {
        Some(path) if path.starts_with(b"/") => (path, true),
        _ => (escaped, false),
    };
    let mut name = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"\\012") {
            name.push(b'\n');
            rest = after;
        } else {
            name.push(*first);
            rest = after;
        }
    }
    (OsString::from_vec(name), deleted)
}

#[cfg(test)]
mod tests;
