//! TLS of the server: its listener, the pairs of certificate and key, the limits of handshakes. The files are read by
//! [`crate::tls::TlsServer`], at the start and when they change.

use std::net::SocketAddr;

use super::range::within;
use super::{ConfigError, Layer, TlsEntry, invalid};
use crate::tls::{CertificateFiles, TlsVersion};

/// Pairs at the most.
const PAIRS_MAX: usize = 1000;
const SETTING: &str = "tls";

/// The limits of handshakes of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsLimits {
    /// On one core; 0 for no limit.
    pub handshakes_per_s: u32,
    /// Of one address; 0 for no limit.
    pub handshakes_per_address_per_s: u32,
    /// Under way in all; 0 for no limit.
    pub handshakes_pending_max: u32,
    pub handshake_timeout_ms: u32,
}

impl TlsLimits {
    pub(super) fn resolve(layer: &Layer, shards: usize, pending_connections_max: u32) -> Result<Self, ConfigError> {
        let of_core = within("tls_handshakes_per_s", layer.tls_handshakes_per_s, 1000, 0, 1_000_000)?;
        let share = match u64::from(of_core) * shards as u64 {
            0 => 500,
            all => all.div_ceil(2).min(500) as u32,
        };
        let given = layer.tls_handshakes_per_address_per_s;
        let pending = (pending_connections_max / 2).max(1);
        Ok(Self {
            handshakes_per_s: of_core,
            handshakes_per_address_per_s: within("tls_handshakes_per_address_per_s", given, share, 0, 1_000_000)?,
            handshakes_pending_max: within(
                "tls_handshakes_pending_max",
                layer.tls_handshakes_pending_max,
                pending,
                0,
                10_000_000,
            )?,
            handshake_timeout_ms: within(
                "tls_handshake_timeout_ms",
                layer.tls_handshake_timeout_ms,
                5000,
                100,
                600_000,
            )?,
        })
    }
}

/// What belongs to the listener.
pub(super) struct TlsListener {
    pub(super) listen: Option<SocketAddr>,
    pub(super) min_version: TlsVersion,
    pub(super) pairs: Vec<CertificateFiles>,
}

impl TlsListener {
    pub(super) fn resolve(layer: &Layer, listen: SocketAddr) -> Result<Self, ConfigError> {
        let (pairs, min_version) = (resolve_pairs(layer)?, resolve_version(layer.tls_min_version.as_deref())?);
        let Some(given) = &layer.tls_listen else {
            let orphan = [
                ("tls_cert", layer.tls_cert.is_some()),
                ("tls_client_ca", layer.tls_client_ca.is_some()),
                ("tls_min_version", layer.tls_min_version.is_some()),
                (SETTING, !layer.tls.is_empty()),
            ];
            let problem = "given without tls_listen: expected --tls-listen ADDRESS:PORT";
            return match orphan.into_iter().find(|(_, is_given)| *is_given) {
                Some((setting, _)) => Err(invalid(setting, problem)),
                None => Ok(Self { listen: None, min_version, pairs }),
            };
        };
        let address: SocketAddr = given.parse().map_err(|_| {
            let problem = format!("invalid address {given:?}: expected ADDRESS:PORT, such as 0.0.0.0:9443");
            invalid("tls_listen", &problem)
        })?;
        if address.port() != 0 && address == listen {
            return Err(invalid("tls_listen", &format!("{address} is also listen: expected another port")));
        }
        if pairs.is_empty() {
            let problem =
                "no certificate: expected --tls-cert FILE and --tls-key FILE, or tables [[tls]] with cert and key";
            return Err(invalid("tls_listen", problem));
        }
        Ok(Self { listen: Some(address), min_version, pairs })
    }
}

fn resolve_version(given: Option<&str>) -> Result<TlsVersion, ConfigError> {
    match given {
        None | Some("1.2") => Ok(TlsVersion::Tls12),
        Some("1.3") => Ok(TlsVersion::Tls13),
        Some(other) => Err(invalid("tls_min_version", &format!("invalid version {other:?}: expected 1.2 or 1.3"))),
    }
}

