//! Requests of the parent, each answered before the next poll.

use std::time::Instant;

use super::{Owner, Reader};
use crate::codes::SdkCode;
use crate::message::{Answer, Failure, Request};
use crate::serial::Serial;

impl Owner {
    pub(super) fn answer(
        &mut self,
        request: Request,
        templates: Vec<Vec<u8>>,
    ) -> Result<(Answer, Vec<Vec<u8>>), Failure> {
        let plain = |answer: Answer| Ok((answer, Vec::new()));
        match request {
            Request::Arm { serial, on } => plain(self.arm(serial, on)?),
            Request::Recapture { serial } => plain(self.recapture(&serial)?),
            Request::Test { serial } => plain(self.test(&serial)?),
            Request::Info { serial } => plain(Answer::Info(self.reader(&serial)?.device.clone())),
            Request::Match => {
                let [a, b] = exactly(templates)?;
                let matcher = self.matcher.ok_or(Failure::NoMatcher)?;
                let score = self.sdk.compare(matcher, &a, &b).map_err(Failure::Sdk)?;
                plain(Answer::Score(score))
            }
            Request::Merge => Ok((Answer::Merged, vec![self.merge(exactly(templates)?)?])),
            Request::GalleryClear { loading } => {
                self.gallery.clear(&self.sdk, self.matcher, loading)?;
                plain(Answer::Done)
            }
            Request::GalleryAdd { fids } => plain(self.add(&fids, templates)?),
            Request::GalleryLoaded => {
                self.gallery.loaded();
                plain(Answer::Done)
            }
            Request::GalleryRemove { fid } => {
                self.gallery.remove(&self.sdk, self.matcher, fid)?;
                plain(Answer::Done)
            }
            Request::Identify => {
                let [template] = exactly(templates)?;
                let found = self.gallery.identify(&self.sdk, self.matcher, &template)?;
                plain(found.map_or(Answer::Stranger, |(fid, score)| Answer::Found { fid, score }))
            }
        }
    }

    fn reader(&self, serial: &Serial) -> Result<&Reader, Failure> {
        self.readers.get(serial).ok_or(Failure::UnknownReader)
    }

    /// Disarming is done also for a reader that has gone.
    fn arm(&mut self, serial: Serial, on: bool) -> Result<Answer, Failure> {
        if on {
            self.reader(&serial)?;
            self.known.entry(serial).or_default().armed = true;
        } else if let Some(known) = self.known.get_mut(&serial).filter(|known| known.armed) {
            known.armed = false;
            known.disarmed = Some(Instant::now());
        }
        Ok(Answer::Done)
    }

    fn recapture(&mut self, serial: &Serial) -> Result<Answer, Failure> {
        self.reader(serial)?;
        let known = self.known.get_mut(serial).ok_or(Failure::NoFinger)?;
        if known.glass.want_another() { Ok(Answer::Done) } else { Err(Failure::NoFinger) }
    }

    /// Reads a parameter back: the shortest way to the reader and back.
    fn test(&mut self, serial: &Serial) -> Result<Answer, Failure> {
        let reader = self.readers.get_mut(serial).ok_or(Failure::UnknownReader)?;
        let started = Instant::now();
        self.sdk.image_size(&mut reader.open, Some(serial)).map_err(Failure::Sdk)?;
        Ok(Answer::Tested { micros: started.elapsed().as_micros() as u64 })
    }

    /// Consecutive placements are compared first, as the vendor's samples do.
    fn merge(&self, [a, b, c]: [Vec<u8>; 3]) -> Result<Vec<u8>, Failure> {
        let matcher = self.matcher.ok_or(Failure::NoMatcher)?;
        for (one, next) in [(&a, &b), (&b, &c)] {
            if self.sdk.compare(matcher, one, next).map_err(Failure::Sdk)? == 0 {
                return Err(Failure::Sdk(SdkCode::MERGE_FAILED));
            }
        }
        self.sdk.merge(matcher, [&a, &b, &c]).map_err(Failure::Sdk)
    }

    fn add(&mut self, fids: &[u32], templates: Vec<Vec<u8>>) -> Result<Answer, Failure> {
        if fids.len() != templates.len() {
            return Err(Failure::Malformed);
        }
        let mut rejected = Vec::new();
        for (&fid, template) in fids.iter().zip(templates) {
            if !self.gallery.add(&self.sdk, self.matcher, fid, template)? {
                rejected.push(fid);
            }
        }
        Ok(Answer::Added { rejected })
    }
}

fn exactly<const N: usize>(templates: Vec<Vec<u8>>) -> Result<[Vec<u8>; N], Failure> {
    templates.try_into().map_err(|_| Failure::Malformed)
}
