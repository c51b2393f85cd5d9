//! Owns who gets memory next, of the requests that wait for it: a state without a clock.
//! Must not know requests or how they wait.
//!
//! # Order
//! A request that holds memory gives it back when it has ended, so it gets more as soon as that is free. One that holds none *begins* in
//! its turn: after the requests of its client that wait and came before it, and the client that holds the least comes first. So a client
//! with many large bodies waits for its own ones, and not others for it:
//!
//! ```text
//! free 1   a holds 6 (3 requests, all of which want 2 more), b comes and wants 2
//! nobody that holds memory goes on    the last request of a is refused: it gives 2 back
//! free 3   b gets 2                   then a waits for 2, and 1 is free
//! ```
//!
//! A client that holds more than a single request may leaves a quarter of all memory to others, also while its bodies stand still.
//! A request that must leave it is not in the way of other clients that need not:
//!
//! ```text
//! of 16, one request may have 4, free 5    c holds 3 and wants 3 more: it waits, and d, which holds 3, gets 1
//! ```
//!
//! # Bound
//! A client that waits is *passed over* when others have got as many units as there are at all, and none of its requests had an answer
//! meanwhile. Then it comes before the others, among such clients by arrival, and nobody else begins. Others do not wait for one that
//! holds more than a single request may, or wants more than they could give back. If it must leave a quarter that is not there, one of its
//! own requests is answered at once: one that holds memory gets more if it can, else the last of these is refused, and if none of these
//! waits, its first one.
//!
//! ```text
//! of 4, free 0    a holds 2 and wants 1 more; others hold 2, and as soon as one ends, the next one gets its 2
//! the second of these has begun: a is passed over, the third waits    when the second has ended, a gets 1
//! ```
//!
//! So a request that waits is answered after at most `own * (all * (m * (own + 1) + 1) + 2 * p)` grants to others, where `p` requests are
//! there when it comes (they wait or hold memory), `m` of them of its client; `all` is all memory, and `own` what one request wants at most.
//! Those that are refused end; requests that stand still are granted nothing, and the time of those that wait is limited elsewhere.
//!
//! - Before it, no request of its client that comes later begins. So its client has at most `m * (own + 1)` answers before.
//! - Between two answers of the client, others get at most `all` units until it is passed over. From then on, only requests begin
//!   that came before it, each once: `p` in all. They, and those that held memory (`all` at most), grow by less than `own` each.
//! - It does not wait for what nobody gives back: if every request that holds memory waits, the last one is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::http::client::Client;

/// The place of a request in the line, by its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What became of a request that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Granted,
    Refused,
}

/// Units of memory: those that are free, and those of clients.
#[derive(Debug)]
pub(super) struct HeldLine<W> {
    all: usize,
    /// What a client may hold at any rate, if it is free: as much as one request may have.
    own: usize,
    free: usize,
    /// Of requests that do not wait for more.
    moving: usize,
    /// Clients that hold any, or wait.
    clients: HashMap<Client, Share>,
    line: BTreeMap<Ticket, Waiting<W>>,
    arrived: u64,
    /// Units that were ever granted.
    granted: u64,
}

/// What a client has.
#[derive(Debug, Default)]
struct Share {
    held: usize,
    /// Its requests without an answer.
    waits: BTreeSet<Ticket>,
    /// What was granted when the last of its requests had an answer, or when it began to wait.
    seen: u64,
}

#[derive(Debug)]
struct Waiting<W> {
    client: Client,
    /// What the request has.
    held: usize,
    more: usize,
    /// None while it waits.
    answer: Option<Answer>,
    /// Dropped with the answer, which wakes the request.
    wake: Option<W>,
}

/// The order of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    PassedOver,
    Holds(usize),
}

/// The order of requests.
type Rank = (Turn, Ticket);

impl<W> HeldLine<W> {
    pub(super) fn new(all: usize, own: usize) -> Self {
        let (clients, line) = (HashMap::new(), BTreeMap::new());
        Self { all, own, free: all, moving: 0, clients, line, arrived: 0, granted: 0 }
    }

    /// A request that has `held` wants more. `wake` is dropped when it has its answer, perhaps at once.
    pub(super) fn enter(&mut self, client: Client, held: usize, more: usize, wake: W) -> Ticket {
        self.moving -= held;
        let ticket = Ticket(self.arrived);
        self.arrived += 1;
        let share = self.clients.entry(client.clone()).or_default();
        if share.waits.is_empty() {
            share.seen = self.granted;
        }
        share.waits.insert(ticket);
        self.line.insert(ticket, Waiting { client, held, more, answer: None, wake: Some(wake) });
        self.serve();
        ticket
    }

