//! Fields that rights hide, on every way out of the program.

use serde_json::{Value, json};
use tickcast_protocol::record::{PRICE_NONE, Quote, Trade};
use tickcast_test_support::client::Client;
use tickcast_test_support::sse::SseClient;

use crate::access::{Quotes, everything, reply_of, token, until_trade};

/// Quotes and trades without these fields.
fn without(fields: &[&str]) -> Value {
    json!({"allow": [{"symbols": ["BTC-*"], "channels": ["quote", "trade"], "without": fields}]})
}

fn request(client: &mut Client, more: &[(&str, Value)], reply: &str) -> Value {
    let mut request =
        json!({"op": "subscribe", "id": 1, "channels": ["quote", "trade"], "symbols": ["BTC-USD", "BTC-*"]});
    for (name, value) in more {
        request[*name] = value.clone();
    }
    client.send_text(&request.to_string());
    reply_of(client, reply)
}

/// The values of the quotes and trades of one instrument, up to the trade at `px`: prices and sizes.
fn values_until(client: &mut Client, id: u32, px: i64) -> (Vec<[i64; 4]>, Vec<[i64; 2]>) {
    let (mut quotes, mut trades) = (Vec::new(), Vec::new());
    for record in until_trade(client, id, px).into_iter().filter(|record| record.header.instrument == id) {
        match record.header.kind {
            1 => {
                let Quote { bid_px, bid_sz, ask_px, ask_sz } = Quote::read(&record.bytes).expect("a quote");
                quotes.push([bid_px, bid_sz, ask_px, ask_sz]);
            }
            2 => {
                let Trade { px, sz, .. } = Trade::read(&record.bytes).expect("a trade");
                trades.push([px, sz]);
            }
            _ => {}
        }
    }
    (quotes, trades)
}

#[test]
fn hidden_fields_have_no_value_on_any_way_out() {
    let mut quotes = Quotes::start("", &[]);
    let id = quotes.ids[0];
    let (limited, whole) = (token("u1", without(&["bid_sz", "ask_sz", "sz"])), token("u2", everything()));
    let (mut client, welcome) = quotes.stream(&limited);
    let reply = request(&mut client, &[], "subscribed");
    assert_eq!((&reply["limited"], &reply["denied"]), (&json!(["BTC-USD", "BTC-*"]), &json!([])), "{reply}");
    let (mut other, _) = quotes.stream(&whole);
    assert_eq!(request(&mut other, &[], "subscribed").get("limited"), None);
    quotes.publish_all(7);
    let hidden = |px: i64| [px, PRICE_NONE, px + 1, PRICE_NONE];
    // The snapshot, and what is live.
    assert_eq!(values_until(&mut client, id, 7), (vec![hidden(1), hidden(7)], vec![[1, PRICE_NONE], [7, PRICE_NONE]]));
    assert_eq!(values_until(&mut other, id, 7), (vec![[1, 1, 2, 2], [7, 1, 8, 2]], vec![[1, 5], [7, 5]]));

    let (mut conflated, _) = quotes.stream(&limited);
    request(&mut conflated, &[("conflate_ms", json!(10))], "subscribed");
    let (mut resumed, _) = quotes.stream(&limited);
    let from = [("op", json!("resume")), ("epoch", welcome["epoch"].clone()), ("position", json!(0))];
    assert_eq!(request(&mut resumed, &from, "resumed")["how"], "replay");
    quotes.publish_all(9);
    for client in [&mut conflated, &mut resumed] {
        let (of_quotes, of_trades) = values_until(client, id, 9);
        assert!(
            !of_quotes.is_empty()
                && of_quotes.iter().all(|[px, sz, _, other]| [*sz, *other] == [PRICE_NONE; 2] && *px > 0)
        );
        assert!(of_trades.len() >= 2 && of_trades.iter().all(|[px, sz]| *sz == PRICE_NONE && *px > 0), "{of_trades:?}");
    }
    as_json(&quotes, &limited, &whole);

    // With the next token it sees the sizes, from the next values on.
    values_until(&mut client, id, 9);
    client.send_text(&json!({"op": "auth", "id": 2, "token": token("u1", everything())}).to_string());
    reply_of(&mut client, "authenticated");
    quotes.publish_all(11);
    let (of_quotes, of_trades) = values_until(&mut client, id, 11);
    assert_eq!((of_quotes.last(), of_trades.last()), (Some(&[11, 1, 12, 2]), Some(&[11, 5])));
}

