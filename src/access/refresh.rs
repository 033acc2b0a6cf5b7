//! The thread that keeps keys and revocations current: it reads the key sets of issuers again, and the file of revocations
//! when that has changed.
//!
//! What always holds: one fetch at a time. An issuer is asked each `jwks_refresh_s`, and sooner where a token names a key
//! that is not there, but never twice within [`PAUSE`]: forged tokens cause no more than that. A failed fetch keeps the
//! keys, until they are older than `jwks_stale_max_s`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Access;
use super::keys::KeySet;
use super::settings::KeySource;
use super::verify::{Issuer, Published};
use crate::clock::{now_ns, wall_ns};
use crate::ingest::transport::rest;
use crate::tls::{Connector, Roots};
use crate::usage::Security;

/// How often the thread looks for something to do.
const INTERVAL: Duration = Duration::from_millis(200);
/// Rounds of the thread after which tokens are forgotten that have expired.
const EXPIRE_ROUNDS: u64 = 150;
/// The least time between two fetches of an issuer.
const PAUSE: Duration = Duration::from_secs(30);
/// The same while there are no keys at all.
const PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(2);
/// The longest wait for a key set, with its connection.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the longest key set.
const SET_BYTES_MAX: usize = 64 << 10;

/// When an issuer was last asked.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at_ns: u64,
    has_keys: bool,
}

