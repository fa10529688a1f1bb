//! Steps on files that are mapped, copies, and steps that need company.

use super::super::program::{Arg, Call, FileKind, PAGE, Step};
use super::Generator;

/// Bytes that files have at the start, in pages: sizes are drawn around it.
const FILE_PAGES: u64 = 11;
/// The byte of a return instruction.
pub(super) const RETURN: u64 = 0xc3;

impl Generator {
    /// Steps that need another process or thread.
    pub(super) fn company(&mut self, call: Call) -> Step {
        let word = match call {
            Call::Fork => self.rng.below(6),
            Call::Twin => 1 + self.rng.below(8),
            Call::Vfork => self.rng.below(4),
            Call::Thread => self.rng.below(2),
            _ => self.rng.draw() & 0xffff,
        };
        Step::new(call, &[Arg::Value(word)])
    }

    /// Steps on a file, which may be mapped.
    pub(super) fn on_file(&mut self, call: Call) -> Step {
        let file = self.resized_file();
        let (offset, len) = (self.file_offset(), self.file_len());
        match call {
            Call::NewMemfd => Step::new(call, &[Arg::Value(offset)]),
            Call::Resize => {
                let odd = self.rng.pick(&[u64::MAX, 1 << 63, (1 << 63) - 1]);
                let bytes = self.rng.weighted(&[(90, offset), (6, 0), (4, odd)]);
                Step::new(call, &[file, Arg::Value(bytes)])
            }
            Call::Allocate => {
                // Plain, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, and what is refused.
                let mode = self.rng.weighted(&[(20, 0), (10, 1), (45, 3), (10, 0x10), (5, 2), (3, 8), (3, 0x20)]);
                let len = self.rng.weighted(&[(95, len), (5, 0)]);
                Step::new(call, &[file, Arg::Value(mode), Arg::Value(offset), Arg::Value(len)])
            }
            Call::FileWrite => {
                let byte = 1 + self.rng.below(255);
                Step::new(call, &[file, Arg::Value(offset), Arg::Value(len), Arg::Value(byte)])
            }
            _ => Step::new(call, &[file, Arg::Value(offset), Arg::Value(len)]),
        }
    }

    /// Copies of a run of bytes, mostly across the border of a page or a region.
    pub(super) fn copy(&mut self, call: Call) -> Step {
        if call == Call::Execute {
            return self.execute();
        }
        let Arg::At(base, delta) = self.range().0 else { return self.step() };
        let len = self.rng.pick(&[0, 1, 64, 100, PAGE, PAGE + 8, 2 * PAGE, 2 * PAGE + 100, 3 * PAGE]);
        let shift = self.rng.pick(&[0, 0, -64, -8, 0x10, 0xfc0, 0xff8]);
        let addr = Arg::At(base, delta.saturating_add(shift));
        let byte = self.rng.weighted(&[(70, 1), (30, RETURN)]) + self.rng.pick(&[0, 0, 1]);
        Step::new(call, &[addr, Arg::Value(len), Arg::Value(byte)])
    }

    /// Executes what an earlier step may have written, or anything.
    fn execute(&mut self) -> Step {
        let addr = match self.returns.len() {
            0 => self.touched(),
            _ if self.rng.chance(15) => self.touched(),
            _ => self.rng.pick(&self.returns),
        };
        Step::new(Call::Execute, &[addr])
    }

    fn resized_file(&mut self) -> Arg {
        Arg::File(self.rng.weighted(&[
            (30, FileKind::Memfd),
            (30, FileKind::ReadWrite),
            (20, FileKind::Fresh),
            (8, FileKind::Sealable),
            (3, FileKind::Sealed),
            (3, FileKind::ReadOnly),
            (3, FileKind::WriteOnly),
            (1, FileKind::Zero),
            (1, FileKind::Directory),
            (1, FileKind::Closed),
        ]))
    }

    fn file_offset(&mut self) -> u64 {
        let pages = self.rng.below(FILE_PAGES + 5) * PAGE;
        let odd = self.rng.pick(&[1, 100, 0x800, 0xfff]);
        self.rng.weighted(&[(60, pages), (40, pages + odd)])
    }

    fn file_len(&mut self) -> u64 {
        let pages = (1 + self.rng.below(3)) * PAGE;
        let odd = self.rng.pick(&[1, 100, 0x801, 0x1004]);
        self.rng.weighted(&[(60, pages), (40, odd)])
    }
}
