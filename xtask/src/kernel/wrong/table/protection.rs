//! Noticed by the checks of protection and images.

use crate::kernel::wrong::Wrong;

pub(super) const WRONG: &[Wrong] = &[
    Wrong {
        name: "the-direct-map-can-be-run",
        file: "kernel/src/areas.rs",
        text: "space.map(address, range, READ_WRITE | EntryFlags::HUGE)?;",
        instead: "space.map(address, range, READ_EXECUTE | EntryFlags::WRITABLE | EntryFlags::HUGE)?;",
        fails: &[
            "no area of the kernel's map is writable and executable",
            "only the kernel's code can be run",
            "running the direct map traps",
        ],
    },
    Wrong {
        name: "data-can-be-run",
        file: "kernel/src/areas.rs",
        text: "(data, end, READ_WRITE)]",
        instead: "(data, end, READ_EXECUTE | EntryFlags::WRITABLE)]",
        fails: &[
            "no area of the kernel's map is writable and executable",
            "only the kernel's code can be run",
            "running data traps",
        ],
    },
    Wrong {
        name: "stacks-can-be-run",
        file: "kernel/src/areas.rs",
        text: "run.map_err(|error| error.errno())?, READ_WRITE)?;",
        instead: "run.map_err(|error| error.errno())?, READ_EXECUTE | EntryFlags::WRITABLE)?;",
        fails: &[
            "no area of the kernel's map is writable and executable",
            "only the kernel's code can be run",
            "running a stack traps",
        ],
    },
    Wrong {
        name: "constants-can-be-run",
        file: "kernel/src/areas.rs",
        text: "(constants, data, READ)",
        instead: "(constants, data, READ_EXECUTE)",
        fails: &["only the kernel's code can be run", "running a constant traps"],
    },
    Wrong {
        name: "code-is-not-global",
        file: "kernel/src/areas.rs",
        text: "const READ_EXECUTE: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::GLOBAL);",
        instead: "const READ_EXECUTE: EntryFlags = EntryFlags::PRESENT;",
        fails: &["all of them are global"],
    },
    Wrong {
        name: "write-protection-is-off",
        file: "kernel/src/processor.rs",
        text: "(Cr0::read() | wanted) - unwanted",
        instead: "Cr0::read() - wanted - unwanted",
        fails: &[
            "NX, WP, SMEP, SMAP and global pages are on",
            "a store to the kernel's code traps",
            "a store to a constant traps",
        ],
    },
    Wrong {
        name: "smep-is-off",
        file: "kernel/src/processor.rs",
        text: "        | Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION\n",
        instead: "",
        fails: &["NX, WP, SMEP, SMAP and global pages are on", "running a user's page traps"],
    },
    Wrong {
        name: "smap-is-off",
        file: "kernel/src/processor.rs",
        text: "\n        | Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION;",
        instead: ";",
        fails: &[
            "NX, WP, SMEP, SMAP and global pages are on",
            "a load from a user's page traps",
            "a store to a user's page traps",
        ],
    },
    Wrong {
        name: "only-the-first-processor-has-smap",
        file: "kernel/src/processor.rs",
        text: "    unsafe { Cr4::write(Cr4::read() | wanted) };",
        instead: "    unsafe { Cr4::write(Cr4::read() | if index() == 0 { wanted } else { wanted - \
                Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION }) };",
        fails: &["NX, WP, SMEP, SMAP and global pages are on"],
    },
    Wrong {
        name: "the-page-below-a-stack-is-there",
        file: "kernel/src/areas.rs",
        text: "    let pages = stacks::pages(processor, number);",
        instead: "    let pages = stacks::pages(processor, number);\n        \
                let pages = PageRange::new(VirtAddr::new(pages.start().as_u64() - PAGE_SIZE), \
                pages.end()).expect(\"pages\");",
        fails: &["a store below a stack traps"],
    },
    Wrong {
        name: "the-direct-map-shows-the-image",
        file: "kernel/src/areas.rs",
        text: "matches!(kind, MemoryKind::Usable | MemoryKind::Metadata)",
        instead: "matches!(kind, MemoryKind::Usable | MemoryKind::Metadata | MemoryKind::Kernel)",
        fails: &["a load of the kernel's code through the direct map traps"],
    },
    Wrong {
        name: "the-identity-map-is-kept",
        file: "kernel/src/machine.rs",
        text: "    // SAFETY: they show the image, the heap and the direct map where the first ones do, \
                and stay for good.",
        instead: "    use pagewarden::mmu::PhysMem;\n    \
                let first = x86_64::registers::control::Cr3::read().0.start_address().as_u64();\n    \
                let first = pagewarden::PhysAddr::new(first).expect(\"an address\");\n    \
                Hardware.store(kernel.space.root().start(), Hardware.load(first));",
        fails: &["a load from address 0 traps", "a load from where the kernel was loaded traps"],
    },
    Wrong {
        name: "tables-are-not-given-back",
        file: "crates/pagewarden/src/page_table/release.rs",
        text: "        gather.finish();\n        self.release_tree(table.frame, Level::ROOT);",
        instead: "        gather.finish();",
        fails: &[
            "protection: nothing is left",
            "programs: nothing is left",
            "faults: nothing is left",
            "forks: nothing is left",
            "threads: nothing is left",
        ],
    },
    Wrong {
        name: "a-refused-image-leaves-a-process",
        file: "kernel/src/process.rs",
        text: "let image = Image::parse(bytes).map_err(SpawnError::Image)?;",
        instead: "let image = match Image::parse(bytes) {\n            Ok(image) => image,\n            \
                Err(error) => {\n                \
                let config = SpaceConfig::new(Layout::X86_64, account);\n                \
                let places = FixedPlaces { capability_set: VirtAddr::new(abi::CAPABILITY_SET), ring: \
                VirtAddr::new(abi::RING) };\n                \
                core::mem::forget(Memory::new(&kernel().pager, config, places));\n                \
                return Err(SpawnError::Image(error));\n            }\n        };",
        fails: &[
            "refused: not an ELF image",
            "refused: the image ends inside of its header",
            "refused: not of 64 bits, little-endian",
            "refused: not for x86-64",
            "refused: position-independent, which needs relocation",
            "refused: program headers outside of the file",
            "refused: no segment",
            "refused: a segment outside of the file",
            "refused: a segment with less memory than bytes",
            "refused: a segment above the addresses of programs",
            "refused: segments that share a page",
            "refused: a segment that is writable and executable",
            "refused: an entry outside of the executable segments",
            "images: nothing is left",
        ],
    },
    Wrong {
        name: "class-machine-and-type-of-an-image-do-not-matter",
        file: "kernel/loader/src/image.rs",
        text: "if header.e_ident.class != ELFCLASS64 || header.e_ident.data != ELFDATA2LSB {",
        instead: "if true {\n        return Ok(header);\n    }\n    if false {",
        fails: &["refused: not of 64 bits, little-endian", "refused: not for x86-64", "refused: position-independent"],
    },
    Wrong {
        name: "program-headers-outside-of-the-file-are-those-at-its-start",
        file: "kernel/loader/src/image.rs",
        text: "let rest = bytes.get(offset..).ok_or(ImageError::HeadersOutside)?;",
        instead: "let rest = bytes.get(offset..).unwrap_or(&bytes[64..]);",
        fails: &["refused: program headers outside of the file"],
    },
    Wrong {
        name: "a-segment-outside-of-the-file-is-empty",
        file: "kernel/loader/src/image.rs",
        text: "part(image, offset, file_bytes).ok_or(ImageError::SegmentOutside)?",
        instead: "part(image, offset, file_bytes).unwrap_or_default()",
        fails: &["refused: a segment outside of the file"],
    },
    Wrong {
        name: "a-segment-may-have-more-bytes-than-memory",
        file: "kernel/loader/src/image.rs",
        text: "if memory_bytes < file_bytes {",
        instead: "if false {",
        fails: &["refused: a segment with less memory than bytes"],
    },
    Wrong {
        name: "a-segment-may-be-in-the-kernels-half",
        file: "kernel/loader/src/image.rs",
        text: "if end > Layout::X86_64.task_end {",
        instead: "if false {",
        fails: &["refused: a segment above the addresses of programs"],
    },
    Wrong {
        name: "segments-may-share-a-page",
        file: "kernel/loader/src/image.rs",
        text: "Some(last) if last.intersects(segment.pages) =>",
        instead: "Some(_) if false =>",
        fails: &["refused: segments that share a page"],
    },
    Wrong {
        name: "a-segment-may-be-writable-and-executable",
        file: "kernel/loader/src/image.rs",
        text: "if prot.contains(Prot::WRITE | Prot::EXEC) {",
        instead: "if false {",
        fails: &["refused: a segment that is writable and executable"],
    },
    Wrong {
        name: "an-entry-may-be-anywhere",
        file: "kernel/loader/src/image.rs",
        text: "let mut entry = Err(ImageError::Entry);",
        instead: "let mut entry = Ok(());",
        fails: &["refused: an entry outside of the executable segments"],
    },
];
