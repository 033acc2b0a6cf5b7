//! The source of a venue: passes on what the network has, and does what the driver says.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tickcast_venues::Access;

use super::driver::{Command, Driver, POLL_NS};
use super::observer::Observer;
use super::params::Params;
use crate::clock::now_ns;
use crate::ingest::source::{Batch, Next, Report, SOURCE_BATCH_BYTES_MAX, Source, SourceError, Stream, Times};
use crate::ingest::stop::Stop;
use crate::ingest::transport::address::Address;
use crate::ingest::transport::network::Network;
use crate::ingest::transport::rest;
use crate::ingest::transport::websocket::{LinkId, SCHEMES, Target};
use crate::tls::Connector;

/// A venue, connected.
#[derive(Debug)]
pub struct VenueSource {
    driver: Driver,
    network: Network,
    targets: Vec<Target>,
    polled_ns: u64,
    /// Records that came while the source was opened.
    first: Vec<u8>,
}

impl VenueSource {
    /// Connects, and waits until the first instruments are subscribed. `has_run` says that the symbols were in the
    /// venue's list before; the observer sees all messages.
    ///
    /// # Errors
    /// The venue cannot be reached, does not serve this machine, or does not list a symbol.
    pub fn open(
        params: &Params,
        has_run: &Arc<AtomicBool>,
        observer: Option<Box<dyn Observer>>,
        stop: &Stop,
    ) -> Result<Self, SourceError> {
        let access = params.venue.access();
        let connector = Connector::new(&params.roots).map_err(|error| SourceError::Fatal {
            reason: format!("ca_file: {error}"),
            cure: "give a PEM file with the authority's certificate, and restart the server".to_owned(),
        })?;
        let (targets, rest) = targets(&access, params.server.as_ref());
        let network = Network::new(stop, connector, (rest, access.limits.rest));
        let network = network.map_err(|error| SourceError::retry(error.to_string()))?;
        let mut driver = Driver::new(params, access, has_run, now_ns());
        observer.into_iter().for_each(|observer| driver.observe(observer));
        let mut source = Self { driver, network, targets, polled_ns: 0, first: Vec::new() };
        let mut batch = Batch::default();
        while !source.driver.is_subscribed() && !stop.is_stopped() {
            let deadline_ns = now_ns() + POLL_NS;
            source.receive_until(deadline_ns, &mut batch)?;
        }
        source.first = batch.records;
        Ok(source)
    }

    /// Passes on what happens until there are records, or until this time.
    fn receive_until(&mut self, deadline_ns: u64, batch: &mut Batch) -> Result<(), SourceError> {
        let length_before = batch.records.len();
        loop {
            let now = now_ns();
            if now.saturating_sub(self.polled_ns) >= POLL_NS {
                self.polled_ns = now;
                let may_request = self.network.request_at_ns(now) <= now;
                self.driver.poll(now, may_request, &mut batch.records)?;
                self.execute();
            }
            if batch.records.len() > length_before {
                return Ok(());
            }
            let Some(event) = self.network.next(deadline_ns.min(self.polled_ns + POLL_NS)) else {
                if now_ns() >= deadline_ns {
                    return Ok(());
                }
                // It was time for a poll, or the server stops, which ends the wait at once.
                if self.network.is_stopped() {
                    return Ok(());
                }
                continue;
            };
            let now = now_ns();
            self.driver.take(event, now, &mut batch.records)?;
            while batch.records.len() < SOURCE_BATCH_BYTES_MAX
                && let Some(event) = self.network.next_now()
            {
                self.driver.take(event, now, &mut batch.records)?;
            }
            self.execute();
        }
    }

    fn execute(&mut self) {
        for command in self.driver.take_commands() {
            match command {
                Command::Open { link, endpoint } => self.network.open(link, self.targets[endpoint].clone()),
                Command::Send { link, text } => self.send(link, text),
                Command::Close(link) => self.network.close(link),
                Command::Get(get) => {
                    // At most a few are made at once, which is less than can wait.
                    let number = get.number;
                    assert!(self.network.get(get), "request {number} cannot wait");
                }
            }
        }
    }

    /// A connection that takes no more texts is lost: the venue reads none.
    fn send(&mut self, link: LinkId, text: String) {
        if !self.network.send(link, text) {
            self.network.fail(link, "it takes no messages");
        }
    }
}

impl Source for VenueSource {
    fn receive(&mut self, times: Times, batch: &mut Batch) -> Result<Next, SourceError> {
        if !self.first.is_empty() {
            batch.records.append(&mut self.first);
            return Ok(Next::Now);
        }
        self.receive_until(times.deadline_ns, batch)?;
        Ok(Next::Now)
    }

    fn streams(&self) -> Vec<Stream> {
        self.driver.streams()
    }

    fn report(&self) -> Report {
        self.driver.report()
    }
}

/// Where the connections go, and the HTTP requests: to the venue, or to the server in its place.
fn targets(access: &Access, server: Option<&Address>) -> (Vec<Target>, Address) {
    let parse = |url: &str, schemes| {
        let address = Address::parse(url, schemes).expect("the addresses of venues are valid, see the test");
        server.map_or_else(|| address.clone(), |server| address.at(server))
    };
    let target = |endpoint: &tickcast_venues::Endpoint| Target {
        address: parse(endpoint.url, SCHEMES),
        connects: access.limits.connects,
        messages: access.limits.messages,
    };
    (access.endpoints.iter().map(target).collect(), parse(access.rest, rest::SCHEMES))
}

#[cfg(test)]
mod tests;
