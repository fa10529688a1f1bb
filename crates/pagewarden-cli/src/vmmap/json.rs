//! The map as JSON. Sizes are bytes; addresses and offsets are hexadecimal text; what the kernel does not tell is null.

use pagewarden_linux::smaps::{Kind, Mapping, Sharing};
use serde::Serialize;

use super::Subject;
use super::totals::{Total, totals};

#[derive(Serialize)]
struct Map {
    pid: i32,
    command: Vec<String>,
    regions: Vec<Region>,
    /// A sum a kind that occurs.
    totals: Vec<KindSum>,
    total: Sum,
}

#[derive(Serialize)]
struct Region {
    start: String,
    end: String,
    size: u64,
    resident: Option<u64>,
    prot: String,
    sharing: &'static str,
    kind: &'static str,
    name: Option<String>,
    deleted: bool,
    offset: String,
    device: String,
    inode: u64,
    pss: Option<u64>,
    shared_clean: Option<u64>,
    shared_dirty: Option<u64>,
    private_clean: Option<u64>,
    private_dirty: Option<u64>,
    anonymous: Option<u64>,
    anon_huge_pages: Option<u64>,
    swap: Option<u64>,
    locked: Option<u64>,
    vm_flags: Vec<String>,
}

#[derive(Serialize)]
struct Sum {
    regions: u64,
    size: u64,
    resident: Option<u64>,
    private_dirty: Option<u64>,
    swap: Option<u64>,
}

#[derive(Serialize)]
struct KindSum {
    kind: &'static str,
    #[serde(flatten)]
    sum: Sum,
}

impl Region {
    fn new(mapping: &Mapping) -> Self {
        let figures = &mapping.figures;
        let name = &mapping.name;
        Self {
            start: format!("{:#x}", mapping.start),
            end: format!("{:#x}", mapping.end),
            size: mapping.size(),
            resident: figures.resident(),
            prot: mapping.prot.to_string(),
            sharing: match mapping.sharing {
                Sharing::Private => "private",
                Sharing::Shared => "shared",
            },
            kind: mapping.kind().name(),
            name: (!name.is_empty()).then(|| name.to_string_lossy().into_owned()),
            deleted: mapping.deleted,
            offset: format!("{:#x}", mapping.offset),
            device: format!("{:02x}:{:02x}", mapping.device.0, mapping.device.1),
            inode: mapping.inode,
            pss: figures.pss,
            shared_clean: figures.shared_clean,
            shared_dirty: figures.shared_dirty,
            private_clean: figures.private_clean,
            private_dirty: figures.private_dirty,
            anonymous: figures.anonymous,
            anon_huge_pages: figures.anon_huge_pages,
            swap: figures.swap,
            locked: figures.locked,
            vm_flags: mapping.flags.clone(),
        }
    }
}

impl From<Total> for Sum {
    fn from(total: Total) -> Self {
        let Total { regions, size, resident, private_dirty, swap } = total;
        Self { regions, size, resident, private_dirty, swap }
    }
}

/// The map of `subject`, with a newline at its end.
pub(super) fn render(subject: &Subject) -> Result<String, serde_json::Error> {
    let (by_kind, total) = totals(&subject.mappings);
    let kind_sum = |(kind, total): (Kind, Total)| KindSum { kind: kind.name(), sum: total.into() };
    let map = Map {
        pid: subject.pid,
        command: subject.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        regions: subject.mappings.iter().map(Region::new).collect(),
        totals: by_kind.into_iter().map(kind_sum).collect(),
        total: total.into(),
    };
    serde_json::to_string_pretty(&map).map(|text| text + "\n")
}
