//! What is accepted, and the attacks on tokens, with keys that each test makes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::*;
use crate::identity::{Product, Products, RightsText};
use tickcast_protocol::Channel;

const NOW_S: u64 = 1_796_000_000;
const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";

pub(super) fn now() -> Now {
    Now { wall_s: NOW_S, ns: 1_000_000_000 }
}

fn issuer(algorithm: Algorithm, keys: KeySource) -> IssuerSettings {
    IssuerSettings {
        name: "test".to_owned(),
        iss: "https://id.example.com".to_owned(),
        audiences: vec!["tickcast".to_owned()],
        algorithms: vec![algorithm],
        keys,
        user_prefix: String::new(),
        rights_claim: "tickcast".to_owned(),
        rights: RightsText::default(),
        types: vec!["JWT".to_owned(), "at+jwt".to_owned()],
        leeway_s: 30,
        lifetime_max_s: 86_400,
        sessions_max: Some(4),
    }
}

fn access(issuers: Vec<IssuerSettings>) -> Access {
    let rules = RightsText { allow: vec![allow("EQ-*")], ..Default::default() }.rules().unwrap();
    let products = Products::from([("L1".to_owned(), Product { rules, sessions_max: None })]);
    Access::new(AccessSettings { issuers, products, jwks_stale_max_s: 60, ..Default::default() }, None, now()).unwrap()
}

fn allow(symbols: &str) -> crate::identity::AllowText {
    crate::identity::AllowText { symbols: vec![symbols.to_owned()], ..Default::default() }
}

fn hmac() -> Access {
    access(vec![issuer(Algorithm::HS256, KeySource::Fixed(KeySet::of_secrets(SECRET, &[Algorithm::HS256]).unwrap()))])
}

fn ec() -> (Access, KeyPair) {
    let pair = KeyPair::generate().unwrap();
    let set = KeySet::of_pem(&pair.public_key_pem(), &[Algorithm::ES256]).unwrap();
    (access(vec![issuer(Algorithm::ES256, KeySource::Fixed(set))]), pair)
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example.com", "aud": "tickcast", "sub": "u-17", "iat": NOW_S - 10, "exp": NOW_S + 600, "jti": "t1",
        "tickcast": {"products": ["L1"], "allow": [{"symbols": ["BTC-*"], "channels": ["quote"]}]}
    })
}

/// With an issuer of HS256, and an authorizer.
pub(super) fn access_with(authorizer: Option<AuthorizerSettings>) -> Access {
    let settings = AccessSettings { authorizer, ..hmac().policy().settings.clone() };
    Access::new(settings, None, now()).unwrap()
}

/// A token with this `iss`, whose signature is that of the issuer.
pub(super) fn signed_token(iss: &str) -> String {
    signed(&with(json!({"iss": iss})))
}

/// An issuer of ES256 with these keys.
pub(super) fn access_of(keys: KeySource) -> Access {
    access(vec![issuer(Algorithm::ES256, keys)])
}

pub(super) fn signed_with(kid: &str, pair: &KeyPair) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
    encode(&header, &claims(), &EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap()).unwrap()
}

/// A key set of P-256 keys.
pub(super) fn jwks_of(keys: &[(&str, &KeyPair)]) -> String {
    let jwk = |(kid, pair): &(&str, &KeyPair)| {
        let point = pair.public_key_raw();
        let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": x, "y": y})
    };
    json!({"keys": keys.iter().map(jwk).collect::<Vec<_>>()}).to_string()
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn signed(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes()).unwrap()).unwrap()
}

fn cause(access: &Access, token: &str) -> Option<Cause> {
    let denied = access.authenticate(token.as_bytes(), now()).err()?;
    let parts: Vec<_> = token.split('.').filter(|part| part.len() > 20).collect();
    assert!(!parts.iter().any(|part| denied.detail.contains(part)), "the log has no token: {denied:?}");
    Some(denied.cause)
}

/// A token of these texts, with a signature of no use.
fn forged(header: &str, claims: &str) -> String {
    [header, claims, "signature"].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}

