//! Owns the order of clients whose requests wait for memory, so that the next one is found without a look at all of them.
//! Must not know memory.

use std::collections::BTreeSet;

/// The place of a request in the line, by its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub(super) u64);

/// The order of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    PassedOver,
    Holds(usize),
}

/// The order of requests.
pub(super) type Rank = (Turn, Ticket);

/// What the order has of a client that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) turn: Turn,
    /// Its first request.
    pub(super) head: Ticket,
    /// That need not leave anything to others.
    pub(super) is_small: bool,
    /// What was granted when one of its requests had an answer.
    pub(super) seen: u64,
    /// Of its requests that hold memory.
    pub(super) holders: Option<Holders>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Holders {
    pub(super) last: Ticket,
    /// What must be free for the one that wants least.
    pub(super) least: usize,
}

/// Clients, by what is asked for.
#[derive(Debug, Default)]
pub(super) struct Order {
    heads: BTreeSet<Rank>,
    small: BTreeSet<Rank>,
    /// The last request of each client that holds memory.
    last: BTreeSet<Rank>,
    /// What must be free, with the last request that holds memory.
    least: BTreeSet<(usize, Ticket)>,
    /// Of those that are not passed over, with their first request.
    seen: BTreeSet<(u64, Ticket)>,
}

impl Order {
    pub(super) fn insert(&mut self, place: &Place) {
        let Place { turn, head, is_small, seen, holders } = *place;
        self.heads.insert((turn, head));
        if is_small {
            self.small.insert((turn, head));
        }
        if turn != Turn::PassedOver {
            self.seen.insert((seen, head));
        }
        if let Some(Holders { last, least }) = holders {
            self.last.insert((turn, last));
            self.least.insert((least, last));
        }
    }

    pub(super) fn remove(&mut self, place: &Place) {
        let Place { turn, head, seen, holders, .. } = *place;
        self.heads.remove(&(turn, head));
        self.small.remove(&(turn, head));
        self.seen.remove(&(seen, head));
        if let Some(Holders { last, least }) = holders {
            self.last.remove(&(turn, last));
            self.least.remove(&(least, last));
        }
    }

    /// The first request of all.
    pub(super) fn first(&self) -> Option<Rank> {
        self.heads.first().copied()
    }

    /// The first request of those that need not leave anything to others, and are the first ones of their clients.
    pub(super) fn first_small(&self) -> Option<Rank> {
        self.small.first().copied()
    }

    /// The last request that holds memory.
    pub(super) fn last_holder(&self) -> Option<Ticket> {
        self.last.last().map(|(_, ticket)| *ticket)
    }

    /// A request of each client of which one that holds memory can go on, with so much free.
    pub(super) fn that_go_on(&self, free: usize) -> impl Iterator<Item = Ticket> {
        self.least.range(..(free + 1, Ticket(0))).map(|(_, ticket)| *ticket)
    }

    /// The first request of a client that counts as passed over, because nothing of it had an answer since `granted` was this or less.
    pub(super) fn passed_over(&self, granted: u64) -> Option<Ticket> {
        self.seen.first().filter(|(seen, _)| *seen <= granted).map(|(_, ticket)| *ticket)
    }
}
