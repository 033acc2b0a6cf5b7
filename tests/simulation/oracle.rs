//! The checks of one client's stream, record by record.

mod bytes;
mod rest;
mod rights;
mod tokens;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use tickcast::last_value::LastValues;
use tickcast::ring::RingOffset;
use tickcast_protocol::control::{ChannelSet, Pattern, Reply};
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, Gap, RecordHeader, flags};
use tickcast_protocol::{Channel, ConflationInterval, FeedState, GapReason, Instrument, RecordKind};

use self::bytes::{Way, check_bytes};
use crate::Seen;
use crate::feed::{History, Levels, Value};
use crate::rights::Entitled;
use crate::served::Served;

/// What the stream is compared with.
pub struct Truth<'a> {
    pub history: &'a History,
    /// The newest values of the shard.
    pub shard: &'a LastValues<RingOffset>,
    /// Positions between which the shard was overrun.
    pub overruns: &'a [(u64, u64)],
    pub served: &'a Served,
    /// The last two times at which the shard ticked, if it had anything to do; `None` if it may have missed one, or has
    /// left something to the last one.
    pub ticks_ns: Option<[u64; 2]>,
    /// What the shard had read when the bytes that are read now had not been made, but for the lag of a shared history.
    pub known_position: u64,
}

/// A request that has not been answered.
pub enum Ask {
    Subscribe {
        channels: ChannelSet,
        symbols: Vec<Pattern>,
        interval: ConflationInterval,
        snapshot: bool,
        resume: Option<Resume>,
    },
    Unsubscribe {
        channels: ChannelSet,
        symbols: Vec<Pattern>,
    },
    Ping,
    Bad,
    /// The client has these rights from the answer on.
    Auth(Rc<Entitled>),
}

/// A token, and what the client had when it got it, if known.
#[derive(Clone)]
pub struct Resume {
    pub epoch: u32,
    pub position: u64,
    pub had: Option<Rc<HashMap<(u32, Channel), Had>>>,
}

/// What a client had of a channel of an instrument.
#[derive(Clone)]
pub struct Had {
    last: Option<u64>,
    book: Option<Levels>,
    interval: Option<ConflationInterval>,
    /// What it could see then.
    entitled: Rc<Entitled>,
}

/// What the client has been sent of a channel of an instrument.
#[derive(Debug, Default)]
struct Track {
    last: Option<u64>,
    /// The value must be there from the beginning.
    snapshot: bool,
    /// The shard's sequence when the subscription was known to hold.
    upper: u64,
    /// Everything above this sequence has to come, even if it was sent while the client was away.
    resumed: Option<u64>,
    book: Option<Levels>,
    /// The server has flagged the book as possibly wrong.
    doubted: bool,
    /// Interval of the last value, and the number of it.
    interval: Option<ConflationInterval>,
    period: u64,
}

pub struct Oracle {
    pub asked: HashMap<u64, Ask>,
    /// The rights that settings give it which were reloaded, until it is told.
    pub renewed: Option<Rc<Entitled>>,
    /// What the client may see.
    pub entitled: Rc<Entitled>,
    /// Items that the client has had at any time.
    had_items: HashSet<(Pattern, Channel)>,
    /// Frames without an id that have to be answered with an error.
    pub nonsense: u32,
    items: BTreeMap<(Pattern, Channel), ConflationInterval>,
    /// Tells interests apart.
    pub interest: u64,
    tracks: BTreeMap<(u32, Channel), Track>,
    defined: HashSet<u32>,
    /// States of instruments and of the feed as they were sent; live unless another was.
    states: HashMap<u32, FeedState>,
    /// Of the newest packet: the token of a resume.
    position: u64,
    /// The highest, replays aside, and that of the replay.
    reached: u64,
    replayed: u64,
    pub welcomed: bool,
    /// A subscription has been answered, even if nothing is left of it.
    pub has_subscribed: bool,
    /// A snapshot or replay was announced whose last packet has not come.
    awaits_caught_up: bool,
    /// The resume that is answered with history, and what it is for.
    replaying: Option<(u64, Vec<(u32, Channel)>)>,
    /// When the client was not a member of its audience, by the server's clock: then it may be sent more than the
    /// interval allows. What the client reads is older than that, by all that its socket held.
    pub disturbed_ns: Vec<u64>,
    /// A send was cut at least once.
    pub was_cut: bool,
    pub packets_at_ns: u64,
    /// The stream has the sides of a book apart, so that only the order of levels within a side is known.
    pub sides_apart: bool,
    pub seen: Seen,
}

