//! Pure: scan, enrolment, verification, identification of one reader.
