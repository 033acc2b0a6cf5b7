//! The subscriptions of a connection: which were acknowledged, which are silent, and when a book is asked for again.
//!
//! A venue may acknowledge a subscription and send nothing on it, so silence is noticed for each stream. A book that was
//! dropped is asked for again on its own, at the earliest [`RESYNC_FIRST_NS`] after the former request, then after twice
//! as long, up to [`RESYNC_LONGEST_NS`]; and all books together keep to the venue's limit of requests.
//! Cost: nothing but a store for a message; one pass over the streams a second.

use std::collections::VecDeque;

use tickcast_protocol::Channel;
use tickcast_protocol::control::ChannelSet;

use crate::sink::{Event, Sink, StreamName};

/// The shortest time between two requests for one book.
pub const RESYNC_FIRST_NS: u64 = 1_000_000_000;
/// The longest time between two requests for one book.
pub const RESYNC_LONGEST_NS: u64 = 64_000_000_000;
/// A book that is asked for and does not come is asked for again after this.
const ANSWER_NS: u64 = 15_000_000_000;
/// A book that was whole for this long counts as sound: the next request for it does not wait longer than the first.
const SOUND_NS: u64 = 60_000_000_000;
/// Between two passes over the streams.
const PASS_NS: u64 = 1_000_000_000;
/// A stream of values that is silent for longer is reported. Venues send the first value at once, and quotes, statistics
/// and books of an instrument that trades change more often. Trades have no such limit.
pub const SILENT_NS: u64 = 60_000_000_000;

/// How often a venue may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimit {
    /// Requests at once.
    pub burst: u32,
    /// Time after which another one is permitted, ns.
    pub interval_ns: u64,
}

/// The state of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamState {
    /// It is not wanted.
    #[default]
    Unwanted,
    /// The venue was asked.
    Requested,
    /// The venue has acknowledged it.
    Acknowledged,
    /// Its messages come.
    Live,
    /// Nothing has come for longer than [`SILENT_NS`].
    Silent,
    /// The venue has refused it.
    Refused,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    state: StreamState,
    /// Time of the latest message, or of the first request without one, ns.
    heard_ns: u64,
}

/// When a book may be asked for again.
#[derive(Clone, Copy, Debug, Default)]
struct Resync {
    /// It waits in the queue.
    is_queued: bool,
    /// A request was sent, and no snapshot has come.
    is_pending: bool,
    /// When the latest request was sent.
    since_ns: u64,
    /// When the latest snapshot came.
    whole_ns: Option<u64>,
    /// The time from the latest request to the next.
    wait_ns: u64,
}

#[derive(Clone, Debug, Default)]
struct Instrument {
    streams: [Stream; Channel::COUNT],
    resync: Resync,
}

/// The subscriptions of one connection, by the index of the instrument.
#[derive(Debug)]
pub struct Streams {
    instruments: Vec<Instrument>,
    /// Books to ask for.
    queue: VecDeque<usize>,
    limit: RequestLimit,
    /// A subscription is answered with a snapshot.
    snapshots_follow: bool,
    requests: u32,
    refilled_ns: u64,
    passed_ns: u64,
}

impl Streams {
    /// No subscriptions. `snapshots_follow` says that the venue answers the subscription of a book with a snapshot.
    pub fn new(limit: RequestLimit, snapshots_follow: bool) -> Self {
        let (instruments, queue) = (Vec::new(), VecDeque::new());
        let requests = limit.burst;
        Self { instruments, queue, limit, snapshots_follow, requests, refilled_ns: 0, passed_ns: 0 }
    }

    /// Notes that these channels of an instrument were asked for.
    pub fn request(&mut self, index: usize, channels: ChannelSet, now_ns: u64) {
        let is_answered = channels.contains(Channel::Book) && self.snapshots_follow;
        let instrument = self.instrument(index);
        for channel in channels.iter() {
            let stream = &mut instrument.streams[channel as usize];
            match stream.state {
                StreamState::Unwanted | StreamState::Refused => stream.heard_ns = now_ns,
                // It stays silent until a message comes.
                StreamState::Silent => continue,
                _ => {}
            }
            stream.state = StreamState::Requested;
        }
        if is_answered {
            instrument.resync.is_pending = true;
            instrument.resync.since_ns = now_ns;
        }
    }

    /// Notes the venue's acknowledgement.
    pub fn acknowledge(&mut self, index: usize, channel: Channel) {
        let stream = &mut self.instrument(index).streams[channel as usize];
        if stream.state == StreamState::Requested {
            stream.state = StreamState::Acknowledged;
        }
    }

