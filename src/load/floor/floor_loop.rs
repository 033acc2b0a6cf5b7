//! The bare loop itself: accept, answer the upgrade, and send what has gathered to everybody, with one send each.
//!
//! Always: a frame is never torn. What a socket did not take of a sweep is finished when it has room, and what comes
//! meanwhile is dropped for this subscriber, and counted: a floor that dropped is no floor. Subscribers are not read, so
//! that one who has left is noticed by the send that fails.

use std::collections::HashMap;
use std::io;

use rustix::io::Errno;

use super::frames::{FlushBatch, PublisherEnd};
use super::request::{self, RequestHead};
use super::sockets::{ReadBuffer, SocketEvent, Sockets};
use super::tally::FloorTally;

/// Room for a request's head; a longer one makes it grow.
const HEAD_BYTES: usize = 1024;
/// The most that a head may have.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Room for what a publisher sends: what one read takes, and so what one sweep gathers at most.
const PUBLISHER_BYTES: usize = 512 * 1024;

/// A member that owes the rest of a sweep has this bit in its entry, so that it is passed over.
const BEHIND: u32 = 1 << 31;
/// The entry of a member that has left.
const GONE: u32 = u32::MAX;
/// No member.
const NOBODY: u32 = u32::MAX;

/// The loop's state.
pub(super) struct FloorLoop<K> {
    sockets: K,
    each: bool,
    sweep: FlushBatch,
    /// Slots of the subscribers, in the order of their upgrades.
    members: Vec<u32>,
    /// Which member has a slot, by slot.
    member_of: Vec<u32>,
    /// By slot: a publisher, whose input is frames.
    publishes: Vec<bool>,
    /// By slot: what is left to send of a sweep.
    tails: HashMap<u32, Vec<u8>, foldhash::fast::FixedState>,
    /// Sends that belong to no sweep.
    apart: Vec<(u32, Vec<u8>)>,
    tally: FloorTally,
}

impl<K: Sockets> FloorLoop<K> {
    pub(super) fn new(sockets: K, connections_max: u32, each: bool) -> Self {
        let slots = connections_max as usize;
        Self {
            sockets,
            each,
            sweep: FlushBatch::new(each),
            members: Vec::with_capacity(slots),
            member_of: vec![NOBODY; slots],
            publishes: vec![false; slots],
            tails: HashMap::default(),
            apart: Vec::new(),
            tally: FloorTally::default(),
        }
    }

    /// Runs until what is watched speaks up.
    pub(super) fn run(mut self) -> io::Result<FloorTally> {
        let mut events = Vec::new();
        loop {
            self.send_sweep();
            self.sockets.take_events(&mut events)?;
            // What was cut short is part of the sweep that still stands in its buffer.
            for event in &events {
                if let SocketEvent::ShortSend { slot, result } = *event {
                    self.cut_short(slot, result);
                }
            }
            self.sweep.clear();
            for event in events.drain(..) {
                match event {
                    SocketEvent::Accepted { slot } => self.sockets.read(slot, ReadBuffer::new(HEAD_BYTES)),
                    SocketEvent::Read { slot, buffer, result } => self.take_input(slot, buffer, result),
                    SocketEvent::Writable { slot } => {
                        self.apart.extend(self.tails.remove(&slot).map(|tail| (slot, tail)))
                    }
                    SocketEvent::ShortSend { .. } => {}
                    SocketEvent::Stop => return Ok(self.tally),
                }
            }
            self.sweep.settle();
            self.send_apart(&mut events)?;
        }
    }

    /// Sends what has gathered, and waits for more.
    #[inline]
    fn send_sweep(&mut self) {
        let (sweep, members) = (&self.sweep, &self.members);
        if sweep.messages == 0 {
            return self.sockets.send_and_wait(std::iter::empty());
        }
        self.tally.flushes += 1;
        if self.each {
            let to = |member: u32| members.get(member as usize).copied().unwrap_or(GONE);
            let reached = sweep.shares.iter().filter(|share| to(share.member) < BEHIND);
            let sent: u64 = reached.clone().map(|share| share.messages).sum();
            self.tally.sent += sent;
            self.tally.dropped += sweep.messages - sent;
            self.sockets.send_and_wait(reached.map(|share| (to(share.member), &sweep.bytes[share.start..share.end])));
        } else {
            let behind = self.tails.len() as u64;
            self.tally.sent += sweep.messages * (self.tally.subscribers - behind);
            self.tally.dropped += sweep.messages * behind;
            let reached = members.iter().filter(|slot| **slot < BEHIND);
            self.sockets.send_and_wait(reached.map(|slot| (*slot, sweep.bytes.as_slice())));
        }
    }

