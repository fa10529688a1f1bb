//! The assembly and its table of faults.
//!
//! `on_fault` in front of an instruction that touches a caller's memory puts it into the table, together with the place
//! where execution goes on. Entries are distances from the table, so that nothing has to be relocated.
//!
//! A landing finds the registers as the instruction has found them. In `pagewarden_copy` these say at all times how much
//! is left: `rdi` and `rsi` point to the next byte, `rcx` counts the bytes from there on (less eight in its loop over
//! words).

use core::arch::global_asm;

use crate::Fault;

/// From this length on, `rep movsb` is at least as fast as a loop over words.
const BULK: usize = 128;
/// So many instructions may fault.
const ENTRIES: usize = 21;

global_asm!(
    r#"
    .macro on_fault landing
    7777:
        .pushsection .rodata.pagewarden_copy, "a", @progbits
        .long 7777b - pagewarden_copy_table, \landing - pagewarden_copy_table
        .popsection
    .endm
    .macro routine name
        .balign 16
        .globl \name
        .hidden \name
        .type \name, @function
    \name:
        .cfi_startproc
    .endm
    .macro routine_end name
        .cfi_endproc
        .size \name, . - \name
    .endm

    .pushsection .rodata.pagewarden_copy, "a", @progbits
        .balign 4
        .globl pagewarden_copy_table
        .hidden pagewarden_copy_table
    pagewarden_copy_table:
    .popsection

    .pushsection .text.pagewarden_copy, "ax", @progbits

    // (rdi to, rsi from, rdx bytes) -> rax what is left
    .balign 64
    routine pagewarden_copy
        mov rcx, rdx
        cmp rdx, {bulk}
        jae .Lpagewarden_bulk
        sub rcx, 8
        jb .Lpagewarden_rest
    .Lpagewarden_words:
        on_fault .Lpagewarden_load_8
        mov rax, [rsi]
        on_fault .Lpagewarden_store_8
        mov [rdi], rax
        add rsi, 8
        add rdi, 8
        sub rcx, 8
        jae .Lpagewarden_words
    .Lpagewarden_rest:
        add rcx, 8
        test cl, 4
        jz .Lpagewarden_no_4
        on_fault .Lpagewarden_load_4
        mov eax, [rsi]
        on_fault .Lpagewarden_store_4
        mov [rdi], eax
        add rsi, 4
        add rdi, 4
        sub rcx, 4
    .Lpagewarden_no_4:
        test cl, 2
        jz .Lpagewarden_no_2
        on_fault .Lpagewarden_load_2
        movzx eax, word ptr [rsi]
        on_fault .Lpagewarden_store_2
        mov [rdi], ax
        add rsi, 2
        add rdi, 2
        sub rcx, 2
    .Lpagewarden_no_2:
        test cl, 1
        jz .Lpagewarden_done
        on_fault .Lpagewarden_left
        movzx eax, byte ptr [rsi]
        on_fault .Lpagewarden_left
        mov [rdi], al
    .Lpagewarden_done:
        xor eax, eax
        ret
    .Lpagewarden_bulk:
        on_fault .Lpagewarden_left
        rep movsb
    .Lpagewarden_left:
        mov rax, rcx
        ret

    // A word could not be copied. If all of it lies in one page, none of its bytes can be. Otherwise those in front of
    // the page that is not there can. Such a word is not aligned, and nobody was promised that it is not torn.
    .Lpagewarden_load_8:
        add rcx, 8
        mov edx, 8
        jmp .Lpagewarden_load
    .Lpagewarden_load_4:
        mov edx, 4
        jmp .Lpagewarden_load
    .Lpagewarden_load_2:
        mov edx, 2
    .Lpagewarden_load:
        mov r8, rsi
        jmp .Lpagewarden_split
    .Lpagewarden_store_8:
        add rcx, 8
        mov edx, 8
        jmp .Lpagewarden_store
    .Lpagewarden_store_4:
        mov edx, 4
        jmp .Lpagewarden_store
    .Lpagewarden_store_2:
        mov edx, 2
    .Lpagewarden_store:
        mov r8, rdi
    .Lpagewarden_split:
        and r8d, 4095
        add r8d, edx
        cmp r8d, 4096
        jbe .Lpagewarden_left
    .Lpagewarden_bytes:
        on_fault .Lpagewarden_left
        movzx eax, byte ptr [rsi]
        on_fault .Lpagewarden_left
        mov [rdi], al
        inc rsi
        inc rdi
        dec rcx
        jnz .Lpagewarden_bytes
        xor eax, eax
        ret
    routine_end pagewarden_copy

    // (rdi at) -> rax word, rdx whether it faulted
    routine pagewarden_load_1
        on_fault .Lpagewarden_no_word
        movzx eax, byte ptr [rdi]
        xor edx, edx
        ret
    routine_end pagewarden_load_1
    routine pagewarden_load_2
        on_fault .Lpagewarden_no_word
        movzx eax, word ptr [rdi]
        xor edx, edx
        ret
    routine_end pagewarden_load_2
    routine pagewarden_load_4
        on_fault .Lpagewarden_no_word
        mov eax, [rdi]
        xor edx, edx
        ret
    routine_end pagewarden_load_4
    routine pagewarden_load_8
        on_fault .Lpagewarden_no_word
        mov rax, [rdi]
        xor edx, edx
        ret
    routine_end pagewarden_load_8

    // (rdi at, rsi word) -> rax nothing, rdx whether it faulted
    routine pagewarden_store_1
        on_fault .Lpagewarden_no_word
        mov [rdi], sil
        xor edx, edx
        ret
    routine_end pagewarden_store_1
    routine pagewarden_store_2
        on_fault .Lpagewarden_no_word
        mov [rdi], si
        xor edx, edx
        ret
    routine_end pagewarden_store_2
    routine pagewarden_store_4
        on_fault .Lpagewarden_no_word
        mov [rdi], esi
        xor edx, edx
        ret
    routine_end pagewarden_store_4
    routine pagewarden_store_8
        on_fault .Lpagewarden_no_word
        mov [rdi], rsi
        xor edx, edx
        ret
    routine_end pagewarden_store_8

    // (rdi at, rsi current, rdx new) -> rax what was there, rdx whether it faulted
    routine pagewarden_exchange_4
        mov eax, esi
        on_fault .Lpagewarden_no_word
        lock cmpxchg [rdi], edx
        xor edx, edx
        ret
    routine_end pagewarden_exchange_4
    routine pagewarden_exchange_8
        mov rax, rsi
        on_fault .Lpagewarden_no_word
        lock cmpxchg [rdi], rdx
        xor edx, edx
        ret
    .Lpagewarden_no_word:
        mov edx, 1
        ret
    routine_end pagewarden_exchange_8
    .popsection

    .pushsection .rodata.pagewarden_copy, "a", @progbits
        .org pagewarden_copy_table + {entries} * 8
    .popsection
    .purgem on_fault
    .purgem routine
    .purgem routine_end
    "#,
    bulk = const BULK,
    entries = const ENTRIES,
);

