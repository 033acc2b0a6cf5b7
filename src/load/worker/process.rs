//! One process of a load run: reads a [`WorkerJob`] and [`StageCommand`]s, runs the worker threads, and writes
//! [`WorkerMessage`]s.
//!
//! It ends when its input does: then its parent has gone, or has ended the run.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::SIGINT;

use super::messages::{PublishedCount, StageCommand, WorkerJob, WorkerMessage, WorkerTally};
use super::shared::{RunStage, WorkerShared};
use super::thread::{ThreadJob, WorkerThread};
use crate::load::cores;
use crate::load::error::LoadError;
use crate::load::machine::ensure_descriptors;
use tickcast_client::{Target, TlsConfig};

/// How often it reports its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// Runs the hidden command `load-worker` on the standard streams.
///
/// # Errors
/// Where the parent no longer reads. What goes wrong in the run itself is reported as [`WorkerMessage::Failed`].
pub fn load_worker() -> Result<(), LoadError> {
    // An interrupt from the terminal is for the run, which then ends its processes.
    signal_hook::flag::register(SIGINT, Arc::new(AtomicBool::new(false)))
        .map_err(|error| LoadError::System { what: "signal handler", error })?;
    serve(std::io::stdin(), &mut std::io::stdout().lock()).map_err(LoadError::Output)
}

/// Does one job.
pub fn serve(input: impl Read + Send + 'static, out: &mut impl Write) -> std::io::Result<()> {
    let last = run(BufReader::new(input), out).unwrap_or_else(WorkerMessage::Failed);
    write(out, &last)
}

fn write(out: &mut impl Write, message: &WorkerMessage) -> std::io::Result<()> {
    let line = serde_json::to_string(message).expect("maps with string keys, numbers and text are JSON");
    writeln!(out, "{line}")?;
    out.flush()
}

/// The last message of the job; an error is why it cannot be done.
fn run(mut input: impl BufRead + Send + 'static, out: &mut impl Write) -> Result<WorkerMessage, String> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| format!("the job: {error}"))?;
    let job: WorkerJob = serde_json::from_str(&line).map_err(|error| format!("the job: {error}"))?;
    drop(line);
    let target = Target::parse(&job.url).map_err(|error| format!("the job: {error}"))?;
    let connections = job.clients.len() + job.storm.len();
    let mut tls = TlsConfig::new(&target, job.ca.as_deref()).map_err(|error| error.to_string())?;
    if job.tls_resume {
        // Each connection leaves one.
        tls = tls.resuming(connections);
    }
    ensure_descriptors(connections as u64).map_err(|error| error.to_string())?;
    let shared = Arc::new(WorkerShared::default());
    let workers: Result<Vec<_>, _> = ThreadJob::split(&job, &target, &tls)
        .into_iter()
        .map(|thread_job| WorkerThread::new(thread_job, Arc::clone(&shared)))
        .collect();
    let workers = workers.map_err(|error| format!("load thread: {error}"))?;
    let commanded = Arc::clone(&shared);
    std::thread::spawn(move || follow_commands(input, &commanded));
    let threads: Vec<_> = workers
        .into_iter()
        .map(|worker| {
            let cores = job.cores.clone();
            std::thread::spawn(move || {
                if let Some(cores) = &cores {
                    cores::stay_on(None, cores)?;
                }
                worker.run()
            })
        })
        .collect();
    while !threads.iter().all(|thread| thread.is_finished()) {
        std::thread::sleep(PROGRESS_INTERVAL);
        if write(out, &WorkerMessage::Progress(shared.progress())).is_err() {
            // The parent no longer reads: the end of the input follows.
            break;
        }
    }
    let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| "a load thread panicked".to_owned()));
    let tallies: Result<Vec<WorkerTally>, String> =
        joined.map(|joined| joined?.map_err(|error| format!("load thread: {error}"))).collect();
    Ok(WorkerMessage::Tallies(tallies?))
}

fn follow_commands(input: impl BufRead, shared: &WorkerShared) {
    for line in input.lines() {
        match line.ok().and_then(|line| serde_json::from_str(&line).ok()) {
            Some(StageCommand::Measure) => shared.set_stage(RunStage::Measuring),
            Some(StageCommand::Tail) => shared.set_stage(RunStage::Tail),
            Some(StageCommand::Done(published)) => return shared.finish(published),
            None => break,
        }
    }
    shared.finish(PublishedCount::default());
}
