//! A file that is only read. redb repairs an unclean file as it opens it, and checks one by repairing
//! it; here what it writes stays in memory, and is forgotten with it.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

const BLOCK: usize = 4096;
/// The most that redb may write: a repair writes the state of its allocator, about a thousandth of
/// the file, and a little more.
const MAX_BLOCKS: usize = (256 << 20) / BLOCK;

/// See the module.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// Bytes of the file that still count; past it there are zeros.
    from_file: u64,
    blocks: HashMap<u64, Box<[u8; BLOCK]>>,
}

impl Overlay {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let written = Written { len, from_file: len, blocks: HashMap::new() };
        Ok(Self { file, written: Mutex::new(written) })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file holds, with zeros past its end.
    fn read_file(&self, offset: u64, out: &mut [u8], from_file: u64) -> io::Result<()> {
        let there = usize::try_from(from_file.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (held, past) = out.split_at_mut(there.min(out.len()));
        self.file.read_exact_at(held, offset)?;
        past.fill(0);
        Ok(())
    }
}

/// The parts of `length` bytes at `offset`, block by block: number, offset within, length.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = offset;
    let end = offset + length as u64;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let (number, within) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let length = (BLOCK - within).min((end - at) as usize);
            at += length as u64;
            (number, within, length)
        })
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > written.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_file(offset, out, written.from_file)?;
        if written.blocks.is_empty() {
            return Ok(());
        }
        let mut rest = out;
        for (number, within, length) in parts(offset, rest.len()) {
            let (part, more) = rest.split_at_mut(length);
            if let Some(block) = written.blocks.get(&number) {
                part.copy_from_slice(&block[within..within + length]);
            }
            rest = more;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        written.len = len;
        written.from_file = written.from_file.min(len);
        // What is cut off reads as zeros when it grows again.
        let (last, within) = (len / BLOCK as u64, (len % BLOCK as u64) as usize);
        written.blocks.retain(|&number, _| number <= last);
        if let Some(block) = written.blocks.get_mut(&last) {
            block[within..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > written.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = data;
        for (number, within, length) in parts(offset, data.len()) {
            let (part, more) = rest.split_at(length);
            if !written.blocks.contains_key(&number) {
                if written.blocks.len() >= MAX_BLOCKS {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                let mut block = Box::new([0; BLOCK]);
                self.read_file(number * BLOCK as u64, &mut block[..], written.from_file)?;
                written.blocks.insert(number, block);
            }
            if let Some(block) = written.blocks.get_mut(&number) {
                block[within..within + length].copy_from_slice(part);
            }
            rest = more;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(overlay: &Overlay, offset: u64, length: usize) -> Vec<u8> {
        let mut out = vec![0xee; length];
        overlay.read(offset, &mut out).unwrap();
        out
    }

    #[test]
    fn what_is_written_is_read_and_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let original = vec![7; 10_000];
        std::fs::write(&path, &original).unwrap();
        let overlay = Overlay::open(&path).unwrap();
        overlay.write(4_000, &[9; 5_000]).unwrap();
        assert_eq!(bytes(&overlay, 3_999, 2), [7, 9]);
        assert_eq!(bytes(&overlay, 8_999, 2), [9, 7]);
        assert!(overlay.read(9_999, &mut [0; 2]).is_err());
        assert!(overlay.write(9_999, &[0; 2]).is_err());
        overlay.set_len(5_000).unwrap();
        overlay.set_len(20_000).unwrap();
        assert_eq!(bytes(&overlay, 4_999, 2), [9, 0], "cut off, then zeros");
        assert_eq!(bytes(&overlay, 9_000, 2_000), [0; 2_000]);
        overlay.write(19_990, &[3; 10]).unwrap();
        assert_eq!(bytes(&overlay, 19_989, 11)[..2], [0, 3]);
        assert_eq!(std::fs::read(&path).unwrap(), original);
    }
}
