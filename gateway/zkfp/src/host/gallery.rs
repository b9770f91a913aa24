//! The templates to search in, also while the SDK has forgotten them: it does at every
//! re-initialisation.
//!
//! | state | a search |
//! |---|---|
//! | not loaded (a fresh host, or within a load) | is refused: nobody would be found |
//! | loaded, no matcher | is refused: no reader is there |
//! | loaded, matcher | is done |

use std::collections::BTreeMap;

use crate::codes::SdkCode;
use crate::message::Failure;
use crate::sdk::{Matcher, Sdk};

/// The SDK's own limit.
const MAX_TEMPLATES: usize = 50_000;

/// The templates, by their number.
#[derive(Debug, Default)]
pub(super) struct Gallery {
    templates: BTreeMap<u32, Vec<u8>>,
    loaded: bool,
}

impl Gallery {
    /// Forgets all; while loading, searches are refused.
    pub(super) fn clear(
        &mut self,
        sdk: &Sdk,
        matcher: Option<Matcher>,
        loading: bool,
    ) -> Result<(), Failure> {
        self.templates.clear();
        self.loaded = !loading;
        matcher.map_or(Ok(()), |matcher| sdk.clear(matcher)).map_err(Failure::Sdk)
    }

    /// Searches are allowed from now on.
    pub(super) fn loaded(&mut self) {
        self.loaded = true;
    }

    /// Adds or replaces a template; false when the SDK doesn't take it.
    pub(super) fn add(
        &mut self,
        sdk: &Sdk,
        matcher: Option<Matcher>,
        fid: u32,
        template: Vec<u8>,
    ) -> Result<bool, Failure> {
        if self.templates.len() >= MAX_TEMPLATES && !self.templates.contains_key(&fid) {
            return Err(Failure::GalleryFull);
        }
        self.remove(sdk, matcher, fid)?;
        match matcher.map_or(Ok(()), |matcher| sdk.add(matcher, fid, &template)) {
            Ok(()) => {
                self.templates.insert(fid, template);
                Ok(true)
            }
            Err(SdkCode::INVALID_PARAMETER | SdkCode::ADD_FAILED) => Ok(false),
            Err(code) => Err(Failure::Sdk(code)),
        }
    }

    /// Removes a template; one that isn't there is removed already.
    pub(super) fn remove(
        &mut self,
        sdk: &Sdk,
        matcher: Option<Matcher>,
        fid: u32,
    ) -> Result<(), Failure> {
        if self.templates.remove(&fid).is_none() {
            return Ok(());
        }
        matcher.map_or(Ok(()), |matcher| sdk.delete(matcher, fid)).map_err(Failure::Sdk)
    }

    /// Gives all templates to a fresh matcher; the numbers of those that it doesn't take.
    pub(super) fn restore(&self, sdk: &Sdk, matcher: Matcher) -> Vec<u32> {
        self.templates
            .iter()
            .filter(|(fid, template)| sdk.add(matcher, **fid, template).is_err())
            .map(|(fid, _)| *fid)
            .collect()
    }

    /// Searches.
    pub(super) fn identify(
        &self,
        sdk: &Sdk,
        matcher: Option<Matcher>,
        template: &[u8],
    ) -> Result<Option<(u32, u16)>, Failure> {
        if !self.loaded {
            return Err(Failure::GalleryNotLoaded);
        }
        let matcher = matcher.ok_or(Failure::NoMatcher)?;
        if self.templates.is_empty() {
            return Ok(None);
        }
        let found = sdk.identify(matcher, template).map_err(Failure::Sdk)?;
        // A number that nobody gave is a fault of the SDK, not a person.
        Ok(found.filter(|(fid, _)| self.templates.contains_key(fid)))
    }
}
