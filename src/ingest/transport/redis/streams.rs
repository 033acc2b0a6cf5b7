//! Streams: entries in the order of their ids.
//!
//! A task reads, on a connection of its own, one answer ahead. With a group, it first reads what was delivered to this
//! consumer before and is not acknowledged, then what is new: the order holds. Entries are acknowledged once every ring
//! has them. Without a group the place is kept while the server runs.
//!
//! After each answer the reader asks what the stream has: entries that were trimmed before they were read are a Gap, see
//! [`reach`](super::reach). Every few seconds the last id of each stream is looked at. A stream that was deleted and made
//! anew with lower ids would never bring anything: it is read from its beginning, behind a Gap.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Client, RedisError, Value, cmd, from_redis_value};
use tokio::sync::mpsc;

use super::reach::{Reach, StreamNow};
use super::{CHECK_INTERVAL, StreamsOf, answer, config, failure};
use crate::clock::now_ns;
use crate::ingest::broker::link::{Entry, Link, Message, Position, Positions};
use crate::ingest::source::{SourceError, Stream, StreamState};
use crate::ingest::transport::executor::Executor;

/// Entries of one answer and stream.
const COUNT: usize = 500;
/// How long one read waits for entries.
const BLOCK_MS: u64 = 5_000;

/// An entry as it was read.
struct ReadEntry {
    /// Its stream, by its place in the argument.
    stream: usize,
    id: String,
    /// `None` if it was deleted since it was delivered first.
    fields: Option<HashMap<String, Vec<u8>>>,
    /// Entries between it and the one before were trimmed: so many.
    lost_before: u64,
}

struct Streams {
    executor: Executor,
    commands: MultiplexedConnection,
    reads: mpsc::Receiver<Result<Vec<ReadEntry>, RedisError>>,
    of: StreamsOf,
    keys: Vec<Arc<str>>,
    /// The newest id of each that was read.
    newest: Vec<u128>,
    /// Entries in order that are not acknowledged.
    pending: VecDeque<(usize, String)>,
    settled: u64,
    /// Lost before the link was opened.
    lost: u64,
    lag: Option<u64>,
    checked_ns: u64,
    failure: Option<SourceError>,
}

/// Opens the streams.
pub fn open(
    executor: Executor,
    client: &Client,
    of: &StreamsOf,
    positions: &mut Positions,
) -> Result<Box<dyn Link>, SourceError> {
    let connect = || answer(&executor, "no connection", client.get_multiplexed_async_connection_with_config(&config()));
    let mut commands = connect()?;
    let reader = connect()?;
    let (mut begin, mut reach, mut lost) = (Vec::new(), Vec::new(), 0);
    for key in &of.keys {
        let place = place(&executor, &mut commands, of, key, positions)?;
        begin.push(place.begin);
        reach.push(place.reach);
        lost += u64::from(place.is_anew);
    }
    let (sender, reads) = mpsc::channel(1);
    let newest = reach.iter().map(|reach| reach.newest).collect();
    executor.run(async { drop(tokio::spawn(read_all(reader, of.clone(), begin, reach, sender))) });
    let keys = of.keys.iter().map(|key| key.as_str().into()).collect();
    let (of, pending) = (of.clone(), VecDeque::new());
    let (settled, lag, checked_ns, failure) = (0, None, 0, None);
    Ok(Box::new(Streams {
        executor,
        commands,
        reads,
        of,
        keys,
        newest,
        pending,
        settled,
        lost,
        lag,
        checked_ns,
        failure,
    }))
}

/// Where reading begins.
struct Place {
    /// The id to read after.
    begin: String,
    reach: Reach,
    /// The stream was made anew since it was read last.
    is_anew: bool,
}

