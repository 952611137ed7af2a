#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xsplice_hostile::difference(bytes));
