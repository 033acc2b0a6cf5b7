//! Questions to the authorizer that are under way, and answers that are used again.
//!
//! What always holds:
//! * A question is a token and the address of its client, known by their keyed hash: no token is kept here. A question
//!   that is under way is not asked once more: who asks meanwhile waits for the same answer.
//! * An answer is kept until its end or for a while, whichever is sooner, and only if the settings are still those of its
//!   request. Refusals are kept for a shorter time, and push out no client that was accepted.
//! * Questions under way are bounded, and an address has a quarter of them at the most.
//!
//! Time is an argument. Memory: some 400 bytes an answer, 100 a question.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::super::verify::Denial;
use super::{Answer, Waiter};
use crate::identity::Principal;

/// Refusals that are kept at the most.
const REFUSED_MAX: usize = 4096;

/// What a question is known by.
pub(super) type Tag = [u8; 32];

/// A question that is to be asked.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    tag: Tag,
    address: Option<IpAddr>,
    /// Of the settings when it began.
    epoch: u64,
    pub(super) began_ns: u64,
}

/// What there is for a question.
#[derive(Debug)]
pub(super) enum Begun {
    /// The answer, from before.
    Known(Answer),
    /// It is under way.
    Joined,
    /// It has to be asked.
    New(Ticket),
    /// Too many are under way, of all clients or of this address.
    Full,
}

#[derive(Debug)]
struct Kept<T> {
    entries: HashMap<Tag, (T, u64), RandomState>,
    /// The oldest first; also of entries that are gone.
    order: VecDeque<Tag>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { entries: HashMap::default(), order: VecDeque::new() }
    }
}

impl<T> Kept<T> {
    fn find(&self, tag: &Tag, now_ns: u64) -> Option<&T> {
        self.entries.get(tag).filter(|(_, until_ns)| now_ns < *until_ns).map(|(kept, _)| kept)
    }

    fn keep(&mut self, tag: Tag, what: T, until_ns: u64, entries_max: usize) {
        if entries_max == 0 {
            return;
        }
        if self.entries.insert(tag, (what, until_ns)).is_some() {
            return;
        }
        self.order.push_back(tag);
        while self.order.len() > entries_max {
            let oldest = self.order.pop_front();
            oldest.and_then(|oldest| self.entries.remove(&oldest));
        }
    }

    fn expire(&mut self, now_ns: u64) {
        self.entries.retain(|_, (_, until_ns)| now_ns < *until_ns);
        let entries = &self.entries;
        self.order.retain(|tag| entries.contains_key(tag));
    }

    fn remove(&mut self, tag: &Tag) {
        self.entries.remove(tag);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Changes with the settings.
    epoch: u64,
    accepted: Kept<Arc<Principal>>,
    refused: Kept<Denial>,
    under_way: HashMap<Tag, Vec<Waiter>, RandomState>,
    of_address: HashMap<Option<IpAddr>, usize, RandomState>,
}

impl Table {
    /// Begins a question. `is_fresh`: answers from before are not wanted.
    pub(super) fn begin(
        &mut self,
        tag: Tag,
        address: Option<IpAddr>,
        waiter: Waiter,
        is_fresh: bool,
        requests_max: usize,
        now_ns: u64,
    ) -> Begun {
        if !is_fresh && let Some(answer) = self.known(&tag, now_ns) {
            return Begun::Known(answer);
        }
        if let Some(waiters) = self.under_way.get_mut(&tag) {
            waiters.push(waiter);
            return Begun::Joined;
        }
        let of_address = self.of_address.get(&address).copied().unwrap_or(0);
        if self.under_way.len() >= requests_max || of_address >= requests_max.div_ceil(4) {
            return Begun::Full;
        }
        self.under_way.insert(tag, vec![waiter]);
        self.of_address.insert(address, of_address + 1);
        Begun::New(Ticket { tag, address, epoch: self.epoch, began_ns: now_ns })
    }

    fn known(&self, tag: &Tag, now_ns: u64) -> Option<Answer> {
        let refused = || self.refused.find(tag, now_ns).cloned().map(Err);
        self.accepted.find(tag, now_ns).cloned().map(Ok).or_else(refused)
    }

    /// Ends a question; who waits for the answer. One with a time is kept until then.
    pub(super) fn finish(
        &mut self,
        ticket: &Ticket,
        answer: &Answer,
        until_ns: Option<u64>,
        accepted_max: usize,
    ) -> Vec<Waiter> {
        if let Some(of_address) = self.of_address.get_mut(&ticket.address) {
            *of_address -= 1;
            if *of_address == 0 {
                self.of_address.remove(&ticket.address);
            }
        }
        if let Some(until_ns) = until_ns.filter(|_| ticket.epoch == self.epoch) {
            match answer {
                Ok(principal) => {
                    self.refused.remove(&ticket.tag);
                    self.accepted.keep(ticket.tag, principal.clone(), until_ns, accepted_max);
                }
                Err(denial) => {
                    self.accepted.remove(&ticket.tag);
                    self.refused.keep(ticket.tag, denial.clone(), until_ns, REFUSED_MAX);
                }
            }
        }
        self.under_way.remove(&ticket.tag).unwrap_or_default()
    }

    /// Forgets all answers: the settings have changed. Those that are under way come, and are not kept.
    pub(super) fn forget(&mut self) {
        self.epoch += 1;
        (self.accepted, self.refused) = (Kept::default(), Kept::default());
    }

    /// Forgets answers whose time is over.
    pub(super) fn expire(&mut self, now_ns: u64) {
        self.accepted.expire(now_ns);
        self.refused.expire(now_ns);
    }

