//! Tests that keep a server busy at its full speed. They run one at a time: see `tickcast_test_support::exclusive`.

mod limited_link;
mod real_data;
mod secured;
mod soak;
