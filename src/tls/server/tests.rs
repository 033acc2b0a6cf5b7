//! Handshakes and records with the client of rustls at the other end of two vectors.

use std::io::{Read, Write};
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tempfile::TempDir;

use super::super::session::{Fault, HANDSHAKE_INPUT_MAX, RECORD_BYTES_MAX, Session, Step, sealed_bytes_max};
use super::*;

/// In 2030. Certificates of the tests are valid from 1975 to 4096, unless they say otherwise.
const NOW_S: i64 = 1_900_000_000;

/// A folder with an authority and what it has signed.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).expect("written");
        self.path(name)
    }

    /// Signs a certificate for these names; `change` may change it before.
    fn pair_with(&self, file: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateFiles {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let cert = self.write(&format!("{file}.pem"), &certificate.pem());
        CertificateFiles { cert, key: self.write(&format!("{file}.key"), &key.serialize_pem()), names: vec![] }
    }

    fn pair(&self, file: &str, names: &[&str]) -> CertificateFiles {
        self.pair_with(file, names, |_| {})
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(versions).expect("versions");
        builder.with_root_certificates(roots).with_no_client_auth()
    }
}

fn settings(pairs: Vec<CertificateFiles>) -> ServerSettings {
    ServerSettings { pairs, min_version: TlsVersion::Tls12, client_ca: None }
}

fn load(pairs: Vec<CertificateFiles>) -> TlsServer {
    TlsServer::load(&settings(pairs), NOW_S).expect("pairs")
}

fn connect(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    ClientConnection::new(config.clone(), name).expect("a client")
}

/// What the client has to send.
fn output_of(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("a Vec takes all");
    }
    bytes
}

/// Hands bytes to the client; what it says about them.
fn input_to(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).expect("a slice");
        client.process_new_packets()?;
    }
    Ok(())
}

/// The handshake, with so many bytes at a time; the session, or the server's fault and what the client says of its alert.
fn shake(
    server: &TlsServer,
    client: &mut ClientConnection,
    portion: usize,
) -> Result<Box<Session>, (Fault, Option<rustls::Error>)> {
    let mut handshake = server.begin();
    for _ in 0..10 {
        let sent = output_of(client);
        for part in sent.chunks(portion) {
            let mut output = Vec::new();
            let step = handshake.feed(part, &mut output);
            let read = output.chunks(portion).try_for_each(|part| input_to(client, part));
            match step {
                Err(fault) => return Err((fault, read.err())),
                Ok(Step::Done) => return Ok(handshake.into_session()),
                Ok(Step::More) => {
                    if let Err(error) = read {
                        // The alert of the client.
                        let fault = handshake.feed(&output_of(client), &mut Vec::new()).expect_err("an alert");
                        return Err((fault, Some(error)));
                    }
                }
            }
        }
    }
    panic!("the handshake does not end");
}

fn sealed(session: &mut Session, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; sealed_bytes_max(plain.len())];
    let len = session.seal(plain, &mut out).expect("sealed");
    out.truncate(len);
    out
}

/// What the client reads.
fn read(client: &mut ClientConnection, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    for part in bytes.chunks(4096) {
        input_to(client, part).expect("records");
        let mut buffer = [0; 8192];
        while let Ok(len @ 1..) = client.reader().read(&mut buffer) {
            plain.extend_from_slice(&buffer[..len]);
        }
    }
    plain
}

/// Plaintext, whether it is the last, and what is to be sent.
type Opened = (Vec<u8>, bool, Vec<u8>);

/// What the session opens of some input, in portions.
fn open(session: &mut Session, input: &[u8], portion: usize) -> Result<Opened, (Fault, Vec<u8>)> {
    let (mut plain, mut output, mut is_end) = (Vec::new(), Vec::new(), false);
    for part in input.chunks(portion) {
        let opened = session.open(&mut part.to_vec(), &mut plain, &mut output);
        is_end |= opened.map_err(|fault| (fault, output.clone()))?;
    }
    assert_eq!(session.held_bytes(), 0, "whole records are opened");
    Ok((plain, is_end, output))
}

