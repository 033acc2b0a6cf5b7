//! What an HTTP status other than success means for a source, in words, and the pause that the server asks for.

use std::time::Duration;

use super::address::{Address, Failure};
use super::budget::BUDGETS;

/// The pause after "too many requests" that names none.
const PAUSE_USUAL: Duration = Duration::from_secs(60);
/// The longest pause that is kept. Binance bans an address for up to 3 days.
const PAUSE_MAX: Duration = Duration::from_secs(3 * 24 * 3600);
/// Bytes of a body that are shown.
const SHOWN_BYTES: usize = 200;

/// The failure of a request for `what` that was answered with this status. After 429 and 418 nothing is asked of the server
/// for as long as it says.
pub(super) fn of(
    address: &Address,
    what: &str,
    status: u16,
    retry_after: Option<&str>,
    body: &[u8],
    now_ns: u64,
) -> Failure {
    let seconds = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let (meaning, after) = match status {
        429 | 418 => {
            let after = seconds.unwrap_or(PAUSE_USUAL).min(PAUSE_MAX);
            let until_ns = now_ns.saturating_add(after.as_nanos() as u64);
            BUDGETS.pause(&address.authority(), until_ns);
            let what = if status == 429 { "too many requests" } else { "this address is banned for too many requests" };
            (format!("{what}; nothing is asked of it for {} s", after.as_secs()), after)
        }
        403 | 451 => (
            "it does not serve this address: venues block regions and networks of hosters; run the server elsewhere, or \
             give a mirror by url="
                .to_owned(),
            seconds.unwrap_or_default(),
        ),
        404 => ("there is no such path; is url= that of this venue?".to_owned(), seconds.unwrap_or_default()),
        200..=399 => ("another answer was expected; is url= that of this venue?".to_owned(), Duration::ZERO),
        500..=599 => ("the server has a fault".to_owned(), seconds.unwrap_or_default().min(PAUSE_MAX)),
        _ => ("it refuses the request".to_owned(), Duration::ZERO),
    };
    let said = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = if said.is_empty() { said } else { format!(" ({said})") };
    Failure {
        after,
        ..Failure::at(address, format!("the request for {what} was answered with HTTP {status}: {meaning}{said}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Use;
    use super::*;
    use tickcast_venues::RequestLimit;

    const S: u64 = 1_000_000_000;
    const T0: u64 = 1_700_000_000 * S;

    fn address(host: &str) -> Address {
        Address { is_secure: true, host: host.to_owned(), port: 443, path: "/x".to_owned() }
    }

    #[test]
    fn too_many_requests_pause_the_server_for_as_long_as_it_says() {
        let limit = RequestLimit { burst: 1, interval_ns: 1 };
        for (status, retry_after, seconds) in [
            (429, Some("7"), 7),
            (418, Some(" 120 "), 120),
            (429, None, 60),
            (418, Some("soon"), 60),
            (429, Some("99999999"), 259_200),
        ] {
            let address = address(&format!("a{seconds}-{status}.invalid"));
            let failure = of(&address, "/x", status, retry_after, b"", T0);
            assert_eq!(failure.after, Duration::from_secs(seconds));
            assert!(failure.reason.contains(&format!("HTTP {status}: ")), "{failure:?}");
            let open_ns = BUDGETS.open_ns(&address.authority(), Use::Connect, limit, T0);
            assert_eq!(open_ns, T0 + seconds * S, "{status}");
        }
    }

    #[test]
    fn block_of_a_region_says_so_and_pauses_nothing() {
        let address = address("b.invalid");
        let failure = of(&address, "/x", 451, None, b"Service unavailable from a restricted\n location", T0);
        assert!(
            failure.reason.starts_with("b.invalid:443: the request for /x was answered with HTTP 451: "),
            "{failure:?}"
        );
        assert!(failure.reason.ends_with("(Service unavailable from a restricted location)"), "{failure:?}");
        assert_eq!(failure.after, Duration::ZERO);
        let limit = RequestLimit { burst: 1, interval_ns: 1 };
        assert_eq!(BUDGETS.open_ns(&address.authority(), Use::Connect, limit, T0), T0);
    }
}
