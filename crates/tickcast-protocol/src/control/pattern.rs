//! Symbol patterns: a name, or a prefix with `*` behind it.

use std::fmt;

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
}

impl Pattern {
    /// Reads a name, or a pattern with one `*` at its end.
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
        Ok(if prefix { Self::Prefix(stem.to_owned()) } else { Self::Exact(stem.to_owned()) })
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
}
