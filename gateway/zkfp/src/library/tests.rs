use std::fs;
use std::process::Command;

use super::*;

/// Builds a shared library from C, or `None` where there is no C compiler.
fn build(folder: &Path, name: &str, source: &str, link: &[&str]) -> PathBuf {
    let (code, library) = (folder.join("source.c"), folder.join(name));
    fs::write(&code, source).unwrap();
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &code])
        .arg(format!("-Wl,-soname,{name}"))
        .arg(format!("-L{}", folder.display()))
        .args(link)
        .status()
        .expect("a C compiler is needed to build this project");
    assert!(status.success());
    library
}

fn error_of(path: &Path) -> LoadError {
    Functions::load(path).err().expect("it isn't an SDK")
}

#[test]
fn a_library_that_is_not_there_is_said_to_be_missing() {
    let error = error_of(Path::new("/nowhere/libzkfp.so"));
    assert!(matches!(error, LoadError::NotFound(_)), "{error}");
    assert!(error.to_string().contains("/nowhere/libzkfp.so isn't there"), "{error}");
}

#[test]
fn the_other_sdk_generation_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let library =
        build(folder.path(), "libzkfp.so", "int BIOKEY_INIT_SIMPLE(void) { return 0; }", &[]);
    let error = error_of(&library);
    assert!(matches!(error, LoadError::OtherGeneration(_)), "{error}");
    assert!(error.to_string().contains("other SDK generation"), "{error}");
}

#[test]
fn a_missing_companion_is_named_and_one_beside_the_library_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let needed = "int idkit(void) { return 0; }";
    let companion = build(folder.path(), "libidkit.so.2", needed, &[]);
    let uses = "int idkit(void); int ZKFPM_Init(void) { return idkit(); }";
    let link = ["-l:libidkit.so.2"];
    let library = build(folder.path(), "libzkfp.so", uses, &link);

    // Elsewhere, so that the copy that another part of this test loads isn't found by name.
    let alone = folder.path().join("alone");
    fs::create_dir(&alone).unwrap();
    let lonely = alone.join("libzkfp.so");
    fs::copy(&library, &lonely).unwrap();
    let error = error_of(&lonely);
    assert!(
        matches!(&error, LoadError::Companion { companion, .. } if companion == "libidkit.so.2")
    );
    assert!(error.to_string().contains("needs libidkit.so.2"), "{error}");

    assert!(companion.is_file());
    let error = error_of(&library);
    assert!(matches!(error, LoadError::Symbol { symbol: "ZKFPM_Terminate", .. }), "{error}");
}

#[test]
fn a_file_that_is_no_library_is_an_error_with_the_loaders_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libzkfp.so");
    fs::write(&path, "not a library").unwrap();
    let error = error_of(&path);
    assert!(matches!(error, LoadError::Other { .. }), "{error}");
}

#[test]
fn the_simulator_has_all_that_is_needed() {
    let path = crate::find::find_simulator().expect("built as a dependency of these tests");
    assert!(Functions::load(&path).is_ok());
}
