//! Any words in the registers of memory calls, with any answers about files, on a platform that does as it is told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagewarden::model::run_calls;

fuzz_target!(|input: &[u8]| run_calls(input));
