//! The blocks of `/proc/PID/smaps`: a line of maps and what follows it.

use pagewarden::linux::proc_text::PageUsage;

/// Shared anonymous memory, whose inode nobody is told.
const SECRET: &str = "/dev/zero (deleted)";

#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) start: u64,
    end: u64,
    /// The line of maps, without what nobody is told.
    pub(crate) line: String,
    /// The lines that follow it.
    rest: Vec<String>,
}

/// The line with inode 0 instead of one that nobody is told; the name keeps its column.
pub(crate) fn without_secret(line: &str) -> String {
    if !line.ends_with(SECRET) {
        return line.to_owned();
    }
    let mut fields = line.splitn(6, ' ');
    let mut field = || fields.next().unwrap();
    let head = [field(), field(), field(), field()].join(" ");
    format!("{:<73}{SECRET}", format!("{head} 0 "))
}

pub(crate) fn parse(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in text.lines() {
        let bounds = line.split(' ').next().and_then(|range| range.split_once('-'));
        let bounds = bounds.and_then(|(start, end)| Some((hex(start)?, hex(end)?)));
        match (bounds, blocks.last_mut()) {
            (Some((start, end)), _) => {
                blocks.push(Block { start, end, line: without_secret(line), rest: Vec::new() });
            }
            (None, Some(last)) => last.rest.push(line.to_owned()),
            (None, None) => panic!("smaps begins with {line}"),
        }
    }
    blocks
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// Merges neighbours that differ in nothing but what is resident.
pub(crate) fn merge(blocks: impl Iterator<Item = Block>) -> Vec<Block> {
    let mut merged: Vec<Block> = Vec::new();
    for block in blocks {
        match merged.last_mut() {
            Some(last) if last.goes_on_with(&block) => last.add(&block),
            _ => merged.push(block),
        }
    }
    merged
}

impl Block {
    /// Rights, offset, device and inode, name.
    fn fields(&self) -> (&str, u64, String) {
        let mut fields = self.line.splitn(4, ' ');
        fields.next();
        let (rights, offset) = (fields.next().unwrap(), hex(fields.next().unwrap()).unwrap());
        let rest: Vec<&str> = fields.next().unwrap().split_whitespace().collect();
        (rights, offset, rest.join(" "))
    }

    pub(crate) fn flags(&self) -> &str {
        self.rest.iter().find_map(|line| line.strip_prefix("VmFlags: ")).unwrap_or("").trim()
    }

    fn goes_on_with(&self, next: &Self) -> bool {
        let ((rights, offset, rest), (next_rights, next_offset, next_rest)) = (self.fields(), next.fields());
        let is_file = rest.split(' ').nth(1) != Some("0") || rest.ends_with(SECRET);
        self.end == next.start
            && (rights, &rest, self.flags()) == (next_rights, &next_rest, next.flags())
            && if is_file { offset + (self.end - self.start) == next_offset } else { true }
    }

    fn add(&mut self, next: &Self) {
        let old = format!("{:08x}-{:08x}", self.start, self.end);
        self.end = next.end;
        self.line = self.line.replacen(&old, &format!("{:08x}-{:08x}", self.start, self.end), 1);
        for (line, other) in self.rest.iter_mut().zip(&next.rest) {
            let Some((name, kib)) = figure(line) else { continue };
            let (_, more) = figure(other).unwrap();
            if !name.ends_with("PageSize") {
                let width = line.len() - name.len() - ": kB".len();
                *line = format!("{name}:{:>width$} kB", kib + more);
            }
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        std::iter::once(&self.line).chain(&self.rest).cloned().collect()
    }

    fn kib(&self, wanted: &str) -> u64 {
        self.rest.iter().filter_map(|line| figure(line)).find(|(name, _)| *name == wanted).unwrap().1
    }

    pub(crate) fn usage(&self) -> PageUsage {
        let thp = self.rest.iter().find_map(|line| line.strip_prefix("THPeligible:")).unwrap();
        PageUsage {
            rss: self.kib("Rss"),
            pss: self.kib("Pss"),
            pss_dirty: self.kib("Pss_Dirty"),
            shared_clean: self.kib("Shared_Clean"),
            shared_dirty: self.kib("Shared_Dirty"),
            private_clean: self.kib("Private_Clean"),
            private_dirty: self.kib("Private_Dirty"),
            referenced: self.kib("Referenced"),
            anonymous: self.kib("Anonymous"),
            ksm: self.kib("KSM"),
            lazy_free: self.kib("LazyFree"),
            anon_huge_pages: self.kib("AnonHugePages"),
            shmem_pmd_mapped: self.kib("ShmemPmdMapped"),
            file_pmd_mapped: self.kib("FilePmdMapped"),
            shared_hugetlb: self.kib("Shared_Hugetlb"),
            private_hugetlb: self.kib("Private_Hugetlb"),
            swap: self.kib("Swap"),
            swap_pss: self.kib("SwapPss"),
            locked: self.kib("Locked"),
            thp_eligible: thp.trim().parse().unwrap(),
        }
    }
}

/// Name and KiB of a line that has them.
fn figure(line: &str) -> Option<(&str, u64)> {
    let (name, value) = line.split_once(':')?;
    Some((name, value.trim().strip_suffix(" kB")?.parse().ok()?))
}

/// A number for two letters.
pub(crate) fn number_of(letters: &str) -> u32 {
    letters.bytes().fold(0, |number, byte| number * 31 + u32::from(byte))
}
