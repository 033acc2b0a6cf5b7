//! The instruments: well-known names and prices, by class, and made-up names beyond them.
//!
//! Prices are plausible, written as decimals and read exactly; they are no quotation of any day. Venue names begin with
//! `SIM-`, so that a simulated price is not mistaken for the venue's own. Used at start only.

use super::dice::Dice;
use tickcast_protocol::{Instrument, decimal};

/// A class of instruments that share venue, exponents and steps.
struct Group {
    venue: &'static str,
    px_exp: i8,
    sz_exp: i8,
    /// Price step in mantissa units.
    tick: i64,
    /// Size step in mantissa units.
    lot: i64,
    /// Value of a typical trade, in whole units of the price.
    notional: i64,
    /// A typical trade has at most this many lots.
    lots_max: i64,
    /// Pairs of symbol and price.
    listings: &'static str,
}

/// An instrument before trading: its directory entry and its starting values.
pub(super) struct Listing {
    pub(super) instrument: Instrument,
    /// The price at the start, to which it returns, in ticks.
    pub(super) home_ticks: i64,
    /// The median size of a trade, in lots.
    pub(super) typical_lots: i64,
}

/// A price has fewer ticks than this: a coin with a high price gets a coarser step, so that its moves can be seen.
const TICKS_MAX: i64 = 1_000_000;
/// And at least this many: room for 100 levels below a price that has halved.
const TICKS_MIN: i64 = 900;

/// The first `count` instruments, with ids from 1. The classes are interleaved by their share, the best known first, so
/// that every beginning of the list is a mix.
pub(super) fn listings(count: u32, dice: &mut Dice) -> Vec<Listing> {
    let mut named: Vec<(usize, usize, &Group, &str, &str)> = Vec::new();
    for (rank, group) in GROUPS.iter().enumerate() {
        let words: Vec<&str> = group.listings.split_ascii_whitespace().collect();
        let pairs = words.chunks_exact(2);
        let share = 1_000_000 / pairs.len();
        named.extend(pairs.enumerate().map(|(i, pair)| (i * share, rank, group, pair[0], pair[1])));
    }
    named.sort_unstable_by_key(|&(place, rank, ..)| (place, rank));
    let named = named.into_iter().map(|(.., group, symbol, price)| {
        let px = decimal::parse(price, group.px_exp).expect("the table's prices fit their exponent");
        (group, symbol.to_owned(), px)
    });
    let mut named = named.fuse();
    (1..=count)
        .map(|id| {
            let (group, symbol, px) = named
                .next()
                .unwrap_or_else(|| (&MADE_UP, format!("SIM{id:04}"), i64::from(dice.between(2_000, 40_000))));
            group.list(id, &symbol, px, dice)
        })
        .collect()
}

impl Group {
    fn list(&self, id: u32, symbol: &str, px: i64, dice: &mut Dice) -> Listing {
        let mut tick = self.tick;
        while px / tick >= TICKS_MAX {
            tick *= 10;
        }
        // Another seed is another day: the price starts within 2 % of the table's.
        let home_ticks = px / tick * i64::from(dice.between(9_800, 10_200)) / 10_000;
        assert!(home_ticks >= TICKS_MIN, "{symbol}: a price of {home_ticks} ticks has no room for a book");
        let unit = 10i64.pow(u32::from((-self.px_exp).unsigned_abs()));
        let lots_a_unit = 10i64.pow(u32::from((-self.sz_exp).unsigned_abs())) / self.lot;
        // The notional is in whole units: lots = notional / price × lots in one unit of the base.
        let lots = match lots_a_unit {
            0 => self.notional * unit / px / self.lot,
            _ => self.notional * unit / px.max(1) * lots_a_unit + self.notional * unit % px * lots_a_unit / px,
        };
        let mut instrument = Instrument::new(id, symbol, self.venue, self.px_exp, self.sz_exp);
        (instrument.tick_size, instrument.lot_size) = (tick, self.lot);
        Listing { instrument, home_ticks, typical_lots: lots.clamp(1, self.lots_max) }
    }
}

