//! The bare loop: accept, answer the upgrade, and send each flush to every subscriber with one send.
//!
//! What always holds: a frame is never torn. The part of a flush that a socket did not take is sent when the socket is
//! writable; flushes in between are dropped for this subscriber, and counted: a floor that dropped messages is no
//! floor. Subscribers are not read, so that a failing send is what shows that one has gone.

use std::collections::HashMap;
use std::io;

use rustix::io::Errno;

use super::frames::{FlushBatch, PublisherEnd};
use super::request::{self, FloorRequest};
use super::sockets::{ReadBuffer, SocketEvent, Sockets};
use super::tally::FloorTally;

/// Room for a request's head; it grows for a longer one.
const HEAD_BYTES: usize = 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Room for one read of a publisher, and so the most that one flush gathers of it.
const PUBLISHER_BYTES: usize = 512 * 1024;

/// A subscriber that has not taken all of a flush has this bit in its entry, so that flushes skip it.
const BEHIND: u32 = 1 << 31;
/// The entry of a subscriber that has gone.
const GONE: u32 = u32::MAX;
/// No subscriber has this slot.
const NONE: u32 = u32::MAX;

/// The state of the loop.
pub(super) struct FloorLoop<K> {
    sockets: K,
    each: bool,
    batch: FlushBatch,
    /// Slots of the subscribers, in the order of their upgrades.
    subscribers: Vec<u32>,
    /// The index of a slot's subscriber, by slot.
    subscriber_of: Vec<u32>,
    /// By slot: a publisher, whose input is frames.
    is_publisher: Vec<bool>,
    /// By slot: the part of a flush that is still to be sent.
    tails: HashMap<u32, Vec<u8>, foldhash::fast::FixedState>,
    /// Sends outside of flushes: answers to upgrades, and tails.
    extra_sends: Vec<(u32, Vec<u8>)>,
    tally: FloorTally,
}

impl<K: Sockets> FloorLoop<K> {
    pub(super) fn new(sockets: K, connections_max: u32, each: bool) -> Self {
        let slots = connections_max as usize;
        Self {
            sockets,
            each,
            batch: FlushBatch::new(each),
            subscribers: Vec::with_capacity(slots),
            subscriber_of: vec![NONE; slots],
            is_publisher: vec![false; slots],
            tails: HashMap::default(),
            extra_sends: Vec::new(),
            tally: FloorTally::default(),
        }
    }

    /// Runs until [`SocketEvent::Stop`].
    pub(super) fn run(mut self) -> io::Result<FloorTally> {
        let mut events = Vec::new();
        loop {
            self.flush();
            self.sockets.take_events(&mut events)?;
            // Short sends are of the flush that is still in `batch`.
            for event in &events {
                if let SocketEvent::ShortSend { slot, result } = *event {
                    self.on_short_send(slot, result);
                }
            }
            self.batch.clear();
            for event in events.drain(..) {
                match event {
                    SocketEvent::Accepted { slot } => self.sockets.read(slot, ReadBuffer::new(HEAD_BYTES)),
                    SocketEvent::Read { slot, buffer, result } => self.on_input(slot, buffer, result),
                    SocketEvent::Writable { slot } => {
                        self.extra_sends.extend(self.tails.remove(&slot).map(|tail| (slot, tail)));
                    }
                    SocketEvent::ShortSend { .. } => {}
                    SocketEvent::Stop => return Ok(self.tally),
                }
            }
            self.batch.group();
            self.send_extra(&mut events)?;
        }
    }

    /// Sends the gathered messages, and waits for the next event.
    #[inline]
    fn flush(&mut self) {
        let (batch, subscribers) = (&self.batch, &self.subscribers);
        if batch.messages == 0 {
            return self.sockets.send_and_wait(std::iter::empty());
        }
        self.tally.flushes += 1;
        if self.each {
            let slot_of = |subscriber: u32| subscribers.get(subscriber as usize).copied().unwrap_or(GONE);
            let reached = batch.frames.iter().filter(|frames| slot_of(frames.subscriber) < BEHIND);
            let sent: u64 = reached.clone().map(|frames| frames.messages).sum();
            self.tally.sent += sent;
            self.tally.dropped += batch.messages - sent;
            self.sockets.send_and_wait(
                reached.map(|frames| (slot_of(frames.subscriber), &batch.bytes[frames.start..frames.end])),
            );
        } else {
            let behind = self.tails.len() as u64;
            self.tally.sent += batch.messages * (self.tally.subscribers - behind);
            self.tally.dropped += batch.messages * behind;
            let reached = subscribers.iter().filter(|slot| **slot < BEHIND);
            self.sockets.send_and_wait(reached.map(|slot| (*slot, batch.bytes.as_slice())));
        }
    }

