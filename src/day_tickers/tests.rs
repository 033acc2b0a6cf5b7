use super::*;
use tickcast_protocol::Side;

const MANY: usize = 64 << 20;
const SECOND_NS: u64 = 1_000_000_000;
/// Some minute of the clock.
const BEGIN: u64 = 30_000_000 * MINUTE_NS;

struct Market {
    tickers: DayTickers,
    now_ns: u64,
}

impl Market {
    fn new(bytes_max: usize) -> Self {
        let mut market = Self { tickers: DayTickers::new(bytes_max), now_ns: BEGIN };
        market.define(1, -2, -3);
        market
    }

    fn fold(&mut self, record: &[u8]) {
        self.tickers.fold(record, self.now_ns);
        self.tickers.share();
    }

    fn define(&mut self, instrument: u32, px_exp: i8, sz_exp: i8) {
        let defined = Instrument { id: instrument, ..Instrument::new(1, "A", "v", px_exp, sz_exp) };
        let mut record = Vec::new();
        record::encode_definition(&defined, &mut record);
        self.fold(&record);
    }

    fn trade(&mut self, instrument: u32, px: i64, sz: i64) {
        let mut record = Vec::new();
        let header = RecordHeader::of_feed(RecordKind::Trade, instrument, 0);
        Trade { px, sz, trade_id: 0, side: Side::Buy }.encode(&header, &mut record);
        self.fold(&record);
    }

    /// The tickers that are due this much later.
    fn after(&mut self, ns: u64) -> Vec<ComputedTicker> {
        self.now_ns += ns;
        self.tickers.take(self.now_ns)
    }

    /// That of the one instrument which has one due: last, open, high, low, volume, turnover.
    #[track_caller]
    fn values_after(&mut self, ns: u64) -> [i64; 6] {
        let due = self.after(ns);
        let [ComputedTicker { ticker, .. }] = due[..] else { panic!("expected one: {due:?}") };
        assert_eq!((ticker.bid_px, ticker.ask_px), (PRICE_NONE, PRICE_NONE));
        [ticker.last_px, ticker.open_px, ticker.high_px, ticker.low_px, ticker.volume, ticker.turnover]
    }
}

#[test]
fn a_ticker_has_the_trades_and_comes_once_a_second_where_there_were_some() {
    let mut market = Market::new(MANY);
    for (px, sz) in [(1000, 1500), (1300, 500), (900, 2000), (1100, PRICE_NONE), (PRICE_NONE, 9)] {
        market.trade(1, px, sz);
    }
    assert_eq!(market.after(FIRST_AFTER_NS - 1), [], "a source that sends its own is first");
    // 10.00 * 1.5 + 13.00 * 0.5 + 9.00 * 2 = 39.50
    assert_eq!(market.values_after(SECOND_NS), [1100, 1000, 1300, 900, 4000, 3950]);
    assert_eq!(market.after(SECOND_NS), [], "nothing was traded since");
    market.trade(1, 800, 1);
    assert_eq!(market.after(SECOND_NS).len(), 1);
    market.trade(1, 800, 1);
    assert_eq!(market.after(SECOND_NS - 1), [], "a second is not over");
    // 39.50 + twice 0.008
    assert_eq!(market.values_after(1), [800, 1000, 1300, 800, 4002, 3952]);
}

#[test]
fn a_trade_leaves_when_it_is_24_hours_old_to_the_minute() {
    let mut market = Market::new(MANY);
    market.trade(1, 5000, 1000);
    market.now_ns += 90 * SECOND_NS;
    market.trade(1, 100, 2000);
    market.trade(1, 200, 1000);
    assert_eq!(market.values_after(10 * SECOND_NS), [200, 5000, 5000, 100, 4000, 5000 + 200 + 200]);
    // It was traded in the first minute, which is 24 hours old when that has passed.
    market.now_ns = BEGIN + 1441 * MINUTE_NS - 1;
    assert_eq!(market.after(0), []);
    assert_eq!(market.values_after(SECOND_NS), [200, 100, 200, 100, 3000, 400], "without a new trade");
    market.now_ns = BEGIN + 1442 * MINUTE_NS;
    assert_eq!(
        market.values_after(0),
        [200, PRICE_NONE, PRICE_NONE, PRICE_NONE, 0, 0],
        "none is left but the last price"
    );
    assert_eq!(market.after(50 * MINUTE_NS), []);
    market.trade(1, 300, 1000);
    assert_eq!(market.values_after(SECOND_NS), [300, 300, 300, 300, 1000, 300]);
}

