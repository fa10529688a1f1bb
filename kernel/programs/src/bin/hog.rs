//! Touches 64 MiB, a page at a time: what becomes of it depends on how much it may have.
#![no_std]
#![no_main]

use runtime::linux::prot;
use runtime::{Start, say};

runtime::program!(main);

fn main(_start: &Start) {
    let Ok(pages) = runtime::Pages::map(16_384, prot::READ_WRITE) else {
        return say(format_args!("64 MiB cannot be mapped"));
    };
    pages.fill(1);
    say(format_args!("64 MiB were touched"));
}
