//! All parts of a running server: started in order, reloaded, stopped in order.

use std::fmt::Display;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded};

use super::StartError;
use super::certificates;
use super::health;
use super::machine::new_epoch;
use super::market::{Market, Shared};
use super::threads::{CHECK_INTERVAL, GRACE, join, ms};
use crate::access::{self, Access};
use crate::archive;
use crate::clock::{self, now_ns, wall_ns};
use crate::config::{AdminListen, Config, DelayedMarket, Reloaded};
use crate::http::HttpShared;
use crate::http::admin::{AdminServer, AdminSocket, SocketFile};
use crate::ingest::delay::{DelayedOpener, Spool};
use crate::ingest::registry::Spec;
use crate::lifecycle::{Lifecycle, Stage};
use crate::log::{Log, parse_filter};
use crate::tls::{ServerSettings, TlsServer};
use crate::usage::UsageLog;

/// Time that feeds have to be open before the server says that it has started. It starts without those that are not.
const OPENING: Duration = Duration::from_secs(1);

/// A running server.
pub(super) struct Server {
    live: Market,
    delayed: Vec<Market>,
    health: JoinHandle<()>,
    /// Ends the health thread when it is dropped.
    health_stop: Sender<()>,
    admin: Option<Admin>,
    /// The settings in effect.
    config: Config,
    /// No other server writes to the folder of the archive.
    _archive_lock: Option<File>,
}

/// The admin listener.
struct Admin {
    listen: AdminListen,
    server: Arc<AdminServer>,
    thread: JoinHandle<()>,
    /// Removed with the server.
    _file: Option<SocketFile>,
}

impl Server {
    /// Starts the delayed markets, the live one, and what they share.
    pub(super) fn start(config: &Config, lifecycle: Arc<Lifecycle>) -> Result<Self, StartError> {
        check_feeds(config)?;
        let archive_lock = config.archive.as_ref().map(|archive| archive::lock(&archive.folder)).transpose();
        let archive_lock = archive_lock.map_err(StartError::Archive)?;
        let admin = config.admin_listen.as_ref().map(AdminSocket::bind).transpose()?;
        let shared = Shared {
            tls: load_tls(config)?,
            access: start_access(config)?,
            auth_failures: Arc::default(),
            lifecycle,
            delayed: Vec::new(),
            spool: None,
        };
        let (delayed, spool) = start_delayed(config, &shared)?;
        let states = delayed.iter().map(|market| market.state.clone()).collect();
        let live = Market::start(config, Shared { delayed: states, spool, ..shared })?;
        let (health_stop, stopped) = bounded(0);
        clock::watch_pauses();
        let wakers = delayed.iter().chain([&live]).flat_map(Market::wakers).collect();
        let health = health::spawn(live.state.clone(), wakers, stopped).map_err(StartError::Thread)?;
        let admin =
            admin.map(|socket| start_admin(socket, live.http.clone())).transpose().map_err(StartError::Thread)?;
        live.state.sources.wait_until_opened(OPENING);
        Ok(Self { live, delayed, health, health_stop, admin, config: config.clone(), _archive_lock: archive_lock })
    }

    /// Where the admin listener listens.
    pub(super) fn admin(&self) -> Option<&AdminListen> {
        self.admin.as_ref().map(|admin| &admin.listen)
    }

    /// The address that the server listens on.
    pub(super) fn address(&self) -> SocketAddr {
        self.live.address
    }

    /// The address for TLS.
    pub(super) fn tls_address(&self) -> Option<SocketAddr> {
        self.live.tls_address
    }

    /// The addresses of the delayed markets, without and with TLS, and their delays.
    pub(super) fn delayed(&self) -> impl Iterator<Item = (u32, SocketAddr, Option<SocketAddr>)> {
        self.delayed.iter().map(|market| (market.state.delay_s(), market.address, market.tls_address))
    }

    /// Applies the settings that can change without a restart. If any of them is invalid, nothing is changed.
    pub(super) fn reload<E: Display>(&mut self, log: &Log, read: Result<Config, E>) {
        let invalid = |error: &dyn Display| tracing::error!("SIGHUP: nothing was changed: {error}");
        let mut config = match read {
            Ok(config) => config,
            Err(error) => return invalid(&error),
        };
        let filter = match parse_filter(&config.log) {
            Ok(filter) => filter,
            Err(error) => return invalid(&error),
        };
        let Reloaded { changed, fixed } = config.reload(&self.config);
        self.config = config.clone();
        self.live.state.publishers.set_identities(&config.publishers);
        if let Some(tls) = &self.live.state.tls {
            certificates::reload(tls, &config.tls_pairs);
        }
        if changed.contains(&"issuer")
            && let Err(problem) = self.live.state.access.apply(config.access.clone(), now_ns())
        {
            tracing::error!("SIGHUP: issuers, keys and rights were not changed: {problem}");
        }
        for market in &self.delayed {
            let of_market = config.delayed.iter().find(|of| of.delay_s == market.state.delay_s());
            of_market.inspect(|of| market.change_settings(&Arc::new(config.of_delayed(of))));
        }
        let config = Arc::new(config);
        self.live.change_settings(&config);
        if let Some(admin) = &self.admin {
            admin.server.change_settings(config);
        }
        let changed = if changed.is_empty() { "nothing has changed".to_owned() } else { changed.join(", ") };
        tracing::info!("SIGHUP: settings were read again: {changed}");
        if !fixed.is_empty() {
            tracing::warn!("SIGHUP: not changed, since it needs a restart: {}", fixed.join(", "));
        }
        if let Err(error) = log.change(filter, self.config.log_lines_per_s) {
            tracing::error!("SIGHUP: the filter of the log was not changed: {error}");
        }
    }

