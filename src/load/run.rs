//! `tickcast load`: very many clients against one server, every stream checked, honest about its own limits.
//!
//! The run goes through stages: connect all, warm up, measure, say goodbye. Method: every client reads and decodes every
//! record and checks its sequence; latencies are taken when a message has been read. Non-goals: TLS, coordinated
//! omission (the server sets the pace here, not the client). The clients share the machine with the server
//! where both run on one: then the report's generator line says what they took of it.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_pcg::Pcg64Mcg;

use super::client::{ClientError, Subscription};
use super::peer::Plan;
use super::report::Report;
use super::tap::{parse_channel, stop_flag};
use super::target::{DEFAULT_URL, Target, ensure_descriptors, ensure_ports, fetch_symbols};
use super::worker::{Shared, Stage, Tally, Worker};
use crate::market::Channel;

/// How often the driver looks at the stage, and draws the progress line.
const TICK: Duration = Duration::from_millis(50);
/// The subscribe request's id; each connection sends one.
const REQUEST_ID: u64 = 1;

/// Loads a server with very many clients, and checks and measures what they receive.
///
/// Exit codes: 0 all is well, 1 it could not run, 3 the generator itself was the bottleneck (no rates are shown),
/// 4 a stream had a hole that nothing announced.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// Where the server is: ws://HOST, ws://HOST:PORT/PATH, or HOST:PORT alone
    #[arg(default_value = DEFAULT_URL)]
    pub url: String,
    /// Connections to open
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub clients: u32,
    /// Threads that share them
    #[arg(long, default_value_t = 1, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Channels: quote, trade, ticker, book, raw
    #[arg(long, value_delimiter = ',', default_value = "quote,trade,ticker", value_parser = parse_channel)]
    pub channels: Vec<Channel>,
    /// Symbols, or patterns with one * at the end
    #[arg(long, value_delimiter = ',', default_value = "*")]
    pub symbols: Vec<String>,
    /// Who subscribes to what: all (everybody to --symbols), one (one symbol each, in turn), random:K (K symbols each)
    #[arg(long, default_value = "all")]
    pub shape: Shape,
    /// Seed of random:K
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// At most one value per instrument and state channel in this many milliseconds; 0 = every update
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub conflate_ms: u32,
    /// Seconds to measure
    #[arg(long, default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Seconds between the last connect and the measurement
    #[arg(long, default_value_t = 2, value_name = "S")]
    pub warmup: u32,
    /// Source addresses to bind in turn: each has some 28,000 ports, so that more connections need more of them
    #[arg(long, value_delimiter = ',', value_name = "IP,IP,…")]
    pub source: Vec<IpAddr>,
    /// Percent of the clients that subscribe and then never read
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = parse_percent)]
    pub stalled: f64,
    /// The report as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Who subscribes to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Everybody the same.
    All,
    /// One symbol of the directory each, round robin.
    One,
    /// This many symbols of the directory each, at random.
    Random(u32),
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let count = |text: &str| text.parse().ok().filter(|count| *count > 0);
        match (word, word.strip_prefix("random:").and_then(count)) {
            ("all", _) => Ok(Self::All),
            ("one", _) => Ok(Self::One),
            (_, Some(count)) => Ok(Self::Random(count)),
            _ => Err(format!("unknown shape {word:?}; have all, one, random:K with K from 1")),
        }
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "want a number from 0 to 100".to_owned())
}

/// Runs `tickcast load`, writes its report to `out`, and returns it; [`Report::exit_code`] is the process's.
pub fn load(args: &LoadArgs, out: &mut impl Write) -> Result<Report, ClientError> {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    load_until(args, &Schedule { warmup: seconds(args.warmup), measure: seconds(args.seconds) }, out, &*stop_flag()?)
}

/// How long the stages last.
struct Schedule {
    warmup: Duration,
    measure: Duration,
}

fn load_until(
    args: &LoadArgs,
    schedule: &Schedule,
    out: &mut impl Write,
    stop: &AtomicBool,
) -> Result<Report, ClientError> {
    let target = Target::parse(&args.url)?;
    ensure_descriptors(u64::from(args.clients))?;
    ensure_ports(u64::from(args.clients), &args.source)?;
    let plans = plans(args, || fetch_symbols(&target))?;
    // Tells a server that is not there in one sentence, rather than once for every client.
    let address = target.connect()?.peer_addr().map_err(|error| ClientError::System { what: "peer address", error })?;
    let stalled = plans.iter().filter(|plan| plan.stalled).count() as u64;

    let tallies = run_workers(args, address, &target, plans, |shared| drive(args, schedule, shared, stop))?;
    let report = report(args, stalled, tallies)?;
    let text = if args.json { report.json() + "\n" } else { report.text() };
    out.write_all(text.as_bytes()).map_err(ClientError::Output)?;
    Ok(report)
}