/// An instruction and its landing, as distances from the table.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    instruction: i32,
    landing: i32,
}

/// What the routines for words answer, in two registers.
#[repr(C)]
struct Answer<W> {
    word: W,
    fault: u64,
}

unsafe extern "sysv64" {
    #[link_name = "pagewarden_copy_table"]
    static TABLE: [Entry; ENTRIES];

    /// Copies bytes in ascending order; says how many are left.
    pub(crate) fn pagewarden_copy(to: *mut u8, from: *const u8, len: usize) -> usize;

    fn pagewarden_load_1(at: *const u8) -> Answer<u8>;
    fn pagewarden_load_2(at: *const u16) -> Answer<u16>;
    fn pagewarden_load_4(at: *const u32) -> Answer<u32>;
    fn pagewarden_load_8(at: *const u64) -> Answer<u64>;
    fn pagewarden_store_1(at: *mut u8, word: u8) -> Answer<u8>;
    fn pagewarden_store_2(at: *mut u16, word: u16) -> Answer<u16>;
    fn pagewarden_store_4(at: *mut u32, word: u32) -> Answer<u32>;
    fn pagewarden_store_8(at: *mut u64, word: u64) -> Answer<u64>;
    fn pagewarden_exchange_4(at: *mut u32, current: u32, new: u32) -> Answer<u32>;
    fn pagewarden_exchange_8(at: *mut u64, current: u64, new: u64) -> Answer<u64>;
}

