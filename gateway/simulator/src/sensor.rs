//! Which finger is on the glass.
//!
//! | state | sees | becomes |
//! |---|---|---|
//! | away | a file, and the gap since the last finger is over | on: that finger |
//! | away | no file, or still in the gap | away |
//! | on | its file, within the hold time | on |
//! | on | its file, past the hold time | away; the file is deleted |
//! | on | its file is gone or another one | away |
//!
//! The gap is counted in answers, not in time: however slowly an application polls, it sees the
//! finger lift.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::picture::{Content, Picture};
use crate::world::ImageFile;

/// "No finger" answers between two fingers: more than an application needs to notice a lift.
pub(crate) const GAP_ANSWERS: u8 = 4;
/// Pictures kept decoded, 120 KB each: the same few come again and again, under other names too.
const MAX_CACHED: usize = 32;
/// Files that couldn't be deleted, remembered as lifted.
const MAX_LIFTED: usize = 64;

/// One reader's glass.
#[derive(Debug, Default)]
pub(crate) struct Sensor {
    finger: Option<Finger>,
    gap_left: u8,
    /// Lifted, but perhaps still lying there.
    lifted: VecDeque<ImageFile>,
    /// The finger's picture: a resting finger costs no reading.
    current: Option<(ImageFile, Arc<Picture>)>,
    cache: VecDeque<(u64, Arc<Picture>)>,
}

#[derive(Debug)]
struct Finger {
    file: ImageFile,
    first_seen: Instant,
}

/// What the sensor sees at one look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Nothing,
    /// A finger: this file.
    Finger(ImageFile),
    /// A finger has just lifted by itself: delete its file.
    Lifted(PathBuf),
}

impl Sensor {
    /// Looks at the glass, with the images that lie there, the oldest first.
    pub(crate) fn look(&mut self, now: Instant, images: &[ImageFile]) -> Look {
        match self.finger.take() {
            Some(finger) if !images.contains(&finger.file) => self.lift(),
            Some(finger) if finger.is_over(now) => {
                let path = finger.file.path.clone();
                self.remember_lifted(finger.file);
                self.lift();
                Look::Lifted(path)
            }
            Some(finger) => {
                let file = finger.file.clone();
                self.finger = Some(finger);
                Look::Finger(file)
            }
            None if self.gap_left > 0 => {
                self.gap_left -= 1;
                Look::Nothing
            }
            None => self.place(now, images),
        }
    }

    /// The picture of a file; each content is decoded once.
    pub(crate) fn picture(&mut self, file: &ImageFile) -> Arc<Picture> {
        if let Some((_, picture)) = self.current.as_ref().filter(|(current, _)| current == file) {
            return Arc::clone(picture);
        }
        let content = Content::read(file);
        let key = content.key();
        let cached = self.cache.iter().find(|(cached, _)| *cached == key);
        let picture = match cached {
            Some((_, picture)) => Arc::clone(picture),
            None => {
                let picture = Arc::new(Picture::of(&content));
                if self.cache.len() == MAX_CACHED {
                    self.cache.pop_front();
                }
                self.cache.push_back((key, Arc::clone(&picture)));
                picture
            }
        };
        self.current = Some((file.clone(), Arc::clone(&picture)));
        picture
    }

    fn place(&mut self, now: Instant, images: &[ImageFile]) -> Look {
        let Some(file) = images.iter().find(|file| !self.lifted.contains(file)) else {
            return Look::Nothing;
        };
        self.finger = Some(Finger { file: file.clone(), first_seen: now });
        Look::Finger(file.clone())
    }

    fn lift(&mut self) -> Look {
        self.gap_left = GAP_ANSWERS - 1;
        Look::Nothing
    }

    fn remember_lifted(&mut self, file: ImageFile) {
        if self.lifted.len() == MAX_LIFTED {
            self.lifted.pop_front();
        }
        self.lifted.push_back(file);
    }
}

impl Finger {
    fn is_over(&self, now: Instant) -> bool {
        self.file.hold().is_some_and(|hold| now.duration_since(self.first_seen) >= hold)
    }
}

#[cfg(test)]
mod tests;
