//! `tickcast load --attack`: hostile clients in a process of their own, while well-behaved clients are measured before,
//! during and after.
//!
//! Method: the kinds run one after another, each with the clients of a run of its own. An attack keeps
//! `--attack-connections` and visits them round robin with `--attack-rate` actions a second; a connection that the
//! server has ended is opened again. It never waits for an answer. By default its thread runs at idle priority, so that
//! on a shared machine it uses only what the measuring clients leave; the report states how many actions it made. From
//! loopback, the server's limits per address do not hold by default, see `docs/load.md`.
//!
//! * [`args`], [`kind`]: what can be asked for. [`phases`]: when it runs.
//! * [`script`], [`frames`], [`flood`]: what the connections of a kind send. Pure.
//! * [`connection`], [`connections`]: the sockets.
//! * [`process`], [`task`]: the process; it also stops that of the server, which is the kind `pauses`.

mod args;
mod connection;
mod connections;
mod flood;
mod frames;
mod kind;
mod phases;
mod process;
mod script;
mod task;
#[cfg(test)]
mod tests;

pub use self::args::AttackArgs;
pub use self::connections::AttackCount;
pub use self::kind::AttackKind;
pub use self::phases::AttackPhases;
pub use self::process::{Attack, attack_worker};
pub use self::task::AttackTask;
