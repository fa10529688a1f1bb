//! How the host overcommits memory: `/proc/sys/vm` and `/proc/meminfo`, for platforms that keep its rule themselves.

use std::fs;
use std::io;

use pagewarden::PageCount;
use pagewarden::manager::{CommitLimit, Overcommit};

/// The host's own mode, with its figures as they are now.
///
/// In mode 2 the limit is that of the host as a whole; what other programs have been promised counts towards it
/// there, and is not known to an account here.
///
/// # Errors
/// The host's reason not to show them, or [`io::ErrorKind::InvalidData`] for text of another form.
pub fn of_host() -> io::Result<Overcommit> {
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/vm/{name}"));
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    match number(&setting("overcommit_memory")?)? {
        0 => Ok(Overcommit::Heuristic { ram_and_swap: ram_and_swap(&meminfo)? }),
        1 => Ok(Overcommit::Always),
        _ => Ok(Overcommit::Never(CommitLimit {
            limit: field(&meminfo, "CommitLimit:")?,
            admin_reserve: pages(number(&setting("admin_reserve_kbytes")?)?),
            user_reserve: pages(number(&setting("user_reserve_kbytes")?)?),
        })),
    }
}

fn ram_and_swap(meminfo: &str) -> io::Result<PageCount> {
    let [ram, swap] = [field(meminfo, "MemTotal:")?, field(meminfo, "SwapTotal:")?];
    Ok(PageCount::new(ram.get().saturating_add(swap.get())))
}

/// A figure of `/proc/meminfo`, which are in KiB.
fn field(meminfo: &str, name: &str) -> io::Result<PageCount> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)).ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages(number(line.trim().strip_suffix(" kB").ok_or(io::ErrorKind::InvalidData)?)?))
}

fn number(text: &str) -> io::Result<u64> {
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// As the kernel rounds: down.
const fn pages(kib: u64) -> PageCount {
    PageCount::from_bytes_down(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_pages() {
        let text = "MemTotal:       24684093 kB\nMemFree:        1 kB\nSwapTotal:            8 kB\n";
        assert_eq!(ram_and_swap(text).unwrap().get(), 24_684_093 / 4 + 2);
        assert_eq!(ram_and_swap("MemTotal: 4 kB\n").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(field("SwapTotal: 4 pages", "SwapTotal:").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_host_refuses_what_it_says_it_refuses() {
        let most = match of_host().unwrap() {
            Overcommit::Heuristic { ram_and_swap } => ram_and_swap.get(),
            other => return println!("skipped: only in mode 0 is the edge known, and the host has {other:?}"),
        };
        let is_mapped = |pages: u64| {
            let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let len = usize::try_from(pages << 12).unwrap();
            // SAFETY: the kernel chooses the place, and nobody knows of it.
            let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
            // SAFETY: nothing is there but what has just been mapped.
            start != libc::MAP_FAILED && unsafe { libc::munmap(start, len) } == 0
        };
        assert!(is_mapped(most));
        assert!(!is_mapped(most + 1));
    }
}
