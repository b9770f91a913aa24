//! How many connections there are, in all and from one address.
//!
//! A connection counts in all from the moment it is accepted, and to its address once that is known
//! (behind a proxy, a little later). The last few places are kept for this machine's own clients: the
//! service that runs the broker must get in when strangers have taken all others.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex},
};

use crate::{refusal::Refusal, session::lock};

/// Places for clients on this machine only.
const RESERVED: usize = 16;

#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    max_per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    per_address: HashMap<IpAddr, usize>,
}

impl Places {
    pub(crate) fn new(max: usize, max_per_address: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_address, taken: Mutex::default() })
    }

    /// Counts a connection in, if there is room. `is_local` is of a client on this machine, not of a
    /// proxy there.
    pub(crate) fn enter(self: &Arc<Self>, is_local: bool) -> Result<Place, Refusal> {
        let kept = if is_local { 0 } else { RESERVED.min(self.max / 2) };
        let mut taken = lock(&self.taken);
        if taken.all + kept >= self.max {
            return Err(Refusal::TooManyConnections);
        }
        taken.all += 1;
        Ok(Place { places: self.clone(), address: None })
    }

    pub(crate) fn taken(&self) -> usize {
        lock(&self.taken).all
    }
}

/// A connection's place among those allowed; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    address: Option<IpAddr>,
}

impl Place {
    /// Counts it to the client's address, if there is room.
    pub(crate) fn locate(&mut self, address: IpAddr) -> Result<(), Refusal> {
        let address = site(address);
        let mut taken = lock(&self.places.taken);
        let here = taken.per_address.entry(address).or_default();
        if *here >= self.places.max_per_address {
            return Err(Refusal::TooManyFromAddress);
        }
        *here += 1;
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        taken.all -= 1;
        let Some(address) = self.address else { return };
        if let Some(here) = taken.per_address.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                taken.per_address.remove(&address);
            }
        }
    }
}

/// What counts as one address: of IPv6 the /64, which is one site's.
pub(crate) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gives_it_back() {
        let places = Places::new(100, 2);
        let stranger = IpAddr::from([192, 0, 2, 1]);
        let enter = || {
            let mut place = places.enter(false)?;
            place.locate(stranger).map(|()| place)
        };
        let first = enter().unwrap();
        let _second = enter().unwrap();
        assert_eq!(enter().unwrap_err(), Refusal::TooManyFromAddress);
        assert_eq!(places.taken(), 2, "one that was refused is not counted");
        drop(first);
        assert!(enter().is_ok());
    }

    #[test]
    fn the_last_places_are_for_this_machine() {
        let places = Places::new(40, 100);
        let taken: Vec<_> = (0..24).map(|_| places.enter(false).unwrap()).collect();
        assert_eq!(places.enter(false).unwrap_err(), Refusal::TooManyConnections);
        let own: Vec<_> = (0..16).map(|_| places.enter(true).unwrap()).collect();
        assert!(places.enter(true).is_err());
        drop((taken, own));
        assert_eq!(places.taken(), 0);
    }
}