const BOTH: &[&[&SupportedProtocolVersion]] = &[&[&TLS13], &[&TLS12]];

#[test]
fn both_versions_carry_bytes_both_ways_however_they_are_cut() {
    let authority = Authority::new();
    let server = load(vec![authority.pair("a", &["a.test"])]);
    for versions in BOTH {
        let config = Arc::new(authority.client(versions));
        for portion in [1, 7, usize::MAX] {
            let mut client = connect(&config, "a.test");
            let mut session = shake(&server, &mut client, portion).expect("a session");
            assert_eq!((session.is_resumed(), session.client_certificate()), (portion != 1, None));
            for len in [1, 100, RECORD_BYTES_MAX, RECORD_BYTES_MAX + 1, 100_000] {
                let plain: Vec<u8> = (0..len).map(|at| at as u8).collect();
                let out = sealed(&mut session, &plain);
                assert!(out.len() <= sealed_bytes_max(len) && read(&mut client, &out) == plain, "{len} bytes");
                client.writer().write_all(&plain[..len.min(9000)]).expect("room");
                let (got, is_end, output) = open(&mut session, &output_of(&mut client), portion).expect("opened");
                assert_eq!((got == plain[..len.min(9000)], is_end, output.len()), (true, false, 0));
            }
            client.send_close_notify();
            let (plain, is_end, _) = open(&mut session, &output_of(&mut client), portion).expect("opened");
            assert!(plain.is_empty() && is_end);
            let mut out = [0; 256];
            let len = session.close(&mut out);
            input_to(&mut client, &out[..len]).expect("a record");
            assert_eq!(client.reader().read(&mut [0; 8]).expect("a clean end"), 0, "close_notify was received");
        }
    }
}

#[test]
fn end_of_the_peer_does_not_keep_the_server_from_sending() {
    let authority = Authority::new();
    let server = load(vec![authority.pair("a", &["a.test"])]);
    let mut client = connect(&Arc::new(authority.client(&[&TLS13])), "a.test");
    let mut session = shake(&server, &mut client, usize::MAX).expect("a session");
    client.writer().write_all(b"bye").expect("room");
    client.send_close_notify();
    let (plain, is_end, _) = open(&mut session, &output_of(&mut client), 3).expect("opened");
    assert_eq!((&plain[..], is_end), (&b"bye"[..], true));
    let out = sealed(&mut session, b"bye, too");
    assert_eq!(read(&mut client, &out), b"bye, too");
}

#[test]
fn session_is_resumed_at_another_shard_and_after_new_certificates() {
    let authority = Authority::new();
    let pair = authority.pair("a", &["a.test"]);
    let server = load(vec![pair.clone()]);
    for versions in BOTH {
        let config = Arc::new(authority.client(versions));
        let mut resumed = Vec::new();
        for nth in 0..3 {
            let mut client = connect(&config, "a.test");
            // Shards share the server.
            let session = shake(&server, &mut client, usize::MAX).expect("a session");
            resumed.push(session.is_resumed());
            if nth == 1 {
                server.reload(&[authority.pair("a", &["a.test"])], NOW_S).expect("pairs");
            }
        }
        assert_eq!(resumed, [false, true, true]);
        // Another server has another key of tickets.
        let other = load(vec![authority.pair("b", &["a.test"])]);
        let mut client = connect(&config, "a.test");
        assert!(!shake(&other, &mut client, usize::MAX).expect("a full handshake").is_resumed());
        let mut without = authority.client(versions);
        without.resumption = Resumption::disabled();
        let mut client = connect(&Arc::new(without), "a.test");
        assert!(!shake(&server, &mut client, usize::MAX).expect("a session").is_resumed());
    }
}

