//! The SDK's shared library: found, loaded, and its symbols resolved once.
//!
//! | failure | means |
//! |---|---|
//! | [`LoadError::NotFound`] | the library itself isn't there |
//! | [`LoadError::Companion`] | a library that it needs isn't there |
//! | [`LoadError::OtherGeneration`] | a library of that name, but with the `BIOKEY_*` interface |
//! | [`LoadError::Symbol`] | a function is missing |
//! | [`LoadError::Other`] | what the loader says |
//!
//! Companions that lie beside the library are loaded before it, with their symbols visible to it,
//! as the vendor's own samples expect.

use std::ffi::{c_int, c_uint, c_void};
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY, RTLD_LOCAL};

/// An opaque handle of the SDK.
pub(crate) type Handle = *mut c_void;

/// Seen beside the library, in the order in which they need each other.
const COMPANIONS: [&str; 7] = [
    "libusb-0.1.so.4",
    "libsqlite3.so.0",
    "libcrypto.so.0.9.8",
    "libiomp5.so",
    "libidkit.so.2",
    "libsilkidcap.so",
    "libzkfinger10.so",
];

/// Why the SDK's library can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The library itself isn't there.
    #[error(
        "{} isn't there: install the ZKFinger SDK for Linux and set the path of its libzkfp.so",
        .0.display()
    )]
    NotFound(PathBuf),
    /// A library that it needs isn't there.
    #[error(
        "{} needs {companion}, which isn't there: put it beside the library or into LD_LIBRARY_PATH",
        .library.display()
    )]
    Companion {
        /// The library.
        library: PathBuf,
        /// What it needs.
        companion: String,
    },
    /// A library of the same name with another interface.
    #[error(
        "{} is of the other SDK generation (BIOKEY functions, capture in libzkfpcap.so); \
         needed is the one that exports ZKFPM_Init",
        .0.display()
    )]
    OtherGeneration(PathBuf),
    /// A function is missing.
    #[error("{} doesn't export {symbol}", .library.display())]
    Symbol {
        /// The library.
        library: PathBuf,
        /// The function's name.
        symbol: &'static str,
    },
    /// What the loader says.
    #[error("{} can't be loaded: {reason}", .library.display())]
    Other {
        /// The library.
        library: PathBuf,
        /// The loader's words.
        reason: String,
    },
}

macro_rules! functions {
    ($($(#[$doc:meta])* $field:ident: $name:literal $(or $old:literal)? => fn($($arg:ty),*) -> $ret:ty;)*) => {
        /// The SDK's functions. They stay valid because the library is never unloaded: vendor
        /// libraries leave threads behind.
        pub(crate) struct Functions {
            $($(#[$doc])* pub(crate) $field: unsafe extern "system" fn($($arg),*) -> $ret,)*
            _library: Library,
        }

        impl Functions {
            fn resolve(library: Library, path: &Path) -> Result<Functions, LoadError> {
                Ok(Functions {
                    $($field: {
                        let names: &[&str] = &[$name, $($old)?];
                        // SAFETY: the type is the documented prototype of that function.
                        unsafe { symbol(&library, names) }.ok_or_else(|| LoadError::Symbol {
                            library: path.to_owned(),
                            symbol: $name,
                        })?
                    },)*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    init: "ZKFPM_Init" => fn() -> c_int;
    terminate: "ZKFPM_Terminate" => fn() -> c_int;
    device_count: "ZKFPM_GetDeviceCount" => fn() -> c_int;
    open: "ZKFPM_OpenDevice" => fn(c_int) -> Handle;
    close: "ZKFPM_CloseDevice" => fn(Handle) -> c_int;
    get_parameter: "ZKFPM_GetParameters" => fn(Handle, c_int, *mut u8, *mut c_uint) -> c_int;
    acquire: "ZKFPM_AcquireFingerprint" => fn(Handle, *mut u8, c_uint, *mut u8, *mut c_uint) -> c_int;
    db_init: "ZKFPM_DBInit" or "ZKFPM_CreateDBCache" => fn() -> Handle;
    db_merge: "ZKFPM_DBMerge" or "ZKFPM_GenRegTemplate" => fn(Handle, *mut u8, *mut u8, *mut u8, *mut u8, *mut c_uint) -> c_int;
    db_add: "ZKFPM_DBAdd" or "ZKFPM_AddRegTemplateToDBCache" => fn(Handle, c_uint, *mut u8, c_uint) -> c_int;
    db_delete: "ZKFPM_DBDel" or "ZKFPM_DelRegTemplateFromDBCache" => fn(Handle, c_uint) -> c_int;
    db_clear: "ZKFPM_DBClear" or "ZKFPM_ClearDBCache" => fn(Handle) -> c_int;
    db_identify: "ZKFPM_DBIdentify" or "ZKFPM_Identify" => fn(Handle, *mut u8, c_uint, *mut c_uint, *mut c_uint) -> c_int;
    db_match: "ZKFPM_DBMatch" or "ZKFPM_MatchFinger" => fn(Handle, *mut u8, c_uint, *mut u8, c_uint) -> c_int;
}

impl Functions {
    /// Loads the library. Vendor code runs: its initialisers.
    pub(crate) fn load(path: &Path) -> Result<Functions, LoadError> {
        for companion in companions_beside(path) {
            // SAFETY: initialisers of the SDK's own parts; trusted as far as the process goes.
            let loaded = unsafe { Library::open(Some(companion), RTLD_LAZY | RTLD_GLOBAL) };
            // One that doesn't load is named by the error of the library that needs it.
            loaded.map_or_else(drop, std::mem::forget);
        }
        // SAFETY: as above.
        let library = unsafe { Library::open(Some(path), RTLD_LAZY | RTLD_LOCAL) }
            .map_err(|error| explain(path, &full_text(&error)))?;
        // SAFETY: only asked whether they are there.
        let (ours, other) = unsafe {
            (
                symbol::<unsafe extern "system" fn()>(&library, &["ZKFPM_Init"]),
                symbol::<unsafe extern "system" fn()>(&library, &["BIOKEY_INIT_SIMPLE"]),
            )
        };
        if ours.is_none() && other.is_some() {
            return Err(LoadError::OtherGeneration(path.to_owned()));
        }
        Functions::resolve(library, path)
    }
}

/// # Safety
/// `F` is a function pointer of the symbol's real prototype.
unsafe fn symbol<F: Copy>(library: &Library, names: &[&str]) -> Option<F> {
    // SAFETY: by this function's own contract.
    names.iter().find_map(|name| unsafe { library.get::<F>(name.as_bytes()) }.ok()).map(|it| *it)
}

fn companions_beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let candidates = folder.map(|folder| COMPANIONS.map(|name| folder.join(name)));
    candidates.into_iter().flatten().filter(|companion| companion.is_file())
}

/// The loader's words with their cause.
fn full_text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// Reads the loader's words: `NAME: cannot open shared object file: …`.
fn explain(path: &Path, text: &str) -> LoadError {
    let missing = text.split_once(": cannot open shared object file").map(|(name, _)| name.trim());
    match missing {
        Some(name) if Path::new(name) == path => LoadError::NotFound(path.to_owned()),
        Some(name) => LoadError::Companion { library: path.to_owned(), companion: name.to_owned() },
        None => LoadError::Other { library: path.to_owned(), reason: text.to_owned() },
    }
}

#[cfg(test)]
mod tests;
