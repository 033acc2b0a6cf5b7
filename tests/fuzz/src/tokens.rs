//! Tokens: any bytes, and headers and claims that are signed with the right secret, so that what is behind the signature is
//! reached. What is accepted is compared with a second reading of the claims, by serde_json.
//!
//! Input: a byte; then, if its lowest bit is 0, a token; else the text of a header, a line feed, and the text of claims.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use serde_json::value::RawValue;
use tickcast::access::{Access, AccessSettings, Algorithm, IssuerSettings, KeySet, KeySource, Now};
use tickcast::identity::{Product, Products, RightsText};
use tickcast_protocol::Channel;

use super::Script;

const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";
const NOW_S: u64 = 1_796_000_000;
const LEEWAY_S: u64 = 30;
const LIFETIME_MAX_S: u64 = 86_400;

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let is_signed = script.byte() & 1 == 1;
    let now = Now { wall_s: NOW_S, ns: 1_000_000_000 };
    let access = access();
    if !is_signed {
        let refused = access.authenticate(script.rest, now).expect_err("nobody has signed it");
        assert!(refused.detail.len() < 16 << 10, "{refused:?}");
        return;
    }
    let at = script.rest.iter().position(|byte| *byte == b'\n').unwrap_or(script.rest.len());
    let (header, claims) = script.rest.split_at(at);
    let claims = claims.get(1..).unwrap_or_default();
    let token = signed(header, claims);
    let first = access.authenticate(token.as_bytes(), now);
    if let Ok(principal) = &first {
        let again = access.authenticate(token.as_bytes(), now).expect("it was accepted before");
        assert_eq!(*again, **principal);
        check(header, claims, &principal.user);
        assert!(!principal.may_see("user/other/x", Channel::Quote, 0));
    }
}

fn access() -> Access {
    let allow = tickcast::identity::AllowText { symbols: vec!["EQ-*".to_owned()], ..Default::default() };
    let product = RightsText { allow: vec![allow], ..RightsText::default() };
    let algorithms = vec![Algorithm::HS256];
    let keys = KeySource::Fixed(KeySet::of_secrets(SECRET, &algorithms).expect("a secret"));
    let issuer = IssuerSettings {
        name: "test".to_owned(),
        iss: "i".to_owned(),
        audiences: vec!["a".to_owned()],
        algorithms,
        keys,
        user_prefix: String::new(),
        rights_claim: "tickcast".to_owned(),
        rights: RightsText::default(),
        types: vec!["JWT".to_owned()],
        leeway_s: LEEWAY_S,
        lifetime_max_s: LIFETIME_MAX_S,
        sessions_max: None,
    };
    let product = Product { rules: product.rules().expect("rules"), ..Product::default() };
    let products = Products::from([("P".to_owned(), product)]);
    let settings = AccessSettings { issuers: vec![issuer], products, ..AccessSettings::default() };
    Access::new(settings, None, Now { wall_s: NOW_S, ns: 0 }).expect("valid settings")
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// What must be so in a token that was accepted.
fn check(header: &[u8], claims: &[u8], user: &str) {
    let (header, claims) = (Members::of(header), Members::of(claims));
    assert_eq!(header.get("alg"), "HS256", "{header:?}");
    assert!(!header.0.contains_key("crit"), "{header:?}");
    assert_eq!((claims.get("iss").as_str(), claims.get("sub").as_str()), (Some("i"), Some(user)), "{claims:?}");
    let is_audience = |value: &Value| value == "a";
    let audiences = claims.get("aud");
    assert!(
        is_audience(&audiences) || audiences.as_array().is_some_and(|all| all.iter().any(is_audience)),
        "{claims:?}"
    );
    let time = |name: &str| claims.get(name).as_f64();
    let expires_s = time("exp").expect("a time");
    assert!(expires_s + LEEWAY_S as f64 + 1.0 > NOW_S as f64, "{claims:?}");
    for name in ["nbf", "iat"] {
        assert!(time(name).is_none_or(|at_s| at_s < (NOW_S + LEEWAY_S + 1) as f64), "{name}: {claims:?}");
    }
    assert!(expires_s - time("iat").unwrap_or(NOW_S as f64) < LIFETIME_MAX_S as f64 + 2.0, "{claims:?}");
}

/// The members of an object. Those that are not asked for may be what [`Value`] cannot hold, such as the number 1e999: a
/// reader skips a claim that it does not know (RFC 7519, section 4).
#[derive(Debug)]
struct Members(BTreeMap<String, Box<RawValue>>);

impl Members {
    fn of(text: &[u8]) -> Self {
        Self(serde_json::from_slice(text).expect("it was read"))
    }

    /// Null where there is none.
    fn get(&self, name: &str) -> Value {
        self.0.get(name).map_or(Value::Null, |text| serde_json::from_str(text.get()).expect("it was read"))
    }
}
