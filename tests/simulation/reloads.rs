//! Settings that are reloaded give the connected clients of a user other rights.

use tickcast::identity::{Principal, Verdict};
use tickcast::shard::Shard;

use crate::rights::USERS;
use crate::trail::Event;
use crate::watch::Watch;
use crate::world::World;

impl World {
    /// A user has other rights from now on: each of its clients is told, after what it has asked for itself. All of them
    /// have been told of the last ones.
    pub fn settings_are_reloaded(&mut self) {
        let is_being_told = || self.clients.iter().any(|client| !client.over && client.oracle.renewed.is_some());
        if self.rights.is_empty() || !self.rights_dice.chance(self.plan.reloads) || is_being_told() {
            return;
        }
        let user = self.rights_dice.below(USERS);
        let rights = self.rights_dice.below(self.rights.len() as u32) as usize;
        self.reloaded = Some((user, self.rights[rights].clone()));
        self.trail.add(Event::Reloaded { user, rights });
        for index in 0..self.nodes.len() {
            let mut from = Some(0);
            while let Some(slot) = from {
                from = self.judge(index, |shard, now_ns, verdict| shard.review(slot, 1024, now_ns, verdict));
            }
            self.nodes[index].poke();
        }
    }

    /// Clients of which a request was under way are judged again when it is done.
    pub fn review_postponed(&mut self, index: usize) {
        if self.judge(index, |shard, now_ns, verdict| shard.review_postponed(now_ns, verdict)) {
            self.nodes[index].poke();
        }
    }

    fn judge<T>(
        &mut self,
        index: usize,
        review: impl FnOnce(&mut Shard<Watch>, u64, &mut dyn FnMut(&Principal) -> Verdict) -> T,
    ) -> T {
        let (node, reloaded) = (&mut self.nodes[index], self.reloaded.clone());
        let mut judged = Vec::new();
        let mut verdict = |principal: &Principal| {
            let conn: usize =
                principal.jti.as_deref().and_then(|conn| conn.parse().ok()).expect("a client's connection");
            let other = reloaded
                .as_ref()
                .filter(|(user, entitled)| *principal.user == format!("u{user}") && !entitled.is_of(principal));
            judged.push((conn, other.is_some()));
            other.map_or(Verdict::Keep, |(user, entitled)| Verdict::Renew(entitled.principal(*user, conn)))
        };
        node.served.see(self.now_ns);
        let outcome = review(&mut node.shard, self.now_ns, &mut verdict);
        for (conn, is_renewed) in judged {
            let is_it = |client: &&mut crate::client::Client| client.node == index && client.conn == conn;
            let Some(client) = self.clients.iter_mut().find(is_it) else { continue };
            let rights = reloaded.as_ref().map(|(_, entitled)| entitled.clone());
            self.seen.renewed += u64::from(is_renewed && client.oracle.renewed.is_none());
            // One that was postponed is judged twice, and may have brought these rights itself meanwhile.
            client.oracle.renewed = rights.filter(|_| is_renewed);
            if is_renewed {
                client.deserves.push(4003);
            }
        }
        outcome
    }
}
