//! Connections. The client library gets one that is made here, in plain or with the TLS of all sources, so that it has
//! none of its own.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::{Executor as Execute, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use futures_lite::Stream;
use futures_lite::io::{AsyncRead, AsyncWrite};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, Error, ErrorKind};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{ANSWER_TIMEOUT, RabbitMq, failure, unsaid};
use crate::clock::now_ns;
use crate::ingest::broker::parameters::Server;
use crate::ingest::source::SourceError;
use crate::ingest::transport::address::{Address, Duplex, Failure, dial};
use crate::ingest::transport::executor::Executor;
use crate::tls::Connector;

/// Seconds between two heartbeats. A connection without any for twice as long is lost.
const HEARTBEAT_S: u16 = 5;

/// Opens a connection to a server.
pub fn open(rabbit: &RabbitMq, server: &Server, executor: &Executor) -> Result<Connection, SourceError> {
    let parameters = &rabbit.parameters;
    let uri = uri(rabbit, server).map_err(unreadable)?;
    let connector = Connector::with_identity(&parameters.roots, parameters.identity.as_ref());
    let connector = connector.map_err(|error| unreadable(error.to_string()))?;
    let (host, port, path) = (server.host.clone(), server.port, "/".to_owned());
    let address = Address { is_secure: parameters.is_tls, host, port, path };
    let deadline_ns = now_ns() + 2 * ANSWER_TIMEOUT.as_nanos() as u64;
    let opened = executor.run_until(deadline_ns, async {
        let stream = dial(&address, &connector).await.map_err(unreachable)?;
        handshake(uri, stream).await.map_err(|error| refusal(rabbit, &address, &error))
    });
    opened.unwrap_or_else(|| Err(SourceError::retry(format!("{}: no answer to AMQP 0.9.1", address.authority()))))
}

fn uri(rabbit: &RabbitMq, server: &Server) -> Result<AMQPUri, String> {
    let guest = || "guest".to_owned();
    let username = rabbit.parameters.user.clone().unwrap_or_else(guest);
    let password = rabbit.parameters.password()?.unwrap_or_else(guest);
    Ok(AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username, password },
            host: server.host.clone(),
            port: server.port,
        },
        vhost: rabbit.vhost.clone(),
        query: AMQPQueryString { heartbeat: Some(HEARTBEAT_S), ..AMQPQueryString::default() },
    })
}

/// The handshake of AMQP on a connection to a server.
async fn handshake(uri: AMQPUri, stream: Box<dyn Duplex>) -> Result<Connection, Error> {
    let stream = Mutex::new(Some(FuturesStream(stream)));
    let connect = async move |_: AMQPUri, _: Runtime<Kit>| {
        // It asks once: connections are made anew by the supervisor alone.
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.map(AsyncTcpStream::Plain).ok_or_else(|| Error::from(io::Error::from(io::ErrorKind::NotConnected)))
    };
    let properties = ConnectionProperties::default().with_connection_name("tickcast".into());
    Connection::connector(uri, Runtime::new(Kit(Tokio::current())), connect, properties).await
}

fn unreachable(failure: Failure) -> SourceError {
    let reason = failure.reason;
    if reason.contains("its certificate does not verify") {
        let cure = "name the authority of its certificate with ca_file=FILE, and the server as the certificate does"
            .to_owned();
        return SourceError::Fatal { reason: format!("TLS: {reason}"), cure };
    }
    SourceError::retry(format!("no connection: {reason}"))
}

/// Why the handshake of AMQP has failed.
fn refusal(rabbit: &RabbitMq, address: &Address, error: &Error) -> SourceError {
    let ErrorKind::ProtocolError(said) = error.kind() else {
        let hint = if address.is_secure { "" } else { "; is it a port with TLS, for which tls=1 is missing?" };
        return SourceError::retry(format!("{}: no AMQP 0.9.1: {}{hint}", address.authority(), unsaid(error)));
    };
    let message = said.get_message().as_str();
    let vhost = &rabbit.vhost;
    match said.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => SourceError::Fatal {
            reason: format!("the broker refuses the credentials: {message}"),
            cure: "correct user= and password_file=, and restart the server".to_owned(),
        },
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if message.contains("not found") => SourceError::retry(format!(
            "vhost {vhost} does not exist: create it with `rabbitmqctl add_vhost {vhost}` ({message})"
        )),
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => SourceError::Fatal {
            reason: format!("vhost {vhost}: {message}"),
            cure: format!("give the user the permission, with `rabbitmqctl set_permissions -p {vhost}`"),
        },
        _ => failure(&address.authority(), error),
    }
}

/// A file that was there at the start.
fn unreadable(problem: String) -> SourceError {
    SourceError::Fatal { reason: problem, cure: "put the file there and restart the server".to_owned() }
}

/// A connection with the traits that the client library takes. It is used on the library's thread.
struct FuturesStream(Box<dyn Duplex>);

impl AsyncRead for FuturesStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(bytes);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for FuturesStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// The runtime of the source, for the client library: tokio's, but for the type of connections.
#[derive(Clone, Debug)]
struct Kit(Tokio);

impl RuntimeKit for Kit {}

impl Execute for Kit {
    type Task<T: Send + 'static> = <Tokio as Execute>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = FuturesStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// For sockets that are not of this runtime, of which there are none.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Self::TcpStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    /// For connections that the client makes, of which there are none.
    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
