//! Who may connect: the tables `[[issuer]]`, `[[product]]` and `[anonymous]` of the file, and the files of keys.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{ConfigError, IssuerEntry, Layer, ProductEntry};
use crate::access::{
    ALGORITHMS, ANSWER_BYTES_MAX, AccessLimits, AccessSettings, Algorithm, ApiKeys, AuthorizerSettings, IssuerSettings,
    KeySet, KeySource, SessionPolicy, SessionSettings,
};
use crate::identity::{Product, Products, Rights};
use crate::ingest::transport::address::Address;
use crate::ingest::transport::post::PostServer;
use crate::ingest::transport::rest;
use crate::tls::{Connector, Roots};

/// Issuers at the most.
const ISSUERS_MAX: usize = 64;
/// Bytes of the longest file of keys.
const KEY_FILE_BYTES_MAX: u64 = 64 << 20;

/// True if clients are identified.
pub(super) fn has_access(layer: &Layer) -> bool {
    !layer.issuer.is_empty()
        || layer.api_keys_file.is_some()
        || layer.authorizer_url.is_some()
        || layer.anonymous.is_some()
}

/// All settings of access.
pub(super) fn resolve_access(layer: &Layer) -> Result<AccessSettings, ConfigError> {
    let products = resolve_products(&layer.product)?;
    let mut source = format!("{:?}{:?}{:?}", layer.issuer, layer.product, layer.anonymous);
    let mut issuers = Vec::new();
    for entry in &layer.issuer {
        issuers.push(resolve_issuer(entry, &products, &mut source)?);
    }
    check_together(&issuers)?;
    let api_keys = match &layer.api_keys_file {
        None => ApiKeys::default(),
        Some(path) => {
            let text = read(path).map_err(|problem| value("api_keys_file", problem))?;
            let keys = ApiKeys::parse(&text, &products);
            let keys = keys.map_err(|problem| value("api_keys_file", format!("{}: {problem}", path.display())))?;
            if keys.is_empty() {
                return Err(value("api_keys_file", format!("{}: no key: expected [[key]]", path.display())));
            }
            source += &text;
            keys
        }
    };
    let authorizer = resolve_authorizer(layer, &mut source)?;
    if let Some(rights) = &layer.anonymous {
        rights.resolve(&products).map_err(|problem| value("anonymous", problem))?;
        if rights.max_connections.is_some() || rights.professional.is_some() {
            let problem = "max_connections or professional: clients without a credential are no user: expected \
                           connections_per_address_max";
            return Err(value("anonymous", problem.to_owned()));
        }
    }
    let jwks_refresh_s = within("jwks_refresh_s", layer.jwks_refresh_s, 300, 30, 86_400)?;
    let jwks_stale_max_s = within("jwks_stale_max_s", layer.jwks_stale_max_s, 3600, 60, 604_800)?;
    if jwks_stale_max_s < jwks_refresh_s {
        let problem =
            format!("{jwks_stale_max_s} is less than jwks_refresh_s {jwks_refresh_s}: expected as much or more");
        return Err(value("jwks_stale_max_s", problem));
    }
    let policy = layer.session_policy.as_deref().map_or(Ok(SessionPolicy::default()), SessionPolicy::parse);
    let policy = policy.map_err(|problem| value("session_policy", problem))?;
    let per_user_max = layer.sessions_per_user_max.unwrap_or(0);
    source += &format!("{per_user_max} {policy:?} ");
    let of_default = AccessLimits::default();
    let (tokens, sets) = (of_default.accepted_tokens_max as u64, of_default.entitlement_sets_max as u64);
    let limits = AccessLimits {
        accepted_tokens_max: within("accepted_tokens_max", layer.accepted_tokens_max, tokens, 0, 10_000_000)? as usize,
        entitlement_sets_max: within("entitlement_sets_max", layer.entitlement_sets_max, sets, 1, 100_000)? as usize,
    };
    source +=
        &format!("{limits:?} {jwks_refresh_s} {jwks_stale_max_s} {:?} {:?}", layer.token_cookie, layer.token_in_query);
    Ok(AccessSettings {
        issuers,
        api_keys,
        authorizer,
        products,
        anonymous: layer.anonymous.clone(),
        cookie: resolve_cookie(layer.token_cookie.as_deref())?,
        in_query: layer.token_in_query.unwrap_or(false),
        sessions: SessionSettings { per_user_max, policy },
        source,
        jwks_refresh_s,
        jwks_stale_max_s,
        limits,
    })
}