impl Oracle {
    /// The interval at which the client is to get a channel of a symbol, if it is.
    fn interval(&self, symbol: &str, channel: Channel) -> Option<ConflationInterval> {
        if !self.entitled.may(symbol, channel) {
            return None;
        }
        let exact = self.items.get(&(Pattern::Exact(symbol.to_owned()), channel));
        exact.copied().or_else(|| {
            let covers = |(pattern, of): &&(Pattern, Channel)| *of == channel && pattern.matches(symbol);
            let length = |(pattern, _): &&(Pattern, Channel)| pattern.to_string().len();
            self.items.keys().filter(covers).max_by_key(length).map(|key| self.items[key])
        })
    }

    fn note_interest(&mut self) {
        let mut hasher = DefaultHasher::new();
        self.entitled.number.hash(&mut hasher);
        for ((pattern, channel), interval) in &self.items {
            (pattern.to_string(), *channel as u8, interval.index()).hash(&mut hasher);
        }
        self.interest = hasher.finish();
    }

    /// A new instrument, which the client's patterns may cover.
    pub fn instrument(&mut self, id: u32, symbol: &str) {
        for channel in Channel::ALL {
            self.seen.awaited += u64::from(self.items.contains_key(&(Pattern::Exact(symbol.to_owned()), channel)));
            if self.interval(symbol, channel).is_some() {
                self.tracks.insert((id, channel), Track { snapshot: true, ..Track::default() });
            }
        }
    }

    pub fn text(&mut self, text: &str, truth: &Truth) {
        match Reply::parse(text).expect("the server's JSON") {
            Reply::Welcome { epoch, .. } => {
                assert!(epoch == 1 && !self.welcomed, "one welcome");
                self.welcomed = true;
            }
            Reply::Subscribed { id, conflate_ms, book_depth, denied, .. } => {
                let Some(Ask::Subscribe { channels, symbols, interval, snapshot, resume: None }) =
                    self.asked.remove(&id)
                else {
                    panic!("an answer without a subscription: {text}")
                };
                assert_eq!(conflate_ms, interval.interval_ms());
                self.check_denied(channels, &symbols, &denied);
                self.check_depth(&symbols, channels, book_depth, truth);
                self.subscribed(channels, &symbols, interval, snapshot, truth);
            }
            Reply::Resumed { id, how, from, conflate_ms, book_depth, denied, .. } => {
                if let Some(Ask::Subscribe { channels, symbols, .. }) = self.asked.get(&id) {
                    self.check_depth(symbols, *channels, book_depth, truth);
                    self.check_denied(*channels, symbols, &denied);
                }
                self.resumed(id, &how, (from.get(), conflate_ms), truth);
            }
            Reply::Authenticated { id, dropped, .. } => {
                let asked = if id == 0 { self.renewed.take().map(Ask::Auth) } else { self.asked.remove(&id) };
                let Some(Ask::Auth(entitled)) = asked else { panic!("an answer without an auth: {text}") };
                self.authenticated(entitled, &dropped, truth);
            }
            Reply::Unsubscribed { id, .. } => {
                let Some(Ask::Unsubscribe { channels, symbols }) = self.asked.remove(&id) else {
                    panic!("an answer without an unsubscription: {text}")
                };
                self.unsubscribed(channels, &symbols, truth.history);
            }
            Reply::Pong { id, .. } => assert!(matches!(self.asked.remove(&id), Some(Ask::Ping)), "{text}"),
            Reply::Error { id: Some(id), .. } => {
                assert!(matches!(self.asked.remove(&id), Some(Ask::Bad)), "a good request was refused: {text}");
            }
            Reply::Error { id: None, .. } => {
                assert!(self.nonsense > 0, "an error without a bad frame: {text}");
                self.nonsense -= 1;
            }
            Reply::Closing { .. } => {}
            other => panic!("an answer without a request: {other:?}"),
        }
    }

