//! Where the libraries lie.

use std::env;
use std::path::{Path, PathBuf};

/// The simulator's library.
pub const SIMULATOR_NAME: &str = "libzkfp_simulator.so";
/// The SDK's library.
pub const SDK_NAME: &str = "libzkfp.so";

/// The simulator's library: beside this executable, in `deps/` beside it (where Cargo leaves it),
/// or in `../lib/ridgeway/` (where it is installed).
pub fn find_simulator() -> Option<PathBuf> {
    let executable = env::current_exe().ok()?;
    find_simulator_near(executable.parent()?)
}

/// The SDK's library: the configured path, or the name for the loader to search.
pub fn find_sdk(configured: Option<&Path>) -> PathBuf {
    configured.map_or_else(|| PathBuf::from(SDK_NAME), Path::to_owned)
}

fn find_simulator_near(folder: &Path) -> Option<PathBuf> {
    [".", "deps", "../lib/ridgeway"]
        .map(|place| folder.join(place).join(SIMULATOR_NAME))
        .into_iter()
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_simulator_is_found_in_each_of_its_places_the_nearest_first() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        assert_eq!(find_simulator_near(&bin), None);
        for place in ["../lib/ridgeway", "deps", "."] {
            let at = bin.join(place);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join(SIMULATOR_NAME), "").unwrap();
            assert_eq!(find_simulator_near(&bin), Some(at.join(SIMULATOR_NAME)));
        }
    }
}
