//! What the form means, on short records written here; and that the records kept are read whole, counted by words.

use pagewarden::{PageCount, Region, RegionFlags, Vmmap};

use super::*;

fn edits(text: &str) -> Vec<(usize, Edit)> {
    let program = program("short", text).unwrap();
    program.calls.into_iter().map(|call| (call.process, call.edit)).collect()
}

fn replace(pages: Pages, region: Region) -> Edit {
    Edit::Replace { pages, region }
}

/// Anonymous memory that is mapped readable and writable, with `flags` besides.
fn writable(flags: RegionFlags) -> Region {
    Region { flags: RegionFlags::COMMITTED | flags, ..Region::anonymous(Prot::READ | Prot::WRITE) }
}

/// The maps of all processes when the record has ended, and how many regions each had at most.
fn replay(program: &Program) -> (Vec<Vmmap>, Vec<usize>) {
    let mut maps = vec![Vmmap::new(PageCount::ZERO); program.processes()];
    let mut peaks = vec![0; maps.len()];
    for Call { process, edit } in &program.calls {
        model::apply(edit, &mut maps[*process]).unwrap();
        if let Edit::Fork { child } = *edit {
            maps[child] = maps[*process].clone();
            peaks[child] = maps[child].len();
        }
        peaks[*process] = peaks[*process].max(maps[*process].len());
    }
    (maps, peaks)
}

#[test]
fn anonymous_maps_are_searched_for_unless_placed() {
    let found = edits("7 exec\nmap 7f000 8193 rw pa\nmap 10 4096 - pfan\nmap 20 4096 r sah\nmap 30 1 rw pat");
    let mut reserved = Region::anonymous(Prot::NONE);
    reserved.flags = RegionFlags::NO_RESERVE;
    assert_eq!(found[0], (0, Edit::Exec));
    assert_eq!(found[1], (0, Edit::Search { wanted: 3 }));
    assert_eq!(found[2], (0, replace(0x7f000..0x7f003, writable(RegionFlags::empty()))));
    assert_eq!(found[3], (0, replace(0x10..0x11, reserved)));
    assert!(matches!(&found[4].1, Edit::Replace { pages, region }
        if *pages == (0x20..0x21) && region.is_shared() && region.delta == 0_u64.wrapping_sub(0x20)));
    assert_eq!(found[5], (0, Edit::Search { wanted: 1 }));
    assert_eq!(found[6], (0, replace(0x30..0x31, writable(RegionFlags::NO_HUGE_PAGE))));
    assert_eq!(found.len(), 7);
}

#[test]
fn the_other_calls_become_edits() {
    let found = edits("7 exec\nunmap 10 4097\nprotect 20 4096 rx\nadvise 30 4096 dontneed\nadvise 31 1 free\nexit");
    let expected = [
        Edit::Exec,
        Edit::Remove { pages: 0x10..0x12 },
        Edit::Protect { pages: 0x20..0x21, prot: Prot::READ | Prot::EXEC },
        Edit::Visit { pages: 0x30..0x31 },
        Edit::Visit { pages: 0x31..0x32 },
        Edit::Exit,
    ];
    assert_eq!(found, expected.map(|edit| (0, edit)));
}

#[test]
fn the_heap_grows_and_shrinks_at_its_end() {
    let found = edits("7 exec\nbrk 50\nbrk 50\nbrk 58\nbrk 52\nexec\nbrk 90");
    let grown = replace(0x50..0x58, writable(RegionFlags::empty()));
    assert_eq!(found, [Edit::Exec, grown, Edit::Remove { pages: 0x52..0x58 }, Edit::Exec].map(|edit| (0, edit)));
}

#[test]
fn a_loader_maps_one_file_and_the_next_file_is_another() {
    // The first fixed map lies over the start of the file, so that nothing is below.
    let text = "7 exec\nmap 100 65536 r p 3 0\nmap 100 4096 r pf 3 0\nmap 102 8192 rx pf 3 2\nmap 110 4096 rw pf 3 10\nmap 200 4096 r p 3 0";
    let regions: Vec<Region> = edits(text)
        .into_iter()
        .filter_map(|(_, edit)| match edit {
            Edit::Replace { region, .. } => Some(region),
            _ => None,
        })
        .collect();
    assert!(regions[..4].iter().all(|region| region.backing == regions[0].backing));
    assert!(regions[..4].iter().all(|region| region.delta == 0_u64.wrapping_sub(0x100)));
    assert_ne!(regions[4].backing, regions[0].backing);
    let other = edits("7 exec\nmap 100 4096 r p 3 0\nmap 100 4096 r pf 4 0");
    assert_ne!(other[2], other[3], "another descriptor is another file");
}

#[test]
fn a_move_carries_the_regions_along() {
    let found =
        edits("7 exec\nmap 10 8192 r pf 3 5\nremap 10 8192 12288 40\nremap 40 12288 4096 40\nremap 40 1 8192 40");
    let Edit::Replace { region, .. } = &found[1].1 else { panic!("{found:?}") };
    let mut moved = region.clone();
    moved.delta = 5_u64.wrapping_sub(0x40);
    let expected = [
        Edit::Search { wanted: 3 },
        replace(0x40..0x42, moved.clone()),
        replace(0x42..0x43, moved.clone()),
        Edit::Remove { pages: 0x10..0x12 },
        Edit::Remove { pages: 0x41..0x43 },
        replace(0x41..0x42, moved),
    ];
    assert_eq!(found[2..], expected.map(|edit| (0, edit)));
}

