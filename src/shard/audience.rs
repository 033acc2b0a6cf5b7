//! What has gathered for each audience in this turn, and who its members are.
//!
//! A record is dispatched by its number in the turn; an audience's gathering is a chain of such numbers in one shared
//! vector, so that an audience holds no buffer of its own and the next turn starts by forgetting two vectors.
//!
//! Cost: marking a record for an audience is some 10 ns, whoever the audience is; memory 72 bytes an audience, 4 a member.

use super::interest::AudienceId;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Row {
    members: Vec<u32>,
    head: u32,
    tail: u32,
    last_record: u32,
    /// Which member is the first of the next sweep: nobody is always last.
    rotation: u32,
    sent_ns: u64,
}

impl Default for Row {
    fn default() -> Self {
        Self { members: Vec::new(), head: NONE, tail: NONE, last_record: NONE, rotation: 0, sent_ns: 0 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    record: u32,
    next: u32,
}

/// All audiences of a shard, by id.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    rows: Vec<Row>,
    nodes: Vec<Node>,
    touched: Vec<AudienceId>,
}

impl Audiences {
    /// Makes room for ids below `count`.
    pub(super) fn grow(&mut self, count: usize) {
        if self.rows.len() < count {
            self.rows.resize_with(count, Row::default);
        }
    }

    /// Adds a client; returns its place.
    pub(super) fn join(&mut self, audience: AudienceId, client: u32, now_ns: u64) -> u32 {
        self.grow(audience as usize + 1);
        let row = &mut self.rows[audience as usize];
        if row.members.is_empty() {
            row.sent_ns = now_ns;
        }
        row.members.push(client);
        row.members.len() as u32 - 1
    }

    /// Removes the client at `place`; returns the one that stands there now, which has to learn it.
    pub(super) fn leave(&mut self, audience: AudienceId, place: u32) -> Option<u32> {
        let members = &mut self.rows[audience as usize].members;
        members.swap_remove(place as usize);
        members.get(place as usize).copied()
    }

    /// Forgets what gathered in the last turn.
    pub(super) fn begin_turn(&mut self) {
        for audience in self.touched.drain(..) {
            let row = &mut self.rows[audience as usize];
            (row.head, row.tail, row.last_record) = (NONE, NONE, NONE);
        }
        self.nodes.clear();
    }

    /// Gathers a record of this turn for an audience; a second time in a row changes nothing.
    pub(super) fn mark(&mut self, audience: AudienceId, record: u32) {
        let row = &mut self.rows[audience as usize];
        if row.members.is_empty() || row.last_record == record {
            return;
        }
        row.last_record = record;
        let node = self.nodes.len() as u32;
        self.nodes.push(Node { record, next: NONE });
        if row.tail == NONE {
            row.head = node;
            self.touched.push(audience);
        } else {
            self.nodes[row.tail as usize].next = node;
        }
        row.tail = node;
    }

    /// Audiences for which something has gathered, in the order in which it came.
    pub(super) fn touched(&self) -> usize {
        self.touched.len()
    }

    /// One of them.
    pub(super) fn touched_at(&self, index: usize) -> AudienceId {
        self.touched[index]
    }

    /// The records that gathered for an audience, the oldest first.
    pub(super) fn gathered(&self, audience: AudienceId) -> impl Iterator<Item = u32> + Clone + '_ {
        let mut node = self.rows[audience as usize].head;
        std::iter::from_fn(move || {
            let here = self.nodes.get(node as usize)?;
            node = here.next;
            Some(here.record)
        })
    }

    /// The members, in the order of this sweep.
    pub(super) fn members(&self, audience: AudienceId) -> impl Iterator<Item = u32> + '_ {
        let row = &self.rows[audience as usize];
        let start = row.rotation as usize % row.members.len().max(1);
        row.members[start..].iter().chain(&row.members[..start]).copied()
    }

    /// How many members there are.
    pub(super) fn members_len(&self, audience: AudienceId) -> usize {
        self.rows[audience as usize].members.len()
    }

    /// Notes that the audience was served, and turns the order of its members by a step that visits all.
    pub(super) fn served(&mut self, audience: AudienceId, now_ns: u64) {
        let row = &mut self.rows[audience as usize];
        row.sent_ns = now_ns;
        row.rotation = (row.rotation + 1) % row.members.len().max(1) as u32;
    }

    /// Audiences with members that have had nothing since `before_ns`.
    pub(super) fn silent_since(&self, before_ns: u64) -> impl Iterator<Item = AudienceId> + '_ {
        let silent = move |row: &Row| !row.members.is_empty() && row.sent_ns <= before_ns;
        (0u32..).zip(&self.rows).filter(move |(_, row)| silent(row)).map(|(audience, _)| audience)
    }
}
