//! HTTP requests that ask a server a question: POST, many at a time, each with a deadline.
//!
//! All are made by one thread, on connections that are kept open. What always holds:
//!
//! * A request is replied to once: with its answer, or why there is none, also where its task ends by a panic or the
//!   thread is gone.
//! * An answer is complete within the deadline, from the look-up of the host to the last byte, and no longer than the
//!   limit. A redirect is an answer like others: what was asked goes to the configured server and nowhere else.
//! * No failure has a part of the question or the answer in it.
//!
//! It does not decide what an answer means, nor how many requests are under way: its user does.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::address::{Address, dial};
use super::rest::SCHEMES;
use super::websocket::AGENT;
use crate::tls::Connector;

/// Connections that are kept open for further requests.
const IDLE_MAX: usize = 32;
/// Bytes of the longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Threads that look hosts up. One that hangs delays what comes behind it, up to its deadline.
const LOOKUPS_MAX: usize = 8;

/// A server that is asked.
#[derive(Debug)]
pub struct PostServer {
    address: Address,
    connector: Connector,
    deadline: Duration,
    answer_bytes_max: usize,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// An answer, whatever its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostAnswer {
    pub status: u16,
    pub content_type: Option<String>,
    /// The body is compressed, or otherwise not what its type says.
    pub is_encoded: bool,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostFailure {
    /// There was none within the deadline.
    Late(Duration),
    /// The server cannot be reached, or does not speak HTTP.
    Unreachable(String),
    /// The answer was cut off, or is too long.
    Unreadable(String),
    /// The thread has ended.
    Ended,
}

impl fmt::Display for PostFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(deadline) => write!(out, "no answer within {} ms", deadline.as_millis()),
            Self::Unreachable(problem) | Self::Unreadable(problem) => out.write_str(problem),
            Self::Ended => out.write_str("the request was given up"),
        }
    }
}

/// What a request has come to.
pub type PostOutcome = Result<PostAnswer, PostFailure>;

/// Where the outcome of a request goes.
pub struct Reply(Option<Box<dyn FnOnce(PostOutcome) + Send>>);

impl Reply {
    /// One that calls a function, on the thread of the requests; or where the request is dropped.
    pub fn new(call: impl FnOnce(PostOutcome) + Send + 'static) -> Self {
        Self(Some(Box::new(call)))
    }

    fn send(mut self, outcome: PostOutcome) {
        if let Some(call) = self.0.take() {
            call(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call(Err(PostFailure::Ended));
        }
    }
}

/// A request. Its body is JSON.
pub struct Post {
    pub server: Arc<PostServer>,
    pub body: Vec<u8>,
    pub reply: Reply,
}

/// The thread that makes requests. It ends with the last handle; what is under way is replied to as given up.
#[derive(Debug)]
pub struct Poster(UnboundedSender<Post>);

impl Poster {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread or no descriptors left.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(LOOKUPS_MAX).build()?;
        // Its user bounds the requests under way.
        let (sender, requests) = unbounded_channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(serve(requests));
            // Without waiting for a look-up that is under way.
            runtime.shutdown_background();
        })?;
        Ok(Self(sender))
    }

    /// Makes a request. Returns at once.
    pub fn post(&self, post: Post) {
        // An error gives the request back, which is replied to as it is dropped.
        drop(self.0.send(post));
    }
}

async fn serve(mut requests: UnboundedReceiver<Post>) {
    while let Some(Post { server, body, reply }) = requests.recv().await {
        tokio::spawn(async move { reply.send(server.ask(body.into()).await) });
    }
}

