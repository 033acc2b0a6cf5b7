//! What was revoked: single tokens, all that a user has, and all tokens from before a time.
//!
//! What always holds: an entry is kept for as long as a token may live, so that one which it revokes is refused until it
//! expires by itself.
//!
//! Memory: some 100 bytes an entry, at most [`Revocations::ENTRIES_MAX`] of them.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::principal::{Kind, Principal};

/// One revocation, as a line of JSON has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The token with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Tokens and keys of this user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Of those, tokens that were issued before this time, s since the Unix epoch; without a user, those of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<u64>,
    /// When the entry may be forgotten, s; 0 in a file that does not say it.
    #[serde(default)]
    pub until: u64,
}

impl Revocation {
    /// Bytes of the longest `jti` and user.
    pub const NAME_BYTES_MAX: usize = 256;

    /// Checks that it says what is revoked.
    ///
    /// # Errors
    /// What is expected.
    pub fn check(&self) -> Result<(), String> {
        if self.jti.is_some() == (self.user.is_some() || self.issued_before.is_some()) {
            return Err(
                "expected \"jti\", or \"user\" with or without \"issued_before\", or \"issued_before\"".to_owned()
            );
        }
        let name = self.jti.as_ref().or(self.user.as_ref()).map_or("-", String::as_str);
        if name.is_empty() || name.len() > Self::NAME_BYTES_MAX {
            return Err(format!("{} bytes of jti or user: expected 1 to {}", name.len(), Self::NAME_BYTES_MAX));
        }
        Ok(())
    }
}

/// Tokens of a user that were issued before a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Before {
    issued_before: u64,
    until: u64,
}

/// All revocations in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    tokens: HashMap<Box<str>, u64>,
    users: HashMap<Box<str>, Before>,
    all: Option<Before>,
}

impl Revocations {
    /// Entries at the most.
    pub const ENTRIES_MAX: usize = 1_000_000;

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.tokens.len() + self.users.len() + usize::from(self.all.is_some())
    }

    /// True if nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a revocation. One of a user without a time revokes all that the user has and will have.
    pub fn add(&mut self, revocation: &Revocation) {
        let until = revocation.until;
        if let Some(jti) = &revocation.jti {
            let entry = self.tokens.entry(jti.as_str().into()).or_default();
            *entry = until.max(*entry);
            return;
        }
        let before = Before { issued_before: revocation.issued_before.unwrap_or(u64::MAX), until };
        let later = |other: Before| Before {
            issued_before: other.issued_before.max(before.issued_before),
            until: other.until.max(until),
        };
        match &revocation.user {
            Some(user) => {
                let entry = self.users.entry(user.as_str().into()).or_insert(before);
                *entry = later(*entry);
            }
            None => self.all = Some(self.all.map_or(before, later)),
        }
    }

    /// Forgets entries whose tokens have expired.
    pub fn expire(&mut self, now_s: u64) {
        self.tokens.retain(|_, until| *until > now_s);
        self.users.retain(|_, before| before.until > now_s);
        self.all = self.all.filter(|before| before.until > now_s);
    }

    /// All entries, for a file.
    pub fn entries(&self) -> impl Iterator<Item = Revocation> {
        let of = |user: Option<&str>, before: &Before| Revocation {
            jti: None,
            user: user.map(str::to_owned),
            issued_before: Some(before.issued_before),
            until: before.until,
        };
        let tokens = self.tokens.iter().map(|(jti, until)| Revocation {
            jti: Some(jti.to_string()),
            user: None,
            issued_before: None,
            until: *until,
        });
        let users = self.users.iter().map(move |(user, before)| of(Some(user), before));
        tokens.chain(users).chain(self.all.iter().map(move |before| of(None, before)))
    }

    /// True if the credential of a client was revoked. A token that does not say when it was issued counts as older than
    /// any time; so does an API key.
    pub fn revokes(&self, principal: &Principal) -> bool {
        if principal.kind == Kind::Anonymous {
            return false;
        }
        let of_user = self.users.get(&*principal.user).is_some_and(|before| principal.issued_s < before.issued_before);
        // All tokens of a time: API keys have none.
        let of_all =
            principal.kind != Kind::ApiKey && self.all.is_some_and(|before| principal.issued_s < before.issued_before);
        let of_token = || principal.jti.as_ref().is_some_and(|jti| self.tokens.contains_key(&**jti));
        of_user || of_all || (!self.tokens.is_empty() && of_token())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Rights;

    fn principal(user: &str, jti: Option<&str>, issued_s: u64) -> Principal {
        let rights = std::sync::Arc::new(Rights::none());
        Principal { jti: jti.map(Into::into), issued_s, ..Principal::new(Kind::Token, user, rights) }
    }

    fn add(revocations: &mut Revocations, json: &str) {
        let revocation: Revocation = serde_json::from_str(json).unwrap();
        revocation.check().unwrap();
        revocations.add(&revocation);
    }

    #[test]
    fn token_user_and_time_revoke_what_they_name_and_no_other() {
        let mut revocations = Revocations::default();
        add(&mut revocations, r#"{"jti":"t1","until":100}"#);
        add(&mut revocations, r#"{"user":"a","issued_before":50,"until":100}"#);
        add(&mut revocations, r#"{"issued_before":10,"until":100}"#);
        for (principal, is_revoked) in [
            (principal("x", Some("t1"), 60), true),
            (principal("x", Some("t2"), 60), false),
            (principal("a", None, 49), true),
            (principal("a", None, 50), false),
            (principal("b", None, 9), true),
            (principal("b", None, 10), false),
            (principal("b", None, 0), true),
        ] {
            assert_eq!(revocations.revokes(&principal), is_revoked, "{principal:?}");
        }
        let key = Principal { kind: Kind::ApiKey, ..principal("b", None, 0) };
        assert!(!revocations.revokes(&key), "a time concerns tokens");
        assert!(revocations.revokes(&Principal { user: "a".into(), ..key }));
    }

    #[test]
    fn entries_go_through_a_file_and_end_with_their_tokens() {
        let mut revocations = Revocations::default();
        add(&mut revocations, r#"{"jti":"t1","until":100}"#);
        add(&mut revocations, r#"{"user":"a","until":200}"#);
        add(&mut revocations, r#"{"issued_before":10,"until":300}"#);
        let mut again = Revocations::default();
        revocations.entries().for_each(|entry| again.add(&entry));
        assert_eq!(again, revocations);
        for (now_s, left) in [(99, 3), (100, 2), (200, 1), (300, 0)] {
            again.expire(now_s);
            assert_eq!(again.len(), left, "{now_s}");
        }
    }

    #[test]
    fn revocation_of_nothing_or_of_two_things_is_refused() {
        for json in [
            r#"{"until":1}"#,
            r#"{"jti":"a","user":"b","until":1}"#,
            r#"{"jti":"","until":1}"#,
            r#"{"jti":"a","issued_before":1,"until":1}"#,
        ] {
            let revocation: Revocation = serde_json::from_str(json).unwrap();
            assert!(revocation.check().unwrap_err().contains("expected"), "{json}");
        }
        assert!(serde_json::from_str::<Revocation>(r#"{"jti":"a","untl":1}"#).is_err());
    }
}
