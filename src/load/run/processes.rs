//! The load processes of a run, from the side of the run: started with a job each, led through the stages, messages.
//!
//! What always holds: a process that ends early is an error with what it said; none outlives the processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::load::error::LoadError;
use crate::load::worker::messages::{StageCommand, WorkerJob, WorkerMessage, WorkerProgress, WorkerTally};
#[cfg(test)]
use crate::load::worker::process;

/// The hidden command that [`crate::load::worker::thread::load_worker`] is.
pub const WORKER_COMMAND: &str = "load-worker";
/// How long saying goodbye to very many connections may take.
const TALLY_TIMEOUT: Duration = Duration::from_secs(60);

/// How a processes's workers come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// As processes of this very program.
    Processes,
    /// As threads of this process, talking over pipes: for tests, whose program is another one.
    #[cfg(test)]
    Threads,
}

/// All processes of a run.
#[derive(Debug)]
pub struct WorkerProcesses {
    workers: Vec<WorkerProcess>,
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
    /// Starts a worker for each job.
    pub fn start(jobs: Vec<WorkerJob>, start: Launch) -> Result<Self, LoadError> {
        let (sender, messages) = channel();
        let mut processes = Self { workers: Vec::new(), messages };
        for (index, job) in jobs.iter().enumerate() {
            let system = |error| LoadError::System { what: "load process", error };
            let worker = WorkerProcess::start(start, index, sender.clone()).map_err(system)?;
            processes.workers.push(worker);
            let line = serde_json::to_string(job).expect("text and numbers are JSON");
            processes.workers[index].tell(&line).map_err(system)?;
        }
        Ok(processes)
    }

    /// Gives an command to all.
    pub fn command(&mut self, command: StageCommand) -> Result<(), LoadError> {
        let line = serde_json::to_string(&command).expect("text and numbers are JSON");
        for worker in &mut self.workers {
            worker.tell(&line).map_err(|error| LoadError::System { what: "load process", error })?;
        }
        Ok(())
    }

    /// Listens for so long, and says how far all have come.
    pub fn listen(&mut self, length: Duration) -> Result<WorkerProgress, LoadError> {
        let until = Instant::now() + length;
        while let Ok((index, message)) = self.messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.take(index, message)?;
        }
        let mut sum = WorkerProgress::default();
        for worker in &self.workers {
            sum.add(&worker.progress);
        }
        Ok(sum)
    }

    /// Waits for what all have found, after [`StageCommand::Done`].
    pub fn tallies(mut self) -> Result<Vec<WorkerTally>, LoadError> {
        let deadline = Instant::now() + TALLY_TIMEOUT;
        while self.workers.iter().any(|worker| worker.tallies.is_none()) {
            match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((index, message)) => self.take(index, message)?,
                Err(_) => return Err(LoadError::Worker("it does not say what it has found".to_owned())),
            }
        }
        Ok(self.workers.iter_mut().flat_map(|worker| worker.tallies.take().unwrap_or_default()).collect())
    }

    fn take(&mut self, index: usize, message: Option<WorkerMessage>) -> Result<(), LoadError> {
        let worker = &mut self.workers[index];
        match message {
            Some(WorkerMessage::Progress(progress)) => worker.progress = progress,
            Some(WorkerMessage::Tallies(tallies)) => worker.tallies = Some(tallies),
            Some(WorkerMessage::Failed(why)) => return Err(LoadError::Worker(why)),
            None if worker.tallies.is_some() => {}
            None => return Err(LoadError::Worker(worker.how_it_ended())),
        }
        Ok(())
    }
}

impl WorkerProcess {
    fn start(start: Launch, index: usize, sender: Sender<(usize, Option<WorkerMessage>)>) -> std::io::Result<Self> {
        let (commands, child): (Box<dyn CommandPipe>, _) = match start {
            Launch::Processes => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(WORKER_COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.spawn()?;
                let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                    unreachable!("both are piped")
                };
                std::thread::spawn(move || hear(output, index, &sender));
                (Box::new(input), Some(child))
            }
            #[cfg(test)]
            Launch::Threads => {
                let ((input, commands), (output, mut message)) = (std::io::pipe()?, std::io::pipe()?);
                // Nobody listens where the run was broken off.
                std::thread::spawn(move || drop(process::serve(input, &mut message)));
                std::thread::spawn(move || hear(output, index, &sender));
                (Box::new(commands), None)
            }
        };
        Ok(Self { commands, child, progress: WorkerProgress::default(), tallies: None })
    }

    fn tell(&mut self, line: &str) -> std::io::Result<()> {
        writeln!(self.commands, "{line}")?;
        self.commands.flush()
    }

    fn how_it_ended(&mut self) -> String {
        let status = self.child.as_mut().and_then(|child| child.wait().ok());
        status.map_or_else(|| "it ended early".to_owned(), |status| format!("it ended early ({status})"))
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if self.tallies.is_none() {
            // It may be at anything; what it does is of no use any more.
            let _ = child.kill();
        }
        let _ = child.wait();
    }
}

/// Hands on what a process says, and its end.
fn hear(output: impl Read, index: usize, sender: &Sender<(usize, Option<WorkerMessage>)>) {
    for line in BufReader::new(output).lines() {
        let message = match line.map(|line| serde_json::from_str(&line)) {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => WorkerMessage::Failed(format!("it said what is not understood: {error}")),
            Err(_) => break,
        };
        if sender.send((index, Some(message))).is_err() {
            return;
        }
    }
    // The processes may have gone.
    let _ = sender.send((index, None));
}
