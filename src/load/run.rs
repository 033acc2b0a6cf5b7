//! `tickcast load`: very many clients against one server, every stream checked, honest about its own limits.
//!
//! A run goes through stages: define what is to be published, connect all, publish and warm up, measure, let the tail
//! arrive, say goodbye. Method: the clients live in processes of their own ([`super::crew`]); each reads every record
//! and checks its sequence; one in a hundred is read by tungstenite and the [`tickcast_client::Decoder`], the others by a
//! faster reader that a test holds to the same verdicts. Latencies are taken when the kernel has handed a read's bytes
//! over.
//! With a publisher of its own they count from when each record was *due*, so that no wait is omitted; without one,
//! from the server's own stamps. Non-goal: TLS. The clients share the machine with the server where both run on one:
//! then the report's generator line says what they took of it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::args::{LoadArgs, Shape};
use super::attack::Attack;
use super::compare::{Comparison, Row};
use super::cores::available;
use super::crew::{Crew, Start};
use super::error::LoadError;
use super::job::{Job, Order, Published, Terms};
use super::meter::Origin;
use super::observe::Observer;
use super::plan::{Dialect, Plans, deal, plans, publication};
use super::probe::ProbeError;
use super::progress::Progress;
use super::publisher::{Done, Publisher, Publishing};
use super::report::{self, MEASURED, Report};
use super::rival::{Bare, Started};
use super::tap::stop_flag;
use super::target::{fetch_symbols, sources_for};
use tickcast_client::Target;

/// How often the run looks at its processes, and draws the progress bar.
const TICK: Duration = Duration::from_millis(50);
/// What is quiet for so long has arrived.
const QUIET: Duration = Duration::from_millis(500);
/// How long what is under way may take to arrive.
const TAIL_MAX: Duration = Duration::from_secs(10);

/// Runs `tickcast load`, writes its report to `out`, and returns it; [`Report::exit_code`] is the process's.
pub fn load(args: &LoadArgs, out: &mut impl Write) -> Result<Report, LoadError> {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let schedule = Stages { warmup: seconds(args.warmup), measure: seconds(args.seconds), start: Start::Processes };
    load_until(args, &schedule, out, &*stop_flag()?)
}

/// How long the stages last, and how the processes come about.
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    pub warmup: Duration,
    pub measure: Duration,
    pub start: Start,
}

fn load_until(args: &LoadArgs, stages: &Stages, out: &mut impl Write, stop: &AtomicBool) -> Result<Report, LoadError> {
    let report = session(args, stages, stop)?;
    if let Some(path) = &args.plot {
        plot(&report, path).map_err(LoadError::Output)?;
    }
    let text = if args.json { report.json() + "\n" } else { report.text() };
    out.write_all(text.as_bytes()).map_err(LoadError::Output)?;
    Ok(report)
}

/// All runs of one command: against the server, and against what it is compared with.
fn session(args: &LoadArgs, stages: &Stages, stop: &AtomicBool) -> Result<Report, LoadError> {
    let mut run = Run::of(args)?;
    let others = args.server.others();
    check_comparison(args, &others)?;
    if !args.attacked.attack.is_empty() {
        return attacked(args, run, stages, stop);
    }
    let cores = args.server.server_cores.as_ref().map(|list| list.0.as_slice());
    let started = serve(&mut run)?;
    let (mut report, mut server_cores) = run.run(stages, stop)?;
    drop(started);
    if others.is_empty() {
        return Ok(report);
    }
    server_cores = cores.map(<[usize]>::to_vec).or(server_cores);
    let mut rows = vec![Row { name: MEASURED, pair: 0, report: report.clone() }];
    for pair in 0..args.server.pairs as usize {
        let mut contenders: Vec<Option<Bare>> = others.iter().copied().map(Some).collect();
        if pair > 0 {
            contenders.insert(0, None);
        }
        if pair % 2 == 1 {
            contenders.reverse();
        }
        for contender in contenders {
            let row = match contender {
                None => {
                    let _started = serve(&mut run)?;
                    Row { name: MEASURED, pair, report: run.run(stages, stop)?.0 }
                }
                Some(bare) => {
                    let report = run_bare(args, bare, server_cores.as_deref(), stages, stop)?;
                    Row { name: bare.name(), pair, report }
                }
            };
            rows.push(row);
        }
    }
    report.compared = Some(Box::new(Comparison::of(rows, MEASURED)));
    Ok(report)
}