#[test]
fn each_name_gets_its_pair_and_unknown_ones_are_refused() {
    let authority = Authority::new();
    let pairs = vec![authority.pair("a", &["a.test"]), authority.pair("b", &["*.b.test", "b.test"])];
    let server = load(pairs.clone());
    let config = Arc::new(authority.client(&[&TLS13, &TLS12]));
    for (name, is_served) in [
        ("a.test", true),
        ("A.Test", true),
        ("x.b.test", true),
        ("b.test", true),
        ("c.test", false),
        ("y.x.b.test", false),
    ] {
        let mut client = connect(&config, name);
        match shake(&server, &mut client, usize::MAX) {
            Ok(_) => assert!(is_served, "{name}"),
            Err((fault, alert)) => {
                assert_eq!((is_served, fault), (false, Fault::Name), "{name}");
                assert!(matches!(alert, Some(rustls::Error::AlertReceived(_))), "{alert:?}");
            }
        }
    }
    // A client that was given an address names none, and gets the first pair: here of another name.
    let mut client = connect(&config, "127.0.0.1");
    let (fault, error) = shake(&server, &mut client, usize::MAX).expect_err("not for this address");
    assert!(matches!(fault, Fault::Alert(_)) && matches!(error, Some(rustls::Error::InvalidCertificate(_))));
    // A single pair without configured names is for all: the client decides.
    let server = load(pairs[..1].to_vec());
    let (fault, _) = shake(&server, &mut connect(&config, "c.test"), usize::MAX).expect_err("another name");
    assert_eq!(fault.reason(), "alert");
    let named = CertificateFiles { names: vec!["a.test".to_owned()], ..pairs[0].clone() };
    let (fault, _) = shake(&load(vec![named]), &mut connect(&config, "c.test"), usize::MAX).expect_err("refused");
    assert_eq!(fault, Fault::Name);
}

#[test]
fn no_version_or_protocol_in_common_is_said_by_an_alert() {
    let authority = Authority::new();
    let pair = authority.pair("a", &["a.test"]);
    let server =
        TlsServer::load(&ServerSettings { min_version: TlsVersion::Tls13, ..settings(vec![pair.clone()]) }, NOW_S)
            .expect("a server");
    let old = Arc::new(authority.client(&[&TLS12]));
    let (fault, alert) = shake(&server, &mut connect(&old, "a.test"), usize::MAX).expect_err("no version");
    assert_eq!(fault.reason(), "version", "{fault}");
    assert_eq!(alert, Some(rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)));
    for (offered, is_served) in [(&[&b"h2"[..]][..], false), (&[b"h2", b"http/1.1"], true), (&[b"http/1.0"], false)] {
        let mut config = authority.client(&[&TLS13]);
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let mut client = connect(&Arc::new(config), "a.test");
        match shake(&load(vec![pair.clone()]), &mut client, usize::MAX) {
            Ok(_) => assert!(is_served && client.alpn_protocol() == Some(b"http/1.1")),
            Err((fault, alert)) => {
                assert_eq!((is_served, fault), (false, Fault::Protocol));
                let expected = rustls::AlertDescription::NoApplicationProtocol;
                assert_eq!(alert, Some(rustls::Error::AlertReceived(expected)));
            }
        }
    }
}

/// The records of `bytes`, each cut into records of `portion` bytes.
fn fragmented(bytes: &[u8], portion: usize) -> Vec<u8> {
    let (mut rest, mut out) = (bytes, Vec::new());
    while !rest.is_empty() {
        let len = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        for part in rest[5..5 + len].chunks(portion) {
            out.extend_from_slice(&rest[..3]);
            out.extend_from_slice(&(part.len() as u16).to_be_bytes());
            out.extend_from_slice(part);
        }
        rest = &rest[5 + len..];
    }
    out
}

#[test]
fn hello_in_many_records_is_read() {
    let authority = Authority::new();
    let server = load(vec![authority.pair("a", &["a.test"])]);
    for portion in [1, 50, 300] {
        let mut client = connect(&Arc::new(authority.client(&[&TLS13])), "a.test");
        let (mut handshake, mut output) = (server.begin(), Vec::new());
        let hello = fragmented(&output_of(&mut client), portion);
        assert_eq!(handshake.feed(&hello, &mut output), Ok(Step::More));
        input_to(&mut client, &output).expect("the flight of the server");
        assert_eq!(handshake.feed(&output_of(&mut client), &mut Vec::new()), Ok(Step::Done));
    }
}

