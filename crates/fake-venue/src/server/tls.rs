//! An authority and a certificate that are made at the start, and are valid for this machine alone.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::StartError;

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// What accepts connections, and the certificate of the authority in PEM.
pub fn acceptor() -> Result<(TlsAcceptor, String), StartError> {
    let problem = |error: rcgen::Error| StartError::Certificate(error.to_string());
    let mut authority = CertificateParams::new(Vec::new()).map_err(problem)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate().map_err(problem)?;
    let authority_pem = authority.self_signed(&authority_key).map_err(problem)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let key = KeyPair::generate().map_err(problem)?;
    let names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    let certificate = CertificateParams::new(names).and_then(|of| of.signed_by(&key, &issuer)).map_err(problem)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let tls_problem = |error: tokio_rustls::rustls::Error| StartError::Certificate(error.to_string());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(tls_problem)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .map_err(tls_problem)?;
    Ok((TlsAcceptor::from(Arc::new(config)), authority_pem))
}
