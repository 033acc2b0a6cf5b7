//! The trades in the file of the archive.

use rusqlite::{Connection, Row, params};

use super::database::{Database, DatabaseError, find_instrument, instrument};
use crate::recent_trades::{RecentTrade, STORED_MAX, StoredTrades};
use tickcast_protocol::record::PRICE_NONE;
use tickcast_protocol::{Sequence, Side};

impl Database {
    /// Adds trades of instruments behind those that it has of them, and removes their oldest ones.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn record_trades(&mut self, stored: &[StoredTrades]) -> Result<(), DatabaseError> {
        self.change(|transaction| stored.iter().try_for_each(|stored| write_trades(transaction, stored)))
    }

    /// The trades of an instrument, oldest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn trades(&self, symbol: &str) -> Result<Vec<RecentTrade>, DatabaseError> {
        let found = || {
            let Some(id) = find_instrument(&self.connection, symbol)? else { return Ok(Vec::new()) };
            let mut select = self.connection.prepare_cached(
                "SELECT ts_event, ts_recv, px_exp, sz_exp, px, sz, trade_id, side FROM trades WHERE instrument = ?1 ORDER \
                 BY position DESC LIMIT ?2",
            )?;
            let rows = select.query_map(params![id, STORED_MAX as i64], trade_of)?;
            let mut trades: Vec<RecentTrade> = rows.collect::<rusqlite::Result<_>>()?;
            trades.reverse();
            Ok(trades)
        };
        found().map_err(|error: rusqlite::Error| error.to_string())
    }
}

fn write_trades(connection: &Connection, stored: &StoredTrades) -> rusqlite::Result<()> {
    let id = instrument(connection, &stored.symbol)?;
    let last = "SELECT ifnull(max(position), 0) FROM trades WHERE instrument = ?1";
    let mut position: i64 = connection.prepare_cached(last)?.query_row([id], |row| row.get(0))?;
    if !stored.follows {
        // What it has would have a hole before these.
        connection.prepare_cached("DELETE FROM trades WHERE instrument = ?1")?.execute([id])?;
    }
    let mut insert =
        connection.prepare_cached("INSERT INTO trades VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?;
    for trade in &stored.trades {
        let Some((px_exp, sz_exp)) = trade.exponents else { continue };
        position += 1;
        insert.execute(params![
            id,
            position,
            trade.ts_event.cast_signed(),
            trade.ts_recv.cast_signed(),
            px_exp,
            sz_exp,
            (trade.px != PRICE_NONE).then_some(trade.px),
            (trade.sz != PRICE_NONE).then_some(trade.sz),
            trade.trade_id.cast_signed(),
            char::from(trade.side.to_wire()).to_string()
        ])?;
    }
    let oldest = "DELETE FROM trades WHERE instrument = ?1 AND position <= ?2";
    connection.prepare_cached(oldest)?.execute([id, position - STORED_MAX as i64])?;
    Ok(())
}

fn trade_of(row: &Row<'_>) -> rusqlite::Result<RecentTrade> {
    let side: String = row.get(7)?;
    Ok(RecentTrade {
        sequence: Sequence::NONE,
        ts_event: row.get::<_, i64>(0)?.cast_unsigned(),
        ts_recv: row.get::<_, i64>(1)?.cast_unsigned(),
        exponents: Some((row.get(2)?, row.get(3)?)),
        px: row.get::<_, Option<i64>>(4)?.unwrap_or(PRICE_NONE),
        sz: row.get::<_, Option<i64>>(5)?.unwrap_or(PRICE_NONE),
        trade_id: row.get::<_, i64>(6)?.cast_unsigned(),
        side: side.chars().next().and_then(|letter| u8::try_from(letter).ok()).map_or(Side::Unknown, Side::from_wire),
    })
}
