//! The log lines about pages whose origins were refused: one for each origin, with the flag that admits it.
//!
//! A browser tells a page nothing of why its WebSocket was refused, and a page tries again for ever: without a line the
//! cause would be in nobody's sight, with a line for each attempt it would hide all others.
//!
//! What always holds: an origin is named once in [`AGAIN_NS`], of all origins together one a second, and the table is
//! bounded. Any page on the network can choose origins, and so fill it: then the oldest are forgotten, and are named once
//! more. Cost: a lock and a search of the table for each refusal, on all shards.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::config::{Origin, Origins};
use crate::http::request::quote;
use crate::rate_limit::RateLimiter;

const ORIGINS_MAX: usize = 64;
/// Of what is kept and printed: a name has 253 at most.
const ORIGIN_BYTES_MAX: usize = 280;
/// A long time for who reads the log, and none for a page that tries every half minute.
const AGAIN_NS: u64 = 600 * 1_000_000_000;
const LINES_PER_S: u32 = 1;

/// The origins that were named lately.
#[derive(Debug, Default)]
pub(crate) struct RefusedOrigins(Mutex<Named>);

#[derive(Debug, Default)]
struct Named {
    /// With the time of the line; the oldest first.
    origins: VecDeque<(String, u64)>,
    lines: RateLimiter,
}

impl RefusedOrigins {
    /// The line about the refusal of a page that says that it is of `given`; `None` if it is not due.
    pub(crate) fn line(&self, given: &[u8], host: Option<&str>, allowed: &Origins, now_ns: u64) -> Option<String> {
        let given = String::from_utf8_lossy(&given[..given.len().min(ORIGIN_BYTES_MAX)]);
        // A table whose lock is poisoned is as right as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_due(&given, now_ns).then(|| {
            let host = host.map_or_else(|| "none".to_owned(), quote);
            format!("a page of the origin {} was refused (Host: {host}): {}", quote(&given), cure(&given, allowed))
        })
    }
}

impl Named {
    fn is_due(&mut self, origin: &str, now_ns: u64) -> bool {
        let known = self.origins.iter().position(|(named, _)| named == origin);
        if known.is_some_and(|at| now_ns.saturating_sub(self.origins[at].1) < AGAIN_NS) {
            return false;
        }
        if self.lines.take(LINES_PER_S, now_ns, Duration::ZERO).is_err() {
            return false;
        }
        if let Some(at) = known.or((self.origins.len() == ORIGINS_MAX).then_some(0)) {
            self.origins.remove(at);
        }
        self.origins.push_back((origin.to_owned(), now_ns));
        true
    }
}

/// What admits an origin, beside those that are admitted.
fn cure(given: &str, allowed: &Origins) -> String {
    // What a browser sends has no sign that means something to a shell, into which this line may be copied.
    let is_plain = given.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._:/[]".contains(&byte));
    let is_origin = is_plain && Origin::parse(given).is_some_and(|origin| origin.to_string() == given);
    if given != "null" && !is_origin {
        return "it is not an origin that a browser sends".to_owned();
    }
    let others = if allowed.none() { String::new() } else { format!("{allowed},").replace(' ', "") };
    let flag = format!("if it is yours, start with --allow-origin {others}{given}, or set allow_origin and reload");
    if given == "null" { format!("{flag}; any site can produce it") } else { flag }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn line(table: &RefusedOrigins, origin: &str, now_ns: u64) -> Option<String> {
        table.line(origin.as_bytes(), Some("here:9001"), &Origins::default(), now_ns)
    }

    #[test]
    fn an_origin_is_named_once_in_ten_minutes() {
        let table = RefusedOrigins::default();
        let due = |at_s: u64| line(&table, "http://localhost:5173", at_s * S).is_some();
        assert_eq!([100, 101, 130, 699, 700, 701].map(due), [true, false, false, false, true, false]);
    }

    #[test]
    fn all_origins_together_are_named_once_a_second_and_the_next_one_when_it_tries_again() {
        let table = RefusedOrigins::default();
        let named = (0..1000).filter(|nth| line(&table, &format!("http://a{nth}.example"), 100 * S).is_some()).count();
        assert_eq!(named, 1);
        assert!(line(&table, "http://localhost:5173", 100 * S).is_none());
        assert!(line(&table, "http://localhost:5173", 101 * S).is_some(), "it was not noted as named");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest() {
        let table = RefusedOrigins::default();
        for nth in 0..=ORIGINS_MAX as u64 {
            assert!(line(&table, &format!("http://a{nth}.example"), (100 + nth) * S).is_some(), "{nth}");
        }
        assert_eq!(table.0.lock().expect("no panic").origins.len(), ORIGINS_MAX);
        assert!(line(&table, "http://a1.example", 200 * S).is_none(), "it is still in the table");
        assert!(line(&table, "http://a0.example", 200 * S).is_some());
    }

    #[test]
    fn the_line_has_the_flag_with_the_origins_that_are_admitted_already() {
        let of = |origin: &str, allowed: &Origins| {
            RefusedOrigins::default().line(origin.as_bytes(), Some("here"), allowed, 100 * S).expect("it is due")
        };
        let some = Origins::parse("https://a.example, https://b.example").expect("it is a list");
        assert!(of("http://localhost:5173", &Origins::default()).contains("--allow-origin http://localhost:5173,"));
        assert!(
            of("http://localhost:5173", &some)
                .contains("--allow-origin https://a.example,https://b.example,http://localhost:5173,")
        );
        assert!(of("null", &some).contains("any site can produce it"));
        for not in [
            "garbage",
            "",
            "http://a.example http://b.example",
            "http://A.example",
            "http://x;\u{1b}[2J",
            "http://$(id)",
        ] {
            let line = of(not, &some);
            assert!(!line.contains("--allow-origin") && !line.contains('\u{1b}'), "{line}");
        }
    }
}