/// Finds the place in a stream, and makes its group where there is none.
fn place(
    executor: &Executor,
    commands: &mut MultiplexedConnection,
    of: &StreamsOf,
    key: &str,
    positions: &mut Positions,
) -> Result<Place, SourceError> {
    let now = stream_now(executor, commands, key)?;
    let mut known = positions.of(key).map(|position| position.offset);
    let is_anew = known.is_some_and(|last| now.last < last);
    if is_anew {
        positions.forget(key);
        known = None;
    }
    let is_from_all = of.is_from_all || is_anew;
    let Some((group, _)) = &of.group else {
        let start = known.unwrap_or(if is_from_all { 0 } else { now.last });
        // A link that is lost before its first entry has a place as well.
        positions.advance(&key.into(), Position { offset: start, time_ns: 0 });
        return Ok(Place { begin: id_of(start), reach: Reach::begin(start, None, known.is_none(), &now), is_anew });
    };
    let begin = if known.is_some() || is_from_all { "0" } else { "$" };
    let create = cmd("XGROUP").arg("CREATE").arg(key).arg(group).arg(begin).to_owned();
    let made =
        executor.run_until(now_ns() + super::ANSWER_TIMEOUT.as_nanos() as u64, create.query_async::<()>(commands));
    let is_new = match made {
        Some(Ok(())) => true,
        Some(Err(error)) if error.code() == Some("BUSYGROUP") => false,
        Some(Err(error)) => return Err(failure(&format!("group {group} of stream {key}"), &error)),
        None => return Err(SourceError::retry("no answer to XGROUP CREATE")),
    };
    let GroupState { delivered, read, .. } = group_state(executor, commands, key, group)?;
    Ok(Place { begin: "0".to_owned(), reach: Reach::begin(delivered, read, is_new, &now), is_anew })
}

/// Asks for the state of a stream.
fn stream_now(executor: &Executor, commands: &mut MultiplexedConnection, key: &str) -> Result<StreamNow, SourceError> {
    let ask = cmd("XINFO").arg("STREAM").arg(key).to_owned();
    let fields = answer(executor, &format!("stream {key}"), ask.query_async::<HashMap<String, Value>>(commands));
    let fields = fields.map_err(|error| match error {
        SourceError::Retry { reason, .. } if reason.contains("no such key") => SourceError::retry(format!(
            "stream {key} does not exist: it is made by the first XADD {key}, or by XGROUP CREATE with MKSTREAM"
        )),
        error => error,
    })?;
    Ok(stream_of(&fields))
}

fn stream_of(fields: &HashMap<String, Value>) -> StreamNow {
    let number = |name: &str| fields.get(name).and_then(|value| from_redis_value::<u64>(value.clone()).ok());
    let id = |name: &str| fields.get(name).and_then(text_of).and_then(|id| number_of(&id));
    let length = number("length").unwrap_or(0);
    // Before Redis 7 there is only the entry itself.
    let first_entry = || number_of(&text_of(&pair_of(fields.get("first-entry")?.clone())?.0)?);
    let first = id("recorded-first-entry-id").or_else(first_entry).filter(|_| length > 0);
    StreamNow { last: id("last-generated-id").unwrap_or(0), first, length, added: number("entries-added") }
}

/// What Redis says of a group.
struct GroupState {
    delivered: u128,
    /// Entries that were added up to there.
    read: Option<u64>,
    lag: Option<u64>,
}

fn group_state(
    executor: &Executor,
    commands: &mut MultiplexedConnection,
    key: &str,
    group: &str,
) -> Result<GroupState, SourceError> {
    let ask = cmd("XINFO").arg("GROUPS").arg(key).to_owned();
    let groups = answer(executor, &format!("stream {key}"), ask.query_async::<Vec<HashMap<String, Value>>>(commands))?;
    let is_it = |fields: &&HashMap<String, Value>| fields.get("name").and_then(text_of).as_deref() == Some(group);
    let fields = groups.iter().find(is_it);
    let fields = fields.ok_or_else(|| SourceError::retry(format!("group {group} of stream {key} is gone")))?;
    let delivered = fields.get("last-delivered-id").and_then(text_of).and_then(|id| number_of(&id)).unwrap_or(0);
    let number =
        |name: &str| fields.get(name).and_then(|lag| from_redis_value::<Option<u64>>(lag.clone()).ok().flatten());
    Ok(GroupState { delivered, read: number("entries-read"), lag: number("lag") })
}

