//! The `replay:` argument: `FILE[,FILE…][?key=value&…]`.

use std::path::PathBuf;

use crate::ingest::parameters::{each_pair, number_within};
use tickcast_venues::{NameStyle, Venue, stamp};

/// The parameters of a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Recordings, merged by their receive stamps.
    pub files: Vec<PathBuf>,
    /// `speed=`: how fast.
    pub speed: Speed,
    /// `loop=1`: start again after the end.
    pub repeat: bool,
    /// `copies=`: instruments published for each recorded one.
    pub copies: u32,
    /// `venue=`: of which venue the messages are; else they show it.
    pub venue: Option<Venue>,
    /// `names=`: the venue's own symbols, or one form for all venues.
    pub names: NameStyle,
    /// `from=`: the time of the first record that is played, in the recording's time, ns since the Unix epoch. What is
    /// before is applied.
    pub from_ns: Option<u64>,
    /// `to=`: the time at which the replay ends: the first that is not played.
    pub to_ns: Option<u64>,
}

/// The pace of a replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// The recording's time, this many times as fast; 0.1 to 1000.
    Times(f64),
    /// As fast as the rings allow.
    Max,
}

impl Speed {
    /// When a line at `at_ns` of the recording is due; `None` where it is due at once.
    pub(super) fn due_ns(self, start_ns: u64, at_ns: u64) -> Option<u64> {
        match self {
            // Exact up to 2^53 ns, which is 104 days of recording; saturates beyond a u64.
            Self::Times(times) => Some(start_ns.saturating_add((at_ns as f64 / times) as u64)),
            Self::Max => None,
        }
    }
}

impl Params {
    /// Parses the text after `replay:`; the error names key, value and what is allowed.
    pub fn parse(rest: &str) -> Result<Self, String> {
        let (files, pairs) = rest.split_once('?').unwrap_or((rest, ""));
        let mut params = Self {
            files: files_of(files)?,
            speed: Speed::Times(1.0),
            repeat: false,
            copies: 1,
            venue: None,
            names: NameStyle::Venue,
            from_ns: None,
            to_ns: None,
        };
        each_pair(pairs, '&', |key, value| params.set(key, value))?;
        match (params.from_ns, params.to_ns) {
            (Some(from_ns), Some(to_ns)) if from_ns >= to_ns => {
                Err(format!("from: {from_ns} is not before to: {to_ns}: expected an earlier time"))
            }
            _ => Ok(params),
        }
    }

    /// The first parameter that is only for messages of venues, and is not left at its default.
    pub(super) fn key_for_messages(&self) -> Option<&'static str> {
        let given =
            [("copies", self.copies != 1), ("venue", self.venue.is_some()), ("names", self.names != NameStyle::Venue)];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(key, _)| key)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match (key, value) {
            ("speed", "max") => self.speed = Speed::Max,
            ("speed", _) => {
                let times = number_within(key, value, 0.1, 1000.0).map_err(|error| error + " or max")?;
                self.speed = Speed::Times(times);
            }
            ("loop", "0" | "1") => self.repeat = value == "1",
            ("loop", _) => return Err(format!("loop: invalid value {value:?}: expected 0 or 1")),
            ("copies", _) => self.copies = number_within(key, value, 1, 1000)?,
            ("venue", _) => self.venue = Some(venue_of(value)?),
            ("names", "venue") => self.names = NameStyle::Venue,
            ("names", "common") => self.names = NameStyle::Common,
            ("names", _) => return Err(format!("names: invalid value {value:?}: expected venue or common")),
            ("from", _) => self.from_ns = Some(time_of(key, value)?),
            ("to", _) => self.to_ns = Some(time_of(key, value)?),
            _ => return Err(format!("unknown key {key:?}: expected speed, loop, from, to, copies, venue or names")),
        }
        Ok(())
    }
}

/// A time as a number since 1970, in s, ms, µs or ns, or as a text of RFC 3339.
fn time_of(key: &str, value: &str) -> Result<u64, String> {
    stamp::parse(value).or_else(|_| stamp::of_rfc3339(value)).map_err(|_| {
        format!(
            "{key}: invalid value {value:?}: expected a time such as 2024-08-08T23:54:14Z, or seconds, milliseconds, \
             microseconds or nanoseconds since 1970"
        )
    })
}

