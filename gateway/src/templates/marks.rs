//! Scan marks: a scan's output and an enrolled template must never be mistaken for each other.
//!
//! Both are templates of a finger, and callers send either kind to *verify*. An enrolled one is
//! compared with a live finger; a scan's output with the stored templates. Were a scan's output
//! compared with a live finger, whoever just scanned would match themselves.
//!
//! | format | mark |
//! |---|---|
//! | ISO 19794-2, ANSI 378 | an extended data block in the record: version (1 byte), HMAC-SHA256 (32 bytes) over the record without the block |
//! | all | HMAC-SHA256 in table `scan-marks`, value its time in milliseconds (8 bytes, big-endian); the oldest go when there are too many. Of a record: over the places of its minutiae, which stay the same in whatever way it is written again; of the vendor's own format: over its bytes |
//!
//! The block is recognised for ever and by every gateway; the digest when a caller's library has
//! dropped the block, or has made one format of the other.
//!
//! A record whose block does not verify (made by another gateway, or altered) is refused: treating
//! it as a reference would open the very door that the mark closes.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::hmac;
use minutiae::{Format, Template};
use topics::Timestamp;

use crate::{
    journal::{Batch, Journal, JournalError, Table},
    session::TemplateBytes,
};

/// The type of the extended data block: "RW", in the range that is free for vendors.
const BLOCK_TYPE: u16 = 0x5257;
const BLOCK_VERSION: u8 = 1;
/// Digests kept. At ten scans a minute, the limit of one reader, a week.
const MAX_DIGESTS: usize = 100_000;

/// Where a template comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// Enrolled, or from elsewhere.
    Reference,
    /// Handed out by a scan or capture of this gateway.
    Scan,
    /// Marked, but not by this gateway or not with this content.
    Foreign,
}

/// Marks what scans hand out, and recognises it. Cheap to clone.
#[derive(Clone)]
pub struct Marks {
    inner: Arc<Inner>,
}

struct Inner {
    key: hmac::Key,
    digests: Mutex<Digests>,
}

#[derive(Default)]
struct Digests {
    known: HashSet<[u8; 32]>,
    oldest_first: VecDeque<[u8; 32]>,
}

impl Marks {
    /// Reads the digests that were kept.
    pub fn open(journal: &Journal, key: hmac::Key) -> Result<Self, JournalError> {
        let mut rows: Vec<(u64, [u8; 32])> = journal
            .scan(Table::ScanMarks, b"")?
            .into_iter()
            .filter_map(|(digest, time)| {
                let time = u64::from_be_bytes(time.try_into().ok()?);
                Some((time, digest.try_into().ok()?))
            })
            .collect();
        rows.sort_unstable();
        let oldest_first: VecDeque<[u8; 32]> = rows.into_iter().map(|row| row.1).collect();
        let known = oldest_first.iter().copied().collect();
        let digests = Mutex::new(Digests { known, oldest_first });
        Ok(Self { inner: Arc::new(Inner { key, digests }) })
    }

    /// The template as a caller gets it.
    pub fn mark(&self, template: &TemplateBytes) -> TemplateBytes {
        self.marked(template).map_or_else(|| template.clone(), TemplateBytes::from)
    }

    /// The template as the engine made it.
    pub fn unmarked(&self, template: &TemplateBytes) -> TemplateBytes {
        match open_format(template) {
            Some((format, marked)) if marked.extension(BLOCK_TYPE).is_some() => {
                content(format, &marked).into()
            }
            Some(_) | None => template.clone(),
        }
    }

    /// Remembers a marked template that is handed out with this batch.
    pub fn remember(&self, mut batch: Batch, handout: &[u8], now: Timestamp) -> Batch {
        let digest = match open_format(handout) {
            Some((_, template)) => self.digest_of_places(&template),
            None => self.digest(handout),
        };
        let time = u64::try_from(now.as_millis()).unwrap_or(0);
        batch = batch.put(Table::ScanMarks, digest.to_vec(), time.to_be_bytes().to_vec());
        // Known from here on, also if the commit fails: then nobody got the template.
        let mut digests = self.digests();
        if digests.known.insert(digest) {
            digests.oldest_first.push_back(digest);
        }
        while digests.oldest_first.len() > MAX_DIGESTS {
            if let Some(oldest) = digests.oldest_first.pop_front() {
                digests.known.remove(&oldest);
                batch = batch.delete(Table::ScanMarks, oldest.to_vec());
            }
        }
        batch
    }

    /// Whether a template is a scan's output.
    pub fn is_scan_output(&self, template: &[u8]) -> bool {
        self.provenance(template) == Provenance::Scan
    }

    /// Where a template comes from.
    pub fn provenance(&self, bytes: &[u8]) -> Provenance {
        let Some((format, template)) = open_format(bytes) else {
            return self.remembered(self.digest(bytes));
        };
        let Some(block) = template.extension(BLOCK_TYPE) else {
            return self.remembered(self.digest_of_places(&template));
        };
        let content = content(format, &template);
        match block.split_first() {
            Some((&BLOCK_VERSION, tag)) if hmac::verify(&self.inner.key, &content, tag).is_ok() => {
                Provenance::Scan
            }
            Some(_) | None => Provenance::Foreign,
        }
    }

    fn remembered(&self, digest: [u8; 32]) -> Provenance {
        let known = self.digests().known.contains(&digest);
        if known { Provenance::Scan } else { Provenance::Reference }
    }

    fn marked(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (format, template) = open_format(bytes)?;
        let tag = hmac::sign(&self.inner.key, &content(format, &template));
        let mut block = vec![BLOCK_VERSION];
        block.extend_from_slice(tag.as_ref());
        let marked = template.with_extension(BLOCK_TYPE, &block).ok()?;
        Some(write(format, &marked))
    }

    /// Of the declared length only: bytes after it don't make another template.
    fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        let declared = Format::detect(bytes).and_then(|format| format.declared_length(bytes));
        let end = declared.unwrap_or(bytes.len()).min(bytes.len());
        self.tag(&bytes[..end])
    }

    /// Of what no writer of the record changes: where its minutiae are, in any order.
    fn digest_of_places(&self, template: &Template) -> [u8; 32] {
        let mut text = b"places".to_vec();
        for view in template.views() {
            let mut places: Vec<_> = view.minutiae().iter().map(|m| (m.x, m.y)).collect();
            places.sort_unstable();
            text.extend(
                places.iter().flat_map(|(x, y)| [x.to_be_bytes(), y.to_be_bytes()].concat()),
            );
        }
        self.tag(&text)
    }

    fn tag(&self, text: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.inner.key, text);
        let mut digest = [0; 32];
        digest.copy_from_slice(tag.as_ref()); // HMAC-SHA256 is 32 bytes
        digest
    }

    fn digests(&self) -> std::sync::MutexGuard<'_, Digests> {
        self.inner.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record of a format that can carry a mark.
fn open_format(bytes: &[u8]) -> Option<(Format, Template)> {
    let format = Format::detect(bytes)?;
    match format {
        Format::Iso19794_2 | Format::Ansi378 => Some((format, Template::read(bytes).ok()?)),
        Format::ZkFinger10 => None,
    }
}

/// What the mark is computed over: the record as this code writes it, without the mark.
fn content(format: Format, template: &Template) -> Vec<u8> {
    write(format, &template.without_extension(BLOCK_TYPE))
}

fn write(format: Format, template: &Template) -> Vec<u8> {
    match format {
        Format::Ansi378 => template.write_ansi(),
        Format::Iso19794_2 | Format::ZkFinger10 => template.write_iso(),
    }
}
