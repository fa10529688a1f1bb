//! The lines of a record (`bench/traces/README.md`), one by one.
//!
//! Owns the form alone. What a call means for a map is the model's.

use anyhow::{Context, Result, bail, ensure};
use pagewarden::{PageCount, PageRange, Prot, RegionFlags};

/// A line of a record.
#[derive(Clone, Debug)]
pub(super) struct Line<'a> {
    /// File and line number, for errors.
    pub(super) place: Place<'a>,
    /// The thread that called.
    pub(super) pid: u32,
    /// What it called.
    pub(super) event: Event,
}

/// Where a line stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    name: &'a str,
    number: usize,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.txt:{}", self.name, self.number)
    }
}

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Map(Map),
    Unmap(PageRange),
    Protect(PageRange, Prot),
    /// From where to where; the start of the second is the start of the first when nothing moved.
    Remap(PageRange, PageRange),
    /// The page number of the end of the heap.
    Brk(u64),
    Advise(PageRange, Advice),
    /// Identifier and page number.
    ShmAttach(i32, u64),
    ShmDetach(u64),
    Create(Creation, u32),
    Exec,
    Exit,
    Failed,
}

/// An mmap that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) range: PageRange,
    pub(super) prot: Prot,
    pub(super) kind: Kind,
    /// Descriptor and first page of a file.
    pub(super) file: Option<(u32, u64)>,
}

/// How memory was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) placement: Placement,
    is_anonymous: bool,
    /// The flags that the region has.
    pub(super) flags: RegionFlags,
}

/// Who said where the memory is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// The kernel, after a search.
    Searched,
    /// The program, where nothing was.
    Hinted,
    /// The program, whatever was there.
    Fixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    DontFork,
    DontNeed,
    Free,
}

/// What a new thread shares with the one that created it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Creation {
    /// The map, for good.
    Thread,
    /// Nothing: it has a copy.
    Fork,
    /// The map, until it calls execve or ends.
    Vfork,
}

/// All lines of the record `text` of program `name`.
pub(super) fn parse<'a>(name: &'a str, text: &str) -> Result<Vec<Line<'a>>> {
    let mut pid = None;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = Place { name, number: index + 1 };
        let mut rest = line;
        if let Some((first, after)) = line.split_once(' ')
            && first.starts_with(|letter: char| letter.is_ascii_digit())
        {
            pid = Some(first.parse().with_context(|| format!("{place}: number of a thread: {line}"))?);
            rest = after;
        }
        let pid = pid.with_context(|| format!("{place}: no thread: {line}"))?;
        let event = event(rest).with_context(|| format!("{place}: {line}"))?;
        lines.push(Line { place, pid, event });
    }
    Ok(lines)
}

fn event(text: &str) -> Result<Event> {
    let words: Vec<&str> = text.split(' ').collect();
    Ok(match words[..] {
        [_, "!", _] => Event::Failed,
        ["map", first, bytes, prot, kind] => Event::Map(map([first, bytes, prot, kind], None)?),
        ["map", first, bytes, prot, kind, fd, offset] => {
            Event::Map(map([first, bytes, prot, kind], Some((fd.parse().context("descriptor")?, page(offset)?)))?)
        }
        ["unmap", first, bytes] => Event::Unmap(range(first, bytes)?),
        ["protect", first, bytes, prot] => Event::Protect(range(first, bytes)?, rights(prot)?),
        ["remap", old, old_bytes, new_bytes, new] => Event::Remap(range(old, old_bytes)?, range(new, new_bytes)?),
        ["brk", end] => Event::Brk(page(end)?),
        ["advise", first, bytes, advice] => Event::Advise(range(first, bytes)?, self::advice(advice)?),
        ["shmat", id, first] => Event::ShmAttach(id.parse().context("identifier")?, page(first)?),
        ["shmdt", first] => Event::ShmDetach(page(first)?),
        ["thread", pid] => Event::Create(Creation::Thread, pid.parse().context("number of a thread")?),
        ["fork", pid] => Event::Create(Creation::Fork, pid.parse().context("number of a thread")?),
        ["vfork", pid] => Event::Create(Creation::Vfork, pid.parse().context("number of a thread")?),
        ["exec"] => Event::Exec,
        ["exit"] => Event::Exit,
        _ => bail!("no such call, or not its arguments"),
    })
}

fn map([first, bytes, prot, letters]: [&str; 4], file: Option<(u32, u64)>) -> Result<Map> {
    let kind = kind(letters)?;
    ensure!(kind.is_anonymous == file.is_none(), "either anonymous or of a file");
    Ok(Map { range: range(first, bytes)?, prot: rights(prot)?, kind, file })
}

fn page(word: &str) -> Result<u64> {
    u64::from_str_radix(word, 16).with_context(|| format!("not the number of a page: {word}"))
}

fn range(first: &str, bytes: &str) -> Result<PageRange> {
    let bytes = bytes.parse().with_context(|| format!("not a length: {bytes}"))?;
    PageRange::from_pages(page(first)?, PageCount::from_bytes_up(bytes)).context("no page, or beyond the last page")
}

fn rights(word: &str) -> Result<Prot> {
    if word == "-" {
        return Ok(Prot::NONE);
    }
    word.chars().try_fold(Prot::NONE, |prot, letter| match letter {
        'r' => Ok(prot | Prot::READ),
        'w' => Ok(prot | Prot::WRITE),
        'x' => Ok(prot | Prot::EXEC),
        _ => bail!("no such right: {letter}"),
    })
}

fn kind(word: &str) -> Result<Kind> {
    let (flags, rest) = match word.split_at_checked(1) {
        Some(("s", rest)) => (RegionFlags::SHARED, rest),
        Some(("p", rest)) => (RegionFlags::empty(), rest),
        _ => bail!("neither shared nor private: {word}"),
    };
    let mut kind = Kind { placement: Placement::Searched, is_anonymous: false, flags };
    for letter in rest.chars() {
        match letter {
            'f' => kind.placement = Placement::Fixed,
            'h' => kind.placement = Placement::Hinted,
            'a' => kind.is_anonymous = true,
            'n' => kind.flags |= RegionFlags::NO_RESERVE,
            // What Linux makes of MAP_STACK.
            't' => kind.flags |= RegionFlags::NO_HUGE_PAGE,
            _ => bail!("no such kind: {letter}"),
        }
    }
    Ok(kind)
}

fn advice(word: &str) -> Result<Advice> {
    Ok(match word {
        "dontfork" => Advice::DontFork,
        "dontneed" => Advice::DontNeed,
        "free" => Advice::Free,
        _ => bail!("no such advice: {word}"),
    })
}
