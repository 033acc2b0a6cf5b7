//! The codecs from outside: recorded sessions beside an oracle in Python, and what a hostile venue may send.

mod binance_messages;
mod client;
mod hostile;
mod recordings;
