//! `fake-venue`: a venue without the internet, for a session on the command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Parser;
use fake_venue::{FakeVenue, Fault, FaultPlan, Options, ScriptedChange, Source, Speed, VenueKind};

/// Speaks the dialogue of a crypto exchange on a port of 127.0.0.1
#[derive(Parser)]
struct Arguments {
    /// binance, binance-usdm, binance-coinm, coinbase, kraken, bybit, bybit-linear, bybit-inverse or okx
    #[arg(long)]
    venue: VenueKind,
    /// The port; 0 for a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Writes the certificate of the authority to this file
    #[arg(long, default_value = "fake-venue-ca.pem")]
    ca_file: PathBuf,
    /// Without TLS
    #[arg(long)]
    plain: bool,
    /// Makes a session from this seed
    #[arg(long, default_value_t = 1, conflicts_with = "recording")]
    generate: u64,
    /// Plays this recording: lines of Binance or of cryptofeed, gzip
    #[arg(long)]
    recording: Option<PathBuf>,
    /// Plays so many milliseconds of the recording
    #[arg(long, requires = "recording")]
    limit_ms: Option<u64>,
    /// How many times as fast as it was, or `max`
    #[arg(long, default_value = "1", value_parser = speed)]
    speed: Speed,
    /// Faults, separated by commas: cut, skip, repeat, late-snapshot, stale-snapshot, bad-checksum, rate-limit, silent,
    /// bad-json, maintenance, close-24h
    #[arg(long, value_delimiter = ',', value_parser = Fault::from_str)]
    faults: Vec<Fault>,
    /// Decides the order of faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A fault in each interval
    #[arg(long, default_value_t = 1000)]
    fault_interval_ms: u64,
    /// Closes every connection at this age
    #[arg(long)]
    day_seconds: Option<u64>,
    /// Books of OKX state their checksum, as until June 2026
    #[arg(long)]
    checksums: bool,
    /// Makes the tick of a symbol ten times as large, at a second of the session: SYMBOL@SECONDS
    #[arg(long, value_parser = at_second)]
    tick_change: Vec<(String, u64)>,
    /// Delists a symbol, at a second of the session: SYMBOL@SECONDS
    #[arg(long, value_parser = at_second)]
    delist: Vec<(String, u64)>,
    /// Stops the session after this, and ends ten seconds later
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Writes what it truly was to this file, as JSON, when the session stops
    #[arg(long)]
    truth: Option<PathBuf>,
}

/// After the session has stopped, requests are answered for so long.
const LINGER: Duration = Duration::from_secs(10);

fn speed(text: &str) -> Result<Speed, String> {
    match text.parse::<f64>() {
        _ if text == "max" => Ok(Speed::Max),
        Ok(times) if times > 0.0 && times.is_finite() => Ok(Speed::Times(times)),
        _ => Err(format!("speed {text:?}: expected a number above 0, or max")),
    }
}

fn at_second(text: &str) -> Result<(String, u64), String> {
    let parts = text.rsplit_once('@').and_then(|(symbol, second)| Some((symbol.to_owned(), second.parse().ok()?)));
    parts.ok_or_else(|| format!("{text:?}: expected SYMBOL@SECONDS"))
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fake-venue: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), String> {
    let (seconds, truth, ca_file) = (arguments.seconds, arguments.truth.clone(), arguments.ca_file.clone());
    let venue = FakeVenue::start(options(arguments)).map_err(|error| error.to_string())?;
    let written =
        |path: &PathBuf, text: &str| std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()));
    let ca = match venue.authority_pem() {
        Some(pem) => {
            written(&ca_file, pem)?;
            format!(", ca {}", ca_file.display())
        }
        None => String::new(),
    };
    say(&format!("listening on {}{ca}", venue.url()));
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end && !venue.is_over() {
        std::thread::sleep(Duration::from_millis(50));
    }
    venue.stop_session();
    let found = venue.truth();
    if let Some(path) = truth {
        written(&path, &serde_json::to_string(&found).map_err(|error| error.to_string())?)?;
    }
    say(&format!("session stopped after {} events and {} faults", found.steps, found.faults.len()));
    std::thread::sleep(LINGER);
    Ok(())
}

fn say(line: &str) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

fn options(arguments: Arguments) -> Options {
    let ns = |seconds: u64| seconds.saturating_mul(1_000_000_000);
    let ticks = arguments.tick_change.into_iter().map(|(symbol, second)| (ns(second), ScriptedChange::Tick(symbol)));
    let ends = arguments.delist.into_iter().map(|(symbol, second)| (ns(second), ScriptedChange::Delist(symbol)));
    let interval_ms = (!arguments.faults.is_empty()).then_some(arguments.fault_interval_ms);
    let with_checksums = arguments.checksums || arguments.faults.contains(&Fault::BadChecksum);
    let source = match arguments.recording {
        Some(path) => Source::Recording { path, limit_ms: arguments.limit_ms },
        None => Source::Generate(arguments.generate),
    };
    Options {
        source,
        speed: arguments.speed,
        faults: FaultPlan { kinds: arguments.faults, interval_ms, seed: arguments.seed },
        with_checksums,
        day_ms: arguments.day_seconds.map(|seconds| seconds.saturating_mul(1_000)),
        script: ticks.chain(ends).collect(),
        is_plain: arguments.plain,
        port: arguments.port,
        ..Options::new(arguments.venue)
    }
}
