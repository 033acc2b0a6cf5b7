//! Sources inside the process: the simulated market and recordings.
//!
//! They are pure state machines: time is an argument of [`Source::receive`](super::source::Source::receive), and they
//! never block. The supervisor drives one of them on one thread; tests drive it with a clock of their own.
//!
//! * [`sim`]: a seeded market.
//! * [`replay`]: recordings of venues, as fast as they were, faster, or as fast as the rings take them.

pub mod replay;
pub mod sim;
