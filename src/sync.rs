//! The atomics that [`crate::ring`] is built on, in one place, so that a model checker can stand in for them.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
