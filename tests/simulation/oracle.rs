//! What must hold on one client's stream, record by record.

use std::collections::{BTreeMap, HashMap, HashSet};

use tickcast::market::record::{self, Gap, Header, flags};
use tickcast::market::{Channel, Kind, LastValues};
use tickcast::wire::control::{ChannelSet, Pattern, Reply};
use tickcast::wire::packet::{self, PacketHeader};
use tickcast::wire::profile::Profile;

use crate::Seen;
use crate::feed::{History, Levels, apply};

/// What the stream is held against.
pub struct Truth<'a> {
    pub history: &'a History,
    /// What the shard knows at this moment.
    pub shard: &'a LastValues,
    /// Places of the node's order between which the shard was overrun.
    pub overruns: &'a [(u64, u64)],
}

/// What a client has asked and not been answered.
pub enum Ask {
    Subscribe { channels: ChannelSet, symbols: Vec<Pattern>, profile: Profile, snapshot: bool },
    Unsubscribe { channels: ChannelSet, symbols: Vec<Pattern> },
    Ping,
    Bad,
}

/// What the client knows of a channel of an instrument.
#[derive(Debug, Default)]
struct Track {
    last: Option<u64>,
    /// The value must be there from the beginning.
    snapshot: bool,
    /// The shard's sequence when the subscription was known to hold.
    upper: u64,
    book: Option<Levels>,
    /// Interval of the last value.
    interval: u64,
}

#[derive(Default)]
pub struct Oracle {
    pub asked: HashMap<u64, Ask>,
    items: BTreeMap<(Pattern, Channel), Profile>,
    tracks: BTreeMap<(u32, Channel), Track>,
    defined: HashSet<u32>,
    position: u64,
    pub welcomed: bool,
    /// When the client was out of its audience, by the server's clock: what it is sent then, and just after, may be more
    /// than the interval allows. Not by what the client reads: that is older, by all that its socket held.
    pub disturbed_ns: Vec<u64>,
    pub packets_at_ns: u64,
    pub seen: Seen,
    /// Bytes of all data records.
    pub data: Vec<u8>,
}

impl Oracle {
    fn profile(&self, symbol: &str, channel: Channel) -> Option<Profile> {
        let exact = self.items.get(&(Pattern::Exact(symbol.to_owned()), channel));
        exact.copied().or_else(|| {
            let covers = |(pattern, of): &&(Pattern, Channel)| *of == channel && pattern.matches(symbol);
            let length = |(pattern, _): &&(Pattern, Channel)| pattern.to_string().len();
            self.items.keys().filter(covers).max_by_key(length).map(|key| self.items[key])
        })
    }

