//! A codec with its connections: one for each of the venue's endpoints whose channels are wanted.

use std::time::Duration;

use tickcast_protocol::control::ChannelSet;
use tickcast_venues::{Access, Codec};

use crate::ingest::backoff::{Backoff, BackoffSettings};
use crate::ingest::transport::address::Failure;
use crate::ingest::transport::websocket::LinkId;

const BACKOFF: BackoffSettings = BackoffSettings {
    first: Duration::from_millis(500),
    max: Duration::from_secs(30),
    reset_after: Duration::from_secs(60),
};

/// Tells lines apart, also those of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineId(pub u64);

pub(super) struct Line {
    pub(super) id: LineId,
    pub(super) codec: Box<dyn Codec>,
    pub(super) links: Vec<Link>,
}

/// A connection to one endpoint, or the wait for the next one.
pub(super) struct Link {
    pub(super) endpoint: usize,
    /// The wanted channels that come from there.
    pub(super) channels: ChannelSet,
    /// While it is being opened, and while it is open.
    pub(super) id: Option<LinkId>,
    pub(super) opened_ns: Option<u64>,
    pub(super) subscribed_ns: Option<u64>,
    /// When it may be opened, if it is not.
    pub(super) retry_at_ns: u64,
    /// Why it was lost.
    pub(super) failure: Option<String>,
    backoff: Backoff,
}

impl Line {
    /// A line whose connections are not open.
    pub(super) fn new(id: LineId, codec: Box<dyn Codec>, access: &Access, wanted: ChannelSet, seed: u64) -> Self {
        let links = access.endpoints.iter().enumerate().filter_map(|(endpoint, place)| {
            let channels: ChannelSet = place.channels.iter().copied().filter(|at| wanted.contains(*at)).collect();
            (!channels.is_empty()).then(|| Link::new(endpoint, channels, seed.wrapping_add(endpoint as u64)))
        });
        Self { id, codec, links: links.collect() }
    }

    /// The place of a connection.
    pub(super) fn find(&self, link: LinkId) -> Option<usize> {
        self.links.iter().position(|kept| kept.id == Some(link))
    }

    /// True once all channels are subscribed.
    pub(super) fn is_subscribed(&self) -> bool {
        self.links.iter().all(|link| link.subscribed_ns.is_some())
    }

    /// True while a connection is open.
    pub(super) fn is_open(&self) -> bool {
        self.links.iter().any(|link| link.opened_ns.is_some())
    }

    /// True if it may be opened: the symbols are checked with the venue's list first, where that comes by a request.
    pub(super) fn may_open(&self) -> bool {
        self.codec.is_listed() || !self.codec.lists_by_request()
    }

    /// The first connection that is open: where messages go that are of no stream.
    pub(super) fn first_open(&self) -> Option<LinkId> {
        self.links.iter().find(|link| link.opened_ns.is_some()).and_then(|link| link.id)
    }
}

impl Link {
    fn new(endpoint: usize, channels: ChannelSet, seed: u64) -> Self {
        Self {
            endpoint,
            channels,
            id: None,
            opened_ns: None,
            subscribed_ns: None,
            retry_at_ns: 0,
            failure: None,
            backoff: Backoff::new(BACKOFF, seed),
        }
    }

    /// It is lost, and may be opened again after a pause.
    pub(super) fn lose(&mut self, failure: &Failure, now_ns: u64) {
        let ran_ns = self.opened_ns.map_or(0, |opened_ns| now_ns.saturating_sub(opened_ns));
        let pause = self.backoff.pause(Duration::from_nanos(ran_ns), failure.after);
        self.retry_at_ns = now_ns.saturating_add(pause.as_nanos().try_into().unwrap_or(u64::MAX));
        (self.id, self.opened_ns, self.subscribed_ns) = (None, None, None);
        self.failure = Some(failure.reason.clone());
    }
}
