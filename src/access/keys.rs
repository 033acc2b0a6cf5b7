//! The keys of an issuer, and which of them may have signed a token.
//!
//! What always holds: a key verifies the algorithms that the configuration names and that the key is made for. What a
//! token says chooses among these, and never adds one. So a token that is signed with a public key as the secret of an
//! HMAC verifies nowhere, and `none` is no algorithm.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Header};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Algorithms that can be configured. Those with longer hashes are not stronger where keys have the usual lengths.
pub const ALGORITHMS: [(&str, Algorithm); 6] = [
    ("HS256", Algorithm::HS256),
    ("RS256", Algorithm::RS256),
    ("PS256", Algorithm::PS256),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];
/// Keys of one issuer at the most.
pub const KEYS_MAX: usize = 64;
/// Keys that are tried for a token: those with its `kid`, or all where the token or the keys have none.
const TRIED_MAX: usize = 4;
/// Bytes of the shortest secret of an HMAC: those of the hash (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Bytes of the shortest modulus of an RSA key.
const MODULUS_BYTES_MIN: usize = 256;

/// A key.
#[derive(Clone, Debug)]
pub(super) struct Key {
    kid: Option<String>,
    pub(super) key: DecodingKey,
    /// Those that it verifies: all of one family.
    pub(super) algorithms: Vec<Algorithm>,
}

/// All keys of an issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// The text of a key set, of which a key that is not understood is no error.
#[derive(Deserialize)]
struct SetText<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// Public keys of a PEM file.
    ///
    /// # Errors
    /// What is wrong and what was expected.
    pub fn of_pem(text: &str, allowed: &[Algorithm]) -> Result<Self, String> {
        const BEGIN: &str = "-----BEGIN ";
        let mut keys = Vec::new();
        for (number, block) in (1..).zip(text.split(BEGIN).skip(1)) {
            if !block.starts_with("PUBLIC KEY-----") {
                let kind = block.split("-----").next().unwrap_or_default();
                return Err(format!("block {number} is {kind:?}: expected BEGIN PUBLIC KEY"));
            }
            let key = key_of_pem(&format!("{BEGIN}{block}"), allowed);
            keys.push(key.map_err(|problem| format!("key {number}: {problem}"))?);
        }
        Self::of(keys)
    }

    /// The secrets of an HMAC, one a line: the present one, and others during a rotation.
    ///
    /// # Errors
    /// What is wrong and what was expected. The message does not have the secret.
    pub fn of_secrets(text: &str, allowed: &[Algorithm]) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys = lines.map(|line| {
            if line.len() < SECRET_BYTES_MIN {
                return Err(format!(
                    "a secret of {} bytes: expected at least {SECRET_BYTES_MIN} random ones, one secret a line",
                    line.len()
                ));
            }
            let key = DecodingKey::from_secret(line.as_bytes()).map_err(|error| error.to_string())?;
            let algorithms = of_family(allowed, AlgorithmFamily::Hmac);
            Ok(Key { kid: None, key, algorithms })
        });
        Self::of(keys.collect::<Result<_, _>>()?)
    }

    /// A JSON Web Key Set, and how many of its keys are not used: for encryption, of other algorithms, secret ones.
    ///
    /// # Errors
    /// What is wrong and what was expected.
    pub fn of_jwks(text: &[u8], allowed: &[Algorithm]) -> Result<(Self, usize), String> {
        let set: SetText<'_> = serde_json::from_slice(text)
            .map_err(|error| format!("invalid JSON Web Key Set: {error}: expected {{\"keys\":[…]}}"))?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("{} keys: expected at most {KEYS_MAX}", set.keys.len()));
        }
        let parsed = set.keys.iter().filter_map(|text| serde_json::from_str::<Jwk>(text.get()).ok());
        let keys: Vec<_> = parsed.filter_map(|jwk| key_of_jwk(&jwk, allowed)).collect();
        let unused = set.keys.len() - keys.len();
        Self::of(keys).map(|set| (set, unused))
    }

    fn of(keys: Vec<Key>) -> Result<Self, String> {
        if keys.is_empty() {
            return Err("no key for the configured algorithms".to_owned());
        }
        if keys.len() > KEYS_MAX {
            return Err(format!("{} keys: expected at most {KEYS_MAX}", keys.len()));
        }
        Ok(Self { keys })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True if there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that may have signed a token with this header.
    pub(super) fn candidates<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Key> {
        let is_named = |key: &Key| match (&key.kid, &header.kid) {
            (Some(of_key), Some(of_token)) => of_key == of_token,
            _ => true,
        };
        let may = move |key: &&Key| key.algorithms.contains(&header.alg) && is_named(key);
        self.keys.iter().filter(may).take(TRIED_MAX)
    }
}

fn of_family(allowed: &[Algorithm], family: AlgorithmFamily) -> Vec<Algorithm> {
    allowed.iter().copied().filter(|algorithm| algorithm.family() == family).collect()
}

fn key_of_pem(pem: &str, allowed: &[Algorithm]) -> Result<Key, String> {
    let bytes = pem.as_bytes();
    let read = [DecodingKey::from_rsa_pem, DecodingKey::from_ec_pem, DecodingKey::from_ed_pem];
    let key = read.into_iter().find_map(|read| read(bytes).ok());
    let key = key.ok_or("not a public key of RSA, of P-256 or P-384, or Ed25519")?;
    let curve = match (key.family(), key.kind()) {
        // 0x04 and both coordinates.
        (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => match point.len() {
            65 => Some(Algorithm::ES256),
            97 => Some(Algorithm::ES384),
            _ => return Err("a curve that is not supported: expected P-256 or P-384".to_owned()),
        },
        _ => None,
    };
    let mut algorithms = of_family(allowed, key.family());
    algorithms.retain(|algorithm| curve.is_none_or(|curve| curve == *algorithm));
    if algorithms.is_empty() {
        return Err(format!(
            "a key for {:?}: expected one for the configured algorithms {allowed:?}",
            curve.map_or_else(|| key.family().algorithms().to_vec(), |one| vec![one])
        ));
    }
    Ok(Key { kid: None, key, algorithms })
}

/// `None` for a key that is not used.
fn key_of_jwk(jwk: &Jwk, allowed: &[Algorithm]) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    if jwk.common.key_operations.as_ref().is_some_and(|uses| !uses.contains(&KeyOperations::Verify)) {
        return None;
    }
    let fits: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[Algorithm::RS256, Algorithm::PS256],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        // A secret in a set that others may read is none.
        _ => return None,
    };
    let named = jwk.common.key_algorithm.map(|named| Algorithm::try_from(named).ok());
    let is_named = |algorithm: &Algorithm| named.is_none_or(|named| named == Some(*algorithm));
    let algorithms: Vec<_> = fits.iter().copied().filter(|one| allowed.contains(one) && is_named(one)).collect();
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let is_long = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.len() >= MODULUS_BYTES_MIN,
        DecodingKeyKind::SecretOrDer(_) => true,
    };
    (is_long && !algorithms.is_empty()).then(|| Key { kid: jwk.common.key_id.clone(), key, algorithms })
}
