//! Requests whose answers name a number and not the streams.

use std::collections::VecDeque;

use tickcast_protocol::Channel;

/// Requests without an answer that are kept; the oldest are forgotten.
const AWAITED_MAX: usize = 4096;

/// The streams of requests that have no answer yet.
#[derive(Debug, Default)]
pub struct Awaited {
    requests: VecDeque<(u64, Vec<(String, Channel)>)>,
    newest: u64,
}

impl Awaited {
    /// Notes a request for these streams, and returns its number.
    pub fn push(&mut self, streams: &[(&str, Channel)]) -> u64 {
        self.newest += 1;
        let owned = streams.iter().map(|(symbol, channel)| ((*symbol).to_owned(), *channel)).collect();
        self.requests.push_back((self.newest, owned));
        if self.requests.len() > AWAITED_MAX {
            self.requests.pop_front();
        }
        self.newest
    }

    /// The streams of the request with this number.
    pub fn take(&mut self, number: u64) -> Option<Vec<(String, Channel)>> {
        let at = self.requests.iter().position(|(awaited, _)| *awaited == number)?;
        self.requests.remove(at).map(|(_, streams)| streams)
    }
}
