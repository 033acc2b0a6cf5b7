//! The worker processes of a run: started with a job each, taken through the stages, and read.
//!
//! What always holds: a process that ends early is an error; none outlives this value.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::load::child::this_program;
use crate::load::error::LoadError;
use crate::load::worker::messages::{StageCommand, WorkerJob, WorkerMessage, WorkerProgress, WorkerTally};
#[cfg(test)]
use crate::load::worker::process;

/// The hidden command that [`crate::load::load_worker`] runs.
const WORKER_COMMAND: &str = "load-worker";
/// How long closing very many connections may take.
const TALLY_TIMEOUT: Duration = Duration::from_secs(60);

/// How the workers are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// As processes of this program.
    Processes,
    /// As threads of this process that use pipes: for unit tests, whose program is another one.
    #[cfg(test)]
    Threads,
}

/// All processes of a run.
#[derive(Debug)]
pub struct WorkerProcesses {
    workers: Vec<WorkerProcess>,
    /// Messages with the index of their process; `None` is its end.
    messages: Receiver<(usize, Option<WorkerMessage>)>,
}

#[derive(Debug)]
struct WorkerProcess {
    commands: Box<dyn CommandPipe>,
    child: Option<Child>,
    progress: WorkerProgress,
    tallies: Option<Vec<WorkerTally>>,
}

trait CommandPipe: Write + Send + std::fmt::Debug {}
impl<T: Write + Send + std::fmt::Debug> CommandPipe for T {}

impl WorkerProcesses {
    /// Starts a process for each job.
    pub fn start(jobs: Vec<WorkerJob>, launch: Launch) -> Result<Self, LoadError> {
        let (sender, messages) = channel();
        let mut workers = Vec::with_capacity(jobs.len());
        for (index, job) in jobs.iter().enumerate() {
            let mut worker = WorkerProcess::start(launch, index, sender.clone())?;
            let line = serde_json::to_string(job).expect("text and numbers are JSON");
            worker.write(&line)?;
            workers.push(worker);
        }
        Ok(Self { workers, messages })
    }

    /// Sends a command to all.
    pub fn command(&mut self, command: StageCommand) -> Result<(), LoadError> {
        let line = serde_json::to_string(&command).expect("text and numbers are JSON");
        self.workers.iter_mut().try_for_each(|worker| worker.write(&line))
    }

    /// Reads messages for this long. Returns how far all processes together have come.
    pub fn progress(&mut self, length: Duration) -> Result<WorkerProgress, LoadError> {
        let until = Instant::now() + length;
        while let Ok((index, message)) = self.messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.on_message(index, message)?;
        }
        let mut sum = WorkerProgress::default();
        for worker in &self.workers {
            sum.add(&worker.progress);
        }
        Ok(sum)
    }

    /// Waits for the results of all, after [`StageCommand::Done`].
    pub fn tallies(mut self) -> Result<Vec<WorkerTally>, LoadError> {
        let deadline = Instant::now() + TALLY_TIMEOUT;
        while self.workers.iter().any(|worker| worker.tallies.is_none()) {
            match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((index, message)) => self.on_message(index, message)?,
                Err(_) => {
                    let seconds = TALLY_TIMEOUT.as_secs();
                    return Err(LoadError::Worker(format!("it did not report its results within {seconds} s")));
                }
            }
        }
        Ok(self.workers.iter_mut().flat_map(|worker| worker.tallies.take().unwrap_or_default()).collect())
    }

    fn on_message(&mut self, index: usize, message: Option<WorkerMessage>) -> Result<(), LoadError> {
        let worker = &mut self.workers[index];
        match message {
            Some(WorkerMessage::Progress(progress)) => worker.progress = progress,
            Some(WorkerMessage::Tallies(tallies)) => worker.tallies = Some(tallies),
            Some(WorkerMessage::Failed(why)) => return Err(LoadError::Worker(why)),
            None if worker.tallies.is_some() => {}
            None => return Err(LoadError::Worker(worker.early_end())),
        }
        Ok(())
    }
}

impl WorkerProcess {
    fn start(launch: Launch, index: usize, sender: Sender<(usize, Option<WorkerMessage>)>) -> Result<Self, LoadError> {
        let system = |error| LoadError::System { what: "load process", error };
        let (commands, child): (Box<dyn CommandPipe>, _) = match launch {
            Launch::Processes => {
                let mut command = this_program()?;
                command.arg(WORKER_COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.spawn().map_err(system)?;
                let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                    unreachable!("both are piped")
                };
                std::thread::spawn(move || forward(output, index, &sender));
                (Box::new(input), Some(child))
            }
            #[cfg(test)]
            Launch::Threads => {
                let (input, commands) = std::io::pipe().map_err(system)?;
                let (output, mut messages) = std::io::pipe().map_err(system)?;
                // The other end is closed where the run was broken off.
                std::thread::spawn(move || drop(process::serve(input, &mut messages)));
                std::thread::spawn(move || forward(output, index, &sender));
                (Box::new(commands), None)
            }
        };
        Ok(Self { commands, child, progress: WorkerProgress::default(), tallies: None })
    }

    fn write(&mut self, line: &str) -> Result<(), LoadError> {
        let written = writeln!(self.commands, "{line}").and_then(|()| self.commands.flush());
        written.map_err(|error| LoadError::System { what: "load process", error })
    }

    fn early_end(&mut self) -> String {
        let status = self.child.as_mut().and_then(|child| child.wait().ok());
        status.map_or_else(|| "it ended early".to_owned(), |status| format!("it ended early ({status})"))
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if self.tallies.is_none() {
            // The run has failed: what the process does is of no use.
            let _ = child.kill();
        }
        let _ = child.wait();
    }
}

/// Forwards the messages of a process, and its end.
fn forward(output: impl Read, index: usize, sender: &Sender<(usize, Option<WorkerMessage>)>) {
    for line in BufReader::new(output).lines() {
        let message = match line.map(|line| serde_json::from_str(&line)) {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => WorkerMessage::Failed(format!("its message is invalid: {error}")),
            Err(_) => break,
        };
        if sender.send((index, Some(message))).is_err() {
            return;
        }
    }
    // The receiver may have gone.
    let _ = sender.send((index, None));
}