/// The server that is asked about other credentials.
fn resolve_authorizer(layer: &Layer, source: &mut String) -> Result<Option<AuthorizerSettings>, ConfigError> {
    let timeout_ms = u64::from(layer.authorizer_timeout_ms.unwrap_or(1000));
    let timeout_ms = within("authorizer_timeout_ms", Some(timeout_ms), 1000, 10, 10_000)?;
    let requests_max = within("authorizer_requests_max", layer.authorizer_requests_max, 256, 1, 65_536)?;
    let cache_s = within("authorizer_cache_s", layer.authorizer_cache_s, 60, 0, 86_400)?;
    let Some(url) = &layer.authorizer_url else {
        return match layer.authorizer_ca_file {
            Some(_) => Err(value("authorizer_ca_file", "expected with authorizer_url only".to_owned())),
            None => Ok(None),
        };
    };
    let address = encrypted(url).map_err(|problem| value("authorizer_url", problem))?;
    let roots = layer.authorizer_ca_file.clone().map_or(Roots::System, Roots::File);
    let connector = Connector::new(&roots).map_err(|error| value("authorizer_ca_file", error.to_string()))?;
    // The authorities may be others in the same file.
    let authorities = layer.authorizer_ca_file.as_deref().map(read).transpose();
    let authorities = authorities.map_err(|problem| value("authorizer_ca_file", problem))?;
    *source += &format!("{url} {authorities:?} {timeout_ms} {requests_max} {cache_s} ");
    let server = PostServer::new(address, connector, Duration::from_millis(timeout_ms), ANSWER_BYTES_MAX);
    Ok(Some(AuthorizerSettings { server: Arc::new(server), requests_max: requests_max as usize, cache_s }))
}

/// The address of a URL that tokens or keys may be sent to or come from.
fn encrypted(url: &str) -> Result<Address, String> {
    let address = Address::parse(url, rest::SCHEMES)?;
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    let is_local = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if !address.is_secure && !is_local {
        return Err(format!("{url:?} is not encrypted: expected https, or a loopback address"));
    }
    Ok(address)
}

/// The name of the cookie with a token.
fn resolve_cookie(given: Option<&str>) -> Result<Option<String>, ConfigError> {
    let Some(name) = given else { return Ok(None) };
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_token) {
        let problem = format!("invalid name {name:?}: expected one of a cookie, such as __Host-token");
        return Err(value("token_cookie", problem));
    }
    Ok(Some(name.to_owned()))
}

fn resolve_products(entries: &[ProductEntry]) -> Result<Products, ConfigError> {
    let mut products = Products::new();
    for ProductEntry { name, rights } in entries {
        let of = |problem: &str| value("product", format!("{name:?}: {problem}"));
        if name.is_empty() || name.len() > 64 {
            return Err(of("name: expected 1 to 64 bytes"));
        }
        if !rights.products.is_empty() {
            return Err(of("products: a product has no products: expected allow and deny"));
        }
        if rights.professional.is_some() {
            return Err(of("professional: a user is professional, and no product: expected it in the token"));
        }
        let sessions_max = rights.contract(&Products::new(), None).map_err(|problem| of(&problem))?.sessions_max;
        let rules = rights.rules().map_err(|problem| of(&problem))?;
        if rules.is_empty() || rules.len() > Rights::RULES_MAX {
            return Err(of(&format!("{} rules: expected 1 to {} in allow and deny", rules.len(), Rights::RULES_MAX)));
        }
        if products.insert(name.clone(), Product { rules, sessions_max }).is_some() {
            return Err(of("the name is given twice: expected each once"));
        }
    }
    Ok(products)
}

