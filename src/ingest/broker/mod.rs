//! Brokers as sources: what NATS, Redis and others have in common.
//!
//! * [`parameters`]: the `--feed` argument: servers, credentials, TLS, the form of payloads.
//! * [`link`]: the interface of a connection to a broker. Each client library has a file in
//!   [`transport`](super::transport).
//! * [`source`]: a link and a [codec](super::codec) as a source.
//!
//! What always holds:
//! * A link that loses its connection is given up. The supervisor opens a new one, with nothing of the former but the
//!   instruments and the positions of the messages that were taken.
//! * **Durable** links keep what is not accepted in the broker, and acknowledge it once every ring has it: at least once.
//!   A message that is delivered again is known by its position, where the broker has one, and left out.
//! * **Push** links lose what comes while they are away or is more than their queue holds. Each loss is a Gap.

pub mod link;
pub mod parameters;
pub mod source;
