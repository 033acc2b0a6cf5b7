//! Records as JSON.
