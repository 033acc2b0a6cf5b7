//! The interface of a venue's codec, and the part of it that is the same for all venues.
//!
//! A codec is a state machine: the program that holds the connection calls it with each message, with the time, and with
//! the answers to HTTP requests; the codec answers with records and [`Event`]s. It opens nothing and reads no clock.
//!
//! ```text
//!  rest_needed ──► GET ──► on_rest          the list of instruments; snapshots of Binance
//!  open ─────────► Event::Send              after each connect; the list of instruments where it comes by a channel
//!  is_listed, subscribe ► Event::Send       once the list is there
//!  on_message ───► records, Event::…
//!  on_tick ──────► Event::Send (pings, books asked for again), Event::Silent
//!  on_disconnect ► every book is void
//! ```

use tickcast_protocol::control::ChannelSet;
use tickcast_protocol::record::Level;
use tickcast_protocol::{Channel, FeedState};

use crate::error::{Malformed, SubscribeError};
use crate::instruments::{INSTRUMENTS_MAX, Instruments, Naming};
use crate::json::{self, JsonReader, Object, Value};
use crate::listing::Listing;
use crate::local_book::Decimals;
use crate::sink::{BookFault, Event, Sink, StreamName};
use crate::streams::{RequestLimit, StreamState, Streams};
use crate::tracked::{Kept, Tracked};

/// The list of instruments is asked for again after this, to learn of listings, delistings and other tick sizes.
pub const LISTING_INTERVAL_NS: u64 = 600_000_000_000;
/// After a list could not be had, the next request waits this long.
const LISTING_RETRY_NS: u64 = 10_000_000_000;
/// Pages of one list that are asked for.
const LISTING_PAGES_MAX: u32 = 200;

/// The codec of one venue, for one connection, or for those that together have all channels of its instruments.
pub trait Codec: Send {
    /// The venue's name in the directory.
    fn venue(&self) -> &'static str;

