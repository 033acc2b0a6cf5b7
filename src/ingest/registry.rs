//! The sources that `--feed` can name. A source is added by its own files and one line of [`SCHEMES`].

use std::fmt;
use std::sync::Arc;

use super::feed::{replay, sim};
use super::source::{Opener, Scheme};
#[cfg(feature = "nats")]
use super::transport::nats;
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
    #[cfg(feature = "nats")]
    nats::SCHEME,
    #[cfg(feature = "redis")]
    redis::SCHEME,
];
/// Kinds of sources that this program was built without; each is the name of its cargo feature.
const LEFT_OUT: &[&str] = &[
    #[cfg(not(feature = "nats"))]
    "nats",
    #[cfg(not(feature = "redis"))]
    "redis",
];
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
        if LEFT_OUT.contains(&name) {
            let cure = format!("build it with `cargo build --release --features {name}`");
            return Err(rejected(format!("this program was built without {name}: {cure}")));
        }
        let scheme = SCHEMES.iter().find(|scheme| scheme.name == name);
        let scheme = scheme.ok_or_else(|| rejected(format!("unknown feed {name:?}: expected {}", forms())))?;
        let opener = (scheme.parse)(rest).map_err(rejected)?;
        Ok(Self { text: text.to_owned(), opener: Some(opener) })
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

/// The form of each argument, for errors.
fn forms() -> String {
    let forms: Vec<_> = SCHEMES.iter().map(|scheme| scheme.form).collect();
    format!("{} or {NONE}", forms.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_feed_lists_every_scheme() {
        for (text, name) in [("simm:rate=5", "simm"), ("", ""), ("none:1", "none"), ("Sim", "Sim")] {
            let error = Spec::parse(text).expect_err("no such scheme");
            assert_eq!(error.spec, text);
            let expected = SCHEMES.iter().all(|scheme| error.problem.contains(scheme.form));
            assert!(expected && error.problem.starts_with(&format!("unknown feed {name:?}")), "{}", error.problem);
            assert!(error.problem.ends_with("or none"), "{}", error.problem);
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
