//! What each client of a run does: its subscription by shape, its role, its source address. Pure.

use std::net::IpAddr;

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_pcg::Pcg64Mcg;

use super::publisher::Publication;
use crate::load::args::{LoadArgs, LoadShape};
use crate::load::error::LoadError;
use crate::load::worker::messages::{
    ClientPlan, ClientRequest, ClientRole, ExpectedInstruments, ReadOptions, WorkerJob,
};
use tickcast_client::Subscription;
use tickcast_protocol::Channel;
use tickcast_protocol::sse::split_list;

/// The subscribe request's id; each connection sends one.
const REQUEST_ID: u64 = 1;
/// One connection in so many is read by tungstenite and the [`tickcast_client::decode::Decoder`].
const INDEPENDENT_EVERY: usize = 100;
/// The prefix of the names of the run's own instruments.
const PUBLISHED_PREFIX: &str = "LOAD-";

/// What all clients of a run do.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    pub requests: Vec<ClientRequest>,
    pub steady: Vec<ClientPlan>,
    pub storm: Vec<ClientPlan>,
    /// Each client receives most of the market.
    dense: bool,
}

/// What a server understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// tickcast's protocol.
    Tickcast,
    /// A server of another kind: these messages in place of a subscription.
    Other(Vec<String>),
}

/// What the arguments publish; `None` where they do not.
pub fn publication(args: &LoadArgs, is_plain: bool) -> Option<Publication> {
    let publish = &args.publish;
    Some(Publication {
        channel: publish.publish_channel,
        rate: publish.publish?,
        burst: publish.burst,
        size: publish.size as usize,
        records_per_packet: publish.records_per_packet,
        instruments: publish.instruments,
        is_plain,
    })
}

impl LoadPlan {
    /// The plan that the arguments ask for. The directory is fetched only where the shape needs it.
    pub fn new(
        args: &LoadArgs,
        dialect: &Dialect,
        sources: &[IpAddr],
        directory: impl FnOnce() -> Result<Vec<String>, LoadError>,
    ) -> Result<Self, LoadError> {
        let steady = args.clients as usize;
        let all = steady + args.storm as usize;
        let requests = match dialect {
            Dialect::Other(messages) => {
                vec![ClientRequest { messages: messages.clone(), expected: expected_of_other(args) }]
            }
            Dialect::Tickcast => requests(args, all, directory)?,
        };
        let mut stalls = Spread::new(args.stalled);
        let mut limits = Spread::new(args.read_rate.map_or(0.0, |rate| rate.percent));
        let mut pauses = Spread::new(args.pause.map_or(0.0, |pause| pause.percent));
        let mut plan = |index: usize| {
            let role = match () {
                () if index >= steady => ClientRole::Storm,
                () if stalls.takes_next() => ClientRole::Stalled,
                () if limits.takes_next() => ClientRole::Limited,
                () => ClientRole::Steady,
            };
            ClientPlan {
                request: (index % requests.len()) as u32,
                role,
                pauses: role == ClientRole::Steady && pauses.takes_next(),
                source: (!sources.is_empty()).then(|| sources[index % sources.len()]),
                independent: index.is_multiple_of(INDEPENDENT_EVERY),
            }
        };
        Ok(Self {
            steady: (0..steady).map(&mut plan).collect(),
            storm: (steady..all).map(&mut plan).collect(),
            dense: matches!(args.shape, LoadShape::All | LoadShape::Pattern(_)),
            requests,
        })
    }

    /// Splits the plan between processes, each with the requests that its own clients need. `job` is what all have in
    /// common.
    pub fn split(&self, job: &WorkerJob, processes: usize) -> Vec<WorkerJob> {
        let part = |nth: usize| {
            let (mut requests, mut indices) = (Vec::new(), vec![None; self.requests.len()]);
            let mut own = |all: &[ClientPlan]| -> Vec<ClientPlan> {
                let own = all.iter().skip(nth).step_by(processes);
                own.map(|plan| {
                    let request = plan.request as usize;
                    let index = *indices[request].get_or_insert_with(|| {
                        requests.push(self.requests[request].clone());
                        requests.len() as u32 - 1
                    });
                    ClientPlan { request: index, ..*plan }
                })
                .collect()
            };
            let (clients, storm) = (own(&self.steady), own(&self.storm));
            let churn_per_s = job.churn_per_s / processes as f64;
            let options = ReadOptions { dense: self.dense, ..job.options };
            WorkerJob { requests, clients, storm, churn_per_s, options, ..job.clone() }
        };
        (0..processes).map(part).collect()
    }
}

