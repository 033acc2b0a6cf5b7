//! A replay as a source: its `--feed` argument, and its errors.

use std::path::Path;
use std::sync::Arc;

use super::recording::{EXPECTED, OpenError, Recording};
use super::{Params, Replay};
use crate::ingest::source::{Opener, Scheme, Source, SourceError};
use crate::ingest::stop::Stop;
use tickcast_venues::binance::Parser;

/// `replay:FILE[,FILE…][?key=value&…]`
pub const SCHEME: Scheme = Scheme {
    name: "replay",
    form: "replay:FILE[,FILE…]?speed=1|10|max&loop=1&copies=K&venue=NAME",
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
        let mut parser = Parser::default();
        let mut open =
            |path: &Path| Recording::open(path, self.params.venue, &mut parser).map_err(|error| error.to_string());
        self.params.files.iter().try_for_each(|path| open(path).map(drop))
    }

    fn open(&self, _stop: &Stop) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Replay::open(&self.params)?))
    }
}