/// Runs the clients on their threads until `drive` returns.
fn run_workers(
    args: &LoadArgs,
    address: SocketAddr,
    target: &Target,
    plans: Vec<Plan>,
    drive: impl FnOnce(&Shared) -> Result<(), ClientError>,
) -> Result<Vec<Tally>, ClientError> {
    let shared = Arc::new(Shared::default());
    let mut shares = vec![Vec::new(); args.threads as usize];
    for (index, plan) in plans.into_iter().enumerate() {
        shares[index % args.threads as usize].push(plan);
    }
    let system = |error| ClientError::System { what: "load thread", error };
    let mut workers = Vec::new();
    for share in shares {
        workers.push(Worker::new(address, target.uri.clone(), share, Arc::clone(&shared)).map_err(system)?);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(|| worker.run())).collect();
        let driven = drive(&shared);
        shared.set_stage(Stage::Done);
        let joined = threads.into_iter().map(|thread| thread.join().expect("a worker that panicked is a bug"));
        let tallies = joined.collect::<Result<Vec<_>, _>>().map_err(system)?;
        driven.map(|()| tallies)
    })
}

/// Leads the workers through the stages; an interrupt ends the measured time early.
fn drive(args: &LoadArgs, schedule: &Schedule, shared: &Shared, stop: &AtomicBool) -> Result<(), ClientError> {
    let mut progress = Progress::new();
    let clients = u64::from(args.clients);
    // Relaxed: numbers that are looked at again and again, and a flag that is all the handler says.
    let stopped = || stop.load(Ordering::Relaxed);
    while shared.settled.load(Ordering::Relaxed) < clients && !stopped() {
        std::thread::sleep(TICK);
        progress.show(&format!("connecting {}/{clients}", shared.connected.load(Ordering::Relaxed)));
    }
    let nobody = shared.settled.load(Ordering::Relaxed) == clients && shared.connected.load(Ordering::Relaxed) == 0;
    let warm = Instant::now() + schedule.warmup;
    while Instant::now() < warm && !nobody && !stopped() {
        std::thread::sleep(TICK);
        progress.show("warming up");
    }
    if stopped() {
        return Err(ClientError::Interrupted);
    }
    if nobody {
        return Ok(());
    }
    shared.set_stage(Stage::Measuring);
    let (start, length) = (Instant::now(), schedule.measure);
    let before = shared.records.load(Ordering::Relaxed);
    while start.elapsed() < length && !stopped() {
        std::thread::sleep(TICK.min(length.saturating_sub(start.elapsed())));
        let seconds = start.elapsed().as_secs_f64();
        let rate = (shared.records.load(Ordering::Relaxed) - before) as f64 / seconds / 1e6;
        progress.show(&format!("measuring {seconds:.0}/{} s, {rate:.2} M records/s", args.seconds));
    }
    Ok(())
}

/// Puts the threads' findings together. Where nobody connected, that is the error.
fn report(args: &LoadArgs, stalled: u64, tallies: Vec<Tally>) -> Result<Report, ClientError> {
    let mut report = Report { clients: args.clients.into(), stalled, ..Report::default() };
    let mut windows = Vec::new();
    for tally in tallies {
        report.connected += tally.connected;
        report.connect_seconds = report.connect_seconds.max(tally.connect_seconds);
        report.sequence_violations += tally.violations;
        report.first_violation = report.first_violation.or(tally.first_violation.map(|first| first.to_string()));
        let maps = [
            (&mut report.refused, tally.refused),
            (&mut report.rejected, tally.rejected),
            (&mut report.malformed, tally.malformed),
            (&mut report.closes, tally.closes),
        ];
        for (sum, part) in maps {
            for (what, count) in part {
                *sum.entry(what).or_default() += count;
            }
        }
        windows.push(tally.window);
    }
    if report.connected == 0 {
        let why = report.refused.into_iter().next().map_or_else(String::new, |(why, _)| why);
        return Err(ClientError::Refused(why));
    }
    report.connects_per_second = report.connected as f64 / report.connect_seconds.max(1e-9);
    report.measure(&windows);
    Ok(report)
}

