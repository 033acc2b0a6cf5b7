//! What each client of a run shall do: subscriptions by shape, who stalls, from which address. Pure.

use std::net::IpAddr;

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_pcg::Pcg64Mcg;

use crate::load::args::{LoadArgs, Shape};
use crate::load::error::LoadError;
use crate::load::run::publisher::Publication;
use crate::load::worker::messages::{
    ClientPlan, ClientRequest, ClientRole, ExpectedInstruments, ReadOptions, WorkerJob,
};
use tickcast_client::Subscription;
use tickcast_protocol::Channel;

/// The subscribe request's id; each connection sends one.
const REQUEST_ID: u64 = 1;
/// One connection in so many is read by tungstenite and the [`tickcast_client::Decoder`].
const INDEPENDENT_EVERY: usize = 100;
/// What the names of our publisher's instruments begin with.
const PUBLISHED_PREFIX: &str = "LOAD-";

/// What all clients of a run shall do.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    pub requests: Vec<ClientRequest>,
    pub steady: Vec<ClientPlan>,
    pub storm: Vec<ClientPlan>,
    /// Clients get most of the market.
    pub dense: bool,
}

/// How a server is talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// As the protocol says.
    Tickcast,
    /// A server of another kind: these messages in place of a subscription.
    Other(Vec<String>),
}

