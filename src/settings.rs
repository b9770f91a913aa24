//! Reading a configuration file: TOML, then what the environment overrides.
//!
//! `RIDGEWAY__SECTION__KEY=value` sets `key` in `[section]` (lower case; one more `__` a level). The
//! value is read as TOML where it is TOML (`true`, `8080`, `["a"]`), and as text otherwise.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

const PREFIX: &str = "RIDGEWAY__";

/// A mistake in the configuration. The text names the file, the key, and what is allowed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("can't read the configuration file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("configuration file {}:\n{message}", path.display())]
    File { path: PathBuf, message: String },
    #[error("configuration from the environment ({PREFIX}…), on top of {}: {message}", path.display())]
    Environment { path: PathBuf, message: String },
    #[error("configuration file {}: {message}", path.display())]
    Value { path: PathBuf, message: String },
}

/// Reads `path` and the environment, and lets `validate` see whether the values go together.
pub(crate) fn load<T: DeserializeOwned, E: std::fmt::Display>(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
    validate: impl FnOnce(&T) -> Result<(), E>,
) -> Result<T, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    parse(path, &text, environment, validate)
}

fn parse<T: DeserializeOwned, E: std::fmt::Display>(
    path: &Path,
    text: &str,
    environment: impl Iterator<Item = (String, String)>,
    validate: impl FnOnce(&T) -> Result<(), E>,
) -> Result<T, SettingsError> {
    let path = path.to_owned();
    let overrides: Vec<_> = environment.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    let settings: T = if overrides.is_empty() {
        // From the text, so that a mistake is shown with its line.
        toml::from_str(text).map_err(|error| SettingsError::File {
            path: path.clone(),
            message: error.to_string(),
        })?
    } else {
        let mut table: Table = toml::from_str(text).map_err(|error| SettingsError::File {
            path: path.clone(),
            message: error.to_string(),
        })?;
        for (name, value) in &overrides {
            set(&mut table, name, value)
                .map_err(|message| SettingsError::Environment { path: path.clone(), message })?;
        }
        table.try_into().map_err(|error| SettingsError::Environment {
            path: path.clone(),
            message: error.to_string(),
        })?
    };
    validate(&settings)
        .map_err(|error| SettingsError::Value { path, message: error.to_string() })?;
    Ok(settings)
}

fn set(table: &mut Table, name: &str, value: &str) -> Result<(), String> {
    let keys: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
    let Some((last, sections)) = keys.split_last().filter(|(last, _)| !last.is_empty()) else {
        return Err(format!("{name}: write {PREFIX}SECTION__KEY"));
    };
    let mut table = table;
    for section in sections {
        table = table
            .entry(section.clone())
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("{name}: {section} is not a section"))?;
    }
    table.insert(last.clone(), read_value(value));
    Ok(())
}

fn read_value(text: &str) -> Value {
    let line = format!("value = {text}");
    match toml::from_str::<Table>(&line).map(|mut table| table.remove("value")) {
        Ok(Some(value)) => value,
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        api: Api,
    }

    #[derive(Debug, serde::Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Api {
        listen: String,
        limit: u32,
    }

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Sample, String> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let check = |sample: &Sample| match sample.api.limit {
            0 => Err("api.limit must be at least 1"),
            _ => Ok(()),
        };
        parse(Path::new("gateway.toml"), text, environment, check).map_err(|e| e.to_string())
    }

    const GOOD: &str = "[api]\nlisten = \"127.0.0.1:8080\"\nlimit = 5\n";

    #[test]
    fn the_environment_overrides_a_key() {
        let sample = read(GOOD, &[("RIDGEWAY__API__LIMIT", "7"), ("OTHER", "x")]).unwrap();
        assert_eq!(sample.api.limit, 7);
        let sample = read(GOOD, &[("RIDGEWAY__API__LISTEN", "0.0.0.0:1")]).unwrap();
        assert_eq!(sample.api.listen, "0.0.0.0:1");
    }

    #[test]
    fn a_mistake_names_file_line_key_and_what_is_allowed() {
        let error = read("[api]\nlisten = \"x\"\nlimits = 5\n", &[]).unwrap_err();
        for part in ["gateway.toml", "line 3", "limits", "expected `listen` or `limit`"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        let error = read("[api]\nlisten = \"x\"\nlimit = \"many\"\n", &[]).unwrap_err();
        assert!(error.contains("line 3") && error.contains("u32"), "{error}");
        let error = read("[api]\nlisten = \"x\"\nlimit = 0\n", &[]).unwrap_err();
        assert!(error.contains("gateway.toml") && error.contains("at least 1"), "{error}");
    }

    #[test]
    fn a_mistake_in_the_environment_says_so() {
        let error = read(GOOD, &[("RIDGEWAY__API__LIMITS", "7")]).unwrap_err();
        assert!(error.contains("environment") && error.contains("limits"), "{error}");
        assert!(read(GOOD, &[("RIDGEWAY__", "7")]).unwrap_err().contains("SECTION__KEY"));
        assert!(read(GOOD, &[("RIDGEWAY__API__LIMIT__X", "7")]).is_err());
    }
}