    /// Drains and stops. The server accepts connections until the last client has closed: a load balancer learns from
    /// `/readyz` that the server stops, and new clients get 503 rather than a reset.
    pub(super) fn stop(self) -> Result<(), StartError> {
        let Config { drain_ms, drain_timeout_ms, .. } = self.config;
        tracing::info!("stopping: clients are closed over {drain_ms} ms; a second signal ends the process at once");
        self.live.state.lifecycle.enter(Stage::Draining);
        self.await_publishers();
        let drains: Vec<_> = self.markets().map(|market| market.drain(&self.config)).collect();
        let until = Instant::now() + ms(drain_ms) + ms(drain_timeout_ms) + GRACE;
        for (all_drained, shards) in drains {
            for _ in 0..shards {
                // An error is a shard that has failed: it has dropped its sender.
                let _ = all_drained.recv_deadline(until);
            }
        }
        self.join()
    }

    fn markets(&self) -> impl Iterator<Item = &Market> {
        self.delayed.iter().chain([&self.live])
    }

    /// Waits until everything that publishers had sent when the drain began is sequenced, so that clients get it before
    /// they are closed. Publishers and feeds continue meanwhile, for the clients that are closed last.
    fn await_publishers(&self) {
        let until = Instant::now() + GRACE;
        while !self.live.state.publishers.all_handed_in() && Instant::now() < until {
            std::thread::sleep(CHECK_INTERVAL);
        }
    }

    /// Ends all threads.
    fn join(self) -> Result<(), StartError> {
        let state = self.live.state.clone();
        state.lifecycle.enter(Stage::Stopping);
        self.markets().for_each(|market| market.state.sources.stop());
        // A thread that hangs must not keep the process: it ends with the main thread.
        let mut hung = Vec::new();
        for market in self.delayed.into_iter().chain([self.live]) {
            market.join(self.config.drain_timeout_ms, &mut hung);
        }
        if let Some(admin) = self.admin {
            hung.extend((!join(admin.thread)).then(|| "the admin listener".to_owned()));
        }
        // Last: what ends with the shards is in it.
        hung.extend((!state.access.usage().stop()).then(|| "the usage log".to_owned()));
        drop(self.health_stop);
        hung.extend((!join(self.health)).then(|| "the health thread".to_owned()));
        for what in &hung {
            tracing::error!("{what} did not end within {} s", GRACE.as_secs());
        }
        match state.lifecycle.failure() {
            Some(failure) => Err(StartError::Failed(failure.to_owned())),
            None if hung.is_empty() => Ok(()),
            None => Err(StartError::Failed(format!("{} did not end", hung.join(", ")))),
        }
    }
}

/// Opens the spool, and starts the delayed markets, which read it.
fn start_delayed(config: &Config, shared: &Shared) -> Result<(Vec<Market>, Option<Arc<Spool>>), StartError> {
    let Some(settings) = config.spool() else { return Ok((Vec::new(), None)) };
    let spool = Arc::new(Spool::open(settings)?);
    let start = |market: &DelayedMarket| {
        let opener = DelayedOpener { spool: spool.clone(), delay_s: market.delay_s, live_epoch: config.shard.epoch };
        let mut of_market = config.of_delayed(market);
        of_market.feeds = vec![Spec::of_delayed(Arc::new(opener))];
        of_market.shard.epoch = new_epoch()?;
        Market::start(&of_market, shared.clone())
    };
    let markets = config.delayed.iter().map(start).collect::<Result<_, _>>()?;
    Ok((markets, Some(spool)))
}

/// Reads the files that the settings name, as a start does, and keeps nothing of them.
///
/// # Errors
/// What is wrong with the first that cannot be used.
pub fn check_files(config: &Config) -> Result<(), StartError> {
    check_feeds(config)?;
    load_tls(config)?;
    load_access(config).map(drop)
}

fn check_feeds(config: &Config) -> Result<(), StartError> {
    config.feeds.iter().filter_map(Spec::opener).try_for_each(|opener| opener.check()).map_err(StartError::Feed)
}

/// Reads the certificates, if there is a listener for TLS.
fn load_tls(config: &Config) -> Result<Option<Arc<TlsServer>>, StartError> {
    if config.tls_listen.is_none() {
        return Ok(None);
    }
    let (pairs, client_ca) = (config.tls_pairs.clone(), config.tls_client_ca.clone());
    let settings = ServerSettings { pairs, min_version: config.tls_min_version, client_ca };
    Ok(Some(Arc::new(TlsServer::load(&settings, certificates::now_s())?)))
}

/// Who may subscribe, with the thread that keeps keys current.
fn start_access(config: &Config) -> Result<Arc<Access>, StartError> {
    let access = load_access(config)?;
    let usage = UsageLog::start(&config.usage, config.shard.epoch).map_err(StartError::Usage)?;
    let access = Arc::new(access.with_usage(usage));
    if config.access.is_on() {
        access.start().map_err(StartError::Thread)?;
    }
    Ok(access)
}

fn load_access(config: &Config) -> Result<Access, StartError> {
    let now = access::Now { wall_s: wall_ns() / 1_000_000_000, ns: now_ns() };
    Access::new(config.access.clone(), config.revocations_file.as_deref(), now).map_err(StartError::Access)
}

fn start_admin(mut socket: AdminSocket, http: Arc<HttpShared>) -> std::io::Result<Admin> {
    let (listen, file) = (socket.listen.clone(), socket.file.take());
    let (server, thread) = AdminServer::spawn(socket, http)?;
    Ok(Admin { listen, server, thread, _file: file })
}
