//! What the process of an attack is to do.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::args::AttackPriority;
use super::kind::AttackKind;
use super::script::ScriptInput;

/// The task of the process: one line of JSON on its stdin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttackTask {
    pub kind: AttackKind,
    pub address: SocketAddr,
    /// The URL of the stream.
    pub url: String,
    /// The authorities of the server's certificate, for `wss://`.
    pub ca: Option<PathBuf>,
    /// The `Host` of its requests.
    pub authority: String,
    /// The path of the stream.
    pub path: String,
    /// An instrument that the innocent clients receive.
    pub symbol: String,
    pub connections: u32,
    /// Actions a second.
    pub rate: u32,
    pub priority: AttackPriority,
    /// Addresses to bind, round robin; empty where the kernel is to choose.
    pub sources: Vec<IpAddr>,
    /// The token of a publisher.
    pub token: Option<String>,
    /// The server's process, where the run knows it.
    pub server_pid: Option<u32>,
}

impl AttackTask {
    /// What its script depends on.
    pub fn script_input(&self) -> ScriptInput<'_> {
        let Self { authority, path, symbol, connections, rate, .. } = self;
        ScriptInput { authority, path, symbol, connections: *connections, rate: *rate }
    }
}
