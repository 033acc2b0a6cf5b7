//! What must hold on one client's stream, record by record.

mod bytes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use tickcast::last_value::LastValues;
use tickcast::ring::RingOffset;
use tickcast_protocol::control::{ChannelSet, Pattern, Reply};
use tickcast_protocol::packet::{self, PacketHeader};
use tickcast_protocol::record::{self, Gap, RecordHeader, flags};
use tickcast_protocol::{Channel, ConflationInterval, FeedState, GapReason, RecordKind};

use self::bytes::check_bytes;
use crate::client::{Wish, false_token};
use crate::feed::{History, Levels, Value};
use crate::{Dice, Seen};

/// What the stream is held against.
pub struct Truth<'a> {
    pub history: &'a History,
    /// What the shard knows at this moment.
    pub shard: &'a LastValues<RingOffset>,
    /// Places of the node's order between which the shard was overrun.
    pub overruns: &'a [(u64, u64)],
    /// The last two times at which the shard was turned, if it had anything to do; `None` where it may have missed one.
    pub ticks_ns: Option<[u64; 2]>,
}

/// What a client has asked and not been answered.
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
}

/// A token, and what the client really had when it got it, if it knows.
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
}

/// What the client knows of a channel of an instrument.
#[derive(Debug, Default)]
struct Track {
    last: Option<u64>,
    /// The value must be there from the beginning.
    snapshot: bool,
    /// The shard's sequence when the subscription was known to hold.
    upper: u64,
    /// Everything above this sequence is owed, even if the client was away when it came.
    resumed: Option<u64>,
    book: Option<Levels>,
    /// The server has said that the book may be wrong.
    doubted: bool,
    /// Interval of the last value, and the number of it.
    interval: Option<ConflationInterval>,
    period: u64,
}

#[derive(Default)]
pub struct Oracle {
    pub asked: HashMap<u64, Ask>,
    /// Frames without an id that an error is owed for.
    pub nonsense: u32,
    items: BTreeMap<(Pattern, Channel), ConflationInterval>,
    /// Tells interests apart.
    pub interest: u64,
    tracks: BTreeMap<(u32, Channel), Track>,
    defined: HashSet<u32>,
    /// What was told of instruments, and of the feed; live where nothing was told.
    states: HashMap<u32, FeedState>,
    /// Of the newest packet: what the client would resume from.
    position: u64,
    /// The highest, replays aside, and that of the replay.
    reached: u64,
    replayed: u64,
    pub welcomed: bool,
    /// A snapshot or replay was promised whose last packet has not come.
    awaits_caught_up: bool,
    /// The resume that is answered with history, and what it is for.
    replaying: Option<(u64, Vec<(u32, Channel)>)>,
    /// When the client was out of its audience, by the server's clock: what it is sent then may be more than the
    /// interval allows. Not by what the client reads: that is older, by all that its socket held.
    pub disturbed_ns: Vec<u64>,
    /// A send was cut at some time.
    pub was_cut: bool,
    pub packets_at_ns: u64,
    /// The stream has a book's sides apart, so that the order of its levels is told for each side only.
    pub sides_apart: bool,
    /// Names that the server does not know yet hold nevertheless.
    pub waits_for_names: bool,
    pub seen: Seen,
}

impl Oracle {
    fn interval(&self, symbol: &str, channel: Channel) -> Option<ConflationInterval> {
        let exact = self.items.get(&(Pattern::Exact(symbol.to_owned()), channel));
        exact.copied().or_else(|| {
            let covers = |(pattern, of): &&(Pattern, Channel)| *of == channel && pattern.matches(symbol);
            let length = |(pattern, _): &&(Pattern, Channel)| pattern.to_string().len();
            self.items.keys().filter(covers).max_by_key(length).map(|key| self.items[key])
        })
    }

    fn note_interest(&mut self) {
        let mut hasher = DefaultHasher::new();
        for ((pattern, channel), interval) in &self.items {
            (pattern.to_string(), *channel as u8, interval.index()).hash(&mut hasher);
        }
        self.interest = hasher.finish();
    }

    /// A new instrument, that the client's patterns may cover.
    pub fn instrument(&mut self, id: u32, symbol: &str) {
        for channel in Channel::ALL {
            self.seen.awaited += u64::from(self.items.contains_key(&(Pattern::Exact(symbol.to_owned()), channel)));
            if self.interval(symbol, channel).is_some() {
                self.tracks.insert((id, channel), Track { snapshot: true, ..Track::default() });
            }
        }
    }

    /// A token of this stream, older than its last, or false.
    pub fn any_token(&self, dice: &mut Dice) -> Resume {
        let position = match dice.below(4) {
            0 => return false_token(dice, self.position),
            1 => u64::from(dice.below(self.position.min(1 << 30) as u32 + 1)),
            _ => self.position,
        };
        Resume { epoch: 1, position, had: None }
    }

