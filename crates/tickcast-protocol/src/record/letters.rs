//! The one-letter fields of records as enums.
//!
//! Reading never fails and never loses anything: a letter that this version does not know is kept in `Other` and is
//! written back as it came, so a program that passes records on passes on what it does not understand. What a publisher
//! sends is stricter: [`check`](super::check()) refuses every letter that is not known.
//!
//! Cost: a compare or two; nothing is allocated.

use std::fmt;

/// An enum over the letters of one field.
macro_rules! letters {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $letter:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A letter that this version does not know.
            Other(u8),
        }

        impl $name {
            /// The value of this letter.
            #[inline]
            pub const fn from_wire(letter: u8) -> Self {
                match letter {
                    $($letter => Self::$variant,)+
                    other => Self::Other(other),
                }
            }

            /// The letter of this value.
            #[inline]
            pub const fn to_wire(self) -> u8 {
                match self {
                    $(Self::$variant => $letter,)+
                    Self::Other(letter) => letter,
                }
            }

            /// False for [`Other`](Self::Other).
            #[inline]
            pub const fn is_known(self) -> bool {
                !matches!(self, Self::Other(_))
            }
        }

        impl From<u8> for $name {
            #[inline]
            fn from(letter: u8) -> Self {
                Self::from_wire(letter)
            }
        }

        impl From<$name> for u8 {
            #[inline]
            fn from(value: $name) -> Self {
                value.to_wire()
            }
        }

        /// The letter.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                char::from(self.to_wire()).fmt(f)
            }
        }
    };
}

letters! {
    /// The side of a trade's aggressor.
    Side {
        /// `'B'`: the aggressor bought.
        Buy = b'B',
        /// `'S'`: the aggressor sold.
        Sell = b'S',
        /// `'N'`: the venue does not say.
        Unknown = b'N',
    }
}

letters! {
    /// A side of a book.
    BookSide {
        /// `'B'`
        Bid = b'B',
        /// `'A'`
        Ask = b'A',
    }
}

letters! {
    /// What the levels of a Book record do.
    BookAction {
        /// `'S'`: they replace both sides.
        Snapshot = b'S',
        /// `'D'`: they change levels by absolute size.
        Delta = b'D',
    }
}

letters! {
    /// Why records are missing.
    GapReason {
        /// `'S'`: the client was too slow.
        Slow = b'S',
        /// `'O'`: a ring of the server was overrun.
        Overrun = b'O',
        /// `'F'`: the feed lost them.
        Feed = b'F',
        /// `'R'`: the client was away for longer than the server's history reaches back. Clients note it for themselves;
        /// servers do not send it.
        Reconnect = b'R',
    }
}

letters! {
    /// The state of a feed or of an instrument's values, in a Status record.
    FeedState {
        /// `'L'`: values are current.
        Live = b'L',
        /// `'S'`: the source is silent or lost; the last values may be outdated.
        Stale = b'S',
        /// `'H'`: the source is there, and trading is halted.
        Halted = b'H',
        /// `'E'`: the source has ended; no more values come.
        Ended = b'E',
        /// `'R'`: the instrument is released: its id carries nothing more until the next epoch. Servers send it,
        /// publishers do not.
        Released = b'R',
    }
}

letters! {
    /// The trading status of an instrument, in a Definition record.
    InstrumentStatus {
        /// `'T'`
        Trading = b'T',
        /// `'H'`
        Halted = b'H',
        /// `'C'`
        Closed = b'C',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that these letters are known, in this order, that no other is, and that every letter comes back.
    fn assert_letters<T>(known: &str, from: impl Fn(u8) -> T, to: impl Fn(T) -> u8, is_known: impl Fn(&T) -> bool) {
        for letter in 0..=u8::MAX {
            let value = from(letter);
            assert_eq!(is_known(&value), known.as_bytes().contains(&letter), "{letter:#04x} of {known}");
            assert_eq!(to(value), letter, "{letter:#04x} of {known}");
        }
    }

    #[test]
    fn every_letter_comes_back_and_only_those_of_the_protocol_are_known() {
        assert_letters("BSN", Side::from, u8::from, |value| value.is_known());
        assert_letters("BA", BookSide::from, u8::from, |value| value.is_known());
        assert_letters("SD", BookAction::from, u8::from, |value| value.is_known());
        assert_letters("SOFR", GapReason::from, u8::from, |value| value.is_known());
        assert_letters("LSHER", FeedState::from, u8::from, |value| value.is_known());
        assert_letters("THC", InstrumentStatus::from, u8::from, |value| value.is_known());
    }
}
