//! The link to the bridge: pure core and its driver.
