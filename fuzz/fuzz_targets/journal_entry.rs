#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tiktok_shop_operator_fuzz::bodies::journal_entry::check(input));
