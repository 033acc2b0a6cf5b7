//! Who may connect: tokens of issuers and API keys are verified, and become a [`Principal`].
//!
//! * [`keys`]: the keys of issuers. [`mod@verify`] and [`claims`]: tokens. [`api_keys`]: keys of programs.
//! * [`accepted`]: tokens that need not be verified again. [`rights_sets`]: the rights of clients, each once.
//! * [`refresh`]: the thread that reads key sets over HTTPS and the file of [`revoked`] credentials.
//! * [`authorizer`]: a server of the operator, which is asked about what is neither.
//! * [`sessions`]: how many connections each user has.
//! * [`settings`]: what the configuration resolves to.
//!
//! What always holds: a credential is in no log line, message or debug output. What is not known is refused: there is no
//! credential that verifies because something could not be asked.
//!
//! Cost: a verification of some 8 to 110 µs a credential, on the thread that asks; 1 to 2 µs where it was accepted before.

mod accepted;
mod api_keys;
mod authorizer;
mod claims;
mod keys;
mod refresh;
mod revoked;
mod rights_sets;
mod sessions;
mod settings;
mod verify;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use self::accepted::AcceptedTokens;
pub use self::api_keys::ApiKeys;
use self::authorizer::Authorizer;
pub use self::authorizer::{ANSWER_BYTES_MAX, Answer, Asker, AuthorizerCounts, Found, Inbox};
pub use self::keys::{ALGORITHMS, KeySet};
pub use self::revoked::Revoked;
use self::rights_sets::{Full, RightsSets};
pub use self::sessions::{Order, Orders, SessionPlace, SessionPolicy, SessionSettings, Sessions, TooManySessions};
pub use self::settings::{AccessLimits, AccessSettings, AuthorizerSettings, IssuerSettings, KeySource};
pub use self::verify::{Cause, Denial, Issuer, Now, TOKEN_BYTES_MAX};
use self::verify::{Published, claimed_issuer, verify};
use crate::identity::{Claim, Kind, Principal, Revocation, Rights, Verdict};
use crate::usage::{Security, UsageLog};
pub use jsonwebtoken::Algorithm;

/// The settings in effect, with the keys of issuers.
#[derive(Debug)]
pub(crate) struct Policy {
    settings: AccessSettings,
    issuers: Vec<Arc<Issuer>>,
    /// Clients without a credential; `None`: there are none such.
    anonymous: Option<Arc<Principal>>,
}

/// See the module. Shared by all threads of a server.
#[derive(Debug)]
pub struct Access {
    /// The lock is held for the copy of a pointer.
    policy: Mutex<Arc<Policy>>,
    revoked: Revoked,
    sessions: Arc<Sessions>,
    usage: UsageLog,
    accepted: AtomicU64,
    tokens: AcceptedTokens,
    rights: RightsSets,
    authorizer: Authorizer,
    /// When clients had to be asked about last, ns of the clock of deadlines.
    changed_ns: AtomicU64,
    /// The longest time from then on until a shard had asked about all its clients.
    reviewed_ns_max: AtomicU64,
    denied: [AtomicU64; Cause::ALL.len()],
    /// How often the settings have changed.
    policies: AtomicU64,
    fetches: AtomicU64,
    failed_fetches: AtomicU64,
    /// Ends the thread when it is dropped.
    stop: Mutex<Option<Sender<()>>>,
}

impl Access {
    /// Who may connect by these settings, without those that a file names as revoked. Key sets are read once
    /// [`Self::start`] is called.
    ///
    /// # Errors
    /// The file of revocations cannot be used, or rights name what there is not.
    pub fn new(settings: AccessSettings, revocations: Option<&Path>, now: Now) -> Result<Self, String> {
        // Explicit, so that another crate's choice cannot change it. Fails where it was chosen before: with the same.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let keep_s = settings.lifetime_max_s();
        let revoked = Revoked::open(revocations, now.wall_s, keep_s)?;
        let policy = Policy::new(settings, None)?;
        Ok(Self {
            policy: Mutex::new(Arc::new(policy)),
            revoked,
            sessions: Arc::default(),
            usage: UsageLog::none(),
            accepted: AtomicU64::new(0),
            tokens: AcceptedTokens::new()?,
            rights: RightsSets::default(),
            authorizer: Authorizer::new()?,
            changed_ns: AtomicU64::new(0),
            reviewed_ns_max: AtomicU64::new(0),
            denied: Default::default(),
            policies: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            failed_fetches: AtomicU64::new(0),
            stop: Mutex::new(None),
        })
    }

