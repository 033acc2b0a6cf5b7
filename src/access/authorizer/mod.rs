//! The authorizer: a server of the operator that is asked who a token stands for, where no issuer is configured for it.
//!
//! * [`answer`]: what it is asked and what it says. [`table`]: what is under way, and what was answered.
//! * [`Inbox`]: where a shard finds answers. The shard is woken for each.
//!
//! What always holds:
//! * Who cannot be asked about is refused: no failure of the authorizer lets anybody in.
//! * No thread of a shard waits. A thread of its own makes the requests; an answer is looked at there, and a second time
//!   on the shard, by the revocations and settings of then.
//! * Each question is answered once, within the deadline.
//!
//! Cost: some 2 µs for a question whose answer is there. One that is asked takes the thread some 50 µs, without TLS.

mod answer;
mod table;

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::{hmac, rand};

pub use self::answer::ANSWER_BYTES_MAX;
use self::table::{Begun, Table, Tag, Ticket};
use super::settings::AuthorizerSettings;
use super::verify::{Cause, Denial, Now};
use super::{Access, Policy};
use crate::identity::{Principal, Rights, Verdict};
use crate::ingest::transport::post::{Post, PostFailure, PostOutcome, Poster, Reply};
use crate::ingest::transport::rest::SCHEMES;
use crate::wake::ShardWaker;

/// Characters of the shortest token that is asked about: shorter ones can be guessed.
pub const TOKEN_CHARS_MIN: usize = 16;
/// The longest time that a refusal is used again, s.
const REFUSED_S: u64 = 5;

/// Who a token stands for, or why it is refused.
pub type Answer = Result<Arc<Principal>, Denial>;

/// Where one shard finds the answers to its questions.
#[derive(Debug)]
pub struct Inbox {
    waker: Arc<ShardWaker>,
    are_there: AtomicBool,
    answers: Mutex<Vec<(u64, Answer)>>,
}

impl Inbox {
    /// An inbox of the shard with this waker.
    pub fn new(waker: Arc<ShardWaker>) -> Self {
        Self { waker, are_there: AtomicBool::new(false), answers: Mutex::default() }
    }

    /// True if there are answers. A shard asks before it sleeps.
    pub fn has_answers(&self) -> bool {
        // Relaxed: the flag and the fence of the waker make sure that none is missed. They are read under the lock.
        self.are_there.load(Ordering::Relaxed)
    }

    /// Answers, with the numbers of their questions.
    pub fn take(&self) -> Vec<(u64, Answer)> {
        if !self.has_answers() {
            return Vec::new();
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        // Relaxed: as above.
        self.are_there.store(false, Ordering::Relaxed);
        std::mem::take(&mut *answers)
    }

    fn push(&self, number: u64, answer: Answer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push((number, answer));
        // Relaxed: as above.
        self.are_there.store(true, Ordering::Relaxed);
        drop(answers);
        self.waker.wake();
    }
}

/// Who waits for an answer.
#[derive(Clone, Debug)]
struct Waiter {
    inbox: Arc<Inbox>,
    number: u64,
}

/// Who asks about a token.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its client's address.
    pub client: Option<IpAddr>,
    /// The token is to prolong what the client has: an answer from before would not.
    pub is_fresh: bool,
    /// Where an answer goes that is not there yet, and its number there.
    pub inbox: &'a Arc<Inbox>,
    pub number: u64,
}

/// What was found about a credential.
#[derive(Debug)]
pub enum Found {
    Known(Answer),
    /// The answer comes to the inbox, and is then to be given to [`Access::conclude`].
    Asked,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub struct AuthorizerCounts {
    /// Requests that have ended.
    pub requests: u64,
    /// Of those, the ones without an answer within the deadline.
    pub late: u64,
    /// The server was not reached.
    pub unreachable: u64,
    /// The answer was none, or was not understood.
    pub invalid: u64,
    /// Tokens for which the answer was there already.
    pub cached: u64,
    /// Tokens for which a request was under way already.
    pub joined: u64,
    /// Time from requests to their answers, us.
    pub latency_us: u64,
    pub kept: u64,
    pub under_way: u64,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    late: AtomicU64,
    unreachable: AtomicU64,
    invalid: AtomicU64,
    cached: AtomicU64,
    joined: AtomicU64,
    latency_us: AtomicU64,
}

/// See the module. What all shards share.
#[derive(Debug)]
pub(super) struct Authorizer {
    key: hmac::Key,
    /// The lock is held for a look-up or a change.
    table: Mutex<Table>,
    /// `None` while there is no authorizer.
    poster: Mutex<Option<Poster>>,
    counters: Counters,
    /// The last request has got no answer.
    is_failing: AtomicBool,
}

impl Authorizer {
    pub(super) fn new() -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new());
        let key = key.map_err(|_| "the system has no random numbers".to_owned())?;
        let (table, poster, counters) = (Mutex::default(), Mutex::default(), Counters::default());
        Ok(Self { key, table, poster, counters, is_failing: AtomicBool::new(false) })
    }

    /// Starts the thread of the requests, if it does not run yet.
    pub(super) fn start(&self) -> io::Result<()> {
        let mut poster = self.poster.lock().unwrap_or_else(PoisonError::into_inner);
        if poster.is_none() {
            *poster = Some(Poster::start("authorizer")?);
        }
        Ok(())
    }

    /// Forgets all answers: the settings have changed.
    pub(super) fn forget(&self) {
        self.lock().forget();
    }

    /// Forgets answers whose time is over.
    pub(super) fn expire(&self, now_ns: u64) {
        self.lock().expire(now_ns);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tag(&self, token: &str, client: Option<IpAddr>) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        // No token has a line feed in it.
        context.update(token.as_bytes());
        context.update(format!("\n{client:?}").as_bytes());
        context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn post(&self, post: Post) {
        let poster = self.poster.lock().unwrap_or_else(PoisonError::into_inner);
        // Without one, the question is given up as it is dropped.
        if let Some(poster) = &*poster {
            poster.post(post);
        }
    }
}

