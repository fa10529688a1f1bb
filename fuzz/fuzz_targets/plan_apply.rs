//! The same calls on a platform that fails as the input says: map, platform and ledger agree after each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagewarden::model::run_failing_calls;

fuzz_target!(|input: &[u8]| run_failing_calls(input));
