//! A load process: takes a [`WorkerJob`] and [`StageCommand`]s from its input, runs the workers, and writes [`WorkerMessage`] to its output.
//!
//! It ends when its input does: whoever started it has gone then, or wants it gone.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::Uri;
use signal_hook::consts::SIGINT;

use crate::load::cores;
use crate::load::error::LoadError;
use crate::load::machine::ensure_descriptors;
use crate::load::worker::messages::{PublishedCount, StageCommand, WorkerJob, WorkerMessage, WorkerTally};
use crate::load::worker::thread::{RunStage, ThreadJob, WorkerShared, WorkerThread};

/// How often it tells how far it has come.
const NEWS_EVERY: Duration = Duration::from_millis(50);

/// Runs the hidden command `load-worker`: one process of a run, on its standard streams.
///
/// # Errors
/// Where whoever started it does not listen any more; what goes wrong in the run itself is told as news.
pub fn load_worker() -> Result<(), LoadError> {
    // An interrupt of the terminal is for the run, which then ends its processes.
    signal_hook::flag::register(SIGINT, Arc::new(AtomicBool::new(false)))
        .map_err(|error| LoadError::System { what: "signal handler", error })?;
    serve(std::io::stdin(), &mut std::io::stdout().lock()).map_err(LoadError::Output)
}

/// Does one job.
pub fn serve(input: impl Read + Send + 'static, out: &mut impl Write) -> std::io::Result<()> {
    let news = run(BufReader::new(input), out).unwrap_or_else(WorkerMessage::Failed);
    tell(out, &news)
}

fn tell(out: &mut impl Write, news: &WorkerMessage) -> std::io::Result<()> {
    let line = serde_json::to_string(news).expect("maps with string keys, numbers and text are JSON");
    writeln!(out, "{line}")?;
    out.flush()
}

/// The last news of the job; an error is why it cannot be done.
fn run(mut input: impl BufRead + Send + 'static, out: &mut impl Write) -> Result<WorkerMessage, String> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| format!("the job: {error}"))?;
    let job: WorkerJob = serde_json::from_str(&line).map_err(|error| format!("the job: {error}"))?;
    drop(line);
    let uri: Uri = job.uri.parse().map_err(|error| format!("the job's URL: {error}"))?;
    let connections = job.plans.len() + job.storm.len();
    ensure_descriptors(connections as u64).map_err(|error| error.to_string())?;
    let shared = Arc::new(WorkerShared::default());
    let workers: Result<Vec<_>, _> =
        ThreadJob::of(&job, &uri).into_iter().map(|share| WorkerThread::new(share, Arc::clone(&shared))).collect();
    let workers = workers.map_err(|error| format!("load thread: {error}"))?;
    let told = Arc::clone(&shared);
    std::thread::spawn(move || follow_orders(input, &told));
    let cores = job.cores;
    let threads: Vec<_> = workers
        .into_iter()
        .map(|worker| {
            std::thread::spawn({
                let cores = cores.clone();
                move || {
                    if let Some(cores) = &cores {
                        cores::stay_on(None, cores)?;
                    }
                    worker.run()
                }
            })
        })
        .collect();
    while !threads.iter().all(|thread| thread.is_finished()) {
        std::thread::sleep(NEWS_EVERY);
        if tell(out, &WorkerMessage::Progress(shared.progress())).is_err() {
            // Nobody listens: the end of the input comes as well.
            break;
        }
    }
    let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| "a load thread panicked".to_owned()));
    let tallies: Result<Vec<WorkerTally>, String> =
        joined.map(|joined| joined?.map_err(|error| format!("load thread: {error}"))).collect();
    Ok(WorkerMessage::Tallies(tallies?))
}

fn follow_orders(input: impl BufRead, shared: &WorkerShared) {
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
