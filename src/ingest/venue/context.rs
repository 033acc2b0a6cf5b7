//! What the parts of a driver share: the plan, what codecs put out, and what is to be done.

use std::fmt;

use tickcast_protocol::control::ChannelSet;
use tickcast_venues::{Access, Codec, Report, Venue};

use super::line::{Line, LineId};
use super::observer::Observer;
use crate::ingest::transport::rest::Get;
use crate::ingest::transport::websocket::LinkId;

/// The least time between two lines in the log, ns.
const LOG_NS: u64 = 1_000_000_000;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Open a connection to an endpoint of the venue.
    Open { link: LinkId, endpoint: usize },
    /// Send a text.
    Send { link: LinkId, text: String },
    /// Close a connection.
    Close(LinkId),
    /// Make an HTTP request.
    Get(Get),
}

/// What is wanted, and of whom.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) access: Access,
    pub(super) venue: Venue,
    pub(super) channels: ChannelSet,
    pub(super) symbols: Vec<String>,
}

/// What codecs put out, beside records.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    pub(super) report: Report,
    pub(super) next_id: u32,
    numbers: u64,
    log_due_ns: u64,
    unlogged: u64,
    /// Of the messages, if there is one.
    pub(super) observer: Option<Box<dyn Observer>>,
}

/// What a call of a lane has at hand.
pub(super) struct Context<'a> {
    pub(super) plan: &'a Plan,
    pub(super) outlet: &'a mut Outlet,
    pub(super) commands: &'a mut Vec<Command>,
    pub(super) batch: &'a mut Vec<u8>,
    pub(super) now_ns: u64,
    /// The symbols were checked with the venue's list.
    pub(super) is_checked: bool,
}

impl Context<'_> {
    /// Another line, for this codec.
    pub(super) fn new_line(&mut self, codec: Box<dyn Codec>) -> Line {
        let number = self.outlet.number();
        let seed = self.now_ns ^ number.rotate_left(32);
        Line::new(LineId(number), codec, &self.plan.access, self.plan.channels, seed)
    }

    pub(super) fn new_link(&mut self) -> LinkId {
        LinkId(self.outlet.number())
    }

    /// Closes the connections of a line.
    pub(super) fn close(&mut self, line: &Line) {
        self.commands.extend(line.links.iter().filter_map(|link| link.id).map(Command::Close));
    }

    /// Tells the observer, if there is one.
    pub(super) fn observe(&mut self, tell: impl FnOnce(&mut dyn Observer)) {
        if let Some(observer) = &mut self.outlet.observer {
            tell(&mut **observer);
        }
    }

    /// Logs a line, if the last one is not too recent.
    pub(super) fn warn(&mut self, text: fmt::Arguments<'_>) {
        if self.now_ns < self.outlet.log_due_ns {
            self.outlet.unlogged += 1;
            return;
        }
        self.outlet.log_due_ns = self.now_ns + LOG_NS;
        let venue = self.plan.venue.name();
        match std::mem::take(&mut self.outlet.unlogged) {
            0 => tracing::warn!("{venue}: {text}"),
            more => tracing::warn!("{venue}: {text} (and {more} more lines before it)"),
        }
    }
}

impl Outlet {
    /// Nothing yet. Ids of instruments begin at 1.
    pub(super) fn new() -> Self {
        Self { next_id: 1, ..Self::default() }
    }

    /// A number that was not given out before.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}
