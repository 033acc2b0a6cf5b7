//! The part of a `--feed` argument that all brokers share: `SCHEME://HOST:PORT[,HOST:PORT…]?key=value&…`.
//!
//! Passwords, tokens and keys are in files: an argument, and so the name of a source, has no secrets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ingest::codec::address::AddressRule;
use crate::ingest::codec::{CodecSettings, Form, SymbolFrom};
use crate::ingest::parameters::{each_pair, number_within};
use crate::tls::{Identity, Roots, TlsConfig, TlsError, client_config_as};

/// Largest file with a secret.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// What one kind of broker has.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Its scheme.
    pub scheme: &'static str,
    /// The port where none is given.
    pub port: u16,
    /// Its word for the address of a message, as a value of `symbol=`.
    pub address: &'static str,
    /// Whether its messages have keys.
    pub has_keys: bool,
    /// Its own keys, for errors.
    pub own_keys: &'static str,
}

/// A server's name and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name or an address; that of IPv6 in brackets.
    pub host: String,
    pub port: u16,
}

/// Where a broker is, and how messages are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    pub servers: Vec<Server>,
    pub is_tls: bool,
    pub roots: Roots,
    /// Certificate and key of this client.
    pub identity: Option<Identity>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    /// Messages of a push source that wait.
    pub buffer: usize,
    pub codec: CodecSettings,
}

/// Keys that all brokers have.
const COMMON_KEYS: &str =
    "codec, symbol, prefix, dots, escape, venue, buffer, tls, ca_file, cert_file, key_file, user or password_file";

impl Parameters {
    /// Parses what follows `SCHEME:`. `own` takes a key of this kind of broker; it returns false for an unknown one.
    ///
    /// # Errors
    /// The key, and what is allowed.
    pub fn parse(
        text: &str,
        terms: &Terms,
        mut own: impl FnMut(&str, &str) -> Result<bool, String>,
    ) -> Result<Self, String> {
        let (servers, pairs) = text.split_once('?').unwrap_or((text, ""));
        let servers = servers_of(servers.strip_prefix("//").unwrap_or(servers), terms)?;
        let codec = CodecSettings {
            form: Form::default(),
            symbol: SymbolFrom::Address,
            address: AddressRule::default(),
            venue: terms.scheme.to_owned(),
        };
        let (user, password_file, identity) = (None, None, None);
        let (roots, buffer) = (Roots::System, 16_384);
        let mut parameters = Self { servers, is_tls: false, roots, identity, user, password_file, buffer, codec };
        let (mut symbol, mut certificate, mut key_file) = (None, None, None);
        each_pair(pairs, '&', |key, value| {
            match key {
                "symbol" => symbol = Some(value.to_owned()),
                "cert_file" => certificate = Some(PathBuf::from(value)),
                "key_file" => key_file = Some(PathBuf::from(value)),
                _ if parameters.set(key, value)? || own(key, value)? => {}
                _ => return Err(format!("unknown key {key:?}: expected {}, {COMMON_KEYS}", terms.own_keys)),
            }
            Ok(())
        })?;
        parameters.codec.symbol = symbol_of(symbol.as_deref(), &parameters.codec, terms)?;
        parameters.identity = match (certificate, key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            _ => return Err("cert_file and key_file: expected both or none".to_owned()),
        };
        parameters.is_tls |= parameters.identity.is_some();
        Ok(parameters)
    }

