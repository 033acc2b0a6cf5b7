//! The identities of publishers: the single token, and the tables `[[publisher]]` of the file.

use std::path::Path;

use super::{ConfigError, Layer, PublisherEntry};
use crate::auth::Token;
use crate::ingest::{DEFAULT_IDENTITY, IdentitySettings, NamePattern, PaceSettings};
use crate::sequencer::OwnerLimits;

/// Identities at the most.
const IDENTITIES_MAX: usize = 1000;
/// Tokens of one identity at the most: the old ones and the new ones of a rotation.
const TOKENS_MAX: usize = 8;
const SETTING: &str = "publisher";

/// The tokens of one setting, given or in a file.
pub(super) fn resolve_tokens(
    setting: &'static str,
    given: Option<&str>,
    file: Option<&Path>,
) -> Result<Vec<Token>, ConfigError> {
    let invalid = |problem: String| ConfigError::Value { setting, problem };
    let mut tokens = Vec::new();
    if let Some(text) = given {
        tokens.push(Token::new(text).map_err(invalid)?);
    }
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| invalid(format!("cannot read the file of tokens {}: {error}", path.display())))?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            tokens.push(Token::new(line).map_err(|problem| invalid(format!("{}: {problem}", path.display())))?);
        }
        if tokens.is_empty() {
            return Err(invalid(format!("{}: no token: expected one a line", path.display())));
        }
    }
    if tokens.len() > TOKENS_MAX {
        return Err(invalid(format!("{} tokens: expected at most {TOKENS_MAX}", tokens.len())));
    }
    Ok(tokens)
}

/// The names of client certificates of operators.
pub(super) fn resolve_operator_certificates(layer: &Layer) -> Result<Vec<String>, ConfigError> {
    let names = layer.operator_certificates.as_deref().unwrap_or_default().split(',').map(str::trim);
    let names: Vec<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    check_authority(layer, "operator_certificates", !names.is_empty())?;
    Ok(names)
}

/// Certificates of clients are verified by `tls_client_ca` alone.
fn check_authority(layer: &Layer, setting: &'static str, has_names: bool) -> Result<(), ConfigError> {
    if !has_names || layer.tls_client_ca.is_some() {
        return Ok(());
    }
    let problem =
        "names of client certificates without tls_client_ca: expected the authorities of these certificates".to_owned();
    Err(ConfigError::Value { setting, problem })
}

/// All identities: that of the single token, then those of the tables. `limits` and `pace` are the defaults.
pub(super) fn resolve_identities(
    layer: &Layer,
    limits: OwnerLimits,
    pace: PaceSettings,
) -> Result<Vec<IdentitySettings>, ConfigError> {
    let mut identities = Vec::new();
    let tokens = resolve_tokens("publish_token", layer.publish_token.as_deref(), layer.publish_token_file.as_deref())?;
    if !tokens.is_empty() {
        let (name, owner) = (DEFAULT_IDENTITY.to_owned(), DEFAULT_IDENTITY.to_owned());
        let (certificates, symbols, venues) = (Vec::new(), Vec::new(), Vec::new());
        let priority = 0;
        identities.push(IdentitySettings {
            name,
            owner,
            priority,
            tokens,
            certificates,
            symbols,
            venues,
            limits,
            pace,
        });
    }
    let has_names = layer.publisher.iter().any(|entry| entry.certificate_names.is_some());
    check_authority(layer, SETTING, has_names)?;
    for entry in &layer.publisher {
        identities.push(resolve_entry(entry, limits, pace)?);
    }
    check_together(&identities)?;
    Ok(identities)
}

fn resolve_entry(
    entry: &PublisherEntry,
    limits: OwnerLimits,
    pace: PaceSettings,
) -> Result<IdentitySettings, ConfigError> {
    let name = entry.name.clone();
    if name.is_empty()
        || name.len() > 64
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    {
        return Err(invalid(&name, "name: expected 1 to 64 ASCII letters, digits, -, _ and ."));
    }
    let of_entry = |error: ConfigError| match error {
        ConfigError::Value { problem, .. } => invalid(&name, &format!("token: {problem}")),
        other => other,
    };
    let tokens = resolve_tokens(SETTING, entry.token.as_deref(), entry.token_file.as_deref()).map_err(of_entry)?;
    let certificates = entry.certificate_names.clone().unwrap_or_default();
    if tokens.is_empty() && certificates.is_empty() {
        return Err(invalid(&name, "no token: expected token_file, token or certificate_names"));
    }
    let is_backup = entry.backup_of.is_some();
    let priority = entry.priority.unwrap_or(u8::from(is_backup));
    if is_backup != (priority > 0) || priority > 100 {
        return Err(invalid(
            &name,
            "priority: expected 0 for a publisher without backup_of, and 1 to 100 for one with it",
        ));
    }
    Ok(IdentitySettings {
        owner: entry.backup_of.clone().unwrap_or_else(|| name.clone()),
        priority,
        tokens,
        certificates,
        symbols: resolve_patterns(&name, "symbols", entry.symbols.as_deref())?,
        venues: resolve_patterns(&name, "venues", entry.venues.as_deref())?,
        limits: OwnerLimits {
            instruments_max: entry.instruments_max.unwrap_or(limits.instruments_max),
            ids_max: entry.ids_max.unwrap_or(limits.ids_max),
        },
        pace: PaceSettings {
            records_per_s: entry.records_per_s.unwrap_or(pace.records_per_s),
            bytes_per_s: entry.bytes_per_s.unwrap_or(pace.bytes_per_s),
            levels_per_s: entry.levels_per_s.unwrap_or(pace.levels_per_s),
            definitions_per_s: entry.definitions_per_s.unwrap_or(pace.definitions_per_s),
        },
        name,
    })
}