impl PostServer {
    /// A server at this address, which has to answer with so many bytes at the most within the deadline.
    pub fn new(address: Address, connector: Connector, deadline: Duration, answer_bytes_max: usize) -> Self {
        Self { address, connector, deadline, answer_bytes_max, idle: Mutex::default() }
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How long an answer may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    async fn ask(&self, body: Bytes) -> PostOutcome {
        timeout(self.deadline, self.exchange(body)).await.unwrap_or(Err(PostFailure::Late(self.deadline)))
    }

    async fn exchange(&self, body: Bytes) -> PostOutcome {
        let idle = self.lock_idle().pop();
        if let Some(mut connection) = idle {
            match self.send(&mut connection, body.clone()).await {
                Ok(response) => return self.read(response, connection).await,
                // The server has closed it meanwhile, and so has most likely the others. Asking twice does no harm.
                Err(_) => self.lock_idle().clear(),
            }
        }
        let mut connection = self.connect().await?;
        let response = self.send(&mut connection, body).await.map_err(|error| self.unreachable(&error))?;
        self.read(response, connection).await
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, PostFailure> {
        let stream = dial(&self.address, &self.connector).await;
        let stream = stream.map_err(|failure| PostFailure::Unreachable(failure.reason))?;
        let shaken = Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
        let (connection, driver) = shaken.map_err(|error| self.unreachable(&error))?;
        // Ends with the connection; what went wrong is the error of the request.
        tokio::spawn(async { drop(driver.await) });
        Ok(connection)
    }

    async fn send(
        &self,
        connection: &mut SendRequest<Full<Bytes>>,
        body: Bytes,
    ) -> Result<hyper::Response<Incoming>, hyper::Error> {
        let url = self.address.url(SCHEMES);
        let host = url.split('/').nth(2).unwrap_or_default();
        let request = Request::post(&self.address.path)
            .header(HOST, host)
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("the path of a URL that was parsed");
        connection.ready().await?;
        connection.send_request(request).await
    }

    async fn read(&self, response: hyper::Response<Incoming>, connection: SendRequest<Full<Bytes>>) -> PostOutcome {
        let (head, body) = response.into_parts();
        let bytes_max = self.answer_bytes_max;
        let is_long = || PostFailure::Unreadable(format!("the answer has more than {bytes_max} bytes"));
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(is_long());
        }
        let body = Limited::new(body, bytes_max).collect().await.map_err(|error| {
            let is_limit = error.downcast_ref::<LengthLimitError>().is_some();
            if is_limit { is_long() } else { PostFailure::Unreadable("the answer was cut off".to_owned()) }
        })?;
        let mut idle = self.lock_idle();
        if idle.len() < IDLE_MAX && !connection.is_closed() {
            idle.push(connection);
        }
        drop(idle);
        let text = |name| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let is_encoded = text(CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"));
        let body = body.to_bytes().into();
        Ok(PostAnswer { status: head.status.as_u16(), content_type: text(CONTENT_TYPE), is_encoded, body })
    }

    fn unreachable(&self, error: &hyper::Error) -> PostFailure {
        PostFailure::Unreachable(format!("{}: the request failed: {error}", self.address.authority()))
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<SendRequest<Full<Bytes>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;

    use super::*;
    use crate::tls::Roots;

    /// A server on loopback that plays a script on each connection.
    fn server(deadline: Duration, script: impl Fn(TcpStream) + Send + Sync + 'static) -> Arc<PostServer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/authorize", listener.local_addr().unwrap());
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = script.clone();
                std::thread::spawn(move || script(stream));
            }
        });
        let connector = Connector::new(&Roots::System).unwrap();
        Arc::new(PostServer::new(Address::parse(&url, SCHEMES).unwrap(), connector, deadline, 100))
    }

