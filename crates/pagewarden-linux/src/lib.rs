//! Linux platforms for pagewarden.
//!
//! * [`traced`]: the guest is a separate, unmodified process; each of its memory calls stops it, is planned
//!   by [`pagewarden::PageManager`] and carried out by the guest's own entry into the host kernel.
//! * [`arena`]: the same manager over a piece of this process's own address space.
//! * [`foreign`]: memory that another process also has, for `pagewarden::phys`.
//! * [`host_machine`]: the host's memory and mappings as the machine of `pagewarden::pager`, in this process.
//! * [`proc_maps`]: what the host says a process has mapped.
//! * [`overcommit`]: how the host overcommits memory.
//! * [`smaps`]: the same with figures, for people to look at.
//! * [`oracle`]: the differential test of all this against the host kernel.

pub mod arena;
mod faults;
pub mod foreign;
pub mod host_machine;
pub mod options;
pub mod oracle;
pub mod overcommit;
pub mod proc_maps;
pub mod report;
pub mod signal_death;
pub mod smaps;
pub mod traced;

pub use arena::{Arena, ArenaOptions};
pub use options::{OnExit, RunOptions, Verify};
pub use report::{
    CallEvent, CallTally, Exit, Observer, ProcessReport, RefusedCall, Report, RunError, RunOutcome, Usage,
};
pub use traced::run;
