//! The allocator of the program, and what happens when it gets no memory.
//!
//! The standard library aborts the process where an allocation fails, and all clients with it. This allocator keeps a
//! [`RESERVE_BYTES`] of address space for that moment: it gives the reserve back, says that memory is short
//! ([`pressure`]), and tries once more. While memory is short the server refuses new clients and requests for more
//! instruments, and closes clients whose input it holds, so that those that it has can be served. The health thread
//! takes the reserve again as soon as there is room ([`recover`]), which ends the pressure.
//!
//! The reserve consists of blocks, each of which may come from another place: after an attack there is room in many
//! places, and not in one piece. It is taken first of all, as libraries take address space as long as there is some: the
//! C library 64 MiB for each thread.
//!
//! What it does not do: help where the kernel grants more than it has. Then no allocation fails, and the kernel kills the
//! process (`MemoryMax=`, a cgroup, overcommit). It helps under `ulimit -v` and under strict overcommit. An allocation
//! that finds no room although the reserve is free aborts still.
//!
//! The reserve is never written, so it takes address space and no memory. Cost: a comparison for each allocation.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use mimalloc::MiMalloc;

/// Bytes of the reserve: what the clients of all shards can make the server allocate in a tick, several times over.
pub const RESERVE_BYTES: usize = BLOCKS * BLOCK_BYTES;
const BLOCKS: usize = 16;
/// Of a size that the inner allocator frees at once, whichever thread it came from.
const BLOCK_BYTES: usize = 4 << 20;
const BLOCK: Layout = match Layout::from_size_align(BLOCK_BYTES, 4096) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

/// The allocator of this program, which `main` installs.
pub static ALLOCATOR: Allocator<MiMalloc> = Allocator::new(MiMalloc);

/// True from a failed allocation until there is room for the reserve again.
pub fn pressure() -> bool {
    // Relaxed, here and below: the flag orders nothing.
    ALLOCATOR.is_short.load(Ordering::Relaxed)
}

/// How many allocations have found no memory at first.
pub fn failures() -> u64 {
    ALLOCATOR.failures.load(Ordering::Relaxed)
}

/// Takes the reserve if it is not there. False while there is no room for it.
pub fn recover() -> bool {
    ALLOCATOR.take_reserve()
}

/// An allocator with a reserve.
#[derive(Debug)]
pub struct Allocator<A> {
    inner: A,
    /// Blocks of the inner allocator; null where there is none.
    reserve: [AtomicPtr<u8>; BLOCKS],
    is_short: AtomicBool,
    failures: AtomicU64,
}

impl<A: GlobalAlloc> Allocator<A> {
    const fn new(inner: A) -> Self {
        Self {
            inner,
            reserve: [const { AtomicPtr::new(ptr::null_mut()) }; BLOCKS],
            is_short: AtomicBool::new(false),
            failures: AtomicU64::new(0),
        }
    }

    fn take_reserve(&self) -> bool {
        for place in &self.reserve {
            if place.load(Ordering::Relaxed).is_null() {
                // SAFETY: the layout must not be of size 0; it is a constant of 4 MiB.
                let block = unsafe { self.inner.alloc(BLOCK) };
                if block.is_null() {
                    // What it has so far is kept: an allocation that fails now gets that.
                    return false;
                }
                // AcqRel: its partner is the swap in `give_reserve`. Of two blocks one goes back.
                let former = place.swap(block, Ordering::AcqRel);
                self.free_block(former);
            }
        }
        self.is_short.store(false, Ordering::Relaxed);
        true
    }

    /// Gives the reserve back after a failure.
    #[cold]
    fn give_reserve(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.is_short.store(true, Ordering::Relaxed);
        for place in &self.reserve {
            // AcqRel: its partner is the swap in `take_reserve`. Of several threads that fail at a time, one gets the
            // block.
            let block = place.swap(ptr::null_mut(), Ordering::AcqRel);
            self.free_block(block);
        }
    }

    fn free_block(&self, block: *mut u8) {
        if !block.is_null() {
            // SAFETY: the block must be one of this allocator with this layout, and not be used any more. `take_reserve`
            // allocated it, and the swap that returned it took it out of the only place that has it.
            unsafe { self.inner.dealloc(block, BLOCK) };
        }
    }

    /// Allocates, and once more without the reserve.
    fn retried(&self, allocate: impl Fn() -> *mut u8) -> *mut u8 {
        let block = allocate();
        if !block.is_null() {
            return block;
        }
        self.give_reserve();
        allocate()
    }
}

// SAFETY: an allocator must return blocks that fit their layouts, and must not unwind. All blocks are those of the inner
// allocator, and nothing here panics.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Allocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the inner allocator's.
        self.retried(|| unsafe { self.inner.alloc(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the inner allocator's.
        unsafe { self.inner.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the inner allocator's.
        self.retried(|| unsafe { self.inner.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the inner allocator's. A failed call leaves the block as it
        // was, so that it can be made again.
        self.retried(|| unsafe { self.inner.realloc(block, layout, new_size) })
    }
}

/// What `main` installs as the allocator: it stands for [`ALLOCATOR`].
#[derive(Debug)]
pub struct Global;

// SAFETY: all calls go to one allocator, which keeps the contract.
unsafe impl GlobalAlloc for Global {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { ALLOCATOR.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { ALLOCATOR.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { ALLOCATOR.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { ALLOCATOR.realloc(block, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// The system's allocator, which grants so many bytes in all.
    struct Limited(AtomicUsize);

    // SAFETY: blocks are those of the system's allocator, or null.
    unsafe impl GlobalAlloc for Limited {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let grant = |left: usize| left.checked_sub(layout.size());
            if self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grant).is_err() {
                return ptr::null_mut();
            }
            // SAFETY: the caller keeps the contract.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.0.fetch_add(layout.size(), Ordering::Relaxed);
            // SAFETY: the caller keeps the contract.
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[test]
    fn a_failed_allocation_gets_the_reserve_and_says_so_until_it_is_there_again() {
        const MIB: usize = 1 << 20;
        let allocator = Allocator::new(Limited(AtomicUsize::new(RESERVE_BYTES + 8 * MIB)));
        let layout = Layout::from_size_align(3 * MIB, 16).expect("a layout");
        let state = || (allocator.is_short.load(Ordering::Relaxed), allocator.failures.load(Ordering::Relaxed));
        assert!(allocator.take_reserve() && allocator.take_reserve(), "taken once");
        let mut blocks = Vec::new();
        for (nth, expected) in [(0, (false, 0)), (1, (false, 0)), (2, (true, 1)), (3, (true, 1))] {
            // SAFETY: the layout is not of size 0.
            blocks.push(unsafe { allocator.alloc(layout) });
            assert!(!blocks[nth].is_null());
            assert_eq!(state(), expected, "block {nth}");
        }
        assert!(!allocator.take_reserve(), "there is no room for it");
        assert_eq!(state(), (true, 1));
        let all = Layout::from_size_align(2 * RESERVE_BYTES, 16).expect("a layout");
        // SAFETY: the layout is not of size 0.
        assert!(unsafe { allocator.alloc(all) }.is_null(), "more than there is");
        for block in blocks {
            // SAFETY: the block was allocated with this layout.
            unsafe { allocator.dealloc(block, layout) };
        }
        assert!(allocator.take_reserve());
        assert_eq!(state(), (false, 2));
    }
}
