//! One workload against one server.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;

use super::plan::{Dialect, LoadPlan, publication};
use super::planned_attack::PlannedAttack;
use super::processes::WorkerProcesses;
use super::progress::StageBar;
use super::publisher::{LoadPublisher, PublisherResult};
use super::stages::{ActiveRun, StageLengths, TailRule};
use crate::load::args::LoadArgs;
use crate::load::cores::available;
use crate::load::directory::{connect, fetch_symbols};
use crate::load::error::LoadError;
use crate::load::latency::{LatencyOrigin, LatencySummary};
use crate::load::machine::sources_for;
use crate::load::observe::server::ServerObserver;
use crate::load::report::{LimitedReport, LoadReport, PauseReport, PublisherReport};
use crate::load::worker::messages::{ClientPlan, ClientRole, ReadOptions, WorkerJob};
use tickcast_client::Target;

/// One workload against one server.
#[derive(Debug)]
pub struct LoadRun<'a> {
    pub args: &'a LoadArgs,
    pub target: Target,
    /// Where to publish, and with which token.
    publish_url: String,
    publish_token: Option<&'a str>,
    /// Publish without defining instruments.
    is_plain: bool,
    dialect: Dialect,
    /// The server's process, where it is known.
    pub server_pid: Option<u32>,
}

impl<'a> LoadRun<'a> {
    /// The run that the arguments ask for.
    pub fn new(args: &'a LoadArgs) -> Result<Self, LoadError> {
        let target = Target::parse(&args.url)?;
        let (publish_url, publish_token) = match &args.publish.publish_url {
            Some(url) => (url.clone(), None),
            None => (publish_url(&target), args.publish.publish_token.as_deref()),
        };
        let dialect = match args.message.is_empty() {
            true => Dialect::Tickcast,
            false => Dialect::Other(args.message.clone()),
        };
        let server_pid = args.server.server_pid;
        let is_plain = args.publish.publish_plain;
        Ok(Self { args, target, publish_url, publish_token, is_plain, dialect, server_pid })
    }

    /// The same workload against a bare server, which passes on what is published.
    pub fn against_baseline(
        args: &'a LoadArgs,
        measured: &Target,
        address: SocketAddr,
        pid: u32,
    ) -> Result<Self, LoadError> {
        let target = match measured.is_secured() {
            // By the name that the certificate is for.
            true => measured.at_port(address.port()).with_path("/subscribe"),
            false => Target::parse(&format!("{address}/subscribe"))?,
        };
        Ok(Self {
            args,
            publish_url: publish_url(&target),
            publish_token: None,
            target,
            is_plain: true,
            dialect: Dialect::Other(Vec::new()),
            server_pid: Some(pid),
        })
    }

    /// Runs it, under this attack where there is one. Returns the cores of the server as well, where its process can be
    /// observed.
    pub fn run(
        &self,
        stages: &StageLengths,
        stop: &AtomicBool,
        attack: Option<PlannedAttack>,
    ) -> Result<(LoadReport, Option<Vec<usize>>), LoadError> {
        let args = self.args;
        // A server that is not there is one error here, rather than one for every client.
        let stream = connect(&self.target, args.ca.as_deref())?;
        let address = stream.socket().peer_addr().map_err(|error| LoadError::System { what: "peer address", error })?;
        drop(stream);
        let publisher = publication(args, self.is_plain)
            .map(|publication| {
                LoadPublisher::connect(&self.publish_url, self.publish_token, args.ca.as_deref(), publication)
            })
            .transpose()?;
        let plan = self.plan(address)?;
        let observer = match (ServerObserver::new(address, self.server_pid), self.server_pid) {
            (Err(error), Some(_)) => return Err(error.into()),
            (observer, _) => observer,
        };
        let server_cores = observer.as_ref().ok().and_then(|observer| observer.cores().ok());
        let cores = self.load_cores(server_cores.as_deref());
        let jobs = plan.split(&WorkerJob { cores: cores.clone(), ..self.job(address) }, args.processes as usize);
        let mut active = ActiveRun {
            clients: u64::from(args.clients),
            stages: *stages,
            tail: if args.pause.is_some() { TailRule::MEASURED } else { TailRule::UNMEASURED },
            stop,
            workers: WorkerProcesses::start(jobs, stages.launch)?,
            progress: StageBar::new(),
            observer,
            attack,
            attacked: None,
            cores,
        };
        let published = active.run(publisher)?;
        Ok((self.report(&plan, active, published)?, server_cores))
    }

