//! All connections of a source to a venue, and its HTTP requests: the side of the source, which is not async.
//!
//! The source opens connections and asks for answers, which return at once, and takes what has happened with
//! [`Network::next`]. The tasks behind it run while the source waits there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tickcast_venues::RequestLimit;
use tokio::select;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::address::{Address, Failure};
use super::budget::{BUDGETS, Use};
use super::executor::Executor;
use super::rest::{self, Answer, Get};
use super::websocket::{self, INTAKE_MESSAGES_MAX, Intake, LinkEvent, LinkId, TEXTS_MAX, Target};
use crate::ingest::stop::Stop;
use crate::tls::Connector;

/// HTTP requests that wait.
const REQUESTS_MAX: usize = 256;

/// What has happened.
#[derive(Debug)]
pub enum NetworkEvent {
    /// A connection is open.
    Opened(LinkId),
    /// A message has come.
    Message(LinkId, Vec<u8>),
    /// A connection has ended, or could not be opened.
    Closed(LinkId, Failure),
    /// The answer to a request, or its failure.
    Answered(Answer),
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
#[error("the runtime cannot be started: {0}")]
pub struct NetworkError(#[from] std::io::Error);

/// The connections and requests of one source.
#[derive(Debug)]
pub struct Network {
    executor: Executor,
    connector: Connector,
    intake: Intake,
    events: Receiver<(LinkId, LinkEvent, Option<OwnedSemaphorePermit>)>,
    requests: Sender<Get>,
    answers: Receiver<Answer>,
    rest: (Address, RequestLimit),
    links: HashMap<LinkId, Link>,
    /// Connections that the source has given up, and why.
    failed: VecDeque<(LinkId, Failure)>,
    stop: Stop,
}

#[derive(Debug)]
struct Link {
    address: Address,
    texts: Sender<String>,
    task: AbortHandle,
    is_open: bool,
    /// The connection closes by itself, with a close frame.
    is_let_go: bool,
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.is_let_go {
            self.task.abort();
        }
    }
}

impl Network {
    /// A network without connections, that sends HTTP requests to this server.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn new(stop: &Stop, connector: Connector, rest: (Address, RequestLimit)) -> Result<Self, NetworkError> {
        let executor = Executor::new(stop)?;
        let (events_in, events) = mpsc::channel(INTAKE_MESSAGES_MAX);
        let (requests, requests_out) = mpsc::channel(REQUESTS_MAX);
        let (answers_in, answers) = mpsc::channel(1);
        let intake = Intake { events: events_in, space: Arc::new(Semaphore::new(Intake::PERMITS)) };
        let requesting = rest::run(rest.0.clone(), rest.1, connector.clone(), requests_out, answers_in);
        executor.spawn(requesting);
        let (links, failed, stop) = (HashMap::new(), VecDeque::new(), stop.clone());
        Ok(Self { executor, connector, intake, events, requests, answers, rest, links, failed, stop })
    }

    /// Opens a connection, once the server permits it.
    pub fn open(&mut self, link: LinkId, target: Target) {
        let (texts, texts_out) = mpsc::channel(TEXTS_MAX);
        let address = target.address.clone();
        let connection = websocket::run(link, target, self.connector.clone(), texts_out, self.intake.clone());
        let task = self.executor.spawn(connection);
        self.links.insert(link, Link { address, texts, task, is_open: false, is_let_go: false });
    }

    /// Sends a text. False if there is no such connection, or it takes no more.
    pub fn send(&self, link: LinkId, text: String) -> bool {
        self.links.get(&link).is_some_and(|link| link.texts.try_send(text).is_ok())
    }

    /// Closes a connection, which has no events any more; with a close frame, if it is open.
    pub fn close(&mut self, link: LinkId) {
        if let Some(mut link) = self.links.remove(&link) {
            link.is_let_go = link.is_open;
        }
    }

    /// When the server permits the next HTTP request, ns.
    pub fn request_at_ns(&self, now_ns: u64) -> u64 {
        BUDGETS.open_ns(&self.rest.0.authority(), Use::Request, self.rest.1, now_ns)
    }

    /// Makes an HTTP request. False if too many wait.
    pub fn get(&self, get: Get) -> bool {
        self.requests.try_send(get).is_ok()
    }