    /// The same with a log of who has access.
    pub fn with_usage(self, usage: UsageLog) -> Self {
        Self { usage, ..self }
    }

    /// Starts the thread that reads key sets and the file of revocations, and that of the authorizer, if there is one.
    /// They end with the last reference.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        if self.policy().settings.authorizer.is_some() {
            self.authorizer.start()?;
        }
        let (stop, stopped) = mpsc::channel();
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop);
        let access = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("access".to_owned());
        thread.spawn(move || refresh::run(&access, &stopped)).map(drop)
    }

    /// Applies new settings. Issuers whose keys are at the same address keep them. What the authorizer has answered is
    /// forgotten.
    ///
    /// # Errors
    /// Rights name what there is not, or the system has no thread for the authorizer. The former settings stay.
    pub fn apply(&self, settings: AccessSettings, now_ns: u64) -> Result<(), String> {
        let before = self.policy();
        let (detail, has_authorizer) = (settings.to_string(), settings.authorizer.is_some());
        let policy = Policy::new(settings, Some(&before)).inspect_err(|problem| {
            let event = "rights_reload_failed";
            self.usage.security(Security { event, detail: problem.clone(), ..Security::default() });
        })?;
        if has_authorizer {
            self.authorizer.start().map_err(|error| format!("authorizer_url: no thread for it: {error}"))?;
        }
        self.usage.security(Security { event: "rights_reloaded", detail, ..Security::default() });
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        self.tokens.forget();
        self.authorizer.forget();
        self.note_change(now_ns);
        // Relaxed: as in `generation`.
        self.policies.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How many sessions each user has.
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// The log of who has access.
    pub fn usage(&self) -> &UsageLog {
        &self.usage
    }

    /// Begins a session of a client; `None` for an anonymous one, which has no user.
    ///
    /// # Errors
    /// The user has as many as it may.
    pub fn begin_session(
        &self,
        principal: &Principal,
        orders: &Arc<Orders>,
        now_ms: u64,
    ) -> Result<Option<SessionPlace>, TooManySessions> {
        if principal.kind == Kind::Anonymous {
            return Ok(None);
        }
        let SessionSettings { per_user_max, policy } = self.policy().settings.sessions;
        let max = principal.contract.sessions_max.or((per_user_max > 0).then_some(per_user_max));
        self.sessions.enter(&principal.user, max, policy, orders, now_ms).map(Some)
    }

    /// Has the log say that a credential was refused: of a subscriber, a publisher or an operator.
    pub fn log_refused(&self, who: &'static str, client: Option<IpAddr>, cause: &str, detail: &str) {
        if self.usage.is_on() {
            let detail = if detail.is_empty() { cause.to_owned() } else { format!("{cause}: {detail}") };
            self.usage.security(Security {
                event: "login_failed",
                address: client,
                cause: who,
                detail,
                ..Security::default()
            });
        }
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// False if clients are not identified: all may see everything.
    pub fn is_on(&self) -> bool {
        self.policy().settings.is_on()
    }

    /// A client without a credential; `None` if it needs one.
    pub fn anonymous(&self) -> Option<Arc<Principal>> {
        self.policy().anonymous.clone()
    }

    /// The client that a credential stands for: a token of an issuer, or an API key. See [`Self::find_client`] for others.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn authenticate(&self, credential: &[u8], now: Now) -> Result<Arc<Principal>, Denial> {
        self.checked(self.find(credential, now))
    }

    /// What was found, unless it is revoked; counts it.
    fn checked(&self, found: Result<Arc<Principal>, Denial>) -> Result<Arc<Principal>, Denial> {
        let found = found.and_then(|principal| match self.revoked.entries().revokes(&principal) {
            true => Err(Denial { cause: Cause::Revoked, detail: format!("user {:?}", principal.user) }),
            false => Ok(principal),
        });
        // Relaxed: the numbers order nothing.
        match &found {
            Ok(_) => self.accepted.fetch_add(1, Ordering::Relaxed),
            Err(denial) => self.denied[denial.cause as usize].fetch_add(1, Ordering::Relaxed),
        };
        found
    }

    fn find(&self, credential: &[u8], now: Now) -> Result<Arc<Principal>, Denial> {
        let denial = |cause, detail: &str| Denial { cause, detail: detail.to_owned() };
        if credential.len() > TOKEN_BYTES_MAX {
            return Err(denial(Cause::TooLong, "longer than a token"));
        }
        if credential.starts_with(api_keys::PREFIX.as_bytes()) {
            let found = self.policy().settings.api_keys.find(credential);
            return found.ok_or_else(|| denial(Cause::Invalid, "no such API key"));
        }
        let ticket = match self.tokens.find(credential, now) {
            Ok(principal) => return Ok(principal),
            Err(ticket) => ticket,
        };
        // Read behind the ticket: settings and keys are those of its epoch, or newer ones.
        let policy = self.policy();
        let iss = claimed_issuer(credential)?;
        let issuer = policy.issuers.iter().find(|issuer| issuer.settings.iss == iss);
        let unknown = || {
            let shown: String = iss.chars().take(80).collect();
            denial(Cause::Invalid, &format!("iss: {shown:?} is no issuer of the configuration"))
        };
        let issuer = issuer.ok_or_else(unknown)?;
        let verified = verify(issuer, &policy.settings.products, credential, now);
        let (principal, rights) = verified.map_err(|(denial, may_have_new_keys)| {
            if may_have_new_keys {
                // Relaxed: the flag orders nothing.
                issuer.wants_keys.store(true, Ordering::Relaxed);
            }
            denial
        })?;
        let rights = self.share(rights, &policy).map_err(|Full| Denial::full(&principal.user))?;
        let principal = Arc::new(Principal { rights, ..principal });
        self.tokens.keep(ticket, &principal, issuer, policy.settings.limits.accepted_tokens_max);
        Ok(principal)
    }

    /// The same rights, shared. Those that tokens have which are only kept make room for them.
    fn share(&self, rights: Rights, policy: &Policy) -> Result<Arc<Rights>, Full> {
        let sets_max = policy.settings.limits.entitlement_sets_max;
        self.rights.share(&rights, sets_max).or_else(|Full| {
            self.tokens.forget();
            self.authorizer.forget();
            self.rights.share(&rights, sets_max)
        })
    }

    /// Why a client may not be taken over that was accepted a moment ago, if it may not.
    pub fn objection(&self, principal: &Principal, now_ns: u64) -> Option<&'static str> {
        /// No request takes as long from its head to its connection's place in a shard.
        const REQUEST_NS: u64 = 60_000_000_000;
        let since_ns = now_ns.saturating_sub(self.changed_ns.load(Ordering::Relaxed));
        match self.review(principal, since_ns < REQUEST_NS) {
            Verdict::Keep => None,
            Verdict::Renew(_) => Some("token: the settings have changed: connect again"),
            Verdict::Close(_) => Some(Cause::Revoked.message()),
        }
    }

    /// What becomes of a client that was accepted. `is_of_settings`: the settings have changed as well, and not only what
    /// is revoked.
    pub fn review(&self, principal: &Principal, is_of_settings: bool) -> Verdict {
        const CHANGED: &str = "the settings have changed: connect again";
        if self.revoked.entries().revokes(principal) {
            return Verdict::Close("the credential was revoked");
        }
        if !is_of_settings {
            return Verdict::Keep;
        }
        let policy = self.policy();
        let present = match principal.kind {
            Kind::Token | Kind::Authorized => {
                self.rights_now(principal, &policy).map(|rights| Principal { rights, ..principal.clone() })
            }
            Kind::ApiKey => policy.settings.api_keys.same_key(principal).map(|present| (*present).clone()),
            Kind::Anonymous => policy.anonymous.as_deref().cloned(),
        };
        match present {
            None => Verdict::Close(CHANGED),
            Some(present) if present == *principal => Verdict::Keep,
            Some(present) => Verdict::Renew(Arc::new(present)),
        }
    }

    /// The rights of a token by the settings of now; `None` if it has none any more.
    fn rights_now(&self, principal: &Principal, policy: &Policy) -> Option<Arc<Rights>> {
        let source = principal.source.as_ref()?;
        let of_issuer = if principal.kind == Kind::Authorized {
            (policy.authorizer_url() == *source.issuer).then_some(None)?
        } else {
            let issuer = policy.issuers.iter().find(|issuer| *issuer.settings.iss == *source.issuer)?;
            Some(&issuer.settings.rights)
        };
        let text = match &source.claim {
            Claim::Rules => return Some(principal.rights.clone()),
            Claim::None => of_issuer?,
            Claim::Products(text) => text,
        };
        let rights = text.resolve(&policy.settings.products);
        let rights = rights.inspect_err(|problem| {
            tracing::info!("user {:?}: its rights are not understood any more: {problem}", principal.user);
        });
        self.share(rights.ok()?, policy).ok()
    }

    fn note_change(&self, now_ns: u64) {
        // Relaxed: the times are for a metric.
        self.changed_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Notes that a shard has asked about all its clients.
    pub fn note_reviewed(&self, now_ns: u64) {
        let since_ns = self.changed_ns.load(Ordering::Relaxed);
        self.reviewed_ns_max.fetch_max(now_ns.saturating_sub(since_ns), Ordering::Relaxed);
    }

    /// The longest time from a change until a shard had asked about all its clients, ns.
    pub fn reviewed_ns_max(&self) -> u64 {
        self.reviewed_ns_max.load(Ordering::Relaxed)
    }

    /// How often the settings have changed.
    pub fn policies(&self) -> u64 {
        self.policies.load(Ordering::Relaxed)
    }

    /// Tokens that are kept as accepted, and how often one came again.
    pub fn kept_tokens(&self) -> (usize, u64) {
        self.tokens.counts()
    }

    /// Different rights that tokens have, and their memory.
    pub fn rights_sets(&self) -> (usize, usize) {
        self.rights.counts()
    }

    /// Changes whenever clients that were accepted have to be asked about again, see [`Self::objection`].
    pub fn generation(&self) -> u64 {
        // Relaxed: the policy is read under its lock.
        self.revoked.generation() + self.policies.load(Ordering::Relaxed)
    }

    /// Revokes what an operator names; `until` and the time of a user are filled in.
    ///
    /// # Errors
    /// It is in effect, and could not be written to the file: a restart would forget it.
    pub fn revoke(&self, mut revocation: Revocation, now: Now) -> Result<(), String> {
        if revocation.jti.is_none() && revocation.issued_before.is_none() {
            // Tokens of this second as well.
            revocation.issued_before = Some(now.wall_s + 1);
        }
        if revocation.until == 0 {
            revocation.until = now.wall_s + self.policy().settings.lifetime_max_s();
        }
        self.note_change(now.ns);
        self.revoked.add(&revocation)
    }

    /// What is revoked.
    pub fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// Credentials that were accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Credentials that were refused, by cause.
    pub fn denied(&self) -> impl Iterator<Item = (Cause, u64)> + '_ {
        Cause::ALL.into_iter().map(|cause| (cause, self.denied[cause as usize].load(Ordering::Relaxed)))
    }

    /// Fetches of key sets, and how many of them have failed.
    pub fn fetches(&self) -> (u64, u64) {
        (self.fetches.load(Ordering::Relaxed), self.failed_fetches.load(Ordering::Relaxed))
    }

    /// Issuers whose tokens cannot be verified now.
    pub fn without_keys(&self, now_ns: u64) -> Vec<String> {
        let policy = self.policy();
        let is_without =
            |issuer: &&Arc<Issuer>| issuer.published().usable_until_ns.is_some_and(|until_ns| until_ns <= now_ns);
        policy.issuers.iter().filter(is_without).map(|issuer| issuer.settings.name.clone()).collect()
    }
}

