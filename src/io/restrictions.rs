//! What the ring of a shard may be asked for once it is enabled. seccomp does not see the operations of a ring, so that a
//! ring without restrictions would be a way around it: opening files, connecting, mapping memory.
//!
//! The rings that glommio opens for HTTP are its own, and have no restrictions.
//!
//! What always holds: a ring is set up disabled (`IORING_SETUP_R_DISABLED`), takes its files and buffers, is restricted,
//! and is enabled last. The kernel refuses everything else with EACCES, and lifts no restriction.

use std::io;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue};

/// `IORING_REGISTER_FILES_UPDATE`: a socket takes a slot of the file table.
const REGISTER_FILES_UPDATE: u8 = 6;
/// The operations on connections, and the polls of eventfd and listening socket.
const OPERATIONS: [u8; 5] =
    [opcode::Send::CODE, opcode::Recv::CODE, opcode::PollAdd::CODE, opcode::AsyncCancel2::CODE, opcode::Close::CODE];
/// The flags of these operations.
const FLAGS: squeue::Flags =
    squeue::Flags::FIXED_FILE.union(squeue::Flags::BUFFER_SELECT).union(squeue::Flags::SKIP_SUCCESS);

/// Restricts a ring that was set up disabled, and enables it.
pub(super) fn restrict_and_enable(ring: &IoUring) -> io::Result<()> {
    let operations = OPERATIONS.into_iter().map(Restriction::sqe_op);
    let others = [Restriction::register_op(REGISTER_FILES_UPDATE), Restriction::sqe_flags_allowed(FLAGS.bits())];
    let mut restrictions: Vec<_> = operations.chain(others).collect();
    ring.submitter().register_restrictions(&mut restrictions)?;
    ring.submitter().register_enable_rings()
}