fn resolve_patterns(name: &str, key: &str, texts: Option<&[String]>) -> Result<Vec<NamePattern>, ConfigError> {
    let Some(texts) = texts else { return Ok(Vec::new()) };
    if texts.is_empty() {
        return Err(invalid(name, &format!("{key}: empty list: expected names, or none of this key for all")));
    }
    let parse = |text: &String| {
        NamePattern::parse(text).ok_or_else(|| {
            invalid(name, &format!("{key}: invalid pattern {text:?}: expected a name such as BTC-USD, or BTC-*"))
        })
    };
    texts.iter().map(parse).collect()
}

/// Checks what concerns several identities.
fn check_together(identities: &[IdentitySettings]) -> Result<(), ConfigError> {
    if identities.len() > IDENTITIES_MAX {
        return Err(ConfigError::Value {
            setting: SETTING,
            problem: format!("{} publishers: expected at most {IDENTITIES_MAX}", identities.len()),
        });
    }
    for (nth, identity) in identities.iter().enumerate() {
        for before in &identities[..nth] {
            if before.name == identity.name {
                return Err(invalid(&identity.name, "the name is given twice: expected each once"));
            }
            if let Some(name) = before.certificates.iter().find(|name| identity.certificates.contains(name)) {
                let problem = format!("certificate_names: {name:?} is also one of {:?}: expected its own", before.name);
                return Err(invalid(&identity.name, &problem));
            }
            if before.tokens.iter().any(|token| identity.tokens.contains(token)) {
                let problem = format!("its token is also that of {:?}: expected one of its own", before.name);
                return Err(invalid(&identity.name, &problem));
            }
        }
        let is_primary = |other: &&IdentitySettings| other.name == identity.owner && other.priority == 0;
        if !identities.iter().any(|other| is_primary(&other)) {
            let problem = format!("backup_of: {:?} is no publisher that is not a backup itself", identity.owner);
            return Err(invalid(&identity.name, &problem));
        }
    }
    Ok(())
}

fn invalid(name: &str, problem: &str) -> ConfigError {
    ConfigError::Value { setting: SETTING, problem: format!("{name:?}: {problem}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(toml: &str) -> Result<Vec<IdentitySettings>, String> {
        let layer: Layer = toml::from_str(toml).map_err(|error| error.to_string())?;
        let pace = PaceSettings { records_per_s: 1, bytes_per_s: 2, levels_per_s: 3, definitions_per_s: 4 };
        resolve_identities(&layer, OwnerLimits { instruments_max: 5, ids_max: 6 }, pace).map_err(|e| e.to_string())
    }

    const MAKER: &str = "[[publisher]]\nname = 'maker-a'\ntoken = 'token-of-the-maker-a'\n";

    #[test]
    fn tables_are_identities_beside_that_of_the_single_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, "first-token-of-backup\n\n  second-token-of-backup\n").unwrap();
        let toml = format!(
            "publish_token = 'token-of-the-default'\n{MAKER}symbols = ['BTC-*']\ninstruments_max = 7\nlevels_per_s = 0\n\
             [[publisher]]\nname = 'backup'\nbackup_of = 'maker-a'\ntoken_file = {path:?}"
        );
        let [default, maker, backup] = &resolve(&toml).unwrap()[..] else { panic!("three") };
        assert_eq!((default.name.as_str(), default.limits.instruments_max), ("default", 5));
        assert_eq!((maker.priority, maker.limits.instruments_max, maker.limits.ids_max), (0, 7, 6));
        assert_eq!((maker.pace.records_per_s, maker.pace.levels_per_s), (1, 0));
        assert_eq!((backup.owner.as_str(), backup.priority, backup.tokens.len()), ("maker-a", 1, 2));
        assert!(backup.tokens[1].matches(b"second-token-of-backup"));
    }

    #[test]
    fn errors_name_the_publisher_and_what_was_expected() {
        for (toml, message) in [
            ("[[publisher]]\nname = 'a b'\ntoken = 'token-of-the-maker-a'", "\"a b\": name: expected 1 to 64 ASCII"),
            ("[[publisher]]\nname = 'a'", "\"a\": no token: expected token_file, token or certificate_names"),
            (
                "[[publisher]]\nname = 'a'\ntoken = 'short'",
                "\"a\": token: invalid token of 5 bytes: expected 16 to 256",
            ),
            ("[[publisher]]\nname = 'a'\ntoken_file = '/no/such'", "cannot read the file of tokens /no/such"),
            (&format!("{MAKER}{MAKER}"), "\"maker-a\": the name is given twice"),
            (&format!("publish_token = 'token-of-the-maker-a'\n{MAKER}"), "its token is also that of \"default\""),
            (&format!("{MAKER}symbols = ['*-A']"), "symbols: invalid pattern \"*-A\""),
            (&format!("{MAKER}symbols = []"), "symbols: empty list"),
            (&format!("{MAKER}priority = 1"), "priority: expected 0"),
            (&format!("{MAKER}backup_of = 'b'"), "backup_of: \"b\" is no publisher"),
            (&format!("{MAKER}symbol = ['A']"), "unknown field `symbol`"),
            ("publish_token_file = '/no/such'", "publish_token: cannot read the file of tokens"),
        ] {
            let error = resolve(toml).unwrap_err();
            assert!(error.contains(message), "{toml}: {error}");
        }
    }
}
