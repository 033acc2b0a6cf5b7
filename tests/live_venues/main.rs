//! The program on live venues that need no internet: `fake-venue` speaks the dialogue of each exchange over TLS and has
//! faults; the books and trades that the server delivers are compared with what the venue truly was.

mod market;
mod raw;
mod recorded;
mod silent;
mod table;
