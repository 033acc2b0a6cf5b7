//! `tickcast load`: very many clients against one server. Every stream is checked, and the report states when the load
//! generator itself was the bottleneck.
//!
//! A run has these stages: define the instruments to publish, connect all clients, publish and warm up, measure, wait
//! for the records under way, close. The clients live in [`processes`] of their own, because a process has a limit of
//! descriptors; [`plan`] says what each of them does.
//!
//! Method: every client reads every record and checks its sequence. Latencies are taken when the kernel has handed over
//! the bytes of a read. With a publisher of its own ([`publisher`]) they count from the time at which each record was
//! *due*, so that no wait is omitted; without one, from the server's own timestamps. With `--floor` or `--rival` the
//! same workload runs in turn against each of the servers of `load::servers`; with `--attack`, under each kind of attack.
//!
//! Over `wss://` clients open what the server has sealed: that is in the time of the load's cores, not in the server's.
//! Where clients and server share a machine, the report says how much of it the clients used.

mod attacked;
mod plan;
mod planned_attack;
mod processes;
mod progress;
mod publisher;
mod schedule;
mod stages;
#[cfg(test)]
mod tests;
mod workload;

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use self::attacked::run_attacked;
use self::processes::Launch;
use self::stages::StageLengths;
use self::workload::LoadRun;
use super::args::{LoadArgs, LoadShape};
use super::error::LoadError;
use super::latency::LatencyOrigin;
use super::printable::{printable, printable_json};
use super::report::comparison::{ComparedRun, Comparison, LoadOutcome};
use super::report::plot::{PlottedRun, latency_svg};
use super::report::{LoadReport, MEASURED};
use super::servers::{Baseline, StartedServer};
use super::signals::stop_flag;
use tickcast_client::Target;

/// Runs `tickcast load`, writes its report to `out`, and returns it; [`LoadOutcome::exit_code`] is the process's.
pub fn load(args: &LoadArgs, out: &mut impl Write) -> Result<LoadOutcome, LoadError> {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let stages =
        StageLengths { warmup: seconds(args.warmup), measure: seconds(args.seconds), launch: Launch::Processes };
    load_until(args, &stages, out, &*stop_flag()?)
}

fn load_until(
    args: &LoadArgs,
    stages: &StageLengths,
    out: &mut impl Write,
    stop: &AtomicBool,
) -> Result<LoadOutcome, LoadError> {
    let outcome = run_all(args, stages, stop)?;
    if let Some(path) = &args.plot {
        plot(&outcome, path).map_err(LoadError::Output)?;
    }
    let text = if args.json { outcome.json() + "\n" } else { outcome.text() };
    // Errors quote what servers have sent.
    let shown = |line| if args.json { printable_json(line) } else { printable(line) };
    let text: String = text.split_inclusive('\n').map(shown).collect();
    out.write_all(text.as_bytes()).map_err(LoadError::Output)?;
    Ok(outcome)
}

/// All runs of one command: against the measured server, and against the servers that it is compared with.
fn run_all(args: &LoadArgs, stages: &StageLengths, stop: &AtomicBool) -> Result<LoadOutcome, LoadError> {
    let mut run = LoadRun::new(args)?;
    let baselines = args.server.baselines();
    check_pause(args)?;
    check_comparison(args, &baselines)?;
    if args.attacked.attack.is_some() {
        return run_attacked(args, run, stages, stop);
    }
    let cores = args.server.server_cores.as_ref().map(|list| list.0.as_slice());
    let started = serve(&mut run)?;
    let (report, mut server_cores) = run.run(stages, stop, None)?;
    drop(started);
    if baselines.is_empty() {
        return Ok(LoadOutcome { report, compared: None, attacked: None });
    }
    server_cores = cores.map(<[usize]>::to_vec).or(server_cores);
    let mut runs = vec![ComparedRun { name: MEASURED, pair: 0, report: report.clone() }];
    for pair in 0..args.server.pairs as usize {
        let mut contenders: Vec<Option<Baseline>> = baselines.iter().copied().map(Some).collect();
        if pair > 0 {
            contenders.insert(0, None);
        }
        if pair % 2 == 1 {
            contenders.reverse();
        }
        for contender in contenders {
            let (name, report) = match contender {
                None => {
                    let _started = serve(&mut run)?;
                    (MEASURED, run.run(stages, stop, None)?.0)
                }
                Some(baseline) => {
                    (baseline.name(), run_baseline(args, baseline, server_cores.as_deref(), stages, stop)?)
                }
            };
            runs.push(ComparedRun { name, pair, report });
        }
    }
    Ok(LoadOutcome { report, compared: Some(Comparison::of(runs, MEASURED)), attacked: None })
}