/// One line on stderr that is drawn over and over; nothing where stderr is no terminal.
struct Progress {
    to_terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self { to_terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, text: &str) {
        if self.to_terminal {
            eprint!("\r\x1b[K{text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.show("");
    }
}

/// What each client shall do. The directory is asked for only where the shape needs it.
fn plans(
    args: &LoadArgs,
    directory: impl FnOnce() -> Result<Vec<String>, ClientError>,
) -> Result<Vec<Plan>, ClientError> {
    let request = |symbols: Vec<String>| -> Arc<str> {
        let subscription =
            Subscription { channels: args.channels.clone(), symbols, conflate_ms: args.conflate_ms, snapshot: true };
        subscription.request(REQUEST_ID).into()
    };
    let symbols = match args.shape {
        Shape::All => Vec::new(),
        Shape::One | Shape::Random(_) => matching(directory()?, &args.symbols)?,
    };
    let requests: Vec<Arc<str>> = match args.shape {
        Shape::All => vec![request(args.symbols.clone())],
        Shape::One => symbols.into_iter().map(|symbol| request(vec![symbol])).collect(),
        Shape::Random(count) => {
            let mut random = Pcg64Mcg::seed_from_u64(args.seed);
            let count = (count as usize).min(symbols.len());
            let pick =
                |_| request(sample(&mut random, symbols.len(), count).iter().map(|at| symbols[at].clone()).collect());
            (0..args.clients).map(pick).collect()
        }
    };
    let plan = |index: usize| Plan {
        request: Arc::clone(&requests[index % requests.len()]),
        stalled: is_stalled(index, args.stalled),
        source: (!args.source.is_empty()).then(|| args.source[index % args.source.len()]),
    };
    Ok((0..args.clients as usize).map(plan).collect())
}

/// The symbols of the directory that the patterns cover.
fn matching(directory: Vec<String>, patterns: &[String]) -> Result<Vec<String>, ClientError> {
    let covers = |pattern: &String, symbol: &str| match pattern.strip_suffix('*') {
        Some(prefix) => symbol.starts_with(prefix),
        None => pattern == symbol,
    };
    let known = directory.len();
    let symbols: Vec<_> =
        directory.into_iter().filter(|symbol| patterns.iter().any(|pattern| covers(pattern, symbol))).collect();
    if symbols.is_empty() {
        let patterns = patterns.join(",");
        return Err(ClientError::Arguments(format!(
            "none of the server's {known} instruments matches --symbols {patterns}"
        )));
    }
    Ok(symbols)
}

/// Spreads the stalled clients evenly over all.
fn is_stalled(index: usize, percent: f64) -> bool {
    let until = |clients: usize| (clients as f64 * percent / 100.0).floor();
    until(index + 1) > until(index)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::load::fake::{self, PacketBuilder};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn args(flags: &[&str]) -> LoadArgs {
        let line = ["load"].into_iter().chain(flags.iter().copied());
        Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).load
    }

    fn symbols_of(plans: &[Plan]) -> Vec<Vec<String>> {
        let parse = |plan: &Plan| -> serde_json::Value { serde_json::from_str(&plan.request).expect("JSON") };
        plans.iter().map(|plan| serde_json::from_value(parse(plan)["symbols"].take()).expect("strings")).collect()
    }

    fn directory() -> Result<Vec<String>, ClientError> {
        Ok(["BTC-USD", "ETH-USD", "BTC-EUR", "AAPL"].map(str::to_owned).to_vec())
    }

    #[test]
    fn shapes_give_each_client_its_symbols() {
        let plans_of = |flags: &[&str]| symbols_of(&plans(&args(flags), directory).expect("a plan"));
        assert_eq!(plans_of(&["--clients", "2", "--symbols", "BTC-*,X"]), [["BTC-*", "X"], ["BTC-*", "X"]]);
        let one = plans_of(&["--clients", "3", "--symbols", "BTC-*", "--shape", "one"]);
        assert_eq!(one, [["BTC-USD"], ["BTC-EUR"], ["BTC-USD"]]);
        let random = plans_of(&["--clients", "40", "--shape", "random:2"]);
        assert!(random.iter().all(|symbols| symbols.len() == 2 && symbols[0] != symbols[1]), "{random:?}");
        assert!(random.iter().any(|symbols| *symbols != random[0]), "not all the same");
        assert_eq!(random, plans_of(&["--clients", "40", "--shape", "random:2"]), "the seed decides");
        assert_ne!(random, plans_of(&["--clients", "40", "--shape", "random:2", "--seed", "2"]));
        assert_eq!(plans_of(&["--clients", "1", "--shape", "random:9"])[0].len(), 4, "no more than there are");
    }

    #[test]
    fn the_directory_is_not_asked_for_where_all_subscribe_the_same() {
        assert!(plans(&args(&[]), || panic!("not needed")).is_ok());
    }

    #[test]
    fn patterns_that_match_nothing_are_an_error_that_says_so() {
        let error = plans(&args(&["--shape", "one", "--symbols", "DOGE"]), directory).expect_err("nothing matches");
        assert_eq!(error.to_string(), "none of the server's 4 instruments matches --symbols DOGE");
    }

    #[test]
    fn stalled_clients_are_spread_evenly_and_sources_taken_in_turn() {
        let plans = plans(&args(&["--stalled", "25", "--source", "127.0.0.1,127.0.0.2"]), directory).expect("a plan");
        let stalled: Vec<_> = plans.iter().map(|plan| plan.stalled).collect();
        assert_eq!(stalled.iter().filter(|stalled| **stalled).count(), 25);
        assert!(stalled.chunks(4).all(|four| four.iter().filter(|stalled| **stalled).count() == 1));
        assert_eq!(plans[3].source, Some(IpAddr::from([127, 0, 0, 2])));
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        for (flags, problem) in [
            (["--shape", "two"], "unknown shape \"two\"; have all, one, random:K"),
            (["--shape", "random:0"], "unknown shape"),
            (["--stalled", "101"], "want a number from 0 to 100"),
            (["--clients", "0"], "is not in 1..=10000000"),
            (["--threads", "0"], "is not in 1..=1024"),
            (["--source", "localhost"], "invalid IP address"),
            (["--channels", "quotes"], "unknown channel"),
        ] {
            let line = ["load"].into_iter().chain(flags);
            let error = Cli::try_parse_from(line).map(|_| ()).expect_err("refused").to_string();
            assert!(error.contains(problem), "{flags:?}: {error}");
        }
    }

    const SHORT: Schedule = Schedule { warmup: Duration::ZERO, measure: Duration::from_millis(100) };

    fn run(address: SocketAddr, flags: &[&str], stop: bool) -> (Result<Report, ClientError>, String) {
        let address = address.to_string();
        let line: Vec<_> = [address.as_str()].into_iter().chain(flags.iter().copied()).collect();
        let mut out = Vec::new();
        let report = load_until(&args(&line), &SHORT, &mut out, &AtomicBool::new(stop));
        (report, String::from_utf8(out).expect("a report is UTF-8"))
    }

    #[test]
    fn a_run_goes_from_the_directory_to_its_report() {
        let directory = r#"{"instruments":[{"instrument":1,"symbol":"BTC-USD"}]}"#;
        let (told, asked) = std::sync::mpsc::channel();
        let address = fake::serve(directory, move |mut peer| {
            told.send(fake::subscribe_request(&mut peer)["symbols"].take()).expect("the test waits");
            // A client may have left by then: the run is short.
            let _ = peer.send(PacketBuilder::new().definition(1, "BTC-USD").quote(1, 0).message());
            fake::wait_for_end(&mut peer);
        });
        let (report, text) = run(address, &["--clients", "5", "--threads", "2", "--shape", "one"], false);
        assert!((0..5).all(|_| asked.recv() == Ok(serde_json::json!(["BTC-USD"]))));
        let report = report.expect("a run");
        assert_eq!((report.connected, report.sequence_violations), (5, 0));
        assert!(text.starts_with("connections   5 connected, 0 refused ("), "{text}");
        let (report, json) = run(address, &["--clients", "1", "--json"], false);
        assert_eq!(report.expect("a run").connected, 1);
        let json: serde_json::Value = serde_json::from_str(&json).expect("one object");
        assert_eq!((&json["connected"], &json["clients"]), (&1.into(), &1.into()));
    }

    #[test]
    fn a_server_that_refuses_everybody_is_an_error_with_its_message() {
        let address = fake::refuse(concat!(
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 49\r\n\r\n",
            r#"{"error":{"code":"origin","message":"not from here"}}"#
        ));
        let error = run(address, &["--clients", "2"], false).0.expect_err("nobody connected");
        assert_eq!(error.to_string(), "the server refused the connection: 403 Forbidden: not from here");
    }

    #[test]
    fn an_interrupt_before_the_measurement_reports_nothing() {
        let address = fake::serve("", |mut peer| fake::wait_for_end(&mut peer));
        let (report, text) = run(address, &["--clients", "2"], true);
        assert!(matches!(report, Err(ClientError::Interrupted)), "{report:?}");
        assert_eq!(text, "");
    }
}
