//! How text looks: colours, widths, and names cut to fit.
//!
//! Everything is written with its colours; the streams of `anstream` take them out again unless they lead to a terminal
//! that wants them (`NO_COLOR`, `TERM=dumb`). Names come from other programs: whatever could steer a terminal is
//! replaced before it is shown.

use std::ffi::OsStr;
use std::fmt::Display;

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Titles and column heads.
pub(crate) const HEAD: Style = Style::new().bold();
/// What repeats or matters less.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// All is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Worth a look.
pub(crate) const NOTABLE: Style = AnsiColor::Yellow.on_default();
/// Something was refused or went wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Names of kinds.
pub(crate) const KIND: Style = AnsiColor::Cyan.on_default();

/// `text` in `style`.
pub(crate) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// The columns of the terminal behind standard output (`COLUMNS` overrides it); `None` if it leads elsewhere.
pub(crate) fn output_width() -> Option<usize> {
    columns_variable().or_else(|| width_of(std::io::stdout()))
}

/// The same for standard error.
pub(crate) fn error_width() -> Option<usize> {
    columns_variable().or_else(|| width_of(std::io::stderr()))
}

fn columns_variable() -> Option<usize> {
    std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| *columns > 0)
}

fn width_of(stream: impl std::os::fd::AsFd) -> Option<usize> {
    terminal_size::terminal_size_of(stream).map(|(width, _)| usize::from(width.0)).filter(|columns| *columns > 0)
}

/// A name from outside as it may be shown: control characters as `\012`, bytes that are not UTF-8 as U+FFFD.
pub(crate) fn shown(name: &OsStr) -> String {
    let mut text = String::with_capacity(name.len());
    for letter in name.to_string_lossy().chars() {
        if letter.is_control() || is_direction_mark(letter) {
            text.push_str(&format!("\\{:03o}", u32::from(letter)));
        } else {
            text.push(letter);
        }
    }
    text
}

/// Marks that change the order in which a terminal shows the letters after them.
const fn is_direction_mark(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `name` in at most `width` columns: of a path the middle of the folder gives way, then all of it, then the middle of
/// the file name.
pub(crate) fn elide(name: &str, width: usize) -> String {
    if name.width() <= width {
        return name.to_owned();
    }
    let (folder, file) = name.rfind('/').map_or(("", name), |slash| name.split_at(slash));
    match width.checked_sub(1 + file.width()) {
        Some(room) if !folder.is_empty() => format!("{}…{file}", head_of(folder, room)),
        _ => cut_middle(file.strip_prefix('/').unwrap_or(file), width),
    }
}

fn cut_middle(text: &str, width: usize) -> String {
    match width.checked_sub(1) {
        _ if text.width() <= width => text.to_owned(),
        Some(room) => format!("{}…{}", head_of(text, room / 2), tail_of(text, room.div_ceil(2))),
        None => String::new(),
    }
}

/// `text` in at most `width` columns: the end gives way, as of a command line.
pub(crate) fn cut(text: &str, width: usize) -> String {
    match width.checked_sub(1) {
        _ if text.width() <= width => text.to_owned(),
        Some(room) => format!("{}…", head_of(text, room)),
        None => String::new(),
    }
}

fn head_of(text: &str, width: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, letter)| {
        used += letter.width().unwrap_or(0);
        used > width
    });
    &text[..end.map_or(text.len(), |(index, _)| index)]
}

fn tail_of(text: &str, width: usize) -> &str {
    let mut used = 0;
    let before = text.char_indices().rev().find(|(_, letter)| {
        used += letter.width().unwrap_or(0);
        used > width
    });
    &text[before.map_or(0, |(index, letter)| index + letter.len_utf8())..]
}

/// A column of a [`table`]: its head and on which side it is flush.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Column {
    const fn parts(self) -> (&'static str, CellAlignment) {
        match self {
            Self::Left(head) => (head, CellAlignment::Left),
            Self::Right(head) => (head, CellAlignment::Right),
        }
    }
}

/// A plain table: bold heads, no lines, `indent` blanks before the first column.
pub(crate) fn table(columns: &[Column], indent: u16, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| Cell::new(column.parts().0)));
    for row in rows {
        table.add_row(row);
    }
    for (column, wanted) in table.column_iter_mut().zip(columns) {
        column.set_cell_alignment(wanted.parts().1);
        column.set_padding((if column.index == 0 { indent } else { 2 }, 0));
    }
    let mut lines = table.lines().map(|line| line.trim_end().to_owned());
    let head = lines.next().map(|head| paint(HEAD, head)).unwrap_or_default();
    std::iter::once(head).chain(lines).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_left_alone() {
        assert_eq!(elide("/usr/bin/cat", 12), "/usr/bin/cat");
        assert_eq!(elide("", 0), "");
    }

    #[test]
    fn the_middle_of_a_path_goes_before_its_file_name() {
        assert_eq!(elide("/usr/lib/x86_64-linux-gnu/libc.so.6", 20), "/usr/lib/…/libc.so.6");
        assert_eq!(elide("/usr/lib/x86_64-linux-gnu/libc.so.6", 12), "/…/libc.so.6");
        assert_eq!(elide("/usr/lib/x86_64-linux-gnu/libc.so.6", 11), "…/libc.so.6");
        assert_eq!(elide("/usr/lib/x86_64-linux-gnu/libc.so.6", 10), "libc.so.6");
        assert_eq!(elide("/usr/lib/x86_64-linux-gnu/libc.so.6", 8), "lib…so.6");
        assert_eq!(elide("[anon:a long name of an arena]", 11), "[anon…rena]");
    }

    #[test]
    fn nothing_is_ever_wider_than_asked() {
        for name in [
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/日本語/ファイル名.so",
            "日本語ファイル",
            "abc",
            "/",
            "e\u{301}e\u{301}e\u{301}",
        ] {
            for width in 0..40 {
                assert!(elide(name, width).width() <= width, "{name} in {width}");
            }
        }
        assert_eq!(elide("/日本/語.so", 8), "/…/語.so");
    }

    #[test]
    fn a_command_line_is_cut_at_its_end() {
        assert_eq!(cut("7: sleep 100", 12), "7: sleep 100");
        assert_eq!(cut("7: sleep 100", 11), "7: sleep 1…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 1), "…");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(shown(OsStr::new("/a\nb\x1b[31m\u{9b}c\u{202e}d")), "/a\\012b\\033[31m\\233c\\20056d");
        assert_eq!(shown(OsStr::new("/größe 日本")), "/größe 日本");
    }

    #[test]
    fn a_table_is_aligned_and_has_no_blanks_at_the_end() {
        let rows = [vec!["mmap".to_owned(), "1,234".to_owned()], vec!["brk".to_owned(), "5".to_owned()]];
        let text = table(&[Column::Left("CALL"), Column::Right("COUNT")], 2, rows);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain, "  CALL  COUNT\n  mmap  1,234\n  brk       5\n");
        assert!(text.starts_with("\x1b[1m  CALL  COUNT\x1b[0m\n"));
    }
}
