//! Brokers as sources: real brokers, started by the test on free ports, and the program with their feeds.
//!
//! `tests/brokers/install` installs them, and RabbitMQ is a Debian package. The tests of a broker that is not installed
//! are reported as skipped. Messages are published by clients with none of the program's code: those of NATS and Redis
//! are written here, that of RabbitMQ is lapin's. The oracle counts: of a durable source each message comes once and in
//! order; of a push source each hole is behind a Gap.

mod broker;
mod certificates;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka")]
mod kafka_client;
mod nats;
mod nats_client;
mod oracle;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "rabbitmq")]
mod rabbitmq_server;
mod redis;