#[test]
fn valid_token_is_its_user_with_its_rights() {
    let principal = hmac().authenticate(signed(&claims()).as_bytes(), now()).unwrap();
    assert_eq!((&*principal.user, principal.jti.as_deref()), ("u-17", Some("t1")));
    assert_eq!((principal.issued_s, principal.expires_s), (NOW_S - 10, Some(NOW_S + 600)));
    for (symbol, channel, may_see) in [
        ("BTC-USD", Channel::Quote, true),
        ("BTC-USD", Channel::Trade, false),
        ("EQ-A", Channel::Trade, true),
        ("XAU", Channel::Quote, false),
        ("user/u-17/orders", Channel::Raw, true),
        ("user/u-18/orders", Channel::Raw, false),
    ] {
        assert_eq!(principal.may_see(symbol, channel, 0), may_see, "{symbol}");
    }
}

#[test]
fn keys_of_each_algorithm_verify() {
    for (algorithm, name) in [
        (Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256),
        (Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384),
        (Algorithm::EdDSA, &rcgen::PKCS_ED25519),
        (Algorithm::RS256, &rcgen::PKCS_RSA_SHA256),
        (Algorithm::PS256, &rcgen::PKCS_RSA_SHA256),
    ] {
        let pair = KeyPair::generate_for(name).unwrap();
        let pem = pair.serialize_pem();
        let key = match algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            Algorithm::RS256 | Algorithm::PS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        let token = encode(&Header::new(algorithm), &claims(), &key.unwrap()).unwrap();
        let set = KeySet::of_pem(&pair.public_key_pem(), &[algorithm]).unwrap();
        assert_eq!(cause(&access(vec![issuer(algorithm, KeySource::Fixed(set))]), &token), None, "{algorithm:?}");
    }
}

#[test]
fn times_are_checked_with_the_leeway_and_no_more() {
    let access = hmac();
    for (changes, denied) in [
        (json!({"exp": NOW_S - 29}), None),
        (json!({"exp": NOW_S - 30}), Some(Cause::Expired)),
        (json!({"exp": null}), Some(Cause::Invalid)),
        (json!({"exp": (NOW_S + 60).to_string()}), Some(Cause::Invalid)),
        (json!({"exp": -1}), Some(Cause::Invalid)),
        (json!({"exp": 1e300}), Some(Cause::Invalid)),
        (json!({"exp": NOW_S as f64 + 0.5}), None),
        (json!({"nbf": NOW_S + 30}), None),
        (json!({"nbf": NOW_S + 31}), Some(Cause::Invalid)),
        (json!({"nbf": "soon"}), Some(Cause::Invalid)),
        (json!({"iat": NOW_S + 31}), Some(Cause::Invalid)),
        (json!({"iat": NOW_S - 10, "exp": NOW_S - 10 + 86_400}), None),
        (json!({"iat": NOW_S - 10, "exp": NOW_S - 10 + 86_401}), Some(Cause::Invalid)),
        (json!({"iat": null, "exp": NOW_S + 86_401}), Some(Cause::Invalid)),
        (json!({"iat": null}), None),
    ] {
        assert_eq!(cause(&access, &signed(&with(changes.clone()))), denied, "{changes}");
    }
}