#[test]
fn a_system_v_segment_is_one_page_and_one_object() {
    let found = edits("7 exec\nshmat 29 80\nshmat 29 90\nshmdt 80");
    let backing = |edit: &Edit| match edit {
        Edit::Replace { region, .. } => region.backing.clone(),
        _ => panic!("{edit:?}"),
    };
    assert_eq!(found[1].1, Edit::Search { wanted: 1 });
    assert!(matches!(&found[2].1, Edit::Replace { pages, region } if *pages == (0x80..0x81) && region.is_shared()));
    assert_eq!(backing(&found[2].1), backing(&found[4].1));
    assert_eq!(found[5].1, Edit::Remove { pages: 0x80..0x81 });
}

#[test]
fn a_child_of_fork_has_its_own_map_without_what_it_does_not_inherit() {
    let found = edits("7 exec\nmap 10 8192 rw paf\nadvise 10 4096 dontfork\nfork 8\n8 unmap 50 1\nexit\n7 exit");
    let kept = writable(RegionFlags::DONT_FORK);
    let expected = [
        (0, replace(0x10..0x11, kept)),
        (0, Edit::Fork { child: 1 }),
        (1, Edit::Remove { pages: 0x10..0x11 }),
        (1, Edit::Remove { pages: 0x50..0x51 }),
        (1, Edit::Exit),
        (0, Edit::Exit),
    ];
    assert_eq!(found[2..], expected);
}

