//! A replay as a source: its `--feed` argument, and its errors.

use std::sync::Arc;

use super::recording::{EXPECTED, OpenError, open_all};
use super::{Params, Replay};
use crate::ingest::source::{Opener, Scheme, Source, SourceError};
use crate::ingest::stop::Stop;
use tickcast_venues::binance::Parser;

/// `replay:FILE[,FILE…][?key=value&…]`
pub const SCHEME: Scheme = Scheme {
    name: "replay",
    form: "replay:FILE[,FILE…]?speed=1|10|max&loop=1&copies=K&venue=NAME&names=common",
    help: "recorded messages of Binance, Coinbase, Kraken, Bybit or OKX, plain or gzip",
    parse: |text| Ok(Arc::new(ReplayOpener { text: text.to_owned(), params: Params::parse(text)? })),
};

/// A file that is missing may come back; one that is something else does not become a recording by itself.
impl From<OpenError> for SourceError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { .. } => Self::retry(error.to_string()),
            OpenError::NotARecording { path, problem } => {
                let cure = format!("{EXPECTED}; put one there and restart the server");
                Self::Fatal { reason: format!("{path}: {problem}"), cure }
            }
            OpenError::SeveralVenues { .. } => {
                Self::Fatal { reason: error.to_string(), cure: "give each venue its own --feed".to_owned() }
            }
        }
    }
}

#[derive(Debug)]
struct ReplayOpener {
    text: String,
    params: Params,
}

impl Opener for ReplayOpener {
    fn name(&self) -> String {
        format!("{}:{}", SCHEME.name, self.text)
    }

    fn check(&self) -> Result<(), String> {
        open_all(&self.params, &mut Parser::default()).map(drop).map_err(|error| error.to_string())
    }

    fn open(&self, _stop: &Stop) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Replay::open(&self.params)?))
    }
}
