//! What a client subscribes to, and the requests for it on the first connection and after each reconnect. Pure.
//!
//! What always holds: a subscription whose snapshot is complete resumes after the last packet that came while it was
//! complete; any other one begins with a snapshot. Resumes are requested before subscriptions: a subscription would
//! otherwise take over the instruments that both cover, and nothing would be replayed. Of two resumes the more specific
//! one goes first: a value that waits for the conflation interval of the general one would otherwise count as
//! delivered.

use tickcast_protocol::control::{ChannelSet, resume_text, subscribe_text};
use tickcast_protocol::{Channel, Token};

/// What a client subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The channels.
    pub channels: Vec<Channel>,
    /// Symbols, or patterns with one `*` at the end.
    pub symbols: Vec<String>,
    /// 0: every update. Otherwise at most one value per instrument and state channel in this interval, the newest.
    pub conflate_ms: u32,
    /// Whether the present state comes before the live stream.
    pub snapshot: bool,
}

impl Subscription {
    /// Every update of these channels and symbols, after a snapshot.
    pub fn new<S: Into<String>>(channels: &[Channel], symbols: impl IntoIterator<Item = S>) -> Self {
        let symbols = symbols.into_iter().map(Into::into).collect();
        Self { channels: channels.to_vec(), symbols, conflate_ms: 0, snapshot: true }
    }

    /// The same with a conflation interval.
    #[must_use]
    pub fn conflated(mut self, conflate_ms: u32) -> Self {
        self.conflate_ms = conflate_ms;
        self
    }

    /// The same without a snapshot: live records only.
    #[must_use]
    pub fn without_snapshot(mut self) -> Self {
        self.snapshot = false;
        self
    }

    /// The request as JSON text, for a connection of one's own.
    pub fn request(&self, id: u64) -> String {
        subscribe_text(id, self.channel_set(), &self.symbol_list(), self.conflate_ms, self.snapshot)
    }

    /// The request to resume from `token`, as JSON text.
    pub fn resume_request(&self, id: u64, token: Token) -> String {
        resume_text(id, token, self.channel_set(), &self.symbol_list(), self.conflate_ms)
    }

    pub(crate) fn channel_set(&self) -> ChannelSet {
        self.channels.iter().copied().collect()
    }

    pub(crate) fn symbol_list(&self) -> Vec<&str> {
        self.symbols.iter().map(String::as_str).collect()
    }

    /// The length of its least specific pattern; above all patterns where it has exact names only.
    fn specificity(&self) -> usize {
        let patterns = self.symbols.iter().filter(|symbol| symbol.ends_with('*'));
        patterns.map(String::len).min().unwrap_or(usize::MAX)
    }
}

/// A subscription of a client, over all of its connections.
#[derive(Debug)]
pub(crate) struct ActiveSubscription {
    /// The id of its requests, on every connection.
    pub(crate) id: u64,
    pub(crate) subscription: Subscription,
    /// The server has accepted it on this connection.
    accepted: bool,
    /// Its snapshot or replay is complete: the client's token is valid for it.
    caught_up: bool,
    /// The client gets less than it has asked for.
    restricted: bool,
    token: Option<Token>,
}

impl ActiveSubscription {
    pub(crate) fn new(id: u64, subscription: Subscription, token: Option<Token>) -> Self {
        Self { id, subscription, accepted: false, caught_up: false, restricted: false, token }
    }

    /// The request: a resume where there is a token.
    pub(crate) fn request(&self) -> String {
        match self.token {
            Some(token) => self.subscription.resume_request(self.id, token),
            None => self.subscription.request(self.id),
        }
    }

    /// The server has accepted it. A subscription without a snapshot has nothing to catch up with.
    pub(crate) fn set_accepted(&mut self, restricted: bool) {
        self.restricted = restricted;
        // Asked again by other rights: what it had goes on.
        if self.accepted {
            return;
        }
        self.accepted = true;
        self.caught_up = !self.subscription.snapshot && self.token.is_none();
    }

    /// A snapshot or a replay is complete: that of every subscription that was accepted before.
    pub(crate) fn set_caught_up(&mut self) {
        self.caught_up |= self.accepted;
    }

    /// Whether it is live.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// The connection is lost; `token` is that of its last packet.
    pub(crate) fn disconnected(&mut self, token: Option<Token>) {
        if self.caught_up {
            self.token = token;
        }
        (self.accepted, self.caught_up) = (false, false);
    }

    /// Whether other rights may change what it gets; `dropped` are names and patterns that the client has lost.
    pub(crate) fn depends_on_rights(&self, dropped: &[String]) -> bool {
        self.restricted || self.subscription.symbols.iter().any(|symbol| dropped.contains(symbol))
    }

    fn resumes(&self) -> bool {
        self.token.is_some()
    }
}

/// The requests for all subscriptions on a new connection, in the order in which they have to be sent.
pub(crate) fn requests(subscriptions: &[ActiveSubscription]) -> Vec<String> {
    let mut ordered: Vec<&ActiveSubscription> = subscriptions.iter().collect();
    ordered.sort_by_key(|active| (!active.resumes(), std::cmp::Reverse(active.subscription.specificity())));
    ordered.into_iter().map(ActiveSubscription::request).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_protocol::Position;

    const TOKEN: Token = Token { epoch: 7, position: Position::new(5) };

    fn ops(subscriptions: &[ActiveSubscription]) -> Vec<(String, u64)> {
        let parsed = requests(subscriptions).into_iter().map(|text| -> serde_json::Value {
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        });
        parsed
            .map(|sent| (sent["op"].as_str().expect("a text").to_owned(), sent["id"].as_u64().expect("an id")))
            .collect()
    }

    #[test]
    fn resumes_precede_subscriptions_and_specific_precedes_general() {
        let of = |id, symbols: &[&str], token| {
            ActiveSubscription::new(id, Subscription::new(&[Channel::Quote], symbols.iter().copied()), token)
        };
        let subscriptions = [
            of(1, &["NEW"], None),
            of(2, &["*", "A"], Some(TOKEN)),
            of(3, &["BTC-*"], Some(TOKEN)),
            of(4, &["B"], Some(TOKEN)),
        ];
        let want = [("resume", 4), ("resume", 3), ("resume", 2), ("subscribe", 1)];
        assert_eq!(ops(&subscriptions), want.map(|(op, id)| (op.to_owned(), id)));
    }

    #[test]
    fn an_incomplete_replay_keeps_the_token_from_before_it() {
        let mut active = ActiveSubscription::new(1, Subscription::new(&[Channel::Trade], ["*"]), None);
        active.set_accepted(false);
        active.disconnected(Some(TOKEN));
        assert!(!active.resumes(), "its snapshot never came");
        active.set_accepted(false);
        active.set_caught_up();
        active.disconnected(Some(TOKEN));
        active.set_accepted(false);
        active.disconnected(Some(Token { position: Position::new(9), ..TOKEN }));
        assert_eq!(active.token, Some(TOKEN));
    }

    #[test]
    fn a_subscription_without_snapshot_resumes_from_its_first_packet() {
        let live = Subscription::new(&[Channel::Trade], ["*"]).without_snapshot();
        let mut active = ActiveSubscription::new(1, live, None);
        active.set_caught_up();
        active.disconnected(Some(TOKEN));
        assert!(!active.resumes(), "the server has not accepted it");
        active.set_accepted(false);
        active.disconnected(Some(TOKEN));
        assert!(active.resumes());
    }
}
