//! API keys: long random texts that do not expire, of which the file has the hashes only.
//!
//! A key has the form `tk_…`, so that it is told from a token, and scanners for leaked secrets find it. Its hash is a plain
//! SHA-256: a key has 128 random bits or more, so that a slow hash would add nothing.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use constant_time_eq::constant_time_eq_32;
use serde::Deserialize;

use crate::identity::{Kind, Principal, Products, RightsText};

/// What keys begin with.
pub const PREFIX: &str = "tk_";
/// Bytes of the shortest key: 22 random letters have 128 bits.
pub const KEY_BYTES_MIN: usize = 25;
/// Bytes of the longest key.
pub const KEY_BYTES_MAX: usize = 256;
/// Keys at the most.
const KEYS_MAX: usize = 100_000;

/// The file of keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    key: Vec<KeyText>,
}

/// A table `[[key]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyText {
    /// The user that the key stands for.
    user: String,
    /// Of the whole key, in hexadecimal.
    sha256: String,
    #[serde(default)]
    rights: RightsText,
}

/// The keys by their hashes.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys(Arc<HashMap<[u8; 32], Arc<Principal>>>);

impl ApiKeys {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong and what was expected.
    pub fn parse(text: &str, products: &Products) -> Result<Self, String> {
        let file: FileText = toml::from_str(text).map_err(|error| problem(text, &error))?;
        if file.key.len() > KEYS_MAX {
            return Err(format!("{} keys: expected at most {KEYS_MAX}", file.key.len()));
        }
        let mut keys = HashMap::new();
        for (number, key) in (1..).zip(&file.key) {
            let of = |problem: String| format!("key {number} of user {:?}: {problem}", key.user);
            if key.user.is_empty() || key.user.len() > 256 {
                return Err(of(format!("user: {} bytes: expected 1 to 256", key.user.len())));
            }
            let hash = hash_of_text(&key.sha256)
                .ok_or_else(|| of("sha256: expected 64 hexadecimal digits, as `sha256sum` prints them".to_owned()))?;
            let rights = Arc::new(key.rights.resolve(products).map_err(of)?);
            let contract = key.rights.contract(products, None).map_err(of)?;
            let mut principal = Principal { contract, ..Principal::new(Kind::ApiKey, &key.user, rights) };
            // What it is revoked by.
            principal.jti = Some(key.sha256.to_ascii_lowercase().into());
            let principal = Arc::new(principal);
            if keys.insert(hash, principal).is_some() {
                return Err(of("sha256: given twice: expected each once".to_owned()));
            }
        }
        Ok(Self(Arc::new(keys)))
    }

    /// True if there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The client that a key stands for now; `None` if the key is not there any more.
    pub(super) fn same_key(&self, principal: &Principal) -> Option<Arc<Principal>> {
        let hash = principal.jti.as_deref().and_then(hash_of_text)?;
        self.0.get(&hash).filter(|known| known.user == principal.user).cloned()
    }

    /// The client that has this key.
    pub(super) fn find(&self, key: &[u8]) -> Option<Arc<Principal>> {
        if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) {
            return None;
        }
        let hash = hash(key);
        // What the time of the look-up tells is a part of a hash, which gives no key.
        let (found, principal) = self.0.get_key_value(&hash)?;
        constant_time_eq_32(found, &hash).then(|| principal.clone())
    }
}

/// Without the line itself, in which a key may stand by mistake.
fn problem(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
    format!("line {line}: {}", error.message())
}

pub(super) fn hash(key: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, key).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn hash_of_text(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    // `from_str_radix` takes a sign.
    text.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_protocol::Channel;

    const KEY: &str = "tk_0123456789abcdefghijkl";

    fn hex(key: &str) -> String {
        hash(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn key_is_found_by_its_hash_alone() {
        // From `printf %s abc | sha256sum`.
        assert_eq!(hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let text = format!(
            "[[key]]\nuser = 'robot'\nsha256 = '{}'\nrights.allow = [{{ symbols = ['A*'], channels = ['quote'] }}]",
            hex(KEY)
        );
        let keys = ApiKeys::parse(&text, &Products::new()).unwrap();
        let found = keys.find(KEY.as_bytes()).unwrap();
        assert_eq!((&*found.user, found.kind), ("robot", Kind::ApiKey));
        assert!(found.may_see("AB", Channel::Quote, 0) && !found.may_see("AB", Channel::Trade, 0));
        for wrong in ["", "tk_", &KEY[1..], &format!("{KEY}x"), &hex(KEY)] {
            assert_eq!(keys.find(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn errors_name_the_key_and_do_not_repeat_it() {
        let hash = hex(KEY);
        for (text, message) in [
            ("[[key]]\nuser = ''\nsha256 = ''".to_owned(), "user: 0 bytes"),
            (format!("[[key]]\nuser = 'a'\nsha256 = '{KEY}'"), "sha256: expected 64 hexadecimal digits"),
            (format!("[[key]]\nuser = 'a'\nsha256 = '+{}'", &hash[1..]), "sha256: expected 64"),
            (
                format!("[[key]]\nuser = 'a'\nsha256 = '{hash}'\n[[key]]\nuser = 'b'\nsha256 = '{hash}'"),
                "key 2 of user \"b\": sha256: given twice",
            ),
            (format!("[[key]]\nuser = 'a'\nsha256 = '{hash}'\nrights.products = ['X']"), "unknown product \"X\""),
            (format!("[[key]]\nuser = 'a'\nsha256 = '{hash}'\nright = 1"), "unknown field `right`"),
            (format!("[[key]]\nuser = 'a'\nkey = '{KEY}'"), "line 3: unknown field `key`"),
        ] {
            let error = ApiKeys::parse(&text, &Products::new()).unwrap_err();
            assert!(error.contains(message) && !error.contains(KEY), "{error}");
        }
    }
}
