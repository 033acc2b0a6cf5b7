//! Binance's messages.
