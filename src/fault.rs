//! Faults that tests plant in a running server: a panic or a hang at a named place of the code.
//!
//! Only builds with debug assertions have them. In a release build [`point`] is an empty function, whatever the environment
//! says. A variable and not a feature of the package, so that the tests run the one program that they all share.
//!
//! `FAULT_INJECTION="panic tick-0 /path/to/file"`: the place `tick` of shard 0 panics once the file exists, and removes it
//! first.
//! `hang` in place of `panic`: the place waits while the file exists.

/// A place where a test may plant a fault.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_place: &str) {}

/// A place where a test may plant a fault.
#[cfg(debug_assertions)]
pub fn point(place: &str) {
    if let Some(fault) = planted::fault().filter(|fault| fault.place == place) {
        fault.occur();
    }
}

/// The place of one of several: `tick-0`.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point_of(_place: &str, _index: usize) {}

/// The place of one of several: `tick-0`.
#[cfg(debug_assertions)]
pub fn point_of(place: &str, index: usize) {
    let is_meant = |fault: &&planted::Fault| {
        fault.place.rsplit_once('-').is_some_and(|(name, nth)| name == place && nth.parse() == Ok(index))
    };
    if let Some(fault) = planted::fault().filter(is_meant) {
        fault.occur();
    }
}

#[cfg(debug_assertions)]
mod planted {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::time::Duration;

    /// Names the fault, its place and its file.
    const VARIABLE: &str = "FAULT_INJECTION";
    /// How often a planted hang checks its file.
    const HANG_INTERVAL: Duration = Duration::from_millis(1);

    pub(super) struct Fault {
        hangs: bool,
        pub(super) place: String,
        file: PathBuf,
    }

    pub(super) fn fault() -> Option<&'static Fault> {
        static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
        FAULT.get_or_init(|| parse(&std::env::var(VARIABLE).ok()?)).as_ref()
    }

    fn parse(text: &str) -> Option<Fault> {
        let mut words = text.splitn(3, ' ');
        let (kind, place, file) = (words.next()?, words.next()?, words.next()?);
        Some(Fault { hangs: kind == "hang", place: place.to_owned(), file: file.into() })
    }

    impl Fault {
        pub(super) fn occur(&self) {
            if self.hangs {
                while self.file.exists() {
                    std::thread::sleep(HANG_INTERVAL);
                }
            } else if std::fs::remove_file(&self.file).is_ok() {
                panic!("a fault was planted at {}", self.place);
            }
        }
    }
}
