//! An authority, and a certificate of 127.0.0.1 that it has signed, made with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::broker::Broker;

/// PEM files.
pub struct Certificates {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Makes them in a folder; `None`, and a line in the output, where openssl is absent.
pub fn make(folder: &Path) -> Option<Certificates> {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIPPED: openssl is not installed");
        return None;
    }
    let at = |name: &str| folder.join(name);
    let openssl = |args: &str| {
        let output = Command::new("openssl").current_dir(folder).args(args.split(' ')).output().expect("it runs");
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::write(at("san"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("the folder is writable");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"));
    openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=broker"));
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile san");
    Some(Certificates { authority: at("ca.pem"), certificate: at("server.pem"), key: at("server.key") })
}

/// HAProxy, which ends TLS in front of a broker; `None`, and a line in the output, where it is absent.
pub fn proxy(pem: &Certificates, broker: u16) -> Option<Broker> {
    let program = Path::new("/usr/sbin/haproxy");
    if !program.exists() {
        println!("SKIPPED: {} is not installed", program.display());
        return None;
    }
    let both = [&pem.certificate, &pem.key].map(|path| std::fs::read(path).expect("a file")).concat();
    let mut proxy = Broker::new(program.to_owned(), |port, folder| {
        let (config, certificate) = (folder.join("haproxy.cfg"), folder.join("both.pem"));
        std::fs::write(&certificate, both).expect("the folder is writable");
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n\
             listen broker\n  bind 127.0.0.1:{port} ssl crt {}\n  server one 127.0.0.1:{broker}\n",
            certificate.display()
        );
        std::fs::write(&config, text).expect("the folder is writable");
        vec!["-db".to_owned(), "-f".to_owned(), config.display().to_string()]
    });
    proxy.start();
    Some(proxy)
}