    /// Notes that the venue refuses a stream.
    pub fn refuse(&mut self, index: usize, channel: Channel) {
        let instrument = self.instrument(index);
        instrument.streams[channel as usize].state = StreamState::Refused;
        if channel == Channel::Book {
            instrument.resync.is_pending = false;
        }
    }

    /// Notes a message of a stream.
    pub fn note(&mut self, index: usize, channel: Channel, now_ns: u64) {
        if let Some(instrument) = self.instruments.get_mut(index) {
            let stream = &mut instrument.streams[channel as usize];
            if stream.state != StreamState::Unwanted {
                *stream = Stream { state: StreamState::Live, heard_ns: now_ns };
            }
        }
    }

    /// The state of a stream.
    pub fn state(&self, index: usize, channel: Channel) -> StreamState {
        self.instruments.get(index).map_or(StreamState::Unwanted, |all| all.streams[channel as usize].state)
    }

    /// Asks for a book again, if it is subscribed.
    pub fn resync(&mut self, index: usize) {
        let Some(instrument) = self.instruments.get_mut(index) else { return };
        let state = instrument.streams[Channel::Book as usize].state;
        let is_wanted = !matches!(state, StreamState::Unwanted | StreamState::Refused);
        let resync = &mut instrument.resync;
        if is_wanted && !resync.is_queued {
            (resync.is_queued, resync.is_pending) = (true, false);
            self.queue.push_back(index);
        }
    }

    /// Asks for a book, unless it was asked for already.
    pub fn resync_unless_pending(&mut self, index: usize) {
        if self.instruments.get(index).is_some_and(|instrument| !instrument.resync.is_pending) {
            self.resync(index);
        }
    }

    /// Notes that a book is whole again.
    pub fn whole(&mut self, index: usize, now_ns: u64) {
        if let Some(instrument) = self.instruments.get_mut(index)
            && instrument.resync.is_pending
        {
            instrument.resync.is_pending = false;
            instrument.resync.whole_ns = Some(now_ns);
        }
    }

    /// The next book whose wait is over.
    pub fn next_resync(&mut self, now_ns: u64) -> Option<usize> {
        self.refill(now_ns);
        for _ in 0..self.queue.len() {
            let index = self.queue.pop_front()?;
            let resync = &mut self.instruments[index].resync;
            if resync.whole_ns.is_some_and(|whole_ns| now_ns.saturating_sub(whole_ns) >= SOUND_NS) {
                resync.wait_ns = 0;
            }
            let is_due = now_ns.saturating_sub(resync.since_ns) >= resync.wait_ns;
            if is_due && self.requests > 0 {
                self.requests -= 1;
                let wait_ns = (resync.wait_ns * 2).clamp(RESYNC_FIRST_NS, RESYNC_LONGEST_NS);
                *resync = Resync { is_queued: false, is_pending: true, since_ns: now_ns, whole_ns: None, wait_ns };
                return Some(index);
            }
            self.queue.push_back(index);
        }
        None
    }

    /// Finds what is silent, and books that were asked for in vain. At most one pass a second.
    pub fn on_tick(&mut self, now_ns: u64, symbol: impl Fn(usize) -> String, sink: &mut Sink<'_>) {
        if now_ns.saturating_sub(self.passed_ns) < PASS_NS {
            return;
        }
        self.passed_ns = now_ns;
        for (index, instrument) in self.instruments.iter_mut().enumerate() {
            for channel in Channel::ALL.into_iter().filter(|channel| !channel.is_log()) {
                let stream = &mut instrument.streams[channel as usize];
                let silent_ns = now_ns.saturating_sub(stream.heard_ns);
                let is_expected =
                    matches!(stream.state, StreamState::Requested | StreamState::Acknowledged | StreamState::Live);
                if is_expected && silent_ns >= SILENT_NS {
                    stream.state = StreamState::Silent;
                    let stream = StreamName { symbol: symbol(index), channel };
                    sink.events.push(Event::Silent { stream, silent_ns });
                }
            }
            let resync = &mut instrument.resync;
            if resync.is_pending && now_ns.saturating_sub(resync.since_ns) >= ANSWER_NS {
                (resync.is_queued, resync.is_pending) = (true, false);
                self.queue.push_back(index);
            }
        }
    }