/// Starts the measured server, where `--serve` asks for it.
fn serve(run: &mut LoadRun<'_>) -> Result<Option<StartedServer>, LoadError> {
    let Some(arguments) = &run.args.server.serve else { return Ok(None) };
    let address = run.target.addresses()?[0];
    let cores = run.args.server.server_cores.as_ref().map(|list| list.0.as_slice());
    let started = StartedServer::serve(arguments, address, run.target.is_secured(), cores)?;
    run.server_pid = Some(started.pid());
    Ok(Some(started))
}

/// A pause ends within the measured time, so that the recovery is seen.
fn check_pause(args: &LoadArgs) -> Result<(), LoadError> {
    let Some(pause) = args.pause else { return Ok(()) };
    let (end, seconds) = (pause.end().as_secs_f64(), args.seconds);
    if end < f64::from(seconds) {
        return Ok(());
    }
    Err(LoadError::Arguments(format!(
        "--pause: ends {end} s after the measurement begins: expected an end before --seconds {seconds}"
    )))
}

fn check_comparison(args: &LoadArgs, baselines: &[Baseline]) -> Result<(), LoadError> {
    let wrong = |problem: &str| Err(LoadError::Arguments(problem.to_owned()));
    match &args.shape {
        _ if args.attacked.attack.is_some() && !baselines.is_empty() => wrong(
            "--attack compares the server with itself before the attack: expected no --floor, --floor-send or --rival",
        ),
        _ if args.attacked.attack.is_some() && args.pause.is_some() => {
            wrong("--attack has phases of its own: expected no --pause")
        }
        _ if baselines.is_empty() => Ok(()),
        _ if args.publish.publish.is_none() => {
            wrong("--floor, --floor-send and --rival start servers without a market: expected --publish RATE")
        }
        LoadShape::Random(_) | LoadShape::Pattern(_) => {
            wrong("--shape: a bare loop sends to all clients or to one each: expected all or one")
        }
        _ => Ok(()),
    }
}

/// The same workload against a bare server, on the measured server's cores.
fn run_baseline(
    args: &LoadArgs,
    baseline: Baseline,
    cores: Option<&[usize]>,
    stages: &StageLengths,
    stop: &AtomicBool,
) -> Result<LoadReport, LoadError> {
    let target = Target::parse(&args.url)?;
    let pair = target.is_secured().then(|| pair_of(args)).transpose()?;
    let (started, address) = baseline.start(args.shape == LoadShape::One, pair, cores)?;
    let run = LoadRun::against_baseline(args, &target, address, started.pid())?;
    Ok(run.run(stages, stop, None)?.0)
}

/// The certificate and key of the started server, which a bare server has too.
fn pair_of(args: &LoadArgs) -> Result<(&str, &str), LoadError> {
    let words: Vec<_> = args.server.serve.as_deref().unwrap_or("").split([' ', '=']).collect();
    let after = |flag| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1).copied());
    after("--tls-cert").zip(after("--tls-key")).ok_or_else(|| {
        LoadError::Arguments(
            "--floor and --floor-send over wss:// have the certificate of the started server: expected --serve with \
             --tls-cert FILE and --tls-key FILE"
                .to_owned(),
        )
    })
}

fn plot(outcome: &LoadOutcome, path: &Path) -> std::io::Result<()> {
    let alone = [ComparedRun { name: MEASURED, pair: 0, report: outcome.report.clone() }];
    let runs = outcome.compared.as_ref().map_or(&alone[..], |comparison| &comparison.runs);
    let measured = |run: &ComparedRun| Some((format!("{} {}", run.name, run.pair + 1), run.report.measured.clone()?));
    let named: Vec<_> = runs.iter().filter_map(measured).collect();
    let plotted: Vec<_> = named
        .iter()
        .map(|(name, measured)| PlottedRun {
            name,
            latencies: &measured.latency_histogram.0,
            timeline: &measured.timeline,
        })
        .collect();
    let from = match named.first().map(|(_, measured)| measured.latency_origin) {
        Some(LatencyOrigin::Scheduled) => "from the scheduled time",
        _ => "from ts_recv",
    };
    let title = format!("{} clients, latency {from}", outcome.report.clients);
    let pause = outcome.report.pause.as_ref().map(|pause| &pause.times);
    std::fs::write(path, latency_svg(&title, &plotted, pause))
}
