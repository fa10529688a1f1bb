//! The list of regions for people.
//!
//! A row a region, so that a line found with grep is complete. On a narrow terminal columns go before digits do: first
//! the kind (regions without a name then show it in the place of the name), then the units are shortened.

use anstyle::Style;
use pagewarden::Prot;
use pagewarden_linux::smaps::{Kind, Mapping, Sharing};
use unicode_width::UnicodeWidthStr;

use crate::size::{human, human_short};
use crate::style::{BAD, FAINT, HEAD, KIND, elide, paint, shown};

/// From this width on the kind has a column of its own.
const KIND_WIDTH_MIN: usize = 92;
/// Below this width `132 KiB` becomes `132K` and columns move together.
pub(super) const ROOMY_WIDTH_MIN: usize = 72;
/// No name is cut shorter, even if the line gets too long.
const NAME_WIDTH_MIN: usize = 10;

/// How much is shown of each region.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// What fits.
    Usual,
    /// All that is of use.
    Wide,
}

/// A figure of a region, or `None` if it is not known.
type Figure = fn(&Mapping) -> Option<u64>;

/// The list of regions, a line each, under column heads.
pub(super) fn regions(mappings: &[Mapping], width: Option<usize>, detail: Detail) -> String {
    let sheet = Sheet::new(mappings, width, detail);
    let mut text = sheet.head();
    let mut previous = None;
    for mapping in mappings {
        text.push_str(&sheet.row(mapping, previous));
        previous = Some(mapping);
    }
    text
}

/// A column with a figure in each row.
struct FigureColumn {
    head: &'static str,
    figure: Figure,
    width: usize,
}

struct Sheet {
    width: Option<usize>,
    gap: &'static str,
    address_width: usize,
    figures: Vec<FigureColumn>,
    with_kind: bool,
    with_offset: bool,
}

impl Sheet {
    fn new(mappings: &[Mapping], width: Option<usize>, detail: Detail) -> Self {
        let mut wanted: Vec<(&str, Figure)> =
            vec![("SIZE", |mapping| Some(mapping.size())), ("RESIDENT", |mapping| mapping.figures.resident())];
        if detail == Detail::Wide {
            wanted.extend::<[(&str, Figure); 4]>([
                ("PSS", |mapping| mapping.figures.pss),
                ("PRIV DIRTY", |mapping| mapping.figures.private_dirty),
                ("SWAP", |mapping| mapping.figures.swap),
                ("LOCKED", |mapping| mapping.figures.locked),
            ]);
        }
        let roomy = width.is_none_or(|width| width >= ROOMY_WIDTH_MIN);
        let mut sheet = Self {
            width,
            gap: if roomy { "  " } else { " " },
            // The page of vsyscall lies so high that its address would widen the column for all.
            address_width: mappings
                .iter()
                .filter(|mapping| mapping.kind() != Kind::Kernel)
                .map(|mapping| bounds(mapping).len())
                .fold("ADDRESS".len(), usize::max),
            figures: Vec::new(),
            with_kind: width.is_none_or(|width| width >= KIND_WIDTH_MIN),
            with_offset: detail == Detail::Wide,
        };
        for (head, figure) in wanted {
            // Figures that the kernel does not give have no column.
            if mappings.iter().any(|mapping| figure(mapping).is_some()) {
                let widths = mappings.iter().map(|mapping| sheet.size_text(figure(mapping)).len());
                let head = if head == "RESIDENT" && !roomy { "RSS" } else { head };
                sheet.figures.push(FigureColumn { head, figure, width: widths.fold(head.len(), usize::max) });
            }
        }
        sheet
    }

    fn size_text(&self, bytes: Option<u64>) -> String {
        match bytes {
            None => "-".to_owned(),
            Some(bytes) if self.gap.len() > 1 => human(bytes),
            Some(bytes) => human_short(bytes),
        }
    }

    fn head(&self) -> String {
        let mut cells = vec![format!("{:<1$}", "ADDRESS", self.address_width)];
        cells.extend(self.figures.iter().map(|column| format!("{:>1$}", column.head, column.width)));
        cells.push("PROT".to_owned());
        if self.with_offset {
            cells.push(format!("{:<8}", "OFFSET"));
        }
        if self.with_kind {
            cells.push(format!("{:<9}", "KIND"));
        }
        cells.push("NAME".to_owned());
        paint(HEAD, cells.join(self.gap)) + "\n"
    }

    fn row(&self, mapping: &Mapping, previous: Option<&Mapping>) -> String {
        let mut row = Row::new(self.gap);
        row.push(Style::new(), &format!("{:<1$}", bounds(mapping), self.address_width));
        row.late = row.columns - self.address_width;
        for column in &self.figures {
            let figure = (column.figure)(mapping);
            let style = if figure == Some(0) { FAINT } else { Style::new() };
            row.push(style, &format!("{:>1$}", self.size_text(figure), column.width));
        }
        let (rights, rights_style) = rights(mapping);
        row.push(rights_style, &rights);
        if self.with_offset {
            row.push(FAINT, &format!("{:08x}", mapping.offset));
        }
        let nameless = mapping.name.is_empty();
        let kind = mapping.kind().name();
        if nameless {
            row.push(KIND, kind);
        } else if self.with_kind {
            row.push(KIND, &format!("{kind:<9}"));
        }
        if !nameless {
            let room = self.width.map(|width| width.saturating_sub(row.columns + self.gap.len()).max(NAME_WIDTH_MIN));
            let repeats = previous.is_some_and(|previous| previous.name == mapping.name);
            row.push(if repeats { FAINT } else { Style::new() }, &name(mapping, room));
        }
        row.text + "\n"
    }
}

/// A line in the making.
struct Row {
    text: String,
    /// How many columns it takes on a terminal.
    columns: usize,
    /// By how many columns a cell was too long; the blanks before the next cells make up for it.
    late: usize,
    gap: &'static str,
}

impl Row {
    const fn new(gap: &'static str) -> Self {
        Self { text: String::new(), columns: 0, late: 0, gap }
    }

    fn push(&mut self, style: Style, cell: &str) {
        let spare = cell.len() - cell.trim_start().len();
        let cell = &cell[spare.min(self.late)..];
        self.late -= spare.min(self.late);
        if !self.text.is_empty() {
            self.text.push_str(self.gap);
            self.columns += self.gap.len();
        }
        self.columns += cell.width();
        if style == Style::new() {
            self.text.push_str(cell);
        } else {
            self.text.push_str(&paint(style, cell));
        }
    }
}

fn bounds(mapping: &Mapping) -> String {
    format!("{:08x}-{:08x}", mapping.start, mapping.end)
}

/// `rw-p`; what is writable and executable at once stands out.
fn rights(mapping: &Mapping) -> (String, Style) {
    let sharing = match mapping.sharing {
        Sharing::Private => 'p',
        Sharing::Shared => 's',
    };
    let style = if mapping.prot.contains(Prot::WRITE | Prot::EXEC) {
        BAD
    } else if mapping.prot.is_empty() {
        FAINT
    } else {
        Style::new()
    };
    (format!("{}{sharing}", mapping.prot), style)
}

/// The name in at most `room` columns; that the file is deleted is said if there is room for it.
fn name(mapping: &Mapping, room: Option<usize>) -> String {
    const DELETED: &str = " (deleted)";
    let name = shown(&mapping.name);
    match room {
        None if mapping.deleted => name + DELETED,
        None => name,
        Some(room) if mapping.deleted && room >= NAME_WIDTH_MIN + DELETED.len() => {
            elide(&name, room - DELETED.len()) + DELETED
        }
        Some(room) => elide(&name, room),
    }
}
