//! The names that older SDKs export, with the same prototypes.

use std::ffi::{c_int, c_uint};

use super::*;

/// Old name of `ZKFPM_DBInit`.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_CreateDBCache() -> Handle {
    ZKFPM_DBInit()
}

/// Old name of `ZKFPM_DBFree`.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_CloseDBCache(database: Handle) -> c_int {
    ZKFPM_DBFree(database)
}

/// Old name of `ZKFPM_DBMerge`.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_GenRegTemplate(
    database: Handle,
    first: *mut u8,
    second: *mut u8,
    third: *mut u8,
    merged: *mut u8,
    merged_length: *mut c_uint,
) -> c_int {
    // SAFETY: as the caller's.
    unsafe { ZKFPM_DBMerge(database, first, second, third, merged, merged_length) }
}

/// Old name of `ZKFPM_DBAdd`.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_AddRegTemplateToDBCache(
    database: Handle,
    id: c_uint,
    template: *mut u8,
    length: c_uint,
) -> c_int {
    // SAFETY: as the caller's.
    unsafe { ZKFPM_DBAdd(database, id, template, length) }
}

/// Old name of `ZKFPM_DBDel`.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_DelRegTemplateFromDBCache(database: Handle, id: c_uint) -> c_int {
    ZKFPM_DBDel(database, id)
}

/// Old name of `ZKFPM_DBClear`.
#[unsafe(no_mangle)]
pub extern "system" fn ZKFPM_ClearDBCache(database: Handle) -> c_int {
    ZKFPM_DBClear(database)
}

/// Old name of `ZKFPM_DBCount`.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_GetDBCacheCount(database: Handle, count: *mut c_uint) -> c_int {
    // SAFETY: as the caller's.
    unsafe { ZKFPM_DBCount(database, count) }
}

/// Old name of `ZKFPM_DBIdentify`.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_Identify(
    database: Handle,
    template: *mut u8,
    length: c_uint,
    id: *mut c_uint,
    score: *mut c_uint,
) -> c_int {
    // SAFETY: as the caller's.
    unsafe { ZKFPM_DBIdentify(database, template, length, id, score) }
}

/// Old name of `ZKFPM_DBMatch`.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ZKFPM_MatchFinger(
    database: Handle,
    first: *mut u8,
    first_length: c_uint,
    second: *mut u8,
    second_length: c_uint,
) -> c_int {
    // SAFETY: as the caller's.
    unsafe { ZKFPM_DBMatch(database, first, first_length, second, second_length) }
}
