//! How long a client waits for a server.

use std::time::Duration;

/// How long a TCP connect, the upgrade, and the answer to a publisher's request may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