/// Reads until the link is gone or an error comes.
async fn read_all(
    mut connection: MultiplexedConnection,
    of: StreamsOf,
    mut after: Vec<String>,
    mut reach: Vec<Reach>,
    sender: mpsc::Sender<Result<Vec<ReadEntry>, RedisError>>,
) {
    // With a group: of which streams the entries that were delivered before are read already.
    let mut is_new = vec![of.group.is_none(); after.len()];
    loop {
        let is_old = is_new.iter().any(|is_new| !is_new);
        let chosen: Vec<usize> = (0..after.len()).filter(|nth| is_new[*nth] != is_old || of.group.is_none()).collect();
        let mut ask = match &of.group {
            Some((group, consumer)) => cmd("XREADGROUP").arg("GROUP").arg(group).arg(consumer).to_owned(),
            None => cmd("XREAD"),
        };
        ask.arg("COUNT").arg(COUNT).arg("BLOCK").arg(BLOCK_MS).arg("STREAMS");
        for nth in &chosen {
            ask.arg(&of.keys[*nth]);
        }
        let id = |nth: &usize| if of.group.is_some() && !is_old { ">" } else { after[*nth].as_str() };
        let ids: Vec<String> = chosen.iter().map(|nth| id(nth).to_owned()).collect();
        for id in &ids {
            ask.arg(id);
        }
        let answer = ask.query_async::<Value>(&mut connection).await.map(|value| entries_of(value, &of.keys));
        let entries = match answer {
            Ok(entries) if !is_old => mark_losses(&mut connection, &of.keys, &mut reach, entries).await,
            answer => answer,
        };
        if let Ok(entries) = &entries {
            for nth in chosen {
                match entries.iter().rev().find(|entry| entry.stream == nth) {
                    Some(last) => after[nth].clone_from(&last.id),
                    None => is_new[nth] |= is_old,
                }
            }
        }
        let is_over = entries.is_err();
        let is_empty = entries.as_ref().is_ok_and(Vec::is_empty);
        if (!is_empty && sender.send(entries).await.is_err()) || is_over || sender.is_closed() {
            return;
        }
    }
}

/// Notes at the first entry of each stream how many were trimmed before it.
async fn mark_losses(
    connection: &mut MultiplexedConnection,
    keys: &[String],
    reach: &mut [Reach],
    mut entries: Vec<ReadEntry>,
) -> Result<Vec<ReadEntry>, RedisError> {
    for (nth, (key, reach)) in keys.iter().zip(reach).enumerate() {
        let ids = entries.iter().filter(|entry| entry.stream == nth).filter_map(|entry| number_of(&entry.id));
        let ids: Vec<u128> = ids.collect();
        let Some(first) = entries.iter_mut().find(|entry| entry.stream == nth) else { continue };
        let fields = cmd("XINFO").arg("STREAM").arg(key).query_async::<HashMap<String, Value>>(connection).await?;
        first.lost_before = reach.advance(&ids, &stream_of(&fields));
    }
    Ok(entries)
}

/// The entries of an answer: streams with lists of `[id, [field, value, …]]`.
fn entries_of(value: Value, keys: &[String]) -> Vec<ReadEntry> {
    let streams = match value {
        Value::Map(streams) => streams,
        Value::Array(streams) => streams.into_iter().filter_map(pair_of).collect(),
        _ => Vec::new(),
    };
    let mut all = Vec::new();
    for (key, entries) in streams {
        let stream = text_of(&key).and_then(|key| keys.iter().position(|known| *known == key));
        let (Some(stream), Value::Array(entries)) = (stream, entries) else { continue };
        for (id, fields) in entries.into_iter().filter_map(pair_of) {
            let fields = from_redis_value::<Option<HashMap<String, Vec<u8>>>>(fields).unwrap_or_default();
            all.extend(text_of(&id).map(|id| ReadEntry { stream, id, fields, lost_before: 0 }));
        }
    }
    all
}

fn pair_of(value: Value) -> Option<(Value, Value)> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    Some((parts.next()?, parts.next()?))
}

fn text_of(value: &Value) -> Option<String> {
    from_redis_value::<String>(value.clone()).ok()
}

/// An id `MS-NUMBER` as one number.
fn number_of(id: &str) -> Option<u128> {
    let (ms, number) = id.split_once('-')?;
    Some(u128::from(ms.parse::<u64>().ok()?) << 64 | u128::from(number.parse::<u64>().ok()?))
}

/// The id of a number.
fn id_of(number: u128) -> String {
    format!("{}-{}", (number >> 64) as u64, number as u64)
}

impl Link for Streams {
    fn receive(&mut self, deadline_ns: u64, inbox: &mut VecDeque<Entry>) -> Result<(), SourceError> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        if self.lost > 0 {
            inbox.push_back(Entry::Lost { count: std::mem::take(&mut self.lost) });
            return Ok(());
        }
        let now_ns = now_ns();
        if now_ns >= self.checked_ns + CHECK_INTERVAL.as_nanos() as u64 {
            self.checked_ns = now_ns;
            self.check()?;
        }
        match self.executor.run_until(deadline_ns, self.reads.recv()) {
            None => Ok(()),
            Some(Some(Ok(entries))) => {
                entries.into_iter().for_each(|entry| self.take(entry, inbox));
                Ok(())
            }
            Some(Some(Err(error))) => self.fail(failure("read", &error), inbox),
            Some(None) => self.fail(SourceError::retry("the reader has ended"), inbox),
        }
    }

    fn settle(&mut self, number: u64) -> Result<(), SourceError> {
        let count = number.saturating_sub(self.settled).min(self.pending.len() as u64);
        self.settled += count;
        let done: Vec<_> = self.pending.drain(..count as usize).collect();
        let Some((group, _)) = &self.of.group else { return Ok(()) };
        if done.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for (nth, key) in self.of.keys.iter().enumerate() {
            let mut ids = done.iter().filter(|(stream, _)| *stream == nth).map(|(_, id)| id).peekable();
            if ids.peek().is_some() {
                let command = pipeline.cmd("XACK").arg(key).arg(group);
                for id in ids {
                    command.arg(id);
                }
                command.ignore();
            }
        }
        answer(&self.executor, "acknowledgement", pipeline.query_async::<()>(&mut self.commands))
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn streams(&self) -> Vec<Stream> {
        let stream = |key: &Arc<str>| Stream { name: key.to_string(), state: StreamState::Live };
        if self.keys.len() > 1 { self.keys.iter().map(stream).collect() } else { Vec::new() }
    }

    fn lag(&self) -> Option<u64> {
        self.lag
    }
}

