//! The sources that `--feed` can name. A source is added by its own files and one line of [`SCHEMES`].
//!
//! Brokers are here with their forms whether this program has them or not: the help and the documents are the same, and
//! the use of one that was left out says how to build it.

use std::fmt;
use std::sync::Arc;

use super::feed::{replay, sim};
use super::source::{Opener, Scheme};
#[cfg(feature = "kafka")]
use super::transport::kafka;
#[cfg(feature = "nats")]
use super::transport::nats;
#[cfg(feature = "rabbitmq")]
use super::transport::rabbitmq;
#[cfg(feature = "redis")]
use super::transport::redis;
use super::venue;

/// All kinds of sources.
pub const SCHEMES: &[Scheme] = &[
    sim::SCHEME,
    replay::SCHEME,
    venue::BINANCE,
    venue::BINANCE_USDM,
    venue::BINANCE_COINM,
    venue::COINBASE,
    venue::KRAKEN,
    venue::BYBIT,
    venue::OKX,
    NATS,
    REDIS,
    RABBITMQ,
    KAFKA,
];
/// The name of a broker is that of its cargo feature.
const NATS: Scheme = Scheme {
    name: "nats",
    form: "nats://HOST:4222?subject=prices.>&stream=NAME&durable=NAME&codec=json|tickcast|raw",
    help: "subjects of NATS, or a stream of JetStream",
    #[cfg(feature = "nats")]
    parse: nats::parse,
    #[cfg(not(feature = "nats"))]
    parse: |_| Err(left_out(NATS.name)),
};
const REDIS: Scheme = Scheme {
    name: "redis",
    form: "redis://HOST:6379?channel=NAME&pattern=prices.*&codec=json|tickcast|raw, or ?stream=KEY&group=NAME",
    help: "channels or streams of Redis or Valkey",
    #[cfg(feature = "redis")]
    parse: redis::parse,
    #[cfg(not(feature = "redis"))]
    parse: |_| Err(left_out(REDIS.name)),
};
const RABBITMQ: Scheme = Scheme {
    name: "rabbitmq",
    form: "rabbitmq://HOST:5672?queue=NAME&codec=json|tickcast|raw, or ?stream=NAME&from=all, or \
           ?exchange=NAME&bind=prices.#",
    help: "queues, streams or an exchange of RabbitMQ",
    #[cfg(feature = "rabbitmq")]
    parse: rabbitmq::parse,
    #[cfg(not(feature = "rabbitmq"))]
    parse: |_| Err(left_out(RABBITMQ.name)),
};
const KAFKA: Scheme = Scheme {
    name: "kafka",
    form: "kafka://HOST:9092?topic=NAME&group=NAME&codec=json|tickcast|raw",
    help: "topics of Kafka",
    #[cfg(feature = "kafka")]
    parse: kafka::parse,
    #[cfg(not(feature = "kafka"))]
    parse: |_| Err(left_out(KAFKA.name)),
};
/// The argument for no source.
pub const NONE: &str = "none";
/// What it means.
pub const NONE_HELP: &str = "no feed: publishers alone bring data";

/// A validated `--feed` argument.
#[derive(Clone, Debug)]
pub struct Spec {
    text: String,
    /// `None` for `none`.
    opener: Option<Arc<dyn Opener>>,
}

/// Why a `--feed` argument was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("feed {spec:?}: {problem}")]
pub struct SpecError {
    /// The argument.
    pub spec: String,
    /// The fault, and what is allowed.
    pub problem: String,
}

impl Spec {
    /// Parses a `--feed` argument.
    ///
    /// # Errors
    /// The error of the scheme, or the schemes that there are.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let rejected = |problem| SpecError { spec: without_user_info(text), problem };
        if text == NONE {
            return Ok(Self { text: text.to_owned(), opener: None });
        }
        let scheme = SCHEMES.iter().find(|scheme| scheme.name == name);
        let scheme = scheme.ok_or_else(|| rejected(format!("unknown feed {name:?}: expected {}", names())))?;
        let opener = (scheme.parse)(rest).map_err(rejected)?;
        Ok(Self { text: text.to_owned(), opener: Some(opener) })
    }

    /// A source that no argument names: the feed of a delayed market.
    pub fn of_delayed(opener: Arc<dyn Opener>) -> Self {
        Self { text: opener.name(), opener: Some(opener) }
    }

    /// What opens the source; `None` for `none`.
    pub fn opener(&self) -> Option<&Arc<dyn Opener>> {
        self.opener.as_ref()
    }
}

