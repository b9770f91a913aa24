//! The fields of a request body or a socket message, read one by one, so that an error names its
//! field. `null` is the same as absent (documented clients send either), numbers are taken as user
//! ids, and the alias and the misplaced object that documented samples send are understood here.

use base64::{Engine as _, alphabet, engine};
use serde_json::{Map, Value};
use topics::{ErrorBody, ErrorCode, UserId};

use super::error::invalid;
use crate::operation::TemplateBytes;

/// The longest template, in characters of base64.
const MAX_TEMPLATE_CHARS: usize = 50_000;
/// The largest metadata of an enrolment, as JSON.
const MAX_METADATA_BYTES: usize = 8 * 1024;
/// The most users that a search can be narrowed to.
const MAX_USER_IDS: usize = 1_000;

/// Standard base64, its padding optional.
const BASE64: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::STANDARD,
    engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(engine::DecodePaddingMode::Indifferent),
);

/// A template that a field holds, not yet decoded: the reader is checked before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TemplateText<'a>(&'a str);

impl TemplateText<'_> {
    /// The template's bytes.
    pub(crate) fn decode(self) -> Result<TemplateBytes, ErrorBody> {
        match BASE64.decode(self.0.trim()) {
            Ok(bytes) => Ok(bytes.into()),
            Err(_) => Err(invalid("template", "must be base64")),
        }
    }
}

/// The fields of one JSON object.
#[derive(Debug, Default)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body; an empty one is an object without fields.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ErrorBody> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(Value::Null) => Ok(Self::default()),
            Ok(_) => Err(ErrorBody::new(ErrorCode::Validation, "the body must be a JSON object")),
            Err(error) => Err(ErrorBody::new(
                ErrorCode::Validation,
                format!("the body is not JSON (line {}, column {})", error.line(), error.column()),
            )),
        }
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// A text.
    pub(crate) fn text(&self, field: &str) -> Result<Option<&str>, ErrorBody> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(field, "must be a text")),
        }
    }

    /// A text that must be there.
    pub(crate) fn required_text(&self, field: &str) -> Result<&str, ErrorBody> {
        self.text(field)?.ok_or_else(|| invalid(field, "is missing"))
    }

    /// A whole number within bounds.
    pub(crate) fn number(
        &self,
        field: &str,
        least: u64,
        most: u64,
    ) -> Result<Option<u64>, ErrorBody> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let whole = || value.as_f64().filter(|n| n.fract() == 0.0 && *n >= 0.0).map(|n| n as u64);
        match value.as_u64().or_else(whole) {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(invalid(field, format!("must be a whole number from {least} to {most}"))),
        }
    }

    /// The fields of an object within.
    pub(crate) fn object(&self, field: &str) -> Result<Fields, ErrorBody> {
        match self.get(field) {
            None => Ok(Fields::default()),
            Some(Value::Object(map)) => Ok(Fields(map.clone())),
            Some(_) => Err(invalid(field, "must be an object")),
        }
    }

    /// `deviceId`. One documented sample hands an options object through it: then none is named.
    pub(crate) fn device(&self) -> Result<Option<&str>, ErrorBody> {
        match self.get("deviceId") {
            None | Some(Value::Object(_)) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) if text.len() <= 128 => Ok(Some(text)),
            Some(_) => Err(invalid("deviceId", "must be a reader's id or serial number")),
        }
    }

    /// `userId`, a text or a number; required.
    pub(crate) fn user(&self) -> Result<UserId, ErrorBody> {
        user("userId", self.get("userId").ok_or_else(|| invalid("userId", "is missing"))?)
    }

    /// `userIds`, also inside an object given as `deviceId`.
    pub(crate) fn users(&self) -> Result<Option<Vec<UserId>>, ErrorBody> {
        let misplaced = || match self.get("deviceId") {
            Some(Value::Object(map)) => map.get("userIds").filter(|value| !value.is_null()),
            _ => None,
        };
        match self.get("userIds").or_else(misplaced) {
            None => Ok(None),
            Some(Value::Array(list)) if list.len() <= MAX_USER_IDS => {
                list.iter().map(|value| user("userIds", value)).collect::<Result<_, _>>().map(Some)
            }
            Some(_) => {
                Err(invalid("userIds", format!("must be a list of at most {MAX_USER_IDS} ids")))
            }
        }
    }

    /// `template`, or `templateData` as one documented client calls it.
    pub(crate) fn template(&self) -> Result<Option<TemplateText<'_>>, ErrorBody> {
        let text = match self.text("template")? {
            Some(text) => Some(text),
            None => self.text("templateData")?,
        };
        match text {
            Some(text) if !(4..=MAX_TEMPLATE_CHARS).contains(&text.len()) => Err(invalid(
                "template",
                format!("must be 4 to {MAX_TEMPLATE_CHARS} characters of base64"),
            )),
            text => Ok(text.map(TemplateText)),
        }
    }

    /// The same, required.
    pub(crate) fn required_template(&self) -> Result<TemplateText<'_>, ErrorBody> {
        self.template()?.ok_or_else(|| invalid("template", "is missing"))
    }

    /// `metadata`: an object of bounded size.
    pub(crate) fn metadata(&self) -> Result<Option<Map<String, Value>>, ErrorBody> {
        match self.get("metadata") {
            None => Ok(None),
            Some(value @ Value::Object(map)) if value.to_string().len() <= MAX_METADATA_BYTES => {
                Ok(Some(map.clone()))
            }
            Some(_) => {
                let rule = format!("must be an object of at most {MAX_METADATA_BYTES} bytes");
                Err(invalid("metadata", rule))
            }
        }
    }

    /// A list of objects.
    pub(crate) fn list(&self, field: &str, most: usize) -> Result<Vec<Fields>, ErrorBody> {
        let wrong = || invalid(field, format!("must be a list of 1 to {most} objects"));
        let Some(Value::Array(list)) = self.get(field) else { return Err(wrong()) };
        if list.is_empty() || list.len() > most {
            return Err(wrong());
        }
        list.iter()
            .map(|value| value.as_object().map(|map| Fields(map.clone())).ok_or_else(wrong))
            .collect()
    }

    /// `userId` where it may be absent.
    pub(crate) fn optional_user(&self) -> Result<Option<UserId>, ErrorBody> {
        self.get("userId").map(|value| user("userId", value)).transpose()
    }
}

