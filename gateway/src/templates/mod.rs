//! Enrolled templates, sealed; scan marks.