    /// The answer to a resume; or a second one, if the history was overwritten while it was sent.
    fn resumed(&mut self, id: u64, how: &str, (from, conflate_ms): (u64, u32), truth: &Truth) {
        if let Some((_, new)) = self.replaying.take_if(|(of, _)| *of == id) {
            assert_eq!(how, "snapshot", "a second answer to {id}");
            self.seen.replays_lost += 1;
            self.awaits_caught_up = true;
            for key in new {
                if let Some(track) = self.tracks.get_mut(&key) {
                    *track =
                        Track { snapshot: true, upper: truth.shard.sequence(key.0, key.1).get(), ..Track::default() };
                }
            }
            return;
        }
        let Some(Ask::Subscribe { channels, symbols, interval, resume: Some(resume), .. }) = self.asked.remove(&id)
        else {
            panic!("an answer without a resume: {id}")
        };
        assert_eq!(conflate_ms, interval.interval_ms());
        let new = self.subscribed(channels, &symbols, interval, how == "snapshot", truth);
        // Its end is marked even if it is empty.
        self.awaits_caught_up |= how == "snapshot";
        match how {
            "replay" => {
                assert_eq!(from, resume.position + 1);
                self.promise_replay(&new, &resume, truth);
                self.replaying = Some((id, new));
            }
            other => assert_eq!(other, "snapshot"),
        }
    }

    /// Returns the channels of instruments that are new.
    fn subscribed(
        &mut self,
        channels: ChannelSet,
        symbols: &[Pattern],
        interval: ConflationInterval,
        snapshot: bool,
        truth: &Truth,
    ) -> Vec<(u32, Channel)> {
        self.has_subscribed = true;
        let mut new = Vec::new();
        if self.items.is_empty() {
            // The client was not sent the state of the feed meanwhile; if it is not live, it is sent again.
            self.states.remove(&0);
        }
        for symbol in symbols {
            for channel in channels.iter().filter(|channel| self.entitled.clone().gives(symbol, *channel)) {
                let old = self.items.insert((symbol.clone(), channel), interval);
                self.had_items.insert((symbol.clone(), channel));
                let may = |i: &&Instrument| symbol.matches(&i.symbol) && self.entitled.clone().may(&i.symbol, channel);
                for instrument in truth.history.instruments.iter().filter(may) {
                    let upper = truth.shard.sequence(instrument.id, channel).get();
                    let track = self.tracks.entry((instrument.id, channel)).or_insert_with(|| {
                        new.push((instrument.id, channel));
                        Track { upper, ..Track::default() }
                    });
                    track.snapshot |= snapshot && old.is_none();
                }
                self.awaits_caught_up |= snapshot && old.is_none();
                self.seen.interval_changes += u64::from(old.is_some_and(|old| old != interval));
            }
        }
        self.note_interest();
        new
    }

