//! A book as a channel of the venue shows it: to some depth, changed in some interval.
//!
//! The book of the market changes at any time. A view collects changes and publishes them in one message when its interval
//! is over. So an id that a REST snapshot states may lie within the ids of the next message.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::Listed;
use super::book::{Book, Change, Side, number, zero_like};
use super::step::Ids;

/// A depth that stands for the whole book.
pub const WHOLE: usize = usize::MAX;

/// A change of a view, as one message.
#[derive(Clone, Debug)]
pub struct Update {
    /// The levels, each at its new size.
    pub changes: Vec<Change>,
    /// The ids of the changes of the book in it; `previous` is the last one of the message before.
    pub ids: Ids,
    /// The number of the message, contiguous.
    pub number: u64,
    /// The view after it.
    pub book: Book,
    /// The recorded message, if it is unchanged.
    pub raw: Option<String>,
}

/// A view.
#[derive(Debug)]
pub struct View {
    depth: usize,
    interval_ns: u64,
    with_leaving: bool,
    /// The best levels as they were published, unless the view is of the whole book.
    published: Book,
    /// What has changed since then.
    touched: BTreeMap<(Side, Decimal), Change>,
    first_id: Option<u64>,
    last_id: u64,
    number: u64,
    /// When the next message is to be sent, ns of the session.
    due_ns: Option<u64>,
    raw: Option<String>,
    repeated: Vec<Change>,
}

impl View {
    /// A view of a book. `with_leaving` says that levels which leave the view are removed by a message.
    pub fn new(listed: &Listed, depth: usize, interval_ns: u64, with_leaving: bool) -> Self {
        let published = if depth == WHOLE { Book::default() } else { listed.book.top(depth) };
        Self {
            depth,
            interval_ns,
            with_leaving,
            published,
            touched: BTreeMap::new(),
            first_id: None,
            last_id: listed.update_id,
            number: 1,
            due_ns: None,
            raw: None,
            repeated: Vec::new(),
        }
    }

    /// Notes a change of the book at a time of the session.
    pub fn note(&mut self, changes: &[Change], ids: Ids, at_ns: u64, raw: Option<&str>) {
        // The text can be sent as it is if nothing else is to be sent with it.
        self.raw = if self.first_id.is_none() { raw.map(str::to_owned) } else { None };
        self.repeated.clear();
        for change in changes {
            let before = self.touched.insert((change.side, number(&change.px)), change.clone());
            self.repeated.extend(before.filter(|before| self.interval_ns == 0 && !before.is_removal()));
        }
        self.first_id.get_or_insert(ids.first);
        self.due_ns.get_or_insert(at_ns + self.interval_ns);
    }

    /// When the next message is due, ns of the session.
    pub fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// The message of all changes since the last one; `None` if the view has not changed.
    pub fn publish(&mut self, listed: &Listed) -> Option<Update> {
        self.due_ns = None;
        let first = self.first_id.take()?;
        let touched = std::mem::take(&mut self.touched);
        let raw = self.raw.take();
        let mut changes = std::mem::take(&mut self.repeated);
        if self.depth == WHOLE {
            changes.clear();
            changes.extend(touched.into_values().map(|change| Self::current(listed, change)));
        } else {
            let top = listed.book.top(self.depth);
            let new = self.published.changes_to(&listed.book, self.depth, self.with_leaving);
            // The same price twice in a message, where the second one is among the changes.
            changes.retain(|before| new.iter().any(|change| change.side == before.side && change.px == before.px));
            changes.extend(new);
            self.published = top;
        }
        // Of a whole book, the ids of a message follow those of the one before.
        if changes.is_empty() && self.depth != WHOLE {
            return None;
        }
        let previous = Some(std::mem::replace(&mut self.last_id, listed.update_id));
        self.number += 1;
        let ids = Ids { first, last: listed.update_id, previous };
        let book = if self.depth == WHOLE { Book::default() } else { self.published.clone() };
        Some(Update { changes, ids, number: self.number, book, raw })
    }

    /// The book that a snapshot shows: the view, or the whole book.
    pub fn snapshot<'a>(&'a self, listed: &'a Listed) -> &'a Book {
        if self.depth == WHOLE { &listed.book } else { &self.published }
    }

    /// The id of the last published change.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// The number of the last message.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Begins the numbers of messages again, as after a restart of the venue.
    pub fn restart(&mut self) {
        self.number = 1;
    }

    fn current(listed: &Listed, change: Change) -> Change {
        let sz = match listed.book.size(change.side, &change.px) {
            Some(sz) => sz.to_owned(),
            None => zero_like(&change.sz),
        };
        Change { sz, ..change }
    }
}