    /// Takes a common key; false for another one.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let address = &mut self.codec.address;
        match (key, value) {
            ("codec", "tickcast") => self.codec.form = Form::Tickcast,
            ("codec", "json") => self.codec.form = Form::Json,
            ("codec", "raw") => self.codec.form = Form::Raw,
            ("codec", _) => return Err(format!("codec: invalid value {value:?}: expected tickcast, json or raw")),
            ("prefix", _) => address.prefix = value.to_owned(),
            ("dots", _) => address.dot = dot_of(value)?,
            ("escape", "percent" | "none") => address.is_escaped = value == "percent",
            ("escape", _) => return Err(format!("escape: invalid value {value:?}: expected percent or none")),
            ("venue", _) => self.codec.venue = value.to_owned(),
            ("buffer", _) => self.buffer = number_within(key, value, 16, 1_000_000)?,
            ("tls", "0" | "1") => self.is_tls |= value == "1",
            ("tls", _) => return Err(format!("tls: invalid value {value:?}: expected 0 or 1")),
            ("ca_file", _) => (self.is_tls, self.roots) = (true, Roots::File(value.into())),
            ("user", _) => self.user = Some(value.to_owned()),
            ("password_file", _) => self.password_file = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks the files.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn check(&self) -> Result<(), String> {
        self.password()?;
        if self.is_tls {
            self.tls().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The content of `password_file`.
    pub fn password(&self) -> Result<Option<String>, String> {
        self.password_file.as_deref().map(secret).transpose()
    }

    /// The configuration for TLS.
    pub fn tls(&self) -> Result<Arc<TlsConfig>, TlsError> {
        client_config_as(&self.roots, self.identity.as_ref())
    }
}

/// The content of a file with a secret, without white space at its end.
///
/// # Errors
/// The file cannot be read, is empty, or is no such file.
pub fn secret(path: &Path) -> Result<String, String> {
    let failed = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let bytes = std::fs::metadata(path).map_err(|error| failed(&error))?.len();
    if bytes > SECRET_BYTES_MAX {
        return Err(failed(&format_args!("{bytes} bytes: expected a file of at most {SECRET_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let text = text.trim_end();
    if text.is_empty() { Err(failed(&"is empty: expected a secret")) } else { Ok(text.to_owned()) }
}

/// The name of a channel, a stream or a group.
///
/// # Errors
/// It is empty or has something invisible.
pub fn checked_name(key: &str, value: &str) -> Result<String, String> {
    if value.is_empty() || value.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return Err(format!("{key}: invalid value {value:?}: expected visible characters"));
    }
    Ok(value.to_owned())
}

fn servers_of(list: &str, terms: &Terms) -> Result<Vec<Server>, String> {
    let expected = || format!("expected {}://HOST:PORT[,HOST:PORT…]?key=value&…", terms.scheme);
    if list.contains('@') {
        return Err(format!(
            "user or password in the address: expected them as user= and password_file=: {}",
            expected()
        ));
    }
    list.trim_end_matches('/')
        .split(',')
        .map(|text| server_of(text, terms.port).ok_or_else(|| format!("invalid server {text:?}: {}", expected())))
        .collect()
}

fn server_of(text: &str, port: u16) -> Option<Server> {
    // An address of IPv6 has brackets, and colons within.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, port),
    };
    let is_name = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
    };
    let is_ipv6 = |host: &str| {
        host.strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok())
    };
    (is_name(host) || is_ipv6(host)).then(|| Server { host: host.to_owned(), port })
}

fn dot_of(value: &str) -> Result<char, String> {
    let mut letters = value.chars();
    match (letters.next(), letters.next()) {
        (Some(dot), None) if dot.is_ascii_graphic() && dot != '*' => Ok(dot),
        _ => Err(format!("dots: invalid value {value:?}: expected one visible ASCII character, such as / or -")),
    }
}

fn symbol_of(value: Option<&str>, codec: &CodecSettings, terms: &Terms) -> Result<SymbolFrom, String> {
    match (codec.form, value) {
        (Form::Tickcast, Some(_)) => {
            Err("symbol: packets have their symbols in Definition records: expected no symbol= with codec=tickcast"
                .to_owned())
        }
        (Form::Json, None) => Ok(SymbolFrom::Field("symbol".to_owned())),
        (_, None) => Ok(SymbolFrom::Address),
        (_, Some(value)) if value == terms.address => Ok(SymbolFrom::Address),
        (_, Some("key")) if terms.has_keys => Ok(SymbolFrom::Key),
        (Form::Json, Some(value)) if value.len() > "field:".len() && value.starts_with("field:") => {
            Ok(SymbolFrom::Field(value["field:".len()..].to_owned()))
        }
        (_, Some(value)) => {
            let key = if terms.has_keys { ", key" } else { "" };
            Err(format!(
                "symbol: invalid value {value:?}: expected {}{key} or, with codec=json, field:NAME",
                terms.address
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { scheme: "nats", port: 4222, address: "subject", has_keys: false, own_keys: "subject" };

    fn parse(text: &str) -> Result<Parameters, String> {
        Parameters::parse(text, &TERMS, |key, _| Ok(key == "subject"))
    }

    #[test]
    fn argument_is_servers_and_parameters_with_defaults() {
        let plain = parse("//broker").expect("a server is enough");
        assert_eq!(plain.servers, [Server { host: "broker".to_owned(), port: 4222 }]);
        assert_eq!((plain.codec.form, plain.codec.symbol), (Form::Json, SymbolFrom::Field("symbol".to_owned())));
        assert_eq!((plain.is_tls, plain.buffer, plain.codec.venue.as_str()), (false, 16_384, "nats"));
        assert_eq!(parse("broker:4222?"), parse("//broker/"));
        let full = "//a.example:1,[::1]:2?codec=raw&prefix=p.&dots=/&venue=acme&buffer=16&ca_file=/ca.pem&user=u&subject=x&symbol=subject";
        let full = parse(full).expect("all keys are known");
        assert_eq!(full.servers[1], Server { host: "[::1]".to_owned(), port: 2 });
        assert_eq!(full.codec.address, AddressRule { prefix: "p.".to_owned(), dot: '/', is_escaped: true });
        assert!(full.is_tls && full.roots == Roots::File("/ca.pem".into()) && full.user.as_deref() == Some("u"));
    }

    #[test]
    fn error_names_key_value_and_what_is_allowed() {
        for (text, message) in [
            ("", "invalid server \"\": expected nats://HOST:PORT[,HOST:PORT…]?key=value&…"),
            ("//a:b", "invalid server \"a:b\": expected nats://HOST:PORT"),
            ("//u:secret@a", "user or password in the address: expected them as user= and password_file="),
            ("a?codec=avro", "codec: invalid value \"avro\": expected tickcast, json or raw"),
            ("a?colour=red", "unknown key \"colour\": expected subject, codec, symbol, prefix"),
            ("a?dots=ab", "dots: invalid value \"ab\": expected one visible ASCII character"),
            ("a?symbol=key", "symbol: invalid value \"key\": expected subject or, with codec=json, field:NAME"),
            ("a?symbol=field:x&codec=raw", "symbol: invalid value \"field:x\": expected subject"),
            ("a?symbol=subject&codec=tickcast", "symbol: packets have their symbols in Definition records"),
            ("a?cert_file=/c.pem", "cert_file and key_file: expected both or none"),
            ("a?buffer=1", "buffer: invalid value \"1\": expected 16 to 1000000"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(message) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn secret_is_the_file_without_its_last_line_end() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), " pass word\r\n").expect("written");
        assert_eq!(secret(file.path()).as_deref(), Ok(" pass word"));
        std::fs::write(file.path(), "\n").expect("written");
        assert!(secret(file.path()).is_err_and(|error| error.ends_with("is empty: expected a secret")));
        assert!(secret(Path::new("/nonexistent")).is_err_and(|error| error.starts_with("/nonexistent: ")));
    }
}
