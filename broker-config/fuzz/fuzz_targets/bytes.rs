//! Any bytes to a live broker, from the start of a connection or after a good CONNECT.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| broker_config_fuzz::bytes(input));
