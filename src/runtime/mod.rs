//! Starts and stops a server: threads, cores, signals, log. glommio is the executor of every shard.
//!
//! * `server`: starts all parts in order, applies reloaded settings, drains and stops; `market`: a sequencer with its
//!   shards and sources; `threads`: how their ends are waited for.
//! * `shard_thread`: the thread of one shard; `shard_driver`: what it does between two sleeps.
//! * `certificates`: what is read again while the server runs.
//! * `panics`: what a panic does; `health`: whether the shards run, and what the service manager learns.
//! * `signals`, `output`, `machine`: SIGTERM, SIGINT and SIGHUP; stdout and stderr; cores and descriptors.
//!
//! Threads: one per shard, pinned to its core. Pinned to the other cores: one per feed and publisher, and one that
//! resynchronises shards. Not pinned: one that makes bars, one that watches the shards, one for signals, and the main
//! thread, which waits for events.

mod certificates;
mod error;
mod health;
mod machine;
mod market;
mod output;
mod panics;
mod server;
mod shard_driver;
mod shard_thread;
mod signals;
mod threads;

use std::sync::Arc;

pub use self::error::StartError;
pub use self::machine::{machine, new_epoch, take_reserve};
pub use self::output::{print, print_error};
pub use self::server::check_files;
pub use crate::log::Log;

use self::server::Server;
use self::signals::Signals;
use crate::check::{Needs, Survey};
use crate::config::Config;
use crate::lifecycle::{Event, Lifecycle};

/// Serves until a signal, then drains and returns. On SIGHUP, `read_settings` reads the settings again.
pub fn serve<E: std::fmt::Display>(
    config: &Config,
    log: &Log,
    read_settings: impl Fn() -> Result<Config, E>,
) -> Result<(), StartError> {
    let survey = Survey::here(Needs::of(config));
    survey.refusal()?;
    if let Some(warning) = survey.warning() {
        tracing::warn!("{warning}");
    }
    panics::install_hook();
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let signals = Signals::install()?;
    let (lifecycle, events) = Lifecycle::begin();
    let lifecycle = Arc::new(lifecycle);
    let mut server = Server::start(config, lifecycle.clone())?;
    signals.forward_to(&lifecycle)?;
    if let Some(admin) = server.admin() {
        print(format!("admin listener on {admin}\n"));
    }
    if let Some(tls) = server.tls_address() {
        print(format!("serving TLS on https://{tls}\n"));
    }
    for (delay_s, address, tls) in server.delayed() {
        let tls = tls.map_or_else(String::new, |tls| format!(" and https://{tls}"));
        print(format!("serving the market of {delay_s} s ago on http://{address}{tls}\n"));
    }
    print(format!("serving on http://{}\n", server.address()));
    health::notify_ready();
    for event in events {
        match event {
            Event::Reload => {
                health::notify_reloading();
                server.reload(log, read_settings());
                health::notify_ready();
            }
            Event::Stop | Event::Failed => break,
        }
    }
    health::notify_stopping();
    let stopped = server.stop();
    log.flush();
    stopped
}
