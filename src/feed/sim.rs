//! A seeded market.