    /// Forgets these channels, as their connection is lost.
    pub fn forget(&mut self, channels: ChannelSet) {
        for instrument in &mut self.instruments {
            channels.iter().for_each(|channel| instrument.streams[channel as usize] = Stream::default());
            if channels.contains(Channel::Book) {
                instrument.resync = Resync::default();
            }
        }
        if channels.contains(Channel::Book) {
            self.queue.clear();
        }
    }

    fn refill(&mut self, now_ns: u64) {
        let periods = now_ns.saturating_sub(self.refilled_ns) / self.limit.interval_ns.max(1);
        if periods > 0 {
            let more = u32::try_from(periods).unwrap_or(u32::MAX);
            self.requests = self.requests.saturating_add(more).min(self.limit.burst);
            self.refilled_ns = now_ns;
        }
    }

    fn instrument(&mut self, index: usize) -> &mut Instrument {
        if index >= self.instruments.len() {
            self.instruments.resize_with(index + 1, Instrument::default);
        }
        &mut self.instruments[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Report;

    const S: u64 = 1_000_000_000;
    const T0: u64 = 1_700_000_000 * S;

    fn subscribed(count: usize) -> Streams {
        let mut streams = Streams::new(RequestLimit { burst: 2, interval_ns: 10 * S }, true);
        for index in 0..count {
            streams.request(index, ChannelSet::from_iter([Channel::Book, Channel::Trade]), T0);
            streams.acknowledge(index, Channel::Book);
            streams.acknowledge(index, Channel::Trade);
            streams.whole(index, T0);
        }
        streams
    }

    fn events(streams: &mut Streams, now_ns: u64) -> Vec<Event> {
        let (mut batch, mut report, mut next_id, mut events) = (Vec::new(), Report::default(), 1, Vec::new());
        let mut sink = Sink { batch: &mut batch, report: &mut report, next_id: &mut next_id, events: &mut events };
        streams.on_tick(now_ns, |index| format!("S{index}"), &mut sink);
        events
    }

    #[test]
    fn acknowledged_stream_without_messages_is_reported_once() {
        let mut streams = subscribed(2);
        streams.note(1, Channel::Book, T0 + 30 * S);
        assert_eq!(events(&mut streams, T0 + 59 * S), []);
        let stream = StreamName { symbol: "S0".to_owned(), channel: Channel::Book };
        assert_eq!(events(&mut streams, T0 + 61 * S), [Event::Silent { stream, silent_ns: 61 * S }]);
        assert_eq!(events(&mut streams, T0 + 63 * S), [], "trades may be silent");
        streams.note(0, Channel::Book, T0 + 64 * S);
        assert_eq!(streams.state(0, Channel::Book), StreamState::Live);
    }

    #[test]
    fn one_book_is_asked_for_less_and_less_often() {
        let mut streams = subscribed(1);
        let mut asked = Vec::new();
        for second in 0..140 {
            streams.resync(0);
            if streams.next_resync(T0 + second * S).is_some() {
                asked.push(second);
            }
        }
        // Two at once, then at most one in ten seconds.
        assert_eq!(asked, [0, 1, 10, 20, 30, 46, 78]);
        streams.whole(0, T0 + 140 * S);
        streams.resync(0);
        assert_eq!(streams.next_resync(T0 + 141 * S), None, "it was whole for a second");
        assert_eq!(streams.next_resync(T0 + 200 * S), Some(0));
    }

    #[test]
    fn all_books_together_keep_to_the_limit_of_the_venue() {
        let mut streams = subscribed(50);
        (0..50).for_each(|index| streams.resync(index));
        let mut due = |now_ns| std::iter::from_fn(|| streams.next_resync(now_ns)).count();
        assert_eq!([due(T0), due(T0 + 5 * S), due(T0 + 10 * S), due(T0 + 40 * S)], [2, 0, 1, 2]);
    }

    #[test]
    fn request_without_an_answer_is_repeated() {
        let mut streams = subscribed(1);
        streams.resync(0);
        assert_eq!(streams.next_resync(T0), Some(0));
        assert_eq!(events(&mut streams, T0 + 14 * S), []);
        assert_eq!(streams.next_resync(T0 + 14 * S), None);
        events(&mut streams, T0 + 15 * S);
        assert_eq!(streams.next_resync(T0 + 15 * S), Some(0));
        streams.whole(0, T0 + 16 * S);
        events(&mut streams, T0 + 50 * S);
        assert_eq!(streams.next_resync(T0 + 50 * S), None);
    }
}
