//! Noticed by the checks of what a program finds, and of Linux's calls about memory.

use crate::kernel::wrong::Wrong;

pub(super) const WRONG: &[Wrong] = &[
    Wrong {
        name: "argc-is-one-too-many",
        file: "kernel/loader/src/stack.rs",
        text: "words.word(self.others.len() as u64 + 1)?;",
        instead: "words.word(self.others.len() as u64 + 2)?;",
        fails: &[
            "[hello] one argument is passed, the name",
            "[hello] auxv tells how long a page is",
            "[hello] auxv tells where the program starts",
            "[hello] auxv tells how long a program header is",
            "[hello] the program headers can be read, and one is for the text",
        ],
    },
    Wrong {
        name: "argv-has-no-end",
        file: "kernel/loader/src/stack.rs",
        text: "        words.word(0)?;\n        words.word(0)?;",
        instead: "        words.word(places.strings)?;\n        words.word(0)?;",
        fails: &["[hello] argv ends with a null", "[libc] main has one argument", "libc ends well"],
    },
    Wrong {
        name: "argv-0-is-of-another-program",
        file: "kernel/src/process.rs",
        text: "name: name.as_bytes(), others",
        instead: "name: b\"init\", others",
        fails: &["[hello] argv[0] is the program's name", "hello ends well"],
    },
    Wrong {
        name: "random-bytes-are-zeros",
        file: "kernel/loader/src/stack.rs",
        text: "Pen { space, at: places.random }.bytes(&self.random)",
        instead: "Ok(())",
        fails: &["[hello] there are random bytes"],
    },
    Wrong {
        name: "own-memory-is-not-in-the-set",
        file: "crates/pagewarden/src/cap/process.rs",
        text: "(memory, Rights::MAP), OWN_MEMORY)?;",
        instead: "(memory, Rights::MAP), [0; 8])?;",
        fails: &[
            "[hello] its own memory is in the capability set",
            "[hello] what is given is said to be an address space",
        ],
    },
    Wrong {
        name: "fixed-pages-are-like-others",
        file: "crates/pagewarden/src/manager/capability.rs",
        text: "RegionFlags::FIXED | RegionFlags::DONT_FORK",
        instead: "RegionFlags::DONT_FORK",
        fails: &[
            "[hello] the fixed pages cannot be unmapped",
            "[hello] the fixed pages cannot be protected",
            "[hello] the fixed pages cannot be moved",
            "[hello] the fixed pages cannot be discarded",
            "[hello] nothing can be mapped over the fixed pages",
            "[hello] a set cannot be made writable",
            "[hello] the fixed pages work as before",
        ],
    },
    Wrong {
        name: "nothing-cannot-be-asked",
        file: "kernel/src/calls/objects.rs",
        text: "        (Operation::Nothing, _) => Ok([0; 2]),\n",
        instead: "        (Operation::Nothing, _) => Err(Errno::NoSys),\n",
        fails: &["[hello] the ring answers when nothing is asked"],
    },
    Wrong {
        name: "the-fourth-argument-is-taken-from-r9",
        file: "kernel/src/calls/linux.rs",
        text: "context.rdx, context.r10,",
        instead: "context.rdx, context.r9,",
        fails: &["[small] mmap gives pages", "[libc] mmap through the library gives a page", "small ends well"],
    },
    // The library's program takes one for an address, and ends.
    Wrong {
        name: "errors-are-positive",
        file: "kernel/src/calls/linux.rs",
        text: "super::negative(errno).cast_unsigned()",
        instead: "u64::from(errno.raw())",
        fails: &[
            "[hello] the fixed pages cannot be unmapped",
            "[small] no length is refused",
            "[small] more than there are addresses is refused",
            "[small] mprotect of what is not mapped is refused",
            "[small] mremap of what is gone is refused",
            "[small] no child is left",
            "[small] a number that is no call is refused",
            "[libc] malloc does not give more than there are addresses",
        ],
    },
    Wrong {
        name: "munmap-answers-the-length",
        file: "crates/pagewarden/src/manager/munmap.rs",
        text: "draft.finish(Ok(0))",
        instead: "draft.finish(Ok(len))",
        fails: &[
            "[small] munmap takes two of them away",
            "[small] munmap takes all away at once",
            "[libc] munmap through the library takes it away",
            "[faults] touched pages are unmapped",
        ],
    },
    Wrong {
        name: "munmap-knows-one-error",
        file: "crates/pagewarden/src/manager/munmap.rs",
        text: "        return Err(Errno::Inval.into());",
        instead: "        return Err(Errno::NoMem.into());",
        fails: &["[libc] munmap through the library says what is wrong with an address"],
    },
    Wrong {
        name: "map-fixed-is-refused",
        file: "crates/pagewarden/src/manager/mmap.rs",
        text: "    if call.flags.contains(MapFlags::FIXED_NO_REPLACE) && !space",
        instead: "    if call.flags.contains(MapFlags::FIXED) {\n        \
                return Err(Errno::Inval.into());\n    }\n    \
                if call.flags.contains(MapFlags::FIXED_NO_REPLACE) && !space",
        fails: &["[small] MAP_FIXED fills the hole", "[threads] the page that is stored to is the process's own"],
    },
    Wrong {
        name: "a-store-to-a-page-of-zeros-brings-what-was-there",
        file: "crates/pagewarden/src/pager/fault.rs",
        text: "return self.pager().zeroed_frame(self.owner(), FrameUse::Anonymous);",
        instead: "return self.pager().frame(self.owner(), FrameUse::Anonymous);",
        fails: &[
            "[small] new pages are zeros",
            "[small] what was added to it is zeros",
            "[small] the heap is zeros at first",
        ],
    },
    Wrong {
        name: "the-zero-frame-can-be-stored-to",
        file: "crates/pagewarden/src/pager/fault.rs",
        text: "let zero = touch.readable(self.pager().zero);",
        instead: "let zero = touch.stored(self.pager().zero);",
        fails: &[
            "[small] new pages keep what is stored",
            "[small] the neighbours of a hole are as before",
            "[small] the heap keeps what is stored",
            "[faults] pages that were never stored to are zeros",
            "[faults] touched pages hold what is stored",
            "[forks] each generation had a page of its own",
        ],
    },
    Wrong {
        name: "munmap-leaves-pages-in-the-tables",
        file: "crates/pagewarden/src/pager/provider.rs",
        text: "        self.clear(range, maps.before);\n        Ok(())",
        instead: "        self.forget_views(range, maps.before);\n        Ok(())",
        fails: &["[small] what fills it is zeros", "[faults] a load from a page that was unmapped is SIGSEGV"],
    },
    // A program keeps pages that have become tables, and the kernel panics sooner or later.
    Wrong {
        name: "nothing-gathered-is-flushed",
        file: "crates/pagewarden/src/page_table/gather.rs",
        text: "            memory.flush(self.root, span);",
        instead: "            let _ = span;",
        fails: &["[small] MADV_DONTNEED forgets"],
    },
    Wrong {
        name: "mprotect-has-its-arguments-swapped",
        file: "crates/pagewarden/src/linux/syscall.rs",
        text: "Request::Mprotect { addr: a, len: b, prot: c },",
        instead: "Request::Mprotect { addr: b, len: a, prot: c },",
        fails: &[
            "[small] mprotect takes the right to write away",
            "[small] who writes to a page that can only be read is killed",
            "[small] mprotect gives the right back",
            "[faults] a jump there returns once it may be run",
        ],
    },
    Wrong {
        name: "mprotect-that-lets-store-forgets-pages",
        file: "crates/pagewarden/src/pager/provider.rs",
        text: "leaf::with_rights(entry, prot, key.unwrap_or_else(|| entry.key()), writable)",
        instead: "if prot.contains(Prot::WRITE) { crate::page_table::Entry::EMPTY } else { \
                leaf::with_rights(entry, prot, key.unwrap_or_else(|| entry.key()), writable) }",
        fails: &["[small] a page whose right came back can be written"],
    },
    Wrong {
        name: "mremap-has-its-flags-elsewhere",
        file: "crates/pagewarden/src/linux/syscall.rs",
        text: "let flags = RemapFlags::from_bits_retain(d);",
        instead: "let flags = RemapFlags::from_bits_retain(e);",
        fails: &["[small] mremap makes a mapping longer"],
    },
    Wrong {
        name: "a-move-loses-pages",
        file: "crates/pagewarden/src/page_table/moves.rs",
        text: "                self.write(target.place(start + offset), new);\n",
        instead: "",
        fails: &[
            "[small] what a moved mapping held has come along",
            "[small] what is left of it is what it was",
            "programs: nothing is left",
        ],
    },
    Wrong {
        name: "mremap-that-shrinks-answers-0",
        file: "crates/pagewarden/src/manager/mremap.rs",
        text: "shrink(&mut draft, &remap).map(|()| remap.addr)",
        instead: "shrink(&mut draft, &remap).map(|()| 0)",
        fails: &["[small] mremap makes it shorter in place"],
    },
    Wrong {
        name: "mremap-does-not-unmap-the-tail",
        file: "crates/pagewarden/src/manager/mremap.rs",
        text: "Some(tail) => unmap(draft, tail),",
        instead: "Some(_) => Ok(()),",
        fails: &["[small] mremap of what is gone is refused"],
    },
    Wrong {
        name: "madv-dontneed-does-nothing",
        file: "crates/pagewarden/src/pager/advise.rs",
        text: "                self.change(range, &mut |entry| if leaf::is_guard(entry) { entry } else { \
                Entry::EMPTY })\n",
        instead: "                Ok(())\n",
        fails: &["[small] MADV_DONTNEED forgets", "[faults] pages that MADV_DONTNEED took are zeros again"],
    },
    Wrong {
        name: "madv-dontneed-takes-whole-tables",
        file: "crates/pagewarden/src/pager/advise.rs",
        text: "                self.change(range, &mut |entry| if leaf::is_guard(entry) { entry } else { \
                Entry::EMPTY })\n",
        instead: "                let whole = PageRange::from_pages(range.first_page() & !511, \
                PageCount::new(512)).unwrap_or(range);\n                \
                self.change(whole, &mut |entry| if leaf::is_guard(entry) { entry } else { Entry::EMPTY })\n",
        fails: &[
            "[faults] pages that it did not take are as they were",
            "[faults] the parent has survived its children",
        ],
    },
    Wrong {
        name: "madvise-sees-a-hole-at-the-end",
        file: "crates/pagewarden/src/manager/madvise.rs",
        text: "has_hole |= next < range.end();",
        instead: "has_hole |= next <= range.end();",
        fails: &["[faults] MADV_DONTNEED takes half of them", "[threads] no change of the page was refused"],
    },
    Wrong {
        name: "the-heap-starts-nowhere",
        file: "kernel/src/process.rs",
        text: "let config = SpaceConfig { brk: image.brk(), ..SpaceConfig::new(Layout::X86_64, account) };",
        instead: "let config = SpaceConfig::new(Layout::X86_64, account);",
        fails: &["[small] brk tells where the heap ends", "[small] a break that cannot be leaves it as it is"],
    },
    Wrong {
        name: "brk-answers-what-it-was",
        file: "kernel/src/calls/linux.rs",
        text: "    let result = space.call(&request).map_err(|refusal| refusal.errno);\n    \
                let program_break = space.with_manager(|manager| manager.program_break());\n",
        instead: "    let program_break = space.with_manager(|manager| manager.program_break());\n    \
                let result = space.call(&request).map_err(|refusal| refusal.errno);\n    \
                let result = if number == 12 { Ok(program_break.as_u64()) } else { result };\n",
        fails: &["[small] the heap grows by what is asked", "[small] the heap shrinks again"],
    },
    Wrong {
        name: "a-heap-that-shrinks-keeps-its-pages",
        file: "crates/pagewarden/src/pager/provider.rs",
        text: "            return self.unmap(gone, maps);\n        }\n        if let Some(added)",
        instead: "            return self.prepare_to_clear(gone);\n        }\n        if let Some(added)",
        fails: &["[small] the heap is zeros at first"],
    },
    Wrong {
        name: "threads-start-with-other-rounding",
        file: "kernel/src/trap.rs",
        text: "0x037f_u16",
        instead: "0x0f7f_u16",
        fails: &["[libc] printf knows text, floating-point and other numbers"],
    },
    Wrong {
        name: "a-space-has-2-mib",
        file: "crates/pagewarden/src/manager/overcommit.rs",
        text: "Overcommit::Always => Ok(()),\n            Overcommit::Heuristic { ram_and_swap } if pages",
        instead: "Overcommit::Always if self.space.state.totals.virtual_pages + pages > 512 => \
                Err(Errno::NoMem.into()),\n            Overcommit::Always => Ok(()),\n            \
                Overcommit::Heuristic { ram_and_swap } if pages",
        fails: &[
            "[libc] malloc gives 20000 blocks of many sizes",
            "[libc] realloc of a large block keeps what it holds",
            "[libc] memcpy copies three megabytes",
            "[libc] memmove moves three megabytes by 77 bytes",
        ],
    },
    Wrong {
        name: "pages-that-lose-the-right-to-write-are-lost",
        file: "crates/pagewarden/src/pager/leaf.rs",
        text: "    if !has_frame(entry) {\n        return entry;\n    }\n    let mut",
        instead: "    if !has_frame(entry) || !prot.contains(Prot::WRITE) {\n        return Entry::EMPTY;\n    }\n    let mut",
        fails: &["[small] a page that was protected can be read still", "hello ends well"],
    },
];
