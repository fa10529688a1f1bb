//! Noticed by the checks of memory objects, records, bad pointers, the other world, and the end.

use crate::kernel::wrong::Wrong;

const BORROW: &str = "crates/pagewarden/src/manager/borrow.rs";
const CAP_MEMORY: &str = "crates/pagewarden/src/cap/memory.rs";
const TRANSFER: &str = "crates/pagewarden/src/cap/transfer.rs";
const OBJECT_MEMORY: &str = "crates/pagewarden/src/object/memory.rs";
const FAULT: &str = "crates/pagewarden/src/pager/fault.rs";
const PROVIDER: &str = "crates/pagewarden/src/pager/provider.rs";
const MINCORE: &str = "crates/pagewarden/src/manager/mincore.rs";
const CALLS: &str = "kernel/src/calls/objects.rs";
const ENDPOINT: &str = "kernel/src/calls/endpoint.rs";
const LINUX: &str = "kernel/src/calls/linux.rs";
const PROCESS: &str = "kernel/src/process.rs";

pub(super) const WRONG: &[Wrong] = &[
    Wrong {
        name: "info-tells-bytes",
        file: CALLS,
        text: "[info.pages.get(), info.rights",
        instead: "[info.bytes, info.rights",
        fails: &[
            "[memory_parent] the memory has as many pages as were asked for",
            "[memory_parent] a handle that could not be sent is as it was",
            "[memory_parent] a slice has its own pages",
        ],
    },
    Wrong {
        name: "windows-have-no-end",
        file: CAP_MEMORY,
        text: "self.window.pages().part(part).ok_or_else(|| Errno::Inval.into())",
        instead: "Ok(part)",
        fails: &["[memory_parent] no pages beyond its end can be mapped", "[memory_parent] a slice has no others"],
    },
    Wrong {
        name: "first-page-alone-is-zeroed",
        file: OBJECT_MEMORY,
        text: "            let frame = pager.zeroed_frame(&self.owner, FrameUse::Object)?;\n",
        instead: "            let frame = if index == 0 {\n                \
                  pager.zeroed_frame(&self.owner, FrameUse::Object)?\n            } else {\n                \
                  pager.frame(&self.owner, FrameUse::Object)?\n            };\n",
        fails: &["[memory_parent] allocated pages are zeros"],
    },
    Wrong {
        name: "runs-are-not-zeroed",
        file: OBJECT_MEMORY,
        text: "                pager.machine().zero(frame);\n",
        instead: "",
        fails: &["[memory_parent] a slice is zeros and can be stored to"],
    },
    Wrong {
        name: "first-page-shown-is-the-first",
        file: BORROW,
        text: "pages.first().wrapping_sub(range.first_page())",
        instead: "range.first_page().wrapping_neg()",
        fails: &["[memory_parent] two of them are shown again, and are the same"],
    },
    Wrong {
        name: "rights-compared-backwards",
        file: TRANSFER,
        text: "if !held.contains(rights) {",
        instead: "if !rights.contains(held) {",
        fails: &[
            "[memory_parent] a child that never ran is released with what it was given",
            "[memory_parent] the child is given the memory",
            "[memory_parent] a handle is moved with fewer rights",
        ],
    },
    Wrong {
        name: "sent-with-any-rights",
        file: TRANSFER,
        text: "        if !held.contains(rights) {\n            return Err(CapError::Rights);\n        }\n",
        instead: "",
        fails: &[
            "[memory_parent] no more rights can be sent than there are",
            "[memory_parent] a handle that could not be sent is as it was",
        ],
    },
    Wrong {
        name: "moved-handle-stays",
        file: TRANSFER,
        text: "            slot.leave();\n",
        instead: "            drop(slot);\n",
        fails: &["memory_parent ends well", "[memory_parent] what was moved is the sender's no more"],
    },
    Wrong {
        name: "rights-before-interfaces",
        file: "crates/pagewarden/src/cap/fixed.rs",
        text: "        bytes[8..16].copy_from_slice(&self.interface.0.to_le_bytes());\n        \
               bytes[16..20].copy_from_slice(&self.rights.bits().to_le_bytes());\n",
        instead: "        bytes[8..12].copy_from_slice(&self.rights.bits().to_le_bytes());\n        \
                  bytes[16..24].copy_from_slice(&self.interface.0.to_le_bytes());\n",
        fails: &[
            "[memory_child] what the child was given is said to be memory",
            "[memory_child] the child has the rights that were sent",
        ],
    },
    Wrong {
        name: "children-may-spawn",
        file: CALLS,
        text: "    insert(memory, process, SHARED)\n",
        instead: "    if let Some(child) = process.memory() {\n        \
                  let _ = child.give(Arc::new(Spawner), Rights::TRANSFER, abi::name::SPAWNER);\n    }\n    \
                  insert(memory, process, SHARED)\n",
        fails: &["[memory_child] the parent's other capabilities are not there"],
    },
    Wrong {
        name: "borrowed-pages-are-private",
        file: BORROW,
        text: "RegionFlags::SHARED.union(RegionFlags::BORROWED)",
        instead: "RegionFlags::BORROWED",
        fails: &[
            "[memory_parent] two of them are shown again, and are the same",
            "[memory_child] the child sees what its parent has stored",
            "[memory_child] what was moved is the same memory",
            "[memory_parent] what the child has stored is there",
            "[producer] 8 records are answered with the checksum of what the consumer has stored",
            "[consumer] each record has the checksum that the call says",
        ],
    },
    Wrong {
        name: "all-that-is-read-can-be-run",
        file: CAP_MEMORY,
        text: "prot.set(Prot::EXEC, rights.contains(Rights::EXECUTE));",
        instead: "prot |= Prot::EXEC;",
        fails: &["[memory_child] the child may not run it", "[memory_child] mprotect does not let the child run it"],
    },
    Wrong {
        name: "all-that-is-read-can-be-stored-to",
        file: CAP_MEMORY,
        text: "prot.set(Prot::WRITE, rights.contains(Rights::WRITE));",
        instead: "prot |= Prot::WRITE;",
        fails: &["[memory_child] the child may not store to what it may only read"],
    },
    Wrong {
        name: "handle-is-not-asked-for-rights",
        file: CAP_MEMORY,
        text: "        check_prot(rights, prot)?;\n        let (object, window)",
        instead: "        let _ = rights;\n        let (object, window)",
        fails: &["[memory_child] the child cannot give itself the right to store there"],
    },
    Wrong {
        name: "mprotect-forgets-the-handle",
        file: BORROW,
        text: "    region.prot_max = prot_max;\n",
        instead: "",
        fails: &[
            "[memory_child] mprotect does not let the child run it",
            "[memory_child] mprotect does not let the child store there",
        ],
    },
    Wrong {
        name: "start-takes-a-right-that-nobody-has",
        file: CALLS,
        text: "object::<Process>(memory, handle, Rights::WRITE)?.start()",
        instead: "object::<Process>(memory, handle, Rights::EXECUTE)?.start()",
        fails: &["[memory_parent] the child is let run", "[memory_parent] the child ends well"],
    },
    Wrong {
        name: "wait-takes-the-handle",
        file: CALLS,
        text: "Ok(process) => process.status().map_or(Outcome::Wait, |status| Outcome::Is(Ok([status, 0]))),",
        instead: "Ok(process) => process.status().map_or(Outcome::Wait, |status| {\n            \
                  let _ = memory.table().release(handle);\n            Outcome::Is(Ok([status, 0]))\n        }),",
        fails: &[
            "[memory_parent] the child's end can be asked for again",
            "[memory_parent] nothing can be sent to who has ended",
        ],
    },
    Wrong {
        name: "started-again",
        file: PROCESS,
        text: "self.unstarted.lock().take()",
        instead: "self.unstarted.lock().clone()",
        fails: &["[memory_parent] who has ended does not run again"],
    },
    Wrong {
        name: "stores-reach-snapshots",
        file: FAULT,
        text: "            if touch.is_store() && touch.region.is_shared() && memory.is_common(frame) {\n                \
               return Err(Failure::Common(index));\n            }\n",
        instead: "",
        fails: &["[memory_parent] a snapshot has what was there before"],
    },
    Wrong {
        name: "unmapped-pages-stay",
        file: BORROW,
        text: "    draft.unmap(range)?;\n",
        instead: "    draft.keep_state();\n",
        fails: &[
            "[memory_parent] memory that was unmapped cannot be touched",
            "[memory_parent] memory cannot be unmapped twice",
        ],
    },
    Wrong {
        name: "pages-go-with-any-handle",
        file: "crates/pagewarden/src/object/windows.rs",
        text: "            if !reach.has(at) {\n                self.let_go_of(pages, at..end);\n            }\n",
        instead: "            self.let_go_of(pages, at..end);\n",
        fails: &[
            "[memory_child] the child sees what its parent has stored",
            "[memory_parent] a slice is zeros and can be stored to",
        ],
    },
    Wrong {
        name: "counts-of-frames-have-16-bits",
        file: CALLS,
        text: "memory.allocate(handle, PageCount::new(a), placement)",
        instead: "memory.allocate(handle, PageCount::new(a & 0xffff), placement)",
        fails: &[
            "[memory_parent] no more frames are allocated than there are",
            "[memory_parent] no run of frames is longer than memory",
        ],
    },
    Wrong {
        name: "page-where-the-region-starts",
        file: FAULT,
        text: "let index = touch.region.page_offset(touch.address);",
        instead: "let index = touch.region.page_offset(touch.range.start());",
        fails: &["[producer] a checksum tells one record from another"],
    },
    Wrong {
        name: "answered-call-is-still-there",
        file: ENDPOINT,
        text: "state.received.take().ok_or(Errno::Inval)?",
        instead: "state.received.ok_or(Errno::Inval)?",
        fails: &["[consumer] calls come in order until the last"],
    },
    Wrong {
        name: "answer-to-nobody",
        file: ENDPOINT,
        text: "state.received.take().ok_or(Errno::Inval)?",
        instead: "state.received.take().unwrap_or(FORGOTTEN)",
        fails: &["[consumer] three calls out of turn are refused", "[producer] the consumer ends well"],
    },
    Wrong {
        name: "half-an-answer",
        file: ENDPOINT,
        text: "state.answers.push((number, words));",
        instead: "state.answers.push((number, [words[0], 0]));",
        fails: &["[producer] the last call is answered"],
    },
    Wrong {
        name: "nothing-is-written-without-an-error",
        file: LINUX,
        text: "return if written > 0 { Ok(written) } else { Err(fault.into()) };",
        instead: "{ let _ = fault; return Ok(written); }",
        fails: &["[pointers] nothing is written from where nothing can be read"],
    },
    Wrong {
        name: "part-that-is-written-is-all",
        file: LINUX,
        text: "return if written > 0 { Ok(written) } else { Err(fault.into()) };",
        instead: "return if written > 0 { Ok(bytes) } else { Err(fault.into()) };",
        fails: &["pointers ends well", "[pointers] a text that ends in a hole is cut off or refused"],
    },
    Wrong {
        name: "length-is-less-than-nothing",
        file: LINUX,
        text: "    if bytes > 0 && address.checked_add(bytes).is_none_or(|end| end > USER_END) {\n        \
               return Err(Errno::Fault);\n",
        instead: "    if bytes.cast_signed() < 0 {\n        return Ok(0);\n",
        fails: &[
            "[pointers] a text of almost all bytes that there are is cut off or refused",
            "[pointers] a text that ends before its start is cut off or refused",
        ],
    },
    Wrong {
        name: "null-is-refused-first",
        file: LINUX,
        text: "    if bytes > 0 && address.checked_add",
        instead: "    if address == 0 || address.checked_add",
        fails: &["[pointers] no bytes can be written from null"],
    },
    Wrong {
        name: "list-that-is-not-there",
        file: LINUX,
        text: "        bytes.truncate(copied.map_or_else(|fault| fault.copied, |()| len));\n",
        instead: "        let _ = copied;\n",
        fails: &["[pointers] no list of ranges is read where nothing can be read"],
    },
    Wrong {
        name: "status-gets-lost",
        file: LINUX,
        text: "    Answer::Is(told.map(|()| child.id).map_err(Errno::from))\n",
        instead: "    let _ = told;\n    Answer::Is(Ok(child.id))\n",
        fails: &["[pointers] no status comes where nothing can be written"],
    },
    Wrong {
        name: "wait-answers-with-the-status",
        file: LINUX,
        text: "told.map(|()| child.id)",
        instead: "told.map(|()| child.status().unwrap_or_default())",
        fails: &["[pointers] a status comes where it should"],
    },
    Wrong {
        name: "code-where-the-signal-is",
        file: LINUX,
        text: "    (code & 0xff) << 8\n",
        instead: "    code & 0xff\n",
        fails: &["[pointers] a status says how the child ended"],
    },
    Wrong {
        name: "answer-gets-lost",
        file: PROVIDER,
        text: "self.copy_out(addr, bytes, map).map_err(|_| Errno::Fault)",
        instead: "let _ = self.copy_out(addr, bytes, map);\n        Ok(())",
        fails: &[
            "[pointers] mincore writes nothing where nothing can be written",
            "[pointers] mincore does not write across the edge of a hole",
        ],
    },
    Wrong {
        name: "byte-behind-has-to-be-there",
        file: PROVIDER,
        text: "        self.copy_out(addr, bytes, map).map_err(|_| Errno::Fault)",
        instead: "        let end = addr.checked_add(bytes.len() as u64).ok_or(Errno::Fault)?;\n        \
                  map.get(end).ok_or(Errno::Fault)?;\n        \
                  self.copy_out(addr, bytes, map).map_err(|_| Errno::Fault)",
        fails: &["[pointers] mincore writes up to the edge of a hole"],
    },
    Wrong {
        name: "answer-at-the-start-of-its-page",
        file: PROVIDER,
        text: "self.copy_out(addr, bytes, map)",
        instead: "self.copy_out(addr.page_down(), bytes, map)",
        fails: &[
            "[pointers] mincore says that nothing was touched",
            "[pointers] the program is as it was after all that",
        ],
    },
    Wrong {
        name: "all-is-resident",
        file: PROVIDER,
        text: "each(VirtAddr::from_page_number(page).is_some_and(|address| self.is_resident(address, map)));",
        instead: "each(map.get(VirtAddr::from_page_number(page).unwrap_or_default()).is_some());",
        fails: &["[pointers] mincore says that nothing was touched"],
    },
    Wrong {
        name: "kernel-is-a-bad-vector",
        file: MINCORE,
        text: "    if !is_inside(addr, len, space.task_end()) {\n        return Err(Errno::NoMem.into());\n",
        instead: "    if !is_inside(addr, len, space.task_end()) {\n        return Err(Errno::Fault.into());\n",
        fails: &["[pointers] mincore tells nothing of the kernel"],
    },
    Wrong {
        name: "segments-start-anywhere",
        file: LINUX,
        text: "    if address < USER_END { Ok(address) } else { Err(Errno::Perm) }",
        instead: "    Ok(address)",
        fails: &[
            "[pointers] thread-local storage cannot be in the kernel",
            "[pointers] thread-local storage cannot be where no address is",
        ],
    },
    Wrong {
        name: "last-page-of-all",
        file: "crates/pagewarden/src/manager/config.rs",
        text: "task_end: VirtAddr::new(0x7fff_ffff_f000),",
        instead: "task_end: VirtAddr::new(0x8000_0000_0000),",
        fails: &["[pointers] no call can be made from the last page of all"],
    },
    Wrong {
        name: "numbers-are-always-written",
        file: LINUX,
        text: "        number::GETTID | number::SET_TID_ADDRESS => Ok(thread.id),\n",
        instead: "        number::GETTID => Ok(thread.id),\n        number::SET_TID_ADDRESS => {\n            \
                  let space = thread.memory().space();\n            \
                  space.copy_to_user(VirtAddr::new(a), &pid(thread.id)).expect(\"a place for it\");\n            \
                  Ok(thread.id)\n        }\n",
        fails: &["[pointers] a bad place for a thread's number harms nobody"],
    },
    Wrong {
        name: "stack-is-believed",
        file: "kernel/src/calls/mod.rs",
        text: "fn call(thread: &mut Thread) -> Next {\n",
        instead: "fn call(thread: &mut Thread) -> Next {\n    let mut word = [0; 8];\n    \
                  let stack = VirtAddr::new(thread.context.rsp);\n    \
                  thread.memory().space().copy_from_user(stack, &mut word).expect(\"a stack\");\n",
        fails: &["[pointers] a call needs no stack of the program"],
    },
    Wrong {
        name: "flags-are-the-programs",
        file: "kernel/src/processor.rs",
        text: "SFMask::write(RFlags::all());",
        instead: "SFMask::write(RFlags::INTERRUPT_FLAG | RFlags::TRAP_FLAG);",
        fails: &["[pointers] a call does not mind the program's flags"],
    },
    Wrong {
        name: "name-that-is-not-there",
        file: CALLS,
        text: "    memory.space().copy_from_user(VirtAddr::new(name), &mut bytes[..len])?;\n",
        instead: "    let _ = memory.space().copy_from_user(VirtAddr::new(name), &mut bytes[..len]);\n",
        fails: &[
            "[pointers] no program's name is read where nothing can be read",
            "[pointers] no program's name is read that ends in a hole",
        ],
    },
    Wrong {
        name: "names-of-any-length",
        file: CALLS,
        text: ".filter(|len| *len <= NAME_MOST)",
        instead: "",
        fails: &[
            "[pointers] no program's name is longer than all memory",
            "[pointers] the ring is as it was after all that",
        ],
    },
    Wrong {
        name: "unknown-program-is-a-bad-argument",
        file: PROCESS,
        text: "SpawnError::NoProgram => Self::NoEnt",
        instead: "SpawnError::NoProgram => Self::Inval",
        fails: &["[pointers] there is no program of this name"],
    },
    Wrong {
        name: "unmap-of-the-wrong-pages",
        file: "kernel/src/calls/objects.rs",
        text: "memory.unmap_borrowed(handle, range(a, b)?)",
        instead: "memory.unmap_borrowed(handle, range(a & !0xffff, b)?)",
        fails: &[
            "[memory_parent] the second view is unmapped",
            "[memory_child] the child unmaps what it has mapped",
            "[memory_child] what was moved is unmapped",
            "[memory_parent] the memory is unmapped",
        ],
    },
    Wrong {
        name: "first-word-of-an-answer-is-lost",
        file: "kernel/src/calls/objects.rs",
        text: "reply([a, b])",
        instead: "reply([0, b])",
        fails: &["[producer] 8 records are answered", "producer ends well"],
    },
];
