//! The publishers: their identities, the connected ones with their source ids and addresses, and counters of all of them.
//!
//! What always holds: a connection whose token is withdrawn by a reload is asked to end, also if it was being opened
//! meanwhile. Identities and connections are behind one lock.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::identity::{Identity, IdentitySettings};
use crate::auth::Token;
use crate::sequencer::{OwnerId, SourceId, SourceIdentity};
use crate::tls::ClientCertificate;

/// The identities and the connected publishers.
#[derive(Debug)]
pub struct Publishers {
    state: Mutex<State>,
    /// Held while a request to define instruments is parsed: the working memory is that of one request.
    parsing: Mutex<()>,
    refused: AtomicU64,
    definitions_refused: AtomicU64,
    withdrawn: AtomicU64,
    slowed_us: AtomicU64,
}

#[derive(Debug)]
struct State {
    identities: Vec<Arc<Identity>>,
    /// Names of all owners that there were since the start, by their numbers.
    owners: Vec<String>,
    next_id: SourceId,
    connected: BTreeMap<SourceId, Connected>,
    /// Of the connected ones: those whose data of before the drain is sequenced.
    handed_in: usize,
}

#[derive(Debug)]
struct Connected {
    /// `None` for an address that could not be read.
    address: Option<SocketAddr>,
    credential: Credential,
    is_withdrawn: Arc<AtomicBool>,
}

/// What was accepted, and the identity that it stands for.
#[derive(Clone, Debug)]
pub struct Credential {
    pub identity: Arc<Identity>,
    proof: Proof,
}

#[derive(Clone, Debug)]
enum Proof {
    Token(Token),
    Certificate(ClientCertificate),
}

/// A publisher that was added.
#[derive(Debug)]
pub struct Entered {
    pub source: SourceId,
    /// Set when its token is withdrawn.
    pub is_withdrawn: Arc<AtomicBool>,
}

/// Why a publisher was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnterError {
    /// As many are connected as may be.
    Full,
    /// Its token was withdrawn since it was accepted.
    Withdrawn,
}

impl Publishers {
    /// Source ids start at `first_id`; lower ones belong to feeds.
    pub fn new(first_id: SourceId, identities: &[IdentitySettings]) -> Self {
        let state = State {
            identities: Vec::new(),
            owners: Vec::new(),
            next_id: first_id,
            connected: BTreeMap::new(),
            handed_in: 0,
        };
        let publishers = Self {
            state: Mutex::new(state),
            parsing: Mutex::default(),
            refused: AtomicU64::new(0),
            definitions_refused: AtomicU64::new(0),
            withdrawn: AtomicU64::new(0),
            slowed_us: AtomicU64::new(0),
        };
        publishers.set_identities(identities);
        publishers
    }

