//! Sessions of venues: when a trading day begins and ends, by the clock of the venue.
//!
//! A session is named by the day on which it opens. One whose close is not after its open ends on the next day. Holidays
//! and short days are not known: there are no bars of what was not traded.

use std::cell::Cell;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

/// The session of a venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// As instruments name it.
    pub venue: String,
    /// IANA name of the zone.
    pub zone_name: String,
    zone: TimeZone,
    open: Time,
    close: Time,
    /// On which it opens, Monday first.
    days: [bool; 7],
}

/// The days, as settings name them.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Session {
    /// Parses a session: an IANA zone, `09:30` and `16:00`, and days such as `mon-fri` or `sun,mon-thu`.
    ///
    /// # Errors
    /// What is invalid, and what is expected.
    pub fn parse(venue: &str, zone_name: &str, open: &str, close: &str, days: &str) -> Result<Self, String> {
        if venue.is_empty() {
            return Err("venue: empty: expected a venue as instruments name it, such as XNYS".to_owned());
        }
        let zone = TimeZone::get(zone_name).map_err(|_| {
            format!("timezone: {zone_name:?} is not known: expected a name of the IANA database, such as Europe/London")
        })?;
        let (open, close) = (parse_time("open", open)?, parse_time("close", close)?);
        let days = parse_days(days)?;
        Ok(Self { venue: venue.to_owned(), zone_name: zone_name.to_owned(), zone, open, close, days })
    }

    /// The session that contains a time, first and last second; `None` if it is closed then.
    fn around(&self, time_s: u32) -> Option<(u32, u32)> {
        let date = Timestamp::from_second(time_s.into()).ok()?.to_zoned_datetime(self.zone.clone()).date();
        // Of the day before if it ends after midnight.
        [Some(date), date.yesterday().ok()].into_iter().flatten().find_map(|date| {
            let (first_s, last_s) = self.of(date)?;
            (first_s..=last_s).contains(&time_s).then_some((first_s, last_s))
        })
    }

    fn of(&self, date: Date) -> Option<(u32, u32)> {
        let nth = date.weekday().to_monday_zero_offset() as usize;
        if !self.days[nth] {
            return None;
        }
        let end = if self.close > self.open { date } else { date.tomorrow().ok()? };
        let second = |date: Date, time: Time| {
            let zoned = date.to_datetime(time).to_zoned_datetime(self.zone.clone()).ok()?;
            u32::try_from(zoned.timestamp().as_second()).ok()
        };
        Some((second(date, self.open)?, second(end, self.close)?.checked_sub(1)?))
    }

    /// Places bars; see [`SessionGrid`].
    pub fn grid(&self, interval_s: u32) -> SessionGrid<'_> {
        SessionGrid { session: self, interval_s, last: Cell::new(None) }
    }
}

impl fmt::Display for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<&str> =
            DAYS.into_iter().zip(self.days).filter_map(|(day, is_open)| is_open.then_some(day)).collect();
        let time = |time: Time| format!("{:02}:{:02}", time.hour(), time.minute());
        write!(out, "{} {}-{} {}", self.zone_name, time(self.open), time(self.close), days.join(","))
    }
}

/// Where bars of a length begin: at the open of a session, and every interval from there to its close.
pub struct SessionGrid<'a> {
    session: &'a Session,
    interval_s: u32,
    /// The session of the time that was asked for last: bars come in order.
    last: Cell<Option<(u32, u32)>>,
}

impl SessionGrid<'_> {
    /// Where the bar begins that contains a second; `None` outside of the sessions.
    pub fn begin_of(&self, time_s: u32) -> Option<u32> {
        let within = |(first_s, last_s): &(u32, u32)| (*first_s..=*last_s).contains(&time_s);
        let known = self.last.get().filter(within).or_else(|| self.session.around(time_s))?;
        self.last.set(Some(known));
        let (first_s, _) = known;
        Some(time_s - (time_s - first_s) % self.interval_s)
    }
}

fn parse_time(name: &str, text: &str) -> Result<Time, String> {
    let digits = |text: &str| (text.len() == 2).then(|| text.parse::<i8>().ok()).flatten();
    let parsed = text.split_once(':').and_then(|(hour, minute)| Time::new(digits(hour)?, digits(minute)?, 0, 0).ok());
    parsed.ok_or_else(|| format!("{name}: {text:?} is no time: expected one such as 09:30"))
}

