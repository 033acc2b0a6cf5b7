//! Symbol patterns: a name, or a prefix with `*` behind it.

use std::fmt;

use crate::symbol::{SymbolError, check_stem, check_symbol};

/// The symbols of a request: one by its name, or all that begin with a prefix, including those defined later.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// One symbol by its whole name.
    Exact(String),
    /// Every symbol that begins with this: `ETH-*` holds `ETH-`, and `*` holds the empty prefix.
    Prefix(String),
}

/// Why a text is not a pattern; the message follows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No text at all.
    #[error("is empty: expected a name such as \"BTC-USD\", or a pattern such as \"ETH-*\" or \"*\"")]
    Empty,
    /// A `*` that is not the last character.
    #[error("has a * before its end: expected at most one *, at the end")]
    StarInside,
    /// The name, or the beginning of names, breaks the grammar of symbols.
    #[error(transparent)]
    Symbol(#[from] SymbolError),
}

impl Pattern {
    /// Reads a name, or a pattern with one `*` at its end.
    ///
    /// # Errors
    /// The first rule that the text breaks. Its length is the caller's to check.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (stem, prefix) = match text.strip_suffix('*') {
            Some(stem) => (stem, true),
            None => (text, false),
        };
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if stem.contains('*') {
            return Err(PatternError::StarInside);
        }
        if prefix {
            check_stem(stem)?;
            return Ok(Self::Prefix(stem.to_owned()));
        }
        check_symbol(stem)?;
        Ok(Self::Exact(stem.to_owned()))
    }

    /// True if the pattern covers the symbol.
    pub fn matches(&self, symbol: &str) -> bool {
        match self {
            Self::Exact(name) => symbol == name,
            Self::Prefix(stem) => symbol.starts_with(stem.as_str()),
        }
    }
}

/// As in requests.
impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => out.write_str(name),
            Self::Prefix(stem) => write!(out, "{stem}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_covers_its_name_or_its_prefix() {
        for (text, covered, not_covered) in [
            ("BTC-USD", "BTC-USD", "BTC-USDT"),
            ("ETH-*", "ETH-EUR", "ETH"),
            ("ETH-*", "ETH-", "BETH-EUR"),
            ("é*", "éa", "ea"),
        ] {
            let pattern = Pattern::parse(text).unwrap();
            assert!(pattern.matches(covered), "{text} {covered}");
            assert!(!pattern.matches(not_covered), "{text} {not_covered}");
            assert_eq!(pattern.to_string(), text);
        }
        let all = Pattern::parse("*").unwrap();
        assert_eq!(all, Pattern::Prefix(String::new()));
        assert!(all.matches("") && all.matches("anything"));
    }

    #[test]
    fn star_before_the_end_is_an_error() {
        for text in ["*A", "A*B", "**", "A**", "*A*"] {
            assert_eq!(Pattern::parse(text), Err(PatternError::StarInside), "{text}");
        }
        assert_eq!(Pattern::parse(""), Err(PatternError::Empty));
    }

    #[test]
    fn names_and_beginnings_of_names_hold_to_the_grammar_of_symbols() {
        let padded = Pattern::parse("AAPL  *").unwrap();
        assert!(padded.matches("AAPL  240119C00150000") && !padded.matches("AAPL"));
        assert_eq!(Pattern::parse("AAPL  240119C00150000"), Ok(Pattern::Exact("AAPL  240119C00150000".to_owned())));
        for text in ["A ", " A", " A*", " ", " *"] {
            assert_eq!(Pattern::parse(text), Err(PatternError::Symbol(SymbolError::OuterSpace)), "{text:?}");
        }
        for (text, letter) in [("A\tB", '\t'), ("A\u{200b}*", '\u{200b}')] {
            assert_eq!(Pattern::parse(text), Err(PatternError::Symbol(SymbolError::Character(letter))), "{text:?}");
        }
    }
}
