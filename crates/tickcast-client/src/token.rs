//! The token of a client: where it comes from, and when another one is worth an attempt.
//!
//! What always holds: the program's function is called once at a time, on the thread of [`Client::next`]; after three
//! refused tokens in a row, a revocation, and with a token that never changes, the client ends. No error has a token.
//!
//! [`Client::next`]: crate::Client::next

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::backoff::Backoff;
use crate::error::Error;
use tickcast_protocol::control::Secret;

/// Refused tokens in a row after which the client ends.
const REFUSALS_MAX: u32 = 3;
/// The waits before the token function is called again for an open connection.
const RENEWAL: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(30) };
/// A token that does not last longer than the one before by this is no progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// Why a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenReason {
    /// For a connection.
    Connect,
    /// The present one expires soon.
    Expiring,
    /// The last one was refused or has expired: the same one would be refused again.
    Refused,
}

/// What a token function is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Why a token is asked for.
    pub reason: TokenReason,
    /// What the server said of the last one; empty where it was not refused.
    pub message: String,
}

type Problem = Box<dyn std::error::Error + Send + Sync>;
type Function = dyn Fn(&TokenRequest) -> Result<String, Problem> + Send + Sync;

/// A token, an API key, or a function for tokens: [`crate::Options::token`].
#[derive(Clone)]
pub struct TokenSource(Source);

#[derive(Clone)]
enum Source {
    Fixed(Secret),
    Function(Arc<Function>),
}

impl TokenSource {
    /// A function that is called for each connection, before a token expires and after one was refused. It is called on
    /// the client's thread, which reads no packets meanwhile: give requests to an issuer a limit of time.
    pub fn function(function: impl Fn(&TokenRequest) -> Result<String, Problem> + Send + Sync + 'static) -> Self {
        Self(Source::Function(Arc::new(function)))
    }
}

/// A token that does not change.
impl From<&str> for TokenSource {
    fn from(token: &str) -> Self {
        Self(Source::Fixed(Secret::new(token)))
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Source::Fixed(_) => "TokenSource(…)",
            Source::Function(_) => "TokenSource(function)",
        })
    }
}

