//! The codecs of `tickcast-venues` against the venues here: subscriptions, books and trades, and every fault.

mod dialogue;
mod driver;
mod faults;
mod recordings;
mod sessions;