/// Starts the server, where the run is to do that.
fn serve(run: &mut Run<'_>) -> Result<Option<Started>, LoadError> {
    let Some(arguments) = &run.args.server.serve else { return Ok(None) };
    let address = run.target.addresses()?[0];
    let cores = run.args.server.server_cores.as_ref().map(|list| list.0.as_slice());
    let started = Started::serve(arguments, address, cores)?;
    run.server_pid = Some(started.pid());
    Ok(Some(started))
}

/// The same workload with and without an attack, in turn; the report is the first one's under attack.
fn attacked(args: &LoadArgs, mut run: Run<'_>, stages: &Stages, stop: &AtomicBool) -> Result<Report, LoadError> {
    const ATTACKED: &str = "attacked";
    let address = run.target.addresses()?[0];
    let path = run.target.uri.path().to_owned();
    let cores = run.load_cores(None);
    let mut rows = Vec::new();
    for pair in 0..args.server.pairs as usize {
        for name in if pair % 2 == 0 { ["calm", ATTACKED] } else { [ATTACKED, "calm"] } {
            let _started = serve(&mut run)?;
            let attack = (name == ATTACKED)
                .then(|| Attack::start(&args.attacked, address, &path, cores.as_deref()))
                .transpose()?;
            let mut report = run.run(stages, stop)?.0;
            if let Some(attack) = attack {
                report.attack = attack.end()?;
            }
            rows.push(Row { name, pair, report });
        }
    }
    let mut report = rows.iter().find(|row| row.name == ATTACKED).expect("there is a pair").report.clone();
    report.compared = Some(Box::new(Comparison::of(rows, ATTACKED)));
    Ok(report)
}

fn check_comparison(args: &LoadArgs, others: &[Bare]) -> Result<(), LoadError> {
    let wrong = |problem: &str| Err(LoadError::Arguments(problem.to_owned()));
    match &args.shape {
        _ if !args.attacked.attack.is_empty() && !others.is_empty() => {
            wrong("--attack compares with the same server left in peace: leave out --floor, --floor-send and --rival")
        }
        _ if others.is_empty() => Ok(()),
        _ if args.publish.publish.is_none() => {
            wrong("what the server is compared with has no market of its own: give --publish RATE")
        }
        Shape::Random(_) | Shape::Pattern(_) => {
            wrong("a bare loop sends to all or to one each: compare with --shape all or one")
        }
        _ => Ok(()),
    }
}

/// The same workload against a bare server, on the measured server's cores.
fn run_bare(
    args: &LoadArgs,
    bare: Bare,
    cores: Option<&[usize]>,
    stages: &Stages,
    stop: &AtomicBool,
) -> Result<Report, LoadError> {
    let (started, address) = bare.start(args.shape == Shape::One, cores)?;
    let target = Target::parse(&format!("{address}/subscribe"))?;
    let run = Run {
        args,
        publish_target: target.with_path(&publish_path(None)),
        target,
        plain: true,
        dialect: Dialect::Other(Vec::new()),
        server_pid: Some(started.pid()),
    };
    Ok(run.run(stages, stop)?.0)
}

