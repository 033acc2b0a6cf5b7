//! A load process: takes a [`Job`] and [`Order`]s from its input, runs the workers, and writes [`News`] to its output.
//!
//! It ends when its input does: whoever started it has gone then, or wants it gone.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::Uri;
use signal_hook::consts::SIGINT;

use super::cores;
use super::error::LoadError;
use super::job::{Job, News, Order, Published, Tally};
use super::target::ensure_descriptors;
use super::worker::{Share, Shared, Stage, Worker};

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
    let news = run(BufReader::new(input), out).unwrap_or_else(News::Failed);
    tell(out, &news)
}

fn tell(out: &mut impl Write, news: &News) -> std::io::Result<()> {
    let line = serde_json::to_string(news).expect("maps with string keys, numbers and text are JSON");
    writeln!(out, "{line}")?;
    out.flush()
}

/// The last news of the job; an error is why it cannot be done.
fn run(mut input: impl BufRead + Send + 'static, out: &mut impl Write) -> Result<News, String> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| format!("the job: {error}"))?;
    let job: Job = serde_json::from_str(&line).map_err(|error| format!("the job: {error}"))?;
    drop(line);
    let uri: Uri = job.uri.parse().map_err(|error| format!("the job's URL: {error}"))?;
    let connections = job.plans.len() + job.storm.len();
    ensure_descriptors(connections as u64).map_err(|error| error.to_string())?;
    let shared = Arc::new(Shared::default());
    let workers: Result<Vec<_>, _> =
        Share::of(&job, &uri).into_iter().map(|share| Worker::new(share, Arc::clone(&shared))).collect();
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
        if tell(out, &News::Progress(shared.progress())).is_err() {
            // Nobody listens: the end of the input comes as well.
            break;
        }
    }
    let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| "a load thread panicked".to_owned()));
    let tallies: Result<Vec<Tally>, String> =
        joined.map(|joined| joined?.map_err(|error| format!("load thread: {error}"))).collect();
    Ok(News::Tallies(tallies?))
}

fn follow_orders(input: impl BufRead, shared: &Shared) {
    for line in input.lines() {
        match line.ok().and_then(|line| serde_json::from_str(&line).ok()) {
            Some(Order::Measure) => shared.set_stage(Stage::Measuring),
            Some(Order::Tail) => shared.set_stage(Stage::Tail),
            Some(Order::Done(published)) => return shared.finish(published),
            None => break,
        }
    }
    shared.finish(Published::default());
}
