//! `/v1/trades/{symbol}`: the newest trades of an instrument, as columns.

use std::fmt::Write;

use super::bars::{RETRY, SEED_TRIES, TRIES, number, push_decimal, push_number};
use super::snapshot::{denied, unknown_instrument};
use crate::bars::BarStore;
use crate::http::portions::Portions;
use crate::http::refusal::{RETRY_AFTER, Refusal};
use crate::http::response::Response;
use crate::http::server::HttpServer;
use crate::identity::Principal;
use crate::recent_trades::{FoundTrades, RecentTrade, TRADES_MAX, TradeStore};
use tickcast_protocol::record::{FieldSet, PRICE_NONE};
use tickcast_protocol::{Channel, Sequence, Side};

const LIMIT: u32 = 100;
/// Trades that are written between two looks at the time: some 10 us.
const TRADES_AT_ONCE: usize = 256;

pub(crate) async fn get(
    server: &HttpServer,
    principal: &Principal,
    symbol: &str,
    query: &str,
) -> Result<Response, Refusal> {
    let state = server.state();
    let Some((store, trades)) = state.bars.as_deref().and_then(|bars| Some((bars, bars.trades()?))) else {
        return Err(Refusal::not_found("trades are off: the server was started with --trades-bytes 0"));
    };
    let limit = parse(query)?;
    let symbol = percent_encoding::percent_decode_str(symbol).decode_utf8_lossy();
    let delay_s = state.delay_s();
    if !principal.may_see(&symbol, Channel::Trade, delay_s) {
        // Before it is looked up: a refusal does not tell whether it exists.
        return Err(denied(&symbol, "its trades"));
    }
    let instrument =
        server.shard.borrow().directory().find(&symbol).ok_or_else(|| unknown_instrument(&symbol))?.clone();
    let mut found = find(store, trades, instrument.id, limit).await?;
    let hidden = principal.hidden_fields(&symbol, delay_s);
    let is_hidden = |name| FieldSet::named(Channel::Trade, name).is_some_and(|field| hidden.has_any(field));
    hide(&mut found.trades, is_hidden("px"), is_hidden("sz"));
    // Acquiring fails only on a closed semaphore, which this one never is.
    let _portion = server.building.acquire_permit(1).await;
    let mut text = String::from(r#"{"symbol":"#);
    text += &serde_json::to_string(&instrument.symbol).expect("a string is always valid JSON");
    let columns = Columns { exponents: (instrument.px_exp, instrument.sz_exp), found: &found };
    columns.push(&mut text).await;
    Ok(Response::json(text))
}

/// The newest trades, up to those that a client can have been sent before it asked.
async fn find(store: &BarStore, trades: &TradeStore, instrument: u32, limit: usize) -> Result<FoundTrades, Refusal> {
    let written = store.gauge().published_bytes();
    for nth in 0..TRIES {
        match trades.try_find(instrument, limit, written) {
            // An instrument that was just defined does not have those of the archive yet.
            Some(found) if found.is_seeded || nth >= SEED_TRIES => return Ok(found),
            _ => {}
        }
        if nth == 0 {
            store.hurry();
        }
        glommio::timer::sleep(RETRY).await;
    }
    Err(Refusal::unavailable("the trades are busy", RETRY_AFTER))
}

fn hide(trades: &mut [RecentTrade], px: bool, sz: bool) {
    for trade in trades.iter_mut().filter(|_| px || sz) {
        trade.px = if px { PRICE_NONE } else { trade.px };
        trade.sz = if sz { PRICE_NONE } else { trade.sz };
    }
}

/// Parses the query, whose parameters are known, each once. Returns the limit.
fn parse(text: &str) -> Result<usize, Refusal> {
    let mut limit = LIMIT;
    for (name, value) in form_urlencoded::parse(text.as_bytes()).filter(|(name, _)| name == "limit") {
        limit = number(&name, &value, 1, TRADES_MAX as u32)?;
    }
    Ok(limit as usize)
}

/// Writes a trade in a column. The exponents are those of the trade.
type PushTrade = fn(&RecentTrade, (i8, i8), &mut String);

/// The trades of an instrument.
struct Columns<'a> {
    /// Those of the instrument at present.
    exponents: (i8, i8),
    found: &'a FoundTrades,
}

