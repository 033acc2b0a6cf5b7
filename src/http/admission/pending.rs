//! Who is at one shard's door and is no seat: requests under way, answers that are not yet read, echoes.
//!
//! What always holds: a visitor who has sent no whole request keeps nobody out. Where the lobby is full, the one that has
//! waited longest goes; a good client sends its request within a round trip, so that it is not the one. Who is being
//! served (a handshake that waits for its turn, an echo) is not sent away for somebody new.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// One shard's visitors, by their arrival.
#[derive(Default)]
pub(crate) struct Lobby(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    next: u64,
    len: usize,
    /// Those who are waited for.
    idle: BTreeMap<u64, Rc<Notice>>,
    talking: BTreeMap<u64, Rc<Notice>>,
}

/// How somebody new was let in.
pub(crate) enum Entered {
    /// There was room.
    Freely(Visit),
    /// Somebody who had sent nothing whole was asked to go for it.
    InPlaceOfAnother(Visit),
    /// Everybody is being served.
    Full,
}

impl Lobby {
    /// Lets somebody in where fewer than `visitors_max` are there, or one of them can go.
    pub(crate) fn enter(self: &Rc<Self>, visitors_max: usize) -> Entered {
        let mut inner = self.0.borrow_mut();
        let evicted = if inner.len < visitors_max { None } else { Some(inner.idle.pop_first()) };
        if let Some(None) = evicted {
            return Entered::Full;
        }
        let id = inner.next;
        inner.next += 1;
        inner.len += 1;
        let notice = Rc::new(Notice::default());
        inner.idle.insert(id, notice.clone());
        let visit = Visit { lobby: self.clone(), id, notice };
        match evicted {
            Some(Some((_, oldest))) => {
                oldest.give();
                Entered::InPlaceOfAnother(visit)
            }
            _ => Entered::Freely(visit),
        }
    }

    /// How many there are, with those who are on their way out.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len
    }

    /// How many of them are being served: they are not waited for, and cannot be asked to go for somebody new.
    pub(crate) fn served(&self) -> usize {
        let inner = self.0.borrow();
        inner.len - inner.idle.len()
    }

    /// How many of them are talking.
    pub(crate) fn talking(&self) -> usize {
        self.0.borrow().talking.len()
    }

    /// Asks all who are talking to come to an end.
    pub(crate) fn send_away(&self) {
        self.0.borrow().talking.values().for_each(|notice| notice.give());
    }
}

/// One visitor; its place is free when this is dropped.
pub(crate) struct Visit {
    lobby: Rc<Lobby>,
    id: u64,
    notice: Rc<Notice>,
}

impl Visit {
    /// Is waited for: for a request, or to have read its answer. It goes when somebody new wants its place.
    pub(crate) fn idle(&self) {
        let mut inner = self.lobby.0.borrow_mut();
        inner.talking.remove(&self.id);
        if !self.notice.given.get() {
            inner.idle.insert(self.id, self.notice.clone());
        }
    }

    /// Has sent its request, and is being served.
    pub(crate) fn served(&self) {
        self.lobby.0.borrow_mut().idle.remove(&self.id);
    }

    /// Is a conversation, until the server stops.
    pub(crate) fn talks(&self) {
        let mut inner = self.lobby.0.borrow_mut();
        inner.idle.remove(&self.id);
        inner.talking.insert(self.id, self.notice.clone());
    }

    /// Waits until it is asked to go.
    pub(crate) async fn notice(&self) {
        poll_fn(|context| {
            if self.notice.given.get() {
                return Poll::Ready(());
            }
            self.notice.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut inner = self.lobby.0.borrow_mut();
        inner.len -= 1;
        inner.idle.remove(&self.id);
        inner.talking.remove(&self.id);
    }
}

/// That a visitor should go.
#[derive(Default)]
struct Notice {
    given: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Notice {
    fn give(&self) {
        self.given.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(visit: &Visit) -> bool {
        futures_lite::future::block_on(futures_lite::future::poll_once(visit.notice())).is_some()
    }

    fn enter(lobby: &Rc<Lobby>) -> (Visit, bool) {
        match lobby.enter(2) {
            Entered::Freely(visit) => (visit, false),
            Entered::InPlaceOfAnother(visit) => (visit, true),
            Entered::Full => panic!("somebody can go"),
        }
    }

    #[test]
    fn in_a_full_lobby_the_one_that_has_waited_longest_goes() {
        let lobby = Rc::new(Lobby::default());
        let ((first, _), (second, _)) = (enter(&lobby), enter(&lobby));
        let (third, evicted) = enter(&lobby);
        assert!(evicted && told(&first) && !told(&second) && !told(&third));
        drop(first);
        assert_eq!(lobby.len(), 2);
    }

    #[test]
    fn who_is_served_or_talks_is_not_sent_away_for_somebody_new() {
        let lobby = Rc::new(Lobby::default());
        let ((served, _), (talker, _)) = (enter(&lobby), enter(&lobby));
        served.served();
        talker.talks();
        assert!(matches!(lobby.enter(2), Entered::Full));
        served.idle();
        let (newest, evicted) = enter(&lobby);
        assert!(evicted && told(&served) && !told(&talker));
        served.idle();
        newest.served();
        assert!(matches!(lobby.enter(2), Entered::Full), "who was told to go is not told twice");
        lobby.send_away();
        assert!(told(&talker) && !told(&newest));
    }
}
