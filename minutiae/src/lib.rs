//! Fingerprint templates: ISO 19794-2 and ANSI 378, extraction, matching, synthetic fingers. No I/O.
