//! Tickets of sessions that may be resumed: a ticket of TLS 1.3 is used once, so very many connections to one server need
//! as many, where the store of rustls keeps eight. Sessions of TLS 1.2 are not kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// The oldest first.
type Queue = VecDeque<(ServerName<'static>, Tls13ClientSessionValue)>;

/// See the module. A clone shares the tickets.
#[derive(Clone, Debug)]
pub(super) struct Tickets {
    tickets: Arc<Mutex<Queue>>,
    tickets_max: usize,
    /// Tickets are used, and not only kept.
    resumes: bool,
}

impl Tickets {
    pub(super) fn new(tickets_max: usize) -> Self {
        Self { tickets: Arc::default(), tickets_max, resumes: true }
    }

    /// The same tickets, for connections that add theirs and use none.
    pub(super) fn only_kept(&self) -> Self {
        Self { resumes: false, ..self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic leaves a whole queue.
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.lock();
        if tickets.len() >= self.tickets_max {
            tickets.pop_front();
        }
        if tickets.len() < self.tickets_max {
            tickets.push_back((name, ticket));
        }
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        if !self.resumes {
            return None;
        }
        let mut tickets = self.lock();
        let at = tickets.iter().rposition(|(of, _)| of == name)?;
        tickets.remove(at).map(|(_, ticket)| ticket)
    }
}
