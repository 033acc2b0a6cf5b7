//! Certificates that are read again: on SIGHUP, and within half a second of a change of their files. Connections keep
//! what they have; a pair that cannot be used leaves the old ones in place.

use crate::clock::wall_ns;
use crate::tls::{CertificateFiles, TlsError, TlsServer};

/// The present time in seconds since 1970.
pub(super) fn now_s() -> i64 {
    (wall_ns() / 1_000_000_000) as i64
}

/// Reads these pairs: the settings were read again.
pub(super) fn reload(tls: &TlsServer, pairs: &[CertificateFiles]) {
    log(tls, tls.reload(pairs, now_s()).map(|()| true));
}

/// Reads the pairs again if one of their files has changed.
pub(super) fn look(tls: &TlsServer) {
    log(tls, tls.reload_if_changed(now_s()));
}

fn log(tls: &TlsServer, outcome: Result<bool, TlsError>) {
    match outcome {
        Ok(false) => {}
        Ok(true) => {
            let names: Vec<_> = tls.expiries().into_iter().map(|expiry| expiry.name).collect();
            tracing::info!("certificates were read again: {}", names.join(", "));
        }
        Err(error) => tracing::error!("certificates were not changed, the old ones stay in use: {error}"),
    }
}