#[test]
fn threads_and_children_of_vfork_edit_the_map_that_they_share() {
    let found =
        edits("7 exec\nthread 8\n8 unmap 1 1\n7 vfork 9\n9 unmap 2 1\nexec ! ENOENT\nexec\nexit\n8 exit\n7 exit");
    let expected = [
        (0, Edit::Exec),
        (0, Edit::Remove { pages: 1..2 }),
        (0, Edit::Remove { pages: 2..3 }),
        (1, Edit::Exec),
        (1, Edit::Exit),
        (0, Edit::Exit),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_child_may_stand_before_the_line_that_creates_it() {
    let found = edits("7 exec\n8 unmap 1 1\nexit\n7 fork 8\nunmap 2 1");
    let expected = [
        (0, Edit::Exec),
        (0, Edit::Fork { child: 1 }),
        (1, Edit::Remove { pages: 1..2 }),
        (1, Edit::Exit),
        (0, Edit::Remove { pages: 2..3 }),
    ];
    assert_eq!(found, expected);
}

#[test]
fn odd_lines_are_errors_that_name_their_place() {
    let odd = [
        "",
        "7",
        "7 ",
        "leap 1 2",
        "map",
        "map 10 4096 rw",
        "map 10 4096 rw p",
        "map 10 4096 rw pa 3 0",
        "map 10 4096 rq pa",
        "map 10 4096 rw za",
        "map 10 4096 rw paz",
        "map 10 0 rw pa",
        "map xyz 4096 rw pa",
        "map 10 -1 rw pa",
        "map ffffffffffffffff 4096 rw pa",
        "map fffffffffffff 18446744073709551615 rw pa",
        "map 10 4096 r p -3 0",
        "unmap 10 99999999999999999999",
        "protect 10 4096 R",
        "remap 10 4096 8192 20",
        "advise 10 4096 willneed",
        "shmat 1 ffffffffffffffff",
        "brk ffffffffffffffff",
        "fork 8\nfork 8",
        "99999999999 exit",
        "12 exit",
        "exit\nexit",
        "map é 4096 rw é",
    ];
    for line in odd {
        // A heap, so that its end can move.
        let text = format!("7 exec\nbrk 10\n{line}\n");
        let error = program("odd", &text).expect_err(line);
        let message = format!("{error:#}");
        let place = if line.contains('\n') { "odd.txt:4" } else { "odd.txt:3" };
        assert!(message.contains(place), "{line}: {message}");
    }
    let error = program("odd", "exec").unwrap_err();
    assert!(error.to_string().contains("odd.txt:1"), "{error}");
}

/// How often the record of `text` has a call that begins with `word` and did not fail.
fn count(text: &str, word: &str) -> usize {
    let call = |line: &str| line.trim_start_matches(|letter: char| letter.is_ascii_digit()).trim_start().to_owned();
    text.lines().map(call).filter(|line| line.starts_with(word) && !line.contains('!')).count()
}

#[test]
fn every_line_of_every_record_becomes_an_edit() {
    for ((name, text), program) in RECORDS.iter().zip(programs().unwrap()) {
        let number = |is: fn(&Edit) -> bool| program.calls.iter().filter(|call| is(&call.edit)).count();
        assert_eq!(program.name, *name);
        assert_eq!(number(|edit| matches!(edit, Edit::Protect { .. })), count(text, "protect "), "{name}");
        assert_eq!(number(|edit| matches!(edit, Edit::Exec)), count(text, "exec"), "{name}");
        assert_eq!(number(|edit| matches!(edit, Edit::Fork { .. })), count(text, "fork "), "{name}");
        let kept = text.lines().filter(|line| line.ends_with(" dontfork")).count();
        assert_eq!(number(|edit| matches!(edit, Edit::Visit { .. })), count(text, "advise ") - kept, "{name}");
        let placed = text.lines().filter(|line| {
            line.split(' ').skip_while(|word| *word != "map").nth(4).is_some_and(|kind| kind.contains(['f', 'h']))
        });
        let searched = count(text, "map ") - placed.count() + count(text, "shmat ");
        let moved = text.lines().filter(|line| {
            let words: Vec<&str> = line.split(' ').skip_while(|word| *word != "remap").collect();
            words.len() == 5 && words[1] != words[4]
        });
        assert_eq!(number(|edit| matches!(edit, Edit::Search { .. })), searched + moved.count(), "{name}");
        let replaced = count(text, "map ") + count(text, "shmat ");
        assert!(number(|edit| matches!(edit, Edit::Replace { .. })) >= replaced + kept, "{name}");
        let removed = count(text, "unmap ") + count(text, "shmdt ");
        assert!(number(|edit| matches!(edit, Edit::Remove { .. })) >= removed, "{name}");
    }
}

#[test]
fn the_records_hold_as_many_calls_as_strace_saw() {
    // Counted with grep in strace's own output, failed calls left out.
    let expected = [("map ", 5963), ("unmap ", 1281), ("protect ", 2803), ("advise ", 820), ("brk ", 1096)];
    let expected = expected.into_iter().chain([("remap ", 32), ("shmat ", 5), ("shmdt ", 5), ("exec", 87)]);
    for (word, calls) in expected.chain([("thread ", 105), ("fork ", 53), ("vfork ", 28), ("exit", 202)]) {
        let found: usize = RECORDS.iter().map(|(_, text)| count(text, word)).sum();
        assert_eq!(found, calls, "{word}");
    }
}

#[test]
fn peaks_are_those_of_real_programs() {
    // When they were recorded, the largest process of each had 40 to 430 regions. Some 20 of them are what execve
    // maps and the record lacks.
    for program in programs().unwrap() {
        let (maps, peaks) = replay(&program);
        maps.iter().for_each(Vmmap::check_invariants);
        let peak = peaks.iter().copied().max().unwrap();
        assert!((20..=430).contains(&peak), "{}: {peak}", program.name);
    }
}

#[test]
fn one_small_program_ends_with_the_regions_that_its_calls_leave() {
    let (name, text) = RECORDS.iter().find(|(name, _)| *name == "gitlog").unwrap();
    let unended = text.strip_suffix("exit\n").unwrap();
    let (maps, _) = replay(&program(name, unended).unwrap());
    let found: Vec<(u64, u64, String)> = maps[0]
        .iter()
        .map(|entry| (entry.range.first_page(), entry.range.end_page(), entry.region.prot.to_string()))
        .collect();
    // Worked out from strace's lines page by page, then by hand: where the loader made data read-only a region of its
    // own begins, and one where libc's zero pages follow its data.
    let expected = [
        (0x55a3948bd, 0x55a394988, "rw-"),
        (0x7f6329800, 0x7f632dd1c, "r--"),
        (0x7f632de00, 0x7f632e474, "r--"),
        (0x7f632e5f3, 0x7f632e673, "rw-"),
        (0x7f632e673, 0x7f632e6ca, "r--"),
        (0x7f632e6ca, 0x7f632e6cc, "rw-"),
        (0x7f632e6cc, 0x7f632e6f2, "r--"),
        (0x7f632e6f2, 0x7f632e848, "r-x"),
        (0x7f632e848, 0x7f632e89b, "r--"),
        (0x7f632e89b, 0x7f632e89f, "r--"),
        (0x7f632e89f, 0x7f632e8a1, "rw-"),
        (0x7f632e8a1, 0x7f632e8ae, "rw-"),
        (0x7f632e8ae, 0x7f632e8b1, "r--"),
        (0x7f632e8b1, 0x7f632e8c4, "r-x"),
        (0x7f632e8c4, 0x7f632e8cb, "r--"),
        (0x7f632e8cb, 0x7f632e8cc, "r--"),
        (0x7f632e8cc, 0x7f632e8cd, "rw-"),
        (0x7f632e8cd, 0x7f632e8cf, "r--"),
        (0x7f632e8cf, 0x7f632e93a, "r-x"),
        (0x7f632e93a, 0x7f632e965, "r--"),
        (0x7f632e965, 0x7f632e966, "r--"),
        (0x7f632e966, 0x7f632e967, "rw-"),
        (0x7f632e96b, 0x7f632e972, "r--"),
        (0x7f632e972, 0x7f632e974, "rw-"),
    ];
    assert_eq!(found, expected.map(|(first, end, prot)| (first, end, prot.to_owned())));
}