impl Streams {
    fn take(&mut self, entry: ReadEntry, inbox: &mut VecDeque<Entry>) {
        let ReadEntry { stream, id, fields, lost_before } = entry;
        if lost_before > 0 {
            inbox.push_back(Entry::Lost { count: lost_before });
        }
        let offset = number_of(&id).unwrap_or(0);
        self.newest[stream] = self.newest[stream].max(offset);
        self.pending.push_back((stream, id));
        let key = &self.keys[stream];
        let mut fields = fields.unwrap_or_else(|| {
            inbox.push_back(Entry::Lost { count: 1 });
            HashMap::new()
        });
        // An entry that is gone keeps its place among those that are counted; its empty payload is left out as malformed.
        let payload = fields.remove(&self.of.payload).map(Bytes::from).unwrap_or_default();
        inbox.push_back(Entry::Message(Message {
            address: key.to_string(),
            key: fields.remove("key").map(Bytes::from),
            payload,
            position: Some((Arc::clone(key), Position { offset, time_ns: 0 })),
        }));
    }

    /// Looks at the streams: their lag, and whether one was made anew.
    fn check(&mut self) -> Result<(), SourceError> {
        let Self { executor, commands, of, newest, .. } = self;
        let mut lag = None;
        for (key, newest) in of.keys.iter().zip(newest) {
            if stream_now(executor, commands, key)?.last < *newest {
                return Err(SourceError::retry(format!("stream {key} was made anew")));
            }
            if let Some((group, _)) = &of.group {
                let of_group = group_state(executor, commands, key, group)?.lag;
                lag = lag.map_or(of_group, |lag: u64| Some(lag + of_group.unwrap_or(0)));
            }
        }
        self.lag = lag;
        Ok(())
    }

    /// Notes what ends the link, and returns it at once if nothing has come before it.
    fn fail(&mut self, error: SourceError, inbox: &VecDeque<Entry>) -> Result<(), SourceError> {
        if inbox.is_empty() {
            return Err(error);
        }
        self.failure = Some(error);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn answers_of_both_protocols_are_read_and_others_bring_nothing() {
        let entry =
            Value::Array(vec![bulk("7-3"), Value::Array(vec![bulk("payload"), bulk("x"), bulk("key"), bulk("k")])]);
        let gone = Value::Array(vec![bulk("7-4"), Value::Nil]);
        let list = Value::Array(vec![entry, gone]);
        let keys = ["s".to_owned()];
        for answer in [
            Value::Array(vec![Value::Array(vec![bulk("s"), list.clone()])]),
            Value::Map(vec![(bulk("s"), list.clone())]),
        ] {
            let entries = entries_of(answer, &keys);
            assert_eq!(entries.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["7-3", "7-4"]);
            assert_eq!(entries[0].fields.as_ref().map(|fields| fields["payload"].as_slice()), Some(&b"x"[..]));
            assert!(entries[1].fields.is_none(), "it was deleted");
        }
        for other in [Value::Nil, Value::Int(1), list, Value::Array(vec![Value::Array(vec![bulk("other")])])] {
            assert!(entries_of(other, &keys).is_empty());
        }
    }

    #[test]
    fn ids_are_numbers_in_their_order() {
        for (low, high) in [("0-1", "0-2"), ("0-18446744073709551615", "1-0"), ("9-9", "10-0")] {
            assert!(number_of(low) < number_of(high), "{low} {high}");
            assert_eq!(number_of(low).map(id_of).as_deref(), Some(low));
        }
        assert_eq!((number_of("x"), number_of("1"), number_of("1-x")), (None, None, None));
    }
}
