//! RabbitMQ as processes of the test, and a client by the library that the program has as well.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Error, ExchangeKind};
use tickcast_test_support::DEADLINE;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::broker::{Broker, free_port};
use crate::certificates::{self, Certificates};

/// Debian's script, which is replaced by the Erlang machine.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const EPMD: &str = "/usr/bin/epmd";

/// How long a message may wait for its confirmation.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);

/// The password of the user `acme`, who may read the queues whose names begin with `allowed`.
pub const PASSWORD: &str = "correct-horse-battery";
/// A vhost without a user who has permissions.
pub const CLOSED_VHOST: &str = "closed";

/// A server that is alone on its Erlang node, which tests may share.
pub struct Rabbit {
    // They end in this order.
    pub broker: Broker,
    _names: Broker,
    /// Certificates of `tls_port`; `None` where openssl is absent.
    pub certificates: Option<Certificates>,
    pub tls_port: u16,
}

/// The server of all tests that run now; `None`, and a line in the output, where RabbitMQ is absent.
pub fn shared() -> Option<Arc<Rabbit>> {
    static SHARED: Mutex<Weak<Rabbit>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(rabbit) = shared.upgrade() {
        return Some(rabbit);
    }
    let mut rabbit = Rabbit::new()?;
    rabbit.broker.start();
    let rabbit = Arc::new(rabbit);
    *shared = Arc::downgrade(&rabbit);
    Some(rabbit)
}