/// Two functions are equal where they are the same one.
impl PartialEq for TokenSource {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Source::Fixed(one), Source::Fixed(other)) => one == other,
            (Source::Function(one), Source::Function(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for TokenSource {}

/// The state of a client's token.
#[derive(Debug)]
pub(crate) struct Tokens {
    source: Option<TokenSource>,
    why: TokenRequest,
    refusals: u32,
    /// When to ask for the next token of the open connection.
    renew_at: Option<Instant>,
    /// The id of an auth without an answer.
    pending: Option<u64>,
    /// Renewals without progress, and the end of the present token.
    attempts: u32,
    expires_at: Option<Instant>,
}

impl Tokens {
    pub(crate) fn new(source: Option<TokenSource>) -> Self {
        let why = TokenRequest { reason: TokenReason::Connect, message: String::new() };
        Self { source, why, refusals: 0, renew_at: None, pending: None, attempts: 0, expires_at: None }
    }

    /// A token; `None` for a client without one.
    pub(crate) fn obtain(&self) -> Result<Option<Secret>, Error> {
        let secret = match &self.source {
            None => return Ok(None),
            Some(TokenSource(Source::Fixed(secret))) => secret.clone(),
            Some(TokenSource(Source::Function(function))) => {
                Secret::new(&function(&self.why).map_err(|problem| Error::Token(problem.to_string()))?)
            }
        };
        let text = secret.reveal();
        if text.is_empty() || text.len() > Secret::BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let (bytes, most) = (text.len(), Secret::BYTES_MAX);
            return Err(Error::Token(format!("{bytes} bytes: expected 1 to {most} visible ASCII characters")));
        }
        Ok(Some(secret))
    }

    /// Whether another call may bring another token.
    pub(crate) fn can_change(&self) -> bool {
        matches!(&self.source, Some(TokenSource(Source::Function(_))))
    }

    /// The server has accepted the last token, which expires in so many seconds.
    pub(crate) fn accepted(&mut self, expires_in_s: Option<u64>) {
        let now = Instant::now();
        let expires_at = expires_in_s.map(|seconds| now + Duration::from_secs(seconds));
        let is_progress = match (self.expires_at, expires_at) {
            (Some(before), Some(after)) => after > before + PROGRESS,
            _ => true,
        };
        if is_progress {
            self.attempts = 0;
        }
        (self.expires_at, self.refusals, self.pending) = (expires_at, 0, None);
        self.why = TokenRequest { reason: TokenReason::Connect, message: String::new() };
    }

    /// The server has announced that the token expires. Returns the wait before the next one is asked for.
    pub(crate) fn expiring(&mut self, random: &mut impl Rng) -> Duration {
        self.why = TokenRequest { reason: TokenReason::Expiring, message: String::new() };
        self.again(random)
    }

    /// Asks for a token after a wait: none the first time, then longer ones. Returns the wait.
    pub(crate) fn again(&mut self, random: &mut impl Rng) -> Duration {
        let wait = match self.attempts {
            0 => Duration::ZERO,
            // At least half of it, as the server spreads its announcements already.
            attempts => RENEWAL.wait(attempts - 1, Duration::ZERO, random) / 2 + RENEWAL.longest(attempts - 1) / 2,
        };
        self.attempts += 1;
        (self.renew_at, self.pending) = (Some(Instant::now() + wait), None);
        wait
    }

    /// The time until the next token is to be asked for on the open connection.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        self.renew_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// A token goes out with this request.
    pub(crate) fn sent(&mut self, id: u64) {
        (self.renew_at, self.pending) = (None, Some(id));
    }

    /// Nothing is asked for any more on this connection.
    pub(crate) fn disconnected(&mut self) {
        (self.renew_at, self.pending, self.attempts, self.expires_at) = (None, None, 0, None);
    }

    /// True for the answer to a token.
    pub(crate) fn is_answer(&self, id: u64) -> bool {
        self.pending == Some(id)
    }

    /// Notes that a token was refused or has expired. True if another one may be accepted.
    pub(crate) fn may_follow(&mut self, error: &Error) -> bool {
        let message = match error {
            Error::Refused(refusal) if refusal.status == 401 => &refusal.text,
            Error::Rejected { code, message } if code == "unauthorized" => message,
            Error::Closed(close) if close.code == 4001 => &close.reason,
            _ => return false,
        };
        if !self.can_change() || message.contains("revoked") {
            return false;
        }
        self.why = TokenRequest { reason: TokenReason::Refused, message: message.clone() };
        // A token that was accepted and has expired since is no refused one.
        self.refusals += u32::from(!matches!(error, Error::Closed(_)));
        self.refusals < REFUSALS_MAX
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_pcg::Pcg64Mcg;

    use super::*;
    use crate::error::{CloseReason, Refusal};

    fn function() -> Tokens {
        Tokens::new(Some(TokenSource::function(|why| Ok(format!("{:?}", why.reason)))))
    }

    fn refused(text: &str) -> Error {
        Error::Refused(Refusal { status: 401, text: text.to_owned(), retry_after_s: None })
    }

    #[test]
    fn third_refusal_in_a_row_and_a_revocation_are_final() {
        let mut tokens = function();
        for _ in 0..2 {
            assert!(tokens.may_follow(&refused("expired")) && tokens.may_follow(&refused("expired")));
            assert_eq!(tokens.obtain().unwrap().unwrap().reveal(), "Refused");
            tokens.accepted(Some(60));
        }
        assert!(tokens.may_follow(&refused("expired")) && tokens.may_follow(&refused("expired")));
        assert!(!tokens.may_follow(&refused("expired")));
        let closed = |code, reason: &str| Error::Closed(CloseReason { code, reason: reason.to_owned() });
        let mut tokens = function();
        for _ in 0..9 {
            assert!(tokens.may_follow(&closed(4001, "the token has expired")));
        }
        assert!(!tokens.may_follow(&closed(4001, "the credential was revoked")));
        assert!(!tokens.may_follow(&closed(4003, "of another user")) && !tokens.may_follow(&refused("token: revoked")));
        assert!(!Tokens::new(Some("fixed".into())).may_follow(&refused("expired")));
    }

    #[test]
    fn renewals_without_progress_wait_longer_and_longer() {
        let (mut tokens, mut random) = (function(), Pcg64Mcg::seed_from_u64(1));
        tokens.accepted(Some(60));
        assert_eq!(tokens.expiring(&mut random), Duration::ZERO);
        for attempt in 0..8 {
            // The same token again.
            tokens.accepted(Some(60));
            let wait = tokens.expiring(&mut random);
            let most = Duration::from_secs(1 << attempt).min(Duration::from_secs(30));
            assert!(wait >= most / 2 && wait <= most, "{attempt}: {wait:?}");
        }
        tokens.accepted(Some(600));
        assert_eq!(tokens.expiring(&mut random), Duration::ZERO);
    }

    #[test]
    fn what_is_no_token_is_an_error_without_its_text() {
        for text in ["", "a b", "ü", &"x".repeat(8193)] {
            let error = Tokens::new(Some(text.into())).obtain().unwrap_err().to_string();
            assert!(error.contains("expected 1 to 8192 visible ASCII"), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        assert_eq!(format!("{:?}", TokenSource::from("secret")), "TokenSource(…)");
        let failing = TokenSource::function(|_| Err("the issuer is down".into()));
        let error = Tokens::new(Some(failing)).obtain().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.is_final()), ("no token: the issuer is down", false));
    }
}