fn resolve_issuer(
    entry: &IssuerEntry,
    products: &Products,
    source: &mut String,
) -> Result<IssuerSettings, ConfigError> {
    let of = |problem: String| value("issuer", format!("{:?}: {problem}", entry.name));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if entry.name.is_empty() || entry.name.len() > 64 || !entry.name.bytes().all(is_name) {
        return Err(of("name: expected 1 to 64 ASCII letters, digits, -, _ and .".to_owned()));
    }
    for (key, is_empty) in [
        ("iss", entry.iss.is_empty()),
        ("audience", entry.audience.is_empty() || entry.audience.iter().any(String::is_empty)),
        ("algorithms", entry.algorithms.is_empty()),
        ("types", entry.types.as_ref().is_some_and(Vec::is_empty)),
    ] {
        if is_empty {
            return Err(of(format!("{key}: empty: expected at least one")));
        }
    }
    let algorithms = entry.algorithms.iter().map(|name| {
        let known = ALGORITHMS.iter().find(|(known, _)| known == name);
        known.map(|(_, algorithm)| *algorithm).ok_or_else(|| {
            let names = ALGORITHMS.map(|(name, _)| name).join(", ");
            of(format!("algorithms: unknown algorithm {name:?}: expected some of {names}"))
        })
    });
    let algorithms: Vec<_> = algorithms.collect::<Result<_, _>>()?;
    let has_secret = algorithms.contains(&Algorithm::HS256);
    if has_secret && algorithms.len() > 1 {
        return Err(of("algorithms: HS256 beside others: expected either a shared secret or public keys".to_owned()));
    }
    if has_secret != entry.secret_file.is_some() {
        return Err(of("secret_file: expected with HS256, and not without".to_owned()));
    }
    let keys = resolve_keys(entry, &algorithms, source).map_err(of)?;
    let rights = entry.rights.clone().unwrap_or_default();
    rights.resolve(products).map_err(|problem| of(format!("rights: {problem}")))?;
    rights.contract(products, None).map_err(|problem| of(format!("rights: {problem}")))?;
    if entry.max_connections == Some(0) {
        return Err(of("max_connections: 0 is out of range: expected 1 or more".to_owned()));
    }
    let user_prefix = entry.user_prefix.clone().unwrap_or_default();
    let stem = user_prefix.strip_suffix(':').unwrap_or(&user_prefix);
    if !user_prefix.is_empty() && (stem.is_empty() || stem == user_prefix || !stem.bytes().all(is_name)) {
        return Err(of(format!("user_prefix: invalid prefix {user_prefix:?}: expected one such as \"acme:\"")));
    }
    let types = entry.types.clone().unwrap_or_else(|| ["JWT", "at+jwt"].map(str::to_owned).to_vec());
    Ok(IssuerSettings {
        name: entry.name.clone(),
        iss: entry.iss.clone(),
        audiences: entry.audience.clone(),
        algorithms,
        keys,
        user_prefix,
        rights_claim: entry.rights_claim.clone().unwrap_or_else(|| "tickcast".to_owned()),
        rights,
        types,
        leeway_s: within("issuer", entry.leeway_s, 30, 0, 300)
            .map_err(|_| of("leeway_s: expected 0 to 300".to_owned()))?,
        lifetime_max_s: within("issuer", entry.lifetime_max_s, 86_400, 60, 31_622_400)
            .map_err(|_| of("lifetime_max_s: expected 60 to 31622400".to_owned()))?,
        sessions_max: entry.max_connections,
    })
}

fn resolve_keys(entry: &IssuerEntry, algorithms: &[Algorithm], source: &mut String) -> Result<KeySource, String> {
    let given =
        [entry.jwks_url.is_some(), entry.jwks_file.is_some(), entry.key_file.is_some(), entry.secret_file.is_some()];
    if given.iter().filter(|is_given| **is_given).count() != 1 {
        return Err("keys: expected one of jwks_url, jwks_file, key_file and secret_file".to_owned());
    }
    if entry.ca_file.is_some() && entry.jwks_url.is_none() {
        return Err("ca_file: expected with jwks_url only".to_owned());
    }
    if let Some(url) = &entry.jwks_url {
        let address = encrypted(url).map_err(|problem| format!("jwks_url: {problem}"))?;
        return Ok(KeySource::Url { address, ca_file: entry.ca_file.clone() });
    }
    let path = entry.jwks_file.as_ref().or(entry.key_file.as_ref()).or(entry.secret_file.as_ref());
    let Some(path) = path else { return Err("keys: missing".to_owned()) };
    let text = read(path)?;
    let set = if entry.jwks_file.is_some() {
        KeySet::of_jwks(text.as_bytes(), algorithms).map(|(set, _)| set)
    } else if entry.key_file.is_some() {
        KeySet::of_pem(&text, algorithms)
    } else {
        KeySet::of_secrets(&text, algorithms)
    };
    // Only whether it has changed is of interest. The text is not kept: it may be a secret.
    let hash = std::hash::BuildHasher::hash_one(&foldhash::quality::FixedState::with_seed(0), &text);
    *source += &format!("{hash:x}");
    set.map(KeySource::Fixed).map_err(|problem| format!("{}: {problem}", path.display()))
}

