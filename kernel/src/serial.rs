//! The log: a serial line, one writer at a time.
//!
//! Owned here: the first serial port, which nobody else touches.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use x86_64::instructions::port::Port;

/// COM1 of a PC.
const BASE: u16 = 0x3f8;
const LINE_STATUS: u16 = BASE + 5;
/// There is room for a byte to be sent.
const EMPTY: u8 = 1 << 5;

struct Serial;

static LOG: Mutex<Serial> = Mutex::new(Serial);
/// Set by a panic: from then on nobody waits for the log.
static PANICKED: AtomicBool = AtomicBool::new(false);

fn output(port: u16, byte: u8) {
    // SAFETY: the ports are the serial line's, which changes no memory.
    unsafe { Port::new(port).write(byte) }
}

/// Sets the line up: 115200 baud, 8 bits, no parity, with a queue, without interrupts.
pub(crate) fn start() {
    let settings = [(1, 0x00), (3, 0x80), (0, 0x01), (1, 0x00), (3, 0x03), (2, 0xc7), (4, 0x0b)];
    for (register, value) in settings {
        output(BASE + register, value);
    }
}

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let mut status = Port::<u8>::new(LINE_STATUS);
            // SAFETY: to read the line's status changes nothing.
            while unsafe { status.read() } & EMPTY == 0 {
                core::hint::spin_loop();
            }
            output(BASE, byte);
        }
        Ok(())
    }
}

/// Writes one line.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    if PANICKED.load(Ordering::Relaxed) {
        return;
    }
    let _ = writeln!(LOG.lock(), "{text}");
}

/// Writes one line whoever has the log, and is the last to do so.
pub(crate) fn last_words(text: fmt::Arguments<'_>) {
    if !PANICKED.swap(true, Ordering::Relaxed) {
        let _ = writeln!(Serial, "\n{text}");
    }
}
