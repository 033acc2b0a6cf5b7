//! A venue without the internet: it speaks the WebSocket and REST dialogue of a crypto exchange over TLS, plays a session
//! from a seed or a recording, and has faults.
//!
//! What it sends follows the documents of the venues and recorded messages, and shares no code with the codecs that it
//! tests. At the end it tells what it truly was: the book of each instrument and all trades ([`Truth`]).
//!
//! ```no_run
//! use fake_venue::{Options, FakeVenue, VenueKind};
//!
//! let venue = FakeVenue::start(Options::new(VenueKind::Kraken))?;
//! println!("connect to {}", venue.url());
//! venue.stop_session();
//! let truth = venue.truth();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod dialect;
mod hub;
mod market;
mod options;
mod server;
mod truth;
mod venue;

pub use hub::ScriptedChange;
pub use hub::faults::{Class, Fault, FaultPlan};
pub use hub::limits::{Limits, Rate};
pub use options::{Options, Source, Speed};
pub use server::{FakeVenue, StartError};
pub use truth::{FaultRecord, InstrumentTruth, TradeTruth, Truth};
pub use venue::VenueKind;
