//! The symbol that an address stands for: a NATS subject, a Redis channel, a Kafka topic or a routing key.
//!
//! ```text
//! address = prefix name            prefix: as configured
//! name    = *( literal / dot / escape )
//! literal = A-Z a-z 0-9 "_" "-"     stands for itself
//! dot     = "."                     stands for the character of `dots=`, by default for itself
//! escape  = "%" 2HEX                a byte of UTF-8 that is neither; upper-case digits
//! ```
//!
//! What always holds: a symbol has exactly one address, so that two addresses are never one instrument. An address of
//! another form is refused, with the form that its symbol has. With `escape=none` the name is the symbol as it is.
//! `prices.BTC%2FUSD` is BTC/USD with `prefix=prices.`; with `dots=/` it is written `prices.BTC.USD`.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// How addresses stand for symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRule {
    /// What every address begins with.
    pub prefix: String,
    /// What a dot stands for: a visible ASCII character.
    pub dot: char,
    /// False: the name is the symbol as it is.
    pub is_escaped: bool,
}

/// Why an address stands for no symbol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("address {address:?} does not begin with {prefix:?}")]
    Prefix { address: String, prefix: String },
    #[error("address {address:?} is not the form of its symbol: expected {expected:?}, or escape=none")]
    Form { address: String, expected: String },
    #[error("address {address:?} has escapes that are not UTF-8")]
    NotText { address: String },
}

impl Default for AddressRule {
    fn default() -> Self {
        Self { prefix: String::new(), dot: '.', is_escaped: true }
    }
}

impl AddressRule {
    /// The symbol of an address. It may be no symbol by the protocol's grammar.
    pub fn symbol<'a>(&self, address: &'a str) -> Result<Cow<'a, str>, AddressError> {
        let given = || address.chars().take(200).collect::<String>();
        let name = address.strip_prefix(&self.prefix);
        let name = name.ok_or_else(|| AddressError::Prefix { address: given(), prefix: self.prefix.clone() })?;
        let is_literal = |byte: u8| is_literal(byte) && self.dot != char::from(byte);
        if !self.is_escaped || name.bytes().all(is_literal) {
            return Ok(name.into());
        }
        let dotted =
            if self.dot == '.' { Cow::from(name) } else { name.replace('.', self.dot.encode_utf8(&mut [0; 4])).into() };
        let symbol =
            percent_decode_str(&dotted).decode_utf8().map_err(|_| AddressError::NotText { address: given() })?;
        let expected = self.address(&symbol);
        if expected == address {
            Ok(symbol.into_owned().into())
        } else {
            Err(AddressError::Form { address: given(), expected })
        }
    }

    /// The address of a symbol.
    pub fn address(&self, symbol: &str) -> String {
        let mut address = self.prefix.clone();
        if !self.is_escaped {
            return address + symbol;
        }
        for byte in symbol.bytes() {
            match byte {
                _ if char::from(byte) == self.dot && byte.is_ascii() => address.push('.'),
                _ if is_literal(byte) => address.push(char::from(byte)),
                _ => address.push_str(percent_encoding::percent_encode_byte(byte)),
            }
        }
        address
    }
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(prefix: &str, dot: char, is_escaped: bool) -> AddressRule {
        AddressRule { prefix: prefix.to_owned(), dot, is_escaped }
    }

    #[test]
    fn names_are_literal_escaped_or_dotted() {
        let plain = rule("prices.", '.', true);
        let slashes = rule("prices.", '/', true);
        for (rule, address, symbol) in [
            (&plain, "prices.BTC-USD", "BTC-USD"),
            (&plain, "prices.BTC%2FUSD", "BTC/USD"),
            (&plain, "prices.BRK.B", "BRK.B"),
            (&plain, "prices.%E5%B8%81", "币"),
            (&slashes, "prices.BTC.USD", "BTC/USD"),
            (&slashes, "prices.BRK%2EB", "BRK.B"),
            (&rule("p:", '.', false), "p:BTC/USD %2F.", "BTC/USD %2F."),
            (&rule("", '-', true), "BTC.USD", "BTC-USD"),
        ] {
            assert_eq!(rule.symbol(address).as_deref(), Ok(symbol), "{address}");
            assert_eq!(rule.address(symbol), address);
        }
    }

    #[test]
    fn other_forms_are_refused_with_the_right_one() {
        let plain = rule("prices.", '.', true);
        for (address, expected) in [
            ("prices.BTC/USD", "prices.BTC%2FUSD"),
            ("prices.BTC%2fUSD", "prices.BTC%2FUSD"),
            ("prices.BTC%2DUSD", "prices.BTC-USD"),
            ("prices.A%2EB", "prices.A.B"),
            ("prices.100%", "prices.100%25"),
        ] {
            let error = AddressError::Form { address: address.to_owned(), expected: expected.to_owned() };
            assert_eq!(plain.symbol(address), Err(error));
        }
        assert!(
            matches!(rule("", '-', true).symbol("BTC-USD"), Err(AddressError::Form { expected, .. }) if expected == "BTC.USD")
        );
        assert!(matches!(plain.symbol("other.A"), Err(AddressError::Prefix { .. })));
        assert!(matches!(plain.symbol("prices.%FF"), Err(AddressError::NotText { .. })));
    }

    proptest! {
        #[test]
        fn symbol_has_one_address(symbol in "\\PC{1,12}", dot in prop::sample::select(vec!['.', '/', '-', ':', '_', '%', 'x']), one in "[A-Za-z.%0-9/-]{0,8}", other in "[A-Za-z.%0-9/-]{0,8}") {
            let rule = rule("p.", dot, true);
            let address = rule.address(&symbol);
            let read = rule.symbol(&address);
            prop_assert_eq!(read.as_deref(), Ok(symbol.as_str()));
            let [one, other] = [format!("p.{one}"), format!("p.{other}")];
            if let (Ok(first), Ok(second)) = (rule.symbol(&one), rule.symbol(&other)) {
                prop_assert_eq!(first == second, one == other);
            }
        }
    }
}