    /// A new instrument, that the client's patterns may cover.
    pub fn instrument(&mut self, id: u32, symbol: &str) {
        for channel in Channel::ALL {
            if self.profile(symbol, channel).is_some() {
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
            Reply::Subscribed { id, unknown, conflate_ms, .. } => {
                let Some(Ask::Subscribe { channels, symbols, profile, snapshot }) = self.asked.remove(&id) else {
                    panic!("an answer to no subscription: {text}")
                };
                assert_eq!(conflate_ms, profile.interval_ms());
                self.subscribed(channels, &symbols, profile, snapshot, &unknown, truth);
            }
            Reply::Resumed { id, how, .. } => {
                let Some(Ask::Subscribe { channels, symbols, profile, snapshot }) = self.asked.remove(&id) else {
                    panic!("an answer to no resume: {text}")
                };
                assert_eq!(how, "snapshot");
                self.subscribed(channels, &symbols, profile, snapshot, &[], truth);
            }
            Reply::Unsubscribed { id, .. } => {
                let Some(Ask::Unsubscribe { channels, symbols }) = self.asked.remove(&id) else {
                    panic!("an answer to no unsubscription: {text}")
                };
                self.unsubscribed(channels, &symbols, truth.history);
            }
            Reply::Pong { id, .. } => assert!(matches!(self.asked.remove(&id), Some(Ask::Ping)), "{text}"),
            Reply::Error { id, .. } => {
                let ask = self.asked.remove(&id.expect("every request has an id"));
                assert!(matches!(ask, Some(Ask::Bad)), "a good request was refused: {text}");
            }
            Reply::Closing { .. } => {}
            other => panic!("an answer that nobody asked for: {other:?}"),
        }
    }

    fn subscribed(
        &mut self,
        channels: ChannelSet,
        symbols: &[Pattern],
        profile: Profile,
        snapshot: bool,
        unknown: &[String],
        truth: &Truth,
    ) {
        for symbol in symbols.iter().filter(|symbol| !unknown.contains(&symbol.to_string())) {
            for channel in channels.iter() {
                let old = self.items.insert((symbol.clone(), channel), profile);
                for instrument in truth.history.instruments.iter().filter(|i| symbol.matches(&i.symbol)) {
                    let upper = truth.shard.sequence(instrument.id, channel);
                    let new = Track { upper, ..Track::default() };
                    let track = self.tracks.entry((instrument.id, channel)).or_insert(new);
                    track.snapshot |= snapshot && old.is_none();
                }
                self.seen.profile_changes += u64::from(old.is_some_and(|old| old != profile));
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
        tracks
            .retain(|(id, channel), _| self.profile(&history.instruments[*id as usize - 1].symbol, *channel).is_some());
        self.tracks = tracks;
    }

    pub fn packet(&mut self, bytes: &[u8], now_ns: u64, truth: &Truth) {
        let header = PacketHeader::read(bytes).expect("a packet");
        self.packets_at_ns = now_ns;
        assert_eq!(header.epoch, 1);
        assert!(header.position >= self.position, "position {} after {}", header.position, self.position);
        assert!(header.position <= truth.history.position);
        self.position = header.position;
        let (mut count, mut length) = (0, packet::HEADER_BYTES);
        self.seen.snapshot_pieces += u64::from(header.flags & packet::flags::SNAPSHOT != 0);
        for (head, record) in record::records(&bytes[packet::HEADER_BYTES..]) {
            self.record(&head, record, &header, truth);
            count += 1;
            length += record.len();
        }
        assert_eq!((count, length), (header.count, bytes.len()), "a packet counts its records");
    }

    fn record(&mut self, header: &Header, bytes: &[u8], packet: &PacketHeader, truth: &Truth) {
        let kind = Kind::from_wire(header.kind).expect("a kind of the protocol");
        match kind {
            Kind::Definition => {
                let instrument = record::read_definition(bytes).expect("a whole definition");
                assert_eq!(instrument, truth.history.instruments[header.instrument as usize - 1]);
                self.defined.insert(header.instrument);
            }
            Kind::Heartbeat => self.seen.heartbeats += 1,
            Kind::Status => self.seen.statuses += 1,
            Kind::Gap => self.gap(&Gap::read(bytes).expect("a whole gap"), truth),
            _ => {
                self.data.extend_from_slice(bytes);
                self.value(header, kind.channel().expect("a channel's record"), bytes, packet, truth);
            }
        }
    }

    fn gap(&mut self, gap: &Gap, truth: &Truth) {
        self.seen.gaps += 1;
        assert!(gap.channel.is_log(), "{gap:?}");
        assert!(self.defined.contains(&gap.instrument), "a gap before its definition: {gap:?}");
        let track = self.tracks.get_mut(&(gap.instrument, gap.channel));
        let track = track.unwrap_or_else(|| panic!("nobody asked for {gap:?}"));
        match track.last {
            Some(last) => assert_eq!(gap.from_sequence, last + 1, "{gap:?}"),
            None => assert!(gap.from_sequence <= track.upper + 1, "{gap:?} {track:?}"),
        }
        assert!(gap.to_sequence >= gap.from_sequence, "{gap:?}");
        assert!(gap.to_sequence <= truth.history.newest(gap.instrument, gap.channel), "{gap:?}");
        track.last = Some(gap.to_sequence);
    }

    fn value(&mut self, header: &Header, channel: Channel, bytes: &[u8], packet: &PacketHeader, truth: &Truth) {
        let (id, sequence) = (header.instrument, header.sequence);
        assert!(self.defined.contains(&id), "{channel:?} of {id} before its definition");
        let symbol = &truth.history.instruments[id as usize - 1].symbol;
        let profile = self.profile(symbol, channel);
        let profile = profile.unwrap_or_else(|| panic!("nobody asked for {channel:?} of {symbol}"));
        let snapshot = header.flags & flags::SNAPSHOT != 0;
        let conflated = header.flags & flags::CONFLATED != 0;
        let value = &truth.history.of(id, channel)[sequence as usize - 1];
        if channel == Channel::Trade && !snapshot {
            self.quote_came_first(id, value.position, truth);
        }
        let with_trades = self.tracks.contains_key(&(id, Channel::Trade));
        let track = self.tracks.get_mut(&(id, channel)).expect("who asked has a track");
        let about = || format!("{channel:?} {sequence} of {symbol}, flags {:#x}", header.flags);
        match track.last {
            Some(last) if snapshot && channel.is_log() => assert_eq!(sequence, last, "{}", about()),
            Some(last) if snapshot => assert!(sequence >= last, "{} after {last}", about()),
            Some(last) if channel.is_log() || !conflated => assert_eq!(sequence, last + 1, "{}", about()),
            Some(last) => assert!(sequence > last, "{} after {last}", about()),
            None if channel.is_log() && !snapshot => assert!(sequence <= track.upper + 1, "{} {track:?}", about()),
            None => {}
        }
        assert!(!(channel.is_log() && conflated), "{}", about());
        self.seen.conflated += u64::from(conflated);
        track.last = Some(sequence);
        if profile != Profile::IMMEDIATE && !channel.is_log() && !snapshot {
            let interval = packet.ts_send / profile.interval_ns();
            let before = self.disturbed_ns.partition_point(|at_ns| *at_ns <= packet.ts_send);
            let calm = before == 0 || packet.ts_send > self.disturbed_ns[before - 1] + 2_000_000_000;
            self.seen.calm_values += u64::from(calm);
            let early = channel == Channel::Quote && with_trades;
            assert!(early || !calm || track.interval != interval, "two in one interval: {}", about());
            track.interval = interval;
        }
        if channel == Channel::Book {
            let whole = record::read_book(bytes).expect("a whole book").0 == b'S';
            if whole {
                track.book = Some(Levels::new());
            }
            if let Some(book) = &mut track.book {
                apply(book, bytes);
                assert_eq!(Some(&*book), value.book.as_deref(), "{}", about());
            }
            if conflated || snapshot {
                assert_eq!(bytes[8..32], value.record[8..32], "{}", about());
                return;
            }
            if bytes.len() != value.record.len() || whole != (value.record[34] == b'S') {
                return;
            }
        }
        if channel != Channel::Book || profile == Profile::IMMEDIATE {
            let mut plain = bytes.to_vec();
            record::patch_flags(&mut plain, header.flags & !(flags::SNAPSHOT | flags::CONFLATED));
            // A whole book that was sent again after an overrun lists its levels in the book's order, not in the feed's.
            let again = channel == Channel::Book && bytes[34] == b'S';
            let same = if again { plain[..40] == value.record[..40] } else { plain == value.record };
            assert!(same, "{}: {plain:?}, not {:?}", about(), value.record);
        }
    }

    /// The trade-safe rule: a quote from before the trade was sent before it.
    fn quote_came_first(&self, id: u32, position: u64, truth: &Truth) {
        let Some(track) = self.tracks.get(&(id, Channel::Quote)) else { return };
        let quotes = truth.history.of(id, Channel::Quote);
        let newest = quotes.partition_point(|quote| quote.position < position);
        let Some(quote) = newest.checked_sub(1).map(|at| &quotes[at]) else { return };
        let lost =
            |(from, to): &(u64, u64)| (*from..=*to).contains(&position) || (*from..=*to).contains(&quote.position);
        if truth.overruns.iter().any(lost) || (!track.snapshot && newest as u64 <= track.upper) {
            return;
        }
        assert!(track.last >= Some(newest as u64), "quote {newest} of {id} is missing before a trade: {track:?}");
    }

    /// At rest, everything that was asked for is there.
    pub fn is_whole(&self, history: &History) {
        for ((id, channel), track) in &self.tracks {
            let newest = history.newest(*id, *channel);
            let expected = newest > track.upper || (track.snapshot && *channel != Channel::Raw && newest > 0);
            if expected || (track.last.is_some() && *channel != Channel::Raw) {
                assert_eq!(track.last, Some(newest), "{channel:?} of {id} at rest: {track:?}");
            }
            if *channel == Channel::Book && expected && track.snapshot {
                let book = history.of(*id, *channel).last().and_then(|value| value.book.as_deref());
                assert_eq!(track.book.as_ref(), book, "the book of {id} at rest");
            }
        }
    }

    pub fn items(&self) -> usize {
        self.items.len()
    }
}