/// The arguments' publication, where there is one.
pub fn publication(args: &LoadArgs, plain: bool) -> Option<Publication> {
    let publish = &args.publish;
    Some(Publication {
        channel: publish.publish_channel,
        rate: publish.publish?,
        burst: publish.burst,
        size: publish.size as usize,
        records_per_packet: publish.records_per_packet,
        instruments: publish.instruments,
        plain,
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
        Shape::Pattern(pattern) => vec![pattern.clone()],
        _ if args.symbols.is_empty() => vec![default.to_owned()],
        _ => args.symbols.clone(),
    };
    let foreign = patterns.iter().find(|pattern| !pattern.starts_with(PUBLISHED_PREFIX));
    match foreign {
        Some(pattern) if args.publish.publish.is_some() && args.message.is_empty() => {
            Err(LoadError::Arguments(format!(
                "--publish counts what each client should get of its own instruments, {PUBLISHED_PREFIX}00000 and on; \
                 {pattern:?} covers others as well"
            )))
        }
        _ => Ok(patterns),
    }
}

/// What each client shall do. The directory is asked for only where the shape needs it.
pub fn plans(
    args: &LoadArgs,
    dialect: &Dialect,
    sources: &[IpAddr],
    directory: impl FnOnce() -> Result<Vec<String>, LoadError>,
) -> Result<LoadPlan, LoadError> {
    let steady = args.clients as usize;
    let all = steady + args.storm as usize;
    let requests = match dialect {
        Dialect::Other(messages) => vec![ClientRequest { messages: messages.clone(), watch: watch_of_other(args) }],
        Dialect::Tickcast => requests(args, all, directory)?,
    };
    let plan = |index: usize| ClientPlan {
        request: (index % requests.len()) as u32,
        role: match () {
            () if index >= steady => ClientRole::Storm,
            () if is_stalled(index, args.stalled) => ClientRole::Stalled,
            () => ClientRole::Steady,
        },
        source: (!sources.is_empty()).then(|| sources[index % sources.len()]),
        independent: index.is_multiple_of(INDEPENDENT_EVERY),
    };
    Ok(LoadPlan {
        steady: (0..steady).map(plan).collect(),
        storm: (steady..all).map(plan).collect(),
        dense: matches!(args.shape, Shape::All | Shape::Pattern(_)),
        requests,
    })
}

/// What a server of another kind passes on of our publisher.
fn watch_of_other(args: &LoadArgs) -> ExpectedInstruments {
    match (args.publish.publish, &args.shape) {
        (None, _) => ExpectedInstruments::Unknown,
        (Some(_), Shape::One) => ExpectedInstruments::Any(1),
        (Some(_), Shape::Random(count)) => ExpectedInstruments::Any(*count),
        (Some(_), Shape::All | Shape::Pattern(_)) => {
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
    let request = |symbols: Vec<String>, places: Vec<usize>| {
        let watch = match published {
            Some(_) => ExpectedInstruments::These(places.into_iter().map(|place| place as u32).collect()),
            None => ExpectedInstruments::Unknown,
        };
        let subscription =
            Subscription { channels: channels.clone(), symbols, conflate_ms: args.conflate_ms, snapshot: true };
        ClientRequest { messages: vec![subscription.request(REQUEST_ID)], watch }
    };
    if matches!(args.shape, Shape::All | Shape::Pattern(_)) {
        let places = published.as_ref().map_or(Ok(Vec::new()), |symbols| matching(symbols, &patterns))?;
        return Ok(vec![request(patterns, places)]);
    }
    let symbols = match &published {
        Some(symbols) => symbols.clone(),
        None => directory()?,
    };
    let places = matching(&symbols, &patterns)?;
    let named = |places: Vec<usize>| {
        let names = places.iter().map(|place| symbols[*place].clone()).collect();
        request(names, places)
    };
    Ok(match args.shape {
        Shape::Random(count) => {
            let mut random = Pcg64Mcg::seed_from_u64(args.seed);
            let count = (count as usize).min(places.len());
            let mut pick = |_| named(sample(&mut random, places.len(), count).iter().map(|at| places[at]).collect());
            (0..clients).map(&mut pick).collect()
        }
        _ => places.into_iter().map(|place| named(vec![place])).collect(),
    })
}

/// The places of the symbols that the patterns cover.
fn matching(symbols: &[String], patterns: &[String]) -> Result<Vec<usize>, LoadError> {
    let covers = |pattern: &String, symbol: &str| match pattern.strip_suffix('*') {
        Some(prefix) => symbol.starts_with(prefix),
        None => pattern == symbol,
    };
    let is_covered = |place: &usize| patterns.iter().any(|pattern| covers(pattern, &symbols[*place]));
    let places: Vec<_> = (0..symbols.len()).filter(is_covered).collect();
    if places.is_empty() {
        let (known, patterns) = (symbols.len(), patterns.join(","));
        return Err(LoadError::Arguments(format!(
            "none of the server's {known} instruments matches --symbols {patterns}"
        )));
    }
    Ok(places)
}

/// Spreads the stalled clients evenly over all.
fn is_stalled(index: usize, percent: f64) -> bool {
    let until = |clients: usize| (clients as f64 * percent / 100.0).floor();
    until(index + 1) > until(index)
}

/// Deals the plans out to the processes, each with the requests that its own clients need.
pub fn deal(job: &WorkerJob, plans: &LoadPlan, processes: usize) -> Vec<WorkerJob> {
    let share = |nth: usize| {
        let (mut requests, mut places) = (Vec::new(), vec![None; plans.requests.len()]);
        let mut own = |all: &[ClientPlan]| -> Vec<ClientPlan> {
            let own = all.iter().skip(nth).step_by(processes);
            own.map(|plan| {
                let request = plan.request as usize;
                let place = *places[request].get_or_insert_with(|| {
                    requests.push(plans.requests[request].clone());
                    requests.len() as u32 - 1
                });
                ClientPlan { request: place, ..*plan }
            })
            .collect()
        };
        let (steady, storm) = (own(&plans.steady), own(&plans.storm));
        let churn_per_s = job.churn_per_s / processes as f64;
        let terms = ReadOptions { dense: plans.dense, ..job.terms };
        WorkerJob { requests, plans: steady, storm, churn_per_s, terms, ..job.clone() }
    };
    (0..processes).map(share).collect()
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

    fn made(flags: &[&str]) -> Result<LoadPlan, LoadError> {
        let args = parse(flags).unwrap_or_else(|error| panic!("{error}"));
        let sources = args.source.as_ref().map_or(&[][..], |sources| &sources.0);
        let names = ["BTC-USD", "ETH-USD", "BTC-EUR", "AAPL"].map(str::to_owned);
        plans(&args, &Dialect::Tickcast, sources, || Ok(names.to_vec()))
    }

    fn symbols_of(flags: &[&str]) -> Vec<Vec<String>> {
        let plans = made(flags).expect("a plan");
        let parse = |plan: &ClientPlan| -> serde_json::Value {
            serde_json::from_str(&plans.requests[plan.request as usize].messages[0]).expect("JSON")
        };
        let symbols = |plan| serde_json::from_value(parse(plan)["symbols"].take()).expect("strings");
        plans.steady.iter().map(symbols).collect()
    }

    #[test]
    fn shapes_give_each_client_its_symbols() {
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
    fn the_directory_is_not_asked_for_where_all_subscribe_the_same_or_the_run_publishes_itself() {
        for flags in [&[][..], &["--publish", "10", "--shape", "one"]] {
            let args = parse(flags).expect("good arguments");
            assert!(plans(&args, &Dialect::Tickcast, &[], || panic!("not needed")).is_ok());
        }
    }

    #[test]
    fn patterns_that_match_nothing_are_an_error_that_says_so() {
        let error = made(&["--shape", "one", "--symbols", "DOGE"]).expect_err("nothing matches");
        assert_eq!(error.to_string(), "none of the server's 4 instruments matches --symbols DOGE");
    }

    #[test]
    fn stalled_clients_are_spread_evenly_and_sources_taken_in_turn() {
        let plans = made(&["--stalled", "25", "--source", "127.0.0.1-2"]).expect("a plan").steady;
        let stalled: Vec<_> = plans.iter().map(|plan| plan.role == ClientRole::Stalled).collect();
        assert_eq!(stalled.iter().filter(|stalled| **stalled).count(), 25);
        assert!(stalled.chunks(4).all(|four| four.iter().filter(|stalled| **stalled).count() == 1));
        assert_eq!(plans[3].source, Some(IpAddr::from([127, 0, 0, 2])));
        assert_eq!(plans.iter().filter(|plan| plan.independent).count(), 1);
    }

    #[test]
    fn clients_watch_what_they_subscribe_to_of_our_publisher() {
        let watches = |flags: &[&str]| -> Vec<ExpectedInstruments> {
            let plans = made(&[&["--publish", "10", "--instruments", "12"], flags].concat()).expect("a plan");
            plans.steady.iter().map(|plan| plans.requests[plan.request as usize].watch.clone()).collect()
        };
        assert_eq!(watches(&["--clients", "1"])[0], ExpectedInstruments::These((0..12).collect()));
        assert_eq!(
            watches(&["--clients", "1", "--symbols", "LOAD-0001*"])[0],
            ExpectedInstruments::These(vec![10, 11])
        );
        assert_eq!(watches(&["--clients", "3", "--shape", "one"])[2], ExpectedInstruments::These(vec![2]));
        assert!(
            matches!(&watches(&["--clients", "1", "--shape", "random:5"])[0], ExpectedInstruments::These(five) if five.len() == 5)
        );
        let error = made(&["--publish", "10", "--symbols", "*"]).expect_err("others too").to_string();
        assert!(error.contains("LOAD-00000") && error.contains("\"*\""), "{error}");
    }

    #[test]
    fn processes_share_all_clients_and_get_only_the_requests_that_they_need() {
        let flags = ["--clients", "10", "--storm", "3", "--shape", "one", "--churn", "4"];
        let plans = made(&flags).expect("a plan");
        let job = WorkerJob {
            address: "127.0.0.1:1".parse().expect("an address"),
            uri: String::new(),
            terms: ReadOptions::default(),
            requests: Vec::new(),
            plans: Vec::new(),
            storm: Vec::new(),
            threads: 1,
            pending: 64,
            churn_per_s: 4.0,
            stall_for_ms: None,
            cores: None,
        };
        let jobs = deal(&job, &plans, 2);
        assert_eq!(jobs.iter().map(|job| (job.plans.len(), job.storm.len())).collect::<Vec<_>>(), [(5, 2), (5, 1)]);
        assert_eq!(jobs.iter().map(|job| job.requests.len()).collect::<Vec<_>>(), [2, 2], "every second of four");
        assert!(jobs.iter().all(|job| job.churn_per_s == 2.0));
        let asked = |job: &WorkerJob| job.requests[job.plans[1].request as usize].messages[0].clone();
        assert!(asked(&jobs[0]).contains("BTC-EUR") && asked(&jobs[1]).contains("AAPL"));
        assert!(plans.storm.iter().all(|plan| plan.role == ClientRole::Storm));
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        for (flags, problem) in [
            (["--shape", "two"], "unknown shape \"two\"; have all, one, random:K"),
            (["--shape", "random:0"], "unknown shape"),
            (["--shape", "pattern:"], "unknown shape"),
            (["--stalled", "101"], "want a number from 0 to 100"),
            (["--clients", "0"], "is not in 1..=10000000"),
            (["--threads", "0"], "is not in 1..=1024"),
            (["--processes", "0"], "is not in 1..=1024"),
            (["--source", "localhost"], "is no address"),
            (["--channels", "quotes"], "unknown channel"),
            (["--publish-channel", "book"], "books are not published"),
            (["--burst", "7"], "--publish"),
            (["--load-cores", "x"], "want one like 0,2-5"),
        ] {
            let error = parse(&flags).map(|_| ()).expect_err("refused");
            assert!(error.contains(problem), "{flags:?}: {error}");
        }
    }
}