    /// The body of the next request; `None` at the end.
    fn request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok().map(|()| body)
    }

    /// Answers each request with these bytes and its own body.
    fn echo(head: &'static str, requests_of_connection: usize) -> impl Fn(TcpStream) {
        move |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for _ in 0..requests_of_connection {
                let Some(body) = request(&mut reader) else { return };
                let head = format!("HTTP/1.1 {head}Content-Length: {}\r\n\r\n", body.len());
                // The client may have had enough.
                let _ = (&stream).write_all(&[head.into_bytes(), body].concat());
            }
        }
    }

    fn ask(poster: &Poster, server: &Arc<PostServer>, body: &str) -> mpsc::Receiver<PostOutcome> {
        let (sender, outcome) = mpsc::channel();
        let reply = Reply::new(move |outcome| sender.send(outcome).unwrap());
        poster.post(Post { server: server.clone(), body: body.as_bytes().to_vec(), reply });
        outcome
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn requests_are_answered_each_with_its_own_also_where_the_server_closes_connections() {
        let poster = Poster::start("test").unwrap();
        for requests_of_connection in [1, 2, usize::MAX] {
            let server = server(LONG, echo("200 OK\r\nContent-Type: application/json\r\n", requests_of_connection));
            for round in 0..3 {
                let bodies: Vec<String> = (0..10).map(|nth| format!("question {round} {nth}")).collect();
                let outcomes: Vec<_> = bodies.iter().map(|body| ask(&poster, &server, body)).collect();
                for (body, outcome) in bodies.iter().zip(outcomes) {
                    let answer = outcome.recv().unwrap().unwrap();
                    assert_eq!((answer.status, String::from_utf8(answer.body).unwrap()), (200, body.clone()));
                    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
                }
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_a_failure_that_says_why_and_nothing_of_the_question() {
        let poster = Poster::start("test").unwrap();
        let outcome = |server: &Arc<PostServer>, body: &str| ask(&poster, server, body).recv().unwrap();
        let redirect = server(LONG, echo("307 Go\r\nLocation: http://127.0.0.1:9/\r\n", 1));
        assert_eq!(outcome(&redirect, "secret").unwrap().status, 307, "it is not followed");
        let long = server(LONG, echo("200 OK\r\n", 1));
        let failure = outcome(&long, &"secret ".repeat(20)).unwrap_err();
        assert_eq!(failure, PostFailure::Unreadable("the answer has more than 100 bytes".to_owned()));
        let endless = server(LONG, |mut stream| {
            // An answer before the request is none.
            request(&mut BufReader::new(stream.try_clone().unwrap()));
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head);
            while stream.write_all(b"10\r\n0123456789abcdef\r\n").is_ok() {}
        });
        assert_eq!(outcome(&endless, "secret").unwrap_err(), failure);
        let cut = server(LONG, |mut stream| {
            // The kernel resets a connection that is closed with unread bytes, and the client may see that first.
            request(&mut BufReader::new(stream.try_clone().unwrap()));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nsecret");
        });
        assert_eq!(outcome(&cut, "x").unwrap_err(), PostFailure::Unreadable("the answer was cut off".to_owned()));
        let garbage = server(LONG, |mut stream| drop(stream.write_all(b"secret\r\n\r\n")));
        let nothing = server(LONG, drop);
        let unknown = Arc::new(PostServer::new(
            Address::parse("http://127.0.0.1:1/", SCHEMES).unwrap(),
            Connector::new(&Roots::System).unwrap(),
            LONG,
            100,
        ));
        for server in [garbage, nothing, unknown] {
            let PostFailure::Unreachable(problem) = outcome(&server, "secret").unwrap_err() else { panic!("another") };
            assert!(problem.starts_with("127.0.0.1:") && !problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn late_answer_is_a_failure_and_holds_up_no_other() {
        let deadline = Duration::from_millis(20);
        let slow = server(deadline, |mut stream| {
            request(&mut BufReader::new(stream.try_clone().unwrap()));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let poster = Poster::start("test").unwrap();
        let (late, fast) = (ask(&poster, &slow, "a"), server(LONG, echo("200 OK\r\n", 1)));
        assert_eq!(ask(&poster, &fast, "b").recv().unwrap().unwrap().body, b"b");
        assert_eq!(late.recv().unwrap(), Err(PostFailure::Late(deadline)));
    }

    #[test]
    fn requests_under_way_are_replied_to_when_the_thread_ends() {
        let silent = server(LONG, |mut stream| drop(stream.read_to_end(&mut Vec::new())));
        let poster = Poster::start("test").unwrap();
        let outcomes = ["a", "b"].map(|body| ask(&poster, &silent, body));
        drop(poster);
        assert!(outcomes.iter().all(|outcome| outcome.recv().unwrap() == Err(PostFailure::Ended)));
    }
}