/// What a server of another kind passes on of the run's publisher.
fn expected_of_other(args: &LoadArgs) -> ExpectedInstruments {
    match (args.publish.publish, &args.shape) {
        (None, _) => ExpectedInstruments::Unknown,
        (Some(_), LoadShape::One) => ExpectedInstruments::Any(1),
        (Some(_), LoadShape::Random(count)) => ExpectedInstruments::Any(*count),
        (Some(_), LoadShape::All | LoadShape::Pattern(_)) => {
            ExpectedInstruments::These((0..args.publish.instruments).collect())
        }
    }
}

fn requests(
    args: &LoadArgs,
    clients: usize,
    directory: impl FnOnce() -> Result<Vec<String>, LoadError>,
) -> Result<Vec<ClientRequest>, LoadError> {
    let (channels, patterns) = (channels(args), patterns(args)?);
    let published = publication(args, false).map(|publication| publication.symbols());
    let request = |symbols: Vec<String>, indices: Vec<usize>| {
        let expected = match published {
            Some(_) => ExpectedInstruments::These(indices.into_iter().map(|index| index as u32).collect()),
            None => ExpectedInstruments::Unknown,
        };
        let subscription = Subscription::new(&channels, symbols).conflated(args.conflate_ms);
        ClientRequest { messages: vec![subscription.request(REQUEST_ID)], expected }
    };
    if matches!(args.shape, LoadShape::All | LoadShape::Pattern(_)) {
        let indices = published.as_ref().map_or(Ok(Vec::new()), |symbols| matching(symbols, &patterns))?;
        return Ok(vec![request(patterns, indices)]);
    }
    let symbols = match &published {
        Some(symbols) => symbols.clone(),
        None => directory()?,
    };
    let indices = matching(&symbols, &patterns)?;
    let named = |indices: Vec<usize>| {
        let names = indices.iter().map(|index| symbols[*index].clone()).collect();
        request(names, indices)
    };
    Ok(match args.shape {
        LoadShape::Random(count) => {
            let mut random = Pcg64Mcg::seed_from_u64(args.seed);
            let count = (count as usize).min(indices.len());
            let mut pick = |_| named(sample(&mut random, indices.len(), count).iter().map(|at| indices[at]).collect());
            (0..clients).map(&mut pick).collect()
        }
        _ => indices.into_iter().map(|index| named(vec![index])).collect(),
    })
}

/// The channels to subscribe to.
fn channels(args: &LoadArgs) -> Vec<Channel> {
    match (args.channels.is_empty(), args.publish.publish) {
        (false, _) => args.channels.clone(),
        (true, Some(_)) => vec![args.publish.publish_channel],
        (true, None) => vec![Channel::Quote, Channel::Trade, Channel::Ticker],
    }
}

/// The symbols or patterns that the shape chooses from.
fn patterns(args: &LoadArgs) -> Result<Vec<String>, LoadError> {
    let default = if args.publish.publish.is_some() { "LOAD-*" } else { "*" };
    let patterns = match &args.shape {
        LoadShape::Pattern(pattern) => vec![pattern.clone()],
        _ if args.symbols.is_empty() => vec![default.to_owned()],
        _ => args.symbols.iter().flat_map(|list| split_list(list)).collect(),
    };
    let foreign = patterns.iter().find(|pattern| !pattern.starts_with(PUBLISHED_PREFIX));
    match foreign {
        Some(pattern) if args.publish.publish.is_some() && args.message.is_empty() => {
            Err(LoadError::Arguments(format!(
                "--symbols {pattern:?} covers instruments of other sources: expected with --publish only names and \
                 patterns that begin with {PUBLISHED_PREFIX}, because its report counts each record of these"
            )))
        }
        _ => Ok(patterns),
    }
}

/// The indices of the symbols that the patterns cover.
fn matching(symbols: &[String], patterns: &[String]) -> Result<Vec<usize>, LoadError> {
    let covers = |pattern: &String, symbol: &str| match pattern.strip_suffix('*') {
        Some(prefix) => symbol.starts_with(prefix),
        None => pattern == symbol,
    };
    let is_covered = |index: &usize| patterns.iter().any(|pattern| covers(pattern, &symbols[*index]));
    let indices: Vec<_> = (0..symbols.len()).filter(is_covered).collect();
    if indices.is_empty() {
        let (known, patterns) = (symbols.len(), patterns.join(","));
        return Err(LoadError::Arguments(format!(
            "--symbols {patterns} matches none of the server's {known} instruments"
        )));
    }
    Ok(indices)
}

/// Takes a percentage of a series, spread evenly.
struct Spread {
    percent: f64,
    asked: usize,
}

impl Spread {
    fn new(percent: f64) -> Self {
        Self { percent, asked: 0 }
    }