fn plot(report: &Report, path: &Path) -> std::io::Result<()> {
    let alone = [Row { name: MEASURED, pair: 0, report: report.clone() }];
    let rows = report.compared.as_ref().map_or(&alone[..], |comparison| &comparison.runs);
    let measured = |row: &Row| Some((format!("{} {}", row.name, row.pair + 1), row.report.measured.clone()?));
    let named: Vec<_> = rows.iter().filter_map(measured).collect();
    let runs: Vec<_> = named
        .iter()
        .map(|(name, measured)| super::plot::Run { name, latencies: &measured.latency_histogram.0 })
        .collect();
    let from = match named.first().map(|(_, measured)| measured.latency_origin) {
        Some(Origin::Scheduled) => "from the scheduled time",
        _ => "from ts_recv",
    };
    let title = format!("{} clients, latency {from}", report.clients);
    std::fs::write(path, super::plot::latency_svg(&title, &runs))
}

/// One workload against one server.
#[derive(Debug)]
pub struct Run<'a> {
    pub args: &'a LoadArgs,
    pub target: Target,
    /// Where to publish, and whether without definitions.
    pub publish_target: Target,
    pub plain: bool,
    pub dialect: Dialect,
    /// The server's process, where it is known.
    pub server_pid: Option<u32>,
}

impl<'a> Run<'a> {
    /// The run that the arguments ask for.
    pub fn of(args: &'a LoadArgs) -> Result<Self, LoadError> {
        let target = Target::parse(&args.url)?;
        let publish_target = match &args.publish.publish_url {
            Some(url) => Target::parse(url)?,
            None => target.with_path(&publish_path(args.publish.publish_token.as_deref())),
        };
        let dialect = match args.message.is_empty() {
            true => Dialect::Tickcast,
            false => Dialect::Other(args.message.clone()),
        };
        let server_pid = args.server.server_pid;
        Ok(Self { args, target, publish_target, plain: args.publish.publish_plain, dialect, server_pid })
    }

    /// Does it; tells the cores of the server as well, where its process is to be seen.
    pub fn run(&self, stages: &Stages, stop: &AtomicBool) -> Result<(Report, Option<Vec<usize>>), LoadError> {
        let args = self.args;
        // Tells a server that is not there in one sentence, rather than once for every client.
        let peer = self.target.connect()?.peer_addr();
        let address = peer.map_err(|error| LoadError::System { what: "peer address", error })?;
        let publisher = publication(args, self.plain)
            .map(|publication| Publisher::connect(&self.publish_target, publication))
            .transpose()?;
        let plans = self.plans(address)?;
        let observer = match (Observer::of(address, self.server_pid), self.server_pid) {
            (Err(error), Some(_)) => return Err(error.into()),
            (observer, _) => observer,
        };
        let server_cores = observer.as_ref().ok().and_then(|observer| observer.cores().ok());
        let cores = self.load_cores(server_cores.as_deref());
        let jobs = deal(&Job { cores: cores.clone(), ..self.job(address) }, &plans, args.processes as usize);
        let mut conduct = Conduct {
            clients: u64::from(args.clients),
            stages: *stages,
            stop,
            crew: Crew::start(jobs, stages.start)?,
            progress: Progress::new(),
            observer,
            cores,
        };
        let published = conduct.lead(publisher)?;
        Ok((self.report(&plans, conduct, published)?, server_cores))
    }

    /// The cores to run on: those given, or those that the server does not use; any where it uses all.
    fn load_cores(&self, server: Option<&[usize]>) -> Option<Vec<usize>> {
        if let Some(given) = &self.args.load_cores {
            return Some(given.0.clone());
        }
        let chosen = self.args.server.server_cores.as_ref().map(|list| list.0.as_slice());
        let server = chosen.or(server)?;
        let free: Vec<_> = available().ok()?.into_iter().filter(|core| !server.contains(core)).collect();
        (!free.is_empty()).then_some(free)
    }

    fn plans(&self, address: SocketAddr) -> Result<Plans, LoadError> {
        let args = self.args;
        let given = args.source.as_ref().map_or(&[][..], |sources| &sources.0);
        let connections = u64::from(args.clients) + u64::from(args.storm);
        let sources = sources_for(connections, given, address.ip())?;
        plans(args, &self.dialect, &sources, || fetch_symbols(&self.target))
    }