/// Names beyond the table.
const MADE_UP: Group =
    Group { venue: "SIM", px_exp: -2, sz_exp: 0, tick: 1, lot: 1, notional: 4_000, lots_max: 5_000, listings: "" };

const GROUPS: [Group; 13] = [
    Group {
        venue: "SIM-COINBASE",
        px_exp: -2,
        sz_exp: -8,
        tick: 1,
        lot: 1_000,
        notional: 900,
        lots_max: 100_000_000,
        listings: "BTC-USD 91250.40 ETH-USD 3020.15 SOL-USD 138.42 BNB-USD 892.30 XMR-USD 382.11 LTC-USD 84.25 \
            BCH-USD 538.70 AVAX-USD 14.11 LINK-USD 13.05 AAVE-USD 182.44 TAO-USD 298.60 ZEC-USD 512.80 ETC-USD 13.94 \
            ICP-USD 14.32 MKR-USD 1480.20 COMP-USD 33.15 QNT-USD 78.90 BTC-EUR 79180.20 ETH-EUR 2621.85 \
            SOL-EUR 120.15 BTC-USDT 91262.10 ETH-USDT 3020.70 SOL-USDT 138.45 BTC-GBP 69710.00",
    },
    Group {
        venue: "SIM-ARCA",
        px_exp: -2,
        sz_exp: 0,
        tick: 1,
        lot: 1,
        notional: 9_000,
        lots_max: 5_000,
        listings: "SPY 662.30 QQQ 598.20 IWM 237.40 DIA 461.10 TLT 89.25 GLD 375.60 XLF 52.35 EEM 53.90 SLV 45.20 \
            HYG 80.50 XLE 89.80 XLK 278.40 VTI 325.70 VOO 609.10 EFA 93.40 SMH 338.20 ARKK 76.30 XLV 148.20 LQD 110.90 \
            USO 70.15 KRE 60.30 XBI 112.40 GDX 76.80 VXX 34.60 IBIT 51.70 SOXX 282.50 XLU 89.40 XLI 150.20 XLP 77.30 \
            XLY 231.80 TQQQ 101.20 VEA 59.70 VWO 53.60 AGG 99.90 IEF 96.80 SHY 82.90 VNQ 89.60 SCHD 26.90 RSP 185.20 \
            MDY 582.40",
    },
    Group {
        venue: "SIM-NASDAQ",
        px_exp: -2,
        sz_exp: 0,
        tick: 1,
        lot: 1,
        notional: 7_000,
        lots_max: 5_000,
        listings: "NVDA 182.40 AAPL 268.50 MSFT 487.20 TSLA 404.80 AMZN 222.60 META 592.10 GOOGL 284.30 AMD 223.50 \
            AVGO 354.90 NFLX 110.20 PLTR 167.30 INTC 35.20 COST 902.40 CSCO 77.80 MU 241.60 QCOM 166.70 ADBE 325.40 \
            TXN 159.80 AMGN 336.90 INTU 652.30 PEP 145.60 SBUX 83.90 GILD 124.80 ISRG 551.20 HON 198.40 BKNG 4702.50 \
            LRCX 155.30 AMAT 231.40 PANW 201.60 ADI 233.50 KLAC 1175.80 CRWD 521.70 MRVL 85.20 COIN 258.90 MSTR 195.40 \
            PYPL 62.10 ABNB 116.70 MELI 2052.30 ORLY 98.20 SNPS 389.50 CDNS 312.20 FTNT 80.40 ADP 252.60 REGN 696.80 \
            VRTX 428.10 MAR 289.90 CTAS 184.60 ROST 161.20 PCAR 99.70 MNST 71.50 DDOG 180.60 WDAY 228.40 TEAM 150.90 \
            ZS 288.70 HOOD 114.60 SMCI 34.90 ARM 138.30 ASML 1021.40 LULU 167.80 DASH 198.60",
    },
    Group {
        venue: "SIM-NYSE",
        px_exp: -2,
        sz_exp: 0,
        tick: 1,
        lot: 1,
        notional: 7_000,
        lots_max: 5_000,
        listings: "JPM 303.20 LLY 1043.50 V 329.60 WMT 102.80 XOM 117.40 ORCL 220.30 MA 540.70 JNJ 201.90 BAC 52.60 \
            HD 336.20 ABBV 233.40 PG 147.90 KO 71.60 CVX 152.30 GE 301.40 UNH 314.70 CAT 553.20 WFC 84.90 IBM 290.60 \
            GS 778.40 CRM 228.90 DIS 105.30 MCD 308.60 MRK 93.80 T 25.60 VZ 41.20 MS 163.40 AXP 344.10 BA 180.50 \
            NKE 62.80 PFE 24.90 UBER 92.10 C 99.60 LOW 222.70 TMO 584.20 ABT 127.50 RTX 173.80 BLK 1018.30 DE 478.40 \
            UPS 94.20 LMT 463.90 SCHW 92.70 PM 153.60 NEE 84.30 SPGI 489.80 F 12.90 GM 69.40 SNOW 245.60 DELL 122.40 \
            SHOP 147.20 SPOT 598.70 RBLX 94.80 NOW 812.50 CVS 78.10 FCX 39.60 NEM 84.50 MMM 167.40 MO 57.90 EMR 127.30 \
            BMY 46.20",
    },
    Group {
        venue: "SIM-CME",
        px_exp: -2,
        sz_exp: 0,
        tick: 25,
        lot: 1,
        notional: 20_000,
        lots_max: 6,
        listings: "ESZ6 6652.25 NQZ6 24390.50 ESH7 6710.75 NQH7 24655.25 MESZ6 6652.50 MNQZ6 24390.75",
    },
    Group {
        venue: "SIM-FX",
        px_exp: -5,
        sz_exp: 0,
        tick: 1,
        lot: 1_000,
        notional: 6_000,
        lots_max: 20,
        listings: "EURUSD 1.15240 GBPUSD 1.30860 AUDUSD 0.64510 USDCAD 1.40920 USDCHF 0.80640 NZDUSD 0.56080 \
            EURGBP 0.88060 EURCHF 0.92930 AUDNZD 1.15030 EURAUD 1.78640 GBPCHF 1.05520 EURCAD 1.62390 GBPAUD 2.02850 \
            AUDCAD 0.90910 GBPCAD 1.84410 EURNZD 2.05490 NZDCAD 0.79030 CADCHF 0.57220 AUDCHF 0.52020 GBPNZD 2.33340 \
            USDSGD 1.30740 USDPLN 3.67580 EURPLN 4.23580 USDCNH 7.11320 EURSEK 11.01250 USDSEK 9.55610 USDNOK 10.22420 \
            EURNOK 11.78240",
    },
    Group {
        venue: "SIM-COINBASE",
        px_exp: -5,
        sz_exp: -6,
        tick: 1,
        lot: 100_000,
        notional: 400,
        lots_max: 100_000,
        listings: "XRP-USD 2.21450 DOGE-USD 0.15820 ADA-USD 0.46510 TRX-USD 0.28740 SUI-USD 1.58230 DOT-USD 2.74510 \
            HBAR-USD 0.14210 NEAR-USD 2.21340 ARB-USD 0.21370 OP-USD 0.32480 APT-USD 2.87640 ATOM-USD 2.63210 \
            FIL-USD 1.72480 ALGO-USD 0.14360 XLM-USD 0.24110 UNI-USD 6.71250 SAND-USD 0.16520 MANA-USD 0.19440 \
            GRT-USD 0.05210 CRV-USD 0.41530 INJ-USD 5.98320 SEI-USD 0.13870 TIA-USD 0.68420 XRP-EUR 1.92180",
    },
    Group {
        venue: "SIM-NYMEX",
        px_exp: -2,
        sz_exp: 0,
        tick: 1,
        lot: 1,
        notional: 200,
        lots_max: 5,
        listings: "CLF7 58.42 BZG7 62.54 CLG7 58.25 CLZ7 58.90",
    },
    Group {
        venue: "SIM-FX",
        px_exp: -3,
        sz_exp: 0,
        tick: 1,
        lot: 1_000,
        notional: 900_000,
        lots_max: 10,
        listings: "USDJPY 156.420 EURJPY 180.280 GBPJPY 204.710 AUDJPY 100.920 CADJPY 110.980 CHFJPY 193.950 \
            NZDJPY 87.730 USDMXN 18.482 EURHUF 382.640 USDZAR 17.374 USDTRY 42.441 USDHUF 332.040",
    },
    Group {
        venue: "SIM-COMEX",
        px_exp: -1,
        sz_exp: 0,
        tick: 1,
        lot: 1,
        notional: 12_000,
        lots_max: 4,
        listings: "GCZ6 4082.4 GCG7 4116.8 PLF7 1538.2 PAZ6 1391.5 MGCZ6 4082.6",
    },
    Group {
        venue: "SIM-CBOT",
        px_exp: -6,
        sz_exp: 0,
        tick: 15_625,
        lot: 1,
        notional: 1_500,
        lots_max: 20,
        listings: "ZNZ6 113.078125 ZBZ6 117.156250 ZFZ6 109.578125 ZTZ6 104.218750 UBZ6 121.312500",
    },
    Group {
        venue: "SIM-CBOT",
        px_exp: -2,
        sz_exp: 0,
        tick: 25,
        lot: 1,
        notional: 2_500,
        lots_max: 5,
        listings: "ZCH7 438.25 ZSF7 1124.50 ZWH7 539.75 ZMF7 324.25 YMZ6 46310.00",
    },
    Group {
        venue: "SIM-NYMEX",
        px_exp: -3,
        sz_exp: 0,
        tick: 1,
        lot: 1,
        notional: 12,
        lots_max: 4,
        listings: "NGF7 4.482 NGG7 4.215 RBZ6 1.912 HOZ6 2.541 HGH7 5.062",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_continue_past_the_table() {
        let all = listings(20_000, &mut Dice::new(1, 0));
        let names: HashSet<&str> = all.iter().map(|listing| listing.instrument.symbol.as_str()).collect();
        assert_eq!(names.len(), 20_000);
        let named = all.iter().filter(|listing| !listing.instrument.symbol.starts_with("SIM")).count();
        assert!(named >= 270, "{named} names are known ones");
        assert_eq!(all[300].instrument.symbol, "SIM0301");
        assert_eq!(all[19_999].instrument.symbol, "SIM20000");
    }

    #[test]
    fn prices_have_room_for_a_book_and_sizes_are_plausible() {
        for listing in listings(1_000, &mut Dice::new(2, 0)) {
            let symbol = &listing.instrument.symbol;
            assert!((TICKS_MIN..TICKS_MAX * 11 / 10).contains(&listing.home_ticks), "{symbol} {}", listing.home_ticks);
            assert!((1..=100_000_000).contains(&listing.typical_lots), "{symbol} {}", listing.typical_lots);
        }
    }

    #[test]
    fn short_list_is_already_a_mix() {
        let first = listings(12, &mut Dice::new(1, 0));
        let venues: HashSet<&str> = first.iter().map(|listing| listing.instrument.venue.as_str()).collect();
        assert!(venues.len() >= 8, "{venues:?}");
        assert_eq!((first[0].instrument.symbol.as_str(), first[1].instrument.symbol.as_str()), ("BTC-USD", "SPY"));
    }

    #[test]
    fn coins_trade_in_parts_and_futures_in_whole_contracts() {
        let first = listings(12, &mut Dice::new(1, 0));
        let typical = |symbol: &str| {
            let listing = first.iter().find(|listing| listing.instrument.symbol == symbol).expect(symbol);
            listing.typical_lots * listing.instrument.lot_size
        };
        // 900 USD at 91250.40 are 0.00986 coins.
        assert_eq!(typical("BTC-USD"), 986_000);
        assert_eq!(typical("ESZ6"), 3);
        assert_eq!(typical("EURUSD"), 5_000);
    }
}