    /// What the client had of all that it wanted.
    pub fn had(&self) -> Option<Rc<HashMap<(u32, Channel), Had>>> {
        let had = |track: &Track| Had { last: track.last, book: track.book.clone(), interval: track.interval };
        Some(Rc::new(self.tracks.iter().map(|(key, track)| (*key, had(track))).collect()))
    }

    /// All that was wanted, by interval and channel, with the last token.
    pub fn to_resume(&self) -> Vec<(Wish, Resume)> {
        let resume = Resume { epoch: 1, position: self.position, had: self.had() };
        let mut wishes: BTreeMap<(usize, usize), Wish> = BTreeMap::new();
        for ((pattern, channel), interval) in &self.items {
            let wish = wishes.entry((interval.index(), *channel as usize)).or_insert_with(|| Wish {
                channels: [*channel].into_iter().collect(),
                symbols: Vec::new(),
                interval: *interval,
            });
            wish.symbols.push(pattern.to_string());
        }
        wishes.into_values().map(|wish| (wish, resume.clone())).collect()
    }

    pub fn text(&mut self, text: &str, truth: &Truth) {
        match Reply::parse(text).expect("the server's JSON") {
            Reply::Welcome { epoch, .. } => {
                assert!(epoch == 1 && !self.welcomed, "one welcome");
                self.welcomed = true;
            }
            Reply::Subscribed { id, unknown, conflate_ms, .. } => {
                let Some(Ask::Subscribe { channels, symbols, interval, snapshot, resume: None }) =
                    self.asked.remove(&id)
                else {
                    panic!("an answer to no subscription: {text}")
                };
                assert_eq!(conflate_ms, interval.interval_ms());
                self.subscribed(channels, &symbols, interval, snapshot, &unknown, truth);
            }
            Reply::Resumed { id, how, from, conflate_ms, unknown, .. } => {
                self.resumed(id, &how, (from.get(), conflate_ms), &unknown, truth);
            }
            Reply::Unsubscribed { id, .. } => {
                let Some(Ask::Unsubscribe { channels, symbols }) = self.asked.remove(&id) else {
                    panic!("an answer to no unsubscription: {text}")
                };
                self.unsubscribed(channels, &symbols, truth.history);
            }
            Reply::Pong { id, .. } => assert!(matches!(self.asked.remove(&id), Some(Ask::Ping)), "{text}"),
            Reply::Error { id: Some(id), .. } => {
                assert!(matches!(self.asked.remove(&id), Some(Ask::Bad)), "a good request was refused: {text}");
            }
            Reply::Error { id: None, .. } => {
                assert!(self.nonsense > 0, "an error that nobody made: {text}");
                self.nonsense -= 1;
            }
            Reply::Closing { .. } => {}
            other => panic!("an answer that nobody asked for: {other:?}"),
        }
    }

