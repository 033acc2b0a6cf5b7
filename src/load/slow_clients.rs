//! Clients that are slow on purpose: when they do not read, and how fast they read. Pure.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A time in which clients do not read their sockets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// Seconds from the start of the measured time.
    pub at_seconds: f64,
    pub for_seconds: f64,
    /// The percentage of the clients.
    pub percent: f64,
}

/// How fast limited clients read, from their connect to the end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadRate {
    /// The most bytes that each of them reads in a second.
    pub bytes_per_second: u64,
    /// The percentage of the clients.
    pub percent: f64,
}

/// The encoding that limited clients ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub enum LimitedFormat {
    /// Packets in binary messages
    #[default]
    Binary,
    /// Packets as JSON, by the subprotocol tickcast.v1+json
    Json,
}

/// The longest time of a pause, and the latest start.
const SECONDS_MAX: f64 = 86_400.0;
/// Less is no stream, and more is what no connection takes.
const BYTES_PER_SECOND_MIN: u64 = 1_000;
const BYTES_PER_SECOND_MAX: u64 = 1_000_000_000;

impl Pause {
    /// When the clients stop to read, from the start of the measured time.
    pub fn begin(&self) -> Duration {
        Duration::from_secs_f64(self.at_seconds)
    }

    /// When they go on.
    pub fn end(&self) -> Duration {
        Duration::from_secs_f64(self.at_seconds + self.for_seconds)
    }
}

impl FromStr for Pause {
    type Err = String;

    /// Reads `AT,FOR` or `AT,FOR,PERCENT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<_> = text.split(',').map(str::trim).collect();
        let (at, length, percent) = match words[..] {
            [at, length] => (at, length, "100"),
            [at, length, percent] => (at, length, percent),
            _ => return Err("expected AT,FOR or AT,FOR,PERCENT, such as 6,2 or 6,2,50".to_owned()),
        };
        Ok(Self {
            at_seconds: number(at, "AT", |at| (0.0..=SECONDS_MAX).contains(&at), "seconds from 0 to 86400")?,
            for_seconds: number(
                length,
                "FOR",
                |length| length > 0.0 && length <= SECONDS_MAX,
                "seconds above 0, at most 86400",
            )?,
            percent: percentage(percent)?,
        })
    }
}

impl FromStr for ReadRate {
    type Err = String;

    /// Reads `BYTES` or `BYTES,PERCENT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<_> = text.split(',').map(str::trim).collect();
        let (bytes, percent) = match words[..] {
            [bytes] => (bytes, "100"),
            [bytes, percent] => (bytes, percent),
            _ => return Err("expected BYTES or BYTES,PERCENT, such as 30000,10".to_owned()),
        };
        let (least, most) = (BYTES_PER_SECOND_MIN, BYTES_PER_SECOND_MAX);
        let rate = bytes.parse().ok().filter(|bytes| (least..=most).contains(bytes));
        let bytes_per_second =
            rate.ok_or_else(|| format!("BYTES {bytes:?}: expected bytes a second from {least} to {most}"))?;
        Ok(Self { bytes_per_second, percent: percentage(percent)? })
    }
}

fn percentage(word: &str) -> Result<f64, String> {
    number(word, "PERCENT", |percent| percent > 0.0 && percent <= 100.0, "a number above 0, at most 100")
}

/// Reads one number of a list. The error names it.
fn number(word: &str, name: &str, is_valid: fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    let number = word.parse().ok().filter(|number| is_valid(*number));
    number.ok_or_else(|| format!("{name} {word:?}: expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_rate_is_parsed_or_refused_by_the_name_of_its_number() {
        assert_eq!("30000,10".parse(), Ok(ReadRate { bytes_per_second: 30_000, percent: 10.0 }));
        assert_eq!("1000".parse(), Ok(ReadRate { bytes_per_second: 1000, percent: 100.0 }));
        for (bad, problem) in [
            ("", "BYTES \"\": expected bytes a second from 1000 to 1000000000"),
            ("999,10", "BYTES \"999\": expected bytes a second from 1000"),
            ("30k,10", "BYTES \"30k\": expected bytes a second from 1000"),
            ("30000,0", "PERCENT \"0\": expected a number above 0"),
            ("30000,10,1", "expected BYTES or BYTES,PERCENT, such as 30000,10"),
        ] {
            let error = bad.parse::<ReadRate>().expect_err(bad);
            assert!(error.contains(problem), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_pause_is_parsed_or_refused_by_the_name_of_its_number() {
        let pause = |at_seconds, for_seconds, percent| Ok(Pause { at_seconds, for_seconds, percent });
        assert_eq!("6,2".parse(), pause(6.0, 2.0, 100.0));
        assert_eq!("0, 0.5 ,12.5".parse(), pause(0.0, 0.5, 12.5));
        for (bad, problem) in [
            ("", "expected AT,FOR or AT,FOR,PERCENT, such as 6,2"),
            ("6", "expected AT,FOR or AT,FOR,PERCENT"),
            ("6,2,50,1", "expected AT,FOR or AT,FOR,PERCENT"),
            ("x,2", "AT \"x\": expected seconds from 0"),
            ("-1,2", "AT \"-1\": expected seconds from 0"),
            ("6,0", "FOR \"0\": expected seconds above 0"),
            ("6,NaN", "FOR \"NaN\": expected seconds above 0"),
            ("6,inf", "FOR \"inf\": expected seconds above 0"),
            ("6,2,0", "PERCENT \"0\": expected a number above 0, at most 100"),
            ("6,2,101", "PERCENT \"101\": expected a number above 0"),
            ("6,2,", "PERCENT \"\": expected a number above 0"),
        ] {
            let error = bad.parse::<Pause>().expect_err(bad);
            assert!(error.contains(problem), "{bad:?}: {error}");
        }
    }
}
