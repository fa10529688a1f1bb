//! What the host says a process has mapped: the lines of `/proc/PID/maps`.
//!
//! Names are kept as the host prints them: a newline in a path is the four characters `\012`, and a file
//! that has no path any more has ` (deleted)` at its end, which a path may have as well. Nothing may be
//! decided by a name that a guest could have chosen; device and inode say which file it is.

use std::io;
use std::path::Path;

use pagewarden::{PageRange, Prot, VirtAddr};

/// One mapping.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapsEntry {
    /// Where it lies.
    pub range: PageRange,
    /// What may be done with it.
    pub prot: Prot,
    /// Whether stores go to the file.
    pub shared: bool,
    /// Where in the file it starts, in bytes.
    pub offset: u64,
    /// The file's device as `st_dev` encodes it; 0 for no file.
    pub device: u64,
    /// The file's inode; 0 for no file.
    pub inode: u64,
    /// Path, or a name in brackets, or nothing.
    pub name: String,
}

impl MapsEntry {
    /// Whether the host made it by itself in every process: vdso, vvar and so on.
    pub fn is_special(&self) -> bool {
        self.inode == 0
            && self.device == 0
            && matches!(self.name.as_str(), "[vdso]" | "[vvar]" | "[vvar_vclock]" | "[vsyscall]" | "[uprobes]")
    }
}

/// Reads one line, without its newline; `None` if it is not of the known form.
pub fn parse_line(line: &[u8]) -> Option<MapsEntry> {
    let mut rest = line;
    let mut field = || {
        let start = rest.iter().position(|byte| *byte != b' ')?;
        let len = rest[start..].iter().position(|byte| *byte == b' ').unwrap_or(rest.len() - start);
        let (word, after) = rest[start..].split_at(len);
        rest = after;
        std::str::from_utf8(word).ok()
    };
    let (start, end) = field()?.split_once('-')?;
    let rights = field()?.as_bytes();
    let offset = hex(field()?)?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?.parse().ok()?;
    let name = rest.iter().position(|byte| *byte != b' ').map_or(&[][..], |at| &rest[at..]);
    let &[read, write, exec, sharing] = rights else { return None };
    let mut prot = Prot::NONE;
    prot.set(Prot::READ, read == b'r');
    prot.set(Prot::WRITE, write == b'w');
    prot.set(Prot::EXEC, exec == b'x');
    let (major, minor) = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    Some(MapsEntry {
        range: PageRange::new(VirtAddr::new(hex(start)?), VirtAddr::new(hex(end)?))?,
        prot,
        shared: sharing == b's',
        offset,
        device: libc::makedev(major, minor),
        inode,
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

/// Reads the text of a `maps` file.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if a line is not of the known form.
pub fn parse(text: &[u8]) -> io::Result<Vec<MapsEntry>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| parse_line(line).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))).collect()
}

/// The mappings of process or thread `pid`, lowest first.
///
/// # Errors
/// The host's reason not to show them, such as that there is no such process.
pub fn read(pid: i32) -> io::Result<Vec<MapsEntry>> {
    parse(&std::fs::read(Path::new("/proc").join(pid.to_string()).join("maps"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> MapsEntry {
        parse_line(line.as_bytes()).unwrap()
    }

    #[test]
    fn a_file_mapping() {
        let entry = one("7f6dc2182000-7f6dc22d8000 r-xp 00026000 fe:01 326279                     /usr/lib/libc.so.6");
        assert_eq!((entry.range.start().as_u64(), entry.range.end().as_u64()), (0x7f6d_c218_2000, 0x7f6d_c22d_8000));
        assert_eq!((entry.prot, entry.shared, entry.offset), (Prot::READ | Prot::EXEC, false, 0x26000));
        assert_eq!((entry.device, entry.inode), (libc::makedev(0xfe, 1), 326_279));
        assert_eq!(entry.name, "/usr/lib/libc.so.6");
    }

    #[test]
    fn a_mapping_without_a_name() {
        let entry = one("7f6dc20d7000-7f6dc20f9000 ---s 00000000 00:00 0 ");
        assert_eq!((entry.name.as_str(), entry.shared, entry.prot), ("", true, Prot::NONE));
    }

    #[test]
    fn names_are_not_parsed_as_anything_else() {
        let name = r"/tmp/7000-8000 rwxp\0120 00:00 0 (deleted) (deleted) ";
        let entry = one(&format!("1000-2000 r--p 00000000 00:01 5      {name}"));
        assert_eq!((entry.name.as_str(), entry.inode), (name, 5));
        assert!(!entry.is_special());
        let liar = one("1000-2000 r--p 00000000 00:01 5      [vdso]");
        assert!(!liar.is_special(), "a file may be called anything");
        assert_eq!(parse_line(b"1000-2000 r--p 00000000 00:01 5  /\xff").unwrap().name, "/\u{fffd}");
    }

    #[test]
    fn lines_of_another_form_are_refused() {
        for line in ["", "1000", "1000-2000", "1000-2000 rwxp 0", "2000-1000 rwxp 0 0:0 0", "1000-2000 rwx 0 0:0 0"] {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
        assert!(parse(b"1000-2000 rwxp 0 0:0 0\nnonsense\n").is_err());
    }

    #[test]
    fn this_process_has_a_stack() {
        let entries = read(std::process::id().cast_signed()).unwrap();
        assert!(entries.iter().any(|entry| entry.name == "[stack]"));
        assert!(entries.is_sorted_by_key(|entry| entry.range.start()));
    }
}
