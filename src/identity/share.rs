//! What the connections of a user have together.
//!
//! What always holds: once no call is under way, the sum is that of the shares that have not ended. A share that has ended
//! adds nothing any more, whatever its connection still does.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// [`Share::held`] of a share that has ended.
const ENDED: u64 = u64::MAX;

/// What a connection has of something of which its user may have so much. Copies are the same share.
#[derive(Clone, Debug)]
pub struct UserShare(Arc<Share>);

#[derive(Debug)]
struct Share {
    /// Of all shares of the user. Signed: a share may be taken off it a moment before it is added.
    sum: Arc<AtomicI64>,
    held: AtomicU64,
}

impl UserShare {
    /// A share of nothing yet.
    pub fn of(sum: &Arc<AtomicI64>) -> Self {
        Self(Arc::new(Share { sum: sum.clone(), held: AtomicU64::new(0) }))
    }

    /// Adds to the share, if the sum stays within `max`. One connection calls it and [`Self::set`].
    ///
    /// # Errors
    /// What the sum would be.
    pub fn reserve(&self, more: u64, max: u64) -> Result<(), u64> {
        let Share { sum, held } = &*self.0;
        let wanted = |sum: i64| u64::try_from(sum).unwrap_or(0).saturating_add(more);
        let within = |sum: i64| (wanted(sum) <= max).then(|| sum + signed(more));
        // Relaxed, here and below: the numbers order nothing, and each change of one is a single step.
        sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).map_err(wanted)?;
        let added = |held: u64| (held != ENDED).then(|| held + more);
        if held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added).is_err() {
            sum.fetch_sub(signed(more), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sets the share to what the connection has in the end.
    pub fn set(&self, now: u64) {
        let Share { sum, held } = &*self.0;
        let set = |held: u64| (held != ENDED).then_some(now);
        if let Ok(before) = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set) {
            sum.fetch_add(signed(now) - signed(before), Ordering::Relaxed);
        }
    }

    /// Gives back what the share has, for good. Any thread may call it.
    pub fn end(&self) {
        let before = self.0.held.swap(ENDED, Ordering::Relaxed);
        if before != ENDED {
            self.0.sum.fetch_sub(signed(before), Ordering::Relaxed);
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_is_that_of_the_shares() {
        let sum = Arc::default();
        let (one, other) = (UserShare::of(&sum), UserShare::of(&sum));
        assert_eq!((one.reserve(6, 10), other.reserve(5, 10), other.reserve(4, 10)), (Ok(()), Err(11), Ok(())));
        one.set(2);
        assert_eq!(other.reserve(4, 10), Ok(()));
        // What is there already may exceed a limit that was lowered.
        other.set(20);
        assert_eq!(one.reserve(1, 10), Err(23));
        other.end();
        assert_eq!((sum.load(Ordering::Relaxed), one.reserve(8, 10)), (2, Ok(())));
        other.set(5);
        assert_eq!((other.reserve(0, 10), sum.load(Ordering::Relaxed)), (Ok(()), 10), "it has ended");
        for share in [&one, &one, &other] {
            share.end();
        }
        assert_eq!(sum.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn threads_together_stay_within_the_limit_and_leave_nothing() {
        let sum = Arc::default();
        let shares: Vec<UserShare> = (0..4).map(|_| UserShare::of(&sum)).collect();
        let granted: u64 = std::thread::scope(|scope| {
            let reserve = |share: &UserShare| (0..1000).filter(|_| share.reserve(1, 1500).is_ok()).count() as u64;
            let threads: Vec<_> = shares.iter().map(|share| scope.spawn(move || reserve(share))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!((granted, sum.load(Ordering::Relaxed)), (1500, 1500));
        std::thread::scope(|scope| {
            for share in &shares {
                scope.spawn(move || (0..1000).for_each(|nth| share.set(nth % 7)));
                scope.spawn(move || share.end());
            }
        });
        assert_eq!(sum.load(Ordering::Relaxed), 0);
    }
}