#[test]
fn what_is_no_handshake_is_refused_at_once() {
    let authority = Authority::new();
    let server = load(vec![authority.pair("a", &["a.test"])]);
    let feed = |bytes: &[u8]| {
        let mut output = Vec::new();
        (server.begin().feed(bytes, &mut output).map_err(|fault| fault.reason()), output)
    };
    assert_eq!(feed(b"GET / HTTP/1.1\r\n\r\n").0, Err("plain_http"));
    assert_eq!(feed(b"\x80\x2e\x01\x00\x02").0, Err("not_tls"));
    assert_eq!(feed(b"").0, Ok(Step::More));
    // TLS 1.0, and records that are none.
    let old = [&[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1][..], &[7; 32], &[0, 0, 2, 0, 47, 1, 0]].concat();
    let (outcome, alert) = feed(&old);
    assert_eq!((outcome, alert.first()), (Err("version"), Some(&21)), "{alert:?}");
    for garbage in [&[22, 3, 1, 0, 4, 1, 0, 0, 9][..], &[22, 9, 9, 0, 4, 1, 0, 0, 0], &[22, 3, 1, 255, 255, 1]] {
        let outcome = feed(garbage).0;
        assert!(outcome.is_err() || outcome == Ok(Step::More), "{garbage:?}");
    }
    let (outcome, alert) = feed(&[22, 3, 3, 0, 4, 99, 0, 0, 0]);
    assert!(outcome.is_err() && alert.first() == Some(&21), "{outcome:?} {alert:?}");
    // A hello that never ends is held up to a limit.
    let mut handshake = server.begin();
    let mut record = vec![22, 3, 1, 4, 0];
    record.extend([1, 0, 0xff, 0xff]);
    record.resize(5 + 1024, 0);
    let most = (0..100).find_map(|nth| {
        let failed = handshake.feed(&record, &mut Vec::new()).is_err();
        record[5..9].fill(0);
        failed.then_some(nth * 1029)
    });
    assert!(most.is_some_and(|most| most <= HANDSHAKE_INPUT_MAX + 1029), "{most:?}");
}

#[test]
fn changed_or_repeated_record_ends_the_session_with_an_alert() {
    let authority = Authority::new();
    let server = load(vec![authority.pair("a", &["a.test"])]);
    for versions in BOTH {
        let config = Arc::new(authority.client(versions));
        for is_repeated in [false, true] {
            let mut client = connect(&config, "a.test");
            let mut session = shake(&server, &mut client, usize::MAX).expect("a session");
            client.writer().write_all(b"an order").expect("room");
            let mut bytes = output_of(&mut client);
            if is_repeated {
                open(&mut session, &bytes, 9).expect("the first time");
            } else {
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
            }
            let (fault, alert) = open(&mut session, &bytes, usize::MAX).expect_err("not what was sealed");
            assert_eq!(fault.reason(), "broken");
            let error = input_to(&mut client, &alert).expect_err("an alert");
            assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
            assert!(session.seal(b"x", &mut [0; 256]).is_err(), "nothing follows an alert");
        }
    }
}

#[test]
fn keys_are_updated_when_the_client_asks_and_not_without_end() {
    let authority = Authority::new();
    let server = load(vec![authority.pair("a", &["a.test"])]);
    let mut client = connect(&Arc::new(authority.client(&[&TLS13])), "a.test");
    let mut session = shake(&server, &mut client, usize::MAX).expect("a session");
    for nth in 0..50u8 {
        client.refresh_traffic_keys().expect("TLS 1.3");
        client.writer().write_all(&[nth]).expect("room");
        let (plain, ..) = open(&mut session, &output_of(&mut client), 5).expect("opened");
        assert_eq!(plain, [nth]);
        // The server's own update goes before what it sends next.
        let out = sealed(&mut session, &[nth; 20]);
        assert_eq!(read(&mut client, &out), [nth; 20]);
    }
    let refused = (0..100).find_map(|_| {
        client.refresh_traffic_keys().expect("TLS 1.3");
        open(&mut session, &output_of(&mut client), usize::MAX).err()
    });
    assert!(refused.is_some(), "updates without data have a limit");
}