/// See [`crate::landing`].
pub(crate) fn landing(instruction_pointer: usize) -> Option<usize> {
    let start = (&raw const TABLE).addr();
    // SAFETY: the table is as long as the assembler has made it by this very number, and nobody writes to it.
    let table = unsafe { &TABLE };
    let address = |distance: i32| start.wrapping_add_signed(distance as isize);
    let entry = table.iter().find(|entry| address(entry.instruction) == instruction_pointer)?;
    Some(address(entry.landing))
}

/// What is loaded and stored in one access: `u8`, `u16`, `u32`, `u64`.
pub trait Word: Copy {
    #[doc(hidden)]
    /// # Safety
    /// As [`crate::load`].
    unsafe fn load(at: *const Self) -> Result<Self, Fault>;

    #[doc(hidden)]
    /// # Safety
    /// As [`crate::store`].
    unsafe fn store(at: *mut Self, word: Self) -> Result<(), Fault>;
}

/// What is exchanged in one step: `u32`, `u64`.
pub trait AtomicWord: Word {
    #[doc(hidden)]
    /// # Safety
    /// As [`crate::compare_exchange`].
    unsafe fn compare_exchange(at: *mut Self, current: Self, new: Self) -> Result<Self, Fault>;
}

impl<W: Word> Answer<W> {
    fn word(self) -> Result<W, Fault> {
        if self.fault == 0 { Ok(self.word) } else { Err(Fault { copied: 0 }) }
    }
}

macro_rules! access {
    ($word:ty, $load:ident, $store:ident) => {
        impl Word for $word {
            #[inline]
            unsafe fn load(at: *const Self) -> Result<Self, Fault> {
                // SAFETY: the caller answers for the word.
                unsafe { $load(at) }.word()
            }

            #[inline]
            unsafe fn store(at: *mut Self, word: Self) -> Result<(), Fault> {
                // SAFETY: the caller answers for the word.
                unsafe { $store(at, word) }.word().map(drop)
            }
        }
    };
}

macro_rules! exchange {
    ($word:ty, $exchange:ident) => {
        impl AtomicWord for $word {
            #[inline]
            unsafe fn compare_exchange(at: *mut Self, current: Self, new: Self) -> Result<Self, Fault> {
                // SAFETY: the caller answers for the word.
                unsafe { $exchange(at, current, new) }.word()
            }
        }
    };
}

access!(u8, pagewarden_load_1, pagewarden_store_1);
access!(u16, pagewarden_load_2, pagewarden_store_2);
access!(u32, pagewarden_load_4, pagewarden_store_4);
access!(u64, pagewarden_load_8, pagewarden_store_8);
exchange!(u32, pagewarden_exchange_4);
exchange!(u64, pagewarden_exchange_8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_of_the_table_lands_and_nothing_else_does() {
        let start = (&raw const TABLE).addr();
        // SAFETY: nobody writes to the table.
        let table = unsafe { &TABLE };
        let address = |distance: i32| start.wrapping_add_signed(distance as isize);
        let code = (pagewarden_copy as *const ()).addr()..(pagewarden_exchange_8 as *const ()).addr() + 64;
        for (index, entry) in table.iter().enumerate() {
            let (instruction, place) = (address(entry.instruction), address(entry.landing));
            assert!(code.contains(&instruction) && code.contains(&place), "entry {index}");
            assert_eq!(landing(instruction), Some(place));
            assert_eq!(landing(place), None, "entry {index}: a landing does not fault");
            assert!(table[..index].iter().all(|other| other.instruction != entry.instruction));
        }
        assert_eq!(landing(0), None);
        assert_eq!(landing(usize::MAX), None);
        assert_eq!(landing(start), None);
    }
}
