//! Compares the manager's map with what the host says is mapped in the arena.

use pagewarden::{PageManager, PageRange, Prot, Vmmap};

use super::ArenaProvider;
use super::warm::WarmPages;
use crate::proc_maps::{self, MapsEntry};
use crate::traced::verify::difference;

/// Whether `map` and the host agree on `arena`: all that the manager knows is there as it knows it, the rest is
/// vacant, and there is no hole.
pub(super) fn verify(manager: &PageManager<ArenaProvider>) -> Result<(), String> {
    let (map, provider) = (manager.map(), manager.provider());
    let arena = provider.range();
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
    if let Some(run) = provider.warm.parts(arena).find(|run| !map.is_free(*run)) {
        return Err(format!("{run} is mapped, and noted as vacant"));
    }
    let known: Vec<MapsEntry> =
        inside.into_iter().flat_map(|entry| without_vacant(entry, map, &provider.warm)).collect();
    difference(map, &known, arena.end()).map_or(Ok(()), Err)
}

/// The part of a mapping that lies in `range`.
fn clip(entry: MapsEntry, range: PageRange) -> Option<MapsEntry> {
    let part = entry.range.intersection(range)?;
    let is_file = entry.inode != 0 || entry.device != 0;
    let skipped = if is_file { part.start().as_u64() - entry.range.start().as_u64() } else { 0 };
    Some(MapsEntry { range: part, offset: entry.offset + skipped, ..entry })
}

/// Vacant pages look like a mapping without rights, or are warm: of such mappings only what the manager knows counts,
/// or what is not warm.
fn without_vacant(entry: MapsEntry, map: &Vmmap, warm: &WarmPages) -> Vec<MapsEntry> {
    let is_anonymous = !entry.shared && entry.inode == 0 && entry.name.is_empty();
    let is_warm = entry.prot == Prot::READ | Prot::WRITE && warm.intersects(entry.range);
    if !is_anonymous || entry.prot != Prot::NONE && !is_warm {
        return vec![entry];
    }
    if is_warm {
        let mut rest = vec![entry.range];
        for part in warm.parts(entry.range) {
            let halves = |range: PageRange| [range.below(part.start()), range.from(part.end())];
            rest = rest.into_iter().flat_map(halves).flatten().collect();
        }
        return rest.into_iter().filter_map(|range| clip(entry.clone(), range)).collect();
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
        let mut warm = WarmPages::default();
        let known: Vec<_> = without_vacant(entry, &map, &warm).into_iter().map(|entry| entry.range).collect();
        assert_eq!(known, [pages(3, 1)]);
        let entry = proc_maps::parse_line(b"1000-8000 rw-p 00000000 00:00 0").unwrap();
        assert_eq!(without_vacant(entry.clone(), &map, &warm), std::slice::from_ref(&entry));
        assert_eq!(warm.insert(pages(2, 3)), None);
        let known: Vec<_> = without_vacant(entry, &map, &warm).into_iter().map(|entry| entry.range).collect();
        assert_eq!(known, [pages(1, 1), pages(5, 3)]);
    }
}