/// A message of the handshake may come in parts. The library remembers where the first one is, also while it seals.
#[test]
fn half_a_message_is_held_while_records_are_sealed() {
    let authority = Authority::new();
    let server = load(vec![authority.pair("a", &["a.test"])]);
    let mut config = authority.client(&[&TLS13]);
    config.enable_secret_extraction = true;
    let mut client = connect(&Arc::new(config), "a.test");
    let mut session = shake(&server, &mut client, usize::MAX).expect("a session");
    let mut sealer = half_sealer(client);
    let (mut plain, mut output) = (Vec::new(), Vec::new());
    // The head of an update of keys, and no more.
    assert_eq!(session.open(&mut sealer(&[24, 0, 0, 1]), &mut plain, &mut output), Ok(false));
    assert!(session.held_bytes() > 0 && plain.is_empty());
    sealed(&mut session, b"a packet");
    assert!(session.close(&mut [0; 256]) > 0);
    assert_eq!(session.open(&mut sealer(&[0]), &mut plain, &mut output), Ok(false));
    assert_eq!(session.held_bytes(), 0);
}

/// Seals parts of messages of the handshake with the keys of this client, AES-128-GCM or AES-256-GCM.
fn half_sealer(client: ClientConnection) -> impl FnMut(&[u8]) -> Vec<u8> {
    use rustls::ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm};
    use rustls::crypto::cipher::{AeadKey, Iv, OutboundChunks, OutboundPlainMessage};
    let suite = client.negotiated_cipher_suite().expect("one").tls13().expect("TLS 1.3");
    let (sequence, secrets) = client.dangerous_extract_secrets().expect("secrets").tx;
    let (key, iv): (AeadKey, Iv) = match secrets {
        Aes128Gcm { key, iv } | Aes256Gcm { key, iv } => (key, iv),
        _ => panic!("another cipher suite"),
    };
    let mut encrypter = suite.aead_alg.encrypter(key, iv);
    let mut sequence = sequence;
    move |part| {
        let message = OutboundPlainMessage {
            typ: rustls::ContentType::Handshake,
            version: rustls::ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(part),
        };
        sequence += 1;
        encrypter.encrypt(message, sequence - 1).expect("sealed").encode()
    }
}

#[test]
fn client_certificate_is_optional_and_told_apart_by_its_authority() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let server = TlsServer::load(
        &ServerSettings {
            client_ca: Some(authority.path("ca.pem")),
            ..settings(vec![authority.pair("a", &["a.test"])])
        },
        NOW_S,
    )
    .expect("a server");
    let with = |files: &CertificateFiles| {
        let mut config = authority.client(&[&TLS13, &TLS12]);
        let chain = vec![CertificateDer::from_pem_file(&files.cert).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
        let provider = aws_lc_rs::default_provider();
        let pair = rustls::sign::CertifiedKey::from_der(chain, key, &provider).expect("a pair");
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(pair));
        connect(&Arc::new(config), "a.test")
    };
    let named = |params: &mut CertificateParams| params.distinguished_name.push(rcgen::DnType::CommonName, "feed 7");
    let known = authority.pair_with("client", &["feed7.test"], named);
    let session = shake(&server, &mut with(&known), usize::MAX).expect("a session");
    let certificate = session.client_certificate().expect("one");
    assert_eq!(
        (certificate.common_name.as_deref(), &certificate.names[..]),
        (Some("feed 7"), &["feed7.test".to_owned()][..])
    );
    let other = foreign.pair_with("client", &["feed7.test"], named);
    let (fault, _) = shake(&server, &mut with(&other), usize::MAX).expect_err("of another authority");
    assert_eq!(fault.reason(), "certificate", "{fault}");
    let mut without = connect(&Arc::new(authority.client(&[&TLS13])), "a.test");
    assert_eq!(shake(&server, &mut without, usize::MAX).expect("a session").client_certificate(), None);
}