    /// The server has announced all records after the token's position.
    fn promise_replay(&mut self, new: &[(u32, Channel)], resume: &Resume, truth: &Truth) {
        assert!(resume.epoch == 1 && resume.position <= truth.history.position, "a wrong token is replayed");
        self.seen.replays += 1;
        for key in new {
            let until = truth.history.count_until(key.0, key.1, resume.position);
            let symbol = &truth.history.instruments[key.0 as usize - 1].symbol;
            let (interval, depth) = (self.interval(symbol, key.1), self.depth(symbol, key.1));
            let had = resume.had.as_ref().and_then(|had| had.get(key));
            let track = self.tracks.get_mut(key).expect("just made");
            track.snapshot = false;
            if key.1.is_log() {
                (track.last, track.resumed) = (Some(until), Some(until));
            } else {
                // A conflated value may have been pending when the token was issued. The stream is taken to have had
                // the interval that the resume asks for.
                let same = had.filter(|had| had.interval == interval);
                track.resumed = Some(same.and_then(|had| had.last).unwrap_or(until).min(until));
                track.book = had.filter(|had| had.last == Some(until)).and_then(|had| had.book.clone());
                if had.is_some_and(|had| had.entitled.depth(symbol) != depth) {
                    // A replay continues the book of another depth. Clients are told the depth, and drop it.
                    track.book = None;
                }
                if depth.is_some() {
                    // It is not replayed, and comes whole, whatever the client had.
                    (track.book, track.snapshot, track.resumed) = (None, true, Some(0));
                }
            }
        }
    }

    fn unsubscribed(&mut self, channels: ChannelSet, symbols: &[Pattern], history: &History) {
        self.items.retain(|(item, channel), _| {
            let covered = symbols.iter().any(|symbol| match (symbol, item) {
                (_, Pattern::Exact(name)) => symbol.matches(name),
                (Pattern::Prefix(own), Pattern::Prefix(prefix)) => prefix.starts_with(own.as_str()),
                _ => false,
            });
            !(channels.contains(*channel) && covered)
        });
        let mut tracks = std::mem::take(&mut self.tracks);
        tracks.retain(|(id, channel), _| {
            self.interval(&history.instruments[*id as usize - 1].symbol, *channel).is_some()
        });
        // A snapshot of what was unsubscribed before it came need not come.
        let is_withdrawn = |id: u32, channel: Channel| {
            let symbol = &history.instruments[id as usize - 1].symbol;
            channels.contains(channel) && symbols.iter().any(|pattern| pattern.matches(symbol))
        };
        for ((id, channel), track) in &mut tracks {
            // A change of a book may have come before it.
            let has_come = track.last.is_some() && (*channel != Channel::Book || track.book.is_some());
            track.snapshot &= has_come || !is_withdrawn(*id, *channel);
        }
        self.tracks = tracks;
        self.note_interest();
    }

    pub fn packet(&mut self, bytes: &[u8], now_ns: u64, truth: &Truth) {
        let header = PacketHeader::read(bytes).expect("a packet");
        self.packets_at_ns = now_ns;
        assert_eq!(header.epoch, 1);
        assert!(header.position.get() <= truth.history.position);
        let (mut count, mut length) = (0, packet::HEADER_BYTES);
        let has = |flag: u8| header.flags & flag != 0;
        // A replay begins at its token, and ends at the client's position.
        let goes_back = has(packet::flags::REPLAY) && !has(packet::flags::CAUGHT_UP);
        let floor = if goes_back { self.replayed } else { self.reached };
        assert!(header.position.get() >= floor, "position {} after {floor}, {header:?}", header.position);
        self.position = header.position.get();
        if goes_back {
            self.replayed = header.position.get();
        } else {
            (self.replayed, self.reached) = (0, header.position.get());
        }
        self.seen.snapshot_chunks += u64::from(has(packet::flags::SNAPSHOT));
        assert!(!has(packet::flags::REPLAY) || self.replaying.is_some(), "a replay that was not announced");
        if has(packet::flags::CAUGHT_UP) && has(packet::flags::SNAPSHOT) {
            assert!(self.awaits_caught_up, "caught up with nothing");
            self.awaits_caught_up = false;
        }
        for (head, record) in record::records(&bytes[packet::HEADER_BYTES..]) {
            self.record(&head, record, &header, truth);
            count += 1;
            length += record.len();
        }
        assert_eq!((count, length), (header.count, bytes.len()), "a packet counts its records");
        if has(packet::flags::CAUGHT_UP) && has(packet::flags::REPLAY) {
            self.replaying = None;
        }
        self.seen.records += u64::from(count);
        if !has(packet::flags::SNAPSHOT) && !self.awaits_caught_up {
            self.position_is_true(truth);
        }
    }

