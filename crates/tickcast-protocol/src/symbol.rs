//! The grammar of symbols, the names of instruments. Every way in holds names to it: definitions of publishers, messages
//! of venues, and the requests and queries of subscribers.
//!
//! ```text
//! symbol  = visible *( *" " visible )          1 to 255 bytes of UTF-8
//! pattern = [ visible *( visible / " " ) ] "*"
//! visible = any character that shows something, other than "*"
//! ```
//!
//! Names that are **defined** hold to a narrower profile, see [`check_defined_name`]: a declared alphabet, so that few
//! names look alike to a reader. Subscribers may name what is not defined, so for them the grammar is enough.
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
    /// A character outside of the alphabet of defined names.
    #[error(
        "has {0:?}: expected visible ASCII, signs of currencies, and letters of Chinese, Japanese or Korean, with spaces \
         only between them"
    )]
    Alphabet(char),
    /// Japanese and Korean letters in one name.
    #[error("mixes Japanese and Korean letters: expected one of them")]
    MixedScripts,
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

/// Checks the name of an instrument or a venue that is to be defined. The profile is the "highly restrictive" level of
/// Unicode's UTS 39 without the scripts that have letters like those of Latin (Cyrillic, Greek and others):
///
/// * visible ASCII other than `*`, and spaces between,
/// * signs of currencies,
/// * Han, Hiragana, Katakana, and Hangul syllables, which names of Asian markets have; not kana and Hangul together.
///
/// So there are no combining marks, variation selectors, bidirectional controls, fillers, compatibility forms or letters
/// outside of the first 65,536, and every name is its own NFKC form.
///
/// # Errors
/// The first rule that the text breaks.
pub fn check_defined_name(text: &str) -> Result<(), SymbolError> {
    check_symbol(text)?;
    if let Some(letter) = text.chars().find(|letter| *letter != ' ' && !is_in_alphabet(*letter)) {
        return Err(SymbolError::Alphabet(letter));
    }
    if text.chars().any(is_kana) && text.chars().any(is_hangul) { Err(SymbolError::MixedScripts) } else { Ok(()) }
}

fn is_in_alphabet(letter: char) -> bool {
    letter.is_ascii_graphic() || is_currency(letter) || is_han(letter) || is_kana(letter) || is_hangul(letter)
}

/// The block of currencies without the one that is an abbreviation of Latin letters (U+20A8), and older signs.
fn is_currency(letter: char) -> bool {
    matches!(letter, '\u{a2}'..='\u{a3}' | '\u{a5}' | '\u{20a0}'..='\u{20a7}' | '\u{20a9}'..='\u{20c0}')
}

fn is_han(letter: char) -> bool {
    matches!(letter, '\u{3005}' | '\u{3007}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}')
}

fn is_kana(letter: char) -> bool {
    matches!(letter, '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{30fc}')
}

fn is_hangul(letter: char) -> bool {
    matches!(letter, '\u{ac00}'..='\u{d7a3}')
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
    fn defined_names_hold_to_the_declared_alphabet() {
        for name in
            ["BTC-USD", "AAPL  240119C00150000", "a\"b\\c", "BTC-€", "币安人生USDT", "トヨタ自動車", "삼성전자", "₿/¥"]
        {
            assert_eq!(check_defined_name(name), Ok(()), "{name}");
        }
        for (name, letter) in [
            ("ВTC-USD", 'В'),
            ("ΒTC-USD", 'Β'),
            ("BTC-USÐ", 'Ð'),
            ("BTC-USD\u{301}", '\u{301}'),
            ("BTC\u{2010}USD", '\u{2010}'),
            ("ＢTC-USD", 'Ｂ'),
            ("BTC-USD\u{1100}", '\u{1100}'),
            ("𝐁TC-USD", '𝐁'),
            ("BTC-USD\u{e000}", '\u{e000}'),
            ("Rs₨", '₨'),
        ] {
            assert_eq!(check_defined_name(name), Err(SymbolError::Alphabet(letter)), "{name:?}");
        }
        for (name, letter) in [("BTC\u{fe0f}", '\u{fe0f}'), ("BTC\u{202e}", '\u{202e}'), ("BTC\u{3164}", '\u{3164}')] {
            assert_eq!(check_defined_name(name), Err(SymbolError::Character(letter)), "{name:?}");
        }
        assert_eq!(check_defined_name("トヨタ삼성"), Err(SymbolError::MixedScripts));
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
