//! Child processes of a run: this program again, on chosen cores.

use std::process::{Child, Command};

use crate::load::cores;
use crate::load::error::LoadError;

/// A command that runs this program.
pub fn this_program() -> Result<Command, LoadError> {
    let path = std::env::current_exe().map_err(|error| LoadError::System { what: "this program's file", error })?;
    Ok(Command::new(path))
}

/// Starts a child on these cores: it inherits the affinity of the thread that starts it.
pub fn spawn(mut command: Command, cores: Option<&[usize]>) -> Result<Child, LoadError> {
    let cores = cores.map(<[usize]>::to_vec);
    let starter = std::thread::spawn(move || {
        if let Some(cores) = &cores {
            cores::stay_on(None, cores)?;
        }
        command.spawn()
    });
    let started = starter.join().expect("a panic of the starting thread is a bug");
    started.map_err(|error| LoadError::System { what: "child process", error })
}
