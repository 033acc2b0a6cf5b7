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

/// How often the thread looks for something to do.
const INTERVAL: Duration = Duration::from_millis(200);
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
    let mut asked: HashMap<String, Asked> = HashMap::new();
    loop {
        let Some(access) = access.upgrade() else { return };
        access.revoked.poll(wall_ns() / 1_000_000_000, access.policy().settings.lifetime_max_s());
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
    let set = text.and_then(|text| KeySet::of_jwks(&text, &issuer.settings.algorithms));
    // Relaxed: the numbers order nothing.
    access.fetches.fetch_add(1, Ordering::Relaxed);
    match set {
        Ok((set, unused)) => {
            let keys = set.len();
            let until_ns = now_ns() + stale_max_s * 1_000_000_000;
            issuer.publish(Published { set, usable_until_ns: Some(until_ns) });
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