impl Policy {
    fn new(settings: AccessSettings, before: Option<&Policy>) -> Result<Self, String> {
        let anonymous = match &settings.anonymous {
            Some(rights) => {
                let rights = rights.resolve(&settings.products).map_err(|problem| format!("anonymous: {problem}"))?;
                Some(Arc::new(Principal::new(Kind::Anonymous, "", Arc::new(rights))))
            }
            None if settings.is_on() => None,
            None => Some(Arc::new(Principal::open())),
        };
        let issuers = settings.issuers.iter().map(|issuer| {
            let published = match &issuer.keys {
                KeySource::Fixed(set) => Arc::new(Published { set: set.clone(), ..Published::default() }),
                KeySource::Url { address, .. } => {
                    let kept = before.and_then(|before| before.keys_at(issuer, address));
                    kept.unwrap_or_else(|| Arc::new(Published { usable_until_ns: Some(0), ..Published::default() }))
                }
            };
            Arc::new(Issuer::new(issuer.clone(), published))
        });
        let issuers = issuers.collect();
        Ok(Self { settings, issuers, anonymous })
    }

    /// The keys of an issuer, if they were read at this address for the same algorithms.
    fn keys_at(
        &self,
        issuer: &IssuerSettings,
        address: &crate::ingest::transport::address::Address,
    ) -> Option<Arc<Published>> {
        let is_same = |had: &&Arc<Issuer>| {
            let had_address = match &had.settings.keys {
                KeySource::Url { address, .. } => Some(address),
                KeySource::Fixed(_) => None,
            };
            had.settings.iss == issuer.iss
                && had.settings.algorithms == issuer.algorithms
                && had_address == Some(address)
        };
        self.issuers.iter().find(is_same).map(|had| had.published())
    }
}

#[cfg(test)]
mod tests;
