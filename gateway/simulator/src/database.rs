//! The matcher: 1:1, 1:N and merging, on templates as bytes.

use minutiae::{Format, Gallery, Prepared, Template};

use crate::codes;

/// The library's default threshold of a 1:1 comparison, on the scale 0 to 1000.
const THRESHOLD_ONE_TO_ONE: u16 = 35;
/// The library's default threshold of a search.
const THRESHOLD_ONE_TO_MANY: u16 = 55;
/// The cache's limit.
const MAX_TEMPLATES: usize = 50_000;
/// No template is longer.
pub(crate) const MAX_TEMPLATE_BYTES: usize = 2048;

/// The process-wide cache of templates.
#[derive(Default)]
pub(crate) struct Database {
    gallery: Gallery,
    ids: std::collections::HashMap<u32, Vec<u8>>,
}

impl Database {
    pub(crate) fn clear(&mut self) {
        *self = Database::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn add(&mut self, id: u32, template: &[u8]) -> Result<(), i32> {
        if id == 0 {
            return Err(codes::INVALID_PARAMETER);
        }
        let prepared = prepare(template)?;
        if self.ids.contains_key(&id) || self.ids.len() >= MAX_TEMPLATES {
            return Err(codes::ADD_FAILED);
        }
        self.gallery.insert(id, prepared);
        self.ids.insert(id, template.to_vec());
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: u32) -> Result<(), i32> {
        self.ids.remove(&id).ok_or(codes::DELETE_FAILED)?;
        self.gallery.remove(id);
        Ok(())
    }

    /// The best candidate that passes the threshold.
    pub(crate) fn identify(&self, template: &[u8]) -> Result<(u32, u16), i32> {
        let probe = prepare(template)?;
        self.gallery
            .search(&probe, None)
            .map(|candidate| (candidate.id, score_value(candidate.score)))
            .filter(|&(_, score)| score >= THRESHOLD_ONE_TO_MANY)
            .ok_or(codes::FAILED)
    }

    /// Compares with the template of one number.
    pub(crate) fn verify(&self, id: u32, template: &[u8]) -> Result<u16, i32> {
        let stored = self.ids.get(&id).ok_or(codes::FAILED)?;
        compare(stored, template)
    }
}

/// The score of two templates, 0 below the threshold.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Result<u16, i32> {
    let score = score_value(minutiae::compare(&prepare(a)?, &prepare(b)?));
    Ok(if score >= THRESHOLD_ONE_TO_ONE { score } else { 0 })
}

/// Three placements of one finger as one template.
pub(crate) fn merge(placements: [&[u8]; 3]) -> Result<Template, i32> {
    let [a, b, c] = placements.map(read);
    let (a, b, c) = (a?, b?, c?);
    minutiae::merge(&[&a, &b, &c]).map_err(|_| codes::MERGE_FAILED)
}

/// Reads a template, or says that it is malformed.
pub(crate) fn read(bytes: &[u8]) -> Result<Template, i32> {
    if bytes.len() > MAX_TEMPLATE_BYTES {
        return Err(codes::INVALID_PARAMETER);
    }
    Template::read(bytes).map_err(|_| codes::INVALID_PARAMETER)
}

/// The length that a template states in its first twelve bytes.
pub(crate) fn declared_length(header: &[u8; 12]) -> Option<usize> {
    let length = Format::detect(header)?.declared_length(header)?;
    (header.len()..=MAX_TEMPLATE_BYTES).contains(&length).then_some(length)
}

fn prepare(bytes: &[u8]) -> Result<Prepared, i32> {
    read(bytes).map(|template| Prepared::new(&template))
}

fn score_value(score: minutiae::Score) -> u16 {
    score.into()
}