    /// Sends what precedes the subscriptions of instruments, such as that of the venue's list and state.
    fn open(&mut self, sink: &mut Sink<'_>);

    /// True once the venue's list of instruments is there, as far as it was asked for.
    fn is_listed(&self) -> bool;

    /// Checks a symbol against the venue's list, if there is one.
    fn check(&self, symbol: &str) -> Result<(), SubscribeError>;

    /// Subscribes to these channels of these instruments, by events for the connection. A symbol that the venue does not
    /// list is an error, and then nothing is sent.
    fn subscribe(
        &mut self,
        symbols: &[&str],
        channels: ChannelSet,
        now_ns: u64,
        sink: &mut Sink<'_>,
    ) -> Result<(), SubscribeError>;

    /// Appends the records of a message. The text is changed in place.
    fn on_message(&mut self, text: &mut [u8], receive_ns: u64, sink: &mut Sink<'_>) -> Result<(), Malformed>;

    /// Sends pings, asks for books again, and finds silent streams. To be called about once a second.
    fn on_tick(&mut self, now_ns: u64, sink: &mut Sink<'_>);

    /// True where the list of instruments comes by HTTP requests, and not by a channel.
    fn lists_by_request(&self) -> bool;

    /// The next HTTP request for a page of the list of instruments, if it is due.
    fn listing_needed(&mut self, now_ns: u64) -> Option<RestRequest>;

    /// The next HTTP request, if there is one.
    fn rest_needed(&mut self, now_ns: u64) -> Option<RestRequest>;

    /// Takes the answer to a request.
    fn on_rest(
        &mut self,
        request: &RestRequest,
        answer: &mut [u8],
        now_ns: u64,
        sink: &mut Sink<'_>,
    ) -> Result<(), Malformed>;

    /// Notes that a request had no answer, or one with an error. It is made again later.
    fn on_rest_failed(&mut self, request: &RestRequest, now_ns: u64);

    /// Forgets the subscriptions of these channels, as their connection is lost, and voids every book if that is one of
    /// them. Instruments keep their ids and exponents, and the ids of the newest trades, so that those lost meanwhile are
    /// counted.
    fn on_disconnect(&mut self, channels: ChannelSet, sink: &mut Sink<'_>);

    /// Publishes this state of every instrument; as live counts what the venue's list says of it.
    fn put_states(&mut self, state: FeedState, sink: &mut Sink<'_>);

    /// True if the book of this instrument is valid.
    fn has_book(&self, symbol: &str) -> bool;

    /// A codec for the connection that is to replace the present one: with its instruments, their ids, exponents and newest
    /// trades, and without subscriptions and books.
    fn successor(&self) -> Box<dyn Codec>;

    /// Voids every book and forgets all but ids and exponents, as what follows is another recording.
    fn restart(&mut self, sink: &mut Sink<'_>);

    /// The state of a subscription.
    fn stream_state(&self, stream: &StreamName) -> StreamState;
}

/// An HTTP request to a venue: GET of a path at its REST address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestRequest {
    /// Path and query.
    pub path: String,
    /// What it counts for in the venue's limit.
    pub weight: u32,
    /// The stream that the answer belongs to, if that is the book of an instrument: in a recording, the answer is a message
    /// of it.
    pub stream: Option<String>,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A page of the list of instruments.
    Listing { page: u32 },
    /// The book of an instrument.
    Snapshot { index: usize },
}

/// How a codec is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodecOptions {
    /// The names of its instruments.
    pub naming: Naming,
    /// Levels of a book on each side; the venue's usual depth without it.
    pub depth: Option<u32>,
}

/// A subscription or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Subscribe,
    Unsubscribe,
}

/// A message that keeps a connection open.
pub(crate) struct Ping {
    pub(crate) text: &'static str,
    pub(crate) interval_ns: u64,
}

/// The state of a codec that all venues share.
pub(crate) struct State<K> {
    pub(crate) instruments: Instruments<K>,
    pub(crate) streams: Streams,
    /// Scratch for the levels of one message.
    pub(crate) levels: Vec<Level>,
    /// How many decimals the texts of these levels had, where that is needed.
    pub(crate) decimals: Vec<Decimals>,
    /// Scratch for what a checksum is made of.
    pub(crate) text: String,
}

/// A message of the venue that has come: what it changes, when, and where the records go.
pub(crate) struct Arrival<'a, 's, K> {
    pub(crate) state: &'a mut State<K>,
    pub(crate) now_ns: u64,
    pub(crate) sink: &'a mut Sink<'s>,
}

impl<K: Kept> Arrival<'_, '_, K> {
    /// The index of the instrument of a message on these channels.
    pub(crate) fn stream(&mut self, symbol: &str, channels: &[Channel]) -> Result<usize, Malformed> {
        let index = self.state.instruments.find(symbol)?;
        for channel in channels {
            self.state.streams.note(index, *channel, self.now_ns);
        }
        Ok(index)
    }

    /// The venue's time under the first of these keys that has one, in ns; 0, and a fault is counted, if it is none.
    pub(crate) fn time(&mut self, object: &Object<'_, '_>, keys: &[&'static str]) -> u64 {
        let (time_ns, fault) = json::time(object, keys);
        self.sink.note_time(fault);
        time_ns
    }
}

/// The symbols of the streams on one of these channels, each once: where a venue's channel carries several.
pub(crate) fn symbols_on<'s>(streams: &[(&'s str, Channel)], channels: &[Channel]) -> Vec<&'s str> {
    let wanted = streams.iter().filter(|(_, channel)| channels.contains(channel));
    let mut symbols: Vec<_> = wanted.map(|(symbol, _)| *symbol).collect();
    symbols.sort_unstable();
    symbols.dedup();
    symbols
}

impl<K: Kept> State<K> {
    /// Drops the book of an instrument, and asks for it again.
    pub(crate) fn drop_book(&mut self, index: usize, cause: BookFault, ts_event: u64, sink: &mut Sink<'_>) {
        let tracked = self.instruments.at(index);
        tracked.kept.clear_book();
        tracked.drop_book(cause, ts_event, sink);
        self.streams.resync(index);
    }

    /// Notes the venue's acknowledgement of a stream, or its refusal with a reason.
    pub(crate) fn answered(&mut self, symbol: &str, channel: Channel, refused: Option<&str>, sink: &mut Sink<'_>) {
        let index = self.instruments.index(symbol);
        let stream = StreamName { symbol: symbol.to_owned(), channel };
        match refused {
            None => {
                index.into_iter().for_each(|index| self.streams.acknowledge(index, channel));
                sink.events.push(Event::Subscribed(stream));
            }
            Some(reason) => {
                index.into_iter().for_each(|index| self.streams.refuse(index, channel));
                sink.events.push(Event::Refused { stream: Some(stream), reason: reason.to_owned() });
            }
        }
    }
}