#[test]
fn many_trades_make_the_same_ticker_as_all_of_them_together() {
    let mut market = Market::new(MANY);
    let mut all = Vec::new();
    for nth in 0..3 * 1440_i64 {
        market.now_ns += MINUTE_NS;
        let (px, sz) = (1000 + nth * 7919 % 613, 1000 * (nth % 17));
        market.trade(1, px, sz);
        all.push((px, sz));
        if nth % 97 == 0 {
            let window = &all[all.len().saturating_sub(1441)..];
            let (high, low) = (window.iter().max().unwrap().0, window.iter().min().unwrap().0);
            let volume: i64 = window.iter().map(|trade| trade.1).sum();
            let turnover = window.iter().map(|trade| trade.0 * trade.1 / 1000).sum();
            // The first ticker waits, which one of the later ones makes up for.
            market.tickers.rows[0].change();
            let due = market.after(FIRST_AFTER_NS);
            let ticker = due[0].ticker;
            assert_eq!([ticker.open_px, ticker.high_px, ticker.low_px], [window[0].0, high, low], "{nth}");
            assert_eq!([ticker.volume, ticker.turnover], [volume, turnover], "{nth}");
            market.now_ns -= FIRST_AFTER_NS;
        }
    }
    // Those of a day, and of the minutes between two tickers of this test.
    assert!(market.tickers.bytes() < (1450 + 97) * Window::BUCKET_BYTES, "{}", market.tickers.bytes());
}

#[test]
fn with_many_instruments_the_buckets_are_longer_and_nothing_is_missing() {
    let mut market = Market::new(240 * Window::BUCKET_BYTES);
    // 120 buckets of twelve minutes for one, 24 of an hour each for ten and more.
    for nth in 0..600 {
        market.now_ns += MINUTE_NS;
        market.trade(1, 1000 + nth, 1000);
    }
    // Fifty, and room for as many.
    assert!(market.tickers.bytes() < 104 * Window::BUCKET_BYTES, "{}", market.tickers.bytes());
    (2..=20).for_each(|instrument| market.trade(instrument, 1, 1));
    assert!(market.tickers.bytes() < 140 * Window::BUCKET_BYTES, "{}", market.tickers.bytes());
    assert_eq!((capacity(240 * Window::BUCKET_BYTES, 20), market.tickers.step), (24, 60));
    let due = market.after(FIRST_AFTER_NS);
    let ticker = due[0].ticker;
    assert_eq!([ticker.open_px, ticker.high_px, ticker.low_px, ticker.volume], [1000, 1599, 1000, 600_000]);
    // Eleven hours of ten have begun: the first one leaves as a whole.
    market.now_ns = BEGIN + (60 + 1440) * MINUTE_NS;
    let ticker = market.after(0)[0].ticker;
    assert_eq!([ticker.open_px, ticker.low_px, ticker.volume], [1059, 1059, 541_000]);
}

#[test]
fn other_exponents_carry_the_window_over_or_begin_it_anew() {
    let mut market = Market::new(MANY);
    market.trade(1, 1000, 1500);
    assert_eq!(market.values_after(FIRST_AFTER_NS), [1000, 1000, 1000, 1000, 1500, 1500]);
    market.define(1, -3, -1);
    let due = market.after(SECOND_NS);
    assert_eq!(due[0].exponents, Some((-3, -1)));
    let ticker = due[0].ticker;
    assert_eq!([ticker.last_px, ticker.volume, ticker.turnover], [10_000, 15, 15_000]);
    market.define(1, -3, -1);
    assert_eq!(market.after(SECOND_NS), [], "the same ones change nothing");
    market.define(1, 2, 0);
    assert_eq!(market.after(SECOND_NS), [], "10.00 is no multiple of a hundred");
    market.trade(1, 3, 2);
    assert_eq!(market.values_after(FIRST_AFTER_NS), [3, 3, 3, 3, 2, 6]);
}

#[test]
fn a_sum_that_64_bits_do_not_hold_is_absent_until_it_fits() {
    let mut market = Market::new(MANY);
    market.define(1, 0, 0);
    market.trade(1, i64::MAX, i64::MAX);
    market.trade(1, i64::MAX, i64::MAX);
    market.trade(1, i64::MAX, i64::MAX);
    let [.., volume, turnover] = market.values_after(FIRST_AFTER_NS);
    assert_eq!([volume, turnover], [PRICE_NONE; 2]);
    market.now_ns += MINUTE_NS;
    market.trade(1, -2, 3);
    market.now_ns = BEGIN + 1441 * MINUTE_NS;
    assert_eq!(market.values_after(0), [-2, -2, -2, -2, 3, -6]);
}