    /// The request waits no longer; whether it has got what it wanted.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let waited = self.line.remove(&ticket).expect("it leaves once");
        if waited.answer.is_none() {
            self.moving += waited.held;
            self.change(&waited.client, |share| {
                share.waits.remove(&ticket);
            });
            // Perhaps it was in the way.
            self.serve();
        }
        waited.answer == Some(Answer::Granted)
    }

    /// A request that does not wait gives units back.
    pub(super) fn give_back(&mut self, client: &Client, units: usize) {
        self.free += units;
        self.moving -= units;
        self.change(client, |share| share.held -= units);
        self.serve();
    }

    /// Of a client that holds memory or waits.
    fn change(&mut self, client: &Client, change: impl FnOnce(&mut Share)) {
        let share = self.clients.get_mut(client).expect("it is there as long as it holds memory or waits");
        change(share);
        if share.held == 0 && share.waits.is_empty() {
            self.clients.remove(client);
        }
    }

    fn share(&self, waiting: &Waiting<W>) -> &Share {
        &self.clients[&waiting.client]
    }

    fn rank(&self, ticket: Ticket, share: &Share) -> Rank {
        let is_passed_over = self.granted - share.seen >= self.all as u64;
        (if is_passed_over { Turn::PassedOver } else { Turn::Holds(share.held) }, ticket)
    }

    /// What must be free when the request has got what it wants.
    fn left_to_others(&self, waiting: &Waiting<W>) -> usize {
        let after = self.share(waiting).held + waiting.more;
        if after <= self.own { 0 } else { self.all / 4 }
    }

    fn may_have(&self, waiting: &Waiting<W>) -> bool {
        waiting.more + self.left_to_others(waiting) <= self.free
    }

    /// Whether others, which must not wait for this client, would do so if they waited for its first request.
    fn keeps_itself_waiting(&self, head: &Waiting<W>) -> bool {
        let (held, left) = (self.share(head).held, self.left_to_others(head));
        left > 0 && (held > self.own || held + head.more + left > self.all)
    }

    /// Requests without an answer.
    fn waiting(&self) -> impl Iterator<Item = (Rank, &Waiting<W>)> {
        let waiting = self.line.iter().filter(|(_, waiting)| waiting.answer.is_none());
        waiting.map(|(ticket, waiting)| (self.rank(*ticket, self.share(waiting)), waiting))
    }

    /// The first request of each client that waits.
    fn heads(&self) -> impl Iterator<Item = (Rank, &Waiting<W>)> {
        let heads = self.clients.values().filter_map(|share| Some((share, share.waits.first()?)));
        heads.map(|(share, ticket)| (self.rank(*ticket, share), &self.line[ticket]))
    }

    /// Answers requests as far as there is memory, or nobody would give any back.
    fn serve(&mut self) {
        while let Some((ticket, answer)) = self.next() {
            self.answer(ticket, answer);
        }
    }

    /// The next answer, if there is one now.
    fn next(&self) -> Option<(Ticket, Answer)> {
        let (first, head) = self.heads().min_by_key(|(rank, _)| *rank)?;
        if first.0 == Turn::PassedOver && self.keeps_itself_waiting(head) && !self.may_have(head) {
            return Some(self.among_its_own(first.1, &head.client));
        }
        if let Some(next) = self.next_granted(first) {
            return Some((next, Answer::Granted));
        }
        if self.moving > 0 {
            return None;
        }
        let last = self.waiting().filter(holds).map(|(rank, _)| rank).max();
        // If nobody holds memory, the first one wants more than there is.
        Some((last.unwrap_or(first).1, Answer::Refused))
    }

    fn next_granted(&self, first: Rank) -> Option<Ticket> {
        // What others must leave is for these, until one of the others is passed over.
        let is_passed_over = first.0 == Turn::PassedOver;
        let small = self.heads().filter(|_| !is_passed_over).filter(|(_, waiting)| self.left_to_others(waiting) == 0);
        let first_small = small.map(|(rank, _)| rank).min();
        let has_turn = |one: &(Rank, &Waiting<W>)| holds(one) || one.0 == first || Some(one.0) == first_small;
        let may_go = self.waiting().filter(has_turn).filter(|(_, waiting)| self.may_have(waiting));
        may_go.map(|(rank, _)| rank).min().map(|(_, ticket)| ticket)
    }

    /// The next answer of a client whose first request waits for memory that the client has itself.
    fn among_its_own(&self, head: Ticket, client: &Client) -> (Ticket, Answer) {
        let own = || self.waiting().filter(holds).filter(|(_, waiting)| waiting.client == *client);
        let goes_on = own().filter(|(_, waiting)| self.may_have(waiting)).map(|(rank, _)| rank).min();
        if let Some((_, next)) = goes_on {
            return (next, Answer::Granted);
        }
        let last = own().map(|(rank, _)| rank).max();
        (last.map_or(head, |(_, last)| last), Answer::Refused)
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        let waiting = self.line.get_mut(&ticket).expect("it is in the line");
        waiting.answer = Some(answer);
        waiting.wake = None;
        let more = if answer == Answer::Granted { waiting.more } else { 0 };
        self.moving += waiting.held + more;
        self.free -= more;
        self.granted += more as u64;
        let (client, seen) = (waiting.client.clone(), self.granted);
        self.change(&client, |share| {
            share.held += more;
            share.waits.remove(&ticket);
            share.seen = seen;
        });
    }

    /// Units that are free, and that moving requests hold.
    #[cfg(test)]
    pub(super) fn state(&self) -> (usize, usize) {
        assert!(self.free < self.all || self.clients.is_empty());
        (self.free, self.moving)
    }
}

fn holds<W>((_, waiting): &(Rank, &Waiting<W>)) -> bool {
    waiting.held > 0
}

#[cfg(test)]
#[path = "held_line_tests.rs"]
mod tests;