/// What is particular to a venue.
pub(crate) trait Dialect: Send {
    /// What it keeps of an instrument.
    type Kept: Kept + Send;

    /// True where prices are JSON numbers.
    const NUMBERS_AS_TEXT: bool = false;

    /// True where the subscription of a book is answered with its snapshot; else snapshots are HTTP requests.
    const SNAPSHOTS_FOLLOW: bool = true;

    /// The venue's limit of requests for books.
    const REQUESTS: RequestLimit;

    /// Its name in the directory.
    fn venue(&self) -> &'static str;

    /// The name of a symbol in the directory, without the venue's list.
    fn name_of(&self) -> fn(&str) -> String {
        str::to_owned
    }

    /// Checks the depth that a user asks for.
    fn check_depth(&self) -> Result<(), SubscribeError> {
        Ok(())
    }

    /// The same, for another connection.
    fn successor(&self) -> Self;

    /// Messages that are sent before the subscriptions of instruments, for what concerns all of them.
    fn opening(&self) -> Vec<String> {
        Vec::new()
    }

    /// The messages that make or end subscriptions.
    fn requests(&mut self, operation: Operation, streams: &[(&str, Channel)]) -> Vec<String>;

    /// What it keeps of an instrument that is new.
    fn fresh(&self) -> fn() -> Self::Kept;

    /// Takes note that a message is not JSON, or not of the venue's form. Where changes of books have no numbers, it may
    /// have been one of any book.
    fn on_unreadable(&mut self, _arrival: &mut Arrival<'_, '_, Self::Kept>) {}

    /// The message that keeps the connection open, where the venue asks the client for one.
    fn ping(&self) -> Option<Ping> {
        None
    }

    /// True for an answer that is not JSON.
    fn is_plain_answer(&self, _text: &[u8]) -> bool {
        false
    }

    /// Appends the records of a message.
    fn take(&mut self, arrival: &mut Arrival<'_, '_, Self::Kept>, message: Value<'_, '_>) -> Result<(), Malformed>;

    /// The path of the first page of the venue's list of instruments; `None` where it comes by a subscription.
    fn listing_path(&self) -> Option<String>;

    /// Calls `each` with the entries of the page that was asked for, and returns the path of the next.
    fn take_listing(
        &self,
        _asked: &str,
        _answer: Value<'_, '_>,
        _each: &mut dyn FnMut(Listing),
    ) -> Result<Option<String>, Malformed> {
        Ok(None)
    }

    /// What a page of the list counts for in the venue's limit of requests.
    fn listing_weight(&self) -> u32 {
        1
    }

    /// What a snapshot counts for in the venue's limit of requests.
    fn snapshot_weight(&self) -> u32 {
        1
    }

    /// The path of an instrument's snapshot, where it does not come by the subscription.
    fn snapshot_path(&self, _symbol: &str) -> Option<String> {
        None
    }

    /// The stream of the book whose snapshot is requested.
    fn snapshot_stream(&self, _symbol: &str) -> Option<String> {
        None
    }

    /// Takes an instrument's snapshot.
    fn take_snapshot(
        &mut self,
        _arrival: &mut Arrival<'_, '_, Self::Kept>,
        _index: usize,
        _answer: Value<'_, '_>,
    ) -> Result<(), Malformed> {
        Ok(())
    }
}

/// The codec of a venue.
pub(crate) struct VenueCodec<D: Dialect> {
    dialect: D,
    state: State<D::Kept>,
    reader: JsonReader,
    /// The next page of the list of instruments, and when it is to be asked for.
    listing: Option<(RestRequest, u64)>,
    /// A whole list was received.
    is_listed: bool,
    pinged_ns: u64,
}