/// Events, last values and bars.
fn as_json(quotes: &Quotes, limited: &str, whole: &str) {
    let header = format!("Authorization: Bearer {limited}\r\n");
    let path = "/v1/sse?symbols=BTC-USD&channels=quote,trade";
    let mut events = SseClient::connect(quotes.server.address, path, &header);
    let quote = events.until_message("quote");
    assert!(quote["bid_px"].is_string() && quote["bid_sz"].is_null() && quote["ask_sz"].is_null(), "{quote}");
    for path in ["/v1/snapshot/BTC-USD", "/v1/snapshot?symbols=BTC-USD"] {
        let get = |token| {
            let response = quotes.get(Some(token), path);
            let json = response.json();
            let value = if json["snapshots"].is_array() { json["snapshots"][0].clone() } else { json };
            (response.header("etag").expect("a tag").to_owned(), value)
        };
        let ((tag, seen), (other_tag, all)) = (get(limited), get(whole));
        assert!(seen["quote"]["bid_px"].is_string() && seen["quote"]["bid_sz"].is_null(), "{seen}");
        assert!(seen["trade"]["px"].is_string() && seen["trade"]["sz"].is_null(), "{seen}");
        assert!(all["quote"]["bid_sz"].is_string() && all["trade"]["sz"].is_string(), "{all}");
        assert_ne!(tag, other_tag, "{path}");
    }
    // The bars follow the stream a little later.
    let bars = |token: &str| loop {
        let response = quotes.get(Some(token), "/v1/bars/BTC-USD?interval_s=1");
        if response.status != 200 || response.json()["time"] != json!([]) {
            return response;
        }
    };
    let is_null = |json: &Value, name: &str| json[name].as_array().is_some_and(|all| all.iter().all(Value::is_null));
    let seen = bars(limited).json();
    assert!(is_null(&seen, "volume") && !is_null(&seen, "close") && !is_null(&seen, "bid_px"), "{seen}");
    let all = bars(whole).json();
    assert!(!is_null(&all, "volume"), "{all}");
    let no_bid = bars(&token("u1", without(&["bid_px"]))).json();
    assert!(is_null(&no_bid, "bid_px") && !is_null(&no_bid, "ask_px") && !is_null(&no_bid, "volume"), "{no_bid}");
    bars(&token("u1", without(&["px"]))).assert_refusal(403, "forbidden", &["its trades and their prices"]);
    trades_as_json(quotes, limited, whole);
}

/// The newest trades.
fn trades_as_json(quotes: &Quotes, limited: &str, whole: &str) {
    let trades = |token: &str| quotes.get(Some(token), "/v1/trades/BTC-USD").json();
    let is = |json: &Value, name: &str, is: fn(&Value) -> bool| {
        json[name].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(is))
    };
    let seen = trades(limited);
    assert!(is(&seen, "px", Value::is_string) && is(&seen, "sz", Value::is_null), "{seen}");
    let no_price = trades(&token("u1", without(&["px"])));
    assert!(is(&no_price, "px", Value::is_null) && is(&no_price, "sz", Value::is_string), "{no_price}");
    let all = trades(whole);
    assert!(is(&all, "px", Value::is_string) && is(&all, "sz", Value::is_string), "{all}");
    assert_eq!((&all["sequence"], &all["ts_recv"]), (&seen["sequence"], &seen["ts_recv"]));
    let only_quotes = token("u1", json!({"allow": [{"symbols": ["BTC-*"], "channels": ["quote"]}]}));
    for symbol in ["BTC-USD", "BTC-NONE"] {
        let refused = quotes.get(Some(&only_quotes), &format!("/v1/trades/{symbol}"));
        refused.assert_refusal(403, "forbidden", &[symbol, "its trades"]);
    }
}
