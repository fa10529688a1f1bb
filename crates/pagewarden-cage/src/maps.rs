//! A cage's map as text.

use pagewarden::VirtAddr;
use pagewarden::linux::proc_text::{Landmarks, write_maps};
use pagewarden_linux::host_machine::HostSpace;

/// The text of `/proc/PID/maps` for the space.
pub(crate) fn text(space: &HostSpace) -> String {
    let mut text = String::new();
    space.space().with_manager(|manager| {
        let heap_start = manager.config().brk.start;
        let landmarks = Landmarks { heap_start, heap_end: manager.program_break(), ..Landmarks::default() };
        // A string takes whatever is written.
        write_maps(&mut text, manager.map(), &landmarks).unwrap_or_default();
    });
    text
}

/// The line of it that `address` lies in.
pub(crate) fn line(space: &HostSpace, address: VirtAddr) -> Option<String> {
    let range = space.space().with_manager(|manager| manager.map().get(address).map(|entry| entry.range))?;
    let start = format!("{:08x}-", range.start().as_u64());
    text(space).lines().find(|line| line.starts_with(&start)).map(|line| line.trim_end().to_owned())
}
