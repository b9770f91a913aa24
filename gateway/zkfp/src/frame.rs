//! Frames on the socket between parent and child.
//!
//! ```text
//! u32  length of what follows, little-endian, at most 64 KiB
//! u8   frame version, 1
//! u16  length of the header, little-endian
//! ...  header: a message as JSON
//! then, until the end, templates: u16 length, little-endian, and the bytes
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

/// No frame is longer.
pub(crate) const MAX_FRAME_BYTES: usize = 64 * 1024;
const VERSION: u8 = 1;
const LENGTH_BYTES: usize = 4;

/// A frame that can't be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {0} bytes; at most {MAX_FRAME_BYTES}")]
    TooLong(usize),
    #[error("a frame of version {0}; known is {VERSION}")]
    Version(u8),
    #[error("a frame that ends within its {0}")]
    Truncated(&'static str),
    #[error("a message that can't be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// A message and the templates that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Framed<M> {
    pub(crate) message: M,
    pub(crate) templates: Vec<Vec<u8>>,
}

impl<M> Framed<M> {
    /// A message without templates.
    pub(crate) fn plain(message: M) -> Framed<M> {
        Framed { message, templates: Vec::new() }
    }
}

impl<M: Serialize> Framed<M> {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let header = serde_json::to_vec(&self.message)?;
        let templates: usize = self.templates.iter().map(|template| 2 + template.len()).sum();
        let length = 3 + header.len() + templates;
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(length));
        }
        let mut frame = Vec::with_capacity(LENGTH_BYTES + length);
        frame.extend((length as u32).to_le_bytes());
        frame.push(VERSION);
        put_block(&mut frame, &header);
        for template in &self.templates {
            put_block(&mut frame, template);
        }
        Ok(frame)
    }
}

impl<M: DeserializeOwned> Framed<M> {
    /// Reads a frame's inside, without its length.
    fn decode(frame: &[u8]) -> Result<Framed<M>, FrameError> {
        let (&version, rest) = frame.split_first().ok_or(FrameError::Truncated("version"))?;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let (header, mut rest) = take_block(rest).ok_or(FrameError::Truncated("message"))?;
        let message = serde_json::from_slice(header)?;
        let mut templates = Vec::new();
        while !rest.is_empty() {
            let (template, after) = take_block(rest).ok_or(FrameError::Truncated("templates"))?;
            templates.push(template.to_vec());
            rest = after;
        }
        Ok(Framed { message, templates })
    }
}

/// Bytes as they come, frames as they are complete.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
}

impl FrameBuffer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete frame.
    pub(crate) fn next<M: DeserializeOwned>(&mut self) -> Result<Option<Framed<M>>, FrameError> {
        let Some(prefix) = self.bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(length));
        }
        let Some(frame) = self.bytes.get(LENGTH_BYTES..LENGTH_BYTES + length) else {
            return Ok(None);
        };
        let framed = Framed::decode(frame)?;
        self.bytes.drain(..LENGTH_BYTES + length);
        Ok(Some(framed))
    }
}

/// Blocks fit 16 bits because the whole frame does: checked by the caller.
fn put_block(frame: &mut Vec<u8>, block: &[u8]) {
    frame.extend((block.len() as u16).to_le_bytes());
    frame.extend_from_slice(block);
}

fn take_block(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_le_bytes(*length).into())
}

#[cfg(test)]
mod tests;
