//! The recordings, read by an independent decoder.

use std::path::{Path, PathBuf};

use tickcast_test_support::binance_oracle::{self, OracleInstrument};

/// The instruments of the recordings in the order of [`FILES`], and one whose records only come before the others.
pub const SYMBOLS: [(&str, &str); 4] =
    [("BTCUSDT", "binance"), ("ETHUSDT", "binance"), ("BTCUSDT-PERP", "binance-usdm"), ("LEADUSDT", "binance")];
const FILES: [&str; 3] =
    ["binance_spot_btcusdt_20240808.gz", "binance_spot_ethusdt_20240808.gz", "binance_usdm_btcusdt_20240808.gz"];
/// Before the earliest stamp of the recordings.
const EARLIER_NS: u64 = 1_723_161_253_000_000_000;

/// The independent decoder's result.
pub struct Truth {
    pub files: Vec<PathBuf>,
    pub instruments: Vec<OracleInstrument>,
    /// For each trade, the number of quotes of its instrument before it.
    pub quotes_before: Vec<Vec<u64>>,
}

impl Truth {
    pub fn read(dir: &Path) -> Self {
        let files: Vec<_> = FILES.iter().map(|file| dir.join(file)).collect();
        let mut oracle = binance_oracle::read(&files);
        let mut instrument = |(symbol, _): &(&str, &str)| oracle.instruments.remove(*symbol);
        let instruments: Vec<_> = SYMBOLS.iter().filter_map(&mut instrument).collect();
        assert_eq!(instruments.len(), FILES.len(), "one instrument a file");
        let quotes_before = files.iter().map(|file| quotes_before(&binance_oracle::text(file))).collect();
        Self { files, instruments, quotes_before }
    }

    /// The last sequences of each instrument and channel, as far as the recordings determine them.
    pub fn targets(&self) -> Vec<[Option<u64>; 4]> {
        let of = |want: &OracleInstrument| {
            let books = 1 + want.applied_count;
            [Some(want.quote_count as u64), Some(want.trades.len() as u64), None, Some(books as u64)]
        };
        self.instruments.iter().map(of).collect()
    }

    /// The argument that replays `lead` and the recordings.
    pub fn feed(&self, lead: &Path, speed: &str) -> String {
        let files: Vec<_> = std::iter::once(lead).chain(self.files.iter().map(PathBuf::as_path)).collect();
        let names: Vec<_> = files.iter().map(|file| file.to_str().expect("a path in UTF-8")).collect();
        format!("replay:{}?speed={speed}", names.join(","))
    }
}

/// A recording of another instrument's quotes that begins `before_ns` before the others: the clients connect during it.
pub fn lead(quotes: u64, before_ns: u64) -> tempfile::NamedTempFile {
    let mut text = String::new();
    for quote in 0..quotes {
        let stamp = EARLIER_NS - before_ns + quote;
        text += &format!(
            r#"{stamp} {{"stream":"leadusdt@bookTicker","data":{{"u":{},"s":"LEADUSDT","b":"1.50000000","B":"2.00000000","a":"1.60000000","A":"3.00000000"}}}}"#,
            quote + 1
        );
        text.push('\n');
    }
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("written");
    file
}

fn quotes_before(text: &str) -> Vec<u64> {
    let mut quotes = 0;
    let mut before = Vec::new();
    for line in text.lines() {
        if line.contains("@bookTicker\"") {
            quotes += 1;
        } else if line.contains("@trade\"") {
            before.push(quotes);
        }
    }
    before
}
