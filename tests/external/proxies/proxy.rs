//! A proxy with its shipped configuration, which ends with its test.

use std::fs::{read_to_string, write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::RwLockReadGuard;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use tickcast_test_support::DEADLINE;
use tickcast_test_support::exclusive::shared;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Haproxy,
}

pub struct Proxy {
    child: Child,
    pub http: SocketAddr,
    /// `None` where there is no certificate: openssl is not installed.
    pub https: Option<SocketAddr>,
    folder: tempfile::TempDir,
    /// The test that measures the page does not run beside a proxy.
    _machine: RwLockReadGuard<'static, ()>,
}

impl Proxy {
    /// Starts one in front of this server. If it is not installed, prints that and returns `None`.
    pub fn start(kind: Kind, server: SocketAddr) -> Option<Self> {
        let program = kind.program()?;
        let folder = tempfile::tempdir().expect("a folder");
        let has_tls = certify(folder.path());
        // Both at once, so that they differ.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [http, https] = free.each_ref().map(|free| free.local_addr().expect("it is bound"));
        drop(free);
        let text = kind.configuration(folder.path(), server, http, Some(https).filter(|_| has_tls));
        let file = folder.path().join("configuration");
        write(&file, text).expect("written");
        let log = std::fs::File::create(folder.path().join("log")).expect("written");
        let child = kind
            .command(program, folder.path(), &file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let mut proxy = Self { child, http, https: has_tls.then_some(https), folder, _machine: shared() };
        proxy.wait_ready();
        Some(proxy)
    }

    fn wait_ready(&mut self) {
        let until = Instant::now() + DEADLINE;
        let is_ready = |address| {
            let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            TcpStream::connect(address).is_ok() && super::send_request(address, request.as_bytes()).status == 200
        };
        while !is_ready(self.http) {
            let ended = self.child.try_wait().expect("a child of the test");
            assert!(ended.is_none() && Instant::now() < until, "it does not serve ({ended:?}): {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until its log contains this text.
    pub fn wait_for_log(&self, text: &str) {
        let until = Instant::now() + DEADLINE;
        while !self.log().contains(text) {
            assert!(Instant::now() < until, "{text:?} is not in: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, so that it ends its workers as well.
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid is not 0");
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the proxy: {}", self.log());
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// The path of the program: in Debian it is not in a user's `PATH`.
    fn program(self) -> Option<String> {
        let name = self.name();
        let starts =
            |program: &String| Command::new(program).arg("-v").output().is_ok_and(|output| output.status.success());
        let found = [name.to_owned(), format!("/usr/sbin/{name}")].into_iter().find(starts);
        if found.is_none() {
            println!("SKIPPED: {name} does not start; apt-get install {name}");
        }
        found
    }

    /// The shipped file with other ports, paths and, as a test has few descriptors, sizes. Fails if a text to replace is
    /// missing.
    fn configuration(self, folder: &Path, server: SocketAddr, http: SocketAddr, https: Option<SocketAddr>) -> String {
        let folder = folder.display().to_string();
        let (file, of_kind) = match self {
            Self::Nginx => ("nginx.conf", of_nginx(&folder, http, https)),
            Self::Haproxy => ("haproxy.cfg", of_haproxy(&folder, http, https)),
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/proxy").join(file);
        let mut text = read_to_string(&path).expect("a shipped file");
        for (from, to) in of_kind.into_iter().chain([("127.0.0.1:9001", server.to_string())]) {
            assert!(text.contains(from), "{from:?} is not in {}", path.display());
            text = text.replace(from, &to);
        }
        text
    }

    fn command(self, program: String, folder: &Path, file: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            Self::Nginx => {
                let folder = folder.display();
                let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
                let more = format!("daemon off; pid {folder}/pid; error_log stderr warn; {user}");
                command.args(["-p", &folder.to_string(), "-g", &more, "-c"]).arg(file);
            }
            Self::Haproxy => {
                command.args(["-db", "-f"]).arg(file);
            }
        }
        command
    }
}

/// Pairs of a text and its replacement.
type Replaced = Vec<(&'static str, String)>;

fn of_nginx(folder: &str, http: SocketAddr, https: Option<SocketAddr>) -> Replaced {
    let tls = |line: String| if https.is_some() { line } else { String::new() };
    let listen = https.map_or_else(String::new, |https| format!("listen {https} ssl http2;"));
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = kinds.map(|kind| format!("{kind}_temp_path {folder}/{kind};")).join(" ");
    vec![
        ("listen 80;", format!("listen {http};")),
        ("listen 443 ssl http2;", listen),
        ("ssl_certificate     /etc/nginx/tls/fullchain.pem;", tls(format!("ssl_certificate {folder}/cert;"))),
        ("ssl_certificate_key /etc/nginx/tls/privkey.pem;", tls(format!("ssl_certificate_key {folder}/key;"))),
        ("worker_rlimit_nofile 210000;", String::new()),
        ("worker_connections 100000;", "worker_connections 400;".to_owned()),
        // The user of the test may write to this folder only.
        ("access_log /var/log/nginx/access.log combined buffer=64k flush=5s;", format!("access_log off; {paths}")),
    ]
}

fn of_haproxy(folder: &str, http: SocketAddr, https: Option<SocketAddr>) -> Replaced {
    let bind = |https| format!("    bind {https} ssl crt {folder}/both alpn h2,http/1.1\n");
    vec![
        ("    bind :80\n", format!("    bind {http}\n")),
        (
            "    bind :443 ssl crt /etc/haproxy/tls/tickcast.pem alpn h2,http/1.1\n",
            https.map_or_else(String::new, bind),
        ),
        ("maxconn 100000", "maxconn 400".to_owned()),
    ]
}

/// Makes a certificate in the folder; false if openssl cannot.
fn certify(folder: &Path) -> bool {
    let [key, cert, both] = ["key", "cert", "both"].map(|name| folder.join(name));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("SKIPPED: no TLS, because openssl makes no certificate");
        return false;
    }
    let text = |path| read_to_string(path).expect("it was made");
    write(both, text(&cert) + &text(&key)).expect("written");
    true
}
