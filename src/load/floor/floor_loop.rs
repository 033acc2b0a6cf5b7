//! The bare loop: accept, answer the upgrade, and send each flush to every subscriber with one send.
//!
//! What always holds: a frame is never torn. What a socket did not take is in the [`Backlog`], and is sent in one send
//! when the socket is writable. Messages that are dropped at the backlog's limit are counted: a floor that dropped
//! messages is no floor. Subscribers are not read, so that a failing send is what shows that one has gone.

use std::collections::HashMap;
use std::io;

use foldhash::fast::FixedState;
use rustix::io::Errno;

use super::backlog::Backlog;
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
    backlog: Backlog,
    /// Answers to upgrades.
    answers: Vec<(u32, Vec<u8>)>,
    /// Slots that are behind and whose sockets have room.
    writable: Vec<u32>,
    tally: FloorTally,
}

impl<K: Sockets> FloorLoop<K> {
    /// A loop that keeps at most `backlog_bytes_max` for subscribers that are behind.
    pub(super) fn new(sockets: K, connections_max: u32, each: bool, backlog_bytes_max: usize) -> Self {
        let slots = connections_max as usize;
        Self {
            sockets,
            each,
            batch: FlushBatch::new(each),
            subscribers: Vec::with_capacity(slots),
            subscriber_of: vec![NONE; slots],
            is_publisher: vec![false; slots],
            backlog: Backlog::new(backlog_bytes_max),
            answers: Vec::new(),
            writable: Vec::new(),
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
            self.end_flush();
            for event in events.drain(..) {
                match event {
                    SocketEvent::Accepted { slot } => self.sockets.read(slot, ReadBuffer::new(HEAD_BYTES)),
                    SocketEvent::Read { slot, buffer, result } => self.on_input(slot, buffer, result),
                    SocketEvent::Writable { slot } => self.writable.push(slot),
                    SocketEvent::ShortSend { .. } => {}
                    SocketEvent::Stop => return Ok(self.tally),
                }
            }
            self.batch.group();
            self.send_answers(&mut events)?;
            self.send_backlog(&mut events)?;
        }
    }

    /// Sends the gathered messages, and waits for the next event.
    #[inline]
    fn flush(&mut self) {
        if self.batch.messages == 0 {
            return self.sockets.send_and_wait(std::iter::empty());
        }
        self.tally.flushes += 1;
        if self.each {
            return self.flush_each();
        }
        let reached = self.subscribers.iter().filter(|slot| **slot < BEHIND);
        self.sockets.send_and_wait(reached.map(|slot| (*slot, self.batch.bytes.as_slice())));
    }

    fn flush_each(&mut self) {
        let (batch, subscribers) = (&self.batch, &self.subscribers);
        let slot_of = |subscriber: u32| subscribers.get(subscriber as usize).copied().unwrap_or(GONE);
        for frames in &batch.frames {
            let is_sent = match slot_of(frames.subscriber) {
                GONE => false,
                slot if slot < BEHIND => true,
                slot => self.backlog.keep_own(slot & !BEHIND, &batch.bytes[frames.start..frames.end]),
            };
            *(if is_sent { &mut self.tally.sent } else { &mut self.tally.dropped }) += frames.messages;
        }
        let reached = batch.frames.iter().filter(|frames| slot_of(frames.subscriber) < BEHIND);
        self.sockets
            .send_and_wait(reached.map(|frames| (slot_of(frames.subscriber), &batch.bytes[frames.start..frames.end])));
    }