#[test]
fn bad_pair_is_named_with_what_is_expected_and_the_old_one_stays() {
    let authority = Authority::new();
    let (a, b) = (authority.pair("a", &["a.test"]), authority.pair("b", &["b.test"]));
    let at = rcgen::date_time_ymd;
    let expired = authority.pair_with("old", &["a.test"], |params| params.not_after = at(2029, 1, 1));
    let future = authority.pair_with("new", &["a.test"], |params| params.not_before = at(2031, 1, 1));
    let nameless = authority.pair_with("nameless", &[], |_| {});
    let chain = [authority.issuer.pem(), std::fs::read_to_string(&a.cert).expect("read")].concat();
    let turned = authority.write("turned.pem", &chain);
    let text = authority.write("text.pem", "no PEM");
    let broken = authority.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let with = |cert: &PathBuf, key: &PathBuf, names: &[&str]| CertificateFiles {
        cert: cert.clone(),
        key: key.clone(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let cases = [
        (vec![], "no certificate is configured: expected at least one [[tls]]"),
        (vec![with(&authority.path("none.pem"), &a.key, &[])], "none.pem: "),
        (vec![with(&text, &a.key, &[])], "text.pem: no certificate: expected PEM with BEGIN CERTIFICATE"),
        (vec![with(&broken, &a.key, &[])], "broken.pem: certificate 1 cannot be parsed"),
        (vec![with(&a.cert, &a.cert, &[])], "a.pem: no private key: expected PEM with BEGIN PRIVATE KEY"),
        (vec![with(&a.cert, &b.key, &[])], "b.key: the certificate is for another key"),
        (vec![expired], "old.pem: expired on Jan  1 00:00:00 2029"),
        (vec![future], "new.pem: not valid before Jan  1 00:00:00 2031"),
        (vec![nameless], "nameless.pem: the certificate names no server"),
        (vec![with(&turned, &a.key, &[])], "turned.pem: the first certificate is that of an authority"),
        (
            vec![with(&a.cert, &a.key, &["c.test"])],
            "a.pem: not for \"c.test\", which 'names' has: expected one of a.test",
        ),
        (vec![a.clone(), with(&a.cert, &a.key, &[])], "a.pem: for \"a.test\", as is "),
    ];
    let server = load(vec![a.clone()]);
    let config = Arc::new(authority.client(&[&TLS13]));
    for (pairs, message) in cases {
        let error = TlsServer::load(&settings(pairs.clone()), NOW_S).expect_err(message).to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(server.reload(&pairs, NOW_S).expect_err(message).to_string(), error);
        shake(&server, &mut connect(&config, "a.test"), usize::MAX).expect("the old pair");
    }
    server.reload(&[b], NOW_S).expect("pairs");
    assert_eq!(server.expiries().iter().map(|expiry| &expiry.name[..]).collect::<Vec<_>>(), ["b.test"]);
    shake(&server, &mut connect(&config, "b.test"), usize::MAX).expect("the new pair");
}

#[test]
fn changed_files_are_read_and_a_bad_one_once() {
    let authority = Authority::new();
    let pair = authority.pair("a", &["a.test"]);
    let server = load(vec![pair.clone()]);
    assert!(!server.reload_if_changed(NOW_S).expect("nothing has changed"));
    // The same names, as a renewal has.
    let changed = |names: &[&str]| {
        authority.pair("a", names);
    };
    changed(&["a.test", "www.a.test"]);
    assert!(server.reload_if_changed(NOW_S).expect("a pair"));
    std::fs::write(&pair.key, "nothing").expect("written");
    server.reload_if_changed(NOW_S).expect_err("no key");
    assert!(!server.reload_if_changed(NOW_S).expect("it has not changed since"));
    changed(&["c.test"]);
    assert!(server.reload_if_changed(NOW_S).expect("a pair"));
    assert_eq!(server.expiries()[0].name, "c.test");
    let config = Arc::new(authority.client(&[&TLS13]));
    shake(&server, &mut connect(&config, "c.test"), usize::MAX).expect("the new pair");
}