/// Runs until the server is gone, or the other end of `stop` is dropped.
pub(super) fn run(access: &Weak<Access>, stop: &Receiver<()>) {
    let (mut asked, mut rounds): (HashMap<String, Asked>, u64) = (HashMap::new(), 0);
    loop {
        let Some(access) = access.upgrade() else { return };
        let (now_s, generation) = (wall_ns() / 1_000_000_000, access.revoked.generation());
        if access.revoked.poll(now_s, access.policy().settings.lifetime_max_s()) {
            let detail = format!("{} entries are in effect", access.revoked.entries().len());
            access.usage.security(Security { event: "revoked", cause: "file", detail, ..Security::default() });
        }
        if access.revoked.generation() != generation {
            access.note_change(now_ns());
        }
        if rounds.is_multiple_of(EXPIRE_ROUNDS) {
            access.tokens.expire(now_s);
            access.authorizer.expire(now_ns());
        }
        rounds += 1;
        refresh_due(&access, &mut asked);
        drop(access);
        if stop.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn refresh_due(access: &Access, asked: &mut HashMap<String, Asked>) {
    let policy = access.policy();
    asked.retain(|iss, _| policy.issuers.iter().any(|issuer| issuer.settings.iss == *iss));
    for issuer in &policy.issuers {
        let KeySource::Url { .. } = issuer.settings.keys else { continue };
        let last = asked.get(&issuer.settings.iss).copied();
        if !is_due(last, issuer, policy.settings.jwks_refresh_s, now_ns()) {
            continue;
        }
        // Relaxed: the flag orders nothing. Set again by the next token that no key has signed.
        issuer.wants_keys.store(false, Ordering::Relaxed);
        let has_keys = fetch(access, issuer, policy.settings.jwks_stale_max_s);
        let had_keys = !issuer.published().set.is_empty();
        asked.insert(issuer.settings.iss.clone(), Asked { at_ns: now_ns(), has_keys: has_keys || had_keys });
    }
}

fn is_due(last: Option<Asked>, issuer: &Arc<Issuer>, refresh_s: u64, now_ns: u64) -> bool {
    let Some(Asked { at_ns, has_keys }) = last else { return true };
    let passed = Duration::from_nanos(now_ns.saturating_sub(at_ns));
    // Relaxed: as above.
    let is_wanted = issuer.wants_keys.load(Ordering::Relaxed);
    let pause = if has_keys { PAUSE } else { PAUSE_WITHOUT_KEYS };
    passed >= Duration::from_secs(refresh_s) || (passed >= pause && (is_wanted || !has_keys))
}

/// Asks an issuer for its keys. True if it has given some.
fn fetch(access: &Access, issuer: &Issuer, stale_max_s: u64) -> bool {
    let KeySource::Url { address, ca_file } = &issuer.settings.keys else { return false };
    let roots = ca_file.clone().map_or(Roots::System, Roots::File);
    let connector = Connector::new(&roots).map_err(|error| error.to_string());
    let text = connector.and_then(|connector| {
        rest::get_once(address, &connector, SET_BYTES_MAX, FETCH_TIMEOUT).map_err(|failure| failure.reason)
    });
    let set = text.and_then(|text| {
        let (set, unused) = KeySet::of_jwks(&text, &issuer.settings.algorithms)?;
        Ok((set, unused, super::api_keys::hash(&text)))
    });
    // Relaxed: the numbers order nothing.
    access.fetches.fetch_add(1, Ordering::Relaxed);
    match set {
        Ok((set, unused, digest)) => {
            let keys = set.len();
            // Tokens that were accepted are verified again with other keys.
            let has_changed = issuer.published().digest != Some(digest);
            let until_ns = now_ns() + stale_max_s * 1_000_000_000;
            issuer.publish(Published { set, usable_until_ns: Some(until_ns), digest: Some(digest) });
            if has_changed {
                access.tokens.forget();
            }
            tracing::debug!("issuer {}: {keys} keys, {unused} that are not used", issuer.settings.name);
            true
        }
        Err(problem) => {
            access.failed_fetches.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("issuer {}: its keys cannot be read: {problem}", issuer.settings.name);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::access::tests::{access_of, jwks_of, signed_with};
    use crate::access::{Cause, Now};
    use crate::ingest::transport::address::Address;
    use rcgen::KeyPair;

    /// Answers so many requests with these bodies, one after another.
    fn serve(bodies: Vec<(u16, String)>) -> (Address, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            for (status, body) in bodies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap();
                assert!(request[..length].starts_with(b"GET /keys HTTP/1.1"));
                let head =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                // The client may have had enough.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            }
        });
        (Address::parse(&url, rest::SCHEMES).unwrap(), serving)
    }

    #[test]
    fn withdrawn_keys_stop_with_the_next_fetch_and_a_failed_one_keeps_the_set() {
        let [one, other] = [0; 2].map(|_| KeyPair::generate().unwrap());
        let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(SET_BYTES_MAX));
        let none = r#"{"keys":[]}"#.to_owned();
        let bodies = [
            (200, jwks_of(&[("one", &one), ("other", &other)])),
            (500, String::new()),
            (200, huge),
            (200, none),
            (200, "<html>".to_owned()),
            (302, jwks_of(&[("other", &other)])),
            (200, jwks_of(&[("other", &other)])),
        ];
        let (address, serving) = serve(bodies.to_vec());
        let access = access_of(KeySource::Url { address, ca_file: None });
        let policy = access.policy();
        let issuer = &policy.issuers[0];
        let cause = |kid: &str, pair: &KeyPair, ns: u64| {
            let now = Now { ns, ..crate::access::tests::now() };
            access.authenticate(signed_with(kid, pair).as_bytes(), now).err().map(|denial| denial.cause)
        };
        assert_eq!(cause("one", &one, now_ns()), Some(Cause::Unavailable));
        assert!(fetch(&access, issuer, 60));
        for _ in 0..5 {
            assert_eq!((cause("one", &one, now_ns()), cause("other", &other, now_ns())), (None, None));
            assert!(!fetch(&access, issuer, 60));
        }
        assert_eq!(cause("one", &other, now_ns()), Some(Cause::Invalid), "the key of another name");
        assert!(fetch(&access, issuer, 60));
        assert_eq!((cause("one", &one, now_ns()), cause("other", &other, now_ns())), (Some(Cause::Invalid), None));
        let late_ns = now_ns() + 61_000_000_000;
        assert_eq!(cause("other", &other, late_ns), Some(Cause::Unavailable), "older than jwks_stale_max_s");
        assert_eq!((access.fetches(), access.without_keys(late_ns).len()), ((7, 5), 1));
        serving.join().unwrap();
    }

    #[test]
    fn forged_tokens_cause_no_more_than_a_fetch_in_30_s() {
        const S: u64 = 1_000_000_000;
        let address = Address::parse("http://127.0.0.1:9/keys", rest::SCHEMES).unwrap();
        let access = access_of(KeySource::Url { address, ca_file: None });
        let policy = access.policy();
        let issuer = &policy.issuers[0];
        let asked = |has_keys: bool| Some(Asked { at_ns: 1000 * S, has_keys });
        assert!(is_due(None, issuer, 300, 0), "at the start");
        assert!(!is_due(asked(true), issuer, 300, 1299 * S) && is_due(asked(true), issuer, 300, 1300 * S));
        assert!(!is_due(asked(false), issuer, 300, 1001 * S) && is_due(asked(false), issuer, 300, 1002 * S));
        let forged = signed_with("forged", &KeyPair::generate().unwrap());
        issuer.publish(Published { usable_until_ns: None, ..Published::default() });
        for _ in 0..100 {
            let denied = access.authenticate(forged.as_bytes(), crate::access::tests::now());
            assert_eq!(denied.unwrap_err().cause, Cause::Invalid);
        }
        assert!(!is_due(asked(true), issuer, 300, 1029 * S) && is_due(asked(true), issuer, 300, 1030 * S));
    }
}