fn add(counter: &AtomicU64, number: u64) {
    // Relaxed: the numbers order nothing.
    counter.fetch_add(number, Ordering::Relaxed);
}

impl Access {
    /// The client that a credential stands for: an API key, a token of an issuer, or a text that the authorizer knows. A
    /// token whose `iss` is that of an issuer is a matter of that issuer alone.
    pub fn find_client(self: &Arc<Self>, credential: &[u8], asker: Asker<'_>, now: Now) -> Found {
        let policy = self.policy();
        match &policy.settings.authorizer {
            Some(authorizer) if policy.is_for_authorizer(credential) => {
                self.ask(&policy, authorizer, credential, asker, now)
            }
            _ => Found::Known(self.authenticate(credential, now)),
        }
    }

    fn ask(
        self: &Arc<Self>,
        policy: &Policy,
        authorizer: &AuthorizerSettings,
        credential: &[u8],
        asker: Asker<'_>,
        now: Now,
    ) -> Found {
        let refused = |cause, detail: &str| {
            let denial = Denial { cause, detail: detail.to_owned() };
            Found::Known(self.checked(Err(denial)))
        };
        let Some(token) = token_of(credential) else {
            return refused(Cause::Invalid, "no token: expected 16 or more visible ASCII characters");
        };
        let Asker { client, is_fresh, inbox, number } = asker;
        let (tag, waiter) = (self.authorizer.tag(token, client), Waiter { inbox: inbox.clone(), number });
        let begun = self.authorizer.lock().begin(tag, client, waiter, is_fresh, authorizer.requests_max, now.ns);
        match begun {
            Begun::Known(answer) => {
                add(&self.authorizer.counters.cached, 1);
                Found::Known(self.checked(answer))
            }
            Begun::Joined => {
                add(&self.authorizer.counters.joined, 1);
                Found::Asked
            }
            Begun::Full => refused(Cause::Busy, "authorizer_requests_max, or a quarter of it for one address"),
            Begun::New(ticket) => {
                let (access, token) = (Arc::downgrade(self), token.to_owned());
                let body = answer::question(&token, client);
                let url = policy.authorizer_url();
                let reply = Reply::new(move |outcome| {
                    // Without the server no client waits.
                    if let Some(access) = access.upgrade() {
                        access.take_answer(&ticket, &token, &url, outcome);
                    }
                });
                self.authorizer.post(Post { server: authorizer.server.clone(), body, reply });
                Found::Asked
            }
        }
    }

    /// Passes the answer of the server at this URL on to all who wait for it. On the thread of the requests.
    fn take_answer(&self, ticket: &Ticket, token: &str, url: &str, outcome: PostOutcome) {
        let (policy, now) = (self.policy(), Now::present());
        let is_of_settings = policy.authorizer_url() == url;
        let answer = if is_of_settings {
            self.answer_of(outcome, token, url, &policy, now)
        } else {
            Err(Denial { cause: Cause::Unchecked, detail: "the settings have changed".to_owned() })
        };
        self.count(&answer, now.ns.saturating_sub(ticket.began_ns));
        let cache_s = policy.settings.authorizer.as_ref().map_or(0, |authorizer| authorizer.cache_s);
        let until_ns = kept_until_ns(&answer, cache_s, now);
        let accepted_max = policy.settings.limits.accepted_tokens_max;
        let waiters = self.authorizer.lock().finish(ticket, &answer, until_ns, accepted_max);
        for Waiter { inbox, number } in waiters {
            inbox.push(number, answer.clone());
        }
    }