/// Checks what concerns several issuers.
fn check_together(issuers: &[IssuerSettings]) -> Result<(), ConfigError> {
    if issuers.len() > ISSUERS_MAX {
        return Err(value("issuer", format!("{} issuers: expected at most {ISSUERS_MAX}", issuers.len())));
    }
    for (nth, issuer) in issuers.iter().enumerate() {
        let of = |problem: String| value("issuer", format!("{:?}: {problem}", issuer.name));
        for before in &issuers[..nth] {
            if before.name == issuer.name || before.iss == issuer.iss {
                return Err(of(format!(
                    "name and iss: one of them is also that of {:?}: expected each once",
                    before.name
                )));
            }
            if before.user_prefix == issuer.user_prefix {
                return Err(of(format!(
                    "user_prefix: also that of {:?}, whose users could be taken for these: expected one of its own, such as \
                     \"{}:\"",
                    before.name, issuer.name
                )));
            }
        }
        if issuers.len() > 1 && issuer.user_prefix.is_empty() {
            return Err(of("user_prefix: missing: expected one for each of several issuers".to_owned()));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    let problem = |problem: String| format!("cannot read {}: {problem}", path.display());
    let bytes = std::fs::metadata(path).map_err(|error| problem(error.to_string()))?.len();
    if bytes > KEY_FILE_BYTES_MAX {
        return Err(problem(format!("{bytes} bytes: expected at most {KEY_FILE_BYTES_MAX}")));
    }
    std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))
}

fn within(setting: &'static str, given: Option<u64>, default: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
    let given = given.unwrap_or(default);
    if (least..=most).contains(&given) {
        return Ok(given);
    }
    Err(value(setting, format!("{given} is out of range: expected {least} to {most}")))
}