    /// The bytes of the flush for one subscriber, and how many messages they are.
    fn bytes_for(&self, subscriber: u32) -> (&[u8], u64) {
        if !self.each {
            return (&self.batch.bytes, self.batch.messages);
        }
        let frames = self.batch.frames.iter().find(|frames| frames.subscriber == subscriber);
        frames.map_or((&[], 0), |frames| (&self.batch.bytes[frames.start..frames.end], frames.messages))
    }

    fn on_short_send(&mut self, slot: u32, result: Result<usize, Errno>) {
        let subscriber = self.subscriber_of[slot as usize];
        if subscriber == NONE {
            return;
        }
        let (bytes, messages) = self.bytes_for(subscriber);
        match result {
            Ok(sent) => {
                let tail = bytes[sent..].to_vec();
                self.set_behind(slot, tail);
            }
            Err(error) => {
                self.tally.sent -= messages;
                self.tally.dropped += messages;
                if error != Errno::AGAIN {
                    self.close(slot);
                }
            }
        }
    }

    /// Sends answers to upgrades, and tails of former flushes. A subscriber that has taken its whole tail is in the
    /// next flush again.
    fn send_extra(&mut self, events: &mut Vec<SocketEvent>) -> io::Result<()> {
        if self.extra_sends.is_empty() {
            return Ok(());
        }
        let sends = std::mem::take(&mut self.extra_sends);
        self.sockets.send(sends.iter().map(|(slot, bytes)| (*slot, bytes.as_slice())));
        self.sockets.take_events(events)?;
        for (slot, bytes) in sends {
            let short = |event: &SocketEvent| match *event {
                SocketEvent::ShortSend { slot: short, result } if short == slot => Some(result),
                _ => None,
            };
            match events.iter().find_map(short) {
                None => self.set_caught_up(slot),
                Some(Ok(sent)) => self.set_behind(slot, bytes[sent..].to_vec()),
                Some(Err(Errno::AGAIN)) => self.set_behind(slot, bytes),
                Some(Err(_)) => self.close(slot),
            }
        }
        events.retain(|event| !matches!(event, SocketEvent::ShortSend { .. }));
        Ok(())
    }

    fn set_caught_up(&mut self, slot: u32) {
        let subscriber = self.subscriber_of[slot as usize];
        if subscriber != NONE {
            self.subscribers[subscriber as usize] = slot;
        }
    }

    /// Flushes skip this subscriber until it has taken these bytes.
    fn set_behind(&mut self, slot: u32, tail: Vec<u8>) {
        let subscriber = self.subscriber_of[slot as usize];
        if subscriber == NONE {
            return self.close(slot);
        }
        self.subscribers[subscriber as usize] |= BEHIND;
        self.tails.insert(slot, tail);
        self.sockets.notify_writable(slot);
    }

    fn add_subscriber(&mut self, slot: u32) {
        self.subscriber_of[slot as usize] = self.subscribers.len() as u32;
        self.subscribers.push(slot);
        self.tally.subscribers += 1;
        self.sockets.stop_reading(slot);
    }

    /// Closes a connection of any kind.
    fn close(&mut self, slot: u32) {
        let subscriber = std::mem::replace(&mut self.subscriber_of[slot as usize], NONE);
        if subscriber != NONE {
            self.subscribers[subscriber as usize] = GONE;
            self.tails.remove(&slot);
            self.tally.subscribers -= 1;
        }
        self.is_publisher[slot as usize] = false;
        self.sockets.close(slot);
    }

    fn on_input(&mut self, slot: u32, mut input: ReadBuffer, result: Result<usize, Errno>) {
        if !matches!(result, Ok(1..)) {
            return self.close(slot);
        }
        if self.is_publisher[slot as usize] {
            return self.on_frames(slot, input);
        }
        match request::read(input.bytes()) {
            FloorRequest::Upgrade { consumed, is_publisher, answer } => {
                self.extra_sends.push((slot, answer.into_bytes()));
                if !is_publisher {
                    return self.add_subscriber(slot);
                }
                self.is_publisher[slot as usize] = true;
                let mut frames = ReadBuffer::new(PUBLISHER_BYTES);
                let rest = &input.bytes()[consumed..];
                frames.room()[..rest.len()].copy_from_slice(rest);
                frames.fill(rest.len());
                self.on_frames(slot, frames);
            }
            FloorRequest::Partial if input.bytes().len() < HEAD_BYTES_MAX => {
                input.consume(0);
                self.sockets.read(slot, input);
            }
            FloorRequest::Partial | FloorRequest::Other => self.close(slot),
        }
    }

    fn on_frames(&mut self, slot: u32, mut input: ReadBuffer) {
        match self.batch.gather(input.bytes()) {
            Ok(consumed) => {
                input.consume(consumed);
                self.sockets.read(slot, input);
            }
            Err(end) => {
                if let PublisherEnd::Fault(fault) = end {
                    eprintln!("tickcast floor: a publisher is closed: {fault}");
                }
                self.close(slot);
            }
        }
    }
}