fn parse_days(text: &str) -> Result<[bool; 7], String> {
    let invalid = || format!("days: {text:?}: expected days such as mon-fri or sun,mon-thu");
    let nth = |day: &str| DAYS.iter().position(|known| *known == day).ok_or_else(invalid);
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (nth(first)?, nth(last)?);
        if first > last {
            return Err(invalid());
        }
        days[first..=last].fill(true);
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(text: &str) -> u32 {
        text.parse::<Timestamp>().unwrap().as_second() as u32
    }

    fn begin(session: &Session, interval_s: u32, text: &str) -> Option<String> {
        let begin_s = session.grid(interval_s).begin_of(second(text))?;
        Some(Timestamp::from_second(begin_s.into()).unwrap().to_string())
    }

    #[test]
    fn day_begins_at_the_open_by_the_clock_of_the_venue() {
        let session = Session::parse("XNYS", "America/New_York", "09:30", "16:00", "mon-fri").unwrap();
        assert_eq!(session.to_string(), "America/New_York 09:30-16:00 mon,tue,wed,thu,fri");
        // Winter and summer.
        for (time, day, quarter) in [
            ("2026-01-05T15:00:00Z", "2026-01-05T14:30:00Z", "2026-01-05T15:00:00Z"),
            ("2026-07-06T13:50:00Z", "2026-07-06T13:30:00Z", "2026-07-06T13:45:00Z"),
            ("2026-07-06T19:59:59Z", "2026-07-06T13:30:00Z", "2026-07-06T19:45:00Z"),
        ] {
            assert_eq!(begin(&session, 86_400, time).as_deref(), Some(day));
            assert_eq!(begin(&session, 900, time).as_deref(), Some(quarter));
        }
        // An hour from the open is no hour of the clock, and the last one is shorter.
        assert_eq!(begin(&session, 3600, "2026-01-05T15:29:59Z").as_deref(), Some("2026-01-05T14:30:00Z"));
        assert_eq!(begin(&session, 3600, "2026-01-05T20:59:59Z").as_deref(), Some("2026-01-05T20:30:00Z"));
        for closed in ["2026-01-05T14:29:59Z", "2026-01-05T21:00:00Z", "2026-01-04T15:00:00Z"] {
            assert_eq!(begin(&session, 86_400, closed), None, "{closed}");
        }
    }

    #[test]
    fn session_over_midnight_belongs_to_the_day_of_its_open() {
        let session = Session::parse("XCME", "America/Chicago", "17:00", "16:00", "sun-sun,mon-thu").unwrap();
        for time in ["2026-01-04T23:00:00Z", "2026-01-05T05:59:00Z", "2026-01-05T21:59:59Z"] {
            assert_eq!(begin(&session, 86_400, time).as_deref(), Some("2026-01-04T23:00:00Z"), "{time}");
        }
        assert_eq!(begin(&session, 86_400, "2026-01-05T22:30:00Z"), None, "the hour between two sessions");
        // Friday's evening and the weekend.
        assert_eq!(begin(&session, 86_400, "2026-01-09T23:30:00Z"), None);
        let always = Session::parse("X", "UTC", "00:00", "00:00", "mon-sun").unwrap();
        assert_eq!(begin(&always, 86_400, "2026-01-05T23:59:59Z").as_deref(), Some("2026-01-05T00:00:00Z"));
    }

    #[test]
    fn one_grid_places_bars_in_any_order() {
        let session = Session::parse("XNYS", "America/New_York", "09:30", "16:00", "mon-fri").unwrap();
        let grid = session.grid(86_400);
        let times = ["2026-01-06T15:00:00Z", "2026-01-05T15:00:00Z", "2026-01-05T22:00:00Z", "2026-01-06T15:00:00Z"];
        let begins: Vec<_> = times.map(|time| grid.begin_of(second(time))).to_vec();
        let (first, later) = (Some(second("2026-01-05T14:30:00Z")), Some(second("2026-01-06T14:30:00Z")));
        assert_eq!(begins, [later, first, None, later]);
    }

    #[test]
    fn invalid_sessions_are_named_with_what_was_expected() {
        for (venue, zone, open, close, days, problem) in [
            ("", "UTC", "09:30", "16:00", "mon", "venue: empty"),
            ("X", "Mars/Olympus", "09:30", "16:00", "mon", "timezone: \"Mars/Olympus\" is not known"),
            ("X", "UTC", "9:30", "16:00", "mon", "open: \"9:30\" is no time"),
            ("X", "UTC", "09:30", "24:00", "mon", "close: \"24:00\" is no time"),
            ("X", "UTC", "09:30", "16:00", "", "days: \"\""),
            ("X", "UTC", "09:30", "16:00", "fri-mon", "days: \"fri-mon\""),
            ("X", "UTC", "09:30", "16:00", "Monday", "days: \"Monday\""),
        ] {
            let found = Session::parse(venue, zone, open, close, days).unwrap_err();
            assert!(found.starts_with(problem) && found.contains("expected"), "{found}");
        }
    }
}
