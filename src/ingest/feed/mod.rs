//! Sources inside the process: the simulated market and recordings.
//!
//! They are pure state machines: time is an argument of [`Source::receive`](super::source::Source::receive), and they
//! never block. The supervisor drives one of them on one thread; tests drive it with a clock of their own.
//!
//! * [`sim`]: a seeded market.
//! * [`replay`]: recordings of venues, as fast as they were, faster, or as fast as the rings take them.

pub mod replay;
pub mod sim;

/// Splits `key=value` pairs at `separator`, and calls `set` with each; the error of `set` names what is allowed.
fn each_pair(
    pairs: &str,
    separator: char,
    mut set: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), String> {
    for pair in pairs.split(separator).filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("invalid parameter {pair:?}: expected key=value"))?;
        set(key, value)?;
    }
    Ok(())
}

/// A number within bounds, or an error that names the bounds.
fn number_within<T>(key: &str, value: &str, least: T, most: T) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match value.parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!("{key}: invalid value {value:?}: expected {least} to {most}")),
    }
}
