//! Valid packets in invalid orders to a live broker, from clients that share names.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| broker_config_fuzz::orders::orders(input));