    /// Answers that are kept, and questions under way.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.accepted.entries.len() + self.refused.entries.len(), self.under_way.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Cause;
    use crate::access::authorizer::tests::inbox;
    use crate::identity::{Kind, Rights};

    const REQUESTS: usize = 8;

    struct Asking {
        table: Table,
        waiter: Waiter,
    }

    impl Asking {
        fn new() -> Self {
            Self { table: Table::default(), waiter: Waiter { inbox: inbox(), number: 7 } }
        }

        fn begin(&mut self, tag: u8, address: u8, now_ns: u64) -> Begun {
            let address = Some(IpAddr::from([192, 0, 2, address]));
            self.table.begin([tag; 32], address, self.waiter.clone(), false, REQUESTS, now_ns)
        }

        fn ticket(&mut self, tag: u8, address: u8, now_ns: u64) -> Ticket {
            match self.begin(tag, address, now_ns) {
                Begun::New(ticket) => ticket,
                begun => panic!("{begun:?}"),
            }
        }
    }

    fn accepted() -> Answer {
        Ok(Arc::new(Principal::new(Kind::Authorized, "u", Arc::new(Rights::none()))))
    }

    fn refused() -> Answer {
        Err(Denial { cause: Cause::Invalid, detail: "no".to_owned() })
    }

    #[test]
    fn question_that_is_under_way_is_not_asked_again_and_all_get_the_answer() {
        let mut asking = Asking::new();
        let ticket = asking.ticket(1, 1, 0);
        assert!((0..9).all(|_| matches!(asking.begin(1, 1, 0), Begun::Joined)));
        assert_eq!(asking.table.counts(), (0, 1));
        assert_eq!(asking.table.finish(&ticket, &accepted(), Some(10), 100).len(), 10);
        assert_eq!(asking.table.counts(), (1, 0));
        assert!(asking.table.of_address.is_empty());
    }

    #[test]
    fn answer_is_used_again_until_its_end_and_no_longer() {
        let mut asking = Asking::new();
        for (tag, answer) in [(1, accepted()), (2, refused())] {
            let ticket = asking.ticket(tag, 1, 0);
            asking.table.finish(&ticket, &answer, Some(10), 100);
            assert!(matches!(asking.begin(tag, 1, 9), Begun::Known(known) if known == answer));
            let ticket = asking.ticket(tag, 1, 10);
            asking.table.finish(&ticket, &answer, None, 100);
        }
        asking.table.expire(10);
        assert_eq!(asking.table.counts(), (0, 0));
        assert!(asking.table.accepted.order.is_empty());
    }

    #[test]
    fn fresh_question_takes_no_answer_from_before_and_replaces_it() {
        let mut asking = Asking::new();
        let first = asking.ticket(1, 1, 0);
        asking.table.finish(&first, &accepted(), Some(10), 100);
        let waiter = asking.waiter.clone();
        let begun = asking.table.begin([1; 32], None, waiter, true, REQUESTS, 1);
        let Begun::New(ticket) = begun else { panic!("{begun:?}") };
        asking.table.finish(&ticket, &refused(), Some(10), 100);
        assert!(matches!(asking.begin(1, 1, 2), Begun::Known(Err(_))), "who was accepted is refused now");
        let ticket = asking.ticket(1, 1, 10);
        asking.table.finish(&ticket, &accepted(), Some(20), 100);
        assert!(matches!(asking.begin(1, 1, 11), Begun::Known(Ok(_))));
    }

    #[test]
    fn questions_under_way_are_bounded_and_an_address_has_a_quarter() {
        let mut asking = Asking::new();
        let tickets: Vec<_> = (0..REQUESTS as u8).map(|nth| asking.ticket(nth, nth / 2, 0)).collect();
        assert!(matches!(asking.begin(100, 100, 0), Begun::Full), "all are taken");
        assert!(matches!(asking.begin(0, 0, 0), Begun::Joined), "which takes none");
        for ticket in &tickets[..6] {
            asking.table.finish(ticket, &refused(), None, 100);
        }
        assert!(matches!(asking.begin(100, 3, 0), Begun::Full), "the address has two");
        assert!(matches!(asking.begin(100, 2, 0), Begun::New(_)));
    }

    #[test]
    fn answers_are_bounded_and_refusals_push_out_no_other() {
        let mut asking = Asking::new();
        for tag in 0..4 {
            let ticket = asking.ticket(tag, 1, 0);
            asking.table.finish(&ticket, &accepted(), Some(10), 3);
        }
        assert!(matches!(asking.begin(0, 1, 0), Begun::New(_)), "the oldest has made room");
        for nth in 0..2 * REFUSED_MAX as u64 {
            let tag: Tag = std::array::from_fn(|at| nth.to_le_bytes().get(at).copied().unwrap_or(255));
            let Begun::New(ticket) = asking.table.begin(tag, None, asking.waiter.clone(), false, REQUESTS, 0) else {
                panic!("question {nth}")
            };
            asking.table.finish(&ticket, &refused(), Some(10), 3);
        }
        assert_eq!(asking.table.counts().0, 3 + REFUSED_MAX);
        assert!((1..4).all(|tag| matches!(asking.begin(tag, 1, 0), Begun::Known(Ok(_)))));
    }

    #[test]
    fn answers_of_other_settings_count_no_more() {
        let mut asking = Asking::new();
        let ticket = asking.ticket(1, 1, 0);
        asking.table.finish(&ticket, &accepted(), Some(10), 100);
        let late = asking.ticket(2, 1, 0);
        asking.table.forget();
        assert_eq!(asking.table.finish(&late, &accepted(), Some(10), 100).len(), 1, "who waits is answered");
        assert!((1..3).all(|tag| matches!(asking.begin(tag, 1, 0), Begun::New(_))));
    }
}