    /// The answer to a resume; or a second one, where the history ran out as it was sent.
    fn resumed(&mut self, id: u64, how: &str, (from, conflate_ms): (u64, u32), unknown: &[String], truth: &Truth) {
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
            panic!("an answer to no resume: {id}")
        };
        assert_eq!(conflate_ms, interval.interval_ms());
        let new = self.subscribed(channels, &symbols, interval, how == "snapshot", unknown, truth);
        // Its end is told also where nothing is in it.
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
        unknown: &[String],
        truth: &Truth,
    ) -> Vec<(u32, Channel)> {
        let mut new = Vec::new();
        if self.items.is_empty() {
            // Nobody told the client of the feed meanwhile; if it is not live, that is told again.
            self.states.remove(&0);
        }
        let holds = |symbol: &&Pattern| self.waits_for_names || !unknown.contains(&symbol.to_string());
        for symbol in symbols.iter().filter(holds) {
            for channel in channels.iter() {
                let old = self.items.insert((symbol.clone(), channel), interval);
                for instrument in truth.history.instruments.iter().filter(|i| symbol.matches(&i.symbol)) {
                    let upper = truth.shard.sequence(instrument.id, channel).get();
                    let track = self.tracks.entry((instrument.id, channel)).or_insert_with(|| {
                        new.push((instrument.id, channel));
                        Track { upper, ..Track::default() }
                    });
                    track.snapshot |= snapshot && old.is_none();
                }
                self.awaits_caught_up |= snapshot && old.is_none();
                self.seen.profile_changes += u64::from(old.is_some_and(|old| old != interval));
            }
        }
        self.note_interest();
        new
    }

    /// The server has promised all that came after the token's position.
    fn promise_replay(&mut self, new: &[(u32, Channel)], resume: &Resume, truth: &Truth) {
        assert!(resume.epoch == 1 && resume.position <= truth.history.position, "a false token is replayed");
        self.seen.replays += 1;
        for key in new {
            let until = truth.history.count_until(key.0, key.1, resume.position);
            let symbol = &truth.history.instruments[key.0 as usize - 1].symbol;
            let interval = self.interval(symbol, key.1);
            let had = resume.had.as_ref().and_then(|had| had.get(key));
            let track = self.tracks.get_mut(key).expect("just made");
            track.snapshot = false;
            if key.1.is_log() {
                (track.last, track.resumed) = (Some(until), Some(until));
            } else {
                // A merged value may have waited for its tick when the token was given; the interval that is asked for
                // is taken for the one that the stream had.
                let same = had.filter(|had| had.interval == interval);
                track.resumed = Some(same.and_then(|had| had.last).unwrap_or(until).min(until));
                track.book = had.filter(|had| had.last == Some(until)).and_then(|had| had.book.clone());
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
        // A snapshot that was taken back before it came is not owed: what is left may not have asked for one.
        let is_withdrawn = |id: u32, channel: Channel| {
            let symbol = &history.instruments[id as usize - 1].symbol;
            channels.contains(channel) && symbols.iter().any(|pattern| pattern.matches(symbol))
        };
        for ((id, channel), track) in &mut tracks {
            track.snapshot &= track.last.is_some() || !is_withdrawn(*id, *channel);
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
        // A replay goes back to its token, and ends where the client is.
        let goes_back = has(packet::flags::REPLAY) && !has(packet::flags::CAUGHT_UP);
        let floor = if goes_back { self.replayed } else { self.reached };
        assert!(header.position.get() >= floor, "position {} after {floor}", header.position);
        self.position = header.position.get();
        if goes_back {
            self.replayed = header.position.get();
        } else {
            (self.replayed, self.reached) = (0, header.position.get());
        }
        self.seen.snapshot_pieces += u64::from(has(packet::flags::SNAPSHOT));
        assert!(!has(packet::flags::REPLAY) || self.replaying.is_some(), "a replay that was not promised");
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

    /// A packet's position is a token: of the log channels nothing up to there is missing.
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
                assert_eq!(instrument, truth.history.instruments[header.instrument as usize - 1]);
                self.defined.insert(header.instrument);
                // What is not live says so behind its definition.
                self.states.remove(&header.instrument);
            }
            RecordKind::Heartbeat => self.seen.heartbeats += 1,
            RecordKind::Status => {
                self.seen.statuses += 1;
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
            GapReason::Slow => assert!(overrun || self.was_cut, "nobody was slow: {gap:?}"),
            other => panic!("reason {other:?}: {gap:?}"),
        }
        let track = self.tracks.get_mut(&(gap.instrument, gap.channel));
        let track = track.unwrap_or_else(|| panic!("nobody asked for {gap:?}"));
        match track.last {
            // Told with a snapshot's trade, as often as that is asked for.
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
        let interval = interval.unwrap_or_else(|| panic!("nobody asked for {channel:?} of {symbol}"));
        let snapshot = header.flags & flags::SNAPSHOT != 0;
        let conflated = header.flags & flags::CONFLATED != 0;
        let values = truth.history.of(id, channel);
        let about = || {
            format!(
                "{channel:?} {sequence} of {symbol}, flags {:#x}, packet {:#x} at {}",
                header.flags, packet.flags, packet.position
            )
        };
        assert!((1..=values.len() as u64).contains(&sequence), "never was: {}", about());
        let value = &values[sequence as usize - 1];
        // A replay is of what was asked for; the quote may be live, or wait for its snapshot.
        if channel == Channel::Trade && !snapshot && packet.flags & packet::flags::REPLAY == 0 {
            self.quote_came_first(id, value.position, truth);
        }
        let track = &self.tracks[&(id, channel)];
        match track.last {
            // The last that there is, though some after it may be known to be lost, to the feed or to an overrun.
            Some(last) if snapshot && channel.is_log() => {
                let overrun =
                    |value: &Value| truth.overruns.iter().any(|(from, to)| (*from..=*to).contains(&value.position));
                let lost = values.get(sequence as usize..last as usize);
                let all_lost = lost.is_some_and(|lost| lost.iter().all(|value| value.is_lost() || overrun(value)));
                assert!(all_lost, "{} after {last}", about());
            }
            Some(last) if snapshot => assert!(sequence >= last, "{} after {last}", about()),
            Some(last) if channel.is_log() || !conflated => assert_eq!(sequence, last + 1, "{}", about()),
            // What waited for a tick as the client resumed may come twice: a repetition, which it can tell by the sequence.
            Some(last) if track.resumed.is_some() && self.was_out(packet) => assert!(sequence >= last, "{}", about()),
            Some(last) => assert!(sequence > last, "{} after {last}", about()),
            None if channel.is_log() && !snapshot => assert!(sequence <= track.upper + 1, "{} {track:?}", about()),
            None => {}
        }
        if conflated {
            assert!(!channel.is_log(), "{}", about());
            let excused =
                interval != ConflationInterval::IMMEDIATE || self.was_out(packet) || !truth.overruns.is_empty();
            assert!(excused, "merged for a member that wants everything: {}", about());
            self.seen.conflated += 1;
        }
        if interval != ConflationInterval::IMMEDIATE && !channel.is_log() && !snapshot {
            self.keeps_interval(id, channel, interval, packet, truth, &about);
        }
        let track = self.tracks.get_mut(&(id, channel)).expect("who asked has a track");
        track.interval = Some(interval);
        track.last = if channel.is_log() { track.last.max(Some(sequence)) } else { Some(sequence) };
        check_bytes(track, header, bytes, (interval, self.sides_apart), value, &about);
    }

    /// True if a packet was not one of its audience.
    fn was_out(&self, packet: &PacketHeader) -> bool {
        self.disturbed_ns.binary_search(&packet.ts_send).is_ok()
    }

    /// At most one value in an interval, but for what is owed to a client that was out in it; and it comes at its tick.
    fn keeps_interval(
        &mut self,
        id: u32,
        channel: Channel,
        interval: ConflationInterval,
        packet: &PacketHeader,
        truth: &Truth,
        about: &dyn Fn() -> String,
    ) {
        let period = packet.ts_send / interval.interval_ns();
        let before = self.disturbed_ns.partition_point(|at_ns| *at_ns <= packet.ts_send);
        let out = self.disturbed_ns[..before].last().is_some_and(|at_ns| at_ns / interval.interval_ns() == period);
        let early = channel == Channel::Quote && self.tracks.contains_key(&(id, Channel::Trade));
        let track = self.tracks.get_mut(&(id, channel)).expect("who asked has a track");
        self.seen.calm_values += u64::from(!out);
        let next = track.last.and_then(|last| truth.history.of(id, channel).get(last as usize));
        if let (Some(next), Some([before_ns, now_ns]), false) = (next, truth.ticks_ns, out)
            && packet.ts_send == now_ns
            // Of two turns at one time it cannot be told which has sent it.
            && before_ns < now_ns
        {
            // The oldest that it stands for could have been sent by then, had its tick passed.
            let ticks = interval.interval_ns();
            assert!(before_ns / ticks <= next.received_ns() / ticks, "a tick was missed: {}", about());
            self.seen.prompt_values += 1;
        }
        assert!(early || out || track.period != period, "two in one interval: {}", about());
        track.period = period;
    }

    /// The trade-safe rule: a quote from before the trade was sent before it.
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

    /// At rest, everything that was asked for is there.
    pub fn is_whole(&self, history: &History) {
        assert!(!self.awaits_caught_up, "a snapshot that never ended");
        assert!(self.replaying.is_none(), "a replay that never ended");
        let told = |id: u32| self.states.get(&id).copied().unwrap_or(FeedState::Live);
        if !self.items.is_empty() {
            assert_eq!(told(0), history.state(0), "the state of the feed at rest");
        }
        for ((id, channel), track) in &self.tracks {
            assert_eq!(told(*id), history.state(*id), "the state of {id} at rest, {channel:?} {track:?}");
            let newest = history.newest(*id, *channel);
            let resumed = track.resumed.is_some_and(|had| newest > had);
            let is_kept = *channel != Channel::Raw && !history.of(*id, *channel).iter().all(Value::is_lost);
            let expected = newest > track.upper || resumed || (track.snapshot && is_kept);
            if expected || (track.last.is_some() && *channel != Channel::Raw) {
                assert_eq!(track.last, Some(newest), "{channel:?} of {id} at rest: {track:?}");
            }
            if *channel == Channel::Book && expected && track.snapshot {
                let book = history.of(*id, *channel).last().and_then(|value| value.book.as_deref());
                assert_eq!(track.book.as_ref(), book, "the book of {id} at rest");
            }
        }
    }

    /// True if no answer is owed.
    pub fn is_answered(&self) -> bool {
        self.asked.is_empty() && self.nonsense == 0
    }

    /// True if something is wanted at an interval.
    pub fn merges(&self) -> bool {
        self.items
            .iter()
            .any(|((_, channel), interval)| *interval != ConflationInterval::IMMEDIATE && !channel.is_log())
    }

    pub fn items(&self) -> usize {
        self.items.len()
    }
}