impl<D: Dialect + 'static> VenueCodec<D> {
    /// A codec before the first message.
    pub(crate) fn new(dialect: D, naming: Naming) -> Self {
        let instruments = Instruments::new(dialect.venue(), naming, dialect.name_of(), dialect.fresh());
        Self::with(dialect, instruments, false, 0)
    }

    /// A codec with these instruments, which is to ask for the list at this time.
    fn with(dialect: D, instruments: Instruments<D::Kept>, is_listed: bool, listing_due_ns: u64) -> Self {
        let state = State {
            instruments,
            streams: Streams::new(D::REQUESTS, D::SNAPSHOTS_FOLLOW),
            levels: Vec::new(),
            decimals: Vec::new(),
            text: String::new(),
        };
        let mut codec = Self { dialect, state, reader: JsonReader::default(), listing: None, is_listed, pinged_ns: 0 };
        codec.listing = codec.first_page().map(|request| (request, listing_due_ns));
        codec
    }

    fn first_page(&self) -> Option<RestRequest> {
        self.dialect.listing_path().map(|path| self.listing_request(path, 0))
    }

    fn listing_request(&self, path: String, page: u32) -> RestRequest {
        let purpose = Purpose::Listing { page };
        RestRequest { path, weight: self.dialect.listing_weight(), stream: None, purpose }
    }

    fn send(&mut self, operation: Operation, streams: &[(usize, Channel)], sink: &mut Sink<'_>) {
        let named: Vec<_> =
            streams.iter().map(|(index, channel)| (self.state.instruments.symbol(*index), *channel)).collect();
        for text in self.dialect.requests(operation, &named) {
            sink.send(text);
        }
    }

    /// The streams of these instruments on the channels that a venue has.
    fn streams_of(indexes: &[usize], channels: ChannelSet) -> Vec<(usize, Channel)> {
        let channels = channels.iter().filter(|channel| *channel != Channel::Raw);
        channels.flat_map(|channel| indexes.iter().map(move |index| (*index, channel))).collect()
    }
}