    /// A packet's position is a token: no log record up to it is missing.
    fn position_is_true(&self, truth: &Truth) {
        let lost = |(from, to): &(u64, u64)| (*from..=*to).contains(&self.position);
        if truth.overruns.iter().any(lost) {
            return;
        }
        for ((id, channel), track) in self.tracks.iter().filter(|((_, channel), _)| channel.is_log()) {
            let until = truth.history.count_until(*id, *channel, self.position);
            let had = track.last.unwrap_or(0).max(track.upper);
            assert!(until <= had, "position {} is ahead of {channel:?} of {id}: {until}, {track:?}", self.position);
        }
    }

    fn record(&mut self, header: &RecordHeader, bytes: &[u8], packet: &PacketHeader, truth: &Truth) {
        let kind = RecordKind::from_wire(header.kind).expect("a kind of the protocol");
        match kind {
            RecordKind::Definition => {
                let instrument = record::read_definition(bytes).expect("a whole definition");
                assert!(
                    self.may_know(header.instrument, truth),
                    "it may not know of {instrument:?}: {:?}",
                    self.entitled
                );
                assert_eq!(instrument, truth.history.instruments[header.instrument as usize - 1]);
                self.defined.insert(header.instrument);
                // A state other than live comes after the definition.
                self.states.remove(&header.instrument);
            }
            RecordKind::Heartbeat => self.seen.heartbeats += 1,
            RecordKind::Status => {
                self.seen.statuses += 1;
                let is_known = header.instrument == 0 || self.may_know(header.instrument, truth);
                assert!(is_known, "a state of {} that it may not know: {:?}", header.instrument, self.entitled);
                self.states.insert(header.instrument, record::read_status(bytes).expect("a whole status"));
            }
            RecordKind::Gap => self.gap(&Gap::read(bytes).expect("a whole gap"), packet, truth),
            _ => self.value(header, kind.channel().expect("a channel's record"), bytes, packet, truth),
        }
    }

    fn gap(&mut self, gap: &Gap, packet: &PacketHeader, truth: &Truth) {
        self.seen.gaps += 1;
        assert!(gap.channel.is_log(), "{gap:?}");
        assert!(self.defined.contains(&gap.instrument), "a gap before its definition: {gap:?}");
        let overrun = !truth.overruns.is_empty();
        match gap.reason {
            GapReason::Overrun => assert!(overrun, "nothing was overrun: {gap:?}"),
            GapReason::Feed => assert!(overrun || truth.history.is_lost(gap), "the feed has lost nothing: {gap:?}"),
            GapReason::Slow => assert!(overrun || self.was_cut, "the client was not slow: {gap:?}"),
            other => panic!("reason {other:?}: {gap:?}"),
        }
        let track = self.tracks.get_mut(&(gap.instrument, gap.channel));
        let track = track.unwrap_or_else(|| panic!("no subscription for {gap:?}"));
        match track.last {
            // Comes with a snapshot's trade, as often as that is requested.
            Some(last) if packet.flags & packet::flags::SNAPSHOT != 0 && gap.to_sequence.get() == last => {}
            Some(last) => assert_eq!(
                gap.from_sequence.get(),
                last + 1,
                "{gap:?} packet {:#x} at {}, {track:?}",
                packet.flags,
                packet.position
            ),
            None => assert!(gap.from_sequence.get() <= track.upper + 1, "{gap:?} {track:?}"),
        }
        assert!(gap.to_sequence >= gap.from_sequence, "{gap:?}");
        assert!(gap.to_sequence.get() <= truth.history.newest(gap.instrument, gap.channel), "{gap:?}");
        track.last = Some(gap.to_sequence.get());
    }

