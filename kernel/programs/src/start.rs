//! From the first instruction to the last.

use core::arch::global_asm;
use core::ffi::CStr;
use core::panic::PanicInfo;

use crate::{linux, report};

global_asm!(
    r#"
    .pushsection .text.start, "ax", @progbits
    .globl _start
    .type _start, @function
    _start:
        xor ebp, ebp
        mov rdi, rsp
        and rsp, -16
        call {program_start}
        ud2
    .popsection
    "#,
    program_start = sym program_start,
);

unsafe extern "Rust" {
    /// What [`crate::program`] defines.
    safe fn program_main(start: &Start);
}

/// What a program finds on its stack when it starts.
#[derive(Debug)]
pub struct Start {
    /// Points to argc; argv, envp and auxv follow, as the System V ABI says.
    stack: *const u64,
}

impl Start {
    /// The word at `index`, which lies at or before the end of auxv.
    fn word(&self, index: usize) -> u64 {
        // SAFETY: `stack` is the stack that the program was started with, and `index` is not beyond the end of what it holds.
        let word = unsafe { self.stack.add(index) };
        // SAFETY: as above; nothing is ever stored there.
        unsafe { word.read() }
    }

    /// How many arguments there are.
    pub fn argument_count(&self) -> usize {
        usize::try_from(self.word(0)).unwrap_or(usize::MAX)
    }

    /// The argument at `index`; none is behind the last.
    pub fn argument(&self, index: usize) -> Option<&str> {
        if index > self.argument_count() {
            return None;
        }
        let text = core::ptr::with_exposed_provenance::<core::ffi::c_char>(usize::try_from(self.word(1 + index)).ok()?);
        if text.is_null() {
            return None;
        }
        // SAFETY: argv points to strings that end with a zero, and that nobody changes.
        unsafe { CStr::from_ptr(text) }.to_str().ok()
    }

    /// The value of auxv's entry of this kind.
    pub fn auxiliary(&self, kind: u64) -> Option<u64> {
        let environment = self.argument_count() + 2;
        let variables = (environment..).take_while(|index| self.word(*index) != 0).count();
        let mut at = environment + variables + 1;
        while self.word(at) != 0 {
            if self.word(at) == kind {
                return Some(self.word(at + 1));
            }
            at += 2;
        }
        None
    }

    /// Where the program starts.
    pub fn entry() -> u64 {
        unsafe extern "C" {
            fn _start();
        }
        _start as *const () as u64
    }
}

/// Runs the program. `stack` is its stack as it was at its start.
extern "C" fn program_start(stack: *const u64) -> ! {
    program_main(&Start { stack });
    linux::exit_group(report::exit_code());
}

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    let message = info.message();
    match info.location() {
        Some(at) => report::failed(format_args!("panicked: {message} at {at}")),
        None => report::failed(format_args!("panicked: {message}")),
    }
    linux::exit_group(101);
}
