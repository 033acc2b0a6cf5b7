//! The claims of a token, read strictly: each name once, each value of its type.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Bytes of the longest `sub` and `jti`.
pub const NAME_BYTES_MAX: usize = 256;

/// The members of an object as text. One that is there twice is an error: two readers could take different ones.
#[derive(Debug)]
pub(super) struct Claims(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Claims;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Claims, M::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if members.insert(name.clone(), value).is_some() {
                        return Err(M::Error::custom(format!("{name}: given twice")));
                    }
                }
                Ok(Claims(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// One or several texts.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Claims {
    /// A claim, if it is there.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        serde_json::from_str(value.get()).map(Some).map_err(|error| format!("{name}: {error}"))
    }

    fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T, String> {
        self.get(name)?.ok_or_else(|| format!("{name}: missing"))
    }

    pub(super) fn issuer(&self) -> Result<String, String> {
        self.required("iss")
    }

    /// The user: a name that is not empty.
    pub(super) fn subject(&self) -> Result<String, String> {
        name("sub", self.required("sub")?)
    }

    pub(super) fn id(&self) -> Result<Option<String>, String> {
        self.get("jti")?.map(|id| name("jti", id)).transpose()
    }

    /// True if one of these is an audience of the token.
    pub(super) fn is_for(&self, audiences: &[String]) -> Result<bool, String> {
        Ok(match self.required("aud")? {
            OneOrMore::One(one) => audiences.contains(&one),
            OneOrMore::More(more) => more.iter().any(|one| audiences.contains(one)),
        })
    }

    /// A time, s since the Unix epoch; a fraction is cut off.
    pub(super) fn time(&self, name: &str) -> Result<Option<u64>, String> {
        const LATEST: f64 = 253_402_300_800.0;
        let Some(seconds) = self.get::<f64>(name)? else { return Ok(None) };
        if (0.0..LATEST).contains(&seconds) { Ok(Some(seconds as u64)) } else { Err(format!("{name}: no time")) }
    }

    pub(super) fn expiry(&self) -> Result<u64, String> {
        self.time("exp")?.ok_or_else(|| "exp: missing".to_owned())
    }
}

fn name(claim: &str, text: String) -> Result<String, String> {
    let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    if is_name {
        Ok(text)
    } else {
        Err(format!("{claim}: {} bytes: expected 1 to {NAME_BYTES_MAX} visible ones", text.len()))
    }
}
