//! REST requests.

use super::faults::{Class, Fault, FaultPlace};
use super::{Hub, Refusal};
use crate::dialect::{Rest, Target};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// A JSON text.
    pub body: String,
    /// The answer is sent after this.
    pub delay_ms: u64,
}

impl Hub {
    /// Answers a GET request.
    pub fn rest(&mut self, target: &str, now_ns: u64) -> RestAnswer {
        self.rest_requests += 1;
        let place = target;
        let target = Target::parse(target);
        if let Err(refusal) = self.check_open(now_ns) {
            return self.limited(&refusal);
        }
        let asked = self.dialect.rest(&target, &self.market, now_ns);
        let (Rest::Answer { weight, .. } | Rest::Book { weight, .. }) = asked else {
            return RestAnswer {
                status: 404,
                headers: Vec::new(),
                body: r#"{"message":"NotFound"}"#.to_owned(),
                delay_ms: 0,
            };
        };
        if !self.rest_weight.admit(self.options.limits.rest, weight as usize, now_ns) {
            return self
                .limited(&Refusal { status: 429, retry_after_s: Some(self.options.limits.rest.per_ms / 1_000) });
        }
        match asked {
            Rest::Answer { status, body, .. } => RestAnswer { status, headers: Vec::new(), body, delay_ms: 0 },
            Rest::Book { instrument, limit, .. } => self.rest_book(instrument, limit, place, now_ns),
            Rest::Unknown => self.limited(&Refusal { status: 404, retry_after_s: None }),
        }
    }

    fn rest_book(&mut self, instrument: usize, limit: usize, place: &str, now_ns: u64) -> RestAnswer {
        let at = FaultPlace { now_ns, connection: None, place };
        let fault = self.faults.take(&[Fault::LateSnapshot, Fault::StaleSnapshot], Class::Book, at);
        let of = match fault {
            Some(Fault::StaleSnapshot) => &self.former[0][instrument],
            _ => &self.market.listed[instrument],
        };
        let body = self.dialect.rest_book(of, limit, now_ns);
        let delay_ms = if fault == Some(Fault::LateSnapshot) { self.options.late_ms } else { 0 };
        RestAnswer { status: 200, headers: Vec::new(), body, delay_ms }
    }

    fn limited(&self, refusal: &Refusal) -> RestAnswer {
        let headers = refusal.retry_after_s.map(|seconds| ("Retry-After", seconds.to_string())).into_iter().collect();
        let body = self.dialect.rest_limited(refusal.retry_after_s.unwrap_or(1));
        RestAnswer { status: refusal.status, headers, body, delay_ms: 0 }
    }
}
