//! Ctrl-C and SIGTERM as a flag.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::load::error::LoadError;

/// A flag that SIGINT and SIGTERM set. The second of them ends the process at once, with exit code 130.
pub fn stop_flag() -> Result<Arc<AtomicBool>, LoadError> {
    let stop = Arc::new(AtomicBool::new(false));
    let system = |error| LoadError::System { what: "signal handler", error };
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop)).map_err(system)?;
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(system)?;
    }
    Ok(stop)
}