fn resolve_pairs(layer: &Layer) -> Result<Vec<CertificateFiles>, ConfigError> {
    let mut pairs = Vec::new();
    match (&layer.tls_cert, &layer.tls_key) {
        (Some(cert), Some(key)) => {
            pairs.push(CertificateFiles { cert: cert.clone(), key: key.clone(), names: Vec::new() });
        }
        (None, None) => {}
        (Some(_), None) => {
            return Err(invalid("tls_cert", "given without tls_key: expected the key of the certificate"));
        }
        (None, Some(_)) => {
            return Err(invalid("tls_key", "given without tls_cert: expected the certificate of the key"));
        }
    }
    for TlsEntry { cert, key, names } in &layer.tls {
        if let Some(name) = names.iter().flatten().find(|name| !is_name(name)) {
            let problem =
                format!("invalid name {name:?}: expected a server name such as prices.example.com or *.example.com");
            return Err(invalid(SETTING, &problem));
        }
        let names = names.clone().unwrap_or_default();
        pairs.push(CertificateFiles { cert: cert.clone(), key: key.clone(), names });
    }
    if pairs.len() > PAIRS_MAX {
        return Err(invalid(SETTING, &format!("{} pairs: expected at most {PAIRS_MAX}", pairs.len())));
    }
    Ok(pairs)
}

fn is_name(name: &str) -> bool {
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && labels.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Machine};
    use super::*;

    fn resolve(toml: &str) -> Result<Config, String> {
        let machine = Machine { cores: vec![0, 1], descriptors_max: 20_000 };
        let layer = toml::from_str::<Layer>(toml).map_err(|error| error.to_string())?;
        Config::resolve(layer, &machine, 1).map_err(|error| error.to_string())
    }

    #[test]
    fn pairs_come_from_flags_and_tables() {
        let pair = "tls_listen = '0.0.0.0:9443'\ntls_cert = 'a.pem'\ntls_key = 'a.key'\n";
        let config = resolve(&format!("{pair}[[tls]]\ncert = 'b.pem'\nkey = 'b.key'\nnames = ['b.test']")).unwrap();
        let shown: Vec<_> = config.tls_pairs.iter().map(|pair| (pair.cert.to_str(), &pair.names[..])).collect();
        assert_eq!(shown, [(Some("a.pem"), &[][..]), (Some("b.pem"), &["b.test".to_owned()])]);
        assert_eq!((config.tls_listen.unwrap().port(), config.tls_min_version), (9443, TlsVersion::Tls12));
        assert_eq!(config.tls_limits.handshakes_per_address_per_s, 500);
        assert_eq!(config.tls_limits.handshakes_pending_max, config.pending_connections_max / 2);
        assert_eq!(resolve("").unwrap().tls_listen, None);
        let newest = resolve(&format!("{pair}tls_min_version = '1.3'")).unwrap();
        assert_eq!(newest.tls_min_version, TlsVersion::Tls13);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let pair = "tls_cert = 'a.pem'\ntls_key = 'a.key'";
        for (toml, message) in [
            (
                "tls_listen = '0.0.0.0:9443'".to_owned(),
                "tls_listen: no certificate: expected --tls-cert FILE and --tls-key",
            ),
            (pair.to_owned(), "tls_cert: given without tls_listen: expected --tls-listen"),
            ("tls_client_ca = 'ca.pem'".to_owned(), "tls_client_ca: given without tls_listen"),
            (format!("tls_listen = 'here'\n{pair}"), "tls_listen: invalid address \"here\": expected ADDRESS:PORT"),
            (format!("tls_listen = '127.0.0.1:9001'\n{pair}"), "tls_listen: 127.0.0.1:9001 is also listen"),
            ("tls_listen = '0.0.0.0:1'\ntls_cert = 'a.pem'".to_owned(), "tls_cert: given without tls_key"),
            ("tls_listen = '0.0.0.0:1'\ntls_key = 'a.key'".to_owned(), "tls_key: given without tls_cert"),
            (
                format!("tls_listen = '0.0.0.0:1'\ntls_min_version = '1.1'\n{pair}"),
                "tls_min_version: invalid version \"1.1\": expected 1.2 or 1.3",
            ),
            (
                "tls_listen = '0.0.0.0:1'\n[[tls]]\ncert = 'a'\nkey = 'b'\nnames = ['a b']".to_owned(),
                "tls: invalid name \"a b\": expected a server name",
            ),
            ("[[tls]]\ncert = 'a'".to_owned(), "missing field `key`"),
            ("tls_handshake_timeout_ms = 1".to_owned(), "tls_handshake_timeout_ms: 1 is out of range: expected 100 to"),
        ] {
            let error = resolve(&toml).unwrap_err();
            assert!(error.contains(message), "{toml}: {error}");
        }
    }
}