    /// What all processes have in common.
    fn job(&self, address: SocketAddr) -> Job {
        let args = self.args;
        let origin = if args.publish.publish.is_some() { Origin::Scheduled } else { Origin::Received };
        Job {
            address,
            uri: self.target.uri.to_string(),
            terms: Terms { opaque: self.dialect != Dialect::Tickcast, origin, dense: false },
            requests: Vec::new(),
            plans: Vec::new(),
            storm: Vec::new(),
            threads: args.threads as usize,
            pending: args.pending as usize,
            churn_per_s: args.churn,
            stall_for_ms: args.stall_for.map(|seconds| (seconds * 1e3) as u64),
            cores: None,
        }
    }

    /// Puts the findings together. Where nobody connected, that is the error.
    fn report(&self, plans: &Plans, conduct: Conduct, published: Option<Done>) -> Result<Report, LoadError> {
        let stalled = plans.steady.iter().filter(|plan| plan.role == super::job::Role::Stalled).count() as u64;
        let url = self.target.uri.to_string();
        let mut report = Report { url, clients: conduct.clients, stalled, ..Report::default() };
        let windows = report.gather(conduct.crew.tallies()?, plans.storm.len() as u64);
        if report.connected == 0 {
            let why = report.refused.into_iter().next().map_or_else(String::new, |(why, _)| why);
            return Err(LoadError::Refused(why));
        }
        report.publisher = published.zip(self.args.publish.publish).map(|(done, rate)| of_publisher(&done, rate));
        report.measure(&windows);
        match &conduct.observer {
            Ok(observer) => {
                report.server =
                    report.measured.as_ref().and_then(|measured| observer.server(report.connected, measured));
            }
            Err(error) => report.server_unseen = Some(error.to_string()),
        }
        Ok(report)
    }
}

fn of_publisher(done: &Done, rate: u64) -> report::Publisher {
    report::Publisher {
        rate,
        records: done.records,
        records_per_second: done.records as f64 / done.seconds.max(1e-9),
        lateness: done.lateness.own.summary(),
        held_lateness: done.lateness.held.summary(),
        held_seconds: done.held.as_secs_f64(),
        cpu_seconds: done.cpu_seconds,
    }
}

/// The path of the publish endpoint, with the token.
fn publish_path(token: Option<&str>) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let query = token.map(|token| format!("?token={}", utf8_percent_encode(token, NON_ALPHANUMERIC)));
    format!("/v1/publish{}", query.unwrap_or_default())
}

/// A run under way.
struct Conduct<'a> {
    clients: u64,
    stages: Stages,
    stop: &'a AtomicBool,
    crew: Crew,
    progress: Progress,
    observer: Result<Observer, ProbeError>,
    cores: Option<Vec<usize>>,
}

