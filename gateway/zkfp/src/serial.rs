//! A reader's serial number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longer serial numbers are no serial numbers.
const MAX_BYTES: usize = 64;

/// A reader's serial number: 1 to 64 printable ASCII characters without spaces at the ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(String);

/// A text that isn't a serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a serial number has 1 to {MAX_BYTES} printable ASCII characters")]
pub struct SerialError;

impl Serial {
    /// Checks a serial number.
    pub fn new(text: impl Into<String>) -> Result<Serial, SerialError> {
        let text = text.into();
        let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let fits = (1..=MAX_BYTES).contains(&text.len()) && text.trim() == text;
        if printable && fits { Ok(Serial(text)) } else { Err(SerialError) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A serial number from what a reader says: whatever isn't printable is left out.
    pub(crate) fn cleaned(text: &str) -> Option<Serial> {
        let clean: String =
            text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_BYTES).collect();
        Serial::new(clean.trim()).ok()
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Serial, SerialError> {
        Serial::new(text)
    }
}

impl TryFrom<String> for Serial {
    type Error = SerialError;

    fn try_from(text: String) -> Result<Serial, SerialError> {
        Serial::new(text)
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> String {
        serial.0
    }
}