fn venue_of(name: &str) -> Result<Venue, String> {
    Venue::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Venue::ALL.map(Venue::name).into();
        format!("venue: invalid value {name:?}: expected one of {}", names.join(", "))
    })
}

fn files_of(list: &str) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for name in list.split(',') {
        if name.is_empty() {
            return Err(
                "empty file name: expected FILE[,FILE…][?speed=0.1..1000|max&loop=0|1&from=TIME&to=TIME&copies=1..1000&\
                 venue=NAME]"
                    .to_owned(),
            );
        }
        let path = PathBuf::from(name);
        if files.contains(&path) {
            return Err(format!("duplicate file {name}: for more instruments of one recording, use copies=K"));
        }
        files.push(path);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argument_is_files_and_parameters_with_defaults() {
        let plain = Params::parse("a.gz").expect("a file alone is enough");
        let files = vec![PathBuf::from("a.gz")];
        let (speed, names) = (Speed::Times(1.0), NameStyle::Venue);
        let expected =
            Params { files, speed, repeat: false, copies: 1, venue: None, names, from_ns: None, to_ns: None };
        assert_eq!(plain, expected);
        let full = Params::parse("dir/a.gz,b?speed=2.5&loop=1&copies=1000&venue=kraken&names=common&from=2024-08-08T23:54:14.5Z&to=1723161255")
            .expect("all keys are known");
        let files = vec![PathBuf::from("dir/a.gz"), PathBuf::from("b")];
        assert_eq!(
            full,
            Params {
                files,
                speed: Speed::Times(2.5),
                repeat: true,
                copies: 1000,
                venue: Some(Venue::Kraken),
                names: NameStyle::Common,
                from_ns: Some(1_723_161_254_500_000_000),
                to_ns: Some(1_723_161_255_000_000_000),
            }
        );
        assert_eq!(Params::parse("a?speed=max&loop=0").map(|params| params.speed), Ok(Speed::Max));
    }

    #[test]
    fn error_names_key_value_and_what_is_allowed() {
        for (rest, message) in [
            ("a?speed=0", "speed: invalid value \"0\": expected 0.1 to 1000 or max"),
            ("a?speed=1001", "speed: invalid value \"1001\": expected 0.1 to 1000 or max"),
            ("a?speed=NaN", "speed: invalid value \"NaN\": expected 0.1 to 1000 or max"),
            ("a?copies=0", "copies: invalid value \"0\": expected 1 to 1000"),
            ("a?loop=yes", "loop: invalid value \"yes\": expected 0 or 1"),
            ("a?sped=1", "unknown key \"sped\": expected speed, loop, from, to, copies, venue or names"),
            (
                "a?from=1723161255&to=1723161255000",
                "from: 1723161255000000000 is not before to: 1723161255000000000: expected an earlier time",
            ),
            (
                "a?to=noon",
                "to: invalid value \"noon\": expected a time such as 2024-08-08T23:54:14Z, or seconds, milliseconds, \
              microseconds or nanoseconds since 1970",
            ),
            ("a?names=x", "names: invalid value \"x\": expected venue or common"),
            (
                "a?venue=mtgox",
                "venue: invalid value \"mtgox\": expected one of binance, binance-usdm, binance-coinm, coinbase, kraken, \
                 bybit, bybit-linear, bybit-inverse, okx",
            ),
            ("a?speed", "invalid parameter \"speed\": expected key=value"),
            ("a,b,a", "duplicate file a: for more instruments of one recording, use copies=K"),
        ] {
            assert_eq!(Params::parse(rest), Err(message.to_owned()));
        }
        for rest in ["", "?speed=1", "a,", ",a"] {
            assert!(
                Params::parse(rest).is_err_and(|error| error.starts_with("empty file name: expected FILE")),
                "{rest}"
            );
        }
    }

    #[test]
    fn due_time_follows_the_speed() {
        assert_eq!(Speed::Times(1.0).due_ns(1_000, 500), Some(1_500));
        assert_eq!(Speed::Times(10.0).due_ns(1_000, 500), Some(1_050));
        assert_eq!(Speed::Times(0.5).due_ns(1_000, 500), Some(2_000));
        assert_eq!(Speed::Max.due_ns(1_000, 500), None);
        assert_eq!(Speed::Times(0.1).due_ns(u64::MAX - 1, u64::MAX), Some(u64::MAX));
    }
}