impl Rabbit {
    /// A server that is not started yet.
    pub fn new() -> Option<Self> {
        if !Path::new(SERVER).exists() {
            println!("SKIPPED: {SERVER} is not installed: it is in Debian's package rabbitmq-server");
            return None;
        }
        let mut names = Broker::new(EPMD.into(), |port, _| {
            ["-port", &port.to_string(), "-address", "127.0.0.1"].map(str::to_owned).to_vec()
        });
        names.start();
        let (names_port, tls_port) = (names.port, free_port());
        let mut pem = None;
        let broker = Broker::new("/usr/bin/env".into(), |port, folder| {
            pem = certificates::make(folder);
            configure(folder, port, tls_port, pem.as_ref());
            let at = |name: &str| folder.join(name).display().to_string();
            let environment = [
                ("HOME", at("")),
                ("ERL_EPMD_PORT", names_port.to_string()),
                ("RABBITMQ_NODENAME", format!("tickcast{port}@localhost")),
                ("RABBITMQ_DIST_PORT", free_port().to_string()),
                ("RABBITMQ_MNESIA_BASE", at("data")),
                ("RABBITMQ_LOG_BASE", at("logs")),
                ("RABBITMQ_LOGS", "-".to_owned()),
                ("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")),
                ("RABBITMQ_CONF_ENV_FILE", at("none")),
                ("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins")),
                // With it the script does not stay beside the machine that it starts.
                ("NOTIFY_SOCKET", at("none")),
            ];
            let environment = environment.map(|(name, value)| format!("{name}={value}"));
            environment.into_iter().chain([SERVER.to_owned()]).collect()
        });
        Some(Self { broker, _names: names, certificates: pem, tls_port })
    }

    pub fn port(&self) -> u16 {
        self.broker.port
    }

    /// Waits until the disk has the name of what coordinates streams: a broker that is killed before never has streams
    /// again.
    pub fn wait_for_streams(&self) {
        let node = format!("tickcast{}@localhost", self.port());
        let file =
            self.broker.folder.path().join("data").join(&node).join("coordination").join(&node).join("names.dets");
        let name = b"rabbit_stream_coordinator";
        let until = Instant::now() + DEADLINE;
        while !std::fs::read(&file).is_ok_and(|bytes| bytes.windows(name.len()).any(|window| window == name)) {
            assert!(Instant::now() < until, "{} has no {}", file.display(), String::from_utf8_lossy(name));
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub fn client(&self) -> RabbitClient {
        RabbitClient::try_connect(self.port()).expect("the broker answers")
    }
}

/// Writes the configuration. Users and vhosts are imported at the start.
fn configure(folder: &Path, port: u16, tls_port: u16, pem: Option<&Certificates>) {
    let mut text =
        format!("listeners.tcp.1 = 127.0.0.1:{port}\nload_definitions = {}\n", folder.join("d.json").display());
    if let Some(pem) = pem {
        let Certificates { authority, certificate, key } = pem;
        text += &format!(
            "listeners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\n",
            authority.display(),
            certificate.display(),
            key.display()
        );
    }
    let user = |name: &str, password: &str| serde_json::json!({"name": name, "password": password, "tags": ""});
    let permissions = |user: &str, read: &str| serde_json::json!({"user": user, "vhost": "/", "configure": read, "write": read, "read": read});
    let definitions = serde_json::json!({
        "users": [user("guest", "guest"), user("acme", PASSWORD)],
        "vhosts": [{"name": "/"}, {"name": CLOSED_VHOST}],
        "permissions": [permissions("guest", ".*"), permissions("acme", "^allowed.*")],
    });
    for (name, text) in [("rabbitmq.conf", text), ("d.json", definitions.to_string()), ("plugins", "[].".to_owned())] {
        std::fs::write(folder.join(name), text).expect("the folder is writable");
    }
}

/// A client whose messages are durable and confirmed.
pub struct RabbitClient {
    channel: Channel,
    _connection: Connection,
    runtime: Runtime,
}

impl RabbitClient {
    pub fn try_connect(port: u16) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (connection, channel) = runtime.block_on(async {
            let uri = format!("amqp://guest:guest@127.0.0.1:{port}/%2f?heartbeat=0");
            let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok::<_, Error>((connection, channel))
        })?;
        Ok(Self { channel, _connection: connection, runtime })
    }

    /// Makes a durable queue of a type: `classic`, `quorum` or `stream`.
    pub fn make_queue(&self, name: &str, kind: &str) {
        self.make(name, &[("x-queue-type", AMQPValue::LongString(kind.into()))]);
    }

    /// Makes a stream that keeps so many bytes, in segments of so many.
    pub fn make_stream_of(&self, name: &str, bytes: i64, segment_bytes: i64) {
        let arguments = [
            ("x-queue-type", AMQPValue::LongString("stream".into())),
            ("x-max-length-bytes", AMQPValue::LongLongInt(bytes)),
            ("x-stream-max-segment-size-bytes", AMQPValue::LongLongInt(segment_bytes)),
        ];
        self.make(name, &arguments);
    }

    fn make(&self, name: &str, pairs: &[(&str, AMQPValue)]) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        for (key, value) in pairs {
            arguments.insert((*key).into(), value.clone());
        }
        let made = self.runtime.block_on(self.channel.queue_declare(name.into(), options, arguments));
        made.expect("the queue is made");
    }

    /// Makes a topic exchange.
    pub fn make_exchange(&self, name: &str) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let made = self.channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default());
        self.runtime.block_on(made).expect("the exchange is made");
    }

    pub fn bind(&self, queue: &str, exchange: &str, key: &str) {
        let options = QueueBindOptions::default();
        let bound = self.channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default());
        self.runtime.block_on(bound).expect("the queue is bound");
    }

    pub fn delete_queue(&self, name: &str) {
        let deleted = self.channel.queue_delete(name.into(), QueueDeleteOptions::default());
        self.runtime.block_on(deleted).expect("the queue is deleted");
    }

    /// Publishes a message, and waits until the broker has confirmed it.
    pub fn try_publish(&self, exchange: &str, key: &str, payload: &[u8], id: Option<u64>) -> Result<(), Error> {
        let mut properties = BasicProperties::default().with_delivery_mode(2);
        if let Some(id) = id {
            properties = properties.with_message_id(id.to_string().into());
        }
        let confirmation = self.runtime.block_on(async {
            // A queue that is not up yet does not get it, and it is confirmed all the same.
            let options = BasicPublishOptions { mandatory: exchange.is_empty(), ..BasicPublishOptions::default() };
            let published = async {
                self.channel.basic_publish(exchange.into(), key.into(), options, payload, properties).await?.await
            };
            // A stream whose writer is replaced may never confirm.
            let late = |_| Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
            timeout(CONFIRM_TIMEOUT, published).await.map_err(late)?
        })?;
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            other => Err(std::io::Error::other(format!("{other:?}")).into()),
        }
    }

    pub fn publish(&self, exchange: &str, key: &str, payload: &[u8]) {
        self.try_publish(exchange, key, payload, None).expect("the broker confirms");
    }

    /// Publishes messages at once, which nothing confirms.
    pub fn publish_burst(&self, exchange: &str, key: &str, payloads: impl Iterator<Item = String>) {
        self.runtime.block_on(async {
            let mut confirmations = Vec::new();
            for payload in payloads {
                let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
                let sent =
                    self.channel.basic_publish(exchange.into(), key.into(), options, payload.as_bytes(), properties);
                confirmations.push(sent.await.expect("the broker reads"));
            }
            for confirmation in confirmations {
                confirmation.await.expect("the broker confirms");
            }
        });
    }
}
