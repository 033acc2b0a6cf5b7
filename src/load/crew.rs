//! The load processes of a run, from the side of the run: started with a job each, led through the stages, heard.
//!
//! What always holds: a process that ends early is an error with what it said; none outlives the crew.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::error::LoadError;
#[cfg(test)]
use super::hand;
use super::job::{Job, News, Order, Progress, Tally};

/// The hidden command that [`super::hand::load_worker`] is.
pub const WORKER_COMMAND: &str = "load-worker";
/// How long saying goodbye to very many connections may take.
const TALLY_TIMEOUT: Duration = Duration::from_secs(60);

/// How a crew's hands come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As processes of this very program.
    Processes,
    /// As threads of this process, talking over pipes: for tests, whose program is another one.
    #[cfg(test)]
    Threads,
}

/// All processes of a run.
#[derive(Debug)]
pub struct Crew {
    hands: Vec<Hand>,
    heard: Receiver<(usize, Option<News>)>,
}

#[derive(Debug)]
struct Hand {
    orders: Box<dyn Orders>,
    child: Option<Child>,
    progress: Progress,
    tallies: Option<Vec<Tally>>,
}

trait Orders: Write + Send + std::fmt::Debug {}
impl<T: Write + Send + std::fmt::Debug> Orders for T {}

impl Crew {
    /// Starts a hand for each job.
    pub fn start(jobs: Vec<Job>, start: Start) -> Result<Self, LoadError> {
        let (told, heard) = channel();
        let mut crew = Self { hands: Vec::new(), heard };
        for (index, job) in jobs.iter().enumerate() {
            let system = |error| LoadError::System { what: "load process", error };
            let hand = Hand::start(start, index, told.clone()).map_err(system)?;
            crew.hands.push(hand);
            let line = serde_json::to_string(job).expect("text and numbers are JSON");
            crew.hands[index].tell(&line).map_err(system)?;
        }
        Ok(crew)
    }

    /// Gives an order to all.
    pub fn order(&mut self, order: Order) -> Result<(), LoadError> {
        let line = serde_json::to_string(&order).expect("text and numbers are JSON");
        for hand in &mut self.hands {
            hand.tell(&line).map_err(|error| LoadError::System { what: "load process", error })?;
        }
        Ok(())
    }

    /// Listens for so long, and says how far all have come.
    pub fn listen(&mut self, length: Duration) -> Result<Progress, LoadError> {
        let until = Instant::now() + length;
        while let Ok((index, news)) = self.heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.take(index, news)?;
        }
        let mut sum = Progress::default();
        for hand in &self.hands {
            sum.add(&hand.progress);
        }
        Ok(sum)
    }

    /// Waits for what all have found, after [`Order::Done`].
    pub fn tallies(mut self) -> Result<Vec<Tally>, LoadError> {
        let deadline = Instant::now() + TALLY_TIMEOUT;
        while self.hands.iter().any(|hand| hand.tallies.is_none()) {
            match self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((index, news)) => self.take(index, news)?,
                Err(_) => return Err(LoadError::Worker("it does not say what it has found".to_owned())),
            }
        }
        Ok(self.hands.iter_mut().flat_map(|hand| hand.tallies.take().unwrap_or_default()).collect())
    }

    fn take(&mut self, index: usize, news: Option<News>) -> Result<(), LoadError> {
        let hand = &mut self.hands[index];
        match news {
            Some(News::Progress(progress)) => hand.progress = progress,
            Some(News::Tallies(tallies)) => hand.tallies = Some(tallies),
            Some(News::Failed(why)) => return Err(LoadError::Worker(why)),
            None if hand.tallies.is_some() => {}
            None => return Err(LoadError::Worker(hand.how_it_ended())),
        }
        Ok(())
    }
}

impl Hand {
    fn start(start: Start, index: usize, told: Sender<(usize, Option<News>)>) -> std::io::Result<Self> {
        let (orders, child): (Box<dyn Orders>, _) = match start {
            Start::Processes => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(WORKER_COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.spawn()?;
                let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                    unreachable!("both are piped")
                };
                std::thread::spawn(move || hear(output, index, &told));
                (Box::new(input), Some(child))
            }
            #[cfg(test)]
            Start::Threads => {
                let ((input, orders), (output, mut news)) = (std::io::pipe()?, std::io::pipe()?);
                // Nobody listens where the run was broken off.
                std::thread::spawn(move || drop(hand::serve(input, &mut news)));
                std::thread::spawn(move || hear(output, index, &told));
                (Box::new(orders), None)
            }
        };
        Ok(Self { orders, child, progress: Progress::default(), tallies: None })
    }

    fn tell(&mut self, line: &str) -> std::io::Result<()> {
        writeln!(self.orders, "{line}")?;
        self.orders.flush()
    }

    fn how_it_ended(&mut self) -> String {
        let status = self.child.as_mut().and_then(|child| child.wait().ok());
        status.map_or_else(|| "it ended early".to_owned(), |status| format!("it ended early ({status})"))
    }
}

impl Drop for Hand {
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
fn hear(output: impl Read, index: usize, told: &Sender<(usize, Option<News>)>) {
    for line in BufReader::new(output).lines() {
        let news = match line.map(|line| serde_json::from_str(&line)) {
            Ok(Ok(news)) => news,
            Ok(Err(error)) => News::Failed(format!("it said what is not understood: {error}")),
            Err(_) => break,
        };
        if told.send((index, Some(news))).is_err() {
            return;
        }
    }
    // The crew may have gone.
    let _ = told.send((index, None));
}
