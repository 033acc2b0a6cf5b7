//! Records as lines of text: time, channel, symbol, values at the instrument's precision, sequence, flags.
//!
//! Pure: bytes in, text out. Columns line up for symbols of up to 12 bytes and prices of up to 12 digits.

use std::fmt::Write;

use tickcast_protocol::record::{self, Gap, Level, PRICE_NONE, Quote, RecordHeader, Ticker, Trade, flags};
use tickcast_protocol::{BookAction, Channel, FeedState, GapReason, Instrument, decimal};

/// Levels of a book record that a line shows.
const LEVELS_SHOWN: usize = 6;
/// Bytes of a raw payload that a line shows.
const PAYLOAD_SHOWN: usize = 64;
const DAY_NS: u64 = 86_400_000_000_000;

/// Appends the line of a channel's record, with its newline.
pub fn push_line(channel: Channel, header: &RecordHeader, record: &[u8], instrument: &Instrument, out: &mut String) {
    let time_ns = if header.ts_event == 0 { header.ts_recv } else { header.ts_event };
    push_time(time_ns, out);
    put(out, format_args!(" {:<6} {:<12} ", channel.name(), instrument.symbol));
    let start = out.len();
    // The decoder hands on only records whose body is complete.
    let known = push_values(channel, record, instrument, out);
    if known.is_none() {
        out.push_str("malformed");
    }
    let width = out[start..].chars().count();
    out.extend(std::iter::repeat_n(' ', VALUES_WIDTH.saturating_sub(width)));
    put(out, format_args!(" #{}", header.sequence));
    push_flags(header.flags, out);
    out.push('\n');
}

/// Columns of the values of a quote, the most frequent line.
const VALUES_WIDTH: usize = 55;

/// The notice for a Gap record.
pub fn gap_text(gap: &Gap, instrument: Option<&Instrument>) -> String {
    let reason = match gap.reason {
        GapReason::Slow => "this client was too slow",
        GapReason::Overrun => "the server's ring was overrun",
        GapReason::Feed => "the feed has a gap",
        GapReason::Reconnect => "this client was disconnected for longer than the server's history",
        GapReason::Other(_) => "no reason given",
    };
    let name = instrument.map_or_else(|| format!("instrument {}", gap.instrument), |known| known.symbol.clone());
    let (channel, from, to) = (gap.channel.name(), gap.from_sequence, gap.to_sequence);
    format!("gap: {channel} {name} #{from} to #{to} are missing: {reason}")
}

/// The notice for a Status record.
pub fn status_text(record: &[u8], instrument: Option<&Instrument>) -> String {
    let state = match record::read_status(record) {
        Some(FeedState::Live) => "live",
        Some(FeedState::Stale) => "stale",
        Some(FeedState::Halted) => "halted",
        Some(FeedState::Ended) => "ended",
        Some(FeedState::Released) => "released",
        Some(FeedState::Other(_)) | None => "in an unknown state",
    };
    format!("status: {} is {state}", instrument.map_or("the feed", |known| known.symbol.as_str()))
}

