//! The market that an operator asks about.

use crate::http::refusal::Refusal;
use crate::http::request::quote;
use crate::state::ServerState;

/// The market that a request asks about: the live one, or that with the delay of `?delay_s=`.
pub(crate) fn market_of<'a>(state: &'a ServerState, request: &http::Request<()>) -> Result<&'a ServerState, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let given = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "delay_s");
    let Some((_, text)) = given else { return Ok(state) };
    let found = text.parse().ok().and_then(|delay_s| state.market(delay_s));
    found.ok_or_else(|| {
        let delays: Vec<_> = state.delayed.iter().map(|market| market.delay_s().to_string()).collect();
        let expected =
            if delays.is_empty() { "there are none".to_owned() } else { format!("expected {}", delays.join(" or ")) };
        Refusal::bad_request(format!("delay_s: {} is not the delay of a market: {expected}", quote(&text)))
    })
}
