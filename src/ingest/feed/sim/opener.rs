//! The market as a source: its `--feed` argument.

use std::sync::Arc;

use super::{Params, Sim};
use crate::ingest::source::{Opener, Scheme, Source, SourceError};
use crate::ingest::stop::Stop;

/// `sim[:key=value,…]`
pub const SCHEME: Scheme = Scheme {
    name: "sim",
    form: "sim:instruments=200,rate=20000,seed=1",
    help: "a simulated market with books and bursts; the same seed gives the same records",
    parse: |text| Ok(Arc::new(SimOpener { text: text.to_owned(), params: Params::parse(text)? })),
};

#[derive(Debug)]
struct SimOpener {
    text: String,
    params: Params,
}

impl Opener for SimOpener {
    fn name(&self) -> String {
        if self.text.is_empty() { SCHEME.name.to_owned() } else { format!("{}:{}", SCHEME.name, self.text) }
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn open(&self, _stop: &Stop) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Sim::new(&self.params)))
    }
}