    /// True once the server stops.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    /// Closes a connection for a reason, which is told as if the other side had closed it.
    pub fn fail(&mut self, link: LinkId, problem: &str) {
        if let Some(kept) = self.links.remove(&link) {
            self.failed.push_back((link, Failure::at(&kept.address, problem)));
        }
    }

    /// What has happened already.
    pub fn next_now(&mut self) -> Option<NetworkEvent> {
        loop {
            let event = self.ready()?;
            if let Some(event) = self.event(event) {
                return Some(event);
            }
        }
    }

    /// What has happened next; waits for it until this time, and not at all if the time has passed. `None` as well if the
    /// server stops.
    pub fn next(&mut self, deadline_ns: u64) -> Option<NetworkEvent> {
        loop {
            let event = match self.ready() {
                Some(event) => event,
                None => self.wait(deadline_ns)?,
            };
            if let Some(event) = self.event(event) {
                return Some(event);
            }
        }
    }

    /// The event for the source; none, if it is of a connection that the source has closed.
    fn event(&mut self, happened: Happened) -> Option<NetworkEvent> {
        let (link, event) = match happened {
            Happened::Answered(answer) => return Some(NetworkEvent::Answered(answer)),
            Happened::Failed(link, failure) => return Some(NetworkEvent::Closed(link, failure)),
            Happened::OnLink(link, event) => (link, event),
        };
        let kept = self.links.get_mut(&link)?;
        Some(match event {
            LinkEvent::Opened => {
                kept.is_open = true;
                NetworkEvent::Opened(link)
            }
            LinkEvent::Message(bytes) => NetworkEvent::Message(link, Vec::from(bytes)),
            LinkEvent::Closed(failure) => {
                self.links.remove(&link);
                NetworkEvent::Closed(link, failure)
            }
        })
    }

    fn ready(&mut self) -> Option<Happened> {
        if let Some((link, failure)) = self.failed.pop_front() {
            return Some(Happened::Failed(link, failure));
        }
        if let Ok(answer) = self.answers.try_recv() {
            return Some(Happened::Answered(answer));
        }
        self.events.try_recv().ok().map(|(link, event, _space)| Happened::OnLink(link, event))
    }

    fn wait(&mut self, deadline_ns: u64) -> Option<Happened> {
        let (events, answers) = (&mut self.events, &mut self.answers);
        let waiting = async {
            select! {
                Some((link, event, _space)) = events.recv() => Some(Happened::OnLink(link, event)),
                Some(answer) = answers.recv() => Some(Happened::Answered(answer)),
                else => None,
            }
        };
        self.executor.run_until(deadline_ns, waiting).flatten()
    }
}

enum Happened {
    OnLink(LinkId, LinkEvent),
    Failed(LinkId, Failure),
    Answered(Answer),
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tungstenite::Message;

    use super::super::websocket::SCHEMES;
    use super::*;
    use crate::clock::now_ns;
    use crate::tls::Roots;

    #[test]
    fn connection_that_the_source_closes_ends_with_a_close_frame() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("an address"));
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            let mut socket = tungstenite::accept(stream).expect("an upgrade");
            socket.send(Message::text("{}")).expect("it is open");
            socket.read().expect("a whole message")
        });
        let limit = RequestLimit { burst: 10, interval_ns: 1 };
        let address = Address::parse(&url, SCHEMES).expect("an address");
        let connector = Connector::new(&Roots::System).expect("roots");
        let mut network = Network::new(&Stop::default(), connector, (address.clone(), limit)).expect("a runtime");
        network.open(LinkId(1), Target { address, connects: limit, messages: limit });
        let deadline_ns = now_ns() + tickcast_test_support::DEADLINE.as_nanos() as u64;
        while !matches!(network.next(deadline_ns), Some(NetworkEvent::Message(..))) {
            assert!(now_ns() < deadline_ns, "no message comes");
        }
        network.close(LinkId(1));
        while !server.is_finished() {
            assert!(now_ns() < deadline_ns, "the server gets no close frame");
            assert!(network.next(now_ns() + 10_000_000).is_none(), "it has no events any more");
        }
        assert!(matches!(server.join().expect("no panic"), Message::Close(_)));
    }
}
