//! A replay as a source: its `--feed` argument, and its errors.

use std::sync::Arc;

use super::files::tracks_of;
use super::player::Player;
use super::recording::{EXPECTED, OpenError, open_all};
use super::{Params, Replay};
use crate::ingest::source::{Opener, Scheme, Source, SourceError};
use crate::ingest::stop::Stop;
use tickcast_venues::binance::Parser;

/// `replay:FILE[,FILE…][?key=value&…]`
pub const SCHEME: Scheme = Scheme {
    name: "replay",
    form: "replay:FILE[,FILE…]?speed=1|10|max&loop=1&from=TIME&to=TIME&copies=K&venue=NAME&names=common",
    help: "recordings: packet logs of `tickcast record`, DBN, CSV of Tardis; messages of Binance, Coinbase, Kraken, Bybit or OKX",
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
            OpenError::SeveralKinds { .. } => {
                Self::Fatal { reason: error.to_string(), cure: "give each kind its own --feed".to_owned() }
            }
            OpenError::ForMessages { .. } | OpenError::EndsBefore { .. } => {
                Self::Fatal { reason: error.to_string(), cure: "restart the server with other parameters".to_owned() }
            }
        }
    }
}

/// Opens the files, whatever they are.
///
/// # Errors
/// If one of them is no recording, or cannot be read.
pub fn open(params: &Params) -> Result<Box<dyn Source>, OpenError> {
    Ok(match tracks_of(params)? {
        Some(tracks) => Box::new(Player::begin(tracks, params)?),
        None => Box::new(Replay::open(params)?),
    })
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
        let checked = match tracks_of(&self.params) {
            Ok(None) => open_all(&self.params, &mut Parser::default()).map(drop),
            other => other.map(drop),
        };
        checked.map_err(|error| error.to_string())
    }

    fn open(&self, _stop: &Stop) -> Result<Box<dyn Source>, SourceError> {
        Ok(open(&self.params)?)
    }
}
