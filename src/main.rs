//! Arguments → config → run → exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tickcast::archive::load::{ArchiveArgs, archive};
use tickcast::check::CheckArgs;
use tickcast::config::{Config, ConfigError, Layer, check_variables};
use tickcast::ingest::capture::{CaptureError, CaptureSettings, capture};
use tickcast::load::{FloorArgs, LoadArgs, LoadError, RecordArgs, TapArgs};
use tickcast::usage::report::{UsageArgs, usage};
use tickcast::{check, load, runtime};

#[global_allocator]
static ALLOCATOR: tickcast::memory::Global = tickcast::memory::Global;

/// Pushes live market data to very large numbers of WebSocket clients.
///
/// Without a command it serves: a simulated market unless --feed says otherwise, with a page at the printed address.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Lines of the log of `record --raw`.
const RECORD_LINES_PER_S: u32 = 20;

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve market data (the default)
    Serve(ServeArgs),
    /// Subscribe from the terminal and print what comes
    Tap(TapArgs),
    /// Record what a server broadcasts, or what a venue sends, for --feed replay:FILE
    Record(RecordArgs),
    /// Connect many subscribers and measure what they get
    Load(LoadArgs),
    /// Check the settings of this machine, and name the files in tuning/ that fix them
    ///
    /// Takes the settings of the server, which determine the wanted values. Nothing is changed. The exit code is 0
    /// if all is well, 1 if a recommended setting is off, 3 if a required one is missing, and 2 if the arguments or the
    /// configuration are invalid.
    Check {
        #[command(flatten)]
        args: CheckArgs,
        #[command(flatten)]
        serve: ServeArgs,
    },
    /// Work with the settings of the server
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Report from the usage log who had access
    Usage(UsageArgs),
    /// Load bars and trades into the archive, and list what it has
    Archive(ArchiveArgs),
    #[command(hide = true)]
    Floor(FloorArgs),
    /// One process of a load run; speaks with the one that started it
    #[command(hide = true)]
    LoadWorker,
    /// The process of an attack; speaks with the load run that started it
    #[command(hide = true)]
    AttackWorker,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings and the files that they name, without serving
    ///
    /// Takes the arguments of the server. Prints the settings as they would be in effect; the exit code is 2 if anything is
    /// wrong.
    Check(ServeArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct ServeArgs {
    /// Read settings from a TOML file; its keys are the flags' names with underscores
    #[arg(long, env = "TICKCAST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    layer: Layer,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None => serve(cli.serve),
        Some(Command::Serve(args)) => serve(args),
        Some(Command::Tap(args)) => load::tap(&args, &mut std::io::stdout().lock()).map_err(Into::into),
        Some(Command::Record(args)) => record(args),
        Some(Command::Config(ConfigCommand::Check(args))) => check_config(args),
        Some(Command::Usage(args)) => usage(&args, &mut std::io::stdout().lock()).map_err(Into::into),
        Some(Command::Archive(args)) => archive(&args, &mut std::io::stdout().lock()).map_err(Into::into),
        Some(Command::Floor(args)) => load::floor(&args, &mut std::io::stdout()).map_err(Into::into),
        Some(Command::Load(args)) => match load::load(&args, &mut std::io::stdout().lock()) {
            Ok(outcome) => return ExitCode::from(outcome.exit_code()),
            Err(error) => Err(error.into()),
        },
        Some(Command::Check { args, serve }) => match look(args, serve) {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        Some(Command::AttackWorker) => load::attack_worker().map_err(Into::into),
        Some(Command::LoadWorker) => load::load_worker().map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // An error of a client quotes what a server has sent.
            let text: String = error.to_string().split_inclusive('\n').map(load::printable).collect();
            runtime::print_error(format!("tickcast: {text}\n"));
            let has_served = matches!(error.downcast_ref(), Some(runtime::StartError::Failed(_)));
            let has_recorded = matches!(error.downcast_ref(), Some(LoadError::Recording { .. }))
                || matches!(error.downcast_ref(), Some(CaptureError::Recording { .. }));
            ExitCode::from(if has_served || has_recorded { 1 } else { 2 })
        }
    }
}

fn serve(args: ServeArgs) -> Result<(), Box<dyn std::error::Error>> {
    runtime::take_reserve()?;
    let (machine, epoch) = (runtime::machine()?, runtime::new_epoch()?);
    let read = || Config::resolve(layer(args.clone())?, &machine, epoch);
    let config = read()?;
    let log = runtime::Log::to_stderr(&config.log, config.log_lines_per_s).map_err(runtime::StartError::from)?;
    runtime::print(format!("tickcast {}\n{}", env!("CARGO_PKG_VERSION"), config.describe()));
    for flag in exposed_tokens(std::env::args_os()) {
        tracing::warn!(
            "{flag}: other users of this machine see the token in the list of processes: prefer {flag}-file FILE"
        );
    }
    runtime::serve(&config, &log, read)?;
    Ok(())
}

fn check_config(args: ServeArgs) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::resolve(layer(args)?, &runtime::machine()?, runtime::new_epoch()?)?;
    runtime::check_files(&config)?;
    let warnings: String = config.warnings().iter().map(|warning| format!("warning: {warning}\n")).collect();
    runtime::print(format!("{}{warnings}the settings are valid\n", config.describe()));
    Ok(())
}

fn record(args: RecordArgs) -> Result<(), Box<dyn std::error::Error>> {
    let Some(feed) = args.raw else { return Ok(load::record(&args)?) };
    let stop = load::stop_flag()?;
    let log = runtime::Log::to_stderr("info", RECORD_LINES_PER_S).map_err(runtime::StartError::from)?;
    let captured = capture(&CaptureSettings { feed, out: args.out, append: args.append, seconds: args.seconds }, &stop);
    log.flush();
    Ok(captured?)
}

/// The flags that have a token as their value.
fn exposed_tokens(arguments: impl Iterator<Item = std::ffi::OsString>) -> Vec<&'static str> {
    let given: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let is_given = |flag: &&str| {
        given
            .iter()
            .any(|argument| argument.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
    };
    ["--publish-token", "--operator-token"].into_iter().filter(|flag| is_given(flag)).collect()
}

fn look(args: CheckArgs, serve: ServeArgs) -> Result<u8, Box<dyn std::error::Error>> {
    Ok(check::check(args, layer(serve)?, &runtime::machine()?, &mut std::io::stdout().lock())?)
}

/// The merged settings of flags, variables and file.
fn layer(args: ServeArgs) -> Result<Layer, ConfigError> {
    check_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))?;
    let file = args.config.as_deref().map(Layer::read).transpose()?.unwrap_or_default();
    Ok(args.layer.over(file))
}
