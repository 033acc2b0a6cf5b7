//! What requests and clients of a shard wait for: answers of the authorizer about their tokens.
//!
//! The shard is woken for an answer, takes it from its inbox, and wakes the task of the request, or goes on with the
//! client whose token it is about. What always holds: the shard never waits; a request that ends before its answer comes
//! leaves nothing behind, and its answer is dropped.
//!
//! Memory: some 100 bytes for each that waits, of which the connections of the shard are the limit.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use foldhash::fast::RandomState;

use crate::access::{Answer, Asker, Inbox};
use crate::io::SlotId;
use crate::wake::ShardWaker;

/// Who waits for an answer.
enum Waiting {
    Request(Rc<Awaited>),
    Client(AskingClient),
}

/// A client whose token is being asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskingClient {
    pub(super) slot_id: SlotId,
    pub(super) address: Option<IpAddr>,
}

/// The answer for a request, once it is there, and the task of the request.
#[derive(Default)]
struct Awaited {
    answer: Cell<Option<Answer>>,
    task: Cell<Option<Waker>>,
}

/// See the module.
pub(super) struct Questions {
    inbox: Arc<Inbox>,
    /// The number of the last question.
    last: Cell<u64>,
    waiting: RefCell<HashMap<u64, Waiting, RandomState>>,
    /// Answers that came and are not passed on yet.
    answers: RefCell<VecDeque<(u64, Answer)>>,
}

impl Questions {
    pub(super) fn new(waker: Arc<ShardWaker>) -> Self {
        let inbox = Arc::new(Inbox::new(waker));
        Self { inbox, last: Cell::new(0), waiting: RefCell::default(), answers: RefCell::default() }
    }

    /// For a question about the token of a client at this address.
    pub(super) fn asker(&self, client: Option<IpAddr>, is_fresh: bool) -> Asker<'_> {
        self.last.set(self.last.get() + 1);
        Asker { client, is_fresh, inbox: &self.inbox, number: self.last.get() }
    }

    /// True if there are answers to be passed on.
    pub(super) fn has_answers(&self) -> bool {
        self.inbox.has_answers() || !self.answers.borrow().is_empty()
    }

    /// The answer to the question with this number.
    pub(super) async fn answer(&self, number: u64) -> Answer {
        let awaited = Rc::new(Awaited::default());
        self.waiting.borrow_mut().insert(number, Waiting::Request(awaited.clone()));
        let _entry = Entry { questions: self, number };
        poll_fn(|context| match awaited.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                awaited.task.set(Some(context.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }

    /// Notes that a client waits for the answer to the question with this number.
    pub(super) fn expect(&self, number: u64, client: AskingClient) {
        self.waiting.borrow_mut().insert(number, Waiting::Client(client));
    }

    /// Passes answers on to requests until there is one for a client: that one.
    pub(super) fn next(&self) -> Option<(AskingClient, Answer)> {
        let mut answers = self.answers.borrow_mut();
        answers.extend(self.inbox.take());
        while let Some((number, answer)) = answers.pop_front() {
            match self.waiting.borrow_mut().remove(&number) {
                Some(Waiting::Client(client)) => return Some((client, answer)),
                Some(Waiting::Request(awaited)) => {
                    awaited.answer.set(Some(answer));
                    awaited.task.take().into_iter().for_each(Waker::wake);
                }
                // It has not waited for it.
                None => {}
            }
        }
        None
    }
}

/// Removes a request that does not wait any more.
struct Entry<'a> {
    questions: &'a Questions,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.questions.waiting.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use futures_lite::future::{block_on, poll_once};
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::access::{Cause, Denial};

    fn questions() -> Questions {
        let event = || -> OwnedFd { eventfd(0, EventfdFlags::empty()).unwrap() };
        Questions::new(Arc::new(ShardWaker::new(event(), event())))
    }

    fn refused(detail: &str) -> Answer {
        Err(Denial { cause: Cause::Late, detail: detail.to_owned() })
    }

    #[test]
    fn each_gets_its_own_answer_and_one_that_has_left_leaves_nothing() {
        let questions = questions();
        let numbers = [(); 3].map(|()| questions.asker(None, false).number);
        let client = AskingClient { slot_id: SlotId { index: 7, generation: 1 }, address: None };
        questions.expect(numbers[2], client);
        block_on(async {
            let mut staying = std::pin::pin!(questions.answer(numbers[0]));
            let mut leaving = Box::pin(questions.answer(numbers[1]));
            assert!(poll_once(staying.as_mut()).await.is_none() && poll_once(leaving.as_mut()).await.is_none());
            assert_eq!(questions.waiting.borrow().len(), 3);
            drop(leaving);
            assert_eq!(questions.waiting.borrow().len(), 2);
            let answers = ["a", "b", "c"].map(refused);
            questions.answers.borrow_mut().extend(numbers.into_iter().zip(answers));
            assert!(questions.has_answers());
            let (of_client, answer) = questions.next().expect("that of the client");
            assert!(of_client.slot_id == client.slot_id && answer == refused("c"));
            assert_eq!(poll_once(staying.as_mut()).await, Some(refused("a")));
        });
        assert!(questions.next().is_none() && !questions.has_answers());
        assert!(questions.waiting.borrow().is_empty());
    }
}
