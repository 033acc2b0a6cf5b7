//! The ring between the sequencer and one shard.
