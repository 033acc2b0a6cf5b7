use super::*;

use std::path::Path;
use std::sync::Arc;

use crate::archive::{Archive, Database, Parts};
use crate::bars::{BarStore, Bars};
use crate::lifecycle::Lifecycle;
use crate::recent_trades::TradeStore;
use tickcast_protocol::record::{self, RecordHeader, Trade};
use tickcast_protocol::{FeedState, Instrument, RecordKind, Sequence, Side};

/// A server with an archive that is written and read when a test says so.
struct Server {
    worker: Worker,
    sequence: u64,
}

impl Server {
    fn start(file: &Path) -> Self {
        let trades = TradeStore::new(RecentTrades::new(1 << 20, 0).with_archive());
        let store = BarStore::unfilled(Bars::new(1 << 20, 0)).with_trades(Some(trades));
        let parts = Parts {
            database: Database::open(file).unwrap(),
            store: Arc::new(store),
            bytes_max: 1 << 30,
            delay_ns: 0,
            lifecycle: Arc::new(Lifecycle::begin().0),
            cores: vec![0],
        };
        let mut server = Self { worker: Worker::new(parts, Arc::new(Archive::new().0)), sequence: 0 };
        server.define();
        server
    }

    fn fold(&mut self, record: &[u8]) {
        self.worker.with_trades(|trades, _| trades.fold(record)).unwrap();
    }

    fn define(&mut self) {
        let mut record = Vec::new();
        record::encode_definition(&Instrument { id: 1, ..Instrument::new(1, "A", "v", -2, -3) }, &mut record);
        self.fold(&record);
    }

    fn release(&mut self) {
        let mut record = Vec::new();
        let header = RecordHeader::of_feed(RecordKind::Status, 1, 0);
        record::encode_status(&header, FeedState::Released, &mut record);
        self.fold(&record);
    }

    fn trade(&mut self, trade_id: u64) {
        self.sequence += 1;
        let sequence = Sequence::new(self.sequence);
        let header = RecordHeader { sequence, ts_recv: 7, ..RecordHeader::of_feed(RecordKind::Trade, 1, 3) };
        let mut record = Vec::new();
        Trade { px: 1, sz: 2, trade_id, side: Side::Buy }.encode(&header, &mut record);
        self.fold(&record);
    }

    /// Sequences and ids, and whether the instrument is seeded.
    fn found(&mut self) -> (Vec<(u64, u64)>, bool) {
        let found = self.worker.with_trades(|trades, _| trades.find(1, 1000)).unwrap();
        let trades = found.trades.iter().map(|trade| (trade.sequence.get(), trade.trade_id)).collect();
        (trades, found.is_seeded)
    }
}

fn rename(file: &Path, from: &str, to: &str) {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).unwrap();
}

#[test]
fn trades_go_on_after_each_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bars.sqlite");
    let mut first = Server::start(&file);
    first.trade(11);
    assert_eq!(first.found(), (vec![(1, 11)], false));
    assert!(!first.worker.seed_trades(), "there is one instrument only");
    (12..=13).for_each(|id| first.trade(id));
    assert!(first.worker.write_trades(false) && first.worker.write_trades(true));
    assert_eq!(first.found(), (vec![(1, 11), (2, 12), (3, 13)], true));
    let mut second = Server::start(&file);
    second.trade(14);
    second.worker.seed_trades();
    second.define();
    second.worker.seed_trades();
    assert_eq!(second.found(), (vec![(0, 11), (0, 12), (0, 13), (1, 14)], true));
    second.worker.write_trades(true);
    let mut third = Server::start(&file);
    third.trade(15);
    third.worker.write_trades(false);
    third.worker.write_trades(true);
    let mut fourth = Server::start(&file);
    fourth.worker.seed_trades();
    assert_eq!(fourth.found().0, [(0, 11), (0, 12), (0, 13), (0, 14), (0, 15)], "the third was never seeded");
}

#[test]
fn trades_wait_while_the_file_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bars.sqlite");
    let mut earlier = Server::start(&file);
    earlier.trade(10);
    assert!(earlier.worker.write_trades(true));
    let mut server = Server::start(&file);
    rename(&file, "trades", "gone");
    server.worker.seed_trades();
    server.trade(11);
    assert_eq!((server.found(), server.worker.archive.counts().failures), ((vec![(1, 11)], false), 1));
    rename(&file, "gone", "trades");
    server.worker.seed_trades();
    rename(&file, "trades", "gone");
    assert!(!server.worker.write_trades(false) && !server.worker.write_trades(false));
    server.trade(12);
    server.release();
    server.define();
    server.worker.seed_trades();
    assert_eq!(server.found(), (vec![], false), "what was released is not in the file");
    rename(&file, "gone", "trades");
    assert!(server.worker.write_trades(false));
    server.worker.seed_trades();
    assert_eq!(server.found(), (vec![(0, 10), (0, 11), (0, 12)], true));
    let counts = server.worker.archive.counts();
    assert_eq!((counts.failures, counts.trades_lost), (3, 0));
}

#[test]
fn trades_of_a_released_instrument_are_taken_over_once_by_the_next_of_its_symbol() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bars.sqlite");
    let mut server = Server::start(&file);
    server.worker.seed_trades();
    for round in 1..=3 {
        server.trade(round);
        server.release();
        server.define();
        server.trade(10 * round);
        server.worker.seed_trades();
    }
    let ids: Vec<u64> = server.found().0.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, [1, 10, 2, 20, 3, 30]);
    server.worker.write_trades(true);
    let stored: Vec<u64> =
        server.worker.parts.database.trades("A").unwrap().iter().map(|trade| trade.trade_id).collect();
    assert_eq!(stored, ids);
}
