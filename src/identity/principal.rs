//! A client as it has authenticated itself.

use std::sync::Arc;

use super::contract::Contract;
use super::private::{PRIVATE_FOLDER, owner_folder};
use super::rights::{Extent, Grant, Rights, Terms};
use super::text::RightsText;
use tickcast_protocol::record::FieldSet;
use tickcast_protocol::{Channel, check_symbol};

/// What a client has authenticated itself with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Anonymous,
    Token,
    ApiKey,
    /// A text that the authorizer of the operator knows.
    Authorized,
}

/// What the rights of a token come from, so that they can be found anew when the settings have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The `iss` of the token, or the URL of the authorizer.
    pub issuer: Box<str>,
    pub claim: Claim,
}

/// What a token says about its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing: it has those of its issuer. An authorizer always says something.
    None,
    /// Rules alone, which no settings change.
    Rules,
    /// Names of products, and rules.
    Products(RightsText),
}

/// What becomes of a client whose credential was looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// It goes on with other rights.
    Renew(Arc<Principal>),
    /// It is closed, for this reason.
    Close(&'static str),
}

/// See the module. Some 200 bytes beside its rights, which many share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub kind: Kind,
    /// Empty for an anonymous client.
    pub user: Box<str>,
    /// The id of its token.
    pub jti: Option<Box<str>>,
    /// When its token was issued, s since the Unix epoch; 0 if that is not known.
    pub issued_s: u64,
    /// When its token expires, s.
    pub expires_s: Option<u64>,
    /// When the authorizer has answered, s; 0 for other credentials.
    pub answered_s: u64,
    pub rights: Arc<Rights>,
    /// What of it is counted and reported.
    pub contract: Contract,
    /// Of a token, or the answer of an authorizer.
    pub source: Option<Arc<Source>>,
}

impl Principal {
    /// A client with these rights, without an end.
    pub fn new(kind: Kind, user: &str, rights: Arc<Rights>) -> Self {
        let contract = Contract::default();
        let (issued_s, expires_s, answered_s) = (0, None, 0);
        Self { kind, user: user.into(), jti: None, issued_s, expires_s, answered_s, rights, contract, source: None }
    }

    /// A client of a server that identifies none.
    pub fn open() -> Self {
        Self::new(Kind::Anonymous, "", Arc::new(Rights::open()))
    }

    /// A client that may see nothing.
    pub fn none() -> Self {
        Self::new(Kind::Anonymous, "", Arc::new(Rights::none()))
    }

    /// What it may see of a channel of a symbol, in a market whose data has this age.
    pub fn grant(&self, symbol: &str, channel: Channel, delay_s: u32) -> Grant {
        if self.owns(symbol) && !self.rights.denies(symbol, false, channel) {
            return Grant::Live(Terms::default());
        }
        self.rights.grant(symbol, channel, delay_s)
    }

    /// What it may see of a channel of all symbols that begin with a prefix, in a market of this delay.
    pub fn extent(&self, prefix: &str, channel: Channel, delay_s: u32) -> Extent {
        if self.owns(prefix) && !self.rights.denies(prefix, true, channel) {
            return Extent::WHOLE;
        }
        self.rights.extent(prefix, channel, delay_s)
    }

    /// True if it is served this channel of a symbol, in a market of this delay.
    pub fn may_see(&self, symbol: &str, channel: Channel, delay_s: u32) -> bool {
        self.grant(symbol, channel, delay_s).served().is_some()
    }

    /// Levels of each side of a symbol's book that it is served there; `None` for all.
    pub fn book_levels(&self, symbol: &str, delay_s: u32) -> Option<usize> {
        let terms = self.grant(symbol, Channel::Book, delay_s).served()?;
        terms.depth.levels().map(|levels| levels as usize)
    }

    /// Fields of a symbol's quotes, trades and tickers that are hidden from it there.
    pub fn hidden_fields(&self, symbol: &str, delay_s: u32) -> FieldSet {
        if self.owns(symbol) { FieldSet::NONE } else { self.rights.hidden_fields(symbol, delay_s) }
    }

    /// True if a text is below the private folder of this user. A user whose name could be mistaken for a part of a path
    /// has none.
    fn owns(&self, text: &str) -> bool {
        let Some(folder) = owner_folder(text).filter(|_| self.has_private_symbols()) else { return false };
        folder.strip_prefix(PRIVATE_FOLDER).and_then(|rest| rest.strip_suffix('/')) == Some(&*self.user)
    }

    fn has_private_symbols(&self) -> bool {
        self.kind != Kind::Anonymous && !self.user.contains('/') && check_symbol(&self.user).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Rule;
    use tickcast_protocol::control::{ChannelSet, Pattern};

    fn user(name: &str, rules: &[(&str, bool)]) -> Principal {
        let rule = |(pattern, allows): &(&str, bool)| {
            Rule::new(Pattern::parse(pattern).unwrap(), ChannelSet::ALL, allows.then(Terms::default))
        };
        Principal::new(Kind::Token, name, Arc::new(Rights::new(rules.iter().map(rule).collect())))
    }

    #[test]
    fn private_symbols_are_those_of_their_user_only() {
        let [one, other] = ["u1", "u12"].map(|name| user(name, &[("*", true)]));
        for (principal, symbol, may_see) in [
            (&one, "user/u1/orders", true),
            (&one, "user/u12/orders", false),
            (&other, "user/u1/orders", false),
            (&other, "user/u12/orders", true),
            (&one, "user/u1", false),
            (&one, "user//orders", false),
            (&one, "BTC-USD", true),
        ] {
            assert_eq!(principal.may_see(symbol, Channel::Raw, 0), may_see, "{} {symbol}", principal.user);
        }
        for (prefix, is_some) in
            [("user/u1/", true), ("user/u1/o", true), ("user/u1", false), ("user/", false), ("user/u12/", false)]
        {
            let extent = one.extent(prefix, Channel::Raw, 0);
            assert_eq!(extent != Extent::Nothing, is_some, "{prefix}");
        }
        assert!(matches!(one.extent("use", Channel::Raw, 0), Extent::Some { .. }), "which covers no private symbol");
    }

    #[test]
    fn users_whose_names_are_no_part_of_a_path_have_no_private_symbols() {
        for name in ["a/b", "", "a*", " a", "*"] {
            let principal = user(name, &[("*", true)]);
            assert!(!principal.may_see(&format!("user/{name}/x"), Channel::Quote, 0), "{name}");
        }
        let anonymous = Principal { kind: Kind::Anonymous, ..user("a", &[]) };
        assert!(!anonymous.may_see("user/a/x", Channel::Quote, 0));
    }

    #[test]
    fn rules_that_deny_hold_for_private_symbols_too() {
        assert!(!user("a", &[("user/a/secret*", false)]).may_see("user/a/secrets", Channel::Quote, 0));
        assert!(user("a", &[("user/a/secret*", false)]).may_see("user/a/orders", Channel::Quote, 0));
    }

    #[test]
    fn open_server_shows_everything_to_all() {
        let open = Principal::open();
        assert!(open.may_see("user/a/x", Channel::Quote, 0) && open.may_see("BTC-USD", Channel::Book, 0));
        assert_eq!(open.extent("", Channel::Quote, 0), Extent::WHOLE);
    }
}
