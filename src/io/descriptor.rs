//! Descriptors of glommio's types, which implement `AsRawFd` and `FromRawFd` alone: as borrowed and owned descriptors.
//!
//! What always holds: no integer goes in or out. A function for any `AsRawFd` would take integers too, which own nothing.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use glommio::io::BufferedFile;
use glommio::net::TcpStream;

/// The descriptor of a socket.
pub fn borrow(socket: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor must be open while it is borrowed. `socket` owns it, and is borrowed for as long.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// Another descriptor of the same socket.
pub fn duplicate(socket: &TcpStream) -> io::Result<OwnedFd> {
    borrow(socket).try_clone_to_owned()
}

/// A socket that owns this descriptor.
pub fn socket(fd: OwnedFd) -> TcpStream {
    // SAFETY: `from_raw_fd` needs an open descriptor without another owner. `into_raw_fd` yields one: it consumes the
    // owner.
    unsafe { TcpStream::from_raw_fd(fd.into_raw_fd()) }
}

/// A file that owns this descriptor.
pub fn file(fd: OwnedFd) -> BufferedFile {
    // SAFETY: `from_raw_fd` needs an open descriptor without another owner. `into_raw_fd` yields one: it consumes the
    // owner.
    unsafe { BufferedFile::from_raw_fd(fd.into_raw_fd()) }
}
