//! Tokens, and the attempts with wrong ones.
//!
//! What always holds:
//! * A token is compared in a time that depends neither on its bytes nor on its length, and no message, log line or debug
//!   output has it.
//! * An address that has presented [`FAILURES_MAX`] wrong tokens may present one every [`FAILURE_INTERVAL`]. Until then
//!   none of its tokens is compared. So it cannot find out whether a guess was right. Loopback is no exception.
//!
//! Cost: some 40 bytes an address with wrong attempts, at most [`ADDRESSES_MAX`] of them.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use constant_time_eq::constant_time_eq_n;

/// Bytes of the shortest token: 16 random characters cannot be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;
/// Bytes of the longest token.
pub const TOKEN_BYTES_MAX: usize = 256;
/// Wrong tokens that an address may present at once.
pub const FAILURES_MAX: u64 = 10;
/// After them, one in this time.
pub const FAILURE_INTERVAL: Duration = Duration::from_secs(5);
/// Addresses whose attempts are counted each; further ones share an entry.
const ADDRESSES_MAX: usize = 4096;

/// A token that publishers or operators present.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<[u8; TOKEN_BYTES_MAX]>);

impl Token {
    /// Checks a configured token.
    ///
    /// # Errors
    /// What is expected. The message does not have the token.
    pub fn new(text: &str) -> Result<Self, String> {
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len())
            || text.bytes().any(|byte| !byte.is_ascii_graphic())
        {
            return Err(format!(
                "invalid token of {} bytes: expected {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} printable ASCII characters \
                 without spaces, such as those of `openssl rand -hex 16`",
                text.len()
            ));
        }
        Ok(Self(padded(text.as_bytes())))
    }

    /// True if these bytes are the token.
    pub fn matches(&self, given: &[u8]) -> bool {
        // A token has no zero bytes, so those behind it tell the lengths apart.
        let is_equal = constant_time_eq_n(&self.0, &padded(given));
        is_equal & (given.len() <= TOKEN_BYTES_MAX) & !given.ends_with(b"\0")
    }
}

fn padded(bytes: &[u8]) -> Box<[u8; TOKEN_BYTES_MAX]> {
    let mut padded = Box::new([0; TOKEN_BYTES_MAX]);
    let length = bytes.len().min(TOKEN_BYTES_MAX);
    padded[..length].copy_from_slice(&bytes[..length]);
    padded
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(…)")
    }
}

/// The attempts with wrong tokens, by address: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Debug, Default)]
pub struct AuthFailures {
    /// When an address has its whole budget again, ns.
    by_address: Mutex<HashMap<Option<u64>, u64>>,
    publish: AtomicU64,
    subscribe: AtomicU64,
    operator: AtomicU64,
    refused: AtomicU64,
}

/// What a token is presented for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Publish,
    Subscribe,
    Operator,
}

impl AuthFailures {
    /// Whether a token from this address may be compared now.
    ///
    /// # Errors
    /// The time to wait, where the address has used up its budget.
    pub fn check(&self, address: Option<IpAddr>, now_ns: u64) -> Result<(), Duration> {
        let entries = self.lock();
        let key = key(address);
        let whole_ns = entries.get(&key).or_else(|| entries.get(&None)).copied().unwrap_or(0);
        let used_ns = whole_ns.saturating_sub(now_ns);
        let wait_ns = used_ns.saturating_sub((FAILURES_MAX - 1) * interval_ns());
        if wait_ns == 0 {
            return Ok(());
        }
        // Relaxed, here and below: the numbers order nothing.
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Duration::from_nanos(wait_ns))
    }

    /// Counts a wrong token.
    pub fn count(&self, purpose: Purpose, address: Option<IpAddr>, now_ns: u64) {
        let counter = match purpose {
            Purpose::Publish => &self.publish,
            Purpose::Subscribe => &self.subscribe,
            Purpose::Operator => &self.operator,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut entries = self.lock();
        let mut key = key(address);
        if entries.len() >= ADDRESSES_MAX && !entries.contains_key(&key) {
            entries.retain(|_, whole_ns| *whole_ns > now_ns);
            if entries.len() >= ADDRESSES_MAX {
                key = None;
            }
        }
        let whole_ns = entries.entry(key).or_default();
        *whole_ns = (*whole_ns).max(now_ns) + interval_ns();
    }

    /// Wrong tokens.
    pub fn failures(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Subscribe => self.subscribe.load(Ordering::Relaxed),
            Purpose::Publish => self.publish.load(Ordering::Relaxed),
            Purpose::Operator => self.operator.load(Ordering::Relaxed),
        }
    }

    /// Attempts that were refused because their address had used up its budget.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<u64>, u64>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn interval_ns() -> u64 {
    FAILURE_INTERVAL.as_nanos() as u64
}

/// `None` for an address that could not be read, and for those that have no entry of their own.
fn key(address: Option<IpAddr>) -> Option<u64> {
    Some(match address?.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // No IPv6 network that is routed begins with 32 zero bits.
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64 | 1 << 63,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_itself_only_and_is_not_shown() {
        let token = Token::new("0123456789abcdef").unwrap();
        assert!(token.matches(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdef0", b"0123456789abcdeg", b"0123456789abcdef\0"] {
            assert!(!token.matches(wrong), "{wrong:?}");
        }
        let longest = Token::new(&"a".repeat(TOKEN_BYTES_MAX)).unwrap();
        assert!(!longest.matches(&[b'a'; TOKEN_BYTES_MAX + 1]));
        assert!(!format!("{token:?}").contains("0123"));
        for text in ["", "short", "0123456789 abcdef", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
            let problem = Token::new(text).unwrap_err();
            assert!(
                problem.contains("16 to 256 printable") && (text.is_empty() || !problem.contains(text)),
                "{problem}"
            );
        }
    }

    #[test]
    fn address_has_a_budget_of_wrong_tokens_and_others_have_their_own() {
        let failures = AuthFailures::default();
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().ok());
        for _ in 0..FAILURES_MAX {
            assert_eq!(failures.check(one, 0), Ok(()));
            failures.count(Purpose::Publish, one, 0);
        }
        assert_eq!(failures.check(one, 0), Err(FAILURE_INTERVAL));
        assert_eq!(failures.check(one, interval_ns()), Ok(()), "one more after a while");
        failures.count(Purpose::Operator, one, interval_ns());
        assert_eq!(failures.check(one, interval_ns()), Err(FAILURE_INTERVAL));
        assert_eq!(failures.check(other, 0), Ok(()));
        assert_eq!((failures.failures(Purpose::Publish), failures.failures(Purpose::Operator)), (FAILURES_MAX, 1));
        assert_eq!(failures.refused(), 2);
    }

    #[test]
    fn table_of_addresses_is_bounded_and_the_rest_shares_a_budget() {
        let failures = AuthFailures::default();
        for nth in 0..2 * ADDRESSES_MAX as u32 {
            failures.count(Purpose::Publish, Some(IpAddr::V4(nth.into())), 0);
        }
        assert!(failures.lock().len() <= ADDRESSES_MAX + 1);
        assert!(failures.check(Some(IpAddr::V4(u32::MAX.into())), 0).is_err());
        let later = u64::MAX / 2;
        failures.count(Purpose::Publish, Some(IpAddr::V4(u32::MAX.into())), later);
        assert_eq!(failures.lock().len(), 1, "whole budgets are forgotten");
    }
}
