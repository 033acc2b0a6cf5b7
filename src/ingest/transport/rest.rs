//! HTTP requests of a source to a server: GET, one after another, on one connection that is kept open.
//!
//! A request waits for the server's budget, which all sources of the process share, and for its pauses. An answer is at
//! most [`ANSWER_BYTES_MAX`] long and comes within [`ANSWER_TIMEOUT`].

use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tickcast_venues::RequestLimit;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::{sleep, timeout};

use super::address::{Address, Failure, dial};
use super::budget::{BUDGETS, Use};
use super::refusal;
use super::websocket::AGENT;
use crate::clock::now_ns;
use crate::tls::Connector;

/// The schemes of its URLs.
pub const SCHEMES: [&str; 2] = ["http", "https"];
/// Longer answers are rejected. Binance's list of instruments has 15 MB.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The longest wait for an answer, once it was asked for.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A request to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    /// Passed back with the answer.
    pub number: u64,
    /// Path and query.
    pub path: String,
    /// What it counts for in the server's limit.
    pub weight: u32,
}

/// A request, and its answer.
#[derive(Debug)]
pub struct Answer {
    pub number: u64,
    pub body: Result<Vec<u8>, Failure>,
}

/// Makes requests until there are no more.
pub(super) async fn run(
    server: Address,
    limit: RequestLimit,
    connector: Connector,
    mut requests: Receiver<Get>,
    answers: Sender<Answer>,
) {
    let mut client = Client::new(server, connector);
    while let Some(Get { number, path, weight }) = requests.recv().await {
        let at_ns = BUDGETS.take(&client.server.authority(), Use::Request, limit, weight, now_ns());
        sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns()))).await;
        let body = client.get(&path).await;
        if body.is_err() {
            client.connection = None;
        }
        if answers.send(Answer { number, body }).await.is_err() {
            return;
        }
    }
}

/// Makes one request on a connection of its own, for the path of the address. Blocks until there is an answer of at most
/// `bytes_max`, or for `wait`.
///
/// # Errors
/// There is no such answer.
pub fn get_once(server: &Address, connector: &Connector, bytes_max: usize, wait: Duration) -> Result<Vec<u8>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::at(server, format!("the runtime cannot be started: {error}")))?;
    let mut client = Client { bytes_max, wait, ..Client::new(server.clone(), connector.clone()) };
    runtime.block_on(client.get(&server.path))
}

struct Client {
    server: Address,
    connector: Connector,
    bytes_max: usize,
    wait: Duration,
    /// The one that is kept open.
    connection: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    fn new(server: Address, connector: Connector) -> Self {
        Self { server, connector, bytes_max: ANSWER_BYTES_MAX, wait: ANSWER_TIMEOUT, connection: None }
    }

    async fn get(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        match timeout(self.wait, self.request(path)).await {
            Ok(result) => result,
            Err(_) => {
                let seconds = self.wait.as_secs();
                Err(Failure::at(&self.server, format!("no answer to the request for {path} within {seconds} s")))
            }
        }
    }

    async fn request(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        // A server closes a connection that was idle: then the request is made on another one, once.
        let was_open = self.connection.is_some();
        let response = match self.send(path).await {
            Err(_) if was_open => {
                self.connection = None;
                self.send(path).await?
            }
            result => result?,
        };
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes_max = self.bytes_max;
        let body = Limited::new(response.into_body(), bytes_max).collect().await.map_err(|error| {
            let is_long = error.downcast_ref::<LengthLimitError>().is_some();
            let problem = if is_long { format!("it has more than {bytes_max} bytes") } else { error.to_string() };
            Failure::at(&self.server, format!("the answer to the request for {path} cannot be read: {problem}"))
        })?;
        let body = Vec::from(body.to_bytes());
        if status.is_success() {
            return Ok(body);
        }
        let bare = path.split('?').next().unwrap_or(path);
        Err(refusal::of(&self.server, bare, status.as_u16(), retry_after.as_deref(), &body, now_ns()))
    }

    async fn send(&mut self, path: &str) -> Result<Response<Incoming>, Failure> {
        let failed = |error: hyper::Error| Failure::at(&self.server, format!("the request for {path} failed: {error}"));
        let host = self.server.url(SCHEMES);
        let host = host.split('/').nth(2).unwrap_or_default();
        let request =
            Request::get(path).header(HOST, host).header(USER_AGENT, AGENT).header(ACCEPT, "application/json");
        let request = request.body(Empty::new());
        let request = request.map_err(|error| Failure::at(&self.server, format!("bad path {path:?}: {error}")))?;
        let open = self.connection.take().filter(|connection| !connection.is_closed());
        let mut connection = match open {
            Some(connection) => connection,
            None => {
                let stream = dial(&self.server, &self.connector).await?;
                let (connection, driver) = handshake(TokioIo::new(stream)).await.map_err(failed)?;
                // Ends with the connection; what went wrong is the error of the request.
                tokio::spawn(async { drop(driver.await) });
                connection
            }
        };
        connection.ready().await.map_err(failed)?;
        let response = connection.send_request(request).await.map_err(failed)?;
        self.connection = Some(connection);
        Ok(response)
    }
}
