//! A fingerprint reader that is not there: a shared library with the SDK's own C ABI, whose world is a folder.
