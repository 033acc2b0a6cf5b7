//! The server's program as a process, on a port of 127.0.0.1, with clients at the other end of real sockets.

mod bad_frames;
mod bad_http;
mod bars;
mod check;
mod compression;
mod echo;
mod faults;
mod feed_losses;
mod floor;
mod http;
mod identities;
mod limits;
mod load;
mod logs;
mod one_address;
mod operator;
mod origins;
mod polling;
mod program;
mod publisher;
mod reload;
mod restart;
mod shutdown;
mod sse_and_json;
mod start;
mod trusted_proxies;
