//! The parts of the server in the test's own process: rings, sequencer, shards, feeds and the I/O layer.

mod clock;
mod computed_tickers;
mod definitions;
mod feed_losses;
mod fuzz_corpus;
mod hostile_clients;
mod interest_model;
mod io_contract;
mod joining;
mod owners;
mod replay_dbn;
mod replay_logs;
mod replay_recordings;
mod replay_rules;
mod replay_tardis;
mod replay_venues;
mod resume;
mod ring;
mod room;
mod sequencer;
mod shard_losses;
mod sim;
mod slow_clients;
mod sources;
