//! What the configuration says about who may connect, checked.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::api_keys::ApiKeys;
use super::keys::KeySet;
use super::sessions::SessionSettings;
use crate::identity::{Products, RightsText};
use crate::ingest::transport::address::Address;
use crate::ingest::transport::post::PostServer;

/// Where the keys of an issuer come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// Read when the configuration was.
    Fixed(KeySet),
    /// A key set, read again from time to time; the authority of its server's certificate, if it is a private one.
    Url { address: Address, ca_file: Option<PathBuf> },
}

/// An issuer of tokens.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    pub name: String,
    pub iss: String,
    pub audiences: Vec<String>,
    pub algorithms: Vec<Algorithm>,
    pub keys: KeySource,
    /// Before the `sub` of its tokens, so that users of several issuers are different ones.
    pub user_prefix: String,
    /// The claim with the rights.
    pub rights_claim: String,
    /// The rights of tokens without that claim.
    pub rights: RightsText,
    /// What `typ` may be, where a token has it.
    pub types: Vec<String>,
    pub leeway_s: u64,
    pub lifetime_max_s: u64,
    /// Sessions at a time of a user whose token does not say it.
    pub sessions_max: Option<u32>,
}

impl IssuerSettings {
    /// True if a token with this `typ` is one for this purpose. Case and `application/` have no meaning (RFC 7515 section
    /// 4.1.9).
    pub(super) fn has_type(&self, typ: &str) -> bool {
        let bare = typ.get(..12).filter(|start| start.eq_ignore_ascii_case("application/")).map_or(typ, |_| &typ[12..]);
        self.types.iter().any(|one| one.eq_ignore_ascii_case(bare))
    }
}

/// A server that is asked about credentials that are neither tokens of an issuer nor API keys.
#[derive(Clone, Debug)]
pub struct AuthorizerSettings {
    pub server: Arc<PostServer>,
    /// Requests under way.
    pub requests_max: usize,
    /// How long an answer is used again, s; 0: not at all.
    pub cache_s: u64,
}

/// What is kept for clients at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLimits {
    /// Tokens that are not verified again when they come again.
    pub accepted_tokens_max: usize,
    /// Different rights.
    pub entitlement_sets_max: usize,
}

impl Default for AccessLimits {
    fn default() -> Self {
        Self { accepted_tokens_max: 100_000, entitlement_sets_max: 1024 }
    }
}

/// Who may connect.
#[derive(Clone, Debug, Default)]
pub struct AccessSettings {
    pub issuers: Vec<IssuerSettings>,
    pub api_keys: ApiKeys,
    /// `None`: there is none.
    pub authorizer: Option<AuthorizerSettings>,
    pub products: Products,
    /// The rights of clients without a credential; `None`: there are none such.
    pub anonymous: Option<RightsText>,
    /// The cookie with a token; `None`: none has one.
    pub cookie: Option<String>,
    /// Whether a query may have a token.
    pub in_query: bool,
    pub sessions: SessionSettings,
    /// What the text of all these was: equal for equal settings.
    pub source: String,
    pub jwks_refresh_s: u64,
    pub jwks_stale_max_s: u64,
    pub limits: AccessLimits,
}

impl AccessSettings {
    /// False if clients are not identified: all may see everything.
    pub fn is_on(&self) -> bool {
        !self.issuers.is_empty() || !self.api_keys.is_empty() || self.authorizer.is_some() || self.anonymous.is_some()
    }

    /// The longest life of a token, s: how long a revocation is kept.
    pub fn lifetime_max_s(&self) -> u64 {
        self.issuers.iter().map(|issuer| issuer.lifetime_max_s + issuer.leeway_s).max().unwrap_or(0).max(86_400)
    }
}

/// One line for the operator.
impl fmt::Display for AccessSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_on() {
            let missing = "there is no [[issuer]], no api_keys_file, no authorizer_url and no [anonymous]";
            return write!(out, "all clients see everything: {missing}");
        }
        let issuers: Vec<&str> = self.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        let issuers = if issuers.is_empty() { "no issuer".to_owned() } else { issuers.join(", ") };
        let authorizer = match &self.authorizer {
            None => String::new(),
            Some(AuthorizerSettings { server, requests_max, cache_s }) => format!(
                "what {} knows, at most {requests_max} requests at a time, each for {} ms, and an answer holds for {cache_s} s; ",
                server.address().authority(),
                server.deadline().as_millis()
            ),
        };
        let anonymous = if self.anonymous.is_some() { "have rights of their own" } else { "are refused" };
        write!(
            out,
            "tokens of {issuers}; {} API keys; {authorizer}others {anonymous}; {} products, some 60 B a rule; at most \
             {} different rights, 1 to 3 B an instrument for each of them and shard, and {} accepted tokens, some 400 B each",
            self.api_keys.len(),
            self.products.len(),
            self.limits.entitlement_sets_max,
            self.limits.accepted_tokens_max
        )
    }
}

impl PartialEq for AccessSettings {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}