#[test]
fn names_are_checked_and_required() {
    let access = hmac();
    for (changes, denied) in [
        (json!({"iss": "https://other.example.com"}), Some(Cause::Invalid)),
        (json!({"iss": null}), Some(Cause::Invalid)),
        (json!({"iss": ["https://id.example.com"]}), Some(Cause::Invalid)),
        (json!({"aud": null}), Some(Cause::Invalid)),
        (json!({"aud": "other"}), Some(Cause::Invalid)),
        (json!({"aud": 5}), Some(Cause::Invalid)),
        (json!({"aud": ["other", "tickcast"]}), None),
        (json!({"aud": []}), Some(Cause::Invalid)),
        (json!({"sub": null}), Some(Cause::Invalid)),
        (json!({"sub": ""}), Some(Cause::Invalid)),
        (json!({"sub": 17}), Some(Cause::Invalid)),
        (json!({"sub": "a\nb"}), Some(Cause::Invalid)),
        (json!({"sub": "x".repeat(257)}), Some(Cause::Invalid)),
        (json!({"jti": 1}), Some(Cause::Invalid)),
        (json!({"jti": null}), None),
        (json!({"tickcast": {"products": ["none-such"]}}), Some(Cause::Rights)),
        (json!({"tickcast": {"alow": []}}), Some(Cause::Rights)),
        (json!({"tickcast": "all"}), Some(Cause::Rights)),
    ] {
        assert_eq!(cause(&access, &signed(&with(changes.clone()))), denied, "{changes}");
    }
    let without = access.authenticate(signed(&with(json!({"tickcast": null}))).as_bytes(), now()).unwrap();
    assert!(!without.may_see("BTC-USD", Channel::Quote, 0), "no claim: the rights of the issuer, here none");
}

#[test]
fn algorithm_of_the_token_chooses_nothing() {
    let (access, pair) = ec();
    let (header, body) = (r#"{"alg":"none","typ":"JWT"}"#, claims().to_string());
    for alg in ["none", "None", "NONE", "HS256", "ES256", "RS256", ""] {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        assert_eq!(cause(&access, &forged(&header, &body)), Some(Cause::Invalid), "{alg}");
    }
    let unsigned = [header, &body].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".") + ".";
    assert_eq!(cause(&access, &unsigned), Some(Cause::Invalid));
    // An HMAC whose secret is the public key, as text and as bytes.
    for secret in [pair.public_key_pem().into_bytes(), pair.public_key_raw().to_vec()] {
        let token = encode(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(&secret).unwrap());
        assert_eq!(cause(&access, &token.unwrap()), Some(Cause::Invalid));
        // Nor where both are configured, as careless lists are.
        let set = KeySet::of_pem(&pair.public_key_pem(), &[Algorithm::ES256, Algorithm::HS256]).unwrap();
        let mut both = issuer(Algorithm::ES256, KeySource::Fixed(set));
        both.algorithms.push(Algorithm::HS256);
        let token = encode(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(&secret).unwrap());
        assert_eq!(cause(&super::tests::access(vec![both]), &token.unwrap()), Some(Cause::Invalid));
    }
    // Another algorithm of the same key.
    let pair = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let set = KeySet::of_pem(&pair.public_key_pem(), &[Algorithm::RS256]).unwrap();
    let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
    let token = encode(&Header::new(Algorithm::PS256), &claims(), &key).unwrap();
    let only_rs256 = super::tests::access(vec![issuer(Algorithm::RS256, KeySource::Fixed(set))]);
    assert_eq!(cause(&only_rs256, &token), Some(Cause::Invalid));
    let of_other = KeyPair::generate().unwrap();
    let key = EncodingKey::from_ec_pem(of_other.serialize_pem().as_bytes()).unwrap();
    let token = encode(&Header::new(Algorithm::ES256), &claims(), &key).unwrap();
    assert_eq!(cause(&access, &token), Some(Cause::Invalid), "the key of another");
}

