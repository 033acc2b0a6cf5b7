use bytes::Bytes;

use super::*;
use crate::ingest::broker::link::{Message, Position};
use crate::ingest::codec::address::AddressRule;
use crate::ingest::codec::{Form, SymbolFrom};
use tickcast_protocol::RecordKind;
use tickcast_protocol::record::{read_raw, records};

/// What a link brings, call by call, and what it was told.
#[derive(Debug, Default)]
struct Script {
    calls: VecDeque<Result<Vec<Entry>, SourceError>>,
    settled: Vec<u64>,
    refusal: Option<SourceError>,
}

#[derive(Clone, Debug)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    is_durable: bool,
}

impl Connect for Scripted {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn connect(&self, _positions: &mut Positions, _stop: &Stop) -> Result<Box<dyn Link>, SourceError> {
        match self.script.lock().expect("no panic").refusal.take() {
            Some(error) => Err(error),
            None => Ok(Box::new(self.clone())),
        }
    }
}

impl Link for Scripted {
    fn receive(&mut self, _deadline_ns: u64, inbox: &mut VecDeque<Entry>) -> Result<(), SourceError> {
        assert!(inbox.is_empty());
        inbox.extend(self.script.lock().expect("no panic").calls.pop_front().unwrap_or(Ok(Vec::new()))?);
        Ok(())
    }

    fn settle(&mut self, number: u64) -> Result<(), SourceError> {
        self.script.lock().expect("no panic").settled.push(number);
        Ok(())
    }

    fn is_durable(&self) -> bool {
        self.is_durable
    }

    fn lag(&self) -> Option<u64> {
        self.is_durable.then_some(3)
    }
}

fn opener(is_durable: bool, calls: Vec<Result<Vec<Entry>, SourceError>>) -> BrokerOpener<Scripted> {
    let script = Script { calls: calls.into(), ..Script::default() };
    let settings = CodecSettings {
        form: Form::Raw,
        symbol: SymbolFrom::Address,
        address: AddressRule::default(),
        venue: "acme".to_owned(),
    };
    let connect = Scripted { script: Arc::new(Mutex::new(script)), is_durable };
    BrokerOpener::new("scripted".to_owned(), settings, connect)
}

fn message(offset: u128, text: &str) -> Entry {
    let position = (offset > 0).then(|| ("s".into(), Position { offset, time_ns: 0 }));
    let payload = Bytes::copy_from_slice(text.as_bytes());
    Entry::Message(Message { address: "A".to_owned(), key: None, payload, position })
}

/// The next batch, as texts, and what came with it.
fn receive(source: &mut dyn Source) -> (Vec<String>, Option<u64>, Result<Next, SourceError>) {
    let mut batch = Batch::default();
    let result = source.receive(Times::at(0), &mut batch);
    let text = |(header, bytes): (tickcast_protocol::RecordHeader, &[u8])| match header.known_kind() {
        Some(RecordKind::Raw) => String::from_utf8_lossy(read_raw(bytes).expect("whole")).into_owned(),
        kind => format!("{kind:?}"),
    };
    (records(&batch.records).map(text).collect(), batch.mark.map(|Mark(number)| number), result)
}

const DEFINITION: &str = "Some(Definition)";

#[test]
fn accepted_and_refused_batches_are_acknowledged_and_duplicates_left_out() {
    let opener = opener(
        true,
        vec![
            Ok(vec![message(1, "one"), message(2, "two")]),
            Ok(vec![message(2, "two"), message(3, "three")]),
            Ok(vec![message(4, "four")]),
        ],
    );
    let settled = || opener.connect.script.lock().expect("no panic").settled.clone();
    let mut source = opener.open(&Stop::default()).expect("open");
    let (texts, mark, result) = receive(source.as_mut());
    assert_eq!((texts, mark, result), (vec![DEFINITION.into(), "one".into(), "two".into()], Some(2), Ok(Next::Paced)));
    assert!(settled().is_empty(), "nothing is acknowledged before it is accepted");
    source.accepted(Mark(2));
    assert_eq!(settled(), [2]);
    assert_eq!(receive(source.as_mut()).0, ["three"]);
    // Its mark does not come back: something of it was refused.
    assert_eq!(receive(source.as_mut()).0, ["four"]);
    assert_eq!(settled(), [2, 4]);
    assert_eq!((source.report().duplicates, source.report().records, source.lag()), (1, 5, Some(3)));
}

#[test]
fn reopened_durable_source_defines_again_and_knows_what_it_took() {
    let lost = SourceError::retry("gone");
    let opener = opener(
        true,
        vec![
            Ok(vec![message(1, "one"), message(2, "two")]),
            Err(lost.clone()),
            Ok(vec![message(2, "two"), message(3, "three")]),
        ],
    );
    let mut source = opener.open(&Stop::default()).expect("open");
    assert_eq!(receive(source.as_mut()).0.len(), 3);
    assert_eq!(receive(source.as_mut()).2, Err(lost));
    drop(source);
    opener.connect.script.lock().expect("no panic").refusal =
        Some(SourceError::Fatal { reason: "wrong password".to_owned(), cure: "correct it".to_owned() });
    let refused = opener.open(&Stop::default()).err();
    assert_eq!(refused, Some(SourceError::retry("wrong password: correct it")), "it worked before");
    let mut source = opener.open(&Stop::default()).expect("open");
    assert_eq!(receive(source.as_mut()), (vec![DEFINITION.to_owned()], None, Ok(Next::Now)));
    assert_eq!(receive(source.as_mut()).0, ["three"]);
}

#[test]
fn loss_of_a_push_source_is_a_gap_at_its_place() {
    let opener = opener(
        false,
        vec![
            Ok(vec![message(0, "one"), Entry::Lost { count: 7 }, message(0, "nine")]),
            Err(SourceError::retry("gone")),
            Ok(vec![message(0, "new")]),
        ],
    );
    let mut source = opener.open(&Stop::default()).expect("open");
    let (texts, mark, result) = receive(source.as_mut());
    assert_eq!((texts, mark), (vec![DEFINITION.to_owned(), "one".to_owned()], Some(1)));
    let gap = |from, to| SourceError::Gap(SourceGap { stream: "scripted".to_owned(), from, to, instruments: vec![] });
    assert_eq!(result, Err(gap(2, 8)));
    assert_eq!(receive(source.as_mut()).0, ["nine"]);
    assert!(receive(source.as_mut()).2.is_err());
    drop(source);
    let mut source = opener.open(&Stop::default()).expect("open");
    assert_eq!(receive(source.as_mut()), (vec![DEFINITION.to_owned()], None, Err(gap(1, 1))));
    assert_eq!(receive(source.as_mut()), (vec!["new".to_owned()], Some(1), Ok(Next::Now)));
}

#[test]
fn first_error_that_only_a_change_can_mend_is_fatal() {
    let opener = opener(true, Vec::new());
    let fatal = SourceError::Fatal { reason: "wrong password".to_owned(), cure: "correct it".to_owned() };
    opener.connect.script.lock().expect("no panic").refusal = Some(fatal.clone());
    assert_eq!(opener.open(&Stop::default()).err(), Some(fatal));
}