    fn value(&mut self, header: &RecordHeader, channel: Channel, bytes: &[u8], packet: &PacketHeader, truth: &Truth) {
        let (id, sequence) = (header.instrument, header.sequence.get());
        assert!(self.defined.contains(&id), "{channel:?} of {id} before its definition");
        let symbol = &truth.history.instruments[id as usize - 1].symbol;
        let interval = self.interval(symbol, channel);
        let interval = interval.unwrap_or_else(|| panic!("no subscription for {channel:?} of {symbol}"));
        let depth = self.depth(symbol, channel);
        self.seen.limited += u64::from(depth.is_some());
        let hidden: Vec<usize> = self.entitled.hidden(symbol, channel).collect();
        self.seen.hidden += hidden.len() as u64;
        let snapshot = header.flags & flags::SNAPSHOT != 0;
        let conflated = header.flags & flags::CONFLATED != 0;
        let values = truth.history.of(id, channel);
        let about = || {
            format!(
                "{channel:?} {sequence} of {symbol}, flags {:#x}, packet {:#x} at {}",
                header.flags, packet.flags, packet.position
            )
        };
        assert!((1..=values.len() as u64).contains(&sequence), "never sent: {}", about());
        let value = &values[sequence as usize - 1];
        // Only the resumed items are replayed; the quote may be live, or its snapshot may be pending.
        if channel == Channel::Trade && !snapshot && packet.flags & packet::flags::REPLAY == 0 {
            self.quote_came_first(id, value.position, truth);
        }
        let track = &self.tracks[&(id, channel)];
        let ends_replays = channel == Channel::Book && self.entitled.limits_depth();
        match track.last {
            // The last one that there is; records after it may be known to be lost, by the feed or by an overrun.
            Some(last) if snapshot && channel.is_log() => {
                let overrun =
                    |value: &Value| truth.overruns.iter().any(|(from, to)| (*from..=*to).contains(&value.position));
                let lost = values.get(sequence as usize..last as usize);
                let all_lost = lost.is_some_and(|lost| lost.iter().all(|value| value.is_lost() || overrun(value)));
                assert!(all_lost, "{} after {last}", about());
            }
            Some(last) if snapshot => assert!(sequence >= last, "{} after {last}", about()),
            Some(last) if channel.is_log() || !conflated => assert_eq!(sequence, last + 1, "{}", about()),
            // A value that was pending as the client resumed may come twice; the sequence shows the repetition.
            // So may a book, with whose present state a replay ends where rights limit the depth.
            Some(last) if (track.resumed.is_some() || ends_replays) && self.was_not_member(packet) => {
                assert!(sequence >= last, "{}", about())
            }
            Some(last) => assert!(sequence > last, "{} after {last}", about()),
            None if channel.is_log() && !snapshot => assert!(sequence <= track.upper + 1, "{} {track:?}", about()),
            None => {}
        }
        if conflated {
            assert!(!channel.is_log(), "{}", about());
            let excused =
                interval != ConflationInterval::IMMEDIATE || self.was_not_member(packet) || !truth.overruns.is_empty();
            let excused = excused || depth.is_some();
            assert!(excused, "conflated for a member that wants every value: {}", about());
            self.seen.conflated += 1;
        }
        if !channel.is_log() && packet.flags & packet::flags::REPLAY == 0 {
            let newer = values.get(sequence as usize);
            let is_newest = newer.is_none_or(|newer| newer.position > truth.known_position);
            assert!(is_newest, "stale, the shard had read up to {}: {}", truth.known_position, about());
            self.seen.aged += u64::from(newer.is_some());
        }
        if interval != ConflationInterval::IMMEDIATE && !channel.is_log() && !snapshot {
            self.keeps_interval(id, channel, interval, packet, truth, &about);
        }
        let track = self.tracks.get_mut(&(id, channel)).expect("a subscription has a track");
        track.interval = Some(interval);
        track.last = if channel.is_log() { track.last.max(Some(sequence)) } else { Some(sequence) };
        let way = Way { interval, sides_apart: self.sides_apart, depth, hidden };
        check_bytes(track, header, bytes, way, value, &about);
    }

