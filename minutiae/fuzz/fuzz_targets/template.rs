//! Any bytes as a template: read or refused, and what is read is written back the same, prepared, and
//! compared without failing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minutiae::{Format, Prepared, Template, compare, merge};

fuzz_target!(|bytes: &[u8]| {
    let _ = Format::detect(bytes).map(|format| format.declared_length(bytes));
    // Either format may be asked for, whatever the bytes say.
    let read = [Template::read(bytes), Template::read_iso(bytes), Template::read_ansi(bytes)];
    for template in read.into_iter().flatten() {
        // ANSI's product isn't ISO's to keep, so bytes are compared instead of templates.
        let iso = template.write_iso();
        assert_eq!(Template::read_iso(&iso).expect("what was written is read").write_iso(), iso);
        let ansi = template.write_ansi();
        let coarse = Template::read_ansi(&ansi).expect("what was written is read");
        assert_eq!(coarse.write_ansi(), ansi);
        let prepared = Prepared::new(&template);
        assert!(prepared.memory_bytes() <= 17 * 4096);
        let _ = compare(&prepared, &prepared);
        let _ = merge(&[&template, &coarse]);
    }
});