    fn answer_of(&self, outcome: PostOutcome, token: &str, url: &str, policy: &Policy, now: Now) -> Answer {
        let answer = outcome.map_err(|failure| {
            let is_late = matches!(failure, PostFailure::Late(_));
            let (cause, counter) = match failure {
                PostFailure::Late(_) => (Cause::Late, &self.authorizer.counters.late),
                PostFailure::Unreachable(_) | PostFailure::Ended => {
                    (Cause::Unchecked, &self.authorizer.counters.unreachable)
                }
                PostFailure::Unreadable(_) => (Cause::Unchecked, &self.authorizer.counters.invalid),
            };
            add(counter, 1);
            let setting = if is_late { " (authorizer_timeout_ms)" } else { "" };
            Denial { cause, detail: format!("{failure}{setting}") }
        })?;
        let read = answer::read(&answer, token, url, &policy.settings.products, now);
        let (principal, rights): (Principal, Rights) = read.inspect_err(|denial| {
            if matches!(denial.cause, Cause::Unchecked | Cause::Rights) {
                add(&self.authorizer.counters.invalid, 1);
            }
        })?;
        let rights = self.share(rights, policy).map_err(|_| Denial::full(&principal.user))?;
        Ok(Arc::new(Principal { rights, ..principal }))
    }

    fn count(&self, answer: &Answer, latency_ns: u64) {
        let Authorizer { counters, is_failing, .. } = &self.authorizer;
        add(&counters.requests, 1);
        add(&counters.latency_us, latency_ns / 1000);
        let failure = answer.as_ref().err().filter(|denial| matches!(denial.cause, Cause::Late | Cause::Unchecked));
        // Relaxed: the flag orders nothing.
        is_failing.store(failure.is_some(), Ordering::Relaxed);
        match answer {
            Err(denial) if failure.is_some() || denial.cause == Cause::Rights => {
                tracing::warn!("authorizer: the token of a client was not accepted: {}", denial.detail);
            }
            _ => {}
        }
    }

    /// What an answer comes to that was in the inbox: settings and revocations may have changed since it was made.
    ///
    /// # Errors
    /// Why the credential is refused.
    pub fn conclude(&self, answer: Answer) -> Answer {
        let answer = answer.and_then(|principal| match self.review(&principal, true) {
            Verdict::Keep => Ok(principal),
            Verdict::Renew(renewed) => Ok(renewed),
            // Refused below.
            Verdict::Close(_) if self.revoked.entries().revokes(&principal) => Ok(principal),
            Verdict::Close(reason) => Err(Denial { cause: Cause::Unchecked, detail: reason.to_owned() }),
        });
        self.checked(answer)
    }

    /// What has been asked of the authorizer.
    pub fn authorizer_counts(&self) -> AuthorizerCounts {
        // Relaxed: the numbers order nothing.
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { requests, late, unreachable, invalid, cached, joined, latency_us } = &self.authorizer.counters;
        let (kept, under_way) = self.authorizer.lock().counts();
        AuthorizerCounts {
            requests: load(requests),
            late: load(late),
            unreachable: load(unreachable),
            invalid: load(invalid),
            cached: load(cached),
            joined: load(joined),
            latency_us: load(latency_us),
            kept: kept as u64,
            under_way: under_way as u64,
        }
    }

    /// True if there is an authorizer, and the last request has got no answer.
    pub fn is_authorizer_failing(&self) -> bool {
        // Relaxed: the flag orders nothing.
        self.policy().settings.authorizer.is_some() && self.authorizer.is_failing.load(Ordering::Relaxed)
    }
}

impl Policy {
    /// True for what is no API key and of no issuer of the configuration.
    fn is_for_authorizer(&self, credential: &[u8]) -> bool {
        if credential.len() > super::TOKEN_BYTES_MAX || credential.starts_with(super::api_keys::PREFIX.as_bytes()) {
            return false;
        }
        let Ok(iss) = super::verify::claimed_issuer(credential) else { return true };
        !self.issuers.iter().any(|issuer| issuer.settings.iss == iss)
    }

    /// The URL of the authorizer; empty without one.
    pub(super) fn authorizer_url(&self) -> String {
        let authorizer = self.settings.authorizer.as_ref();
        authorizer.map(|authorizer| authorizer.server.address().url(SCHEMES)).unwrap_or_default()
    }
}

/// Until when an answer is used again, if it is: for so long, and no longer than it holds.
fn kept_until_ns(answer: &Answer, cache_s: u64, now: Now) -> Option<u64> {
    let kept_s = match answer {
        Ok(principal) => cache_s.min(principal.expires_s?.saturating_sub(now.wall_s)),
        Err(denial) if denial.cause.is_passing() => 0,
        Err(_) => cache_s.min(REFUSED_S),
    };
    (kept_s > 0).then(|| now.ns + kept_s * 1_000_000_000)
}

fn token_of(credential: &[u8]) -> Option<&str> {
    let is_token = credential.len() >= TOKEN_CHARS_MIN && credential.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(credential).ok().filter(|_| is_token)
}

#[cfg(test)]
mod tests;