    /// The cores to run on: the given ones, or those that the server does not use; `None` for any where it uses all.
    pub fn load_cores(&self, server: Option<&[usize]>) -> Option<Vec<usize>> {
        if let Some(given) = &self.args.load_cores {
            return Some(given.0.clone());
        }
        let chosen = self.args.server.server_cores.as_ref().map(|list| list.0.as_slice());
        let server = chosen.or(server)?;
        let free: Vec<_> = available().ok()?.into_iter().filter(|core| !server.contains(core)).collect();
        (!free.is_empty()).then_some(free)
    }

    fn plan(&self, address: SocketAddr) -> Result<LoadPlan, LoadError> {
        let args = self.args;
        let given = args.source.as_ref().map_or(&[][..], |sources| &sources.0);
        let connections = u64::from(args.clients) + u64::from(args.storm);
        let sources = sources_for(connections, given, address.ip())?;
        LoadPlan::new(args, &self.dialect, &sources, || fetch_symbols(&self.target, args.ca.as_deref()))
    }

    /// What the jobs of all processes have in common.
    fn job(&self, address: SocketAddr) -> WorkerJob {
        let args = self.args;
        let origin = if args.publish.publish.is_some() { LatencyOrigin::Scheduled } else { LatencyOrigin::Received };
        WorkerJob {
            address,
            url: self.target.to_string(),
            ca: args.ca.clone(),
            tls_resume: args.tls_resume,
            options: ReadOptions {
                opaque: self.dialect != Dialect::Tickcast,
                origin,
                dense: false,
                limited_format: args.limited_format,
            },
            requests: Vec::new(),
            instruments: publication(args, self.is_plain).map_or(0, |publication| publication.instruments.into()),
            clients: Vec::new(),
            storm: Vec::new(),
            threads: args.threads as usize,
            pending_max: args.pending as usize,
            churn_per_s: args.churn,
            stall_for_ms: args.stall_for.map(|seconds| (seconds * 1e3) as u64),
            pause: args.pause,
            read_rate: args.read_rate,
            cores: None,
        }
    }

    /// Collects the results. Where no client connected, that is the error.
    fn report(
        &self,
        plan: &LoadPlan,
        active: ActiveRun<'_>,
        published: Option<PublisherResult>,
    ) -> Result<LoadReport, LoadError> {
        let count =
            |is_one: &dyn Fn(&ClientPlan) -> bool| plan.steady.iter().filter(|plan| is_one(plan)).count() as u64;
        let stalled = count(&|plan| plan.role == ClientRole::Stalled);
        let url = self.target.to_string();
        let has_live = plan.steady.iter().any(|plan| plan.role == ClientRole::Steady && !plan.pauses);
        let live_latency = has_live.then(LatencySummary::default);
        let pauses = count(&|plan| plan.pauses);
        let pause = self.args.pause.map(|times| PauseReport { times, clients: pauses, live_latency });
        let limited = self.args.read_rate.map(|rate| LimitedReport {
            read_bytes_per_second: rate.bytes_per_second,
            clients: count(&|plan| plan.role == ClientRole::Limited),
            ..LimitedReport::default()
        });
        let clients = active.clients;
        let attack = active.attacked;
        let mut report = LoadReport { url, clients, stalled, pause, limited, attack, ..LoadReport::default() };
        let windows = report.gather(active.workers.tallies()?, plan.storm.len() as u64);
        if report.connected == 0 {
            let why = report.refused.into_iter().next().map_or_else(String::new, |(why, _)| why);
            return Err(LoadError::Refused(why));
        }
        let due = published.as_ref().map(|result| {
            let (schedule, records) = (result.schedule, result.published.records);
            move |at_ns: u64| schedule.due_count(at_ns).min(records)
        });
        report.publisher = published.zip(self.args.publish.publish).map(|(result, rate)| publisher(&result, rate));
        let due = due.as_ref().map(|due| due as &dyn Fn(u64) -> u64);
        report.measure(&windows, active.stages.measure.as_secs() as usize, due);
        match &active.observer {
            Ok(observer) => {
                report.server = report.measured.as_ref().and_then(|measured| {
                    observer.usage(report.connected, measured.records_per_second, measured.messages_per_second)
                });
            }
            Err(error) => report.server_unseen = Some(error.to_string()),
        }
        Ok(report)
    }
}

fn publisher(result: &PublisherResult, rate: u64) -> PublisherReport {
    PublisherReport {
        rate,
        records: result.records,
        records_per_second: result.records as f64 / result.seconds.max(1e-9),
        lateness: result.lateness.own.summary(),
        held_lateness: result.lateness.blocked.summary(),
        held_seconds: result.blocked.as_secs_f64(),
        cpu_seconds: result.cpu_seconds,
    }
}

fn publish_url(target: &Target) -> String {
    target.with_path("/v1/publish").to_string()
}