/// Appends the time of day in UTC, to the microsecond.
pub fn push_time(ns: u64, out: &mut String) {
    let (seconds, micros) = (ns % DAY_NS / 1_000_000_000, ns % 1_000_000_000 / 1_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    put(out, format_args!("{hours:02}:{minutes:02}:{seconds:02}.{micros:06}"));
}

fn push_values(channel: Channel, record: &[u8], instrument: &Instrument, out: &mut String) -> Option<()> {
    let px = |mantissa| value(mantissa, instrument.px_exp);
    let sz = |mantissa| value(mantissa, instrument.sz_exp);
    match channel {
        Channel::Quote => {
            let Quote { bid_px, bid_sz, ask_px, ask_sz } = Quote::read(record)?;
            let (bid, ask) = (px(bid_px), px(ask_px));
            put(out, format_args!("{bid:>12} x {:<12} {ask:>12} x {:<12}", sz(bid_sz), sz(ask_sz)));
        }
        Channel::Trade => {
            let trade = Trade::read(record)?;
            let side = trade.side;
            put(out, format_args!("{:>12} x {:<12} {side} id {}", px(trade.px), sz(trade.sz), trade.trade_id));
        }
        Channel::Ticker => {
            let ticker = Ticker::read(record)?;
            let (last, open, volume) = (px(ticker.last_px), px(ticker.open_px), sz(ticker.volume));
            let (low, high) = (px(ticker.low_px), px(ticker.high_px));
            put(out, format_args!("{last:>12} open {open} low {low} high {high} volume {volume}"));
        }
        Channel::Book => {
            let (action, levels) = record::read_book(record)?;
            let action = if action == BookAction::Snapshot { "snapshot" } else { "delta" };
            put(out, format_args!("{action:>12} {} levels", levels.len()));
            let more = levels.len() > LEVELS_SHOWN;
            for Level { px: level_px, sz: level_sz, side } in levels.take(LEVELS_SHOWN) {
                put(out, format_args!(" {side} {} x {}", px(level_px), sz(level_sz)));
            }
            out.push_str(if more { " …" } else { "" });
        }
        Channel::Raw => push_payload(record::read_raw(record)?, out),
    }
    Some(())
}

/// Printable text as it is, other payloads in hexadecimal.
fn push_payload(payload: &[u8], out: &mut String) {
    put(out, format_args!("{:>12} bytes ", payload.len()));
    let shown = &payload[..payload.len().min(PAYLOAD_SHOWN)];
    match std::str::from_utf8(shown) {
        Ok(text) if !text.chars().any(char::is_control) => out.push_str(text),
        _ => shown.iter().for_each(|byte| put(out, format_args!("{byte:02x}"))),
    }
    out.push_str(if shown.len() < payload.len() { "…" } else { "" });
}

/// A price or size; `-` where there is none.
fn value(mantissa: i64, exponent: i8) -> String {
    if mantissa == PRICE_NONE { "-".to_owned() } else { decimal::to_string(mantissa, exponent) }
}

fn push_flags(set: u8, out: &mut String) {
    let names = [
        (flags::SNAPSHOT, "SNAP"),
        (flags::CONFLATED, "CONF"),
        (flags::DELAYED, "DELAYED"),
        (flags::MAYBE_BAD_BOOK, "BADBOOK"),
        (flags::COMPUTED, "COMPUTED"),
    ];
    for (_, name) in names.iter().filter(|(flag, _)| set & flag != 0) {
        put(out, format_args!(" {name}"));
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::latency::channel_of;
    use tickcast_client::decode::Decoder;
    use tickcast_protocol::BookSide;
    use tickcast_test_support::packets::PacketBuilder;

    fn lines(packet: &PacketBuilder) -> String {
        let mut text = String::new();
        Decoder::new()
            .packet(&packet.bytes(), |instrument, header, record| {
                if let (Some(channel), Some(instrument)) = (channel_of(header), instrument) {
                    push_line(channel, header, record, instrument, &mut text);
                }
            })
            .expect("well-formed");
        text
    }

    #[test]
    fn lines_are_aligned_and_show_exact_values() {
        let ticker = Ticker {
            last_px: 6_183_764,
            open_px: 6_000_000,
            high_px: 6_200_001,
            low_px: PRICE_NONE,
            volume: 5_500,
            turnover: 0,
            bid_px: 0,
            ask_px: 0,
        };
        let packet = PacketBuilder::new()
            .definition(1, "BTC-USD")
            .quote(5, flags::LAST | flags::SNAPSHOT)
            .quote(9, flags::CONFLATED | flags::MAYBE_BAD_BOOK | flags::DELAYED)
            .trade(12, flags::LAST)
            .ticker(3, ticker);
        let want = "\
02:13:20.123456 quote  BTC-USD          61837.63 x 3.788            61837.64 x 1.200        #5 SNAP
02:13:20.123456 quote  BTC-USD          61837.63 x 3.788            61837.64 x 1.200        #9 CONF DELAYED BADBOOK
02:13:20.123456 trade  BTC-USD          61837.64 x 0.010        B id 77                     #12
02:13:20.123456 ticker BTC-USD          61837.64 open 60000.00 low - high 62000.01 volume 5.500 #3
";
        assert_eq!(lines(&packet), want);
    }

    #[test]
    fn books_and_payloads_are_shortened() {
        let levels: Vec<_> = (0..7)
            .map(|n| Level { px: 100 + n, sz: n * 1000, side: if n < 3 { BookSide::Bid } else { BookSide::Ask } })
            .collect();
        let packet = PacketBuilder::new()
            .definition(1, "BTC-USD")
            .book(1, BookAction::Delta, &levels[..2])
            .book(2, BookAction::Snapshot, &levels)
            .raw(1, b"hello")
            .raw(2, b"a\nb")
            .raw(3, &[b'x'; 65]);
        let text = lines(&packet);
        let values: Vec<_> = text.lines().map(|line| line[36..].split(" #").next().unwrap_or("").trim()).collect();
        let sixty_four = format!("65 bytes {}…", "x".repeat(64));
        assert_eq!(
            values,
            [
                "delta 2 levels B 1.00 x 0.000 B 1.01 x 1.000",
                "snapshot 7 levels B 1.00 x 0.000 B 1.01 x 1.000 B 1.02 x 2.000 A 1.03 x 3.000 A 1.04 x 4.000 \
                 A 1.05 x 5.000 …",
                "5 bytes hello",
                "3 bytes 610a62",
                &sixty_four,
            ]
        );
    }

    #[test]
    fn gaps_and_status_are_sentences() {
        let gap = Gap {
            instrument: 4,
            channel: Channel::Trade,
            from_sequence: 5.into(),
            to_sequence: 9.into(),
            reason: GapReason::Slow,
        };
        assert_eq!(gap_text(&gap, None), "gap: trade instrument 4 #5 to #9 are missing: this client was too slow");
        let mut status = Vec::new();
        record::encode_status(
            &RecordHeader::of_feed(tickcast_protocol::RecordKind::Status, 0, 0),
            FeedState::Stale,
            &mut status,
        );
        assert_eq!(status_text(&status, None), "status: the feed is stale");
    }
}