    /// Replaces the identities. Connections whose token no longer stands for their identity are asked to end.
    pub fn set_identities(&self, settings: &[IdentitySettings]) {
        let mut state = self.lock();
        let State { identities, owners, connected, .. } = &mut *state;
        let new = settings.iter().map(|settings| {
            let before = identities.iter().find(|identity| identity.settings.name == settings.name);
            let nth = owners.iter().position(|owner| *owner == settings.owner).unwrap_or_else(|| {
                owners.push(settings.owner.clone());
                owners.len() - 1
            });
            let source = SourceIdentity {
                owner: OwnerId::publisher(nth as u32),
                priority: settings.priority,
                limits: settings.limits,
            };
            Arc::new(Identity::new(settings.clone(), source, before.map(Arc::as_ref)))
        });
        let new: Vec<_> = new.collect();
        *identities = new;
        for connected in connected.values().filter(|connected| !connected.credential.is_valid(identities)) {
            // Relaxed, here and below: the numbers order nothing, and the flag is polled.
            if !connected.is_withdrawn.swap(true, Ordering::Relaxed) {
                self.withdrawn.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// False if no identity is configured: publishing is off.
    pub fn is_enabled(&self) -> bool {
        !self.lock().identities.is_empty()
    }

    /// The identity that a token stands for. All tokens are compared, whichever matches.
    pub fn authenticate(&self, given: &[u8]) -> Option<Credential> {
        let mut found = None;
        for identity in &self.lock().identities {
            for token in &identity.settings.tokens {
                if token.matches(given) {
                    found = Some(Credential { identity: identity.clone(), proof: Proof::Token(token.clone()) });
                }
            }
        }
        found
    }

    /// The identity that a client certificate stands for. It was verified when the connection was opened.
    pub fn authenticate_certificate(&self, certificate: &ClientCertificate) -> Option<Credential> {
        let state = self.lock();
        let identity =
            state.identities.iter().find(|identity| certificate.is_named(&identity.settings.certificates))?;
        Some(Credential { identity: identity.clone(), proof: Proof::Certificate(certificate.clone()) })
    }

    /// Adds a publisher, unless `max` are connected.
    pub fn enter(&self, max: u32, address: Option<SocketAddr>, credential: Credential) -> Result<Entered, EnterError> {
        let mut state = self.lock();
        if !credential.is_valid(&state.identities) {
            return Err(EnterError::Withdrawn);
        }
        if state.connected.len() >= max as usize {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(EnterError::Full);
        }
        let source = state.next_id;
        state.next_id += 1;
        let is_withdrawn = Arc::<AtomicBool>::default();
        state.connected.insert(source, Connected { address, credential, is_withdrawn: is_withdrawn.clone() });
        Ok(Entered { source, is_withdrawn })
    }

    /// Removes a publisher. `handed_in`: it had called [`Self::count_handed_in`].
    pub fn leave(&self, source: SourceId, handed_in: bool) {
        let mut state = self.lock();
        state.connected.remove(&source);
        state.handed_in -= usize::from(handed_in);
    }

    /// Number of connected publishers.
    pub fn connected(&self) -> u32 {
        self.lock().connected.len() as u32
    }

    /// The connected publishers, with their identities and addresses.
    pub fn list(&self) -> Vec<(SourceId, String, Option<SocketAddr>)> {
        let state = self.lock();
        let row = |(source, connected): (&SourceId, &Connected)| {
            (*source, connected.credential.identity.settings.name.clone(), connected.address)
        };
        state.connected.iter().map(row).collect()
    }

    /// True once everything that publishers had sent when the drain began is sequenced.
    pub fn all_handed_in(&self) -> bool {
        let state = self.lock();
        state.handed_in >= state.connected.len()
    }

    pub(super) fn count_handed_in(&self) {
        self.lock().handed_in += 1;
    }

    /// Held while a request is parsed.
    pub(super) fn parse_permit(&self) -> MutexGuard<'_, ()> {
        self.parsing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishers refused because `publishers_max` were connected.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Requests to define instruments that were refused because of a limit.
    pub fn definitions_refused(&self) -> u64 {
        self.definitions_refused.load(Ordering::Relaxed)
    }

    pub(super) fn count_definitions_refused(&self) {
        self.definitions_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that were asked to end because their token was withdrawn.
    pub fn withdrawn(&self) -> u64 {
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// Time that publishers were delayed by their pace.
    pub fn slowed(&self) -> Duration {
        Duration::from_micros(self.slowed_us.load(Ordering::Relaxed))
    }

    pub(super) fn count_slowed(&self, wait: Duration) {
        self.slowed_us.fetch_add(wait.as_micros() as u64, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Credential {
    /// Whether the token or certificate still stands for the identity.
    fn is_valid(&self, identities: &[Arc<Identity>]) -> bool {
        let same = identities.iter().find(|identity| identity.settings.name == self.identity.settings.name);
        same.is_some_and(|identity| match &self.proof {
            Proof::Token(token) => identity.settings.tokens.contains(token),
            Proof::Certificate(certificate) => certificate.is_named(&identity.settings.certificates),
        })
    }
}
