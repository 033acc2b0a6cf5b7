//! Records and requests ↔ bytes. No socket.

pub mod control;
pub mod events;
pub mod json;
pub mod packet;
pub mod profile;