    /// What a subscriber gets of the sweep, and how many messages that is.
    fn part(&self, member: u32) -> (&[u8], u64) {
        if !self.each {
            return (&self.sweep.bytes, self.sweep.messages);
        }
        let share = self.sweep.shares.iter().find(|share| share.member == member);
        share.map_or((&[], 0), |share| (&self.sweep.bytes[share.start..share.end], share.messages))
    }

    fn cut_short(&mut self, slot: u32, result: Result<usize, Errno>) {
        let member = self.member_of[slot as usize];
        if member == NOBODY {
            return;
        }
        let (bytes, messages) = self.part(member);
        match result {
            Ok(took) => {
                let rest = bytes[took..].to_vec();
                self.owe(slot, rest);
            }
            Err(error) => {
                self.tally.sent -= messages;
                self.tally.dropped += messages;
                if error != Errno::AGAIN {
                    self.end(slot);
                }
            }
        }
    }

    /// Sends what belongs to no sweep: answers to upgrades, and the rests of former sweeps. Who has got all of it is
    /// passed over no longer.
    fn send_apart(&mut self, events: &mut Vec<SocketEvent>) -> io::Result<()> {
        if self.apart.is_empty() {
            return Ok(());
        }
        let apart = std::mem::take(&mut self.apart);
        self.sockets.send(apart.iter().map(|(slot, bytes)| (*slot, bytes.as_slice())));
        self.sockets.take_events(events)?;
        for (slot, bytes) in apart {
            let short = |event: &SocketEvent| match *event {
                SocketEvent::ShortSend { slot: short, result } if short == slot => Some(result),
                _ => None,
            };
            match events.iter().find_map(short) {
                None => self.caught_up(slot),
                Some(Ok(took)) => self.owe(slot, bytes[took..].to_vec()),
                Some(Err(Errno::AGAIN)) => self.owe(slot, bytes),
                Some(Err(_)) => self.end(slot),
            }
        }
        events.retain(|event| !matches!(event, SocketEvent::ShortSend { .. }));
        Ok(())
    }

    fn caught_up(&mut self, slot: u32) {
        let member = self.member_of[slot as usize];
        if member != NOBODY {
            self.members[member as usize] = slot;
        }
    }

    /// Passes a subscriber over until it has got these bytes.
    fn owe(&mut self, slot: u32, bytes: Vec<u8>) {
        let member = self.member_of[slot as usize];
        if member == NOBODY {
            return self.end(slot);
        }
        self.members[member as usize] |= BEHIND;
        self.tails.insert(slot, bytes);
        self.sockets.notify_writable(slot);
    }

    /// Gives an upgraded connection its place.
    fn seat(&mut self, slot: u32) {
        self.member_of[slot as usize] = self.members.len() as u32;
        self.members.push(slot);
        self.tally.subscribers += 1;
        self.sockets.stop_reading(slot);
    }

    /// Closes a connection, whatever it is.
    fn end(&mut self, slot: u32) {
        let member = std::mem::replace(&mut self.member_of[slot as usize], NOBODY);
        if member != NOBODY {
            self.members[member as usize] = GONE;
            self.tails.remove(&slot);
            self.tally.subscribers -= 1;
        }
        self.publishes[slot as usize] = false;
        self.sockets.close(slot);
    }

    fn take_input(&mut self, slot: u32, mut input: ReadBuffer, result: Result<usize, Errno>) {
        if !matches!(result, Ok(1..)) {
            return self.end(slot);
        }
        if self.publishes[slot as usize] {
            return self.take_frames(slot, input);
        }
        match request::read(input.bytes()) {
            RequestHead::Upgrade { consumed, publisher, answer } => {
                self.apart.push((slot, answer.into_bytes()));
                if !publisher {
                    return self.seat(slot);
                }
                self.publishes[slot as usize] = true;
                let mut frames = ReadBuffer::new(PUBLISHER_BYTES);
                let rest = &input.bytes()[consumed..];
                frames.room()[..rest.len()].copy_from_slice(rest);
                frames.fill(rest.len());
                self.take_frames(slot, frames);
            }
            RequestHead::Partial if input.bytes().len() < HEAD_BYTES_MAX => {
                input.consume(0);
                self.sockets.read(slot, input);
            }
            RequestHead::Partial | RequestHead::Other => self.end(slot),
        }
    }
    fn take_frames(&mut self, slot: u32, mut input: ReadBuffer) {
        match self.sweep.gather(input.bytes()) {
            Ok(consumed) => {
                input.consume(consumed);
                self.sockets.read(slot, input);
            }
            Err(end) => {
                if let PublisherEnd::Fault(fault) = end {
                    eprintln!("tickcast floor: a publisher is sent away: {fault}");
                }
                self.end(slot);
            }
        }
    }
}
