//! The process of an attack: started with a task, ended by the end of its stdin. It reports what it did.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

use super::args::AttackPriority;
use super::connections::{AttackConnections, AttackCount};
use super::kind::AttackKind;
use super::task::AttackTask;
use crate::load::child::{spawn, this_program};
use crate::load::error::LoadError;
use crate::load::machine::ensure_descriptors;

/// An attack under way. It ends when this is dropped.
#[derive(Debug)]
pub struct Attack {
    child: Child,
}

impl Attack {
    /// Starts it, on these cores.
    pub fn start(task: &AttackTask, cores: Option<&[usize]>) -> Result<Self, LoadError> {
        let mut command = this_program()?;
        command.arg("attack-worker").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut attack = Self { child: spawn(command, cores)? };
        let line = serde_json::to_string(task).expect("plain data") + "\n";
        let input = attack.child.stdin.as_mut().expect("it is piped");
        input.write_all(line.as_bytes()).map_err(|error| LoadError::System { what: "attack process", error })?;
        Ok(attack)
    }

    /// Has it end, without a wait for that.
    pub fn stop(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Ends it, and returns what it did.
    pub fn end(mut self) -> Result<AttackCount, LoadError> {
        self.stop();
        let mut results = String::new();
        let output = self.child.stdout.as_mut().expect("it is piped");
        output.read_to_string(&mut results).map_err(|error| LoadError::System { what: "attack process", error })?;
        serde_json::from_str(&results).map_err(|_| LoadError::Attack)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        // It ends with its input; the wait leaves no zombie.
        self.stop();
        let _ = self.child.wait();
    }
}

/// Runs the hidden command `attack-worker`: reads its task, and attacks until stdin ends, also where that is because
/// the run was killed.
pub fn attack_worker() -> Result<(), LoadError> {
    let system = |error| LoadError::System { what: "attack", error };
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(system)?;
    let task: AttackTask = serde_json::from_str(&line).map_err(|error| LoadError::Arguments(error.to_string()))?;
    let count = match (task.kind, task.server_pid) {
        (AttackKind::Pauses, Some(pid)) => pause(pid)?,
        (AttackKind::Pauses, None) => return Err(LoadError::Attack),
        _ => attack(task)?,
    };
    let text = serde_json::to_string(&count).expect("plain data");
    std::io::stdout().write_all(text.as_bytes()).map_err(system)
}

fn attack(task: AttackTask) -> Result<AttackCount, LoadError> {
    ensure_descriptors(task.connections.into())?;
    // An error is one of the task, and not of the thread.
    AttackConnections::new(&task)?;
    let (task, stop) = (Arc::new(task), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        if task.priority == AttackPriority::Idle {
            run_idle();
        }
        Ok(AttackConnections::new(&task)?.attack(&stopped))
    });
    await_end();
    // Relaxed: the flag carries no other data.
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("a panic is a bug")
}

/// Stops a process until stdin ends.
fn pause(pid: u32) -> Result<AttackCount, LoadError> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(LoadError::Attack)?;
    let system = |error: rustix::io::Errno| LoadError::System { what: "SIGSTOP", error: error.into() };
    kill_process(pid, Signal::STOP).map_err(system)?;
    await_end();
    kill_process(pid, Signal::CONT).map_err(system)?;
    Ok(AttackCount { actions: 1, ..AttackCount::default() })
}

/// The pipe ends with the run that started this process.
fn await_end() {
    // An error is an end as well.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// Leaves the core to every other thread that can run.
fn run_idle() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let own = thread_priority::thread_native_id();
    // Where that is not permitted the attack slows the clients as well, which the report shows as a busy generator.
    let _ = thread_priority::set_thread_priority_and_policy(own, ThreadPriority::Min, idle);
}
