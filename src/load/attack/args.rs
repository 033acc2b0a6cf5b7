//! The arguments of an attack.

use serde::{Deserialize, Serialize};

use super::kind::{AttackKind, AttackKinds};
use crate::load::error::LoadError;
use crate::load::machine::{Sources, parse_sources};

/// The scheduling priority of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttackPriority {
    /// It uses only what all other processes of its cores leave
    Idle,
    /// It competes with them: for cores that the clients do not use, and machines with other work
    Normal,
}

/// The arguments of an attack.
#[derive(Clone, Debug, clap::Args)]
pub struct AttackArgs {
    /// Attack the server with each of these kinds in turn, and measure the clients before, during and after: all, or a
    /// list of slow-headers, half-open, connects, handshakes, gets, unread-answers, pings, pongs, partial-messages,
    /// compressed, subscribes, reconnects, patterns, nested-patterns, unsubscribes, publisher-flood, pauses
    #[arg(long, value_name = "KIND,…")]
    pub attack: Option<AttackKinds>,
    /// Connections of each kind
    #[arg(long, default_value_t = 256, value_name = "N", requires = "attack",
        value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub attack_connections: u32,
    /// Actions per second of each kind
    #[arg(long, default_value_t = 2000, value_name = "N", requires = "attack",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub attack_rate: u32,
    /// Source addresses of the attack, round robin, such as 127.0.0.9 or 127.0.0.9-12 [default: chosen by the kernel]
    #[arg(long, value_name = "IP,IP-N,…", requires = "attack", value_parser = parse_sources)]
    pub attack_source: Option<Sources>,
    /// Scheduling priority of the attack
    #[arg(long, value_enum, default_value_t = AttackPriority::Idle, value_name = "NAME", requires = "attack")]
    pub attack_priority: AttackPriority,
    /// A --publish-token of the server, for publisher-flood
    #[arg(long, value_name = "TOKEN", requires = "attack")]
    pub attack_token: Option<String>,
}

impl AttackArgs {
    /// The kinds to run, and those that `all` leaves out, with the reason. `knows_process`: the run knows the server's
    /// process because it starts it, or was given its id. `is_secured`: the connections are over TLS.
    pub fn kinds(&self, knows_process: bool, is_secured: bool) -> Result<(Vec<AttackKind>, Vec<String>), LoadError> {
        let missing = |kind: AttackKind| match kind {
            AttackKind::PublisherFlood if self.attack_token.is_none() => {
                Some("publisher-flood needs a token of the server: expected --attack-token TOKEN")
            }
            AttackKind::Handshakes if !is_secured => {
                Some("handshakes are those of TLS: expected the URL wss://HOST of the server")
            }
            AttackKind::Pauses if !knows_process => {
                Some("pauses stops the server's process: expected --serve ARGS or --server-pid PID")
            }
            _ => None,
        };
        match &self.attack {
            None => Ok((Vec::new(), Vec::new())),
            Some(AttackKinds::All) => {
                let (left_out, kinds) = AttackKind::all().iter().partition(|kind| missing(**kind).is_some());
                let reasons =
                    |kinds: Vec<AttackKind>| kinds.into_iter().filter_map(missing).map(str::to_owned).collect();
                Ok((kinds, reasons(left_out)))
            }
            Some(AttackKinds::These(kinds)) => match kinds.iter().find_map(|kind| missing(*kind)) {
                Some(problem) => Err(LoadError::Arguments(format!("--attack: {problem}"))),
                None => Ok((kinds.clone(), Vec::new())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        attack: AttackArgs,
    }

    fn kinds(flags: &[&str], knows_process: bool) -> Result<(Vec<AttackKind>, Vec<String>), LoadError> {
        let line = ["load"].into_iter().chain(flags.iter().copied());
        Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).attack.kinds(knows_process, knows_process)
    }

    #[test]
    fn all_leaves_out_what_cannot_run_and_says_why() {
        let (some, left_out) = kinds(&["--attack", "all"], false).expect("a list");
        assert_eq!((some.len(), left_out.len()), (AttackKind::all().len() - 3, 3));
        let expected = ["wss://", "--attack-token", "--server-pid"];
        assert!(expected.iter().zip(&left_out).all(|(text, reason)| reason.contains(text)), "{left_out:?}");
        let (all, left_out) = kinds(&["--attack", "all", "--attack-token", "t"], true).expect("a list");
        assert_eq!((&all[..], left_out.len()), (AttackKind::all(), 0));
    }

    #[test]
    fn a_kind_that_cannot_run_is_refused() {
        for (kind, flag) in [
            ("publisher-flood", "--attack-token TOKEN"),
            ("pauses", "--serve ARGS or --server-pid PID"),
            ("handshakes", "wss://HOST"),
        ] {
            let error = kinds(&["--attack", kind], false).expect_err("refused").to_string();
            assert!(error.starts_with("--attack: ") && error.contains(flag), "{error}");
        }
        assert_eq!(kinds(&[], false).expect("no attack").0, []);
    }
}
