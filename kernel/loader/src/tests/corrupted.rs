//! Images that are cut off or changed somewhere: refused or loaded, and nothing else.

use std::vec::Vec;

use super::elf::{Elf, HEADER_BYTES, PROGRAM_HEADER_BYTES};
use super::{World, pages, regions};
use crate::{Arguments, Image, ImageError, STACK_TOP, map_stack};
use pagewarden::{Prot, VirtAddr};

/// Holds what a loaded image must be, whatever it was made from; and that it goes again without a trace.
fn check_load(world: &World, image: &Image<'_>) {
    let space = world.space();
    let before = world.usage();
    if image.map(&space).is_err() {
        assert_eq!((regions(&space), world.usage()), (Vec::new(), before));
        return;
    }
    let regions = regions(&space);
    let user = pages(0x1_0000, 0x7fff_ffff_f000);
    for (range, prot) in &regions {
        assert!(user.contains_range(*range), "{range:?}");
        assert!(!prot.contains(Prot::WRITE | Prot::EXEC), "{range:?}");
    }
    let code = regions.iter().find(|(range, _)| range.contains(image.entry()));
    assert!(code.is_some_and(|(_, prot)| prot.contains(Prot::EXEC)), "the entry");
    assert_eq!(regions.last().map(|(range, _)| range.end()), Some(image.program_break()));
    let arguments = Arguments { image: *image, name: b"a", others: &[], random: [0; 16] };
    let is_free = image.program_break() <= VirtAddr::new(STACK_TOP.as_u64() - 0x4000);
    assert_eq!(map_stack(&space, &arguments).is_ok(), is_free);
}

#[test]
fn an_image_that_is_cut_off_is_refused_wherever_that_is() {
    let file = Elf::usual().to_bytes();
    let headers_end = HEADER_BYTES + 7 * PROGRAM_HEADER_BYTES;
    for len in 0..file.len() {
        let expected = match len {
            0..4 => ImageError::NotElf,
            4..HEADER_BYTES => ImageError::Truncated,
            _ if len < headers_end => ImageError::HeadersOutside,
            _ => ImageError::SegmentOutside,
        };
        assert_eq!(Image::parse(&file[..len]).unwrap_err(), expected, "{len} bytes");
    }
    assert!(Image::parse(&file).is_ok());
}

#[test]
fn any_byte_of_the_headers_may_be_anything() {
    let world = World::new();
    let mut file = Elf::usual().to_bytes();
    let mut loaded = 0;
    for at in 0..HEADER_BYTES + 7 * PROGRAM_HEADER_BYTES {
        let original = file[at];
        for byte in 0..=u8::MAX {
            file[at] = byte;
            let Ok(image) = Image::parse(&file) else { continue };
            // Loading takes longer than parsing: some of each byte's values are enough.
            if (byte ^ original).is_power_of_two() || byte == u8::MAX {
                check_load(&world, &image);
                loaded += 1;
            }
        }
        file[at] = original;
    }
    assert!(loaded > 1000, "{loaded}");
    world.check_empty();
}

/// Numbers that are as good as random, and the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

#[test]
fn words_of_program_headers_may_be_as_odd_as_they_like() {
    const ODD: [u64; 16] = [
        0,
        1,
        0xfff,
        0x1000,
        0x4080,
        0x40_0000,
        0x40_1fff,
        0x60_4000,
        0x60_4080,
        0x7fff_ffff_d080,
        0x7fff_ffff_f000,
        1 << 47,
        0xffff_8000_0000_0000,
        1 << 63,
        u64::MAX - 0xfff,
        u64::MAX,
    ];
    let world = World::new();
    let original = Elf::usual().to_bytes();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut loaded = 0;
    for _ in 0..4_000 {
        let mut file = original.clone();
        for _ in 0..=numbers.below(4) {
            // Not the first words, which are kind and rights.
            let header = HEADER_BYTES + numbers.below(7) * PROGRAM_HEADER_BYTES;
            let at = header + 8 * (1 + numbers.below(6));
            file[at..at + 8].copy_from_slice(&ODD[numbers.below(ODD.len())].to_le_bytes());
        }
        if let Ok(image) = Image::parse(&file) {
            check_load(&world, &image);
            loaded += 1;
        }
    }
    assert!(loaded > 1000, "{loaded}");
    world.check_empty();
}