    /// The flush has been sent: keeps it for those that are behind, and begins the next.
    fn end_flush(&mut self) {
        let messages = self.batch.messages;
        if messages > 0 && !self.each {
            let missing = self.backlog.missing_count();
            let dropped = missing * messages + self.backlog.end_flush(&self.batch.bytes, messages);
            self.tally.dropped += dropped;
            self.tally.sent += messages * self.tally.subscribers;
            // Those that the backlog has dropped just now were counted as sent when they were flushed.
            self.tally.sent -= dropped;
        }
        self.batch.clear();
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
        let sent = match result {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(_) => {
                let (_, messages) = self.bytes_for(subscriber);
                self.tally.sent -= if self.each { messages } else { 0 };
                self.tally.dropped += messages;
                return self.close(slot);
            }
        };
        if self.each {
            let rest = self.bytes_for(subscriber).0[sent..].to_vec();
            if !self.backlog.keep_own(slot, &rest) {
                // Its frame is cut, and the rest cannot be kept.
                return self.close(slot);
            }
        } else {
            self.backlog.cut_flush(slot, sent);
        }
        self.set_behind(slot);
    }

    fn send_answers(&mut self, events: &mut Vec<SocketEvent>) -> io::Result<()> {
        if self.answers.is_empty() {
            return Ok(());
        }
        let answers = std::mem::take(&mut self.answers);
        self.sockets.send(answers.iter().map(|(slot, bytes)| (*slot, bytes.as_slice())));
        self.sockets.take_events(events)?;
        for (slot, result) in take_short_sends(events) {
            let sent = result.unwrap_or(0);
            let answer = answers.iter().find(|(answered, _)| *answered == slot);
            match answer.map(|(_, bytes)| &bytes[sent..]) {
                Some(rest) if self.subscriber_of[slot as usize] != NONE && self.backlog.keep_own(slot, rest) => {
                    self.set_behind(slot);
                }
                _ => self.close(slot),
            }
        }
        Ok(())
    }

    /// Sends those that are behind, and whose sockets have room, what they miss. A subscriber that has taken it all is
    /// in the next flush again.
    fn send_backlog(&mut self, events: &mut Vec<SocketEvent>) -> io::Result<()> {
        let mut slots = std::mem::take(&mut self.writable);
        // The others have gone meanwhile.
        slots.retain(|slot| self.backlog.bytes(*slot).is_some());
        if slots.is_empty() {
            return Ok(());
        }
        let bytes_of = |slot: u32| self.backlog.bytes(slot).unwrap_or_default();
        self.sockets.send(slots.iter().map(|slot| (*slot, bytes_of(*slot))));
        self.sockets.take_events(events)?;
        let short: HashMap<_, _, FixedState> = take_short_sends(events).collect();
        for slot in slots {
            let sent = match short.get(&slot) {
                None => self.backlog.bytes(slot).map_or(0, <[u8]>::len),
                Some(Ok(sent)) => *sent,
                Some(Err(Errno::AGAIN)) => 0,
                Some(Err(_)) => {
                    self.close(slot);
                    continue;
                }
            };
            if self.backlog.advance(slot, sent) {
                self.set_caught_up(slot);
            } else {
                self.sockets.notify_writable(slot);
            }
        }
        Ok(())
    }

    fn set_caught_up(&mut self, slot: u32) {
        let subscriber = self.subscriber_of[slot as usize];
        if subscriber != NONE {
            self.subscribers[subscriber as usize] = slot;
        }
    }

    /// Flushes skip this subscriber until it has taken what is in the backlog.
    fn set_behind(&mut self, slot: u32) {
        self.subscribers[self.subscriber_of[slot as usize] as usize] |= BEHIND;
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
            self.backlog.remove(slot);
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
                self.answers.push((slot, answer.into_bytes()));
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

/// Removes the short sends from the events.
fn take_short_sends(events: &mut Vec<SocketEvent>) -> impl Iterator<Item = (u32, Result<usize, Errno>)> {
    let is_short = |event: &mut SocketEvent| matches!(event, SocketEvent::ShortSend { .. });
    let short: Vec<_> = events.extract_if(.., is_short).collect();
    short.into_iter().filter_map(|event| match event {
        SocketEvent::ShortSend { slot, result } => Some((slot, result)),
        _ => None,
    })
}
