//! `tickcast floor`: a server without protocol, subscriptions and checks, to measure the server against.
//!
//! A connection to `/v1/publish` is a publisher: the payload of each of its binary messages goes unchanged to all
//! connections to other paths. The messages since the last flush go out with one send for each subscriber. That is the
//! least work of the kernel for the same bytes; the server's figures are shown beside it.
//!
//! * `floor_loop`: the loop. `sockets`: what it asks of the kernel; `uring` and `epoll` implement it.
//! * `secured`: the same over TLS, with the least of rustls.
//! * `backlog`: what subscribers have not been sent yet.
//! * `frames` and `request`: the least of WebSocket and HTTP.
//! * `rival`: the same server on tokio and tokio-tungstenite, the usual way in Rust. Only with the feature `rivals`.
//!
//! It ends on a signal, and when its stdin, where that is a pipe, is closed: it does not outlive its parent.

mod backlog;
mod epoll;
mod floor_loop;
mod frames;
mod request;
#[cfg(feature = "rivals")]
mod rival;
mod secured;
mod sockets;
mod tally;
mod uring;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::fs::FileType;
use socket2::{Domain, Protocol, Socket, Type};

use self::epoll::EpollSockets;
use self::floor_loop::FloorLoop;
use self::secured::SecuredSockets;
use self::sockets::Sockets;
use self::tally::FloorTally;
use self::uring::UringSockets;
use crate::load::error::LoadError;
use crate::load::machine::{descriptors_max, ensure_descriptors};
use crate::tls::BareServer;

/// Connections that may wait for their accept; the kernel's own limit applies where it is lower.
const BACKLOG: i32 = 65_535;

/// Serves without protocol, subscriptions and checks: the baseline of the server's cost.
#[derive(Clone, Debug, clap::Args)]
pub struct FloorArgs {
    /// Address and port to listen on
    #[arg(long, default_value = "127.0.0.1:9002", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
    /// How it sends
    #[arg(long, value_enum, default_value_t = SendMethod::IoUring)]
    pub sends: SendMethod,
    /// Send each message to one subscriber: instrument 1 to the first that connected, and so on
    #[arg(long)]
    pub each: bool,
    /// Most connections; by default as many as the limit of descriptors allows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_max: Option<u32>,
    /// Kernel send buffer of a connection; the default is the server's
    #[arg(long, default_value_t = 65_536, value_name = "BYTES")]
    pub send_buffer_bytes: u32,
    /// Serve connections over TLS as well as plain ones, with this certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Most bytes to keep for subscribers that are behind; those that need more miss messages, which are counted
    #[arg(long, default_value_t = 67_108_864, value_name = "BYTES")]
    pub backlog_bytes_max: u32,
}

/// The way to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SendMethod {
    /// Batches of io_uring sends on registered files
    IoUring,
    /// send(2) from an epoll loop
    Send,
    /// A task for each connection, fed by a broadcast channel
    TokioTungstenite,
}

/// Runs `tickcast floor` until a signal or the end of stdin. Writes to `out` the address on which it listens, and its
/// counts at the end.
pub fn floor(args: &FloorArgs, out: &mut impl Write) -> Result<(), LoadError> {
    let connections_max = args.connections_max.unwrap_or_else(|| descriptors_max().min(1_000_000) as u32);
    ensure_descriptors(u64::from(connections_max))?;
    let failed = |error| LoadError::System { what: "floor", error };
    let listener = listen(args).map_err(failed)?;
    let stop = stop_socket().map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let print = |out: &mut dyn Write, line: &str| writeln!(out, "{line}").and_then(|()| out.flush());
    let ready = |out: &mut dyn Write| print(out, &format!("listening on {address}")).map_err(LoadError::Output);
    let secured = args.tls_cert.as_ref().zip(args.tls_key.as_ref());
    let secured = secured.map(|(cert, key)| BareServer::load(cert, key)).transpose();
    let secured = secured.map_err(|error| LoadError::Arguments(error.to_string()))?;
    let tally = match args.sends {
        SendMethod::IoUring => {
            let mut ring = UringSockets::new(connections_max, listener).map_err(failed)?;
            ring.stop_on(&stop);
            ready(out)?;
            run(args, ring, secured, connections_max).map_err(failed)?
        }
        SendMethod::Send => {
            let epoll = EpollSockets::new(connections_max, listener, &stop).map_err(failed)?;
            ready(out)?;
            run(args, epoll, secured, connections_max).map_err(failed)?
        }
        SendMethod::TokioTungstenite if secured.is_some() => {
            return Err(LoadError::Arguments(
                "--tls-cert is not supported by tokio-tungstenite: expected --sends io-uring or send".into(),
            ));
        }
        SendMethod::TokioTungstenite => {
            ready(out)?;
            rival(listener, stop, args.each)?
        }
    };
    let line = serde_json::to_string(&tally).expect("numbers are JSON");
    // The reader may have gone.
    let _ = print(out, &line);
    Ok(())
}

/// Runs the loop on these sockets, or on a layer of TLS above them.
fn run<K: Sockets>(
    args: &FloorArgs,
    sockets: K,
    secured: Option<BareServer>,
    connections_max: u32,
) -> io::Result<FloorTally> {
    let backlog = args.backlog_bytes_max as usize;
    match secured {
        None => FloorLoop::new(sockets, connections_max, args.each, backlog).run(),
        Some(server) => {
            let sockets = SecuredSockets::new(sockets, server, connections_max);
            FloorLoop::new(sockets, connections_max, args.each, backlog).run()
        }
    }
}

#[cfg(feature = "rivals")]
fn rival(listener: TcpListener, stop: UnixStream, each: bool) -> Result<FloorTally, LoadError> {
    if each {
        return Err(LoadError::Arguments(
            "--each is not supported by tokio-tungstenite: expected --sends io-uring or send".into(),
        ));
    }
    rival::run(listener, stop).map_err(|error| LoadError::System { what: "tokio", error })
}

#[cfg(not(feature = "rivals"))]
fn rival(_listener: TcpListener, _stop: UnixStream, _each: bool) -> Result<FloorTally, LoadError> {
    Err(LoadError::Arguments(
        "--sends tokio-tungstenite needs a build with 'cargo build --release --features rivals'".into(),
    ))
}

/// A listener whose connections have TCP_NODELAY and the server's send buffer.
fn listen(args: &FloorArgs) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(args.listen), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Connections inherit both.
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(args.send_buffer_bytes as usize)?;
    socket.bind(&args.listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket that becomes readable when the floor is to end.
fn stop_socket() -> io::Result<UnixStream> {
    let (here, there) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, there.try_clone()?)?;
    }
    let input = rustix::fs::fstat(io::stdin())?;
    if FileType::from_raw_mode(input.st_mode) == FileType::Fifo {
        // The thread ends with the process.
        std::thread::Builder::new().name("parent".to_owned()).spawn(move || {
            let mut there = there;
            while matches!(io::stdin().read(&mut [0; 64]), Ok(1..)) {}
            // Where the other end is closed, the process is ending.
            let _ = there.write_all(&[0]);
        })?;
    }
    Ok(here)
}