    /// Whether the next one is among those that are taken.
    fn takes_next(&mut self) -> bool {
        let until = |count: usize| (count as f64 * self.percent / 100.0).floor();
        self.asked += 1;
        until(self.asked) > until(self.asked - 1)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn parse(flags: &[&str]) -> Result<LoadArgs, String> {
        let line = ["load"].into_iter().chain(flags.iter().copied());
        Cli::try_parse_from(line).map(|cli| cli.load).map_err(|error| error.to_string())
    }

    fn plan(flags: &[&str]) -> Result<LoadPlan, LoadError> {
        let args = parse(flags).unwrap_or_else(|error| panic!("{error}"));
        let sources = args.source.as_ref().map_or(&[][..], |sources| &sources.0);
        let names = ["BTC-USD", "ETH-USD", "BTC-EUR", "AAPL"].map(str::to_owned);
        LoadPlan::new(&args, &Dialect::Tickcast, sources, || Ok(names.to_vec()))
    }

    fn symbols_of(flags: &[&str]) -> Vec<Vec<String>> {
        let plan = plan(flags).expect("a plan");
        let parse = |client: &ClientPlan| -> serde_json::Value {
            serde_json::from_str(&plan.requests[client.request as usize].messages[0]).expect("JSON")
        };
        let symbols = |client| serde_json::from_value(parse(client)["symbols"].take()).expect("strings");
        plan.steady.iter().map(symbols).collect()
    }

    #[test]
    fn shapes_choose_the_symbols_of_each_client() {
        assert_eq!(symbols_of(&["--clients", "2", "--symbols", "BTC-*,X"]), [["BTC-*", "X"], ["BTC-*", "X"]]);
        assert_eq!(symbols_of(&["--clients", "1", "--shape", "pattern:ETH-*"]), [["ETH-*"]]);
        let one = symbols_of(&["--clients", "3", "--symbols", "BTC-*", "--shape", "one"]);
        assert_eq!(one, [["BTC-USD"], ["BTC-EUR"], ["BTC-USD"]]);
        let random = symbols_of(&["--clients", "40", "--shape", "random:2"]);
        assert!(random.iter().all(|symbols| symbols.len() == 2 && symbols[0] != symbols[1]), "{random:?}");
        assert!(random.iter().any(|symbols| *symbols != random[0]), "not all the same");
        assert_eq!(random, symbols_of(&["--clients", "40", "--shape", "random:2"]), "the seed decides");
        assert_ne!(random, symbols_of(&["--clients", "40", "--shape", "random:2", "--seed", "2"]));
        assert_eq!(symbols_of(&["--clients", "1", "--shape", "random:9"])[0].len(), 4, "no more than there are");
    }

    #[test]
    fn the_directory_is_fetched_only_where_the_shape_needs_it() {
        for flags in [&[][..], &["--publish", "10", "--shape", "one"]] {
            let args = parse(flags).expect("good arguments");
            assert!(LoadPlan::new(&args, &Dialect::Tickcast, &[], || panic!("not needed")).is_ok());
        }
    }

    #[test]
    fn patterns_that_match_nothing_are_an_error() {
        let error = plan(&["--shape", "one", "--symbols", "DOGE"]).expect_err("nothing matches");
        assert_eq!(error.to_string(), "--symbols DOGE matches none of the server's 4 instruments");
    }

    #[test]
    fn stalled_clients_and_sources_are_spread_evenly() {
        let clients = plan(&["--stalled", "25", "--source", "127.0.0.1-2"]).expect("a plan").steady;
        let stalled: Vec<_> = clients.iter().map(|client| client.role == ClientRole::Stalled).collect();
        assert_eq!(stalled.iter().filter(|stalled| **stalled).count(), 25);
        assert!(stalled.chunks(4).all(|four| four.iter().filter(|stalled| **stalled).count() == 1));
        assert_eq!(clients.iter().filter(|client| client.pauses).count(), 0);
        assert_eq!(clients[3].source, Some(IpAddr::from([127, 0, 0, 2])));
        assert_eq!(clients.iter().filter(|client| client.independent).count(), 1);
    }

    #[test]
    fn a_pause_takes_its_part_of_the_clients_that_read() {
        let pausing = |flags: &[&str]| -> Vec<bool> {
            plan(flags).expect("a plan").steady.iter().map(|client| client.pauses).collect()
        };
        assert_eq!(pausing(&["--clients", "4", "--pause", "1,2"]), [true; 4]);
        assert_eq!(pausing(&["--clients", "4", "--pause", "1,2,50"]), [false, true, false, true]);
        let limited = plan(&["--clients", "200", "--stalled", "50", "--read-rate", "9000,10"]).expect("a plan").steady;
        let count = |role| limited.iter().filter(|client| client.role == role).count();
        let roles = [ClientRole::Steady, ClientRole::Stalled, ClientRole::Limited].map(count);
        assert_eq!(roles, [90, 100, 10], "a tenth of those that read");
        let both = plan(&["--stalled", "25", "--pause", "1,2", "--storm", "5"]).expect("a plan");
        let is_right = |client: &ClientPlan| client.pauses == (client.role == ClientRole::Steady);
        assert!(both.steady.iter().chain(&both.storm).all(is_right));
    }

    #[test]
    fn clients_expect_the_published_instruments_they_subscribe_to() {
        let expected = |flags: &[&str]| -> Vec<ExpectedInstruments> {
            let plan = plan(&[&["--publish", "10", "--instruments", "12"], flags].concat()).expect("a plan");
            plan.steady.iter().map(|client| plan.requests[client.request as usize].expected.clone()).collect()
        };
        assert_eq!(expected(&["--clients", "1"])[0], ExpectedInstruments::These((0..12).collect()));
        assert_eq!(
            expected(&["--clients", "1", "--symbols", "LOAD-0001*"])[0],
            ExpectedInstruments::These(vec![10, 11])
        );
        assert_eq!(expected(&["--clients", "3", "--shape", "one"])[2], ExpectedInstruments::These(vec![2]));
        assert!(matches!(&expected(&["--shape", "random:5"])[0], ExpectedInstruments::These(five) if five.len() == 5));
        let error = plan(&["--publish", "10", "--symbols", "*"]).expect_err("others too").to_string();
        assert!(error.contains("begin with LOAD-") && error.contains("\"*\""), "{error}");
    }

    #[test]
    fn processes_share_all_clients_and_get_the_requests_they_need() {
        let flags = ["--clients", "10", "--storm", "3", "--shape", "one", "--churn", "4"];
        let plan = plan(&flags).expect("a plan");
        let job = WorkerJob {
            address: "127.0.0.1:1".parse().expect("an address"),
            url: String::new(),
            ca: None,
            tls_resume: false,
            options: ReadOptions::default(),
            requests: Vec::new(),
            instruments: 0,
            clients: Vec::new(),
            storm: Vec::new(),
            threads: 1,
            pending_max: 64,
            churn_per_s: 4.0,
            stall_for_ms: None,
            pause: None,
            read_rate: None,
            cores: None,
        };
        let jobs = plan.split(&job, 2);
        assert_eq!(jobs.iter().map(|job| (job.clients.len(), job.storm.len())).collect::<Vec<_>>(), [(5, 2), (5, 1)]);
        assert_eq!(jobs.iter().map(|job| job.requests.len()).collect::<Vec<_>>(), [2, 2], "every second of four");
        assert!(jobs.iter().all(|job| job.churn_per_s == 2.0));
        let asked = |job: &WorkerJob| job.requests[job.clients[1].request as usize].messages[0].clone();
        assert!(asked(&jobs[0]).contains("BTC-EUR") && asked(&jobs[1]).contains("AAPL"));
        assert!(plan.storm.iter().all(|client| client.role == ClientRole::Storm));
    }

    #[test]
    fn invalid_arguments_are_refused() {
        for (flags, problem) in [
            (["--shape", "two"], "invalid value \"two\": expected all, one, random:K"),
            (["--shape", "random:0"], "invalid value \"random:0\": expected all"),
            (["--shape", "pattern:"], "invalid value \"pattern:\": expected all"),
            (["--stalled", "101"], "expected a number from 0 to 100"),
            (["--clients", "0"], "is not in 1..=10000000"),
            (["--threads", "0"], "is not in 1..=1024"),
            (["--processes", "0"], "is not in 1..=1024"),
            (["--source", "localhost"], "expected IP addresses"),
            (["--channels", "quotes"], "unknown channel \"quotes\": expected quote, trade"),
            (["--publish-channel", "book"], "expected quote, trade, ticker or raw"),
            (["--burst", "7"], "--publish"),
            (["--read-rate", "x,10"], "BYTES \"x\": expected bytes a second from 1000"),
            (["--read-rate", "9000,0"], "PERCENT \"0\": expected a number above 0, at most 100"),
            (["--pause", "6"], "expected AT,FOR or AT,FOR,PERCENT, such as 6,2"),
            (["--pause", "6,2,0"], "PERCENT \"0\": expected a number above 0, at most 100"),
            (["--load-cores", "x"], "expected a list of cores such as 0,2-5"),
        ] {
            let error = parse(&flags).map(|_| ()).expect_err("refused");
            assert!(error.contains(problem), "{flags:?}: {error}");
        }
    }
}
