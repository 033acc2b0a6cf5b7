//! The TLS handshake of a connection, before its first request, and the limits on it.
//!
//! A handshake costs 0.1 to 0.3 ms of the core that serves market data, so permits are taken before it: first of the
//! address, then of the shard. A connection that sends nothing takes none, and is not one of those that are under way.
//! Steps of handshakes are made one at a time, so that the shard ticks between two of them. Meanwhile a connection is a
//! pending one like any other, and may be evicted.

use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use glommio::net::TcpStream;
use glommio::sync::Semaphore;

use super::admission::TlsPermit;
use super::connection::{Connection, READ_BYTES};
use super::refusal::Refusal;
use super::server::HttpServer;
use super::timer;
use crate::clock::now_ns;
use crate::config::Config;
use crate::stats::Counter;
use crate::tls::{Fault, Handshake, Session, Step};

/// How a handshake ended that has no session.
enum Failed {
    /// The peer has closed, or was evicted.
    Closed,
    /// It was not complete in time.
    Late,
    /// There was no permit.
    Limited(Counter),
    Fault(Fault),
}

/// Secures a connection; false if that has failed, and the connection is to be dropped.
pub(super) async fn secure(server: &HttpServer, connection: &mut Connection, config: &Config) -> bool {
    let Some(tls) = &server.state().tls else { return false };
    let timeout = Duration::from_millis(config.tls_limits.handshake_timeout_ms.into());
    let late = async {
        timer::sleep(timeout).await;
        Err(Failed::Late)
    };
    let handshake = tls.begin();
    let outcome = {
        let (stream, pending, guard) = connection.parts();
        let evicted = async {
            pending.must_end().await;
            Err(Failed::Closed)
        };
        let permit = || server.admission.take_tls_handshake(guard, config, now_ns());
        future::or(shake(handshake, stream, permit, &server.handshaking), future::or(evicted, late)).await
    };
    match outcome {
        Ok(session) => {
            let is_resumed = session.is_resumed();
            server.count(if is_resumed { Counter::TlsResumed } else { Counter::TlsHandshakes });
            connection.set_session(session).await
        }
        Err(failed) => {
            count(server, connection, &failed);
            if matches!(failed, Failed::Fault(Fault::PlainHttp)) {
                let message = "this port speaks TLS: expected https:// or wss://";
                let refusal = Refusal::new(400, "plain_http", message);
                server.count_write(&connection.refuse(&refusal, false).await);
            } else if matches!(failed, Failed::Fault(_)) {
                // The alert would be lost in a reset.
                connection.close().await;
            }
            false
        }
    }
}

fn count(server: &HttpServer, connection: &Connection, failed: &Failed) {
    let counter = match failed {
        Failed::Closed => Counter::TlsClosed,
        Failed::Late => Counter::TlsTimeouts,
        Failed::Limited(counter) => *counter,
        Failed::Fault(fault) => counter_of(fault),
    };
    server.count(counter);
    if let (Failed::Fault(fault), Some(address)) = (failed, connection.address()) {
        tracing::debug!("shard {}: {address}: TLS handshake failed: {fault}", server.index());
    }
}

fn counter_of(fault: &Fault) -> Counter {
    match fault {
        Fault::PlainHttp => Counter::TlsPlainHttp,
        Fault::NotTls => Counter::TlsNotTls,
        Fault::Version(_) => Counter::TlsVersion,
        Fault::Protocol => Counter::TlsProtocol,
        Fault::Name => Counter::TlsName,
        Fault::Certificate(_) => Counter::TlsCertificate,
        Fault::Alert(_) => Counter::TlsAlerts,
        Fault::TooLarge | Fault::Broken(_) => Counter::TlsBroken,
    }
}

/// The handshake. A permit is taken once there is something to read.
async fn shake(
    mut handshake: Handshake,
    stream: &mut TcpStream,
    mut permit: impl FnMut() -> Result<TlsPermit, Counter>,
    handshaking: &Semaphore,
) -> Result<Box<Session>, Failed> {
    // It counts as one under way until it is dropped.
    let (mut input, mut output, mut taken) = (vec![0; READ_BYTES], Vec::new(), None);
    loop {
        let len = match stream.read(&mut input).await {
            Ok(0) | Err(_) => return Err(Failed::Closed),
            Ok(len) => len,
        };
        if taken.is_none() {
            let permit = taken.insert(permit().map_err(Failed::Limited)?);
            if !permit.wait.is_zero() {
                glommio::timer::sleep(permit.wait).await;
            }
        }
        // An error is a closed semaphore, and it is never closed.
        let step_permit = handshaking.acquire_permit(1).await.map_err(|_| Failed::Closed)?;
        let step = handshake.feed(&input[..len], &mut output);
        drop(step_permit);
        if !output.is_empty() {
            let written = stream.write_all(&output).await;
            if step.is_ok() && written.is_err() {
                return Err(Failed::Closed);
            }
            output.clear();
        }
        if step.map_err(Failed::Fault)? == Step::Done {
            return Ok(handshake.into_session());
        }
    }
}
