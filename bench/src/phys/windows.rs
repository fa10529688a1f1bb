//! Windows that come and go: one for each access, against pread and pwrite, and one on pages that are scattered,
//! against as many mappings of the host.

use std::hint::black_box;

use anyhow::{Result, anyhow, ensure};
use nix::sys::uio::{pread, pwrite};
use pagewarden::PAGE_SIZE;
use pagewarden::frame::{FrameNumber, FrameRange};
use pagewarden::phys::{Claim, Permission, PhysMutPtr};

use super::{Manager, manager};
use crate::pager::contest::{Contestant, Stopwatch};
use crate::pager::raw::HostObject;

const PAGE: usize = 4096;
/// Pages of the memory.
const PAGES: u64 = 256;
/// Pages of a scattered window: every second.
const SCATTERED: usize = 16;
/// Operations of a turn.
const OPERATIONS: usize = 64;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// A word is read.
    ReadWord,
    /// A word is written.
    WriteWord,
    /// A page is read.
    ReadPage,
    /// A page is written.
    WritePage,
    /// A page is copied to another.
    CopyPage,
    /// A window shows pages that do not follow each other, and goes.
    Scattered,
}

impl Row {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 6] =
        [Self::ReadWord, Self::WriteWord, Self::ReadPage, Self::WritePage, Self::CopyPage, Self::Scattered];

    /// What tables and options call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadWord => "read 8 bytes, no window",
            Self::WriteWord => "write 8 bytes, no window",
            Self::ReadPage => "read 4 KiB, no window",
            Self::WritePage => "write 4 KiB, no window",
            Self::CopyPage => "copy 4 KiB, no windows",
            Self::Scattered => "vmap + vunmap, 16 scattered pages",
        }
    }

    /// How many operations a turn has.
    pub const fn operations(self) -> usize {
        OPERATIONS
    }
}

/// A page that operation number `operation` is about, and another.
const fn pages(operation: usize) -> (usize, usize) {
    (operation % OPERATIONS, operation % OPERATIONS + OPERATIONS)
}

/// Who does one operation of a row after the other, with bytes that it reads or writes.
trait Worker {
    const NAME: &'static str;

    fn work(&self, row: Row, operation: usize, bytes: &mut [u8; PAGE]) -> Result<()>;
}

/// Pointers without a window, and windows.
struct Ours {
    manager: Manager,
    frames: FrameRange,
    words: PhysMutPtr<u64, Manager>,
    bytes: PhysMutPtr<u8, Manager>,
    scattered: Vec<FrameNumber>,
}

impl Ours {
    fn new(object: &HostObject) -> Result<Self> {
        let (manager, frames) = manager(object, PAGES)?;
        let start = frames.first().start();
        let len = usize::try_from(PAGES * PAGE_SIZE)?;
        let failed = |error| anyhow!("a pointer: {error}");
        Ok(Self {
            words: PhysMutPtr::contiguous(manager.clone(), start, len / 8).map_err(failed)?,
            bytes: PhysMutPtr::contiguous(manager.clone(), start, len).map_err(failed)?,
            scattered: frames.iter().step_by(2).take(SCATTERED).collect(),
            manager,
            frames,
        })
    }
}

impl Worker for Ours {
    const NAME: &'static str = "pagewarden";

    fn work(&self, row: Row, operation: usize, bytes: &mut [u8; PAGE]) -> Result<()> {
        let (page, other) = pages(operation);
        match row {
            Row::ReadWord => bytes[..8].copy_from_slice(&self.words.read_at(page * PAGE / 8)?.to_ne_bytes()),
            Row::WriteWord => self.words.write_at(page * PAGE / 8, black_box(7))?,
            Row::ReadPage => self.bytes.read_slice_at(page * PAGE, bytes)?,
            Row::WritePage => self.bytes.write_slice_at(page * PAGE, bytes)?,
            Row::CopyPage => self.bytes.copy_from(other * PAGE, &self.bytes, page * PAGE, PAGE)?,
            Row::Scattered => self.manager.vmap(&self.scattered, Permission::ReadWrite, Claim::Beside)?.unmap()?,
        }
        Ok(())
    }
}

/// The host's calls.
struct Host<'a>(&'a HostObject);

impl Host<'_> {
    fn read(&self, page: usize, bytes: &mut [u8]) -> Result<()> {
        ensure!(pread(self.0.file(), bytes, (page * PAGE).try_into()?)? == bytes.len(), "a short read");
        Ok(())
    }

    fn write(&self, page: usize, bytes: &[u8]) -> Result<()> {
        ensure!(pwrite(self.0.file(), bytes, (page * PAGE).try_into()?)? == bytes.len(), "a short write");
        Ok(())
    }
}