impl Columns<'_> {
    async fn push(&self, out: &mut String) {
        let since = self.found.since_s.map_or_else(|| "null".to_owned(), |since_s| since_s.to_string());
        write!(out, r#","since":{since}"#).expect("writing to a String cannot fail");
        let mut portions = Portions::begin();
        for (name, push) in Self::COLUMNS {
            write!(out, r#","{name}":["#).expect("writing to a String cannot fail");
            for trades in self.found.trades.chunks(TRADES_AT_ONCE) {
                for trade in trades {
                    push(trade, trade.exponents.unwrap_or(self.exponents), out);
                    out.push(',');
                }
                portions.pause_if_over().await;
            }
            // The comma after the last trade.
            if out.ends_with(',') {
                out.pop();
            }
            out.push(']');
        }
        out.push('}');
    }

    /// The columns in their order, and how a trade is written there.
    const COLUMNS: [(&'static str, PushTrade); 7] = [
        ("sequence", |trade, _, out| match trade.sequence {
            Sequence::NONE => out.push_str("null"),
            sequence => push_number(sequence.get(), out),
        }),
        ("ts_event", |trade, _, out| push_number(trade.ts_event, out)),
        ("ts_recv", |trade, _, out| push_number(trade.ts_recv, out)),
        ("px", |trade, (px_exp, _), out| push_decimal(trade.px, px_exp, out)),
        ("sz", |trade, (_, sz_exp), out| push_decimal(trade.sz, sz_exp, out)),
        ("side", |trade, _, out| {
            out.push_str(match trade.side {
                Side::Buy => r#""B""#,
                Side::Sell => r#""S""#,
                _ => "null",
            });
        }),
        ("trade_id", |trade, _, out| push_number(trade.trade_id, out)),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_has_a_default_and_bounds() {
        assert_eq!((parse("").unwrap(), parse("limit=1").unwrap(), parse("%6cimit=1000").unwrap()), (100, 1, 1000));
        for text in ["limit=0", "limit=1001", "limit=", "limit=%2B5", "limit=1.5", "limit=-1"] {
            let refusal = parse(text).expect_err(text);
            assert_eq!((refusal.status, refusal.code), (400, "bad_request"));
            assert!(refusal.message.contains("expected a whole number from 1 to 1000"), "{}", refusal.message);
        }
    }

    fn written(trades: Vec<RecentTrade>, since_s: Option<u32>) -> String {
        let found = FoundTrades { since_s, trades, is_seeded: true };
        let mut text = String::from("{");
        let columns = Columns { exponents: (-2, 0), found: &found };
        // It pauses where a portion is over, as on a busy machine.
        glommio::LocalExecutor::default().run(columns.push(&mut text));
        text
    }

    #[test]
    fn each_trade_is_written_with_its_own_exponents_and_absent_values_are_null() {
        let trade = |sequence, exponents, side| RecentTrade {
            sequence: Sequence::new(sequence),
            ts_event: 0,
            ts_recv: 1_795_293_329_820_889_459,
            px: 12_345,
            sz: 7,
            trade_id: u64::MAX,
            side,
            exponents,
        };
        let mut trades =
            vec![trade(0, Some((-3, -1)), Side::Buy), trade(5, None, Side::Sell), trade(6, None, Side::Unknown)];
        hide(&mut trades[2..], true, false);
        hide(&mut trades[..1], false, true);
        assert_eq!(
            written(trades, Some(9)),
            r#"{,"since":9,"sequence":[null,5,6],"ts_event":[0,0,0],"#.to_owned()
                + r#""ts_recv":[1795293329820889459,1795293329820889459,1795293329820889459],"#
                + r#""px":["12.345","123.45",null],"sz":[null,"7","7"],"side":["B","S",null],"#
                + r#""trade_id":[18446744073709551615,18446744073709551615,18446744073709551615]}"#
        );
    }

    #[test]
    fn without_trades_the_columns_are_empty() {
        assert_eq!(
            written(Vec::new(), None),
            r#"{,"since":null,"sequence":[],"ts_event":[],"ts_recv":[],"px":[],"sz":[],"side":[],"trade_id":[]}"#
        );
    }
}
