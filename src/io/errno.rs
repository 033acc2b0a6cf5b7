//! Numbers of the kernel's errors, which rustix has no plain constants for.

use rustix::io::Errno;

pub(super) const EPERM: i32 = Errno::PERM.raw_os_error();
pub(super) const EACCES: i32 = Errno::ACCESS.raw_os_error();
pub(super) const ENOSYS: i32 = Errno::NOSYS.raw_os_error();
pub(super) const EINVAL: i32 = Errno::INVAL.raw_os_error();
pub(super) const ENOMEM: i32 = Errno::NOMEM.raw_os_error();
pub(super) const ETIME: i32 = Errno::TIME.raw_os_error();
pub(super) const EAGAIN: i32 = Errno::AGAIN.raw_os_error();
pub(super) const EBUSY: i32 = Errno::BUSY.raw_os_error();
pub(super) const EINTR: i32 = Errno::INTR.raw_os_error();
pub(super) const ENOBUFS: i32 = Errno::NOBUFS.raw_os_error();