impl Worker for Host<'_> {
    const NAME: &'static str = "host calls";

    fn work(&self, row: Row, operation: usize, bytes: &mut [u8; PAGE]) -> Result<()> {
        let (page, other) = pages(operation);
        match row {
            Row::ReadWord => self.read(page, &mut bytes[..8]),
            Row::WriteWord => self.write(page, &black_box(7_u64).to_ne_bytes()),
            Row::ReadPage => self.read(page, bytes),
            Row::WritePage => self.write(page, bytes),
            Row::CopyPage => {
                self.read(page, bytes)?;
                self.write(other, bytes)
            }
            Row::Scattered => {
                let mut mapped = Vec::with_capacity(SCATTERED);
                for page in 0..SCATTERED {
                    mapped.push(self.0.map_page(2 * page)?);
                }
                mapped.into_iter().try_for_each(|mapping| mapping.unmap())
            }
        }
    }
}

struct Subject<W> {
    worker: W,
    bytes: [u8; PAGE],
}

impl<W: Worker> Subject<W> {
    /// One that has shown that it does what is measured.
    fn new(worker: W, object: &HostObject) -> Result<Self> {
        let mut bytes = [0xa5; PAGE];
        worker.work(Row::WritePage, 3, &mut bytes)?;
        worker.work(Row::WriteWord, 3, &mut bytes)?;
        let other = pages(3).1 * PAGE;
        ensure!(pwrite(object.file(), &[0; PAGE], other.try_into()?)? == PAGE, "a short write");
        worker.work(Row::CopyPage, 3, &mut bytes)?;
        let (mut found, mut wanted) = ([0; PAGE], [0xa5; PAGE]);
        wanted[..8].copy_from_slice(&7_u64.to_ne_bytes());
        ensure!(pread(object.file(), &mut found, other.try_into()?)? == PAGE && found == wanted, "{}: copies", W::NAME);
        bytes.fill(0);
        worker.work(Row::ReadPage, 3, &mut bytes)?;
        ensure!(bytes == wanted, "{}: pages", W::NAME);
        bytes.fill(0);
        worker.work(Row::ReadWord, 3, &mut bytes)?;
        ensure!(bytes[..8] == wanted[..8] && bytes[8..] == [0; PAGE - 8], "{}: words", W::NAME);
        Ok(Self { worker, bytes })
    }
}

impl<W: Worker> Contestant<Row> for Subject<W> {
    fn name(&self) -> &'static str {
        W::NAME
    }

    fn turn(&mut self, row: Row, watch: &mut Stopwatch) -> Result<()> {
        let Self { worker, bytes } = self;
        watch.time(|| (0..OPERATIONS).try_for_each(|operation| worker.work(row, operation, black_box(bytes))))?
    }
}

/// That a scattered window shows the pages that it is asked for, and goes.
fn check_scattered(ours: &Ours) -> Result<()> {
    let window = ours.manager.vmap(&ours.scattered, Permission::ReadWrite, Claim::Beside)?;
    for (place, frame) in ours.scattered.iter().enumerate() {
        let page = usize::try_from(frame.get() - ours.frames.first().get())?;
        ours.words.write_at(page * PAGE / 8, page as u64)?;
        let mut word = [0; 8];
        window.read(place * PAGE, &mut word)?;
        ensure!(u64::from_ne_bytes(word) == page as u64, "page {page} is not at its place");
    }
    window.unmap()?;
    ensure!((ours.manager.live(), ours.manager.retained()) == (0, 0), "a window is left");
    Ok(())
}

/// Who takes part: pagewarden and the host.
///
/// # Errors
/// If there is no memory, or somebody does not do what is measured.
pub fn all() -> Result<Vec<Box<dyn Contestant<Row>>>> {
    let object: &'static _ = Box::leak(Box::new(object()?));
    let ours = Ours::new(object)?;
    check_scattered(&ours)?;
    Ok(vec![Box::new(Subject::new(ours, object)?), Box::new(Subject::new(Host(object), object)?)])
}

/// The memory.
fn object() -> Result<HostObject> {
    HostObject::new(usize::try_from(PAGES * PAGE_SIZE)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_come_and_go_again_and_again() {
        let mut watch = Stopwatch::new().unwrap();
        for mut one in all().unwrap() {
            for row in Row::ALL {
                one.turn(row, &mut watch).unwrap();
                assert!(watch.take() > 0.0, "{row:?} takes time");
            }
        }
        let ours = Ours::new(&object().unwrap()).unwrap();
        Row::ALL.into_iter().for_each(|row| ours.work(row, 5, &mut [0; PAGE]).unwrap());
        assert_eq!((ours.manager.live(), ours.manager.retained()), (0, 0));
    }
}
