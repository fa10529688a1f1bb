//! Noticed by the checks of memory that a device and another processor write to.

use crate::kernel::wrong::Wrong;

const WINDOWS: &str = "kernel/src/windows.rs";
const DEVICE: &str = "kernel/src/edu.rs";
const TABLES: &str = "crates/pagewarden/src/phys/tables.rs";

pub(super) const WRONG: &[Wrong] = &[
    Wrong {
        name: "pages-of-windows-out-of-order",
        file: "crates/pagewarden/src/phys/manager.rs",
        text: "window.first_page() + place, run.frames()",
        instead: "window.first_page() + window.pages().get() - place - run.frames().get(), run.frames()",
        fails: &["scattered pages of another world are one window"],
    },
    Wrong {
        name: "all-memory-is-foreign",
        file: WINDOWS,
        text: "kernel().other_world.contains(frame)",
        instead: "{ let _ = (frame, kernel()); true }",
        fails: &["a window on memory of ours, or of nobody's, is refused"],
    },
    Wrong {
        name: "words-may-lie-anywhere",
        file: "crates/pagewarden/src/phys/mapping.rs",
        text: "if !at.as_u64().is_multiple_of(size_of::<W>() as u64) {",
        instead: "if false {",
        fails: &["pointers that make no sense are refused"],
    },
    Wrong {
        name: "windows-can-be-stored-to",
        file: TABLES,
        text: "flags.set(EntryFlags::WRITABLE, permission == Permission::ReadWrite);",
        instead: "flags.set(EntryFlags::WRITABLE, true);",
        fails: &["a store through a window for loads faults", "a window is the kernel's, in all spaces"],
    },
    Wrong {
        name: "windows-touch",
        file: "crates/pagewarden/src/phys/windows.rs",
        text: "const GUARD_PAGES: u64 = 1;",
        instead: "const GUARD_PAGES: u64 = 0;",
        fails: &["a copy that leaves its window ends at the fault"],
    },
    Wrong {
        name: "kernel-flush-left-out-here",
        file: "kernel/src/mmu.rs",
        text: "if knows(&processor::all()[own]) {",
        instead: "if !is_kernel && knows(&processor::all()[own]) {",
        fails: &["an address of a window that is gone faults"],
    },
    Wrong {
        name: "kernel-flush-left-out-elsewhere",
        file: "kernel/src/mmu.rs",
        text: "if !others().any(|(_, processor)| knows(processor)) {",
        instead: "if is_kernel || !others().any(|(_, processor)| knows(processor)) {",
        fails: &["a window that is gone is gone on the other processor"],
    },
    Wrong {
        name: "windows-can-be-run",
        file: TABLES,
        text: "A::LEAF | EntryFlags::PRESENT | EntryFlags::NO_EXECUTE",
        instead: "A::LEAF | EntryFlags::PRESENT",
        fails: &["what a window shows is not run", "a window is the kernel's, in all spaces"],
    },
    Wrong {
        name: "no-landing",
        file: "kernel/src/trap.rs",
        text: "if let Some(landing) = pagewarden_copy::landing(size(frame.rip)) {",
        instead: "if let Some(landing) = None::<usize> {",
        fails: &["a store through a window for loads faults"],
    },
    Wrong {
        name: "windows-are-users",
        file: WINDOWS,
        text: "const LEAF: EntryFlags = EntryFlags::GLOBAL;",
        instead: "const LEAF: EntryFlags = EntryFlags::GLOBAL.union(EntryFlags::USER);",
        fails: &["scattered pages of another world are one window", "a window is the kernel's, in all spaces"],
    },
    Wrong {
        name: "writers-share",
        file: "crates/pagewarden/src/phys/provider.rs",
        text: "Self::ReadWrite => Mode::Exclusive,",
        instead: "Self::ReadWrite => Mode::Shared,",
        fails: &["a range that is reserved to write is refused to others"],
    },
    Wrong {
        name: "time-stands-still",
        file: WINDOWS,
        text: "Duration::from_millis(processor::all()[0].ticks())",
        instead: "Duration::from_millis(0 * processor::all()[0].ticks())",
        fails: &["who waits too long for a reservation is told so"],
    },
    Wrong {
        name: "device-is-not-started",
        file: DEVICE,
        text: "write_wide(COMMAND, START | direction as u64);",
        instead: "write_wide(COMMAND, direction as u64);",
        fails: &[
            "a record written through a PhysMutPtr comes back by DMA",
            "DMA into memory while it is being read: every word is old or new",
        ],
    },
    Wrong {
        name: "device-goes-too-far",
        file: DEVICE,
        text: "if start < world.start() || end > world.end() {",
        instead: "if start < world.start() {",
        fails: &["the device is told by one at a time"],
    },
    Wrong {
        name: "words-by-bytes",
        file: WINDOWS,
        text: "let copied = unsafe { pagewarden_copy::copy(to.as_mut_ptr(), from, to.len()) };",
        instead: "let copied = (0..to.len())\
                  .try_for_each(|at| unsafe { pagewarden_copy::copy(to.as_mut_ptr().add(at), from.add(at), 1) });",
        fails: &["an aligned word that another processor writes is one that it wrote"],
    },
    Wrong {
        name: "exchange-in-two-steps",
        file: WINDOWS,
        text: "unsafe { pagewarden_copy::compare_exchange(at, current, new) }\n            }\n        };",
        instead: "unsafe { pagewarden_copy::load(at).and_then(|found| if found == current { \
                  pagewarden_copy::store(at, new).map(|()| found) } else { Ok(found) }) }\n            }\n        };",
        fails: &["no count of two processors in one word is lost"],
    },
    Wrong {
        name: "release-tells-nobody",
        file: WINDOWS,
        text: "self.count.fetch_add(1, Ordering::SeqCst);",
        instead: "self.count.fetch_add(0, Ordering::SeqCst);",
        fails: &["who waits for a reservation of another processor's gets it"],
    },
    Wrong {
        name: "errands-are-not-done",
        file: "kernel/src/errand.rs",
        text: "    errand();\n",
        instead: "    drop(errand);\n",
        fails: &[
            "a letter that is copied once is what was checked",
            "who looks at it twice is fooled",
            "no count of two processors in one word is lost",
        ],
    },
    Wrong {
        name: "reservations-stay",
        file: "crates/pagewarden/src/phys/reservation/mod.rs",
        text: "            self.of.release(held);",
        instead: "            core::mem::forget(held);",
        fails: &["no window and no reservation is left"],
    },
    Wrong {
        name: "windows-stay",
        file: "crates/pagewarden/src/phys/mapping.rs",
        text: "    fn close(&mut self) -> Result<(), PhysError> {",
        instead: "    fn close(&mut self) -> Result<(), PhysError> {\n        if true { return Ok(()); }",
        fails: &["no window and no reservation is left", "another world's memory: nothing is left"],
    },
];