#[test]
fn header_leads_nowhere() {
    let access = hmac();
    let key = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
    let token = |change: &dyn Fn(&mut Header)| {
        let mut header = Header::new(Algorithm::HS256);
        change(&mut header);
        encode(&header, &claims(), &key).unwrap()
    };
    for kid in ["../../../dev/null", "' OR 1=1 --", "/etc/passwd", "\u{0}"] {
        assert_eq!(
            cause(&access, &token(&|header| header.kid = Some(kid.to_owned()))),
            None,
            "no name of a file: {kid}"
        );
    }
    let url = || Some("https://attacker.example.com/keys".to_owned());
    assert_eq!(cause(&access, &token(&|header| (header.jku, header.x5u) = (url(), url()))), None, "which is not read");
    for typ in ["JWT", "jwt", "application/at+jwt"] {
        assert_eq!(cause(&access, &token(&|header| header.typ = Some(typ.to_owned()))), None, "{typ}");
    }
    for typ in ["dpop+jwt", "secevent+jwt", "logout+jwt", "", "application/"] {
        let denied = cause(&access, &token(&|header| header.typ = Some(typ.to_owned())));
        assert_eq!(denied, Some(Cause::Invalid), "{typ}");
    }
    let critical = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for names in [&["exp"][..], &["x"], &[]] {
        // The header is signed as it stands: the library that signs here does not refuse it.
        let header = json!({"alg": "HS256", "crit": critical(names), "x": 1}).to_string();
        let parts = [header, claims().to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = jsonwebtoken::crypto::sign(parts.as_bytes(), &key, Algorithm::HS256).unwrap();
        assert_eq!(cause(&access, &format!("{parts}.{signature}")), Some(Cause::Invalid), "crit {names:?}");
    }
}

#[test]
fn claim_that_is_there_twice_is_refused() {
    let access = hmac();
    let key = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
    let sign = |claims: &str| {
        let parts = [r#"{"alg":"HS256"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = jsonwebtoken::crypto::sign(parts.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{parts}.{signature}")
    };
    let text = claims().to_string();
    assert_eq!(cause(&access, &sign(&text)), None);
    for member in [r#""sub":"admin""#, r#""aud":"tickcast""#, r#""tickcast":{"allow":[{"symbols":["*"]}]}"#] {
        let doubled = format!("{},{member}}}", &text[..text.len() - 1]);
        assert_eq!(cause(&access, &sign(&doubled)), Some(Cause::Invalid), "{member}");
    }
    let inside = text.replace(r#""products":["#, r#""products":[],"products":["#);
    assert_ne!(inside, text);
    assert_eq!(cause(&access, &sign(&inside)), Some(Cause::Rights));
}

#[test]
fn what_is_no_token_is_refused() {
    let access = hmac();
    let long = signed(&with(json!({"padding": "x".repeat(TOKEN_BYTES_MAX)})));
    assert_eq!(cause(&access, &long), Some(Cause::TooLong));
    let valid = signed(&claims());
    let cut = &valid[..valid.len() - 3];
    let swapped = valid.replacen('.', "..", 1);
    for text in
        ["", ".", "..", "...", "a.b.c", "tk_", cut, &swapped, &valid[1..], &format!("{valid} "), &format!("{valid}.x")]
    {
        assert_eq!(cause(&access, text), Some(Cause::Invalid), "{text}");
    }
    assert_eq!(access.authenticate(&[0xff, b'.', 0, b'.', 7], now()).unwrap_err().cause, Cause::Invalid);
    assert!(access.authenticate(&[b'.'; 3000], now()).is_err());
    let causes: Vec<_> = access.denied().collect();
    assert!(causes.contains(&(Cause::TooLong, 1)) && access.accepted() == 0, "{causes:?}");
}

#[test]
fn secrets_are_rotated_and_have_a_least_length() {
    let set =
        KeySet::of_secrets(&format!("another-secret-of-thirty-two-bytes-x\n{SECRET}\n"), &[Algorithm::HS256]).unwrap();
    assert_eq!(cause(&access(vec![issuer(Algorithm::HS256, KeySource::Fixed(set))]), &signed(&claims())), None);
    let problem = KeySet::of_secrets("short", &[Algorithm::HS256]).unwrap_err();
    assert!(problem.contains("a secret of 5 bytes: expected at least 32") && !problem.contains("short"), "{problem}");
    assert!(KeySet::of_secrets("\n", &[Algorithm::HS256]).unwrap_err().contains("no key"));
}

#[test]
fn pem_of_other_things_is_refused_with_what_is_expected() {
    let pair = KeyPair::generate().unwrap();
    for (pem, algorithm, message) in [
        (pair.serialize_pem(), Algorithm::ES256, "block 1 is \"PRIVATE KEY\": expected BEGIN PUBLIC KEY"),
        (
            pair.public_key_pem(),
            Algorithm::RS256,
            "key 1: a key for [ES256]: expected one for the configured algorithms [RS256]",
        ),
        (pair.public_key_pem(), Algorithm::ES384, "expected one for the configured algorithms [ES384]"),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_owned(),
            Algorithm::ES256,
            "key 1: not a public key",
        ),
        (String::new(), Algorithm::ES256, "no key"),
    ] {
        let problem = KeySet::of_pem(&pem, &[algorithm]).unwrap_err();
        assert!(problem.contains(message), "{problem}");
    }
}

#[test]
fn key_set_is_used_for_signatures_of_the_configured_algorithms_only() {
    let keys = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "enc", "use": "enc", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-384", "kid": "curve", "x": "AA", "y": "AA"},
        {"kty": "oct", "kid": "secret", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "alg": "HS256"},
        {"kty": "RSA", "kid": "short", "n": "AQAB", "e": "AQAB", "alg": "RS256"},
        {"kty": "EC", "crv": "P-256", "kid": "alg", "alg": "ES384", "x": "AA", "y": "AA"},
        {"kty": "later", "kid": "later"},
        {"kty": "EC", "crv": "P-256", "kid": "ops", "key_ops": ["deriveKey"], "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "kid": "used", "use": "sig", "alg": "ES256", "x": "AA", "y": "AA"},
    ]});
    let allowed = [Algorithm::ES256, Algorithm::RS256, Algorithm::HS256];
    let (set, unused) = KeySet::of_jwks(keys.to_string().as_bytes(), &allowed).unwrap();
    assert_eq!((set.len(), unused), (1, 7));
    for (text, message) in [
        ("{}", "missing field `keys`"),
        ("<html>", "expected {\"keys\":[…]}"),
        (r#"{"keys":[]}"#, "no key for the configured algorithms"),
        (&json!({"keys": vec![json!({}); 65]}).to_string(), "65 keys: expected at most 64"),
    ] {
        let problem = KeySet::of_jwks(text.as_bytes(), &allowed).unwrap_err();
        assert!(problem.contains(message), "{problem}");
    }
}

#[test]
fn issuer_whose_keys_were_never_read_is_unavailable_and_no_other_answers_for_it() {
    let address =
        crate::ingest::transport::address::Address::parse("https://id.example.com/keys", rest_schemes()).unwrap();
    let waiting = issuer(Algorithm::HS256, KeySource::Url { address, ca_file: None });
    let other = IssuerSettings {
        iss: "https://other.example.com".to_owned(),
        user_prefix: "other:".to_owned(),
        ..issuer(Algorithm::HS256, KeySource::Fixed(KeySet::of_secrets(SECRET, &[Algorithm::HS256]).unwrap()))
    };
    let access = access(vec![waiting, other]);
    assert_eq!(cause(&access, &signed(&claims())), Some(Cause::Unavailable));
    assert_eq!(access.without_keys(now().ns), ["test"]);
    let token = signed(&with(json!({"iss": "https://other.example.com"})));
    assert_eq!(&*access.authenticate(token.as_bytes(), now()).unwrap().user, "other:u-17");
}

fn rest_schemes() -> [&'static str; 2] {
    crate::ingest::transport::rest::SCHEMES
}

#[test]
fn revoked_token_and_user_are_refused_and_later_tokens_are_not() {
    let access = hmac();
    let revocation = |json: &str| serde_json::from_str::<Revocation>(json).unwrap();
    access.revoke(revocation(r#"{"jti":"t1"}"#), now()).unwrap();
    assert_eq!(cause(&access, &signed(&claims())), Some(Cause::Revoked));
    assert_eq!(cause(&access, &signed(&with(json!({"jti": "t2"})))), None);
    access.revoke(revocation(r#"{"user":"u-17"}"#), now()).unwrap();
    assert_eq!(cause(&access, &signed(&with(json!({"jti": "t2"})))), Some(Cause::Revoked));
    assert_eq!(cause(&access, &signed(&with(json!({"jti": "t2", "iat": NOW_S + 1})))), None);
    assert_eq!(cause(&access, &signed(&with(json!({"jti": "t2", "sub": "u-18"})))), None);
    assert_eq!(access.revoked().entries().len(), 2);
}

#[test]
fn token_says_how_many_sessions_and_who_is_professional() {
    let contract = |rights: Value| {
        let token = signed(&with(json!({"tickcast": rights})));
        hmac().authenticate(token.as_bytes(), now()).map(|principal| principal.contract.clone())
    };
    let said = contract(json!({"products": ["L1"], "max_connections": 2, "professional": true})).unwrap();
    assert_eq!((said.sessions_max, said.professional, &*said.products), (Some(2), Some(true), &["L1".into()][..]));
    assert_eq!(contract(json!({"products": ["L1"]})).unwrap().sessions_max, Some(4), "as its issuer");
    for wrong in [json!({"max_connections": 0}), json!({"max_connections": "2"}), json!({"professional": 1})] {
        assert_eq!(contract(wrong).unwrap_err().cause, Cause::Rights);
    }
}

#[test]
fn session_limit_is_that_of_the_token_or_of_the_server() {
    let sessions = SessionSettings { per_user_max: 1, policy: SessionPolicy::RefuseNew };
    let access = Access::new(AccessSettings { sessions, ..Default::default() }, None, now()).unwrap();
    let orders = Arc::default();
    let of = |kind, sessions_max| {
        let principal = Principal::new(kind, "u", Arc::new(crate::identity::Rights::none()));
        Principal { contract: crate::identity::Contract { sessions_max, ..Default::default() }, ..principal }
    };
    let first = access.begin_session(&of(Kind::Token, None), &orders, 0).unwrap();
    assert_eq!(access.begin_session(&of(Kind::ApiKey, None), &orders, 0).unwrap_err().max, 1);
    let second = access.begin_session(&of(Kind::Token, Some(2)), &orders, 0).unwrap();
    assert!(first.is_some() && second.is_some());
    assert!(access.begin_session(&of(Kind::Anonymous, None), &orders, 0).unwrap().is_none(), "it is no user");
}

#[test]
fn without_settings_all_clients_see_everything() {
    let access = Access::new(AccessSettings::default(), None, now()).unwrap();
    assert!(!access.is_on() && access.anonymous().unwrap().may_see("user/a/x", Channel::Quote, 0));
    let anonymous = AccessSettings { anonymous: Some(RightsText::default()), ..Default::default() };
    let access = Access::new(anonymous, None, now()).unwrap();
    assert!(access.is_on() && !access.anonymous().unwrap().may_see("A", Channel::Quote, 0));
    assert!(hmac().anonymous().is_none());
}

#[test]
fn kept_token_counts_until_it_expires_or_is_the_oldest_of_too_many() {
    let keys = || KeySource::Fixed(KeySet::of_secrets(SECRET, &[Algorithm::HS256]).unwrap());
    let issuers = vec![issuer(Algorithm::HS256, keys())];
    let settings = AccessSettings {
        issuers,
        limits: settings::AccessLimits { accepted_tokens_max: 2, ..Default::default() },
        ..AccessSettings::default()
    };
    let access = Access::new(settings, None, now()).unwrap();
    let plain = |jti: &str| signed(&with(json!({ "jti": jti, "tickcast": {} })));
    let at = |wall_s| Now { wall_s, ..now() };
    let (one, expiry_s) = (plain("1"), NOW_S + 600);
    for (wall_s, is_accepted) in [(NOW_S, true), (expiry_s + 29, true), (expiry_s + 31, false)] {
        assert_eq!(access.authenticate(one.as_bytes(), at(wall_s)).is_ok(), is_accepted, "{wall_s}");
    }
    assert_eq!(access.kept_tokens(), (1, 1), "it was found once");
    for jti in ["2", "3", "1"] {
        assert!(access.authenticate(plain(jti).as_bytes(), now()).is_ok());
    }
    assert_eq!(access.kept_tokens(), (2, 1), "the first had made room for the third");
    assert!(access.authenticate(plain("1").as_bytes(), now()).is_ok());
    assert_eq!(access.kept_tokens(), (2, 2));
}
