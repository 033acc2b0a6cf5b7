//! Where the admin listener listens: an address and port, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `--admin-listen`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    Address(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

impl AdminListen {
    /// Parses `127.0.0.1:9002` or `unix:/run/tickcast/admin.sock`.
    ///
    /// # Errors
    /// What is wrong and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = match text.split_once(':') {
            Some(("unix", path)) => path,
            _ => {
                return text.parse().map(Self::Address).map_err(|_| {
                    format!(
                        "invalid address {text:?}: expected ADDRESS:PORT, such as 127.0.0.1:9002, or unix:PATH, such as \
                         unix:/run/tickcast/admin.sock"
                    )
                });
            }
        };
        /// `sun_path` of Linux has 108 bytes with the one that ends it.
        const PATH_BYTES_MAX: usize = 107;
        if !path.starts_with('/') || path.len() > PATH_BYTES_MAX || path.contains('\0') {
            return Err(format!(
                "invalid path {path:?} of a Unix socket: expected an absolute path of at most {PATH_BYTES_MAX} bytes"
            ));
        }
        Ok(Self::Unix(path.into()))
    }

    /// True if only processes of this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Address(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for AdminListen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(out, "http://{address}"),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_path_is_parsed() {
        for (text, shown, is_local) in [
            ("127.0.0.1:9002", "http://127.0.0.1:9002", true),
            ("[::1]:0", "http://[::1]:0", true),
            ("0.0.0.0:9002", "http://0.0.0.0:9002", false),
            ("unix:/run/a b/admin.sock", "unix:/run/a b/admin.sock", true),
        ] {
            let parsed = AdminListen::parse(text).unwrap();
            assert_eq!((parsed.to_string().as_str(), parsed.is_local()), (shown, is_local));
        }
        for wrong in ["", "9002", "here:1", "unix:", "unix:admin.sock", &format!("unix:/{}", "a".repeat(107))] {
            let problem = AdminListen::parse(wrong).unwrap_err();
            assert!(problem.contains("invalid") && problem.contains("expected"), "{problem}");
        }
    }
}