fn user(field: &str, value: &Value) -> Result<UserId, ErrorBody> {
    serde_json::from_value(value.clone()).map_err(|error| invalid(field, error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn null_and_absent_are_the_same() {
        for body in [json!({}), json!({"deviceId": null, "metadata": null, "template": null})] {
            let fields = fields(body);
            assert_eq!(fields.device(), Ok(None));
            assert_eq!(fields.metadata(), Ok(None));
            assert_eq!(fields.template(), Ok(None));
            assert_eq!(fields.users(), Ok(None));
        }
        assert!(Fields::parse(b"").is_ok());
        assert!(Fields::parse(b" null ").is_ok());
        assert!(Fields::parse(b"[1]").is_err());
    }

    #[test]
    fn a_user_id_may_be_a_number() {
        assert_eq!(fields(json!({"userId": 17})).user().unwrap().as_str(), "17");
        assert_eq!(fields(json!({"userId": "u-1"})).user().unwrap().as_str(), "u-1");
        for bad in
            [json!({}), json!({"userId": -1}), json!({"userId": "a b"}), json!({"userId": []})]
        {
            let error = fields(bad).user().unwrap_err();
            assert_eq!((error.code, &error.details["field"]), (400, &json!("userId")));
        }
    }

    #[test]
    fn the_samples_that_stray_are_understood() {
        let stray = fields(json!({"deviceId": {"userIds": ["a", 2]}, "templateData": "QUJD"}));
        assert_eq!(stray.device(), Ok(None));
        assert_eq!(stray.users().unwrap().unwrap()[1].as_str(), "2");
        assert_eq!(stray.required_template().unwrap().decode().unwrap()[..], *b"ABC");
    }

    #[test]
    fn templates_are_base64_with_or_without_padding() {
        for text in ["QUI=", "QUJD", "QUI"] {
            let given = fields(
                json!({"template": text.to_owned() + if text.len() < 4 { " " } else { "" }}),
            );
            assert!(given.required_template().unwrap().decode().is_ok(), "{text}");
        }
        let bad = fields(json!({"template": "%%%%"}));
        assert_eq!(bad.required_template().unwrap().decode().unwrap_err().code, 400);
        assert!(fields(json!({"template": "x".repeat(50_001)})).template().is_err());
    }

    #[test]
    fn numbers_are_whole_and_bounded() {
        assert_eq!(fields(json!({"n": 5.0})).number("n", 1, 9), Ok(Some(5)));
        for bad in [json!(0), json!(10), json!(5.5), json!("5"), json!(-1)] {
            assert!(fields(json!({"n": bad})).number("n", 1, 9).is_err());
        }
    }
}