/// By the arguments: the same argument is the same source.
impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Without secrets.
impl fmt::Display for Spec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.opener.as_ref().map_or_else(|| NONE.to_owned(), |opener| opener.name()))
    }
}

/// The error of a broker whose feature is off.
#[cfg_attr(all(feature = "nats", feature = "redis", feature = "rabbitmq", feature = "kafka"), allow(dead_code))]
fn left_out(name: &str) -> String {
    format!("this build has no {name}: build it with `cargo build --release --features {name}`")
}

/// The argument with `…` in place of a user and a password before a host.
fn without_user_info(text: &str) -> String {
    let host_end = text.find('?').unwrap_or(text.len());
    match (text.find("//"), text[..host_end].rfind('@')) {
        (Some(slashes), Some(at)) if slashes < at => format!("{}…{}", &text[..slashes + 2], &text[at..]),
        _ => text.to_owned(),
    }
}

/// The help of `--feed`: the form of each argument, and what it is.
pub fn help() -> String {
    let of_scheme = |scheme: &Scheme| format!("`{}`: {}", scheme.form, scheme.help);
    let schemes: Vec<_> = SCHEMES.iter().map(of_scheme).collect();
    format!(
        "Source of market data, may be given several times: {}; `{NONE}`: {NONE_HELP} [default: sim]",
        schemes.join("; ")
    )
}

/// What an argument begins with, for errors.
fn names() -> String {
    let names: Vec<_> = SCHEMES.iter().map(|scheme| scheme.name).collect();
    format!("{} or {NONE}, in the form that `tickcast --help` shows", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_feed_lists_every_scheme() {
        for (text, name) in [("simm:rate=5", "simm"), ("", ""), ("none:1", "none"), ("Sim", "Sim")] {
            let error = Spec::parse(text).expect_err("no such scheme");
            assert_eq!(error.spec, text);
            let expected = SCHEMES.iter().all(|scheme| error.problem.contains(scheme.name));
            assert!(expected && error.problem.starts_with(&format!("unknown feed {name:?}")), "{}", error.problem);
            assert!(error.problem.contains(" or none, in the form that"), "{}", error.problem);
        }
    }

    #[test]
    fn broker_that_was_left_out_says_how_to_build_it() {
        for (name, argument, is_built) in [
            ("nats", "nats://h?subject=x", cfg!(feature = "nats")),
            ("redis", "redis://h?channel=x", cfg!(feature = "redis")),
            ("rabbitmq", "rabbitmq://h?queue=x", cfg!(feature = "rabbitmq")),
            ("kafka", "kafka://h?topic=x", cfg!(feature = "kafka")),
        ] {
            match Spec::parse(argument) {
                Ok(_) => assert!(is_built, "{name}"),
                Err(error) => {
                    let problem =
                        format!("this build has no {name}: build it with `cargo build --release --features {name}`");
                    assert_eq!((is_built, error.problem), (false, problem));
                }
            }
            assert!(help().contains(&format!("`{name}://")), "{}", help());
        }
    }

    #[test]
    fn forms_are_arguments_of_their_own_schemes() {
        for (nth, scheme) in SCHEMES.iter().enumerate() {
            assert!(scheme.form.split(':').next() == Some(scheme.name), "{}", scheme.form);
            assert!(SCHEMES[..nth].iter().all(|other| other.name != scheme.name), "{} twice", scheme.name);
            assert!(help().contains(scheme.form) && help().contains(scheme.help), "{}", help());
        }
        let sim = Spec::parse("sim:instruments=200,rate=20000,seed=1").expect("the form in the help");
        assert_eq!((sim.to_string().as_str(), sim.opener().is_some()), ("sim:instruments=200,rate=20000,seed=1", true));
        let none = Spec::parse(NONE).expect("no feed");
        assert_eq!((none.to_string().as_str(), none.opener().is_none()), (NONE, true));
    }
}
