//! What a client wants, and how it is asked for, the first time and after a reconnect. Pure.
//!
//! What always holds: a subscription that has had its snapshot goes on from the last packet that came while it was
//! whole; another begins with a snapshot. Resumes are asked for before subscriptions, which would otherwise take the
//! names that they share and leave nothing to replay; and of two resumes the more specific one goes first, since a value
//! that waits for its interval is taken for had otherwise.

use tickcast_protocol::control::{ChannelSet, resume_text, subscribe_text};
use tickcast_protocol::{Channel, Token};

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub channels: Vec<Channel>,
    /// Names, or patterns with one `*` at the end.
    pub symbols: Vec<String>,
    /// 0: every update. Else at most one value per instrument and state channel in that interval, the newest.
    pub conflate_ms: u32,
    /// State before live.
    pub snapshot: bool,
}

impl Subscription {
    /// Every update of these channels and symbols, after a snapshot.
    pub fn new<S: Into<String>>(channels: &[Channel], symbols: impl IntoIterator<Item = S>) -> Self {
        let symbols = symbols.into_iter().map(Into::into).collect();
        Self { channels: channels.to_vec(), symbols, conflate_ms: 0, snapshot: true }
    }

    /// The same with an interval.
    pub fn conflated(mut self, conflate_ms: u32) -> Self {
        self.conflate_ms = conflate_ms;
        self
    }

    /// The request as JSON text.
    pub fn request(&self, id: u64) -> String {
        subscribe_text(id, self.channels(), &self.symbols(), self.conflate_ms, self.snapshot)
    }

    fn resume(&self, id: u64, token: Token) -> String {
        resume_text(id, token, self.channels(), &self.symbols(), self.conflate_ms)
    }

    pub(super) fn channels(&self) -> ChannelSet {
        self.channels.iter().copied().collect()
    }

    pub(super) fn symbols(&self) -> Vec<&str> {
        self.symbols.iter().map(String::as_str).collect()
    }

    /// The length of its least specific pattern; beyond all patterns where it has exact names alone.
    fn specificity(&self) -> usize {
        let patterns = self.symbols.iter().filter(|symbol| symbol.ends_with('*'));
        patterns.map(String::len).min().unwrap_or(usize::MAX)
    }
}

/// A subscription as a client keeps it, over all of its connections.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Of its requests, on every connection.
    pub(super) id: u64,
    pub(super) subscription: Subscription,
    /// The server has answered, on this connection.
    answered: bool,
    /// Its snapshot or replay has come to its end: the client's token is good for it.
    caught_up: bool,
    token: Option<Token>,
}

impl Wanted {
    pub(super) fn new(id: u64, subscription: Subscription, token: Option<Token>) -> Self {
        Self { id, subscription, answered: false, caught_up: false, token }
    }

    /// The request: a resume where there is a token.
    pub(super) fn request(&self) -> String {
        match self.token {
            Some(token) => self.subscription.resume(self.id, token),
            None => self.subscription.request(self.id),
        }
    }

    /// Whether it asks to go on from somewhere.
    pub(super) fn resumes(&self) -> bool {
        self.token.is_some()
    }

    /// The server has taken it. A subscription to what comes next has nothing to catch up with.
    pub(super) fn answered(&mut self) {
        self.answered = true;
        self.caught_up = !self.subscription.snapshot && self.token.is_none();
    }

    /// A snapshot or a replay has come to its end: that of all that has been answered.
    pub(super) fn caught_up(&mut self) {
        self.caught_up |= self.answered;
    }

    /// Whether it is live.
    pub(super) fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// The connection is gone; `token` is that of its last packet.
    pub(super) fn lost(&mut self, token: Option<Token>) {
        if self.caught_up {
            self.token = token;
        }
        (self.answered, self.caught_up) = (false, false);
    }
}

/// The requests that ask for all of it on a new connection, in their order.
pub(super) fn requests(wanted: &[Wanted]) -> Vec<String> {
    let mut ordered: Vec<&Wanted> = wanted.iter().collect();
    ordered.sort_by_key(|one| (!one.resumes(), std::cmp::Reverse(one.subscription.specificity())));
    ordered.into_iter().map(Wanted::request).collect()
}

#[cfg(test)]
mod tests {
    use tickcast_protocol::Position;

    use super::*;

    const TOKEN: Token = Token { epoch: 7, position: Position::new(5) };

    fn ops(wanted: &[Wanted]) -> Vec<(String, u64)> {
        let parsed = requests(wanted).into_iter().map(|text| -> serde_json::Value {
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        });
        parsed
            .map(|said| (said["op"].as_str().expect("a text").to_owned(), said["id"].as_u64().expect("an id")))
            .collect()
    }

    #[test]
    fn resumes_go_before_subscriptions_and_the_specific_before_the_general() {
        let of = |id, symbols: &[&str], token| {
            Wanted::new(id, Subscription::new(&[Channel::Quote], symbols.iter().copied()), token)
        };
        let wanted = [
            of(1, &["NEW"], None),
            of(2, &["*", "A"], Some(TOKEN)),
            of(3, &["BTC-*"], Some(TOKEN)),
            of(4, &["B"], Some(TOKEN)),
        ];
        let want = [("resume", 4), ("resume", 3), ("resume", 2), ("subscribe", 1)];
        assert_eq!(ops(&wanted), want.map(|(op, id)| (op.to_owned(), id)));
    }

    #[test]
    fn a_token_is_kept_from_before_a_replay_that_did_not_come_to_its_end() {
        let mut wanted = Wanted::new(1, Subscription::new(&[Channel::Trade], ["*"]), None);
        wanted.answered();
        wanted.lost(Some(TOKEN));
        assert!(!wanted.resumes(), "its snapshot never came");
        wanted.answered();
        wanted.caught_up();
        wanted.lost(Some(TOKEN));
        wanted.answered();
        wanted.lost(Some(Token { position: Position::new(9), ..TOKEN }));
        assert_eq!(wanted.token, Some(TOKEN));
    }

    #[test]
    fn what_has_no_snapshot_goes_on_from_its_first_packet() {
        let live = Subscription { snapshot: false, ..Subscription::new(&[Channel::Trade], ["*"]) };
        let mut wanted = Wanted::new(1, live, None);
        wanted.caught_up();
        wanted.lost(Some(TOKEN));
        assert!(!wanted.resumes(), "nobody has answered");
        wanted.answered();
        wanted.lost(Some(TOKEN));
        assert!(wanted.resumes());
    }
}
