//! What the tests of tickcast share.

pub mod fake;
