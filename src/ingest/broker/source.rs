//! A link and a decoder as a source.
//!
//! Marks count the messages of a link. A batch whose mark does not come back was refused in part: redelivery would not
//! help, so its messages are acknowledged with the next call. What is kept between two links is the [`Memory`]: the
//! decoder with its instruments, and the positions of what was taken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::link::{Connect, Entry, Link, Positions};
use crate::ingest::codec::{CodecSettings, Decoder, Payload};
use crate::ingest::source::{
    Batch, Mark, Next, Opener, Report, SOURCE_BATCH_BYTES_MAX, Source, SourceError, SourceGap, Stream, Times,
};
use crate::ingest::stop::Stop;

/// Opens a broker's link, and keeps the memory between two of them.
#[derive(Debug)]
pub struct BrokerOpener<C> {
    /// The argument.
    name: String,
    settings: CodecSettings,
    connect: C,
    /// `None` before the first link, and while there is one.
    memory: Arc<Kept>,
}

#[derive(Default)]
struct Kept(Mutex<Option<Memory>>);

impl std::fmt::Debug for Kept {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Kept")
    }
}

/// What outlives a link.
struct Memory {
    decoder: Decoder,
    positions: Positions,
    /// How many links there were.
    links: u64,
}

impl<C: Connect> BrokerOpener<C> {
    /// `name` is the argument, which has no secrets.
    pub fn new(name: String, settings: CodecSettings, connect: C) -> Self {
        Self { name, settings, connect, memory: Arc::default() }
    }

    fn link(&self, memory: &mut Memory, stop: &Stop) -> Result<Box<dyn Link>, SourceError> {
        self.connect.connect(&mut memory.positions, stop).map_err(|error| match error {
            // It worked with the same configuration before: passwords, certificates and topics are changed elsewhere.
            SourceError::Fatal { reason, cure } if memory.links > 0 => SourceError::retry(format!("{reason}: {cure}")),
            error => error,
        })
    }
}

impl<C: Connect> Opener for BrokerOpener<C> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn check(&self) -> Result<(), String> {
        self.connect.check()
    }

    fn open(&self, stop: &Stop) -> Result<Box<dyn Source>, SourceError> {
        let kept = self.memory.take();
        let mut memory = kept.unwrap_or_else(|| Memory {
            decoder: Decoder::new(&self.name, &self.settings),
            positions: Positions::default(),
            links: 0,
        });
        match self.link(&mut memory, stop) {
            Ok(link) => {
                let loss = if memory.links > 0 && !link.is_durable() { Some(1) } else { None };
                let is_announced = memory.links == 0;
                memory.links += 1;
                let source = BrokerSource {
                    link,
                    memory: Some(memory),
                    kept: Arc::clone(&self.memory),
                    name: self.name.clone(),
                    inbox: VecDeque::new(),
                    is_announced,
                    loss,
                    taken: 0,
                    lost: 0,
                    given: 0,
                    settled: 0,
                    report: Report::default(),
                };
                Ok(Box::new(source))
            }
            Err(error) => {
                self.memory.put(memory);
                Err(error)
            }
        }
    }
}

impl Kept {
    fn take(&self) -> Option<Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, memory: Memory) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
    }
}

/// A running broker.
struct BrokerSource {
    link: Box<dyn Link>,
    /// Always there until the source is dropped.
    memory: Option<Memory>,
    kept: Arc<Kept>,
    name: String,
    inbox: VecDeque<Entry>,
    /// The instruments of the former link are defined again.
    is_announced: bool,
    /// Messages were lost, and the Gap is not reported yet.
    loss: Option<u64>,
    /// Messages taken out of the inbox.
    taken: u64,
    /// Messages lost.
    lost: u64,
    /// The mark of the last batch.
    given: u64,
    /// Messages acknowledged.
    settled: u64,
    report: Report,
}

impl Source for BrokerSource {
    fn receive(&mut self, times: Times, batch: &mut Batch) -> Result<Next, SourceError> {
        self.settle_given()?;
        if !std::mem::replace(&mut self.is_announced, true)
            && let Some(memory) = &mut self.memory
        {
            memory.decoder.announce_again(&mut batch.records);
        }
        if let Some(count) = self.loss.take() {
            return Err(self.gap(count));
        }
        if !batch.records.is_empty() {
            return Ok(Next::Now);
        }
        if self.inbox.is_empty() {
            self.link.receive(times.deadline_ns, &mut self.inbox)?;
        }
        self.decode(times.now_ns, batch);
        if self.taken > self.given {
            self.given = self.taken;
            batch.mark = Some(Mark(self.taken));
        }
        match self.loss.take() {
            Some(count) => Err(self.gap(count)),
            None if self.link.is_durable() => Ok(Next::Paced),
            None => Ok(Next::Now),
        }
    }

    fn accepted(&mut self, Mark(number): Mark) {
        // An error shows again with the next call of the link.
        if self.link.settle(number).is_ok() {
            self.settled = number;
        }
    }

    fn streams(&self) -> Vec<Stream> {
        self.link.streams()
    }

    fn report(&self) -> Report {
        self.report
    }

    fn lag(&self) -> Option<u64> {
        let waiting = self.inbox.iter().filter(|entry| matches!(entry, Entry::Message(_))).count() as u64;
        self.link.lag().map(|lag| lag + waiting)
    }
}

impl BrokerSource {
    /// Acknowledges a batch that was refused in part, which is logged and counted.
    fn settle_given(&mut self) -> Result<(), SourceError> {
        if self.settled < self.given {
            self.link.settle(self.given)?;
            self.settled = self.given;
        }
        Ok(())
    }

    /// Decodes up to a batch, or to a loss.
    fn decode(&mut self, now_ns: u64, batch: &mut Batch) {
        let Self { inbox, memory, report, .. } = self;
        let Some(Memory { decoder, positions, .. }) = memory else { return };
        while batch.records.len() < SOURCE_BATCH_BYTES_MAX {
            match inbox.pop_front() {
                None => break,
                Some(Entry::Lost { count }) => {
                    self.loss = Some(count);
                    break;
                }
                Some(Entry::Message(message)) => {
                    self.taken += 1;
                    if message.position.is_some_and(|(stream, position)| !positions.advance(&stream, position)) {
                        report.duplicates += 1;
                        continue;
                    }
                    let key = message.key.as_deref();
                    let payload = Payload { address: &message.address, key, bytes: &message.payload };
                    decoder.decode(&payload, now_ns, &mut batch.records);
                }
            }
        }
        *report = report.plus(&decoder.take_report());
    }

    /// The error for this many lost messages. Numbers count messages since the link was opened.
    fn gap(&mut self, count: u64) -> SourceError {
        let from = self.taken + self.lost + 1;
        self.lost += count;
        let to = self.taken + self.lost;
        SourceError::Gap(SourceGap { stream: self.name.clone(), from, to, instruments: Vec::new() })
    }
}

impl Drop for BrokerSource {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.kept.put(memory);
        }
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
