//! The buffers that a ring receives into: one page-aligned block, lent to the kernel and given back buffer by buffer.
//!
//! What always holds: the kernel writes a buffer only while it is lent, and its bytes are read only while it is not. The
//! block outlives the ring, because the owner of both drops the ring first.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{IoUring, types};

/// Size of one input buffer: a request is some 100 bytes; a longer one takes several receives.
pub(super) const INPUT_BYTES: usize = 1024;
/// Input buffers, and so receives in flight.
pub(super) const INPUT_BUFFERS: u16 = 256;
/// The buffer group's name within this ring.
pub(super) const INPUT_GROUP: u16 = 0;

/// The buffers that the kernel receives into, and the ring by which they are lent to it: one page-aligned block, the
/// ring's entries first.
pub(super) struct InputBuffers {
    memory: NonNull<u8>,
    tail: u16,
}

impl InputBuffers {
    const ENTRIES_BYTES: usize = INPUT_BUFFERS as usize * size_of::<types::BufRingEntry>();
    const PAGE_BYTES: usize = 4096;

    fn layout() -> Layout {
        let bytes = Self::ENTRIES_BYTES.next_multiple_of(Self::PAGE_BYTES) + usize::from(INPUT_BUFFERS) * INPUT_BYTES;
        Layout::from_size_align(bytes, Self::PAGE_BYTES).expect("a constant layout")
    }

    pub(super) fn register(ring: &IoUring) -> io::Result<Self> {
        let layout = Self::layout();
        // SAFETY: the layout must not be of size 0; it is a constant of some 260 KiB.
        let memory = unsafe { alloc_zeroed(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        let mut buffers = Self { memory, tail: 0 };
        // SAFETY: the block must outlive the ring. `Uring` keeps that: it drops its field `ring` before `input`.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(memory.as_ptr() as u64, INPUT_BUFFERS, INPUT_GROUP, 0)
        }?;
        for buffer in 0..INPUT_BUFFERS {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    fn start(&self, buffer: u16) -> NonNull<u8> {
        assert!(buffer < INPUT_BUFFERS, "the kernel returned buffer {buffer}: expected less than {INPUT_BUFFERS}");
        let offset = Self::ENTRIES_BYTES.next_multiple_of(Self::PAGE_BYTES) + usize::from(buffer) * INPUT_BYTES;
        // SAFETY: the offset must lie within the block. The assertion above keeps it there.
        unsafe { self.memory.add(offset) }
    }

    /// The bytes that the kernel wrote into a buffer that it returned.
    pub(super) fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        assert!(length <= INPUT_BYTES, "the kernel returned {length} bytes in a buffer of {INPUT_BYTES}");
        // SAFETY: the bytes must be initialised, in bounds, and not written meanwhile. `register` zeroed the block, the
        // assertion above bounds the length, and the kernel does not write a buffer between its return and `give_back`,
        // which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start(buffer).as_ptr(), length) }
    }

    /// Lends a buffer to the kernel again.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let entries = self.memory.as_ptr().cast::<types::BufRingEntry>();
        let index = usize::from(self.tail % INPUT_BUFFERS);
        let address = self.start(buffer).as_ptr() as u64;
        // SAFETY: the entry must be in bounds. The remainder keeps the index below the ring's length.
        let entry = unsafe { entries.add(index) };
        // SAFETY: the entry must be unshared. The kernel does not read it before the store of the tail below has passed
        // it.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(INPUT_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `tail` needs the base of a ring of buffers; `register` made `entries` one.
        let tail = unsafe { types::BufRingEntry::tail(entries) };
        // SAFETY: the tail must be aligned, alive and accessed atomically. It is a u16 of the page-aligned block, which
        // lives as long as `self`; the kernel and this line are its only accesses, and both are atomic.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: its partner is the kernel's acquire load of the tail, which must see the entry written above.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for InputBuffers {
    fn drop(&mut self) {
        // SAFETY: the block must have been allocated with this layout and not be used any more. `register` allocated
        // it, and `Uring` has dropped the ring before.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout()) };
    }
}
