//! What callers start, await and cancel.