impl<D: Dialect + 'static> Codec for VenueCodec<D> {
    fn venue(&self) -> &'static str {
        self.dialect.venue()
    }

    fn open(&mut self, sink: &mut Sink<'_>) {
        self.dialect.opening().into_iter().for_each(|text| sink.send(text));
    }

    fn is_listed(&self) -> bool {
        self.is_listed || (self.listing.is_none() && !self.state.instruments.listings().is_empty())
    }

    fn check(&self, symbol: &str) -> Result<(), SubscribeError> {
        self.state.instruments.listings().check(self.dialect.venue(), symbol)
    }

    fn subscribe(
        &mut self,
        symbols: &[&str],
        channels: ChannelSet,
        now_ns: u64,
        sink: &mut Sink<'_>,
    ) -> Result<(), SubscribeError> {
        let venue = self.dialect.venue();
        self.dialect.check_depth()?;
        if symbols.len() > INSTRUMENTS_MAX {
            return Err(SubscribeError::TooMany { venue, given: symbols.len(), most: INSTRUMENTS_MAX });
        }
        for symbol in symbols {
            self.check(symbol)?;
        }
        let indexes: Result<Vec<_>, _> =
            symbols.iter().map(|symbol| self.state.instruments.subscribe(symbol, sink)).collect();
        let indexes = indexes?;
        for index in &indexes {
            self.state.streams.request(*index, channels, now_ns);
        }
        self.send(Operation::Subscribe, &Self::streams_of(&indexes, channels), sink);
        Ok(())
    }

    fn on_message(&mut self, text: &mut [u8], receive_ns: u64, sink: &mut Sink<'_>) -> Result<(), Malformed> {
        let Self { dialect, state, reader, .. } = self;
        if dialect.is_plain_answer(text) {
            sink.report.ignored += 1;
            return Ok(());
        }
        let mut arrival = Arrival { state, now_ns: receive_ns, sink };
        let take = |message: Value<'_, '_>| dialect.take(&mut arrival, message);
        let taken = if D::NUMBERS_AS_TEXT { reader.read_numbers_as_text(text, take) } else { reader.read(text, take) };
        if let Err(Malformed::NotJson(_) | Malformed::NotAMessage) = &taken {
            dialect.on_unreadable(&mut arrival);
        }
        taken
    }

    fn on_tick(&mut self, now_ns: u64, sink: &mut Sink<'_>) {
        if let Some(ping) = self.dialect.ping()
            && now_ns.saturating_sub(self.pinged_ns) >= ping.interval_ns
        {
            self.pinged_ns = now_ns;
            sink.send(ping.text.to_owned());
        }
        let State { instruments, streams, .. } = &mut self.state;
        streams.on_tick(now_ns, |index| instruments.symbol(index).to_owned(), sink);
        while D::SNAPSHOTS_FOLLOW
            && let Some(index) = self.state.streams.next_resync(now_ns)
        {
            let book = [(index, Channel::Book)];
            self.send(Operation::Unsubscribe, &book, sink);
            self.send(Operation::Subscribe, &book, sink);
            self.state.streams.request(index, ChannelSet::from_iter([Channel::Book]), now_ns);
        }
    }

    fn lists_by_request(&self) -> bool {
        self.listing.is_some()
    }

    fn listing_needed(&mut self, now_ns: u64) -> Option<RestRequest> {
        let (request, due_ns) = self.listing.as_mut().filter(|(_, due_ns)| *due_ns <= now_ns)?;
        // Not again while the answer is awaited, unless it does not come.
        *due_ns = now_ns.saturating_add(LISTING_RETRY_NS);
        Some(request.clone())
    }

    fn rest_needed(&mut self, now_ns: u64) -> Option<RestRequest> {
        let listing = self.listing_needed(now_ns);
        if listing.is_some() || D::SNAPSHOTS_FOLLOW {
            return listing;
        }
        let index = self.state.streams.next_resync(now_ns)?;
        let symbol = self.state.instruments.symbol(index);
        let (path, stream) = (self.dialect.snapshot_path(symbol)?, self.dialect.snapshot_stream(symbol));
        let weight = self.dialect.snapshot_weight();
        Some(RestRequest { path, weight, stream, purpose: Purpose::Snapshot { index } })
    }

    fn on_rest(
        &mut self,
        request: &RestRequest,
        answer: &mut [u8],
        now_ns: u64,
        sink: &mut Sink<'_>,
    ) -> Result<(), Malformed> {
        let Self { dialect, state, reader, .. } = self;
        let page = match request.purpose {
            Purpose::Snapshot { index } => {
                let mut arrival = Arrival { state: &mut *state, now_ns, sink };
                let taken = reader.read(answer, |value| dialect.take_snapshot(&mut arrival, index, value));
                if taken.is_err() {
                    state.streams.resync(index);
                }
                return taken;
            }
            Purpose::Listing { page } => page,
        };
        let instruments = &mut state.instruments;
        let next = reader
            .read(answer, |value| {
                dialect.take_listing(&request.path, value, &mut |listing| instruments.list(listing, sink))
            })
            .map_err(|error| Malformed::Answer { asked: request.path.clone(), problem: error.to_string() })?;
        let next = next.filter(|_| page < LISTING_PAGES_MAX).map(|path| self.listing_request(path, page + 1));
        self.is_listed |= next.is_none();
        self.listing = match next {
            Some(request) => Some((request, now_ns)),
            None => self.first_page().map(|request| (request, now_ns + LISTING_INTERVAL_NS)),
        };
        Ok(())
    }

    fn on_rest_failed(&mut self, request: &RestRequest, now_ns: u64) {
        match request.purpose {
            Purpose::Listing { .. } => {
                self.listing = Some((request.clone(), now_ns.saturating_add(LISTING_RETRY_NS)));
            }
            Purpose::Snapshot { index } => self.state.streams.resync(index),
        }
    }

    fn on_disconnect(&mut self, channels: ChannelSet, sink: &mut Sink<'_>) {
        for tracked in self.state.instruments.iter_mut() {
            if channels.contains(Channel::Book) {
                tracked.void_if_valid(sink);
                tracked.forget_book();
            }
            if channels.contains(Channel::Quote) {
                tracked.forget_quote();
            }
        }
        self.state.streams.forget(channels);
        self.pinged_ns = 0;
    }

    fn put_states(&mut self, state: FeedState, sink: &mut Sink<'_>) {
        self.state.instruments.iter_mut().for_each(|tracked| tracked.put_state(state, sink));
    }

    fn has_book(&self, symbol: &str) -> bool {
        self.state.instruments.get(symbol).is_some_and(|tracked| tracked.kept.has_book())
    }

    fn successor(&self) -> Box<dyn Codec> {
        let due_ns = self.listing.as_ref().map_or(0, |(_, due_ns)| *due_ns);
        Box::new(Self::with(self.dialect.successor(), self.state.instruments.successor(), self.is_listed, due_ns))
    }

    fn restart(&mut self, sink: &mut Sink<'_>) {
        self.on_disconnect(ChannelSet::ALL, sink);
        self.state.instruments.iter_mut().for_each(Tracked::restart);
    }

    fn stream_state(&self, stream: &StreamName) -> StreamState {
        let index = self.state.instruments.index(&stream.symbol);
        index.map_or(StreamState::Unwanted, |index| self.state.streams.state(index, stream.channel))
    }
}
