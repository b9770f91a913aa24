//! The ZKFinger SDK (libzkfp): loaded with libloading, run in a child process.
