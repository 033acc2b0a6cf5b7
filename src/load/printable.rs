//! Text of a server for a terminal. A name may hold an escape sequence that moves the cursor, sets the title or makes the
//! terminal type; controls of the direction of text show a name as another one. Such characters are shown escaped.
//!
//! Cost: a pass over the bytes for plain ASCII, without a copy.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with every character escaped that a terminal would obey: `\u{1b}` for ESC. A line feed at the end stays.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |letter, out| write!(out, "{}", letter.escape_unicode()))
}

/// The same for a line of JSON, where such characters occur in strings only: `\u001b` for ESC.
pub fn printable_json(text: &str) -> Cow<'_, str> {
    // All of them are in the basic plane but for the tags, which two escapes of UTF-16 stand for.
    escape(text, |letter, out| {
        letter.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
    })
}

fn escape(text: &str, push: impl Fn(char, &mut String) -> std::fmt::Result) -> Cow<'_, str> {
    let (body, end) = text.strip_suffix('\n').map_or((text, ""), |body| (body, "\n"));
    if body.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !body.chars().any(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in body.chars() {
        if is_obeyed(letter) {
            push(letter, &mut out).expect("a String takes all");
        } else {
            out.push(letter);
        }
    }
    Cow::Owned(out + end)
}

/// Controls (C0, DEL, C1), and characters of Unicode without a shape of their own: marks, embeddings, overrides and
/// isolates of the direction, separators of lines and paragraphs, joiners and other letters of no width, tags.
fn is_obeyed(letter: char) -> bool {
    let is_shapeless = matches!(
        letter,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    letter.is_control() || is_shapeless
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_all_else_stays() {
        for (text, plain, json) in [
            ("BTC-USD\n", "BTC-USD\n", "BTC-USD\n"),
            ("€ Ж 日本 … 🚀\n", "€ Ж 日本 … 🚀\n", "€ Ж 日本 … 🚀\n"),
            ("\x1b]0;title\x07\x1b[2J", "\\u{1b}]0;title\\u{7}\\u{1b}[2J", "\\u001b]0;title\\u0007\\u001b[2J"),
            ("a\nb\r\n", "a\\u{a}b\\u{d}\n", "a\\u000ab\\u000d\n"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}", "\\u009b31m\\u007f"),
            ("\u{202e}DSU-CTB\u{2066}", "\\u{202e}DSU-CTB\\u{2066}", "\\u202eDSU-CTB\\u2066"),
            ("A\u{200b}B\u{feff}", "A\\u{200b}B\\u{feff}", "A\\u200bB\\ufeff"),
            ("A\u{e0041}", "A\\u{e0041}", "A\\udb40\\udc41"),
        ] {
            assert_eq!((&*printable(text), &*printable_json(text)), (plain, json));
        }
        assert!(matches!(printable("plain\n"), Cow::Borrowed(_)));
        let parsed: String = serde_json::from_str(&printable_json("\"\u{e0041}\u{202e}\u{7f}\"")).expect("JSON");
        assert_eq!(parsed, "\u{e0041}\u{202e}\u{7f}");
    }
}