#[test]
fn the_turnover_is_rounded_to_the_price_exponent() {
    for (sz_exp, px, sz, turnover) in [
        (-1, 3, 4, 1),
        (-1, 3, 5, 2),
        (-1, -3, 5, -2),
        (2, 3, 4, 1200),
        (-128, i64::MAX, 1, 0),
        (127, 1, 1, PRICE_NONE),
    ] {
        let mut market = Market::new(MANY);
        market.define(1, -2, sz_exp);
        market.trade(1, px, sz);
        assert_eq!(market.values_after(FIRST_AFTER_NS)[5], turnover, "{px} * {sz}e{sz_exp}");
    }
}

#[test]
fn what_became_of_a_ticker_decides_on_the_next() {
    let mut market = Market::new(MANY);
    let trade = |market: &mut Market| market.trade(1, 1000, 1000);
    trade(&mut market);
    market.after(FIRST_AFTER_NS);
    market.tickers.settle(1, TickerOutcome::NotLive);
    assert_eq!(market.after(SECOND_NS).len(), 1, "it is tried again");
    market.tickers.settle(1, TickerOutcome::Sequenced);
    assert_eq!(market.after(SECOND_NS), []);
    trade(&mut market);
    market.after(SECOND_NS);
    market.tickers.settle(1, TickerOutcome::Exponents(-4, 0));
    assert_eq!(market.values_after(SECOND_NS)[4], 2000, "the Definition is on its way, and the window is kept");
    // The Definition was lost, and with it the exponents of what came.
    market.tickers.lose();
    trade(&mut market);
    market.after(SECOND_NS);
    market.tickers.settle(1, TickerOutcome::Exponents(-4, 0));
    assert_eq!(market.after(SECOND_NS), []);
    trade(&mut market);
    let due = market.after(FIRST_AFTER_NS);
    assert_eq!((due[0].exponents, due[0].ticker.volume), (Some((-4, 0)), 1000));
    market.tickers.settle(1, TickerOutcome::Own);
    trade(&mut market);
    assert_eq!((market.after(SECOND_NS * 9), market.tickers.bytes()), (vec![], 0), "its source sends its own");
}

#[test]
fn a_released_instrument_has_no_ticker_and_frees_its_memory() {
    let mut market = Market::new(MANY);
    market.trade(1, 1, 1);
    market.trade(2, 1, 1);
    let mut record = Vec::new();
    record::encode_status(&RecordHeader::of_feed(RecordKind::Status, 1, 0), FeedState::Released, &mut record);
    market.fold(&record);
    assert_eq!((market.tickers.active, market.tickers.rows[0].window.is_none()), (1, true));
    let due = market.after(FIRST_AFTER_NS);
    assert_eq!(due.iter().map(|computed| computed.instrument).collect::<Vec<_>>(), [2]);
    assert_eq!(due[0].exponents, None, "its Definition has not come");
}

#[test]
fn trades_of_before_the_start_count_until_they_are_24_hours_old() {
    let mut market = Market::new(MANY);
    let minute =
        |minutes_ago, px, volume| PastMinute { minutes_ago, open: px, high: px + 5, low: px - 5, close: px, volume };
    market.trade(1, 1000, 10);
    let past = [minute(2000, 1, 1), minute(1439, 2000, 30), minute(10, 500, 20)];
    market.tickers.seed(1, (-2, -3), &past, market.now_ns);
    assert_eq!(market.values_after(2 * SECOND_NS), [1000, 2000, 2005, 495, 60, PRICE_NONE]);
    // The oldest leaves, and after a day all whose turnover is not known.
    assert_eq!(market.values_after(2 * MINUTE_NS), [1000, 500, 1000, 495, 30, PRICE_NONE]);
    market.trade(1, 1000, 10);
    assert_eq!(market.values_after(1437 * MINUTE_NS), [1000, 1000, 1000, 1000, 20, 20]);
    // Without a trade since the start, and not where the source sends its own or has other exponents.
    let mut market = Market::new(MANY);
    market.tickers.seed(1, (-2, -3), &past[1..], market.now_ns);
    assert_eq!(market.values_after(2 * SECOND_NS), [500, 2000, 2005, 495, 50, PRICE_NONE]);
    market.tickers.settle(1, TickerOutcome::Own);
    market.tickers.seed(1, (-2, -3), &past[1..], market.now_ns);
    market.define(2, -1, -3);
    market.tickers.seed(2, (-2, -3), &past[1..], market.now_ns);
    assert_eq!(market.after(MINUTE_NS), []);
}
