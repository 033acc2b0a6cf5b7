//! The grammar of symbols, the names of instruments. Every way in holds names to it: definitions of publishers, messages
//! of venues, and the requests and queries of subscribers.
//!
//! ```text
//! symbol  = visible *( *" " visible )          1 to 255 bytes of UTF-8
//! pattern = [ visible *( visible / " " ) ] "*"
//! visible = any character that shows something, other than "*"
//! ```
//!
//! Spaces may stand between visible characters, because the symbols of listed options are padded with them:
//! `AAPL  240119C00150000`. They may not stand at either end, where they are not seen.

/// Bytes of the longest symbol that a Definition record can carry.
pub const SYMBOL_BYTES_MAX: usize = 255;

/// Why a text is not a symbol; the message follows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// No text at all.
    #[error("is empty: expected a name such as \"BTC-USD\"")]
    Empty,
    /// A character that a symbol cannot have.
    #[error("has {0:?}: expected no *, only visible characters, and spaces only between them")]
    Character(char),
    /// A space at either end.
    #[error("begins or ends with a space: expected spaces only between visible characters")]
    OuterSpace,
}

/// Checks a symbol. The length is the caller's to check, as servers have a limit of their own.
///
/// # Errors
/// The first rule that the text breaks.
pub fn check_symbol(text: &str) -> Result<(), SymbolError> {
    if text.is_empty() {
        return Err(SymbolError::Empty);
    }
    check_stem(text)?;
    if text.ends_with(' ') { Err(SymbolError::OuterSpace) } else { Ok(()) }
}

/// Checks the beginning of a symbol, which a pattern has before its `*`. It may be empty and may end with a space.
pub(crate) fn check_stem(text: &str) -> Result<(), SymbolError> {
    if let Some(letter) = text.chars().find(|letter| *letter != ' ' && !is_visible(*letter)) {
        return Err(SymbolError::Character(letter));
    }
    if text.starts_with(' ') { Err(SymbolError::OuterSpace) } else { Ok(()) }
}

fn is_visible(letter: char) -> bool {
    !(letter == '*' || letter.is_whitespace() || letter.is_control() || is_ignorable(letter))
}

/// Characters that show nothing, or change how others are shown: two names that look the same must be the same. They are
/// those with the property Default_Ignorable_Code_Point of Unicode.
fn is_ignorable(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_characters_and_inner_spaces_are_a_symbol() {
        for symbol in [
            "BTC-USD",
            "AAPL  240119C00150000",
            "BRK A",
            "A,B",
            "a\"b\\c",
            "%2C",
            "ES+Z5",
            "BTC-€",
            "币安人生USDT",
            ".",
            "EUR/USD?#&=",
        ] {
            assert_eq!(check_symbol(symbol), Ok(()), "{symbol}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_rule() {
        assert_eq!(check_symbol(""), Err(SymbolError::Empty));
        for text in [" A", "A ", " ", "  A  "] {
            assert_eq!(check_symbol(text), Err(SymbolError::OuterSpace), "{text:?}");
        }
        for (text, letter) in [
            ("A*", '*'),
            ("*", '*'),
            ("A*B", '*'),
            ("A\tB", '\t'),
            ("A\n", '\n'),
            ("A\0", '\0'),
            ("A\u{7f}", '\u{7f}'),
            ("A\u{a0}B", '\u{a0}'),
            ("A\u{3000}B", '\u{3000}'),
            ("A\u{2028}B", '\u{2028}'),
            ("A\u{200b}B", '\u{200b}'),
            ("A\u{202e}B", '\u{202e}'),
            ("A\u{fe0f}", '\u{fe0f}'),
            ("\u{feff}A", '\u{feff}'),
        ] {
            assert_eq!(check_symbol(text), Err(SymbolError::Character(letter)), "{text:?}");
        }
    }

    #[test]
    fn a_stem_may_be_empty_and_end_with_a_space() {
        for stem in ["", "AAPL  ", "A"] {
            assert_eq!(check_stem(stem), Ok(()), "{stem:?}");
        }
        assert_eq!(check_stem(" A"), Err(SymbolError::OuterSpace));
        assert_eq!(check_stem("A\t"), Err(SymbolError::Character('\t')));
    }
}