    /// True if a packet was sent while the client was not a member.
    fn was_not_member(&self, packet: &PacketHeader) -> bool {
        self.disturbed_ns.binary_search(&packet.ts_send).is_ok()
    }

    /// At most one value in an interval, unless the client was not a member in it; and it comes at the interval's
    /// boundary.
    fn keeps_interval(
        &mut self,
        id: u32,
        channel: Channel,
        interval: ConflationInterval,
        packet: &PacketHeader,
        truth: &Truth,
        about: &dyn Fn() -> String,
    ) {
        let period_of = |at_ns| truth.served.time_ns(at_ns) / interval.interval_ns();
        let period = period_of(packet.ts_send);
        let before = self.disturbed_ns.partition_point(|at_ns| *at_ns <= packet.ts_send);
        let out = self.disturbed_ns[..before].last().is_some_and(|at_ns| period_of(*at_ns) == period);
        let early = channel == Channel::Quote && self.tracks.contains_key(&(id, Channel::Trade));
        let last = self.tracks.get(&(id, channel)).and_then(|track| track.last);
        self.seen.calm_values += u64::from(!out);
        let next = last.and_then(|last| self.next_seen(id, channel, last, truth.history));
        let next = next.and_then(|next| truth.history.of(id, channel).get(next as usize - 1));
        let track = self.tracks.get_mut(&(id, channel)).expect("a subscription has a track");
        if let (Some(next), Some([before_ns, now_ns]), false) = (next, truth.ticks_ns, out)
            && packet.ts_send == now_ns
            // Of two ticks at the same time it is not known which has sent it.
            && before_ns < now_ns
        {
            // The oldest value that it stands for would have been sent, had a boundary passed.
            let is_prompt = period_of(before_ns) <= period_of(next.received_ns());
            assert!(is_prompt, "an interval boundary was missed: {}", about());
            self.seen.prompt_values += 1;
        }
        assert!(early || out || track.period != period, "two in one interval: {}", about());
        track.period = period;
    }

    /// A pending quote from before a trade is sent before it.
    fn quote_came_first(&self, id: u32, position: u64, truth: &Truth) {
        let Some(track) = self.tracks.get(&(id, Channel::Quote)) else { return };
        let quotes = truth.history.of(id, Channel::Quote);
        let newest = quotes.partition_point(|quote| quote.position < position);
        let Some(quote) = newest.checked_sub(1).map(|at| &quotes[at]) else { return };
        let lost =
            |(from, to): &(u64, u64)| (*from..=*to).contains(&position) || (*from..=*to).contains(&quote.position);
        let replayed = track.resumed.is_some() && track.last.is_none();
        if truth.overruns.iter().any(lost) || replayed || (!track.snapshot && newest as u64 <= track.upper) {
            return;
        }
        assert!(track.last >= Some(newest as u64), "quote {newest} of {id} is missing before a trade: {track:?}");
    }

    /// Requests that have not been answered.
    pub fn unanswered(&self) -> usize {
        self.asked.len() + usize::from(self.renewed.is_some()) + self.nonsense as usize
    }

    /// True if every request has been answered.
    pub fn is_answered(&self) -> bool {
        self.asked.is_empty() && self.nonsense == 0
    }

    /// True if any subscription is conflated.
    pub fn conflates(&self) -> bool {
        self.items
            .iter()
            .any(|((_, channel), interval)| *interval != ConflationInterval::IMMEDIATE && !channel.is_log())
    }

    pub fn items(&self) -> usize {
        self.items.len()
    }
}