fn value(setting: &'static str, problem: String) -> ConfigError {
    ConfigError::Value { setting, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(toml: &str) -> Result<AccessSettings, String> {
        let layer: Layer = toml::from_str(toml).map_err(|error| error.to_string())?;
        resolve_access(&layer).map_err(|error| error.to_string())
    }

    fn issuer(name: &str, more: &str) -> String {
        format!(
            "[[issuer]]\nname = '{name}'\niss = 'https://{name}.example.com'\naudience = ['tickcast']\n\
             algorithms = ['RS256', 'ES256']\njwks_url = 'https://{name}.example.com/jwks'\n{more}\n"
        )
    }

    #[test]
    fn missing_settings_have_defaults_and_products_are_resolved() {
        assert!(!resolve("").unwrap().is_on());
        let access = resolve(&issuer(
            "a",
            "rights.products = ['L1']\n[[product]]\nname = 'L1'\nrights.allow = [{ symbols = ['*'] }]",
        ))
        .unwrap();
        let issuer = &access.issuers[0];
        assert!(access.is_on() && matches!(issuer.keys, KeySource::Url { .. }));
        assert_eq!((issuer.leeway_s, issuer.lifetime_max_s, issuer.rights_claim.as_str()), (30, 86_400, "tickcast"));
        assert!(resolve("[anonymous]").unwrap().is_on(), "nothing for those without a credential");
        let authorizer = "authorizer_url = 'http://127.0.0.1:9/a'";
        assert!(resolve(authorizer).unwrap().is_on());
        assert_eq!(resolve(authorizer).unwrap(), resolve(authorizer).unwrap());
        assert_ne!(resolve(authorizer).unwrap(), resolve(&format!("{authorizer}\nauthorizer_cache_s = 1")).unwrap());
        let two = issuer_pair("user_prefix = 'a:'", "user_prefix = 'b:'");
        assert_eq!(resolve(&two).unwrap().issuers.len(), 2);
        assert_ne!(resolve(&two).unwrap(), resolve(&issuer_pair("user_prefix = 'a:'", "user_prefix = 'c:'")).unwrap());
    }

    fn issuer_pair(one: &str, other: &str) -> String {
        issuer("a", one) + &issuer("b", other)
    }

    #[test]
    fn errors_name_the_table_and_what_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let secret = path("secret", "short-secret\n");
        let with_secret = format!(
            "[[issuer]]\nname = 'a'\niss = 'a'\naudience = ['t']\nalgorithms = ['HS256']\nsecret_file = '{secret}'"
        );
        let keys = path("keys", "[[key]]\nuser = 'a'\nsha256 = 'x'\n");
        for (toml, message) in [
            (issuer("a b", ""), "issuer: \"a b\": name: expected 1 to 64 ASCII"),
            (issuer("a", "").replace("'tickcast'", ""), "audience: empty"),
            (issuer("a", "").replace("'RS256'", "'none'"), "unknown algorithm \"none\": expected some of HS256, RS256"),
            (issuer("a", "").replace("'RS256'", "'HS256'"), "HS256 beside others"),
            (
                issuer("a", "").replace("https://a.example.com/jwks", "http://a.example.com/jwks"),
                "is not encrypted: expected https",
            ),
            (issuer("a", "").replace("https://a.example.com/jwks", "file:///etc/passwd"), "jwks_url: invalid URL"),
            (issuer("a", "key_file = 'x'"), "expected one of jwks_url, jwks_file, key_file and secret_file"),
            (issuer("a", "secret_file = 'x'"), "secret_file: expected with HS256, and not without"),
            (issuer("a", "audiences = ['x']"), "unknown field `audiences`"),
            (issuer("a", "leeway_s = 301"), "leeway_s: expected 0 to 300"),
            (issuer("a", "user_prefix = 'a'"), "user_prefix: invalid prefix \"a\""),
            (issuer("a", "rights.products = ['L1']"), "rights: products: unknown product \"L1\""),
            (issuer_pair("", ""), "user_prefix: missing"),
            (issuer_pair("user_prefix = 'x:'", "user_prefix = 'x:'"), "user_prefix: also that of \"a\""),
            (issuer_pair("user_prefix = 'a:'", ""), "user_prefix: missing"),
            (issuer("a", "user_prefix = 'a:'") + &issuer("a", "user_prefix = 'b:'"), "expected each once"),
            (with_secret.clone(), "a secret of 12 bytes: expected at least 32"),
            (with_secret.replace(&secret, "/no/such"), "cannot read /no/such"),
            ("[[product]]\nname = 'a'".to_owned(), "product: \"a\": 0 rules"),
            ("[[product]]\nname = 'a'\nrights.products = ['b']".to_owned(), "a product has no products"),
            ("[anonymous]\nallow = [{ symbols = ['*A'] }]".to_owned(), "anonymous: allow[0]: symbols"),
            (format!("api_keys_file = '{keys}'"), "keys: key 1 of user \"a\": sha256: expected 64"),
            (format!("api_keys_file = '{}'", path("none", "")), "no key: expected [[key]]"),
            (issuer("a", "max_connections = 0"), "max_connections: 0 is out of range: expected 1 or more"),
            ("[[product]]\nname = 'a'\nrights.max_connections = 0".to_owned(), "max_connections: 0 is out of range"),
            ("[[product]]\nname = 'a'\nrights.professional = true".to_owned(), "expected it in the token"),
            ("[anonymous]\nmax_connections = 1".to_owned(), "expected connections_per_address_max"),
            (
                "session_policy = 'kick'".to_owned(),
                "session_policy: unknown policy \"kick\": expected end_oldest or refuse_new",
            ),
            ("jwks_refresh_s = 1".to_owned(), "jwks_refresh_s: 1 is out of range"),
            ("jwks_stale_max_s = 100".to_owned(), "jwks_stale_max_s: 100 is less than jwks_refresh_s 300"),
        ] {
            let error = resolve(&toml).unwrap_err();
            assert!(error.contains(message) && !error.contains("short-secret"), "{toml}: {error}");
        }
        for http in ["http://127.0.0.1:9/jwks", "http://[::1]:9/jwks", "http://localhost:9/jwks"] {
            resolve(&issuer("a", "").replace("https://a.example.com/jwks", http)).unwrap();
        }
        assert!(resolve_cookie(Some("a b")).is_err() && resolve_cookie(Some("__Host-token")).is_ok());
    }

    #[test]
    fn authorizer_is_encrypted_and_its_limits_have_ranges() {
        for (toml, message) in [
            (
                "authorizer_url = 'http://a.example.com/x'",
                "authorizer_url: \"http://a.example.com/x\" is not encrypted",
            ),
            ("authorizer_url = 'https://u:secret@a.example.com'", "authorizer_url: invalid URL: a user is not"),
            ("authorizer_url = 'https://a.example.com/?key=x'", "a query is not allowed"),
            ("authorizer_ca_file = '/no/such'", "authorizer_ca_file: expected with authorizer_url only"),
            (
                "authorizer_url = 'https://a.example.com'\nauthorizer_ca_file = '/no/such'",
                "authorizer_ca_file: /no/such: ",
            ),
            ("authorizer_timeout_ms = 9", "authorizer_timeout_ms: 9 is out of range: expected 10 to 10000"),
            ("authorizer_requests_max = 0", "authorizer_requests_max: 0 is out of range: expected 1 to 65536"),
            ("authorizer_cache_s = 86401", "authorizer_cache_s: 86401 is out of range: expected 0 to 86400"),
        ] {
            let error = resolve(toml).unwrap_err();
            assert!(error.contains(message) && !error.contains("secret"), "{toml}: {error}");
        }
        for local in ["http://127.0.0.1:9/a", "http://[::1]:9", "http://localhost:9/a", "https://a.example.com/a"] {
            let access = resolve(&format!("authorizer_url = '{local}'")).unwrap();
            assert_eq!(access.authorizer.map(|authorizer| authorizer.requests_max), Some(256), "{local}");
        }
    }
}
