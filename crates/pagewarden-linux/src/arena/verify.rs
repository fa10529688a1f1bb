//! Compares the manager's map with what the host says is mapped in the arena.

use pagewarden::{PageRange, Prot, Vmmap};

use crate::proc_maps::{self, MapsEntry};
use crate::traced::verify::difference;

/// Whether `map` and the host agree on `arena`: all that the manager knows is there as it knows it, the rest is
/// vacant, and there is no hole.
pub(super) fn verify(map: &Vmmap, arena: PageRange) -> Result<(), String> {
    let entries = proc_maps::read(std::process::id().cast_signed()).map_err(|error| error.to_string())?;
    let inside: Vec<MapsEntry> = entries.into_iter().filter_map(|entry| clip(entry, arena)).collect();
    let mut next = arena.start();
    for entry in &inside {
        if entry.range.start() != next {
            return Err(format!("nothing is mapped between {next} and {}", entry.range.start()));
        }
        next = entry.range.end();
    }
    if next != arena.end() {
        return Err(format!("nothing is mapped between {next} and {}", arena.end()));
    }
    let known: Vec<MapsEntry> = inside.into_iter().flat_map(|entry| without_vacant(entry, map)).collect();
    difference(map, &known, arena.end()).map_or(Ok(()), Err)
}

/// The part of a mapping that lies in `range`.
fn clip(entry: MapsEntry, range: PageRange) -> Option<MapsEntry> {
    let part = entry.range.intersection(range)?;
    let is_file = entry.inode != 0 || entry.device != 0;
    let skipped = if is_file { part.start().as_u64() - entry.range.start().as_u64() } else { 0 };
    Some(MapsEntry { range: part, offset: entry.offset + skipped, ..entry })
}

/// Vacant pages look like a mapping without rights: only what the manager knows of such a one counts.
fn without_vacant(entry: MapsEntry, map: &Vmmap) -> Vec<MapsEntry> {
    let may_be_vacant = entry.prot == Prot::NONE && !entry.shared && entry.inode == 0 && entry.name.is_empty();
    if !may_be_vacant {
        return vec![entry];
    }
    map.range(entry.range).filter_map(|known| clip(entry.clone(), known.range)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagewarden::{PageCount, Region};

    fn pages(first: u64, count: u64) -> PageRange {
        PageRange::from_pages(first, PageCount::new(count)).unwrap()
    }

    #[test]
    fn only_what_the_manager_knows_of_a_mapping_without_rights_counts() {
        let mut map = Vmmap::new(PageCount::ZERO);
        map.insert(pages(3, 1), Region::anonymous(Prot::NONE)).unwrap();
        let entry = proc_maps::parse_line(b"1000-8000 ---p 00000000 00:00 0").unwrap();
        let known: Vec<_> = without_vacant(entry, &map).into_iter().map(|entry| entry.range).collect();
        assert_eq!(known, [pages(3, 1)]);
        let entry = proc_maps::parse_line(b"1000-8000 rw-p 00000000 00:00 0").unwrap();
        assert_eq!(without_vacant(entry.clone(), &map), [entry]);
    }
}