impl Conduct<'_> {
    /// Leads the crew through the stages; an interrupt ends the measured time early.
    fn lead(&mut self, publisher: Option<Publisher>) -> Result<Option<Done>, LoadError> {
        let connected = self.connect()?;
        self.observe(Observer::connected)?;
        let cores = self.cores.clone();
        let publishing = publisher.filter(|_| connected).map(|publisher| publisher.start(cores)).transpose()?;
        let mut done = None;
        if connected {
            self.warm_up(publishing.as_ref())?;
            self.measure(publishing.as_ref())?;
            self.crew.order(Order::Tail)?;
            self.observe(Observer::end)?;
            done = publishing.map(Publishing::stop).transpose()?;
            if done.is_some() {
                self.await_tail()?;
            }
        }
        let published = done.as_ref().map_or(Published::default(), |done| done.published);
        self.crew.order(Order::Done(published))?;
        Ok(done)
    }

    /// True once all have connected or were refused; false where all were refused.
    fn connect(&mut self) -> Result<bool, LoadError> {
        self.progress.begin("connecting", self.clients);
        loop {
            let come = self.crew.listen(TICK)?;
            self.progress.at(come.connected, "");
            if come.settled >= self.clients {
                return Ok(come.connected > 0);
            }
            if self.is_stopped() {
                return Err(LoadError::Interrupted);
            }
        }
    }

    fn warm_up(&mut self, publishing: Option<&Publishing>) -> Result<(), LoadError> {
        let (begun, length) = (Instant::now(), self.stages.warmup);
        self.progress.begin("warming up", length.as_millis() as u64);
        while begun.elapsed() < length && !ended(publishing) {
            self.crew.listen(TICK.min(length.saturating_sub(begun.elapsed())))?;
            self.progress.at(begun.elapsed().as_millis() as u64, "");
            if self.is_stopped() {
                return Err(LoadError::Interrupted);
            }
        }
        if self.is_stopped() { Err(LoadError::Interrupted) } else { Ok(()) }
    }

    fn measure(&mut self, publishing: Option<&Publishing>) -> Result<(), LoadError> {
        self.crew.order(Order::Measure)?;
        self.observe(Observer::begin)?;
        publishing.inspect(|publishing| publishing.measure());
        let (begun, length) = (Instant::now(), self.stages.measure);
        self.progress.begin("measuring", length.as_millis() as u64);
        let before = self.crew.listen(Duration::ZERO)?.records;
        while begun.elapsed() < length && !self.is_stopped() && !ended(publishing) {
            let come = self.crew.listen(TICK.min(length.saturating_sub(begun.elapsed())))?;
            let rate = (come.records - before) as f64 / begun.elapsed().as_secs_f64() / 1e6;
            self.progress.at(begun.elapsed().as_millis() as u64, &format!("{rate:.2} M records/s"));
        }
        Ok(())
    }

    /// Waits until nothing has come for a while.
    fn await_tail(&mut self) -> Result<(), LoadError> {
        let begun = Instant::now();
        self.progress.begin("the rest arrives", 0);
        let (mut last, mut since) = (self.crew.listen(Duration::ZERO)?.records, Instant::now());
        while since.elapsed() < QUIET && begun.elapsed() < TAIL_MAX && !self.is_stopped() {
            let now = self.crew.listen(TICK)?.records;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    fn observe(&mut self, look: fn(&mut Observer) -> Result<(), ProbeError>) -> Result<(), LoadError> {
        self.observer.as_mut().map_or(Ok(()), look).map_err(LoadError::Probe)
    }

    fn is_stopped(&self) -> bool {
        // Relaxed: the flag is all that the signal's handler says.
        self.stop.load(Ordering::Relaxed)
    }
}

/// A publisher that ends by itself has an error to tell.
fn ended(publishing: Option<&Publishing>) -> bool {
    publishing.is_some_and(Publishing::has_ended)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tungstenite::Message;

    use super::*;
    use tickcast_test_support::fake::{self, PacketBuilder};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn args(flags: &[&str]) -> LoadArgs {
        let line = ["load"].into_iter().chain(flags.iter().copied());
        Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).load
    }

    const SHORT: Stages = Stages { warmup: Duration::ZERO, measure: Duration::from_millis(200), start: Start::Threads };

    fn run(address: SocketAddr, flags: &[&str], stop: bool) -> (Result<Report, LoadError>, String) {
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
        let (report, json) = run(address, &["--clients", "1", "--json", "--processes", "2"], false);
        assert_eq!(report.expect("a run").connected, 1);
        let json: serde_json::Value = serde_json::from_str(&json).expect("one object");
        assert_eq!((&json["connected"], &json["clients"]), (&1.into(), &1.into()));
    }

    /// Instrument, sequence and `ts_event` of a record.
    type Stamps = (u32, u64, u64);

    /// A server that takes a publisher's packets, and tells of each what it is when the publisher has gone.
    fn publish_server() -> (SocketAddr, std::sync::mpsc::Receiver<Vec<Stamps>>) {
        let (told, heard) = std::sync::mpsc::channel();
        let address = fake::serve("", move |mut peer| {
            let define: serde_json::Value =
                serde_json::from_str(peer.read().expect("a define").to_text().expect("text")).expect("JSON");
            let named: Vec<_> = define["instruments"].as_array().expect("a list").iter().enumerate().collect();
            let ids: Vec<_> = named
                .iter()
                .map(|(nth, each)| serde_json::json!({"symbol": each["symbol"], "instrument": nth + 7}))
                .collect();
            let defined = serde_json::json!({"type": "defined", "id": 1, "instruments": ids});
            peer.send(Message::text(defined.to_string())).expect("the publisher reads");
            peer.send(Message::Ping("are you there".into())).expect("the publisher reads");
            let (mut records, mut decoder) = (Vec::new(), tickcast_client::Decoder::without_names());
            while let Ok(message) = peer.read() {
                if let Message::Binary(packet) = message {
                    let note = |_: Option<&_>, header: &tickcast_protocol::record::RecordHeader, _: &[u8]| {
                        records.push((header.instrument, header.sequence, header.ts_event));
                    };
                    decoder.packet(&packet, note).expect("well-formed");
                }
            }
            told.send(records).expect("the test waits");
        });
        (address, heard)
    }

    #[test]
    fn the_publisher_publishes_in_turn_and_stamps_each_record_with_its_own_time() {
        let (publish_address, published) = publish_server();
        let subscribers = fake::serve("", |mut peer| {
            fake::accept_subscription(&mut peer, &[]);
            fake::wait_for_end(&mut peer);
        });
        let url = publish_address.to_string();
        let publish = ["--publish", "2000", "--burst", "4", "--records-per-packet", "2", "--instruments", "3"];
        let flags = [&publish[..], &["--publish-url", &url, "--clients", "2"]].concat();
        let report = run(subscribers, &flags, false).0.expect("a run");
        let records = published.recv().expect("the publisher has gone");
        assert!(records.len() >= 300, "{} records", records.len());
        let start_ns = records[0].2;
        for (n, (instrument, sequence, ts_event)) in records.iter().enumerate() {
            let n = n as u64;
            assert_eq!((*instrument, *sequence), ((n % 3) as u32 + 7, n / 3 + 1));
            assert_eq!(*ts_event, start_ns + n / 4 * 2_000_000, "record {n}");
        }
        // Nobody passed them on: what is missing is told, exactly.
        let delivered = report.delivered.expect("a publisher was there");
        let count = records.len() as u64;
        assert_eq!((delivered.expected, delivered.missing, delivered.clients_short), (2 * count, 2 * count, 2));
        assert_eq!(report.publisher.expect("a publisher was there").rate, 2000);
    }

    #[test]
    fn a_publisher_that_is_sent_away_ends_the_run_with_what_the_server_said() {
        let publish_address = fake::serve("", |mut peer| {
            peer.read().expect("a define");
            peer.send(Message::text(r#"{"type":"defined","id":1,"instruments":[{"symbol":"A","instrument":1}]}"#))
                .expect("the publisher reads");
            let frame = tungstenite::protocol::CloseFrame { code: 1008.into(), reason: "no more".into() };
            peer.close(Some(frame)).expect("the publisher reads");
            fake::wait_for_end(&mut peer);
        });
        let subscribers = fake::serve("", |mut peer| fake::wait_for_end(&mut peer));
        let url = publish_address.to_string();
        let error = run(subscribers, &["--publish", "10", "--publish-url", &url, "--clients", "1"], false).0;
        let error = error.expect_err("no publisher").to_string();
        assert!(error.contains("1008 (policy): no more"), "{error}");
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
        assert!(matches!(report, Err(LoadError::Interrupted)), "{report:?}");
        assert_eq!(text, "");
    }
}
